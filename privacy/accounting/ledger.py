"""A party's spending under one agreement: reserve, then commit or refund, each exactly once.

Guarantees: what is reserved and committed never costs more than the agreement's ε at its δ, priced
as one composition, whatever processes and threads share the store and whenever one of them is
killed. A charge is reserved before its release and counts as spent from then on, so that a crash
can lose budget but never spend it twice. Every change is one transaction of the store; the cap is
checked inside it, while it holds the ledger.

    (none) ──reserve──> reserved ──commit──> committed
                         │    ^
                    refund    reserve
                         v    │
                        refunded

Where the agreement is amended, all charges weigh on the new cap (`Ledger.amend`).

Repeating a step that was already taken changes nothing; any other step raises. Leaves to others:
refunding only what was never released, proof of the spending (the compliance log), and keeping the
lines (`store`).
"""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

from privacy.accounting.accountant import check_delta, epsilon_of
from privacy.accounting.events import Event, from_json, to_json
from privacy.accounting.store import (
    LedgerStore,
    LedgerTerms,
    LedgerTransaction,
    SqliteStore,
    StoredCharge,
)
from privacy.errors import BudgetExceededError, InvalidParameterError, LedgerError

__all__ = ["Budget", "Charge", "ChargeState", "Ledger", "Statement"]

_CHARGE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/ -]{0,127}")


class ChargeState(StrEnum):
    """Where a charge stands."""

    RESERVED = "reserved"
    COMMITTED = "committed"
    REFUNDED = "refunded"


@dataclass(frozen=True, slots=True)
class Budget:
    """What one person may lose in all under an agreement.

    Attributes:
        epsilon: cap, positive and finite.
        delta: in [10⁻¹⁰, 1).

    Raises:
        InvalidParameterError: if either is out of range.
    """

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        if not 0.0 < self.epsilon < math.inf:
            raise InvalidParameterError(
                f"a budget's epsilon must be positive and finite, got {self.epsilon}"
            )
        check_delta(self.delta)


@dataclass(frozen=True, slots=True)
class Charge:
    """One line of the ledger.

    Attributes:
        charge_id: the caller's name for it, unique in the ledger.
        event: what is, or was to be, released.
        state: where it stands.
    """

    charge_id: str
    event: Event
    state: ChargeState

    @property
    def counts(self) -> bool:
        """Whether the charge weighs on the budget."""
        return self.state is not ChargeState.REFUNDED


@dataclass(frozen=True, slots=True)
class Statement:
    """The ledger at one moment; every ε is that of one composition at `delta`.

    Attributes:
        epsilon_cap: the agreement's ε per person.
        delta: the agreement's δ per person.
        epsilon_spent: ε of what is committed or reserved.
        epsilon_committed: ε of what is committed alone.
        epsilon_left: cap less spent. Composition is not additive: a charge may cost less.
        charges: all of them, refunded ones included, in the order they were first reserved.
    """

    epsilon_cap: float
    delta: float
    epsilon_spent: float
    epsilon_committed: float
    epsilon_left: float
    charges: tuple[Charge, ...]


