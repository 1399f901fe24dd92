"""One JSON object a line, for whatever collects a process's lines.

Guarantees: a line holds what `events` allows, and nothing else, whoever asks for more; what
libraries write into Python's log becomes a line that names the library and the level, and not what
it wrote, which may be anything.

Leaves to others: what is told (`launchers`, `service`), and where lines go (standard error).
"""

import logging
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import structlog

from federation.clock import Clock, utc_now
from federation.observing.answered import Answered
from federation.observing.events import Event, Notice, allowed
from federation.progress import Progress

__all__ = ["JsonLines"]

_OURS: Final = "comity"


class JsonLines:
    """Writes lines.

    Args:
        file: where to.
        clock: tells when now is.
    """

    def __init__(self, file: TextIO, *, clock: Clock = utc_now) -> None:
        self._clock = clock
        self._logger = structlog.wrap_logger(
            structlog.WriteLogger(file),
            processors=[self._stamp, _keep_allowed, structlog.processors.JSONRenderer()],
            wrapper_class=structlog.BoundLogger,
        )

    def write(self, event: Event, **fields: object) -> None:
        """Write one line."""
        self._logger.msg(event, **fields)

    def tell(self, told: str) -> None:
        """Write what an operator is told in a sentence, with its event if it knows one."""
        if isinstance(told, Notice):
            self.write(told.event, told=str(told), **told.fields)
        else:
            self.write(Event.TOLD, told=told)

    def progress(self, progress: Progress) -> None:
        """Write how a job goes on: no counts of people, which a console shows."""
        if not progress.total:  # a long step's pace is of interest at a terminal only
            self.write(
                Event.JOB_PROGRESSED,
                party=progress.party,
                job=progress.job,
                epsilon_spent=progress.epsilon_spent,
                epsilon_left=progress.epsilon_left,
            )

    def answered(self, answered: Answered) -> None:
        """Write that a message was answered."""
        exchange = answered.exchange
        self.write(
            Event.MESSAGE_ANSWERED,
            kind=exchange.kind,
            job=exchange.job,
            outcome=exchange.outcome,
            seconds=round(answered.seconds, 3),
            bytes_in=answered.bytes_in,
            bytes_out=answered.bytes_out,
        )

    def take_over(self) -> None:
        """Have Python's log come here alone, from now on."""
        root = logging.getLogger()
        root.handlers[:] = [_Handler(self)]
        for name in ("flwr", "uvicorn", "uvicorn.error"):
            logger = logging.getLogger(name)
            logger.handlers.clear()
            logger.propagate, logger.disabled = True, False
            logger.setLevel(logging.NOTSET)  # whatever a library has asked of it before

    def _stamp(self, _: object, __: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
        return {"time": self._clock().isoformat(), **event}


def _keep_allowed(_: object, __: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
    return allowed(event)


class _Handler(logging.Handler):
    """Makes a line of a record of Python's log."""

    def __init__(self, lines: JsonLines) -> None:
        super().__init__(logging.INFO)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """Write it; the text of our own modules alone, and never a traceback."""
        ours = record.name.partition(".")[0] == _OURS
        if not ours and record.levelno < logging.WARNING:  # without its text it says nothing
            return
        error = record.exc_info[0] if record.exc_info else None
        self._lines.write(
            Event.LOGGED,
            logger=record.name,
            level=record.levelname,
            told=record.getMessage() if ours else None,
            error=error.__name__ if error else None,
        )
