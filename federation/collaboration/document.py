"""The collaboration file: parties, contract and jobs of one collaboration, in one TOML document.

Guarantees: `load_collaboration` returns a document without contradictions, or reports every
mistake at once, each with its key, what was found and what is allowed; files and columns that it
names exist at that moment. Every key is described in `docs/collaboration-file.md`.

Leaves to others: making folders, keys and signatures from it (`workspace`).
"""

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from compliance.agreement import MOST_PARTIES, Agreement
from compliance.errors import InvalidAgreementError
from compliance.log.cosignature import CosigningKey
from compliance.log.note import NoteKey
from compliance.signing import SigningKey
from compliance.terms import (
    DATA_ROLES,
    MOST_WITNESSES,
    ApprovalTerms,
    BudgetTerms,
    ColumnTerm,
    ConsentTerms,
    Count,
    DatasetTerm,
    Digest,
    ErasureTerms,
    ExpandTerms,
    Line,
    MatchTerms,
    MeasureTerms,
    Moment,
    Name,
    PartyTerm,
    Purpose,
    RegionTerm,
    RetentionTerm,
    Role,
    TerminationTerms,
    Text,
    TrainTerms,
    VerticalTerms,
    unique,
)
from connectors import FileSource, open_connector
from connectors.errors import ConnectorError, other_spelling
from federation.collaboration.contradictions import (
    job_contradictions,
    party_contradictions,
    source_contradictions,
)
from federation.collaboration.mistakes import explain, overlooked, to_json, well_formed
from federation.errors import CollaborationError
from federation.objections import policy_objections
from federation.party import DataConfig, FileOrTable, SegmentsConfig, TableConfig
from federation.population import recipe_for
from federation.rr22.configuration import Rr22Config
from federation.specification import JobSpec
from federation.workers import WorkersConfig
from privacy.encryption import DecryptionKey
from privacy.errors import InvalidParameterError
from privacy.randomness import seeded_secret

__all__ = [
    "UNSAFE_SEED_WARNING",
    "AgreementSection",
    "Collaboration",
    "EvaluateSection",
    "PartySection",
    "build_agreement",
    "drafted_agreement",
    "load_collaboration",
    "read_document",
]

UNSAFE_SEED_WARNING: Final = (
    "WARNING: unsafe_seed makes every key and all noise predictable; for trials only"
)
_UNSAFE_TERM: Final = (
    "NOT PRIVATE: all keys and all noise under this contract come from a known seed (unsafe_seed), "
    "so nothing under it is private and no signature proves anything."
)


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


_Means = TypeVar("_Means", WorkersConfig, Rr22Config)
_Segments = TypeVar("_Segments", Path | TableConfig, SegmentsConfig)


class PartySection(_Closed):
    """One party: who it is, where its people and their consents lie.

    Attributes:
        name: lower-case letters, digits, hyphens.
        role: brand, partner, coordinator or auditor.
        data: the party's table; brand and partners only.
        consent: its consent events, CSV, Parquet or a table; brand and partners only.
        suppression: who must never be in its segments, likewise; partners only.
        segments: where its segments go; partners only.
        declared_rows: a public round figure near the number of its people, and not below it.
        workers: who does its arithmetic; brand and partners only.
        rr22: what it needs for matches over a direct link; brand and partners only.
    """

    name: Name
    role: Role
    data: DataConfig | None = None
    consent: FileOrTable | None = None
    suppression: FileOrTable | None = None
    segments: SegmentsConfig | None = None
    declared_rows: Count | None = None
    workers: WorkersConfig | None = None
    rr22: Rr22Config | None = None

    @field_validator("workers", "rr22")
    @classmethod
    def _has_use_for(cls, means: _Means, info: ValidationInfo) -> _Means:
        role = info.data.get("role")
        if role is not None and role not in DATA_ROLES:
            raise ValueError(f"a {role} computes nothing; remove it")
        return means

    @field_validator("suppression", "segments")
    @classmethod
    def _makes_segments(cls, about: _Segments, info: ValidationInfo) -> _Segments:
        role = info.data.get("role")
        if role is not None and role != Role.PARTNER:
            raise ValueError(f"a {role} makes no segments; remove it")
        return about


