"""Tables of a database, through SQLAlchemy: SQLite and PostgreSQL.

Guarantees that names are quoted whatever they hold, that a scan or a copy is one `SELECT` (hence
one snapshot) read through a cursor in bounded memory, and that a deletion is one transaction. Each
operation opens a connection of its own and closes it.

What a deletion leaves: SQLite overwrites the freed pages (`secure_delete`) and empties its
write-ahead log, unless a reader still needs it. PostgreSQL keeps dead rows in its files until
`VACUUM` has run, and its log and replicas keep them as long as they are configured to.
"""

import csv
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import Any, Final

import pyarrow as pa
import sqlalchemy as sa
import sqlalchemy.exc

from connectors.errors import (
    SourceFormatError,
    SourceNotFoundError,
    SourceReadOnlyError,
    SourceUnavailableError,
    ValueMisfitError,
)
from connectors.schema import distinct_keys, require_columns

__all__ = ["PAUSES", "SqlConnector", "database_engine", "masked"]

PAUSES: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between two attempts to reach a database, for whoever is patient."""

# Of a view; of no right; in a read-only transaction or server.
_READ_ONLY_STATES = frozenset({"55000", "42501", "25006"})
_CONNECT_SECONDS = "10"
_KEYS_PER_STATEMENT = 30_000  # SQLite binds at most 32,766 values, PostgreSQL 65,535


class SqlConnector:
    """One table of a database.

    Integers, floating-point numbers, booleans, dates and timestamps keep their types; exact
    decimals and whatever else the database knows are read as its own text for them, so that no
    digit is lost. SQLite holds no column to its declared type: all its values are read as text.

    Args:
        url: of the database.
        table: a table or view in it.
        pauses: seconds to wait between two attempts to reach it; it is tried once where left out.

    Raises:
        SourceUnavailableError: the URL is malformed or its database driver is not installed.
    """

    def __init__(self, url: str, table: str, *, pauses: Sequence[float] = ()) -> None:
        self._engine = database_engine(url, table)
        self._pauses = pauses
        self._table = sa.table(table)
        self._is_sqlite = self._engine.dialect.name == "sqlite"
        if self._is_sqlite:
            sa.event.listen(self._engine, "connect", _overwrite_what_is_deleted)

    @property
    def name(self) -> str:
        """The URL without password and query, where secrets may stand, and the table."""
        return masked(self._engine, self._table.name)

    def columns(self) -> tuple[str, ...]:
        """Return the names of the columns, in the table's order."""
        return tuple(self._types())

    def scan(self, columns: Sequence[str], *, batch_rows: int = 65_536) -> Iterator[pa.RecordBatch]:
        """Read some columns, batch by batch; see `Connector.scan`."""
        if batch_rows < 1:
            raise ValueError(f"expected batch_rows of at least 1, got {batch_rows}")
        types = self._types()
        require_columns(self.name, columns, tuple(types))
        return self._scan({name: types[name] for name in columns}, batch_rows)

    def copy(self, columns: Sequence[str], target: Path) -> None:
        """Write some columns into a CSV file, as text in UTF-8 with a header line.

        Timestamps of PostgreSQL are spelt as RFC 3339 in UTC; a value that is absent is empty. What
        the table holds at one moment is written, and nothing of it is held in memory.

        Args:
            columns: names to look for; those that the table lacks are left out. Where it has none
                of them, its first column is written.
            target: the file, which is replaced.

        Raises:
            SourceFormatError: a timestamp has no time zone, or a value has no text form.
            OSError: the file cannot be written.
        """
        snapshot: dict[str, Any] = {
            "isolation_level": "REPEATABLE READ",
            "postgresql_readonly": True,
        }
        self._require_file()
        with self._connection({} if self._is_sqlite else snapshot) as connection:
            types = self._types_in(connection)
            names = [name for name in columns if name in types] or list(types)[:1]
            fast = self._engine.driver == "psycopg"
            texts = [self._zoned(name, types[name]) if fast else sa.column(name) for name in names]
            labelled = (text.label(name) for name, text in zip(names, texts, strict=True))
            query = sa.select(*labelled).select_from(self._table)
            (_copy_out if fast else _write_out)(connection, query, target)

    def _zoned(self, name: str, type_: Any) -> Any:
        """Return the expression for a column's text, where the session's time zone is UTC."""
        text = _comparable(name, type_)
        if not isinstance(type_, sa.DateTime):
            return text
        if not type_.timezone:
            raise SourceFormatError(
                f"{self.name}: column {name} has no time zone: expected a timestamp with time "
                "zone, or text in RFC 3339 with an offset"
            )
        return text + sa.literal_column("':00'")  # PostgreSQL writes the offset of UTC as +00

    def count(self) -> int:
        """Return the number of rows."""
        self._types()
        with self._connection() as connection:
            rows = connection.execute(sa.select(sa.func.count()).select_from(self._table))
            return int(rows.scalar_one())

    def delete(self, key_column: str, keys: Collection[str]) -> int:
        """Delete the keys' rows in one transaction; see `Connector.delete`."""
        return self._change(key_column, keys, sa.delete(self._table))

    def find(self, key_column: str, keys: Collection[str]) -> Iterator[pa.RecordBatch]:
        """Read the keys' rows; see `Connector.find`."""
        wanted = distinct_keys(keys)
        types = self._types()
        require_columns(self.name, [key_column], tuple(types))
        key = self._key(key_column, types)
        for start in range(0, len(wanted), _KEYS_PER_STATEMENT):
            yield from self._scan(
                types, 65_536, key.in_(wanted[start : start + _KEYS_PER_STATEMENT])
            )

    def update(
        self, key_column: str, keys: Collection[str], values: Mapping[str, str | None]
    ) -> int:
        """Change the keys' rows in one transaction; see `Connector.update`."""
        types = self._types()
        require_columns(self.name, list(dict.fromkeys((key_column, *values))), tuple(types))
        if not values:
            raise ValueError("expected one or more columns to change")
        table = sa.table(self._table.name, *map(sa.column, values))
        new = {
            name: value
            if value is None or self._is_sqlite or type(types[name]) in {sa.VARCHAR, sa.TEXT}
            else sa.cast(sa.literal(value, sa.Text), types[name])
            for name, value in values.items()
        }
        try:
            return self._change(key_column, keys, sa.update(table).values(new))
        except SourceFormatError:
            raise ValueMisfitError(
                f"{self.name}: the database refuses a new value for {_listed(values)}, nothing was "
                "changed: give one that fits its column"
            ) from None

    def _key(self, key_column: str, types: dict[str, Any]) -> Any:
        key = _comparable(key_column, types[key_column])
        # a NOCASE column would match other keys too
        return key.collate("BINARY") if self._is_sqlite else key

    def _change(self, key_column: str, keys: Collection[str], statement: Any) -> int:
        """Do something to the keys' rows in one transaction, and return how many they are."""
        wanted = distinct_keys(keys)
        types = self._types()
        require_columns(self.name, [key_column], tuple(types))
        key = self._key(key_column, types)
        rows = 0
        with self._connection() as connection:
            for start in range(0, len(wanted), _KEYS_PER_STATEMENT):
                meant = key.in_(wanted[start : start + _KEYS_PER_STATEMENT])
                rows += connection.execute(statement.where(meant)).rowcount
        if self._is_sqlite and rows:
            with self._connection() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        return rows

    def _scan(
        self, types: dict[str, Any], batch_rows: int, where: Any = None
    ) -> Iterator[pa.RecordBatch]:
        if self._is_sqlite:
            schema = pa.schema([(name, pa.string()) for name in types])
            selected: list[Any] = [sa.column(name) for name in types]
        else:
            schema = pa.schema([(name, _arrow_type(type_)) for name, type_ in types.items()])
            selected = [
                _comparable(field.name, types[field.name])
                if field.type == pa.string()
                else sa.column(field.name)
                for field in schema
            ]
        query = sa.select(*selected).select_from(self._table)
        if where is not None:
            query = query.where(where)
        with self._connection() as connection:
            streaming = connection.execution_options(stream_results=True, max_row_buffer=batch_rows)
            for rows in streaming.execute(query).partitions(batch_rows):
                columns: Iterable[Iterable[Any]] = zip(*rows, strict=True)
                if self._is_sqlite:
                    columns = map(_texts, columns)
                yield pa.record_batch(
                    [
                        pa.array(values, field.type)
                        for values, field in zip(columns, schema, strict=True)
                    ],
                    schema=schema,
                )

    def _types(self) -> dict[str, Any]:
        """Return the declared type of each column, by name."""
        self._require_file()
        with self._connection() as connection:
            return self._types_in(connection)

    def _types_in(self, connection: sa.Connection) -> dict[str, Any]:
        try:
            found = sa.inspect(connection).get_columns(self._table.name)
        except sqlalchemy.exc.NoSuchTableError:
            found = []
        if not found:
            raise SourceNotFoundError(f"{self.name} does not exist: correct the table's name")
        return {column["name"]: column["type"] for column in found}

    def _require_file(self) -> None:
        # SQLite would create an empty database in place of a missing one.
        database = self._engine.url.database
        if self._is_sqlite and not (database and Path(database).is_file()):
            raise SourceNotFoundError(
                f"{self.name}: there is no such database file: correct the path in the URL"
            )

    @contextmanager
    def _connection(self, options: Mapping[str, Any] | None = None) -> Iterator[sa.Connection]:
        """Open a connection and a transaction, committed when the block ends without an error."""
        try:
            connection = self._reached().execution_options(**options or {})
        except sqlalchemy.exc.SQLAlchemyError as error:
            raise SourceUnavailableError(
                f"{self.name} cannot be reached: check the URL and that the database is up"
            ) from error
        try:
            with connection, connection.begin():
                yield connection
        except (
            sqlalchemy.exc.SQLAlchemyError,
            self._engine.dialect.loaded_dbapi.Error,  # of a copy
            pa.ArrowException,
            ValueError,
        ) as error:
            if self._blames_data(error):
                raise SourceFormatError(
                    f"{self.name} cannot be read: expected a whole database whose values fit "
                    "their columns' types; repair it"
                ) from None
            if _is_read_only(error):
                raise SourceReadOnlyError(
                    f"{self.name} can only be read, nothing was done: name a table instead of a "
                    "view, give this user the right to change it, or do it where the rows come "
                    "from"
                ) from None
            reason = type(getattr(error, "orig", error)).__name__
            raise SourceUnavailableError(
                f"{self.name}: the database refuses ({reason}), or none is there: its own log says "
                "which"
            ) from None

    def _reached(self) -> sa.Connection:
        """Return a connection; if the database is away, try again as often as there are pauses."""
        for seconds in self._pauses:
            try:
                return self._engine.connect()
            except sqlalchemy.exc.OperationalError:
                sleep(seconds)
        return self._engine.connect()

    def _blames_data(self, error: Exception) -> bool:
        driver = self._engine.dialect.loaded_dbapi
        kinds: Any = driver if isinstance(error, driver.Error) else sqlalchemy.exc
        if kinds is sqlalchemy.exc and not isinstance(error, sqlalchemy.exc.SQLAlchemyError):
            return True
        # SQLite has no narrower class for a file that is damaged or no database.
        damaged = self._is_sqlite and type(error) is kinds.DatabaseError
        return damaged or isinstance(error, kinds.DataError)


