"""Align: all data parties find the people whom every one of them knows, in one order for all.

```
coordinator                       every party of the ring
1  align.join    ──────────►      2  reads its people, binds itself to a set
   compares recipes  ◄──────         align.joined
3  align.bind    ──────────►      4  holds what all signed against its own, and pays for what
                                     will be counted
                     ◄──────         align.bound
5  align.invite  ─► the first     6  align.seed  ─────►  every other: acknowledged
   for every bucket
7  align.blind   ──────────►      8  blinds its own set
                                     align.pass  ─────►  9  the next multiplies, and passes it on
10 compares          ◄──────         align.tags  ◄─────     … the last cuts it to tags
   align.common  ──────────►     11  takes its people at those places
                     ◄──────         acknowledged; at the end align.done
```

The ring is the brand and the partners, in the agreement's order. What one party says to another is
encrypted; the coordinator, which holds no key and no seed, counts with noise.

Guarantees: no I/O; everybody derives the same plan from agreement and job alone; a party's state is
frozen and can be stored between two messages; of each set, one message counts for each bucket.

Leaves to others: the ring's arithmetic and what it tells (`privacy.psi.many_party`), keeping
secrets and people (`aligning`), sending (`gate`).
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from compliance.agreement import Agreement
from compliance.terms import AlignmentTerms, Role
from federation.errors import MessageError, RefusedError
from federation.jobs.exchange import (
    Outgoing,
    Say,
    carried,
    expect,
    rows_of,
)
from federation.messages import (
    Acknowledged,
    AlignBind,
    AlignBlind,
    AlignBound,
    AlignCommon,
    AlignDone,
    AlignInvite,
    AlignJoin,
    AlignJoined,
    AlignPass,
    AlignSeed,
    AlignSide,
    AlignTags,
    Message,
    unseal_header,
)
from federation.specification import AlignSpec
from privacy.accounting.events import DiscreteLaplaceEvent
from privacy.errors import PeerMessageError
from privacy.psi.blinding import TAG_BYTES, Tags
from privacy.psi.buckets import padded_count, plan_buckets
from privacy.psi.engine import CurveEngine, Points
from privacy.psi.field import ELEMENT_BYTES
from privacy.psi.many_party import Ring, common_places
from privacy.randomness import Secret, derive_secret

__all__ = ["AlignPlan", "AlignState", "coordinate_align", "count_mechanism", "joined_sides"]

_SENSITIVITY = 2  # who enters or leaves one party leaves one group's count for another's
_PLACE = np.dtype("<u4")
_UNBOUNDED = 1 << 62

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def count_mechanism(terms: AlignmentTerms) -> DiscreteLaplaceEvent:
    """Return the noise on every count of the coordinator's: ε per person, at whichever parties.

    A person of a party is all its rows that identifiers link, and comes or goes as a whole.
    """
    return DiscreteLaplaceEvent(scale=_SENSITIVITY / terms.epsilon, sensitivity=_SENSITIVITY)


class AlignState(BaseModel):
    """What a party remembers between two messages.

    Attributes:
        own: what it said of itself.
        sides: what all said of themselves, in the order of the ring; none before.
        heard: of the bucket under way: digest of the message that brought each party's set, in the
            order of the ring.
        ended: digests of the messages that ended a bucket, one each.
        last: whether the last of these ended the last bucket.
        below_minimum: whether all that is known of the outcome is that it was too small.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    own: AlignSide
    sides: tuple[AlignSide, ...] = ()
    heard: tuple[Digest | None, ...] = ()
    ended: tuple[Digest, ...] = ()
    last: bool = False
    below_minimum: bool = False

    def bind(self, sides: tuple[AlignSide, ...], place: int, parties: int) -> Self:
        """Take what all parties say of themselves.

        Args:
            sides: in the order of the ring.
            place: this party's own.
            parties: how many there are.

        Raises:
            MessageError: it is not of all of them, of another set of this party's, or differs from
                what was said before.
        """
        if len(sides) != parties or sides[place] != self.own:
            raise MessageError("the parties of an alignment are described otherwise than they are")
        if self.sides not in ((), sides):
            raise MessageError("the parties of an alignment were described otherwise before")
        heard = self.heard or (None,) * parties
        return self.model_copy(update={"sides": sides, "heard": heard})

    def hear(self, bucket: int, place: int, digest: str) -> Self:
        """Take the message that brings the set of the party at `place`, or its repetition.

        Raises:
            MessageError: another bucket is under way, or another message counts for that set.
        """
        if not self.sides:
            raise MessageError("points before the parties of the alignment were bound")
        if bucket != len(self.ended):
            raise MessageError(f"message for bucket {bucket}; expected {len(self.ended)}")
        if self.heard[place] not in (None, digest):
            raise MessageError(f"a second message for bucket {bucket}: the first one counts")
        return self._with(place, digest)

    def forget(self, place: int) -> Self:
        """Take back a message that broke the protocol: another may come."""
        return self._with(place, None)

    def end(self, bucket: int, digest: str, *, last: bool = False) -> Self:
        """Take the message that ends a bucket: the one under way, or one that is repeated.

        Args:
            bucket: its number.
            digest: of the message.
            last: whether it is the last one.

        Raises:
            MessageError: the bucket is another one, some set has not come round, or another
                message ended it.
        """
        if bucket < len(self.ended):
            if self.ended[bucket] != digest:
                raise MessageError(f"a second end of bucket {bucket}: the first one counts")
            return self
        if bucket > len(self.ended) or not self.heard or None in self.heard:
            raise MessageError(f"end of bucket {bucket} before all sets went round")
        none = (None,) * len(self.heard)
        return self.model_copy(update={"ended": (*self.ended, digest), "heard": none, "last": last})

    def fall_short(self) -> Self:
        """Keep of the outcome that it was below the agreed minimum, and no more."""
        return self.model_copy(update={"below_minimum": True})

    def _with(self, place: int, digest: str | None) -> Self:
        heard = (*self.heard[:place], digest, *self.heard[place + 1 :])
        return self.model_copy(update={"heard": heard})


