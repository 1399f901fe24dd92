"""One party's log, read and parsed, as checks take it."""

from dataclasses import dataclass

from compliance.agreement import Agreement
from compliance.auditing.finding import Finding, FindingKind
from compliance.records import Record

__all__ = ["PartyLog"]


@dataclass(frozen=True)
class PartyLog:
    """A log whose files hold together.

    Attributes:
        party: whose log.
        agreement: the contract, signed by all.
        records: every leaf, in order; its index is its position.
        entries: their bytes.
        cosigned_by: who cosigned its last public head.
        public_size: leaves of that head; None if there is none.
    """

    party: str
    agreement: Agreement
    records: tuple[Record, ...]
    entries: tuple[bytes, ...] = ()
    cosigned_by: tuple[str, ...] = ()
    public_size: int | None = None

    def finding(self, kind: FindingKind, leaves: int | tuple[int, ...], text: str) -> Finding:
        """Return a finding about leaves of this log; `text` says what the first of them does."""
        indexes = (leaves,) if isinstance(leaves, int) else leaves
        leaf = f"leaf {indexes[-1]} ({self.records[indexes[-1]].kind}) of {self.party}"
        others = [str(index) for index in indexes[:-1]]
        seen = f"; see leaf {', '.join(others)}" if others else ""
        return Finding(kind, self.party, indexes, f"{leaf} {text}{seen}")
