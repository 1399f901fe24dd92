"""Where a party's environment for direct matches is, and how others reach it.

Guarantees: closed and well-formed. It changes no result, and is in no agreement.

Leaves to others: making the environment (`docs/deploy.md`), using it (`link`).
"""

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["Address", "Rr22Config"]

Address = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9.-]{1,253}:[0-9]{1,5}$",
        description="host:port in quotes, such as 'psi.retailer.example:7300'",
    ),
]
"""Where a party is reached, or listens."""


class Rr22Config(BaseModel):
    """What a party needs for matches over a direct link.

    Attributes:
        python: interpreter of the environment that has `spu`.
        listen: where this party waits for the other's connections while a match is under way; it
            only makes connections where left out.
        address: where others reach it, if that is not `listen`.
        scratch: directory for what the program reads and writes, best one in memory; `/dev/shm`, or
            the system's temporary directory, where left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    python: Path
    listen: Address | None = None
    address: Address | None = None
    scratch: Path | None = None

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.address is not None and self.listen is None:
            raise ValueError("an address needs listen: say where the party waits, or remove it")
        return self

    @property
    def reached_at(self) -> str | None:
        """Where others reach the party; None where they cannot."""
        return self.address or self.listen
