"""`comity consent`, end to end at a party that began with a file of four columns."""

import json
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jsonschema
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from parties import PURPOSE, World, record
from test_consent_records import NOTICE

from compliance import records
from compliance.consent import (
    ConsentBook,
    ConsentEvent,
    ConsentEventKind,
    ConsentJournal,
    ExclusionReason,
)
from compliance.consent.record import json_schema
from compliance.errors import ConsentError
from compliance.subject_keys import SubjectKeys
from federation.cli import main
from federation.consent_commands import _WHY_NOT
from federation.party import PartyFolder
from privacy.randomness import new_secret

SUBJECT = record("retailer", 20)
SCHEMA = ROOT / "docs" / "schemas" / "consent-receipt.json"


class Desk:
    """A retailer's console."""

    def __init__(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        self.world = world
        self.path = world.folder("retailer").path
        self._capsys = capsys

    @property
    def file(self) -> Path:
        folder = PartyFolder(self.path)
        return folder.resolve(folder.config.consent or Path())

    def run(self, command: str, *arguments: object) -> tuple[int, str]:
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main(["consent", command, str(self.path), *map(str, arguments)])
        said = self._capsys.readouterr()
        code = left.value.code
        assert isinstance(code, int)
        return code, said.out if code == 0 else said.out + said.err

    def say(self, command: str, *arguments: object) -> None:
        assert self.run(command, SUBJECT, PURPOSE, *arguments)[0] == 0

    def reason(self) -> str | None:
        _, said = self.run("show", SUBJECT, PURPOSE, "--json")
        told = json.loads(said)["reason"]
        return None if told is None else str(told)

    def recorded(self) -> list[records.ConsentRecorded]:
        leaves = self.world.leaves("retailer")
        return [leaf for leaf in leaves if isinstance(leaf, records.ConsentRecorded)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("made"))


@pytest.fixture
def desk(made: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(made.copy(tmp_path / "copy"), capsys)


def test_an_old_file_is_brought_into_a_journal_and_goes_on(desk: Desk) -> None:
    code, told = desk.run("give", SUBJECT, PURPOSE)
    assert (code, "comity consent import" in told) == (1, True)
    old = ConsentBook.load(desk.file, purposes=[PURPOSE])
    code, told = desk.run("import", "--json")
    assert (code, json.loads(told)) == (0, {"rows": old.log_size})
    assert ConsentBook.load(desk.file, purposes=[PURPOSE]) == old
    assert desk.recorded() == []
    assert desk.reason() is None
    for command, reason in (
        ("withdraw", "withdrawn"),
        ("reconfirm", "withdrawn"),
        ("give", None),
        ("object", "objected"),
        ("refuse", "refused"),
    ):
        desk.say(command)
        assert desk.reason() == reason
    places = [leaf.sequence for leaf in desk.recorded()]
    assert places == list(range(old.log_size + 1, old.log_size + 6))
    store = SubjectKeys.open(PartyFolder(desk.path).subject_keys, draw=new_secret)
    assert store.count() == 1
    assert SUBJECT not in "".join(leaf.model_dump_json() for leaf in desk.recorded())


def test_a_reference_that_no_row_has_is_recorded_and_said(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.run("import")
    for subject, warned in ((SUBJECT, False), ("R#misspelt", True)):
        with pytest.raises(SystemExit) as left:
            main(["consent", "withdraw", str(desk.path), subject, PURPOSE])
        said = capsys.readouterr().err
        assert (left.value.code, "no row of the party's table" in said) == (0, warned)
        assert subject not in said
    assert len(desk.recorded()) == 2


def test_a_purpose_that_is_not_agreed_is_a_mistake_and_no_answer(desk: Desk) -> None:
    code, said = desk.run("show", SUBJECT, "profiling")
    assert (code, "profiling" in said, SUBJECT in said) == (2, False, False)
    words = " ".join(said.replace("│", " ").split())
    assert f"which are {PURPOSE}" in words
    assert "got another: name one of these, or have the agreement amended" in words
    desk.run("import")
    desk.say("refuse")
    code, said = desk.run("show", SUBJECT, PURPOSE)
    assert code == 1
    assert said == f"may not be used for {PURPOSE} now: their last word is a refusal (refused)\n"
    desk.say("give")
    assert desk.run("show", SUBJECT, PURPOSE) == (0, f"may be used for {PURPOSE} now\n")


def test_every_reason_is_told_in_words() -> None:
    assert set(_WHY_NOT) == set(ExclusionReason)


def test_what_is_imported_later_keeps_all_that_it_says(desk: Desk, tmp_path: Path) -> None:
    assert desk.run("import")[0] == 0
    assert desk.run("import")[0] == 1  # nothing to bring
    before = ConsentJournal(desk.file).extent()[0]
    more = tmp_path / "more.csv"
    more.write_text(
        "purpose,subject,time,event,recipients,separate,expires\n"
        f'{PURPOSE},"a,""b",2025-01-01T00:00:00+01:00,given,a-stranger brand,sensitive,\n'
        f"{PURPOSE},c,2025-01-01T00:00:00Z,given,,,2026-01-01T00:00:00.5Z\n"
    )
    assert desk.run("import", more)[0] == 0
    both = ConsentBook.load(more, purposes=[PURPOSE], recipients=["a-stranger", "brand"])
    one, other = _last(desk.file, 2)
    assert (one.subject, one.recipients) == ('a,"b', frozenset({"a-stranger", "brand"}))
    assert (
        ConsentBook.empty(purposes=[PURPOSE], recipients=both.recipients).append([one, other])
        == both
    )
    assert ConsentJournal(desk.file).extent()[0] == before + 2
    more.write_text(f"subject,purpose,event,time\nx,{PURPOSE},granted,2025-01-01T00:00:00Z\n")
    assert desk.run("import", more)[0] == 1
    assert ConsentJournal(desk.file).extent()[0] == before + 2
    desk.say("give")
    assert [leaf.sequence for leaf in desk.recorded()] == [before + 3]


def _last(file: Path, count: int) -> tuple[ConsentEvent, ...]:
    """Return the last events of a journal."""
    rows = file.read_bytes().splitlines(keepends=True)
    return ConsentJournal(file).after(sum(map(len, rows[:-count])))


@pytest.mark.parametrize("kept_leaf", [False, True], ids=["before the leaf", "after the leaf"])
def test_a_leaf_that_a_crash_kept_back_is_told_once_at_the_next_start(
    desk: Desk, *, kept_leaf: bool
) -> None:
    assert desk.run("import")[0] == 0
    desk.say("give")
    told = desk.path / "consents-told.json"
    before = told.read_bytes()
    if kept_leaf:
        desk.say("withdraw")
        told.write_bytes(before)
    else:
        (event,) = _last(desk.file, 1)
        withdrawn = ConsentEvent(
            event.subject, event.purpose, ConsentEventKind.WITHDRAWN, event.time
        )
        ConsentJournal(desk.file).append(withdrawn)
        with desk.file.open("ab") as file:
            file.write(b"a torn row")
    for _ in range(2):
        desk.world.run()
        assert [leaf.event for leaf in desk.recorded()] == ["given", "withdrawn"]
    desk.say("give")
    places = [leaf.sequence for leaf in desk.recorded()]
    assert places == list(range(places[0], places[0] + 3))


def test_a_crash_within_an_import_tells_nothing_and_is_made_good(desk: Desk) -> None:
    old = ConsentBook.load(desk.file, purposes=[PURPOSE])
    (desk.path / "consents.csv").write_text("subject,pur")
    (desk.path / "consents-told.json").write_text('{"rows": 0, "size": 4611686018427387904}')
    assert desk.run("import")[0] == 0
    assert ConsentBook.load(desk.file, purposes=[PURPOSE]) == old
    (desk.path / "consents-told.json").write_text('{"rows": 0, "size": 4611686018427387904}')
    desk.say("withdraw")
    assert [leaf.sequence for leaf in desk.recorded()] == [old.log_size + 1]


@pytest.mark.parametrize("known", [2**62, 2**64])
def test_a_journal_said_to_be_longer_than_any_file_is_counted(known: int) -> None:
    # Not where tests write, which may be memory: on disks a file has a greatest length.
    with TemporaryDirectory(dir="/var/tmp") as directory:
        path = Path(directory) / "consents.csv"
        event = ConsentEvent(
            "R1", PURPOSE, ConsentEventKind.GIVEN, datetime(2026, 1, 2, tzinfo=UTC)
        )
        assert ConsentJournal(path).append(event) == 1
        journal = ConsentJournal(path, known=(0, known))
        assert journal.extent() == (1, path.stat().st_size)
        assert journal.append(event) == 2


def test_receipts_and_exports_are_of_one_person(desk: Desk, tmp_path: Path) -> None:
    notice = tmp_path / "notice.json"
    notice.write_text(json.dumps(NOTICE))
    code, said = desk.run("receipt", SUBJECT, PURPOSE, "--notice", notice)
    assert code == 0
    receipt = json.loads(said)
    jsonschema.validate(receipt, json.loads(SCHEMA.read_text()))
    (told,) = receipt["consent_record"]["events"]
    assert told["event_state"] == "given"
    for vocabulary, key in (("dpv", "dpv:hasConsentStatus"), ("kantara", "consentTimestamp")):
        code, said = desk.run("export", SUBJECT, PURPOSE, "--notice", notice, "--as", vocabulary)
        assert (code, key in json.loads(said)) == (0, True)
    changes: list[dict[str, Any]] = [
        {"lawful_basis": "legitimate_interests"},
        {"purpose": "another"},
        {"steps_to_withdraw": 9},
    ]
    for change in changes:
        notice.write_text(json.dumps(NOTICE | change))
        code, said = desk.run("receipt", SUBJECT, PURPOSE, "--notice", notice)
        assert (code, "notice" in said, SUBJECT in said) == (1, True, False)
    notice.write_text(json.dumps(NOTICE))
    assert desk.run("receipt", "nobody", PURPOSE, "--notice", notice)[0] == 1
    code, said = desk.run("receipt", SUBJECT, PURPOSE, "--notice", tmp_path / "missing.json")
    assert (code, "name the file" in " ".join(said.split())) == (2, True)


def test_a_receipt_makes_nobody_a_key(desk: Desk, tmp_path: Path) -> None:
    notice = tmp_path / "notice.json"
    notice.write_text(json.dumps(NOTICE))
    assert desk.run("receipt", SUBJECT, PURPOSE, "--notice", notice)[0] == 0
    keys = PartyFolder(desk.path).subject_keys
    assert SubjectKeys.open(keys, draw=new_secret).find([SUBJECT]) == (None,)


@contextmanager
def no_larger_than(size: int) -> Iterator[None]:
    """A process whose files cannot grow beyond a size, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_batch_for_which_the_disk_has_no_room_leaves_nothing(tmp_path: Path) -> None:
    when = datetime(2026, 1, 2, tzinfo=UTC)
    first, *batch = (
        ConsentEvent(f"R{number:03}", PURPOSE, ConsentEventKind.GIVEN, when)
        for number in range(100)
    )
    path = tmp_path / "consents.csv"
    journal = ConsentJournal(path)
    journal.append(first)
    before = path.read_bytes()
    with no_larger_than(len(before) + 500), pytest.raises(ConsentError, match="cannot be written"):
        journal.append(*batch)
    assert path.read_bytes() == before
    assert journal.append(*batch) == 100


def test_the_published_schema_is_that_of_receipts() -> None:
    text = json.dumps(json_schema(), indent=2, sort_keys=True) + "\n"
    assert SCHEMA.read_text() == text, "write json_schema() to docs/schemas again"


@settings(max_examples=20)
@given(
    subject=st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), min_size=1
    ),
    recipients=st.none() | st.frozensets(st.sampled_from(["brand", "other"])),
)
def test_a_journal_gives_back_what_was_said(
    tmp_path_factory: pytest.TempPathFactory,
    subject: str,
    recipients: frozenset[str] | None,
) -> None:
    when = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    said = ConsentEvent(
        subject, PURPOSE, ConsentEventKind.GIVEN, when, recipients=recipients, expires=when
    )
    journal = ConsentJournal(tmp_path_factory.mktemp("journal") / "consents.csv")
    journal.append(said)
    assert journal.after(len("subject,purpose,event,separate,recipients,expires,time\n")) == (said,)
