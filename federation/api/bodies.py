"""What is said to a party's API, and what it answers.

Guarantees: models are closed and bounded; whatever names a person or is a value of theirs is
printed by no representation.

Leaves to others: what it means (`consents`, `requests`, `deletions`), and problems (`problems`).
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from compliance.consent import ConsentEventKind, ExclusionReason, SeparateConsent
from compliance.consent.record import ConsentNotice
from compliance.erasure.execution import Standing
from compliance.erasure.wire import MOST_TOKEN_BYTES

__all__ = [
    "Acknowledgement",
    "Correction",
    "Decision",
    "DeletionRequest",
    "Erasure",
    "ErasureReceipt",
    "Event",
    "Events",
    "Health",
    "Identifier",
    "Named",
    "NamedByEmail",
    "NamedByPhone",
    "NamedByReference",
    "Notices",
    "PersonAndPurpose",
    "ReceiptRequest",
    "Recorded",
    "Request",
    "Rows",
    "StringFormat",
    "StringIntake",
    "StringOutcome",
    "Vocabulary",
    "Withdrawal",
]

_Reference = Annotated[
    str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$", repr=False)
]
_Identifier = Annotated[str, Field(min_length=1, max_length=320, repr=False)]
_Purpose = Annotated[str, Field(min_length=1, max_length=128)]
_Party = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class NamedByReference(_Closed):
    """A person, by the party's own reference."""

    reference: _Reference


class NamedByEmail(_Closed):
    """A person, by an address; the whole table is read to find them."""

    email: _Identifier


class NamedByPhone(_Closed):
    """A person, by a telephone number; the whole table is read to find them."""

    phone: _Identifier


Named = NamedByReference | NamedByEmail | NamedByPhone
"""Who is meant."""
Identifier = NamedByEmail | NamedByPhone
"""Who is meant, by what other parties could know them by too."""


class Event(_Closed):
    """Something that a person said about a purpose.

    Attributes:
        subject: who.
        purpose: about what.
        event: what.
        time: when; now where left out. Not after now.
        separate: separate consents that were given with it.
        recipients: who may see what is made of them; anybody whom the notice named where left out.
        expires: first moment at which it no longer holds; none where left out.
    """

    subject: Named
    purpose: _Purpose
    event: ConsentEventKind
    time: AwareDatetime | None = None
    separate: Annotated[tuple[SeparateConsent, ...], Field(max_length=16)] = ()
    recipients: Annotated[tuple[_Party, ...], Field(max_length=31)] | None = None
    expires: AwareDatetime | None = None


class Events(_Closed):
    """Several events, all of which are recorded, or none."""

    events: Annotated[tuple[Event, ...], Field(min_length=1, max_length=10_000)]


class Withdrawal(_Closed):
    """A person withdraws: from one purpose, or from all where none is named."""

    subject: Named
    purpose: _Purpose | None = None


class Recorded(_Closed):
    """Events are on disk, and heard at the next use.

    Attributes:
        events: how many; None where the client may not see who is known, and nobody may be.
        sequence: place of the last in the party's book of consents; None likewise.
        time: which events have that named none.
    """

    events: int | None
    sequence: int | None
    time: datetime


class PersonAndPurpose(_Closed):
    """Whether a person may be used, for one purpose or all."""

    subject: Named
    purpose: _Purpose | None = None


class Decision(_Closed):
    """Whether a person may be used for a purpose now, and if not, why."""

    purpose: str
    allowed: bool
    reason: ExclusionReason | None


class Vocabulary(StrEnum):
    """Whose words a record is written in."""

    ISO_27560 = "iso-27560"
    KANTARA = "kantara"
    DPV = "dpv"


class ReceiptRequest(_Closed):
    """A person's receipt about a purpose."""

    subject: Named
    purpose: _Purpose
    vocabulary: Vocabulary = Vocabulary.ISO_27560


class StringFormat(StrEnum):
    """What kind of consent string it is."""

    TCF = "tcf"
    GPP = "gpp"


class StringIntake(_Closed):
    """A consent string, as the platform gave it that asked the person."""

    subject: Named
    format: StringFormat
    string: Annotated[str, Field(min_length=1, max_length=16_384, repr=False)]


class StringOutcome(_Closed):
    """What a consent string came to.

    Attributes:
        events: what was recorded, by purpose; a purpose that the string says nothing of is not
            there.
        recorded: see there; none where the string says nothing of any purpose.
    """

    events: dict[str, ConsentEventKind]
    recorded: Recorded | None


class Notices(_Closed):
    """What people are told, one notice a purpose."""

    notices: tuple[ConsentNotice, ...]


class Erasure(_Closed):
    """A request to erase somebody.

    Attributes:
        request: its name; the same identifier again gives the same, while that is open.
        standing: how far it has come.
        asked: when.
        deadline: by which it is done.
        pending: places still to be dealt with.
    """

    request: str
    standing: Standing
    asked: datetime
    deadline: datetime
    pending: int


class ErasureReceipt(_Closed):
    """The signed completion of a request (a DSSE envelope); it tells nobody who it is about."""

    request: str
    completion: dict[str, Any]


class Request(_Closed):
    """A request's name in the party's log."""

    request: str


class Rows(_Closed):
    """What the party's table holds about somebody, which may be nothing."""

    request: str
    columns: tuple[str, ...]
    rows: Annotated[tuple[tuple[str | None, ...], ...], Field(repr=False)]


class Correction(_Closed):
    """Other values for some of the table's columns; null takes a value away."""

    subject: Named
    values: Annotated[
        dict[
            Annotated[str, Field(min_length=1, max_length=256)],
            Annotated[str, Field(max_length=4096)] | None,
        ],
        Field(min_length=1, max_length=256, repr=False),
    ]


class DeletionRequest(_Closed):
    """A request of the Data Deletion Request Framework."""

    model_config = ConfigDict(populate_by_name=True)

    token: Annotated[
        str, Field(alias="rqJWT", min_length=1, max_length=MOST_TOKEN_BYTES, repr=False)
    ]


class Acknowledgement(_Closed):
    """The recipient's answer, of the same framework."""

    model_config = ConfigDict(populate_by_name=True)

    token: Annotated[str, Field(alias="acJWT", repr=False)]


class Health(_Closed):
    """The API is there."""

    status: str = "ok"
