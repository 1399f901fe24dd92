"""Recording what people say: a row of the party's journal first, and then a leaf for it.

```
consents.csv         the journal
consents-told.json   how far the log knows of it
```

Guarantees: an event that `record` returned for is in the journal, and in the log as a commitment
under its subject's key. Where a crash came between, the next start tells the log: rows beyond what
is told are held against its leaves, so that none is told twice. Rows that are imported are not
told: nobody said them here.

Leaves to others: holding the party's folder (whoever calls), reading consents (`consent_reading`).
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from compliance import records
from compliance.agreement import Agreement
from compliance.consent import ConsentEvent, ConsentJournal, commitment, events_of, read_events
from compliance.consent.record import ConsentNotice, ConsentRecord
from compliance.errors import ConsentError, UnknownPurposeError, describe
from compliance.log.verifier import verify_log
from compliance.subject_keys import SubjectKeys
from compliance.terms import ConsentTerms
from federation.errors import WorkspaceError
from federation.party import JOURNAL, PartyFolder, locked, write_atomically
from privacy.randomness import new_secret

__all__ = ["ConsentRecording", "record_of"]

_BEYOND: Final = 2**62  # while rows come that the log need not know of


class _Told(BaseModel):
    """How many rows, in how many bytes of the journal, the log knows of or need not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int = Field(ge=0)
    size: int = Field(ge=0)


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
        self._told = folder.path / "consents-told.json"

    def settle(self) -> None:
        """Tell the log of rows that a crash kept from it.

        1. Nothing was recorded here, or the journal ends where it is told to: all is well.
        2. It ends before, since a crash came into an import: what is there needs no telling.
        3. It goes on: each row beyond that has no leaf gets one, under its subject's key.

        Raises:
            ConsentError: the journal is damaged.
            SubjectKeyError: the store of subjects' keys is.
            LogError: the log is, or the disk refused.
        """
        if (told := self._load()) is None or (file := self._file()) is None:
            return  # 1
        if file.suffix != ".csv" or not (journal := ConsentJournal(file)).begun:
            return  # 1
        if (size := file.stat().st_size) == told.size:
            return  # 1
        if size > told.size:  # 3
            self._tell(told.rows, journal.after(told.size))
        self._save(journal)  # 2, 3

    def record(self, event: ConsentEvent) -> int:
        """Append an event, and its leaf; return the place of its row, from 1.

        Raises:
            UnknownPurposeError: the agreement does not declare its purpose.
            ConsentError: the party's consents lie in no journal, or it cannot be written.
            SubjectKeyError: the store of subjects' keys is damaged.
        """
        if event.purpose not in self._agreement.purposes:
            known = ", ".join(self._agreement.purposes)
            raise UnknownPurposeError(f"the agreement declares {known}, got another purpose")
        if (file := self._file()) is None:
            raise WorkspaceError(
                f"{self._folder.path} keeps no consents: `comity consent import` begins a journal"
            )
        journal = ConsentJournal(file)
        if self._load() is None or not journal.begun:
            self._save(journal)
        self.settle()
        sequence = journal.append(event)
        self.settle()
        return sequence

    def bring(self, source: Path | None) -> int:
        """Bring a consent file into the journal, which is begun first where there is none.

        Args:
            source: the file; where left out, the one that the party has used so far.

        Returns:
            The number of rows in the journal.

        Raises:
            ConsentError: a file is malformed, or there is none to bring.
            UnknownPurposeError: it names other purposes than the agreement.
        """
        used = self._file()
        begun = used is not None and used.suffix == ".csv" and ConsentJournal(used).begun
        sources = [file for file in (None if begun else used, source) if file is not None]
        if not sources:
            raise ConsentError(f"{used or self._folder.path}: name a file to import")
        for file in sources:
            for _ in read_events(file, purposes=self._agreement.purposes):
                pass  # sound as a whole, before a row of it counts
        self.settle()
        target = used if begun and used is not None else self._folder.path / JOURNAL
        if not begun:
            target.unlink(missing_ok=True)  # what a crash left of an import
        journal = ConsentJournal(target)
        self._write(_Told(rows=0, size=_BEYOND))
        for file in sources:
            journal.append_file(file)
        rows = self._save(journal)
        if not begun:
            config = self._folder.config.model_copy(update={"consent": Path(JOURNAL)})
            content = json.dumps(config.model_dump(mode="json"), indent=2).encode() + b"\n"
            write_atomically(self._folder.path / "party.json", content, mode=0o600)
        return rows

    def _tell(self, before: int, events: tuple[ConsentEvent, ...]) -> None:
        if not events:
            return
        log_key = self._agreement.party(self._folder.name).log_key
        entries = verify_log(self._folder.log, verification_key=log_key).entries
        there = {
            (leaf.sequence, leaf.commitment)
            for leaf in map(records.parse_leaf, entries)
            if isinstance(leaf, records.ConsentRecorded)
        }
        store = SubjectKeys.open(self._folder.subject_keys, draw=new_secret)
        keys = store.of([event.subject for event in events])
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

    def _file(self) -> Path | None:
        consent = self._folder.config.consent
        return None if consent is None else self._folder.resolve(consent)

    def _load(self) -> _Told | None:
        try:
            return _Told.model_validate_json(self._told.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise WorkspaceError(f"{self._told} is damaged: restore it from a backup") from error

    def _save(self, journal: ConsentJournal) -> int:
        rows, size = journal.extent()
        self._write(_Told(rows=rows, size=size))
        return rows

    def _write(self, told: _Told) -> None:
        write_atomically(self._told, told.model_dump_json().encode(), mode=0o600)


def record_of(directory: Path, subject: str, purpose: str, notice: Path) -> ConsentRecord:
    """Return the record of what one person was told and said about a purpose.

    1. The notice is whole, about the purpose, and rests on a basis that the agreement allows.
    2. The person said something. The record is named after a pseudonym under their own key.

    Args:
        directory: the party's folder.
        subject: the party's own reference of the person.
        purpose: what it is about.
        notice: file of a `ConsentNotice`.

    Raises:
        ConsentError: at the first step that fails, or a file cannot be read.
        SubjectKeyError: the store of subjects' keys is damaged.
    """
    folder = PartyFolder(directory)
    agreement = folder.agreement()
    try:
        told = ConsentNotice.model_validate_json(notice.read_bytes())
    except OSError as error:
        raise ConsentError(f"notice {notice} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ConsentError(f"notice {notice}: {describe(error)}") from error
    bases = (agreement.consent or ConsentTerms()).lawful_bases  # 1
    if told.purpose != purpose or told.lawful_basis not in bases:
        raise ConsentError(
            f"notice {notice}: expected purpose {purpose} and a lawful basis among "
            f"{', '.join(bases)}, got {told.purpose} and {told.lawful_basis}"
        )
    with locked(folder):
        if folder.config.consent is None:
            raise ConsentError(f"{folder.path} keeps no consents")
        file = folder.resolve(folder.config.consent)
        for _ in read_events(file, purposes=agreement.purposes):
            pass
        events = events_of(file, subject, purpose)  # 2
        if not events:
            raise ConsentError("the person said nothing about the purpose")
        (key,) = SubjectKeys.open(folder.subject_keys, draw=new_secret).of([subject])
    pseudonym = key.pseudonym(folder.log_origin, subject)
    return ConsentRecord.of(f"{folder.name}/{purpose}/{pseudonym}", told, events)
