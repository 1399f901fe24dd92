"""What a copy of a party's folder in a database costs (`federation.replica`), on this machine.

```
python benchmarks/replica.py postgresql://user@host/database
```

Prints a line of JSON each for: a step that changes little, with and without a copy; an answer of a
gibibyte in parts of 64 MB; a folder whose log has a million leaves (8,000 files); bringing it all
back. The database is on the loopback, unless another is given; its tables are made and emptied.
"""

import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from federation.party import write_atomically
from federation.replica import Replica, ReplicaStore, Scope
from federation.replica.restoring import restore
from federation.safe import PARTY_SECRETS

PARTY = "benchmark"
STEPS = 40
MEBIBYTE = 1 << 20
PART = 64 * MEBIBYTE
TILES = 1_000_000 // 256


def told(what: str, **figures: float) -> None:
    """Print what was measured."""
    print(json.dumps({"what": what} | {name: round(one, 4) for name, one in figures.items()}))


def seconds(work: Callable[[], object]) -> float:
    """Return how long something takes."""
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def step(root: Path, number: int) -> None:
    """Write what a small answer leaves: an answer, a tile, a head, a state."""
    for name in (f"outbox/{number}.json", f"outbox/{number}.bin", "log/checkpoint", "jobs/state"):
        write_atomically(root / name, os.urandom(800))


def measured(root: Path, replica: Replica, what: str) -> None:
    """Measure small steps, without a copy and with one."""
    without, with_copy, alone = [], [], []
    for number in range(STEPS):
        without.append(seconds(lambda number=number: step(root, number)))
        replica.synchronise()
        step(root, number)
        with_copy.append(seconds(replica.synchronise))
        alone.append(seconds(replica.check))
    told(
        what,
        written=statistics.median(without),
        copied=statistics.median(with_copy),
        checked=statistics.median(alone),
    )


def main(url: str) -> None:
    """Measure."""
    with TemporaryDirectory() as directory:
        root = Path(directory) / "party"
        root.mkdir()
        (root / "party.json").write_text(json.dumps({"name": PARTY}))
        replica = Replica(
            PARTY, Scope(root, PARTY_SECRETS), ReplicaStore(url), write=write_atomically
        )
        replica.check()
        measured(root, replica, "a small step")
        for number in range(16):
            with (root / f"outbox/large-{number}.bin").open("wb") as file:
                for _ in range(PART // MEBIBYTE):
                    file.write(os.urandom(MEBIBYTE))
        told("a gibibyte, once", copied=seconds(replica.synchronise))
        told("and once more, unchanged", copied=seconds(replica.synchronise))
        for number in range(TILES):
            for kind, size in (("0", 8192), ("entries", 256 * 320)):
                place = root / "log" / "tile" / kind / f"x{number // 1000:03}"
                place.mkdir(parents=True, exist_ok=True)
                (place / f"{number % 1000:03}").write_bytes(os.urandom(size))
        told("a log of a million leaves, once", copied=seconds(replica.synchronise))
        measured(root, replica, "a small step beside them")
        fresh = Replica(
            PARTY, Scope(root, PARTY_SECRETS), ReplicaStore(url), write=write_atomically
        )
        told("the first of a process", copied=seconds(fresh.synchronise))
        back = Path(directory) / "back"
        took = seconds(lambda: restore(ReplicaStore(url), back, database=url, party=PARTY))
        told("all of it brought back", restored=took)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told("most memory of this process, in MiB", mebibytes=peak / 1024)


if __name__ == "__main__":
    main(sys.argv[1])
