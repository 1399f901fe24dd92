"""The field of 2^255 - 19 elements, in plain Python integers.

Guarantees: exact arithmetic; the two coordinate maps between Curve25519 (`u`) and edwards25519
(`y`) of RFC 7748 section 4.1, a whole list at a time with one inversion.

Leaves to others: secrets. Nothing here runs in constant time; only hashed tokens, before any
secret scalar touches them, and points that travel in the open pass through.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ELEMENT_BYTES",
    "PRIME",
    "batch_inverse",
    "decode_elements",
    "edwards_from_montgomery",
    "encode_elements",
    "montgomery_from_edwards",
]

PRIME = 2**255 - 19
"""Order of the field."""

ELEMENT_BYTES = 32
"""Length of an encoded element, little-endian (RFC 7748 section 5)."""


def decode_elements(rows: NDArray[np.uint8]) -> list[int]:
    """Return the integers of (n, 32) little-endian rows, as they are (not reduced)."""
    raw = rows.tobytes()
    return [
        int.from_bytes(raw[start : start + ELEMENT_BYTES], "little")
        for start in range(0, len(raw), ELEMENT_BYTES)
    ]


def encode_elements(elements: Sequence[int]) -> NDArray[np.uint8]:
    """Return n reduced elements as (n, 32) little-endian rows."""
    raw = b"".join(element.to_bytes(ELEMENT_BYTES, "little") for element in elements)
    return np.frombuffer(raw, dtype=np.uint8).reshape(-1, ELEMENT_BYTES)


def batch_inverse(elements: Sequence[int]) -> list[int]:
    """Invert every element for the price of one inversion; 0 is its own inverse here.

    Source: Montgomery, "Speeding the Pollard and elliptic curve methods of factorization", 1987,
    section 10.3.1.
    """
    products = []
    product = 1
    for element in elements:
        products.append(product)
        product = product * (element or 1) % PRIME
    inverse = pow(product, -1, PRIME)
    inverses = [0] * len(products)
    for index in range(len(products) - 1, -1, -1):
        element = elements[index]
        if element:
            inverses[index] = inverse * products[index] % PRIME
            inverse = inverse * element % PRIME
    return inverses


def montgomery_from_edwards(ys: Sequence[int]) -> list[int]:
    """Return u = (1 + y) / (1 - y); the neutral point, y = 1, goes to 0 as X25519 has it."""
    inverses = batch_inverse([(1 - y) % PRIME for y in ys])
    return [(1 + y) * inverse % PRIME for y, inverse in zip(ys, inverses, strict=True)]


def edwards_from_montgomery(us: Sequence[int]) -> list[int]:
    """Return y = (u - 1) / (u + 1); u = -1, which is not on the curve, goes to 0."""
    inverses = batch_inverse([(u + 1) % PRIME for u in us])
    return [(u - 1) * inverse % PRIME for u, inverse in zip(us, inverses, strict=True)]
