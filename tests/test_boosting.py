"""Boosted trees: exact sums grow the trees of one table, noised ones keep their promise."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from privacy.accounting import Budget, epsilon_of
from privacy.errors import InvalidParameterError
from privacy.randomness import SecretStream, seeded_secret
from privacy.training import boosting, random_boosting
from privacy.training.binning import FeatureCells, Grid, grid_of
from privacy.training.boosting import (
    Growth,
    boosting_contribution,
    boosting_step,
    start_boosting,
)
from privacy.training.boosting_plan import BoostingPlan, unsafe_boosting_plan
from privacy.training.encoding import CategoricalFeature, Encoder, NumericFeature, Scale
from privacy.training.newton import UnsafeExactSumsWarning
from privacy.training.random_boosting import (
    RandomBoostingPlan,
    plan_random_boosting,
    random_contribution,
    random_step,
)
from privacy.training.trees import (
    GRADIENT_UNIT,
    VALUE_UNIT,
    Forest,
    descend,
    gradients,
    total_scores,
)

FEATURES = (
    NumericFeature("age", 18, 90),
    NumericFeature("spend", 0, 10_000, Scale.LOG),
    CategoricalFeature("colour", ("green", "red", "blue")),
)
GRID = grid_of(FEATURES, 128)
ROWS = 400


def people(rows: int, seed: int = 0) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Cells and labels that hang on an interaction, which no line finds."""
    rng = np.random.default_rng(seed)
    columns: dict[str, NDArray[Any]] = {
        "age": rng.uniform(10, 95, rows),
        "spend": np.where(rng.random(rows) < 0.5, 0.0, rng.lognormal(4, 2, rows)),
        "colour": rng.choice(np.array(["green", "red", "blue", "unheard of"], dtype=object), rows),
    }
    likely = np.where((columns["age"] > 50) ^ (columns["spend"] > 20), 0.85, 0.15)
    labels = (rng.random(rows) < likely).astype(np.float64)
    return GRID.cells(Encoder(FEATURES).encode(columns)), labels


def quietly(**terms: Any) -> BoostingPlan:
    usual: dict[str, Any] = {"grid": GRID, "declared_rows": [ROWS], "seed": "s", "rounds": 7}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnsafeExactSumsWarning)
        return unsafe_boosting_plan(**(usual | {"depth": 3} | terms))


def grow(
    plan: BoostingPlan,
    parts: Sequence[tuple[NDArray[np.int32], NDArray[np.float64]]],
    present: dict[int, Sequence[int]] | None = None,
) -> Growth:
    """Train; every question goes through numbers as they travel."""
    growth, there = start_boosting(plan), list(range(len(parts)))
    while growth.number <= plan.sums:
        there = list((present or {}).get(growth.number, there))
        asked = plan.decode(growth.number, plan.encode(growth.number, growth.asked))
        sums = [
            boosting_contribution(asked, *parts[place], plan, number=growth.number)
            for place in there
        ]
        growth = boosting_step(np.sum(sums, axis=0), growth, plan, there)
    return growth


def content(forests: Sequence[Forest]) -> list[list[Any]]:
    return [
        [one.bins.tolist(), one.features.tolist(), one.cuts.tolist(), one.values.tolist()]
        for one in forests
    ]


# --- cells ------------------------------------------------------------------------------------


def test_cells_are_public_and_every_row_has_one_of_each_feature() -> None:
    columns: dict[str, NDArray[Any]] = {
        "age": np.array([18.0, 90.0, 54.0, -1e9, np.nan]),
        "spend": np.array([0.0, 10_000.0, 99.0, 1e12, np.nan]),
        "colour": np.array(["green", "blue", None, "unheard of", "red"], dtype=object),
    }
    cells = GRID.cells(Encoder(FEATURES).encode(columns)) - GRID.offsets[:-1]
    assert cells[:, 0].tolist() == [0, 127, 64, 0, 64]
    assert cells[:, 1].tolist() == [0, 127, 63, 127, 0]
    assert cells[:, 2].tolist() == [0, 2, 3, 3, 1]
    assert (GRID.width, GRID.total) == (6, 128 + 128 + 4)


