"""Which models of a coordinator's trainings are in use, and what one erasure will do to each.

Guarantees: says what parties have told, and the agreement; nothing tells who was erased, at which
party, or at which request.

Leaves to others: hearing of it (`successors`), the clause itself (`compliance.erasure.models`).
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from compliance.agreement import Agreement
from compliance.erasure.models import consequence
from compliance.erasure.retraining import RetrainingStanding
from compliance.terms import ErasureTerms
from federation.party import PartyFolder
from federation.specification import JobName, JobSpec, TrainSpec, VerticalTrainSpec
from federation.successors import Retrainings

__all__ = ["ModelStanding", "ModelUse", "erasure_of", "model_standings"]


class ModelUse(StrEnum):
    """Whether people are scored with a model."""

    IN_USE = "in use"
    DUE = "due"
    """They are, until it is trained again, or its day comes."""
    REPLACED = "replaced"
    RETIRED = "retired"
    DELETED = "deleted"
    """Its file is gone, as its time was over."""


class ModelStanding(BaseModel):
    """Where the model of one training stands.

    Attributes:
        model: the training that made it.
        use: whether people are scored with it.
        why: why so; empty of one that is simply in use.
        erasure: what will become of it once somebody in it is erased; empty of one that is out of
            use.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    model: JobName
    use: ModelUse
    why: str = ""
    erasure: str = ""


def erasure_of(spec: JobSpec, agreement: Agreement) -> str | None:
    """Say what one erasure will do to the model of a job; None where it leaves none."""
    if not isinstance(spec, TrainSpec | VerticalTrainSpec):
        return None
    epsilon = spec.epsilon if isinstance(spec, TrainSpec) else None
    return consequence(agreement.erasure or ErasureTerms(), epsilon)


def model_standings(
    folder: PartyFolder, agreement: Agreement, listed: Sequence[JobSpec], now: datetime
) -> tuple[ModelStanding, ...]:
    """Return where every model stands that trainings left, in their order.

    Args:
        folder: the coordinator's.
        agreement: that it obeys.
        listed: its jobs.
        now: the moment.

    Raises:
        WorkspaceError: what is written down is damaged.
    """
    return tuple(_standings(folder, agreement, listed, now))


def _standings(
    folder: PartyFolder, agreement: Agreement, listed: Sequence[JobSpec], now: datetime
) -> Iterator[ModelStanding]:
    known = Retrainings(folder, agreement)
    again = {one.model: one for one in known.listed}
    for spec in (*listed, *known.specs):
        erasure = erasure_of(spec, agreement)
        if erasure is None or not folder.has_ended(spec.name):
            continue
        one = again.get(spec.name)
        if one is not None and known.has_ended(one):
            why = f"trained again as {one.spec.name}"
            yield ModelStanding(model=spec.name, use=ModelUse.REPLACED, why=why)
        elif folder.retired(spec.name).exists():
            why = f"somebody whom it saw was erased, and {_no_other(agreement)}"
            yield ModelStanding(model=spec.name, use=ModelUse.RETIRED, why=why)
        elif one is not None:
            is_late = known.standing(one, now) is RetrainingStanding.OVERDUE
            until = f"was to be trained again by {one.due:%Y-%m-%d}" if is_late else ""
            until = until or f"is trained again as {one.spec.name} by {one.due:%Y-%m-%d}"
            why = f"somebody whom it saw was erased: it {until}"
            use = ModelUse.RETIRED if is_late else ModelUse.DUE
            yield ModelStanding(model=spec.name, use=use, why=why)
        else:
            yield ModelStanding(model=spec.name, use=ModelUse.IN_USE, erasure=erasure)


def _no_other(agreement: Agreement) -> str:
    if agreement.erasure is None or agreement.erasure.retrain_days is None:
        return "the agreement gives no days to train it again (erasure.retrain_days)"
    return "it was not trained again by its day (erasure.retrain_days)"
