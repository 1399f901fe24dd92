"""Who consented to what: events, what they come to, and one decision for a whole column of people.

Guarantees: silence is no; nothing general implies a separate consent; see `book` for how events
come to one state in whatever order they arrive.

Leaves to others: what a purpose means and which are agreed (`compliance.agreement`), mapping people
to a party's own record references, and writing down that consents were used (`compliance.records`).
"""

from compliance.consent.book import ConsentBook
from compliance.consent.cohort import cohort_root
from compliance.consent.decision import UNCONDITIONAL, Conditions, ConsentDecision, ExclusionReason
from compliance.consent.events import (
    ConsentEvent,
    ConsentEventKind,
    SeparateConsent,
    events_schema,
)
from compliance.consent.files import CONSENT_COLUMNS, REQUIRED_COLUMNS, read_events
from compliance.consent.journal import ConsentJournal, commitment, events_of, size_of

__all__ = [
    "CONSENT_COLUMNS",
    "REQUIRED_COLUMNS",
    "UNCONDITIONAL",
    "Conditions",
    "ConsentBook",
    "ConsentDecision",
    "ConsentEvent",
    "ConsentEventKind",
    "ConsentJournal",
    "ExclusionReason",
    "SeparateConsent",
    "cohort_root",
    "commitment",
    "events_of",
    "events_schema",
    "read_events",
    "size_of",
]
