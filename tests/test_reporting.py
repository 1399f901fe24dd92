"""Reports: every figure follows from the leaves that it cites, and the page stands by itself."""

import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parties import PURPOSE, World
from typer.testing import CliRunner

from compliance import records
from compliance.agreement import Agreement
from compliance.records.leaf import Leaf
from compliance.reporting import (
    Citation,
    Entry,
    PartyLog,
    Report,
    access_report,
    budget_report,
    erasure_report,
    figures_of,
    impact_report,
    page,
    processing_report,
)
from compliance.reporting.budget import charges_of
from federation.audit import verify_all
from federation.cli import app
from federation.errors import WorkspaceError

Maker = Callable[[Agreement, Sequence[PartyLog], datetime], Report]

MAKERS: dict[str, Maker] = {
    "processing": processing_report,
    "impact": impact_report,
    "budget": budget_report,
    "erasure": erasure_report,
    "access": access_report,
}
START = datetime(2026, 3, 1, tzinfo=UTC)
AT = START + timedelta(days=20)
NAMES = ("brand", "retailer", "courier", "coordinator")
PARTIES = st.sampled_from(NAMES)
DIGESTS = st.sampled_from(["0" * 64, "1" * 64, "a" * 64])
KINDS = st.sampled_from(["train.update", "match.reply", "sum.exact", "assist.exact"])
MECHANISM = '{"kind":"gaussian","noise_multiplier":2.0}'


@pytest.fixture(scope="module")
def agreement(tmp_path_factory: pytest.TempPathFactory) -> Agreement:
    return World.make(tmp_path_factory.mktemp("reporting")).workspace.agreement


class Writer:
    """Writes leaves of one party, an hour apart."""

    def __init__(self, party: str) -> None:
        self.party = party
        self.leaves: list[Any] = []
        self.spent = 0.0

    def add(self, kind: Callable[..., Any], **said: Any) -> None:
        time = START + timedelta(hours=len(self.leaves))
        common = {"time": time, "party": self.party, "agreement": "b" * 64, "job": "job"}
        self.leaves.append(kind(**common, **said))

    def charge(self, name: str, end: str) -> None:
        """Reserve a charge, and commit, refund or leave it open."""
        spent = self.spent + 0.01
        common = {"charge_id": name}
        self.add(
            records.BudgetReserved,
            **common,
            mechanism=MECHANISM,
            epsilon=0.01,
            delta=1e-5,
            epsilon_spent=spent,
            epsilon_cap=1.2,
        )
        if end != "refunded":
            self.spent = spent
        if end == "committed":
            self.add(records.BudgetCommitted, **common, epsilon_spent=spent)
        elif end == "refunded":
            self.add(records.BudgetRefunded, **common, reason="nothing left")

    @property
    def log(self) -> PartyLog:
        return PartyLog.of(self.party, self.leaves, "c" * 64)


@st.composite
def logs(draw: st.DrawFn) -> tuple[PartyLog, ...]:
    return tuple(_log(draw, name) for name in NAMES)


