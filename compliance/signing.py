"""Who said it: Ed25519 keys, and envelopes that carry a payload with its signatures.

Guarantees: a key that exists is a canonical encoding and not one of the low-order points under
which anybody could forge; a method named `verify…` either returns nothing or raises; an envelope
read from JSON has one spelling of every value, no unknown or repeated member, and a bounded size.

Leaves to others: entropy (the caller brings the 32-byte seed), keeping seeds safe, and which keys
to trust: `keyid` is an unauthenticated party name that only says whose key to try.

Sources: RFC 8032 (Ed25519); DSSE v1.0 protocol and envelope (secure-systems-lab/dsse).
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from compliance.errors import SignatureError, describe

__all__ = [
    "ENVELOPE_LIMIT",
    "PARTY_NAME_PATTERN",
    "Envelope",
    "Signature",
    "SigningKey",
    "VerifyingKey",
    "decode_base64",
    "encode_base64",
    "pae",
]

ENVELOPE_LIMIT: Final = 2**20
"""Bytes of JSON that an envelope may have; payload and signatures are bounded to fit."""

PARTY_NAME_PATTERN: Final = r"^[a-z][a-z0-9-]{0,62}$"

_SEED_BYTES: Final = 32
_KEY_BYTES: Final = 32
_SIGNATURE_BYTES: Final = 64
_PRIME: Final = 2**255 - 19
_CURVE_D: Final = -121665 * pow(121666, -1, _PRIME) % _PRIME


@dataclass(frozen=True)
class VerifyingKey:
    """An Ed25519 public key.

    Attributes:
        raw: the 32 bytes of RFC 8032 §5.1.5.

    Raises:
        SignatureError: not 32 bytes, not canonical (y ≥ p), or of low order.
    """

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != _KEY_BYTES:
            raise SignatureError(f"an Ed25519 key has {_KEY_BYTES} bytes, got {len(self.raw)}")
        y = int.from_bytes(self.raw, "little") & (2**255 - 1)
        # Points of order 1, 2 and 4 have y in {1, -1, 0}; those of order 8 double to y = 0, where
        # x² = -y² turns the curve equation into d·y⁴ + 2y² = 1.
        if y >= _PRIME or y * (y * y - 1) * (_CURVE_D * y**4 + 2 * y * y - 1) % _PRIME == 0:
            raise SignatureError(
                "this Ed25519 key is not a canonical point of large order: anybody could sign for "
                "it, so make a fresh key"
            )

    @classmethod
    def from_base64(cls, text: str) -> Self:
        """Read a key from canonical standard base64 (44 characters).

        Raises:
            SignatureError: the text is not canonical base64, or not a sound key.
        """
        try:
            raw = decode_base64(text)
        except ValueError as error:
            raise SignatureError(f"verifying key: {error}") from error
        return cls(raw)

    def to_base64(self) -> str:
        """Write the key as standard base64 (44 characters)."""
        return encode_base64(self.raw)

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits to compare by eye: the start of SHA-256 of the raw key."""
        return hashlib.sha256(self.raw).hexdigest()[:16]

    def verify(self, signature: bytes, message: bytes) -> None:
        """Return only if `signature` (64 bytes) is this key's over `message`.

        Raises:
            SignatureError: in every other case.
        """
        if len(signature) != _SIGNATURE_BYTES:
            raise SignatureError(
                f"an Ed25519 signature has {_SIGNATURE_BYTES} bytes, got {len(signature)}"
            )
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (InvalidSignature, ValueError) as error:
            raise SignatureError(
                f"the signature does not verify under key {self.fingerprint}: the signed bytes "
                "changed, or another key made it"
            ) from error


class SigningKey:
    """An Ed25519 private key; it never shows its secret."""

    __slots__ = ("_private", "public")

    public: VerifyingKey

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = VerifyingKey(private.public_key().public_bytes_raw())

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """Derive the key from 32 secret, uniformly random bytes (RFC 8032 §5.1.5).

        Raises:
            SignatureError: the seed has another length.
        """
        if len(seed) != _SEED_BYTES:
            raise SignatureError(f"a signing seed has {_SEED_BYTES} bytes, got {len(seed)}")
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    def sign(self, message: bytes) -> bytes:
        """Sign `message`; deterministic, 64 bytes."""
        return self._private.sign(message)

    def __repr__(self) -> str:
        return f"SigningKey(public={self.public.fingerprint})"


def pae(payload_type: str, payload: bytes) -> bytes:
    """Encode type and payload so that no other pair has the same bytes (DSSE v1.0, PAE).

    `"DSSEv1" SP LEN(type) SP type SP LEN(payload) SP payload`, lengths in decimal bytes.
    """
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def encode_base64(data: bytes) -> str:
    """Write bytes as standard base64 with padding (RFC 4648 §4)."""
    return base64.b64encode(data).decode()


