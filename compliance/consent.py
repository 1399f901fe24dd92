"""Who consented to what: a book of events, and one decision for a whole column of people.

Guarantees: a person is allowed only by a `given` event that no later `refused` or `withdrawn` one
follows; no event, an unreadable file or an unknown purpose never allow anybody. A decision depends
on the set of events alone: their order in the file and repetitions don't matter, because what is
kept of a person is a maximum. Events after the moment of the decision are not read.

Leaves to others: what a purpose means and which are agreed (`compliance.agreement`), mapping people
to a party's own record references, and writing down that consents were used (`compliance.records`).

A consent file is CSV (`.csv`, `.csv.gz`, UTF-8) or Parquet (`.parquet`) with at least the columns

| column | holds |
|---|---|
| subject | the party's own reference of the person, text, compared as it is written |
| purpose | a purpose that the agreement declares |
| event | `given`, `refused` or `withdrawn` |
| time | when, RFC 3339 with an offset (or a Parquet timestamp with a time zone), 1970 to 2199 |

Times are read to the microsecond. No message carries a subject.
"""

import gzip
import os
import re
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv, parquet

from compliance.errors import ConsentError, UnknownPurposeError

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "EVENTS",
    "ConsentBook",
    "ConsentDecision",
    "ConsentEvent",
    "ConsentEventKind",
    "ExclusionReason",
    "read_events",
]


class ConsentEventKind(StrEnum):
    """What a person said about a purpose."""

    GIVEN = "given"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"


class ExclusionReason(StrEnum):
    """Why a person may not be used for a purpose."""

    NO_RECORD = "no_record"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"


