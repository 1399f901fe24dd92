"""Requests to erase go from party to party: at the beginning of each run of jobs, or alone.

```
 coordinator              origin                      recipient
1 erase.look ──►   every party: carries out what is pending; says for whom it has something
2 erase.show ───────────────────────────────────────► blinds its people
3                         ◄────── erase.shown ──      a part of them; 3 and 4 again for each
4                         ── erase.batch ──────────►  keeps the requests, which the last one has
5                         ◄────── erase.heard ──      acknowledged
6                         acknowledged
7 erase.tell ──►          ── erase.told ───────────►  completions, reminders
8                         ◄────── erase.heard ──
9                         acknowledged
```

Up to `ROUNDS` times, until nobody has anything to say: what came in one round is carried out, and
told, in the next.

Guarantees: no I/O; a party that is away, refuses, or gives no answer is left out, and hinders
nobody: what it did not acknowledge goes to it in the next run, and until then it counts for one
that may not know whom to erase. Whoever carries these sees who
speaks to whom, and neither whom it is about nor how many requests there are: every payload has one
size. A request is signed by its origin, for its recipient alone. What is on its way at a time is
bounded, however many people and parties there are.

Leaves to others: the batch itself (`jobs.erase`), keeping what is said (`followed`, `erasing`),
what a party does with each message (`spreading`).
"""

from collections import Counter
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from compliance.agreement import Agreement
from compliance.erasure.completion import Request
from compliance.erasure.wire import Discovery, Issuer, Keys, public_jwk
from compliance.errors import describe
from compliance.signing import SigningKey
from compliance.terms import DATA_ROLES
from federation.errors import MessageError
from federation.jobs.erase import BATCH_PLACES, Parts
from federation.jobs.exchange import Relay, Say, Tolerant, expect, expect_encrypted, rows_of
from federation.messages import (
    Acknowledged,
    EraseBatch,
    EraseHeard,
    EraseLook,
    EraseShow,
    EraseShown,
    EraseStanding,
    EraseTell,
    EraseTold,
    Message,
    Refused,
)
from federation.population import tokens_allowed
from privacy.psi import SenderReply
from privacy.psi.blinding import TAG_BYTES
from privacy.psi.field import ELEMENT_BYTES

__all__ = [
    "ERASING",
    "ROUNDS",
    "Answers",
    "Asked",
    "Completed",
    "News",
    "Reminder",
    "Spread",
    "batch_bytes",
    "coordinate_spreading",
    "decode",
    "domain_of",
    "encode",
    "issuer_for",
    "keys_of",
    "parts_of",
    "people_of",
    "read_batch",
]

ERASING: Final = "erasing"
"""What these messages are filed under, which belong to no job."""

ROUNDS: Final = 4

_AT_ONCE_BYTES: Final = 1 << 25
"""Points that are on their way at once, to all parties together."""

_SHOWN: Final = "erase.shown"

_KEY_ID: Final = "identity"
_DOMAIN: Final = "comity.invalid"  # RFC 6761: nobody's; a party is known by its agreement alone

_TOKEN = Annotated[str, Field(max_length=2_560, pattern=r"^[A-Za-z0-9._-]+$")]
_ANSWER = Annotated[str, Field(min_length=1, max_length=4_096)]


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Asked(_Closed):
    """What an origin asks in a batch: its requests (rqJWT; RFC 7515 section 7.1).

    Nothing in them takes more room in an acknowledgement, which repeats them.
    """

    tokens: Annotated[tuple[_TOKEN, ...], Field(max_length=BATCH_PLACES)]


class Completed(_Closed):
    """A request that was carried out: its completion, as it was signed."""

    request: Request
    completion: Annotated[str, Field(max_length=2_048)]


class Reminder(_Closed):
    """A request that is waited for.

    Attributes:
        request: its name.
        urgent: whether its deadline is near, and people were told.
    """

    request: Request
    urgent: bool = False


_Completions = Annotated[tuple[Completed, ...], Field(max_length=BATCH_PLACES)]
_Requests = Annotated[tuple[Request, ...], Field(max_length=BATCH_PLACES)]


class News(_Closed):
    """What a party tells another between batches."""

    completions: _Completions = ()
    reminders: Annotated[tuple[Reminder, ...], Field(max_length=BATCH_PLACES)] = ()


class Answers(_Closed):
    """What a party makes of a batch, or of news.

    Attributes:
        acknowledgements: of the requests in a batch, accepted or not (acJWT).
        completions: of requests that came again, and were carried out.
        received: requests whose completions came.
        unknown: requests of reminders that are not known here: ask again.
    """

    acknowledgements: Annotated[tuple[_ANSWER, ...], Field(max_length=BATCH_PLACES)] = ()
    completions: _Completions = ()
    received: _Requests = ()
    unknown: _Requests = ()


