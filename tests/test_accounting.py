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
    DiscreteGaussianEvent,
    DiscreteLaplaceEvent,
    DistributedDiscreteGaussianEvent,
    Event,
    GaussianEvent,
    RepeatedEvent,
    SampledGaussianEvent,
    calibrate_discrete_gaussian,
    calibrate_distributed_discrete_gaussian,
    calibrate_noise_multiplier,
    epsilon_of,
    from_json,
    to_json,
)
from privacy.accounting.accountant import MINIMUM_DELTA
from privacy.accounting.events import MAXIMUM_COUNT
from privacy.accounting.renyi import sum_distance
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
    st.builds(DiscreteGaussianEvent, noise_multiplier=noises),
    st.builds(
        DistributedDiscreteGaussianEvent,
        noise_scale=noises,
        honest_parties=st.integers(1, 4),
        dimension=st.sampled_from([1, 100]),
        l2_sensitivity=st.sampled_from([0.5, 1.0]),
        sampling_probability=st.sampled_from([0.1, 1.0]),
        steps=st.integers(1, 20),
    ),
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


RESOLUTION = 1e-3
"""Within which two of the accountant's bounds for much the same thing may lie either way."""


def quieter(event: Event) -> Event:
    """The same event with half the noise."""
    match event:
        case RepeatedEvent():
            return event.model_copy(update={"event": quieter(event.event)})
        case ComposedEvent():
            return event.model_copy(update={"events": tuple(map(quieter, event.events))})
        case DiscreteLaplaceEvent():
            return event.model_copy(update={"scale": event.scale / 2})
        case DistributedDiscreteGaussianEvent():
            return event.model_copy(update={"noise_scale": event.noise_scale / 2})
        case _:
            return event.model_copy(update={"noise_multiplier": event.noise_multiplier / 2})


def discrete_gaussian(scale: float, reach: int) -> np.ndarray:
    """Probabilities of -reach to reach."""
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2.0 * scale**2))
    return weights / weights.sum()


def noise_sum(scale: float, parties: int, reach: int) -> np.ndarray:
    """Probabilities of the sum of the parties' noise, from -parties * reach on."""
    one = whole = discrete_gaussian(scale, reach)
    for _ in range(parties - 1):
        whole = np.convolve(whole, one)
    return whole


def exact_deltas(noise: np.ndarray, shift: int, probability: float, epsilon: float) -> list[float]:
    """δ of one release of an integer, for a person added and for one removed."""
    without = np.pad(noise, (0, shift))
    within = (1 - probability) * without + probability * np.pad(noise, (shift, 0))
    return [
        float(np.maximum(p - math.exp(epsilon) * q, 0).sum())
        for p, q in ((within, without), (without, within))
    ]


class TestEvents:
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
        with pytest.raises(InvalidParameterError, match="noise_multiplier"):
            DiscreteGaussianEvent(noise_multiplier=bad)

    @pytest.mark.parametrize(
        "change",
        [
            {"noise_scale": 0.49},
            {"noise_scale": math.inf},
            {"noise_scale": math.nan},
            {"honest_parties": 0},
            {"honest_parties": 10_001},
            {"honest_parties": 1.5},
            {"dimension": 0},
            {"l2_sensitivity": 0.0},
            {"l2_sensitivity": -1.0},
            {"l2_sensitivity": math.inf},
            {"sampling_probability": 0.0},
            {"sampling_probability": 1.5},
            {"steps": 0},
            {"steps": MAXIMUM_COUNT + 1},
        ],
        ids=str,
    )
    def test_refuse_a_distributed_sum_out_of_range(self, change: dict[str, float]) -> None:
        with pytest.raises(InvalidParameterError, match=next(iter(change))):
            DistributedDiscreteGaussianEvent(**(SUM | change))

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

    @given(st.text(), st.recursive(st.none() | st.floats() | st.text(), st.lists, max_leaves=5))
    def test_leak_no_other_error_from_json(self, text: str, value: object) -> None:
        for candidate in (text, json.dumps(value), json.dumps({"kind": value})):
            with pytest.raises(InvalidParameterError):
                from_json(candidate)


SUM = {"noise_scale": 4.0, "honest_parties": 2, "dimension": 10, "l2_sensitivity": 1.0}


