"""What a coordinator's job asks to be sent, and what it expects back.

A coordinator's side of a job is a generator: it yields what to send and is resumed with the
verified answers, in the same order. It does no I/O and knows no transport.
"""

from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel

from federation.errors import MessageError, RefusedError
from federation.messages import Body, Message, Refused

__all__ = ["Outgoing", "Relay", "Say", "expect"]

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


Outgoing = Say | Relay


def expect(message: Message, kind: type[BodyT]) -> BodyT:
    """Return the body if it is of the expected kind.

    Raises:
        RefusedError: the party refused.
        MessageError: it said something else.
    """
    body = message.body
    if isinstance(body, Refused):
        raise RefusedError(party=message.header.sender, term=body.term, remedy=body.remedy)
    if not isinstance(body, kind):
        raise MessageError(
            f"{message.header.sender} said {body.kind} in job {message.header.job!r}; "
            f"expected {kind.model_fields['kind'].default}"
        )
    return body