def _log(draw: st.DrawFn, name: str) -> PartyLog:  # noqa: C901  one case a kind of leaf
    writer = Writer(name)
    for number in range(draw(st.integers(0, 8))):
        match draw(st.sampled_from(KINDS_OF_STEP)):
            case "decided":
                writer.add(
                    records.AccessDecided,
                    release_id=f"r{number}",
                    computation=draw(KINDS),
                    recipient=draw(PARTIES),
                    allowed=draw(st.booleans()),
                    clauses=draw(st.sampled_from([(), ("agreed:x",), ("night", "day")])),
                    policy_digest=draw(DIGESTS),
                    question_digest="d" * 64,
                )
            case "release":
                writer.add(
                    records.Release,
                    release_id=f"r{number}",
                    computation=draw(KINDS),
                    recipient=draw(PARTIES),
                    content_digest="e" * 64,
                    content_bytes=draw(st.integers(0, 10**6)),
                    charge_id=draw(st.sampled_from([None, "x"])),
                )
            case "refusal":
                terms = st.sampled_from(["policy", "match.minimum_match"])
                writer.add(
                    records.Refusal,
                    release_id=f"r{number}",
                    computation="refused",
                    term=draw(terms),
                    remedy="bring more people",
                )
            case "consent":
                rows = draw(st.integers(5, 1000))
                reasons = st.dictionaries(
                    st.sampled_from(["refused", "withdrawn"]), st.integers(0, 5)
                )
                writer.add(
                    records.ConsentUsed,
                    purpose=PURPOSE,
                    consent_log_size=7,
                    rows=rows,
                    eligible=draw(st.integers(0, rows)),
                    excluded=draw(reasons),
                )
            case "charge":
                ends = st.sampled_from(["committed", "refunded", "open"])
                writer.charge(f"charge-{number}", draw(ends))
            case "model":
                epsilon = draw(st.sampled_from([None, 0.5, 1.0]))
                writer.add(
                    records.ModelTrained,
                    model_digest=draw(DIGESTS),
                    rounds=2,
                    parties=("retailer",),
                    epsilon=epsilon,
                    delta=None if epsilon is None else 1e-5,
                )
            case "erasure":
                request = draw(st.sampled_from(["q1", "q2"]))
                days = draw(st.sampled_from([0, 10, 30]))
                deadline = START + timedelta(days=days)
                writer.add(
                    records.ErasureRequested, request=request, origin=name, deadline=deadline
                )
            case "erased":
                writer.add(
                    records.ErasureCompleted,
                    request=draw(st.sampled_from(["q1", "q2"])),
                    peer=draw(PARTIES),
                    completion_digest="f" * 64,
                )
            case "segment":
                writer.add(
                    records.SegmentWritten, segment="best", share=0.1, rows=draw(st.integers(0, 99))
                )
            case "job":
                writer.add(records.JobStarted, computation="train")
                outcome = draw(st.sampled_from(["done", "failed"]))
                missing = draw(st.sampled_from([(), ("courier",)])) if outcome == "done" else ()
                writer.add(records.JobEnded, computation="train", outcome=outcome, missing=missing)
    return writer.log


KINDS_OF_STEP = (
    *("decided", "release", "refusal", "consent", "charge", "model"),
    *("erasure", "erased", "segment", "job"),
)


def values(report: Report) -> dict[tuple[str, ...], Any]:
    found = list(figures_of(report))
    assert len({place for place, _ in found}) == len(found), "two figures in one place"
    return dict(found)


def check_citations(make: Maker, agreement: Agreement, whole: Sequence[PartyLog]) -> None:
    """Compute every figure again from nothing but the leaves that it cites."""
    made: dict[tuple[Citation, ...], dict[tuple[str, ...], Any]] = {}
    for place, figure in values(make(agreement, whole, AT)).items():
        if figure.citations not in made:
            cited = {citation.party: citation.indexes for citation in figure.citations}
            alone = [log.only(cited.get(log.party, ())) for log in whole]
            made[figure.citations] = values(make(agreement, alone, AT))
        again = made[figure.citations].get(place)
        if again is None:  # a row about nothing: only what counts nothing may cite nothing
            assert figure.citations == (), place
            assert figure.value == 0, place
        else:
            assert again == figure, place


class TestCitations:
    @pytest.mark.parametrize("name", MAKERS)
    @given(whole=logs())
    @settings(max_examples=15)
    def test_every_figure_follows_from_the_leaves_that_it_cites(
        self, name: str, agreement: Agreement, whole: tuple[PartyLog, ...]
    ) -> None:
        check_citations(MAKERS[name], agreement, whole)

    @given(st.sets(st.integers(0, 60)).filter(bool))
    def test_runs_of_leaves_are_compressed_and_lose_nothing(self, indexes: set[int]) -> None:
        leaf: Leaf = records.JobStarted(
            time=START, party="brand", agreement="b" * 64, computation="train"
        )
        (citation,) = Citation.of(Entry("brand", index, leaf) for index in indexes)
        assert citation.indexes == tuple(sorted(indexes))
        assert all(
            one[1] + 1 < two[0]
            for one, two in zip(citation.ranges, citation.ranges[1:], strict=False)
        )

    def test_a_citation_as_people_write_it(self) -> None:
        citation = Citation(party="retailer", ranges=((3, 3), (7, 9)))
        assert citation.text == "retailer 3, 7–9"


