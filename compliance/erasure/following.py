"""The requester's side: where a request stands at one peer, and what is to be done next.

```
queued ─sent─► sent ─acknowledged─► acknowledged ─completed─► completed
                 └─refused─► refused ◄─refused─┘ (it is not known there any more)
                                └─sent─► sent                     ▲
      (any open state) ─overdue─► overdue ───────── completed ────┘  late; the evidence stays
                                   │   ▲
                                   └───┘ sent, acknowledged, refused: what is late is still asked
```

Guarantees: every request that was queued ends as completed or as overdue with evidence, as long as
somebody asks `next_action` now and then; what is overdue is sent, or reminded of, every day until
it is completed; what is said twice changes nothing; a state is wholly its events, in order, so that
whoever kept these lost nothing.

Leaves to others: keeping each event before acting on it, sending, verifying what arrives (`wire`,
`completion`), and the time.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from compliance.canonical import canonical_json
from compliance.errors import ErasureError

__all__ = ["TRANSITIONS", "Action", "Event", "Following", "Happening", "Schedule", "State"]


class State(StrEnum):
    """Where a request stands at one peer."""

    QUEUED = "queued"
    SENT = "sent"
    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    """The peer cannot take it as it is: somebody must mend it; it is sent again meanwhile."""
    COMPLETED = "completed"
    OVERDUE = "overdue"


class Happening(StrEnum):
    """What can happen."""

    SENT = "sent"
    """It left, for the first time or as a reminder."""
    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    ESCALATED = "escalated"
    """The peer's contact was told, and this party's own."""
    COMPLETED = "completed"
    OVERDUE = "overdue"


class Action(StrEnum):
    """What is to be done now."""

    SEND = "send"
    REMIND = "remind"
    ESCALATE = "escalate"
    DECLARE_OVERDUE = "declare overdue"


TRANSITIONS: Final[Mapping[tuple[State, Happening], State]] = {
    (State.QUEUED, Happening.SENT): State.SENT,
    (State.QUEUED, Happening.ESCALATED): State.QUEUED,
    (State.QUEUED, Happening.OVERDUE): State.OVERDUE,
    (State.SENT, Happening.SENT): State.SENT,
    (State.SENT, Happening.ACKNOWLEDGED): State.ACKNOWLEDGED,
    (State.SENT, Happening.REFUSED): State.REFUSED,
    (State.SENT, Happening.ESCALATED): State.SENT,
    (State.SENT, Happening.COMPLETED): State.COMPLETED,  # its acknowledgement was lost
    (State.SENT, Happening.OVERDUE): State.OVERDUE,
    (State.ACKNOWLEDGED, Happening.SENT): State.ACKNOWLEDGED,
    (State.ACKNOWLEDGED, Happening.ACKNOWLEDGED): State.ACKNOWLEDGED,
    (State.ACKNOWLEDGED, Happening.REFUSED): State.REFUSED,  # the peer was put back
    (State.ACKNOWLEDGED, Happening.ESCALATED): State.ACKNOWLEDGED,
    (State.ACKNOWLEDGED, Happening.COMPLETED): State.COMPLETED,
    (State.ACKNOWLEDGED, Happening.OVERDUE): State.OVERDUE,
    (State.REFUSED, Happening.SENT): State.SENT,
    (State.REFUSED, Happening.ACKNOWLEDGED): State.ACKNOWLEDGED,  # of an earlier sending
    (State.REFUSED, Happening.REFUSED): State.REFUSED,
    (State.REFUSED, Happening.ESCALATED): State.REFUSED,
    (State.REFUSED, Happening.COMPLETED): State.COMPLETED,
    (State.REFUSED, Happening.OVERDUE): State.OVERDUE,
    (State.COMPLETED, Happening.ACKNOWLEDGED): State.COMPLETED,  # it came late
    (State.COMPLETED, Happening.COMPLETED): State.COMPLETED,
    (State.OVERDUE, Happening.SENT): State.OVERDUE,  # late is better than never
    (State.OVERDUE, Happening.ACKNOWLEDGED): State.OVERDUE,
    (State.OVERDUE, Happening.REFUSED): State.OVERDUE,
    (State.OVERDUE, Happening.ESCALATED): State.OVERDUE,
    (State.OVERDUE, Happening.COMPLETED): State.COMPLETED,
    (State.OVERDUE, Happening.OVERDUE): State.OVERDUE,
}
"""Every pair that may be; any other is refused."""

_ANSWERS: Final = frozenset({Happening.ACKNOWLEDGED, Happening.REFUSED})


class Event(BaseModel):
    """One thing that happened.

    Attributes:
        happening: what.
        time: when, as this party's clock had it.
        evidence: hexadecimal SHA-256 of the message, where there was one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    happening: Happening
    time: AwareDatetime
    evidence: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


