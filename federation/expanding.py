"""A party's part of an expansion: its people scored as they are read, and its segment delivered.

```
jobs/JOB/
  expanding.tmp/  while people are read: references, tokens, consents, scores
  counts.json     at the brand: what partners told of their people's number, and who was missing
```

Guarantees: nobody who does not consent now, is on the party's suppression list or is a seed is in a
segment, under whatever record. Memory depends on the segment and on some bytes a row, not on how
many features there are.

Leaves to others: choosing (`jobs.expand`), who may be used (`population`), that a segment is there
whole or not at all (`delivering`), what may leave (`gate`).
"""

import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import TypeAdapter

from compliance import records
from compliance.errors import ModelAlteredError
from connectors import ConnectorError
from federation.delivering import delivered, on_the_way, settle_delivery
from federation.desk import Desk
from federation.gate import Minimum, Released
from federation.jobs.exchange import expect
from federation.jobs.expand import (
    Best,
    CountPlan,
    Expanded,
    ordered,
    read_counted,
    segment_size,
)
from federation.jobs.model import JointModel
from federation.messages import (
    Acknowledged,
    ExpandCounted,
    ExpandDone,
    ExpandRequest,
    Message,
)
from federation.party import undamaged
from federation.population import Population, Use, encoder_for
from federation.published import check_published
from federation.retraining import check_in_use
from federation.shelves import scratch
from federation.specification import ExpandSpec
from federation.suppression import Suppression
from privacy.mechanisms import noised_count
from privacy.randomness import SecretStream

__all__ = ["Expanding", "batches_of", "choose"]

_SCHEMA = pa.schema([("record", pa.string())])
_BATCH_ROWS = 1 << 16
_EXPANDED = TypeAdapter(Expanded)


