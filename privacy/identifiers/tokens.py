"""Tokens for matching: a byte for the kind, then the digest.

Guarantees: tokens of different kinds never meet, nor those of composite keys with different names
or fields. `tokens_of` gives every row's tokens of all keys, from any number of columns per key,
each token once per row.
"""

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError
from privacy.identifiers.chunks import Progress, Values
from privacy.identifiers.columns import HashedColumn, hash_column, hash_composite
from privacy.identifiers.digests import DIGEST_BYTES
from privacy.identifiers.kinds import IdentifierKind
from privacy.identifiers.recipe import Recipe

__all__ = ["KeyColumns", "Tokens", "psi_tokens", "tokens_of"]

_KIND_BYTE = {
    IdentifierKind.EMAIL: 1,
    IdentifierKind.PHONE: 2,
    IdentifierKind.ADVERTISING_ID: 3,
    IdentifierKind.MEMBER_ID: 4,
    IdentifierKind.COMPOSITE: 5,
}


@dataclass(frozen=True)
class KeyColumns:
    """Where a table holds a key.

    Attributes:
        key: a kind of the recipe, or the name of one of its composite keys.
        columns: one column of n values; of a composite key, one for each field, in its order.
    """

    key: str
    columns: tuple[Values, ...]


@dataclass(frozen=True)
class Tokens:
    """What a table can be matched by.

    Attributes:
        tokens: (m, 33) the tokens; one that several rows bear stands here for each of them.
        rows: (m,) the row of each token.
        ranks: (m,) the place of each token's key in the recipe's order, from 0.
        hashed: what became of each source's values, in the order of the sources.
    """

    tokens: NDArray[np.uint8]
    rows: NDArray[np.int64]
    ranks: NDArray[np.int64]
    hashed: tuple[HashedColumn, ...]


def tokens_of(
    sources: Sequence[KeyColumns],
    recipe: Recipe,
    *,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Tokens:
    """Hash every column of a table that identifies its people.

    Args:
        sources: where the keys are; a key may occur several times, as people have several
            addresses.
        recipe: the rules the parties agreed on.
        executor: where chunks of columns are worked on; here, if None.
        progress: is told, source by source, how many distinct values are done, and of how many.

    Raises:
        InvalidParameterError: if there is no source, columns differ in length or are not as many as
            the key needs, the recipe has no such key, or a value is neither text nor missing.
    """
    lengths = {len(values) for source in sources for values in source.columns}
    if len(lengths) != 1:
        raise InvalidParameterError(
            f"expected columns of one length, got lengths {sorted(lengths)}: name at least one "
            "column, and take all from one table"
        )
    hashed = tuple(_hash(source, recipe, executor, progress) for source in sources)
    tokens: list[NDArray[np.uint8]] = []
    rows: list[NDArray[np.int64]] = []
    for place, (source, column) in enumerate(zip(sources, hashed, strict=True)):
        fresh = column.present.copy()
        for earlier, seen in zip(sources[:place], hashed[:place], strict=True):
            if earlier.key == source.key:
                fresh &= ~(seen.present & (seen.digests == column.digests).all(axis=1))
        rows.append(np.flatnonzero(fresh).astype(np.int64))
        tokens.append(psi_tokens(_kind_of(source.key), column.digests[fresh]))
    ranks = [recipe.rank(source.key) for source in sources]
    return Tokens(
        tokens=np.concatenate(tokens),
        rows=np.concatenate(rows),
        ranks=np.repeat(np.array(ranks, dtype=np.int64), [len(found) for found in rows]),
        hashed=hashed,
    )


def _hash(
    source: KeyColumns, recipe: Recipe, executor: Executor | None, progress: Progress | None
) -> HashedColumn:
    kind = _kind_of(source.key)
    if kind is IdentifierKind.COMPOSITE:
        key = recipe.composite(source.key)
        return hash_composite(source.columns, key, recipe, executor=executor, progress=progress)
    if len(source.columns) != 1:
        raise InvalidParameterError(
            f"key {str(source.key)!r}: expected one column, got {len(source.columns)}: give each "
            "column a source of its own"
        )
    return hash_column(source.columns[0], kind, recipe, executor=executor, progress=progress)


def _kind_of(key: str) -> IdentifierKind:
    known = key in frozenset(IdentifierKind)
    return IdentifierKind(key) if known else IdentifierKind.COMPOSITE


def psi_tokens(kind: IdentifierKind, digests: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return (n, 33) tokens for matching: a byte for the kind, then the digest.

    Args:
        kind: what was hashed.
        digests: (n, 32) digests of values that are present.

    Raises:
        InvalidParameterError: if `digests` has another shape or type.
    """
    if digests.dtype != np.uint8 or digests.ndim != 2 or digests.shape[1] != DIGEST_BYTES:
        raise InvalidParameterError(
            f"expected digests as uint8 of shape (n, {DIGEST_BYTES}), "
            f"got {digests.dtype} of shape {digests.shape}"
        )
    return np.insert(digests, 0, _KIND_BYTE[kind], axis=1)
