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
what it must not learn. All but requests and ends is encrypted between the two: the coordinator
sees how many buckets there are, and sizes in chunks.

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
from federation.jobs.exchange import Outgoing, Relay, Say, expect, expect_encrypted, rows_of
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
from privacy.psi.blinding import TAG_BYTES
from privacy.psi.buckets import BucketPlan, plan_buckets
from privacy.psi.engine import CurveEngine
from privacy.psi.field import ELEMENT_BYTES
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
    "Comparison",
    "MatchPlan",
    "MatchState",
    "coordinate_match",
    "learner_of",
    "size_mechanism",
]

_WIDTH = 33
_NUMBER = np.dtype("<u8")


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


class MatchState(BaseModel):
    """What a side of one pair remembers between two messages.

    Attributes:
        own: what it said of itself.
        other: what the other said; None before.
        heard: digests of the messages that were taken, bucket by bucket: one each.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    own: MatchSide
    other: MatchSide | None = None
    heard: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...] = ()

    def meet(self, other: MatchSide) -> Self:
        """Take what the other side says of itself.

        Raises:
            MessageError: it said something else before.
        """
        if self.other not in (None, other):
            raise MessageError("the other side has described another set in this job")
        return self.model_copy(update={"other": other})

    def hear(self, bucket: int, digest: str) -> Self:
        """Take the message of a bucket: the next, or one that was taken and is repeated.

        Raises:
            MessageError: the bucket is not the next, or another message counts for it.
        """
        if bucket < len(self.heard):
            if self.heard[bucket] != digest:
                raise MessageError(f"a second message for bucket {bucket}: the first one counts")
            return self
        if bucket > len(self.heard):
            raise MessageError(f"message for bucket {bucket}; expected {len(self.heard)}")
        return self.model_copy(update={"heard": (*self.heard, digest)})

    def forget(self, bucket: int) -> Self:
        """Take back the message of a bucket, which broke the protocol: another may come."""
        return self.model_copy(update={"heard": self.heard[:bucket]})


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
class MatchPlan:
    """How one pair matches: the same at both sides, from what both know.

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


def coordinate_match(
    agreement: Agreement, spec: MatchSpec
) -> Generator[Sequence[Outgoing], Sequence[Message], None]:
    """Steps 1 and 8, at the coordinator: a star of the brand and every partner.

    Yields:
        What to send next; resumed with the answers in the same order.
    """
    pairs = [learner_of(agreement, one.name) for one in agreement.by_role(Role.PARTNER)]
    answers = yield [  # 1
        Say(learner, spec.name, MatchRequest(spec=spec, peer=peer)) for learner, peer in pairs
    ]
    asked = [_kind(MatchRequest)] * len(pairs)
    while carried := _in_turn(asked, answers):
        asked = [message.header.kind for message in carried]
        answers = yield [Relay(message) for message in carried]


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
