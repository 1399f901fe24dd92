"""Match over a direct link: the two parties of a pair meet, and the coordinator says when.

```
coordinator              learner                               peer
1  match.request   ──►   2 as in a match; each end of the link has its certificate told
                         match.offer                ──────►    match.accept
                         3 holds and binds itself
   collects        ◄──   match.ready
   for every bucket, one pair after the other
4  match.link      ──►   5 asks its gate                       5 likewise
   collects        ◄──   match.open             match.open ──► collects
6  carries each to the other: both open the link, and match   7
   collects        ◄──   match.linked                          match.linked
   at the end
8  match.close     ──►   9 match.done; or, where the peer may know the size,
                         match.outcome              ──────►    10 keeps it
   match.close     ─────────────────────────────────────────►  or ends, too: match.done
```

Both must be at the link at the same time, so steps 4 and 6 ask both at once. A run of the job that
fails is followed by another *attempt*: buckets that the learner has are not matched again, and any
other is matched with fresh randomness.

Guarantees: no I/O; a side's state is frozen and can be stored between two messages; a link is
opened for one bucket and attempt, after both gates have let `match.open` out for it, and at most
`MOST_LINKS` times for one bucket, so that nobody tries set after set in it.

Leaves to others: the link (`rr22.link`), what goes through it (`privacy.psi.rr22`), sending
(`gate`).
"""

import hashlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field

from compliance.agreement import Agreement
from compliance.terms import Role
from federation.errors import MessageError
from federation.jobs.exchange import Outgoing, Relay, Say, expect, expect_encrypted
from federation.jobs.match.pair import learner_of
from federation.messages import (
    LinkSide,
    MatchAccept,
    MatchClose,
    MatchDone,
    MatchLink,
    MatchLinked,
    MatchOffer,
    MatchOpen,
    MatchOutcome,
    MatchReady,
    MatchRequest,
    MatchSide,
    Message,
)
from federation.specification import MatchSpec
from privacy.psi.buckets import BucketPlan, plan_buckets
from privacy.psi.rr22 import match_key
from privacy.randomness import Secret

__all__ = ["MOST_LINKS", "DirectPlan", "DirectState", "coordinate_direct"]

MOST_LINKS: Final = 3
"""How often a side opens a link for one bucket before the job must be run under another name."""

