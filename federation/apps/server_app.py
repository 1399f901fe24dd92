"""The Flower ServerApp of the coordinator: run the jobs in its folder over Flower's Grid.

The run configuration names the coordinator's folder (`coordinator="/srv/comity/coordinator"`) and,
if wanted, `deadline-seconds` for each exchange, and a `run`: a folder of the journal of runs, which
says which jobs. Nothing in it can change a job or a term.

Guarantees: prints how the jobs go on, unless somebody listens already, and how the run ended in one
last line, and writes both into the journal where there is one; where anything went wrong it raises,
by which Flower takes the run for failed, and of our own errors Flower prints no traceback.

It leans on a name of Flower that is not public; `tests/test_node_process.py` fails when it moves.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.superlink.grid.http_grid import HttpGrid
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from compliance.errors import ComplianceError
from federation.apps.grid import PiggybackGrid
from federation.channel import Channel, GridChannel, NodesGrid
from federation.coordinator import Coordinator
from federation.errors import FederationError, RunCancelledError, WorkspaceError
from federation.observing.spans import TracedChannel
from federation.observing.traces import traced
from federation.operations.folder import CoordinatorFolder
from federation.operations.journal import RunJournal, RunState
from federation.operations.registered_nodes import registered_name
from federation.party import PartyFolder
from federation.progress import Progress, listener, listening, report
from federation.roll_call import ROLL_CALL, Patience
from federation.watch import line
from privacy.errors import PrivacyError

__all__ = ["app", "prompt"]

_TOLD = (FederationError, ComplianceError, PrivacyError, OSError)
"""Errors whose text says what is to be done: where they were raised helps nobody."""

app = ServerApp()


def _untraced(record: logging.LogRecord) -> bool:
    """Let Flower log one of our errors without its traceback; the last line has said it."""
    if record.exc_info and isinstance(record.exc_info[1], _TOLD):
        record.exc_info = None
    return True


class _Printer:
    """Prints lines that Flower carries to whoever started the run; the journal keeps them."""

    def __init__(self, run: "_JournalledRun | None") -> None:
        self._console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self._run = run

    def __call__(self, progress: Progress) -> None:
        if progress.total == 0:
            self._print(line(progress))
        if progress.absent is not None and self._run is not None:
            self._run.note_absent(progress.absent, progress.stage)

    def end(self, state: RunState, told: str, why: str = "") -> None:
        """Print the last line, and say in the journal how the run ended, and why so."""
        self._print(escape(f"{told}{': ' if why else ''}{why}"))
        if self._run is not None:
            self._run.end(state, why)

    def _print(self, markup: str) -> None:
        self._console.print(markup)
        if self._run is not None:
            self._run.tell(Text.from_markup(markup).plain)


class _JournalledRun:
    """A run of the journal, as its ServerApp sees it."""

    def __init__(self, folder: Path) -> None:
        self._journal = RunJournal(folder.parent)
        try:
            self._number = int(folder.name)
        except ValueError as error:
            raise WorkspaceError(f"run: expected a folder of the journal, got {folder}") from error
        run = self._journal.run(self._number)
        self.jobs = run.jobs
        self.patience_seconds = run.patience_seconds
        self._attempt = run.attempt

    @property
    def collector(self) -> str | None:
        """Where spans go, by the coordinator's folder that the journal lies in, if anywhere."""
        folder = self._journal.path.parent
        if not (folder / "coordinator.toml").exists():
            return None
        return CoordinatorFolder.open(folder).config.traces

    def name_of(self, node: int) -> str | None:
        """Return under whose name the key of a node is taken, where that is known."""
        folder = self._journal.path.parent
        if not (folder / "coordinator.toml").exists():
            return None
        return registered_name(CoordinatorFolder.open(folder).registered_nodes, node)

    def check_wanted(self) -> None:
        self._journal.check_wanted(self._number, self._attempt)

    def tell(self, told: str) -> None:
        self._journal.tell(self._number, told)

    def note_absent(self, party: str, told: str) -> None:
        self._journal.note_absent(self._number, self._attempt, party, told=told)

    def end(self, state: RunState, why: str) -> None:
        words = "" if state is RunState.CANCELLED else why
        self._journal.finish(self._number, self._attempt, state, told=words)


def prompt(grid: Grid) -> NodesGrid:
    """Return a Grid by which messages come and go sooner than by Flower's own, where there is one.

    A SuperLink tells of a reply before all of it is there. Flower's Grid then waits for a second,
    or longer.
    """
    return PiggybackGrid(grid) if isinstance(grid, HttpGrid) else grid


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run every job that has not ended yet, and say how they go on."""
    if listener() is not None:
        _run(grid, context)
        return
    journalled = _journalled(context)
    jobs = () if journalled is None else journalled.jobs
    printer = _Printer(journalled)
    logging.getLogger("flwr").addFilter(_untraced)
    try:
        with listening(printer):
            without = _run(grid, context, journalled).went_without(jobs)
    except RunCancelledError as error:
        printer.end(RunState.CANCELLED, "cancelled", str(error))
        raise
    except _TOLD as error:
        printer.end(RunState.STOPPED, "stopped", str(error))
        raise
    told = f"done: {', '.join(jobs) or 'every job'} has ended"
    partial = [f"{job} without {', '.join(sorted(names))}" for job, names in without.items()]
    printer.end(RunState.DONE, told, "; ".join(partial))


def _journalled(context: Context) -> _JournalledRun | None:
    folder = context.run_config.get("run")
    return _JournalledRun(Path(folder)) if isinstance(folder, str) and folder else None


def _run(grid: Grid, context: Context, journalled: _JournalledRun | None = None) -> Coordinator:
    folder = context.run_config.get("coordinator")
    if not isinstance(folder, str) or not folder:
        raise WorkspaceError('the run\'s configuration lacks coordinator="FOLDER"')
    carrier = prompt(grid)
    deadline = float(context.run_config.get("deadline-seconds", 600.0))
    wished = None if journalled is None else journalled.patience_seconds
    patience = Patience.of(deadline, wished)
    registered = (lambda _: None) if journalled is None else journalled.name_of
    coordinator = Coordinator.open(Path(folder), registered=registered)
    name = PartyFolder(Path(folder)).name
    channel = GridChannel(
        carrier,
        deadline_seconds=deadline,
        nodes_seconds=patience.jobs,
        check_wanted=journalled.check_wanted if journalled else lambda: None,
        tell=lambda told: report(Progress(name, ROLL_CALL, told)),
    )
    if journalled is None:
        coordinator.run(channel, patience=patience)
        return coordinator
    journalled.check_wanted()
    with _traced(channel, journalled.collector, Path(folder)) as carried:
        coordinator.run(carried, only=journalled.jobs, patience=patience)
    return coordinator


@contextmanager
def _traced(channel: Channel, collector: str | None, party: Path) -> Iterator[Channel]:
    """Yield a channel that tells a collector of its exchanges, where there is one."""
    if collector is None:
        yield channel
        return
    with traced(collector, PartyFolder(party).name) as send:
        carried = TracedChannel(channel, send)
        try:
            yield carried
        finally:
            carried.close()
