"""Which format a small SQLite file has, by the number that SQLite keeps for it (`user_version`).

Guarantees: a file that a later version of this project wrote is refused before anything else of it
is read or written. One without a number was written before files bore one: it is of format 1, and
bears it from here on.

Leaves to others: what the format is (`subject_keys`, and whoever else keeps such a file).
"""

import sqlite3
from pathlib import Path
from typing import Final

from compliance.errors import StoreFormatError

__all__ = ["PRESENT", "check_format", "claim_format"]

PRESENT: Final = 1
"""The format that this version reads and writes, of every such file."""


def check_format(connection: sqlite3.Connection, path: Path) -> int:
    """Return the number that a file bears, 0 for none.

    Args:
        connection: to the file.
        path: what errors call it.

    Raises:
        StoreFormatError: it is of a later format than the present one.
        sqlite3.Error: it is no database.
    """
    (number,) = connection.execute("PRAGMA user_version").fetchone()
    if not 0 <= number <= PRESENT:
        raise StoreFormatError(
            f"{path} has format {number}, and this version of Comity knows those up to {PRESENT}: "
            "install the version that wrote it, or a later one"
        )
    return int(number)


def claim_format(connection: sqlite3.Connection, path: Path) -> None:
    """Check a file's format, and have it bear the number if it bears none; see `check_format`."""
    if not check_format(connection, path):
        connection.execute(f"PRAGMA user_version = {PRESENT}")
