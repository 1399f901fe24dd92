"""The people and columns that parties bring.

Guarantees: a column has the public bounds or categories that its type needs.

Leaves to others: what the data really holds (`connectors`).
"""

import math
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field

from compliance.terms.vocabulary import (
    ColumnName,
    Count,
    Finite,
    KeyName,
    Line,
    Name,
    Terms,
    unique,
)

__all__ = ["Classification", "ColumnTerm", "ColumnType", "DatasetTerm", "HeldColumnTerm", "Scale"]


class ColumnType(StrEnum):
    """What a feature's values are."""

    NUMERIC = "numeric"
    CATEGORICAL = "categorical"


class Scale(StrEnum):
    """How a numeric feature is spread between its bounds."""

    LINEAR = "linear"
    LOG = "log"


class Classification(StrEnum):
    """How much a column can harm whom it is about, least first."""

    PUBLIC = "public"
    INTERNAL = "internal"
    PERSONAL = "personal"
    SENSITIVE = "sensitive"


class ColumnTerm(Terms):
    """A feature that every partner brings, under this name and with these public bounds.

    Bounds and categories are agreed, never taken from the data: looking would already tell.

    Attributes:
        name: the feature's common name.
        type: numeric or categorical.
        minimum: smallest value, numeric only; values below count as this one.
        maximum: largest value, numeric only; values above count as this one.
        scale: how a numeric feature is spread between its bounds; `log` needs `minimum` ≥ 0.
        categories: the values of a categorical feature, two to 1,000.
        unit: of a numeric feature, as a reader would write it.
        classification: how much the column can harm whom it is about.
    """

    name: ColumnName
    type: ColumnType
    minimum: Finite | None = None
    maximum: Finite | None = None
    scale: Scale = Scale.LINEAR
    categories: Annotated[tuple[Line, ...], Field(max_length=1_000), AfterValidator(unique)] = ()
    unit: Line | None = None
    classification: Classification = Classification.PERSONAL

    def _mistakes(self) -> Iterator[str]:
        if self.type is ColumnType.CATEGORICAL:
            if len(self.categories) < 2:
                yield f"categorical {self.name!r} needs at least two categories"
            if (self.minimum, self.maximum, self.unit) != (None, None, None):
                yield f"categorical {self.name!r} can have neither bounds nor a unit"
            if self.scale is not Scale.LINEAR:
                yield f"categorical {self.name!r} can have no scale"
            return
        if self.categories:
            yield f"numeric {self.name!r} can have no categories"
        if self.minimum is None or self.maximum is None:
            yield f"numeric {self.name!r} needs a minimum and a maximum"
        elif not (self.minimum < self.maximum and math.isfinite(self.maximum - self.minimum)):
            yield f"numeric {self.name!r} needs a minimum below its maximum, both of sane size"
        if self.scale is Scale.LOG and self.minimum is not None and self.minimum < 0:
            yield f"numeric {self.name!r} on a log scale needs a minimum of 0 or more"


class HeldColumnTerm(ColumnTerm):
    """A column that one party alone brings to training over parties' columns.

    Attributes:
        party: the brand, or a partner.
    """

    party: Name


class DatasetTerm(Terms):
    """The people that a party brings.

    Attributes:
        party: who brings them.
        declared_rows: a public round figure; denominators use it so that no true count leaves, and
            no match may bring more identifiers than so many people have.
        identifiers: the keys by which its people can be matched.
        identifiers_per_person: how many of them a person has at most.
    """

    party: Name
    declared_rows: Count
    identifiers: Annotated[tuple[KeyName, ...], Field(min_length=1), AfterValidator(unique)]
    identifiers_per_person: Annotated[int, Field(ge=1, le=256)]
