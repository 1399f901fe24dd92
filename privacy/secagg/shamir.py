"""Secret sharing: any `threshold` shares give a secret back, fewer tell nothing of it.

Guarantees: shares are points of a polynomial over a prime field whose coefficients are uniform, so
that fewer than `threshold` of them are independent of the secret, whatever the adversary computes.

Leaves to others: who holds which share, and whether a share is the one that was given: a wrong
share gives a wrong secret, so the caller must know the right one when it sees it. Python's integers
take time that depends on their values.

Source: Shamir, "How to share a secret", Communications of the ACM 22(11), 1979.
"""

from collections.abc import Sequence
from typing import Final

from privacy.errors import InvalidParameterError, PeerMessageError
from privacy.randomness import SECRET_BYTES, Secret, SecretStream

__all__ = [
    "PRIME",
    "SHARE_BYTES",
    "combine_shares",
    "evaluate",
    "interpolation_weights",
    "read_share",
    "split_secret",
]

PRIME: Final = 2**257 - 93
"""Order of the field: the largest prime of 257 bits, so that every secret of 32 bytes fits."""

SHARE_BYTES: Final = 33
"""Length of a share, little-endian."""


def split_secret(
    secret: Secret, threshold: int, places: Sequence[int], stream: SecretStream
) -> list[bytes]:
    """Cut a secret into one share for each place.

    Args:
        secret: 32 bytes.
        threshold: shares that give it back, 1 to the number of places.
        places: distinct, 1 or more: where the polynomial is evaluated.
        stream: of this secret alone.

    Returns:
        Shares of `SHARE_BYTES`, in the order of `places`.

    Raises:
        InvalidParameterError: the secret has another length, or threshold or places are out of
            range.
    """
    if len(secret) != SECRET_BYTES:
        raise InvalidParameterError(f"a secret has {SECRET_BYTES} bytes, got {len(secret)}")
    if not 1 <= threshold <= len(places):
        raise InvalidParameterError(
            f"expected a threshold from 1 to {len(places)}, the number of shares, got {threshold}"
        )
    _check_places(places)
    coefficients = [
        int.from_bytes(secret, "little"),
        *(_uniform(stream) for _ in range(threshold - 1)),
    ]
    return [evaluate(coefficients, place).to_bytes(SHARE_BYTES, "little") for place in places]


def combine_shares(shares: Sequence[int], weights: Sequence[int]) -> Secret:
    """Give the secret back.

    Args:
        shares: as `read_share` returns them, one for each weight.
        weights: of their places, from `interpolation_weights`.

    Raises:
        PeerMessageError: the shares fit no secret of 32 bytes: one is wrong.
    """
    value = sum(share * weight for share, weight in zip(shares, weights, strict=True)) % PRIME
    if value >= 1 << 8 * SECRET_BYTES:
        raise PeerMessageError("the shares of a secret do not fit together: one of them is wrong")
    return Secret(value.to_bytes(SECRET_BYTES, "little"))


def read_share(share: bytes) -> int:
    """Read a share as an element of the field.

    Raises:
        PeerMessageError: it has another length, or is none.
    """
    value = int.from_bytes(share, "little")
    if len(share) != SHARE_BYTES or value >= PRIME:
        raise PeerMessageError(
            f"expected a share of {SHARE_BYTES} bytes below the field's order, got another one of "
            f"{len(share)} bytes"
        )
    return value


def interpolation_weights(places: Sequence[int], prime: int = PRIME) -> list[int]:
    """Return what the share at each place counts for at 0 (Lagrange).

    Raises:
        InvalidParameterError: places repeat or are below 1.
    """
    _check_places(places)
    weights = []
    for place in places:
        above, below = 1, 1
        for other in places:
            if other != place:
                above = above * other % prime
                below = below * (other - place) % prime
        weights.append(above * pow(below, -1, prime) % prime)
    return weights


def evaluate(coefficients: Sequence[int], place: int, prime: int = PRIME) -> int:
    """Return the polynomial's value; `coefficients` begin with the constant one (Horner)."""
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * place + coefficient) % prime
    return value


def _uniform(stream: SecretStream) -> int:
    while True:
        drawn = int.from_bytes(stream.take(SHARE_BYTES), "little") & ((1 << 257) - 1)
        if drawn < PRIME:
            return drawn


def _check_places(places: Sequence[int]) -> None:
    if len(set(places)) < len(places) or min(places, default=1) < 1:
        raise InvalidParameterError("expected distinct places of 1 or more for shares")
