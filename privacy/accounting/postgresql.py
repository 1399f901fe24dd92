"""A PostgreSQL database by its URL, which is waited for while it is away for a moment.

Guarantees: no connection is kept between two uses, so that processes may fork; what is read after a
wait is read anew (`READ COMMITTED`), whatever the database has for a default; no name of a database
holds a password.

Leaves to others: what is kept there, and the errors that tell of it.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

__all__ = ["postgresql_engine", "reached", "shown"]

_CONNECT_SECONDS: Final = 10
_PAUSES: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between two attempts to reach a database."""


def postgresql_engine(url: "URL") -> "Engine":
    """Return what connects to a database, through psycopg.

    Raises:
        ImportError: the driver is not installed.
    """
    import sqlalchemy as sa

    return sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        poolclass=sa.NullPool,
        isolation_level="READ COMMITTED",  # or what is read after a wait is from before it
        hide_parameters=True,
        connect_args={"connect_timeout": _CONNECT_SECONDS},
    )


def reached(engine: "Engine", pause: Callable[[float], None] = time.sleep) -> "Connection":
    """Return a connection; if the database is away, try again a few times.

    Raises:
        sqlalchemy.exc.OperationalError: it is away still.
    """
    import sqlalchemy as sa

    for seconds in _PAUSES:
        try:
            return engine.connect()
        except sa.exc.OperationalError:
            pause(seconds)
    return engine.connect()


def shown(url: "URL") -> str:
    """Return a URL without password and query."""
    plain = url.set(drivername=url.get_backend_name(), query={})
    return plain.render_as_string(hide_password=True)