_COLUMNS: Final = ("subject", "purpose", "event", "time")
_KINDS: Final = tuple(ConsentEventKind)
# By rank of the last event; the rank after all of theirs stands for no event at all.
_OUTCOMES: Final = np.array(
    [
        0,
        *(
            1 + list(ExclusionReason).index(reason)
            for reason in map(ExclusionReason, ("refused", "withdrawn", "no_record"))
        ),
    ],
    dtype=np.uint8,
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_END: Final = datetime(2200, 1, 1, tzinfo=UTC)
_RFC_3339: Final = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$"
_ENDINGS: Final = (".csv", ".csv.gz", ".parquet")
_PURPOSE: Final = re.compile(r"[A-Za-z][A-Za-z0-9._:/ -]{0,126}")
_SHOWN_PURPOSES: Final = 20
_BATCH_ROWS: Final = 65_536
_BLOCK_BYTES: Final = 2 << 20  # of CSV; also the longest row that can be read
_INSTANT: Final = pa.timestamp("us", "UTC")
EVENTS: Final = pa.schema(
    [("subject", pa.large_string()), ("purpose", pa.int32()), ("moment", pa.int64())]
)
"""Events as `read_events` gives them: subject, place of the purpose, moment and rank in one."""


@dataclass(frozen=True)
class ConsentEvent:
    """One thing that one person said.

    Attributes:
        subject: the party's own reference of the person; never shown.
        purpose: what it is about.
        event: what was said.
        time: when, with a time zone, from 1970 to 2199.

    Raises:
        ConsentError: no subject, or a time without zone or out of range.
    """

    subject: str = field(repr=False)
    purpose: str
    event: ConsentEventKind
    time: datetime

    def __post_init__(self) -> None:
        if not self.subject:
            raise ConsentError("a consent event needs a subject")
        if self.time.tzinfo is None or not _EPOCH <= self.time < _END:
            raise ConsentError("a consent event needs a time with a zone, from 1970 to 2199")


@dataclass(frozen=True, eq=False)
class ConsentDecision:
    """Who may be used for a purpose, and why the others may not.

    Attributes:
        outcomes: shape (n,), for each subject asked about, in that order: 0 where it is allowed,
            else the place, from 1, of the reason in `ExclusionReason`.
        log_size: number of events in the book that decided.
        next_event: when the book has its next event for the purpose, so that the decision must be
            made anew; None if it has no later one.
    """

    outcomes: NDArray[np.uint8]
    log_size: int
    next_event: datetime | None

    @classmethod
    def joined(cls, parts: Iterable[tuple[NDArray[Any], Self]], *, count: int) -> Self:
        """Put together what several books, without an event in common, decided.

        Args:
            parts: places of people, shape (k,), and what one book decided about them.
            count: how many people there are; about whom no book decided has no record.
        """
        outcomes = np.full(count, _OUTCOMES[-1])
        log_size, due = 0, []
        for places, decided in parts:
            outcomes[places] = decided.outcomes
            log_size += decided.log_size
            if decided.next_event is not None:
                due.append(decided.next_event)
        return cls(outcomes, log_size, min(due, default=None))

    @property
    def allowed(self) -> NDArray[np.bool_]:
        """Whether each subject may be used, shape (n,)."""
        allowed: NDArray[np.bool_] = self.outcomes == 0
        return allowed

    @property
    def excluded(self) -> dict[ExclusionReason, int]:
        """How many subjects were excluded, for every reason, 0 included."""
        return self.excluded_among(slice(None))

    def excluded_among(self, asked: "NDArray[np.bool_] | slice") -> dict[ExclusionReason, int]:
        """Return how many of some subjects, shape (n,), were excluded, for every reason."""
        counts = np.bincount(self.outcomes[asked], minlength=1 + len(ExclusionReason)).tolist()
        return dict(zip(ExclusionReason, counts[1:], strict=True))


@dataclass(frozen=True, eq=False)
class ConsentBook:
    """All consent events of a party, each once.

    Two books are equal if they hold the same events for the same purposes.

    Attributes:
        purposes: those that the agreement declares; no event has another.
    """

    purposes: tuple[str, ...]
    _subjects: Any = field(repr=False)  # text, each once
    # subject: place in _subjects. purpose: place in purposes. moment: microseconds since 1970,
    # times 4, plus the rank of the event: ordered like (time, event), so that on a tie a refusal or
    # withdrawal beats a consent.
    _events: Any = field(repr=False)

    @classmethod
    def empty(cls, *, purposes: Collection[str]) -> Self:
        """Return a book in which nobody has said anything."""
        return cls.of([], purposes=purposes)

    @classmethod
    def load(cls, path: Path, *, purposes: Collection[str]) -> Self:
        """Read a consent file.

        Args:
            path: `.csv`, `.csv.gz` or `.parquet`; other columns in it are ignored.
            purposes: those that the agreement declares.

        Raises:
            ConsentError: the file cannot be read, lacks a column, or has rows without a subject,
                with an unknown event or with a malformed time; all are counted.
            UnknownPurposeError: the file names other purposes.
        """
        return cls.of(read_events(path, purposes=purposes), purposes=purposes)

    @classmethod
    def of(cls, events: Iterable[Any], *, purposes: Collection[str]) -> Self:
        """Return the book of events that `read_events` gave, with the same purposes."""
        known = tuple(sorted(set(purposes)))
        return cls._of(known, pa.Table.from_batches(list(events), schema=EVENTS))

    def __eq__(self, other: object) -> bool:
        """Tell whether the other book holds the same events for the same purposes."""
        if not isinstance(other, ConsentBook):
            return NotImplemented
        same: bool = self.purposes == other.purposes and self._in_order() == other._in_order()
        return same

    __hash__ = None  # type: ignore[assignment]

    @property
    def log_size(self) -> int:
        """Number of events in the book, repetitions not counted."""
        return len(self._events)

    def decide(
        self, subjects: "pd.Series[str] | NDArray[Any]", *, purpose: str, at: datetime
    ) -> ConsentDecision:
        """Decide for a whole column of people whether each may be used.

        Args:
            subjects: the party's own record references, text, shape (n,); repetitions are allowed,
                and a missing value has no record.
            purpose: what they would be used for.
            at: moment of the decision, with a time zone; later events are not read.

        Raises:
            UnknownPurposeError: the agreement does not declare the purpose.
            ConsentError: the subjects are not text, or the moment has no time zone.
        """
        if purpose not in self.purposes:
            raise UnknownPurposeError(
                f"no consents are kept for purpose {purpose!r}, only for {_join(self.purposes)}"
            )
        if at.tzinfo is None:
            raise ConsentError("the moment of a decision needs a time zone")
        about = self._events.filter(pc.equal(self._events["purpose"], self.purposes.index(purpose)))
        subject, moment = about["subject"].to_numpy(), about["moment"].to_numpy()
        heard = moment < _microsecond(at) * 4 + 4
        latest = np.full(len(self._subjects) + 1, -1)  # the last one: whoever never said anything
        np.maximum.at(latest, subject[heard], moment[heard])
        place = pc.index_in(_strings(subjects), value_set=self._subjects)
        rank = latest[pc.fill_null(place, len(self._subjects)).to_numpy()] & 3
        later = moment[~heard]
        return ConsentDecision(
            outcomes=_OUTCOMES[rank],
            log_size=self.log_size,
            next_event=_moment(int(later.min()) >> 2) if len(later) else None,
        )

    def append(self, events: Iterable[ConsentEvent]) -> Self:
        """Return a book that holds these events too; those it has already change nothing.

        Raises:
            UnknownPurposeError: an event names a purpose that the agreement does not declare.
            ConsentError: a subject is not text that can be written as UTF-8.
        """
        added = tuple(events)
        foreign = Counter(one.purpose for one in added if one.purpose not in self.purposes)
        _refuse_purposes(foreign, self.purposes, "events to append")
        purpose = pa.array([event.purpose for event in added], pa.string())
        moment = [_microsecond(event.time) * 4 + _KINDS.index(event.event) for event in added]
        subject = _strings([event.subject for event in added])
        number = pc.index_in(purpose, value_set=pa.array(self.purposes, pa.string()))
        more = pa.table([subject, number, pa.array(moment, pa.int64())], schema=EVENTS)
        return self._of(self.purposes, pa.concat_tables([self._in_full(), more]))

    def save(self, path: Path) -> None:
        """Write the book as `.csv`, `.csv.gz` or `.parquet`, readable by its owner only.

        A crash leaves the old file or the new, never a part; equal books give equal bytes.

        Raises:
            ConsentError: the name has another ending, or the file cannot be written.
        """
        events = self._in_order()
        time = pc.shift_right(events["moment"], 2).cast(pa.timestamp("us"))
        rank = pc.bit_wise_and(events["moment"], 3)
        table = pa.table(
            {
                "subject": events["subject"],
                "purpose": pa.array(self.purposes, pa.string()).take(
                    events["purpose"].combine_chunks()
                ),
                "event": pa.array(_KINDS, pa.string()).take(rank.combine_chunks()),
                "time": pc.replace_substring(
                    pc.binary_join_element_wise(time.cast(pa.string()), "Z", ""), " ", "T"
                ),
            }
        )
        try:
            _write_atomically(path, _encode(table, path))
        except OSError as error:
            raise ConsentError(
                f"consent file {path} cannot be written: {_reason(error)}"
            ) from error

    @classmethod
    def _of(cls, purposes: tuple[str, ...], events: Any) -> Self:
        """Number subjects, and drop repetitions."""
        subjects = events["subject"].combine_chunks().dictionary_encode()
        numbered = pa.table(
            [subjects.indices, events["purpose"], events["moment"]], events.column_names
        )
        return cls(purposes, subjects.dictionary, _distinct(numbered, len(purposes)))

    def _in_full(self) -> Any:
        """Return the events with their subjects."""
        subject = self._subjects.take(self._events["subject"])
        return pa.table([subject, self._events["purpose"], self._events["moment"]], schema=EVENTS)

    def _in_order(self) -> Any:
        """Return the events in their one order."""
        order = [(name, "ascending") for name in ("moment", "subject", "purpose")]
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


def read_events(path: Path, *, purposes: Collection[str]) -> Iterator[Any]:
    """Read a consent file in batches, each in bounded memory.

    Nothing of a batch may be used before all have been read: only then is every row known to be
    sound.

    Args:
        path: `.csv`, `.csv.gz` or `.parquet`; other columns in it are ignored.
        purposes: those that the agreement declares.

    Yields:
        Record batches of subject (text), purpose (its place among the sorted purposes) and moment
        (microseconds since 1970, times 4, plus the rank of the event).

    Raises:
        ConsentError: the file cannot be read, lacks a column, or has rows without a subject,
            with an unknown event or with a malformed time; all are counted.
        UnknownPurposeError: the file names other purposes.
    """
    torn: list[int] = []
    rows = without_subject = without_event = without_time = 0
    known = pa.array(sorted(set(purposes)), pa.string())
    foreign: Counter[str] = Counter()
    for batch in _read(path, torn):
        subject, purpose, event = (_text(batch, name, path) for name in _COLUMNS[:3])
        rank = pc.index_in(event, value_set=pa.array(_KINDS, pa.string()))
        number = pc.index_in(purpose, value_set=known)
        time = _microseconds(batch, path)
        rows += len(batch)
        without_subject += pc.sum(pc.equal(subject, "")).as_py() or 0
        without_event += rank.null_count
        without_time += time.null_count
        if number.null_count:
            counts = pc.value_counts(purpose.filter(pc.is_null(number))).to_pylist()
            foreign.update({pair["values"]: pair["counts"] for pair in counts})
        if not (without_subject or without_event or without_time or foreign):
            moment = pc.add(pc.multiply(time, 4), rank)
            text = subject.cast(pa.large_string())
            yield pa.record_batch([text, number, moment.cast(pa.int64())], schema=EVENTS)
    mistakes = [
        (len(torn), "with too many or too few fields"),
        (without_subject, "without a subject"),
        (without_event, f"whose event is none of {', '.join(_KINDS)}"),
        (without_time, "whose time is not RFC 3339 with an offset, from 1970 to 2199"),
    ]
    if found := [f"{count} {what}" for count, what in mistakes if count]:
        raise ConsentError(
            f"consent file {path}: of {rows + len(torn)} rows {'; '.join(found)}: correct them"
        )
    _refuse_purposes(foreign, purposes, f"consent file {path}")


def _refuse_purposes(foreign: Counter[str], allowed: Collection[str], where: str) -> None:
    """Refuse undeclared purposes; they are named only where they can be taken for purposes."""
    if not foreign:
        return
    if len(foreign) <= _SHOWN_PURPOSES and all(map(_PURPOSE.fullmatch, foreign)):
        counted = sorted(foreign.items())
        shown = ", ".join(f"{purpose!r} ({count} rows)" for purpose, count in counted)
    else:
        shown = f"{len(foreign)} others in {foreign.total()} rows (is that column the purpose?)"
    raise UnknownPurposeError(
        f"{where}: the agreement declares {_join(sorted(allowed))}, got {shown}: correct them, or "
        "have the agreement amended"
    )


def _read(path: Path, torn: list[int]) -> Iterator[Any]:
    """Yield the columns, batch by batch; note rows with too many or too few fields."""
    try:
        if _ending(path) == ".parquet":
            with parquet.ParquetFile(path) as file:
                _require_columns(file.schema_arrow.names, path)
                batches = file.iter_batches(batch_size=_BATCH_ROWS, columns=list(_COLUMNS))
                yield from map(_sound, batches)
        else:
            with _csv(path, None, []) as reader:
                _require_columns(reader.schema.names, path)
            with _csv(path, _COLUMNS, torn) as reader:
                yield from map(_sound, reader)
    except (pa.ArrowException, UnicodeError):
        # Arrow quotes the row it stumbled over: its error must not travel with ours.
        raise ConsentError(
            f"consent file {path} is damaged: expected UTF-8 text with a header line, or Parquet"
        ) from None
    except OSError as error:
        raise ConsentError(f"consent file {path} cannot be read: {_reason(error)}") from error


def _csv(path: Path, columns: Collection[str] | None, torn: list[int]) -> Any:
    def skip(row: Any) -> str:
        torn.append(row.actual_columns)
        return "skip"

    return csv.open_csv(
        path,
        # Arrow reads some blocks ahead; with threads, dozens of them.
        read_options=csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES),
        parse_options=csv.ParseOptions(newlines_in_values=True, invalid_row_handler=skip),
        convert_options=csv.ConvertOptions(
            include_columns=columns,
            column_types=dict.fromkeys(_COLUMNS, pa.string()),
            strings_can_be_null=False,
        ),
    )


