"""What jobs left in a party's folder that came of people's data, and what was deleted of it.

```
match         jobs/JOB/ of a match or an alignment
features      rows.npz, labels.npz and people/ in jobs/JOB/ of any other job
model         models/JOB.json, and what else is in jobs/JOB/ of a training
segment       segments/JOB.*, a table or object, and what else is in jobs/JOB/ of an expansion or
              a scoring
measurement   what else is in jobs/JOB/ of a measurement
all but features: payloads of the answers given in the job, in outbox/

jobs/JOB/deleted-KIND.json   an artefact that is being deleted, or was
```

Guarantees: what is kept is found with the time at which the log says that it was made, or else the
first release of its job; where the log was pruned since, with that of the first leaf left at most.
Deleting again changes nothing. What was deleted is refused to whatever would use it, and its name
is not used again.

Leaves to others: what has to go (`compliance.retention`), the order of steps (`retaining`). Entries
of the log and consents are no job's, and not found here.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, TypeAdapter, ValidationError

from compliance import records
from compliance.agreement import Agreement
from compliance.errors import SignatureError
from compliance.records.leaf import Leaf
from compliance.retention import Kept
from compliance.signing import ENVELOPE_LIMIT, Envelope
from compliance.terms import Artefact
from federation.errors import RefusedError, WorkspaceError
from federation.party import PartyFolder
from federation.specification import JobSpec
from federation.successors import retrainings_in
from federation.training.manifests import destroy_manifest
from federation.training.summed import SUMMED, keep_summed

__all__ = ["Deleted", "artefacts_of", "check_kept", "deleted_in", "places", "remove"]

_SPEC: Final[TypeAdapter[JobSpec]] = TypeAdapter(JobSpec)
_SPECS: Final[TypeAdapter[tuple[JobSpec, ...]]] = TypeAdapter(tuple[JobSpec, ...])
_STAYS: Final = ("specification.json", "ended.json")
_MODEL_STAYS: Final = ("joined-", "scored-")  # whose parts were summed stays known: `one_set`
_FEATURES: Final = ("rows.npz", "labels.npz", "people")
_KINDS: Final[Mapping[str, Artefact]] = {
    "match": Artefact.MATCH,
    "align": Artefact.MATCH,
    "train": Artefact.MODEL,
    "train-vertical": Artefact.MODEL,
    "expand": Artefact.SEGMENT,
    "score-vertical": Artefact.SEGMENT,
    "measure": Artefact.MEASUREMENT,
}
_MADE: Final[Mapping[Artefact, type[Leaf]]] = {
    Artefact.MODEL: records.ModelTrained,
    Artefact.SEGMENT: records.SegmentWritten,
    Artefact.MEASUREMENT: records.MeasurementMade,
}
_DIRECTORIES: Final = {Artefact.MODEL: "models", Artefact.SEGMENT: "segments"}
_USES: Final[Mapping[str, Artefact]] = {
    "match": Artefact.MATCH,
    "align": Artefact.MATCH,
    "train": Artefact.MODEL,
}
"""Fields by which a job names another, and what it uses of it."""


class Deleted(BaseModel):
    """An artefact that is being deleted, or was.

    Attributes:
        artefact: its kind.
        name: of the job that made it.
        purpose: for which.
        days: that the agreement's term allows.
        due: when it had to go.
        told: whether the log is known to say so.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    artefact: Artefact
    name: str
    purpose: str
    days: int
    due: AwareDatetime
    told: bool = False

    def path(self, folder: PartyFolder) -> Path:
        """Return where this is written down."""
        return folder.job(self.name) / f"deleted-{self.artefact}.json"

    def refusal(self, party: str) -> RefusedError:
        """Return why nobody can use it."""
        return RefusedError(
            party=party,
            term=f"retention.{self.artefact}",
            remedy=f"the {self.artefact} of job {self.name!r} was deleted: its {self.days} days "
            f"were over on {self.due:%Y-%m-%d}; run that job anew, under another name",
        )


def deleted_in(folder: PartyFolder, job: str = "*") -> Iterator[Deleted]:
    """Yield what was deleted of a job, or of all.

    Raises:
        WorkspaceError: a file that says so is damaged.
    """
    for path in sorted((folder.path / "jobs").glob(f"{job}/deleted-*.json")):
        try:
            yield Deleted.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise WorkspaceError(f"{path} is damaged: restore it from a backup") from error


def check_kept(folder: PartyFolder, job: str, spec: JobSpec | None = None) -> None:
    """Return only if nothing of a job was deleted, nor what it uses of others.

    Raises:
        RefusedError: under the term by which it was.
    """
    for one in deleted_in(folder, job):
        raise one.refusal(folder.name)
    for field, artefact in _USES.items():
        if isinstance(used := getattr(spec, field, None), str):
            for one in deleted_in(folder, used):
                if one.artefact is artefact:
                    raise one.refusal(folder.name)


def artefacts_of(
    folder: PartyFolder, agreement: Agreement, leaves: Sequence[records.Record]
) -> tuple[Kept, ...]:
    """Return what jobs left in a folder, but what is being deleted.

    Args:
        folder: the party's.
        agreement: tells purposes.
        leaves: of the party's log, in order.

    Raises:
        WorkspaceError: a specification is damaged.
        ConnectorError: a database that holds a segment is not there.
    """
    going = {(one.artefact, one.name) for one in deleted_in(folder)}
    found = []
    for spec in _specifications(folder):
        main = _KINDS[spec.kind]
        for artefact in (main,) if main is Artefact.MATCH else (main, Artefact.FEATURES):
            if (artefact, spec.name) not in going and _is_there(folder, artefact, spec.name):
                created = _created(folder, artefact, spec.name, leaves)
                found.append(Kept(artefact, spec.name, _purpose(spec, agreement), created))
    return tuple(found)


