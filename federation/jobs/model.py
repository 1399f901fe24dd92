"""The joint model that a training job leaves, however it was trained.

Guarantees: closed and finite; what it says of its making is what its job and the agreement say, so
that whoever knows these can hold it against them (`agreed_model`).

Leaves to others: training it (`train`, `sums`).
"""

import hashlib
from collections.abc import Generator, Sequence
from typing import Annotated, Literal

import numpy as np
import rfc8785
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from compliance.agreement import Agreement
from compliance.canonical import is_unsaid
from compliance.terms import NoiseSource, Role
from federation.errors import MessageError
from federation.jobs.bodies import ModelBody, Weight
from federation.jobs.exchange import Exchange, Say, Tolerant, expect
from federation.messages import Acknowledged, Message, ModelPublished
from federation.specification import TrainSpec
from privacy.training.unlabelled import HiddenShare

__all__ = ["JointModel", "Making", "agreed_model", "publish", "read_model"]


class Making(BaseModel):
    """What of a model's making is decided while it is trained.

    Attributes:
        rounds: averagings, or secure sums.
        noise_multiplier: standard deviation of the noise on a gradient, divided by what one person
            changes in it; 0 without noise.
        parties: partners whose rows are in every round, and that answered to the end.
        missing: all other partners: the model is not of their people, or not of all rounds.
        one_shot: weights of the mean of the partners' linear models after the first round; None
            where it was not free.
        hidden_share: estimated share of positives among people who are no seeds, with its standard
            error, made of noised counts; the share alone in a model of an earlier version; None
            where it was not asked for, or noise left nothing to say.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rounds: Annotated[int, Field(ge=1)]
    noise_multiplier: Weight
    parties: tuple[str, ...]
    missing: tuple[str, ...] = Field(default=(), exclude_if=is_unsaid)
    one_shot: tuple[Weight, ...] | None = None
    hidden_share: HiddenShare | Annotated[float, Field(ge=0, le=1)] | None = None


class JointModel(BaseModel):
    """A published model: what it scores with, and what it cost.

    Attributes:
        agreement: digest of the agreement it was trained under.
        job: the training job.
        match: the match job whose members were the positives.
        body: what it scores with.
        noise: who added the noise.
        epsilon: privacy loss per person, over all parties and rounds; None without noise.
        delta: its failure probability, likewise.
        making: what was decided while it was trained.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    agreement: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    job: str
    match: str
    body: ModelBody
    noise: NoiseSource
    epsilon: float | None
    delta: float | None
    making: Making

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
        return self.body.score(features)


def agreed_model(
    agreement: Agreement, spec: TrainSpec, body: ModelBody, making: Making
) -> JointModel:
    """Say of a model what its job and the agreement say."""
    return JointModel(
        agreement=agreement.digest,
        job=spec.name,
        match=spec.match,
        body=body,
        noise=spec.noise,
        epsilon=spec.epsilon,
        delta=spec.delta,
        making=making,
    )


def publish(
    agreement: Agreement, spec: TrainSpec, model: JointModel, missing: Sequence[str] = ()
) -> Generator[Exchange, Sequence[Message], None]:
    """Give a model to everybody who may have it and is there.

    Whoever dropped out or cannot be reached holds nobody up: it gets the model later, by the same
    message (`coordinator`).
    """
    people = [
        party.name
        for role in (Role.PARTNER, Role.BRAND)
        for party in agreement.by_role(role)
        if party.name not in missing
    ]
    published = ModelPublished(spec=spec)
    said = [Say(name, spec.name, published, model.canonical_bytes) for name in people]
    answers = yield Tolerant(said, len(said))
    for answer in answers:
        expect(answer, Acknowledged)


def read_model(message: Message) -> JointModel:
    """Read a published model, whose making is still to be held against its job.

    Raises:
        MessageError: it is malformed.
    """
    expect(message, ModelPublished)
    try:
        return JointModel.model_validate_json(message.payload)
    except ValidationError as error:
        raise MessageError(f"published model with {error.error_count()} mistakes") from error
