"""What a collaboration would do and cost, before anybody does anything.

Guarantees: computed from the file alone; no row is read, nothing is charged, nothing leaves. Every
party's ledger is followed by itself; what is told of a job is told of the party that it leaves
with the least. What is called the largest or smallest that would pass was searched for.

Leaves to others: prices and forecasts (`privacy.accounting.price`), refusing in earnest (`gate`),
drawing (`cli`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pydantic import BaseModel, ConfigDict

from compliance.agreement import Agreement
from compliance.errors import InvalidAgreementError
from compliance.terms import ModelFamily, NoiseSource, Reveal, Role
from federation.budgets import budget_of
from federation.clock import Clock, utc_now
from federation.collaboration import Collaboration, drafted_agreement
from federation.errors import RefusedError
from federation.hidden_share import PlannedShare
from federation.jobs.align import AlignPlan, count_mechanism
from federation.jobs.expand import CountPlan
from federation.jobs.hidden import HiddenPlan
from federation.jobs.match import learner_of, size_mechanism
from federation.jobs.measure import measure_charge
from federation.jobs.message_room import message_note
from federation.jobs.sums import Sums, sums_for, whole_charge
from federation.jobs.train import training_plan
from federation.objections import policy_objections
from federation.population import encoder_for
from federation.progress import Progress, report
from federation.specification import (
    AlignSpec,
    ExpandSpec,
    JobSpec,
    MatchSpec,
    MeasureSpec,
    TrainSpec,
    VerticalScoreSpec,
    VerticalTrainSpec,
)
from privacy.accounting.accountant import epsilon_of
from privacy.accounting.events import Event, RepeatedEvent, SampledGaussianEvent
from privacy.accounting.ledger import Budget
from privacy.accounting.price import (
    LOGISTIC_REGRESSION,
    NETWORK,
    RIDGE_REGRESSION,
    Curve,
    ForestShape,
    PriceTag,
    Shape,
    TrainingShape,
    forecast,
    largest_within,
    price_tag,
    smallest_within,
)
from privacy.errors import InvalidParameterError
from privacy.training.label_noise import LARGEST_EPSILON, label_charge
from privacy.training.random_boosting import TREES

__all__ = ["MinimumSize", "Plan", "PlannedJob", "PlannedPeriod", "TrainingForecast", "plan"]

REFERENCE_AUC: Final = 0.8
"""What a model is taken to reach without noise, where nobody says otherwise."""

_CURVES: Final[Mapping[ModelFamily, Curve]] = {
    ModelFamily.LOGISTIC_REGRESSION: LOGISTIC_REGRESSION,
    ModelFamily.RIDGE_REGRESSION: RIDGE_REGRESSION,
    ModelFamily.NETWORK: NETWORK,
}
"""Of families whose gradients have noise; that of trees belongs to their shape."""

_HEAVY_LOSS: Final = 0.25  # of what a model has above guessing; past it a plan warns

Charges = Mapping[str, tuple[Event, ...]]
"""What a job charges each party's ledger."""


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MinimumSize(_Closed):
    """A size below which nothing leaves.

    Attributes:
        term: of the agreement.
        people: that it takes.
    """

    term: str
    people: int


class TrainingForecast(_Closed):
    """What the noise of a training is likely to do to the model; no bound.

    Attributes:
        family: of the model; forecasts of two families cannot be compared.
        rows: declared by all partners together.
        positives: of them, as asked with or assumed.
        assumed: whether `positives` was assumed: every declared row of the brand a customer of one
            partner.
        columns: of an encoded row.
        signal_to_noise: of the gradient over the whole training, by the measure of its family.
        lost: expected share of the AUC above 0.5, in (0, 1).
        auc: what a model is taken to reach without noise.
        auc_loss: what it is expected to lose of that.
        auc_loss_least: most measured trainings lost between this …
        auc_loss_most: … and this; how many of them is told in docs/privacy-budget.md.
        warning: set where the noise is likely to take a quarter or more.
    """

    family: ModelFamily
    rows: int
    positives: int
    assumed: bool
    columns: int
    signal_to_noise: float
    lost: float
    auc: float
    auc_loss: float
    auc_loss_least: float
    auc_loss_most: float
    warning: str | None = None


