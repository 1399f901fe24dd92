"""A report as one page of HTML, for the screen and for paper.

Guarantees: the page loads nothing from anywhere and runs no script; every text is escaped; tables
have captions and heads, charts a title and a description; it prints on A4 and Letter.

Leaves to others: what the report says (`document`).
"""

from collections.abc import Mapping
from importlib import resources
from typing import Final

from compliance.reporting.document import Chart, Report, ReportKind
from compliance.reporting.figures import Figure, minute

__all__ = ["page"]

_WIDTH, _HEIGHT = 640.0, 200.0
_SHOWN_RANGES: Final = 6
"""Runs of leaves that are told beside a figure; of more, a note at the end tells them."""

_ABOUT: Final[Mapping[ReportKind, str]] = {
    ReportKind.PROCESSING: "GDPR article 30",
    ReportKind.IMPACT: "GDPR article 35, PIPL articles 55 and 56",
    ReportKind.BUDGET: "What was spent of each person's ε",
    ReportKind.ERASURE: "GDPR articles 12, 17 and 19, PIPL article 47",
    ReportKind.ACCESS: "Decisions, refusals, and the rules behind them",
}


def page(report: Report) -> str:
    """Write a report as HTML.

    Raises:
        ModuleNotFoundError: jinja2 is not installed.
    """
    import jinja2

    template = resources.files(__package__).joinpath("page.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    notes = _Notes()
    return environment.from_string(template).render(
        report=report,
        about=_ABOUT[report.kind],
        cite=notes.cite,
        notes=notes.told,
        steps=_steps,
        moment=minute,
        width=_WIDTH,
        height=_HEIGHT,
    )


class _Notes:
    """Long citations, numbered as they come."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def cite(self, figure: Figure) -> tuple[str, int]:
        """Return what to say beside a figure, and the number of its note, or 0."""
        text = "; ".join(citation.text for citation in figure.citations)
        if sum(len(citation.ranges) for citation in figure.citations) <= _SHOWN_RANGES:
            return text, 0
        leaves = sum(len(citation.indexes) for citation in figure.citations)
        self.told.append(text)
        return f"{leaves:,} leaves", len(self.told)


def _steps(chart: Chart) -> str:
    """Return the path of a chart's line, in a box of `_WIDTH` by `_HEIGHT`, from the lower left."""
    first, last = chart.points[0][0], chart.points[-1][0]
    seconds = max((last - first).total_seconds(), 1e-9)
    top = max(chart.limit, *(value for _, value in chart.points), 1e-12)
    path = [f"M0 {_HEIGHT:g}"]
    for moment, value in chart.points:  # the first step stands a little away from the axis
        along = 0.05 + 0.9 * (moment - first).total_seconds() / seconds
        path.append(f"H{_WIDTH * along:.1f} V{_HEIGHT * (1 - value / top):.1f}")
    return " ".join([*path, f"H{_WIDTH:g}"])
