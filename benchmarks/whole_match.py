"""Whether a party keeps to a match's `memory_limit`, from its table to its list of members.

Brand and partner each have a process of their own, which answers every message of one match as
their nodes do: read the table, link records, decide on consents, normalise, hash, match bucket by
bucket, put the buckets together. A third one plays the coordinator; there is no Flower.
Measured of each party: CPU-seconds, and the most memory that it took for each kind of question,
against the limit. A wrong match, or a party beyond the limit, fails the run. Linux only.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from from_disk import FRESH
from match import BRAND, PARTNER, check_members, collaboration, write_tables
from match_command import match_options, measure_match, parsed
from processes import forget_peak, peak_bytes
from psi_peers.contest import MB, WrongMatchError, cpu
from pydantic import ByteSize, TypeAdapter

from federation.channel import Parcel
from federation.coordinator import Coordinator
from federation.messages import SealedMessage, unseal
from federation.node import Node
from federation.trial.workspace import prepare_workspace

FULL_SIZE = 10_000_000
PARTIES = (BRAND, PARTNER)


def answer_messages(folder: Path, questions: Connection) -> None:
    """Answer as a party until None comes; tell of each answer what it cost."""
    while (question := questions.recv()) is not None:
        forget_peak("self")
        started = time.process_time()
        answer = Node.open(folder).handle(question).message
        questions.send((answer, time.process_time() - started, peak_bytes("self")))


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


def main(command: Sequence[str] | None = None) -> int:
    """Measure, print and keep; 1 if a match was wrong or a party took too much."""
    parser = match_options(
        __doc__,
        "whole_match.py --size 1000000",
        size=FULL_SIZE,
        limit="1GiB",
        name="whole-match",
    )
    parser.add_argument("--format", choices=("csv", "parquet"), default="csv", help="of the tables")
    return measure_match(parsed(parser, command), measured, show)


def measured(given: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Run the match; return every figure."""
    begun = time.perf_counter()
    costs = matched(given, scratch)
    return {
        "size": given.size,
        "format": given.format,
        "memory_limit": given.memory_limit,
        "cpu": cpu(),
        "usage": {
            name: {kind: vars(cost) for kind, cost in kinds.items()}
            for name, kinds in costs.items()
        },
        "peak_bytes": {
            name: max(cost.peak_bytes for cost in kinds.values()) for name, kinds in costs.items()
        },
        "wall_seconds": time.perf_counter() - begun,
    }


def show(figures: dict[str, Any]) -> bool:
    """Print the figures, and tell whether both parties kept to the limit."""
    size, peaks = figures["size"], figures["peak_bytes"]
    print(f"{size:,} x {size:,} rows of {figures['format']}, half of the people shared")
    row = "{:<10}{:<16}{:>8}{:>9}{:>10}".format
    print(row("", "question", "answers", "CPU s", "peak MB"))
    for name, kinds in figures["usage"].items():
        for kind, cost in kinds.items():
            cells = f"{cost['cpu_seconds']:.1f}", f"{cost['peak_bytes'] / MB:.0f}"
            print(row(name, kind, cost["answers"], *cells))
    limit = TypeAdapter(ByteSize).validate_python(figures["memory_limit"])
    for name, peak in peaks.items():
        seconds = sum(cost["cpu_seconds"] for cost in figures["usage"][name].values())
        print(f"{name}: {seconds:.1f} CPU-s, {peak / MB:.0f} MB of {limit / MB:.0f} MB at its peak")
    kept: bool = max(peaks.values()) <= limit
    print(f"{'met' if kept else 'missed':<8}memory_limit of {figures['memory_limit']}")
    print(f"Wall: {figures['wall_seconds']:.1f} s.")
    return kept


def matched(given: argparse.Namespace, scratch: Path) -> dict[str, dict[str, Cost]]:
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
