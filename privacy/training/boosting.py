"""Boosted trees on all parties' rows, exactly, from secure sums of histograms. No privacy.

```
every party                                   secure sum        coordinator
1  rows and labels in every cell                ──►  Σ  ──►     2  cells that make a bin
3  gradients and curvatures in every bin
   of every first child, for all trees          ──►  Σ  ──►     4  the best question of every node;
   that grow together                                              below the last, values of leaves
        ▲                                                            │
        └────────────── bins, trees, trees as far as grown ──────────┘   … depth × batches times
```

Guarantees: the trees are those of all rows in one table, bit for bit, however rows are spread over
parties and in whatever order they come: sums are of whole numbers, and trees are grown from sums
alone. A batch is eight trees grown together on the same gradients, each with features of its own
drawn at random, and their mean is one step: a boosted forest, which reaches in a dozen steps what
single trees reach in hundreds. Only first children are summed, the second is the rest.

What it is not: differentially private. Histograms of few rows give rows away, deep nodes have few.
It is for agreements that allow exact sums, and says so in every plan (`boosting_plan`).

Leaves to others: whether the agreement allows it, and the secure sum. Where a party drops out
within a batch, its trees stop growing where they are, and the next batch goes on without it.

Sources: Friedman 2001, "Greedy function approximation"; Chen and Guestrin 2016, "XGBoost",
equations 6 and 7; categories in the order of their labels: Fisher 1958, as LightGBM has it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError
from privacy.training.boosting_plan import BINS, TREES, Asked, BoostingPlan
from privacy.training.trees import (
    CURVATURE_UNIT,
    GRADIENT_UNIT,
    Forest,
    check_cells,
    descend,
    gradients,
    total_scores,
    whole_values,
)

__all__ = ["Growth", "boosting_contribution", "boosting_step", "start_boosting"]

STEP: Final = 0.8  # of Newton's
_RIDGE: Final = 1.0  # added to a node's curvature
_LEAST_CURVATURE: Final = 1.0  # of a child: four undecided rows
_PRIOR_ROWS: Final = 1.0  # that every category is given at the mean of all


@dataclass(frozen=True, kw_only=True, eq=False)
class Growth:
    """Where the coordinator stands.

    Attributes:
        number: of the sum that is wanted next, from 1; one more than the last when all is done.
        asked: what it is asked for.
        histograms: of each growing tree at the level above, shape (nodes, bins, 2).
        totals: gradient and curvature of each node at the level to come, (trees, nodes, 2).
        parties: that were in the sums of this batch.
        is_cut_short: whether the batch's trees grow no more.
    """

    number: int
    asked: Asked
    histograms: tuple[NDArray[np.int64], ...] = ()
    totals: NDArray[np.int64] | None = None
    parties: tuple[int, ...] = ()
    is_cut_short: bool = False


def boosting_contribution(
    asked: Asked,
    cells: NDArray[np.int32],
    labels: NDArray[np.float64],
    plan: BoostingPlan,
    *,
    number: int,
) -> NDArray[np.int64]:
    """Steps 1 and 3: what one party puts into secure sum `number`.

    Args:
        asked: from `BoostingPlan.decode`, of that sum.
        cells: of the party's rows, from `Grid.cells`, shape (n, features).
        labels: shape (n,), in [0, 1].
        plan: as agreed.
        number: from 1.

    Returns:
        Shape (`plan.length(number)`,).

    Raises:
        InvalidParameterError: if shapes do not fit, a value is out of range, or there are more
            rows than any party declared.
    """
    check_cells(plan.grid, cells, labels)
    if len(cells) > max(plan.declared_rows):
        raise InvalidParameterError(
            f"expected at most {max(plan.declared_rows)} rows, as declared, got {len(cells)}"
        )
    length = plan.length(number)
    scores = total_scores(asked.forests, cells)
    gradient, curvature = gradients(scores, labels)
    if number == 1:
        ones = np.full(len(cells), GRADIENT_UNIT)
        return _histogram(cells, plan.grid.total, ones, gradient).ravel()
    batch, level = plan.place(number)
    codes, parts = asked.bins[cells], []
    for tree, drawn in enumerate(plan.drawn(batch)):
        place = descend(codes, asked.features[tree], asked.cuts[tree], level)
        counted = slice(None) if level == 0 else place % 2 == 0
        starts = np.cumsum([0, *plan.bin_counts[drawn]])
        where = codes[counted][:, drawn] + starts[:-1]
        where += (place[counted] // 2 * starts[-1])[:, np.newaxis]
        size = int(starts[-1]) << max(level - 1, 0)
        parts.append(_histogram(where, size, gradient[counted], curvature[counted]).ravel())
    total = np.concatenate(parts)
    if len(total) != length:
        raise RuntimeError(f"a sum of {length} numbers came to {len(total)}")
    return total


def start_boosting(plan: BoostingPlan) -> Growth:
    """Return where the coordinator begins."""
    return Growth(number=1, asked=plan.decode(1, np.zeros(1)))


def boosting_step(
    total: NDArray[np.int64], growth: Growth, plan: BoostingPlan, parties: Sequence[int]
) -> Growth:
    """Steps 2 and 4: go on from a sum.

    Args:
        total: sum of `boosting_contribution`, shape (`plan.length(growth.number)`,).
        growth: from `start_boosting` or the step before.
        plan: as agreed.
        parties: places of those that are in the sum.

    Raises:
        InvalidParameterError: if the sum has another length or an entry that no such sum can have.
    """
    expected = plan.length(growth.number)
    if total.shape != (expected,) or total.dtype != np.int64:
        raise InvalidParameterError(
            f"expected a sum of {expected} int64, got shape {total.shape} of {total.dtype}"
        )
    if bool((total > plan.sum_bound).any() or (total < -plan.sum_bound).any()):
        raise InvalidParameterError("a sum's entry is out of range: it wrapped or is broken")
    if growth.number == 1:
        bins = _bins(total.reshape(-1, 2), plan)
        return Growth(number=2, asked=growth.asked._replace(bins=bins))
    batch, level = plan.place(growth.number)
    begun = tuple(parties) if level == 0 else growth.parties
    short = growth.is_cut_short or begun != tuple(parties)
    asked, histograms, totals = (
        _cut_short(growth, level) if short else _grow(total, growth, plan, batch, level)
    )
    if level + 1 < plan.depth:
        return Growth(
            number=growth.number + 1,
            asked=asked,
            histograms=histograms,
            totals=totals,
            parties=begun,
            is_cut_short=short,
        )
    values = -STEP / TREES * totals[..., 0] / GRADIENT_UNIT
    values /= totals[..., 1] / CURVATURE_UNIT + _RIDGE
    done = Forest(asked.bins, asked.features, asked.cuts, whole_values(values))
    nothing = np.zeros_like(asked.features)
    following = Asked(asked.bins, (*asked.forests, done), nothing, nothing)
    return Growth(number=growth.number + 1, asked=following)


def _grow(
    total: NDArray[np.int64], growth: Growth, plan: BoostingPlan, batch: int, level: int
) -> tuple[Asked, tuple[NDArray[np.int64], ...], NDArray[np.int64]]:
    """Step 4: ask the best question at every node of a level."""
    features, cuts = growth.asked.features.copy(), growth.asked.cuts.copy()
    nodes = slice((1 << level) - 1, (2 << level) - 1)
    histograms, totals, begin = [], [], 0
    for tree, drawn in enumerate(plan.drawn(batch)):
        counts = plan.bin_counts[drawn]
        shape = (1 << max(level - 1, 0), int(counts.sum()), 2)
        end = begin + shape[0] * shape[1] * shape[2]
        here = total[begin:end].reshape(shape)
        begin = end
        if level > 0:  # the second child is what the first leaves of its parent
            here = np.stack([here, growth.histograms[tree] - here], axis=1)
            here = here.reshape(1 << level, shape[1], 2)
        best, cut, children = _best_cuts(here, counts)
        features[tree, nodes], cuts[tree, nodes] = drawn[best], cut
        histograms.append(here)
        totals.append(children)
    asked = growth.asked._replace(features=features, cuts=cuts)
    return asked, tuple(histograms), np.stack(totals)


def _cut_short(
    growth: Growth, level: int
) -> tuple[Asked, tuple[NDArray[np.int64], ...], NDArray[np.int64]]:
    """Ask nothing more: every row goes to the first child."""
    if growth.totals is None:
        raise RuntimeError("a batch is cut short after its first sum")
    cuts = growth.asked.cuts.copy()
    cuts[:, (1 << level) - 1 : (2 << level) - 1] = BINS
    totals = np.stack([growth.totals, np.zeros_like(growth.totals)], axis=2)
    asked = growth.asked._replace(cuts=cuts)
    return asked, (), totals.reshape(TREES, 2 << level, 2)


def _best_cuts(
    histogram: NDArray[np.int64], counts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Find the cut of every node that gains most (XGBoost, equation 7).

    Args:
        histogram: shape (nodes, bins of all features, 2).
        counts: bins of each feature.

    Returns:
        Place of the feature, cut, and the children's totals, shape (2 nodes, 2). A node that gains
        nothing sends every row to its first child.
    """
    every = np.arange(len(histogram))
    whole = histogram[:, : counts[0]].sum(axis=1)
    gain = np.zeros(len(histogram))
    best = np.zeros(len(histogram), dtype=np.int64)
    cut = np.full(len(histogram), BINS)
    first = whole.copy()
    begin = 0
    for place, count in enumerate(counts):
        left = np.cumsum(histogram[:, begin : begin + count], axis=1)
        begin += count
        right = whole[:, np.newaxis] - left
        gains = _strength(left) + _strength(right) - _strength(whole)[:, np.newaxis]
        least = np.minimum(left[..., 1], right[..., 1])
        gains[least < _LEAST_CURVATURE * CURVATURE_UNIT] = 0.0
        where = gains.argmax(axis=1)
        better = gains[every, where] > gain
        gain = np.where(better, gains[every, where], gain)
        best[better], cut[better] = place, where[better]
        first[better] = left[every, where][better]
    return best, cut, np.stack([first, whole - first], axis=1).reshape(-1, 2)


