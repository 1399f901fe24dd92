"""The benchmark of matching measures what it says: run small, with Comity's own engines."""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SIZE = 1 << 10


@pytest.fixture
def contest(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that measures, found as the benchmark finds it."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    from psi_peers import contest

    return contest


@pytest.fixture
def benchmark(contest: ModuleType) -> ModuleType:
    """The benchmark itself, which imports `contest`."""
    import psi

    return psi


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, BENCHMARKS / "psi.py", "--size", str(SIZE), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def test_two_processes_match_and_their_figures_are_sane(tmp_path: Path) -> None:
    own = ["portable", "sse"]
    done = run("--only", "plain", *own, "--json", str(tmp_path / "psi.json"))
    content = json.loads((tmp_path / "psi.json").read_text())
    engines = content["engines"]
    assert list(engines) == ["plain", *own]
    framing = 100
    for figures in (engines[name] for name in own):
        assert 0 <= figures["to_sender_bytes"] - 32 * SIZE < framing
        assert 0 <= figures["to_receiver_bytes"] - (12 + 32) * SIZE < framing
        assert 20e6 < figures["receiver_peak_bytes"] < 330e6
        assert 20e6 < figures["sender_peak_bytes"] < 330e6
        assert 0 < figures["startup_cpu_seconds"] < figures["cpu_seconds"] < 60
        assert f"{figures['cpu_seconds']:.2f}" in done.stdout
    assert engines["plain"]["cpu_seconds"] < engines["portable"]["cpu_seconds"]
    assert content["bars"] == {}
    assert "no bar was judged" in done.stdout
    assert "takes the portable engine" in done.stdout


def test_peers_are_left_out_on_request(tmp_path: Path) -> None:
    run("--only", "plain", "openmined", "--skip-peers", "--json", str(tmp_path / "psi.json"))
    assert list(json.loads((tmp_path / "psi.json").read_text())["engines"]) == ["plain"]


def test_the_found_people_must_be_exactly_the_shared_ones(
    contest: ModuleType, tmp_path: Path
) -> None:
    sets = contest.Sets.write(4, tmp_path)
    shared = [row for row, digest in enumerate(sets.receiver) if digest in sets.shared]
    (other, _) = [row for row in range(4) if row not in shared]

    def check(rows: list[int]) -> None:
        np.array(rows, np.int64).tofile(tmp_path / "found.rows")
        sets.check_found(tmp_path)

    check(shared[::-1])
    for wrong in ([shared[0]], [shared[0], other], [*shared, other], [*shared, shared[0]]):
        with pytest.raises(contest.WrongMatchError, match="expected the 2 shared"):
            check(wrong)


def test_a_table_of_a_peer_is_checked_like_rows(contest: ModuleType, tmp_path: Path) -> None:
    sets = contest.Sets.write(4, tmp_path)
    table = tmp_path / "receiver-found.csv"
    table.write_text("\n".join(["id", *map(bytes.hex, sets.shared)]))
    sets.check_found(tmp_path)
    table.write_text("\n".join(["id", *map(bytes.hex, sets.receiver)]))
    with pytest.raises(contest.WrongMatchError, match="got 4, 2 of them not shared"):
        sets.check_found(tmp_path)


def test_a_party_that_fails_stops_the_other_and_fails_the_run(
    contest: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "sets").mkdir()
    sets = contest.Sets.write(4, tmp_path / "sets")
    (tmp_path / "sets" / "sender.tokens").unlink()
    begun = time.monotonic()
    with pytest.raises(contest.WrongMatchError, match="the sender ended with 1"):
        contest.measure(contest.Engine("plain.py"), Path(sys.executable), sets, workers=1)
    assert time.monotonic() - begun < 30, "the receiver was left to its own patience"
    processes = Path("/proc").glob("[0-9]*/cmdline")
    assert not [one for one in processes if str(tmp_path).encode() in one.read_bytes()]


def test_a_wrong_match_is_not_measured(contest: ModuleType, tmp_path: Path) -> None:
    sets = replace(contest.Sets.write(4, tmp_path), shared=())
    with pytest.raises(contest.WrongMatchError, match="expected the 0 shared"):
        contest.measure(contest.Engine("plain.py"), Path(sys.executable), sets, workers=1)


def test_a_failed_engine_fails_the_run_and_an_unavailable_one_does_not(
    benchmark: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["--size", "4", "--only", "plain", "--json", str(tmp_path / "psi.json")]
    monkeypatch.setitem(benchmark.ENGINES, "plain", benchmark.Engine("comity.py", ("steam",)))
    assert benchmark.main(command) == 1
    lacking = benchmark.Engine("plain.py", features=("avx1024",))
    monkeypatch.setitem(benchmark.ENGINES, "plain", lacking)
    assert benchmark.main(command) == 0
    assert "not run: plain: this CPU has no avx1024" in capsys.readouterr().out


def test_what_an_engine_lacks_is_named(contest: ModuleType) -> None:
    with pytest.raises(contest.UnavailableError, match="this CPU has no avx1024"):
        contest.interpreter_for(contest.Engine("comity.py", features=("avx1024",)))
    with pytest.raises(contest.UnavailableError, match="no_such_module is not installed"):
        contest.interpreter_for(contest.Engine("comity.py", module="no_such_module"))
    with pytest.raises(contest.UnavailableError, match="needs Python 2"):
        contest.python_for(contest.Engine("spu.py", requirement="spu", pythons=("2.7x",)))


def test_bars_are_judged_on_both_sides_of_their_limits(benchmark: ModuleType) -> None:
    def costing(cpu_seconds: float, peak: float = 0, sent: float = 0) -> object:
        return benchmark.Measurement(1 << 20, cpu_seconds, 0, 0, peak, 0, sent, 0)

    good = {"avx512_ifma": costing(36.9, 329e6, 83e6), "secretflow-ecdh": costing(37.0)}
    bad = {"avx512_ifma": costing(37.1, 331e6, 85e6), "secretflow-ecdh": costing(37.0)}
    for measured, met in ((good, True), (bad, False)):
        verdicts = benchmark.judge(measured)
        judged = {bar: verdict for bar, verdict in verdicts.items() if verdict is not None}
        assert set(judged) == {bar for bar in verdicts if bar.startswith("avx512_ifma: ")}
        assert list(judged.values()) == 4 * [met]


def test_the_table_rates_against_the_best_peer_and_not_the_floor(benchmark: ModuleType) -> None:
    seconds = {"plain": 1.0, "portable": 30.0, "secretflow-rr22": 10.0, "openmined": 40.0}
    printed = benchmark.table(
        {name: benchmark.Measurement(1 << 20, cost, *6 * [0]) for name, cost in seconds.items()}
    )
    assert "Best peer: secretflow-rr22." in printed
    ratios = [line.split()[-1] for line in printed.splitlines()[1:5]]
    assert ratios == ["0.10", "3.00", "1.00", "4.00"]
