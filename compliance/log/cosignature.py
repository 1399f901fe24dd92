"""Cosignatures (C2SP tlog-cosignature): a witness vouches that a log's head extends its last one.

Two types: Ed25519 (0x04) and ML-DSA-44 (0x06, FIPS 204). The second withstands quantum computers,
binds the cosigner's name, and is the one that a log signs its own head with beside Ed25519
(C2SP tlog-checkpoint, "Signatures").

Guarantees: a method named `verify…` returns what was proved or raises; the message is exactly that
of "Ed25519 signed message" or "ML-DSA-44 signed message".

Leaves to others: whether the head extends anything (`witness`), entropy (the caller brings the
seed), and how many cosignatures are enough (`policy`).
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from compliance.errors import LogCorruptedError, SignatureError
from compliance.log.checkpoint import Checkpoint
from compliance.log.note import KeyText, Note, NoteKey, NoteSignature
from compliance.signing import SigningKey, VerifyingKey

__all__ = ["Algorithm", "CosignerKey", "CosigningKey", "open_head", "verify_cosignatures"]

_SEED_BYTES: Final = 32
_TIME: Final = struct.Struct(">Q")
_LATEST: Final = 2**63 - 1
_LABEL: Final = b"subtree/v1\n\x00"
_NAME_BYTES: Final = 255
_POSSESSION: Final = b"comity possession 1"


class Algorithm(IntEnum):
    """What makes a cosignature; the value is its signature type."""

    ED25519 = 0x04
    ML_DSA_44 = 0x06


_KEY_BYTES: Final = {Algorithm.ED25519: 32, Algorithm.ML_DSA_44: 1312}
_SIGNATURE_BYTES: Final = {Algorithm.ED25519: 64, Algorithm.ML_DSA_44: 2420}


@dataclass(frozen=True)
class CosignerKey:
    """The public key of a cosigner under its name.

    Attributes:
        name: not empty, without whitespace or `+`; at most 255 bytes.
        algorithm: what it signs with.
        raw: 32 bytes (Ed25519) or 1,312 (ML-DSA-44).

    Raises:
        SignatureError: the name or the key is malformed.
    """

    name: str
    algorithm: Algorithm
    raw: bytes

    def __post_init__(self) -> None:
        KeyText(self.name, self.algorithm, self.raw)
        if len(self.name.encode()) > _NAME_BYTES:
            raise SignatureError(f"expected a cosigner's name of at most {_NAME_BYTES} bytes")
        expected = _KEY_BYTES[self.algorithm]
        if len(self.raw) != expected:
            raise SignatureError(
                f"cosigner {self.name!r}: expected a key of {expected} bytes, got {len(self.raw)}"
            )
        if self.algorithm is Algorithm.ED25519:
            VerifyingKey(self.raw)

    @classmethod
    def from_string(cls, text: str) -> Self:
        """Read a key string `name+key id+base64(type ‖ key)`.

        Raises:
            SignatureError: malformed, of another type, or its id is not the key's.
        """
        parsed = KeyText.parse(text)
        if parsed.type not in _KEY_BYTES:
            raise SignatureError(
                f"cosigner {parsed.name!r}: expected type 4 (Ed25519) or 6 (ML-DSA-44), got "
                f"{parsed.type}"
            )
        return cls(parsed.name, Algorithm(parsed.type), parsed.raw)

    def to_string(self) -> str:
        """Write the key as `from_string` reads it."""
        return str(self._text)

    @property
    def key_id(self) -> bytes:
        """The first 4 bytes of SHA-256(name ‖ 0x0A ‖ type ‖ key)."""
        return self._text.key_id

    @property
    def _text(self) -> KeyText:
        return KeyText(self.name, self.algorithm, self.raw)

    def verify(self, checkpoint: Checkpoint, note: Note) -> int:
        """Return when this key cosigned the checkpoint that is the text of the note.

        Returns:
            POSIX seconds, of the latest where there are several; 0 where the cosigner states no
            time, as a log does of its own head.

        Raises:
            SignatureError: it did not, or one in its name and id is not valid.
        """
        return max(
            self._verify(checkpoint, signature)
            for signature in note.signatures_by(self.name, self.key_id)
        )

    def verify_possession(self, proof: bytes, statement: bytes) -> None:
        """Return only if whoever holds this key's secret half proved it under `statement`.

        Raises:
            SignatureError: in every other case; a key of Ed25519 proves nothing this way.
        """
        if self.algorithm is not Algorithm.ML_DSA_44:
            raise SignatureError(f"cosigner {self.name!r}: expected a key of ML-DSA-44")
        try:
            key = MLDSA44PublicKey.from_public_bytes(self.raw)
            key.verify(proof, statement, _POSSESSION)
        except (InvalidSignature, ValueError) as error:
            raise SignatureError(
                f"cosigner {self.name!r}: the proof of possession does not verify: the statement "
                "changed, or another key made it"
            ) from error

    def _verify(self, checkpoint: Checkpoint, signature: bytes) -> int:
        expected = _TIME.size + _SIGNATURE_BYTES[self.algorithm]
        if len(signature) != expected:
            raise SignatureError(
                f"cosignature of {self.name!r}: expected {expected} bytes, got {len(signature)}"
            )
        (timestamp,) = _TIME.unpack_from(signature)
        if timestamp > _LATEST:
            raise SignatureError(f"cosignature of {self.name!r}: its time passes 2^63 - 1")
        message = _message(self.algorithm, self.name, checkpoint, timestamp)
        if self.algorithm is Algorithm.ED25519:
            VerifyingKey(self.raw).verify(signature[_TIME.size :], message)
            return int(timestamp)
        try:
            MLDSA44PublicKey.from_public_bytes(self.raw).verify(signature[_TIME.size :], message)
        except (InvalidSignature, ValueError) as error:
            raise SignatureError(
                f"the cosignature of {self.name!r} does not verify: the checkpoint or its time "
                "changed, or another key made it"
            ) from error
        return int(timestamp)


class CosigningKey:
    """The private key of a cosigner; it never shows its secret."""

    __slots__ = ("_private", "public")

    public: CosignerKey

    def __init__(self, name: str, private: SigningKey | MLDSA44PrivateKey) -> None:
        self._private = private
        self.public = (
            CosignerKey(name, Algorithm.ED25519, private.public.raw)
            if isinstance(private, SigningKey)
            else CosignerKey(name, Algorithm.ML_DSA_44, private.public_key().public_bytes_raw())
        )

    @classmethod
    def from_seed(
        cls, name: str, seed: bytes, *, algorithm: Algorithm = Algorithm.ML_DSA_44
    ) -> Self:
        """Derive the key from 32 secret, uniformly random bytes (FIPS 204 §5.1, RFC 8032 §5.1.5).

        Raises:
            SignatureError: the seed has another length, or the name is malformed.
        """
        if len(seed) != _SEED_BYTES:
            raise SignatureError(f"a cosigning seed has {_SEED_BYTES} bytes, got {len(seed)}")
        if algorithm is Algorithm.ED25519:
            return cls(name, SigningKey.from_seed(seed))
        return cls(name, MLDSA44PrivateKey.from_seed_bytes(seed))

    def cosign(self, checkpoint: Checkpoint, *, timestamp: int) -> NoteSignature:
        """Sign a checkpoint.

        Args:
            checkpoint: that was found consistent with every one seen of its log.
            timestamp: POSIX seconds, 1 to 2⁶³ - 1; 0 to state no time (ML-DSA-44 alone).

        Raises:
            SignatureError: the time is out of range.
        """
        key = self.public
        least = 0 if key.algorithm is Algorithm.ML_DSA_44 else 1
        if not least <= timestamp <= _LATEST:
            raise SignatureError(f"expected a time of {least} to 2^63 - 1, got {timestamp}")
        message = _message(key.algorithm, key.name, checkpoint, timestamp)
        return NoteSignature(
            key.name, key.key_id, _TIME.pack(timestamp) + self._private.sign(message)
        )

    def prove_possession(self, statement: bytes) -> bytes:
        """Sign a statement about this key, which can never pass for a cosignature.

        A context (FIPS 204 §5.2) keeps it apart: cosignatures have none.

        Returns:
            2,420 bytes.

        Raises:
            SignatureError: the key is not of ML-DSA-44.
        """
        if isinstance(self._private, SigningKey):
            raise SignatureError(f"cosigner {self.public.name!r}: expected a key of ML-DSA-44")
        return self._private.sign(statement, _POSSESSION)

    def __repr__(self) -> str:
        return f"CosigningKey({self.public.name!r}, {self.public.key_id.hex()})"


def open_head(signed: bytes, key: NoteKey, second: CosignerKey | None) -> Checkpoint:
    """Read a checkpoint that its log signed with its key, and with its second one where it has one.

    Raises:
        LogCorruptedError: malformed, of another origin, or not signed by both.
    """
    checkpoint = Checkpoint.open(signed, key)
    if second is not None:
        try:
            second.verify(checkpoint, Note.parse(signed))
        except SignatureError as error:
            raise LogCorruptedError(f"checkpoint: {error}") from error
    return checkpoint


def verify_cosignatures(
    checkpoint: Checkpoint, note: Note, keys: tuple[CosignerKey, ...]
) -> dict[CosignerKey, int]:
    """Return which of `keys` cosigned, and when; signatures of other keys are ignored.

    Raises:
        LogCorruptedError: a signature in the name and id of one of `keys` is not valid
            (C2SP signed-note, "Signatures": reject the whole note).
    """
    signers = {(entry.name, entry.key_id) for entry in note.signatures}
    try:
        return {
            key: key.verify(checkpoint, note) for key in keys if (key.name, key.key_id) in signers
        }
    except SignatureError as error:
        raise LogCorruptedError(f"checkpoint of {checkpoint.origin!r}: {error}") from error


def _message(algorithm: Algorithm, name: str, checkpoint: Checkpoint, timestamp: int) -> bytes:
    if algorithm is Algorithm.ED25519:
        return f"cosignature/v1\ntime {timestamp}\n{checkpoint.body()}".encode()
    cosigner, origin = name.encode(), checkpoint.origin.encode()
    if len(origin) > _NAME_BYTES:
        raise SignatureError(f"expected an origin of at most {_NAME_BYTES} bytes")
    return b"".join(
        (
            _LABEL,
            bytes([len(cosigner)]) + cosigner,
            _TIME.pack(timestamp),
            bytes([len(origin)]) + origin,
            _TIME.pack(0),
            _TIME.pack(checkpoint.tree_size),
            checkpoint.root_hash,
        )
    )
