"""Families of models: what is trained, from where, and that whole collaborations run on them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from parties import TRAIN, Parties
from pydantic import ValidationError
from trials import document, training, write_trial

from compliance.terms import ModelFamily, NoiseSource
from federation.audit import verify_all
from federation.errors import MessageError, RefusedError
from federation.jobs.bodies import LinearBody, NetworkBody, check_body
from federation.jobs.families import gradient_engine, initial_weights, trained_body
from federation.jobs.model import JointModel
from federation.jobs.train import coordinate_train
from federation.objections import policy_objections
from federation.specification import Activation, NetworkShape, TrainSpec
from federation.trial.simulation import simulate
from privacy import training as private
from privacy.errors import InvalidParameterError
from privacy.randomness import SecretStream, seeded_secret

AGREEMENT = Parties.in_memory().agreement
COLUMNS = ("age", "colour=green", "colour=red", "constant")
SHAPE = NetworkShape(hidden=(3,))


def job(family: ModelFamily, **fields: object) -> TrainSpec:
    shape = {"network": SHAPE} if family is ModelFamily.NETWORK else {}
    usual = {"name": "model", "match": "find", "epsilon": 1.0, "delta": 1e-5}
    return TrainSpec.model_validate({**usual, "model": family, **shape, **fields})


NETWORK, RIDGE = job(ModelFamily.NETWORK), job(ModelFamily.RIDGE_REGRESSION)

# --- networks -----------------------------------------------------------------------------------


@given(
    hidden=st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple),
    activation=st.sampled_from(private.Activation),
    rows=st.integers(0, 4),
    seed=st.integers(0, 99),
)
def test_numpy_scores_as_torch_does(
    hidden: tuple[int, ...], activation: private.Activation, rows: int, seed: int
) -> None:
    network = private.Network(4, hidden, activation)
    rng = np.random.default_rng(seed)
    parameters = rng.normal(size=network.parameter_count)
    features = rng.normal(size=(rows, 4))
    module = network._module().double()
    torch.nn.utils.vector_to_parameters(torch.from_numpy(parameters), module.parameters())
    expected = module(torch.from_numpy(features)).detach().numpy()[:, 0]
    np.testing.assert_allclose(network.scores(parameters, features), expected, atol=1e-12)


def test_a_network_is_drawn_within_glorots_limits_and_without_biases() -> None:
    network = private.Network(10, (20,))
    drawn = network.initial(SecretStream(seeded_secret(1, "test"), "network"))
    first, biases, last = drawn[:200], drawn[200:220], drawn[220:240]
    for part, limit in ((first, (6 / 30) ** 0.5), (last, (6 / 21) ** 0.5)):
        assert 0.8 * limit < np.abs(part).max() < limit
    assert not biases.any()
    assert drawn[-1] == 0.0


@pytest.mark.parametrize(("width", "hidden"), [(0, (3,)), (4, ()), (4, (3, 0))])
def test_a_network_without_layers_is_none(width: int, hidden: tuple[int, ...]) -> None:
    with pytest.raises(InvalidParameterError, match="hidden layer"):
        private.Network(width, hidden)


def test_a_network_scores_rows_of_its_width_alone() -> None:
    network = private.Network(4, (3,))
    with pytest.raises(InvalidParameterError, match="expected parameters"):
        network.scores(np.zeros(3), np.zeros((1, 4)))
    with pytest.raises(InvalidParameterError, match="expected parameters"):
        network.scores(np.zeros(network.parameter_count), np.zeros((1, 5)))


# --- jobs ---------------------------------------------------------------------------------------


def test_a_family_brings_what_suits_it_and_a_job_may_say_otherwise() -> None:
    logistic = job(ModelFamily.LOGISTIC_REGRESSION)
    assert (logistic.learning_rate, logistic.penalty) == (20.0, 0.0)
    assert (RIDGE.learning_rate, RIDGE.penalty) == (3.0, 1e-3)
    assert job(ModelFamily.RIDGE_REGRESSION, penalty=0.0, learning_rate=1.0).penalty == 0.0
    for spec in (logistic, RIDGE, NETWORK):
        assert TrainSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "network"},
        {"model": "oracle"},
        {"model": "ridge-regression", "network": {"hidden": [4]}},
        {"network": {"hidden": [4]}},
        {"model": "network", "network": {"hidden": []}},
        {"model": "network", "network": {"hidden": [0]}},
        {"model": "network", "network": {"hidden": [257]}},
        {"model": "network", "network": {"hidden": [4] * 5}},
        {"model": "network", "network": {"hidden": [4], "activation": "sin"}},
        {"model": "network", "network": {"hidden": [4], "code": "import os"}},
        {"model": "network", "network": {"hidden": [4]}, "noise": "distributed"},
        {"model": "ridge-regression", "noise": "distributed"},
        {"penalty": -1.0},
        {"penalty": 0.1, "noise": "distributed"},
    ],
    ids=str,
)
def test_a_job_that_no_family_fits_is_none(fields: dict[str, object]) -> None:
    usual = {"name": "model", "match": "find", "epsilon": 1.0, "delta": 1e-5}
    with pytest.raises(ValidationError):
        TrainSpec.model_validate(usual | fields)


@pytest.mark.parametrize("spec", [RIDGE, NETWORK], ids=lambda spec: spec.model)
def test_a_family_needs_to_be_agreed(spec: TrainSpec) -> None:
    assert [term for term, _ in policy_objections(spec, AGREEMENT)] == [
        "train.models",
        "train.max_steps",
    ]
    terms = AGREEMENT.train.model_copy(update={"models": (spec.model,), "max_steps": 300})
    agreed = AGREEMENT.model_copy(update={"train": terms})
    assert policy_objections(spec, agreed) == ()
    assert [term for term, _ in policy_objections(TRAIN, agreed)] == ["train.models"]


def test_a_network_starts_where_everybody_can_tell() -> None:
    start = initial_weights(NETWORK, AGREEMENT, 4)
    assert len(start) == gradient_engine(NETWORK, 4).parameter_count
    np.testing.assert_array_equal(start, initial_weights(NETWORK, AGREEMENT, 4))
    other = initial_weights(NETWORK.model_copy(update={"name": "other"}), AGREEMENT, 4)
    assert not np.array_equal(start, other)
    assert not initial_weights(RIDGE, AGREEMENT, 4).any()


def test_the_penalty_of_a_job_draws_its_weights_to_nothing() -> None:
    engine = gradient_engine(RIDGE, 2)
    usual = private.DpSgdParameters(
        steps=50,
        sampling_probability=1.0,
        clipping_norm=1.0,
        noise_multiplier=1e-6,
        learning_rate=1.0,
        expected_rows=10,
    )
    rows, labels = np.eye(2)[[0, 1] * 5], np.ones(10)
    stream = [SecretStream(seeded_secret(1, "penalty"), "train") for _ in range(2)]
    free = private.train(engine, np.zeros(2), rows, labels, usual, stream[0])
    held = private.train(engine, np.zeros(2), rows, labels, replace(usual, penalty=0.5), stream[1])
    np.testing.assert_allclose(free, 1.0, atol=1e-3)
    np.testing.assert_allclose(held, 0.5, atol=1e-3)  # of ½·½(w-1)² + ½·½w²


def test_more_weights_than_a_message_carries_are_refused_before_anybody_is_asked() -> None:
    wide = job(ModelFamily.NETWORK, network={"hidden": [256] * 4})
    columns = [f"column {number}" for number in range(4_000)]
    with pytest.raises(RefusedError) as caught:
        next(coordinate_train(AGREEMENT, wide, columns))
    assert (caught.value.party, caught.value.term) == ("coordinator", "train.network")


# --- bodies -------------------------------------------------------------------------------------


def network_body(shape: NetworkShape = SHAPE) -> NetworkBody:
    spec = NETWORK.model_copy(update={"network": shape})
    body = trained_body(spec, COLUMNS, initial_weights(spec, AGREEMENT, 4))
    assert isinstance(body, NetworkBody)
    return body


LINEAR = LinearBody(columns=COLUMNS, weights=(1.0, 2.0, 3.0, 4.0))
WRONG = {
    "linear for a network": (LINEAR, NETWORK),
    "a network for ridge": (network_body(), RIDGE),
    "another width": (network_body(NetworkShape(hidden=(4,))), NETWORK),
    "another depth": (network_body(NetworkShape(hidden=(3, 3))), NETWORK),
    "another activation": (
        network_body(NetworkShape(hidden=(3,), activation=Activation.RELU)),
        NETWORK,
    ),
}


@pytest.mark.parametrize(("body", "spec"), WRONG.values(), ids=WRONG)
def test_a_body_of_another_family_or_shape_is_refused(
    body: LinearBody | NetworkBody, spec: TrainSpec
) -> None:
    with pytest.raises(MessageError, match="another family"):
        check_body(body, spec, COLUMNS)


def test_a_body_over_the_agreed_columns_is_taken() -> None:
    check_body(LINEAR, RIDGE, COLUMNS)
    check_body(network_body(), NETWORK, COLUMNS)
    with pytest.raises(MessageError, match="another family or columns"):
        check_body(network_body(), NETWORK, COLUMNS[::-1])


def test_a_network_with_a_weight_too_many_is_no_body() -> None:
    fields = network_body().model_dump()
    with pytest.raises(ValidationError, match="layers of 19 weights, got 20"):
        NetworkBody.model_validate(fields | {"weights": [*fields["weights"], 0.0]})


# --- whole collaborations -----------------------------------------------------------------------


def test_a_collaboration_trains_and_expands_with_every_family(tmp_path: Path) -> None:
    content = document()
    content["agreement"]["train"] |= {"models": [str(family) for family in ModelFamily]}
    content["agreement"]["budget"] = {"epsilon": 20.0, "delta": 1e-4}
    content["jobs"] = [
        {"kind": "match", "name": "find"},
        training("ridge", model="ridge-regression", rounds=1),
        training("net", model="network", network={"hidden": [3]}, rounds=1),
        {"kind": "expand", "name": "by-ridge", "train": "ridge", "share": 0.2},
        {"kind": "expand", "name": "by-net", "train": "net", "share": 0.2},
    ]
    simulate(write_trial(tmp_path, content), tmp_path / "w")
    models = {
        name: JointModel.model_validate_json(
            (tmp_path / f"w/brand/models/{name}.json").read_bytes()
        )
        for name in ("ridge", "net")
    }
    assert [model.body.kind for model in models.values()] == ["linear", "network"]
    ridge, net = models.values()
    assert len(ridge.making.one_shot or ()) == len(ridge.body.columns)
    assert net.making.one_shot is None
    assert (ridge.noise, net.noise) == (NoiseSource.LOCAL, NoiseSource.LOCAL)
    for name in ("by-ridge", "by-net"):
        assert len((tmp_path / f"w/courier/segments/{name}.csv").read_text().split()) == 11
    parties, problems = verify_all([tmp_path / "w"])
    assert problems == ()
    spent = {party.party: party.epsilon_spent for party in parties}
    assert 1.0 < spent["courier"] == spent["retailer"] < 2.0
    assert spent["brand"] == 0.0
