"""A party's folder: what is in it, opened, and the agreement it is under."""

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from compliance.agreement import Agreement
from compliance.log.note import NoteKey
from compliance.log.verifier import read_regular
from compliance.signing import ENVELOPE_LIMIT
from compliance.terms import DATA_ROLES, PartyTerm
from connectors import Sink, open_sink
from federation.clock import Clock, utc_now
from federation.errors import RefusedError, WorkspaceError
from federation.party.configuration import JOURNAL, PartyConfig, SegmentsConfig
from federation.party.contract import verified_agreement, verified_in
from federation.party.keys import PartyKeys
from federation.party.writing import make_private, write_atomically
from federation.safe import PARTY_SECRETS, SafeRows
from federation.unsealing import key_file
from privacy.accounting.store import LedgerStore
from privacy.accounting.stores import ledger_store
from privacy.randomness import new_secret

if TYPE_CHECKING:
    from compliance.log.writer import LogWriter
    from compliance.subject_keys import SubjectKeys
    from federation.replica import Replica
    from privacy.accounting.ledger import Ledger

__all__ = ["PartyFolder"]


class PartyFolder(PartyKeys):
    """Paths, keys and agreement of one party, under one directory."""

    @classmethod
    def create(cls, path: Path, config: PartyConfig) -> Self:
        """Write a new party's folder, or open the one that is there if it says the same.

        Its workers and its environment for direct matches may be others than before, as they change
        no result; where its ledger and its copy are kept, and a journal of consents, are its own
        matter and stay.

        Raises:
            WorkspaceError: the folder belongs to a party configured otherwise, or is another
                user's.
        """
        file = path / "party.json"
        if file.exists():
            found = cls(path).config
            kept = {"ledger": found.ledger, "database": found.database}
            config = config.model_copy(update=kept)
            if config.consent is not None and found.consent == Path(JOURNAL):
                config = config.model_copy(update={"consent": found.consent})
            free = {"workers": config.workers, "rr22": config.rr22}
            if found.model_copy(update=free) != config:
                raise WorkspaceError(
                    f"{file} describes another configuration of this party: name another "
                    "workspace, or go on with the collaboration that made this one"
                )
            if found == config:
                return cls(path)
        content = json.dumps(config.model_dump(mode="json"), indent=2).encode() + b"\n"
        make_private(path)  # before anything lies in it
        write_atomically(file, content, mode=0o600)  # a database URL may hold a password
        return cls(path)

    def refusal(self, term: str, remedy: str) -> RefusedError:
        """Return this party's own refusal: the term, and the smallest change that would pass."""
        return RefusedError(party=self.name, term=term, remedy=remedy)

    def open_log(self) -> "LogWriter":
        """Open the party's log to append to it.

        Raises:
            LogError: another writer has it open, it is damaged, or the disk refused.
        """
        from compliance.log.writer import LogWriter  # auditors read folders, and load no writer

        return LogWriter.open(
            self.log, origin=self.log_origin, key=self.log_key(), second_key=self.cosigning_key()
        )

    def ledger_store(self, agreement: Agreement) -> LedgerStore:
        """Return where the privacy ledger under an agreement is kept.

        Raises:
            LedgerError: the configured URL is malformed, or its driver is not installed.
        """
        place = self._ledger_database or self.ledger
        return ledger_store(place, party=self.name, agreement=agreement.lineage)

    @property
    def _ledger_database(self) -> str | None:
        """URL of the database that keeps the ledger; None where a file of the folder does."""
        url = self.config.database
        if self.config.ledger is not None or url is None or self.ledger.exists():
            return self.config.ledger
        return url if url.startswith("postgresql") else None

    @cached_property
    def replica(self) -> "Replica | None":
        """The folder's copy in a database, where there is to be one.

        Raises:
            ReplicaError: the configured URL is malformed, or its driver is not installed.
        """
        if self.config.database is None:
            return None
        from federation.replica import Replica, ReplicaStore, Scope
        from federation.replica.description import outside_of

        left_out = set() if self._ledger_database is None else {self.ledger.name}
        if (key := key_file()) is not None and key.is_relative_to(self.path):
            left_out.add(key.relative_to(self.path).as_posix())  # it opens all that is sealed
        outside = outside_of(self.config.model_dump_json().encode(), self.path)
        scope = Scope(
            self.path,
            PARTY_SECRETS,
            left_out=frozenset(left_out),
            outside=outside,
            appended=frozenset([JOURNAL]),  # a file elsewhere may be written otherwise by others
        )
        store = ReplicaStore(self.config.database)
        return Replica(self.name, scope, store, write=write_atomically)

    def open_ledger(self, agreement: Agreement, *, begun: bool, clock: Clock = utc_now) -> "Ledger":
        """Open the privacy ledger under an agreement; it is made where the log has not begun.

        Args:
            agreement: in force.
            begun: whether the party's log has leaves.
            clock: tells when now is.

        Raises:
            WorkspaceError: of log and ledger one has begun, and the other is not there.
            LedgerError: it is damaged or cannot be reached.
        """
        from federation.budgets import budget_of
        from privacy.accounting.ledger import Ledger

        store = self.ledger_store(agreement)
        if begun and not store.exists():
            raise WorkspaceError(
                f"ledger {store.name} is missing, and the log says it was there: restore it; "
                "a new one would spend the budget twice"
            )
        ledger = Ledger.open(
            store,
            agreement=agreement.lineage,
            budget=budget_of(agreement),
            clock=clock,
        )
        if not begun and ledger.statement().charges:
            raise WorkspaceError(
                f"{self.log} is empty, and ledger {store.name} has charges: restore the log; "
                "a new one would prove nothing of them"
            )
        return ledger

    def synchronise(self, *within: str) -> None:
        """Have the database that keeps a copy of the folder, if any, know of what is here.

        Args:
            within: names of files and directories of which none hangs together with what else is
                here; everything where left out.

        Raises:
            ReplicaError: the folder was restored elsewhere, or the database cannot be reached.
        """
        if self.replica is not None:
            self.replica.synchronise(*within)

    @property
    def shown_log(self) -> Path:
        """Directory of the log's head that others may be shown: no later than any copy has."""
        return self.log if self.replica is None else self.replica.shown

    def sink(self, job: str) -> Sink:
        """Return where the segment of an expansion job goes.

        Raises:
            SourceUnavailableError: the URL is malformed, or what speaks to it is not installed.
        """
        return open_sink((self.config.segments or SegmentsConfig()).source(job, self.path))

    def open_subject_keys(self) -> "SubjectKeys":
        """Open the subjects' keys, and begin to keep some where the party keeps none.

        Raises:
            SubjectKeyError: their file is damaged, or the disk refuses.
        """
        from compliance.subject_keys import SubjectKeys

        wrapping = SafeRows(self.safe, self.subject_keys)
        return SubjectKeys.open(self.subject_keys, draw=new_secret, wrapping=wrapping)

    def agreement(self) -> Agreement:
        """Return the verified agreement, in which this party finds itself.

        Raises:
            WorkspaceError: there is none, it names other keys for this party, or an amendment was
                not taken over wholly.
            InvalidAgreementError: it is unsigned by somebody, or altered.
        """
        file = self.path / "agreement.json"
        if self.next_agreement.exists():
            raise WorkspaceError(
                f"{self.next_agreement} was being taken over: run `comity agreement adopt` again"
            )
        agreement = verified_agreement(file)
        self.check_named(agreement, file)
        return agreement

    def check_current(self, agreement: Agreement) -> None:
        """Return only if an agreement, read before the folder was held, is still the one here.

        Raises:
            WorkspaceError: it was amended meanwhile.
            InvalidAgreementError: what is here is unsigned by somebody, or altered.
        """
        written = read_regular(self.path / "agreement.json", ENVELOPE_LIMIT + 1)
        now = verified_in(written)
        if now.digest != agreement.digest or self.next_agreement.exists():
            raise WorkspaceError(f"the agreement in {self.path} was amended meanwhile: ask again")

    def check_named(self, agreement: Agreement, file: Path) -> None:
        """Return only if the agreement, read from `file`, names this party as its folder does.

        Raises:
            WorkspaceError: it names another role or other keys.
            InvalidAgreementError: it names no such party.
        """
        if agreement.party(self.name) != self.term():
            raise WorkspaceError(
                f"{file} names other keys, or another role, for {self.name} than {self.path} has: "
                "somebody else's contract, or restored keys; use the contract this party signed"
            )

    def check_new(self, agreement: Agreement) -> None:
        """Return only if a party with an empty log may begin under the agreement.

        Raises:
            WorkspaceError: it was a party of an earlier version, so that it has a log elsewhere.
        """
        if any(one.name == self.name for one in agreement.earlier):
            raise WorkspaceError(
                f"{self.name} was a party before version {agreement.number}, and {self.path} is "
                "new: use its old folder, whose log and budget go on; it takes over every version "
                "in between, one after the other, with `comity agreement adopt`"
            )

    def term(self) -> PartyTerm:
        """Return this party as an agreement names it, with the public halves of its keys.

        Raises:
            WorkspaceError: a key is damaged, or is missing though there is an agreement.
        """
        role = self.config.role
        return PartyTerm(
            name=self.name,
            role=role,
            identity_key=self.identity_key().public.to_base64(),
            log_key=NoteKey(self.log_origin, self.log_key().public).to_string(),
            encryption_key=(
                self.decryption_key().public.to_base64() if role in DATA_ROLES else None
            ),
            cosigning_key=self.cosigning_key().public.to_string(),
        )
