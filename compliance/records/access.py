"""What left a party and what did not: contract, policy, release and refusal."""

from collections.abc import Iterable
from typing import Literal

from compliance.records.leaf import (
    CLAUSES_BYTES,
    MOST_CLAUSES,
    Clauses,
    Count,
    Digest,
    Leaf,
    Name,
    Parties,
    Sentence,
    spelt_bytes,
)

__all__ = ["AccessDecided", "AgreementSigned", "Refusal", "Release"]


class AgreementSigned(Leaf):
    """The agreement took effect: all of `parties` have signed it.

    Attributes:
        parties: whose signatures it bears.
        supersedes: digest of the agreement that it amends; None for a first one.
    """

    kind: Literal["agreement.signed"] = "agreement.signed"
    parties: Parties
    supersedes: Digest | None = None


class AccessDecided(Leaf):
    """Policies were asked whether something may leave.

    Attributes:
        release_id: names what would leave.
        computation: what it is part of.
        recipient: who would get it.
        allowed: what they said; what else a release needs is still to be seen.
        clauses: names of the clauses that decided, the first of many (`first_clauses`); none where
            no permit covers it.
        policy_digest: hexadecimal SHA-256 of all policies of this party, as text.
        question_digest: of the question, in canonical JSON.
    """

    kind: Literal["access.decided"] = "access.decided"
    release_id: Name
    computation: Name
    recipient: Name
    allowed: bool
    clauses: Clauses
    policy_digest: Digest
    question_digest: Digest

    @staticmethod
    def first_clauses(names: Iterable[str]) -> tuple[str, ...]:
        """Return as many of the clauses that decided, from the first, as one leaf holds."""
        kept = tuple(names)[:MOST_CLAUSES]
        while spelt_bytes(kept) > CLAUSES_BYTES:
            kept = kept[:-1]
        return kept


class Release(Leaf):
    """Something left the party.

    Attributes:
        release_id: names this release.
        computation: what it is part of.
        recipient: who gets it.
        content_digest: hexadecimal SHA-256 of the whole message envelope that left; only ever of
            an envelope, never of an identifier or of anything that could be guessed and compared.
        content_bytes: its length.
        charge_id: the budget charge that pays for it; None if it costs none.
    """

    kind: Literal["release"] = "release"
    release_id: Name
    computation: Name
    recipient: Name
    content_digest: Digest
    content_bytes: Count
    charge_id: Name | None = None


class Refusal(Leaf):
    """Something was not let out: by which `term`, and the cheapest `remedy`."""

    kind: Literal["refusal"] = "refusal"
    release_id: Name
    computation: Name
    term: Name
    remedy: Sentence
