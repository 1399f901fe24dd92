"""The people of one party that a job may use: read, checked, and excluded with a count each.

Guarantees: a row enters only if its person consents to the purpose now, under every record
that bears the same identifier; and at most one row enters per person as far as identifiers tell,
so that one person cannot count twice at this party. Nobody is dropped silently: every
exclusion has a reason and a count.

Leaves to others: reading (`connectors`), deciding consent (`compliance`), normalising and hashing
(`privacy`), and keeping what is here from leaving (`gate`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compliance.agreement import Agreement
from compliance.consent import ConsentBook
from compliance.terms import MatchTerms
from connectors import FileSource, SqlSource, open_connector
from connectors.connector import Connector
from connectors.quality import read_table
from connectors.schema import Classification, Column, ColumnType, Schema
from federation.errors import WorkspaceError
from federation.gate import PeopleUsed
from federation.matching.token_set import TokenBatch
from federation.party import DataConfig
from privacy.identifiers import (
    CompositeKey,
    EmailRule,
    FieldRule,
    KeyColumns,
    KeyField,
    Recipe,
    RejectionReason,
    tokens_of,
)
from privacy.training.encoding import CategoricalFeature, Encoder, NumericFeature, Scale

__all__ = [
    "Population",
    "encoder_for",
    "open_source",
    "read_population",
    "recipe_for",
    "schema_for",
    "tokens_allowed",
]

DISPUTED = "no_under_another_record"
DUPLICATE = "duplicate_person"


@dataclass(frozen=True)
class Population:
    """Eligible people of one party.

    Attributes:
        keys: the party's own record references, shape (n,).
        features: one array of n values per agreed feature; empty where the party has none.
        tokens: identifiers ready for matching; no two are equal; rows are indices into `keys`.
        used: purpose, keys and counts, as the gate wants them declared.
        findings: what was found wrong in the source, a sentence each, counts only.
    """

    keys: NDArray[np.str_]
    features: Mapping[str, NDArray[np.generic]]
    tokens: TokenBatch
    used: PeopleUsed
    findings: tuple[str, ...]


def open_source(data: DataConfig, directory: Path) -> Connector:
    """Open a party's table; a relative path, or one of SQLite, is taken from `directory`.

    Raises:
        SourceNotFoundError: there is no such file or table.
        SourceUnavailableError: the database cannot be reached.
    """
    data = data.within(directory)
    if data.path is not None:
        return open_connector(FileSource(path=data.path))
    if data.url is None or data.table is None:
        raise RuntimeError("a DataConfig has a path, or a url and a table")
    return open_connector(SqlSource(url=data.url, table=data.table))


def schema_for(
    data: DataConfig, agreement: Agreement, *, with_features: bool
) -> tuple[Schema, Mapping[str, str]]:
    """Return the columns to read, and the party's column name of each agreed feature."""
    named = {term.name: data.features.get(term.name, term.name) for term in agreement.features}
    columns = [Column(name=data.key, type=ColumnType.KEY)]
    columns += [
        Column(name=name, type=ColumnType.IDENTIFIER)
        for name in dict.fromkeys(column for _, column in data.identifier_columns)
        if name != data.key
    ]
    if data.seeds is not None:
        columns.append(Column(name=data.seeds.column, type=ColumnType.TEXT))
    if with_features:
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
            for term in agreement.features
        ]
    return Schema(columns=tuple(columns)), named


def encoder_for(agreement: Agreement) -> Encoder:
    """Return the encoder of the agreed features: public bounds and categories only."""
    return Encoder(
        tuple(
            NumericFeature(term.name, float(term.minimum), float(term.maximum), Scale(term.scale))
            if term.minimum is not None and term.maximum is not None
            else CategoricalFeature(term.name, term.categories)
            for term in agreement.features
        )
    )


def _strings(table: pa.Table, column: str) -> NDArray[np.str_]:
    values = table.column(column).combine_chunks().fill_null("")
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.str_)


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


def tokens_allowed(agreement: Agreement, party: str) -> int:
    """Return how many identifiers a party's declared rows can have."""
    dataset = agreement.dataset(party)
    return dataset.declared_rows * dataset.identifiers_per_person


def _sources(table: pa.Table, data: DataConfig, recipe: Recipe) -> tuple[KeyColumns, ...]:
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
            found.append(KeyColumns(key, tuple(table.column(named[field]) for field in fields)))
        else:
            columns = (named,) if isinstance(named, str) else named
            found += [KeyColumns(key, (table.column(column),)) for column in columns]
    return tuple(found)


def _source_names(data: DataConfig) -> Iterator[str]:
    for key, named in data.identifiers.items():
        if isinstance(named, tuple):
            yield from named
        else:
            yield named if isinstance(named, str) else key


def _tokens(table: pa.Table, data: DataConfig, terms: MatchTerms) -> tuple[TokenBatch, list[str]]:
    """Hash every identifier; return the tokens, row by row, and what was rejected."""
    recipe = recipe_for(terms)
    sources = _sources(table, data, recipe)
    found = tokens_of(sources, recipe)
    told: list[str] = []
    for source, hashed in zip(_source_names(data), found.hashed, strict=True):
        told += [
            f"{source}: {count:,} values {_SAYS[reason]}, not matched by them."
            for reason, count in hashed.rejected.items()
            if count and reason in _SAYS
        ]
        if hashed.already_hashed:
            told.append(f"{source}: {hashed.already_hashed:,} values came hashed already.")
    return TokenBatch(found.tokens, found.rows, found.ranks), told


