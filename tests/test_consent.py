"""Consents: the last word counts, whatever the file's order; no subject is ever shown."""

import gzip
import logging
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from compliance.consent import (
    Conditions,
    ConsentBook,
    ConsentDecision,
    ConsentEvent,
    ConsentEventKind,
    ExclusionReason,
    SeparateConsent,
    files,
    read_events,
)
from compliance.errors import ComplianceError, ConsentError, UnknownPurposeError

GIVEN, REFUSED, WITHDRAWN = map(ConsentEventKind, ("given", "refused", "withdrawn"))
PURPOSES = ("lookalike-audiences", "newsletter")
PURPOSE = PURPOSES[0]
PARTIES = ("brand", "coordinator", "retailer")
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
NEVER = datetime(2300, 1, 1, tzinfo=UTC)
HEADER = "subject,purpose,event,time\n"
SECRET = "SECRET-77"

JUST_AFTER_NOON = pa.array([np.datetime64("2026-06-01T12:00:00.000000999")])
NOT_UTF_8 = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff"))

SUBJECTS = ("R1", "R2", "R3", "R10", "ä", "a,b", 'say "x"', " R1", "line\nbreak")
MOMENTS = st.integers(-3, 3).map(lambda step: NOON + timedelta(microseconds=step))
EVENTS = st.lists(
    st.builds(
        ConsentEvent,
        st.sampled_from(SUBJECTS),
        st.sampled_from(PURPOSES),
        st.sampled_from(ConsentEventKind),
        MOMENTS,
        st.frozensets(st.sampled_from(SeparateConsent), max_size=2) | st.just(frozenset()),
        st.none() | st.frozensets(st.sampled_from(PARTIES)),
        st.none() | MOMENTS,
    ),
    max_size=25,
)


def event(
    kind: ConsentEventKind = GIVEN,
    *,
    subject: str = "R1",
    purpose: str = PURPOSE,
    minutes: float = 0,
) -> ConsentEvent:
    return ConsentEvent(subject, purpose, kind, NOON + timedelta(minutes=minutes))


def book_of(*events: ConsentEvent) -> ConsentBook:
    return ConsentBook.empty(purposes=PURPOSES, recipients=PARTIES).append(events)


CONDITIONS = st.builds(
    Conditions,
    recipients=st.sets(st.sampled_from(PARTIES)).map(tuple),
    separate=st.frozensets(st.sampled_from(SeparateConsent), max_size=2),
    validity=st.none() | st.just(timedelta(microseconds=2)),
    maximum_contacts=st.none() | st.just(1),
    contact_period=st.just(timedelta(microseconds=2)),
)


def last_words_and_end(
    heard: list[ConsentEvent], validity: timedelta | None
) -> tuple[list[ConsentEvent], datetime]:
    """Return what was said last of a consent that was given, and when it ends."""
    given = max(entry.time for entry in heard if entry.event == "given")
    yes = [e for e in heard if e.event in {"given", "scope_changed", "reconfirmed"}]
    yes = [entry for entry in yes if entry.time >= given]
    end = NEVER
    for when in sorted({entry.time for entry in yes}):
        last = [entry for entry in yes if entry.time == when]
        kinds = {entry.event for entry in last}
        if "given" in kinds:
            end = NEVER
        elif when >= end:
            break
        if kinds & {"given", "reconfirmed"}:
            end = NEVER if validity is None else when + validity
        end = min([end, *(entry.expires for entry in last if entry.expires is not None)])
    return last, end


