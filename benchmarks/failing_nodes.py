"""Real nodes on one machine, of which some are killed while they train: the quorum ends the job.

A coordinator and its nodes on loopback, as they are deployed, with TLS and keys for nodes. All
match; then a training with local noise goes on for some rounds. Some partners, a round and a moment
within it for each, are drawn from a seed; each is killed there with all its processes, as by a
power cut. Afterwards they are started again, and a second run hands them the model.

What does not hold fails the measurement: the training ends without exactly those partners, and says
so, in what it tells, in the coordinator's log and in the model; whoever stayed has paid for every
round, and whoever failed for those alone that it was in; nothing stays reserved; all have the same
model in the end; every log verifies.
"""

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from deployed import Coordination, Processes, admit, node_environment, write_workspace
from footprint import Footprint, load

from compliance.records import JobEnded
from federation.audit import verify_party
from federation.jobs.model import JointModel
from federation.operations.journal import Run, RunState
from federation.operations.runs import LocalRuns, Order
from federation.party import PartyFolder
from federation.trial.workspace import Workspace
from privacy.accounting.charge import ChargeState

__all__ = ["Failure", "NodesCost", "draw_failures", "run_with_failures"]

JOB = "model"
MB = 1_000_000
_ASKS = "says train.request"
_LATEST_SECONDS = 3.0
_PATIENCE_SECONDS = 3600.0
_LOOK_SECONDS = 0.02


@dataclass(frozen=True)
class Failure:
    """A node's end.

    Attributes:
        partner: whose node.
        round: of the training, from 1.
        seconds: after the coordinator has asked for that round.
    """

    partner: str
    round: int
    seconds: float


@dataclass
class NodesCost:
    """What it took.

    Attributes:
        nodes: all of them.
        failures: that were drawn.
        rounds: of the training.
        start_seconds: until the coordinator answered and all nodes were connected.
        match_seconds: from the run's beginning to the end of the match.
        round_seconds: of each round of the training, waiting for the dead included.
        run_seconds: of the first run.
        again_seconds: of the second run, that hands over the model.
        cpu_seconds: of all processes, by part, those of the dead included.
        peak_bytes: resident memory of the largest process of each part.
        share_bytes: that all processes of a part take after the first run, shared pages by their
            share.
        load: how many processes wanted to run, over the last minute of the first run.
    """

    nodes: int
    failures: Sequence[Failure]
    rounds: int
    start_seconds: float
    match_seconds: float = 0.0
    round_seconds: list[float] = field(default_factory=list)
    run_seconds: float = 0.0
    again_seconds: float = 0.0
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    peak_bytes: dict[str, int] = field(default_factory=dict)
    share_bytes: dict[str, int] = field(default_factory=dict)
    load: float = 0.0

    @property
    def told(self) -> str:
        """All figures, in lines."""
        rounds = ", ".join(f"{one:.1f}" for one in self.round_seconds)
        sizes = (f"{part} {size / MB:.0f}" for part, size in self.peak_bytes.items() if size)
        shares = (f"{part} {size / MB:.0f}" for part, size in self.share_bytes.items())
        used = (f"{part} {one:.0f}" for part, one in self.cpu_seconds.items())
        failed = (f"{one.partner} in round {one.round}" for one in self.failures)
        return "\n".join(
            (
                f"{self.nodes} nodes, of which failed: {', '.join(failed)}; load {self.load:.1f}",
                f"up in {self.start_seconds:.1f} s, matched in {self.match_seconds:.1f} s",
                f"rounds in {rounds} s, the last with the end; all in {self.run_seconds:.1f} s",
                f"the failed have the model after {self.again_seconds:.1f} s more",
                f"CPU-s {sum(self.cpu_seconds.values()):.0f}: {', '.join(used)}",
                f"peak MB of one process: {', '.join(sizes)}",
                f"MB of all processes, shared pages by their share: {', '.join(shares)}",
            )
        )


