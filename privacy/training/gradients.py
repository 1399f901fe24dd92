"""Gradients of rows, each clipped by itself: what a model and its loss say of people, one by one.

Guarantees: no row changes another's gradient, and none weighs more than the clipping norm, whatever
it holds.

Leaves to others: sampling, noise and steps (`dp_sgd`).
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError

__all__ = ["GradientEngine", "LogisticGradient", "RidgeGradient", "check_shapes"]


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
        check_shapes(self, parameters, features, labels)
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


def check_shapes(
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
