"""Which code a party runs, as one digest.

Guarantees: the digest covers every file of the four packages where this process imports them from,
whether a distribution's record lists it or not, and by links too; what Python has compiled for
itself (`__pycache__`) and the examples, which no party runs, are left out. The same files have the
same digest however they were installed. Where files changed after a process had read them, nothing
is said of what runs in it, or in a fork of it.

Leaves to others: Python itself with its `__pycache__` and other distributions, an operator who
patches a running process, and which digests are agreed (`compliance.policy`).
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from federation.errors import WorkspaceError

__all__ = ["DISTRIBUTION", "RunningCode", "code_listing", "listing", "running_code"]

DISTRIBUTION: Final = "comity"
_PACKAGES: Final = ("compliance", "connectors", "federation", "privacy")
_EXAMPLES: Final = "federation/examples/"


@dataclass(frozen=True)
class RunningCode:
    """What runs in this process.

    Attributes:
        package: name of the distribution.
        version: its version; `0` where it is not installed.
        digest: SHA-256 of `listing`, in hex.
    """

    package: str
    version: str
    digest: str


def listing(directories: dict[str, Path]) -> str:
    """List files as `sha256sum` does: digest, two spaces, path, in the order of paths.

    Args:
        directories: name that paths begin with → directory.
    """
    files = {
        path: file.path
        for name, directory in directories.items()
        for path, file in _files(directory, name)
    }
    return "".join(
        f"{hashlib.sha256(Path(files[path]).read_bytes()).hexdigest()}  {path}\n"
        for path in sorted(files)
        if not path.startswith(_EXAMPLES)
    )


@cache
def _directories() -> dict[str, Path]:
    directories = {}
    for name in _PACKAGES:
        spec = find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise RuntimeError(f"package {name} is not installed as a directory")
        directories[name] = Path(spec.submodule_search_locations[0])
    return directories


def code_listing() -> str:
    """List the files of what runs here, as `listing` does."""
    return listing(_directories())


def running_code() -> RunningCode:
    """Return what runs here; read once a process, as its code is.

    Raises:
        WorkspaceError: files have changed since, or cannot be read.
    """
    try:
        marks, code = _read()
        now = _marks()
    except OSError as error:
        raise WorkspaceError(
            f"the installed code cannot be read ({error.strerror}): install it again, then start "
            "the process again"
        ) from error
    if now != marks:
        raise WorkspaceError(
            "the installed code has changed since this process read it: start the process again"
        )
    return code


@cache
def _read() -> tuple[frozenset[tuple[str, int, int, int]], RunningCode]:
    marks = _marks()
    try:
        installed = version(DISTRIBUTION)
    except PackageNotFoundError:
        installed = "0"
    digest = hashlib.sha256(code_listing().encode()).hexdigest()
    return marks, RunningCode(DISTRIBUTION, installed, digest)


def _marks() -> frozenset[tuple[str, int, int, int]]:
    """Return what tells each file from a later one in its place; reading all takes ten times it."""
    return frozenset(
        (path, stat.st_ino, stat.st_size, stat.st_ctime_ns)
        for name, directory in _directories().items()
        for path, file in _files(directory, name)
        for stat in (file.stat(),)
    )


def _files(directory: Path, name: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield every file that could be imported from a directory, by links too, with its path.

    Bytecode counts but for what Python itself keeps: it is imported where there is no source.
    """
    is_kept = directory.name == "__pycache__"
    with os.scandir(directory) as found:
        for one in found:
            path = f"{name}/{one.name}"
            if one.is_dir():
                yield from _files(Path(one.path), path)
            elif one.is_file() and not (is_kept and one.name.endswith(".pyc")):
                yield path, one
