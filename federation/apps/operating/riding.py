"""The SuperLink's end of `piggyback`: small messages come and go whole, in one call.

```
 pull-messages ──► Flower ──► a message ──► + its objects, if all are here; it counts as confirmed
 push-messages ──► Flower ──► a session ──► objects that rode along are stored in it
```

Guarantees: Flower answers first, with its authentication and all else; of a pull nobody gets an
object but of a message that Flower hands to him in this very answer, and of a push nothing is
stored but what Flower's answer to it asks for, in the session that it names. Whoever does not ask
for it notices nothing. Whatever breaks after Flower's answer, that answer is given: what could not
ride goes by Flower's calls, and no message that Flower counts as handed out is lost.

Leaves to others: everything that Flower answers; how long bodies are (the listeners).
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from flwr.proto.fleet_pb2 import PullMessagesResponse, PushMessagesResponse
from flwr.proto.runtime_pb2 import PullAppMessagesResponse, PushAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from federation.apps.operating.calls import answer_of, body_of
from federation.apps.piggyback import RIDING_BYTES, may_ride, riders, with_riders

__all__ = ["Objects", "Riding"]

_PULLED: Final[Mapping[str, Any]] = {
    "/v1/fleet/pull-messages": PullMessagesResponse,
    "/v1/runtime/pull-messages": PullAppMessagesResponse,
}
_PUSHED: Final[Mapping[str, Any]] = {
    "/v1/fleet/push-messages": PushMessagesResponse,
    "/v1/runtime/push-messages": PushAppMessagesResponse,
}


_logger: Final = logging.getLogger("comity.apps")


def _tell(path: str, error: Exception) -> None:
    """Say what broke, by its kind: an error's text may quote what messages hold."""
    _logger.error("%s: objects go by Flower's calls (%s)", path, type(error).__name__)


class Objects(Protocol):
    """What messages hold, by the names that Flower gives it."""

    def take(self, message: str, names: Sequence[str], *, most: int) -> Sequence[bytes]:
        """Return the objects of a message, and keep them no longer.

        Nothing is returned, and all is kept, where one is missing, or all have more bytes than
        `most`. Where it raises, all is kept too.
        """
        ...

    def put(self, session: str, contents: Mapping[str, bytes]) -> bool:
        """Store all objects that a session waits for, and end it; tell whether that was done."""
        ...


class Riding:
    """A SuperLink on whose calls for messages objects ride.

    Args:
        superlink: Flower's app.
        objects: what messages hold.
    """

    def __init__(self, superlink: ASGIApp, objects: Objects) -> None:
        self._superlink = superlink
        self._objects = objects

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have Flower answer a call; where objects ride, take or add them."""
        path = scope["path"] if scope["type"] == "http" else ""
        if path not in _PULLED and path not in _PUSHED:
            await self._superlink(scope, receive, send)
            return
        body = await body_of(receive)
        if body is None:
            return
        answer = await answer_of(self._superlink, scope, body)
        if answer.is_ok and answer.body:
            answer = answer.saying(await run_in_threadpool(self._ridden, path, body, answer.body))
        await answer.send(send)

    def _ridden(self, path: str, asked: bytes, answered: bytes) -> bytes:
        """Take or add objects; return Flower's own answer where that breaks."""
        try:
            return (self._pulled if path in _PULLED else self._pushed)(path, asked, answered)
        except Exception as error:  # noqa: BLE001 -- whatever it is, Flower has answered already
            _tell(path, error)
            return answered

    def _pulled(self, path: str, asked: bytes, answered: bytes) -> bytes:
        """Add the objects of messages that Flower hands out."""
        if not may_ride(asked):
            return answered
        answer = _PULLED[path].FromString(answered)
        contents: list[bytes] = []
        room = RIDING_BYTES
        for head, tree in zip(answer.messages_list, answer.message_object_trees, strict=True):
            names = [*dict.fromkeys(one.object_id for one in iterate_object_tree(tree))]
            try:
                taken = self._objects.take(head.metadata.message_id, names, most=room)
            except Exception as error:  # noqa: BLE001 -- what was taken before must still ride
                _tell(path, error)
                break
            room -= sum(map(len, taken))
            contents += taken
        return bytes(with_riders(answer, contents).SerializeToString())

    def _pushed(self, path: str, asked: bytes, answered: bytes) -> bytes:
        """Store what rode along, if it is all that Flower waits for."""
        came = riders(asked)
        answer = _PUSHED[path].FromString(answered)
        wanted = [*answer.objects_to_push]
        if not wanted or not came.keys() >= set(wanted):
            return answered
        if not self._objects.put(answer.session_id, {name: came[name] for name in wanted}):
            return answered  # Flower says why, where it is pushed by its own call
        del answer.objects_to_push[:]
        return bytes(answer.SerializeToString())
