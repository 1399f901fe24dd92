"""Columns: what they are called, what they mean, and how their values read as text.

A `Schema` is what a party says about its own table. It guarantees that its statements agree with
each other; whether the data agree with them is the business of `quality`.

Every source, whatever its native types, gives a value one text form (`text_of`), so that a key
that was read can be handed back to delete its row.
"""

from collections.abc import Collection, Sequence
from enum import StrEnum
from typing import Annotated, Self

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from connectors.errors import MissingColumnError

__all__ = [
    "Classification",
    "Column",
    "ColumnType",
    "Schema",
    "distinct_keys",
    "require_columns",
    "text_of",
]

_LARGEST_EXACT_INTEGER = 2.0**53


class ColumnType(StrEnum):
    """What a column's values are."""

    IDENTIFIER = "identifier"
    """Names a person beyond this party: an e-mail address, a phone number."""
    KEY = "key"
    """The party's own reference of a record."""
    NUMERIC = "numeric"
    CATEGORICAL = "categorical"
    TEXT = "text"
    TIMESTAMP = "timestamp"
    """An instant, as RFC 3339 when written as text."""


class Classification(StrEnum):
    """How closely a column is to be held, from the least to the most."""

    PUBLIC = "public"
    INTERNAL = "internal"
    PERSONAL = "personal"
    SENSITIVE = "sensitive"


class Column(BaseModel):
    """One column of a table.

    Attributes:
        name: exactly as in the source, upper and lower case included.
        type: what its values are.
        unit: unit of a numeric column, for people to read (`"EUR"`, `"hours per week"`).
        classification: how closely it is to be held.
        minimum: smallest value expected of a numeric column, inclusive.
        maximum: largest value expected of a numeric column, inclusive.
        categories: the values expected of a categorical column; empty when not known.

    Raises:
        pydantic.ValidationError: bounds on a column that is not numeric, a minimum above the
            maximum, categories on a column that is not categorical, repeated or blank ones.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=128)]
    type: ColumnType
    unit: str | None = None
    classification: Classification = Classification.PERSONAL
    minimum: FiniteFloat | None = None
    maximum: FiniteFloat | None = None
    categories: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _agree(self) -> Self:
        bounds = [bound for bound in (self.minimum, self.maximum) if bound is not None]
        if bounds and self.type is not ColumnType.NUMERIC:
            raise ValueError(f"column {self.name!r}: bounds need a numeric column, got {self.type}")
        if bounds != sorted(bounds):
            raise ValueError(f"column {self.name!r}: expected minimum ≤ maximum, got {bounds}")
        if self.categories and self.type is not ColumnType.CATEGORICAL:
            raise ValueError(
                f"column {self.name!r}: categories need a categorical column, got {self.type}"
            )
        if len(set(self.categories)) != len(self.categories):
            raise ValueError(f"column {self.name!r}: expected each category once")
        if not all(category.strip() for category in self.categories):
            raise ValueError(f"column {self.name!r}: a blank category would mean a missing value")
        return self


class Schema(BaseModel):
    """The columns to be read from a source, in the order in which they are wanted.

    Raises:
        pydantic.ValidationError: no column, or two columns of one name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: Annotated[tuple[Column, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            raise ValueError(f"expected each column once, got {repeated} more than once")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all columns, in order."""
        return tuple(column.name for column in self.columns)

    def of_type(self, *types: ColumnType) -> tuple[Column, ...]:
        """Return the columns of the given types, in order."""
        return tuple(column for column in self.columns if column.type in types)


def require_columns(source: str, wanted: Sequence[str], found: Sequence[str]) -> None:
    """Refuse a request for columns that a source cannot serve.

    Args:
        source: name of the source, for the message.
        wanted: the columns asked for.
        found: the columns that the source has.

    Raises:
        MissingColumnError: some wanted columns are not among the found ones.
        ValueError: no column or one column twice is asked for.
    """
    if not wanted or len(set(wanted)) != len(wanted):
        raise ValueError(f"expected one or more distinct columns, got {list(wanted)}")
    if not set(wanted) <= set(found):
        raise MissingColumnError(source, expected=wanted, found=found)


def distinct_keys(keys: Collection[str]) -> tuple[str, ...]:
    """Return each key once, sorted.

    Raises:
        TypeError: the keys are one string, whose characters would each be taken for a key.
    """
    if isinstance(keys, str):
        raise TypeError("expected a collection of keys, got a single string")
    return tuple(sorted(set(keys)))


def text_of(values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return values of any type as text: the form in which sources compare keys.

    A whole floating-point number reads as an integer (`4915112345678`, not `4.915112345678e+12`):
    pandas stores integer columns that have gaps as floating-point. NaN is null.

    Args:
        values: an Arrow array of n values.

    Returns:
        n values of type `string`; null stays null.

    Raises:
        pyarrow.ArrowException: the type has no text form (a list, a struct, bytes that are not
            UTF-8).
    """
    if not pa.types.is_floating(values.type):
        return pc.cast(values, pa.string())
    values = pc.if_else(pc.is_nan(values), None, values)
    whole = pc.and_(
        pc.equal(pc.floor(values), values), pc.less(pc.abs(values), _LARGEST_EXACT_INTEGER)
    )
    integers = pc.cast(pc.if_else(whole, values, None), pa.int64())
    return pc.coalesce(pc.cast(integers, pa.string()), pc.cast(values, pa.string()))
