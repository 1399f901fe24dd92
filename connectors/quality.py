"""Reading a table for use, and saying what is wrong with it.

`TableReading` (batch by batch) and `read_table` (at once) guarantee the types that a schema
promises and lose no row: what cannot be read becomes null and is counted, what merely looks wrong
is kept and counted. Nothing is corrected, dropped or decided: the report is for the party's own
people to act on, and stays with the party. Repetitions are counted by fingerprint.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectors.connector import Connector
from connectors.errors import SourceFormatError
from connectors.fingerprints import fingerprints
from connectors.schema import Column, ColumnType, Schema, text_of

__all__ = ["QualityReport", "TableReading", "read_table"]

_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_RFC3339 = r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(\.\d{1,9})?(Z|[+-]\d{2}:\d{2})$"
_READ_BYTES = 1 << 22
_INSTANT = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, slots=True)
class QualityReport:
    """What was found wrong in a table: numbers of values by column, never a value.

    Every column to which a count applies is in its mapping, with 0 where all is well.

    Attributes:
        rows: number of rows read.
        missing: values that are null, NaN or blank; every column.
        wrong_type: values that cannot be read as the column's type, now null; numeric and
            timestamp columns.
        out_of_range: values outside the column's minimum and maximum, kept; numeric columns.
        unknown_category: values outside the column's categories, kept; categorical columns that
            declare any.
        duplicate: rows beyond the first that bear the same value, kept; identifier and key
            columns.
    """

    rows: int
    missing: Mapping[str, int]
    wrong_type: Mapping[str, int]
    out_of_range: Mapping[str, int]
    unknown_category: Mapping[str, int]
    duplicate: Mapping[str, int]

    def lines(self) -> tuple[str, ...]:
        """Return the report as sentences: the number of rows, then what is not as it should be."""
        findings = (
            ("missing", self.missing),
            ("of the wrong type, read as missing", self.wrong_type),
            ("outside the declared range, kept", self.out_of_range),
            ("outside the declared categories, kept", self.unknown_category),
            ("a repetition of an earlier row's, kept", self.duplicate),
        )
        return (
            f"{self.rows:,} rows read.",
            *(
                f"{column}: {count:,} of {self.rows:,} values ({count / self.rows:.1%}) {finding}."
                for finding, counts in findings
                for column, count in counts.items()
                if count
            ),
        )


def read_table(
    connector: Connector, schema: Schema, *, progress: Callable[[int], None] | None = None
) -> tuple[pa.Table, QualityReport]:
    """Read a schema's columns into memory and report on them.

    Args:
        connector: where the table lives.
        schema: the columns to read; the table has them in this order.
        progress: called with the number of rows read so far after each batch.

    Returns:
        The table and the report. Numeric columns are `float64` and always finite; timestamps are
        `timestamp[us, UTC]`, where a native timestamp without a zone is taken for UTC; all other
        columns are `string`, as `text_of` writes them and otherwise as they are.

    Raises:
        MissingColumnError: the source lacks columns of the schema.
        ConnectorError: the source cannot be read, or a column's type has no text form.
    """
    reading = TableReading(connector, schema, progress=progress)
    table = pa.Table.from_batches(reading, schema=reading.schema)
    return table, reading.report()


class TableReading:
    """One reading of a table, batch by batch, and what is found wrong on the way.

    Values of key and identifier columns are counted by fingerprints, in files without a name.

    Args:
        connector: where the table lives.
        schema: the columns to read; the batches have them in this order.
        progress: called with the number of rows read so far after each batch.
        spill: the directory of these files; where left out, the system's own.

    Attributes:
        schema: of the batches; see `read_table` for the types.
    """

    def __init__(
        self,
        connector: Connector,
        schema: Schema,
        *,
        progress: Callable[[int], None] | None = None,
        spill: Path | None = None,
    ) -> None:
        self._connector = connector
        self._columns = schema
        self._progress = progress
        self.schema = pa.schema(
            [(column.name, _arrow_type(column.type)) for column in schema.columns]
        )
        self._rows = 0
        self._missing = dict.fromkeys(schema.names, 0)
        self._wrong_type = _zeros(schema.of_type(ColumnType.NUMERIC, ColumnType.TIMESTAMP))
        self._out_of_range = _zeros(schema.of_type(ColumnType.NUMERIC))
        self._unknown = _zeros(
            column for column in schema.of_type(ColumnType.CATEGORICAL) if column.categories
        )
        self._seen = {
            column.name: _Fingerprints(spill)
            for column in schema.of_type(ColumnType.IDENTIFIER, ColumnType.KEY)
        }

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Read the table, once.

        Raises:
            MissingColumnError: the source lacks columns of the schema.
            ConnectorError: the source cannot be read, or a column's type has no text form.
            OSError: the disk that fingerprints go to is full.
        """
        for batch in self._connector.scan(self._columns.names):
            values = [
                self._read(column, batch.column(column.name)) for column in self._columns.columns
            ]
            self._rows += batch.num_rows
            if self._progress is not None:
                self._progress(self._rows)
            yield pa.record_batch(values, schema=self.schema)

    def report(self) -> QualityReport:
        """Return what was found wrong in the batches that were read."""
        return QualityReport(
            rows=self._rows,
            missing=self._missing,
            wrong_type=self._wrong_type,
            out_of_range=self._out_of_range,
            unknown_category=self._unknown,
            duplicate={name: seen.repeated() for name, seen in self._seen.items()},
        )

    def _read(self, column: Column, given: pa.Array) -> pa.Array:
        name = column.name
        try:
            present = _present(given)
            values = _READERS[column.type](present)
        except pa.ArrowException:  # its message may quote a value
            raise SourceFormatError(
                f"{self._connector.name}: column {name!r} holds {given.type}, which cannot be "
                f"read as {column.type}; export it as text"
            ) from None
        self._missing[name] += present.null_count
        if name in self._wrong_type:
            self._wrong_type[name] += values.null_count - present.null_count
        if name in self._out_of_range:
            self._out_of_range[name] += _true_count(pc.less(values, column.minimum)) + _true_count(
                pc.greater(values, column.maximum)
            )
        if name in self._unknown:
            known = pc.is_in(values.drop_null(), pa.array(column.categories, pa.string()))
            self._unknown[name] += _true_count(pc.invert(known))
        if name in self._seen:
            self._seen[name].add(values.drop_null())
        return values


