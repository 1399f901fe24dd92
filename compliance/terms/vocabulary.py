"""The kinds of value that terms are made of, and what every term promises.

Guarantees: text holds no control, invisible or reordering characters that would show a reader
something else; numbers are finite and survive canonical JSON; a term reports all its
contradictions at once.

Leaves to others: what single terms mean (the modules beside this one).
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Final, Self, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from compliance.signing import PARTY_NAME_PATTERN

__all__ = [
    "ColumnName",
    "Count",
    "Delta",
    "Digest",
    "Epsilon",
    "Finite",
    "KeyName",
    "Line",
    "Moment",
    "Name",
    "Purpose",
    "Terms",
    "Text",
    "repeated",
    "unique",
]

_LARGEST_INTEGER: Final = 2**53 - 1  # RFC 8785 numbers are IEEE 754 doubles

_String = TypeVar("_String", bound=str)

_Item = TypeVar("_Item", bound=Hashable)


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


def unique(values: tuple[_String, ...]) -> tuple[_String, ...]:
    """Refuse a tuple that holds an entry twice."""
    if again := repeated(values):
        raise ValueError(f"expected each entry once, got again: {', '.join(again)}")
    return values


def repeated(values: Iterable[_Item]) -> list[_Item]:
    """Return what occurs more than once, each once."""
    return [value for value, count in Counter(values).items() if count > 1]


Name = Annotated[
    str,
    Field(
        pattern=PARTY_NAME_PATTERN,
        description="up to 63 lower-case letters, digits and hyphens, a letter first",
    ),
]

KeyName = Annotated[
    str,
    Field(
        pattern=r"^[a-z][a-z0-9_]{0,63}$",
        description="up to 64 lower-case letters, digits and underscores, a letter first",
    ),
]

Purpose = Annotated[
    str,
    Field(
        pattern=r"^[a-z][a-z0-9._:/-]{0,126}$",
        description="up to 127 lower-case letters, digits and ._:/-, a letter first",
    ),
]

Digest = Annotated[
    str, Field(pattern=r"^[0-9a-f]{64}$", description="64 hexadecimal digits of a SHA-256")
]

ColumnName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,62}$",
        description="up to 63 letters, digits and _.-, a letter first",
    ),
]

Line = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        pattern=r"^[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}]*$",
        description="one line of 1 to 200 visible characters",
    ),
]
"""Text that shows what it says: no line breaks, control, invisible or reordering characters."""

Text = Annotated[
    str,
    Field(
        max_length=100_000,
        pattern=r"^(?:[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}]|[\n\t])*$",
        description="text of up to 100,000 visible characters",
    ),
]

Moment = Annotated[
    AwareDatetime,
    Field(ge=datetime(2000, 1, 1, tzinfo=UTC), lt=datetime(2200, 1, 1, tzinfo=UTC)),
    AfterValidator(_utc),
]

Count = Annotated[int, Field(strict=True, ge=1, le=_LARGEST_INTEGER)]

Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]

Epsilon = Annotated[Finite, Field(gt=0)]

Delta = Annotated[Finite, Field(gt=0, lt=1)]


class Terms(BaseModel):
    """A closed, frozen part of a contract that reports all its contradictions at once."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @model_validator(mode="after")
    def _without_mistakes(self) -> Self:
        if mistakes := tuple(self._mistakes()):
            raise PydanticCustomError("terms", "{mistakes}", {"mistakes": "; ".join(mistakes)})
        return self

    def _mistakes(self) -> Iterator[str]:
        """Yield what contradicts itself between fields that are well-formed one by one."""
        yield from ()
