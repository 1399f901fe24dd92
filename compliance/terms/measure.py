"""How people are counted.

Guarantees: columns are cut by edges that rise, and noise has the δ that it needs.

Leaves to others: counting (`privacy.measurement`).
"""

from collections.abc import Iterator
from enum import StrEnum
from itertools import pairwise
from typing import Annotated

from pydantic import AfterValidator, Field

from compliance.terms.vocabulary import (
    ColumnName,
    Count,
    Delta,
    Epsilon,
    Finite,
    Purpose,
    Terms,
    repeated,
    unique,
)

__all__ = ["CountNoise", "MeasureTerms", "MeasuredColumn"]


class CountNoise(StrEnum):
    """What blurs a count."""

    DISCRETE_LAPLACE = "discrete-laplace"
    """For pure ε: best for a person at few partners."""
    DISCRETE_GAUSSIAN = "discrete-gaussian"
    """For ε and δ: best for a person at many."""


class MeasuredColumn(Terms):
    """A feature by which people may be counted.

    Attributes:
        name: of an agreed feature.
        edges: where a numeric feature is cut, rising, up to 100; none of a categorical one.
    """

    name: ColumnName
    edges: Annotated[tuple[Finite, ...], Field(max_length=100)] = ()

    def _mistakes(self) -> Iterator[str]:
        if any(low >= high for low, high in pairwise(self.edges)):
            yield f"measured column {self.name!r} needs edges that rise"


class MeasureTerms(Terms):
    """How people are counted.

    Attributes:
        purpose: for which each person must have consented.
        columns: features by which they may be counted.
        noise: what may blur a count.
        epsilon: privacy loss per person that a single job may ask for at most.
        delta: its failure probability, likewise; needed for discrete Gaussian noise.
        minimum_cell: a count that is smaller, noise included, is not told.
    """

    purpose: Purpose
    columns: Annotated[tuple[MeasuredColumn, ...], Field(min_length=1, max_length=1_000)]
    noise: Annotated[tuple[CountNoise, ...], Field(min_length=1), AfterValidator(unique)] = (
        CountNoise.DISCRETE_LAPLACE,
    )
    epsilon: Epsilon
    delta: Delta | None = None
    minimum_cell: Count

    def _mistakes(self) -> Iterator[str]:
        for name in repeated(column.name for column in self.columns):
            yield f"two measured columns are called {name!r}"
        if self.delta is None and CountNoise.DISCRETE_GAUSSIAN in self.noise:
            yield f"noise {CountNoise.DISCRETE_GAUSSIAN.value!r} needs a delta"
