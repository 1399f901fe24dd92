"""Who was in what a training let out: written down before it leaves, and sealed.

```
jobs/JOB/manifest/
  people-NAME            whose rows, their further records, and who was erased before; sealed
  answer-QUESTION.json   one answer that was made from them: counts, keyed roots, promise
keys/manifests.sqlite    a key for each training, destroyed with its model
```

Of each answer that is made from people's rows:

1. the list of the people is sealed, and on the disk;
2. so is what the answer is, and which list it is made from;
3. the gate reads consents again, appends its leaves, keeps the answer, and lets it out.

Guarantees: nothing made from people leaves before it is written down who they are. An answer
counts once the gate has kept it: what a crash, or a refusal, left before 3 counts for nothing, and
the next answer takes it away. Without the key a list is noise, as long for one set of people as for
another of so many. Its root is the one that the log tells of the same answer, so that a list which
was changed, or an answer without one, is found.

Leaves to others: who may be used (`population`), what may leave (`gate`), what becomes of a model
(`compliance.erasure.models`). A person is known by the party's own references of their records;
further records of people who might have been used count like those of people who were.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, Self

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from compliance import records
from compliance.agreement import Agreement
from compliance.consent.cohort import cohort_root
from compliance.errors import ManifestError, SubjectKeyError
from compliance.subject_keys import SubjectKey, SubjectKeys
from federation.cohort_roots import cohort_root_of, kept_cohort_root
from federation.erased import Erased
from federation.errors import WorkspaceError
from federation.messages import content_digest
from federation.party import PartyFolder, write_atomically
from federation.people_used import PeopleUsed
from federation.references import References
from federation.safe import SafeRows
from federation.specification import TrainSpec, VerticalTrainSpec
from federation.training.people_lists import Lists, whole
from privacy.randomness import new_secret

__all__ = ["Entry", "Listed", "Manifest", "destroy_manifest", "keep_manifest"]


Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Listed(_Closed):
    """Some records of people, and the one number that stands for them.

    Attributes:
        count: how many.
        root: over their references, under the party's `cohort_key` (`compliance.consent.cohort`);
            in parts by shelf of those that were used, as the log has it, and in one of the others.
    """

    count: Annotated[int, Field(ge=0)]
    root: Digest


class Entry(_Closed):
    """One answer that was made from people's rows.

    Attributes:
        question: digest of the message that it answers.
        computation: kind of the answer.
        job: the training.
        source: the match or alignment whose people it is about.
        agreement: digest of the contract.
        number: of its version.
        purpose: for which the people were used.
        epsilon: that the job promises each person; None where it promises none of a person's rows.
        delta: that goes with it.
        time: when it was written, before it left.
        rows: records that the party held.
        excluded: how many of them were left out, by reason.
        used: records whose rows went in; the log has this root too.
        linked: further records of the people.
        erased: records that the list of the erased knew then.
        people: name of the sealed list.
    """

    version: Literal[1] = 1
    question: Digest
    computation: str
    job: str
    source: str
    agreement: Digest
    number: int
    purpose: str
    epsilon: float | None
    delta: float | None
    time: datetime
    rows: int
    excluded: dict[str, int]
    used: Listed
    linked: Listed
    erased: Listed
    people: Digest


def keep_manifest(
    folder: PartyFolder,
    agreement: Agreement,
    spec: TrainSpec | VerticalTrainSpec,
    people: PeopleUsed,
    *,
    question: str,
    computation: str,
    now: datetime,
) -> None:
    """Write down who is in an answer that is about to leave; see the module.

    Raises:
        WorkspaceError: the key of the training is gone, a file is damaged, or the disk is full.
    """
    directory = _directory(folder, spec.name)
    path = directory / f"answer-{question}.json"
    if path.exists() and question in _answered(folder):
        return
    persons = Erased(folder, agreement).persons().values()
    erased = sorted({one for person in persons for one in person.references})
    key, kept = folder.cohort_key(agreement.digest), folder.job(spec.name) / "cohort.json"
    lists = Lists(whole(people.keys), whole(people.linked), pa.array(erased, pa.string()))
    root = kept_cohort_root(key, people.keys, kept=kept)  # where the gate looks for it, too
    used = Listed(count=len(people.keys), root=root)
    linked, left_out = _listed(key, lists.linked), _listed(key, lists.erased)
    name = _name((used, linked, left_out))
    if not (file := directory / f"people-{name}").exists():
        nonce = folder.fresh_secret(f"manifest/{spec.name}/{name}")
        sealed = _key(folder, spec.name, begun=any(directory.glob("people-*"))).seal(
            lists.pack(), context=_context(spec.name, name), nonce=nonce
        )
        write_atomically(file, sealed, mode=0o600)  # 1
    over_rows = spec if isinstance(spec, TrainSpec) else None
    entry = Entry(
        question=question,
        computation=computation,
        job=spec.name,
        source=spec.match if isinstance(spec, TrainSpec) else spec.align,
        agreement=agreement.digest,
        number=agreement.number,
        purpose=people.purpose,
        epsilon=over_rows and over_rows.epsilon,
        delta=over_rows and over_rows.delta,
        time=now,
        rows=people.rows,
        excluded=dict(people.excluded),
        used=used,
        linked=linked,
        erased=left_out,
        people=name,
    )
    write_atomically(path, entry.model_dump_json().encode(), mode=0o600)  # 2
    _sweep(folder, spec.name, but=question)


def destroy_manifest(folder: PartyFolder, job: str) -> None:
    """Destroy the key of a training's lists, wherever copies of them are."""
    if _keys(folder).exists():
        _open_keys(folder).destroy([job])


