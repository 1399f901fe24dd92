"""Kill one party's process before one of its steps, run again, and see that nothing was lost.

A step is what others can see afterwards: a message taken, a file flushed, renamed or removed, a
transaction about to be committed, an answer given. Every message is handled
in a forked process, as a node's worker handles it; the coordinator's process forks them. Killed
is the worker (the node, before it has taken a message or when it has answered, is the same on
disk), or the coordinator.

As a script: `crashing.py DIRECTORY EVERY [JOB/PARTY …]`: kills at every `EVERY`-th step of each
party in each job, or in those named, beginning with a different one in each; prints a line of JSON
for each job and party.
"""

import json
import os
import pickle
import shutil
import signal
import sqlite3
import stat
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

from parties import NOW, PEOPLE, World
from trials import write_every_job

from federation.audit import verify_party
from federation.auditing import audit_places
from federation.channel import Parcel
from federation.collaboration import load_collaboration
from federation.coordinator import read_jobs, write_jobs
from federation.errors import PartyUnreachableError
from federation.messages import SealedMessage
from federation.party import locked
from federation.progress import listening
from federation.specification import JobSpec, MeasureSpec
from federation.trial.workspace import prepare_workspace

KILLED = -signal.SIGKILL
STOPPED = 3
"""How a coordinator leaves that went without an answer."""
CHANGES = {"os.rename": 1, "os.remove": 0, "os.link": 1}
"""What changes a directory, and which argument names what is changed."""
MEASURE = {
    "purpose": "lookalike-audiences",
    "columns": [{"name": "colour"}],
    "epsilon": 1.0,
    "minimum_cell": 3,
}
COUNT = MeasureSpec(name="count", match="find", columns=("colour",), epsilon=1.0)


@dataclass
class Steps:
    """The steps of one party, in whichever process it takes them; kills that at one of them.

    Attributes:
        root: where files count.
        victim: whose steps.
        at: which step is not taken, from 1; 0 for none.
        acting: who is at work in this process.
    """

    root: Path
    victim: str
    at: int = 0
    acting: str = "coordinator"
    taken: list[str] = field(default_factory=list)

    def step(self, what: str) -> None:
        """Take a step, or die before it."""
        if self.acting != self.victim:
            return
        self.taken.append(what)
        if len(self.taken) == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self) -> None:
        """See whatever this process and its children do to files; it cannot be undone."""
        flush = os.fsync

        def fsync(descriptor: int) -> None:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):  # a directory: killed at the next step
                self.step("flush")
            flush(descriptor)

        connect = sqlite3.connect

        def connected(*arguments: Any, **options: Any) -> sqlite3.Connection:
            connection = connect(*arguments, **options)
            connection.set_trace_callback(self._ran)
            return connection

        os.fsync = fsync
        sqlite3.connect = connected
        sys.addaudithook(self._heard)

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in CHANGES:
            self._changed(event, arguments[CHANGES[event]])

    def _changed(self, event: str, path: object) -> None:
        if isinstance(path, str | os.PathLike) and self.root in Path(path).parents:
            self.step(event)

    def _ran(self, statement: str) -> None:
        if statement == "COMMIT":
            self.step("commit")


@dataclass
class ForkedWorld(World):
    """A world whose nodes have a process for every message, of which one may be killed."""

    steps: Steps | None = None

    def exchange(
        self, parcels: Sequence[Parcel], *, most_missing: int = 0
    ) -> Sequence[SealedMessage | None]:
        answers: list[SealedMessage | None] = []
        for parcel in parcels:
            name = list(PEOPLE)[parcel.node]
            answers.append(self._forked(name, parcel.message))
            if answers.count(None) > most_missing:
                raise PartyUnreachableError(f"{name} failed before it could answer")
        return answers

    def _forked(self, name: str, message: SealedMessage) -> SealedMessage | None:
        """Have a message answered in a process of its own; None if that died."""
        assert self.steps is not None
        self.now += timedelta(seconds=10)  # that process will not say how late it has become
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            with leaving():
                os.close(reading)
                self.steps.acting = name
                self.steps.step("take")
                answer = self.node(name).handle(message).message
                self.steps.step("answer")
                with os.fdopen(writing, "wb") as pipe:
                    pickle.dump((answer.envelope, answer.payload, self.steps.taken), pipe)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            told = pipe.read()
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if ended == KILLED:
            (self.steps.root / f"killed-{name}").touch()
        if ended:
            return None
        envelope, payload, self.steps.taken = pickle.loads(told)  # noqa: S301 -- from our own child
        return SealedMessage(envelope, payload)