class TestTotals:
    @given(whole=logs())
    @settings(max_examples=25)
    def test_agree_with_a_naive_count(
        self, agreement: Agreement, whole: tuple[PartyLog, ...]
    ) -> None:
        kinds = Counter(type(one.record) for log in whole for one in log.entries)

        def total(make: Maker, caption: str, column: str) -> int:
            found = figures_of(make(agreement, whole, AT))
            return sum(
                int(one.value)  # type: ignore[arg-type]
                for place, one in found
                if (place[1], place[-1]) == (caption, column)
            )

        sent = "What left, and to whom"
        assert total(processing_report, sent, "releases") == kinds[records.Release]
        charged = sum(
            getattr(one.record, "charge_id", None) == "x" for log in whole for one in log.entries
        )
        assert total(processing_report, sent, "of them charged") == charged
        used = "Uses of people who had consented"
        assert total(processing_report, used, "uses") == kinds[records.ConsentUsed]
        assert total(processing_report, "Jobs", "begun") == kinds[records.JobStarted]
        decided = kinds[records.AccessDecided]
        assert total(access_report, "Decided by policies", "times") == decided
        assert total(access_report, "Policies in force", "decisions") == decided
        assert total(access_report, "Refused by terms", "times") == kinds[records.Refusal]
        counted = [one for log in whole[:3] for one in charges_of(log)]
        for state, column in (
            ("committed", "charges committed"),
            ("open", "open"),
            ("refunded", "refunded"),
        ):
            naive = sum(one.state == state for one in counted)
            assert total(budget_report, "Budget by party", column) == naive


class TestBudget:
    def test_open_charges_count_as_spent_and_refunds_do_not(self, agreement: Agreement) -> None:
        writer = Writer("retailer")
        for name, end in (("a", "committed"), ("b", "open"), ("c", "refunded")):
            writer.charge(name, end)
        found = values(budget_report(agreement, [writer.log], AT))
        row = ("Where it stands", "Budget by party", "retailer")
        assert found[(*row, "spent")].value == pytest.approx(0.02)
        assert found[(*row, "left")].value == pytest.approx(1.18)
        assert [
            found[(*row, state)].value for state in ("charges committed", "open", "refunded")
        ] == [1, 1, 1]

    def test_a_refunded_charge_may_be_reserved_again(self, agreement: Agreement) -> None:
        writer = Writer("retailer")
        for end in ("refunded", "refunded", "committed"):
            writer.charge("a", end)
        assert [one.state for one in charges_of(writer.log)] == [
            "refunded",
            "refunded",
            "committed",
        ]
        check_citations(budget_report, agreement, [writer.log])


class TestErasure:
    @pytest.mark.parametrize(
        ("deadline", "done", "state", "left"),
        [
            (30, None, "pending", 10),
            (20, None, "pending", 0),
            (19, None, "overdue", -1),
            (30, 10, "completed", 20),
            (5, 10, "completed late", -5),
        ],
    )
    def test_states_and_days(
        self, agreement: Agreement, deadline: int, done: int | None, state: str, left: int
    ) -> None:
        writer = Writer("brand")
        due = START + timedelta(days=deadline)
        writer.add(records.ErasureRequested, request="q", origin="brand", deadline=due)
        writer.add(
            records.ErasureAcknowledged,
            request="q",
            peer="courier",
            acknowledgement_digest="e" * 64,
        )
        if done is not None:
            while len(writer.leaves) < 24 * done:
                writer.add(records.JobStarted, computation="train")
            writer.add(
                records.ErasureCompleted, request="q", peer="courier", completion_digest="f" * 64
            )
        found = values(erasure_report(agreement, [writer.log], AT))
        row = ("Deadlines", "Requests to erase", "q", "courier")
        assert found[(*row, "state")].value == state
        assert found[(*row, "days left, or to spare")].value == left

    def test_only_who_was_reached_is_held_against_the_deadline(self, agreement: Agreement) -> None:
        writer = Writer("brand")
        writer.add(records.ErasureRequested, request="q", origin="brand", deadline=START)
        found = values(erasure_report(agreement, [writer.log], AT))
        states = {place[-2]: one.value for place, one in found.items() if place[-1] == "state"}
        assert states == dict.fromkeys(("retailer", "courier"), "not sent on") | {
            "brand": "overdue"
        }

    @pytest.mark.parametrize(
        ("days", "retired", "state"),
        [(1, False, "overdue"), (1, True, "retired"), (400, False, "pending")],
    )
    def test_models_to_be_trained_again_are_listed_by_their_day(
        self, days: int, retired: bool, state: str, agreement: Agreement
    ) -> None:
        writer = Writer("brand")
        due = START + timedelta(days=days)
        writer.add(records.ModelDue, model_digest="c" * 64, due=due)
        if retired:
            writer.add(records.ModelRetired, model_digest="c" * 64, reason="trained again")
        found = values(erasure_report(agreement, [writer.log], AT))
        named = f"job ({'c' * 12}…)"
        assert (("What was done", "Models retired", "brand", named, "leaves") in found) == retired
        row = ("What was done", "Models to be trained again", "brand", named)
        assert (found[(*row, "by")].value, found[(*row, "state")].value) == (due, state)

    def test_what_was_written_later_is_not_known_yet(self, agreement: Agreement) -> None:
        writer = Writer("brand")
        writer.add(records.ErasureRequested, request="q", origin="brand", deadline=AT)
        before = START - timedelta(seconds=1)
        assert values(erasure_report(agreement, [writer.log], before)) == {}


