"""Measure: how many members, and how many others, each partner has in cells of agreed columns.

```
coordinator                     partner                                           brand
1  measure.request  ──►  2 count by cell, add noise, withhold what is small
3  collect          ◄──    measure.counts: charged
4  measure.published  ────────────────────────────────────►  5 keep the measurement
```

Noise is added at each partner, in full. A person may stand in the tables of several partners; each
partner's charge is therefore that of `max_parties_per_person` such counts together, and ε holds for
the person. Members and others are told apart, so that a person is in one count of a partner: who is
eligible is the sum of both.

Guarantees: no I/O; cells, noise and price are derived here from the job and the agreement, never
taken from a message.

Leaves to others: counting and noise (`privacy.measurement`), rows (`population`).
"""

import hashlib
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
import rfc8785
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from compliance.agreement import Agreement
from compliance.canonical import is_unsaid
from compliance.terms import CountNoise, MeasureTerms, Role
from federation.errors import MessageError, RefusedError
from federation.jobs.exchange import Exchange, Say, expect
from federation.jobs.quorum import Quorum, is_quorum
from federation.messages import (
    Acknowledged,
    MeasureCounts,
    MeasurePublished,
    MeasureRequest,
    Message,
)
from federation.specification import MeasureSpec
from privacy.accounting.events import DiscreteLaplaceEvent, Event, RepeatedEvent
from privacy.measurement import (
    Bins,
    Categories,
    Cells,
    CountMechanism,
    count_mechanism,
    noised_counts,
)
from privacy.randomness import Secret, SecretStream

__all__ = [
    "CountPlan",
    "CountedParty",
    "Measurement",
    "coordinate_measure",
    "count_people",
    "measure_charge",
    "read_measurement",
]

WITHHELD = -1
"""What stands on the wire for a count below the agreed minimum."""

Told = Annotated[int, Field(ge=1, le=1 << 40)] | None
"""A count with noise; None where it is below the agreed minimum."""


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CountedParty(_Closed):
    """What a partner told.

    Attributes:
        party: its name.
        members: of the match, a count for each cell.
        others: eligible people who are no members, likewise.
    """

    party: str
    members: tuple[Told, ...]
    others: tuple[Told, ...]


