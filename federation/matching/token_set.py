"""The tokens that a party brings to a match, on disk, in the order in which buckets are cut.

```
DIRECTORY/
  set.json       how many tokens, and what commits to them
  tokens.bin     records sorted by hash: a token (33 bytes), its person's row (4), its rank (1)
```

Guarantees: memory depends on a batch and a bucket, not on the set; the set is there whole or not at
all (`set.json` comes last), and a crash or a full disk leaves nothing that would be taken for one;
any number of buckets can be cut from one set (`privacy.psi.buckets` defines them). The digest
depends on the tokens alone, not on how they came.

Leaves to others: which people and tokens (`population`), and what is done with a bucket.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from federation.errors import WorkspaceError
from federation.party import write_atomically
from federation.shelves import scratch

__all__ = ["MatchingSet", "TokenBatch", "TokenShelves"]

_RECORD: Final = np.dtype([("token", "u1", 33), ("row", "<u4"), ("rank", "u1")])
_SPREAD: Final = np.dtype([*_RECORD.descr, ("brought", "?")])
_SHELVES: Final = 256
_BLOCK: Final = 1 << 18
_TOGETHER: Final = 1 << 16
"""Tokens for which a sorting waits: where they are few, it takes several shelves at once."""


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

        Raises:
            WorkspaceError: the disk is full, or cannot be written.
        """
        with scratch(directory.with_name(f"{directory.name}.tmp")) as beside:
            shelves = TokenShelves(beside)
            for batch in batches:
                shelves.put(batch)
            for _ in shelves.sorting():
                pass
            return cls.write_sorted(directory, shelves.batches())

    @classmethod
    def write_sorted(cls, directory: Path, batches: Iterable[TokenBatch]) -> Self:
        """Write tokens that come in the order of their hashes, every token once.

        1. Append them.
        2. Say that the set is there: a crash before leaves none.

        Raises:
            WorkspaceError: the disk is full, or cannot be written.
        """
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            for leftover in directory.iterdir():
                leftover.unlink()
            count, digest = 0, hashlib.sha256()
            with _append(directory / "tokens.bin") as whole:  # 1
                for batch in batches:
                    digest.update(np.ascontiguousarray(batch.tokens).data)
                    whole.write(_records(batch, _RECORD).tobytes())
                    count += len(batch.tokens)
                whole.flush()
                os.fsync(whole.fileno())
            contents = _Contents(tokens=count, digest=digest.hexdigest())
            write_atomically(  # 2
                directory / "set.json", contents.model_dump_json().encode(), mode=0o600
            )
        except OSError as error:
            raise WorkspaceError(
                f"{directory} cannot hold the set to be matched: {error.strerror}: make room, then "
                "run the job again"
            ) from error
        return cls(directory, count, contents.digest)

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

    def hashes(self) -> Iterator[NDArray[np.uint64]]:
        """Yield the last 64 bits of every token's hash, ascending, each once, block by block."""
        before = np.empty(0, dtype=np.uint64)
        for begin in range(0, self.token_count, _BLOCK):
            count = min(_BLOCK, self.token_count - begin)
            records = np.fromfile(
                self.directory / "tokens.bin", _RECORD, count, offset=begin * _RECORD.itemsize
            )
            tails = np.ascontiguousarray(records["token"][:, -8:]).view("<u8").reshape(-1)
            first = np.ones(count, dtype=np.bool_)
            first[1:] = tails[1:] != tails[:-1]  # the records are sorted by them
            first[0] = not len(before) or tails[0] != before
            before = tails[-1:]
            if first.any():
                yield tails[first].astype(np.uint64)

    def _records(self) -> NDArray[np.void]:
        if self.token_count == 0:  # nothing can be mapped of an empty file
            return np.empty(0, dtype=_RECORD)
        return np.memmap(self.directory / "tokens.bin", dtype=_RECORD, mode="r")


