"""How models are trained, over rows and over columns.

Guarantees: what a job may ask for is bounded.

Leaves to others: training (`privacy.training`), and what it costs (`privacy.accounting`).
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field

from compliance.terms.dataset import HeldColumnTerm
from compliance.terms.vocabulary import (
    Count,
    Delta,
    Epsilon,
    Finite,
    Purpose,
    Terms,
    repeated,
    unique,
)

__all__ = ["Labels", "ModelFamily", "NoiseSource", "TrainTerms", "VerticalTerms"]


class NoiseSource(StrEnum):
    """Who makes a trained model private."""

    LOCAL = "local"
    """Each partner adds all the noise to its own model: nobody is trusted."""
    DISTRIBUTED = "distributed"
    """Partners add shares of the noise; only sums over partners are revealed, by secure sums."""
    UNSAFE_NONE = "unsafe-none"
    """Nobody: secure sums hide the partners from each other, and protect no person."""


class ModelFamily(StrEnum):
    """How a model is built."""

    LOGISTIC_REGRESSION = "logistic-regression"
    RIDGE_REGRESSION = "ridge-regression"
    """Least squares of the label, 1 or 0, with a penalty on the weights."""
    NETWORK = "network"
    """A small feed-forward network, described by numbers."""
    BOOSTED_TREES = "boosted-trees"
    """Gradient boosting on histograms that are summed over partners."""


class Labels(StrEnum):
    """What it means that somebody is no seed."""

    COMPLETE = "complete"
    """Not a positive: the seeds are all of them."""
    SEEDS_ONLY = "seeds-only"
    """Nothing: seeds are some of the positives, everybody else is unlabelled."""


class TrainTerms(Terms):
    """How models are trained.

    Attributes:
        purpose: for which each person must have consented.
        models: families that a model may be of.
        epsilon: privacy loss per person that a single job may ask for at most.
        delta: its failure probability, likewise.
        max_parties_per_person: partners that may hold the same person; the loss adds up over them.
        clipping_norm: bound of one person's gradient in the Euclidean norm.
        max_steps: gradient steps of a job at each partner, where it adds the noise itself.
        max_rounds: averagings, or secure sums, of a job.
        noise: who may add the noise.
        colluding_partners: of secure sums: partners that may join forces, the coordinator with
            them, without a loss of privacy. Whoever reads the model knows its own share of the
            noise, so that 0 holds against the coordinator alone.
        absent_partners: of secure sums with noise: partners that may be missing from one, for
            whatever reason.
        hidden_share_epsilon: privacy loss per person, over all partners, of estimating in one job
            of `seeds-only` labels how many people who are no seeds are positives. Left out: nobody
            estimates it.
    """

    purpose: Purpose
    models: Annotated[tuple[ModelFamily, ...], Field(min_length=1), AfterValidator(unique)] = (
        ModelFamily.LOGISTIC_REGRESSION,
    )
    epsilon: Epsilon
    delta: Delta
    max_parties_per_person: Count
    clipping_norm: Annotated[Finite, Field(gt=0)]
    max_steps: Count
    max_rounds: Count
    noise: Annotated[tuple[NoiseSource, ...], Field(min_length=1), AfterValidator(unique)] = (
        NoiseSource.LOCAL,
    )
    colluding_partners: Annotated[int, Field(ge=0, lt=1_000)] = 1
    absent_partners: Annotated[int, Field(ge=0, lt=1_000)] = 0
    hidden_share_epsilon: Annotated[Epsilon, Field(ge=1e-3, le=100)] | None = None

    def colluding_in_sums(self, partners: int, noise: NoiseSource) -> int:
        """Return how many colluding partners a secure sum over `partners` has to withstand.

        None where one partner alone is counted on and noise is added: its noise is whole, and needs
        no sum to hide in.
        """
        counted_on = partners - self.colluding_partners - self.absent_in_sums(noise)
        whole = noise is NoiseSource.DISTRIBUTED and counted_on < 2
        return 0 if whole else self.colluding_partners

    def absent_in_sums(self, noise: NoiseSource) -> int:
        """Return how many partners may be missing from a secure sum.

        None where no noise is added: of two exact sums, one with a partner and one without, the
        difference is what that partner computed.
        """
        return self.absent_partners if noise is NoiseSource.DISTRIBUTED else 0


class VerticalTerms(Terms):
    """How models are trained over what several parties know of the same people.

    Attributes:
        purpose: for which each person must have consented.
        columns: what each party brings.
        label_epsilon: privacy loss of a person's label that a job may ask for at most; noised
            labels are not allowed where it is left out.
        unsafe_labels: whether a job may use labels as they are: partners then learn all of them.
        max_rounds: exchanges with each partner, at most 15.
        minimum_people: people who may be used, below which nothing leaves a party.
        absent_partners: partners whose part a scoring of new people may go without, so that two
            are left.
    """

    purpose: Purpose
    columns: Annotated[tuple[HeldColumnTerm, ...], Field(min_length=2, max_length=2_000)]
    label_epsilon: Annotated[Epsilon, Field(le=10)] | None = None
    unsafe_labels: Annotated[bool, Field(strict=True)] = False
    max_rounds: Annotated[int, Field(ge=1, le=15)] = 10
    minimum_people: Count
    absent_partners: Annotated[int, Field(ge=0, lt=1_000)] = 0

    def held_by(self, party: str) -> tuple[HeldColumnTerm, ...]:
        """Return what a party brings, in the agreed order."""
        return tuple(column for column in self.columns if column.party == party)

    def _mistakes(self) -> Iterator[str]:
        for party, name in repeated((column.party, column.name) for column in self.columns):
            yield f"columns: {party!r} has two called {name!r}"
        if self.label_epsilon is None and not self.unsafe_labels:
            yield "agree on a label_epsilon, or on unsafe_labels: no job could use a label"
