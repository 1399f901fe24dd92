"""The crash matrix in full: kill a party's process before every step that leaves another disk.

Why not before every step. What comes after a kill depends on the disk, as the next holders of the
folders find it, and, where a worker died, on the coordinator that waited for it, whose memory is
still that of before the message. What was sent, charged or kept lies on the disk, in the others'
folders and on the wire too; clocks, and what is drawn, begin anew in each process. So two kills of
a coordinator, or two of a worker at one message, are the same where the disks are (`disk_states`).
Most are: a flushed file is seen once it is renamed, and what is removed would have been swept. One
in fifty steps that are left out is killed at all the same, from the beginning of the stage
(`Matrix.kill`), and has to come to what the one came to that it was left out for.

Nor is a stage begun anew for every kill. It is run once, and waits before each step (`told_steps`).
While somebody is killed, and all is run again by processes that were not there before, the disk of
the run that waits lies elsewhere, and in its place is a copy.

As a script: `crash_matrix.py JOURNAL [--every N] [--processors N] [JOB/PARTY …]`. What is in the
journal is not killed again (`kill_journal`). Prints a line for each process, and one in the end.
"""

import argparse
import ctypes
import gc
import hashlib
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from crashing import KILLED, STOPPED, Matrix, Stage, charges, differences, leaving
from disk_states import Disks
from kill_journal import Journal, Kill
from parties import PEOPLE, ROLES, World
from told_steps import Heard, Line, Told, ToldSteps, ToldWorld

from compliance.log import files
from compliance.log.files import LocalFiles
from federation.progress import listening

PR_SET_CHILD_SUBREAPER = 36
LOCK = Path("coordinator", "lock")
DOUBTED = 50
"""Of so many steps that are left out one is killed at all the same."""


def come_to(world: World) -> str:
    """Return a digest of all that there is but of what is drawn, or follows from it.

    Of each party what its log tells, and when; its charges; and how many files are where.
    """
    path = world.workspace.path
    places = Counter(str(one.parent.relative_to(path)) for one in path.rglob("*"))
    told = [[(leaf.kind, leaf.time, leaf.job) for leaf in world.leaves(name)] for name in ROLES]
    paid = [[one[1:] for one in charges(path, name)] for name in PEOPLE]
    return hashlib.sha256(repr((sorted(places.items()), told, paid)).encode()).hexdigest()


