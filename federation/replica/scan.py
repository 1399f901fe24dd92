"""What in a party's folder is kept, and by which stamp a file is known unchanged.

Guarantees: everything in the folder is kept but what a killed process would leave behind, locks,
and what is named; a stamp that a later change could share is not trusted, as in git's index.

Leaves to others: reading (`contents`), where it is kept (`replica`).
"""

import os
import stat
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from federation.errors import ReplicaError
from federation.safe import Secrets

__all__ = ["OWN", "Found", "Scope", "is_same", "is_same_inode", "scan", "stamp_of"]

OWN: Final = "replica"
"""Directory within a party's folder of what is known of its copy; not kept itself."""
_RACY_NANOSECONDS: Final = 50_000_000
"""Two changes within this time may bear one stamp."""
_RACY: Final = "?"
_LEFT_OUT: Final = (OWN, "lock", "consents.lock")
_SCRATCH: Final = ".tmp"
"""How the name of what is worked in ends."""
_BESIDE: Final = ("-journal", "-wal", "-shm")
"""How names go on of what SQLite writes beside a file."""


@dataclass(frozen=True)
class Scope:
    """What is kept of one party.

    Attributes:
        root: its folder.
        secrets: of which names files are secret.
        left_out: names within the folder that are not kept.
        outside: files elsewhere that are kept too, by the name that each has in the copy, which
            begins with `/`.
        appended: names of files that are only appended to, or replaced whole.
    """

    root: Path
    secrets: Secrets
    left_out: frozenset[str] = frozenset()
    outside: Mapping[str, Path] = field(default_factory=dict)
    appended: frozenset[str] = frozenset()

    def place(self, path: str) -> Path:
        """Return where the file of a name in the copy lies."""
        return self.outside[path] if path.startswith("/") else self.root / path


@dataclass(frozen=True, slots=True)
class Found:
    """A file or directory as it is found.

    Attributes:
        path: its name in the copy.
        lies: where.
        mode, size, modified: as in `KeptFile`.
        stamp: as in `KeptFile`.
    """

    path: str
    lies: Path | str
    mode: int
    size: int
    modified: int
    stamp: str

    @property
    def place(self) -> Path:
        """Where it lies."""
        return Path(self.lies)

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)


def scan(scope: Scope, within: Collection[str] = ()) -> dict[str, Found]:
    """Return what there is to keep, by its name in the copy.

    Args:
        scope: of the party.
        within: names of the files and directories that are looked at; all where left out.

    Raises:
        ReplicaError: there is a symbolic link, of which no copy can be kept.
        OSError: a directory cannot be read.
    """
    now = time.time_ns()
    found: dict[str, Found] = {}
    for path in within or ("", *scope.outside):
        place = scope.place(path)
        try:
            status = place.stat() if path.startswith("/") else place.lstat()
        except FileNotFoundError:
            continue
        if path:
            found[path] = _found(path, place, status, now)
        if stat.S_ISDIR(status.st_mode):
            _find_below(scope, path, place, now, found)
    return found


def _find_below(
    scope: Scope, within: str, directory: Path | str, now: int, found: dict[str, Found]
) -> None:
    with os.scandir(directory) as entries:
        listed = sorted(entries, key=lambda one: one.name)
        names = {one.name for one in listed}
        for entry in listed:
            path = f"{within}/{entry.name}" if within else entry.name
            if path in _LEFT_OUT or path in scope.left_out or entry.name.endswith(_SCRATCH):
                continue
            if entry.is_file(follow_symlinks=False) and _is_beside(entry.name, names):
                continue
            _check_name(entry)
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # removed meanwhile
            written_beside = f"{entry.name}-wal" in names  # and not yet in the file itself
            found[path] = _found(path, entry.path, status, 0 if written_beside else now)
            if stat.S_ISDIR(status.st_mode):
                _find_below(scope, path, entry.path, now, found)


def _is_beside(name: str, names: Collection[str]) -> bool:
    return any(name.endswith(end) and name.removesuffix(end) in names for end in _BESIDE)


def _check_name(entry: os.DirEntry[str]) -> None:
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        raise ReplicaError(
            f"{entry.path!a} has a name that is not UTF-8, and no copy of it can be kept: rename it"
        ) from None


def _found(path: str, place: Path | str, status: os.stat_result, now: int) -> Found:
    if stat.S_ISDIR(status.st_mode):
        return Found(path, place, status.st_mode, 0, 0, "")
    if not stat.S_ISREG(status.st_mode):
        raise ReplicaError(
            f"{place} is no file and no directory, and no copy of it can be kept: put what it "
            "stands for in its place, or, of a table, name that in party.json"
        )
    return Found(
        path,
        place,
        status.st_mode,
        status.st_size,
        status.st_mtime_ns,
        stamp_of(status, now=now),
    )


def stamp_of(status: os.stat_result, *, now: int) -> str:
    """Return by what a file is known unchanged, marked where a change to come could share it.

    Args:
        status: of the file.
        now: nanoseconds since 1970, from before it was looked at.
    """
    changed = max(status.st_ctime_ns, status.st_mtime_ns)
    mark = _RACY if changed > now - _RACY_NANOSECONDS else ""
    return f"{mark}{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


def is_same(stamp: str, before: str) -> bool:
    """Tell whether a file is surely what it was when it had another stamp."""
    return stamp == before and not stamp.startswith(_RACY)


def is_same_inode(stamp: str, before: str) -> bool:
    """Tell whether a file may be the one that had another stamp, written on."""
    inodes = (one.removeprefix(_RACY).split(":")[0] for one in (stamp, before))
    return len(set(inodes)) == 1
