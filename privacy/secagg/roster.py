"""Who takes part, with which keys, and who is whose neighbour.

Guarantees: every key on it was signed by its owner for this very aggregation; there are enough
parties for a sum. Clients and server read the same from the same `KeyRoster`.

Leaves to others: that everybody was shown the same one. Whoever was not cannot read anybody's
shares and confirms other survivors (`keys`, `client`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from privacy.errors import MissingPartiesError, PeerMessageError
from privacy.secagg.keys import Verifier, roster_digest, signed_keys
from privacy.secagg.messages import KeyAdvertisement, KeyRoster
from privacy.secagg.neighbourhood import Graph
from privacy.secagg.plan import Plan

__all__ = ["Roster", "check_advertisement", "check_aggregation", "check_enough", "check_party"]


@dataclass(frozen=True)
class Roster:
    """The parties of one aggregation that advertised keys (U1).

    Attributes:
        digest: of all keys.
        parties: their names, ascending.
        keys: of each.
        graph: who masks with whom, by places among `parties`.
    """

    digest: str
    parties: tuple[str, ...]
    keys: Mapping[str, KeyAdvertisement]
    graph: Graph

    @classmethod
    def of(cls, message: KeyRoster, plan: Plan) -> "Roster":
        """Lay out a roster whose signatures were verified."""
        digest = roster_digest(message.advertisements)
        keys = {one.sender: one for one in message.advertisements}
        graph = Graph.drawn(len(keys), plan.neighbourhood, bytes.fromhex(digest))
        return cls(digest, tuple(keys), keys, graph)

    @classmethod
    def verified(cls, message: KeyRoster, plan: Plan, verifier: Verifier) -> "Roster":
        """Verify every signature, then lay the roster out.

        Raises:
            PeerMessageError: a party is not of the plan, or did not sign these keys.
            MissingPartiesError: there are too few for a sum.
        """
        check_aggregation(message.aggregation, plan)
        for one in message.advertisements:
            check_advertisement(one, plan, verifier)
        check_enough(len(message.advertisements), plan.threshold, plan, "advertised keys")
        return cls.of(message, plan)

    def place(self, party: str) -> int:
        """Return where a party's shares are evaluated: 1 for the first."""
        return self.parties.index(party) + 1

    def neighbours(self, party: str) -> tuple[str, ...]:
        """Return with whom a party masks, ascending."""
        near = self.graph.neighbours(self.parties.index(party))
        return tuple(self.parties[place] for place in sorted(near))


def check_advertisement(one: KeyAdvertisement, plan: Plan, verifier: Verifier) -> None:
    """Return only if a party of the plan signed these keys for this aggregation.

    Raises:
        PeerMessageError: in every other case.
    """
    check_aggregation(one.aggregation, plan)
    check_party(one.sender, plan)
    verifier.verify(one.sender, one.signature, signed_keys(one))


def check_aggregation(named: str, plan: Plan) -> None:
    """Return only if a message belongs to this aggregation."""
    if named != plan.digest:
        raise PeerMessageError(
            f"expected a message of aggregation {plan.digest[:16]}, got one of {named[:16]}: it "
            "belongs to another agreement, job or round, or its sender has another plan"
        )


def check_party(name: str, plan: Plan) -> None:
    """Return only if the plan names the party."""
    if name not in plan.parties:
        raise PeerMessageError(f"expected a party of the plan, got {name}")


def check_enough(present: int, needed: int, plan: Plan, what: str) -> None:
    """Return only if enough parties are there.

    Raises:
        MissingPartiesError: in every other case.
    """
    if present < needed:
        raise MissingPartiesError(
            present=present, needed=needed, parties=len(plan.parties), what=what
        )
