"""Train by secure sums: one joint logistic-regression model; nobody sees what a partner computed.

```
coordinator                         partner
1  sum.ask  advertise (weights) ─►  2 fresh keys                              sum.said
3  sum.ask  share               ─►  4 shares of its secrets, for the others   sum.said
5  sum.ask  mask                ─►  6 its part of the sum, noised and masked  sum.noised
                                                           or exact and masked  sum.exact
7  sum.ask  confirm             ─►  8 signs who is in the sum                 sum.said
9  sum.ask  unmask              ─►  10 gives away what unmasks the sum alone  sum.said
11 one step of the model on the sum                                  … for every round
12 model.published              ─►  13 keep the model (the brand too)
```

Partners that cannot be reached drop out, as many as the threshold leaves, and stay out; none does
where no noise is added.

Guarantees: no I/O; everything about noise, thresholds and prices is derived here from the job and
the agreement, never taken from a message.

Leaves to others: the secure sum (`privacy.secagg`), gradients, steps and noise
(`privacy.training`), storing states between messages (`federation.training`).
"""

import hashlib
import math
import warnings
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeVar

import numpy as np
import rfc8785
from numpy.typing import NDArray

from compliance.agreement import Agreement
from compliance.errors import SignatureError
from compliance.signing import VerifyingKey
from compliance.terms import ModelFamily, NoiseSource, Role
from federation.errors import MessageError, PartyUnreachableError, RefusedError
from federation.jobs.bodies import LinearBody, ModelBody
from federation.jobs.exchange import Exchange, Say, Tolerant, expect
from federation.jobs.model import JointModel, Making, agreed_model, publish
from federation.jobs.standing import Standing, Sums
from federation.jobs.tree_sums import tree_sums_for
from federation.messages import (
    Message,
    SumAsk,
    SumExact,
    SumNoised,
    SumPhase,
    SumSaid,
    weights_to_bytes,
)
from federation.specification import TrainSpec
from privacy import secagg
from privacy.accounting.events import ComposedEvent, Event
from privacy.accounting.ledger import Budget
from privacy.errors import InvalidParameterError, PeerMessageError, PrivacyError
from privacy.randomness import SecretStream
from privacy.secagg.messages import (
    Confirmation,
    KeyAdvertisement,
    MaskedVector,
    SealedShares,
    Unmasking,
)
from privacy.training.distributed import (
    DescentState,
    DistributedPlan,
    party_contribution,
    plan_distributed,
    server_step,
    start_descent,
)
from privacy.training.integer_sums import FRACTION_BITS
from privacy.training.newton import (
    ExactPlan,
    NewtonState,
    UnsafeExactSumsWarning,
    averaging_contribution,
    newton_contribution,
    newton_step,
    start_from_average,
    unsafe_exact_plan,
)

__all__ = [
    "AgreedKeys",
    "ExactSums",
    "NoisedSums",
    "Standing",
    "Sums",
    "check_summed",
    "coordinate_sums",
    "partners_of",
    "ring_of",
    "spare_partners",
    "sum_plan",
    "sums_for",
    "whole_charge",
]

_RING: Final = 64
_LARGEST_CLIP = 0.5  # of the norm of a row, which is 1 at most: see `plan_distributed`

Said = TypeVar("Said", KeyAdvertisement, SealedShares, MaskedVector, Confirmation, Unmasking)


@dataclass(frozen=True)
class NoisedSums:
    """Sums whose noise the partners share."""

    plan: DistributedPlan

    @property
    def noise_multiplier(self) -> float:
        """See `Sums`."""
        charge = self.plan.gradient.charge()
        return charge.noise_scale * math.sqrt(charge.honest_parties) / charge.l2_sensitivity

    @property
    def gradient_noise(self) -> float:
        """See `Sums`."""
        noise, parties = self.plan.gradient, len(self.plan.declared_rows)
        return noise.noise_scale * math.sqrt(parties) * 2.0 ** (noise.shift - 2 * FRACTION_BITS)

    def asked_length(self, number: int) -> int:  # noqa: ARG002 -- all ask alike
        """See `Sums`."""
        return self.plan.width

    def length(self, number: int) -> int:
        """See `Sums`."""
        return self.plan.length(number)

    def charge(self, number: int) -> Event:
        """See `Sums`."""
        return self.plan.charge(number)

    def contribution(
        self,
        number: int,
        party: int,
        weights: NDArray[np.float64],
        features: NDArray[np.float64],
        labels: NDArray[np.float64],
        stream: SecretStream,
    ) -> NDArray[np.int64]:
        """See `Sums`."""
        return party_contribution(
            weights, features, labels, self.plan, stream, party=party, round_number=number
        )

    def start(self) -> Standing:
        """See `Sums`."""
        return self._standing(start_descent(self.plan))

    def body(self, standing: Standing, columns: Sequence[str]) -> LinearBody:
        """See `Sums`."""
        return LinearBody(columns=tuple(columns), weights=tuple(standing.model.tolist()))

    def fits(self, body: ModelBody, rounds: int) -> bool:  # noqa: ARG002 -- all leave alike
        """See `Sums`."""
        return isinstance(body, LinearBody) and len(body.weights) == self.plan.width

    def step(
        self, total: NDArray[np.int64], standing: Standing, parties: Sequence[int]
    ) -> Standing:
        """See `Sums`."""
        state = standing.state
        if not isinstance(state, DescentState):
            raise TypeError("a standing of another training")
        return self._standing(server_step(total, state, self.plan, parties))

    def _standing(self, state: DescentState) -> Standing:
        finished = state.round_number > self.plan.rounds
        return Standing(state.weights, state.model, None, finished, state)


