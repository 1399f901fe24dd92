"""The collaboration file: parties, contract and jobs of one collaboration, in one TOML document.

Guarantees: `load_collaboration` returns a document without contradictions, or reports every
mistake at once, each with its key, what was found and what is allowed; files and columns that it
names exist at that moment. Every key is described in `docs/collaboration-file.md`.

Leaves to others: making folders, keys and signatures from it (`workspace`).
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from compliance.agreement import Agreement
from compliance.errors import ComplianceError, InvalidAgreementError
from compliance.log.note import NoteKey
from compliance.signing import SigningKey, VerifyingKey
from compliance.terms import (
    BudgetTerms,
    ColumnTerm,
    DatasetTerm,
    ExpandTerms,
    MatchTerms,
    PartyTerm,
    Role,
    TrainTerms,
)
from connectors.errors import ConnectorError
from federation.errors import CollaborationError
from federation.jobs.specification import (
    JobSpec,
    MatchSpec,
    TrainSpec,
    policy_objections,
)
from federation.party import DataConfig
from federation.population import open_source
from privacy.randomness import seeded_secret

__all__ = [
    "AgreementSection",
    "Collaboration",
    "EvaluateSection",
    "PartySection",
    "build_agreement",
    "drafted_agreement",
    "load_collaboration",
]

PEOPLE: Final = (Role.BRAND, Role.PARTNER)
NAME = r"^[a-z][a-z0-9-]{0,62}$"


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PartySection(_Closed):
    """One party: who it is, where its people and their consents lie.

    Attributes:
        name: lower-case letters, digits, hyphens.
        role: brand, partner, coordinator or auditor.
        data: the party's table; brand and partners only.
        consent: its consent events, CSV or Parquet; brand and partners only.
        declared_rows: a public round figure near the number of its people.
    """

    name: Annotated[str, Field(pattern=NAME)]
    role: Role
    data: DataConfig | None = None
    consent: Path | None = None
    declared_rows: Annotated[int, Field(ge=1)] | None = None


class AgreementSection(_Closed):
    """The contract's terms; parties and data sets come from the parties' sections."""

    title: str
    purposes: tuple[str, ...]
    features: tuple[ColumnTerm, ...]
    match: MatchTerms
    train: TrainTerms
    expand: ExpandTerms
    budget: BudgetTerms
    valid_from: AwareDatetime
    valid_until: AwareDatetime
    terms_text: str = ""


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
    name: Annotated[str, Field(pattern=NAME)]
    unsafe_seed: int | None = None
    parties: tuple[PartySection, ...]
    agreement: AgreementSection
    jobs: tuple[JobSpec, ...] = ()
    evaluate: EvaluateSection | None = None

    def by_role(self, role: Role) -> tuple[PartySection, ...]:
        """Return the parties of that role, in the file's order."""
        return tuple(party for party in self.parties if party.role is role)


