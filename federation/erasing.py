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

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, ValidationError

from compliance import records
from compliance.agreement import Agreement
from compliance.erasure.completion import Completion, Outcomes, Step
from compliance.erasure.execution import Execution, Standing
from compliance.erasure.models import model_step
from compliance.records import ErasureOutcome
from compliance.subject_keys import SubjectKeys
from compliance.terms import ErasureTerms
from connectors import FileSource, open_connector
from connectors.errors import SourceReadOnlyError
from federation.clock import Clock
from federation.erased import Erased, Person
from federation.errors import WorkspaceError
from federation.gate import Gate
from federation.jobs.erase import request_tokens
from federation.jobs.model import JointModel
from federation.members import load_people
from federation.party import PartyFolder, write_atomically
from federation.population import open_source, recipe_for
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
        """
        recipe = recipe_for(self._agreement.match)
        token = request_tokens(kind, value, recipe)[0].tobytes()
        for request, person in self._erased.persons().items():
            if person.token == token and (kept := self._read(request)) is not None:
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
        return self._write(Kept(asked=now, execution=execution))

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
        request, person = kept.execution.request, self._erased.person(kept.execution.request)
        now_found = [one for part in self._erased.found([person.token]) for one in part.to_pylist()]
        references = tuple(dict.fromkeys((*person.references, *now_found)))
        if references != person.references:
            self._erased.keep(request, person := Person(person.token, references))  # 2
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
            fields = {"request": request, "target": target, "outcome": step.outcome}
            self._gate.note(records.ErasureStep, None, epsilon=step.epsilon, **fields)
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
        return (
            *(f"segment {path.name}" for path in segments),
            *(f"match {path.parent.name}" for path in sorted(folder.glob("jobs/*/people"))),
            *(f"model {path.stem}" for path in sorted(folder.glob("models/*.json"))),
            *((KEYS,) if self._folder.subject_keys.exists() else ()),
        )

    def _step(self, target: str, references: tuple[str, ...], kept: Kept) -> Step:
        place, _, name = target.partition(" ")
        if target == SOURCE:
            return Step(target=target, outcome=self._source(references))
        if target == KEYS:
            return Step(target=target, outcome=self._keys(references, kept.execution.request))
        if place == "model":
            return self._model(name, references, kept.asked)
        if place == "match":
            held = self._took_part(name, references)
            outcome = ErasureOutcome.SUPPRESSED if held else ErasureOutcome.NOT_HELD
            return Step(target=target, outcome=outcome)
        path = self._folder.path / "segments" / name
        return Step(target=target, outcome=_deleted(FileSource(path=path), references))

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
        if not count:
            return ErasureOutcome.NOT_HELD
        self._gate.note(records.SubjectKeyDestroyed, None, request=request, keys=count)
        return ErasureOutcome.DELETED

    def _model(self, job: str, references: tuple[str, ...], asked: datetime) -> Step:
        path = self._folder.model(job)
        try:
            model = JointModel.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise WorkspaceError(f"{path} is damaged: put the published one there") from error
        saw = self._took_part(model.match, references)
        step = model_step(self._terms, job, saw=saw, epsilon=model.epsilon, now=asked)
        if step.outcome is ErasureOutcome.RETIRED and not self._folder.retired(job).exists():
            write_atomically(self._folder.retired(job), b"")
            reason = "the agreement's clause on erasure: somebody whom it saw was erased"
            self._gate.note(records.ModelRetired, job, model_digest=model.digest, reason=reason)
        return step

    def _took_part(self, match: str, references: tuple[str, ...]) -> bool:
        """Whether a match was of the person, as far as this party can tell."""
        directory = self._folder.job(match) / "people"
        if not references or not directory.exists():
            return False
        people, wanted = load_people(directory), pa.array(references, pa.large_string())
        return any(
            bool(np.any(pc.is_in(batch.cast(pa.large_string()), value_set=wanted)))
            for listed in (people.keys, people.linked)
            for batch in listed.batches()
        )

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


def _deleted(source: FileSource, references: tuple[str, ...]) -> ErasureOutcome:
    connector = open_connector(source)
    delete: Callable[..., int] = connector.delete
    count = delete(connector.columns()[0], references) if references else 0
    return ErasureOutcome.DELETED if count else ErasureOutcome.NOT_HELD
