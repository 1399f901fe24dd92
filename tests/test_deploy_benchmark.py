"""The benchmark of a deployment measures what it says: run small, with two nodes."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
BLOB = 400_000


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark itself, found as it finds its own parts."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import deploy

    return deploy


def test_a_small_deployment_is_measured(tmp_path: Path, thorough: bool) -> None:
    if not thorough:
        pytest.skip("other tests deploy as much")
    file = tmp_path / "deploy.json"
    command = [
        *(sys.executable, str(BENCHMARKS / "deploy.py"), "--nodes", "2", "--stock-rounds", "0"),
        *("--rounds", "3", "--blobs", "1", "--blob-bytes", str(BLOB), "--volume-bytes", "0"),
        *("--no-job", "--json", str(file)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    (own,) = json.loads(file.read_text())["deployments"].values()
    rounds, blobs = own["stages"]["rounds"], own["stages"]["blobs"]
    assert len(rounds["seconds"]) == 3
    assert len(blobs["seconds"]) == 1
    assert all(seconds > 0 for seconds in (*rounds["seconds"], *blobs["seconds"]))
    for stage in (rounds, blobs):
        assert stage["begin_seconds"] > 0
        assert 0 < sum(stage["cpu_seconds"].values()) < 60
        assert stage["cpu_seconds"]["worker"] > 0
        assert stage["peak_bytes"].keys() >= {"superlink", "executor", "serverapp", "node"}
        assert all(30e6 < size < 1e9 for size in stage["peak_bytes"].values())
    assert own["shares"]["node"] > 30e6
    assert "2 nodes" in done.stdout
    assert "met" not in done.stdout.split()


def test_a_small_match_is_measured_by_every_process(tmp_path: Path, thorough: bool) -> None:
    if not thorough:
        pytest.skip("other tests deploy as much")
    file = tmp_path / "match.json"
    command = [
        *(sys.executable, str(BENCHMARKS / "deployed_match.py"), "--size", "600"),
        *("--json", str(file)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    told = json.loads(file.read_text())
    nodes = {f"{part} of {name}" for part in ("node", "worker") for name in ("brand", "retailer")}
    assert told["peak_bytes"].keys() >= {"superlink", "executor", "serverapp", *nodes}
    assert told["said_bytes"]["all"] > 600 * (32 + 32 + 12)
    assert all(told["cpu_seconds"][part] > 0 for part in ("superlink", "worker of brand"))
    assert "met     at most 600 MB resident anywhere" in done.stdout


def figures(rounds: list[float], blobs: float, peak: float) -> dict[str, Any]:
    stages = {
        "rounds": {"seconds": rounds},
        "blobs": {"seconds": [blobs]},
        "volume": {"peak_bytes": {"node": 1, "worker": peak}},
    }
    sizes = {"blob_bytes": 32_000_000, "volume_bytes": 1 << 30}
    return {"nodes": 3, "deployments": {"comity": {"stages": stages}}} | sizes


def test_bars_are_judged_by_median_percentile_and_the_largest_process(
    benchmark: ModuleType,
) -> None:
    good = [0.2] * 19 + [0.9]
    assert list(benchmark.bars(figures(good, 4.0, 600e6)).values()) == [True] * 4
    slow = [0.31] * 20
    assert list(benchmark.bars(figures(slow, 4.1, 601e6)).values()) == [False, True, False, False]
    assert list(benchmark.bars(figures([0.2] * 19 + [1.1], 1, 1)).values())[1] is False
    assert (
        benchmark.bars(figures(good, 9, 9) | {"nodes": 20, "blob_bytes": 1, "volume_bytes": 1})
        == {}
    )
