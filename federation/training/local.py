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
from federation.jobs.hidden import HiddenPlan, counts_to_bytes
from federation.jobs.train import train_round, training_plan
from federation.messages import (
    Message,
    TrainCount,
    TrainCounted,
    TrainRequest,
    weights_from_bytes,
)
from federation.population import encoder_for
from privacy.accounting.events import RepeatedEvent
from privacy.randomness import SecretStream
from privacy.training.unlabelled import ScoreCounts

__all__ = ["LocalTraining"]


class LocalTraining:
    """What a party does with the messages of a training with local noise."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @property
    def steps(self) -> Mapping[type[object], Callable[[Message], Released]]:
        """What is done with each kind of message."""
        return {TrainRequest: self._train, TrainCount: self._count}

    def _count(self, message: Message) -> Released:
        """Count people by their score under a model, with noise."""
        desk = self._desk
        body = expect(message, TrainCount)
        job, agreement, spec = message.header.job, desk.agreement, body.spec
        if (plan := HiddenPlan.of(spec, agreement)) is None:
            raise MessageError(f"job {job!r}: no counting of hidden positives is agreed")
        desk.gate.charges.check(plan.charge)
        weights = weights_from_bytes(message.payload, body.width)
        encoder = encoder_for(agreement)
        if body.width != encoder.width:
            raise MessageError(f"{body.width} weights; the agreed columns give {encoder.width}")
        people = desk.people(job, agreement.train.purpose)
        members = desk.members(spec.match).among(people.keys)
        with np.errstate(over="ignore", invalid="ignore"):
            scores = np.nan_to_num(encoder.encode(people.features) @ weights)
        secret = desk.folder.fresh_secret(f"train/{message.sealed.digest}")
        counts = ScoreCounts.of(scores, members)
        noised = counts.noised(plan.mechanism, SecretStream(secret, "score counts"))
        minimum = Minimum("match.minimum_match", int(members.sum()), agreement.match.minimum_match)
        released = desk.release(
            message,
            TrainCounted(),
            counts_to_bytes(noised),
            people=people.used,
            minimums=(minimum,),
            charge=plan.charge,
        )
        desk.tell(job, "counted its people by score, with noise", charged=True)
        return released

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
        desk.gate.charges.check(RepeatedEvent(event=plan.charge, count=rounds_left))
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