class TestAccountant:
    def test_prices_nothing_at_zero(self) -> None:
        assert Accountant().epsilon(DELTA) == 0.0

    @settings(max_examples=15)
    @given(events, st.integers(1, 5))
    def test_composing_n_times_equals_n_compositions_exactly(self, event: Event, n: int) -> None:
        at_once = Accountant().compose(event, n).epsilon(DELTA)
        one_by_one = Accountant()
        for _ in range(n):
            one_by_one.compose(event)
        assert one_by_one.epsilon(DELTA) == at_once
        assert epsilon_of([RepeatedEvent(event=event, count=n)], DELTA) == at_once

    @settings(max_examples=15)
    @given(st.lists(events, min_size=1, max_size=4), st.randoms())
    def test_order_and_grouping_do_not_matter(self, parts: list[Event], random: object) -> None:
        shuffled = sorted(parts, key=lambda _: random.random())
        whole = ComposedEvent(events=tuple(parts))
        assert epsilon_of(parts, DELTA) == epsilon_of(shuffled, DELTA) == epsilon_of([whole], DELTA)

    @settings(max_examples=15)
    @given(st.lists(events, max_size=3), events)
    def test_more_composition_never_lowers_epsilon(self, parts: list[Event], more: Event) -> None:
        assert epsilon_of([*parts, more], DELTA) >= epsilon_of(parts, DELTA) - RESOLUTION

    @settings(max_examples=15)
    @given(events)
    def test_less_noise_never_lowers_epsilon(self, event: Event) -> None:
        assert epsilon_of([quieter(event)], DELTA) >= epsilon_of([event], DELTA) - RESOLUTION

    @settings(max_examples=10)
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

    @pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
    @pytest.mark.parametrize(
        ("kind", "field", "others"),
        [
            (GaussianEvent, "noise_multiplier", {}),
            (SampledGaussianEvent, "noise_multiplier", {"sampling_probability": 0.5, "steps": 1}),
            (SampledGaussianEvent, "sampling_probability", {"noise_multiplier": 2.0, "steps": 1}),
            (DiscreteLaplaceEvent, "scale", {"sensitivity": 1}),
            (DiscreteGaussianEvent, "noise_multiplier", {}),
            (DistributedDiscreteGaussianEvent, "noise_scale", SUM),
            (DistributedDiscreteGaussianEvent, "l2_sensitivity", SUM),
        ],
    )
    def test_refuses_what_was_made_without_a_check(
        self, kind: type[Event], field: str, others: dict[str, float], bad: float
    ) -> None:
        smuggled = kind.model_construct(**(others | {field: bad}))
        repeated = RepeatedEvent.model_construct(event=smuggled, count=2)
        for event in (smuggled, repeated):
            with pytest.raises(InvalidParameterError, match=field):
                Accountant().compose(event)
        free = RepeatedEvent.model_construct(event=GaussianEvent(noise_multiplier=1.0), count=-1)
        with pytest.raises(InvalidParameterError):
            Accountant().compose(free)

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
            RepeatedEvent(event=GaussianEvent(noise_multiplier=1e-6), count=1_000_000),
            SampledGaussianEvent(noise_multiplier=1e-6, sampling_probability=1e-9, steps=1),
            SampledGaussianEvent(noise_multiplier=5.0, sampling_probability=0.5, steps=1_000_000),
            DistributedDiscreteGaussianEvent(**(SUM | {"l2_sensitivity": 1e12})),
            DistributedDiscreteGaussianEvent(**(SUM | {"noise_scale": 0.5, "dimension": 10**9})),
            DiscreteGaussianEvent(noise_multiplier=1e-6),
            DiscreteLaplaceEvent(scale=1e-6, sensitivity=10_000),
        ],
    )
    def test_prices_the_hopeless_high_and_at_once(self, event: Event) -> None:
        start = time.process_time()
        assert 1e3 < epsilon_of([event], DELTA) < math.inf
        assert time.process_time() - start < 0.5

    @pytest.mark.parametrize("pure", [10.5, 12.0, 50.0, 100.0])
    def test_prices_a_loud_discrete_laplace_at_its_pure_epsilon(self, pure: float) -> None:
        loud = DiscreteLaplaceEvent(scale=1.0 / pure)
        assert epsilon_of([loud], DELTA) == pytest.approx(pure, rel=1e-12)
        assert epsilon_of([loud], DELTA) <= pure * (1 + 1e-12)
        other = GaussianEvent(noise_multiplier=4.0)
        assert pure < epsilon_of([loud, other], DELTA) < pure + 1.2 * epsilon_of([other], DELTA)

    def test_prices_more_of_a_mechanism_than_memory_holds(self) -> None:
        faint = RepeatedEvent(event=DiscreteLaplaceEvent(scale=1e6), count=1_000_000)
        assert epsilon_of([RepeatedEvent(event=faint, count=2)], DELTA) < 0.01

    def test_survives_the_ends_of_the_noise_range(self) -> None:
        nothing = RepeatedEvent(event=GaussianEvent(noise_multiplier=1e6), count=1)
        assert epsilon_of([nothing], DELTA) < 1e-4


