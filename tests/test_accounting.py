"""Events, their prices, and the noise that a price takes."""

import json
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from privacy.accounting import (
    Accountant,
    ComposedEvent,
    DiscreteLaplaceEvent,
    Event,
    GaussianEvent,
    RepeatedEvent,
    SampledGaussianEvent,
    calibrate_noise_multiplier,
    epsilon_of,
    from_json,
    to_json,
)
from privacy.accounting.accountant import MINIMUM_DELTA
from privacy.accounting.events import MAXIMUM_COUNT
from privacy.errors import InvalidParameterError

DELTA = 1e-6

noises = st.sampled_from([3.0, 4.5, 8.0, 20.0, 111.125])
mechanisms = st.one_of(
    st.builds(GaussianEvent, noise_multiplier=noises),
    st.builds(
        SampledGaussianEvent,
        noise_multiplier=noises,
        sampling_probability=st.sampled_from([0.01, 0.2, 1.0]),
        steps=st.integers(1, 20),
    ),
    st.builds(DiscreteLaplaceEvent, scale=noises, sensitivity=st.integers(1, 2)),
)
events = st.recursive(
    mechanisms,
    lambda inner: st.one_of(
        st.builds(RepeatedEvent, event=inner, count=st.integers(1, 3)),
        st.builds(ComposedEvent, events=st.lists(inner, min_size=1, max_size=3).map(tuple)),
    ),
    max_leaves=3,
)


def exact_gaussian_delta(epsilon: float, noise: float) -> float:
    """δ of one Gaussian release (Balle and Wang 2018, Theorem 8, sensitivity 1)."""
    shift, ratio = 0.5 / noise, epsilon * noise
    return float(norm.cdf(shift - ratio) - math.exp(epsilon) * norm.cdf(-shift - ratio))


