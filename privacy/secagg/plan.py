"""What all parties of a secure aggregation know before it begins.

Guarantees: a plan that exists is in range and keeps to what the protocol's proof needs: a server
that may lie cannot be given two answers, and no sum has fewer than two honest inputs. Equal plans
have equal digests; every key, mask, share and signature is bound to the digest.

Leaves to others: that all parties hold the same plan, for instance because an agreement and a job
say it; that `context` is never used twice; and how many truly collude.
"""

import hashlib
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
import rfc8785
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)

from privacy.errors import InvalidParameterError
from privacy.secagg.neighbourhood import Neighbourhood, choose_neighbourhood

__all__ = [
    "MAXIMUM_LENGTH",
    "MAXIMUM_PARTIES",
    "Digest",
    "Neighbours",
    "PartyName",
    "Plan",
    "ServerTrust",
]

MAXIMUM_PARTIES: Final = 1_000
"""Every party reads everybody's keys and signatures: work that grows with the square."""

MAXIMUM_LENGTH: Final = 1 << 27
"""Most entries of a vector; a gigabyte of 64-bit integers."""

_ROOM_FOR_ONE: Final = 8_192  # bytes of JSON that one party may take in a list of all

PartyName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256 in hexadecimal digits."""


class ServerTrust(StrEnum):
    """What the server is trusted with."""

    FOLLOWS_PROTOCOL = "follows-protocol"
    """It does what it should and remembers everything (semi-honest)."""
    MAY_LIE = "may-lie"
    """It may send anything to anybody, to learn more (malicious)."""


class Neighbours(StrEnum):
    """With whom a party masks."""

    ALL = "all"
    """With every other party (Bonawitz et al.)."""
    FEW = "few"
    """With some on a random circle, as many as it takes (Bell et al.); with all where few parties
    leave no choice."""


class Plan(BaseModel):
    """Who aggregates what, and who may fail.

    Attributes:
        context: digest of what the sum is for: agreement, job, round. Another one for every sum.
        parties: two or more names, in ascending order.
        threshold: parties whose inputs a sum has at least, t. Fewer, and there is no sum.
        colluding: parties that may put together what they see with the server, c.
        server: what the server is trusted with.
        ring_bits: sums are modulo 2³² or 2⁶⁴. Whoever encodes the inputs keeps the sum of all
            of them below that (`fixed_point`): a wrapped sum cannot be told from another.
        length: entries of every vector.
        neighbours: with whom a party masks. Few are enough for a server that follows the protocol.

    Raises:
        InvalidParameterError: a value is out of range; or the threshold is too low: it must be
            c + 2, so that two honest inputs hide each other, and more than (n + c) / 2 where the
            server may lie. Else it could show two sets of survivors to t parties each and get both
            secrets of a party: honest parties answer one set only, so that the two groups share
            none but colluding parties, 2t <= (n - c) + 2c. For c = 0 this is t > n / 2. Or few
            neighbours are to do with a server that may lie: it could choose who they are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    context: Digest
    parties: Annotated[
        tuple[PartyName, ...], Field(min_length=2, max_length=MAXIMUM_PARTIES, strict=False)
    ]
    threshold: int
    colluding: Annotated[int, Field(ge=0)] = 0
    server: Annotated[ServerTrust, Field(strict=False)] = ServerTrust.MAY_LIE
    ring_bits: Literal[32, 64] = 64
    length: Annotated[int, Field(ge=1, le=MAXIMUM_LENGTH)]
    neighbours: Annotated[Neighbours, Field(strict=False)] = Neighbours.ALL

    @model_validator(mode="wrap")
    @classmethod
    def _refuse(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            plan = handler(data)
        except ValidationError as error:
            mistakes = (
                f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()
            )
            raise InvalidParameterError(f"plan of a sum: {'; '.join(mistakes)}") from error
        _check(plan)
        return plan

    @property
    def neighbourhood(self) -> Neighbourhood | None:
        """Who masks with whom, if `colluding` collude and all but `threshold` drop out."""
        if self.neighbours is Neighbours.ALL:
            return None
        count = len(self.parties)
        return choose_neighbourhood(
            count, colluding=self.colluding, dropping=count - self.threshold
        )

    @property
    def share_threshold(self) -> int:
        """Shares that give a secret back."""
        return self.neighbourhood.share_threshold if self.neighbourhood else self.threshold

    @property
    def digest(self) -> str:
        """SHA-256 of the plan in its canonical form (RFC 8785)."""
        return _digest(self)

    @property
    def entry(self) -> "np.dtype[np.unsignedinteger[Any]]":
        """How an entry of a vector is written: unsigned, little-endian."""
        return np.dtype(f"<u{self.ring_bits // 8}")

    @property
    def vector_bytes(self) -> int:
        """Bytes of a vector."""
        return self.length * self.entry.itemsize

    @property
    def largest_message(self) -> int:
        """Bytes of JSON that a message of this aggregation may have."""
        return _ROOM_FOR_ONE * (len(self.parties) + 1) + (self.vector_bytes + 2) // 3 * 4


@lru_cache(maxsize=64)
def _digest(plan: Plan) -> str:
    return hashlib.sha256(rfc8785.dumps(plan.model_dump(mode="json"))).hexdigest()


def _check(plan: Plan) -> None:
    n, t, c = len(plan.parties), plan.threshold, plan.colluding
    if list(plan.parties) != sorted(set(plan.parties)):
        raise InvalidParameterError("plan of a sum: expected distinct parties in order")
    if not c + 2 <= t <= n:
        raise InvalidParameterError(
            f"plan of a sum: expected a threshold from {c + 2}, two more than collude, to {n}, "
            f"the number of parties, got {t}"
        )
    if plan.server is ServerTrust.MAY_LIE and 2 * t <= n + c:
        raise InvalidParameterError(
            f"plan of a sum: a server that may lie needs a threshold of more than (n + c) / 2, "
            f"so of {(n + c) // 2 + 1} or more for {n} parties of which {c} collude, got {t}"
        )
    if plan.server is ServerTrust.MAY_LIE and plan.neighbours is Neighbours.FEW:
        raise InvalidParameterError(
            "plan of a sum: a server that may lie could choose who is whose neighbour: make all "
            "parties neighbours"
        )
