"""Match: in each pair of data parties, one learns which of its people the other holds too.

```
coordinator              learner                               peer
1  match.request   ──►   2 says how large its set is, and
                           binds itself to it
                         match.offer                ──────►    3 holds that against the agreement,
                         4 likewise                 ◄──────      says the same of itself
                                                                 match.accept
   for every bucket
                         5 blinds its own
                         match.blinded              ──────►    6 blinds them again, and its own
                         7 compares                 ◄──────      match.reply
   at the end
8  collects        ◄──   match.done; or, where the peer may know something too,
                         match.outcome              ──────►    9 keeps it
   collects        ◄──────────────────────────────────────       match.done
```

Who learns, and what, is the agreement's `reveal` term; the flow follows it, so that nobody receives
what it must not learn. Where people bear several identifiers, buckets are cut by record and keys
stay hidden (`RecordPlan`), unless `reveal_keys` is agreed: then, and where everybody bears one,
tokens are matched one by one (`MatchPlan`). All but requests and ends is encrypted between the two:
the coordinator sees how many buckets there are, and sizes in chunks.

Guarantees: no I/O; a side's state is frozen and can be stored between two messages; one message
counts for each step, and a second one that differs is refused.

Leaves to others: the curve (`privacy.psi`), reading people (`population`), keeping tokens
(`matching.token_set`), limits over many matches (`matching.history`), sending (`gate`).
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from compliance.agreement import Agreement
from compliance.terms import Linkage, MatchTerms, Reveal, Role
from federation.errors import MessageError
from federation.jobs.exchange import (
    Exchange,
    Outgoing,
    Relay,
    Say,
    expect,
    expect_encrypted,
    rows_of,
)
from federation.jobs.quorum import Quorum
from federation.messages import (
    MatchAccept,
    MatchBlinded,
    MatchDone,
    MatchOffer,
    MatchOutcome,
    MatchReply,
    MatchRequest,
    MatchSide,
    Message,
)
from federation.specification import MatchSpec
from privacy.accounting.events import DiscreteLaplaceEvent
from privacy.psi.blinding import TAG_BYTES, Tags
from privacy.psi.buckets import BucketPlan, plan_buckets
from privacy.psi.engine import CurveEngine
from privacy.psi.field import ELEMENT_BYTES
from privacy.psi.records import (
    Groups,
    place_records,
    plan_records,
    receiver_blind_records,
    receiver_tags,
    sender_reply_records,
)
from privacy.psi.sizes import SizeNoise
from privacy.psi.two_party import (
    SenderReply,
    TagOrder,
    receiver_blind,
    receiver_count,
    receiver_intersect,
    sender_places,
    sender_reply,
)
from privacy.randomness import Secret, SecretStream, derive_secret

__all__ = [
    "PLACE",
    "Comparison",
    "Found",
    "MatchPlan",
    "MatchState",
    "Matched",
    "RecordPlan",
    "coordinate_match",
    "learner_of",
    "named_places",
    "places_of",
    "record_widths",
    "size_mechanism",
]

_WIDTH = 33
_NUMBER = np.dtype("<u8")
PLACE = np.dtype([("bucket", "<u4"), ("place", "<u4")])
"""Where a point of the peer's stands, or a record where buckets are cut by record."""
_NOWHERE = np.array((2**32 - 1, 2**32 - 1), dtype=PLACE)


def learner_of(agreement: Agreement, partner: str) -> tuple[str, str]:
    """Return who learns and who helps it, of the brand and a partner."""
    (brand,) = agreement.by_role(Role.BRAND)
    if agreement.match.reveal is Reveal.BRAND_LEARNS_MEMBERS:
        return brand.name, partner
    return partner, brand.name


def size_mechanism(terms: MatchTerms) -> DiscreteLaplaceEvent | None:
    """Return the noise on every size that leaves, or None where none does."""
    if terms.size_epsilon is None:
        return None
    return DiscreteLaplaceEvent(scale=1.0 / terms.size_epsilon)


