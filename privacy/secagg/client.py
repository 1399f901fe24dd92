"""A party's side of a secure aggregation: five steps, and what it remembers between them.

Guarantees: no I/O; a state is frozen and can be stored between two messages; each step takes one
message and forgets the secrets that no later step needs. A message that breaks the protocol raises
and leaves the state as it was. Whatever the server says, the party reveals once, for one set of
survivors that `threshold` of them signed, for each neighbour a share of its own mask's seed or of
its mask key: never of both.

Leaves to others: a fresh secret; storing a state before its message leaves, and never going back
to an older one (that could answer twice); that a message comes from the server and reaches it; and
the input: nothing tells what a party put into the sum.

Source: Bonawitz et al., "Practical secure aggregation for privacy-preserving machine learning",
CCS 2017, figure 4, with the steps against a malicious server.
"""

# Rounds as in figure 4; U1 ⊇ U2 ⊇ U3 ⊇ U4 ⊇ U5 are the parties that got so far.
#
#   0  advertise   signs fresh keys and a commitment to the seed of its own mask
#   1  share       verifies all keys; cuts its mask key and its seed into shares for its neighbours
#   2  mask        opens its neighbours' shares (U2); adds its own mask and those in common
#   3  confirm     signs who survived (U3)
#   4  unmask      verifies that `threshold` survivors signed the same; reveals one share for each
#
# The caller must still store every new state, and destroy it after 4.

from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from privacy.errors import InvalidParameterError, PeerMessageError
from privacy.randomness import SECRET_BYTES, Secret, SecretStream
from privacy.secagg import keys
from privacy.secagg.keys import PartySecrets, Signer, Verifier
from privacy.secagg.messages import (
    Confirmation,
    Confirmations,
    KeyAdvertisement,
    KeyRoster,
    MaskedVector,
    RevealedShare,
    SealedShare,
    SealedShares,
    ShareDelivery,
    ShareKind,
    Survivors,
    Unmasking,
)
from privacy.secagg.plan import Digest, PartyName, Plan
from privacy.secagg.roster import Roster, check_aggregation, check_enough
from privacy.secagg.shamir import SHARE_BYTES, read_share, split_secret

__all__ = [
    "Advertised",
    "Client",
    "ClientState",
    "Confirmed",
    "HeldShare",
    "Masked",
    "Shared",
    "Unmasked",
    "read_client_state",
]

_SecretBytes = Annotated[bytes, Field(min_length=SECRET_BYTES, max_length=SECRET_BYTES)]
_ShareBytes = Annotated[bytes, Field(min_length=SHARE_BYTES, max_length=SHARE_BYTES)]


class _Stored(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        ser_json_bytes="base64",
        val_json_bytes="base64",
        hide_input_in_errors=True,
    )


class HeldShare(_Stored):
    """What a party holds of another one's secrets, or of its own.

    Attributes:
        owner: whose secrets they are.
        mask_key: share of the private key of its masks in common.
        own_mask: share of the seed of its own mask.
    """

    owner: PartyName
    mask_key: _ShareBytes = Field(repr=False)
    own_mask: _ShareBytes = Field(repr=False)


class _State(_Stored):
    aggregation: Digest


class Advertised(_State):
    """After round 0: the secret that everything follows from."""

    kind: Literal["advertised"] = "advertised"
    secret: _SecretBytes = Field(repr=False)


class Shared(_State):
    """After round 1: the secret, everybody's keys, and the party's shares of its own secrets."""

    kind: Literal["shared"] = "shared"
    secret: _SecretBytes = Field(repr=False)
    roster: KeyRoster
    own: HeldShare


class Masked(_State):
    """After round 2: others' shares; of its own secrets no more than a share is left."""

    kind: Literal["masked"] = "masked"
    roster: KeyRoster
    held: tuple[HeldShare, ...]


class Confirmed(_State):
    """After round 3: the survivors that the party signed."""

    kind: Literal["confirmed"] = "confirmed"
    roster: KeyRoster
    held: tuple[HeldShare, ...]
    survivors: tuple[PartyName, ...]


class Unmasked(_State):
    """After round 4: nothing that is secret."""

    kind: Literal["unmasked"] = "unmasked"


ClientState = Annotated[
    Advertised | Shared | Masked | Confirmed | Unmasked, Field(discriminator="kind")
]
"""What a party remembers between two messages."""

_STATE: TypeAdapter[ClientState] = TypeAdapter(ClientState)
_Phase = TypeVar("_Phase", bound=_State)


