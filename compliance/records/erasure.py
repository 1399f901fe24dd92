"""What became of requests to erase, of models that saw a person, and of keys."""

from enum import StrEnum
from typing import Literal

from compliance.records.leaf import Digest, Leaf, Name, Sentence, Time

__all__ = [
    "ErasureAcknowledged",
    "ErasureCompleted",
    "ErasureOutcome",
    "ErasureOverdue",
    "ErasureRequested",
    "ErasureStep",
    "ModelDue",
    "ModelRetired",
    "SubjectKeyDestroyed",
]


class ErasureOutcome(StrEnum):
    """What was done about a person in one place."""

    DELETED = "deleted"
    NOT_HELD = "not_held"
    SUPPRESSED = "suppressed"
    """The source can only be read: the person is left out from now on."""
    UNKNOWN = "unknown"
    """The place knows people by reference, and none is known of this one."""
    REMOVAL_SENT = "removal_sent"
    UNAFFECTED = "unaffected"
    """Of a model: it never saw the person."""
    TOLERATED_DP = "tolerated_dp"
    """Of a model: its privacy bound is within what the agreement tolerates."""
    RETRAIN = "retrain"
    """Of a model: it is trained again without the person by the deadline."""
    RETIRED = "retired"
    """Of a model: nobody is scored with it from now on."""


class ErasureRequested(Leaf):
    """Somebody asked to be erased; `request` is random and tells nothing of them.

    Attributes:
        request: names the request in all parties' logs.
        origin: party at which the person asked.
        deadline: by which everything must be done.
    """

    kind: Literal["erasure.requested"] = "erasure.requested"
    request: Name
    origin: Name
    deadline: Time


class ErasureAcknowledged(Leaf):
    """A party confirmed that it received a request; it does not say whether it holds the person."""

    kind: Literal["erasure.acknowledged"] = "erasure.acknowledged"
    request: Name
    peer: Name
    acknowledgement_digest: Digest


class ErasureStep(Leaf):
    """One place was dealt with; the log does not say whether the person was held there.

    Attributes:
        request: which request.
        target: the place, such as `source`, `segment look-alikes` or `model march`.
        outcome_digest: hexadecimal SHA-256 that binds to what was done there and hides it: see
            `compliance.erasure.completion.Step.committed`.
    """

    kind: Literal["erasure.step"] = "erasure.step"
    request: Name
    target: Name
    outcome_digest: Digest


class ErasureCompleted(Leaf):
    """A party has done everything; its signed completion has this digest."""

    kind: Literal["erasure.completed"] = "erasure.completed"
    request: Name
    peer: Name
    completion_digest: Digest


class ErasureOverdue(Leaf):
    """A party did not complete in time.

    Attributes:
        request: which request.
        peer: who is late.
        evidence_digest: hexadecimal SHA-256 of what was sent to it and what it answered.
    """

    kind: Literal["erasure.overdue"] = "erasure.overdue"
    request: Name
    peer: Name
    evidence_digest: Digest


class ModelDue(Leaf):
    """A model has to be trained again by a day, from which on nobody is scored with it.

    Attributes:
        model_digest: hexadecimal SHA-256 of what the party keeps of the model.
        due: that day.
    """

    kind: Literal["model.due"] = "model.due"
    model_digest: Digest
    due: Time


class ModelRetired(Leaf):
    """Nobody is scored with a model from here on."""

    kind: Literal["model.retired"] = "model.retired"
    model_digest: Digest
    reason: Sentence


class SubjectKeyDestroyed(Leaf):
    """Keys of whom a request is about are gone, if there were any: the log does not say."""

    kind: Literal["subject_key.destroyed"] = "subject_key.destroyed"
    request: Name
