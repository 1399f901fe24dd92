"""What left a party and what did not: contract, policy, release and refusal."""

from typing import Annotated, Literal

from pydantic import (
    Field,
)

from compliance.records.leaf import Count, Digest, Leaf, Name, Names, Sentence

__all__ = ["AccessDecided", "AgreementSigned", "Clauses", "Refusal", "Release"]

Clauses = Annotated[tuple[Name, ...], Field(max_length=16, strict=False)]


class AgreementSigned(Leaf):
    """The agreement took effect: all of `parties` have signed it.

    Attributes:
        parties: whose signatures it bears.
        supersedes: digest of the agreement that it amends; None for a first one.
    """

    kind: Literal["agreement.signed"] = "agreement.signed"
    parties: Names
    supersedes: Digest | None = None


class AccessDecided(Leaf):
    """Policies were asked whether something may leave.

    Attributes:
        release_id: names what would leave.
        computation: what it is part of.
        recipient: who would get it.
        allowed: what they said; what else a release needs is still to be seen.
        clauses: names of the clauses that decided; none where no permit covers it.
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
    term: Sentence
    remedy: Sentence
