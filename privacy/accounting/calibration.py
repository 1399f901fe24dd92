"""How much noise a promised (ε, δ) takes.

Guarantees: the noise multiplier that comes back was priced by the accountant that charges, and
keeps the promise; a thousandth less would not. Repeated questions are answered from the
accountant's cache. Leaves to others: whether ε may be spent (`ledger`).
"""

import math
from collections.abc import Callable
from itertools import count

from privacy.accounting.accountant import check_delta, epsilon_of
from privacy.accounting.events import RepeatedEvent, SampledGaussianEvent
from privacy.errors import InvalidParameterError

__all__ = ["calibrate_noise_multiplier"]

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
    if not 0.0 < epsilon < math.inf:
        raise InvalidParameterError(f"epsilon must be positive and finite, got {epsilon}")
    check_delta(delta)

    def price(units: int) -> float:
        training = SampledGaussianEvent(
            noise_multiplier=units / _UNITS,
            sampling_probability=sampling_probability,
            steps=steps,
        )
        return epsilon_of([RepeatedEvent(event=training, count=compositions)], delta)

    # The classical Gaussian bound for the sampled steps as a whole: a first guess only.
    gaussian = math.sqrt(2.0 * math.log(1.25 / delta)) / epsilon
    guess = sampling_probability * math.sqrt(steps * compositions) * gaussian
    first = min(max(round(guess * _UNITS), 1), _LARGEST) if math.isfinite(guess) else _LARGEST
    return _search(price, epsilon, first) / _UNITS


def _search(price: Callable[[int], float], target: float, first: int) -> int:
    """Find the least number of units whose price is at most `target`, where more units cost less.

    Prices fall almost like a power of the noise, so a straight line through the logarithms of a
    bracket's ends lands close; every fourth turn halves the bracket, whatever the prices do.
    """
    failed, failed_price = 0, math.inf
    passed, passed_price = _LARGEST + 1, 0.0
    guess = first
    for turn in count(1):
        cost = price(guess)
        if cost <= target:
            passed, passed_price = guess, cost
        else:
            failed, failed_price = guess, cost
        if passed - failed == 1:
            break
        if turn % 4 and passed_price > 0.0 and failed_price < math.inf:
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
            f"no noise multiplier up to {_LARGEST // _UNITS} keeps epsilon {target}: take fewer "
            "steps or a smaller sampling probability, or allow a larger epsilon"
        )
    return passed
