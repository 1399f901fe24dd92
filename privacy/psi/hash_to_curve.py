"""Hash a token to a point of Curve25519 whose discrete logarithm nobody knows.

Guarantees: the `encode_to_curve` of RFC 9380, suite `curve25519_XMD:SHA-512_ELL2_NU_`, bit for
bit, as a u-coordinate in the subgroup of prime order. Half of all 32-byte strings are coordinates
of the twist, and multiplying keeps that bit, so a plain SHA-256 used as a coordinate would give
away one bit of each identifier's hash: Elligator 2 reaches the curve only.

How: `hash_to_field` here; Elligator 2 and the cofactor 8 by libsodium's
`crypto_core_ed25519_from_uniform`, which walks the same map onto edwards25519; then the
birational map back. The sign of the other coordinate, where libsodium and the RFC differ, is
dropped with that coordinate.

Leaves to others: choosing the domain separation tag (RFC 9380 section 3.1).
"""

import hashlib
from collections.abc import Iterable

import numpy as np
from nacl.bindings import crypto_core_ed25519_from_uniform
from numpy.typing import NDArray

from privacy.psi.engine import check_domain
from privacy.psi.field import ELEMENT_BYTES, PRIME, encode_elements, montgomery_from_edwards

__all__ = ["SUITE", "encode_to_curve", "hash_to_field"]

SUITE = "curve25519_XMD:SHA-512_ELL2_NU_"
"""Name of the suite in RFC 9380 section 8.5; a domain ends with it."""

_UNIFORM_BYTES = 48  # L of section 5.1 for 255 bits at 128 bits of security
_BLOCK_OF_ZEROS = bytes(128)  # Z_pad: one input block of SHA-512


def hash_to_field(message: bytes, domain: bytes) -> int:
    """Return one element of the field (RFC 9380 sections 5.2 and 5.3.1, count 1).

    One SHA-512 block holds the 48 bytes needed, so the expansion's loop has a single turn.

    Args:
        message: any bytes.
        domain: domain separation tag, 1 to 255 bytes.

    Raises:
        InvalidParameterError: if the tag has another length.
    """
    check_domain(domain)
    suffix = domain + bytes([len(domain)])
    length = _UNIFORM_BYTES.to_bytes(2, "big")
    seed = hashlib.sha512(_BLOCK_OF_ZEROS + message + length + b"\x00" + suffix).digest()
    block = hashlib.sha512(seed + b"\x01" + suffix).digest()
    return int.from_bytes(block[:_UNIFORM_BYTES], "big") % PRIME


def encode_to_curve(messages: Iterable[bytes], domain: bytes) -> NDArray[np.uint8]:
    """Hash n messages to (n, 32) points of the subgroup of prime order (RFC 9380 section 3).

    Raises:
        InvalidParameterError: if the domain separation tag is not 1 to 255 bytes long.
    """
    ys = []
    for message in messages:
        uniform = hash_to_field(message, domain).to_bytes(ELEMENT_BYTES, "little")
        encoded = int.from_bytes(crypto_core_ed25519_from_uniform(uniform), "little")
        ys.append(encoded & (2**255 - 1))  # the top bit is the sign of x
    return encode_elements(montgomery_from_edwards(ys))