class AgreementSection(_Closed):
    """The contract's terms; parties and data sets come from the parties' sections.

    Every key is one of `compliance.agreement.Agreement`, where its unit and range are told.
    """

    title: Line
    purposes: Annotated[
        tuple[Purpose, ...], Field(min_length=1, max_length=64), AfterValidator(unique)
    ]
    features: Annotated[tuple[ColumnTerm, ...], Field(max_length=1_000)]
    match: MatchTerms
    train: TrainTerms
    expand: ExpandTerms
    measure: MeasureTerms | None = None
    erasure: ErasureTerms | None = None
    vertical: VerticalTerms | None = None
    consent: ConsentTerms | None = None
    budget: BudgetTerms
    valid_from: Moment
    valid_until: Moment
    witness_quorum: Annotated[int, Field(strict=True, ge=1, le=MOST_WITNESSES)] | None = None
    retention: Annotated[tuple[RetentionTerm, ...], Field(max_length=64)] = ()
    termination: TerminationTerms | None = None
    dispute: Text = ""
    regions: Annotated[tuple[RegionTerm, ...], Field(max_length=MOST_PARTIES)] = ()
    code_digests: Annotated[tuple[Digest, ...], Field(max_length=64), AfterValidator(unique)] = ()
    approval: ApprovalTerms | None = None
    terms_text: Text = ""


class EvaluateSection(_Closed):
    """A true label that no party trains on: a table with one row per party and record.

    Attributes:
        path: CSV or Parquet file.
        party: column with the party's name.
        record: column with the party's record reference.
        label: column with 1 for true and 0 for false.
    """

    path: Path
    party: str = "party"
    record: str = "record"
    label: str = "label"


class Collaboration(_Closed):
    """A whole collaboration file.

    Attributes:
        version: of this format.
        name: of the collaboration.
        unsafe_seed: makes every key and every noise draw predictable; reproducible trials only.
        parties: everybody who signs.
        agreement: the contract's terms.
        jobs: what to run, in order.
        evaluate: how to judge the outcome, where a true label is known.
    """

    version: Annotated[int, Field(ge=1, le=1)]
    name: Name
    unsafe_seed: Annotated[int, Field(ge=0, le=2**53 - 1)] | None = None
    parties: Annotated[tuple[PartySection, ...], Field(max_length=MOST_PARTIES)]
    agreement: AgreementSection
    jobs: tuple[JobSpec, ...] = ()
    evaluate: EvaluateSection | None = None

    def by_role(self, role: Role) -> tuple[PartySection, ...]:
        """Return the parties of that role, in the file's order."""
        return tuple(party for party in self.parties if party.role is role)


class _Listed(_Closed):
    """One job by itself."""

    job: JobSpec


def load_collaboration(path: Path, *, elsewhere: bool = False) -> Collaboration:
    """Read and check a collaboration file; relative paths in it are taken from its directory.

    1. It is TOML.
    2. Every key is known and well-formed.
    3. The contract's terms agree with each other and with the parties.
    4. The jobs refer to each other in order, and keep within the contract.
    5. The files, tables and columns that it names exist.

    Args:
        path: the file.
        elsewhere: the parties' data lie on other machines, so that step 5 is theirs.

    Raises:
        CollaborationError: with every mistake that could be found. The contract's terms are held
            against each other only where all of them are well-formed.
    """
    document = read_document(path)  # 1
    directory = None if elsewhere else path.parent
    if mistakes := tuple(_mistakes(document, directory)):  # 2, 3, 4, 5
        raise CollaborationError(path, mistakes)
    return _parse(document)


def _parse(document: Mapping[str, Any]) -> Collaboration:
    return Collaboration.model_validate_json(to_json(document), strict=True)


def build_agreement(collaboration: Collaboration, parties: Iterable[PartyTerm]) -> Agreement:
    """Make the contract that the parties sign.

    With `unsafe_seed` the first line of its text says so, for every signer to see.

    Args:
        collaboration: terms and data sets.
        parties: its parties with their keys, in its order.

    Raises:
        InvalidAgreementError: the terms contradict each other.
    """
    terms = collaboration.agreement
    text = terms.terms_text
    if collaboration.unsafe_seed is not None:
        text = f"{_UNSAFE_TERM}\n\n{text}".rstrip()
    return Agreement.from_terms(
        {
            "version": 1,
            "name": collaboration.name,
            "parties": tuple(parties),
            "datasets": [
                DatasetTerm(
                    party=party.name,
                    declared_rows=party.declared_rows,
                    identifiers=tuple(party.data.identifiers),
                    identifiers_per_person=party.data.identifiers_per_person,
                )
                for party in collaboration.parties
                if party.data is not None and party.declared_rows is not None
            ],
            **{name: getattr(terms, name) for name in AgreementSection.model_fields},
            "terms_text": text,
        }
    )


