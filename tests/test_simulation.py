"""A whole collaboration on one machine: whatever goes wrong, nothing is lost and nothing is half."""

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
from parties import PEOPLE, record, table
from trials import Document, document, party, save, training, write_tables, write_trial

from connectors.errors import SourceFormatError
from federation.audit import VerifiedParty, verify_party
from federation.errors import CollaborationError, RefusedError
from federation.jobs.spread import ERASING
from federation.progress import Progress, listening
from federation.roll_call import ROLL_CALL
from federation.trial.report import Report
from federation.trial.simulation import simulate

COMITY = Path(sys.executable).with_name("comity")
KILLING = Path(__file__).with_name("killing.py")
PEOPLES = ("brand", "retailer", "courier")
EVERYBODY = (*PEOPLES, "coordinator")


def without(content: Document, *keys: str) -> Document:
    return {key: value for key, value in content.items() if key not in keys}


def logs(workspace: Path) -> Mapping[str, VerifiedParty]:
    """Everybody's verified log."""
    return {name: verify_party(workspace / name) for name in EVERYBODY}


def outcome(workspace: Path) -> Mapping[str, bytes]:
    """Every model, member and segment file."""
    return {
        str(path.relative_to(workspace)): path.read_bytes()
        for pattern in ("*/models/*", "*/segments/*", "*/jobs/*/members.npz")
        for path in sorted(workspace.glob(pattern))
    }


def charges(workspace: Path, name: str) -> list[tuple[str, str]]:
    """What a party's ledger holds, by charge and state."""
    with sqlite3.connect(workspace / name / "ledger.sqlite") as ledger:
        return ledger.execute("SELECT charge_id, state FROM charges ORDER BY position").fetchall()


def half_written(workspace: Path) -> list[Path]:
    return [path for path in workspace.rglob("*") if path.name.endswith((".tmp", ".new"))]


ROUNDS = [(f"model/train.update/coordinator/round-{number}", "committed") for number in (1, 2)]


class TestUndisturbed:
    def test_the_same_seed_gives_the_same_outcome(
        self, finished: tuple[Path, Path], tmp_path: Path
    ) -> None:
        again = tmp_path / "again"
        simulate(finished[0], again, clock=lambda: datetime(2030, 1, 1, tzinfo=UTC))
        assert outcome(again) == outcome(finished[1])

    def test_everybody_ends_with_what_is_its_own(self, finished: tuple[Path, Path]) -> None:
        found = outcome(finished[1])
        assert set(found) == {
            *(f"{name}/models/model.json" for name in EVERYBODY),
            *(f"{name}/segments/best.csv" for name in ("retailer", "courier")),
            *(f"{name}/jobs/find/members.npz" for name in ("retailer", "courier")),
        }
        assert len({found[f"{name}/models/model.json"] for name in EVERYBODY}) == 1

    def test_a_segment_holds_the_asked_share_and_no_seed(self, finished: tuple[Path, Path]) -> None:
        for name in ("retailer", "courier"):
            chosen = set(pd.read_csv(finished[1] / name / "segments" / "best.csv")["record"])
            seeds = {record(name, person) for person in PEOPLE["brand"]}
            assert len(chosen) == 10
            assert not chosen & seeds
            assert chosen <= {record(name, person) for person in PEOPLE[name]}

    def test_every_partner_is_charged_once_a_round(self, finished: tuple[Path, Path]) -> None:
        for name in ("retailer", "courier"):
            assert charges(finished[1], name) == ROUNDS
        assert charges(finished[1], "brand") == []

    def test_again_in_a_finished_workspace_charges_nothing_and_tells_the_same(
        self, finished: tuple[Path, Path], tmp_path: Path
    ) -> None:
        file, original = finished
        workspace = tmp_path / "w"
        shutil.copytree(original, workspace)
        before, told = outcome(workspace), json.loads((original / "report.json").read_text())
        report = simulate(file, workspace)
        assert outcome(workspace) == before
        for name, log in logs(original).items():
            grown = verify_party(workspace / name).leaves
            assert grown[: len(log.leaves)] == log.leaves
            more = {leaf.job for leaf in grown[len(log.leaves) :]}
            assert more <= {ROLL_CALL, ERASING}  # every run has a look at erasures
        for name in ("retailer", "courier"):
            assert charges(workspace, name) == ROUNDS
        again = json.loads((workspace / "report.json").read_text())
        assert report == Report.model_validate(again)
        assert again["seconds"] is None
        for changing in ("made", "seconds", "verify_command"):
            del told[changing], again[changing]
        for figures in (*told["parties"], *again["parties"]):
            del figures["leaves"], figures["root_hash"]
        assert again == told

    def test_a_job_that_was_added_runs_and_is_charged_with_the_others(
        self, finished: tuple[Path, Path], tmp_path: Path
    ) -> None:
        shutil.copytree(finished[1], tmp_path / "w")
        content = document()
        content["jobs"].append(training("second", epsilon=0.3))
        report = simulate(write_trial(tmp_path, content), tmp_path / "w")
        assert [state for _, state in charges(tmp_path / "w", "courier")] == ["committed"] * 4
        assert 1.0 < report.epsilon <= 1.2

    def test_a_trial_without_a_truth_or_a_training_is_still_told(self, tmp_path: Path) -> None:
        content = without(document(), "evaluate")
        content["jobs"] = content["jobs"][:1]
        report = simulate(write_trial(tmp_path, content), tmp_path / "w")
        assert report.models == ()
        assert report.epsilon == 0
        assert report.parties

    def test_a_trial_without_jobs_only_signs(self, tmp_path: Path) -> None:
        simulate(write_trial(tmp_path, document(jobs=[])), tmp_path / "w")
        assert (tmp_path / "w" / "report.html").exists()

    def test_whatever_holds_the_tables_the_outcome_is_the_same(
        self, finished: tuple[Path, Path], tmp_path: Path
    ) -> None:
        content = without(document(), "evaluate")
        write_tables(tmp_path)
        table("brand").to_csv(tmp_path / "brand.csv", index=False, encoding="utf-8-sig")
        table("courier").to_parquet(tmp_path / "courier.parquet")
        party(content, "courier")["data"]["path"] = "courier.parquet"
        with sqlite3.connect(tmp_path / "people.db") as database:
            table("retailer").to_sql("customers", database, index=False)
        data = party(content, "retailer")["data"]
        del data["path"]
        data |= {"url": "sqlite:///people.db", "table": "customers"}
        simulate(save(content, tmp_path / "trial.toml"), tmp_path / "w")
        assert outcome(tmp_path / "w") == outcome(finished[1])


