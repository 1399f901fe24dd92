"""Subjects, numbered: which of ten million texts is meant, for a column at once.

Texts are cut into parts by a few bits that both sides compute alike, so that the table in which a
part is looked up stays in the processor's cache, and parts are worked on by all processors.

Guarantees: two texts have one number only if all their bytes are equal: the bits choose the table,
and Arrow compares whole texts in it. Texts that share their bits make it slower, never wrong.

Leaves to others: what is kept of a subject (`book`).
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

__all__ = ["Subjects"]

_PART_ROWS: Final = 1 << 15
_MOST_BITS: Final = 9
_CHUNK_ROWS: Final = 1 << 18
_ODD: Final = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))


@dataclass(frozen=True, eq=False)
class Subjects:
    """Texts, each once, in parts.

    Attributes:
        texts: Arrow array of large strings; a text's number is its place.
        edges: where parts begin, and the last ends, shape (parts + 1,); parts are a power of two.
    """

    texts: Any
    edges: NDArray[np.int64]

    @classmethod
    def numbered(cls, column: Any) -> tuple[Self, NDArray[np.int32]]:
        """Return the different texts of a column of large strings without nulls, and its numbers.

        Args:
            column: an Arrow array, shape (n,).

        Returns:
            The texts, and for each row the number of its text, shape (n,).
        """
        bits = min(max(len(column) // _PART_ROWS, 0).bit_length(), _MOST_BITS)
        rows = _rows_by_part(column, bits)
        encoded = list(_at_once(lambda some: column.take(some).dictionary_encode(), rows))
        edges = np.cumsum([0, *(len(part.dictionary) for part in encoded)])
        numbers = np.empty(len(column), dtype=np.int32)
        for some, part, start in zip(rows, encoded, edges.tolist(), strict=False):
            numbers[some] = part.indices.to_numpy() + np.int32(start)
        texts = pa.chunked_array([part.dictionary for part in encoded], pa.large_string())
        return cls(texts.combine_chunks(), edges), numbers

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.texts)

    def find(self, column: Any) -> NDArray[np.int32]:
        """Return the number of each text of a column; that after the last where it is unknown.

        Args:
            column: an Arrow array of large strings, shape (n,); a null is unknown.
        """
        parts = len(self.edges) - 1
        rows = _rows_by_part(column, parts.bit_length() - 1)
        numbers = np.empty(len(column), dtype=np.int32)

        def look_up(part: int) -> None:
            start, end = self.edges[part], self.edges[part + 1]
            known = self.texts.slice(start, end - start)
            place = pc.index_in(column.take(rows[part]), value_set=known, skip_nulls=True)
            found = place.is_valid().to_numpy(zero_copy_only=False)
            numbers[rows[part]] = np.where(
                found, place.fill_null(0).to_numpy() + np.int32(start), np.int32(len(self))
            )

        list(_at_once(look_up, range(parts)))
        return numbers


def _at_once(work: Callable[[Any], Any], several: Any) -> Iterator[Any]:
    if len(several) == 1:
        yield work(several[0])
        return
    with ThreadPoolExecutor(pa.cpu_count()) as threads:
        yield from threads.map(work, several)


def _rows_by_part(column: Any, bits: int) -> list[NDArray[np.int64]]:
    """Return which rows lie in each of 2 ** bits parts, in their order."""
    if bits == 0:
        return [np.arange(len(column))]
    chunks = [
        column.slice(start, _CHUNK_ROWS) for start in range(0, max(len(column), 1), _CHUNK_ROWS)
    ]
    part = np.concatenate(list(_at_once(lambda chunk: _part(chunk, bits), chunks)))
    order = np.argsort(part, kind="stable")
    edges = np.cumsum(np.bincount(part, minlength=1 << bits))
    return np.split(order, edges[:-1])


def _part(texts: Any, bits: int) -> NDArray[np.uint16]:
    """Return a part for each text, from its length and its first and last eight bytes."""
    _, offsets, content = texts.buffers()
    edges = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    begin, end = int(edges[0]), int(edges[-1])
    padded = np.zeros(end - begin + 16, dtype=np.uint8)
    if end > begin:
        padded[8:-8] = np.frombuffer(content, np.uint8)[begin:end]
    words = np.ndarray(len(padded) - 7, np.uint64, padded, strides=(1,))  # at every byte
    edges = edges - begin
    length = np.diff(edges)
    beyond = (8 * (8 - np.minimum(length, 8))).astype(np.uint64)  # bits of a neighbour
    first, last = words[edges[:-1] + 8] << beyond, words[edges[1:]] >> beyond
    mixed = (first ^ last * _ODD[0] ^ length.astype(np.uint64)) * _ODD[1]
    mixed ^= mixed >> np.uint64(29)
    return (mixed * _ODD[0] >> np.uint64(64 - bits)).astype(np.uint16)
