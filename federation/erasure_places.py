"""The places at a party where somebody may be: which there are, and erasing there.

Guarantees: whatever is dealt with again, after a crash, ends as if it had not been; what can only
be read is said to be suppressed; where no reference of a person is known, only the table is said to
be without them.

Leaves to others: which request is about whom, and noting what was done (`erasing`). What a place
held is known by asking `holds` before the first try.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import ValidationError

from compliance import records
from compliance.agreement import Agreement
from compliance.erasure.completion import Step
from compliance.erasure.models import model_step
from compliance.records import ErasureOutcome
from compliance.terms import ErasureTerms
from connectors import FileSource, ObjectSource, SqlSource, open_connector
from connectors.errors import SourceNotFoundError, SourceReadOnlyError
from connectors.schema import text_of
from federation.delivering import on_the_way, settle_delivery
from federation.erased import names_any
from federation.errors import WorkspaceError
from federation.gate import Gate
from federation.jobs.assist import HeldPart
from federation.jobs.model import JointModel
from federation.leaves_told import is_told
from federation.log_reading import own_leaves
from federation.matching.history import forget_tokens
from federation.outcomes import saw, took_part
from federation.party import PartyFolder, SegmentsConfig, write_atomically
from federation.party.abandoned import remove_abandoned
from federation.population import open_source
from federation.references import References
from federation.remembered import tokens_of
from federation.retraining import RetrainingQueue
from federation.training.summed import SUMMED, forget_summed, is_summed
from federation.vertical_rows import is_part

__all__ = ["SOURCE", "ErasurePlaces"]

SOURCE: Final = "source"
KEYS: Final = "subject keys"
DELIVERY: Final = "delivery"  # a segment that a crash left on its way


class ErasurePlaces:
    """The places of one party. Use it under the party's lock."""

    def __init__(self, folder: PartyFolder, agreement: Agreement, gate: Gate) -> None:
        self._folder = folder
        self._agreement = agreement
        self._gate = gate
        self._terms = agreement.erasure or ErasureTerms()

    def settle(self) -> None:
        """Have results that a crash left beside their places there, or nowhere: before `listed`.

        What a killed process had read to work with goes, whoever is in it.
        """
        remove_abandoned(self._folder.path)
        for question, waiting in self._folder.pending_results().items():
            if self._gate.outbox.keeps_answer(question):
                self._folder.keep_pending(question)
            else:
                for path in waiting:
                    path.unlink()

    def forget_last_sets(self, tokens: Sequence[bytes], references: Sequence[str]) -> None:
        """Take people out of what the next match is held against; once more changes nothing.

        Raises:
            WorkspaceError: what is kept of a match is damaged.
        """
        known = tokens_of(self._folder, references)
        named = np.frombuffer(b"".join(tokens), np.uint8).reshape(-1, known.shape[1])
        forget_tokens(self._folder.path / "matches", np.concatenate([named, known]))

    def listed(self) -> tuple[str, ...]:
        """Return every place but the source, as they are now."""
        folder = self._folder.path
        segments = sorted(path for path in folder.glob("segments/*") if path.suffix in _SEGMENTS)
        rows = {path.name for path in folder.glob("jobs/*") if any(_made_of_rows(path))}
        return (
            *(f"segment {path.name}" for path in segments),
            *(f"segment {self._form} {job}" for job in self._elsewhere()),
            *(f"match {path.parent.name}" for path in sorted(folder.glob("jobs/*/people"))),
            *(f"sums {path.parent.name}" for path in sorted(folder.glob(f"jobs/*/{SUMMED}"))),
            *(f"rows {job}" for job in sorted(rows)),
            *(f"model {path.stem}" for path in sorted(folder.glob("models/*.json"))),
            *((KEYS,) if self._folder.subject_keys.exists() else ()),
            *(f"{DELIVERY} {job}" for job in on_the_way(self._folder)),  # a sink may refuse: last
        )

    def holds(self, target: str, references: tuple[str, ...], token: bytes | None = None) -> bool:
        """Tell whether a place holds the person, of places that do not know once it was deleted."""
        place, _, name = target.partition(" ")
        if place == "sums":
            return is_summed(self._folder, name, references, token)
        if not references:
            return False
        if target == KEYS:
            return self._folder.open_subject_keys().has_any(references)
        if place not in {"segment", DELIVERY}:
            return False
        try:
            return _lists(self._segment(target), references)
        except SourceNotFoundError:  # it was taken away; a database out of reach raises
            return False

    @property
    def _form(self) -> str:
        config = self._folder.config.segments
        return "object" if config is not None and config.in_objects else "table"

    def _elsewhere(self) -> tuple[str, ...]:
        """Return the jobs whose segments went into tables or objects."""
        config = self._folder.config.segments
        if config is None or config.url is None:
            return ()
        leaves = own_leaves(self._folder, self._agreement)
        told = {one.segment for one in leaves if isinstance(one, records.SegmentWritten)}
        files = self._folder.path.glob("jobs/*/specification.json")  # where the log was pruned
        begun = {file.parent.name for file in files if b'"kind":"expand"' in file.read_bytes()}
        return tuple(sorted(told | begun))

    def deal_with(
        self,
        target: str,
        references: tuple[str, ...],
        *,
        request: str,
        asked: datetime,
        cut: bool,
        token: bytes | None = None,
    ) -> Step:
        """Erase somebody at a place.

        Args:
            target: the place.
            references: that the person has or had here.
            request: to erase them.
            asked: when it was made.
            cut: whether it may have been tried before.
            token: of the identifier that they named, where anybody here is meant.

        Raises:
            ConnectorError: the place cannot be reached.
        """
        place, _, name = target.partition(" ")
        if place == "sums" and forget_summed(self._folder, name, references, token):
            return Step(target=target, outcome=ErasureOutcome.DELETED)
        if not references and target not in {SOURCE, KEYS}:
            return Step(target=target, outcome=ErasureOutcome.UNKNOWN)
        if place == "model":
            return self._model(name, references, asked)
        if target == SOURCE:
            outcome = self.source(references)
        elif target == KEYS:
            outcome = self._keys(references, request, cut=cut)
        elif place == "rows":
            outcome = self._rows(name, references)
        elif place == "sums":
            outcome = ErasureOutcome.NOT_HELD
        elif place == "match":
            held = took_part(self._folder, name, references)
            outcome = ErasureOutcome.SUPPRESSED if held else ErasureOutcome.NOT_HELD
        else:
            outcome = self._left_out(target, references)
        return Step(target=target, outcome=outcome)

    def source(self, references: tuple[str, ...]) -> ErasureOutcome:
        """Erase somebody in the party's table."""
        data = self._folder.config.data
        if data is None or not references:
            return ErasureOutcome.NOT_HELD
        try:
            open_source(data, self._folder.path).delete(data.key, references)
        except SourceReadOnlyError:
            return ErasureOutcome.SUPPRESSED
        # Not by the count of this very deletion: an earlier run may have been cut after it.
        return ErasureOutcome.DELETED

    def _keys(self, references: tuple[str, ...], request: str, *, cut: bool) -> ErasureOutcome:
        count = self._folder.open_subject_keys().destroy(references)
        # Told whether there were any or not: the log is served, and must not say who is held.
        known = self._folder, self._agreement, records.SubjectKeyDestroyed
        if not (cut and is_told(*known, request=request)):
            self._gate.note(records.SubjectKeyDestroyed, None, request=request)
        if not references:
            return ErasureOutcome.UNKNOWN
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
        return RetrainingQueue(self._folder, self._agreement).apply(step, job, model.digest)

    def tell_of_models(self) -> None:
        """Have the log tell what became of models: after all steps, so as not to tell at whose."""
        RetrainingQueue(self._folder, self._agreement).tell(self._gate.note)

    def _rows(self, job: str, references: tuple[str, ...]) -> ErasureOutcome:
        """Delete what a job made of its people's columns, which ends the job."""
        if not took_part(self._folder, job, references):
            return ErasureOutcome.NOT_HELD
        directory = self._folder.job(job)
        write_atomically(directory / "erased", b"")  # nobody reads them again under this name
        for path in _made_of_rows(directory):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return ErasureOutcome.DELETED

    def _segment(self, target: str) -> FileSource | SqlSource | ObjectSource:
        """Return where a segment lies, by what its place is called; what is on its way gets there.

        Raises:
            ConnectorError: its sink refuses.
        """
        place, _, name = target.partition(" ")
        form, _, job = name.rpartition(" ")
        if place == DELIVERY:
            settle_delivery(self._folder, self._gate, job)
        elif form not in {"table", "object"}:
            return FileSource(path=self._folder.path / "segments" / name)
        return (self._folder.config.segments or SegmentsConfig()).source(job, self._folder.path)

    def _left_out(self, target: str, references: tuple[str, ...]) -> ErasureOutcome:
        """Take the person out of a segment."""
        try:
            return _deleted(self._segment(target), references)
        except SourceNotFoundError:  # it was taken away; a database out of reach raises
            return ErasureOutcome.NOT_HELD
        except SourceReadOnlyError:
            return ErasureOutcome.SUPPRESSED


_SEGMENTS: Final = frozenset({".csv", ".parquet"})
_ROWS: Final = ("rows.npz", "labels.npz", "state.npz", "round-*", "sum-*", "scores-*")


def _made_of_rows(directory: Path) -> Iterator[Path]:
    """Yield what a job that reads columns leaves while it is at work, but whom it has read."""
    for name in _ROWS:
        yield from directory.glob(name)


def _deleted(
    source: FileSource | SqlSource | ObjectSource, references: tuple[str, ...]
) -> ErasureOutcome:
    connector = open_connector(source)
    delete: Callable[..., int] = connector.delete
    count = delete(connector.columns()[0], references)
    return ErasureOutcome.DELETED if count else ErasureOutcome.NOT_HELD


def _lists(source: FileSource | SqlSource | ObjectSource, references: tuple[str, ...]) -> bool:
    connector = open_connector(source)
    key = connector.columns()[0]
    columns = (text_of(batch.column(0)) for batch in connector.scan([key]))
    return names_any(map(References.of, columns), references)