_Pair = tuple[str, str]

_Said = TypeVar("_Said", Asked, News, Answers)

_ROOM: Final[dict[type[BaseModel], int]] = {Asked: 192 << 10, News: 192 << 10, Answers: 512 << 10}
"""Bytes that each takes up, whatever it holds."""


def encode(said: Asked | News | Answers) -> bytes:
    """Write it as JSON, filled up with spaces to the size that all of its kind have."""
    content = said.model_dump_json().encode()
    room = _ROOM[type(said)]
    if len(content) > room:
        raise MessageError(f"news of erasures of {len(content)} bytes; at most {room} have room")
    return content.ljust(room)


def decode(payload: bytes, kind: type[_Said]) -> _Said:
    """Read it.

    Raises:
        MessageError: of another size, or malformed.
    """
    if len(payload) != _ROOM[kind]:
        raise MessageError(
            f"news of erasures of {len(payload)} bytes; expected {_ROOM[kind]} of them"
        )
    try:
        return kind.model_validate_json(payload)
    except ValidationError as error:
        raise MessageError(f"news of erasures: {describe(error)}") from error


def batch_bytes(reply: SenderReply, asked: Asked | None) -> bytes:
    """Write a batch; the requests go with the last part alone."""
    said = reply.tags.tobytes() + reply.blinded.tobytes()
    return said if asked is None else said + encode(asked)


def read_batch(payload: bytes, parts: Parts, part: int) -> tuple[SenderReply, Asked | None]:
    """Read a batch.

    Args:
        payload: as it came.
        parts: that are shown.
        part: to which it answers.

    Raises:
        MessageError: there is no such part, or it is of another size, or malformed.
    """
    if part > parts.last:
        raise MessageError(f"a batch for part {part}; expected 0 to {parts.last}")
    capacity = parts.size(part)
    ends = capacity * TAG_BYTES
    points = ends + BATCH_PLACES * ELEMENT_BYTES
    tags: NDArray[np.uint8] = rows_of(payload[:ends], capacity, TAG_BYTES)
    is_last = part == parts.last
    between = payload[ends:points] if is_last else payload[ends:]
    reply = SenderReply(tags, rows_of(between, BATCH_PLACES, ELEMENT_BYTES))
    return reply, decode(payload[points:], Asked) if is_last else None


def domain_of(party: str) -> str:
    """Return what a party is called in tokens: a domain that nobody has."""
    return f"{party}.{_DOMAIN}"


def issuer_for(party: str, key: SigningKey) -> Issuer:
    """Return a party as it signs tokens."""
    return Issuer(domain_of(party), _KEY_ID, key)


def keys_of(agreement: Agreement) -> Keys:
    """Return the keys of the agreement's parties, as those that sign tokens."""
    return Keys(
        {
            domain_of(party.name): Discovery(
                endpoint=f"https://{domain_of(party.name)}/",
                identifiers=(),
                public_keys=(public_jwk(party.verifying_key, _KEY_ID),),
                vendor_script_required=False,
            )
            for party in agreement.parties
        }
    )


def people_of(agreement: Agreement) -> tuple[str, ...]:
    """Return the parties that hold people, in the agreement's order."""
    return tuple(party.name for party in agreement.parties if party.role in DATA_ROLES)


def parts_of(agreement: Agreement, party: str) -> Parts:
    """Return how a party's people are shown: by as many points as its agreed rows allow."""
    return Parts(max(1, tokens_allowed(agreement, party)))


@dataclass(frozen=True)
class Spread:
    """What the coordinator knows once requests were carried.

    Attributes:
        refused: parties that refused something; their logs say why.
        unreached: parties that may not know yet who asked to be erased: what is for them did not
            come through, or they gave no answer to something, or what they ask others is unknown.
    """

    refused: set[str] = field(default_factory=set)
    unreached: set[str] = field(default_factory=set)


