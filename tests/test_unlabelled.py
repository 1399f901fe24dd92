"""Seeds only: weights, the estimate of hidden positives, and what of it leaves a partner."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parties import MATCH, NOW, TRAIN, Parties, World

from compliance.terms import Labels
from federation.card import ModelCard, make_card, write_card
from federation.coordinator import write_jobs
from federation.errors import MessageError
from federation.hidden_share import ToldShare
from federation.jobs.families import gradient_engine
from federation.jobs.hidden import HiddenPlan, coordinate_counting, counts_to_bytes
from federation.jobs.model import JointModel
from federation.jobs.quorum import Quorum
from federation.messages import Refused, TrainCount, TrainCounted, weights_to_bytes
from federation.specification import TrainSpec
from federation.trial.report import build_report, write_report
from federation.trial.simulation import hidden_shares
from privacy.accounting.accountant import epsilon_of
from privacy.accounting.events import DiscreteLaplaceEvent
from privacy.errors import InvalidParameterError
from privacy.randomness import SecretStream, seeded_secret
from privacy.training.gradients import LogisticGradient
from privacy.training.unlabelled import (
    CELLS,
    UNLABELLED_WEIGHT,
    HiddenShare,
    ScoreCounts,
    corrected,
    label_frequency,
)

SEEDS_ONLY = TrainSpec.model_validate(TRAIN.model_dump() | {"labels": "seeds-only"})


# --- the core ---------------------------------------------------------------------------------


def people(
    share: float, frequency: float, apart: float, rows: int = 40_000
) -> tuple[np.ndarray, ...]:
    """Scores of people, which of them are seeds, and which are positives."""
    stream = np.random.default_rng(5)
    positive = stream.random(rows) < share
    seeds = positive & (stream.random(rows) < frequency)
    return stream.normal(np.where(positive, apart, -apart), 1.0), seeds, positive


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("frequency", [0.1, 0.6])
def test_the_hidden_share_is_found_where_positives_stand_apart(
    share: float, frequency: float
) -> None:
    scores, seeds, positive = people(share, frequency, 2.0)
    truth = positive[~seeds].mean()
    found = ScoreCounts.of(scores, seeds).hidden_share()
    assert found is not None
    assert found.share == pytest.approx(truth, rel=0.25)
    assert not found.lost


def test_where_positives_and_negatives_mix_the_estimate_errs_upwards() -> None:
    scores, seeds, positive = people(0.2, 0.3, 0.5)
    found = ScoreCounts.of(scores, seeds).hidden_share()
    assert found is not None
    assert found.share > positive[~seeds].mean()


def test_noise_moves_the_estimate_little_where_seeds_are_many() -> None:
    scores, seeds, positive = people(0.2, 0.3, 2.0)
    exact = ScoreCounts.of(scores, seeds)
    mechanism = DiscreteLaplaceEvent(scale=2.0)
    for number in range(5):
        stream = SecretStream(seeded_secret(number, "counts"), "noise")
        found = exact.noised(mechanism, stream).hidden_share()
        assert found is not None
        assert found.share == pytest.approx(positive[~seeds].mean(), rel=0.25)


def test_noise_is_unbiased_also_in_empty_cells() -> None:
    empty = ScoreCounts(np.zeros(CELLS, dtype=np.int64), np.zeros(CELLS, dtype=np.int64))
    mechanism = DiscreteLaplaceEvent(scale=3.0)
    drawn = [
        empty.noised(mechanism, SecretStream(seeded_secret(number, "x"), "y"))
        for number in range(40)
    ]
    cells = np.concatenate([np.concatenate([one.seeds, one.unlabelled]) for one in drawn])
    assert abs(cells.mean()) < 4 * 3.0 * 2**0.5 / len(cells) ** 0.5
    assert cells.std() == pytest.approx(3.0 * 2**0.5, rel=0.1)
    assert drawn[0].sigma >= cells.std() * 0.9


@pytest.mark.parametrize(("rows", "scale"), [(20_000, 10.0), (4_000, 4.0), (4_000, 0.0)])
def test_the_standard_error_is_how_far_estimates_lie_apart(rows: int, scale: float) -> None:
    """Over people and noise drawn anew; without noise over people alone."""
    draw, found = np.random.default_rng(7), []
    for number in range(60):
        positive = draw.random(rows) < 0.2
        seeds = positive & (draw.random(rows) < 0.3)
        counts = ScoreCounts.of(draw.normal(np.where(positive, 2.0, -2.0)), seeds)
        if scale:
            stream = SecretStream(seeded_secret(number, "counts"), "noise")
            counts = counts.noised(DiscreteLaplaceEvent(scale=scale), stream)
        estimate = counts.hidden_share()
        assert estimate is not None
        found.append((estimate.share, estimate.standard_error))
    shares, errors = np.array(found).T
    assert errors.mean() == pytest.approx(shares.std(), rel=0.35)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0, 1e4))
def test_expected_counts_are_of_all_people(seeds: int, others: int, sigma: float) -> None:
    counts = ScoreCounts.expected(seeds + others, seeds, sigma)
    assert (counts.seeds.sum(), counts.unlabelled.sum()) == (seeds, others)
    expected = counts.hidden_share()
    if expected is not None:
        assert 0.0 < expected.share <= 1.0
    with pytest.raises(InvalidParameterError, match="seeds"):
        ScoreCounts.expected(seeds, seeds + 1, sigma)


def test_more_noise_is_more_doubt_until_nothing_is_left_to_say() -> None:
    found = [ScoreCounts.expected(50_000, 500, sigma).hidden_share() for sigma in (0, 5, 20, 80)]
    assert found[-1] is None
    errors = [one.standard_error for one in found if one is not None]
    assert len(errors) == 3
    assert errors == sorted(errors)


def test_where_nothing_is_left_to_say_nothing_is_said() -> None:
    zero = np.zeros(CELLS, dtype=np.int64)
    few = zero.copy()
    few[-1] = 2
    for counts in (
        ScoreCounts(zero, zero),
        ScoreCounts(few, zero),
        ScoreCounts(zero, few),
        ScoreCounts(few, 100 * few, sigma=50.0),
        ScoreCounts(-few, few),
    ):
        assert counts.hidden_share() is None
        assert counts.frequency() is None


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.floats(-9, 9), st.booleans()), max_size=60),
    st.tuples(st.floats(-9, 9), st.booleans()),
)
def test_one_person_changes_one_count_by_one(
    rows: list[tuple[float, bool]], more: tuple[float, bool]
) -> None:
    def counted(people: list[tuple[float, bool]]) -> np.ndarray:
        scores = np.array([one for one, _ in people], dtype=float)
        found = ScoreCounts.of(scores, np.array([seed for _, seed in people], dtype=bool))
        return np.concatenate([found.seeds, found.unlabelled])

    change = counted([*rows, more]) - counted(rows)
    assert sorted(change.tolist()) == [0] * (2 * CELLS - 1) + [1]


def test_counts_of_two_parties_add_up() -> None:
    scores, seeds, _ = people(0.3, 0.3, 1.0, rows=500)
    whole = ScoreCounts.of(scores, seeds)
    parts = [ScoreCounts.of(scores[one::2], seeds[one::2]) for one in (0, 1)]
    both = parts[0].with_those_of(parts[1])
    assert (both.seeds == whole.seeds).all()
    assert (both.unlabelled == whole.unlabelled).all()


def test_corrected_probabilities_are_those_of_being_positive() -> None:
    """On data where both are known, and classes can be told apart."""
    stream = np.random.default_rng(3)
    positive = stream.random(20_000) < 0.3
    seeds = positive & (stream.random(20_000) < 0.25)
    given_seed = np.where(positive, 0.25, 0.0)  # what the best model says
    frequency = label_frequency(given_seed[seeds])
    assert frequency == pytest.approx(0.25)
    assert (corrected(given_seed, frequency) == positive).all()
    told = ScoreCounts.of(np.where(positive, 3.0, -3.0), seeds).frequency()
    assert told == pytest.approx(0.25, rel=0.1)


@pytest.mark.parametrize("frequency", [0.0, -0.1, 1.1, float("nan")])
def test_a_frequency_out_of_range_is_refused(frequency: float) -> None:
    with pytest.raises(InvalidParameterError, match="frequency"):
        corrected(np.array([0.1]), frequency)


@pytest.mark.parametrize("held_out", [[], [0.0, 0.0], [0.5, 1.5], [float("nan")]])
def test_seeds_that_say_nothing_of_a_frequency_are_refused(held_out: list[float]) -> None:
    with pytest.raises(InvalidParameterError, match="probabilities"):
        label_frequency(np.array(held_out))


def test_scores_that_are_no_numbers_are_refused() -> None:
    for scores in (np.array([np.nan]), np.array([np.inf]), np.array([0.0, 0.0])):
        with pytest.raises(InvalidParameterError, match="finite score"):
            ScoreCounts.of(scores, np.array([True]))


def test_an_unlabelled_row_weighs_less_and_nobody_weighs_more_than_the_clipping_norm() -> None:
    features = np.array([[0.3, 0.4], [0.6, 0.8]])
    weights, labels = np.array([1.0, -2.0]), np.array([1.0, 0.0])

    def gradient(rows: slice, engine: LogisticGradient, norm: float = 10.0) -> np.ndarray:
        return engine.clipped_gradient_sum(weights, features[rows], labels[rows], norm)

    plain, light = LogisticGradient(2), LogisticGradient(2, unlabelled_weight=0.1)
    np.testing.assert_allclose(gradient(slice(0, 1), light), gradient(slice(0, 1), plain))
    np.testing.assert_allclose(gradient(slice(1, 2), light), 0.1 * gradient(slice(1, 2), plain))
    assert np.linalg.norm(gradient(slice(1, 2), light, 0.01)) <= 0.01 + 1e-12
    for wrong in (0.0, 1.1, float("nan")):
        with pytest.raises(InvalidParameterError, match="unlabelled_weight"):
            LogisticGradient(2, unlabelled_weight=wrong)


# --- the job ----------------------------------------------------------------------------------


@cache
def parties() -> Parties:
    return Parties.in_memory(train={"hidden_share_epsilon": 0.5})


@pytest.mark.parametrize("changes", [{"noise": "distributed", "steps": 300}, {"model": "ridge"}])
def test_seeds_only_takes_what_can_weigh_rows(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"labels|no steps|model|no sampling"):
        TrainSpec.model_validate(SEEDS_ONLY.model_dump() | changes)


def test_a_count_is_paid_for_over_all_partners_and_only_where_it_is_agreed() -> None:
    plan = HiddenPlan.of(SEEDS_ONLY, parties().agreement)
    assert plan is not None
    assert epsilon_of([plan.charge], 1e-9) <= 0.5
    assert HiddenPlan.of(TRAIN, parties().agreement) is None
    assert HiddenPlan.of(SEEDS_ONLY, Parties.in_memory().agreement) is None


def test_counts_that_cannot_be_are_refused() -> None:
    plan = HiddenPlan.of(SEEDS_ONLY, parties().agreement)
    zero = np.zeros(CELLS, dtype=np.int64)
    right = counts_to_bytes(ScoreCounts(zero, zero))
    for payload in (b"", right[:-1], right + b"0", b"\x7f" * len(right), b"\xff\x00" * CELLS * 8):
        quorum = Quorum(SEEDS_ONLY, parties().agreement)
        job = coordinate_counting(SEEDS_ONLY, plan, quorum, np.zeros(4))
        next(job)
        said = parties().message("retailer", "coordinator", "model", TrainCounted(), payload)
        with pytest.raises(MessageError, match="counts"):
            job.send([said])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World.make(
        tmp_path_factory.mktemp("trained"),
        unsafe_seed=5,
        train={"hidden_share_epsilon": 20.0},
        budget={"epsilon": 60.0},
    )
    write_jobs(world.folder("coordinator"), [MATCH, SEEDS_ONLY])
    world.run()
    return world


def test_the_model_tells_the_hidden_share_and_every_party_keeps_it(trained: World) -> None:
    models = [
        JointModel.model_validate_json(trained.folder(name).model("model").read_bytes())
        for name in ("coordinator", "brand", "retailer", "courier")
    ]
    assert len({model.digest for model in models}) == 1
    assert models[0].making.hidden_share is not None
    counted = [trained.read(message) for message in trained.wire]
    assert sum(isinstance(message.body, TrainCounted) for message in counted) == 2
    charges = [one.charge_id for one in trained.statement("retailer").charges]
    assert "model/train.counted/coordinator" in charges


def test_card_and_report_tell_what_the_model_says_with_price_and_error(
    trained: World, tmp_path: Path
) -> None:
    file = trained.folder("retailer").model("model")
    model = JointModel.model_validate_json(file.read_bytes())
    told = ToldShare.of(model, trained.parties.agreement, SEEDS_ONLY)
    assert told is not None
    assert (told.epsilon, told.estimate) == (20.0, model.making.hidden_share)
    assert told.estimate is not None
    for words in (
        f"{told.estimate.share:.1%}",
        f"{told.estimate.standard_error:.1%}",
        "epsilon 20",
    ):
        assert words in told.sentence
    card = make_card(file, facts_alone=True, clock=lambda: NOW)
    assert card.hidden_share == told
    write_card(card, tmp_path / "card")
    assert told.sentence in (tmp_path / "card.html").read_text(encoding="utf-8")
    assert ModelCard.model_validate_json((tmp_path / "card.json").read_bytes()) == card
    report = build_report(
        trained.parties.agreement,
        [MATCH, SEEDS_ONLY],
        *([], []),
        made=NOW,
        seconds=None,
        reproducible=True,
        verify_command="",
    ).with_results([], [], hidden_shares([SEEDS_ONLY], trained.folder("coordinator")))
    assert report.hidden_shares == (told,)
    write_report(report, [], page=tmp_path / "report.html", data=tmp_path / "report.json")
    assert told.sentence in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_share_that_may_be_none_or_cannot_be_told_is_said_to_be() -> None:
    sure, unsure = (HiddenShare(share=0.2, standard_error=error) for error in (0.1, 0.11))
    said = [
        ToldShare.made("model", 0.5, one, whom="are no seeds").sentence
        for one in (sure, unsure, None)
    ]
    assert ["may be none" in one for one in said] == [False, True, False]
    assert ["cannot be told" in one for one in said] == [False, False, True]


def test_a_model_whose_job_counts_nobody_tells_no_share(trained: World) -> None:
    file = trained.folder("retailer").model("model")
    model = JointModel.model_validate_json(file.read_bytes())
    assert ToldShare.of(model, trained.parties.agreement, TRAIN) is None


def test_a_hidden_share_that_was_not_agreed_is_refused(trained: World, tmp_path: Path) -> None:
    world = World.make(tmp_path)
    write_jobs(world.folder("coordinator"), [MATCH, SEEDS_ONLY])
    world.run()
    model = JointModel.model_validate_json(world.folder("retailer").model("model").read_bytes())
    assert model.making.hidden_share is None
    question = world.parties.seal(
        *("coordinator", "retailer", "model", TrainCount(spec=SEEDS_ONLY, width=4)),
        weights_to_bytes(np.zeros(4)),
    )
    assert isinstance(world.ask("retailer", question).body, Refused)


def test_other_weights_are_not_counted_a_second_time(trained: World, tmp_path: Path) -> None:
    world = trained.copy(tmp_path / "copy")
    before = world.statement("retailer")
    for width in (4, 5):
        question = world.parties.seal(
            *("coordinator", "retailer", "model", TrainCount(spec=SEEDS_ONLY, width=width)),
            weights_to_bytes(np.ones(width)),
        )
        assert isinstance(world.ask("retailer", question).body, Refused)
    assert world.statement("retailer") == before


def test_unlabelled_people_weigh_a_tenth() -> None:
    features, labels, weights = np.eye(2), np.zeros(2), np.zeros(2)
    light, plain = (
        gradient_engine(spec, 2).clipped_gradient_sum(weights, features, labels, 1.0)
        for spec in (SEEDS_ONLY, TRAIN)
    )
    assert UNLABELLED_WEIGHT == 0.1
    np.testing.assert_allclose(light, 0.1 * plain)
    assert SEEDS_ONLY.labels is Labels.SEEDS_ONLY
    assert json.loads(SEEDS_ONLY.model_dump_json())["labels"] == "seeds-only"
