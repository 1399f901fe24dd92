"""Whether a model chooses of one group as it does of another.

Guarantees: groups of fewer people than asked for are counted and nothing else is said of them; the
four-fifths rule (29 CFR 1607.4 D) holds each group's selection rate against the highest one.

Leaves to others: which groups matter, and whether a difference is justified. None of these figures
is private, as in `evaluation`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError

__all__ = ["FOUR_FIFTHS", "GroupFigures", "compare_groups"]

FOUR_FIFTHS: Final = 0.8
"""Of the highest selection rate: below it, a group is said to be impacted adversely."""


@dataclass(frozen=True, slots=True)
class GroupFigures:
    """How a model treats the people of one group.

    Attributes:
        group: value of the feature; None for people of no agreed value.
        people: in the group.
        positive_share: share of them labelled positive; None for too few, as are the others.
        candidates: people who could be chosen.
        selection_rate: share of the candidates that is chosen.
        ratio: that rate over the highest one of any group; None also where nobody is chosen.
        adverse: whether the ratio is below four fifths.
        auc: chance that a positive of the group outranks a negative of it; None also where it has
            one kind of label alone.
    """

    group: str | None
    people: int
    positive_share: float | None = None
    candidates: int | None = None
    selection_rate: float | None = None
    ratio: float | None = None
    adverse: bool = False
    auc: float | None = None


def compare_groups(
    values: NDArray[Any],
    groups: Sequence[str],
    scores: NDArray[np.float64],
    labels: NDArray[np.bool_],
    chosen: NDArray[np.bool_],
    candidates: NDArray[np.bool_],
    *,
    minimum: int,
) -> tuple[GroupFigures, ...]:
    """Compare the groups that a feature makes.

    Args:
        values: of the feature, shape (n,); what is none of `groups` is one group more.
        groups: values that are agreed.
        scores: shape (n,).
        labels: shape (n,).
        chosen: who is chosen, shape (n,); candidates only.
        candidates: who could be, shape (n,).
        minimum: candidates below which nothing is said of a group, 1 or more.

    Raises:
        InvalidParameterError: if shapes differ, somebody is chosen who could not be, or `minimum`
            is below 1.
    """
    if len({len(one) for one in (values, scores, labels, chosen, candidates)}) > 1:
        raise InvalidParameterError("expected as many values, scores, labels and choices")
    if minimum < 1 or bool((chosen & ~candidates).any()):
        raise InvalidParameterError("expected a minimum of 1 or more, and candidates to be chosen")
    within = {group: values == group for group in groups}
    rest = ~np.logical_or.reduce([np.zeros(len(scores), dtype=np.bool_), *within.values()])
    counted = [*within.items(), (None, rest)]
    told = [(group, mask, int((candidates & mask).sum())) for group, mask in counted]
    rates = {
        group: float((chosen & mask).sum() / able) for group, mask, able in told if able >= minimum
    }
    highest = max(rates.values(), default=0.0)
    found = []
    for group, mask, able in told:
        if group not in rates:
            found.append(GroupFigures(group, int(mask.sum())))
            continue
        ratio = rates[group] / highest if highest else None
        found.append(
            GroupFigures(
                group,
                int(mask.sum()),
                positive_share=float(labels[mask].mean()),
                candidates=able,
                selection_rate=rates[group],
                ratio=ratio,
                adverse=ratio is not None and ratio < FOUR_FIFTHS,
                auc=_auc(scores[mask], labels[mask]),
            )
        )
    return tuple(one for one in found if one.group is not None or one.people)


def _auc(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> float | None:
    from scipy.stats import rankdata

    positives, negatives = int(labels.sum()), int((~labels).sum())
    if not positives or not negatives:
        return None
    ranks = float(rankdata(scores)[labels].sum())
    return (ranks - positives * (positives + 1) / 2) / (positives * negatives)
