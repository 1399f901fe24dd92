"""Train: one joint logistic-regression model, differentially private for every person.

```
coordinator                     partner
1  train.request (weights) ──►  2 DP-SGD on own rows: members positive, all others unlabelled
3  average                 ◄──    train.update (private weights)        … for every round
4  model.published         ──►  5 keep the model (the brand too)
```

Noise is added at each partner, in full: nobody needs to be trusted with anything that is not
private already. One person may stand in the tables of several partners; each partner's charge is
therefore that of `max_parties_per_person` such partners together, and ε holds for the person.

Guarantees: no I/O; the noise multiplier is derived here from (ε, δ), never taken from a message.

Leaves to others: gradients, noise and accounting (`privacy`), rows (`population`).
"""

import hashlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import rfc8785
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from compliance.agreement import Agreement
from compliance.terms import Role
from federation.errors import MessageError
from federation.jobs.exchange import Outgoing, Say, expect
from federation.messages import (
    Acknowledged,
    Message,
    ModelPublished,
    TrainRequest,
    TrainUpdate,
    weights_from_bytes,
    weights_to_bytes,
)
from federation.specification import TrainSpec
from privacy.accounting.calibration import calibrate_noise_multiplier
from privacy.accounting.events import Event, RepeatedEvent
from privacy.randomness import Secret, SecretStream
from privacy.training.dp_sgd import DpSgdParameters, LogisticGradient, train

__all__ = [
    "JointModel",
    "TrainingPlan",
    "coordinate_train",
    "parse_model",
    "train_round",
    "training_plan",
]

Weight = Annotated[float, Field(allow_inf_nan=False)]


class JointModel(BaseModel):
    """A published model: what it scores with, and what it cost.

    Attributes:
        agreement: digest of the agreement it was trained under.
        job: the training job.
        match: the match job whose members were the positives.
        columns: name of each encoded column.
        weights: one weight per encoded column.
        rounds: averagings.
        epsilon: privacy loss per person, over all parties and rounds.
        delta: its failure probability.
        noise_multiplier: of every gradient step at every party.
        parties: partners whose rows trained it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    agreement: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    job: str
    match: str
    columns: tuple[str, ...]
    weights: tuple[Weight, ...]
    rounds: int
    epsilon: float
    delta: float
    noise_multiplier: Weight
    parties: tuple[str, ...]

    @property
    def canonical_bytes(self) -> bytes:
        """The model as canonical JSON (RFC 8785)."""
        return rfc8785.dumps(self.model_dump(mode="json"))

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical bytes, in hex."""
        return hashlib.sha256(self.canonical_bytes).hexdigest()

    def score(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return one score per row of encoded `features`, shape (n, columns): larger is liker."""
        scores: NDArray[np.float64] = features @ np.asarray(self.weights)
        return scores


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
    terms = agreement.train
    compositions = parties or terms.max_parties_per_person
    parameters = DpSgdParameters(
        steps=spec.steps_per_round,
        sampling_probability=spec.sampling_probability,
        clipping_norm=terms.clipping_norm,
        noise_multiplier=calibrate_noise_multiplier(
            epsilon=spec.epsilon,
            delta=spec.delta,
            sampling_probability=spec.sampling_probability,
            steps=spec.steps_per_round * spec.rounds,
            compositions=compositions,
        ),
        learning_rate=spec.learning_rate,
        expected_rows=expected_rows,
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
    if body.width != features.shape[1]:
        raise MessageError(
            f"training round with {body.width} weights; the agreed columns give {features.shape[1]}"
        )
    weights = train(
        LogisticGradient(body.width),
        weights_from_bytes(request.payload, body.width),
        features,
        labels,
        plan.parameters,
        SecretStream(secret, f"train/round-{body.round}"),
        on_step=on_step,
    )
    return TrainUpdate(round=body.round, width=body.width), weights_to_bytes(weights)


def parse_model(message: Message, agreement: Agreement, columns: Sequence[str]) -> JointModel:
    """Step 5: read a published model.

    Raises:
        MessageError: it is malformed, or says anything else than its job, the agreement and the
            agreed columns do.
    """
    spec = expect(message, ModelPublished).spec
    try:
        model = JointModel.model_validate_json(message.payload)
    except ValidationError as error:
        raise MessageError(f"published model with {error.error_count()} mistakes") from error
    noise = training_plan(spec, agreement, expected_rows=1).parameters.noise_multiplier
    agreed = _joint_model(agreement, spec, columns, model.weights, noise)
    if model != agreed or len(model.weights) != len(columns):
        raise MessageError("published model of another job, agreement or columns than announced")
    return model


def _joint_model(
    agreement: Agreement,
    spec: TrainSpec,
    columns: Sequence[str],
    weights: tuple[float, ...],
    noise_multiplier: float,
) -> JointModel:
    """Say of a model what its job and the agreement say."""
    return JointModel(
        agreement=agreement.digest,
        job=spec.name,
        match=spec.match,
        columns=tuple(columns),
        weights=weights,
        rounds=spec.rounds,
        epsilon=spec.epsilon,
        delta=spec.delta,
        noise_multiplier=noise_multiplier,
        parties=tuple(party.name for party in agreement.by_role(Role.PARTNER)),
    )


def coordinate_train(
    agreement: Agreement, spec: TrainSpec, columns: Sequence[str]
) -> Generator[Sequence[Outgoing], Sequence[Message], JointModel]:
    """Steps 1, 3 and 4, at the coordinator.

    The partners' models are averaged with equal weights: weighting by rows would need counts that
    nobody has released.

    Yields:
        What to send next; resumed with the answers in the same order.
    """
    partners = [party.name for party in agreement.by_role(Role.PARTNER)]
    people = [*partners, *(party.name for party in agreement.by_role(Role.BRAND))]
    width = len(columns)
    weights = np.zeros(width)
    for number in range(1, spec.rounds + 1):
        request = TrainRequest(spec=spec, round=number, width=width)
        payload = weights_to_bytes(weights)
        updates = yield [Say(name, spec.name, request, payload) for name in partners]  # 1
        weights = np.mean([_weights(update, number, width) for update in updates], axis=0)  # 3
    plan = training_plan(spec, agreement, expected_rows=1)
    noise = plan.parameters.noise_multiplier
    model = _joint_model(agreement, spec, columns, tuple(weights.tolist()), noise)
    published = ModelPublished(spec=spec)
    answers = yield [Say(name, spec.name, published, model.canonical_bytes) for name in people]  # 4
    for answer in answers:
        expect(answer, Acknowledged)
    return model


def _weights(update: Message, number: int, width: int) -> NDArray[np.float64]:
    body = expect(update, TrainUpdate)
    if (body.round, body.width) != (number, width):
        raise MessageError(
            f"{update.header.sender} answered round {body.round} with {body.width} weights; "
            f"expected round {number} with {width}"
        )
    return weights_from_bytes(update.payload, width)
