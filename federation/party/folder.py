"""A party's folder: where everything lies in it, its keys, its agreement.

Guarantees: secrets are created with mode 0600; no key is made anew once there is an agreement.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import ValidationError

from compliance.agreement import Agreement
from compliance.errors import describe
from compliance.log.cosignature import CosigningKey
from compliance.log.note import NoteKey
from compliance.log.verifier import read_regular
from compliance.signing import ENVELOPE_LIMIT, SigningKey
from compliance.terms import DATA_ROLES, PartyTerm
from connectors import Sink, open_sink
from federation.clock import Clock, utc_now
from federation.errors import WorkspaceError
from federation.party.configuration import JOURNAL, PartyConfig, SegmentsConfig
from federation.party.contract import contract_in, verified_agreement
from federation.party.writing import make_private, write_atomically
from federation.safe import PARTY_SECRETS, Safe, SafeRows
from federation.unsealing import unsealing_key
from privacy.accounting.store import LedgerStore, ledger_store
from privacy.encryption import DecryptionKey
from privacy.randomness import SECRET_BYTES, Secret, derive_secret, new_secret, seeded_secret

if TYPE_CHECKING:
    from compliance.log.writer import LogWriter
    from compliance.subject_keys import SubjectKeys
    from privacy.accounting.ledger import Ledger

__all__ = ["PartyFolder"]


class PartyFolder:
    """Paths, keys and agreement of one party, under one directory."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        file = self.path / "party.json"
        try:
            self.config = PartyConfig.model_validate_json(file.read_bytes())
        except FileNotFoundError as error:
            raise WorkspaceError(
                f"{self.path} is no party's folder: there is no party.json in it"
            ) from error
        except ValidationError as error:
            raise WorkspaceError(
                f"{file}: {error.error_count()} mistakes: {describe(error)}"
            ) from error

    @classmethod
    def create(cls, path: Path, config: PartyConfig) -> Self:
        """Write a new party's folder, or open the one that is there if it says the same.

        Its workers and its environment for direct matches may be others than before, as they change
        no result; where its ledger is kept, and a journal of consents, are its own matter and stay.

        Raises:
            WorkspaceError: the folder belongs to a party configured otherwise, or is another
                user's.
        """
        file = path / "party.json"
        if file.exists():
            found = cls(path).config
            config = config.model_copy(update={"ledger": found.ledger})
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

    @property
    def name(self) -> str:
        """The party's name."""
        return self.config.name

    @property
    def log(self) -> Path:
        """Directory of the party's log."""
        return self.path / "log"

    @property
    def witnessed(self) -> Path:
        """Directory of what this party witnessed of others' logs, and they of its own."""
        return self.log / "witness"

    @property
    def shown(self) -> Path:
        """Directory of what must be remembered until other parties have cosigned a head."""
        return self.path / "shown"

    @property
    def log_origin(self) -> str:
        """Origin line of the party's log."""
        return f"comity/{self.name}"

    def open_log(self) -> "LogWriter":
        """Open the party's log to append to it.

        Raises:
            LogError: another writer has it open, it is damaged, or the disk refused.
        """
        from compliance.log.writer import LogWriter  # auditors read folders, and load no writer

        return LogWriter.open(
            self.log, origin=self.log_origin, key=self.log_key(), second_key=self.cosigning_key()
        )

    @property
    def ledger(self) -> Path:
        """File of the privacy ledger, where it is kept in one."""
        return self.path / "ledger.sqlite"

    def ledger_store(self, agreement: Agreement) -> LedgerStore:
        """Return where the privacy ledger under an agreement is kept.

        Raises:
            LedgerError: the configured URL is malformed, or its driver is not installed.
        """
        place = self.config.ledger or self.ledger
        return ledger_store(place, party=self.name, agreement=agreement.lineage)

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

    @property
    def policy(self) -> Path:
        """File of the party's own prohibitions, in Cedar, if it has any."""
        return self.path / "policy.cedar"

    @property
    def outbox(self) -> Path:
        """Directory of the answers given."""
        return self.path / "outbox"

    def resolve(self, path: Path) -> Path:
        """Return a configured path, relative ones taken from the party's folder."""
        return self.path / path

    def job(self, job: str) -> Path:
        """Directory of what a job must remember."""
        return self.path / "jobs" / job

    def members(self, match: str) -> Path:
        """File of the members that a match found here."""
        return self.job(match) / "members.npz"

    def model(self, job: str) -> Path:
        """File of the model that a training job made."""
        return self.path / "models" / f"{job}.json"

    def attack(self, job: str) -> Path:
        """File of what an attack on a training job found."""
        return self.path / "attacks" / f"{job}.json"

    def card(self, name: str) -> Path:
        """Files of the card of a model, without their suffix."""
        return self.path / "cards" / name

    def segment(self, job: str) -> Path:
        """File of the segment that an expansion job made, where it goes into a file."""
        kind = (self.config.segments or SegmentsConfig()).kind
        return self.path / "segments" / f"{job}.{kind}"

    def sink(self, job: str) -> Sink:
        """Return where the segment of an expansion job goes.

        Raises:
            SourceUnavailableError: the URL is malformed, or what speaks to it is not installed.
        """
        return open_sink((self.config.segments or SegmentsConfig()).source(job, self.path))

    def measurement(self, job: str) -> Path:
        """File of the counts that a measuring job made."""
        return self.job(job) / "measurement.json"

    @property
    def erasures(self) -> Path:
        """Directory of requests to erase, and of whom they are about."""
        return self.path / "erasures"

    @property
    def subject_keys(self) -> Path:
        """File of the subjects' keys, where the party keeps some."""
        return self.path / "keys" / "subjects.sqlite"

    def retired(self, job: str) -> Path:
        """File whose presence says that nobody is scored with a model any more."""
        return self.path / "models" / f"{job}.retired"

    def due_model(self, job: str) -> Path:
        """File that says by when a model has to be trained again."""
        return self.path / "retraining" / f"{job}.json"

    def open_subject_keys(self) -> "SubjectKeys":
        """Open the subjects' keys, and begin to keep some where the party keeps none.

        Raises:
            SubjectKeyError: their file is damaged, or the disk refuses.
        """
        from compliance.subject_keys import SubjectKeys

        wrapping = SafeRows(self.safe, self.subject_keys)
        return SubjectKeys.open(self.subject_keys, draw=new_secret, wrapping=wrapping)

    @property
    def safe(self) -> Safe:
        """How the folder's secrets lie on disk.

        Raises:
            UnsealingError: the unsealing key cannot be had, though there is to be one.
        """
        return Safe(self.path, f"party {self.name}", PARTY_SECRETS, unsealing_key())

    def keep_secret(self, path: Path, content: bytes) -> None:
        """Write a secret into a file of the folder, sealed where there is an unsealing key.

        Raises:
            UnsealingError: the unsealing key cannot be had.
            WorkspaceError: as `write_atomically`.
        """
        write_atomically(path, self.safe.seal(path, content), mode=0o600)

    def read_secret(self, path: Path) -> bytes:
        """Return a secret of the folder.

        Raises:
            UnsealingError: it does not open, or lies in clear though there is an unsealing key.
            OSError: the file cannot be read.
        """
        return self.safe.unseal(path, path.read_bytes())

    def erasure_key(self) -> Secret:
        """Return the key that seals whom this party erased; made at first use.

        Raises:
            WorkspaceError: it is damaged.
        """
        path = self.path / "keys" / "erasure"
        if not path.exists():
            self.keep_secret(path, self.fresh_secret("erasure key").hex().encode())
        try:
            return Secret(bytes.fromhex(self.read_secret(path).decode("ascii")))
        except ValueError as error:
            raise WorkspaceError(f"{path} is damaged: restore it") from error

    def pending(self, result: Path, question: str) -> Path:
        """Where a result waits while the gate decides on the answer to a question."""
        return result.with_name(f".{result.name}.{question}.pending")

    def keep_pending(self, question: str) -> None:
        """Put a result in its place that a crash left waiting though its answer was let go."""
        for folder in ("jobs", "models", "segments"):
            for pending in (self.path / folder).glob(f"**/.*.{question}.pending"):
                pending.replace(pending.with_name(pending.name[1 : -len(f".{question}.pending")]))

    def pending_results(self) -> dict[str, tuple[Path, ...]]:
        """Return results that a crash left waiting, by the question whose answer tells of them."""
        found: dict[str, tuple[Path, ...]] = {}
        for folder in ("jobs", "models", "segments"):
            for path in sorted((self.path / folder).glob("**/.*.pending")):
                question = path.name.split(".")[-2]
                found[question] = (*found.get(question, ()), path)
        return found

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

    @property
    def next_agreement(self) -> Path:
        """Where an amendment lies while it is being taken over."""
        return self.path / "agreement.next.json"

    def check_current(self, agreement: Agreement) -> None:
        """Return only if an agreement, read before the folder was held, is still the one here.

        Raises:
            WorkspaceError: it was amended meanwhile.
        """
        written = read_regular(self.path / "agreement.json", ENVELOPE_LIMIT + 1)
        if contract_in(written) != agreement.canonical_bytes or (self.next_agreement.exists()):
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

    def _secret(self, path: Path, label: str) -> Secret:
        if path.exists():
            try:
                content = bytes.fromhex(self.read_secret(path).decode("ascii"))
            except ValueError:
                content = b""
            if len(content) != SECRET_BYTES:
                raise WorkspaceError(f"{path} is damaged: expected {SECRET_BYTES} bytes in hex")
            return Secret(content)
        if (self.path / "agreement.json").exists():
            raise WorkspaceError(
                f"{path} is missing, and the agreement in {self.path} rests on it: restore the key "
                "from a backup; a new one would be nobody's"
            )
        secret = self.fresh_secret(label)
        self.keep_secret(path, secret.hex().encode())
        return secret

    def identity_key(self) -> SigningKey:
        """Return the key that signs agreements and messages; made at first use.

        Raises:
            WorkspaceError: it is damaged, or is missing though there is an agreement.
        """
        return SigningKey.from_seed(self._secret(self.path / "keys" / "identity", "identity"))

    def log_key(self) -> SigningKey:
        """Return the key that signs the log's checkpoints; made at first use.

        Raises:
            WorkspaceError: it is damaged, or is missing though there is an agreement.
        """
        return SigningKey.from_seed(self._secret(self.path / "keys" / "log", "log"))

    def cohort_key(self, agreement: str) -> Secret:
        """Return the key under which cohorts are told in the log; an auditor may be given it.

        Args:
            agreement: its digest.

        Raises:
            WorkspaceError: the identity key is damaged, or is missing though there is an agreement.
        """
        secret = self._secret(self.path / "keys" / "identity", "identity")
        return derive_secret(secret, f"consent cohorts under {agreement}")

    def cosigning_key(self) -> CosigningKey:
        """Return the key that cosigns logs, this party's own too; made at first use.

        Raises:
            WorkspaceError: it is damaged, or is missing though there is an agreement.
        """
        seed = self._secret(self.path / "keys" / "cosigning", "cosigning")
        return CosigningKey.from_seed(self.log_origin, seed)

    def decryption_key(self) -> DecryptionKey:
        """Return the key that opens what other parties encrypt to this one; made at first use.

        Raises:
            WorkspaceError: it is damaged, or is missing though there is an agreement.
        """
        return DecryptionKey(self._secret(self.path / "keys" / "encryption", "encryption"))

    def fresh_secret(self, label: str) -> Secret:
        """Return a secret that was never used before.

        With `unsafe_seed` it is the same for the same label, so `label` names the one message that
        the secret serves.
        """
        seed = self.config.unsafe_seed
        return new_secret() if seed is None else seeded_secret(seed, f"{self.name}/{label}")
