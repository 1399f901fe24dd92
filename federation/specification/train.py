"""What a training on rows is asked to do."""

import math
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from compliance.canonical import is_unsaid
from compliance.terms import Labels, ModelFamily, NoiseSource
from federation.specification.job import Absent, Contradiction, JobName, Spec, between

__all__ = ["Activation", "NetworkShape", "TrainSpec"]

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


class TrainSpec(Spec):
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
            yield between(
                "labels model noise",
                f"labels 'seeds-only' take model {ModelFamily.LOGISTIC_REGRESSION.value!r} and "
                f"noise {NoiseSource.LOCAL.value!r}",
            )

    def _of_family(self) -> Iterator[Contradiction]:
        is_network = self.model is ModelFamily.NETWORK
        if (self.network is not None) is not is_network:
            what = "needs" if is_network else "has no"
            yield between(
                "model network",
                f"model {self.model.value!r} {what} network, its hidden layers",
            )
        is_local, is_trees = self.noise is NoiseSource.LOCAL, self.model is _TREES
        if is_trees if is_local else self.model not in _SUMMED:
            others = [
                noise for noise in NoiseSource if (noise is not NoiseSource.LOCAL) is is_trees
            ]
            yield between(
                "model noise",
                f"model {self.model.value!r} is trained with noise "
                f"{' or '.join(repr(noise.value) for noise in others)} alone: ask for that, or for "
                f"model {ModelFamily.LOGISTIC_REGRESSION.value!r}",
            )
        if not is_trees and self.depth != type(self).model_fields["depth"].default:
            yield between("model depth", f"model {self.model.value!r} has no depth: leave it out")
        if is_trees and self.noise is NoiseSource.UNSAFE_NONE and self.rounds <= self.depth:
            yield between(
                "model noise rounds depth",
                f"trees of depth {self.depth} take {self.depth + 1} rounds or more without noise, "
                f"got {self.rounds}",
            )

    def _of_noise(self) -> Iterator[Contradiction]:
        named, private = f"noise {self.noise.value!r}", self.noise is not NoiseSource.UNSAFE_NONE
        for name in ("epsilon", "delta"):
            if (getattr(self, name) is None) is private:
                what = f"needs {name}: add it" if private else f"has no {name}: leave it out"
                yield between(f"noise {name}", f"{named} {what}")
        if self.noise is NoiseSource.LOCAL:
            return
        if self.absent_partners:
            why = _WHO_MAY_MISS_SUMS[self.noise]
            told = f"{named} has no absent_partners: {why}: leave it out"
            yield between("noise absent_partners", told)
        for name in _LOCAL_ONLY:
            if getattr(self, name) != type(self).model_fields[name].default:
                yield between(f"noise {name}", f"{named} has no {name}: leave it out")

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
