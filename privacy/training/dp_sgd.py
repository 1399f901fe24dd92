"""Differentially private stochastic gradient descent (Abadi et al. 2016, Algorithm 1).

Guarantees: with person-level rows (one row a person), the sequence of all noised gradients, hence
every model made from it, is as private as `DpSgdParameters.event` says when one row is added or
removed. What it takes: every row is sampled independently, its gradient is clipped whatever the
row holds, nothing is divided by the true number of rows, and no step without noise is seen.

Leaves to others: pricing the event and charging it (`privacy.accounting`); making sure that one
person is one row here, and telling the accountant of how many such tables a person can be part of;
never giving one stream to two different inputs (`privacy.randomness`).
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from privacy.accounting.events import MAXIMUM_COUNT, SampledGaussianEvent
from privacy.errors import InvalidParameterError
from privacy.randomness import SecretStream
from privacy.training.gradients import GradientEngine, check_shapes

__all__ = [
    "DpSgdParameters",
    "UnsafeNoNoiseWarning",
    "train",
]


class UnsafeNoNoiseWarning(UserWarning):
    """Training runs without noise: the model protects nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DpSgdParameters:
    """Everything that steers a training; all of it is public.

    Attributes:
        steps: number of noised gradients, 1 to `MAXIMUM_COUNT`.
        sampling_probability: chance of each row to be in a step's sample, in (0, 1].
        clipping_norm: most that one row's gradient may weigh (L2), > 0.
        noise_multiplier: standard deviation of the noise divided by `clipping_norm`, > 0.
        learning_rate: step length, > 0.
        expected_rows: the declared, public number of rows, ≥ 1. Gradients are divided by
            ``sampling_probability * expected_rows``, because the true number is a secret.
        penalty: λ of ½λ‖w‖² beside the mean loss of a row, ≥ 0. It concerns no row and costs
            nothing.

    Raises:
        InvalidParameterError: if any is out of range.
    """

    steps: int
    sampling_probability: float
    clipping_norm: float
    noise_multiplier: float
    learning_rate: float
    expected_rows: int
    penalty: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= MAXIMUM_COUNT:
            raise InvalidParameterError(f"steps must be 1 to {MAXIMUM_COUNT}, got {self.steps}")
        if not 0.0 < self.sampling_probability <= 1.0:
            raise InvalidParameterError(
                f"sampling_probability must lie in (0, 1], got {self.sampling_probability}"
            )
        if self.expected_rows < 1:
            raise InvalidParameterError(
                f"expected_rows must be 1 or more, got {self.expected_rows}"
            )
        for name in ("clipping_norm", "noise_multiplier", "learning_rate"):
            value = getattr(self, name)
            if not 0.0 < value < math.inf:
                raise InvalidParameterError(f"{name} must be positive and finite, got {value}")
        if not 0.0 <= self.penalty < math.inf:
            raise InvalidParameterError(f"penalty must be 0 or more, finite, got {self.penalty}")

    @classmethod
    def unsafe_without_noise(
        cls,
        *,
        steps: int,
        sampling_probability: float,
        clipping_norm: float,
        learning_rate: float,
        expected_rows: int,
        penalty: float = 0.0,
    ) -> Self:
        """Make parameters that protect nobody, to see what the noise costs in a simulation.

        Rows are sampled and gradients clipped as ever; `event` raises.

        Args:
            steps: as in `DpSgdParameters`, like all that follow.
            sampling_probability: in (0, 1].
            clipping_norm: L2, > 0.
            learning_rate: step length, > 0.
            expected_rows: declared, ≥ 1.
            penalty: λ, ≥ 0.

        Raises:
            InvalidParameterError: if any is out of range.

        Warns:
            UnsafeNoNoiseWarning: always.
        """
        warnings.warn(
            "training without noise protects nobody: use it on public or made-up data only",
            UnsafeNoNoiseWarning,
            stacklevel=2,
        )
        parameters = cls(
            steps=steps,
            sampling_probability=sampling_probability,
            clipping_norm=clipping_norm,
            noise_multiplier=1.0,
            learning_rate=learning_rate,
            expected_rows=expected_rows,
            penalty=penalty,
        )
        object.__setattr__(parameters, "noise_multiplier", 0.0)
        return parameters

    @property
    def event(self) -> SampledGaussianEvent:
        """What a training with these parameters releases, for the accountant.

        Raises:
            InvalidParameterError: without noise there is no such statement.
        """
        return SampledGaussianEvent(
            noise_multiplier=self.noise_multiplier,
            sampling_probability=self.sampling_probability,
            steps=self.steps,
        )


def train(
    engine: GradientEngine,
    initial: NDArray[np.float64],
    features: NDArray[np.float64],
    labels: NDArray[np.float64],
    parameters: DpSgdParameters,
    stream: SecretStream,
    *,
    on_step: Callable[[int, int], None] | None = None,
) -> NDArray[np.float64]:
    """Train with clipped, noised gradients of Poisson samples.

    Averaging the iterates of the last half of the steps steadies the model and costs nothing,
    because all of them may be released (post-processing).

    Args:
        engine: the model and its loss.
        initial: start, shape (`engine.parameter_count`,); not made from these rows, or paid for.
        features: shape (n, width), finite, one row a person; n may be 0.
        labels: shape (n,), finite.
        parameters: what was charged.
        stream: decides samples and noise; never used with other inputs, and secret for ever.
        on_step: told (steps done, steps) after each step.

    Returns:
        Average of the parameters after each step of the last half. The same stream and inputs
        give the same result.

    Raises:
        InvalidParameterError: if shapes do not fit or a value is not finite.
    """
    check_shapes(engine, initial, features, labels)
    for name, values in (("initial", initial), ("features", features), ("labels", labels)):
        broken = len(values) - np.isfinite(values).all(axis=tuple(range(1, values.ndim))).sum()
        if broken:
            raise InvalidParameterError(
                f"{name} must be finite, got {broken} rows that are not: encode them first"
            )
    current = initial.astype(np.float64)
    average = np.zeros_like(current)
    averaged = parameters.steps - parameters.steps // 2
    noise = parameters.noise_multiplier * parameters.clipping_norm
    expected_sample = parameters.sampling_probability * parameters.expected_rows
    for step in range(1, parameters.steps + 1):
        sample = np.flatnonzero(stream.bernoulli(parameters.sampling_probability, len(features)))
        gradient = engine.clipped_gradient_sum(
            current, features[sample], labels[sample], parameters.clipping_norm
        )
        gradient = gradient + noise * stream.standard_normal(len(current))
        slope = gradient / expected_sample + parameters.penalty * current
        current = current - parameters.learning_rate * slope
        if step > parameters.steps - averaged:
            average += current / averaged
        if on_step is not None:
            on_step(step, parameters.steps)
    return average
