"""What a deployment costs: exchanges, blobs, a job's rounds, start-up and memory, on one machine.

A coordinator and three nodes on loopback, with TLS and keys for nodes, are measured in stages:
exchanges that compute nothing; blobs of 32 MB from a brand to a partner and back; a gibibyte in
blobs as large as a message may be; a training of ten rounds, beside the same one in one process.
Once with `comity coordinator up` and `comity node up`, once with Flower's own commands and waiting
(no gibibyte, no training), in the same run. Blobs are repeated by the nodes, not computed (see
`deploy_app/deploy_app/planting.py`).

Printed: seconds; CPU-seconds of all processes; memory by process, as the most that was resident;
the machine's load. Waiting is measured, so the machine should be quiet; quote ratios. Linux only.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deployed import ROOT, ROUNDS_OF_JOB, Figures, Machine, started, write_workspace
from psi_peers.contest import cpu

from compliance.agreement import MOST_PARTIES
from federation.embedded import EmbeddedGrid
from federation.trial.workspace import Workspace

MB = 1_000_000
BLOB_BYTES = 32 * MB
LARGEST_BLOB_BYTES = (64 << 20) - (1 << 16)
VOLUME_BYTES = 1 << 30
OWN, STOCK = "comity", "flower"
MEDIAN_BAR, P95_BAR, BLOB_BAR, MEMORY_BAR = 0.3, 1.0, 4.0, 600 * MB


def percentile(seconds: Sequence[float], share: float) -> float:
    """Return the smallest value that a share of all does not exceed."""
    return sorted(seconds)[min(int(share * len(seconds)), len(seconds) - 1)]


def plant(workspace: Workspace, stage: str, count: int, size: int) -> None:
    """Have brand and retailer know blobs that they repeat."""
    from deploy_app.planting import plant as planted

    people = {folder.name: folder for folder in workspace.people}
    for number in range(count):
        job = f"{stage}-{number}"
        planted(workspace.coordinator, people["brand"], people["retailer"], job=job, size=size)


def measured(
    given: argparse.Namespace, machine: Machine, workspace: Workspace
) -> dict[str, Figures]:
    """Go through the stages; return the figures of each."""
    found = {}

    def measure(stage: str, count: int, *, pause: float = 0.0) -> None:
        tell(f"{STOCK if machine.stock else OWN}: {stage}")
        figures = machine.measure(stage, count, pause=pause)
        found[stage] = figures
        used = {part: round(seconds, 1) for part, seconds in figures.cpu_seconds.items() if seconds}
        tell(f"CPU-s {used}, load {figures.load:.1f}")

    rounds = given.stock_rounds if machine.stock else given.rounds
    measure("rounds", rounds, pause=given.pause)
    if given.nodes > 3:
        return found
    blobs = min(given.blobs, 2) if machine.stock else given.blobs
    plant(workspace, "blobs", blobs, given.blob_bytes)
    measure("blobs", blobs)
    if given.volume_bytes and not machine.stock:
        pieces = -(-given.volume_bytes // (2 * given.piece_bytes))
        plant(workspace, "volume", pieces, given.piece_bytes)
        measure("volume", pieces)
    if given.job and not machine.stock:
        measure("job-find", 0)
        measure("job-model", 0)
    return found


def embedded_job(directory: Path, results: Path) -> None:
    """Run the job in this process, and write down its exchanges."""
    from deploy_app.timing import TimedChannel

    from federation.channel import GridChannel
    from federation.coordinator import Coordinator

    workspace = write_workspace(directory, nodes=3)
    coordinator = Coordinator.open(workspace.coordinator.path)
    grid = EmbeddedGrid([folder.path for folder in workspace.people])
    coordinator.run(GridChannel(grid), only=["find"])
    timed = TimedChannel(GridChannel(grid), workspace.agreement)
    before = time.process_time()
    coordinator.run(timed, only=["model"])
    used = time.process_time() - before
    grid.close()
    results.write_text(json.dumps({"seconds": timed.exchanges, "cpu_seconds": used}))


def in_one_process(scratch: Path) -> dict[str, Any]:
    """Run the job in a process of its own; return what it took."""
    tell("the job in one process")
    results = scratch / "embedded.json"
    fresh = multiprocessing.get_context("spawn")
    process = fresh.Process(target=embedded_job, args=(scratch / "embedded", results))
    process.start()
    process.join()
    content: dict[str, Any] = json.loads(results.read_text())
    return content


def tell(stage: str) -> None:
    """Say what is being done."""
    print(f"{time.strftime('%H:%M:%S')}  {stage}", file=sys.stderr)


def round_seconds(exchanges: Sequence[Sequence[Any]]) -> float:
    """Return the median of a training's rounds."""
    return statistics.median(seconds for kind, seconds in exchanges if kind == "train.request")