@dataclass(frozen=True)
class ExactSums:
    """Sums without noise, which protect no person: averaging once, then Newton's method.

    All are over all partners: the difference of two that are not would be one partner's own part.
    """

    plan: ExactPlan
    noise_multiplier: float = 0.0
    gradient_noise: float = 0.0

    def asked_length(self, number: int) -> int:  # noqa: ARG002 -- all ask alike
        """See `Sums`."""
        return self.plan.width

    def length(self, number: int) -> int:
        """See `Sums`."""
        return self.plan.width if number == 1 else self.plan.length

    def charge(self, number: int) -> None:
        """See `Sums`."""

    def contribution(
        self,
        number: int,
        party: int,  # noqa: ARG002 -- all do the same
        weights: NDArray[np.float64],
        features: NDArray[np.float64],
        labels: NDArray[np.float64],
        stream: SecretStream,  # noqa: ARG002 -- there is no noise
    ) -> NDArray[np.int64]:
        """See `Sums`."""
        if number == 1:
            return averaging_contribution(self.plan, features, labels)
        return newton_contribution(weights, features, labels, self.plan)

    def start(self) -> Standing:
        """See `Sums`."""
        nothing = np.zeros(self.plan.width)
        return Standing(nothing, nothing, None, finished=False, state=None)

    def body(self, standing: Standing, columns: Sequence[str]) -> LinearBody:
        """See `Sums`."""
        return LinearBody(columns=tuple(columns), weights=tuple(standing.model.tolist()))

    def fits(self, body: ModelBody, rounds: int) -> bool:  # noqa: ARG002 -- all leave alike
        """See `Sums`."""
        return isinstance(body, LinearBody) and len(body.weights) == self.plan.width

    def step(
        self, total: NDArray[np.int64], standing: Standing, parties: Sequence[int]
    ) -> Standing:
        """See `Sums`."""
        if isinstance(standing.state, NewtonState):
            state = newton_step(total, standing.state, self.plan)
        else:
            state = start_from_average(total, self.plan, contributors=len(parties))
        return Standing(
            weights=state.weights,
            model=state.weights,
            one_shot=state.one_shot,
            finished=state.finished,
            state=state,
        )


@dataclass(frozen=True)
class AgreedKeys:
    """Whose signing key is whose, by the agreement."""

    agreement: Agreement

    @cached_property
    def _keys(self) -> dict[str, VerifyingKey]:
        return {
            party.name: VerifyingKey.from_base64(party.identity_key)
            for party in self.agreement.parties
        }

    def verify(self, party: str, signature: bytes, message: bytes) -> None:
        """Return only if `signature` is that party's over `message`.

        Raises:
            PeerMessageError: in every other case.
        """
        if party not in self._keys:
            raise PeerMessageError(f"a signature of {party}, who is no party of the agreement")
        try:
            self._keys[party].verify(signature, message)
        except SignatureError as error:
            raise PeerMessageError(f"{party}: {error}") from error


def partners_of(agreement: Agreement) -> tuple[str, ...]:
    """Return the partners in the order of their names."""
    return tuple(sorted(party.name for party in agreement.by_role(Role.PARTNER)))


def spare_partners(spec: TrainSpec, agreement: Agreement) -> int:
    """Return how many partners a training can do without."""
    return agreement.train.absent_in_sums(spec.noise)


