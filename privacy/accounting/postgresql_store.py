"""A ledger in tables of a PostgreSQL database, which many ledgers share.

Guarantees: what every store does (`store`). A database that is away for a quarter of a minute is
waited for before a transaction begins; one that goes away within a transaction ends it with an
error. The tables of all its ledgers are brought to the present format together.

Leaves to others: what the lines mean, and whether they may be written (`ledger`); how a format
becomes the next (`migrations`).
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, fields
from datetime import datetime
from typing import Any, Final

from privacy.accounting.migrations import NUMBER_TABLE, PRESENT, format_of, migrate
from privacy.accounting.postgresql import postgresql_engine, reached, shown
from privacy.accounting.store import BUSY_SECONDS, LedgerTerms, LedgerTransaction, StoredCharge
from privacy.errors import LedgerError

__all__ = ["PostgresqlStore"]


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
            self._engine = postgresql_engine(parsed)
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
        return f"of {self._party} in {shown(self._engine.url)}"

    def exists(self) -> bool:
        """Tell whether the party's ledger under the agreement has been started."""
        with self._connection() as connection:
            return self._has(connection, self._tables.charges) and self._held(connection).exists()

    @contextmanager
    def transaction(self, *, opened: datetime | None = None) -> Iterator[LedgerTransaction]:
        """Hold the ledger; see `LedgerStore.transaction`."""
        import sqlalchemy as sa

        with self._connection() as connection:
            settings = {"lock_timeout": f"{BUSY_SECONDS}s", "synchronous_commit": "on"}
            local = [sa.func.set_config(name, value, True) for name, value in settings.items()]
            connection.execute(sa.select(*local))
            held = self._held(connection)
            numbered = self._has(connection, self._tables.formats)
            ready = numbered and self._format(connection) == PRESENT
            if opened is None and not ready:
                raise LedgerError(
                    f"ledger {self.name} is gone, or has an earlier format than when it was "
                    "opened: restore it from a backup, or start again what uses it"
                )
            if not (ready and held.find(lock=True)) and opened is not None:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(self._STARTING)))
                self._prepare(connection, opened)
                held.find(lock=True)  # another may have started it in the meantime
            yield held

    def look(self) -> tuple[LedgerTerms, Sequence[StoredCharge]] | None:
        """Look at the ledger; see `LedgerStore.look`."""
        with self._connection(looks=True) as connection:
            if not self._has(connection, self._tables.charges):
                return None
            held = self._held(connection)
            numbered = self._has(connection, self._tables.formats)
            if not (numbered and self._format(connection) == PRESENT):
                raise LedgerError(
                    f"ledger {self.name} has an earlier format, and is brought to {PRESENT} when "
                    "it is next opened: ask again after that"
                )
            if not held.find():
                return None
            terms = held.terms()
            return None if terms is None else (terms, held.charges())

    def _held(self, connection: Any) -> "_PostgresqlTransaction":
        return _PostgresqlTransaction(connection, self._tables, self._party, self._agreement)

    def _has(self, connection: Any, table: Any) -> bool:
        import sqlalchemy as sa

        found = sa.select(sa.func.to_regclass(table.name))
        return connection.execute(found).scalar_one() is not None

    def _format(self, connection: Any) -> int:
        import sqlalchemy as sa

        number = sa.select(sa.func.max(self._tables.formats.c.version_num))
        return format_of(connection.execute(number).scalar_one(), name=self.name)

    def _prepare(self, connection: Any, opened: datetime) -> None:
        """Make the tables, or bring them to the present format, holding the advisory lock."""
        import sqlalchemy as sa

        # not by `to_regclass`, which may remember from before the lock that there are none
        tables = sa.inspect(connection)
        if not tables.has_table(self._tables.charges.name):
            self._tables.metadata.create_all(connection)
            connection.execute(self._tables.formats.insert().values(version_num=str(PRESENT)))
        elif not tables.has_table(NUMBER_TABLE) or self._format(connection) < PRESENT:
            # other parties' ledgers too, whose clocks may be ahead of this one's
            here = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
            migrate(connection, moment=max(opened, here))

    @contextmanager
    def _connection(self, *, looks: bool = False) -> Iterator[Any]:
        import sqlalchemy as sa

        try:
            with (
                self._glimpsed() if looks else reached(self._engine, self._pause) as connection,
                connection.begin(),
            ):
                yield connection
        except sa.exc.SQLAlchemyError as error:
            reason = type(getattr(error, "orig", None) or error).__name__
            raise LedgerError(
                f"ledger {self.name} cannot be used ({reason}: none is there, or its own log says "
                "why): check the URL, that the database is up, that the party may write there, and "
                "that no other session keeps the ledger locked"
            ) from None  # the error's own text may quote the URL, which holds a password

    def _glimpsed(self) -> Any:
        """Return a connection whose transaction reads as of one moment; try once."""
        return self._engine.connect().execution_options(isolation_level="REPEATABLE READ")


class _Tables:
    """The tables, which many ledgers share."""

    def __init__(self) -> None:
        import sqlalchemy as sa

        self.metadata = sa.MetaData()
        self.formats = sa.Table(
            NUMBER_TABLE,
            self.metadata,
            sa.Column("version_num", sa.String(32), nullable=False),
            sa.PrimaryKeyConstraint("version_num", name=f"{NUMBER_TABLE}_pkc"),
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

    def exists(self) -> bool:
        """Tell whether there is such a ledger, in tables of whatever format."""
        table = self._tables.ledgers
        row = table.select().with_only_columns(table.c.party).filter_by(**self._key)
        return self._connection.execute(row).one_or_none() is not None

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
