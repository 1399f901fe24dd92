"""Membership inference by shadow models, and what its rates prove of ε.

LiRA (Carlini et al. 2022, "Membership Inference Attacks From First Principles", section V): models
are trained with and without a row; the likelihood ratio of two Gaussians says whether a further
model's score of that row is more likely with it or without it.

Guarantees: what is fitted on shadow models is tried on others only; the row that a bound is about
is chosen by the shadow models; so its rates on the others are those of independent trials, and
bounds hold with the stated confidence (Clopper and Pearson 1934).

Leaves to others: training the models, each on rows taken by fair coins.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privacy.attacks.guessing import check_confidence
from privacy.errors import InvalidParameterError

__all__ = ["Rates", "Shadows", "epsilon_of_rates"]


@dataclass(frozen=True, slots=True)
class Rates:
    """How often an attacker says "in", of independent trials.

    Attributes:
        positives: trials in which the row was in.
        true_positives: those of them in which it said so.
        negatives: trials in which it was out.
        false_positives: those of them in which it said "in".

    Raises:
        InvalidParameterError: if they contradict each other.
    """

    positives: int
    true_positives: int
    negatives: int
    false_positives: int

    def __post_init__(self) -> None:
        for said, trials in (
            (self.true_positives, self.positives),
            (self.false_positives, self.negatives),
        ):
            if not 0 <= said <= trials:
                raise InvalidParameterError(f"expected 0 to {trials} trials, got {said}")

    @property
    def flawless(self) -> "Rates":
        """As many trials, all of them guessed."""
        return Rates(self.positives, self.positives, self.negatives, 0)


def epsilon_of_rates(rates: Rates, delta: float, confidence: float) -> float:
    """Return a lower bound on ε, by rates of independent trials.

    (ε, δ)-privacy has TPR ≤ e^ε FPR + δ and TNR ≤ e^ε FNR + δ (Kairouz, Oh and Viswanath 2015,
    theorem 2.1). Two one-sided Clopper-Pearson bounds, each at half the error, bound all four.

    Args:
        rates: what happened.
        delta: the δ at which ε is claimed, in [0, 1].
        confidence: in (0, 1).

    Returns:
        0 where nothing is refuted.

    Raises:
        InvalidParameterError: if an argument is out of range.
    """
    check_confidence(confidence)
    if not 0.0 <= delta <= 1.0:
        raise InvalidParameterError(f"expected a delta in [0, 1], got {delta}")
    error = 0.5 * (1.0 - confidence)
    least = _at_least(rates.true_positives, rates.positives, error)
    most = 1.0 - _at_least(rates.negatives - rates.false_positives, rates.negatives, error)
    bounds = [
        np.log((right - delta) / wrong)
        for right, wrong in ((least, most), (1.0 - most, 1.0 - least))
        if right > delta and wrong > 0.0
    ]
    return max(0.0, *map(float, bounds)) if bounds else 0.0


def _at_least(hits: int, trials: int, error: float) -> float:
    """Return a chance that the true one is below with probability `error` at most."""
    from scipy.stats import beta

    return float(beta.ppf(error, hits, trials - hits + 1)) if hits else 0.0


class Shadows:
    """Two Gaussians for every row: of its scores by models with it, and by models without it.

    They have one variance, pooled: with some dozens of models two would be noise.

    Args:
        scores: shape (models, n), finite: each model's score of each row, scaled so that it may
            look normal. For the logistic loss: the logit of the probability of the row's label.
        inside: shape (models, n): whether the model was trained with the row. Of a row that was
            always in, or always out, nothing is claimed.

    Raises:
        InvalidParameterError: if shapes differ, a score is not finite, or models are fewer than 4.
    """

    def __init__(self, scores: NDArray[np.float64], inside: NDArray[np.bool_]) -> None:
        _check(scores, inside)
        if len(scores) < 4:
            raise InvalidParameterError(f"expected 4 shadow models or more, got {len(scores)}")
        count = inside.sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            with_it = np.where(inside, scores, 0.0).sum(axis=0) / count
            without = np.where(inside, 0.0, scores).sum(axis=0) / (len(scores) - count)
        seen = (count > 0) & (count < len(scores))
        self._middle = np.where(seen, 0.5 * (with_it + without), 0.0)
        self._apart = np.where(seen, with_it - without, 0.0)
        own = np.where(inside, self._middle + 0.5 * self._apart, self._middle - 0.5 * self._apart)
        spread = ((scores - own) ** 2).sum(axis=0) / (len(scores) - 2)
        self._variance = np.maximum(spread, 1e-12 * self._apart**2 + np.finfo(float).tiny)

    @property
    def most_exposed(self) -> int:
        """The row whose two Gaussians are furthest apart, in standard deviations."""
        return int(np.argmax(self._apart**2 / self._variance))

    def log_ratios(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return log-likelihood ratios, positive for "in", of other models' scores of the rows."""
        return np.asarray((scores - self._middle) * self._apart / self._variance)

    def attack(self, scores: NDArray[np.float64], inside: NDArray[np.bool_]) -> Rates:
        """Guess the most exposed row's place in other models, one trial each.

        Args:
            scores: shape (models, n), as those of the shadow models, finite.
            inside: shape (models, n): looked at when all is guessed.

        Raises:
            InvalidParameterError: if shapes differ or a score is not finite.
        """
        _check(scores, inside)
        row = self.most_exposed
        said, was = self.log_ratios(scores)[:, row] > 0.0, inside[:, row]
        return Rates(
            int(was.sum()), int((said & was).sum()), int((~was).sum()), int((said & ~was).sum())
        )


def _check(scores: NDArray[np.float64], inside: NDArray[np.bool_]) -> None:
    if scores.ndim != 2 or scores.shape != inside.shape or not np.isfinite(scores).all():
        raise InvalidParameterError(
            f"expected finite scores (models, n) and as many coins, got shapes {scores.shape} and "
            f"{inside.shape}"
        )
