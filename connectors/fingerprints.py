"""Numbers that stand for texts, a column at a time: to spread them, or to count different ones.

Guarantees: equal texts have equal fingerprints, on every machine. Two different texts of a table
of n values share one with a chance of about n²/2⁶⁵: 3 in a million at ten million values.

Leaves to others: whatever must be exact. A fingerprint is no secret and no proof: whoever chooses
texts can make two of them meet.
"""

import hashlib

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["fingerprints"]

_WORD = 8
_LONG = 128  # bytes from which a text is hashed by itself
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd: multiplying loses nothing
_SPREAD = np.uint64(0xD6E8FEB86659FD93)
_HALF = np.uint64(32)


def fingerprints(texts: pa.Array) -> NDArray[np.uint64]:
    """Return a 64-bit number for every text.

    Args:
        texts: n values of type `string` or `large_string`; null counts as the empty text.
    """
    if texts.null_count:
        texts = texts.fill_null("")
    offset_type = np.int64 if pa.types.is_large_string(texts.type) else np.int32
    _, offsets, content = texts.buffers()
    if len(texts) == 0 or content is None:
        return _mixed(np.zeros(len(texts), dtype=np.uint64), np.zeros(len(texts), np.uint64))
    edges = np.frombuffer(offsets, offset_type)[texts.offset : texts.offset + len(texts) + 1]
    part = np.frombuffer(content, np.uint8)[edges[0] : edges[-1]]
    begin = (edges[:-1] - edges[0]).astype(np.int64)
    length = np.diff(edges).astype(np.int64)
    padded = np.concatenate([part, np.zeros(_WORD, dtype=np.uint8)])
    words = np.ndarray(len(part) + 1, dtype="<u8", buffer=padded, strides=(1,))
    found = _mixed(np.zeros(len(texts), dtype=np.uint64), length.astype(np.uint64))
    for step in range(0, min(int(length.max()), _LONG), _WORD):
        left = length - step
        some = np.flatnonzero(left > 0)
        word = words[begin[some] + step]
        beyond = np.clip(_WORD - left[some], 0, _WORD - 1).astype(np.uint64) * np.uint64(8)
        found[some] = _mixed(found[some], (word << beyond) >> beyond)
    for place in np.flatnonzero(length > _LONG).tolist():
        whole = part[begin[place] : begin[place] + length[place]].tobytes()
        found[place] = int.from_bytes(hashlib.sha256(whole).digest()[:_WORD], "little")
    return found


def _mixed(state: NDArray[np.uint64], word: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Take a word into each state; for any one word, two states never become one."""
    state = (state ^ word) * _FACTOR
    state = (state ^ (state >> _HALF)) * _SPREAD
    return state ^ (state >> _HALF)
