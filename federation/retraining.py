"""A party's models that have to be trained again, and what takes their place.

```
PARTY/retraining/JOB.json   a model that has to be trained again, and by when
PARTY/models/JOB.retired    nobody is scored with the model; holds the training that took its place
```

Of a model that saw somebody who was erased, in this order:

1. it is written down that it is due: from its day on, nobody is scored with it;
2. the log tells the model and its day, and not who asked;
3. it is written down that the log does.

A model is retired by a file first, and then a leaf, unless the log has it; where another takes its
place, both go with the answer that keeps the other one. Until its day, or that moment, expansions
with it are allowed: that is what the agreement's `retrain_days` are for.

Guarantees: the earliest of several days counts; whatever is cut is made whole by doing it again,
with one leaf; a clock that leaps ahead stops a model's use and retires nothing.

Leaves to others: what becomes of a model (`compliance.erasure.models`), the moment at which it is
retired (`retaining`), training again (`successors`).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pydantic import ValidationError

from compliance import records
from compliance.agreement import Agreement
from compliance.erasure.completion import Step
from compliance.erasure.retraining import DueModel, RetrainingStanding, standing_of
from compliance.log.verifier import verify_log
from compliance.records import ErasureOutcome
from federation.desk import Desk
from federation.errors import WorkspaceError
from federation.gate import Released
from federation.jobs.exchange import expect
from federation.messages import Message, RetrainAsk, RetrainTold
from federation.party import PartyFolder, write_atomically
from federation.policies import known_job
from federation.specification import JobSpec, TrainSpec, VerticalTrainSpec

__all__ = [
    "Queued",
    "RetrainingQueue",
    "Telling",
    "check_in_use",
    "check_replaces",
]

MOST_TOLD: Final = 64
"""Models that the coordinator is told of at once; the others follow when these are done."""

Tell = Callable[..., None]
"""Appends a leaf: its kind, its job, its fields."""


class _Kept(DueModel):
    told: bool = False


@dataclass(frozen=True)
class Queued:
    """A model in the queue.

    Attributes:
        due: the model, and its day.
        standing: where it stands.
        successor: the training whose model took its place, if any.
    """

    due: DueModel
    standing: RetrainingStanding
    successor: str | None = None


class RetrainingQueue:
    """A party's models that have to be trained again. Use it under the party's lock."""

    def __init__(self, folder: PartyFolder, agreement: Agreement) -> None:
        self._folder = folder
        self._agreement = agreement

    def apply(self, step: Step, model: str, digest: str, tell: Tell) -> Step:
        """Do to a model what a step of an erasure says, and return the step as it is done.

        Raises:
            WorkspaceError: what is kept of it is damaged.
            LogError: the log does not verify, or cannot be written.
        """
        if step.outcome is ErasureOutcome.RETRAIN and self._folder.retired(model).exists():
            step = Step(target=step.target, outcome=ErasureOutcome.RETIRED)
        if step.outcome is ErasureOutcome.RETIRED:
            reason = "the agreement's clause on erasure: somebody whom it saw was erased"
            leaves = _leaves(self._folder, self._agreement)
            _retire(self._folder, tell, model, digest, reason, leaves)
        elif step.outcome is ErasureOutcome.RETRAIN and step.due is not None:
            self._put(DueModel(model=model, model_digest=digest, due=step.due), tell)
        return step

    def listed(self, moment: datetime) -> tuple[Queued, ...]:
        """Return every model that is or was in the queue, the earliest day first."""
        found = [self._queued(one, moment) for one in self._kept()]
        return tuple(sorted(found, key=lambda one: (one.due.due, one.due.model)))

    def day_of(self, model: str) -> datetime | None:
        """Return the day by which a model has to be trained again, if it has to."""
        return self._read(model).due if self._folder.due_model(model).exists() else None

    def waiting(self, moment: datetime) -> tuple[DueModel, ...]:
        """Return the models that something is yet to take the place of."""
        return tuple(
            one.due for one in self.listed(moment) if one.standing is RetrainingStanding.QUEUED
        )

    def retire_due(
        self, moment: datetime, leaves: Iterable[records.Record], tell: Tell
    ) -> tuple[str, ...]:
        """Retire what was not trained again by its day, and return which that was.

        Args:
            moment: that is believed to have come; see `compliance.retention.Mark`.
            leaves: of the party's log.
            tell: appends a leaf.
        """
        known = [*leaves]
        gone = []
        for one in self.listed(moment):
            due = one.due
            if one.standing is RetrainingStanding.OVERDUE:
                gone.append(due.model)
            elif one.standing is not RetrainingStanding.RETIRED:
                continue
            reason = "it was not trained again by its day, and somebody whom it saw was erased"
            _retire(self._folder, tell, due.model, due.model_digest, reason, known)
        return tuple(gone)

    def _put(self, due: DueModel, tell: Tell) -> None:
        path = self._folder.due_model(due.model)
        kept = self._read(due.model) if path.exists() else None
        if kept is not None and kept.due <= due.due:
            due = kept
        if kept is None or due is not kept:
            kept = _Kept(**due.model_dump(include=set(DueModel.model_fields)))
            write_atomically(path, kept.model_dump_json().encode(), mode=0o600)  # 1
        if kept.told:
            return
        if not any(
            isinstance(leaf, records.ModelDue)
            and (leaf.model_digest, leaf.due) == (kept.model_digest, kept.due)
            for leaf in _leaves(self._folder, self._agreement)
        ):
            tell(records.ModelDue, kept.model, model_digest=kept.model_digest, due=kept.due)  # 2
        told = kept.model_copy(update={"told": True})
        write_atomically(path, told.model_dump_json().encode(), mode=0o600)  # 3

    def _queued(self, one: DueModel, moment: datetime) -> Queued:
        retired = self._folder.retired(one.model)
        successor = retired.read_text(encoding="ascii") if retired.exists() else ""
        standing = standing_of(
            one,
            moment,
            deleted=not self._folder.model(one.model).exists(),
            retired=retired.exists(),
            replaced=bool(successor),
        )
        return Queued(one, standing, successor or None)

    def _kept(self) -> Iterator[_Kept]:
        for path in sorted(self._folder.due_model("x").parent.glob("[!.]*.json")):
            yield self._read(path.stem)

    def _read(self, model: str) -> _Kept:
        path = self._folder.due_model(model)
        try:
            return _Kept.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise WorkspaceError(f"{path} is damaged: restore it from a backup") from error


class Telling:
    """What a party tells the coordinator of its queue."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @property
    def steps(self) -> Mapping[type[object], Callable[[Message], Released]]:
        """What is done with each kind of message."""
        return {RetrainAsk: self._tell}

    def _tell(self, message: Message) -> Released:
        expect(message, RetrainAsk)
        desk = self._desk
        queue = RetrainingQueue(desk.folder, desk.agreement)
        return desk.release(message, RetrainTold(due=queue.waiting(desk.clock())[:MOST_TOLD]))


