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
from enum import StrEnum
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from privacy.accounting.events import MAXIMUM_COUNT, SampledGaussianEvent
from privacy.errors import InvalidParameterError
from privacy.randomness import SecretStream

__all__ = [
    "DpSgdParameters",
    "GradientEngine",
    "LogisticGradient",
    "ModuleClipping",
    "ModuleGradient",
    "RidgeGradient",
    "UnsafeNoNoiseWarning",
    "train",
]

_ROWS_AT_ONCE = 1024  # bounds the memory of per-row gradients, changes no result


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


class GradientEngine(Protocol):
    """Sums the clipped gradients of rows under some model and loss."""

    @property
    def parameter_count(self) -> int:
        """Length of the model's flat parameter vector."""
        ...

    def clipped_gradient_sum(
        self,
        parameters: NDArray[np.float64],
        features: NDArray[np.float64],
        labels: NDArray[np.float64],
        clipping_norm: float,
    ) -> NDArray[np.float64]:
        """Return Σ gᵢ · min(1, `clipping_norm` / ‖gᵢ‖), where gᵢ is row i's gradient alone.

        No row may change another's gᵢ. A gradient that is not finite counts as 0.

        Args:
            parameters: shape (`parameter_count`,).
            features: shape (n, width), finite; n may be 0.
            labels: shape (n,), finite.
            clipping_norm: > 0.

        Returns:
            Shape (`parameter_count`,).

        Raises:
            InvalidParameterError: if a shape does not fit the model.
        """
        ...