def decode_base64(text: str) -> bytes:
    """Read the one canonical spelling of standard base64.

    Raises:
        ValueError: any other text, so that a pydantic validator can call this too; every other
            caller turns it into its own error.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("expected standard base64") from error
    if encode_base64(data) != text:
        raise ValueError("expected canonical base64, got another spelling of the same bytes")
    return data


def _canonical(text: str) -> str:
    decode_base64(text)
    return text


Base64Text = Annotated[str, AfterValidator(_canonical)]
PartyName = Annotated[str, Field(pattern=PARTY_NAME_PATTERN)]


class Signature(BaseModel):
    """One party's signature: who (`keyid`, a party name) and what (`sig`, base64 of 64 bytes)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    keyid: PartyName
    sig: Annotated[Base64Text, Field(min_length=88, max_length=88)]

    def verify(self, key: VerifyingKey, message: bytes) -> None:
        """Return only if it is valid over `message`, an envelope's `signed_bytes`.

        Raises:
            SignatureError: in every other case.
        """
        try:
            key.verify(decode_base64(self.sig), message)
        except SignatureError as error:
            raise SignatureError(f"signature of {self.keyid!r}: {error}") from error


class Envelope(BaseModel):
    """A payload, its type, and the signatures over both (DSSE v1.0 envelope).

    Attributes:
        payload_type: what the payload is, a media type; `payloadType` in JSON.
        payload: canonical standard base64 of the payload.
        signatures: at most 128, one a party, in the order of signing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    payload: Annotated[Base64Text, Field(max_length=1_000_000)]
    payload_type: str = Field(alias="payloadType", pattern=r"^[!-~]{1,128}$")
    signatures: Annotated[tuple[Signature, ...], Field(max_length=128)]

    @field_validator("signatures")
    @classmethod
    def _one_signature_a_party(cls, signatures: tuple[Signature, ...]) -> tuple[Signature, ...]:
        if len({signature.keyid for signature in signatures}) != len(signatures):
            raise ValueError("expected one signature a party, got two with the same keyid")
        return signatures

    @classmethod
    def sign(cls, payload_type: str, payload: bytes, keys: Mapping[str, SigningKey]) -> Self:
        """Wrap `payload` and sign it with every key, by party name; no keys make a draft.

        Raises:
            SignatureError: the type or a name is malformed, or the payload is over 750,000 bytes.
        """
        message = pae(payload_type, payload)
        return cls._build(
            payload_type,
            encode_base64(payload),
            [(name, key.sign(message)) for name, key in keys.items()],
        )

    def add_signature(self, name: str, key: SigningKey) -> Self:
        """Return the envelope with `name`'s signature added.

        Raises:
            SignatureError: `name` has signed already, or is malformed.
        """
        signed = [(entry.keyid, decode_base64(entry.sig)) for entry in self.signatures]
        return self._build(
            self.payload_type, self.payload, [*signed, (name, key.sign(self.signed_bytes))]
        )

    def verify_by(self, name: str, key: VerifyingKey) -> None:
        """Return only if the envelope bears a valid signature of `name` under `key`.

        Raises:
            SignatureError: in every other case.
        """
        signature = next((one for one in self.signatures if one.keyid == name), None)
        if signature is None:
            raise SignatureError(
                f"expected a signature of {name!r}, got those of: "
                f"{', '.join(self.signers) or 'nobody'}"
            )
        signature.verify(key, self.signed_bytes)

    @property
    def payload_bytes(self) -> bytes:
        """The payload itself: untrusted until a signature was verified."""
        return decode_base64(self.payload)

    @property
    def signers(self) -> tuple[str, ...]:
        """Names that claim to have signed, in the order of signing."""
        return tuple(signature.keyid for signature in self.signatures)

    def to_json(self) -> bytes:
        """Write compact JSON that `from_json` reads back."""
        return self.model_dump_json(by_alias=True).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read an envelope from at most 1 MiB of UTF-8 JSON.

        Raises:
            SignatureError: too long, not JSON, members unknown, repeated, missing or malformed.
        """
        if len(data) > ENVELOPE_LIMIT:
            raise SignatureError(
                f"expected an envelope of at most {ENVELOPE_LIMIT} bytes, got {len(data)}"
            )
        try:
            envelope = cls.model_validate_json(data)
            json.loads(data, object_pairs_hook=_refuse_repeated_members)
        except ValidationError as error:
            raise SignatureError(f"malformed envelope: {describe(error)}") from error
        except ValueError as error:
            raise SignatureError(f"malformed envelope: {error}") from error
        return envelope

    @property
    def signed_bytes(self) -> bytes:
        """What is signed: payload and type in one (DSSE v1.0, PAE)."""
        return pae(self.payload_type, self.payload_bytes)

    @classmethod
    def _build(cls, payload_type: str, payload: str, signed: list[tuple[str, bytes]]) -> Self:
        try:
            return cls(
                payloadType=payload_type,
                payload=payload,
                signatures=tuple(
                    Signature(keyid=name, sig=encode_base64(signature))
                    for name, signature in signed
                ),
            )
        except ValidationError as error:
            raise SignatureError(f"malformed envelope: {describe(error)}") from error


def _refuse_repeated_members(members: list[tuple[str, object]]) -> dict[str, object]:
    if len(dict(members)) != len(members):
        raise ValueError("a JSON member is repeated")
    return dict(members)
