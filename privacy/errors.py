"""What can go wrong in `privacy`, split by who can act.

```
PrivacyError
├── InvalidParameterError   the caller asked for something outside its range: change the call
├── PeerMessageError        another party sent bytes that break the protocol: refuse them
├── MissingPartiesError     too few parties are left for a sum: run again when they are there
├── WorkerError             a worker of the party's own is not there or ended: see to it, run again
├── BudgetExceededError     the agreement's budget does not allow it: ask for less or amend
│   └── PeriodExceededError     its budget per period does not: wait, too
└── LedgerError             the ledger is another's, damaged, or a charge is in another state
```

A wrong order of calls by our own code is a `RuntimeError`. No message carries an identifier, a
hash of one, or a feature value.
"""

from datetime import datetime

__all__ = [
    "BudgetExceededError",
    "InvalidParameterError",
    "LedgerError",
    "MissingPartiesError",
    "PeerMessageError",
    "PeriodExceededError",
    "PrivacyError",
    "WorkerError",
]


class PrivacyError(Exception):
    """Root of everything that `privacy` raises on purpose."""


class InvalidParameterError(PrivacyError):
    """A parameter lies outside its range; nothing was computed or charged."""


class PeerMessageError(PrivacyError):
    """What another party sent breaks the protocol; nothing of it was used."""


class MissingPartiesError(PrivacyError):
    """Too few parties are left for a sum; nothing was summed.

    Attributes:
        present: how many got so far.
        needed: how many it takes.
    """

    def __init__(self, *, present: int, needed: int, parties: int, what: str) -> None:
        self.present = present
        self.needed = needed
        super().__init__(
            f"{present} of {parties} parties {what}, {needed} are needed: {self.missing} missing; "
            "aggregate again, under another context, when more are there"
        )

    @property
    def missing(self) -> int:
        """How many more it would take."""
        return max(0, self.needed - self.present)


class WorkerError(PrivacyError):
    """A worker of the party's own is not there, ended or failed; nothing of its step was used."""


class BudgetExceededError(PrivacyError):
    """A charge would pass the cap; nothing was charged.

    Attributes:
        asked: epsilon that would be spent in all if the charge were made.
        spent: epsilon spent (committed and reserved) before it.
        cap: the agreement's epsilon per person.
    """

    def __init__(self, *, asked: float, spent: float, cap: float, charge_id: str) -> None:
        self.asked = asked
        self.spent = spent
        self.cap = cap
        self.charge_id = charge_id
        super().__init__(
            f"charge {charge_id!r} would bring the spent epsilon to {asked:.4f}, past the cap of "
            f"{cap:.4f} ({spent:.4f} is spent, {self.left:.4f} is left): ask for a smaller epsilon "
            "or amend the agreement's budget"
        )

    @property
    def left(self) -> float:
        """Epsilon still to be spent before the refused charge."""
        return max(0.0, self.cap - self.spent)


class PeriodExceededError(BudgetExceededError):
    """A charge would pass the cap of a period; nothing was charged.

    Attributes:
        asked: epsilon that would be spent within the period if the charge were made.
        spent: epsilon spent (committed and reserved) within it before.
        cap: the agreement's epsilon per person and period.
        days: of the period.
        fits_from: when the charge would fit, if nothing else were charged; None if never.
    """

    def __init__(
        self,
        *,
        asked: float,
        spent: float,
        cap: float,
        charge_id: str,
        days: int,
        fits_from: datetime | None,
    ) -> None:
        super().__init__(asked=asked, spent=spent, cap=cap, charge_id=charge_id)
        self.days = days
        self.fits_from = fits_from
        wait = "" if fits_from is None else f"wait until {fits_from:%Y-%m-%d %H:%M:%S} UTC, "
        told = (
            f"charge {charge_id!r} would bring the epsilon spent within {days} days to "
            f"{asked:.4f}, past the cap of {cap:.4f} for them ({spent:.4f} is spent, "
            f"{self.left:.4f} is left): {wait}ask for a smaller epsilon or amend the agreement's "
            "budget.period"
        )
        self.args = (told,)


class LedgerError(PrivacyError):
    """The ledger refuses: another agreement's, damaged, or a charge in another state."""
