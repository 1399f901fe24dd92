"""A party's models that have to be trained again, and what takes their place.

```
PARTY/retraining/JOB.json   a model that has to be trained again, and by when
PARTY/models/JOB.retired    nobody is scored with the model; holds the training that took its place
```

Of a model that saw somebody who was erased, in this order:

1. it is written down that it is due: from its day on, nobody is scored with it;
2. once all requests of a look are carried out, and before one is completed, the log tells the
   model and its day: neither who asked, nor at which of these requests;
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
from compliance.records import ErasureOutcome
from federation.desk import Desk
from federation.errors import WorkspaceError
from federation.gate import Released
from federation.jobs.exchange import expect
from federation.log_reading import own_leaves
from federation.messages import Message, RetrainAsk, RetrainTold, content_digest
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

MOST_RETIRED: Final = 1024

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

    def apply(self, step: Step, model: str, digest: str) -> Step:
        """Do to a model what a step of an erasure says, and return the step as it is done.

        The log is not told: `tell` is to be called before the request is completed.

        Raises:
            WorkspaceError: what is kept of it is damaged.
        """
        if step.outcome is ErasureOutcome.RETRAIN and self._folder.retired(model).exists():
            step = Step(target=step.target, outcome=ErasureOutcome.RETIRED)
        if step.outcome is ErasureOutcome.RETIRED and not self._folder.retired(model).exists():
            write_atomically(self._folder.retired(model), b"")
        elif step.outcome is ErasureOutcome.RETRAIN and step.due is not None:
            self._put(DueModel(model=model, model_digest=digest, due=step.due))  # 1
        return step

    def tell(self, tell: Tell, arriving: Mapping[str, str] | None = None) -> None:
        """Have the log tell of every model that is due or retired; once more tells nothing.

        Args:
            tell: appends a leaf.
            arriving: digests of models that are not in their place yet.

        Raises:
            WorkspaceError: what is kept of one is damaged.
            LogError: the log does not verify, or cannot be written.
        """
        untold = [one for one in self._kept() if not one.told]
        retired = self.retired()
        if not untold and not retired:
            return
        leaves = [*own_leaves(self._folder, self._agreement)]
        for one in untold:
            if not any(
                isinstance(leaf, records.ModelDue)
                and (leaf.model_digest, leaf.due) == (one.model_digest, one.due)
                for leaf in leaves
            ):
                tell(records.ModelDue, one.model, model_digest=one.model_digest, due=one.due)  # 2
            self._write(one.model_copy(update={"told": True}))  # 3
        reason = "the agreement's clause on erasure: somebody whom it saw was erased"
        for model in retired:
            path, digest = self._folder.model(model), (arriving or {}).get(model)
            if digest is None and path.exists():
                digest = content_digest(path.read_bytes())
            if digest is not None:
                _retire(self._folder, tell, model, digest, reason, leaves)

    def listed(self, moment: datetime) -> tuple[Queued, ...]:
        """Return every model that is or was in the queue, the earliest day first."""
        found = [self._queued(one, moment) for one in self._kept()]
        return tuple(sorted(found, key=lambda one: (one.due.due, one.due.model)))

    def day_of(self, model: str) -> datetime | None:
        """Return the day by which a model has to be trained again, if it has to."""
        return self._read(model).due if self._folder.due_model(model).exists() else None

    def waiting(self, moment: datetime) -> tuple[DueModel, ...]:
        """Return the models that something is yet to take the place of; last whose day is over."""
        order = (RetrainingStanding.QUEUED, RetrainingStanding.OVERDUE)
        listed = self.listed(moment)
        return tuple(one.due for each in order for one in listed if one.standing is each)

    def retired(self) -> tuple[str, ...]:
        """Return the models that are retired, and nothing has taken the place of."""
        paths = sorted(self._folder.retired("x").parent.glob("[!.]*.retired"))
        return tuple(path.stem for path in paths if not path.stat().st_size)

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

    def _put(self, due: DueModel) -> None:
        path = self._folder.due_model(due.model)
        kept = self._read(due.model) if path.exists() else None
        if kept is None or due.due < kept.due:
            self._write(_Kept(**due.model_dump(include=set(DueModel.model_fields))))

    def _write(self, kept: _Kept) -> None:
        content = kept.model_dump_json().encode()
        write_atomically(self._folder.due_model(kept.model), content, mode=0o600)

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
        told = RetrainTold(
            due=queue.waiting(desk.clock())[:MOST_TOLD], retired=queue.retired()[:MOST_RETIRED]
        )
        return desk.release(message, told)


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
