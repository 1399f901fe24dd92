"""Kill one party's process before one of its steps, run again, and see that nothing was lost.

A step is what others can see afterwards: a message taken, a file flushed, renamed or removed, a
transaction about to be committed, an answer given. Killed is the coordinator, or the process in
which a party handles a message: a worker; or the node, before it has taken the message and when it
has answered. Workers end with their node, so that a node killed in between leaves on disk what a
killed worker leaves.
"""

import json
import os
import pickle
import shutil
import signal
import sqlite3
import stat
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

from parties import NOW, PEOPLE, World, email
from trials import write_every_job

from compliance.errors import ComplianceError
from compliance.records import Record, Release
from federation.auditing import audit_places
from federation.channel import Parcel
from federation.collaboration import load_collaboration
from federation.coordinator import read_jobs, write_jobs
from federation.erasing import Erasing, Kept
from federation.errors import PartyUnreachableError
from federation.messages import SealedMessage, unseal
from federation.party import locked
from federation.specification import JobSpec, MeasureSpec
from federation.trial.workspace import prepare_workspace

KILLED = -signal.SIGKILL
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
WIRE = "wire"
"""File of what left each party: name and digest."""
ANEW = ("present", "acknowledged", "witness.", "erase.", "retrain.", "refused")
"""What is said anew in every run, and nothing is worked out for."""
IN_ALL = 25
"""Somebody whom all three know."""
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
        sqlite3.connect = sqlite3.dbapi2.connect = connected
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
class WatchedWorld(World):
    """A world whose wire is kept on disk; a victim's node has a process for every message."""

    steps: Steps | None = None

    def exchange(
        self, parcels: Sequence[Parcel], *, most_missing: int = 0
    ) -> Sequence[SealedMessage | None]:
        answers: list[SealedMessage | None] = []
        for parcel in parcels:
            name = list(PEOPLE)[parcel.node]
            answer = self._answered(name, parcel.message)
            if answer is not None and unseal(answer, self.agreement).header.kind != "refused":
                with (self.workspace.path / WIRE).open("a") as wire:
                    wire.write(f"{name} {answer.digest}\n")
            answers.append(answer)
            if answers.count(None) > most_missing:
                raise PartyUnreachableError(f"{name} failed before it could answer")
        return answers

    def _answered(self, name: str, message: SealedMessage) -> SealedMessage | None:
        if self.steps is None:
            return self.handle(name, message)
        if self.steps.victim == name:
            return self._forked(name, message)
        self.steps.acting = name
        try:
            return self.handle(name, message)
        finally:
            self.steps.acting = "coordinator"

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
            self.steps.at = 0  # once
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


def forked(
    work: Callable[[], object], steps: Steps | None = None, place: Path | None = None
) -> int:
    """Run something in a process; return how it ended; see and keep its steps, if any."""
    child = os.fork()
    if child == 0:
        with leaving():
            if steps is not None:
                steps.watch()
            work()
            if steps is not None and place is not None:
                place.write_text(json.dumps(steps.taken))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def outcome(workspace: Path) -> Mapping[str, bytes]:
    """All that a collaboration is for, and whose data are left, by file."""
    patterns = ("models/*", "segments/*", "jobs/*/members.npz", "jobs/*/measurement.json")
    patterns += ("jobs/*/aligned.npz", "data/*.csv")
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


def findings(world: World) -> Counter[str]:
    """What kinds of things an auditor of everybody's logs objects to."""
    with TemporaryDirectory() as scratch:
        places = [str(world.workspace.path)]
        _, found, _ = audit_places(
            places, agreements=(), policy=None, scratch=Path(scratch), now=world.now
        )
    return Counter(str(one.kind) for one in found)


def erased(workspace: Path, name: str) -> dict[str, tuple[bool, set[tuple[str, str]]]]:
    """What a party did about each request to erase: whether it is done, and where what came of it."""
    kept = {
        path.stem: Kept.model_validate_json(path.read_bytes()).execution
        for path in (workspace / name / "erasures").glob("*.json")
    }
    return {
        entry: (one.completion is not None, {(step.target, step.outcome) for step in one.steps})
        for entry, one in kept.items()
    }


