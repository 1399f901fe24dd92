"""`comity policy`: what a party's policies are, whether they can be read, and how they decide.

Guarantees: parses, calls, prints. Leaves to others: everything else (`policies`).
"""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from federation.terminal import JsonFlag, answer, out, print_json

if TYPE_CHECKING:
    from compliance.policy import Decision

__all__ = ["policy_app"]

policy_app = typer.Typer(
    no_args_is_help=True,
    help="What may leave a party: the agreement's permits and the party's own prohibitions.\n\n"
    "Example: comity policy check out/demo/retailer",
)

PartyFolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="A party's folder.")]


@policy_app.command("show")
def show(directory: PartyFolderArgument) -> None:
    """Print all policies of a party, in Cedar, once they hold together.

    Example: comity policy show out/demo/retailer
    """
    from federation.party import PartyFolder
    from federation.policies import policy_of

    folder = PartyFolder(directory)
    sys.stdout.write(policy_of(folder, folder.agreement()).text)


@policy_app.command("check")
def check(
    directory: PartyFolderArgument,
    as_json: JsonFlag = False,
) -> None:
    """Hold a party's own policy.cedar together, and find words that nothing is called by.

    Exit code 1 if there are such words: their clauses never match.

    Example: comity policy check out/demo/retailer
    """
    from federation.party import PartyFolder
    from federation.policies import strange_words

    folder = PartyFolder(directory)
    found = strange_words(folder, folder.agreement())
    there = folder.policy.exists()
    holds = "holds together" if there else "no policy.cedar: the agreement alone decides"
    answer(found, *(map(str, found) if found else [holds]), as_json=as_json)
    if found:
        raise typer.Exit(1)


@policy_app.command("explain")
def explain(
    directory: PartyFolderArgument,
    action: Annotated[str, typer.Option("--action", help="Kind of message: train.update, …")],
    recipient: Annotated[str, typer.Option("--to", help="The party that would get it.")],
    purpose: Annotated[
        str | None, typer.Option("--purpose", help="What the people in it were used for.")
    ] = None,
    job: Annotated[
        str,
        typer.Option("--job", help="In which job; approvals of one that this party knows count."),
    ] = "job",
    at: Annotated[
        datetime | None,
        typer.Option("--at", help="When, in UTC; now if left out.", formats=["%Y-%m-%dT%H:%M:%S"]),
    ] = None,
    payload_bytes: Annotated[int, typer.Option("--bytes", min=0, help="Length.")] = 0,
    charged: Annotated[bool, typer.Option("--charged", help="It costs privacy budget.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Say whether a party's policies would let something out, and which clause decides.

    Nothing is logged, and nothing leaves. Exit code 1 if it would be forbidden.

    Example: comity policy explain out/demo/retailer --action train.update --to coordinator
    --purpose lookalike-audiences --charged
    """
    from federation.party import PartyFolder
    from federation.policies import known_job, policy_of, question

    folder = PartyFolder(directory)
    agreement = folder.agreement()
    _check_said(action, recipient, purpose, [party.name for party in agreement.parties])
    asked = question(
        folder,
        agreement,
        kind=action,
        recipient=recipient,
        job=job,
        spec=known_job(folder, job),
        purpose=purpose,
        charged=charged,
        payload_bytes=payload_bytes,
        time=(at or datetime.now(UTC)).replace(tzinfo=UTC),
    )
    decision = policy_of(folder, agreement).decide(asked)
    (print_json if as_json else _print_lines)(decision)
    if not decision.allowed:
        raise typer.Exit(1)


def _check_said(action: str, recipient: str, purpose: str | None, names: Sequence[str]) -> None:
    """Refuse a kind, a party or a lack of purpose that no message could have."""
    from federation.routes import ROUTES

    for what, asked, known in (("--action", action, ROUTES), ("--to", recipient, names)):
        if asked not in known:
            near = get_close_matches(asked, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"one of {', '.join(known)}"
            raise typer.BadParameter(f"{asked!r} is none: {hint}", param_hint=what)
    if ROUTES[action].concerns_people and purpose is None:
        told = f"{action} is made from people: say for what"
        raise typer.BadParameter(told, param_hint="--purpose")


def _print_lines(decision: "Decision") -> None:
    clauses = ", ".join(decision.clauses) or "no clause permits it"
    word = "allowed" if decision.allowed else "[bold red]forbidden[/]"
    out.print(f"{word}: {escape(clauses)}")
    if decision.remedy is not None:
        out.print(f"remedy: {decision.remedy}", markup=False)
