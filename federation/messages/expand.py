"""What is said in an expansion."""

from typing import Literal

from federation.messages.vocabulary import Closed, Count
from federation.specification import ExpandSpec

__all__ = ["ExpandCounted", "ExpandDone", "ExpandRequest"]


class ExpandRequest(Closed):
    """Coordinator to partner: score your people and keep the best."""

    kind: Literal["expand.request"] = "expand.request"
    spec: ExpandSpec


class ExpandDone(Closed):
    """Partner to coordinator: the segment is delivered. Who is in it stays with the partner.

    Attributes:
        eligible: its people who may be used, with noise; None where no count is agreed.
    """

    kind: Literal["expand.done"] = "expand.done"
    eligible: Count | None = None


class ExpandCounted(Closed):
    """Coordinator to the brand: what partners told of their people's number.

    Payload: the envelopes of their `expand.done`, a line each, in the agreement's order.
    """

    kind: Literal["expand.counted"] = "expand.counted"
    spec: ExpandSpec
