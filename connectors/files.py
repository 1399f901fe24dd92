"""Tables in CSV and Parquet files.

Guarantees that a change is seen by readers wholly or not at all, that no two changes in one
directory run at once on this machine, and that one refuses rather than lose rows when another
program changed the file meanwhile. The rows that stay keep their order and their values; the
spelling of a CSV file (which fields are quoted) may change.

Leaves values as they are: what a CSV field means is decided in `quality`.
"""

import codecs
import errno
import fcntl
import os
import re
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from connectors.errors import (
    SourceFormatError,
    SourceNotFoundError,
    SourceReadOnlyError,
    SourceUnavailableError,
    ValueMisfitError,
)
from connectors.schema import distinct_keys, require_columns, text_of

__all__ = ["Change", "CsvConnector", "FileConnector", "ParquetConnector"]

_CSV_BLOCK_BYTES = 4 << 20  # also the longest row that can be read
_BATCH_ROWS = 65_536
_NO_RIGHTS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_MISFIT = re.compile(r"CSV parse error: Row #(\d+): Expected (\d+) columns, got (\d+)")

Change = Callable[[pa.RecordBatch], tuple[pa.RecordBatch, Any]]
"""Makes of a batch the one to be written, and tells which of its rows were meant."""


class FileConnector(ABC):
    """What is common to files: errors, locking and replacement."""

    _layout: str

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)

    @property
    def name(self) -> str:
        """The path, as it was given."""
        return str(self._path)

    def columns(self) -> tuple[str, ...]:
        """Return the names of the columns, in the file's order."""
        with self._failures():
            names = self._names()
        if len(set(names)) != len(names):
            raise SourceFormatError(
                f"{self.name}: expected distinct column names, but {len(names) - len(set(names))} "
                f"of {len(names)} repeat an earlier one: rename them, or add the header line"
            )
        return names

    def scan(
        self, columns: Sequence[str], *, batch_rows: int = _BATCH_ROWS
    ) -> Iterator[pa.RecordBatch]:
        """Read some columns, batch by batch; see `Connector.scan`."""
        if batch_rows < 1:
            raise ValueError(f"expected batch_rows of at least 1, got {batch_rows}")
        require_columns(self.name, columns, self.columns())
        return self._scan(columns, batch_rows)

    @abstractmethod
    def count(self) -> int:
        """Return the number of rows."""

    def delete(self, key_column: str, keys: Collection[str]) -> int:
        """Write the file anew without the keys' rows and put it in the old one's place.

        The new file stands beside the old one as `.<name>.partial` until it is complete and on
        the disk; a crash leaves the old file in force, and the next deletion overwrites the rest.
        See `Connector.delete`.

        Raises:
            SourceReadOnlyError: its directory may not be written.
            SourceUnavailableError: also when the file was changed by another while it was read.
        """
        wanted = pa.array(distinct_keys(keys), pa.string())

        def without(batch: pa.RecordBatch) -> tuple[pa.RecordBatch, Any]:
            doomed = pc.is_in(text_of(batch.column(key_column)), value_set=wanted)
            return batch.filter(pc.invert(doomed)), doomed

        return self._rewrite([key_column], without)

    def find(self, key_column: str, keys: Collection[str]) -> Iterator[pa.RecordBatch]:
        """Read the keys' rows; see `Connector.find`."""
        wanted = pa.array(distinct_keys(keys), pa.string())
        columns = self.columns()
        require_columns(self.name, [key_column], columns)
        for batch in self._scan(columns, _BATCH_ROWS):
            found = batch.filter(pc.is_in(text_of(batch.column(key_column)), value_set=wanted))
            if len(found):
                yield found

    def update(
        self, key_column: str, keys: Collection[str], values: Mapping[str, str | None]
    ) -> int:
        """Write the file anew with other values in the keys' rows; see `Connector.update`.

        The file is replaced as by `delete`.
        """
        wanted = pa.array(distinct_keys(keys), pa.string())

        def changed(batch: pa.RecordBatch) -> tuple[pa.RecordBatch, Any]:
            meant = pc.is_in(text_of(batch.column(key_column)), value_set=wanted)
            for name, value in values.items():
                place = batch.schema.get_field_index(name)
                new = pc.if_else(meant, self._fitting(name, value, batch), batch.column(place))
                batch = batch.set_column(place, batch.schema.field(place), new)
            return batch, meant

        return self._rewrite(list(dict.fromkeys((key_column, *values))), changed)

    def _fitting(self, name: str, value: str | None, batch: pa.RecordBatch) -> pa.Scalar:
        kind = batch.schema.field(name).type
        try:
            return pa.scalar(value, pa.string()).cast(kind)
        except pa.ArrowException:
            raise ValueMisfitError(
                f"{self.name}: expected a value of type {kind} for column {name!r}: nothing was "
                "changed"
            ) from None

    def _rewrite(
        self,
        needed: Sequence[str],
        change: Change,
    ) -> int:
        """Put a changed file in the place of the old one, and return how many rows were meant."""
        with self._failures(writing=True), _exclusively(path := self._path.resolve()):
            columns = self.columns()
            require_columns(self.name, needed, columns)
            before = path.stat()
            partial = path.with_name(f".{path.name}.partial")
            rows = 0

            def changed() -> Iterator[pa.RecordBatch]:
                nonlocal rows
                for batch in self._scan(columns, _BATCH_ROWS):
                    written, meant = change(batch)
                    rows += pc.sum(meant).as_py() or 0
                    yield written

            try:
                self._write(_created(partial), changed())
                if rows:
                    self._replace(path, partial, before)
            finally:
                partial.unlink(missing_ok=True)
        return rows

    def _replace(self, path: Path, partial: Path, before: os.stat_result) -> None:
        partial.chmod(stat.S_IMODE(before.st_mode))
        with suppress(PermissionError):  # only root may give a file away
            os.chown(partial, before.st_uid, before.st_gid)
        _flush(partial)
        now = path.stat()
        if (now.st_ino, now.st_size, now.st_mtime_ns) != (
            before.st_ino,
            before.st_size,
            before.st_mtime_ns,
        ):
            raise SourceUnavailableError(
                f"{self.name} was changed by another program meanwhile, nothing was done here: "
                "try again when the file is at rest"
            )
        partial.replace(path)
        _flush(path.parent)

    @contextmanager
    def _failures(self, *, writing: bool = False) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise SourceNotFoundError(
                f"{self.name} does not exist: correct the path of the source"
            ) from None
        except (pa.ArrowException, ValueError, OSError) as error:
            # Arrow reports damaged contents as an OSError without a number.
            if isinstance(error, OSError) and writing and error.errno in _NO_RIGHTS:
                raise SourceReadOnlyError(
                    f"{self.name} can only be read, nothing was done: give this user the right to "
                    "write its directory, or do it where the file comes from"
                ) from None
            if isinstance(error, OSError) and error.errno is not None:
                raise SourceUnavailableError(
                    f"{self.name} cannot be used: {os.strerror(error.errno)}; check its rights "
                    "and the space on its disk"
                ) from None
            raise SourceFormatError(
                f"{self.name} cannot be read: expected {self._layout}; export it again"
            ) from None

    def _input(self) -> Any:
        """Return what Arrow reads: a path, or a stream of its own, without compression."""
        return self._path

    @abstractmethod
    def _names(self) -> tuple[str, ...]: ...

    @abstractmethod
    def _scan(self, columns: Sequence[str], batch_rows: int) -> Iterator[pa.RecordBatch]: ...

    @abstractmethod
    def _write(self, target: Any, batches: Iterator[pa.RecordBatch]) -> None: ...


