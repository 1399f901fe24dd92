"""One number that stands for everybody who was used, and tells nobody who they are.

Guarantees: the same people in the same parts give the same root, whatever their order within a
part; with other people it is another (SHA-256). Without the key nobody can test whether a person
is among them, since every leaf is an HMAC over a whole part, not over a person.

Leaves to others: who is used, and cutting into parts by a public rule, which whoever checks must
follow too.

A part is the lengths of its subjects, as UTF-8 and sorted by bytes (four bytes each, big endian),
and then the subjects. Its leaf is HMAC-SHA-256(key, place of the part ‖ number of its subjects ‖
the part), both numbers as eight bytes. The root over leaves is that of RFC 6962, section 2.1; empty
parts have leaves too.
"""

import hashlib
import hmac
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from compliance.log.merkle import EMPTY_ROOT, fold, leaf_hash, peaks

__all__ = ["cohort_root"]


def cohort_root(key: bytes, parts: Iterable[Any]) -> str:
    """Return the root over a cohort, in hexadecimal.

    Args:
        key: 32 bytes that the party and its auditor know.
        parts: Arrow arrays of text; a subject stands in one of them, once.

    Raises:
        ValueError: another key length, an error of our own code.
    """
    if len(key) != 32:
        raise ValueError(f"a cohort's key has 32 bytes, got {len(key)}")
    leaves = [leaf_hash(_leaf(key, place, part)) for place, part in enumerate(parts)]
    return (fold(peaks(leaves)) if leaves else EMPTY_ROOT).hex()


def _leaf(key: bytes, place: int, part: Any) -> bytes:
    head = place.to_bytes(8, "big") + len(part).to_bytes(8, "big")
    if not len(part):
        return hmac.digest(key, head, "sha256")
    part = part.cast(pa.large_string())
    part = part.take(pc.array_sort_indices(part))
    state = hmac.new(key, head, hashlib.sha256)
    state.update(pc.binary_length(part).to_numpy().astype(">u4").tobytes())
    _, offsets, content = part.buffers()
    if content is not None:
        edges = np.frombuffer(offsets, np.int64)[part.offset : part.offset + len(part) + 1]
        state.update(memoryview(content)[edges[0] : edges[-1]])
    return state.digest()
