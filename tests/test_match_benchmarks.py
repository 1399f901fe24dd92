"""The benchmarks of whole matches measure what they say: run small."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from federation.members import load_people

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SIZE = 600


def run(script: str, file: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    command: Sequence[object] = (
        *(sys.executable, BENCHMARKS / script, "--size", str(SIZE)),
        *("--json", file, *arguments),
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    content: dict[str, Any] = json.loads(file.read_text())
    return content, done.stdout


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark itself, found as it finds its own parts."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import match

    return match


def test_a_match_in_one_process_is_measured(tmp_path: Path, thorough: bool) -> None:
    if not thorough:
        pytest.skip("a whole match is measured below")
    content, told = run("match.py", tmp_path / "match.json", "--embedded", "--format", "csv")
    (used,) = content["usage"].values()
    assert 0 < content["protocol"]["cpu_seconds"] < 60
    assert content["ratio"] == used["cpu_seconds"] / content["protocol"]["cpu_seconds"] > 0
    assert 100e6 < used["peak_bytes"] < 1e9
    assert content["said_bytes"]["all"] > SIZE * (32 + 32 + 12)
    assert "it was not judged" in told


def test_a_match_of_tokens_on_disk_is_measured(tmp_path: Path) -> None:
    content, told = run("from_disk.py", tmp_path / "from-disk.json", "--memory-limit", "512MiB")
    assert list(content["usage"]) == ["brand", "retailer"]
    assert all(30e6 < used["peak_bytes"] < 512e6 for used in content["usage"].values())
    assert SIZE * 38 < content["disk_bytes"] < SIZE * 38 + 1_000
    assert f"buckets of {content['bucket_points']:,}" in told


def test_each_party_is_held_to_the_memory_limit_over_a_whole_match(tmp_path: Path) -> None:
    options = ("--memory-limit", "768MiB", "--format", "parquet")
    content, told = run("whole_match.py", tmp_path / "whole.json", *options)
    assert "met     memory_limit of 768MiB" in told
    assert set(content["usage"]["retailer"]) >= {"match.request", "match.accept", "match.reply"}
    assert all(60e6 < peak < 768 << 20 for peak in content["peak_bytes"].values())


def test_the_members_must_be_exactly_the_people_of_both(
    benchmark: ModuleType, tmp_path: Path
) -> None:
    tables = tmp_path / "tables"
    tables.mkdir()
    for party in (benchmark.BRAND, benchmark.PARTNER):
        benchmark.write_tables(party, SIZE, tables, "csv")
    document = benchmark.collaboration(SIZE, "csv", "1GiB")
    workspace = benchmark.prepare_workspace(document, tables / "match.toml", tmp_path / "made")
    benchmark.run_in_one_process(workspace)
    benchmark.check_members(workspace, SIZE)

    file = workspace.partners[0].members("find")
    people = load_people(workspace.partners[0].job("find") / "people")
    members = benchmark.Members.load(file, people)
    other = np.setdiff1d(np.arange(len(people.keys), dtype=np.uint32), members.rows)[:1]
    for wrong in (
        members.rows[1:],
        np.append(members.rows, other),
        np.append(members.rows[1:], other),
    ):
        benchmark.Members(people, wrong).save(file)
        with pytest.raises(benchmark.WrongMatchError, match="expected the 300 people"):
            benchmark.check_members(workspace, SIZE)
