"""A party's part of erasing somebody: its table, segments, matches, models and keys.

```
request   1 the person is on the list of the erased: no job reads them from here on
run       2 their records are found, and written down before any is deleted
          3 every place is dealt with, each step noted when it is done
          4 the completion is signed and logged by the gate
```

Guarantees: a run that is cut anywhere goes on where it was, and does nothing twice that matters;
the same identifier, named again, leads to the same request and receipt; a source that can only be
read is said to be so. Under the party's lock, no job is at work meanwhile.

Leaves to others: who may ask (the party knows its people), spreading the request (`jobs.erase`,
`compliance.erasure`), backups, and training models again by the day that is told.
"""

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from compliance import records
from compliance.agreement import Agreement
from compliance.erasure.completion import Completion, Outcomes, Step
from compliance.erasure.execution import Execution, Standing
from compliance.erasure.models import model_step
from compliance.log.verifier import verify_log
from compliance.records import ErasureOutcome
from compliance.subject_keys import SubjectKeys
from compliance.terms import ErasureTerms
from connectors import FileSource, SqlSource, open_connector
from connectors.errors import SourceNotFoundError, SourceReadOnlyError
from federation.clock import Clock
from federation.erased import Erased, Person
from federation.errors import WorkspaceError
from federation.gate import Gate
from federation.jobs.assist import HeldPart
from federation.jobs.erase import request_tokens
from federation.jobs.model import JointModel
from federation.outcomes import saw, took_part
from federation.party import PartyFolder, SegmentsConfig, write_atomically
from federation.population import open_source, recipe_for
from federation.retraining import RetrainingQueue
from federation.vertical_rows import is_part
from privacy.randomness import new_secret

__all__ = ["Erasing", "Kept"]

SOURCE: Final = "source"
KEYS: Final = "subject keys"


