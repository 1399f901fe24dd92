"""What a client of a party's API may do.

Guarantees: loads nothing, since the command line names scopes. Leaves to others: who has which
(`clients`), which route needs which (`application`).
"""

from enum import StrEnum

__all__ = ["Scope"]


class Scope(StrEnum):
    """What a client may do."""

    CONSENT_WRITE = "consent:write"
    """Record what people say."""
    CONSENT_READ = "consent:read"
    """See what holds for a person, their receipts, and notices."""
    ERASURE_WRITE = "erasure:write"
    """Ask for somebody to be erased."""
    ERASURE_READ = "erasure:read"
    """See how far requests to erase have come, and their receipts."""
    SUBJECT_READ = "subject:read"
    """See what the table holds about a person."""
    SUBJECT_WRITE = "subject:write"
    """Correct it."""
