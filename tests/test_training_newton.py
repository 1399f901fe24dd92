"""Exact training over parties: what one table would have given, however rows are spread."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError
from privacy.training import (
    ExactPlan,
    NewtonState,
    UnsafeExactSumsWarning,
    averaging_contribution,
    newton_contribution,
    newton_step,
    start_from_average,
    unsafe_exact_plan,
)

WIDTH = 5
pytestmark = pytest.mark.filterwarnings("ignore::privacy.training.UnsafeExactSumsWarning")


def made_up(count: int, seed: int = 0) -> tuple[NDArray, NDArray]:
    rng = np.random.default_rng(seed)
    features = np.column_stack([rng.uniform(-1, 1, size=(count, WIDTH - 1)), np.ones(count)])
    features /= math.sqrt(WIDTH)
    scores = features @ np.array([5.0, -4.0, 2.0, 0.0, -3.0])
    return features, (rng.random(count) < 1 / (1 + np.exp(-scores))).astype(float)


def plan_for(*rows: int) -> ExactPlan:
    return unsafe_exact_plan(width=WIDTH, declared_rows=rows)


def trained(parts: list[tuple[NDArray, NDArray]]) -> NewtonState:
    plan = plan_for(*(max(len(labels), 1) for _, labels in parts))
    own = [averaging_contribution(plan, *part) for part in parts]
    state = start_from_average(np.sum(own, axis=0), plan, contributors=len(parts))
    while not state.finished:
        assert state.rounds < 30
        sums = [newton_contribution(state.weights, *part, plan) for part in parts]
        state = newton_step(np.sum(sums, axis=0), state, plan)
    return state


def gradient(features: NDArray, labels: NDArray, state: NewtonState) -> NDArray:
    residuals = 1 / (1 + np.exp(-features @ state.weights)) - labels
    return features.T @ residuals + state.penalty * np.append(state.weights[:-1], 0.0)


class TestModel:
    @settings(max_examples=15)
    @given(st.integers(0, 1000), st.lists(st.integers(1, 600), max_size=4))
    def test_is_the_one_tables_model_however_rows_are_dealt(
        self, seed: int, cuts: list[int]
    ) -> None:
        features, labels = made_up(601, seed)
        ends = sorted({0, *cuts, len(labels)})
        parts = [(features[a:b], labels[a:b]) for a, b in pairwise(ends)]
        state, pooled = trained(parts), trained([(features, labels)])
        np.testing.assert_allclose(state.weights, pooled.weights, atol=0.1)
        assert np.abs(gradient(features, labels, state)).max() < 0.1

    def test_is_the_one_tables_model_where_parties_hold_one_class_or_one_corner_each(self) -> None:
        features, labels = made_up(2000)
        pooled = trained([(features, labels)])
        for key in (labels, features[:, 0] > 0):
            parts = [(features[key == one], labels[key == one]) for one in np.unique(key)]
            state = trained(parts)
            np.testing.assert_allclose(state.weights, pooled.weights, atol=0.02)
            one_shot = np.linalg.norm(state.one_shot - pooled.weights)
            assert one_shot > 10 * np.linalg.norm(state.weights - pooled.weights)

    def test_is_a_minimum_of_the_penalised_loss_and_leaves_the_constant_free(self) -> None:
        features, labels = made_up(3000)
        state = trained([(features, labels)])
        assert np.abs(gradient(features, labels, state)).max() < 0.01
        assert (features @ state.weights).mean() < -0.5  # as rare as the labels are

    def test_takes_a_penalty_that_the_data_justify(self) -> None:
        """Labels that depend on nothing are shrunk hard; those that do are hardly shrunk."""
        features, labels = made_up(2000)
        noise = (np.random.default_rng(5).random(2000) < 0.3).astype(float)
        meant, meaningless = trained([(features, labels)]), trained([(features, noise)])
        assert meaningless.penalty > 5 * meant.penalty
        assert np.linalg.norm(meaningless.weights[:-1]) < 1.0

    def test_of_separable_rows_is_finite(self) -> None:
        features, _ = made_up(200)
        state = trained([(features, (features[:, 0] > 0).astype(float))])
        assert np.linalg.norm(state.weights) < 1024


class TestSteps:
    def test_a_step_that_lost_is_halved_towards_the_best_weights(self) -> None:
        features, labels = made_up(500)
        plan = plan_for(500)
        best = trained([(features, labels)]).weights
        state = NewtonState(
            weights=best + 200.0,
            one_shot=best,
            accepted=best,
            accepted_loss=float(
                newton_contribution(best, features, labels, plan)[0] * 2.0**-plan.fraction_bits
            ),
        )
        after = newton_step(newton_contribution(state.weights, features, labels, plan), state, plan)
        np.testing.assert_allclose(after.weights, best + 100.0)
        assert after.rounds == 1
        assert not after.finished

    def test_the_first_state_is_the_mean_of_the_parties_own_models(self) -> None:
        plan = plan_for(300, 300)
        own = [averaging_contribution(plan, *made_up(300, seed)) for seed in (1, 2)]
        state = start_from_average(own[0] + own[1], plan, contributors=2)
        mean = np.mean([plan.decode(one, WIDTH) for one in own], axis=0)
        np.testing.assert_allclose(state.one_shot, mean)
        np.testing.assert_array_equal(state.weights, state.one_shot)


class TestContribution:
    def test_holds_loss_gradient_and_curvature(self) -> None:
        features, labels = made_up(400)
        weights, plan = np.array([1.0, -2.0, 0.5, 0.0, 1.0]), plan_for(400)
        values = plan.decode(newton_contribution(weights, features, labels, plan), plan.length)
        probability = 1 / (1 + np.exp(-features @ weights))
        chosen = np.where(labels == 1, probability, 1 - probability)
        assert values[0] == pytest.approx(-np.log(chosen).sum())
        np.testing.assert_allclose(values[1:6], features.T @ (probability - labels), atol=1e-9)
        curvature = features.T @ (features * (probability * (1 - probability))[:, None])
        np.testing.assert_allclose(values[6:], curvature[np.triu_indices(WIDTH)], atol=1e-9)

    def test_is_refused_with_more_rows_than_declared_or_rows_too_long(self) -> None:
        features, labels = made_up(20)
        with pytest.raises(InvalidParameterError, match="at most 19 rows, as declared, got 20"):
            newton_contribution(np.zeros(WIDTH), features, labels, plan_for(19))
        with pytest.raises(InvalidParameterError, match="norm 1"):
            newton_contribution(np.zeros(WIDTH), 3 * features, labels, plan_for(20))

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_is_refused_with_what_is_not_finite(self, bad: float) -> None:
        features, labels = made_up(20)
        broken = features.copy()
        broken[3, 0] = bad
        for weights, table in ((np.full(WIDTH, bad), features), (np.zeros(WIDTH), broken)):
            with pytest.raises(InvalidParameterError, match="finite"):
                newton_contribution(weights, table, labels, plan_for(20))


class TestPlan:
    def test_says_aloud_that_it_protects_nobody(self) -> None:
        with pytest.warns(UnsafeExactSumsWarning, match="protect no person"):
            plan_for(10)

    @pytest.mark.parametrize(
        ("width", "rows"),
        [(1, [5]), (5001, [5]), (5, []), (5, [0]), (5, [5, -1]), (5, [1 << 27]), (5, [1] * 1001)],
        ids=lambda value: str(value)[:20],
    )
    def test_out_of_range_is_refused(self, width: int, rows: list[int]) -> None:
        with pytest.raises(InvalidParameterError, match="expected"):
            unsafe_exact_plan(width=width, declared_rows=rows)

    @pytest.mark.parametrize("rows", [[1], [10**7, 5], [5] * 1000, [1 << 26] * 1000], ids=len)
    def test_leaves_room_for_every_sum(self, rows: list[int]) -> None:
        plan = unsafe_exact_plan(width=WIDTH, declared_rows=rows)
        assert sum(rows) * 1025 * 2.0**plan.fraction_bits <= plan.sum_bound
        assert plan.fraction_bits >= 14

    def test_refuses_sums_of_another_length_type_or_range(self) -> None:
        plan = plan_for(10, 10)
        good = np.zeros(plan.length, dtype=np.int64)
        state = NewtonState(weights=np.zeros(WIDTH), one_shot=np.zeros(WIDTH))
        beyond = good.copy()
        beyond[0] = 1 << 62
        for total, match in (
            (good[1:], "expected a sum of"),
            (good.astype(float), "int64"),
            (beyond, "wrapped or is broken"),
            (good, "cannot be inverted"),
        ):
            with pytest.raises(InvalidParameterError, match=match):
                newton_step(total, state, plan)
        for contributors in (0, 3):
            with pytest.raises(InvalidParameterError, match="contributors"):
                start_from_average(np.zeros(WIDTH, np.int64), plan, contributors=contributors)
