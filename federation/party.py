"""A party's own folder: its configuration, keys, agreement, and where everything else lies.

```
PARTY/
  party.json       what this party is and where its data lies
  agreement.json   the contract, signed by every party
  agreements/ notices/   its earlier versions; notices that end it
  keys/            identity, log, cosigning, encryption: seeds, readable by their owner only, and
                   sealed where there is an unsealing key (see `safe`)
  data/            tables and consents (or a database elsewhere)
  log/             the append-only log (C2SP tlog-tiles), and what witnesses cosigned
  shown/           its head on the way to them
  ledger.sqlite    the privacy budget (or a database elsewhere)
  jobs/JOB/        what a job must remember between two messages
  api/             who may call its HTTP API, and what they were answered
  outbox/          answers given, kept so that a repeated question gets the same answer
  models/ segments/   results; segments may go elsewhere
  attacks/ cards/  what was found out about models, at home
  retention/       the latest moment believed, and holds
  retraining/      models that have to be trained again
  policy.cedar     the party's own prohibitions, if any
```

Guarantees: files appear whole or not at all (`write_atomically`); secrets are created with mode
0600; no key is made anew once there is an agreement.

Leaves to others: what is written (`node`, `gate`), what an agreement means (`compliance`).
"""

import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from compliance.agreement import Agreement, SignedAgreement
from compliance.errors import InvalidAgreementError, describe
from compliance.log.cosignature import CosigningKey
from compliance.log.note import NoteKey
from compliance.log.verifier import read_regular
from compliance.signing import ENVELOPE_LIMIT, Envelope, SigningKey
from compliance.terms import DATA_ROLES, KeyName, PartyTerm, Role
from connectors import FileSource, ObjectSource, Sink, SqlSource, open_sink
from federation.clock import Clock, utc_now
from federation.errors import PartyBusyError, WorkspaceError
from federation.rr22.configuration import Rr22Config
from federation.safe import PARTY_SECRETS, Safe, SafeRows
from federation.unsealing import unsealing_key
from federation.workers import WorkersConfig
from privacy.accounting.store import LedgerStore, ledger_store
from privacy.encryption import DecryptionKey
from privacy.randomness import SECRET_BYTES, Secret, derive_secret, new_secret, seeded_secret

if TYPE_CHECKING:
    from compliance.log.writer import LogWriter
    from compliance.subject_keys import SubjectKeys
    from privacy.accounting.ledger import Ledger

__all__ = [
    "DataConfig",
    "KeyColumns",
    "LabelRule",
    "PartyConfig",
    "PartyFolder",
    "SeedRule",
    "SegmentPlace",
    "SegmentsConfig",
    "locked",
    "make_private",
    "read_agreement",
    "verified_agreement",
    "write_atomically",
]


_SQLITE: Final = "sqlite:///"
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LOCK_POLL_SECONDS: Final = 0.02


