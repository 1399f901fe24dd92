"""Answers of a SuperLink, no larger than a node has room for.

Guarantees: of an answer no more is read than it may have, whatever it says of its own length and
however often it sends one on; and it is not packed, so that what is read is what it takes up.

Leaves to others: how many answers make a message, and how large that may be (`superlink`).
"""

from collections.abc import Iterator
from typing import Final, cast

from httpx import Client, Response, SyncByteStream

from federation.errors import SuperLinkError

__all__ = ["bound_answers"]

_CODING: Final = "identity"


def bound_answers(client: Client, address: str, *, most: int) -> None:
    """Have a client read answers of so many bytes at most.

    Once they are bounded, a call may raise SuperLinkError.

    Args:
        client: makes the calls.
        address: of whoever answers.
        most: bytes of an answer's body.
    """

    def bound(answer: Response) -> None:
        """Bound an answer of which the head alone was read."""
        if answer.headers.get("content-encoding", _CODING) != _CODING:
            raise SuperLinkError(
                f"what answers at {address} packs its answers, which nobody asked for: have "
                "whatever stands before the SuperLink leave them as they are"
            )
        answer.stream = _Bounded(cast("SyncByteStream", answer.stream), address, most)

    client.headers["accept-encoding"] = _CODING
    client.event_hooks = {"response": [bound]}


class _Bounded(SyncByteStream):
    """The body of an answer, up to a number of bytes."""

    def __init__(self, body: SyncByteStream, address: str, most: int) -> None:
        self._body = body
        self._address = address
        self._most = most

    def __iter__(self) -> Iterator[bytes]:
        left = self._most
        for piece in self._body:
            left -= len(piece)
            if left < 0:
                raise SuperLinkError(
                    f"what answers at {self._address} says more than {self._most} bytes at once: "
                    "it is no SuperLink of Comity's; name the right address, or ask its operator"
                )
            yield piece

    def close(self) -> None:
        self._body.close()
