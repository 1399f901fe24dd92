"""`comity retrain`: which models have to be trained again, by when, and what takes their place.

Guarantees: parses, calls, prints; nothing tells who was erased. Leaves to others: the queue at a
party (`retraining`) and at the coordinator (`successors`).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compliance.agreement import iso
from federation.terminal import JsonFlag, answer

if TYPE_CHECKING:
    from datetime import datetime

    from federation.party import PartyFolder

__all__ = ["retrain_app"]

retrain_app = typer.Typer(
    no_args_is_help=True,
    help="Models that have to be trained again, since somebody whom they saw was erased.\n\n"
    "Example: comity retrain list out/demo/retailer",
)

PartyFolderArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="A party's folder, or the coordinator's.")
]


@retrain_app.callback()
def _group() -> None:
    """Models that have to be trained again."""


@retrain_app.command("list")
def list_command(directory: PartyFolderArgument, as_json: JsonFlag = False) -> None:
    """List a party's models that have to be trained again, or what the coordinator is to train.

    Example: comity retrain list out/demo/retailer
    """
    from compliance.terms import Role
    from federation.clock import utc_now
    from federation.operations.folder import party_in
    from federation.party import PartyFolder, locked

    folder, now = PartyFolder(party_in(directory)), utc_now()
    with locked(folder):
        of = _at_coordinator if folder.config.role is Role.COORDINATOR else _at_party
        told = list(of(folder, now))
    lines = [
        f"{one['model']}: {one['standing']}"
        + (f", {one['successor']}" if one["successor"] else "")
        + f", due {one['due']}"
        for one in told
    ]
    answer(told, *(lines or ["nothing has to be trained again"]), as_json=as_json)


def _at_party(folder: "PartyFolder", now: "datetime") -> Iterator[dict[str, object]]:
    from federation.retraining import RetrainingQueue

    for one in RetrainingQueue(folder, folder.agreement()).listed(now):
        yield {
            "model": one.due.model,
            "model_digest": one.due.model_digest,
            "due": iso(one.due.due),
            "standing": one.standing.value,
            "successor": one.successor,
        }


def _at_coordinator(folder: "PartyFolder", now: "datetime") -> Iterator[dict[str, object]]:
    from federation.successors import Retrainings

    queue = Retrainings(folder, folder.agreement())
    for one in queue.listed:
        yield {
            "model": one.model,
            "told_by": list(one.told_by),
            "due": iso(one.due),
            "standing": queue.standing(one, now).value,
            "successor": one.spec.name,
        }
