"""What private set intersection asks of a curve, and what it refuses from a peer.

Guarantees: after `validate_points` every point lies on Curve25519 (not on its twist), has a large
order, is written in its one canonical form, and occurs once.

Leaves to others: the arithmetic, which is the engine's. An engine may be replaced by a faster one
as long as it gives the same bytes.
"""

from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError, PeerMessageError
from privacy.psi.field import ELEMENT_BYTES, PRIME, encode_elements

__all__ = ["CurveEngine", "Points", "check_domain", "count_repeats", "validate_points"]

Points: TypeAlias = NDArray[np.uint8]
"""(n, 32): u-coordinates on Curve25519, little-endian (RFC 7748 section 5)."""

# Orders 2, 4, 8 and 8 on the curve, 4 on the twist. Every other point of the curve has an order
# of at least 2^252, and a scalar of X25519, a multiple of 8, removes what small factor it has.
_LOW_ORDER = encode_elements(
    [
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        PRIME - 1,
    ]
)
_PRIME_LOW_BYTE = PRIME & 0xFF


class CurveEngine(Protocol):
    """Arithmetic on Curve25519, a whole column of points at a time."""

    @property
    def name(self) -> str:
        """What reports call the engine."""
        ...

    def hash_to_curve(self, tokens: NDArray[np.uint8]) -> Points:
        """Hash (n, k) tokens to n points of the subgroup of prime order (RFC 9380)."""
        ...

    def multiply(self, points: Points, scalar: bytes) -> Points:
        """Multiply each point by one scalar of 32 bytes, clamped (X25519, RFC 7748 section 5).

        Clamping makes the scalar a multiple of 8, which clears the cofactor of a peer's point.
        The scalar is handled in constant time.

        Raises:
            InvalidParameterError: if the scalar has another length.
            PeerMessageError: if a product is zero: that point has a low order.
        """
        ...

    def check_on_curve(self, points: Points) -> None:
        """Refuse points of the twist; `points` are canonical and of no low order.

        Raises:
            PeerMessageError: if any point is not on the curve.
        """
        ...


def check_domain(domain: bytes) -> None:
    """Return only if a domain separation tag has 1 to 255 bytes (RFC 9380 section 5.3.1).

    Raises:
        InvalidParameterError: it has not.
    """
    if not 1 <= len(domain) <= 255:
        raise InvalidParameterError(
            f"expected a domain separation tag of 1 to 255 bytes, got {len(domain)}"
        )


def count_repeats(rows: NDArray[np.uint8]) -> int:
    """Return how many of (n, k) rows, k >= 1, repeat an earlier one.

    Rows are sorted by their last eight bytes; only rows that share these are compared whole, which
    for hashes and points is next to none.
    """
    tails = _tails(rows)
    order = np.argsort(tails)
    same = tails[order[1:]] == tails[order[:-1]]
    if not same.any():
        return 0
    suspects = np.zeros(len(rows), dtype=np.bool_)
    suspects[order[1:][same]] = suspects[order[:-1][same]] = True
    return int(np.count_nonzero(suspects)) - len(np.unique(rows[suspects], axis=0))


def _tails(rows: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return the last eight bytes of each row as a number; shorter rows are padded."""
    tails = np.zeros((len(rows), 8), dtype=np.uint8)
    tails[:, : rows.shape[1]] = rows[:, -8:]
    return tails.view(np.uint64).reshape(-1)


def validate_points(points: Points, expected_count: int, *, engine: CurveEngine) -> None:
    """Refuse points that an honest peer cannot have sent; no message shows a value.

    Args:
        points: what the peer sent.
        expected_count: how many points the protocol calls for.
        engine: whose arithmetic decides what is on the curve.

    Raises:
        PeerMessageError: for another count, shape or type; a number of p or more; a point of low
            order; a duplicate; a point of the twist.
    """
    if points.dtype != np.uint8 or points.shape != (expected_count, ELEMENT_BYTES):
        raise PeerMessageError(
            f"expected points as uint8 of shape {(expected_count, ELEMENT_BYTES)}, "
            f"got {points.dtype} of shape {points.shape}"
        )
    top = points[:, -1]
    reduced = (top < 0x7F) | (points[:, 1:-1] < 0xFF).any(axis=1) | (points[:, 0] < _PRIME_LOW_BYTE)
    faults = {
        "not canonical": int(np.count_nonzero((top > 0x7F) | ~reduced)),
        "of low order": sum(int((points == low).all(axis=1).sum()) for low in _LOW_ORDER),
        "duplicates": count_repeats(points),
    }
    if any(faults.values()):
        found = ", ".join(f"{count} {fault}" for fault, count in faults.items() if count)
        raise PeerMessageError(
            f"expected {expected_count} distinct points of large order in canonical form, "
            f"got {found}: the peer does not follow the protocol"
        )
    engine.check_on_curve(points)
