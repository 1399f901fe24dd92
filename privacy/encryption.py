"""Bytes for one recipient: keys to encrypt to, and single messages encrypted to them.

HPKE in its base mode (RFC 9180 §5.1.1, single shot, empty associated data) with the hybrid of
ML-KEM-768 and X25519 known as X-Wing (draft-ietf-hpke-pq, KEM 0x647a), HKDF-SHA-256 and
AES-256-GCM. What was recorded stays closed while either of the two holds: X25519 against a flaw in
the younger scheme, ML-KEM against a quantum computer.

Guarantees: a key that exists is well-formed and has one spelling; what `open` returns is what was
sealed, for this key, in this very context; everything else is refused, with no hint why.

Leaves to others: who sealed it (base mode authenticates nobody: sign the sealed bytes), hiding the
length, keeping seeds. There is no forward secrecy: whoever gets a seed opens what was recorded.

Sources: RFC 9180; draft-ietf-hpke-pq; draft-connolly-cfrg-xwing-kem; FIPS 203; RFC 7748.
"""

import base64
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from privacy.errors import InvalidParameterError, PeerMessageError
from privacy.randomness import SECRET_BYTES, Secret

__all__ = [
    "ENCRYPTION_KEY_BYTES",
    "LARGEST_PLAINTEXT",
    "SEAL_BYTES",
    "DecryptionKey",
    "EncryptionKey",
]

ENCRYPTION_KEY_BYTES: Final = 1184 + 32
"""Length of a public key: ML-KEM-768's, then X25519's."""

SEAL_BYTES: Final = 1088 + 32 + 16
"""What sealing adds: both encapsulations and the authentication tag."""

LARGEST_PLAINTEXT: Final = 1 << 30
"""Bytes of the longest plaintext; all of it lies in memory."""

_SUITE: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_LATTICE_BYTES: Final = 1184
_PRIME: Final = 2**255 - 19
_PROBE: Final = X25519PrivateKey.from_private_bytes(bytes([1] * 32))


@lru_cache(maxsize=256)
def _check_sound(raw: bytes) -> None:
    """Return only if these bytes are a sound key, which they are whenever they are met again."""
    if len(raw) != ENCRYPTION_KEY_BYTES:
        raise InvalidParameterError(
            f"an encryption key has {ENCRYPTION_KEY_BYTES} bytes, got {len(raw)}"
        )
    if int.from_bytes(raw[_LATTICE_BYTES:], "little") >= _PRIME:
        raise InvalidParameterError("encryption key: its X25519 half is not canonical")
    try:
        MLKEM768PublicKey.from_public_bytes(raw[:_LATTICE_BYTES])
        _PROBE.exchange(X25519PublicKey.from_public_bytes(raw[_LATTICE_BYTES:]))
    except ValueError as error:
        raise InvalidParameterError(
            "encryption key: a half of it is no sound key: have its owner make a fresh one"
        ) from error


@dataclass(frozen=True)
class EncryptionKey:
    """A recipient's public key.

    Attributes:
        raw: 1,216 bytes, ML-KEM-768's encapsulation key (FIPS 203 §7.2) and X25519's u-coordinate.

    Raises:
        InvalidParameterError: another length, or a half that is not canonical or of low order.
    """

    raw: bytes

    def __post_init__(self) -> None:
        _check_sound(self.raw)

    @classmethod
    def from_base64(cls, text: str) -> Self:
        """Read a key from canonical standard base64 (1,624 characters).

        Raises:
            InvalidParameterError: the text is not canonical base64, or not a sound key.
        """
        try:
            raw = base64.b64decode(text)
        except ValueError as error:
            raise InvalidParameterError("encryption key: expected standard base64") from error
        key = cls(raw)
        if key.to_base64() != text:
            raise InvalidParameterError("encryption key: expected canonical base64")
        return key

    def to_base64(self) -> str:
        """Write the key as standard base64 (1,624 characters)."""
        return base64.b64encode(self.raw).decode()

    def seal(self, plaintext: bytes, context: bytes) -> bytes:
        """Encrypt to this key; never twice the same (HPKE's `info` is `context`).

        Args:
            plaintext: at most 1 GiB.
            context: what the recipient must know to open it: whose it is and where it belongs.

        Returns:
            `SEAL_BYTES` more than the plaintext has.

        Raises:
            InvalidParameterError: the plaintext is longer.
        """
        if len(plaintext) > LARGEST_PLAINTEXT:
            raise InvalidParameterError(
                f"expected a plaintext of at most {LARGEST_PLAINTEXT} bytes, got {len(plaintext)}"
            )
        key = MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(self.raw[:_LATTICE_BYTES]),
            X25519PublicKey.from_public_bytes(self.raw[_LATTICE_BYTES:]),
        )
        return _SUITE.encrypt(plaintext, key, context)


class DecryptionKey:
    """A recipient's private key; it never shows its secret."""

    __slots__ = ("_private", "public")

    public: EncryptionKey

    def __init__(self, seed: Secret) -> None:
        """Expand a seed into both halves (draft-connolly-cfrg-xwing-kem §5.2).

        Args:
            seed: 32 secret, uniformly random bytes.

        Raises:
            InvalidParameterError: the seed has another length.
        """
        if len(seed) != SECRET_BYTES:
            raise InvalidParameterError(
                f"a decryption key's seed has {SECRET_BYTES} bytes, got {len(seed)}"
            )
        expanded = hashlib.shake_256(seed).digest(96)
        lattice = MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
        curve = X25519PrivateKey.from_private_bytes(expanded[64:])
        self._private = MLKEM768X25519PrivateKey(lattice, curve)
        self.public = EncryptionKey(
            lattice.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()
        )

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """Decrypt what was sealed to this key in this context.

        Raises:
            PeerMessageError: it was not: another key, another context, or changed bytes.
        """
        if not SEAL_BYTES <= len(sealed) <= LARGEST_PLAINTEXT + SEAL_BYTES:
            raise PeerMessageError(
                f"expected {SEAL_BYTES} to {LARGEST_PLAINTEXT + SEAL_BYTES} sealed bytes, got "
                f"{len(sealed)}"
            )
        try:
            return _SUITE.decrypt(sealed, self._private, context)
        except InvalidTag as error:
            raise PeerMessageError(
                "sealed bytes that do not open: they were changed, or sealed to another key or in "
                "another context"
            ) from error

    def __repr__(self) -> str:
        return f"DecryptionKey(public={hashlib.sha256(self.public.raw).hexdigest()[:16]})"
