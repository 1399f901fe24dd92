"""What is said in a secure sum, which happens in one round of training over rows."""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from federation.messages.vocabulary import Closed
from federation.specification import TrainSpec

__all__ = ["SumAsk", "SumExact", "SumNoised", "SumPhase", "SumSaid"]


class SumPhase(StrEnum):
    """Rounds of a secure sum (`privacy.secagg`), which all happen in one round of training."""

    ADVERTISE = "advertise"
    SHARE = "share"
    MASK = "mask"
    CONFIRM = "confirm"
    UNMASK = "unmask"


class SumAsk(Closed):
    """Coordinator to partner: go on with a secure sum.

    The payload is what `privacy.secagg`'s server says; in the first phase the model's parameters,
    at which the sum is wanted.
    """

    kind: Literal["sum.ask"] = "sum.ask"
    spec: TrainSpec
    round: int = Field(ge=1, le=1_000)
    phase: SumPhase


class SumSaid(Closed):
    """Partner to coordinator: what `privacy.secagg`'s client says, of nobody (payload)."""

    kind: Literal["sum.said"] = "sum.said"
    round: int = Field(ge=1, le=1_000)
    phase: SumPhase


class SumNoised(Closed):
    """Partner to coordinator: its masked part of a sum, with its share of the noise (payload)."""

    kind: Literal["sum.noised"] = "sum.noised"
    round: int = Field(ge=1, le=1_000)


class SumExact(Closed):
    """Partner to coordinator: its masked part of a sum that protects no person (payload)."""

    kind: Literal["sum.exact"] = "sum.exact"
    round: int = Field(ge=1, le=1_000)
