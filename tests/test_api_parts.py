"""Parts of a party's API without a network: buckets, answers, configuration, what it takes."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compliance.errors import StoreFormatError
from compliance.formats import PRESENT
from federation.api.answers import Answer, Answers, KeyReusedError, StillAtWorkError
from federation.api.buckets import Buckets, TooManyRequestsError
from federation.api.configuration import ApiConfig
from federation.errors import WorkspaceError

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
RATE, BURST = 2.0, 3


class TestBuckets:
    @given(steps=st.lists(st.floats(0, 4), max_size=40))
    def test_no_stretch_of_time_lets_more_through_than_burst_and_rate(
        self, steps: list[float]
    ) -> None:
        now, passed, waits = 0.0, [], []
        buckets = Buckets(rate=RATE, burst=BURST, seconds=lambda: now)
        for step in steps:
            now += step
            try:
                buckets.take("a")
            except TooManyRequestsError as refused:
                waits.append(refused.seconds)
            else:
                passed.append(now)
        assert all(0 < wait <= 1 / RATE for wait in waits)
        for first, begin in enumerate(passed):
            for last in range(first, len(passed)):
                most = BURST + RATE * (passed[last] - begin)
                assert last - first + 1 <= most + 1e-6

    def test_whoever_waits_as_told_gets_through_and_others_never_wait(self) -> None:
        now = 0.0
        buckets = Buckets(rate=RATE, burst=1, seconds=lambda: now)
        buckets.take("a")
        with pytest.raises(TooManyRequestsError) as refused:
            buckets.take("a")
        buckets.take("b")
        now += refused.value.seconds
        buckets.take("a")


class TestAnswers:
    def ask(self, answers: Answers, key: str, asked: bytes, now: datetime = NOON) -> object:
        with answers.once("website", key, asked, now=now) as begun:
            if isinstance(begun, datetime):
                answers.keep("website", key, Answer(201, b"done"))
            return begun

    def test_an_answer_is_given_again_and_outlives_the_process(self, tmp_path: Path) -> None:
        assert self.ask(Answers(tmp_path), "k", b"body") == NOON
        assert self.ask(Answers(tmp_path), "k", b"body") == Answer(201, b"done")
        with pytest.raises(KeyReusedError):
            self.ask(Answers(tmp_path), "k", b"another")
        assert self.ask(Answers(tmp_path), "other", b"another") == NOON

    def test_answers_without_a_number_go_on_and_those_of_a_later_version_are_refused(
        self, tmp_path: Path
    ) -> None:
        self.ask(Answers(tmp_path), "k", b"body")
        path = tmp_path / "api" / "answers.sqlite"
        for number in (0, PRESENT):  # 0: as files were before they bore one
            with closing(sqlite3.connect(path)) as connection:
                connection.execute(f"PRAGMA user_version = {number}")
            assert self.ask(Answers(tmp_path), "k", b"body") == Answer(201, b"done")
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (PRESENT,)
            connection.execute(f"PRAGMA user_version = {PRESENT + 1}")
        with pytest.raises(StoreFormatError, match=rf"answers\.sqlite has format {PRESENT + 1}"):
            Answers(tmp_path)

    def test_what_a_crash_cut_is_done_again_as_of_its_first_moment(self, tmp_path: Path) -> None:
        with pytest.raises(RuntimeError), Answers(tmp_path).once("website", "k", b"b", now=NOON):
            raise RuntimeError("as if the process had ended")
        later = NOON + timedelta(hours=1)
        assert self.ask(Answers(tmp_path), "k", b"b", later) == NOON

    def test_the_same_is_not_begun_twice_at_once(self, tmp_path: Path) -> None:
        answers = Answers(tmp_path)
        with answers.once("website", "k", b"b", now=NOON):
            with pytest.raises(StillAtWorkError):
                self.ask(answers, "k", b"b")
            with answers.once("other", "k", b"b", now=NOON) as begun:
                assert begun == NOON  # keys are each client's own

    def test_keys_are_free_again_after_a_week(self, tmp_path: Path) -> None:
        answers = Answers(tmp_path)
        self.ask(answers, "k", b"b")
        self.ask(answers, "k", b"b", NOON + timedelta(days=6))
        later = NOON + timedelta(days=8)
        assert self.ask(answers, "k", b"another", later) == later

    def test_no_body_is_kept(self, tmp_path: Path) -> None:
        self.ask(Answers(tmp_path), "k", b"R#ann")
        kept = (tmp_path / "api" / "answers.sqlite").read_bytes()
        assert b"ann" not in kept


class TestConfiguration:
    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("port = 70000", "port"),
            ("colour = 1", "colour"),
            ("burst = 0", "burst"),
            ('[deletion]\ndomain = "a.example"\nendpoint = "http://a"\ntrusted = {}', "endpoint"),
            ("[consent_strings]\nvendor = 4\npurposes = { p = [99] }", "purposes"),
            ("port = ", "TOML"),
        ],
    )
    def test_a_mistake_is_named(self, tmp_path: Path, text: str, told: str) -> None:
        (tmp_path / "api.toml").write_text(text)
        with pytest.raises(WorkspaceError, match=told):
            ApiConfig.load(tmp_path / "api.toml")

    def test_files_are_taken_from_beside_it(self, tmp_path: Path) -> None:
        (tmp_path / "api.toml").write_text('notices = ["a.json"]')
        assert ApiConfig.load(tmp_path / "api.toml").notices == (tmp_path / "a.json",)
        with pytest.raises(WorkspaceError, match="cannot be read"):
            ApiConfig.load(tmp_path / "nothing.toml")

    def test_the_documented_file_is_one(self, tmp_path: Path) -> None:
        page = (Path(__file__).parent.parent / "docs" / "api.md").read_text()
        text = page.split("```toml\n")[1].split("```")[0]
        (tmp_path / "api.toml").write_text(text)
        shown = ApiConfig.load(tmp_path / "api.toml")
        assert (shown.deletion is None, shown.consent_strings is None) == (False, False)
        optional = {"notices", "deletion", "consent_strings"}
        assert shown.model_dump(exclude=optional) == ApiConfig().model_dump(exclude=optional)