@pytest.mark.parametrize(
    "fields", [(0, 0, 4), (1, 2, 4), (1, 0, 1), (3, 0, 5), (1, 0, 1 << 15)], ids=str
)
def test_cells_that_no_feature_has_are_refused(fields: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidParameterError):
        FeatureCells(*fields)


def test_rows_of_another_width_or_without_an_end_have_no_cells() -> None:
    with pytest.raises(InvalidParameterError, match="6 encoded columns"):
        GRID.cells(np.zeros((2, 5)))
    with pytest.raises(InvalidParameterError, match="finite"):
        GRID.cells(np.full((2, 6), np.nan))
    with pytest.raises(InvalidParameterError, match="one feature"):
        Grid(())


# --- gradients ----------------------------------------------------------------------------------


def test_a_row_weighs_one_at_most_whatever_its_score_and_label() -> None:
    scores = np.arange(-20 * VALUE_UNIT, 20 * VALUE_UNIT, VALUE_UNIT >> 10)
    for label in (0.0, 0.3, 1.0):
        gradient, curvature = gradients(scores, np.full(len(scores), label))
        assert (gradient**2 + curvature**2).max() <= GRADIENT_UNIT**2
        exact = 1 / (1 + np.exp(-scores / VALUE_UNIT))
        np.testing.assert_allclose(gradient / GRADIENT_UNIT, exact - label, atol=2e-5)
        np.testing.assert_allclose(curvature / GRADIENT_UNIT / 3, exact * (1 - exact), atol=2e-5)


def test_no_machine_rounds_a_gradient_otherwise() -> None:
    """Every entry of the table lies further from a half than any tanh errs."""
    scores = np.arange(-16 << 10, (16 << 10) + 1) / (1 << 10)
    exact = 0.5 * (1.0 + np.tanh(0.5 * scores)) * GRADIENT_UNIT
    assert np.abs(exact - np.floor(exact) - 0.5).min() > 1e-10 * GRADIENT_UNIT


@pytest.mark.parametrize("labels", [[2.0], [-0.1], [math.nan], [0.0, 1.0]], ids=str)
def test_labels_out_of_range_are_refused(labels: list[float]) -> None:
    with pytest.raises(InvalidParameterError, match="label"):
        gradients(np.zeros(1, dtype=np.int64), np.array(labels))


def test_trees_descend_as_written_out() -> None:
    codes = np.array([[0, 5], [1, 5], [1, 6], [3, 0]])
    features, cuts = np.array([0, 1, 1]), np.array([0, 4, 5])
    assert descend(codes, features, cuts, 0).tolist() == [0, 0, 0, 0]
    assert descend(codes, features, cuts, 1).tolist() == [0, 1, 1, 1]
    assert descend(codes, features, cuts, 2).tolist() == [1, 2, 3, 2]
    with pytest.raises(InvalidParameterError, match="leaves"):
        Forest(np.arange(4), features[None], cuts[None], np.zeros((1, 3), dtype=np.int64))


# --- exact sums ---------------------------------------------------------------------------------

POOLED = people(ROWS)
PLAN = quietly()
GROWN = grow(PLAN, [POOLED])


@given(
    owners=st.lists(st.integers(0, 3), min_size=ROWS, max_size=ROWS),
    order=st.randoms(use_true_random=False),
)
@settings(max_examples=8)
def test_trees_are_those_of_one_table_however_rows_are_spread(
    owners: list[int], order: Any
) -> None:
    cells, labels = POOLED
    shuffled = np.array(order.sample(range(ROWS), ROWS))
    owner = np.array(owners)[shuffled]
    rows = [shuffled[owner == party] for party in range(4)]
    growth = grow(PLAN, [(cells[mine], labels[mine]) for mine in rows])
    assert content(growth.asked.forests) == content(GROWN.asked.forests)


