"""People whom a party's kept matches know by token, whether their row is still in its table or not.

Guarantees: whoever brought an identifier to a match whose set is still there (`jobs/JOB/set`) is
found by it, under the reference that they had then.

Leaves to others: the table as it is now (`erased`), in which a reference may be somebody else's
since; people of whom no set has the identifier.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from federation.matching.token_set import MatchingSet, TokenBatch
from federation.members import load_people
from federation.party import PartyFolder

__all__ = ["references_remembered", "tokens_of", "tokens_remembered"]

_BATCH: Final = 1 << 20


def references_remembered(
    folder: PartyFolder, tokens: Sequence[bytes]
) -> tuple[tuple[str, ...], ...]:
    """Return, for each token, the references under which kept matches know it.

    Everything is read however few tokens there are, so that the time it takes does not tell.

    Raises:
        WorkspaceError: what is kept of a match is damaged.
    """
    found: list[list[str]] = [[] for _ in tokens]
    wanted = pa.array(tokens, pa.binary(33))
    for own, directory in _sets(folder):
        places, rows = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for batch in _batches(own):
            content = pa.py_buffer(np.ascontiguousarray(batch.tokens))
            known = pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(33), len(batch.tokens), [None, content]
            )
            at = pc.index_in(known, value_set=wanted)
            hit = np.flatnonzero(at.is_valid().to_numpy(False))
            places.append(at.take(pa.array(hit)).to_numpy(False).astype(np.int64))
            rows.append(batch.rows[hit])
        references = load_people(directory / "people").keys.at(np.concatenate(rows))
        for place, reference in zip(
            np.concatenate(places).tolist(), references.to_pylist(), strict=True
        ):
            found[place].append(reference)
    return tuple(tuple(dict.fromkeys(one)) for one in found)


def tokens_of(folder: PartyFolder, references: Sequence[str]) -> NDArray[np.uint8]:
    """Return the tokens, shape (n, 33), under which kept matches know whoever has the references.

    Raises:
        WorkspaceError: what is kept of a match is damaged.
    """
    wanted = pa.array(references, pa.large_string())
    found = [np.zeros((0, 33), np.uint8)]
    for own, directory in _sets(folder):
        known = load_people(directory / "people").keys.batches()
        asked = [pc.is_in(batch, value_set=wanted).to_numpy(False) for batch in known]
        theirs = np.flatnonzero(np.concatenate([np.zeros(0, np.bool_), *asked]))
        found += [batch.tokens[np.isin(batch.rows, theirs)] for batch in _batches(own)]
    return np.concatenate(found)


def tokens_remembered(folder: PartyFolder) -> Iterator[NDArray[np.uint8]]:
    """Read the tokens, shape (n, 33), that kept matches know; one may come several times.

    Raises:
        WorkspaceError: what is kept of a match is damaged.
    """
    for own, _ in _sets(folder):
        for batch in _batches(own):
            yield batch.tokens


def _sets(folder: PartyFolder) -> Iterator[tuple[MatchingSet, Path]]:
    """Yield each kept set, and its match's directory."""
    for path in sorted(folder.path.glob("jobs/*/set")):
        own = MatchingSet.open(path)
        if own is not None and (path.parent / "people" / "people.json").exists():
            yield own, path.parent


def _batches(own: MatchingSet) -> Iterator[TokenBatch]:
    count = 1 + own.token_count // _BATCH
    return (own.bucket(number, count) for number in range(count))
