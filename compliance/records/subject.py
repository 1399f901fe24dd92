"""What people asked a party about themselves, beside consent and erasure."""

from typing import Literal

from compliance.records.leaf import Leaf, Name

__all__ = ["SubjectCorrected", "SubjectInformed"]


class SubjectInformed(Leaf):
    """Somebody was told what the party's table holds about them, which may be nothing.

    Attributes:
        request: random; tells nothing of them.
    """

    kind: Literal["subject.informed"] = "subject.informed"
    request: Name


class SubjectCorrected(Leaf):
    """Somebody had what the party's table holds about them corrected, which may be nothing.

    Attributes:
        request: random; tells nothing of them.
    """

    kind: Literal["subject.corrected"] = "subject.corrected"
    request: Name
