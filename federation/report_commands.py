"""`comity report`: what the logs say to a data protection officer, an auditor, an authority.

Guarantees: no report is made unless every log that it reads holds, and all are under one agreement.

Leaves to others: verifying (`audit`), everything that is said (`compliance.reporting`).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich import table
from rich.markup import escape

from federation.errors import WorkspaceError
from federation.terminal import JsonFlag, counted, err, out, print_json

if TYPE_CHECKING:
    from compliance.agreement import Agreement
    from compliance.reporting import Figure, PartyLog, Report

__all__ = ["report_app"]

report_app = typer.Typer(
    no_args_is_help=True,
    help="Reports from verified logs; every figure cites its leaves.\n\n"
    "Example: comity report processing out/demo --html out/processing.html",
)

_MOST_ROWS: Final = 20
"""Of a table, on a terminal."""

_Maker = Callable[["Agreement", "Sequence[PartyLog]", datetime], "Report"]

Directories = Annotated[
    list[Path], typer.Argument(metavar="DIR…", help="Party folders, or whole workspaces.")
]
HtmlOption = Annotated[
    Path | None, typer.Option("--html", help="Write a page that prints to this file.")
]
AtOption = Annotated[
    datetime | None,
    typer.Option(
        "--at",
        help="As of when, in UTC; now if left out.",
        formats=["%Y-%m-%dT%H:%M:%S", "%Y-%m-%d"],
    ),
]


@report_app.command("processing")
def processing(
    directories: Directories,
    html: HtmlOption = None,
    as_json: JsonFlag = False,
    at: AtOption = None,
) -> None:
    """Write records of processing activities (GDPR article 30).

    Example: comity report processing out/demo --html out/processing.html
    """
    from compliance.reporting import processing_report

    _report(processing_report, directories, html, as_json, at)


@report_app.command("impact")
def impact(
    directories: Directories,
    html: HtmlOption = None,
    as_json: JsonFlag = False,
    at: AtOption = None,
) -> None:
    """Write what an impact assessment needs (GDPR article 35; PIPL articles 55 and 56).

    Example: comity report impact out/demo --html out/impact.html
    """
    from compliance.reporting import impact_report

    _report(impact_report, directories, html, as_json, at)


@report_app.command("budget")
def budget(
    directories: Directories,
    html: HtmlOption = None,
    as_json: JsonFlag = False,
    at: AtOption = None,
) -> None:
    """Write how the privacy budget burns, by party and charge.

    Example: comity report budget out/demo/retailer --html out/budget.html
    """
    from compliance.reporting import budget_report

    _report(budget_report, directories, html, as_json, at)


@report_app.command("erasure")
def erasure(
    directories: Directories,
    html: HtmlOption = None,
    as_json: JsonFlag = False,
    at: AtOption = None,
) -> None:
    """Write every request to erase, by party, with the days that are left.

    Example: comity report erasure out/demo --at 2026-12-31
    """
    from compliance.reporting import erasure_report

    _report(erasure_report, directories, html, as_json, at)


@report_app.command("access")
def access(
    directories: Directories,
    html: HtmlOption = None,
    as_json: JsonFlag = False,
    at: AtOption = None,
) -> None:
    """Write what policies decided, what was refused, and which rules changed.

    Example: comity report access out/demo --json
    """
    from compliance.reporting import access_report

    _report(access_report, directories, html, as_json, at)


def _report(
    make: _Maker, directories: list[Path], html: Path | None, as_json: bool, at: datetime | None
) -> None:
    from compliance.reporting import PartyLog, page
    from federation.audit import verify_all
    from federation.party import write_atomically

    verified, problems = verify_all(directories)
    if problems:
        raise problems[0]
    agreement = verified[0].agreement
    if any(party.agreement != agreement for party in verified):
        raise WorkspaceError(
            f"{_named(directories)} hold logs under several agreements: name folders of one"
        )
    names = [party.party for party in verified]
    if twice := sorted(name for name, times in Counter(names).items() if times > 1):
        raise WorkspaceError(
            f"{_named(directories)} hold several logs of {', '.join(twice)}: name each party once"
        )
    logs = [
        PartyLog.of(
            one.party,
            one.leaves,
            one.root_hash,
            one.log.succession.versions,
            public_size=one.public_size,
            cosigned_by=one.cosigned_by,
        )
        for one in verified
    ]
    moment = (at or datetime.now(UTC)).replace(tzinfo=UTC)
    report = make(agreement, logs, moment)
    if html is not None:
        write_atomically(html, page(report).encode(), mode=0o600)
    if as_json:
        print_json(report)
    elif html is not None:
        out.print(f"page: {html}", markup=False)
    else:
        _print(report)


def _named(directories: Sequence[Path]) -> str:
    return ", ".join(map(str, directories))


def _print(report: "Report") -> None:
    """Print the figures: every one in a line of its own, or as tables that fit a terminal."""
    from compliance.reporting import figures_of

    heads = (f"{one.party} ({one.tree_size} leaves, public {one.public})" for one in report.heads)
    title = f"{report.title}, {report.collaboration}, as of {report.at:%Y-%m-%d}"
    out.print(f"{title}, of the logs of {', '.join(heads)}", markup=False)
    figures = list(figures_of(report))
    if not figures:
        out.print("no figures: nothing that it tells of has been logged")
    elif out.is_terminal:
        _print_tables(report)
    else:
        for place, figure in figures:
            told = f"{' · '.join(place[1:])}: {figure.text} ({_cited([figure])})"
            out.print(told, markup=False)


def _print_tables(report: "Report") -> None:
    """Print the first rows of every table of figures, as wide as the terminal."""
    from compliance.reporting import Figure

    for section in report.sections:
        for one in section.tables:
            rows = [row for row in one.rows if any(isinstance(cell, Figure) for cell in row)]
            if not rows:
                continue
            head = (table.Column(escape(name), overflow="fold") for name in (*one.head, "leaves"))
            shown = table.Table(*head, title_justify="left")
            shown.title = escape(one.caption)
            for row in rows[:_MOST_ROWS]:
                cited = _cited([cell for cell in row if isinstance(cell, Figure)])
                shown.add_row(*(escape(cell.text) for cell in row), cited)
            out.print(shown, soft_wrap=False)
            if (left := len(rows) - _MOST_ROWS) > 0:
                out.print(f"… and {counted(left, 'row')} more")
    err.print("--html FILE writes the whole report to read and to print, --json for programs")


def _cited(figures: "Sequence[Figure]") -> str:
    cited = dict.fromkeys(one.text for figure in figures for one in figure.citations)
    return "; ".join(cited) or "no leaf"
