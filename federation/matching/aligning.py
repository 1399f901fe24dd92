"""A party's part of an alignment: its set on disk, its state between messages, and whom it finds.

```
jobs/JOB/
  people/ · set/       who took part, and their tokens (`bringing`)
  state.json · secret · seed · commitment · common-N.npy   one alignment
  aligned.npz          the people whom all parties know, in the order that all have (`members`)
```

Guarantees: of each party's set, one message counts for each bucket, also after a crash; the secret
of a bucket belongs to one set and one cut; points are taken from the party before in the ring and
given to the one after, and to nobody else. Secrets go with the end of an alignment; where it found
too few, whom it found goes too, and only that stays: it was too few.

Leaves to others: the steps (`jobs.align`), what may leave (`gate`).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from compliance import records
from federation.desk import Desk
from federation.errors import MessageError, RefusedError
from federation.gate import Leaf, Minimum, Released
from federation.jobs.align import AlignPlan, AlignState, count_mechanism, joined_sides
from federation.jobs.exchange import expect
from federation.matching.bringing import bring, commitment, commitment_key, people_of
from federation.matching.history import MatchHistory
from federation.matching.token_set import MatchingSet
from federation.messages import (
    Acknowledged,
    AlignBind,
    AlignBlind,
    AlignBound,
    AlignCommon,
    AlignDone,
    AlignInvite,
    AlignJoin,
    AlignJoined,
    AlignPass,
    AlignSeed,
    AlignSide,
    AlignTags,
    Message,
)
from federation.party import undamaged, write_atomically
from federation.people_used import PeopleUsed
from federation.population import recipe_for
from federation.specification import AlignSpec
from federation.stored_arrays import read_array, write_array
from privacy.errors import PeerMessageError
from privacy.identifiers import recipe_fingerprint
from privacy.psi.engine import CurveEngine
from privacy.randomness import SECRET_BYTES, Secret, derive_secret

__all__ = ["Aligning"]

_MINIMUM = "match.minimum_match"


@dataclass(frozen=True)
class _Run:
    """One alignment at this party."""

    directory: Path
    spec: AlignSpec
    plan: AlignPlan
    place: int
    own: MatchingSet
    state: AlignState
    secret: Secret
    people: PeopleUsed

    @property
    def seed(self) -> Path:
        return self.directory / "seed"

    def common(self, bucket: int) -> Path:
        return self.directory / f"common-{bucket:05d}.npy"


class Aligning:
    """What a party does with the messages of an alignment."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._name = desk.folder.name
        self._terms = desk.agreement.match

    @property
    def steps(self) -> Mapping[type[object], Callable[[Message], Released]]:
        """What is done with each kind of message."""
        return {
            AlignJoin: self._join,
            AlignBind: self._bind,
            AlignInvite: self._give_seed,
            AlignSeed: self._take_seed,
            AlignBlind: self._blind,
            AlignPass: self._pass_on,
            AlignCommon: self._end_bucket,
        }

    def settle(self) -> None:
        """Take away what is left of alignments that are over, had a crash kept it.

        One is over when its last message is answered, or has shown that too few were found. What
        cannot be read is told when its job is met again.
        """
        for secret in self._desk.folder.path.glob("jobs/*/secret"):
            try:
                content = (secret.parent / "state.json").read_bytes()
                state = AlignState.model_validate_json(content)
            except (FileNotFoundError, ValidationError):
                continue
            answered = state.last and self._desk.gate.outbox.keeps_answer(state.ended[-1])
            if answered or state.below_minimum:
                _clear(secret.parent)

    def _join(self, message: Message) -> Released:
        """Read the set, once for a job, and bind this party to it."""
        spec = expect(message, AlignJoin).spec
        plan, folder, now = self._plan(spec), self._desk.folder, self._desk.clock()
        history = MatchHistory.open(folder.path / "matches", self._name)
        peers = [name for name in plan.parties if name != self._name]
        for peer in peers:
            history.check_count(spec.name, peer, self._terms, at=now)
        directory = folder.job(spec.name)
        secret_file, state_file = directory / "secret", directory / "state.json"
        if state_file.exists() and not secret_file.exists():
            raise MessageError(f"the alignment of job {spec.name!r} has ended here")
        own = bring(
            self._desk,
            spec.name,
            history,
            most=self._desk.agreement.dataset(self._name).declared_rows,
            told=state_file.exists(),
            key=plan.terms.key,
        )
        if not secret_file.exists():
            history.check_new(spec.name)
            fresh = folder.fresh_secret(f"align/{message.sealed.digest}")
            folder.keep_secret(secret_file, fresh)
        secret = Secret(folder.read_secret(secret_file))
        folder.keep_secret(directory / "commitment", commitment_key(secret))
        side = AlignSide(
            recipe=recipe_fingerprint(recipe_for(self._terms)), commitment=commitment(secret, own)
        )
        if not state_file.exists():
            for peer in peers:
                history = history.record(spec.name, peer, own, at=now, key=plan.terms.key)
            _save(directory, AlignState(own=side))
        run = self._load(spec)
        if run.state.own != side:
            raise MessageError(f"job {spec.name!r} began with another set, or other software")
        return self._desk.release(message, AlignJoined(side=side), people=run.people)

    def _bind(self, message: Message) -> Released:
        """Hold what all signed of themselves against this party's own, and pay for the counts."""
        body = expect(message, AlignBind)
        run = self._load(body.spec)
        parties = run.plan.parties
        sides = joined_sides(message.payload, body.spec, self._desk.agreement, parties)
        if any(side.recipe != run.state.own.recipe for side in sides):
            raise self._desk.refusal(
                "match.recipe", "the parties of the alignment normalise identifiers differently"
            )
        _save(run.directory, run.state.bind(sides, run.place, len(parties)))
        bound: list[tuple[Leaf, Mapping[str, object]]] = [
            (
                records.MatchBound,
                {
                    "peer": peer,
                    "own_commitment": run.state.own.commitment,
                    "peer_commitment": side.commitment,
                },
            )
            for peer, side in zip(parties, sides, strict=True)
            if peer != self._name
        ]
        return self._desk.release(
            message,
            AlignBound(),
            people=run.people,
            charge=count_mechanism(run.plan.terms),
            results=tuple(bound),
        )

    def _give_seed(self, message: Message) -> Released:
        body = expect(message, AlignInvite)
        run = self._bound(body.spec)
        run.plan.within(0, body.place)
        recipient = run.plan.parties[body.place]
        if self._name != run.plan.parties[0] or recipient == self._name:
            raise MessageError(f"{self._name} gives no seed to {recipient}")
        seed = self._seed(run)
        return self._desk.release(message, AlignSeed(spec=body.spec), seed, recipient=recipient)

    def _take_seed(self, message: Message) -> Released:
        run = self._bound(expect(message, AlignSeed).spec)
        first, sender = run.plan.parties[0], message.header.sender
        if sender != first or len(message.payload) != SECRET_BYTES:
            raise MessageError(f"seed of {len(message.payload)} bytes from {sender}")
        folder = self._desk.folder
        if run.seed.exists() and folder.read_secret(run.seed) != message.payload:
            raise MessageError(f"a second seed from {sender}: the first one counts")
        folder.keep_secret(run.seed, message.payload)
        return self._desk.release(message, Acknowledged(), recipient=self._desk.coordinator)

    def _blind(self, message: Message) -> Released:
        """Send a bucket of this party's own set round the ring."""
        body = expect(message, AlignBlind)
        run = self._bound(body.spec)
        run.plan.within(body.bucket)
        seed = self._seed(run)
        with self._heard(run, body.bucket, run.place, message):
            batch = run.own.bucket(body.bucket, run.plan.buckets)
            self._tell_bucket(run, body.bucket, "blinds its people")
            payload = run.plan.blind(
                self._name,
                body.bucket,
                batch.tokens,
                self._secret(run, body.bucket),
                seed,
                self._engine(run),
            )
        return self._pass(message, run, body.bucket, run.place, payload)

    def _pass_on(self, message: Message) -> Released:
        """Multiply a bucket of another party's set, and pass it on."""
        body, sender = expect(message, AlignPass), message.header.sender
        run = self._bound(body.spec)
        run.plan.within(body.bucket, body.place)
        owner, before = run.plan.parties[body.place], run.plan.before(self._name)
        if sender != before or owner == self._name:
            raise MessageError(f"the set of {owner} came to {self._name} from {sender}")
        last = run.plan.after(self._name) == owner
        with self._heard(run, body.bucket, body.place, message):
            self._tell_bucket(run, body.bucket, f"blinds the people of {owner}")
            secret = self._secret(run, body.bucket)
            payload = run.plan.pass_on(
                message.payload, body.place, secret, self._engine(run), last=last
            )
        if not last:
            return self._pass(message, run, body.bucket, body.place, payload)
        return self._desk.release(
            message,
            AlignTags(bucket=body.bucket, place=body.place),
            payload,
            recipient=self._desk.coordinator,
            people=run.people,
            paid_by=self._paid(run),
        )

    def _pass(
        self, message: Message, run: _Run, bucket: int, place: int, payload: bytes
    ) -> Released:
        return self._desk.release(
            message,
            AlignPass(spec=run.spec, bucket=bucket, place=place),
            payload,
            recipient=run.plan.after(self._name),
            people=run.people,
            paid_by=self._paid(run),
        )

    def _paid(self, run: _Run) -> str:
        """Return the charge of the counts, of which all that goes round the ring tells."""
        return f"{run.spec.name}/{AlignBound().kind}/{self._desk.coordinator}"

    def _end_bucket(self, message: Message) -> Released:
        """Keep whom all know of a bucket; after the last one, of all buckets."""
        body = expect(message, AlignCommon)
        run = self._bound(body.spec)
        run.plan.within(body.bucket)
        last = body.bucket + 1 == run.plan.buckets
        state = run.state.end(body.bucket, message.sealed.digest, last=last)
        batch = run.own.bucket(body.bucket, run.plan.buckets)
        secret = self._secret(run, body.bucket)
        tokens = run.plan.matched(len(batch.tokens), self._name, secret, message.payload)
        write_array(run.common(body.bucket), batch.rows[tokens])
        _save(run.directory, state)
        if not last:
            return self._desk.release(message, Acknowledged())
        return self._finish(message, run, state)

    def _finish(self, message: Message, run: _Run, state: AlignState) -> Released:
        """Keep whom all know; or, where they are too few, that they are too few."""
        files = [run.common(bucket) for bucket in range(run.plan.buckets)]
        rows = np.concatenate([read_array(file, np.int64, None) for file in files])
        members = people_of(self._desk, run.spec.name).of_rows(rows)
        size = len(members)
        minimum = Minimum(_MINIMUM, size, self._terms.minimum_match)
        if size >= minimum.required:
            self._desk.tell(run.spec.name, "knows which of its people all parties know", rows=size)
        try:
            with self._desk.result(run.directory / "aligned.npz", message, members.to_bytes()):
                released = self._desk.release(
                    message,
                    AlignDone(),
                    people=run.people,
                    minimums=(minimum,),
                    paid_by=self._paid(run),
                )
        except RefusedError as refusal:
            if refusal.term == minimum.term:
                _save(run.directory, state.fall_short())
                _clear(run.directory)
            raise
        _clear(run.directory)
        return released

    def _plan(self, spec: AlignSpec) -> AlignPlan:
        return AlignPlan.of(spec, self._desk.agreement, party=self._name)

    def _load(self, spec: AlignSpec) -> _Run:
        """Go on with an alignment that this party has joined."""
        directory = self._desk.folder.job(spec.name)
        try:
            with undamaged(directory):
                content = (directory / "state.json").read_bytes()
                state = AlignState.model_validate_json(content)
                if state.below_minimum:
                    raise self._desk.refusal(
                        _MINIMUM,
                        f"fewer than {self._terms.minimum_match} people are known to all, and who "
                        "they are was not kept: run the job under another name",
                    )
                secret = Secret(self._desk.folder.read_secret(directory / "secret"))
        except FileNotFoundError as error:
            raise MessageError(f"no alignment of job {spec.name!r} is under way") from error
        own = MatchingSet.open(directory / "set")
        if own is None or commitment(secret, own) != state.own.commitment:
            raise MessageError(f"job {spec.name!r} began with another set: name another job")
        plan, people = self._plan(spec), people_of(self._desk, spec.name).used
        place = plan.parties.index(self._name)
        return _Run(directory, spec, plan, place, own, state, secret, people)

    def _bound(self, spec: AlignSpec) -> _Run:
        run = self._load(spec)
        if not run.state.sides:
            raise MessageError(f"the parties of job {spec.name!r} are not bound yet")
        return run

    def _seed(self, run: _Run) -> Secret:
        if run.plan.parties[0] == self._name:
            return derive_secret(run.secret, f"align seed, set {run.own.digest}")
        try:
            return Secret(self._desk.folder.read_secret(run.seed))
        except FileNotFoundError as error:
            raise MessageError(f"no seed of job {run.spec.name!r} has come yet") from error

    def _secret(self, run: _Run, bucket: int) -> Secret:
        return run.plan.secret(run.secret, run.own.digest, bucket)

    @contextmanager
    def _heard(self, run: _Run, bucket: int, place: int, message: Message) -> Iterator[None]:
        """Let a set's message count, before a secret touches it, if it keeps the protocol."""
        state = run.state.hear(bucket, place, message.sealed.digest)
        _save(run.directory, state)
        try:
            yield
        except (MessageError, PeerMessageError):
            _save(run.directory, state.forget(place))
            raise

    def _tell_bucket(self, run: _Run, bucket: int, stage: str) -> None:
        self._desk.tell_done(run.spec.name, stage, bucket, run.plan.buckets)

    def _engine(self, run: _Run) -> CurveEngine:
        plan = run.plan
        points = sum(plan.ring.capacities) * plan.buckets
        return self._desk.engine(run.spec.name, points)


def _save(directory: Path, state: AlignState) -> None:
    write_atomically(directory / "state.json", state.model_dump_json().encode(), mode=0o600)


def _clear(directory: Path) -> None:
    """Remove the secrets of an alignment and whom its buckets found; the key to them goes last."""
    for file in (*directory.glob("common-*.npy"), directory / "seed", directory / "secret"):
        file.unlink(missing_ok=True)
