"""`comity consent`: what people said, recorded and shown.

Guarantees: parses, calls, prints; a withdrawal asks for nothing that giving does not. Leaves to
others: everything else (`compliance.consent`, `consent_reading`, `consent_recording`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from compliance.terms.consent import SeparateConsent
from federation.terminal import JsonFlag, answer, counted, err, print_json

if TYPE_CHECKING:
    from compliance.consent import ConsentEvent, ConsentEventKind
    from connectors import SqlSource
    from federation.consent_recording import ConsentRecording
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
Separate = Annotated[
    list[SeparateConsent] | None, typer.Option("--separate", help="A separate consent given.")
]
Recipients = Annotated[
    list[str] | None, typer.Option("--recipient", help="Only for this party; may repeat.")
]
Expires = Annotated[
    datetime | None,
    typer.Option("--expires", help="When it ends, in UTC.", formats=["%Y-%m-%dT%H:%M:%S"]),
]
Notice = Annotated[Path, typer.Option("--notice", help="What they were told, in JSON.")]


_WHY_NOT: Final = {
    "no_record": "no event names the person",
    "wrong_purpose": "they spoke of other purposes only",
    "refused": "their last word is a refusal",
    "withdrawn": "they withdrew",
    "objected": "they objected to personalisation",
    "expired": "their consent has ended",
    "wrong_recipient": "their consent does not name everybody who would be told",
    "missing_separate_consent": "a separate consent that is needed was not given",
    "over_contact_cap": "they were contacted too often of late",
}
"""`ExclusionReason` in words."""


class Vocabulary(StrEnum):
    """Whose words a record is exported in."""

    KANTARA = "kantara"
    DPV = "dpv"


@consent_app.command("give")
def give(
    directory: PartyArgument,
    subject: Subject,
    purpose: Purpose,
    separate: Separate = None,
    recipient: Recipients = None,
    expires: Expires = None,
    as_json: JsonFlag = False,
) -> None:
    """Record that a person consents.

    Example: comity consent give out/demo/retailer R1 lookalike-audiences
    """
    from compliance.consent import ConsentEventKind

    kind = ConsentEventKind.GIVEN
    _record(directory, _yes(subject, purpose, kind, separate, recipient, expires), as_json)


@consent_app.command("reconfirm")
def reconfirm(
    directory: PartyArgument,
    subject: Subject,
    purpose: Purpose,
    separate: Separate = None,
    recipient: Recipients = None,
    expires: Expires = None,
    as_json: JsonFlag = False,
) -> None:
    """Record that a person says yes again, to what is named in full; it undoes no withdrawal.

    Example: comity consent reconfirm out/demo/retailer R1 lookalike-audiences
    """
    from compliance.consent import ConsentEventKind

    kind = ConsentEventKind.RECONFIRMED
    _record(directory, _yes(subject, purpose, kind, separate, recipient, expires), as_json)


@consent_app.command("withdraw")
def withdraw(
    directory: PartyArgument, subject: Subject, purpose: Purpose, as_json: JsonFlag = False
) -> None:
    """Record that a person withdraws; it holds from the next use on.

    Example: comity consent withdraw out/demo/retailer R1 lookalike-audiences
    """
    _no(directory, subject, purpose, "withdrawn", as_json)


@consent_app.command("refuse")
def refuse(
    directory: PartyArgument, subject: Subject, purpose: Purpose, as_json: JsonFlag = False
) -> None:
    """Record that a person refuses.

    Example: comity consent refuse out/demo/retailer R1 lookalike-audiences
    """
    _no(directory, subject, purpose, "refused", as_json)


@consent_app.command("object")
def object_(
    directory: PartyArgument, subject: Subject, purpose: Purpose, as_json: JsonFlag = False
) -> None:
    """Record that a person objects to personalisation.

    Example: comity consent object out/demo/retailer R1 lookalike-audiences
    """
    _no(directory, subject, purpose, "objected", as_json)


@consent_app.command("import")
def import_(
    directory: PartyArgument,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="The file or table in use where left out.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Bring consents into the party's journal, which is begun where there is none.

    Example: comity consent import out/demo/retailer
    """
    with _recording(directory) as recording:
        rows = recording.bring(file)
    answer({"rows": rows}, f"the journal has {counted(rows, 'event')}", as_json=as_json)


@consent_app.command("receipt")
def receipt(directory: PartyArgument, subject: Subject, purpose: Purpose, notice: Notice) -> None:
    """Print what a person gets: the notice, and all that they said (ISO/IEC TS 27560).

    Example: comity consent receipt out/demo/retailer R1 lookalike-audiences --notice notice.json
    """
    from compliance.consent.record import ConsentReceipt
    from federation.consent_recording import record_of

    record = record_of(directory, subject, purpose, notice)
    print_json(ConsentReceipt.of(record, datetime.now(UTC)))


