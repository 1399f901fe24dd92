"""Who is there: which node is whose, and whom a job waits for.

Guarantees: everybody a job could use is waited for, until the channel's deadline, once in a run;
before each job after that it is looked who has come meanwhile. Whoever a job cannot do without and
is not there then is named. Whom it waits for, and until when, is told at once. Parties that a job
can do without are as many partners as it says itself (`absent_partners`), and in a training by
secure sums as many as the agreement says. Who speaks another version is absent, told at once, and
waited for by nobody; it is asked again before each job, in passing: there whoever has registered a
node's key counts for whose it is, and the node's own word, which is not signed, only where nothing
tells that. Any other node of nobody who signed is let be, whatever it
answers: also in a party's name.

Leaves to others: asking a node which party it is, and believing it (`coordinator`).
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from compliance.agreement import Agreement
from compliance.terms import NoiseSource, Role
from federation.channel import Channel
from federation.clock import Clock, utc_now
from federation.errors import (
    MessageError,
    PartyUnreachableError,
    RefusedError,
    StrangerError,
    VersionError,
)
from federation.jobs.assist import spare_scorers
from federation.jobs.secure_sum import partners_of, spare_partners
from federation.messages import Message, printable
from federation.progress import Progress, report, until
from federation.specification import (
    ExpandSpec,
    JobSpec,
    MatchSpec,
    MeasureSpec,
    TrainSpec,
    VerticalScoreSpec,
)

__all__ = [
    "ROLL_CALL",
    "OtherVersion",
    "Patience",
    "Registered",
    "RollCall",
    "spare",
    "unregistered",
]

ROLL_CALL = "roll-call"
"""What the question to all nodes is filed under, which belongs to no job."""

PASSING_SECONDS: Final = 10.0
"""How long a node of another version is waited for that may have been updated meanwhile."""

Identify = Callable[[Sequence[int], int, float], Sequence[Message | None]]
"""Asks nodes which parties they are.

The second argument is how many may give no answer, the third for how many seconds one is waited for
at most. Nodes of other versions, and strangers', are noted and give none.
"""


Registered = Callable[[int], str | None]
"""Tells under whose name the key of a node is registered; None where that is not known."""


def unregistered(_: int) -> str | None:
    """Tell of no node whose key it has, where nobody registers keys."""
    return None


NOTHING_DUE_SECONDS: Final = 30.0
"""How long parties are waited for where no job is due.

