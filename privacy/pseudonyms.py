"""Numbers that stand for people where it must be known later whether somebody was there.

Guarantees: the same value under the same key and label has the same pseudonym; without the key it
is a random-looking number, whatever lists of candidates one has.

Leaves to others: the key, and keeping it.

Source: RFC 7693 (BLAKE2b, keyed, with 16 bytes of output: two of 2³² people share one with a
probability below 2⁻⁶⁴).
"""

import hashlib
from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from privacy.randomness import Secret, derive_secret

__all__ = ["PSEUDONYM_BYTES", "pseudonyms"]

PSEUDONYM_BYTES: Final = 16
"""Length of a pseudonym."""


def pseudonyms(values: Iterable[bytes], key: Secret, label: str) -> NDArray[np.uint8]:
    """Return the pseudonym of each value, in their order, shape (n, 16).

    Args:
        values: of any length.
        key: secret.
        label: what kind of value it is; those of two kinds have unrelated pseudonyms.
    """
    derived = derive_secret(key, f"pseudonyms of {label}")
    found = (hashlib.blake2b(one, digest_size=PSEUDONYM_BYTES, key=derived) for one in values)
    joined = b"".join(one.digest() for one in found)
    return np.frombuffer(joined, dtype=np.uint8).reshape(-1, PSEUDONYM_BYTES)
