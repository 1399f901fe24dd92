"""What was done: every kind of leaf that a party's log may hold.

Guarantees: a record that exists is complete, bounded and within its ranges; it has exactly one
encoding (RFC 8785 canonical JSON, at most 2 KiB) and `parse_leaf` accepts no other; a malformed
one raises `RecordError` without showing its values. No field is made for an identifier, names are
too narrow for most, and no string may hold an `@`.

Leaves to others: whether a record is true (the party signs its own log), and whether records fit
together, such as a commit after its reservation (the auditor's replay).
"""

import json
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal

import rfc8785
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from compliance.errors import RecordError, describe

__all__ = [
    "LEAF_LIMIT",
    "AgreementSigned",
    "BudgetCommitted",
    "BudgetRefunded",
    "BudgetReserved",
    "ConsentUsed",
    "JobEnded",
    "JobStarted",
    "LinkOpened",
    "MatchBound",
    "MeasurementMade",
    "ModelTrained",
    "Record",
    "Refusal",
    "Release",
    "SegmentWritten",
    "parse_leaf",
    "to_leaf",
]

LEAF_LIMIT: Final = 2048
"""Bytes that a leaf may have."""


def _utc(time: datetime) -> datetime:
    if time.utcoffset() != timedelta(0):
        raise ValueError("expected a time in UTC, got another offset")
    return time.replace(tzinfo=UTC)


def _without_at_sign(text: str) -> str:
    if "@" in text:
        raise ValueError("expected no '@': a record must not hold an identifier")
    return text


def _json_object(text: str) -> str:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("expected JSON") from error
    if not isinstance(value, dict):
        raise ValueError("expected a JSON object")  # noqa: TRY004  pydantic collects ValueErrors
    return text


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/ -]{0,127}$")]
Sentence = Annotated[
    str,
    Field(min_length=1, max_length=300, pattern=r"^[^\x00-\x1f\x7f]*$"),
    AfterValidator(_without_at_sign),
]
EventJson = Annotated[
    str, Field(max_length=900), AfterValidator(_without_at_sign), AfterValidator(_json_object)
]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Names = Annotated[tuple[Name, ...], Field(min_length=1, max_length=64, strict=False)]
Count = Annotated[int, Field(ge=0, le=2**53 - 1)]
Epsilon = Annotated[float, Field(ge=0)]
Delta = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Time = Annotated[AwareDatetime, Field(strict=False), AfterValidator(_utc)]


