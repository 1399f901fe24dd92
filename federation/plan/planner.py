"""Every party's ledger, followed from job to job.

Guarantees: every party's ledger is followed by itself; what is told of a job is told of the party
that it leaves with the least. What is called the largest or smallest that would pass was searched
for.
"""

from pathlib import Path
from typing import Final

from compliance.errors import InvalidAgreementError
from connectors import CsvConnector
from connectors.errors import ConnectorError
from federation.budgets import budget_of
from federation.clock import Clock, utc_now
from federation.collaboration import Collaboration, drafted_agreement
from federation.jobs.message_room import message_note
from federation.model_standing import erasure_of
from federation.plan.align import draft_alignment
from federation.plan.draft import Charges, Draft
from federation.plan.expand import draft_expansion
from federation.plan.match import draft_match
from federation.plan.measure import draft_measurement
from federation.plan.planned import (
    FullerTable,
    Plan,
    PlannedJob,
    PlannedPeriod,
    UncountedTable,
)
from federation.plan.setting import Setting
from federation.plan.train import draft_training
from federation.plan.vertical import draft_vertical
from federation.population import open_source
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
from privacy.accounting.ledger import Budget
from privacy.accounting.price import PriceTag, largest_within, price_tag

__all__ = ["plan"]

REFERENCE_AUC: Final = 0.8
"""What a model is taken to reach without noise, where nobody says otherwise."""


def plan(
    collaboration: Collaboration,
    *,
    positives: int | None = None,
    auc: float = REFERENCE_AUC,
    clock: Clock = utc_now,
    directory: Path | None = None,
) -> Plan:
    """Plan every job of a checked collaboration, as if it were run now.

    Args:
        collaboration: the file, read.
        positives: members whom the partners' tables hold together, if somebody knows; assumed
            where left out.
        auc: what a model is taken to reach without noise, in (0.5, 1).
        clock: tells when now is.
        directory: from which paths of tables are taken, whose rows are counted; none are where left
            out.

    Raises:
        InvalidParameterError: if `positives` is below 1 or not below the partners' declared rows,
            or `auc` is out of range.
    """
    agreement = drafted_agreement(collaboration)
    planner = _Planner(Setting(agreement, positives, auc))
    jobs = tuple(_priced(planner, spec) for spec in collaboration.jobs)
    try:
        agreement.check_time(clock())
    except InvalidAgreementError as error:
        refused = {"refused_by": "valid_until", "remedy": str(error)}
        jobs = tuple(job.model_copy(update=refused) for job in jobs)
    tag = planner.price({})
    fuller, uncounted = ((), ()) if directory is None else _counted(collaboration, directory)
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
        tables_looked_at=directory is not None,
        fuller=fuller,
        uncounted=uncounted,
    )


def _counted(
    collaboration: Collaboration, directory: Path
) -> tuple[tuple[FullerTable, ...], tuple[UncountedTable, ...]]:
    """Return the tables of more rows than their parties declare, and those that are not counted."""
    fuller: list[FullerTable] = []
    uncounted: list[UncountedTable] = []
    for party in collaboration.parties:
        if party.data is not None and party.declared_rows is not None:
            most = party.declared_rows
            try:
                table = open_source(party.data, directory)
                if isinstance(table, CsvConnector) and table.most_rows() <= most:
                    continue  # it need not be parsed
                if (rows := table.count()) > most:
                    fuller.append(FullerTable(party=party.name, declared_rows=most, rows=rows))
            except ConnectorError as error:
                uncounted.append(UncountedTable(party=party.name, told=str(error)))
    return tuple(fuller), tuple(uncounted)


def _priced(planner: "_Planner", spec: JobSpec) -> PlannedJob:
    report(Progress("plan", spec.name, "is priced"))
    return planner.add(spec)


class _Planner:
    """Follows every party's ledger from job to job."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._agreement = agreement = setting.agreement
        self._budget = budget_of(agreement)
        period = self._budget.period
        self._stretch = None if period is None else Budget(period.epsilon, period.delta)
        self._charged: Charges = dict.fromkeys((setting.brand, *setting.partners), ())
        self._asked: Charges = self._charged
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
            self._setting.refused.add(spec.name)
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
            erasure=erasure_of(spec, self._agreement),
        )

    def _beside(self, spec: JobSpec) -> str:
        """Say what else a reader should know of a job that is not refused."""
        note = message_note(spec, self._agreement)
        if absent := getattr(spec, "absent_partners", 0):
            note += f"; goes on without {absent} of its {len(self._setting.partners)} partners"
        if spec.deadline_seconds is not None:
            note += f"; waits {spec.deadline_seconds:,} s at most for each answer"
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

    def _remedy(self, draft: Draft, tag: PriceTag, limit: Budget) -> str:
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

    def _draft(self, spec: JobSpec) -> Draft:
        match spec:
            case MatchSpec():
                return draft_match(self._setting)
            case AlignSpec():
                return draft_alignment(spec, self._setting)
            case TrainSpec():
                return draft_training(spec, self._setting)
            case ExpandSpec():
                return draft_expansion(spec, self._setting)
            case MeasureSpec():
                return draft_measurement(spec, self._setting)
            case VerticalTrainSpec() | VerticalScoreSpec():
                return draft_vertical(spec, self._setting)


def _added(charged: Charges, charges: Charges) -> Charges:
    """Return every party's charges, with those of one job more."""
    return {party: spent + charges.get(party, ()) for party, spent in charged.items()}
