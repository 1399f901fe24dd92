"""Positives that are known, and everybody else unlabelled: weights, hidden share, probabilities.

Among people who are no seeds some would be positives all the same. Taken for negatives, they teach
a model the wrong thing, the more so the fewer seeds there are. Seeds are assumed to be drawn from
the positives at random, whatever their features (Elkan and Noto, "Learning classifiers from only
positive and unlabeled data", KDD 2008, section 2): a list of one's best customers is not.

Guarantees: no I/O; one person changes what is counted here in one cell, by one. What is made of
noised counts costs nothing more.

Leaves to others: training (`dp_sgd`), charging the counts (`privacy.accounting`), and that one
person is one row.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from privacy.accounting.events import DiscreteLaplaceEvent
from privacy.errors import InvalidParameterError
from privacy.mechanisms import noised_count
from privacy.randomness import SecretStream

__all__ = [
    "CELLS",
    "UNLABELLED_WEIGHT",
    "HiddenShare",
    "ScoreCounts",
    "corrected",
    "label_frequency",
]

UNLABELLED_WEIGHT: Final = 0.1
"""What an unlabelled row weighs in training beside a seed (Lee and Liu, ICML 2003, weigh so)."""

CELLS: Final = 24
"""Cells that scores are counted in."""

_FAR: Final = 1_000
_LOWEST, _HIGHEST = -6.0, 6.0
_DOUBT: Final = 0.1  # chance that the bounds of the search fail


def label_frequency(held_out: NDArray[np.float64]) -> float:
    """Return c = P(seed | positive), from a model of P(seed | x) on seeds it was not trained on.

    The mean (Elkan and Noto, equation 5: e₁). It is right where positives can be told from
    negatives by their features for sure, and too small else, so that probabilities corrected by
    it are too large.

    Args:
        held_out: the model's probabilities on held-out seeds, in [0, 1], shape (n,), n ≥ 1.

    Raises:
        InvalidParameterError: if there is none, one is out of range, or all are 0.
    """
    if not len(held_out) or not ((held_out >= 0) & (held_out <= 1)).all() or not held_out.any():
        raise InvalidParameterError("expected one or more probabilities above 0, up to 1")
    return float(held_out.mean())


def corrected(probabilities: NDArray[np.float64], frequency: float) -> NDArray[np.float64]:
    """Return P(positive | x) = P(seed | x) / c (Elkan and Noto, lemma 1), at most 1.

    The order of people stays what it was.

    Args:
        probabilities: P(seed | x) of some people, in [0, 1].
        frequency: c, the share of positives who are seeds, in (0, 1].

    Raises:
        InvalidParameterError: if `frequency` is out of range.
    """
    if not 0.0 < frequency <= 1.0:
        raise InvalidParameterError(f"expected a label frequency in (0, 1], got {frequency}")
    return np.minimum(probabilities / frequency, 1.0)


class HiddenShare(BaseModel):
    """An estimate of how many unlabelled people are positives.

    Attributes:
        share: of them, in [0, 1].
        standard_error: of the share, by chance and by the noise on the counts; not by positives
            that look like negatives, which move the share upwards.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    share: Annotated[float, Field(ge=0, le=1)]
    standard_error: Annotated[float, Field(ge=0, allow_inf_nan=False)]

    @property
    def lost(self) -> bool:
        """Whether the share is less than two standard errors: it may as well be none."""
        return self.share < 2.0 * self.standard_error


