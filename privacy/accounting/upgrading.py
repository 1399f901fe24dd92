"""Alembic's steps from one format of tables to the next, run on a connection that is given.

Guarantees: they are taken within the caller's transaction, one upgrade at a time in a process.

Leaves to others: the steps, and holding the tables.
"""

from threading import Lock
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["upgrade"]

_ALONE: Final = Lock()
"""Alembic has one migration under way in a process."""


def upgrade(connection: "Connection", *, scripts: str, number: int, **attributes: object) -> None:
    """Bring tables to a format; those that have it stay.

    Args:
        connection: within a transaction that holds the tables for itself alone.
        scripts: where the steps are, as `package:directory`.
        number: of the format.
        attributes: what steps ask for.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database refuses; roll back.
    """
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection, **attributes})
    config.set_main_option("script_location", scripts)
    config.set_main_option("path_separator", "os")
    with _ALONE:
        command.upgrade(config, str(number))
