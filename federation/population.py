"""The people of one party that a job may use: read, checked, and excluded with a count each.

Guarantees: a row enters only if its person consents to the purpose now, under every record
that bears the same identifier; and at most one row enters per person as far as identifiers tell,
so that one person cannot count twice at this party. Nobody is dropped silently: every
exclusion has a reason and a count. Of rows, only numbers are held in memory, 15 bytes each;
references and tokens go to disk as they are read.

Leaves to others: reading (`connectors`), deciding consent (`compliance`), normalising and hashing
(`privacy`), and keeping what is here from leaving (`gate`).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compliance.agreement import Agreement
from compliance.terms import ColumnTerm, MatchTerms
from connectors import FileSource, ObjectSource, SqlSource, TableReading, open_connector
from connectors.connector import Connector
from connectors.schema import Classification, Column, ColumnType, Schema, text_of
from federation.consent_reading import PEOPLE, ConsentReading, Heard
from federation.errors import WorkspaceError
from federation.features import Scorer, Scores, features_of, require_readable, strings_of
from federation.matching.token_set import TokenBatch, TokenShelves
from federation.party import DataConfig
from federation.people_used import PeopleUsed
from federation.references import References, owners_file
from federation.shelves import Shelves, read_together
from federation.suppression import rows_listed
from privacy.identifiers import (
    CompositeKey,
    EmailRule,
    FieldRule,
    HashedColumn,
    KeyColumns,
    KeyField,
    Recipe,
    RejectionReason,
    Tokens,
    tokens_of,
)
from privacy.training.encoding import CategoricalFeature, Encoder, NumericFeature, Scale

__all__ = [
    "Population",
    "Use",
    "batch_tokens",
    "encoder_for",
    "encoder_of",
    "has_row",
    "open_source",
    "read_population",
    "recipe_for",
    "schema_for",
    "tokens_allowed",
]

DISPUTED = "no_under_another_record"
DUPLICATE = "duplicate_person"
SUPPRESSED = "suppressed"
_MOST_ROWS = 1 << 31
_NO_ROW = (1 << 32) - 1
_BLOCK_ROWS = 1 << 18


@dataclass(frozen=True)
class Use:
    """What people are read for.

    Attributes:
        purpose: what their data would be used for.
        at: moment at which consent is read, with a time zone.
        with_features: whether the agreed features are read too, into memory.
        key: the agreed key of which each person's first identifier alone is brought to a match;
            all keys and identifiers where left out.
        score: what is made of the features as they are read, so that a number a row is kept of
            them, in single precision.
        suppressed: references, in batches, of people who are left out like those who say no.
        apart: references, in batches, of people who are told apart.
        columns: read in place of the agreed features.
        with_labels: whether the labels' column is read too.
    """

    purpose: str
    at: datetime
    with_features: bool = False
    key: str | None = None
    score: Scorer | None = None
    suppressed: Iterable[pa.Array] = ()
    apart: Iterable[pa.Array] = ()
    columns: tuple[ColumnTerm, ...] = ()
    with_labels: bool = False

    def terms(self, agreement: Agreement) -> tuple[ColumnTerm, ...]:
        """Return the columns to read."""
        return self.columns or (agreement.features if self.with_features else ())

    def but(self, suppressed: Iterable[pa.Array]) -> "Use":
        """Return it with more people left out."""
        return replace(self, suppressed=chain(self.suppressed, suppressed))


@dataclass(frozen=True)
class Population:
    """Eligible people of one party.

    Attributes:
        used: purpose, record references and counts, as the gate wants them declared.
        features: one array of n values per agreed feature; empty where the party has none.
        labels: what the labels' column holds, shape (n,); None where it was not read.
        tokens: identifiers ready for matching, sorted by hash, no two equal; rows are indices into
            the references. They are read once, while the scratch directory is there.
        findings: what was found wrong in the source, a sentence each, counts only.
        heard: what was decided about consent, row by row of the table.
        heard_rows: rows of the people and of their further records.
        scores: one number for each of the people, where a score is made; else empty.
        apart: which of the people were to be told apart, under whatever record, shape (n,).
    """

    used: PeopleUsed
    features: Mapping[str, NDArray[np.generic]]
    tokens: Iterable[TokenBatch] = field(repr=False)
    findings: tuple[str, ...]
    heard: Heard = field(repr=False)
    heard_rows: NDArray[np.bool_] = field(repr=False)
    scores: NDArray[np.float32] = field(repr=False)
    apart: NDArray[np.bool_] = field(repr=False)
    labels: NDArray[np.object_] | None = field(default=None, repr=False)

    @cached_property
    def keys(self) -> NDArray[np.str_]:
        """The party's own record references in memory, shape (n,)."""
        return self.used.keys.to_numpy()


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


