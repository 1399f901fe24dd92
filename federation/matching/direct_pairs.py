"""Pairs' matches over a direct link, as this party keeps them between two messages.

```
jobs/JOB/
  people/ set/     who took part, and their tokens (`bringing`)
  with-PEER/       state.json · secret · commitment · size · found-N.npy: one pair's match
```

Guarantees: the secret belongs to one set and one pair; a set that changed is refused. When a match
is over its secret goes; where it found too few, whom it found goes too, and only that stays: it was
too few.

Leaves to others: the steps, and what is said (`direct`); the set on disk (`bringing`).
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from federation.desk import Desk
from federation.errors import MessageError
from federation.jobs.match.direct import DirectState
from federation.matching.bringing import bring, commitment, commitment_key, people_of
from federation.matching.history import MatchHistory
from federation.matching.sides import Sides
from federation.matching.token_set import MatchingSet
from federation.members import Members
from federation.messages import MatchSide
from federation.party import undamaged
from federation.population import recipe_for, tokens_allowed
from federation.specification import MatchSpec
from federation.stored_arrays import read_array
from privacy.identifiers import recipe_fingerprint
from privacy.psi.buckets import padded_count
from privacy.randomness import Secret

__all__ = ["DirectPair", "DirectPairs"]


@dataclass(frozen=True)
class DirectPair:
    """One pair's match at this party.

    Attributes:
        directory: where it is kept.
        spec: its job.
        peer: the other party.
        own: this party's set.
        people: who took part.
        state: what it remembers.
        secret: of this pair in this job; None once it has ended.
    """

    directory: Path
    spec: MatchSpec
    peer: str
    own: MatchingSet
    people: Members
    state: DirectState
    secret: Secret | None

    def found(self, bucket: int) -> Path:
        """Return where whom a bucket found goes."""
        return self.directory / f"found-{bucket:05d}.npy"

    def at(self, state: DirectState) -> Self:
        """Return it as it stands from here on."""
        return replace(self, state=state)

    @property
    def size(self) -> Path:
        """Where the size goes, at a party that may know no more."""
        return self.directory / "size"

    @property
    def open_secret(self) -> Secret:
        """The secret of a match that is under way."""
        if self.secret is None:
            raise MessageError(f"the match of job {self.spec.name!r} with {self.peer} has ended")
        return self.secret

    def rows(self, buckets: int) -> NDArray[np.int64]:
        """Return whose tokens were found in all buckets, each row once, rising.

        Raises:
            MessageError: one was not matched.
            WorkspaceError: what was found is damaged.
        """
        parts = []
        for bucket in range(buckets):
            path = self.found(bucket)
            if not path.exists():
                raise MessageError(f"job {self.spec.name!r} is to end before bucket {bucket}")
            parts.append(read_array(path, np.int64, None))
        return np.unique(np.concatenate(parts))

    def end(self) -> None:
        """Take away the secret, which a match that is over needs no more."""
        (self.directory / "secret").unlink(missing_ok=True)

    def clear(self) -> None:
        """Take away whom a match found that found too few, and its secret."""
        _clear(self.directory)


class DirectPairs:
    """The matches of this party's pairs over direct links, in its folder."""

    def __init__(self, desk: Desk, sides: Sides) -> None:
        self._desk = desk
        self._sides = sides
        self._terms = desk.agreement.match
        self._name = desk.folder.name

    def open(self, spec: MatchSpec, peer: str, *, label: str) -> DirectPair:
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
        own = bring(
            self._desk,
            spec.name,
            history,
            most=tokens_allowed(self._desk.agreement, self._name),
            told=any(folder.job(spec.name).glob("with-*/state.json")),
        )
        secret_file, state_file = directory / "secret", directory / "state.json"
        before: DirectState | None = None
        if state_file.exists():
            with undamaged(state_file):
                before = DirectState.model_validate_json(folder.read_secret(state_file))
            self._check_reached(directory, before)
        if not secret_file.exists():
            if before is not None:
                raise MessageError(f"the match of job {spec.name!r} with {peer} has ended here")
            folder.keep_secret(secret_file, folder.fresh_secret(f"match/{label}"))
        secret = Secret(folder.read_secret(secret_file))
        folder.keep_secret(directory / "commitment", commitment_key(secret))
        side = MatchSide(
            recipe=recipe_fingerprint(recipe_for(self._terms)),
            points=padded_count(own.token_count, self._terms.set_size_bucket),
            commitment=commitment(secret, own),
        )
        state = before or DirectState(own=side)  # a repeated question goes on with what was said
        if state.own != side:
            raise MessageError(f"job {spec.name!r} began with another set: name another job")
        history.record(spec.name, peer, own, at=self._desk.clock())
        people = people_of(self._desk, spec.name)
        return self.save(DirectPair(directory, spec, peer, own, people, state, secret))

    def load(self, spec: MatchSpec, peer: str) -> DirectPair:
        """Go on with a pair's match.

        Raises:
            RefusedError: too few were found before.
            MessageError: nothing is under way, or the set changed.
        """
        directory, job = self._sides.directory(spec.name, peer), spec.name
        own = MatchingSet.open(self._desk.folder.job(job) / "set")
        try:
            with undamaged(directory):
                content = self._desk.folder.read_secret(directory / "state.json")
                state = DirectState.model_validate_json(content)
        except FileNotFoundError as error:
            raise MessageError(f"job {job!r} with {peer}: nothing is under way") from error
        self._check_reached(directory, state)
        if own is None:
            raise MessageError(f"job {job!r} with {peer}: its set is gone")
        file = directory / "secret"
        secret = Secret(self._desk.folder.read_secret(file)) if file.exists() else None
        if secret is not None and commitment(secret, own) != state.own.commitment:
            raise MessageError(f"job {job!r} began with another set: name another job")
        return DirectPair(directory, spec, peer, own, people_of(self._desk, job), state, secret)

    def save(self, pair: DirectPair, state: DirectState | None = None) -> DirectPair:
        """Keep what a pair's match remembers now, and return it with that."""
        now = pair.state if state is None else state
        content = now.model_dump_json().encode()
        self._desk.folder.keep_secret(pair.directory / "state.json", content)
        return pair.at(now)

    def _check_reached(self, directory: Path, state: DirectState) -> None:
        """Refuse to go on where fewer matched than agreed."""
        if state.below_minimum:
            _clear(directory)
            raise self._sides.too_few()


def _clear(directory: Path) -> None:
    for path in (*directory.glob("found-*.npy"), directory / "secret"):
        path.unlink(missing_ok=True)
