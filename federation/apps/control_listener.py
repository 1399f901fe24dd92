"""What operators can reach of a coordinator, by their tokens, and its executor by its secret.

```
/v1/comity/…    runs: see them, begin, cancel and resume them     a token, and a role by the call
/v1/control/…   Flower's control interface                        a token, and a role by the call
/metrics        figures for Prometheus                            a viewer's token
/v1/runtime/…   Flower's runtime interface                        from this machine, and see below
/health
```

Guarantees: whatever is not named here is refused, and so is every call without a token that is good
now; roles are held against each call by name (`CONTROL_CALLS`), so that a call which a later Flower
adds is refused to everybody. Of the runtime interface only what a ServerApp needs can be called:
`acquire-task` with the executor's secret, the rest with the token of a task, both checked by
Flower. Bodies are bounded.

Leaves to others: what the calls do; tokens (`federation.operations.tokens`).
"""

import ipaddress
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final

from fastapi.security.utils import get_authorization_scheme_param
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.routing import Mount, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from compliance.records import RefusedFor
from federation.apps.refusals import Bounded, refuse
from federation.operations.roles import OperatorRole
from federation.operations.tokens import Operator

__all__ = ["CONTROL_CALLS", "RUNTIME_CALLS", "control_app"]

_VIEWER = OperatorRole.VIEWER
_OPERATOR = OperatorRole.OPERATOR
_ADMIN = OperatorRole.ADMIN

CONTROL_CALLS: Final[Mapping[str, OperatorRole | None]] = {
    **dict.fromkeys(
        (
            *("list-runs", "list-run-series", "get-run-series", "list-run-series-events"),
            *("stream-logs", "stream-run-events", "list-nodes", "list-federations"),
            *("list-apps", "list-app-associations", "show-federation"),
        ),
        _VIEWER,
    ),
    "stop-run": _OPERATOR,
    **dict.fromkeys(("start-run", "register-node", "unregister-node"), _ADMIN),
    **dict.fromkeys(
        (
            *("get-login-details", "get-auth-tokens", "refresh-auth-tokens"),
            *("list-connectors", "disconnect-connector"),
            *("begin-connector-oauth", "complete-connector-oauth"),
            *("start-automation", "list-automations", "stop-automation"),
            *("create-invitation", "list-invitations", "accept-invitation"),
            *("reject-invitation", "revoke-invitation", "pull-artifacts"),
            *("create-federation", "archive-federation", "set-federation-icon"),
            *("add-node-to-federation", "remove-node-from-federation"),
            *("remove-account-from-federation", "configure-simulation-federation"),
            *("add-app", "remove-app", "update-run-series-description"),
        )
    ),
}
"""Every call of Flower's control interface, and the role that it needs; None: nobody may."""

RUNTIME_CALLS: Final = frozenset(
    {
        *("acquire-task", "send-task-heartbeat", "pull-task-input", "push-task-output"),
        *("push-object", "pull-object", "push-messages", "pull-messages"),
        *("confirm-message-received", "get-nodes", "push-logs"),
    }
)
"""What an executor and a ServerApp call."""

_CONTROL: Final = "/v1/control/"
_RUNTIME: Final = "/v1/runtime/"
_RUNS: Final = "/v1/comity"
_METRICS: Final = "/metrics"
_CONTROL_BYTES: Final = 16 << 20
_RUNTIME_BYTES: Final = 16 << 20
_RUNS_BYTES: Final = 1 << 20

FindOperator = Callable[[str], Operator | None]
"""Returns whose token it is, if it is good now."""


def control_app(
    superlink: ASGIApp,
    runs: ASGIApp,
    *,
    find_operator: FindOperator,
    metrics: ASGIApp | None = None,
) -> ASGIApp:
    """Return the app of the control listener.

    Args:
        superlink: Flower's.
        runs: the operator's interface to runs, which finds an `Operator` in a request's state.
        find_operator: whose token it is.
        metrics: answers what is called so; nothing does where left out.
    """
    mounted = Router([Mount(_RUNS, app=runs)], redirect_slashes=False)

    async def listener(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await superlink(scope, receive, send)
            return
        path = scope["path"]
        if path == "/health":
            await superlink(scope, receive, send)
        elif path.startswith(_RUNTIME):
            await _runtime(superlink, scope, receive, send)
        elif path == _METRICS and metrics is not None:
            await _operated(metrics, find_operator, scope, receive, send)
        elif path.startswith((_CONTROL, f"{_RUNS}/")):
            app = superlink if path.startswith(_CONTROL) else mounted
            await _operated(app, find_operator, scope, receive, send)
        else:
            await refuse(
                scope, send, RefusedFor.CALL, HTTPStatus.NOT_FOUND, "there is no such call"
            )

    return Bounded(listener, limit=_limit)


async def _runtime(superlink: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"].removeprefix(_RUNTIME) not in RUNTIME_CALLS:
        await refuse(scope, send, RefusedFor.CALL, HTTPStatus.NOT_FOUND, "there is no such call")
    elif not _is_here(scope):
        told = "the executor runs on the coordinator's machine"
        await refuse(scope, send, RefusedFor.EXECUTOR, HTTPStatus.FORBIDDEN, told)
    else:
        await superlink(scope, receive, send)


async def _operated(
    app: ASGIApp, find_operator: FindOperator, scope: Scope, receive: Receive, send: Send
) -> None:
    """Hand a call on, once an operator may make it.

    1. A token that is good now. 2. A call that there is. 3. A role that suffices.
    """
    operator = await run_in_threadpool(find_operator, _token(scope))  # 1
    if operator is None:
        told = "expected an operator's token that is good now: `comity coordinator token add`"
        await refuse(scope, send, RefusedFor.TOKEN, HTTPStatus.UNAUTHORIZED, told)
        return
    scope.setdefault("state", {})["operator"] = operator
    needed = _role(scope["method"], scope["path"])  # 2
    if needed is None:
        await refuse(
            scope, send, RefusedFor.CALL, HTTPStatus.FORBIDDEN, "nobody may make this call"
        )
    elif not operator.role.may(needed):  # 3
        told = f"{operator.name} is {operator.role}, and this needs {needed}: ask an admin"
        await refuse(scope, send, RefusedFor.ROLE, HTTPStatus.FORBIDDEN, told)
    else:
        await app(scope, receive, send)


def _role(method: str, path: str) -> OperatorRole | None:
    """Return the role that a call needs, or None where nobody may make it."""
    if path.startswith(_CONTROL):
        return CONTROL_CALLS.get(path.removeprefix(_CONTROL))
    return {"GET": _VIEWER, "POST": _OPERATOR}.get(method)


def _token(scope: Scope) -> str:
    """Return the bearer token of a call, or an empty text."""
    given = Headers(scope=scope).getlist("authorization")
    if len(given) != 1:
        return ""
    scheme, token = get_authorization_scheme_param(given[0])
    return token if scheme.lower() == "bearer" else ""


def _is_here(scope: Scope) -> bool:
    """Whether a call comes from this machine."""
    client, server = scope.get("client"), scope.get("server")
    if client is None or server is None:
        return False
    return client[0] == server[0] or ipaddress.ip_address(client[0]).is_loopback


def _limit(path: str) -> int:
    if path.startswith(_RUNTIME):
        return _RUNTIME_BYTES
    return _CONTROL_BYTES if path.startswith(_CONTROL) else _RUNS_BYTES
