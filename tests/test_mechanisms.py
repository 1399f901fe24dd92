import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from privacy.accounting.events import DiscreteLaplaceEvent
from privacy.errors import InvalidParameterError
from privacy.mechanisms import (
    MAXIMUM_SIGMA,
    MINIMUM_SIGMA,
    _Steps,
    discrete_gaussian,
    noised_count,
)
from privacy.randomness import SecretStream, seeded_secret

FAR = 10**6  # so far from 0 that nothing is cut


def stream(seed: int) -> SecretStream:
    return SecretStream(seeded_secret(seed, "mechanisms test"), "noise")


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.5, 10.0])
def test_noise_follows_the_two_sided_geometric_distribution(scale: float) -> None:
    source = stream(1)
    event = DiscreteLaplaceEvent(scale=scale)
    drawn = Counter(noised_count(FAR, event, source) - FAR for _ in range(6_000))
    reach = max(1, math.ceil(2 * scale))
    ratio = math.exp(-1 / scale)
    expected = {k: (1 - ratio) / (1 + ratio) * ratio ** abs(k) for k in range(-reach, reach + 1)}
    observed = [drawn[k] for k in expected]
    rest = 6_000 - sum(observed)
    probabilities = [*expected.values(), 1 - sum(expected.values())]
    test = stats.chisquare([*observed, rest], 6_000 * np.array(probabilities))
    assert test.pvalue > 1e-4


@given(st.integers(0, 50), st.floats(0.01, 100), st.integers(0, 2**32))
def test_a_released_count_is_never_negative(count: int, scale: float, seed: int) -> None:
    assert noised_count(count, DiscreteLaplaceEvent(scale=scale), stream(seed)) >= 0


@given(st.integers(0, 10**9), st.integers(0, 2**32))
def test_next_to_no_noise_is_no_noise(count: int, seed: int) -> None:
    assert noised_count(count, DiscreteLaplaceEvent(scale=1e-6), stream(seed)) == count


def test_one_stream_gives_one_release_and_its_continuation_another() -> None:
    event = DiscreteLaplaceEvent(scale=50.0)
    source = stream(3)
    first, second = (noised_count(FAR, event, source) for _ in range(2))
    assert first == noised_count(FAR, event, stream(3))
    assert first != second


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(InvalidParameterError, match="0 or more"):
        noised_count(-1, DiscreteLaplaceEvent(scale=1.0), stream(4))


