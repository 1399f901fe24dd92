"""How long what came of people's data may be kept.

Leaves to others: deleting it.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from compliance.terms.vocabulary import Line, Purpose, Terms

__all__ = ["Artefact", "RetentionTerm"]


class Artefact(StrEnum):
    """What a party keeps."""

    MATCH = "match"
    MODEL = "model"
    SEGMENT = "segment"
    FEATURES = "features"
    MEASUREMENT = "measurement"
    LOG_BODY = "log-body"
    """Entries of the log; their hashes stay."""
    CONSENT_RECORD = "consent-record"


class RetentionTerm(Terms):
    """How long one kind of artefact may be kept.

    Attributes:
        artefact: its kind.
        purpose: for which it was made; any where left out.
        days: after it was made, at most.
        basis: why so long, in words, such as a legal duty.
    """

    artefact: Artefact
    purpose: Purpose | None = None
    days: Annotated[int, Field(strict=True, ge=0, le=36_500)]
    basis: Line
