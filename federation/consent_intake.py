"""Taking what people say at any moment, also while a job holds the party's folder.

```
consents.csv         the journal
consents-told.json   how far the log knows of it
consents.lock        held for the moment of a write to either
```

Guarantees: an event that `take` returned for is on disk, and heard at the next use: the gate reads
consents anew for all that leaves. It waits for no job; an import alone makes it wait.

Leaves to others: the leaf of the event, which `consent_recording` tells when the folder is free.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from compliance.agreement import Agreement
from compliance.consent import ConsentEvent, ConsentJournal
from compliance.errors import ConsentError, UnknownPurposeError
from federation.errors import WorkspaceError
from federation.party import PartyFolder, write_atomically

__all__ = ["BEYOND", "ConsentIntake", "Told", "other_purpose"]

BEYOND: Final = 2**62
"""What the log is said to know of while rows come that it need not know of."""


class Told(BaseModel):
    """How many rows, in how many bytes of the journal, the log knows of or need not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int = Field(ge=0)
    size: int = Field(ge=0)


def other_purpose(agreement: Agreement) -> str:
    """Say what was expected of a purpose that is not agreed, which may be a person's reference."""
    return (
        "expected a purpose that the agreement declares, which are "
        f"{', '.join(agreement.purposes)}, got another: name one of these, or have the agreement "
        "amended"
    )


class ConsentIntake:
    """A party's journal of consents, without its log."""

    def __init__(self, folder: PartyFolder, agreement: Agreement) -> None:
        self._folder = folder
        self._agreement = agreement
        self._told = folder.path / "consents-told.json"

    def check(self, purposes: Iterable[str]) -> None:
        """Return only if the agreement declares all these purposes.

        Raises:
            UnknownPurposeError: it does not.
        """
        if not set(purposes) <= set(self._agreement.purposes):
            raise UnknownPurposeError(other_purpose(self._agreement))

    def take(self, *events: ConsentEvent) -> int:
        """Append events, all of them or none; return the place of the last one's row, from 1.

        Raises:
            UnknownPurposeError: the agreement does not declare the purpose of one.
            ConsentError: the party's consents lie in no journal, or it cannot be written.
            WorkspaceError: the party keeps no consents.
        """
        self.check(event.purpose for event in events)
        if (file := self._folder.consents) is None:
            raise WorkspaceError(
                f"{self._folder.path} keeps no consents: `comity consent import` begins a journal"
            )
        if not isinstance(file, Path):
            raise ConsentError(
                f"the consents of {self._folder.name} are a table, which is read and never "
                "written: record it where the table is kept; or `comity consent import` brings it "
                "into a journal, which counts in its place"
            )
        with self.held():
            told, journal = self.load(), self.journal(file)
            # What was there before needs no telling; nor does what a crash left of an import.
            if told is None or not journal.begun or told.size > file.stat().st_size:
                self.save(journal)
            return journal.append(*events)

    @property
    def journal_file(self) -> Path | None:
        """The party's journal; None where its consents are another file, or a table, or none."""
        place = self._folder.consents
        if not isinstance(place, Path) or place.suffix != ".csv":
            return None
        return place if ConsentJournal(place).begun else None

    @property
    def names(self) -> tuple[str, ...]:
        """What a copy of the folder calls the files in which events are taken."""
        place, root = self._folder.consents, self._folder.path
        if not isinstance(place, Path):
            return (self._told.name,)
        place = Path(os.path.normpath(place))
        journal = place.relative_to(root).as_posix() if place.is_relative_to(root) else "/consent"
        return (journal, self._told.name)

    def journal(self, file: Path) -> ConsentJournal:
        """Return the journal in a file."""
        told = self.load()
        return ConsentJournal(file, known=None if told is None else (told.rows, told.size))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the journal, and what is told of it, for this thread."""
        with (self._folder.path / "consents.lock").open("w", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def load(self) -> Told | None:
        """Return how far the log knows of the journal; None where nothing was recorded yet.

        Raises:
            WorkspaceError: it is damaged.
        """
        try:
            return Told.model_validate_json(self._told.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise WorkspaceError(f"{self._told} is damaged: restore it from a backup") from error

    def save(self, journal: ConsentJournal) -> int:
        """Note that the log knows of the whole journal, or need not; return its rows."""
        rows, size = journal.extent()
        self.write(Told(rows=rows, size=size))
        return rows

    def write(self, told: Told) -> None:
        """Note how far the log knows of the journal."""
        write_atomically(self._told, told.model_dump_json().encode(), mode=0o600)
