"""Train over parties' columns: the brand has labels, every party knows other things of the people.

```
coordinator                     brand                              every partner
1  assist.join   ─────────────────────────────────────────────►    2 reads its columns, makes a key
                 ◄─────────────────────────────────────────────      assist.joined
3  assist.keys   ─────────────────────────────────────────────►      … of all partners
4  assist.open   ──────────►    5 reads columns and labels, noises these once, and pays
                 ◄──────────      assist.noised, or assist.exact
   for every round, for every partner
6  assist.ask    ──────────►      assist.residuals  ──────────►    7 fits its learner, and masks
                                8 adds up           ◄──────────      assist.fitted
                 ◄──────────      assist.heard
   at the end, for every partner
9  assist.close  ──────────►      assist.settle     ──────────►   10 keeps its part
```

A scoring is steps 1 to 3, where partners answer the keys with their masked part of everybody's
score, `assist.scored`, which the brand adds up. Who answers step 1 is in it, and the keys of step 3
say so for good: all partners, or all but as many as may be absent. In the latter case it is of
people alone who were never trained on: the brand knows the sum of all from the training, and one
over fewer would tell by difference what the missing one gave (`training.one_set`).

What brand and partners say to each other is encrypted; the coordinator carries it and learns no
residual, value or score.

Guarantees: no I/O; everybody derives the same plan from job and agreement alone. One round is one
exchange with each partner: residuals out, masked fitted values back.

Leaves to others: learning (`privacy.training.assisted`, `learners`), masks (`privacy.secagg`),
rows and states (`training.aligned`, `training.assisting`).
"""

import hashlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Self

import numpy as np
import rfc8785
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from compliance.agreement import Agreement
from compliance.terms import Role
from federation.errors import MessageError
from federation.jobs.exchange import (
    Exchange,
    Say,
    Tolerant,
    carried,
    expect,
)
from federation.messages import (
    Acknowledged,
    AssistAsk,
    AssistClose,
    AssistExact,
    AssistFitted,
    AssistHeard,
    AssistJoin,
    AssistJoined,
    AssistKeys,
    AssistNoised,
    AssistOpen,
    AssistResiduals,
    AssistScored,
    AssistSettle,
    AssistStanding,
    Digest,
    Message,
    unseal_header,
)
from federation.specification import VerticalScoreSpec, VerticalTrainSpec
from privacy.randomness import Secret
from privacy.secagg import FixedPoint
from privacy.secagg.repeated import RepeatedSum
from privacy.training.assisted import AssistedPlan
from privacy.training.label_noise import flip_probability
from privacy.training.learners import Learner, Part

__all__ = [
    "HeldPart",
    "PartnerSum",
    "assisted_plan",
    "check_partners",
    "coordinate_columns",
    "coordinate_scoring",
    "coordinate_vertical",
    "joined_keys",
    "spare_scorers",
    "vertical_partners",
]

_FRACTION_BITS: Final = 16