def decide_slowly(
    events: list[ConsentEvent],
    subject: str,
    purpose: str,
    at: datetime,
    conditions: Conditions,
) -> ExclusionReason | None:
    """Say the same as `ConsentBook.decide`, for one person, in the words of its promise."""
    theirs = [entry for entry in events if entry.subject == subject and entry.time <= at]
    contacts = {entry for entry in theirs if entry.event is ConsentEventKind.CONTACTED}
    said = [entry for entry in theirs if entry not in contacts]
    heard = [entry for entry in said if entry.purpose == purpose]
    decisive = [e for e in heard if e.event not in {"scope_changed", "reconfirmed"}]
    if not decisive:
        other = any(entry.purpose != purpose for entry in said)
        return ExclusionReason.WRONG_PURPOSE if other else ExclusionReason.NO_RECORD
    newest = max(entry.time for entry in decisive)
    last_words = {entry.event for entry in decisive if entry.time == newest}
    for no in ("withdrawn", "objected", "expired", "refused"):
        if no in last_words:
            return ExclusionReason(no)
    last, end = last_words_and_end(heard, conditions.validity)
    if at >= end:
        return ExclusionReason.EXPIRED
    for entry in last:
        if entry.recipients is not None and not set(conditions.recipients) <= entry.recipients:
            return ExclusionReason.WRONG_RECIPIENT
    if any(not conditions.separate <= entry.separate for entry in last):
        return ExclusionReason.MISSING_SEPARATE_CONSENT
    cap = conditions.maximum_contacts
    of_late = {entry for entry in contacts if entry.time > at - conditions.contact_period}
    over = cap is not None and len(of_late) >= cap
    return ExclusionReason.OVER_CONTACT_CAP if over else None


def allowed(book: ConsentBook, *subjects: str, at: datetime = NOON) -> list[bool]:
    return book.decide(np.array(subjects), purpose=PURPOSE, at=at).allowed.tolist()


FEW = st.lists(
    st.builds(
        ConsentEvent,
        st.sampled_from(("R1", "R2")),
        st.just(PURPOSE),
        st.sampled_from([GIVEN, *map(ConsentEventKind, ("scope_changed", "reconfirmed"))]),
        MOMENTS,
        expires=st.none() | MOMENTS,
    ),
    max_size=8,
)


