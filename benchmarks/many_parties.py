"""A hundred parties in one process: what horizontal jobs cost while partners fail at random.

All parties' folders, keys, logs and ledgers are real, and so is every message. All partners match;
then, in each round of each job after that, one partner in ten of those still there fails at random,
at a step of the round that is drawn too, and is gone until the next job. The jobs' quorums are
below all of them, and each has to end with a result that names who was missing; a job that does not
fails the run. Measured of each: wall time, CPU-seconds of the process, bytes that the coordinator
sent and got, by kind, and the time of its exchanges; at the end the largest resident memory.

With `--nodes`, real nodes on this machine in place of a process, of whom some are killed: see
`failing_nodes`.

Run it: python benchmarks/many_parties.py; or with --nodes 20 --failing 2
"""

import argparse
import base64
import json
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context
from flwr.app import Message as FlowerMessage
from flwr.clientapp import ClientApp

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))  # parties are made as tests make them

import parties  # noqa: E402  # found by the line above

from compliance.agreement import MOST_PARTIES  # noqa: E402
from compliance.naming import named  # noqa: E402
from compliance.records import JobEnded  # noqa: E402
from compliance.terms import NoiseSource, Role  # noqa: E402
from federation.apps import client_app  # noqa: E402
from federation.audit import verify_party  # noqa: E402
from federation.channel import GridChannel, Parcel, from_record  # noqa: E402
from federation.coordinator import Coordinator, write_jobs  # noqa: E402
from federation.embedded import EmbeddedGrid  # noqa: E402
from federation.messages import SealedMessage, SumPhase  # noqa: E402
from federation.specification import JobSpec, MeasureSpec, TrainSpec  # noqa: E402

OTHERS = 2  # the brand and the coordinator
MB = 1 << 20
PHASES = tuple(SumPhase)


def header_of(message: SealedMessage) -> Mapping[str, Any]:
    """Return what a message says in clear, unverified."""
    header: Mapping[str, Any] = json.loads(
        base64.b64decode(json.loads(message.envelope)["payload"])
    )
    return header


def kind_of(message: SealedMessage) -> str:
    """Return the kind of what is said, encrypted or not."""
    body = header_of(message)["body"]
    return str(body.get("encrypts", body["kind"]))


