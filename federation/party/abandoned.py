"""Directories of people that a step works in: known from those that a killed process left.

Guarantees: what a process that is gone had laid there can be removed, and what one that lives works
with cannot, whatever numbers processes have.

Leaves to others: making the directory and removing it where all goes well (`shelves`), and when it
is looked for what was left (`lock`, `erasure_places`).
"""

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

__all__ = ["in_use", "remove_abandoned", "remove_unless_in_use"]

_PLACES: Final = ("*.tmp", "jobs/*/*.tmp", "erasures/showing/*.tmp")


@contextmanager
def in_use(directory: Path) -> Iterator[None]:
    """Mark a directory as worked in, until the end or until the process dies."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # a file system that knows no such locks
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def remove_abandoned(folder: Path, places: Sequence[str] = _PLACES) -> None:
    """Remove from a party's folder, or from some places in it, what nobody who lives works in."""
    for pattern in places:
        for directory in folder.glob(pattern):
            if directory.is_dir():
                remove_unless_in_use(directory)


def remove_unless_in_use(directory: Path) -> None:
    """Remove a directory in which nobody who lives works."""
    if not _is_in_use(directory):
        shutil.rmtree(directory, ignore_errors=True)


def _is_in_use(directory: Path) -> bool:
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # it went meanwhile, or is no directory any more
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)
