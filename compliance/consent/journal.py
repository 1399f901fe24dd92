"""A consent file to which events are appended one by one.

Guarantees: an event that `append` returned for is on disk; a crash leaves the file with the event
or without it, since what it left of a row is cut off before the next is written, and no reader
takes a cut row for a whole one (`time` ends it, and must end in Z). Writers wait for each
other. Nothing is ever changed or removed, so that the first N rows are the file as it once was.

Leaves to others: reading (`files`), and the leaf that says something was recorded.
"""

import csv
import fcntl
import hashlib
import hmac
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC
from pathlib import Path
from typing import BinaryIO, Final

import rfc8785

from compliance.consent.events import ConsentEvent
from compliance.errors import ConsentError

__all__ = ["ConsentJournal", "commitment"]

_HEADER: Final = b"subject,purpose,event,separate,recipients,expires,time\n"
_BLOCK: Final = 1 << 20


class ConsentJournal:
    """A consent file (`.csv`) that grows.

    Args:
        path: the file; made with its header where it is not there.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix != ".csv":
            raise ConsentError(
                f"consent file {path}: events are appended to .csv alone: write it as one first"
            )
        self._path = path

    def append(self, *events: ConsentEvent) -> int:
        """Append events, all of them or none.

        Returns:
            The number of rows in the file, the new ones included.

        Raises:
            ConsentError: the file cannot be written, has other columns than a journal, or an event
                holds a line break.
        """
        rows = b"".join(map(_row, events))
        try:
            with self._opened() as file:
                before = self._mended(file)
                file.seek(0, os.SEEK_END)
                file.write(rows)
                file.flush()
                os.fsync(file.fileno())
                return before + len(events)
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

    def _mended(self, file: BinaryIO) -> int:
        """Cut off what a crash left of a row, and return how many rows there are."""
        head = file.read(len(_HEADER))
        if head != _HEADER:
            if not _HEADER.startswith(head):
                raise ConsentError(
                    f"consent file {self._path} has other columns than {_HEADER.decode().strip()}: "
                    "`comity consent import` brings its events into a new one"
                )
            file.seek(0)
            file.write(_HEADER)
        rows, end, place = 0, len(_HEADER), len(_HEADER)
        while block := file.read(_BLOCK):
            rows += block.count(b"\n")
            if (last := block.rfind(b"\n")) >= 0:
                end = place + last + 1
            place += len(block)
        file.truncate(end)
        return rows


def commitment(key: bytes, event: ConsentEvent) -> str:
    """Return the HMAC-SHA-256 of an event's body under its subject's key, in hexadecimal.

    The body is canonical JSON (RFC 8785). With the key gone nobody can tell what was committed to.

    Args:
        key: 32 random bytes, of this subject alone.
        event: what was said.
    """
    return hmac.new(key, rfc8785.dumps(_body(event)), hashlib.sha256).hexdigest()


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
