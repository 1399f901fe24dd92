"""Pairs' matches as this party keeps them between two messages, and from job to job.

```
jobs/JOB/
  people/ set/     who took part, and their tokens (`bringing`)
  with-PEER/       state.json · secret · commitment · size: one pair's match, and until it is over
                   what it needs on the way (`token_match`, `record_match`)
```

Guarantees: the secret of a bucket belongs to one set, one cut and one pair, so that no scalar meets
two sets; a set that changed, a message that answers nothing, and one that differs from what was
heard are refused. When a match is
over its secret and findings go, after a crash at the next message; where it found too few, only
that stays.

Leaves to others: the steps, and what is said (`pairs`); the set on disk (`bringing`).
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from compliance.terms import Reveal
from federation.desk import Desk
from federation.errors import MessageError, RefusedError
from federation.jobs.match import MatchState, record_widths
from federation.matching.bringing import bring, commitment, commitment_key, people_of
from federation.matching.history import MatchHistory
from federation.matching.record_set import Records
from federation.matching.sides import MINIMUM, Sides
from federation.matching.token_set import MatchingSet
from federation.members import Members
from federation.messages import MatchSide, Message
from federation.party import undamaged
from federation.population import recipe_for, tokens_allowed
from federation.specification import MatchSpec
from privacy.errors import PeerMessageError
from privacy.identifiers import recipe_fingerprint
from privacy.psi.buckets import padded_count
from privacy.randomness import Secret

__all__ = ["KeptPair", "KeptPairs"]

_ANOTHER_SET = "job {job!r} began with another set: run it under another name"


@dataclass(frozen=True)
class KeptPair:
    """One pair's match at this party.

    Attributes:
        directory: where it is kept.
        spec: its job.
        peer: the other party.
        own: this party's set.
        people: who took part.
        state: what it remembers.
        secret: of this pair in this job.
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
        """Where the size goes, at a party that may know no more."""
        return self.directory / "size"

    def clear(self) -> None:
        """Take away what the match, being over, needs no more."""
        _clear(self.directory)


class KeptPairs:
    """The matches of this party's pairs, in its folder."""

    def __init__(self, desk: Desk, sides: Sides) -> None:
        self._desk = desk
        self._sides = sides
        self._name = desk.folder.name
        self._terms = desk.agreement.match

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

    def open(self, spec: MatchSpec, peer: str, *, label: str) -> KeptPair:
        """Begin a pair's match, or go on with it: the set is read once for a job.

        Args:
            spec: its job.
            peer: the other party.
            label: of what began it; makes the pair's secret.

        Raises:
            RefusedError: more than the agreement lets, or too few were found before.
            MessageError: it has ended, or began with another set.
        """
        directory, folder = self._sides.directory(spec.name, peer), self._desk.folder
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
        key = self._terms.keys[0] if self._terms.reveal is Reveal.SIZE_ONLY else None
        own = bring(
            self._desk,
            spec.name,
            history,
            most=tokens_allowed(self._desk.agreement, self._name),
            told=told,
            key=key,
        )
        people, widths = people_of(self._desk, spec.name), self.widths(peer)
        count, width = own.token_count, 1
        if widths is not None:
            width = widths[0 if self._sides.learns(peer) else 1]
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
        pair = self.save(KeptPair(directory, spec, peer, own, people, state, secret, widths))
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
            raise self._sides.too_few()
        return state

    def widths(self, peer: str) -> tuple[int, int] | None:
        """Return `record_widths` of this party and another."""
        sides = (self._name, peer) if self._sides.learns(peer) else (peer, self._name)
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

    def load(self, message: Message, spec: MatchSpec, *, learns: bool) -> KeptPair:
        """Go on with a pair's match; what is asked of it is the learner's, or its peer's, to do.

        Raises:
            RefusedError: it is not for this party, or too few were found before.
            MessageError: the message answers nothing, nothing is under way, or the set changed.
        """
        peer, job = message.header.sender, spec.name
        if not (self._sides.learns(peer) if learns else self._sides.helps(peer)):
            raise self._desk.refusal("match.reveal", f"{message.header.kind} is not for {peer}")
        directory = self._sides.directory(job, peer)
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
        people, widths = people_of(self._desk, job), self.widths(peer)
        return KeptPair(directory, spec, peer, own, people, state, secret, widths)

    def save(self, pair: KeptPair, state: MatchState | None = None) -> KeptPair:
        """Keep what a pair's match remembers now, and return it with that."""
        now = pair.state if state is None else state
        content = now.model_dump_json().encode()
        self._desk.folder.keep_secret(pair.directory / "state.json", content)
        fixed = (pair.directory, pair.spec, pair.peer, pair.own, pair.people)
        return KeptPair(*fixed, now, pair.secret, pair.widths)

    @contextmanager
    def heard(self, pair: KeptPair, bucket: int, message: Message, *, last: bool) -> Iterator[None]:
        """Let a bucket's message count, before a secret touches it, if it keeps the protocol."""
        self.save(pair, pair.state.hear(bucket, message.sealed.digest, last=last))
        try:
            yield
        except (MessageError, PeerMessageError):
            self.save(pair, pair.state.forget(bucket))
            raise

    @contextmanager
    def cut_short(self, pair: KeptPair) -> Iterator[None]:
        """Keep of a match that found too few nothing but that it did."""
        try:
            yield
        except RefusedError as refusal:
            if refusal.term == MINIMUM:
                self.save(pair, pair.state.fall_short())
                pair.clear()
            raise


def _clear(directory: Path) -> None:
    """Take away what a match that is over needs no more; the secret last, by which it is met."""
    for pattern in ("found-*", ".*.tmp"):  # what a crash left half-written too
        for file in directory.glob(pattern):
            file.unlink()
    if (directory / "records").exists():
        shutil.rmtree(directory / "records")
    (directory / "secret").unlink(missing_ok=True)