def _require_columns(found: Sequence[str], path: Path) -> None:
    if amiss := [name for name in _COLUMNS if found.count(name) != 1]:
        # What was found is not shown: in a file without a header it is the first person's row.
        raise ConsentError(
            f"consent file {path}: expected each of the columns {_join(_COLUMNS)} once in its "
            f"header, not so {_join(amiss)}"
        )


def _sound(batch: Any) -> Any:
    batch = batch.select(_COLUMNS)
    batch.validate(full=True)
    return batch


def _text(table: Any, name: str, path: Path) -> Any:
    column = table[name]
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)
    ):
        raise ConsentError(
            f"consent file {path}: expected text in column {name}, got {column.type}"
        )
    return pc.fill_null(column.cast(pa.string()), "")


def _microseconds(table: Any, path: Path) -> Any:
    """Return microseconds since 1970, null where the time is malformed or out of range."""
    column = table["time"]
    if pa.types.is_timestamp(column.type):
        if column.type.tz is None:
            raise ConsentError(
                f"consent file {path}: column time has no time zone: write it as UTC"
            )
        time = column.cast(_INSTANT, safe=False)
    else:
        time = _instants(_text(table, "time", path))
    in_range = pc.and_(pc.greater_equal(time, _EPOCH), pc.less(time, _END))
    return pc.if_else(in_range, time, None).cast(pa.int64())


