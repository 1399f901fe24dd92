"""Who may say what to whom: one table, held against everything that leaves and all that arrives.

Guarantees: every kind of body has a route (`tests/test_gate.py` proves the table complete); what
has none, goes another way, or travels in clear though it must not, is refused at both ends.

Leaves to others: whether the moment is right (`jobs`), and whether people agreed (`gate`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from compliance.agreement import Agreement
from compliance.terms import Reveal, Role
from federation.messages import EVERYONE, Body, Encrypted, Header

__all__ = ["ROUTES", "Route", "is_charged", "off_route", "travelling"]


@dataclass(frozen=True)
class Route:
    """Who may say a kind of body to whom, and what it must bring along.

    Attributes:
        sender: roles that may say it.
        recipient: roles to which it may be said.
        concerns_people: whether it is made from people, who must have consented.
        encrypted: whether its recipient alone may read it.
        within_role: whether one party may say it to another of its own role.
        is_duty: whether it is made from people whose consent is not asked: it is owed to them.
    """

    sender: frozenset[Role]
    recipient: frozenset[Role]
    concerns_people: bool = False
    encrypted: bool = False
    within_role: bool = False
    is_duty: bool = False


_BRAND: Final = frozenset({Role.BRAND})
_PARTNER: Final = frozenset({Role.PARTNER})
_OPERATOR: Final = frozenset({Role.COORDINATOR})
_PEOPLE: Final = _BRAND | _PARTNER
_ALL: Final = _PEOPLE | _OPERATOR

ROUTES: Final[Mapping[str, Route]] = {
    "identify": Route(_OPERATOR, _PEOPLE),
    "present": Route(_PEOPLE, _OPERATOR),
    "job.approved": Route(_OPERATOR, _PEOPLE),
    "match.request": Route(_OPERATOR, _PEOPLE),
    "match.offer": Route(_PEOPLE, _PEOPLE, concerns_people=True, encrypted=True),
    "match.accept": Route(_PEOPLE, _PEOPLE, concerns_people=True, encrypted=True),
    "match.blinded": Route(_PEOPLE, _PEOPLE, concerns_people=True, encrypted=True),
    "match.reply": Route(_PEOPLE, _PEOPLE, concerns_people=True, encrypted=True),
    "match.ready": Route(_PEOPLE, _OPERATOR, concerns_people=True),
    "match.link": Route(_OPERATOR, _PEOPLE),
    "match.open": Route(_PEOPLE, _PEOPLE, concerns_people=True, encrypted=True),
    "match.linked": Route(_PEOPLE, _OPERATOR, concerns_people=True),
    "match.close": Route(_OPERATOR, _PEOPLE),
    "match.outcome": Route(_PEOPLE, _PEOPLE, concerns_people=True, encrypted=True),
    "match.done": Route(_PEOPLE, _OPERATOR, concerns_people=True),
    "align.join": Route(_OPERATOR, _PEOPLE),
    "align.joined": Route(_PEOPLE, _OPERATOR, concerns_people=True),
    "align.bind": Route(_OPERATOR, _PEOPLE),
    "align.bound": Route(_PEOPLE, _OPERATOR, concerns_people=True),
    "align.invite": Route(_OPERATOR, _PEOPLE),
    "align.seed": Route(_PEOPLE, _PEOPLE, encrypted=True, within_role=True),
    "align.blind": Route(_OPERATOR, _PEOPLE),
    "align.pass": Route(_PEOPLE, _PEOPLE, concerns_people=True, encrypted=True, within_role=True),
    "align.tags": Route(_PEOPLE, _OPERATOR, concerns_people=True),
    "align.common": Route(_OPERATOR, _PEOPLE),
    "align.done": Route(_PEOPLE, _OPERATOR, concerns_people=True),
    "train.request": Route(_OPERATOR, _PARTNER),
    "train.update": Route(_PARTNER, _OPERATOR, concerns_people=True),
    "train.count": Route(_OPERATOR, _PARTNER),
    "train.counted": Route(_PARTNER, _OPERATOR, concerns_people=True),
    "sum.ask": Route(_OPERATOR, _PARTNER),
    "sum.said": Route(_PARTNER, _OPERATOR),
    "sum.noised": Route(_PARTNER, _OPERATOR, concerns_people=True),
    "sum.exact": Route(_PARTNER, _OPERATOR, concerns_people=True),
    "assist.join": Route(_OPERATOR, _PARTNER),
    "assist.joined": Route(_PARTNER, _OPERATOR, concerns_people=True),
    "assist.keys": Route(_OPERATOR, _PARTNER),
    "assist.open": Route(_OPERATOR, _BRAND),
    "assist.noised": Route(_BRAND, _OPERATOR, concerns_people=True),
    "assist.exact": Route(_BRAND, _OPERATOR, concerns_people=True),
    "assist.ask": Route(_OPERATOR, _BRAND),
    "assist.residuals": Route(_BRAND, _PARTNER, concerns_people=True, encrypted=True),
    "assist.fitted": Route(_PARTNER, _BRAND, concerns_people=True, encrypted=True),
    "assist.heard": Route(_BRAND, _OPERATOR, concerns_people=True),
    "assist.close": Route(_OPERATOR, _BRAND),
    "assist.settle": Route(_BRAND, _PARTNER, concerns_people=True, encrypted=True),
    "assist.scored": Route(_PARTNER, _BRAND, concerns_people=True, encrypted=True),
    "model.published": Route(_OPERATOR, _PEOPLE),
    "expand.request": Route(_OPERATOR, _PARTNER),
    "expand.done": Route(_PARTNER, _OPERATOR, concerns_people=True),
    "expand.counted": Route(_OPERATOR, _BRAND),
    "measure.request": Route(_OPERATOR, _PARTNER),
    "measure.counts": Route(_PARTNER, _OPERATOR, concerns_people=True),
    "measure.published": Route(_OPERATOR, _BRAND),
    "witness.show": Route(_OPERATOR, _PEOPLE),
    "witness.shown": Route(_PEOPLE, _OPERATOR),
    "witness.ask": Route(_OPERATOR, _PEOPLE),
    "witness.said": Route(_PEOPLE, _OPERATOR),
    "witness.tell": Route(_OPERATOR, _PEOPLE),
    "retrain.ask": Route(_OPERATOR, _PEOPLE),
    "retrain.told": Route(_PEOPLE, _OPERATOR),
    # Who is to be erased must be looked for among all: it takes no consent, and costs no budget.
    "erase.look": Route(_OPERATOR, _PEOPLE),
    "erase.standing": Route(_PEOPLE, _OPERATOR),
    "erase.show": Route(_OPERATOR, _PEOPLE),
    "erase.shown": Route(_PEOPLE, _PEOPLE, encrypted=True, within_role=True, is_duty=True),
    "erase.batch": Route(_PEOPLE, _PEOPLE, encrypted=True, within_role=True, is_duty=True),
    "erase.tell": Route(_OPERATOR, _PEOPLE),
    "erase.told": Route(_PEOPLE, _PEOPLE, encrypted=True, within_role=True),
    "erase.heard": Route(_PEOPLE, _PEOPLE, encrypted=True, within_role=True),
    "acknowledged": Route(_PEOPLE, _OPERATOR),
    "refused": Route(_ALL, _ALL, within_role=True),
}
"""The route of every kind of body."""


def is_charged(kind: str, agreement: Agreement) -> bool:
    """Tell whether this costs privacy budget: an update, noised labels, a count blurred or told."""
    match kind:
        case "train.update" | "train.counted" | "sum.noised" | "align.bound":
            return True
        case "measure.counts" | "assist.noised":
            return True
        case "match.offer" | "match.accept":  # whether the minimum is reached tells of the size too
            return agreement.match.reveal is Reveal.SIZE_ONLY
        case "match.outcome":
            return agreement.match.reveal not in {Reveal.BOTH_LEARN_MEMBERS, Reveal.SIZE_ONLY}
        case "expand.done":
            return agreement.expand.count_epsilon is not None
    return False


def travelling(body: Body) -> Body | Encrypted:
    """Return what the header of a message tells of its body: all of it, or its kind."""
    return Encrypted(encrypts=body.kind) if ROUTES[body.kind].encrypted else body


def off_route(header: Header, agreement: Agreement) -> str | None:
    """Say what is wrong with the way a message goes; None where it may go so.

    Args:
        header: as it travels.
        agreement: says who has which role.
    """
    roles = {party.name: party.role for party in agreement.parties}
    kind, route = header.kind, ROUTES.get(header.kind)
    if route is None:
        return "nothing of that kind is ever said"
    sender = roles.get(header.sender)
    if sender not in route.sender:
        return f"a {sender or 'stranger'} may not say {kind}"
    if isinstance(header.body, Encrypted) is not route.encrypted:
        return f"{kind} must travel {'encrypted' if route.encrypted else 'in clear'}"
    if header.recipient == EVERYONE:
        return None if kind == "identify" else f"{kind} goes to one party"
    recipient = roles.get(header.recipient)
    among_equals = recipient == sender and not route.within_role
    if recipient not in route.recipient or among_equals or header.recipient == header.sender:
        return f"{kind} may not be said to a {recipient or 'stranger'}"
    return None