class TestDecide:
    @settings(max_examples=400)
    @given(events=FEW, at=MOMENTS, conditions=CONDITIONS)
    def test_what_is_said_again_counts_only_while_consent_holds(
        self, events: list[ConsentEvent], at: datetime, conditions: Conditions
    ) -> None:
        subjects = np.array(["R1", "R2"])
        decision = book_of(*events).decide(subjects, purpose=PURPOSE, at=at, conditions=conditions)
        expected = [decide_slowly(events, one, PURPOSE, at, conditions) for one in subjects]
        assert decision.allowed.tolist() == [reason is None for reason in expected]

    @given(events=EVENTS, purpose=st.sampled_from(PURPOSES), at=MOMENTS, conditions=CONDITIONS)
    def test_it_says_the_same_as_one_person_at_a_time(
        self, events: list[ConsentEvent], purpose: str, at: datetime, conditions: Conditions
    ) -> None:
        asked: dict[str, Any] = {"purpose": purpose, "at": at, "conditions": conditions}
        decision = book_of(*events).decide(np.array(SUBJECTS), **asked)
        expected = [decide_slowly(events, subject, purpose, at, conditions) for subject in SUBJECTS]
        assert decision.allowed.tolist() == [reason is None for reason in expected]
        assert decision.excluded == {reason: expected.count(reason) for reason in ExclusionReason}
        assert decision.log_size == len(set(events))

    @given(data=st.data(), events=EVENTS)
    def test_order_and_repetitions_do_not_matter(
        self, data: st.DataObject, events: list[ConsentEvent]
    ) -> None:
        repeated = events + data.draw(st.lists(st.sampled_from(events)) if events else st.just([]))
        shuffled = data.draw(st.permutations(repeated))
        cut = data.draw(st.integers(0, len(shuffled)))
        assert book_of(*shuffled[:cut]).append(shuffled[cut:]) == book_of(*events)

    @given(events=EVENTS, at=MOMENTS)
    def test_later_events_are_not_read(self, events: list[ConsentEvent], at: datetime) -> None:
        until_then = [entry for entry in events if entry.time <= at]
        asked: dict[str, Any] = {"purpose": PURPOSE, "at": at}
        now = book_of(*events).decide(np.array(SUBJECTS), **asked)
        then = book_of(*until_then).decide(np.array(SUBJECTS), **asked)
        assert now.allowed.tolist() == then.allowed.tolist()
        assert now.excluded == then.excluded

    def test_a_person_may_change_their_mind(self) -> None:
        book = book_of(event(minutes=-3), event(WITHDRAWN, minutes=-2), event(minutes=-1))
        at = [NOON + timedelta(minutes=minutes) for minutes in (-4, -3, -2, -1)]
        assert [allowed(book, "R1", at=moment)[0] for moment in at] == [False, True, False, True]

    @pytest.mark.parametrize("no", [REFUSED, WITHDRAWN])
    def test_no_beats_yes_at_the_same_moment(self, no: ConsentEventKind) -> None:
        assert allowed(book_of(event(GIVEN), event(no))) == []
        assert allowed(book_of(event(GIVEN), event(no)), "R1") == [False]

    @pytest.mark.parametrize("kind", ["scope_changed", "reconfirmed"])
    def test_what_comes_after_a_consent_has_ended_does_not_bring_it_back(self, kind: str) -> None:
        given = ConsentEvent("R1", PURPOSE, GIVEN, NOON, expires=NOON + timedelta(minutes=1))
        late = event(ConsentEventKind(kind), minutes=2)
        later = event(ConsentEventKind.RECONFIRMED, minutes=3)
        book = book_of(given, late, later)
        assert allowed(book, "R1", at=NOON) == [True]
        assert allowed(book, "R1", at=NOON + timedelta(minutes=4)) == [False]
        again = book.append([event(minutes=3)])
        assert allowed(again, "R1", at=NOON + timedelta(minutes=4)) == [True]

    def test_another_scope_lasts_no_longer_and_a_confirmation_does(self) -> None:
        three = Conditions(validity=timedelta(minutes=3))
        for kind, expected in (("scope_changed", False), ("reconfirmed", True)):
            book = book_of(event(), event(ConsentEventKind(kind), minutes=2))
            decision = book.decide(
                np.array(["R1"]),
                purpose=PURPOSE,
                at=NOON + timedelta(minutes=4),
                conditions=three,
            )
            assert decision.allowed.tolist() == [expected]

    def test_consent_to_another_purpose_is_told_apart(self) -> None:
        book = book_of(event(purpose="newsletter"))
        decision = book.decide(np.array(["R1"]), purpose=PURPOSE, at=NOON)
        assert decision.excluded[ExclusionReason.WRONG_PURPOSE] == 1

    def test_the_same_moment_in_another_zone_is_the_same_moment(self) -> None:
        far = timezone(timedelta(hours=14))
        book = book_of(ConsentEvent("R1", PURPOSE, GIVEN, NOON.astimezone(far)))
        assert book == book_of(event())
        assert allowed(book, "R1", at=NOON.astimezone(timezone(-timedelta(hours=11)))) == [True]

    def test_nobody_is_asked_about(self) -> None:
        decision = book_of(event()).decide(np.array([], dtype=str), purpose=PURPOSE, at=NOON)
        assert decision.allowed.shape == (0,)
        assert decision.allowed.dtype == np.bool_
        assert sum(decision.excluded.values()) == 0

    def test_an_empty_book_allows_nobody(self) -> None:
        assert allowed(ConsentBook.empty(purposes=PURPOSES, recipients=PARTIES), "R1", "R2") == [
            False,
            False,
        ]

    def test_subjects_are_compared_as_they_are_written(self) -> None:
        assert allowed(book_of(event()), "R1", " R1", "r1", "R01") == [True, False, False, False]

    @pytest.mark.parametrize(
        "column",
        [
            pd.Series(["R1", None, "R2", "R1"]),
            pd.Series(["R1", None, "R2", "R1"], dtype="string"),
            pd.Series(["R1", None, "R2", "R1"], dtype="category"),
            pd.Series(["R1", float("nan"), "R2", "R1"], dtype=object, index=[4, 3, 2, 1]),
            np.array(["R1", None, "R2", "R1"], dtype=object),
            np.array(["R1", "", "R2", "R1"]),
        ],
        ids=["text", "string", "category", "object", "object array", "text array"],
    )
    def test_every_kind_of_text_column_is_read_and_gaps_have_no_record(self, column: Any) -> None:
        decision = book_of(event()).decide(column, purpose=PURPOSE, at=NOON)
        assert decision.allowed.tolist() == [True, False, False, True]

    @pytest.mark.parametrize(
        "column", [np.array([[SECRET]]), np.array([SECRET, 5], dtype=object), np.array(["\ud800"])]
    )
    def test_what_is_no_column_of_text_is_refused(self, column: Any) -> None:
        with pytest.raises(ConsentError, match="one column of text") as caught:
            book_of(event()).decide(column, purpose=PURPOSE, at=NOON)
        assert SECRET not in told(caught)

    def test_an_undeclared_purpose_is_refused(self) -> None:
        with pytest.raises(
            UnknownPurposeError, match="'profiling', only for lookalike-audiences, "
        ):
            book_of(event()).decide(np.array(["R1"]), purpose="profiling", at=NOON)

    def test_a_moment_without_a_zone_is_refused(self) -> None:
        with pytest.raises(ConsentError, match="time zone"):
            allowed(book_of(event()), "R1", at=NOON.replace(tzinfo=None))


