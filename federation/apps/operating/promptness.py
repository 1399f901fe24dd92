"""Calls for messages wait at the SuperLink until there is news, so that nobody need ask often.

```
 node ──────── pull-messages ────────┐ waits ◄── push-messages ── ServerApp
 ServerApp ─── pull-messages ────────┘ waits ◄── push-messages ── node
```

Guarantees: what is there is answered at once, and what comes meanwhile once its push is done: to
the node that it is for, and to the ServerApp once as much has come as it asks for. Any other answer
comes after `HOLD_SECONDS` at the latest, refusals as they are. Once a caller has gone nothing is
asked for him, so that a message is not handed to nobody.

Leaves to others: who may call, and how long a body may be (the listeners), every answer (Flower).
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Final

from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.proto.fleet_pb2 import PullMessagesRequest
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PushAppMessagesRequest
from google.protobuf.message import DecodeError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from federation.apps.operating.calls import answer_of, body_of

__all__ = ["HOLD_SECONDS", "Prompt"]

HOLD_SECONDS: Final = 1.0
"""How long a call waits for news: a run that was cancelled, or a node that is gone, shows then."""


def _node(body: bytes) -> tuple[int, int]:
    return PullMessagesRequest.FromString(body).node.node_id, 1


def _server_app(body: bytes) -> tuple[int, int]:
    return SUPERLINK_NODE_ID, len(PullAppMessagesRequest.FromString(body).message_ids)


def _nodes(body: bytes) -> Iterable[int]:
    pushed = PushAppMessagesRequest.FromString(body).messages_list
    return {one.metadata.dst_node_id for one in pushed}


_PULLS: Final[Mapping[str, Callable[[bytes], tuple[int, int]]]] = {
    "/v1/fleet/pull-messages": _node,
    "/v1/runtime/pull-messages": _server_app,
}
"""Whose news a call waits for, and for how many, by its path and body."""
_PUSHES: Final[Mapping[str, Callable[[bytes], Iterable[int]]]] = {
    "/v1/fleet/push-messages": lambda _: [SUPERLINK_NODE_ID],
    "/v1/runtime/push-messages": _nodes,
}
"""Whose news a call brings."""
_NOBODY: Final = (0, 1)


class _News:
    """Counts what came for whom, and wakes whoever waits for more of it."""

    def __init__(self) -> None:
        self._told: Counter[int] = Counter()
        self._next = asyncio.Event()

    def count(self, whose: int) -> int:
        return self._told[whose]  # which keeps nothing of a stranger

    def tell(self, whose: Iterable[int]) -> None:
        self._told.update(whose)
        self._next.set()
        self._next = asyncio.Event()

    async def reaches(self, whose: int, count: int) -> None:
        while self.count(whose) < count:
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
        self._news = _News()
        self._had: dict[int, int] = {}
        """How much had been told to whom when Flower last had nothing for him."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a call on; hold it, or tell others of it, where it is one about messages."""
        path = scope["path"] if scope["type"] == "http" else ""
        if path not in _PULLS and path not in _PUSHES:
            await self._superlink(scope, receive, send)
            return
        body = await body_of(receive)
        if body is None:
            return
        if path in _PULLS:
            await self._held(scope, body, receive, send)
            return
        answer = await answer_of(self._superlink, scope, body)
        if answer.is_ok:
            self._news.tell(_PUSHES[path](body))
        await answer.send(send)

    async def _held(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Answer a call for messages.

        1. Where Flower had nothing for this caller and nothing was told since, wait until it is.
        2. Ask Flower, but for nobody who has gone. 3. Of an empty list, go back to 1, until the
           time is over. 4. Answer what there is, or that nothing came.
        """
        try:
            whose, wanted = _PULLS[scope["path"]](body)
        except DecodeError:  # which Flower refuses
            whose, wanted = _NOBODY
        loop = asyncio.get_running_loop()
        end = loop.time() + self._hold
        gone = asyncio.ensure_future(receive())
        try:
            while True:
                if self._had.get(whose) == self._news.count(whose):  # 1
                    await self._told(whose, wanted, gone, seconds=end - loop.time())
                if gone.done():
                    return
                seen = self._news.count(whose)
                answer = await answer_of(self._superlink, scope, body)  # 2
                if not answer.is_ok or answer.body:
                    break
                self._had[whose] = seen
                if loop.time() >= end:  # 3
                    break
            await answer.send(send)  # 4
        finally:
            gone.cancel()
            with suppress(asyncio.CancelledError):
                await gone

    async def _told(
        self, whose: int, wanted: int, gone: asyncio.Future[Message], *, seconds: float
    ) -> None:
        """Wait until so much was told, the caller has gone, or the time is over."""
        count = self._news.count(whose) + wanted
        told = asyncio.ensure_future(self._news.reaches(whose, count))
        await asyncio.wait({told, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
