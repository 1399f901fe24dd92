"""The contract that a party is under: told to its log, and in force when something leaves."""

from datetime import datetime

from compliance import records
from compliance.agreement import Agreement
from compliance.naming import tell_of
from compliance.notice import Notice
from federation.code import running_code
from federation.gate.own_log import OwnLog
from federation.party import PartyFolder, write_atomically
from federation.versions import ending_notice

__all__ = ["Contract"]


class Contract:
    """The agreement that a party is under, and how it ends."""

    def __init__(self, folder: PartyFolder, agreement: Agreement, log: OwnLog) -> None:
        self._folder = folder
        self._agreement = agreement
        self._log = log

    def tell(self) -> None:
        """Tell the log, where it does not know yet, what was signed and which code runs."""
        if self._log.is_empty:
            everybody = tell_of((party.name for party in self._agreement.parties), self._agreement)
            supersedes = self._agreement.supersedes
            self._log.note(records.AgreementSigned, None, parties=everybody, supersedes=supersedes)
        self._tell_code()

    def _tell_code(self) -> None:
        """Tell the log, where code is agreed, which code runs from here on."""
        if not self._agreement.code_digests:
            return
        code, told = running_code(), self._folder.path / "code"
        if told.exists() and told.read_text(encoding="ascii") == code.digest:
            return
        self._log.note(
            records.CodeReleased,
            None,
            package=code.package,
            package_version=code.version,
            code_digest=code.digest,
        )
        write_atomically(told, code.digest.encode())  # a crash before this tells it twice

    def check_in_force(self, now: datetime) -> None:
        """Return only if the agreement is in force.

        Raises:
            RefusedError: it is not, or a party has ended it.
        """
        agreement = self._agreement
        if not agreement.valid_from <= now < agreement.valid_until:
            raise self._folder.refusal(
                "valid_until",
                f"the agreement is in force from {agreement.valid_from:%Y-%m-%d} to "
                f"{agreement.valid_until:%Y-%m-%d}: sign one that covers today",
            )
        if (notice := self._note_end(now)) is not None:
            raise self._folder.refusal(
                "termination",
                f"{notice.party} ended the agreement as of {notice.effective_from:%Y-%m-%d}: sign "
                "an amendment with all parties to go on",
            )

    def _note_end(self, now: datetime) -> Notice | None:
        """Return the notice by which the agreement has ended, if any; the log is told once."""
        notice = ending_notice(self._folder.path, self._agreement, now)
        if notice is None:
            return None
        told = self._folder.path / "notices" / f"{notice.digest}.told"  # spares reading the log
        if not told.exists():
            if not self._is_end_in_log(notice):
                self._log.note(
                    records.AgreementEnded,
                    None,
                    ended_by=notice.party,
                    notice_digest=notice.digest,
                    reason=notice.reason,
                )
            write_atomically(told, b"")
        return notice

    def _is_end_in_log(self, notice: Notice) -> bool:
        return any(
            leaf.notice_digest == notice.digest
            for leaf in self._log.leaves()
            if isinstance(leaf, records.AgreementEnded)
        )
