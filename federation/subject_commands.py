"""`comity subject`: show, hand over and correct what a party's table holds about a person.

Guarantees: an identifier, and a new value, are read from standard input, so that they are in no
list of processes and no shell's history. Leaves to others: everything else (`subjects`).
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from federation.terminal import JsonFlag, answer

if TYPE_CHECKING:
    from federation.subjects import Subjects

__all__ = ["subject_app"]

subject_app = typer.Typer(
    no_args_is_help=True,
    help="What a party's table holds about a person.\n\n"
    "Example: comity subject show out/demo/retailer --by email",
)

_LONGEST: Final = 65_536


class By(StrEnum):
    """What a person is named by."""

    REFERENCE = "reference"
    EMAIL = "email"
    PHONE = "phone"


class Layout(StrEnum):
    """How rows are handed over."""

    JSON = "json"
    CSV = "csv"


PartyArgument = Annotated[Path, typer.Argument(metavar="DIR", help="A party's folder.")]
ByOption = Annotated[By, typer.Option("--by", help="What is read: a reference, email or phone.")]


@subject_app.command("show")
def show(directory: PartyArgument, by: ByOption = By.REFERENCE, as_json: JsonFlag = False) -> None:
    """Show what the table holds about whoever is named on standard input.

    Example: comity subject show out/demo/retailer --by email
    """
    name = _read().strip()
    with _subjects(directory, by, name) as (subjects, references):
        held = subjects.show(references)
    if as_json:
        sys.stdout.write(held.to_json())
        return
    for number, row in enumerate(held.rows, start=1):
        sys.stdout.write(f"row {number} of {len(held.rows)}\n")
        for column, value in zip(held.columns, row, strict=True):
            sys.stdout.write(f"  {column}: {'–' if value is None else value}\n")
    if not held.rows:
        sys.stdout.write("nothing is held\n")


@subject_app.command("export")
def export(
    directory: PartyArgument,
    by: ByOption = By.REFERENCE,
    layout: Annotated[Layout, typer.Option("--as", help="How it is written.")] = Layout.JSON,
) -> None:
    """Write what the table holds about whoever is named on standard input, to be taken along.

    Example: comity subject export out/demo/retailer --by email --as csv
    """
    name = _read().strip()
    with _subjects(directory, by, name) as (subjects, references):
        held = subjects.show(references)
    sys.stdout.write(held.to_csv() if layout is Layout.CSV else held.to_json())


@subject_app.command("correct")
def correct(
    directory: PartyArgument, by: ByOption = By.REFERENCE, as_json: JsonFlag = False
) -> None:
    """Correct what the table holds: the name, then one COLUMN=VALUE a line, on standard input.

    Example: comity subject correct out/demo/retailer --by email
    """
    name, *lines = _read().splitlines() or [""]
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    if not values or len(values) != len(lines):
        raise typer.BadParameter("expected, after the name, one COLUMN=VALUE a line, each once")
    with _subjects(directory, by, name.strip()) as (subjects, references):
        request = subjects.correct(references, values)
    answer({"request": request}, request, as_json=as_json)


def _read() -> str:
    text = sys.stdin.read(_LONGEST + 1)
    if not 0 < len(text) <= _LONGEST:
        raise typer.BadParameter(f"expected 1 to {_LONGEST} characters on standard input")
    return text


@contextmanager
def _subjects(directory: Path, by: By, name: str) -> "Iterator[tuple[Subjects, tuple[str, ...]]]":
    from federation.clock import utc_now
    from federation.holding import held
    from federation.subjects import Subjects, references_of

    with held(directory) as at:
        subjects = Subjects(at.folder, at.agreement, at.gate, clock=utc_now)
        if by is By.REFERENCE:
            yield subjects, (name,)
        else:
            yield subjects, references_of(at.folder, at.agreement, by.value, name)
