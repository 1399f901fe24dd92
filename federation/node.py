"""A party's node: takes a message, has that party's part of the job done, answers by the gate.

Guarantees: messages are handled one at a time; any process may take the next one, since nothing is
remembered outside the party's folder; a message that was answered before gets the same answer; a
failure becomes a refusal that names a term, and tells nobody outside the party more than that, but
for which version it speaks where that is what is wrong.

Leaves to others: the part itself (`work`), what may leave (`gate`), transport (`apps`).
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from compliance.agreement import Agreement
from compliance.errors import ApprovalError, ComplianceError, ConsentError
from compliance.terms import Role
from connectors.errors import ConnectorError
from federation.clock import Clock, utc_now
from federation.desk import Desk
from federation.enclosure import decrypt
from federation.errors import (
    FederationError,
    MessageError,
    RefusedError,
    ReplicaError,
    VersionError,
)
from federation.gate import Gate, Released
from federation.messages import Identify, SealedMessage, unseal
from federation.party import PartyFolder, locked
from federation.progress import Progress, report
from federation.routes import off_route
from federation.wire import VERSION_TERM
from federation.work import Work
from privacy.errors import PrivacyError

__all__ = ["Node"]

_logger = logging.getLogger("comity.node")

TERM_OF: Final[Mapping[type[Exception], str]] = {
    ConnectorError: "datasets",
    ConsentError: "consent",
    ApprovalError: "approval",
    ComplianceError: "parties",
    PrivacyError: "computation",
    MessageError: "message",
    FederationError: "computation",
}
"""What the outside is told when a step fails; the details stay at the party."""

_DETAILS_INSIDE = "the party's own console and log say what is wrong; mend it and run again"


class Node:
    """One party, ready to answer."""

    def __init__(self, folder: PartyFolder, agreement: Agreement, *, clock: Clock) -> None:
        self._folder = folder
        self._agreement = agreement
        self._clock = clock
        (coordinator,) = agreement.by_role(Role.COORDINATOR)
        self._coordinator = coordinator.name

    @classmethod
    def open(cls, path: Path, *, clock: Clock = utc_now) -> Self:
        """Open a party's folder.

        Raises:
            WorkspaceError: it is none.
            InvalidAgreementError: its agreement is unsigned by somebody, or altered.
        """
        folder = PartyFolder(path)
        return cls(folder, folder.agreement(), clock=clock)

    def handle(self, sealed: SealedMessage) -> Released:
        """Answer one message.

        1. Open the log with the agreement; settle what an earlier crash left open.
        2. Repeat the answer if this very message was answered before.
        3. Verify the message, that it is for this party and goes its route; decrypt it.
        4. Do the party's part; the gate decides what leaves.
        5. Whatever fails becomes a refusal.
        """
        with self.desk() as desk:
            work = Work(desk)
            desk.gate.settle()  # 1
            work.settle()
            job, asker = "unreadable", self._coordinator
            try:
                if (kept := desk.gate.recall(sealed.digest)) is not None:  # 2
                    self._folder.keep_pending(sealed.digest)
                    return kept
                message = unseal(sealed, self._agreement)  # 3
                job, asker = message.header.job, message.header.sender
                name = self._folder.name
                if message.header.recipient != name and not isinstance(message.body, Identify):
                    raise MessageError(f"message for {message.header.recipient} came to {name}")
                if (problem := off_route(message.header, self._agreement)) is not None:
                    raise MessageError(f"{asker}: {problem}")
                opened = decrypt(message, self._folder.decryption_key())
                return work.answer(opened)  # 4
            except ReplicaError:
                raise  # nothing may leave, and no refusal either: the next run asks again
            except (FederationError, PrivacyError, ConnectorError, ComplianceError) as error:  # 5
                refusal = self._refusal(job, error)
            return desk.gate.refuse(refusal, job=job, recipient=asker, answers=sealed.digest)

    def _refusal(self, job: str, error: Exception) -> RefusedError:
        name = self._folder.name
        _logger.error("%s %s: %s", name, job, error)
        report(Progress(name, job, f"stopped: {error}"))
        if isinstance(error, RefusedError):
            return error
        if isinstance(error, VersionError):
            return RefusedError(party=name, term=VERSION_TERM, remedy=str(error))
        term = next(term for kind, term in TERM_OF.items() if isinstance(error, kind))
        return self._folder.refusal(term, _DETAILS_INSIDE)

    @contextmanager
    def desk(self) -> Iterator[Desk]:
        """Hold the folder, with log and ledger open, for as long as the desk is used.

        Raises:
            WorkspaceError: log or ledger is missing, or the agreement was amended meanwhile.
            LogError, LedgerError: they cannot be opened.
        """
        folder, agreement = self._folder, self._agreement
        with (
            locked(folder),
            folder.open_log() as log,
        ):
            folder.check_current(agreement)
            if not log.tree_size:
                folder.check_new(agreement)
            ledger = folder.open_ledger(agreement, begun=log.tree_size > 0, clock=self._clock)
            gate = Gate(folder, agreement, log, ledger, clock=self._clock)
            yield Desk(folder, agreement, gate, ledger, clock=self._clock)
