"""Where a ledger is kept, and its store in a SQLite file of its own.

Guarantees: a transaction holds the ledger for its own thread alone, whatever threads, processes and
machines share the store; it happens wholly and is on disk when it ends, or, after an error or a
kill, not at all; what others committed before it began, it sees. A ledger that is not there is
started only where that was asked for. One that an earlier version of this project wrote is brought
to the present format when it is opened, wholly, or else stays as it was; one that a later version
wrote is refused.

Leaves to others: what the lines mean, and whether they may be written (`ledger`); how a format
becomes the next (`migrations`); PostgreSQL (`postgresql_store`).
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import astuple, dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from privacy.accounting.migrations import NUMBER_TABLE, PRESENT, format_of, migrate
from privacy.errors import LedgerError

__all__ = [
    "BUSY_SECONDS",
    "LedgerStore",
    "LedgerTerms",
    "LedgerTransaction",
    "SqliteStore",
    "StoredCharge",
]

BUSY_SECONDS: Final = 60
"""How long a transaction waits for another one to end."""
_LOOK_SECONDS: Final = 2.0
"""How long who only looks waits for another's COMMIT."""


@dataclass(frozen=True, slots=True)
class LedgerTerms:
    """What a ledger is kept for: the agreement's digest, its cap, and that of a period, if any."""

    agreement: str
    epsilon: float
    delta: float
    period_days: int | None = None
    period_epsilon: float | None = None
    period_delta: float | None = None


@dataclass(frozen=True, slots=True)
class StoredCharge:
    """One line: the caller's name for it, its event's canonical JSON, its state, and since when.

    The moment is in microseconds since 1970, UTC.
    """

    charge_id: str
    event: str
    state: str
    since: int


class LedgerTransaction(Protocol):
    """A ledger, held."""

    def terms(self) -> LedgerTerms | None:
        """Return what the ledger is kept for; None if it has not been started."""
        ...

    def start(self, terms: LedgerTerms) -> None:
        """Start the ledger, which has not been."""
        ...

    def amend(self, terms: LedgerTerms) -> None:
        """Keep the ledger, which is of the same agreement, for another cap from here on."""
        ...

    def charges(self) -> Sequence[StoredCharge]:
        """Return every line, in the order in which their ids were first put."""
        ...

    def put(self, charge: StoredCharge) -> None:
        """Write a line, in place of the one of that id if there is one."""
        ...


class LedgerStore(Protocol):
    """Where one ledger is kept. It holds no connection between calls, so threads may share it."""

    @property
    def name(self) -> str:
        """What errors call it; no password is in it."""
        ...

    def exists(self) -> bool:
        """Tell whether the ledger has been started here.

        Raises:
            LedgerError: the store cannot be reached.
        """
        ...

    def transaction(
        self, *, opened: datetime | None = None
    ) -> AbstractContextManager[LedgerTransaction]:
        """Hold the ledger, and commit at the end of the block; an error in it rolls back.

        Args:
            opened: the moment, with a time zone, at which a ledger is opened: its file or tables
                are made if they are not there, and are brought to the present format if they are
                of an earlier one. None after that.

        Raises:
            LedgerError: the store is missing, damaged, another's, of another format, out of reach,
                or held by others for more than a minute.
        """
        ...

    def look(self) -> tuple[LedgerTerms, Sequence[StoredCharge]] | None:
        """Return terms and lines as one transaction left them; None if there is no ledger.

        It holds nothing, waits for nobody who does, tries once, and writes nothing.

        Raises:
            LedgerError: the store is damaged, another's, or out of reach now.
        """
        ...


