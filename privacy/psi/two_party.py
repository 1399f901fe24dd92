"""Two parties find what both know; the receiver learns it, the sender learns nothing.

Guarantees, against a peer that follows the protocol (semi-honest), under decisional Diffie-Hellman
on Curve25519 and SHA-512 as a random oracle: the receiver learns which of its own tokens the
sender has, and at which place of the sender's shuffled points each stands (`TagOrder.KEPT`), or
only how many there are (`TagOrder.SHUFFLED`). The sender learns nothing but that the receiver took
part. Both sets are padded to capacities that do not depend on them. Bytes that break the protocol
are refused before a secret scalar touches them; points whose products repeat, before a product is
used.

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

from privacy.psi.blinding import (
    Tags,
    blind,
    check_capacity,
    common_rows,
    multiply_distinct,
    places,
    scalar,
    tags_of,
    validate_tags,
)
from privacy.psi.engine import CurveEngine, Points, validate_points
from privacy.randomness import Secret, SecretStream

__all__ = [
    "SenderReply",
    "TagOrder",
    "receiver_blind",
    "receiver_count",
    "receiver_intersect",
    "sender_places",
    "sender_reply",
]


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
    return blind(tokens, secret, _Role.RECEIVER, engine=engine, capacity=capacity)


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
    tags = tags_of(multiply_distinct(received, scalar(secret, _Role.SENDER), engine=engine))
    if order is TagOrder.SHUFFLED:
        tags = tags[SecretStream(secret, "psi sender tag order").permutation(len(tags))]
    blinded = blind(tokens, secret, _Role.SENDER, engine=engine, capacity=capacity)
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
    check_capacity(token_count, capacity)
    return places(secret, _Role.SENDER, capacity)[:token_count]


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
    check_capacity(token_count, capacity)
    found = _compare(secret, reply, engine, capacity, sender_capacity)
    return found[places(secret, _Role.RECEIVER, capacity)[:token_count]]


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
    validate_tags(reply.tags, capacity)
    validate_points(reply.blinded, sender_capacity, engine=engine)
    factor = scalar(secret, _Role.RECEIVER)
    shared = tags_of(multiply_distinct(reply.blinded, factor, engine=engine))
    mine, theirs = common_rows(reply.tags, shared)
    found = np.full(capacity, -1, dtype=np.int64)
    found[mine] = theirs
    return found
