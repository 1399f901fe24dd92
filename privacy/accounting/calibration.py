"""How much noise a promised (ε, δ) takes.

Guarantees: the noise that comes back was priced by the accountant that charges, and keeps the
promise; one unit less would not. A unit is a thousandth of the sensitivity or a little less.
Repeated questions are answered from the accountant's cache. Leaves to others: whether ε may be
spent (`ledger`).
"""

import math
from collections.abc import Callable
from itertools import count

from privacy.accounting.accountant import check_delta, epsilon_of
from privacy.accounting.events import (
    MINIMUM_NOISE_SCALE,
    DiscreteGaussianEvent,
    DistributedDiscreteGaussianEvent,
    RepeatedEvent,
    SampledGaussianEvent,
)
from privacy.errors import InvalidParameterError

__all__ = [
    "calibrate_discrete_gaussian",
    "calibrate_distributed_discrete_gaussian",
    "calibrate_noise_multiplier",
]

_UNITS = 1000  # noise multipliers are multiples of 1/1000
_LARGEST = 10_000 * _UNITS


def calibrate_noise_multiplier(
    *,
    epsilon: float,
    delta: float,
    sampling_probability: float,
    steps: int,
    compositions: int = 1,
) -> float:
    """Find the least noise with which sampled Gaussian training keeps (ε, δ).

    Args:
        epsilon: the promise for everything together, > 0.
        delta: in [10⁻¹⁰, 1).
        sampling_probability: chance of a row to be in a step's sample, in (0, 1].
        steps: steps of one training, ≥ 1.
        compositions: trainings that may hold the same person, ≥ 1: the most parties that one
            person can be a customer of.

    Returns:
        The smallest multiple of 0.001 in reach of the accountant, at most 10,000.

    Raises:
        InvalidParameterError: if a parameter is out of range, or if no noise multiplier up to
            10,000 keeps the promise.
    """
    _check_promise(epsilon, delta)

    def price(units: int) -> float:
        training = SampledGaussianEvent(
            noise_multiplier=units / _UNITS,
            sampling_probability=sampling_probability,
            steps=steps,
        )
        return epsilon_of([RepeatedEvent(event=training, count=compositions)], delta)

    guess = sampling_probability * math.sqrt(steps * compositions) * _gaussian(epsilon, delta)
    return _search(price, epsilon, guess * _UNITS) / _UNITS


def calibrate_discrete_gaussian(*, epsilon: float, delta: float, releases: int = 1) -> float:
    """Find the least noise multiplier with which releases with discrete Gaussian noise keep (ε, δ).

    Args:
        epsilon: the promise for everything together, > 0.
        delta: in [10⁻¹⁰, 1).
        releases: of the same people, ≥ 1.

    Returns:
        A `DiscreteGaussianEvent.noise_multiplier`: a multiple of 0.001, at most 10,000.

    Raises:
        InvalidParameterError: as `calibrate_noise_multiplier` does.
    """
    _check_promise(epsilon, delta)

    def price(units: int) -> float:
        event = DiscreteGaussianEvent(noise_multiplier=units / _UNITS)
        return epsilon_of([RepeatedEvent(event=event, count=releases)], delta)

    guess = math.sqrt(releases) * _gaussian(epsilon, delta)
    return _search(price, epsilon, guess * _UNITS) / _UNITS


def calibrate_distributed_discrete_gaussian(
    *,
    epsilon: float,
    delta: float,
    honest_parties: int,
    dimension: int,
    l2_sensitivity: float,
    sampling_probability: float = 1.0,
    steps: int = 1,
) -> float:
    """Find the least noise a party must add so that sums over parties keep (ε, δ).

    Args:
        epsilon: the promise for all steps together, > 0.
        delta: in [10⁻¹⁰, 1).
        honest_parties: see `DistributedDiscreteGaussianEvent`, as for all that follow.
        dimension: coordinates of the vector.
        l2_sensitivity: in units of the grid.
        sampling_probability: in (0, 1].
        steps: ≥ 1.

    Returns:
        A `DistributedDiscreteGaussianEvent.noise_scale`, in units of the grid: at least 0.5, and a
        multiple of a power of two between 1/2048 and 1/1024 of `l2_sensitivity`.

    Raises:
        InvalidParameterError: as `calibrate_noise_multiplier` does.
    """
    _check_promise(epsilon, delta)

    def event(noise_scale: float) -> DistributedDiscreteGaussianEvent:
        return DistributedDiscreteGaussianEvent(
            noise_scale=noise_scale,
            honest_parties=honest_parties,
            dimension=dimension,
            l2_sensitivity=l2_sensitivity,
            sampling_probability=sampling_probability,
            steps=steps,
        )

    event(MINIMUM_NOISE_SCALE)  # out of range, parameters are refused before they are reckoned with
    unit = 2.0 ** (math.floor(math.log2(l2_sensitivity)) - 10)

    def price(units: int) -> float:
        scale = units * unit
        return math.inf if scale < MINIMUM_NOISE_SCALE else epsilon_of([event(scale)], delta)

    guess = sampling_probability * math.sqrt(steps / honest_parties) * _gaussian(epsilon, delta)
    return _search(price, epsilon, guess * l2_sensitivity / unit) * unit


def _check_promise(epsilon: float, delta: float) -> None:
    if not 0.0 < epsilon < math.inf:
        raise InvalidParameterError(f"epsilon must be positive and finite, got {epsilon}")
    check_delta(delta)


def _gaussian(epsilon: float, delta: float) -> float:
    """Return the classical bound on the noise of one Gaussian release: a first guess only."""
    return math.sqrt(2.0 * math.log(1.25 / delta)) / epsilon


def _search(price: Callable[[int], float], target: float, first: float) -> int:
    """Find the least number of units whose price is at most `target`, where more units cost less.

    Prices fall almost like a power of the noise, so a straight line through the logarithms of a
    bracket's ends lands close; every sixth turn halves the bracket, whatever the prices do.
    """
    failed, failed_price = 0, math.inf
    passed, passed_price = _LARGEST + 1, 0.0
    guess = min(max(round(first), 1), _LARGEST) if math.isfinite(first) else _LARGEST
    for turn in count(1):
        cost = price(guess)
        if cost <= target:
            passed, passed_price = guess, cost
        else:
            failed, failed_price = guess, cost
        if passed - failed == 1:
            break
        if turn % 6 and passed_price > 0.0 and failed_price < math.inf:
            share = math.log(failed_price / target) / math.log(failed_price / passed_price)
            aim = failed * (passed / failed) ** share
        elif passed > _LARGEST:
            aim = guess * (min(cost / target, 100.0) * 1.02)
        elif failed == 0:
            aim = guess * (max(cost / target, 0.01) * 0.98)
        else:
            aim = math.sqrt(failed * passed)
        guess = min(max(math.ceil(aim), failed + 1), passed - 1)
    if passed > _LARGEST:
        raise InvalidParameterError(
            f"no noise up to {_LARGEST // _UNITS} times the sensitivity keeps epsilon {target}: "
            "take fewer steps or a smaller sampling probability, or allow a larger epsilon"
        )
    return passed
