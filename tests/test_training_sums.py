"""Sums over rows in whole numbers: what one row can change, and that nothing else does."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError
from privacy.training import LogisticGradient
from privacy.training.integer_sums import (
    MOMENT_CLIP,
    gradient_clip,
    gradient_sum,
    moment_sum,
    moments,
)

WIDTH = 5
UNIT = 2.0**-28
ANY = st.floats(allow_nan=False, allow_infinity=False)
CLIPS = st.floats(2.0**-14, 1.0)


def rows(most: int = 6, values: st.SearchStrategy[float] = ANY) -> st.SearchStrategy[NDArray]:
    return hnp.arrays(float, st.tuples(st.integers(1, most), st.just(WIDTH)), elements=values)


def made_up(count: int, seed: int = 0) -> tuple[NDArray, NDArray]:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, WIDTH))
    features /= np.maximum(np.linalg.norm(features, axis=1), 1.0)[:, None]
    return features, (rng.random(count) < 0.4).astype(float)


def length(vector: NDArray[np.int64]) -> int:
    """Squared length, in integers of any size."""
    return sum(int(entry) ** 2 for entry in vector)


@settings(max_examples=60)
@given(
    rows(),
    hnp.arrays(float, WIDTH, elements=st.floats(-1e5, 1e5)),
    CLIPS,
    st.floats(0.0, 1.0),
)
def test_a_row_changes_the_gradient_by_its_clip_at_most_whatever_it_holds(
    features: NDArray, weights: NDArray, clipping_norm: float, label: float
) -> None:
    labels, clip = np.full(len(features), label), gradient_clip(clipping_norm)
    whole = gradient_sum(weights, features, labels, clip)
    without = gradient_sum(weights, features[1:], labels[1:], clip)
    assert length(whole - without) <= clip**2


@settings(max_examples=60)
@given(rows())
def test_a_row_changes_the_moments_by_their_clip_at_most_whatever_it_holds(
    features: NDArray,
) -> None:
    change = moment_sum(features) - moment_sum(features[1:])
    assert length(change) <= MOMENT_CLIP**2


@pytest.mark.parametrize(
    "row", [[1.0, 0, 0, 0, 0], [-1.0, 0, 0, 0, 0], [0.5, 0.5, 0.5, 0.5, 0], [3e307] * 5], ids=str
)
def test_rows_of_full_length_come_close_to_their_clips(row: list[float]) -> None:
    features, labels = np.array([row]), np.ones(1)
    clip = gradient_clip(0.25)
    gradient = gradient_sum(np.zeros(WIDTH), features, labels, clip)
    assert 0.999 * clip <= math.sqrt(length(gradient)) <= clip
    second = moment_sum(features)
    assert 0.999 * MOMENT_CLIP <= math.sqrt(length(second)) <= MOMENT_CLIP


def test_a_rows_part_does_not_depend_on_where_it_stands_and_who_is_there() -> None:
    features, labels = made_up(20_000)
    weights, clip = np.random.default_rng(1).normal(size=WIDTH) * 30, gradient_clip(0.4)
    order = np.random.default_rng(2).permutation(len(features))
    whole = gradient_sum(weights, features, labels, clip)
    np.testing.assert_array_equal(
        whole, gradient_sum(weights, features[order], labels[order], clip)
    )
    cuts = [0, 1, 8, 1000, 8193, 20_000]
    parts = [
        gradient_sum(weights, features[start:end], labels[start:end], clip)
        for start, end in pairwise(cuts)
    ]
    np.testing.assert_array_equal(whole, np.sum(parts, axis=0))
    seconds = [moment_sum(features[start:end]) for start, end in pairwise(cuts)]
    np.testing.assert_array_equal(moment_sum(features), np.sum(seconds, axis=0))


def test_the_gradient_is_that_of_the_floating_engine() -> None:
    features, labels = made_up(500)
    weights = np.array([3.0, -1.0, 0.5, 0.0, 2.0])
    expected = LogisticGradient(WIDTH).clipped_gradient_sum(weights, features, labels, 0.4)
    found = gradient_sum(weights, features, labels, gradient_clip(0.4)) * UNIT
    np.testing.assert_allclose(found, expected, atol=500 * 2.0**-13)


def test_the_moments_are_those_of_the_rows() -> None:
    features, _ = made_up(500)
    found = moments(moment_sum(features), WIDTH)
    np.testing.assert_allclose(found, features.T @ features, atol=500 * 2.0**-13)
    np.testing.assert_array_equal(found, found.T)


def test_no_rows_sum_to_zero() -> None:
    nobody = np.zeros((0, WIDTH))
    gradient = gradient_sum(np.ones(WIDTH), nobody, np.zeros(0), gradient_clip(1.0))
    assert gradient.tolist() == [0] * WIDTH
    assert moment_sum(nobody).tolist() == [0] * 15


@pytest.mark.parametrize("bad", [0.0, -1.0, 1.0001, 2.0**-15, math.nan, math.inf])
def test_a_clipping_norm_out_of_range_is_refused(bad: float) -> None:
    with pytest.raises(InvalidParameterError, match="clipping norm"):
        gradient_clip(bad)


class TestRefusals:
    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_of_what_is_not_finite_tell_the_number_of_rows_alone(self, bad: float) -> None:
        features, labels = made_up(4)
        features[2, 1] = bad
        for attempt in (
            lambda: gradient_sum(np.zeros(WIDTH), features, labels, gradient_clip(1.0)),
            lambda: moment_sum(features),
        ):
            with pytest.raises(InvalidParameterError, match="got 1 rows that are not"):
                attempt()

    @pytest.mark.parametrize("bad", [math.nan, -0.1, 1.1])
    def test_of_labels_out_of_range(self, bad: float) -> None:
        features, labels = made_up(4)
        labels[0] = bad
        with pytest.raises(InvalidParameterError, match=r"labels must lie in \[0, 1\], got 1"):
            gradient_sum(np.zeros(WIDTH), features, labels, gradient_clip(1.0))

    @pytest.mark.parametrize(
        "weights",
        [[math.nan] * WIDTH, [math.inf] * WIDTH, [2.0**18] * WIDTH, [[0.0] * WIDTH]],
        ids=["not a number", "infinite", "too long", "a matrix"],
    )
    def test_of_weights_out_of_range(self, weights: list[float]) -> None:
        with pytest.raises(InvalidParameterError, match=r"weights|features"):
            gradient_sum(np.array(weights), *made_up(4), gradient_clip(1.0))

    def test_of_shapes_that_do_not_fit(self) -> None:
        features, labels = made_up(4)
        for weights, table, truth in (
            (np.zeros(WIDTH + 1), features, labels),
            (np.zeros(WIDTH), features[0], labels),
            (np.zeros(WIDTH), features, labels[1:]),
            (np.zeros(0), features[:, :0], labels),
        ):
            with pytest.raises(InvalidParameterError, match="expected"):
                gradient_sum(weights, table, truth, gradient_clip(1.0))
