"""What a joint model scores with: one kind of body for each way in which models are built.

Guarantees: closed and finite; a body that exists scores every finite row of its columns.

Leaves to others: training it (`train`, `sums`), what is said of its making (`model`).
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from compliance.terms import ModelFamily
from federation.errors import MessageError
from federation.jobs.trees_body import TreesBody
from federation.specification import NetworkShape, TrainSpec
from privacy.training.networks import Activation, Network

__all__ = [
    "LinearBody",
    "ModelBody",
    "NetworkBody",
    "TreesBody",
    "Weight",
    "check_body",
    "network_of",
]

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
        expected = network_of(self.shape, len(self.columns)).parameter_count
        if len(self.weights) != expected:
            raise ValueError(f"layers of {expected} weights, got {len(self.weights)}")
        return self

    def score(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return one score per row of encoded `features`, shape (n, columns): larger is liker."""
        network = network_of(self.shape, len(self.columns))
        return network.scores(np.asarray(self.weights), features)


def network_of(shape: NetworkShape, width: int) -> Network:
    """Return the network of that shape over `width` columns."""
    return Network(width, shape.hidden, Activation(shape.activation.value))


ModelBody = Annotated[LinearBody | NetworkBody | TreesBody, Field(discriminator="kind")]
"""Every kind of body."""

_BODIES: Final[Mapping[ModelFamily, type[LinearBody | NetworkBody | TreesBody]]] = {
    ModelFamily.LOGISTIC_REGRESSION: LinearBody,
    ModelFamily.RIDGE_REGRESSION: LinearBody,
    ModelFamily.NETWORK: NetworkBody,
    ModelFamily.BOOSTED_TREES: TreesBody,
}


def check_body(body: ModelBody, spec: TrainSpec, columns: Sequence[str]) -> None:
    """Hold a body against the job that it was trained in, and the agreed columns.

    Raises:
        MessageError: it is of another family or shape, or over other columns.
    """
    if (
        not isinstance(body, _BODIES[spec.model])
        or body.columns != tuple(columns)
        or (isinstance(body, NetworkBody) and body.shape != spec.network)
    ):
        raise MessageError(
            f"published model, {body.kind}, of another family or columns than agreed"
        )
