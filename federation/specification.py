"""What a job is asked to do: the part of a collaboration file that travels.

Guarantees: closed models; whatever steers privacy is here or in the signed agreement and nowhere
else, so that a party can hold one against the other (`policy_objections`) before it computes.

Leaves to others: the noise multiplier, which each party derives itself from ε and δ, and never
takes from anybody.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ByteSize, ConfigDict, Field, model_validator

from compliance.agreement import Agreement
from compliance.terms import Linkage, MatchProtocol, NoiseSource, Reveal
from privacy.training.learners import Learner

__all__ = [
    "AlignSpec",
    "ExpandSpec",
    "JobName",
    "JobSpec",
    "MatchSpec",
    "TrainSpec",
    "VerticalScoreSpec",
    "VerticalSpec",
    "VerticalTrainSpec",
    "policy_objections",
]

_PARTNER_LEARNS = frozenset({Reveal.PARTNER_LEARNS_MEMBERS, Reveal.BOTH_LEARN_MEMBERS})
_ONE_LEARNS = frozenset({Reveal.PARTNER_LEARNS_MEMBERS, Reveal.BRAND_LEARNS_MEMBERS})
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
_LOCAL_ONLY: Final = ("steps", "sampling_probability", "learning_rate")

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


class TrainSpec(_Spec):
    """Train one joint model on the partners' rows, the matched people being the positives.

    Attributes:
        match: the match job whose members are the positives.
        noise: who adds the noise.
        epsilon: privacy loss per person over all parties and rounds; left out without noise.
        delta: its failure probability, likewise.
        rounds: how often the partners' models are averaged, which divides `steps` (1 where left
            out); or secure sums: 10 where left out, at most that many without noise.
        steps: gradient steps at each partner, over all rounds; of local noise only, as are:
        sampling_probability: chance of a row to enter a step (Poisson sampling).
        learning_rate: step length on the noised mean gradient.
    """

    kind: Literal["train"] = "train"
    match: JobName
    noise: NoiseSource = NoiseSource.LOCAL
    epsilon: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    delta: float | None = Field(default=None, gt=0, lt=1, allow_inf_nan=False)
    rounds: int = Field(default=1, ge=1, le=1_000)
    steps: int = Field(default=300, ge=2, le=100_000)
    sampling_probability: float = Field(default=0.2, gt=0, le=1, allow_inf_nan=False)
    learning_rate: float = Field(default=20.0, gt=0, le=1_000, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _rounds_of_noise(cls, data: Any) -> Any:
        """Fill in how many rounds the kind of noise has."""
        if not isinstance(data, Mapping) or "rounds" in data:
            return data
        try:
            return {**data, "rounds": _ROUNDS[NoiseSource(data.get("noise", NoiseSource.LOCAL))]}
        except ValueError:  # no such noise, which its own field says best
            return data

    @model_validator(mode="after")
    def _fits_noise(self) -> Self:
        private = self.noise is not NoiseSource.UNSAFE_NONE
        for name in ("epsilon", "delta"):
            if (getattr(self, name) is None) is private:
                what = "needs" if private else "has no"
                raise ValueError(f"noise {self.noise.value!r} {what} {name}")
        if self.noise is not NoiseSource.LOCAL:
            for name in _LOCAL_ONLY:
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"noise {self.noise.value!r} has no {name}: leave it out")
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
    """Keep, at each partner, the best-scored share of its people who are not seeds.

    Attributes:
        train: the training job whose model scores.
        share: of the partner's eligible people, in (0, 1].
    """

    kind: Literal["expand"] = "expand"
    train: JobName
    share: float = Field(gt=0, le=1, allow_inf_nan=False)


class VerticalTrainSpec(_Spec):
    """Train a model over what the brand and every partner know of the same people.

    Attributes:
        align: the alignment of these people.
        learner: what every party fits to its own columns.
        rounds: exchanges with each partner, at most.
        label_epsilon: privacy loss of a person's label, once for all rounds; or
        unsafe_labels: labels are used as they are, and partners learn them.
    """

    kind: Literal["train-vertical"] = "train-vertical"
    align: JobName
    learner: Learner = Learner.RIDGE
    rounds: int = Field(default=10, ge=1, le=15)
    label_epsilon: float | None = Field(default=None, gt=0, le=10, allow_inf_nan=False)
    unsafe_labels: bool = False

    @model_validator(mode="after")
    def _says_how_labels_are_protected(self) -> Self:
        if (self.label_epsilon is None) is not self.unsafe_labels:
            raise ValueError("give either a label_epsilon, or unsafe_labels = true")
        return self


class VerticalScoreSpec(_Spec):
    """Score aligned people with a model whose parts the parties hold.

    Attributes:
        train: the training that left the parts.
        align: the alignment of the people to score.
    """

    kind: Literal["score-vertical"] = "score-vertical"
    train: JobName
    align: JobName


VerticalSpec = Annotated[VerticalTrainSpec | VerticalScoreSpec, Field(discriminator="kind")]
"""A job over parties' columns."""

