"""Reading a party's consents again at every use, without parsing what cannot have changed.

```
jobs/JOB/consents-read.json   that everybody asked about consented, and until when that holds
```

Guarantees: an answer is what the consent file says at that moment. One is taken from an earlier
reading only where the file's bytes, the people and the purpose are the same, and no event of the
purpose has become due since: whoever withdraws is heard at the next use. Only the consent of
everybody is kept; any "no" is read anew.

Leaves to others: who the people are (`population`), and what follows from a "no" (`gate`).
"""

import hashlib
from collections.abc import Collection
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from compliance.consent import ConsentBook
from compliance.errors import ConsentError
from federation.party import write_atomically

__all__ = ["ConsentReading"]


class _Kept(BaseModel):
    """That everybody consented.

    Attributes:
        asked: digest of the file's bytes, the people and the purpose.
        log_size: events in the book that decided.
        since: the moment of the decision.
        until: the first moment for which it may be another; None if there is none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    asked: str
    log_size: int = Field(ge=0)
    since: AwareDatetime
    until: AwareDatetime | None

    def answers(self, asked: str, at: datetime) -> bool:
        return self.asked == asked and self.since <= at and (self.until is None or at < self.until)


class ConsentReading:
    """A party's consent file at work on one message.

    Args:
        file: the consent file.
        purposes: those that the agreement declares.
    """

    def __init__(self, file: Path, purposes: Collection[str]) -> None:
        self._file = file
        self._purposes = purposes
        self._parsed: tuple[str, ConsentBook] | None = None

    def book(self) -> ConsentBook:
        """Return the book that the file is now.

        Raises:
            ConsentError: the file cannot be read, is malformed, or changes while it is read.
            UnknownPurposeError: it names other purposes than the agreement.
        """
        return self._read(self._digest())

    def all_allowed(
        self, keys: NDArray[np.str_], purpose: str, *, at: datetime, kept: Path
    ) -> int | None:
        """Tell whether everybody consents now.

        Args:
            keys: the party's own record references, shape (n,).
            purpose: what they would be used for.
            at: now, with a time zone.
            kept: where a consent of everybody is kept for the next time.

        Returns:
            The number of events in the book that decided, or None if somebody does not consent.

        Raises:
            ConsentError: as `book`.
            UnknownPurposeError: the agreement does not declare the purpose.
        """
        digest = self._digest()
        asked = _asked(digest, keys, purpose)
        earlier = _load(kept)
        if earlier is not None and earlier.answers(asked, at):
            return earlier.log_size
        decision = self._read(digest).decide(keys, purpose=purpose, at=at)
        if not decision.allowed.all():
            return None
        found = _Kept(asked=asked, log_size=decision.log_size, since=at, until=decision.next_event)
        write_atomically(kept, found.model_dump_json().encode(), mode=0o600)
        return found.log_size

    def _read(self, digest: str) -> ConsentBook:
        """Return the book of the file whose bytes had that digest a moment ago."""
        if self._parsed is None or self._parsed[0] != digest:
            book = ConsentBook.load(self._file, purposes=self._purposes)
            if self._digest() != digest:
                raise ConsentError(
                    f"consent file {self._file} changed while it was read: replace it by renaming "
                    "a whole one, then run again"
                )
            self._parsed = digest, book
        return self._parsed[1]

    def _digest(self) -> str:
        try:
            with self._file.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ConsentError(
                f"consent file {self._file} cannot be read: {error.strerror}"
            ) from error


def _asked(file: str, keys: NDArray[np.str_], purpose: str) -> str:
    asked = hashlib.sha256(f"{file} {keys.dtype.str} {len(keys)} {purpose} ".encode())
    asked.update(np.ascontiguousarray(keys).view(np.uint8).data)
    return asked.hexdigest()


def _load(path: Path) -> _Kept | None:
    """Return what was kept; nothing where it is damaged, for the file can be read again."""
    try:
        return _Kept.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
