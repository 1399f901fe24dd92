"""How sure the figures of a ranking are: intervals by the bootstrap, and calibration by bins.

Guarantees: an interval is that of the Poisson bootstrap (Hanley and MacGibbon 2006), in which each
row counts as often as a Poisson draw of mean 1 says, and its ends are percentiles; ties never
depend on the order of rows; the same stream gives the same intervals. None of these figures is
private, as in `evaluation`.

Leaves to others: what the labels mean. Rows must be people, each of them once: an interval tells
of other people like these, not of a model trained anew.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError
from privacy.randomness import SecretStream

__all__ = ["CalibrationBin", "Interval", "RankingIntervals", "calibration", "ranking_intervals"]

_WEIGHTS_AT_ONCE: Final = 1 << 22
_LARGEST_DRAW: Final = 20  # a Poisson draw of mean 1 is above it once in 10²⁰


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure, and where it lies for most of the people that these stand for.

    Attributes:
        value: of these rows.
        low: lower end.
        high: upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class RankingIntervals:
    """What a ranking is worth; see `evaluation.RankingQuality`."""

    auc: Interval
    average_precision: Interval
    lift_at_5: Interval
    lift_at_10: Interval


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Rows of like scores.

    Attributes:
        rows: how many.
        predicted: mean probability that the model gives them.
        observed: share of them that is positive.
    """

    rows: int
    predicted: float
    observed: float


def ranking_intervals(
    scores: NDArray[np.float64],
    labels: NDArray[np.bool_],
    stream: SecretStream,
    *,
    replicates: int = 200,
    level: float = 0.95,
) -> RankingIntervals:
    """Judge `scores` by `labels`, with intervals.

    Args:
        scores: shape (n,), finite; higher means more likely positive.
        labels: shape (n,), both kinds present.
        stream: decides how often a row counts.
        replicates: of the bootstrap, 20 or more. One without both kinds of label is left out.
        level: share of replicates within an interval, in (0, 1).

    Raises:
        InvalidParameterError: if shapes differ, a score is not finite, a label is missing, or a
            number is out of range.
    """
    _check(scores, labels)
    if replicates < 20 or not 0.0 < level < 1.0:
        raise InvalidParameterError(
            f"expected 20 replicates or more and a level in (0, 1), got {replicates} and {level}"
        )
    order = np.argsort(-scores, kind="stable")
    truth = labels[order]
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.inf))  # of each block of ties
    value = _figures(np.ones((1, len(truth))), truth, starts)[0]
    at_once = max(1, _WEIGHTS_AT_ONCE // len(truth))
    chunks = [min(at_once, replicates - done) for done in range(0, replicates, at_once)]
    found = np.concatenate(
        [_figures(_poisson(count, len(truth), stream), truth, starts) for count in chunks]
    )
    ends = [0.5 - 0.5 * level, 0.5 + 0.5 * level]
    low, high = np.quantile(found, ends, axis=0) if len(found) else (value, value)
    return RankingIntervals(
        *(Interval(*map(float, figure)) for figure in zip(value, low, high, strict=True))
    )


def calibration(
    probabilities: NDArray[np.float64], labels: NDArray[np.bool_], *, bins: int = 10
) -> tuple[CalibrationBin, ...]:
    """Hold probabilities against what came true, in bins of as many rows each, lowest first.

    Equal probabilities fall into one bin, so that there may be fewer.

    Args:
        probabilities: shape (n,), in [0, 1].
        labels: shape (n,), both kinds present.
        bins: at most, 1 or more.

    Raises:
        InvalidParameterError: if shapes differ, a probability is out of range, a label is missing,
            or bins are fewer than 1.
    """
    _check(probabilities, labels)
    if bins < 1 or probabilities.min() < 0.0 or probabilities.max() > 1.0:
        raise InvalidParameterError("expected 1 bin or more, and probabilities in [0, 1]")
    edges = np.unique(np.quantile(probabilities, np.linspace(0.0, 1.0, bins + 1))[1:-1])
    place = np.searchsorted(edges, probabilities, side="left")
    rows = np.bincount(place, minlength=len(edges) + 1)
    predicted = np.bincount(place, weights=probabilities, minlength=len(rows))
    observed = np.bincount(place, weights=labels, minlength=len(rows))
    return tuple(
        CalibrationBin(int(n), float(p / n), float(o / n))
        for n, p, o in zip(rows, predicted, observed, strict=True)
        if n
    )


def _check(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> None:
    if scores.ndim != 1 or labels.shape != scores.shape or labels.dtype != np.bool_:
        raise InvalidParameterError(
            f"expected one true or false for each score, got shapes {labels.shape} and "
            f"{scores.shape}, {labels.dtype}"
        )
    if not np.isfinite(scores).all():
        raise InvalidParameterError("scores must be finite: the model diverged or was misread")
    if labels.all() or not labels.any():
        raise InvalidParameterError(
            f"both labels must be there, got {labels.sum()} true of {labels.size}"
        )


def _poisson(replicates: int, rows: int, stream: SecretStream) -> NDArray[np.float64]:
    """Draw how often each row counts in each replicate, by inversion."""
    steps = np.arange(_LARGEST_DRAW)
    chances = np.exp(-1.0) * np.cumsum(1.0 / np.cumprod(np.maximum(steps, 1), dtype=np.float64))
    drawn = np.searchsorted(chances, stream.uniform(replicates * rows))
    return drawn.reshape(replicates, rows).astype(np.float64)


def _figures(
    weights: NDArray[np.float64], truth: NDArray[np.bool_], starts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return AUC, average precision and both lifts of each replicate that has both labels.

    Args:
        weights: shape (replicates, n), rows best first.
        truth: shape (n,).
        starts: first row of each block of equal scores.
    """
    everyone = np.add.reduceat(weights, starts, axis=1)
    positives = np.add.reduceat(weights * truth, starts, axis=1)
    total, found = everyone.sum(axis=1), positives.sum(axis=1)
    both = (found > 0.0) & (found < total)
    everyone, positives, total, found = everyone[both], positives[both], total[both], found[both]
    above, above_found = np.cumsum(everyone, axis=1), np.cumsum(positives, axis=1)
    below = (total - found)[:, None] - (above - above_found)  # negatives under each block
    wins = positives * (below + 0.5 * (everyone - positives))
    auc = wins.sum(axis=1) / (found * (total - found))
    precision = above_found / np.maximum(above, 1.0)
    average_precision = (positives * precision).sum(axis=1) / found
    lifts = [
        [
            np.interp(share * n, np.append(0.0, rows), np.append(0.0, gained)) / (share * p)
            for n, rows, gained, p in zip(total, above, above_found, found, strict=True)
        ]
        for share in (0.05, 0.10)
    ]
    return np.column_stack([auc, average_precision, *lifts])
