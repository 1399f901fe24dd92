"""Lose one party's machine before one of its steps, go on from the copy of its folder, and see that
nothing was lost.

A party keeps a copy of its folder in a database elsewhere. It is killed as in `crashing`, and its
folder is gone; another machine restores it from the copy, and all is run again. Secrets of all
parties are sealed, as no others are in a copy.

As a script: `losing.py DIRECTORY EVERY[+OFFSET] [JOB/PARTY …]`: at every `EVERY`-th step of each
party in each job and in an erasure, or in those named, beginning with a different one in each,
`OFFSET` steps later. Prints a line of JSON for each job and party.
"""

import json
import shutil
import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from crash_matrix import sync_in_turn
from crashing import Matrix, Stage, WatchedWorld, forked
from parties import PEOPLE, World

from compliance.log.files import LocalFiles
from federation.party import PartyFolder, locked
from federation.progress import listening
from federation.replica import ReplicaStore
from federation.replica.restoring import restore
from federation.trial.workspace import Workspace


class LosingMatrix(Matrix):
    """A matrix whose victims lose their folders with their lives."""

    def begin(self, stage: Stage, place: str, victim: str, at: int = 0) -> WatchedWorld:
        """Return a world in which a stage has yet to be run, and the victim keeps a copy."""
        world = super().begin(stage, place, victim, at)
        party = world.workspace.path / victim
        self._elsewhere.unlink(missing_ok=True)
        file = party / "party.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"database": self._database}))
        with locked(PartyFolder(party)):
            pass
        return replace(world, workspace=reopened(world))

    def again(self, stage: Stage, world: World) -> list[str]:
        """Lose the victim's folder, restore it, and run a stage again; say what went wrong."""
        assert isinstance(world, WatchedWorld)
        assert world.steps is not None
        target = world.workspace.path / world.steps.victim
        shutil.rmtree(target)
        restored = restore(ReplicaStore(self._database), target, database=self._database)
        if restored.in_clear:
            return [f"{restored.in_clear} lay in clear"]
        return super().again(stage, replace(world, workspace=reopened(world)))

    def steps(self, stage: Stage, victim: str) -> Sequence[str]:
        """Return the steps of a party in a stage."""
        world = self.begin(stage, "counted", victim)
        if forked(world.run, world.steps, self.directory / "steps"):
            raise AssertionError(f"{victim}: the steps could not be counted")
        found: list[str] = json.loads((self.directory / "steps").read_text())
        return found

    @property
    def _elsewhere(self) -> Path:
        return self.directory / "elsewhere.sqlite"

    @property
    def _database(self) -> str:
        return f"sqlite:///{self._elsewhere}"


def reopened(world: World) -> Workspace:
    """Return the workspace of a world, as its folders describe themselves now."""
    folders = tuple(PartyFolder(folder.path) for folder in world.workspace.folders)
    return replace(world.workspace, folders=folders)


def main(directory: Path, every: int, offset: int, named: Collection[str]) -> int:
    """Lose machines, and print which; return how often something was wrong."""
    matrix = LosingMatrix(directory)
    wrong = turn = 0
    left = set(named)
    for stage in matrix.each():
        for victim in (*PEOPLE, "coordinator"):
            turn += 1
            name = f"{stage.name}/{victim}"
            if named and name not in left:
                continue
            taken = matrix.steps(stage, victim)
            apart = min(every, len(taken))
            lost = range(1 + (turn * 7 + offset) % apart, len(taken) + 1, apart)
            for at in lost:
                if problems := matrix.kill(stage, victim, at):
                    wrong += 1
                    sys.stderr.write(f"{name} {at} {taken[at - 1]}: {problems}\n")
                    sys.stderr.flush()
            told = {"job": stage.name, "victim": victim, "steps": len(taken), "lost": len(lost)}
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()
            left.discard(name)
        if named and not left:
            break
    return wrong


if __name__ == "__main__":
    LocalFiles.sync = sync_in_turn  # type: ignore[method-assign]
    with listening(lambda _: None):
        each, _, later = sys.argv[2].partition("+")
        sys.exit(min(1, main(Path(sys.argv[1]), int(each), int(later or 0), sys.argv[3:])))