_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class DirectState(BaseModel):
    """What a side of one pair remembers between two messages.

    Attributes:
        own: what it said of itself.
        other: what the other said; None before.
        link: the other's end of the link; None before.
        attempt: for which it last asked its gate; None before.
        bucket: likewise.
        links: buckets for which a link was opened, one entry each time.
        below_minimum: whether fewer matched than agreed, which ends the pair's match.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    own: MatchSide
    other: MatchSide | None = None
    link: LinkSide | None = None
    attempt: _Digest | None = None
    bucket: int = 0
    links: tuple[int, ...] = ()
    below_minimum: bool = False

    def meet(self, other: MatchSide, link: LinkSide) -> Self:
        """Take what the other side says of itself.

        Raises:
            MessageError: it said something else before.
        """
        if (self.other, self.link) not in ((None, None), (other, link)):
            raise MessageError("the other side has described another set in this job")
        return self.model_copy(update={"other": other, "link": link})

    def permit(self, attempt: str, bucket: int) -> Self:
        """Note for which bucket, in which attempt, the gate lets this side open the link."""
        return self.model_copy(update={"attempt": attempt, "bucket": bucket})

    def check(self, attempt: str, bucket: int) -> None:
        """Return only if this side's gate has let out that it is ready for the bucket.

        Raises:
            MessageError: it has not, or in another attempt.
        """
        if (self.attempt, self.bucket) != (attempt, bucket):
            raise MessageError(f"bucket {bucket} was not asked for, or in another attempt")

    def open(self, bucket: int) -> Self:
        """Note that the link is about to be opened.

        Raises:
            MessageError: it was opened too often.
        """
        if self.links.count(bucket) >= MOST_LINKS:
            raise MessageError(
                f"bucket {bucket} was matched {MOST_LINKS} times and never ended: run the job "
                "under another name"
            )
        return self.model_copy(update={"links": (*self.links, bucket)})


@dataclass(frozen=True)
class DirectPlan:
    """How one pair matches: the same at both sides, from what both know.

    Attributes:
        agreement: digest of the contract.
        job: its name.
        sides: names of the learner and the peer.
        buckets: how many, and how large at each side.
    """

    agreement: str
    job: str
    sides: tuple[str, str]
    buckets: BucketPlan

    @classmethod
    def of(
        cls,
        agreement: Agreement,
        spec: MatchSpec,
        sides: tuple[str, str],
        *,
        learner: MatchSide,
        peer: MatchSide,
    ) -> Self:
        """Plan from the sides' padded sizes and the job's limit of memory."""
        buckets = plan_buckets(learner.points, peer.points, bucket_points=spec.bucket_points)
        return cls(agreement.digest, spec.name, sides, buckets)

    def capacity(self, *, learns: bool) -> int:
        """Return how many tags stand for a side's bucket; one of them at least is a dummy."""
        sizes = self.buckets
        return 1 + (sizes.receiver_capacity if learns else sizes.sender_capacity)

    def key(self, shares: frozenset[Secret], bucket: int, attempt: str) -> Secret:
        """Return the key of a bucket's tags in one attempt, of which each side gave a share.

        Raises:
            PeerMessageError: the other side gave back this one's share.
        """
        return match_key(shares, f"{self._name}, {self._run(bucket, attempt)}")

    def binding(self, bucket: int, attempt: str) -> bytes:
        """Return 32 bytes that name a bucket and attempt of this match."""
        return hashlib.sha256(f"{self._name}, {self._run(bucket, attempt)}".encode()).digest()

    @property
    def _name(self) -> str:
        return f"direct match {self.job} of {' and '.join(self.sides)} under {self.agreement}"

    def _run(self, bucket: int, attempt: str) -> str:
        return f"bucket {bucket} of {self.buckets.count}, attempt {attempt}"


def coordinate_direct(
    agreement: Agreement, spec: MatchSpec, attempt: str
) -> Generator[Sequence[Outgoing], Sequence[Message], None]:
    """The coordinator's steps: a star of the brand and every partner, one pair after the other.

    Args:
        agreement: the contract.
        spec: the job.
        attempt: names this run of it (hex, 32 bytes), and no other.

    Yields:
        What to send next; resumed with the answers in the same order.
    """
    pairs = [learner_of(agreement, one.name) for one in agreement.by_role(Role.PARTNER)]
    answers = yield [  # 1
        Say(learner, spec.name, MatchRequest(spec=spec, peer=peer)) for learner, peer in pairs
    ]
    for kind in (MatchOffer, MatchAccept):  # 2, 3
        for message in answers:
            expect_encrypted(message, kind)
        answers = yield [Relay(message) for message in answers]
    ready = [expect(message, MatchReady) for message in answers]
    for (learner, peer), told in zip(pairs, ready, strict=True):
        for bucket in range(told.buckets):
            asked = {"spec": spec, "bucket": bucket, "attempt": attempt}
            answers = yield [  # 4
                Say(one, spec.name, MatchLink(peer=other, **asked))
                for one, other in ((learner, peer), (peer, learner))
            ]
            for message in answers:
                expect_encrypted(message, MatchOpen)
            answers = yield [Relay(message) for message in answers]  # 6
            for message in answers:
                expect(message, MatchLinked)
        (ended,) = yield [Say(learner, spec.name, MatchClose(spec=spec, peer=peer))]  # 8
        if ended.header.kind == "match.outcome":
            expect_encrypted(ended, MatchOutcome)
            (ended,) = yield [Relay(ended)]
        else:
            expect(ended, MatchDone)
            (ended,) = yield [Say(peer, spec.name, MatchClose(spec=spec, peer=learner))]
        expect(ended, MatchDone)
