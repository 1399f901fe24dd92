"""That consents were read before people were used."""

from typing import Annotated, Literal

from pydantic import (
    Field,
    model_validator,
)

from compliance.records.leaf import Count, Leaf, Name

__all__ = ["ConsentUsed"]


class ConsentUsed(Leaf):
    """Consent was read for `rows` people, of whom `eligible` remained.

    Attributes:
        purpose: what consent was asked for.
        consent_log_size: how many consent events had been read.
        rows: people asked about.
        eligible: people whose consent held; at most `rows`.
        excluded: people left out, by reason.
    """

    kind: Literal["consent.used"] = "consent.used"
    purpose: Name
    consent_log_size: Count
    rows: Count
    eligible: Count
    excluded: Annotated[dict[Name, Count], Field(max_length=16)]

    @model_validator(mode="after")
    def _check_rows(self) -> "ConsentUsed":
        if self.eligible > self.rows:
            raise ValueError("expected eligible ≤ rows")
        return self
