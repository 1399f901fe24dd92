"""Reading a party's consents again at every use, without parsing what cannot have changed.

```
jobs/JOB/consents-read.json   that everybody asked about consented, and until when that holds
jobs/JOB/consents.tmp/        while they are read: events and people, by subject (`shelves`)
```

Guarantees: an answer is what the consents say at that moment. One is taken from an earlier reading
only where the file's bytes, the people and the purpose are the same, and no event of the purpose
has become due since: whoever withdraws is heard at the next use. A table's bytes are those of its
copy. Only the consent of everybody is kept; any "no" is read anew. Memory depends on a shelf, not
on people or events. A journal may grow while it is read (`consent_intake`): what it held at the
beginning is read.

Leaves to others: where consents are (`consent_file`), who the people are (`population`), and what
follows from a "no" (`gate`).
"""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from compliance.agreement import Agreement
from compliance.consent import (
    UNCONDITIONAL,
    Conditions,
    ConsentBook,
    ConsentDecision,
    events_schema,
    read_events,
)
from compliance.errors import ConsentError
from compliance.records import ConsentUsed
from compliance.terms import Activity
from connectors import SqlSource
from federation.cohort_roots import root_of_shelves
from federation.consent_file import ConsentFile, consent_file
from federation.party import write_atomically
from federation.references import References
from federation.routes import ROUTES
from federation.shelves import PEOPLE, Shelves, put_people, read_together, scratch

__all__ = ["PEOPLE", "ConsentReading", "Heard"]

_KINDS: Final = {
    Activity.MATCH: ("match.", "align."),
    Activity.TRAIN: ("train.", "sum."),
    Activity.EXPAND: ("expand.",),
    Activity.MEASURE: ("measure.",),
    Activity.VERTICAL: ("assist.",),
}
"""What is said of people in each computation begins so."""
_OUTCOMES: Final = {
    Activity.TRAIN: "model.published",
    Activity.EXPAND: "expand.counted",
    Activity.MEASURE: "measure.published",
}
"""What the coordinator makes of it, and tells on."""


