"""An empirical ε of a training: canaries and shadow models, tried on the training itself.

Guarantees: a training as private as is claimed gets a bound above its ε with a probability of at
most 1 - confidence, whatever else it does. Nothing that is found here is private: it stays where
the rows are.

Leaves to others: reading the rows, and what to do about a bound that is above the stated ε.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from privacy.attacks.guessing import Guesses, check_confidence, epsilon_lower_bound, guess
from privacy.attacks.shadows import Rates, Shadows, epsilon_of_rates
from privacy.attacks.trainings import WatchedTraining
from privacy.errors import InvalidParameterError
from privacy.randomness import Secret, SecretStream, derive_secret

__all__ = ["Canaries", "Claim", "Exposure", "attack_by_canaries", "attack_by_shadows"]

_LOW_FALSE_POSITIVE_RATE: Final = 0.01
_COIN: Final = 0.5

OnRun = Callable[[int, int], None]
"""Told (trainings done, trainings in all) after each."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What is to be refuted, and how surely.

    Attributes:
        epsilon: ε that is promised; None where none is.
        delta: δ at which it is, in [0, 1].
        confidence: of a bound, in (0, 1).

    Raises:
        InvalidParameterError: if one is out of range.
    """

    epsilon: float | None
    delta: float
    confidence: float = 0.95

    def __post_init__(self) -> None:
        check_confidence(self.confidence)
        if not 0.0 <= self.delta <= 1.0:
            raise InvalidParameterError(f"expected a delta in [0, 1], got {self.delta}")


@dataclass(frozen=True, slots=True)
class Canaries:
    """What planted canaries prove.

    Attributes:
        guesses: how the attacker fared.
        trainings: runs that they were divided among.
        epsilon: lower bound on ε.
        most: the bound if every guess had been right: no larger ε could have been refuted.
    """

    guesses: Guesses
    trainings: int
    epsilon: float
    most: float


@dataclass(frozen=True, slots=True)
class Exposure:
    """What shadow models tell.

    Attributes:
        shadows: models that the attacker trained itself.
        rates: how it fared with the most exposed row, the canary among them, in as many others.
        epsilon: lower bound on ε.
        most: the bound if it had always been right.
        rows: own rows that were attacked too.
        auc: chance that a model's own row looks more like one than a row that it did not see, over
            all own rows; 0.5 is guessing.
        true_positive_rate: of own rows that were in, share found at the false positive rate of 1 %.
    """

    shadows: int
    rates: Rates
    epsilon: float
    most: float
    rows: int
    auc: float
    true_positive_rate: float


def attack_by_canaries(
    training: WatchedTraining,
    features: NDArray[np.float64],
    labels: NDArray[np.float64],
    secret: Secret,
    *,
    claim: Claim,
    canaries: int = 1000,
    on_run: OnRun | None = None,
) -> Canaries:
    """Plant canaries by coins, watch, and guess the coins.

    All canaries go into as few trainings as can bear them. Whether they fall in one run or in
    several, each coin meets one (ε, δ)-private mechanism, so that one theorem bounds them all.

    Args:
        training: what is attacked.
        features: own rows, which all take part, shape (n, d).
        labels: shape (n,).
        secret: of this attack alone.
        claim: its ε decides how many guesses are made: of a fifth of the canaries, or of as many
            more as it takes to refute it.
        canaries: coins to flip, 1 or more.
        on_run: told of each training.

    Raises:
        InvalidParameterError: if an argument is out of range.
    """
    if canaries < 1:
        raise InvalidParameterError(f"expected 1 canary or more, got {canaries}")
    made = _guesses_to_make(canaries, claim)
    inside = SecretStream(secret, "coins").bernoulli(_COIN, canaries)
    runs = np.array_split(np.arange(canaries), -(-canaries // training.most_canaries))
    scores = np.zeros(canaries)
    for number, places in enumerate(runs, start=1):
        stream = SecretStream(secret, f"training/{number}")
        scores[places] = training.run(inside[places], features, labels, stream).canaries
        if on_run is not None:
            on_run(number, len(runs))
    guesses = guess(scores, inside, made)
    flawless = Guesses(canaries, made, made)
    return Canaries(
        guesses,
        len(runs),
        epsilon_lower_bound(guesses, claim.delta, claim.confidence),
        epsilon_lower_bound(flawless, claim.delta, claim.confidence),
    )


def _guesses_to_make(canaries: int, claim: Claim) -> int:
    """Choose how many guesses, by what is known beforehand alone."""
    for made in (max(1, canaries // 5), max(1, canaries // 2)):
        most = epsilon_lower_bound(Guesses(canaries, made, made), claim.delta, claim.confidence)
        if claim.epsilon is None or most > claim.epsilon:
            return made
    return canaries


def attack_by_shadows(
    training: WatchedTraining,
    features: NDArray[np.float64],
    labels: NDArray[np.float64],
    secret: Secret,
    *,
    claim: Claim,
    models: int = 64,
    on_run: OnRun | None = None,
) -> Exposure:
    """Infer who took part from published models alone, by LiRA.

    Half of the models are the attacker's own, to learn from; the others are attacked. Every row,
    and one canary, is in each with a chance of one half.

    Args:
        training: what is attacked.
        features: own rows, shape (n, d), n ≥ 1.
        labels: 1.0 and 0.0, shape (n,).
        secret: of this attack alone.
        claim: what is to be refuted.
        models: trainings in all, 8 or more.
        on_run: told of each training.

    Raises:
        InvalidParameterError: if an argument is out of range.
    """
    if models < 8 or not len(features):
        raise InvalidParameterError(
            f"expected 8 models or more and 1 row or more, got {models} and {len(features)}"
        )
    inside = np.zeros((models, 1 + len(features)), dtype=np.bool_)
    scores = np.zeros(inside.shape)
    signs = np.where(labels > _COIN, 1.0, -1.0)
    for number in range(models):
        own = derive_secret(secret, f"model/{number}")
        inside[number] = SecretStream(own, "coins").bernoulli(_COIN, inside.shape[1])
        there = inside[number, 1:]
        stream = SecretStream(own, "training")
        model = training.run(inside[number, :1], features[there], labels[there], stream).model
        # The logit of a row's own label: the logistic loss, scaled to look normal.
        scores[number] = np.append(model[0], signs * (features @ model[1:]))
        if on_run is not None:
            on_run(number + 1, models)
    half = models // 2
    shadows = Shadows(scores[:half], inside[:half])
    rates = shadows.attack(scores[half:], inside[half:])
    auc, found = _told_apart(shadows.log_ratios(scores[half:])[:, 1:], inside[half:, 1:])
    return Exposure(
        shadows=half,
        rates=rates,
        epsilon=epsilon_of_rates(rates, claim.delta, claim.confidence),
        most=epsilon_of_rates(rates.flawless, claim.delta, claim.confidence),
        rows=len(features),
        auc=auc,
        true_positive_rate=found,
    )


def _told_apart(ratios: NDArray[np.float64], inside: NDArray[np.bool_]) -> tuple[float, float]:
    """Return AUC, and the true positive rate at a false positive rate of 1 % at most."""
    from scipy.stats import rankdata

    ranks, those = rankdata(ratios.ravel()), inside.ravel()
    there, others = int(those.sum()), int((~those).sum())
    if not there or not others:
        return 0.5, 0.0
    auc = (float(ranks[those].sum()) - there * (there + 1) / 2) / (there * others)
    highest = np.sort(ratios[~inside])[others - 1 - int(_LOW_FALSE_POSITIVE_RATE * others)]
    return auc, float((ratios[inside] > highest).mean())