def encoder_for(agreement: Agreement) -> Encoder:
    """Return the encoder of the agreed features: public bounds and categories only.

    Raises:
        InvalidParameterError: no features are agreed.
    """
    return encoder_of(agreement.features)


def encoder_of(terms: Sequence[ColumnTerm]) -> Encoder:
    """Return the encoder of agreed columns.

    Raises:
        InvalidParameterError: there are none, or two of one name.
    """
    return Encoder(
        tuple(
            NumericFeature(term.name, float(term.minimum), float(term.maximum), Scale(term.scale))
            if term.minimum is not None and term.maximum is not None
            else CategoricalFeature(term.name, term.categories)
            for term in terms
        )
    )


def recipe_for(terms: MatchTerms) -> Recipe:
    """Return how identifiers are normalised.

    Raises:
        InvalidParameterError: the installed software knows no such region or rule.
    """
    return Recipe(
        terms.default_region,
        EmailRule(terms.email_rule.value),
        version=terms.recipe_version,
        composites=tuple(
            CompositeKey(
                key.name,
                tuple(KeyField(field.name, FieldRule(field.rule.value)) for field in key.fields),
            )
            for key in terms.composites
        ),
        order=terms.keys,
    )


def batch_tokens(
    batch: pa.RecordBatch | pa.Table, data: DataConfig, agreement: Agreement
) -> Tokens:
    """Hash the identifiers of a batch of rows, all read as text."""
    recipe = recipe_for(agreement.match)
    return tokens_of(_sources(batch, data, recipe), recipe)


def tokens_allowed(agreement: Agreement, party: str) -> int:
    """Return how many identifiers a party's declared rows can have."""
    dataset = agreement.dataset(party)
    return dataset.declared_rows * dataset.identifiers_per_person


def _sources(
    batch: pa.RecordBatch | pa.Table, data: DataConfig, recipe: Recipe
) -> tuple[KeyColumns, ...]:
    """Return the columns of every key, one source each; a composite key's in its order."""
    found: list[KeyColumns] = []
    for key, named in data.identifiers.items():
        if isinstance(named, Mapping):
            fields = [field.name for field in recipe.composite(key).fields]
            if set(fields) != set(named):
                raise WorkspaceError(
                    f"data.identifiers.{key}: names columns of {', '.join(named)}; the agreed "
                    f"fields are {', '.join(fields)}"
                )
            found.append(KeyColumns(key, tuple(batch.column(named[field]) for field in fields)))
        else:
            columns = (named,) if isinstance(named, str) else named
            found += [KeyColumns(key, (batch.column(column),)) for column in columns]
    return tuple(found)


def _source_names(data: DataConfig) -> Iterator[str]:
    for key, named in data.identifiers.items():
        if isinstance(named, tuple):
            yield from named
        else:
            yield named if isinstance(named, str) else key


_SAYS = {
    RejectionReason.MALFORMED: "cannot be read",
    RejectionReason.IMPOSSIBLE: "are no existing day or number",
    RejectionReason.PLACEHOLDER: "only fill the field",
    RejectionReason.HASHED_FIELD: "came hashed, which a composite key cannot use",
}


class _Identifiers:
    """Hashes every identifier of a table, batch by batch, and counts what was rejected."""

    def __init__(
        self, data: DataConfig, terms: MatchTerms, directory: Path, *, key: str | None
    ) -> None:
        self._data = data
        self._recipe = recipe_for(terms)
        self._rank = None if key is None else self._recipe.rank(key)
        self._names = tuple(_source_names(data))
        self._rejected: list[Counter[RejectionReason]] = [Counter() for _ in self._names]
        self._already_hashed = [0] * len(self._names)
        directory.mkdir(mode=0o700)
        self.shelves = TokenShelves(directory)

    def put(self, batch: pa.RecordBatch | pa.Table, first_row: int) -> None:
        """Hash the identifiers of a batch of rows."""
        found = tokens_of(_sources(batch, self._data, self._recipe), self._recipe)
        self._count(found.hashed)
        tokens = TokenBatch(found.tokens, found.rows + first_row, found.ranks)
        self.shelves.put(tokens, None if self._rank is None else _first_of_rank(tokens, self._rank))

    def findings(self) -> Iterator[str]:
        """Say what was rejected, counts only."""
        for name, rejected, hashed in zip(
            self._names, self._rejected, self._already_hashed, strict=True
        ):
            for reason in RejectionReason:
                if (count := rejected[reason]) and reason in _SAYS:
                    yield f"{name}: {count:,} values {_SAYS[reason]}, not matched by them."
            if hashed:
                yield f"{name}: {hashed:,} values came hashed already."

    def _count(self, hashed: Iterable[HashedColumn]) -> None:
        for source, column in enumerate(hashed):
            self._rejected[source].update(column.rejected)
            self._already_hashed[source] += column.already_hashed


