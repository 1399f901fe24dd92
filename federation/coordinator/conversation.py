"""What the coordinator says to parties, and what it hears from them.

Guarantees: what it says itself was released by its gate, and what it carries was sealed by a party;
an answer is verified to be that party's, to that very question. Whoever turns out to speak another
version is missing, as if it were silent, and spoken to no more in this run; where it may not be
missing, that ends the exchange.

Leaves to others: what is to be said (`jobs`), and who is waited for (`roll_call`).
"""

import math
from collections.abc import Generator, Iterable, Mapping, Sequence
from copy import copy
from functools import partial
from typing import Self, TypeVar

from compliance.agreement import Agreement
from compliance.terms import DATA_ROLES
from federation.channel import Channel, Parcel
from federation.clock import Clock, utc_now
from federation.code import looked_at_once
from federation.errors import (
    ForgedError,
    MessageError,
    PartyUnreachableError,
    RefusedError,
    StrangerError,
    VersionError,
    WorkspaceError,
)
from federation.exchanges import Had, KeptExchanges
from federation.gate import Departure, Gate
from federation.jobs.exchange import Exchange, Outgoing, Relay, Tolerant, expect
from federation.messages import (
    EVERYONE,
    AssistAsk,
    Identify,
    Message,
    Present,
    Refused,
    SealedMessage,
    SumAsk,
    TrainRequest,
    unseal,
)
from federation.progress import Progress, report
from federation.roll_call import (
    ROLL_CALL,
    OtherVersion,
    Patience,
    Registered,
    RollCall,
    unregistered,
)
from federation.routes import off_route
from federation.specification import JobSpec
from federation.wire import VERSION_TERM

__all__ = ["Conversation"]

OutcomeT = TypeVar("OutcomeT")

_NOBODY = frozenset[str]()