def test_exact_trees_learn_what_no_line_does() -> None:
    cells, labels = people(2_000, seed=1)
    scores = total_scores(GROWN.asked.forests, cells)
    assert roc_auc_score(labels, scores) > 0.8
    assert len(GROWN.asked.forests) == PLAN.batches == 2


def test_the_first_tree_asks_what_gains_most() -> None:
    """Beside the plain search over every feature and cut, of the rows themselves."""
    cells, labels = POOLED
    plan = quietly(grid=grid_of(FEATURES[:1], 128), depth=1, rounds=2)
    ages = cells[:, :1]
    (forest,) = grow(plan, [(ages, labels)]).asked.forests
    codes = forest.bins[ages][:, 0]

    def strength(gradient: NDArray[np.float64]) -> float:
        return float(gradient.sum() ** 2 / (0.25 * len(gradient) + 1.0))

    gains = {
        cut: strength(0.5 - labels[codes <= cut]) + strength(0.5 - labels[codes > cut])
        for cut in range(boosting.BINS)
        if min((codes <= cut).sum(), (codes > cut).sum()) >= 4
    }
    best = max(gains, key=gains.__getitem__)
    assert {*forest.cuts.ravel().tolist()} == {best}
    for side, value in zip((codes <= best, codes > best), forest.values[0], strict=True):
        newton = -(0.5 - labels[side]).sum() / (0.25 * side.sum() + 1.0)
        assert value / VALUE_UNIT == pytest.approx(boosting.STEP / 8 * newton, rel=1e-3)


def test_a_party_that_drops_out_cuts_its_batch_short_and_no_other() -> None:
    cells, labels = POOLED
    parts = [(cells[place::2], labels[place::2]) for place in range(2)]
    growth = grow(PLAN, parts, {3: [0], 5: [0]})
    first, second = growth.asked.forests
    whole, _ = GROWN.asked.forests
    assert first.features[:, 0].tolist() == whole.features[:, 0].tolist()
    assert (first.cuts[:, 1:] == boosting.BINS).all()
    assert not first.values[:, [1, 2, 3, 5, 6, 7]].any()
    assert (second.cuts[:, 1:] < boosting.BINS).any()
    assert growth.number == PLAN.sums + 1


@pytest.mark.parametrize("kind", ["one class", "constant columns", "no rows", "one row"])
def test_rows_that_teach_nothing_grow_no_tree(kind: str) -> None:
    cells, labels = people(50)
    if kind == "one class":
        labels = np.ones(50)
    elif kind == "constant columns":
        cells = np.repeat(cells[:1], 50, axis=0)
    else:
        cells, labels = cells[: kind == "one row"], labels[: kind == "one row"]
    growth = grow(PLAN, [(cells, labels)])
    scores = total_scores(growth.asked.forests, people(50)[0])
    assert np.abs(scores).max() <= 8 * VALUE_UNIT
    if kind != "one class":
        assert len(set(scores.tolist())) == 1


def test_bins_are_few_and_of_about_equal_mass_with_heavy_cells_alone() -> None:
    bins = GROWN.asked.bins
    ages, spend = bins[:128], bins[128:256]
    assert (np.diff(ages) >= 0).all()
    assert max(ages) < boosting.BINS
    counts = np.bincount(ages[POOLED[0][:, 0]])
    assert counts[1:-1].max() < 3 * ROWS / boosting.BINS + ROWS / 72 * 2
    assert (spend == spend[0]).sum() == 1  # half of all spend nothing


@pytest.mark.parametrize(
    "terms",
    [
        {"depth": 0},
        {"depth": 11, "rounds": 50},
        {"rounds": 3},
        {"declared_rows": []},
        {"declared_rows": [0]},
        {"declared_rows": [1 << 27]},
    ],
    ids=str,
)
def test_terms_out_of_range_make_no_plan(terms: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameterError, match="expected"):
        quietly(**terms)
    with pytest.raises(InvalidParameterError, match="expected"):
        noised(**{"rounds": 0} if "rounds" in terms else terms)


def test_exact_sums_say_that_they_protect_nobody() -> None:
    with pytest.warns(UnsafeExactSumsWarning):
        unsafe_boosting_plan(grid=GRID, declared_rows=[5], seed="s")


