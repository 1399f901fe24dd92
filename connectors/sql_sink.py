"""Lists of people in tables of a database, through SQLAlchemy: SQLite and PostgreSQL.

Guarantees what every sink does (`sinks`): a list is written in one transaction to a table of
another name, and takes its name in another, so that no reader finds a part of it.

Leaves to others: who may read the table; it has the rights that the database gives a new one. A
SQLite file that is made for it is its owner's alone.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import pyarrow as pa
import sqlalchemy as sa
import sqlalchemy.exc

from connectors.errors import SinkOccupiedError, SinkUnavailableError
from connectors.sink import checked_ticket
from connectors.sql import database_engine, masked

__all__ = ["TableSink"]

_TICKET_DIGITS: Final = 24  # of a name that PostgreSQL cuts at 63 bytes


class TableSink:
    """A new table with a text column for each column of the list.

    Args:
        url: of the database, as for a `SqlConnector`.
        table: its name, unquoted.

    Raises:
        SourceUnavailableError: the URL is malformed or its database driver is not installed.
    """

    def __init__(self, url: str, table: str) -> None:
        self._engine = database_engine(url, table)
        self._table = table
        if self._engine.dialect.name == "sqlite":  # whose driver begins none before CREATE or DROP
            sa.event.listen(self._engine, "connect", _leave_transactions_to_us)
            sa.event.listen(self._engine, "begin", _begin)

    @property
    def name(self) -> str:
        """The URL without password and query, and the table."""
        return masked(self._engine, self._table)

    def is_taken(self) -> bool:
        """Tell whether there is a table of that name."""
        with self._connection() as connection:
            return _has(connection, self._table)

    def stage(self, rows: Iterable[pa.RecordBatch], schema: pa.Schema, *, ticket: str) -> None:
        """Write the list to a table of another name, in one transaction; see `Sink.stage`."""
        columns = [sa.Column(name, sa.Text) for name in schema.names]
        table = sa.Table(_staged(ticket), sa.MetaData(), *columns)
        with self._connection() as connection:
            table.drop(connection, checkfirst=True)
            table.create(connection)
            for batch in rows:
                if batch.num_rows:
                    connection.execute(sa.insert(table), batch.to_pylist())

    def _make_file_for_its_owner(self) -> None:
        """Make a SQLite file that is not there yet, readable by its owner alone."""
        database = self._engine.url.database
        if self._engine.dialect.name != "sqlite" or not database:
            return
        with suppress(OSError):  # it is there, or the database says why it cannot be
            os.close(os.open(database, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))

    def publish(self, *, ticket: str) -> None:
        """Give the table its name; see `Sink.publish`."""
        staged = _staged(ticket)
        with self._connection() as connection:
            taken = _has(connection, self._table)
            if _has(connection, staged):
                if taken:
                    raise SinkOccupiedError(self.name)
                quote = connection.dialect.identifier_preparer.quote
                renaming = f"ALTER TABLE {quote(staged)} RENAME TO {quote(self._table)}"
                connection.exec_driver_sql(renaming)
            elif not taken:
                raise SinkUnavailableError(f"{self.name}: nothing is staged there: deliver again")

    def discard(self, *, ticket: str) -> None:
        """Drop the table of the other name; see `Sink.discard`."""
        with self._connection() as connection:
            sa.Table(_staged(ticket), sa.MetaData()).drop(connection, checkfirst=True)

    def remove(self) -> None:
        """Drop the table; see `Sink.remove`."""
        with self._connection() as connection:
            sa.Table(self._table, sa.MetaData()).drop(connection, checkfirst=True)

    @contextmanager
    def _connection(self) -> Iterator[sa.Connection]:
        """Open a connection and a transaction, committed when the block ends without an error."""
        self._make_file_for_its_owner()
        try:
            with self._engine.begin() as connection:
                yield connection
        except sqlalchemy.exc.SQLAlchemyError as error:
            reason = type(getattr(error, "orig", None) or error).__name__
            raise SinkUnavailableError(
                f"{self.name} cannot take the list: the database refuses ({reason}); its own log "
                "says why; mend it, then run again"
            ) from None


def _has(connection: Any, table: str) -> bool:
    return bool(sa.inspect(connection).has_table(table))


def _staged(ticket: str) -> str:
    return f"staged_{checked_ticket(ticket)[:_TICKET_DIGITS]}"


def _leave_transactions_to_us(connection: Any, _record: Any) -> None:
    connection.isolation_level = None


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
