import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from privacy.accounting.events import DiscreteLaplaceEvent
from privacy.errors import InvalidParameterError
from privacy.mechanisms import noised_count
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
