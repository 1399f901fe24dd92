"""The coordinator's trainings that are to take the place of models which parties must retire.

```
COORDINATOR/retrainings.json     which models, by when, and the training that takes each one's place
COORDINATOR/models/JOB.retired   a party has retired the model, and nothing took its place
```

At each run:

1. every party that is there is asked which of its models are due or retired, after requests to
   erase were carried out, and again after all jobs. No job scores with one that is retired
   somewhere, or past its day: who was not asked to be erased there, or is away, would go on.

Where the agreement gives days to train again:

2. what they say is written down, each model with a training under the next name (`march-2` of
   `march`) that asks for the same, and so costs the budget anew; where the brand erased somebody,
   whose label partners have from a match, with another match before it. One that has yet to begin
   serves all trainings that were made on alike ones;
3. after all other jobs, these trainings are run. Who refuses stops that one alone: its model is
   retired on its day. Where somebody was erased while it ran, the next run takes the next name.

Guarantees: a name is used once; a model that several parties must retire is trained again once; a
party learns of no other's queue. Nothing tells who was erased, nor at which request.

Leaves to others: asking and running (`coordinator`), what a party does with the new model
(`retraining`).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, TypeAdapter, ValidationError

from compliance.agreement import Agreement
from compliance.erasure.retraining import (
    DueModel,
    RetrainingStanding,
    next_name,
    standing_of,
)
from compliance.errors import describe
from compliance.terms import Role
from federation.errors import WorkspaceError
from federation.party import PartyFolder, write_atomically
from federation.specification import (
    ExpandSpec,
    JobName,
    JobSpec,
    MatchSpec,
    TrainSpec,
    VerticalScoreSpec,
    VerticalTrainSpec,
)

__all__ = ["Retraining", "Retrainings", "are_agreed", "retrainings_in"]

FILE: Final = "retrainings.json"


class Retraining(BaseModel):
    """A model that has to be trained again.

    Attributes:
        model: the training that made it.
        due: the earliest day that a party told.
        told_by: parties that told one.
        spec: the training that takes its place.
        match: the match that comes before it, if one does.
        given_up: names of earlier ones, during which somebody was erased.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    model: JobName
    due: AwareDatetime
    told_by: tuple[str, ...]
    spec: TrainSpec | VerticalTrainSpec
    match: MatchSpec | None = None
    given_up: tuple[JobName, ...] = ()

    @property
    def jobs(self) -> tuple[JobSpec, ...]:
        """The jobs to run, in order."""
        return (self.spec,) if self.match is None else (self.match, self.spec)


_LISTED: Final = TypeAdapter(tuple[Retraining, ...])


def are_agreed(agreement: Agreement) -> bool:
    """Tell whether models are ever trained again under an agreement."""
    return agreement.erasure is not None and agreement.erasure.retrain_days is not None