def places(folder: PartyFolder, artefact: Artefact, name: str) -> tuple[Path, ...]:
    """Return the files and directories of an artefact that are there."""
    job = folder.job(name)
    stays = ("deleted-", *(_MODEL_STAYS if artefact is Artefact.MODEL else (SUMMED,)))
    inside = [
        path
        for path in (sorted(job.iterdir()) if job.is_dir() else ())
        if path.name not in _STAYS and not path.name.startswith(stays)
    ]
    if artefact is Artefact.FEATURES:
        return tuple(path for path in inside if path.name in _FEATURES)
    if artefact is Artefact.MATCH:
        return tuple(inside)
    found = [path for path in inside if path.name not in _FEATURES]
    if (directory := _DIRECTORIES.get(artefact)) is not None:
        for pattern in (f"{name}.*", f".{name}.*"):  # the latter: staged, or pending
            found.extend(sorted((folder.path / directory).glob(pattern)))
    return tuple(found)


def remove(folder: PartyFolder, artefact: Artefact, name: str) -> None:
    """Remove an artefact from the disk, or from the database or store where it was delivered.

    Raises:
        ConnectorError: the database or store refuses.
        OSError: the disk does.
    """
    if artefact is Artefact.SEGMENT and _is_elsewhere(folder):
        note = folder.job(name) / "delivery.json"
        if note.exists():
            folder.sink(name).discard(ticket=_ticket(note))
        folder.sink(name).remove()
    if artefact is Artefact.MODEL:
        destroy_manifest(folder, name)
    if artefact is Artefact.MATCH:
        keep_summed(folder, name)
    found = [*places(folder, artefact, name)]
    if artefact is not Artefact.FEATURES:
        found.extend(_payloads(folder, name))
    for path in found:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for directory in {path.parent for path in found}:
        _settle(directory)


def _is_there(folder: PartyFolder, artefact: Artefact, name: str) -> bool:
    if places(folder, artefact, name):
        return True
    elsewhere = artefact is Artefact.SEGMENT and _is_elsewhere(folder)
    return elsewhere and folder.sink(name).is_taken()


def _is_elsewhere(folder: PartyFolder) -> bool:
    return folder.config.segments is not None and folder.config.segments.url is not None


def _specifications(folder: PartyFolder) -> Iterator[JobSpec]:
    """Yield the jobs that left anything here; the coordinator lists them."""
    listed = folder.path / "jobs.json"
    files: Iterable[Path] = sorted((folder.path / "jobs").glob("*/specification.json"))
    try:
        for file in files:
            yield _SPEC.validate_json(file.read_bytes())
        if (file := listed).exists():
            yield from _SPECS.validate_json(file.read_bytes())
        for one in retrainings_in(folder.path):
            yield from one.jobs
    except ValidationError as error:
        raise WorkspaceError(f"{file} is damaged: restore it from a backup") from error


def _purpose(spec: JobSpec, agreement: Agreement) -> str:
    terms = {
        "train": agreement.train,
        "train-vertical": agreement.vertical,
        "score-vertical": agreement.vertical,
        "expand": agreement.expand,
        "measure": agreement.measure,
    }.get(spec.kind)
    return (terms or agreement.match).purpose


def _created(
    folder: PartyFolder, artefact: Artefact, name: str, leaves: Sequence[records.Record]
) -> datetime:
    kinds = (_MADE[artefact],) if artefact in _MADE else ()
    for kind in (*kinds, records.Release):
        for leaf in leaves:
            if isinstance(leaf, kind) and leaf.job == name:
                made: datetime = leaf.time
                return made
    seconds = min((one.stat().st_mtime for one in places(folder, artefact, name)), default=0.0)
    found = datetime.fromtimestamp(seconds, UTC)
    is_pruned = not isinstance(leaves[0], records.AgreementSigned)  # with what told of it
    return min(found, leaves[0].time) if is_pruned else found


def _payloads(folder: PartyFolder, job: str) -> Iterator[Path]:
    """Yield payloads of the answers given in a job; that they were given stays known."""
    for path in folder.outbox.glob("*.json"):
        payload = path.with_suffix(".bin")
        if payload.exists() and _job_of(path) == job:
            yield payload


def _job_of(path: Path) -> str:
    class Header(BaseModel):
        job: str

    try:
        envelope = Envelope.from_json(path.read_bytes()[: ENVELOPE_LIMIT + 1])
        return Header.model_validate_json(envelope.payload_bytes).job
    except (SignatureError, ValidationError) as error:
        raise WorkspaceError(f"{path} is damaged: restore it from a backup") from error


def _ticket(note: Path) -> str:
    class Note(BaseModel):
        question: str

    try:
        return Note.model_validate_json(note.read_bytes()).question
    except ValidationError as error:
        raise WorkspaceError(f"{note} is damaged: restore it from a backup") from error


def _settle(directory: Path) -> None:
    """Wait until a directory's list of names is on the disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
