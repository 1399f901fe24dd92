"""What a job is asked to do: the part of a collaboration file that travels.

Guarantees: closed models; whatever steers privacy is here or in the signed agreement and nowhere
else, so that a party can hold one against the other (`objections`) before it computes.

Leaves to others: the noise multiplier, which each party derives itself from ε and δ, and never
takes from anybody.
"""

import math
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    model_validator,
)

from compliance.canonical import is_unsaid
from compliance.terms import (
    CountNoise,
    Labels,
    MatchProtocol,
    ModelFamily,
    NoiseSource,
    unique,
)
from privacy.training.learners import Learner

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

_BASE_BYTES = 320 << 20  # interpreter, libraries and Flower; measured, see docs/scale.md
_BYTES_PER_POINT = 512  # points, tags, and their copies on the way; measured
_LARGEST_BUCKET_BITS = 20
_LINKED_BASE_BYTES = 480 << 20  # that, and the program in its own environment; measured likewise
_LINKED_BYTES_PER_POINT = 1_400  # its tables, its files in memory, and ours; measured
_LINKED_LEAST_BYTES = 768 << 20

_ROUNDS: Final[Mapping[NoiseSource, int]] = {
    NoiseSource.LOCAL: 1,
    NoiseSource.DISTRIBUTED: 10,
    NoiseSource.UNSAFE_NONE: 10,  # at most: it ends when a round gains nothing
}
_TREES: Final = ModelFamily.BOOSTED_TREES
_SUMMED: Final = frozenset({ModelFamily.LOGISTIC_REGRESSION, _TREES})
_EXACT_TREE_ROUNDS: Final = 73  # twelve steps of depth 6
_LOCAL_ONLY: Final = ("steps", "sampling_probability", "learning_rate", "penalty")
_WHO_MAY_MISS_SUMS: Final[Mapping[NoiseSource, str]] = {
    NoiseSource.DISTRIBUTED: "train.absent_partners of the agreement says how many may be missing",
    NoiseSource.UNSAFE_NONE: "of two exact sums, one without a partner, the difference is its part",
}
_LEFT_OUT: Final[Mapping[ModelFamily, Mapping[str, float]]] = {
    ModelFamily.LOGISTIC_REGRESSION: {},
    ModelFamily.RIDGE_REGRESSION: {"learning_rate": 3.0, "penalty": 1e-3},
    ModelFamily.NETWORK: {"learning_rate": 10.0},
    ModelFamily.BOOSTED_TREES: {},
}
"""What suits a family where a job says nothing else; measured, see docs/training.md."""

JobName = Annotated[
    str,
    Field(
        pattern=r"^[a-z][a-z0-9-]{0,31}$",
        description="up to 32 lower-case letters, digits and hyphens, a letter first",
    ),
]


Absent = Annotated[int, Field(ge=0, lt=1_000, exclude_if=is_unsaid)]
"""Partners that a job goes on without: its quorum is all the others."""


Deadline = Annotated[int, Field(ge=1, le=7 * 86_400)]
"""Seconds that the answers of one exchange of a job are waited for, and parties before it."""


class Contradiction(NamedTuple):
    """What cannot be in a job, though each of these keys is well-formed by itself."""

    keys: frozenset[str]
    told: str


def _between(keys: str, told: str) -> Contradiction:
    return Contradiction(frozenset(keys.split()), told)


class ContradictoryJobError(ValueError):
    """A job contradicts itself; holds every contradiction, for whoever explains it."""

    def __init__(self, found: tuple[Contradiction, ...]) -> None:
        super().__init__("; ".join(one.told for one in found))
        self.found = found


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: JobName
    deadline_seconds: Deadline | None = Field(default=None, exclude_if=is_unsaid)

    @property
    def patience_seconds(self) -> float:
        """How long its parties, and their answers, are waited for; infinite where left out."""
        return math.inf if self.deadline_seconds is None else self.deadline_seconds

    @model_validator(mode="after")
    def _does_not_contradict_itself(self) -> Self:
        if found := tuple(self._contradictions()):
            raise ContradictoryJobError(found)
        return self

    def _contradictions(self) -> Iterator[Contradiction]:
        """Yield everything in which the job's keys contradict each other."""
        yield from ()


