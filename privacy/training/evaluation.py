"""How well a score ranks people, where the truth is known: simulations and published data.

Guarantees: ties never depend on the order of rows; a tied block counts by its expected value.
None of these figures is private: computed on people's rows, each is a release of its own that the
ledger has not seen. They judge trials; they are not to leave a party.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError

__all__ = ["RankingQuality", "fit_without_privacy", "lift", "ranking_quality"]

_ROC_POINTS = 200
_LIFT_SHARES = tuple(percent / 100 for percent in range(1, 101))


@dataclass(frozen=True, slots=True)
class RankingQuality:
    """What a ranking is worth.

    Attributes:
        auc: area under the ROC curve: the chance that a random positive outranks a random
            negative, in [0, 1]; 0.5 is guessing.
        average_precision: area under the precision-recall curve, in (0, 1]; guessing gives the
            positives' share.
        lift_at_5: positives among the best 5 % over those among as many random rows.
        lift_at_10: the same for the best 10 %.
        roc: (false positive rate, true positive rate), ascending from (0, 0) to (1, 1), at most
            200 points.
        lift_curve: (share, lift) for the best 1 %, 2 %, … 100 %.
    """

    auc: float
    average_precision: float
    lift_at_5: float
    lift_at_10: float
    roc: tuple[tuple[float, float], ...]
    lift_curve: tuple[tuple[float, float], ...]


def ranking_quality(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> RankingQuality:
    """Judge `scores` by `labels`.

    Args:
        scores: shape (n,), finite; higher means more likely positive.
        labels: shape (n,), of 0 and 1, both present.

    Raises:
        InvalidParameterError: if shapes differ, a score is not finite, or a class is missing.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    truth = _checked(scores, labels)
    false_positives, true_positives, _ = roc_curve(truth, scores)
    kept = np.unique(np.linspace(0, len(false_positives) - 1, _ROC_POINTS).round().astype(int))
    lifts = _lifts(scores, truth, np.array(_LIFT_SHARES))
    return RankingQuality(
        auc=float(roc_auc_score(truth, scores)),
        average_precision=float(average_precision_score(truth, scores)),
        lift_at_5=lift(scores, labels, 0.05),
        lift_at_10=lift(scores, labels, 0.10),
        roc=tuple(zip(false_positives[kept].tolist(), true_positives[kept].tolist(), strict=True)),
        lift_curve=tuple(zip(_LIFT_SHARES, lifts.tolist(), strict=True)),
    )


def lift(scores: NDArray[np.float64], labels: NDArray[np.bool_], share: float) -> float:
    """Return how many times more positives the best `share` of rows holds than a random one.

    A share that ends inside a block of tied scores takes the block's mean, which is the expected
    value over all orders of the tied rows.

    Args:
        scores: shape (n,), finite.
        labels: shape (n,), of 0 and 1, both present.
        share: in (0, 1].

    Raises:
        InvalidParameterError: as `ranking_quality`, or if `share` is out of range.
    """
    if not 0.0 < share <= 1.0:
        raise InvalidParameterError(f"share must lie in (0, 1], got {share}")
    return float(_lifts(scores, _checked(scores, labels), np.array([share]))[0])


def fit_without_privacy(
    features: NDArray[np.float64], labels: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Fit logistic regression without any protection: a yardstick for simulations only.

    Args:
        features: shape (n, width), as `Encoder` makes them: its constant column is the intercept.
        labels: shape (n,), of 0 and 1, both present.

    Returns:
        Weights, shape (width,).

    Raises:
        InvalidParameterError: if shapes do not fit, a value is not finite or a class is missing.
    """
    from sklearn.linear_model import LogisticRegression

    if features.ndim != 2 or not np.isfinite(features).all():
        raise InvalidParameterError(f"features must be finite, (n, width), got {features.shape}")
    truth = _checked(features[:, 0], labels)
    # Rows of norm 1 make for large weights: a weak penalty, there only to keep them finite.
    model = LogisticRegression(C=100.0, fit_intercept=False, max_iter=1000).fit(features, truth)
    weights: NDArray[np.float64] = model.coef_[0]
    return weights


def _checked(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the labels as booleans, if they and the scores can be judged."""
    if scores.ndim != 1 or labels.shape != scores.shape:
        raise InvalidParameterError(
            f"scores and labels must be of one length, got {scores.shape} and {labels.shape}"
        )
    if not np.isfinite(scores).all():
        raise InvalidParameterError("scores must be finite: the model diverged or was misread")
    truth = labels.astype(bool)
    if not np.array_equal(truth, labels) or truth.all() or not truth.any():
        raise InvalidParameterError(
            f"labels must be 0 and 1, both present, got {truth.sum()} true of {truth.size}"
        )
    return truth


def _lifts(
    scores: NDArray[np.float64], truth: NDArray[np.bool_], shares: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Read the gain curve, straight across each block of ties, at `shares`."""
    _, block = np.unique(-scores, return_inverse=True)
    rows = np.concatenate([[0], np.cumsum(np.bincount(block))])
    positives = np.concatenate([[0], np.cumsum(np.bincount(block, weights=truth))])
    found = np.interp(shares * len(scores), rows, positives)
    return np.asarray(found / (shares * positives[-1]), dtype=np.float64)
