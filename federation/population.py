"""The people of one party that a job may use: read, checked, and excluded with a count each.

Guarantees: a row enters only if its person consents to the purpose now, under every record
that bears the same identifier; and at most one row enters per person as far as identifiers tell,
so that one person cannot count twice at this party. Nobody is dropped silently: every
exclusion has a reason and a count.

Leaves to others: reading (`connectors`), deciding consent (`compliance`), normalising and hashing
(`privacy`), and keeping what is here from leaving (`gate`).
"""

from collections.abc import Mapping
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
from federation.party import DataConfig
from privacy.identifiers import (
    EmailRule,
    IdentifierKind,
    Recipe,
    RejectionReason,
    hash_column,
    psi_tokens,
)
from privacy.training.encoding import CategoricalFeature, Encoder, NumericFeature, Scale

__all__ = ["Population", "encoder_for", "open_source", "read_population", "schema_for"]

DISPUTED = "no_under_another_record"
DUPLICATE = "duplicate_person"


@dataclass(frozen=True)
class Population:
    """Eligible people of one party.

    Attributes:
        keys: the party's own record references, shape (n,).
        features: one array of n values per agreed feature; empty where the party has none.
        tokens: identifiers ready for matching, shape (m, 33); no two are equal.
        token_rows: index into `keys` of each token's person, shape (m,).
        used: purpose, keys and counts, as the gate wants them declared.
        findings: what was found wrong in the source, a sentence each, counts only.
    """

    keys: NDArray[np.str_]
    features: Mapping[str, NDArray[np.generic]]
    tokens: NDArray[np.uint8]
    token_rows: NDArray[np.int64]
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
    columns += [Column(name=name, type=ColumnType.IDENTIFIER) for name in data.identifiers.values()]
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


def _tokens(
    table: pa.Table, data: DataConfig, terms: MatchTerms
) -> tuple[NDArray[np.uint8], NDArray[np.int64], list[str]]:
    """Hash every identifier column; return the tokens, the row of each, and what was rejected."""
    recipe = Recipe(terms.default_region, EmailRule(terms.email_rule.value))
    tokens: list[NDArray[np.uint8]] = []
    rows: list[NDArray[np.int64]] = []
    rejected: list[str] = []
    for kind, column in data.identifiers.items():
        mine = IdentifierKind(kind.value)
        hashed = hash_column(table.column(column).to_pylist(), mine, recipe)
        present = np.flatnonzero(hashed.present).astype(np.int64)
        tokens.append(psi_tokens(mine, hashed.digests[present]))
        rows.append(present)
        if malformed := hashed.rejected[RejectionReason.MALFORMED]:
            rejected.append(f"{column}: {malformed:,} values are no {kind}, not matched by it.")
        if hashed.already_hashed:
            rejected.append(f"{column}: {hashed.already_hashed:,} values came hashed already.")
    return np.concatenate(tokens), np.concatenate(rows), rejected


def _numbered(tokens: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Number the tokens so that equal ones, and only they, bear the same number."""
    return np.unique(tokens, axis=0, return_inverse=True)[1].ravel().astype(np.int64)


def _persons(
    keys: NDArray[np.str_], tokens: NDArray[np.uint8], rows: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return each row's person: the first row that equal keys or tokens lead to, over any rows.

    Least row numbers spread from row to link and back until they rest.
    """
    of_token, of_key = _numbered(tokens), np.unique(keys, return_inverse=True)[1].ravel()
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
    tokens, token_rows, rejected = _tokens(table, data, agreement.match)
    allowed = consent.decide(keys, purpose=purpose, at=at).allowed  # 3
    person = _persons(keys, tokens, token_rows)
    disputed = allowed & np.isin(person, person[~allowed])  # 4
    agreeing = np.flatnonzero(asked & allowed & ~disputed)
    keep = np.zeros(len(keys), dtype=bool)
    keep[agreeing[np.unique(person[agreeing], return_index=True)[1]]] = True  # 5
    reasons = consent.decide(keys[asked], purpose=purpose, at=at).excluded
    excluded = {str(reason.value): count for reason, count in reasons.items()} | {
        DISPUTED: int(np.count_nonzero(asked & disputed)),
        DUPLICATE: len(agreeing) - int(np.count_nonzero(keep)),
    }
    kept_tokens = keep[token_rows]
    table = table.filter(pa.array(keep))
    if with_features:
        _require_readable(connector.name, table, agreement, named)
    return Population(
        keys=keys[keep],
        features=_features(table, named) if with_features else {},
        tokens=tokens[kept_tokens],
        token_rows=(np.cumsum(keep) - 1)[token_rows[kept_tokens]],
        used=PeopleUsed(
            purpose,
            keys[keep],
            int(np.count_nonzero(asked)),
            {reason: n for reason, n in excluded.items() if n},
            linked=keys[allowed & ~keep & np.isin(person, person[keep])],
        ),
        findings=(*quality.lines(), *rejected),
    )
