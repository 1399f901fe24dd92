"""What became of the contract: signed anew, ended, keys changed, code and people allowed."""

from typing import Literal

from compliance.records.leaf import Digest, Leaf, Name, Sentence

__all__ = ["AgreementEnded", "ApprovalReceived", "CodeReleased", "KeyRotated"]


class AgreementEnded(Leaf):
    """The agreement ended before its time; nothing may be released under it from here on.

    Attributes:
        ended_by: party that gave notice.
        notice_digest: hexadecimal SHA-256 of its signed notice.
        reason: as the notice says.
    """

    kind: Literal["agreement.ended"] = "agreement.ended"
    ended_by: Name
    notice_digest: Digest
    reason: Sentence


class KeyRotated(Leaf):
    """A key of this party was replaced by an amended agreement.

    Attributes:
        key: which of the keys that an agreement names.
        old_key_digest: hexadecimal SHA-256 of the key as the earlier agreement spells it.
        new_key_digest: as the later one does.
    """

    kind: Literal["key.rotated"] = "key.rotated"
    key: Literal["identity_key", "log_key", "encryption_key", "cosigning_key"]
    old_key_digest: Digest
    new_key_digest: Digest


class CodeReleased(Leaf):
    """From here on the party runs this code.

    Attributes:
        package: name of the distribution.
        package_version: its version.
        code_digest: hexadecimal SHA-256 over all its files.
    """

    kind: Literal["code.released"] = "code.released"
    package: Name
    package_version: Name
    code_digest: Digest


class ApprovalReceived(Leaf):
    """A person named in the agreement approved a job.

    Attributes:
        approver: as the agreement calls them; never a name or an address.
        of_party: whose person it is.
        job_digest: hexadecimal SHA-256 of the job that was approved.
        approval_digest: of the signed approval.
    """

    kind: Literal["approval.received"] = "approval.received"
    approver: Name
    of_party: Name
    job_digest: Digest
    approval_digest: Digest
