"""What a person watching a job is told, and where it goes.

Guarantees: counts and budgets only, never an identifier, a hash of one or a feature value; a
listener that is not set costs nothing. These reports stay with whoever runs the process: they are
no message and reach no other party.

Leaves to others: drawing them (`cli`).
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timedelta

__all__ = [
    "Progress",
    "ProgressListener",
    "listener",
    "listening",
    "log_progress",
    "report",
    "until",
]

_logger = logging.getLogger("comity.progress")


@dataclass(frozen=True)
class Progress:
    """One line of progress.

    Attributes:
        party: whose work it is.
        job: the job's name.
        stage: what is being done, in a few words.
        rows: people (rows) it concerns, if any.
        excluded: rows left out, by reason.
        epsilon_spent: spent at this party after the stage, if the stage was charged.
        epsilon_left: what the agreement still allows at this party.
        done: steps done so far of a long stage.
        total: steps of the long stage in all; 0 for a stage told once.
        absent: the party, or else the node, that the stage says is absent for its version.
    """

    party: str
    job: str
    stage: str
    rows: int | None = None
    excluded: Mapping[str, int] = field(default_factory=dict)
    epsilon_spent: float | None = None
    epsilon_left: float | None = None
    done: int = 0
    total: int = 0
    absent: str | None = None


ProgressListener = Callable[[Progress], None]

_listener: ContextVar[ProgressListener | None] = ContextVar("comity_progress", default=None)


def until(seconds: float, now: datetime) -> str:
    """Say how long something is waited for, after what it is; nothing where there is no end."""
    if math.isinf(seconds):
        return ""
    end = now + timedelta(seconds=seconds)
    return f", {seconds:.0f} s at most, until {end:%Y-%m-%d %H:%M:%S} UTC"


def report(progress: Progress) -> None:
    """Tell the listener of this context, or the log where nobody listens."""
    (_listener.get() or log_progress)(progress)


def log_progress(progress: Progress) -> None:
    """Tell the log, which takes no interest in the pace of a long step."""
    if progress.total == 0:
        _logger.info("%s %s: %s", progress.party, progress.job, progress.stage)


def listener() -> ProgressListener | None:
    """Return who listens in this context, if anybody."""
    return _listener.get()


@contextmanager
def listening(one: ProgressListener) -> Iterator[None]:
    """Send the reports of this context to one listener for the length of the block."""
    token = _listener.set(one)
    try:
        yield
    finally:
        _listener.reset(token)
