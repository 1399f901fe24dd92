"""A party's keys of one aggregation, and what two parties derive from them.

Guarantees: everything secret about a party follows from one fresh secret; what two parties derive
is bound to both names, to what it is for, and to the whole roster, so that it fits nobody who was
shown other keys. Seeds of masks have 256 bits. What is signed here cannot be read as anything else.

Leaves to others: a fresh secret for every aggregation, and whose signing key is whose (`Verifier`).

Sources: RFC 7748 (X25519), RFC 5869 (HKDF), NIST SP 800-38D (AES-GCM).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from privacy.errors import PeerMessageError
from privacy.randomness import Secret, SecretStream, derive_secret
from privacy.secagg.messages import KeyAdvertisement

__all__ = [
    "PartySecrets",
    "Signer",
    "Verifier",
    "add_mask",
    "agree",
    "commitment",
    "common_mask",
    "own_mask",
    "private_key",
    "public_bytes",
    "roster_digest",
    "seal",
    "signed_keys",
    "signed_survivors",
    "unseal",
]

_MASK_CHUNK = 1 << 18  # bytes, so that a piece of mask stays in the processor's cache
_NONCE = bytes(12)  # every key of the channel encrypts one message


class Signer(Protocol):
    """A party's own signing key."""

    def sign(self, message: bytes) -> bytes:
        """Sign `message`."""


class Verifier(Protocol):
    """Whose signing key is whose: a directory that the server cannot write."""

    def verify(self, party: str, signature: bytes, message: bytes) -> None:
        """Return only if `signature` is `party`'s over `message`.

        Args:
            party: its name in the plan.
            signature: Ed25519, 64 bytes if it is well-formed; nothing is assumed of it.
            message: exactly what was signed.

        Raises:
            PeerMessageError: in every other case.
        """


@dataclass(frozen=True)
class PartySecrets:
    """What a party derives from its secret of one aggregation.

    Attributes:
        channel: private key for shares.
        mask: private key for masks in common.
        own_mask: seed of the party's own mask.
    """

    channel: X25519PrivateKey
    mask: X25519PrivateKey
    own_mask: Secret = field(repr=False)

    @classmethod
    def derived(cls, secret: Secret, aggregation: str) -> "PartySecrets":
        """Derive them; another aggregation has others, even from the same secret."""
        channel, mask, own_mask = (
            derive_secret(secret, f"secure aggregation {aggregation} {purpose}")
            for purpose in ("channel key", "mask key", "own mask")
        )
        return cls(private_key(channel), private_key(mask), own_mask)


def signed_keys(message: KeyAdvertisement) -> bytes:
    """Return what a party signs of its keys: all but the signature."""
    return _encode(
        "keys",
        message.aggregation,
        message.sender,
        message.channel_key.hex(),
        message.mask_key.hex(),
        message.mask_commitment.hex(),
    )


def signed_survivors(aggregation: str, roster: str, survivors: Sequence[str]) -> bytes:
    """Return what a party signs of the survivors that it was told."""
    return _encode("survivors", aggregation, roster, *survivors)


def roster_digest(advertisements: Sequence[KeyAdvertisement]) -> str:
    """Return the digest of all keys; whoever was shown one other key has another digest."""
    whole = hashlib.sha256()
    for one in advertisements:
        whole.update(hashlib.sha256(signed_keys(one)).digest())
    return whole.hexdigest()


def _encode(*parts: str) -> bytes:
    """Join parts that hold no space and no line end, so that no others give the same bytes."""
    return "\n".join(("comity secure aggregation 1", *parts)).encode()


def private_key(secret: Secret) -> X25519PrivateKey:
    """Load a private key; that takes as long as one agreement."""
    return X25519PrivateKey.from_private_bytes(secret)


def public_bytes(private: X25519PrivateKey) -> bytes:
    """Return the public key of a private one, 32 bytes."""
    return private.public_key().public_bytes_raw()


def agree(private: X25519PrivateKey, public: bytes) -> Secret:
    """Return what both holders of two key pairs compute, and nobody else (RFC 7748 §6.1).

    Raises:
        PeerMessageError: the public key is of low order.
    """
    try:
        shared = private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise PeerMessageError("expected an X25519 key of large order, got another") from error
    return Secret(shared)


def commitment(own_mask: Secret) -> bytes:
    """Bind a party to the seed of its own mask, 32 bytes that tell nothing of the mask."""
    return derive_secret(own_mask, "secure aggregation own mask commitment")


def seal(plaintext: bytes, shared: Secret, roster: str, sender: str, recipient: str) -> bytes:
    """Encrypt shares for a neighbour; one message for each key, roster, sender and recipient."""
    return AESGCM(_channel_key(shared, roster, sender, recipient)).encrypt(_NONCE, plaintext, None)


def unseal(sealed: bytes, shared: Secret, roster: str, sender: str, recipient: str) -> bytes:
    """Decrypt what a neighbour sealed.

    Raises:
        PeerMessageError: it was sealed for another party, roster or aggregation, or changed.
    """
    cipher = AESGCM(_channel_key(shared, roster, sender, recipient))
    try:
        return cipher.decrypt(_NONCE, sealed, None)
    except InvalidTag as error:
        raise PeerMessageError(
            f"shares from {sender} that do not open: they were changed, or sealed in another "
            "aggregation, for another party, or under other keys"
        ) from error


def _channel_key(shared: Secret, roster: str, sender: str, recipient: str) -> Secret:
    return derive_secret(shared, f"secure aggregation shares {roster} {sender} {recipient}")


def common_mask(shared: Secret, roster: str, one: str, other: str) -> SecretStream:
    """Return the mask that two neighbours have in common: one adds it, the other takes it away.

    It depends on both names: a third party that copies a key of one of them would otherwise have
    the same mask in common with the other, which cancels it.
    """
    first, second = sorted((one, other))
    return SecretStream(shared, f"secure aggregation common mask {roster} {first} {second}")


def own_mask(seed: Secret) -> SecretStream:
    """Return a party's own mask, which hides its input if its other masks become known."""
    return SecretStream(seed, "secure aggregation own mask")


def add_mask(
    total: "NDArray[np.unsignedinteger[Any]]", stream: SecretStream, *, negative: bool = False
) -> None:
    """Add a mask to a vector in place, or take it away, modulo the vector's own width."""
    step = _MASK_CHUNK // total.itemsize
    combine = np.subtract if negative else np.add
    for start in range(0, len(total), step):
        part = total[start : start + step]
        mask = np.frombuffer(stream.take(part.nbytes), dtype=total.dtype)
        combine(part, mask, out=part)
