"""The privacy loss that no person may pass within any stretch of so many days.

Guarantees: what weighs at a moment is whatever may have left within the period before it: charges
that are open, however old, and those that were committed since. Moments never go back, so that a
clock that is put back frees nothing.

What it means: of everything that leaves within one such stretch, together, a person's loss is at
most (ε, δ), whatever was released before. Somebody who remembers what left earlier knows that too;
against him the budget over everything holds, and no other.

Leaves to others: the moments and the budget over everything (`ledger`).
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import attrgetter

from privacy.accounting.accountant import check_delta, epsilon_of
from privacy.accounting.charge import Charge, ChargeState
from privacy.accounting.events import Event
from privacy.errors import InvalidParameterError, PeriodExceededError

__all__ = ["Period", "PeriodStatement"]

_MOST_DAYS = 36_500


@dataclass(frozen=True, slots=True)
class Period:
    """What one person may lose within any stretch of days.

    The stretch slides: it is the days before any moment, not a quarter of a calendar, at whose end
    two budgets could be spent within two days.

    Attributes:
        days: of the stretch, 1 to 36,500; its first moment is not in it, its last is.
        epsilon: cap, positive and finite.
        delta: in [10⁻¹⁰, 1).

    Raises:
        InvalidParameterError: if one is out of range.
    """

    days: int
    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        if not 1 <= self.days <= _MOST_DAYS:
            raise InvalidParameterError(f"a period has 1 to {_MOST_DAYS:,} days, got {self.days}")
        if not 0.0 < self.epsilon < math.inf:
            raise InvalidParameterError(
                f"a period's epsilon must be positive and finite, got {self.epsilon}"
            )
        check_delta(self.delta)

    @property
    def length(self) -> timedelta:
        """The days, as a length of time."""
        return timedelta(days=self.days)

    def statement(self, charges: Iterable[Charge], now: datetime) -> "PeriodStatement":
        """Return what has been lost within the period up to now."""
        lost = self._price(self._recent(charges, now))
        return PeriodStatement(self, lost, max(0.0, self.epsilon - lost))

    def check(self, charges: Iterable[Charge], event: Event, now: datetime, charge_id: str) -> None:
        """Return only if `event` fits beside the charges so far, now.

        Raises:
            PeriodExceededError: it does not.
        """
        recent = self._recent(charges, now)
        asked = self._price(recent, event)
        if asked > self.epsilon:
            raise PeriodExceededError(
                asked=asked,
                spent=self._price(recent),
                cap=self.epsilon,
                charge_id=charge_id,
                days=self.days,
                fits_from=_fits_from(self, event, recent),
            )

    def _recent(self, charges: Iterable[Charge], now: datetime) -> list[Charge]:
        """Return the charges of which something may have left within the period up to now."""
        return [one for one in charges if one.weighs_after(now - self.length)]

    def _price(self, charges: Iterable[Charge], *events: Event) -> float:
        return epsilon_of([*(one.event for one in charges), *events], self.delta)


@dataclass(frozen=True, slots=True)
class PeriodStatement:
    """The period that ends at one moment; every ε is that of one composition at its δ.

    Attributes:
        period: that is agreed.
        epsilon_spent: ε of what may have left within it.
        epsilon_left: cap less that, 0 or more.
    """

    period: Period
    epsilon_spent: float
    epsilon_left: float


def _fits_from(period: Period, event: Event, recent: Sequence[Charge]) -> datetime | None:
    """Return the first moment at which `event` fits, if nothing else is charged until then.

    Args:
        period: that has no room for it now.
        event: what is asked for.
        recent: the charges that weigh now; those that are open no time takes away.

    Returns:
        None if it does not even fit beside those that stay.
    """
    stay = [one.event for one in recent if one.state is not ChargeState.COMMITTED]
    committed = [one for one in recent if one.state is ChargeState.COMMITTED]
    ends = sorted(committed, key=attrgetter("since"))

    def fits(gone: int) -> bool:
        left = [one.event for one in ends[gone:]]
        return epsilon_of([*stay, *left, event], period.delta) <= period.epsilon

    if not fits(len(ends)):
        return None
    # None gone is too few: it does not fit now.
    gone = bisect_left(range(len(ends)), True, key=fits)
    return ends[gone - 1].since + period.length