@dataclass(frozen=True, eq=False)
class ScoreCounts:
    """How many seeds, and how many unlabelled people, have which score.

    Attributes:
        seeds: counts from the lowest cell to the highest, shape (24,); exact or noised.
        unlabelled: likewise.
        sigma: standard deviation of the noise on each count; 0 where they are exact.
    """

    seeds: NDArray[np.int64]
    unlabelled: NDArray[np.int64]
    sigma: float = 0.0

    @classmethod
    def of(cls, scores: NDArray[np.float64], seeds: NDArray[np.bool_]) -> Self:
        """Count people.

        Args:
            scores: log-odds, finite, shape (n,); counted between -6 and 6, in steps of a half.
            seeds: who is one, shape (n,).

        Raises:
            InvalidParameterError: if shapes differ or a score is not finite.
        """
        if scores.shape != seeds.shape or not np.isfinite(scores).all():
            raise InvalidParameterError(
                f"expected a finite score for each of {seeds.shape} people, got {scores.shape}"
            )
        place = (scores - _LOWEST) * (CELLS / (_HIGHEST - _LOWEST))
        cells = np.clip(np.floor(place), 0, CELLS - 1).astype(np.int64)
        known = np.bincount(cells[seeds], minlength=CELLS)
        return cls(known, np.bincount(cells[~seeds], minlength=CELLS))

    @classmethod
    def expected(cls, people: int, seeds: int, sigma: float) -> Self:
        """Return counts as they may be before anybody counts, at their kindest.

        As many positives are hidden as are seeds, and a model that tells all of them from the rest
        spreads them evenly over the upper half of the cells. What cannot be estimated from these
        counts is not to be hoped for.

        Args:
            people: all of them, seeds included.
            seeds: of them, from 0 to `people`.
            sigma: standard deviation of the noise on each count.

        Raises:
            InvalidParameterError: if there are fewer people than seeds.
        """
        if not 0 <= seeds <= people:
            raise InvalidParameterError(f"expected 0 to {people} seeds, got {seeds}")
        hidden = min(seeds, people - seeds)
        lower, upper = np.arange(CELLS // 2), np.arange(CELLS // 2, CELLS)
        known, unknown = (np.zeros(CELLS, dtype=np.int64) for _ in range(2))
        for counts, place, many in (
            (known, upper, seeds),
            (unknown, upper, hidden),
            (unknown, lower, people - seeds - hidden),
        ):
            counts[place] = (many + np.arange(len(place))) // len(place)
        return cls(known, unknown, sigma)

    def noised(self, mechanism: DiscreteLaplaceEvent, stream: SecretStream) -> Self:
        """Return the counts with two-sided geometric noise on each.

        All of them together cost what `mechanism` says of one: somebody who comes or goes changes
        one count by one. Who turns from unlabelled into a seed changes two.

        Args:
            mechanism: the noise on one count.
            stream: of this release alone.
        """
        far = 1 + math.ceil(_FAR * mechanism.scale)  # so that nothing is cut at 0
        cells = np.concatenate([self.seeds, self.unlabelled]).tolist()
        drawn = np.array([noised_count(far + cell, mechanism, stream) - far for cell in cells])
        sigma = math.hypot(self.sigma, math.sqrt(2.0) * mechanism.scale)
        return type(self)(drawn[:CELLS], drawn[CELLS:], sigma)

    def with_those_of(self, other: Self) -> Self:
        """Return the counts of two parties together."""
        return type(self)(
            self.seeds + other.seeds,
            self.unlabelled + other.unlabelled,
            math.hypot(self.sigma, other.sigma),
        )

    def hidden_share(self) -> HiddenShare | None:
        """Estimate the share of positives among unlabelled people, and its standard error.

        Among the best-scored, unlabelled people are at most as many, for each seed, as the hidden
        positives allow: the least ratio of the two tails is the estimate, taken where chance and
        noise leave it surest (Garg et al., "Mixture proportion estimation and PU learning",
        NeurIPS 2021, algorithm 1: best bin estimation). It errs upwards where negatives score as
        high as positives do. The standard error is that of a ratio of two shares, as if its tail
        had not been chosen.

        Returns:
            None where noise or chance leave nothing to say.
        """
        seeds, others = int(self.seeds.sum()), int(self.unlabelled.sum())
        if seeds < 1 or others < 1:
            return None
        in_tail = np.arange(1, CELLS + 1)
        known = np.cumsum(self.seeds[::-1]) / seeds
        unknown = np.cumsum(self.unlabelled[::-1]) / others
        doubt = math.log(4.0 / _DOUBT)
        spread = sum(
            np.sqrt(doubt / (2 * count) + 2 * doubt * in_tail * (self.sigma / count) ** 2)
            for count in (seeds, others)
        )
        usable = known > spread
        if not usable.any():
            return None
        places = np.flatnonzero(usable)
        surest = int(places[np.argmin((unknown + spread)[usable] / known[usable])])
        ratio = float(np.clip(unknown[surest] / known[surest], 0.0, 1.0))
        variance = self._variance(known[surest], seeds, surest + 1) * ratio**2
        variance += self._variance(unknown[surest], others, surest + 1)
        return HiddenShare(share=ratio, standard_error=math.sqrt(variance) / float(known[surest]))

    def _variance(self, share: float, people: int, in_tail: int) -> float:
        """Return the variance of a tail's share of people, by chance and by noise."""
        share = min(max(float(share), 0.0), 1.0)
        cells = in_tail * (1.0 - share) ** 2 + (CELLS - in_tail) * share**2
        return share * (1.0 - share) / people + cells * (self.sigma / people) ** 2

    def frequency(self) -> float | None:
        """Return c = P(seed | positive) that follows from the hidden share; None without one."""
        hidden, seeds = self.hidden_share(), max(0, int(self.seeds.sum()))
        if hidden is None or not seeds:
            return None
        return seeds / (seeds + hidden.share * max(0, int(self.unlabelled.sum())))
