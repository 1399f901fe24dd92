"""Where a ledger is kept: one SQLite file, or tables of a PostgreSQL database that many share.

Guarantees: a transaction holds the ledger for its own thread alone, whatever threads, processes and
machines share the store; it happens wholly and is on disk when it ends, or, after an error or a
kill, not at all; what others committed before it began, it sees. A ledger that is not there is
started only where that was asked for; one that a later version of this project wrote is refused. A
database that is away for a quarter of a minute is waited for before a transaction begins; one that
goes away within a transaction ends it with an error.

Leaves to others: what the lines mean, and whether they may be written (`ledger`).
"""

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any, Final, Protocol

from privacy.errors import LedgerError

__all__ = [
    "LedgerStore",
    "LedgerTerms",
    "LedgerTransaction",
    "PostgresqlStore",
    "SqliteStore",
    "StoredCharge",
    "ledger_store",
]

_BUSY_SECONDS: Final = 60
_CONNECT_SECONDS: Final = 10
_PAUSES: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between two attempts to reach a database."""
_LOOK_SECONDS: Final = 2.0
"""How long who only looks waits for another's COMMIT."""
_FORMAT: Final = 1
"""Version of the tables. Those without a number are of version 1."""


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

    def transaction(self, *, create: bool = False) -> AbstractContextManager[LedgerTransaction]:
        """Hold the ledger, and commit at the end of the block; an error in it rolls back.

        Args:
            create: make the file or tables if they are not there.

        Raises:
            LedgerError: the store is missing, damaged, another's, out of reach, or held by others
                for more than a minute.
        """
        ...

    def look(self) -> tuple[LedgerTerms, Sequence[StoredCharge]] | None:
        """Return terms and lines as one transaction left them; None if there is no ledger.

        It holds nothing, waits for nobody who does, tries once, and writes nothing.

        Raises:
            LedgerError: the store is damaged, another's, or out of reach now.
        """
        ...


def ledger_store(
    place: Path | str, *, party: str, agreement: str, pause: Callable[[float], None] = time.sleep
) -> LedgerStore:
    """Return the store at a place.

    Args:
        place: a SQLite file, which is one party's under one agreement; or the URL of a PostgreSQL
            database, which keeps the ledgers of many apart by both.
        party: whose ledger it is.
        agreement: digest of the agreement.
        pause: waits for so many seconds between two attempts to reach a database.

    Raises:
        LedgerError: the URL is malformed or none of PostgreSQL's, or its driver is not installed.
    """
    if isinstance(place, Path):
        return SqliteStore(place)
    return PostgresqlStore(place, party=party, agreement=agreement, pause=pause)


