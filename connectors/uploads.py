"""An object on its way into a store, part by part.

Guarantees: nobody sees it before it is settled, and then all of it; it takes the place of the
object that it was made from, or of none, and of no other. A part is in memory at a time.

Leaves to others: giving up what is not wanted any more. Parts of an upload that a crash cut stay in
the store, invisible and charged for, until a lifecycle rule of its bucket ends it.

Source: Amazon S3 API reference, "Multipart upload", "Conditional writes".
"""

import io
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict

from connectors.errors import SinkOccupiedError, SourceNotFoundError
from connectors.object_store import (
    ChangedError,
    ObjectStore,
    StoredObject,
    UnknownRequestError,
    content_md5,
)

__all__ = ["Part", "Upload"]

_PART_BYTES: Final = 16 << 20
_MOST_PARTS: Final = 10_000
_TAKEN_OVER: Final = (
    *("CacheControl", "ContentType", "Metadata", "StorageClass"),
    *("ServerSideEncryption", "SSEKMSKeyId", "BucketKeyEnabled"),
)


class Part(BaseModel):
    """A part that the store has.

    Attributes:
        number: its place, from 1.
        etag: what the store calls its content.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    etag: str


class Upload(io.RawIOBase):
    """What is written to it becomes an object at once, when it is settled.

    Args:
        store: where it goes.
        key: what the object will be called.
        identity: what the store calls the upload.
        parts: what it has of it.
        of: the object whose place it takes, if any.
    """

    def __init__(
        self,
        store: ObjectStore,
        key: str,
        identity: str,
        *,
        parts: Iterable[Part] = (),
        of: StoredObject | None = None,
    ) -> None:
        self.identity = identity
        self._store = store
        self._key = key
        self._of = of
        self._parts = list(parts)
        self._buffer = bytearray()
        size = 0 if of is None else of.size
        self._part_bytes = max(_PART_BYTES, 2 * size // _MOST_PARTS)

    @classmethod
    def begin(cls, store: ObjectStore, key: str, *, of: StoredObject | None = None) -> Self:
        """Begin one, whose object has kind, encryption and class of the one that it follows."""
        known = {} if of is None else store.head(key, etag=of.etag)
        taken_over = {name: known[name] for name in _TAKEN_OVER if known.get(name)}
        begun = store.request("create_multipart_upload", key, writing=True, **taken_over)
        return cls(store, key, begun["UploadId"], of=of)

    def writable(self) -> bool:
        """Tell that it can be written to."""
        return True

    def write(self, content: Any) -> int:
        """Take content, and send what fills a part."""
        taken = memoryview(content).cast("B")
        self._buffer += taken
        while len(self._buffer) >= self._part_bytes:
            self._send()
        return len(taken)

    def finish(self) -> tuple[Part, ...]:
        """Send the last part, and return all of them."""
        while self._buffer:
            self._send()
        return tuple(self._parts)

    def settle(self) -> None:
        """Make it the object of its name.

        Raises:
            SinkOccupiedError: it follows none, and there is one.
            SourceNotFoundError: the store does not have the upload any more.
            SourceUnavailableError: the one that it follows has changed, or the store fails.
        """
        self.finish()
        # Stores that know no conditions on writes ignore or refuse them: so it is looked at too.
        if self._of is not None:
            self._store.head(self._key, etag=self._of.etag)
            condition = {"IfMatch": self._of.etag}
        elif self._store.is_there(self._key):
            raise SinkOccupiedError(self._store.url_of(self._key))
        else:
            condition = {"IfNoneMatch": "*"}
        try:
            self._complete(condition)
        except UnknownRequestError:
            self._complete({})
        except ChangedError:
            if self._of is None:
                raise SinkOccupiedError(self._store.url_of(self._key)) from None
            raise

    def is_open(self) -> bool:
        """Tell whether it was neither settled nor given up."""
        try:
            self._request("list_parts", MaxParts=1)
        except SourceNotFoundError:
            return False
        return True

    def give_up(self) -> None:
        """Have the store forget what was sent; what was settled stays."""
        with suppress(SourceNotFoundError):
            self._request("abort_multipart_upload")

    def _complete(self, condition: dict[str, str]) -> None:
        parts = [{"PartNumber": part.number, "ETag": part.etag} for part in self._parts]
        self._request("complete_multipart_upload", MultipartUpload={"Parts": parts}, **condition)

    def _send(self) -> None:
        number = len(self._parts) + 1
        body = bytes(self._buffer[: self._part_bytes])
        answer = self._request(
            "upload_part", PartNumber=number, Body=body, ContentMD5=content_md5(body)
        )
        del self._buffer[: self._part_bytes]
        self._parts.append(Part(number=number, etag=answer["ETag"]))

    def _request(self, operation: str, **parameters: Any) -> Any:
        return self._store.request(
            operation, self._key, writing=True, UploadId=self.identity, **parameters
        )
