"""Tables in the objects of an S3-compatible store: one object, or all whose names fit a pattern.

Guarantees what every connector does, with two differences that come of many objects. A scan reads
each object as it was when the scan began, and ends with an error where one has changed since: the
store keeps no snapshot. A change is made object by object, each wholly or not at all and never over
what another program wrote meanwhile; where it is cut between two, running it again ends it.

A deletion reaches what a bucket with versions keeps: each older version that has one of the keys is
deleted, or `SourceReadOnlyError` says that it could not be.

Leaves to others: copies in other buckets, replicas and backups; objects and versions whose names
the URL does not fit.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from itertools import chain
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from connectors.errors import (
    ConnectorError,
    SourceFormatError,
    SourceNotFoundError,
    SourceReadOnlyError,
    SourceUnavailableError,
)
from connectors.files import Change, CsvConnector, FileConnector, ParquetConnector
from connectors.object_store import ObjectStore, StoredObject
from connectors.schema import distinct_keys, require_columns, text_of
from connectors.uploads import Upload

__all__ = ["ObjectsConnector"]

_BATCH_ROWS: Final = 65_536


class _ObjectTable(FileConnector):
    """One object, as it was when it was listed; what it holds is said by a subclass."""

    def __init__(self, store: ObjectStore, stored: StoredObject) -> None:
        super().__init__(stored.key)
        self._store = store
        self._stored = stored
        self._columns: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        """The URL, and the version of what is not the latest."""
        url = self._store.url_of(self._stored.key)
        return url if self._stored.version is None else f"{url} (version {self._stored.version})"

    def columns(self) -> tuple[str, ...]:
        """Return the names of the columns; they are read once, as the object stays what it is."""
        if self._columns is None:
            self._columns = super().columns()
        return self._columns

    def rows_of(self, key_column: str, keys: Sequence[str]) -> int:
        """Count the rows of some keys; reads the column of the keys alone."""
        wanted = pa.array(keys, pa.string())
        with self._failures():
            found = (
                pc.sum(pc.is_in(text_of(batch.column(0)), value_set=wanted)).as_py() or 0
                for batch in self.scan([key_column])
            )
            return sum(found)

    def _rewrite(self, needed: Sequence[str], change: Change) -> int:
        """Put a changed object in the place of this one."""
        require_columns(self.name, needed, self.columns())
        rows = 0

        def changed() -> Iterator[pa.RecordBatch]:
            nonlocal rows
            for batch in self._scan(self.columns(), _BATCH_ROWS):
                written, meant = change(batch)
                rows += pc.sum(meant).as_py() or 0
                yield written

        upload = Upload.begin(self._store, self._stored.key, of=self._stored)
        try:
            with self._failures():
                self._write(pa.PythonFile(upload, mode="w"), changed())
            upload.settle()
        except BaseException:
            with suppress(ConnectorError):  # then its parts stay, invisible, and why is told below
                upload.give_up()
            raise
        return rows


class _CsvObject(_ObjectTable, CsvConnector):
    """One object with CSV in it."""

    def _input(self) -> pa.NativeFile:
        content = self._store.stream(self._stored)
        gzipped = self._stored.key.lower().endswith(".gz")
        return pa.CompressedInputStream(content, "gzip") if gzipped else content


class _ParquetObject(_ObjectTable, ParquetConnector):
    """One object with Parquet in it."""

    def _file(self) -> AbstractContextManager[Any]:
        content = self._store.open(self._stored)
        # Columns of a row group that lie side by side come by one request.
        file: AbstractContextManager[Any] = pa.parquet.ParquetFile(content, pre_buffer=True)
        return file


class ObjectsConnector:
    """Objects of one form and with the same columns, as one table in the order of their names.

    Args:
        url: `s3://bucket/prefix/people-*.parquet`; its ending is a file's, as in `FileSource`.

    Raises:
        SourceFormatError: the ending is not a known one.
        SourceUnavailableError: the URL is malformed, or what speaks to stores is not installed.
    """

    def __init__(self, url: str) -> None:
        self._store = ObjectStore(url)
        ending = url.lower()
        if ending.endswith((".csv", ".csv.gz")):
            self._open: Callable[[StoredObject], _ObjectTable] = partial(_CsvObject, self._store)
        elif ending.endswith((".parquet", ".pq")):
            self._open = partial(_ParquetObject, self._store)
        else:
            raise SourceFormatError(
                f"{url}: expected a name ending in .csv, .csv.gz, .parquet or .pq; rename or "
                "convert the objects"
            )

    @property
    def name(self) -> str:
        """The URL."""
        return self._store.url

    def columns(self) -> tuple[str, ...]:
        """Return the names of the columns, as the first object has them."""
        return self._tables()[0].columns()

    def scan(
        self, columns: Sequence[str], *, batch_rows: int = _BATCH_ROWS
    ) -> Iterator[pa.RecordBatch]:
        """Read some columns of every object, a row group at a time; see `Connector.scan`.

        Raises:
            SourceFormatError: also where objects differ in these columns.
            SourceUnavailableError: also where an object was changed since the scan began.
        """
        tables = self._tables()
        first = tables[0].scan(columns, batch_rows=batch_rows)
        later = (table.scan(columns, batch_rows=batch_rows) for table in tables[1:])
        return self._alike(tables, chain([first], later))

    def count(self) -> int:
        """Return the number of rows; of Parquet, from the objects' footers."""
        return sum(table.count() for table in self._tables())

    def find(self, key_column: str, keys: Collection[str]) -> Iterator[pa.RecordBatch]:
        """Read the keys' rows; see `Connector.find`."""
        tables, wanted = self._tables(), distinct_keys(keys)
        return self._alike(tables, (table.find(key_column, wanted) for table in tables))

    def delete(self, key_column: str, keys: Collection[str]) -> int:
        """Write every object that has a key's row anew, then delete older versions that have one.

        All are looked through before any is written. See `Connector.delete`.

        Raises:
            SourceReadOnlyError: the objects may not be written; or versions that have such rows
                may not be listed or deleted, which the message says.
            SourceUnavailableError: also when an object was changed by another meanwhile.
        """
        wanted = distinct_keys(keys)
        if not wanted:
            self._require([key_column])
            return 0
        # 1. What versions there are must be told, before anything is done.
        older = self._store.older()
        # 2. The objects that have rows are written anew.
        try:
            rows = self._change(
                [key_column], key_column, wanted, lambda table: table.delete(key_column, wanted)
            )
        except SourceNotFoundError:
            if not older:
                raise
            rows = 0  # all were deleted, but for their versions
        # 3. Versions that have rows are deleted: those just replaced, and earlier ones.
        of_older = self._delete_older(key_column, wanted)
        return rows or of_older

    def update(
        self, key_column: str, keys: Collection[str], values: Mapping[str, str | None]
    ) -> int:
        """Write every object that has a key's row anew with other values; see `Connector.update`.

        Older versions keep the older values.
        """
        wanted = distinct_keys(keys)
        needed = list(dict.fromkeys((key_column, *values)))
        return self._change(
            needed, key_column, wanted, lambda table: table.update(key_column, wanted, values)
        )

    def _tables(self) -> tuple[_ObjectTable, ...]:
        return tuple(map(self._open, self._store.listed()))

    def _require(self, columns: Sequence[str]) -> tuple[_ObjectTable, ...]:
        """Return the objects, all of which have some columns."""
        tables = self._tables()
        for table in tables:
            require_columns(table.name, columns, table.columns())
        return tables

    def _alike(
        self, tables: Sequence[_ObjectTable], scans: Iterable[Iterator[pa.RecordBatch]]
    ) -> Iterator[pa.RecordBatch]:
        """Yield the batches of all objects, which have one schema."""
        schema: pa.Schema | None = None
        for table, batches in zip(tables, scans, strict=True):
            for batch in batches:
                schema = schema or batch.schema
                if batch.schema != schema:
                    raise SourceFormatError(
                        f"{table.name}: expected columns of the same types as in the objects "
                        f"before it, of {self.name}; export them alike"
                    )
                yield batch

    def _change(
        self,
        needed: Sequence[str],
        key_column: str,
        keys: Sequence[str],
        change: Callable[[_ObjectTable], int],
    ) -> int:
        meant = [table for table in self._require(needed) if table.rows_of(key_column, keys)]
        rows = 0
        for done, table in enumerate(meant):
            try:
                rows += change(table)
            except SourceUnavailableError as error:
                if done == 0:
                    raise
                raise SourceUnavailableError(
                    f"{self.name}: {done} of {len(meant)} objects were changed, then: {error}; "
                    "run it again"
                ) from None
        return rows

    def _delete_older(self, key_column: str, keys: Sequence[str]) -> int:
        rows = 0
        for stored in self._store.older():
            found = self._open(stored).rows_of(key_column, keys)
            if not found:
                continue
            rows += found
            try:
                self._store.delete(stored.key, version=stored.version)
            except SourceReadOnlyError:
                raise SourceReadOnlyError(
                    f"{self._store.url_of(stored.key)}: an older version that has such rows may "
                    "not be deleted, and keeps them: give this party the right "
                    "s3:DeleteObjectVersion, or end the version's retention"
                ) from None
        return rows
