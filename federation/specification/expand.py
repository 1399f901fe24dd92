"""What an expansion is asked to do."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from federation.specification.job import Absent, Contradiction, JobName, Spec, between

__all__ = ["ExpandSpec"]


class ExpandSpec(Spec):
    """Keep, at each partner, the best-scored of its people who are not seeds.

    Attributes:
        train: the training job whose model scores.
        share: so many of the partner's eligible people, in (0, 1]; or
        size: so many people, fewer where the agreement's share of its people are fewer.
        absent_partners: partners that it goes on without; they have no segment of it.
    """

    kind: Literal["expand"] = "expand"
    train: JobName
    share: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False)
    size: int | None = Field(default=None, ge=1, le=1 << 32)
    absent_partners: Absent = 0

    def _contradictions(self) -> Iterator[Contradiction]:
        if (self.share is None) == (self.size is None):
            yield between("share size", "give either share, or size")

    @property
    def measure(self) -> str:
        """What is asked for, in words."""
        if self.size is not None:
            return f"{self.size:,} people"
        return f"{self.share or 0.0:.0%} of its people"