def _first_of_rank(tokens: TokenBatch, rank: int) -> NDArray[np.bool_]:
    """Tell which tokens are their row's first one of the key of that rank."""
    found = np.flatnonzero(tokens.ranks == rank)
    chosen = np.zeros(len(tokens.rows), dtype=np.bool_)
    chosen[found[np.unique(tokens.rows[found], return_index=True)[1]]] = True
    return chosen


@dataclass(frozen=True)
class _Rows:
    """A table that was read.

    Attributes:
        count: how many rows it has.
        people: their numbers on shelves, by record reference.
        references: all record references, in the order of the rows.
        asked: which rows the job is about, shape (n,).
        features: the agreed features, where they are kept.
        findings: what was found wrong.
    """

    count: int
    people: Shelves
    references: Path
    asked: NDArray[np.bool_]
    features: pa.Table | None
    findings: tuple[str, ...]


def _read_rows(
    reading: TableReading,
    data: DataConfig,
    identifiers: _Identifiers,
    directory: Path,
    *,
    features: tuple[str, ...],
    scores: Scores | None,
) -> _Rows:
    """Read a table once: lay out references and tokens on disk, and judge the values."""
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
                kept.append(batch.select(list(features)))
            else:
                scores.put(batch)
            count += len(batch)
    wanted = pa.schema([reading.schema.field(name) for name in features])
    return _Rows(
        count,
        people,
        references,
        np.concatenate(asked),
        pa.Table.from_batches(kept, schema=wanted) if features and scores is None else None,
        (*reading.report().lines(), *identifiers.findings()),
    )


def _asked(batch: pa.RecordBatch, data: DataConfig) -> NDArray[np.bool_]:
    if data.seeds is None:
        return np.ones(len(batch), dtype=np.bool_)
    is_seed = pc.equal(batch.column(data.seeds.column).fill_null(""), data.seeds.equals)
    return np.asarray(is_seed.to_numpy(zero_copy_only=False), dtype=np.bool_)


def _rows_of_one_reference(people: Shelves) -> NDArray[np.uint32]:
    """Return pairs of rows with the same reference, shape (m, 2)."""
    pairs = [np.zeros((0, 2), dtype=np.uint32)]
    for (shelf,) in read_together(people):
        named = shelf["subject"].combine_chunks().dictionary_encode()
        if len(named.dictionary) < len(named):
            rows, code = shelf["row"].to_numpy(), named.indices.to_numpy()
            first = rows[np.unique(code, return_index=True)[1]][code]
            pairs.append(np.column_stack([rows, first])[rows != first])
    return np.concatenate(pairs)


