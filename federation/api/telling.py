"""Having the log told of what was taken while the folder was not free.

Guarantees: within a second of an event, where no job is at work, its leaf is in the log; where one
is, within a second of its end. What is cut here is told at the party's next start.

Leaves to others: what is told (`consent_recording`, which the gate calls when it settles).
"""

import logging
from pathlib import Path
from threading import Event, Thread
from typing import Final, Self

from compliance.errors import ComplianceError
from federation.clock import Clock
from federation.errors import FederationError, PartyBusyError
from federation.holding import held
from privacy.errors import PrivacyError

__all__ = ["Teller"]

_logger = logging.getLogger("comity.api")
_GATHERED_SECONDS: Final = 0.2  # what comes meanwhile is told in one go
_TROUBLE_SECONDS: Final = 5.0


class Teller:
    """Tells one party's log; a context manager, at work as long as it is entered.

    Args:
        directory: the party's folder.
        clock: the time.
    """

    def __init__(self, directory: Path, *, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock
        self._wanted = Event()
        self._ended = Event()
        self._thread = Thread(target=self._run, name="comity-teller", daemon=True)

    def __enter__(self) -> Self:
        """Begin, with what an earlier process left."""
        self._wanted.set()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Tell what is left, if the folder is free, and end."""
        self._ended.set()
        self._wanted.set()
        self._thread.join()

    def want(self) -> None:
        """Say that there is something to tell."""
        self._wanted.set()

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            ended = self._ended.wait(_GATHERED_SECONDS)
            pause = self._tell()
            if ended:
                return
            if pause:
                self._wanted.set()
                self._ended.wait(pause)

    def _tell(self) -> float:
        """Return after how many seconds it is to be tried again; 0 if all was told."""
        try:
            with held(self._directory, clock=self._clock, patience=0):
                return 0.0  # it is settled on the way in
        except PartyBusyError:
            return _GATHERED_SECONDS
        except (FederationError, ComplianceError, PrivacyError, OSError) as error:
            _logger.error("the log is not told of consents: %s", error)  # noqa: TRY400
            return _TROUBLE_SECONDS