def _strength(sums: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return what a leaf of these sums gains, twice: G² / (H + ridge)."""
    gradient, curvature = sums[..., 0] / GRADIENT_UNIT, sums[..., 1] / CURVATURE_UNIT
    return np.asarray(gradient * gradient / (curvature + _RIDGE), dtype=np.float64)


def _histogram(
    where: NDArray[np.int64] | NDArray[np.int32],
    size: int,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Sum two whole numbers of each row wherever it falls; shape (size, 2). Below 2⁵³: exact."""
    features = where.shape[1]
    sums = [np.bincount(where.ravel(), np.repeat(one, features), size) for one in (first, second)]
    return np.stack(sums, axis=1).astype(np.int64)


def _bins(counted: NDArray[np.int64], plan: BoostingPlan) -> NDArray[np.int64]:
    """Step 2: make bins of about as many rows each, of cells that follow one another.

    A number's cells follow by size, a word's by the mean of their labels, where every cell is
    given a row at the mean of all.
    """
    rows, gradient = counted[:, 0] / GRADIENT_UNIT, counted[:, 1] / GRADIENT_UNIT
    bins = np.empty(plan.grid.total, dtype=np.int64)
    offsets = plan.grid.offsets
    for feature, begin, end in zip(plan.grid.features, offsets[:-1], offsets[1:], strict=True):
        here, order = slice(begin, end), np.arange(end - begin)
        if not feature.is_numeric:
            mean = gradient[here].sum() / max(rows[here].sum(), 1.0)
            order = np.argsort(
                (gradient[here] + _PRIOR_ROWS * mean) / (rows[here] + _PRIOR_ROWS), kind="stable"
            )
        found = np.empty(end - begin, dtype=np.int64)
        found[order] = _merged(rows[here][order])
        bins[here] = found
    return bins


def _merged(rows: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the bin of each cell: `BINS` at most, heavy cells alone."""
    if len(rows) <= BINS:
        return np.arange(len(rows))
    fill = rows.sum() / BINS
    heavy = rows >= fill
    fill = rows[~heavy].sum() / max(BINS - 2 * int(heavy.sum()), BINS // 4)
    bins = np.zeros(len(rows), dtype=np.int64)
    current, held = 0, 0.0
    for cell, count in enumerate(rows):  # over cells, not people
        if held > 0.0 and (heavy[cell] or held >= fill) and current < BINS - 1:
            current, held = current + 1, 0.0
        bins[cell] = current
        held = np.inf if heavy[cell] else held + count
    return bins
