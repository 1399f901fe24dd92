"""What a collaboration would do and cost, before anybody does anything.

Guarantees: computed from the file alone; no row is read, nothing is charged, nothing leaves.

Leaves to others: refusing in earnest (`gate`); drawing (`cli`).
"""

import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from compliance.agreement import Agreement
from compliance.errors import InvalidAgreementError
from compliance.terms import Role
from federation.clock import Clock, utc_now
from federation.collaboration import Collaboration, drafted_agreement
from federation.errors import RefusedError
from federation.jobs.align import AlignPlan, count_mechanism
from federation.jobs.train import training_plan
from federation.specification import AlignSpec, ExpandSpec, MatchSpec, TrainSpec
from privacy.accounting.accountant import epsilon_of
from privacy.accounting.events import Event
from privacy.errors import InvalidParameterError

__all__ = ["Plan", "PlannedJob", "plan"]


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PlannedJob(_Closed):
    """One job, planned.

    Attributes:
        job: its name.
        computation: what it does.
        who: parties at work.
        epsilon: privacy loss of this job per person; 0 where nothing is charged.
        epsilon_spent: spent after it.
        noise_multiplier: of every gradient step, if it trains.
        refused_by: the term that would refuse it, if any.
        remedy: the smallest change that would pass.
        note: what a reader should know.
    """

    job: str
    computation: str
    who: tuple[str, ...]
    epsilon: float
    epsilon_spent: float
    noise_multiplier: float | None = None
    refused_by: str | None = None
    remedy: str | None = None
    note: str = ""


class Plan(_Closed):
    """A whole collaboration, planned.

    Attributes:
        name: of the collaboration.
        jobs: in order.
        epsilon_cap: the agreement's ε per person.
        epsilon_left: after every job that would run.
        delta: at which all of it is accounted.
        max_parties_per_person: tables that one person may stand in, and is protected in.
    """

    name: str
    jobs: tuple[PlannedJob, ...]
    epsilon_cap: float
    epsilon_left: float
    delta: float
    max_parties_per_person: int

    @property
    def refused(self) -> Sequence[PlannedJob]:
        """Jobs that would be refused."""
        return [job for job in self.jobs if job.refused_by]


def plan(collaboration: Collaboration, *, clock: Clock = utc_now) -> Plan:
    """Plan every job of a checked collaboration, as if it were run now."""
    agreement = drafted_agreement(collaboration)
    planned = _in_force(collaboration, agreement)
    try:
        agreement.check_time(clock())
    except InvalidAgreementError as error:
        refused = {"refused_by": "valid_until", "remedy": str(error)}
        jobs = tuple(job.model_copy(update=refused) for job in planned.jobs)
        return planned.model_copy(update={"jobs": jobs})
    return planned


def _in_force(collaboration: Collaboration, agreement: Agreement) -> Plan:
    budget = agreement.budget
    partners = tuple(party.name for party in agreement.by_role(Role.PARTNER))
    brand = tuple(party.name for party in agreement.by_role(Role.BRAND))
    charged: list[Event] = []
    spent = 0.0
    jobs: list[PlannedJob] = []
    for spec in collaboration.jobs:
        common = {"job": spec.name, "computation": spec.kind}
        if isinstance(spec, TrainSpec):
            job, events = _train(spec, agreement, partners, charged, spent)
            if not job.refused_by:
                charged, spent = events, job.epsilon_spent
            jobs.append(job)
        elif isinstance(spec, AlignSpec):
            job, events = _align(spec, agreement, charged, spent)
            if not job.refused_by:
                charged, spent = events, job.epsilon_spent
            jobs.append(job)
        elif isinstance(spec, MatchSpec):
            note = (
                "not differentially private by its nature: partners learn who of their people are "
                f"seeds; below {agreement.match.minimum_match} nothing leaves"
            )
            who = (*brand, *partners)
            jobs.append(PlannedJob(**common, who=who, epsilon=0, epsilon_spent=spent, note=note))
        elif isinstance(spec, ExpandSpec):
            refused = any(job.job == spec.train and job.refused_by for job in jobs)
            jobs.append(
                PlannedJob(
                    **common,
                    who=partners,
                    epsilon=0,
                    epsilon_spent=spent,
                    refused_by="expand.train" if refused else None,
                    remedy=f"training {spec.train!r} would be refused: mend it"
                    if refused
                    else None,
                    note=f"scores stay at the partner; best {spec.share:.0%} of its people",
                )
            )
    return Plan(
        name=collaboration.name,
        jobs=tuple(jobs),
        epsilon_cap=budget.epsilon,
        epsilon_left=max(0.0, budget.epsilon - spent),
        delta=budget.delta,
        max_parties_per_person=agreement.train.max_parties_per_person,
    )


def _align(
    spec: AlignSpec, agreement: Agreement, charged: Sequence[Event], spent: float
) -> tuple[PlannedJob, list[Event]]:
    """Plan an alignment after what is charged already; return it and all that is charged then."""
    people = tuple(one.party for one in agreement.datasets)
    job = PlannedJob(
        job=spec.name,
        computation=spec.kind,
        who=people,
        epsilon=0,
        epsilon_spent=spent,
        note="all parties learn whom all of them know; the price is of what the coordinator counts",
    )
    try:
        plan = AlignPlan.of(spec, agreement, party=people[0])
    except RefusedError as error:
        return job.model_copy(update={"refused_by": error.term, "remedy": error.remedy}), []
    event, budget, delta = count_mechanism(plan.terms), agreement.budget, agreement.accounted_delta
    after = epsilon_of([*charged, event], delta)
    found: dict[str, object] = {"epsilon": epsilon_of([event], delta)}
    if after > budget.epsilon:
        found["refused_by"] = "budget.epsilon"
        found["remedy"] = f"agree on a budget of at least {math.ceil(100 * after) / 100:.2f}"
    else:
        found["epsilon_spent"] = after
    return job.model_copy(update=found), [*charged, event]


def _train(
    spec: TrainSpec,
    agreement: Agreement,
    partners: tuple[str, ...],
    charged: Sequence[Event],
    spent: float,
) -> tuple[PlannedJob, list[Event]]:
    """Plan a training after what is charged already; return it and all that is charged then."""
    budget, delta = agreement.budget, agreement.accounted_delta
    tables = agreement.train.max_parties_per_person
    job = PlannedJob(
        job=spec.name,
        computation=spec.kind,
        who=partners,
        epsilon=0,
        epsilon_spent=spent,
        note=f"holds for a person in up to {tables} partners' tables; {spec.rounds} round(s) of "
        f"{spec.steps_per_round} steps",
    )
    try:
        plan = training_plan(spec, agreement, expected_rows=1)
    except InvalidParameterError as error:
        return job.model_copy(update={"refused_by": "epsilon", "remedy": str(error)}), []
    rounds = [plan.charge] * spec.rounds
    after = epsilon_of([*charged, *rounds], delta)
    found: dict[str, object] = {
        "epsilon": epsilon_of(rounds, delta),
        "noise_multiplier": plan.parameters.noise_multiplier,
    }
    if after > budget.epsilon:
        found["refused_by"] = "budget.epsilon"
        found["remedy"] = (
            f"ask for less than the {spec.epsilon:g} asked for, or agree on a budget of at least "
            f"{math.ceil(100 * after) / 100:.2f}; {budget.epsilon - spent:.2f} is left"
        )
    else:
        found["epsilon_spent"] = after
    return job.model_copy(update=found), [*charged, *rounds]
