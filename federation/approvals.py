"""People's approvals of a job, as a party keeps them.

Guarantees: what is read back was verified anew, against the job as it stands; what is not an
approval of it counts for nothing, and is never kept.

Leaves to others: what an approval is (`compliance.approval`), how many are needed
(`compliance.policy`), carrying them (`coordinator`).
"""

import hashlib
import json
from collections.abc import Iterable

import rfc8785

from compliance.agreement import Agreement
from compliance.approval import Approval, verify_approval
from compliance.errors import ApprovalError, SignatureError
from compliance.signing import Envelope
from federation.party import PartyFolder, write_atomically
from federation.specification import JobSpec

__all__ = ["approvals_of", "job_digest", "keep_approvals", "kept_envelopes"]


def job_digest(spec: JobSpec) -> str:
    """SHA-256 of a job in canonical JSON (RFC 8785), in hex: what an approver approves."""
    return hashlib.sha256(rfc8785.dumps(spec.model_dump(mode="json"))).hexdigest()


def approvals_of(folder: PartyFolder, agreement: Agreement, spec: JobSpec) -> tuple[Approval, ...]:
    """Return the valid approvals of a job that lie at a party, one an approver."""
    if agreement.approval is None:
        return ()
    digest, found = job_digest(spec), {}
    for envelope in kept_envelopes(folder, spec):
        try:
            approval = verify_approval(envelope, agreement, digest)
        except ApprovalError:  # of the job as it stood before
            continue
        found[approval.approver] = approval
    return tuple(found[name] for name in sorted(found))


def kept_envelopes(folder: PartyFolder, spec: JobSpec) -> tuple[Envelope, ...]:
    """Return what lies at a party as approvals of a job of that name.

    Raises:
        ApprovalError: a file there is damaged.
    """
    directory = folder.job(spec.name) / "approvals"
    envelopes = []
    for file in sorted(directory.glob("*.json")):
        try:
            envelopes.append(Envelope.from_json(file.read_bytes()))
        except SignatureError as error:
            raise ApprovalError(f"{file}: {error}: take it away") from error
    return tuple(envelopes)


def keep_approvals(
    folder: PartyFolder, agreement: Agreement, spec: JobSpec, envelopes: Iterable[Envelope]
) -> tuple[tuple[Approval, str], ...]:
    """Keep approvals of a job.

    Returns:
        Those of approvers of whom none of this job was there, each with the digest of its envelope.

    Raises:
        ApprovalError: one is no approval of this job; those before it are kept.
    """
    there = {one.approver for one in approvals_of(folder, agreement, spec)}
    new = []
    for envelope in envelopes:
        approval = verify_approval(envelope, agreement, job_digest(spec))
        if approval.approver in there:
            continue
        file = folder.job(spec.name) / "approvals" / f"{approval.approver}.json"
        content = json.dumps(json.loads(envelope.to_json()), sort_keys=True).encode()
        write_atomically(file, content, mode=0o600)
        there.add(approval.approver)
        new.append((approval, hashlib.sha256(content).hexdigest()))
    return tuple(new)
