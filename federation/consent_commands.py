"""`comity consent`: what people said, recorded and shown.

Guarantees: parses, calls, prints; a withdrawal asks for nothing that giving does not. Leaves to
others: everything else (`compliance.consent`, `consent_reading`).
"""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compliance.consent import ConsentEvent, ConsentEventKind, SeparateConsent

if TYPE_CHECKING:
    from federation.party import PartyFolder

__all__ = ["consent_app"]

consent_app = typer.Typer(
    no_args_is_help=True,
    help="What people said about purposes: record it, show it, check how it was used.\n\n"
    "Example: comity consent show out/demo/retailer R1 lookalike-audiences",
)

PartyArgument = Annotated[Path, typer.Argument(metavar="DIR", help="A party's folder.")]
Subject = Annotated[str, typer.Argument(metavar="SUBJECT", help="The party's own reference.")]
Purpose = Annotated[str, typer.Argument(metavar="PURPOSE", help="What it is about.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]
KeyFile = Annotated[
    Path | None,
    typer.Option("--subject-key", help="32 random bytes of this subject alone, in hexadecimal."),
]


@consent_app.command("give")
def give(
    directory: PartyArgument,
    subject: Subject,
    purpose: Purpose,
    separate: Annotated[
        list[SeparateConsent] | None, typer.Option("--separate", help="A separate consent given.")
    ] = None,
    recipient: Annotated[
        list[str] | None, typer.Option("--recipient", help="Only for this party; may repeat.")
    ] = None,
    expires: Annotated[
        datetime | None, typer.Option("--expires", help="In UTC.", formats=["%Y-%m-%dT%H:%M:%S"])
    ] = None,
    subject_key: KeyFile = None,
    as_json: JsonFlag = False,
) -> None:
    """Record that a person consents.

    Example: comity consent give out/demo/retailer R1 lookalike-audiences
    """
    event = ConsentEvent(
        subject,
        purpose,
        ConsentEventKind.GIVEN,
        datetime.now(UTC),
        frozenset(separate or ()),
        frozenset(recipient) if recipient else None,
        expires and expires.replace(tzinfo=UTC),
    )
    _record(directory, event, subject_key, as_json=as_json)


@consent_app.command("withdraw")
def withdraw(
    directory: PartyArgument,
    subject: Subject,
    purpose: Purpose,
    subject_key: KeyFile = None,
    as_json: JsonFlag = False,
) -> None:
    """Record that a person withdraws; it holds from the next use on.

    Example: comity consent withdraw out/demo/retailer R1 lookalike-audiences
    """
    event = ConsentEvent(subject, purpose, ConsentEventKind.WITHDRAWN, datetime.now(UTC))
    _record(directory, event, subject_key, as_json=as_json)


@consent_app.command("show")
def show(
    directory: PartyArgument, subject: Subject, purpose: Purpose, as_json: JsonFlag = False
) -> None:
    """Say whether a person may be used for a purpose now. Exit code 1 if not.

    Example: comity consent show out/demo/retailer R1 lookalike-audiences
    """
    from compliance.consent import ConsentBook
    from federation.consent_reading import ConsentReading
    from federation.party import PartyFolder

    folder = PartyFolder(directory)
    agreement, file = folder.agreement(), _file(folder)
    reading = ConsentReading(file, agreement.purposes, agreement=agreement, party=folder.name)
    names = [party.name for party in agreement.parties]
    book = ConsentBook.load(file, purposes=agreement.purposes, recipients=names)
    decision = book.decide(
        [subject],  # type: ignore[arg-type]
        purpose=purpose,
        at=datetime.now(UTC),
        conditions=reading.conditions(purpose),
    )
    reasons = [reason.value for reason, count in decision.excluded.items() if count]
    allowed = not reasons
    _tell({"allowed": allowed, "reason": None if allowed else reasons[0]}, as_json=as_json)
    if not allowed:
        raise typer.Exit(1)


@consent_app.command("check")
def check(
    directory: PartyArgument,
    job: Annotated[str, typer.Argument(metavar="JOB", help="A match that ran.")],
    as_json: JsonFlag = False,
) -> None:
    """Fold consents again as they were when a job used them, and hold them against its leaves.

    Example: comity consent check out/demo/retailer find-seeds
    """
    from compliance.errors import ConsentError
    from compliance.log.verifier import verify_log
    from compliance.records import ConsentUsed, parse_leaf
    from federation.consent_reading import ConsentReading
    from federation.members import load_people
    from federation.party import PartyFolder
    from federation.shelves import scratch

    folder = PartyFolder(directory)
    agreement = folder.agreement()
    entries = verify_log(folder.log, verification_key=agreement.party(folder.name).log_key).entries
    leaves = [
        leaf
        for leaf in map(parse_leaf, entries)
        if isinstance(leaf, ConsentUsed) and leaf.job == job
    ]
    if not leaves:
        raise ConsentError(f"the log of {folder.name} tells of no use of consents in job {job!r}")
    reading = ConsentReading(
        _file(folder), agreement.purposes, agreement=agreement, party=folder.name
    )
    people, key = load_people(folder.job(job) / "people").keys, folder.cohort_key(agreement.digest)
    for leaf in leaves:
        with scratch(folder.job(job) / "check.tmp") as beside:
            reading.check_cohort(leaf, people, key, beside)
    _tell({"job": job, "leaves": len(leaves), "people": len(people)}, as_json=as_json)


def _file(folder: "PartyFolder") -> Path:
    from federation.errors import WorkspaceError

    if folder.config.consent is None:
        raise WorkspaceError(f"{folder.path} keeps no consents: name a file in party.json")
    return folder.resolve(folder.config.consent)


def _record(directory: Path, event: ConsentEvent, key_file: Path | None, *, as_json: bool) -> None:
    """Append an event, and where its subject's key is given a leaf that commits to it."""
    from compliance import records
    from compliance.consent import ConsentJournal, commitment
    from compliance.errors import UnknownPurposeError
    from federation.party import PartyFolder, locked

    folder = PartyFolder(directory)
    agreement = folder.agreement()
    if event.purpose not in agreement.purposes:
        known = ", ".join(agreement.purposes)
        raise UnknownPurposeError(f"the agreement declares {known}, got another purpose")
    key = None if key_file is None else _key(key_file)
    with locked(folder):
        sequence = ConsentJournal(_file(folder)).append(event)
        if key is not None:
            leaf = records.ConsentRecorded(
                time=event.time,
                party=folder.name,
                agreement=agreement.digest,
                sequence=sequence,
                event=event.event.value,
                purpose=event.purpose,
                commitment=commitment(key, event),
            )
            with folder.open_log() as log:
                log.append([records.to_leaf(leaf)])
    _tell({"event": event.event.value, "sequence": sequence}, as_json=as_json)


def _key(file: Path) -> bytes:
    from federation.errors import WorkspaceError

    try:
        key = bytes.fromhex(file.read_text(encoding="ascii"))
    except (ValueError, OSError):
        key = b""
    if len(key) != 32:
        raise WorkspaceError(f"{file}: expected 32 bytes in hexadecimal")
    return key


def _tell(told: dict[str, Any], *, as_json: bool) -> None:
    lines = "\n".join(f"{name}: {value}" for name, value in told.items())
    sys.stdout.write((json.dumps(told) if as_json else lines) + "\n")