@contextmanager
def leaving() -> Iterator[NoReturn]:
    """End a forked process with the block, whatever happens in it."""
    code = 1
    try:
        yield  # type: ignore[misc]
        code = 0
    except PartyUnreachableError:
        code = STOPPED
    except BaseException as error:  # noqa: BLE001 -- this process must not return
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
    finally:
        sys.stderr.flush()
        os._exit(code)


def forked(work: Callable[[], object], steps: Steps, place: Path) -> int:
    """Run something in a process whose steps are seen; return how it ended; keep the steps."""
    child = os.fork()
    if child == 0:
        with leaving():
            steps.watch()
            work()
            place.write_text(json.dumps(steps.taken))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def outcome(workspace: Path) -> Mapping[str, bytes]:
    """All that a collaboration is for, by file."""
    patterns = ("models/*", "segments/*", "jobs/*/members.npz", "jobs/*/measurement.json")
    patterns += ("jobs/*/aligned.npz",)
    return {
        str(path.relative_to(workspace)): path.read_bytes()
        for pattern in patterns
        for path in sorted(workspace.glob(f"*/{pattern}"))
    }


def charges(workspace: Path, name: str) -> list[tuple[str, ...]]:
    """What a party's ledger holds."""
    with sqlite3.connect(workspace / name / "ledger.sqlite") as ledger:
        found = ledger.execute("SELECT charge_id, event, state FROM charges ORDER BY position")
        return found.fetchall()


def findings(world: World) -> list[str]:
    """What kinds of things an auditor of everybody's logs objects to."""
    with TemporaryDirectory() as scratch:
        places = [str(world.workspace.path)]
        _, found, _ = audit_places(
            places, agreements=(), policy=None, scratch=Path(scratch), now=world.now
        )
    return [str(one.kind) for one in found]


def compare(world: World, whole: World) -> list[str]:
    """What is not as in the run that nobody disturbed."""
    here, there = world.workspace.path, whole.workspace.path
    wrong = []
    found, expected = outcome(here), outcome(there)
    wrong += [one for one in sorted(found | expected) if found.get(one) != expected.get(one)]
    for name in PEOPLE:
        if charges(here, name) != charges(there, name):
            wrong.append(f"charges of {name}")
        counts, before = verify_party(here / name).counts, verify_party(there / name).counts
        if counts.get("budget.committed") != before.get("budget.committed"):
            wrong.append(f"budget.committed of {name}")
        for kind in ("model.trained", "segment.written"):  # told before it is done: perhaps twice
            if not 0 <= counts.get(kind, 0) - before.get(kind, 0) <= 1:
                wrong.append(f"{kind} of {name}")
        reserved = counts.get("budget.reserved", 0)
        if reserved != counts.get("budget.committed", 0) + counts.get("budget.refunded", 0):
            wrong.append(f"reserved and neither paid nor refunded by {name}")
        if reserved > before.get("budget.reserved", 0) + 1:
            wrong.append(f"more than one round repeated by {name}")
    objections = Counter(findings(world)) - Counter(findings(whole))
    wrong += [f"an auditor finds {kind}" for kind in objections]
    for folder in world.workspace.folders:
        with locked(folder):  # whoever holds it next sweeps
            pass
    left = [str(path.relative_to(here)) for path in here.rglob("*.tmp")]
    return wrong + [f"{one} is left" for one in left]


