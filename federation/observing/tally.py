"""What a node has counted since it began: messages, bytes, seconds, workers that ended early.

Guarantees: one thread may count while another reads; a reader sees whole observations.

Leaves to others: what is observed (`federation.apps.launchers`), how it is shown (`node_metrics`).
"""

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from federation.observing.answered import Answered, Outcome

__all__ = ["SECONDS", "Count", "Durations", "Tally"]

SECONDS: Final = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
"""Upper bounds by which durations are told apart; there is one more class above."""


@dataclass
class Durations:
    """Durations of messages of one kind.

    Attributes:
        classes: how many lay within each bound of `SECONDS`, and in none before; above all last.
        total: seconds in all.
    """

    classes: list[int] = field(default_factory=lambda: [0] * (len(SECONDS) + 1))
    total: float = 0.0


@dataclass(frozen=True)
class Count:
    """A tally at one moment.

    Attributes:
        messages: by kind and outcome.
        durations: by kind.
        bytes_in: of messages as they travelled.
        bytes_out: of answers.
        workers_ended: before they had answered.
    """

    messages: Mapping[tuple[str, Outcome], int]
    durations: Mapping[str, Durations]
    bytes_in: int
    bytes_out: int
    workers_ended: int


class Tally:
    """Counts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._messages: Counter[tuple[str, Outcome]] = Counter()
        self._durations: dict[str, Durations] = {}
        self._bytes_in = self._bytes_out = self._workers_ended = 0

    def observe(self, answered: Answered) -> None:
        """Count a message."""
        kind = answered.exchange.kind
        with self._lock:
            self._messages[kind, answered.exchange.outcome] += 1
            durations = self._durations.setdefault(kind, Durations())
            durations.classes[bisect_left(SECONDS, answered.seconds)] += 1
            durations.total += answered.seconds
            self._bytes_in += answered.bytes_in
            self._bytes_out += answered.bytes_out

    def worker_ended(self) -> None:
        """Count a worker that ended before it had answered."""
        with self._lock:
            self._workers_ended += 1

    def read(self) -> Count:
        """Return the counts as of now."""
        with self._lock:
            durations = {
                kind: Durations(list(one.classes), one.total)
                for kind, one in self._durations.items()
            }
            return Count(
                dict(self._messages),
                durations,
                self._bytes_in,
                self._bytes_out,
                self._workers_ended,
            )
