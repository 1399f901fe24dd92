"""The crash matrix in full: kill a party's process before every step that leaves another disk.

Why not before every step. What happens after a kill depends on what is left: the disk, as the next
holders of the folders find it; and, where a worker died, the coordinator that waited for it, whose
memory is that of before the message. What was sent, charged or kept lies on the disk, the others'
folders and the wire too. Clocks and what is drawn begin anew with each process. So two kills
of a coordinator, or two of a worker while it answers one message, are one where the disks are equal
(`disk_states`). Most steps are such: a file is flushed, which nobody sees before it is renamed, or
is removed from a place that the next holder would have swept. `test_crash_matrix` kills before some
of these all the same, and compares all that is left at the end.

Nor is a stage begun anew for every kill. It is run once. Whoever takes a step says so before, and
waits. A coordinator that shall die is killed, and a copy of it goes on later; a worker is killed in
a copy of the coordinator, which asks it once more. Meanwhile the disk of the run lies elsewhere, and
in its place is a copy of it, in which the killed and whoever comes after it work.

As a script: `crash_matrix.py JOURNAL [--processors N] [JOB/PARTY …]`. What was killed is kept in the
journal, a line of JSON for each, and is not killed again as long as the code is the same.
"""

import argparse
import ctypes
import gc
import hashlib
import json
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from crashing import (
    KILLED,
    STOPPED,
    Matrix,
    Stage,
    Steps,
    WatchedWorld,
    charges,
    differences,
    leaving,
    sync_in_turn,
)
from disk_states import Disks
from parties import PEOPLE, ROLES, World

from compliance.log.files import LocalFiles
from federation.messages import SealedMessage
from federation.progress import listening

ROOT = Path(__file__).resolve().parent.parent
CODE = ("privacy", "connectors", "compliance", "federation", "tests")
PR_SET_CHILD_SUBREAPER = 36
GO, DIE = "go", "die"


@dataclass(frozen=True)
class Line:
    """Between those who take steps, one of whom speaks at a time, and whoever tries kills."""

    read: int
    write: int

    @classmethod
    def pair(cls) -> tuple["Line", "Line"]:
        """Return both ends."""
        (here, there), (back, forth) = os.pipe(), os.pipe()
        return cls(here, forth), cls(back, there)

    def say(self, text: str) -> None:
        """Say something short."""
        os.write(self.write, f"{text}\n".encode())

    def hear(self) -> str:
        """Wait for what is said; nothing once the other end is closed."""
        return os.read(self.read, 4096).decode().strip()

    def ask(self, text: str) -> str:
        """Say something, and wait for the answer."""
        self.say(text)
        return self.hear()

    def close(self) -> None:
        """Leave."""
        os.close(self.read)
        os.close(self.write)


@dataclass
class ToldSteps(Steps):
    """Steps that are told before they are taken, as long as nobody was killed."""

    line: Line | None = None

    def step(self, what: str) -> None:
        """Say what step comes; then take it, or die."""
        if self.line is None or self.acting != self.victim:
            super().step(what)
            return
        self.taken.append(what)
        if self.line.ask(f"step {len(self.taken)} {what} {os.getpid()}") == DIE:
            if os.fork():
                os.kill(os.getpid(), signal.SIGKILL)
            self.line.hear()  # a copy goes on as if nothing had been


@dataclass
class ToldWorld(WatchedWorld):
    """A world in which a worker may be killed at several steps of one message, one after another."""

    def _forked(self, name: str, message: SealedMessage) -> SealedMessage | None:
        steps, now = self.steps, self.now
        assert isinstance(steps, ToldSteps)
        line, before = steps.line, list(steps.taken)
        if line is None:
            return super()._forked(name, message)
        line.ask("message")
        answer = super()._forked(name, message)
        while at := int(line.ask("next")):
            child = os.fork()
            if child == 0:
                steps.line, steps.at, steps.taken, self.now = None, at, before, now
                return super()._forked(name, message)
            line.ask(f"ended {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}")
        return answer


@dataclass(frozen=True)
class Kill:
    """One kill, or what was found of all.

    Attributes:
        code: digest of the code.
        stage: which.
        victim: who was killed.
        at: before which step, from 1.
        what: the step.
        end: what it came to, where nothing is wrong: digest of all but what is drawn.
        wrong: what is not as it would be.
    """

    code: str
    stage: str
    victim: str
    at: int
    what: str
    end: str = ""
    wrong: tuple[str, ...] = ()

    @property
    def step(self) -> tuple[str, str, int, str]:
        """Which step it was."""
        return self.stage, self.victim, self.at, self.what


