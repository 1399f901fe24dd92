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
from typing import Any, Final

from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse
from flwr.proto.runtime_pb2 import (
    PullAppMessagesRequest,
    PullAppMessagesResponse,
    PushAppMessagesRequest,
)
from google.protobuf.message import DecodeError
from starlette.types import ASGIApp, Receive, Scope, Send

from federation.apps.operating.calls import answer_of, body_of

__all__ = ["HOLD_SECONDS", "Prompt"]

HOLD_SECONDS: Final = 1.0
"""How long a call waits for news: a run that was cancelled, or a node that is gone, shows then."""

_NOBODY: Final = (0, 1)


def _node(body: bytes) -> tuple[int, int]:
    node = PullMessagesRequest.FromString(body).node.node_id
    return (node, 1) if node != SUPERLINK_NODE_ID else _NOBODY  # the ServerApp's news are its own


def _server_app(body: bytes) -> tuple[int, int]:
    return SUPERLINK_NODE_ID, max(1, len(PullAppMessagesRequest.FromString(body).message_ids))


def _nodes(body: bytes) -> Iterable[int]:
    pushed = PushAppMessagesRequest.FromString(body).messages_list
    return [one.metadata.dst_node_id for one in pushed]


_PULLS: Final[Mapping[str, tuple[Callable[[bytes], tuple[int, int]], Any]]] = {
    "/v1/fleet/pull-messages": (_node, PullMessagesResponse),
    "/v1/runtime/pull-messages": (_server_app, PullAppMessagesResponse),
}
"""Of a call by its path: who asks by a body, and for how many messages; and what answers it."""
_PUSHES: Final[Mapping[str, Callable[[bytes], Iterable[int]]]] = {
    "/v1/fleet/push-messages": lambda _: [SUPERLINK_NODE_ID],
    "/v1/runtime/push-messages": _nodes,
}
"""Of a call by its path: whom each message in a body is for."""


class _News:
    """Counts messages by whom they are for: what came, and what of it has been dealt with."""

    def __init__(self) -> None:
        self._came: Counter[int] = Counter()
        self._done: dict[int, int] = {}
        self._next = asyncio.Event()

    def tell(self, whose: Iterable[int]) -> None:
        """Wake whoever waits for a message that has come."""
        self._came.update(whose)
        self._next.set()
        self._next = asyncio.Event()

    def came(self, whose: int) -> int:
        """Return how much has come; of a stranger nothing is kept."""
        return self._came[whose]

    def settle(self, whose: int, came: int, handed: int) -> None:
        """Note what Flower answered when so much had come: a number of messages, or no more."""
        done = self._done.pop(whose, came) + handed if handed else came
        if done <= came:  # else not all that comes is told of
            self._done[whose] = done

    def is_done(self, whose: int) -> bool:
        """Whether Flower has nothing more, as far as is known."""
        return self._done.get(whose) == self._came[whose]

    async def reaches(self, whose: int, count: int) -> None:
        """Wait until so much has come."""
        while self._came[whose] < count:
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

        1. Where Flower has nothing for this caller, as far as is known, wait until something comes.
        2. Ask Flower, but for nobody who has gone. 3. Of an empty list, go back to 1, until the
           time is over. 4. Answer what there is, or that nothing came.
        """
        asks, kind = _PULLS[scope["path"]]
        try:
            whose, wanted = asks(body)
        except DecodeError:  # which Flower refuses
            whose, wanted = _NOBODY
        loop = asyncio.get_running_loop()
        end = loop.time() + self._hold
        gone: asyncio.Future[Any] = asyncio.ensure_future(receive())
        try:
            while True:
                if self._news.is_done(whose):  # 1
                    await self._more(whose, wanted, gone, seconds=end - loop.time())
                if gone.done():
                    return
                came = self._news.came(whose)
                answer = await answer_of(self._superlink, scope, body)  # 2
                if not answer.is_ok:
                    break
                handed = len(kind.FromString(answer.body).messages_list)
                self._news.settle(whose, came, handed)
                if handed or loop.time() >= end:  # 3
                    break
            await answer.send(send)  # 4
        finally:
            gone.cancel()
            with suppress(asyncio.CancelledError):
                await gone

    async def _more(
        self, whose: int, wanted: int, gone: asyncio.Future[Any], *, seconds: float
    ) -> None:
        """Wait until so much more has come, the caller has gone, or the time is over."""
        count = self._news.came(whose) + wanted
        more: asyncio.Future[Any] = asyncio.ensure_future(self._news.reaches(whose, count))
        await asyncio.wait({more, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        more.cancel()
