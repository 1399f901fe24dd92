"""What becomes of a party's models, by who was in their training.

Guarantees: whether a model saw somebody is decided by what was written down before anything made
from their rows left (`training.manifests`); where nothing was, by who took part in its match: for
the brand of a model over rows, whose people are in labels alone, and for models from before; where
nobody can tell any more who that was, everybody counts as seen. A model that arrives after
somebody whom it saw was erased is dealt with as if it had been there: days count from the earliest
such request. The model whose place it takes is retired with the very answer that keeps it.

Leaves to others: the clause (`compliance.erasure.models`), the queue (`retraining`).
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime

from pydantic import AwareDatetime, BaseModel, ValidationError

from compliance import records
from compliance.erasure.models import model_step
from compliance.records import ErasureOutcome
from compliance.terms import ErasureTerms
from federation.desk import Desk
from federation.erased import Erased, Person, names_any
from federation.errors import WorkspaceError
from federation.gate import Leaf
from federation.members import load_people
from federation.messages import Message, content_digest
from federation.party import PartyFolder
from federation.retraining import RetrainingQueue
from federation.specification import TrainSpec, VerticalTrainSpec
from federation.training.manifests import Manifest

__all__ = ["arriving", "saw", "took_part"]

Results = tuple[tuple[Leaf, Mapping[str, object]], ...]
"""Leaves that go with an answer, and their fields."""


def saw(folder: PartyFolder, job: str, source: str, references: Sequence[str]) -> bool:
    """Tell whether a model saw somebody, as far as this party can tell.

    Args:
        folder: the party's.
        job: the training.
        source: its match or alignment.
        references: of the person's records.

    Raises:
        WorkspaceError: what was written down is damaged, or does not open.
    """
    manifest = Manifest.open(folder, job)
    if manifest is not None:
        return manifest.names(references)
    directory = folder.job(source)
    if directory.exists() and not (directory / "people").exists():  # deleted: it may have
        return bool(references)
    return took_part(folder, source, references)


def took_part(folder: PartyFolder, job: str, references: Sequence[str]) -> bool:
    """Tell whether a match, or another job that kept whose rows it read, was of the person."""
    directory = folder.job(job) / "people"
    if not references or not directory.exists():
        return False
    people = load_people(directory)
    return names_any((people.keys, people.linked), references)


@contextmanager
def arriving(
    desk: Desk,
    message: Message,
    spec: TrainSpec | VerticalTrainSpec,
    digest: str,
) -> Iterator[Results]:
    """Deal with what the arrival of a model means, before and with the answer that keeps it.

    1. Somebody whom it saw may have been erased meanwhile: the clause is applied.
    2. The model whose place it takes is retired.

    Args:
        desk: the party's.
        message: that brought it.
        spec: its training.
        digest: of what the party keeps of it.

    Yields:
        Leaves for the answer.
    """
    _judge(desk, spec, digest)  # 1
    folder, before = desk.folder, spec.replaces
    if before is None or not folder.model(before).exists() or folder.retired(before).exists():
        yield ()
        return
    reason = f"trained again as {spec.name}"
    old = content_digest(folder.model(before).read_bytes())
    with desk.result(folder.retired(before), message, spec.name.encode()):  # 2
        yield ((records.ModelRetired, {"model_digest": old, "reason": reason}),)


def _judge(desk: Desk, spec: TrainSpec | VerticalTrainSpec, digest: str) -> None:
    folder, agreement = desk.folder, desk.agreement
    source = spec.match if isinstance(spec, TrainSpec) else spec.align
    asked = _asked(desk)

    def is_among(first: int) -> bool:
        references = [one for _, person in asked[:first] for one in person.references]
        return bool(references) and saw(folder, spec.name, source, references)

    if not is_among(len(asked)):
        return
    first = bisect_left(range(1, len(asked)), x=True, key=is_among)  # of whom it saw
    step = model_step(
        agreement.erasure or ErasureTerms(),
        spec.name,
        saw=True,
        epsilon=spec.epsilon if isinstance(spec, TrainSpec) else None,
        now=asked[first][0],
    )
    queue = RetrainingQueue(folder, agreement)
    day = None if spec.replaces is None else queue.day_of(spec.replaces)
    if step.outcome is ErasureOutcome.RETRAIN and step.due is not None and day is not None:
        step = step.model_copy(update={"due": min(day, step.due)})  # days count from the request
    queue.apply(step, spec.name, digest)
    queue.tell(desk.gate.note, {spec.name: digest})


class _Asked(BaseModel):
    """What is read of a request (`erasing.Kept`)."""

    asked: AwareDatetime


def _asked(desk: Desk) -> list[tuple[datetime, Person]]:
    """Return who was erased, and when they asked, the earliest first."""
    found = []
    for request, person in Erased(desk.folder, desk.agreement).persons().items():
        path = desk.folder.erasures / f"{request}.json"
        try:
            asked = _Asked.model_validate_json(path.read_bytes()).asked
        except FileNotFoundError:  # a crash came before it was kept
            asked = desk.clock()
        except ValidationError as error:
            raise WorkspaceError(f"{path} is damaged: restore it") from error
        found.append((asked, person))
    return sorted(found, key=lambda one: one[0])
