"""What a person has lost in all: (ε, δ) of any composition of events.

Guarantees: an upper bound for adaptive composition under adding or removing one person. Where every
mechanism has a known privacy loss distribution, those are composed (Koskela et al. 2020;
Doroshenko et al. 2022, "Connect the Dots"), discretised at 10⁻⁴ and rounded towards privacy. Where
a discrete Gaussian stands among them, which is bounded in Rényi divergence only, the whole is
composed there (`renyi`). Events are first brought into a normal form (how often each mechanism
ran), and only that is priced: repeating equals composing, and order never matters, to the last bit.

Limits: convolutions are in floating point, with an error near 10⁻¹⁵ in δ. Below a δ of 10⁻¹⁰ that
error could outweigh the rounding, so a smaller δ is refused. A composition whose expected loss is
past 10 nats (an ε of some 30), or of more than a million steps of one mechanism, would take
gigabytes, and is composed in Rényi divergence too. Bounds hold for mechanisms whose parameters do
not depend on outcomes; that later jobs are asked for in the light of earlier ones is not priced.

Leaves to others: what may be spent (`ledger`) and how much noise to add (`calibration`).
"""

import math
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache, reduce
from typing import Any, Self, TypeAlias

from privacy.accounting import renyi
from privacy.accounting.events import (
    MAXIMUM_COUNT,
    MAXIMUM_NOISE,
    MINIMUM_NOISE,
    ComposedEvent,
    DiscreteGaussianEvent,
    DiscreteLaplaceEvent,
    DistributedDiscreteGaussianEvent,
    Event,
    GaussianEvent,
    RandomisedResponseEvent,
    RepeatedEvent,
    SampledGaussianEvent,
    to_json,
)
from privacy.accounting.renyi import Mechanism, NormalForm
from privacy.errors import InvalidParameterError

__all__ = ["MINIMUM_DELTA", "Accountant", "check_delta", "epsilon_of"]

MINIMUM_DELTA = 1e-10
"""Smallest δ at which floating point leaves the bound an upper bound."""

_DISCRETISATION = 1e-4
_MAXIMUM_EXPECTED_LOSS = 10.0

# Mechanisms whose privacy loss distribution is known.
_Known: TypeAlias = (
    GaussianEvent | SampledGaussianEvent | DiscreteLaplaceEvent | RandomisedResponseEvent
)
_KnownForm: TypeAlias = tuple[tuple[_Known, int], ...]


class Accountant:
    """Adds up events and prices the whole. Not thread-safe."""

    def __init__(self) -> None:
        self._counts: Counter[Mechanism] = Counter()

    def compose(self, event: Event, count: int = 1) -> Self:
        """Add `event`, `count` times; the whole of it or, if refused, nothing.

        Returns:
            This accountant.

        Raises:
            InvalidParameterError: if the event is of an unknown kind or `count` is below 1.
        """
        if count < 1:
            raise InvalidParameterError(f"an event is composed 1 time or more, got {count}")
        self._counts.update(_multiplied(_mechanisms(event), count))
        return self

    def epsilon(self, delta: float) -> float:
        """Return ε such that everything composed so far is (ε, `delta`)-private.

        Args:
            delta: in [10⁻¹⁰, 1).

        Returns:
            An upper bound; 0 for nothing.

        Raises:
            InvalidParameterError: if `delta` is out of range.
        """
        check_delta(delta)
        ordered = sorted(self._counts.items(), key=lambda item: to_json(item[0]))
        return _epsilon(tuple(ordered), delta)


def epsilon_of(events: Iterable[Event], delta: float) -> float:
    """Return ε such that all `events` together are (ε, `delta`)-private; repeats are cached.

    Raises:
        InvalidParameterError: as `Accountant` does.
    """
    accountant = Accountant()
    for event in events:
        accountant.compose(event)
    return accountant.epsilon(delta)


def check_delta(delta: float) -> None:
    """Refuse a δ outside [10⁻¹⁰, 1).

    Raises:
        InvalidParameterError: if it is, NaN included.
    """
    if not MINIMUM_DELTA <= delta < 1.0:
        raise InvalidParameterError(
            f"delta must lie in [{MINIMUM_DELTA:g}, 1), got {delta}: take at most one over the "
            "number of people"
        )


