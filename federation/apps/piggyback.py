"""Objects that ride on the call that tells of their message, in place of a call for each of them.

A message of Flower's is a tree of three objects or more, and a call pushes or pulls one of them.
Here the objects of a small message ride along, in fields that protobuf keeps and Flower skips:

```
PullMessagesRequest  + that they may ride      ► PullMessagesResponse + objects
PushMessagesRequest  + objects                 ► PushMessagesResponse: what is still to be pushed
```

Guarantees: what is added to a call leaves the rest of it as it was; an object goes by the digest of
its content. Either end may be Flower's own: what does not ride goes by Flower's calls.

Leaves to others: which objects ride, and who may have them (`operating.riding` at the SuperLink).
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

__all__ = ["RIDING_BYTES", "may_ride", "riders", "with_riders", "with_wish"]

RIDING_BYTES: Final = 4 << 20
"""What rides on one call at most."""

_Message = TypeVar("_Message", bound=Message)

_OBJECTS: Final = 1000
_WISH: Final = 1001


def _rider_class() -> Any:
    """Return the class of a message that has our fields alone; Flower's have small numbers."""
    file = FileDescriptorProto(name="comity/piggyback.proto", package="comity", syntax="proto3")
    message = file.message_type.add(name="Piggyback")
    kinds = FieldDescriptorProto
    message.field.add(
        name="objects", number=_OBJECTS, type=kinds.TYPE_BYTES, label=kinds.LABEL_REPEATED
    )
    message.field.add(name="wish", number=_WISH, type=kinds.TYPE_BOOL, label=kinds.LABEL_OPTIONAL)
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("comity.Piggyback"))


_Piggyback: Final = _rider_class()


def with_wish(request: _Message) -> _Message:
    """Return a request, which now says that objects may ride on its answer."""
    request.MergeFromString(_Piggyback(wish=True).SerializeToString())
    return request


def may_ride(request: bytes) -> bool:
    """Tell whether objects may ride on the answer to a request.

    Raises:
        google.protobuf.message.DecodeError: it is no message.
    """
    return bool(_Piggyback.FromString(request).wish)


def with_riders(message: _Message, contents: Iterable[bytes]) -> _Message:
    """Return a message, on which objects ride now."""
    message.MergeFromString(_Piggyback(objects=contents).SerializeToString())
    return message


def riders(message: bytes) -> Mapping[str, bytes]:
    """Return the objects that ride on a message, by their names.

    Raises:
        google.protobuf.message.DecodeError: it is no message.
    """
    contents = _Piggyback.FromString(message).objects
    return {hashlib.sha256(one).hexdigest(): one for one in contents}