class Measurement(_Closed):
    """Counts of people by cell, with noise.

    Attributes:
        agreement: digest of the agreement under which they were counted.
        job: the job.
        match: whose members were counted.
        columns: by which the cells are made.
        cells: what each cell holds of each column.
        noise: what blurs each count.
        spread: scale of discrete Laplace noise, or σ of discrete Gaussian noise.
        minimum_cell: counts below this are withheld.
        epsilon: privacy loss per person, over all partners.
        delta: its failure probability; None for pure ε.
        parties: what each partner told.
        missing: partners whose people are in no count.
    """

    version: Literal[1] = 1
    agreement: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    job: str
    match: str
    columns: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    noise: CountNoise
    spread: Annotated[float, Field(allow_inf_nan=False)]
    minimum_cell: int
    epsilon: float
    delta: float | None
    parties: tuple[CountedParty, ...]
    missing: tuple[str, ...] = Field(default=(), exclude_if=is_unsaid)

    @property
    def canonical_bytes(self) -> bytes:
        """The measurement as canonical JSON (RFC 8785)."""
        return rfc8785.dumps(self.model_dump(mode="json"))

    @property
    def standard_deviation(self) -> float:
        """Of the noise on each count."""
        if self.noise is CountNoise.DISCRETE_GAUSSIAN:
            return self.spread
        return 1.0 / (math.sqrt(2.0) * math.sinh(0.5 / self.spread))  # √(2q) / (1-q), q = e^(-1/s)

    @property
    def withheld(self) -> int:
        """Counts that are below the agreed minimum, of all partners."""
        return sum(count is None for one in self.parties for count in (*one.members, *one.others))

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical bytes, in hex."""
        return hashlib.sha256(self.canonical_bytes).hexdigest()


@dataclass(frozen=True)
class CountPlan:
    """What is counted in a job, and with which noise: the same at all, from what all know.

    Attributes:
        terms: of counting.
        cells: that are counted.
        mechanism: the noise on each count.
        charge: privacy loss of one partner's counts, for a person in as many partners' tables as
            agreed.
    """

    terms: MeasureTerms
    cells: Cells
    mechanism: CountMechanism
    charge: Event

    @classmethod
    def of(cls, spec: MeasureSpec, agreement: Agreement) -> Self:
        """Derive the plan from a job that keeps within the agreement.

        Raises:
            InvalidParameterError: no noise keeps the promise.
        """
        terms = _agreed(spec, agreement)
        features = {term.name: term for term in agreement.features}
        edges = {column.name: column.edges for column in terms.columns}
        mechanism, charge = measure_charge(spec, agreement)
        cells = Cells(
            tuple(
                Bins(name, tuple(map(float, edges[name])))
                if edges[name]
                else Categories(name, features[name].categories)
                for name in spec.columns
            )
        )
        return cls(terms, cells, mechanism, charge)

    @property
    def spread(self) -> float:
        """Scale of Laplace noise, or σ of Gaussian noise."""
        if isinstance(self.mechanism, DiscreteLaplaceEvent):
            return self.mechanism.scale
        return self.mechanism.noise_multiplier


def measure_charge(spec: MeasureSpec, agreement: Agreement) -> tuple[CountMechanism, Event]:
    """Return the noise on each count of a job, and what one partner's counts cost.

    Raises:
        InvalidParameterError: no noise keeps the promise.
    """
    tables = agreement.train.max_parties_per_person
    mechanism = count_mechanism(spec.epsilon, spec.delta, tables=tables)
    return mechanism, RepeatedEvent(event=mechanism, count=tables)


def count_people(
    plan: CountPlan,
    features: Mapping[str, NDArray[Any]],
    members: NDArray[np.bool_],
    secret: Secret,
) -> bytes:
    """Step 2: count members and others by cell; return what is told, members first.

    Args:
        plan: of the job.
        features: arrays of shape (n,), by the name of each agreed feature.
        members: whom the match found, shape (n,).
        secret: fresh, for this answer alone.
    """
    counts = noised_counts(
        plan.cells.of(features),
        (members, ~members),
        plan.cells.count,
        plan.mechanism,
        SecretStream(secret, "measure"),
    )
    told = np.where(counts < plan.terms.minimum_cell, WITHHELD, counts)
    return told.astype("<i8").tobytes()


def coordinate_measure(
    agreement: Agreement, spec: MeasureSpec
) -> Generator[Exchange, Sequence[Message], Measurement]:
    """Steps 1, 3 and 4, at the coordinator.

    Yields:
        What to send next; resumed with the answers that came, in the same order.
    """
    plan, quorum = CountPlan.of(spec, agreement), Quorum(spec, agreement)
    answers = yield quorum.say(MeasureRequest(spec=spec))  # 1
    quorum.hear(answers)
    parties = tuple(_counted(answer, plan) for answer in answers)  # 3
    measurement = _agreed_measurement(agreement, spec, plan, parties, quorum.missing)
    (brand,) = agreement.by_role(Role.BRAND)
    published = MeasurePublished(spec=spec)
    kept = yield [Say(brand.name, spec.name, published, measurement.canonical_bytes)]  # 4
    for answer in kept:
        expect(answer, Acknowledged)
    return measurement


def read_measurement(message: Message, agreement: Agreement) -> Measurement:
    """Step 5: read a published measurement, and hold it against its job and the agreement.

    Raises:
        MessageError: it is malformed, or says anything else than they do.
    """
    spec = expect(message, MeasurePublished).spec
    try:
        found = Measurement.model_validate_json(message.payload)
    except ValidationError as error:
        raise MessageError(f"measurement with {error.error_count()} mistakes") from error
    plan = CountPlan.of(spec, agreement)
    whole = all(
        len(counts) == plan.cells.count
        and all(one is None or one >= plan.terms.minimum_cell for one in counts)
        for party in found.parties
        for counts in (party.members, party.others)
    )
    if (
        found != _agreed_measurement(agreement, spec, plan, found.parties, found.missing)
        or not is_quorum([one.party for one in found.parties], found.missing, spec, agreement)
        or not whole
    ):
        raise MessageError("measurement of another job, agreement, partners or cells than asked")
    return found


def _agreed_measurement(
    agreement: Agreement,
    spec: MeasureSpec,
    plan: CountPlan,
    parties: tuple[CountedParty, ...],
    missing: tuple[str, ...],
) -> Measurement:
    """Say of counts what their job and the agreement say."""
    return Measurement(
        agreement=agreement.digest,
        job=spec.name,
        match=spec.match,
        columns=spec.columns,
        cells=plan.cells.labels,
        noise=spec.noise,
        spread=plan.spread,
        minimum_cell=plan.terms.minimum_cell,
        epsilon=spec.epsilon,
        delta=spec.delta,
        parties=parties,
        missing=missing,
    )


def _counted(answer: Message, plan: CountPlan) -> CountedParty:
    """Read what a partner told."""
    expect(answer, MeasureCounts)
    sender, expected = answer.header.sender, 2 * plan.cells.count * 8
    if len(answer.payload) != expected:
        raise MessageError(f"{sender}: got {len(answer.payload)} bytes, expected {expected}")
    counts = np.frombuffer(answer.payload, dtype="<i8")
    if np.any((counts < plan.terms.minimum_cell) & (counts != WITHHELD)):
        raise MessageError(f"{sender} told a count below {plan.terms.minimum_cell}")
    told = [None if one == WITHHELD else one for one in counts.tolist()]
    try:
        return CountedParty(
            party=sender,
            members=tuple(told[: plan.cells.count]),
            others=tuple(told[plan.cells.count :]),
        )
    except ValidationError as error:
        raise MessageError(f"{sender} told a count beyond any") from error


def _agreed(spec: MeasureSpec, agreement: Agreement) -> MeasureTerms:
    if agreement.measure is None:
        (coordinator,) = agreement.by_role(Role.COORDINATOR)
        remedy = f"job {spec.name!r}: nothing may be counted: agree on terms of measuring"
        raise RefusedError(party=coordinator.name, term="measure.columns", remedy=remedy)
    return agreement.measure