class TestEvents:
    @settings(deadline=None)
    @given(events)
    def test_are_read_back_from_their_canonical_json(self, event: Event) -> None:
        text = to_json(event)
        assert from_json(text) == event
        assert to_json(from_json(text)) == text

    def test_have_a_json_form_that_is_fixed_for_ever(self) -> None:
        event = ComposedEvent(
            events=(
                RepeatedEvent(
                    event=SampledGaussianEvent(
                        noise_multiplier=11.0, sampling_probability=0.2, steps=300
                    ),
                    count=2,
                ),
                DiscreteLaplaceEvent(scale=1.5),
            )
        )
        assert to_json(event) == (
            '{"events":[{"count":2,"event":{"kind":"sampled-gaussian","noise_multiplier":11,'
            '"sampling_probability":0.2,"steps":300},"kind":"repeated"},'
            '{"kind":"discrete-laplace","scale":1.5,"sensitivity":1}],"kind":"composed"}'
        )

    def test_cannot_be_changed(self) -> None:
        with pytest.raises(ValueError, match="frozen"):
            GaussianEvent(noise_multiplier=1.0).noise_multiplier = 2.0

    @pytest.mark.parametrize(
        "bad", [0, -1.0, math.nan, math.inf, -math.inf, 1e-7, 1e7, "1", None, True]
    )
    def test_refuse_a_noise_out_of_range(self, bad: object) -> None:
        with pytest.raises(InvalidParameterError, match=r"noise_multiplier.*got"):
            GaussianEvent(noise_multiplier=bad)
        with pytest.raises(InvalidParameterError, match="noise_multiplier"):
            SampledGaussianEvent(noise_multiplier=bad, sampling_probability=0.1, steps=1)
        with pytest.raises(InvalidParameterError, match="scale"):
            DiscreteLaplaceEvent(scale=bad)

    @pytest.mark.parametrize("bad", [0, -0.1, 1.0001, math.nan, math.inf, "0.1"])
    def test_refuse_a_sampling_probability_out_of_range(self, bad: object) -> None:
        with pytest.raises(InvalidParameterError, match="sampling_probability"):
            SampledGaussianEvent(noise_multiplier=1.0, sampling_probability=bad, steps=1)

    @pytest.mark.parametrize("bad", [0, -1, MAXIMUM_COUNT + 1, 1.5, math.nan, "1", True])
    def test_refuse_a_count_out_of_range(self, bad: object) -> None:
        with pytest.raises(InvalidParameterError, match="steps"):
            SampledGaussianEvent(noise_multiplier=1.0, sampling_probability=0.1, steps=bad)
        with pytest.raises(InvalidParameterError, match="count"):
            RepeatedEvent(event=GaussianEvent(noise_multiplier=1.0), count=bad)
        with pytest.raises(InvalidParameterError, match="sensitivity"):
            DiscreteLaplaceEvent(scale=1.0, sensitivity=bad)

    def test_refuse_an_empty_composition_and_unknown_fields(self) -> None:
        with pytest.raises(InvalidParameterError, match="events"):
            ComposedEvent(events=())
        with pytest.raises(InvalidParameterError, match="noise"):
            GaussianEvent(noise_multiplier=1.0, noise=2.0)

    def test_refuse_bottomless_nesting(self) -> None:
        event: Event = GaussianEvent(noise_multiplier=1.0)
        for _ in range(15):
            event = RepeatedEvent(event=event, count=1)
        with pytest.raises(InvalidParameterError, match="nests 17 events deep"):
            RepeatedEvent(event=event, count=1)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "null",
            "[]",
            "{",
            '{"kind":"gaussian"}',
            '{"kind":"laplace","scale":1}',
            '{"noise_multiplier":2}',
            '{"kind":"gaussian","noise_multiplier":0}',
            '{"kind":"gaussian","noise_multiplier":NaN}',
            '{"kind":"gaussian","noise_multiplier":1e999}',
            '{"kind":"gaussian","noise_multiplier":2.0}',
            '{"kind":"gaussian", "noise_multiplier":2}',
            '{"noise_multiplier":2,"kind":"gaussian"}',
            '{"kind":"gaussian","noise_multiplier":1,"noise_multiplier":2}',
            '{"count":1,"event":{"kind":"gaussian","noise_multiplier":0},"kind":"repeated"}',
            '{"event":' * 5000,
            "\ud800",
            " " * (1 << 21),
        ],
    )
    def test_refuse_json_that_is_no_event_or_is_spelt_otherwise(self, text: str) -> None:
        with pytest.raises(InvalidParameterError):
            from_json(text)

    @settings(deadline=None)
    @given(st.text(), st.recursive(st.none() | st.floats() | st.text(), st.lists, max_leaves=5))
    def test_leak_no_other_error_from_json(self, text: str, value: object) -> None:
        for candidate in (text, json.dumps(value), json.dumps({"kind": value})):
            with pytest.raises(InvalidParameterError):
                from_json(candidate)