class CsvConnector(FileConnector):
    """A CSV file (RFC 4180): UTF-8, commas, one line of names first; gzip when named `.gz`.

    Every field is read as text and kept to the letter, so the leading zeros of phone numbers
    survive. An empty field is null; a quoted empty one (`""`) is an empty text. Empty lines are
    skipped, except in a file of a single column, where they are rows without a value.
    """

    _layout = "CSV in UTF-8 with commas, a line of column names and fields of less than 4 MiB"

    def count(self) -> int:
        """Return the number of rows; reads the whole file."""
        return sum(batch.num_rows for batch in self._scan(self.columns()[:1], _BATCH_ROWS))

    def most_rows(self) -> int:
        """Return how many rows there are at most: as many as lines, which takes no parsing.

        Raises:
            ConnectorError: the file cannot be read.
        """
        ends, last = 0, b""
        with self._failures(), pa.input_stream(self._input()) as stream:
            while block := stream.read(_CSV_BLOCK_BYTES):
                ends += block.count(b"\n") + block.count(b"\r") - block.count(b"\r\n")
                last = block[-1:]
        return ends - (last in {b"\n", b"\r"})  # there is a line of names, whose end is one

    def _names(self) -> tuple[str, ...]:
        with self._reader(None) as reader:
            return tuple(reader.schema.names)

    def _scan(self, columns: Sequence[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
        names = self.columns()
        with self._failures(), self._reader(columns, skip_empty=len(names) > 1) as reader:
            for block in reader:
                for start in range(0, block.num_rows, batch_rows):
                    yield block.slice(start, batch_rows)

    @contextmanager
    def _reader(self, columns: Sequence[str] | None, *, skip_empty: bool = True) -> Iterator[Any]:
        try:
            with pa.csv.open_csv(
                self._input(),
                # With one thread, Arrow can tell the number of a row that does not fit.
                pa.csv.ReadOptions(use_threads=False, block_size=_CSV_BLOCK_BYTES),
                pa.csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=skip_empty),
                pa.csv.ConvertOptions(
                    include_columns=columns,
                    column_types=dict.fromkeys(columns or (), pa.string()),
                    null_values=[""],
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                ),
            ) as reader:
                yield reader
        except pa.ArrowInvalid as error:
            misfit = _MISFIT.match(str(error))  # the rest of the message quotes the row
            if misfit is None or self._is_utf16():
                raise
            row, expected, got = misfit.groups()
            raise SourceFormatError(
                f"{self.name}: row {row} has {got} fields, expected {expected}; repair or quote it"
            ) from None

    def _is_utf16(self) -> bool:
        with pa.input_stream(self._input()) as stream:
            return bytes(stream.read(2)) in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}

    def _write(self, target: Any, batches: Iterator[pa.RecordBatch]) -> None:
        compression = "gzip" if self._path.name.lower().endswith(".gz") else None
        schema = pa.schema([(name, pa.string()) for name in self.columns()])
        with (
            pa.output_stream(target, compression=compression) as stream,
            pa.csv.CSVWriter(stream, schema) as writer,
        ):
            for batch in batches:
                writer.write_batch(batch)


