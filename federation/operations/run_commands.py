"""`comity run | status | logs | cancel | resume`: a coordinator's runs, here or from afar.

Guarantees: parses, calls, prints. Without `--config` naming another, the coordinator is the one
whose `coordinator.toml` lies here.

Leaves to others: everything else (`runs`, `remote`, `journal`).
"""

import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from federation.terminal import JsonFlag, answer, err, out, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from compliance.records import RefusedFor
    from federation.model_standing import ModelStanding
    from federation.operations.journal import Run
    from federation.operations.runs import Runs

__all__ = ["cancel", "logs", "resume", "run", "status"]


_LOOK_SECONDS = 0.2
_NOTHING = "nothing was run yet"
_LEFT = "ended with the coordinator's process, whose next start says `stopped`"
HERE = Path("coordinator.toml")

ConfigOption = Annotated[
    Path,
    typer.Option(
        "--config",
        help="coordinator.toml on the coordinator's machine, or a file (TOML) of address, "
        "root-certificates and token-file elsewhere.",
    ),
]


def _numbered(text: str) -> int:
    """Return the number of a run that somebody typed."""
    if not (text.isascii() and text.isdecimal()):
        raise typer.BadParameter(
            f"expected a run's number, got {text!r}; --config names a coordinator's folder"
        )
    return int(text)


NumberArgument = Annotated[
    int | None,
    typer.Argument(
        metavar="[RUN]", parser=_numbered, help="The run's number; the last if left out."
    ),
]
DetachFlag = Annotated[
    bool, typer.Option("--detach", help="Leave once it waits; see it by `comity logs --follow`.")
]


def _patience_option(left_out: str) -> Any:
    return typer.Option(
        "--patience",
        metavar="SECONDS",
        min=1,
        max=604_800,
        help=f"Wait so long for nodes that are away; left out, {left_out}.",
    )


def run(
    job: Annotated[
        Path | None,
        typer.Argument(help="File (TOML) of one job: what stands under [[jobs]] elsewhere."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every job of the coordinator's that has not ended.")
    ] = False,
    detach: DetachFlag = False,
    patience: Annotated[
        int | None,
        _patience_option(
            "as long as the coordinator's settings say, and 30 seconds where no job is due"
        ),
    ] = None,
    config: ConfigOption = HERE,
    as_json: JsonFlag = False,
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
    order = order.model_copy(update={"patience_seconds": patience})
    with _runs(config) as runs:
        submitted = runs.submit(order)
        for before in runs.all():
            if before.number < submitted.number and not before.state.is_over:
                told = f"run {submitted.number} waits until run {before.number} is over"
                err.print(told, markup=False)
        _finish(runs, submitted, detach=detach, as_json=as_json)


def status(
    number: Annotated[
        int | None,
        typer.Argument(
            metavar="[RUN]", parser=_numbered, help="The run's number; all if left out."
        ),
    ] = None,
    config: ConfigOption = HERE,
    as_json: JsonFlag = False,
) -> None:
    """Say where runs and their models stand, and why; and which calls were refused.

    Example: comity status --config /srv/comity/coordinator
    """
    with _runs(config) as runs:
        found = runs.all() if number is None else (runs.run(number),)
        at_work = {
            one.number: _last_line(runs, one.number) if runs.is_served else _LEFT
            for one in found
            if one.state.is_at_work
        }
        beside = _Beside.of(runs) if number is None else None
    lines = []
    for one in found:
        jobs = ", ".join(one.jobs) or "every job"
        why = one.told or at_work.get(one.number, "")
        at = f"{one.steps[-1].at:%Y-%m-%d %H:%M:%S}"
        lines.append(
            f"{one.number:>4}  {one.state:<10}  {at}  {jobs}" + (f": {why}" if why else "")
        )
        lines += [f"      {absent.told}" for absent in one.absent_now]
    document: dict[str, object] = {"runs": found}
    if beside is not None:
        document |= {"models": beside.models, "refused": beside.refused}
    answer(document, *(lines or [_NOTHING]), *(beside.lines if beside else ()), as_json=as_json)


def logs(
    number: NumberArgument = None,
    follow: Annotated[bool, typer.Option("--follow", help="Stay until the run is over.")] = False,
    config: ConfigOption = HERE,
    as_json: JsonFlag = False,
) -> None:
    """Print what a run told.

    Example: comity logs --follow --config /srv/comity/coordinator
    """
    with _runs(config) as runs:
        if number is None and not runs.all():
            answer([], _NOTHING, as_json=as_json)
            return
        told = _lines(runs, _named(runs, number).number, follow=follow)
        if as_json:
            print_json([*told])
        else:
            for one in told:
                out.print(one, markup=False)


def cancel(
    number: NumberArgument = None,
    job: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Take this job out of the list instead, so that no run runs it; only one for "
            "which nobody was charged, or whose model is out of use.",
        ),
    ] = None,
    config: ConfigOption = HERE,
    as_json: JsonFlag = False,
) -> None:
    """Stop a run before its next message, or take a job out; what was charged stays charged.

    Leaves with 0 when it is cancelled, 1 when it was done or stopped before that, or nobody serves
    the coordinator's folder: its next start cancels it.

    Example: comity cancel --config /srv/comity/coordinator
    """
    from federation.operations.journal import RunState

    if job is not None:
        if number is not None:
            raise typer.BadParameter("name a run, or a job by --job, and not both")
        with _runs(config) as runs:
            dropped = runs.drop(job)
        answer(dropped, f"job {job} is listed no more", as_json=as_json)
        return
    with _runs(config) as runs:
        one = runs.cancel(_named(runs, number).number)
        while not one.state.is_over and runs.is_served:
            time.sleep(_LOOK_SECONDS)
            one = runs.run(one.number)
    told = "" if one.state.is_over else ": `comity coordinator up` cancels it when it starts"
    answer(one, f"run {one.number} is {one.state}{told}", as_json=as_json)
    if one.state is not RunState.CANCELLED:
        raise typer.Exit(1)


