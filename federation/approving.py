"""A party's part in approvals: keep those that the coordinator carries, and tell the log.

Guarantees: what is kept was verified; each approval is one leaf. Where the agreement wants no
approval of a job, or none is brought, there is nothing to acknowledge.

Leaves to others: what approvals are and where they lie (`approvals`), whether they are enough
(`gate`).
"""

import json
from collections.abc import Callable, Mapping, Sequence

from compliance import records
from compliance.errors import SignatureError
from compliance.signing import Envelope
from compliance.terms import Computation
from federation.approvals import job_digest, keep_approvals
from federation.desk import Desk
from federation.errors import MessageError
from federation.gate import Released
from federation.jobs.exchange import expect
from federation.messages import Acknowledged, JobApproved, Message

__all__ = ["Approving", "decode_approvals", "encode_approvals"]

_MOST = 64


def encode_approvals(envelopes: Sequence[Envelope]) -> bytes:
    """Write approvals as the payload of `job.approved`."""
    return json.dumps([json.loads(one.to_json()) for one in envelopes]).encode()


def decode_approvals(payload: bytes) -> tuple[Envelope, ...]:
    """Read them back.

    Raises:
        MessageError: they are no list of at most 64 envelopes.
    """
    try:
        listed = json.loads(payload)
        if not isinstance(listed, list) or len(listed) > _MOST:
            raise MessageError(f"job.approved holds no list of at most {_MOST} approvals")
        return tuple(Envelope.from_json(json.dumps(one).encode()) for one in listed)
    except (ValueError, RecursionError, SignatureError) as error:
        raise MessageError("job.approved holds what is no approval") from error


class Approving:
    """What a party does when it is told of approvals."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @property
    def steps(self) -> Mapping[type[object], Callable[[Message], Released]]:
        """What to do with which message."""
        return {JobApproved: self._keep}

    def _keep(self, message: Message) -> Released:
        spec, desk = expect(message, JobApproved).spec, self._desk
        if not desk.agreement.needs_approval(Computation(spec.kind)):
            raise desk.refusal(
                "approval", f"the agreement wants no approval of {spec.kind} jobs: carry none"
            )
        envelopes = decode_approvals(message.payload)
        if not envelopes:
            raise MessageError(f"job.approved of job {spec.name!r} holds no approval")
        for approval, digest in keep_approvals(desk.folder, desk.agreement, spec, envelopes):
            terms = desk.agreement.approval
            named = terms and terms.approver(approval.approver)
            if not named:
                raise RuntimeError("an approval that was verified has an approver")
            desk.gate.note(
                records.ApprovalReceived,
                spec.name,
                approver=named.name,
                of_party=named.party,
                job_digest=job_digest(spec),
                approval_digest=digest,
            )
        return desk.release(message, Acknowledged())