class ParquetConnector(FileConnector):
    """A Parquet file; values keep their native types. A scan holds one row group, compressed."""

    _layout = "one whole Parquet file"

    def count(self) -> int:
        """Return the number of rows; reads the file's footer alone."""
        with self._failures(), self._file() as file:
            return int(file.metadata.num_rows)

    def _names(self) -> tuple[str, ...]:
        with self._file() as file:
            return tuple(file.schema_arrow.names)

    def _scan(self, columns: Sequence[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
        with self._failures(), self._file() as file:
            for group in range(file.num_row_groups):  # one iterator over all would hold them all
                for batch in file.iter_batches(
                    batch_size=batch_rows, row_groups=[group], columns=list(columns)
                ):
                    yield batch.select(list(columns))

    def _file(self) -> AbstractContextManager[Any]:
        file: AbstractContextManager[Any] = pa.parquet.ParquetFile(self._input())
        return file

    def _write(self, target: Any, batches: Iterator[pa.RecordBatch]) -> None:
        with self._file() as file:
            schema = file.schema_arrow
        with pa.parquet.ParquetWriter(target, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)


@contextmanager
def _exclusively(path: Path) -> Iterator[None]:
    """Hold the lock of a file's directory: the file's own would not outlive its replacement."""
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _created(path: Path) -> Path:
    """Create an empty file that its owner alone may read, whatever the umask."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600, exist_ok=False)
    return path


def _flush(path: Path) -> None:
    """Wait until a file, or a directory's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