class TokenShelves:
    """All tokens of a table on disk, on shelves by the first byte of their hash.

    Args:
        directory: an empty one, which holds nothing that lasts.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._sizes = np.zeros(_SHELVES, dtype=np.int64)

    def put(self, batch: TokenBatch, brought: NDArray[np.bool_] | None = None) -> None:
        """Put tokens where they belong.

        Args:
            batch: tokens of some people.
            brought: which of them belong to the set if their person does; all, where left out.

        Raises:
            OSError: the disk is full, or cannot be written.
        """
        records = _records(batch, _SPREAD)
        records["brought"] = True if brought is None else brought
        shelf = batch.tokens[:, -1]
        order = np.argsort(shelf, kind="stable")
        edges = np.searchsorted(shelf[order], np.arange(_SHELVES + 1))
        records = records[order]
        for number in np.flatnonzero(np.diff(edges)).tolist():
            with _append(self._path(number)) as file:
                file.write(records[edges[number] : edges[number + 1]].data)
        self._sizes += np.diff(edges)

    def sort(self) -> NDArray[np.uint32]:
        """Sort every shelf; return all pairs of `sorting`."""
        return np.concatenate([np.zeros((0, 2), dtype=np.uint32), *self.sorting()])

    def sorting(self) -> Iterator[NDArray[np.uint32]]:
        """Sort one shelf after the other by hash, kind and row; yield rows that share a token.

        Of several shelves that are sorted at once the first holds them all from then on.

        Yields:
            Pairs of rows, shape (m, 2); who shares one is linked over such pairs.

        Raises:
            OSError: the disk is full, or cannot be written.
        """
        for numbers in self._together():
            records = _sorted(np.concatenate([self._read(number) for number in numbers]))
            for number in numbers:
                self._path(number).unlink()
            self._sizes[numbers], self._sizes[numbers[0]] = 0, len(records)
            with _append(self._path(numbers[0])) as file:
                file.write(records.data)
            again = ~_first_of_equal(records["token"])
            rows = records["row"]
            yield np.column_stack([rows[:-1], rows[1:]])[again[1:]]

    def batches(self, places: NDArray[np.int32] | None = None) -> Iterator[TokenBatch]:
        """Yield the sorted tokens that are brought, each once, with its least row.

        Args:
            places: of every row, its number among the people, below 0 where it is left out,
                shape (n,); where there are none, rows stay what they are.
        """
        for number in np.flatnonzero(self._sizes).tolist():
            records = self._read(number)
            wanted = records["brought"]
            if places is not None:
                wanted = wanted & (places[records["row"]] >= 0)
            records = records[wanted]
            records = records[_first_of_equal(records["token"])]
            rows = records["row"].astype(np.int64)
            yield TokenBatch(
                np.ascontiguousarray(records["token"]),
                rows if places is None else places[rows].astype(np.int64),
                records["rank"].astype(np.int64),
            )

    def _together(self) -> list[list[int]]:
        """Return the shelves that hold anything, those in one list whose tokens are few."""
        groups: list[list[int]] = []
        size = _TOGETHER
        for number in np.flatnonzero(self._sizes).tolist():
            if size >= _TOGETHER:
                groups.append([])
                size = 0
            groups[-1].append(number)
            size += int(self._sizes[number])
        return groups

    def _read(self, number: int) -> NDArray[np.void]:
        return np.fromfile(self._path(number), dtype=_SPREAD)

    def _path(self, number: int) -> Path:
        return self._directory / f"shelf-{number:02x}.bin"


def _records(batch: TokenBatch, kind: "np.dtype[np.void]") -> NDArray[np.void]:
    records = np.empty(len(batch.tokens), dtype=kind)
    records["token"], records["row"], records["rank"] = batch
    return records


def _sorted(records: NDArray[np.void]) -> NDArray[np.void]:
    """Sort a shelf by hash, then kind, then row.

    Hashes whose last 64 bits differ, nearly all, are told apart by these alone.
    """
    tokens = np.ascontiguousarray(records["token"])
    words = np.ascontiguousarray(tokens[:, 1:]).view("<u8")
    order = np.argsort(words[:, 3])
    alike = words[order[1:], 3] == words[order[:-1], 3]
    tied = np.zeros(len(records), dtype=np.bool_)
    tied[1:] |= alike
    tied[:-1] |= alike
    some = order[tied]
    keys = (records["row"][some], tokens[some, 0], *(words[some, word] for word in range(4)))
    order[tied] = some[np.lexsort(keys)]
    return records[order]


def _first_of_equal(tokens: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Tell of sorted tokens, shape (n, 33), which ones differ from the one before."""
    first = np.ones(len(tokens), dtype=np.bool_)
    if len(tokens):
        tails = np.ascontiguousarray(tokens[:, -8:]).view("<u8").reshape(-1)
        alike = np.flatnonzero(tails[1:] == tails[:-1]) + 1
        first[alike] = (tokens[alike] != tokens[alike - 1]).any(axis=1)
    return first


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
