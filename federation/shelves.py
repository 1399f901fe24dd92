"""Rows about people, on shelves by the fingerprint of their subject: on disk once they are many.

```
DIRECTORY/
  shelf-XX.arrow   rows whose subject's fingerprint begins with XX (Arrow IPC)
```

Guarantees: all rows of one subject lie on one shelf, whatever was put first; memory depends on a
batch and a shelf, not on the rows. Sets of shelves agree about which shelf is whose, and can be
read together.

Leaves to others: what the rows say, and removing the directory. Nothing here outlives a step.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa

from connectors import fingerprints
from federation.errors import WorkspaceError
from federation.party.abandoned import in_use, remove_unless_in_use
from federation.references import References, owners_file

__all__ = [
    "PEOPLE",
    "SHELVES",
    "Shelves",
    "put_people",
    "read_together",
    "scratch",
    "scratch_of_several",
]

SHELVES: Final = 256
_TOGETHER: Final = 1 << 16
"""Rows that are held before any goes to disk, and for which `read_together` waits."""
PEOPLE: Final = pa.schema([("subject", pa.large_string()), ("row", pa.uint32())])
"""How people lie on shelves: a record's reference, and the number of its row."""
_HIGHEST_BYTE: Final = np.uint64(56)


class Shelves:
    """Rows by subject; used in a `with` statement while they are put there.

    Args:
        directory: an empty one, or one that is not there yet.
        schema: of the rows; its column `subject` is text without nulls.
    """

    def __init__(self, directory: Path, schema: pa.Schema) -> None:
        self._directory = directory
        self._schema = schema
        self._open = ExitStack()
        self._writers: dict[int, Any] = {}
        self._held: list[pa.RecordBatch] = []
        self._on_disk: set[int] = set()

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, mode=0o700)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writers.clear()
        self._open.__exit__(kind, error, trace)

    def put(self, batch: pa.RecordBatch) -> None:
        """Put a batch of rows where they belong, those of a subject in their order.

        Raises:
            OSError: the disk is full, or cannot be written.
        """
        self._held.append(batch)
        if self._on_disk or sum(map(len, self._held)) >= _TOGETHER:
            for held in self._held:
                for shelf, part in _parted(held):
                    self._writer(shelf).write_batch(part)
            self._held.clear()

    @property
    def filled(self) -> frozenset[int]:
        """The shelves that have rows."""
        return frozenset(self._on_disk or self._in_memory)

    def shelf(self, number: int) -> pa.Table:
        """Return the rows of one shelf, in the order in which they were put there."""
        if number not in self._on_disk:
            return self._in_memory.get(number) or self._schema.empty_table()
        with pa.OSFile(os.fspath(self._path(number))) as file, pa.ipc.open_stream(file) as reader:
            return reader.read_all()

    @cached_property
    def _in_memory(self) -> Mapping[int, pa.Table]:
        """The rows of each shelf that has any, once all were put there and were few."""
        return dict(_parted(pa.Table.from_batches(self._held, self._schema).combine_chunks()))

    def _writer(self, shelf: int) -> Any:
        if shelf not in self._writers:
            file = self._open.enter_context(owners_file(self._path(shelf)))
            self._writers[shelf] = self._open.enter_context(pa.ipc.new_stream(file, self._schema))
            self._on_disk.add(shelf)
        return self._writers[shelf]

    def _path(self, number: int) -> Path:
        return self._directory / f"shelf-{number:02x}.arrow"


def _parted(rows: Any) -> Iterator[tuple[int, Any]]:
    """Yield each shelf that rows belong to, with its part of them."""
    subjects = rows["subject"]
    if isinstance(subjects, pa.ChunkedArray):
        subjects = subjects.combine_chunks()
    number = (fingerprints(subjects) >> _HIGHEST_BYTE).astype(np.uint8)
    order = np.argsort(number, kind="stable")
    edges = np.searchsorted(number[order], np.arange(SHELVES + 1))
    sorted_rows = rows.take(pa.array(order))
    for shelf in np.flatnonzero(np.diff(edges)).tolist():
        yield shelf, sorted_rows.slice(edges[shelf], edges[shelf + 1] - edges[shelf])


def read_together(*several: Shelves) -> Iterator[tuple[pa.Table, ...]]:
    """Yield the rows of the same subjects, as sets of shelves have them, a few shelves at a time.

    All rows of a subject come at once; any table may be empty, and where there are no rows at all,
    empty tables come. What is held at a time depends on a shelf of each, not on the rows.
    """
    numbers = sorted(frozenset().union(*(shelves.filled for shelves in several))) or [0]
    held: list[tuple[pa.Table, ...]] = []
    rows = 0
    for number in numbers:
        held.append(tuple(shelves.shelf(number) for shelves in several))
        rows += sum(map(len, held[-1]))
        if rows >= _TOGETHER or number == numbers[-1]:
            yield tuple(pa.concat_tables(tables) for tables in zip(*held, strict=True))
            held, rows = [], 0


def put_people(shelves: Shelves, people: Sequence[References]) -> int:
    """Put people on shelves, numbered in their order, and return how many they are."""
    count = 0
    for references in people:
        for batch in references.batches():
            rows = np.arange(count, count + len(batch), dtype=np.uint32)
            shelves.put(pa.record_batch([batch, pa.array(rows)], schema=PEOPLE))
            count += len(batch)
    return count


@contextmanager
def scratch(directory: Path) -> Iterator[Path]:
    """Lend an empty directory, the owner's alone; remove it, or what a crash left there before.

    Where a crash leaves it and nobody lends it again, `remove_abandoned` finds it.

    Raises:
        WorkspaceError: the disk is full, or cannot be written, by whoever it is lent to.
    """
    with _told_of(directory):
        try:
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True, mode=0o700)
            with in_use(directory):
                yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def scratch_of_several(directory: Path) -> Iterator[Path]:
    """Lend as `scratch` does, where processes may be lent one at once: each has a name of its own.

    What a crash left under such a name is removed. The directory bears its name once it is in use:
    nobody takes it for one that was left.

    Args:
        directory: what the names begin with; none has this one.

    Raises:
        WorkspaceError: as `scratch`.
    """
    with _told_of(directory):
        directory.parent.mkdir(parents=True, exist_ok=True)
        for left in directory.parent.glob(f"{directory.stem}*.tmp"):
            remove_unless_in_use(left)
        lent = Path(tempfile.mkdtemp(prefix=f"{directory.stem}-", dir=directory.parent))
        try:
            with in_use(lent):
                lent = lent.rename(lent.with_suffix(".tmp"))
                yield lent
        finally:
            shutil.rmtree(lent, ignore_errors=True)


@contextmanager
def _told_of(directory: Path) -> Iterator[None]:
    """Say which directory it is that cannot be written."""
    try:
        yield
    except OSError as error:
        raise WorkspaceError(
            f"{directory} cannot hold what is read of the people: "
            f"{error.strerror or 'it cannot be written'}: make room, then run the job again"
        ) from error
