"""What a coordinator's job asks to be sent, and what it expects back.

A coordinator's side of a job is a generator: it yields what to send and is resumed with the
verified answers, in the same order. It does no I/O and knows no transport.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from federation.errors import MessageError, RefusedError
from federation.messages import Body, Encrypted, Message, Refused

__all__ = [
    "Exchange",
    "Outgoing",
    "Relay",
    "Say",
    "Tolerant",
    "carried",
    "expect",
    "expect_encrypted",
    "rows_of",
]

BodyT = TypeVar("BodyT", bound=BaseModel)


@dataclass(frozen=True)
class Say:
    """Something the coordinator says itself, through its own gate."""

    recipient: str
    job: str
    body: Body
    payload: bytes = b""


@dataclass(frozen=True)
class Relay:
    """A party's sealed message, carried on unopened to the recipient that it names."""

    message: Message

    @property
    def job(self) -> str:
        """The job that the message belongs to."""
        return self.message.header.job

    @property
    def recipient(self) -> str:
        """Whom it is carried to."""
        return self.message.header.recipient


Outgoing = Say | Relay


@dataclass(frozen=True)
class Tolerant:
    """An exchange that goes on without some of the parties, if they cannot be reached.

    Only the answers that came are handed back. Whoever is missing once is left out by the job.

    Attributes:
        outgoing: what is said, to one party each.
        most_missing: answers that may be missing, 0 or more.
        kept: whether answers are kept for a run that begins again. Else whoever answered is asked
            again, and is left out if it is no longer there.
    """

    outgoing: Sequence[Outgoing]
    most_missing: int
    kept: bool = True


Exchange = Sequence[Outgoing] | Tolerant
"""What a job asks to be sent at once."""


def expect(message: Message, kind: type[BodyT]) -> BodyT:
    """Return the body if it is of the expected kind.

    Raises:
        RefusedError: the party refused.
        MessageError: it said something else.
    """
    body = message.body
    if not isinstance(body, kind):
        raise _unexpected(message, kind.model_fields["kind"].default)
    return body


def expect_encrypted(message: Message, kind: type[BaseModel]) -> None:
    """Return only if the message holds, for another's eyes, a body of the expected kind.

    Raises:
        RefusedError: the party refused.
        MessageError: it said something else, or said it in clear.
    """
    told = kind.model_fields["kind"].default
    if message.body != Encrypted(encrypts=told):
        raise _unexpected(message, f"{told}, encrypted")


def carried(message: Message, kind: type[BaseModel], recipient: str) -> Relay:
    """Return what carries an encrypted message on, if it holds the expected kind for `recipient`.

    Raises:
        RefusedError: the party refused.
        MessageError: it said something else, said it in clear, or to somebody else.
    """
    expect_encrypted(message, kind)
    if message.header.recipient != recipient:
        raise MessageError(
            f"{message.header.sender} said {message.header.kind} to {message.header.recipient}; "
            f"expected to {recipient}"
        )
    return Relay(message)


def rows_of(payload: bytes, count: int, width: int) -> NDArray[np.uint8]:
    """Return a payload of points or tags as an array of shape (count, width).

    Raises:
        MessageError: it has another length.
    """
    if len(payload) != count * width:
        raise MessageError(
            f"matching data: got {len(payload)} bytes, expected {count} x {width}: all sides must "
            "plan the same buckets"
        )
    return np.frombuffer(payload, dtype=np.uint8).reshape(count, width)


def _unexpected(message: Message, expected: str) -> RefusedError | MessageError:
    sender, body, job = message.header.sender, message.body, message.header.job
    if isinstance(body, Refused):
        return RefusedError(party=sender, term=body.term, remedy=body.remedy)
    said = f"{body.encrypts}, encrypted," if isinstance(body, Encrypted) else body.kind
    return MessageError(f"{sender} said {said} in job {job!r}; expected {expected}")
