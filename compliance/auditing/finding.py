"""What an audit can find: every kind, and one instance of it.

Guarantees: a finding names its kind, the party whose log shows it, and the leaves by index; its
sentence holds nothing but what the leaves say, and no leaf holds an identifier.

Leaves to others: finding (the modules beside this one).
"""

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Finding", "FindingKind", "Problem"]


class FindingKind(StrEnum):
    """What does not hold."""

    AGREEMENT_UNSIGNED = "agreement-unsigned"
    AGREEMENT_DIFFERS = "agreement-differs"
    GIVEN_TWICE = "given-twice"
    FOREIGN_ORIGIN = "foreign-origin"
    WRONG_KEY = "wrong-key"
    BAD_SIGNATURE = "bad-signature"
    KEY_NOT_IN_FORCE = "key-not-in-force"
    UNREADABLE = "unreadable"
    FILE_MISSING = "file-missing"
    FILE_CUT = "file-cut"
    TREE_MISMATCH = "tree-mismatch"
    MALFORMED_LEAF = "malformed-leaf"
    NOT_PUBLIC = "not-public"
    REWRITTEN = "rewritten"
    SPLIT_VIEW = "split-view"
    NOT_OPENED = "not-opened"
    OPENED_AGAIN = "opened-again"
    OTHER_VERSION = "other-version"
    VERSION_MISSING = "version-missing"
    ROTATED_OTHERWISE = "rotated-otherwise"
    OTHER_PARTIES = "other-parties"
    FOREIGN_PARTY = "foreign-party"
    FOREIGN_AGREEMENT = "foreign-agreement"
    TIME_BACKWARDS = "time-backwards"
    OUTSIDE_VALIDITY = "outside-validity"
    AFTER_END = "after-end"
    CALLS_COUNTED_TWICE = "calls-counted-twice"
    UNKNOWN_COMPUTATION = "unknown-computation"
    OFF_ROUTE = "off-route"
    UNDECIDED = "undecided"
    DENIED = "denied"
    CONSENT_UNREAD = "consent-unread"
    CONSENT_MISCOUNTED = "consent-miscounted"
    PURPOSE_NOT_AGREED = "purpose-not-agreed"
    OTHER_PURPOSE = "other-purpose"
    CONSENT_FORGOTTEN = "consent-forgotten"
    OTHER_RECIPIENTS = "other-recipients"
    UNAPPROVED = "unapproved"
    UNCHARGED = "uncharged"
    CHARGED_FOR_NOTHING = "charged-for-nothing"
    CHARGE_NOT_OPEN = "charge-not-open"
    CHARGE_REUSED = "charge-reused"
    RESERVED_TWICE = "reserved-twice"
    SETTLED_UNOPENED = "settled-unopened"
    NEVER_SETTLED = "never-settled"
    REFUNDED_THOUGH_USED = "refunded-though-used"
    OTHER_CAP = "other-cap"
    OTHER_DELTA = "other-delta"
    OVER_CAP = "over-cap"
    OTHER_PERIOD = "other-period"
    OVER_PERIOD = "over-period"
    UNPRICEABLE = "unpriceable"
    UNDERSTATED = "understated"
    OVER_MEASURED = "over-measured"
    MODEL_OVER_TERMS = "model-over-terms"
    MODEL_UNPROTECTED = "model-unprotected"
    MODEL_OF_STRANGER = "model-of-stranger"
    MODELS_DIFFER = "models-differ"
    MEASUREMENT_OF_STRANGER = "measurement-of-stranger"
    RESULTS_DIFFER = "results-differ"
    PART_NOT_GIVEN = "part-not-given"
    RESULT_NOT_TOLD = "result-not-told"
    MODEL_RETIRED = "model-retired"
    SEGMENT_OVER_SHARE = "segment-over-share"
    SEGMENT_TOO_SMALL = "segment-too-small"
    TOO_MANY_MATCHES = "too-many-matches"
    MATCH_DIFFERS = "match-differs"
    JOB_NOT_STARTED = "job-not-started"
    JOB_NEVER_ENDED = "job-never-ended"
    JOB_NOT_TOLD = "job-not-told"
    NOT_SENT = "not-sent"
    CODE_NOT_ALLOWED = "code-not-allowed"
    ERASURE_UNREQUESTED = "erasure-unrequested"
    ERASURE_LATE = "erasure-late"
    RETRAIN_OVERDUE = "retrain-overdue"
    ERASURE_DIFFERS = "erasure-differs"
    HELD_DELETED = "held-deleted"
    HOLD_NOT_PLACED = "hold-not-placed"
    PRUNED = "pruned"
    PRUNED_TOO_FAR = "pruned-too-far"
    PRUNED_OTHERWISE = "pruned-otherwise"


@dataclass(frozen=True)
class Finding:
    """One thing that does not hold.

    Attributes:
        kind: of thing.
        party: whose log shows it, or the address of a log of nobody known.
        leaves: indexes in that log, rising; none where files are meant.
        sentence: what was expected and what was found, for people.
    """

    kind: FindingKind
    party: str
    leaves: tuple[int, ...]
    sentence: str


@dataclass(frozen=True)
class Problem:
    """What is wrong with one leaf, as the rest of a sentence that begins with the leaf."""

    kind: FindingKind
    text: str