def record_widths(agreement: Agreement, learner: str, peer: str) -> tuple[int, int] | None:
    """Return how many points stand for a record of the learner's and of the peer's.

    None where tokens are matched one by one: there keys may be seen, or there is but one, and no
    record bears a second identifier.
    """
    terms = agreement.match
    if terms.reveal_keys or terms.reveal is Reveal.SIZE_ONLY:
        return None
    mine, theirs = (agreement.dataset(name).identifiers_per_person for name in (learner, peer))
    if terms.linkage is Linkage.ANY_KEY:  # the peer's records need not be told apart
        theirs = 1
    return None if mine == theirs == 1 else (mine, theirs)


class MatchState(BaseModel):
    """What a side of one pair remembers between two messages.

    Attributes:
        own: what it said of itself.
        other: what the other said; None before.
        heard: digests of the messages that were taken: one for each bucket, and at a peer that is
            told of the end, one of that.
        last: whether the match is over when the last of them is answered.
        below_minimum: whether all that is known of the outcome is that it was too small.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    own: MatchSide
    other: MatchSide | None = None
    heard: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...] = ()
    last: bool = False
    below_minimum: bool = False

    def meet(self, other: MatchSide) -> Self:
        """Take what the other side says of itself.

        Raises:
            MessageError: it said something else before.
        """
        if self.other not in (None, other):
            raise MessageError("the other side has described another set in this job")
        return self.model_copy(update={"other": other})

    def hear(self, bucket: int, digest: str, *, last: bool = False) -> Self:
        """Take the message of a bucket: the next, or one that was taken and is repeated.

        Args:
            bucket: its number; the number of buckets for the message of the end.
            digest: of the message.
            last: whether no other comes after it.

        Raises:
            MessageError: the bucket is not the next, or another message counts for it.
        """
        if bucket < len(self.heard):
            if self.heard[bucket] != digest:
                raise MessageError(f"a second message for bucket {bucket}: the first one counts")
            return self
        if bucket > len(self.heard):
            raise MessageError(f"message for bucket {bucket}; expected {len(self.heard)}")
        return self.model_copy(update={"heard": (*self.heard, digest), "last": last})

    def forget(self, bucket: int) -> Self:
        """Take back the message of a bucket, which broke the protocol: another may come."""
        return self.model_copy(update={"heard": self.heard[:bucket], "last": False})

    def fall_short(self) -> Self:
        """Keep of the outcome that it was below the agreed minimum, and no more."""
        return self.model_copy(update={"below_minimum": True})


@dataclass(frozen=True)
class Comparison:
    """What a bucket told the learner.

    Attributes:
        tokens: the learner's tokens that the peer has too, shape (m,); none where only sizes are
            revealed.
        places: where each stands among the peer's points, shape (m,).
        numbers: number of the peer's record that bears each, shape (m,); zeros where records are
            not linked.
        count: how many matched, dummies of size noise included.
    """

    tokens: NDArray[np.int64]
    places: NDArray[np.int64]
    numbers: NDArray[np.uint64]
    count: int


@dataclass(frozen=True)
class Found:
    """What all buckets together told the learner.

    Attributes:
        rows: of its people who matched, each once, in the order in which they matched.
        places: of the peer's points, or records, that matched, ascending, in the same order; left
            empty where nobody is told of them.
        met: of its people who share anything with anybody, matched or not. One of them who comes
            or goes changes it by one: how many are matched one to one may change by more, since
            others are then told apart, or are not.
        count: how many tokens matched, dummies of size noise included.
    """

    rows: NDArray[np.uint32]
    places: NDArray[np.void]
    met: int
    count: int


def named_places(places: NDArray[np.void], room: int) -> bytes:
    """Write the places that a learner names to its peer; how many they are does not show.

    Args:
        places: ascending, `room` or fewer.
        room: places that are written.
    """
    padded = np.full(room, _NOWHERE, dtype=PLACE)
    padded[: len(places)] = places
    return padded.tobytes()


def places_of(payload: bytes, room: int) -> NDArray[np.void]:
    """Return the places that a learner names to its peer, (n,), padding left out.

    Raises:
        MessageError: with padding they are not `room`, or they do not ascend.
    """
    if len(payload) != room * PLACE.itemsize:
        raise MessageError(f"outcome: got {len(payload)} bytes, expected {room} places")
    places = np.frombuffer(payload, dtype=PLACE)
    named = places != _NOWHERE
    places = places[: np.count_nonzero(named)]
    if not named[: len(places)].all():
        raise MessageError("outcome: places after padding")
    bucket, place = places["bucket"], places["place"]
    later = bucket[1:] > bucket[:-1]
    later |= (bucket[1:] == bucket[:-1]) & (place[1:] > place[:-1])
    if not later.all():
        raise MessageError("outcome: the same place twice, or places in another order")
    return places


@dataclass(frozen=True)
class RecordPlan:
    """How one pair matches record by record, so that no key shows: the same at both sides.

    Attributes:
        chunks: how many buckets of records.
        learner: how records stand in each of the learner's.
        peer: likewise in the peer's; every token is a record where its records are not told apart.
    """

    chunks: int
    learner: Groups
    peer: Groups

    @property
    def room(self) -> int:
        """Records that can match one to one at most, from what both sides announced."""
        return self.chunks * min(self.learner.records, self.peer.records)

    @classmethod
    def of(
        cls, spec: MatchSpec, widths: tuple[int, int], *, learner: MatchSide, peer: MatchSide
    ) -> Self:
        """Plan from `record_widths`, the sides' padded sizes, and the job's limit of memory."""
        whole = [
            Groups(side.points // width, width)
            for side, width in zip((learner, peer), widths, strict=True)
        ]
        return cls(*plan_records(whole[0], whole[1], chunk_points=spec.bucket_points))

    def blind(
        self,
        chunk: int,
        tokens: NDArray[np.uint8],
        places: NDArray[np.integer],
        secret: Secret,
        engine: CurveEngine,
    ) -> bytes:
        """Step 5: blind a chunk of the learner's: tokens (n, 33), their records' places (n,)."""
        return receiver_blind_records(
            tokens, places, secret, chunk, engine=engine, groups=self.learner
        ).tobytes()

    def reply(
        self,
        chunk: int,
        tokens: NDArray[np.uint8],
        places: NDArray[np.integer],
        payload: bytes,
        secret: Secret,
        engine: CurveEngine,
    ) -> bytes:
        """Step 6: blind the learner's points again, and a chunk of the peer's own.

        Args:
            chunk: its number.
            tokens: the peer's own, shape (n, 33).
            places: of the records that bear them, shape (n,).
            payload: the learner's points.
            secret: the peer's, of this pair.
            engine: the curve's arithmetic.

        Raises:
            MessageError: the payload has another length.
            PeerMessageError: its points break the protocol.
        """
        reply = sender_reply_records(
            tokens,
            places,
            rows_of(payload, self.learner.points, ELEMENT_BYTES),
            secret,
            chunk,
            engine=engine,
            groups=self.peer,
            receiver_groups=self.learner,
        )
        return reply.tags.tobytes() + reply.blinded.tobytes()

    def compare(self, payload: bytes, secret: Secret, engine: CurveEngine) -> tuple[Tags, Tags]:
        """Step 7: return the tags of a chunk of the learner's and of the peer's records.

        Raises:
            MessageError: the payload has another length.
            PeerMessageError: its points or tags break the protocol.
        """
        cut = self.learner.points * TAG_BYTES
        reply = SenderReply(
            tags=rows_of(payload[:cut], self.learner.points, TAG_BYTES),
            blinded=rows_of(payload[cut:], self.peer.points, ELEMENT_BYTES),
        )
        return receiver_tags(
            reply, secret, engine=engine, groups=self.learner, sender_groups=self.peer
        )

    def secret(self, secret: Secret, digest: str) -> Secret:
        """Return a side's secret of all chunks: of this set, cut in this way, and no other.

        Args:
            secret: the side's, of this pair in this job.
            digest: of the side's own set.
        """
        return derive_secret(secret, f"match records in {self.chunks} chunks, set {digest}")

    def places(self, secret: Secret, groups: Groups) -> NDArray[np.uint32]:
        """Return where each record of a side stands, counted over all chunks; padding last."""
        return place_records(secret, self.chunks * groups.records)


@dataclass(frozen=True)
class MatchPlan:
    """How one pair matches token by token: the same at both sides, from what both know.

    Attributes:
        terms: the agreement's.
        buckets: how many, and how large at each side.
    """

    terms: MatchTerms
    buckets: BucketPlan

    @classmethod
    def of(cls, spec: MatchSpec, terms: MatchTerms, *, learner: MatchSide, peer: MatchSide) -> Self:
        """Plan from the sides' padded sizes and the job's limit of memory."""
        buckets = plan_buckets(learner.points, peer.points, bucket_points=spec.bucket_points)
        plan = cls(terms, buckets)
        if plan.noise is None:
            return plan
        room = plan.noise.dummies_per_bucket
        return cls(
            terms,
            BucketPlan(
                buckets.count, buckets.receiver_capacity + room, buckets.sender_capacity + room
            ),
        )

    @property
    def room(self) -> int:
        """Points that can match one to one at most, from what both sides announced."""
        sizes = self.buckets
        return sizes.count * min(sizes.receiver_capacity, sizes.sender_capacity)

    @property
    def noise(self) -> SizeNoise | None:
        """Noise against the learner, where it may only know sizes."""
        mechanism = size_mechanism(self.terms)
        if self.terms.reveal is not Reveal.SIZE_ONLY or mechanism is None:
            return None
        return SizeNoise(mechanism, self.terms.size_delta)

    @property
    def links_records(self) -> bool:
        """Whether the peer numbers its records."""
        return self.terms.linkage is Linkage.ONE_TO_ONE and self.noise is None

    def blind(
        self, bucket: int, tokens: NDArray[np.uint8], secret: Secret, engine: CurveEngine
    ) -> bytes:
        """Step 5: blind the learner's tokens of a bucket, shape (n, 33)."""
        if self.noise is not None:
            tokens = np.concatenate([tokens, self.noise.dummies(bucket, width=_WIDTH)])
        return receiver_blind(
            tokens, secret, engine=engine, capacity=self.buckets.receiver_capacity
        ).tobytes()

    def reply(
        self,
        bucket: int,
        tokens: NDArray[np.uint8],
        numbers: NDArray[np.uint64],
        payload: bytes,
        secret: Secret,
        engine: CurveEngine,
    ) -> bytes:
        """Step 6: blind the learner's points again, and the peer's own tokens.

        Args:
            bucket: its number.
            tokens: the peer's own, shape (n, 33).
            numbers: of the records that bear them, shape (n,).
            payload: the learner's points.
            secret: the peer's, for this bucket of this pair.
            engine: the curve's arithmetic.

        Raises:
            MessageError: the payload has another length.
            PeerMessageError: its points break the protocol.
        """
        received = rows_of(payload, self.buckets.receiver_capacity, ELEMENT_BYTES)
        order = TagOrder.KEPT
        capacity = self.buckets.sender_capacity
        if self.noise is not None:
            order = TagOrder.SHUFFLED
            drawn = self.noise.drawn(bucket, SecretStream(secret, "size noise"), width=_WIDTH)
            tokens = np.concatenate([tokens, drawn])
        reply = sender_reply(
            tokens,
            received,
            secret,
            engine=engine,
            capacity=capacity,
            receiver_capacity=self.buckets.receiver_capacity,
            order=order,
        )
        said = reply.tags.tobytes() + reply.blinded.tobytes()
        if not self.links_records:
            return said
        stream = SecretStream(secret, "numbers of dummies")
        numbered = np.frombuffer(stream.take(capacity * _NUMBER.itemsize), dtype=_NUMBER).copy()
        numbered[sender_places(len(tokens), secret, capacity=capacity)] = numbers
        return said + numbered.tobytes()

    def compare(
        self, token_count: int, payload: bytes, secret: Secret, engine: CurveEngine
    ) -> Comparison:
        """Step 7: compare what came back with the learner's own tokens of a bucket.

        Raises:
            MessageError: the payload has another length.
            PeerMessageError: its points or tags break the protocol.
        """
        mine, theirs = self.buckets.receiver_capacity, self.buckets.sender_capacity
        cut = mine * TAG_BYTES
        numbers_at = cut + theirs * ELEMENT_BYTES if self.links_records else len(payload)
        reply = SenderReply(
            tags=rows_of(payload[:cut], mine, TAG_BYTES),
            blinded=rows_of(payload[cut:numbers_at], theirs, ELEMENT_BYTES),
        )
        numbers = np.zeros(theirs, dtype=np.uint64)
        if self.links_records:
            numbers = rows_of(payload[numbers_at:], theirs, _NUMBER.itemsize).view(_NUMBER).ravel()
        if self.noise is not None:
            none = np.empty(0, dtype=np.int64)
            count = receiver_count(
                secret, reply, engine=engine, capacity=mine, sender_capacity=theirs
            )
            return Comparison(none, none, none.astype(np.uint64), count)
        places = receiver_intersect(
            token_count, secret, reply, engine=engine, capacity=mine, sender_capacity=theirs
        )
        hits = np.flatnonzero(places >= 0)
        return Comparison(hits, places[hits], numbers[places[hits]].astype(np.uint64), len(hits))

    def secret(self, secret: Secret, digest: str, bucket: int) -> Secret:
        """Return a side's secret of one bucket: of this set, cut in this way, and no other.

        Args:
            secret: the side's, of this pair in this job.
            digest: of the side's own set.
            bucket: its number.
        """
        label = f"match bucket {bucket} of {self.buckets.count}, set {digest}"
        return derive_secret(secret, label)

    def places(self, token_count: int, secret: Secret) -> NDArray[np.int64]:
        """Step 9: return where the peer's own tokens of a bucket stood, shape (token_count,)."""
        return sender_places(token_count, secret, capacity=self.buckets.sender_capacity)


