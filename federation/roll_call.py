"""Who is there: which node is whose, and whom a job waits for.

Guarantees: everybody a job could use is waited for, until the channel's deadline, once in a run;
before each job after that it is looked who has come meanwhile. Whoever a job cannot do without and
is not there then is named. Whom it waits for is told at once. Parties that a job can do without are
as many partners as it says itself (`absent_partners`), and in a training by secure sums as many as
the agreement says.

Leaves to others: asking a node which party it is, and believing it (`coordinator`).
"""

from collections.abc import Callable, Mapping, Sequence

from compliance.agreement import Agreement
from compliance.terms import NoiseSource, Role
from federation.channel import Channel
from federation.errors import PartyUnreachableError
from federation.jobs.assist import spare_scorers
from federation.jobs.secure_sum import partners_of, spare_partners
from federation.messages import Message
from federation.progress import Progress, report
from federation.specification import (
    ExpandSpec,
    JobSpec,
    MatchSpec,
    MeasureSpec,
    TrainSpec,
    VerticalScoreSpec,
)

__all__ = ["ROLL_CALL", "RollCall", "spare"]

ROLL_CALL = "roll-call"
"""What the question to all nodes is filed under, which belongs to no job."""

Identify = Callable[[Sequence[int], int], Sequence[Message | None]]
"""Asks nodes which parties they are; the second argument is how many may give no answer."""


class RollCall:
    """The nodes of an agreement's parties, as far as they are known.

    Args:
        agreement: its brand and partners have nodes.
        channel: to the nodes.
        identify: asks them.
    """

    def __init__(self, agreement: Agreement, channel: Channel, identify: Identify) -> None:
        self._agreement = agreement
        self._name = agreement.by_role(Role.COORDINATOR)[0].name
        self._channel = channel
        self._identify = identify
        self._people = frozenset(
            party.name for party in agreement.parties if party.role in (Role.BRAND, Role.PARTNER)
        )
        self._nodes: dict[str, int] = {}
        self._waited_for: frozenset[str] = frozenset()
        self._silent: frozenset[int] = frozenset()

    @property
    def nodes(self) -> Mapping[str, int]:
        """The node of each party that is there."""
        return self._nodes

    def gather(self, spec: JobSpec, left_out: frozenset[str]) -> None:
        """Find the parties of a job, and wait for those who were not waited for yet.

        Args:
            spec: the job.
            left_out: parties that it goes on without already.

        Raises:
            PartyUnreachableError: a party that it cannot do without is not there.
        """
        partners = frozenset(partners_of(self._agreement))
        most = spare(spec, self._agreement)
        dispensable = partners - left_out if most else frozenset[str]()
        wanted = self._people - left_out if most else self._people
        most = max(0, most - len(partners & left_out))
        self._look(wanted, most, spec.name)
        missing = wanted - self._nodes.keys()
        if missing - dispensable or len(missing) > most:
            without = f"{most} of its partners at most" if most else "none of them"
            raise PartyUnreachableError(
                f"no node of {', '.join(sorted(missing))} is connected, and job {spec.name!r} can "
                f"do without {without}: start it, then run again"
            )

    def seek(self, wanted: frozenset[str]) -> None:
        """Find parties that are to be told something; it is no error if they do not come."""
        self._look(wanted, len(wanted), ROLL_CALL)

    def _look(self, wanted: frozenset[str], may_miss: int, job: str) -> None:
        """Find the parties' nodes; a node of somebody else takes nobody's place.

        It asks those that are there already before it waits, so that it can say for whom. Nodes
        that are known are not asked again. One that is there and gives no answer is taken for one
        of those that are missing: nobody is waited for in its place, nor is its own answer again
        where it may be missing.
        """
        absent = wanted - self._nodes.keys()
        if not absent:
            return
        patient, self._waited_for = wanted - self._waited_for, self._waited_for | wanted
        asked: dict[int, str | None] = {node: name for name, node in self._nodes.items()}
        if len(absent) <= may_miss:
            asked |= dict.fromkeys(self._silent)
        at_least = 0
        while True:
            nodes = self._channel.nodes(at_least)
            fresh = [node for node in dict.fromkeys(nodes) if node not in asked]
            needed = len(wanted - set(asked.values())) - may_miss
            answers = self._identify(fresh, max(0, len(fresh) - max(0, needed))) if fresh else ()
            for node, answer in zip(fresh, answers, strict=True):
                asked[node] = None if answer is None else answer.header.sender
            found = {name: node for node, name in asked.items() if name is not None}
            missing = (wanted - found.keys()) & patient
            silent = sum(name is None for name in asked.values())
            if len(missing) <= silent or len(nodes) < at_least:  # the deadline has passed
                break
            if at_least == 0:
                report(Progress(self._name, job, f"waits for {', '.join(sorted(missing))}"))
            at_least = len(nodes) + len(missing) - silent
        self._nodes |= found
        self._silent = frozenset(node for node, name in asked.items() if name is None)


def spare(spec: JobSpec, agreement: Agreement) -> int:
    """Return how many partners a job can do without when it begins."""
    match spec:
        case TrainSpec() if spec.noise is not NoiseSource.LOCAL:
            return spare_partners(spec, agreement)
        case VerticalScoreSpec():
            return spare_scorers(spec, agreement)
        case MatchSpec() | TrainSpec() | ExpandSpec() | MeasureSpec():
            return spec.absent_partners
    return 0