class HeldPart(BaseModel):
    """A party's own part of a model that nobody holds as a whole.

    Attributes:
        agreement: digest of the agreement it was trained under.
        job: the training.
        align: the alignment of whom it was trained on.
        parties: whose parts there are, the brand first.
        rounds: exchanges with each partner.
        label_epsilon: privacy loss of a person's label; None where labels were used as they are.
        told: at a partner: digest of all that the brand told it, which masks its scores.
        intercept: added to every score, at the brand.
        part: what the party learnt.
        steps: at the brand: taken along each round's sum.
        losses: at the brand: mean loss before the first sum, and after each.
        findings: at the brand: what was wrong with which round's sum.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    agreement: str
    job: str
    align: str
    parties: tuple[str, ...]
    rounds: int
    label_epsilon: float | None
    told: Digest | None = None
    intercept: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    part: Annotated[Part, Field(discriminator="kind")]
    steps: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()
    findings: tuple[tuple[int, str], ...] = ()

    @property
    def content(self) -> bytes:
        """The part as it is kept."""
        return rfc8785.dumps(self.model_dump(mode="json"))

    @property
    def digest(self) -> str:
        """SHA-256 of `content` (hex)."""
        return hashlib.sha256(self.content).hexdigest()


def vertical_partners(agreement: Agreement) -> tuple[str, ...]:
    """Return the partners in the order of their names."""
    return tuple(sorted(party.name for party in agreement.by_role(Role.PARTNER)))


def spare_scorers(spec: VerticalTrainSpec | VerticalScoreSpec, agreement: Agreement) -> int:
    """Return how many partners a job can do without when it begins, so that two are left."""
    if not isinstance(spec, VerticalScoreSpec):
        return 0
    return max(0, min(spec.absent_partners, len(vertical_partners(agreement)) - 2))


def assisted_plan(spec: VerticalTrainSpec, agreement: Agreement) -> AssistedPlan:
    """Return how a job is trained, from what all know."""
    return AssistedPlan(
        partners=len(vertical_partners(agreement)),
        learner=Learner(spec.learner),
        rounds=spec.rounds,
        flip=flip_probability(spec.label_epsilon),
    )


@dataclass(frozen=True)
class PartnerSum:
    """How the partners' vectors of one job are written, masked and added up.

    Attributes:
        ring: how numbers are written.
        masks: what hides them.
    """

    ring: FixedPoint
    masks: RepeatedSum

    @classmethod
    def of(
        cls,
        spec: VerticalTrainSpec | VerticalScoreSpec,
        agreement: Agreement,
        partners: tuple[str, ...] = (),
    ) -> Self:
        """Derive it from what all know; of all partners, or those of a scoring."""
        partners = partners or vertical_partners(agreement)
        named = {
            "agreement": agreement.digest,
            "job": hashlib.sha256(rfc8785.dumps(spec.model_dump(mode="json"))).hexdigest(),
        }
        context = hashlib.sha256(rfc8785.dumps({**named})).hexdigest()
        ring = FixedPoint(ring_bits=32, parties=len(partners), fraction_bits=_FRACTION_BITS)
        return cls(ring, RepeatedSum(context, partners))

    def mask(
        self,
        name: str,
        secret: Secret,
        keys: Mapping[str, bytes],
        values: NDArray[np.float64],
        about: str,
    ) -> bytes:
        """Write and mask a partner's values; what passes the ring's bound is cut.

        Raises:
            PeerMessageError: the keys are not those of all partners.
        """
        bound = self.ring.bound
        vector = self.ring.encode(np.clip(values, -bound, bound))
        return self.masks.mask(name, secret, keys, vector, about).astype("<u4").tobytes()

    def total(self, payloads: Sequence[bytes], length: int) -> NDArray[np.float64]:
        """Add up masked vectors, one of every partner.

        Raises:
            MessageError: one has another length.
        """
        whole: NDArray[np.unsignedinteger[Any]] = np.zeros(length, dtype="<u4")
        for payload in payloads:
            if len(payload) != whole.nbytes:
                raise MessageError(
                    f"fitted values: got {len(payload)} bytes, expected {length} numbers of 4: the "
                    "parties' rows are not aligned"
                )
            whole += np.frombuffer(payload, dtype="<u4")
        return self.ring.decode(whole)


def joined_keys(
    payload: bytes, spec: VerticalTrainSpec | VerticalScoreSpec, agreement: Agreement
) -> Mapping[str, bytes]:
    """Read who takes part, each with the key that it signed.

    Args:
        payload: of an `assist.keys`.
        spec: the job.
        agreement: the partners; all of them take part, but for those that a scoring can do
            without.

    Raises:
        MessageError: an envelope is not what a partner said in this job, they stand in another
            order than that of names, or too many are missing.
    """
    partners, keys = vertical_partners(agreement), {}
    for envelope in payload.split(b"\n", len(partners)):
        header = unseal_header(envelope, agreement)
        if not isinstance(header.body, AssistJoined) or header.job != spec.name:
            raise MessageError(
                f"got {header.kind} of {header.sender} in job {header.job!r}; expected what a "
                f"partner said of its key in job {spec.name!r}"
            )
        keys[header.sender] = bytes.fromhex(header.body.key)
    check_partners(tuple(keys), spec, agreement)
    return keys


def check_partners(
    names: tuple[str, ...], spec: VerticalTrainSpec | VerticalScoreSpec, agreement: Agreement
) -> None:
    """Refuse a set of partners that a sum cannot be over.

    Raises:
        MessageError: too many are missing, or they stand in another order.
    """
    partners = vertical_partners(agreement)
    missing = len(partners) - len(names)
    if tuple(name for name in partners if name in names) != names or missing > spare_scorers(
        spec, agreement
    ):
        raise MessageError(
            f"partners {', '.join(names)}; expected {', '.join(partners)}, in that order, "
            f"{spare_scorers(spec, agreement)} missing at most"
        )


def coordinate_columns(
    agreement: Agreement, spec: VerticalTrainSpec | VerticalScoreSpec
) -> Generator[Exchange, Sequence[Message], None]:
    """Coordinate a job over parties' columns, whichever it is."""
    if isinstance(spec, VerticalScoreSpec):
        return coordinate_scoring(agreement, spec)
    return coordinate_vertical(agreement, spec)