@dataclass(frozen=True)
class AlignPlan:
    """How the parties of an agreement are aligned.

    Attributes:
        parties: the ring, in order.
        terms: the agreement's.
        points: points that stand for each party's set, before it is cut, in the ring's order.
        buckets: how many there are.
        ring: of every bucket.
    """

    parties: tuple[str, ...]
    terms: AlignmentTerms
    points: tuple[int, ...]
    buckets: int
    ring: Ring

    @classmethod
    def of(cls, spec: AlignSpec, agreement: Agreement, *, party: str) -> Self:
        """Plan from what all know: the declared rows and the job's limit of memory.

        Args:
            spec: the job.
            agreement: its terms.
            party: who plans, and refuses where it cannot.

        Raises:
            RefusedError: nothing is agreed, or dummies would fill half of the memory.
        """
        terms = agreement.match.alignment
        if terms is None:
            raise RefusedError(
                party=party,
                term="match.alignment",
                remedy="no alignment of all parties is agreed: agree on one",
            )
        names = tuple(
            one.name for role in (Role.BRAND, Role.PARTNER) for one in agreement.by_role(role)
        )
        noise = count_mechanism(terms), terms.delta
        dummies = Ring((_UNBOUNDED,) * len(names), *noise).most_dummies
        if 2 * dummies > spec.bucket_points:
            raise RefusedError(
                party=party,
                term="match.alignment.epsilon",
                remedy=f"noise takes up to {dummies} points of a bucket, more than half "
                f"of the {spec.bucket_points} that job {spec.name!r} has room for: give it more "
                "memory, or agree on a larger epsilon",
            )
        points = tuple(
            padded_count(agreement.dataset(name).declared_rows, agreement.match.set_size_bucket)
            for name in names
        )
        room = spec.bucket_points - dummies
        cuts = [plan_buckets(max(points), own, bucket_points=room) for own in points]
        ring = Ring(tuple(cut.sender_capacity + dummies for cut in cuts), *noise)
        return cls(names, terms, points, cuts[0].count, ring)

    def after(self, party: str) -> str:
        """Return the next party in the ring."""
        return self.parties[(self.parties.index(party) + 1) % len(self.parties)]

    def before(self, party: str) -> str:
        """Return the party before in the ring."""
        return self.parties[self.parties.index(party) - 1]

    def within(self, bucket: int, place: int = 0) -> None:
        """Refuse a bucket or a place in the ring that there is not.

        Raises:
            MessageError: there is no such one.
        """
        if bucket >= self.buckets or place >= len(self.parties):
            raise MessageError(f"bucket {bucket} of {self.buckets}, set {place}: there is no such")

    def secret(self, secret: Secret, digest: str, bucket: int) -> Secret:
        """Return a party's secret of one bucket: of its set, cut in this way, and no other.

        Args:
            secret: the party's, of this job.
            digest: of its set.
            bucket: its number.
        """
        return derive_secret(secret, f"align bucket {bucket} of {self.buckets}, set {digest}")

    def blind(
        self,
        party: str,
        bucket: int,
        tokens: NDArray[np.uint8],
        secret: Secret,
        seed: Secret,
        engine: CurveEngine,
    ) -> bytes:
        """Step 8: blind a party's own tokens of a bucket, shape (n, 33).

        Args:
            party: whose they are.
            bucket: its number.
            tokens: distinct.
            secret: the party's, of this bucket.
            seed: of common dummies, of this job.
            engine: the curve's arithmetic.
        """
        of_bucket = derive_secret(seed, f"align bucket {bucket} of {self.buckets}")
        place = self.parties.index(party)
        return self.ring.blind(tokens, place, secret, of_bucket, engine=engine).tobytes()

    def pass_on(
        self, payload: bytes, place: int, secret: Secret, engine: CurveEngine, *, last: bool
    ) -> bytes:
        """Step 9: multiply another party's points; at the last party, cut them to tags.

        Args:
            payload: the points.
            place: of the party whose they are.
            secret: of the party that multiplies, of this bucket.
            engine: the curve's arithmetic.
            last: whether that party is the last.

        Raises:
            MessageError: the payload has another length.
            PeerMessageError: its points break the protocol.
        """
        points: Points = rows_of(payload, self.ring.capacities[place], ELEMENT_BYTES)
        step = self.ring.tags if last else self.ring.pass_on
        return step(points, place, secret, engine=engine).tobytes()

    def compare(self, payloads: Sequence[bytes]) -> tuple[bytes, ...]:
        """Step 10: find what all sets hold; return the places for each party.

        Raises:
            MessageError: a payload has another length, or its tags break the protocol.
        """
        capacities = self.ring.capacities
        sets: list[Tags] = [
            rows_of(one, capacity, TAG_BYTES)
            for one, capacity in zip(payloads, capacities, strict=True)
        ]
        try:
            common = common_places(sets, capacities)
        except PeerMessageError as error:
            raise MessageError(str(error)) from error
        return tuple(row.astype(_PLACE).tobytes() for row in common)

    def matched(
        self, token_count: int, party: str, secret: Secret, payload: bytes
    ) -> NDArray[np.int64]:
        """Step 11: return which tokens stand at the common places, shape (m,), dummies left out.

        Args:
            token_count: how many tokens the party has in the bucket.
            party: whose they are.
            secret: the party's, of this bucket.
            payload: the places.

        Raises:
            MessageError: the payload has another length, or more places than there are.
            PeerMessageError: places repeat or are out of range.
        """
        place = self.parties.index(party)
        most = self.ring.capacities[place] * _PLACE.itemsize
        if len(payload) > most or len(payload) % _PLACE.itemsize:
            raise MessageError(
                f"places: got {len(payload)} bytes, expected a multiple of {_PLACE.itemsize}, up "
                f"to {most}"
            )
        common = np.frombuffer(payload, dtype=_PLACE).astype(np.int64)
        tokens = self.ring.matched(token_count, place, secret, common)
        return tokens[tokens >= 0]


