"""Train: one joint model, differentially private for every person.

```
coordinator                     partner
1  train.request (weights) ──►  2 DP-SGD on own rows: members positive, all others unlabelled
3  average                 ◄──    train.update (private weights)        … for every round
4  count by score (`hidden`), where it is agreed
5  model.published         ──►  6 keep the model (the brand too)
```

Noise is added at each partner, in full: nobody needs to be trusted with anything that is not
private already. One person may stand in the tables of several partners; each partner's charge is
therefore that of `max_parties_per_person` such partners together, and ε holds for the person.

Guarantees: no I/O; the noise multiplier is derived here from (ε, δ), never taken from a message.

Leaves to others: gradients, noise and accounting (`privacy`), rows (`population`).
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compliance.agreement import Agreement
from compliance.terms import Role
from federation.errors import MessageError, RefusedError
from federation.jobs.exchange import Exchange, expect
from federation.jobs.families import gradient_engine, initial_weights, is_linear, trained_body
from federation.jobs.hidden import HiddenPlan, coordinate_counting
from federation.jobs.model import JointModel, Making, agreed_model, publish
from federation.jobs.quorum import Quorum, is_quorum, partners_in_order
from federation.messages import (
    MAX_WEIGHTS,
    Message,
    TrainRequest,
    TrainUpdate,
    weights_from_bytes,
    weights_to_bytes,
)
from federation.specification import TrainSpec
from privacy.accounting.calibration import calibrate_noise_multiplier
from privacy.accounting.events import Event, RepeatedEvent
from privacy.randomness import Secret, SecretStream
from privacy.training.dp_sgd import DpSgdParameters, train
from privacy.training.unlabelled import HiddenShare

__all__ = [
    "TrainingPlan",
    "check_trained",
    "coordinate_train",
    "train_round",
    "training_plan",
]


@dataclass(frozen=True)
class TrainingPlan:
    """What one partner does in one round, and what it costs.

    Attributes:
        parameters: of the private optimiser, for one round.
        charge: privacy loss of one round, for a person in as many parties' tables as agreed.
    """

    parameters: DpSgdParameters
    charge: Event


def training_plan(
    spec: TrainSpec, agreement: Agreement, *, expected_rows: int, parties: int | None = None
) -> TrainingPlan:
    """Derive a round's optimiser and its charge from the job and the agreement alone.

    Args:
        spec: the job.
        agreement: clipping norm and largest number of tables a person may stand in.
        expected_rows: the partner's declared, public number of rows.
        parties: tables that one person may stand in, where it is not the agreement's number.

    Raises:
        InvalidParameterError: no noise reaches the asked ε.
    """
    terms, (epsilon, delta) = agreement.train, spec.promise
    compositions = parties or terms.max_parties_per_person
    parameters = DpSgdParameters(
        steps=spec.steps_per_round,
        sampling_probability=spec.sampling_probability,
        clipping_norm=terms.clipping_norm,
        noise_multiplier=calibrate_noise_multiplier(
            epsilon=epsilon,
            delta=delta,
            sampling_probability=spec.sampling_probability,
            steps=spec.steps_per_round * spec.rounds,
            compositions=compositions,
        ),
        learning_rate=spec.learning_rate,
        expected_rows=expected_rows,
        penalty=spec.penalty,
    )
    return TrainingPlan(parameters, RepeatedEvent(event=parameters.event, count=compositions))


def train_round(
    request: Message,
    plan: TrainingPlan,
    features: NDArray[np.float64],
    labels: NDArray[np.float64],
    secret: Secret,
    *,
    on_step: Callable[[int, int], None] | None = None,
) -> tuple[TrainUpdate, bytes]:
    """Step 2: train one round from the coordinator's weights.

    Args:
        request: the coordinator's `train.request`.
        plan: from `training_plan`.
        features: encoded rows, shape (n, width).
        labels: 1.0 for members, 0.0 for all others, shape (n,).
        secret: fresh, for this round alone.
        on_step: told (step, steps) now and then.

    Raises:
        MessageError: the weights do not fit the agreed columns, or the job has no such round.
    """
    body = expect(request, TrainRequest)
    if body.round > body.spec.rounds:
        raise MessageError(f"round {body.round} of a job of {body.spec.rounds} rounds")
    engine = gradient_engine(body.spec, features.shape[1])
    if body.width != engine.parameter_count:
        raise MessageError(
            f"training round with {body.width} weights; the agreed columns give "
            f"{engine.parameter_count}"
        )
    weights = train(
        engine,
        weights_from_bytes(request.payload, body.width),
        features,
        labels,
        plan.parameters,
        SecretStream(secret, f"train/round-{body.round}"),
        on_step=on_step,
    )
    return TrainUpdate(round=body.round, width=body.width), weights_to_bytes(weights)


def coordinate_train(
    agreement: Agreement, spec: TrainSpec, columns: Sequence[str]
) -> Generator[Exchange, Sequence[Message], JointModel]:
    """Steps 1, 3 and 4, at the coordinator.

    The partners' models are averaged with equal weights: weighting by rows would need counts that
    nobody has released. Each is private by itself: how many are averaged changes no promise.

    Yields:
        What to send next; resumed with the answers that came, in the same order.

    Raises:
        RefusedError: the model has more weights than a message carries.
    """
    quorum = Quorum(spec, agreement)
    weights, first = initial_weights(spec, agreement, len(columns)), None
    if (width := len(weights)) > MAX_WEIGHTS:
        (coordinator,) = agreement.by_role(Role.COORDINATOR)
        remedy = f"{width:,} weights, at most {MAX_WEIGHTS:,}: ask for fewer or narrower layers"
        raise RefusedError(party=coordinator.name, term="train.network", remedy=remedy)
    for number in range(1, spec.rounds + 1):
        request = TrainRequest(spec=spec, round=number, width=width)
        updates = yield quorum.say(request, weights_to_bytes(weights))  # 1
        quorum.hear(updates)
        weights = np.mean([_weights(update, number, width) for update in updates], axis=0)  # 3
        first = weights if first is None else first
    hidden = yield from coordinate_counting(  # 4
        spec, HiddenPlan.of(spec, agreement), quorum, weights
    )
    making = _making(agreement, spec, first if is_linear(spec) else None, quorum.missing, hidden)
    model = agreed_model(agreement, spec, trained_body(spec, columns, weights), making)
    yield from publish(agreement, spec, model, quorum.missing)  # 5
    return model


def check_trained(model: JointModel, agreement: Agreement, spec: TrainSpec) -> None:
    """Step 5: hold a published model against its job, trained with local noise.

    Raises:
        MessageError: it says anything else of its making than job and agreement do.
    """
    one_shot = model.making.one_shot
    hidden = model.making.hidden_share
    if hidden is not None and HiddenPlan.of(spec, agreement) is None:
        raise MessageError("published model of another making than announced")
    weights, missing = len(model.body.columns) if is_linear(spec) else 0, model.making.missing
    first = None if one_shot is None else np.asarray(one_shot)
    if (
        len(one_shot or ()) != weights
        or model.making != _making(agreement, spec, first, missing, hidden)
        or not is_quorum(model.making.parties, missing, spec, agreement)
    ):
        raise MessageError("published model of another making than announced")


def _making(
    agreement: Agreement,
    spec: TrainSpec,
    first: NDArray[np.float64] | None,
    missing: Sequence[str],
    hidden: HiddenShare | float | None,
) -> Making:
    plan = training_plan(spec, agreement, expected_rows=1)
    return Making(
        rounds=spec.rounds,
        noise_multiplier=plan.parameters.noise_multiplier,
        parties=tuple(name for name in partners_in_order(agreement) if name not in missing),
        missing=tuple(missing),
        one_shot=None if first is None else tuple(first.tolist()),
        hidden_share=hidden,
    )


def _weights(update: Message, number: int, width: int) -> NDArray[np.float64]:
    body = expect(update, TrainUpdate)
    if (body.round, body.width) != (number, width):
        raise MessageError(
            f"{update.header.sender} answered round {body.round} with {body.width} weights; "
            f"expected round {number} with {width}"
        )
    return weights_from_bytes(update.payload, width)
