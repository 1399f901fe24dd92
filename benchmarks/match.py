"""What a whole match job costs two parties, beside the protocol alone in the same run.

Two tables of e-mail addresses, half of them the same people, everybody consenting, are matched over
a SuperLink by two nodes (`comity node up`) on loopback, with TLS and keys for nodes: read, link,
normalise, hash, match, and keep the members. Then the protocol alone matches as many hashes.
Measured of every process, by its owner: CPU-seconds, and the most memory that one took; and the
bytes of what the parties said. A wrong match fails the run; a missed bar is printed. Linux only;
quote ratios, for absolute figures drift.
"""

import argparse
import os
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from from_disk import Usage, in_processes_of_their_own
from match_command import match_options, measure_match, parsed, tell
from processes import cpu_seconds, peak_bytes
from psi_peers.contest import MB, Engine, Sets, WrongMatchError, cpu, measure
from pyarrow import csv, parquet

from federation.collaboration import Collaboration
from federation.embedded import run_embedded
from federation.members import Members, load_people
from federation.specification import MatchSpec
from federation.trial.workspace import Workspace, prepare_workspace
from privacy.psi import PortableEngine
from privacy.psi.engines import EngineKind, choose_engine

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))  # a deployment is started as it is tested

FULL_SIZE = 1_000_000
RATIO_BAR = 2.0
PURPOSE = "lookalike-audiences"
BRAND, PARTNER, COORDINATOR = "brand", "retailer", "coordinator"
TOGETHER = "all"
DOMAINS = ("gmail.com", "gmx.net", "posteo.de")
LOOK_SECONDS = 0.05


class Meter(threading.Thread):
    """Looks at the processes of a deployment until it is told to stop.

    The kernel keeps a process's CPU time and peak memory as long as it is there, so what is missed
    of each is what it used after the last look.
    """

    def __init__(self, processes: Any) -> None:
        super().__init__(daemon=True)
        self._processes = processes
        self._ended = threading.Event()
        self._owner: dict[int, str] = {}
        self._seen: dict[int, tuple[float, int]] = {}

    def run(self) -> None:
        """Look again and again."""
        while not self._ended.wait(LOOK_SECONDS):
            for pid, environment in self._processes.environments():
                self._owner[pid] = Path(environment["FLWR_HOME"]).name
            for pid in self._owner:
                self._look(pid)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()

    def usage(self, owner: str) -> Usage:
        """Return what the processes used whose Flower home is called `owner`."""
        seen = [one for pid, one in self._seen.items() if self._owner[pid] == owner]
        return Usage(sum(one[0] for one in seen), max(one[1] for one in seen), len(seen))

    def _look(self, pid: int) -> None:
        peak = self._seen.get(pid, (0.0, 0))[1]
        with suppress(OSError):
            seconds, _ = cpu_seconds(pid)
            with suppress(IndexError):  # it has ended, and has no memory any more
                peak = peak_bytes(pid)
            self._seen[pid] = seconds, peak


