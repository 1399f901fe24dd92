"""The models in a party's folder, or the coordinator's: trained when, and whether they are used.

Guarantees: a model is listed if the log tells that it was trained, or its file is there; a file
that bears no job's name is none. Nothing tells who was erased.

Leaves to others: what becomes of a model (`retraining`, `model_standing`), and of its file
(`retaining`).
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, TypeAdapter, ValidationError

from compliance.agreement import Agreement
from compliance.records import ModelTrained
from compliance.terms import Role
from federation.coordinator import read_jobs
from federation.log_reading import own_leaves
from federation.model_standing import ModelUse, model_standings
from federation.party import PartyFolder
from federation.retraining import RetrainingQueue
from federation.specification import JobName

__all__ = ["TrainedModel", "trained_models"]

_NAME: Final[TypeAdapter[str]] = TypeAdapter(JobName)


class TrainedModel(BaseModel):
    """A model.

    Attributes:
        model: the training that made it.
        trained: when; None where the log tells it no more.
        use: whether people are scored with it.
        why: why not, or until when; empty of one that is simply in use.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    model: JobName
    trained: AwareDatetime | None
    use: ModelUse
    why: str = ""


def trained_models(
    folder: PartyFolder, agreement: Agreement, now: datetime
) -> tuple[TrainedModel, ...]:
    """Return the models of a party or of the coordinator, in the order in which they were trained.

    Args:
        folder: theirs; use it under its lock.
        agreement: that it obeys.
        now: the moment.

    Raises:
        WorkspaceError: what is written down of one is damaged.
        LogError: the log is damaged, or cannot be read.
    """
    trained = {
        leaf.job: leaf.time
        for leaf in (own_leaves(folder, agreement) if folder.log.exists() else ())
        if isinstance(leaf, ModelTrained) and leaf.job is not None
    }
    files = (path.stem for path in sorted(folder.model("x").parent.glob("*.json")))
    named = dict.fromkeys((*trained, *filter(_is_job, files)))
    told = _told_at_coordinator(folder, agreement, now)
    queue = RetrainingQueue(folder, agreement)
    found = {name: told.get(name) or _use_at(folder, queue, name, now) for name in named}
    return tuple(
        TrainedModel(model=name, trained=trained.get(name), use=use, why=why)
        for name, (use, why) in found.items()
    )


def _is_job(name: str) -> bool:
    try:
        _NAME.validate_python(name)
    except ValidationError:
        return False
    return True


def _told_at_coordinator(
    folder: PartyFolder, agreement: Agreement, now: datetime
) -> Mapping[str, tuple[ModelUse, str]]:
    if folder.config.role is not Role.COORDINATOR or not (folder.path / "jobs.json").exists():
        return {}
    standings = model_standings(folder, agreement, read_jobs(folder), now)
    return {one.model: (one.use, one.why) for one in standings}


def _use_at(
    folder: PartyFolder, queue: RetrainingQueue, model: str, now: datetime
) -> tuple[ModelUse, str]:
    erased = "somebody whom it saw was erased"
    if (retired := folder.retired(model)).exists():
        if successor := retired.read_text(encoding="ascii"):
            return ModelUse.REPLACED, f"trained again as {successor}"
        return ModelUse.RETIRED, erased
    if not folder.model(model).exists():
        return ModelUse.DELETED, "it is kept no longer"
    if (day := queue.day_of(model)) is None:
        return ModelUse.IN_USE, ""
    if now >= day:
        return ModelUse.RETIRED, f"{erased}, and it was to be trained again by {day:%Y-%m-%d}"
    return ModelUse.DUE, f"{erased}: it is to be trained again by {day:%Y-%m-%d}"