def check_in_use(desk: Desk, model: str) -> None:
    """Return only if people may be scored with a model.

    Raises:
        RefusedError: it is retired, or was to be trained again by now.
    """
    folder = desk.folder
    if (retired := folder.retired(model)).exists():
        successor = retired.read_text(encoding="ascii")
        remedy = f"use that of training {successor!r}" if successor else "train it again"
        raise desk.refusal(
            "erasure",
            f"the model of training {model!r} is retired, since somebody whom it saw was "
            f"erased: {remedy}",
        )
    day = RetrainingQueue(folder, desk.agreement).day_of(model)
    if day is not None and desk.clock() >= day:
        raise desk.refusal(
            "erasure.retrain_days",
            f"the model of training {model!r} was to be trained again by {day:%Y-%m-%d}, since "
            "somebody whom it saw was erased: train it again",
        )


def check_replaces(desk: Desk, spec: JobSpec) -> None:
    """Return only if a training that is to take another's place asks for the same.

    Raises:
        RefusedError: it does not, or the other one is unknown here.
    """
    if not isinstance(spec, TrainSpec | VerticalTrainSpec) or spec.replaces is None:
        return
    before = known_job(desk.folder, spec.replaces)
    again = {"name": spec.name, "replaces": spec.replaces}
    if isinstance(spec, TrainSpec):
        again["match"] = spec.match  # where the brand erased somebody, a match of its own
    if before is None or before.model_copy(update=again) != spec:
        raise desk.refusal(
            "erasure.retrain_days",
            f"job {spec.name!r} is to take the place of {spec.replaces!r}, which was not trained "
            "here, or otherwise: ask for the very same, or leave `replaces` out",
        )


def _retire(
    folder: PartyFolder,
    tell: Tell,
    model: str,
    digest: str,
    reason: str,
    leaves: Iterable[records.Record],
) -> None:
    """Have nobody scored with a model from here on; once more changes nothing."""
    path = folder.retired(model)
    if not path.exists():
        write_atomically(path, b"")
    if not any(
        isinstance(leaf, records.ModelRetired) and leaf.model_digest == digest for leaf in leaves
    ):
        tell(records.ModelRetired, model, model_digest=digest, reason=reason)


def _leaves(folder: PartyFolder, agreement: Agreement) -> Iterator[records.Record]:
    key = agreement.party(folder.name).log_key
    for entry in verify_log(folder.log, verification_key=key).entries:
        yield records.parse_leaf(entry)
