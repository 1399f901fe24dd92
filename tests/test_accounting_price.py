"""The price tag: what a job costs, how often it fits, the smallest change that passes, forecasts."""

import itertools
import math
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.accounting import (
    Budget,
    DiscreteLaplaceEvent,
    DistributedDiscreteGaussianEvent,
    Event,
    GaussianEvent,
    RepeatedEvent,
    SampledGaussianEvent,
    epsilon_of,
)
from privacy.accounting.price import (
    BOOSTED_TREES,
    LOGISTIC_REGRESSION,
    MOST_REPEATS,
    NETWORK,
    RIDGE_REGRESSION,
    Curve,
    ForestShape,
    TrainingShape,
    forecast,
    largest_within,
    price_tag,
    smallest_within,
)
from privacy.errors import InvalidParameterError

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
BUDGET = Budget(3.0, 1e-6)
SPENT = (GaussianEvent(noise_multiplier=8.0),)
STEP = SampledGaussianEvent(noise_multiplier=8.0, sampling_probability=0.2, steps=300)

jobs = st.sampled_from(
    [
        (GaussianEvent(noise_multiplier=9.0),),
        (GaussianEvent(noise_multiplier=5.0), DiscreteLaplaceEvent(scale=4.0)),
        (DiscreteLaplaceEvent(scale=0.05),),
        (
            DistributedDiscreteGaussianEvent(
                noise_scale=20.0, honest_parties=2, dimension=9, l2_sensitivity=4.0
            ),
        ),
    ]
)


class TestPriceTag:
    @settings(max_examples=6)
    @given(jobs, st.sampled_from([(), SPENT]), st.sampled_from([0.5, 3.0]))
    def test_says_what_the_ledger_would(
        self, job: tuple[Event, ...], spent: tuple[Event, ...], cap: float
    ) -> None:
        tag = price_tag(spent, job, Budget(cap, 1e-6))
        assert tag.epsilon == epsilon_of(job, 1e-6)
        assert tag.epsilon_spent == epsilon_of([*spent, *job], 1e-6)
        assert tag.fits is (tag.epsilon_spent <= cap)
        assert tag.epsilon_left == max(0.0, cap - tag.epsilon_spent)
        assert tag.smallest_budget - 0.01 < tag.epsilon_spent <= tag.smallest_budget
        assert float(f"{tag.smallest_budget:.2f}") == tag.smallest_budget

    @settings(max_examples=6)
    @given(jobs, st.sampled_from([(), SPENT]))
    def test_counts_further_runs_exactly(
        self, job: tuple[Event, ...], spent: tuple[Event, ...]
    ) -> None:
        tag = price_tag(spent, job, BUDGET)

        def after(count: int) -> float:
            return epsilon_of([*spent, *job * (1 + count)], BUDGET.delta)

        assert (tag.repeats > 0) <= tag.fits
        if tag.fits:
            assert after(tag.repeats) <= BUDGET.epsilon < after(tag.repeats + 1)

    def test_counts_no_further_than_is_of_use(self) -> None:
        faint = GaussianEvent(noise_multiplier=1e5)
        assert price_tag(SPENT, [faint], BUDGET).repeats == MOST_REPEATS

    def test_of_nothing_is_nothing(self) -> None:
        tag = price_tag(SPENT, [], BUDGET)
        assert (tag.epsilon, tag.fits, tag.repeats) == (0.0, True, None)
        assert tag.epsilon_spent == epsilon_of(SPENT, BUDGET.delta)


