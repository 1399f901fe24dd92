"""What can go wrong in `compliance`, split by who can act.

```
ComplianceError
├── InvalidAgreementError         whoever wrote the agreement: its terms contradict each other
│   ├── UnsignedAgreementError    a named party has yet to sign it
│   └── AlteredAgreementError     somebody changed it after signing: ask its author for the original
├── SignatureError                whoever signed: a key, signature or envelope is not what it claims
├── ConsentError                  the party whose consent file it is: correct the file
│   ├── UnknownPurposeError       ... or the agreement, which does not know the purpose
│   ├── NothingSaidError          ... or whoever asks: the person said nothing about the purpose
│   └── ConsentStringError        ... or whoever made the consent string: ask the person again
├── ApprovalError                 an approver: approve the job as it stands, with the agreed key
├── PolicyError                   the party whose policy file it is: correct the file
├── RetentionError                whoever places a hold: it is malformed, or its name is not free
├── LogError                      the caller: the log cannot be used this way
│   ├── LogCorruptedError         the log's owner: the bytes do not prove what they must
│   ├── LogBusyError              another process is writing: wait or stop it
│   ├── NotPublicError            whoever waits: too few witnesses cosigned the checkpoint so far
│   ├── NotWitnessedError         the log's owner: this witness will not cosign, and says why
│   └── WitnessPolicyError        whoever wrote the policy about witnesses: correct it
├── SubjectKeyError               the party: a key is gone, or what was sealed is not its own
├── StoreFormatError              the party: a later version wrote the file; install that one
├── SealingError                  whoever keeps the unsealing key: what is sealed was changed
│   └── SealingKeyError           ... or is under another key, or belongs elsewhere
├── ErasureError                  whoever sent a request to erase: it was refused, and says why
├── ManifestError                 the party: its log tells of other people than were written down
└── RecordError                   whoever wrote the record: it is not a leaf that a log may hold
```

A wrong order of calls by our own code is a `RuntimeError`. No message carries an identifier, a
hash of one, or a feature value; `describe` turns pydantic's errors into sentences that keep to
that.
"""

import re
from enum import Enum

from pydantic import ValidationError
from pydantic_core import ErrorDetails

__all__ = [
    "AlteredAgreementError",
    "ApprovalError",
    "ComplianceError",
    "ConsentError",
    "ConsentStringError",
    "ErasureError",
    "InvalidAgreementError",
    "LogBusyError",
    "LogCorruptedError",
    "LogError",
    "ManifestError",
    "ModelAlteredError",
    "NotPublicError",
    "NotWitnessedError",
    "NothingSaidError",
    "Objection",
    "PolicyError",
    "RecordError",
    "RetentionError",
    "SealingError",
    "SealingKeyError",
    "SignatureError",
    "StoreFormatError",
    "SubjectKeyError",
    "UnknownPurposeError",
    "UnsignedAgreementError",
    "WitnessPolicyError",
    "describe",
]

_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


class ComplianceError(Exception):
    """Root of everything that `compliance` raises on purpose."""


class InvalidAgreementError(ComplianceError):
    """The agreement is malformed or its terms contradict each other."""


class UnsignedAgreementError(InvalidAgreementError):
    """At least one party's signature is missing."""


class AlteredAgreementError(InvalidAgreementError):
    """A signature does not cover these bytes: they changed after signing, or a key is wrong."""


class SignatureError(ComplianceError):
    """A key, a signature or an envelope is malformed, missing, or does not verify."""


class ConsentError(ComplianceError):
    """A consent file is incomplete or holds what cannot be understood."""


class UnknownPurposeError(ConsentError):
    """A consent file names a purpose that the agreement does not declare."""


class NothingSaidError(ConsentError):
    """A person said nothing about a purpose, so that there is no record of it."""


class ConsentStringError(ConsentError):
    """A consent string is malformed, or says what nobody defined."""


class ApprovalError(ComplianceError):
    """An approval is malformed, of another job, or not signed by an approver."""


class PolicyError(ComplianceError):
    """A party's own policy is malformed, permits something, or has a clause without a name."""


class RetentionError(ComplianceError):
    """A hold is malformed, its name was used before, or there is none of that name."""


class LogError(ComplianceError):
    """The log cannot be opened, read or extended as asked."""


class LogCorruptedError(LogError):
    """The log's bytes or a proof contradict each other or its signature."""


class LogBusyError(LogError):
    """Another writer holds the log."""


class NotPublicError(LogError):
    """Too few witnesses cosigned a checkpoint for its policy."""


class WitnessPolicyError(LogError):
    """A trust policy is malformed or contradicts itself."""


class Objection(Enum):
    """Why a witness does not cosign; the value is the HTTP status of C2SP tlog-witness."""

    MALFORMED = 400
    UNTRUSTED = 403
    UNKNOWN_LOG = 404
    CONFLICT = 409
    INCONSISTENT = 422


class NotWitnessedError(LogError):
    """A witness does not cosign a checkpoint.

    Attributes:
        objection: why.
        tree_size: entries of the checkpoint that it cosigned last; with `CONFLICT` alone.
    """

    def __init__(self, message: str, objection: Objection, tree_size: int | None = None) -> None:
        super().__init__(message)
        self.objection = objection
        self.tree_size = tree_size


class StoreFormatError(ComplianceError):
    """A file of a party's was written by a later version of this project."""


class SubjectKeyError(ComplianceError):
    """A subject's key is malformed or its store is, or a sealed body does not open."""


class SealingError(ComplianceError):
    """What is sealed is malformed or was changed, or a key is none."""


class SealingKeyError(SealingError):
    """What is sealed is under another key, or was sealed elsewhere."""


class ErasureError(ComplianceError):
    """A request to erase, an acknowledgement or a completion is not what it must be."""


class ManifestError(ComplianceError):
    """Who was in a training, as a party wrote it down, is not what its log tells."""


class ModelAlteredError(ComplianceError):
    """A model that a party keeps is not the one that its log tells of."""


class RecordError(ComplianceError):
    """A record is malformed, unknown, too long, or not in canonical form."""


def describe(error: ValidationError) -> str:
    """Say in one line what pydantic found, field by field, without the offending values.

    A mapping's keys come from outside too: what does not look like a field name is shown as `…`.
    """
    return "; ".join(
        f"{'.'.join(map(_show, problem['loc'])) or 'document'}: {_explain(problem)}"
        for problem in error.errors(include_url=False, include_input=False)
    )


def _explain(problem: ErrorDetails) -> str:
    if problem["type"] == "union_tag_invalid":  # the one message of pydantic that quotes its input
        return f"expected one of {problem['ctx']['expected_tags']}"
    return problem["msg"]


def _show(part: int | str) -> str:
    return str(part) if isinstance(part, int) or _FIELD_NAME.fullmatch(part) else "…"
