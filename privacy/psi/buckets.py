"""Cut two sets into buckets that can be matched one at a time.

Guarantees: equal tokens fall into buckets of equal number; every bucket of a party has the same
number of points after padding, however its tokens fell, so that the cut tells the peer nothing;
memory then depends on the bucket, not on the set.

Leaves to others: keeping the buckets' tokens (memory, disk), and matching each (`two_party`).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError

__all__ = ["BUCKET_POINTS", "BucketPlan", "bucket_numbers", "padded_count", "plan_buckets"]

BUCKET_POINTS = 1 << 18
"""Points of the larger party in a bucket, before padding: 8 MiB on the wire."""

_OVERFLOW_BITS = 40
_HASH_BYTES = slice(-8, None)


@dataclass(frozen=True)
class BucketPlan:
    """How two sets are cut.

    Attributes:
        count: buckets, at least 1.
        receiver_capacity: points that stand for each bucket of the receiver's.
        sender_capacity: points that stand for each bucket of the sender's.
    """

    count: int
    receiver_capacity: int
    sender_capacity: int


def padded_count(count: int, multiple: int) -> int:
    """Return how many points stand for `count` tokens: the next multiple, never 0.

    Raises:
        InvalidParameterError: if `count` is negative or `multiple` is less than 1.
    """
    if count < 0 or multiple < 1:
        raise InvalidParameterError(
            f"expected a count of 0 or more and a multiple of 1 or more, got {count} and {multiple}"
        )
    return max(1, -(-count // multiple)) * multiple


def plan_buckets(
    receiver_points: int, sender_points: int, *, bucket_points: int = BUCKET_POINTS
) -> BucketPlan:
    """Return the cut of two sets whose sizes, padded, both parties know.

    Args:
        receiver_points: at least as many as the receiver's tokens, 1 or more.
        sender_points: at least as many as the sender's tokens, 1 or more.
        bucket_points: points of the larger set in a bucket, 1 or more.

    Raises:
        InvalidParameterError: if an argument is less than 1.
    """
    if min(receiver_points, sender_points, bucket_points) < 1:
        raise InvalidParameterError(
            "expected set sizes and points in a bucket of 1 or more, "
            f"got {receiver_points}, {sender_points} and {bucket_points}"
        )
    count = -(-max(receiver_points, sender_points) // bucket_points)
    return BucketPlan(count, _capacity(receiver_points, count), _capacity(sender_points, count))


def _capacity(points: int, buckets: int) -> int:
    """Return a load that no bucket passes, but for a chance of 2^-40.

    By Bernstein's inequality a bucket of a uniform hash takes more than mean + t tokens with
    probability at most exp(-t² / (2·mean + 2t/3)) (Boucheron, Lugosi and Massart, "Concentration
    inequalities", 2013, corollary 2.11); `t` solves that for 2^-40 over all buckets.
    """
    if buckets == 1:
        return points
    mean = points / buckets
    bits = _OVERFLOW_BITS * math.log(2) + math.log(buckets)
    excess = bits / 3 + math.sqrt(bits * bits / 9 + 2 * mean * bits)
    return min(points, math.ceil(mean + excess))


def bucket_numbers(tokens: NDArray[np.uint8], count: int) -> NDArray[np.int64]:
    """Return the bucket of each of (n, k) tokens that end in a hash, k >= 8, from 0 to count - 1.

    Raises:
        InvalidParameterError: if `tokens` has another shape or type, or `count` is out of range.
    """
    if tokens.dtype != np.uint8 or tokens.ndim != 2 or tokens.shape[1] < 8:
        raise InvalidParameterError(
            f"expected tokens as uint8 of shape (n, 8 or more), got {tokens.dtype} of shape "
            f"{tokens.shape}"
        )
    if not 1 <= count <= 1 << 31:
        raise InvalidParameterError(f"expected 1 to 2^31 buckets, got {count}")
    hashes = np.ascontiguousarray(tokens[:, _HASH_BYTES]).view("<u8").reshape(-1)
    return (((hashes >> np.uint64(32)) * np.uint64(count)) >> np.uint64(32)).astype(np.int64)
