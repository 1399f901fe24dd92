"""The identifiers of a party's rows: normalised and hashed as agreed, counted where rejected."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from compliance.agreement import Agreement
from compliance.terms import MatchTerms
from federation.errors import WorkspaceError
from federation.matching.token_set import TokenBatch, TokenShelves
from federation.party import DataConfig
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

__all__ = ["Identifiers", "batch_tokens", "recipe_for", "tokens_allowed"]


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


_SAYS = {
    RejectionReason.MALFORMED: "cannot be read",
    RejectionReason.IMPOSSIBLE: "are no existing day or number",
    RejectionReason.PLACEHOLDER: "only fill the field",
    RejectionReason.HASHED_FIELD: "came hashed, which a composite key cannot use",
}


class Identifiers:
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


def _first_of_rank(tokens: TokenBatch, rank: int) -> NDArray[np.bool_]:
    """Tell which tokens are their row's first one of the key of that rank."""
    found = np.flatnonzero(tokens.ranks == rank)
    chosen = np.zeros(len(tokens.rows), dtype=np.bool_)
    chosen[found[np.unique(tokens.rows[found], return_index=True)[1]]] = True
    return chosen