def coordinate_vertical(
    agreement: Agreement, spec: VerticalTrainSpec
) -> Generator[Exchange, Sequence[Message], None]:
    """Steps 1, 3, 4, 6 and 9, at the coordinator.

    Yields:
        What to send next; resumed with the answers in the same order.
    """
    job, partners, brand = spec.name, vertical_partners(agreement), _brand(agreement)
    joined = yield [Say(name, job, AssistJoin(spec=spec)) for name in partners]  # 1
    keys = _keys(joined)
    answers = yield [Say(name, job, AssistKeys(spec=spec), keys) for name in partners]  # 3
    for one in answers:
        expect(one, Acknowledged)
    (opened,) = yield [Say(brand, job, AssistOpen(spec=spec))]  # 4
    expect(opened, AssistNoised if spec.label_epsilon is not None else AssistExact)
    places, standing, number = range(len(partners)), AssistStanding.MORE, 0
    while standing is AssistStanding.MORE:
        number += 1
        if number > spec.rounds:
            raise MessageError(f"{brand} wants round {number} of a job of {spec.rounds}")
        asks = [AssistAsk(spec=spec, round=number, place=place) for place in places]
        answers = yield [Say(brand, job, ask) for ask in asks]  # 6
        told = zip(answers, partners, strict=True)
        answers = yield [carried(one, AssistResiduals, to) for one, to in told]
        answers = yield [carried(one, AssistFitted, brand) for one in answers]
        standing = _standing(answers, number)
    answers = yield [Say(brand, job, AssistClose(spec=spec, place=place)) for place in places]  # 9
    told = zip(answers, partners, strict=True)
    answers = yield [carried(one, AssistSettle, to) for one, to in told]
    for one in answers:
        expect(one, Acknowledged)


def coordinate_scoring(
    agreement: Agreement, spec: VerticalScoreSpec
) -> Generator[Exchange, Sequence[Message], None]:
    """Score at the coordinator, with all partners who are there when it begins.

    Yields:
        What to send next; resumed with the answers in the same order.
    """
    job, partners, brand = spec.name, vertical_partners(agreement), _brand(agreement)
    asks = [Say(name, job, AssistJoin(spec=spec)) for name in partners]
    spare = spare_scorers(spec, agreement)
    joined = yield Tolerant(asks, spare) if spare else asks
    keys, there = _keys(joined), [one.header.sender for one in joined]
    answers = yield [Say(name, job, AssistKeys(spec=spec), keys) for name in there]
    answers = yield [carried(one, AssistScored, brand) for one in answers]
    for one in answers:
        expect(one, Acknowledged)


def _brand(agreement: Agreement) -> str:
    (brand,) = agreement.by_role(Role.BRAND)
    return brand.name


def _keys(joined: Sequence[Message]) -> bytes:
    for one in joined:
        expect(one, AssistJoined)
    return b"\n".join(one.sealed.envelope for one in joined)


def _standing(answers: Sequence[Message], number: int) -> AssistStanding:
    """Return what the brand wants after the last part of a sum, whichever that was."""
    heard = [expect(one, AssistHeard) for one in answers]
    ends = {one.standing for one in heard} - {AssistStanding.WAITING}
    if len(ends) != 1 or any(one.round != number for one in heard):
        raise MessageError(f"the brand did not say whether round {number} was the last")
    return ends.pop()
