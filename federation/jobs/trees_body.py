"""Boosted trees, as they are published and score.

Guarantees: closed; a body that exists scores every finite row of its columns, and the same at
every party.

Leaves to others: growing trees (`privacy.training`), what is said of their making (`model`).
"""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from privacy.training.binning import FeatureCells, Grid
from privacy.training.trees import MAXIMUM_DEPTH, VALUE_UNIT, Forest, total_scores

__all__ = ["TreeBatch", "TreesBody"]

_Place = Annotated[int, Field(strict=True, ge=0, lt=1 << 15)]
_Value = Annotated[int, Field(strict=True, ge=-8 * VALUE_UNIT, le=8 * VALUE_UNIT)]


class TreeBatch(BaseModel):
    """Trees of one step of boosting, of one depth D.

    Attributes:
        features: the feature that each node asks for, tree by tree, from the root down; a node's
            children are 2i+1 and 2i+2. Each tree has 2^D - 1 nodes.
        cuts: last bin that goes to the first child, likewise.
        values: of the leaves, from the left, in units of 2⁻²⁰; each tree has 2^D.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    features: tuple[_Place, ...]
    cuts: tuple[_Place, ...]
    values: Annotated[tuple[_Value, ...], Field(min_length=1)]


class TreesBody(BaseModel):
    """Boosted trees.

    Attributes:
        columns: name of each encoded column.
        cells: of each feature, in the order of its columns.
        depth: questions from a root to a leaf.
        bins: bin of each cell within its feature, for all batches or for each.
        batches: steps of boosting; their scores are added.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["trees"] = "trees"
    columns: Annotated[tuple[str, ...], Field(min_length=1)]
    cells: Annotated[tuple[FeatureCells, ...], Field(min_length=1)]
    depth: Annotated[int, Field(strict=True, ge=1, le=MAXIMUM_DEPTH)]
    bins: Annotated[tuple[tuple[_Place, ...], ...], Field(min_length=1)]
    batches: Annotated[tuple[TreeBatch, ...], Field(min_length=1)]

    @classmethod
    def of(cls, columns: Sequence[str], grid: Grid, forests: Sequence[Forest]) -> Self:
        """Write forests down, each a batch."""
        arranged = [tuple(forest.bins.tolist()) for forest in forests]
        return cls(
            columns=tuple(columns),
            cells=grid.features,
            depth=forests[0].depth,
            bins=tuple(arranged[:1] if len(set(arranged)) == 1 else arranged),
            batches=tuple(
                TreeBatch(
                    features=tuple(forest.features.ravel().tolist()),
                    cuts=tuple(forest.cuts.ravel().tolist()),
                    values=tuple(forest.values.ravel().tolist()),
                )
                for forest in forests
            ),
        )

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        grid = self.grid
        if grid.width != len(self.columns):
            raise ValueError(f"{len(self.columns)} columns, cells of {grid.width}")
        if len(self.bins) not in {1, len(self.batches)}:
            raise ValueError(f"{len(self.batches)} batches, {len(self.bins)} arrangements of bins")
        if any(len(one) != grid.total for one in self.bins):
            raise ValueError(f"expected a bin for each of {grid.total} cells")
        leaves = 1 << self.depth
        for batch in self.batches:
            trees = len(batch.values) // leaves
            nodes = trees * (leaves - 1)
            if len(batch.values) != trees * leaves or {len(batch.features), len(batch.cuts)} != {
                nodes
            }:
                raise ValueError(f"a batch of broken trees of depth {self.depth}")
            if max(batch.features) >= len(self.cells):
                raise ValueError(f"a tree asks for a feature beyond {len(self.cells)}")
        return self

    @property
    def grid(self) -> Grid:
        """Where rows fall."""
        return Grid(self.cells)

    @property
    def forests(self) -> tuple[Forest, ...]:
        """The batches, to score with."""
        leaves, nodes = 1 << self.depth, (1 << self.depth) - 1
        arranged = [np.array(one) for one in self.bins]
        return tuple(
            Forest(
                arranged[place % len(arranged)],
                np.array(batch.features).reshape(-1, nodes),
                np.array(batch.cuts).reshape(-1, nodes),
                np.array(batch.values).reshape(-1, leaves),
            )
            for place, batch in enumerate(self.batches)
        )

    def score(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return one score per row of encoded `features`, shape (n, columns): larger is liker."""
        return total_scores(self.forests, self.grid.cells(features)) / VALUE_UNIT