class _OfAll(_Spec):
    """A job that can do without nobody."""

    WHY: ClassVar[str]

    @model_validator(mode="before")
    @classmethod
    def _goes_on_without_nobody(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and "absent_partners" in data:
            raise ValueError(f"has no absent_partners, since {cls.WHY}: leave it out")
        return data


class _Bucketed(_Spec):
    memory_limit: ByteSize = Field(default=ByteSize(1 << 30), ge=512 << 20, le=1 << 40)

    @property
    def bucket_points(self) -> int:
        """Points of the larger set in a bucket, so many that a party stays within the limit."""
        room = (self.memory_limit - _BASE_BYTES) // _BYTES_PER_POINT
        return 1 << min(room.bit_length() - 1, _LARGEST_BUCKET_BITS)


class MatchSpec(_Bucketed):
    """Find out who of the brand's and each partner's people are the same.

    Attributes:
        memory_limit: bytes that a party's process may take while it matches, 512 MiB to 1 TiB; a
            text such as `"1GiB"` is read too; at least 768 MiB with rr22, whose program counts.
        protocol: by which it is computed, one that the agreement allows.
        absent_partners: partners that the match goes on without; none over a direct link. Who was
            missing has no members, and jobs that use the match go on without them too.
    """

    kind: Literal["match"] = "match"
    protocol: MatchProtocol = MatchProtocol.ECDH
    absent_partners: Absent = 0

    @property
    def is_direct(self) -> bool:
        """Whether the two sides match over a direct link of theirs."""
        return self.protocol is MatchProtocol.RR22

    @property
    def bucket_points(self) -> int:
        """Points of the larger set in a bucket, so many that a party stays within the limit."""
        if not self.is_direct:
            return super().bucket_points
        room = (self.memory_limit - _LINKED_BASE_BYTES) // _LINKED_BYTES_PER_POINT
        return 1 << min(room.bit_length() - 1, _LARGEST_BUCKET_BITS)

    def _contradictions(self) -> Iterator[Contradiction]:
        if self.is_direct and self.memory_limit < _LINKED_LEAST_BYTES:
            yield _between(
                "protocol memory_limit",
                "protocol 'rr22' needs a memory_limit of at least 768MiB: give it more, or match "
                "by 'ecdh'",
            )
        if self.is_direct and self.absent_partners:
            yield _between(
                "protocol absent_partners",
                "protocol 'rr22' has no absent_partners: both ends of a link have to be there at "
                "once, at most three times for a bucket: leave it out, or match by 'ecdh'",
            )


class AlignSpec(_Bucketed, _OfAll):
    """Find the people whom all data parties know, for all of them, in one order.

    Attributes:
        memory_limit: as in a match.
    """

    WHY: ClassVar[str] = "an alignment is of the people whom every party knows"

    kind: Literal["align"] = "align"


class Activation(StrEnum):
    """What bends the outputs of a network's hidden layers."""

    RELU = "relu"
    TANH = "tanh"


class NetworkShape(BaseModel):
    """The hidden layers of a feed-forward network.

    Attributes:
        hidden: neurons of each, 1 to 4 layers of up to 256.
        activation: of each of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden: Annotated[
        tuple[Annotated[int, Field(ge=1, le=256)], ...],
        Field(min_length=1, max_length=4),
        BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
    ]
    activation: Activation = Activation.TANH


class TrainSpec(_Spec):
    """Train one joint model on the partners' rows, the matched people being the positives.

    Attributes:
        match: the match job whose members are the positives.
        model: family of the model, one that the agreement allows; by secure sums, logistic
            regression or boosted trees, and these only so.
        network: hidden layers of a network, and of nothing else.
        noise: who adds the noise.
        epsilon: privacy loss per person over all parties and rounds; left out without noise.
        delta: its failure probability, likewise.
        rounds: how often the partners' models are averaged, which divides `steps` (1 where left
            out); or secure sums: 10 where left out, at most that many without noise; 73 for
            boosted trees without noise, one and `depth` for each step.
        depth: questions from the root of a boosted tree to a leaf.
        steps: gradient steps at each partner, over all rounds; of local noise only, as are:
        sampling_probability: chance of a row to enter a step (Poisson sampling).
        learning_rate: step length on the noised mean gradient; where left out 20 for logistic
            regression, 3 for ridge regression, 10 for networks.
        penalty: λ of ½λ‖w‖² beside the mean loss of a row; where left out 0.001 for ridge
            regression, 0 for others.
        labels: what it means that somebody is no seed; `seeds-only` takes local noise and
            logistic regression.
        absent_partners: partners that a training with local noise goes on without. Of secure sums
            the agreement says how many may be missing, since noise counts on the others.
        replaces: the training whose model is retired where this one leaves its own; in all else
            this one asks for the same.
    """

    kind: Literal["train"] = "train"
    match: JobName
    model: ModelFamily = ModelFamily.LOGISTIC_REGRESSION
    network: NetworkShape | None = None
    noise: NoiseSource = NoiseSource.LOCAL
    epsilon: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    delta: float | None = Field(default=None, gt=0, lt=1, allow_inf_nan=False)
    rounds: int = Field(default=1, ge=1, le=1_000)
    steps: int = Field(default=300, ge=2, le=100_000)
    sampling_probability: float = Field(default=0.2, gt=0, le=1, allow_inf_nan=False)
    learning_rate: float = Field(default=20.0, gt=0, le=1_000, allow_inf_nan=False)
    penalty: float = Field(default=0.0, ge=0, le=1, allow_inf_nan=False)
    labels: Labels = Labels.COMPLETE
    depth: int = Field(default=6, ge=1, le=10)
    absent_partners: Absent = 0
    replaces: JobName | None = Field(default=None, exclude_if=is_unsaid)

    @model_validator(mode="before")
    @classmethod
    def _left_out(cls, data: Any) -> Any:
        """Fill in what suits the kind of noise and the family."""
        if not isinstance(data, Mapping):
            return data
        try:
            rounds = _ROUNDS[NoiseSource(data.get("noise", NoiseSource.LOCAL))]
            family = ModelFamily(data.get("model", ModelFamily.LOGISTIC_REGRESSION))
            if (family, data.get("noise")) == (ModelFamily.BOOSTED_TREES, NoiseSource.UNSAFE_NONE):
                rounds = _EXACT_TREE_ROUNDS
        except ValueError:  # no such noise or family, which its own field says best
            return data
        return {"rounds": rounds, **_LEFT_OUT[family], **data}

    def _contradictions(self) -> Iterator[Contradiction]:
        yield from self._of_family()
        yield from self._of_noise()
        linear = self.model is ModelFamily.LOGISTIC_REGRESSION
        if self.labels is Labels.SEEDS_ONLY and not (linear and self.noise is NoiseSource.LOCAL):
            yield _between(
                "labels model noise",
                f"labels 'seeds-only' take model {ModelFamily.LOGISTIC_REGRESSION.value!r} and "
                f"noise {NoiseSource.LOCAL.value!r}",
            )

    def _of_family(self) -> Iterator[Contradiction]:
        is_network = self.model is ModelFamily.NETWORK
        if (self.network is not None) is not is_network:
            what = "needs" if is_network else "has no"
            yield _between(
                "model network",
                f"model {self.model.value!r} {what} network, its hidden layers",
            )
        is_local, is_trees = self.noise is NoiseSource.LOCAL, self.model is _TREES
        if is_trees if is_local else self.model not in _SUMMED:
            others = [
                noise for noise in NoiseSource if (noise is not NoiseSource.LOCAL) is is_trees
            ]
            yield _between(
                "model noise",
                f"model {self.model.value!r} is trained with noise "
                f"{' or '.join(repr(noise.value) for noise in others)} alone: ask for that, or for "
                f"model {ModelFamily.LOGISTIC_REGRESSION.value!r}",
            )
        if not is_trees and self.depth != type(self).model_fields["depth"].default:
            yield _between("model depth", f"model {self.model.value!r} has no depth: leave it out")
        if is_trees and self.noise is NoiseSource.UNSAFE_NONE and self.rounds <= self.depth:
            yield _between(
                "model noise rounds depth",
                f"trees of depth {self.depth} take {self.depth + 1} rounds or more without noise, "
                f"got {self.rounds}",
            )

    def _of_noise(self) -> Iterator[Contradiction]:
        named, private = f"noise {self.noise.value!r}", self.noise is not NoiseSource.UNSAFE_NONE
        for name in ("epsilon", "delta"):
            if (getattr(self, name) is None) is private:
                what = f"needs {name}: add it" if private else f"has no {name}: leave it out"
                yield _between(f"noise {name}", f"{named} {what}")
        if self.noise is NoiseSource.LOCAL:
            return
        if self.absent_partners:
            why = _WHO_MAY_MISS_SUMS[self.noise]
            told = f"{named} has no absent_partners: {why}: leave it out"
            yield _between("noise absent_partners", told)
        for name in _LOCAL_ONLY:
            if getattr(self, name) != type(self).model_fields[name].default:
                yield _between(f"noise {name}", f"{named} has no {name}: leave it out")

    @property
    def promise(self) -> tuple[float, float]:
        """(ε, δ) that the job promises each person; infinite and 1 without noise."""
        if self.epsilon is None or self.delta is None:
            return math.inf, 1.0
        return self.epsilon, self.delta

    @property
    def steps_per_round(self) -> int:
        """Gradient steps between two averagings."""
        return self.steps // self.rounds


class ExpandSpec(_Spec):
    """Keep, at each partner, the best-scored of its people who are not seeds.

    Attributes:
        train: the training job whose model scores.
        share: so many of the partner's eligible people, in (0, 1]; or
        size: so many people, fewer where the agreement's share of its people are fewer.
        absent_partners: partners that it goes on without; they have no segment of it.
    """

    kind: Literal["expand"] = "expand"
    train: JobName
    share: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False)
    size: int | None = Field(default=None, ge=1, le=1 << 32)
    absent_partners: Absent = 0

    def _contradictions(self) -> Iterator[Contradiction]:
        if (self.share is None) == (self.size is None):
            yield _between("share size", "give either share, or size")

    @property
    def measure(self) -> str:
        """What is asked for, in words."""
        if self.size is not None:
            return f"{self.size:,} people"
        return f"{self.share or 0.0:.0%} of its people"


class MeasureSpec(_Spec):
    """Count members, and all others, at each partner, by cells of agreed columns, with noise.

    Attributes:
        match: the match job whose members are counted.
        columns: one to three of the agreed ones; a cell is a combination of what they hold.
        noise: what blurs each count.
        epsilon: privacy loss per person over all partners.
        delta: its failure probability; of discrete Gaussian noise alone.
        absent_partners: partners that it goes on without; their people are in no count.
    """

    kind: Literal["measure"] = "measure"
    match: JobName
    columns: Annotated[tuple[str, ...], Field(min_length=1, max_length=3), AfterValidator(unique)]
    noise: CountNoise = CountNoise.DISCRETE_LAPLACE
    epsilon: float = Field(gt=0, allow_inf_nan=False)
    delta: float | None = Field(default=None, gt=0, lt=1, allow_inf_nan=False)
    absent_partners: Absent = 0

    def _contradictions(self) -> Iterator[Contradiction]:
        is_pure = self.noise is CountNoise.DISCRETE_LAPLACE
        if (self.delta is None) is not is_pure:
            does = "has no" if is_pure else "needs"
            yield _between("noise delta", f"noise {self.noise.value!r} {does} delta")


class VerticalTrainSpec(_OfAll):
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
            yield _between("label_epsilon unsafe_labels", told)


class VerticalScoreSpec(_Spec):
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