class TestAccountant:
    def test_prices_nothing_at_zero(self) -> None:
        assert Accountant().epsilon(DELTA) == 0.0

    @settings(max_examples=15, deadline=None)
    @given(events, st.integers(1, 5))
    def test_composing_n_times_equals_n_compositions_exactly(self, event: Event, n: int) -> None:
        at_once = Accountant().compose(event, n).epsilon(DELTA)
        one_by_one = Accountant()
        for _ in range(n):
            one_by_one.compose(event)
        assert one_by_one.epsilon(DELTA) == at_once
        assert epsilon_of([RepeatedEvent(event=event, count=n)], DELTA) == at_once

    @settings(max_examples=15, deadline=None)
    @given(st.lists(events, min_size=1, max_size=4), st.randoms())
    def test_order_and_grouping_do_not_matter(self, parts: list[Event], random: object) -> None:
        shuffled = sorted(parts, key=lambda _: random.random())
        whole = ComposedEvent(events=tuple(parts))
        assert epsilon_of(parts, DELTA) == epsilon_of(shuffled, DELTA) == epsilon_of([whole], DELTA)

    @settings(max_examples=15, deadline=None)
    @given(st.lists(events, max_size=3), events)
    def test_more_composition_never_lowers_epsilon(self, parts: list[Event], more: Event) -> None:
        assert epsilon_of([*parts, more], DELTA) >= epsilon_of(parts, DELTA) - 1e-9

    @settings(max_examples=10, deadline=None)
    @given(events)
    def test_a_smaller_delta_never_lowers_epsilon(self, event: Event) -> None:
        prices = [epsilon_of([event], delta) for delta in (0.1, 1e-3, DELTA, MINIMUM_DELTA)]
        assert prices == sorted(prices)

    @pytest.mark.parametrize("count", [0, -1])
    def test_a_refused_event_changes_nothing(self, count: int) -> None:
        accountant = Accountant().compose(GaussianEvent(noise_multiplier=3.0))
        before = accountant.epsilon(DELTA)
        smuggled = ComposedEvent.model_construct(
            events=(GaussianEvent(noise_multiplier=1.0), "free of charge")
        )
        with pytest.raises(InvalidParameterError, match="cannot price a str"):
            accountant.compose(smuggled)
        with pytest.raises(InvalidParameterError, match=f"got {count}"):
            accountant.compose(GaussianEvent(noise_multiplier=1.0), count)
        assert accountant.epsilon(DELTA) == before

    @pytest.mark.parametrize("delta", [0.0, -0.1, 1.0, math.nan, math.inf, MINIMUM_DELTA / 2])
    def test_refuses_a_delta_out_of_range(self, delta: float) -> None:
        with pytest.raises(InvalidParameterError, match="delta"):
            Accountant().epsilon(delta)

    @pytest.mark.parametrize("noise", [0.5, 1.0, 3.0, 10.0])
    @pytest.mark.parametrize("delta", [1e-2, 1e-5, 1e-9])
    def test_bounds_the_exact_gaussian_from_above_and_closely(
        self, noise: float, delta: float
    ) -> None:
        epsilon = epsilon_of([GaussianEvent(noise_multiplier=noise)], delta)
        if epsilon == 0.0:
            assert exact_gaussian_delta(0.0, noise) <= delta
        else:
            assert exact_gaussian_delta(epsilon, noise) <= delta * (1 + 1e-9)
            assert exact_gaussian_delta(epsilon - 1e-3, noise) > delta

    def test_knows_that_gaussians_add_up_to_one_gaussian(self) -> None:
        parts = [GaussianEvent(noise_multiplier=6.0), GaussianEvent(noise_multiplier=8.0)]
        assert epsilon_of(parts, DELTA) == pytest.approx(
            epsilon_of([GaussianEvent(noise_multiplier=4.8)], DELTA), abs=1e-9
        )

    def test_knows_that_a_whole_sample_is_no_sample(self) -> None:
        whole = SampledGaussianEvent(noise_multiplier=9.0, sampling_probability=1.0, steps=7)
        seven = RepeatedEvent(event=GaussianEvent(noise_multiplier=9.0), count=7)
        assert epsilon_of([whole], DELTA) == epsilon_of([seven], DELTA)

    def test_charges_a_discrete_laplace_its_pure_epsilon_at_most(self) -> None:
        epsilon = epsilon_of([DiscreteLaplaceEvent(scale=4.0, sensitivity=2)], MINIMUM_DELTA)
        assert epsilon == pytest.approx(0.5, abs=1e-6)

    def test_is_no_worse_than_the_moments_accountant(self) -> None:
        # Abadi et al. 2016, section 3.2: q = 0.01, sigma = 4, 10,000 steps, delta = 1e-5 cost
        # 1.26 by the moments accountant (9.34 by strong composition).
        event = SampledGaussianEvent(noise_multiplier=4.0, sampling_probability=0.01, steps=10_000)
        assert 0.9 < epsilon_of([event], 1e-5) < 1.26

    def test_agrees_with_an_independent_composition(self) -> None:
        from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
        from dp_accounting.pld import PLDAccountant
        from dp_accounting.rdp import RdpAccountant

        event = SampledGaussianEvent(noise_multiplier=6.0, sampling_probability=0.2, steps=300)
        theirs = PoissonSampledDpEvent(0.2, GaussianDpEvent(6.0))
        priced = epsilon_of([event], DELTA)
        loss = PLDAccountant().compose(theirs, 300).get_epsilon(DELTA)
        renyi = RdpAccountant().compose(theirs, 300).get_epsilon(DELTA)
        assert priced == pytest.approx(loss, abs=1e-6)
        assert priced < renyi < 1.2 * priced

    @pytest.mark.parametrize(
        "event",
        [
            GaussianEvent(noise_multiplier=1e-6),
            SampledGaussianEvent(noise_multiplier=1e-6, sampling_probability=1e-9, steps=1),
            SampledGaussianEvent(noise_multiplier=5.0, sampling_probability=0.5, steps=1_000_000),
            DiscreteLaplaceEvent(scale=1e-6, sensitivity=10_000),
            RepeatedEvent(
                event=RepeatedEvent(event=DiscreteLaplaceEvent(scale=1e6), count=1_000_000), count=2
            ),
        ],
    )
    def test_prices_the_hopeless_at_infinity_and_at_once(self, event: Event) -> None:
        start = time.process_time()
        assert epsilon_of([event], DELTA) == math.inf
        assert time.process_time() - start < 0.5

    def test_survives_the_ends_of_the_noise_range(self) -> None:
        nothing = RepeatedEvent(event=GaussianEvent(noise_multiplier=1e6), count=1)
        assert epsilon_of([nothing], DELTA) < 1e-4


