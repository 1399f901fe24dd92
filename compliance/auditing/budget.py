"""The charges of one log, replayed leaf by leaf.

Guarantees: a charge is reserved once, at the agreement's δ and cap, with a mechanism that can be
priced; it is released at most once while open; it is committed or refunded once. A refunded charge
may be reserved again. No ε is below its price, where prices can be computed. Where the agreement
has a period, every reservation says what weighs within it, and does not pass it.

Leaves to others: prices (the pricer), and whether a mechanism ran as logged, which no log shows.
"""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from compliance import records
from compliance.agreement import Agreement
from compliance.auditing.finding import FindingKind, Problem
from compliance.auditing.rules import Rules, UnpriceableError

__all__ = ["Charges"]

_TOLERANCE: Final = 1e-9
"""Relative; floating point differs that much between machines at most."""


class _Stretch:
    """What was committed, and when; what of it weighs within the days before a moment.

    Moments never go back: what is dated before a charge that came before it is taken to be of the
    same moment, as the ledger takes it.
    """

    def __init__(self) -> None:
        self._all: list[tuple[datetime, str]] = []
        self._latest = datetime.min.replace(tzinfo=UTC)
        self._length = timedelta()
        self._begin = 0
        self._weighing: Counter[str] = Counter()

    def add(self, time: datetime, mechanism: str) -> None:
        """Take what was committed."""
        self._latest = max(self._latest, time)
        self._all.append((self._latest, mechanism))
        self._weighing[mechanism] += 1

    def weighing(self, time: datetime, length: timedelta) -> Counter[str]:
        """Return what was committed after `length` before a moment: mechanisms, how often."""
        self._latest = max(self._latest, time)
        if length != self._length:  # another version of the agreement: what had gone may weigh
            self._length, self._begin = length, 0
            self._weighing = Counter(mechanism for _, mechanism in self._all)
        while self._begin < len(self._all) and self._all[self._begin][0] <= self._latest - length:
            self._weighing[self._all[self._begin][1]] -= 1
            self._begin += 1
        return +self._weighing