class Ledger:
    """The spending under one agreement.

    It holds no connection between calls: it may be shared by threads, and by processes after a
    fork. Every method raises `LedgerError` if the store is missing, damaged, another's, out of
    reach, or held by others for more than a minute.
    """

    def __init__(self, store: LedgerStore, agreement: str, budget: Budget) -> None:
        self._store = store
        self._terms = LedgerTerms(agreement, budget.epsilon, budget.delta)

    @classmethod
    def open(cls, store: LedgerStore | Path, *, agreement: str, budget: Budget) -> Self:
        """Open a ledger, or start it.

        Args:
            store: where it is kept; a path is that of a SQLite file in a directory that exists.
            agreement: digest of the agreement that set the first budget.
            budget: the agreement's cap.

        Raises:
            InvalidParameterError: if `agreement` is empty.
            LedgerError: if the store belongs to another agreement or budget, or to no ledger.
        """
        if not agreement:
            raise InvalidParameterError("a ledger needs the digest of its agreement, got none")
        ledger = cls(SqliteStore(store) if isinstance(store, Path) else store, agreement, budget)
        with ledger._transaction(create=True):
            return ledger

    def amend(self, budget: Budget) -> Self:
        """Return the ledger with another cap, which all charges so far weigh on too.

        Whoever still holds the earlier one cannot use it any more. Once more changes nothing.

        Raises:
            LedgerError: the ledger is kept for yet another cap.
        """
        after = type(self)(self._store, self._terms.agreement, budget)
        with self._store.transaction() as held:
            found = held.terms()
            if found not in (self._terms, after._terms):  # noqa: SLF001 -- its own kind
                raise LedgerError(
                    f"ledger {self._store.name} belongs to other terms: expected {self._terms}, "
                    f"got {found}: amend from the cap that it is kept for"
                )
            held.amend(after._terms)  # noqa: SLF001
        return after

    def reserve(self, charge_id: str, event: Event) -> Charge:
        """Set budget aside for `event`, before anything of it is released.

        The same charge again (reserved or committed) changes nothing and is returned as it
        stands; a refunded one is reserved anew, with whatever event.

        Args:
            charge_id: 1 to 128 letters, digits and ``._:/ -``, the first a letter or digit.
            event: what is to be released.

        Raises:
            InvalidParameterError: if the id has another form, or the event cannot be priced.
            BudgetExceededError: if everything together would pass the cap; nothing changed.
            LedgerError: if the id already stands for another event.
        """
        if not _CHARGE_ID.fullmatch(charge_id):
            raise InvalidParameterError(
                f"a charge id has 1 to 128 letters, digits and ._:/ - (got {len(charge_id)} "
                "characters): name it after the job and step"
            )
        epsilon_of([event], self._terms.delta)  # prices it, or refuses it, before the lock
        with self._transaction() as held:
            charges = self._read(held)
            known = charges.get(charge_id)
            if known is not None and known.counts:
                if known.event != event:
                    raise LedgerError(
                        f"charge {charge_id!r} is {known.state} for another event in "
                        f"{self._store.name}: give the new event an id of its own"
                    )
                return known
            counting = _counting(charges)
            asked = self._price([*counting, event])
            if asked > self._terms.epsilon:
                raise BudgetExceededError(
                    asked=asked,
                    spent=self._price(counting),
                    cap=self._terms.epsilon,
                    charge_id=charge_id,
                )
            held.put(StoredCharge(charge_id, to_json(event), ChargeState.RESERVED))
        return Charge(charge_id, event, ChargeState.RESERVED)

    def commit(self, charge_id: str) -> Charge:
        """Say that the reserved charge was released; again changes nothing.

        Raises:
            LedgerError: if the charge is unknown or refunded.
        """
        return self._settle(charge_id, ChargeState.COMMITTED)

    def refund(self, charge_id: str) -> Charge:
        """Say that nothing of the reserved charge was or will be released; again changes nothing.

        Raises:
            LedgerError: if the charge is unknown or committed.
        """
        return self._settle(charge_id, ChargeState.REFUNDED)

    def charge(self, charge_id: str) -> Charge | None:
        """Return the charge as it stands, or None if there never was one."""
        with self._transaction() as held:
            return self._read(held).get(charge_id)

    def statement(self) -> Statement:
        """Return the whole ledger as of now."""
        with self._transaction() as held:
            charges = self._read(held)
        spent = self._price(_counting(charges))
        committed = self._price(
            [c.event for c in charges.values() if c.state is ChargeState.COMMITTED]
        )
        return Statement(
            epsilon_cap=self._terms.epsilon,
            delta=self._terms.delta,
            epsilon_spent=spent,
            epsilon_committed=committed,
            epsilon_left=max(0.0, self._terms.epsilon - spent),
            charges=tuple(charges.values()),
        )

    def epsilon_if(self, event: Event) -> float:
        """Return the ε that would be spent in all if `event` were charged now; changes nothing."""
        with self._transaction() as held:
            counting = _counting(self._read(held))
        return self._price([*counting, event])

    def _price(self, events: list[Event]) -> float:
        return epsilon_of(events, self._terms.delta)

    def _settle(self, charge_id: str, state: ChargeState) -> Charge:
        """Move a reserved charge to `state`, once."""
        with self._transaction() as held:
            known = self._read(held).get(charge_id)
            if known is None:
                raise LedgerError(
                    f"no charge {charge_id!r} in {self._store.name}: it must be reserved before it "
                    f"is {state}"
                )
            if known.state not in {ChargeState.RESERVED, state}:
                raise LedgerError(
                    f"charge {charge_id!r} in {self._store.name} is {known.state} and can no "
                    f"longer be {state}"
                )
            held.put(StoredCharge(charge_id, to_json(known.event), state))
        return Charge(charge_id, known.event, state)

    def _read(self, held: LedgerTransaction) -> dict[str, Charge]:
        """Read every charge, by id, in the order they were first reserved."""
        try:
            return {
                line.charge_id: Charge(
                    line.charge_id, from_json(line.event), ChargeState(line.state)
                )
                for line in held.charges()
            }
        except (InvalidParameterError, TypeError, ValueError) as error:
            raise LedgerError(
                f"ledger {self._store.name} is damaged, a charge cannot be read ({error}): restore "
                "it from a backup"
            ) from error

    @contextmanager
    def _transaction(self, *, create: bool = False) -> Iterator[LedgerTransaction]:
        """Hold the ledger, if it is the one that was opened; start it if that was asked for."""
        with self._store.transaction(create=create) as held:
            found = held.terms()
            if found is None and create:
                held.start(self._terms)
                found = held.terms()
            if found is None:
                raise LedgerError(f"ledger {self._store.name} is gone: restore it from a backup")
            if found != self._terms:
                raise LedgerError(
                    f"ledger {self._store.name} belongs to other terms: expected {self._terms}, "
                    f"got {found}: every agreement has a ledger of its own"
                )
            yield held


def _counting(charges: dict[str, Charge]) -> list[Event]:
    """Return the events that weigh on the budget."""
    return [charge.event for charge in charges.values() if charge.counts]
