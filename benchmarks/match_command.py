"""The command line of a benchmark of matches, and what becomes of its figures."""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from psi_peers.contest import WrongMatchError

__all__ = ["match_options", "measure_match", "parsed", "tell"]

ROOT = Path(__file__).resolve().parent.parent


def match_options(
    description: str | None, example: str, *, size: int, limit: str, name: str
) -> argparse.ArgumentParser:
    """Return the options that benchmarks of matches have in common.

    Args:
        description: what is measured.
        example: a command line.
        size: rows of each party, unless others are asked for.
        limit: likewise, the memory limit of the job.
        name: of the file of figures.
    """
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"example:\n  python benchmarks/{example}",
    )
    parser.add_argument("--size", type=int, default=size, help="rows of each party")
    parser.add_argument("--memory-limit", default=limit, help="of the job")
    file = ROOT / "out" / f"{name}.json"
    parser.add_argument("--json", type=Path, default=file, help="the same figures")
    return parser


def parsed(parser: argparse.ArgumentParser, command: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    given = parser.parse_args(command)
    if given.size < 2:
        parser.error("--size needs 2 or more")
    return given


def measure_match(
    given: argparse.Namespace,
    measured: Callable[[argparse.Namespace, Path], dict[str, Any]],
    show: Callable[[dict[str, Any]], bool],
) -> int:
    """Measure, print and keep; 1 if a match was wrong, or its figures fail the run.

    Args:
        given: the command line.
        measured: returns every figure; it gets an empty folder.
        show: prints them, and tells whether they are good enough.
    """
    try:
        with tempfile.TemporaryDirectory() as scratch:
            figures = measured(given, Path(scratch))
    except WrongMatchError as error:
        print(f"wrong match: {error}", file=sys.stderr)
        return 1
    good = show(figures)
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"The same figures: {given.json}")
    return 0 if good else 1


def tell(stage: str) -> None:
    """Say what is being done."""
    print(f"{time.strftime('%H:%M:%S')}  {stage}", file=sys.stderr)
