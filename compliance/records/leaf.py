"""What every record says, and the kinds of value that records are made of.

Guarantees: a record that exists is complete, bounded and within its ranges; a malformed one raises
`RecordError` without showing its values. No field is made for an identifier, names are too narrow
for most, and no string may hold an `@`.

Leaves to others: single kinds (the modules beside this one), encoding (the package itself).
"""

import json
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)

from compliance.canonical import is_unsaid
from compliance.errors import RecordError, describe

__all__ = [
    "MOST_NAMES",
    "Count",
    "Counts",
    "Delta",
    "Digest",
    "Epsilon",
    "EventJson",
    "Leaf",
    "Missing",
    "Name",
    "Names",
    "Positive",
    "Recipients",
    "Sentence",
    "Share",
    "Time",
]


_YEARS: Final = range(1970, 3000)
"""In which a time lies: whatever term of days is added or taken away, a date comes out."""


def _utc(time: datetime) -> datetime:
    if time.utcoffset() != timedelta(0):
        raise ValueError("expected a time in UTC, got another offset")
    if time.year not in _YEARS:
        raise ValueError(f"expected a year of {_YEARS.start} to {_YEARS.stop - 1}")
    return time.replace(tzinfo=UTC)


def _without_at_sign(text: str) -> str:
    if "@" in text:
        raise ValueError("expected no '@': a record must not hold an identifier")
    return text


def _json_object(text: str) -> str:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("expected JSON") from error
    if not isinstance(value, dict):
        raise ValueError("expected a JSON object")  # noqa: TRY004  pydantic collects ValueErrors
    return text


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/ -]{0,127}$")]

Sentence = Annotated[
    str,
    Field(min_length=1, max_length=300, pattern=r"^[^\x00-\x1f\x7f]*$"),
    AfterValidator(_without_at_sign),
]

EventJson = Annotated[
    str, Field(max_length=900), AfterValidator(_without_at_sign), AfterValidator(_json_object)
]

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

MOST_NAMES: Final = 128
"""Parties that a leaf may name: as many as an agreement has."""

Names = Annotated[tuple[Name, ...], Field(min_length=1, max_length=MOST_NAMES, strict=False)]

Count = Annotated[int, Field(ge=0, le=2**53 - 1)]

Positive = Annotated[Count, Field(ge=1)]

Counts = Annotated[dict[Name, Count], Field(max_length=16)]

Recipients = Annotated[tuple[Name, ...], Field(max_length=MOST_NAMES, strict=False)]

Missing = Annotated[
    tuple[Name, ...], Field(max_length=MOST_NAMES, strict=False, exclude_if=is_unsaid)
]

Epsilon = Annotated[float, Field(ge=0)]

Delta = Annotated[float, Field(ge=0, le=1)]

Share = Annotated[float, Field(ge=0, le=1)]

Time = Annotated[AwareDatetime, Field(strict=False), AfterValidator(_utc)]


class Leaf(BaseModel):
    """What every record says.

    Attributes:
        version: of this format.
        time: when it happened, UTC, in the years 1970 to 2999; RFC 3339 with `Z` in the leaf.
        party: whose log this is.
        agreement: hexadecimal SHA-256 of the agreement's canonical bytes.
        job: under which job, if any.

    Raises:
        RecordError: on construction, if any value is missing, unknown or out of range.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True
    )

    version: Literal[1] = 1
    time: Time
    party: Name
    agreement: Digest
    job: Name | None = None

    @model_validator(mode="wrap")
    @classmethod
    def _refuse(cls, data: object, validate: ModelWrapValidatorHandler["Leaf"]) -> "Leaf":
        try:
            return validate(data)
        except ValidationError as error:
            raise RecordError(f"malformed {cls.__name__} record: {describe(error)}") from error
