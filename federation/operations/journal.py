"""The journal of runs: what was asked for, what became of it, and what it told, on disk.

```
            ┌──────── resume ─────────────────────┐
            ▼                                     │
 submit ► queued ── begin ──► running ── ended ─► stopped
            │                  │  │                ▲
         cancel             cancel └─► done         │
            ▼                  ▼        ▲           │
        cancelled ◄──────── cancelling ─┴───────────┘
            └── resume ─► queued
```

Guarantees: no other change of state is possible; every state is on disk before anybody is answered,
with who wished it and when; a run of the same jobs that waits or goes on is never queued twice;
what was told stays, line by line, with one line for each stop and each time that it went on, which
is there before the state is. Any process may read and write, under the journal's lock. It is the
operator's own and none of Flower's: Flower may lose its state, and the journal does not.

Leaves to others: running (`federation.apps.operating.dispatcher`), what jobs mean (`coordinator`),
privacy budgets, which no change of state here gives back or spends.
"""

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from compliance.canonical import is_unsaid
from compliance.errors import describe
from federation.clock import Clock, utc_now
from federation.errors import RunCancelledError, RunStateError, WorkspaceError
from federation.party import write_atomically
from federation.specification import Deadline, JobName

__all__ = [
    "COORDINATOR",
    "NEXT_STATES",
    "Absent",
    "Lines",
    "Run",
    "RunJournal",
    "RunState",
    "RunStep",
]

COORDINATOR: Final = "coordinator"
"""Who changes a run's state, where no operator does."""

_PIECE_BYTES: Final = 1 << 18
_LONGEST_LINE: Final = 2000


class RunState(StrEnum):
    """Where a run stands."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    """It was told to stop, and does so before its next message."""
    STOPPED = "stopped"
    """A party refused or was silent, something failed, or the coordinator's process died."""
    CANCELLED = "cancelled"
    DONE = "done"

    @property
    def is_over(self) -> bool:
        """Whether nothing happens any more, unless somebody resumes it."""
        return self in {RunState.STOPPED, RunState.CANCELLED, RunState.DONE}

    @property
    def is_at_work(self) -> bool:
        """Whether Flower has a run for it."""
        return self in {RunState.RUNNING, RunState.CANCELLING}


NEXT_STATES: Final[Mapping[RunState, frozenset[RunState]]] = {
    RunState.QUEUED: frozenset({RunState.RUNNING, RunState.CANCELLED}),
    RunState.RUNNING: frozenset({RunState.CANCELLING, RunState.STOPPED, RunState.DONE}),
    RunState.CANCELLING: frozenset({RunState.CANCELLED, RunState.STOPPED, RunState.DONE}),
    RunState.STOPPED: frozenset({RunState.QUEUED}),
    RunState.CANCELLED: frozenset({RunState.QUEUED}),
    RunState.DONE: frozenset(),
}
"""The states that may follow each."""


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RunStep(_Closed):
    """One change of a run's state.

    Attributes:
        state: the new one.
        at: when.
        by: the operator's name, or "coordinator".
        told: in a sentence, why; empty where nothing is to be said.
    """

    state: RunState
    at: AwareDatetime
    by: str
    told: str = ""


class Absent(_Closed):
    """A party that a run was told to be absent, since it speaks another version.

    Attributes:
        attempt: at the run, from 1.
        party: its name; `node N` where it gave none.
        told: both versions, and what is to be done.
    """

    attempt: Annotated[int, Field(ge=1)]
    party: str
    told: str


class Run(_Closed):
    """A run, with all its past.

    Attributes:
        number: counts from 1.
        jobs: names of the jobs that it is to run; empty for all that have not ended.
        patience_seconds: how long parties that are away are waited for; by the coordinator's
            settings where nobody said so.
        steps: every state that it had, the present one last.
        absent: parties of other versions, once for each attempt.
    """

    number: Annotated[int, Field(ge=1)]
    jobs: tuple[JobName, ...] = ()
    patience_seconds: Annotated[Deadline | None, Field(exclude_if=is_unsaid)] = None
    steps: Annotated[tuple[RunStep, ...], Field(min_length=1)]
    absent: Annotated[tuple[Absent, ...], Field(exclude_if=is_unsaid)] = ()

    @property
    def state(self) -> RunState:
        """Where it stands."""
        return self.steps[-1].state

    @property
    def told(self) -> str:
        """Why it stands there."""
        return self.steps[-1].told

    @property
    def attempt(self) -> int:
        """How often it was queued; a process of an earlier attempt has no say any more."""
        return sum(step.state is RunState.QUEUED for step in self.steps)

    def after(self, step: RunStep) -> "Run":
        """Return it with a further step.

        Raises:
            RunStateError: the step cannot follow.
        """
        if step.state not in NEXT_STATES[self.state]:
            raise RunStateError(
                f"run {self.number} is {self.state} and cannot become {step.state}: "
                f"{_REMEDY[self.state]}"
            )
        return self.model_copy(update={"steps": (*self.steps, step)})

    @property
    def absent_now(self) -> tuple[Absent, ...]:
        """Parties of other versions in the present attempt, or the last one."""
        return tuple(one for one in self.absent if one.attempt == self.attempt)


