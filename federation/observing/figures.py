"""A party's figures, from its folder: budget, log, witnesses; and whether it could work now.

Guarantees: holds nothing and writes nothing; figures that cannot be read are missing, and
`is_readable` says so. The ledger is priced again only after the log has grown, or a minute has
passed. No count of people is among them.

Leaves to others: showing them (`node_metrics`), keeping others from seeing them (`listener`).
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from compliance.agreement import Agreement
from compliance.auditing.trust import policy_for
from compliance.errors import ComplianceError
from compliance.log.checkpoint import Checkpoint
from compliance.log.cosignature import verify_cosignatures
from compliance.log.note import Note
from compliance.log.verifier import FileMissingError, read_public
from federation.budgets import budget_of
from federation.clock import Clock
from federation.errors import FederationError, ReplicaError, WorkspaceError
from federation.observing.log_counts import LogCounts
from federation.party import PartyFolder
from federation.versions import ending_notice
from federation.witnesses import read_optional
from privacy.accounting.ledger import Ledger
from privacy.errors import PrivacyError

__all__ = ["Budget", "Figures", "Obstacle", "PartyFigures", "WitnessedHead"]

CONTACT_SECONDS: Final = 60.0
"""So recently a node must have heard from its SuperLink to be called connected."""
_PRICED_SECONDS: Final = 60.0
_COPY_SECONDS: Final = 5.0
_ERRORS: Final = (FederationError, ComplianceError, PrivacyError, OSError)


class Obstacle(StrEnum):
    """Why a node would not answer a message now."""

    CONNECTION = "connection"
    """It has not heard from its SuperLink within the last minute."""
    AGREEMENT = "agreement"
    """None is signed by all, or it is not in force today."""
    FOLDER = "folder"
    """The party's folder cannot be written."""
    DATABASE = "database"
    """That with the folder's copy is out of reach, or the folder was restored elsewhere."""


@dataclass(frozen=True)
class Budget:
    """A person's ε under the agreement."""

    cap: float
    spent: float
    left: float


@dataclass(frozen=True)
class WitnessedHead:
    """What witnesses cosigned of the log.

    Attributes:
        leaves: of the last head that enough of them cosigned.
        cosigned: POSIX seconds of each witness's last cosignature, by its name.
    """

    leaves: int = 0
    cosigned: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Figures:
    """A party at one moment.

    Attributes:
        valid_until: POSIX seconds at which the agreement ends; None without one.
        budget: None where nothing was charged yet.
        log: counts of its log.
        witnessed: of its log.
        is_readable: whether all of this could be read.
    """

    valid_until: float | None
    budget: Budget | None
    log: LogCounts
    witnessed: WitnessedHead
    is_readable: bool


class PartyFigures:
    """Reads the figures of one party, again and again; for one thread at a time.

    Args:
        path: the party's folder.
        clock: tells when now is.
        monotonic: seconds.
    """

    def __init__(
        self, path: Path, *, clock: Clock, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = path
        self._clock = clock
        self._monotonic = monotonic
        self._log = LogCounts(path / "log")
        self._priced: tuple[int, float, Budget | None] | None = None
        self._copied: tuple[float, bool] | None = None

    def read(self) -> Figures:
        """Return the figures as of now."""
        valid_until, budget, witnessed, readable = None, None, WitnessedHead(), True
        try:
            folder = PartyFolder(self._path)
            self._log.read_on()
            agreement = folder.agreement()
            valid_until = agreement.valid_until.timestamp()
            witnessed = _witnessed(folder, agreement)
            budget = self._budget(folder, agreement)
        except _ERRORS:
            readable = False
        return Figures(valid_until, budget, self._log, witnessed, readable)

    def obstacles(self, seconds_since_heard: float | None) -> frozenset[Obstacle]:
        """Return why the node would not answer now.

        Args:
            seconds_since_heard: from its SuperLink; None where it never did.
        """
        found = set()
        if seconds_since_heard is None or seconds_since_heard > CONTACT_SECONDS:
            found.add(Obstacle.CONNECTION)
        if not self._is_in_force():
            found.add(Obstacle.AGREEMENT)
        if not _is_writable(self._path):
            found.add(Obstacle.FOLDER)
        if not self._has_copy():
            found.add(Obstacle.DATABASE)
        return frozenset(found)

    def _has_copy(self) -> bool:
        """Tell whether the folder can be copied, as of a few seconds ago at most."""
        now = self._monotonic()
        if self._copied is None or now - self._copied[0] >= _COPY_SECONDS:
            try:
                replica = PartyFolder(self._path).replica
                if replica is not None:
                    replica.standing()
                self._copied = now, True
            except WorkspaceError:  # no folder: another obstacle
                self._copied = now, True
            except ReplicaError:
                self._copied = now, False
        return self._copied[1]

    def _is_in_force(self) -> bool:
        now = self._clock()
        try:
            agreement = PartyFolder(self._path).agreement()
            ended = ending_notice(self._path, agreement, now) is not None
        except _ERRORS:
            return False
        return agreement.valid_from <= now < agreement.valid_until and not ended

    def _budget(self, folder: PartyFolder, agreement: Agreement) -> Budget | None:
        now = self._monotonic()
        if self._priced is not None:
            leaves, when, budget = self._priced
            if leaves == self._log.leaves and now - when < _PRICED_SECONDS:
                return budget
        budget = None
        if self._log.leaves:
            told = Ledger.glimpse(
                folder.ledger_store(agreement),
                agreement=agreement.lineage,
                budget=budget_of(agreement),
                clock=self._clock,
            )
            if told is not None:
                budget = Budget(told.epsilon_cap, told.epsilon_spent, told.epsilon_left)
        self._priced = self._log.leaves, now, budget
        return budget


def _witnessed(folder: PartyFolder, agreement: Agreement) -> WitnessedHead:
    """Return what others cosigned; signatures of who is no witness count for nothing."""
    policy = policy_for(agreement, folder.name)
    names = {key: name for name, key in policy.witnesses.items()}
    cosigned: dict[str, int] = {}
    leaves = 0
    try:
        public = read_public(folder.log)
    except FileMissingError:
        public = None
    for signed in (public, read_optional(folder.shown / "head")):
        if signed is None:
            continue
        note = Note.parse(signed)
        head = Checkpoint.from_body(note.text)
        for key, when in verify_cosignatures(head, note, tuple(names)).items():
            cosigned[names[key]] = max(when, cosigned.get(names[key], 0))
        if signed is public:
            leaves = head.tree_size
    return WitnessedHead(leaves, cosigned)


def _is_writable(path: Path) -> bool:
    try:
        room = os.statvfs(path)
    except OSError:
        return False
    return os.access(path, os.W_OK | os.X_OK) and room.f_bavail > 0
