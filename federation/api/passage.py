"""What every request passes on its way in and out, whatever it asks.

Guarantees: of a request that is not admitted nothing but its head is read; no body longer than
allowed is held, nor waited for longer than allowed; whatever fails is answered by a problem; the
access log tells method, route as it is written in the schema, status and client, and nothing of
what was asked.

Leaves to others: who is admitted (`calls`), what is asked (`application`).
"""

import logging
from collections.abc import Callable, Mapping
from typing import Final

import anyio
import anyio.to_thread
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from federation.api import problems
from federation.api.clients import Client
from federation.api.problems import Problem, ProblemError, problem_of

__all__ = ["PROBLEM_TYPE", "Passage"]

PROBLEM_TYPE: Final = "application/problem+json"
_access = logging.getLogger("comity.api.access")
_BODY_SECONDS: Final = 10.0


class Passage:
    """Around the whole application (ASGI).

    Args:
        app: what it passes requests to, their bodies in `state.body`, whose they are in
            `state.admitted`.
        admit: returns whose request it is, by its path and its header `Authorization`.
        most_bytes: length of the longest body.
    """

    def __init__(
        self, app: ASGIApp, *, admit: Callable[[str, str], Client | None], most_bytes: int
    ) -> None:
        self._app = app
        self._admit = admit
        self._most = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, state = 500, scope.setdefault("state", {})

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            shown = Headers(scope=scope).get("authorization", "")
            client = await anyio.to_thread.run_sync(self._admit, scope["path"], shown)
            state["admitted"] = client
            state["body"] = body = await self._body(scope, receive)
            await self._app(scope, _given(body, receive), sending)
        except Exception as error:  # noqa: BLE001 -- no answer has begun: the application has its own
            await _answer(*problem_of(error), sending)
        finally:
            route = getattr(scope.get("route"), "path", "-")
            name = client.name if (client := state.get("admitted")) else "-"
            _access.info("%s %s %d %s", scope["method"], route, status, name)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        told = dict(scope["headers"]).get(b"content-length", b"0")
        if not told.isdigit() or len(told) > 18 or int(told) > self._most:
            raise ProblemError(problems.TOO_LARGE, f"expected at most {self._most} bytes")
        parts: list[bytes] = []
        size = 0
        with anyio.move_on_after(_BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return b"".join(parts)
                part = message.get("body", b"")
                size += len(part)
                if size > self._most:
                    raise ProblemError(problems.TOO_LARGE, f"expected at most {self._most} bytes")
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)
        raise ProblemError(problems.TOO_SLOW)


def _given(body: bytes, receive: Receive) -> Receive:
    """Return what gives a body that was read already, and then what comes after it."""
    given = False

    async def give() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return give


async def _answer(problem: Problem, more: Mapping[str, str], send: Send) -> None:
    content = problem.model_dump_json().encode()
    headers = [
        (b"content-type", PROBLEM_TYPE.encode()),
        (b"content-length", str(len(content)).encode()),
        (b"connection", b"close"),
        *((name.lower().encode(), value.encode()) for name, value in more.items()),
    ]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