def read_client_state(data: bytes) -> ClientState:
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
class Client:
    """One party of one aggregation.

    Attributes:
        plan: what all parties know.
        name: the party's, one of the plan's.
        signer: its signing key.
        verifier: whose signing key is whose.

    Raises:
        InvalidParameterError: the plan does not name the party.
    """

    plan: Plan
    name: str
    signer: Signer
    verifier: Verifier

    def __post_init__(self) -> None:
        if self.name not in self.plan.parties:
            raise InvalidParameterError(f"the plan of the sum does not name {self.name}")

    def advertise(self, secret: Secret) -> tuple[Advertised, KeyAdvertisement]:
        """Round 0: make keys.

        Args:
            secret: from `new_secret`, for this aggregation alone.
        """
        state = Advertised(aggregation=self.plan.digest, secret=secret)
        keys_alone = self._unsigned(self._secrets(state))
        signature = self.signer.sign(keys.signed_keys(keys_alone))
        return state, keys_alone.model_copy(update={"signature": signature})

    def share(self, state: ClientState, message: KeyRoster) -> tuple[Shared, SealedShares]:
        """Round 1: verify all keys, and cut the party's secrets for its neighbours.

        Raises:
            PeerMessageError: the message is out of turn or of another aggregation, a key is not
                its owner's, or the party's own are not on it.
            MissingPartiesError: there are fewer parties than the threshold.
        """
        state = self._in_turn(state, Advertised)
        secrets = self._secrets(state)
        roster = Roster.verified(message, self.plan, self.verifier)
        mine = roster.keys.get(self.name)
        if mine is None or keys.signed_keys(mine) != keys.signed_keys(self._unsigned(secrets)):
            raise PeerMessageError(f"the roster has other keys of {self.name} than it advertised")
        held = self._cut(state.secret, secrets, roster)
        own = held.pop(self.name)
        sealed = tuple(
            SealedShare(party=party, sealed=self._sealed(party, share, secrets, roster))
            for party, share in held.items()
        )
        new = Shared(aggregation=self.plan.digest, secret=state.secret, roster=message, own=own)
        return new, SealedShares(aggregation=self.plan.digest, sender=self.name, shares=sealed)

    def mask(
        self,
        state: ClientState,
        message: ShareDelivery,
        vector: "NDArray[np.unsignedinteger[Any]]",
    ) -> tuple[Masked, MaskedVector]:
        """Round 2: open the neighbours' shares, and mask the input.

        Args:
            state: after round 1.
            message: what neighbours sealed for the party.
            vector: shape (length,), of the plan's width, for instance from `FixedPoint.encode`.

        Raises:
            InvalidParameterError: the vector has another shape or type.
            PeerMessageError: the message is out of turn, of another aggregation or for another
                party, or shares are no neighbour's or do not open.
            MissingPartiesError: fewer neighbours shared than it takes to give a secret back.
        """
        state = self._in_turn(state, Shared)
        check_aggregation(message.aggregation, self.plan)
        if vector.shape != (self.plan.length,) or vector.dtype != self.plan.entry:
            raise InvalidParameterError(
                f"expected a vector of {self.plan.length} entries of {self.plan.ring_bits} bits, "
                f"unsigned, got {vector.dtype} of shape {vector.shape}"
            )
        if message.recipient != self.name:
            raise PeerMessageError(f"shares for {message.recipient} were brought to {self.name}")
        secrets = self._secrets(state)
        roster = Roster.of(state.roster, self.plan)
        near = frozenset(roster.neighbours(self.name))
        check_enough(
            len(message.shares) + 1, self.plan.share_threshold, self.plan, "shared their secrets"
        )
        held = {self.name: state.own}
        total = vector.copy()
        keys.add_mask(total, keys.own_mask(secrets.own_mask))
        for one in message.shares:
            if one.party not in near:
                raise PeerMessageError(f"shares from {one.party}, which is no neighbour")
            held[one.party] = self._opened(one, secrets, roster)
            shared = keys.agree(secrets.mask, roster.keys[one.party].mask_key)
            mask = keys.common_mask(shared, roster.digest, self.name, one.party)
            keys.add_mask(total, mask, negative=one.party < self.name)
        masked = MaskedVector(
            aggregation=self.plan.digest, sender=self.name, vector=total.tobytes()
        )
        kept = tuple(held[owner] for owner in sorted(held))
        return Masked(aggregation=self.plan.digest, roster=state.roster, held=kept), masked

    def confirm(self, state: ClientState, message: Survivors) -> tuple[Confirmed, Confirmation]:
        """Round 3: sign who survived.

        Raises:
            PeerMessageError: the message is out of turn or of another aggregation; or survivors
                are not on the roster, or shared nothing with the party, or it is not one of them.
            MissingPartiesError: there are fewer survivors than the threshold.
        """
        state = self._in_turn(state, Masked)
        check_aggregation(message.aggregation, self.plan)
        roster = Roster.of(state.roster, self.plan)
        survivors = frozenset(message.parties)
        check_enough(len(survivors), self.plan.threshold, self.plan, "sent a masked vector")
        if self.name not in survivors:
            raise PeerMessageError(f"{self.name} sent its masked vector and is no survivor")
        known = {one.owner for one in state.held}
        strangers = survivors - set(roster.parties)
        strangers |= (survivors & set(roster.neighbours(self.name))) - known
        if strangers:
            raise PeerMessageError(
                f"survivors whose shares {self.name} was not given: {', '.join(sorted(strangers))}"
            )
        signature = self.signer.sign(
            keys.signed_survivors(self.plan.digest, roster.digest, message.parties)
        )
        said = Confirmation(aggregation=self.plan.digest, sender=self.name, signature=signature)
        new = Confirmed(
            aggregation=self.plan.digest,
            roster=state.roster,
            held=state.held,
            survivors=message.parties,
        )
        return new, said

    def unmask(self, state: ClientState, message: Confirmations) -> tuple[Unmasked, Unmasking]:
        """Round 4: reveal a share for each neighbour, of one of its two secrets.

        Raises:
            PeerMessageError: the message is out of turn or of another aggregation, or a signature
                is no survivor's over the survivors that the party signed itself.
            MissingPartiesError: fewer survivors signed than the threshold.
        """
        state = self._in_turn(state, Confirmed)
        check_aggregation(message.aggregation, self.plan)
        roster = Roster.of(state.roster, self.plan)
        signed = keys.signed_survivors(self.plan.digest, roster.digest, state.survivors)
        survivors = frozenset(state.survivors)
        check_enough(
            len(message.confirmations), self.plan.threshold, self.plan, "confirmed who survived"
        )
        for one in message.confirmations:
            check_aggregation(one.aggregation, self.plan)
            if one.sender not in survivors:
                raise PeerMessageError(f"a confirmation by {one.sender}, which is no survivor")
            self.verifier.verify(one.sender, one.signature, signed)
        shares = tuple(
            RevealedShare(owner=one.owner, kind=ShareKind.OWN_MASK, share=one.own_mask)
            if one.owner in survivors
            else RevealedShare(owner=one.owner, kind=ShareKind.MASK_KEY, share=one.mask_key)
            for one in state.held
        )
        said = Unmasking(aggregation=self.plan.digest, sender=self.name, shares=shares)
        return Unmasked(aggregation=self.plan.digest), said

    def _in_turn(self, state: ClientState, expected: type[_Phase]) -> _Phase:
        check_aggregation(state.aggregation, self.plan)
        if not isinstance(state, expected):
            raise PeerMessageError(
                f"message out of turn: {self.name} takes it once, when it has "
                f"{expected.__name__.lower()}; it has {type(state).__name__.lower()}"
            )
        return state

    def _secrets(self, state: Advertised | Shared) -> PartySecrets:
        return PartySecrets.derived(Secret(state.secret), self.plan.digest)

    def _unsigned(self, secrets: PartySecrets) -> KeyAdvertisement:
        return KeyAdvertisement(
            aggregation=self.plan.digest,
            sender=self.name,
            channel_key=keys.public_bytes(secrets.channel),
            mask_key=keys.public_bytes(secrets.mask),
            mask_commitment=keys.commitment(secrets.own_mask),
            signature=b"none",
        )

    def _cut(self, secret: bytes, secrets: PartySecrets, roster: Roster) -> dict[str, HeldShare]:
        """Cut the party's two secrets: a share of each for every neighbour, and for itself."""
        holders = sorted((self.name, *roster.neighbours(self.name)))
        places = [roster.place(holder) for holder in holders]
        needed = self.plan.share_threshold
        stream = SecretStream(Secret(secret), f"secure aggregation {roster.digest} polynomials")
        mask_key, own_mask = (
            split_secret(one, needed, places, stream)
            for one in (Secret(secrets.mask.private_bytes_raw()), secrets.own_mask)
        )
        return {
            holder: HeldShare(owner=self.name, mask_key=first, own_mask=second)
            for holder, first, second in zip(holders, mask_key, own_mask, strict=True)
        }

    def _sealed(self, party: str, share: HeldShare, secrets: PartySecrets, roster: Roster) -> bytes:
        shared = keys.agree(secrets.channel, roster.keys[party].channel_key)
        plaintext = share.mask_key + share.own_mask
        return keys.seal(plaintext, shared, roster.digest, self.name, party)

    def _opened(self, one: SealedShare, secrets: PartySecrets, roster: Roster) -> HeldShare:
        shared = keys.agree(secrets.channel, roster.keys[one.party].channel_key)
        opened = keys.unseal(one.sealed, shared, roster.digest, one.party, self.name)
        mask_key, own_mask = opened[:SHARE_BYTES], opened[SHARE_BYTES:]
        read_share(mask_key)
        read_share(own_mask)
        return HeldShare(owner=one.party, mask_key=mask_key, own_mask=own_mask)
