"""Two disks have one fingerprint where whoever holds the folders next finds the same, and only there."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from disk_states import Disks

from compliance.terms import Role
from federation.party import PartyConfig, PartyFolder, locked

PARTY = "brand"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A party's folder, held by nobody: a file, a database, a directory."""
    folder = tmp_path / "workspace" / PARTY
    PartyFolder.create(folder, PartyConfig(name=PARTY, role=Role.BRAND))
    (folder / "jobs" / "find").mkdir(parents=True)
    (folder / "lock").touch()
    (folder / "head").write_bytes(b"one")
    (folder.parent / "wire").write_bytes(b"")
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as ledger, ledger:
        ledger.execute("CREATE TABLE charges (charge TEXT)")
    return folder.parent


def insert(workspace: Path) -> None:
    with closing(sqlite3.connect(workspace / PARTY / "ledger.sqlite")) as ledger, ledger:
        ledger.execute("INSERT INTO charges VALUES ('c')")


def die(work: Callable[[], object]) -> None:
    """Do something in a process that is gone then, and closes nothing."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def begin_a_transaction(workspace: Path) -> None:
    """Write a part of a database, and what it takes to undo that."""
    ledger = sqlite3.connect(workspace / PARTY / "ledger.sqlite", isolation_level=None)
    ledger.execute("PRAGMA cache_size = 1")
    ledger.execute("BEGIN")
    for _ in range(200):
        ledger.execute("INSERT INTO charges VALUES (hex(zeroblob(400)))")


def begin_to_write(workspace: Path) -> None:
    """Write what a holder writes that has not put it in its place."""
    folder = workspace / PARTY
    (folder / "lock").write_bytes(b"\0")
    (folder / f".head.00.{os.getpid()}.tmp").write_bytes(b"two")
    (folder / "jobs" / "find" / "reading.tmp").mkdir()
    (folder / "jobs" / "find" / "reading.tmp" / "people").touch()


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda path: (path / PARTY / "head").write_bytes(b"two"),
    "mode": lambda path: (path / PARTY / "head").chmod(0o600),
    "mode of a directory": lambda path: (path / PARTY / "jobs").chmod(0o700),
    "name": lambda path: (path / PARTY / "head").rename(path / PARTY / "tail"),
    "second name": lambda path: (path / PARTY / "tail").hardlink_to(path / PARTY / "head"),
    "second name elsewhere": lambda path: (path.parent / "x").hardlink_to(path / PARTY / "head"),
    "directory": lambda path: (path / PARTY / "jobs" / "model").mkdir(),
    "loss": lambda path: (path / PARTY / "head").unlink(),
    "wire": lambda path: (path / "wire").write_bytes(b"brand"),
    "committed": insert,
    "begun, and not to be swept": lambda path: (path / PARTY / ".head.tmp").touch(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_can_be_found_later_counts(workspace: Path, change: Callable[[Path], object]) -> None:
    disks = Disks()
    before = disks.fingerprint(workspace)
    assert disks.fingerprint(workspace) == before
    change(workspace)
    after = disks.fingerprint(workspace)
    assert after != before
    assert Disks().fingerprint(workspace) == after  # nothing is remembered that has changed


def test_what_the_next_holder_sweeps_does_not_count(workspace: Path) -> None:
    disks = Disks()
    before = disks.fingerprint(workspace)
    die(lambda: begin_to_write(workspace))
    assert len(list(workspace.rglob("*.tmp"))) == 2
    assert disks.fingerprint(workspace) == before
    with locked(PartyFolder(workspace / PARTY)):
        pass
    assert not list(workspace.rglob("*.tmp"))
    assert disks.fingerprint(workspace) == before


def test_a_transaction_that_was_cut_does_not_count(workspace: Path) -> None:
    disks, ledger = Disks(), workspace / PARTY / "ledger.sqlite"
    before, content = disks.fingerprint(workspace), ledger.read_bytes()
    die(lambda: begin_a_transaction(workspace))
    assert ledger.read_bytes() != content
    assert disks.fingerprint(workspace) == before
    insert(workspace)
    assert disks.fingerprint(workspace) != before
