"""How many people who are no seeds are positives, told: with its price, its error, in a sentence.

Guarantees: of a model, the figure is the one that it has; what noise or chance may have made alone
is said to be so, and what could not be told is told as that. Of a plan, what is expected is the
kindest that can be: where it warns, nothing better is to be had.

Leaves to others: the estimate (`privacy.training.unlabelled`), counting (`jobs.hidden`).
"""

import math
from typing import Self

from pydantic import BaseModel, ConfigDict

from compliance.agreement import Agreement
from federation.jobs.hidden import HiddenPlan
from federation.jobs.model import JointModel
from federation.specification import TrainSpec
from privacy.training.unlabelled import HiddenShare, ScoreCounts

__all__ = ["PlannedShare", "ToldShare"]


class ToldShare(BaseModel):
    """A hidden share for readers.

    Attributes:
        job: that counted.
        epsilon: that the counts cost a person, over all partners; None of exact counts, which stay
            where they are.
        estimate: the share; None where noise or chance leave nothing to say, or its error is not
            known.
        sentence: all of it in plain words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    job: str
    epsilon: float | None
    estimate: HiddenShare | None
    sentence: str

    @classmethod
    def of(cls, model: JointModel, agreement: Agreement, spec: TrainSpec) -> Self | None:
        """Tell a model's share; None where its job counts nobody."""
        plan = HiddenPlan.of(spec, agreement)
        if plan is None:
            return None
        share = model.making.hidden_share
        if isinstance(share, float):  # of an earlier version
            sentence = (
                f"about {share:.1%} of people who are no seeds are positives; from counts with "
                f"noise, epsilon {plan.epsilon:g}, whose error nobody kept"
            )
            return cls(job=spec.name, epsilon=plan.epsilon, estimate=None, sentence=sentence)
        return cls.made(spec.name, plan.epsilon, share, whom="are no seeds")

    @classmethod
    def made(
        cls, job: str, epsilon: float | None, estimate: HiddenShare | None, *, whom: str
    ) -> Self:
        """Put a share in words.

        Args:
            job: that counted.
            epsilon: of the counts; None where they are exact.
            estimate: the share, if there is one.
            whom: what the people are or have who were asked about: "are no seeds".
        """
        by = "exact counts" if epsilon is None else f"counts with noise, epsilon {epsilon:g}"
        if estimate is None:
            sentence = f"how many people who {whom} are positives cannot be told from {by}"
        else:
            sentence = (
                f"about {estimate.share:.1%} of people who {whom} are positives, give or take "
                f"{estimate.standard_error:.1%} (one standard error); from {by}"
            )
            if estimate.lost:
                sentence += "; that is less than two standard errors, and may be none at all"
        return cls(job=job, epsilon=epsilon, estimate=estimate, sentence=sentence)


class PlannedShare(BaseModel):
    """What is to be expected of an estimate before anybody counts.

    Attributes:
        epsilon: that the counts cost a person, over all partners.
        seeds: that the partners' tables are taken to hold together.
        others: people in them who are no seeds.
        expected: what would be found if as many positives were hidden as are seeds, and the model
            told all of them from the rest; None where noise would leave nothing to say even then.
        sentence: all of it in plain words.
        warning: set where even that is mostly noise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epsilon: float
    seeds: int
    others: int
    expected: HiddenShare | None
    sentence: str
    warning: str | None = None

    @classmethod
    def of(cls, plan: HiddenPlan, *, partners: int, people: int, seeds: int) -> Self:
        """Expect what a plan of counting can find.

        Args:
            plan: the noise on each partner's counts.
            partners: that count.
            people: in their tables together, seeds included.
            seeds: of them.
        """
        counts = ScoreCounts.expected(people, seeds, plan.sigma * math.sqrt(partners))
        expected, others = counts.hidden_share(), people - seeds
        if expected is None:
            found = "noise would leave nothing to say of it"
        else:
            error = f"{expected.standard_error:.2%}"
            found = f"{expected.share:.2%} would be found give or take at least {error}"
        warning = None
        if expected is None or expected.lost:
            warning = (
                f"a hidden share from about {seeds} seeds at epsilon {plan.epsilon:g} is mostly "
                "noise: agree on a larger train.hidden_share_epsilon, bring more seeds, or leave "
                "the term out and pay nothing"
            )
        return cls(
            epsilon=plan.epsilon,
            seeds=seeds,
            others=others,
            expected=expected,
            sentence=(
                f"hidden share at epsilon {plan.epsilon:g}, in its price: if as many positives "
                f"were hidden as the {seeds} seeds among {others} others, {found}"
            ),
            warning=warning,
        )
