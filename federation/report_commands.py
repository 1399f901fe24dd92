"""`comity report`: what the logs say to a data protection officer, an auditor, an authority.

Guarantees: no report is made unless every log that it reads holds, and all are under one agreement.

Leaves to others: verifying (`audit`), everything that is said (`compliance.reporting`).
"""

import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from federation.errors import WorkspaceError

if TYPE_CHECKING:
    from compliance.agreement import Agreement
    from compliance.reporting import PartyLog, Report

__all__ = ["report_app"]

report_app = typer.Typer(
    no_args_is_help=True,
    help="Reports from verified logs; every figure cites its leaves.\n\n"
    "Example: comity report processing out/demo --html out/processing.html",
)
out = Console(highlight=False, soft_wrap=True)

_Maker = Callable[["Agreement", "Sequence[PartyLog]", datetime], "Report"]

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="A party's folder, or a workspace.")]
HtmlOption = Annotated[
    Path | None, typer.Option("--html", help="Write a page that prints to this file.")
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]
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
    directory: Directory,
    html: HtmlOption = None,
    as_json: JsonFlag = False,
    at: AtOption = None,
) -> None:
    """Write records of processing activities (GDPR article 30).

    Example: comity report processing out/demo --html out/processing.html
    """
    from compliance.reporting import processing_report

    _report(processing_report, directory, html, as_json, at)


@report_app.command("impact")
def impact(
    directory: Directory,
    html: HtmlOption = None,
    as_json: JsonFlag = False,
    at: AtOption = None,
) -> None:
    """Write what an impact assessment needs (GDPR article 35; PIPL articles 55 and 56).

    Example: comity report impact out/demo --html out/impact.html
    """
    from compliance.reporting import impact_report

    _report(impact_report, directory, html, as_json, at)


@report_app.command("budget")
def budget(
    directory: Directory,
    html: HtmlOption = None,
    as_json: JsonFlag = False,
    at: AtOption = None,
) -> None:
    """Write how the privacy budget burns, by party and charge.

    Example: comity report budget out/demo/retailer --html out/budget.html
    """
    from compliance.reporting import budget_report

    _report(budget_report, directory, html, as_json, at)


@report_app.command("erasure")
def erasure(
    directory: Directory,
    html: HtmlOption = None,
    as_json: JsonFlag = False,
    at: AtOption = None,
) -> None:
    """Write every request to erase, by party, with the days that are left.

    Example: comity report erasure out/demo --at 2026-12-31
    """
    from compliance.reporting import erasure_report

    _report(erasure_report, directory, html, as_json, at)


@report_app.command("access")
def access(
    directory: Directory,
    html: HtmlOption = None,
    as_json: JsonFlag = False,
    at: AtOption = None,
) -> None:
    """Write what policies decided, what was refused, and which rules changed.

    Example: comity report access out/demo --json
    """
    from compliance.reporting import access_report

    _report(access_report, directory, html, as_json, at)


def _report(
    make: _Maker, directory: Path, html: Path | None, as_json: bool, at: datetime | None
) -> None:
    from compliance.reporting import PartyLog, page
    from federation.audit import verify_all
    from federation.party import write_atomically

    verified, problems = verify_all([directory])
    if problems:
        raise problems[0]
    agreement = verified[0].agreement
    if any(party.agreement != agreement for party in verified):
        raise WorkspaceError(
            f"{directory} holds logs under several agreements: name one party's folder"
        )
    logs = [
        PartyLog.of(one.party, one.leaves, one.root_hash, one.log.succession.versions)
        for one in verified
    ]
    moment = (at or datetime.now(UTC)).replace(tzinfo=UTC)
    report = make(agreement, logs, moment)
    if html is not None:
        write_atomically(html, page(report).encode(), mode=0o600)
    if as_json:
        sys.stdout.write(report.model_dump_json(indent=2) + "\n")
    elif html is not None:
        out.print(f"page: {html}", markup=False)
    else:
        _print(report)


def _print(report: "Report") -> None:
    from compliance.reporting import figures_of

    out.print(f"{report.title}, {report.collaboration}, as of {report.at:%Y-%m-%d}", markup=False)
    for place, figure in figures_of(report):
        cited = "; ".join(citation.text for citation in figure.citations) or "no leaf"
        value = f"{figure.value:.4g}" if isinstance(figure.value, float) else figure.value
        told = f"{' · '.join(place[1:])}: {value} {figure.unit}".rstrip()
        out.print(f"{told} ({cited})", markup=False)
