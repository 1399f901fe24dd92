"""What a party holds about one person: shown, handed over, corrected; with leaves that tell none."""

import csv
import io
import json
from pathlib import Path

import pytest
from parties import World, email, record

from compliance import records
from federation.cli import main

REFERENCE = record("retailer", 20)


class Console:
    """A retailer's console."""

    def __init__(
        self, world: World, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch
    ) -> None:
        self.world = world
        self.path = world.folder("retailer").path
        self._capsys = capsys
        self._patch = patch

    def run(self, command: str, said: str, *options: str) -> tuple[int, str]:
        self._capsys.readouterr()
        self._patch.setattr("sys.stdin", io.StringIO(said))
        with pytest.raises(SystemExit) as left:
            main(["subject", command, str(self.path), *options])
        told = self._capsys.readouterr()
        return int(left.value.code or 0), told.out + told.err

    def leaves(self) -> list[str]:
        kinds = ("subject.informed", "subject.corrected")
        if not (self.path / "log" / "checkpoint").exists():
            return []
        return [leaf.kind for leaf in self.world.leaves("retailer") if leaf.kind in kinds]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("made"))


@pytest.fixture
def console(
    made: World,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Console:
    return Console(made.copy(tmp_path / "copy"), capsys, monkeypatch)


def test_a_person_sees_and_takes_along_what_is_held(console: Console) -> None:
    code, shown = console.run("show", REFERENCE + "\n")
    assert (code, f"record: {REFERENCE}" in shown, "row 1 of 1" in shown) == (0, True, True)
    code, exported = console.run("export", email(20), "--by", "email")
    (row,) = json.loads(exported)
    assert (code, row["record"], row["age"]) == (0, REFERENCE, "38")
    code, exported = console.run("export", email(20).upper(), "--by", "email", "--as", "csv")
    assert list(csv.DictReader(io.StringIO(exported))) == [row]
    assert console.leaves() == ["subject.informed"] * 3


def test_the_log_does_not_tell_whether_somebody_is_held(console: Console) -> None:
    code, shown = console.run("show", "stranger@gmx.net", "--by", "email")
    assert (code, shown) == (0, "nothing is held\n")
    console.run("correct", "stranger@gmx.net\nage=30\n", "--by", "email")
    assert console.leaves() == ["subject.informed", "subject.corrected"]
    mine = console.world.leaves("retailer")[-1]
    assert isinstance(mine, records.SubjectCorrected)
    assert set(json.loads(records.to_leaf(mine))) == {
        *("version", "kind", "time", "party", "agreement", "job", "request")
    }


def test_a_correction_is_read_by_whoever_reads_the_table(console: Console) -> None:
    code, told = console.run("correct", f"{REFERENCE}\nage=39\ncolour=green\n", "--json")
    assert (code, set(json.loads(told))) == (0, {"request"})
    (row,) = json.loads(console.run("export", REFERENCE)[1])
    assert (row["age"], row["colour"]) == ("39", "green")
    others = json.loads(console.run("export", record("retailer", 21))[1])
    assert others[0]["age"] == "39"  # 18 + 21, as before


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (f"{REFERENCE}\nrecord=R9\n", 2),
        (f"{REFERENCE}\nno-such-column=secret-value\n", 2),
        (f"{REFERENCE}\n", 2),
        (f"{REFERENCE}\nage=1\nage=2\n", 2),
        ("", 2),
    ],
    ids=["the key", "another column", "nothing", "twice", "nobody"],
)
def test_what_cannot_be_corrected_is_left_alone(console: Console, said: str, code: int) -> None:
    before = console.world.table("retailer").read_bytes()
    found, told = console.run("correct", said)
    assert (found, console.world.table("retailer").read_bytes()) == (code, before)
    assert "secret-value" not in told
    assert REFERENCE not in told
    assert console.leaves() == []


def test_an_identifier_that_could_find_nobody_is_refused(console: Console) -> None:
    code, told = console.run("show", "no address", "--by", "email")
    assert (code, "no address" in told) == (1, False)
