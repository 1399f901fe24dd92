"""`comity erase`: take a request to erase somebody, carry it out, spread it, show that it was done.

Guarantees: an identifier is read from standard input, so that it is in no list of processes and no
shell's history; none is printed. Leaves to others: everything else (`erasing`).
"""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from federation.terminal import JsonFlag, answer, err, print_json

if TYPE_CHECKING:
    from federation.erasing import Erasing, Kept
    from federation.followed import Followed

__all__ = ["erase_app"]

erase_app = typer.Typer(
    no_args_is_help=True,
    help="Requests to erase a person at a party.\n\nExample: comity erase status out/demo/retailer",
)

PartyFolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="A party's folder.")]
WorkspaceArgument = Annotated[
    Path, typer.Argument(metavar="WORKSPACE", help="A folder with one folder for every party.")
]

_LONGEST = 4096


@erase_app.command("request")
def request(
    directory: PartyFolderArgument,
    kind: Annotated[str, typer.Option("--kind", help="What is read: email or phone.")] = "email",
    as_json: JsonFlag = False,
) -> None:
    """Take a request to erase whoever has the identifier on standard input.

    From here on no job uses them. The same identifier gives the same request again,
    until it is carried out here; then a new one, which looks for them again everywhere.

    Example: comity erase request out/demo/retailer --kind email < address.txt
    """
    if sys.stdin.isatty():
        sys.stderr.write(f"type the {kind} of whoever asks, Enter, and Ctrl-D\n")
    value = sys.stdin.read(_LONGEST + 1)
    if len(value) > _LONGEST:
        raise typer.BadParameter(f"expected at most {_LONGEST} characters on standard input")
    if not value.strip():
        raise typer.BadParameter(f"nothing came on standard input: expected one {kind}")
    with _erasing(directory) as (erasing, followed):
        told = _told([erasing.request(kind, value)], followed)
    _write(told, as_json)  # once the folder's copy, if any, has it


@erase_app.command("status")
def status(directory: PartyFolderArgument, as_json: JsonFlag = False) -> None:
    """List all requests of a party, how far each has come, and where it stands at other parties.

    Example: comity erase status out/demo/retailer
    """
    with _erasing(directory) as (erasing, followed):
        told = _told(erasing.status(), followed)
    _write(told, as_json)


@erase_app.command("run")
def run(directory: PartyFolderArgument, as_json: JsonFlag = False) -> None:
    """Carry out all requests of a party; erase again whom a later import brought back.

    Example: comity erase run out/demo/retailer
    """
    from federation.progress import Progress, report
    from federation.watch import watched

    with watched():
        report(Progress(directory.name, "erase", "opens its folder, and looks for people"))
        _run(directory, as_json)


def _run(directory: Path, as_json: bool) -> None:
    with _erasing(directory) as (erasing, followed):
        done = erasing.run()
        followed.settle(done)
        told = _told(done, followed)
    _write(told, as_json)


@erase_app.command("spread")
def spread(workspace: WorkspaceArgument, as_json: JsonFlag = False) -> None:
    """Have the parties of a workspace on this machine ask each other, carry out, and tell.

    No job is run. Deployed parties do the same at every run of the coordinator.

    Example: comity erase spread out/demo
    """
    from federation.embedded import spread_embedded
    from federation.trial.workspace import folders_in
    from federation.watch import watched

    coordinator, people = folders_in(workspace)
    with watched():
        spread_embedded(coordinator.path, [folder.path for folder in people])
    told: list[dict[str, object]] = []
    for folder in people:
        with _erasing(folder.path) as (erasing, followed):
            told += [{"party": folder.name} | one for one in _told(erasing.status(), followed)]
    _write(told, as_json)


@erase_app.command("receipt")
def receipt(
    directory: PartyFolderArgument,
    name: Annotated[str, typer.Argument(metavar="REQUEST", help="As `status` lists it.")],
    outcomes: Annotated[
        bool, typer.Option("--outcomes", help="What was done where, for an auditor's eyes.")
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print all that is known: other parties' completions too."),
    ] = False,
) -> None:
    """Print the signed completion of a request, which tells nobody whether the person was held.

    It is made to be kept and checked; --outcomes is what people read.

    Example: comity erase receipt out/demo/retailer rq-4d0f… --outcomes
    """
    with _erasing(directory) as (erasing, followed):
        signed, opened = erasing.receipt(name)
        theirs = followed.receipts(name)
    if as_json:
        told: dict[str, object] = {"request": name, "completion": json.loads(signed)}
        told["peers"] = {peer: json.loads(one) for peer, one in theirs.items()}
        if outcomes:
            told["outcomes"] = opened
        print_json(told)
    elif outcomes:
        print_json(opened)
    else:
        err.print(
            "signed, to be kept and checked; --outcomes prints what was done where, to be read"
        )
        sys.stdout.write(f"{signed.decode()}\n")


@contextmanager
def _erasing(directory: Path) -> "Iterator[tuple[Erasing, Followed]]":
    from federation.clock import utc_now
    from federation.erasing import Erasing
    from federation.followed import Followed
    from federation.holding import held

    with held(directory) as at:
        known = at.folder, at.agreement, at.gate
        yield Erasing(*known, clock=utc_now), Followed(*known, clock=utc_now)


def _told(kept: "Sequence[Kept]", followed: "Followed") -> list[dict[str, object]]:
    """Say how far requests have come, here and at each party that they went on to."""
    at = {peer: {one.request: one for one in followed.at(peer)} for peer in followed.peers}

    def peers(one: "Kept") -> list[dict[str, object]]:
        found = [(peer, at.get(peer, {}).get(one.execution.request)) for peer in one.peers]
        return [
            {
                "peer": peer,
                "state": "queued" if following is None else following.state,
                "escalated": following is not None and following.is_escalated,
                "sent": 0 if following is None else following.sent,
            }
            for peer, following in found
        ]

    return [
        {
            "request": one.execution.request,
            "standing": one.execution.standing,
            "asked": f"{one.asked:%Y-%m-%d}",
            "deadline": f"{one.execution.deadline:%Y-%m-%d}",
            "pending": len(one.execution.pending),
            "origin": one.origin,
            "peers": peers(one),
        }
        for one in kept
    ]


def _write(told: list[dict[str, object]], as_json: bool) -> None:
    lines = [] if told else ["nobody has asked to be erased"]
    for one in told:
        party = f"{one['party']}  " if "party" in one else ""
        asked = f", asked at {one['origin']}" if one["origin"] else ""
        lines.append(f"{party}{one['request']}  {one['standing']}, by {one['deadline']}{asked}")
        for peer in cast("list[dict[str, object]]", one["peers"]):
            late = ", escalated" if peer["escalated"] else ""
            lines.append(f"  {peer['peer']}  {peer['state']}{late}")
    answer(told, *lines, as_json=as_json)
