"""`comity erase`: take a request to erase somebody, carry it out, and show that it was done.

Guarantees: an identifier is read from standard input, so that it is in no list of processes and no
shell's history; none is printed. Leaves to others: everything else (`erasing`).
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from federation.erasing import Erasing, Kept

__all__ = ["erase_app"]

erase_app = typer.Typer(
    no_args_is_help=True,
    help="Requests to erase a person at a party.",
)

PartyFolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="A party's folder.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]

_LONGEST = 4096


@erase_app.command("request")
def request(
    directory: PartyFolderArgument,
    kind: Annotated[str, typer.Option("--kind", help="What is read: email or phone.")] = "email",
    as_json: JsonFlag = False,
) -> None:
    """Take a request to erase whoever has the identifier on standard input.

    From here on no job uses them. The same identifier gives the same request again.

    Example: comity erase request out/demo/retailer --kind email
    """
    value = sys.stdin.read(_LONGEST + 1)
    if len(value) > _LONGEST:
        raise typer.BadParameter(f"expected at most {_LONGEST} characters on standard input")
    with _erasing(directory) as erasing:
        _print([erasing.request(kind, value)], as_json)


@erase_app.command("status")
def status(directory: PartyFolderArgument, as_json: JsonFlag = False) -> None:
    """List all requests of a party, and how far each has come.

    Example: comity erase status out/demo/retailer
    """
    with _erasing(directory) as erasing:
        _print(erasing.status(), as_json)


@erase_app.command("run")
def run(directory: PartyFolderArgument, as_json: JsonFlag = False) -> None:
    """Carry out all requests of a party; erase again whom a later import brought back.

    Example: comity erase run out/demo/retailer
    """
    with _erasing(directory) as erasing:
        _print(erasing.run(), as_json)


@erase_app.command("receipt")
def receipt(
    directory: PartyFolderArgument,
    name: Annotated[str, typer.Argument(metavar="REQUEST", help="As `status` lists it.")],
    outcomes: Annotated[
        bool, typer.Option("--outcomes", help="What was done where, for an auditor's eyes.")
    ] = False,
) -> None:
    """Print the signed completion of a request, which tells nobody whether the person was held.

    Example: comity erase receipt out/demo/retailer rq-4d0f… --outcomes
    """
    with _erasing(directory) as erasing:
        signed, opened = erasing.receipt(name)
    sys.stdout.write(opened.model_dump_json(indent=2) if outcomes else signed.decode())
    sys.stdout.write("\n")


@contextmanager
def _erasing(directory: Path) -> "Iterator[Erasing]":
    from federation.clock import utc_now
    from federation.erasing import Erasing
    from federation.holding import held

    with held(directory) as at:
        yield Erasing(at.folder, at.agreement, at.gate, clock=utc_now)


def _print(kept: "list[Kept] | tuple[Kept, ...]", as_json: bool) -> None:
    told = [
        {
            "request": one.execution.request,
            "standing": one.execution.standing,
            "asked": f"{one.asked:%Y-%m-%d}",
            "deadline": f"{one.execution.deadline:%Y-%m-%d}",
            "pending": len(one.execution.pending),
        }
        for one in kept
    ]
    if as_json:
        sys.stdout.write(json.dumps(told, indent=2) + "\n")
        return
    for one in told:
        sys.stdout.write(f"{one['request']}  {one['standing']}, by {one['deadline']}\n")
