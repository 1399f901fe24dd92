"""Which rows are of one person, and which of them is used."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from federation.shelves import Shelves, read_together

__all__ = ["Chosen", "persons_of", "rows_of_one_reference"]

_NO_ROW = (1 << 32) - 1
_BLOCK_ROWS = 1 << 18


def rows_of_one_reference(people: Shelves) -> NDArray[np.uint32]:
    """Return pairs of rows with the same reference, shape (m, 2)."""
    pairs = [np.zeros((0, 2), dtype=np.uint32)]
    for (shelf,) in read_together(people):
        named = shelf["subject"].combine_chunks().dictionary_encode()
        if len(named.dictionary) < len(named):
            rows, code = shelf["row"].to_numpy(), named.indices.to_numpy()
            first = rows[np.unique(code, return_index=True)[1]][code]
            pairs.append(np.column_stack([rows, first])[rows != first])
    return np.concatenate(pairs)


def persons_of(count: int, pairs: NDArray[np.uint32]) -> NDArray[np.uint32]:
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


@dataclass(frozen=True)
class Chosen:
    """Which rows are used, and which others of the same people are not.

    Attributes:
        keep: rows to be used, one a person, shape (n,).
        linked: further rows of the same people, shape (n,).
        disputed: rows whose person said no under another one, shape (n,).
    """

    keep: NDArray[np.bool_]
    linked: NDArray[np.bool_]
    disputed: NDArray[np.bool_]

    @classmethod
    def of(
        cls, person: NDArray[np.uint32], asked: NDArray[np.bool_], allowed: NDArray[np.bool_]
    ) -> Self:
        """Choose rows.

        The numbers are looked at in blocks, since numpy widens them for a moment.

        Args:
            person: of each row, as `persons_of` tells, shape (n,).
            asked: which rows the job is about, shape (n,).
            allowed: which rows may be used as far as they themselves tell, shape (n,).
        """
        count = len(person)
        blocks = [slice(begin, begin + _BLOCK_ROWS) for begin in range(0, count, _BLOCK_ROWS)]
        said_no, keep, linked, disputed = np.zeros((4, count), dtype=np.bool_)
        for block in blocks:
            said_no[person[block][~allowed[block]]] = True
        first = np.full(count, _NO_ROW, dtype=np.uint32)
        for block in reversed(blocks):
            disputed[block] = allowed[block] & said_no[person[block]]
            usable = asked[block] & allowed[block] & ~disputed[block]
            rows = np.flatnonzero(usable)[::-1] + block.start
            first[person[rows]] = rows  # of several, the last one written stays: the first row
        is_used = first != _NO_ROW
        keep[first[is_used]] = True
        for block in blocks:
            linked[block] = allowed[block] & ~keep[block] & is_used[person[block]]
        return cls(keep, linked, disputed)
