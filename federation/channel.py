"""How sealed messages travel: a thin interface, and its form over Flower's Grid.

Guarantees: every question gets its own answer or the whole exchange fails; a partial result is
never returned as a whole one. Replies are polled at our own pace, often at first and then once a
second, because Flower's own waits three seconds between looks.

Leaves to others: what is said and whether it can be believed (`messages`, `coordinator`).
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from flwr.app import Array, ArrayRecord, ConfigRecord, MessageType, RecordDict
from flwr.app import Message as FlowerMessage
from flwr.common.constant import ErrorCode

from federation.clock import utc_now
from federation.errors import (
    ForgedError,
    MessageError,
    PartyUnreachableError,
    RefusedError,
    VersionError,
)
from federation.messages import SealedMessage, printable
from federation.progress import until
from federation.wire import other_bundle

__all__ = [
    "Channel",
    "GridChannel",
    "GridFailingError",
    "NodesGrid",
    "Parcel",
    "from_record",
    "to_record",
]

ENVELOPE = "comity.envelope"
PAYLOAD = "comity.payload"

INLINE_BYTES = 1 << 18
"""A payload up to this size travels beside its envelope."""

SLOWEST_POLL_SECONDS = 1.0
TOLD_SECONDS = 10.0
_REASON_LENGTH = 100

_T = TypeVar("_T")

_AS_IT_IS = "comity.bytes"
"""How an array's content is written: numpy's own form would be copied at both ends."""


@dataclass(frozen=True)
class Parcel:
    """A sealed message, the node it goes to, and the party there where that is known.

    Attributes:
        node: where it goes.
        message: what goes there.
        party: whose node that is.
        on_version: told at once that the node runs another version, which then counts as no answer
            and not as one of those missing; what it raises ends the exchange.
        on_foreign: likewise, that the answer is no message of ours; None where that ends the
            exchange.
        patience_seconds: how long the answer is waited for where the channel would wait longer.
    """

    node: int
    message: SealedMessage
    party: str | None = None
    on_version: Callable[[VersionError | RefusedError], None] | None = None
    on_foreign: Callable[[ForgedError], None] | None = None
    patience_seconds: float = math.inf

    @property
    def addressee(self) -> str:
        """Whom an operator would look for."""
        return f"{self.party} (node {self.node})" if self.party else f"node {self.node}"


class Channel(Protocol):
    """Carries questions to nodes and brings back their answers."""

    def nodes(self, at_least: int, *, patience_seconds: float = math.inf) -> Sequence[int]:
        """Return the nodes that are connected.

        Args:
            at_least: so many are waited for; after the deadline those that are there are returned.
            patience_seconds: how long they are waited for where the channel would wait longer.
        """
        ...

    def exchange(
        self, parcels: Sequence[Parcel], *, most_missing: int = 0
    ) -> Sequence[SealedMessage | None]:
        """Send every parcel and return every answer, in the same order.

        Args:
            parcels: to one node each.
            most_missing: how many answers may be missing; None stands in their place.

        Raises:
            PartyUnreachableError: more are missing, or as many nodes failed.
            VersionError: a node runs another version of this project, and its parcel has nobody
                who is told.
            MessageError: an answer is no message of ours, and its parcel has nobody who is told.
        """
        ...


class GridFailingError(Exception):
    """A Grid cannot do what it was asked now, and may be able to later."""


class NodesGrid(Protocol):
    """What a channel needs of Flower's Grid; each call may raise GridFailingError."""

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes that are connected."""
        ...

    def push_messages(self, messages: Sequence[FlowerMessage]) -> Iterable[str]:
        """Push messages; return their identifiers."""
        ...

    def pull_messages(self, message_ids: Sequence[str]) -> Iterable[FlowerMessage]:
        """Return the replies that are there to messages of these identifiers."""
        ...


def to_record(message: SealedMessage) -> RecordDict:
    """Put a sealed message into Flower's record.

    Each part of a record travels by a request of its own. A small payload is therefore put beside
    the envelope; a large one into an array of bytes, which Flower streams in pieces.
    """
    envelope = {"json": message.envelope.decode()}
    if len(message.payload) <= INLINE_BYTES:
        return RecordDict({ENVELOPE: ConfigRecord(envelope | {"payload": message.payload})})
    size = len(message.payload)
    array = Array(dtype="uint8", shape=(size,), stype=_AS_IT_IS, data=message.payload)
    return RecordDict({ENVELOPE: ConfigRecord(envelope), PAYLOAD: ArrayRecord({"bytes": array})})


def from_record(record: RecordDict) -> SealedMessage:
    """Take a sealed message out of Flower's record.

    Raises:
        MessageError: the record holds something else.
    """
    try:
        parts = record.config_records[ENVELOPE]
        envelope = parts["json"].encode()
        payload = parts["payload"] if "payload" in parts else _content(record)
    except Exception as error:  # Flower raises whatever it meets in a foreign record
        raise MessageError(
            f"record without {ENVELOPE} and {PAYLOAD}: both sides must run the same version"
        ) from error
    if not isinstance(payload, bytes):
        raise MessageError(f"record whose {PAYLOAD} is no row of bytes")
    return SealedMessage(envelope, payload)


def _content(record: RecordDict) -> bytes | None:
    """Return the bytes of an array that `to_record` made, without a copy; None of another."""
    array = record.array_records[PAYLOAD]["bytes"]
    is_ours = (array.dtype, array.stype) == ("uint8", _AS_IT_IS)
    return array.data if is_ours and tuple(array.shape) == (len(array.data),) else None


class GridChannel:
    """A channel over any Flower Grid: the SuperLink's, or the embedded one.

    Args:
        grid: Flower's.
        deadline_seconds: for all answers of one exchange, and for nodes to connect.
        nodes_seconds: for nodes to connect, where that is another.
        poll_seconds: what passes at least from one look for answers to the next, which may itself
            wait; a tenth of the time already waited where that is longer, up to a second.
        clock: monotonic seconds.
        check_wanted: called before every exchange and at every look for answers; what it raises
            ends the exchange.
        tell: told in one line that the Grid fails, and is asked again; that it does so no more; and
            whose answers are waited for after `TOLD_SECONDS`, and until when.
    """

    def __init__(
        self,
        grid: NodesGrid,
        *,
        deadline_seconds: float = 600.0,
        nodes_seconds: float | None = None,
        poll_seconds: float = 0.05,
        clock: Callable[[], float] = time.monotonic,
        check_wanted: Callable[[], None] = lambda: None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._grid = grid
        self._deadline = deadline_seconds
        self._nodes_deadline = deadline_seconds if nodes_seconds is None else nodes_seconds
        self._poll = poll_seconds
        self._clock = clock
        self._check_wanted = check_wanted
        self._tell = tell
        self._is_failing = False

    def nodes(self, at_least: int, *, patience_seconds: float = math.inf) -> Sequence[int]:
        """Return the connected nodes in ascending order; see `Channel.nodes`."""
        patience = min(self._nodes_deadline, patience_seconds)
        end = self._clock() + patience
        while True:
            self._check_wanted()
            found = self._until_taken(lambda: sorted(self._grid.get_node_ids()), patience)
            if len(found) >= at_least or self._clock() > end:
                return found
            time.sleep(self._poll)

    def exchange(
        self, parcels: Sequence[Parcel], *, most_missing: int = 0
    ) -> Sequence[SealedMessage | None]:
        """Send and wait for every answer; see `Channel.exchange`.

        A node is missing when Flower says that it failed, or after the deadline.
        """
        self._check_wanted()
        patience = min((self._deadline, *(one.patience_seconds for one in parcels)))
        sent = self._until_taken(lambda: self._send(parcels), patience)
        answers: dict[str, SealedMessage | None] = {}
        missing: set[str] = set()
        begun, told = self._clock(), False
        while True:
            looked = self._clock()
            asked = {one: sent[one] for one in sent if one not in answers}
            found, failed = self._collect(asked, most_missing - len(missing))
            answers |= found
            missing |= failed
            waited = self._clock() - begun
            late = {
                one: parcel
                for one, parcel in asked.items()
                if one not in answers and waited > min(self._deadline, parcel.patience_seconds)
            }
            if len(missing) + len(late) > most_missing and late:
                silent = ", ".join(parcel.addressee for parcel in late.values())
                patience = min(self._deadline, *(one.patience_seconds for one in late.values()))
                where = "why the SuperLink fails" if self._is_failing else "what runs there"
                raise PartyUnreachableError(
                    f"no answer from {silent} within {patience:g} s: look at {where}, then run "
                    "again"
                )
            missing |= late.keys()
            answers |= dict.fromkeys(late)
            if len(answers) == len(sent):
                return [answers[one] for one in sent]
            if waited > TOLD_SECONDS and not told:
                self._tell_waiting([sent[one] for one in sent if one not in answers], waited)
                told = True
            pause = min(max(self._poll, waited / 10), SLOWEST_POLL_SECONDS)
            time.sleep(max(0.0, looked + pause - self._clock()))
            self._check_wanted()

    def _tell_waiting(self, silent: Sequence[Parcel], waited: float) -> None:
        """Tell whose answers are waited for, and until when the first of them may come."""
        left = min(self._deadline, *(one.patience_seconds for one in silent)) - waited
        whose = ", ".join(one.addressee for one in silent)
        self._tell(f"waits for the answer of {whose}{until(left, utc_now())}")

    def _until_taken(self, step: Callable[[], _T], patience: float) -> _T:
        """Take a step of the Grid's; again where that fails, for so many seconds.

        A message that was pushed, and of which Flower did not say so, is pushed twice: a party
        answers the same question alike.
        """
        begun = self._clock()
        while True:
            try:
                taken = step()
            except GridFailingError as error:
                self._note_failing(error)
                waited = self._clock() - begun
                if waited > patience:
                    raise PartyUnreachableError(
                        f"the SuperLink has failed for {patience:g} s ({error}): its own log says "
                        "why; mend it, then run again"
                    ) from error
                time.sleep(min(max(self._poll, waited / 10), SLOWEST_POLL_SECONDS))
                self._check_wanted()
            else:
                self._note_failing(None)
                return taken

    def _note_failing(self, error: GridFailingError | None) -> None:
        """Tell that the Grid begins to fail, or has ceased to."""
        if self._is_failing is (error is not None):
            return
        self._is_failing = error is not None
        again = f"the SuperLink fails ({error}): it is asked again until it answers"
        self._tell(again if error else "the SuperLink answers again")

    def _send(self, parcels: Sequence[Parcel]) -> Mapping[str, Parcel]:
        """Push every parcel; return them by the id that Flower gave each, in order."""
        pushed = list(
            self._grid.push_messages(
                [
                    FlowerMessage(to_record(parcel.message), parcel.node, MessageType.QUERY)
                    for parcel in parcels
                ]
            )
        )
        taken = [one for one in pushed if one]
        if len(taken) != len(parcels):  # Flower says so by a short list, or by None in it
            raise PartyUnreachableError(
                f"Flower took {len(taken)} of {len(parcels)} messages: the SuperLink's own log "
                "says why"
            )
        return dict(zip(taken, parcels, strict=True))

    def _collect(
        self, asked: Mapping[str, Parcel], may_fail: int
    ) -> tuple[Mapping[str, SealedMessage | None], set[str]]:
        """Pull the answers that are there, by the id of the message that each one answers.

        Returns:
            The answers, and which of them are missing because the node failed.
        """
        found: dict[str, SealedMessage | None] = {}
        failed: set[str] = set()
        for reply in self._pulled(list(asked)):
            question = reply.metadata.reply_to_message_id
            if question not in asked:
                continue
            parcel, addressee = asked[question], asked[question].addressee
            if reply.has_error() and reply.error.code == ErrorCode.INVALID_FAB:
                said = printable(reply.error.reason or "")[:_REASON_LENGTH]
                error = other_bundle(addressee, said)
                if parcel.on_version is None:
                    raise error
                found[question] = None
                parcel.on_version(error)
                continue
            if reply.has_error() and len(failed) < may_fail:
                found[question] = None
                failed.add(question)
                continue
            if reply.has_error():
                raise PartyUnreachableError(
                    f"{addressee} failed before it could answer "
                    f"(Flower error {reply.error.code}): its own log says why"
                )
            try:
                found[question] = from_record(reply.content)
            except MessageError as error:
                foreign = ForgedError(f"{addressee} answered with a {error}")
                if parcel.on_foreign is None:
                    raise foreign from error
                found[question] = None
                parcel.on_foreign(foreign)
        return found, failed

    def _pulled(self, identifiers: Sequence[str]) -> Iterator[FlowerMessage]:
        """Yield the replies that are there; none where the Grid fails, until the next look."""
        try:
            yield from self._grid.pull_messages(identifiers)
        except GridFailingError as error:
            self._note_failing(error)
        else:
            self._note_failing(None)
