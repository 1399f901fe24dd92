"""Signed notes (C2SP signed-note) with Ed25519 signatures (type 0x01), and their key strings.

A note is text that people can read, a blank line, and signature lines:

```
This is an example message.

— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3…
```

Guarantees: one spelling of everything (canonical base64, no stray whitespace or control
characters), bounded sizes, and `verify` returns nothing or raises. Signatures by unknown keys are
kept and ignored, as the format asks. Leaves to others: what the text means, and whom to trust.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from compliance.errors import SignatureError
from compliance.signing import SigningKey, VerifyingKey, decode_base64, encode_base64

__all__ = ["NOTE_LIMIT", "Note", "NoteKey", "NoteSignature"]

NOTE_LIMIT: Final = 65_536
"""Bytes that a whole note may have."""

_ED25519: Final = b"\x01"
_KEY_ID_BYTES: Final = 4
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")


@dataclass(frozen=True)
class NoteKey:
    """An Ed25519 key under the name that signs notes.

    Attributes:
        name: not empty, without whitespace or `+`; for a log, its origin.
        key: the public key.

    Raises:
        SignatureError: the name is malformed.
    """

    name: str
    key: VerifyingKey

    def __post_init__(self) -> None:
        _check_name(self.name)

    @classmethod
    def from_string(cls, text: str) -> Self:
        """Read a key string `name+key id+base64(0x01 ‖ key)` ("vkey").

        Raises:
            SignatureError: malformed, of another type than Ed25519, or its id is not the key's.
        """
        name, _, rest = text.partition("+")
        _, _, encoded = rest.partition("+")
        try:
            material = decode_base64(encoded)
        except ValueError as error:
            raise SignatureError(f"verification key of {name!r}: {error}") from error
        if material[:1] != _ED25519:
            raise SignatureError(
                f"verification key of {name!r}: expected type 1 (Ed25519), got {material[:1].hex()}"
            )
        key = cls(name, VerifyingKey(material[1:]))
        if key.to_string() != text:
            raise SignatureError(
                f"verification key of {name!r}: expected key id {key.key_id.hex()}, got another: "
                "the string was mistyped or altered"
            )
        return key

    def to_string(self) -> str:
        """Write the key as `name+key id+base64(0x01 ‖ key)`."""
        return f"{self.name}+{self.key_id.hex()}+{encode_base64(_ED25519 + self.key.raw)}"

    @property
    def key_id(self) -> bytes:
        """The first 4 bytes of SHA-256(name ‖ 0x0A ‖ 0x01 ‖ key)."""
        message = self.name.encode() + b"\n" + _ED25519 + self.key.raw
        return hashlib.sha256(message).digest()[:_KEY_ID_BYTES]


@dataclass(frozen=True)
class NoteSignature:
    """One signature line: the signer's name, the id of its key (4 bytes), the signature."""

    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True)
class Note:
    """A text with signatures; untrusted until `verify` has returned.

    Attributes:
        text: UTF-8 text that ends in a newline, without other control characters.
        signatures: at least one, in order.
    """

    text: str
    signatures: tuple[NoteSignature, ...]

    @classmethod
    def sign(cls, text: str, keys: Mapping[str, SigningKey]) -> Self:
        """Sign `text` with every key, by name.

        Raises:
            SignatureError: the text or a name is malformed, or there is no key.
        """
        _check_text(text)
        message = text.encode()
        signed = {NoteKey(name, key.public): key.sign(message) for name, key in keys.items()}
        if not signed:
            raise SignatureError("expected at least one key to sign the note with, got none")
        return cls(
            text,
            tuple(NoteSignature(key.name, key.key_id, value) for key, value in signed.items()),
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a note of at most 64 KiB.

        Raises:
            SignatureError: in every way that the bytes can depart from the format.
        """
        if len(data) > NOTE_LIMIT:
            raise SignatureError(f"expected a note of at most {NOTE_LIMIT} bytes, got {len(data)}")
        try:
            document = data.decode()
        except UnicodeDecodeError as error:
            raise SignatureError(f"note: expected UTF-8: {error.reason}") from error
        text, separator, signatures = document.rpartition("\n\n")
        if not separator or not signatures.endswith("\n"):
            raise SignatureError(
                "note: expected a text, a blank line, and signature lines that end in newlines"
            )
        _check_text(text := text + "\n")
        return cls(text, tuple(map(_parse_signature, signatures[:-1].split("\n"))))

    def to_bytes(self) -> bytes:
        """Write the note as `parse` reads it."""
        lines = [
            f"— {entry.name} {encode_base64(entry.key_id + entry.signature)}\n"
            for entry in self.signatures
        ]
        return "".join([self.text, "\n", *lines]).encode()

    def verify(self, key: NoteKey) -> None:
        """Return only if `key` signed the text, and every signature in its name and id is valid.

        Raises:
            SignatureError: in every other case.
        """
        by_key = [
            entry.signature
            for entry in self.signatures
            if (entry.name, entry.key_id) == (key.name, key.key_id)
        ]
        if not by_key:
            raise SignatureError(
                f"note: expected a signature by {key.name!r} with key id {key.key_id.hex()}, got "
                "only those of: "
                + ", ".join(f"{entry.name!r} {entry.key_id.hex()}" for entry in self.signatures)
            )
        for signature in by_key:
            key.key.verify(signature, self.text.encode())


def _parse_signature(line: str) -> NoteSignature:
    dash, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    if dash != "—":
        raise SignatureError("note: expected a signature line to begin with an em dash and a space")
    _check_name(name)
    try:
        blob = decode_base64(encoded)
    except ValueError as error:
        raise SignatureError(f"note: signature by {name!r}: {error}") from error
    if len(blob) <= _KEY_ID_BYTES:
        raise SignatureError(f"note: signature by {name!r}: expected over 4 bytes, got {len(blob)}")
    return NoteSignature(name, blob[:_KEY_ID_BYTES], blob[_KEY_ID_BYTES:])


def _check_name(name: str) -> None:
    if (
        not name
        or "+" in name
        or any(map(str.isspace, name))
        or _CONTROL.search(name)
        or not _is_unicode(name)
    ):
        raise SignatureError(
            f"expected a key name without whitespace, control characters or '+', got {name!r}"
        )


def _check_text(text: str) -> None:
    if not text.endswith("\n") or _CONTROL.search(text) or not _is_unicode(text):
        raise SignatureError(
            "note: expected text that ends in a newline and has no other control character"
        )


def _is_unicode(text: str) -> bool:
    """Whether the string can be encoded: it has no lone surrogate."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
