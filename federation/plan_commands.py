"""`comity plan`: what a collaboration file would run, cost and leave.

Guarantees: parses, calls, prints. Leaves to others: everything else (`plan`).
"""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.markup import escape
from rich.table import Column, Table

from federation.assumptions import tables
from federation.errors import CollaborationError
from federation.terminal import JsonFlag, out, print_json

if TYPE_CHECKING:
    from federation.collaboration import Collaboration
    from federation.plan import Plan, TrainingForecast

__all__ = ["plan"]

_WITHOUT: Final = (
    "where the tables lie with the parties, --without-tables plans by the rows that they declare"
)

CollaborationFile = Annotated[Path, typer.Argument(help="The collaboration file (TOML).")]


def plan(
    file: CollaborationFile,
    positives: Annotated[
        int | None,
        typer.Option(
            "--positives",
            help="Members whom the partners' tables hold together, for the forecast; left out, "
            "every row that the brand declares.",
        ),
    ] = None,
    auc: Annotated[
        float,
        typer.Option("--auc", help="AUC that a model is taken to reach without noise."),
    ] = 0.8,
    without_tables: Annotated[
        bool,
        typer.Option(
            "--without-tables",
            help="Look at no table, where they lie with the parties: rows are those declared.",
        ),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Say what a collaboration file would run, cost and leave, and what would be refused.

    Leaves with 1 if anything would be refused.

    Example: comity plan examples/lookalike/collaboration.toml --positives 300
    """
    from federation.plan import plan as make_plan
    from federation.progress import Progress, report
    from federation.watch import watched

    held = "" if without_tables else ", and held against the tables that it names"
    with watched():
        report(Progress("plan", file.stem, f"is read{held}"))
        read = _read(file, elsewhere=without_tables)
        directory = None if without_tables else file.parent
        planned = make_plan(read, positives=positives, auc=auc, directory=directory)
    if as_json:
        print_json(planned)
    else:
        _print_plan(planned)
    if planned.refused:
        raise typer.Exit(1)


def _read(file: Path, *, elsewhere: bool) -> "Collaboration":
    """Read the file; where nothing is amiss but that tables are elsewhere, say how to do without.

    Raises:
        CollaborationError: it has mistakes.
    """
    from federation.collaboration import load_collaboration

    try:
        return load_collaboration(file, elsewhere=elsewhere)
    except CollaborationError as error:
        remedy = ""
        if not elsewhere:
            with suppress(CollaborationError):
                load_collaboration(file, elsewhere=True)
                remedy = _WITHOUT
        raise CollaborationError(file, error.mistakes, remedy=remedy) from error


def _print_plan(planned: "Plan") -> None:
    job_column = Column("job", no_wrap=True)
    table = Table(
        job_column, "computation", "epsilon", "spent after", "left after", "more would fit"
    )
    for job in planned.jobs:
        table.add_row(
            job.job,
            job.computation,
            f"{job.epsilon:.3f}" if job.epsilon else "–",
            f"{job.epsilon_spent:.3f}",
            f"{job.epsilon_left:.3f}",
            "–" if job.repeats is None else str(job.repeats),
        )
    out.print(table)
    told: set[str] = set()
    for job in planned.jobs:
        refused = f"[bold red]would be refused[/] under {job.refused_by}"
        if job.remedy is not None and job.remedy not in told:  # once for all that it refuses
            told.add(job.remedy)
            refused += f": {escape(job.remedy)}"
        out.print(f"[bold]{job.job}[/]: {refused if job.refused_by else escape(job.note)}")
        details = [f"at {', '.join(job.who)}"]
        details += [f"takes {one.people} people ({one.term})" for one in job.minimums]
        if job.noise_multiplier is not None:
            details.append(f"noise multiplier {job.noise_multiplier:.3f}")
        out.print(f"  {'; '.join(details)}", markup=False)
        if job.erasure is not None and not job.refused_by:
            out.print(f"  {job.erasure}", markup=False)
        if job.forecast is not None:
            _print_forecast(job.forecast)
        if job.hidden_share is not None:
            out.print(f"  {job.hidden_share.sentence}", markup=False)
            if job.hidden_share.warning:
                out.print(f"  [bold yellow]warning[/] {escape(job.hidden_share.warning)}")
    _print_tables(planned)
    _print_budget(planned)


def _print_tables(planned: "Plan") -> None:
    warnings = [one.sentence for one in planned.fuller]
    warnings += [one.sentence for one in planned.uncounted]
    if not planned.tables_looked_at:
        out.print(
            "not computed without tables: whether files and columns are there, and whether a table "
            "has more rows than are declared"
        )
    for warning in warnings:
        out.print(f"[bold yellow]warning[/] {escape(warning)}")


def _print_budget(planned: "Plan") -> None:
    most = planned.max_parties_per_person
    held = "" if most is None else f", a person in {tables(most)}"
    out.print(
        f"epsilon left: {planned.epsilon_left:.3f} of {planned.epsilon_cap:.3f} per person at "
        f"delta {planned.delta:g}{held}"
    )
    if (period := planned.period) is not None:
        out.print(
            f"epsilon left of any {period.days} days: {period.epsilon_left:.3f} of "
            f"{period.epsilon_cap:.3f} at delta {period.delta:g}, if all jobs run within them"
        )
    if any(job.repeats and job.epsilon > job.epsilon_left for job in planned.jobs):
        out.print(
            "jobs lose less together than the sum of their epsilons: hence how many would fit"
        )
    if len({job.forecast.family for job in planned.jobs if job.forecast is not None}) > 1:
        out.print("forecasts of different families cannot be compared with each other")
    if any(job.refused_by == "budget.epsilon" for job in planned.jobs):
        out.print(f"all of them fit from a budget of epsilon {planned.epsilon_for_all:.2f}")


def _print_forecast(forecast: "TrainingForecast") -> None:
    source = "assumed; --positives says otherwise" if forecast.assumed else "as given"
    out.print(
        f"  expected AUC loss {forecast.auc_loss:.3f} ({forecast.auc_loss_least:.3f} to "
        f"{forecast.auc_loss_most:.3f}) of a model that reaches {forecast.auc:.3f} without noise: "
        f"{forecast.positives} positives ({source}) of {forecast.rows} rows, {forecast.columns} "
        f"columns, signal to noise {forecast.signal_to_noise:.1f}",
        markup=False,
    )
    if forecast.warning:
        out.print(f"  [bold yellow]warning[/] {escape(forecast.warning)}")
