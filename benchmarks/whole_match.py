"""Whether a party keeps to a match's `memory_limit`, from its table to its list of members.

Brand and partner each have a process of their own, which answers every message of one match as
their nodes do: read the table, link records, decide on consents, normalise, hash, match bucket by
bucket, put the buckets together. A third one plays the coordinator; there is no Flower.
Measured of each party: CPU-seconds, and the most memory that it took for each kind of question,
against the limit. A wrong match, or a party beyond the limit, fails the run. Linux only.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from from_disk import FRESH
from match import (
    BRAND,
    MB,
    PARTNER,
    WrongMatchError,
    check_members,
    collaboration,
    cpu,
    write_tables,
)
from pydantic import ByteSize, TypeAdapter

from federation.channel import Parcel
from federation.coordinator import Coordinator
from federation.messages import SealedMessage, unseal
from federation.node import Node
from federation.trial.workspace import prepare_workspace

ROOT = Path(__file__).resolve().parent.parent
FULL_SIZE = 10_000_000
PARTIES = (BRAND, PARTNER)


def answer_messages(folder: Path, questions: Connection) -> None:
    """Answer as a party until None comes; tell of each answer what it cost."""
    while (question := questions.recv()) is not None:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        started = time.process_time()
        answer = Node.open(folder).handle(question).message
        peak = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
        questions.send((answer, time.process_time() - started, 1024 * int(peak)))


@dataclass
class Cost:
    """What a party's answers to one kind of question cost, and how many there were."""

    answers: int = 0
    cpu_seconds: float = 0.0
    peak_bytes: int = 0


@dataclass
class Bench:
    """A channel to two parties in processes of their own."""

    agreement: Any
    parties: Sequence[Connection]
    costs: dict[str, dict[str, Cost]] = field(
        default_factory=lambda: {name: {} for name in PARTIES}
    )

    def nodes(self, at_least: int, **_patience: float) -> Sequence[int]:
        """Return both."""
        return range(max(at_least, len(self.parties)))

    def exchange(
        self,
        parcels: Sequence[Parcel],
        *,
        most_missing: int = 0,  # noqa: ARG002 -- a party that is missing fails the run
    ) -> Sequence[SealedMessage]:
        """Ask one party after the other."""
        return [self._ask(parcel.node, parcel.message) for parcel in parcels]

    def _ask(self, node: int, question: SealedMessage) -> SealedMessage:
        kind = unseal(question, self.agreement).header.kind
        self.parties[node].send(question)
        try:
            answer, seconds, peak = self.parties[node].recv()
        except EOFError:
            raise WrongMatchError(f"{PARTIES[node]} ended before it answered") from None
        cost = self.costs[PARTIES[node]].setdefault(kind, Cost())
        cost.answers += 1
        cost.cpu_seconds += seconds
        cost.peak_bytes = max(cost.peak_bytes, peak)
        print(f"{PARTIES[node]}: {kind}, {seconds:.1f} CPU-s, {peak / MB:.0f} MB", file=sys.stderr)
        return answer


def arguments(command: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  python benchmarks/whole_match.py --size 1000000",
    )
    parser.add_argument("--size", type=int, default=FULL_SIZE, help="rows of each party")
    parser.add_argument("--format", choices=("csv", "parquet"), default="csv", help="of the tables")
    parser.add_argument("--memory-limit", default="1GiB", help="of the job")
    parser.add_argument(
        "--json", type=Path, default=ROOT / "out" / "whole-match.json", help="the same figures"
    )
    parsed = parser.parse_args(command)
    if parsed.size < 2:
        parser.error("--size needs 2 or more")
    return parsed


def main(command: Sequence[str] | None = None) -> int:
    """Measure, print and keep; 1 if a match was wrong or a party took too much."""
    given = arguments(command)
    limit = TypeAdapter(ByteSize).validate_python(given.memory_limit)
    begun = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            costs = measured(given, Path(scratch))
    except WrongMatchError as error:
        print(f"wrong match: {error}", file=sys.stderr)
        return 1
    wall = time.perf_counter() - begun
    print(f"{given.size:,} x {given.size:,} rows of {given.format}, half of the people shared")
    row = "{:<10}{:<16}{:>8}{:>9}{:>10}".format
    print(row("", "question", "answers", "CPU s", "peak MB"))
    for name, kinds in costs.items():
        for kind, cost in kinds.items():
            cells = cost.answers, f"{cost.cpu_seconds:.1f}", f"{cost.peak_bytes / MB:.0f}"
            print(row(name, kind, *cells))
    peaks = {name: max(cost.peak_bytes for cost in kinds.values()) for name, kinds in costs.items()}
    kept = max(peaks.values()) <= limit
    for name, peak in peaks.items():
        seconds = sum(cost.cpu_seconds for cost in costs[name].values())
        print(f"{name}: {seconds:.1f} CPU-s, {peak / MB:.0f} MB of {limit / MB:.0f} MB at its peak")
    print(f"{'met' if kept else 'missed':<8}memory_limit of {given.memory_limit}")
    print(f"Wall: {wall:.1f} s.")
    content = {
        "size": given.size,
        "format": given.format,
        "memory_limit": given.memory_limit,
        "cpu": cpu(),
        "usage": {
            name: {kind: vars(cost) for kind, cost in kinds.items()}
            for name, kinds in costs.items()
        },
        "peak_bytes": peaks,
        "wall_seconds": wall,
    }
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(content, indent=2) + "\n")
    print(f"The same figures: {given.json}")
    return 0 if kept else 1


def measured(given: argparse.Namespace, scratch: Path) -> dict[str, dict[str, Cost]]:
    """Run the match; return what each party's answers cost."""
    tables = scratch / "tables"
    tables.mkdir()
    for party in PARTIES:
        written = FRESH.Process(target=write_tables, args=(party, given.size, tables, given.format))
        written.start()
        written.join()
    document = collaboration(given.size, given.format, given.memory_limit)
    workspace = prepare_workspace(document, tables / "match.toml", scratch / "workspace")
    ends = []
    for folder in workspace.people:
        ours, theirs = FRESH.Pipe()
        FRESH.Process(target=answer_messages, args=(folder.path, theirs), daemon=True).start()
        theirs.close()
        ends.append(ours)
    bench = Bench(workspace.agreement, ends)
    Coordinator.open(workspace.coordinator.path).run(bench)
    for end in ends:
        end.send(None)
    check_members(workspace, given.size)
    return bench.costs


if __name__ == "__main__":
    sys.exit(main())
