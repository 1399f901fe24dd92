"""Where a party's own requests to erase stand at each other party, on disk.

```
PARTY/erasures/peers/PEER.json   the requests sent on to a party: all that happened, and what the
                                 log has yet to be told of it
PARTY/erasures/receipts/REQUEST/PEER.json    the completion that a party signed
```

Guarantees: what happened is written down before anything follows from it, all that one message says
at once; each acknowledgement, completion and delay is in the log once, wherever a crash comes.

Leaves to others: what may happen when (`compliance.erasure.following`), what is said (`spreading`).
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from compliance import records
from compliance.agreement import Agreement
from compliance.erasure.following import Action, Event, Following, Happening, Schedule, State
from federation.clock import Clock
from federation.erasing import Kept
from federation.errors import WorkspaceError
from federation.gate import Gate
from federation.jobs.spread import ERASING
from federation.leaves_told import is_told
from federation.party import PartyFolder, write_atomically
from federation.progress import Progress, report

__all__ = ["Followed"]

_Leaf = (
    type[records.ErasureAcknowledged]
    | type[records.ErasureCompleted]
    | type[records.ErasureOverdue]
)


class _Untold(BaseModel):
    """What the log has yet to be told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    request: str
    happening: Happening
    digest: str


class _Peer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    followings: tuple[Following, ...] = ()
    untold: tuple[_Untold, ...] = ()


class Followed:
    """A party's requests at all other parties. Use it under the party's lock."""

    def __init__(
        self, folder: PartyFolder, agreement: Agreement, gate: Gate, *, clock: Clock
    ) -> None:
        self._folder = folder
        self._agreement = agreement
        self._gate = gate
        self._clock = clock

    @property
    def peers(self) -> tuple[str, ...]:
        """Parties to which something was sent on, or will be."""
        return tuple(sorted(path.stem for path in self._peers.glob("*.json")))

    def at(self, peer: str) -> tuple[Following, ...]:
        """Return the requests that a party has got or will get, the oldest first."""
        return self._read(peer).followings

    def settle(self, kept: Iterable[Kept]) -> None:
        """Take up requests that are new, tell the log what it was not told, see what is late.

        Args:
            kept: requests at this party.
        """
        wanted: dict[str, list[Following]] = {}
        for one in kept:
            name, schedule = one.execution.request, Schedule(deadline=one.execution.deadline)
            for peer in one.peers:
                following = Following(request=name, peer=peer, schedule=schedule)
                wanted.setdefault(peer, []).append(following)
        for peer, followings in wanted.items():
            found = self._read(peer)
            known = {one.request for one in found.followings}
            if fresh := [one for one in followings if one.request not in known]:
                self._write(peer, found, (*found.followings, *fresh))
        for peer in self.peers:
            self._tell(peer, self._read(peer), after_crash=True)
            self._look_at_the_clock(peer)

    def unsent(self, peer: str, now: datetime) -> tuple[Following, ...]:
        """Return requests that are to be sent to a party now, for the first time or again.

        What left and got no answer is sent again at once: the answer was lost.
        """
        due = {Action.SEND, Action.REMIND}
        found = (one for one in self.at(peer) if not one.is_acknowledged)
        return tuple(one for one in found if one.state is State.SENT or one.next_action(now) in due)

    def unfinished(self, peer: str, now: datetime) -> tuple[Following, ...]:
        """Return requests of which a party, which has acknowledged them, is to be reminded now."""
        found = (one for one in self.at(peer) if one.is_acknowledged)
        return tuple(one for one in found if one.next_action(now) is Action.REMIND)

    def note(self, peer: str, events: Sequence[tuple[str, Event]]) -> None:
        """Write down what happened to requests at a party, and tell the log.

        Args:
            peer: the party.
            events: each with the name of its request.

        Raises:
            ErasureError: that cannot happen now; nothing is written.
        """
        found = self._read(peer)
        followings = {one.request: one for one in found.followings}
        untold = list(found.untold)
        for request, event in events:
            before = followings[request]
            followings[request] = after = before.after(event)
            if after is before or (kind := _LEAVES.get(event.happening)) is None:
                continue
            evidence = before.evidence_digest if kind is records.ErasureOverdue else event.evidence
            if not any(one.happening is event.happening for one in before.events):
                told = _Untold(
                    request=request, happening=event.happening, digest=evidence or "0" * 64
                )
                untold.append(told)
        written = self._write(peer, found, tuple(followings.values()), tuple(untold))
        self._tell(peer, written)

    def keep_receipt(self, request: str, peer: str, signed: bytes) -> None:
        """Keep a party's verified completion; the first one stays."""
        path = self._receipts(request) / f"{peer}.json"
        if not path.exists():
            write_atomically(path, signed, mode=0o600)

    def receipts(self, request: str) -> dict[str, bytes]:
        """Return the completions of a request that other parties signed, by party."""
        found = sorted(self._receipts(request).glob("*.json"))
        return {path.stem: path.read_bytes() for path in found}

    def _receipts(self, request: str) -> Path:
        return self._folder.erasures / "receipts" / request

    def _look_at_the_clock(self, peer: str) -> None:
        """Escalate what is nearly due, and declare late what is."""
        now = self._clock()
        events: list[tuple[str, Event]] = []
        for one in self.at(peer):
            happening = _BY_THE_CLOCK.get(one.next_action(now) or Action.SEND)
            if happening is not None:
                events.append((one.request, Event(happening=happening, time=now)))
                told = f"{one.request} at {peer}, due on {one.schedule.deadline:%Y-%m-%d}"
                report(Progress(self._folder.name, ERASING, f"{happening}: {told}"))
        if events:
            self.note(peer, events)

    def _tell(self, peer: str, found: _Peer, *, after_crash: bool = False) -> None:
        if not found.untold:
            return
        for one in found.untold:
            kind, field = _LEAVES[one.happening], _DIGESTS[one.happening]
            known = self._folder, self._agreement, kind
            if not (after_crash and is_told(*known, request=one.request, peer=peer)):
                self._gate.note(kind, None, request=one.request, peer=peer, **{field: one.digest})
        self._write(peer, found, found.followings, ())

    def _read(self, peer: str) -> _Peer:
        path = self._peers / f"{peer}.json"
        try:
            return _Peer.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return _Peer()
        except ValidationError as error:
            raise WorkspaceError(f"{path} is damaged: restore it") from error

    def _write(
        self,
        peer: str,
        found: _Peer,
        followings: tuple[Following, ...],
        untold: tuple[_Untold, ...] | None = None,
    ) -> _Peer:
        kept = found.untold if untold is None else untold
        written = _Peer(followings=followings, untold=kept)
        if written != found:
            content = written.model_dump_json().encode()
            write_atomically(self._peers / f"{peer}.json", content, mode=0o600)
        return written

    @property
    def _peers(self) -> Path:
        return self._folder.erasures / "peers"


_LEAVES: Final[dict[Happening, _Leaf]] = {
    Happening.ACKNOWLEDGED: records.ErasureAcknowledged,
    Happening.COMPLETED: records.ErasureCompleted,
    Happening.OVERDUE: records.ErasureOverdue,
}
_DIGESTS: Final = {
    Happening.ACKNOWLEDGED: "acknowledgement_digest",
    Happening.COMPLETED: "completion_digest",
    Happening.OVERDUE: "evidence_digest",
}
_BY_THE_CLOCK: Final = {
    Action.ESCALATE: Happening.ESCALATED,
    Action.DECLARE_OVERDUE: Happening.OVERDUE,
}
