"""A party's table, read once: references and identifiers go to disk, numbers stay in memory."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compliance.agreement import Agreement
from compliance.terms import ColumnTerm
from connectors import TableReading
from connectors.connector import Connector
from federation.consent_reading import PEOPLE
from federation.errors import WorkspaceError
from federation.features import Scores, features_of, require_readable, strings_of
from federation.matching.token_set import TokenShelves
from federation.party import DataConfig
from federation.population.identifiers import Identifiers
from federation.population.persons import persons_of, rows_of_one_reference
from federation.population.source import schema_for
from federation.population.use import Use
from federation.references import References, owners_file
from federation.shelves import Shelves

__all__ = ["Rows", "read_rows"]

_MOST_ROWS = 1 << 31


@dataclass(frozen=True)
class _Columns:
    """Which columns are kept.

    Attributes:
        terms: the agreed ones.
        named: what the party calls each of them.
        label: the labels' column, if it is read.
    """

    terms: tuple[ColumnTerm, ...]
    named: Mapping[str, str]
    label: str | None

    @property
    def names(self) -> tuple[str, ...]:
        """What the party calls all of them."""
        labels = () if self.label is None else (self.label,)
        return tuple(dict.fromkeys((*self.named.values(), *labels)))


@dataclass(frozen=True)
class Rows:
    """A table that was read.

    Attributes:
        source: what the table is called.
        count: how many rows it has.
        people: their numbers on shelves, by record reference.
        asked: which rows the job is about, shape (n,).
        tokens: identifiers of the rows, on shelves.
        findings: what was found wrong.
    """

    source: str
    count: int
    people: Shelves
    asked: NDArray[np.bool_]
    tokens: TokenShelves
    findings: tuple[str, ...]
    _references: Path
    _kept: pa.Table | None
    _scores: Scores | None
    _columns: "_Columns"

    def persons(self) -> NDArray[np.uint32]:
        """Return each row's person, which shared references and identifiers link, shape (n,)."""
        pairs = [rows_of_one_reference(self.people), self.tokens.sort()]
        return persons_of(self.count, np.concatenate(pairs))

    def references(self, chosen: NDArray[np.bool_], place: Path | None) -> References:
        """Return the references of chosen rows, in a file where a place for it is given."""

        def parts() -> Iterator[pa.Array]:
            begin = 0
            with pa.OSFile(str(self._references)) as file, pa.ipc.open_stream(file) as reader:
                for batch in reader:
                    yield batch.column(0).filter(pa.array(chosen[begin : begin + len(batch)]))
                    begin += len(batch)

        if place is not None:
            return References.write(place, parts())
        return References.of(pa.chunked_array(parts(), pa.large_string()).combine_chunks())

    def features(
        self, chosen: NDArray[np.bool_]
    ) -> tuple[Mapping[str, NDArray[np.generic]], NDArray[np.object_] | None]:
        """Return agreed columns of chosen rows, and their labels, as far as they were read.

        Raises:
            WorkspaceError: a column is unreadable in every one of these rows.
        """
        if self._kept is None:
            return {}, None
        table, columns = self._kept.filter(pa.array(chosen)), self._columns
        require_readable(self.source, table, columns.terms, columns.named)
        labels = None if columns.label is None else strings_of(table, columns.label)
        return features_of(table, columns.named), labels

    def scores(self, chosen: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Return the scores of chosen rows; none where none were made."""
        if self._scores is None:
            return np.zeros(0, dtype=np.float32)
        return self._scores.of(chosen)


def read_rows(
    connector: Connector, data: DataConfig, agreement: Agreement, use: Use, directory: Path
) -> Rows:
    """Read a table once: lay out references and identifiers on disk, and judge the values.

    Args:
        connector: the table.
        data: what its columns are called.
        agreement: columns, bounds, identifier recipe.
        use: what the people are read for.
        directory: an empty one.

    Raises:
        ConnectorError: the table cannot be read, or lacks a column.
        WorkspaceError: it has too many rows, or none that a score could be made of.
        OSError: the disk is full, or cannot be written.
    """
    terms = use.terms(agreement)
    schema, named = schema_for(data, terms, with_labels=use.with_labels)
    label = data.labels.column if use.with_labels and data.labels is not None else None
    columns = _Columns(terms, named, label)
    reading = TableReading(connector, schema, spill=directory)
    identifiers = Identifiers(data, agreement.match, directory / "tokens", key=use.key)
    score = use.score
    scores = None if score is None else Scores(directory / "scores", score, terms, named)
    count, asked, kept = 0, [np.zeros(0, dtype=np.bool_)], []
    identifiers.put(reading.schema.empty_table(), 0)  # finds what is wrong with the configuration
    people, references = Shelves(directory / "people", PEOPLE), directory / "references.arrow"
    subjects = pa.schema([PEOPLE.field("subject")])
    with people, owners_file(references) as file, pa.ipc.new_stream(file, subjects) as writer:
        for batch in reading:
            if count + len(batch) > _MOST_ROWS:
                raise WorkspaceError("the table has more than 2^31 rows: cut it into several jobs")
            subject = batch.column(data.key).fill_null("").cast(pa.large_string())
            numbers = pa.array(np.arange(count, count + len(batch), dtype=np.uint32))
            people.put(pa.record_batch([subject, numbers], schema=PEOPLE))
            writer.write_batch(pa.record_batch([subject], schema=subjects))
            identifiers.put(batch, count)
            asked.append(_asked(batch, data))
            if scores is None:
                kept.append(batch.select(list(columns.names)))
            else:
                scores.put(batch)
            count += len(batch)
    if scores is not None:
        scores.require_readable(connector.name)
    wanted = pa.schema([reading.schema.field(name) for name in columns.names])
    return Rows(
        connector.name,
        count,
        people,
        np.concatenate(asked),
        identifiers.shelves,
        (*reading.report().lines(), *identifiers.findings()),
        references,
        pa.Table.from_batches(kept, schema=wanted) if columns.names and scores is None else None,
        scores,
        columns,
    )


def _asked(batch: pa.RecordBatch, data: DataConfig) -> NDArray[np.bool_]:
    if data.seeds is None:
        return np.ones(len(batch), dtype=np.bool_)
    is_seed = pc.equal(batch.column(data.seeds.column).fill_null(""), data.seeds.equals)
    return np.asarray(is_seed.to_numpy(zero_copy_only=False), dtype=np.bool_)