def coordinate_spreading(
    attempt: str, *, parts: Mapping[str, Parts]
) -> Generator[Tolerant, Sequence[Message], Spread]:
    """Carry requests, acknowledgements and completions, at the coordinator.

    Args:
        attempt: 32 random bytes in hexadecimal, that name this exchange.
        parts: of the people of each data party whose node is there.

    Yields:
        What to send next; resumed with the answers that came.

    Returns:
        Who refused, and who may not have heard everything.

    Raises:
        MessageError: a party broke the protocol.
    """
    spread, present = Spread(), parts.keys()
    left: set[_Pair] = set()  # pairs of which one would not, or was away: not again in this run
    for number in range(1, ROUNDS + 1):
        look = EraseLook(attempt=attempt, round=number)
        looks = _each(Say(name, ERASING, look) for name in sorted(present))
        heard = yield from _exchanged(looks, spread)  # 1
        standings = {one.header.sender: expect(one, EraseStanding) for one in heard}
        spread.unreached.update(present - standings.keys())
        pairs = {(name, peer) for name, one in standings.items() for peer in one.batches} - left
        news = {(name, peer) for name, one in standings.items() for peer in one.news} - left
        if pairs:
            unsaid = yield from _carry_batches(attempt, number, pairs, parts, spread)
            spread.unreached.update(peer for _, peer in unsaid)
            left |= unsaid
        if news:
            left |= yield from _carry_news(attempt, number, news, present, spread)
        if not pairs and not news:
            break
    else:
        spread.unreached.update(peer for _, peer in pairs)
    return spread


def _carry_batches(
    attempt: str, number: int, pairs: set[_Pair], parts: Mapping[str, Parts], spread: Spread
) -> Generator[Tolerant, Sequence[Message], set[_Pair]]:
    """Carry requests, steps 2 to 6, between pairs of an origin and a recipient.

    Returns:
        Pairs of which one would not, or was away.
    """
    there = sorted(pair for pair in pairs if pair[1] in parts)
    reached: set[_Pair] = set()
    for some in _together(there, parts):
        shows = _each(
            Say(peer, ERASING, EraseShow(attempt=attempt, round=number, origin=name))
            for name, peer in some
        )
        shown = yield from _exchanged(shows, spread)  # 2
        for _ in range(max(parts[peer].count for _, peer in some)):
            batches = yield from _exchanged(_carried(shown, EraseShown), spread)  # 3
            told = yield from _exchanged(_carried(batches, EraseBatch), spread)  # 4
            shown = [one for one in told if one.header.kind == _SHOWN]  # their next part
            ended = [one for one in told if one.header.kind != _SHOWN]
            reached |= {(one.header.recipient, one.header.sender) for one in ended}
            for one in (yield from _exchanged(_carried(ended, EraseHeard), spread)):  # 5
                expect(one, Acknowledged)  # 6
            if not shown:
                break
        for one in shown:
            raise MessageError(f"{one.header.sender} shows more people than its agreed rows allow")
    return pairs - reached


def _together(pairs: Sequence[_Pair], parts: Mapping[str, Parts]) -> Iterator[list[_Pair]]:
    """Yield pairs whose people are shown at once: one, or as many as have room together."""
    some: list[_Pair] = []
    room = _AT_ONCE_BYTES
    for pair in pairs:
        size = parts[pair[1]].size(0) * ELEMENT_BYTES
        if some and size > room:
            yield some
            some, room = [], _AT_ONCE_BYTES
        some.append(pair)
        room -= size
    if some:
        yield some


def _carry_news(
    attempt: str, number: int, news: set[_Pair], present: Collection[str], spread: Spread
) -> Generator[Tolerant, Sequence[Message], set[_Pair]]:
    """Carry completions and reminders, steps 7 to 9, between pairs of who tells and who hears.

    Returns:
        Pairs of which the first would not, or was away.
    """
    tells = _each(
        Say(name, ERASING, EraseTell(attempt=attempt, round=number, peer=peer))
        for name, peer in sorted(news)
        if peer in present
    )
    said = yield from _exchanged(tells, spread)  # 7
    told = yield from _exchanged(_carried(said, EraseTold), spread)
    for one in (yield from _exchanged(_carried(told, EraseHeard), spread)):  # 8
        expect(one, Acknowledged)  # 9
    return news - {(one.header.sender, one.header.recipient) for one in said}


def _exchanged(
    exchange: Tolerant, spread: Spread
) -> Generator[Tolerant, Sequence[Message], list[Message]]:
    """Return the answers that are none of `Refused`; note who refused, and who was silent."""
    answers = yield exchange
    asked = Counter(one.recipient for one in exchange.outgoing)
    spread.unreached.update(asked - Counter(one.header.sender for one in answers))
    spread.refused.update(one.header.sender for one in answers if isinstance(one.body, Refused))
    return [one for one in answers if not isinstance(one.body, Refused)]


def _carried(heard: Iterable[Message], kind: type[BaseModel]) -> Tolerant:
    """Carry on what parties said to each other, if it is of the expected kind, encrypted."""
    carried = tuple(heard)
    for one in carried:
        expect_encrypted(one, kind)
    return _each(Relay(one) for one in carried)


def _each(outgoing: Iterable[Say | Relay]) -> Tolerant:
    said = tuple(outgoing)
    return Tolerant(said, most_missing=len(said))