_SAYS = {
    RejectionReason.MALFORMED: "cannot be read",
    RejectionReason.IMPOSSIBLE: "are no existing day or number",
    RejectionReason.PLACEHOLDER: "only fill the field",
    RejectionReason.HASHED_FIELD: "came hashed, which a composite key cannot use",
}


def _numbered(values: Any) -> NDArray[np.int64]:
    """Number an Arrow array so that equal values, and only they, bear the same number."""
    return np.asarray(values.dictionary_encode().indices.to_numpy(), dtype=np.int64)


def _persons(
    keys: NDArray[np.str_], tokens: NDArray[np.uint8], rows: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return each row's person: the first row that equal keys or tokens lead to, over any rows.

    Least row numbers spread from row to link and back until they rest.
    """
    width = pa.binary(tokens.shape[1])
    whole = pa.py_buffer(np.ascontiguousarray(tokens))
    of_token = _numbered(pa.Array.from_buffers(width, len(tokens), [None, whole]))
    of_key = _numbered(pa.array(keys, pa.large_string()))
    link = np.concatenate([of_key, of_token + len(keys)])
    row = np.concatenate([np.arange(len(keys)), rows])
    person = np.arange(len(keys))
    while True:
        least = np.full(len(keys) + len(tokens), len(keys))
        np.minimum.at(least, link, person[row])
        nearer = person.copy()
        np.minimum.at(nearer, row, least[link])
        nearer = nearer[nearer]
        if np.array_equal(nearer, person):
            return person
        person = nearer


def _features(table: pa.Table, named: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    """Return one array per agreed feature: floats, or strings where it is categorical."""
    return {
        name: table.column(column).to_numpy()
        if pa.types.is_floating(table.schema.field(column).type)
        else _strings(table, column)
        for name, column in named.items()
    }


def _require_readable(
    source: str, table: pa.Table, agreement: Agreement, named: Mapping[str, str]
) -> None:
    """Refuse a feature in which nothing can be read: training on it would pay for nothing."""
    for term in agreement.features:
        column = table.column(named[term.name])
        if term.categories:
            readable = pc.any(pc.is_in(column, value_set=pa.array(term.categories))).as_py()
        else:
            readable = column.null_count < len(column)
        if len(column) and not readable:
            raise WorkspaceError(
                f"{source}: no row has a readable value in column {named[term.name]!r}, agreed as "
                f"feature {term.name!r}: mend the values, or the party's data.features"
            )


def read_population(
    connector: Connector,
    data: DataConfig,
    agreement: Agreement,
    consent: ConsentBook,
    *,
    purpose: str,
    at: datetime,
    with_features: bool,
) -> Population:
    """Read a party's table and keep the people whom a job may use.

    1. Read the agreed columns and report their quality.
    2. The brand uses its seeds only.
    3. Leave out people without consent for `purpose` as of `at`.
    4. Leave out rows of such a person under other records, seeds or not: no under one is no.
    5. Leave out all but the first row of a person.

    One person are all rows that shared keys and identifiers link, also over other rows.

    Args:
        connector: the party's table.
        data: what its columns are called.
        agreement: columns, bounds, identifier recipe.
        consent: the party's consent events.
        purpose: what the people's data would be used for.
        at: moment at which consent is read.
        with_features: whether the agreed features are read too.

    Raises:
        MissingColumnError: the table lacks a column.
        ConnectorError: it cannot be read.
        WorkspaceError: no row is a seed, or a feature is unreadable in every row.
    """
    schema, named = schema_for(data, agreement, with_features=with_features)
    table, quality = read_table(connector, schema)  # 1
    keys = _strings(table, data.key)
    asked = np.ones(len(keys), dtype=bool)
    if data.seeds is not None:  # 2
        asked = _strings(table, data.seeds.column) == data.seeds.equals
        if not asked.any():
            raise WorkspaceError(
                f"{connector.name}: none of {len(keys):,} rows is a seed: no row holds "
                f"{data.seeds.equals!r} in column {data.seeds.column!r}; mend the seeds rule"
            )
    tokens, rejected = _tokens(table, data, agreement.match)
    decision = consent.decide(keys, purpose=purpose, at=at)  # 3
    allowed = decision.allowed
    person = _persons(keys, tokens.tokens, tokens.rows)
    disputed = allowed & np.isin(person, person[~allowed])  # 4
    agreeing = np.flatnonzero(asked & allowed & ~disputed)
    keep = np.zeros(len(keys), dtype=bool)
    keep[agreeing[np.unique(person[agreeing], return_index=True)[1]]] = True  # 5
    if not asked.all():
        decision = consent.decide(keys[asked], purpose=purpose, at=at)
    excluded = {str(reason.value): count for reason, count in decision.excluded.items()} | {
        DISPUTED: int(np.count_nonzero(asked & disputed)),
        DUPLICATE: len(agreeing) - int(np.count_nonzero(keep)),
    }
    kept_tokens = keep[tokens.rows]
    table = table.filter(pa.array(keep))
    if with_features:
        _require_readable(connector.name, table, agreement, named)
    return Population(
        keys=keys[keep],
        features=_features(table, named) if with_features else {},
        tokens=TokenBatch(
            tokens.tokens[kept_tokens],
            (np.cumsum(keep) - 1)[tokens.rows[kept_tokens]],
            tokens.ranks[kept_tokens],
        ),
        used=PeopleUsed(
            purpose,
            keys[keep],
            int(np.count_nonzero(asked)),
            {reason: n for reason, n in excluded.items() if n},
            linked=keys[allowed & ~keep & np.isin(person, person[keep])],
        ),
        findings=(*quality.lines(), *rejected),
    )