def _instants(text: Any) -> Any:
    """Return the moments that texts tell, null where one is malformed."""
    text = pc.if_else(pc.match_substring_regex(text, _RFC_3339), text, None)
    try:
        return text.cast(_INSTANT)
    except pa.ArrowInvalid:  # no such day, or more than six digits of a second
        import pandas as pd

        parsed = pd.to_datetime(text.to_pandas(), errors="coerce", utc=True, format="ISO8601")
        return pa.array(parsed.dt.as_unit("us"))


def _microsecond(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(microseconds=1)


def _moment(microsecond: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microsecond)


def _strings(subjects: Any) -> Any:
    try:
        return pa.array(subjects, pa.large_string(), from_pandas=True)
    except (pa.ArrowException, TypeError, UnicodeError):
        raise ConsentError("expected subjects as one column of text") from None


def _encode(table: Any, path: Path) -> bytes:
    ending = _ending(path)
    sink = pa.BufferOutputStream()
    if ending == ".parquet":
        parquet.write_table(table, sink)
    else:
        csv.write_csv(table, sink)
    content: bytes = sink.getvalue().to_pybytes()
    return gzip.compress(content, compresslevel=6, mtime=0) if ending == ".csv.gz" else content


def _ending(path: Path) -> str:
    for ending in _ENDINGS:
        if path.name.endswith(ending):
            return ending
    raise ConsentError(f"consent file {path}: expected a name ending in {_join(_ENDINGS)}")


def _write_atomically(path: Path, content: bytes) -> None:
    descriptor, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _reason(error: OSError) -> str:
    return error.strerror or "it is damaged"


def _join(names: Iterable[str]) -> str:
    return ", ".join(names)
