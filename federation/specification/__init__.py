"""What a job is asked to do: the part of a collaboration file that travels.

Guarantees: closed models; whatever steers privacy is here or in the signed agreement and nowhere
else, so that a party can hold one against the other (`objections`) before it computes.

Leaves to others: the noise multiplier, which each party derives itself from ε and δ, and never
takes from anybody.
"""

from typing import Annotated

from pydantic import Field

from federation.specification.columns import VerticalScoreSpec, VerticalTrainSpec
from federation.specification.expand import ExpandSpec
from federation.specification.job import ContradictoryJobError, Deadline, JobName
from federation.specification.match import AlignSpec, MatchSpec
from federation.specification.measure import MeasureSpec
from federation.specification.train import Activation, NetworkShape, TrainSpec

__all__ = [
    "Activation",
    "AlignSpec",
    "ContradictoryJobError",
    "Deadline",
    "ExpandSpec",
    "JobName",
    "JobSpec",
    "MatchSpec",
    "MeasureSpec",
    "NetworkShape",
    "TrainSpec",
    "VerticalScoreSpec",
    "VerticalSpec",
    "VerticalTrainSpec",
]

VerticalSpec = Annotated[VerticalTrainSpec | VerticalScoreSpec, Field(discriminator="kind")]
"""A job over parties' columns."""

JobSpec = Annotated[
    MatchSpec
    | AlignSpec
    | TrainSpec
    | ExpandSpec
    | MeasureSpec
    | VerticalTrainSpec
    | VerticalScoreSpec,
    Field(discriminator="kind"),
]