def resume(
    number: NumberArgument = None,
    detach: DetachFlag = False,
    patience: Annotated[int | None, _patience_option("as long as before")] = None,
    config: ConfigOption = HERE,
    as_json: JsonFlag = False,
) -> None:
    """Go on with a run that was stopped or cancelled, from where it was.

    Example: comity resume 3 --config /srv/comity/coordinator
    """
    with _runs(config) as runs:
        one = _named(runs, number)
        told = runs.lines(one.number)
        while told.lines:
            told = runs.lines(one.number, after=told.after)
        resumed = runs.resume(one.number, patience_seconds=patience)
        if patience not in {None, resumed.patience_seconds}:
            err.print("it waits as long as before: the coordinator runs an older version of Comity")
        _finish(runs, resumed, detach=detach, after=told.after, as_json=as_json)


def _finish(runs: "Runs", one: "Run", *, detach: bool, as_json: bool, after: int = 0) -> None:
    """Show a run to its end, and leave with its exit code; where a program asks, show it to nobody.

    What it told last is why it ended, so that it is not told again unless nobody could tell it.
    """
    from federation.operations.journal import RunState

    if detach:
        answer(one, f"run {one.number} is {one.state}", as_json=as_json)
        return
    last = _print_lines(runs, one.number, err if as_json else out, follow=True, after=after)
    one = runs.run(one.number)
    told = f"run {one.number} is {one.state}"
    if one.told and not last.endswith(" ".join(one.told.splitlines())):
        told += f": {one.told}"
    if one.state is not RunState.DONE:
        told += f"; comity resume {one.number} goes on with it"
    err.print(told, markup=False)
    if as_json:
        print_json(one)
    if one.state is not RunState.DONE:
        raise typer.Exit(1)


def _print_lines(
    runs: "Runs", number: int, console: "Console", *, follow: bool, after: int = 0
) -> str:
    """Print what a run tells from a place on, and return its last line."""
    last = ""
    for last in _lines(runs, number, follow=follow, after=after):
        console.print(last, markup=False)
    return last


def _lines(runs: "Runs", number: int, *, follow: bool, after: int = 0) -> Iterator[str]:
    """Yield what a run tells from a place on; to its end, where it is followed."""
    while True:
        over = runs.run(number).state.is_over
        told = runs.lines(number, after=after)
        yield from told.lines
        if told.after == after:
            if over or not follow:
                return
            time.sleep(_LOOK_SECONDS)
        after = told.after


@dataclass(frozen=True)
class _Beside:
    """What a coordinator tells beside its runs.

    Attributes:
        models: where they stand; None where that is not told.
        refused: how many calls were refused, by the reason; likewise.
        lines: the same in words, or why it is not told.
    """

    models: "Sequence[ModelStanding] | None"
    refused: "Mapping[RefusedFor, int] | None"
    lines: Sequence[str]

    @classmethod
    def of(cls, runs: "Runs") -> Self:
        """Ask for it."""
        from compliance.errors import ComplianceError
        from federation.errors import VersionError, WorkspaceError
        from federation.operations.refused_calls import WORDS

        untold = "where models stand and which calls were refused is not told"
        try:
            models, refused = runs.models(), runs.refused()
        except VersionError:  # it has told of its runs: it is a coordinator
            why = "the coordinator runs an older version of Comity"
            return cls(None, None, [f"{untold}: {why}"])
        except (WorkspaceError, ComplianceError) as error:  # which hides nothing of the runs
            return cls(None, None, [f"{untold}: {error}"])
        lines = [f"model {one.model} is {one.use}: {one.why or one.erasure}" for one in models]
        if refused:
            told = "calls refused so far; audit.jsonl in the coordinator's folder says whence:"
            counts = sorted(refused.items())
            lines += [told, *(f"{count:>6}  {why:<10}  {WORDS[why]}" for why, count in counts)]
        return cls(models, refused, lines)


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
        raise RunStateError(f"{_NOTHING}: begin with `comity run`")
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
        here = LocalRuns(folder, by="local")
        if not here.is_served:
            told = "nobody serves this folder: what is queued waits for `comity coordinator up`"
            left = [str(one.number) for one in here.all() if one.state.is_at_work]
            err.print("; ".join([told, *(f"run {number} {_LEFT}" for number in left)]))
        yield here


def _is_remote(config: Path) -> bool:
    """Whether a file is an operator's elsewhere; what cannot be read is left to the reader."""
    try:
        return config.is_file() and "token-file" in tomllib.loads(config.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        return False