def draw_failures(
    partners: Sequence[str], *, failing: int, rounds: int, seed: int
) -> tuple[Failure, ...]:
    """Draw who fails, and when: before the last round, so that something is missing of each.

    They stand in the order of the partners.
    """
    draws = np.random.default_rng([seed, len(partners), failing, rounds])
    return tuple(
        Failure(
            partners[place],
            int(draws.integers(1, rounds)),
            float(draws.uniform(0, _LATEST_SECONDS)),
        )
        for place in sorted(draws.choice(len(partners), failing, replace=False))
    )


def run_with_failures(
    directory: Path, *, nodes: int, failing: int, rounds: int, seed: int
) -> NodesCost:
    """Start everything, train while some fail, have them back, and hold all against each other.

    Args:
        directory: for all files.
        nodes: a brand's and its partners', 4 or more.
        failing: partners whose nodes are killed, 1 or more, and fewer than all.
        rounds: of the training, 2 or more.
        seed: of who fails and when.

    Raises:
        ValueError: the job did not end as it must have; says how.
    """
    workspace = write_workspace(directory, nodes=nodes, rounds=rounds, absent_partners=failing)
    partners = [folder.name for folder in workspace.partners]
    failures = draw_failures(partners, failing=failing, rounds=rounds, seed=seed)
    with Processes(directory / "flower", node_environment()) as processes:
        return _Trial(workspace, processes, directory, failures, rounds).run()


