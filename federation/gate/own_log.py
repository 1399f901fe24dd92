"""The party's own log, as its gate writes it.

Guarantees: every leaf bears time, party, agreement and job.
"""

from compliance import records
from compliance.agreement import Agreement
from compliance.log.writer import LogWriter
from federation.clock import Clock
from federation.gate.departure import Leaf
from federation.log_reading import own_leaves
from federation.party import PartyFolder

__all__ = ["OwnLog"]


class OwnLog:
    """The log of one party under one agreement, which is told what the party does."""

    def __init__(
        self, folder: PartyFolder, agreement: Agreement, log: LogWriter, *, clock: Clock
    ) -> None:
        self._folder = folder
        self._agreement = agreement
        self._digest = agreement.digest  # of every leaf: worked out once
        self._log = log
        self._clock = clock

    @property
    def is_empty(self) -> bool:
        """Whether it has no leaf yet."""
        return self._log.tree_size == 0

    def leaves(self) -> tuple[records.Record, ...]:
        """Verify the log, and return its leaves in order: all, or those that were not pruned."""
        return own_leaves(self._folder, self._agreement)

    def leaf(self, kind: Leaf, job: str | None, **fields: object) -> records.Record:
        """Return a leaf, its common fields filled in, yet to be recorded."""
        common = {
            "time": self._clock(),
            "party": self._folder.name,
            "agreement": self._digest,
            "job": job,
        }
        return kind(**common, **fields)

    def record(self, *leaves: records.Record) -> None:
        """Append leaves to the party's log."""
        self._log.append([records.to_leaf(leaf) for leaf in leaves])

    def note(self, kind: Leaf, job: str | None, **fields: object) -> None:
        """Append one leaf about what this party did, its common fields filled in."""
        self.record(self.leaf(kind, job, **fields))