class Conversation:
    """A coordinator's messages with the parties, in one run.

    Attributes:
        gate: lets out what it says itself.
        there: the nodes of the parties, as far as they are known.
    """

    def __init__(
        self,
        agreement: Agreement,
        gate: Gate,
        channel: Channel,
        *,
        name: str,
        patience: Patience | None = None,
        clock: Clock = utc_now,
        registered: Registered = unregistered,
    ) -> None:
        """Begin one.

        Args:
            agreement: its parties are spoken to.
            gate: the coordinator's own.
            channel: to the nodes.
            name: the coordinator's.
            patience: how long parties that are away are waited for.
            clock: tells until when that is.
            registered: tells whose the key of a node is.
        """
        self._agreement = agreement
        self._channel = channel
        self._name = name
        self._out = _NOBODY
        self._patience_seconds = math.inf
        self.gate = gate
        self.there = RollCall(
            agreement,
            channel,
            self._identify,
            patience=patience,
            clock=clock,
            registered=registered,
        )

    def of_job(self, spec: JobSpec, out: frozenset[str]) -> Self:
        """Return the part of this conversation that is about one job.

        Args:
            spec: the job, which says how long answers of an exchange are waited for, where the
                channel would wait longer.
            out: parties that it goes without: they are not spoken to, as if they were not there.
        """
        part = self.patient(spec.patience_seconds)
        part._out = out  # noqa: SLF001 -- of its own class
        return part

    def without(self, names: frozenset[str]) -> Self:
        """Return this conversation, in which further parties are not spoken to."""
        part = copy(self)
        part._out = self._out | names  # noqa: SLF001 -- of its own class
        return part

    def patient(self, seconds: float) -> Self:
        """Return this conversation, with so many seconds for the answers of an exchange at most."""
        part = copy(self)
        part._patience_seconds = seconds  # noqa: SLF001 -- of its own class
        return part

    @property
    def nodes(self) -> Mapping[str, int]:
        """The node of each party that is there."""
        return {name: node for name, node in self.there.nodes.items() if name not in self._out}

    @property
    def people(self) -> frozenset[str]:
        """The brand and its partners, there or not."""
        return frozenset(
            party.name for party in self._agreement.parties if party.role in DATA_ROLES
        )

    def tell(self, job: str, stage: str) -> None:
        """Report where a job stands."""
        report(Progress(self._name, job, stage))

    def drive(
        self,
        job: Generator[Exchange, Sequence[Message], OutcomeT],
        kept: KeptExchanges | None = None,
    ) -> OutcomeT:
        """Send what a job yields, verify the answers, hand them back, until it returns.

        Args:
            job: the job.
            kept: what was had of its tolerant exchanges before; None where none of them are kept.

        Raises:
            PartyUnreachableError: more answers are missing than it bears.
            MessageError: a party broke the protocol.
            RefusedError: the coordinator's gate, or the job, says no.
        """
        tolerant = 0
        try:
            exchange = next(job)
            while True:
                if not isinstance(exchange, Tolerant):
                    answers = self.exchange(exchange)
                elif kept is None:
                    answers = self.exchange(exchange.outgoing, most_missing=exchange.most_missing)
                else:
                    answers = self._tolerant(exchange, kept, tolerant)
                    tolerant += 1
                exchange = job.send(answers)
        except StopIteration as end:
            outcome: OutcomeT = end.value
            return outcome

    def exchange(self, outgoing: Sequence[Outgoing], *, most_missing: int = 0) -> list[Message]:
        """Say everything; return the verified answers that came, in order.

        Args:
            outgoing: what to say.
            most_missing: answers that may be missing, 0 or more.

        Raises:
            PartyUnreachableError: more are missing, those included whose node is not there.
            VersionError, RefusedError: more are missing, and one of them speaks another version.
        """
        nodes = self.nodes
        away = [item.recipient for item in outgoing if item.recipient not in nodes]
        if len(away) > most_missing:
            self._raise_of_versions(away)
            raise PartyUnreachableError(
                f"no node of {', '.join(away)} is connected: start it, then run again"
            )
        for item in outgoing:
            if item.recipient in away:
                self._tell_missing(item)
        outgoing = [item for item in outgoing if item.recipient not in away]
        if not outgoing:
            return []
        for job, stage in dict.fromkeys((item.job, _stage(item)) for item in outgoing):
            self.tell(job, stage)
        return self._ask(outgoing, nodes, most_missing - len(away))

    def _ask(
        self, outgoing: Sequence[Outgoing], nodes: Mapping[str, int], spare: int
    ) -> list[Message]:
        """Say everything to those who are there; return the verified answers that came, in order.

        Args:
            outgoing: what to say.
            nodes: those of the recipients.
            spare: answers that may be missing, 0 or more.

        Raises:
            PartyUnreachableError, VersionError, RefusedError: as `exchange`.
        """
        with looked_at_once():  # questions to a hundred parties leave together
            sealed = [self._seal(item) for item in outgoing]
        others = 0

        def note(name: str, error: VersionError | RefusedError) -> None:
            nonlocal others
            others += 1
            self.there.note_other(nodes[name], OtherVersion(name, error), outgoing[0].job)
            if others > spare:
                raise error

        parcels = [
            Parcel(
                nodes[name],
                message,
                name,
                on_version=partial(note, name),
                patience_seconds=self._patience_seconds,
            )
            for name, message in sealed
        ]
        answers = self._channel.exchange(parcels, most_missing=spare)
        verified = []
        for item, parcel, answer in zip(outgoing, parcels, answers, strict=True):
            message = self._spoken(parcel, answer, item.job)
            if message is not None:
                verified.append(message)
                continue
            self._tell_missing(item)
        if len(outgoing) - len(verified) > spare:
            self._raise_of_versions(item.recipient for item in outgoing)
        return verified

    def _tolerant(self, exchange: Tolerant, kept: KeptExchanges, number: int) -> list[Message]:
        """Have an exchange that goes on without some parties, or have it as it was before.

        One in which somebody refused is not kept: once mended, all are asked anew.
        """
        if exchange.kept and (had := kept.had(number)) is not None:
            found = self._as_it_was(exchange, had)
            if not _any_refused(found):  # an earlier version kept such ones
                return found
        left_out = _NOBODY if exchange.kept else kept.left_out
        asked = [item for item in exchange.outgoing if item.recipient not in left_out]
        spare = exchange.most_missing - (len(exchange.outgoing) - len(asked))
        answers = self.exchange(asked, most_missing=spare)
        if exchange.kept and _any_refused(answers):
            return answers
        there = {message.header.sender for message in answers}
        named = [item.recipient for item in exchange.outgoing]
        missing = [name for name in named if name not in there]
        others = self.there.versions_of(missing)
        kept.keep(number, missing, answers if exchange.kept else (), others=tuple(others))
        return answers

    def _as_it_was(self, exchange: Tolerant, had: Had) -> list[Message]:
        """Return what was answered in an exchange that was had, verified.

        Raises:
            WorkspaceError: one answers nothing asked now, is damaged, or of another version.
        """
        found = []
        for item in exchange.outgoing:
            name, question = self._seal(item)
            if (answer := had.answer_of(name)) is None:
                continue
            try:
                found.append(self._verified(name, question, answer, item.job))
            except MessageError as error:
                raise WorkspaceError(
                    f"what {name} answered in job {item.job!r} before is of no use any more: "
                    f"{error}. Where the agreement was amended since, Comity was updated, or a "
                    "file is damaged, run the job under another name"
                ) from error
        return found

    def _identify(
        self, nodes: Sequence[int], may_miss: int, patience: float
    ) -> list[Message | None]:
        """Ask nodes which parties they are; one whose answer proves nothing is nobody's."""
        question = self.gate.release(Departure(ROLL_CALL, EVERYONE, Identify())).message
        parcels = [
            Parcel(
                node,
                question,
                on_version=partial(self._note_node, node),
                on_foreign=partial(self.there.note_stranger, node),
                patience_seconds=patience,
            )
            for node in nodes
        ]
        found: list[Message | None] = []
        answers = self._channel.exchange(parcels, most_missing=may_miss)
        for parcel, answer in zip(parcels, answers, strict=True):
            try:
                message = self._spoken(parcel, answer, ROLL_CALL)
                if message is not None:
                    expect(message, Present)
            except (StrangerError, ForgedError) as error:
                self.there.note_stranger(parcel.node, error)
                message = None
            found.append(message)
        return found

    def _note_node(self, node: int, error: VersionError | RefusedError) -> None:
        self.there.note_other(node, OtherVersion(error.party, error), ROLL_CALL)

    def _spoken(self, parcel: Parcel, answer: SealedMessage | None, job: str) -> Message | None:
        """Verify an answer; None, and noted, where one side is of another version than this."""
        if answer is None:
            return None
        error: VersionError | RefusedError
        try:
            message = self._verified(parcel.party, parcel.message, answer, job)
            body = message.body
            if not isinstance(body, Refused) or body.term != VERSION_TERM:
                return message
            sender = message.header.sender
            error = RefusedError(party=sender, term=body.term, remedy=body.remedy)
        except VersionError as caught:
            error = caught
        if parcel.on_version is None:
            raise error
        parcel.on_version(error)
        return None

    def _raise_of_versions(self, names: Iterable[str]) -> None:
        """Raise why one of some parties is missing, if it is for its version."""
        for error in self.there.versions_of(names).values():
            raise error

    def _tell_missing(self, item: Outgoing) -> None:
        self.tell(item.job, f"goes on without {item.recipient}")

    def _seal(self, item: Outgoing) -> tuple[str, SealedMessage]:
        if isinstance(item, Relay):
            return item.recipient, item.message.sealed
        departure = Departure(item.job, item.recipient, item.body, item.payload)
        return item.recipient, self.gate.release(departure).message

    def _verified(
        self, name: str | None, question: SealedMessage, answer: SealedMessage, job: str
    ) -> Message:
        message = self._verify(question, answer, job)
        if name is not None and message.header.sender != name:
            raise MessageError(f"{message.header.sender} answered a question to {name}")
        return message

    def _verify(self, question: SealedMessage, answer: SealedMessage, job: str) -> Message:
        message = unseal(answer, self._agreement)
        if message.header.answers != question.digest:
            raise MessageError(
                f"{message.header.sender} sent an answer to another question: refused as a replay"
            )
        if message.header.job != job and not isinstance(message.body, Refused):
            raise MessageError(
                f"{message.header.sender} answered job {job!r} under {message.header.job!r}"
            )
        if (problem := off_route(message.header, self._agreement)) is not None:
            raise MessageError(f"{message.header.sender}: {problem}")
        return message


def _any_refused(answers: Iterable[Message]) -> bool:
    return any(isinstance(one.body, Refused) for one in answers)


def _stage(item: Outgoing) -> str:
    if isinstance(item, Relay):
        return f"carries {item.message.header.kind}"
    match item.body:
        case SumAsk() as ask:
            return f"says {ask.kind}: {ask.phase}, round {ask.round}"
        case TrainRequest() | AssistAsk() as ask:
            return f"says {ask.kind}, round {ask.round} of {ask.spec.rounds}"
    return f"says {item.body.kind}"
