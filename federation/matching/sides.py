"""Sides: of which pairs of a match this party is one, and what all that match here have in common.

Guarantees: the same, whether the coordinator carries a match or it goes over a direct link.

Leaves to others: the pairs' matches themselves (`pairs`, `direct`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from compliance import records
from compliance.terms import Role
from federation.desk import Desk
from federation.errors import RefusedError
from federation.gate import Minimum
from federation.jobs.match import MatchState, learner_of
from federation.jobs.match.direct import DirectState

__all__ = ["MINIMUM", "Sides", "bound"]

MINIMUM: Final = "match.minimum_match"
"""The term of how many must match."""


class Sides:
    """What the agreement says of a party's pairs, and where its folder keeps their matches."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._name = desk.folder.name
        self._terms = desk.agreement.match

    def are_agreed(self, learner: str, peer: str) -> bool:
        """Tell whether the agreement has such a pair."""
        agreement = self._desk.agreement
        partners = agreement.by_role(Role.PARTNER)
        return (learner, peer) in [learner_of(agreement, one.name) for one in partners]

    def learns(self, peer: str) -> bool:
        """Tell whether this party is the one that learns, of it and `peer`."""
        return self.are_agreed(self._name, peer)

    def helps(self, peer: str) -> bool:
        """Tell whether this party is the one that helps the other learn."""
        return self.are_agreed(peer, self._name)

    def directory(self, job: str, peer: str) -> Path:
        """Return where a pair's match is kept."""
        return self._desk.folder.job(job) / f"with-{peer}"

    def members_file(self, job: str, peer: str) -> Path:
        """Return where members go: a partner has one match, with the brand."""
        role = self._desk.agreement.party(self._name).role
        members = self._desk.folder.members(job)
        return members if role is Role.PARTNER else self.directory(job, peer) / members.name

    def minimum(self, found: int) -> Minimum:
        """Return what the gate holds against the agreement: how many matched."""
        return Minimum(MINIMUM, found, self._terms.minimum_match)

    def too_few(self) -> RefusedError:
        """Return the refusal of a match that found fewer than agreed."""
        return self._desk.refusal(
            MINIMUM,
            f"fewer than {self._terms.minimum_match} matched, and who they are was not kept: "
            "run the job under another name",
        )


def bound(
    peer: str, state: MatchState | DirectState
) -> tuple[type[records.MatchBound], Mapping[str, object]]:
    """Return the leaf that binds both sides of a pair to their sets.

    Raises:
        RuntimeError: the other side has not spoken yet.
    """
    if state.other is None:
        raise RuntimeError("a pair is bound when both sides have spoken")
    told = {
        "peer": peer,
        "own_commitment": state.own.commitment,
        "peer_commitment": state.other.commitment,
    }
    return records.MatchBound, told
