"""Public cells: where a person's encoded row falls, by the agreement's terms alone.

Guarantees: cells come from bounds, scales and categories that were agreed, never from data. A row
falls into exactly one cell of every feature, whatever it holds, so that one person changes one
entry in a histogram of a feature. Cells of a number are equally wide on its agreed scale: on a log
scale they are fine where most amounts are.

Leaves to others: encoding (`encoding`); which cells make a bin (`boosting`, `random_boosting`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError
from privacy.training.encoding import Feature, NumericFeature, Scale

__all__ = ["FeatureCells", "Grid", "grid_of"]

_MAXIMUM_CELLS: Final = 1 << 14


@dataclass(frozen=True, slots=True)
class FeatureCells:
    """The cells of one feature.

    Attributes:
        columns: its encoded columns: 1 of a number, one for each category of a word.
        low: what the smallest number is encoded as, -1 or 0; 0 for a word. The largest is 1.
        count: cells, 2 or more. A word has one for each category, and the last for all others.
    """

    columns: int
    low: int
    count: int

    def __post_init__(self) -> None:
        if not (1 <= self.columns < _MAXIMUM_CELLS and self.low in {-1, 0}):
            raise InvalidParameterError(
                f"expected 1 to {_MAXIMUM_CELLS} columns from -1 or 0, got {self.columns} from "
                f"{self.low}"
            )
        if not 2 <= self.count <= _MAXIMUM_CELLS or self.columns not in {1, self.count - 1}:
            raise InvalidParameterError(
                f"expected 2 to {_MAXIMUM_CELLS} cells, one more than categories, got {self.count}"
            )

    @property
    def is_numeric(self) -> bool:
        """Whether cells follow one another; those of words do not."""
        return self.columns == 1

    def cells(self, encoded: NDArray[np.float64]) -> NDArray[np.int32]:
        """Return each row's cell; `encoded` has shape (n, columns) and a range of [low, 1]."""
        if self.is_numeric:
            share = (np.clip(encoded[:, 0], self.low, 1.0) - self.low) / (1 - self.low)
            return np.floor(share * (self.count - 1) + 0.5).astype(np.int32)
        said = encoded > 0.5
        return np.where(said.any(axis=1), said.argmax(axis=1), self.columns).astype(np.int32)


@dataclass(frozen=True)
class Grid:
    """The cells of all features, one feature after the other."""

    features: tuple[FeatureCells, ...]

    def __post_init__(self) -> None:
        if not self.features:
            raise InvalidParameterError("expected cells of one feature or more, got none")

    @property
    def width(self) -> int:
        """Encoded columns, the constant among them."""
        return sum(feature.columns for feature in self.features) + 1

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Where each feature's cells begin among all; one more entry for where they end."""
        return np.cumsum([0, *(feature.count for feature in self.features)])

    @property
    def total(self) -> int:
        """Cells of all features."""
        return int(self.offsets[-1])

    def cells(self, encoded: NDArray[np.float64]) -> NDArray[np.int32]:
        """Return the cell of every row in every feature, counted over all features' cells.

        Args:
            encoded: rows as `Encoder` makes them, shape (n, `width`).

        Returns:
            Shape (n, features).

        Raises:
            InvalidParameterError: if rows are of another width or not finite.
        """
        if encoded.ndim != 2 or encoded.shape[1] != self.width:
            raise InvalidParameterError(
                f"expected rows of {self.width} encoded columns, got shape {encoded.shape}"
            )
        broken = int(len(encoded) - np.isfinite(encoded).all(axis=1).sum())
        if broken:
            raise InvalidParameterError(
                f"features must be finite, got {broken} rows that are not: encode them first"
            )
        found = np.empty((len(encoded), len(self.features)), dtype=np.int32)
        length, begin = np.sqrt(len(self.features) + 1), 0
        for place, feature in enumerate(self.features):
            part = encoded[:, begin : begin + feature.columns] * length
            found[:, place] = feature.cells(part) + self.offsets[place]
            begin += feature.columns
        return found


def grid_of(features: Sequence[Feature], numeric_cells: int) -> Grid:
    """Lay a grid over the features of an encoder.

    Args:
        features: as the encoder has them.
        numeric_cells: cells of each number, 2 to 16,384.

    Raises:
        InvalidParameterError: if there is no feature, or a number of cells is out of range.
    """
    cells = []
    for feature in features:
        if isinstance(feature, NumericFeature):
            low = -1 if feature.scale is Scale.LINEAR else 0
            cells.append(FeatureCells(columns=1, low=low, count=numeric_cells))
        else:
            known = len(feature.categories)
            cells.append(FeatureCells(columns=known, low=0, count=known + 1))
    return Grid(tuple(cells))
