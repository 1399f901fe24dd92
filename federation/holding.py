"""Holding a party's folder to do one thing in it, outside of any job.

Guarantees: what a crash left open is settled first; no job is at work meanwhile; a version of the
agreement that was read before the folder was held is still the one in force.

Leaves to others: what is done (`consent_recording`, `erasing`, `subjects`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from compliance.agreement import Agreement
from federation.clock import Clock, utc_now
from federation.gate import Gate
from federation.party import PartyFolder, locked

__all__ = ["Held", "held"]


@dataclass(frozen=True)
class Held:
    """A party's folder while it is held.

    Attributes:
        folder: the party's.
        agreement: in force.
        gate: its door and log.
    """

    folder: PartyFolder
    agreement: Agreement
    gate: Gate


@contextmanager
def held(
    directory: Path, *, clock: Clock = utc_now, patience: float | None = None
) -> Iterator[Held]:
    """Hold a party's folder.

    Args:
        directory: the folder.
        clock: the time.
        patience: seconds to wait for a job that is at work; as long as it takes where left out.

    Raises:
        PartyBusyError: a job was at work all that time.
        WorkspaceError: it is no party's folder, or log or ledger is missing.
        InvalidAgreementError, LogError, LedgerError: one of them is damaged.
    """
    folder = PartyFolder(directory)
    agreement = folder.agreement()
    with locked(folder, patience=patience), folder.open_log() as log:
        folder.check_current(agreement)
        ledger = folder.open_ledger(agreement, begun=log.tree_size > 0)
        gate = Gate(folder, agreement, log, ledger, clock=clock)
        gate.settle()
        yield Held(folder, agreement, gate)
