"""The command line: examples, exit codes, JSON beside every table, and errors that help."""

import base64
import json
import math
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
import typer
from pydantic import BaseModel
from trials import document, party, save, training, write_tables, write_trial

from compliance.agreement import SignedAgreement
from federation import terminal
from federation.cli import app, main
from federation.trial.report import Report

COMITY = Path(sys.executable).with_name("comity")


def test_json_has_null_for_numbers_that_json_has_no_spelling_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Told(BaseModel):
        area: float
        by_group: dict[str, float]

    told = Told(area=math.nan, by_group={"a": math.inf, "b": 0.5})
    terminal.print_json({"model": told, "all": (-math.inf, [math.nan, 1], True, "NaN")})

    def refuse(name: str) -> None:
        raise AssertionError(name)

    found = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert found == {
        "model": {"area": None, "by_group": {"a": None, "b": 0.5}},
        "all": [None, [None, 1], True, "NaN"],
    }


def test_tells_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"comity {version('comity')}\n"


class Ended(NamedTuple):
    """How a command ended, and what it said where."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ended]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in this process."""
    monkeypatch.setenv("COLUMNS", "200")
    for console in (terminal.out, terminal.err):  # as wide as that, not as when they were made
        monkeypatch.setattr(console, "_width", None)

    def command(*arguments: object) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        code = caught.value.code
        assert isinstance(code, int)
        return Ended(code, said.out, said.err)

    return command


