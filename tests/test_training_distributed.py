"""Noise that parties share: what it must be worth when some of them fail, and what comes of it."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from privacy.accounting import Budget, epsilon_of
from privacy.errors import InvalidParameterError
from privacy.mechanisms import MAXIMUM_SIGMA
from privacy.randomness import SecretStream, seeded_secret
from privacy.training import (
    DescentState,
    DistributedPlan,
    party_contribution,
    plan_distributed,
    server_step,
    start_descent,
)
from privacy.training.integer_sums import gradient_sum

WIDTH = 6
USUAL = {
    "width": WIDTH,
    "declared_rows": (900, 1000, 1100, 1000),
    "colluding": 0,
    "dropouts": 1,
    "budget": Budget(epsilon=1.0, delta=1e-6),
}


def stream(label: str = "test", seed: int = 0) -> SecretStream:
    return SecretStream(seeded_secret(seed, "distributed"), label)


def made_up(count: int, seed: int = 0) -> tuple[NDArray, NDArray]:
    """Rows of norm 1 with a constant, and labels that depend on them."""
    rng = np.random.default_rng(seed)
    features = np.column_stack([rng.uniform(-1, 1, size=(count, WIDTH - 1)), np.ones(count)])
    features /= math.sqrt(WIDTH)
    scores = features @ np.array([6.0, -4.0, 2.0, 0.0, 0.0, -2.0])
    return features, (rng.random(count) < 1 / (1 + np.exp(-scores))).astype(float)


def contribute(
    plan: DistributedPlan, state: DescentState, party: int, *, rows: int | None = None
) -> NDArray:
    features, labels = made_up(plan.declared_rows[party] if rows is None else rows, seed=party)
    return party_contribution(
        state.weights,
        features,
        labels,
        plan,
        stream(f"{party}/{state.round_number}"),
        party=party,
        round_number=state.round_number,
    )


def trained(plan: DistributedPlan, *, absent: dict[int, int] | None = None) -> DescentState:
    """Train to the end; `absent` names the party that is not there, by round."""
    state = start_descent(plan)
    while state.round_number <= plan.rounds:
        missing = (absent or {}).get(state.round_number)
        there = [party for party in range(len(plan.declared_rows)) if party != missing]
        total = np.sum([contribute(plan, state, party) for party in there], axis=0)
        state = server_step(total, state, plan, there)
    return state


class TestPlan:
    @settings(max_examples=25)
    @given(
        st.integers(1, 300),
        st.lists(st.integers(1, 10**7), min_size=2, max_size=12),
        st.data(),
    )
    def test_keeps_its_promise_with_the_noise_of_the_honest_alone(
        self, width: int, declared_rows: list[int], data: st.DataObject
    ) -> None:
        parties = len(declared_rows)
        colluding = data.draw(st.integers(0, parties - 1))
        terms = {
            "width": width,
            "declared_rows": declared_rows,
            "colluding": colluding,
            "dropouts": data.draw(st.integers(0, parties - 1 - colluding)),
            "budget": Budget(data.draw(st.sampled_from([0.1, 1.0, 4.0])), 1e-5),
            "max_parties_per_person": data.draw(st.integers(1, parties)),
            "rounds": data.draw(st.integers(1, 40)),
        }
        try:
            plan = plan_distributed(**terms)
        except (
            InvalidParameterError
        ):  # one honest party, many tables, little budget: too much noise
            assert terms["budget"].epsilon < 1
            assert terms["max_parties_per_person"] > 1
            reject()
        assert plan == plan_distributed(**terms)
        charges = [plan.charge(number) for number in range(1, plan.rounds + 1)]
        priced = epsilon_of(charges, 1e-5)
        assert priced == pytest.approx(plan.epsilon, rel=1e-9)
        assert 0.97 * terms["budget"].epsilon < priced <= terms["budget"].epsilon
        assert plan.sum_bound < 1 << (plan.ring_bits - 1)
        for noise in (plan.gradient, plan.moments):
            charge = noise.charge()
            assert charge.honest_parties == parties - colluding - terms["dropouts"]
            # Written out: a row at each of K parties, and what rounding each of their sums can add.
            clip = Fraction(noise.clip, 1 << noise.shift)
            rows = terms["max_parties_per_person"]
            assert charge.l2_sensitivity >= rows * (clip + Fraction(math.sqrt(noise.length)))
            assert noise.noise_scale <= MAXIMUM_SIGMA

    def test_counts_on_fewer_shares_when_more_may_collude_or_drop_out(self) -> None:
        scales = [
            plan_distributed(**USUAL | terms).gradient.noise_scale
            for terms in (
                {"colluding": 0, "dropouts": 0},
                {"colluding": 1, "dropouts": 0},
                {"colluding": 1, "dropouts": 1},
                {"colluding": 0, "dropouts": 3},
            )
        ]
        expected = [scales[0] * math.sqrt(4 / honest) for honest in (4, 3, 2, 1)]
        assert scales == pytest.approx(expected)

    def test_noise_grows_with_the_tables_of_a_person(self) -> None:
        one, three = (
            plan_distributed(**USUAL, max_parties_per_person=tables).gradient.noise_scale
            for tables in (1, 3)
        )
        assert three == pytest.approx(3 * one)

    @pytest.mark.parametrize(
        "change",
        [{"width": bad} for bad in (0, 5001)]
        + [{"declared_rows": bad} for bad in ((), (10,), (10, 0), (10, -1), (10, 1 << 40))]
        + [{"colluding": bad} for bad in (-1, 3, 4)]
        + [{"dropouts": bad} for bad in (-1, 4)]
        + [{"max_parties_per_person": bad} for bad in (0, 5)]
        + [{"rounds": bad} for bad in (0, 1001)]
        + [{"clipping_norm": bad} for bad in (0.0, 1.5, math.nan)]
        + [{"budget": Budget(1e-9, 1e-6)}],
        ids=str,
    )
    def test_out_of_range_is_refused(self, change: dict[str, object]) -> None:
        with pytest.raises(InvalidParameterError):
            plan_distributed(**USUAL | change)

    def test_so_strict_that_the_noise_cannot_be_drawn_is_refused(self) -> None:
        with pytest.raises(InvalidParameterError, match="allow a larger epsilon or fewer rounds"):
            plan_distributed(
                **USUAL | {"budget": Budget(0.002, 1e-6), "width": 5000, "rounds": 1000}
            )

    def test_has_no_rounds_but_its_own(self) -> None:
        plan = plan_distributed(**USUAL)
        for number in (0, plan.rounds + 1):
            with pytest.raises(InvalidParameterError, match="expected a round 1 to 10"):
                plan.charge(number)


class TestContribution:
    def test_is_the_rows_sum_on_the_grid_and_noise_of_the_planned_scale(self) -> None:
        plan = plan_distributed(**USUAL | {"width": WIDTH, "rounds": 2})
        state = replace(start_descent(plan), round_number=2)
        features, labels = made_up(900)
        exact = gradient_sum(state.weights, features, labels, plan.gradient.clip)
        draws = np.array(
            [
                party_contribution(
                    *(state.weights, features, labels, plan, stream(f"draw {draw}")),
                    party=0,
                    round_number=2,
                )
                for draw in range(400)
            ]
        )
        noise = draws - exact / 2**plan.gradient.shift
        scale = plan.gradient.noise_scale
        assert noise.mean() == pytest.approx(0.0, abs=5 * scale / math.sqrt(noise.size))
        assert noise.std() == pytest.approx(scale, rel=5 / math.sqrt(2 * noise.size))
        assert np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1] == pytest.approx(0, abs=0.1)

    def test_the_honest_parties_noise_is_the_whole_that_is_charged(self) -> None:
        """Without rows, the sum over those who are left is noise: as much as epsilon takes."""
        plan = plan_distributed(**USUAL | {"width": 60})
        nobody = np.zeros((0, 60)), np.zeros(0)
        total = np.sum(
            [
                party_contribution(
                    np.zeros(60), *nobody, plan, stream(f"{party}"), party=party, round_number=1
                )
                for party in (0, 1, 3)
            ],
            axis=0,
        )
        second = total[60:]
        wanted = (
            plan.moments.charge().l2_sensitivity * 2 * 4.22
        )  # no Gaussian with less noise keeps them
        assert second.std() > wanted * (1 - 4 / math.sqrt(2 * second.size))

    def test_stays_within_the_bound_whatever_was_declared(self) -> None:
        plan = plan_distributed(
            **USUAL | {"declared_rows": (1, 1, 1, 1), "budget": Budget(30.0, 1e-6)}
        )
        state = start_descent(plan)
        sent = contribute(plan, state, 0, rows=5000)
        bounds = plan.gradient.bound(1), plan.moments.bound(1)
        assert np.abs(sent[:WIDTH]).max() <= bounds[0]
        assert np.abs(sent[WIDTH:]).max() <= bounds[1]
        assert np.abs(sent).max() > plan.gradient.limit(1) / 2

    def test_repeats_itself_given_the_stream_and_only_then(self) -> None:
        plan = plan_distributed(**USUAL)
        features, labels = made_up(50)
        first, again, other = (
            party_contribution(
                np.zeros(WIDTH), features, labels, plan, stream(label), party=0, round_number=1
            )
            for label in ("a", "a", "b")
        )
        np.testing.assert_array_equal(first, again)
        assert first.dtype == np.int64
        assert (first != other).any()

    @pytest.mark.parametrize("party", [-1, 4])
    def test_of_an_unknown_party_is_refused(self, party: int) -> None:
        plan = plan_distributed(**USUAL)
        with pytest.raises(InvalidParameterError, match="expected a party 0 to 3"):
            party_contribution(
                np.zeros(WIDTH), *made_up(3), plan, stream(), party=party, round_number=1
            )

    def test_with_broken_rows_or_weights_is_refused(self) -> None:
        plan = plan_distributed(**USUAL)
        features, labels = made_up(5)
        broken = features.copy()
        broken[1, 1] = math.nan
        for weights, table, truth, match in (
            (np.zeros(WIDTH), broken, labels, "1 rows that are not"),
            (np.full(WIDTH, math.nan), features, labels, "finite weights"),
            (np.zeros(WIDTH + 1), features, labels, "expected features"),
            (np.zeros(WIDTH), features, labels + 1.5, "labels"),
            (np.zeros(WIDTH), features[:, 1:], labels, "expected features"),
        ):
            with pytest.raises(InvalidParameterError, match=match):
                party_contribution(weights, table, truth, plan, stream(), party=0, round_number=2)


class TestServer:
    def test_finds_what_the_labels_depend_on_where_noise_is_small(self) -> None:
        plan = plan_distributed(**USUAL | {"budget": Budget(100.0, 1e-6)})
        parts = [made_up(rows, seed=party) for party, rows in enumerate(plan.declared_rows)]
        features = np.concatenate([rows for rows, _ in parts])
        scores = features @ trained(plan).model
        truth = features @ [6.0, -4.0, 2.0, 0.0, 0.0, -2.0]  # what the labels were made with
        assert np.corrcoef(scores, truth)[0, 1] > 0.99

    def test_makes_up_for_a_party_that_drops_out_of_any_round(self) -> None:
        plan = plan_distributed(**USUAL | {"budget": Budget(100.0, 1e-6)})
        features, _ = made_up(1000, seed=9)
        whole = features @ trained(plan).model
        for absent in ({1: 2}, {4: 0, 5: 1}):
            scores = features @ trained(plan, absent=absent).model
            assert np.corrcoef(scores, whole)[0, 1] > 0.98

    def test_returns_the_mean_of_the_last_half_of_the_positions(self) -> None:
        for rounds, averaged in ((1, 1), (2, 1), (3, 2), (6, 3)):
            plan = plan_distributed(**USUAL | {"rounds": rounds})
            state, positions = start_descent(plan), []
            while state.round_number <= rounds:
                total = np.sum([contribute(plan, state, party) for party in range(4)], axis=0)
                state = server_step(total, state, plan, range(4))
                positions.append(state.position)
            np.testing.assert_allclose(state.model, np.mean(positions[-averaged:], axis=0))
            with pytest.raises(InvalidParameterError, match="expected a round"):
                server_step(total, state, plan, range(4))

    @pytest.mark.parametrize(
        ("contributors", "match"),
        [
            ((0, 1), "expected a sum over 3 parties or more, got 2"),
            ((), "expected a sum over 3"),
            ((0, 1, 1, 2), "distinct"),
            ((0, 1, 4), "distinct"),
            ((-1, 0, 1), "distinct"),
        ],
        ids=str,
    )
    def test_refuses_sums_over_too_few_or_unknown_parties(
        self, contributors: tuple[int, ...], match: str
    ) -> None:
        plan = plan_distributed(**USUAL)
        total = np.zeros(plan.length(1), dtype=np.int64)
        with pytest.raises(InvalidParameterError, match=match):
            server_step(total, start_descent(plan), plan, contributors)

    def test_refuses_sums_of_another_length_type_or_range(self) -> None:
        plan = plan_distributed(**USUAL)
        good = np.zeros(plan.length(1), dtype=np.int64)
        beyond = good.copy()
        beyond[3] = plan.sum_bound + 1
        lowest = good.copy()
        lowest[0] = np.iinfo(np.int64).min
        for total, match in (
            (good[1:], "expected a sum of"),
            (good.astype(float), "int64"),
            (beyond, "wrapped or is broken"),
            (lowest, "wrapped or is broken"),
        ):
            with pytest.raises(InvalidParameterError, match=match):
                server_step(total, start_descent(plan), plan, range(4))

    def test_survives_a_sum_of_nothing_but_noise(self) -> None:
        plan = plan_distributed(**USUAL | {"budget": Budget(0.05, 1e-6)})
        state = start_descent(plan)
        while state.round_number <= plan.rounds:
            total = np.sum([contribute(plan, state, p, rows=0) for p in range(4)], axis=0)
            state = server_step(total, state, plan, range(4))
        assert np.isfinite(state.model).all()
        assert np.linalg.norm(state.model) < 100.0


def test_a_canary_cannot_be_told_apart_better_than_was_charged() -> None:
    """A row that weighs all it may on one entry, seen by a colluding party less its own noise.

    Every entry is an attack of its own. An attacker who thresholds it must obey
    true positives ≤ e^ε · false positives + δ (Kairouz et al. 2015).
    """
    plan = plan_distributed(**USUAL | {"width": 5000, "rounds": 1, "budget": Budget(3.0, 1e-6)})
    noise, delta, attacks = plan.gradient, 0.01, 5000
    epsilon = epsilon_of([noise.charge()], delta)
    canary, nobody = np.full(attacks, noise.clip), np.zeros(attacks, dtype=np.int64)
    seen = {
        label: sum(
            noise.contribution(
                canary if label and party == 0 else nobody, 1000, stream(f"{label}{party}")
            )
            for party in range(noise.honest_parties)
        )
        for label in (True, False)
    }
    slack = 4 * math.sqrt(0.25 / attacks) * (1 + math.exp(epsilon)) / 2
    gains = []
    for threshold in np.quantile(seen[True], np.linspace(0.05, 0.95, 19)):
        true, false = ((seen[label] > threshold).mean() for label in (True, False))
        assert true <= math.exp(epsilon) * false + delta + slack
        gains.append(true - false)
    assert max(gains) > 0.2, "the attack is idle: it says nothing"