def database_engine(url: str, table: str) -> sa.Engine:
    """Return what opens connections to a database, without opening one.

    Raises:
        SourceUnavailableError: the URL is malformed or its database driver is not installed.
    """
    try:
        parsed = sa.make_url(url)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.drivername == "postgresql+psycopg" and "connect_timeout" not in parsed.query:
            parsed = parsed.update_query_dict({"connect_timeout": _CONNECT_SECONDS})
        return sa.create_engine(parsed, poolclass=sa.NullPool, hide_parameters=True)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise SourceUnavailableError(
            f"the database URL of table {table!r} is malformed: expected "
            "postgresql://user:password@host/database or sqlite:////path/to/file"
        ) from None
    except ImportError as error:  # NoSuchModuleError, for an unknown dialect, is not one
        package = "'psycopg[binary]'" if error.name == "psycopg" else error.name
        raise SourceUnavailableError(
            f"no driver for {parsed.drivername} is installed: pip install {package}"
        ) from error


def masked(engine: sa.Engine, table: str) -> str:
    """Return what to call a table: the URL without password and query, where secrets may stand."""
    url = engine.url.set(query={}).render_as_string(hide_password=True)
    return f"{url} table {table}"


def _copy_out(connection: sa.Connection, query: Any, target: Path) -> None:
    """Have PostgreSQL write CSV: five times as fast as rows that become Python's values."""
    connection.exec_driver_sql("SET LOCAL timezone = 'UTC'")
    connection.exec_driver_sql("SET LOCAL datestyle = 'ISO'")
    select = str(query.compile(connection.engine)).replace("%%", "%")
    statement = f"COPY ({select}) TO STDOUT (FORMAT csv, HEADER, ENCODING 'UTF8')"
    cursor: Any = connection.connection.cursor()
    with target.open("wb") as file, cursor.copy(statement) as rows:
        file.writelines(rows)


