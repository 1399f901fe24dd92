"""Recognise a value that already is a SHA-256 digest, so that it is never hashed twice.

Guarantees: only spellings of exactly 32 bytes are digests: 64 hexadecimal digits of either case,
or canonical base64 (RFC 4648 section 4); from recipe version 2 also base64 without its padding
and base64url (section 5). Whose rules the hashed value followed cannot be known.
"""

import base64
import binascii
import hashlib

__all__ = ["DIGEST_BYTES", "recognise_digest", "sha256"]

DIGEST_BYTES = 32
"""Length of a SHA-256 digest, in bytes."""

_FROM_URL_SAFE = str.maketrans("-_", "+/")


def sha256(text: str) -> bytes:
    """Return the SHA-256 of the text in UTF-8."""
    return hashlib.sha256(text.encode()).digest()


def recognise_digest(text: str, version: int) -> bytes | None:
    """Return the 32 bytes that the text spells, or None for other text.

    Args:
        text: a value without surrounding blanks.
        version: of the recipe; 1 knows hexadecimal and padded base64 only.
    """
    try:
        if len(text) == 64:
            return binascii.unhexlify(text)
        if len(text) in {43, 44}:
            return _from_base64(text, version)
    except ValueError:
        pass
    return None


def _from_base64(text: str, version: int) -> bytes | None:
    """Read base64 that writes its last character as the standard demands."""
    if version > 1:
        if not {"-", "_"}.isdisjoint(text):
            if not {"+", "/"}.isdisjoint(text):
                return None
            text = text.translate(_FROM_URL_SAFE)
        text = text if len(text) == 44 else text + "="
    digest = base64.b64decode(text, validate=True)
    canonical = len(digest) == DIGEST_BYTES and base64.b64encode(digest) == text.encode()
    return digest if canonical else None
