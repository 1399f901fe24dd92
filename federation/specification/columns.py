"""What jobs over parties' columns are asked to do."""

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from compliance.canonical import is_unsaid
from federation.specification.job import Absent, Contradiction, JobName, OfAll, Spec, between
from privacy.training.learners import Learner

__all__ = ["VerticalScoreSpec", "VerticalTrainSpec"]


class VerticalTrainSpec(OfAll):
    """Train a model over what the brand and every partner know of the same people.

    Attributes:
        align: the alignment of these people.
        learner: what every party fits to its own columns.
        rounds: exchanges with each partner, at most.
        label_epsilon: privacy loss of a person's label, once for all rounds; or
        unsafe_labels: labels are used as they are, and partners learn them.
        replaces: as of a training.
    """

    WHY: ClassVar[str] = "a person's score is the sum over every party's columns"

    kind: Literal["train-vertical"] = "train-vertical"
    align: JobName
    learner: Learner = Learner.RIDGE
    rounds: int = Field(default=10, ge=1, le=15)
    label_epsilon: float | None = Field(default=None, gt=0, le=10, allow_inf_nan=False)
    unsafe_labels: bool = False
    replaces: JobName | None = Field(default=None, exclude_if=is_unsaid)

    def _contradictions(self) -> Iterator[Contradiction]:
        if (self.label_epsilon is None) is not self.unsafe_labels:
            told = "give either a label_epsilon, or unsafe_labels = true"
            yield between("label_epsilon unsafe_labels", told)


class VerticalScoreSpec(Spec):
    """Score aligned people with a model whose parts the parties hold.

    Attributes:
        train: the training that left the parts.
        align: the alignment of the people to score.
        absent_partners: partners that may be missing when it begins. Their part is then in no
            score of it, and nobody who was trained on is scored.
    """

    kind: Literal["score-vertical"] = "score-vertical"
    train: JobName
    align: JobName
    absent_partners: Absent = 0
