"""A job before it is priced: what it would charge whom, and what would refuse it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from federation.hidden_share import PlannedShare
from federation.plan.planned import MinimumSize, TrainingForecast
from privacy.accounting.events import Event

__all__ = ["Charges", "Draft"]

Charges = Mapping[str, tuple[Event, ...]]
"""What a job charges each party's ledger."""


@dataclass(frozen=True)
class Draft:
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
