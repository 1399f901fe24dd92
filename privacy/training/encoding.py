"""Columns in, bounded rows out, by public terms alone.

Guarantees: every encoded row has a Euclidean norm of at most 1, whatever the data hold. Only the
agreement's bounds and categories are used, never a mean, a maximum or a list of values found in
the data: such a statistic would itself be a release that no budget paid for, and parties that
computed their own could not average their models.

Leaves to others: reading and reporting bad values (`connectors.quality`); here they are clipped or
left out, silently.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError

__all__ = ["CategoricalFeature", "Encoder", "Feature", "NumericFeature", "Scale"]


class Scale(StrEnum):
    """How a numeric feature is spread over its range."""

    LINEAR = "linear"
    LOG = "log"


@dataclass(frozen=True, slots=True)
class NumericFeature:
    """A number between public bounds.

    Attributes:
        name: the column.
        minimum: lower bound, in the column's unit; finite.
        maximum: upper bound, in the column's unit; finite, above `minimum`.
        scale: linear onto [-1, 1], or ln(1 + v - minimum) onto [0, 1], for amounts that are
            mostly zero or small.

    Raises:
        InvalidParameterError: if the bounds are not finite and in order.
    """

    name: str
    minimum: float
    maximum: float
    scale: Scale = Scale.LINEAR

    def __post_init__(self) -> None:
        if not (self.minimum < self.maximum and math.isfinite(self.maximum - self.minimum)):
            raise InvalidParameterError(
                f"feature {self.name!r} needs finite bounds, minimum < maximum, got "
                f"{self.minimum} and {self.maximum}"
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """The one encoded column."""
        return (self.name,)

    def encode(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Clip to the bounds and scale; a missing number (NaN) becomes 0.

        Args:
            values: shape (n,), numbers or booleans.

        Returns:
            Shape (n, 1), in [-1, 1], or [0, 1] by `Scale.LOG`.

        Raises:
            InvalidParameterError: if they are no numbers.
        """
        if values.dtype.kind not in "fiub":
            raise InvalidParameterError(
                f"feature {self.name!r} needs a numeric column, got dtype {values.dtype}: cast it "
                "first, with NaN for what is missing"
            )
        clipped = np.clip(values.astype(np.float64), self.minimum, self.maximum) - self.minimum
        width = self.maximum - self.minimum
        if self.scale is Scale.LOG:
            scaled = np.log1p(clipped) / math.log1p(width)
        else:
            scaled = 2.0 * (clipped / width) - 1.0
        return np.nan_to_num(scaled, nan=0.0)[:, np.newaxis]


@dataclass(frozen=True, slots=True)
class CategoricalFeature:
    """One of a public list of words.

    Attributes:
        name: the column.
        categories: the words, at least one, no two alike.

    Raises:
        InvalidParameterError: if there is none or one twice.
    """

    name: str
    categories: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.categories or len(set(self.categories)) < len(self.categories):
            raise InvalidParameterError(
                f"feature {self.name!r} needs one or more categories, no two alike, got "
                f"{len(self.categories)} of which {len(set(self.categories))} differ"
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """One encoded column for each category, as ``name=category``."""
        return tuple(f"{self.name}={category}" for category in self.categories)

    def encode(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Set a 1 under the row's category; unknown or missing rows are all 0. Shape (n, k)."""
        import pandas as pd

        codes = pd.Index(self.categories, dtype=object).get_indexer(pd.Index(values, dtype=object))
        encoded = np.zeros((len(values), len(self.categories)))
        known = np.flatnonzero(codes >= 0)
        encoded[known, codes[known]] = 1.0
        return encoded


Feature: TypeAlias = NumericFeature | CategoricalFeature


class Encoder:
    """Encodes the columns of an agreement as rows of norm at most 1.

    Each feature contributes a part of norm at most 1, and a constant 1 stands for the intercept;
    dividing by √(features + 1), a public number, bounds the whole.

    Args:
        features: in the order that all parties share; at least one, no two of one name.

    Raises:
        InvalidParameterError: if there is none, or a name twice.
    """

    def __init__(self, features: Sequence[Feature]) -> None:
        self.features = tuple(features)
        names = {feature.name for feature in self.features}
        if not names or len(names) < len(self.features):
            raise InvalidParameterError(
                f"an encoder needs one or more features, no two of one name, got "
                f"{len(self.features)} with {len(names)} names"
            )

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The encoded columns in order; the last is ``(constant)``."""
        encoded = (column for feature in self.features for column in feature.columns)
        return (*encoded, "(constant)")

    @property
    def width(self) -> int:
        """Number of encoded columns."""
        return len(self.names)

    def encode(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """Encode columns as rows.

        Args:
            columns: one-dimensional arrays of one length, by feature name; others are ignored.
                Missing values are NaN in numeric columns, None or NaN in categorical ones.

        Returns:
            Shape (n, `width`); every row has a norm of at most 1 (to rounding).

        Raises:
            InvalidParameterError: if a feature's column is missing, not numeric where it must be,
                or of another shape than the rest.
        """
        missing = [feature.name for feature in self.features if feature.name not in columns]
        if missing:
            raise InvalidParameterError(
                f"columns {missing} are missing, got {sorted(columns)}: name them as the features"
            )
        shapes = {columns[feature.name].shape for feature in self.features}
        if len(shapes) > 1 or len(next(iter(shapes))) != 1:
            raise InvalidParameterError(
                f"columns must be one-dimensional and of one length, got shapes {sorted(shapes)}"
            )
        parts = [feature.encode(columns[feature.name]) for feature in self.features]
        constant = np.ones((len(parts[0]), 1))
        rows: NDArray[np.float64] = np.concatenate([*parts, constant], axis=1)
        rows /= math.sqrt(len(self.features) + 1)
        return rows
