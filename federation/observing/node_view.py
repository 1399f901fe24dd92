"""What a node's listener shows: its party's figures, its own tally, and whether it is ready.

Leaves to others: listening (`listener`), reading (`figures`, `tally`), the format (`metrics`).
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from federation.clock import Clock, utc_now
from federation.observing.figures import Obstacle, PartyFigures
from federation.observing.metrics import TEXT, exposition, node_metrics
from federation.observing.tally import Tally

__all__ = ["NodeView"]


class NodeView:
    """Shows one node.

    Args:
        path: its party's folder.
        tally: what it has counted.
        clock: tells when now is.
        monotonic: seconds.
    """

    def __init__(
        self,
        path: Path,
        tally: Tally,
        *,
        clock: Clock = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._figures = PartyFigures(path, clock=clock, monotonic=monotonic)
        self._tally = tally
        self._monotonic = monotonic
        self._heard: float | None = None
        self._reading = threading.Lock()  # the figures are one thread's at a time

    def heard(self) -> None:
        """Note that the SuperLink has answered just now."""
        self._heard = self._monotonic()

    def obstacles(self) -> frozenset[Obstacle]:
        """Return why the node would not answer now."""
        heard = self._heard
        return self._figures.obstacles(None if heard is None else self._monotonic() - heard)

    def metrics(self) -> tuple[bytes, str]:
        """Return the figures, and their content type."""
        with self._reading:
            figures = self._figures.read()
            return exposition(node_metrics(figures, self._tally.read(), self.obstacles())), TEXT
