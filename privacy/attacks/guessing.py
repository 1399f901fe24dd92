"""What guesses about independent coins prove of ε, however many coins fell in one run.

Guarantees: a mechanism that is (ε, δ)-private for each coin gets an `epsilon_lower_bound` above its
ε with a probability of at most 1 - confidence, whatever the attacker does, as long as it fixed
beforehand how many guesses it makes (Steinke, Nasr and Jagielski, "Privacy Auditing with One (1)
Training Run", NeurIPS 2023, theorem 3.1 and the code of its appendix D). Bounds round down.

Leaves to others: flipping the coins fairly and keeping them from the attacker until it has guessed.
A low bound proves nothing: the attacker may be weak.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError

__all__ = ["Guesses", "check_confidence", "epsilon_lower_bound", "guess", "p_value"]

_LARGEST_EPSILON: Final = 64.0
_HALVINGS: Final = 40


@dataclass(frozen=True, slots=True)
class Guesses:
    """How an attacker fared.

    Attributes:
        coins: fair coins flipped, m ≥ 1; each says whether one canary took part.
        made: coins of which it guessed, r, 0 to m, fixed beforehand. Of the others it said nothing.
        correct: guesses that were right, v, 0 to r.

    Raises:
        InvalidParameterError: if they contradict each other.
    """

    coins: int
    made: int
    correct: int

    def __post_init__(self) -> None:
        if not 0 <= self.correct <= self.made <= self.coins or self.coins < 1:
            raise InvalidParameterError(
                f"expected correct <= made <= coins, got {self.correct}, {self.made} and "
                f"{self.coins}"
            )


def guess(scores: NDArray[np.float64], inside: NDArray[np.bool_], made: int) -> Guesses:
    """Guess "in" where scores are highest, "out" where they are lowest, and look.

    Args:
        scores: shape (m,), larger where a canary looks more as if it took part; not NaN.
        inside: shape (m,), the coins. They decide nothing but which guesses were right.
        made: how many guesses, 1 to m, fixed beforehand. The odd one more is "in".

    Raises:
        InvalidParameterError: if shapes differ, a score is NaN or `made` is out of range.
    """
    if scores.ndim != 1 or scores.shape != inside.shape or np.isnan(scores).any():
        raise InvalidParameterError(
            f"expected one score a coin, none NaN, got shapes {scores.shape} and {inside.shape}"
        )
    if not 1 <= made <= len(scores):
        raise InvalidParameterError(f"expected 1 to {len(scores)} guesses, got {made}")
    # The order of equal scores is that of the canaries, of which the coins know nothing.
    order = np.argsort(-scores, kind="stable")
    highest, lowest = order[: made - made // 2], order[len(order) - made // 2 :]
    correct = int(inside[highest].sum() + (~inside[lowest]).sum())
    return Guesses(len(scores), made, correct)


def p_value(guesses: Guesses, epsilon: float, delta: float) -> float:
    """Bound the chance that an (ε, δ)-private mechanism lets so many guesses be right.

    β + 2mδα, where β is the chance of v or more heads of r coins that show heads with probability
    e^ε / (1 + e^ε), and α is the largest, over i, of the chance of v - i to v - 1 heads, over i
    (theorem 3.1).

    Args:
        guesses: what happened.
        epsilon: claimed, 0 or more.
        delta: claimed, in [0, 1].

    Raises:
        InvalidParameterError: if a claim is out of range.
    """
    if not 0.0 <= epsilon < np.inf:
        raise InvalidParameterError(f"expected an epsilon of 0 or more, finite, got {epsilon}")
    if not 0.0 <= delta <= 1.0:
        raise InvalidParameterError(f"expected a delta in [0, 1], got {delta}")
    from scipy.special import bdtrc, gammaln, xlog1py, xlogy

    made, correct, heads = guesses.made, guesses.correct, 1.0 / (1.0 + np.exp(-epsilon))
    beta = float(bdtrc(correct - 1, made, heads)) if correct else 1.0
    alpha = 0.0
    if correct and delta:
        v = np.arange(correct - 1, -1, -1)
        ways = gammaln(made + 1) - gammaln(v + 1) - gammaln(made - v + 1)
        chances = np.exp(ways + xlogy(v, heads) + xlog1py(made - v, -heads))
        alpha = float((np.cumsum(chances) / np.arange(1, correct + 1)).max())
    return min(1.0, beta + 2.0 * guesses.coins * delta * alpha)


def epsilon_lower_bound(guesses: Guesses, delta: float, confidence: float) -> float:
    """Return the largest ε, rounded down, that the guesses refute together with every smaller one.

    Args:
        guesses: what happened.
        delta: the δ at which ε is claimed, in [0, 1].
        confidence: in (0, 1), such as 0.95.

    Returns:
        0 where nothing is refuted; at most 64.

    Raises:
        InvalidParameterError: if an argument is out of range.
    """
    check_confidence(confidence)
    refuted, kept = 0.0, _LARGEST_EPSILON
    for _ in range(_HALVINGS):
        middle = 0.5 * (refuted + kept)
        if p_value(guesses, middle, delta) < 1.0 - confidence:
            refuted = middle
        else:
            kept = middle
    return refuted


def check_confidence(confidence: float) -> None:
    """Refuse a confidence outside (0, 1).

    Raises:
        InvalidParameterError: if it is.
    """
    if not 0.0 < confidence < 1.0:
        raise InvalidParameterError(f"expected a confidence in (0, 1), got {confidence}")
