"""What a person said about a purpose, and how many such sayings lie in columns.

Guarantees: an event that exists has a subject, a time with a zone, and a scope of closed words.
Nothing is ticked in advance: an event that names no separate consent gave none, whatever else it
gave.

Leaves to others: reading and writing files (`files`), what events come to together (`book`).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Self

import pyarrow as pa

from compliance.errors import ConsentError
from compliance.terms.consent import SeparateConsent

__all__ = [
    "EVENTS",
    "ConsentEvent",
    "ConsentEventKind",
    "SeparateConsent",
    "events_schema",
    "recipient_columns",
]


class ConsentEventKind(StrEnum):
    """What happened. At one moment, a later kind of this list beats an earlier one."""

    CONTACTED = "contacted"
    """They were contacted; it says nothing of consent, and counts for the frequency cap."""
    SCOPE_CHANGED = "scope_changed"
    """They consent to something else than before, as the event says; for no longer than before."""
    RECONFIRMED = "reconfirmed"
    """They said yes again while the consent still held, as the event says in full."""
    GIVEN = "given"
    """They consent. Nothing else makes a yes of a no."""
    REFUSED = "refused"
    EXPIRED = "expired"
    OBJECTED = "objected"
    """They object to personalisation."""
    WITHDRAWN = "withdrawn"


KINDS: Final = tuple(ConsentEventKind)
SEPARATE: Final = tuple(SeparateConsent)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
END: Final = datetime(2200, 1, 1, tzinfo=UTC)
NEVER: Final = 2**63 - 1
"""When a consent expires that does not by itself, in microseconds."""
ANYBODY: Final = -1
"""Recipients of a consent that names none: every bit set."""
_RECIPIENTS_OF_A_COLUMN: Final = 31
EVENTS: Final = pa.schema(
    [
        ("subject", pa.large_string()),
        ("purpose", pa.int32()),
        ("moment", pa.int64()),
        ("separate", pa.int32()),
        ("recipients", pa.int32()),
        ("expires", pa.int64()),
    ]
)
"""Events in columns: subject, place of the purpose, microseconds since 1970 times 8 plus the kind,
a bit for each separate consent, a bit for each recipient, and microseconds since 1970.

What an agreement with more recipients than a column has bits for adds: see `events_schema`."""


@dataclass(frozen=True)
class ConsentEvent:
    """One thing that one person said, or that happened to them.

    Attributes:
        subject: the party's own reference of the person; never shown.
        purpose: what it is about.
        event: what happened.
        time: when, with a time zone, from 1970 to 2199.
        separate: separate consents that were given with it.
        recipients: who may see what is made of them; everybody whom the notice named where None.
        expires: first moment at which the consent no longer holds; None if it holds until more is
            said.

    Raises:
        ConsentError: no subject, or a time without zone or out of range.
    """

    subject: str = field(repr=False)
    purpose: str
    event: ConsentEventKind
    time: datetime
    separate: frozenset[SeparateConsent] = frozenset()
    recipients: frozenset[str] | None = None
    expires: datetime | None = None

    def __post_init__(self) -> None:
        if not self.subject:
            raise ConsentError("a consent event needs a subject")
        for time in (self.time, self.expires or self.time):
            if time.tzinfo is None or not EPOCH <= time < END:
                raise ConsentError("a consent event needs a time with a zone, from 1970 to 2199")

    def said_by(self, subject: str) -> Self:
        """Return the same, said by somebody else.

        Raises:
            ConsentError: no subject.
        """
        return replace(self, subject=subject)


def microsecond(time: datetime) -> int:
    """Return microseconds since 1970."""
    return (time - EPOCH) // timedelta(microseconds=1)


def moment_of(microseconds: int) -> datetime:
    """Return the moment so many microseconds after 1970."""
    return EPOCH + timedelta(microseconds=microseconds)


def separate_bits(separate: Any) -> int:
    """Return a bit for each separate consent."""
    return sum(1 << SEPARATE.index(one) for one in separate)


def events_schema(known: Collection[str]) -> Any:
    """Return the columns of events where so many recipients are known: 31 to a column."""
    more = -(-len(known) // _RECIPIENTS_OF_A_COLUMN)
    further = [(f"recipients_{number}", pa.int32()) for number in range(2, more + 1)]
    return pa.schema([*EVENTS, *(pa.field(*one) for one in further)])


def recipient_columns(known: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    """Return which of the known recipients each column of `events_schema` has bits for."""
    names = [name for name in events_schema(known).names if name.startswith("recipients")]
    steps = range(0, len(names) * _RECIPIENTS_OF_A_COLUMN, _RECIPIENTS_OF_A_COLUMN)
    return {
        name: tuple(known[begin : begin + _RECIPIENTS_OF_A_COLUMN])
        for name, begin in zip(names, steps, strict=True)
    }


def recipient_bits(named: Any, known: tuple[str, ...]) -> int:
    """Return a bit for each of a column's recipients that is named; others have none."""
    return ANYBODY if named is None else sum(1 << known.index(one) for one in named if one in known)