class TestDiscreteGaussian:
    """Held against sums over all integers: no bound of the literature takes part in these."""

    @pytest.mark.parametrize("scale", [0.5, 1.0, 2.0, 7.0])
    @pytest.mark.parametrize("shift", [1, 3])
    @pytest.mark.parametrize("delta", [1e-2, 1e-6])
    def test_bounds_the_exact_release(self, scale: float, shift: int, delta: float) -> None:
        noise = discrete_gaussian(scale, 30 * shift + int(12 * scale))
        epsilon = epsilon_of([DiscreteGaussianEvent(noise_multiplier=scale / shift)], delta)
        assert max(exact_deltas(noise, shift, 1.0, epsilon)) <= delta
        continuous = epsilon_of([GaussianEvent(noise_multiplier=scale / shift)], delta)
        assert continuous <= epsilon < 1.35 * continuous + 0.2

    @pytest.mark.parametrize("scale", [0.5, 0.6, 0.8, 1.2])
    @pytest.mark.parametrize("parties", [2, 3, 8])
    def test_sums_differ_from_one_discrete_gaussian_by_less_than_is_charged(
        self, scale: float, parties: int
    ) -> None:
        reach = 40
        whole = noise_sum(scale, parties, reach)
        one = discrete_gaussian(scale * math.sqrt(parties), reach * parties)
        middle, seen_each_way = reach * parties, int(12 * scale)
        seen = slice(middle - seen_each_way, middle + seen_each_way + 1)
        found = np.abs(np.log(whole[seen] / one[seen])).max()
        assert 0 < found <= sum_distance(scale, parties)

    @pytest.mark.parametrize(
        ("scale", "shift", "parties", "probability"),
        [(0.8, 1, 2, 0.2), (0.9, 1, 4, 1.0), (1.0, 1, 1, 0.5), (3.0, 2, 2, 0.1), (3.0, 2, 4, 1.0)],
    )
    def test_bounds_exact_sampled_sums_composed_in_both_directions(
        self, scale: float, shift: int, parties: int, probability: float
    ) -> None:
        from dp_accounting.pld.privacy_loss_distribution import from_two_probability_mass_functions

        noise = noise_sum(scale, parties, int(10 * scale))
        without = np.pad(noise, (0, shift))
        within = (1 - probability) * without + probability * np.pad(noise, (shift, 0))
        first, second = (
            dict(enumerate(np.log(np.maximum(one, 1e-300)))) for one in (within, without)
        )
        exact = max(
            from_two_probability_mass_functions(
                *pair, value_discretization_interval=1e-2, pessimistic_estimate=False
            )
            .self_compose(10)
            .get_epsilon_for_delta(1e-5)
            for pair in ((first, second), (second, first))
        )
        event = DistributedDiscreteGaussianEvent(
            noise_scale=scale,
            honest_parties=parties,
            dimension=1,
            l2_sensitivity=float(shift),
            sampling_probability=probability,
            steps=10,
        )
        assert exact <= epsilon_of([event], 1e-5) < 1.3 * exact + 0.6

    def test_of_one_party_is_a_discrete_gaussian(self) -> None:
        alone = DistributedDiscreteGaussianEvent(**(SUM | {"honest_parties": 1}))
        assert epsilon_of([alone], DELTA) == epsilon_of(
            [DiscreteGaussianEvent(noise_multiplier=4.0)], DELTA
        )

    def test_every_further_honest_party_lowers_the_price(self) -> None:
        prices = [
            epsilon_of([DistributedDiscreteGaussianEvent(**(SUM | {"honest_parties": n}))], DELTA)
            for n in range(1, 6)
        ]
        assert prices == sorted(prices, reverse=True)
        assert len(set(prices)) == 5

    def test_too_coarse_a_grid_costs(self) -> None:
        fine, coarse = (
            DistributedDiscreteGaussianEvent(
                noise_scale=scale, honest_parties=2, dimension=100, l2_sensitivity=scale / 4
            )
            for scale in (4.0, 0.75)
        )
        assert epsilon_of([coarse], DELTA) > 1.5 * epsilon_of([fine], DELTA)

    def test_sampled_and_composed_agrees_with_the_continuous_one_in_renyi_divergence(self) -> None:
        from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
        from dp_accounting.rdp import RdpAccountant

        theirs = RdpAccountant(orders=list(range(2, 64)))
        theirs.compose(PoissonSampledDpEvent(0.2, GaussianDpEvent(6.0)), 300)
        event = DistributedDiscreteGaussianEvent(
            noise_scale=300.0,
            honest_parties=4,
            dimension=100,
            l2_sensitivity=100.0,
            sampling_probability=0.2,
            steps=300,
        )
        assert epsilon_of([event], DELTA) == pytest.approx(theirs.get_epsilon(DELTA), rel=1e-9)


