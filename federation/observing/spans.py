"""Spans of a job, so that those of all parties lie in one trace without a field on the wire.

```
 job ─────────────────────────────────────────────  coordinator
   └─ exchange of some messages ──────────────────  coordinator
        └─ message: from its sending to its answer   coordinator; its id is the message's digest
             └─ message at the party                 the party
```

Guarantees: the identifiers of a trace and its spans are hashes of what all parties know, the
agreement's digest and the job's name, and of what both ends of a message know, its digest; they
cost no entropy and tell nothing that is not known. A span holds kind, outcome, names of job and
party, and bytes.

Leaves to others: sending spans to a collector (`traces`). A message that is asked again, word for
word, is the same span.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from federation.messages import SealedMessage
from federation.observing.answered import UNKNOWN, Answered, Header, Outcome, header_of

if TYPE_CHECKING:  # which loads Flower: commands that read a configuration do without
    from federation.channel import Channel, Parcel

__all__ = ["Span", "TracedChannel", "span_of", "trace_id"]

_TRACE_BYTES: Final = 16
_SPAN_BYTES: Final = 8


@dataclass(frozen=True)
class Span:
    """Something that took time.

    Attributes:
        name: what it was.
        trace: 128 bits.
        span: 64 bits.
        parent: of the span in which it lies; None for a job.
        begun, ended: nanoseconds since 1970.
        failed: whether there was no answer.
        attributes: of it.
    """

    name: str
    trace: int
    span: int
    parent: int | None
    begun: int
    ended: int
    failed: bool = False
    attributes: Mapping[str, str | int] = field(default_factory=dict)


Send = Callable[[Sequence[Span]], None]


def _derived(length: int, *what: object) -> int:
    """Return an identifier, never zero, which stands for none (W3C Trace Context §2.2)."""
    written = json.dumps(["comity", *map(str, what)]).encode()
    return int.from_bytes(hashlib.sha256(written).digest()[:length]) or 1


def trace_id(agreement: str, job: str) -> int:
    """Return the identifier of a job's trace, the same at every party.

    Args:
        agreement: its digest.
        job: its name.
    """
    return _derived(_TRACE_BYTES, "trace", agreement, job)


def _message_span(digest: str) -> int:
    return _derived(_SPAN_BYTES, "message", digest)


def span_of(answered: Answered, party: str) -> Span | None:
    """Return the span of a message at a party; None where it belongs to no job."""
    exchange = answered.exchange
    if UNKNOWN in {exchange.job, exchange.agreement}:
        return None
    return Span(
        exchange.kind,
        trace_id(exchange.agreement, exchange.job),
        _derived(_SPAN_BYTES, "answer", party, exchange.question),
        _message_span(exchange.question),
        answered.begun,
        answered.begun + round(answered.seconds * 1e9),
        failed=exchange.outcome is Outcome.FAILED,
        attributes={
            "comity.job": exchange.job,
            "comity.kind": exchange.kind,
            "comity.outcome": exchange.outcome.value,
            "comity.bytes_in": answered.bytes_in,
            "comity.bytes_out": answered.bytes_out,
        },
    )


class TracedChannel:
    """A channel whose exchanges become spans; the spans of jobs are sent when it is closed.

    Args:
        channel: that carries.
        send: takes spans.
        clock: nanoseconds since 1970.
    """

    def __init__(
        self, channel: "Channel", send: Send, *, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self._channel = channel
        self._send = send
        self._clock = clock
        self._jobs: dict[tuple[str, str], tuple[int, int]] = {}

    def nodes(self, at_least: int, *, patience_seconds: float = math.inf) -> Sequence[int]:
        """Return the nodes that are connected; see `Channel.nodes`."""
        return self._channel.nodes(at_least, patience_seconds=patience_seconds)

    def exchange(
        self, parcels: "Sequence[Parcel]", *, most_missing: int = 0
    ) -> Sequence[SealedMessage | None]:
        """Carry, and tell; see `Channel.exchange`."""
        begun = self._clock()
        answers: Sequence[SealedMessage | None] = [None] * len(parcels)
        try:
            answers = self._channel.exchange(parcels, most_missing=most_missing)
        finally:
            self._tell(parcels, answers, begun, self._clock())
        return answers

    def close(self) -> None:
        """Send the spans of the jobs."""
        self._send(
            [
                Span(
                    "job",
                    trace_id(*key),
                    self._job_span(key, begun),
                    None,
                    begun,
                    ended,
                    attributes={"comity.job": key[1]},
                )
                for key, (begun, ended) in self._jobs.items()
            ]
        )
        self._jobs.clear()

    def _tell(
        self,
        parcels: "Sequence[Parcel]",
        answers: Sequence[SealedMessage | None],
        begun: int,
        ended: int,
    ) -> None:
        headers = [header_of(one.message.envelope) for one in parcels]
        if not headers:
            return
        key = headers[0].agreement, headers[0].job
        first, _ = self._jobs.get(key, (begun, begun))
        self._jobs[key] = first, ended
        digests = [one.message.digest for one in parcels]
        exchange = _derived(_SPAN_BYTES, "exchange", *digests)
        within = Span(
            f"exchange of {headers[0].kind}",
            trace_id(*key),
            exchange,
            self._job_span(key, first),
            begun,
            ended,
            failed=all(one is None for one in answers),
            attributes={"comity.job": key[1], "comity.kind": headers[0].kind},
        )
        told = zip(headers, digests, parcels, answers, strict=True)
        messages = {one[1]: _message(*one, within) for one in told}  # one message may go to many
        self._send([within, *messages.values()])

    @staticmethod
    def _job_span(key: tuple[str, str], begun: int) -> int:
        return _derived(_SPAN_BYTES, "job", *key, begun)


def _message(
    header: Header,
    digest: str,
    parcel: "Parcel",
    answer: SealedMessage | None,
    within: Span,
) -> Span:
    attributes: dict[str, str | int] = {
        "comity.job": header.job,
        "comity.kind": header.kind,
        "comity.bytes_out": len(parcel.message.envelope) + len(parcel.message.payload),
        "comity.node": str(parcel.node),
    }
    if parcel.party is not None:
        attributes["comity.peer"] = parcel.party
    return Span(
        header.kind,
        trace_id(header.agreement, header.job),
        _message_span(digest),
        within.span,
        within.begun,
        within.ended,
        failed=answer is None,
        attributes=attributes,
    )
