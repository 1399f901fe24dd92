"""One decision for a whole column of people, and why some may not be used.

Guarantees: whoever is not allowed has exactly one reason. Leaves to others: deciding (`book`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from compliance.consent.events import SeparateConsent

__all__ = ["Conditions", "ConsentDecision", "ExclusionReason"]


class ExclusionReason(StrEnum):
    """Why a person may not be used for a purpose; of several, the first of these."""

    NO_RECORD = "no_record"
    WRONG_PURPOSE = "wrong_purpose"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"
    OBJECTED = "objected"
    EXPIRED = "expired"
    WRONG_RECIPIENT = "wrong_recipient"
    MISSING_SEPARATE_CONSENT = "missing_separate_consent"
    OVER_CONTACT_CAP = "over_contact_cap"


def code(reason: ExclusionReason) -> np.uint8:
    """Return the number that stands for a reason."""
    return np.uint8(1 + list(ExclusionReason).index(reason))


@dataclass(frozen=True)
class Conditions:
    """What a use needs beyond a consent to its purpose.

    Attributes:
        recipients: who would see what is made of the people.
        separate: consents that are needed besides.
        validity: how long a yes holds at most; as long as it says where None.
        maximum_contacts: contacts within `contact_period` from which on nobody is used; no cap
            where None.
        contact_period: see there.
    """

    recipients: tuple[str, ...] = ()
    separate: frozenset[SeparateConsent] = frozenset()
    validity: timedelta | None = None
    maximum_contacts: int | None = None
    contact_period: timedelta = timedelta(days=30)

    @property
    def spelt(self) -> str:
        """One spelling of them, for digests."""
        return repr(
            (
                sorted(self.recipients),
                sorted(self.separate),
                self.validity,
                self.maximum_contacts,
                self.contact_period,
            )
        )


UNCONDITIONAL: Final = Conditions()


@dataclass(frozen=True, eq=False)
class ConsentDecision:
    """Who may be used for a purpose, and why the others may not.

    Attributes:
        outcomes: shape (n,), for each subject asked about, in that order: 0 where it is allowed,
            else the place, from 1, of the reason in `ExclusionReason`.
        log_size: number of events in the book that decided.
        next_event: when the book has its next event for the purpose, so that the decision must be
            made anew; None if it has no later one.
    """

    outcomes: NDArray[np.uint8]
    log_size: int
    next_event: datetime | None

    @classmethod
    def joined(cls, parts: Iterable[tuple[NDArray[Any], Self]], *, count: int) -> Self:
        """Put together what several books, without an event in common, decided.

        Args:
            parts: places of people, shape (k,), and what one book decided about them.
            count: how many people there are; about whom no book decided has no record.
        """
        outcomes = np.full(count, code(ExclusionReason.NO_RECORD))
        log_size, due = 0, []
        for places, decided in parts:
            outcomes[places] = decided.outcomes
            log_size += decided.log_size
            if decided.next_event is not None:
                due.append(decided.next_event)
        return cls(outcomes, log_size, min(due, default=None))

    @property
    def allowed(self) -> NDArray[np.bool_]:
        """Whether each subject may be used, shape (n,)."""
        allowed: NDArray[np.bool_] = self.outcomes == 0
        return allowed

    @property
    def excluded(self) -> dict[ExclusionReason, int]:
        """How many subjects were excluded, for every reason, 0 included."""
        return self.excluded_among(slice(None))

    def excluded_among(self, asked: "NDArray[np.bool_] | slice") -> dict[ExclusionReason, int]:
        """Return how many of some subjects, shape (n,), were excluded, for every reason."""
        counts = np.bincount(self.outcomes[asked], minlength=1 + len(ExclusionReason)).tolist()
        return dict(zip(ExclusionReason, counts[1:], strict=True))