class Charges:
    """The charges of a log; what a leaf gets wrong is said and changes nothing.

    Attributes:
        epsilon_spent: by committed charges, as the log says.
        withdrawn_releases: releases whose charge was refunded afterwards.
    """

    def __init__(self, agreement: Agreement, rules: Rules) -> None:
        self.epsilon_spent = 0.0
        self.withdrawn_releases = 0
        self._agreement = agreement
        self._budget = agreement.budget
        self._rules = rules
        self._pending: dict[str, str] = {}
        self._committed: set[str] = set()
        self._held: Counter[str] = Counter()  # what weighs on the budget: mechanisms, how often
        self._stretch = _Stretch()
        self._released: set[str] = set()

    @property
    def released(self) -> frozenset[str]:
        """Charges that are open, though what they pay for has left."""
        return frozenset(self._released)

    def continue_under(self, agreement: Agreement, rules: Rules) -> None:
        """Go on under another version: all charges so far weigh on its budget."""
        self._agreement, self._budget, self._rules = agreement, agreement.budget, rules

    def replay(self, leaf: records.Record) -> Problem | None:
        """Take the next leaf; say what is wrong with it."""
        try:
            match leaf:
                case records.BudgetReserved():
                    return self._reserve(leaf)
                case records.Release():
                    return self._release(leaf)
                case records.BudgetCommitted() | records.BudgetRefunded():
                    return self._settle(leaf)
        except UnpriceableError:
            return Problem(
                FindingKind.UNPRICEABLE, "names a mechanism, or a delta, that nobody can price"
            )
        return None

    def _reserve(self, leaf: records.BudgetReserved) -> Problem | None:
        if (problem := self._misnamed(leaf)) is not None:
            return problem
        self._rules.pricer.check(leaf.mechanism)
        held = self._held + Counter([leaf.mechanism])
        problem = (
            self._understated("epsilon", leaf.epsilon, {leaf.mechanism: 1}, leaf.delta)
            or self._understated("epsilon_spent", leaf.epsilon_spent, held)
            or self._understated_in_period(leaf)
        )
        if problem is None:
            self._pending[leaf.charge_id] = leaf.mechanism
            self._held = held
        return problem

    def _misnamed(self, leaf: records.BudgetReserved) -> Problem | None:
        """Say what is wrong with a reservation, whatever its mechanism costs."""
        if leaf.epsilon_cap != self._budget.epsilon:
            return Problem(FindingKind.OTHER_CAP, "names another cap than the agreement's")
        if leaf.delta != self._budget.delta:
            return Problem(FindingKind.OTHER_DELTA, "names another delta than the agreement's")
        if leaf.epsilon_spent > self._budget.epsilon:
            return Problem(FindingKind.OVER_CAP, "passes the agreement's budget")
        if leaf.charge_id in self._pending or leaf.charge_id in self._committed:
            return Problem(
                FindingKind.RESERVED_TWICE,
                "reserves a charge that was reserved before and not refunded",
            )
        return self._misnamed_period(leaf)

    def _misnamed_period(self, leaf: records.BudgetReserved) -> Problem | None:
        period, said = self._budget.period, leaf.period_epsilon_spent
        if (period is None) is not (said is None):
            text = "tells of a period, and none is agreed"
            if period is not None:
                text = f"does not tell what weighs within the {period.days} days that are agreed"
            return Problem(FindingKind.OTHER_PERIOD, text)
        if period is not None and said is not None and said > period.epsilon:
            text = f"passes the agreement's budget for {period.days} days"
            return Problem(FindingKind.OVER_PERIOD, text)
        return None

    def _understated_in_period(self, leaf: records.BudgetReserved) -> Problem | None:
        period, delta = self._budget.period, self._agreement.accounted_period_delta
        if period is None or delta is None or leaf.period_epsilon_spent is None:
            return None
        held = self._stretch.weighing(leaf.time, timedelta(days=period.days))
        held = held + Counter((*self._pending.values(), leaf.mechanism))
        return self._understated("period_epsilon_spent", leaf.period_epsilon_spent, held, delta)

    def _release(self, leaf: records.Release) -> Problem | None:
        computation = self._rules.computations.get(leaf.computation)
        if computation is None:
            return Problem(FindingKind.UNKNOWN_COMPUTATION, "releases what no computation says")
        if computation.charged and leaf.charge_id is None:
            return Problem(FindingKind.UNCHARGED, "releases without a charge")
        if not computation.charged and leaf.charge_id is not None:
            return Problem(FindingKind.CHARGED_FOR_NOTHING, "names a charge for what is free")
        return None if leaf.charge_id is None else self._pay(leaf.computation, leaf.charge_id)

    def _pay(self, computation: str, charge_id: str) -> Problem | None:
        if charge_id not in self._pending:
            return Problem(
                FindingKind.CHARGE_NOT_OPEN,
                "releases under a charge that was not reserved, or is settled",
            )
        if charge_id in self._released:
            return Problem(FindingKind.CHARGE_REUSED, "releases a second time under one charge")
        counted = computation == "measure.counts"
        problem = self._beyond_measuring(self._pending[charge_id]) if counted else None
        if problem is None:
            self._released.add(charge_id)
        return problem

    def _beyond_measuring(self, mechanism: str) -> Problem | None:
        """Say how counts pass what is agreed for one job."""
        kind = FindingKind.OVER_MEASURED
        if (terms := self._agreement.measure) is None:
            return Problem(kind, "releases counts, and the agreement allows none")
        delta, pricer = terms.delta or self._budget.delta, self._rules.pricer
        if pricer.prices and pricer.epsilon({mechanism: 1}, delta) > terms.epsilon * (
            1 + _TOLERANCE
        ):
            return Problem(kind, "releases counts for more epsilon than the agreement allows a job")
        return None

    def _settle(self, leaf: records.BudgetCommitted | records.BudgetRefunded) -> Problem | None:
        if leaf.charge_id not in self._pending:
            return Problem(FindingKind.SETTLED_UNOPENED, "settles a charge that was not open")
        if isinstance(leaf, records.BudgetCommitted):
            problem = self._understated("epsilon_spent", leaf.epsilon_spent, self._held)
            if problem is not None:
                return problem
            self._committed.add(leaf.charge_id)
            self._stretch.add(leaf.time, self._pending.pop(leaf.charge_id))
            self.epsilon_spent = leaf.epsilon_spent
        else:
            self.withdrawn_releases += leaf.charge_id in self._released
            self._held -= Counter([self._pending.pop(leaf.charge_id)])
        self._released.discard(leaf.charge_id)
        return None

    def _understated(
        self, field: str, said: float, mechanisms: Mapping[str, int], delta: float | None = None
    ) -> Problem | None:
        """Say by how much a logged ε is below the price, where that can be computed.

        It is priced at `delta`, or at what cuts of noise leave of the agreement's.
        """
        if not self._rules.pricer.prices:
            return None
        price = self._rules.pricer.epsilon(mechanisms, delta or self._agreement.accounted_delta)
        if said >= price * (1 - _TOLERANCE):
            return None
        return Problem(
            FindingKind.UNDERSTATED,
            f"understates {field}: expected at least {price:.6f}, got {said:.6f}",
        )
