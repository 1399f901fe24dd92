"""Flower's messages as bytes: what travels between a SuperLink, a node and the node's workers.

Guarantees: a message taken apart and put together again is the same message; a reply that names an
error names its kind alone.

Leaves to others: the way there (`superlink`, `zygote`), and what a message says (`channel`). It
leans on names of Flower that are not public; `tests/test_node_process.py` fails when they move.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Self, cast

from flwr.app import Error, Message
from flwr.app.message import remove_content_from_message
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as MessageHead
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

__all__ = ["CarriedMessage", "Failure", "put_together"]


class Failure(IntEnum):
    """Why a node has no answer, in Flower's numbers."""

    APP_RAISED = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    OTHER_BUNDLE = ErrorCode.INVALID_FAB
    WORKER_ENDED = ErrorCode.CLIENT_APP_CRASHED


@dataclass(frozen=True)
class CarriedMessage:
    """A message of Flower's, taken apart.

    Attributes:
        head: its metadata, and its error if it is one.
        tree: the identifiers of its objects, as they lie in each other.
        objects: the content of each object by identifier.
    """

    head: MessageHead
    tree: ObjectTree
    objects: Mapping[str, bytes]

    @classmethod
    def take_apart(cls, message: Message) -> Self:
        """Take a message apart that has no identifier yet; it gets its own."""
        message.metadata.__dict__["_message_id"] = message.object_id
        with no_object_id_recompute():
            return cls(
                message_to_proto(remove_content_from_message(message)),
                get_object_tree(message),
                {name: one.deflate() for name, one in get_all_nested_objects(message).items()},
            )

    @property
    def size(self) -> int:
        """Bytes of all its objects."""
        return sum(map(len, self.objects.values()))

    def put_together(self) -> Message:
        """Return the message, with the identifier that it travelled under."""
        return put_together(self.tree.object_id, dict(self.objects))

    def failed(self, failure: Failure, reason: str) -> "CarriedMessage":
        """Return the reply that says why there is no answer.

        Args:
            failure: the kind.
            reason: goes to the coordinator as it is.
        """
        question = message_from_proto(self.head)
        return CarriedMessage.take_apart(Message(Error(failure, reason), reply_to=question))

    def to_rows(self) -> Sequence[bytes]:
        """Return the message as rows of bytes."""
        rows = [self.head.SerializeToString(), self.tree.SerializeToString()]
        for name, content in self.objects.items():
            rows += [name.encode(), content]
        return rows

    @classmethod
    def from_rows(cls, rows: Sequence[bytes]) -> Self:
        """Return the message that `to_rows` made rows of."""
        head, tree, *objects = rows
        names = [name.decode() for name in objects[::2]]
        return cls(
            MessageHead.FromString(head),
            ObjectTree.FromString(tree),
            dict(zip(names, objects[1::2], strict=True)),
        )


def put_together(root: str, objects: dict[str, bytes]) -> Message:
    """Return a message, with the identifier that it travelled under.

    Args:
        root: that identifier.
        objects: by their identifiers; the dictionary is empty afterwards, so that large ones go.
    """
    message = cast("Message", inflate_object_from_contents(root, objects))
    message.metadata.__dict__["_message_id"] = root
    return message
