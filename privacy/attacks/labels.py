"""What a partner learns of labels from the residuals that it gets in a training over columns.

Guarantees: the residuals are those of the very training (`privacy.training.assisted`), of every
round; the attacker knows the model and how labels are noised. A training whose labels are
ε-private gets an `epsilon` above its ε with a probability of at most 1 - confidence: each planted
label is a fair coin, and how many are guessed is fixed before (`guessing`, with δ = 0).

Leaves to others: other columns than those given. They make the model better, and residuals tell no
more of the coins for it: these hang on no column.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from privacy.attacks.guessing import Guesses, epsilon_lower_bound
from privacy.errors import InvalidParameterError
from privacy.randomness import Secret, SecretStream, derive_secret
from privacy.training.assisted import Assisted, AssistedPlan, LabelledRows
from privacy.training.label_noise import randomise_labels
from privacy.training.learners import new_part

__all__ = ["LabelGuesses", "PlantedLabels", "guess_labels", "plant_labels"]

_LEAST_ODDS: Final = 1e-12


@dataclass(frozen=True, slots=True)
class PlantedLabels:
    """What planted labels prove.

    Attributes:
        guesses: how the attacker fared; each coin is a label.
        epsilon: lower bound on ε of a label.
        most: the bound if every guess had been right: no larger ε could have been refuted.
    """

    guesses: Guesses
    epsilon: float
    most: float


@dataclass(frozen=True, slots=True)
class LabelGuesses:
    """How well real labels are told from residuals.

    Attributes:
        people: whose labels were guessed.
        auc: chance that a positive looks more like one than a negative does; 0.5 is guessing.
        accuracy: share of labels guessed right, at the odds that the attacker works out.
    """

    people: int
    auc: float
    accuracy: float


def plant_labels(
    plan: AssistedPlan,
    features: NDArray[np.float64],
    epsilon: float | None,
    secret: Secret,
    *,
    coins: int = 1000,
    confidence: float = 0.95,
) -> PlantedLabels:
    """Replace labels by coins, train, and guess the coins from all residuals.

    Args:
        plan: of the training, its one partner standing for all.
        features: rows, shape (n, width), n ≥ 1; they are repeated until there are enough.
        epsilon: that noises the labels; None for no noise, whatever the plan says.
        secret: of coins and noise.
        coins: labels to plant, 20 or more.
        confidence: of the bound, in (0, 1).

    Raises:
        InvalidParameterError: a number is out of range, or there are no rows.
    """
    if coins < 20 or not len(features):
        raise InvalidParameterError(
            f"expected 20 coins or more and a row, got {coins} and {len(features)}"
        )
    planted = SecretStream(derive_secret(secret, "coins"), "labels").bernoulli(0.5, coins)
    rows = np.resize(features, (coins, features.shape[1]))
    known = np.ones(coins, dtype=np.bool_)
    signs, _ = _seen(plan, rows, planted, known, epsilon, secret)
    told = signs != 0  # people of residual 0 are so by their place, whatever their label
    correct = int(((signs > 0) == planted)[told].sum())
    guesses = Guesses(coins, int(told.sum()), correct)
    best = Guesses(coins, guesses.made, guesses.made)
    return PlantedLabels(
        guesses,
        epsilon_lower_bound(guesses, 0.0, confidence),
        epsilon_lower_bound(best, 0.0, confidence),
    )


def guess_labels(
    plan: AssistedPlan, rows: LabelledRows, epsilon: float | None, secret: Secret
) -> LabelGuesses:
    """Guess the labels of real rows from all residuals.

    Args:
        plan: of the training, its one partner standing for all.
        rows: with their true labels.
        epsilon: that noises the labels; None for no noise.
        secret: of the noise.

    Raises:
        InvalidParameterError: too few labels of one class are left.
    """
    from scipy.stats import rankdata

    signs, logits = _seen(plan, rows.features, rows.labels, rows.known, epsilon, secret)
    told = rows.known & (signs != 0)
    flip = plan.flip if epsilon is not None else 0.0
    seen = np.log(max(1.0 - flip, _LEAST_ODDS) / max(flip, _LEAST_ODDS))
    odds, labels = (logits + np.clip(signs, -1, 1) * seen)[told], rows.labels[told]
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if not positives or not negatives:
        raise InvalidParameterError("all labels are of one class: there is nothing to guess")
    above = float(rankdata(odds)[labels].sum()) - positives * (positives + 1) / 2
    auc = above / (positives * negatives)
    return LabelGuesses(int(told.sum()), auc, float(((odds > 0) == labels).mean()))


def _seen(
    plan: AssistedPlan,
    features: NDArray[np.float64],
    labels: NDArray[np.bool_],
    known: NDArray[np.bool_],
    epsilon: float | None,
    secret: Secret,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Train with one partner of the same columns; return what it sees of labels, and the logits.

    The first is, for each person, in how many rounds more the residual was above 0 than below.
    """
    seen = labels
    if epsilon is not None:
        noise = SecretStream(derive_secret(secret, "noise"), "randomised labels")
        seen = randomise_labels(labels, epsilon, noise)
    rows = LabelledRows(features, seen, known)
    state, part = Assisted.start(plan, rows), new_part(plan.learner)
    signs = np.zeros(len(features))
    while not state.finished:
        residuals = state.residuals(rows).astype(np.float64)
        signs += np.sign(residuals)
        offer = part.propose(features, residuals, plan.flip)
        state = state.hear(rows, offer.fitted, offer.penalties)
        part = offer.part.settle(state.steps[-1])
    return signs, state.logits(rows)
