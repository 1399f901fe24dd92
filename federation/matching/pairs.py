"""A party's part of a match: its set on disk, its state between messages, and what it learns.

```
jobs/JOB/
  people/ set/     who took part, and their tokens (`bringing`)
  with-PEER/       state.json · secret · commitment · found-N.npz · size: one pair's match
```

Guarantees: a bucket that was answered is never computed again, also after a crash; the secret of a
bucket belongs to one set, one cut and one pair, so that no scalar meets two sets; nothing of a
match that passes the agreed number, size or change leaves.

Leaves to others: the steps (`jobs.match`), what may leave (`gate`).
"""

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compliance import records
from compliance.terms import Linkage, Reveal, Role
from federation.desk import Desk, undamaged
from federation.errors import MessageError
from federation.gate import Minimum, Released
from federation.jobs.exchange import expect
from federation.jobs.match import Comparison, MatchPlan, MatchState, learner_of, size_mechanism
from federation.matching.bringing import bring, commitment, commitment_key, people_of
from federation.matching.history import MatchHistory
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
from federation.party import write_atomically
from federation.population import recipe_for, tokens_allowed
from federation.specification import MatchSpec
from privacy.errors import PeerMessageError
from privacy.linkage import resolve
from privacy.mechanisms import noised_count
from privacy.psi.buckets import padded_count
from privacy.psi.engine import CurveEngine
from privacy.randomness import Secret, SecretStream

__all__ = ["Matching"]

_PLACE = np.dtype([("bucket", "<u4"), ("place", "<u4")])
_ANOTHER_SET = "job {job!r} began with another set: run it under another name"
_FOUND = np.dtype([*_PLACE.descr, ("row", "<i8"), ("rank", "<i8"), ("number", "<u8")])