def people(party: str, size: int) -> range:
    """Return the people whom a party knows: half of one party's are the other's too."""
    return range(size) if party == BRAND else range(size // 2, size // 2 + size)


def records(numbers: Sequence[int]) -> pa.Array:
    """Return a party's references of its people."""
    return pc.utf8_lpad(pa.array(numbers, pa.int64()).cast(pa.string()), 10, "0")


def write_tables(party: str, size: int, folder: Path, ending: str) -> None:
    """Write a party's people and consents; the brand writes addresses in its own way."""
    known = np.asarray(people(party, size))
    local = pc.binary_join_element_wise("ann.lee", pa.array(known).cast(pa.string()), "")
    domains = pa.array(DOMAINS).take(pa.array(known % len(DOMAINS)))
    address = pc.binary_join_element_wise(local, domains, "@")
    order = np.random.default_rng(len(party)).permutation(size)
    table = pa.table(
        {
            "record": records(known),
            "email": pc.utf8_upper(address) if party == BRAND else address,
        }
    ).take(order)
    book = pa.table({"subject": table["record"]})
    for name, value in (
        ("purpose", PURPOSE),
        ("event", "given"),
        ("time", "2025-06-01T00:00:00Z"),
    ):
        book = book.append_column(name, pa.array([value]).take(pa.array(np.zeros(size, np.int64))))
    for name, content in ((party, table), (f"{party}-consents", book)):
        file = folder / f"{name}.{ending}"
        if ending == "parquet":
            parquet.write_table(content, file)
        else:
            csv.write_csv(content, file)


def collaboration(size: int, ending: str, memory_limit: str) -> Collaboration:
    """Return a collaboration of one match."""

    def party(name: str, role: str) -> dict[str, Any]:
        if role == "coordinator":
            return {"name": name, "role": role}
        data = {"path": f"{name}.{ending}", "key": "record", "identifiers": {"email": "email"}}
        consent = f"{name}-consents.{ending}"
        return {"name": name, "role": role, "declared_rows": size, "data": data, "consent": consent}

    now = datetime.now(UTC)
    roles = {BRAND: "brand", PARTNER: "partner", COORDINATOR: "coordinator"}
    return Collaboration.model_validate(
        {
            "version": 1,
            "name": "match-benchmark",
            "parties": [party(name, role) for name, role in roles.items()],
            "jobs": [MatchSpec(name="find", memory_limit=memory_limit).model_dump()],
            "agreement": {
                "title": "One match",
                "purposes": [PURPOSE],
                "valid_from": now - timedelta(days=1),
                "valid_until": now + timedelta(days=1),
                "features": [{"name": "age", "type": "numeric", "minimum": 0, "maximum": 99}],
                "match": {
                    "purpose": PURPOSE,
                    "default_region": "US",
                    "email_rule": "provider_rules",
                    "keys": ["email"],
                    "linkage": "any-key",
                    "reveal": "partner-learns-members",
                    "minimum_match": 1,
                    "set_size_bucket": 1_000,
                },
                "train": {
                    "purpose": PURPOSE,
                    "models": ["logistic-regression"],
                    "epsilon": 1.0,
                    "delta": 1e-6,
                    "max_parties_per_person": 1,
                    "clipping_norm": 1.0,
                    "max_steps": 1,
                    "max_rounds": 1,
                },
                "expand": {"purpose": PURPOSE, "maximum_share": 0.5, "minimum_segment": 1},
                "budget": {"epsilon": 1.0, "delta": 1e-6},
            },
        }
    )


def check_members(workspace: Workspace, size: int) -> None:
    """Refuse a match that left the partner anybody but the people whom both know.

    Raises:
        WrongMatchError: with counts only.
    """
    (folder,) = workspace.partners
    members = Members.load(folder.members("find"), load_people(folder.job("find") / "people"))
    found = np.sort(members.references().cast(pa.int64()).to_numpy(zero_copy_only=False))
    both = np.arange(people(PARTNER, size).start, people(BRAND, size).stop)
    if not np.array_equal(found, both):
        raise WrongMatchError(f"expected the {len(both)} people of both, got {len(found)} others")


def run_deployed(
    workspace: Workspace, directory: Path, *, patience: float, stock: bool
) -> dict[str, Usage]:
    """Run the job over Flower; return what everybody's processes used."""
    import deployment

    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**deployment.TELEMETRY_OFF, "PATH": path}
    with (
        deployment.Processes(directory / "flower", environment) as processes,
        Meter(processes) as meter,
    ):
        deployed = deployment.Deployment(processes, directory)
        deployed.start_nodes(workspace.people, stock=stock)
        deployed.run(
            f'coordinator="{workspace.coordinator.path}" deadline-seconds={patience}',
            seconds=patience,
        )
    owners = {name: f"supernode-{name}" for name in (BRAND, PARTNER)} | {COORDINATOR: "superlink"}
    return {name: meter.usage(owner) for name, owner in owners.items()}


def run_in_one_process(workspace: Workspace) -> None:
    """Run the job with all parties in this process."""
    run_embedded(workspace.coordinator.path, [folder.path for folder in workspace.people])


def said_bytes(workspace: Workspace) -> dict[str, int]:
    """Return how many bytes each party has said, sealed; the coordinator carries them on."""
    said = {
        folder.name: sum(path.stat().st_size for path in folder.outbox.iterdir())
        for folder in workspace.people
    }
    return said | {TOGETHER: sum(said.values())}


