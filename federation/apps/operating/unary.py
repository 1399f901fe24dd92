"""Flower's middleware without its streams: what a call with one answer passes through in one task.

A SuperLink has nine layers, each of which makes a task and two streams for every call, though
nodes and ServerApps send one body and get one. They took most of a SuperLink's time.

Guarantees: each layer's own code runs, in Flower's order, with request and answer as Flower has
them; only how they are handed on is ours. Calls that may stream keep Flower's way.

Leaves to others: what the layers do (Flower), how long bodies are (the listeners).
"""

from collections.abc import MutableMapping
from typing import Any, Final

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["answer_in_one_task"]

_UNARY: Final = ("/v1/fleet/", "/v1/runtime/")


def answer_in_one_task(app: FastAPI) -> None:
    """Have an app that has not begun answer nodes and ServerApps so; others as before."""
    app.user_middleware = [Middleware(_Layer, layer=layer) for layer in app.user_middleware]


class _Layer:
    """One of Flower's layers.

    Args:
        app: what it encloses.
        layer: makes Flower's own.
    """

    def __init__(self, app: ASGIApp, *, layer: Middleware) -> None:
        self._app = app
        self._whole: Any = layer.cls(app, *layer.args, **layer.kwargs)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_unary = scope["type"] == "http" and scope["path"].startswith(_UNARY)
        if not is_unary or not isinstance(self._whole, BaseHTTPMiddleware):
            await self._whole(scope, receive, send)
            return
        request = Request(scope, receive)

        async def call_next(called: Request) -> Response:
            return await _answer(self._app, called)

        response = await self._whole.dispatch_func(request, call_next)
        await response(scope, receive, send)


async def _answer(app: ASGIApp, request: Request) -> Response:
    """Have an app answer, and return its whole answer."""
    start: MutableMapping[str, Any] = {}
    parts: list[bytes] = []
    bodies = [request._body] if hasattr(request, "_body") else []  # noqa: SLF001 -- what was read of it before, as Starlette has it

    async def receive() -> Message:
        if bodies:
            return {"type": "http.request", "body": bodies.pop(), "more_body": False}
        return await request.receive()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
        elif message["type"] == "http.response.body":
            parts.append(message.get("body", b""))

    await app(request.scope, receive, send)
    response = Response(b"".join(parts), status_code=start["status"])
    response.raw_headers = list(start.get("headers", []))
    return response
