"""How the privacy budget burns: ε over time, what is left, and what it was spent on.

Guarantees: what is spent is what the party's verified log says after its last charge, never less;
charges that are open count as spent, refunds do not. Nothing is added up that does not compose by
addition.

Leaves to others: pricing again (whoever verifies logs), forecasts (a plan).
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from compliance import records
from compliance.agreement import Agreement
from compliance.reporting.document import (
    Cell,
    Chart,
    Fact,
    Report,
    ReportKind,
    Section,
    Table,
    make_report,
)
from compliance.reporting.figures import Entry, Figure, PartyLog, written
from compliance.terms import DATA_ROLES, PeriodTerms

__all__ = ["Charge", "budget_report", "budget_summary", "charges_of"]

_Settled = Entry[records.BudgetCommitted | records.BudgetRefunded]
_Told = Entry[records.BudgetReserved] | _Settled


@dataclass(frozen=True)
class Charge:
    """A charge, from its reservation to its end.

    Attributes:
        reserved: its reservation.
        settled: its commitment or refund; None while it is open.
    """

    reserved: Entry[records.BudgetReserved]
    settled: _Settled | None = None

    @property
    def state(self) -> str:
        """Whether it is committed, refunded or open."""
        return _state(self.entries)

    @property
    def mechanism(self) -> str:
        """Name of the mechanism that it paid for."""
        return str(json.loads(self.reserved.record.mechanism).get("kind", "unnamed"))

    @property
    def entries(self) -> tuple[_Told, ...]:
        """The leaves that tell of it."""
        return (self.reserved,) if self.settled is None else (self.reserved, self.settled)


def charges_of(log: PartyLog) -> tuple[Charge, ...]:
    """Return the charges of a log, by reservation. A refunded one may be reserved again."""
    found: list[Charge] = []
    unsettled: dict[str, int] = {}
    for entry in log.entries:
        match entry.record:
            case records.BudgetReserved(charge_id=name) as reserved:
                unsettled[name] = len(found)
                found.append(Charge(Entry(entry.party, entry.index, reserved)))
            case records.BudgetCommitted() | records.BudgetRefunded() as settled:
                if (place := unsettled.pop(settled.charge_id, None)) is not None:
                    ending: _Settled = Entry(entry.party, entry.index, settled)
                    found[place] = Charge(found[place].reserved, ending)
    return tuple(found)


def budget_report(agreement: Agreement, logs: Sequence[PartyLog], at: datetime) -> Report:
    """Write how much of the budget every party has spent by `at` (UTC), and on what."""
    logs = tuple(log.until(at) for log in logs)
    budget = agreement.budget
    sections = [
        Section(
            title="Where it stands",
            lines=(
                Fact(
                    text=f"Agreed: at most ε = {budget.epsilon:g} at δ = {budget.delta:g} per "
                    "person, over everything that a party charges while the agreement lasts.",
                    term="budget.epsilon, budget.delta",
                ),
                *_period_agreed(budget.period),
                Fact(text="A charge that is open counts as spent; one that was refunded does not."),
            ),
            tables=(budget_summary(agreement, logs),),
        ),
        *(_party(agreement, log) for log in logs if charges_of(log)),
    ]
    return make_report(ReportKind.BUDGET, "Privacy budget", agreement, logs, at, sections)


def budget_summary(agreement: Agreement, logs: Sequence[PartyLog]) -> Table:
    """Return what every party that holds people has spent, and what is left."""
    rows: list[tuple[Cell, ...]] = []
    cap, period = agreement.budget.epsilon, agreement.budget.period
    for log in logs:
        if agreement.party(log.party).role not in DATA_ROLES:
            continue
        last = _last(charges_of(log))
        charges = charges_of(log)
        rows.append(
            (
                Fact(text=log.party),
                Figure.of(_spent, last, "ε"),
                Figure.of(lambda told: max(0.0, cap - _spent(told)), last, "ε"),
                *([] if period is None else [Figure.of(_within, _reserved_last(charges), "ε")]),
                *(
                    Figure.of(
                        _reservations,
                        [leaf for one in charges if one.state == state for leaf in one.entries],
                    )
                    for state in ("committed", "open", "refunded")
                ),
            )
        )
    within = () if period is None else (f"in {period.days} days up to its last reservation",)
    head = ("party", "spent", "left", *within, "charges committed", "open", "refunded")
    return Table(caption="Budget by party", head=head, rows=tuple(rows))


def _period_agreed(period: PeriodTerms | None) -> Iterator[Fact]:
    if period is not None:
        yield Fact(
            text=f"Agreed: within any {period.days:,} days at most ε = {period.epsilon:g} at δ = "
            f"{period.delta:g} per person, too.",
            term="budget.period",
        )


def _reserved_last(charges: Sequence[Charge]) -> tuple[_Told, ...]:
    """Return the last reservation that was not taken back."""
    weighing = [one for one in charges if one.state != "refunded"]
    return (weighing[-1].reserved,) if weighing else ()


def _within(told: Sequence[_Told]) -> float:
    reserved = told[-1].record if told else None
    if not isinstance(reserved, records.BudgetReserved):
        return 0.0
    return reserved.period_epsilon_spent or 0.0


def _last(charges: Sequence[Charge]) -> tuple[_Told, ...]:
    """Return the leaves of the charge that was last said to weigh on the budget."""
    weighing = [one for one in charges if one.state != "refunded"]
    return max(weighing, key=lambda one: one.entries[-1].index).entries if weighing else ()


def _spent(told: Sequence[_Told]) -> float:
    last = told[-1].record if told else None
    return 0.0 if last is None or isinstance(last, records.BudgetRefunded) else last.epsilon_spent


def _reservations(entries: Sequence[_Told]) -> int:
    return sum(isinstance(one.record, records.BudgetReserved) for one in entries)


def _party(agreement: Agreement, log: PartyLog) -> Section:
    charges = charges_of(log)
    return Section(
        title=f"Spent by {log.party}",
        charts=tuple(_chart(agreement, log.party, charges)),
        tables=(_mechanisms(charges), _every(charges), _refunds(charges)),
    )


def _chart(agreement: Agreement, party: str, charges: Sequence[Charge]) -> Iterator[Chart]:
    committed = [
        one.settled.record
        for one in charges
        if one.settled is not None and isinstance(one.settled.record, records.BudgetCommitted)
    ]
    points = sorted((leaf.time, leaf.epsilon_spent) for leaf in committed)
    if points:
        cap = agreement.budget.epsilon
        yield Chart(
            title=f"ε spent by {party}",
            description=f"Rises in {len(points)} steps from 0 to {points[-1][1]:.4g}; the limit is "
            f"{cap:g}. The table of charges has every step.",
            unit="ε per person",
            limit=cap,
            points=tuple(points),
        )


def _mechanisms(charges: Sequence[Charge]) -> Table:
    rows = []
    for name in sorted({one.mechanism for one in charges}):
        found = [one for one in charges if one.mechanism == name and one.state == "committed"]
        told = [leaf for one in found for leaf in one.entries]
        if told:
            rows.append((Fact(text=name), Figure.of(_reservations, told)))
    return Table(
        caption="Committed charges by mechanism", head=("mechanism", "charges"), rows=tuple(rows)
    )


def _every(charges: Sequence[Charge]) -> Table:
    rows = [
        (
            Fact(text=one.reserved.record.charge_id),
            Figure.of(written, [one.reserved]),
            Fact(text=one.mechanism),
            Figure.of(_alone, [one.reserved], "ε"),
            Figure.of(_state, one.entries),
            Figure.of(_spent, one.entries, "ε"),
        )
        for one in charges
        if one.state != "refunded"
    ]
    head = ("charge", "reserved", "mechanism", "ε alone", "state", "spent in all then")
    return Table(caption="Every charge that counts", head=head, rows=tuple(rows), keys=2)


def _refunds(charges: Sequence[Charge]) -> Table:
    rows = [
        (
            Fact(text=one.reserved.record.charge_id),
            Figure.of(written, one.entries),
            Figure.of(_alone, one.entries, "ε"),
            Figure.of(_state, one.entries),
            Fact(text=one.settled.record.reason),
        )
        for one in charges
        if one.settled is not None and isinstance(one.settled.record, records.BudgetRefunded)
    ]
    head = ("charge", "reserved", "ε alone", "state", "reason")
    return Table(caption="Refunds", head=head, rows=tuple(rows), keys=2)


def _alone(told: Sequence[_Told]) -> float:
    reserved = told[0].record
    return reserved.epsilon if isinstance(reserved, records.BudgetReserved) else 0.0


def _state(told: Sequence[_Told]) -> str:
    match told[-1].record:
        case records.BudgetCommitted():
            return "committed"
        case records.BudgetRefunded():
            return "refunded"
    return "open"
