"""The tokens that a party brings to one match, laid out by record in the order in which they leave.

```
DIRECTORY/
  records.json     how many tokens, in how many chunks of how many places; written last
  rows.bin         the row of the record at each place (4 bytes); `NOBODY` where padding stands
  chunk-N.bin      the tokens of its records: a token (33 bytes), the record's place in it (4)
```

Guarantees: memory depends on a batch, a chunk, and four bytes for each row and place, not on the
tokens; the layout is there whole or not at all (`records.json` comes last).

Leaves to others: where records stand (`privacy.psi.records`), the tokens (`token_set`), and taking
the layout away when its match is over.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from federation.errors import WorkspaceError
from federation.matching.token_set import MatchingSet, TokenBatch
from federation.party import write_atomically

__all__ = ["NOBODY", "RecordSet", "Records"]

NOBODY: Final = 2**32 - 1
"""Stands for padding among the rows of a layout."""

_RECORD: Final = np.dtype([("token", "u1", 33), ("place", "<u4")])
_BATCH_TOKENS: Final = 1 << 19


@dataclass(frozen=True)
class Records:
    """The records of a set: its rows that bear tokens, or every token by itself.

    Attributes:
        own: the set.
        rows: (n,) row of each record.
        most: tokens of the record that bears most; 0 where there is none.
        by_row: whether a record is a row.
    """

    own: MatchingSet
    rows: NDArray[np.uint32]
    most: int
    by_row: bool

    @classmethod
    def of(cls, own: MatchingSet, people: int, *, by_row: bool) -> Self:
        """Count the records of a set whose rows are below `people`."""
        if not by_row:
            batches = [batch.rows.astype(np.uint32) for batch in _batches(own)]
            return cls(own, np.concatenate(batches), min(1, own.token_count), by_row)
        borne = np.zeros(people, dtype=np.uint16)
        for batch in _batches(own):
            np.add.at(borne, batch.rows, np.uint16(1))
        rows = np.flatnonzero(borne).astype(np.uint32)
        return cls(own, rows, int(borne.max(initial=0)), by_row)

    def batches(self) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.integer]]]:
        """Return all tokens, and the number of each one's record, batch by batch."""
        seen = 0
        for batch in _batches(self.own):
            if self.by_row:
                yield batch.tokens, np.searchsorted(self.rows, batch.rows.astype(np.uint32))
            else:
                yield batch.tokens, np.arange(seen, seen + len(batch.tokens))
            seen += len(batch.tokens)


class _Contents(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = Field(default=1, ge=1, le=1)
    tokens: int = Field(ge=0)
    chunks: int = Field(ge=1)
    places: int = Field(ge=1)


@dataclass(frozen=True)
class RecordSet:
    """Records laid out in chunks, in a directory of their own.

    Attributes:
        directory: where they lie.
        chunks: how many.
        places: for records in each.
    """

    directory: Path
    chunks: int
    places: int

    @classmethod
    def write(
        cls, directory: Path, records: Records, at: NDArray[np.uint32], *, chunks: int
    ) -> Self:
        """Lay records out.

        1. Spread the tokens over the chunks in which their records stand.
        2. Write whose place is whose; have all of it on disk.
        3. Say that the layout is there: a crash before leaves none.

        Args:
            directory: where to.
            records: what is laid out.
            at: where each stands, over all chunks, each place once; padding after the records.
            chunks: how many; their number divides that of the places.

        Raises:
            WorkspaceError: the disk is full, or cannot be written.
        """
        places = len(at) // chunks
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            for leftover in directory.iterdir():
                leftover.unlink()
            for tokens, numbers in records.batches():  # 1
                _spread(directory, tokens, at[numbers], places)
            rows = np.full(len(at), NOBODY, dtype=np.uint32)  # 2
            rows[at[: len(records.rows)]] = records.rows
            with _append(directory / "rows.bin") as file:
                file.write(rows.tobytes())
            for path in directory.iterdir():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            contents = _Contents(tokens=records.own.token_count, chunks=chunks, places=places)
            write_atomically(  # 3
                directory / "records.json", contents.model_dump_json().encode(), mode=0o600
            )
        except OSError as error:
            raise WorkspaceError(
                f"{directory} cannot hold the records to be matched: {error.strerror}: make room, "
                "then run the job again"
            ) from error
        return cls(directory, chunks, places)

    @classmethod
    def open(cls, directory: Path) -> Self | None:
        """Return the layout that was written there, or None if there is none.

        Raises:
            WorkspaceError: it is damaged.
        """
        try:
            contents = _Contents.model_validate_json((directory / "records.json").read_bytes())
            tokens = sum(path.stat().st_size for path in directory.glob("chunk-*.bin"))
            rows = (directory / "rows.bin").stat().st_size
        except FileNotFoundError:
            if (directory / "records.json").exists():
                raise WorkspaceError(f"{directory} has lost its rows: remove it") from None
            return None
        except (ValidationError, OSError) as error:
            raise WorkspaceError(f"{directory} cannot be read: remove it, run again") from error
        if (tokens, rows) != (
            contents.tokens * _RECORD.itemsize,
            contents.chunks * contents.places * 4,
        ):
            raise WorkspaceError(f"{directory} is cut short: remove it, then run the job again")
        return cls(directory, contents.chunks, contents.places)

    def chunk(self, number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
        """Return the tokens of a chunk, (n, 33), and the places in it of their records, (n,)."""
        path = self.directory / f"chunk-{number:05d}.bin"
        found = np.fromfile(path, dtype=_RECORD) if path.exists() else np.empty(0, dtype=_RECORD)
        return np.ascontiguousarray(found["token"]), found["place"].astype(np.uint32)

    @property
    def rows(self) -> NDArray[np.uint32]:
        """The row of the record at each place, over all chunks; `NOBODY` where padding stands."""
        return np.fromfile(self.directory / "rows.bin", dtype=np.uint32)


def _batches(own: MatchingSet) -> Iterator[TokenBatch]:
    count = max(1, -(-own.token_count // _BATCH_TOKENS))
    for number in range(count):
        yield own.bucket(number, count)


def _spread(
    directory: Path, tokens: NDArray[np.uint8], at: NDArray[np.uint32], places: int
) -> None:
    if not len(tokens):
        return
    chunk, place = np.divmod(at, np.uint32(places))
    order = np.argsort(chunk, kind="stable")
    records = np.empty(len(tokens), dtype=_RECORD)
    records["token"], records["place"] = tokens[order], place[order]
    numbers, first = np.unique(chunk[order], return_index=True)
    for number, part in zip(numbers.tolist(), np.split(records, first[1:]), strict=True):
        with _append(directory / f"chunk-{number:05d}.bin") as file:
            file.write(part.tobytes())


def _append(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")
