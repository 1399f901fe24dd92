"""`comity demo` and `comity simulate`: every party on one machine.

Guarantees: parses, calls, prints. Leaves to others: everything else (`trial`).
"""

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from federation.errors import FederationError
from federation.terminal import out

if TYPE_CHECKING:
    from federation.trial.report import Report

__all__ = ["demo", "print_report", "simulate_command"]

CollaborationFile = Annotated[Path, typer.Argument(help="The collaboration file (TOML).")]
WorkspaceOption = Annotated[
    Path, typer.Option("--workspace", help="Folder for the parties' folders and the report.")
]
JsonFileOption = Annotated[
    Path | None, typer.Option("--json", help="Write the report's figures to this file too.")
]


def demo(workspace: WorkspaceOption = Path("out/demo"), json_file: JsonFileOption = None) -> None:
    """Run a whole collaboration on real data: a brand, two partners and a coordinator.

    One person withdraws between match and training, and one is erased after it.

    Example: comity demo --workspace out/demo
    """
    file = _examples() / "lookalike" / "collaboration.toml"
    _simulate(file, workspace, json_file, with_scene=True)


def simulate_command(
    file: CollaborationFile,
    workspace: WorkspaceOption = Path("out/simulation"),
    json_file: JsonFileOption = None,
) -> None:
    """Run a collaboration file with every party on this machine.

    Run again in the same workspace, it goes on where it stopped.

    Example: comity simulate collaboration.toml --workspace out/trial --json out/trial.json
    """
    _simulate(file, workspace, json_file, with_scene=False)


def _simulate(file: Path, workspace: Path, json_file: Path | None, *, with_scene: bool) -> None:
    from federation.party import write_atomically
    from federation.trial.simulation import simulate
    from federation.watch import watched

    with watched():
        report = simulate(file, workspace, with_scene=with_scene)
    if json_file is not None:
        write_atomically(json_file, report.model_dump_json(indent=2).encode() + b"\n")
    print_report(report, workspace)


def _examples() -> Path:
    """Find the examples: beside the packages in a checkout, inside this one when installed."""
    here = Path(__file__).resolve().parent
    for path in (here.parent / "examples", here / "examples"):
        if path.is_dir():
            return path
    raise FederationError("the examples were not installed: run from a checkout")


def print_report(report: "Report", workspace: Path) -> None:
    """Print what a trial came to: figures, what changed meanwhile, and where things lie."""
    if report.models:
        table = Table("model trained by", "privacy", "AUC", "lift at 5 %", "AUC, no seeds")
        for model in report.models:
            if model.epsilon is not None:
                privacy = f"epsilon = {model.epsilon:g}"
            else:
                privacy = "–" if model.name == "random order" else "none"
            table.add_row(
                model.name,
                privacy,
                f"{model.everyone.auc:.3f}",
                f"{model.everyone.lift_at_5:.2f}",
                f"{model.unseen.auc:.3f}",
            )
        out.print(table)
    for change in report.changes:
        said = ", ".join(f"{count} {what}" for what, count in change.said.items())
        out.print(
            f"{change.party}: {said} between {change.before} and {change.after}; people used: "
            f"{change.eligible_before:,}, then {change.eligible_after:,}",
            markup=False,
        )
    for party in report.parties:
        for job, people in party.segment_rows.items():
            files = sorted((workspace / party.party / "segments").glob(f"{job}.*"))
            lies = "".join(f", in {file}" for file in files)
            out.print(f"{party.party}: segment {job} of {people:,} people{lies}", markup=False)
    if report.unprotected:
        names = ", ".join(report.unprotected)
        out.print(f"no epsilon holds for {names}: trained without noise", style="bold red")
    out.print(
        f"person-level epsilon {report.epsilon:.3f} at delta {report.delta:g}, of "
        f"{report.epsilon_cap:g} agreed; report: {workspace / 'report.html'}",
        markup=False,
    )
    out.print(f"verify every log: {_called_by()}{report.verify_command}", markup=False)


def _called_by() -> str:
    """Return the folder to put before `comity` where the shell would not find it by itself."""
    script = Path(sys.argv[0])
    return f"{script.parent}/" if script.name == "comity" and not shutil.which("comity") else ""
