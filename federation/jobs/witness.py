"""Every party's log is shown to every other one: the end of each run of jobs.

```
coordinator              data parties
1  witness.show   ──►    2 the head of its log, for each witness a request (C2SP tlog-witness)
3  witness.ask    ──►    4 cosign what extends the head seen last
5  witness.tell   ──►    6 keep the cosignatures
```

The coordinator's own log takes part likewise. Where a witness had seen another size than its log
believed, the round is gone through once more.

Guarantees: no I/O; what is carried is signed by the logs and their witnesses, so that whoever
carries it can hold it back, and prove nothing by changing it. A party that cannot be reached is
left out; one that refuses hinders no other, and its refusal is raised once all were heard.

Leaves to others: cosigning and keeping (`witnessing`).
"""

from collections.abc import Collection, Generator, Mapping, Sequence
from typing import Annotated, Protocol

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from compliance.agreement import MOST_PARTIES, Agreement
from compliance.log.note import NOTE_LIMIT
from compliance.log.witness import REQUEST_LIMIT
from compliance.terms import Name, Role
from federation.errors import MessageError, RefusedError
from federation.jobs.exchange import Say, Tolerant, expect
from federation.messages import (
    Acknowledged,
    Message,
    WitnessAsk,
    WitnessSaid,
    WitnessShow,
    WitnessShown,
    WitnessTell,
)

__all__ = [
    "Answer",
    "Head",
    "Request",
    "coordinate_witnessing",
    "decode_answers",
    "decode_requests",
    "encode_answers",
    "encode_requests",
]

ROUNDS = 2


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Request(_Closed):
    """An add-checkpoint request, as text, of one party's log to one witness."""

    log: Name
    witness: Name
    request: Annotated[str, Field(max_length=REQUEST_LIMIT)]


class Answer(_Closed):
    """What a witness said of a head: its signature line, or the size that it cosigned last.

    Attributes:
        log: whose log.
        witness: who says it.
        cosignature: the line.
        seen: entries of the head cosigned last, with no cosignature alone; a hint of what to prove
            from next, since nobody signed it.
        last: the head cosigned last with its signatures, as a note, where there is one.
    """

    log: Name
    witness: Name
    cosignature: Annotated[str, Field(max_length=8_192)] | None = None
    seen: Annotated[int, Field(ge=0, lt=10**19)] | None = None
    last: Annotated[str, Field(max_length=NOTE_LIMIT)] | None = None


Requests = Annotated[tuple[Request, ...], Field(max_length=MOST_PARTIES)]
Answers = Annotated[tuple[Answer, ...], Field(max_length=MOST_PARTIES)]
_REQUESTS = TypeAdapter(Requests, config=ConfigDict(hide_input_in_errors=True))
_ANSWERS = TypeAdapter(Answers, config=ConfigDict(hide_input_in_errors=True))


class Head(Protocol):
    """What a party does for its own log and for others' (`witnessing`)."""

    def show(self) -> tuple[Request, ...]:
        """Return a request to each other party that witnesses."""
        ...

    def cosign(self, requests: Sequence[Request]) -> tuple[Answer, ...]:
        """Answer the requests of other parties' logs."""
        ...

    def keep(self, answers: Sequence[Answer]) -> None:
        """Keep what others said of this party's own log."""
        ...


def encode_requests(requests: Sequence[Request]) -> bytes:
    """Write requests as JSON."""
    return _REQUESTS.dump_json(tuple(requests))


def decode_requests(payload: bytes) -> tuple[Request, ...]:
    """Read requests.

    Raises:
        MessageError: malformed.
    """
    try:
        return _REQUESTS.validate_json(payload)
    except ValidationError as error:
        raise MessageError(f"requests to witnesses: {error.error_count()} mistakes") from error


def encode_answers(answers: Sequence[Answer]) -> bytes:
    """Write answers as JSON."""
    return _ANSWERS.dump_json(tuple(answers))


def decode_answers(payload: bytes) -> tuple[Answer, ...]:
    """Read answers.

    Raises:
        MessageError: malformed.
    """
    try:
        return _ANSWERS.validate_json(payload)
    except ValidationError as error:
        raise MessageError(f"answers of witnesses: {error.error_count()} mistakes") from error


def coordinate_witnessing(
    agreement: Agreement, job: str, own: Head, *, nonce: bytes, present: Collection[str]
) -> Generator[Tolerant, Sequence[Message], frozenset[str]]:
    """Carry heads and cosignatures, at the coordinator, which takes part itself.

    Args:
        agreement: whose parties have cosigning keys.
        job: what the messages are filed under.
        own: the coordinator's own log, and itself as a witness.
        nonce: fresh, so that nobody shows the head that it showed before, in whichever attempt.
        present: data parties whose nodes are there.

    Yields:
        What to send next; resumed with the answers that came.

    Returns:
        Who was there, and gave no answer: they have yet to be shown.

    Raises:
        RefusedError: a party refuses, such as one that found a split view, or the coordinator does;
            the others were shown.
        MessageError: a party broke the protocol.
    """
    if sum(party.cosigning_key is not None for party in agreement.parties) < 2:
        return frozenset()
    (operator,) = (party.name for party in agreement.by_role(Role.COORDINATOR))
    there = frozenset(present)
    present = set(there)
    refusals: list[RefusedError] = []
    for number in range(1, ROUNDS + 1):
        if not present:
            break
        shown = yield _say(dict.fromkeys(present, nonce), job, WitnessShow(round=number))  # 1
        requests = [
            request
            for message in _those(shown, WitnessShown, refusals)
            for request in decode_requests(message.payload)
            if request.log == message.header.sender
        ]
        present &= {message.header.sender for message in shown}
        requests += own.show()
        asked = {
            name: encode_requests([one for one in requests if one.witness == name])
            for name in present
        }
        said = yield _say(asked, job, WitnessAsk(round=number))  # 3
        answers = [
            answer
            for message in _those(said, WitnessSaid, refusals)
            for answer in decode_answers(message.payload)
            if answer.witness == message.header.sender
        ]
        try:
            answers += own.cosign([one for one in requests if one.witness == operator])
        except RefusedError as refusal:
            refusals.insert(0, refusal)  # the first: whose own it is logs it
        told = {
            name: encode_answers([one for one in answers if one.log == name]) for name in present
        }
        present &= {message.header.sender for message in said}
        kept = yield _say(told, job, WitnessTell(round=number))  # 5
        _those(kept, Acknowledged, refusals)
        present &= {message.header.sender for message in kept}
        own.keep([answer for answer in answers if answer.log == operator])
        if all(answer.cosignature is not None for answer in answers):
            break
    if refusals:
        raise refusals[0]
    return there - present


def _say(
    payloads: Mapping[str, bytes], job: str, body: WitnessShow | WitnessAsk | WitnessTell
) -> Tolerant:
    said = [Say(name, job, body, payloads[name]) for name in sorted(payloads)]
    return Tolerant(said, most_missing=len(said))


def _those(
    messages: Sequence[Message], kind: type[BaseModel], refusals: list[RefusedError]
) -> Sequence[Message]:
    """Return the messages that are of a kind, and put aside refusals, which are the only others."""
    found = []
    for message in messages:
        try:
            expect(message, kind)
        except RefusedError as refusal:
            refusals.append(refusal)
        else:
            found.append(message)
    return found
