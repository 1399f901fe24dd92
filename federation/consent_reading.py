"""Reading a party's consents again at every use, without parsing what cannot have changed.

```
jobs/JOB/consents-read.json   that everybody asked about consented, and until when that holds
jobs/JOB/consents.tmp/        while they are read: events and people, by subject (`shelves`)
```

Guarantees: an answer is what the consent file says at that moment. One is taken from an earlier
reading only where the file's bytes, the people and the purpose are the same, and no event of the
purpose has become due since: whoever withdraws is heard at the next use. Only the consent of
everybody is kept; any "no" is read anew. Memory depends on a shelf, not on people or events.

Leaves to others: who the people are (`population`), and what follows from a "no" (`gate`).
"""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from compliance.consent import EVENTS, ConsentBook, ConsentDecision, read_events
from compliance.errors import ConsentError
from federation.party import write_atomically
from federation.references import References
from federation.shelves import Shelves, read_together, scratch

__all__ = ["PEOPLE", "ConsentReading", "Heard"]

PEOPLE = pa.schema([("subject", pa.large_string()), ("row", pa.uint32())])
"""How people lie on shelves: a record's reference, and the number of its row."""


@dataclass(frozen=True)
class Heard:
    """What a consent file said at a moment about some rows.

    Attributes:
        file: SHA-256 of the file (hex).
        purpose: what it was asked about.
        at: the moment.
        decision: about rows 0 to n - 1.
    """

    file: str
    purpose: str
    at: datetime
    decision: ConsentDecision


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

    def decide(
        self, people: Shelves, count: int, *, purpose: str, at: datetime, directory: Path
    ) -> Heard:
        """Decide about people on shelves.

        Args:
            people: by the party's own record references, as `PEOPLE` says.
            count: how many rows there are.
            purpose: what they would be used for.
            at: the moment, with a time zone.
            directory: where events are laid by subject; one that is not there yet.

        Raises:
            ConsentError: the file cannot be read, is malformed, or changes while it is read.
            UnknownPurposeError: it names other purposes than the agreement, which may also lack
                the one asked about.
            OSError: the disk is full, or cannot be written.
        """
        digest = self._digest()
        with Shelves(directory, EVENTS) as events:
            for batch in read_events(self._file, purposes=self._purposes):
                events.put(batch)
        if self._digest() != digest:
            raise ConsentError(
                f"consent file {self._file} changed while it was read: replace it by renaming "
                "a whole one, then run again"
            )

        def decided() -> Iterator[tuple[NDArray[np.uint32], ConsentDecision]]:
            for asked, said in read_together(people, events):
                book = ConsentBook.of(said.to_batches(), purposes=self._purposes)
                subjects = asked["subject"].combine_chunks()
                yield asked["row"].to_numpy(), book.decide(subjects, purpose=purpose, at=at)

        return Heard(digest, purpose, at, ConsentDecision.joined(decided(), count=count))

    def keep(
        self, heard: Heard, rows: NDArray[np.bool_], people: Sequence[References], *, kept: Path
    ) -> None:
        """Keep that some people consented, for `all_allowed` of the same people.

        Args:
            heard: what was decided, of any rows.
            rows: which rows the people are, shape (n,).
            people: their references.
            kept: where it is kept.
        """
        if not heard.decision.allowed[rows].all():
            raise RuntimeError("only the consent of everybody is kept")
        found = _Kept(
            asked=_asked(heard.file, people, heard.purpose),
            log_size=heard.decision.log_size,
            since=heard.at,
            until=heard.decision.next_event,
        )
        write_atomically(kept, found.model_dump_json().encode(), mode=0o600)

    def all_allowed(
        self, people: Sequence[References], purpose: str, *, at: datetime, kept: Path
    ) -> int | None:
        """Tell whether everybody consents now.

        Args:
            people: the party's own record references.
            purpose: what they would be used for.
            at: now, with a time zone.
            kept: where a consent of everybody is kept for the next time.

        Returns:
            The number of events in the book that decided, or None if somebody does not consent.

        Raises:
            ConsentError: as `decide`.
            UnknownPurposeError: the agreement does not declare the purpose.
            WorkspaceError: the references are damaged, or the disk is full.
        """
        asked = _asked(self._digest(), people, purpose)
        earlier = _load(kept)
        if earlier is not None and earlier.answers(asked, at):
            return earlier.log_size
        count = 0
        with scratch(kept.with_name("consents.tmp")) as directory:
            with Shelves(directory / "people", PEOPLE) as shelves:
                for references in people:
                    for batch in references.batches():
                        rows = np.arange(count, count + len(batch), dtype=np.uint32)
                        shelves.put(pa.record_batch([batch, pa.array(rows)], schema=PEOPLE))
                        count += len(batch)
            heard = self.decide(
                shelves, count, purpose=purpose, at=at, directory=directory / "events"
            )
        everybody = np.ones(count, dtype=np.bool_)
        if not heard.decision.allowed.all():
            return None
        self.keep(heard, everybody, people, kept=kept)
        return heard.decision.log_size

    def _digest(self) -> str:
        try:
            with self._file.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ConsentError(
                f"consent file {self._file} cannot be read: {error.strerror}"
            ) from error


def _asked(file: str, people: Sequence[References], purpose: str) -> str:
    told = " ".join([file, *(f"{one.count} {one.digest}" for one in people), purpose])
    return hashlib.sha256(told.encode()).hexdigest()


def _load(path: Path) -> _Kept | None:
    """Return what was kept; nothing where it is damaged, for the file can be read again."""
    try:
        return _Kept.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
