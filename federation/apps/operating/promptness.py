"""Calls for messages wait at the SuperLink until there is news, so that nobody need ask often.

```
 node ──────── pull-messages ────────┐ waits ◄── push-messages ── ServerApp
 ServerApp ─── pull-messages ────────┘ waits ◄── push-messages ── node
```

Guarantees: what is there is answered at once; what comes meanwhile is asked for again, once its
push is done; an empty answer comes after `HOLD_SECONDS` at the latest, refusals as they are. Once
a caller has gone nothing is asked for him, so that a message is not handed to nobody.

Leaves to others: who may call, and how long a body may be (the listeners), every answer (Flower).
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["HOLD_SECONDS", "Prompt"]

HOLD_SECONDS: Final = 1.0
"""How long a call waits for news: a run that was cancelled, or a node that is gone, shows then."""

_TOLD_BY: Final = {
    "/v1/fleet/pull-messages": "/v1/runtime/push-messages",
    "/v1/runtime/pull-messages": "/v1/fleet/push-messages",
}
"""Which call brings what another asks for."""


class _News:
    """Counts what came, and wakes whoever waits for more of it."""

    def __init__(self) -> None:
        self.count = 0
        self._next = asyncio.Event()

    def tell(self) -> None:
        self.count += 1
        self._next.set()
        self._next = asyncio.Event()

    async def later_than(self, count: int) -> None:
        if self.count == count:
            await self._next.wait()


class Prompt:
    """A SuperLink whose empty answers wait for news.

    Args:
        superlink: Flower's app.
        hold_seconds: how long.
    """

    def __init__(self, superlink: ASGIApp, *, hold_seconds: float = HOLD_SECONDS) -> None:
        self._superlink = superlink
        self._hold = hold_seconds
        self._news = {told_by: _News() for told_by in _TOLD_BY.values()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a call on; hold it, or tell others of it, where it is one about messages."""
        path = scope["path"] if scope["type"] == "http" else ""
        if path in _TOLD_BY:
            await self._held(self._news[_TOLD_BY[path]], scope, receive, send)
            return
        await self._superlink(scope, receive, send)
        if path in self._news:
            self._news[path].tell()

    async def _held(self, news: _News, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a call for messages.

        1. Take its body, which whoever let it through has bounded.
        2. Ask Flower. 3. Of an empty list, wait for what was told since 2 began, and ask again; for
           nothing, once the caller is gone. 4. Answer what there is, or that nothing came.
        """
        loop = asyncio.get_running_loop()
        end, body = loop.time() + self._hold, await _body(receive)  # 1
        if body is None:
            return
        gone = asyncio.ensure_future(receive())
        try:
            while True:
                seen = news.count
                answer = await self._ask(scope, body)  # 2
                if _is_empty(answer):
                    later = asyncio.ensure_future(news.later_than(seen))  # 3
                    left = max(0.0, end - loop.time())
                    await asyncio.wait(
                        {later, gone}, timeout=left, return_when=asyncio.FIRST_COMPLETED
                    )
                    has_news = later.done()
                    later.cancel()
                    if gone.done():
                        return
                    if has_news:
                        continue
                for message in answer:  # 4
                    await send(message)
                return
        finally:
            gone.cancel()
            with suppress(asyncio.CancelledError):
                await gone

    async def _ask(self, scope: Scope, body: bytes) -> Sequence[Message]:
        """Have Flower answer a call whose body is at hand; return what it sends."""
        answer: list[Message] = []
        bodies: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            if bodies:
                return bodies.pop()
            await asyncio.Event().wait()  # nothing follows
            raise RuntimeError

        async def send(message: Message) -> None:
            answer.append(message)

        called = {**scope, "state": dict(scope.get("state", {}))}
        await self._superlink(called, receive, send)
        return answer


def _is_empty(answer: Sequence[Message]) -> bool:
    """Whether an answer is a message of Flower's in which nothing stands."""
    status = next(one["status"] for one in answer if one["type"] == "http.response.start")
    return status == HTTPStatus.OK and not any(one.get("body") for one in answer)


async def _body(receive: Receive) -> bytes | None:
    """Return the body of a call, or None where the caller has gone before its end."""
    parts = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)
