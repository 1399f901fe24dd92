"""Consent is read at every use: an earlier reading counts only while nothing can have changed."""

import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parties import MATCH, World

from compliance.consent import (
    ConsentBook,
    ConsentEvent,
    ConsentEventKind,
    ConsentJournal,
    read_events,
)
from compliance.errors import ConsentError, UnknownPurposeError
from federation import consent_reading, messages
from federation.consent_reading import PEOPLE as PEOPLE_ROWS
from federation.consent_reading import ConsentReading, Heard
from federation.references import References
from federation.shelves import Shelves
from federation.specification import MatchSpec

PURPOSES = ("lookalike-audiences", "newsletter")
PURPOSE = PURPOSES[0]
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
GIVEN, REFUSED, WITHDRAWN = map(ConsentEventKind, ("given", "refused", "withdrawn"))
PEOPLE = np.array(["R1", "R2"])


@pytest.fixture(scope="module", autouse=True)
def few_rows_at_once() -> Iterator[None]:
    """As with many people: they are read in several parts, and decided about apart."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("federation.shelves._TOGETHER", 2)
        yield


def event(
    subject: str, kind: ConsentEventKind = GIVEN, *, at: datetime = NOON, purpose: str = PURPOSE
) -> ConsentEvent:
    return ConsentEvent(subject, purpose, kind, at)


class Party:
    """A consent file, and what is kept of reading it."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "consents.csv"
        self.kept = directory / "job" / "consents-read.json"
        self.events: list[ConsentEvent] = []

    def say(self, *events: ConsentEvent) -> None:
        """Add events to the file."""
        self.events += events
        ConsentBook.empty(purposes=PURPOSES).append(self.events).save(self.file)

    def ask(
        self, people: np.ndarray = PEOPLE, purpose: str = PURPOSE, *, at: datetime = NOON
    ) -> int | None:
        """Ask as a process that has just been started."""
        reading = ConsentReading(self.file, PURPOSES)
        return reading.all_allowed([References.of(people)], purpose, at=at, kept=self.kept)