_REMEDY: Final = {
    RunState.QUEUED: "wait until it runs, or cancel it",
    RunState.RUNNING: "wait until it ends, or cancel it; if its coordinator died, start that first",
    RunState.CANCELLING: "it stops before its next message",
    RunState.STOPPED: "resume it",
    RunState.CANCELLED: "resume it",
    RunState.DONE: "begin another run",
}


_TOLD_STEPS: Final = {
    RunState.QUEUED: "resumed",
    RunState.CANCELLING: "to be cancelled",
    RunState.STOPPED: "stopped",
    RunState.CANCELLED: "cancelled",
}


class Lines(_Closed):
    """Lines that a run told.

    Attributes:
        lines: without their ends.
        after: where the next ones begin.
    """

    lines: tuple[str, ...]
    after: int


class RunJournal:
    """The runs of one coordinator, a folder each."""

    def __init__(self, path: Path, *, clock: Clock = utc_now) -> None:
        self.path = path
        self._clock = clock
        self._parsed: dict[Path, tuple[int, Run | None]] = {}

    def submit(self, jobs: Sequence[str], *, by: str, patience_seconds: int | None = None) -> Run:
        """Queue a run, or return the one of the same jobs that waits or goes on, as it is.

        Args:
            jobs: their names; none for all that have not ended.
            by: who asks.
            patience_seconds: how long parties that are away are waited for, if somebody says so.
        """
        with self._locked():
            runs = self.all()
            goes_on = {RunState.QUEUED, RunState.RUNNING}  # what is being cancelled does not
            alike = [one for one in runs if one.jobs == tuple(jobs) and one.state in goes_on]
            if alike:
                return alike[-1]
            step = RunStep(state=RunState.QUEUED, at=self._clock(), by=by)
            number = runs[-1].number + 1 if runs else 1
            run = Run(
                number=number, jobs=tuple(jobs), patience_seconds=patience_seconds, steps=(step,)
            )
            self._write(run)
            return run

    def all(self) -> tuple[Run, ...]:
        """Return every run, the oldest first.

        Raises:
            WorkspaceError: a file of the journal is damaged.
        """
        return tuple(self._read(file) for file in sorted(self.path.glob("*/run.json")))

    @contextmanager
    def held(self) -> Iterator[tuple[Run, ...]]:
        """Yield every run, the oldest first; none changes its state within the block.

        Raises:
            WorkspaceError: a file of the journal is damaged.
        """
        with self._locked():
            yield self.all()

    def run(self, number: int) -> Run:
        """Return one run.

        Raises:
            RunStateError: there is none of that number.
        """
        file = self.folder(number) / "run.json"
        if not file.exists():
            raise RunStateError(f"there is no run {number}: `comity status` lists those there are")
        return self._read(file)

    def folder(self, number: int) -> Path:
        """Return the folder of a run."""
        return self.path / f"{number:06}"

    def change(
        self,
        number: int,
        state: RunState,
        *,
        by: str,
        told: str = "",
        patience_seconds: int | None = None,
    ) -> Run:
        """Have a run take its next state, and wait as long from then on, if somebody says so.

        Raises:
            RunStateError: there is no such run, or that state cannot follow.
        """
        with self._locked():
            step = RunStep(state=state, at=self._clock(), by=by, told=told)
            run = self.run(number).after(step)
            if patience_seconds is not None:
                run = run.model_copy(update={"patience_seconds": patience_seconds})
            self._tell_step(number, step)
            self._write(run)
            return run

    def cancel(self, number: int, *, by: str) -> Run:
        """Have a run stop before its next message; one that waits, at once.

        Raises:
            RunStateError: there is no such run, or it is over.
        """
        with self._locked():
            run = self.run(number)
            if run.state is RunState.CANCELLING:
                return run
            waits = run.state is RunState.QUEUED
            state = RunState.CANCELLED if waits else RunState.CANCELLING
            step = RunStep(state=state, at=self._clock(), by=by)
            run = run.after(step)
            self._tell_step(number, step)
            self._write(run)
            return run

    def resume(self, number: int, *, by: str, patience_seconds: int | None = None) -> Run:
        """Queue a run again that was stopped or cancelled; it waits as long as before, or as said.

        Raises:
            RunStateError: there is no such run, or it is neither.
        """
        return self.change(number, RunState.QUEUED, by=by, patience_seconds=patience_seconds)

    def check_wanted(self, number: int, attempt: int) -> None:
        """Return only if an attempt at a run is still wanted.

        Raises:
            RunCancelledError: it was told to stop, or was given up.
        """
        run = self.run(number)
        if run.state is RunState.CANCELLING:
            raise RunCancelledError(
                f"run {number} was cancelled: what was charged stays charged; resume it to go on"
            )
        if run.attempt != attempt or run.state is not RunState.RUNNING:
            raise RunCancelledError(f"attempt {attempt} at run {number} was given up before")

    def finish(self, number: int, attempt: int, state: RunState, *, told: str) -> None:
        """Say how an attempt at a run ended, unless it was given up before."""
        with self._locked():
            run = self.run(number)
            if run.attempt == attempt and run.state.is_at_work:
                step = RunStep(state=state, at=self._clock(), by=COORDINATOR, told=told)
                self._write(run.after(step))

    def note_absent(self, number: int, attempt: int, party: str, *, told: str) -> None:
        """Note that a party is absent in an attempt, for its version, unless that is noted."""
        one = Absent(attempt=attempt, party=party, told=told[:_LONGEST_LINE])
        with self._locked():
            run = self.run(number)
            if all(known.party != party for known in run.absent if known.attempt == attempt):
                self._write(run.model_copy(update={"absent": (*run.absent, one)}))

    def tell(self, number: int, line: str) -> None:
        """Add a line to what a run told."""
        one = " ".join(line.splitlines())[:_LONGEST_LINE]
        with (self.folder(number) / "lines.log").open("a", encoding="utf-8") as file:
            file.write(f"{one}\n")

    def _tell_step(self, number: int, step: RunStep) -> None:
        """Tell of a state that nobody else tells of: the ServerApp says itself how it ended."""
        if step.state not in _TOLD_STEPS:
            return
        by = "" if step.by == COORDINATOR else f" by {step.by}"
        words = f"{_TOLD_STEPS[step.state]}{by}, "
        if not self._last_line(number).startswith(
            words
        ):  # else the state was not kept the last time
            why = f": {step.told}" if step.told else ""
            self.tell(number, f"{words}{step.at:%Y-%m-%d %H:%M:%S} UTC{why}")

    def _last_line(self, number: int) -> str:
        try:
            with (self.folder(number) / "lines.log").open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 4 * _LONGEST_LINE - 1))
                lines = file.read().decode("utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return lines[-1] if lines else ""

    def lines(self, number: int, *, after: int = 0) -> Lines:
        """Return what a run told from a place on, whole lines, at most 256 KiB.

        Args:
            number: the run's.
            after: 0, or what an earlier answer said.

        Raises:
            RunStateError: there is no such run.
        """
        self.run(number)
        try:
            with (self.folder(number) / "lines.log").open("rb") as file:
                is_told = after < file.seek(0, os.SEEK_END)  # a place may be beyond any file's end
                file.seek(max(after, 0) if is_told else 0)
                piece = file.read(_PIECE_BYTES) if is_told else b""
        except FileNotFoundError:
            piece = b""
        whole = piece[: piece.rfind(b"\n") + 1]
        lines = tuple(whole.decode("utf-8", errors="replace").splitlines())
        return Lines(lines=lines, after=max(after, 0) + len(whole))

    def _read(self, file: Path) -> Run:
        """Return a run; it is parsed again once its file has grown, as with all that is added."""
        size, kept = self._parsed.get(file, (0, None))
        if kept is not None and file.stat().st_size == size:
            return kept
        content = file.read_bytes()
        try:
            run = Run.model_validate_json(content)
        except ValidationError as error:
            raise WorkspaceError(f"{file}: {describe(error)}") from error
        self._parsed[file] = len(content), run
        return run

    def _write(self, run: Run) -> None:
        content = run.model_dump_json(indent=2).encode() + b"\n"
        write_atomically(self.folder(run.number) / "run.json", content, mode=0o600)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
