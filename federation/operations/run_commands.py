"""`comity run | status | logs | cancel | resume`: a coordinator's runs, here or from afar.

Guarantees: parses, calls, prints. Without `--config` naming another, the coordinator is the one
whose `coordinator.toml` lies here.

Leaves to others: everything else (`runs`, `remote`, `journal`).
"""

import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from federation.operations.journal import Run
    from federation.operations.runs import Runs

__all__ = ["cancel", "logs", "resume", "run", "status"]

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

_LOOK_SECONDS = 0.2
HERE = Path("coordinator.toml")

ConfigOption = Annotated[
    Path,
    typer.Option(
        "--config",
        help="coordinator.toml on the coordinator's machine, or a file (TOML) of address, "
        "root-certificates and token-file elsewhere.",
    ),
]
NumberArgument = Annotated[
    int | None, typer.Argument(metavar="[RUN]", help="The run's number; the last if left out.")
]
DetachFlag = Annotated[
    bool, typer.Option("--detach", help="Leave once it waits; see it by `comity logs --follow`.")
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]


def run(
    job: Annotated[
        Path | None,
        typer.Argument(help="File (TOML) of one job: what stands under [[jobs]] elsewhere."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every job of the coordinator's that has not ended.")
    ] = False,
    detach: DetachFlag = False,
    config: ConfigOption = HERE,
) -> None:
    """Run a job over the parties' nodes, and show how it goes on.

    Leaves with 0 when it is done, 1 when it was stopped or cancelled. Interrupted, this command
    leaves and the run goes on; the same command shows it again.

    Example: comity run match.toml --config /srv/comity/coordinator
    """
    from federation.operations.runs import Order, read_order

    if (job is None) is not everything:
        raise typer.BadParameter("name a file of one job, or --all, and not both")
    order = Order() if job is None else read_order(job)
    with _runs(config) as runs:
        _finish(runs, runs.submit(order), detach=detach)


def status(
    number: NumberArgument = None, config: ConfigOption = HERE, as_json: JsonFlag = False
) -> None:
    """Say where runs stand, and why.

    Example: comity status --config /srv/comity/coordinator
    """
    from pydantic import TypeAdapter

    from federation.operations.journal import Run

    with _runs(config) as runs:
        found = runs.all() if number is None else (runs.run(number),)
        at_work = {
            one.number: _last_line(runs, one.number) for one in found if one.state.is_at_work
        }
    if as_json:
        listed = TypeAdapter(tuple[Run, ...]).dump_json(found, indent=2)
        sys.stdout.write(listed.decode() + "\n")
        return
    for one in found:
        step = one.steps[-1]
        jobs = ", ".join(one.jobs) or "every job"
        why = one.told or at_work.get(one.number, "")
        told = f": {why}" if why else ""
        at = f"{step.at:%Y-%m-%d %H:%M:%S}"
        out.print(f"{one.number:>4}  {one.state:<10}  {at}  {jobs}{told}", markup=False)
    if not found:
        out.print("nothing was run yet")


def logs(
    number: NumberArgument = None,
    follow: Annotated[bool, typer.Option("--follow", help="Stay until the run is over.")] = False,
    config: ConfigOption = HERE,
) -> None:
    """Print what a run told.

    Example: comity logs --follow --config /srv/comity/coordinator
    """
    with _runs(config) as runs:
        _print_lines(runs, _named(runs, number).number, follow=follow)


def cancel(number: NumberArgument = None, config: ConfigOption = HERE) -> None:
    """Stop a run before its next message; what was charged stays charged.

    Leaves with 0 when it is cancelled, 1 when it was done or stopped before that.

    Example: comity cancel --config /srv/comity/coordinator
    """
    from federation.operations.journal import RunState

    with _runs(config) as runs:
        one = runs.cancel(_named(runs, number).number)
        while not one.state.is_over:
            time.sleep(_LOOK_SECONDS)
            one = runs.run(one.number)
    out.print(f"run {one.number} is {one.state}", markup=False)
    if one.state is not RunState.CANCELLED:
        raise typer.Exit(1)


def resume(
    number: NumberArgument = None, detach: DetachFlag = False, config: ConfigOption = HERE
) -> None:
    """Go on with a run that was stopped or cancelled, from where it was.

    Example: comity resume 3 --config /srv/comity/coordinator
    """
    with _runs(config) as runs:
        one = _named(runs, number)
        told = runs.lines(one.number)
        while told.lines:
            told = runs.lines(one.number, after=told.after)
        _finish(runs, runs.resume(one.number), detach=detach, after=told.after)


def _finish(runs: "Runs", one: "Run", *, detach: bool, after: int = 0) -> None:
    """Show a run to its end, and leave with its exit code."""
    from federation.operations.journal import RunState

    if detach:
        out.print(f"run {one.number} is {one.state}", markup=False)
        return
    _print_lines(runs, one.number, follow=True, after=after)
    one = runs.run(one.number)
    told = f": {one.told}" if one.told else ""
    err.print(f"run {one.number} is {one.state}{told}", markup=False)
    if one.state is not RunState.DONE:
        raise typer.Exit(1)


def _print_lines(runs: "Runs", number: int, *, follow: bool, after: int = 0) -> None:
    while True:
        over = runs.run(number).state.is_over
        told = runs.lines(number, after=after)
        for line in told.lines:
            out.print(line, markup=False)
        if told.after == after:
            if over or not follow:
                return
            time.sleep(_LOOK_SECONDS)
        after = told.after


def _last_line(runs: "Runs", number: int) -> str:
    """Return what a run told last, on one line with single spaces; nothing if it told nothing."""
    last, after = "", 0
    while (told := runs.lines(number, after=after)).lines:
        last, after = told.lines[-1], told.after
    return " ".join(last.split())


def _named(runs: "Runs", number: int | None) -> "Run":
    """Return the run of a number, or the last one."""
    from federation.errors import RunStateError

    if number is not None:
        return runs.run(number)
    found = runs.all()
    if not found:
        raise RunStateError("nothing was run yet: begin with `comity run`")
    return found[-1]


@contextmanager
def _runs(config: Path) -> Iterator["Runs"]:
    """Open the runs of the coordinator that a file describes, here or elsewhere."""
    from federation.operations.folder import CoordinatorFolder
    from federation.operations.remote import RemoteConfig, RemoteRuns
    from federation.operations.runs import LocalRuns

    if _is_remote(config):
        with RemoteRuns(RemoteConfig.read(config)) as runs:
            yield runs
    else:
        folder = CoordinatorFolder.open(config)
        if not folder.is_served:
            err.print("nobody serves this folder: what is queued waits for `comity coordinator up`")
        yield LocalRuns(folder, by="local")


def _is_remote(config: Path) -> bool:
    """Whether a file is an operator's elsewhere; what cannot be read is left to the reader."""
    try:
        return config.is_file() and "token-file" in tomllib.loads(config.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        return False
