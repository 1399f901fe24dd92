"""What every record says, and the kinds of value that records are made of.

Guarantees: a record that exists is complete, bounded and within its ranges; a malformed one raises
`RecordError` without showing its values. No field is made for an identifier, names are too narrow
for most, and no string may hold an `@`. Values are so narrow that the fields of each kind, all of
them as long as they may be, fit one leaf (`tests/test_leaf_limits.py`); lists that earlier versions
wrote longer are still read.

Leaves to others: single kinds (the modules beside this one), encoding (the package itself), whom a
place stands for (`compliance.naming`).
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
    ValidationInfo,
    model_validator,
)

from compliance.canonical import is_unsaid
from compliance.errors import RecordError, describe

__all__ = [
    "CLAUSES_BYTES",
    "EVENT_BYTES",
    "MOST_CLAUSES",
    "MOST_NAMES",
    "TOLD_BYTES",
    "Clauses",
    "Count",
    "Counts",
    "Delta",
    "Digest",
    "Epsilon",
    "EventJson",
    "Label",
    "Leaf",
    "Missing",
    "Name",
    "Parties",
    "Positive",
    "Recipients",
    "Sentence",
    "Share",
    "Time",
    "Told",
    "spelt_bytes",
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


def spelt_bytes(value: object) -> int:
    """Return how many bytes a text, or a list of texts or integers, takes in a leaf."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def _spelt_narrowly(text: str) -> str:
    if (size := spelt_bytes(text)) > EVENT_BYTES:
        raise ValueError(f"expected at most {EVENT_BYTES} bytes in a leaf, got {size}")
    return text


def _told(parties: "Told", info: ValidationInfo) -> "Told":
    places = [one for one in parties if isinstance(one, int)]
    if places != sorted(set(places)):
        raise ValueError("expected places that rise")
    if info.mode == "python" and (size := spelt_bytes(parties)) > TOLD_BYTES:
        raise ValueError(
            f"expected names in at most {TOLD_BYTES} bytes, got {size}: tell of so many by places"
        )
    return parties


def _written_clauses(clauses: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    if info.mode == "python" and (size := spelt_bytes(clauses)) > CLAUSES_BYTES:
        raise ValueError(f"expected clauses in at most {CLAUSES_BYTES} bytes, got {size}")
    return clauses


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/ -]{0,127}$")]

Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/ -]{0,62}$")]
"""A name of a party or a job, which have at most 63 characters."""

Sentence = Annotated[
    str,
    Field(min_length=1, max_length=300, pattern=r"^[^\x00-\x1f\x7f]*$"),
    AfterValidator(_without_at_sign),
]

EVENT_BYTES: Final = 1_200
"""Bytes that an event takes in a leaf at most, where its quotation marks take two each."""

EventJson = Annotated[
    str,
    Field(max_length=900),
    AfterValidator(_without_at_sign),
    AfterValidator(_spelt_narrowly),
    AfterValidator(_json_object),
]

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

MOST_NAMES: Final = 128
"""Parties that a leaf may tell of: as many as an agreement has."""

TOLD_BYTES: Final = 403
"""Bytes that a list of parties takes at most where it is written: those of all places, 0 to 127."""

Place = Annotated[int, Field(ge=0, lt=MOST_NAMES)]

Told = tuple[str, ...] | tuple[int, ...]
"""Parties as a leaf tells of them: all by name, or all by place (`compliance.naming`)."""

Parties = Annotated[
    Annotated[tuple[Name, ...], Field(min_length=1, max_length=MOST_NAMES, strict=False)]
    | Annotated[tuple[Place, ...], Field(min_length=1, max_length=MOST_NAMES, strict=False)],
    AfterValidator(_told),
]
"""Some parties of the agreement, by name or by their places in its list, from 0."""

Recipients = Annotated[
    Annotated[tuple[Name, ...], Field(max_length=MOST_NAMES, strict=False)]
    | Annotated[tuple[Place, ...], Field(max_length=MOST_NAMES, strict=False)],
    AfterValidator(_told),
]
"""As `Parties`, or nobody."""

Missing = Annotated[Recipients, Field(exclude_if=is_unsaid)]
"""As `Recipients`, left out where nobody is missing."""

MOST_CLAUSES: Final = 16

CLAUSES_BYTES: Final = 1_024
"""Bytes that the names of clauses take at most where they are written."""

Clauses = Annotated[
    tuple[Name, ...], Field(max_length=MOST_CLAUSES, strict=False), AfterValidator(_written_clauses)
]

Count = Annotated[int, Field(ge=0, le=2**53 - 1)]

Positive = Annotated[Count, Field(ge=1)]

Reason = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/ -]{0,31}$")]

Counts = Annotated[dict[Reason, Count], Field(max_length=16)]

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
    party: Label
    agreement: Digest
    job: Label | None = None

    @model_validator(mode="wrap")
    @classmethod
    def _refuse(cls, data: object, validate: ModelWrapValidatorHandler["Leaf"]) -> "Leaf":
        try:
            return validate(data)
        except ValidationError as error:
            raise RecordError(f"malformed {cls.__name__} record: {describe(error)}") from error
