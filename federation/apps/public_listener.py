"""What parties and strangers can reach of a coordinator: nodes' calls, enrolment, and its health.

```
/v1/fleet/…    twelve calls of Flower's Fleet interface, less those by which a node registers itself
/health        the process answers             /ready    and would take a run
PREFIX/…       whatever is mounted, such as enrolment
```

Guarantees: nothing else of Flower's SuperLink can be reached, its control and runtime interfaces
in particular; bodies are bounded, 8 MiB for nodes, 1 MiB for what is mounted, and none elsewhere.

Leaves to others: who a node is (Flower's authentication by its key), who may enrol (the mounted
app), TLS (the server).
"""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from compliance.records import RefusedFor
from federation.apps.refusals import Bounded, refuse

__all__ = ["FLEET_CALLS", "public_app"]

FLEET_CALLS: Final = frozenset(
    {
        *("activate-node", "deactivate-node", "send-node-heartbeat"),
        *("pull-messages", "push-messages", "confirm-message-received"),
        *("pull-object", "push-object", "get-run", "get-fab"),
    }
)
"""What a node that is registered by its key calls."""

_FLEET: Final = "/v1/fleet/"
_FLEET_BYTES: Final = 8 << 20
_MOUNTED_BYTES: Final = 1 << 20


def public_app(
    superlink: ASGIApp, mounts: Mapping[str, ASGIApp], *, ready: Callable[[], bool]
) -> ASGIApp:
    """Return the app of the public listener.

    Args:
        superlink: Flower's.
        mounts: apps by the prefix of their paths, which begins with a slash; each sees paths
            without it, and has its own say in who may call.
        ready: whether a run would be taken.
    """

    def answer_ready(_: Request) -> Response:
        is_ready = ready()
        return PlainTextResponse("ready" if is_ready else "not ready", 200 if is_ready else 503)

    async def fleet(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if not path.startswith(_FLEET) or path.removeprefix(_FLEET) not in FLEET_CALLS:
            await refuse(
                scope, send, RefusedFor.CALL, HTTPStatus.NOT_FOUND, "there is no such call"
            )
            return
        await superlink(scope, receive, send)

    def healthy(_: Request) -> Response:
        return PlainTextResponse("healthy")

    def limit(path: str) -> int:
        if path.startswith(_FLEET):
            return _FLEET_BYTES
        is_mounted = any(path.startswith(f"{prefix}/") or path == prefix for prefix in mounts)
        return _MOUNTED_BYTES if is_mounted else 0

    routes: list[BaseRoute] = [
        Route("/health", healthy),
        Route("/ready", answer_ready),
        *(Mount(prefix, app=app) for prefix, app in mounts.items()),
    ]
    router = Router(routes, redirect_slashes=False, default=fleet)
    return Bounded(router, limit=limit)
