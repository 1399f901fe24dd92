"""One party's log, read and parsed, as checks take it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from compliance.agreement import Agreement
from compliance.auditing.cryptoperiod import Cryptoperiod, cryptoperiods
from compliance.auditing.finding import Finding, FindingKind
from compliance.auditing.rules import Rules
from compliance.lifecycle import ReplacedKey, Succession, replaced_keys
from compliance.records import AgreementSigned, Record

__all__ = ["PartyLog"]


@dataclass(frozen=True)
class PartyLog:
    """A log whose files hold together.

    Attributes:
        party: whose log.
        agreement: the contract, signed by all; the last version at hand.
        records: every leaf, in order; its index is its position.
        entries: their bytes.
        cosigned_by: who cosigned its last public head.
        public_size: leaves of that head; None if there is none.
        versions: of the contract, with the notices about it; `agreement` alone where None.
        head: the checkpoint under which it was read, verbatim.
    """

    party: str
    agreement: Agreement
    records: tuple[Record, ...]
    entries: tuple[bytes, ...] = ()
    cosigned_by: tuple[str, ...] = ()
    public_size: int | None = None
    versions: Succession | None = None
    head: bytes = b""

    @cached_property
    def succession(self) -> Succession:
        """The versions of the contract, and the notices about it."""
        return self.versions or Succession((self.agreement,), {})

    @cached_property
    def cryptoperiods(self) -> tuple[Cryptoperiod, ...]:
        """Whose keys sign heads of which sizes."""
        return cryptoperiods(self.succession, self.party, self.records)

    def replaced_by(self, agreement: Agreement) -> set[ReplacedKey]:
        """Return the keys of this party that a version replaces."""
        after = next((one for one in agreement.parties if one.name == self.party), None)
        before = self.succession.term_before(agreement, self.party)
        return set(replaced_keys(before, after)) if before and after else set()

    @cached_property
    def obeyed(self) -> tuple[Agreement, ...]:
        """The version that each leaf has to obey: the next one from the leaf that takes it over."""
        current, *following = self.succession.versions
        digests = [one.digest for one in following]
        found: list[Agreement] = []
        for leaf in self.records:
            if digests and isinstance(leaf, AgreementSigned) and leaf.agreement == digests[0]:
                current = following.pop(0)
                del digests[0]
            found.append(current)
        return tuple(found)

    def walk(self, rules: Rules) -> Iterator[tuple[int, Record, Agreement, Rules]]:
        """Yield each leaf with its index, the version that it has to obey, and that one's rules."""
        current: Agreement | None = None
        held = rules
        for index, (leaf, agreement) in enumerate(zip(self.records, self.obeyed, strict=True)):
            if agreement is not current:
                current, held = agreement, rules.under(agreement.digest)
            yield index, leaf, agreement, held

    def finding(self, kind: FindingKind, leaves: int | tuple[int, ...], text: str) -> Finding:
        """Return a finding about leaves of this log; `text` says what the first of them does."""
        indexes = (leaves,) if isinstance(leaves, int) else leaves
        leaf = f"leaf {indexes[-1]} ({self.records[indexes[-1]].kind}) of {self.party}"
        others = [str(index) for index in indexes[:-1]]
        seen = f"; see leaf {', '.join(others)}" if others else ""
        return Finding(kind, self.party, indexes, f"{leaf} {text}{seen}")
