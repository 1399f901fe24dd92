"""A party's own references of its records: as many as there are people, in batches.

Guarantees: however many there are, memory depends on a batch; the digest depends on the references
and their order alone, not on how they lie or are cut.

Leaves to others: whose they are (`population`), what they decide (`consent_reading`). They name
people at this party: no message, log or error carries one.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from federation.errors import WorkspaceError

__all__ = ["References", "owners_file"]

BATCH_ROWS: Final = 65_536
_SCHEMA: Final = pa.schema([("subject", pa.large_string())])


@dataclass(frozen=True)
class References:
    """References of some records, in an order, in memory or in a file (Arrow IPC).

    Attributes:
        count: how many there are.
        digest: SHA-256 over all of them, in their order (hex). It stays with the party.
    """

    count: int
    digest: str
    _held: "Path | pa.Array" = field(repr=False, compare=False)

    @classmethod
    def of(cls, references: "Sequence[str] | NDArray[np.str_] | pa.Array") -> Self:
        """Hold references in memory."""
        held = pa.array(references, pa.large_string())
        digest = _Digest()
        digest.update(held)
        return cls(len(held), digest.hexdigest(), held)

    @classmethod
    def write(cls, path: Path, batches: Iterable[pa.Array]) -> Self:
        """Write references to a file, readable by its owner only.

        Raises:
            OSError: the disk is full, or cannot be written.
        """
        count, digest = 0, _Digest()
        with owners_file(path) as file:
            with pa.ipc.new_stream(file, _SCHEMA) as writer:
                for batch in batches:
                    writer.write_batch(pa.record_batch([batch], schema=_SCHEMA))
                    digest.update(batch)
                    count += len(batch)
            file.flush()
            os.fsync(file.fileno())
        return cls(count, digest.hexdigest(), path)

    @classmethod
    def stored(cls, path: Path, *, count: int, digest: str) -> Self:
        """Return what `write` wrote, without reading it."""
        return cls(count, digest, path)

    def __len__(self) -> int:
        return self.count

    def batches(self) -> Iterator[pa.Array]:
        """Read the references, in their order.

        Raises:
            WorkspaceError: the file is damaged, or not the one that was written.
        """
        digest = _Digest()
        for batch in self._read():
            digest.update(batch)
            yield batch
        if digest.hexdigest() != self.digest:
            raise self._damaged()

    def at(self, rows: NDArray[np.integer]) -> pa.Array:
        """Return the references at some rows, shape (k,), in that order."""
        order = np.argsort(rows, kind="stable")
        wanted, begin = rows[order], 0
        parts = [pa.array([], pa.large_string())]
        for batch in self.batches():
            first, last = np.searchsorted(wanted, (begin, begin + len(batch)))
            parts.append(batch.take(pa.array(wanted[first:last] - begin)))
            begin += len(batch)
        place = np.empty(len(rows), dtype=np.int64)
        place[order] = np.arange(len(rows))
        return pa.concat_arrays(parts).take(pa.array(place))

    def to_numpy(self) -> NDArray[np.str_]:
        """Return all of them in memory, shape (n,): for jobs that hold their rows there."""
        whole = pa.chunked_array(self.batches(), pa.large_string())
        return np.asarray(whole.to_numpy(), dtype=np.str_)

    def _read(self) -> Iterator[pa.Array]:
        if not isinstance(self._held, Path):
            for begin in range(0, len(self._held), BATCH_ROWS):
                yield self._held.slice(begin, BATCH_ROWS)
            return
        try:
            with pa.OSFile(os.fspath(self._held)) as file, pa.ipc.open_stream(file) as reader:
                for batch in reader:
                    yield batch.column(0)
        except (pa.ArrowInvalid, OSError):  # Arrow's own words may quote what it read
            raise self._damaged() from None

    def _damaged(self) -> WorkspaceError:
        return WorkspaceError(f"{self._held} is damaged: run its job under another name")


class _Digest:
    """A digest of texts that does not depend on how they are cut into batches."""

    def __init__(self) -> None:
        self._lengths, self._content = hashlib.sha256(), hashlib.sha256()

    def update(self, texts: Any) -> None:
        self._lengths.update(pc.binary_length(texts).to_numpy().astype("<u8").tobytes())
        _, offsets, content = texts.buffers()
        if content is not None and len(texts):
            edges = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
            self._content.update(memoryview(content)[edges[0] : edges[-1]])

    def hexdigest(self) -> str:
        return hashlib.sha256(self._lengths.digest() + self._content.digest()).hexdigest()


def owners_file(path: Path) -> BinaryIO:
    """Open a new file that only its owner can read, for writing; an old one is emptied."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    return os.fdopen(descriptor, "wb")
