"""What a node may hand in: an answer of its own, of no more objects than a message has.

Flower holds objects in memory until the ServerApp has them. It compares an answer's sender with
whom was asked, but not with the node whose key signed the call; and takes as many objects as it is
told of, of whatever message, and again.

Guarantees: a push of a node names one message, which that node sends, and at most `MOST_OBJECTS`
objects, which are that message's; so that no answer takes more than their number of the listener's
largest bodies. Of a push of several messages none is looked at.

Leaves to others: who the node is, whether it was asked (Flower); that an object has the same others
within it each time (`flower`); how long a body is (the listener).
"""

from http import HTTPStatus
from itertools import islice
from typing import Final

from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from google.protobuf.message import DecodeError
from starlette.types import ASGIApp, Receive, Scope, Send

from compliance.records import RefusedFor
from federation.apps.operating.calls import answer_of, body_of
from federation.apps.refusals import refuse
from federation.messages.header import MAX_PAYLOAD_BYTES

__all__ = ["MOST_OBJECTS", "Pushes"]

_BESIDE_CHUNKS: Final = 8
"""Message, record of records, envelope, record of arrays, array; and some room."""
MOST_OBJECTS: Final = -(-MAX_PAYLOAD_BYTES // FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE) + _BESIDE_CHUNKS
"""Of the largest message there is, each counted as often as it occurs."""

_PUSH: Final = "/v1/fleet/push-messages"


class Pushes:
    """A SuperLink that takes no more of a node than this.

    Args:
        superlink: Flower's app.
    """

    def __init__(self, superlink: ASGIApp) -> None:
        self._superlink = superlink

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a call on, unless it is a push that is none of the caller's, or too large."""
        if scope["type"] != "http" or scope["path"] != _PUSH:
            await self._superlink(scope, receive, send)
            return
        body = await body_of(receive)
        if body is None:
            return
        refusal = _refusal(body)
        if refusal is not None:
            await refuse(scope, send, RefusedFor.NODE, *refusal)
            return
        await (await answer_of(self._superlink, scope, body)).send(send)


def _refusal(body: bytes) -> tuple[HTTPStatus, str] | None:
    """Return why a push is not taken; of what is no push, Flower says so."""
    try:
        request = PushMessagesRequest.FromString(body)
    except DecodeError:
        return None
    if len(request.messages_list) != 1 or len(request.message_object_trees) != 1:
        return HTTPStatus.BAD_REQUEST, "expected one message, and its objects"
    told, tree = request.messages_list[0].metadata, request.message_object_trees[0]
    if told.src_node_id != request.node.node_id or told.message_id != tree.object_id:
        return HTTPStatus.BAD_REQUEST, "expected a message of the node that pushes it"
    objects = iterate_object_tree(tree)
    if next(islice(objects, MOST_OBJECTS, None), None) is not None:
        told = f"expected a message of at most {MOST_OBJECTS} objects"
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE, told
    return None
