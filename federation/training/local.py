"""A party's part of training with noise of its own.

Guarantees: the budget is looked at before anything is computed; a round leaves when it is charged.

Leaves to others: the steps (`jobs.train`), who may be used (`population`), what may leave (`gate`).
"""

from collections.abc import Callable, Mapping

import numpy as np

from compliance.terms import NoiseSource
from federation.desk import Desk
from federation.errors import MessageError
from federation.gate import Minimum, Released
from federation.jobs.exchange import expect
from federation.jobs.train import train_round, training_plan
from federation.messages import Message, TrainRequest
from federation.population import encoder_for
from privacy.accounting.events import RepeatedEvent

__all__ = ["LocalTraining"]


class LocalTraining:
    """What a party does with the messages of a training with local noise."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @property
    def steps(self) -> Mapping[type[object], Callable[[Message], Released]]:
        """What is done with each kind of message."""
        return {TrainRequest: self._train}

    def _train(self, message: Message) -> Released:
        desk = self._desk
        body = expect(message, TrainRequest)
        job, agreement = message.header.job, desk.agreement
        if body.spec.noise is not NoiseSource.LOCAL:
            raise MessageError(f"job {job!r} is trained by secure sums: nothing else is said in it")
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
