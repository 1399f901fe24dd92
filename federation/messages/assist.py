"""What is said in training and scoring over columns."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from federation.messages.vocabulary import Closed, Digest, PartyName, Place
from federation.specification import VerticalScoreSpec, VerticalSpec, VerticalTrainSpec

__all__ = [
    "AssistAsk",
    "AssistClose",
    "AssistExact",
    "AssistFitted",
    "AssistHeard",
    "AssistJoin",
    "AssistJoined",
    "AssistKeys",
    "AssistNoised",
    "AssistOpen",
    "AssistResiduals",
    "AssistScored",
    "AssistSettle",
    "AssistStanding",
]

Round = Annotated[int, Field(ge=1, le=15)]
Step = Annotated[float, Field(ge=0, le=4, allow_inf_nan=False)]


class AssistJoin(Closed):
    """Coordinator to partner: read your columns of the aligned people, and make a key."""

    kind: Literal["assist.join"] = "assist.join"
    spec: VerticalSpec


class AssistJoined(Closed):
    """Partner to coordinator: I have them. The key is for masks of sums, of this job alone."""

    kind: Literal["assist.joined"] = "assist.joined"
    key: Digest


class AssistKeys(Closed):
    """Coordinator to partner: who takes part, and their keys.

    Payload: the envelopes of their `assist.joined`, a line each, in the order of their names. In a
    scoring the answer is an `assist.scored`.
    """

    kind: Literal["assist.keys"] = "assist.keys"
    spec: VerticalSpec


class AssistOpen(Closed):
    """Coordinator to brand: read your columns and labels; from here on they are noised."""

    kind: Literal["assist.open"] = "assist.open"
    spec: VerticalTrainSpec


class AssistNoised(Closed):
    """Brand to coordinator: the labels are noised, once and for all rounds, and paid for."""

    kind: Literal["assist.noised"] = "assist.noised"


class AssistExact(Closed):
    """Brand to coordinator: the labels are used as they are; partners will learn them."""

    kind: Literal["assist.exact"] = "assist.exact"


class AssistAsk(Closed):
    """Coordinator to brand: give the residuals of a round to the partner at `place`."""

    kind: Literal["assist.ask"] = "assist.ask"
    spec: VerticalTrainSpec
    round: Round
    place: Place


class AssistResiduals(Closed):
    """Brand to partner: fit these (payload: 32-bit floats, one for each aligned person).

    Attributes:
        spec: the job.
        round: its number.
        step: taken along the sum of the round before; None in the first.
    """

    kind: Literal["assist.residuals"] = "assist.residuals"
    spec: VerticalTrainSpec
    round: Round
    step: Step | None = None


class AssistFitted(Closed):
    """Partner to brand: masked fitted values, then penalties (payload: 32-bit integers)."""

    kind: Literal["assist.fitted"] = "assist.fitted"
    spec: VerticalTrainSpec
    round: Round


class AssistStanding(StrEnum):
    """Where a training stands after a partner's part of a sum."""

    WAITING = "waiting"
    """Parts of the sum are missing."""
    MORE = "more"
    """Another sum is wanted."""
    DONE = "done"
    """No further sum is wanted."""


class AssistHeard(Closed):
    """Brand to coordinator: a partner's part of a round's sum has come."""

    kind: Literal["assist.heard"] = "assist.heard"
    round: Round
    standing: AssistStanding


class AssistClose(Closed):
    """Coordinator to brand: tell the partner at `place` how the training ended."""

    kind: Literal["assist.close"] = "assist.close"
    spec: VerticalTrainSpec
    place: Place


class AssistSettle(Closed):
    """Brand to partner: keep your part.

    Attributes:
        spec: the job.
        rounds: that there were.
        kept: rounds that a part keeps; later ones made it no better.
        step: taken along the last sum.
    """

    kind: Literal["assist.settle"] = "assist.settle"
    spec: VerticalTrainSpec
    rounds: Round
    kept: Round
    step: Step


class AssistScored(Closed):
    """Partner to brand: its masked part of everybody's score (payload: 32-bit integers).

    Attributes:
        spec: the job.
        partners: all whose parts are in the sum, in the order of their names.
    """

    kind: Literal["assist.scored"] = "assist.scored"
    spec: VerticalScoreSpec
    partners: tuple[PartyName, ...] = Field(min_length=2, max_length=1_000)
