"""Rényi bounds: what mechanisms cost whose privacy loss distribution is unknown or too large.

Guarantees: an upper bound for adaptive composition (Mironov 2017, proposition 1), turned into
(ε, δ) by Canonne, Kamath and Steinke 2020, proposition 12, at the best of a fixed set of whole
orders α ≥ 2. Each bound below holds for adding a person and for removing one.

- Gaussian with noise s: α / (2s²). The discrete Gaussian has the same bound, in any number of
  dimensions (Canonne, Kamath and Steinke 2020, theorem 4).
- Sampled with probability q: ln A / (α - 1), where A = Σₖ C(α,k) (1-q)^(α-k) q^k exp(k(k-1) / 2s²)
  (Mironov, Talwar and Zhang 2019, section 3.3). For the discrete Gaussian the expectation of the
  k-th power of the likelihood ratio is at most that of the Gaussian (theorem 4 again), so A bounds
  it too. The other direction is no larger (their theorem 5): the reflection of the grid that swaps
  a centre with one a whole step away keeps every weight.
- A sum of n discrete Gaussians of scale σ: at every point of each of d coordinates its probability
  is within a factor e^τ of that of one discrete Gaussian of scale √n σ, where
  τ = 10 Σₖ exp(-2π²σ² k / (k+1)), k from 1 to n-1 (Kairouz, Liu and Steinke 2021, corollary 12).
  Whatever is computed for the one therefore changes by at most dτ (2α-1) / (α-1).
- Discrete Laplace, and randomised response, with pure loss ε: min(ε, αε²/2) (Bun and
  Steinke 2016, proposition 3.3).

Leaves to others: choosing between this and loss distributions (`accountant`).
"""

import math
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from privacy.accounting.events import (
    DiscreteGaussianEvent,
    DiscreteLaplaceEvent,
    DistributedDiscreteGaussianEvent,
    GaussianEvent,
    RandomisedResponseEvent,
    SampledGaussianEvent,
)

__all__ = ["Mechanism", "NormalForm", "epsilon", "sum_distance"]

Mechanism: TypeAlias = (
    GaussianEvent
    | SampledGaussianEvent
    | DiscreteLaplaceEvent
    | DiscreteGaussianEvent
    | DistributedDiscreteGaussianEvent
    | RandomisedResponseEvent
)
NormalForm: TypeAlias = tuple[tuple[Mechanism, int], ...]
"""How often each mechanism ran; each once, and each of one step."""

_ORDERS: Final[NDArray[np.float64]] = np.array(
    [*range(2, 64), *(base << shift for shift in range(3, 10) for base in range(8, 16)), 8192],
    dtype=np.float64,
)


def epsilon(form: NormalForm, delta: float) -> float:
    """Return ε such that the normal form is (ε, `delta`)-private.

    Pure losses add up, whatever they are composed with; the better of both ways counts.

    Args:
        form: mechanisms and how often each ran.
        delta: in (0, 1).
    """
    losses = [(_pure_loss(mechanism), count) for mechanism, count in form]
    others = tuple(part for part, (loss, _) in zip(form, losses, strict=True) if loss is None)
    pure = math.fsum(count * loss for loss, count in losses if loss is not None)
    return min(_converted(form, delta), pure + _converted(others, delta))


def _pure_loss(mechanism: Mechanism) -> float | None:
    """Return ε at a δ of 0; None where there is none."""
    match mechanism:
        case DiscreteLaplaceEvent():
            return mechanism.sensitivity / mechanism.scale
        case RandomisedResponseEvent():
            return mechanism.pure_loss
        case _:
            return None


def sum_distance(noise_scale: float, parties: int) -> float:
    """Return τ, by which the sum of `parties` discrete Gaussians differs from one, in nats."""
    k = np.arange(1, parties)
    return 10.0 * float(np.exp(-2.0 * (math.pi * noise_scale) ** 2 * k / (k + 1)).sum())


def _converted(form: NormalForm, delta: float) -> float:
    """Convert the divergences of a composition to ε (proposition 12)."""
    if not form:
        return 0.0
    divergence = np.sum([count * _divergence(mechanism) for mechanism, count in form], axis=0)
    found = (
        divergence
        + np.log1p(-1.0 / _ORDERS)
        - (math.log(delta) + np.log(_ORDERS)) / (_ORDERS - 1.0)
    )
    return max(0.0, float(found.min()))


@lru_cache(maxsize=1024)
def _divergence(mechanism: Mechanism) -> NDArray[np.float64]:
    """Bound the Rényi divergence of one run at every order."""
    if (pure := _pure_loss(mechanism)) is not None:
        return np.minimum(pure, 0.5 * pure**2 * _ORDERS)
    match mechanism:
        case GaussianEvent(noise_multiplier=noise) | DiscreteGaussianEvent(noise_multiplier=noise):
            return _gaussian(noise, 1.0)
        case SampledGaussianEvent(noise_multiplier=noise, sampling_probability=probability):
            return _gaussian(noise, probability)
        case DistributedDiscreteGaussianEvent():
            n = mechanism.honest_parties
            noise = math.sqrt(n) * mechanism.noise_scale / mechanism.l2_sensitivity
            apart = mechanism.dimension * sum_distance(mechanism.noise_scale, n)
            changed = apart * (2.0 * _ORDERS - 1.0) / (_ORDERS - 1.0)
            return _gaussian(noise, mechanism.sampling_probability) + changed
        case _:
            raise TypeError(f"a {type(mechanism).__name__} has no Rényi bound")


def _gaussian(noise: float, probability: float) -> NDArray[np.float64]:
    """Bound a Gaussian's divergence, sampled or not, at every order."""
    if probability == 1.0:
        return _ORDERS / (2.0 * noise**2)
    return np.array([_sampled(noise, probability, int(order)) for order in _ORDERS])


def _sampled(noise: float, probability: float, order: int) -> float:
    """Return ln A / (α - 1), A - 1 being summed from k = 2 so that a small one keeps its digits."""
    from scipy.special import gammaln, logsumexp

    k = np.arange(2, order + 1, dtype=np.float64)
    exponent = k * (k - 1.0) / (2.0 * noise**2)
    logarithms = (
        gammaln(order + 1.0)
        - gammaln(k + 1.0)
        - gammaln(order - k + 1.0)
        + (order - k) * math.log1p(-probability)
        + k * math.log(probability)
        + exponent
        + np.log(-np.expm1(-exponent))  # ln(exp(x) - 1) = x + ln(1 - exp(-x))
    )
    return float(np.logaddexp(0.0, logsumexp(logarithms))) / (order - 1.0)
