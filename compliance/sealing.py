"""Bytes sealed under a key so that they open under it, and in their place, alone.

```
sealed body   nonce (32) · commitment (32) · AES-256-GCM ciphertext and tag
              commitment · cipher key = HKDF-SHA-256(K, salt = nonce, info), 64 bytes
sealed file   "comity-sealed-1" and a line feed · id of K (8) · sealed body
              info = what precedes the body, the folder's owner and the file's name in the folder
```

Guarantees: a body opens under one key, nonce and info only (it is committing, as AES-GCM alone is
not). So a file opens in its own folder and under its own name: two cannot change places, and no
byte of one can be changed. A sealed file begins so that it is never taken for content in clear.

Leaves to others: entropy (the caller brings each nonce), where the key comes from
(`federation.unsealing`), the length of what is sealed, and an older sealed file that is put back.

Sources: RFC 5869 (HKDF); NIST SP 800-38D (GCM); Albertini, Duong, Gueron, Kölbl, Luykx and
Schmieg, "How to abuse and fix authenticated encryption without key commitment", USENIX Security
2022 (a commitment derived beside the cipher key); Bellare and Hoang, "Efficient schemes for
committing authenticated encryption", EUROCRYPT 2022 (CMT-4: key, nonce and context).
"""

import hmac
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from compliance.errors import SealingError, SealingKeyError

__all__ = [
    "BODY_EXTRA_BYTES",
    "NONCE_BYTES",
    "UNSEALING_KEY_BYTES",
    "UnsealingKey",
    "is_sealed",
    "joined",
    "open_body",
    "seal_body",
]

UNSEALING_KEY_BYTES: Final = 32
"""Length of a key that unseals files."""

NONCE_BYTES: Final = 32
"""Length of the nonce of a sealed body; long enough to be drawn at random every time."""

BODY_EXTRA_BYTES: Final = NONCE_BYTES + 32 + 16
"""What sealing a body adds: nonce, commitment and tag."""

_FAMILY: Final = b"comity-sealed-"
_MAGIC: Final = _FAMILY + b"1\n"
_ID_BYTES: Final = 8
_HEAD_BYTES: Final = len(_MAGIC) + _ID_BYTES
_ONE_USE: Final = bytes(12)  # the cipher key is used once, so its own nonce may be constant


def seal_body(key: bytes, plaintext: bytes, *, info: bytes, nonce: bytes) -> bytes:
    """Encrypt bytes so that they open under this key, nonce and info alone.

    Args:
        key: 32 secret, uniformly random bytes.
        plaintext: of any length that memory holds.
        info: what is sealed, and where it belongs.
        nonce: 32 random bytes, never used twice.

    Returns:
        `BODY_EXTRA_BYTES` more than the plaintext has.
    """
    commitment, cipher = _derive(key, nonce, info)
    return nonce + commitment + cipher.encrypt(_ONE_USE, plaintext, None)


def open_body(key: bytes, sealed: bytes, *, info: bytes) -> bytes:
    """Decrypt what `seal_body` made.

    1. There are bytes enough. 2. The commitment is that of key, nonce and info. 3. The tag fits.

    Raises:
        SealingKeyError: at step 2.
        SealingError: at another step.
    """
    if len(sealed) < BODY_EXTRA_BYTES:  # 1
        raise SealingError(f"expected at least {BODY_EXTRA_BYTES} sealed bytes, got {len(sealed)}")
    nonce, told, body = sealed[:32], sealed[32:64], sealed[64:]
    commitment, cipher = _derive(key, nonce, info)
    if not hmac.compare_digest(commitment, told):  # 2
        raise SealingKeyError("it was changed, or belongs to another key, or elsewhere")
    try:
        return cipher.decrypt(_ONE_USE, body, None)  # 3
    except InvalidTag as error:
        raise SealingError("it was changed") from error


def joined(*parts: bytes) -> bytes:
    """Join byte strings so that no other list of them gives the same bytes."""
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def is_sealed(content: bytes) -> bool:
    """Tell whether a file's content is sealed, in this format or a later one."""
    return content.startswith(_FAMILY)


class UnsealingKey:
    """The key under which a folder's secrets are sealed; it never shows itself.

    Attributes:
        name: by which people tell two keys apart, 16 hexadecimal digits; it tells nothing of the
            key.
    """

    __slots__ = ("_raw", "name")

    def __init__(self, raw: bytes) -> None:
        """Take 32 secret, uniformly random bytes.

        Raises:
            SealingError: another length.
        """
        if len(raw) != UNSEALING_KEY_BYTES:
            raise SealingError(f"an unsealing key has {UNSEALING_KEY_BYTES} bytes, got {len(raw)}")
        self._raw = raw
        hkdf = HKDF(hashes.SHA256(), _ID_BYTES, salt=None, info=b"comity unsealing key id 1")
        self.name = hkdf.derive(raw).hex()

    def seal(self, content: bytes, *, owner: str, name: str, nonce: bytes) -> bytes:
        """Seal a file.

        Args:
            content: of the file.
            owner: of the folder in which it lies.
            name: of the file within it.
            nonce: 32 random bytes, never used twice.
        """
        head = _MAGIC + bytes.fromhex(self.name)
        info = joined(head, owner.encode(), name.encode())
        return head + seal_body(self._raw, content, info=info, nonce=nonce)

    def open(self, sealed: bytes, *, owner: str, name: str) -> bytes:
        """Open a sealed file.

        1. It is of this format. 2. It names this key. 3. Its body opens, in this place.

        Raises:
            SealingKeyError: at step 2, or what is sealed belongs elsewhere.
            SealingError: it is not sealed in this format, or was changed.
        """
        if not sealed.startswith(_MAGIC):  # 1
            raise SealingError("expected the sealed format of this version, got another")
        head, body = sealed[:_HEAD_BYTES], sealed[_HEAD_BYTES:]
        if (found := head[len(_MAGIC) :].hex()) != self.name:  # 2
            raise SealingKeyError(f"it is sealed under key {found}, and key {self.name} was given")
        return open_body(  # 3
            self._raw, body, info=joined(head, owner.encode(), name.encode())
        )

    def __repr__(self) -> str:
        return f"UnsealingKey({self.name})"


def _derive(key: bytes, nonce: bytes, info: bytes) -> tuple[bytes, AESGCM]:
    """Return the commitment and the cipher.

    HKDF of a key and salt of fixed lengths hashes all it is given, so that two inputs with one
    commitment would be a collision of SHA-256.
    """
    derived = HKDF(hashes.SHA256(), 64, salt=nonce, info=info).derive(key)
    return derived[:32], AESGCM(derived[32:])