@dataclass(frozen=True)
class Manifest:
    """Who was in all that a training let out here. Use it under the party's lock.

    Attributes:
        folder: the party's.
        job: the training.
        entries: of the answers that left, the oldest first.
    """

    folder: PartyFolder
    job: str
    entries: tuple[Entry, ...]

    @classmethod
    def open(cls, folder: PartyFolder, job: str) -> Self | None:
        """Read the manifest of a training; None where nothing was ever written down.

        Raises:
            WorkspaceError: an entry is damaged.
        """
        if not _directory(folder, job).is_dir():
            return None
        answered = _answered(folder)
        entries = [one for one in _entries(folder, job) if one.question in answered]
        return cls(folder, job, tuple(sorted(entries, key=lambda one: one.time)))

    def names(self, references: Sequence[str]) -> bool:
        """Tell whether any of some references is of a record whose person was in the training.

        Raises:
            WorkspaceError: a list is missing or does not open.
        """
        if not references:
            return False
        wanted = pa.array(references, pa.string())
        return any(
            bool(pc.any(pc.is_in(part, value_set=wanted)).as_py())
            for lists in self.lists()
            for part in (lists.used, lists.linked)
            if len(part)
        )

    def knew_erased(self, references: Sequence[str]) -> bool:
        """Tell whether every answer was made when all of some references were known as erased."""
        lists = list(self.lists())
        return bool(lists) and all(set(references) <= set(one.erased.to_pylist()) for one in lists)

    def lists(self) -> Iterator[Lists]:
        """Unseal every list once.

        Raises:
            WorkspaceError: one is missing or does not open.
        """
        for entry in {one.people: one for one in self.entries}.values():
            yield self._unsealed(entry)

    def check(self, leaves: Iterable[records.Record]) -> None:
        """Hold the manifest against the party's log.

        1. Each list gives the roots that its entries name.
        2. Nobody in it was known as erased when it was used.
        3. Each entry's root is the one that the log tells of the same answer.
        4. Each answer made from people that is still kept has an entry.

        Args:
            leaves: of the party's log, in order.

        Raises:
            ManifestError: at the first step that fails.
            WorkspaceError: a list is missing or does not open.
        """
        for entry in self.entries:
            if entry.people != _name((entry.used, entry.linked, entry.erased)):  # 1
                raise ManifestError(f"job {self.job!r}: an entry names a list of other roots")
        for entry in {one.people: one for one in self.entries}.values():
            lists = self._unsealed(entry)
            self._check_roots(entry, lists)
            known = pc.is_in(pa.concat_arrays([lists.used, lists.linked]), value_set=lists.erased)
            if len(lists.erased) and pc.any(known).as_py():  # 2
                raise ManifestError(f"job {self.job!r} used somebody who was known as erased")
        told = _roots_told(leaves, self.job)
        sent = {
            content_digest(path.read_bytes()): path.name.split(".")[0]
            for path in self.folder.outbox.glob("*.json")
        }
        named = {one.question: one.used.root for one in self.entries}
        by_log = {sent[digest]: root for digest, root in told.items() if digest in sent}
        for question, root in named.items():
            if by_log.get(question) != root:  # 3
                raise ManifestError(
                    f"job {self.job!r}: the log tells of other people, or of nobody, for an answer "
                    "of the manifest: restore both from one backup"
                )
        if missing := len(by_log.keys() - named.keys()):  # 4
            raise ManifestError(f"job {self.job!r}: {missing} answer(s) left without a manifest")

    def _check_roots(self, entry: Entry, lists: Lists) -> None:
        key = self.folder.cohort_key(entry.agreement)
        beside = self.folder.job(self.job) / "manifest.tmp"
        root = cohort_root_of(key, References.of(lists.used), beside)
        found = (
            Listed(count=len(lists.used), root=root),
            _listed(key, lists.linked),
            _listed(key, lists.erased),
        )
        if found != (entry.used, entry.linked, entry.erased):
            raise ManifestError(f"job {self.job!r}: a list is not the one that its entry names")

    def _unsealed(self, entry: Entry) -> Lists:
        path = _directory(self.folder, self.job) / f"people-{entry.people}"
        try:
            sealed = path.read_bytes()
        except FileNotFoundError as error:
            raise WorkspaceError(f"{path} is missing: restore it from a backup") from error
        key = _key(self.folder, self.job, begun=True)
        try:
            body = key.open(sealed, context=_context(self.job, entry.people))
        except SubjectKeyError as error:
            raise WorkspaceError(
                f"{path} does not open with {_keys(self.folder)}: it was cut short or changed, or "
                "the key is another; restore both from one backup"
            ) from error
        return Lists.unpack(body)


