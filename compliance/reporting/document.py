"""A report as data: sections of facts, tables, charts, and blanks that only people can fill.

Guarantees: what a log says is a `Figure` with its leaves, what the agreement says a `Fact` with its
term, what software cannot know a `Blank`; a report says which heads of which logs it was made from.

Leaves to others: what stands in it (the modules beside this one), how it looks (`page`).
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from compliance.agreement import Agreement
from compliance.reporting.figures import Closed, Figure, PartyLog

__all__ = [
    "Blank",
    "Cell",
    "Chart",
    "Fact",
    "Head",
    "Report",
    "ReportKind",
    "Section",
    "Table",
    "Warn",
    "figures_of",
    "make_report",
]


class ReportKind(StrEnum):
    """Which report it is."""

    PROCESSING = "processing"
    IMPACT = "impact"
    BUDGET = "budget"
    ERASURE = "erasure"
    ACCESS = "access"


class Fact(Closed):
    """What the agreement says, or what the software does whatever the agreement says.

    Attributes:
        type: tells it from other cells.
        text: in words.
        term: dotted path of the agreement's term; empty where no term decides.
    """

    type: Literal["fact"] = "fact"
    text: str
    term: str = ""


class Blank(Closed):
    """What a person has to write, and nobody else can: shown as an empty field.

    Attributes:
        type: tells it from other cells.
        ask: what is to be written.
    """

    type: Literal["blank"] = "blank"
    ask: str

    @property
    def text(self) -> str:
        """The cell in words."""
        return f"[{self.ask}]"


class Warn(Closed):
    """What nobody should overlook.

    Attributes:
        type: tells it from other cells.
        text: in plain words.
    """

    type: Literal["warning"] = "warning"
    text: str


Cell = Annotated[Figure | Fact | Blank | Warn, Field(discriminator="type")]


class Table(Closed):
    """Rows of cells; the first `keys` cells of a row say what it is about.

    Attributes:
        caption: what the table shows.
        head: of each column.
        rows: as many cells each.
        keys: leading cells that name a row; no two rows have the same.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    keys: int = 1


class Chart(Closed):
    """A rising line of steps over time, with a limit. The table below it has the same figures.

    Attributes:
        title: what it shows.
        description: the same in words, for whoever does not see it.
        unit: of the values.
        limit: highest value that is allowed.
        points: moments, rising, and the value from each of them on.
    """

    title: str
    description: str
    unit: str
    limit: float
    points: tuple[tuple[datetime, float], ...]


class Section(Closed):
    """A part of a report.

    Attributes:
        title: its heading.
        law: the provisions that ask for it; empty where none does.
        lines: what is said in sentences, before any table.
        charts: drawn before the tables.
        tables: what is said in figures.
    """

    title: str
    law: str = ""
    lines: tuple[Cell, ...] = ()
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()


class Head(Closed):
    """Which state of a log was read.

    Attributes:
        party: whose log.
        tree_size: leaves in it.
        root_hash: of its tree, hexadecimal.
        public_size: leaves of the last head that enough other parties cosigned; None if there is
            none.
        cosigned_by: who cosigned that head.
    """

    party: str
    tree_size: int
    root_hash: str
    public_size: int | None = None
    cosigned_by: tuple[str, ...] = ()

    @property
    def public(self) -> str:
        """What is public of it, as `comity log verify` says it."""
        return (
            "–" if self.public_size is None else f"{self.public_size:,}, by {len(self.cosigned_by)}"
        )


class Report(Closed):
    """One report.

    Attributes:
        version: of this format.
        kind: which report it is.
        title: its heading.
        collaboration: title of the agreement.
        agreement: its digest, hexadecimal SHA-256.
        at: the moment as of which it speaks, UTC.
        heads: the logs that were read.
        sections: what it says.
    """

    version: Literal[1] = 1
    kind: ReportKind
    title: str
    collaboration: str
    agreement: str
    at: datetime
    heads: tuple[Head, ...]
    sections: tuple[Section, ...]


def make_report(
    kind: ReportKind,
    title: str,
    agreement: Agreement,
    logs: Iterable[PartyLog],
    at: datetime,
    sections: Sequence[Section],
) -> Report:
    """Put sections into a report of these logs."""
    return Report(
        kind=kind,
        title=title,
        collaboration=agreement.title,
        agreement=agreement.digest,
        at=at,
        heads=tuple(
            Head(
                party=log.party,
                tree_size=log.tree_size,
                root_hash=log.root_hash,
                public_size=log.public_size,
                cosigned_by=log.cosigned_by,
            )
            for log in logs
        ),
        sections=tuple(sections),
    )


def figures_of(report: Report) -> Iterator[tuple[tuple[str, ...], Figure]]:
    """Yield every figure with its place: section, table, what names its row, column."""
    for section in report.sections:
        for table in section.tables:
            for row in table.rows:
                named = tuple(_said(cell) for cell in row[: table.keys])
                for column, cell in zip(table.head, row, strict=True):
                    if isinstance(cell, Figure):
                        yield (section.title, table.caption, *named, column), cell


def _said(cell: Cell) -> str:
    match cell:
        case Figure():
            return str(cell.value)
        case Blank():
            return cell.ask
        case Fact() | Warn():
            return cell.text
