"""Lists of people as objects of an S3-compatible store.

Guarantees what every sink does (`sinks`). What is staged is an upload that nobody can read before
it is published; beside its place lies `.<name>.<ticket>.staged`, which says which upload it is, and
nothing of the list.

Leaves to others: who may read the bucket, and how it is encrypted.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from connectors.errors import (
    SinkUnavailableError,
    SourceFormatError,
    SourceNotFoundError,
    SourceUnavailableError,
)
from connectors.file_sinks import write_csv, write_parquet
from connectors.object_store import ObjectStore
from connectors.sink import checked_ticket
from connectors.uploads import Part, Upload

__all__ = ["ObjectSink"]


class _Staged(BaseModel):
    """What is staged under a ticket: an upload, and its parts once all are there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    upload: str
    parts: tuple[Part, ...] = ()


class ObjectSink:
    """A new object, CSV or Parquet.

    Args:
        url: `s3://bucket/prefix/name.csv`, or `.parquet`.

    Raises:
        SourceFormatError: the name ends otherwise, or has a `*`.
        SourceUnavailableError: the URL is malformed, or what speaks to stores is not installed.
    """

    def __init__(self, url: str) -> None:
        self._store = ObjectStore(url)
        self._place = PurePosixPath(self._store.key)
        if "*" in url or self._place.suffix not in {".csv", ".parquet"}:
            raise SourceFormatError(
                f"{url}: expected a name ending in .csv or .parquet, without *; rename it"
            )
        self._write = write_csv if self._place.suffix == ".csv" else write_parquet

    @property
    def name(self) -> str:
        """The URL."""
        return self._store.url

    def is_taken(self) -> bool:
        """Tell whether there is an object of that name."""
        with self._failures():
            return self._store.is_there(self._store.key)

    def stage(self, rows: Iterable[pa.RecordBatch], schema: pa.Schema, *, ticket: str) -> None:
        """Upload the list, without an object of it; see `Sink.stage`."""
        self.discard(ticket=ticket)
        with self._failures():
            upload = Upload.begin(self._store, self._store.key)
        try:
            # 1. A crash from here on leaves an upload that can be found and given up.
            self._note(ticket, _Staged(upload=upload.identity))
            # 2. The list.
            with self._failures():
                self._write(pa.PythonFile(upload, mode="w"), rows, schema)
                parts = upload.finish()
            # 3. From here on it can be published.
            self._note(ticket, _Staged(upload=upload.identity, parts=parts))
        except BaseException:
            with suppress(SinkUnavailableError):  # then its note stays, for who stages next
                self.discard(ticket=ticket)
            with suppress(SinkUnavailableError), self._failures():
                upload.give_up()
            raise

    def publish(self, *, ticket: str) -> None:
        """Make the upload an object; see `Sink.publish`."""
        staged = self._staged(ticket)
        with self._failures():
            if staged is not None and staged.parts:
                upload = Upload(self._store, self._store.key, staged.upload, parts=staged.parts)
                if upload.is_open():
                    upload.settle()
                self._store.delete(self._beside(ticket))
        if not self.is_taken():
            raise SinkUnavailableError(f"{self.name}: nothing is staged there: deliver again")

    def discard(self, *, ticket: str) -> None:
        """Give the upload up; see `Sink.discard`."""
        staged = self._staged(ticket)
        if staged is None:
            return
        with self._failures():
            Upload(self._store, self._store.key, staged.upload).give_up()
            self._store.delete(self._beside(ticket))

    def remove(self) -> None:
        """Delete the object, with every version that its bucket keeps; see `Sink.remove`."""
        with self._failures():
            self._store.delete_every_version()

    def _beside(self, ticket: str) -> str:
        name = f".{self._place.name}.{checked_ticket(ticket)}.staged"
        return str(self._place.with_name(name))

    def _note(self, ticket: str, staged: _Staged) -> None:
        with self._failures():
            self._store.put(self._beside(ticket), staged.model_dump_json().encode())

    def _staged(self, ticket: str) -> _Staged | None:
        key = self._beside(ticket)
        with self._failures():
            try:
                content = self._store.get(key)
            except SourceNotFoundError:
                return None
        try:
            return _Staged.model_validate_json(content)
        except ValidationError:
            raise SinkUnavailableError(
                f"{self._store.url_of(key)} is damaged: delete it, then deliver again"
            ) from None

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (SourceUnavailableError, SourceNotFoundError) as error:
            raise SinkUnavailableError(
                f"{self.name} cannot take the list: {error}; then run again"
            ) from None