def _name(listed: Sequence[Listed]) -> str:
    return hashlib.sha256(
        " ".join(f"{one.count} {one.root}" for one in listed).encode()
    ).hexdigest()


def _listed(key: bytes, part: pa.Array) -> Listed:
    return Listed(count=len(part), root=cohort_root(key, (part,)))


def _context(job: str, name: str) -> bytes:
    return f"training manifest 1 {job} {name}".encode()


def _directory(folder: PartyFolder, job: str) -> Path:
    return folder.job(job) / "manifest"


def _keys(folder: PartyFolder) -> Path:
    return folder.path / "keys" / "manifests.sqlite"


def _open_keys(folder: PartyFolder) -> SubjectKeys:
    path = _keys(folder)
    return SubjectKeys.open(path, draw=new_secret, wrapping=SafeRows(folder.safe, path))


def _key(folder: PartyFolder, job: str, *, begun: bool) -> SubjectKey:
    """Return the key of a training's lists; a first one where it has not begun."""
    path = _keys(folder)
    if not begun:
        return _open_keys(folder).of([job])[0]
    found = _open_keys(folder).find([job])[0] if path.exists() else None
    if found is None:
        raise WorkspaceError(
            f"the key of job {job!r} is not in {path}: restore it from a backup; without it nobody "
            "can tell who was in the training"
        )
    return found


def _entries(folder: PartyFolder, job: str) -> Iterator[Entry]:
    for path in sorted(_directory(folder, job).glob("answer-*.json")):
        try:
            yield Entry.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise WorkspaceError(f"{path} is damaged: restore it from a backup") from error


def _answered(folder: PartyFolder) -> frozenset[str]:
    return frozenset(path.name.split(".")[0] for path in folder.outbox.glob("*.json"))


def _sweep(folder: PartyFolder, job: str, *, but: str) -> None:
    """Take away what is of no answer: entries of answers that never left, lists of no entry."""
    directory = _directory(folder, job)
    answered = _answered(folder) | {but}
    found = list(_entries(folder, job))
    for one in found:
        if one.question not in answered:
            (directory / f"answer-{one.question}.json").unlink()
    named = {f"people-{one.people}" for one in found if one.question in answered}
    for path in directory.glob("people-*"):
        if path.name not in named:
            path.unlink()


def _roots_told(leaves: Iterable[records.Record], job: str) -> dict[str, str | None]:
    """Return the root of the people of each release of a job, by the digest of what left."""
    found: dict[str, str | None] = {}
    used: records.ConsentUsed | None = None
    for leaf in leaves:
        if leaf.job != job:
            continue
        if isinstance(leaf, records.ConsentUsed):
            used = leaf
        elif isinstance(leaf, records.Release) and used is not None:
            found[leaf.content_digest], used = used.cohort_root, None
    return found
