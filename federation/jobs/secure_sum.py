"""One secure sum of a training: its plan, the same at all, and its course at the coordinator.

Guarantees: partners that were told another job, round or weights hold another plan, and no sum of
theirs is opened; no more partners are missing than the agreement lets.

Leaves to others: the cryptography (`privacy.secagg`), what is summed and when (`sums`), storing
states between messages (`federation.training`).
"""

import hashlib
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
from compliance.terms import NoiseSource, Role
from federation.errors import MessageError, PartyUnreachableError
from federation.jobs.exchange import Exchange, Say, Tolerant, expect
from federation.messages import Message, SumAsk, SumExact, SumNoised, SumPhase, SumSaid
from federation.specification import TrainSpec
from privacy import secagg
from privacy.errors import PeerMessageError
from privacy.secagg.messages import (
    Confirmation,
    KeyAdvertisement,
    MaskedVector,
    SealedShares,
    Unmasking,
)

__all__ = ["AgreedKeys", "SecureSum", "partners_of", "ring_of", "spare_partners", "sum_plan"]

_RING: Final = 64
Said = TypeVar("Said", KeyAdvertisement, SealedShares, MaskedVector, Confirmation, Unmasking)


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


class SecureSum:
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