class TestDiscreteGaussian:
    DRAWS = 200_000

    @pytest.mark.parametrize("sigma", [0.25, 0.5, 1.0, 3.7, 8.0, 20.0])
    def test_it_follows_its_probability_mass_function(self, sigma: float) -> None:
        reach = math.floor(16 * sigma)
        weights = {k: math.exp(-k * k / (2 * sigma * sigma)) for k in range(-reach, reach + 1)}
        total = sum(weights.values())
        expected = {k: self.DRAWS * weight / total for k, weight in weights.items()}
        likely = [k for k, number in expected.items() if number >= 5]
        drawn = Counter(discrete_gaussian(sigma, self.DRAWS, stream(11)).tolist())
        assert set(drawn) <= set(weights)
        assert (
            goodness([drawn[k] for k in likely], [expected[k] for k in likely], self.DRAWS) > 1e-4
        )

    @pytest.mark.parametrize("sigma", [1_000.3, MAXIMUM_SIGMA])
    def test_wide_noise_follows_it_in_cells(self, sigma: float) -> None:
        edges = np.round(np.linspace(-3, 3, 121) * sigma) + 0.5
        drawn = discrete_gaussian(sigma, self.DRAWS, stream(12))
        counted, _ = np.histogram(drawn, edges)
        # Between half-integers the mass of the discrete Gaussian is that of the normal, to 1e-6.
        expected = self.DRAWS * np.diff(stats.norm.cdf(edges / sigma))
        assert goodness(counted.tolist(), expected.tolist(), self.DRAWS) > 1e-4

    def test_low_bits_of_wide_noise_are_even(self) -> None:
        low = discrete_gaussian(MAXIMUM_SIGMA, self.DRAWS, stream(13)) & 255
        counted = np.bincount(low, minlength=256)
        assert stats.chisquare(counted).pvalue > 1e-4

    def test_noise_below_a_sixteenth_is_none(self) -> None:
        assert not discrete_gaussian(MINIMUM_SIGMA, 1_000, stream(14)).any()

    @given(st.floats(MINIMUM_SIGMA, MAXIMUM_SIGMA), st.integers(0, 300), st.integers(0, 2**32))
    def test_it_has_the_size_asked_for_and_repeats(
        self, sigma: float, count: int, seed: int
    ) -> None:
        source = stream(seed)
        first = discrete_gaussian(sigma, count, source)
        assert first.shape == (count,)
        assert first.dtype == np.int64
        assert np.array_equal(first, discrete_gaussian(sigma, count, stream(seed)))
        assert np.abs(first).max(initial=0) <= 16 * sigma

    def test_a_stream_goes_on(self) -> None:
        source = stream(15)
        first, second = (discrete_gaussian(1e6, 1_000, source) for _ in range(2))
        assert len(np.intersect1d(first, second)) < 10

    @pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf, 2e6, 1e-7])
    def test_a_sigma_out_of_range_is_refused(self, sigma: float) -> None:
        with pytest.raises(InvalidParameterError, match="expected a sigma"):
            discrete_gaussian(sigma, 1, stream(16))

    def test_a_negative_count_of_draws_is_refused(self) -> None:
        with pytest.raises(InvalidParameterError, match="0 or more"):
            discrete_gaussian(1.0, -1, stream(17))

    @given(st.floats(MINIMUM_SIGMA, MAXIMUM_SIGMA))
    def test_steps_cover_the_bell_and_fit_their_bits(self, sigma: float) -> None:
        steps = _Steps.under(sigma)
        starts = np.arange(len(steps.heights)) * 2.0**steps.width_bits
        assert np.all(steps.heights > steps.scale * np.exp(-((starts / sigma) ** 2) / 2))
        assert len(steps.heights) << steps.width_bits > math.floor(16 * sigma)
        assert steps.width_bits <= 64 - 40
        assert 2**39.9 < int(steps.ends[-1]) <= 2**40

    @given(st.floats(0.1, MAXIMUM_SIGMA), st.data())
    def test_exact_coins_agree_with_floating_ones_away_from_the_edge(
        self, sigma: float, data: st.DataObject
    ) -> None:
        steps = _Steps.under(sigma)
        step = data.draw(st.integers(0, len(steps.heights) - 1))
        magnitude = (step << steps.width_bits) + data.draw(
            st.integers(0, (1 << steps.width_bits) - 1)
        )
        chance = math.exp(-((magnitude / sigma) ** 2) / 2) * steps.scale / int(steps.heights[step])
        edge = int(chance * 2**53)
        below, above = int(edge * (1 - 1e-11)) - 2, int(edge * (1 + 1e-11)) + 2
        if below >= 0:
            assert steps.accepts(magnitude, step, below, stream(18))
        if above < 2**53:
            assert not steps.accepts(magnitude, step, above, stream(18))

    def test_a_coin_on_the_edge_is_decided_by_its_further_bits(self) -> None:
        steps = _Steps.under(1.0)
        # exp(-1/2) to 40 digits, from its series; the coin's first 53 bits are those of the chance.
        series = sum(Fraction((-1) ** k, 2**k * math.factorial(k)) for k in range(40))
        chance = series * steps.scale / int(steps.heights[1])
        coin = math.floor(chance * 2**53)
        rest = math.floor((chance * 2**53 - coin) * 2**128)

        class Fixed(SecretStream):
            def __init__(self, bits: int) -> None:
                self.bits = bits

            def take(self, count: int) -> bytes:
                return self.bits.to_bytes(count, "little")

        assert steps.accepts(1, 1, coin, Fixed(rest - 1))
        assert not steps.accepts(1, 1, coin, Fixed(rest + 1))


def goodness(counted: list[int], expected: list[float], total: int) -> float:
    """Return the p-value of a chi-square test; what is not in a cell is a cell of its own."""
    rest, expected_rest = total - sum(counted), total - sum(expected)
    if expected_rest >= 5:
        counted, expected = [*counted, rest], [*expected, expected_rest]
    statistic = sum((c - e) ** 2 / e for c, e in zip(counted, expected, strict=True))
    return float(stats.chi2.sf(statistic, len(counted) - 1))
