"""Recording what people say: a row of the party's journal first, and then a leaf for it.

Guarantees: an event that `record` returned for is in the journal, and in the log as a commitment
under its subject's key. Where a crash came between, or the row was taken while a job was at work,
the next start tells the log: rows beyond what is told are held against its leaves, so that none is
told twice. Rows that are imported are not told: nobody said them here.

Leaves to others: holding the party's folder (whoever calls), rows while it is not free
(`consent_intake`), reading consents (`consent_reading`).
"""

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from pydantic import ValidationError

from compliance import records
from compliance.agreement import Agreement
from compliance.consent import (
    ConsentEvent,
    ConsentJournal,
    commitment,
    events_of,
    read_events,
)
from compliance.consent.record import ConsentNotice, ConsentRecord
from compliance.errors import ConsentError, NothingSaidError, describe
from compliance.terms import ConsentTerms
from federation.consent_file import consent_file
from federation.consent_intake import BEYOND, ConsentIntake, Told
from federation.errors import WorkspaceError
from federation.log_reading import own_leaves
from federation.party import JOURNAL, PartyFolder, locked, write_atomically
from privacy.randomness import new_secret

__all__ = ["ConsentRecording", "ConsentRecords", "read_notice", "record_of"]


class ConsentRecording:
    """A party's journal of consents.

    Args:
        folder: the party's, held by the caller.
        agreement: in force.
        note: appends a leaf to the party's log, as `Gate.note`.
    """

    def __init__(
        self, folder: PartyFolder, agreement: Agreement, note: Callable[..., None]
    ) -> None:
        self._folder = folder
        self._agreement = agreement
        self._note = note
        self._intake = ConsentIntake(folder, agreement)

    def settle(self) -> None:
        """Tell the log of rows that it does not know: the folder was not free, or a crash came.

        1. Nothing was recorded here, or the journal ends where it is told to: all is well.
        2. It ends before, since a crash came into an import: what is there needs no telling.
        3. It goes on: each row beyond that has no leaf gets one, under its subject's key.

        Raises:
            ConsentError: the journal is damaged.
            SubjectKeyError: the store of subjects' keys is.
            LogError: the log is, or the disk refused.
        """
        intake = self._intake
        if (file := intake.journal_file) is None:
            return  # 1
        with intake.held():  # nobody appends meanwhile; while the log is told, somebody may
            if (told := intake.load()) is None:
                return  # 1
            journal = intake.journal(file)
            if (size := file.stat().st_size) == told.size:
                return  # 1
            if size < told.size:
                intake.save(journal)  # 2
                return
            rows, size = journal.extent()
            events = journal.after(told.size)
        self._tell(told.rows, events)  # 3
        intake.write(Told(rows=rows, size=size))

    def record(self, event: ConsentEvent) -> int:
        """Append an event, and its leaf; return the place of its row, from 1.

        Raises:
            UnknownPurposeError: the agreement does not declare its purpose.
            ConsentError: the party's consents lie in no journal, or it cannot be written.
            SubjectKeyError: the store of subjects' keys is damaged.
        """
        sequence = self._intake.take(event)
        self.settle()
        return sequence

    def bring(self, source: Path | None) -> int:
        """Bring consents into the journal, which is begun first where there is none.

        Args:
            source: a file; where left out, the file or table that the party has used so far.

        Returns:
            The number of rows in the journal.

        Raises:
            ConsentError: a file is malformed, or there is none to bring.
            UnknownPurposeError: it names other purposes than the agreement.
        """
        begun, folder = self._intake.journal_file, self._folder
        places = [one for one in (None if begun else folder.consents, source) if one is not None]
        if not places:
            raise ConsentError(f"{begun or folder.path}: name a file to import")
        with ExitStack() as lent:
            files = [lent.enter_context(consent_file(one, folder.path)) for one in places]
            for file in files:
                for _ in read_events(file.path, purposes=self._agreement.purposes, name=file.name):
                    pass  # sound as a whole, before a row of it counts
            target, sources = begun or folder.path / JOURNAL, [file.path for file in files]
            while True:
                self.settle()
                with self._intake.held():
                    if begun and not self._all_told(target):
                        continue  # somebody said something in between: the log is told first
                    return self._bring(sources, target, begun=begun is not None)

    def _all_told(self, journal: Path) -> bool:
        told = self._intake.load()
        return told is None or told.size == journal.stat().st_size

    def _bring(self, sources: list[Path], target: Path, *, begun: bool) -> int:
        if not begun:
            target.unlink(missing_ok=True)  # what a crash left of an import
        journal = ConsentJournal(target)
        self._intake.write(Told(rows=0, size=BEYOND))
        for file in sources:
            journal.append_file(file)
        rows = self._intake.save(journal)
        if not begun:
            config = self._folder.config.model_copy(update={"consent": Path(JOURNAL)})
            content = json.dumps(config.model_dump(mode="json"), indent=2).encode() + b"\n"
            write_atomically(self._folder.path / "party.json", content, mode=0o600)
        return rows

    def _tell(self, before: int, events: tuple[ConsentEvent, ...]) -> None:
        if not events:
            return
        there = {
            (leaf.sequence, leaf.commitment)
            for leaf in own_leaves(self._folder, self._agreement)
            if isinstance(leaf, records.ConsentRecorded)
        }
        keys = self._folder.open_subject_keys().of([event.subject for event in events])
        for place, (event, key) in enumerate(zip(events, keys, strict=True), start=before + 1):
            committed = commitment(key, event)
            if (place, committed) not in there:
                self._note(
                    records.ConsentRecorded,
                    None,
                    sequence=place,
                    event=event.event.value,
                    purpose=event.purpose,
                    commitment=committed,
                )