class TestCalibration:
    def test_finds_the_least_thousandth_that_keeps_the_promise_within_two_seconds(self) -> None:
        start = time.process_time()
        noise = calibrate_noise_multiplier(
            epsilon=2.0, delta=1e-6, sampling_probability=0.2, steps=300, compositions=2
        )
        assert time.process_time() - start < 2.0
        assert noise == pytest.approx(11.011, abs=0.002)

    @settings(max_examples=8, deadline=None)
    @given(
        epsilon=st.floats(0.1, 2.0),
        delta=st.sampled_from([1e-4, 1e-6, 1e-9]),
        sampling_probability=st.sampled_from([0.1, 0.2]),
        steps=st.integers(100, 400),
        compositions=st.integers(1, 5),
    )
    def test_keeps_the_promise_and_a_thousandth_less_would_not(
        self,
        epsilon: float,
        delta: float,
        sampling_probability: float,
        steps: int,
        compositions: int,
    ) -> None:
        noise = calibrate_noise_multiplier(
            epsilon=epsilon,
            delta=delta,
            sampling_probability=sampling_probability,
            steps=steps,
            compositions=compositions,
        )

        def price(multiplier: float) -> float:
            event = SampledGaussianEvent(
                noise_multiplier=multiplier, sampling_probability=sampling_probability, steps=steps
            )
            return epsilon_of([RepeatedEvent(event=event, count=compositions)], delta)

        assert float(f"{noise:.3f}") == noise
        assert price(noise) <= epsilon < price(noise - 0.001)

    @pytest.mark.parametrize(
        "change",
        [
            {"epsilon": 0.0},
            {"epsilon": -1.0},
            {"epsilon": math.nan},
            {"epsilon": math.inf},
            {"delta": 0.0},
            {"delta": 1.0},
            {"delta": math.nan},
            {"sampling_probability": 0.0},
            {"sampling_probability": 1.5},
            {"sampling_probability": math.nan},
            {"steps": 0},
            {"steps": 2.5},
            {"compositions": 0},
        ],
        ids=str,
    )
    def test_refuses_what_is_out_of_range(self, change: dict[str, float]) -> None:
        usual = {"epsilon": 1.0, "delta": 1e-6, "sampling_probability": 0.1, "steps": 10}
        with pytest.raises(InvalidParameterError):
            calibrate_noise_multiplier(**(usual | change))

    def test_says_when_a_promise_is_out_of_reach(self) -> None:
        with pytest.raises(InvalidParameterError, match="fewer steps"):
            calibrate_noise_multiplier(
                epsilon=1e-9, delta=1e-10, sampling_probability=1.0, steps=1_000_000
            )

    def test_terminates_whatever_the_prices_look_like(self) -> None:
        from privacy.accounting.calibration import _search

        for threshold in (1, 2, 999, 54_321):
            asked: list[int] = []

            def price(units: int, threshold: int = threshold, asked: list[int] = asked) -> float:
                asked.append(units)
                return 0.0 if units >= threshold else math.inf

            assert _search(price, 1.0, 1000) == threshold
            assert len(asked) < 60

    def test_the_noise_it_finds_is_a_plain_float(self) -> None:
        noise = calibrate_noise_multiplier(
            epsilon=np.float64(2.0), delta=1e-6, sampling_probability=1.0, steps=1
        )
        assert type(noise) is float
