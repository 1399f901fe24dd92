"""Trees over the cells of a grid: how they score, and the gradients that they are grown from.

Guarantees: everything is whole numbers. A tree's values are multiples of 2⁻²⁰, so that a score is
the same in whatever order trees and rows come. A row's gradient and curvature are read from one
table of whole numbers: equal scores have equal gradients, on every machine whose tanh is right to
ten digits, and sums of them are exact. In the table, gradient g and curvature h of the logistic
loss satisfy g² + (3h)² <= 1: g is largest where h is smallest, so that 3h costs no noise at all.

Leaves to others: growing trees (`boosting`, `random_boosting`).
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError
from privacy.randomness import Secret, SecretStream
from privacy.training.binning import Grid

__all__ = [
    "CURVATURE_UNIT",
    "GRADIENT_UNIT",
    "MAXIMUM_DEPTH",
    "VALUE_UNIT",
    "Forest",
    "check_cells",
    "descend",
    "gradients",
    "public_stream",
    "total_scores",
    "whole_values",
]

VALUE_UNIT: Final = 1 << 20
"""A tree's value is a whole number of 2⁻²⁰."""

GRADIENT_UNIT: Final = 1 << 16
"""A gradient is a whole number of 2⁻¹⁶."""

CURVATURE_UNIT: Final = 3 * GRADIENT_UNIT
"""A curvature is a whole number of 2⁻¹⁶ / 3."""

MAXIMUM_DEPTH: Final = 10

_SCORE_BITS: Final = 10  # of the table's steps, 2⁻¹⁰
_LARGEST_SCORE: Final = 16  # beyond it, a gradient changes by less than 10⁻⁶
_LARGEST_VALUE: Final = 8.0
_STEPS: Final = _LARGEST_SCORE << _SCORE_BITS


@dataclass(frozen=True, slots=True, eq=False)
class Forest:
    """Trees of one depth D over one arrangement of cells into bins.

    A node's children are 2i+1 and 2i+2; a row goes to the second where its bin of the node's
    feature is beyond the node's cut.

    Attributes:
        bins: bin of each cell of the grid within its feature, shape (cells,).
        features: feature of each node, shape (trees, 2^D - 1).
        cuts: last bin that goes to the first child, likewise.
        values: of each leaf, in units of 2⁻²⁰, shape (trees, 2^D).

    Raises:
        InvalidParameterError: if shapes do not fit one another.
    """

    bins: NDArray[np.int64]
    features: NDArray[np.int64]
    cuts: NDArray[np.int64]
    values: NDArray[np.int64]

    def __post_init__(self) -> None:
        trees, leaves = self.values.shape
        nodes = (trees, leaves - 1)
        if self.features.shape != nodes or self.cuts.shape != nodes or leaves & (leaves - 1):
            raise InvalidParameterError(
                f"trees of {leaves} leaves have {nodes} nodes, got {self.features.shape} features "
                f"and {self.cuts.shape} cuts"
            )

    @property
    def depth(self) -> int:
        """Questions from a root to a leaf."""
        return int(self.values.shape[1]).bit_length() - 1

    def scores(self, cells: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return the sum of all trees' values for each row, in units of 2⁻²⁰.

        Args:
            cells: from `Grid.cells`, shape (n, features).
        """
        codes = self.bins[cells]
        total = np.zeros(len(cells), dtype=np.int64)
        for features, cuts, values in zip(self.features, self.cuts, self.values, strict=True):
            total += values[descend(codes, features, cuts, self.depth)]
        return total


def descend(
    codes: NDArray[np.int64],
    features: NDArray[np.int64],
    cuts: NDArray[np.int64],
    depth: int,
) -> NDArray[np.int64]:
    """Return the place of each row among the nodes at `depth` of one tree, from 0.

    Args:
        codes: bins of each row, shape (n, features).
        features: of the tree's nodes; those above `depth` are read.
        cuts: likewise.
        depth: 0 for the root.
    """
    flat, starts = codes.ravel(), np.arange(len(codes)) * codes.shape[1]
    place = np.zeros(len(codes), dtype=np.int64)
    for level in range(depth):
        node = place + ((1 << level) - 1)
        place = 2 * place + (flat[starts + features[node]] > cuts[node])
    return place


@cache
def _table() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Probability and three times its curvature at every step of the score, in units of 2⁻¹⁶."""
    scores = np.arange(-_STEPS, _STEPS + 1) / (1 << _SCORE_BITS)
    exact = 0.5 * (1.0 + np.tanh(0.5 * scores))
    probability = np.rint(exact * GRADIENT_UNIT).astype(np.int64)
    curvature = (3 * probability * (GRADIENT_UNIT - probability)) // GRADIENT_UNIT
    return probability, curvature


def gradients(
    scores: NDArray[np.int64], labels: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each row's gradient and curvature of the logistic loss.

    Args:
        scores: in units of 2⁻²⁰, shape (n,).
        labels: shape (n,), in [0, 1].

    Returns:
        Gradients in units of 2⁻¹⁶ and curvatures in units of 2⁻¹⁶/3; a row's two whole numbers have
        a Euclidean norm of at most 2¹⁶.

    Raises:
        InvalidParameterError: if shapes do not fit or a label is out of range.
    """
    if labels.shape != scores.shape:
        raise InvalidParameterError(f"expected {len(scores)} labels, got shape {labels.shape}")
    broken = int(len(labels) - ((labels >= 0.0) & (labels <= 1.0)).sum())
    if broken:
        raise InvalidParameterError(f"labels must lie in [0, 1], got {broken} that do not")
    probability, curvature = _table()
    step = np.clip(scores >> (VALUE_UNIT.bit_length() - 1 - _SCORE_BITS), -_STEPS, _STEPS) + _STEPS
    wanted = np.rint(labels * GRADIENT_UNIT).astype(np.int64)
    return probability[step] - wanted, curvature[step]


def whole_values(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Write values of leaves in units of 2⁻²⁰, none beyond 8."""
    clipped = np.clip(values, -_LARGEST_VALUE, _LARGEST_VALUE)
    return np.rint(clipped * VALUE_UNIT).astype(np.int64)


def total_scores(forests: Iterable[Forest], cells: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the sum of all forests' scores for each row, in units of 2⁻²⁰."""
    total = np.zeros(len(cells), dtype=np.int64)
    for forest in forests:
        total += forest.scores(cells)
    return total


def public_stream(seed: str, label: str) -> SecretStream:
    """Return random numbers that everybody who knows `seed` knows: for the shape of trees alone."""
    return SecretStream(Secret(hashlib.sha256(f"trees\x00{seed}".encode()).digest()), label)


def check_cells(grid: Grid, cells: NDArray[np.int32], labels: NDArray[np.float64]) -> None:
    """Refuse cells that are not of `grid`, or labels of another number.

    Raises:
        InvalidParameterError: if they are not.
    """
    if cells.ndim != 2 or cells.shape[1] != len(grid.features) or len(labels) != len(cells):
        raise InvalidParameterError(
            f"expected cells of {len(grid.features)} features and as many labels, got "
            f"{cells.shape} and {labels.shape}"
        )
