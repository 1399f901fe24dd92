"""A party's part of a match: its set on disk, its state between messages, and what it learns.

```
jobs/JOB/
  people/ set/     who took part, and their tokens (`bringing`)
  with-PEER/       state.json · secret · commitment · size: one pair's match, and until it is over
                   what it needs on the way (`token_match`, `record_match`)
```

Guarantees: a bucket that was answered is never computed again, also after a crash; the secret of a
bucket belongs to one set, one cut and one pair, so that no scalar meets two sets; nothing of a
match that passes the agreed number, size or change leaves. When a match is over its secret and
findings go, after a crash at the next message; where it found too few, only that stays.

Leaves to others: the steps (`jobs.match`), token by token or record by record (`token_match`,
`record_match`), what may leave (`gate`).
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from compliance import records
from compliance.terms import Linkage, Reveal, Role
from federation.desk import Desk, undamaged
from federation.errors import MessageError, RefusedError
from federation.gate import Minimum, Released
from federation.jobs.exchange import expect
from federation.jobs.match import (
    Found,
    MatchPlan,
    MatchState,
    RecordPlan,
    learner_of,
    record_widths,
    size_mechanism,
)
from federation.jobs.match.outcome import OutcomeForm
from federation.matching.bringing import (
    bring,
    check_side,
    commitment,
    commitment_key,
    people_of,
)
from federation.matching.history import MatchHistory
from federation.matching.record_match import RecordMatch
from federation.matching.record_set import Records
from federation.matching.token_match import TokenMatch
from federation.matching.token_set import MatchingSet
from federation.members import Members
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
from federation.population import recipe_for, tokens_allowed
from federation.specification import MatchSpec
from privacy.errors import PeerMessageError
from privacy.identifiers import recipe_fingerprint
from privacy.mechanisms import noised_count
from privacy.psi.buckets import padded_count
from privacy.psi.engine import CurveEngine
from privacy.randomness import Secret, SecretStream

__all__ = ["Matching"]

_MINIMUM = "match.minimum_match"
_ANOTHER_SET = "job {job!r} began with another set: run it under another name"


@dataclass(frozen=True)
class _Pair:
    """One pair's match at this party.

    Attributes:
        widths: points of a record of the learner's and of the peer's; None token by token.
    """

    directory: Path
    spec: MatchSpec
    peer: str
    own: MatchingSet
    people: Members
    state: MatchState
    secret: Secret
    widths: tuple[int, int] | None

    @property
    def size(self) -> Path:
        return self.directory / "size"


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
        """Take away what is left of matches that are over, had a crash kept it.

        A match is over when its last message is answered. What cannot be read is told when its job
        is met again.
        """
        for secret in self._desk.folder.path.glob("jobs/*/with-*/secret"):
            try:
                content = self._desk.folder.read_secret(secret.parent / "state.json")
                state = MatchState.model_validate_json(content)
            except (FileNotFoundError, ValidationError):
                continue
            ended = state.heard[-1:] if state.last else ()
            if state.below_minimum or any(map(self._desk.gate.outbox.keeps_answer, ended)):
                _clear(secret.parent)

    def _offer(self, message: Message) -> Released:
        body = expect(message, MatchRequest)
        if (self._desk.folder.name, body.peer) not in self._pairs():
            raise self._desk.refusal(
                "match.reveal", f"nothing of a match with {body.peer} is for {self._name}"
            )
        pair = self._open(body.spec, body.peer, label=message.sealed.digest)
        return self._say_side(message, MatchOffer(spec=body.spec, side=pair.state.own), pair)

    def _accept(self, message: Message) -> Released:
        body = expect(message, MatchOffer)
        sender = message.header.sender
        if (sender, self._name) not in self._pairs():
            raise self._desk.refusal("match.reveal", f"nothing of this match is for {sender}")
        self._hold(body.side, sender, learns=True)
        pair = self._open(body.spec, sender, label=f"{sender}/{body.side.commitment}")
        pair = self._save(pair, pair.state.meet(body.side))
        accepted = MatchAccept(spec=body.spec, side=pair.state.own)
        return self._say_side(message, accepted, pair, self._bound(pair))

    def _begin(self, message: Message) -> Released:
        body = expect(message, MatchAccept)
        pair = self._load(message, body.spec, learns=True)
        self._hold(body.side, pair.peer, learns=False)
        pair = self._save(pair, pair.state.meet(body.side))
        blinded, payload = self._blinded(pair, self._match(pair), 0)
        return self._desk.release(
            message,
            blinded,
            payload,
            people=pair.people.used,
            results=(self._bound(pair),),
        )

    def _reply(self, message: Message) -> Released:
        body = expect(message, MatchBlinded)
        pair = self._load(message, body.spec, learns=False)
        match = self._match(pair)
        self._within(body.bucket, match)
        last = body.bucket + 1 == match.count and not self._peer_learns
        with self._heard(pair, body.bucket, message, last=last):
            self._tell_bucket(pair, match, body.bucket)
            payload = match.reply(body.bucket, message.payload, self._engine(pair, match))
        said = MatchReply(spec=body.spec, bucket=body.bucket)
        released = self._say(message, said, pair, payload, paid_by=self._paid(pair))
        if last:
            _clear(pair.directory)
        return released

    def _compare(self, message: Message) -> Released:
        body = expect(message, MatchReply)
        pair = self._load(message, body.spec, learns=True)
        match = self._match(pair)
        self._within(body.bucket, match)
        last = body.bucket + 1 == match.count
        with self._heard(pair, body.bucket, message, last=last):
            match.compare(body.bucket, message.payload, self._engine(pair, match))
            found = match.found(told=self._both) if last else None
        if found is None:
            blinded, payload = self._blinded(pair, match, body.bucket + 1)
            return self._say(message, blinded, pair, payload)
        released = self._finish(message, pair, match, found)
        _clear(pair.directory)
        return released

    def _finish(self, message: Message, pair: _Pair, match: _Match, found: Found) -> Released:
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
        path, content, enough = self._members_file(pair), members.to_bytes(), len(members)
        if noise is not None:
            path, content, enough = pair.size, str(size).encode(), size if told is None else told
        with self._kept_short(pair), self._desk.result(path, message, content):
            released = self._desk.release(
                message,
                MatchOutcome(spec=pair.spec, size=told) if self._peer_learns else MatchDone(),
                OutcomeForm.of(match.plan).encode(found.places) if self._both else b"",
                recipient=pair.peer if self._peer_learns else self._desk.coordinator,
                people=members.used,
                minimums=(self._minimum(enough),),
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
        pair = self._load(message, body.spec, learns=False)
        match = self._match(pair)
        if (body.size is None) is not self._both:
            raise MessageError(f"{message.header.sender} told another outcome than was agreed")
        path, content, minimums = pair.size, str(body.size).encode(), tuple[Minimum, ...]()
        with self._heard(pair, match.count, message, last=True):
            if not self._both and message.payload:
                raise MessageError(
                    f"outcome of {len(message.payload)} bytes; expected a size alone"
                )
            if self._both:
                places = OutcomeForm.of(match.plan).decode(message.payload)
                members = pair.people.of_rows(match.rows_at(places))
                path, content = self._members_file(pair), members.to_bytes()
                minimums = (self._minimum(len(members)),)
        with self._kept_short(pair), self._desk.result(path, message, content):
            released = self._desk.release(
                message,
                MatchDone(),
                recipient=self._desk.coordinator,
                people=pair.people.used,
                minimums=minimums,
            )
        if body.size is not None:
            self._desk.tell_size(pair.spec.name, pair.peer, body.size)
        _clear(pair.directory)
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

    def _pairs(self) -> list[tuple[str, str]]:
        agreement = self._desk.agreement
        return [learner_of(agreement, one.name) for one in agreement.by_role(Role.PARTNER)]

    def _open(self, spec: MatchSpec, peer: str, *, label: str) -> _Pair:
        """Begin a pair's match, or go on with it: the set is read once for a job."""
        directory, folder = self._directory(spec.name, peer), self._desk.folder
        history = MatchHistory.open(folder.path / "matches", folder.name)
        history.check_count(spec.name, peer, self._terms, at=self._desk.clock())
        secret_file = directory / "secret"
        before = self._state(directory)
        if before is None:
            history.check_new(spec.name, peer)
        elif not secret_file.exists():
            raise MessageError(f"the match of job {spec.name!r} with {peer} has ended here")
        job = folder.job(spec.name)
        told = any(job.glob("with-*/state.json"))
        # Who bore several identifiers would count several times, and the noise hide one of them.
        key = self._terms.keys[0] if self._size_only else None
        own = bring(
            self._desk,
            spec.name,
            history,
            most=tokens_allowed(self._desk.agreement, self._name),
            told=told,
            key=key,
        )
        people, widths = people_of(self._desk, spec.name), self._widths(peer)
        count, width = own.token_count, 1
        if widths is not None:
            width = widths[0 if self._learns(peer) else 1]
            count = self._count_records(own, people, width, told=told)
        if not secret_file.exists():
            folder.keep_secret(secret_file, folder.fresh_secret(f"match/{label}"))
        secret = Secret(folder.read_secret(secret_file))
        folder.keep_secret(directory / "commitment", commitment_key(secret))
        side = MatchSide(
            recipe=recipe_fingerprint(recipe_for(self._terms)),
            points=padded_count(count, self._terms.set_size_bucket) * width,
            commitment=commitment(secret, own),
        )
        state = before or MatchState(own=side)  # a repeated question goes on with what was said
        if state.own != side:
            raise MessageError(_ANOTHER_SET.format(job=spec.name))
        pair = self._save(_Pair(directory, spec, peer, own, people, state, secret, widths))
        history.record(spec.name, peer, own, at=self._desk.clock(), key=key)
        return pair

    def _state(self, directory: Path) -> MatchState | None:
        """Return what a pair's match remembers; None before it has begun.

        Raises:
            RefusedError: it found too few, and remembers only that.
        """
        path = directory / "state.json"
        try:
            with undamaged(path):
                state = MatchState.model_validate_json(self._desk.folder.read_secret(path))
        except FileNotFoundError:
            return None
        if state.below_minimum:
            raise self._desk.refusal(
                _MINIMUM,
                f"fewer than {self._terms.minimum_match} matched, and who they are was not kept: "
                "run the job under another name",
            )
        return state

    def _learns(self, peer: str) -> bool:
        return (self._name, peer) in self._pairs()

    def _widths(self, peer: str) -> tuple[int, int] | None:
        sides = (self._name, peer) if self._learns(peer) else (peer, self._name)
        return record_widths(self._desk.agreement, *sides)

    def _count_records(self, own: MatchingSet, people: Members, width: int, *, told: bool) -> int:
        """Return how many records a set has, once they are as many and as wide as was declared."""
        declared = self._desk.agreement.dataset(self._name)
        held = Records.of(own, len(people.used.keys), by_row=width > 1)
        term = remedy = None
        if width > 1 and len(held.rows) > declared.declared_rows:
            term = "datasets.declared_rows"
            remedy = f"more people than the {declared.declared_rows} declared: declare more rows"
        elif held.most > width:
            term = "datasets.identifiers_per_person"
            remedy = f"a row bears more identifiers than the {width} declared: bring those agreed"
        if term is not None and remedy is not None:
            if not told:
                own.discard()
            raise self._desk.refusal(term, remedy)
        return len(held.rows)

    def _hold(self, side: MatchSide, party: str, *, learns: bool) -> None:
        """Hold what the other side says of itself against the agreement, before any computing."""
        widths = self._widths(party)
        width = 1 if widths is None else widths[0 if learns else 1]
        check_side(self._desk, side, party, width=width)

    def _bound(self, pair: _Pair) -> tuple[type[records.MatchBound], Mapping[str, object]]:
        if pair.state.other is None:
            raise RuntimeError("a pair is bound when both sides have spoken")
        told = {
            "peer": pair.peer,
            "own_commitment": pair.state.own.commitment,
            "peer_commitment": pair.state.other.commitment,
        }
        return records.MatchBound, told

    def _load(self, message: Message, spec: MatchSpec, *, learns: bool) -> _Pair:
        """Go on with a pair's match; what is asked of it is the learner's, or its peer's, to do."""
        peer, job = message.header.sender, spec.name
        if ((self._name, peer) if learns else (peer, self._name)) not in self._pairs():
            raise self._desk.refusal("match.reveal", f"{message.header.kind} is not for {peer}")
        directory = self._directory(job, peer)
        if not self._desk.gate.outbox.has_sent(message.header.answers):
            raise MessageError(
                f"{message.header.kind} for job {job!r} answers nothing that was sent"
            )
        state, secret_file = self._state(directory), directory / "secret"
        if state is None or not secret_file.exists():
            raise MessageError(
                f"{message.header.kind} for job {job!r}, in which nothing is under way"
            )
        with undamaged(directory):
            secret = Secret(self._desk.folder.read_secret(secret_file))
        own = MatchingSet.open(self._desk.folder.job(job) / "set")
        if own is None:
            raise MessageError(f"{message.header.kind} for job {job!r}, whose set is gone")
        if commitment(secret, own) != state.own.commitment:
            raise MessageError(_ANOTHER_SET.format(job=job))
        people, widths = people_of(self._desk, job), self._widths(peer)
        return _Pair(directory, spec, peer, own, people, state, secret, widths)

    def _save(self, pair: _Pair, state: MatchState | None = None) -> _Pair:
        now = pair.state if state is None else state
        content = now.model_dump_json().encode()
        self._desk.folder.keep_secret(pair.directory / "state.json", content)
        fixed = (pair.directory, pair.spec, pair.peer, pair.own, pair.people)
        return _Pair(*fixed, now, pair.secret, pair.widths)

    @contextmanager
    def _heard(self, pair: _Pair, bucket: int, message: Message, *, last: bool) -> Iterator[None]:
        """Let a bucket's message count, before a secret touches it, if it keeps the protocol."""
        self._save(pair, pair.state.hear(bucket, message.sealed.digest, last=last))
        try:
            yield
        except (MessageError, PeerMessageError):
            self._save(pair, pair.state.forget(bucket))
            raise

    def _minimum(self, found: int) -> Minimum:
        return Minimum(_MINIMUM, found, self._terms.minimum_match)

    @contextmanager
    def _kept_short(self, pair: _Pair) -> Iterator[None]:
        """Keep of a match that found too few nothing but that it did."""
        try:
            yield
        except RefusedError as refusal:
            if refusal.term == _MINIMUM:
                self._save(pair, pair.state.fall_short())
                _clear(pair.directory)
            raise

    def _say_side(
        self,
        message: Message,
        body: MatchOffer | MatchAccept,
        pair: _Pair,
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
        pair: _Pair,
        payload: bytes = b"",
        *,
        paid_by: str | None = None,
    ) -> Released:
        used, to = pair.people.used, pair.peer
        return self._desk.release(
            message, body, payload, recipient=to, people=used, paid_by=paid_by
        )

    def _paid(self, pair: _Pair) -> str | None:
        """Return the charge of this side's set, of whose size the end of a match tells, if any."""
        if not self._size_only:
            return None
        kind = (MatchOffer if self._learns(pair.peer) else MatchAccept).model_fields["kind"].default
        return f"{pair.spec.name}/{kind}/{pair.peer}"

    def _blinded(self, pair: _Pair, match: _Match, bucket: int) -> tuple[MatchBlinded, bytes]:
        self._tell_bucket(pair, match, bucket)
        payload = match.blind(bucket, self._engine(pair, match))
        return MatchBlinded(spec=pair.spec, bucket=bucket), payload

    def _match(self, pair: _Pair) -> _Match:
        own, other = pair.state.own, pair.state.other
        if other is None:
            raise MessageError(f"{pair.peer} has not said yet what it brings")
        learns, people = self._learns(pair.peer), len(pair.people.used.keys)
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

    def _directory(self, job: str, peer: str) -> Path:
        return self._desk.folder.job(job) / f"with-{peer}"

    def _members_file(self, pair: _Pair) -> Path:
        """Where members go: a partner has one match, with the brand."""
        role = self._desk.agreement.party(self._name).role
        members = self._desk.folder.members(pair.spec.name)
        return members if role is Role.PARTNER else pair.directory / members.name

    def _tell_bucket(self, pair: _Pair, match: _Match, bucket: int) -> None:
        stage = f"blinds its people for {pair.peer}"
        self._desk.tell_done(pair.spec.name, stage, bucket, match.count)

    def _engine(self, pair: _Pair, match: _Match) -> CurveEngine:
        return self._desk.engine(pair.spec.name, match.points)


def _clear(directory: Path) -> None:
    """Take away what a match that is over needs no more; the secret last, by which it is met."""
    for pattern in ("found-*", ".*.tmp"):  # what a crash left half-written too
        for file in directory.glob(pattern):
            file.unlink()
    if (directory / "records").exists():
        shutil.rmtree(directory / "records")
    (directory / "secret").unlink(missing_ok=True)
