"""What a use of people needs besides a consent to its purpose.

Guarantees: no requirement stands twice. Leaves to others: holding people's consents against them
(`compliance.consent`, at every use).
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field

from compliance.terms.party import Role
from compliance.terms.vocabulary import Count, Terms, repeated, unique

__all__ = ["Activity", "ConsentTerms", "LawfulBasis", "SeparateConsent", "SeparateTerm"]


class Activity(StrEnum):
    """What can be done with people."""

    MATCH = "match"
    TRAIN = "train"
    EXPAND = "expand"
    MEASURE = "measure"
    VERTICAL = "vertical"


class LawfulBasis(StrEnum):
    """Why people's data may be used (GDPR article 6; PIPL article 13)."""

    CONSENT = "consent"
    CONTRACT = "contract"
    LEGAL_OBLIGATION = "legal_obligation"
    VITAL_INTERESTS = "vital_interests"
    PUBLIC_TASK = "public_task"
    LEGITIMATE_INTERESTS = "legitimate_interests"


class SeparateConsent(StrEnum):
    """What needs a consent of its own; the general one never implies it.

    Sources: PIPL articles 23, 25, 29, 31 and 39; GDPR articles 8, 9 and 49.
    """

    THIRD_PARTY_PROVISION = "third_party_provision"
    SENSITIVE = "sensitive"
    CROSS_BORDER = "cross_border"
    PUBLIC_DISCLOSURE = "public_disclosure"
    GUARDIAN = "guardian"


class SeparateTerm(Terms):
    """Separate consents that a computation needs.

    Attributes:
        computation: which one.
        recipient: needed where something goes to a party of that role; to anybody where left out.
        needs: which consents.
    """

    computation: Activity
    recipient: Role | None = None
    needs: Annotated[
        tuple[SeparateConsent, ...], Field(min_length=1, max_length=5), AfterValidator(unique)
    ]


class ConsentTerms(Terms):
    """What a use of people needs besides a consent to its purpose.

    Attributes:
        separate: separate consents that are needed.
        lawful_bases: on which notices of receipts may rest; uses need consent whatever it says.
        validity_days: how long a yes holds at most; until more is said where left out.
        maximum_contacts: contacts in `contact_period_days` from which on nobody is put in a
            segment; there is no cap where left out.
        contact_period_days: see there.
    """

    separate: Annotated[tuple[SeparateTerm, ...], Field(max_length=30)] = ()
    lawful_bases: Annotated[
        tuple[LawfulBasis, ...], Field(min_length=1, max_length=6), AfterValidator(unique)
    ] = (LawfulBasis.CONSENT,)
    validity_days: Annotated[int, Field(ge=1, le=3_650)] | None = None
    maximum_contacts: Count | None = None
    contact_period_days: Annotated[int, Field(ge=1, le=3_650)] = 30

    def _mistakes(self) -> Iterator[str]:
        for computation, recipient in repeated(
            (term.computation, term.recipient) for term in self.separate
        ):
            yield f"separate: {computation} for {recipient or 'anybody'} stands twice: merge them"