@dataclass(frozen=True)
class Matched:
    """What the coordinator knows of a match that has ended.

    Attributes:
        missing: partners that it went on without.
    """

    missing: tuple[str, ...]


def coordinate_match(
    agreement: Agreement, spec: MatchSpec
) -> Generator[Exchange, Sequence[Message], Matched]:
    """Steps 1 and 8, at the coordinator: a star of the brand and every partner.

    A partner that is missing takes its pair with it, and no other.

    Yields:
        What to send next; resumed with the answers that came, in the same order.
    """
    quorum = Quorum(spec, agreement)
    (brand,) = agreement.by_role(Role.BRAND)
    pairs = [learner_of(agreement, name) for name in quorum.present]
    outgoing: list[Outgoing] = [  # 1
        Say(learner, spec.name, MatchRequest(spec=spec, peer=peer)) for learner, peer in pairs
    ]
    asked = [(learner, _kind(MatchRequest)) for learner, _ in pairs]
    while outgoing:
        if asked[0][0] == brand.name:  # pairs go in step: all are asked at the same side
            answers = yield outgoing
        else:
            answers = yield quorum.ask(outgoing, kept=False)
            quorum.hear(answers, [name for name, _ in asked])
            asked = [one for one in asked if one[0] not in quorum.missing]
        carried = _in_turn([kind for _, kind in asked], answers)
        asked = [(message.header.recipient, message.header.kind) for message in carried]
        outgoing = [Relay(message) for message in carried]
    return Matched(quorum.missing)


def _kind(body: type[BaseModel]) -> str:
    kind: str = body.model_fields["kind"].default
    return kind


_NEXT: Mapping[str, tuple[type[BaseModel], ...]] = {
    _kind(MatchRequest): (MatchOffer,),
    _kind(MatchOffer): (MatchAccept,),
    _kind(MatchAccept): (MatchBlinded,),
    _kind(MatchBlinded): (MatchReply,),
    _kind(MatchReply): (MatchBlinded, MatchOutcome, MatchDone),
    _kind(MatchOutcome): (MatchDone,),
}
"""What may be said in answer to what."""


def _in_turn(asked: Sequence[str], answers: Sequence[Message]) -> list[Message]:
    """Return the answers to be carried on, once each is one that its question may have."""
    carried = []
    for question, message in zip(asked, answers, strict=True):
        kinds = {_kind(one): one for one in _NEXT[question]}
        expected = kinds.get(message.header.kind, _NEXT[question][-1])
        if expected is MatchDone:
            expect(message, MatchDone)  # 8
        else:
            expect_encrypted(message, expected)
            carried.append(message)
    return carried
