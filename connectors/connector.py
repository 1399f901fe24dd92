"""The one way in which tables of people's data are read, corrected and deleted.

`Connector` is what the rest of the system sees; `FileSource`, `SqlSource` and `ObjectSource` are
what a party writes in its configuration; `open_connector` leads from the one to the other. A
connector does what it is told: whether rows may be read or must be deleted is decided elsewhere.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Protocol, runtime_checkable

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from connectors.errors import SourceFormatError

__all__ = ["Connector", "FileSource", "ObjectSource", "SqlSource", "open_connector"]


@runtime_checkable
class Connector(Protocol):
    """A table that can be read in batches and from which rows can be deleted.

    Every method raises a `ConnectorError` when the source fails; none keeps anything open once it
    has returned or its iterator is exhausted or closed. A connector may be used again after a
    failure, and by several threads.
    """

    @property
    def name(self) -> str:
        """What to call the source in messages: its path or masked URL, never a secret."""
        ...

    def columns(self) -> tuple[str, ...]:
        """Return the names of the columns, as the source spells and orders them."""
        ...

    def scan(self, columns: Sequence[str], *, batch_rows: int = 65_536) -> Iterator[pa.RecordBatch]:
        """Read some columns, batch by batch, in bounded memory.

        The request is checked before this returns, the data as they are read. Values have the
        source's own types (text where it has none); a value that is absent is null.

        Args:
            columns: one or more distinct names; the batches have them in this order.
            batch_rows: most rows in a batch, at least 1.

        Returns:
            Batches of one schema, as one snapshot of the source; none when there are no rows.

        Raises:
            MissingColumnError: the source lacks some of the columns.
            ValueError: no column, a repeated one, or `batch_rows` below 1.
        """
        ...

    def count(self) -> int:
        """Return the number of rows."""
        ...

    def delete(self, key_column: str, keys: Collection[str]) -> int:
        """Delete every row whose key is among the given ones: all of them, or none on failure.

        In a table of several objects that holds for each; done again, it ends what was cut.

        The rows are gone from what the source holds as a table; copies that others made (backups,
        replicas, the disk's own spare blocks) are the operator's to reach.

        Args:
            key_column: the column that holds the keys.
            keys: text forms of the keys, as `schema.text_of` gives them; unknown ones are ignored.

        Returns:
            The number of rows deleted; 0 leaves the source as it was.

        Raises:
            MissingColumnError: the source lacks the key column.
            SourceReadOnlyError: it can only be read.
            TypeError: `keys` is a single string.
        """
        ...

    def find(self, key_column: str, keys: Collection[str]) -> Iterator[pa.RecordBatch]:
        """Read every column of the rows whose key is among the given ones, as `scan` reads them.

        Args:
            key_column: the column that holds the keys.
            keys: text forms of the keys, as `delete` takes them.

        Raises:
            MissingColumnError: the source lacks the key column.
            TypeError: `keys` is a single string.
        """
        ...

    def update(
        self, key_column: str, keys: Collection[str], values: Mapping[str, str | None]
    ) -> int:
        """Write new values into every row whose key is among the given ones: all, or none.

        Args:
            key_column: the column that holds the keys.
            keys: text forms of the keys, as `delete` takes them.
            values: the new value of each column, as text; None takes the value away.

        Returns:
            The number of rows that bear the keys; 0 leaves the source as it was.

        Raises:
            MissingColumnError: the source lacks a column.
            ValueMisfitError: a value does not fit its column.
            SourceReadOnlyError: it can only be read.
            TypeError: `keys` is a single string.
        """
        ...


class FileSource(BaseModel):
    """A table in a file.

    Attributes:
        path: ends in `.csv`, `.csv.gz`, `.parquet` or `.pq`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path


class SqlSource(BaseModel):
    """A table or view of a database.

    Attributes:
        url: SQLAlchemy URL; may hold a password, so it prints masked.
        table: name of the table, unquoted, exactly as the database spells it; it is looked for
            where the URL leads (for PostgreSQL, along the connection's `search_path`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    url: SecretStr
    table: Annotated[str, Field(min_length=1)]


class ObjectSource(BaseModel):
    """A table in objects of an S3-compatible store.

    Attributes:
        url: `s3://bucket/prefix/people-*.parquet`; each `*` stands for any letters but `/`; ends as
            the path of a `FileSource` does. It holds no credentials: those are the environment's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    url: str


def open_connector(
    source: FileSource | SqlSource | ObjectSource, *, patient: bool = False
) -> Connector:
    """Return the connector for a source; the source itself is first touched when it is used.

    Args:
        source: where the table is.
        patient: whether to wait for a database that is away, a quarter of a minute, and a
            minute more where nothing answers at all.

    Raises:
        SourceFormatError: the file name's ending is not a known one.
        SourceUnavailableError: the URL is malformed, or the database's driver or what speaks to
            object stores is not installed.
    """
    if isinstance(source, ObjectSource):
        from connectors.objects import ObjectsConnector

        return ObjectsConnector(source.url)
    if isinstance(source, SqlSource):
        # SQLAlchemy is loaded only for those who use it.
        from connectors.sql import PAUSES, SqlConnector

        pauses = PAUSES if patient else ()
        return SqlConnector(source.url.get_secret_value(), source.table, pauses=pauses)
    from connectors.files import CsvConnector, ParquetConnector

    name = source.path.name.lower()
    if name.endswith((".csv", ".csv.gz")):
        return CsvConnector(source.path)
    if name.endswith((".parquet", ".pq")):
        return ParquetConnector(source.path)
    raise SourceFormatError(
        f"{source.path}: expected a name ending in .csv, .csv.gz, .parquet or .pq; rename or "
        "convert the file"
    )