class _Trial:
    """A deployment in which nodes fail."""

    def __init__(
        self,
        workspace: Workspace,
        processes: Processes,
        directory: Path,
        failures: Sequence[Failure],
        rounds: int,
    ) -> None:
        self._workspace = workspace
        self._processes = processes
        self._own = Coordination(processes, directory, workspace.coordinator.path)
        self._runs = LocalRuns(self._own.folder, by="benchmark")
        self._cost = NodesCost(len(workspace.people), failures, rounds, 0.0)
        self._failures = failures
        self._ended_in: dict[str, int] = {}

    def run(self) -> NodesCost:
        cost, folders = self._cost, self._workspace.people
        begun = time.perf_counter()
        with Footprint({"coordinator": self._own.up().pid}) as footprint:
            self._own.wait_until_ready()
            keys = admit(self._own, [folder.name for folder in folders])
            self._start(folders, keys, footprint)
            cost.start_seconds = time.perf_counter() - begun
            _tell(f"{cost.nodes} nodes are up")
            first = self._first_run(footprint)
            cost.load = load()
            cost.share_bytes = footprint.shares()
            self._check_told(first)
            dead = [folder for folder in folders if folder.name in self._dead]
            self._start(dead, keys, footprint, again="-again")
            begun = time.perf_counter()
            self._wait(self._runs.submit(Order()))
            cost.again_seconds = time.perf_counter() - begun
            for part, used in footprint.used().items():
                cost.cpu_seconds[part] = cost.cpu_seconds.get(part, 0.0) + used.cpu_seconds
                cost.peak_bytes[part] = used.peak_bytes
        self._check_folders()
        return cost

    @property
    def _dead(self) -> tuple[str, ...]:
        return tuple(one.partner for one in self._failures)

    def _start(
        self,
        folders: Sequence[PartyFolder],
        keys: Mapping[str, Path],
        footprint: Footprint,
        *,
        again: str = "",
    ) -> None:
        names = [f"node-{folder.name}{again}" for folder in folders]
        for name, folder in zip(names, folders, strict=True):
            self._own.start_node(name, folder, keys[folder.name])
            footprint.add(name, self._processes.process(name).pid)
        for name in names:
            self._processes.wait_until_told(name, "is connected", seconds=_PATIENCE_SECONDS)

    def _first_run(self, footprint: Footprint) -> Run:
        """Run all jobs, and kill who is to fail as the rounds come."""
        cost, left = self._cost, list(self._failures)
        run, begun = self._runs.submit(Order()), time.perf_counter()
        asked: list[float] = []
        told: Sequence[str] = ()
        while not (run := self._runs.run(run.number)).state.is_over:
            told = self._runs.lines(run.number).lines
            now = time.perf_counter()
            if not cost.match_seconds and any("find" in one and "has ended" in one for one in told):
                cost.match_seconds = now - begun
                _tell(f"matched in {cost.match_seconds:.0f} s")
            if sum(_ASKS in one for one in told) > len(asked):
                asked.append(now)
                _tell(f"round {len(asked)}")
            for one in list(left):
                if len(asked) > one.round or (
                    len(asked) == one.round and now > asked[-1] + one.seconds
                ):
                    left.remove(one)
                    self._ended_in[one.partner] = len(asked)
                    self._kill(one.partner, footprint)
            if now - begun > _PATIENCE_SECONDS:
                raise ValueError(f"the run is {run.state} after {now - begun:.0f} s")
            time.sleep(_LOOK_SECONDS)
        ended = time.perf_counter()
        cost.run_seconds = ended - begun
        cost.round_seconds = list(np.diff([*asked, ended]))
        return run

    def _kill(self, partner: str, footprint: Footprint) -> None:
        """End a node and whatever it started, and keep count of what they had used."""
        _tell(f"kills the node of {partner}")
        before = footprint.used()
        home = self._processes.flower_home(f"node-{partner}")
        for pid, environment in self._processes.environments():
            if Path(environment["FLWR_HOME"]) == home:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._processes.process(f"node-{partner}").wait()
        for part, used in footprint.used().items():
            lost = max(0.0, before[part].cpu_seconds - used.cpu_seconds)
            self._cost.cpu_seconds[part] = self._cost.cpu_seconds.get(part, 0.0) + lost

    def _wait(self, run: Run) -> None:
        end = time.monotonic() + _PATIENCE_SECONDS
        while not (run := self._runs.run(run.number)).state.is_over:
            if time.monotonic() > end:
                raise ValueError(f"the second run is {run.state} after {_PATIENCE_SECONDS:g} s")
            time.sleep(_LOOK_SECONDS)
        if run.state is not RunState.DONE:
            raise ValueError(f"the second run is {run.state}: {run.told}")

    def _check_told(self, run: Run) -> None:
        """Hold the first run against who failed."""
        if run.state is not RunState.DONE:
            raise ValueError(f"the run is {run.state}: {run.told}")
        told = self._runs.lines(run.number).lines
        for name in self._dead:
            if not any(one.endswith(f"goes on without {name}") for one in told):
                raise ValueError(f"nobody was told that the job goes on without {name}")
        if not any(one.endswith(f"has ended without {', '.join(self._dead)}") for one in told):
            raise ValueError("the last words of the job do not name who failed")
        leaves = verify_party(self._own.folder.party).leaves
        ended = [one for one in leaves if isinstance(one, JobEnded) and one.job == JOB]
        if [(one.outcome, one.missing) for one in ended] != [("done", self._dead)]:
            raise ValueError("the coordinator's log does not name who failed")

    def _check_folders(self) -> None:
        """Hold models, charges and logs of all parties against each other."""
        party = PartyFolder(self._own.folder.party)
        models = {folder.model(JOB).read_bytes() for folder in (party, *self._workspace.people)}
        if len(models) != 1:
            raise ValueError(f"parties have {len(models)} models of one training")
        model = JointModel.model_validate_json(models.pop())
        if model.making.missing != self._dead:
            raise ValueError("the model does not name who failed")
        for folder in self._workspace.people:
            verify_party(folder.path)
        for folder in self._workspace.partners:
            paid, most = _paid(folder), self._ended_in.get(folder.name, self._cost.rounds)
            least = most - 1 if folder.name in self._ended_in else most
            if not least <= paid <= most:
                raise ValueError(f"{folder.name} paid for {paid} rounds, and {least} to {most} ran")


def _paid(folder: PartyFolder) -> int:
    """Return for how many rounds a partner has paid; nothing else may stand in its ledger."""
    looked = folder.ledger_store(folder.agreement()).look()
    states = [] if looked is None else [ChargeState(one.state) for one in looked[1]]
    if ChargeState.RESERVED in states:
        raise ValueError(f"{folder.name} has a charge that nobody settled")
    return states.count(ChargeState.COMMITTED)


def _tell(stage: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {stage}", file=sys.stderr, flush=True)