def record_of(directory: Path, subject: str, purpose: str, notice: Path) -> ConsentRecord:
    """Return the record of what one person was told and said about a purpose.

    1. The notice is whole, about the purpose, and rests on a basis that the agreement allows.
    2. The person said something. The record is named after a pseudonym under their own key; at
       random where they have none, since rows were imported or they were erased.

    Args:
        directory: the party's folder.
        subject: the party's own reference of the person.
        purpose: what it is about.
        notice: file of a `ConsentNotice`.

    Raises:
        ConsentError: at the first step that fails.
        WorkspaceError: the notice cannot be read.
        SubjectKeyError: the store of subjects' keys is damaged.
    """
    folder = PartyFolder(directory)
    with locked(folder):
        return ConsentRecords(folder).of(subject, purpose, read_notice(notice))


def read_notice(file: Path) -> ConsentNotice:
    """Read what people are told about one purpose.

    Raises:
        WorkspaceError: the file cannot be read.
        ConsentError: it holds no notice.
    """
    try:
        return ConsentNotice.model_validate_json(file.read_bytes())
    except OSError as error:
        raise WorkspaceError(
            f"notice {file} cannot be read: {error.strerror}: name the file, in JSON, of what "
            "people were told about the purpose"
        ) from error
    except ValidationError as error:
        raise ConsentError(f"notice {file}: {describe(error)}") from error


class ConsentRecords:
    """What people were told and said, one person and purpose at a time."""

    def __init__(self, folder: PartyFolder) -> None:
        self._folder = folder

    def of(self, subject: str, purpose: str, notice: ConsentNotice) -> ConsentRecord:
        """Return a record; see `record_of`."""
        folder, agreement = self._folder, self._folder.agreement()
        bases = (agreement.consent or ConsentTerms()).lawful_bases  # 1
        if notice.purpose != purpose or notice.lawful_basis not in bases:
            raise ConsentError(
                f"the notice: expected purpose {purpose} and a lawful basis among "
                f"{', '.join(bases)}, got {notice.purpose} and {notice.lawful_basis}"
            )
        if (place := folder.consents) is None:
            raise ConsentError(f"{folder.path} keeps no consents")
        with consent_file(place, folder.path) as file:  # somebody may say something meanwhile
            for _ in read_events(
                file.path, purposes=agreement.purposes, size=file.size, name=file.name
            ):
                pass
            events = events_of(file.path, subject, purpose, size=file.size)  # 2
        if not events:
            raise NothingSaidError("the person said nothing about the purpose")
        # No key is made for looking: whose was destroyed would have one again.
        (key,) = folder.open_subject_keys().find([subject])
        name = key.pseudonym(folder.log_origin, subject) if key else new_secret().hex()
        return ConsentRecord.of(f"{folder.name}/{purpose}/{name}", notice, events)
