"""One party's log, read and parsed, as checks take it."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any, TypeVar, cast, overload

from compliance.agreement import Agreement
from compliance.auditing.cryptoperiod import Cryptoperiod, cryptoperiods
from compliance.auditing.finding import Finding, FindingKind
from compliance.auditing.rules import Rules
from compliance.lifecycle import ReplacedKey, Succession, replaced_keys
from compliance.log.checkpoint import Checkpoint
from compliance.log.tiles import Tree
from compliance.records import AgreementSigned, Record
from compliance.records.leaf import Leaf

__all__ = ["Kind", "Other", "PartyLog", "finding_of"]

Kind = TypeVar("Kind", bound=Leaf)
Other = TypeVar("Other", bound=Leaf)


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
        hashed: the tree of the entries, where it is known already.
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
    hashed: Tree | None = None

    def under(self, cosigned_by: tuple[str, ...], public_size: int) -> "PartyLog":
        """Return the log with its last public head."""
        return replace(self, cosigned_by=cosigned_by, public_size=public_size)

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
        found: list[Agreement] = []
        for index, leaf in self.each(AgreementSigned):
            if following and leaf.agreement == following[0].digest:
                found += [current] * (index - len(found))
                current = following.pop(0)
        found += [current] * (len(self.records) - len(found))
        return tuple(found)

    @cached_property
    def places(self) -> Mapping[type[Leaf], Sequence[int]]:
        """Indexes of the leaves of every kind, rising: a check reads what it is about."""
        found: defaultdict[type[Leaf], list[int]] = defaultdict(list)
        for index, kind in enumerate(map(type, self.records)):
            found[kind].append(index)
        return found

    @overload
    def each(self, kind: type[Kind], /) -> Iterator[tuple[int, Kind]]: ...
    @overload
    def each(
        self, kind: type[Kind], other: type[Other], /
    ) -> Iterator[tuple[int, Kind | Other]]: ...
    @overload
    def each(self, *kinds: type[Record]) -> Iterator[tuple[int, Record]]: ...
    def each(self, *kinds: type[Leaf]) -> Iterator[tuple[int, Any]]:
        """Return the leaves of some kinds with their indexes, in order."""
        places = sorted(chain.from_iterable(self.places.get(kind, ()) for kind in kinds))
        return zip(places, map(self.records.__getitem__, places), strict=True)

    @overload
    def walk(
        self, rules: Rules, kind: type[Kind], /
    ) -> Iterator[tuple[int, Kind, Agreement, Rules]]: ...
    @overload
    def walk(
        self, rules: Rules, kind: type[Kind], other: type[Other], /
    ) -> Iterator[tuple[int, Kind | Other, Agreement, Rules]]: ...
    @overload
    def walk(
        self, rules: Rules, *kinds: type[Record]
    ) -> Iterator[tuple[int, Record, Agreement, Rules]]: ...
    def walk(self, rules: Rules, *kinds: type[Leaf]) -> Iterator[tuple[int, Any, Agreement, Rules]]:
        """Yield leaves of some kinds, with the version that each obeys and that one's rules."""
        current: Agreement | None = None
        held = rules
        obeyed = self.obeyed
        for index, leaf in self.each(*cast("tuple[type[Record], ...]", kinds)):
            agreement = obeyed[index]
            if agreement is not current:
                current, held = agreement, rules.under(agreement.digest)
            yield index, leaf, agreement, held

    @cached_property
    def tree(self) -> Tree:
        """The tree of all entries."""
        return self.hashed or Tree(self.entries)

    def begins_with(self, head: Checkpoint) -> bool:
        """Tell whether the first entries, as many as a head counts, have its root."""
        if head.tree_size > self.tree.size:
            return False
        return self.tree.root_hash(head.tree_size) == head.root_hash

    def finding(self, kind: FindingKind, leaves: int | tuple[int, ...], text: str) -> Finding:
        """Return a finding about leaves of this log; `text` says what the first of them does."""
        indexes = (leaves,) if isinstance(leaves, int) else leaves
        return finding_of(kind, self.party, indexes, self.records[indexes[-1]].kind, text)


def finding_of(
    kind: FindingKind, party: str, indexes: tuple[int, ...], leaf_kind: str, text: str
) -> Finding:
    """Return a finding about leaves: the last, of `leaf_kind`, does what `text` says."""
    others = [str(index) for index in indexes[:-1]]
    seen = f"; see leaf {', '.join(others)}" if others else ""
    return Finding(
        kind, party, indexes, f"leaf {indexes[-1]} ({leaf_kind}) of {party} {text}{seen}"
    )