class TestManyParties:
    """More recipients than one column of bits has room for."""

    MANY = tuple(sorted((*PARTIES, *(f"{first}{n:02}" for first in "adq" for n in range(41)))))

    @given(events=EVENTS, at=MOMENTS, conditions=CONDITIONS)
    @settings(max_examples=25)
    def test_however_many_parties_there_are_a_decision_is_the_same(
        self, events: list[ConsentEvent], at: datetime, conditions: Conditions
    ) -> None:
        many = ConsentBook.empty(purposes=PURPOSES, recipients=self.MANY).append(events)
        asked: dict[str, Any] = {"purpose": PURPOSE, "at": at, "conditions": conditions}
        few = book_of(*events).decide(np.array(SUBJECTS), **asked)
        assert many.decide(np.array(SUBJECTS), **asked).outcomes.tolist() == few.outcomes.tolist()

    @pytest.mark.parametrize("ending", [".csv", ".parquet"])
    def test_every_party_of_many_is_told_apart_and_kept(self, tmp_path: Path, ending: str) -> None:
        said = [
            ConsentEvent(name, PURPOSE, GIVEN, NOON, recipients=frozenset({name}))
            for name in self.MANY
        ]
        said.append(ConsentEvent("all", PURPOSE, GIVEN, NOON))
        said.append(ConsentEvent("none", PURPOSE, GIVEN, NOON, recipients=frozenset()))
        book = ConsentBook.empty(purposes=PURPOSES, recipients=self.MANY).append(said)
        path = tmp_path / f"consents{ending}"
        book.save(path)
        again = ConsentBook.load(path, purposes=PURPOSES, recipients=self.MANY)
        assert again == book
        subjects = np.array([*self.MANY, "all", "none"])
        for name in self.MANY:
            decision = again.decide(
                subjects, purpose=PURPOSE, at=NOON, conditions=Conditions(recipients=(name,))
            )
            assert subjects[decision.allowed].tolist() == [name, "all"]


class TestJoined:
    @given(events=EVENTS, at=MOMENTS, parts=st.lists(st.integers(0, 2), min_size=9, max_size=9))
    def test_books_of_different_people_decide_as_one(
        self, events: list[ConsentEvent], at: datetime, parts: list[int]
    ) -> None:
        part_of = dict(zip(SUBJECTS, parts, strict=True))
        asked: dict[str, Any] = {"purpose": PURPOSE, "at": at}

        def part(number: int) -> tuple[Any, ConsentDecision]:
            places = np.flatnonzero(np.array(parts) == number)
            book = book_of(*(entry for entry in events if part_of[entry.subject] == number))
            return places, book.decide(np.array(SUBJECTS)[places], **asked)

        joined = ConsentDecision.joined(map(part, range(3)), count=len(SUBJECTS))
        whole = book_of(*events).decide(np.array(SUBJECTS), **asked)
        assert joined.outcomes.tolist() == whole.outcomes.tolist()
        assert joined.excluded == whole.excluded
        assert (joined.log_size, joined.next_event) == (whole.log_size, whole.next_event)

    def test_nobody_is_allowed_about_whom_no_book_decides(self) -> None:
        decision = ConsentDecision.joined([], count=2)
        assert not decision.allowed.any()
        assert decision.excluded[ExclusionReason.NO_RECORD] == 2

    def test_exclusions_are_counted_among_those_asked(self) -> None:
        book = book_of(event(), event(REFUSED, subject="R2"))
        decision = book.decide(np.array(["R1", "R2", "R3"]), purpose=PURPOSE, at=NOON)
        counts = decision.excluded_among(np.array([True, True, False]))
        assert {reason: n for reason, n in counts.items() if n} == {ExclusionReason.REFUSED: 1}