class Matrix:
    """Every job of one collaboration, run undisturbed once, and as often again as there are kills."""

    def __init__(self, directory: Path) -> None:
        file = write_every_job(directory / "trial", measure=MEASURE)
        made = prepare_workspace(load_collaboration(file), file, directory / "made")
        self._directory = directory
        self._made = World(made, NOW)
        coordinator = self._made.folder("coordinator")
        self.jobs: tuple[JobSpec, ...] = (*read_jobs(coordinator), COUNT)
        self._before: World = self._made

    def each(self) -> Iterator[tuple[JobSpec, World, World]]:
        """Run job after job in this process; yield each with the worlds before and after it."""
        before = self._made
        for number, spec in enumerate(self.jobs):
            after = before.copy(self._directory / f"after-{number}")
            write_jobs(after.folder("coordinator"), self.jobs[: number + 1])
            after.run()
            yield spec, before, after
            if before is not self._made:
                shutil.rmtree(before.workspace.path)
            before = after
        self.last = before

    def kill(self, before: World, after: World, victim: str, at: int) -> list[str]:
        """Run the job that lies between two worlds, killed at a step; say what went wrong."""
        place = self._directory / "tried"
        shutil.rmtree(place, ignore_errors=True)
        world = before.copy(place)
        jobs = read_jobs(after.folder("coordinator"))
        write_jobs(world.folder("coordinator"), jobs)
        killed = place / f"killed-{victim}"
        steps = Steps(place, victim, at)
        ended = forked(self._forking(world, steps).run, steps, self._directory / "steps")
        # without a worker a run stops, or goes on where the job may
        if (ended == KILLED) != (victim == "coordinator") or ended not in {KILLED, STOPPED, 0}:
            return [f"ended with {ended}"]
        if victim != "coordinator" and not killed.exists():
            return ["nobody was killed"]
        again = Steps(place, victim)
        world.now += timedelta(hours=1)
        ended = forked(self._forking(world, again).run, again, self._directory / "steps")
        if ended:
            return [f"ended with {ended} when run again"]
        return compare(world, after)

    def steps(self, before: World, after: World, victim: str) -> list[str]:
        """Return the steps of a party in the job that lies between two worlds."""
        place = self._directory / "counted"
        shutil.rmtree(place, ignore_errors=True)
        world = before.copy(place)
        write_jobs(world.folder("coordinator"), read_jobs(after.folder("coordinator")))
        steps = Steps(place, victim)
        if forked(self._forking(world, steps).run, steps, self._directory / "steps"):
            raise AssertionError(f"{victim}: the steps could not be counted")
        if wrong := compare(world, after):
            raise AssertionError(f"processes of their own make something else: {wrong}")
        found: list[str] = json.loads((self._directory / "steps").read_text())
        return found

    @staticmethod
    def _forking(world: World, steps: Steps) -> ForkedWorld:
        return ForkedWorld(world.workspace, world.now, steps=steps)


def main(directory: Path, every: int, named: Collection[str]) -> int:
    """Kill, and print what was killed; return how often something was wrong."""
    matrix = Matrix(directory)
    wrong = 0
    turn = 0
    left = set(named)
    for spec, before, after in matrix.each():
        victims = [
            one for one in (*PEOPLE, "coordinator") if not named or f"{spec.name}/{one}" in named
        ]
        for victim in victims:
            taken = matrix.steps(before, after, victim)
            turn += 1
            points = range(1 + turn * 7 % min(every, len(taken)), len(taken) + 1, every)
            for at in points:
                problems = matrix.kill(before, after, victim, at)
                if problems:
                    wrong += 1
                    sys.stderr.write(f"{spec.name} {victim} {at} {taken[at - 1]}: {problems}\n")
                    sys.stderr.flush()
            told = {"job": spec.name, "kind": spec.kind, "victim": victim, "steps": len(taken)}
            kinds = Counter(taken)
            sys.stdout.write(json.dumps(told | {"killed": len(points), "kinds": kinds}) + "\n")
            sys.stdout.flush()
            left.discard(f"{spec.name}/{victim}")
        if named and not left:
            break
    return wrong


if __name__ == "__main__":
    with listening(lambda _: None):
        sys.exit(min(1, main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])))
