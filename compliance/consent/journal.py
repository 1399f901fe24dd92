"""A consent file to which events are appended one by one.

Guarantees: an event that `append` returned for is on disk; a crash leaves the file with the event
or without it, since what it left of a row is cut off before the next is written, and no reader
takes a cut row for a whole one (`time` ends it, and must end in Z). Writers wait for each
other. Nothing is ever changed or removed, so that the first N rows are the file as it once was.

Leaves to others: reading (`files`), and the leaf that says something was recorded.
"""

import csv
import fcntl
import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

import pyarrow as pa
import pyarrow.compute as pc
import rfc8785
from pyarrow import csv as columns

from compliance.consent.events import ConsentEvent, ConsentEventKind, SeparateConsent
from compliance.consent.files import JOURNAL, read_rows
from compliance.errors import ConsentError
from compliance.subject_keys import SubjectKey

__all__ = ["ConsentJournal", "commitment", "events_of", "size_of"]

_HEADER: Final = f"{','.join(JOURNAL)}\n".encode()
_BLOCK: Final = 1 << 20


class ConsentJournal:
    """A consent file (`.csv`) that grows.

    Args:
        path: the file; made with its header where it is not there.
        known: how many rows and bytes it had at least, so that they need not be counted again.
    """

    def __init__(self, path: Path, *, known: tuple[int, int] | None = None) -> None:
        if path.suffix != ".csv":
            raise ConsentError(
                f"consent file {path}: events are appended to .csv alone: write it as one first"
            )
        self._path = path
        self._known = known

    @property
    def begun(self) -> bool:
        """Whether the file is there and has a journal's header."""
        try:
            with self._path.open("rb") as file:
                return file.read(len(_HEADER)) == _HEADER
        except OSError:
            return False

    def append(self, *events: ConsentEvent) -> int:
        """Append events: all of them, or none where an error is raised.

        After a crash some of the first may be there, for which nothing was returned.

        Returns:
            The number of rows in the file, the new ones included.

        Raises:
            ConsentError: the file cannot be written, has other columns than a journal, or an event
                holds a line break.
        """
        rows, _ = self._append([b"".join(map(_row, events))])
        return rows + len(events)

    def append_file(self, path: Path) -> None:
        """Append all rows of a consent file that `read_events` found sound.

        All, or none where an error is raised. A crash may leave the first of them; events that come
        twice change nothing.

        Raises:
            ConsentError: as `append`, or the file cannot be read.
        """
        self._append(map(_spelt, read_rows(path)))

    def extent(self) -> tuple[int, int]:
        """Return how many rows and bytes the file has, once mended.

        Raises:
            ConsentError: as `append`.
        """
        return self._append([])

    def after(self, place: int) -> tuple[ConsentEvent, ...]:
        """Return the events of the few rows that begin at a byte or after it.

        Raises:
            ConsentError: the file cannot be read, or is damaged there.
        """
        try:
            with self._path.open("rb") as file:
                file.seek(place)
                text = file.read().decode()
            whole = text[: text.rfind("\n") + 1]
            return tuple(map(_event, csv.reader(io.StringIO(whole))))
        except (OSError, ValueError) as error:
            raise ConsentError(
                f"consent file {self._path} is damaged after byte {place}: restore it"
            ) from error

    def _append(self, contents: Iterable[bytes]) -> tuple[int, int]:
        """Append rows; return how many rows and bytes there were before."""
        try:
            with self._opened() as file:
                before, end = self._mended(file)
                try:
                    place = end
                    for content in contents:
                        place = _write(file.fileno(), content, place)
                    os.fsync(file.fileno())
                except BaseException:  # a full disk
                    os.ftruncate(file.fileno(), end)
                    raise
                return before, end
        except OSError as error:
            raise ConsentError(
                f"consent file {self._path} cannot be written: {error.strerror}"
            ) from error

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def _mended(self, file: BinaryIO) -> tuple[int, int]:
        """Cut off what a crash left of a row, and return how many rows and bytes there are."""
        head = file.read(len(_HEADER))
        if head != _HEADER:
            if not _HEADER.startswith(head):
                raise ConsentError(
                    f"consent file {self._path} has other columns than {_HEADER.decode().strip()}: "
                    "`comity consent import` brings its events into a new one"
                )
            file.seek(0)
            file.write(_HEADER)
        rows, end = self._counted(file)
        place = file.seek(end)
        while block := file.read(_BLOCK):
            rows += block.count(b"\n")
            if (last := block.rfind(b"\n")) >= 0:
                end = place + last + 1
            place += len(block)
        file.truncate(end)
        return rows, end

    def _counted(self, file: BinaryIO) -> tuple[int, int]:
        """Return what is known of the file already, if a row ends there."""
        rows, end = self._known or (0, 0)
        # Held against the size first: file systems refuse places that no file of theirs can have.
        if len(_HEADER) < end <= os.fstat(file.fileno()).st_size:
            file.seek(end - 1)
            if file.read(1) == b"\n":
                return rows, end
        return 0, len(_HEADER)


