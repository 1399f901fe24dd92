"""A party's spending under one agreement: reserve, then commit or refund, each exactly once.

Guarantees: what is reserved and committed never costs more than the agreement's ε at its δ, priced
as one composition, whatever processes and threads share the store and whenever one of them is
killed. A charge is reserved before its release and counts as spent from then on, so that a crash
can lose budget but never spend it twice. Every change is one transaction of the store; the caps
are checked inside it, while it holds the ledger. Where a period is agreed, what may have left
within any such stretch of days keeps its ε too (`period`). The ledger's time never goes back: a
clock that reads less than the latest moment on record is taken to read that moment.

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
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from privacy.accounting.accountant import check_delta, epsilon_of
from privacy.accounting.charge import Charge, ChargeState
from privacy.accounting.events import Event
from privacy.accounting.period import Period, PeriodStatement
from privacy.accounting.store import (
    LedgerStore,
    LedgerTerms,
    LedgerTransaction,
    SqliteStore,
    StoredCharge,
)
from privacy.errors import BudgetExceededError, InvalidParameterError, LedgerError

__all__ = ["Budget", "Ledger", "Statement"]

_CHARGE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/ -]{0,127}")


@dataclass(frozen=True, slots=True)
class Budget:
    """What one person may lose in all under an agreement.

    Attributes:
        epsilon: cap, positive and finite.
        delta: in [10⁻¹⁰, 1).
        period: what one person may lose within any stretch of days, beside that; None for no more.

    Raises:
        InvalidParameterError: if either is out of range.
    """

    epsilon: float
    delta: float
    period: Period | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.epsilon < math.inf:
            raise InvalidParameterError(
                f"a budget's epsilon must be positive and finite, got {self.epsilon}"
            )
        check_delta(self.delta)


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
        period: the period that ends now; None where none is agreed.
    """

    epsilon_cap: float
    delta: float
    epsilon_spent: float
    epsilon_committed: float
    epsilon_left: float
    charges: tuple[Charge, ...]
    period: PeriodStatement | None = None


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Ledger:
    """The spending under one agreement.

    It holds no connection between calls: it may be shared by threads, and by processes after a
    fork. Every method raises `LedgerError` if the store is missing, damaged, another's, out of
    reach, or held by others for more than a minute. Made by `open`, which also starts one.

    Args:
        store: where it is kept.
        agreement: digest of the agreement that set the first budget.
        budget: the agreement's cap.
        clock: tells when now is, with a time zone.
    """

    def __init__(
        self, store: LedgerStore, agreement: str, budget: Budget, clock: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._period = budget.period
        stretch = () if self._period is None else astuple(self._period)
        self._terms = LedgerTerms(agreement, budget.epsilon, budget.delta, *stretch)
        self._clock = clock

    @classmethod
    def open(
        cls,
        store: LedgerStore | Path,
        *,
        agreement: str,
        budget: Budget,
        clock: Callable[[], datetime] = _utc_now,
    ) -> Self:
        """Open a ledger, or start it.

        Args:
            store: where it is kept; a path is that of a SQLite file in a directory that exists.
                One of an earlier version is brought to the present format.
            agreement: digest of the agreement that set the first budget.
            budget: the agreement's cap.
            clock: tells when now is, with a time zone.

        Raises:
            InvalidParameterError: if `agreement` is empty.
            LedgerError: if the store belongs to another agreement or budget, or to no ledger.
        """
        if not agreement:
            raise InvalidParameterError("a ledger needs the digest of its agreement, got none")
        kept = SqliteStore(store) if isinstance(store, Path) else store
        ledger = cls(kept, agreement, budget, clock)
        with ledger._transaction(create=True):
            return ledger

    def amend(self, budget: Budget) -> Self:
        """Return the ledger with another cap, which all charges so far weigh on too.

        Whoever still holds the earlier one cannot use it any more. Once more changes nothing.

        Raises:
            LedgerError: the ledger is kept for yet another cap.
        """
        after = type(self)(self._store, self._terms.agreement, budget, self._clock)
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
            PeriodExceededError: likewise, if what may have left within the period would.
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
            now = self._now(charges)
            self._check_period(charges, event, now, charge_id)
            return self._put(held, Charge(charge_id, event, ChargeState.RESERVED, now))

    def commit(self, charge_id: str) -> Charge:
        """Say that the reserved charge was released; again changes nothing.

        Raises:
            LedgerError: if the charge is unknown or refunded.
        """
        return self._settle(charge_id, ChargeState.COMMITTED)

    def renew(self, charge_id: str) -> Charge:
        """Say that what a committed charge paid for leaves again, now.

        It is the same release, and weighs once on the budget. On the period it weighs as if it had
        been committed now: nobody can tell whether it left before. Without a period nothing
        changes.

        Raises:
            PeriodExceededError: it weighs no more, and does not fit what has left since; nothing
                changed.
            LedgerError: if the charge is not committed.
        """
        with self._transaction() as held:
            charges = self._read(held)
            known = charges.get(charge_id)
            if known is None or known.state is not ChargeState.COMMITTED:
                raise LedgerError(
                    f"charge {charge_id!r} in {self._store.name} is not committed: what it pays "
                    "for cannot leave again"
                )
            if self._period is None:
                return known
            now = self._now(charges)
            if not known.weighs_after(now - self._period.length):  # else it was checked already
                self._check_period(charges, known.event, now, charge_id)
            return self._put(held, known.at(known.state, now))

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

    @classmethod
    def glimpse(
        cls,
        store: LedgerStore,
        *,
        agreement: str,
        budget: Budget,
        clock: Callable[[], datetime] = _utc_now,
    ) -> Statement | None:
        """Return a ledger as its last transaction left it, without holding it; None without one.

        For whoever only watches: it keeps nobody who charges, and nobody keeps it.

        Args:
            store: where it is kept.
            agreement: digest of the agreement that set the first budget.
            budget: the agreement's cap.
            clock: tells when now is, with a time zone; what a period holds is told as of then.

        Raises:
            LedgerError: it is damaged, another's, or out of reach now.
        """
        ledger, found = cls(store, agreement, budget, clock), store.look()
        if found is None:
            return None
        terms, lines = found
        ledger._check(terms)
        return ledger._stated(ledger._parsed(lines))

    def statement(self) -> Statement:
        """Return the whole ledger as of now."""
        with self._transaction() as held:
            charges = self._read(held)
        return self._stated(charges)

    def _stated(self, charges: dict[str, Charge]) -> Statement:
        spent, period = self._price(_counting(charges)), None
        if self._period is not None:
            period = self._period.statement(charges.values(), self._now(charges))
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
            period=period,
        )

    def epsilon_if(self, event: Event) -> float:
        """Return the ε that would be spent in all if `event` were charged now; changes nothing."""
        with self._transaction() as held:
            counting = _counting(self._read(held))
        return self._price([*counting, event])

    def check_period(self, event: Event, charge_id: str) -> None:
        """Return only if `event` would fit the period now; changes nothing.

        Raises:
            PeriodExceededError: it would not.
        """
        with self._transaction() as held:
            charges = self._read(held)
        self._check_period(charges, event, self._now(charges), charge_id)

    def _check_period(
        self, charges: dict[str, Charge], event: Event, now: datetime, charge_id: str
    ) -> None:
        if self._period is not None:
            self._period.check(charges.values(), event, now, charge_id)

    def _now(self, charges: dict[str, Charge]) -> datetime:
        """Return the moment that is now, not before the latest that is on record."""
        return max((self._clock(), *(charge.since for charge in charges.values())))

    def _price(self, events: list[Event]) -> float:
        return epsilon_of(events, self._terms.delta)

    def _settle(self, charge_id: str, state: ChargeState) -> Charge:
        """Move a reserved charge to `state`, once."""
        with self._transaction() as held:
            charges = self._read(held)
            known = charges.get(charge_id)
            if known is None:
                raise LedgerError(
                    f"no charge {charge_id!r} in {self._store.name}: it must be reserved before it "
                    f"is {state}"
                )
            if known.state is state:
                return known
            if known.state is not ChargeState.RESERVED:
                raise LedgerError(
                    f"charge {charge_id!r} in {self._store.name} is {known.state} and can no "
                    f"longer be {state}"
                )
            return self._put(held, known.at(state, self._now(charges)))

    @staticmethod
    def _put(held: LedgerTransaction, charge: Charge) -> Charge:
        held.put(charge.line)
        return charge

    def _read(self, held: LedgerTransaction) -> dict[str, Charge]:
        """Read every charge, by id, in the order they were first reserved."""
        return self._parsed(held.charges())

    def _parsed(self, lines: Iterable[StoredCharge]) -> dict[str, Charge]:
        try:
            return {line.charge_id: Charge.of_line(line) for line in lines}
        except (InvalidParameterError, OverflowError, TypeError, ValueError) as error:
            raise LedgerError(
                f"ledger {self._store.name} is damaged, a charge cannot be read ({error}): restore "
                "it from a backup"
            ) from error

    @contextmanager
    def _transaction(self, *, create: bool = False) -> Iterator[LedgerTransaction]:
        """Hold the ledger, if it is the one that was opened; start it if that was asked for."""
        opened = self._clock() if create else None
        with self._store.transaction(opened=opened) as held:
            found = held.terms()
            if found is None and create:
                held.start(self._terms)
                found = held.terms()
            if found is None:
                raise LedgerError(f"ledger {self._store.name} is gone: restore it from a backup")
            self._check(found)
            yield held

    def _check(self, found: LedgerTerms) -> None:
        if found != self._terms:
            raise LedgerError(
                f"ledger {self._store.name} belongs to other terms: expected {self._terms}, "
                f"got {found}: every agreement has a ledger of its own"
            )


def _counting(charges: dict[str, Charge]) -> list[Event]:
    """Return the events that weigh on the budget."""
    return [charge.event for charge in charges.values() if charge.counts]
