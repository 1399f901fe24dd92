"""The server's side of a secure aggregation: it relays, adds up, and learns the sum.

Guarantees: no I/O; a state is frozen and can be stored between two messages. In each round one
message of each party counts: `take_…` checks it on arrival, and a refused one leaves the state as
it was; `close_…` ends the round with those that came, and says what all are told. What comes out is
the sum of the survivors' inputs, or an error: secrets that were put together are held against what
their owners advertised.

Leaves to others: how long a round waits; that a message comes from the party it names; what the
inputs are. A party that lies in its masked vector spoils the sum unnoticed.

Source: Bonawitz et al., CCS 2017, figure 4.
"""

# Rounds as in figure 4; see `client` for the other side.
#
#   0  open, take_keys, close_keys                        -> KeyRoster to all of U1
#   1  take_shares, close_shares                          -> ShareDelivery to each of U2
#   2  take_vector, close_vectors                         -> Survivors to all of U3
#   3  take_confirmation, close_confirmations             -> Confirmations to all of U4
#   4  take_unmasking, close                              -> the sum

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from privacy.errors import InvalidParameterError, PeerMessageError
from privacy.randomness import Secret
from privacy.secagg import keys
from privacy.secagg.keys import Verifier
from privacy.secagg.messages import (
    Confirmation,
    Confirmations,
    KeyAdvertisement,
    KeyRoster,
    MaskedVector,
    SealedShare,
    SealedShares,
    ShareDelivery,
    ShareKind,
    Survivors,
    Unmasking,
)
from privacy.secagg.plan import Digest, PartyName, Plan
from privacy.secagg.roster import (
    Roster,
    check_advertisement,
    check_aggregation,
    check_enough,
)
from privacy.secagg.shamir import combine_shares, interpolation_weights, read_share

__all__ = [
    "Aggregate",
    "AwaitingConfirmations",
    "AwaitingKeys",
    "AwaitingShares",
    "AwaitingUnmaskings",
    "AwaitingVectors",
    "Server",
    "ServerState",
    "read_server_state",
]


class _State(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        ser_json_bytes="base64",
        val_json_bytes="base64",
        hide_input_in_errors=True,
    )

    aggregation: Digest


class AwaitingKeys(_State):
    """Round 0: the keys that came."""

    kind: Literal["awaiting-keys"] = "awaiting-keys"
    heard: tuple[KeyAdvertisement, ...] = ()


class AwaitingShares(_State):
    """Round 1: the sealed shares that came."""

    kind: Literal["awaiting-shares"] = "awaiting-shares"
    roster: KeyRoster
    heard: tuple[SealedShares, ...] = ()


class AwaitingVectors(_State):
    """Round 2: who shared (U2), whose vectors came, and their sum so far."""

    kind: Literal["awaiting-vectors"] = "awaiting-vectors"
    roster: KeyRoster
    sharers: tuple[PartyName, ...]
    senders: tuple[PartyName, ...] = ()
    total: bytes = Field(repr=False)


class AwaitingConfirmations(_State):
    """Round 3: who survived (U3), the masked sum, and the confirmations that came."""

    kind: Literal["awaiting-confirmations"] = "awaiting-confirmations"
    roster: KeyRoster
    sharers: tuple[PartyName, ...]
    survivors: tuple[PartyName, ...]
    total: bytes = Field(repr=False)
    heard: tuple[Confirmation, ...] = ()


class AwaitingUnmaskings(_State):
    """Round 4: the shares that came."""

    kind: Literal["awaiting-unmaskings"] = "awaiting-unmaskings"
    roster: KeyRoster
    sharers: tuple[PartyName, ...]
    survivors: tuple[PartyName, ...]
    total: bytes = Field(repr=False)
    confirmed: tuple[PartyName, ...]
    heard: tuple[Unmasking, ...] = Field(default=(), repr=False)


ServerState = Annotated[
    AwaitingKeys | AwaitingShares | AwaitingVectors | AwaitingConfirmations | AwaitingUnmaskings,
    Field(discriminator="kind"),
]
"""What the server remembers between two messages."""

