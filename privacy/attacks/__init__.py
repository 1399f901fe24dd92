"""Attacks on our own trainings: an empirical ε, to be held against the stated one.

`trainings` shows a training to an attacker, `guessing` and `shadows` say what its guesses prove,
`audit` puts them together; `labels` does so for labels of trainings over columns. A bound above the
stated ε proves that something is broken; one below it proves nothing, and is what a sound training
gives.
"""

from privacy.attacks.audit import (
    Canaries,
    Claim,
    Exposure,
    attack_by_canaries,
    attack_by_shadows,
)
from privacy.attacks.guessing import Guesses, epsilon_lower_bound, guess, p_value
from privacy.attacks.labels import LabelGuesses, PlantedLabels, guess_labels, plant_labels
from privacy.attacks.shadows import Rates, Shadows, epsilon_of_rates
from privacy.attacks.trainings import (
    Flaw,
    Seen,
    WatchedDpSgd,
    WatchedExactSums,
    WatchedSums,
    WatchedTraining,
)

__all__ = [
    "Canaries",
    "Claim",
    "Exposure",
    "Flaw",
    "Guesses",
    "LabelGuesses",
    "PlantedLabels",
    "Rates",
    "Seen",
    "Shadows",
    "WatchedDpSgd",
    "WatchedExactSums",
    "WatchedSums",
    "WatchedTraining",
    "attack_by_canaries",
    "attack_by_shadows",
    "epsilon_lower_bound",
    "epsilon_of_rates",
    "guess",
    "guess_labels",
    "p_value",
    "plant_labels",
]
