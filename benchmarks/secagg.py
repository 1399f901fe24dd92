"""What a secure sum costs all parties and the server together, in CPU-seconds of one process.

Every message goes through bytes, as on a wire, and every signature is Ed25519. Sums are checked
against the plain ones, computed outside the clock; a wrong sum fails the run, a missed bar is
printed. One thread; CPU time drifts less than wall time, but quote ratios between machines.

Run it: python benchmarks/secagg.py
"""

import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from privacy.mechanisms import discrete_gaussian
from privacy.randomness import SecretStream, new_secret
from privacy.secagg import Aggregate, Neighbours, ServerTrust

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))  # parties are simulated as they are tested

from summing import ROUNDS, Simulation, plain_sum, plan_of  # noqa: E402  # found by the line above

NOISE = 1_000_000
SIGMA = 1e6


@dataclass(frozen=True)
class Case:
    """A sum to measure.

    Attributes:
        parties: how many.
        threshold: survivors that it takes.
        length: entries of each vector.
        ring_bits: width of an entry.
        server: what it is trusted with.
        neighbours: with whom a party masks.
        colluding: parties that may collude with the server.
        dropping: parties that fall silent before they send their vector.
        bar: CPU-seconds that it may take; None where none was set.
    """

    parties: int
    threshold: int
    length: int
    ring_bits: int
    server: ServerTrust = ServerTrust.MAY_LIE
    neighbours: Neighbours = Neighbours.ALL
    colluding: int = 0
    dropping: int = 0
    bar: float | None = None


CASES = (
    Case(10, 7, 1_000_000, 64, colluding=3, bar=3.0),
    Case(10, 7, 1_000_000, 32, colluding=3, bar=3.0),
    Case(10, 7, 1_000_000, 64, colluding=3, dropping=3, bar=3.0),
    Case(100, 67, 100_000, 64, colluding=33, bar=10.0),
    Case(100, 67, 100_000, 64, colluding=33, dropping=33),
    Case(100, 90, 100_000, 64, ServerTrust.FOLLOWS_PROTOCOL, Neighbours.FEW, 10, 0, 10.0),
    Case(100, 90, 100_000, 64, ServerTrust.FOLLOWS_PROTOCOL, Neighbours.FEW, 10, 10, 10.0),
)


class Metered(Simulation):
    """A simulation that counts the bytes of what every party says."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.sent: Counter[str] = Counter()

    def speak(self, name: str, number: int) -> object:
        """Let a party speak, and count."""
        said = super().speak(name, number)
        self.sent[name] += len(said.to_json())
        return said


def measure(case: Case) -> None:
    """Run one sum and print its figures."""
    plan = plan_of(
        case.parties,
        case.threshold,
        colluding=case.colluding,
        server=case.server,
        ring_bits=case.ring_bits,
        length=case.length,
        neighbours=case.neighbours,
    )
    silent = dict.fromkeys(plan.parties[: case.dropping], 2)
    simulation = Simulation(plan, silent, stored=False)
    seconds = []
    for number in range(ROUNDS):
        begun = time.process_time()
        aggregate = simulation.round(number)
        seconds.append(time.process_time() - begun)
    if not isinstance(aggregate, Aggregate):
        raise TypeError("expected a sum at the end")
    expected = plain_sum(plan, simulation.inputs, aggregate.parties)
    if not np.array_equal(aggregate.total, expected):
        raise ValueError("a secure sum differs from the plain one")
    hood = plan.neighbourhood
    near = (
        f"{hood.degree} neighbours, {hood.share_threshold} shares"
        if hood
        else f"all neighbours, {plan.share_threshold} shares"
    )
    total = sum(seconds)
    verdict = "" if case.bar is None else f"  bar {case.bar:.0f} s {_judged(total, case.bar)}"
    print(
        f"{case.parties:>4} parties x {plan.length:>9,} x {case.ring_bits} bits, "
        f"{case.dropping:>2} drop out, {case.server.value}, {near}: {total:6.2f} CPU s "
        f"({' + '.join(f'{one:.2f}' for one in seconds)}){verdict}"
    )


def _judged(seconds: float, bar: float) -> str:
    return "met" if seconds <= bar else "MISSED"


def measure_bytes(parties: int, threshold: int) -> None:
    """Print what a party says beside its vector."""
    plan = plan_of(parties, threshold, length=1)
    simulation = Metered(plan, stored=False)
    simulation.run()
    print(f"{parties:>4} parties: each says {max(simulation.sent.values()):,} bytes and its vector")


def measure_noise() -> None:
    """Print how fast discrete Gaussian noise is drawn."""
    stream = SecretStream(new_secret(), "benchmark")
    begun = time.process_time()
    discrete_gaussian(SIGMA, NOISE, stream)
    millions = NOISE / 1e6 / (time.process_time() - begun)
    print(
        f"discrete Gaussian, sigma {SIGMA:,.0f}: {millions:.1f} million a CPU-second  bar 1 "
        f"{_judged(1.0, millions)}"
    )


def main() -> None:
    """Measure every case and print a line each; rounds 0 to 4 in brackets."""
    for case in CASES:
        measure(case)
    measure_bytes(10, 7)
    measure_bytes(100, 67)
    measure_noise()


if __name__ == "__main__":
    main()