class SqliteStore:
    """A ledger in a file of its own.

    The rollback journal is synchronised to disk; the write lock is taken first. A kill before
    COMMIT returns leaves the state before (SQLite rolls its journal back at the next opening).
    """

    _APPLICATION_ID: Final = 0x434C4447  # "CLDG", SQLite's mark of whose file this is
    _SCHEMA: Final = (
        f"PRAGMA application_id = {_APPLICATION_ID}",
        f"""CREATE TABLE {NUMBER_TABLE} (
            version_num VARCHAR(32) NOT NULL,
            CONSTRAINT {NUMBER_TABLE}_pkc PRIMARY KEY (version_num)
        )""",
        f"INSERT INTO {NUMBER_TABLE} VALUES ('{PRESENT}')",  # noqa: S608 -- constants
        """CREATE TABLE terms (
            only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
            agreement TEXT NOT NULL,
            epsilon REAL NOT NULL,
            delta REAL NOT NULL,
            period_days INTEGER,
            period_epsilon REAL,
            period_delta REAL
        )""",
        """CREATE TABLE charges (
            position INTEGER NOT NULL PRIMARY KEY,
            charge_id TEXT NOT NULL UNIQUE,
            event TEXT NOT NULL,
            state TEXT NOT NULL CHECK (state IN ('reserved', 'committed', 'refunded')),
            since INTEGER NOT NULL
        )""",
    )

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def name(self) -> str:
        """The file's path."""
        return str(self._path)

    def exists(self) -> bool:
        """Tell whether the file is there."""
        return self._path.exists()

    @contextmanager
    def transaction(self, *, opened: datetime | None = None) -> Iterator[LedgerTransaction]:
        """Hold the ledger; see `LedgerStore.transaction`."""
        with self._told(), closing(self._connect(create=opened is not None)) as database:
            database.execute("BEGIN IMMEDIATE")
            found = self._claim(database, create=opened is not None)
            if found < PRESENT:
                if opened is None:
                    raise LedgerError(
                        f"ledger {self.name} has format {found}, and {PRESENT} when it was "
                        "opened: start again what uses it"
                    )
                database.execute("ROLLBACK")
                self._migrate(opened)
                database.execute("BEGIN IMMEDIATE")
                self._claim(database)
            yield _SqliteTransaction(database)
            database.execute("COMMIT")

    def look(self) -> tuple[LedgerTerms, Sequence[StoredCharge]] | None:
        """Look at the ledger; see `LedgerStore.look`."""
        if not self.exists():
            return None
        with self._told(), closing(self._connect(looks=True)) as database:
            database.execute("BEGIN")  # what follows is read as of one moment
            if (found := self._claim(database)) < PRESENT:
                raise LedgerError(
                    f"ledger {self.name} has format {found}, and is brought to {PRESENT} when it "
                    "is next opened: ask again after that"
                )
            held = _SqliteTransaction(database)
            terms = held.terms()
            return None if terms is None else (terms, held.charges())

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise LedgerError(
                f"ledger {self.name} cannot be used ({error}): check that the file is a ledger, "
                "that it may be written, and that no other process keeps it locked"
            ) from error

    def _connect(self, *, create: bool = False, looks: bool = False) -> sqlite3.Connection:
        mode = "ro" if looks else "rwc" if create else "rw"
        target = f"{self._path.absolute().as_uri()}?mode={mode}"
        seconds = _LOOK_SECONDS if looks else BUSY_SECONDS
        database = sqlite3.connect(target, uri=True, timeout=seconds, isolation_level=None)
        if not looks:
            database.execute("PRAGMA synchronous = EXTRA")
        return database

    def _claim(self, database: sqlite3.Connection, *, create: bool = False) -> int:
        """Make sure that the file is a ledger, one if it is empty; return its format."""
        (mark,) = database.execute("PRAGMA application_id").fetchone()
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_schema")}
        if create and not mark and not tables:
            for statement in self._SCHEMA:
                database.execute(statement)
            return PRESENT
        if mark != self._APPLICATION_ID:
            raise LedgerError(f"{self.name} is not a ledger: give another path")
        if NUMBER_TABLE not in tables:
            return 1
        query = f"SELECT version_num FROM {NUMBER_TABLE}"  # noqa: S608 -- a constant
        row = database.execute(query).fetchone()
        return format_of(row and str(row[0]), name=self.name)

    def _migrate(self, moment: datetime) -> None:
        """Bring the file to the present format, unless another has done so meanwhile."""
        import sqlalchemy as sa

        engine = sa.create_engine("sqlite://", creator=self._connect, poolclass=sa.NullPool)
        # SQLAlchemy leaves it to the driver when a transaction begins, and the driver to us
        sa.event.listen(engine, "begin", lambda one: one.exec_driver_sql("BEGIN IMMEDIATE"))
        try:
            with engine.begin() as connection:
                migrate(connection, moment=moment)
        except sa.exc.SQLAlchemyError as error:
            raise LedgerError(
                f"ledger {self.name} was not brought to format {PRESENT} and is as it was "
                f"({getattr(error, 'orig', None) or error}): see that its disk has room for a copy "
                "and may be written, and that no other process keeps it locked"
            ) from error


class _SqliteTransaction:
    """See `LedgerTransaction`."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def terms(self) -> LedgerTerms | None:
        found = self._database.execute(
            "SELECT agreement, epsilon, delta, period_days, period_epsilon, period_delta FROM terms"
        ).fetchone()
        return None if found is None else LedgerTerms(*found)

    def start(self, terms: LedgerTerms) -> None:
        self._database.execute("INSERT INTO terms VALUES (1, ?, ?, ?, ?, ?, ?)", astuple(terms))

    def amend(self, terms: LedgerTerms) -> None:
        self._database.execute(
            "UPDATE terms SET epsilon = ?, delta = ?, period_days = ?, period_epsilon = ?, "
            "period_delta = ?",
            astuple(terms)[1:],
        )

    def charges(self) -> Sequence[StoredCharge]:
        rows = self._database.execute(
            "SELECT charge_id, event, state, since FROM charges ORDER BY position"
        )
        return [StoredCharge(*row) for row in rows]

    def put(self, charge: StoredCharge) -> None:
        self._database.execute(
            "INSERT INTO charges (charge_id, event, state, since) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (charge_id) DO UPDATE SET event = excluded.event, "
            "state = excluded.state, since = excluded.since",
            astuple(charge),
        )
