"""Lists of people in files: CSV and Parquet, readable by their owner alone."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from connectors.errors import SinkOccupiedError, SinkUnavailableError
from connectors.sink import checked_ticket

__all__ = ["CsvSink", "ParquetSink", "write_csv", "write_parquet"]


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