def commitment(key: SubjectKey, event: ConsentEvent) -> str:
    """Return what stands in a log for an event, in hexadecimal.

    The body is canonical JSON (RFC 8785). With the key gone nobody can tell what was committed to.
    """
    return key.commitment(rfc8785.dumps(_body(event)))


def size_of(path: Path) -> int | None:
    """Return how many bytes a journal has while nobody appends; None of a file that never grows.

    Raises:
        ConsentError: it cannot be read.
    """
    if path.suffix != ".csv" or not ConsentJournal(path).begun:
        return None
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            return os.fstat(file.fileno()).st_size
    except OSError as error:
        raise ConsentError(f"consent file {path} cannot be read: {error.strerror}") from error


def events_of(
    path: Path, subject: str, purpose: str, *, size: int | None = None
) -> tuple[ConsentEvent, ...]:
    """Return what one person said about a purpose, in a file that `read_events` found sound.

    Args:
        path: the consent file.
        subject: the party's own reference of the person, as it is written there.
        purpose: the purpose.
        size: only so many bytes of a journal, which grows while it is read; all where left out.

    Returns:
        The events in the order of the file, repetitions included.

    Raises:
        ConsentError: it cannot be read.
    """
    found = []
    for batch in read_rows(path, size=size):
        theirs = pc.and_(pc.equal(batch["subject"], subject), pc.equal(batch["purpose"], purpose))
        found += [tuple(row.values()) for row in batch.filter(theirs).to_pylist()]
    return tuple(map(_event, found))


def _write(descriptor: int, content: bytes, place: int) -> int:
    """Write all of it at a place, past Python's buffer, which would try again; return its end."""
    end = place + len(content)
    while place < end:
        place += os.pwrite(descriptor, content[len(content) - (end - place) :], place)
    return end


def _event(row: Iterable[str]) -> ConsentEvent:
    subject, purpose, event, separate, recipients, expires, time = row
    return ConsentEvent(
        subject,
        purpose,
        ConsentEventKind(event),
        datetime.fromisoformat(time),
        frozenset(map(SeparateConsent, separate.split())),
        frozenset(recipients.split()) - {"-"} if recipients.strip() else None,
        datetime.fromisoformat(expires) if expires else None,
    )


def _spelt(batch: pa.RecordBatch) -> bytes:
    if pc.any(pc.match_substring_regex(batch["subject"], r"[\r\n]")).as_py():
        raise ConsentError("a journal of consents takes no line breaks within a subject")
    sink = pa.BufferOutputStream()
    columns.write_csv(batch, sink, columns.WriteOptions(include_header=False))
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _body(event: ConsentEvent) -> dict[str, str]:
    def spelt(time: object) -> str:
        return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ") if time else ""  # type: ignore[attr-defined]

    named = event.recipients
    return {
        "subject": event.subject,
        "purpose": event.purpose,
        "event": event.event.value,
        "separate": " ".join(sorted(event.separate)),
        "recipients": "" if named is None else " ".join(sorted(named)) or "-",
        "expires": spelt(event.expires),
        "time": spelt(event.time),
    }


def _row(event: ConsentEvent) -> bytes:
    cells = list(_body(event).values())
    if any("\n" in cell or "\r" in cell for cell in cells):
        raise ConsentError("a journal of consents takes no line breaks within a subject")
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    try:
        return text.getvalue().encode()
    except UnicodeError:
        raise ConsentError("expected subjects as one column of text") from None
