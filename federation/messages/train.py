"""What is said in training over rows, and of the model that comes of it."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from federation.errors import MessageError
from federation.messages.vocabulary import Closed
from federation.specification import TrainSpec

__all__ = [
    "MAX_WEIGHTS",
    "ModelPublished",
    "TrainCount",
    "TrainCounted",
    "TrainRequest",
    "TrainUpdate",
    "weights_from_bytes",
    "weights_to_bytes",
]

MAX_WEIGHTS = 1_000_000


class TrainRequest(Closed):
    """Coordinator to partner: train one round from these parameters (payload: weights)."""

    kind: Literal["train.request"] = "train.request"
    spec: TrainSpec
    round: int = Field(ge=1, le=1_000)
    width: int = Field(ge=1, le=MAX_WEIGHTS)


class TrainUpdate(Closed):
    """Partner to coordinator: differentially private parameters after a round (payload)."""

    kind: Literal["train.update"] = "train.update"
    round: int = Field(ge=1, le=1_000)
    width: int = Field(ge=1, le=MAX_WEIGHTS)


class TrainCount(Closed):
    """Coordinator to partner: count your people by their score under this model (payload)."""

    kind: Literal["train.count"] = "train.count"
    spec: TrainSpec
    width: int = Field(ge=1, le=1_000_000)


class TrainCounted(Closed):
    """Partner to coordinator: seeds and others by score, each count with noise (payload)."""

    kind: Literal["train.counted"] = "train.counted"


class ModelPublished(Closed):
    """Coordinator to every party: the joint model (payload: its JSON)."""

    kind: Literal["model.published"] = "model.published"
    spec: TrainSpec


def _array(payload: bytes, dtype: str, count: int, what: str) -> NDArray[np.generic]:
    expected = count * np.dtype(dtype).itemsize
    if len(payload) != expected:
        raise MessageError(f"{what}: got {len(payload)} bytes, expected {expected}")
    return np.frombuffer(payload, dtype=dtype)


def weights_to_bytes(weights: NDArray[np.float64]) -> bytes:
    """Encode model parameters as little-endian doubles."""
    return weights.astype("<f8").tobytes()


def weights_from_bytes(payload: bytes, width: int) -> NDArray[np.float64]:
    """Decode `width` finite little-endian doubles.

    Raises:
        MessageError: wrong length, NaN or infinity.
    """
    weights = _array(payload, "<f8", width, "model parameters").astype(np.float64)
    if not np.isfinite(weights).all():
        raise MessageError("model parameters: NaN or infinite values; expected finite ones")
    return weights