def write_atomically(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write a file so that a crash leaves either the old content or the new, never a part.

    When it returns, content and name are on disk; new directories above are not made durable. Of
    several that write at once, in whatever thread or process, one's content is left, whole.

    Raises:
        WorkspaceError: the disk is full, or the user's share of it.
        OSError: the file cannot be written for another reason.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{new_secret().hex()[:16]}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        if error.errno not in _FULL:
            raise
        raise WorkspaceError(
            f"{path} cannot be written ({error.strerror}): make room on the disk, then run again"
        ) from error
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def make_private(path: Path) -> None:
    """Make a folder, unless it is there, and have it be its owner's alone.

    Raises:
        WorkspaceError: it cannot be made, or is another user's.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o700)
    except OSError as error:
        raise WorkspaceError(
            f"{path} cannot be made a folder of this user's alone ({error.strerror}): give it to "
            "this user (chown), or name a folder within it if it is where a volume is mounted"
        ) from error


def _written_agreement(file: Path) -> bytes:
    try:
        content = read_regular(file, ENVELOPE_LIMIT + 1)  # the parser refuses the one too many
    except FileNotFoundError as error:
        raise WorkspaceError(
            f"expected an agreement at {file}, got no such file: put it there, or name another "
            "(WORKSPACE/agreement.json, PARTY/agreement.json)"
        ) from error
    except IsADirectoryError as error:
        raise WorkspaceError(
            f"expected an agreement at {file}, got a folder: name the file in it, "
            f"{file / 'agreement.json'}"
        ) from error
    except OSError as error:
        raise WorkspaceError(
            f"expected an agreement at {file}, which cannot be read ({error.strerror}): make it "
            "readable, or name another"
        ) from error
    return content


def read_agreement(file: Path) -> SignedAgreement:
    """Read a contract whose signatures are not verified yet.

    Raises:
        WorkspaceError: the file cannot be read.
        InvalidAgreementError: it holds no contract.
    """
    content = _written_agreement(file)
    try:
        return SignedAgreement.from_json(content)
    except InvalidAgreementError as error:
        raise type(error)(f"{file}: {error}") from error


def verified_agreement(file: Path) -> Agreement:
    """Read a contract that every party signed.

    Raises:
        WorkspaceError: the file cannot be read.
        InvalidAgreementError: it holds no contract, or one unsigned by somebody, or altered.
    """
    content = _written_agreement(file)
    try:
        return _verified(content)
    except InvalidAgreementError as error:
        raise type(error)(f"{file}: {error}") from error


@lru_cache(maxsize=4)
def _verified(content: bytes) -> Agreement:
    """Verify a contract once for all who hold the same bytes: what follows from them alone."""
    return SignedAgreement.from_json(content).verify()


@lru_cache(maxsize=4)
def _contract_in(content: bytes) -> bytes:
    """Return what an envelope holds, unverified."""
    return Envelope.from_json(content).payload_bytes


class _Closed(BaseModel):
    # A database's URL holds a password.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class SeedRule(_Closed):
    """Which of the brand's rows are seeds: those whose `column` holds `equals`."""

    column: str
    equals: str


class LabelRule(_Closed):
    """What the brand's labels are.

    Attributes:
        column: where they stand.
        positive: what the column holds of people with label 1.
        negative: what it holds of people with label 0; all others have none, are not trained on,
            and can be scored. Left out, everybody else has label 0.
    """

    column: str
    positive: str
    negative: str | None = None

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if self.positive == self.negative:
            raise ValueError("positive and negative must differ")
        return self


def _columns(value: object, read: ValidatorFunctionWrapHandler) -> object:
    """Read where a key is, and say in one sentence what could stand there."""
    try:
        return read(tuple(value) if isinstance(value, list) else value)  # JSON has no tuples
    except ValidationError as error:
        raise PydanticCustomError(
            "terms",
            "{error}",
            {"error": "name a column, a list of columns, or a table of a composite key's fields"},
        ) from error


KeyColumns = Annotated[
    str
    | Annotated[tuple[str, ...], Field(min_length=1, max_length=16)]
    | Annotated[Mapping[KeyName, str], Field(min_length=1)],
    WrapValidator(_columns),
]
"""A column, several columns of one kind, or the column of each field of a composite key."""


def _named_columns(place: str, named: KeyColumns) -> Iterator[tuple[str, str]]:
    if isinstance(named, str):
        yield place, named
    elif isinstance(named, Mapping):
        yield from ((f"{place}.{field}", column) for field, column in named.items())
    else:
        yield from ((f"{place}[{index}]", column) for index, column in enumerate(named))


class DataConfig(_Closed):
    """Where a party's people lie and what its columns are called.

    Attributes:
        path: a CSV, CSV.gz or Parquet file; or
        url, table: a database (SQLAlchemy URL) and one of its tables or views; or
        url: objects of an S3-compatible store, `s3://bucket/prefix/people-*.parquet`.
        key: column with the party's own record reference, unique per row.
        identifiers: where each key is by which people are matched: a column, several columns, or
            for a composite key a table of its fields' columns.
        features: the party's column for each agreed feature that it calls otherwise.
        seeds: which rows are seeds (brand only); every row where left out.
        labels: what vertical training learns (brand only).
    """

    path: Path | None = None
    url: str | None = None
    table: str | None = None
    key: str
    identifiers: Mapping[KeyName, KeyColumns] = Field(min_length=1)
    features: Mapping[str, str] = Field(default_factory=dict)
    seeds: SeedRule | None = None
    labels: LabelRule | None = None

    @property
    def identifier_columns(self) -> tuple[tuple[str, str], ...]:
        """Every column that identifies people, after the key in the file that names it."""
        return tuple(
            (place, column)
            for key, named in self.identifiers.items()
            for place, column in _named_columns(f"identifiers.{key}", named)
        )

    @property
    def identifiers_per_person(self) -> int:
        """Identifiers that a row has at most."""
        return sum(
            len(named) if isinstance(named, tuple) else 1 for named in self.identifiers.values()
        )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        tabled = self.url is not None and not _in_objects(self.url)
        if (self.path is None) == (self.url is None) or tabled == (self.table is None):
            raise ValueError("give either path, or url and table, or the url of objects alone")
        return self

    def within(self, directory: Path) -> Self:
        """Return the same source with a relative file, or SQLite file, taken from `directory`."""
        if self.path is not None:
            return self.model_copy(update={"path": directory / self.path})
        return self.model_copy(update={"url": _sqlite_within(self.url or "", directory)})


class SegmentPlace(StrEnum):
    """What a party's segments become."""

    CSV = "csv"
    PARQUET = "parquet"
    SQL = "sql"
    """A table for each, in a database."""


class SegmentsConfig(_Closed):
    """Where a party's segments go.

    Attributes:
        kind: files, or tables.
        url: of the database (SQLAlchemy), with `sql`. The table of a job is called `segment_` and
            the job's name, hyphens as underscores. With another kind, `s3://bucket/prefix`: where
            objects with the job's name go in place of files in its folder.
    """

    kind: SegmentPlace = SegmentPlace.CSV
    url: str | None = None

    @model_validator(mode="after")
    def _fits_kind(self) -> Self:
        in_files = self.url is None or _in_objects(self.url)
        if in_files is (self.kind is SegmentPlace.SQL):
            raise ValueError(
                "give a database's url with kind 'sql', and s3://… or none with others"
            )
        return self

    @property
    def in_objects(self) -> bool:
        """Whether segments become objects of a store."""
        return self.url is not None and _in_objects(self.url)

    def source(self, job: str, folder: Path) -> FileSource | SqlSource | ObjectSource:
        """Return where the segment of a job lies, of the party that has a folder."""
        name = f"{job}.{self.kind}"
        if self.url is None:
            return FileSource(path=folder / "segments" / name)
        if self.in_objects:
            return ObjectSource(url=f"{self.url.rstrip('/')}/{name}")
        url = _sqlite_within(self.url, folder)
        return SqlSource(url=SecretStr(url), table=f"segment_{job.replace('-', '_')}")

    def within(self, directory: Path) -> Self:
        """Return the same place with a relative SQLite file taken from `directory`."""
        return self.model_copy(update={"url": self.url and _sqlite_within(self.url, directory)})


def _in_objects(url: str) -> bool:
    return url.startswith("s3://")


def _sqlite_within(url: str, directory: Path) -> str:
    file = url.removeprefix(_SQLITE)
    if file == url or file.startswith(("/", ":", "file:")):
        return url
    return f"{_SQLITE}{(directory / file).resolve()}"


JOURNAL: Final = "consents.csv"
"""Name of the journal into which `comity consent import` brings a party's consents."""


class PartyConfig(_Closed):
    """What a party is and where its data lies.

    Attributes:
        name: as in the agreement.
        role: as in the agreement.
        data: its people; none for the coordinator.
        consent: its consent events; none for the coordinator.
        suppression: who must never be in a segment; nobody where left out.
        segments: where segments go; CSV files in its folder where left out.
        workers: who does its arithmetic; two threads where left out.
        ledger: URL of the PostgreSQL database that keeps its privacy budget; a file in its folder
            where left out.
        rr22: what it needs for matches over a direct link; it takes part in none where left out.
        unsafe_seed: makes every secret of this party predictable, for reproducible trials only.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
    role: Role
    data: DataConfig | None = None
    consent: Path | None = None
    suppression: Path | None = None
    segments: SegmentsConfig | None = None
    workers: WorkersConfig | None = None
    ledger: str | None = None
    rr22: Rr22Config | None = None
    unsafe_seed: int | None = None


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
        if _contract_in(written) != agreement.canonical_bytes or (self.next_agreement.exists()):
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


@contextmanager
def locked(folder: PartyFolder, *, patience: float | None = None) -> Iterator[None]:
    """Hold the party's folder for this thread; others, in any process, wait their turn.

    While it is held the lock's file is a byte long, which takes no room on a disk that is full. If
    it is so already, its last holder was killed, or failed: what that had written and not yet put
    in its place is removed, as nobody would find it later to erase it.

    Args:
        folder: the party's.
        patience: seconds to wait for whoever holds it; as long as it takes where left out.

    Raises:
        PartyBusyError: the folder was not free in time.
    """
    with (folder.path / "lock").open("a", encoding="ascii") as file:
        if patience is None:
            fcntl.flock(file, fcntl.LOCK_EX)
        else:
            _acquire(file.fileno(), time.monotonic() + patience)
        if os.fstat(file.fileno()).st_size:
            _sweep(folder.path)
        file.truncate(1)
        yield
        file.truncate(0)


def _acquire(descriptor: int, until: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise PartyBusyError(
                    "a job is at work here: nothing was done; ask again a little later"
                ) from None
            time.sleep(_LOCK_POLL_SECONDS)
        else:
            return


def _sweep(directory: Path) -> None:
    """Remove what processes that are gone had not put in its place."""
    for partial in directory.rglob(".*.tmp"):
        writer = partial.name.split(".")[-2]
        if not (writer.isdecimal() and writer != str(os.getpid()) and _is_alive(int(writer))):
            partial.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass  # somebody else's, or none that can be asked about: leave its file
    return True
