"""Where a party's people lie, and which columns of it are read."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow.compute as pc

from compliance.terms import ColumnTerm
from connectors import FileSource, ObjectSource, SqlSource, open_connector
from connectors.connector import Connector
from connectors.schema import Classification, Column, ColumnType, Schema, text_of
from federation.party import DataConfig

__all__ = ["has_row", "open_source", "schema_for"]


def open_source(data: DataConfig, directory: Path) -> Connector:
    """Open a party's table; a relative path, or one of SQLite, is taken from `directory`.

    Raises:
        SourceNotFoundError: there is no such file or table.
        SourceUnavailableError: the database cannot be reached.
    """
    data = data.within(directory)
    if data.path is not None:
        return open_connector(FileSource(path=data.path))
    if data.url is None:
        raise RuntimeError("a DataConfig has a path or a url")
    if data.table is None:
        return open_connector(ObjectSource(url=data.url))
    return open_connector(SqlSource(url=data.url, table=data.table))


def has_row(data: DataConfig, directory: Path, reference: str) -> bool:
    """Tell whether a row of a party's table has a record reference.

    Raises:
        ConnectorError: the table cannot be read.
    """
    batches = open_source(data, directory).scan([data.key])
    return any(pc.any(pc.equal(text_of(batch.column(0)), reference)).as_py() for batch in batches)


def schema_for(
    data: DataConfig, terms: Sequence[ColumnTerm], *, with_labels: bool = False
) -> tuple[Schema, Mapping[str, str]]:
    """Return the columns to read, and the party's column name of each agreed one."""
    named = {term.name: data.features.get(term.name, term.name) for term in terms}
    columns = [Column(name=data.key, type=ColumnType.KEY)]
    columns += [
        Column(name=name, type=ColumnType.IDENTIFIER)
        for name in dict.fromkeys(column for _, column in data.identifier_columns)
        if name != data.key
    ]
    if data.seeds is not None:
        columns.append(Column(name=data.seeds.column, type=ColumnType.TEXT))
    if with_labels and data.labels is not None:
        columns.append(Column(name=data.labels.column, type=ColumnType.TEXT))
    columns += [
        Column(
            name=named[term.name],
            type=ColumnType(term.type.value),
            unit=term.unit,
            classification=Classification(term.classification.value),
            minimum=term.minimum,
            maximum=term.maximum,
            categories=term.categories,
        )
        for term in terms
    ]
    return Schema(columns=tuple(columns)), named
