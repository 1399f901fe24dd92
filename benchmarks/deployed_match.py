"""What a match of a gigabyte takes of every process of a deployment, memory above all.

A coordinator (`comity coordinator up`) and two nodes (`comity node up`) on loopback, with TLS and
keys for nodes, match two tables of e-mail addresses, half of them the same people: a point of 32
bytes for each of the learner's identifiers, and 12 and 32 back. 13,000,000 people on either side
say a gigabyte, which passes the coordinator in and out.

Printed: seconds; the bytes that the parties said; CPU-seconds and the most resident memory of each
part of the deployment, and of each kind of exchange. A wrong match fails the run; a missed bar is
printed. Linux only.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deployed import ROOT, started
from from_disk import FRESH
from match import BRAND, PARTNER, check_members, collaboration, said_bytes, write_tables
from psi_peers.contest import MB, WrongMatchError, cpu

from federation.trial.workspace import Workspace, prepare_workspace

FULL_SIZE = 13_000_000
MEMORY_BAR = 600 * MB


def written(given: argparse.Namespace, scratch: Path) -> Workspace:
    """Write both parties' tables, each in a process of its own, and all folders."""
    tables = given.tables or scratch / "tables"
    tables.mkdir(parents=True, exist_ok=True)
    for party in (BRAND, PARTNER):
        if (tables / f"{party}-consents.{given.format}").exists():  # it is written last
            continue
        writing = FRESH.Process(target=write_tables, args=(party, given.size, tables, given.format))
        writing.start()
        writing.join()
    document = collaboration(given.size, given.format, given.memory_limit)
    return prepare_workspace(document, tables / "match.toml", scratch / "workspace")


def measured(given: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Run the match; return every figure."""
    tell("writing tables, keys and the agreement")
    workspace = written(given, scratch)
    tell("starting a coordinator and two nodes")
    with started(workspace, scratch / "deployment", apart=True) as machine:
        tell("matching")
        figures = machine.measure("job-find", 0, patience=given.patience)
    check_members(workspace, given.size)
    return {
        "size": given.size,
        "format": given.format,
        "memory_limit": given.memory_limit,
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "said_bytes": said_bytes(workspace),
        "start": machine.start,
        **asdict(figures),
    }


def show(figures: Mapping[str, Any]) -> None:
    """Print the figures."""
    print(f"{figures['size']:,} x {figures['size']:,} rows, half of the people shared")
    print(f"memory_limit {figures['memory_limit']}; CPU: {figures['cpu']['model']}")
    row = "{:<22}{:>10}{:>10}".format
    print(row("", "CPU s", "peak MB"))
    for part, seconds in figures["cpu_seconds"].items():
        peak = figures["peak_bytes"].get(part, 0)
        print(row(part, f"{seconds:.1f}", f"{peak / MB:.0f}"))
    for name, size in figures["said_bytes"].items():
        print(f"said by {name}: {size / MB:.1f} MB")
    kinds: dict[str, list[float]] = {}
    for kind, seconds in figures["seconds"]:
        kinds.setdefault(kind, []).append(seconds)
    for kind, each in kinds.items():
        print(f"{kind:<22}{len(each):>6} exchanges, {sum(each):8.1f} s")
    print(f"Wall: {sum(sum(each) for each in kinds.values()):.1f} s; load {figures['load']:.1f}.")
    met = "met" if max(figures["peak_bytes"].values()) <= MEMORY_BAR else "missed"
    print(f"{met:<8}at most {MEMORY_BAR / MB:.0f} MB resident anywhere")


def tell(stage: str) -> None:
    """Say what is being done."""
    print(f"{time.strftime('%H:%M:%S')}  {stage}", file=sys.stderr)


def arguments(command: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  python benchmarks/deployed_match.py --size 65536",
    )
    parser.add_argument("--size", type=int, default=FULL_SIZE, help="rows of each party")
    parser.add_argument(
        "--format", choices=("parquet", "csv"), default="parquet", help="of the tables"
    )
    parser.add_argument("--tables", type=Path, help="kept here, and used if they are here")
    parser.add_argument("--memory-limit", default="512MiB", help="of the job")
    parser.add_argument("--patience", type=float, default=36_000, help="seconds for the job")
    parser.add_argument(
        "--json", type=Path, default=ROOT / "out" / "deployed-match.json", help="the same figures"
    )
    parsed = parser.parse_args(command)
    if parsed.size < 2:
        parser.error("--size needs 2 or more")
    return parsed


def main(command: Sequence[str] | None = None) -> int:
    """Measure, print and keep; 1 if the match was wrong."""
    given = arguments(command)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            figures = measured(given, Path(scratch))
    except WrongMatchError as error:
        print(f"wrong match: {error}", file=sys.stderr)
        return 1
    show(figures)
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"The same figures: {given.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
