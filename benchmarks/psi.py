"""What a private match costs, beside other engines in the same run.

Two sets of SHA-256-hashed e-mails, half of them shared, are matched by two processes on loopback.
Measured: CPU-seconds of both parties together, and of each its peak memory and the bytes it
received. A wrong match fails the run; a missed bar is printed. Peers are installed below
.venv-bench, never beside Comity. Linux only; quote ratios, for absolute figures drift.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from psi_peers.contest import (
    MB,
    Engine,
    Measurement,
    Sets,
    UnavailableError,
    WrongMatchError,
    cpu,
    interpreter_for,
    measure,
)

from privacy.psi.engines import GENERATION_PAYS_FROM

ROOT = Path(__file__).resolve().parent.parent
FULL_SIZE = 1 << 20

ENGINES = {
    "plain": Engine("plain.py"),
    "avx512_ifma": Engine("comity.py", ("avx512_ifma",), "llvmlite", ("avx512f", "avx512ifma")),
    "avx512": Engine("comity.py", ("avx512",), "llvmlite", ("avx512f",), by_default=False),
    "avx2": Engine("comity.py", ("avx2",), "llvmlite", ("avx2",)),
    "sse": Engine("comity.py", ("sse",), "llvmlite", by_default=False),
    "portable": Engine("comity.py", ("portable",)),
    "secretflow-ecdh": Engine(
        "secretflow.py", ("ecdh",), requirement="spu==0.9.5", pythons=("3.11", "3.10")
    ),
    "secretflow-rr22": Engine(
        "secretflow.py", ("rr22",), requirement="spu==0.9.5", pythons=("3.11", "3.10")
    ),
    "rr22": Engine("comity_rr22.py", ("1GiB",), program="spu==0.9.5", pythons=("3.11", "3.10")),
    "rr22-2GiB": Engine(
        "comity_rr22.py",
        ("2GiB",),
        program="spu==0.9.5",
        pythons=("3.11", "3.10"),
        by_default=False,
    ),
    "openmined": Engine("openmined.py", requirement="openmined-psi==2.0.6"),
}

CPU_SECONDS_BARS = {"avx512_ifma": 37.0, "avx2": 95.0, "portable": 300.0}
PEAK_MB_BAR, WIRE_MB_BAR = 330.0, 84.0
RIVAL_BARS = (
    ("avx512_ifma", 1.0, "secretflow-ecdh"),
    ("portable", 1.0, "openmined"),
    ("rr22", 1.15, "secretflow-rr22"),
)


def judge(measured: dict[str, Measurement]) -> dict[str, bool | None]:
    """Return whether each bar at the full size was met; None where it was not measured."""
    verdicts: dict[str, bool | None] = {}
    for name, limit in CPU_SECONDS_BARS.items():
        got = measured.get(name)
        verdicts[f"{name}: at most {limit:g} CPU-s"] = got and got.cpu_seconds <= limit
    for name, factor, rival in RIVAL_BARS:
        got, against = measured.get(name), measured.get(rival)
        text = f"{name}: CPU-s below {factor:g} x {rival}"
        verdicts[text] = got and against and got.cpu_seconds < factor * against.cpu_seconds
    for name, got in measured.items():
        if ENGINES[name].runner == "comity.py":
            verdicts[f"{name}: at most {PEAK_MB_BAR:g} MB a party"] = got.peak_mb <= PEAK_MB_BAR
            verdicts[f"{name}: at most {WIRE_MB_BAR:g} MB sent"] = got.wire_mb <= WIRE_MB_BAR
    return verdicts


def table(measured: dict[str, Measurement]) -> str:
    """Return the figures, one engine a line."""
    peers = {name: one.cpu_seconds for name, one in measured.items() if ENGINES[name].requirement}
    best = min(peers, key=peers.__getitem__, default=None)
    row = "{:<16}{:>9}{:>10}{:>9}{:>11}{:>13}{:>15}{:>13}".format
    heads = ("CPU s", "start-up", "wall s", "CPU us/id", "peak MB", "MB sent", "x best peer")
    lines = [row("engine", *heads)]
    for name, one in measured.items():
        figures = (
            f"{one.cpu_seconds:.2f}",
            f"{one.startup_cpu_seconds:.2f}",
            f"{one.wall_seconds:.1f}",
            f"{one.cpu_microseconds:.1f}",
            f"{one.receiver_peak_bytes / MB:.0f} + {one.sender_peak_bytes / MB:.0f}",
            f"{one.to_sender_bytes / MB:.1f} + {one.to_receiver_bytes / MB:.1f}",
            f"{one.cpu_seconds / peers[best]:.2f}" if best else "-",
        )
        lines.append(row(name, *figures))
    lines.append(
        "CPU of both parties, start-up included; per identifier of each. Memory: receiver + sender."
    )
    lines.append(
        "Sent: by the receiver + by the sender. plain is no private match, only the floor."
    )
    if best:
        lines.append(f"Best peer: {best}.")
    return "\n".join(lines)


def arguments(command: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  python benchmarks/psi.py --size 65536 --only avx2 secretflow-ecdh",
    )
    parser.add_argument("--size", type=int, default=FULL_SIZE, help="identifiers of each party")
    parser.add_argument(
        "--only", nargs="+", choices=ENGINES, metavar="ENGINE", help=", ".join(ENGINES)
    )
    parser.add_argument("--skip-peers", action="store_true", help="nothing that needs installing")
    parser.add_argument("--workers", type=int, default=1, help="threads of each of our parties")
    parser.add_argument(
        "--json", type=Path, default=ROOT / "out" / "psi.json", help="the same figures"
    )
    parsed = parser.parse_args(command)
    if parsed.size < 2 or parsed.workers < 1:
        parser.error("--size needs 2 or more, --workers 1 or more")
    return parsed


def main(command: Sequence[str] | None = None) -> int:
    """Measure, print and keep; 1 if a match was wrong."""
    given = arguments(command)
    names = given.only or [name for name, engine in ENGINES.items() if engine.by_default]
    measured: dict[str, Measurement] = {}
    absent: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        sets = Sets.write(given.size, Path(scratch))
        for name in names:
            engine = ENGINES[name]
            if given.skip_peers and (engine.requirement or engine.program):
                continue
            try:
                interpreter = interpreter_for(engine)
                print(f"measuring {name}", file=sys.stderr)
                measured[name] = measure(engine, interpreter, sets, workers=given.workers)
            except UnavailableError as error:
                absent[name] = str(error)
            except WrongMatchError as error:
                print(f"{name}: {error}", file=sys.stderr)
                return 1
    show(given, measured, absent)
    return 0


def show(
    given: argparse.Namespace, measured: dict[str, Measurement], absent: dict[str, str]
) -> None:
    """Print the figures and the bars, and write both to the file."""
    processor = cpu()
    verdicts = judge(measured) if given.size == FULL_SIZE else {}
    print(f"{given.size:,} x {given.size:,} identifiers, half of them shared")
    print(f"CPU: {processor['model']}; {' '.join(processor['features']) or 'no vector features'}")
    print(table(measured))
    if 2 * given.size < GENERATION_PAYS_FROM:  # each party multiplies its own points and the peer's
        print("Left to choose, a match this small takes the portable engine: it starts at once.")
    for name, reason in absent.items():
        print(f"not run: {name}: {reason}")
    for bar, met in verdicts.items():
        print(f"{'not judged' if met is None else 'met' if met else 'missed':<11}{bar}")
    if not verdicts:
        print(f"Bars are set for {FULL_SIZE:,} identifiers; no bar was judged.")
    content = {
        "size": given.size,
        "workers": given.workers,
        "cpu": processor,
        "engines": {name: asdict(one) for name, one in measured.items()},
        "not_run": absent,
        "bars": verdicts,
    }
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(content, indent=2) + "\n")
    print(f"The same figures: {given.json}")


if __name__ == "__main__":
    sys.exit(main())