class Schedule(BaseModel):
    """When what is due.

    Attributes:
        deadline: by when the peer must have completed.
        remind_after: how long an unanswered message waits before it is sent again.
        escalate_before: how long before the deadline people are told.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    deadline: AwareDatetime
    remind_after: timedelta = timedelta(days=1)
    escalate_before: timedelta = timedelta(days=2)


class Following(BaseModel):
    """One request at one peer.

    Attributes:
        request: names the request; random.
        peer: whom it was sent to.
        schedule: when what is due.
        events: all that happened.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    request: str
    peer: str
    schedule: Schedule
    events: tuple[Event, ...] = ()

    @property
    def state(self) -> State:
        """Where it stands.

        Raises:
            ErasureError: its events do not follow from each other: the store is damaged.
        """
        state = State.QUEUED
        for event in self.events:
            state = self._next(state, event.happening)
        return state

    @property
    def is_over(self) -> bool:
        """Whether it is completed, or overdue with evidence: what is overdue is asked for still."""
        return self.state in {State.COMPLETED, State.OVERDUE}

    @property
    def is_acknowledged(self) -> bool:
        """Whether the peer has it, by what it answered last."""
        answers = [one.happening for one in self.events if one.happening in _ANSWERS]
        return answers[-1:] == [Happening.ACKNOWLEDGED]

    @property
    def sent(self) -> int:
        """How often it left, reminders among them."""
        return sum(event.happening is Happening.SENT for event in self.events)

    @property
    def is_escalated(self) -> bool:
        """Whether people were told that its deadline is near."""
        return self._last(Happening.ESCALATED) is not None

    def after(self, event: Event) -> Self:
        """Return it once something more has happened; what changes nothing is not kept twice.

        Raises:
            ErasureError: that cannot happen now.
        """
        before = self.state
        after = self._next(before, event.happening)
        found = self.model_copy(update={"events": (*self.events, event)})
        repeats = event.happening in {Happening.SENT, Happening.ESCALATED}
        changes = after is not before or found.is_acknowledged is not self.is_acknowledged
        return found if repeats or changes or not self._knows(event) else self

    def next_action(self, now: datetime) -> Action | None:
        """Say what is to be done now; None while there is nothing but to wait."""
        state, schedule = self.state, self.schedule
        if state is State.COMPLETED:
            return None
        if state is not State.OVERDUE:
            if now >= schedule.deadline:
                return Action.DECLARE_OVERDUE
            due = now >= schedule.deadline - schedule.escalate_before
            if due and not self.is_escalated:
                return Action.ESCALATE
        last = self._last(Happening.SENT)
        if last is None:
            return Action.SEND
        return Action.REMIND if now >= last + schedule.remind_after else None

    @property
    def evidence_digest(self) -> str:
        """SHA-256 of what was sent and answered, and when: what `overdue` rests on."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json"))).hexdigest()

    def _last(self, happening: Happening) -> datetime | None:
        times = [event.time for event in self.events if event.happening is happening]
        return times[-1] if times else None

    def _knows(self, event: Event) -> bool:
        return any(
            (one.happening, one.evidence) == (event.happening, event.evidence)
            for one in self.events
        )

    def _next(self, state: State, happening: Happening) -> State:
        found = TRANSITIONS.get((state, happening))
        if found is None:
            raise ErasureError(
                f"request {self.request} at {self.peer} is {state}: it cannot be {happening} now"
            )
        return found