class Retrainings:
    """What the coordinator knows of. Use it under the folder's lock, or to read only.

    Raises:
        WorkspaceError: what is written down is damaged.
    """

    def __init__(self, folder: PartyFolder, agreement: Agreement) -> None:
        self._folder = folder
        self._brand = agreement.by_role(Role.BRAND)[0].name
        self._listed = retrainings_in(folder.path)

    @property
    def listed(self) -> tuple[Retraining, ...]:
        """All of them, in the order in which they were heard of first."""
        return self._listed

    @property
    def specs(self) -> tuple[JobSpec, ...]:
        """The trainings that take a model's place, and their matches."""
        return tuple(dict.fromkeys(spec for one in self._listed for spec in one.jobs))

    def open(self, now: datetime) -> tuple[Retraining, ...]:
        """Return those that are to be run: not ended, and begun, or before their day."""
        return tuple(
            one
            for one in self._listed
            if not self.has_ended(one) and (now < one.due or self._has_begun(one))
        )

    def standing(self, one: Retraining, now: datetime) -> RetrainingStanding:
        """Say where one stands, as far as the coordinator can tell."""
        due = DueModel(model=one.model, model_digest="0" * 64, due=one.due)
        ended = self.has_ended(one)
        return standing_of(due, now, deleted=False, retired=ended, replaced=ended)

    def has_ended(self, one: Retraining) -> bool:
        """Tell whether the training has left its model."""
        return self._folder.has_ended(one.spec.name)

    def _has_begun(self, one: Retraining) -> bool:
        return any(self._folder.job(spec.name).exists() for spec in one.jobs)

    def hear(self, told: Mapping[str, Sequence[DueModel]], jobs: Sequence[JobSpec]) -> None:
        """Take up what parties told.

        Args:
            told: by party.
            jobs: that were listed; a model of no training that ended is passed over.
        """
        before = self._listed
        for party, due in sorted(told.items()):
            for one in due:
                self._take_up(party, one, jobs)
        if self._listed != before:
            self._write()

    def hear_retired(self, models: Iterable[str], jobs: Sequence[JobSpec]) -> None:
        """Write down which models parties have retired; who made none is passed over."""
        for model in sorted({*models}):
            path = self._folder.retired(model)
            known = isinstance(self._known(jobs).get(model), TrainSpec | VerticalTrainSpec)
            if known and self._folder.has_ended(model) and not path.exists():
                write_atomically(path, b"")

    def objection(self, spec: JobSpec, now: datetime) -> tuple[str, str] | None:
        """Return term and remedy if a job would score people with a model that is out of use."""
        if not isinstance(spec, ExpandSpec | VerticalScoreSpec):
            return None
        model = f"the model of training {spec.train!r}"
        replaced = {one.model: one.spec.name for one in self._listed if self.has_ended(one)}
        if (last := replaced.get(spec.train)) is not None:
            while last in replaced:
                last = replaced[last]
            why = "is replaced, since somebody whom it saw was erased"
            return "erasure", f"{model} {why}: use that of training {last!r}"
        if self._folder.retired(spec.train).exists():
            why = "is retired, since somebody whom it saw was erased: train it again"
            return "erasure", f"{model} {why}"
        due = [one.due for one in self._listed if one.model == spec.train and one.due <= now]
        if not due:
            return None
        day = f"{due[0]:%Y-%m-%d}"
        why = f"was to be trained again by {day}, since somebody whom it saw was erased"
        return "erasure.retrain_days", f"{model} {why}: use the one in its place, or train it again"

    def give_up(self, one: Retraining, jobs: Sequence[JobSpec]) -> None:
        """Take the next names for a training during which somebody was erased."""
        self._put(self._renamed(one, jobs, with_match=one.match is not None))
        self._write()

    def _take_up(self, party: str, due: DueModel, jobs: Sequence[JobSpec]) -> None:
        known = {one.model: one for one in self._listed}
        one = known.get(due.model)
        if one is None:
            spec = self._known(jobs).get(due.model)
            if not isinstance(spec, TrainSpec | VerticalTrainSpec):
                return
            if not self._folder.has_ended(due.model):
                return
            again = spec.model_copy(update={"replaces": due.model})
            one = Retraining(model=due.model, due=due.due, told_by=(), spec=again)
            one = self._renamed(one, jobs, with_match=False)
        elif self.has_ended(one):  # who told it was away, and gets the new model at a later run
            return
        told_by = tuple(sorted({*one.told_by, party}))
        one = one.model_copy(update={"due": min(one.due, due.due), "told_by": told_by})
        if party == self._brand and isinstance(one.spec, TrainSpec) and one.match is None:
            one = self._renamed(one, jobs, with_match=True)
        self._put(one)

    def _renamed(self, one: Retraining, jobs: Sequence[JobSpec], *, with_match: bool) -> Retraining:
        """Return it under names that no job has or had; what has begun under others is given up."""
        begun = tuple(spec.name for spec in one.jobs if self._folder.job(spec.name).exists())
        taken = self._taken(jobs) - ({spec.name for spec in one.jobs} - {*begun, one.model})
        name = next_name(self._first(one.model, jobs), taken)
        changes: dict[str, object] = {"name": name}
        match = None
        if with_match and isinstance(one.spec, TrainSpec):
            match = self._match_for(one.model, jobs, {*taken, name})
            changes["match"] = match.name
        return one.model_copy(
            update={
                "spec": one.spec.model_copy(update=changes),
                "match": match,
                "given_up": (*one.given_up, *(name for name in begun if name != one.model)),
            }
        )

    def _match_for(self, model: str, jobs: Sequence[JobSpec], taken: Collection[str]) -> MatchSpec:
        """Return a match like the one that a model was trained on: another's, if not begun yet."""
        known = self._known(jobs)
        first = known[self._first(model, jobs)]
        found = known.get(first.match) if isinstance(first, TrainSpec) else None
        if not isinstance(found, MatchSpec):
            raise WorkspaceError(
                f"{self._folder.path / 'jobs.json'} has no match of training {model!r}: put it back"
            )
        others = [one.match for one in self._listed if one.match and one.model != model]
        for other in others:
            alike = other == found.model_copy(update={"name": other.name})
            if alike and not self._folder.job(other.name).exists():
                return other
        return found.model_copy(update={"name": next_name(found.name, taken)})

    def _put(self, one: Retraining) -> None:
        others = [each.model for each in self._listed]
        if one.model in others:
            self._listed = tuple(one if each.model == one.model else each for each in self._listed)
        else:
            self._listed = (*self._listed, one)

    def _first(self, model: str, jobs: Sequence[JobSpec]) -> str:
        """Return the name under which a model was trained first."""
        known = self._known(jobs)
        while (before := getattr(known.get(model), "replaces", None)) is not None:
            model = before
        return model

    def _known(self, jobs: Sequence[JobSpec]) -> dict[str, JobSpec]:
        return {spec.name: spec for spec in (*jobs, *self.specs)}

    def _taken(self, jobs: Sequence[JobSpec]) -> frozenset[str]:
        begun = {path.name for path in (self._folder.path / "jobs").glob("*/")}
        given_up = {name for one in self._listed for name in one.given_up}
        return frozenset(begun | given_up | self._known(jobs).keys())

    def _write(self) -> None:
        content = _LISTED.dump_json(self._listed, indent=2) + b"\n"
        write_atomically(self._folder.path / FILE, content)


def retrainings_in(directory: Path) -> tuple[Retraining, ...]:
    """Return what a coordinator's folder lists.

    Raises:
        WorkspaceError: it is damaged.
    """
    file = directory / FILE
    try:
        return _LISTED.validate_json(file.read_bytes())
    except FileNotFoundError:
        return ()
    except ValidationError as error:
        raise WorkspaceError(
            f"{file} is damaged: {describe(error)}; remove it, and parties tell it again"
        ) from error
