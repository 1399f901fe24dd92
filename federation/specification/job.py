"""What every job says, whichever it is: its name, its deadline, what in it cannot be."""

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from compliance.canonical import is_unsaid

__all__ = [
    "Absent",
    "Contradiction",
    "ContradictoryJobError",
    "Deadline",
    "JobName",
    "OfAll",
    "Spec",
    "between",
]

JobName = Annotated[
    str,
    Field(
        pattern=r"^[a-z][a-z0-9-]{0,31}$",
        description="up to 32 lower-case letters, digits and hyphens, a letter first",
    ),
]


Absent = Annotated[int, Field(ge=0, lt=1_000, exclude_if=is_unsaid)]
"""Partners that a job goes on without: its quorum is all the others."""


Deadline = Annotated[int, Field(ge=1, le=7 * 86_400)]
"""Seconds that the answers of one exchange of a job are waited for, and parties before it."""


class Contradiction(NamedTuple):
    """What cannot be in a job, though each of these keys is well-formed by itself."""

    keys: frozenset[str]
    told: str


def between(keys: str, told: str) -> Contradiction:
    """Return what cannot be, of keys that are separated by spaces."""
    return Contradiction(frozenset(keys.split()), told)


class ContradictoryJobError(ValueError):
    """A job contradicts itself; holds every contradiction, for whoever explains it."""

    def __init__(self, found: tuple[Contradiction, ...]) -> None:
        super().__init__("; ".join(one.told for one in found))
        self.found = found


class Spec(BaseModel):
    """What every job says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: JobName
    deadline_seconds: Deadline | None = Field(default=None, exclude_if=is_unsaid)

    @property
    def patience_seconds(self) -> float:
        """How long its parties, and their answers, are waited for; infinite where left out."""
        return math.inf if self.deadline_seconds is None else self.deadline_seconds

    @property
    def builds_on(self) -> frozenset[str]:
        """Names of the jobs that have to have ended before it."""
        named = (getattr(self, key, None) for key in ("match", "align", "train", "replaces"))
        return frozenset(name for name in named if name is not None)

    @model_validator(mode="after")
    def _does_not_contradict_itself(self) -> Self:
        if found := tuple(self._contradictions()):
            raise ContradictoryJobError(found)
        return self

    def _contradictions(self) -> Iterator[Contradiction]:
        """Yield everything in which the job's keys contradict each other."""
        yield from ()


class OfAll(Spec):
    """A job that can do without nobody."""

    WHY: ClassVar[str]

    @model_validator(mode="before")
    @classmethod
    def _goes_on_without_nobody(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and "absent_partners" in data:
            raise ValueError(f"has no absent_partners, since {cls.WHY}: leave it out")
        return data
