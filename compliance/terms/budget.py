"""The privacy loss that no person may pass: over everything, and within any stretch of days.

Leaves to others: keeping to it (`privacy.accounting`).
"""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from compliance.canonical import is_unsaid
from compliance.terms.vocabulary import Delta, Epsilon, Terms

__all__ = ["BudgetTerms", "PeriodTerms"]


class PeriodTerms(Terms):
    """The privacy loss that no person may pass within any stretch of so many days.

    The stretch slides: it ends at any moment, not with a quarter of the calendar. Of everything
    that leaves within it, the loss is at most (ε, δ), whatever left before. Somebody who remembers
    what left before learns more than that; the budget over everything bounds it.

    Attributes:
        days: of the stretch.
        epsilon: of (ε, δ)-differential privacy, per person, add-or-remove-one.
        delta: its failure probability.
    """

    days: Annotated[int, Field(strict=True, ge=1, le=36_500)]
    epsilon: Epsilon
    delta: Delta


class BudgetTerms(Terms):
    """The privacy loss that no person may pass, over everything, while the agreement lasts.

    Attributes:
        epsilon: of (ε, δ)-differential privacy, per person, add-or-remove-one.
        delta: its failure probability.
        period: what no person may pass within any stretch of days either, if agreed.
    """

    epsilon: Epsilon
    delta: Delta
    period: PeriodTerms | None = Field(default=None, exclude_if=is_unsaid)

    def _mistakes(self) -> Iterator[str]:
        if (period := self.period) is None:
            return
        if period.epsilon >= self.epsilon:
            yield (
                f"period.epsilon: {period.epsilon} is not below the epsilon over everything, "
                f"{self.epsilon}: leave the period out"
            )
        if period.delta > self.delta:
            yield f"period.delta: {period.delta} passes the delta over everything, {self.delta}"
