"""A person's signed yes to one job under one agreement.

Guarantees: `verify_approval` returns an approval only if somebody whom the agreement names as an
approver signed these very bytes, for this agreement and this job as it stands: a job that changes
by one parameter needs approvals anew.

Leaves to others: how many approvals a job needs (`compliance.policy`), what a job is and its digest
(`federation.approvals`), entropy, and keeping approvers' keys.

Sources: DSSE v1.0 (through `compliance.signing`), RFC 8785 (canonical JSON).
"""

from typing import Final, Literal

import rfc8785
from pydantic import BaseModel, ConfigDict, ValidationError

from compliance.agreement import Agreement
from compliance.errors import ApprovalError, SignatureError, describe
from compliance.signing import Envelope, SigningKey
from compliance.terms import Digest, Moment, Name

__all__ = ["PAYLOAD_TYPE", "Approval", "sign_approval", "verify_approval"]

PAYLOAD_TYPE: Final = "application/vnd.comity.approval+json"
"""DSSE payload type of an approval."""


class Approval(BaseModel):
    """What an approver signs.

    Attributes:
        version: of this format.
        agreement: SHA-256 of the agreement, in hex.
        job: the job's name, for people to read.
        job_digest: SHA-256 of the job, in hex.
        approver: as the agreement calls them.
        time: when they approved, UTC.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    version: Literal[1] = 1
    agreement: Digest
    job: Name
    job_digest: Digest
    approver: Name
    time: Moment


def sign_approval(approval: Approval, key: SigningKey, agreement: Agreement) -> Envelope:
    """Sign an approval.

    Raises:
        ApprovalError: the agreement names no such approver, or another key for them.
    """
    terms = agreement.approval
    named = None if terms is None else terms.approver(approval.approver)
    if named is None:
        raise ApprovalError(
            f"agreement {agreement.name!r} names no approver {approval.approver!r}: have it amended"
        )
    if named.verifying_key != key.public:
        raise ApprovalError(
            f"agreement {agreement.name!r} names key {named.verifying_key.fingerprint} for "
            f"{approval.approver!r}, got {key.public.fingerprint}: sign with that key"
        )
    content = rfc8785.dumps(approval.model_dump(mode="json"))
    return Envelope.sign(PAYLOAD_TYPE, content, {approval.approver: key})


def verify_approval(envelope: Envelope, agreement: Agreement, job_digest: str) -> Approval:
    """Return the approval in an envelope.

    1. It is an approval, in its one spelling.
    2. It is of this agreement and this job.
    3. An approver whom the agreement names signed it, and nobody else.

    Raises:
        ApprovalError: one of these fails.
    """
    content = envelope.payload_bytes
    try:
        approval = Approval.model_validate_json(content)
    except ValidationError as error:
        raise ApprovalError(f"malformed approval: {describe(error)}") from error
    canonical = rfc8785.dumps(approval.model_dump(mode="json"))
    if envelope.payload_type != PAYLOAD_TYPE or canonical != content:  # 1
        raise ApprovalError("malformed approval: another type, or another spelling")
    if (approval.agreement, approval.job_digest) != (agreement.digest, job_digest):  # 2
        raise ApprovalError(
            f"the approval of {approval.approver!r} is of another agreement, or of job "
            f"{approval.job!r} as it stood before: approve the job as it stands"
        )
    named = agreement.approval and agreement.approval.approver(approval.approver)
    if not named:  # 3
        raise ApprovalError(f"agreement {agreement.name!r} names no approver {approval.approver!r}")
    if envelope.signers != (named.name,):
        raise ApprovalError(
            f"approval of job {approval.job!r}: expected a signature of {named.name!r} alone, "
            f"got those of: {', '.join(envelope.signers) or 'nobody'}"
        )
    try:
        envelope.verify_by(named.name, named.verifying_key)
    except SignatureError as error:
        raise ApprovalError(f"approval of job {approval.job!r}: {error}") from error
    return approval
