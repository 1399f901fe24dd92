"""A party's part of spreading requests to erase: as their origin, and as their recipient.

```
as origin       1 what is sent is written down, then signed, then let out
                2 an acknowledgement counts for the very request it answers; a completion must be
                  signed by its party
as recipient    3 a request is verified: its issuer, this audience, its age, its place
                4 it is kept before it is acknowledged: no job reads whoever is meant from here on
                5 it is carried out at the coordinator's next look; the completion is told until its
                  origin says that it came
```

Guarantees: the same request gets the same acknowledgement, and its completion once there is one;
no answer depends on whether anybody here is meant; what cannot be carried out now (a table out of
reach) is reported, and tried at the next look; a message that is wrong in one request is heard in
the others; a batch names nobody twice.

Leaves to others: what a request is (`compliance.erasure`), what is kept (`erasing`, `followed`,
`showing`, `asking`), when it travels (`jobs.spread`).
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Final

from compliance.erasure.completion import read_completion
from compliance.erasure.following import Event, Following, Happening
from compliance.erasure.wire import (
    AcknowledgementClaims,
    Issuer,
    Keys,
    RequestClaims,
    ResultCode,
    TokenError,
    read_acknowledgement,
    read_request,
)
from compliance.errors import ComplianceError, ErasureError
from connectors.errors import ConnectorError
from federation.asking import Asking, Askings
from federation.desk import Desk
from federation.erasing import Erasing, Kept
from federation.errors import FederationError, MessageError
from federation.followed import Followed
from federation.gate import Released
from federation.jobs.erase import (
    BATCH_PLACES,
    BLINDED,
    blinded_identifier,
    make_batch,
    place_of,
)
from federation.jobs.exchange import expect, rows_of
from federation.jobs.spread import (
    ERASING,
    Answers,
    Asked,
    Completed,
    News,
    Reminder,
    batch_bytes,
    decode,
    domain_of,
    encode,
    issuer_for,
    keys_of,
    parts_of,
    people_of,
    read_batch,
)
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
)
from federation.showing import Showing, Showings
from privacy.psi.field import ELEMENT_BYTES

__all__ = ["Spreading"]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DEADLINE: Final = "deadline"
_LEAST_TIME: Final = timedelta(days=1)


class Spreading:
    """What a party does with the messages about requests to erase."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        known = desk.folder, desk.agreement, desk.gate
        self._erasing = Erasing(*known, clock=desk.clock)
        self._followed = Followed(*known, clock=desk.clock)
        self._showings = Showings(desk.folder, desk.agreement)
        self._askings = Askings(desk.folder, desk.agreement)

    @property
    def steps(self) -> Mapping[type[object], Callable[[Message], Released]]:
        """What to do with which message."""
        return {
            EraseLook: self._look,
            EraseShow: self._show,
            EraseShown: self._ask,
            EraseBatch: self._take,
            EraseTell: self._tell,
            EraseTold: self._hear_news,
            EraseHeard: self._hear_answers,
        }

    def _look(self, message: Message) -> Released:
        """Carry out what is pending, and say for whom there is something."""
        expect(message, EraseLook)
        now = self._desk.clock()
        self._showings.forget(now)
        self._askings.forget(now)
        try:
            self._erasing.run_pending()
        except (ConnectorError, ComplianceError, FederationError) as error:
            self._desk.tell(ERASING, f"will be tried again: {error}")
        kept = self._erasing.status()
        self._followed.settle(kept)
        others = [one for one in people_of(self._desk.agreement) if one != self._desk.folder.name]
        done = {one.origin for one in kept if _is_news(one)}
        standing = EraseStanding(
            batches=tuple(one for one in others if self._followed.unsent(one, now)),
            news=tuple(one for one in others if one in done or self._followed.unfinished(one, now)),
        )
        return self._desk.release(message, standing)

    def _show(self, message: Message) -> Released:
        desk, origin = self._desk, expect(message, EraseShow).origin
        self._check_holds_people(origin)
        showing = self._showings.show(origin, message.sealed.digest, now=desk.clock())
        return self._show_part(message, origin, showing)

    def _show_part(self, message: Message, origin: str, showing: Showing) -> Released:
        desk, part = self._desk, showing.part
        engine = desk.engine(ERASING, parts_of(desk.agreement, desk.folder.name).size(part))
        points = self._showings.points(origin, showing, engine=engine).tobytes()
        body = EraseShown(showing=showing.name, part=part)
        return desk.release(message, body, points, recipient=origin)

    def _ask(self, message: Message) -> Released:
        """Answer a part of a recipient's people: with what it is asked for once it is the last."""
        desk, peer, body = self._desk, message.header.sender, expect(message, EraseShown)
        parts = parts_of(desk.agreement, peer)
        if body.part > parts.last:
            raise MessageError(f"{peer} shows part {body.part}; expected 0 to {parts.last}")
        capacity = parts.size(body.part)
        points = rows_of(message.payload, capacity, ELEMENT_BYTES)
        asking = self._asking(message, body).see(body.part, message.payload)
        persons = self._askings.persons(asking)
        batch = make_batch(
            persons,
            points,
            asking.secret,
            engine=desk.engine(ERASING, capacity),
            capacity=capacity,
        )
        self._askings.keep(peer, asking)
        is_last = body.part == parts.last
        asked = self._sign(peer, asking.requests, batch.places.tolist()) if is_last else None
        said = EraseBatch(showing=body.showing, part=body.part)
        released = desk.release(message, said, batch_bytes(batch.reply, asked))
        desk.gate.outbox.forget_payload(message.header.answers)  # the part before is done
        return released

    def _asking(self, message: Message, shown: EraseShown) -> Asking:
        """Return the batch for a showing: the first part begins one, of as much as it holds."""
        peer, now = message.header.sender, self._desk.clock()
        if (known := self._askings.find(peer, shown.showing)) is not None:
            return known
        if shown.part:
            raise MessageError(f"{peer} goes on with what it did not begin to show, or long ago")
        unsent = [one.request for one in self._followed.unsent(peer, now)]
        if not unsent:
            raise MessageError(f"{peer} shows its people, and there is nothing to ask it now")
        label = message.sealed.digest
        return self._askings.begin(peer, shown.showing, unsent, label=label, now=now)

    def _sign(self, peer: str, requests: Iterable[str], places: Iterable[int]) -> Asked:
        """Sign requests for a recipient, by their places in the batch, and note that they go."""
        now = self._desk.clock()
        followings = {one.request: one for one in self._followed.at(peer)}
        tokens = {
            name: self._request(followings[name], place, now)
            for name, place in zip(requests, places, strict=True)
        }
        sent = [
            (name, Event(happening=Happening.SENT, time=now, evidence=_digest(token)))
            for name, token in tokens.items()
        ]
        self._followed.note(peer, sent)  # 1
        return Asked(tokens=tuple(tokens.values()))

    def _take(self, message: Message) -> Released:
        """Compare a part; at the last keep the requests in the batch, and acknowledge them."""
        desk, origin, body = self._desk, message.header.sender, expect(message, EraseBatch)
        showing = self._showings.find(origin, body.showing)
        parts = parts_of(desk.agreement, desk.folder.name)
        reply, asked = read_batch(message.payload, parts, body.part)
        engine = desk.engine(ERASING, BATCH_PLACES)
        showing = self._showings.take(origin, showing, body.part, reply, engine=engine)
        if asked is None:
            released = self._show_part(message, origin, showing)
        else:
            released = self._keep_all(message, asked, showing.persons)
            self._showings.end(origin)
        desk.gate.outbox.forget_payload(message.header.answers)  # a point for each of a part
        return released

    def _keep_all(self, message: Message, asked: Asked, persons: Mapping[int, bytes]) -> Released:
        """Keep requests, and acknowledge them.

        Args:
            message: that they came with.
            asked: the requests.
            persons: who stands at which place, of the people held.
        """
        desk, origin = self._desk, message.header.sender
        answers, kept = [], []
        for token in asked.tokens:
            try:
                taken = self._keep(token, origin, persons)  # 3, 4
                answers.append(taken.execution.acknowledgement)
                kept.append(taken)
            except TokenError as error:
                desk.tell(ERASING, f"{origin}: {error}")
                answers.append(self._acknowledge(token, error.code, desk.clock()))
            except ErasureError as error:
                desk.tell(ERASING, f"{origin}: {error}")
                answers.append(self._acknowledge(token, ResultCode.MALFORMED_REQUEST, desk.clock()))
        self._erasing.look_for(kept)
        done = tuple(_completed(one) for one in kept if one.execution.completion)
        said = encode(Answers(acknowledgements=tuple(answers), completions=done))
        return desk.release(message, EraseHeard(), said)

    def _tell(self, message: Message) -> Released:
        """Tell a party which of its requests are done, and which of this one's are waited for."""
        peer, now = expect(message, EraseTell).peer, self._desk.clock()
        self._check_holds_people(peer)
        done = [one for one in self._erasing.status() if _is_news(one) and one.origin == peer]
        waited_for = self._followed.unfinished(peer, now)[:BATCH_PLACES]
        news = News(
            completions=tuple(_completed(one) for one in done[:BATCH_PLACES]),
            reminders=tuple(
                Reminder(request=one.request, urgent=one.is_escalated) for one in waited_for
            ),
        )
        sent = Event(happening=Happening.SENT, time=now)
        self._followed.note(peer, [(one.request, sent) for one in waited_for])  # 1
        return self._desk.release(message, EraseTold(), encode(news), recipient=peer)

    def _hear_news(self, message: Message) -> Released:
        expect(message, EraseTold)
        peer, news = message.header.sender, decode(message.payload, News)
        received, wrong = self._hear(peer, news.completions)
        for error in wrong:
            self._desk.tell(ERASING, str(error))
        done, unknown = [], []
        for reminder in news.reminders:
            kept = self._erasing.read(reminder.request, peer)
            if kept is None:
                unknown.append(reminder.request)
            elif kept.execution.completion:
                done.append(_completed(kept))
            elif reminder.urgent:
                due = f"{kept.execution.deadline:%Y-%m-%d}"
                self._desk.tell(ERASING, f"{peer} waits for {reminder.request}, due on {due}")
        answers = Answers(completions=tuple(done), received=received, unknown=tuple(unknown))
        return self._desk.release(message, EraseHeard(), encode(answers))

    def _hear_answers(self, message: Message) -> Released:
        expect(message, EraseHeard)
        desk, peer = self._desk, message.header.sender
        if not desk.gate.outbox.has_sent(message.header.answers):
            raise MessageError(f"{peer} answers what {desk.folder.name} has not said")
        answers = decode(message.payload, Answers)
        unknown = (Reminder(request=name) for name in answers.unknown)
        _, wrong = self._hear(peer, (*answers.acknowledgements, *answers.completions, *unknown))
        for name in answers.received:
            self._erasing.told(name, peer)
        for error in wrong:
            raise error
        released = desk.release(message, Acknowledged(), recipient=desk.coordinator)
        desk.gate.outbox.forget_payload(message.header.answers)  # a tag for each of a part
        self._askings.end(peer)
        return released

    def _hear(
        self, peer: str, said: Iterable[str | Completed | Reminder]
    ) -> tuple[tuple[str, ...], tuple[ErasureError, ...]]:
        """Note what a party said of this one's requests: what is wrong hinders nothing else.

        Returns:
            Names of the requests, and what was wrong.
        """
        states = {one.request: one for one in self._followed.at(peer)}
        events: list[tuple[str, Event]] = []
        wrong: list[ErasureError] = []
        for one in said:
            try:
                name, event = self._event(peer, one)
                if name not in states:
                    wrong.append(ErasureError(f"{peer} speaks of {name}, which it was not sent"))
                    continue
                states[name] = states[name].after(event)
                events.append((name, event))
            except ErasureError as error:
                wrong.append(error)
        self._followed.note(peer, events)  # 2
        return tuple(dict.fromkeys(name for name, _ in events)), tuple(wrong)

    def _event(self, peer: str, said: str | Completed | Reminder) -> tuple[str, Event]:
        """Return what happened to which request, by what a party says.

        Raises:
            ErasureError: it is not to be believed.
        """
        now = self._desk.clock()
        match said:
            case Reminder():  # it does not know it: ask again
                return said.request, Event(happening=Happening.REFUSED, time=now)
            case Completed():
                key = self._desk.agreement.party(peer).verifying_key
                signed = said.completion.encode()
                read_completion(signed, request=said.request, party=peer, key=key)
                if any(one.request == said.request for one in self._followed.at(peer)):
                    self._followed.keep_receipt(said.request, peer, signed)
                evidence = _digest(said.completion)
                return said.request, Event(
                    happening=Happening.COMPLETED, time=now, evidence=evidence
                )
        asked = self._keys.verify(said, AcknowledgementClaims).request
        told = read_acknowledgement(
            said, self._keys, request=asked, recipient=domain_of(peer), now=now
        )
        request = self._keys.verify(asked, RequestClaims)
        sent = {
            one.evidence
            for following in self._followed.at(peer)
            if following.request == request.jti
            for one in following.events
            if one.happening is Happening.SENT
        }
        if _digest(asked) not in sent:
            raise ErasureError(f"{peer} acknowledges a request that it was not sent")
        happening = (
            Happening.ACKNOWLEDGED if told.code is ResultCode.ACCEPTED else Happening.REFUSED
        )
        return request.jti, Event(happening=happening, time=now, evidence=_digest(said))

    def _keep(self, token: str, origin: str, persons: Mapping[int, bytes]) -> Kept:
        """Verify a request, and keep it.

        Raises:
            ErasureError: it is not to be believed.
        """
        now = self._desk.clock()
        found = read_request(  # 3
            token,
            self._keys,
            audience=self._issuer.domain,
            now=now,
            accepts=frozenset({BLINDED}),
        )
        name = found.request.jti
        if {found.request.iss, found.identity.iss} != {domain_of(origin)} or (
            found.identity.jti != name or _NAME.fullmatch(name) is None
        ):
            raise TokenError(
                ResultCode.MALFORMED_REQUEST, "a request of somebody else, or without a sound name"
            )
        return self._erasing.take(  # 4
            name,
            token,
            self._acknowledge(token, ResultCode.ACCEPTED, now),
            origin=origin,
            deadline=self._deadline(found.request, now),
            person=persons.get(place_of(found.request.sub)),
        )

    def _deadline(self, request: RequestClaims, now: datetime) -> datetime:
        """Return the deadline that a request names, within what the agreement gives.

        What comes late has a day all the same.
        """
        latest = self._erasing.deadline(now)
        told = (request.optional_parameters or {}).get(_DEADLINE)
        if type(told) is not int or not 0 <= told < int(latest.timestamp()):
            return latest
        return max(now + _LEAST_TIME, datetime.fromtimestamp(told, UTC))

    def _request(self, following: Following, place: int, now: datetime) -> str:
        """Sign a request for its recipient."""
        about = blinded_identifier(place)
        identity = self._issuer.identity(about, jti=following.request, now=now)
        return self._issuer.request(
            identity,
            about,
            recipient=domain_of(following.peer),
            jti=following.request,
            now=now,
            parameters={_DEADLINE: int(following.schedule.deadline.timestamp())},
        )

    def _acknowledge(self, token: str, code: ResultCode, now: datetime) -> str:
        name = self._desk.folder.fresh_secret(f"acknowledgement/{_digest(token)}").hex()[:32]
        return self._issuer.acknowledge(token, code, jti=name, now=now)

    def _check_holds_people(self, party: str) -> None:
        if party == self._desk.folder.name or party not in people_of(self._desk.agreement):
            raise MessageError(f"{party} holds no people that could be asked about")

    @cached_property
    def _keys(self) -> Keys:
        return keys_of(self._desk.agreement)

    @cached_property
    def _issuer(self) -> Issuer:
        folder = self._desk.folder
        return issuer_for(folder.name, folder.identity_key())


def _is_news(kept: Kept) -> bool:
    """Tell whether another party has yet to hear that its request is done."""
    return kept.origin is not None and kept.execution.completion is not None and not kept.heard


def _completed(kept: Kept) -> Completed:
    completion = kept.execution.completion
    if completion is None:
        raise RuntimeError("a request that is not completed is told as such")
    return Completed(request=kept.execution.request, completion=completion)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
