"""Boosted trees as jobs: whole collaborations, and what is said of a model."""

from pathlib import Path

import numpy as np
import pytest
from parties import Parties
from pydantic import ValidationError
from trials import Document, document, write_trial

from compliance.terms import NoiseSource
from federation.audit import verify_all
from federation.collaboration import load_collaboration
from federation.jobs.bodies import LinearBody, TreesBody
from federation.jobs.model import JointModel
from federation.jobs.sums import sums_for, whole_charge
from federation.objections import policy_objections
from federation.plan import plan
from federation.population import encoder_for
from federation.specification import TrainSpec
from federation.trial.simulation import simulate
from privacy.accounting import epsilon_of
from privacy.errors import InvalidParameterError

pytestmark = pytest.mark.xdist_group("tree jobs")

SUMS = {
    "models": ["boosted-trees"],
    "noise": ["distributed", "unsafe-none"],
    "max_rounds": 73,
    "max_parties_per_person": 1,
    "colluding_partners": 0,
}
USUAL = {"name": "model", "match": "find", "model": "boosted-trees"}
NOISED = TrainSpec.model_validate(
    USUAL | {"noise": "distributed", "epsilon": 1.0, "delta": 1e-5, "rounds": 2, "depth": 2}
)
EXACT = TrainSpec.model_validate(USUAL | {"noise": "unsafe-none", "rounds": 3, "depth": 2})
AGREEMENT = Parties.in_memory(train=SUMS).agreement


