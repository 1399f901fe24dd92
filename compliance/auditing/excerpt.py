"""What of one log the others are held against: few of its leaves, so that it can be passed around.

Guarantees: holds every leaf that a check of all logs together asks for, with its index.

Leaves to others: the checks (`together`), the log itself (`party_log`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, overload

from compliance import records
from compliance.agreement import Agreement
from compliance.auditing.finding import Finding, FindingKind
from compliance.auditing.party_log import Kind, Other, PartyLog, finding_of
from compliance.naming import named, version_of
from compliance.records.leaf import Leaf
from compliance.terms import Role

__all__ = ["ACKNOWLEDGED", "PARTS", "PUBLISHED", "Excerpt", "is_in_job"]

ACKNOWLEDGED = "acknowledged"
"""What is said where a message came; its release is named after that message."""

PARTS = frozenset({"train.update", "sum.noised", "sum.exact", "measure.counts"})
"""What a party gives to a model over rows, once a round, and to a measurement, once."""

PUBLISHED = frozenset({"model.published", "measure.published"})
"""What a coordinator says results by."""

_IN_JOBS = frozenset({"match", "align", "train", "sum", "assist", "expand", "measure"})
"""First words of what a party says in a job that the coordinator has begun."""

_KEPT = (
    records.JobStarted,
    records.JobEnded,
    records.MatchBound,
    records.ModelTrained,
    records.MeasurementMade,
    records.BudgetCommitted,
    records.BudgetRefunded,
    records.ApprovalReceived,
    records.ErasureCompleted,
)


def is_in_job(leaf: records.Record) -> bool:
    """Tell whether a party releases what it says in a job alone."""
    return isinstance(leaf, records.Release) and leaf.computation.partition(".")[0] in _IN_JOBS


@dataclass(frozen=True)
class Excerpt:
    """What one log tells.

    Attributes:
        party: whose log.
        agreement: the contract; the last version at hand that names the party.
        versions: of it, up to that one.
        tree_size: leaves of the log.
        public_size: leaves of its last public head; None if there is none.
        cosigned_by: who cosigned that head.
        sent: beginnings of the digests of all messages that left, 16 hexadecimal digits each.
        kept: leaves with their indexes, in order; of releases those with a charge, parts of
            results, results, those that acknowledge a message, and the first of each job.
    """

    party: str
    agreement: Agreement
    versions: tuple[Agreement, ...]
    tree_size: int
    public_size: int | None
    cosigned_by: tuple[str, ...]
    sent: frozenset[str]
    kept: tuple[tuple[int, records.Record], ...]

    @classmethod
    def of(cls, log: PartyLog) -> "Excerpt":
        """Take from a log what others are held against."""
        releases = list(log.each(records.Release))
        first = {leaf.job: index for index, leaf in reversed(releases) if is_in_job(leaf)}
        begun = frozenset(first.values())
        told = [
            (index, leaf)
            for index, leaf in releases
            if leaf.charge_id is not None
            or leaf.computation in {ACKNOWLEDGED, *PARTS, *PUBLISHED}
            or index in begun
        ]
        return cls(
            party=log.party,
            agreement=log.agreement,
            versions=log.succession.versions,
            tree_size=len(log.records),
            public_size=log.public_size,
            cosigned_by=log.cosigned_by,
            sent=frozenset(leaf.content_digest[:16] for _, leaf in releases),
            kept=tuple(sorted((*told, *log.each(*_KEPT)), key=lambda one: one[0])),
        )

    @overload
    def each(self, kind: type[Kind], /) -> Iterator[tuple[int, Kind]]: ...
    @overload
    def each(
        self, kind: type[Kind], other: type[Other], /
    ) -> Iterator[tuple[int, Kind | Other]]: ...
    @overload
    def each(self, *kinds: type[records.Record]) -> Iterator[tuple[int, records.Record]]: ...
    def each(self, *kinds: type[Leaf]) -> Iterator[tuple[int, Any]]:
        """Yield the kept leaves of some kinds with their indexes, in order."""
        for index, leaf in self.kept:
            if isinstance(leaf, kinds):
                yield index, leaf

    def parties_of(self, leaf: records.ModelTrained | records.MeasurementMade) -> frozenset[str]:
        """Return the names of whose people a result is made."""
        return frozenset(named(leaf.parties, version_of(leaf, self.versions)))

    def missing_of(self, leaf: records.ModelTrained | records.MeasurementMade) -> frozenset[str]:
        """Return the names of partners that a result goes without."""
        return frozenset(named(leaf.missing, version_of(leaf, self.versions)))

    def coordinator_of(self, leaf: records.Record) -> str:
        """Return the name of who coordinates under the version that a leaf is under."""
        (coordinator,) = version_of(leaf, self.versions).by_role(Role.COORDINATOR)
        return coordinator.name

    def finding(self, kind: FindingKind, index: int, text: str) -> Finding:
        """Return a finding about a kept leaf; `text` says what it does."""
        (leaf,) = (leaf for at, leaf in self.kept if at == index)
        return finding_of(kind, self.party, (index,), leaf.kind, text)
