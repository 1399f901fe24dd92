"""`comity retention`: what a party keeps and how long, deleting what is due, holds.

Guarantees: parses, calls, prints. Leaves to others: everything else (`retaining`).
"""

import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from compliance.agreement import iso
from compliance.terms import Artefact
from federation.terminal import JsonFlag, answer, err

if TYPE_CHECKING:
    from compliance.retention import Standing
    from federation.retaining import Retained

__all__ = ["retention_app"]

retention_app = typer.Typer(
    no_args_is_help=True,
    help="How long a party keeps what came of people's data.\n\n"
    "Example: comity retention status out/demo/retailer",
)

PartyFolderArgument = Annotated[
    Path, typer.Argument(metavar="PARTY_FOLDER", help="A party's folder.")
]
HoldOption = Annotated[str, typer.Option("--hold", help="Its name, used once.")]


@retention_app.command("status")
def status(directory: PartyFolderArgument, as_json: JsonFlag = False) -> None:
    """Say what a party keeps, until when, and what is held. Nothing is changed.

    Example: comity retention status out/demo/retailer
    """
    from federation import retaining
    from federation.clock import utc_now
    from federation.party import PartyFolder

    _print(retaining.status(PartyFolder(directory), now=utc_now()), as_json=as_json)


@retention_app.command("run")
def run(
    directory: PartyFolderArgument,
    every: Annotated[
        float | None,
        typer.Option("--every", min=1, help="Go on, and run again after so many minutes."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Delete what is due, and log it. Exit code 1 if the clock leapt ahead: run again to confirm.

    Example: comity retention run out/demo/retailer
    """
    from federation import retaining
    from federation.clock import utc_now
    from federation.party import PartyFolder

    signal.signal(signal.SIGTERM, _end)
    folder = PartyFolder(directory)
    while True:
        done = retaining.run(folder, now=utc_now())
        _print(done, as_json=as_json)
        if every is None:
            break
        sys.stdout.flush()
        time.sleep(60 * every)
    if done.mark.claimed is not None:
        raise typer.Exit(1)


def _end(*_: object) -> NoReturn:
    err.print("retention ends, as it was told to: what is due goes at the next run")
    raise SystemExit(128 + signal.SIGTERM)


@retention_app.command("hold")
def hold(
    directory: PartyFolderArgument,
    name: HoldOption,
    artefact: Annotated[Artefact, typer.Option("--artefact", help="The kind that is kept.")],
    reason: Annotated[str, typer.Option("--reason", help="Why, in one line.")],
    job: Annotated[
        str | None,
        typer.Option("--job", help="The job that made it; all of the kind if left out."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Keep artefacts though their time comes, until the hold is lifted.

    Example: comity retention hold out/demo/retailer --hold case-12 --artefact model
    --reason "a court asked for it"
    """
    from compliance.retention import Hold
    from federation import retaining
    from federation.clock import utc_now
    from federation.party import PartyFolder

    folder = PartyFolder(directory)
    retaining.place(folder, Hold.of(name, artefact, reason, name=job), now=utc_now())
    _print(retaining.status(folder, now=utc_now()), as_json=as_json)


@retention_app.command("lift")
def lift(directory: PartyFolderArgument, name: HoldOption, as_json: JsonFlag = False) -> None:
    """End a hold; what is due then goes at the next run.

    Example: comity retention lift out/demo/retailer --hold case-12
    """
    from federation import retaining
    from federation.clock import utc_now
    from federation.party import PartyFolder

    folder = PartyFolder(directory)
    retaining.lift(folder, name, now=utc_now())
    _print(retaining.status(folder, now=utc_now()), as_json=as_json)


def _print(found: "Retained", *, as_json: bool) -> None:
    lines = [_told(one) for one in found.standings]
    lines += [
        f"deleted: {gone.artefact} {gone.name}, due {iso(gone.due)} ({gone.days} days)"
        for gone in found.deleted
    ]
    lines += [f"retired: model {model}, not trained again by its day" for model in found.retired]
    lines += [
        f"hold {held.hold}: {held.artefact} {held.name or '(all)'}: {held.reason}"
        for held in found.holds
    ]
    if not (found.standings or found.deleted):
        lines.append("nothing is kept")
    if found.mark.claimed is not None:
        lines.append(
            f"the clock says {iso(found.mark.claimed)}, far ahead of {iso(found.mark.moment)}, the "
            "last that was believed: set it right, or run once more to confirm it"
        )
    answer(_plain(found), *lines, as_json=as_json)


def _told(one: "Standing") -> str:
    until = "" if one.due is None or one.term is None else f" until {iso(one.due)}"
    basis = "" if one.term is None else f" ({one.term.days} days: {one.term.basis})"
    held = f"; held by {', '.join(one.holds)}" if one.holds else ""
    return f"{one.state}: {one.kept.artefact} {one.kept.name}{until}{basis}{held}"


def _plain(found: "Retained") -> dict[str, object]:
    return {
        "party": found.party,
        "moment": iso(found.mark.moment),
        "claimed": found.mark.claimed and iso(found.mark.claimed),
        "artefacts": [
            {
                "artefact": one.kept.artefact,
                "name": one.kept.name,
                "purpose": one.kept.purpose,
                "created": iso(one.kept.created),
                "state": one.state,
                "due": one.due and iso(one.due),
                "days": one.term and one.term.days,
                "basis": one.term and one.term.basis,
                "holds": list(one.holds),
            }
            for one in found.standings
        ],
        "deleted": [gone.model_dump(mode="json", exclude={"told"}) for gone in found.deleted],
        "holds": [held.model_dump(mode="json") for held in found.holds],
        "retired": list(found.retired),
    }