@dataclass
class Failing:
    """Nodes of which a share fails in every round, at random, and is gone until the next job.

    Attributes:
        partners: who may fail.
        share: of those still there, in each round.
        seed: of the draws.
        gone: who has failed, by job.
    """

    partners: Sequence[str]
    share: float
    seed: int
    app: ClientApp = field(default_factory=ClientApp)
    gone: dict[str, set[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.app.query()(self.answer)

    def answer(self, message: FlowerMessage, context: Context) -> FlowerMessage:
        """Answer as the party's own app does, or fail."""
        name = Path(str(context.node_config["party"])).name
        header = header_of(from_record(message.content))
        job, body = str(header["job"]), header["body"]
        gone = self.gone.setdefault(job, set())
        if self._fails(name, job, body):
            gone.add(name)
        if name in gone:
            raise ConnectionResetError
        answer: FlowerMessage = client_app.app(message, context)
        return answer

    def _fails(self, name: str, job: str, body: Mapping[str, Any]) -> bool:
        """Tell whether a partner fails at this step: drawn once for each partner and round."""
        at = body.get("round", 1 if body["kind"] == "measure.request" else 0)
        if name not in self.partners or not at or body["kind"].startswith(("witness", "erase")):
            return False
        place = [self.seed, self.partners.index(name), at, sum(job.encode())]
        draws = np.random.default_rng(place)
        if draws.random() >= self.share:
            return False
        return bool(body.get("phase", PHASES[0]) == PHASES[draws.integers(len(PHASES))]) or (
            "phase" not in body
        )


class Metered(GridChannel):
    """A channel that counts bytes and seconds by the kind of question or answer."""

    def __init__(self, grid: EmbeddedGrid) -> None:
        super().__init__(grid)
        self.sent: Counter[str] = Counter()
        self.got: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()

    def exchange(
        self, parcels: Sequence[Parcel], *, most_missing: int = 0
    ) -> Sequence[SealedMessage | None]:
        """Exchange, and count."""
        begun = time.perf_counter()
        answers = super().exchange(parcels, most_missing=most_missing)
        for parcel in parcels:
            self.sent[kind_of(parcel.message)] += _size(parcel.message)
        for answer in answers:
            if answer is not None:
                self.got[kind_of(answer)] += _size(answer)
        if parcels:
            kind = kind_of(parcels[0].message)
            self.seconds[kind] += time.perf_counter() - begun  # type: ignore[assignment]
        return answers


@dataclass(frozen=True)
class Cost:
    """What one run of a job took, with the round of log heads at its end.

    Attributes:
        job: what was run.
        parties: all of them.
        missing: partners that it went without.
        wall_seconds: from the first message to the last.
        cpu_seconds: of the process: all parties and the coordinator.
        sent_bytes, got_bytes: by the coordinator, by kind.
        seconds: of its exchanges, by the kind of their questions.
    """

    job: str
    parties: int
    missing: int
    wall_seconds: float
    cpu_seconds: float
    sent_bytes: dict[str, int]
    got_bytes: dict[str, int]
    seconds: dict[str, float]

    @property
    def witness_bytes(self) -> int:
        """Bytes of the heads and cosignatures that go round at the end."""
        both = (*self.sent_bytes.items(), *self.got_bytes.items())
        return sum(size for kind, size in both if kind.startswith("witness"))

    @property
    def witness_seconds(self) -> float:
        """Seconds of these exchanges."""
        return sum(one for kind, one in self.seconds.items() if kind.startswith("witness"))


def _size(message: SealedMessage) -> int:
    return len(message.envelope) + len(message.payload)


def make(partners: int, place: Path, *, rounds: int, absent: int) -> parties.World:
    """Make the folders, keys and contract of a brand, a coordinator and so many partners."""
    for number in range(2, partners):
        name = f"shop-{number:03}"
        parties.ROLES[name] = Role.PARTNER
        parties.PEOPLE[name] = range(number % 20, number % 20 + 40)
    return parties.World.make(
        place,
        unsafe_seed=4,
        budget={"epsilon": 10.0},
        train={
            "noise": ["local", "distributed"],
            "max_parties_per_person": 1,
            "max_rounds": rounds,
            "colluding_partners": 0,
            "absent_partners": absent,
        },
        measure={
            "purpose": parties.PURPOSE,
            "columns": [{"name": "colour"}],
            "epsilon": 1.0,
            "minimum_cell": 1,
        },
        witness_quorum=None if partners + OTHERS < 5 else _more_than_half(partners + 1),
    )


def _more_than_half(others: int) -> int:
    return min(others, 23) // 2 + 1


def run(world: parties.World, spec: JobSpec, failing: Failing, done: list[JobSpec]) -> Cost:
    """Run one more job, and measure."""
    done.append(spec)
    write_jobs(world.folder("coordinator"), done)
    grid = EmbeddedGrid([folder.path for folder in world.workspace.people], app=failing.app)
    channel = Metered(grid)
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        Coordinator.open(world.folder("coordinator").path, clock=world.clock).run(channel)
    finally:
        grid.close()
    leaves = verify_party(world.folder("coordinator").path).leaves
    ended = [one for one in leaves if isinstance(one, JobEnded) and one.job == spec.name]
    if [one.outcome for one in ended] != ["done"]:
        raise ValueError(f"job {spec.name} did not end")
    missing = set(named(ended[0].missing, world.agreement))
    gone = failing.gone.get(spec.name, set())
    if missing != gone:
        raise ValueError(f"job {spec.name} names {len(missing)} as missing, and {len(gone)} failed")
    return Cost(
        job=spec.name,
        parties=len(world.agreement.parties),
        missing=len(missing),
        wall_seconds=time.perf_counter() - wall,
        cpu_seconds=time.process_time() - cpu,
        sent_bytes=dict(channel.sent),
        got_bytes=dict(channel.got),
        seconds=dict(channel.seconds),  # type: ignore[arg-type]
    )


def told(cost: Cost) -> str:
    """Say a job's figures in a line."""
    sent, got = sum(cost.sent_bytes.values()), sum(cost.got_bytes.values())
    return (
        f"{cost.job:<12} {cost.parties:>4} parties, {cost.missing:>3} missing: "
        f"{cost.wall_seconds:7.1f} s, {cost.cpu_seconds:7.1f} CPU s, "
        f"{sent / MB:7.1f} MB out, {got / MB:7.1f} MB in; "
        f"of which heads of logs {cost.witness_seconds:6.1f} s, {cost.witness_bytes / MB:6.1f} MB"
    )


def _asked(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parties", type=int, default=100, help=f"6 to {MOST_PARTIES}")
    parser.add_argument("--nodes", type=int, help="real ones in their place: 4 or more")
    parser.add_argument("--rounds", type=int, default=3, help="of each training, 2 or more")
    parser.add_argument(
        "--failing", type=float, default=0.1, help="share in each round; of nodes, how many in all"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(arguments)
    if asked.nodes is not None:
        if not 4 <= asked.nodes < MOST_PARTIES:
            parser.error(f"--nodes: expected 4 to {MOST_PARTIES - 1}, got {asked.nodes}")
        if not (asked.failing.is_integer() and 1 <= asked.failing <= asked.nodes - 2):
            parser.error(f"--failing: expected 1 to {asked.nodes - 2} of the partners' nodes")
        if asked.rounds < 2:
            parser.error("--rounds: expected 2 or more, so that a node fails before the last")
    return asked


def _run_nodes(asked: argparse.Namespace) -> None:
    """Measure real nodes, and print what it took."""
    from failing_nodes import run_with_failures

    with tempfile.TemporaryDirectory() as place:
        cost = run_with_failures(
            Path(place),
            nodes=asked.nodes,
            failing=int(asked.failing),
            rounds=asked.rounds,
            seed=asked.seed,
        )
    print(cost.told)
    if asked.json:
        asked.json.write_text(json.dumps(asdict(cost), indent=2) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the jobs and print their figures."""
    asked = _asked(arguments)
    if asked.nodes is not None:
        _run_nodes(asked)
        return
    partners = asked.parties - OTHERS
    absent = (partners - 1) // 2
    with tempfile.TemporaryDirectory() as place:
        begun = time.perf_counter()
        world = make(partners, Path(place), rounds=asked.rounds, absent=absent)
        print(f"folders, keys and contract made in {time.perf_counter() - begun:.1f} s")
        names = [folder.name for folder in world.workspace.partners]
        quorum, rounds = {"absent_partners": absent}, asked.rounds
        promise = {"epsilon": 1.0, "delta": 1e-6, "match": "find", "rounds": rounds}
        sums = TrainSpec(name="sums", noise=NoiseSource.DISTRIBUTED, **promise)
        local = TrainSpec(name="local", steps=10 * rounds, **promise, **quorum)
        count = MeasureSpec(name="count", match="find", columns=("colour",), epsilon=0.5, **quorum)
        print(
            f"quorum: {partners - absent} of {partners} partners; {asked.failing:.0%} a round fail"
        )
        done: list[JobSpec] = []
        costs = []
        for spec in (parties.MATCH, sums, local, count):
            share = 0.0 if spec is parties.MATCH else asked.failing
            costs.append(run(world, spec, Failing(names, share, asked.seed), done))
            print(told(costs[-1]), flush=True)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(f"largest resident memory: {peak / MB:.0f} MB")
    if asked.json:
        content = {"jobs": [asdict(one) for one in costs], "peak_bytes": peak}
        asked.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
