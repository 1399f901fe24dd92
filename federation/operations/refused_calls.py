"""Calls that the coordinator refused: counted, kept on disk, and told in its log.

```
 refused ──► count ──► keep: FOLDER/refused.json ──► tell: one leaf `calls.refused` in party/log
             memory          once a second                    once a window is over
```

A window begins with its first refusal and lasts `WINDOW`. It goes on where its leaf cannot be
written yet: the log has not begun, as parties have yet to sign, or a run holds the folder.

Guarantees: however many calls are refused, a window makes one leaf and one small file. Each call is
told once; a process that is killed loses what it counted since it kept last, a second at most.
Reasons and numbers are all that is kept: no caller, no path, nothing that was sent.

Leaves to others: which calls are refused, and why (`federation.apps.refusals`).
"""

import threading
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from compliance import records
from compliance.errors import describe
from compliance.records import RefusedFor
from federation.clock import Clock
from federation.errors import PartyBusyError, WorkspaceError
from federation.observing.log_counts import LogCounts
from federation.operations.folder import CoordinatorFolder
from federation.party import PartyFolder, locked, write_atomically

__all__ = ["WINDOW", "WORDS", "RefusalTally", "refused_calls"]

WINDOW: Final = timedelta(minutes=10)
"""Who knocks all the time writes six leaves an hour, 52,560 a year, of 569 bytes at most."""


WORDS: Final[Mapping[RefusedFor, str]] = {
    RefusedFor.HANDSHAKE: "connections without TLS, or that trust another root",
    RefusedFor.HEAD: "connections that said too much, or nothing, before what they want",
    RefusedFor.BUSY: "while as many connections were open as there may be",
    RefusedFor.REQUEST: "malformed, or for what cannot be done",
    RefusedFor.CALL: "by strangers: there is no such call, or nobody may make it",
    RefusedFor.BODY: "too long, or without a length",
    RefusedFor.TOKEN: "without an operator's token that is good now",
    RefusedFor.ROLE: "of operators whose role does not reach so far",
    RefusedFor.EXECUTOR: "of the executor's, from elsewhere or without its secret: those that an "
    "earlier process left behind make a few",
    RefusedFor.NODE: "of nodes whose key is not taken, or for a run that is over",
    RefusedFor.ENROLMENT: "about joining, without an open invitation or for other terms",
}
"""What was refused, after a number."""


class _Window(BaseModel):
    """Refusals that no leaf tells of yet.

    Attributes:
        since: when the first of them was.
        refused: how many, by the reason.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    since: AwareDatetime
    refused: Mapping[RefusedFor, int]


def refused_calls(folder: CoordinatorFolder, log: LogCounts) -> Mapping[RefusedFor, int]:
    """Return how many calls were refused so far, by the reason: those of the log, and the others.

    Args:
        folder: the coordinator's.
        log: counts of its log as a party; it is read on.

    Raises:
        WorkspaceError, LogError: the file or the log is damaged.
    """
    kept = _read(folder.refused)  # first: told meanwhile, it is in the log
    log.read_on()
    counted = Counter(log.refused_calls)
    if kept is not None and kept.since != log.refused_since:
        counted.update(kept.refused)
    return counted


class RefusalTally:
    """Counts refusals of one coordinator's process; `count` may be called by any thread.

    Args:
        folder: the coordinator's, which no other process serves.
        clock: tells when now is.
        window: what a leaf tells of at least.

    Raises:
        WorkspaceError, LogError: what an earlier process kept, or the log, is damaged.
    """

    def __init__(
        self, folder: CoordinatorFolder, *, clock: Clock, window: timedelta = WINDOW
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._window = window
        self._mutex = threading.Lock()
        self._since: datetime | None = None
        self._told: datetime | None = None
        self._counted: Counter[RefusedFor] = Counter()
        self._has_more = False
        kept = _read(folder.refused)
        if kept is not None:
            log = LogCounts(folder.party / "log")
            log.read_on()
            self._told = log.refused_since
            if kept.since != self._told:
                self._since, self._counted = kept.since, Counter(kept.refused)

    def count(self, reason: RefusedFor) -> None:
        """Count one call, or connection."""
        with self._mutex:
            self._since = self._since or self._later(self._clock())
            self._counted[reason] += 1
            self._has_more = True

    def keep(self) -> None:
        """Put on disk what was counted, if anything was since the last time.

        Raises:
            WorkspaceError: the disk is full.
            OSError: the file cannot be written for another reason.
        """
        with self._mutex:
            since, counted, has_more = self._since, dict(self._counted), self._has_more
            self._has_more = False
        if has_more and since is not None:
            try:
                self._write(_Window(since=since, refused=counted))
            except BaseException:
                self._has_more = True
                raise

    def tell(self, *, at_once: bool = False) -> bool:
        """Append the leaf of a window that is over, where it can be written now.

        1. Nobody holds the folder, and the log has begun. 2. The file says what the leaf will say,
        or less: a process that is killed after 3 finds the window told by its beginning.
        3. The leaf is appended. 4. What was counted meanwhile begins the next window.

        Args:
            at_once: before the window is over, as the process ends; never before it has begun, by a
                clock that was put back.

        Returns:
            Whether a leaf was written.

        Raises:
            FederationError, ComplianceError, OSError: folder or log is damaged, or the disk full.
        """
        since, now = self._since, self._clock()
        party = PartyFolder(self._folder.party)
        if since is None or now < since + (timedelta() if at_once else self._window):
            return False
        if not (party.path / "agreement.json").exists():
            return False
        try:
            with locked(party, patience=0), party.open_log() as log:  # 1
                if not log.tree_size:
                    return False
                self.keep()  # 2
                with self._mutex:
                    told = dict(self._counted)
                leaf = records.CallsRefused(
                    time=now,
                    party=party.name,
                    agreement=party.agreement().digest,
                    since=since,
                    refused=told,
                )
                log.append([records.to_leaf(leaf)])  # 3
        except PartyBusyError:
            return False
        with self._mutex:  # 4
            self._counted.subtract(told)
            self._counted = +self._counted
            self._told, self._since = since, None
            if self._counted:
                self._since = self._later(now)
            self._has_more = bool(self._counted)
        self.keep()
        return True

    def _later(self, moment: datetime) -> datetime:
        """Return a moment, or the first after what was told last began: no two windows are one."""
        after = moment if self._told is None else self._told + timedelta.resolution
        return max(moment, after)

    def _write(self, window: _Window) -> None:
        write_atomically(self._folder.refused, window.model_dump_json().encode(), mode=0o600)


def _read(file: Path) -> _Window | None:
    try:
        return _Window.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise WorkspaceError(
            f"{file} is damaged ({describe(error)}): remove it; calls that were refused since the "
            "last leaf that tells of some are then not counted"
        ) from error