@dataclass(frozen=True)
class End:
    """Where a world has come to.

    Attributes:
        made: what there is, by file.
        charges: each party's ledger.
        leaves: each party's log.
        erased: each party's requests.
        findings: of an auditor, by kind.
    """

    made: Mapping[str, bytes]
    charges: Mapping[str, list[tuple[str, ...]]]
    leaves: Mapping[str, tuple[Record, ...]]
    erased: Mapping[str, dict[str, tuple[bool, set[tuple[str, str]]]]]
    findings: Counter[str]

    @classmethod
    def of(cls, world: World) -> "End":
        """Look at a world."""
        path = world.workspace.path
        return cls(
            outcome(path),
            {name: charges(path, name) for name in PEOPLE},
            {name: world.leaves(name) for name in PEOPLE},
            {name: erased(path, name) for name in PEOPLE},
            findings(world),
        )


def unpaid(world: World, end: End, whole: End) -> Iterator[str]:
    """Say what left a party, as its channel saw, though no charge of its own pays for it."""
    states = {name: {one: state for one, _, state in end.charges[name]} for name in PEOPLE}
    costs = {
        (leaf.job, leaf.computation)
        for name in PEOPLE
        for leaf in whole.leaves[name]
        if isinstance(leaf, Release) and leaf.charge_id is not None
    }
    left: dict[tuple[str, str], set[str]] = defaultdict(set)
    for line in (world.workspace.path / WIRE).read_text().splitlines():
        name, digest = line.split()
        told = [
            leaf
            for leaf in end.leaves[name]
            if isinstance(leaf, Release) and leaf.content_digest == digest
        ]
        if not told:
            yield f"{name} let out what its log does not tell of"
        for leaf in told:
            if (leaf.job, leaf.computation) not in costs:
                continue
            if leaf.charge_id is None or states[name].get(leaf.charge_id) != "committed":
                yield f"{name} let out {leaf.release_id} uncharged"
            else:
                left[name, leaf.charge_id].add(digest)
    for (name, charge_id), digests in left.items():
        if len(digests) > 1:
            yield f"{name} let out more than {charge_id} pays for"


def repeated(here: End, there: End, name: str) -> int:
    """Count what a party worked out for a job more often than where nobody was killed."""

    def released(end: End) -> Counter[tuple[str | None, str]]:
        return Counter(
            (leaf.job, leaf.computation)
            for leaf in end.leaves[name]
            if isinstance(leaf, Release) and not leaf.computation.startswith(ANEW)
        )

    return (released(here) - released(there)).total()


def differences_of(name: str, end: End, whole: End) -> Iterator[str]:
    """Say what is not as it would be of a party's ledger, requests and log."""
    if end.charges[name] != whole.charges[name]:
        yield f"charges of {name}"
    if end.erased[name] != whole.erased[name]:
        yield f"erasures at {name}"
    counts, before = (Counter(one.kind for one in each.leaves[name]) for each in (end, whole))
    if counts["budget.committed"] != before["budget.committed"]:
        yield f"budget.committed of {name}"
    for kind in ("model.trained", "segment.written"):  # told before it is done: perhaps twice
        if not 0 <= counts[kind] - before[kind] <= 1:
            yield f"{kind} of {name}"
    reserved = counts["budget.reserved"]
    if reserved != counts["budget.committed"] + counts["budget.refunded"]:
        yield f"reserved and neither paid nor refunded by {name}"
    if reserved > before["budget.reserved"] + 1 or repeated(end, whole, name) > 1:
        yield f"more than one round repeated by {name}"