class TestCalibration:
    @pytest.mark.parametrize(("epsilon", "releases"), [(0.3, 1), (1.0, 3), (4.0, 50)])
    def test_finds_the_least_discrete_gaussian(self, epsilon: float, releases: int) -> None:
        noise = calibrate_discrete_gaussian(epsilon=epsilon, delta=DELTA, releases=releases)

        def price(multiplier: float) -> float:
            event = DiscreteGaussianEvent(noise_multiplier=multiplier)
            return epsilon_of([RepeatedEvent(event=event, count=releases)], DELTA)

        assert float(f"{noise:.3f}") == noise
        assert price(noise) <= epsilon < price(noise - 0.001)

    @pytest.mark.parametrize("sensitivity", [1.0, 3.7, 1000.0, 1e6])
    @pytest.mark.parametrize("probability", [0.2, 1.0])
    def test_finds_the_least_share_of_a_sum(self, sensitivity: float, probability: float) -> None:
        parameters = {
            "honest_parties": 3,
            "dimension": 50,
            "l2_sensitivity": sensitivity,
            "sampling_probability": probability,
            "steps": 100,
        }
        scale = calibrate_distributed_discrete_gaussian(epsilon=2.0, delta=DELTA, **parameters)
        unit = 2.0 ** (math.floor(math.log2(sensitivity)) - 10)
        assert sensitivity / 2048 <= unit <= sensitivity / 1024
        assert (scale / unit).is_integer()

        def price(scale: float) -> float:
            event = DistributedDiscreteGaussianEvent(noise_scale=scale, **parameters)
            return epsilon_of([event], DELTA)

        assert price(scale) <= 2.0 < price(scale - unit)

    def test_a_share_is_never_below_what_is_understood(self) -> None:
        scale = calibrate_distributed_discrete_gaussian(
            epsilon=50.0, delta=1e-3, honest_parties=1, dimension=1, l2_sensitivity=0.01
        )
        assert 0.5 <= scale < 0.5 + 0.01

    @pytest.mark.parametrize(
        "change",
        [
            {"epsilon": 0.0},
            {"epsilon": math.nan},
            {"epsilon": math.inf},
            {"delta": 0.0},
            {"honest_parties": 0},
            {"dimension": 0},
            {"l2_sensitivity": 0.0},
            {"l2_sensitivity": math.inf},
            {"l2_sensitivity": math.nan},
            {"sampling_probability": 0.0},
            {"steps": 0},
        ],
        ids=str,
    )
    def test_refuses_a_sum_out_of_range(self, change: dict[str, float]) -> None:
        usual = {"epsilon": 1.0, "delta": 1e-6} | SUM
        del usual["noise_scale"]
        with pytest.raises(InvalidParameterError):
            calibrate_distributed_discrete_gaussian(**(usual | change))
        if set(change) <= {"epsilon", "delta"}:
            with pytest.raises(InvalidParameterError):
                calibrate_discrete_gaussian(**({"epsilon": 1.0, "delta": 1e-6} | change))

    def test_finds_the_least_thousandth_that_keeps_the_promise_within_two_seconds(self) -> None:
        start = time.process_time()
        noise = calibrate_noise_multiplier(
            epsilon=2.0, delta=1e-6, sampling_probability=0.2, steps=300, compositions=2
        )
        assert time.process_time() - start < 2.0
        assert noise == pytest.approx(11.011, abs=0.002)

    @settings(max_examples=8)
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