_STATE: TypeAdapter[ServerState] = TypeAdapter(ServerState)
_Phase = TypeVar("_Phase", bound=_State)


def read_server_state(data: bytes) -> ServerState:
    """Read a state that `model_dump_json` wrote.

    Raises:
        InvalidParameterError: it is damaged.
    """
    try:
        return _STATE.validate_json(data)
    except ValidationError as error:
        raise InvalidParameterError(
            "a stored state of a secure aggregation that cannot be read: begin another one"
        ) from error


@dataclass(frozen=True)
class Aggregate:
    """What the server learns.

    Attributes:
        parties: whose inputs are in the sum, ascending.
        total: their sum modulo the ring, shape (length,).
    """

    parties: tuple[str, ...]
    total: "NDArray[np.unsignedinteger[Any]]"


@dataclass(frozen=True)
class Server:
    """The server of one aggregation.

    Attributes:
        plan: what all parties know.
        verifier: whose signing key is whose.
    """

    plan: Plan
    verifier: Verifier

    def open(self) -> AwaitingKeys:
        """Begin."""
        return AwaitingKeys(aggregation=self.plan.digest)

    def take_keys(self, state: ServerState, message: KeyAdvertisement) -> AwaitingKeys:
        """Round 0: take a party's keys.

        Raises:
            PeerMessageError: it is out of turn, the party's second, or not signed by it.
        """
        state = self._in_turn(state, AwaitingKeys)
        check_advertisement(message, self.plan, self.verifier)
        _check_first(message.sender, (one.sender for one in state.heard))
        return state.model_copy(update={"heard": (*state.heard, message)})

    def close_keys(self, state: ServerState) -> tuple[AwaitingShares, KeyRoster]:
        """Round 0 ends: tell all who is there (U1).

        Raises:
            MissingPartiesError: there are fewer than the threshold.
        """
        state = self._in_turn(state, AwaitingKeys)
        self._check_enough(state.heard, "advertised keys")
        roster = KeyRoster(
            aggregation=self.plan.digest,
            advertisements=tuple(sorted(state.heard, key=lambda one: one.sender)),
        )
        return AwaitingShares(aggregation=self.plan.digest, roster=roster), roster

    def take_shares(self, state: ServerState, message: SealedShares) -> AwaitingShares:
        """Round 1: take what a party sealed for its neighbours.

        Raises:
            PeerMessageError: it is out of turn, of another aggregation, the party's second, or not
                for its neighbours.
        """
        state = self._in_turn(state, AwaitingShares)
        check_aggregation(message.aggregation, self.plan)
        roster = Roster.of(state.roster, self.plan)
        _check_among(message.sender, roster.parties, "advertised keys")
        _check_first(message.sender, (one.sender for one in state.heard))
        if tuple(one.party for one in message.shares) != roster.neighbours(message.sender):
            raise PeerMessageError(f"{message.sender} sealed shares for others than its neighbours")
        return state.model_copy(update={"heard": (*state.heard, message)})

    def close_shares(self, state: ServerState) -> tuple[AwaitingVectors, tuple[ShareDelivery, ...]]:
        """Round 1 ends: bring everybody who shared (U2) what its neighbours sealed for it.

        Raises:
            MissingPartiesError: there are fewer than the threshold.
        """
        state = self._in_turn(state, AwaitingShares)
        self._check_enough(state.heard, "shared their secrets")
        heard = sorted(state.heard, key=lambda one: one.sender)
        brought: dict[str, list[SealedShare]] = {one.sender: [] for one in heard}
        for one in heard:
            for share in one.shares:
                if share.party in brought:
                    brought[share.party].append(SealedShare(party=one.sender, sealed=share.sealed))
        deliveries = tuple(
            ShareDelivery(aggregation=self.plan.digest, recipient=party, shares=tuple(shares))
            for party, shares in brought.items()
        )
        new = AwaitingVectors(
            aggregation=self.plan.digest,
            roster=state.roster,
            sharers=tuple(brought),
            total=bytes(self.plan.vector_bytes),
        )
        return new, deliveries

    def take_vector(self, state: ServerState, message: MaskedVector) -> AwaitingVectors:
        """Round 2: add a masked vector.

        Raises:
            PeerMessageError: it is out of turn, of another aggregation, the party's second, or of
                another length.
        """
        state = self._in_turn(state, AwaitingVectors)
        check_aggregation(message.aggregation, self.plan)
        _check_among(message.sender, state.sharers, "shared their secrets")
        _check_first(message.sender, state.senders)
        if len(message.vector) != self.plan.vector_bytes:
            raise PeerMessageError(
                f"expected a masked vector of {self.plan.vector_bytes} bytes from "
                f"{message.sender}, got {len(message.vector)}"
            )
        total = self._vector(state.total) + self._vector(message.vector)
        senders = tuple(sorted((*state.senders, message.sender)))
        return state.model_copy(update={"total": total.tobytes(), "senders": senders})

    def close_vectors(self, state: ServerState) -> tuple[AwaitingConfirmations, Survivors]:
        """Round 2 ends: tell all who survived (U3).

        Raises:
            MissingPartiesError: there are fewer than the threshold.
        """
        state = self._in_turn(state, AwaitingVectors)
        self._check_enough(state.senders, "sent a masked vector")
        new = AwaitingConfirmations(
            aggregation=self.plan.digest,
            roster=state.roster,
            sharers=state.sharers,
            survivors=state.senders,
            total=state.total,
        )
        return new, Survivors(aggregation=self.plan.digest, parties=state.senders)

    def take_confirmation(self, state: ServerState, message: Confirmation) -> AwaitingConfirmations:
        """Round 3: take a survivor's signature.

        Raises:
            PeerMessageError: it is out of turn, of another aggregation, the party's second, or not
                its signature over these survivors.
        """
        state = self._in_turn(state, AwaitingConfirmations)
        check_aggregation(message.aggregation, self.plan)
        _check_among(message.sender, state.survivors, "survived")
        _check_first(message.sender, (one.sender for one in state.heard))
        roster = keys.roster_digest(state.roster.advertisements)
        signed = keys.signed_survivors(self.plan.digest, roster, state.survivors)
        self.verifier.verify(message.sender, message.signature, signed)
        return state.model_copy(update={"heard": (*state.heard, message)})

    def close_confirmations(self, state: ServerState) -> tuple[AwaitingUnmaskings, Confirmations]:
        """Round 3 ends: show all who confirmed (U4) each other's signatures.

        Raises:
            MissingPartiesError: there are fewer than the threshold.
        """
        state = self._in_turn(state, AwaitingConfirmations)
        self._check_enough(state.heard, "confirmed who survived")
        heard = tuple(sorted(state.heard, key=lambda one: one.sender))
        new = AwaitingUnmaskings(
            aggregation=self.plan.digest,
            roster=state.roster,
            sharers=state.sharers,
            survivors=state.survivors,
            total=state.total,
            confirmed=tuple(one.sender for one in heard),
        )
        return new, Confirmations(aggregation=self.plan.digest, confirmations=heard)

    def take_unmasking(self, state: ServerState, message: Unmasking) -> AwaitingUnmaskings:
        """Round 4: take a party's shares.

        Raises:
            PeerMessageError: it is out of turn, of another aggregation, the party's second, or has
                other shares than those asked for.
        """
        state = self._in_turn(state, AwaitingUnmaskings)
        check_aggregation(message.aggregation, self.plan)
        _check_among(message.sender, state.confirmed, "confirmed who survived")
        _check_first(message.sender, (one.sender for one in state.heard))
        roster = Roster.of(state.roster, self.plan)
        near = {message.sender, *roster.neighbours(message.sender)} & set(state.sharers)
        expected = tuple((owner, _kind(owner, state.survivors)) for owner in sorted(near))
        if tuple((one.owner, one.kind) for one in message.shares) != expected:
            raise PeerMessageError(f"{message.sender} revealed other shares than those asked for")
        for one in message.shares:
            read_share(one.share)
        return state.model_copy(update={"heard": (*state.heard, message)})

    def close(self, state: ServerState) -> Aggregate:
        """Round 4 ends: put the survivors' seeds and the others' mask keys together, and unmask.

        Raises:
            MissingPartiesError: fewer parties than the threshold revealed shares, or fewer of one
                party's neighbours than it takes.
            PeerMessageError: shares do not fit what their owner advertised.
        """
        state = self._in_turn(state, AwaitingUnmaskings)
        self._check_enough(state.heard, "revealed shares")
        roster = Roster.of(state.roster, self.plan)
        shares = _by_owner(state.heard, roster)
        total = self._vector(state.total).copy()
        survivors = frozenset(state.survivors)
        for party in state.sharers:
            advertised, revealed = roster.keys[party], shares.get(party, {})
            masked = [one for one in roster.neighbours(party) if one in survivors]
            if party in survivors:
                own = self._put_together(party, revealed)
                _check_fit(party, keys.commitment(own), advertised.mask_commitment)
                keys.add_mask(total, keys.own_mask(own), negative=True)
            elif masked:
                private = keys.private_key(self._put_together(party, revealed))
                _check_fit(party, keys.public_bytes(private), advertised.mask_key)
                for one in masked:
                    shared = keys.agree(private, roster.keys[one].mask_key)
                    mask = keys.common_mask(shared, roster.digest, party, one)
                    keys.add_mask(total, mask, negative=one < party)
        return Aggregate(state.survivors, total)

    def _put_together(self, party: str, revealed: Mapping[int, int]) -> Secret:
        """Give a party's secret back from the shares at their places."""
        needed = self.plan.share_threshold
        check_enough(len(revealed), needed, self.plan, f"revealed a share of {party}'s secret")
        places = tuple(sorted(revealed)[:needed])
        return combine_shares([revealed[place] for place in places], _weights(places))

    def _vector(self, data: bytes) -> "NDArray[np.unsignedinteger[Any]]":
        return np.frombuffer(data, dtype=self.plan.entry)

    def _check_enough(self, heard: tuple[object, ...], what: str) -> None:
        check_enough(len(heard), self.plan.threshold, self.plan, what)

    def _in_turn(self, state: ServerState, expected: type[_Phase]) -> _Phase:
        check_aggregation(state.aggregation, self.plan)
        if not isinstance(state, expected):
            raise PeerMessageError(
                f"message out of turn: the server is {_spelt(type(state))}, the message is for "
                f"when it is {_spelt(expected)}"
            )
        return state


