"""The vocabulary of a contract: its roles, enumerations, and the terms of each computation.

Guarantees: a term that exists is well-formed and does not contradict itself; its text holds no
control, invisible or reordering characters that would show a reader something else.

Leaves to others: what terms mean together (`compliance.agreement`), and obeying them.
"""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Final, Literal, Self, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from compliance.errors import SignatureError
from compliance.log.note import NoteKey
from compliance.signing import PARTY_NAME_PATTERN, VerifyingKey

__all__ = [
    "BudgetTerms",
    "Classification",
    "ColumnTerm",
    "ColumnType",
    "Count",
    "DatasetTerm",
    "EmailRule",
    "ExpandTerms",
    "IdentifierKind",
    "Line",
    "MatchTerms",
    "Moment",
    "Name",
    "PartyTerm",
    "Purpose",
    "Reveal",
    "Role",
    "Scale",
    "Terms",
    "Text",
    "TrainTerms",
    "repeated",
    "unique",
]

_LARGEST_INTEGER: Final = 2**53 - 1  # RFC 8785 numbers are IEEE 754 doubles

_String = TypeVar("_String", bound=str)
_Item = TypeVar("_Item", bound=Hashable)


class Role(StrEnum):
    """What a party is there for."""

    BRAND = "brand"
    PARTNER = "partner"
    COORDINATOR = "coordinator"
    AUDITOR = "auditor"


class IdentifierKind(StrEnum):
    """What people can be matched by."""

    EMAIL = "email"
    PHONE = "phone"


class EmailRule(StrEnum):
    """How e-mail addresses are normalised before they are hashed."""

    AS_WRITTEN = "as_written"
    PROVIDER_RULES = "provider_rules"


class Reveal(StrEnum):
    """Who learns the outcome of a match."""

    PARTNER_LEARNS_MEMBERS = "partner-learns-members"


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


def _identity_key(text: str) -> str:
    try:
        VerifyingKey.from_base64(text)
    except SignatureError as error:
        raise ValueError(str(error)) from error
    return text


def _log_key(text: str) -> str:
    try:
        NoteKey.from_string(text)
    except SignatureError as error:
        raise ValueError(str(error)) from error
    return text


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
Purpose = Annotated[
    str,
    Field(
        pattern=r"^[a-z][a-z0-9._:/-]{0,126}$",
        description="up to 127 lower-case letters, digits and ._:/-, a letter first",
    ),
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


class PartyTerm(Terms):
    """An organisation that the agreement binds.

    Attributes:
        name: lower-case letters, digits and hyphens, at most 63.
        role: what it is there for.
        identity_key: base64 of the Ed25519 key that signs the agreement and its messages.
        log_key: verifier key of its log, `origin+id+base64` (C2SP signed-note).
    """

    name: Name
    role: Role
    identity_key: Annotated[str, AfterValidator(_identity_key)]
    log_key: Annotated[Line, AfterValidator(_log_key)]

    @property
    def verifying_key(self) -> VerifyingKey:
        """The key that `identity_key` spells."""
        return VerifyingKey.from_base64(self.identity_key)


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


class DatasetTerm(Terms):
    """The people that a party brings.

    Attributes:
        party: who brings them.
        declared_rows: a public round figure; denominators use it so that no true count leaves.
        identifiers: what its people can be matched by.
    """

    party: Name
    declared_rows: Count
    identifiers: Annotated[tuple[IdentifierKind, ...], Field(min_length=1), AfterValidator(unique)]


class MatchTerms(Terms):
    """How people are matched.

    Attributes:
        purpose: for which each of them must have consented.
        default_region: ISO 3166-1 alpha-2; the country of phone numbers written without one.
        email_rule: how e-mail addresses are normalised.
        reveal: who learns the outcome.
        minimum_match: matches below which nothing is used.
        set_size_bucket: sets are padded to a multiple of this, which alone shows on the wire.
    """

    purpose: Purpose
    default_region: Annotated[
        str, Field(pattern=r"^[A-Z]{2}$", description="two capital letters, such as 'US'")
    ]
    email_rule: EmailRule
    reveal: Reveal
    minimum_match: Count
    set_size_bucket: Count


class TrainTerms(Terms):
    """How models are trained.

    Attributes:
        purpose: for which each person must have consented.
        model: the one family of models allowed.
        epsilon: privacy loss per person that a single job may ask for at most.
        delta: its failure probability, likewise.
        max_parties_per_person: partners that may hold the same person; the loss adds up over them.
        clipping_norm: bound of one person's gradient in the Euclidean norm.
        max_steps: gradient steps of a job at each partner.
        max_rounds: averagings of a job.
    """

    purpose: Purpose
    model: Literal["logistic-regression"]
    epsilon: Epsilon
    delta: Delta
    max_parties_per_person: Count
    clipping_norm: Annotated[Finite, Field(gt=0)]
    max_steps: Count
    max_rounds: Count


class ExpandTerms(Terms):
    """How an audience is expanded.

    Attributes:
        purpose: for which each person must have consented.
        maximum_share: largest share of a partner's people in a segment, in (0, 1].
        minimum_segment: people in the smallest segment; a smaller share gives this many, and none
            is written where `maximum_share` would not reach it.
    """

    purpose: Purpose
    maximum_share: Annotated[Finite, Field(gt=0, le=1)]
    minimum_segment: Count


class BudgetTerms(Terms):
    """The privacy loss that no person may pass, over everything, while the agreement lasts.

    Attributes:
        epsilon: of (ε, δ)-differential privacy, per person, add-or-remove-one.
        delta: its failure probability.
    """

    epsilon: Epsilon
    delta: Delta
