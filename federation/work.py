"""A party's part of training and expansion, and who does what with each message.

Guarantees: the budget is looked at before anything is computed; a job stays what it was when this
party answered first.

Leaves to others: matches and alignments (`matching`), what every step needs (`desk`), the
steps themselves (`jobs`), who may be used (`population`), what may leave (`gate`), and turning
failures into refusals (`node`).
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from compliance import records
from federation.desk import Desk, undamaged
from federation.errors import MessageError
from federation.gate import Minimum, Released
from federation.jobs.exchange import expect
from federation.jobs.expand import choose_segment
from federation.jobs.train import JointModel, parse_model, train_round, training_plan
from federation.matching.aligning import Aligning
from federation.matching.pairs import Matching
from federation.messages import (
    Acknowledged,
    ExpandDone,
    ExpandRequest,
    Identify,
    Message,
    ModelPublished,
    Present,
    TrainRequest,
)
from federation.party import write_atomically
from federation.population import encoder_for
from federation.specification import JobSpec, policy_objections
from privacy.accounting.events import RepeatedEvent
from privacy.accounting.ledger import ChargeState

__all__ = ["Work"]


class Work:
    """What a party does with one message, while it holds its folder."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._matching = Matching(desk)
        self._aligning = Aligning(desk)

    def answer(self, message: Message) -> Released:
        """Do what a verified message on its right way to this party asks.

        Raises:
            RefusedError: a term says no.
            MessageError: the message does not fit the moment.
            PrivacyError, ConnectorError, ComplianceError: the step failed; nothing has left.
        """
        steps: Mapping[type[object], Callable[[Message], Released]] = {
            Identify: self._present,
            **self._matching.steps,
            **self._aligning.steps,
            TrainRequest: self._train,
            ModelPublished: self._keep_model,
            ExpandRequest: self._expand,
        }
        step = steps.get(type(message.body))
        if step is None:
            raise MessageError(f"{message.body.kind} is an answer, and nothing was asked")
        if message.header.sender == self._desk.coordinator and message.header.answers is not None:
            raise MessageError(f"{message.body.kind} opens an exchange, and answers nothing")
        spec: JobSpec | None = getattr(message.body, "spec", None)
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

    def _train(self, message: Message) -> Released:
        desk = self._desk
        body = expect(message, TrainRequest)
        job, agreement = message.header.job, desk.agreement
        plan = training_plan(
            body.spec, agreement, expected_rows=agreement.dataset(desk.folder.name).declared_rows
        )
        rounds_left = max(1, body.spec.rounds - body.round + 1)
        desk.gate.check_budget(RepeatedEvent(event=plan.charge, count=rounds_left))
        people = desk.people(job, agreement.train.purpose)
        members = desk.members(body.spec.match).among(people.keys)
        if body.round == 1:
            desk.tell_findings(job, people)
        desk.tell(job, f"trains, round {body.round} of {body.spec.rounds}", people.used)
        update, payload = train_round(
            message,
            plan,
            encoder_for(agreement).encode(people.features),
            members.astype(np.float64),
            desk.folder.fresh_secret(f"train/{message.sealed.digest}"),
            on_step=lambda done, total: desk.tell_done(job, "trains", done, total),
        )
        minimum = Minimum("match.minimum_match", int(members.sum()), agreement.match.minimum_match)
        released = desk.release(
            message,
            update,
            payload,
            people=people.used,
            minimums=(minimum,),
            charge=plan.charge,
        )
        desk.tell(job, f"gave round {body.round}", charged=True)
        return released

    def _keep_model(self, message: Message) -> Released:
        desk = self._desk
        model = parse_model(message, desk.agreement, encoder_for(desk.agreement).names)
        self._check_trained(model)
        path = desk.folder.model(model.job)
        kept = {
            "model_digest": model.digest,
            "rounds": model.rounds,
            "parties": model.parties,
            "epsilon": model.epsilon,
            "delta": model.delta,
        }
        with desk.result(path, message, model.canonical_bytes):
            released = desk.release(
                message, Acknowledged(), results=((records.ModelTrained, kept),)
            )
        desk.tell(model.job, "keeps the joint model")
        return released

    def _check_trained(self, model: JointModel) -> None:
        """Refuse a model that names this partner for rounds which it never gave."""
        if self._desk.folder.name not in model.parties:
            return
        for number in range(1, model.rounds + 1):
            charge = self._desk.ledger.charge(
                f"{model.job}/train.update/{self._desk.coordinator}/round-{number}"
            )
            if charge is None or charge.state is not ChargeState.COMMITTED:
                raise MessageError(f"model of job {model.job!r}: round {number} was not given here")

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