class TestImpact:
    def test_what_protects_nobody_is_said_in_plain_words(self, agreement: Agreement) -> None:
        writer = Writer("retailer")
        for computation in ("sum.exact", "assist.exact"):
            writer.add(
                records.Release,
                release_id="r",
                computation=computation,
                recipient="coordinator",
                content_digest="e" * 64,
                content_bytes=1,
            )
        told = page(impact_report(agreement, [writer.log], AT))
        assert "no ε holds for these models" in told
        assert "every aligned person&#39;s label, exactly" in told
        assert "no ε holds" not in page(impact_report(agreement, [Writer("retailer").log], AT))

    def test_what_only_people_can_judge_stays_blank(self, agreement: Agreement) -> None:
        report = impact_report(agreement, [], AT)
        blanks = {line.ask for one in report.sections for line in one.lines if line.type == "blank"}
        assert "Advice of the data protection officer" in blanks
        assert any("Likelihood and severity" in ask for ask in blanks)


class Page(HTMLParser):
    """What a browser would see and fetch."""

    VOID = frozenset({"meta", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("name", MAKERS)
class TestPage:
    def test_stands_by_itself_and_prints(
        self, name: str, agreement: Agreement, sample: tuple[PartyLog, ...]
    ) -> None:
        text = page(MAKERS[name](agreement, sample, AT))
        found = Page(text)
        for tag, attributes in found.tags:
            assert tag not in {"script", "link", "iframe", "object", "embed", "img", "base"}
            for key, value in attributes.items():
                assert not key.startswith("on")
                assert key not in {"src", "srcset", "data", "action"}
                assert key != "href" or (value or "").startswith("#")
        assert "@media print" in text
        assert not re.search(r"@import|url\(|https?:", text)

    def test_can_be_heard(
        self, name: str, agreement: Agreement, sample: tuple[PartyLog, ...]
    ) -> None:
        text = page(MAKERS[name](agreement, sample, AT))
        tags = Page(text).tags
        count = Counter(tag for tag, _ in tags)
        assert [attributes["lang"] for tag, attributes in tags if tag == "html"] == ["en"]
        assert count["h1"] == count["title"] - count["svg"] == 1
        assert count["caption"] == count["table"]
        assert all("scope" in attributes for tag, attributes in tags if tag == "th")
        ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
        assert len(ids) == len(set(ids))
        for tag, attributes in tags:
            if tag == "svg":
                assert attributes["role"] == "img"
                assert set((attributes["aria-labelledby"] or "").split()) <= set(ids)
        for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
            ET.fromstring(svg)  # noqa: S314  our own
        if name == "budget":
            assert count["svg"] == 1

    def test_shows_each_figure_with_its_leaves(
        self, name: str, agreement: Agreement, sample: tuple[PartyLog, ...]
    ) -> None:
        report = MAKERS[name](agreement, sample, AT)
        text = page(report)
        found = list(figures_of(report))
        assert found
        for _, figure in found:
            assert all(citation.text in text for citation in figure.citations)

    def test_is_the_same_as_json(
        self, name: str, agreement: Agreement, sample: tuple[PartyLog, ...]
    ) -> None:
        report = MAKERS[name](agreement, sample, AT)
        assert Report.model_validate_json(report.model_dump_json()) == report


@pytest.fixture(scope="module")
def sample() -> tuple[PartyLog, ...]:
    """One retailer's log with something for every report, some of it scattered."""
    writer = Writer("retailer")
    writer.add(records.ErasureRequested, request="q", origin="brand", deadline=AT)
    for number in range(9):
        writer.charge(f"c{number}", "committed")
        writer.add(
            records.AccessDecided,
            release_id="r",
            computation="train.update",
            recipient="coordinator",
            allowed=True,
            clauses=("agreed:x",),
            policy_digest="0" * 64,
            question_digest="d" * 64,
        )
        writer.add(
            records.Release,
            release_id="r",
            computation="train.update",
            recipient="coordinator",
            content_digest="e" * 64,
            content_bytes=80,
            charge_id=f"c{number}",
        )
    return (writer.log,)


def test_what_parties_wrote_is_escaped(agreement: Agreement) -> None:
    writer = Writer("retailer")
    writer.add(
        records.Refusal,
        release_id="r",
        computation="refused",
        term="policy",
        remedy="<script>alert(1)</script>",
    )
    text = page(access_report(agreement, [writer.log], AT))
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


class TestCommand:
    @pytest.mark.parametrize("name", MAKERS)
    def test_a_finished_trial(self, name: str, finished: tuple[Path, Path], tmp_path: Path) -> None:
        file = tmp_path / "page.html"
        command = ["report", name, str(finished[1]), "--json", "--html", str(file)]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
        report = Report.model_validate_json(result.stdout)
        assert {head.party for head in report.heads} == set(NAMES)
        text = file.read_text(encoding="utf-8")
        assert file.stat().st_mode & 0o077 == 0
        for told in (text, json.dumps(report.model_dump(mode="json"))):
            assert not re.search(r"gmx|\+1212|[BRC]#7\d\d|\b(green|red)\b", told)

    def test_parties_folders_are_read_as_the_workspace_is(
        self, finished: tuple[Path, Path]
    ) -> None:
        places = [str(finished[1] / name) for name in NAMES]
        ran = [
            CliRunner().invoke(app, ["report", "processing", *one, "--json", "--at", "2100-01-01"])
            for one in ([str(finished[1])], places)
        ]
        assert [one.exit_code for one in ran] == [0, 0]
        whole, each = (Report.model_validate_json(one.stdout) for one in ran)
        assert sorted(each.heads, key=str) == sorted(whole.heads, key=str)
        assert dict(figures_of(each)) == dict(figures_of(whole))

    def test_a_party_is_read_once(self, finished: tuple[Path, Path]) -> None:
        command = ["report", "budget", str(finished[1]), str(finished[1] / "courier")]
        result = CliRunner().invoke(app, command)
        assert isinstance(result.exception, WorkspaceError)
        assert "several logs of courier: name each party once" in str(result.exception)

    def test_what_is_public_is_said_as_the_verifier_says_it(
        self, finished: tuple[Path, Path]
    ) -> None:
        verified = {one.party: one for one in verify_all([finished[1]])[0]}
        command = ["report", "processing", str(finished[1]), "--json"]
        report = Report.model_validate_json(CliRunner().invoke(app, command).stdout)
        for head in report.heads:
            one = verified[head.party]
            assert (head.public_size, head.cosigned_by) == (one.public_size, one.cosigned_by)
            assert head.public == f"{one.public_size}, by {len(one.cosigned_by)}"

    def test_with_a_page_only_its_path_is_shown(
        self, finished: tuple[Path, Path], tmp_path: Path
    ) -> None:
        file = tmp_path / "page.html"
        command = ["report", "budget", str(finished[1]), "--html", str(file)]
        result = CliRunner().invoke(app, command)
        assert result.output.replace("\n", "") == f"page: {file}"
        assert file.is_file()

    def test_a_program_that_reads_lines_gets_every_figure(
        self, finished: tuple[Path, Path]
    ) -> None:
        command = ["report", "access", str(finished[1])]
        _, *lines = CliRunner().invoke(app, command).output.splitlines()
        told = CliRunner().invoke(app, [*command, "--json"]).stdout
        assert len(lines) == len(list(figures_of(Report.model_validate_json(told))))

    def test_on_a_terminal_tables_fit_it_and_long_ones_are_cut(
        self, finished: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        command = ["report", "access", str(finished[1])]
        told = CliRunner().invoke(app, [*command, "--json"]).stdout
        (decided, *_), *_ = (one.tables for one in Report.model_validate_json(told).sections)
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", "90")
        output = re.sub(r"\x1b\[[\d;]*m", "", CliRunner().invoke(app, command).output)
        assert len(decided.rows) > 20
        assert f"… and {len(decided.rows) - 20} rows more\n" in output
        assert max(map(len, output.splitlines()[1:])) <= 90
        assert "--html FILE" in output

    def test_at_needs_a_moment(self, finished: tuple[Path, Path]) -> None:
        result = CliRunner().invoke(app, ["report", "erasure", str(finished[1]), "--at", "soon"])
        assert result.exit_code == 2