class TestSearches:
    @settings(max_examples=60)
    @given(
        asked=st.floats(0.01, 100),
        share=st.floats(1e-4, 0.999),
        power=st.sampled_from([0.5, 1.0, 2.0]),
        spent=st.floats(0, 2),
    )
    def test_the_largest_passes_and_the_next_does_not(
        self, asked: float, share: float, power: float, spent: float
    ) -> None:
        asked_for = []

        def after(epsilon: float) -> float:
            asked_for.append(epsilon)
            return (spent**2 + epsilon ** (2 * power)) ** 0.5

        cap = after(asked * share)
        best = largest_within(after, spent=spent, cap=cap, asked=asked)
        step = 10.0 ** (math.floor(math.log10(asked)) - 2)
        if best is None:
            assert after(step) > cap
        else:
            assert best < asked
            assert after(best) <= cap < after(min(best + step, asked))
        assert len(asked_for) <= (8 if power == 1.0 else 40)  # a bisection would take as many

    def test_the_largest_is_a_number_that_one_would_write(self) -> None:
        for cap, found in ((0.6, 0.6), (0.0, None)):
            best = largest_within(lambda epsilon: epsilon, spent=0.0, cap=cap, asked=1.0)
            assert best == found

    def test_what_cannot_be_priced_is_too_much(self) -> None:
        def after(epsilon: float) -> float:
            if epsilon < 0.5:
                raise InvalidParameterError("no noise does that")
            return epsilon

        assert largest_within(after, spent=0.0, cap=0.3, asked=1.0) is None

    @settings(max_examples=30)
    @given(asked=st.floats(1e-9, 10), factor=st.floats(1.001, 1e6))
    def test_the_smallest_is_reached_and_one_less_is_not(self, asked: float, factor: float) -> None:
        least = asked * factor
        found = smallest_within(lambda epsilon: epsilon >= least, asked)
        assert least <= found <= least * 1.03

    def test_the_smallest_of_nothing_is_none(self) -> None:
        assert smallest_within(lambda _: False, 1.0) is None


def shape(**changes: object) -> TrainingShape:
    usual = {"rows": (5_000, 5_000), "positives": 800, "columns": 100, "event": STEP}
    return TrainingShape(**(usual | changes))