class Group:
    """All kills of one victim in one stage.

    Attributes:
        name: of the stage, and whom.
        steps: how many there were.
        disks: how many of them leave another disk than an earlier one.
        kills: those that were done, now or before.
        left_out: by step, what it is, and the earlier step that leaves the same disk.
    """

    def __init__(
        self, matrix: Matrix, stage: Stage, victim: str, journal: Journal, disks: Disks
    ) -> None:
        self._matrix, self._stage, self._victim = matrix, stage, victim
        self._journal, self._states = journal, disks
        self._place = matrix.directory / "tried"
        self._held, self._base = matrix.directory / "held", matrix.directory / "base"
        self._seen: dict[str, int] = {}
        self._next: list[Kill] = []
        self.name = f"{stage.name}/{victim}"
        self.steps = 0
        self.disks = 0
        self.kills: list[Kill] = []
        self.left_out: dict[int, tuple[str, int]] = {}

    def run(self, *, every: int = 1, turn: int = 0) -> None:
        """Run the stage once, and kill at every so manieth disk, and at some steps left out.

        Raises:
            AssertionError: undisturbed it comes to another end than where nobody looks on.
        """
        self._chosen = range(turn % every + 1, sys.maxsize, every)
        self._world = self._matrix.begin(self._stage, self._place.name, self._victim)
        line, theirs = Line.pair()
        steps = ToldSteps(self._place, self._victim, line=theirs)
        told = ToldWorld(self._world.workspace, self._world.now, steps=steps)
        if os.fork() == 0:
            with leaving():
                line.close()
                steps.watch()
                told.run()
        theirs.close()
        while words := line.hear().split():
            self._hear(line, Heard(words[0]), words[1:])
        line.close()
        ended = os.waitstatus_to_exitcode(os.waitpid(-1, 0)[1])  # of the last copy
        if ended or (wrong := differences(self._world, self._stage.end)):
            raise AssertionError(f"{self.name}, undisturbed, ended with {ended or wrong}")
        self._doubt(turn)

    def _hear(self, line: Line, heard: Heard, words: Sequence[str]) -> None:
        match heard:
            case Heard.STEP:
                self._step(line, words[1], int(words[2]))
            case Heard.MESSAGE:
                shutil.rmtree(self._base, ignore_errors=True)
                shutil.copytree(self._place, self._base, symlinks=True)
                self._seen.clear()
            case Heard.NEXT if self._next:
                kill = self._next.pop(0)
                with self._apart(self._base):
                    ended = line.ask(kill.at)
                    self._without_worker(kill, int(ended.removeprefix(Heard.ENDED)))
            case Heard.NEXT:
                line.say(0)
                return
        line.say(Told.GO)

    def _step(self, line: Line, what: str, process: int) -> None:
        """Kill at a step, now or when the worker has answered, if it is one to kill at."""
        self.steps += 1
        first = self._seen.setdefault(self._states.fingerprint(self._place), self.steps)
        if first != self.steps:
            self.left_out[self.steps] = what, first
            return
        self.disks += 1
        kill = self._kill(self.steps, what)
        if self.disks not in self._chosen or self._is_done(kill):
            return
        if self._victim != "coordinator":
            self._next.append(kill)
            return
        line.say(Told.DIE)
        if os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) != KILLED:
            raise AssertionError(f"{self.name}: nobody was killed at {self.steps}")
        with self._apart(self._place):
            self._keep(kill, self._matrix.again(self._stage, self._world))

    def _kill(self, at: int, what: str, like: int | None = None) -> Kill:
        return Kill(self._journal.code, self._stage.name, self._victim, at, what, like)

    def _is_done(self, kill: Kill) -> bool:
        done = self._journal.done.get(kill.step)
        if done is not None:
            self.kills.append(done)
        return done is not None

    @contextmanager
    def _apart(self, disk: Path) -> Iterator[None]:
        """Have a copy of a disk in the place of the run's own, which nobody changes meanwhile."""
        before = self._states.fingerprint(self._place)
        self._place.rename(self._held)
        shutil.copytree(self._held if disk == self._place else disk, self._place, symlinks=True)
        yield
        shutil.rmtree(self._place)
        self._held.rename(self._place)
        if self._states.fingerprint(self._place) != before:
            raise AssertionError(f"{self.name}: a kill changed the run that goes on")

    def _without_worker(self, kill: Kill, ended: int) -> None:
        """Go on from where a copy of the coordinator ended, which had lost a worker."""
        # it let go of the lock that it had from the run, whose file lies elsewhere
        os.truncate(self._place / LOCK, (self._held / LOCK).stat().st_size)
        os.truncate(self._held / LOCK, 1)
        if ended not in {STOPPED, 0}:
            self._keep(kill, [f"ended with {ended}"])
        elif not (self._place / f"killed-{self._victim}").exists():
            self._keep(kill, ["nobody was killed"])
        else:
            self._keep(kill, self._matrix.again(self._stage, self._world))

    def _doubt(self, turn: int) -> None:
        """Kill at some steps that were left out, and hold each against the one that it is like."""
        ends = {kill.at: kill.end for kill in self.kills if kill.end}
        left = [at for at, (_, first) in self.left_out.items() if first in ends]
        for at in left[turn % min(len(left) or 1, DOUBTED) :: DOUBTED]:
            what, first = self.left_out[at]
            kill = self._kill(at, what, first)
            if self._is_done(kill):
                continue
            wrong = self._matrix.kill(self._stage, self._victim, at)
            if not wrong and come_to(self._world) != ends[first]:
                wrong = [f"came to something else than when killed at {first}"]
            self._keep(kill, wrong)

    def _keep(self, kill: Kill, wrong: Sequence[str]) -> None:
        end = "" if wrong else come_to(self._world)
        done = replace(kill, end=end, wrong=tuple(wrong))
        self._journal.write(done)
        self.kills.append(done)
        if wrong:
            sys.stderr.write(f"{self.name} {kill.at} {kill.what}: {', '.join(wrong)}\n")
            sys.stderr.flush()


