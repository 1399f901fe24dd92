"""How good a ranking is, against figures worked out the slow way."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError
from privacy.training import fit_without_privacy, lift, ranking_quality

ranked = st.lists(
    st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.booleans()), min_size=2, max_size=6
).filter(lambda rows: len({label for _, label in rows}) == 2)


def arrays(rows: list[tuple[float, bool]]) -> tuple[NDArray, NDArray]:
    scores, labels = zip(*rows, strict=True)
    return np.array(scores), np.array(labels)


@settings(max_examples=30)
@given(ranked, st.data())
def test_lift_is_its_expected_value_over_all_orders_of_ties(
    rows: list, data: st.DataObject
) -> None:
    best = data.draw(st.integers(1, len(rows)))
    orders = [sorted(order, key=lambda row: -row[0]) for order in permutations(rows)]
    found = np.mean([np.mean([label for _, label in order[:best]]) for order in orders])
    base = np.mean([label for _, label in rows])
    assert lift(*arrays(rows), best / len(rows)) == pytest.approx(found / base)


@given(ranked)
def test_auc_is_the_chance_that_a_positive_outranks_a_negative(rows: list) -> None:
    positives = [score for score, label in rows if label]
    negatives = [score for score, label in rows if not label]
    wins = [(p > n) + 0.5 * (p == n) for p in positives for n in negatives]
    assert ranking_quality(*arrays(rows)).auc == pytest.approx(np.mean(wins))


@given(ranked, st.randoms())
def test_the_order_of_rows_does_not_matter(rows: list, random: object) -> None:
    shuffled = sorted(rows, key=lambda _: random.random())
    assert ranking_quality(*arrays(shuffled)) == ranking_quality(*arrays(rows))


def test_a_perfect_ranking_scores_perfectly() -> None:
    scores = np.arange(1000.0)
    quality = ranking_quality(scores, scores >= 900)
    assert (quality.auc, quality.average_precision) == (1.0, 1.0)
    assert (quality.lift_at_5, quality.lift_at_10) == (pytest.approx(10.0), pytest.approx(10.0))


def test_a_ranking_of_one_score_is_guessing() -> None:
    quality = ranking_quality(np.zeros(100), np.arange(100) < 30)
    assert quality.auc == 0.5
    assert quality.average_precision == pytest.approx(0.3)
    assert [value for _, value in quality.lift_curve] == pytest.approx([1.0] * 100)
    assert quality.roc == ((0.0, 0.0), (1.0, 1.0))


def test_the_curves_are_ascending_bounded_in_number_and_complete() -> None:
    scores = np.random.default_rng(0).normal(size=5000)
    labels = scores + np.random.default_rng(1).normal(size=5000) > 1
    quality = ranking_quality(scores, labels)
    assert len(quality.roc) <= 200
    assert quality.roc[0] == (0.0, 0.0)
    assert quality.roc[-1] == (1.0, 1.0)
    assert list(quality.roc) == sorted(quality.roc)
    assert np.trapezoid([y for _, y in quality.roc], [x for x, _ in quality.roc]) == pytest.approx(
        quality.auc, abs=0.005
    )
    assert [share for share, _ in quality.lift_curve] == [k / 100 for k in range(1, 101)]
    assert quality.lift_curve[-1][1] == pytest.approx(1.0)
    assert quality.lift_curve[4] == (0.05, quality.lift_at_5)
    assert quality.lift_curve[9] == (0.10, quality.lift_at_10)


def test_labels_of_zero_and_one_mean_the_same_as_booleans() -> None:
    scores, labels = np.array([0.1, 0.4, 0.3]), np.array([0.0, 1.0, 0.0])
    assert ranking_quality(scores, labels) == ranking_quality(scores, labels.astype(bool))


@pytest.mark.parametrize(
    ("scores", "labels"),
    {
        "one class": ([0.1, 0.2], [1, 1]),
        "the other class": ([0.1, 0.2], [0, 0]),
        "nobody": ([], []),
        "other lengths": ([0.1, 0.2, 0.3], [0, 1]),
        "a table": ([[0.1], [0.2]], [0, 1]),
        "not a number": ([0.1, np.nan], [0, 1]),
        "endless": ([0.1, np.inf], [0, 1]),
        "not a label": ([0.1, 0.2, 0.3], [0, 1, 2]),
    }.values(),
    ids=str,
)
def test_what_cannot_be_judged_is_refused(scores: list, labels: list) -> None:
    with pytest.raises(InvalidParameterError):
        ranking_quality(np.array(scores), np.array(labels))


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, np.nan])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(InvalidParameterError, match="share"):
        lift(np.array([0.1, 0.2]), np.array([0, 1]), share)


def test_the_yardstick_finds_the_weights_that_made_the_labels() -> None:
    rng = np.random.default_rng(0)
    features = np.column_stack([rng.normal(size=(20_000, 2)), np.ones(20_000)])
    truth = np.array([1.0, -2.0, 0.5])
    labels = rng.random(20_000) < 1 / (1 + np.exp(-features @ truth))
    np.testing.assert_allclose(fit_without_privacy(features, labels), truth, atol=0.1)


def test_the_yardstick_refuses_what_it_cannot_fit() -> None:
    for features in (np.zeros(3), np.full((3, 1), np.nan), np.zeros((2, 1))):
        with pytest.raises(InvalidParameterError):
            fit_without_privacy(features, np.array([0, 1, 1]))
