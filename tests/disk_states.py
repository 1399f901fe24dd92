"""Fingerprints of workspaces: of what the next holders of its folders find once they have swept.

Guarantees: two disks of one fingerprint differ in nothing that a process can find later but in what
`party.lock` sweeps, in times of files, and in whether a database's last transaction was never begun
or is rolled back by whoever opens it next.
"""

import hashlib
import json
import os
import shutil
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from federation.party import abandoned

SETTLED = 50_000_000
"""Nanoseconds after which a file that is written again has another time of change."""
JOURNAL = "-journal"
State = tuple[str, int, int, str]
"""Of a file: path, mode, links, digest."""


class Disks:
    """Takes fingerprints, and reads no file twice that has not changed."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, ...], str] = {}

    def fingerprint(self, workspace: Path) -> str:
        """Return what tells a workspace from every other that would be gone on from differently."""
        states = sorted(self._below(workspace))
        return hashlib.sha256(json.dumps(states).encode()).hexdigest()

    def _below(self, workspace: Path) -> Iterator[State]:
        for one in workspace.iterdir():
            if not one.is_dir():
                yield self._state(str(one), one.name, one.lstat())
                continue
            lock = one / "lock"
            killed = lock.exists() and lock.stat().st_size > 0  # or at work: whoever comes sweeps
            swept = {path for at in abandoned._PLACES for path in one.glob(at)} if killed else set()
            yield from self._walk(str(one), one.name, {str(path) for path in swept}, killed=killed)

    def _walk(self, directory: str, name: str, swept: set[str], *, killed: bool) -> Iterator[State]:
        with os.scandir(directory) as found:
            entries = list(found)
        yield name, stat.S_IMODE(os.lstat(directory).st_mode), 0, "directory"
        names = {one.name for one in entries}
        for one in entries:
            path = f"{name}/{one.name}"
            if one.is_dir(follow_symlinks=False):
                if one.path not in swept:
                    yield from self._walk(one.path, path, swept, killed=killed)
            elif killed and one.name.startswith(".") and one.name.endswith(".tmp"):
                continue
            elif one.name == "lock":
                yield path, 0, 0, "lock"  # whether it was held decides what is swept, and no more
            elif one.name.endswith(JOURNAL) and one.name.removesuffix(JOURNAL) in names:
                continue
            elif one.name + JOURNAL in names:
                yield path, stat.S_IMODE(one.stat().st_mode), 1, rolled_back(Path(one.path))
            else:
                yield self._state(one.path, path, one.stat(follow_symlinks=False))

    def _state(self, file: str, path: str, now: os.stat_result) -> State:
        if stat.S_ISLNK(now.st_mode):
            return path, 0, 0, str(Path(file).readlink())
        key = (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)
        digest = self._known.get(key)
        if digest is None:
            before = time.time_ns()
            digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()
            if now.st_ctime_ns < before - SETTLED:
                self._known[key] = digest
        return path, stat.S_IMODE(now.st_mode), now.st_nlink, digest


def rolled_back(database: Path) -> str:
    """Return the digest of a database as whoever opens it next has it, in a copy."""
    with TemporaryDirectory() as scratch:
        copied = Path(shutil.copy(database, scratch))
        shutil.copy(f"{database}{JOURNAL}", scratch)
        with closing(sqlite3.connect(copied)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return hashlib.sha256(copied.read_bytes()).hexdigest()
