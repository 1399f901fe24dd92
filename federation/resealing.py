"""The secrets of folders that are there already: how they lie, sealing them, another key.

```
1 every secret of a folder opens, under what it lies under or under what it is to lie under
2 each is written anew, whole or not at all
```

Guarantees: nothing is written before everything opened; a crash leaves each secret under the one or
the other, and the same command again does the rest.

Leaves to others: which files are secret (`safe`), keys (`unsealing`), and that no process is at
work on the folder with what was before. A disk may keep blocks of files that were replaced, and
backups keep copies: what lay in clear before is best replaced (`comity agreement rotate`).
"""

import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

from compliance.formats import check_format
from compliance.sealing import UnsealingKey, is_sealed
from federation.errors import UnsealingError, WorkspaceError
from federation.party import PartyFolder, locked, write_atomically
from federation.safe import Safe, Table

__all__ = ["Lying", "Resealed", "Sealable", "Standing", "look", "reseal", "sealable_in"]

_PATIENCE_SECONDS: Final = 5.0


class Standing(StrEnum):
    """How a secret lies on disk."""

    CLEAR = "clear"
    SEALED = "sealed"
    CLOSED = "closed"
    """Sealed, and the key that was given does not open it."""


@dataclass(frozen=True)
class Lying:
    """How the secrets of one file lie.

    Attributes:
        file: path.
        standing: of all of them; the worst, where they differ.
        secrets: how many there are in the file.
    """

    file: Path
    standing: Standing
    secrets: int


class Resealed(NamedTuple):
    """What was done: secrets written anew, and those that lay as they are to lie already."""

    written: int
    kept: int


@dataclass(frozen=True)
class Sealable:
    """A folder whose secrets can be sealed.

    Attributes:
        safe: how they lie.
        held: holds the folder, once.
    """

    safe: Safe
    held: AbstractContextManager[object]


def sealable_in(place: Path) -> tuple[Sealable, ...]:
    """Return the folder at a place, or the folders in it.

    Args:
        place: a party's folder; a coordinator's, with its folder as a party; or a workspace.

    Raises:
        WorkspaceError: it is none of these.
    """
    from federation.operations.folder import CoordinatorFolder

    if (place / "party.json").exists():
        return (_of_party(place),)
    if (place / "coordinator.toml").exists():
        folder = CoordinatorFolder.open(place)
        parties = (folder.party,) if (folder.party / "party.json").exists() else ()
        return Sealable(folder.safe, folder.served()), *map(_of_party, parties)
    found = tuple(_of_party(file.parent) for file in sorted(place.glob("*/party.json")))
    if not found:
        raise WorkspaceError(
            f"{place} is no folder of a party or a coordinator, and has none in it: name one"
        )
    return found


def look(safe: Safe) -> Iterator[Lying]:
    """Tell how the secrets of a folder lie, file by file."""
    for path in _files(safe):
        yield Lying(path, _standing(safe, path, "", path.read_bytes()), 1)
    for path, table in _tables(safe):
        rows = _rows(path, table)
        found = {_standing(safe, path, row, content) for row, content in rows}
        worst = max(found, key=_WORSE.index, default=Standing.SEALED)
        if rows:
            yield Lying(path, worst, len(rows))


def reseal(sealable: Sealable, before: UnsealingKey | None, after: UnsealingKey | None) -> Resealed:
    """Have the secrets of a folder lie under another key; see the module.

    Args:
        sealable: the folder.
        before: the key under which they lie; None where they lie in clear.
        after: the key under which they are to lie; None for in clear.

    Raises:
        UnsealingError: a secret opens under neither; nothing was written.
        StoreFormatError: a later version wrote a file of them; nothing was written.
        PartyBusyError, WorkspaceError: somebody else is at work on the folder.
    """
    old, new = (sealable.safe.under(key) for key in (before, after))
    with sealable.held:
        for path in _files(old):  # 1
            _opened(old, new, path, "", path.read_bytes())
        for path, table in _tables(old):
            for row, content in _rows(path, table):
                _opened(old, new, path, row, content)
        written = kept = 0
        for path in _files(old):  # 2
            content, lies = _opened(old, new, path, "", path.read_bytes())
            if not lies:
                write_atomically(path, new.seal(path, content), mode=0o600)
            written, kept = written + (not lies), kept + lies
        for path, table in _tables(old):
            told = _reseal_table(old, new, path, table)
            written, kept = written + told.written, kept + told.kept
    return Resealed(written, kept)


_WORSE: Final = (Standing.SEALED, Standing.CLEAR, Standing.CLOSED)


def _of_party(path: Path) -> Sealable:
    folder = PartyFolder(path)
    return Sealable(folder.safe, locked(folder, patience=_PATIENCE_SECONDS))


def _standing(safe: Safe, path: Path, row: str, content: bytes) -> Standing:
    if not is_sealed(content):
        return Standing.CLEAR
    if safe.key is not None:
        try:
            safe.unseal(path, content, row=row)
        except UnsealingError:
            return Standing.CLOSED
    return Standing.SEALED


def _opened(old: Safe, new: Safe, path: Path, row: str, content: bytes) -> tuple[bytes, bool]:
    """Return a secret, and whether it lies as it is to lie already."""
    try:
        return new.unseal(path, content, row=row), True
    except UnsealingError:
        if old.key is None and is_sealed(content):
            raise  # under which key it lies is what matters
    return old.unseal(path, content, row=row), False


def _files(safe: Safe) -> Iterator[Path]:
    for pattern in safe.secrets.files:
        yield from (path for path in sorted(safe.root.glob(pattern)) if path.is_file())


def _tables(safe: Safe) -> Iterator[tuple[Path, Table]]:
    for table in safe.secrets.tables:
        if (path := safe.root / table.file).exists():
            yield path, table


def _rows(path: Path, table: Table) -> list[tuple[str, bytes]]:
    query = f"SELECT {table.row}, {table.column} FROM {table.name}"  # noqa: S608 -- our own names
    try:
        with closing(sqlite3.connect(path)) as connection:
            check_format(connection, path)
            return connection.execute(query).fetchall()
    except sqlite3.Error as error:
        raise WorkspaceError(f"{path} is damaged: restore it from a backup") from error


def _reseal_table(old: Safe, new: Safe, path: Path, table: Table) -> Resealed:
    """Write the secrets of a table anew, all or none."""
    changed: list[tuple[bytes, str]] = []
    rows = _rows(path, table)
    for row, content in rows:
        secret, lies = _opened(old, new, path, row, content)
        if not lies:
            changed.append((new.seal(path, secret, row=row), row))
    update = f"UPDATE {table.name} SET {table.column} = ? WHERE {table.row} = ?"  # noqa: S608
    try:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("PRAGMA synchronous = FULL")
            with connection:
                connection.executemany(update, changed)
    except sqlite3.Error as error:
        raise WorkspaceError(
            f"{path} cannot be written ({type(error).__name__}): see that nothing is at work on it"
        ) from error
    return Resealed(len(changed), len(rows) - len(changed))