@dataclass(frozen=True)
class Heard:
    """What consents said at a moment about some rows.

    Attributes:
        file: SHA-256 of what was read (hex).
        purpose: what it was asked about.
        at: the moment.
        decision: about rows 0 to n - 1.
        conditions: what the use needs besides.
    """

    file: str
    purpose: str
    at: datetime
    decision: ConsentDecision
    conditions: Conditions = UNCONDITIONAL


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
    """A party's consents at work on one message.

    Args:
        place: their file or table.
        purposes: those that the agreement declares.
        agreement: what uses need besides; nothing where left out.
        party: whose consents they are; where left out, nothing is shown to anybody.
    """

    def __init__(
        self,
        place: Path | SqlSource,
        purposes: Collection[str],
        *,
        agreement: Agreement | None = None,
        party: str | None = None,
    ) -> None:
        self._place = place
        self._purposes = purposes
        self._agreement = agreement
        self._party = party
        self._recipients = tuple(p.name for p in agreement.parties) if agreement else ()

    def conditions(self, purpose: str, *, contacts: bool = False) -> Conditions:
        """Return what a use for a purpose needs besides: that of all computations which have it.

        Args:
            purpose: what people would be used for.
            contacts: whether they would be contacted, so that the cap holds.
        """
        if (agreement := self._agreement) is None:
            return UNCONDITIONAL
        used = [c for c in Activity if _purpose_of(agreement, c) == purpose]
        recipients = {name for one in used for name in self._recipients_of(one)}
        terms = agreement.consent
        if terms is None:
            return Conditions(tuple(sorted(recipients)))
        roles = {agreement.party(name).role for name in recipients}
        return Conditions(
            recipients=tuple(sorted(recipients)),
            separate=frozenset(
                need
                for term in terms.separate
                if term.computation in used and (term.recipient is None or term.recipient in roles)
                for need in term.needs
            ),
            validity=None if terms.validity_days is None else timedelta(terms.validity_days),
            maximum_contacts=terms.maximum_contacts if contacts else None,
            contact_period=timedelta(days=terms.contact_period_days),
        )

    def _recipients_of(self, computation: Activity) -> frozenset[str]:
        """Return who is told something that is made of this party's people, at first or in the end.

        Empty where this party tells nobody anything of people in that computation.
        """
        if (agreement := self._agreement) is None or self._party is None:
            return frozenset()
        own = agreement.party(self._party)
        said = [
            route
            for kind, route in ROUTES.items()
            if route.concerns_people and kind.startswith(_KINDS[computation])
            if own.role in route.sender
            if agreement.match.alignment is not None or not kind.startswith("align.")
        ]
        others = [other for other in agreement.parties if other.name != own.name]
        told = {
            other.name
            for route in said
            for other in others
            if other.role in route.recipient and (route.within_role or other.role is not own.role)
        }
        if told and computation in _OUTCOMES:
            outcome = ROUTES[_OUTCOMES[computation]]
            told.update(other.name for other in others if other.role in outcome.recipient)
        return frozenset(told)

    def decide(
        self,
        people: Shelves,
        count: int,
        *,
        purpose: str,
        at: datetime,
        directory: Path,
        conditions: Conditions = UNCONDITIONAL,
        first: int | None = None,
    ) -> Heard:
        """Decide about people on shelves.

        Args:
            people: by the party's own record references, as `PEOPLE` says.
            count: how many rows there are.
            purpose: what they would be used for.
            at: the moment, with a time zone.
            directory: where events are laid by subject; one that is not there yet, in one that is
                and may hold more.
            conditions: what the use needs besides.
            first: as of so many rows of the file; all of them where left out.

        Raises:
            ConsentError: the file cannot be read, is malformed, or changes while it is read.
            UnknownPurposeError: it names other purposes than the agreement, which may also lack
                the one asked about.
            OSError, WorkspaceError: the disk is full, or cannot be written.
        """
        with consent_file(self._place, directory.parent) as file:
            laid = self._laid_out(file, directory, first)
        return self._heard(laid, people, count, purpose=purpose, at=at, conditions=conditions)

    def _heard(
        self,
        laid: "_LaidOut",
        people: Shelves,
        count: int,
        *,
        purpose: str,
        at: datetime,
        conditions: Conditions,
    ) -> Heard:
        def decided() -> Iterator[tuple[NDArray[np.uint32], ConsentDecision]]:
            for asked, said in read_together(people, laid.events):
                book = ConsentBook.of(
                    said.to_batches(), purposes=self._purposes, recipients=self._recipients
                )
                subjects = asked["subject"].combine_chunks()
                yield (
                    asked["row"].to_numpy(),
                    book.decide(subjects, purpose=purpose, at=at, conditions=conditions),
                )

        joined = ConsentDecision.joined(decided(), count=count)
        decision = ConsentDecision(joined.outcomes, laid.rows, joined.next_event)
        return Heard(laid.digest, purpose, at, decision, conditions)

    def _laid_out(self, file: ConsentFile, directory: Path, first: int | None) -> "_LaidOut":
        """Read a file onto shelves by subject.

        Raises:
            ConsentError: as `decide`.
        """
        digest, rows = file.digest(), 0
        with Shelves(directory, events_schema(self._recipients)) as events:
            for batch in self._events(file, first=first):
                rows += len(batch)
                events.put(batch)
        if file.digest() != digest:
            raise ConsentError(
                f"{file.name} changed while it was read: replace it by renaming a whole one, then "
                "run again"
            )
        return _LaidOut(digest, rows, events)

    def _events(self, file: ConsentFile, *, first: int | None = None) -> Iterator[Any]:
        return read_events(
            file.path,
            purposes=self._purposes,
            recipients=self._recipients,
            first=first,
            size=file.size,
            name=file.name,
        )

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
            asked=_asked(heard.file, people, heard.purpose, heard.conditions),
            log_size=heard.decision.log_size,
            since=heard.at,
            until=heard.decision.next_event,
        )
        write_atomically(kept, found.model_dump_json().encode(), mode=0o600)

    def all_allowed(
        self,
        people: Sequence[References],
        purpose: str,
        *,
        at: datetime,
        kept: Path,
        conditions: Conditions = UNCONDITIONAL,
    ) -> int | None:
        """Tell whether everybody consents now.

        Args:
            people: the party's own record references.
            purpose: what they would be used for.
            at: now, with a time zone.
            kept: where a consent of everybody is kept for the next time.
            conditions: what the use needs besides.

        Returns:
            The number of rows in the file that decided, or None if somebody does not consent.

        Raises:
            ConsentError: as `decide`.
            UnknownPurposeError: the agreement does not declare the purpose.
            WorkspaceError: the references are damaged, or the disk is full.
        """
        with scratch(kept.with_name("consents.tmp")) as directory:
            with consent_file(self._place, directory) as file:
                asked, earlier = _asked(file.digest(), people, purpose, conditions), _load(kept)
                if earlier is not None and earlier.answers(asked, at):
                    return earlier.log_size
                laid = self._laid_out(file, directory / "events", None)
            with Shelves(directory / "people", PEOPLE) as shelves:
                count = put_people(shelves, people)
            heard = self._heard(laid, shelves, count, purpose=purpose, at=at, conditions=conditions)
        everybody = np.ones(count, dtype=np.bool_)
        if not heard.decision.allowed.all():
            return None
        self.keep(heard, everybody, people, kept=kept)
        return heard.decision.log_size

    def check_cohort(
        self, used: ConsentUsed, people: References, key: bytes, directory: Path
    ) -> None:
        """Return only if a leaf is true of a cohort, as the consents were then.

        1. The cohort has the leaf's root under the key.
        2. The first rows of the file, as many as the leaf says, allow each of them, as of its
           moment, for its purpose. A table does not say which rows were its first: it must have as
           many as then.

        Args:
            used: the leaf.
            people: the cohort.
            key: the party's `cohort_key`.
            directory: an empty one, for what is read.

        Raises:
            ConsentError: it is not, or the file cannot be read.
        """
        with Shelves(directory / "people", PEOPLE) as shelves:
            count = put_people(shelves, (people,))
        if (
            used.cohort_root is None
            or used.as_of is None
            or root_of_shelves(key, shelves) != used.cohort_root
        ):
            raise ConsentError("the cohort is not the one that the leaf tells of")  # 1
        heard = self.decide(  # 2
            shelves,
            count,
            purpose=used.purpose,
            at=used.as_of,
            directory=directory / "events",
            conditions=self.conditions(used.purpose),
            first=used.consent_log_size if isinstance(self._place, Path) else None,
        )
        if (found := heard.decision.log_size) != used.consent_log_size:
            what, changed = "file", "removed"
            if not isinstance(self._place, Path):
                what, changed = "table", "added or removed, and it does not say which were there"
            raise ConsentError(
                f"the consent {what} has {found} rows, the leaf tells of {used.consent_log_size}: "
                f"rows were {changed}"
            )
        if excluded := len(people) - int(np.count_nonzero(heard.decision.allowed)):
            raise ConsentError(f"{excluded} of {len(people)} people had not consented then")

    def said_by(self, subjects: Collection[str], beside: Path) -> ConsentBook:
        """Return all that a few people said, in one pass over the file.

        Args:
            subjects: the party's own references of them.
            beside: a directory that may hold a copy of a table.

        Raises:
            ConsentError: as `decide`.
            UnknownPurposeError: as `decide`.
        """
        wanted = pa.array(subjects, pa.large_string())
        with consent_file(self._place, beside) as file:
            return ConsentBook.of(
                (
                    batch.filter(pc.is_in(batch["subject"], value_set=wanted))
                    for batch in self._events(file)
                ),
                purposes=self._purposes,
                recipients=self._recipients,
            )


@dataclass(frozen=True)
class _LaidOut:
    """Events of a file by subject, how many they are, and the file's digest."""

    digest: str
    rows: int
    events: Shelves


def _asked(file: str, people: Sequence[References], purpose: str, conditions: Conditions) -> str:
    told = [file, *(f"{one.count} {one.digest}" for one in people), purpose, conditions.spelt]
    return hashlib.sha256(" ".join(told).encode()).hexdigest()


def _load(path: Path) -> _Kept | None:
    """Return what was kept; nothing where it is damaged, for the file can be read again."""
    try:
        return _Kept.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _purpose_of(agreement: Agreement, computation: Activity) -> str | None:
    terms = getattr(agreement, computation.value)
    return None if terms is None else str(terms.purpose)