class TestAppend:
    def test_the_old_book_stays_as_it_was(self) -> None:
        old = book_of(event())
        new = old.append([event(WITHDRAWN, minutes=1)])
        assert (old.log_size, new.log_size) == (1, 2)
        assert allowed(old, "R1") == [True]

    def test_an_undeclared_purpose_is_refused(self) -> None:
        with pytest.raises(UnknownPurposeError, match=r"got 'profiling' \(1 rows\)"):
            book_of(event(purpose="profiling"))

    def test_a_subject_that_is_no_text_is_refused(self) -> None:
        with pytest.raises(ConsentError, match="one column of text"):
            book_of(event(subject="\ud800"))

    @pytest.mark.parametrize(
        ("subject", "time"),
        [
            ("", NOON),
            (SECRET, NOON.replace(tzinfo=None)),
            (SECRET, datetime(1969, 12, 31, tzinfo=UTC)),
            (SECRET, datetime(2200, 1, 1, tzinfo=UTC)),
        ],
        ids=["no subject", "no zone", "too early", "too late"],
    )
    def test_a_malformed_event_cannot_be_made(self, subject: str, time: datetime) -> None:
        with pytest.raises(ConsentError) as caught:
            ConsentEvent(subject, PURPOSE, GIVEN, time)
        assert SECRET not in told(caught)

    def test_purposes_are_a_set(self) -> None:
        twice = ConsentBook.empty(purposes=[*PURPOSES[::-1], PURPOSE], recipients=PARTIES)
        assert twice.append([event()]) == book_of(event())

    def test_neither_an_event_nor_a_book_shows_its_subjects(self) -> None:
        secret = event(subject=SECRET)
        assert SECRET not in repr(secret) + repr(book_of(secret))


