"""What an agreement takes over from the one that it amends.

Leaves to others: holding versions against each other (`compliance.lifecycle`).
"""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from compliance.terms.party import LogKey, Role
from compliance.terms.vocabulary import Finite, Name, Terms

__all__ = ["AmendmentTerms", "EarlierParty"]

_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="64 hexadecimal digits")]


class EarlierParty(Terms):
    """A party of an earlier version, whether it is still one or not.

    Attributes:
        name: what it was called, and is if it comes back.
        role: what it did.
        log_key: of its log, as `PartyTerm.log_key`; the log goes on if it comes back.
    """

    name: Name
    role: Role
    log_key: LogKey


class AmendmentTerms(Terms):
    """Which agreement this one takes the place of, from its own `valid_from` on.

    Budget, log and match history go on as they are.

    Attributes:
        number: of this version, the first agreement being 1.
        supersedes: digest of the version before.
        first: digest of the first one, under which ledgers are kept.
        cut_delta: what cutting noise may have added to a person's δ before this version.
        earlier: every party of every version before, by name.
    """

    number: Annotated[int, Field(strict=True, ge=2, le=10_000)]
    supersedes: _Digest
    first: _Digest
    cut_delta: Annotated[Finite, Field(ge=0, lt=1)] = 0.0
    earlier: tuple[EarlierParty, ...] = ()

    def _mistakes(self) -> Iterator[str]:
        if (self.number == 2) != (self.supersedes == self.first):
            yield "amends: version 2, and no other, supersedes the first"