def _write_out(connection: sa.Connection, query: Any, target: Path) -> None:
    """Write rows as the driver gives them, past SQLAlchemy's own."""
    cursor: Any = connection.connection.cursor()
    cursor.execute(str(query.compile(connection.engine)))
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(column[0] for column in cursor.description)
        writer.writerows(cursor)


def _is_read_only(error: Exception) -> bool:
    """Whether a database refuses a change, and not for a passing reason.

    PostgreSQL tells by SQLSTATE (appendix A); SQLite by code, and of views in words alone.
    """
    raised = getattr(error, "orig", None)
    if getattr(raised, "sqlstate", None) in _READ_ONLY_STATES:
        return True
    code = getattr(raised, "sqlite_errorcode", None)
    return code is not None and (code & 0xFF == 8 or "because it is a view" in str(raised))


def _comparable(name: str, type_: Any) -> Any:
    """Return the expression for a column's text; a text column stays itself, with its indexes."""
    column: Any = sa.column(name)
    return column if type(type_) in {sa.VARCHAR, sa.TEXT} else sa.cast(column, sa.Text)


def _arrow_type(type_: Any) -> pa.DataType:
    match type_:
        case sa.Boolean():
            return pa.bool_()
        case sa.Integer():
            return pa.int64()
        case sa.Float():
            return pa.float64()
        case sa.DateTime():
            return pa.timestamp("us", tz="UTC" if type_.timezone else None)
        case sa.Date():
            return pa.date32()
        case _:
            return pa.string()


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def _texts(values: Iterable[Any]) -> list[str | None]:
    """Return what SQLite holds as text; a number reads as Python prints it, losing no digit."""
    return [value if value is None or isinstance(value, str) else str(value) for value in values]


def _overwrite_what_is_deleted(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA secure_delete = ON")
