"""What is kept of a party's folder: each file and directory, and of which moment.

Leaves to others: finding files (`scan`), where they are kept (`store`).
"""

import hashlib
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

__all__ = ["Extent", "KeptFile", "Part", "Standing", "digest_of", "microseconds", "moment"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A file, or a directory.

    Attributes:
        path: within the folder, or `/` and its use where it lies outside.
        mode: kind and permissions, as `stat` has them.
        size: of what is kept of it, in bytes; 0 of a directory.
        modified: when, in nanoseconds since 1970; 0 of a directory.
        stamp: inode, size and times in the holder's folder (see `scan`); empty of a directory.
        digest: SHA-256 over the digests of its parts, in hexadecimal; None of a secret that lies
            in clear, of which no content is kept.
    """

    path: str
    mode: int
    size: int
    modified: int
    stamp: str
    digest: str | None

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    def is_like(self, other: "KeptFile") -> bool:
        """Tell whether another, of the same path, restores to the same."""
        mine = (self.mode, self.size, self.digest)
        return mine == (other.mode, other.size, other.digest)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a file's content.

    Attributes:
        path: the file's.
        number: from 0.
        digest: SHA-256, in hexadecimal.
        content: of 1 MiB, but for the last.
    """

    path: str
    number: int
    digest: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a copy stands.

    Attributes:
        party: whose.
        holder: id of the folder that it is of.
        held_since: since when that folder is the one.
        sequence: how often the copy was changed.
        synchronised: when it was last.
    """

    party: str
    holder: str
    held_since: datetime
    sequence: int
    synchronised: datetime


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is in a copy.

    Attributes:
        files: how many it has.
        size: of all of them, in bytes.
        in_clear: how many files of secrets in clear the folder has, which are not in it.
    """

    files: int
    size: int
    in_clear: int


def digest_of(parts: Iterable[str]) -> str:
    """Return the digest of a file from those of its parts, in order."""
    whole = hashlib.sha256()
    for one in parts:
        whole.update(bytes.fromhex(one))
    return whole.hexdigest()


def microseconds(when: datetime) -> int:
    """Return a moment as it is kept: microseconds since 1970, UTC."""
    return (when - _EPOCH) // timedelta(microseconds=1)


def moment(kept: int) -> datetime:
    """Return the moment that is kept as this."""
    return _EPOCH + timedelta(microseconds=kept)
