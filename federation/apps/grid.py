"""Flower's Grid over HTTP, by which small messages go and come whole, in one call (`piggyback`).

Guarantees: messages go and come as by Flower's own; a reply whose objects do not come, or are not
those of a reply to what was asked, says so, and no other reply is lost by it. Where the SuperLink
answers that it failed, the channel is told to ask again later.

Leaves to others: when to look for replies (`federation.channel`). It leans on names of Flower that
are not public; `tests/test_node_process.py` fails when they move.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Final

from flwr.app import Message
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.common.serde import message_from_proto
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PushObjectRequest
from flwr.proto.message_pb2 import Message as MessageHead
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PushAppMessagesRequest
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectUnavailableError,
    pull_objects,
)
from flwr.superlink.grid.http_grid import HttpGrid
from httpx import HTTPStatusError

from federation.apps.carriage import CarriedMessage, put_together
from federation.apps.piggyback import RIDING_BYTES, riders, with_riders, with_wish
from federation.channel import GridFailingError

__all__ = ["PiggybackGrid"]

_SUPERLINK: Final = Node(node_id=SUPERLINK_NODE_ID)
_FIRST_PAUSE_SECONDS: Final = 0.02
_LONGEST_PAUSE_SECONDS: Final = 1.0
"""What passes from one look for a missing object to the next; Flower's are longer."""


class PiggybackGrid:
    """What a channel needs of a Grid.

    Args:
        grid: Flower's, whose line to the SuperLink is used.
    """

    def __init__(self, grid: HttpGrid) -> None:
        self._grid = grid
        self._client = grid._runtime_client  # noqa: SLF001 -- its own line: Flower has no other name for it

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes that are connected."""
        with _telling():
            return list(self._grid.get_node_ids())

    def push_messages(self, messages: Sequence[Message]) -> Sequence[str]:
        """Push messages; return their identifiers, empty where one was not taken, or none."""
        with _telling():
            return self._pushed(messages)

    def _pushed(self, messages: Sequence[Message]) -> Sequence[str]:
        if any(one.content.array_records for one in messages):  # large: Flower streams it
            return list(self._grid.push_messages(messages))
        carried = [CarriedMessage.take_apart(one) for one in messages]
        objects = {name: content for one in carried for name, content in one.objects.items()}
        if sum(map(len, objects.values())) > RIDING_BYTES:
            return list(self._grid.push_messages(messages))
        pushed = PushAppMessagesRequest(
            messages_list=[one.head for one in carried],
            message_object_trees=[one.tree for one in carried],
        )
        taken = self._client.PushMessages(with_riders(pushed, objects.values()))
        for name in taken.objects_to_push:
            request = PushObjectRequest(
                node=_SUPERLINK,
                run_id=self._grid.run.run_id,
                object_id=name,
                object_content=objects[name],
                session_id=taken.session_id,
            )
            if not self._client.PushObject(request).stored:
                return []
        return list(taken.message_ids)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        """Yield the replies that are there to messages of these identifiers."""
        request = with_wish(PullAppMessagesRequest(message_ids=message_ids))
        with _telling():
            answer = self._client.PullMessages(request)
        came = riders(answer.SerializeToString())
        for head, tree in zip(answer.messages_list, answer.message_object_trees, strict=True):
            names = [*dict.fromkeys(one.object_id for one in iterate_object_tree(tree))]
            if came.keys() >= set(names):
                yield _reply(head, {name: came[name] for name in names})
            else:
                yield self._pulled(head, names)

    def _pulled(self, head: MessageHead, names: list[str]) -> Message:
        """Return a reply whose objects are pulled one by one, in the order in which they come."""
        run = self._grid.run.run_id
        pulled = make_pull_object_fn_protobuf(self._client.PullObject, _SUPERLINK, run)

        def pull(name: str) -> bytes:
            try:
                with _telling():
                    content: bytes = pulled(name)
            except GridFailingError as error:
                raise ObjectUnavailableError(name) from error
            return content

        try:
            objects = pull_objects(
                names,
                pull,
                initial_backoff=_FIRST_PAUSE_SECONDS,
                backoff_cap=_LONGEST_PAUSE_SECONDS,
            )
        except ObjectPullError as error:
            return _unavailable(head, str(error))
        confirmed = ConfirmMessageReceivedRequest(
            node=_SUPERLINK, run_id=run, message_object_id=head.metadata.message_id
        )
        with suppress(GridFailingError), _telling():  # the reply is here
            self._client.ConfirmMessageReceived(confirmed)
        return _reply(head, objects)


@contextmanager
def _telling() -> Iterator[None]:
    """Tell the channel where the SuperLink answers that it failed."""
    try:
        yield
    except HTTPStatusError as error:
        if error.response.status_code != HTTPStatus.INTERNAL_SERVER_ERROR:
            raise
        raise GridFailingError("HTTP 500") from error


def _reply(head: MessageHead, objects: dict[str, bytes]) -> Message:
    """Return the reply that a node's objects make.

    Flower compares what the node wrote into the head, and never what it wrote into the objects.
    """
    try:
        reply = put_together(head.metadata.message_id, objects)
        is_reply = reply.metadata.reply_to_message_id == head.metadata.reply_to_message_id
        if is_reply and reply.has_content() != reply.has_error():
            return reply
    except Exception as error:  # noqa: BLE001 -- Flower raises whatever it meets in foreign objects
        return _unavailable(head, f"its objects are no message ({type(error).__name__})")
    return _unavailable(head, "its objects are another message's")


def _unavailable(head: MessageHead, reason: str) -> Message:
    head.ClearField("content")
    head.error.code = ErrorCode.MESSAGE_UNAVAILABLE
    head.error.reason = reason
    return message_from_proto(head)
