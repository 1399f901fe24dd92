"""A party's part of a match: what it says in answer to what, and what it learns.

Guarantees: a bucket that was answered is never computed again, also after a crash; nothing of a
match that passes the agreed number, size or change leaves.

Leaves to others: the steps (`jobs.match`), token by token or record by record (`token_match`,
`record_match`), what is kept between two messages (`kept_pairs`), what may leave (`gate`).
"""

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from compliance import records
from compliance.terms import Linkage, Reveal
from federation.desk import Desk
from federation.errors import MessageError
from federation.gate import Minimum, Released
from federation.jobs.exchange import expect
from federation.jobs.match import Found, MatchPlan, RecordPlan, size_mechanism
from federation.jobs.match.outcome import OutcomeForm
from federation.matching.bringing import check_side
from federation.matching.kept_pairs import KeptPair, KeptPairs
from federation.matching.record_match import RecordMatch
from federation.matching.sides import Sides, bound
from federation.matching.token_match import TokenMatch
from federation.messages import (
    MatchAccept,
    MatchBlinded,
    MatchDone,
    MatchOffer,
    MatchOutcome,
    MatchReply,
    MatchRequest,
    MatchSide,
    Message,
)
from privacy.mechanisms import noised_count
from privacy.psi.engine import CurveEngine
from privacy.randomness import SecretStream

__all__ = ["Matching"]


class _Match(Protocol):
    """A pair's match at one side, token by token or record by record."""

    @property
    def count(self) -> int: ...
    @property
    def points(self) -> int: ...
    @property
    def plan(self) -> MatchPlan | RecordPlan: ...
    def blind(self, bucket: int, engine: CurveEngine, /) -> bytes: ...
    def reply(self, bucket: int, payload: bytes, engine: CurveEngine, /) -> bytes: ...
    def compare(self, bucket: int, payload: bytes, engine: CurveEngine, /) -> None: ...
    def found(self, *, told: bool) -> Found: ...
    def rows_at(self, places: NDArray[np.void], /) -> NDArray[np.int64]: ...


