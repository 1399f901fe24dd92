"""`comity measurement`: what measuring jobs counted, to read.

Guarantees: what is shown is what a party keeps, noise included; a count that was withheld is named
so and never guessed.

Leaves to others: counting (`measuring`), what a measurement is (`jobs.measure`).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError
from rich.markup import escape
from rich.table import Table

from federation.errors import WorkspaceError
from federation.terminal import JsonFlag, out, print_json

if TYPE_CHECKING:
    from federation.jobs.measure import Measurement

__all__ = ["kept_measurements", "measurement_app"]

measurement_app = typer.Typer(
    no_args_is_help=True,
    help="What measuring jobs counted.\n\nExample: comity measurement show out/demo",
)


def kept_measurements(directory: Path) -> "list[Measurement]":
    """Read the measurements that a party, or the parties of a workspace, keep; each one once.

    Raises:
        WorkspaceError: there is none, or a file holds none.
    """
    from federation.jobs.measure import Measurement

    files = sorted(
        file
        for pattern in ("jobs/*/measurement.json", "*/jobs/*/measurement.json")
        for file in directory.glob(pattern)
    )
    if not files:
        raise WorkspaceError(
            f"expected measurements in {directory}, got none: name a workspace, or the folder of "
            "the brand or the coordinator, after a job of kind measure has ended"
        )
    found: dict[str, Measurement] = {}
    for file in files:
        try:
            one = Measurement.model_validate_json(file.read_bytes())
        except OSError as error:
            raise WorkspaceError(f"{file} cannot be read: {error.strerror}") from error
        except ValidationError as error:
            raise WorkspaceError(
                f"expected a measurement in {file}, got {error.error_count()} mistakes: take it "
                "from the coordinator's folder"
            ) from None
        found[one.digest] = one
    return sorted(found.values(), key=lambda one: one.job)


@measurement_app.command("show")
def show(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A workspace, or a party's folder.")],
    as_json: JsonFlag = False,
) -> None:
    """Show counts with the standard deviation of their noise, and which were withheld.

    Example: comity measurement show out/demo
    """
    found = kept_measurements(path)
    if as_json:
        told = [
            one.model_dump(mode="json")
            | {"standard_deviation": one.standard_deviation, "withheld": one.withheld}
            for one in found
        ]
        print_json(told)
        return
    for one in found:
        _print(one)


def _print(measurement: "Measurement") -> None:
    table = Table("partner", *map(escape, measurement.columns), "members", "others")
    for party in measurement.parties:
        for cell, *counts in zip(measurement.cells, party.members, party.others, strict=True):
            table.add_row(party.party, *map(escape, cell), *(_told(n, measurement) for n in counts))
    out.print(f"[bold]{measurement.job}[/], members of {measurement.match}")
    out.print(table)
    delta = "" if measurement.delta is None else f" at delta {measurement.delta:g}"
    out.print(
        f"± is one standard deviation of the noise ({measurement.noise.value}); epsilon "
        f"{measurement.epsilon:g}{delta} per person; {measurement.withheld} withheld, which are "
        f"below {measurement.minimum_cell}"
    )
    if measurement.missing:
        out.print(f"[bold]not of {', '.join(measurement.missing)}[/], who took no part")


def _told(count: int | None, measurement: "Measurement") -> str:
    if count is None:
        return f"withheld (below {measurement.minimum_cell})"
    return f"{count:,} ± {measurement.standard_deviation:.1f}"
