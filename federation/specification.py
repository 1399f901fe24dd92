"""What a job is asked to do: the part of a collaboration file that travels.

Guarantees: closed models; whatever steers privacy is here or in the signed agreement and nowhere
else, so that a party can hold one against the other (`policy_objections`) before it computes.

Leaves to others: the noise multiplier, which each party derives itself from ε and δ, and never
takes from anybody.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from compliance.agreement import Agreement

__all__ = ["ExpandSpec", "JobName", "JobSpec", "MatchSpec", "TrainSpec", "policy_objections"]

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


class MatchSpec(_Spec):
    """Find out, at each partner, which of its people are among the brand's."""

    kind: Literal["match"] = "match"


class TrainSpec(_Spec):
    """Train one joint model on the partners' rows, the matched people being the positives.

    Attributes:
        match: the match job whose members are the positives.
        epsilon: privacy loss per person over all parties and rounds.
        delta: its failure probability.
        steps: gradient steps at each partner, over all rounds.
        rounds: how often the partners' models are averaged; divides `steps`.
        sampling_probability: chance of a row to enter a step (Poisson sampling).
        learning_rate: step length on the noised mean gradient.
    """

    kind: Literal["train"] = "train"
    match: JobName
    epsilon: float = Field(gt=0, allow_inf_nan=False)
    delta: float = Field(gt=0, lt=1, allow_inf_nan=False)
    steps: int = Field(default=300, ge=2, le=100_000)
    rounds: int = Field(default=1, ge=1, le=1_000)
    sampling_probability: float = Field(default=0.2, gt=0, le=1, allow_inf_nan=False)
    learning_rate: float = Field(default=20.0, gt=0, le=1_000, allow_inf_nan=False)

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


JobSpec = Annotated[MatchSpec | TrainSpec | ExpandSpec, Field(discriminator="kind")]


def policy_objections(spec: JobSpec, agreement: Agreement) -> tuple[tuple[str, str], ...]:
    """Hold a job against the agreement.

    Returns:
        Every (term, remedy) that speaks against the job; empty where it may run.
    """
    found: list[tuple[str, str]] = []
    if isinstance(spec, TrainSpec):
        terms = agreement.train
        limits: tuple[tuple[str, float, float], ...] = (
            ("epsilon", spec.epsilon, terms.epsilon),
            ("delta", spec.delta, terms.delta),
            ("max_steps", spec.steps, terms.max_steps),
            ("max_rounds", spec.rounds, terms.max_rounds),
        )
        found += [
            (f"train.{term}", f"job {spec.name!r} asks for {asked:g}: ask for at most {most:g}")
            for term, asked, most in limits
            if asked > most
        ]
        if spec.steps % spec.rounds:
            remedy = f"job {spec.name!r}: {spec.steps} steps cannot be divided into {spec.rounds}"
            found.append(("train.max_rounds", f"{remedy} equal rounds: choose a multiple"))
    elif isinstance(spec, ExpandSpec) and spec.share > agreement.expand.maximum_share:
        most = agreement.expand.maximum_share
        remedy = f"job {spec.name!r} asks for a share of {spec.share:g}: ask for at most {most:g}"
        found.append(("expand.maximum_share", remedy))
    return tuple(found)