def test_sums_that_no_parties_can_have_are_refused() -> None:
    start = start_boosting(PLAN)
    good = boosting_contribution(start.asked, *POOLED, PLAN, number=1)
    for broken in (good[:-1], good.astype(np.float64), good + PLAN.sum_bound + 1):
        with pytest.raises(InvalidParameterError):
            boosting_step(broken, start, PLAN, [0])
    with pytest.raises(InvalidParameterError, match="as declared"):
        boosting_contribution(start.asked, *people(ROWS + 1), PLAN, number=1)
    with pytest.raises(InvalidParameterError, match="a sum 1 to"):
        PLAN.length(PLAN.sums + 1)


@pytest.mark.parametrize("change", ["length", "fraction", "bin", "feature", "infinite"])
def test_questions_about_what_there_is_not_are_refused(change: str) -> None:
    growth = start_boosting(PLAN)
    for _ in range(3):
        asked = plan_question(growth)
        total = boosting_contribution(asked, *POOLED, PLAN, number=growth.number)
        growth = boosting_step(total, growth, PLAN, [0])
    question = PLAN.encode(growth.number, growth.asked)
    PLAN.decode(growth.number, question)
    if change == "length":
        question = question[:-1]
    else:
        places = {"fraction": (0, 0.5), "bin": (0, -1.0), "feature": (GRID.total, 3.0)}
        place, value = places.get(change, (0, 1e300))
        question[place] = value
    with pytest.raises(InvalidParameterError):
        PLAN.decode(growth.number, question)


def plan_question(growth: Growth) -> Any:
    return PLAN.decode(growth.number, PLAN.encode(growth.number, growth.asked))


def test_no_sum_is_longer_than_it_is_held_to() -> None:
    many = grid_of([NumericFeature(f"column {number}", 0, 1) for number in range(300)], 64)
    plan = quietly(grid=many, rounds=73, depth=6)
    assert max(plan.length(number) for number in range(1, 14)) <= 101_000


# --- noised sums --------------------------------------------------------------------------------


def noised(**terms: Any) -> RandomBoostingPlan:
    usual: dict[str, Any] = {
        "grid": GRID,
        "declared_rows": [4_000] * 3,
        "colluding": 1,
        "dropouts": 0,
        "budget": Budget(2.0, 1e-5),
        "seed": "s",
        "rounds": 4,
        "depth": 4,
    }
    return plan_random_boosting(**(usual | terms))


NOISED = noised()


def stream(*label: object) -> SecretStream:
    return SecretStream(seeded_secret(0, "boosting"), f"round {label}")


def test_noised_trees_learn_and_cost_what_was_asked() -> None:
    cells, labels = people(12_000)
    forests: list[Forest] = []
    for number in range(1, NOISED.rounds + 1):
        total = sum(
            random_contribution(
                *(forests, cells[party::3], labels[party::3], NOISED, stream(number, party)),
                party=party,
            )
            for party in range(3)
        )
        values = random_step(np.asarray(total), NOISED, contributors=3)
        forests.append(NOISED.forest(number, values))
    tests = people(2_000, seed=1)
    assert roc_auc_score(tests[1], total_scores(forests, tests[0])) > 0.75
    cost = epsilon_of([NOISED.charge()] * NOISED.rounds, 1e-5)
    assert cost == pytest.approx(NOISED.epsilon)
    assert 1.95 < cost <= 2.0
    with pytest.raises(InvalidParameterError, match="all are done"):
        random_contribution(forests, *tests, NOISED, stream(5), party=0)
    flat = np.concatenate([forest.values.ravel() for forest in forests])
    assert content(NOISED.forests(flat)) == content(forests)