def _persons(count: int, pairs: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return each row's person: the first row that pairs lead to, over any rows, shape (n,).

    Of the persons at the two ends of a pair the later one joins the earlier one, until none does.
    """
    person = np.arange(count, dtype=np.uint32)
    while len(pairs):
        ends = np.sort(person[pairs], axis=1)
        apart = ends[:, 0] != ends[:, 1]
        pairs, ends = pairs[apart], ends[apart]
        np.minimum.at(person, ends[:, 1], ends[:, 0])
        while not np.array_equal(person, nearer := person[person]):
            person = nearer
    return person


def _chosen(
    person: NDArray[np.uint32], asked: NDArray[np.bool_], allowed: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return rows to be used, their people's other rows, and rows whose person said no elsewhere.

    All have shape (n,). The numbers are looked at in blocks, since numpy widens them for a moment.
    """
    count = len(person)
    blocks = [slice(begin, begin + _BLOCK_ROWS) for begin in range(0, count, _BLOCK_ROWS)]
    said_no, keep, linked, disputed = np.zeros((4, count), dtype=np.bool_)
    for block in blocks:
        said_no[person[block][~allowed[block]]] = True
    first = np.full(count, _NO_ROW, dtype=np.uint32)
    for block in reversed(blocks):
        disputed[block] = allowed[block] & said_no[person[block]]  # 4
        rows = np.flatnonzero(asked[block] & allowed[block] & ~disputed[block])[::-1] + block.start
        first[person[rows]] = rows  # of several, the last one written stays: the first row
    is_used = first != _NO_ROW
    keep[first[is_used]] = True  # 5
    for block in blocks:
        linked[block] = allowed[block] & ~keep[block] & is_used[person[block]]
    return keep, linked, disputed


def _references(rows: Path, chosen: NDArray[np.bool_], place: Path | None) -> References:
    """Return the references of chosen rows, in a file where a place for it is given."""

    def parts() -> Iterator[pa.Array]:
        begin = 0
        with pa.OSFile(str(rows)) as file, pa.ipc.open_stream(file) as reader:
            for batch in reader:
                yield batch.column(0).filter(pa.array(chosen[begin : begin + len(batch)]))
                begin += len(batch)

    if place is not None:
        return References.write(place, parts())
    return References.of(pa.chunked_array(parts(), pa.large_string()).combine_chunks())


def read_population(
    connector: Connector,
    data: DataConfig,
    agreement: Agreement,
    consents: ConsentReading,
    use: Use,
    *,
    scratch: Path,
    place: Path | None = None,
) -> Population:
    """Read a party's table and keep the people whom a job may use.

    1. Read the agreed columns and report their quality.
    2. The brand uses its seeds only.
    3. Leave out people without consent for the purpose as of the moment, and suppressed ones.
    4. Leave out rows of such a person under other records, seeds or not: no under one is no.
    5. Leave out all but the first row of a person.

    One person are all rows that shared keys and identifiers link, also over other rows.

    Args:
        connector: the party's table.
        data: what its columns are called.
        agreement: columns, bounds, identifier recipe.
        consents: the party's consents.
        use: what the people are read for.
        scratch: an empty directory; what is there serves the tokens, and nothing else.
        place: a directory for the references of the people; where left out, they are in memory.

    Raises:
        MissingColumnError: the table lacks a column.
        ConnectorError: it cannot be read.
        ComplianceError: the consents cannot be read.
        WorkspaceError: no row is a seed, or a feature is unreadable in every row.
        OSError: the disk is full, or cannot be written.
    """
    terms = use.terms(agreement)
    schema, named = schema_for(data, terms, with_labels=use.with_labels)
    labelled = [data.labels.column] if use.with_labels and data.labels is not None else []
    identifiers = _Identifiers(data, agreement.match, scratch / "tokens", key=use.key)
    scores = None
    if use.score is not None:
        scores = Scores(scratch / "scores", use.score, terms, named)
    rows = _read_rows(  # 1
        TableReading(connector, schema, spill=scratch),
        data,
        identifiers,
        scratch,
        features=tuple(dict.fromkeys([*named.values(), *labelled])),
        scores=scores,
    )
    if scores is not None:
        scores.require_readable(connector.name)
    asked = rows.asked
    if data.seeds is not None and not asked.any():  # 2
        raise WorkspaceError(
            f"{connector.name}: none of {rows.count:,} rows is a seed: no row holds "
            f"{data.seeds.equals!r} in column {data.seeds.column!r}; mend the seeds rule"
        )
    heard = consents.decide(  # 3
        rows.people,
        rows.count,
        purpose=use.purpose,
        at=use.at,
        directory=scratch / "consents",
        conditions=consents.conditions(use.purpose, contacts=use.score is not None),
    )
    listed = rows_listed(rows.people, rows.count, use.suppressed, scratch / "suppressed")
    allowed = heard.decision.allowed & ~listed
    person = _persons(
        rows.count,
        np.concatenate([_rows_of_one_reference(rows.people), identifiers.shelves.sort()]),
    )
    keep, linked, disputed = _chosen(person, asked, allowed)
    apart = np.zeros(rows.count, dtype=np.bool_)
    apart[person[rows_listed(rows.people, rows.count, use.apart, scratch / "apart")]] = True
    apart = apart[person[keep]]
    del person
    excluded = {
        str(reason.value): count for reason, count in heard.decision.excluded_among(asked).items()
    } | {
        SUPPRESSED: int(np.count_nonzero(asked & listed & heard.decision.allowed)),
        DISPUTED: int(np.count_nonzero(asked & disputed)),
        DUPLICATE: int(np.count_nonzero(asked & allowed & ~disputed & ~keep)),
    }
    features, labels = {}, None
    if rows.features is not None:
        table = rows.features.filter(pa.array(keep))
        require_readable(connector.name, table, terms, named)
        features = features_of(table, named)
        labels = strings_of(table, labelled[0]) if labelled else None
    number = np.cumsum(keep, dtype=np.int32)
    number[~keep] = 0  # the first of them is number 1, until the next line
    number -= 1
    return Population(
        used=PeopleUsed(
            use.purpose,
            _references(rows.references, keep, place and place / "used.arrow"),
            int(np.count_nonzero(asked)),
            {reason: n for reason, n in excluded.items() if n},
            linked=_references(rows.references, linked, place and place / "linked.arrow"),
        ),
        features=features,
        tokens=identifiers.shelves.batches(number),
        findings=rows.findings,
        heard=heard,
        heard_rows=keep | linked,
        scores=np.zeros(0, dtype=np.float32) if scores is None else scores.of(keep),
        apart=apart,
        labels=labels,
    )
