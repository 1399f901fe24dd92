"""The tokens that a party brings to a match, on disk, in the order in which buckets are cut.

```
DIRECTORY/
  set.json       how many tokens, and what commits to them
  tokens.bin     records sorted by hash: a token (33 bytes), its person's row (4), its rank (1)
  shelf-XX.bin   while it is being written: tokens whose hash begins with XX
```

Guarantees: memory depends on a batch and a bucket, not on the set; the set is there whole or not at
all (`set.json` comes last), and a crash or a full disk leaves nothing that would be taken for one;
any number of buckets can be cut from one set (`privacy.psi.buckets` defines them). The digest
depends on the tokens alone, not on how they came.

Leaves to others: which people and tokens (`population`), and what is done with a bucket.
"""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from federation.errors import WorkspaceError
from federation.party import write_atomically

__all__ = ["MatchingSet", "TokenBatch"]

_RECORD: Final = np.dtype([("token", "u1", 33), ("row", "<u4"), ("rank", "u1")])
_SHELVES: Final = 256


class TokenBatch(NamedTuple):
    """Tokens of some people.

    Attributes:
        tokens: shape (n, 33).
        rows: row of each one's person, shape (n,), below 2^32.
        ranks: rank of the key that each was made of, shape (n,), below 256.
    """

    tokens: NDArray[np.uint8]
    rows: NDArray[np.int64]
    ranks: NDArray[np.int64]


class _Contents(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = Field(default=1, ge=1, le=1)
    tokens: int = Field(ge=0)
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")


@dataclass(frozen=True)
class MatchingSet:
    """A set of distinct tokens in a directory of its own.

    Attributes:
        directory: where it lies.
        token_count: how many tokens there are.
        digest: SHA-256 over the sorted tokens (hex). It is a function of identifiers: it stays
            with the party, and leaves only under a key (a commitment).
    """

    directory: Path
    token_count: int
    digest: str

    @classmethod
    def write(cls, directory: Path, batches: Iterable[TokenBatch]) -> Self:
        """Spill batches to disk, sort them, and keep every token once, with its least row.

        1. Spread the tokens over shelves by the first byte of their hash.
        2. Sort each shelf and append it; drop it.
        3. Say that the set is there: a crash before leaves none.

        Raises:
            WorkspaceError: the disk is full, or cannot be written.
        """
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            for leftover in directory.iterdir():
                leftover.unlink()
            for batch in batches:  # 1
                _spread(directory, batch)
            count, digest = _gather(directory)  # 2
            contents = _Contents(tokens=count, digest=digest)
            write_atomically(  # 3
                directory / "set.json", contents.model_dump_json().encode(), mode=0o600
            )
        except OSError as error:
            raise WorkspaceError(
                f"{directory} cannot hold the set to be matched: {error.strerror}: make room, then "
                "run the job again"
            ) from error
        return cls(directory, count, digest)

    @classmethod
    def open(cls, directory: Path) -> Self | None:
        """Return the set that was written there, or None if there is none.

        Raises:
            WorkspaceError: it is damaged.
        """
        try:
            contents = _Contents.model_validate_json((directory / "set.json").read_bytes())
            size = (directory / "tokens.bin").stat().st_size
        except FileNotFoundError:
            if (directory / "set.json").exists():
                raise WorkspaceError(f"{directory} has lost its tokens: remove it") from None
            return None
        except (ValidationError, OSError) as error:
            raise WorkspaceError(f"{directory} cannot be read: remove it, run again") from error
        if size != contents.tokens * _RECORD.itemsize:
            raise WorkspaceError(f"{directory} is cut short: remove it, then run the job again")
        return cls(directory, contents.tokens, contents.digest)

    def discard(self) -> None:
        """Say that there is no set; the next one sweeps away what is left of this one."""
        (self.directory / "set.json").unlink(missing_ok=True)

    def bucket(self, number: int, count: int) -> TokenBatch:
        """Return bucket `number` of `count`, tokens sorted by hash."""
        records = self._records()
        begin, end = (
            _first_from(records, -(-(edge << 32) // count)) for edge in (number, number + 1)
        )
        part = np.array(records[begin:end])
        return TokenBatch(
            np.ascontiguousarray(part["token"]),
            part["row"].astype(np.int64),
            part["rank"].astype(np.int64),
        )

    def hashes(self) -> NDArray[np.uint64]:
        """Return the last 64 bits of every token's hash, ascending, each once."""
        tails = np.ascontiguousarray(self._records()["token"][:, -8:]).view("<u8").reshape(-1)
        first = np.ones(len(tails), dtype=np.bool_)
        first[1:] = tails[1:] != tails[:-1]  # the records are sorted by them
        return tails[first].astype(np.uint64)

    def _records(self) -> NDArray[np.void]:
        if self.token_count == 0:  # nothing can be mapped of an empty file
            return np.empty(0, dtype=_RECORD)
        return np.memmap(self.directory / "tokens.bin", dtype=_RECORD, mode="r")


def _spread(directory: Path, batch: TokenBatch) -> None:
    records = np.empty(len(batch.tokens), dtype=_RECORD)
    records["token"], records["row"], records["rank"] = batch
    shelf = batch.tokens[:, -1]
    order = np.argsort(shelf, kind="stable")
    edges = np.searchsorted(shelf[order], np.arange(_SHELVES + 1))
    for number in range(_SHELVES):
        part = records[order[edges[number] : edges[number + 1]]]
        if len(part):
            with _append(directory / f"shelf-{number:02x}.bin") as file:
                file.write(part.tobytes())


def _gather(directory: Path) -> tuple[int, str]:
    count, digest = 0, hashlib.sha256()
    with _append(directory / "tokens.bin") as whole:
        for number in range(_SHELVES):
            path = directory / f"shelf-{number:02x}.bin"
            if not path.exists():
                continue
            records = _sorted(np.fromfile(path, dtype=_RECORD))
            digest.update(np.ascontiguousarray(records["token"]).tobytes())
            whole.write(records.tobytes())
            count += len(records)
            path.unlink()
        whole.flush()
        os.fsync(whole.fileno())
    return count, digest.hexdigest()


def _sorted(records: NDArray[np.void]) -> NDArray[np.void]:
    """Sort a shelf by hash, then kind, then row, and keep the first of equal tokens."""
    tokens = np.ascontiguousarray(records["token"])
    words = np.ascontiguousarray(tokens[:, 1:]).view("<u8")
    keys = (records["row"], tokens[:, 0], *(words[:, column] for column in range(4)))
    records = records[np.lexsort(keys)]
    tokens = records["token"]
    first = np.ones(len(records), dtype=np.bool_)
    first[1:] = (tokens[1:] != tokens[:-1]).any(axis=1)
    return records[first]


def _first_from(records: NDArray[np.void], bound: int) -> int:
    """Return where hashes of `bound` or more, in their first 32 bits, begin."""
    low, high = 0, len(records)
    while low < high:
        middle = (low + high) // 2
        if int.from_bytes(records["token"][middle, -4:].tobytes(), "little") < bound:
            low = middle + 1
        else:
            high = middle
    return low


def _append(path: Path) -> BinaryIO:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    return os.fdopen(descriptor, "ab")
