"""What people said, and that it was read before they were used."""

from typing import Literal

from pydantic import (
    model_validator,
)

from compliance.records.leaf import (
    Count,
    Counts,
    Digest,
    Leaf,
    Name,
    Positive,
    Recipients,
    Time,
)

__all__ = ["ConsentRecorded", "ConsentUsed"]


class ConsentUsed(Leaf):
    """Consent was read for `rows` people, of whom `eligible` remained.

    Attributes:
        purpose: what consent was asked for.
        consent_log_size: how many consent events had been read.
        rows: people asked about.
        eligible: people whose consent held; at most `rows`.
        excluded: people left out, by reason.
        recipients: who may see what is made of them.
        cohort_root: hexadecimal Merkle root over the cohort, keyed so that nobody can look for a
            person in it; None where a computation has no cohort.
        as_of: the moment for which consent was read.
    """

    kind: Literal["consent.used"] = "consent.used"
    purpose: Name
    consent_log_size: Count
    rows: Count
    eligible: Count
    excluded: Counts
    recipients: Recipients = ()
    cohort_root: Digest | None = None
    as_of: Time | None = None

    @model_validator(mode="after")
    def _check_rows(self) -> "ConsentUsed":
        if self.eligible > self.rows:
            raise ValueError("expected eligible ≤ rows")
        return self


class ConsentRecorded(Leaf):
    """Somebody said something about a purpose.

    Attributes:
        sequence: place of the event in the party's book of consents, from 1.
        event: what was said.
        purpose: what it is about.
        commitment: hexadecimal HMAC-SHA-256 of the event's body under the subject's key: it tells
            nothing without the key, and nothing at all once the key is destroyed.
    """

    kind: Literal["consent.recorded"] = "consent.recorded"
    sequence: Positive
    event: Name
    purpose: Name
    commitment: Digest
