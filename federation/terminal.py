"""The terminal: what a command answers, in lines for people or as JSON for programs.

Guarantees: results go to standard output, everything else to standard error. JSON is one document,
as RFC 8259 has it: where a number is undefined or infinite, it has null. Nothing is cut, and no
line or table broken, but to the width of a terminal that somebody looks at.
Names, paths and other people's texts are printed as they are: nothing in them is markup.

Leaves to others: what is answered (the modules of commands), progress (`watch`).
"""

import json
import math
import sys
from typing import Annotated, ClassVar, Final

import typer
from pydantic_core import to_jsonable_python
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import Markdown, TableElement
from rich.table import Table

__all__ = [
    "JsonFlag",
    "answer",
    "counted",
    "err",
    "out",
    "print_document",
    "print_json",
    "print_row",
    "shortened",
]

_WIDEST: Final = 1_000_000
"""Columns of what is no terminal, which has none."""


class _Output(Console):
    """A console that has a width only where it is a terminal."""

    @property
    def options(self) -> ConsoleOptions:
        found = super().options
        return found if self.is_terminal else found.update(max_width=_WIDEST)


out: Final = _Output(highlight=False, soft_wrap=True, emoji=False)
err: Final = _Output(stderr=True, highlight=False, soft_wrap=True, emoji=False)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]


def answer(document: object, *lines: str, as_json: bool) -> None:
    """Print what a command found: a document for programs, or lines for people.

    Args:
        document: the whole answer, of what JSON knows, frozen models, enums and moments.
        lines: the same in words.
        as_json: which of them.
    """
    if as_json:
        print_json(document)
        return
    for one in lines:
        out.print(one, markup=False)


def print_json(document: object) -> None:
    """Print a document on standard output, for programs."""
    told = _finite(to_jsonable_python(document))
    sys.stdout.write(json.dumps(told, indent=2, allow_nan=False) + "\n")


def _finite(value: object) -> object:
    """Return a value of JSON without what JSON has no spelling for."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _WholeTable(TableElement):
    """A table whose cells are broken where they are too long, never cut: people compare keys."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for part in super().__rich_console__(console, options):
            if isinstance(part, Table):
                for column in part.columns:
                    column.overflow = "fold"
            yield part


class _Document(Markdown):
    elements: ClassVar = {**Markdown.elements, "table_open": _WholeTable}


def print_document(markdown: str, console: Console = out) -> None:
    """Print a document in Markdown for people, within the width of the terminal, or of a page."""
    console.print(_Document(markdown), soft_wrap=False, width=console.width)


def print_row(text: str) -> None:
    """Print one line of many, cut to the width of a terminal; whole where it is none."""
    out.print(
        text,
        markup=False,
        soft_wrap=not out.is_terminal,
        no_wrap=True,
        overflow="ellipsis",
    )


def shortened(text: str, most: int) -> str:
    """Return a text, cut to so many characters where standard output is a terminal."""
    return text if len(text) <= most or not out.is_terminal else f"{text[: most - 1]}…"


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: `1 finding`, `2 findings`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
