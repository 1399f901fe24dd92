"""What the processes of a deployment take, by what each is there for. Linux only."""

import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from processes import cpu_seconds, forget_peak, parent, peak_bytes, shared_bytes

__all__ = ["PARTS", "Footprint", "Used", "load"]

PARTS: Final = {
    "coordinator": ("superlink", "executor", "serverapp"),
    "node": ("node", "zygote", "worker"),
}
"""What a command and its descendants are, by how far they are from it. Of Flower's own
`flower-supernode`, the second starts apps, and the third is one."""

_LOOK_SECONDS: Final = 0.01


@dataclass(frozen=True)
class Used:
    """What was used by all processes of one part.

    Attributes:
        cpu_seconds: of all.
        peak_bytes: resident memory of the largest, at its largest.
    """

    cpu_seconds: float
    peak_bytes: int


class Footprint(threading.Thread):
    """Looks at commands and whatever they start, until it is told to stop.

    A process that ended is in its parent's CPU time. Of its peak memory, what came after the last
    look is missed: .01 s.

    Args:
        commands: the process of each command; what is not the `coordinator` is a node.
        apart: whether what nodes take is told for each, and not for the largest of all.
    """

    def __init__(self, commands: Mapping[str, int], *, apart: bool = False) -> None:
        super().__init__(daemon=True)
        self._ended = threading.Event()
        self._strangers: set[int] = set()
        self._apart = apart
        self._part = {pid: (self._parts_of(name), 0) for name, pid in commands.items()}
        self._lock = threading.Lock()
        self._peak: dict[str, int] = {}

    def add(self, name: str, pid: int) -> None:
        """Look at another command, too."""
        with self._lock:
            self._strangers.discard(pid)
            self._part[pid] = self._parts_of(name), 0

    def run(self) -> None:
        """Look again and again."""
        while not self._ended.wait(_LOOK_SECONDS):
            self.look()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()

    def look(self) -> None:
        """Take note of what there is now."""
        with self._lock:
            self._look()

    def _look(self) -> None:
        there = {int(name) for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208 -- a hundred times a second
        self._strangers &= there
        self._part = {pid: one for pid, one in self._part.items() if pid in there}
        for pid in sorted(there - self._strangers - self._part.keys()):
            starter = self._part.get(_starter(pid))
            if starter is None:
                self._strangers.add(pid)
            else:
                self._part[pid] = starter[0], min(starter[1] + 1, len(starter[0]) - 1)
        for pid in self._part:
            self._look_at(pid)

    def used(self) -> dict[str, Used]:
        """Return what each part has used since the processes began; peaks since `forget_peaks`."""
        self.look()
        there = self._parts()
        seconds = dict.fromkeys(
            (*PARTS["coordinator"], *(() if self._apart else PARTS["node"])), 0.0
        )
        for _, (parts, _) in there:
            seconds |= dict.fromkeys(parts, 0.0)
        for pid, (parts, place) in there:
            with suppress(OSError):
                own, ended = cpu_seconds(pid)
                seconds[parts[place]] += own
                seconds[parts[min(place + 1, 2)]] += ended
        return {part: Used(one, self._peak.get(part, 0)) for part, one in seconds.items()}

    def forget_peaks(self) -> None:
        """Have peaks begin anew."""
        for pid, _ in self._parts():
            with suppress(OSError):
                forget_peak(pid)
        self._peak.clear()

    def shares(self) -> dict[str, int]:
        """Return the bytes that all processes of a part take now, shared pages by their share."""
        found: dict[str, int] = {}
        for pid, (parts, place) in self._parts():
            with suppress(OSError):
                found[parts[place]] = found.get(parts[place], 0) + shared_bytes(pid)
        return found

    def _parts_of(self, name: str) -> tuple[str, ...]:
        parts = PARTS.get(name, PARTS["node"])
        if name in PARTS or not self._apart:
            return parts
        return tuple(f"{part} of {name.removeprefix('node-')}" for part in parts)

    def _parts(self) -> list[tuple[int, tuple[tuple[str, ...], int]]]:
        with self._lock:
            return list(self._part.items())

    def _look_at(self, pid: int) -> None:
        parts, place = self._part[pid]
        with suppress(OSError, IndexError):  # it has ended, and has no memory any more
            part = parts[place]
            self._peak[part] = max(self._peak.get(part, 0), peak_bytes(pid))


def _starter(pid: int) -> int:
    try:
        return parent(pid)
    except OSError:
        return 0


def load() -> float:
    """Return how many processes wanted to run, over the last minute."""
    return os.getloadavg()[0]


def wait_for(file: Path, *, seconds: float) -> None:
    """Wait for a file to appear.

    Raises:
        TimeoutError: it has not.
    """
    end = time.monotonic() + seconds
    while not file.exists():
        if time.monotonic() > end:
            raise TimeoutError(f"{file.name} has not come within {seconds:g} s")
        time.sleep(0.02)
