"""What of a file is kept: its content in parts, read so that it is of one moment.

Guarantees: a file of SQLite is read as its last transaction left it; no secret that lies in clear
is read out, nor a password in `party.json` and `node.toml`; memory is bounded by a part.

Leaves to others: which files (`scan`), where the parts go (`replica`).
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, Final

from compliance.sealing import is_sealed
from federation.errors import ReplicaError
from federation.replica.description import (
    DESCRIPTION,
    NODE_FILE,
    without_passwords,
    without_passwords_in_text,
)
from federation.replica.scan import Found, Scope
from federation.safe import Table

__all__ = ["PART_BYTES", "opened", "parts_of"]

PART_BYTES: Final = 1 << 20
_SQLITE: Final = b"SQLite format 3\0"
_HEAD_BYTES: Final = 64
_KEYS: Final = "keys/"
"""Where nothing lies that may be told, whoever put it there."""


@contextmanager
def opened(scope: Scope, found: Found) -> Iterator[BinaryIO | None]:
    """Open what is to be kept of a file; None of a secret that lies in clear.

    Raises:
        FileNotFoundError: it was removed meanwhile.
        ReplicaError: it is a damaged file of SQLite.
    """
    if found.path == DESCRIPTION:
        yield BytesIO(without_passwords(found.place.read_bytes()))
        return
    if found.path == NODE_FILE:
        yield BytesIO(without_passwords_in_text(found.place.read_bytes()))
        return
    with found.place.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        is_database = head.startswith(_SQLITE)
        if not is_database:
            file.seek(0)
            is_secret = scope.secrets.has(found.path) or found.path.startswith(_KEYS)
            yield None if is_secret and found.size and not is_sealed(head) else file
            return
    tables = [one for one in scope.secrets.tables if one.file == found.path]
    with _snapshot(scope.root, found.place, tables) as path:
        if path is None:
            yield None
            return
        with path.open("rb") as file:
            yield file


def parts_of(file: BinaryIO) -> Iterator[bytes]:
    """Yield what is left of a file in parts of 1 MiB; the last may be shorter."""
    while content := file.read(PART_BYTES):
        yield content


@contextmanager
def _snapshot(root: Path, place: Path, tables: list[Table]) -> Iterator[Path | None]:
    """Copy a file of SQLite while nobody writes to it; None where secrets in it lie in clear.

    It is not read as it lies: closing a file lets go of all locks that this process has on it.
    """
    with TemporaryDirectory(dir=root, prefix="replica-", suffix=".tmp") as directory:
        path = Path(directory) / "copy"
        try:
            with (
                closing(sqlite3.connect(f"{place.as_uri()}?mode=rw", uri=True, timeout=60)) as one,
                closing(sqlite3.connect(path)) as copy,
            ):
                copy.execute("PRAGMA synchronous = OFF")
                one.execute("BEGIN")
                one.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # waits for a writer
                one.backup(copy)
                in_clear = any(_lies_in_clear(copy, table) for table in tables)
        except sqlite3.Error as error:
            raise ReplicaError(
                f"{place} is damaged, or held for more than a minute ({error}): restore it from a "
                "backup, or see what is at work on it"
            ) from error
        yield None if in_clear else path


def _lies_in_clear(connection: sqlite3.Connection, table: Table) -> bool:
    names = connection.execute("SELECT name FROM sqlite_schema WHERE name = ?", (table.name,))
    if names.fetchone() is None:
        return False
    query = f"SELECT {table.column} FROM {table.name}"  # noqa: S608 -- our own names
    return any(not is_sealed(content) for (content,) in connection.execute(query))