def _by_owner(unmaskings: Iterable[Unmasking], roster: Roster) -> dict[str, dict[int, int]]:
    """Return the revealed shares of each owner's secret, by their places."""
    shares: dict[str, dict[int, int]] = {}
    for message in unmaskings:
        place = roster.place(message.sender)
        for one in message.shares:
            shares.setdefault(one.owner, {})[place] = read_share(one.share)
    return shares


def _check_fit(party: str, found: bytes, advertised: bytes) -> None:
    if found != advertised:
        raise PeerMessageError(
            f"the revealed shares of {party}'s secret do not fit what it advertised: {party} cut "
            "it wrongly, or one who holds a share lied"
        )


_weights = lru_cache(maxsize=8)(interpolation_weights)  # most secrets have the same holders


def _kind(owner: str, survivors: tuple[str, ...]) -> ShareKind:
    return ShareKind.OWN_MASK if owner in survivors else ShareKind.MASK_KEY


def _check_first(sender: str, heard: Iterable[str]) -> None:
    if sender in heard:
        raise PeerMessageError(f"a second message of {sender} in one round: the first one counts")


def _check_among(sender: str, parties: tuple[str, ...], what: str) -> None:
    if sender not in parties:
        raise PeerMessageError(f"expected a message of those who {what}, got one of {sender}")


def _spelt(phase: type[_State]) -> str:
    return "awaiting " + phase.__name__.removeprefix("Awaiting").lower()