def differences(world: World, whole: End) -> list[str]:
    """What is not as in the run that nobody disturbed."""
    try:
        end = End.of(world)
    except ComplianceError as error:
        return [f"a log does not hold: {error}"]
    wrong = [
        one for one in sorted(end.made | whole.made) if end.made.get(one) != whole.made.get(one)
    ]
    wrong += unpaid(world, end, whole)
    for name in PEOPLE:
        wrong += differences_of(name, end, whole)
    wrong += [f"an auditor finds {kind}" for kind in end.findings - whole.findings]
    for folder in world.workspace.folders:
        with locked(folder):  # whoever holds it next sweeps
            pass
    here = world.workspace.path
    left = [str(path.relative_to(here)) for path in here.rglob("*.tmp")]
    return wrong + [f"{one} is left" for one in left]


@dataclass(frozen=True)
class Stage:
    """A job, or an erasure: a run leads from one world to another.

    Attributes:
        name: of the job; `erase`.
        kind: of the job; `erase`.
        before: where nothing of it was done.
        after: where all of it was, and nobody was killed.
        end: how that looks.
    """

    name: str
    kind: str
    before: World
    after: World
    end: End


class Matrix:
    """All of one collaboration, run undisturbed once, and as often again as there are kills."""

    def __init__(self, directory: Path) -> None:
        erasure = {"deadline_days": 10, "retrain_days": 20}
        file = write_every_job(directory / "trial", measure=MEASURE, erasure=erasure)
        made = prepare_workspace(load_collaboration(file), file, directory / "made")
        self.directory = directory
        self._made = World(made, NOW)
        coordinator = self._made.folder("coordinator")
        self.jobs: tuple[JobSpec, ...] = (*read_jobs(coordinator), COUNT)

    def each(self) -> Iterator[Stage]:
        """Run job after job in this process; once there are a model and a segment, erase too."""
        before = self._made
        for number, spec in enumerate(self.jobs):
            after = before.copy(self.directory / f"after-{number}")
            write_jobs(after.folder("coordinator"), self.jobs[: number + 1])
            after.run()
            yield Stage(spec.name, spec.kind, before, after, End.of(after))
            if spec.kind == "expand":
                yield self._erasure(after)
            if before is not self._made:
                shutil.rmtree(before.workspace.path)
            before = after

    def _erasure(self, trained: World) -> Stage:
        """Have somebody ask the brand to be erased everywhere, who is in all that was made."""
        before = trained.copy(self.directory / "asked")
        with before.node("brand").desk() as desk:
            erasing = Erasing(desk.folder, desk.agreement, desk.gate, clock=before.clock)
            erasing.request("email", email(IN_ALL))
        after = before.copy(self.directory / "erased")
        after.run()
        return Stage("erase", "erase", before, after, End.of(after))

    def kill(self, stage: Stage, victim: str, at: int) -> list[str]:
        """Run a stage, killed at a step, and run it again; say what went wrong."""
        world = self.begin(stage, "tried", victim, at)
        assert world.steps is not None
        ended = forked(world.run, world.steps, self.directory / "steps")
        # without a worker a run stops, or goes on where the job may
        if (ended == KILLED) != (victim == "coordinator") or ended not in {KILLED, STOPPED, 0}:
            return [f"ended with {ended}"]
        if victim != "coordinator" and not (world.workspace.path / f"killed-{victim}").exists():
            return ["nobody was killed"]
        return self.again(stage, world)

    def again(self, stage: Stage, world: World) -> list[str]:
        """Run a stage again in which somebody was killed; say what went wrong."""
        # whoever asks to be erased is told of again after a day
        for later in (DAY, DAY) if stage.kind == "erase" else (HOUR,):
            world = WatchedWorld(world.workspace, world.now + later)
            if ended := forked(world.run):
                return [f"ended with {ended} when run again"]
        return differences(world, stage.end)

    def begin(self, stage: Stage, place: str, victim: str, at: int = 0) -> WatchedWorld:
        """Return a world in which a stage has yet to be run."""
        path = self.directory / place
        shutil.rmtree(path, ignore_errors=True)
        world = stage.before.copy(path)
        write_jobs(world.folder("coordinator"), read_jobs(stage.after.folder("coordinator")))
        (path / WIRE).touch()
        return WatchedWorld(world.workspace, world.now, steps=Steps(path, victim, at))
