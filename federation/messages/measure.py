"""What is said in a measurement."""

from typing import Literal

from federation.messages.vocabulary import Closed
from federation.specification import MeasureSpec

__all__ = ["MeasureCounts", "MeasurePublished", "MeasureRequest"]


class MeasureRequest(Closed):
    """Coordinator to partner: count your people by cell."""

    kind: Literal["measure.request"] = "measure.request"
    spec: MeasureSpec


class MeasureCounts(Closed):
    """Partner to coordinator: counts with noise, members' first (payload: 8-byte integers)."""

    kind: Literal["measure.counts"] = "measure.counts"


class MeasurePublished(Closed):
    """Coordinator to brand: what all partners counted (payload: its JSON)."""

    kind: Literal["measure.published"] = "measure.published"
    spec: MeasureSpec
