"""Calls with one body and one answer, both whole, as layers around Flower's app see them.

Leaves to others: how long either is (the listeners).
"""

import asyncio
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Self

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Answer", "answer_of", "body_of"]

_LENGTH = b"content-length"


@dataclass(frozen=True)
class Answer:
    """What an app answered.

    Attributes:
        status: of HTTP.
        headers: as the app wrote them.
        body: all of it.
    """

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    @property
    def is_ok(self) -> bool:
        """Whether it is what was asked for, and no refusal."""
        return self.status == HTTPStatus.OK

    def saying(self, body: bytes) -> Self:
        """Return the same answer with another body."""
        kept = (one for one in self.headers if one[0].lower() != _LENGTH)
        length = (_LENGTH, str(len(body)).encode())
        return replace(self, headers=(*kept, length), body=body)

    async def send(self, send: Send) -> None:
        """Hand it to whoever called."""
        await send(
            {"type": "http.response.start", "status": self.status, "headers": [*self.headers]}
        )
        await send({"type": "http.response.body", "body": self.body})


async def body_of(receive: Receive) -> bytes | None:
    """Return the body of a call, or None where the caller has gone before its end."""
    parts = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def answer_of(app: ASGIApp, scope: Scope, body: bytes) -> Answer:
    """Have an app answer a call whose body is at hand."""
    bodies: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[Message] = []

    async def receive() -> Message:
        if bodies:
            return bodies.pop()
        await asyncio.Event().wait()  # nothing follows
        raise RuntimeError

    async def send(message: Message) -> None:
        sent.append(message)

    await app({**scope, "state": dict(scope.get("state", {}))}, receive, send)
    start = next(one for one in sent if one["type"] == "http.response.start")
    parts = (one.get("body", b"") for one in sent if one["type"] == "http.response.body")
    return Answer(start["status"], tuple(start.get("headers", ())), b"".join(parts))