class _Leaf(BaseModel):
    """What every record says.

    Attributes:
        version: of this format.
        time: when it happened, UTC; RFC 3339 with `Z` in the leaf.
        party: whose log this is.
        agreement: hexadecimal SHA-256 of the agreement's canonical bytes.
        job: under which job, if any.

    Raises:
        RecordError: on construction, if any value is missing, unknown or out of range.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True
    )

    version: Literal[1] = 1
    time: Time
    party: Name
    agreement: Digest
    job: Name | None = None

    @model_validator(mode="wrap")
    @classmethod
    def _refuse(cls, data: object, validate: ModelWrapValidatorHandler["_Leaf"]) -> "_Leaf":
        try:
            return validate(data)
        except ValidationError as error:
            raise RecordError(f"malformed {cls.__name__} record: {describe(error)}") from error


class AgreementSigned(_Leaf):
    """The agreement took effect: all of `parties` have signed it."""

    kind: Literal["agreement.signed"] = "agreement.signed"
    parties: Names


class ConsentUsed(_Leaf):
    """Consent was read for `rows` people, of whom `eligible` remained.

    Attributes:
        purpose: what consent was asked for.
        consent_log_size: how many consent events had been read.
        rows: people asked about.
        eligible: people whose consent held; at most `rows`.
        excluded: people left out, by reason.
    """

    kind: Literal["consent.used"] = "consent.used"
    purpose: Name
    consent_log_size: Count
    rows: Count
    eligible: Count
    excluded: Annotated[dict[Name, Count], Field(max_length=16)]

    @model_validator(mode="after")
    def _check_rows(self) -> "ConsentUsed":
        if self.eligible > self.rows:
            raise ValueError("expected eligible ≤ rows")
        return self


class Release(_Leaf):
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


class Refusal(_Leaf):
    """Something was not let out: by which `term`, and the cheapest `remedy`."""

    kind: Literal["refusal"] = "refusal"
    release_id: Name
    computation: Name
    term: Sentence
    remedy: Sentence


class BudgetReserved(_Leaf):
    """Privacy budget was set aside before a release; from here on it counts as spent.

    Attributes:
        charge_id: names the charge.
        mechanism: canonical JSON of the mechanism's event, so that anybody can account again.
        epsilon: of this charge alone, at `delta`.
        delta: the agreement's delta per person.
        epsilon_spent: in all, after this charge.
        epsilon_cap: the agreement's epsilon per person.
    """

    kind: Literal["budget.reserved"] = "budget.reserved"
    charge_id: Name
    mechanism: EventJson
    epsilon: Epsilon
    delta: Delta
    epsilon_spent: Epsilon
    epsilon_cap: Epsilon


class BudgetCommitted(_Leaf):
    """A reserved charge was released; `epsilon_spent` is the total, committed and reserved."""

    kind: Literal["budget.committed"] = "budget.committed"
    charge_id: Name
    epsilon_spent: Epsilon


class BudgetRefunded(_Leaf):
    """A reserved charge was given back, because nothing that it paid for left."""

    kind: Literal["budget.refunded"] = "budget.refunded"
    charge_id: Name
    reason: Sentence


class ModelTrained(_Leaf):
    """A model was finished, with the privacy that it holds for each person.

    Attributes:
        model_digest: hexadecimal SHA-256 of the model file.
        rounds: of training.
        parties: whose rows it was trained on.
        epsilon: of the whole training per person; None with `delta` if there is no guarantee.
        delta: that goes with `epsilon`.
    """

    kind: Literal["model.trained"] = "model.trained"
    model_digest: Digest
    rounds: Count
    parties: Names
    epsilon: Epsilon | None
    delta: Delta | None

    @model_validator(mode="after")
    def _check_guarantee(self) -> "ModelTrained":
        if (self.epsilon is None) != (self.delta is None):
            raise ValueError("expected epsilon and delta together, or neither")
        return self


class MeasurementMade(_Leaf):
    """Counts were collected, with the privacy that they hold for each person.

    Attributes:
        measurement_digest: hexadecimal SHA-256 of the file that holds them.
        parties: whose people were counted.
        epsilon: of all counts per person.
        delta: that goes with it; None for pure ε.
    """

    kind: Literal["measurement.made"] = "measurement.made"
    measurement_digest: Digest
    parties: Names
    epsilon: Epsilon
    delta: Delta | None


class SegmentWritten(_Leaf):
    """A segment was written at its owner: its name, the share of people asked for, its rows."""

    kind: Literal["segment.written"] = "segment.written"
    segment: Name
    share: Share
    rows: Count


class MatchBound(_Leaf):
    """A match with another party is bound to the two sets that it began with.

    A commitment is an HMAC under a random key: it tells nothing of a set, and whoever made it can
    open it to an auditor, who finds the same one in the other party's log.
    """

    kind: Literal["match.bound"] = "match.bound"
    peer: Name
    own_commitment: Digest
    peer_commitment: Digest


class LinkOpened(_Leaf):
    """The party opens a direct link to another, to match one bucket of their sets.

    What travels over it is not in the log; the certificates tell who held the ends.
    """

    kind: Literal["link.opened"] = "link.opened"
    peer: Name
    protocol: Name
    bucket: Annotated[int, Field(strict=True, ge=0, le=2**53 - 1)]
    own_certificate: Digest
    peer_certificate: Digest


class JobStarted(_Leaf):
    """The party takes part in a job."""

    kind: Literal["job.started"] = "job.started"
    computation: Name


class JobEnded(_Leaf):
    """The party's part in a job is over, and how."""

    kind: Literal["job.ended"] = "job.ended"
    computation: Name
    outcome: Sentence


Record = Annotated[
    AgreementSigned
    | ConsentUsed
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
    | JobEnded,
    Field(discriminator="kind"),
]

_RECORD: Final[TypeAdapter[Record]] = TypeAdapter(
    Record, config=ConfigDict(hide_input_in_errors=True)
)


def to_leaf(record: Record) -> bytes:
    """Encode a record as canonical JSON (RFC 8785).

    Raises:
        RecordError: it is over 2 KiB: shorten its names, or split it.
    """
    leaf = rfc8785.dumps(record.model_dump(mode="json"))
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
    try:
        record = _RECORD.validate_json(leaf)
    except ValidationError as error:
        raise RecordError(f"malformed leaf: {describe(error)}") from error
    if to_leaf(record) != leaf:
        raise RecordError(f"{record.kind} record: expected canonical JSON, got another spelling")
    return record
