"""The database that keeps copies of parties' folders: PostgreSQL, or a SQLite file elsewhere.

Guarantees: a transaction happens wholly and is on disk when it ends, or, after an error or a kill,
not at all; those of one party follow each other. A database that is away for a quarter of a minute
is waited for before a transaction begins. Tables are made at first use, and brought to the present
format. No error and no name holds a password.

Leaves to others: what is kept (`replica`, `restoring`), the formats (`migrations`).
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from federation.errors import ReplicaError
from federation.replica.kept import KeptFile, Part, Standing, microseconds, moment
from federation.replica.migrations import NUMBER_TABLE, PRESENT, format_of, migrate
from privacy.accounting.postgresql import postgresql_engine, reached, shown

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

__all__ = ["ReplicaStore", "ReplicaTransaction"]

_BUSY_SECONDS: Final = 60
_MAKING: Final = 0x43524550  # the advisory lock's number: "CREP"
_EXPECTED: Final = "expected postgresql://user:password@host/database or sqlite:////absolute/path"


class ReplicaStore:
    """Copies of parties' folders, in one database. It holds no connection between transactions.

    Args:
        url: of SQLAlchemy; a search path may name a schema.
        pause: waits for so many seconds between two attempts to reach the database.

    Raises:
        ReplicaError: the URL is malformed or names another kind of database, or its driver is not
            installed.
    """

    def __init__(self, url: str, *, pause: Callable[[float], None] = time.sleep) -> None:
        import sqlalchemy as sa

        try:
            parsed = sa.make_url(url)
        except (sa.exc.ArgumentError, ValueError):
            raise ReplicaError(f"the URL of `database` is malformed: {_EXPECTED}") from None
        try:
            self._engine = _engine(parsed)
        except ImportError as error:
            raise ReplicaError(
                "no driver for PostgreSQL is installed: pip install 'psycopg[binary]'"
            ) from error
        self._pause = pause
        self._is_ready = False

    @property
    def name(self) -> str:
        """The URL without password and query."""
        return f"database {shown(self._engine.url)}"

    @property
    def file(self) -> Path | None:
        """The file that it is, of SQLite."""
        if self._engine.dialect.name != "sqlite":
            return None
        return Path(self._engine.url.database or "")

    @contextmanager
    def transaction(self) -> Iterator["ReplicaTransaction"]:
        """Begin a transaction, and commit at the end of the block; an error in it rolls back.

        Raises:
            ReplicaError: the database is out of reach, refuses, or has a later format.
        """
        import sqlalchemy as sa

        with self._connection(self._pause) as connection:
            if self._engine.dialect.name == "postgresql":
                settings = {"lock_timeout": f"{_BUSY_SECONDS}s", "synchronous_commit": "on"}
                local = [sa.func.set_config(name, value, True) for name, value in settings.items()]
                connection.execute(sa.select(*local))
            if not self._is_ready:
                self._prepare(connection)
            yield ReplicaTransaction(connection)
        self._is_ready = True

    def look(self, party: str) -> Standing | None:
        """Return where a party's copy stands; try once, wait for nobody, and make no tables.

        Raises:
            ReplicaError: as `transaction`.
        """
        with self._connection(None) as connection:
            if self._format(connection) < PRESENT:
                return None
            return ReplicaTransaction(connection).standing(party)

    @contextmanager
    def _connection(self, pause: Callable[[float], None] | None) -> Iterator["Connection"]:
        import sqlalchemy as sa

        try:
            with (
                (
                    self._engine.connect() if pause is None else reached(self._engine, pause)
                ) as connection,
                connection.begin(),
            ):
                yield connection
        except sa.exc.SQLAlchemyError as error:
            reason = type(getattr(error, "orig", None) or error).__name__
            raise ReplicaError(
                f"{self.name} cannot be used ({reason}: none is there, or its own log says why), "
                "and nothing leaves the party that is not kept there: check the URL, that the "
                "database is up and has room, and that the party may make tables and write there; "
                "then run again"
            ) from None  # the error's own text may quote the URL, which holds a password

    def _prepare(self, connection: "Connection") -> None:
        """Make the tables, or bring them to the present format, one process at a time."""
        import sqlalchemy as sa

        if self._format(connection) == PRESENT:
            return
        if self._engine.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MAKING)))
        migrate(connection)

    def _format(self, connection: "Connection") -> int:
        import sqlalchemy as sa

        from federation.replica.tables import FORMATS

        if not sa.inspect(connection).has_table(NUMBER_TABLE):
            return 0
        number = sa.select(sa.func.max(FORMATS.c.version_num))
        return format_of(connection.execute(number).scalar_one(), name=self.name)


class ReplicaTransaction:
    """What may be read and written within a transaction."""

    def __init__(self, connection: "Connection") -> None:
        from federation.replica import tables

        self._connection = connection
        self._replicas, self._files, self._parts = tables.REPLICAS, tables.FILES, tables.PARTS

    def parties(self) -> Sequence[str]:
        """Return whose copies are kept."""
        import sqlalchemy as sa

        names = sa.select(self._replicas.c.party).order_by(self._replicas.c.party)
        return self._connection.execute(names).scalars().all()

    def standing(self, party: str, *, lock: bool = False) -> Standing | None:
        """Return where a copy stands, once nobody else changes it if it is to be locked."""
        import sqlalchemy as sa

        row = sa.select(self._replicas).where(self._replicas.c.party == party)
        found = self._connection.execute(row.with_for_update() if lock else row).one_or_none()
        if found is None:
            return None
        return Standing(
            party,
            found.holder,
            moment(found.held_since),
            found.sequence,
            moment(found.synchronised),
        )

    def begin(self, party: str, holder: str, now: datetime) -> None:
        """Begin a copy of the folder that has an id."""
        when = microseconds(now)
        self._connection.execute(
            self._replicas.insert().values(
                party=party, holder=holder, held_since=when, sequence=0, synchronised=when
            )
        )

    def take_over(self, party: str, holder: str, now: datetime) -> None:
        """Have the copy be of another folder from here on."""
        self._update(party, holder=holder, held_since=microseconds(now))

    def advance(self, party: str, sequence: int, now: datetime) -> None:
        """Note that the copy was changed."""
        self._update(party, sequence=sequence, synchronised=microseconds(now))

    def _update(self, party: str, **values: object) -> None:
        where = self._replicas.c.party == party
        self._connection.execute(self._replicas.update().where(where).values(**values))

    def files(self, party: str) -> dict[str, KeptFile]:
        """Return everything that is kept of a folder, by its path."""
        import sqlalchemy as sa

        table = self._files
        columns = [column for column in table.c if column.name != "party"]
        rows = self._connection.execute(sa.select(*columns).where(table.c.party == party))
        return {row.path: KeptFile(*row) for row in rows}

    def put_files(self, party: str, files: Collection[KeptFile]) -> None:
        """Write files and directories, without contents, in place of those of the same paths."""
        self._remove(self._files, party, [{"path_": one.path} for one in files])
        if files:
            rows = [{"party": party, **asdict(one)} for one in files]
            self._connection.execute(self._files.insert(), rows)

    def remove_files(self, party: str, paths: Collection[str]) -> None:
        """Remove files with their contents, and directories."""
        for table in (self._parts, self._files):
            self._remove(table, party, [{"path_": path} for path in paths])

    def digests(self, party: str, path: str) -> Sequence[str]:
        """Return the digests of the parts of a file, in order."""
        import sqlalchemy as sa

        table = self._parts
        query = sa.select(table.c.digest).where(table.c.party == party, table.c.path == path)
        return self._connection.execute(query.order_by(table.c.number)).scalars().all()

    def put_parts(self, party: str, parts: Collection[Part]) -> None:
        """Write parts in place of those of the same numbers."""
        numbered = [{"path_": one.path, "number_": one.number} for one in parts]
        self._remove(self._parts, party, numbered)
        if parts:
            rows = [
                {
                    "party": party,
                    "path": one.path,
                    "number": one.number,
                    "digest": one.digest,
                    "content": one.content,
                }
                for one in parts
            ]
            self._connection.execute(self._parts.insert(), rows)

    def cut(self, party: str, path: str, count: int) -> None:
        """Remove the parts of a file after the first so many."""
        table = self._parts
        where = (table.c.party == party, table.c.path == path, table.c.number >= count)
        self._connection.execute(table.delete().where(*where))

    def parts(self, party: str, path: str) -> Iterator[Part]:
        """Yield the parts of a file, in order, one in memory at a time."""
        import sqlalchemy as sa

        table = self._parts
        for number in range(len(self.digests(party, path))):
            one = (table.c.party == party, table.c.path == path, table.c.number == number)
            row = sa.select(table.c.digest, table.c.content).where(*one)
            digest, content = self._connection.execute(row).one()
            yield Part(path, number, digest, bytes(content))

    def _remove(self, table: Any, party: str, rows: Sequence[dict[str, Any]]) -> None:
        import sqlalchemy as sa

        if rows:
            where = [table.c[name[:-1]] == sa.bindparam(name) for name in rows[0]]
            self._connection.execute(table.delete().where(table.c.party == party, *where), [*rows])


def _engine(url: "URL") -> "Engine":
    import sqlalchemy as sa

    kind = url.get_backend_name()
    if kind == "postgresql":
        return postgresql_engine(url)
    if kind != "sqlite" or not Path(url.database or "").is_absolute():
        raise ReplicaError(f"`database` cannot be in {kind}, or lacks a path: {_EXPECTED}")
    engine = sa.create_engine(
        url,
        poolclass=sa.NullPool,
        hide_parameters=True,
        connect_args={"timeout": _BUSY_SECONDS, "isolation_level": None},
    )
    # SQLAlchemy leaves it to the driver when a transaction begins, and the driver to us
    sa.event.listen(engine, "begin", lambda one: one.exec_driver_sql("BEGIN IMMEDIATE"))
    sa.event.listen(engine, "connect", _flush_to_disk)
    return engine


def _flush_to_disk(connection: Any, _: object) -> None:
    connection.execute("PRAGMA synchronous = EXTRA")
    connection.execute("PRAGMA secure_delete = ON")
