"""The report: one page that loads nothing, and the same figures as a file to compute with."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from trials import document, write_trial

from federation.audit import verify_party
from federation.trial.report import Report
from federation.trial.simulation import simulate


class Page(HTMLParser):
    """What a browser would see and fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            loads = name in {"src", "srcset", "href", "xlink:href", "data", "action", "background"}
            if loads and not (value or "").startswith("#"):
                self.fetched.append(value or "")
            self.fetched += re.findall(r"url\(\s*['\"]?(?!#)[^)]*", value or "")
            assert not name.startswith("on")

    handle_startendtag = handle_starttag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def page(finished: tuple[Path, Path]) -> Page:
    return Page((finished[1] / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def report(finished: tuple[Path, Path]) -> Report:
    return Report.model_validate_json((finished[1] / "report.json").read_bytes())


class TestPage:
    def test_it_loads_nothing_from_anywhere(self, page: Page) -> None:
        assert page.fetched == []
        assert not {"script", "link", "iframe", "object", "embed", "img", "base"} & {*page.tags}
        assert "@import" not in page.text
        assert not re.search(r"url\(\s*['\"]?(?!#)", page.text)

    def test_it_shows_the_curves_and_the_budget(
        self, page: Page, finished: tuple[Path, Path]
    ) -> None:
        assert page.tags.count("svg") == 3
        raw = (finished[1] / "report.html").read_text(encoding="utf-8")
        for title in ("ROC curve", "Lift", "Privacy budget"):
            assert f"<!-- {title} -->" in raw

    def test_it_states_the_persons_epsilon_what_it_rests_on_and_who_is_trusted(
        self, page: Page, report: Report
    ) -> None:
        assert (
            "Person-level ε of all that was released, models and counts: 1.00 at δ = 1e-05, of 1.20 agreed"
            in page.text
        )
        assert "One person stands in at most 2 of the 2 partners' tables" in page.text
        assert "Who must be trusted" in page.text
        assert "each partner trusts its own node only" in page.text
        for line in (*report.assumptions, *report.trust):
            assert line in page.text

    def test_a_known_seed_is_warned_of(self, page: Page) -> None:
        assert "used a known seed" in page.text
        assert "Nothing in it is private" in page.text

    def test_it_tells_every_figure(self, page: Page, report: Report) -> None:
        for model in report.models:
            assert model.name in page.text
            assert f"{model.everyone.auc:.3f}" in page.text
            assert f"{model.unseen.lift_at_5:.2f}" in page.text
        for party in report.parties:
            assert party.root_hash in page.text
        assert report.verify_command in page.text

    def test_nobody_is_in_it(self, finished: tuple[Path, Path]) -> None:
        for name in ("report.html", "report.json"):
            text = (finished[1] / name).read_text(encoding="utf-8")
            assert not re.search(r"gmx|\+1212|[BRC]#7\d\d", text)


class TestFigures:
    def test_the_models_and_their_yardsticks(self, report: Report) -> None:
        assert [(model.name, model.epsilon) for model in report.models] == [
            ("all partners together", 1.0),
            ("averaged once", 1.0),
            ("all partners together", None),
            ("retailer alone", 1.0),
            ("retailer alone", None),
            ("courier alone", 1.0),
            ("courier alone", None),
            ("random order", None),
        ]
        for model in report.models:
            for quality in (model.everyone, model.unseen):
                assert 0 <= quality.auc <= 1
                assert 0 < quality.average_precision <= 1
                assert quality.lift_at_5 >= 0
                assert quality.lift_at_10 >= 0

    def test_what_the_logs_say(self, report: Report, finished: tuple[Path, Path]) -> None:
        for party in report.parties:
            log = verify_party(finished[1] / party.party)
            assert party.root_hash == log.root_hash
            assert party.leaves == log.counts
            assert party.epsilon_spent == log.epsilon_spent
            assert len(party.charges) == log.counts.get("budget.committed", 0)
        held = {party.party: (party.rows, party.eligible) for party in report.parties}
        assert held == {
            "brand": (30, 30),
            "retailer": (50, 50),
            "courier": (50, 50),
            "coordinator": (None, None),
        }
        segments = {party.party: dict(party.segment_rows) for party in report.parties}
        assert segments == {
            "brand": {},
            "retailer": {"best": 10},
            "courier": {"best": 10},
            "coordinator": {},
        }
        assert report.epsilon == max(party.epsilon_spent for party in report.parties)
        assert report.epsilon <= sum(job.epsilon for job in report.jobs if job.kind == "train")

    def test_the_file_says_what_the_page_is_made_from(self, finished: tuple[Path, Path]) -> None:
        content = json.loads((finished[1] / "report.json").read_text())
        assert content["reproducible"] is True
        assert content["seconds"] > 0
        assert content["agreement"] == verify_party(finished[1] / "brand").agreement.digest
        assert [job["name"] for job in content["jobs"]] == ["find", "model", "best"]


def test_a_title_is_text_and_no_markup(tmp_path: Path) -> None:
    content = document(jobs=[])
    content["agreement"]["title"] = "<script src='http://x/'>&amp;"
    del content["unsafe_seed"], content["evaluate"]
    simulate(write_trial(tmp_path, content), tmp_path / "a b")
    page = Page((tmp_path / "a b" / "report.html").read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert page.fetched == []
    assert "<script src='http://x/'>&amp;" in page.text
    assert page.tags.count("svg") == 1
    assert "used a known seed" not in page.text
    assert f"comity log verify '{tmp_path / 'a b'}'" in page.text


def test_a_report_that_cannot_be_written_leaves_the_old_one(
    finished: tuple[Path, Path], tmp_path: Path
) -> None:
    shutil.copytree(finished[1], tmp_path / "w")
    file = write_trial(tmp_path)
    (tmp_path / "w" / "report.html").unlink()
    (tmp_path / "w" / "report.html").mkdir()
    with pytest.raises(IsADirectoryError):
        simulate(file, tmp_path / "w")
    Report.model_validate_json((tmp_path / "w" / "report.json").read_bytes())
    (tmp_path / "w" / "report.html").rmdir()
    simulate(file, tmp_path / "w")
    assert not list((tmp_path / "w").glob(".*.tmp"))
