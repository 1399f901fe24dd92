"""What a job is asked to do: the part of a collaboration file that travels.

Guarantees: closed models; whatever steers privacy is here or in the signed agreement and nowhere
else, so that a party can hold one against the other (`policy_objections`) before it computes.

Leaves to others: the noise multiplier, which each party derives itself from ε and δ, and never
takes from anybody.
"""

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    model_validator,
)

from compliance.agreement import Agreement
from compliance.terms import (
    CountNoise,
    Labels,
    Linkage,
    MatchProtocol,
    ModelFamily,
    NoiseSource,
    Reveal,
    Role,
    unique,
)

__all__ = [
    "Activation",
    "AlignSpec",
    "ExpandSpec",
    "JobName",
    "JobSpec",
    "MatchSpec",
    "MeasureSpec",
    "NetworkShape",
    "TrainSpec",
    "policy_objections",
]

_PARTNER_LEARNS = frozenset({Reveal.PARTNER_LEARNS_MEMBERS, Reveal.BOTH_LEARN_MEMBERS})
_ONE_LEARNS = frozenset({Reveal.PARTNER_LEARNS_MEMBERS, Reveal.BRAND_LEARNS_MEMBERS})
_BASE_BYTES = 320 << 20  # interpreter, libraries and Flower; measured, see docs/scale.md
_BYTES_PER_POINT = 512  # points, tags, and their copies on the way; measured
_LARGEST_BUCKET_BITS = 20
_MOST_CELLS = 4_096  # of a measurement: more would hold nobody
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


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: JobName


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
    """

    kind: Literal["match"] = "match"
    protocol: MatchProtocol = MatchProtocol.ECDH

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

    @model_validator(mode="after")
    def _room_for_the_program(self) -> Self:
        if self.is_direct and self.memory_limit < _LINKED_LEAST_BYTES:
            raise ValueError(
                "protocol 'rr22' needs a memory_limit of at least 768MiB: give it more, or match "
                "by 'ecdh'"
            )
        return self


class AlignSpec(_Bucketed):
    """Find the people whom all data parties know, for all of them, in one order.

    Attributes:
        memory_limit: as in a match.
    """

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

    @model_validator(mode="after")
    def _fits_family(self) -> Self:
        is_network = self.model is ModelFamily.NETWORK
        if (self.network is not None) is not is_network:
            what = "needs" if is_network else "has no"
            raise ValueError(f"model {self.model.value!r} {what} network, its hidden layers")
        is_local, is_trees = self.noise is NoiseSource.LOCAL, self.model is _TREES
        if is_trees if is_local else self.model not in _SUMMED:
            others = [
                noise for noise in NoiseSource if (noise is not NoiseSource.LOCAL) is is_trees
            ]
            raise ValueError(
                f"model {self.model.value!r} is trained with noise "
                f"{' or '.join(repr(noise.value) for noise in others)} alone: ask for that, or for "
                f"model {ModelFamily.LOGISTIC_REGRESSION.value!r}"
            )
        if not is_trees and self.depth != type(self).model_fields["depth"].default:
            raise ValueError(f"model {self.model.value!r} has no depth: leave it out")
        if is_trees and self.noise is NoiseSource.UNSAFE_NONE and self.rounds <= self.depth:
            raise ValueError(
                f"trees of depth {self.depth} take {self.depth + 1} rounds or more without noise, "
                f"got {self.rounds}"
            )
        return self

    @model_validator(mode="after")
    def _fits_noise(self) -> Self:
        private = self.noise is not NoiseSource.UNSAFE_NONE
        for name in ("epsilon", "delta"):
            if (getattr(self, name) is None) is private:
                what = f"needs {name}: add it" if private else f"has no {name}: leave it out"
                raise ValueError(f"noise {self.noise.value!r} {what}")
        if self.noise is not NoiseSource.LOCAL:
            for name in _LOCAL_ONLY:
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"noise {self.noise.value!r} has no {name}: leave it out")
        return self

    @model_validator(mode="after")
    def _fits_labels(self) -> Self:
        linear = self.model is ModelFamily.LOGISTIC_REGRESSION
        if self.labels is Labels.SEEDS_ONLY and not (linear and self.noise is NoiseSource.LOCAL):
            raise ValueError(
                f"labels 'seeds-only' take model {ModelFamily.LOGISTIC_REGRESSION.value!r} and "
                f"noise {NoiseSource.LOCAL.value!r}"
            )
        return self

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
    """

    kind: Literal["expand"] = "expand"
    train: JobName
    share: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False)
    size: int | None = Field(default=None, ge=1, le=1 << 32)

    @model_validator(mode="after")
    def _one_measure(self) -> Self:
        if (self.share is None) == (self.size is None):
            raise ValueError("give either share, or size")
        return self

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
    """

    kind: Literal["measure"] = "measure"
    match: JobName
    columns: Annotated[tuple[str, ...], Field(min_length=1, max_length=3), AfterValidator(unique)]
    noise: CountNoise = CountNoise.DISCRETE_LAPLACE
    epsilon: float = Field(gt=0, allow_inf_nan=False)
    delta: float | None = Field(default=None, gt=0, lt=1, allow_inf_nan=False)

    @model_validator(mode="after")
    def _fits_noise(self) -> Self:
        is_pure = self.noise is CountNoise.DISCRETE_LAPLACE
        if (self.delta is None) is not is_pure:
            raise ValueError(f"noise {self.noise.value!r} {'has no' if is_pure else 'needs'} delta")
        return self


JobSpec = Annotated[
    MatchSpec | AlignSpec | TrainSpec | ExpandSpec | MeasureSpec, Field(discriminator="kind")
]


def policy_objections(spec: JobSpec, agreement: Agreement) -> tuple[tuple[str, str], ...]:
    """Hold a job against the agreement.

    Returns:
        Every (term, remedy) that speaks against the job; empty where it may run.
    """
    found: list[tuple[str, str]] = []
    if isinstance(spec, TrainSpec):
        terms, local = agreement.train, spec.noise is NoiseSource.LOCAL
        if spec.model not in terms.models:
            allowed = " or ".join(repr(model.value) for model in terms.models)
            remedy = f"job {spec.name!r} asks for {spec.model.value!r}: ask for {allowed}"
            found.append(("train.models", f"{remedy}, or agree on it"))
        if spec.noise not in terms.noise:
            allowed = " or ".join(repr(noise.value) for noise in terms.noise)
            remedy = f"job {spec.name!r} asks for {spec.noise.value!r}: ask for {allowed}"
            found.append(("train.noise", f"{remedy}, or agree on it"))
        limits: tuple[tuple[str, float | None, float], ...] = (
            ("epsilon", spec.epsilon, terms.epsilon),
            ("delta", spec.delta, terms.delta),
            ("max_steps", spec.steps if local else None, terms.max_steps),
            ("max_rounds", spec.rounds, terms.max_rounds),
        )
        found += [
            (f"train.{term}", f"job {spec.name!r} asks for {asked:g}: ask for at most {most:g}")
            for term, asked, most in limits
            if asked is not None and asked > most
        ]
        if local and spec.steps % spec.rounds:
            remedy = f"job {spec.name!r}: {spec.steps} steps cannot be divided into {spec.rounds}"
            found.append(("train.max_rounds", f"{remedy} equal rounds: choose a multiple"))
        if agreement.match.reveal not in _PARTNER_LEARNS:
            remedy = f"job {spec.name!r} needs partners that know their members: agree on "
            found.append(("match.reveal", remedy + " or ".join(sorted(_PARTNER_LEARNS))))
    elif isinstance(spec, MeasureSpec):
        found += _measure_objections(spec, agreement)
    elif isinstance(spec, MatchSpec):
        found += _match_objections(spec, agreement)
    elif isinstance(spec, AlignSpec) and agreement.match.alignment is None:
        remedy = f"job {spec.name!r}: no alignment of all parties is agreed: agree on one"
        found.append(("match.alignment", remedy))
    elif isinstance(spec, ExpandSpec):
        found += _expand_objections(spec, agreement)
    return tuple(found)


def _measure_objections(spec: MeasureSpec, agreement: Agreement) -> list[tuple[str, str]]:
    terms, asked = agreement.measure, f"job {spec.name!r} asks for"
    if terms is None:
        remedy = f"job {spec.name!r}: nothing may be counted: agree on terms of measuring"
        return [("measure.columns", remedy)]
    found: list[tuple[str, str]] = []
    words = {feature.name: len(feature.categories) for feature in agreement.features}
    sizes = {
        one.name: len(one.edges) + 2 if one.edges else words[one.name] + 1 for one in terms.columns
    }
    if unknown := [name for name in spec.columns if name not in sizes]:
        allowed = " or ".join(map(repr, sizes))
        remedy = f"{asked} {', '.join(map(repr, unknown))}: ask for {allowed}, or agree on it"
        found.append(("measure.columns", remedy))
    elif (cells := math.prod(sizes[name] for name in spec.columns)) > _MOST_CELLS:
        remedy = f"{asked} {cells:,} cells: ask for fewer columns, at most {_MOST_CELLS:,} cells"
        found.append(("measure.columns", remedy))
    if spec.noise not in terms.noise:
        allowed = " or ".join(repr(noise.value) for noise in terms.noise)
        remedy = f"{asked} {spec.noise.value!r}: ask for {allowed}, or agree on it"
        found.append(("measure.noise", remedy))
    for term, given, most in (
        ("epsilon", spec.epsilon, terms.epsilon),
        ("delta", spec.delta, terms.delta),
    ):
        if given is not None and most is not None and given > most:
            found.append((f"measure.{term}", f"{asked} {given:g}: ask for at most {most:g}"))
    if agreement.match.reveal not in _PARTNER_LEARNS:
        remedy = f"job {spec.name!r} needs partners that know their members: agree on "
        found.append(("match.reveal", remedy + " or ".join(sorted(_PARTNER_LEARNS))))
    return found


def _expand_objections(spec: ExpandSpec, agreement: Agreement) -> list[tuple[str, str]]:
    """A size is held against what is public, so that trying sizes counts nobody."""
    terms, name = agreement.expand, spec.name
    if spec.share is not None and spec.share > terms.maximum_share:
        remedy = f"job {name!r} asks for a share of {spec.share:g}"
        return [("expand.maximum_share", f"{remedy}: ask for at most {terms.maximum_share:g}")]
    if spec.size is None:
        return []
    partners = agreement.by_role(Role.PARTNER)
    rows = max(agreement.dataset(party.name).declared_rows for party in partners)
    most = math.ceil(terms.maximum_share * rows)
    asked = f"job {name!r} asks for a size of {spec.size}"
    if spec.size > most:
        remedy = f"{asked}, and no partner declares the rows for it: ask for at most {most}"
        return [("expand.maximum_share", remedy)]
    if spec.size < terms.minimum_segment:
        remedy = f"{asked}: ask for at least {terms.minimum_segment}"
        return [("expand.minimum_segment", remedy)]
    return []


def _match_objections(spec: MatchSpec, agreement: Agreement) -> list[tuple[str, str]]:
    terms, asked = agreement.match, f"job {spec.name!r} matches by {spec.protocol.value!r}"
    found: list[tuple[str, str]] = []
    if spec.protocol not in terms.protocols:
        allowed = " or ".join(repr(one.value) for one in terms.protocols)
        found.append(("match.protocols", f"{asked}: match by {allowed}, or agree on it"))
    if not spec.is_direct:
        return found
    if terms.reveal not in _ONE_LEARNS:
        remedy = f"{asked}, by which one side alone learns: agree on "
        found.append(("match.reveal", remedy + " or ".join(sorted(_ONE_LEARNS)) + ", or use ecdh"))
    if len(terms.keys) != 1:
        remedy = f"{asked}, which tells by which key people matched: agree on one key, or use ecdh"
        found.append(("match.keys", remedy))
    several = any(one.identifiers_per_person > 1 for one in agreement.datasets)
    if several and not terms.reveal_keys:
        remedy = f"{asked}, which tells by which identifier people matched: agree on reveal_keys"
        found.append(("match.reveal_keys", f"{remedy}, or use ecdh"))
    if terms.linkage is Linkage.ONE_TO_ONE and several:
        remedy = f"{asked}, which cannot link people who bear several identifiers: agree on "
        found.append(("match.linkage", f"{remedy}{Linkage.ANY_KEY.value}, or use ecdh"))
    return found