Whoever is away hears of everything at the next run. A node whose coordinator was away calls again
every ten seconds at least (`federation.apps.superlink`).
"""


@dataclass(frozen=True)
class Patience:
    """How long a run waits for parties to connect and say who they are, in seconds.

    A job may say less itself.

    Attributes:
        jobs: where jobs are due.
        nothing_due: where parties have only to be told something.
    """

    jobs: float = math.inf
    nothing_due: float = NOTHING_DUE_SECONDS

    @classmethod
    def of(cls, deadline_seconds: float, wished: float | None) -> "Patience":
        """Return that of a coordinator, unless somebody wished another one for this run."""
        if wished is not None:
            return cls(wished, wished)
        return cls(deadline_seconds, min(deadline_seconds, NOTHING_DUE_SECONDS))


@dataclass(frozen=True)
class OtherVersion:
    """A node that does not speak with the version here.

    Attributes:
        party: whose it is, by its key, or else by its own account alone; None where it gives none.
        error: what it is told by, where somebody cannot do without it.
    """

    party: str | None
    error: VersionError | RefusedError


class RollCall:
    """The nodes of an agreement's parties, as far as they are known.

    Args:
        agreement: its brand and partners have nodes.
        channel: to the nodes.
        identify: asks them.
        patience: how long anybody is waited for.
        clock: tells until when that is.
        registered: tells whose the key of a node is.
    """

    def __init__(
        self,
        agreement: Agreement,
        channel: Channel,
        identify: Identify,
        *,
        patience: Patience | None = None,
        clock: Clock = utc_now,
        registered: Registered = unregistered,
    ) -> None:
        self._registered = registered
        self.patience = patience or Patience()
        self._clock = clock
        self._agreement = agreement
        self._name = agreement.by_role(Role.COORDINATOR)[0].name
        self._channel = channel
        self._identify = identify
        self._people = frozenset(
            party.name for party in agreement.parties if party.role in (Role.BRAND, Role.PARTNER)
        )
        self._nodes: dict[str, int] = {}
        self._waited_for: dict[str, float] = {}  # how long at most
        self._silent: frozenset[int] = frozenset()
        self._others: dict[int, OtherVersion] = {}
        self._strangers: set[int] = set()

    @property
    def nodes(self) -> Mapping[str, int]:
        """The node of each party that is there."""
        return self._nodes

    def note_other(self, node: int, other: OtherVersion, job: str) -> None:
        """Take a node for absent that speaks another version, and tell of it once.

        Whose it is, it may have said in another's name: only who was there by it, or has registered
        its key, is named as such.
        """
        names = [name for name, one in self._nodes.items() if one == node]
        registered = None if names else self._registered(node)
        if registered is not None:
            other = OtherVersion(registered, other.error)
        known, self._others[node] = self._others.get(node), other
        for name in names:
            del self._nodes[name]
        if known is None or str(known.error) != str(other.error):
            account = "its key" if registered else "its own account"
            claimed = f", {other.party}'s by {account}," if other.party else ""
            who = names[0] if names else f"node {node}{claimed}"
            told = f"takes {who} for absent: {other.error}"
            report(Progress(self._name, job, told, absent=other.party or f"node {node}"))

    def note_stranger(self, node: int, error: MessageError) -> None:
        """Let a node be that proves to be nobody's who signed the agreement, and say so once.

        Args:
            node: that one.
            error: what is wrong with its answer.
        """
        self._others.pop(node, None)  # it was updated meanwhile
        if node not in self._strangers:
            self._strangers.add(node)
            said = printable(str(error))
            why = "it is" if isinstance(error, StrangerError) else f"its answer ({said}) is"
            told = f"lets node {node} be: {why} of nobody who signed this agreement"
            report(Progress(self._name, ROLL_CALL, told))

    def versions_of(self, names: Iterable[str]) -> Mapping[str, VersionError | RefusedError]:
        """Return why they are absent, of those parties who are so for their version alone."""
        others = {one.party: one.error for one in self._others.values()}
        return {name: others[name] for name in names if name in others and name not in self._nodes}

    def gather(self, spec: JobSpec, left_out: frozenset[str]) -> None:
        """Find the parties of a job, and wait for those who were not waited for yet.

        Args:
            spec: the job.
            left_out: parties that it goes on without already.

        Raises:
            PartyUnreachableError: a party that it cannot do without is not there.
            VersionError: it is there, and speaks another version.
            RefusedError: likewise, as it says itself.
        """
        partners = frozenset(partners_of(self._agreement))
        most = spare(spec, self._agreement)
        dispensable = partners - left_out if most else frozenset[str]()
        wanted = self._people - left_out if most else self._people
        most = max(0, most - len(partners & left_out))
        self._look(wanted, most, spec.name, spec.patience_seconds)
        missing = wanted - self._nodes.keys()
        if missing - dispensable or len(missing) > most:
            if others := self._versions_that_may_be_of(missing):
                raise others[0]
            without = f"{most} of its partners at most" if most else "none of them"
            raise PartyUnreachableError(
                f"no node of {', '.join(sorted(missing))} is connected, and job {spec.name!r} can "
                f"do without {without}: start it, then run again"
            )

    def seek(self, wanted: frozenset[str], *, patience_seconds: float = math.inf) -> frozenset[str]:
        """Find parties that are to be told something, and return who of them did not come."""
        self._look(wanted, len(wanted), ROLL_CALL, patience_seconds)
        return wanted - self._nodes.keys()

    def _versions_that_may_be_of(
        self, missing: frozenset[str]
    ) -> Sequence[VersionError | RefusedError]:
        """Return why parties may be missing: a node that gives no name may be any one's."""
        of_nobody = [one.error for one in self._others.values() if one.party is None]
        return [*self.versions_of(sorted(missing)).values(), *of_nobody]

    def _ask_others_again(self) -> None:
        """Ask nodes of other versions, in passing, whether they have been updated."""
        there = set(self._channel.nodes(0))
        again = [node for node in self._others if node in there]
        answers = self._identify(again, len(again), PASSING_SECONDS) if again else ()
        for node, answer in zip(again, answers, strict=True):
            if answer is not None:
                del self._others[node]
                self._nodes[answer.header.sender] = node

    def _look(
        self, wanted: frozenset[str], may_miss: int, job: str, patience_seconds: float
    ) -> None:
        """Find the parties' nodes; a node of somebody else takes nobody's place.

        It asks those that are there already before it waits, so that it can say for whom. Nodes
        that are known are not asked again. One that is there and gives no answer is taken for one
        of those that are missing: nobody is waited for in its place, nor is its own answer again
        where it may be missing. So is one of another version, unless it says whose it is.
        """
        if not wanted - self._nodes.keys():
            return
        patience_seconds = min(patience_seconds, self.patience.jobs)
        self._ask_others_again()
        absent = wanted - self._nodes.keys()
        waited = self._waited_for
        patient = frozenset(one for one in wanted if waited.get(one, 0.0) < patience_seconds)
        waited |= dict.fromkeys(patient, patience_seconds)
        asked: dict[int, str | None] = {node: name for name, node in self._nodes.items()}
        asked |= dict.fromkeys((*self._others, *self._strangers))
        if len(absent) <= may_miss:
            asked |= dict.fromkeys(self._silent)
        at_least = 0
        while True:
            nodes = self._channel.nodes(at_least, patience_seconds=patience_seconds)
            fresh = [node for node in dict.fromkeys(nodes) if node not in asked]
            needed = len(wanted - set(asked.values())) - may_miss
            most = max(0, len(fresh) - max(0, needed))
            answers = self._identify(fresh, most, patience_seconds) if fresh else ()
            for node, answer in zip(fresh, answers, strict=True):
                asked[node] = None if answer is None else answer.header.sender
            found = {name: node for node, name in asked.items() if name is not None}
            missing = (wanted - found.keys() - self._claimed) & patient
            silent = sum(
                name is None and not self._takes_nobodys_place(node) for node, name in asked.items()
            )
            if len(missing) <= silent or len(nodes) < at_least:  # the deadline has passed
                break
            if at_least == 0:
                now = self._clock()
                told = f"waits for {', '.join(sorted(missing))}{until(patience_seconds, now)}"
                report(Progress(self._name, job, told))
            at_least = len(nodes) + len(missing) - silent
        self._nodes |= found
        nameless = {node for node, name in asked.items() if name is None}
        self._silent = frozenset(nameless - self._others.keys() - self._strangers)

    @property
    def _claimed(self) -> frozenset[str]:
        """Whose the nodes of other versions say they are."""
        return frozenset(one.party for one in self._others.values() if one.party is not None)

    def _takes_nobodys_place(self, node: int) -> bool:
        """Tell whether a node is none of those that are missing, or says of which one it is."""
        other = self._others.get(node)
        return node in self._strangers or (other is not None and other.party is not None)


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
