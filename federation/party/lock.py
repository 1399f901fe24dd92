"""Holding a party's folder, one thread at a time.

Guarantees: what a killed holder had not put in its place is gone before the next one begins. Where
a database keeps a copy of the folder, nobody holds one that was restored elsewhere, and whoever has
held one returns once the copy is as the folder is.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from federation.errors import PartyBusyError
from federation.party.abandoned import remove_abandoned
from federation.party.folder import PartyFolder

__all__ = ["copied", "locked"]

_LOCK_POLL_SECONDS: Final = 0.02


@contextmanager
def locked(folder: PartyFolder, *, patience: float | None = None) -> Iterator[None]:
    """Hold the party's folder for this thread; others, in any process, wait their turn.

    While it is held the lock's file is a byte long, which takes no room on a disk that is full. If
    it is so already, its last holder was killed, or failed: what that had written and not yet put
    in its place, or read to work with, is removed, as nobody would find it later to erase it.

    Args:
        folder: the party's.
        patience: seconds to wait for whoever holds it; as long as it takes where left out.

    Raises:
        PartyBusyError: the folder was not free in time.
        ReplicaError: the folder was restored elsewhere, or the database that keeps a copy of it
            cannot be reached.
    """
    with (folder.path / "lock").open("a", encoding="ascii") as file:
        if patience is None:
            fcntl.flock(file, fcntl.LOCK_EX)
        else:
            _acquire(file.fileno(), time.monotonic() + patience)
        if os.fstat(file.fileno()).st_size:
            _sweep(folder.path)
        if folder.replica is not None:
            folder.replica.check()
        file.truncate(1)
        yield
        folder.synchronise()
        file.truncate(0)


def copied(folder: PartyFolder) -> None:
    """Return once the folder's copy, where there is to be one, is as the folder is.

    Raises:
        ReplicaError: as `locked`.
    """
    if folder.replica is not None:
        with locked(folder):
            pass


def _acquire(descriptor: int, until: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise PartyBusyError(
                    "a job is at work here: nothing was done; ask again a little later"
                ) from None
            time.sleep(_LOCK_POLL_SECONDS)
        else:
            return


def _sweep(directory: Path) -> None:
    """Remove what processes that are gone had not put in its place, or had read of people."""
    remove_abandoned(directory)
    for partial in directory.rglob(".*.tmp"):
        writer = partial.name.split(".")[-2]
        if not (writer.isdecimal() and writer != str(os.getpid()) and _is_alive(int(writer))):
            partial.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass  # somebody else's, or none that can be asked about: leave its file
    return True
