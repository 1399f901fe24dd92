"""What a party has matched before: how often with whom, and with which set.

```
matches/
  history.json       every match and alignment that this party took part in: when, in which job,
                     with whom
  last-set.bin       hashes of the tokens of the last set that had any, sorted, to measure how the
                     next differs
  last-set-KEY.bin   likewise of the last set of one key alone, which was aligned
```

Guarantees: a match that would pass the agreed number in the agreed period, or whose set differs
from the last one by more than the agreed share, is refused before anything of it leaves; matches
are counted at both sides, so that neither can pass the cap alone. A repeated job counts once. A
history of which a part is lost is not begun anew. A set of nobody is not remembered: the next one
is held against the last that had anybody.

Leaves to others: what another party's set holds, which it alone knows: its commitment lets an
auditor compare later; and a folder of which all is lost. The last set of all keys and that of one
key are not held against each other.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AwareDatetime, BaseModel, ConfigDict, TypeAdapter, ValidationError

from compliance.terms import MatchTerms
from federation.errors import RefusedError, WorkspaceError
from federation.matching.token_set import MatchingSet
from federation.party import write_atomically

__all__ = ["MatchHistory", "forget_tokens"]


def forget_tokens(directory: Path, tokens: NDArray[np.uint8]) -> None:
    """Take tokens, shape (n, 33), out of the last sets: nobody tells by these that they were there.

    Whoever is erased is in no later set, and so counts as gone in no comparison.

    Raises:
        WorkspaceError: a last set is damaged, or the disk is full.
    """
    gone = np.ascontiguousarray(tokens[:, -8:]).view("<u8").ravel()
    for file in sorted(directory.glob("last-set*.bin")):
        try:
            hashes = _hashes_in(file)
        except WorkspaceError as error:
            raise WorkspaceError(
                f"{error}, then requests to erase are completed; where there is none, remove it: "
                "they are completed too, and this party can match no more"
            ) from error
        stay = ~np.isin(hashes, gone)
        if not stay.all():
            write_atomically(file, hashes[stay].tobytes(), mode=0o600)


class _Match(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    time: AwareDatetime
    job: str
    peer: str
    key: str | None = None


_MATCHES = TypeAdapter(tuple[_Match, ...])


class MatchHistory:
    """A party's matches, under its folder. Use it under the party's lock."""

    def __init__(self, directory: Path, party: str, matches: Sequence[_Match]) -> None:
        self._directory = directory
        self._party = party
        self._matches = tuple(matches)

    @classmethod
    def open(cls, directory: Path, party: str) -> Self:
        """Read a party's matches; none where there is no such directory.

        Raises:
            WorkspaceError: the history is damaged, or lost though a last set is there. It is not
                begun anew: that would forget the cap.
        """
        file = directory / "history.json"
        try:
            return cls(directory, party, _MATCHES.validate_json(file.read_bytes()))
        except FileNotFoundError as error:
            if any(directory.glob("last-set*.bin")):
                raise WorkspaceError(f"{file} is missing: restore it from a backup") from error
            return cls(directory, party, ())
        except (ValidationError, OSError) as error:
            raise WorkspaceError(f"{file} cannot be read: restore it from a backup") from error

    def check_new(self, job: str, peer: str | None = None) -> None:
        """Refuse a job of which nothing is left but that it was matched: it would not count again.

        Args:
            job: its name.
            peer: with whom, where nothing of that pair's match is left; anybody where left out.

        Raises:
            RefusedError: the job is in the history.
        """
        if any(one.job == job and peer in (None, one.peer) for one in self._matches):
            raise RefusedError(
                party=self._party,
                term="match.maximum_matches",
                remedy=f"job {job!r} was matched before, and what it kept is gone: run it under "
                "another name, so that it counts",
            )

    def check_count(self, job: str, peer: str, terms: MatchTerms, *, at: datetime) -> None:
        """Refuse one match more than agreed with a peer.

        Raises:
            RefusedError: `maximum_matches` in the last `period_days` are used up.
        """
        since = at - timedelta(days=terms.period_days)
        before = [one for one in self._matches if one.peer == peer and one.job != job]
        recent = sorted(one.time for one in before if one.time > since)
        if len(recent) >= terms.maximum_matches:
            free = recent[-terms.maximum_matches] + timedelta(days=terms.period_days)
            raise RefusedError(
                party=self._party,
                term="match.maximum_matches",
                remedy=f"{len(recent)} matches with {peer} in {terms.period_days} days, as many as "
                f"agreed: wait until {free:%Y-%m-%d}, or agree on more",
            )

    def check_change(self, own: MatchingSet, terms: MatchTerms, *, key: str | None = None) -> None:
        """Refuse a set that differs too much from the last one of the same kind.

        Args:
            own: the set.
            terms: the agreement's.
            key: of which alone the set is made; None where it is of all that are agreed.

        Raises:
            RefusedError: tokens that came or went are more than `maximum_change` of the last set.
            WorkspaceError: the last set is damaged, or lost though there was a match.
        """
        size = self._last_size(key)
        if not size:  # nothing to differ from
            return
        changed = size
        for now in own.hashes():
            kept = np.intersect1d(self._last_between(key, now[0], now[-1]), now, assume_unique=True)
            changed += len(now) - 2 * len(kept)
        if changed > terms.maximum_change * size:
            raise RefusedError(
                party=self._party,
                term="match.maximum_change",
                remedy=f"more than {terms.maximum_change:.0%} of the set that was last matched "
                "came or went: match fewer new people at a time, or agree on more",
            )

    def record(
        self, job: str, peer: str, own: MatchingSet, *, at: datetime, key: str | None = None
    ) -> Self:
        """Remember a match that is about to begin; once more changes nothing.

        The set is kept as the last one once for a job: who was taken out of it meanwhile stays out.

        1. There is a history before there is a last set: a set without one is a loss.
        2. There is a set before a match counts: the next one has something to be held against.
        """
        last = self._last_set_file(key)
        if not (self._directory / "history.json").exists():  # 1
            self._write(self._matches)
        is_kept = [one.job for one in self._matches if one.key == key][-1:] == [job]
        if (own.token_count and not is_kept) or not last.exists():
            hashes = (block.astype("<u8").tobytes() for block in own.hashes())
            write_atomically(last, hashes, mode=0o600)  # 2
        if any((one.job, one.peer) == (job, peer) for one in self._matches):
            return self
        matches = (*self._matches, _Match(time=at, job=job, peer=peer, key=key))
        self._write(matches)
        return type(self)(self._directory, self._party, matches)

    def _write(self, matches: tuple[_Match, ...]) -> None:
        write_atomically(self._directory / "history.json", _MATCHES.dump_json(matches), mode=0o600)

    def _last_set_file(self, key: str | None) -> Path:
        return self._directory / (f"last-set-{key}.bin" if key else "last-set.bin")

    def _last_size(self, key: str | None) -> int:
        """Return how many tokens the last set had; 0 where there is none."""
        file = self._last_set_file(key)
        try:
            return len(_hashes_in(file))
        except FileNotFoundError as error:
            if not any(one.key == key for one in self._matches):
                return 0
            raise WorkspaceError(f"{file} is missing: restore it from a backup") from error

    def _last_between(self, key: str | None, low: np.uint64, high: np.uint64) -> NDArray[np.uint64]:
        """Return the hashes of the last set from `low` to `high`."""
        hashes = _hashes_in(self._last_set_file(key))
        begin, end = np.searchsorted(hashes, low), np.searchsorted(hashes, high, side="right")
        return np.array(hashes[begin:end], dtype=np.uint64)


def _hashes_in(file: Path) -> NDArray[np.uint64]:
    """Map a last set, which may be large, into memory."""
    size = file.stat().st_size
    if size % 8:
        raise WorkspaceError(f"{file} is damaged: restore it from a backup")
    return np.memmap(file, dtype="<u8", mode="r") if size else np.empty(0, dtype=np.uint64)