class Matching:
    """What a party does with the messages of a match."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._sides = Sides(desk)
        self._kept = KeptPairs(desk, self._sides)
        self._terms = desk.agreement.match

    @property
    def steps(self) -> Mapping[type[object], Callable[[Message], Released]]:
        """What is done with each kind of message."""
        return {
            MatchRequest: self._offer,
            MatchOffer: self._accept,
            MatchAccept: self._begin,
            MatchBlinded: self._reply,
            MatchReply: self._compare,
            MatchOutcome: self._keep,
        }

    def settle(self) -> None:
        """Take away what is left of matches that are over, had a crash kept it."""
        self._kept.settle()

    def _offer(self, message: Message) -> Released:
        body = expect(message, MatchRequest)
        if not self._sides.learns(body.peer):
            raise self._desk.refusal(
                "match.reveal", f"nothing of a match with {body.peer} is for {self._name}"
            )
        pair = self._kept.open(body.spec, body.peer, label=message.sealed.digest)
        return self._say_side(message, MatchOffer(spec=body.spec, side=pair.state.own), pair)

    def _accept(self, message: Message) -> Released:
        body = expect(message, MatchOffer)
        sender = message.header.sender
        if not self._sides.helps(sender):
            raise self._desk.refusal("match.reveal", f"nothing of this match is for {sender}")
        self._hold(body.side, sender, learns=True)
        pair = self._kept.open(body.spec, sender, label=f"{sender}/{body.side.commitment}")
        pair = self._kept.save(pair, pair.state.meet(body.side))
        accepted = MatchAccept(spec=body.spec, side=pair.state.own)
        return self._say_side(message, accepted, pair, bound(pair.peer, pair.state))

    def _begin(self, message: Message) -> Released:
        body = expect(message, MatchAccept)
        pair = self._kept.load(message, body.spec, learns=True)
        self._hold(body.side, pair.peer, learns=False)
        pair = self._kept.save(pair, pair.state.meet(body.side))
        blinded, payload = self._blinded(pair, self._match(pair), 0)
        return self._desk.release(
            message,
            blinded,
            payload,
            people=pair.people.used,
            results=(bound(pair.peer, pair.state),),
        )

    def _reply(self, message: Message) -> Released:
        body = expect(message, MatchBlinded)
        pair = self._kept.load(message, body.spec, learns=False)
        match = self._match(pair)
        self._within(body.bucket, match)
        last = body.bucket + 1 == match.count and not self._peer_learns
        with self._kept.heard(pair, body.bucket, message, last=last):
            self._tell_bucket(pair, match, body.bucket)
            payload = match.reply(body.bucket, message.payload, self._engine(pair, match))
        said = MatchReply(spec=body.spec, bucket=body.bucket)
        released = self._say(message, said, pair, payload, paid_by=self._paid(pair))
        if last:
            pair.clear()
        return released

    def _compare(self, message: Message) -> Released:
        body = expect(message, MatchReply)
        pair = self._kept.load(message, body.spec, learns=True)
        match = self._match(pair)
        self._within(body.bucket, match)
        last = body.bucket + 1 == match.count
        with self._kept.heard(pair, body.bucket, message, last=last):
            match.compare(body.bucket, message.payload, self._engine(pair, match))
            found = match.found(told=self._both) if last else None
        if found is None:
            blinded, payload = self._blinded(pair, match, body.bucket + 1)
            return self._say(message, blinded, pair, payload)
        released = self._finish(message, pair, match, found)
        pair.clear()
        return released

    def _finish(self, message: Message, pair: KeptPair, match: _Match, found: Found) -> Released:
        """Keep who matched, and say what the peer, or the coordinator, may know of it.

        Where the learner may know a size alone, the minimum is held against the size that is told:
        its peer made the noise on the other, and can take it off.
        """
        mechanism = None if self._both else size_mechanism(self._terms)
        members = pair.people.of_rows(found.rows)
        noise = match.plan.noise if isinstance(match.plan, MatchPlan) else None
        size = found.met if noise is None else noise.size(found.count, match.count)
        stream = SecretStream(pair.secret, "match size")
        told = None if mechanism is None else noised_count(size, mechanism, stream)
        path = self._sides.members_file(pair.spec.name, pair.peer)
        content, enough = members.to_bytes(), len(members)
        if noise is not None:
            path, content, enough = pair.size, str(size).encode(), size if told is None else told
        with self._kept.cut_short(pair), self._desk.result(path, message, content):
            released = self._desk.release(
                message,
                MatchOutcome(spec=pair.spec, size=told) if self._peer_learns else MatchDone(),
                OutcomeForm.of(match.plan).encode(found.places) if self._both else b"",
                recipient=pair.peer if self._peer_learns else self._desk.coordinator,
                people=members.used,
                minimums=(self._sides.minimum(enough),),
                charge=mechanism if noise is None else None,
                paid_by=self._paid(pair),
            )
        if noise is None:
            self._desk.tell(pair.spec.name, "knows which of its people are members", rows=enough)
        else:
            self._desk.tell_size(pair.spec.name, pair.peer, size)
        return released

    def _keep(self, message: Message) -> Released:
        """Keep what the learner says at the end: the size, or whose records matched."""
        body = expect(message, MatchOutcome)
        pair = self._kept.load(message, body.spec, learns=False)
        match = self._match(pair)
        if (body.size is None) is not self._both:
            raise MessageError(f"{message.header.sender} told another outcome than was agreed")
        path, content, minimums = pair.size, str(body.size).encode(), tuple[Minimum, ...]()
        with self._kept.heard(pair, match.count, message, last=True):
            if not self._both and message.payload:
                raise MessageError(
                    f"outcome of {len(message.payload)} bytes; expected a size alone"
                )
            if self._both:
                places = OutcomeForm.of(match.plan).decode(message.payload)
                members = pair.people.of_rows(match.rows_at(places))
                path = self._sides.members_file(pair.spec.name, pair.peer)
                content = members.to_bytes()
                minimums = (self._sides.minimum(len(members)),)
        with self._kept.cut_short(pair), self._desk.result(path, message, content):
            released = self._desk.release(
                message,
                MatchDone(),
                recipient=self._desk.coordinator,
                people=pair.people.used,
                minimums=minimums,
            )
        if body.size is not None:
            self._desk.tell_size(pair.spec.name, pair.peer, body.size)
        pair.clear()
        return released

    @property
    def _name(self) -> str:
        return self._desk.folder.name

    @property
    def _both(self) -> bool:
        return self._terms.reveal is Reveal.BOTH_LEARN_MEMBERS

    @property
    def _peer_learns(self) -> bool:
        """Whether the learner ends by telling its peer something."""
        return self._both or size_mechanism(self._terms) is not None

    @property
    def _size_only(self) -> bool:
        return self._terms.reveal is Reveal.SIZE_ONLY

    def _hold(self, side: MatchSide, party: str, *, learns: bool) -> None:
        """Hold what the other side says of itself against the agreement, before any computing."""
        widths = self._kept.widths(party)
        width = 1 if widths is None else widths[0 if learns else 1]
        check_side(self._desk, side, party, width=width)

    def _say_side(
        self,
        message: Message,
        body: MatchOffer | MatchAccept,
        pair: KeptPair,
        *results: tuple[type[records.MatchBound], Mapping[str, object]],
    ) -> Released:
        """Say what this side brings; where sizes alone are revealed, pay for what follows."""
        return self._desk.release(
            message,
            body,
            recipient=pair.peer,
            people=pair.people.used,
            charge=size_mechanism(self._terms) if self._size_only else None,
            results=results,
        )

    def _say(
        self,
        message: Message,
        body: MatchBlinded | MatchReply,
        pair: KeptPair,
        payload: bytes = b"",
        *,
        paid_by: str | None = None,
    ) -> Released:
        used, to = pair.people.used, pair.peer
        return self._desk.release(
            message, body, payload, recipient=to, people=used, paid_by=paid_by
        )

    def _paid(self, pair: KeptPair) -> str | None:
        """Return the charge of this side's set, of whose size the end of a match tells, if any."""
        if not self._size_only:
            return None
        said = MatchOffer if self._sides.learns(pair.peer) else MatchAccept
        return f"{pair.spec.name}/{said.model_fields['kind'].default}/{pair.peer}"

    def _blinded(self, pair: KeptPair, match: _Match, bucket: int) -> tuple[MatchBlinded, bytes]:
        self._tell_bucket(pair, match, bucket)
        payload = match.blind(bucket, self._engine(pair, match))
        return MatchBlinded(spec=pair.spec, bucket=bucket), payload

    def _match(self, pair: KeptPair) -> _Match:
        own, other = pair.state.own, pair.state.other
        if other is None:
            raise MessageError(f"{pair.peer} has not said yet what it brings")
        learns, people = self._sides.learns(pair.peer), len(pair.people.used.keys)
        learner, peer = (own, other) if learns else (other, own)
        if pair.widths is None:
            tokens = MatchPlan.of(pair.spec, self._terms, learner=learner, peer=peer)
            self._require_room(tokens)
            return TokenMatch(tokens, pair.directory, pair.own, people, pair.secret)
        plan = RecordPlan.of(pair.spec, pair.widths, learner=learner, peer=peer)
        self._require_room(plan)
        one_to_one = self._terms.linkage is Linkage.ONE_TO_ONE
        return RecordMatch(
            plan,
            pair.directory,
            pair.own,
            people,
            pair.secret,
            learns=learns,
            one_to_one=one_to_one,
        )

    def _require_room(self, plan: MatchPlan | RecordPlan) -> None:
        """Refuse, before anything is computed, sets whose outcome no message could hold."""
        if self._both and (told := OutcomeForm.of(plan).arithmetic):
            remedy = f"{told}: match fewer people at a time, or let one side learn"
            raise self._desk.refusal("match.reveal", remedy)

    def _within(self, bucket: int, match: _Match) -> None:
        if bucket >= match.count:
            raise MessageError(f"bucket {bucket} of {match.count}")

    def _tell_bucket(self, pair: KeptPair, match: _Match, bucket: int) -> None:
        stage = f"blinds its people for {pair.peer}"
        self._desk.tell_done(pair.spec.name, stage, bucket, match.count)

    def _engine(self, pair: KeptPair, match: _Match) -> CurveEngine:
        return self._desk.engine(pair.spec.name, match.points)
