"""Where lists of people are delivered: whole or not at all, and never over something else.

```
stage(rows, ticket)   written beside its place, seen by nobody
publish(ticket)       in its place, whole, at one moment
discard(ticket)       gone, as if it had never been staged
remove()              gone from its place, when its time is over
```

Guarantees: until `publish` returns, nobody finds anything where the list belongs; from then on they
find all of it. A step that was cut short can be repeated under its ticket. Files are readable by
their owner alone. A sink holds a batch at a time.

Leaves to others: whether the list may be delivered, and who is on it.
"""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from connectors.connector import FileSource, ObjectSource, SqlSource
from connectors.errors import (
    SinkOccupiedError,
    SinkUnavailableError,
    SourceFormatError,
)

__all__ = ["CsvSink", "ParquetSink", "Sink", "open_sink"]

_TICKET: Final = re.compile(r"[0-9a-f]{16,64}")


@runtime_checkable
class Sink(Protocol):
    """A place for one list, which is there whole or not at all.

    Every method raises a `ConnectorError` when the place fails; none keeps anything open.
    """

    @property
    def name(self) -> str:
        """What to call the place in messages: its path or masked URL, never a secret."""
        ...

    def is_taken(self) -> bool:
        """Tell whether something lies in the place already."""
        ...

    def stage(self, rows: Iterable[pa.RecordBatch], schema: pa.Schema, *, ticket: str) -> None:
        """Write a list beside its place; what was staged under the ticket before is replaced.

        Args:
            rows: batches of `schema`; where they raise, nothing stays.
            schema: columns of text.
            ticket: names this delivery, 16 to 64 hexadecimal digits.

        Raises:
            SinkUnavailableError: disk, rights, network or database refuse; nothing stays.
            ValueError: the ticket is malformed.
        """
        ...

    def publish(self, *, ticket: str) -> None:
        """Put what was staged in its place; nothing happens where that was done already.

        Raises:
            SinkOccupiedError: something else lies there; what was staged stays where it is.
            SinkUnavailableError: nothing is staged and nothing there, or the place refuses.
            ValueError: the ticket is malformed.
        """
        ...

    def discard(self, *, ticket: str) -> None:
        """Remove what was staged, if anything is; what was published stays.

        Raises:
            SinkUnavailableError: the place refuses.
            ValueError: the ticket is malformed.
        """
        ...

    def remove(self) -> None:
        """Remove what lies in the place, if anything does; what is staged stays.

        Raises:
            SinkUnavailableError: the place refuses.
        """
        ...


def open_sink(place: FileSource | SqlSource | ObjectSource) -> Sink:
    """Return the sink for a place, which is first touched when it is used.

    Raises:
        SourceFormatError: the file name ends in neither `.csv` nor `.parquet`.
        SourceUnavailableError: the URL is malformed, or the database's driver or what speaks to
            object stores is not installed.
    """
    if isinstance(place, ObjectSource):
        from connectors.object_sink import ObjectSink

        return ObjectSink(place.url)
    if isinstance(place, SqlSource):
        # SQLAlchemy is loaded only for those who use it.
        from connectors.sql_sink import TableSink

        return TableSink(place.url.get_secret_value(), place.table)
    if place.path.suffix == ".csv":
        return CsvSink(place.path)
    if place.path.suffix == ".parquet":
        return ParquetSink(place.path)
    raise SourceFormatError(f"{place.path}: expected a name ending in .csv or .parquet; rename it")


def checked_ticket(ticket: str) -> str:
    """Return a ticket that is fit for the name of a file or table."""
    if not _TICKET.fullmatch(ticket):
        raise ValueError("expected a ticket of 16 to 64 hexadecimal digits")
    return ticket


def write_csv(file: Any, rows: Iterable[pa.RecordBatch], schema: pa.Schema) -> None:
    """Write CSV with one line of names to an open file."""
    with pa.csv.CSVWriter(file, schema) as writer:
        for batch in rows:
            writer.write_batch(batch)


def write_parquet(file: Any, rows: Iterable[pa.RecordBatch], schema: pa.Schema) -> None:
    """Write Parquet to an open file."""
    with pa.parquet.ParquetWriter(file, schema) as writer:
        for batch in rows:
            writer.write_batch(batch)


class _FileSink:
    """A file; what is staged lies beside it as `.<name>.<ticket>.staged`."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)

    @property
    def name(self) -> str:
        """The path, as it was given."""
        return str(self._path)

    def is_taken(self) -> bool:
        """Tell whether there is a file of that name."""
        with self._failures():
            return os.path.lexists(self._path)

    def stage(self, rows: Iterable[pa.RecordBatch], schema: pa.Schema, *, ticket: str) -> None:
        """Write the list to a file beside; see `Sink.stage`."""
        staged = self._staged(ticket)
        with self._failures():
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            staged.unlink(missing_ok=True)
            descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with self._failures(), os.fdopen(descriptor, "wb") as file:
                self._write(file, rows, schema)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            staged.unlink(missing_ok=True)
            raise

    def publish(self, *, ticket: str) -> None:
        """Give the file beside its name; see `Sink.publish`."""
        staged = self._staged(ticket)
        with self._failures():
            taken = os.path.lexists(self._path)
            if not staged.exists():
                if taken:
                    return
                raise SinkUnavailableError(f"{self.name}: nothing is staged there: deliver again")
            if taken:
                raise SinkOccupiedError(self.name)
            staged.replace(self._path)
            self._settle_directory()

    def discard(self, *, ticket: str) -> None:
        """Remove the file beside; see `Sink.discard`."""
        with self._failures():
            self._staged(ticket).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the file; see `Sink.remove`."""
        with self._failures():
            self._path.unlink(missing_ok=True)
            if self._path.parent.is_dir():
                self._settle_directory()

    def _staged(self, ticket: str) -> Path:
        return self._path.with_name(f".{self._path.name}.{checked_ticket(ticket)}.staged")

    def _settle_directory(self) -> None:
        """Wait until the directory's list of names is on the disk."""
        descriptor = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else "it cannot be written"
            raise SinkUnavailableError(
                f"{self.name} cannot take the list: {reason}; check its rights and the space on "
                "its disk, then run again"
            ) from None

    def _write(self, file: Any, rows: Iterable[pa.RecordBatch], schema: pa.Schema) -> None:
        raise NotImplementedError


class CsvSink(_FileSink):
    """A CSV file (RFC 4180) in UTF-8, one line of names first; every text is quoted."""

    def _write(self, file: Any, rows: Iterable[pa.RecordBatch], schema: pa.Schema) -> None:
        write_csv(file, rows, schema)


class ParquetSink(_FileSink):
    """A Parquet file."""

    def _write(self, file: Any, rows: Iterable[pa.RecordBatch], schema: pa.Schema) -> None:
        write_parquet(file, rows, schema)