class TestKilled:
    def test_at_every_few_changes_of_the_disk_it_comes_to_the_same_end(
        self, finished: tuple[Path, Path], tmp_path: Path, thorough: bool
    ) -> None:
        seeded = write_trial(tmp_path, without(document(), "evaluate"))
        unseeded = save(without(document(), "evaluate", "unsafe_seed"), tmp_path / "unseeded.toml")
        places = [str(path) for path in (seeded, tmp_path / "a", unseeded, tmp_path / "b")]
        command = [sys.executable, str(KILLING), "53" if thorough else "113", *places]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert all(int(kills) >= (8 if thorough else 2) for kills in done.stdout.split())
        assert outcome(tmp_path / "a") == outcome(finished[1])
        assert set(outcome(tmp_path / "b")) == set(outcome(finished[1]))
        for workspace in (tmp_path / "a", tmp_path / "b"):
            for name in ("retailer", "courier"):
                assert charges(workspace, name) == ROUNDS
                counts = verify_party(workspace / name).counts
                assert counts["budget.committed"] == 2
                assert counts["budget.reserved"] == 2 + counts.get("budget.refunded", 0)
                assert counts["segment.written"] >= 1
            assert not half_written(workspace)

    def test_the_command_killed_at_any_stage_goes_on_where_it_stopped(
        self, finished: tuple[Path, Path], tmp_path: Path
    ) -> None:
        shutil.copytree(finished[0].parent, tmp_path / "t", ignore=lambda *_: ["workspace"])
        file, workspace = tmp_path / "t" / "trial.toml", tmp_path / "w"
        for stage in ("knows which", "gave round 1"):
            assert run_until(file, workspace, stage, signal.SIGKILL) == -signal.SIGKILL
        report = simulate(file, workspace)
        assert outcome(workspace) == outcome(finished[1])
        for name in ("retailer", "courier"):
            assert charges(workspace, name) == ROUNDS
        told = Report.model_validate_json((finished[1] / "report.json").read_bytes())
        assert report.models == told.models
        assert report.epsilon == told.epsilon


def run_until(file: Path, workspace: Path, stage: str, sent: signal.Signals) -> int:
    """Run the command until it tells of a stage, and send a signal; return how it ended."""
    command = [COMITY, "simulate", file, "--workspace", workspace]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if stage in line:
                process.send_signal(sent)
                break
        process.stderr.read()
    return process.returncode


class Spoilt:
    """What spoils a trial, and what is said about it."""

    def __init__(
        self,
        spoil: Callable[[Document, Path], object],
        *,
        party: str,
        term: str,
        said: str,
        remedy: str = "",
    ) -> None:
        self.spoil, self.party, self.term = spoil, party, term
        self.said, self.remedy = said, remedy or said