@given(
    age=st.integers(0, 127),
    spend=st.integers(0, 127),
    colour=st.integers(0, 3),
    label=st.sampled_from([0.0, 0.4, 1.0]),
    rounds=st.integers(0, 3),
    seed=st.integers(0, 9),
)
@settings(max_examples=25)
def test_one_person_changes_a_sum_by_what_is_charged(
    age: int, spend: int, colour: int, label: float, rounds: int, seed: int
) -> None:
    """The same stream gives the same noise, which falls away."""
    rng = np.random.default_rng(seed)
    values = rng.integers(-VALUE_UNIT, VALUE_UNIT, rounds * NOISED.length // 2)
    forests, (cells, labels) = NOISED.forests(values), people(20, seed)
    person = (np.array([[age, spend, colour]]) + GRID.offsets[:-1]).astype(np.int32)
    there = random_contribution(
        forests,
        np.concatenate([cells, person]),
        np.append(labels, label),
        NOISED,
        stream(seed),
        party=0,
    )
    gone = random_contribution(forests, cells, labels, NOISED, stream(seed), party=0)
    moved = float(np.linalg.norm(there - gone))
    assert 0 < moved <= NOISED.charge().l2_sensitivity


def test_a_person_at_several_parties_is_counted_for_each() -> None:
    once, twice = noised(), noised(max_parties_per_person=2)
    assert twice.charge().l2_sensitivity == pytest.approx(2 * once.charge().l2_sensitivity)
    scale = [one.noise.noise_scale * 2.0**one.noise.shift for one in (once, twice)]
    assert scale[1] == pytest.approx(2 * scale[0], rel=0.01)


def test_noise_of_absent_and_colluding_parties_is_made_up_for() -> None:
    few, many = noised(colluding=1, dropouts=1), noised(colluding=0)
    assert (few.noise.honest_parties, many.noise.honest_parties) == (1, 3)
    assert few.noise.noise_scale > 1.7 * many.noise.noise_scale
    with pytest.raises(InvalidParameterError, match="dropouts"):
        noised(colluding=2, dropouts=1)


def test_trees_are_drawn_from_public_terms_and_cut_within_what_is_left() -> None:
    zero = np.zeros((random_boosting.TREES, 1 << NOISED.depth), dtype=np.int64)
    first, again = NOISED.forest(1, zero), noised(budget=Budget(1.0, 1e-5)).forest(1, zero)
    assert content([first]) == content([again])
    assert content([first]) != content([NOISED.forest(2, zero)])
    assert content([first]) != content([noised(seed="t").forest(1, zero)])
    counts = np.array([one.count for one in GRID.features])
    assert (first.cuts >= 0).all()
    assert (first.cuts < counts[first.features]).all()
    reached = [
        len(np.unique(descend(first.bins[people(4_000)[0]], *tree, NOISED.depth)))
        for tree in zip(first.features, first.cuts, strict=True)
    ]
    assert np.mean(reached) > 4


def test_noise_alone_is_taken_for_what_it_is() -> None:
    nobody = np.zeros((0, 3), dtype=np.int32), np.zeros(0)
    total = sum(
        random_contribution((), *nobody, NOISED, stream("nobody", party), party=party)
        for party in range(3)
    )
    values = random_step(np.asarray(total), NOISED, contributors=3)
    scores = total_scores([NOISED.forest(1, values)], people(200)[0])
    assert np.abs(scores).max() < VALUE_UNIT


def test_noised_sums_that_no_parties_can_have_are_refused() -> None:
    total = np.zeros(NOISED.length, dtype=np.int64)
    for broken in (total[:-1], total.astype(np.float64), total + NOISED.sum_bound + 1):
        with pytest.raises(InvalidParameterError):
            random_step(broken, NOISED, contributors=3)
    for contributors in (2, 4):
        with pytest.raises(InvalidParameterError, match="parties"):
            random_step(total, NOISED, contributors=contributors)
    with pytest.raises(InvalidParameterError, match="values of at most"):
        NOISED.forests(np.zeros(5, dtype=np.int64))
    with pytest.raises(InvalidParameterError, match="a party 0 to 2"):
        random_contribution((), *people(5), NOISED, stream(1), party=3)
    with pytest.raises(InvalidParameterError, match="cells of 3"):
        random_contribution((), people(5)[0][:, :2], people(5)[1], NOISED, stream(1), party=0)
