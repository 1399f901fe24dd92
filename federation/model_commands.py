"""`comity model`: which there are, and who was in the training of one, in numbers for them.

Guarantees: parses, calls, prints; no reference of a record is printed. Leaves to others: everything
else (`trained_models`, `training.manifests`).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compliance.agreement import iso
from federation.terminal import JsonFlag, answer

if TYPE_CHECKING:
    from federation.party import PartyFolder
    from federation.training.manifests import Manifest

__all__ = ["model_app"]

model_app = typer.Typer(
    no_args_is_help=True,
    help="Models that a party keeps.\n\nExample: comity model manifest out/demo/retailer march",
)

PartyFolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="A party's folder.")]


@model_app.callback()
def _group() -> None:
    """Models that a party keeps."""


@model_app.command("list")
def list_command(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="A party's folder, or the coordinator's.")
    ],
    as_json: JsonFlag = False,
) -> None:
    """List models: the training that made each, when, and whether people are scored with it.

    Example: comity model list out/demo/retailer
    """
    from federation.clock import utc_now
    from federation.operations.folder import party_in
    from federation.party import PartyFolder, locked
    from federation.trained_models import trained_models

    folder = PartyFolder(party_in(directory))
    with locked(folder):
        found = trained_models(folder, folder.agreement(), utc_now())
    lines = [
        f"{one.model}: {one.use}"
        + (f", trained {one.trained:%Y-%m-%d %H:%M:%S} UTC" if one.trained else "")
        + (f": {one.why}" if one.why else "")
        for one in found
    ]
    answer(found, *(lines or ["no model was trained yet"]), as_json=as_json)


@model_app.command("manifest")
def manifest(
    directory: PartyFolderArgument,
    job: Annotated[str, typer.Argument(metavar="JOB", help="The training.")],
    request: Annotated[
        str | None,
        typer.Option("--request", help="Prove that who asked to be erased by it is not in it."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Hold the manifest of a training against the log, and tell counts and roots.

    Example: comity model manifest out/demo/retailer march-2 --request rq-4d0f…
    """
    from federation.erased import Erased, find_entry
    from federation.errors import WorkspaceError
    from federation.log_reading import own_leaves
    from federation.party import PartyFolder, locked
    from federation.training.manifests import Manifest

    folder = PartyFolder(directory)
    agreement = folder.agreement()
    with locked(folder):
        found = Manifest.open(folder, job)
        if found is None:
            raise WorkspaceError(
                f"{folder.path} has no manifest of a training {job!r}: none was written before "
                "manifests were, nor where a party brought no rows"
            )
        found.check(own_leaves(folder, agreement))
        told = _plain(folder, found)
        if request is not None:
            entry = find_entry(folder, request)
            references = Erased(folder, agreement).person(entry).references
            told |= {
                "request": request,
                "was_in_it": found.names(references),
                "was_known_as_erased": found.knew_erased(references),
            }
    _print(told, as_json=as_json)
    if told.get("was_in_it"):
        raise typer.Exit(1)


def _plain(folder: "PartyFolder", found: "Manifest") -> dict[str, Any]:
    from federation.messages import content_digest

    kept = folder.model(found.job)
    return {
        "party": folder.name,
        "job": found.job,
        "model_digest": content_digest(kept.read_bytes()) if kept.exists() else None,
        "verified": True,
        "answers": [
            {
                "computation": one.computation,
                "time": iso(one.time),
                "agreement": one.agreement,
                "version": one.number,
                "source": one.source,
                "purpose": one.purpose,
                "epsilon": one.epsilon,
                "delta": one.delta,
                "rows": one.rows,
                "excluded": one.excluded,
                "used": one.used.model_dump(),
                "linked": one.linked.model_dump(),
                "erased": one.erased.model_dump(),
            }
            for one in found.entries
        ],
    }


def _print(told: dict[str, Any], *, as_json: bool) -> None:
    lines = [f"{told['job']} at {told['party']}: the log tells of the same people"]
    for one in told["answers"]:
        used, erased = one["used"], one["erased"]
        lines.append(
            f"{one['time']}  {one['computation']}  {used['count']} records, root {used['root']}; "
            f"{erased['count']} known as erased"
        )
    if "request" in told:
        known = "known" if told["was_known_as_erased"] else "not known"
        is_in = "WAS in it" if told["was_in_it"] else "was not in it"
        lines.append(f"{told['request']}: {is_in}, {known} as erased to every answer")
    answer(told, *lines, as_json=as_json)
