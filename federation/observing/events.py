"""What a node or a coordinator tells its operator: a closed list of events, and what each may hold.

Guarantees: a field that is not listed in `FIELDS`, or is not as it says there, is dropped: so a
line holds names of parties and jobs, kinds, numbers and sentences, and no field for a person.
Sentences are those of the console; whatever in them looks like an address, a number of a telephone
or a hash is crossed out.

Leaves to others: writing lines (`json_lines`), what a console shows (`watch`, `cli`).
"""

import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final, Self

from federation.observing.answered import UNKNOWN, Outcome
from federation.operations.journal import RunState
from federation.routes import ROUTES

__all__ = ["FIELDS", "Event", "Notice", "allowed"]


class Event(StrEnum):
    """What happened."""

    TOLD = "told"
    """Something that a sentence says, and no field."""
    LOGGED = "logged"
    """A library, or a module of ours, wrote into Python's log."""
    NODE_CONNECTED = "node.connected"
    NODE_ENDED = "node.ended"
    """It was told to end; `run` is that of the message it was at, if there was one."""
    SUPERLINK_AWAY = "superlink.away"
    SUPERLINK_BACK = "superlink.back"
    CLOCKS_DIFFER = "clocks.differ"
    RUN_OVER = "run.over"
    """A run ended before its message was answered."""
    BUNDLE_REFUSED = "bundle.refused"
    WORKER_ENDED = "worker.ended"
    MESSAGE_ANSWERED = "message.answered"
    JOB_PROGRESSED = "job.progressed"
    COORDINATOR_LISTENS = "coordinator.listens"
    COORDINATOR_ENDED = "coordinator.ended"
    NODE_TAKEN = "node.taken"
    NODE_TAKEN_NO_LONGER = "node.taken_no_longer"
    EXECUTOR_ENDED = "executor.ended"
    RUN_BEGAN = "run.began"
    PARTY_OF_ANOTHER_VERSION = "party.of_another_version"
    """A run takes it for absent."""
    RUN_ENDED = "run.ended"


class Notice(str):
    """A sentence for an operator that knows which event it tells of.

    Attributes:
        event: that one.
        fields: of it.
    """

    __slots__ = ("event", "fields")
    event: Event
    fields: Mapping[str, object]

    def __new__(cls, event: Event, told: str, **fields: object) -> Self:
        """Make one."""
        self = super().__new__(cls, told)
        self.event, self.fields = event, fields
        return self


Check = Callable[[object], object]
"""Returns a value as a line may hold it; None where it may not."""


def _matching(pattern: str) -> Check:
    compiled = re.compile(pattern, re.ASCII)

    def check(value: object) -> object:
        return value if isinstance(value, str) and compiled.fullmatch(value) else None

    return check


def _one_of(*values: str) -> Check:
    return lambda value: str(value) if value in values else None


def _number(value: object) -> object:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


_NAME: Final = r"[a-z][a-z0-9-]{0,62}"
_TELLING: Final = re.compile(
    r"\+\d[\d ().-]{5,}\d"  # a telephone's number, spaced as it may be
    r"|\S*(?:@|%40|\d{7}|[0-9a-fA-F]{16})\S*"  # an address; a long number; a hash
)
_LONGEST: Final = 400


def _sentence(value: object) -> object:
    return _TELLING.sub("…", value)[:_LONGEST] if isinstance(value, str) else None


FIELDS: Final[Mapping[str, Check]] = {
    "bundle": _matching(r"[0-9a-f]{64}"),
    "bytes_in": _number,
    "bytes_out": _number,
    "epsilon_left": _number,
    "epsilon_spent": _number,
    "error": _matching(r"[A-Z][A-Za-z]{0,62}"),
    "event": _one_of(*Event),
    "job": _matching(_NAME),
    "kind": _one_of(UNKNOWN, *ROUTES),
    "level": _matching(r"[A-Z]{1,16}"),
    "logger": _matching(r"[A-Za-z][A-Za-z0-9_.]{0,62}"),
    "node": _number,
    "outcome": _one_of(*Outcome),
    "party": _matching(_NAME),
    "run": _number,
    "seconds": _number,
    "state": _one_of(*RunState),
    "time": _matching(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00"),
    "told": _sentence,
}
"""Every field that a line may have, and what it may hold."""


def allowed(fields: Mapping[str, object]) -> dict[str, object]:
    """Return what of some fields a line may hold."""
    checked = {name: FIELDS[name](value) for name, value in fields.items() if name in FIELDS}
    return {name: value for name, value in checked.items() if value is not None}
