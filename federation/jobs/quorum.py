"""How many partners a job needs, and who was missing from it.

Guarantees: no I/O; an exchange that may go without some partners says so, and what a job leaves
names who was missing, in the agreement's order.

Leaves to others: waiting for parties (`roll_call`), what was answered before a crash (`exchanges`),
secure sums, whose quorum the agreement sets (`secure_sum`).
"""

from collections.abc import Collection, Sequence

from compliance.agreement import Agreement
from compliance.terms import Role
from federation.jobs.exchange import Exchange, Outgoing, Say, Tolerant
from federation.messages import Body, Message
from federation.specification import ExpandSpec, MatchSpec, MeasureSpec, TrainSpec

__all__ = ["Quorum", "is_quorum", "partners_in_order"]

TolerantSpec = MatchSpec | TrainSpec | ExpandSpec | MeasureSpec
"""A job that says how many partners it goes on without."""


def partners_in_order(agreement: Agreement) -> tuple[str, ...]:
    """Return the partners in the agreement's order."""
    return tuple(party.name for party in agreement.by_role(Role.PARTNER))


def is_quorum(
    present: Sequence[str], missing: Sequence[str], spec: TolerantSpec, agreement: Agreement
) -> bool:
    """Tell whether a result names every partner once, in order, and no more as missing than may."""
    partners = partners_in_order(agreement)
    return (
        tuple(present) == tuple(name for name in partners if name not in missing)
        and tuple(missing) == tuple(name for name in partners if name not in present)
        and len(missing) <= spec.absent_partners
        and bool(present)
    )


class Quorum:
    """The partners of one job, of whom some may go missing, at the coordinator.

    Who is missing once is out for the rest of the job.

    Args:
        spec: how many may be missing.
        agreement: all partners.
    """

    def __init__(self, spec: TolerantSpec, agreement: Agreement) -> None:
        self._spec = spec
        self._all = partners_in_order(agreement)
        self._missing: frozenset[str] = frozenset()

    @property
    def present(self) -> tuple[str, ...]:
        """Who has answered whatever it was asked."""
        return tuple(name for name in self._all if name not in self._missing)

    @property
    def missing(self) -> tuple[str, ...]:
        """Who has not."""
        return tuple(name for name in self._all if name in self._missing)

    def say(self, body: Body, payload: bytes = b"") -> Exchange:
        """Say the same to all who are present."""
        return self.ask([Say(name, self._spec.name, body, payload) for name in self.present])

    def ask(self, outgoing: Sequence[Outgoing], *, kept: bool = True) -> Exchange:
        """Say something to some who are present, one thing to each; see `Tolerant`."""
        if not self._spec.absent_partners:
            return outgoing
        return Tolerant(outgoing, self._spec.absent_partners - len(self._missing), kept=kept)

    def hear(self, answers: Sequence[Message], asked: Collection[str] | None = None) -> None:
        """Take note of who answered, of those asked; of all present where left out."""
        there = {answer.header.sender for answer in answers}
        self._missing |= frozenset(self.present if asked is None else asked) - there
