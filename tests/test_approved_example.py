"""The example whose lists two people approve, run as its page says."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from compliance.records import ApprovalReceived, Refusal, SegmentWritten
from federation import cli
from federation.audit import verify_party

EXAMPLE = Path(__file__).parents[1] / "examples" / "approved"


def steps() -> Iterator[list[list[str]]]:
    """The commands of each block of the page."""
    for block in re.findall(r"```sh\n(.*?)```", (EXAMPLE / "README.md").read_text(), re.DOTALL):
        yield [shlex.split(line)[1:] for line in block.splitlines()]


def ran(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    return int(end.value.code or 0)


def segments() -> dict[str, int]:
    found = {}
    for party in ("retailer", "courier"):
        leaves = verify_party(Path("out/approved") / party).leaves
        found[party] = sum(isinstance(leaf, SegmentWritten) for leaf in leaves)
    return found


def test_the_run_stops_until_two_people_of_two_parties_approved_and_the_audit_says_who(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "approved").symlink_to(EXAMPLE)
    unapproved, matched, once, twice = steps()

    assert [ran(one) for one in unapproved] == [1]
    assert "under approval" in capsys.readouterr().err
    assert [ran(one) for one in matched] == [0, 0, 0, 1]
    assert "under approval" in capsys.readouterr().err
    assert [ran(one) for one in once] == [0, 0, 1]
    assert "under approval" in capsys.readouterr().err
    assert segments() == {"retailer": 0, "courier": 0}

    assert [ran(one) for one in twice] == [0, 0, 0, 0]
    told = capsys.readouterr().out
    both = "by approver-1 of retailer, approver-2 of courier"
    assert "0 findings" in told
    assert f"approved: best {both}\napproved: find {both}\n" in told
    assert segments() == {"retailer": 1, "courier": 1}
    leaves = verify_party(Path("out/approved/retailer")).leaves
    assert sum(isinstance(leaf, ApprovalReceived) for leaf in leaves) == 4
    assert {leaf.term for leaf in leaves if isinstance(leaf, Refusal)} == {"approval"}

    assert ran(["audit", "out/approved", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["approved"]["best"] == [
        "approver-1 of retailer",
        "approver-2 of courier",
    ]
