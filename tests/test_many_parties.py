"""A horizontal training of many parties in one process, of whom one in ten fails now and then."""

import json
import subprocess
import sys
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import numpy as np
import parties
import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from parties import MATCH, World

from compliance.terms import NoiseSource, Role
from federation.apps import client_app
from federation.audit import verify_party
from federation.channel import GridChannel
from federation.coordinator import Coordinator, write_jobs
from federation.embedded import EmbeddedGrid
from federation.errors import PartyUnreachableError
from federation.jobs.model import JointModel
from federation.specification import TrainSpec

TRAIN = TrainSpec(
    name="model", match="find", noise=NoiseSource.DISTRIBUTED, epsilon=1.0, delta=1e-5, rounds=1
)
MOST_RUNS = 100
FAILS = 0.25
"""How often a party that fails now and then gives no answer."""


class FailingNowAndThen:
    """Nodes of which some fail at random: before they took the message, or after they answered."""

    def __init__(self, failing: Collection[str]) -> None:
        self.app = ClientApp()
        self.app.query()(self.answer)
        self.failures = dict.fromkeys(failing, 0)
        self._draws = {name: np.random.default_rng([7, ord(name[-1])]) for name in failing}

    def answer(self, message: Message, context: Context) -> Message:
        """Answer as the party's own app does, or fail."""
        name = Path(str(context.node_config["party"])).name
        chance = self._draws[name].random() if name in self._draws else 1.0
        if chance >= FAILS / 2:
            answer: Message = client_app.app(message, context)
        if chance < FAILS:
            self.failures[name] += 1
            raise ConnectionResetError
        return answer


@pytest.fixture
def partners(monkeypatch: pytest.MonkeyPatch, thorough: bool) -> tuple[str, ...]:
    """Two dozen partners, or six where a sample is taken; `benchmarks/many_parties.py` has 98."""
    found = ["retailer", "courier"]
    for number in range(2, 24 if thorough else 6):
        name = f"shop-{number}"
        monkeypatch.setitem(parties.ROLES, name, Role.PARTNER)
        monkeypatch.setitem(parties.PEOPLE, name, range(number % 20, number % 20 + 40))
        found.append(name)
    return tuple(found)


@pytest.mark.timeout(3600)
def test_a_training_ends_though_one_party_in_ten_fails_at_random(
    tmp_path: Path, partners: tuple[str, ...]
) -> None:
    spare = max(1, len(partners) // 10)
    terms = {"noise": ["distributed"], "max_parties_per_person": 1, "colluding_partners": 0}
    world = World.make(tmp_path, unsafe_seed=4, train=terms | {"absent_partners": spare})
    write_jobs(world.folder("coordinator"), (MATCH, TRAIN))
    failing = partners[-spare:]
    nodes = FailingNowAndThen(failing)
    grid = EmbeddedGrid([folder.path for folder in world.workspace.people], app=nodes.app)
    coordinator = Coordinator.open(world.folder("coordinator").path, clock=world.clock)
    runs = 0
    while not (world.folder("coordinator").job("model") / "ended.json").exists():
        runs += 1
        assert runs <= MOST_RUNS
        with suppress(PartyUnreachableError):
            coordinator.run(GridChannel(grid))
    grid.close()
    assert runs > 1
    assert all(nodes.failures.values())
    model = JointModel.model_validate_json(world.folder("brand").model("model").read_bytes())
    assert set(partners) - set(model.making.parties) <= set(failing)
    assert len(model.making.parties) >= len(partners) - spare
    for name in partners:
        counts = verify_party(world.folder(name).path).counts
        paid = counts.get("budget.committed", 0)
        assert paid <= 1
        assert paid or name not in model.making.parties


def test_the_benchmark_of_many_parties_measures_what_it_says(
    tmp_path: Path, thorough: bool
) -> None:
    if not thorough:
        pytest.skip("a sample is taken: what it runs is tested above")
    benchmark = Path(__file__).parent.parent / "benchmarks" / "many_parties.py"
    figures = tmp_path / "many.json"
    asked = [
        "--parties",
        "6",
        "--rounds",
        "1",
        "--failing",
        "0.2",
        "--seed",
        "5",
        "--json",
        str(figures),
    ]
    command = [sys.executable, str(benchmark), *asked]
    told = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
    assert "quorum: 3 of 4 partners" in told
    jobs = json.loads(figures.read_bytes())["jobs"]
    assert [one["job"] for one in jobs] == ["find", "sums", "local", "count"]
    assert sum(one["missing"] for one in jobs) > 0
    for one in jobs:
        assert 0 < sum(one["sent_bytes"].values()) < 10 << 20
        assert one["got_bytes"]["witness.said"] > 0
        assert one["cpu_seconds"] > 0


@pytest.mark.deployment
@pytest.mark.timeout(900)
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes through /proc")
def test_real_nodes_train_to_the_end_though_one_is_killed_and_the_benchmark_measures_it(
    tmp_path: Path, thorough: bool
) -> None:
    """What must hold is held by the benchmark itself, which leaves with an error otherwise."""
    if not thorough:
        pytest.skip(
            "takes two minutes: how a job goes on without a partner is tested in one process"
        )
    benchmark = Path(__file__).parent.parent / "benchmarks" / "many_parties.py"
    figures = tmp_path / "nodes.json"
    asked = ["--nodes", "4", "--failing", "1", "--rounds", "2", "--seed", "3"]
    command = [sys.executable, str(benchmark), *asked, "--json", str(figures)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=800, check=True).stdout
    content = json.loads(figures.read_bytes())
    (failed,) = content["failures"]
    assert f"4 nodes, of which failed: {failed['partner']} in round {failed['round']}" in told
    assert len(content["round_seconds"]) == 2
    assert content["cpu_seconds"]["worker"] > 0
    assert all(30e6 < size < 1e9 for size in content["peak_bytes"].values())
