"""What is said around every job: who is there, that people approved it, yes and no."""

from typing import Annotated, Literal

from pydantic import Field

from federation.messages.vocabulary import Closed, Text
from federation.specification import JobSpec

__all__ = ["Acknowledged", "Identify", "JobApproved", "Present", "Refused"]


class Identify(Closed):
    """Coordinator to a node it does not know yet: which party are you?"""

    kind: Literal["identify"] = "identify"


class Present(Closed):
    """A node's answer: the sender of this message."""

    kind: Literal["present"] = "present"


class JobApproved(Closed):
    """Coordinator to every data party, before a job that needs it: these people approved it.

    The payload holds their approvals: a JSON list of DSSE envelopes.
    """

    kind: Literal["job.approved"] = "job.approved"
    spec: JobSpec


class Acknowledged(Closed):
    """Received, verified and kept."""

    kind: Literal["acknowledged"] = "acknowledged"


class Refused(Closed):
    """No, by which term, and the smallest change that would pass."""

    kind: Literal["refused"] = "refused"
    term: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.]{0,62}$")]
    remedy: Text
