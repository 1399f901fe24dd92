"""Small feed-forward networks, described by numbers alone: never by anybody's code.

Guarantees: the same description and parameters give the same scores in numpy, which is all that
scoring takes, as in the torch module that is trained.

Leaves to others: clipping and noise (`dp_sgd`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError
from privacy.randomness import SecretStream
from privacy.training.module_gradient import ModuleGradient

__all__ = ["Activation", "Network"]


class Activation(StrEnum):
    """What bends the outputs of hidden layers."""

    RELU = "relu"
    TANH = "tanh"


@dataclass(frozen=True)
class Network:
    """Linear layers, an activation after each but the last, and one output: a logit.

    Its flat parameters are those of torch: of each layer in turn its matrix, shape (outputs,
    inputs), row by row, and its biases.

    Attributes:
        width: features of a row, ≥ 1.
        hidden: outputs of each hidden layer, one or more of them, each ≥ 1.
        activation: after each of them.

    Raises:
        InvalidParameterError: if any is out of range.
    """

    width: int
    hidden: tuple[int, ...]
    activation: Activation = Activation.TANH

    def __post_init__(self) -> None:
        if not self.hidden or min(self.width, *self.hidden) < 1:
            raise InvalidParameterError(
                "a network needs a hidden layer or more, and 1 input or more of each layer, got "
                f"{self.width} features and hidden layers {self.hidden}"
            )

    @property
    def layers(self) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of each layer."""
        return tuple(pairwise((self.width, *self.hidden, 1)))

    @property
    def parameter_count(self) -> int:
        """Length of the flat parameter vector."""
        return sum((inputs + 1) * outputs for inputs, outputs in self.layers)

    def initial(self, stream: SecretStream) -> NDArray[np.float64]:
        """Draw parameters to start from (Glorot and Bengio 2010, equation 16); biases are 0."""
        parts = []
        for inputs, outputs in self.layers:
            limit = np.sqrt(6.0 / (inputs + outputs))
            parts += [limit * (2.0 * stream.uniform(inputs * outputs) - 1.0), np.zeros(outputs)]
        return np.concatenate(parts)

    def scores(
        self, parameters: NDArray[np.float64], features: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the logit of each row.

        Args:
            parameters: shape (`parameter_count`,).
            features: shape (n, width).

        Raises:
            InvalidParameterError: if a shape does not fit.
        """
        if parameters.shape != (self.parameter_count,) or features.shape[1:] != (self.width,):
            raise InvalidParameterError(
                f"expected parameters ({self.parameter_count},) and features (n, {self.width}), "
                f"got {parameters.shape} and {features.shape}"
            )
        values = features
        for number, (matrix, biases) in enumerate(self._split(parameters), start=1):
            values = values @ matrix.T + biases
            if number < len(self.layers):
                relu = self.activation is Activation.RELU
                values = np.maximum(values, 0.0) if relu else np.tanh(values)
        return values[:, 0]

    def gradient(self) -> ModuleGradient:
        """Return what sums its clipped gradients of the logistic loss; labels are in [0, 1]."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        return ModuleGradient(
            self._module,
            lambda outputs, labels: binary_cross_entropy_with_logits(
                outputs.squeeze(-1), labels, reduction="none"
            ),
        )

    def _split(
        self, parameters: NDArray[np.float64]
    ) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Yield the matrix and the biases of each layer."""
        begin = 0
        for inputs, outputs in self.layers:
            middle = begin + inputs * outputs
            matrix = parameters[begin:middle].reshape(outputs, inputs)
            begin = middle + outputs
            yield matrix, parameters[middle:begin]

    def _module(self) -> Any:
        from torch import nn

        bend = nn.ReLU if self.activation is Activation.RELU else nn.Tanh
        layers: list[Any] = []
        for inputs, outputs in self.layers:
            layers += [nn.Linear(inputs, outputs), bend()]
        return nn.Sequential(*layers[:-1])