def load_collaboration(path: Path) -> Collaboration:
    """Read and check a collaboration file; relative paths in it are taken from its directory.

    1. It is TOML.
    2. Every key is known and well-formed.
    3. The contract's terms agree with each other and with the parties.
    4. The jobs refer to each other in order, and keep within the contract.
    5. The files, tables and columns that it names exist.

    Raises:
        CollaborationError: with every mistake that could be found; 3, 4 and 5 are looked at only
            where 2 holds.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))  # 1
    except FileNotFoundError as error:
        raise CollaborationError(path, ["there is no such file"]) from error
    except OSError as error:
        raise CollaborationError(path, [f"cannot be read: {error.strerror}"]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CollaborationError(path, [f"is not TOML: {error}"]) from error
    try:
        collaboration = Collaboration.model_validate(document)  # 2
    except ValidationError as error:
        raise CollaborationError(path, [_line(details) for details in error.errors()]) from error
    mistakes = [
        *_contract_mistakes(collaboration),  # 3, 4
        *_job_mistakes(collaboration.jobs),  # 4
        *_source_mistakes(collaboration, path.parent),  # 5
    ]
    if mistakes:
        raise CollaborationError(path, mistakes)
    return collaboration


def build_agreement(
    collaboration: Collaboration, keys: Mapping[str, tuple[VerifyingKey, NoteKey]]
) -> Agreement:
    """Make the contract that the parties sign.

    Args:
        collaboration: terms, parties and data sets.
        keys: identity key and log key of every party, by name.

    Raises:
        InvalidAgreementError: the terms contradict each other.
    """
    terms = collaboration.agreement
    return Agreement.from_terms(
        {
            "version": 1,
            "name": collaboration.name,
            "parties": [
                PartyTerm(
                    name=party.name,
                    role=party.role,
                    identity_key=keys[party.name][0].to_base64(),
                    log_key=keys[party.name][1].to_string(),
                )
                for party in collaboration.parties
            ],
            "datasets": [
                DatasetTerm(
                    party=party.name,
                    declared_rows=party.declared_rows,
                    identifiers=tuple(party.data.identifiers),
                )
                for party in collaboration.parties
                if party.data is not None and party.declared_rows is not None
            ],
            **{name: getattr(terms, name) for name in AgreementSection.model_fields},
        }
    )


def drafted_agreement(collaboration: Collaboration) -> Agreement:
    """Make the contract with throw-away keys: to look at its terms, never to be signed.

    Raises:
        InvalidAgreementError: the terms contradict each other.
    """

    def keys(name: str) -> tuple[VerifyingKey, NoteKey]:
        identity, log = (
            SigningKey.from_seed(seeded_secret(0, f"draft/{use}/{name}")).public
            for use in ("identity", "log")
        )
        return identity, NoteKey(f"comity/{name}", log)

    return build_agreement(
        collaboration, {party.name: keys(party.name) for party in collaboration.parties}
    )


def _line(details: ErrorDetails) -> str:
    key = ""
    for part in details["loc"]:
        key += f"[{part}]" if isinstance(part, int) else f".{part}"
    key = key.lstrip(".") or "the file"
    found, problem = details.get("input"), details["msg"]
    match details["type"]:
        case "missing":
            return f"{key}: is missing; add it"
        case "extra_forbidden":
            return f"{key}: is not a known key; remove it, or see docs/collaboration-file.md"
        case "terms" | "value_error":
            return f"{key}: {problem}"
        case _ if isinstance(found, str | int | float | bool | datetime):
            return f"{key}: found {found!r}; {problem[0].lower()}{problem[1:]}"
        case _:
            return f"{key}: found a {type(found).__name__}; {problem[0].lower()}{problem[1:]}"


def _contract_mistakes(collaboration: Collaboration) -> Iterator[str]:
    for index, party in enumerate(collaboration.parties):
        needs = party.role in PEOPLE
        for name in ("data", "consent", "declared_rows"):
            present = getattr(party, name) is not None
            if needs and not present:
                yield f"parties[{index}].{name}: is missing; a {party.role} brings its people"
            if present and not needs:
                yield f"parties[{index}].{name}: a {party.role} brings no people; remove it"
        if party.data and party.data.seeds and party.role is not Role.BRAND:
            yield f"parties[{index}].data.seeds: only the brand has seeds; {party.name} is no brand"
        agreed = {term.name for term in collaboration.agreement.features}
        if party.data and (unknown := sorted(set(party.data.features) - agreed)):
            yield (
                f"parties[{index}].data.features: {', '.join(unknown)} are not among "
                "agreement.features"
            )
    try:
        agreement = drafted_agreement(collaboration)
    except (InvalidAgreementError, ComplianceError) as error:
        yield from (f"agreement: {part}" for part in str(error).split("; "))
        return
    for index, spec in enumerate(collaboration.jobs):
        for term, remedy in policy_objections(spec, agreement):
            yield f"jobs[{index}]: refused by agreement.{term}: {remedy}"


def _job_mistakes(jobs: Sequence[JobSpec]) -> Iterator[str]:
    before: dict[str, type] = {}
    for index, spec in enumerate(jobs):
        if spec.name in before:
            yield f"jobs[{index}].name: {spec.name!r} is taken by an earlier job"
        for key, kind in (("match", MatchSpec), ("train", TrainSpec)):
            if isinstance(spec, MatchSpec) or (key == "match") != isinstance(spec, TrainSpec):
                continue
            wanted = spec.match if isinstance(spec, TrainSpec) else spec.train
            if before.get(wanted) is not kind:
                yield (
                    f"jobs[{index}].{key}: found {wanted!r}, which is no {key} job listed before; "
                    f"allowed: {_names(name for name, had in before.items() if had is kind)}"
                )
        before[spec.name] = type(spec)


def _source_mistakes(collaboration: Collaboration, directory: Path) -> Iterator[str]:
    features = [term.name for term in collaboration.agreement.features]
    for index, party in enumerate(collaboration.parties):
        if party.consent is not None and not (directory / party.consent).is_file():
            yield f"parties[{index}].consent: there is no file {directory / party.consent}"
        if party.data is None:
            continue
        data = party.data
        named = {"key": data.key} | {
            f"identifiers.{kind}": column for kind, column in data.identifiers.items()
        }
        if data.seeds is not None:
            named["seeds.column"] = data.seeds.column
        if party.role is Role.PARTNER:
            named |= {f"features.{name}": data.features.get(name, name) for name in features}
        try:
            found = open_source(data, directory).columns()
        except ConnectorError as error:
            yield f"parties[{index}].data: {error}"
            continue
        for key, column in named.items():
            if column not in found:
                yield (
                    f"parties[{index}].data.{key}: {party.name} has no column {column!r}; "
                    f"it has {', '.join(found)}"
                )
    truth = collaboration.evaluate
    if truth is not None and not (directory / truth.path).is_file():
        yield f"evaluate.path: there is no file {directory / truth.path}"


def _names(names: Iterator[str]) -> str:
    return ", ".join(repr(name) for name in names) or "none, since there is none"