class Kept(BaseModel):
    """A request as it is kept.

    Attributes:
        asked: when.
        execution: how far it has come.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    asked: datetime
    execution: Execution


class Erasing:
    """Requests to erase, at one party. Use it under the party's lock."""

    def __init__(
        self, folder: PartyFolder, agreement: Agreement, gate: Gate, *, clock: Clock
    ) -> None:
        self._folder = folder
        self._agreement = agreement
        self._gate = gate
        self._clock = clock
        self._erased = Erased(folder, agreement)
        self._terms = agreement.erasure or ErasureTerms()

    def request(self, kind: str, value: str) -> Kept:
        """Take a request; whoever asked before is told of the same one.

        Args:
            kind: `email` or `phone`.
            value: the identifier, as the person writes it.

        Raises:
            ErasureError: the identifier could find nobody.
            ConnectorError: the table cannot be read; the request is kept. Until it is named again
                or carried out, jobs that have read the person go on.
        """
        recipe = recipe_for(self._agreement.match)
        token = request_tokens(kind, value, recipe)[0].tobytes()
        for request, person in self._erased.persons().items():
            if person.token == token and (kept := self._read(request)) is not None:
                self._find(request)
                return kept
        # A crash between the two writes leaves a person who is left out, and no request: asking
        # again makes one.
        name = f"rq-{self._folder.fresh_secret(f'request/{self._clock().isoformat()}').hex()[:32]}"
        now = self._clock()
        deadline = now + timedelta(days=self._terms.deadline_days)
        execution = Execution(
            request=name,
            token_digest=hashlib.sha256(name.encode()).hexdigest(),  # it came by no wire
            acknowledgement=name,
            deadline=deadline,
            nonce=self._folder.fresh_secret(f"outcomes/{name}").hex(),
            targets=(SOURCE,),
        )
        self._erased.keep(name, Person(token))  # 1
        self._gate.note(
            records.ErasureRequested,
            None,
            request=name,
            origin=self._folder.name,
            deadline=deadline,
        )
        kept = self._write(Kept(asked=now, execution=execution))
        self._find(name)  # jobs at work may use them: the gate goes by reference
        return kept

    def status(self) -> tuple[Kept, ...]:
        """Return all requests, the oldest first."""
        found = [self._read(path.stem) for path in self._folder.erasures.glob("*.json")]
        return tuple(sorted((one for one in found if one is not None), key=lambda one: one.asked))

    def run(self) -> tuple[Kept, ...]:
        """Carry out all that was asked; erase again whom a later import brought back.

        Raises:
            ConnectorError: a place cannot be reached; what was done is noted: run it again.
        """
        return tuple(self._carry_out(kept) for kept in self.status())

    def receipt(self, request: str) -> tuple[bytes, Outcomes]:
        """Return the signed completion of a request, and the outcomes that it binds to.

        Raises:
            WorkspaceError: there is no such request, or it is not completed.
        """
        kept = self._read(request)
        if kept is None or kept.execution.completion is None:
            raise WorkspaceError(
                f"request {request!r} is not completed here: `comity erase status` lists them"
            )
        return kept.execution.completion.encode(), kept.execution.outcomes(self._folder.name)

    def _carry_out(self, kept: Kept) -> Kept:
        request = kept.execution.request
        references = self._find(request)  # 2
        if kept.execution.standing is Standing.COMPLETED:
            self._source(references)  # an import brought them back: the receipt stays
            return kept
        if not kept.execution.steps:
            targets = (SOURCE, *self._places())
            kept = self._write(
                kept.model_copy(
                    update={"execution": kept.execution.model_copy(update={"targets": targets})}
                )
            )
        for target in kept.execution.pending:  # 3
            step = self._step(target, references, kept)
            self._gate.note(
                records.ErasureStep,
                None,
                request=request,
                target=target,
                outcome_digest=step.committed(request, kept.execution.nonce),
            )
            kept = self._write(
                kept.model_copy(update={"execution": kept.execution.with_step(step)})
            )
        outcomes = kept.execution.outcomes(self._folder.name)
        completion = Completion.of(outcomes, completed=self._clock())
        signed = self._gate.complete(completion)  # 4
        done = kept.execution.completed(completion, signed)
        return self._write(kept.model_copy(update={"execution": done}))

    def _places(self) -> tuple[str, ...]:
        folder = self._folder.path
        segments = sorted(path for path in folder.glob("segments/*") if path.suffix in _SEGMENTS)
        rows = {path.parent.name for name in _ROWS for path in folder.glob(f"jobs/*/{name}")}
        return (
            *(f"segment {path.name}" for path in segments),
            *(f"segment table {job}" for job in self._tables()),
            *(f"match {path.parent.name}" for path in sorted(folder.glob("jobs/*/people"))),
            *(f"rows {job}" for job in sorted(rows)),
            *(f"model {path.stem}" for path in sorted(folder.glob("models/*.json"))),
            *((KEYS,) if self._folder.subject_keys.exists() else ()),
        )

    def _find(self, request: str) -> tuple[str, ...]:
        """Return the references that the person has or had, written down."""
        person = self._erased.person(request)
        found = [one for part in self._erased.found([person.token]) for one in part.to_pylist()]
        references = tuple(dict.fromkeys((*person.references, *found)))
        if references != person.references:
            self._erased.keep(request, Person(person.token, references))
        return references

    def _tables(self) -> tuple[str, ...]:
        """Return the jobs whose segments went into tables."""
        config = self._folder.config.segments
        if config is None or config.url is None:
            return ()
        key = self._agreement.party(self._folder.name).log_key
        entries = verify_log(self._folder.log, verification_key=key).entries
        leaves = (records.parse_leaf(entry) for entry in entries)
        return tuple(
            sorted({one.segment for one in leaves if isinstance(one, records.SegmentWritten)})
        )

    def _step(self, target: str, references: tuple[str, ...], kept: Kept) -> Step:
        place, _, name = target.partition(" ")
        if place == "model":
            return self._model(name, references, kept.asked)
        if target == SOURCE:
            outcome = self._source(references)
        elif target == KEYS:
            outcome = self._keys(references, kept.execution.request)
        elif place == "rows":
            outcome = self._rows(name, references)
        elif place == "match":
            held = took_part(self._folder, name, references)
            outcome = ErasureOutcome.SUPPRESSED if held else ErasureOutcome.NOT_HELD
        elif name.startswith("table "):
            outcome = self._segment_table(name.removeprefix("table "), references)
        else:
            outcome = _deleted(FileSource(path=self._folder.path / "segments" / name), references)
        return Step(target=target, outcome=outcome)

    def _source(self, references: tuple[str, ...]) -> ErasureOutcome:
        data = self._folder.config.data
        if data is None or not references:
            return ErasureOutcome.NOT_HELD
        try:
            open_source(data, self._folder.path).delete(data.key, references)
        except SourceReadOnlyError:
            return ErasureOutcome.SUPPRESSED
        # Not by the count of this very deletion: an earlier run may have been cut after it.
        return ErasureOutcome.DELETED

    def _keys(self, references: tuple[str, ...], request: str) -> ErasureOutcome:
        count = SubjectKeys.open(self._folder.subject_keys, draw=new_secret).destroy(references)
        # Told whether there were any or not: the log is served, and must not say who is held.
        self._gate.note(records.SubjectKeyDestroyed, None, request=request)
        return ErasureOutcome.DELETED if count else ErasureOutcome.NOT_HELD

    def _model(self, job: str, references: tuple[str, ...], asked: datetime) -> Step:
        path = self._folder.model(job)
        try:
            model: JointModel | HeldPart = (
                HeldPart if is_part(path) else JointModel
            ).model_validate_json(path.read_bytes())
        except FileNotFoundError:  # deleted since the places were listed
            return Step(target=f"model {job}", outcome=ErasureOutcome.NOT_HELD)
        except ValidationError as error:
            raise WorkspaceError(f"{path} is damaged: put the published one there") from error
        if isinstance(model, HeldPart):  # its epsilon, if any, protects labels and nothing else
            match, epsilon = model.align, None
        else:
            match, epsilon = model.match, model.epsilon
        seen = saw(self._folder, job, match, references)
        step = model_step(self._terms, job, saw=seen, epsilon=epsilon, now=asked)
        queue = RetrainingQueue(self._folder, self._agreement)
        return queue.apply(step, job, model.digest, self._gate.note)

    def _rows(self, job: str, references: tuple[str, ...]) -> ErasureOutcome:
        """Delete a job's own copy of its columns, which ends the job."""
        if not took_part(self._folder, job, references):
            return ErasureOutcome.NOT_HELD
        directory = self._folder.job(job)
        write_atomically(directory / "erased", b"")  # nobody reads them again under this name
        for name in _ROWS:
            (directory / name).unlink(missing_ok=True)
        return ErasureOutcome.DELETED

    def _segment_table(self, job: str, references: tuple[str, ...]) -> ErasureOutcome:
        segments = (self._folder.config.segments or SegmentsConfig()).within(self._folder.path)
        if segments.url is None or not references:
            return ErasureOutcome.NOT_HELD
        table = f"segment_{job.replace('-', '_')}"
        try:
            return _deleted(SqlSource(url=SecretStr(segments.url), table=table), references)
        except SourceNotFoundError:  # it was taken away; a database out of reach raises
            return ErasureOutcome.NOT_HELD
        except SourceReadOnlyError:
            return ErasureOutcome.SUPPRESSED

    def _read(self, request: str) -> Kept | None:
        path = self._file(request)
        try:
            return Kept.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise WorkspaceError(f"{path} is damaged: restore it") from error

    def _write(self, kept: Kept) -> Kept:
        content = kept.model_dump_json().encode()
        write_atomically(self._file(kept.execution.request), content, mode=0o600)
        return kept

    def _file(self, request: str) -> Path:
        return self._folder.erasures / f"{request}.json"


_SEGMENTS: Final = frozenset({".csv", ".parquet"})
_ROWS: Final = ("rows.npz", "labels.npz")


def _deleted(source: FileSource | SqlSource, references: tuple[str, ...]) -> ErasureOutcome:
    connector = open_connector(source)
    delete: Callable[..., int] = connector.delete
    count = delete(connector.columns()[0], references) if references else 0
    return ErasureOutcome.DELETED if count else ErasureOutcome.NOT_HELD
