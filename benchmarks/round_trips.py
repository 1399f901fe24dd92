"""How long a round trip takes over Flower: from the coordinator to three nodes and back.

A SuperLink and three nodes on loopback, with TLS and keys for nodes, are asked over and over which
party they are: a message that is verified, logged and answered, and computes nothing. Once with
`comity node up`, once with Flower's own `flower-supernode`, in the same run. Printed: median, 95th
percentile and maximum of all rounds; CPU-seconds of one node and of the coordinator with its
SuperLink, start included. Linux only; waiting is measured, so the machine should be quiet.
"""

import argparse
import hashlib
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flwr.cli.build import build_fab_from_disk
from match import Meter

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))  # a deployment is started as it is tested

APP = Path(__file__).resolve().parent / "round_trips_app"
MEDIAN_BAR = 0.3
P95_BAR = 1.0
OWN, STOCK = "comity node up", "flower-supernode"


def measured(given: argparse.Namespace, *, stock: bool, scratch: Path) -> dict[str, Any]:
    """Run the rounds; return their seconds, and the CPU-seconds of the nodes."""
    import deployment
    from trials import write_trial

    from federation.collaboration import load_collaboration
    from federation.trial.workspace import prepare_workspace

    scratch.mkdir()
    file = write_trial(scratch / "trial")
    workspace = prepare_workspace(load_collaboration(file), file, scratch / "workspace")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**deployment.TELEMETRY_OFF, "PATH": path, "OPENBLAS_NUM_THREADS": "1"}
    results = scratch / "rounds.json"
    digest = hashlib.sha256(build_fab_from_disk(APP)).hexdigest()
    with deployment.Processes(scratch / "flower", environment) as processes:
        deployed = deployment.Deployment(processes, scratch)
        with Meter(processes) as meter:
            deployed.start_nodes(workspace.people, stock=stock, options=["--allow-bundle", digest])
            rounds = given.stock_rounds if stock else given.rounds
            deployed.run(
                f'coordinator="{workspace.coordinator.path}" results="{results}" rounds={rounds} '
                f"pause-seconds={given.pause}",
                app=APP,
                seconds=60 + 30 * rounds,
            )
        names = [f"supernode-{folder.name}" for folder in workspace.people]
        used = [meter.usage(name) for name in names]
        coordinator = meter.usage("superlink")
    return {
        "seconds": json.loads(results.read_text()),
        "cpu_seconds": sum(one.cpu_seconds for one in used) / len(used),
        "coordinator_cpu_seconds": coordinator.cpu_seconds,
        "processes": max(one.processes for one in used),
        "peak_bytes": max(one.peak_bytes for one in used),
    }


def percentile(seconds: Sequence[float], share: float) -> float:
    """Return the smallest value that a share of all does not exceed."""
    return sorted(seconds)[min(int(share * len(seconds)), len(seconds) - 1)]


def show(figures: dict[str, Any]) -> None:
    """Print the figures and the bars."""
    row = "{:<18}{:>8}{:>10}{:>8}{:>8}{:>13}{:>13}".format
    heads = ("rounds", "median s", "p95 s", "max s", "CPU-s: node", "coordinator")
    print(row("", *heads))
    for name, one in figures.items():
        seconds = one["seconds"]
        times = (statistics.median(seconds), percentile(seconds, 0.95), max(seconds))
        used = one["cpu_seconds"], one["coordinator_cpu_seconds"]
        cells = [f"{cell:.2f}" for cell in times] + [f"{cell:.1f}" for cell in used]
        print(row(name, len(seconds), *cells))
    own = figures[OWN]["seconds"]
    for what, found, bar in (
        ("median", statistics.median(own), MEDIAN_BAR),
        ("95th percentile", percentile(own, 0.95), P95_BAR),
    ):
        print(f"{'met' if found <= bar else 'missed':<8}{what}: at most {bar:g} s")


def main(command: Sequence[str] | None = None) -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  python benchmarks/round_trips.py --rounds 20 --stock-rounds 0",
    )
    parser.add_argument("--rounds", type=int, default=100, help="with comity node up")
    parser.add_argument("--stock-rounds", type=int, default=10, help="with Flower's own; 0: none")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between two rounds")
    parser.add_argument(
        "--json", type=Path, default=ROOT / "out" / "round-trips.json", help="the same figures"
    )
    given = parser.parse_args(command)
    with tempfile.TemporaryDirectory() as scratch:
        figures = {OWN: measured(given, stock=False, scratch=Path(scratch) / "own")}
        if given.stock_rounds:
            figures[STOCK] = measured(given, stock=True, scratch=Path(scratch) / "stock")
    show(figures)
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
