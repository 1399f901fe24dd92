"""One line of a ledger: what was, or was to be, released, and where that stands.

Leaves to others: which steps from state to state there are (`ledger`), keeping the line (`store`).
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, Self

from privacy.accounting.events import Event, from_json, to_json
from privacy.accounting.store import StoredCharge

__all__ = ["Charge", "ChargeState"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class ChargeState(StrEnum):
    """Where a charge stands."""

    RESERVED = "reserved"
    COMMITTED = "committed"
    REFUNDED = "refunded"


@dataclass(frozen=True, slots=True)
class Charge:
    """One line of the ledger.

    Attributes:
        charge_id: the caller's name for it, unique in the ledger.
        event: what is, or was to be, released.
        state: where it stands.
        since: when it came to stand there, or was renewed, UTC.
    """

    charge_id: str
    event: Event
    state: ChargeState
    since: datetime

    @classmethod
    def of_line(cls, line: StoredCharge) -> Self:
        """Read a charge as it is stored.

        Raises:
            InvalidParameterError, OverflowError, TypeError, ValueError: it is damaged.
        """
        since = _EPOCH + timedelta(microseconds=line.since)
        return cls(line.charge_id, from_json(line.event), ChargeState(line.state), since)

    @property
    def line(self) -> StoredCharge:
        """The charge as it is stored."""
        since = (self.since - _EPOCH) // timedelta(microseconds=1)
        return StoredCharge(self.charge_id, to_json(self.event), self.state, since)

    @property
    def counts(self) -> bool:
        """Whether the charge weighs on the budget."""
        return self.state is not ChargeState.REFUNDED

    def at(self, state: ChargeState, since: datetime) -> Self:
        """Return it as it stands from a moment on."""
        return replace(self, state=state, since=since)

    def weighs_after(self, moment: datetime) -> bool:
        """Tell whether anything that it pays for may have left after a moment."""
        committed = self.state is ChargeState.COMMITTED
        return self.since > moment if committed else self.counts
