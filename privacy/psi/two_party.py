"""Two parties find what both know; the receiver learns it, the sender learns nothing.

Guarantees, against a peer that follows the protocol (semi-honest), under decisional Diffie-Hellman
on Curve25519 and SHA-512 as a random oracle: the receiver learns which of its own tokens the
sender has, and at which place of the sender's shuffled points each stands (`TagOrder.KEPT`), or
only how many there are (`TagOrder.SHUFFLED`). The sender learns nothing but that the receiver took
part. Both sets are padded to capacities that do not depend on them. Bytes that break the protocol
are refused before a secret scalar touches them.

Leaves to others: a fresh secret for every run (one secret for two runs links the points of both),
the agreed capacities and limits on set sizes, noise on sizes, and the truth of a party's set:
whoever adds guessed identifiers to its own set tests them, which only limits on set sizes, minimum
matches and signatures restrain.

Source: Meadows, "A more efficient cryptographic matchmaking protocol", IEEE S&P 1986; Huberman,
Franklin and Hogg, "Enhancing privacy and trust in electronic communities", EC 1999; for sizes
alone, Agrawal, Evfimievski and Srikant, "Information sharing across private databases", SIGMOD
2003, section 5.
"""

# The protocol. H hashes to the curve; r and s are the parties' secret scalars; tag() keeps a
# point's first 12 bytes. Each set is padded with random dummies up to its capacity and shuffled.
# All functions of one party derive scalar, dummies and order from its secret, which is all it
# keeps between 1 and 3.
#
#   1. receiver -> sender    received = shuffle(r·H(x) for its tokens x)
#   2. sender -> receiver    tags     = tag(s·received), in the order received or shuffled
#                            blinded  = shuffle(s·H(y) for its tokens y)
#   3. receiver              x is in both sets if tag(s·r·H(x)) in tags occurs in tag(r·blinded)
#
# The caller must still decide who may learn the result, and destroy both secrets.

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError, PeerMessageError
from privacy.psi.engine import CurveEngine, Points, count_repeats, validate_points
from privacy.psi.field import ELEMENT_BYTES
from privacy.randomness import Secret, SecretStream, derive_secret

__all__ = [
    "TAG_BYTES",
    "SenderReply",
    "TagOrder",
    "Tags",
    "receiver_blind",
    "receiver_count",
    "receiver_intersect",
    "sender_places",
    "sender_reply",
]

TAG_BYTES = 12
"""Bytes of a tag. Two sets of 2^28 points have an equal pair by accident with probability 2^-40."""

Tags = NDArray[np.uint8]
"""(n, 12): the first bytes of points that both parties have multiplied."""

_DUMMY_BYTES = 32


class TagOrder(StrEnum):
    """In which order the sender returns the receiver's points."""

    KEPT = "kept"
    """As received: the receiver learns which of its tokens match."""
    SHUFFLED = "shuffled"
    """At random: the receiver learns how many match."""


class _Role(StrEnum):
    RECEIVER = "receiver"
    SENDER = "sender"


@dataclass(frozen=True)
class SenderReply:
    """What the sender sends back.

    Attributes:
        tags: of the receiver's points times the sender's scalar, (receiver_capacity, 12).
        blinded: the sender's own points times its scalar, padded and shuffled, (capacity, 32).
    """

    tags: Tags
    blinded: Points


def receiver_blind(
    tokens: NDArray[np.uint8], secret: Secret, *, engine: CurveEngine, capacity: int
) -> Points:
    """Step 1: blind the receiver's set.

    Args:
        tokens: (n, k) distinct tokens, k >= 1; n may be 0.
        secret: the receiver's, for this run only.
        engine: the curve's arithmetic.
        capacity: points that stand for the set, n or more.

    Returns:
        (capacity, 32) points for the sender.

    Raises:
        InvalidParameterError: if tokens repeat, are too many, or have another type or shape.
    """
    return _blind(tokens, secret, _Role.RECEIVER, engine=engine, capacity=capacity)


def sender_reply(
    tokens: NDArray[np.uint8],
    received: Points,
    secret: Secret,
    *,
    engine: CurveEngine,
    capacity: int,
    receiver_capacity: int,
    order: TagOrder = TagOrder.KEPT,
) -> SenderReply:
    """Step 2: multiply the receiver's points and blind the sender's own set.

    Args:
        tokens: (n, k) distinct tokens, k >= 1; n may be 0.
        received: the receiver's points of step 1.
        secret: the sender's, for this run only.
        engine: the curve's arithmetic.
        capacity: points that stand for the sender's set, n or more.
        receiver_capacity: points that must have come.
        order: what the receiver may learn.

    Raises:
        InvalidParameterError: if tokens repeat, are too many, or have another type or shape.
        PeerMessageError: if `received` breaks the protocol.
    """
    validate_points(received, receiver_capacity, engine=engine)
    doubled = engine.multiply(received, _scalar(secret, _Role.SENDER))
    tags = np.ascontiguousarray(doubled[:, :TAG_BYTES])
    if order is TagOrder.SHUFFLED:
        tags = tags[SecretStream(secret, "psi sender tag order").permutation(len(tags))]
    blinded = _blind(tokens, secret, _Role.SENDER, engine=engine, capacity=capacity)
    return SenderReply(tags, blinded)


