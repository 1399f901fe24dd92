"""What every request passes on its way in and out, whatever it asks.

Guarantees: no body longer than allowed is held, nor waited for longer than allowed; whatever
fails is answered by a problem; the access log tells method, route as it is written in the schema,
status and client, and nothing of what was asked.

Leaves to others: what is asked (`application`).
"""

import logging
from typing import Final

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from federation.api import problems
from federation.api.problems import Problem, ProblemError, problem_of

__all__ = ["PROBLEM_TYPE", "Passage"]

PROBLEM_TYPE: Final = "application/problem+json"
_access = logging.getLogger("comity.api.access")
_BODY_SECONDS: Final = 10.0


class Passage:
    """Around the whole application (ASGI).

    Args:
        app: what it passes requests to, their bodies in `state.body`.
        most_bytes: length of the longest body.
    """

    def __init__(self, app: ASGIApp, *, most_bytes: int) -> None:
        self._app = app
        self._most = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            body = await self._body(scope, receive)
            scope.setdefault("state", {})["body"] = body
            await self._app(scope, _given(body, receive), sending)
        except ProblemError as error:
            await _answer(problem_of(error)[0], sending)
        finally:
            route = getattr(scope.get("route"), "path", "-")
            client = scope.get("state", {}).get("client", "-")
            _access.info("%s %s %d %s", scope["method"], route, status, client)

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


async def _answer(problem: Problem, send: Send) -> None:
    content = problem.model_dump_json().encode()
    headers = [
        (b"content-type", PROBLEM_TYPE.encode()),
        (b"content-length", str(len(content)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
