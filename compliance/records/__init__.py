"""What was done: every kind of leaf that a party's log may hold.

Guarantees: a record that exists is complete, bounded and within its ranges; it has exactly one
encoding (RFC 8785 canonical JSON, at most 2 KiB) and `parse_leaf` accepts no other; a malformed
one raises `RecordError` without showing its values. No field is made for an identifier, names are
too narrow for most, and no string may hold an `@`.

Leaves to others: whether a record is true (the party signs its own log), and whether records fit
together, such as a commit after its reservation (the auditor's replay).
"""

from typing import Annotated, Final, get_args

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from compliance.canonical import canonical_json
from compliance.errors import RecordError, describe
from compliance.log.tiles import ENTRY_LIMIT
from compliance.records.access import AccessDecided, AgreementSigned, Refusal, Release
from compliance.records.budget import BudgetCommitted, BudgetRefunded, BudgetReserved
from compliance.records.calls import CallsRefused, RefusedFor
from compliance.records.consent import ConsentRecorded, ConsentUsed
from compliance.records.contract import AgreementEnded, ApprovalReceived, CodeReleased, KeyRotated
from compliance.records.erasure import (
    ErasureAcknowledged,
    ErasureCompleted,
    ErasureOutcome,
    ErasureOverdue,
    ErasureRequested,
    ErasureStep,
    ModelDue,
    ModelRetired,
    SubjectKeyDestroyed,
)
from compliance.records.jobs import (
    JobEnded,
    JobStarted,
    LinkOpened,
    MatchBound,
    MeasurementMade,
    ModelTrained,
    SegmentWritten,
)
from compliance.records.retention import ArtefactDeleted, HoldLifted, HoldPlaced, LogPruned
from compliance.records.spelling import Spelling
from compliance.records.subject import SubjectCorrected, SubjectInformed
from compliance.records.witness import WitnessReceived

__all__ = [
    "LEAF_LIMIT",
    "AccessDecided",
    "AgreementEnded",
    "AgreementSigned",
    "ApprovalReceived",
    "ArtefactDeleted",
    "BudgetCommitted",
    "BudgetRefunded",
    "BudgetReserved",
    "CallsRefused",
    "CodeReleased",
    "ConsentRecorded",
    "ConsentUsed",
    "ErasureAcknowledged",
    "ErasureCompleted",
    "ErasureOutcome",
    "ErasureOverdue",
    "ErasureRequested",
    "ErasureStep",
    "HoldLifted",
    "HoldPlaced",
    "JobEnded",
    "JobStarted",
    "KeyRotated",
    "LinkOpened",
    "LogPruned",
    "MatchBound",
    "MeasurementMade",
    "ModelDue",
    "ModelRetired",
    "ModelTrained",
    "Record",
    "Refusal",
    "RefusedFor",
    "Release",
    "SegmentWritten",
    "SubjectCorrected",
    "SubjectInformed",
    "SubjectKeyDestroyed",
    "WitnessReceived",
    "parse_leaf",
    "to_leaf",
]

LEAF_LIMIT: Final = ENTRY_LIMIT
"""Bytes that a leaf may have, as the log has it, where it is written and where it is read."""

Record = Annotated[
    AgreementSigned
    | ConsentUsed
    | AccessDecided
    | Release
    | Refusal
    | BudgetReserved
    | BudgetCommitted
    | BudgetRefunded
    | ModelTrained
    | MeasurementMade
    | MatchBound
    | LinkOpened
    | SegmentWritten
    | JobStarted
    | JobEnded
    | CallsRefused
    | AgreementEnded
    | ApprovalReceived
    | CodeReleased
    | KeyRotated
    | ErasureAcknowledged
    | ErasureCompleted
    | ErasureOverdue
    | ErasureRequested
    | ErasureStep
    | ModelDue
    | ModelRetired
    | SubjectKeyDestroyed
    | ArtefactDeleted
    | HoldLifted
    | HoldPlaced
    | LogPruned
    | WitnessReceived
    | SubjectCorrected
    | SubjectInformed
    | ConsentRecorded,
    Field(discriminator="kind"),
]

_RECORD: Final[TypeAdapter[Record]] = TypeAdapter(
    Record, config=ConfigDict(hide_input_in_errors=True)
)

_SPELLINGS: Final[dict[bytes, Spelling]] = {
    kind.model_fields["kind"].default.encode(): spelt
    for kind in get_args(get_args(Record)[0])
    if (spelt := Spelling.of(kind)) is not None
}
_KIND: Final = b'"kind":"'


def to_leaf(record: Record) -> bytes:
    """Encode a record as canonical JSON (RFC 8785).

    Raises:
        RecordError: it is over 2 KiB, which no kind can be (`compliance.records.leaf`).
    """
    leaf = canonical_json(record.model_dump(mode="json"))
    if len(leaf) > LEAF_LIMIT:
        raise RecordError(
            f"{record.kind} record: expected at most {LEAF_LIMIT} bytes, got {len(leaf)}"
        )
    return leaf


def parse_leaf(leaf: bytes) -> Record:
    """Decode the one encoding of a record.

    Raises:
        RecordError: too long, not JSON, of unknown kind, with unknown, missing or malformed
            fields, or in any other spelling than `to_leaf` writes.
    """
    if len(leaf) > LEAF_LIMIT:
        raise RecordError(f"expected a leaf of at most {LEAF_LIMIT} bytes, got {len(leaf)}")
    begin = leaf.find(_KIND) + len(_KIND)
    spelling = _SPELLINGS.get(leaf[begin : leaf.find(b'"', begin)])
    if spelling is not None and leaf.isascii():
        plain: Record | None = spelling.read(leaf.decode())
        if plain is not None:
            return plain
    return _parse_by_model(leaf)


def _parse_by_model(leaf: bytes) -> Record:
    try:
        record = _RECORD.validate_json(leaf)
    except ValidationError as error:
        raise RecordError(f"malformed leaf: {describe(error)}") from error
    if to_leaf(record) != leaf:
        raise RecordError(f"{record.kind} record: expected canonical JSON, got another spelling")
    return record
