"""How one pair matches record by record, so that no key shows.

Guarantees: both sides plan alike, from what both announced.

Leaves to others: the curve and the tags (`privacy.psi.records`), which records are the same person
(`privacy.linkage`).
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from federation.jobs.exchange import rows_of
from federation.messages import MatchSide
from federation.specification import MatchSpec
from privacy.psi.blinding import TAG_BYTES, Tags
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
from privacy.psi.two_party import SenderReply
from privacy.randomness import Secret, derive_secret

__all__ = ["RecordPlan"]


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
        """Plan from what both sides know.

        Args:
            spec: the job, whose limit of memory bounds a chunk.
            widths: `record_widths` of the pair.
            learner: what it said of itself: its points are a multiple of its width.
            peer: likewise.
        """
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
        """Step 5: blind a chunk of the learner's own.

        Args:
            chunk: its number, from 0.
            tokens: shape (n, 33).
            places: of the records that bear them, in the chunk, shape (n,).
            secret: the learner's, of this pair.
            engine: the curve's arithmetic.

        Returns:
            `learner.points` points of 32 bytes: dummies stand where there is no token.
        """
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

        Args:
            payload: what `reply` returned at the peer.
            secret: the learner's, of this pair.
            engine: the curve's arithmetic.

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
