"""What a party wants to say, and what the gate has to know of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from compliance import records
from federation.messages import Body
from federation.people_used import PeopleUsed
from privacy.accounting.events import Event

__all__ = ["Departure", "Leaf", "Minimum"]

Leaf = Callable[..., records.Record]
"""A kind of leaf."""


@dataclass(frozen=True)
class Minimum:
    """A size below which nothing may leave.

    Attributes:
        term: the agreement's term, as a dotted path.
        found: the size here; it is in no message, error or leaf.
        required: the term's value.
    """

    term: str
    found: int
    required: int

    @property
    def remedy(self) -> str:
        """What would pass; of a match, whose secrets are gone, another one alone."""
        if self.term == "match.minimum_match":
            return (
                f"below the minimum of {self.required} matched people: bring more people whom both "
                "sides know, or agree on a smaller minimum, then match under another name"
            )
        return (
            f"below the minimum of {self.required}: bring more people, or agree on a smaller "
            "minimum"
        )


@dataclass(frozen=True)
class Departure:
    """What a party wants to say.

    Attributes:
        job: the job it belongs to.
        recipient: party it is meant for.
        body: what is said.
        payload: raw bytes beside it.
        answers: digest of the message it answers, if any.
        people: who it was made from, where it was made from people.
        minimums: sizes that must hold.
        charge: privacy loss of the release, for the person it concerns most.
        paid_by: id of the charge of an earlier release, if this one tells more of what that paid
            for: it costs nothing more, but where a period is agreed it weighs from now on.
        results: leaves about what the party keeps for itself if this leaves: kind and fields.
    """

    job: str
    recipient: str
    body: Body
    payload: bytes = b""
    answers: str | None = None
    people: PeopleUsed | None = None
    minimums: tuple[Minimum, ...] = ()
    charge: Event | None = None
    paid_by: str | None = None
    results: tuple[tuple[Leaf, Mapping[str, object]], ...] = ()
