"""A party's spending under one agreement: reserve, then commit or refund, each exactly once.

Guarantees: what is reserved and committed never costs more than the agreement's ε at its δ, priced
as one composition, whatever processes and threads share the file and whenever one of them is
killed. A charge is reserved before its release and counts as spent from then on, so that a crash
can lose budget but never spend it twice. Every change is one SQLite transaction (rollback journal,
synchronised to disk); the cap is checked inside it, under the write lock.

    (none) ──reserve──> reserved ──commit──> committed
                         │    ^
                    refund    reserve
                         v    │
                        refunded

Repeating a step that was already taken changes nothing; any other step raises. Leaves to others:
refunding only what was never released, and proof of the spending (the compliance log).
"""

import math
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

from privacy.accounting.accountant import check_delta, epsilon_of
from privacy.accounting.events import Event, from_json, to_json
from privacy.errors import BudgetExceededError, InvalidParameterError, LedgerError

__all__ = ["Budget", "Charge", "ChargeState", "Ledger", "Statement"]

_APPLICATION_ID = 0x434C4447  # "CLDG", SQLite's mark of whose file this is
_BUSY_SECONDS = 60.0
_CHARGE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/ -]{0,127}")
_SCHEMA = (
    f"PRAGMA application_id = {_APPLICATION_ID}",
    """CREATE TABLE terms (
        only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
        agreement TEXT NOT NULL,
        epsilon REAL NOT NULL,
        delta REAL NOT NULL
    )""",
    """CREATE TABLE charges (
        position INTEGER PRIMARY KEY,
        charge_id TEXT NOT NULL UNIQUE,
        event TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('reserved', 'committed', 'refunded'))
    )""",
)


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
    """The spending under one agreement, kept in one SQLite file.

    It holds no connection between calls: it may be shared by threads, and by processes after a
    fork. Every method raises `LedgerError` if the file is missing, damaged, another's, or held by
    others for more than a minute.
    """

    def __init__(self, path: Path, agreement: str, budget: Budget) -> None:
        self._path = path
        self._agreement = agreement
        self._budget = budget

    @classmethod
    def open(cls, path: Path, *, agreement: str, budget: Budget) -> Self:
        """Open the ledger at `path`, or start it.

        Args:
            path: the SQLite file; its directory exists.
            agreement: digest of the agreement that sets the budget.
            budget: the agreement's cap.

        Raises:
            InvalidParameterError: if `agreement` is empty.
            LedgerError: if the file belongs to another agreement or budget, or to no ledger.
        """
        if not agreement:
            raise InvalidParameterError("a ledger needs the digest of its agreement, got none")
        ledger = cls(path, agreement, budget)
        with ledger._transaction(create=True):
            return ledger

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
        epsilon_of([event], self._budget.delta)  # prices it, or refuses it, before the lock
        with self._transaction() as database:
            charges = self._read(database)
            known = charges.get(charge_id)
            if known is not None and known.counts:
                if known.event != event:
                    raise LedgerError(
                        f"charge {charge_id!r} is {known.state} for another event in {self._path}: "
                        "give the new event an id of its own"
                    )
                return known
            held = _held(charges)
            asked = self._price([*held, event])
            if asked > self._budget.epsilon:
                raise BudgetExceededError(
                    asked=asked,
                    spent=self._price(held),
                    cap=self._budget.epsilon,
                    charge_id=charge_id,
                )
            database.execute(
                "INSERT INTO charges (charge_id, event, state) VALUES (?, ?, ?) "
                "ON CONFLICT (charge_id) DO UPDATE SET event = excluded.event, "
                "state = excluded.state",
                (charge_id, to_json(event), ChargeState.RESERVED),
            )
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
        with self._transaction() as database:
            return self._read(database).get(charge_id)

    def statement(self) -> Statement:
        """Return the whole ledger as of now."""
        with self._transaction() as database:
            charges = self._read(database)
        spent = self._price(_held(charges))
        committed = self._price(
            [c.event for c in charges.values() if c.state is ChargeState.COMMITTED]
        )
        return Statement(
            epsilon_cap=self._budget.epsilon,
            delta=self._budget.delta,
            epsilon_spent=spent,
            epsilon_committed=committed,
            epsilon_left=max(0.0, self._budget.epsilon - spent),
            charges=tuple(charges.values()),
        )

    def epsilon_if(self, event: Event) -> float:
        """Return the ε that would be spent in all if `event` were charged now; changes nothing."""
        with self._transaction() as database:
            held = _held(self._read(database))
        return self._price([*held, event])

    def _price(self, events: list[Event]) -> float:
        return epsilon_of(events, self._budget.delta)

    def _settle(self, charge_id: str, state: ChargeState) -> Charge:
        """Move a reserved charge to `state`, once."""
        with self._transaction() as database:
            known = self._read(database).get(charge_id)
            if known is None:
                raise LedgerError(
                    f"no charge {charge_id!r} in {self._path}: it must be reserved before it is "
                    f"{state}"
                )
            if known.state not in {ChargeState.RESERVED, state}:
                raise LedgerError(
                    f"charge {charge_id!r} in {self._path} is {known.state} and can no longer be "
                    f"{state}"
                )
            database.execute("UPDATE charges SET state = ? WHERE charge_id = ?", (state, charge_id))
        return Charge(charge_id, known.event, state)

    def _read(self, database: sqlite3.Connection) -> dict[str, Charge]:
        """Read every charge, by id, in the order they were first reserved."""
        rows = database.execute("SELECT charge_id, event, state FROM charges ORDER BY position")
        try:
            return {
                charge_id: Charge(charge_id, from_json(event), ChargeState(state))
                for charge_id, event, state in rows
            }
        except (InvalidParameterError, TypeError, ValueError) as error:
            raise LedgerError(
                f"ledger {self._path} is damaged, a charge cannot be read ({error}): restore it "
                "from a backup"
            ) from error

    @contextmanager
    def _transaction(self, *, create: bool = False) -> Iterator[sqlite3.Connection]:
        """Hold the write lock; commit at the end. On any error, closing rolls back.

        What a kill leaves: before COMMIT returns, the state before (SQLite rolls its journal back
        at the next open); after it, the state after.
        """
        target = f"{self._path.absolute().as_uri()}?mode={'rwc' if create else 'rw'}"
        try:
            with closing(
                sqlite3.connect(target, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
            ) as database:
                database.execute("PRAGMA synchronous = EXTRA")
                database.execute("BEGIN IMMEDIATE")
                self._claim(database, create=create)
                yield database
                database.execute("COMMIT")
        except sqlite3.Error as error:
            raise LedgerError(
                f"ledger {self._path} cannot be used ({error}): check that the file is a ledger, "
                "that it may be written, and that no other process keeps it locked"
            ) from error

    def _claim(self, database: sqlite3.Connection, *, create: bool) -> None:
        """Make sure that the file is this agreement's ledger; start it if it is empty."""
        terms = (self._agreement, self._budget.epsilon, self._budget.delta)
        (mark,) = database.execute("PRAGMA application_id").fetchone()
        (tables,) = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if create and not mark and not tables:
            for statement in _SCHEMA:
                database.execute(statement)
            database.execute("INSERT INTO terms VALUES (1, ?, ?, ?)", terms)
        elif mark != _APPLICATION_ID:
            raise LedgerError(f"{self._path} is not a ledger: give another path")
        found = database.execute("SELECT agreement, epsilon, delta FROM terms").fetchone()
        if found != terms:
            raise LedgerError(
                f"ledger {self._path} belongs to other terms: expected agreement, epsilon and "
                f"delta {terms}, got {found}: every agreement has a ledger of its own"
            )


def _held(charges: dict[str, Charge]) -> list[Event]:
    """Return the events that weigh on the budget."""
    return [charge.event for charge in charges.values() if charge.counts]
