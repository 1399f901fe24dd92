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
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deployed import started
from from_disk import FRESH
from match import BRAND, PARTNER, check_members, collaboration, said_bytes, write_tables
from match_command import match_options, measure_match, parsed, tell
from psi_peers.contest import MB, cpu

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


def show(figures: dict[str, Any]) -> bool:
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
    return True


def arguments(command: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = match_options(
        __doc__,
        "deployed_match.py --size 65536",
        size=FULL_SIZE,
        limit="512MiB",
        name="deployed-match",
    )
    parser.add_argument(
        "--format", choices=("parquet", "csv"), default="parquet", help="of the tables"
    )
    parser.add_argument("--tables", type=Path, help="kept here, and used if they are here")
    parser.add_argument("--patience", type=float, default=36_000, help="seconds for the job")
    return parsed(parser, command)


def main(command: Sequence[str] | None = None) -> int:
    """Measure, print and keep; 1 if the match was wrong."""
    return measure_match(arguments(command), measured, show)


if __name__ == "__main__":
    sys.exit(main())