def show(content: Mapping[str, Any]) -> None:
    """Print the figures."""
    row = "{:<26}{:>8}{:>10}{:>10}{:>10}{:>12}{:>8}".format
    print(f"{content['nodes']} nodes; CPU: {content['cpu']['model']}")
    print(row("", "count", "median s", "p95 s", "max s", "CPU-s each", "load"))
    for name, one in content["deployments"].items():
        for stage, figures in one["stages"].items():
            seconds = figures["seconds"]
            if stage.startswith("job"):
                seconds = [cell for kind, cell in seconds if kind == "train.request"]
            if not seconds:
                continue
            times = statistics.median(seconds), percentile(seconds, 0.95), max(seconds)
            each = sum(figures["cpu_seconds"].values()) / len(seconds)
            cells = [*(f"{cell:.3f}" for cell in times), f"{each:.3f}", f"{figures['load']:.1f}"]
            print(row(f"{name}: {stage}", len(seconds), *cells))
    for name, one in content["deployments"].items():
        start = one["start"]
        begin = statistics.median(each["begin_seconds"] for each in one["stages"].values())
        used = ", ".join(
            f"{part} {each:.1f}" for part, each in start["cpu_seconds"].items() if each
        )
        print(
            f"{name}: coordinator up in {start['coordinator_seconds']:.1f} s, nodes in "
            f"{start['nodes_seconds']:.1f} s, a run begins in {begin:.1f} s; CPU-s: {used}"
        )
        for stage, figures in one["stages"].items():
            sizes = (f"{part} {size / MB:.0f}" for part, size in figures["peak_bytes"].items())
            print(f"{name}: {stage}: peak MB: {', '.join(sizes)}")
        sizes = (f"{part} {size / MB:.0f}" for part, size in one["shares"].items())
        print(f"{name}: at rest, shared pages by their share, all of a kind: {', '.join(sizes)} MB")


def bars(content: Mapping[str, Any]) -> dict[str, bool]:
    """Return which bars are met."""
    stages = content["deployments"][OWN]["stages"]
    found = {}
    if content["nodes"] == 3:
        rounds = stages["rounds"]["seconds"]
        found |= {
            f"round trip: median at most {MEDIAN_BAR:g} s": statistics.median(rounds) <= MEDIAN_BAR,
            f"round trip: p95 at most {P95_BAR:g} s": percentile(rounds, 0.95) <= P95_BAR,
        }
    if "blobs" in stages and content["blob_bytes"] == BLOB_BYTES:
        median = statistics.median(stages["blobs"]["seconds"])
        found[f"32 MB there and back: at most {BLOB_BAR:g} s"] = median <= BLOB_BAR
    if "volume" in stages and content["volume_bytes"] == VOLUME_BYTES:
        peak = max(stages["volume"]["peak_bytes"].values())
        found[f"1 GiB: at most {MEMORY_BAR / MB:.0f} MB resident anywhere"] = peak <= MEMORY_BAR
    return found


def arguments(command: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  python benchmarks/deploy.py --nodes 20 --stock-rounds 0",
    )
    parser.add_argument("--nodes", type=int, default=3, help="above 3: exchanges alone")
    parser.add_argument("--rounds", type=int, default=100, help="of Comity")
    parser.add_argument("--stock-rounds", type=int, default=5, help="of Flower; 0: leave it out")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between two rounds")
    parser.add_argument("--blobs", type=int, default=5, help="how many go there and back")
    parser.add_argument("--blob-bytes", type=int, default=BLOB_BYTES, help="of each")
    parser.add_argument("--volume-bytes", type=int, default=VOLUME_BYTES, help="in all; 0: none")
    parser.add_argument("--piece-bytes", type=int, default=LARGEST_BLOB_BYTES, help="of each of it")
    parser.add_argument("--no-job", dest="job", action="store_false", help="train nothing")
    parser.add_argument(
        "--json", type=Path, default=ROOT / "out" / "deploy.json", help="the same figures"
    )
    parsed = parser.parse_args(command)
    if not 2 <= parsed.nodes < MOST_PARTIES:
        parser.error(f"--nodes: expected 2 to {MOST_PARTIES - 1}")
    return parsed


def main(command: Sequence[str] | None = None) -> None:
    """Measure, print and keep."""
    given = arguments(command)
    content: dict[str, Any] = {
        "nodes": given.nodes,
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "blob_bytes": given.blob_bytes,
        "volume_bytes": given.volume_bytes,
        "deployments": {},
    }
    with tempfile.TemporaryDirectory() as made:
        scratch = Path(made)
        for name in (OWN, STOCK) if given.stock_rounds else (OWN,):
            tell(f"{name}: starting")
            workspace = write_workspace(scratch / f"{name}-parties", nodes=given.nodes)
            with started(workspace, scratch / name, stock=name == STOCK) as machine:
                figures = measured(given, machine, workspace)
                content["deployments"][name] = {
                    "start": machine.start,
                    "stages": {stage: asdict(one) for stage, one in figures.items()},
                    "shares": machine.footprint.shares(),
                }
        if given.job and given.nodes == 3:
            content["embedded"] = in_one_process(scratch)
    content["bars"] = bars(content)
    show(content)
    if "embedded" in content:
        alone = round_seconds(content["embedded"]["seconds"])
        for name, one in content["deployments"].items():
            if "job-model" not in one["stages"]:
                continue
            over = round_seconds(one["stages"]["job-model"]["seconds"])
            print(
                f"{name}: a round of {ROUNDS_OF_JOB} takes {over:.2f} s, {alone:.2f} s in one "
                f"process: {over - alone:.2f} s more"
            )
    for bar, is_met in content["bars"].items():
        print(f"{'met' if is_met else 'missed':<8}{bar}")
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
