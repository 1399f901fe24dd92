"""`comity view`: a party's people as its own analyst may see them, counted by agreed columns.

Guarantees: parses, calls, prints; cells and rounded counts are all that is printed. Leaves to
others: everything else (`views`).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from federation.terminal import JsonFlag, out, print_json

if TYPE_CHECKING:
    from federation.views import View

__all__ = ["view_command"]


def view_command(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A party's folder.")],
    by: Annotated[
        str, typer.Option("--by", help="One or two agreed columns, with a comma between.")
    ],
    match: Annotated[
        str | None, typer.Option("--match", help="Count the members of this match alone.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Count a party's own people by agreed columns, rounded down; never show who they are.

    Policies decide and consent is read as at any use, and the log tells of it.

    Example: comity view out/demo/retailer --by age
    """
    from federation.views import view

    found = view(directory, [name.strip() for name in by.split(",")], match=match)
    if as_json:
        print_json(found)
    else:
        _print(found)


def _print(found: "View") -> None:
    whom = "people" if found.match is None else f"members of {found.match}"
    table = Table(title=f"{whom} of {found.party}, for {found.purpose}", title_justify="left")
    for column in found.columns:
        table.add_column(column)
    table.add_column("people", justify="right")
    for cell, count in zip(found.cells, found.counts, strict=True):
        table.add_row(*cell, f"fewer than {found.unit}" if count is None else f"{count:,} or more")
    out.print(table)
    out.print(f"rounded down to multiples of {found.unit}")
