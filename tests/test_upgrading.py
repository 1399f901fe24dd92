"""Folders that an earlier version left: opened, verified and gone on with, as if it were still that."""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from parties import NOW, TRAIN, Parties, World, email, record

from compliance.erasure.execution import Standing
from compliance.records import BudgetReserved, ErasureOutcome, to_leaf
from compliance.terms import Labels
from federation.approvals import job_digest
from federation.auditing import audit_places
from federation.coordinator import read_jobs, write_jobs
from federation.erasing import Erasing
from federation.errors import RefusedError
from federation.gate import Gate
from federation.hidden_share import ToldShare
from federation.jobs.model import JointModel
from federation.party import PartyFolder, locked
from federation.specification import ExpandSpec, JobSpec, VerticalScoreSpec, VerticalTrainSpec
from federation.trial.workspace import Workspace
from privacy.accounting import ChargeState

FORMER = Path(__file__).parent / "vectors" / "folders-605e20e7" / "folders.tar.xz"
# What the earlier version said of them, as is written beside them.
AGREEMENT = "d9f1bc77bdae12358fdc2884796d819876382f009fe0f03752c304170a8d824c"
LEAVES = {"brand": 88, "retailer": 78, "courier": 71, "coordinator": 98}
SPENT = {
    "brand": 3.999831353980898,
    "retailer": 1.798606661766952,
    "courier": 1.798606661766952,
}

EXPAND = ExpandSpec(name="best", train="model", share=0.2)
SCORE = VerticalScoreSpec(name="scores", train="columns", align="everybody")


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> World:
    place = tmp_path_factory.mktemp("former")
    with tarfile.open(FORMER) as archive:
        archive.extractall(place, filter="data")
    folders = tuple(PartyFolder(place / name) for name in LEAVES)
    return World(Workspace(place, folders[0].agreement(), folders), NOW + timedelta(days=1))


@pytest.fixture
def world(untouched: World, tmp_path: Path) -> World:
    return untouched.copy(tmp_path / "workspace")


def run(world: World, *specs: JobSpec) -> None:
    folder = world.folder("coordinator")
    write_jobs(folder, [*read_jobs(folder), *specs])
    world.run()


def findings(world: World, scratch: Path) -> list[str]:
    places = [str(world.workspace.path)]
    _, found, _ = audit_places(places, agreements=(), policy=None, scratch=scratch, now=world.now)
    return [str(one.kind) for one in found]


@contextmanager
def erasing(world: World, name: str) -> Iterator[Erasing]:
    folder = world.folder(name)
    with locked(folder), folder.open_log() as log:
        gate = Gate(folder, world.agreement, log, None, clock=world.clock)
        yield Erasing(folder, world.agreement, gate, clock=world.clock)


def test_agreement_log_budget_and_requests_are_what_they_were(world: World) -> None:
    for name, leaves in LEAVES.items():
        assert world.folder(name).agreement().digest == AGREEMENT
        assert len(world.leaves(name)) == leaves
    for name, epsilon in SPENT.items():
        statement = world.statement(name)
        assert statement.epsilon_spent == epsilon
        assert {charge.state for charge in statement.charges} == {ChargeState.COMMITTED}
    with erasing(world, "retailer") as requests:
        (kept,) = requests.status()
    assert kept.execution.standing is Standing.COMPLETED


def test_a_run_goes_on_from_their_match_and_their_models(world: World, tmp_path: Path) -> None:
    run(world, EXPAND, SCORE)
    for name in ("retailer", "courier"):
        listed = pd.read_csv(world.folder(name).segment("best"))
        assert len(listed) > 3
        assert record("courier", 21) not in set(listed["record"])  # who withdrew before
    scored = pd.read_csv(world.folder("brand").segment("scores"))
    assert len(scored) >= 5
    for name, epsilon in SPENT.items():
        assert world.statement(name).epsilon_spent == epsilon
    (tmp_path / "scratch").mkdir()
    assert findings(world, tmp_path / "scratch") == []


def test_their_models_are_retired_where_somebody_whom_they_saw_is_erased(world: World) -> None:
    with erasing(world, "retailer") as requests:
        asked = requests.request("email", email(25)).execution.request
        (done,) = (one for one in requests.run() if one.execution.request == asked)
    outcomes = {step.target: step.outcome for step in done.execution.steps}
    assert outcomes["model model"] is outcomes["model columns"] is ErasureOutcome.RETIRED
    with pytest.raises(RefusedError, match="somebody whom it saw was erased"):
        run(world, EXPAND)


def test_a_training_over_columns_that_they_had_begun_is_refused_by_name(world: World) -> None:
    begun = VerticalTrainSpec(name="begun", align="everybody", rounds=1, label_epsilon=3.0)
    for name in SPENT:
        rows = world.folder(name).job("begun") / "rows.npz"
        rows.parent.mkdir()
        np.savez(rows, align=np.array("everybody"))
    with pytest.raises(RefusedError, match="began under an earlier version"):
        run(world, begun)


def test_what_says_nothing_of_a_later_field_is_spelt_without_it(world: World) -> None:
    leaves = [leaf for leaf in world.leaves("retailer") if isinstance(leaf, BudgetReserved)]
    assert leaves
    for leaf in leaves:
        assert b"period" not in to_leaf(leaf)
        assert b'"period_epsilon_spent":0.5' in to_leaf(
            leaf.model_copy(update={"period_epsilon_spent": 0.5})
        )
    # Digests that people approved, by the earlier version.
    columns = VerticalTrainSpec(name="columns", align="rows", label_epsilon=2.0)
    assert [job_digest(one) for one in (TRAIN, columns)] == [
        "1988697a29fcb5a2c8006a5736efe17f77322570539ac4636baf890dc3294a72",
        "82135ecb9e02ccd9c71ea0ec17fd649d45a671ce4dd2beb48bd6eea198961283",
    ]
    again = TRAIN.model_copy(update={"replaces": "model"})
    assert job_digest(again) != job_digest(TRAIN)


def test_a_hidden_share_without_its_error_is_told_and_keeps_its_digest(world: World) -> None:
    content = world.folder("brand").model("model").read_bytes()
    assert content.count(b'"hidden_share":null') == 1
    content = content.replace(b'"hidden_share":null', b'"hidden_share":0.25')
    model = JointModel.model_validate_json(content)
    assert model.canonical_bytes == content
    agreement = Parties.in_memory(train={"hidden_share_epsilon": 0.2}).agreement
    spec = TRAIN.model_copy(update={"labels": Labels.SEEDS_ONLY})
    told = ToldShare.of(model, agreement, spec)
    assert told is not None
    assert "about 25.0%" in told.sentence
    assert told.estimate is None
