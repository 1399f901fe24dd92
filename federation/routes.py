"""Who may say what to whom: one table, held against everything that leaves and all that arrives.

Guarantees: every kind of body has a route (`tests/test_gate.py` proves the table complete); what
has none, or goes another way, is refused at both ends.

Leaves to others: whether the moment is right (`jobs`), and whether people agreed (`gate`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from compliance.agreement import Agreement
from compliance.terms import Role
from federation.messages import EVERYONE, Header

__all__ = ["ROUTES", "Route", "off_route"]


@dataclass(frozen=True)
class Route:
    """Who may say a kind of body to whom, and what it must bring along.

    Attributes:
        sender: roles that may say it.
        recipient: roles to which it may be said.
        concerns_people: whether it is made from people, who must have consented.
        charged: whether it costs privacy budget.
    """

    sender: frozenset[Role]
    recipient: frozenset[Role]
    concerns_people: bool = False
    charged: bool = False


_BRAND: Final = frozenset({Role.BRAND})
_PARTNER: Final = frozenset({Role.PARTNER})
_OPERATOR: Final = frozenset({Role.COORDINATOR})
_PEOPLE: Final = _BRAND | _PARTNER
_ALL: Final = _PEOPLE | _OPERATOR

ROUTES: Final[Mapping[str, Route]] = {
    "identify": Route(_OPERATOR, _PEOPLE),
    "present": Route(_PEOPLE, _OPERATOR),
    "match.request": Route(_OPERATOR, _PARTNER),
    "match.blinded": Route(_PARTNER, _BRAND, concerns_people=True),
    "match.reply": Route(_BRAND, _PARTNER, concerns_people=True),
    "match.done": Route(_PARTNER, _OPERATOR, concerns_people=True),
    "train.request": Route(_OPERATOR, _PARTNER),
    "train.update": Route(_PARTNER, _OPERATOR, concerns_people=True, charged=True),
    "model.published": Route(_OPERATOR, _PEOPLE),
    "expand.request": Route(_OPERATOR, _PARTNER),
    "expand.done": Route(_PARTNER, _OPERATOR, concerns_people=True),
    "acknowledged": Route(_PEOPLE, _OPERATOR),
    "refused": Route(_ALL, _ALL),
}
"""The route of every kind of body."""


def off_route(header: Header, agreement: Agreement) -> str | None:
    """Say what is wrong with the way a message goes; None where it may go so."""
    roles = {party.name: party.role for party in agreement.parties}
    route = ROUTES[header.body.kind]
    sender = roles.get(header.sender)
    if sender not in route.sender:
        return f"a {sender or 'stranger'} may not say {header.body.kind}"
    if header.recipient == EVERYONE:
        return None if header.body.kind == "identify" else f"{header.body.kind} goes to one party"
    recipient = roles.get(header.recipient)
    if recipient not in route.recipient:
        return f"{header.body.kind} may not be said to a {recipient or 'stranger'}"
    return None