JobSpec = Annotated[
    MatchSpec | AlignSpec | TrainSpec | ExpandSpec | VerticalTrainSpec | VerticalScoreSpec,
    Field(discriminator="kind"),
]


def policy_objections(spec: JobSpec, agreement: Agreement) -> tuple[tuple[str, str], ...]:
    """Hold a job against the agreement.

    Returns:
        Every (term, remedy) that speaks against the job; empty where it may run.
    """
    found: list[tuple[str, str]] = []
    if isinstance(spec, TrainSpec):
        terms, local = agreement.train, spec.noise is NoiseSource.LOCAL
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
        if not agreement.features:
            found.append(("train.features", f"job {spec.name!r}: no features are agreed: agree on"))
        if agreement.match.reveal not in _PARTNER_LEARNS:
            remedy = f"job {spec.name!r} needs partners that know their members: agree on "
            found.append(("match.reveal", remedy + " or ".join(sorted(_PARTNER_LEARNS))))
    elif isinstance(spec, VerticalTrainSpec | VerticalScoreSpec):
        found += _vertical_objections(spec, agreement)
    elif isinstance(spec, MatchSpec):
        found += _match_objections(spec, agreement)
    elif isinstance(spec, AlignSpec) and agreement.match.alignment is None:
        remedy = f"job {spec.name!r}: no alignment of all parties is agreed: agree on one"
        found.append(("match.alignment", remedy))
    elif isinstance(spec, ExpandSpec) and spec.share > agreement.expand.maximum_share:
        most = agreement.expand.maximum_share
        remedy = f"job {spec.name!r} asks for a share of {spec.share:g}: ask for at most {most:g}"
        found.append(("expand.maximum_share", remedy))
    return tuple(found)


def _vertical_objections(
    spec: VerticalTrainSpec | VerticalScoreSpec, agreement: Agreement
) -> list[tuple[str, str]]:
    terms, asks = agreement.vertical, f"job {spec.name!r} asks for"
    if terms is None:
        return [
            ("vertical.columns", f"job {spec.name!r}: no terms of vertical training are agreed")
        ]
    if isinstance(spec, VerticalScoreSpec):
        return []
    found: list[tuple[str, str]] = []
    if spec.rounds > terms.max_rounds:
        remedy = f"{asks} {spec.rounds}: ask for at most {terms.max_rounds}"
        found.append(("vertical.max_rounds", remedy))
    if spec.unsafe_labels and not terms.unsafe_labels:
        found.append(("vertical.unsafe_labels", f"{asks} labels as they are: ask for noised ones"))
    if spec.label_epsilon is not None and spec.label_epsilon > (terms.label_epsilon or 0.0):
        most = f"at most {terms.label_epsilon:g}" if terms.label_epsilon else "unsafe_labels"
        found.append(("vertical.label_epsilon", f"{asks} {spec.label_epsilon:g}: ask for {most}"))
    return found


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