@pytest.fixture
def party(tmp_path: Path) -> Party:
    party = Party(tmp_path)
    party.say(event("R1"), event("R2"), event("R3"))
    return party


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every consent file that is parsed from now on."""
    found: list[Path] = []

    def reading(path: Path, *, purposes: tuple[str, ...], **asked: Any) -> Iterator[Any]:
        found.append(path)
        yield from read_events(path, purposes=purposes, **asked)

    monkeypatch.setattr(consent_reading, "read_events", reading)
    return found


def test_the_same_question_of_the_same_file_is_parsed_once(
    party: Party, parsed: list[Path]
) -> None:
    assert [party.ask(at=NOON + step * SECOND) for step in range(3)] == [3, 3, 3]
    assert parsed == [party.file]
    assert party.kept.stat().st_mode & 0o777 == 0o600


def test_a_withdrawal_is_heard_at_the_next_use(party: Party) -> None:
    assert party.ask() == 3
    party.say(event("R2", WITHDRAWN))
    assert party.ask() is None
    assert party.ask(PEOPLE[:1]) == 4


def test_a_file_of_the_same_size_and_age_is_read_anew(party: Party) -> None:
    assert party.ask() == 3
    before = party.file.stat()
    content = party.file.read_text().replace("R2", "R9")
    party.file.write_text(content)
    os.utime(party.file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert party.file.stat().st_size == before.st_size
    assert party.ask() is None


def test_an_event_counts_from_its_very_moment(party: Party, parsed: list[Path]) -> None:
    party.say(event("R1", WITHDRAWN, at=NOON + 5 * SECOND))
    assert party.ask(at=NOON) == 4
    assert party.ask(at=NOON + 5 * SECOND - timedelta(microseconds=1)) == 4
    assert len(parsed) == 1
    assert party.ask(at=NOON + 5 * SECOND) is None


def test_a_clock_that_was_put_back_has_consent_read_anew(party: Party) -> None:
    assert party.ask() == 3
    assert party.ask(at=NOON - SECOND) is None


def test_other_people_or_another_purpose_are_asked_about_anew(
    party: Party, parsed: list[Path]
) -> None:
    assert party.ask() == 3
    assert party.ask(purpose="newsletter") is None
    assert party.ask(np.array(["R1", "R4"])) is None
    assert party.ask(np.array(["R1"])) == 3
    assert len(parsed) == 4


def test_a_no_is_not_kept(party: Party) -> None:
    assert party.ask(np.array(["R4"])) is None
    assert not party.kept.exists()


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"asked": 1}'])
def test_a_damaged_record_of_a_reading_counts_for_nothing(party: Party, content: bytes) -> None:
    assert party.ask() == 3
    party.kept.write_bytes(content)
    assert party.ask() == 3
    party.kept.write_bytes(content)
    party.say(event("R1", REFUSED))
    assert party.ask() is None


def test_a_file_that_changes_while_it_is_read_is_refused(
    party: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(path: Path, *, purposes: tuple[str, ...], **asked: Any) -> Iterator[Any]:
        yield from read_events(path, purposes=purposes, **asked)
        party.say(event("R2", WITHDRAWN))

    monkeypatch.setattr(consent_reading, "read_events", slow)
    with pytest.raises(ConsentError, match="changed while it was read"):
        party.ask()
    assert not party.kept.exists()


def test_a_journal_may_grow_while_it_is_read_and_is_read_as_it_was(
    party: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    party.file.unlink()
    journal = ConsentJournal(party.file)
    journal.append(event("R1"), event("R2"))

    def slow(path: Path, *, purposes: tuple[str, ...], **asked: Any) -> Iterator[Any]:
        journal.append(event("R2", WITHDRAWN))
        yield from read_events(path, purposes=purposes, **asked)

    monkeypatch.setattr(consent_reading, "read_events", slow)
    assert party.ask() == 2
    assert party.ask() is None  # it is heard at the next use


def test_a_journal_that_loses_a_row_while_it_is_read_is_refused(
    party: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    party.file.unlink()
    ConsentJournal(party.file).append(event("R1"), event("R2"))

    def slow(path: Path, *, purposes: tuple[str, ...], **asked: Any) -> Iterator[Any]:
        yield from read_events(path, purposes=purposes, **asked)
        os.truncate(path, path.stat().st_size - 1)

    monkeypatch.setattr(consent_reading, "read_events", slow)
    with pytest.raises(ConsentError, match="changed while it was read"):
        party.ask()


def test_a_file_that_is_gone_is_an_error_though_a_reading_is_kept(party: Party) -> None:
    assert party.ask() == 3
    party.file.unlink()
    with pytest.raises(ConsentError, match="cannot be read"):
        party.ask()


def test_a_purpose_that_is_not_agreed_is_an_error(party: Party) -> None:
    with pytest.raises(UnknownPurposeError):
        party.ask(purpose="profiling")


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["R1", "R2", "R3"]),
            st.sampled_from(ConsentEventKind),
            st.integers(-4, 4),
        ),
        max_size=8,
    ),
    st.lists(st.integers(-5, 5), min_size=1, max_size=6),
)
def test_an_answer_is_always_the_files_own(
    tmp_path_factory: pytest.TempPathFactory,
    said: list[tuple[str, ConsentEventKind, int]],
    moments: list[int],
) -> None:
    party = Party(tmp_path_factory.mktemp("party"))
    party.say(*(event(who, kind, at=NOON + step * SECOND) for who, kind, step in said))
    for step in moments:
        at = NOON + step * SECOND
        book = ConsentBook.load(party.file, purposes=PURPOSES)
        decision = book.decide(PEOPLE, purpose=PURPOSE, at=at)
        expected = decision.log_size if decision.allowed.all() else None
        assert party.ask(at=at) == expected


def heard_of(party: Party, directory: Path, subjects: Sequence[str], at: datetime) -> Heard:
    """What the party's file says of rows, decided from shelves."""
    rows = pa.array(np.arange(len(subjects), dtype=np.uint32))
    with Shelves(directory / "people", PEOPLE_ROWS) as people:
        people.put(
            pa.record_batch([pa.array(subjects, pa.large_string()), rows], schema=PEOPLE_ROWS)
        )
    reading = ConsentReading(party.file, PURPOSES)
    return reading.decide(
        people, len(subjects), purpose=PURPOSE, at=at, directory=directory / "events"
    )


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["R1", "R2", "ä", "x" * 200]),
            st.sampled_from(ConsentEventKind),
            st.integers(-3, 3),
            st.sampled_from(PURPOSES),
        ),
        max_size=12,
    ),
    st.lists(st.sampled_from(["R1", "R2", "ä", "x" * 200, "", "nobody"]), max_size=9),
    st.integers(-3, 3),
)
def test_shelves_decide_as_one_book_does(
    tmp_path_factory: pytest.TempPathFactory,
    said: list[tuple[str, ConsentEventKind, int, str]],
    asked: list[str],
    step: int,
) -> None:
    party = Party(tmp_path_factory.mktemp("party"))
    party.say(*(event(w, kind, at=NOON + n * SECOND, purpose=p) for w, kind, n, p in said))
    at = NOON + step * SECOND
    book = ConsentBook.load(party.file, purposes=PURPOSES)
    whole = book.decide(np.array(asked, dtype=str), purpose=PURPOSE, at=at)
    found = heard_of(party, tmp_path_factory.mktemp("shelves"), asked, at).decision
    assert found.outcomes.tolist() == whole.outcomes.tolist()
    assert (found.excluded, found.log_size) == (whole.excluded, whole.log_size)
    assert found.next_event == whole.next_event