def sums_for(spec: TrainSpec, agreement: Agreement, *, width: int) -> Sums:
    """Derive how to train from the job and the agreement alone.

    Args:
        spec: a job whose noise is not local.
        agreement: the partners, their declared rows, and the terms of training.
        width: encoded columns.

    Raises:
        InvalidParameterError: no noise keeps the promise.
    """
    terms = agreement.train
    rows = [agreement.dataset(name).declared_rows for name in partners_of(agreement)]
    if spec.model is ModelFamily.BOOSTED_TREES:
        return tree_sums_for(spec, agreement, rows)
    if spec.noise is NoiseSource.UNSAFE_NONE:
        with warnings.catch_warnings():  # the job and the agreement name the danger themselves
            warnings.simplefilter("ignore", UnsafeExactSumsWarning)
            return ExactSums(unsafe_exact_plan(width=width, declared_rows=rows))
    epsilon, delta = spec.promise
    return NoisedSums(
        plan_distributed(
            width=width,
            declared_rows=rows,
            colluding=terms.colluding_partners,
            dropouts=terms.absent_partners,
            budget=Budget(epsilon=epsilon, delta=delta),
            max_parties_per_person=terms.max_parties_per_person,
            rounds=spec.rounds,
            clipping_norm=min(terms.clipping_norm, _LARGEST_CLIP),
        )
    )


def whole_charge(sums: Sums, spec: TrainSpec) -> Event | None:
    """Return what all rounds of a job cost a person; None where they promise nothing."""
    charges = [sums.charge(number) for number in range(1, spec.rounds + 1)]
    known = tuple(charge for charge in charges if charge is not None)
    return ComposedEvent(events=known) if known else None


def sum_plan(
    spec: TrainSpec, agreement: Agreement, number: int, *, length: int, weights: bytes
) -> secagg.Plan:
    """Return the plan of a round's secure sum.

    Partners that were told another job, or other weights, hold another plan: they refuse each
    other's keys, and no sum is opened. So a coordinator cannot have some of them add less noise
    than others count on, or ask one of them at other weights to single it out.

    No more partners may be missing than agreed, so that noise is missing of no more than those and
    the colluding ones.
    """
    partners, terms = partners_of(agreement), agreement.train
    named: dict[str, str | int] = {
        "agreement": agreement.digest,
        "job": hashlib.sha256(rfc8785.dumps(spec.model_dump(mode="json"))).hexdigest(),
        "round": number,
        "weights": hashlib.sha256(weights).hexdigest(),
    }
    return secagg.Plan(
        context=hashlib.sha256(rfc8785.dumps({**named})).hexdigest(),
        parties=partners,
        threshold=len(partners) - spare_partners(spec, agreement),
        colluding=terms.colluding_in_sums(len(partners), spec.noise),
        ring_bits=_RING,
        length=length,
    )


def ring_of(plan: secagg.Plan) -> secagg.FixedPoint:
    """Return how whole numbers are written for a sum."""
    return secagg.FixedPoint(ring_bits=_RING, parties=len(plan.parties), fraction_bits=0)


def coordinate_sums(
    agreement: Agreement, spec: TrainSpec, columns: Sequence[str]
) -> Generator[Exchange, Sequence[Message], JointModel]:
    """Steps 1 to 12, at the coordinator.

    Yields:
        What to send next; resumed with the answers that came, in the same order.
    """
    try:
        sums = sums_for(spec, agreement, width=len(columns))
    except InvalidParameterError as error:
        (coordinator,) = agreement.by_role(Role.COORDINATOR)
        raise RefusedError(
            party=coordinator.name, term="train.epsilon", remedy=str(error)
        ) from error
    partners = partners_of(agreement)
    standing, present, number = sums.start(), partners, 0
    while number < spec.rounds and not standing.finished:
        number += 1
        weights = weights_to_bytes(standing.weights)
        one = _Sum(agreement, spec, number, length=sums.length(number), weights=weights)
        try:
            total, summed, present = yield from one.run(present)
            standing = sums.step(total, standing, [partners.index(name) for name in summed])  # 11
        except PrivacyError as error:
            raise MessageError(f"secure sum {number} of job {spec.name!r}: {error}") from error
    missing = tuple(name for name in partners if name not in present)
    making = Making(
        rounds=number,
        noise_multiplier=sums.noise_multiplier,
        parties=present,
        missing=missing,
        one_shot=None if standing.one_shot is None else tuple(standing.one_shot.tolist()),
    )
    model = agreed_model(agreement, spec, sums.body(standing, columns), making)
    yield from publish(agreement, spec, model, missing)  # 12
    return model