@consent_app.command("export")
def export(
    directory: PartyArgument,
    subject: Subject,
    purpose: Purpose,
    notice: Notice,
    vocabulary: Annotated[Vocabulary, typer.Option("--as", help="Whose words.")] = Vocabulary.DPV,
) -> None:
    """Print a person's record in the words of DPV (JSON-LD) or of Kantara's receipt v1.1.

    Example: comity consent export out/demo/retailer R1 lookalike-audiences --notice notice.json
    """
    from compliance.consent.exports import to_dpv, to_kantara
    from federation.consent_recording import record_of

    write = {Vocabulary.DPV: to_dpv, Vocabulary.KANTARA: to_kantara}[vocabulary]
    record = record_of(directory, subject, purpose, notice)
    print_json(write(record))


@consent_app.command("show")
def show(
    directory: PartyArgument, subject: Subject, purpose: Purpose, as_json: JsonFlag = False
) -> None:
    """Say whether a person may be used for a purpose now. Exit code 1 if not, 2 if nobody could.

    Example: comity consent show out/demo/retailer R1 lookalike-audiences
    """
    from federation.consent_intake import other_purpose
    from federation.consent_reading import ConsentReading
    from federation.party import PartyFolder

    folder = PartyFolder(directory)
    agreement, place = folder.agreement(), _place(folder)
    if purpose not in agreement.purposes:
        raise typer.BadParameter(other_purpose(agreement))
    reading = ConsentReading(place, agreement.purposes, agreement=agreement, party=folder.name)
    decision = reading.said_by([subject], folder.path).decide(
        [subject],  # type: ignore[arg-type]
        purpose=purpose,
        at=datetime.now(UTC),
        conditions=reading.conditions(purpose),
    )
    reasons = [reason for reason, count in decision.excluded.items() if count]
    allowed = not reasons
    document = {"allowed": allowed, "reason": None if allowed else reasons[0]}
    told = f"may be used for {purpose} now"
    if not allowed:
        told = f"may not be used for {purpose} now: {_WHY_NOT[reasons[0]]} ({reasons[0]})"
    answer(document, told, as_json=as_json)
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
    from compliance.records import ConsentUsed
    from federation.consent_reading import ConsentReading
    from federation.log_reading import own_leaves
    from federation.members import load_people
    from federation.party import PartyFolder
    from federation.shelves import scratch_of_several

    folder = PartyFolder(directory)
    agreement = folder.agreement()
    leaves = [
        leaf
        for leaf in own_leaves(folder, agreement)
        if isinstance(leaf, ConsentUsed) and leaf.job == job
    ]
    if not leaves:
        raise ConsentError(f"the log of {folder.name} tells of no use of consents in job {job!r}")
    reading = ConsentReading(
        _place(folder), agreement.purposes, agreement=agreement, party=folder.name
    )
    people, key = load_people(folder.job(job) / "people").keys, folder.cohort_key(agreement.digest)
    for leaf in leaves:
        with scratch_of_several(folder.job(job) / "check.tmp") as beside:
            reading.check_cohort(leaf, people, key, beside)
    answer(
        {"job": job, "leaves": len(leaves), "people": len(people)},
        f"{job}: {counted(len(leaves), 'use')} of consents held, with {len(people):,} people known",
        as_json=as_json,
    )


def _place(folder: "PartyFolder") -> "Path | SqlSource":
    from federation.errors import WorkspaceError

    if (place := folder.consents) is None:
        raise WorkspaceError(
            f"{folder.path} keeps no consents: name a file or a table in party.json"
        )
    return place


def _yes(
    subject: str,
    purpose: str,
    kind: "ConsentEventKind",
    separate: list[SeparateConsent] | None,
    recipient: list[str] | None,
    expires: datetime | None,
) -> "ConsentEvent":
    from compliance.consent import ConsentEvent

    return ConsentEvent(
        subject,
        purpose,
        kind,
        datetime.now(UTC),
        frozenset(separate or ()),
        frozenset(recipient) if recipient else None,
        expires and expires.replace(tzinfo=UTC),
    )


def _no(directory: Path, subject: str, purpose: str, kind: str, as_json: bool) -> None:
    from compliance.consent import ConsentEvent, ConsentEventKind

    event = ConsentEvent(subject, purpose, ConsentEventKind(kind), datetime.now(UTC))
    _record(directory, event, as_json)


@contextmanager
def _recording(directory: Path) -> "Iterator[ConsentRecording]":
    from federation.consent_recording import ConsentRecording
    from federation.holding import held

    with held(directory) as at:
        yield ConsentRecording(at.folder, at.agreement, at.gate.note)


def _record(directory: Path, event: "ConsentEvent", as_json: bool) -> None:
    with _recording(directory) as recording:
        sequence = recording.record(event)
    _warn_of_nobody(directory, event.subject)
    document = {"event": event.event.value, "sequence": sequence}
    told = f"recorded: {event.event} for {event.purpose}, event {sequence} of the journal"
    answer(document, told, as_json=as_json)


def _warn_of_nobody(directory: Path, subject: str) -> None:
    """Say so where no row of the table has the reference: it may be misspelt, or yet to come."""
    from connectors.errors import ConnectorError
    from federation.party import PartyFolder
    from federation.population import has_row

    folder = PartyFolder(directory)
    if (data := folder.config.data) is None:
        return
    try:
        if not has_row(data, folder.path, subject):
            err.print(
                "no row of the party's table has that reference; it was recorded all the same"
            )
    except ConnectorError:
        err.print("the party's table could not be read to look for the row; it was recorded")
