"""Files and folders that a crash leaves whole, and that are their owner's alone where they must be.

Guarantees: files appear whole or not at all (`write_atomically`).
"""

import errno
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from federation.errors import WorkspaceError
from privacy.randomness import new_secret

__all__ = ["make_private", "write_atomically"]

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomically(path: Path, content: bytes | Iterable[bytes], *, mode: int = 0o644) -> None:
    """Write a file so that a crash leaves either the old content or the new, never a part.

    Content that is too large for memory comes in pieces.

    When it returns, content and name are on disk; new directories above are not made durable. Of
    several that write at once, in whatever thread or process, one's content is left, whole.

    Args:
        path: the file; directories above it are made.
        content: all of it.
        mode: its permissions, from before a byte is in it.

    Raises:
        WorkspaceError: the disk is full, or the user's share of it.
        OSError: the file cannot be written for another reason.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{new_secret().hex()[:16]}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.writelines([content] if isinstance(content, bytes) else content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        if error.errno not in _FULL:
            raise
        raise WorkspaceError(
            f"{path} cannot be written ({error.strerror}): make room on the disk, then run again"
        ) from error
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def make_private(path: Path) -> None:
    """Make a folder, unless it is there, and have it be its owner's alone.

    Raises:
        WorkspaceError: it cannot be made, or is another user's.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o700)
    except OSError as error:
        raise WorkspaceError(
            f"{path} cannot be made a folder of this user's alone ({error.strerror}): give it to "
            "this user (chown), or name a folder within it if it is where a volume is mounted"
        ) from error