class SqliteStore:
    """A ledger in a file of its own.

    The rollback journal is synchronised to disk; the write lock is taken first. A kill before
    COMMIT returns leaves the state before (SQLite rolls its journal back at the next opening).
    """

    _APPLICATION_ID: Final = 0x434C4447  # "CLDG", SQLite's mark of whose file this is
    _SCHEMA: Final = (
        f"PRAGMA application_id = {_APPLICATION_ID}",
        f"PRAGMA user_version = {_FORMAT}",
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
            position INTEGER PRIMARY KEY,
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
    def transaction(self, *, create: bool = False) -> Iterator[LedgerTransaction]:
        """Hold the ledger; see `LedgerStore.transaction`."""
        with self._connected("rwc" if create else "rw", _BUSY_SECONDS) as database:
            database.execute("PRAGMA synchronous = EXTRA")
            database.execute("BEGIN IMMEDIATE")
            self._claim(database, create=create)
            yield _SqliteTransaction(database)
            database.execute("COMMIT")

    def look(self) -> tuple[LedgerTerms, Sequence[StoredCharge]] | None:
        """Look at the ledger; see `LedgerStore.look`."""
        if not self.exists():
            return None
        with self._connected("ro", _LOOK_SECONDS) as database:
            database.execute("BEGIN")  # what follows is read as of one moment
            self._claim(database, create=False)
            found = _SqliteTransaction(database)
            terms = found.terms()
            return None if terms is None else (terms, found.charges())

    @contextmanager
    def _connected(self, mode: str, seconds: float) -> Iterator[sqlite3.Connection]:
        target = f"{self._path.absolute().as_uri()}?mode={mode}"
        try:
            with closing(
                sqlite3.connect(target, uri=True, timeout=seconds, isolation_level=None)
            ) as database:
                yield database
        except sqlite3.Error as error:
            raise LedgerError(
                f"ledger {self.name} cannot be used ({error}): check that the file is a ledger, "
                "that it may be written, and that no other process keeps it locked"
            ) from error

    def _claim(self, database: sqlite3.Connection, *, create: bool) -> None:
        """Make sure that the file is a ledger; make it one if it is empty."""
        (mark,) = database.execute("PRAGMA application_id").fetchone()
        (tables,) = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if create and not mark and not tables:
            for statement in self._SCHEMA:
                database.execute(statement)
        elif mark != self._APPLICATION_ID:
            raise LedgerError(f"{self.name} is not a ledger: give another path")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        _check_format(self.name, version)


def _check_format(name: str, version: int) -> None:
    if version > _FORMAT:
        raise LedgerError(
            f"ledger {name} has format {version}, and this version of Comity knows those up to "
            f"{_FORMAT}: install the version that wrote it, or a later one"
        )


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


class PostgresqlStore:
    """A ledger in the tables `comity_ledgers` and `comity_charges`, beside those of others.

    The ledger's own row is locked first (`FOR UPDATE`), so that its transactions follow each other
    and those of other ledgers go on; what is read after that is read anew (`READ COMMITTED`,
    whatever the server, database or role has for a default). Starting ledgers waits for an advisory
    lock. A kill before COMMIT leaves the state before: the server rolls back when the connection
    breaks.

    Args:
        url: `postgresql://user:password@host/database`; a search path may name a schema.
        party: whose ledger it is.
        agreement: digest of the agreement that it is kept for.
        pause: waits for so many seconds between two attempts to reach the database.

    Raises:
        LedgerError: the URL is malformed or names another kind of database, or its driver is not
            installed.
    """

    _STARTING: Final = 0x434C4447  # the advisory lock's number: "CLDG"

    def __init__(
        self,
        url: str,
        *,
        party: str,
        agreement: str,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        import sqlalchemy as sa

        expected = "expected postgresql://user:password@host/database"
        try:
            parsed = sa.make_url(url)
        except (sa.exc.ArgumentError, ValueError):
            raise LedgerError(f"the URL of {party}'s ledger is malformed: {expected}") from None
        if parsed.get_backend_name() != "postgresql":
            raise LedgerError(
                f"{party}'s ledger cannot be kept in {parsed.get_backend_name()}: {expected}, or "
                "leave it out to keep the ledger in a file"
            )
        try:
            self._engine = sa.create_engine(
                parsed.set(drivername="postgresql+psycopg"),
                poolclass=sa.NullPool,
                isolation_level="READ COMMITTED",  # or what is read after a wait is from before it
                hide_parameters=True,
                connect_args={"connect_timeout": _CONNECT_SECONDS},
            )
        except ImportError as error:
            raise LedgerError(
                "no driver for PostgreSQL is installed: pip install 'psycopg[binary]'"
            ) from error
        self._party = party
        self._agreement = agreement
        self._tables = _Tables()
        self._pause = pause

    @property
    def name(self) -> str:
        """The URL without password and query, and whose ledger it is."""
        url = self._engine.url.set(drivername="postgresql", query={})
        return f"of {self._party} in {url.render_as_string(hide_password=True)}"

    def exists(self) -> bool:
        """Tell whether the party's ledger under the agreement has been started."""
        with self._connection() as connection:
            return self._are_made(connection) and self._held(connection).find()

    @contextmanager
    def transaction(self, *, create: bool = False) -> Iterator[LedgerTransaction]:
        """Hold the ledger; see `LedgerStore.transaction`."""
        import sqlalchemy as sa

        with self._connection() as connection:
            settings = {"lock_timeout": f"{_BUSY_SECONDS}s", "synchronous_commit": "on"}
            local = [sa.func.set_config(name, value, True) for name, value in settings.items()]
            connection.execute(sa.select(*local))
            held = self._held(connection)
            found = (not create or self._are_made(connection)) and held.find(lock=True)
            if create and not found:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(self._STARTING)))
                # not by `to_regclass`, which may remember from before the lock that there are none
                is_new = not sa.inspect(connection).has_table(self._tables.charges.name)
                self._tables.metadata.create_all(connection)
                if is_new:
                    connection.execute(self._tables.formats.insert().values(version=_FORMAT))
                held.find(lock=True)  # another may have started it in the meantime
            yield held

    def look(self) -> tuple[LedgerTerms, Sequence[StoredCharge]] | None:
        """Look at the ledger; see `LedgerStore.look`."""
        with self._connection(looks=True) as connection:
            held = self._held(connection)
            if not self._are_made(connection) or not held.find():
                return None
            terms = held.terms()
            return None if terms is None else (terms, held.charges())

    def _held(self, connection: Any) -> "_PostgresqlTransaction":
        return _PostgresqlTransaction(connection, self._tables, self._party, self._agreement)

    def _are_made(self, connection: Any) -> bool:
        import sqlalchemy as sa

        found = sa.select(sa.func.to_regclass(self._tables.charges.name))
        return connection.execute(found).scalar_one() is not None

    @contextmanager
    def _connection(self, *, looks: bool = False) -> Iterator[Any]:
        import sqlalchemy as sa

        try:
            with self._glimpsed() if looks else self._reached() as connection, connection.begin():
                self._check_format(connection)
                yield connection
        except sa.exc.SQLAlchemyError as error:
            reason = type(getattr(error, "orig", None) or error).__name__
            raise LedgerError(
                f"ledger {self.name} cannot be used ({reason}; the database's own log says why): "
                "check the URL, that the database is up, that the party may write there, and that "
                "no other session keeps the ledger locked"
            ) from None  # the error's own text may quote the URL, which holds a password

    def _reached(self) -> Any:
        """Return a connection; if the database is away, try again a few times."""
        import sqlalchemy as sa

        for seconds in _PAUSES:
            try:
                return self._engine.connect()
            except sa.exc.OperationalError:
                self._pause(seconds)
        return self._engine.connect()

    def _glimpsed(self) -> Any:
        """Return a connection whose transaction reads as of one moment; try once."""
        return self._engine.connect().execution_options(isolation_level="REPEATABLE READ")

    def _check_format(self, connection: Any) -> None:
        import sqlalchemy as sa

        table = self._tables.formats
        if connection.execute(sa.select(sa.func.to_regclass(table.name))).scalar_one() is None:
            return
        version = connection.execute(sa.select(sa.func.max(table.c.version))).scalar_one()
        _check_format(self.name, version or _FORMAT)