def become_heir() -> None:
    """Have this process be told of the end of those whose parents were killed."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no process can be had back whose parent was killed")


def take_on(claim: Path) -> bool:
    """Say whether this process is the first that asks."""
    try:
        claim.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def kill_all(directory: Path, journal: Journal, every: int, named: Collection[str]) -> None:
    """Kill in all stages, or in those named, whatever no other process has taken on."""
    become_heir()
    begun, earlier = time.monotonic(), len(journal.done)
    claims, disks = directory.parent, Disks()
    matrix = Matrix(directory)
    groups = len(named) or (len(matrix.jobs) + 1) * len(ROLES)
    turn, left = 0, set(named)
    for stage in matrix.each():
        for victim in (*PEOPLE, "coordinator"):
            turn += 1
            name = f"{stage.name}/{victim}"
            mine = not named or name in left
            left.discard(name)
            if mine and take_on(claims / f"taken-{name.replace('/', '-')}"):
                group = Group(matrix, stage, victim, journal, disks)
                group.run(every=every, turn=turn * 7)
                taken, passed = len(list(claims.glob("taken-*"))), time.monotonic() - begun
                sys.stdout.write(
                    f"{name}: {group.steps} steps, {group.disks} disks, {len(group.kills)} kills; "
                    f"{len(journal.done) - earlier} in {passed:.0f} s here, "
                    f"some {passed * (groups - taken) / taken:.0f} s left\n"
                )
                sys.stdout.flush()
        if named and not left:
            return
    if left:
        raise ValueError(
            f"there is no {', '.join(sorted(left))}: name a job and a party, as find/brand"
        )


def main(file: Path, every: int, processors: int, named: Collection[str]) -> int:
    """Kill on so many processors, and say what was found; return 1 if something was wrong."""
    gc.freeze()
    journal = Journal.open(file)
    with TemporaryDirectory() as scratch:
        children = []
        for number in range(processors):
            child = os.fork()
            if child == 0:
                with leaving():
                    kill_all(Path(scratch) / str(number), journal, every, named)
            children.append(child)
        ended = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    kills = Journal.open(file).done.values()
    wrong = [kill for kill in kills if kill.wrong]
    doubted = [kill for kill in kills if kill.like is not None]
    sys.stdout.write(
        f"{len(kills)} kills with this code, {len(doubted)} of them at steps that are left out; "
        f"{len(wrong)} wrong; {sum(os.times()[:4]):.0f} CPU-seconds now\n"
    )
    return 1 if wrong or any(ended) else 0


def sync_in_turn(_: LocalFiles, paths: Collection[Path]) -> None:
    """Flush files one after another, so that steps come in one order."""
    for path in paths:
        files._sync(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Kill before every step that leaves another disk.")
    parser.add_argument("journal", type=Path, help="what was killed; goes on from there")
    parser.add_argument("--every", type=int, default=1, help="kill at every so manieth disk")
    parser.add_argument("--processors", type=int, default=1)
    parser.add_argument("named", nargs="*", metavar="JOB/PARTY")
    asked = parser.parse_intermixed_args()
    LocalFiles.sync = sync_in_turn  # type: ignore[method-assign]
    with listening(lambda _: None):
        sys.exit(main(asked.journal, asked.every, asked.processors, asked.named))
