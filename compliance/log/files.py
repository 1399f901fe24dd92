"""The few things that logs and witnesses do to a file system, so that tests can crash any of them.

Guarantees: `LocalFiles.sync` returns when everything that was named is on the device; `publish`
replaces a file in one step, and returns when the new one is durable.

Leaves to others: what is written, and in which order.
"""

import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Protocol

__all__ = ["Files", "LocalFiles", "publish"]

_MOST_AT_ONCE: Final = 16


class Files(Protocol):
    """A file system; nothing is durable before its `sync`."""

    def make_directory(self, path: Path) -> None:
        """Create a directory and its parents; it may exist."""

    def write(self, path: Path, data: bytes) -> None:
        """Create or overwrite a file."""

    def sync(self, paths: Collection[Path]) -> None:
        """Make durable files' contents and directories' lists of names, in whatever order."""

    def replace(self, source: Path, target: Path) -> None:
        """Rename a file over another, atomically."""

    def remove(self, path: Path) -> None:
        """Delete a file or an empty directory."""


class LocalFiles:
    """The file system of this machine."""

    def make_directory(self, path: Path) -> None:
        """Create a directory and its parents; it may exist."""
        path.mkdir(parents=True, exist_ok=True)

    def write(self, path: Path, data: bytes) -> None:
        """Create or overwrite a file."""
        path.write_bytes(data)

    def sync(self, paths: Collection[Path]) -> None:
        """Flush to the device with fsync(2); several at once, so that they share its one flush."""
        if len(paths) == 1:
            for path in paths:
                _sync(path)
            return
        with ThreadPoolExecutor(min(len(paths), _MOST_AT_ONCE)) as pool:
            for _ in pool.map(_sync, paths):
                pass

    def replace(self, source: Path, target: Path) -> None:
        """Rename a file over another, atomically."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """Delete a file or an empty directory."""
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()


def publish(files: Files, path: Path, data: bytes) -> None:
    """Replace a file in one step. A crash leaves the old content or the new one, never a part."""
    temporary = path.with_name(f"{path.name}.new")
    files.write(temporary, data)
    files.sync([temporary])
    files.replace(temporary, path)
    files.sync([path.parent])


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
