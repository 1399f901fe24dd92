"""All consent events of a party, and one decision for a whole column of people.

A person is allowed by the last of their decisive events alone (`given`, `refused`, `expired`,
`objected`, `withdrawn`), if it is `given`. What they allow is what their last yes says (`given`,
`scope_changed`, `reconfirmed`); what is said at one moment holds only where all of it agrees.

Guarantees: no event, or an unknown purpose, never allows anybody; only `given` makes a yes of a
no, or brings back one that has ended. A decision depends on the set of events alone, so that late,
repeated and disordered events come to one state. Events after the moment of the decision are not
read.

Leaves to others: how long a consent lasts (`lasting`), files (`files`, `journal`), mapping people
to a party's own record references, and writing down that consents were used (`compliance.records`).
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compliance.consent.columns import rfc_3339
from compliance.consent.decision import (
    UNCONDITIONAL,
    Conditions,
    ConsentDecision,
    ExclusionReason,
    code,
)
from compliance.consent.events import (
    ANYBODY,
    KINDS,
    NEVER,
    SEPARATE,
    ConsentEvent,
    ConsentEventKind,
    events_schema,
    microsecond,
    moment_of,
    recipient_bits,
    recipient_columns,
    separate_bits,
)
from compliance.consent.files import (
    encode,
    read_events,
    reason_of,
    refuse_purposes,
    write_atomically,
)
from compliance.consent.lasting import Sayings, ends
from compliance.consent.subjects import Subjects
from compliance.errors import ConsentError, UnknownPurposeError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ConsentBook"]

_CONTACTED: Final = KINDS.index(ConsentEventKind.CONTACTED)
_GIVEN: Final = KINDS.index(ConsentEventKind.GIVEN)
_NOBODY: Final = "-"  # a recipient that no party can be called
# By the kind of the last decisive event.
_OUTCOMES: Final = np.array(
    [
        *[code(ExclusionReason.NO_RECORD)] * _GIVEN,
        0,
        *(code(ExclusionReason(kind.value)) for kind in KINDS[_GIVEN + 1 :]),
    ],
    dtype=np.uint8,
)


@dataclass(frozen=True, eq=False)
class ConsentBook:
    """All consent events of a party, each once.

    Two books are equal if they hold the same events for the same purposes.

    Attributes:
        purposes: those that the agreement declares; no event has another.
        recipients: those that the agreement knows; whom else a consent names is not kept.
    """

    purposes: tuple[str, ...]
    recipients: tuple[str, ...]
    _subjects: Subjects = field(repr=False)
    # As `EVENTS`, with places in _subjects for subjects.
    _events: Any = field(repr=False)

    @classmethod
    def empty(cls, *, purposes: Collection[str], recipients: Collection[str] = ()) -> Self:
        """Return a book in which nobody has said anything."""
        return cls.of([], purposes=purposes, recipients=recipients)

    @classmethod
    def load(
        cls, path: Path, *, purposes: Collection[str], recipients: Collection[str] = ()
    ) -> Self:
        """Read a consent file.

        Args:
            path: `.csv`, `.csv.gz` or `.parquet`; other columns in it are ignored.
            purposes: those that the agreement declares.
            recipients: those that the agreement knows.

        Raises:
            ConsentError: the file cannot be read, lacks a column, or has rows without a subject,
                with an unknown event or with a malformed time; all are counted.
            UnknownPurposeError: the file names other purposes.
        """
        events = read_events(path, purposes=purposes, recipients=recipients)
        return cls.of(events, purposes=purposes, recipients=recipients)

    @classmethod
    def of(
        cls,
        events: Iterable[Any],
        *,
        purposes: Collection[str],
        recipients: Collection[str] = (),
    ) -> Self:
        """Return the book of events that `read_events` gave, with the same arguments.

        Args:
            events: its record batches; of a person all or none, or a withdrawal were forgotten.
            purposes: those that the agreement declares.
            recipients: those that the agreement knows.
        """
        known, parties = tuple(sorted(set(purposes))), tuple(sorted(set(recipients)))
        schema = events_schema(parties)
        return cls._of(known, parties, pa.Table.from_batches(list(events), schema=schema))

    def __eq__(self, other: object) -> bool:
        """Tell whether the other book holds the same events for the same purposes."""
        if not isinstance(other, ConsentBook):
            return NotImplemented
        same: bool = (self.purposes, self.recipients) == (
            other.purposes,
            other.recipients,
        ) and self._in_order() == other._in_order()
        return same

    __hash__ = None  # type: ignore[assignment]

    @property
    def log_size(self) -> int:
        """Number of events in the book, repetitions not counted."""
        return len(self._events)

    def decide(
        self,
        subjects: "pd.Series[str] | NDArray[Any]",
        *,
        purpose: str,
        at: datetime,
        conditions: Conditions = UNCONDITIONAL,
    ) -> ConsentDecision:
        """Decide for a whole column of people whether each may be used.

        Args:
            subjects: the party's own record references, text, shape (n,); repetitions are allowed,
                and a missing value has no record.
            purpose: what they would be used for.
            at: moment of the decision, with a time zone; later events are not read.
            conditions: what the use needs besides.

        Raises:
            UnknownPurposeError: the agreement does not declare the purpose.
            ConsentError: the subjects are not text, the moment has no time zone, or a recipient is
                not known to the agreement.
        """
        if purpose not in self.purposes:
            raise UnknownPurposeError(
                f"no consents are kept for purpose {purpose!r}, only for {', '.join(self.purposes)}"
            )
        if at.tzinfo is None:
            raise ConsentError("the moment of a decision needs a time zone")
        if strange := sorted(set(conditions.recipients) - set(self.recipients)):
            raise ConsentError(f"recipients {', '.join(strange)} are not parties of the agreement")
        number, count = self.purposes.index(purpose), len(self._subjects) + 1
        states = _States.fold(self._events, count, number, microsecond(at), conditions)
        outcomes = states.outcomes(self.recipients, conditions)
        return ConsentDecision(
            outcomes=outcomes[self._subjects.find(strings(subjects))],
            log_size=self.log_size,
            next_event=None if states.due == NEVER else moment_of(states.due),
        )

    def append(self, events: Iterable[ConsentEvent]) -> Self:
        """Return a book that holds these events too; those it has already change nothing.

        Raises:
            UnknownPurposeError: an event names a purpose that the agreement does not declare.
            ConsentError: a subject is not text that can be written as UTF-8.
        """
        added = tuple(events)
        foreign = Counter(one.purpose for one in added if one.purpose not in self.purposes)
        refuse_purposes(foreign, self.purposes, "events to append")
        purpose = pa.array([event.purpose for event in added], pa.string())
        moment = [microsecond(event.time) * 8 + KINDS.index(event.event) for event in added]
        subject = strings([event.subject for event in added])
        separate = [separate_bits(event.separate) for event in added]
        named = [
            [recipient_bits(event.recipients, some) for event in added]
            for some in recipient_columns(self.recipients).values()
        ]
        expires = [NEVER if e.expires is None else microsecond(e.expires) for e in added]
        number = pc.index_in(purpose, value_set=pa.array(self.purposes, pa.string()))
        schema, first = events_schema(self.recipients), (moment, separate, named[0], expires)
        columns = [subject, number, *map(pa.array, (*first, *named[1:]))]
        more = pa.table(dict(zip(schema.names, columns, strict=True))).cast(schema)
        return self._of(self.purposes, self.recipients, pa.concat_tables([self._in_full(), more]))

    def save(self, path: Path) -> None:
        """Write the book as `.csv`, `.csv.gz` or `.parquet`, readable by its owner only.

        A crash leaves the old file or the new, never a part; equal books give equal bytes.

        Raises:
            ConsentError: the name has another ending, or the file cannot be written.
        """
        events = self._in_order()
        rank = pc.bit_wise_and(events["moment"], 7).combine_chunks()
        unlimited = pc.equal(events["expires"], NEVER)
        expires = pc.if_else(unlimited, None, events["expires"])
        table = pa.table(
            {
                "subject": events["subject"],
                "purpose": pa.array(self.purposes, pa.string()).take(
                    events["purpose"].combine_chunks()
                ),
                "event": pa.array(KINDS, pa.string()).take(rank),
                "time": rfc_3339(pc.shift_right(events["moment"], 3)),
                "separate": _words(events["separate"], SEPARATE, ""),
                "recipients": _named(events, self.recipients),
                "expires": pc.fill_null(rfc_3339(expires), ""),
            }
        )
        try:
            write_atomically(path, encode(table, path))
        except OSError as error:
            raise ConsentError(
                f"consent file {path} cannot be written: {reason_of(error)}"
            ) from error

    @classmethod
    def _of(cls, purposes: tuple[str, ...], recipients: tuple[str, ...], events: Any) -> Self:
        """Number subjects, and drop repetitions."""
        subjects, numbers = Subjects.numbered(events["subject"].combine_chunks())
        numbered = pa.table([numbers, *events.columns[1:]], events.column_names)
        return cls(purposes, recipients, subjects, _distinct(numbered, len(purposes)))

    def _in_full(self) -> Any:
        """Return the events with their subjects."""
        subject = self._subjects.texts.take(self._events["subject"])
        schema = events_schema(self.recipients)
        return pa.table([subject, *self._events.columns[1:]], schema=schema)

    def _in_order(self) -> Any:
        """Return the events in their one order."""
        order = [
            (name, "ascending")
            for name in ("moment", "subject", "purpose", *self._events.column_names[3:])
        ]
        return self._in_full().combine_chunks().sort_by(order)


def _distinct(events: Any, purposes: int) -> Any:
    """Return every event once; what is said once about a purpose cannot be a repetition."""
    about = events["subject"].to_numpy().astype(np.int64) * purposes + events["purpose"].to_numpy()
    again = pa.array(np.bincount(about)[about] > 1) if len(about) else pa.array([], pa.bool_())
    several = events.filter(again)
    if not len(several):
        return events
    once = several.group_by(events.column_names, use_threads=False).aggregate([])
    return pa.concat_tables([events.filter(pc.invert(again)), once.select(events.column_names)])


@dataclass(frozen=True, eq=False)
class _States:
    """What events about one purpose come to, by subject; the last one never said anything.

    Attributes:
        last: kind of the last decisive event; -1 where there is none.
        elsewhere: whether something was said about another purpose.
        separate: what the last yes allows; and
        recipients: for whom, by column.
        expires: when the consent ends.
        contacts: how often they were contacted of late.
        at: moment of the decision, in microseconds.
        due: the first moment later at which this may be another.
    """

    last: NDArray[np.int8]
    elsewhere: NDArray[np.bool_]
    separate: NDArray[np.int32]
    recipients: Mapping[str, NDArray[np.int32]]
    expires: NDArray[np.int64]
    contacts: NDArray[np.int64]
    at: int
    due: int

    @classmethod
    def fold(cls, events: Any, count: int, purpose: int, at: int, conditions: Conditions) -> Self:
        """Fold all events heard until a moment, whatever their order."""
        subject, moment = events["subject"].to_numpy(), events["moment"].to_numpy()
        ours = events["purpose"].to_numpy() == purpose
        kind, time = (moment & 7).astype(np.int8), moment >> 3
        heard = time <= at
        elsewhere = np.zeros(count, dtype=np.bool_)
        elsewhere[subject[heard & ~ours & (kind != _CONTACTED)]] = True
        some = heard & ours & (kind >= _GIVEN)
        decisive = _latest(count, subject[some], moment[some])
        last = np.where(decisive < 0, -1, decisive & 7).astype(np.int8)
        del moment, decisive  # ten million events have columns of 80 MB
        # What was said before consent was last given no longer counts.
        some = heard & ours & (kind == _GIVEN)
        given = _latest(count, subject[some], time[some])
        yes = heard & ours & (kind <= _GIVEN) & (kind != _CONTACTED)
        yes &= (time >= given[subject]) & (given[subject] >= 0)
        said = _latest(count, subject[yes], time[yes])
        last_words = np.flatnonzero(yes & (time == said[subject]))
        del said
        recipients = {
            name: np.full(count, ANYBODY, dtype=np.int32)
            for name in ("separate", *events.column_names)
            if name.startswith(("separate", "recipients"))
        }
        for name, found in recipients.items():
            words = events[name].to_numpy()[last_words]
            np.bitwise_and.at(found, subject[last_words], words)
        separate = recipients.pop("separate")
        del last_words, words
        sayings = (subject[yes], time[yes], kind[yes], events["expires"].to_numpy()[yes])
        expires = ends(Sayings(*sayings), given, conditions.validity)
        contacts = np.zeros(count, dtype=np.int64)
        if conditions.maximum_contacts is not None:
            since = at - conditions.contact_period // timedelta(microseconds=1)
            late = heard & (kind == _CONTACTED) & (time > since)
            contacts = np.bincount(subject[late], minlength=count)
        due = min(time[~heard & (ours | (kind == _CONTACTED))].min(initial=NEVER), NEVER)
        due = min(int(due), int(expires[expires > at].min(initial=NEVER)))
        return cls(last, elsewhere, separate, recipients, expires, contacts, at, due)

    def outcomes(self, known: tuple[str, ...], conditions: Conditions) -> NDArray[np.uint8]:
        """Return what is decided about each subject, as `ConsentDecision.outcomes` says."""
        outcomes = np.where(self.last < 0, code(ExclusionReason.NO_RECORD), _OUTCOMES[self.last])
        outcomes[(self.last < 0) & self.elsewhere] = code(ExclusionReason.WRONG_PURPOSE)
        unnamed = np.zeros(len(self.last), dtype=np.bool_)
        for name, some in recipient_columns(known).items():
            asked = recipient_bits(conditions.recipients, some)
            unnamed |= self.recipients[name] & asked != asked
        needed = separate_bits(conditions.separate)
        cap = NEVER if conditions.maximum_contacts is None else conditions.maximum_contacts
        for fails, reason in (
            (self.expires <= self.at, ExclusionReason.EXPIRED),
            (unnamed, ExclusionReason.WRONG_RECIPIENT),
            (self.separate & needed != needed, ExclusionReason.MISSING_SEPARATE_CONSENT),
            (self.contacts >= cap, ExclusionReason.OVER_CONTACT_CAP),
        ):
            outcomes[(outcomes == 0) & fails] = code(reason)
        return outcomes.astype(np.uint8, copy=False)


def _latest(count: int, who: NDArray[np.int32], moment: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the latest of the moments of each of `count` people; -1 where there is none."""
    found = np.full(count, -1)
    np.maximum.at(found, who, moment)
    return found