class Expanding:
    """What a party does with the messages of an expansion."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @property
    def steps(self) -> Mapping[type[object], Callable[[Message], Released]]:
        """What is done with each kind of message."""
        return {ExpandRequest: self._expand, ExpandCounted: self._keep_counts}

    def settle(self) -> None:
        """Deliver segments whose answer was let go before a crash; take away all others.

        What a sink refuses is told, and tried again at the next message.
        """
        for left in self._desk.folder.path.glob("jobs/*/expanding.tmp"):
            shutil.rmtree(left, ignore_errors=True)
        for job in on_the_way(self._desk.folder):
            try:
                settle_delivery(self._desk.folder, self._desk.gate, job)
            except ConnectorError as error:
                self._desk.tell(job, f"segment not delivered yet: {error}")

    def _expand(self, message: Message) -> Released:
        """Score, choose, deliver, and tell a count with noise where one is agreed.

        1. Look at the budget and the place of the segment before anything is computed.
        2. Read and score the people who may be used; tell seeds apart.
        3. Choose the best of those who are none.
        4. Stage the segment; the gate decides; it takes its place.
        """
        desk = self._desk
        spec = expect(message, ExpandRequest).spec
        job, terms = message.header.job, desk.agreement.expand
        plan, sink = CountPlan.of(desk.agreement), desk.folder.sink(job)
        if plan is not None:  # 1
            desk.gate.charges.check(plan.charge)
        if sink.is_taken():
            raise desk.refusal(
                "expand",
                f"something lies already where the segment of job {job!r} would go: move it away, "
                "or run the job under another name",
            )
        suppression = Suppression(desk.folder.suppressed)
        with scratch(desk.folder.job(job) / "expanding.tmp") as beside:
            people = self._read(job, self._load_model(spec.train), suppression, beside)  # 2
            eligible = len(people.used.keys)
            segment = choose(people, segment_size(spec, desk.agreement, eligible))  # 3
            # By the agreed share, not the asked one: trying shares would count the people.
            most = math.ceil(terms.maximum_share * np.count_nonzero(~people.apart))
            told = None
            if plan is not None:
                secret = desk.folder.fresh_secret(f"expand/{message.sealed.digest}")
                told = noised_count(eligible, plan.mechanism, SecretStream(secret, "eligible"))
            rows, question = batches_of(segment), message.sealed.digest
            with delivered(desk.folder, desk.gate, job, rows, question=question):  # 4
                used = people.used
                suppression.require_none_of((used.keys, used.linked), beside / "suppressed")
                released = desk.release(
                    message,
                    ExpandDone(eligible=told),
                    people=people.used,
                    minimums=(Minimum("expand.minimum_segment", most, terms.minimum_segment),),
                    charge=None if plan is None else plan.charge,
                    results=((records.SegmentWritten, _written(spec, len(segment))),),
                )
        desk.tell(job, "wrote its segment", rows=len(segment), charged=plan is not None)
        return released

    def _read(
        self, job: str, model: JointModel, suppression: Suppression, beside: Path
    ) -> Population:
        """Read the people who may be used, score them, and tell seeds apart."""
        desk = self._desk
        encoder = encoder_for(desk.agreement)

        def score(columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
            return model.score(encoder.encode(columns))

        use = Use(
            desk.agreement.expand.purpose,
            desk.clock(),
            with_features=True,
            score=score,
            suppressed=suppression.references(),
            apart=desk.members(model.match).reference_batches(),
        )
        place = beside / "used"
        place.mkdir(mode=0o700)
        people = desk.population(job, use, beside, place)
        desk.gate.consent.keep(job, people.heard, people.heard_rows, people.used)
        desk.tell(job, "scores its people", people.used)
        return people

    def _keep_counts(self, message: Message) -> Released:
        """Keep, at the brand, what partners told of their people's number."""
        desk, job = self._desk, message.header.job
        expanded = read_counted(message, desk.agreement)
        content = _EXPANDED.dump_json(expanded, indent=2)
        with desk.result(desk.folder.job(job) / "counts.json", message, content):
            released = desk.release(message, Acknowledged())
        for one in expanded.counted:
            desk.tell(job, one.told)
        if expanded.missing:
            desk.tell(job, f"nothing of {', '.join(expanded.missing)}, who took no part")
        return released

    def _load_model(self, train: str) -> JointModel:
        desk, path = self._desk, self._desk.folder.model(train)
        check_in_use(desk, train)
        try:
            with undamaged(path):
                model = JointModel.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise desk.refusal(
                "expand.train", f"training {train!r} has not ended here: run it first"
            ) from error
        try:
            check_published(desk.folder, desk.agreement, train, model.digest)
        except ModelAlteredError as error:
            raise desk.refusal(
                "expand.train",
                f"the model of training {train!r} was altered since it was published: restore it "
                "from a backup, or train again under another name",
            ) from error
        if model.body.columns != encoder_for(desk.agreement).names:
            raise desk.refusal(
                "expand.train",
                f"the model of training {train!r} has other columns than agreed: train it again",
            )
        return model


def choose(people: Population, size: int) -> pa.Array:
    """Return the references of the best who are no seeds, best first."""
    keys = people.used.keys
    best = Best.of(people.scores, ~people.apart, size)
    chosen = best.chosen(keys.batches(), len(keys))
    return ordered(keys.at(np.flatnonzero(chosen)), people.scores[chosen])


def batches_of(segment: pa.Array) -> tuple[Iterator[pa.RecordBatch], pa.Schema]:
    """Return a segment as a sink takes it."""
    parts = (
        segment.slice(begin, _BATCH_ROWS).cast(pa.string())
        for begin in range(0, len(segment), _BATCH_ROWS)
    )
    return (pa.record_batch([part], schema=_SCHEMA) for part in parts), _SCHEMA


def _written(spec: ExpandSpec, rows: int) -> Mapping[str, object]:
    asked = {"share": spec.share} if spec.size is None else {"size": spec.size}
    return {"segment": spec.name, "rows": rows, **asked}
