"""Models that have to be trained again because somebody whom they saw was erased.

```
queued ──► replaced          a model that was trained again has taken its place
   │  └──► deleted           its time was over anyhow
   └─► overdue ──► retired   nobody trained it again by its day
```

Guarantees: where a model stands follows from a moment and three facts alone; each of the three ends
is the end.

Leaves to others: keeping the queue (`federation.retraining`), the moment that is believed
(`compliance.retention`), training.
"""

from collections.abc import Collection
from enum import StrEnum
from typing import Annotated, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from compliance.records.leaf import Digest

__all__ = ["DueModel", "RetrainingStanding", "next_name", "standing_of"]

_LONGEST_NAME: Final = 32

ModelName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]


class DueModel(BaseModel):
    """A model that has to be trained again.

    Attributes:
        model: the training that made it.
        model_digest: of what the party keeps of it; of a model over columns, its own part.
        due: the day by which; from then on nobody is scored with it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    model: ModelName
    model_digest: Digest
    due: AwareDatetime


class RetrainingStanding(StrEnum):
    """Where a model stands that has to be trained again."""

    QUEUED = "queued"
    OVERDUE = "overdue"
    """Its day has come: nobody is scored with it, and it is about to be retired."""
    REPLACED = "replaced"
    """It was trained again without whom it must not have seen."""
    RETIRED = "retired"
    """Its day came, and nothing had taken its place."""
    DELETED = "deleted"


def standing_of(
    one: DueModel,
    moment: AwareDatetime,
    *,
    deleted: bool,
    retired: bool,
    replaced: bool,
) -> RetrainingStanding:
    """Say where a model stands.

    Args:
        one: the model.
        moment: that is believed to have come.
        deleted: whether the model is gone.
        retired: whether nobody is scored with it any more.
        replaced: whether that is because another has taken its place.
    """
    if replaced:
        return RetrainingStanding.REPLACED
    if retired:
        return RetrainingStanding.RETIRED
    if deleted:
        return RetrainingStanding.DELETED
    return RetrainingStanding.OVERDUE if moment >= one.due else RetrainingStanding.QUEUED


def next_name(first: str, taken: Collection[str]) -> str:
    """Return the name under which a model is trained again: `march-2` of `march`, then `march-3`.

    Args:
        first: the name under which it was trained first.
        taken: names that jobs have, or had.
    """
    number = 2
    while True:
        ending = f"-{number}"
        name = f"{first[: _LONGEST_NAME - len(ending)]}{ending}"
        if name not in taken:
            return name
        number += 1
