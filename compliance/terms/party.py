"""The organisations that an agreement binds, what each is there for, and its keys.

Guarantees: keys are well-formed and of the kind that their field names.

Leaves to others: whose key is whose (people compare fingerprints), and keeping secret halves.
"""

import hashlib
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from compliance.errors import SignatureError
from compliance.log.cosignature import Algorithm, CosignerKey
from compliance.log.note import NoteKey
from compliance.signing import VerifyingKey, decode_base64
from compliance.terms.vocabulary import Line, Name, Terms

__all__ = ["DATA_ROLES", "LogKey", "PartyTerm", "Role"]

_ENCRYPTION_KEY_BYTES: Final = 1184 + 32  # ML-KEM-768 and X25519


class Role(StrEnum):
    """What a party is there for."""

    BRAND = "brand"
    PARTNER = "partner"
    COORDINATOR = "coordinator"
    AUDITOR = "auditor"


DATA_ROLES: Final = frozenset({Role.BRAND, Role.PARTNER})
"""Who brings people, and may be sent what only they may read."""


def _identity_key(text: str) -> str:
    try:
        VerifyingKey.from_base64(text)
    except SignatureError as error:
        raise ValueError(str(error)) from error
    return text


def _log_key(text: str) -> str:
    try:
        NoteKey.from_string(text)
    except SignatureError as error:
        raise ValueError(str(error)) from error
    return text


LogKey = Annotated[Line, AfterValidator(_log_key)]


def _cosigning_key(text: str) -> str:
    try:
        key = CosignerKey.from_string(text)
    except SignatureError as error:
        raise ValueError(str(error)) from error
    if key.algorithm is not Algorithm.ML_DSA_44:
        raise ValueError("a cosigning key is of type 6, ML-DSA-44")
    return text


def _encryption_key(text: str) -> str:
    if (size := len(decode_base64(text))) != _ENCRYPTION_KEY_BYTES:
        raise ValueError(f"an encryption key has {_ENCRYPTION_KEY_BYTES} bytes, got {size}")
    return text


class PartyTerm(Terms):
    """An organisation that the agreement binds.

    Attributes:
        name: lower-case letters, digits and hyphens, at most 63.
        role: what it is there for.
        identity_key: base64 of the Ed25519 key that signs the agreement and its messages.
        log_key: verifier key of its log, `origin+id+base64` (C2SP signed-note).
        encryption_key: base64 of the ML-KEM-768 and X25519 keys to which other parties encrypt
            what only it may read, 1,216 bytes; for the brand and partners, and for them alone.
        cosigning_key: verifier key, ML-DSA-44, in the name of its log (C2SP tlog-cosignature):
            signs its own log beside `log_key`, and cosigns the other parties' logs. Without one it
            witnesses nobody.
    """

    name: Name
    role: Role
    identity_key: Annotated[str, AfterValidator(_identity_key)]
    log_key: LogKey
    encryption_key: Annotated[str, AfterValidator(_encryption_key)] | None = None
    cosigning_key: (
        Annotated[str, Field(max_length=4_096), AfterValidator(_cosigning_key)] | None
    ) = None

    @property
    def verifying_key(self) -> VerifyingKey:
        """The key that `identity_key` spells."""
        return VerifyingKey.from_base64(self.identity_key)

    @property
    def cosigner(self) -> CosignerKey | None:
        """The key that `cosigning_key` spells."""
        return None if self.cosigning_key is None else CosignerKey.from_string(self.cosigning_key)

    @property
    def encryption_fingerprint(self) -> str | None:
        """Sixteen hexadecimal digits to compare by eye: the start of SHA-256 of the raw key."""
        if self.encryption_key is None:
            return None
        return hashlib.sha256(decode_base64(self.encryption_key)).hexdigest()[:16]

    def _mistakes(self) -> Iterator[str]:
        if self.role in DATA_ROLES and self.encryption_key is None:
            yield f"{self.role} {self.name!r} needs an encryption_key: matches are encrypted to it"
        if self.role not in DATA_ROLES and self.encryption_key is not None:
            yield f"{self.role} {self.name!r} can have no encryption_key: nothing needs it"
        if self.cosigning_key is not None:
            named, log = (text.partition("+")[0] for text in (self.cosigning_key, self.log_key))
            if named != log:
                yield f"{self.name!r}: cosigning_key is named {named!r}, and its log {log!r}"
