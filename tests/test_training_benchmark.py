"""The benchmark of training measures what it says: run quickly, on one fold."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import training

    return training


def test_a_quick_run_trains_every_way_and_judges_no_bar(tmp_path: Path, thorough: bool) -> None:
    if not thorough:
        pytest.skip("takes twenty seconds: --thorough")
    file = tmp_path / "training.json"
    command = [sys.executable, BENCHMARKS / "training.py", "--quick", "--json", file]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # as make sets it
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=200, check=True
    )
    content = json.loads(file.read_text())
    assert content["folds"] == 1
    assert content["gradients"]["largest_difference"] < 1e-6
    shared, local, exact = content["trainings"]
    assert shared["auc"] > 0.89
    assert local["auc"] > 0.88
    assert exact["auc"] > exact["beside"]["averaged"]
    assert exact["auc"] == pytest.approx(exact["beside"]["pooled"], abs=1e-3)
    assert (shared["rounds"], local["rounds"]) == (10, 1)
    assert 4 * 10 * 89 < shared["bytes_sent"] < 100_000
    for training in (shared, local, exact):
        assert training["met"] is None
        assert 0.1 < training["cpu_microseconds_a_row"] < 10_000
        assert f"AUC {training['auc']:.4f}" in done.stdout
    assert "they were not judged" in done.stdout


def test_folds_are_those_of_the_reference_figures(benchmark: ModuleType) -> None:
    import hashlib

    folds = benchmark.fold_of("adult", 50)
    digest = hashlib.sha256(b"fold|adult|49").digest()
    assert folds[49] == int.from_bytes(digest[:8], "big") % 5
    assert set(folds) == {0, 1, 2, 3, 4}


def test_bars_are_judged_over_five_folds_on_both_sides(benchmark: ModuleType) -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(500) < 0.5).astype(float)
    table = benchmark.Table(
        labels[:, None] + rng.normal(size=(500, 1)),
        labels,
        np.arange(500) % 5,
        np.zeros(500, dtype=np.int64),
    )
    trained = benchmark.Trained(np.ones(1), {"averaged once": -np.ones(1)}, 3, 10, 20, 0.5)

    def judged(bar: float, folds: int = 5) -> dict[str, object]:
        contest = benchmark.Contest(
            "made up", lambda: table, benchmark.Table.dealt, lambda *_: trained, bar
        )
        result: dict[str, object] = benchmark.run(contest, folds, 2)
        return result

    good = judged(0.5)
    assert good["met"] is True
    assert judged(0.99)["met"] is False
    assert judged(0.5, folds=1)["met"] is None
    assert good["beside"] == {"averaged": pytest.approx(1.0 - good["auc"])}
    assert good["spread_over_seeds"] == 0.0
    assert good["spread_over_folds"] > 0.0
    assert good["cpu_microseconds_a_row"] == pytest.approx(1e6 * 0.5 / 400)
