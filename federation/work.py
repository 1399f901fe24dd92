"""A party's part of expansion, and who does what with each message.

Guarantees: a job stays what it was when this party answered first.

Leaves to others: matches and alignments (`matching`), training (`training`), what every step needs
(`desk`), the steps themselves (`jobs`), who may be used (`population`), what may leave (`gate`),
and turning failures into refusals (`node`).
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from compliance import records
from federation.desk import Desk, undamaged
from federation.errors import MessageError
from federation.gate import Minimum, Released
from federation.jobs.exchange import expect
from federation.jobs.expand import choose_segment
from federation.jobs.model import JointModel
from federation.matching.aligning import Aligning
from federation.matching.direct import DirectMatching
from federation.matching.pairs import Matching
from federation.messages import (
    ExpandDone,
    ExpandRequest,
    Identify,
    Message,
    Present,
)
from federation.party import write_atomically
from federation.population import encoder_for
from federation.specification import JobSpec, MatchSpec, policy_objections
from federation.training.assisted_brand import AssistedBrand
from federation.training.assisting import Assisting
from federation.training.local import LocalTraining
from federation.training.publishing import Publishing
from federation.training.summing import Summing

__all__ = ["Work"]


class Work:
    """What a party does with one message, while it holds its folder."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._matching = Matching(desk)
        self._direct = DirectMatching(desk)
        self._aligning = Aligning(desk)

    def settle(self) -> None:
        """Take away what a crash left of work that is over."""
        self._matching.settle()
        self._aligning.settle()

    def answer(self, message: Message) -> Released:
        """Do what a verified message on its right way to this party asks.

        Raises:
            RefusedError: a term says no.
            MessageError: the message does not fit the moment.
            PrivacyError, ConnectorError, ComplianceError: the step failed; nothing has left.
        """
        spec: JobSpec | None = getattr(message.body, "spec", None)
        direct = isinstance(spec, MatchSpec) and spec.is_direct
        steps: Mapping[type[object], Callable[[Message], Released]] = {
            Identify: self._present,
            **(self._direct.steps if direct else self._matching.steps),
            **self._aligning.steps,
            **LocalTraining(self._desk).steps,
            **Summing(self._desk).steps,
            **Publishing(self._desk).steps,
            **Assisting(self._desk).steps,
            **AssistedBrand(self._desk).steps,
            ExpandRequest: self._expand,
        }
        step = steps.get(type(message.body))
        if step is None:
            raise MessageError(f"{message.body.kind} is an answer, and nothing was asked")
        if message.header.sender == self._desk.coordinator and message.header.answers is not None:
            raise MessageError(f"{message.body.kind} opens an exchange, and answers nothing")
        if spec is None:
            return step(message)
        if spec.name != message.header.job:
            raise MessageError(f"message of job {message.header.job!r} about {spec.name!r}")
        for term, remedy in policy_objections(spec, self._desk.agreement):
            raise self._desk.refusal(term, remedy)
        with self._held_to(spec):
            return step(message)

    @contextmanager
    def _held_to(self, spec: JobSpec) -> Iterator[None]:
        """Refuse a job that changes under its name once this party has answered anything in it."""
        path = self._desk.folder.job(spec.name) / "specification.json"
        content = spec.model_dump_json().encode()
        if path.exists() and path.read_bytes() != content:
            raise MessageError(f"job {spec.name!r} is not what it was when it began here")
        yield
        if not path.exists():
            write_atomically(path, content, mode=0o600)

    def _present(self, message: Message) -> Released:
        return self._desk.release(message, Present())

    def _expand(self, message: Message) -> Released:
        import pandas as pd

        desk = self._desk
        spec = expect(message, ExpandRequest).spec
        job, terms = message.header.job, desk.agreement.expand
        model = self._load_model(spec.train)
        people = desk.people(job, terms.purpose)
        scores = model.score(encoder_for(desk.agreement).encode(people.features))
        members = desk.members(model.match).among(people.keys)
        segment = choose_segment(
            people.keys, scores, members, spec.share, minimum=terms.minimum_segment
        )
        desk.tell(job, "scores its people", people.used)
        # By the agreed share, not the asked one: trying shares would count the people.
        most = math.ceil(terms.maximum_share * int((~members).sum()))
        path = desk.folder.segment(job)
        written = {"segment": path.stem, "share": spec.share, "rows": len(segment)}
        content = pd.DataFrame({"record": segment}).to_csv(index=False).encode()
        with desk.result(path, message, content):
            released = desk.release(
                message,
                ExpandDone(),
                people=people.used,
                minimums=(Minimum("expand.minimum_segment", most, terms.minimum_segment),),
                results=((records.SegmentWritten, written),),
            )
        desk.tell(job, "wrote its segment", rows=len(segment))
        return released

    def _load_model(self, train: str) -> JointModel:
        path = self._desk.folder.model(train)
        try:
            with undamaged(path):
                return JointModel.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise self._desk.refusal(
                "expand.train", f"training {train!r} has not ended here: run it first"
            ) from error