def joined_sides(
    payload: bytes, spec: AlignSpec, agreement: Agreement, ring: Sequence[str]
) -> tuple[AlignSide, ...]:
    """Step 4: read what each party of the ring said of itself, as it signed that.

    Args:
        payload: the envelopes, a line each, in the order of the ring.
        spec: the job in which they were made.
        agreement: under which, and by whose keys.
        ring: the parties.

    Raises:
        MessageError: they are not one of each party, or somebody's is not its own, or of this job.
    """
    envelopes = payload.split(b"\n", len(ring))
    if len(envelopes) != len(ring):
        raise MessageError(
            f"got what {len(envelopes)} parties of the alignment signed; expected {len(ring)}"
        )
    sides = []
    for name, envelope in zip(ring, envelopes, strict=True):
        header = unseal_header(envelope, agreement)
        body = header.body
        if not isinstance(body, AlignJoined) or (header.sender, header.job) != (name, spec.name):
            raise MessageError(
                f"got {header.kind} of {header.sender} in job {header.job!r}; expected what {name} "
                f"said of itself in job {spec.name!r}"
            )
        sides.append(body.side)
    return tuple(sides)


def coordinate_align(
    agreement: Agreement, spec: AlignSpec
) -> Generator[Sequence[Outgoing], Sequence[Message], None]:
    """Steps 1, 3, 5, 7 and 10, at the coordinator.

    Yields:
        What to send next; resumed with the answers in the same order.
    """
    (coordinator,) = agreement.by_role(Role.COORDINATOR)
    plan = AlignPlan.of(spec, agreement, party=coordinator.name)
    ring, job = plan.parties, spec.name
    answers = yield [Say(name, job, AlignJoin(spec=spec)) for name in ring]  # 1
    sides = tuple(expect(one, AlignJoined).side for one in answers)
    _check_recipes(sides, ring, coordinator.name)
    joined = b"\n".join(one.sealed.envelope for one in answers)
    answers = yield [Say(name, job, AlignBind(spec=spec), joined) for name in ring]  # 3
    for one in answers:
        expect(one, AlignBound)
    others = range(1, len(ring))
    answers = yield [Say(ring[0], job, AlignInvite(spec=spec, place=at)) for at in others]  # 5
    seeds = zip(answers, ring[1:], strict=True)
    answers = yield [carried(one, AlignSeed, to) for one, to in seeds]
    for one in answers:
        expect(one, Acknowledged)
    for bucket in range(plan.buckets):
        answers = yield [Say(name, job, AlignBlind(spec=spec, bucket=bucket)) for name in ring]  # 7
        for hop in others:
            answers = yield [
                carried(one, AlignPass, ring[(place + hop) % len(ring)])
                for place, one in enumerate(answers)
            ]
        tags = [_tags(one, bucket, place) for place, one in enumerate(answers)]
        common = zip(ring, plan.compare(tags), strict=True)  # 10
        said = AlignCommon(spec=spec, bucket=bucket)
        answers = yield [Say(name, job, said, places) for name, places in common]
        for one in answers:
            expect(one, Acknowledged if bucket + 1 < plan.buckets else AlignDone)


def _check_recipes(sides: Sequence[AlignSide], ring: Sequence[str], coordinator: str) -> None:
    other = [name for name, side in zip(ring, sides, strict=True) if side.recipe != sides[0].recipe]
    if other:
        raise RefusedError(
            party=coordinator,
            term="match.recipe",
            remedy=f"{', '.join(other)} normalises identifiers otherwise than {ring[0]}: install "
            "the same versions of phonenumbers and email-validator at all, and run the job under "
            "another name",
        )


def _tags(message: Message, bucket: int, place: int) -> bytes:
    body = expect(message, AlignTags)
    if (body.bucket, body.place) != (bucket, place):
        raise MessageError(
            f"{message.header.sender} sent bucket {body.bucket} of set {body.place}; expected "
            f"bucket {bucket} of set {place}"
        )
    return message.payload