def fastest_kind(size: int) -> EngineKind:
    """Return the engine that a party chooses for a match of this size."""
    engine = choose_engine(2 * size)
    portable = isinstance(engine, PortableEngine)
    return EngineKind.PORTABLE if portable else EngineKind(engine.instruction_set)


def arguments(command: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = match_options(
        __doc__, "match.py --size 100000 --embedded", size=FULL_SIZE, limit="1GiB", name="match"
    )
    parser.add_argument("--embedded", action="store_true", help="all parties in one process")
    parser.add_argument("--stock", action="store_true", help="by Flower's own flower-supernode")
    parser.add_argument("--format", choices=("csv", "parquet"), default="csv", help="of the tables")
    parser.add_argument("--patience", type=float, default=3_600, help="seconds for an exchange")
    return parsed(parser, command)


def main(command: Sequence[str] | None = None) -> int:
    """Measure, print and keep; 1 if a match was wrong."""
    return measure_match(arguments(command), measured, show)


def measured(given: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Run the job, then the protocol alone; return every figure."""
    tell("writing tables, keys and the agreement")
    tables = scratch / "tables"
    tables.mkdir()
    for party in (BRAND, PARTNER):
        write_tables(party, given.size, tables, given.format)
    document = collaboration(given.size, given.format, given.memory_limit)
    workspace = prepare_workspace(document, tables / "match.toml", scratch / "workspace")
    tell("matching in one process" if given.embedded else "matching over Flower")
    started = time.perf_counter()
    usage = (
        {TOGETHER: in_processes_of_their_own(run_in_one_process, (workspace,))[0]}
        if given.embedded
        else run_deployed(workspace, scratch, patience=given.patience, stock=given.stock)
    )
    wall = time.perf_counter() - started
    check_members(workspace, given.size)
    tell("matching by the protocol alone")
    kind = fastest_kind(given.size)
    alone = measure(
        Engine("comity.py", (kind.value,)),
        Path(sys.executable),
        Sets.write(given.size, scratch),
        workers=1,
    )
    tell("done")
    parties = sum(one.cpu_seconds for name, one in usage.items() if name != COORDINATOR)
    return {
        "size": given.size,
        "embedded": given.embedded,
        "stock": given.stock,
        "format": given.format,
        "memory_limit": given.memory_limit,
        "cpu": cpu(),
        "engine": kind.value,
        "usage": {name: asdict(one) for name, one in usage.items()},
        "said_bytes": said_bytes(workspace),
        "wall_seconds": wall,
        "parties_cpu_seconds": parties,
        "protocol": asdict(alone),
        "ratio": parties / alone.cpu_seconds,
    }


def show(figures: dict[str, Any]) -> bool:
    """Print the figures and the bar."""
    size, embedded = figures["size"], figures["embedded"]
    print(f"{size:,} x {size:,} rows of {figures['format']}, half of the people shared")
    print(f"CPU: {figures['cpu']['model']}; engine: {figures['engine']}")
    row = "{:<16}{:>9}{:>11}{:>10}{:>10}".format
    print(row("", "CPU s", "processes", "peak MB", "MB said"))
    for name, one in figures["usage"].items():
        said = figures["said_bytes"].get(name)
        cells = f"{one['cpu_seconds']:.1f}", one["processes"], f"{one['peak_bytes'] / MB:.0f}"
        print(row(name, *cells, "-" if said is None else f"{said / MB:.1f}"))
    alone = figures["protocol"]
    cells = f"{alone['cpu_seconds']:.1f}", 2, f"{alone['receiver_peak_bytes'] / MB:.0f}"
    wire = (alone["to_sender_bytes"] + alone["to_receiver_bytes"]) / MB
    print(row("protocol alone", *cells, f"{wire:.1f}"))
    print(f"Wall: {figures['wall_seconds']:.1f} s; {alone['wall_seconds']:.1f} s alone.")
    who = "all in one process" if embedded else "both parties"
    print(f"CPU of {who}: {figures['ratio']:.2f} x the protocol alone.")
    if size == FULL_SIZE and not embedded:
        met = "met" if figures["ratio"] <= RATIO_BAR else "missed"
        print(f"{met:<8}both parties: at most {RATIO_BAR:g} x the protocol alone")
    else:
        print(f"The bar is set for {FULL_SIZE:,} rows over Flower; it was not judged.")
    return True


if __name__ == "__main__":
    sys.exit(main())