def check_summed(model: JointModel, agreement: Agreement, spec: TrainSpec) -> None:
    """Step 13: hold a published model against its job, trained by secure sums.

    Raises:
        MessageError: it says anything else of its making than job and agreement do.
    """
    sums = sums_for(spec, agreement, width=len(model.body.columns))
    making, partners = model.making, partners_of(agreement)
    plan = sum_plan(spec, agreement, making.rounds, length=1, weights=b"")
    exact = spec.noise is NoiseSource.UNSAFE_NONE
    averaged = exact and spec.model is ModelFamily.LOGISTIC_REGRESSION
    named = tuple(name for name in partners if name in making.parties)
    if (
        making.parties != named
        or making.missing != tuple(name for name in partners if name not in named)
        or len(named) < plan.threshold
        or making.noise_multiplier != sums.noise_multiplier
        or (making.rounds > spec.rounds if exact else making.rounds != spec.rounds)
        or (making.one_shot is not None) is not averaged
        or not sums.fits(model.body, making.rounds)
        or (making.one_shot is not None and len(making.one_shot) != len(model.body.columns))
    ):
        raise MessageError("published model of another making than announced")


class _Sum:
    """One secure sum, at the coordinator."""

    def __init__(
        self, agreement: Agreement, spec: TrainSpec, number: int, *, length: int, weights: bytes
    ) -> None:
        self._spec = spec
        self._number = number
        self._weights = weights
        self._plan = sum_plan(spec, agreement, number, length=length, weights=weights)
        self._server = secagg.Server(self._plan, AgreedKeys(agreement))

    def run(
        self, present: tuple[str, ...]
    ) -> Generator[
        Exchange, Sequence[Message], tuple[NDArray[np.int64], tuple[str, ...], tuple[str, ...]]
    ]:
        """Sum what the partners that are present contribute.

        Returns:
            The sum, who is in it, and who answered to the end.
        """
        server = self._server
        state: secagg.ServerState = server.open()
        heard = yield self._ask(SumPhase.ADVERTISE, dict.fromkeys(present, self._weights))  # 1
        for message in heard:
            state = server.take_keys(state, self._said(message, KeyAdvertisement))
        state, roster = server.close_keys(state)
        payload = roster.to_json()
        heard = yield self._ask(SumPhase.SHARE, {_sender(one): payload for one in heard})  # 3
        for message in heard:
            state = server.take_shares(state, self._said(message, SealedShares))
        state, deliveries = server.close_shares(state)
        heard = yield self._ask(  # 5
            SumPhase.MASK, {one.recipient: one.to_json() for one in deliveries}
        )
        for message in heard:
            state = server.take_vector(state, self._said(message, MaskedVector))
        state, survivors = server.close_vectors(state)
        payload = survivors.to_json()
        heard = yield self._ask(SumPhase.CONFIRM, dict.fromkeys(survivors.parties, payload))  # 7
        for message in heard:
            state = server.take_confirmation(state, self._said(message, Confirmation))
        state, confirmations = server.close_confirmations(state)
        payload = confirmations.to_json()
        heard = yield self._ask(SumPhase.UNMASK, {_sender(one): payload for one in heard})  # 9
        for message in heard:
            state = server.take_unmasking(state, self._said(message, Unmasking))
        summed = server.close(state)
        total = ring_of(self._plan).integers(summed.total)
        return total, summed.parties, tuple(sorted(_sender(one) for one in heard))

    def _ask(self, phase: SumPhase, payloads: dict[str, bytes]) -> Tolerant:
        """Ask partners; as many may be missing as leaves the threshold.

        Raises:
            PartyUnreachableError: too few are left.
        """
        spare = len(payloads) - self._plan.threshold
        if spare < 0:
            raise PartyUnreachableError(
                f"{len(payloads)} partners are left for the sum of job {self._spec.name!r}, of "
                f"{self._plan.threshold} that it takes: run it under another name when they are "
                "back"
            )
        body = SumAsk(spec=self._spec, round=self._number, phase=phase)
        said = [Say(name, self._spec.name, body, payload) for name, payload in payloads.items()]
        return Tolerant(said, spare)

    def _said(self, message: Message, kind: type[Said]) -> Said:
        """Read what a partner said for itself.

        Raises:
            RefusedError, MessageError: it said something else, or in another's name.
        """
        number = self._round_of(message, masked=kind is MaskedVector)
        sender = _sender(message)
        if number != self._number:
            raise MessageError(f"{sender} answered round {number}; expected {self._number}")
        try:
            said = kind.from_json(message.payload, self._plan)
        except PeerMessageError as error:
            raise MessageError(f"{sender}: {error}") from error
        if said.sender != sender:
            raise MessageError(f"{sender} spoke in the name of {said.sender}")
        return said

    def _round_of(self, message: Message, *, masked: bool) -> int:
        if not masked:
            return expect(message, SumSaid).round
        if self._spec.noise is NoiseSource.UNSAFE_NONE:
            return expect(message, SumExact).round
        return expect(message, SumNoised).round


def _sender(message: Message) -> str:
    return message.header.sender
