"""Two parties find which of their records share identifiers, and how many, but not which ones.

Guarantees, against a peer that follows the protocol (semi-honest), under decisional Diffie-Hellman
on Curve25519 and SHA-512 as a random oracle: the receiver learns for each of its records with how
many identifiers it meets each of the sender's groups of points; it does not learn by which of its
identifiers, or of the sender's, they met, nor how many identifiers a record of the sender's bears.
The sender learns nothing but that the receiver took part. Records come in chunks, so that memory
depends on the chunk and not on the set; every chunk has the same number of points.

Leaves to others: a fresh secret for every set and run; keeping the tags of all chunks until the
last has come, and the refusal of repeats among them (a set's tags are all different); that every
token belongs to one record; limits on sizes.

A receiver that does not follow the protocol may choose the points of a chunk by the answers to
earlier ones: it still gets one tag for each, so that it tests as many tokens as it has points
(one-more Diffie-Hellman; De Cristofaro, Kim and Tsudik, ASIACRYPT 2010). It may lay the identifiers
of one person out as several records, and so learn by which they match.

Source: the protocol of `two_party`, shuffled by record. Buddhavarapu et al., "Multi-key private
matching for compute", ePrint 2021/770, join rows by several keys under the same assumption, for a
union to compute on that nobody is to see.
"""

# The protocol. As in `two_party`, but r and s are one for all chunks of a set, since a record's
# identifiers are found in any chunk of the other's. A record stands at a random place; its points,
# padded with dummies to one number, stand together, in random order.
#
#   1. receiver -> sender    r·H(x) for the tokens x of a chunk's records, group by group
#   2. sender -> receiver    tag(s·r·H(x)), shuffled within each group, and
#                            s·H(y) for the tokens y of a chunk of its own records
#   3. receiver              keeps these tags and tag(r·s·H(y)); after the last chunk, two groups
#                            share as many tokens as they share tags
#
# A sender whose records need not be told apart makes every token a record of one point.

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError
from privacy.psi.blinding import (
    Tags,
    multiply_distinct,
    require_distinct,
    scalar,
    tags_of,
    validate_tags,
)
from privacy.psi.engine import CurveEngine, Points, validate_points
from privacy.psi.field import ELEMENT_BYTES
from privacy.psi.two_party import SenderReply
from privacy.randomness import Secret, SecretStream

__all__ = [
    "Groups",
    "place_records",
    "plan_records",
    "receiver_blind_records",
    "receiver_tags",
    "sender_reply_records",
]

_DUMMY_BYTES = 32
_RECEIVER, _SENDER = "receiver records", "sender records"


@dataclass(frozen=True)
class Groups:
    """How a chunk of one side's records stands among its points.

    Attributes:
        records: places for records in a chunk, 1 or more.
        width: points of each, 1 or more: a record's identifiers, and dummies.
    """

    records: int
    width: int

    @property
    def points(self) -> int:
        """Points of a chunk."""
        return self.records * self.width