@dataclass
class Journal:
    """What was killed before, by whichever process: a line of JSON for each kill."""

    path: Path
    code: str
    done: dict[tuple[str, str, int, str], Kill] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> "Journal":
        """Read what was killed with this code."""
        found = cls(path, digest_of_code())
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):  # else it was cut
                kill = Kill(**json.loads(line))
                if kill.code == found.code:
                    found.done[kill.step] = kill
        return found

    def write(self, kill: Kill) -> None:
        """Keep a kill."""
        self.done[kill.step] = kill
        with self.path.open("a") as file:
            file.write(json.dumps(asdict(kill)) + "\n")


def digest_of_code() -> str:
    """Return what changes with whatever could change a kill's end."""
    digest = hashlib.sha256()
    for path in sorted(path for name in CODE for path in (ROOT / name).rglob("*.py")):
        if path.parent.name != "tests" or not path.name.startswith("test_"):
            digest.update(f"{path.relative_to(ROOT)} {path.stat().st_size}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def come_to(world: World) -> str:
    """Return a digest of all that is there but of what is drawn, or follows from it.

    Of each party what its log tells, with the times; its charges; and how many files are where.
    """
    path = world.workspace.path
    places = Counter(str(one.parent.relative_to(path)) for one in path.rglob("*"))
    told = [[(leaf.kind, leaf.time, leaf.job) for leaf in world.leaves(name)] for name in ROLES]
    paid = [[one[1:] for one in charges(path, name)] for name in PEOPLE]
    return hashlib.sha256(repr((sorted(places.items()), told, paid)).encode()).hexdigest()


class Group:
    """All kills of one victim in one stage.

    Attributes:
        steps: how many there were.
        kills: each that leaves another disk than those before it, done now or earlier.
        stands_for: by step, the earlier one that leaves the same.
    """

    def __init__(
        self, matrix: Matrix, stage: Stage, victim: str, journal: Journal, disks: Disks
    ) -> None:
        self._matrix, self._stage, self._victim = matrix, stage, victim
        self._journal, self._disks = journal, disks
        self._place = matrix.directory / "tried"
        self._held, self._base = matrix.directory / "held", matrix.directory / "base"
        self.name = f"{stage.name}/{victim}"
        self._seen: dict[str, int] = {}
        self._next: list[Kill] = []
        self.steps = 0
        self.kills: list[Kill] = []
        self.stands_for: dict[int, int] = {}

    def run(self) -> None:
        """Run the stage once, and kill.

        Raises:
            AssertionError: it comes to another end than where nobody looks on.
        """
        self._line, theirs = Line.pair()
        self._world = self._matrix.begin(self._stage, self._place.name, self._victim)
        told = ToldSteps(self._place, self._victim, line=theirs)
        begun = ToldWorld(self._world.workspace, self._world.now, steps=told)
        if os.fork() == 0:
            with leaving():
                self._line.close()
                told.watch()
                begun.run()
        theirs.close()
        while heard := self._line.hear():
            kind, *about = heard.split()
            getattr(self, f"_hear_{kind}")(*about)
        self._line.close()
        ended = os.waitstatus_to_exitcode(os.waitpid(-1, 0)[1])
        if ended or (wrong := differences(self._world, self._stage.end)):
            raise AssertionError(f"{self.name}, undisturbed, ended with {ended or wrong}")

    def _hear_step(self, number: str, what: str, process: str) -> None:
        self.steps = int(number)
        disk = self._disks.fingerprint(self._place)
        first = self._seen.setdefault(disk, self.steps)
        kill = Kill(self._journal.code, self._stage.name, self._victim, self.steps, what)
        if first != self.steps:
            self.stands_for[self.steps] = first
        elif self._victim != "coordinator":
            self._next.append(kill)
        elif self._is_new(kill):
            self._line.say(DIE)
            if os.waitstatus_to_exitcode(os.waitpid(int(process), 0)[1]) != KILLED:
                raise AssertionError(f"{self.name}: nobody was killed at {number}")
            with self._apart(self._place):
                self._again(kill)
        self._line.say(GO)

    def _hear_message(self) -> None:
        shutil.rmtree(self._base, ignore_errors=True)
        shutil.copytree(self._place, self._base, symlinks=True)
        self._seen.clear()
        self._next.clear()
        self._line.say(GO)

    def _hear_next(self) -> None:
        while self._next:
            kill = self._next.pop(0)
            if self._is_new(kill):
                with self._apart(self._base):
                    self._line.say(str(kill.at))
                    heard = self._line.hear()
                    self._again_without_worker(kill, int(heard.removeprefix("ended ")))
                self._line.say(GO)
                return
        self._line.say("0")

    def _is_new(self, kill: Kill) -> bool:
        known = self._journal.done.get(kill.step)
        if known is not None:
            self.kills.append(known)
        return known is None

    @contextmanager
    def _apart(self, disk: Path) -> Iterator[None]:
        """Have a copy of a disk in the place of the run's own, which nobody changes meanwhile."""
        before = self._disks.fingerprint(self._place)
        self._place.rename(self._held)
        shutil.copytree(self._held if disk == self._place else disk, self._place, symlinks=True)
        yield
        shutil.rmtree(self._place)
        self._held.rename(self._place)
        if self._disks.fingerprint(self._place) != before:
            raise AssertionError(f"{self.name}: a kill changed the run that goes on")

    def _again_without_worker(self, kill: Kill, ended: int) -> None:
        """Go on from where a coordinator ended that had lost a worker."""
        lock = Path("coordinator", "lock")
        os.truncate(self._place / lock, (self._held / lock).stat().st_size)  # one for both of them
        os.truncate(self._held / lock, 1)
        if ended not in {STOPPED, 0}:
            self._keep(kill, [f"ended with {ended}"])
        elif not (self._place / f"killed-{self._victim}").exists():
            self._keep(kill, ["nobody was killed"])
        else:
            self._again(kill)

    def _again(self, kill: Kill) -> None:
        wrong = self._matrix.again(self._stage, self._world)
        self._keep(kill, wrong)

    def _keep(self, kill: Kill, wrong: Sequence[str]) -> None:
        end = "" if wrong else come_to(self._world)
        done = replace(kill, end=end, wrong=tuple(wrong))
        self._journal.write(done)
        self.kills.append(done)
        if wrong:
            sys.stderr.write(f"{self.name} {kill.at} {kill.what}: {', '.join(wrong)}\n")
            sys.stderr.flush()


def groups(directory: Path, journal: Journal, named: Collection[str] = ()) -> Iterator[Group]:
    """Run stage after stage, and in each kill every victim that no other process has taken on."""
    become_heir()
    disks = Disks()
    directory.mkdir()
    left = set(named)
    matrix = Matrix(directory)
    for stage in matrix.each():
        for victim in (*PEOPLE, "coordinator"):
            name = f"{stage.name}/{victim}"
            if (not named or name in left) and taken_on(directory.parent / name.replace("/", "-")):
                group = Group(matrix, stage, victim, journal, disks)
                group.run()
                yield group
            left.discard(name)
        if named and not left:
            return


def become_heir() -> None:
    """Have this process be told when a process ends whose parent was killed."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def taken_on(claim: Path) -> bool:
    """Say whether this process is the first that asks."""
    try:
        claim.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def main(file: Path, processors: int, named: Collection[str]) -> int:
    """Kill on so many processors, and print what was found; return how often something was wrong."""
    gc.freeze()
    with TemporaryDirectory() as scratch:
        children = []
        for number in range(processors):
            child = os.fork()
            if child == 0:
                with leaving():
                    kill_all(Path(scratch) / str(number), Journal.open(file), named)
            children.append(child)
        ended = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    found = Journal.open(file).done.values()
    wrong = [kill for kill in found if kill.wrong]
    spent = sum(os.times()[:4])
    sys.stdout.write(
        f"{len(found)} kills are in {file}, {len(wrong)} came to another end; "
        f"{spent:.0f} CPU-seconds now\n"
    )
    return 1 if wrong or any(ended) else 0


def kill_all(directory: Path, journal: Journal, named: Collection[str]) -> None:
    """Kill in every group that is this process's; tell of each."""
    begun, earlier = time.monotonic(), len(journal.done)
    for group in groups(directory, journal, named):
        now = len(journal.done) - earlier
        sys.stdout.write(
            f"{group.name}: {group.steps} steps, {len(group.kills)} disks; "
            f"{now} kills in {time.monotonic() - begun:.0f} s\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Kill before every step that leaves another disk.")
    parser.add_argument("journal", type=Path)
    parser.add_argument("--processors", type=int, default=1)
    parser.add_argument("named", nargs="*", metavar="JOB/PARTY")
    asked = parser.parse_args()
    LocalFiles.sync = sync_in_turn  # type: ignore[method-assign]
    with listening(lambda _: None):
        sys.exit(main(asked.journal, asked.processors, asked.named))