class _Tables:
    """The tables, which many ledgers share."""

    def __init__(self) -> None:
        import sqlalchemy as sa

        self.metadata = sa.MetaData()
        self.formats = sa.Table(
            "comity_formats",
            self.metadata,
            sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        )
        self.ledgers = sa.Table(
            "comity_ledgers",
            self.metadata,
            sa.Column("party", sa.Text, primary_key=True),
            sa.Column("agreement", sa.Text, primary_key=True),
            sa.Column("epsilon", sa.Double, nullable=False),
            sa.Column("delta", sa.Double, nullable=False),
            sa.Column("period_days", sa.Integer),
            sa.Column("period_epsilon", sa.Double),
            sa.Column("period_delta", sa.Double),
        )
        self.charges = sa.Table(
            "comity_charges",
            self.metadata,
            sa.Column("position", sa.BigInteger, sa.Identity(always=True), primary_key=True),
            sa.Column("party", sa.Text, nullable=False),
            sa.Column("agreement", sa.Text, nullable=False),
            sa.Column("charge_id", sa.Text, nullable=False),
            sa.Column("event", sa.Text, nullable=False),
            sa.Column("state", sa.Text, nullable=False),
            sa.Column("since", sa.BigInteger, nullable=False),
            sa.CheckConstraint("state IN ('reserved', 'committed', 'refunded')"),
            sa.UniqueConstraint("party", "agreement", "charge_id"),
            sa.ForeignKeyConstraint(
                ["party", "agreement"], ["comity_ledgers.party", "comity_ledgers.agreement"]
            ),
        )


class _PostgresqlTransaction:
    """See `LedgerTransaction`."""

    def __init__(self, connection: Any, tables: _Tables, party: str, agreement: str) -> None:
        self._connection = connection
        self._tables = tables
        self._key = {"party": party, "agreement": agreement}
        self._terms: LedgerTerms | None = None

    def find(self, *, lock: bool = False) -> bool:
        """Read what the ledger is kept for; wait until it is free; return whether there is one."""
        table = self._tables.ledgers
        columns = (table.c[one.name] for one in fields(LedgerTerms))
        row = table.select().with_only_columns(*columns).filter_by(**self._key)
        found = self._connection.execute(row.with_for_update() if lock else row).one_or_none()
        self._terms = None if found is None else LedgerTerms(*found)
        return found is not None

    def terms(self) -> LedgerTerms | None:
        return self._terms

    def start(self, terms: LedgerTerms) -> None:
        self._terms = LedgerTerms(self._key["agreement"], *astuple(terms)[1:])
        values = self._key | asdict(self._terms)
        self._connection.execute(self._tables.ledgers.insert().values(**values))

    def amend(self, terms: LedgerTerms) -> None:
        table = self._tables.ledgers
        where = [table.c[name] == value for name, value in self._key.items()]
        self._terms = LedgerTerms(self._key["agreement"], *astuple(terms)[1:])
        self._connection.execute(table.update().where(*where).values(**asdict(self._terms)))

    def charges(self) -> Sequence[StoredCharge]:
        table = self._tables.charges
        rows = self._connection.execute(
            table.select()
            .with_only_columns(*(table.c[one.name] for one in fields(StoredCharge)))
            .filter_by(**self._key)
            .order_by(table.c.position)
        )
        return [StoredCharge(*row) for row in rows]

    def put(self, charge: StoredCharge) -> None:
        from sqlalchemy.dialects.postgresql import insert

        line = asdict(charge)
        self._connection.execute(
            insert(self._tables.charges)
            .values(**self._key, **line)
            .on_conflict_do_update(index_elements=["party", "agreement", "charge_id"], set_=line)
        )