def spoil_consents(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[..., None]:
    def spoil(_: Document, directory: Path) -> None:
        path = directory / "retailer-consents.csv"
        change(pd.read_csv(path, dtype=str)).to_csv(path, index=False)

    return spoil


def strangers(_: Document, directory: Path) -> None:
    rows = table("brand").assign(phone="")
    rows["email"] = [f"stranger{number}@gmx.net" for number in range(len(rows))]
    rows.to_csv(directory / "brand.csv", index=False)


def latin(_: Document, directory: Path) -> None:
    rows = table("courier").assign(email="grün@gmx.net")
    rows.to_csv(directory / "courier.csv", index=False, encoding="latin-1")


IN_DETAIL = "the party's own console and log say what is wrong; mend it and run again"
SPOILT: Mapping[str, Spoilt] = {
    "a purpose that nobody agreed to": Spoilt(
        spoil_consents(lambda book: book.replace("lookalike-audiences", "profit")),
        party="retailer",
        term="consent",
        said="retailer-consents.csv: the agreement declares lookalike-audiences, newsletter, got 'profit' (50 rows)",
        remedy=IN_DETAIL,
    ),
    "consents at no time": Spoilt(
        spoil_consents(lambda book: book.assign(time="yesterday")),
        party="retailer",
        term="consent",
        said="50 whose time is not RFC 3339",
        remedy=IN_DETAIL,
    ),
    "consents of nobody": Spoilt(
        spoil_consents(lambda book: book.drop(columns="subject")),
        party="retailer",
        term="consent",
        said="expected each of the columns subject, purpose, event, time",
        remedy=IN_DETAIL,
    ),
    "an empty intersection": Spoilt(
        strangers,
        party="retailer",
        term="match.minimum_match",
        said="below the minimum of 5 matched people: bring more people whom both sides know, or",
    ),
    "fewer matches than the minimum": Spoilt(
        lambda content, _: content["agreement"]["match"].update(minimum_match=11),
        party="courier",
        term="match.minimum_match",
        said="below the minimum of 11",
    ),
    "a table in another encoding": Spoilt(
        latin,
        party="courier",
        term="datasets",
        said="courier.csv cannot be read: expected CSV in UTF-8",
        remedy=IN_DETAIL,
    ),
    "a contract that has run out": Spoilt(
        lambda content, _: content["agreement"].update(valid_until="2021-01-01T00:00:00Z"),
        party="coordinator",
        term="valid_until",
        said="in force from 2020-01-01 to 2021-01-01: sign one that covers today",
    ),
}


@pytest.fixture
def told() -> Iterator[list[Progress]]:
    """Every line of progress."""
    lines: list[Progress] = []
    with listening(lines.append):
        yield lines


class TestSpoilt:
    @pytest.mark.parametrize("name", SPOILT)
    def test_it_is_told_by_party_term_and_remedy_and_nothing_is_lost(
        self, name: str, tmp_path: Path, told: list[Progress]
    ) -> None:
        case, content, workspace = SPOILT[name], without(document(), "evaluate"), tmp_path / "w"
        write_tables(tmp_path)
        case.spoil(content, tmp_path)
        file = save(content, tmp_path / "trial.toml")
        with pytest.raises(RefusedError) as caught:
            simulate(file, workspace)
        assert str(caught.value).startswith(f"refused by {case.party} under {case.term}: ")
        assert (caught.value.party, caught.value.term) == (case.party, case.term)
        assert case.remedy in caught.value.remedy
        if case.party != "coordinator":
            reasons = [line.stage for line in told if line.party == case.party]
            assert reasons[-1].startswith("stopped: ")
            assert case.said in reasons[-1]
            assert verify_party(workspace / case.party).counts["refusal"] == 1
        for log in workspace.glob("*/log"):
            assert verify_party(log.parent).epsilon_spent == 0
        assert not [path for path in outcome(workspace) if f"{case.party}/" in path]
        assert not half_written(workspace)
        assert not (workspace / "report.html").exists()

    def test_no_line_shows_anybody(self, tmp_path: Path, told: list[Progress]) -> None:
        content = without(document(), "evaluate")
        write_tables(tmp_path)
        for case in SPOILT.values():
            case.spoil(content, tmp_path)
        with pytest.raises(RefusedError) as caught:
            simulate(save(content, tmp_path / "trial.toml"), tmp_path / "w")
        text = f"{told}{caught.value}"
        assert not [word for word in ("gmx", "+1212", "R#7", "C#7", "B#7", "grün") if word in text]

    def test_once_mended_the_same_workspace_goes_on(
        self, finished: tuple[Path, Path], tmp_path: Path
    ) -> None:
        content = without(document(), "evaluate")
        file = write_trial(tmp_path, content)
        SPOILT["a purpose that nobody agreed to"].spoil(content, tmp_path)
        with pytest.raises(RefusedError, match="under consent"):
            simulate(file, tmp_path / "w")
        write_tables(tmp_path)
        simulate(file, tmp_path / "w")
        assert outcome(tmp_path / "w") == outcome(finished[1])
        assert verify_party(tmp_path / "w" / "retailer").counts["refusal"] == 1

    def test_a_segment_below_the_minimum_leaves_no_segment_and_keeps_the_model(
        self, tmp_path: Path
    ) -> None:
        content = without(document(), "evaluate")
        content["agreement"]["expand"]["minimum_segment"] = 500
        file = write_trial(tmp_path, content)
        for _ in range(2):
            with pytest.raises(RefusedError, match=r"expand\.minimum_segment: below .* of 500"):
                simulate(file, tmp_path / "w")
            assert not list((tmp_path / "w").glob("*/segments/*"))
            assert charges(tmp_path / "w", "retailer") == ROUNDS

    def test_a_budget_that_is_spent_refuses_and_keeps_what_was_paid_for(
        self, tmp_path: Path
    ) -> None:
        content = without(document(), "evaluate")
        content["jobs"] = [*content["jobs"][:2], training("second"), content["jobs"][2]]
        file = write_trial(tmp_path, content)
        for _ in range(2):
            with pytest.raises(RefusedError, match="budget") as caught:
                simulate(file, tmp_path / "w")
            assert caught.value.term == "budget.epsilon"
            assert "past the cap of 1.2000 (1.0000 is spent)" in caught.value.remedy
            assert "ask for a smaller epsilon or amend the agreement's budget" in str(caught.value)
        models = {path.split("/", 1)[1] for path in outcome(tmp_path / "w") if "model" in path}
        assert models == {"models/model.json"}
        for name in ("retailer", "courier"):
            assert charges(tmp_path / "w", name)[:2] == ROUNDS
            assert verify_party(tmp_path / "w" / name).epsilon_spent <= 1.2
        del content["jobs"][2]
        simulate(save(content, file), tmp_path / "w")
        assert (tmp_path / "w" / "courier" / "segments" / "best.csv").exists()

    def test_mistakes_in_the_file_make_no_workspace(self, tmp_path: Path) -> None:
        with pytest.raises(CollaborationError):
            simulate(write_trial(tmp_path, document(version=2)), tmp_path / "w")
        assert not (tmp_path / "w").exists()


class TestTruth:
    @pytest.mark.parametrize(
        ("spoil", "said"),
        [
            (lambda rows: pd.concat([rows, rows.head(3)]), "3 rows repeat an earlier party"),
            (lambda rows: rows.assign(label="yes"), "100 of 100 rows have another 'label' than 0"),
            (
                lambda rows: rows.assign(label=1),
                "100 of the 100 eligible people in it are labelled",
            ),
            (lambda rows: rows.assign(party="courier", record=rows.index), "people of retailer is"),
        ],
        ids=["repeated", "no number", "one class", "other people"],
    )
    def test_a_truth_that_tells_nothing_is_told_and_once_mended_nothing_is_charged_anew(
        self,
        spoil: Callable[[pd.DataFrame], pd.DataFrame],
        said: str,
        finished: tuple[Path, Path],
        tmp_path: Path,
    ) -> None:
        shutil.copytree(finished[1], tmp_path / "w")
        file = write_trial(tmp_path)
        spoil(pd.read_csv(tmp_path / "truth.csv")).to_csv(tmp_path / "truth.csv", index=False)
        (tmp_path / "w" / "report.html").unlink()
        with pytest.raises(SourceFormatError, match=said) as caught:
            simulate(file, tmp_path / "w")
        assert str(tmp_path / "truth.csv") in str(caught.value)
        assert not (tmp_path / "w" / "report.html").exists()
        assert charges(tmp_path / "w", "retailer") == ROUNDS


class TestInterrupted:
    def test_a_plain_message_exit_code_130_and_the_same_end(
        self, finished: tuple[Path, Path], tmp_path: Path
    ) -> None:
        file = write_trial(tmp_path / "t", without(document(), "evaluate"))
        for attempt in range(5):  # a busy machine may let a run end before the signal is sent
            workspace = tmp_path / f"w{attempt}"
            command = [COMITY, "simulate", file, "--workspace", workspace]
            with subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            ) as process:
                assert process.stderr is not None
                assert process.stdout is not None
                for line in process.stderr:
                    if "says match.request" in line:
                        process.send_signal(signal.SIGINT)
                        break
                begun = time.monotonic()
                rest, told = process.stderr.read(), process.stdout.read()
            if process.returncode:
                break
        assert (process.returncode, told) == (130, "")
        assert time.monotonic() - begun < 10
        assert "stopped: nothing is half-written; the same command goes on from here" in rest
        assert "Traceback" not in rest
        simulate(file, workspace)
        assert outcome(workspace) == outcome(finished[1])