def _zeros(columns: Iterable[Column]) -> dict[str, int]:
    return {column.name: 0 for column in columns}


class _Fingerprints:
    """Counts repetitions in a column that is too long for memory."""

    def __init__(self, directory: Path | None) -> None:
        self._file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - lives with this object

    def add(self, values: pa.Array) -> None:
        """Take in more values, none of them null."""
        self._file.write(fingerprints(values).data)

    def repeated(self) -> int:
        """Return how many values repeat an earlier one; a part of them is sorted at a time."""
        self._file.flush()
        size = self._file.tell()
        parts = 1 << min(16, (size >> 24).bit_length())  # of 16 MiB or so
        return sum(self._repeated_in(part, parts) for part in range(parts))

    def _repeated_in(self, part: int, parts: int) -> int:
        self._file.seek(0)
        found = [np.zeros(0, dtype=np.uint64)]
        while content := self._file.read(_READ_BYTES):
            values = np.frombuffer(content, dtype=np.uint64)
            found.append(values[values % np.uint64(parts) == part])
        values = np.sort(np.concatenate(found))
        return int(np.count_nonzero(values[1:] == values[:-1]))


def _true_count(flags: pa.ChunkedArray) -> int:
    return int(pc.sum(flags).as_py() or 0)


def _present(values: pa.Array) -> pa.Array:
    """Return the values with null for every one that is missing: NaN and blank text."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_floating(values.type):
        return pc.if_else(pc.is_nan(values), None, values)
    if _is_text(values.type):
        values = text_of(values)
        return pc.if_else(pc.equal(pc.utf8_trim_whitespace(values), ""), None, values)
    return values


def _numbers(values: pa.Array) -> pa.Array:
    kind = values.type
    if _is_text(kind):
        values = _matching(values, _NUMBER)
    elif not (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_boolean(kind)
    ):
        return pa.nulls(len(values), pa.float64())
    numbers = pc.cast(values, pa.float64(), safe=False)
    return pc.if_else(pc.is_finite(numbers), numbers, None)


def _instants(values: pa.Array) -> pa.Array:
    kind = values.type
    if _is_text(kind):
        import pandas as pd

        texts = _matching(values, _RFC3339).to_pandas()
        read = pd.to_datetime(texts, format="ISO8601", utc=True, errors="coerce")
        return pa.Array.from_pandas(read).cast(_INSTANT, safe=False)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return values.cast(pa.timestamp("us", tz=getattr(kind, "tz", None)), safe=False).cast(
            _INSTANT
        )
    return pa.nulls(len(values), _INSTANT)


def _matching(texts: pa.Array, pattern: str) -> pa.Array:
    """Return the texts without surrounding space, with null for those not of the pattern."""
    trimmed = pc.utf8_trim_whitespace(texts)
    return pc.if_else(pc.match_substring_regex(trimmed, pattern), trimmed, None)


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _arrow_type(type_: ColumnType) -> pa.DataType:
    return {ColumnType.NUMERIC: pa.float64(), ColumnType.TIMESTAMP: _INSTANT}.get(
        type_, pa.string()
    )


_READERS: Mapping[ColumnType, Callable[[pa.Array], pa.Array]] = {
    ColumnType.IDENTIFIER: text_of,
    ColumnType.KEY: text_of,
    ColumnType.NUMERIC: _numbers,
    ColumnType.CATEGORICAL: text_of,
    ColumnType.TEXT: text_of,
    ColumnType.TIMESTAMP: _instants,
}
