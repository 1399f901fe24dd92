"""What client and server say to each other, round by round of the paper.

Guarantees: a message that exists is closed, frozen and bounded; lists of parties are in ascending
order without repetition; reading one raises nothing but `PeerMessageError`.

Leaves to others: that a message comes from the `sender` it names (the caller holds it against the
envelope it came in), and what a message may say at this point of this aggregation (`client`,
`server`).

```
round  client -> server    server -> client
0      KeyAdvertisement
1                          KeyRoster
       SealedShares
2                          ShareDelivery
       MaskedVector
3                          Survivors
       Confirmation
4                          Confirmations
       Unmasking
```
"""

import itertools
from enum import StrEnum
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
)

from privacy.errors import PeerMessageError
from privacy.secagg.plan import MAXIMUM_LENGTH, MAXIMUM_PARTIES, Digest, PartyName, Plan
from privacy.secagg.shamir import SHARE_BYTES

__all__ = [
    "SEALED_BYTES",
    "Confirmation",
    "Confirmations",
    "KeyAdvertisement",
    "KeyRoster",
    "MaskedVector",
    "RevealedShare",
    "SealedShare",
    "SealedShares",
    "ShareDelivery",
    "ShareKind",
    "Survivors",
    "Unmasking",
]

SEALED_BYTES = 2 * SHARE_BYTES + 16
"""A share of each of a party's two secrets, and the authentication tag."""

_Key = Annotated[bytes, Field(min_length=32, max_length=32)]
_Signature = Annotated[bytes, Field(min_length=1, max_length=4_096)]
_Item = TypeVar("_Item")


def _in_order(key: Any) -> AfterValidator:
    def check(items: tuple[_Item, ...]) -> tuple[_Item, ...]:
        keys = [key(item) for item in items]
        if any(first >= second for first, second in itertools.pairwise(keys)):
            raise ValueError("expected ascending parties, each once")
        return items

    return AfterValidator(check)


class _Closed(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        ser_json_bytes="base64",
        val_json_bytes="base64",
        hide_input_in_errors=True,
    )


class _Said(_Closed):
    """What all messages share.

    Attributes:
        aggregation: the plan's digest.
    """

    aggregation: Digest

    def to_json(self) -> bytes:
        """Write the message as JSON; bytes in it become base64."""
        return self.model_dump_json().encode()

    @classmethod
    def from_json(cls, data: bytes, plan: Plan) -> Self:
        """Read a message of an aggregation.

        Raises:
            PeerMessageError: it is too long for the plan, or no such message.
        """
        if len(data) > plan.largest_message:
            raise PeerMessageError(
                f"expected a message of at most {plan.largest_message} bytes, got {len(data)}"
            )
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            mistakes = "; ".join(
                f"{'.'.join(map(str, item['loc'])) or 'the whole'}: {item['msg']}"
                for item in error.errors(include_url=False, include_input=False)[:3]
            )
            raise PeerMessageError(f"malformed {cls.__name__}: {mistakes}") from error


class KeyAdvertisement(_Said):
    """Round 0: a party's public keys of this aggregation.

    Attributes:
        sender: whose they are.
        channel_key: X25519, for encrypting shares to it (c in the paper).
        mask_key: X25519, for masks in common (s).
        mask_commitment: binds the party to the seed of its own mask (b), and hides it.
        signature: the party's, over all of these.
    """

    sender: PartyName
    channel_key: _Key
    mask_key: _Key
    mask_commitment: _Key
    signature: _Signature


class KeyRoster(_Said):
    """Round 1: the keys of all who are there (U1)."""

    advertisements: Annotated[
        tuple[KeyAdvertisement, ...],
        Field(max_length=MAXIMUM_PARTIES),
        _in_order(lambda item: item.sender),
    ]


class SealedShare(_Closed):
    """One party's shares for another; only the recipient opens them.

    Attributes:
        party: the recipient on the way to the server, the sender on the way back.
        sealed: share of the mask key, then of the seed of the own mask, encrypted.
    """

    party: PartyName
    sealed: Annotated[bytes, Field(min_length=SEALED_BYTES, max_length=SEALED_BYTES)]


_SealedShareList = Annotated[
    tuple[SealedShare, ...],
    Field(max_length=MAXIMUM_PARTIES),
    _in_order(lambda item: item.party),
]


class SealedShares(_Said):
    """Round 1: a party's shares for its neighbours."""

    sender: PartyName
    shares: _SealedShareList


class ShareDelivery(_Said):
    """Round 2: what a party's neighbours sealed for it."""

    recipient: PartyName
    shares: _SealedShareList


class MaskedVector(_Said):
    """Round 2: a party's input under all its masks.

    Attributes:
        sender: whose it is.
        vector: unsigned little-endian integers of the plan's width, one after the other.
    """

    sender: PartyName
    vector: Annotated[bytes, Field(min_length=4, max_length=8 * MAXIMUM_LENGTH, repr=False)]


class Survivors(_Said):
    """Round 3: whose masked vectors are in the sum (U3)."""

    parties: Annotated[
        tuple[PartyName, ...],
        Field(max_length=MAXIMUM_PARTIES),
        _in_order(lambda item: item),
    ]


class Confirmation(_Said):
    """Round 3: a party's signature over the survivors that it was told."""

    sender: PartyName
    signature: _Signature


class Confirmations(_Said):
    """Round 4: the signatures of survivors."""

    confirmations: Annotated[
        tuple[Confirmation, ...],
        Field(max_length=MAXIMUM_PARTIES),
        _in_order(lambda item: item.sender),
    ]


class ShareKind(StrEnum):
    """Which of a party's two secrets a share is of."""

    OWN_MASK = "own-mask"
    """The seed of its own mask: of a survivor."""
    MASK_KEY = "mask-key"
    """The private key of its masks in common: of a party that dropped out."""


class RevealedShare(_Closed):
    """One share, in clear.

    Attributes:
        owner: whose secret it is of.
        kind: which secret.
        share: `SHARE_BYTES`, as `shamir` writes them.
    """

    owner: PartyName
    kind: Annotated[ShareKind, Field(strict=False)]
    share: Annotated[bytes, Field(min_length=SHARE_BYTES, max_length=SHARE_BYTES, repr=False)]


class Unmasking(_Said):
    """Round 4: for each neighbour, a share of one of its secrets."""

    sender: PartyName
    shares: Annotated[
        tuple[RevealedShare, ...],
        Field(max_length=MAXIMUM_PARTIES),
        _in_order(lambda item: item.owner),
    ]
