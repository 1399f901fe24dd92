"""Blind a set under one secret scalar: what every protocol does first, and what it compares last.

Guarantees: scalar, dummies and order are derived from the party's secret and its role, so that a
party keeps nothing else between two steps; a set shows nothing but its capacity.

Leaves to others: which protocol asks for it (`two_party`, `many_party`), and a fresh secret for
every run and set.
"""

import numpy as np
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError, PeerMessageError
from privacy.psi.engine import CurveEngine, Points, count_repeats
from privacy.psi.field import ELEMENT_BYTES
from privacy.randomness import Secret, SecretStream, derive_secret

__all__ = [
    "TAG_BYTES",
    "Tags",
    "blind",
    "check_capacity",
    "common_rows",
    "multiply_distinct",
    "places",
    "require_distinct",
    "scalar",
    "tags_of",
    "validate_tags",
]

TAG_BYTES = 12
"""Bytes of a tag. Two sets of 2^28 points have an equal pair by accident with probability 2^-40."""

Tags = NDArray[np.uint8]
"""(n, 12): the first bytes of points that every party has multiplied."""

_DUMMY_BYTES = 32


def blind(
    tokens: NDArray[np.uint8], secret: Secret, role: str, *, engine: CurveEngine, capacity: int
) -> Points:
    """Hash, pad, shuffle and multiply a party's own set.

    Args:
        tokens: (n, k) distinct tokens, k >= 1; n may be 0.
        secret: the party's, for this run only.
        role: the party's in the protocol; roles do not share points.
        engine: the curve's arithmetic.
        capacity: points that stand for the set, n or more.

    Returns:
        (capacity, 32) points; `places` tells where each token's stands.

    Raises:
        InvalidParameterError: if tokens repeat, are too many, or have another type or shape.
    """
    require_distinct(tokens)
    check_capacity(len(tokens), capacity)
    padding = SecretStream(secret, f"psi {role} padding").take(
        (capacity - len(tokens)) * _DUMMY_BYTES
    )
    dummies = np.frombuffer(padding, dtype=np.uint8).reshape(-1, _DUMMY_BYTES)
    where = places(secret, role, capacity)
    points = np.empty((capacity, ELEMENT_BYTES), dtype=np.uint8)
    points[where[: len(tokens)]] = engine.hash_to_curve(tokens)
    points[where[len(tokens) :]] = engine.hash_to_curve(dummies)
    return engine.multiply(points, scalar(secret, role))


def require_distinct(tokens: NDArray[np.uint8]) -> None:
    """Refuse a party's own tokens that are not (n, k) bytes, k >= 1, all rows different.

    Raises:
        InvalidParameterError: if tokens repeat, or have another type or shape.
    """
    if tokens.dtype != np.uint8 or tokens.ndim != 2 or tokens.shape[1] < 1:
        raise InvalidParameterError(
            f"expected tokens as uint8 of shape (n, k), got {tokens.dtype} of shape {tokens.shape}"
        )
    if repeats := count_repeats(tokens):
        raise InvalidParameterError(
            f"expected distinct tokens, got {repeats} duplicates among {len(tokens)}: remove them "
            "before matching"
        )


def check_capacity(token_count: int, capacity: int) -> None:
    """Refuse more tokens than points may stand for.

    Raises:
        InvalidParameterError: if they are too many, or `capacity` is less than 1.
    """
    if not 0 <= token_count <= capacity or capacity < 1:
        raise InvalidParameterError(
            f"expected up to {capacity} tokens, as many as stand for the set, got {token_count}"
        )


def scalar(secret: Secret, role: str) -> Secret:
    """Return the scalar of a party."""
    return derive_secret(secret, f"psi {role} scalar")


def multiply_distinct(points: Points, factor: Secret, *, engine: CurveEngine) -> Points:
    """Multiply points that somebody else sent, and refuse products that repeat.

    Two points that differ by one of low order alone are both fit to be sent, and have one product
    under every scalar: whoever sends them would mark a token by how often it comes back.

    Args:
        points: (n, 32), validated.
        factor: the scalar.
        engine: the curve's arithmetic.

    Raises:
        PeerMessageError: if products repeat.
    """
    products = engine.multiply(points, factor)
    if repeats := count_repeats(products):
        raise PeerMessageError(
            f"expected {len(points)} points of different products, got {repeats} that repeat: "
            "whoever sent them does not follow the protocol"
        )
    return products


def places(secret: Secret, role: str, capacity: int) -> NDArray[np.int64]:
    """Return where each token, then each dummy, stands among a party's points, (capacity,)."""
    return SecretStream(secret, f"psi {role} order").permutation(capacity)


def tags_of(points: Points) -> Tags:
    """Cut points to tags."""
    return np.ascontiguousarray(points[:, :TAG_BYTES])


def validate_tags(tags: Tags, expected_count: int) -> None:
    """Refuse tags that an honest peer cannot have sent; no message shows a value.

    Raises:
        PeerMessageError: for another count, shape or type, or a duplicate.
    """
    if tags.dtype != np.uint8 or tags.shape != (expected_count, TAG_BYTES):
        raise PeerMessageError(
            f"expected tags as uint8 of shape {(expected_count, TAG_BYTES)}, got {tags.dtype} of "
            f"shape {tags.shape}"
        )
    if repeats := count_repeats(tags):
        raise PeerMessageError(
            f"expected {expected_count} distinct tags, got {repeats} duplicates: the peer does not "
            "follow the protocol"
        )


def common_rows(first: Tags, second: Tags) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where the tags that both hold stand in each, two arrays of equal length.

    Args:
        first: (n, 12) distinct tags.
        second: (m, 12) distinct tags.
    """
    both = np.concatenate([first, second])
    low = np.ascontiguousarray(both[:, :8]).view("<u8").reshape(-1)
    high = np.ascontiguousarray(both[:, 8:]).view("<u4").reshape(-1)
    order = np.lexsort((high, low))  # stable: what is first comes before its equal
    before, after = order[:-1], order[1:]
    equal = (low[before] == low[after]) & (high[before] == high[after])
    return before[equal], after[equal] - len(first)
