"""Two parties find whom both know; the receiver learns who, the sender learns nothing.

Guarantees, against a peer that follows the protocol (semi-honest), under decisional Diffie-Hellman
on Curve25519 and SHA-512 as a random oracle: the receiver learns which of its own tokens the
sender has, and the sender's count rounded up to `bucket`; the sender learns the receiver's count
rounded up. Bytes that break the protocol are refused before a secret scalar touches them.

Leaves to others: a fresh secret for every run (one secret for two runs links the points of both),
the agreed bucket and limits on set sizes, and the truth of a party's set: whoever adds guessed
identifiers to its own set tests them, which only limits on set sizes, minimum matches and
signatures restrain.

Source: Meadows, "A more efficient cryptographic matchmaking protocol", IEEE S&P 1986; Huberman,
Franklin and Hogg, "Enhancing privacy and trust in electronic communities", EC 1999.
"""

# The protocol. H hashes to the curve; r and s are the parties' secret scalars; each set is padded
# with random dummies up to a multiple of the bucket and shuffled. Both functions of the receiver
# derive scalar, dummies and order from its secret, which is all it keeps between 1 and 3.
#
#   1. receiver -> sender    received = shuffle(r·H(x) for its tokens x)
#   2. sender -> receiver    doubled  = s·received, in the order received
#                            blinded  = shuffle(s·H(y) for its tokens y)
#   3. receiver              x is in both sets if s·r·H(x) in doubled occurs in r·blinded
#
# The caller must still decide who may learn the result, and destroy both secrets.

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError, PeerMessageError
from privacy.psi.engine import CurveEngine, Points, row_keys, validate_points
from privacy.randomness import Secret, SecretStream, derive_secret

__all__ = ["SenderReply", "padded_count", "receiver_blind", "receiver_intersect", "sender_reply"]

_DUMMY_BYTES = 32


class _Role(StrEnum):
    RECEIVER = "receiver"
    SENDER = "sender"


@dataclass(frozen=True)
class SenderReply:
    """What the sender sends back.

    Attributes:
        doubled: the receiver's points times the sender's scalar, in the order received.
        blinded: the sender's own points times its scalar, padded and shuffled.
    """

    doubled: Points
    blinded: Points


def padded_count(count: int, bucket: int) -> int:
    """Return how many points stand for `count` tokens: the next multiple of `bucket`, never 0.

    Raises:
        InvalidParameterError: if `count` is negative or `bucket` is less than 1.
    """
    if count < 0 or bucket < 1:
        raise InvalidParameterError(
            f"expected a count of 0 or more and a bucket of 1 or more, got {count} and {bucket}"
        )
    return max(1, -(-count // bucket)) * bucket


def receiver_blind(
    tokens: NDArray[np.uint8], secret: Secret, *, engine: CurveEngine, bucket: int
) -> Points:
    """Step 1: blind the receiver's set.

    Args:
        tokens: (n, k) distinct tokens, k >= 1; n may be 0.
        secret: the receiver's, for this run only.
        engine: the curve's arithmetic.
        bucket: the set is padded to a multiple of it, 1 or more.

    Returns:
        (padded_count(n, bucket), 32) points for the sender.

    Raises:
        InvalidParameterError: if tokens repeat or have another type or shape.
    """
    return _blind(tokens, secret, _Role.RECEIVER, engine=engine, bucket=bucket)


def sender_reply(
    tokens: NDArray[np.uint8],
    received: Points,
    secret: Secret,
    *,
    engine: CurveEngine,
    bucket: int,
) -> SenderReply:
    """Step 2: double the receiver's points and blind the sender's own set.

    Args:
        tokens: (n, k) distinct tokens, k >= 1; n may be 0.
        received: the receiver's points of step 1.
        secret: the sender's, for this run only.
        engine: the curve's arithmetic.
        bucket: the agreed one; both sets are padded to a multiple of it.

    Raises:
        InvalidParameterError: if tokens repeat or have another type or shape.
        PeerMessageError: if `received` breaks the protocol.
    """
    _validate_padded(received, "the receiver's set", engine=engine, bucket=bucket)
    return SenderReply(
        doubled=engine.multiply(received, _scalar(secret, _Role.SENDER)),
        blinded=_blind(tokens, secret, _Role.SENDER, engine=engine, bucket=bucket),
    )


def receiver_intersect(
    token_count: int, secret: Secret, reply: SenderReply, *, engine: CurveEngine, bucket: int
) -> NDArray[np.bool_]:
    """Step 3: find which of the receiver's tokens the sender has.

    Args:
        token_count: how many tokens step 1 was given.
        secret: the same as in step 1.
        reply: the sender's, of step 2.
        engine: the curve's arithmetic.
        bucket: the same as in step 1.

    Returns:
        (token_count,) true where the token, in the order of step 1, is in both sets.

    Raises:
        InvalidParameterError: if `token_count` or `bucket` is out of range.
        PeerMessageError: if `reply` breaks the protocol.
    """
    count = padded_count(token_count, bucket)
    validate_points(reply.doubled, count, engine=engine)
    _validate_padded(reply.blinded, "the sender's set", engine=engine, bucket=bucket)
    shared = engine.multiply(reply.blinded, _scalar(secret, _Role.RECEIVER))
    in_both = np.empty(count, dtype=np.bool_)
    in_both[_order(secret, _Role.RECEIVER, count)] = np.isin(
        row_keys(reply.doubled), row_keys(shared)
    )
    return in_both[:token_count]


def _blind(
    tokens: NDArray[np.uint8], secret: Secret, role: _Role, *, engine: CurveEngine, bucket: int
) -> Points:
    """Hash, pad, shuffle and multiply a party's own set."""
    if tokens.dtype != np.uint8 or tokens.ndim != 2 or tokens.shape[1] < 1:
        raise InvalidParameterError(
            f"expected tokens as uint8 of shape (n, k), got {tokens.dtype} of shape {tokens.shape}"
        )
    distinct = len(np.unique(row_keys(tokens)))
    if distinct < len(tokens):
        raise InvalidParameterError(
            f"expected distinct tokens, got {len(tokens)} of which {distinct} are distinct: remove "
            "duplicates before matching"
        )
    count = padded_count(len(tokens), bucket)
    padding = SecretStream(secret, f"psi {role} padding").take((count - len(tokens)) * _DUMMY_BYTES)
    dummies = np.frombuffer(padding, dtype=np.uint8).reshape(-1, _DUMMY_BYTES)
    points = np.concatenate([engine.hash_to_curve(tokens), engine.hash_to_curve(dummies)])
    return engine.multiply(points[_order(secret, role, count)], _scalar(secret, role))


def _scalar(secret: Secret, role: _Role) -> Secret:
    return derive_secret(secret, f"psi {role} scalar")


def _order(secret: Secret, role: _Role, count: int) -> NDArray[np.int64]:
    return SecretStream(secret, f"psi {role} order").permutation(count)


def _validate_padded(points: Points, whose: str, *, engine: CurveEngine, bucket: int) -> None:
    count = len(points) if points.ndim else 0
    if count != padded_count(count, bucket):
        raise PeerMessageError(
            f"expected {whose} padded to a multiple of the agreed bucket {bucket}, got {count} "
            "points: both parties must use the same agreement"
        )
    validate_points(points, count, engine=engine)