def sender_places(token_count: int, secret: Secret, *, capacity: int) -> NDArray[np.int64]:
    """Return where each of the sender's tokens stands in `SenderReply.blinded`, (token_count,).

    Args:
        token_count: how many tokens step 2 was given.
        secret: the same as in step 2.
        capacity: the same as in step 2.

    Raises:
        InvalidParameterError: if there are more tokens than `capacity`.
    """
    _check_capacity(token_count, capacity)
    return _places(secret, _Role.SENDER, capacity)[:token_count]


def receiver_intersect(
    token_count: int,
    secret: Secret,
    reply: SenderReply,
    *,
    engine: CurveEngine,
    capacity: int,
    sender_capacity: int,
) -> NDArray[np.int64]:
    """Step 3: find which of the receiver's tokens the sender has, where tags kept their order.

    Args:
        token_count: how many tokens step 1 was given.
        secret: the same as in step 1.
        reply: the sender's, of step 2.
        engine: the curve's arithmetic.
        capacity: the same as in step 1.
        sender_capacity: points of the sender's own that must have come.

    Returns:
        (token_count,) in the order of step 1: where the same token stands in `reply.blinded`, or
        -1 where the sender does not have it.

    Raises:
        InvalidParameterError: if there are more tokens than `capacity`.
        PeerMessageError: if `reply` breaks the protocol.
    """
    _check_capacity(token_count, capacity)
    found = _compare(secret, reply, engine, capacity, sender_capacity)
    return found[_places(secret, _Role.RECEIVER, capacity)[:token_count]]


def receiver_count(
    secret: Secret,
    reply: SenderReply,
    *,
    engine: CurveEngine,
    capacity: int,
    sender_capacity: int,
) -> int:
    """Step 3: count the tokens that both have, where tags were shuffled.

    Arguments and errors are those of `receiver_intersect`.
    """
    return int(np.count_nonzero(_compare(secret, reply, engine, capacity, sender_capacity) >= 0))


def _compare(
    secret: Secret, reply: SenderReply, engine: CurveEngine, capacity: int, sender_capacity: int
) -> NDArray[np.int64]:
    """Return for each tag where it occurs among the sender's points, or -1."""
    tags = reply.tags
    if tags.dtype != np.uint8 or tags.shape != (capacity, TAG_BYTES):
        raise PeerMessageError(
            f"expected tags as uint8 of shape {(capacity, TAG_BYTES)}, got {tags.dtype} of shape "
            f"{tags.shape}"
        )
    if repeats := count_repeats(tags):
        raise PeerMessageError(
            f"expected {capacity} distinct tags, got {repeats} duplicates: the peer does not "
            "follow the protocol"
        )
    validate_points(reply.blinded, sender_capacity, engine=engine)
    shared = engine.multiply(reply.blinded, _scalar(secret, _Role.RECEIVER))[:, :TAG_BYTES]
    both = np.concatenate([tags, shared])
    low = np.ascontiguousarray(both[:, :8]).view("<u8").reshape(-1)
    high = np.ascontiguousarray(both[:, 8:]).view("<u4").reshape(-1)
    order = np.lexsort((high, low))  # stable: a tag comes before the point that it equals
    first, second = order[:-1], order[1:]
    pair = (low[first] == low[second]) & (high[first] == high[second])
    pair &= (first < capacity) & (second >= capacity)
    found = np.full(capacity, -1, dtype=np.int64)
    found[first[pair]] = second[pair] - capacity
    return found


def _blind(
    tokens: NDArray[np.uint8], secret: Secret, role: _Role, *, engine: CurveEngine, capacity: int
) -> Points:
    """Hash, pad, shuffle and multiply a party's own set."""
    if tokens.dtype != np.uint8 or tokens.ndim != 2 or tokens.shape[1] < 1:
        raise InvalidParameterError(
            f"expected tokens as uint8 of shape (n, k), got {tokens.dtype} of shape {tokens.shape}"
        )
    _check_capacity(len(tokens), capacity)
    if repeats := count_repeats(tokens):
        raise InvalidParameterError(
            f"expected distinct tokens, got {repeats} duplicates among {len(tokens)}: remove them "
            "before matching"
        )
    padding = SecretStream(secret, f"psi {role} padding").take(
        (capacity - len(tokens)) * _DUMMY_BYTES
    )
    dummies = np.frombuffer(padding, dtype=np.uint8).reshape(-1, _DUMMY_BYTES)
    points = np.empty((capacity, ELEMENT_BYTES), dtype=np.uint8)
    places = _places(secret, role, capacity)
    points[places[: len(tokens)]] = engine.hash_to_curve(tokens)
    points[places[len(tokens) :]] = engine.hash_to_curve(dummies)
    return engine.multiply(points, _scalar(secret, role))


def _check_capacity(token_count: int, capacity: int) -> None:
    if not 0 <= token_count <= capacity or capacity < 1:
        raise InvalidParameterError(
            f"expected up to {capacity} tokens, as many as stand for the set, got {token_count}"
        )


def _scalar(secret: Secret, role: _Role) -> Secret:
    return derive_secret(secret, f"psi {role} scalar")


def _places(secret: Secret, role: _Role, capacity: int) -> NDArray[np.int64]:
    """Return where each token, then each dummy, stands among a party's points."""
    return SecretStream(secret, f"psi {role} order").permutation(capacity)
