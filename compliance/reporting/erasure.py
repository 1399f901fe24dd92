"""Requests to erase: by when, at whom, how far, and what is late.

Guarantees: every party that holds people is listed with every request that any of the logs knows,
and held against it if a log says that the request reached it; the earliest deadline counts; what
only one side says is cited as such.

Leaves to others: carrying requests out, and proving completions.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial

from compliance import records
from compliance.agreement import Agreement
from compliance.reporting.document import (
    Blank,
    Fact,
    Report,
    ReportKind,
    Section,
    Table,
    make_report,
)
from compliance.reporting.figures import Entry, Figure, PartyLog, by, entries_of
from compliance.terms import DATA_ROLES

__all__ = ["ErasureState", "ModelState", "erasure_report", "erasure_table"]

_DAY = timedelta(days=1)

_Requests = Sequence[Entry[records.ErasureRequested]]
_Told = Sequence[Entry[records.ErasureRequested] | Entry[records.ErasureCompleted]]


class ErasureState(StrEnum):
    """How far a party is with a request."""

    NOT_SENT_ON = "not sent on"
    """Asked at another party, and no log says that this one heard of it."""
    PENDING = "pending"
    OVERDUE = "overdue"
    COMPLETED = "completed"
    COMPLETED_LATE = "completed late"


class ModelState(StrEnum):
    """What became of a model that had to be trained again."""

    PENDING = "pending"
    OVERDUE = "overdue"
    RETIRED = "retired"
    """Another has taken its place, or its day came: the reason stands in its leaf."""


def erasure_report(agreement: Agreement, logs: Sequence[PartyLog], at: datetime) -> Report:
    """Write every request to erase, and how each party stands with it at `at` (UTC)."""
    logs = tuple(log.until(at) for log in logs)
    sections = (
        Section(
            title="Deadlines",
            law="GDPR 12(3), 17, 19; PIPL 47",
            lines=(
                Fact(text="Requests have random names, which tell nothing of whoever asked."),
                Blank(ask="Extensions under GDPR 12(3), and when the person was told of them"),
            ),
            tables=(erasure_table(agreement, logs, at),),
        ),
        Section(
            title="What was done",
            tables=(_steps(logs), _overdue(logs), _due(logs, at), _retired(logs)),
        ),
    )
    return make_report(ReportKind.ERASURE, "Erasure", agreement, logs, at, sections)


def erasure_table(agreement: Agreement, logs: Sequence[PartyLog], at: datetime) -> Table:
    """Return every request and party, with the days that are left; negative where it is late."""
    requests = by(entries_of(logs, records.ErasureRequested), lambda leaf: leaf.request)
    completed = by(
        entries_of(logs, records.ErasureCompleted), lambda leaf: (leaf.request, leaf.peer)
    )
    heard = by(
        entries_of(logs, records.ErasureAcknowledged), lambda leaf: (leaf.request, leaf.peer)
    )
    holders = [party.name for party in agreement.parties if party.role in DATA_ROLES]
    rows = []
    for request, asked in sorted(requests.items()):
        for party in holders:
            told = (*asked, *completed.get((request, party), ()))
            # Its own log may tell of the request as well.
            reached = (request, party) in heard or any(
                party in (one.record.origin, one.record.party) for one in asked
            )
            rows.append(
                (
                    Fact(text=request),
                    Fact(text=party),
                    Figure.of(_origin, asked),
                    Figure.of(_deadline, asked),
                    Figure.of(partial(_state, at, reached), told),
                    Figure.of(partial(_left, at), told, "days"),
                )
            )
    head = ("request", "at", "asked at", "deadline", "state", "days left, or to spare")
    return Table(caption="Requests to erase", head=head, rows=tuple(rows), keys=2)


def _origin(asked: _Requests) -> str:
    return min(asked, key=lambda one: one.record.time).record.origin


def _deadline(told: _Told) -> datetime:
    return min(
        one.record.deadline for one in told if isinstance(one.record, records.ErasureRequested)
    )


def _completed(told: _Told) -> datetime | None:
    """Return when somebody first said that it is done."""
    times = [one.record.time for one in told if isinstance(one.record, records.ErasureCompleted)]
    return min(times, default=None)


def _state(at: datetime, reached: bool, told: _Told) -> str:
    deadline, done = _deadline(told), _completed(told)
    if done is not None:
        late = done > deadline
        return (ErasureState.COMPLETED_LATE if late else ErasureState.COMPLETED).value
    if not reached:
        return ErasureState.NOT_SENT_ON.value
    return (ErasureState.OVERDUE if at > deadline else ErasureState.PENDING).value


def _left(at: datetime, told: _Told) -> int:
    """Return whole days from completion, or from `at`, to the deadline; rounded down."""
    return (_deadline(told) - (_completed(told) or at)) // _DAY


def _steps(logs: Sequence[PartyLog]) -> Table:
    groups = by(
        entries_of(logs, records.ErasureStep),
        lambda leaf: (leaf.request, leaf.party, leaf.target),
    )
    rows = [
        (*(Fact(text=text) for text in key), Figure.of(len, found))
        for key, found in sorted(groups.items())
    ]
    head = ("request", "party", "place", "steps")
    return Table(caption="Places dealt with", head=head, rows=tuple(rows), keys=3)


def _overdue(logs: Sequence[PartyLog]) -> Table:
    groups = by(entries_of(logs, records.ErasureOverdue), lambda leaf: (leaf.request, leaf.peer))
    rows = [
        (*(Fact(text=text) for text in key), Figure.of(len, found))
        for key, found in sorted(groups.items())
    ]
    head = ("request", "late", "reported by logs")
    return Table(caption="Reported as late", head=head, rows=tuple(rows), keys=2)


def _due(logs: Sequence[PartyLog], at: datetime) -> Table:
    """Return models that had to be trained again, each by its day, and what came of it."""
    ended = by(entries_of(logs, records.ModelRetired), lambda leaf: (leaf.party, leaf.model_digest))
    groups = by(entries_of(logs, records.ModelDue), lambda leaf: (leaf.party, leaf.model_digest))
    rows = [
        (
            Fact(text=party),
            Fact(text=_named(found)),
            Figure.of(_day, found),
            Figure.of(partial(_became, at), (*found, *ended.get((party, digest), ()))),
        )
        for (party, digest), found in sorted(groups.items())
    ]
    head = ("party", "model", "by", "state")
    return Table(caption="Models to be trained again", head=head, rows=tuple(rows), keys=2)


def _named(told: Sequence[Entry[records.ModelDue]] | Sequence[Entry[records.ModelRetired]]) -> str:
    """Return a model's name, that of its training, and the beginning of its digest."""
    first = told[0].record
    return f"{first.job or 'model'} ({first.model_digest[:12]}…)"


_Due = Sequence[Entry[records.ModelDue] | Entry[records.ModelRetired]]


def _day(told: _Due) -> datetime:
    return min(one.record.due for one in told if isinstance(one.record, records.ModelDue))


def _became(at: datetime, told: _Due) -> str:
    if any(isinstance(one.record, records.ModelRetired) for one in told):
        return ModelState.RETIRED.value
    return (ModelState.OVERDUE if at > _day(told) else ModelState.PENDING).value


def _retired(logs: Sequence[PartyLog]) -> Table:
    groups = by(
        entries_of(logs, records.ModelRetired), lambda leaf: (leaf.party, leaf.model_digest)
    )
    rows = [
        (Fact(text=party), Fact(text=_named(found)), Figure.of(len, found))
        for (party, _), found in sorted(groups.items())
    ]
    return Table(
        caption="Models retired", head=("party", "model", "leaves"), rows=tuple(rows), keys=2
    )