def test_what_was_heard_of_all_rows_holds_for_those_that_are_used(
    party: Party, tmp_path: Path, parsed: list[Path]
) -> None:
    heard = heard_of(party, tmp_path / "shelves", ["R1", "R4", "R2"], NOON)
    reading, people = ConsentReading(party.file, PURPOSES), [References.of(PEOPLE)]
    reading.keep(heard, np.array([True, False, True]), people, kept=party.kept)
    assert party.ask(at=NOON + SECOND) == 3
    assert len(parsed) == 1
    party.say(event("R2", WITHDRAWN))
    assert party.ask(at=NOON + SECOND) is None


def test_nobody_who_did_not_consent_is_kept(party: Party, tmp_path: Path) -> None:
    heard = heard_of(party, tmp_path / "shelves", ["R1", "R4"], NOON)
    reading, people = ConsentReading(party.file, PURPOSES), [References.of(["R1", "R4"])]
    with pytest.raises(RuntimeError, match="consent of everybody"):
        reading.keep(heard, np.array([True, True]), people, kept=party.kept)
    assert not party.kept.exists()


def test_a_decision_says_until_when_it_holds() -> None:
    later = NOON + SECOND
    elsewhere = event("R1", at=NOON + timedelta(microseconds=1), purpose="newsletter")
    book = ConsentBook.empty(purposes=PURPOSES).append(
        [event("R1"), event("R9", REFUSED, at=later), event("R1", at=later + SECOND), elsewhere]
    )
    ends = [
        book.decide(PEOPLE, purpose=PURPOSE, at=at).next_event
        for at in (NOON - SECOND, NOON, later, later + SECOND)
    ]
    assert ends == [NOON, later, later + SECOND, None]


def test_a_withdrawal_between_two_buckets_stops_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MatchSpec, "bucket_points", 20)
    world = World.make(tmp_path)
    request = world.parties.seal(
        "coordinator", "retailer", "find", messages.MatchRequest(spec=MATCH, peer="brand")
    )
    offer = world.handle("retailer", request)
    accept = world.handle("brand", offer)
    blinded = world.handle("retailer", accept)
    reply = world.handle("brand", blinded)
    assert isinstance(body := world.read(reply).body, messages.MatchReply)
    assert body.bucket == 0

    world.withdraw("retailer", [15])
    refused = world.ask("retailer", reply)
    assert isinstance(refused.body, messages.Refused)
    assert refused.body.term == "consent"
    assert not world.folder("retailer").members("find").exists()