class TestForecast:
    def test_a_stronger_signal_loses_less(self) -> None:
        lost = forecast(shape(), 0.8).lost
        quieter = STEP.model_copy(update={"noise_multiplier": 4.0})
        for stronger in (
            shape(positives=1_600),
            shape(columns=50),
            shape(event=quieter),
            shape(rows=(10_000, 10_000), positives=1_600),
        ):
            assert forecast(stronger, 0.8).lost < lost
        assert forecast(shape(), 0.9).lost < lost
        assert forecast(shape(clipping_norm=2.0), 0.8).lost > lost
        assert forecast(shape(clipping_norm=0.5), 0.8).lost == lost

    def test_partners_that_share_the_rows_are_noisier_than_one(self) -> None:
        one, two = shape(rows=(10_000,)), shape(rows=(5_000, 5_000))
        assert one.signal_to_noise == pytest.approx(math.sqrt(2) * two.signal_to_noise)
        assert two.signal_to_noise > shape(rows=(9_000, 1_000)).signal_to_noise

    def test_is_the_documented_curve(self) -> None:
        auc = 0.76024994  # a normal deviate of 1/√2: its square, doubled, is 1
        for curve in (LOGISTIC_REGRESSION, RIDGE_REGRESSION, NETWORK):
            found = forecast(shape(curve=curve), auc)
            strength = found.ratio / curve.half_lost
            for share, times in (
                (found.lost, 1.0),
                (found.least, curve.band),
                (found.most, 1 / curve.band),
            ):
                expected = 1 / (1 + (times * strength) ** curve.power)
                assert share == pytest.approx(expected, rel=1e-6)
            assert found.auc_loss(0.5) == pytest.approx(0.5 * (auc - 0.5))

    @pytest.mark.parametrize("curve", [RIDGE_REGRESSION, NETWORK], ids=["ridge", "network"])
    def test_of_other_families_a_stronger_signal_loses_less(self, curve: Curve) -> None:
        quieter = STEP.model_copy(update={"noise_multiplier": 4.0})
        lost = forecast(shape(curve=curve), 0.8).lost
        more = {"rows": (10_000, 10_000), "positives": 1_600}
        for stronger in ({"positives": 1_600}, {"event": quieter}, {"columns": 50}, more):
            assert forecast(shape(curve=curve, **stronger), 0.8).lost < lost

    @given(
        st.integers(2, 100_000),
        st.floats(0.01, 0.5),
        st.floats(1.0, 1e4),
        st.integers(1, 1_000),
        st.floats(1.1, 10.0),
    )
    def test_trees_lose_less_of_a_stronger_signal(
        self, rows: int, share: float, noise: float, sums: int, factor: float
    ) -> None:
        positives = max(1, int(rows * share))
        usual = ForestShape(rows, positives, noise, sums)
        found = forecast(usual, 0.8)
        assert 0.0 < found.least < found.lost < found.most < 1.0
        assert found.lost == BOOSTED_TREES.lost(usual.signal_to_noise)
        for stronger in (
            ForestShape(2 * rows, 2 * positives, noise, sums),
            ForestShape(rows, positives, noise / factor, sums),
            ForestShape(rows, positives, noise, 2 * sums),
        ):
            assert forecast(stronger, 0.8).lost < found.lost

    @pytest.mark.parametrize(
        "terms", [(1, 1, 1.0, 1), (9, 0, 1.0, 1), (9, 1, 0.0, 1), (9, 1, math.inf, 1), (9, 1, 1, 0)]
    )
    def test_refuses_trees_out_of_range(self, terms: tuple[int, int, float, int]) -> None:
        with pytest.raises(InvalidParameterError):
            ForestShape(*terms)

    @pytest.mark.parametrize(
        "change",
        [
            {"rows": ()},
            {"rows": (10, 0)},
            {"columns": 0},
            {"positives": 0},
            {"positives": 10_000},
            {"clipping_norm": 0.0},
            {"clipping_norm": -1.0},
            {"clipping_norm": math.inf},
            {"clipping_norm": math.nan},
        ],
        ids=str,
    )
    def test_refuses_a_training_out_of_range(self, change: dict[str, object]) -> None:
        with pytest.raises(InvalidParameterError):
            shape(**change)

    @pytest.mark.parametrize("auc", [0.5, 1.0, 0.0, -1.0, math.nan, math.inf])
    def test_refuses_an_auc_out_of_range(self, auc: float) -> None:
        with pytest.raises(InvalidParameterError, match="auc"):
            forecast(shape(), auc)

    @pytest.fixture
    def measured(self, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
        """The module that measures what the curve is fitted to."""
        monkeypatch.syspath_prepend(BENCHMARKS)
        import forecast as module

        return module

    def test_trainings_that_it_was_not_fitted_to_lose_within_its_band(
        self, measured: ModuleType
    ) -> None:
        tables = {
            "buys_wine": measured.households("buys_wine", "DOMESTIC WINE"),
            "adult": measured.adult(),
        }
        chosen = [("buys_wine", 1_700, 1), ("adult", 1_000, 2)]
        known = {
            one[0].table
            for family in measured.Family
            for one in measured.settings(family)
            if one[0].fitted
        }
        assert known == {"buys_vitamins", "adult"}
        losses = []
        for name, rows, partners in chosen:
            group = [
                measured.Setting(name, rows, 1.0, partners, epsilon, fitted=False)
                for epsilon in (1.0, 4.0)
            ]
            for point in measured.measure(tables[name], group, repeats=2):
                found = forecast(point.shape, point.auc)
                slack = measured.SLACK
                assert found.least - slack <= point.lost <= found.most + slack, point
                losses.append((point.lost, found.lost))
        # And it tells the trainings apart: what it expects to lose more of does lose more.
        agreeing = [(a[0] < b[0]) == (a[1] < b[1]) for a, b in itertools.combinations(losses, 2)]
        assert sum(agreeing) >= 0.8 * len(agreeing)

    @pytest.mark.parametrize("family", ["ridge-regression", "boosted-trees"])
    def test_other_families_lose_within_their_bands(
        self, measured: ModuleType, family: str
    ) -> None:
        group = [
            measured.Setting(
                "adult", 1_000, 1.0, 2, epsilon, fitted=False, family=measured.Family(family)
            )
            for epsilon in (1.0, 4.0)
        ]
        loud, quiet = measured.measure(measured.adult(), group, repeats=1)
        for point in (loud, quiet):
            found = forecast(point.shape, point.auc)
            assert found.least - measured.SLACK <= point.lost <= found.most + measured.SLACK
        assert loud.lost > quiet.lost


def test_a_repeated_event_is_priced_as_the_ledger_prices_it() -> None:
    job = (RepeatedEvent(event=STEP, count=2),)
    assert price_tag((), job, BUDGET).epsilon == epsilon_of([STEP, STEP], BUDGET.delta)