def drafted_agreement(collaboration: Collaboration) -> Agreement:
    """Make the contract with throw-away keys: to look at its terms, never to be signed.

    Raises:
        InvalidAgreementError: the terms contradict each other.
    """

    def term(party: PartySection) -> PartyTerm:
        identity, log, encryption, cosigning = (
            seeded_secret(0, f"draft/{use}/{party.name}")
            for use in ("identity", "log", "encrypt", "cosign")
        )
        origin = f"comity/{party.name}"
        key = DecryptionKey(encryption).public.to_base64()
        return PartyTerm(
            name=party.name,
            role=party.role,
            identity_key=SigningKey.from_seed(identity).public.to_base64(),
            log_key=NoteKey(origin, SigningKey.from_seed(log).public).to_string(),
            encryption_key=key if party.role in DATA_ROLES else None,
            cosigning_key=CosigningKey.from_seed(origin, cosigning).public.to_string(),
        )

    return build_agreement(collaboration, map(term, collaboration.parties))


def read_document(path: Path) -> Mapping[str, Any]:
    """Read a file that a person wrote in TOML.

    Raises:
        CollaborationError: there is none, or it is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise CollaborationError(path, ["there is no such file"]) from error
    except OSError as error:
        raise CollaborationError(path, [f"cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        mistake = f"line {line} is not UTF-8: save the file in that encoding"
        raise CollaborationError(path, [mistake]) from error
    except tomllib.TOMLDecodeError as error:
        told = f"is not TOML: {error}; texts stand in quotes, and dates in none"
        raise CollaborationError(path, [told]) from error


def _mistakes(document: Mapping[str, Any], directory: Path | None) -> Iterator[str]:
    try:
        _parse(document)
    except ValidationError as error:  # 2
        yield from explain(error, Collaboration)
        for index, job in enumerate(_listed(document)):
            yield from (f"jobs[{index}]: {told}" for told in overlooked(job))
    about_parties = list(party_contradictions(document))
    yield from about_parties  # 3
    yield from job_contradictions(document)  # 4
    parts = ("version", "name", "parties", "agreement")
    terms = well_formed(Collaboration, {key: document[key] for key in parts if key in document})
    if terms is not None and not about_parties:
        yield from _contract_mistakes(terms, _listed(document))  # 3, 4
    if directory is None:
        return
    yield from source_contradictions(document, directory)  # 5
    truth = well_formed(EvaluateSection, document.get("evaluate"))
    if truth is not None:
        yield from _truth_mistakes(truth, directory)  # 5


def _listed(document: Mapping[str, Any]) -> list[Any]:
    jobs = document.get("jobs")
    return jobs if isinstance(jobs, list) else []


def _contract_mistakes(collaboration: Collaboration, jobs: list[Any]) -> Iterator[str]:
    match = collaboration.agreement.match
    try:
        recipe_for(match)
    except InvalidParameterError as error:
        yield f"agreement.match.{error}"
    try:
        agreement = drafted_agreement(collaboration)
    except InvalidAgreementError as error:
        for mistake in str(error).removeprefix("agreement: document: ").split("; "):
            told_elsewhere = mistake.startswith(("parties", "datasets"))
            yield mistake if told_elsewhere else f"agreement.{mistake}"
        return
    for index, job in enumerate(jobs):
        listed = well_formed(_Listed, {"job": job})
        for term, remedy in policy_objections(listed.job, agreement) if listed else ():
            key = term.split(".")[1].removeprefix("max_").removeprefix("maximum_")
            yield f"jobs[{index}].{key}: {remedy} (agreement.{term})"


def _truth_mistakes(truth: EvaluateSection, directory: Path) -> Iterator[str]:
    try:
        found = open_connector(FileSource(path=directory / truth.path)).columns()
    except ConnectorError as error:
        yield f"evaluate.path: {error}"
        return
    for key in ("party", "record", "label"):
        if (column := getattr(truth, key)) not in found:
            has = other_spelling([column], found)
            yield f"evaluate.{key}: there is no column {column!r}; {has}"