class PlannedJob(_Closed):
    """One job, planned.

    Attributes:
        job: its name.
        computation: what it does.
        who: parties at work.
        epsilon: privacy loss of this job per person; 0 where nothing is charged.
        epsilon_spent: spent after it.
        epsilon_left: left of the budget after it.
        repeats: further such jobs that would fit after it, at most 1,000; None where nothing is
            charged.
        noise_multiplier: of every gradient step or sum, if it trains with noise.
        minimums: sizes that must hold while it runs.
        forecast: of what the noise does to the model, if it trains so.
        hidden_share: what to expect of it, if the job counts hidden positives.
        refused_by: the term that would refuse it, if any.
        remedy: the smallest change that would pass.
        note: what a reader should know.
    """

    job: str
    computation: str
    who: tuple[str, ...]
    epsilon: float
    epsilon_spent: float
    epsilon_left: float
    repeats: int | None = None
    noise_multiplier: float | None = None
    minimums: tuple[MinimumSize, ...] = ()
    forecast: TrainingForecast | None = None
    hidden_share: PlannedShare | None = None
    refused_by: str | None = None
    remedy: str | None = None
    note: str = ""


class PlannedPeriod(_Closed):
    """What is lost within the agreed period, if all jobs run within it.

    Attributes:
        days: of the period.
        epsilon_cap: the agreement's ε per person and period.
        delta: at which it is agreed.
        epsilon_spent: by every job that would run.
        epsilon_left: after every job that would run.
    """

    days: int
    epsilon_cap: float
    delta: float
    epsilon_spent: float
    epsilon_left: float


class Plan(_Closed):
    """A whole collaboration, planned.

    Attributes:
        name: of the collaboration.
        jobs: in order.
        epsilon_cap: the agreement's ε per person.
        epsilon_for_all: smallest budget that all jobs fit one after the other, those included that
            the agreed one has no room for; in hundredths.
        epsilon_spent: by every job that would run.
        epsilon_left: after every job that would run.
        delta: at which all of it is accounted.
        max_parties_per_person: tables that one person may stand in, and is protected in; None where
            no job trains or measures over rows.
        period: the period that all of them run in, as if they ran now; None where none is agreed.
    """

    name: str
    jobs: tuple[PlannedJob, ...]
    epsilon_cap: float
    epsilon_for_all: float
    epsilon_spent: float
    epsilon_left: float
    delta: float
    max_parties_per_person: int | None
    period: PlannedPeriod | None = None

    @property
    def refused(self) -> Sequence[PlannedJob]:
        """Jobs that would be refused."""
        return [job for job in self.jobs if job.refused_by]


def plan(
    collaboration: Collaboration,
    *,
    positives: int | None = None,
    auc: float = REFERENCE_AUC,
    clock: Clock = utc_now,
) -> Plan:
    """Plan every job of a checked collaboration, as if it were run now.

    Args:
        collaboration: the file, read.
        positives: members whom the partners' tables hold together, if somebody knows; assumed
            where left out.
        auc: what a model is taken to reach without noise, in (0.5, 1).
        clock: tells when now is.

    Raises:
        InvalidParameterError: if `positives` is below 1 or not below the partners' declared rows,
            or `auc` is out of range.
    """
    agreement = drafted_agreement(collaboration)
    planner = _Planner(agreement, positives, auc)
    jobs = tuple(_priced(planner, spec) for spec in collaboration.jobs)
    try:
        agreement.check_time(clock())
    except InvalidAgreementError as error:
        refused = {"refused_by": "valid_until", "remedy": str(error)}
        jobs = tuple(job.model_copy(update=refused) for job in jobs)
    tag = planner.price({})
    over_rows = any(isinstance(job, TrainSpec | MeasureSpec) for job in collaboration.jobs)
    return Plan(
        name=collaboration.name,
        jobs=jobs,
        epsilon_cap=agreement.budget.epsilon,
        epsilon_for_all=planner.smallest_budget_for_all,
        epsilon_spent=tag.epsilon_spent,
        epsilon_left=tag.epsilon_left,
        delta=agreement.budget.delta,
        max_parties_per_person=agreement.train.max_parties_per_person if over_rows else None,
        period=planner.period,
    )


def _priced(planner: "_Planner", spec: JobSpec) -> PlannedJob:
    report(Progress("plan", spec.name, "is priced"))
    return planner.add(spec)


