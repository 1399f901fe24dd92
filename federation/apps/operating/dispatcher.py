"""What moves runs on: takes the oldest that waits, has Flower run it, and sees how it ends.

```
 begin                  at every look
   1 whatever was at      2 nothing at work: what the journal says is so is stopped, and the
     work when the          oldest that waits begins
     process died is      3 something at work: parties that it goes without since they
     stopped                speak another version are told of
                          4 Flower's run has ended without a word: the run is stopped
```

Guarantees: one run at a time; a run that is at work in the journal is one that Flower has, or it
is stopped at the next look. What this process had in memory is not needed to go on.

Leaves to others: the words of a run and how it ended, which the ServerApp writes into the journal
itself (`server_app`).
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from federation.errors import FederationError, RunStateError
from federation.observing.events import Event, Notice
from federation.operations.journal import COORDINATOR, Run, RunJournal, RunState

__all__ = ["Dispatcher", "Engine"]


class Engine(Protocol):
    """What runs the ServerApp: Flower."""

    def start(self, config: Mapping[str, str | float]) -> int:
        """Start a run, and return the engine's number of it."""
        ...

    def has_ended(self, run: int) -> bool:
        """Whether it has ended, in whichever way."""
        ...

    def stop_all(self) -> None:
        """Stop whatever has not ended."""
        ...


class Dispatcher:
    """Moves the runs of one journal on.

    Args:
        journal: the runs.
        engine: what runs them.
        party: the coordinator's folder as a party.
        deadline_seconds: patience for the answers of one exchange.
        tell: told in one line when a run begins or ends, and whom it goes without for its version.
        audit: takes a line of whom it goes without for its version.
    """

    def __init__(
        self,
        journal: RunJournal,
        engine: Engine,
        *,
        party: Path,
        deadline_seconds: float,
        tell: Callable[[str], None],
        audit: Callable[[Mapping[str, object]], None] = lambda _: None,
    ) -> None:
        self._journal = journal
        self._engine = engine
        self._party = party
        self._deadline = deadline_seconds
        self._tell = tell
        self._audit = audit
        self._at_work: tuple[int, int] | None = None
        self._told_absent = 0

    def recover(self) -> None:
        """Stop what was at work when an earlier process died; call it once, at the beginning."""
        self._engine.stop_all()  # 1
        self.end()

    def end(self) -> None:
        """Stop what is at work in the journal, once nothing runs any more."""
        self._end("the coordinator's process ended meanwhile: resume the run")

    def look(self) -> None:
        """Move on what can be moved on now."""
        if self._at_work is None:
            self._end("it was not begun, or that could not be written down: resume the run")
            waiting = [one for one in self._journal.all() if one.state is RunState.QUEUED]
            if waiting:
                self._begin(waiting[0])  # 2
            return
        number, engines = self._at_work
        ended = self._engine.has_ended(engines)
        run = self._journal.run(number)
        self._tell_absent(run)  # 3
        if ended:  # 4
            if run.state.is_at_work:
                told = "its process ended without a word: the coordinator's console may say more"
                run = self._give_up(run, told)
            words = f"run {number} is {run.state}{f': {run.told}' if run.told else ''}"
            self._tell(Notice(Event.RUN_ENDED, words, run=number, state=run.state))
            self._at_work = None

    def _end(self, told: str) -> None:
        for run in self._journal.all():
            if run.state.is_at_work:
                self._give_up(run, told)

    def _begin(self, run: Run) -> None:
        try:
            self._journal.change(run.number, RunState.RUNNING, by=COORDINATOR)
        except RunStateError:  # it was cancelled at this very moment
            return
        config: dict[str, str | float] = {
            "coordinator": str(self._party),
            "deadline-seconds": self._deadline,
            "run": str(self._journal.folder(run.number)),
        }
        try:
            engines = self._engine.start(config)
        except Exception as error:  # whatever Flower raises, the run must not seem to go on
            told = f"Flower did not start it ({type(error).__name__})"
            self._journal.change(run.number, RunState.STOPPED, by=COORDINATOR, told=told)
            if not isinstance(error, FederationError):
                raise
            return
        self._at_work, self._told_absent = (run.number, engines), len(run.absent)
        self._tell(Notice(Event.RUN_BEGAN, f"run {run.number} begins", run=run.number))

    def _tell_absent(self, run: Run) -> None:
        for one in run.absent[self._told_absent :]:
            told = f"run {run.number} {one.told}"
            event = Event.PARTY_OF_ANOTHER_VERSION
            self._audit({"run": run.number, "absent": one.party, "told": one.told})
            self._told_absent += 1
            self._tell(Notice(event, told, run=run.number, party=one.party))

    def _give_up(self, run: Run, told: str) -> Run:
        cancelled = run.state is RunState.CANCELLING
        state = RunState.CANCELLED if cancelled else RunState.STOPPED
        return self._journal.change(
            run.number, state, by=COORDINATOR, told="" if cancelled else told
        )
