"""Charges on a privacy budget: reserved before a release, committed or given back after it."""

from typing import Literal

from pydantic import Field

from compliance.canonical import is_unsaid
from compliance.records.leaf import Delta, Epsilon, EventJson, Leaf, Name, Sentence

__all__ = ["BudgetCommitted", "BudgetRefunded", "BudgetReserved"]


class BudgetReserved(Leaf):
    """Privacy budget was set aside before a release; from here on it counts as spent.

    Attributes:
        charge_id: names the charge.
        mechanism: canonical JSON of the mechanism's event, so that anybody can account again.
        epsilon: of this charge alone, at `delta`.
        delta: the agreement's delta per person.
        epsilon_spent: in all, after this charge.
        epsilon_cap: the agreement's epsilon per person.
        period_epsilon_spent: by what may have left within the agreed period up to this charge, it
            included; None where no period is agreed.
    """

    kind: Literal["budget.reserved"] = "budget.reserved"
    charge_id: Name
    mechanism: EventJson
    epsilon: Epsilon
    delta: Delta
    epsilon_spent: Epsilon
    epsilon_cap: Epsilon
    period_epsilon_spent: Epsilon | None = Field(default=None, exclude_if=is_unsaid)


class BudgetCommitted(Leaf):
    """A reserved charge was released; `epsilon_spent` is the total, committed and reserved."""

    kind: Literal["budget.committed"] = "budget.committed"
    charge_id: Name
    epsilon_spent: Epsilon


class BudgetRefunded(Leaf):
    """A reserved charge was given back, because nothing that it paid for left."""

    kind: Literal["budget.refunded"] = "budget.refunded"
    charge_id: Name
    reason: Sentence
