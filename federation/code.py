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
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from federation.errors import WorkspaceError

__all__ = [
    "DISTRIBUTION",
    "RunningCode",
    "code_listing",
    "listing",
    "looked_at_once",
    "running_code",
]

DISTRIBUTION: Final = "comity"
_PACKAGES: Final = ("compliance", "connectors", "federation", "privacy")
_EXAMPLES: Final = "federation/examples/"
_COARSEST_TICK: Final = 2 * 10**9
"""Nanoseconds between two times that any file system tells apart."""


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


def listing(directories: Mapping[str, Path]) -> str:
    """List files as `sha256sum` does: digest, two spaces, path, in the order of paths.

    Args:
        directories: name that paths begin with → directory.
    """
    files = _Tree(directories).files()
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
    return _LOOK.get()()


@contextmanager
def looked_at_once() -> Iterator[None]:
    """Have `running_code` look at the files once for all that leaves together after the block."""
    token = _LOOK.set(cache(_LOOK.get()))
    try:
        yield
    finally:
        _LOOK.reset(token)


def _look() -> RunningCode:
    try:
        tree, marks, code = _read()
        now = tree.marks()
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


_LOOK: Final[ContextVar[Callable[[], RunningCode]]] = ContextVar("look", default=_look)


@cache
def _read() -> tuple["_Tree", Mapping[str, "_Mark"], RunningCode]:
    tree = _Tree(_directories())
    marks = tree.marks()
    try:
        installed = version(DISTRIBUTION)
    except PackageNotFoundError:
        installed = "0"
    digest = hashlib.sha256(code_listing().encode()).hexdigest()
    return tree, marks, RunningCode(DISTRIBUTION, installed, digest)


_Mark = tuple[int, int, int]


def _mark(file: str) -> _Mark:
    """Return what tells a file from a later one in its place; reading all takes ten times it."""
    found = os.stat(file)  # noqa: PTH116 -- of hundreds of files, for every message
    return found.st_ino, found.st_size, found.st_ctime_ns


@dataclass
class _Seen:
    """What one look through directories found.

    Attributes:
        files: where every file lies, by its path.
        directories: the mark of each, as it was before its files were listed.
        relied_on: whether whatever comes later changes one of these marks.
    """

    files: dict[str, str] = field(default_factory=dict)
    directories: dict[str, _Mark] = field(default_factory=dict)
    relied_on: bool = True


class _Tree:
    """Every file that could be imported from directories, looked for anew where it may be others.

    Whatever comes, goes or is renamed changes the mark of its directory, unless it did so within
    one tick of the file system's clock: directories are relied on once they are older than that.
    What a link to nowhere leads to may come without it: beside one, nothing is relied on.
    Threads look each for itself, and leave what they found once it is whole.
    """

    def __init__(self, roots: Mapping[str, Path]) -> None:
        self._roots = roots
        self._seen = _Seen(relied_on=False)

    def marks(self) -> Mapping[str, _Mark]:
        """Return the mark of every file that there is now, by its path.

        Raises:
            OSError: they cannot be seen.
        """
        seen = self._seen
        if not seen.relied_on or any(
            _mark(directory) != mark for directory, mark in seen.directories.items()
        ):
            seen = self._seen = self._look()
        return {path: _mark(file) for path, file in seen.files.items()}

    def files(self) -> Mapping[str, str]:
        """Return where every file lies that there is now, by its path.

        Raises:
            OSError: a directory cannot be read.
        """
        return self._look().files

    def _look(self) -> _Seen:
        settled, seen = time.time_ns() - _COARSEST_TICK, _Seen()
        for name, directory in self._roots.items():
            _enter(seen, str(directory), name)
        seen.relied_on &= all(changed < settled for *_, changed in seen.directories.values())
        return seen


def _enter(seen: _Seen, directory: str, name: str) -> None:
    """Look through a directory, by links too.

    Bytecode counts but for what Python itself keeps: it is imported where there is no source.
    """
    seen.directories[directory] = _mark(directory)
    is_kept = Path(directory).name == "__pycache__"
    with os.scandir(directory) as found:
        for one in found:
            path = f"{name}/{one.name}"
            if one.is_dir():
                _enter(seen, one.path, path)
            elif not one.is_file():
                seen.relied_on = False
            elif not (is_kept and one.name.endswith(".pyc")):
                seen.files[path] = one.path
