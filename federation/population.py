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

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from compliance import agreement as contract
from compliance.consent import ConsentBook
from connectors import FileSource, SqlSource, open_connector
from connectors.connector import Connector
from connectors.quality import QualityReport, read_table
from connectors.schema import Classification, Column, ColumnType, Schema
from federation.gate import PeopleUsed
from federation.party import DataConfig
from privacy.identifiers import EmailRule, IdentifierKind, Recipe, hash_column, psi_tokens
from privacy.training.encoding import CategoricalFeature, Encoder, NumericFeature, Scale

__all__ = ["Population", "encoder_for", "open_source", "read_population", "schema_for"]

DISPUTED = "no-consent-under-another-record"
DUPLICATE = "duplicate-person"


@dataclass(frozen=True)
class Population:
    """Eligible people of one party.

    Attributes:
        keys: the party's own record references, shape (n,).
        features: one array of n values per agreed feature; empty where the party has none.
        tokens: identifiers ready for matching, shape (m, 33); no two are equal.
        token_rows: index into `keys` of each token's person, shape (m,).
        used: purpose, keys and counts, as the gate wants them declared.
        quality: what was found wrong in the source, by column.
    """

    keys: NDArray[np.str_]
    features: Mapping[str, NDArray[np.generic]]
    tokens: NDArray[np.uint8]
    token_rows: NDArray[np.int64]
    used: PeopleUsed
    quality: QualityReport


def open_source(data: DataConfig, directory: Path) -> Connector:
    """Open a party's table; a relative path is taken from `directory`.

    Raises:
        SourceNotFoundError: there is no such file or table.
        SourceUnavailableError: the database cannot be reached.
    """
    if data.path is not None:
        return open_connector(FileSource(path=directory / data.path))
    if data.url is None or data.table is None:
        raise RuntimeError("a DataConfig has a path, or a url and a table")
    return open_connector(SqlSource(url=data.url, table=data.table))


def schema_for(
    data: DataConfig, agreement: contract.Agreement, *, with_features: bool
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


def encoder_for(agreement: contract.Agreement) -> Encoder:
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
    table: pa.Table, data: DataConfig, terms: contract.MatchTerms
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Normalise and hash every identifier column; return the tokens and the row of each."""
    recipe = Recipe(terms.default_region, EmailRule(terms.email_rule.value))
    tokens: list[NDArray[np.uint8]] = []
    rows: list[NDArray[np.int64]] = []
    for kind, column in data.identifiers.items():
        mine = IdentifierKind(kind.value)
        hashed = hash_column(table.column(column).to_pylist(), mine, recipe)
        present = np.flatnonzero(hashed.present).astype(np.int64)
        tokens.append(psi_tokens(mine, hashed.digests[present]))
        rows.append(present)
    return np.concatenate(tokens), np.concatenate(rows)


def _numbered(tokens: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Number the tokens so that equal ones, and only they, bear the same number."""
    return np.unique(tokens, axis=0, return_inverse=True)[1].ravel().astype(np.int64)


def _sharing_with(
    marked: NDArray[np.bool_], tokens: NDArray[np.uint8], rows: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Tell which rows share a token with a marked row, shape of `marked`."""
    number = _numbered(tokens)
    held_by_marked = np.isin(number, number[marked[rows]])
    shares = np.zeros(len(marked), dtype=bool)
    shares[rows[held_by_marked]] = True
    return shares


def _sharing_with_earlier(
    tokens: NDArray[np.uint8], rows: NDArray[np.int64], size: int
) -> NDArray[np.bool_]:
    """Tell which of `size` rows share a token with an earlier row."""
    number = _numbered(tokens)
    order = np.lexsort((rows, number))
    shares = np.zeros(size, dtype=bool)
    shares[rows[order][1:][number[order][1:] == number[order][:-1]]] = True
    return shares


def _repeated_keys(keys: NDArray[np.str_]) -> NDArray[np.bool_]:
    """Tell which rows bear an earlier row's key."""
    repeated = np.ones(len(keys), dtype=bool)
    repeated[np.unique(keys, return_index=True)[1]] = False
    return repeated


def read_population(
    connector: Connector,
    data: DataConfig,
    agreement: contract.Agreement,
    consent: ConsentBook,
    *,
    purpose: str,
    at: datetime,
    with_features: bool,
) -> Population:
    """Read a party's table and keep the people whom a job may use.

    1. Read the agreed columns and report their quality.
    2. The brand keeps its seeds only.
    3. Leave out people without consent for `purpose` as of `at`.
    4. Leave out rows that share an identifier with such a person: no under one record is no.
    5. Leave out rows that share an identifier or key with an earlier row.

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
    """
    schema, named = schema_for(data, agreement, with_features=with_features)
    table, quality = read_table(connector, schema)  # 1
    if data.seeds is not None:  # 2
        table = table.filter(pa.array(_strings(table, data.seeds.column) == data.seeds.equals))
    keys = _strings(table, data.key)
    tokens, token_rows = _tokens(table, data, agreement.match)
    decision = consent.decide(keys, purpose=purpose, at=at)  # 3
    allowed = decision.allowed
    disputed = allowed & _sharing_with(~allowed, tokens, token_rows)  # 4
    again = allowed & (_repeated_keys(keys) | _sharing_with_earlier(tokens, token_rows, len(keys)))
    again &= ~disputed  # 5
    excluded = {str(reason.value): count for reason, count in decision.excluded.items()} | {
        DISPUTED: int(np.count_nonzero(disputed)),
        DUPLICATE: int(np.count_nonzero(again)),
    }
    keep = allowed & ~disputed & ~again
    kept_tokens = keep[token_rows]
    table = table.filter(pa.array(keep))
    columns = {name: table.column(column) for name, column in named.items() if with_features}
    return Population(
        keys=keys[keep],
        features={
            name: column.to_numpy()
            if pa.types.is_floating(column.type)
            else _strings(table, named[name])
            for name, column in columns.items()
        },
        tokens=tokens[kept_tokens],
        token_rows=(np.cumsum(keep) - 1)[token_rows[kept_tokens]],
        used=PeopleUsed(
            purpose, keys[keep], len(keys), {reason: n for reason, n in excluded.items() if n}
        ),
        quality=quality,
    )
