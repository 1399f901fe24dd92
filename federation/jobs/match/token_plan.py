"""How one pair matches token by token.

Guarantees: both sides plan alike, from what both know.

Leaves to others: the curve (`privacy.psi.two_party`), the law of the noise on sizes
(`privacy.psi.sizes`).
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from compliance.terms import Linkage, MatchTerms, Reveal
from federation.jobs.exchange import rows_of
from federation.jobs.match.findings import Comparison
from federation.jobs.match.pair import size_mechanism
from federation.messages import MatchSide
from federation.specification import MatchSpec
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

__all__ = ["MatchPlan"]

_WIDTH = 33
_NUMBER = np.dtype("<u8")


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
        """Plan from what both sides know.

        Args:
            spec: the job, whose limit of memory bounds a bucket.
            terms: the agreement's; where sizes alone are revealed, every bucket has room for the
                noise on them.
            learner: what it said of itself: its padded size.
            peer: likewise.
        """
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
        """Step 5: blind the learner's own tokens of a bucket.

        Args:
            bucket: its number, from 0.
            tokens: shape (n, 33), n at most what the bucket holds without noise.
            secret: the learner's, for this bucket of this pair.
            engine: the curve's arithmetic.

        Returns:
            `buckets.receiver_capacity` points of 32 bytes, whatever n is.
        """
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

        Args:
            token_count: how many there are.
            payload: what `reply` returned at the peer.
            secret: the learner's, for this bucket of this pair.
            engine: the curve's arithmetic.

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