def commands(
    command: click.Command | None = None, *words: str
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command with the words that call it."""
    command = command or typer.main.get_command(app)
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from commands(below, *words, name)
    else:
        yield words, command


COMMANDS = dict(commands())
WITHOUT_JSON = {
    "api serve": "serves until it is told to end",
    "coordinator up": "likewise",
    "log serve": "likewise",
    "node up": "likewise",
    "consent export": "prints JSON, in the words of others",
    "consent receipt": "prints JSON, which the person gets",
    "subject export": "prints JSON, or CSV where it is asked for",
    "log policy": "prints a file of C2SP's",
    "policy show": "prints Cedar",
}
"""Commands without --json, and why."""


def groups(command: click.Group, *words: str) -> Iterator[tuple[tuple[str, ...], click.Group]]:
    """Every group of commands with the words that call it."""
    for name, below in command.commands.items():
        if isinstance(below, click.Group):
            yield (*words, name), below
            yield from groups(below, *words, name)


TOP = typer.main.get_command(app)
assert isinstance(TOP, click.Group)
GROUPS = dict(groups(TOP))


class TestHelp:
    def test_these_are_the_commands(self) -> None:
        assert {" ".join(words) for words in COMMANDS} >= {
            "demo",
            "simulate",
            "plan",
            "agreement new",
            "agreement sign",
            "agreement show",
            "agreement verify",
            "log verify",
            "log show",
        }

    @pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
    def test_every_command_gives_an_example_that_it_would_take(
        self, words: tuple[str, ...], run: Run
    ) -> None:
        shown = run(*words, "--help")
        assert shown.code == 0
        text = re.sub(r"\s+", " ", shown.out)
        found = re.search(r"Example: comity (.*?)(?= ╭| \w+ comity|$)", text)
        assert found is not None
        example = shlex.split(found[1].partition(" < ")[0])  # what a shell would read for it
        assert tuple(example[: len(words)]) == words
        COMMANDS[words].make_context(words[-1], example[len(words) :]).close()

    @pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
    def test_every_option_and_argument_is_explained(self, words: tuple[str, ...]) -> None:
        for parameter in COMMANDS[words].params:
            assert getattr(parameter, "help", None), f"{words}: {parameter.name}"

    @pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
    def test_every_command_answers_programs_too(self, words: tuple[str, ...]) -> None:
        options = {name for one in COMMANDS[words].params for name in one.opts}
        assert ("--json" in options) is not (" ".join(words) in WITHOUT_JSON)

    def test_what_answers_no_program_is_a_command(self) -> None:
        assert WITHOUT_JSON.keys() <= {" ".join(words) for words in COMMANDS}

    @pytest.mark.parametrize("words", GROUPS, ids=" ".join)
    def test_every_group_gives_an_example_of_one_of_its_own(
        self, words: tuple[str, ...], run: Run
    ) -> None:
        text = " ".join(run(*words, "--help").out.split())
        found = re.search(rf"Example: comity {' '.join(words)} ([\w-]+)", text)
        assert found is not None
        assert found[1] in GROUPS[words].commands

    def test_what_newcomers_need_comes_first_then_parties_operator_and_auditor(
        self, run: Run
    ) -> None:
        text = run("--help").out
        assert all(text.count(f"│ {words[0]} ") == 1 for words in COMMANDS)
        names = ["demo", "simulate", "plan", "agreement", "consent", "card", "run", "audit"]
        places = [text.index(f"│ {name} ") for name in names]
        assert places == sorted(places)

    def test_exit_codes_are_told(self, run: Run) -> None:
        text = re.sub(r"\s+", " ", run("--help").out)
        for told in ("0 when done", "1 when refused", "2 for a mistake", "130 when interrupted"):
            assert told in text

    @pytest.mark.parametrize("arguments", [[], ["agreement"], ["log"]], ids=str)
    def test_without_a_command_it_explains_itself(self, arguments: list[str], run: Run) -> None:
        assert "Usage: comity" in (shown := run(*arguments)).out + shown.err


class TestMistakenCommands:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["simulat"], "No such command 'simulat'"),
            (["simulate"], "Missing argument 'FILE'"),
            (["simulate", "a.toml", "--quick"], "No such option '--quick'"),
            (["agreement", "new", "a.toml"], "Missing option '--workspace'"),
            (["log", "verify"], "Missing argument 'DIR"),
            (["plan", "nope.toml"], "nope.toml: 1 mistake\n  there is no such file"),
            (["simulate", "nope.toml"], "nope.toml: 1 mistake\n  there is no such file"),
            (["plan", "/"], "/: 1 mistake\n  cannot be read: Is a directory"),
            (["agreement", "show", "nope"], "expected an agreement at nope, got no such file: put it"),
            (["agreement", "show", "."], "got a folder: name the file in it, agreement.json"),
            (["log", "receipt", ".", "-1"], "expected the number of a leaf, 0 or more, got -1"),
            (["agreement", "sign", "nope", "--party", "no"], "no party's folder"),
            (["log", "verify", "nope"], "nope does not exist: name a party's folder"),
            (["log", "show", "no[/x]"], "no[/x] does not exist"),
            (["card", "shop", "job"], "Example: comity card out/demo/retailer/models/lookalike-model.json"),
        ],
    )  # fmt: skip
    def test_leave_with_2_and_say_what_is_wrong(
        self, arguments: list[str], said: str, run: Run
    ) -> None:
        ended = run(*arguments)
        assert ended.code == 2
        assert said in ended.err
        assert ended.out == ""


class TestSimulate:
    def test_prints_figures_writes_them_and_says_how_to_verify(
        self, finished: tuple[Path, Path], tmp_path: Path, run: Run
    ) -> None:
        workspace = tmp_path / "a [/b] c"
        shutil.copytree(finished[1], workspace)
        file = write_trial(tmp_path)
        ended = run("simulate", file, "--workspace", workspace, "--json", tmp_path / "x" / "f.json")
        assert ended.code == 0
        figures = (tmp_path / "x" / "f.json").read_bytes()
        assert figures == (workspace / "report.json").read_bytes()
        report = Report.model_validate_json(figures)
        for model in report.models:
            assert re.search(rf"{model.name} .*{model.everyone.auc:.3f}", ended.out)
        assert f"person-level epsilon {report.epsilon:.3f} at delta 1e-05, of 1.2" in ended.out
        assert str(workspace / "report.html") in ended.out
        assert f"comity log verify '{workspace}'" in ended.out
        assert "unsafe_seed makes every key and all noise predictable" in ended.err

    def test_every_mistake_in_the_file_is_listed(self, tmp_path: Path, run: Run) -> None:
        content = document(version=2)
        party(content, "courier")["consent"] = "nope.csv"
        content["jobs"][2]["share"] = 2
        ended = run("simulate", write_trial(tmp_path, content), "--workspace", tmp_path / "w")
        assert ended.code == 2
        assert re.findall(r"^  ([^:]*):", ended.err, re.MULTILINE) == [
            "version",
            "jobs[2].share",
            "parties[2].consent",
        ]
        assert "3 mistakes" in ended.err
        assert not (tmp_path / "w").exists()

    def test_a_refusal_is_told_by_the_party_where_the_job_fails_and_at_the_end(
        self, tmp_path: Path, run: Run
    ) -> None:
        content = document()
        content["agreement"]["match"]["minimum_match"] = 15
        ended = run("simulate", write_trial(tmp_path, content), "--workspace", tmp_path / "w")
        assert ended.code == 1
        reason = "under match.minimum_match: below the minimum of 15 matched people: bring more"
        assert re.findall(rf"courier +find +stopped: refused by courier {reason}", ended.err)
        assert re.findall(rf"coordinator +find +has failed: refused by courier {reason}", ended.err)
        assert ended.err.splitlines()[-1].startswith(f"error refused by courier {reason}")
        assert ended.err.count(reason) == 3
        assert ended.out == ""
        assert not (tmp_path / "w" / "report.json").exists()

    def test_what_a_party_says_to_nobody_else_stands_on_its_own_console(
        self, tmp_path: Path, run: Run
    ) -> None:
        file = write_trial(tmp_path)
        consents = tmp_path / "brand-consents.csv"
        consents.write_text(consents.read_text().replace("given", "granted"))
        ended = run("simulate", file, "--workspace", tmp_path / "w")
        assert ended.code == 1
        last = ended.err.splitlines()[-1]
        assert last.startswith("error refused by brand under consent: the party's own console")
        assert re.search(r"brand +find +stopped: .*brand-consents\.csv.*30", ended.err)

    def test_a_workspace_of_another_collaboration(
        self, finished: tuple[Path, Path], tmp_path: Path, run: Run
    ) -> None:
        file = write_trial(tmp_path, document(name="second"))
        ended = run("simulate", file, "--workspace", finished[1])
        assert ended.code == 2
        assert "is another contract than the collaboration file makes (it differs in name)" in (
            ended.err
        )

    def test_places_that_cannot_be_written(self, tmp_path: Path, run: Run) -> None:
        file = write_trial(tmp_path, document(jobs=[], evaluate={"path": "truth.csv"}))
        ended = run("simulate", file, "--workspace", file)
        assert ended.code == 2
        assert re.search(
            r"error .*trial\.toml/brand cannot be made a folder .*\(Not a dir", ended.err
        )
        workspace = ("--workspace", tmp_path / "w")
        ended = run("simulate", file, *workspace, "--json", tmp_path / "w" / "brand")
        assert ended.code == 2
        assert "Is a directory: name another path" in ended.err
        assert run("simulate", file, *workspace).code == 0


class TestPlan:
    def test_the_table_and_the_json_say_the_same(
        self, finished: tuple[Path, Path], run: Run
    ) -> None:
        table, found = run("plan", finished[0]), run("plan", finished[0], "--json")
        assert table.code == found.code == 0
        for job in found.json["jobs"]:
            assert re.search(rf"│ {job['job']} +│ {job['computation']} ", table.out)
            assert f"{job['job']}: {job['note']}" in table.out
        assert f"epsilon left: {found.json['epsilon_left']:.3f} of 1.200 per person" in table.out

    def test_what_would_be_refused_leaves_with_1(self, tmp_path: Path, run: Run) -> None:
        content = document()
        content["jobs"].append(training("second"))
        file = write_trial(tmp_path, content)
        ended = run("plan", file)
        assert ended.code == 1
        assert (
            "second: would be refused under budget.epsilon: ask for an epsilon of at most 0.6,"
            in (ended.out)
        )
        found = run("plan", file, "--json")
        assert found.code == 1
        assert [job["refused_by"] for job in found.json["jobs"]] == [None] * 3 + ["budget.epsilon"]

    def test_what_refuses_every_job_is_explained_once(self, tmp_path: Path, run: Run) -> None:
        content = document()
        content["agreement"]["valid_until"] = "2021-01-01T00:00:00Z"
        ended = run("plan", write_trial(tmp_path, content))
        assert ended.code == 1
        assert ended.out.count("would be refused under valid_until") == 3
        assert ended.out.count("sign one that covers today") == 1


class TestAgreement:
    @pytest.fixture
    def drawn_up(self, tmp_path: Path, run: Run) -> Path:
        ended = run("agreement", "new", write_trial(tmp_path), "--workspace", tmp_path / "w")
        assert ended.code == 0
        assert ended.out.startswith(f"drawn up: {tmp_path / 'w' / 'agreement.json'}")
        assert "WARNING: unsafe_seed makes every key and all noise predictable" in ended.err
        return tmp_path / "w" / "agreement.json"

    def test_from_a_draft_to_a_run(self, drawn_up: Path, tmp_path: Path, run: Run) -> None:
        names = ("courier", "brand", "coordinator", "retailer")
        for count, name in enumerate(names):
            ended = run("agreement", "verify", drawn_up)
            assert ended.code == 1
            assert f"{drawn_up}: agreement 'trial' is not signed by " in ended.err
            assert "`comity agreement sign`" in ended.err
            assert run("simulate", tmp_path / "trial.toml", "--workspace", tmp_path / "w").code == 1
            signed = run("agreement", "sign", drawn_up, "--party", tmp_path / "w" / name)
            which, first, next_step = signed.out.splitlines()
            assert re.fullmatch("agreement [0-9a-f]{64}", which)
            assert first == f"signed by {', '.join(names[: count + 1])}"
            missing = [one for one in ("brand", "retailer", "courier") if one in names[count + 1 :]]
            assert next_step.startswith(
                f"not signed yet by {missing[0]}"
                if count < 3
                else "all have signed: each adopts it"
            )
        ended = run("agreement", "verify", drawn_up)
        assert ended.code == 0
        assert ended.out.startswith("holds: signed by ")
        assert max(map(len, ended.out.splitlines())) <= 80
        found = run("agreement", "verify", drawn_up, "--json").json
        assert found["signed_by"] == ["brand", "retailer", "courier", "coordinator"]
        assert found["agreement"] in ended.out
        assert run("simulate", tmp_path / "trial.toml", "--workspace", tmp_path / "w").code == 0

    def test_a_program_follows_a_contract_from_its_draft_to_its_end(
        self, tmp_path: Path, run: Run
    ) -> None:
        content = document()
        content["agreement"]["termination"] = {"notice_days": 0}
        file, workspace = write_trial(tmp_path, content), tmp_path / "w"
        draft = run("agreement", "new", file, "--workspace", workspace, "--json").json
        agreement, names = Path(draft["file"]), draft["parties"]
        assert names == ["brand", "retailer", "courier", "coordinator"]
        for count, name in enumerate(names, start=1):
            folder = ("--party", workspace / name, "--json")
            found = run("agreement", "sign", agreement, *folder).json
            assert found["agreement"] == draft["agreement"]
            assert (found["signed_by"], found["missing"]) == (names[:count], names[count:])
        for name in names:
            folder = ("--party", workspace / name, "--json")
            found = run("agreement", "adopt", agreement, *folder).json
            assert found == {
                "party": name, "version": 1, "agreement": draft["agreement"], "obeys": True
            }  # fmt: skip
        retailer = workspace / "retailer"
        ended = run("agreement", "rotate", "--party", retailer, "--key", "log")
        assert "stays until the next version is adopted" in ended.out
        amend = ("amend", agreement, file, "--output", tmp_path / "next.json")
        assert f"comity agreement {amend[0]} AGREEMENT COLLABORATION" in ended.out
        content["agreement"]["valid_from"] = "2026-01-01T00:00:00Z"
        save(content, file)
        found = run("agreement", *amend, "--party", retailer, "--json").json
        assert (found["file"], found["version"]) == (str(tmp_path / "next.json"), 2)
        assert "parties.retailer.log_key" in [one["term"] for one in found["changes"]]
        ended = run("agreement", "end", "--party", retailer, "--reason", "it is over", "--json")
        notice = ended.json["file"]
        found = run("agreement", "adopt", notice, "--party", workspace / "brand", "--json").json
        assert (found["party"], found["notice_of"]) == ("brand", "retailer")
        assert found["ends"] >= ended.json["ends"]  # the days of notice count from when it came

    def test_under_a_known_seed_every_signer_reads_that_nothing_is_private(
        self, drawn_up: Path, tmp_path: Path, run: Run
    ) -> None:
        said = "known seed (unsafe_seed), so nothing under it is private"
        assert said in " ".join(run("agreement", "show", drawn_up).out.replace("▌", " ").split())
        content = document()
        del content["unsafe_seed"]
        honest = write_trial(tmp_path / "honest", content)
        ended = run("agreement", "new", honest, "--workspace", tmp_path / "honest" / "w")
        assert ended.err == ""
        shown = run("agreement", "show", tmp_path / "honest" / "w" / "agreement.json")
        assert "unsafe_seed" not in shown.out

    def test_a_contract_with_another_encryption_key_for_the_signer_is_not_signed(
        self, drawn_up: Path, run: Run
    ) -> None:
        """Whoever draws it up could put in a key of its own, and read what is meant for a party."""
        agreement = SignedAgreement.from_json(drawn_up.read_bytes()).unverified()
        brand, *others = agreement.parties
        key = base64.b64encode(bytes(1216)).decode()
        parties = (brand.model_copy(update={"encryption_key": key}), *others)
        forged = SignedAgreement.draft(agreement.model_copy(update={"parties": parties})).to_json()
        drawn_up.write_bytes(forged)
        ended = run("agreement", "sign", drawn_up, "--party", drawn_up.parent / "brand")
        assert ended.code == 2
        assert "names other keys" in ended.err
        assert drawn_up.read_bytes() == forged
        assert run("agreement", "sign", drawn_up, "--party", drawn_up.parent / "courier").code == 0

    def test_signing_twice_adds_nothing(self, drawn_up: Path, run: Run) -> None:
        for _ in range(2):
            run("agreement", "sign", drawn_up, "--party", drawn_up.parent / "brand")
        assert SignedAgreement.from_json(drawn_up.read_bytes()).signed_by == ("brand",)

    def test_shown_to_a_reader_and_to_a_program(self, drawn_up: Path, run: Run) -> None:
        page, found = (
            run("agreement", "show", drawn_up),
            run("agreement", "show", drawn_up, "--json"),
        )
        assert "A small trial" in page.out
        assert "minimum" in page.out
        assert found.json["signed_by"] == []
        assert found.json["budget"] == {"epsilon": 1.2, "delta": 1e-5}

    def test_on_a_narrow_terminal_no_fingerprint_is_cut(
        self, drawn_up: Path, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", "60")
        shown = run("agreement", "show", drawn_up).out
        assert "…" not in shown
        assert max(map(len, shown.splitlines())) <= 60

    def test_on_a_terminal_no_key_and_no_name_is_broken(
        self, drawn_up: Path, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", "80")
        shown = re.sub(r"\x1b\[[\d;]*m", "", run("agreement", "show", drawn_up).out)
        assert max(map(len, shown.splitlines())) <= 80
        agreement = SignedAgreement.from_json(drawn_up.read_bytes()).unverified()
        keys = [agreement.digest]
        for one in agreement.parties:
            keys += [one.name, one.log_key, one.verifying_key.fingerprint]
        assert set(keys) <= set(re.split(r"[\s.]+", shown))

    def test_with_a_key_that_the_contract_does_not_name(
        self, drawn_up: Path, tmp_path: Path, run: Run
    ) -> None:
        before = drawn_up.read_bytes()
        other = write_trial(tmp_path / "other", document(unsafe_seed=8))
        run("agreement", "new", other, "--workspace", tmp_path / "other" / "w")
        ended = run("agreement", "sign", drawn_up, "--party", tmp_path / "other" / "w" / "brand")
        assert ended.code == 1
        assert re.search(r"names key \w+ for 'brand', got \w+: sign with that key, or", ended.err)
        assert drawn_up.read_bytes() == before

    def test_altered(self, finished: tuple[Path, Path], tmp_path: Path, run: Run) -> None:
        content = bytearray((finished[1] / "agreement.json").read_bytes())
        place = content.index(b'"payload":"') + 400
        content[place] = ord("A") if content[place] != ord("A") else ord("B")
        (tmp_path / "altered.json").write_bytes(content)
        ended = run("agreement", "verify", tmp_path / "altered.json")
        assert ended.code == 1
        assert f"error {tmp_path / 'altered.json'}: " in ended.err

    @pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b"x" * 2_000_000], ids=len)
    def test_no_contract_at_all(self, content: bytes, tmp_path: Path, run: Run) -> None:
        (tmp_path / "file").write_bytes(content)
        for command in ("show", "verify"):
            ended = run("agreement", command, tmp_path / "file")
            assert ended.code == 1
            assert f"error {tmp_path / 'file'}: no signed agreement: " in ended.err


class TestLog:
    def test_all_hold(self, finished: tuple[Path, Path], run: Run) -> None:
        ended, found = (
            run("log", "verify", finished[1]),
            run("log", "verify", finished[1], "--json"),
        )
        assert ended.code == found.code == 0
        assert ended.out.endswith("all hold: 4 logs under 1 agreement\n")
        for log in found.json:
            row = rf"│ {log['party']} +│ {log['tree_size']} .*│ {log['root_hash'][:8]}"
            assert re.search(row, ended.out)
            assert sum(log["leaves"].values()) == log["tree_size"]

    def test_who_was_not_looked_at_is_named(self, finished: tuple[Path, Path], run: Run) -> None:
        ended = run("log", "verify", finished[1] / "brand", finished[1] / "courier" / "log")
        assert ended.code == 0
        assert "all hold: 2 logs under 1 agreement\nnot looked at: coordinator, retailer" in (
            ended.out
        )

    @pytest.mark.parametrize("command", ["verify", "show"])
    def test_a_corrupted_byte(
        self, command: str, finished: tuple[Path, Path], tmp_path: Path, run: Run
    ) -> None:
        shutil.copytree(finished[1], tmp_path / "w")
        tile = max((tmp_path / "w" / "courier" / "log" / "tile" / "entries").rglob("*.p/*"))
        content = bytearray(tile.read_bytes())
        content[len(content) // 2] ^= 1
        tile.write_bytes(content)
        ended = run("log", command, tmp_path / "w" / "courier")
        assert ended.code == 1
        assert str(tile.relative_to(tmp_path / "w" / "courier" / "log")) in ended.err
        assert ended.out == ""

    def test_shown_leaf_by_leaf(self, finished: tuple[Path, Path], run: Run) -> None:
        folder = finished[1] / "retailer"
        ended, found = run("log", "show", folder), run("log", "show", folder, "--json")
        leaves = found.json
        head, *lines = ended.out.splitlines()
        assert head.startswith(f"retailer, {len(leaves)} leaves, root hash ")
        assert [line.split()[:4:3] for line in lines] == [
            [str(index), leaf["kind"]] for index, leaf in enumerate(leaves)
        ]
        assert "budget.committed" in {leaf["kind"] for leaf in leaves}

    def test_a_receipt_for_a_program(
        self, finished: tuple[Path, Path], tmp_path: Path, run: Run
    ) -> None:
        made = run("log", "receipt", finished[1] / "retailer", 1, "--json").json
        assert (made["leaf"], made["version"], made["file"]) == (1, 1, None)
        file = tmp_path / "one.tlog-proof"
        told = run("log", "receipt", finished[1] / "retailer", 1, "--json", "--to", file).json
        assert told == made | {"file": str(file)}
        assert file.read_text() == made["receipt"]
        by = ("--agreement", finished[1] / "agreement.json", "--party", "retailer")
        found = run("log", "check", file, *by, "--json").json
        assert found["leaf"] == 1
        assert "coordinator" in found["cosigned_by"]
        leaves = run("log", "show", finished[1] / "retailer", "--json").json
        assert found["says"] == leaves[1]

    def test_on_a_terminal_lines_are_cut_to_it(
        self, finished: tuple[Path, Path], run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = run("log", "show", finished[1] / "retailer").out.splitlines()
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", "80")
        ended = run("log", "show", finished[1] / "retailer")
        _, *cut = re.sub(r"\x1b\[[\d;]*m", "", ended.out).splitlines()
        assert max(map(len, whole)) > 80
        for line, told in zip(cut, whole[1:], strict=True):
            assert line == told or (len(line) <= 80 and told.startswith(line.removesuffix("…")))
        assert "--full tells everything" in ended.err
        monkeypatch.setenv("COLUMNS", "300")
        wide = run("log", "show", finished[1] / "retailer").out
        assert re.search(r"content_digest [0-9a-f]{12}…, ", wide)
        full = run("log", "show", finished[1] / "retailer", "--full")
        assert re.sub(r"\x1b\[[\d;]*m", "", full.out).splitlines()[1:] == whole[1:]
        assert not full.err

    def test_what_is_no_terminal_gets_nothing_cut(
        self, finished: tuple[Path, Path], run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", "40")
        file, workspace = finished
        shown, planned = run("log", "show", workspace / "brand").out, run("plan", file).out
        assert "…" not in shown + planned
        leaves = run("log", "show", workspace / "brand", "--json").json
        assert len(shown.splitlines()) == len(leaves) + 1
        digests = [one["content_digest"] for one in leaves if one["kind"] == "release"]
        assert digests
        assert all(digest in shown for digest in digests)
        assert re.search(r"┃ job +┃ computation ┃ epsilon ┃ spent after ┃", planned)

    def test_one_log_at_a_time(self, finished: tuple[Path, Path], run: Run) -> None:
        ended = run("log", "show", finished[1])
        assert ended.code == 2
        assert "name the folder of one of brand, coordinator, courier, retailer" in ended.err


def test_a_reader_that_goes_away_gets_no_traceback(finished: tuple[Path, Path]) -> None:
    command = f"{shlex.quote(str(COMITY))} log show {shlex.quote(str(finished[1] / 'courier'))}"
    done = subprocess.run(
        ["sh", "-c", f"{command} | head -c 1"], capture_output=True, text=True, check=False
    )
    assert done.stdout == "c"
    assert "Traceback" not in done.stderr


def test_nothing_printed_shows_anybody(tmp_path: Path, run: Run) -> None:
    write_tables(tmp_path)
    file = save(document(), tmp_path / "trial.toml")
    said = [run("simulate", file, "--workspace", tmp_path / "w")]
    said += [run("log", "show", tmp_path / "w" / name) for name in ("brand", "courier")]
    assert all(ended.code == 0 for ended in said)
    assert not re.search(r"gmx|\+1212|[BRC]#7\d\d", "".join(one.out + one.err for one in said))