def _mechanisms(event: Event) -> Counter[Mechanism]:
    """Count how often each mechanism runs in `event`; a whole sample is no sample.

    Each is checked anew: pydantic lets code make a model that is out of range.
    """
    if isinstance(event, Mechanism):
        event = type(event).model_validate(event.model_dump())
    match event:
        case (
            GaussianEvent()
            | DiscreteLaplaceEvent()
            | DiscreteGaussianEvent()
            | RandomisedResponseEvent()
        ):
            return Counter({event: 1})
        case SampledGaussianEvent(sampling_probability=1.0):
            return Counter({GaussianEvent(noise_multiplier=event.noise_multiplier): event.steps})
        case SampledGaussianEvent() | DistributedDiscreteGaussianEvent():
            return Counter({event.model_copy(update={"steps": 1}): event.steps})
        case RepeatedEvent() if event.count >= 1:
            return _multiplied(_mechanisms(event.event), event.count)
        case ComposedEvent():
            total: Counter[Mechanism] = Counter()
            for part in event.events:
                total.update(_mechanisms(part))
            return total
        case _:
            raise InvalidParameterError(
                f"cannot price a {type(event).__name__}: use an event of privacy.accounting.events"
            )


def _multiplied(counts: Counter[Mechanism], factor: int) -> Counter[Mechanism]:
    return Counter({mechanism: count * factor for mechanism, count in counts.items()})


@lru_cache(maxsize=1024)
def _epsilon(form: NormalForm, delta: float) -> float:
    """Price a normal form."""
    if not form:
        return 0.0
    known = tuple((m, n) for m, n in form if isinstance(m, _Known))
    if len(known) < len(form) or not _is_bearable(pooled := _pooled(known)):
        return renyi.epsilon(form, delta)
    parts = (_distribution(*part) for part in pooled)
    whole = reduce(lambda left, right: left.compose(right), parts)
    return float(whole.get_epsilon_for_delta(delta))


def _is_bearable(form: _KnownForm) -> bool:
    """Tell whether the distribution of a normal form's loss fits into memory."""
    if any(count > MAXIMUM_COUNT or _peak_loss(m) > _MAXIMUM_EXPECTED_LOSS for m, count in form):
        return False
    return math.fsum(count * _expected_loss(m) for m, count in form) <= _MAXIMUM_EXPECTED_LOSS


def _pooled(form: _KnownForm) -> _KnownForm:
    """Replace all Gaussians by the one that equals them: 1/s² adds up (Dong et al. 2022, §3.2)."""
    gaussians = [(m.noise_multiplier, n) for m, n in form if isinstance(m, GaussianEvent)]
    if not gaussians:
        return form
    precision = math.fsum(count / noise**2 for noise, count in gaussians)
    noise = min(max(1.0 / math.sqrt(precision), MINIMUM_NOISE), MAXIMUM_NOISE)
    pooled = GaussianEvent(noise_multiplier=noise)
    others = tuple(part for part in form if not isinstance(part[0], GaussianEvent))
    return ((pooled, 1), *others)


def _peak_loss(mechanism: _Known) -> float:
    """Bound one run's expected loss, in nats, for a person who is surely in the sample."""
    if isinstance(mechanism, DiscreteLaplaceEvent):
        return mechanism.sensitivity / mechanism.scale
    if isinstance(mechanism, RandomisedResponseEvent):
        return mechanism.pure_loss
    return 0.5 / mechanism.noise_multiplier**2


def _expected_loss(mechanism: _Known) -> float:
    """Bound one run's expected loss (its Kullback-Leibler divergence), in nats.

    For Gaussian noise s, sampled with probability q, the divergence is at most q / (2s²), by
    convexity, and at most ln(1 + χ²) with χ² = q² (exp(1/s²) - 1).
    """
    peak = _peak_loss(mechanism)
    match mechanism:
        case GaussianEvent():
            return peak
        case SampledGaussianEvent(sampling_probability=q):
            return min(q * peak, math.log1p(q**2 * math.expm1(2.0 * peak)))
        case DiscreteLaplaceEvent() | RandomisedResponseEvent():
            return min(peak, 0.5 * peak**2)


@lru_cache(maxsize=8)
def _distribution(mechanism: _Known, count: int) -> Any:
    """Make the privacy loss distribution of `count` runs of `mechanism`."""
    one = _distribution_of_one(mechanism)
    return one if count == 1 else one.self_compose(count)


@lru_cache(maxsize=8)
def _distribution_of_one(mechanism: _Known) -> Any:
    from dp_accounting.pld import privacy_loss_distribution as pld

    match mechanism:
        case GaussianEvent(noise_multiplier=noise):
            return pld.from_gaussian_mechanism(noise, value_discretization_interval=_DISCRETISATION)
        case SampledGaussianEvent(noise_multiplier=noise, sampling_probability=probability):
            return pld.from_gaussian_mechanism(
                noise, value_discretization_interval=_DISCRETISATION, sampling_prob=probability
            )
        case DiscreteLaplaceEvent(scale=scale, sensitivity=sensitivity):
            return pld.from_discrete_laplace_mechanism(
                1.0 / scale,
                sensitivity=sensitivity,
                value_discretization_interval=_DISCRETISATION,
            )
        case RandomisedResponseEvent(flip_probability=flip):
            return pld.from_randomized_response(
                2.0 * flip, 2, value_discretization_interval=_DISCRETISATION
            )
