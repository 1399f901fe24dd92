"""What an observer is told of a message that a node has answered: kinds, names, sizes and times.

Guarantees: what a stranger wrote is never repeated: a kind is one that has a route, or "unknown";
job and agreement are those of the party's own answer.

Leaves to others: measuring (`federation.apps.launchers`), showing (`tally`, `spans`).
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict

from compliance.errors import ComplianceError
from compliance.signing import Envelope
from federation.messages import content_digest
from federation.routes import ROUTES

__all__ = ["UNKNOWN", "Answered", "Exchange", "Observer", "Outcome", "exchange_of", "header_of"]

UNKNOWN: Final = "unknown"
_REFUSED: Final = "refused"
_JOB: Final = re.compile(r"[a-z][a-z0-9-]{0,62}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class Outcome(StrEnum):
    """What became of a message."""

    ANSWERED = "answered"
    REFUSED = "refused"
    FAILED = "failed"
    """There was no answer: a step raised, or the worker ended."""


@dataclass(frozen=True)
class Header:
    """What of a header an observer is told; `UNKNOWN` where it is malformed."""

    kind: str = UNKNOWN
    job: str = UNKNOWN
    agreement: str = UNKNOWN


class Exchange(BaseModel):
    """A message and what became of it.

    Attributes:
        kind: of the message.
        job: that the answer belongs to.
        agreement: digest of the one under which it was answered.
        question: digest of the message.
        outcome: of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str = UNKNOWN
    job: str = UNKNOWN
    agreement: str = UNKNOWN
    question: str = UNKNOWN
    outcome: Outcome = Outcome.FAILED


@dataclass(frozen=True)
class Answered:
    """An exchange, measured by the node.

    Attributes:
        exchange: itself.
        begun: nanoseconds since 1970 when the message was there.
        seconds: until the answer was.
        bytes_in: of the message as it travelled.
        bytes_out: of the answer.
    """

    exchange: Exchange
    begun: int
    seconds: float
    bytes_in: int
    bytes_out: int


Observer = Callable[[Answered], None]


def header_of(envelope: bytes) -> Header:
    """Return what an unverified header says, as far as it is well formed."""
    try:
        said = json.loads(Envelope.from_json(envelope).payload_bytes)
        body = said["body"]
        found = Header(body.get("encrypts", body["kind"]), said["job"], said["agreement"])
    except (ComplianceError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Header()
    return Header(
        kind=found.kind if found.kind in ROUTES else UNKNOWN,
        job=_matching(_JOB, found.job),
        agreement=_matching(_DIGEST, found.agreement),
    )


def exchange_of(question: bytes, answer: bytes | None) -> Exchange:
    """Return what an observer is told of two envelopes; `answer` is None where there is none."""
    asked, digest = header_of(question), content_digest(question)
    if answer is None:
        return Exchange(kind=asked.kind, question=digest)
    said = header_of(answer)
    return Exchange(
        kind=asked.kind,
        job=said.job,
        agreement=said.agreement,
        question=digest,
        outcome=Outcome.REFUSED if said.kind == _REFUSED else Outcome.ANSWERED,
    )


def _matching(pattern: re.Pattern[str], value: object) -> str:
    return value if isinstance(value, str) and pattern.fullmatch(value) else UNKNOWN