def told(caught: pytest.ExceptionInfo[BaseException]) -> str:
    """Return everything that a log would show of an error, its causes included, not the code."""
    chain = traceback.TracebackException.from_exception(caught.value)
    shown = []
    while chain is not None:
        shown += chain.format_exception_only()
        following = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)
        chain = following  # type: ignore[assignment]
    return "".join(shown)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write_csv(*lines: str, header: str = HEADER) -> Path:
        path = tmp_path / "consents.csv"
        path.write_text(header + "".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path

    return write_csv


Write = Callable[..., Path]


def load(path: Path) -> ConsentBook:
    return ConsentBook.load(path, purposes=PURPOSES, recipients=PARTIES)


UNREADABLE = {
    "no such file": ("consents.csv", None, "cannot be read: "),
    "another ending": ("consents.xlsx", b"", r"ending in \.csv, \.csv\.gz, \.parquet"),
    "empty": ("consents.csv", b"", "is damaged"),
    "no header": (
        "consents.csv",
        f"{SECRET},{PURPOSE},given,2026-06-01T12:00:00Z\n".encode(),
        "expected each of the columns .* not so subject, purpose, event, time",
    ),
    "a column missing": ("consents.csv", b"subject,event,time\n", "not so purpose$"),
    "a column twice": ("consents.csv", b"subject," + HEADER.encode(), "not so subject$"),
    "not UTF-8": ("consents.csv", HEADER.encode() + b"SECRET-77\xff,a,b,c\n", "is damaged"),
    "not gzip": ("consents.csv.gz", HEADER.encode(), "cannot be read: it is damaged"),
    "gzip cut short": (
        "consents.csv.gz",
        gzip.compress(HEADER.encode() * 99)[:-12],
        "consent file",
    ),
    "not Parquet": ("consents.parquet", HEADER.encode(), "is damaged"),
}


class TestFiles:
    @pytest.mark.parametrize("name", ["book.csv", "book.csv.gz", "book.parquet"])
    @pytest.mark.parametrize("size", [0, 200])
    def test_what_is_saved_is_loaded(self, tmp_path: Path, name: str, size: int) -> None:
        book = book_of(
            *(
                event(kind, subject=f"{subject}{at}", purpose=PURPOSES[at % 2], minutes=at / 7)
                for at in range(size // len(SUBJECTS))
                for kind, subject in zip([*ConsentEventKind, GIVEN], SUBJECTS, strict=True)
            )
        )
        book.save(tmp_path / name)
        assert load(tmp_path / name) == book

    @pytest.mark.parametrize("name", ["book.csv", "book.csv.gz", "book.parquet"])
    def test_equal_books_are_saved_as_equal_bytes(self, tmp_path: Path, name: str) -> None:
        events = [event(kind, subject=subject) for kind in ConsentEventKind for subject in SUBJECTS]
        contents = []
        for order in (events, events[::-1] + events):
            book_of(*order).save(tmp_path / name)
            contents.append((tmp_path / name).read_bytes())
        assert contents[0] == contents[1]

    def test_a_compressed_book_does_not_say_when_it_was_saved(self, tmp_path: Path) -> None:
        book_of(event()).save(tmp_path / "book.csv.gz")
        assert (tmp_path / "book.csv.gz").read_bytes()[4:8] == bytes(4)  # MTIME, RFC 1952 §2.3

    def test_line_breaks_within_subjects_survive_in_files_of_many_blocks(
        self, tmp_path: Path
    ) -> None:
        breaks = "\n" * 50_000
        book = book_of(*(event(subject=f"{breaks}{at}") for at in range(60)))
        book.save(tmp_path / "book.csv")
        assert load(tmp_path / "book.csv") == book

    def test_times_are_saved_as_rfc_3339(self, tmp_path: Path) -> None:
        book_of(event()).save(tmp_path / "book.csv")
        assert '"2026-06-01T12:00:00.000000Z"' in (tmp_path / "book.csv").read_text()

    def test_a_saved_book_is_readable_by_its_owner_only(self, tmp_path: Path) -> None:
        book_of(event()).save(tmp_path / "book.csv")
        assert (tmp_path / "book.csv").stat().st_mode & 0o777 == 0o600

    def test_a_failed_save_leaves_nothing_behind(self, tmp_path: Path) -> None:
        (tmp_path / "book.csv").mkdir()
        with pytest.raises(ConsentError, match="cannot be written"):
            book_of(event()).save(tmp_path / "book.csv")
        with pytest.raises(ConsentError, match="cannot be written"):
            book_of(event()).save(tmp_path / "nowhere" / "book.csv")
        assert [path.name for path in tmp_path.iterdir()] == ["book.csv"]

    def test_columns_may_stand_in_any_order_beside_others(self, write: Write) -> None:
        path = write(
            "x,2026-06-01T12:00:00Z,R1,given,newsletter", header="note,time,subject,event,purpose\n"
        )
        assert load(path) == book_of(event(purpose="newsletter"))

    def test_words_that_look_like_gaps_or_numbers_are_subjects(self, write: Write) -> None:
        subjects = ("NA", "null", "007", "1e5", "True")
        path = write(*(f"{subject},{PURPOSE},given,2026-06-01T12:00:00Z" for subject in subjects))
        assert allowed(load(path), *subjects, "7", "100000.0") == [True] * 5 + [False] * 2

    def test_a_byte_order_mark_is_skipped(self, write: Write) -> None:
        line = f"R1,{PURPOSE},given,2026-06-01T12:00:00Z"
        assert load(write(line, header="\ufeff" + HEADER)) == book_of(event())

    GOOD_TIMES = (
        "2026-06-01T12:00:00Z",
        "2026-06-01 12:00:00Z",
        "2026-06-01T12:00:00.000000Z",
        "2026-06-01T12:00:00.000000999Z",
        "2026-06-01T12:00:00+00:00",
        "2026-06-01T12:00:00-00:00",
        "2026-06-01T17:30:00+05:30",
        "2026-05-31T22:00:00.000-14:00",
    )

    @pytest.mark.parametrize("time", GOOD_TIMES)
    def test_rfc_3339_times_are_read_to_the_microsecond(self, write: Write, time: str) -> None:
        assert load(write(f"R1,{PURPOSE},given,{time}")) == book_of(event())

    def test_times_of_different_forms_are_read_together(self, write: Write) -> None:
        path = write(*(f"R1,{PURPOSE},given,{time}" for time in self.GOOD_TIMES))
        assert load(path) == book_of(event())

    @pytest.mark.parametrize(
        "time",
        [
            "",
            "yesterday",
            "2026-06-01",
            "2026-06-01T12:00Z",
            "2026-06-01T12:00:00",
            "2026-06-01T12:00:00 Z",
            "20260601T120000Z",
            "2026-02-29T12:00:00Z",
            "2026-06-01T24:00:00Z",
            "2026-06-01T12:60:00Z",
            "2026-06-01T12:00:00+25:00",
            "2026-06-01T12:00:00.Z",
            "1969-12-31T23:59:59Z",
            "2200-01-01T00:00:00Z",
            "9999-12-31T23:59:59-12:00",
            "1780315200",
        ],
    )
    def test_other_times_are_refused_and_counted(self, write: Write, time: str) -> None:
        lines = [f"R{at},{PURPOSE},given,{at}" for at in self.GOOD_TIMES]
        path = write(*lines, *[f"{SECRET},{PURPOSE},given,{time}"] * 3)
        with pytest.raises(ConsentError, match="of 11 rows 3 whose time is not RFC 3339") as caught:
            load(path)
        assert SECRET not in told(caught)

    def test_all_mistakes_are_counted_at_once(self, write: Write) -> None:
        path = write(
            f"R1,{PURPOSE},given,2026-06-01T12:00:00Z",
            f",{PURPOSE},given,2026-06-01T12:00:00Z",
            f"{SECRET},{PURPOSE},Given,2026-06-01T12:00:00Z",
            f"{SECRET},{PURPOSE},,2026-06-01T12:00:00Z",
            f"{SECRET},{PURPOSE},given,noon",
            f"{SECRET},{PURPOSE},given",
            f"{SECRET},{PURPOSE},given,noon,noon",
        )
        with pytest.raises(ConsentError) as caught:
            load(path)
        for fragment in (
            str(path),
            "of 7 rows 2 with too many or too few fields",
            "1 without a subject",
            "2 whose event is none of contacted, ",
            "1 whose time",
        ):
            assert fragment in str(caught.value)
        assert SECRET not in told(caught)

    def test_unknown_purposes_are_listed_with_the_file_and_the_allowed_ones(
        self, write: Write
    ) -> None:
        known = f"R1,{PURPOSE},given,2026-06-01T12:00:00Z"
        path = write(known, *(known.replace(PURPOSE, name) for name in ("profiling", "ads", "ads")))
        with pytest.raises(UnknownPurposeError) as caught:
            load(path)
        for fragment in (
            str(path),
            "declares lookalike-audiences, newsletter",
            "got 'ads' (2 rows), 'profiling' (1 rows)",
        ):
            assert fragment in str(caught.value)

    @pytest.mark.parametrize("rows", [1, 21])
    def test_subjects_in_the_purpose_column_are_not_listed(self, write: Write, rows: int) -> None:
        mixed = [
            f"x,{SECRET}{at}{'@' if rows == 1 else ''},given,{self.GOOD_TIMES[0]}"
            for at in range(rows)
        ]
        with pytest.raises(UnknownPurposeError, match=f"{rows} others in {rows} rows") as caught:
            load(write(*mixed))
        assert SECRET not in told(caught)

    @pytest.mark.parametrize(("name", "content", "message"), UNREADABLE.values(), ids=UNREADABLE)
    def test_unreadable_files_are_named(
        self, tmp_path: Path, name: str, content: bytes | None, message: str
    ) -> None:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ConsentError, match=message) as caught:
            load(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert SECRET not in told(caught)

    @given(
        content=st.binary(max_size=200)
        | st.text(st.sampled_from('",\n\rsubject'), max_size=80).map(
            lambda text: HEADER.encode() + text.encode()
        )
    )
    @pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet"])
    def test_arbitrary_bytes_allow_nobody(
        self, tmp_path_factory: pytest.TempPathFactory, ending: str, content: bytes
    ) -> None:
        path = tmp_path_factory.getbasetemp() / f"arbitrary.{ending}"
        path.write_bytes(content)
        try:
            book = load(path)
        except ComplianceError:
            return
        assert book.log_size == 0

    @pytest.mark.parametrize("bad", [0, 700, 1_499])
    @pytest.mark.parametrize("what", ["event", "purpose"])
    def test_a_mistake_in_any_batch_is_an_error_when_all_are_read(
        self, write: Write, monkeypatch: pytest.MonkeyPatch, bad: int, what: str
    ) -> None:
        monkeypatch.setattr(files, "_BLOCK_BYTES", 16_384)
        good = [f"R{row},{PURPOSE},given,{self.GOOD_TIMES[0]}" for row in range(1_500)]
        mistaken = good[bad].replace("given" if what == "event" else PURPOSE, "other")
        batches = read_events(write(*good[:bad], mistaken, *good[bad + 1 :]), purposes=PURPOSES)
        read: list[int] = []
        message = r"1500 rows 1 whose event|'other' \(1 rows"
        with pytest.raises(ComplianceError, match=message) as caught:
            read.extend(map(len, batches))
        assert sum(read) <= bad
        assert "R7" not in told(caught)

    def test_nothing_is_logged(self, write: Write, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.DEBUG):
            load(write(f"{SECRET},{PURPOSE},given,2026-06-01T12:00:00Z"))
        assert SECRET not in caplog.text


class TestParquet:
    @staticmethod
    def save(path: Path, **columns: Any) -> Path:
        whole = {
            "subject": pa.array(["17"]),
            "purpose": pa.array([PURPOSE]),
            "event": pa.array(["given"]),
            "time": pa.array([NOON], pa.timestamp("us", "UTC")),
        }
        parquet.write_table(pa.table(whole | columns), path)
        return path

    @pytest.mark.parametrize(
        "columns",
        [
            {"time": pa.array([NOON], pa.timestamp("ms", "Asia/Kolkata"))},
            {"time": pa.array(["2026-06-01T12:00:00Z"])},
            {"time": JUST_AFTER_NOON.cast(pa.timestamp("ns", "UTC"))},
            {"purpose": pa.array([PURPOSE]).dictionary_encode()},
            {"subject": pa.array(["17"], pa.large_string())},
            {"subject": pa.array([17], pa.int32())},
        ],
        ids=["another zone", "time as text", "nanoseconds", "dictionary", "large text", "numbers"],
    )
    def test_other_types_of_the_same_values_are_read(
        self, tmp_path: Path, columns: dict[str, Any]
    ) -> None:
        assert load(self.save(tmp_path / "book.parquet", **columns)) == book_of(event(subject="17"))

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            ({"time": pa.array([NOON], pa.timestamp("us"))}, "time has no time zone"),
            ({"time": pa.array([NOON.date()])}, "text in column time, got date32"),
            ({"time": pa.array([None], pa.timestamp("us", "UTC"))}, "1 whose time"),
            ({"subject": pa.array([17.0])}, "text in column subject, got double"),
            ({"subject": pa.array([None], pa.string())}, "1 without a subject"),
            ({"event": pa.array([None], pa.string())}, "1 whose event"),
            ({"purpose": pa.array([None], pa.string())}, "1 others in 1 rows"),
            *(
                ({name: NOT_UTF_8}, "is damaged")
                for name in ("subject", "purpose", "event", "time")
            ),
        ],
    )
    def test_gaps_and_foreign_types_are_refused(
        self, tmp_path: Path, columns: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ConsentError, match=message):
            load(self.save(tmp_path / "book.parquet", **columns))


def test_many_events_decide_about_many_people_as_their_last_words_do(tmp_path: Path) -> None:
    count = 200_000
    random = np.random.default_rng(7)
    subjects = np.char.add("R", random.integers(0, count, count).astype(str))
    days = np.datetime64("2026-01-01", "us") + random.integers(0, 10**13, count)
    events = {
        "subject": subjects,
        "purpose": np.array(PURPOSES)[random.integers(0, 2, count)],
        "event": np.array(list(ConsentEventKind))[random.integers(0, 3, count)],
        "time": pa.array(days).cast(pa.timestamp("us", "UTC")),
    }
    parquet.write_table(pa.table(events), tmp_path / "book.parquet")
    everybody = np.char.add("R", np.arange(count).astype(str))

    decision = load(tmp_path / "book.parquet").decide(everybody, purpose=PURPOSE, at=NOON)

    frame = pd.DataFrame(events | {"time": days})
    frame = frame[(frame["purpose"] == PURPOSE) & (frame["time"] <= NOON.replace(tzinfo=None))]
    last = frame.sort_values("time").drop_duplicates("subject", keep="last")
    assert decision.allowed.sum() == (last["event"] == "given").sum()