@dataclass(frozen=True)
class _Draft:
    """A job before it is priced.

    Attributes:
        who: parties at work.
        note: what a reader should know.
        charges: by party.
        minimums: sizes that must hold.
        refusal: (term, remedy) where it would be refused whatever the budget.
        epsilon_term: what to ask less of, where the budget refuses.
        asked: ε that is asked for under that term.
        charges_at: charges if another ε were asked for.
    """

    who: tuple[str, ...]
    note: str
    charges: Charges = field(default_factory=dict)
    minimums: tuple[MinimumSize, ...] = ()
    refusal: tuple[str, str] | None = None
    epsilon_term: str = ""
    asked: float = 0.0
    charges_at: Callable[[float], Charges] | None = None
    noise_multiplier: float | None = None
    forecast: TrainingForecast | None = None
    hidden_share: PlannedShare | None = None


class _Planner:
    """Follows every party's ledger from job to job."""

    def __init__(self, agreement: Agreement, positives: int | None, auc: float) -> None:
        self._agreement = agreement
        self._auc = auc
        self._positives = positives
        self._budget = budget_of(agreement)
        period = self._budget.period
        self._stretch = None if period is None else Budget(period.epsilon, period.delta)
        self._partners = tuple(party.name for party in agreement.by_role(Role.PARTNER))
        (self._brand,) = (party.name for party in agreement.by_role(Role.BRAND))
        self._charged: Charges = dict.fromkeys((self._brand, *self._partners), ())
        self._asked: Charges = self._charged
        self._refused: set[str] = set()
        self._matched = 0  # by every two parties, as every match and alignment is of all

    @property
    def smallest_budget_for_all(self) -> float:
        """Budget that all jobs fit, whether they fit the agreed one or not, in hundredths."""
        return max(
            price_tag(spent, (), self._budget).smallest_budget for spent in self._asked.values()
        )

    @property
    def period(self) -> PlannedPeriod | None:
        """The agreed period, after every job so far that would run."""
        terms = self._agreement.budget.period
        if terms is None or self._stretch is None:
            return None
        tag = self.price({}, self._stretch)
        return PlannedPeriod(
            days=terms.days,
            epsilon_cap=terms.epsilon,
            delta=terms.delta,
            epsilon_spent=tag.epsilon_spent,
            epsilon_left=tag.epsilon_left,
        )

    def add(self, spec: JobSpec) -> PlannedJob:
        """Plan a job after those before it, and charge it if it would run."""
        draft = self._draft(spec)
        self._asked = _added(self._asked, draft.charges)
        tag = self.price(draft.charges)
        refusal = draft.refusal
        matches = isinstance(spec, MatchSpec | AlignSpec)
        if refusal is None and matches:
            refusal = self._too_many_matches()
        if refusal is None and not tag.fits:
            refusal = "budget.epsilon", self._remedy(draft, tag, self._budget)
        repeats = tag.repeats
        if self._stretch is not None:
            within = self.price(draft.charges, self._stretch)
            if refusal is None and not within.fits:
                refusal = "budget.period.epsilon", self._remedy(draft, within, self._stretch)
            if repeats is not None and within.repeats is not None:
                repeats = min(repeats, within.repeats)
        if matches and not refusal:
            self._matched += 1
        if matches and repeats is not None:
            repeats = min(repeats, self._agreement.match.maximum_matches - self._matched)
        after = self.price({}) if refusal else tag
        note = draft.note if refusal else draft.note + self._beside(spec)
        if refusal:
            self._refused.add(spec.name)
        else:
            self._charged = self._with(draft.charges)
        return PlannedJob(
            job=spec.name,
            computation=spec.kind,
            who=draft.who,
            epsilon=tag.epsilon,
            epsilon_spent=after.epsilon_spent,
            epsilon_left=after.epsilon_left,
            repeats=repeats,
            noise_multiplier=draft.noise_multiplier,
            minimums=draft.minimums,
            forecast=draft.forecast,
            hidden_share=draft.hidden_share,
            refused_by=refusal[0] if refusal else None,
            remedy=refusal[1] if refusal else None,
            note=note,
        )

    def _beside(self, spec: JobSpec) -> str:
        """Say what else a reader should know of a job that is not refused."""
        note = message_note(spec, self._agreement)
        if absent := getattr(spec, "absent_partners", 0):
            note += f"; goes on without {absent} of its {len(self._partners)} partners"
        return note

    def _too_many_matches(self) -> tuple[str, str] | None:
        """Refuse one match more than agreed, as all jobs are planned to run now."""
        terms = self._agreement.match
        if self._matched < terms.maximum_matches:
            return None
        remedy = (
            f"{self._matched} matches come before it, as many as agreed in {terms.period_days} "
            "days: agree on more, or run fewer match and align jobs"
        )
        return "match.maximum_matches", remedy

    def price(self, charges: Charges, budget: Budget | None = None) -> PriceTag:
        """Price a job at the party that it leaves with the least, by the budget over everything."""
        tags = [
            price_tag(spent, charges.get(party, ()), budget or self._budget)
            for party, spent in self._charged.items()
        ]
        repeats = [tag.repeats for tag in tags if tag.repeats is not None]
        return PriceTag(
            epsilon=max(tag.epsilon for tag in tags),
            epsilon_spent=max(tag.epsilon_spent for tag in tags),
            epsilon_left=min(tag.epsilon_left for tag in tags),
            fits=all(tag.fits for tag in tags),
            smallest_budget=max(tag.smallest_budget for tag in tags),
            repeats=min(repeats) if repeats else None,
        )

    def _after(self, charges: Charges, budget: Budget) -> float:
        """Return what would be spent at the party that spends most."""
        ledgers = set(self._with(charges).values())
        return max(epsilon_of(events, budget.delta) for events in ledgers)

    def _with(self, charges: Charges) -> Charges:
        return _added(self._charged, charges)

    def _remedy(self, draft: _Draft, tag: PriceTag, limit: Budget) -> str:
        """Say what would just pass."""
        budget = f"agree on a budget of at least {tag.smallest_budget:.2f}"
        left = f"{self.price({}, limit).epsilon_left:.2f} is left"
        if limit is not self._budget and (terms := self._agreement.budget.period) is not None:
            budget = (
                f"run it {terms.days} days after those before it, or agree on at least "
                f"{tag.smallest_budget:.2f} for them"
            )
            left = f"{left} of these {terms.days} days"
        if draft.charges_at is None:
            return f"{budget}; {left}"
        at = draft.charges_at
        best = largest_within(
            lambda epsilon: self._after(at(epsilon), limit),
            spent=self._after({}, limit),
            cap=limit.epsilon,
            asked=draft.asked,
        )
        if best is None:
            return f"{budget}; {left}, too little for any such job"
        return f"ask for {draft.epsilon_term} of at most {best:g}, or {budget}; {left}"

    def _draft(self, spec: JobSpec) -> _Draft:
        match spec:
            case MatchSpec():
                return self._match()
            case AlignSpec():
                return self._align(spec)
            case TrainSpec():
                return self._train(spec)
            case ExpandSpec():
                return self._expand(spec)
            case MeasureSpec():
                return self._measure(spec)
            case VerticalTrainSpec() | VerticalScoreSpec():
                return self._vertical(spec)

    def _match(self) -> _Draft:
        terms = self._agreement.match
        notes = {
            Reveal.PARTNER_LEARNS_MEMBERS: "partners learn who of their people are seeds",
            Reveal.BRAND_LEARNS_MEMBERS: "the brand learns whom each partner knows",
            Reveal.BOTH_LEARN_MEMBERS: "both sides learn who matched",
        }
        note = "nobody learns who matched; sizes leave with noise"
        if terms.reveal in notes:
            note = f"not differentially private by its nature: {notes[terms.reveal]}"

        def charges_at(epsilon: float | None) -> Charges:
            mechanism = size_mechanism(terms.model_copy(update={"size_epsilon": epsilon}))
            if mechanism is None or terms.reveal is Reveal.BOTH_LEARN_MEMBERS:
                return {}
            charges: dict[str, tuple[Event, ...]] = {}
            for partner in self._partners:
                learner, peer = learner_of(self._agreement, partner)
                tellers = (learner, peer) if terms.reveal is Reveal.SIZE_ONLY else (learner,)
                for party in tellers:
                    charges[party] = (*charges.get(party, ()), mechanism)
            return charges

        return _Draft(
            who=(self._brand, *self._partners),
            note=f"{note}; below {terms.minimum_match} nothing leaves",
            charges=charges_at(terms.size_epsilon),
            minimums=(self._minimum_match,),
            refusal=self._too_few(self._minimum_match),
            epsilon_term="match.size_epsilon",
            asked=terms.size_epsilon or 0.0,
            charges_at=charges_at,
        )

    def _align(self, spec: AlignSpec) -> _Draft:
        people = tuple(one.party for one in self._agreement.datasets)
        note = (
            "all parties learn whom all of them know; the price is of what the coordinator counts"
        )
        try:
            terms = AlignPlan.of(spec, self._agreement, party=people[0]).terms
        except RefusedError as error:
            return _Draft(who=people, note=note, refusal=(error.term, error.remedy))

        def charges_at(epsilon: float) -> Charges:
            event = count_mechanism(terms.model_copy(update={"epsilon": epsilon}))
            return dict.fromkeys(people, (event,))

        return _Draft(
            who=people,
            note=note,
            charges=charges_at(terms.epsilon),
            minimums=(self._minimum_match,),
            refusal=self._too_few(self._minimum_match),
            epsilon_term="match.alignment.epsilon",
            asked=terms.epsilon,
            charges_at=charges_at,
        )

    def _vertical(self, spec: VerticalTrainSpec | VerticalScoreSpec) -> _Draft:
        people = (self._brand, *self._partners)
        refusal = next(iter(policy_objections(spec, self._agreement)), None)
        if spec.align in self._refused:
            refusal = "vertical.align", f"alignment {spec.align!r} would be refused: mend it"
        terms = self._agreement.vertical
        minimums = (
            (MinimumSize(term="vertical.minimum_people", people=terms.minimum_people),)
            if terms is not None
            else ()
        )
        if isinstance(spec, VerticalScoreSpec):
            if spec.train in self._refused:
                refusal = "vertical.columns", f"training {spec.train!r} would be refused: mend it"
            note = "the brand learns each person's score, the sum over all parties' columns"
            return _Draft(who=people, note=note, minimums=minimums, refusal=refusal)
        if spec.label_epsilon is None:
            note = "NOT PRIVATE: partners learn every label"
            return _Draft(who=people, note=note, minimums=minimums, refusal=refusal)

        def charges_at(epsilon: float) -> Charges:
            return {self._brand: (label_charge(min(epsilon, LARGEST_EPSILON)),)}

        return _Draft(
            who=people,
            note=(
                "the price is of a person's label alone; what columns tell is not noised; no "
                "forecast for training over columns was measured"
            ),
            charges=charges_at(spec.label_epsilon) if refusal is None else {},
            minimums=minimums,
            refusal=refusal,
            epsilon_term="vertical.label_epsilon",
            asked=spec.label_epsilon,
            charges_at=charges_at,
        )

    def _train(self, spec: TrainSpec) -> _Draft:
        refusal = next(iter(policy_objections(spec, self._agreement)), None)
        if not self._agreement.features:
            return _Draft(who=self._partners, note=self._train_note(spec), refusal=refusal)
        if spec.match in self._refused:
            refusal = "train.match", f"match {spec.match!r} would be refused: mend it"
        asked, note = spec.epsilon, self._train_note(spec)
        if asked is None:
            minimums = (self._minimum_match,)
            return _Draft(who=self._partners, note=note, minimums=minimums, refusal=refusal)

        def charges_at(epsilon: float) -> Charges:
            charge = self._train_charge(spec.model_copy(update={"epsilon": epsilon}))
            counting = HiddenPlan.of(spec, self._agreement)
            counted = () if counting is None else (counting.charge,)
            return dict.fromkeys(self._partners, (charge, *counted))

        def reaches(epsilon: float) -> bool:
            try:
                charges_at(epsilon)
            except InvalidParameterError:
                return False
            return True

        try:
            charges = charges_at(asked)
        except InvalidParameterError as error:
            smallest = smallest_within(reaches, asked)
            least = "" if smallest is None else f"; {smallest:g} is the smallest in reach"
            return _Draft(who=self._partners, note=note, refusal=("epsilon", f"{error}{least}"))
        noise, shape = self._train_noise(spec)
        if spec.model is ModelFamily.NETWORK and spec.rounds == 1 and len(self._partners) > 1:
            note += (
                "; no forecast: noised networks that are averaged once lose far more than was "
                "measured otherwise; ask for 10 rounds, which cost no more privacy"
            )
            shape = None
        return _Draft(
            who=self._partners,
            note=note,
            charges=charges,
            minimums=(self._minimum_match,),
            refusal=refusal,
            epsilon_term="an epsilon",
            asked=asked,
            charges_at=charges_at,
            noise_multiplier=noise,
            forecast=None if shape is None else self._forecast(spec, asked, shape),
            hidden_share=self._hidden_share(spec),
        )

    def _hidden_share(self, spec: TrainSpec) -> PlannedShare | None:
        """Say what to expect of counting hidden positives; None where nobody counts."""
        plan, people = HiddenPlan.of(spec, self._agreement), self._rows_of_partners
        if plan is None or people < 2:
            return None
        seeds = self._assumed_positives
        return PlannedShare.of(plan, partners=len(self._partners), people=people, seeds=seeds)

    @property
    def _rows_of_partners(self) -> int:
        return sum(self._agreement.dataset(name).declared_rows for name in self._partners)

    @property
    def _assumed_positives(self) -> int:
        """Members whom the partners hold together: as asked with, or every row of the brand."""
        brand = self._agreement.dataset(self._brand).declared_rows
        most = self._rows_of_partners // 2
        return min(brand, most) if self._positives is None else self._positives

    def _train_note(self, spec: TrainSpec) -> str:
        terms = self._agreement.train
        if spec.noise is NoiseSource.UNSAFE_NONE:
            return f"protects no person: up to {spec.rounds} exact sums over partners"
        tables = f"holds for a person in up to {terms.max_parties_per_person} partners' tables"
        if spec.noise is NoiseSource.LOCAL:
            rounds = "1 round" if spec.rounds == 1 else f"{spec.rounds} rounds"
            return f"{tables}; {rounds} of {spec.steps_per_round} steps"
        colluding, absent = terms.colluding_partners, terms.absent_partners
        collude = "1 partner colludes" if colluding == 1 else f"{colluding} partners collude"
        missing = "1 is missing" if absent == 1 else f"{absent} are missing"
        sums = "1 secure sum" if spec.rounds == 1 else f"{spec.rounds} secure sums"
        return f"{tables}, though {collude} and {missing}; {sums}"

    def _sums(self, spec: TrainSpec) -> Sums:
        return sums_for(spec, self._agreement, width=encoder_for(self._agreement).width)

    def _train_charge(self, spec: TrainSpec) -> Event:
        if spec.noise is NoiseSource.LOCAL:
            charge = training_plan(spec, self._agreement, expected_rows=1).charge
            return RepeatedEvent(event=charge, count=spec.rounds)
        if (whole := whole_charge(self._sums(spec), spec)) is None:
            raise RuntimeError("sums with noise have a price")
        return whole

    def _train_noise(self, spec: TrainSpec) -> tuple[float, Shape | None]:
        """Return the noise multiplier, and the training's shape where somebody can be told apart.

        Sums are taken as steps on all rows in one place.
        """
        declared = tuple(self._agreement.dataset(name).declared_rows for name in self._partners)
        if spec.noise is NoiseSource.LOCAL:
            parameters = training_plan(spec, self._agreement, expected_rows=1).parameters
            noise, rows = parameters.noise_multiplier, declared
            step = parameters.event.model_copy(update={"steps": spec.steps})
            clipping_norm = self._agreement.train.clipping_norm
        else:
            sums = self._sums(spec)
            noise, rows, clipping_norm = sums.noise_multiplier, (sum(declared),), 1.0
            step = SampledGaussianEvent(
                noise_multiplier=sums.gradient_noise, sampling_probability=1.0, steps=spec.rounds
            )
        if sum(declared) < 2:
            return noise, None
        positives = self._assumed_positives
        if spec.model is ModelFamily.BOOSTED_TREES:
            return noise, ForestShape(
                rows=sum(declared),
                positives=positives,
                gradient_noise=step.noise_multiplier,
                sums=spec.rounds * TREES,
            )
        return noise, TrainingShape(
            rows=rows,
            positives=positives,
            columns=encoder_for(self._agreement).width,
            event=step,
            clipping_norm=clipping_norm,
            curve=_CURVES[spec.model],
        )

    def _expand(self, spec: ExpandSpec) -> _Draft:
        terms = self._agreement.expand
        minimum = MinimumSize(term="expand.minimum_segment", people=terms.minimum_segment)
        refusal = None
        if spec.train in self._refused:
            refusal = "expand.train", f"training {spec.train!r} would be refused: mend it"
        elif (refusal := next(iter(policy_objections(spec, self._agreement)), None)) is None:
            rows = min(self._agreement.dataset(name).declared_rows for name in self._partners)
            if (most := int(terms.maximum_share * rows)) < minimum.people:
                remedy = (
                    f"{terms.maximum_share:g} of the {rows} rows that a partner declares are "
                    f"{most} people: agree on a minimum of at most {most}, or on a larger "
                    "maximum_share"
                )
                refusal = minimum.term, remedy

        def charges_at(epsilon: float | None) -> Charges:
            counting = terms.model_copy(update={"count_epsilon": epsilon})
            count = CountPlan.of(self._agreement.model_copy(update={"expand": counting}))
            return {} if count is None else dict.fromkeys(self._partners, (count.charge,))

        told = "no count leaves" if terms.count_epsilon is None else "one noised count leaves"
        return _Draft(
            who=self._partners,
            note=f"scores stay at the partner; best {spec.measure}; {told}",
            charges=charges_at(terms.count_epsilon),
            minimums=(minimum,),
            refusal=refusal,
            epsilon_term="expand.count_epsilon",
            asked=terms.count_epsilon or 0.0,
            charges_at=charges_at,
        )

    def _measure(self, spec: MeasureSpec) -> _Draft:
        refusal = next(iter(policy_objections(spec, self._agreement)), None)
        if spec.match in self._refused:
            refusal = "measure.match", f"match {spec.match!r} would be refused: mend it"
        terms, tables = self._agreement.measure, self._agreement.train.max_parties_per_person
        note = f"holds for a person in up to {tables} partners' tables"
        if terms is None:
            return _Draft(who=self._partners, note=note, refusal=refusal)

        def charges_at(epsilon: float) -> Charges:
            asked = spec.model_copy(update={"epsilon": epsilon})
            return dict.fromkeys(self._partners, (measure_charge(asked, self._agreement)[1],))

        try:
            charges = charges_at(spec.epsilon)
        except InvalidParameterError as error:
            return _Draft(who=self._partners, note=note, refusal=("epsilon", str(error)))
        return _Draft(
            who=self._partners,
            note=f"{note}; counts below {terms.minimum_cell} are withheld",
            charges=charges,
            minimums=(self._minimum_match,),
            refusal=refusal,
            epsilon_term="an epsilon",
            asked=spec.epsilon,
            charges_at=charges_at,
        )

    @property
    def _minimum_match(self) -> MinimumSize:
        return MinimumSize(term="match.minimum_match", people=self._agreement.match.minimum_match)

    def _too_few(self, minimum: MinimumSize) -> tuple[str, str] | None:
        """Refuse where a party declares fewer people than a minimum takes."""
        least = min(self._agreement.datasets, key=lambda one: one.declared_rows)
        if least.declared_rows >= minimum.people:
            return None
        remedy = (
            f"{least.party} declares {least.declared_rows} rows, and it takes {minimum.people}: "
            f"agree on a minimum of at most {least.declared_rows}"
        )
        return minimum.term, remedy

    def _forecast(self, spec: TrainSpec, epsilon: float, shape: Shape) -> TrainingForecast:
        found, columns = forecast(shape, self._auc), encoder_for(self._agreement).width
        rows = shape.rows if isinstance(shape, ForestShape) else sum(shape.rows)
        warning = None
        if found.lost >= _HEAVY_LOSS:
            over, fewer = f" over {columns} columns", "agree on fewer columns, "
            if isinstance(shape, ForestShape):  # whose loss does not follow their number
                over = fewer = ""
            warning = (
                f"about {shape.positives} positives cannot carry epsilon {epsilon:g}{over}: the "
                f"noise is likely to take {found.lost:.0%} of what a model would have above "
                f"guessing; bring more positives, {fewer}or allow a larger epsilon"
            )
        return TrainingForecast(
            family=spec.model,
            rows=rows,
            positives=shape.positives,
            assumed=self._positives is None,
            columns=columns,
            signal_to_noise=found.ratio,
            lost=found.lost,
            auc=found.auc,
            auc_loss=found.auc_loss(found.lost),
            auc_loss_least=found.auc_loss(found.least),
            auc_loss_most=found.auc_loss(found.most),
            warning=warning,
        )


def _added(charged: Charges, charges: Charges) -> Charges:
    """Return every party's charges, with those of one job more."""
    return {party: spent + charges.get(party, ()) for party, spent in charged.items()}