def plan_records(
    receiver: Groups, sender: Groups, *, chunk_points: int
) -> tuple[int, Groups, Groups]:
    """Cut two sets of records, whose padded sizes both parties know, into chunks.

    Args:
        receiver: all records of the receiver.
        sender: all records of the sender.
        chunk_points: points of the larger side in a chunk, 1 or more; a record is never cut.

    Returns:
        How many chunks, and the groups of each at the receiver and at the sender.

    Raises:
        InvalidParameterError: if a number is less than 1.
    """
    numbers = (receiver.records, receiver.width, sender.records, sender.width, chunk_points)
    if min(numbers) < 1:
        raise InvalidParameterError(
            "expected records, points of a record and points of a chunk of 1 or more, "
            f"got {numbers}"
        )
    chunks = max(
        -(-side.records // max(1, chunk_points // side.width)) for side in (receiver, sender)
    )
    cut = [Groups(-(-side.records // chunks), side.width) for side in (receiver, sender)]
    return chunks, cut[0], cut[1]


def place_records(secret: Secret, count: int) -> NDArray[np.uint32]:
    """Return a random place for each of `count` records, 0 to count - 1, each once.

    Three stable sorts by 32 random bits each are one by 96 bits, of which two are equal with a
    probability below count² · 2⁻⁹⁷. About 20 bytes a record.

    Args:
        secret: of this set and run, and no other.
        count: records, those of padding included, below 2^32.

    Raises:
        InvalidParameterError: if `count` is out of range.
    """
    if not 0 <= count < 1 << 32:
        raise InvalidParameterError(f"expected up to 2^32 - 1 records, got {count}")
    stream = SecretStream(secret, "psi record places")
    places = np.arange(count, dtype=np.uint32)
    for _ in range(3):
        keys = np.frombuffer(stream.take(4 * count), dtype="<u4").astype(np.uint64)
        keys <<= np.uint64(32)
        keys |= np.arange(count, dtype=np.uint32)
        keys.sort()
        places = places[keys.astype(np.uint32)]  # the lower half: where each stood
    return places


def receiver_blind_records(
    tokens: NDArray[np.uint8],
    places: NDArray[np.integer],
    secret: Secret,
    chunk: int,
    *,
    engine: CurveEngine,
    groups: Groups,
) -> Points:
    """Step 1: blind a chunk of the receiver's records.

    Args:
        tokens: (n, k) distinct tokens, k >= 1; n may be 0.
        places: (n,) the place in the chunk of the record that bears each.
        secret: the receiver's, for this set and run only.
        chunk: its number.
        engine: the curve's arithmetic.
        groups: of the receiver's chunks.

    Returns:
        (groups.points, 32) points for the sender.

    Raises:
        InvalidParameterError: if tokens repeat or have another type or shape, a place is out of
            range, or a record has more tokens than points.
    """
    return _blind(tokens, places, secret, _RECEIVER, chunk, engine=engine, groups=groups)


def sender_reply_records(
    tokens: NDArray[np.uint8],
    places: NDArray[np.integer],
    received: Points,
    secret: Secret,
    chunk: int,
    *,
    engine: CurveEngine,
    groups: Groups,
    receiver_groups: Groups,
) -> SenderReply:
    """Step 2: multiply the receiver's points of a chunk, and blind a chunk of the sender's records.

    Args:
        tokens: (n, k) distinct tokens, k >= 1; n may be 0.
        places: (n,) the place in the chunk of the record that bears each.
        received: the receiver's points of step 1.
        secret: the sender's, for this set and run only.
        chunk: its number.
        engine: the curve's arithmetic.
        groups: of the sender's chunks.
        receiver_groups: of the receiver's.

    Raises:
        InvalidParameterError: as in step 1.
        PeerMessageError: if `received` breaks the protocol.
    """
    validate_points(received, receiver_groups.points, engine=engine)
    tags = tags_of(multiply_distinct(received, scalar(secret, _SENDER), engine=engine))
    stream = SecretStream(secret, f"psi {_SENDER} tag order {chunk}")
    return SenderReply(
        tags[_within_groups(stream, receiver_groups)],
        _blind(tokens, places, secret, _SENDER, chunk, engine=engine, groups=groups),
    )


def receiver_tags(
    reply: SenderReply,
    secret: Secret,
    *,
    engine: CurveEngine,
    groups: Groups,
    sender_groups: Groups,
) -> tuple[Tags, Tags]:
    """Step 3: return the tags of a chunk of both sides' records.

    Args:
        reply: the sender's, of step 2.
        secret: the same as in step 1.
        engine: the curve's arithmetic.
        groups: the same as in step 1.
        sender_groups: of the sender's chunks.

    Returns:
        (groups.points, 12) tags of the receiver's and (sender_groups.points, 12) of the sender's
        records: tag number i is of the record at place i // width.

    Raises:
        PeerMessageError: if `reply` breaks the protocol.
    """
    validate_tags(reply.tags, groups.points)
    validate_points(reply.blinded, sender_groups.points, engine=engine)
    factor = scalar(secret, _RECEIVER)
    return reply.tags, tags_of(multiply_distinct(reply.blinded, factor, engine=engine))


def _blind(
    tokens: NDArray[np.uint8],
    places: NDArray[np.integer],
    secret: Secret,
    role: str,
    chunk: int,
    *,
    engine: CurveEngine,
    groups: Groups,
) -> Points:
    require_distinct(tokens)
    at = _slots(places, len(tokens), groups)
    at = _within_groups(SecretStream(secret, f"psi {role} order {chunk}"), groups)[at]
    spare = np.ones(groups.points, dtype=np.bool_)
    spare[at] = False
    padding = SecretStream(secret, f"psi {role} padding {chunk}").take(
        int(np.count_nonzero(spare)) * _DUMMY_BYTES
    )
    dummies = np.frombuffer(padding, dtype=np.uint8).reshape(-1, _DUMMY_BYTES)
    points = np.empty((groups.points, ELEMENT_BYTES), dtype=np.uint8)
    points[at] = engine.hash_to_curve(tokens)
    points[spare] = engine.hash_to_curve(dummies)
    return engine.multiply(points, scalar(secret, role))


def _slots(places: NDArray[np.integer], count: int, groups: Groups) -> NDArray[np.int64]:
    """Return a point of its record's group for each token, from the first of the group on."""
    if places.shape != (count,):
        raise InvalidParameterError(
            f"expected a place for each of {count} tokens, got {places.shape}"
        )
    if count and not 0 <= int(places.min()) <= int(places.max()) < groups.records:
        raise InvalidParameterError(f"expected places of records from 0 to {groups.records - 1}")
    order = np.argsort(places, kind="stable")
    ordered = places[order].astype(np.int64)
    within = np.arange(count) - np.searchsorted(ordered, ordered)
    if count and int(within.max()) >= groups.width:
        raise InvalidParameterError(
            f"expected up to {groups.width} identifiers of a record, got {int(within.max()) + 1}"
        )
    slots = np.empty(count, dtype=np.int64)
    slots[order] = ordered * groups.width + within
    return slots


def _within_groups(stream: SecretStream, groups: Groups) -> NDArray[np.int64]:
    """Return a random order of a chunk's points in which every one stays in its group."""
    keys = np.frombuffer(stream.take(8 * groups.points), dtype="<u8")
    order = np.argsort(keys.reshape(-1, groups.width), axis=1)
    order += np.arange(0, groups.points, groups.width)[:, None]
    return order.reshape(-1)
