"""Signed notes (C2SP signed-note) with Ed25519 signatures (type 0x01), and key strings of any type.

A note is text that people can read, a blank line, and signature lines:

```
This is an example message.

— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3…
```

Guarantees: one spelling of everything (canonical base64, no stray whitespace or control
characters), bounded sizes, and `verify` returns nothing or raises. Signatures by unknown keys are
kept and ignored, as the format asks. Leaves to others: what the text means, whom to trust, and
signatures of other types (`cosignature`).
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from compliance.errors import SignatureError
from compliance.signing import SigningKey, VerifyingKey, decode_base64, encode_base64

__all__ = ["NOTE_LIMIT", "KeyText", "Note", "NoteKey", "NoteSignature"]

NOTE_LIMIT: Final = 131_072
"""Bytes that a whole note may have: some forty signatures of 3.3 kB."""

_ED25519: Final = 1
_KEY_ID_BYTES: Final = 4
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")


@dataclass(frozen=True)
class KeyText:
    """A public key of any type as text, `name+key id+base64(type ‖ key)` ("vkey"); unverified.

    Attributes:
        name: not empty, without whitespace or `+`.
        type: the signature type, one byte.
        raw: the key material.

    Raises:
        SignatureError: the name is malformed.
    """

    name: str
    type: int
    raw: bytes

    def __post_init__(self) -> None:
        _check_name(self.name)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a key string.

        Raises:
            SignatureError: malformed, or its id is not the key's.
        """
        name, _, rest = text.partition("+")
        _, _, encoded = rest.partition("+")
        try:
            material = decode_base64(encoded)
        except ValueError as error:
            raise SignatureError(f"verification key of {name!r}: {error}") from error
        if not material:
            raise SignatureError(f"verification key of {name!r}: expected a type and a key")
        key = cls(name, material[0], material[1:])
        if str(key) != text:
            raise SignatureError(
                f"verification key of {name!r}: expected key id {key.key_id.hex()}, got another: "
                "the string was mistyped or altered"
            )
        return key

    @property
    def key_id(self) -> bytes:
        """The first 4 bytes of SHA-256(name ‖ 0x0A ‖ type ‖ key)."""
        message = self.name.encode() + b"\n" + bytes([self.type]) + self.raw
        return hashlib.sha256(message).digest()[:_KEY_ID_BYTES]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{encode_base64(bytes([self.type]) + self.raw)}"


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
        """Read a key string `name+key id+base64(0x01 ‖ key)`.

        Raises:
            SignatureError: malformed, of another type than Ed25519, or its id is not the key's.
        """
        parsed = KeyText.parse(text)
        if parsed.type != _ED25519:
            raise SignatureError(
                f"verification key of {parsed.name!r}: expected type 1 (Ed25519), got {parsed.type}"
            )
        return cls(parsed.name, VerifyingKey(parsed.raw))

    def to_string(self) -> str:
        """Write the key as `name+key id+base64(0x01 ‖ key)`."""
        return str(self._text)

    @property
    def key_id(self) -> bytes:
        """The first 4 bytes of SHA-256(name ‖ 0x0A ‖ 0x01 ‖ key)."""
        return self._text.key_id

    @property
    def _text(self) -> KeyText:
        return KeyText(self.name, _ED25519, self.key.raw)


@dataclass(frozen=True)
class NoteSignature:
    """One signature line: the signer's name, the id of its key (4 bytes), the signature."""

    name: str
    key_id: bytes
    signature: bytes

    @property
    def line(self) -> str:
        """The line as it stands in a note, its newline included."""
        return f"— {self.name} {encode_base64(self.key_id + self.signature)}\n"

    @classmethod
    def parse_lines(cls, text: str) -> tuple[Self, ...]:
        """Read one or more signature lines.

        Raises:
            SignatureError: malformed.
        """
        if not text.endswith("\n"):
            raise SignatureError("note: expected signature lines that end in newlines")
        return tuple(map(cls._parse, text[:-1].split("\n")))

    @classmethod
    def _parse(cls, line: str) -> Self:
        dash, _, rest = line.partition(" ")
        name, _, encoded = rest.partition(" ")
        if dash != "—":
            raise SignatureError(
                "note: expected a signature line to begin with an em dash and a space"
            )
        _check_name(name)
        try:
            blob = decode_base64(encoded)
        except ValueError as error:
            raise SignatureError(f"note: signature by {name!r}: {error}") from error
        if len(blob) <= _KEY_ID_BYTES:
            raise SignatureError(
                f"note: signature by {name!r}: expected over 4 bytes, got {len(blob)}"
            )
        return cls(name, blob[:_KEY_ID_BYTES], blob[_KEY_ID_BYTES:])


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
        return cls(text, NoteSignature.parse_lines(signatures))

    def to_bytes(self) -> bytes:
        """Write the note as `parse` reads it."""
        return "".join([self.text, "\n", *(entry.line for entry in self.signatures)]).encode()

    def verify(self, key: NoteKey) -> None:
        """Return only if `key` signed the text, and every signature in its name and id is valid.

        Raises:
            SignatureError: in every other case.
        """
        for signature in self.signatures_by(key.name, key.key_id):
            key.key.verify(signature, self.text.encode())

    def signatures_by(self, name: str, key_id: bytes) -> tuple[bytes, ...]:
        """Return the signatures in this name and key id: at least one; none is verified.

        Raises:
            SignatureError: there is none.
        """
        found = tuple(
            entry.signature
            for entry in self.signatures
            if (entry.name, entry.key_id) == (name, key_id)
        )
        if not found:
            raise SignatureError(
                f"note: expected a signature by {name!r} with key id {key_id.hex()}, got "
                "only those of: "
                + ", ".join(f"{entry.name!r} {entry.key_id.hex()}" for entry in self.signatures)
            )
        return found


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