class _LinearGradient:
    """A loss of xᵢ·w and yᵢ: row i's gradient is some residual times xᵢ.

    Its norm is |residual| ‖xᵢ‖, so that no per-row gradient is ever built.

    Args:
        width: number of features; the constant column among them is the intercept.
    """

    def __init__(self, width: int) -> None:
        if width < 1:
            raise InvalidParameterError(f"a model needs 1 feature or more, got {width}")
        self._width = width

    @property
    def parameter_count(self) -> int:
        """One weight for each feature."""
        return self._width

    def clipped_gradient_sum(
        self,
        parameters: NDArray[np.float64],
        features: NDArray[np.float64],
        labels: NDArray[np.float64],
        clipping_norm: float,
    ) -> NDArray[np.float64]:
        """Sum the clipped gradients (see `GradientEngine`)."""
        _check_shapes(self, parameters, features, labels)
        if features.shape[1] != self._width:
            raise InvalidParameterError(
                f"expected {self._width} features a row, got {features.shape[1]}"
            )
        with np.errstate(over="ignore", invalid="ignore"):
            residuals = self._residuals(features @ parameters, labels)
            norms = np.abs(residuals) * np.sqrt(np.einsum("ij,ij->i", features, features))
            weights = residuals * (clipping_norm / np.maximum(norms, clipping_norm))
        return np.where(np.isfinite(weights), weights, 0.0) @ features

    def _residuals(
        self, scores: NDArray[np.float64], labels: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the derivative of each row's loss by its score."""
        raise NotImplementedError


class LogisticGradient(_LinearGradient):
    """Logistic regression in closed form: row i's gradient is vᵢ (sigmoid(xᵢ·w) - yᵢ) xᵢ.

    Labels are in [0, 1].

    Args:
        width: number of features.
        unlabelled_weight: vᵢ of a row whose label is 0, in (0, 1]; all others weigh 1. A clipped
            gradient weighs no more for it.

    Raises:
        InvalidParameterError: if a number is out of range.
    """

    def __init__(self, width: int, *, unlabelled_weight: float = 1.0) -> None:
        super().__init__(width)
        if not 0.0 < unlabelled_weight <= 1.0:
            raise InvalidParameterError(
                f"expected an unlabelled_weight in (0, 1], got {unlabelled_weight}"
            )
        self._unlabelled_weight = unlabelled_weight

    def _residuals(
        self, scores: NDArray[np.float64], labels: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        residuals = 0.5 * (1.0 + np.tanh(0.5 * scores)) - labels
        return np.where(labels == 0.0, self._unlabelled_weight * residuals, residuals)


class RidgeGradient(_LinearGradient):
    """Ridge regression in closed form: row i's gradient is (xᵢ·w - yᵢ) xᵢ, of ½(xᵢ·w - yᵢ)².

    The ridge itself is `DpSgdParameters.penalty`, because it is of no row. Labels are any numbers;
    scale them to about 1, the size of a clipping norm.
    """

    def _residuals(
        self, scores: NDArray[np.float64], labels: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        return scores - labels


class ModuleClipping(StrEnum):
    """How a module's gradients are clipped row by row; the sums are the same."""

    GHOST = "ghost"
    """Norms from activations and their gradients, sums by a second pass (Li et al. 2022, Bu et al.
    2022): no row's gradient is built where the layer allows, which most do."""
    PER_ROW = "per-row"
    """Every row's whole gradient in memory: for modules that share parameters between layers."""


class ModuleGradient:
    """Any torch module whose rows do not mix, differentiated row by row by Opacus.

    Args:
        module_factory: makes the module (``torch.nn.Module``); the weights it
            starts with are replaced, frozen ones kept.
        loss: takes the module's outputs and the labels of n rows (torch tensors, float64) and
            returns n losses, one a row. A loss that averages over rows would let each row change
            the others' gradients, so it is refused.
        clipping: how; for most modules ghost clipping is faster, often by far.

    Raises:
        InvalidParameterError: if Opacus refuses the module (batch normalisation mixes rows), if it
            draws randomness of its own (dropout), or if it has nothing to train.
    """

    def __init__(
        self,
        module_factory: Callable[[], Any],
        loss: Callable[[Any, Any], Any],
        *,
        clipping: ModuleClipping = ModuleClipping.GHOST,
    ) -> None:
        import torch
        from opacus import GradSampleModule
        from opacus.grad_sample import GradSampleModuleFastGradientClipping
        from opacus.validators import ModuleValidator

        torch.set_num_threads(1)  # two threads are slower on these small matrices
        module = module_factory().double().train()
        mistakes = ModuleValidator.validate(module, strict=False)
        if mistakes:
            raise InvalidParameterError(
                f"{type(module).__name__} cannot be trained privately: "
                f"{'; '.join(str(mistake) for mistake in mistakes)}"
            )
        nn = torch.nn
        random_parts = (
            *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
            *(nn.AlphaDropout, nn.FeatureAlphaDropout, nn.RReLU),
        )
        if any(isinstance(part, random_parts) for part in module.modules()):
            raise InvalidParameterError(
                f"{type(module).__name__} draws randomness of its own, which no secret stream can "
                "repeat: remove the dropout, the noise regularises enough"
            )
        wrapper = (
            GradSampleModuleFastGradientClipping
            if clipping is ModuleClipping.GHOST
            else GradSampleModule
        )
        try:
            self._module = wrapper(module, loss_reduction="sum")
        except NotImplementedError as error:
            raise InvalidParameterError(
                f"{type(module).__name__} cannot be trained privately: {error}"
            ) from error
        self._trained = [p for p in self._module.parameters() if p.requires_grad]
        if not self._trained:
            raise InvalidParameterError(f"{type(module).__name__} has no parameter to train")
        self._loss = loss
        self._clipping = clipping

    @property
    def parameter_count(self) -> int:
        """All trainable parameters, flattened in the module's order."""
        return sum(parameter.numel() for parameter in self._trained)

    def clipped_gradient_sum(
        self,
        parameters: NDArray[np.float64],
        features: NDArray[np.float64],
        labels: NDArray[np.float64],
        clipping_norm: float,
    ) -> NDArray[np.float64]:
        """Sum the clipped gradients (see `GradientEngine`)."""
        import torch
        from torch.nn.utils import vector_to_parameters

        _check_shapes(self, parameters, features, labels)
        vector_to_parameters(torch.from_numpy(parameters.copy()), self._trained)
        part_of = self._ghost_part if self._clipping is ModuleClipping.GHOST else self._per_row_part
        total = np.zeros(self.parameter_count)
        for start in range(0, len(features), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            total += part_of(features[rows], labels[rows], clipping_norm)
        return total

    def _per_row_part(
        self, features: NDArray[np.float64], labels: NDArray[np.float64], clipping_norm: float
    ) -> NDArray[np.float64]:
        """Build every row's gradient, clip and add them."""
        self._losses(features, labels).sum().backward()
        gradients = np.concatenate(
            [
                np.zeros((len(features), parameter.numel()))
                if parameter.grad_sample is None
                else parameter.grad_sample.reshape(len(features), -1).numpy()
                for parameter in self._trained
            ],
            axis=1,
        )
        with np.errstate(over="ignore", invalid="ignore"):
            norms = np.linalg.norm(gradients, axis=1)
        finite = np.isfinite(norms)
        weights = clipping_norm / np.maximum(norms[finite], clipping_norm)
        clipped: NDArray[np.float64] = weights @ gradients[finite]
        return clipped

    def _ghost_part(
        self, features: NDArray[np.float64], labels: NDArray[np.float64], clipping_norm: float
    ) -> NDArray[np.float64]:
        """Find every row's norm in one pass, and the sum of weighted losses' gradients in another.

        A row whose gradient is not finite is left out of the second pass, in which 0 times it
        would not be 0.
        """
        import torch

        for parameter in self._trained:
            parameter._norm_sample = None  # noqa: SLF001 - where Opacus leaves the norms
        try:
            losses = self._losses(features, labels)
        except NotImplementedError as error:
            raise InvalidParameterError(
                f"ghost clipping cannot do this module ({error}): use ModuleClipping.PER_ROW"
            ) from error
        losses.sum().backward(retain_graph=True)
        found = [parameter._norm_sample for parameter in self._trained]  # noqa: SLF001
        squares = [norms.detach().reshape(-1).square() for norms in found if norms is not None]
        norms = torch.stack(squares).sum(dim=0).sqrt() if squares else torch.zeros(len(features))
        finite = torch.isfinite(norms)
        weights = clipping_norm / norms[finite].clamp(min=clipping_norm)
        self._module.disable_hooks()
        try:
            if not bool(finite.all()):
                losses = self._losses(features[finite.numpy()], labels[finite.numpy()])
            self._module.zero_grad(set_to_none=True)
            (weights * losses).sum().backward()
        finally:
            self._module.enable_hooks()
        return np.concatenate(
            [
                np.zeros(parameter.numel())
                if parameter.grad is None
                else parameter.grad.reshape(-1).numpy()
                for parameter in self._trained
            ]
        )

    def _losses(self, features: NDArray[np.float64], labels: NDArray[np.float64]) -> Any:
        """Return every row's loss, a tensor of shape (n,) that can be differentiated."""
        import torch

        self._module.zero_grad(set_to_none=True)
        # Opacus' hooks on the first layer want an input that is differentiated too.
        inputs = torch.from_numpy(features).requires_grad_()
        try:
            losses = self._loss(self._module(inputs), torch.from_numpy(labels))
        except NotImplementedError:
            raise
        except RuntimeError as error:
            raise InvalidParameterError(
                f"expected rows that the module and its loss take, got {features.shape[1]} "
                "features a row"
            ) from error
        if losses.shape != (len(features),):
            raise InvalidParameterError(
                f"the loss must return one number a row, shape ({len(features)},), got "
                f"{tuple(losses.shape)}: use reduction='none' and one output a row"
            )
        return losses


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
    _check_shapes(engine, initial, features, labels)
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


def _check_shapes(
    engine: GradientEngine,
    parameters: NDArray[np.float64],
    features: NDArray[np.float64],
    labels: NDArray[np.float64],
) -> None:
    """Refuse arrays that do not belong together."""
    if parameters.shape != (engine.parameter_count,):
        raise InvalidParameterError(
            f"expected parameters of shape ({engine.parameter_count},), got {parameters.shape}"
        )
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise InvalidParameterError(
            f"expected features (n, width) and labels (n,), got {features.shape} and {labels.shape}"
        )