def _words(bits: Any, words: tuple[str, ...], none: str) -> Any:
    """Spell sets, of which there are few."""
    encoded = bits.combine_chunks().dictionary_encode()
    spelt = [
        ""
        if value == ANYBODY
        else " ".join(word for place, word in enumerate(words) if value >> place & 1) or none
        for value in encoded.dictionary.to_pylist()
    ]
    return pa.array(spelt, pa.string()).take(encoded.indices)


def _named(events: Any, known: tuple[str, ...]) -> Any:
    """Spell the recipients of events."""
    columns = recipient_columns(known)
    if len(columns) == 1:
        return _words(events["recipients"], known, _NOBODY)
    anybody = pc.equal(events["recipients"], ANYBODY).combine_chunks()
    parts = [_words(events[name], some, "") for name, some in columns.items()]
    several = pc.utf8_trim_whitespace(pc.binary_join_element_wise(*parts, " "))
    spelt = pc.replace_substring_regex(several, " +", " ")
    nobody = pc.and_(pc.equal(spelt, ""), pc.invert(anybody))
    return pc.if_else(nobody, _NOBODY, spelt)


def strings(subjects: Any) -> Any:
    """Return a column of text."""
    try:
        # Arrow makes short text of an empty array of NumPy's, whatever is asked for.
        return pa.array(subjects, pa.large_string(), from_pandas=True).cast(pa.large_string())
    except (pa.ArrowException, TypeError, UnicodeError):
        raise ConsentError("expected subjects as one column of text") from None