@pytest.mark.parametrize(
    ("changes", "rounds"),
    [({"noise": "unsafe-none"}, 73), ({"noise": "distributed", "epsilon": 1, "delta": 1e-5}, 10)],
    ids=str,
)
def test_a_job_has_the_rounds_that_suit_it(changes: dict[str, object], rounds: int) -> None:
    spec = TrainSpec.model_validate(USUAL | changes)
    assert (spec.rounds, spec.depth) == (rounds, 6)
    assert TrainSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    "changes",
    [
        {"epsilon": 1, "delta": 1e-5},
        {"noise": "local", "epsilon": 1, "delta": 1e-5},
        {"noise": "unsafe-none", "rounds": 6},
        {"noise": "unsafe-none", "depth": 0},
        {"noise": "unsafe-none", "depth": 11},
        {"noise": "unsafe-none", "learning_rate": 0.5},
        {"noise": "unsafe-none", "network": {"hidden": [3]}},
        {"noise": "unsafe-none", "model": "logistic-regression", "depth": 3},
    ],
    ids=str,
)
def test_a_job_that_trains_no_trees_is_none(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TrainSpec.model_validate(USUAL | changes)


def test_trees_need_to_be_agreed_and_rounds_are_secure_sums() -> None:
    assert policy_objections(EXACT, AGREEMENT) == policy_objections(NOISED, AGREEMENT) == ()
    others = Parties.in_memory(train=SUMS | {"models": ["logistic-regression"], "max_rounds": 2})
    assert [term for term, _ in policy_objections(EXACT, others.agreement)] == [
        "train.models",
        "train.max_rounds",
    ]


def test_noised_trees_cost_what_they_ask_for_and_exact_ones_promise_nothing() -> None:
    whole = whole_charge(sums_for(NOISED, AGREEMENT, width=4), NOISED)
    assert whole is not None
    assert 0.9 < epsilon_of([whole], 1e-5) <= 1.0
    assert whole_charge(sums_for(EXACT, AGREEMENT, width=4), EXACT) is None


@pytest.mark.parametrize("spec", [NOISED, EXACT], ids=lambda spec: spec.noise.value)
def test_sums_answer_the_questions_of_the_plan_alone(spec: TrainSpec) -> None:
    sums = sums_for(spec, AGREEMENT, width=4)
    assert len(sums.start().weights) == sums.asked_length(1) == 1
    for number in (0, spec.rounds + 1):
        with pytest.raises(InvalidParameterError):
            sums.asked_length(number)


def contract_and_jobs() -> Document:
    content = document()
    content["agreement"]["train"] |= SUMS
    content["jobs"] = [
        {"kind": "match", "name": "find"},
        {"kind": "train", **NOISED.model_dump(mode="json", exclude_defaults=True)},
        {"kind": "train", **EXACT.model_dump(mode="json", exclude_defaults=True), "name": "exact"},
        {"kind": "expand", "name": "best", "train": "model", "share": 0.2},
        {"kind": "expand", "name": "exact-best", "train": "exact", "share": 0.2},
    ]
    return content


def test_a_plan_prices_trees(tmp_path: Path) -> None:
    found = plan(load_collaboration(write_trial(tmp_path, contract_and_jobs())))
    _, noised, exact, *_ = found.jobs
    assert (noised.refused_by, exact.refused_by) == (None, None)
    assert 0.9 < noised.epsilon <= 1.0
    assert "2 secure sums" in noised.note
    assert exact.epsilon == 0
    assert "up to 3 exact sums" in exact.note


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collaboration with trees of both kinds, run to its end."""
    path = tmp_path_factory.mktemp("trees")
    simulate(write_trial(path, contract_and_jobs()), path / "w")
    return path / "w"


def model(path: Path, party: str, name: str) -> JointModel:
    return JointModel.model_validate_json((path / party / f"models/{name}.json").read_bytes())


def test_a_collaboration_trains_trees_expands_and_is_audited(ended: Path) -> None:
    for name, noise, epsilon in (
        ("model", NoiseSource.DISTRIBUTED, 1.0),
        ("exact", NoiseSource.UNSAFE_NONE, None),
    ):
        made = model(ended, "brand", name)
        assert made == model(ended, "courier", name) == model(ended, "coordinator", name)
        assert (made.body.kind, made.noise, made.epsilon) == ("trees", noise, epsilon)
        assert made.making.one_shot is None
    for name in ("best", "exact-best"):
        assert len((ended / f"courier/segments/{name}.csv").read_text().split()) == 11
    parties, problems = verify_all([ended])
    assert problems == ()
    spent = {party.party: party.epsilon_spent for party in parties}
    assert 0.9 < spent["courier"] == spent["retailer"] <= 1.0


def test_a_published_tree_scores_rows_of_its_columns(ended: Path) -> None:
    body = model(ended, "brand", "exact").body
    columns = {"age": np.array([18.0, 90.0, np.nan]), "colour": np.array(["red", None, "mauve"])}
    scores = body.score(encoder_for(AGREEMENT).encode(columns))
    assert scores.shape == (3,)
    assert np.isfinite(scores).all()


def test_a_model_that_the_job_cannot_leave_fits_none_of_it(ended: Path) -> None:
    for name, spec in (("model", NOISED), ("exact", EXACT)):
        made = model(ended, "brand", name)
        sums = sums_for(spec, AGREEMENT, width=4)
        body, rounds = made.body, made.making.rounds
        assert isinstance(body, TreesBody)
        if name == "exact":  # which trees noised ones are hangs on the agreement's digest
            assert sums.fits(body, rounds)
        assert not sums.fits(body, rounds + 1)
        assert not sums.fits(body.model_copy(update={"batches": body.batches[:-1]}), rounds)
        assert not sums.fits(LinearBody(columns=body.columns, weights=(0.0,) * 4), rounds)


BROKEN = {
    "columns": {"columns": ("age",)},
    "bins": {"bins": ((0, 0),)},
    "batches": {"batches": ()},
    "depth": {"depth": 5},
    "nothing known": {"code": "import os"},
}


@pytest.mark.parametrize("changes", BROKEN.values(), ids=BROKEN)
def test_broken_trees_are_no_body(ended: Path, changes: dict[str, object]) -> None:
    fields = model(ended, "brand", "exact").body.model_dump()
    TreesBody.model_validate(fields)
    with pytest.raises(ValidationError):
        TreesBody.model_validate(fields | changes)


def test_a_tree_that_asks_for_a_feature_that_there_is_not_is_no_body(ended: Path) -> None:
    fields = model(ended, "brand", "exact").body.model_dump()
    batch = fields["batches"][0]
    broken = batch | {"features": (99, *batch["features"][1:])}
    with pytest.raises(ValidationError, match="beyond"):
        TreesBody.model_validate(fields | {"batches": (broken,)})
