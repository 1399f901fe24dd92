"""Counts of people by cells of public columns, with noise.

Guarantees: cells are made from public categories and edges alone, and every cell is counted, empty
or not. A person with one row here is in one cell of one group, so that adding or removing that
row changes one count by one: a whole release has sensitivity 1, whatever the norm.

Leaves to others: making sure that one person is one row, charging (`accounting`), and leaving out
counts that are too small (after the noise, which costs nothing).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from privacy.accounting.calibration import calibrate_discrete_gaussian
from privacy.accounting.events import DiscreteGaussianEvent, DiscreteLaplaceEvent
from privacy.errors import InvalidParameterError
from privacy.mechanisms import discrete_gaussian, noised_count
from privacy.randomness import SecretStream

__all__ = ["Bins", "Categories", "Cells", "CountMechanism", "count_mechanism", "noised_counts"]

CountMechanism: TypeAlias = DiscreteLaplaceEvent | DiscreteGaussianEvent
"""Noise on counts of which a person changes one, by one."""

_OTHER = "other"


@dataclass(frozen=True)
class Categories:
    """A column of words. What is none of them, or missing, is in a last cell.

    Attributes:
        name: the column.
        words: one cell each.
    """

    name: str
    words: tuple[str, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """A name for each cell."""
        return (*self.words, _OTHER)

    def cells(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """Return the cell of each value, shape (n,)."""
        import pandas as pd

        found = pd.Index(self.words, dtype=object).get_indexer(pd.Index(values, dtype=object))
        return np.where(found < 0, len(self.words), found).astype(np.int64)


@dataclass(frozen=True)
class Bins:
    """A column of numbers, cut at public edges. What is missing is in a last cell.

    Attributes:
        name: the column.
        edges: rising; a number on an edge is in the cell above it.
    """

    name: str
    edges: tuple[float, ...]

    def __post_init__(self) -> None:
        rising = all(low < high for low, high in pairwise(self.edges))
        if not self.edges or not rising or not all(map(math.isfinite, self.edges)):
            raise InvalidParameterError(
                f"column {self.name!r} needs one finite edge or more, rising, got {self.edges}"
            )

    @property
    def labels(self) -> tuple[str, ...]:
        """A name for each cell."""
        between = (f"{low:g} to below {high:g}" for low, high in pairwise(self.edges))
        return (f"below {self.edges[0]:g}", *between, f"{self.edges[-1]:g} or more", _OTHER)

    def cells(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """Return the cell of each value, shape (n,)."""
        numbers = values.astype(np.float64)
        found = np.digitize(numbers, np.asarray(self.edges))
        return np.where(np.isnan(numbers), len(self.edges) + 1, found).astype(np.int64)


@dataclass(frozen=True)
class Cells:
    """Every combination of the cells of some columns, the last column turning fastest.

    Attributes:
        columns: one or more.
    """

    columns: tuple[Categories | Bins, ...]

    @cached_property
    def labels(self) -> tuple[tuple[str, ...], ...]:
        """What each cell holds of each column."""
        return tuple(product(*(column.labels for column in self.columns)))

    @property
    def count(self) -> int:
        """Number of cells."""
        return math.prod(len(column.labels) for column in self.columns)

    def of(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.int64]:
        """Return the cell of each row, shape (n,).

        Args:
            columns: arrays of shape (n,), by column name; others are ignored.
        """
        parts = [column.cells(columns[column.name]) for column in self.columns]
        return np.ravel_multi_index(parts, [len(column.labels) for column in self.columns])


def count_mechanism(epsilon: float, delta: float | None, *, tables: int = 1) -> CountMechanism:
    """Return the noise with which counts at several parties keep (ε, δ) for a person.

    Args:
        epsilon: the promise for the counts of all these parties together, > 0.
        delta: its failure probability; None for pure ε, by discrete Laplace noise. Otherwise the
            noise is discrete Gaussian.
        tables: parties at which a person may be counted, ≥ 1.

    Raises:
        InvalidParameterError: no noise keeps that promise.
    """
    if delta is None:
        scale = tables / epsilon
        while scale * epsilon < tables:  # rounded towards privacy
            scale = math.nextafter(scale, math.inf)
        return DiscreteLaplaceEvent(scale=scale)
    noise = calibrate_discrete_gaussian(epsilon=epsilon, delta=delta, releases=tables)
    return DiscreteGaussianEvent(noise_multiplier=noise)


def noised_counts(
    cells: NDArray[np.int64],
    groups: Sequence[NDArray[np.bool_]],
    count: int,
    mechanism: CountMechanism,
    stream: SecretStream,
) -> NDArray[np.int64]:
    """Count the rows of each group by cell, with noise on every count.

    Args:
        cells: cell of each row, shape (n,), below `count`.
        groups: whether each row is in the group, shape (n,); no row in two of them.
        count: number of cells.
        mechanism: the noise.
        stream: of this release alone.

    Returns:
        Shape (groups, `count`); with Laplace noise, 0 stands for what is negative.

    Raises:
        InvalidParameterError: a row is in two groups, and would count twice.
    """
    if np.any(np.sum([group.astype(np.int64) for group in groups], axis=0) > 1):
        raise InvalidParameterError("a row is in two groups, and the noise covers one")
    exact = np.array([np.bincount(cells[group], minlength=count) for group in groups])
    if isinstance(mechanism, DiscreteGaussianEvent):
        noise = discrete_gaussian(mechanism.noise_multiplier, exact.size, stream)
        return exact + noise.reshape(exact.shape)
    noised = [noised_count(one, mechanism, stream) for one in exact.ravel().tolist()]
    return np.array(noised, dtype=np.int64).reshape(exact.shape)
