"""What a joint model scores with: one kind of body for each way in which models are built.

Guarantees: closed and finite; a body that exists scores every finite row of its columns.

Leaves to others: training it (`train`, `sums`), what is said of its making (`model`).
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from compliance.terms import ModelFamily
from federation.errors import MessageError
from federation.specification import Activation, NetworkShape, TrainSpec

__all__ = ["LinearBody", "ModelBody", "NetworkBody", "Weight", "check_body", "network_layers"]

Weight = Annotated[float, Field(allow_inf_nan=False)]


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: Annotated[tuple[str, ...], Field(min_length=1)]


class LinearBody(_Body):
    """A weighted sum of the columns.

    Attributes:
        columns: name of each encoded column.
        weights: one weight per encoded column.
    """

    kind: Literal["linear"] = "linear"
    weights: tuple[Weight, ...]

    @model_validator(mode="after")
    def _weighs_its_columns(self) -> Self:
        if len(self.weights) != len(self.columns):
            raise ValueError(f"{len(self.columns)} columns, {len(self.weights)} weights")
        return self

    def score(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return one score per row of encoded `features`, shape (n, columns): larger is liker."""
        scores: NDArray[np.float64] = features @ np.asarray(self.weights)
        return scores


def network_layers(width: int, shape: NetworkShape) -> tuple[tuple[int, int], ...]:
    """Return (inputs, outputs) of every layer of a network over `width` columns."""
    return tuple(pairwise((width, *shape.hidden, 1)))


class NetworkBody(_Body):
    """A feed-forward network with one output.

    Attributes:
        columns: name of each encoded column.
        shape: its hidden layers.
        weights: of each layer in turn its matrix (outputs, inputs), row by row, and its biases.
    """

    kind: Literal["network"] = "network"
    shape: NetworkShape
    weights: tuple[Weight, ...]

    @model_validator(mode="after")
    def _fills_its_layers(self) -> Self:
        layers = network_layers(len(self.columns), self.shape)
        if (expected := sum((i + 1) * o for i, o in layers)) != len(self.weights):
            raise ValueError(f"layers of {expected} weights, got {len(self.weights)}")
        return self

    def score(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return one score per row of encoded `features`, shape (n, columns): larger is liker."""
        weights, begin, values = np.asarray(self.weights), 0, features
        layers = network_layers(len(self.columns), self.shape)
        for number, (inputs, outputs) in enumerate(layers, start=1):
            middle, end = begin + inputs * outputs, begin + (inputs + 1) * outputs
            values = values @ weights[begin:middle].reshape(outputs, inputs).T + weights[middle:end]
            begin = end
            if number < len(layers):
                relu = self.shape.activation is Activation.RELU
                values = np.maximum(values, 0.0) if relu else np.tanh(values)
        return values[:, 0]


ModelBody = Annotated[LinearBody | NetworkBody, Field(discriminator="kind")]
"""Every kind of body."""

_BODIES: Final[Mapping[ModelFamily, type[_Body]]] = {
    ModelFamily.LOGISTIC_REGRESSION: LinearBody,
}


def check_body(body: ModelBody, spec: TrainSpec, columns: Sequence[str]) -> None:
    """Hold a body against the job that it was trained in, and the agreed columns.

    Raises:
        MessageError: it is of another family, or over other columns.
    """
    if not isinstance(body, _BODIES[spec.model]) or body.columns != tuple(columns):
        raise MessageError(
            f"published model, {body.kind}, of another family or columns than agreed"
        )
