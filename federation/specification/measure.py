"""What a measurement is asked to do."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from compliance.terms import CountNoise, unique
from federation.specification.job import Absent, Contradiction, JobName, Spec, between

__all__ = ["MeasureSpec"]


class MeasureSpec(Spec):
    """Count members, and all others, at each partner, by cells of agreed columns, with noise.

    Attributes:
        match: the match job whose members are counted.
        columns: one to three of the agreed ones; a cell is a combination of what they hold.
        noise: what blurs each count.
        epsilon: privacy loss per person over all partners.
        delta: its failure probability; of discrete Gaussian noise alone.
        absent_partners: partners that it goes on without; their people are in no count.
    """

    kind: Literal["measure"] = "measure"
    match: JobName
    columns: Annotated[tuple[str, ...], Field(min_length=1, max_length=3), AfterValidator(unique)]
    noise: CountNoise = CountNoise.DISCRETE_LAPLACE
    epsilon: float = Field(gt=0, allow_inf_nan=False)
    delta: float | None = Field(default=None, gt=0, lt=1, allow_inf_nan=False)
    absent_partners: Absent = 0

    def _contradictions(self) -> Iterator[Contradiction]:
        is_pure = self.noise is CountNoise.DISCRETE_LAPLACE
        if (self.delta is None) is not is_pure:
            does = "has no" if is_pure else "needs"
            yield between("noise delta", f"noise {self.noise.value!r} {does} delta")
