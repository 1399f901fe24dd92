"""What is said when requests to erase go from party to party."""

from typing import Annotated, Literal

from pydantic import Field

from compliance.agreement import MOST_PARTIES
from compliance.canonical import is_unsaid
from federation.messages.vocabulary import Closed, Digest, PartyName

__all__ = [
    "EraseBatch",
    "EraseHeard",
    "EraseLook",
    "EraseShow",
    "EraseShown",
    "EraseStanding",
    "EraseTell",
    "EraseTold",
]

EraseRound = Annotated[int, Field(ge=1, le=4)]
Part = Annotated[int, Field(ge=0, lt=1 << 20, exclude_if=is_unsaid)]
Peers = Annotated[tuple[PartyName, ...], Field(max_length=MOST_PARTIES)]


class EraseLook(Closed):
    """Coordinator to a data party: carry out what is pending; for whom have you something?

    Attributes:
        attempt: names this exchange, so that what an earlier one said counts no more.
        round: of it.
    """

    kind: Literal["erase.look"] = "erase.look"
    attempt: Digest
    round: EraseRound


class EraseStanding(Closed):
    """Data party to coordinator: whom it has requests for, and news of requests.

    Attributes:
        batches: parties that are to show it their people, blinded.
        news: parties that it has reminders or completions for.
    """

    kind: Literal["erase.standing"] = "erase.standing"
    batches: Peers = ()
    news: Peers = ()


class EraseShow(Closed):
    """Coordinator to a data party: show your people, blinded, to the one with requests."""

    kind: Literal["erase.show"] = "erase.show"
    attempt: Digest
    round: EraseRound
    origin: PartyName


class EraseShown(Closed):
    """Data party to another: a part of its people, blinded (payload: points).

    Attributes:
        showing: names them, for the answer.
        part: which part, from 0.
    """

    kind: Literal["erase.shown"] = "erase.shown"
    showing: Digest
    part: Part = 0


class EraseBatch(Closed):
    """Data party to another: whom to erase (payload: tags, a batch of points; at last requests).

    Attributes:
        showing: that is answered.
        part: of it.
    """

    kind: Literal["erase.batch"] = "erase.batch"
    showing: Digest
    part: Part = 0


class EraseTell(Closed):
    """Coordinator to a data party: tell `peer` your news."""

    kind: Literal["erase.tell"] = "erase.tell"
    attempt: Digest
    round: EraseRound
    peer: PartyName


class EraseTold(Closed):
    """Data party to another: completions of its requests, reminders of one's own (payload)."""

    kind: Literal["erase.told"] = "erase.told"


class EraseHeard(Closed):
    """Data party to another: what it makes of a batch, or of news (payload)."""

    kind: Literal["erase.heard"] = "erase.heard"
