"""The kinds of identifier, and the reasons for which a value has no digest.

Guarantees: nothing but names. What each kind's normal form is, is left to the module of the kind.
"""

from enum import StrEnum

__all__ = ["IdentifierKind", "RejectionReason"]


class IdentifierKind(StrEnum):
    """What was hashed; tokens of different kinds never meet."""

    EMAIL = "email"
    PHONE = "phone"
    ADVERTISING_ID = "advertising_id"
    """IDFA, GAID and other resettable UUIDs of a device."""
    MEMBER_ID = "member_id"
    """A number of the one loyalty programme that the parties share."""
    COMPOSITE = "composite"
    """Several fields together, as a `CompositeKey` agrees them."""


class RejectionReason(StrEnum):
    """Why a value has no digest. Recipe version 1 tells the first two only.

    A row of a composite key bears the first of these that holds for any of its fields.
    """

    MISSING = "missing"
    """None, NaN, blank, an advertising id of zeros, or the digest of one of these."""
    MALFORMED = "malformed"
    """Cannot be read as what the column holds."""
    IMPOSSIBLE = "impossible"
    """Well written, but there is no such day, or no such number in the numbering plan."""
    PLACEHOLDER = "placeholder"
    """Typed to fill a field that must not be empty; would join strangers."""
    HASHED_FIELD = "hashed_field"
    """A field of a composite key came hashed; such keys are made of fields in clear."""