@dataclass(frozen=True)
class _Pair:
    """One pair's match at this party."""

    directory: Path
    spec: MatchSpec
    peer: str
    own: MatchingSet
    people: Members
    state: MatchState
    secret: Secret

    @property
    def size(self) -> Path:
        return self.directory / "size"

    def found(self, bucket: int) -> Path:
        return self.directory / f"found-{bucket:05d}.npz"


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

    def _offer(self, message: Message) -> Released:
        body = expect(message, MatchRequest)
        if (self._desk.folder.name, body.peer) not in self._pairs():
            raise self._desk.refusal(
                "match.reveal", f"nothing of a match with {body.peer} is for {self._name}"
            )
        pair = self._open(body.spec, body.peer, label=message.sealed.digest)
        return self._say(message, MatchOffer(spec=body.spec, side=pair.state.own), pair)

    def _accept(self, message: Message) -> Released:
        body = expect(message, MatchOffer)
        sender = message.header.sender
        if (sender, self._name) not in self._pairs():
            raise self._desk.refusal("match.reveal", f"nothing of this match is for {sender}")
        self._hold(body.side, sender)
        pair = self._open(body.spec, sender, label=f"{sender}/{body.side.commitment}")
        pair = self._save(pair, pair.state.meet(body.side))
        charge = size_mechanism(self._terms) if self._size_only else None
        accepted = MatchAccept(spec=body.spec, side=pair.state.own)
        return self._desk.release(
            message,
            accepted,
            people=pair.people.used,
            charge=charge,
            results=(self._bound(pair),),
        )

    def _begin(self, message: Message) -> Released:
        body = expect(message, MatchAccept)
        pair = self._load(message, body.spec, learns=True)
        self._hold(body.side, pair.peer)
        pair = self._save(pair, pair.state.meet(body.side))
        blinded, payload = self._blinded(pair, 0)
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
        plan = self._plan(pair)
        self._within(body.bucket, plan)
        batch = pair.own.bucket(body.bucket, plan.buckets.count)
        secret = plan.secret(pair.secret, pair.own.digest, body.bucket)
        with self._heard(pair, body.bucket, message):
            self._tell_bucket(pair, body.bucket, plan, f"blinds its people for {pair.peer}")
            payload = plan.reply(
                body.bucket,
                batch.tokens,
                self._numbers(pair, plan)[batch.rows],
                message.payload,
                secret,
                self._engine(pair, plan),
            )
        said = MatchReply(spec=body.spec, bucket=body.bucket)
        released = self._say(message, said, pair, payload)
        if body.bucket + 1 == plan.buckets.count and not self._peer_learns:
            (pair.directory / "secret").unlink(missing_ok=True)
        return released

    def _compare(self, message: Message) -> Released:
        body = expect(message, MatchReply)
        pair = self._load(message, body.spec, learns=True)
        plan = self._plan(pair)
        self._within(body.bucket, plan)
        with self._heard(pair, body.bucket, message):
            if not pair.found(body.bucket).exists():
                batch = pair.own.bucket(body.bucket, plan.buckets.count)
                secret = plan.secret(pair.secret, pair.own.digest, body.bucket)
                compared = plan.compare(
                    len(batch.tokens), message.payload, secret, self._engine(pair, plan)
                )
                _save_found(pair.found(body.bucket), body.bucket, compared, batch.rows, batch.ranks)
        if body.bucket + 1 < plan.buckets.count:
            blinded, payload = self._blinded(pair, body.bucket + 1)
            return self._say(message, blinded, pair, payload)
        released = self._finish(message, pair, plan)
        (pair.directory / "secret").unlink(missing_ok=True)
        return released

    def _finish(self, message: Message, pair: _Pair, plan: MatchPlan) -> Released:
        """Put the buckets together and say what the peer, or the coordinator, may know of it."""
        found, counted = _load_found(pair, plan.buckets.count)
        people, mechanism = pair.people, size_mechanism(self._terms)
        members, places = self._members(people, found)
        size = len(members)
        if plan.noise is not None:
            size = plan.noise.size(counted, plan.buckets.count)
        minimum = Minimum("match.minimum_match", size, self._terms.minimum_match)
        stream = SecretStream(pair.secret, "match size")
        told = None if mechanism is None or self._both else noised_count(size, mechanism, stream)
        payload = places.tobytes() if self._both else b""
        outcome = MatchOutcome(spec=pair.spec, size=told, pairs=len(payload) // _PLACE.itemsize)
        if plan.noise is not None:
            self._desk.tell(
                pair.spec.name, f"knows how many it shares with {pair.peer}, with noise"
            )
        else:
            self._desk.tell(pair.spec.name, "knows which of its people are members", rows=size)
        content = members.to_bytes() if plan.noise is None else str(size).encode()
        path = self._members_file(pair) if plan.noise is None else pair.size
        with self._desk.result(path, message, content):
            return self._desk.release(
                message,
                outcome if self._peer_learns else MatchDone(),
                payload,
                recipient=pair.peer if self._peer_learns else self._desk.coordinator,
                people=members.used,
                minimums=(minimum,),
                charge=mechanism if told is not None else None,
            )

    def _keep(self, message: Message) -> Released:
        """Keep what the learner says at the end: the size, or whose records matched."""
        body = expect(message, MatchOutcome)
        pair = self._load(message, body.spec, learns=False)
        plan, people = self._plan(pair), pair.people
        if len(pair.state.heard) < plan.buckets.count:
            raise MessageError(f"outcome of job {body.spec.name!r} before its last bucket")
        if (body.size is None) is not self._both:
            raise MessageError(f"{message.header.sender} told another outcome than was agreed")
        path, content = pair.size, str(body.size).encode()
        if self._both:
            places = _places_of(message.payload, body.pairs)
            members = people.of_rows(self._rows_at(pair, plan, places))
            path, content = self._members_file(pair), members.to_bytes()
        with self._desk.result(path, message, content):
            released = self._desk.release(
                message, MatchDone(), recipient=self._desk.coordinator, people=people.used
            )
        (pair.directory / "secret").unlink(missing_ok=True)
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
        job = folder.job(spec.name)
        # Who bore several identifiers would count several times, and the noise hide one of them.
        key = self._terms.keys[0] if self._size_only else None
        own = bring(
            self._desk,
            spec.name,
            history,
            most=tokens_allowed(self._desk.agreement, self._name),
            told=any(job.glob("with-*/state.json")),
            key=key,
        )
        secret_file, state_file = directory / "secret", directory / "state.json"
        if not secret_file.exists():
            if state_file.exists():
                raise MessageError(f"the match of job {spec.name!r} with {peer} has ended here")
            write_atomically(secret_file, folder.fresh_secret(f"match/{label}"), mode=0o600)
        secret = Secret(secret_file.read_bytes())
        write_atomically(directory / "commitment", commitment_key(secret), mode=0o600)
        side = MatchSide(
            recipe=recipe_for(self._terms).fingerprint(),
            points=padded_count(own.token_count, self._terms.set_size_bucket),
            commitment=commitment(secret, own),
        )
        state = MatchState(own=side)
        if state_file.exists():  # a repeated question goes on with what was said before
            with undamaged(state_file):
                state = MatchState.model_validate_json(state_file.read_bytes())
        if state.own != side:
            raise MessageError(_ANOTHER_SET.format(job=spec.name))
        history.record(spec.name, peer, own, at=self._desk.clock(), key=key)
        people = people_of(self._desk, spec.name)
        return self._save(_Pair(directory, spec, peer, own, people, state, secret))

    def _hold(self, side: MatchSide, party: str) -> None:
        """Hold what the other side says of itself against the agreement, before any computing."""
        if side.recipe != recipe_for(self._terms).fingerprint():
            raise self._desk.refusal(
                "match.recipe",
                f"{party} normalises identifiers otherwise: install the same versions of "
                "phonenumbers and email-validator at both",
            )
        bucket = self._terms.set_size_bucket
        if side.points != padded_count(side.points, bucket):
            raise MessageError(f"{party} padded its set to no multiple of {bucket}")
        most = padded_count(tokens_allowed(self._desk.agreement, party), bucket)
        if side.points > most:
            raise self._desk.refusal(
                "datasets.declared_rows",
                f"{party} brings more identifiers than the {most} that its data set may: agree on "
                "more rows",
            )

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
        if not self._desk.gate.has_sent(message.header.answers):
            raise MessageError(
                f"{message.header.kind} for job {job!r} answers nothing that was sent"
            )
        try:
            with undamaged(directory):
                content = (directory / "state.json").read_bytes()
                state = MatchState.model_validate_json(content)
                secret = Secret((directory / "secret").read_bytes())
        except FileNotFoundError as error:
            raise MessageError(
                f"{message.header.kind} for job {job!r}, in which nothing is under way"
            ) from error
        own = MatchingSet.open(self._desk.folder.job(job) / "set")
        if own is None:
            raise MessageError(f"{message.header.kind} for job {job!r}, whose set is gone")
        if commitment(secret, own) != state.own.commitment:
            raise MessageError(_ANOTHER_SET.format(job=job))
        return _Pair(directory, spec, peer, own, people_of(self._desk, job), state, secret)

    def _save(self, pair: _Pair, state: MatchState | None = None) -> _Pair:
        now = pair.state if state is None else state
        content = now.model_dump_json().encode()
        write_atomically(pair.directory / "state.json", content, mode=0o600)
        return _Pair(pair.directory, pair.spec, pair.peer, pair.own, pair.people, now, pair.secret)

    @contextmanager
    def _heard(self, pair: _Pair, bucket: int, message: Message) -> Iterator[None]:
        """Let a bucket's message count, before a secret touches it, if it keeps the protocol."""
        self._save(pair, pair.state.hear(bucket, message.sealed.digest))
        try:
            yield
        except (MessageError, PeerMessageError):
            self._save(pair, pair.state.forget(bucket))
            raise

    def _say(
        self,
        message: Message,
        body: MatchOffer | MatchBlinded | MatchReply,
        pair: _Pair,
        payload: bytes = b"",
    ) -> Released:
        used = pair.people.used
        return self._desk.release(message, body, payload, recipient=pair.peer, people=used)

    def _blinded(self, pair: _Pair, bucket: int) -> tuple[MatchBlinded, bytes]:
        plan = self._plan(pair)
        batch = pair.own.bucket(bucket, plan.buckets.count)
        secret = plan.secret(pair.secret, pair.own.digest, bucket)
        self._tell_bucket(pair, bucket, plan, f"blinds its people for {pair.peer}")
        payload = plan.blind(bucket, batch.tokens, secret, self._engine(pair, plan))
        return MatchBlinded(spec=pair.spec, bucket=bucket), payload

    def _plan(self, pair: _Pair) -> MatchPlan:
        own, other = pair.state.own, pair.state.other
        if other is None:
            raise MessageError(f"{pair.peer} has not said yet what it brings")
        learns = (self._name, pair.peer) in self._pairs()
        sides = (own, other) if learns else (other, own)
        return MatchPlan.of(pair.spec, self._terms, learner=sides[0], peer=sides[1])

    def _within(self, bucket: int, plan: MatchPlan) -> None:
        if bucket >= plan.buckets.count:
            raise MessageError(f"bucket {bucket} of {plan.buckets.count}")

    def _members(
        self, people: Members, found: NDArray[np.void]
    ) -> tuple[Members, NDArray[np.void]]:
        """Return the members, and where the peer finds its own of each, in the same order."""
        if self._terms.linkage is Linkage.ONE_TO_ONE:
            numbers, codes = np.unique(found["number"], return_inverse=True)
            linked = resolve(found["row"], codes, found["rank"])
            key = found["row"] * len(numbers) + codes
            first = np.unique(key, return_index=True)
            wanted = linked.left * len(numbers) + linked.right
            found = found[first[1][np.searchsorted(first[0], wanted)]]
        found = np.sort(found, order=["bucket", "place"])
        places = np.zeros(len(found), dtype=_PLACE)
        places["bucket"], places["place"] = found["bucket"], found["place"]
        return people.of_rows(found["row"]), places

    def _rows_at(self, pair: _Pair, plan: MatchPlan, places: NDArray[np.void]) -> NDArray[np.int64]:
        """Return whose tokens stood at the places that the learner names."""
        rows = np.full(len(places), -1, dtype=np.int64)
        for bucket in np.unique(places["bucket"]):
            self._within(int(bucket), plan)
            batch = pair.own.bucket(int(bucket), plan.buckets.count)
            secret = plan.secret(pair.secret, pair.own.digest, int(bucket))
            owner = np.full(plan.buckets.sender_capacity, -1, dtype=np.int64)
            owner[plan.places(len(batch.tokens), secret)] = batch.rows
            here = places["bucket"] == bucket
            if (places["place"][here] >= len(owner)).any():
                raise MessageError(f"{pair.peer} names places that there are not")
            rows[here] = owner[places["place"][here]]
        if (rows < 0).any():
            raise MessageError(f"{pair.peer} names places at which nobody stands")
        return rows

    def _numbers(self, pair: _Pair, plan: MatchPlan) -> NDArray[np.uint64]:
        """Return a random number for each record, by which a learner tells records apart."""
        count = len(pair.people.used.keys)
        if not plan.links_records:
            return np.zeros(count, dtype=np.uint64)
        stream = SecretStream(pair.secret, "match record numbers")
        return np.frombuffer(stream.take(8 * count), dtype="<u8").astype(np.uint64)

    def _directory(self, job: str, peer: str) -> Path:
        return self._desk.folder.job(job) / f"with-{peer}"

    def _members_file(self, pair: _Pair) -> Path:
        """Where members go: a partner has one match, with the brand."""
        role = self._desk.agreement.party(self._name).role
        members = self._desk.folder.members(pair.spec.name)
        return members if role is Role.PARTNER else pair.directory / members.name

    def _tell_bucket(self, pair: _Pair, bucket: int, plan: MatchPlan, stage: str) -> None:
        self._desk.tell_done(pair.spec.name, stage, bucket, plan.buckets.count)

    def _engine(self, pair: _Pair, plan: MatchPlan) -> CurveEngine:
        sizes = plan.buckets
        points = (sizes.receiver_capacity + sizes.sender_capacity) * sizes.count
        return self._desk.engine(pair.spec.name, points)


def _save_found(
    path: Path, bucket: int, compared: Comparison, rows: NDArray[np.int64], ranks: NDArray[np.int64]
) -> None:
    found = np.zeros(len(compared.tokens), dtype=_FOUND)
    found["bucket"], found["place"] = bucket, compared.places
    found["row"], found["rank"] = rows[compared.tokens], ranks[compared.tokens]
    found["number"] = compared.numbers
    content = io.BytesIO()
    np.savez(content, found=found, count=np.array(compared.count))
    write_atomically(path, content.getvalue(), mode=0o600)


def _load_found(pair: _Pair, buckets: int) -> tuple[NDArray[np.void], int]:
    parts, count = [np.zeros(0, dtype=_FOUND)], 0
    for bucket in range(buckets):
        path = pair.found(bucket)
        with undamaged(path), np.load(path, allow_pickle=False) as stored:
            parts.append(stored["found"])
            count += int(stored["count"])
    return np.concatenate(parts), count


def _places_of(payload: bytes, pairs: int) -> NDArray[np.void]:
    if len(payload) != pairs * _PLACE.itemsize:
        raise MessageError(f"outcome: got {len(payload)} bytes, expected {pairs} places")
    places = np.frombuffer(payload, dtype=_PLACE)
    if len(np.unique(places)) != len(places):
        raise MessageError("outcome: the same place twice")
    return places
