"""A random key for each person: what is written about them hangs on it, and ends with it.

```
per person    K            32 random bytes, in the party's store and nowhere else
pseudonym     HMAC-SHA-256(HKDF(K, "pseudonym"), origin, subject)
commitment    HMAC-SHA-256(HKDF(K, "commitment"), body)
sealed body   nonce (32) · commitment (32) · AES-256-GCM ciphertext and tag
              commitment · cipher key = HKDF-SHA-256(K, salt = nonce, info = context), 64 bytes
```

Guarantees: without K, a pseudonym is a random-looking number, whatever lists of candidates one has,
and a sealed body is noise of known length. Destroying K changes no byte of a log, so every proof
still verifies. A sealed body opens under one key, nonce and context only (it is committing, as
AES-GCM alone is not): nobody can make one that means two things under two keys.

Leaves to others: entropy (the caller brings 32 bytes each time), hiding the length of a body, and
the copies of the store that others made: backups, and blocks that a disk keeps though SQLite
overwrote or removed what stood in them (its rollback journal among them). Encrypt that disk.

Sources: RFC 5869 (HKDF); NIST SP 800-38D (GCM); Albertini, Duong, Gueron, Kölbl, Luykx and
Schmieg, "How to abuse and fix authenticated encryption without key commitment", USENIX Security
2022 (a commitment derived beside the cipher key); Bellare and Hoang, "Efficient schemes for
committing authenticated encryption", EUROCRYPT 2022 (CMT-4: key, nonce and context).
"""

import hashlib
import hmac
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from compliance.errors import SubjectKeyError

__all__ = ["KEY_BYTES", "NONCE_BYTES", "SEALED_EXTRA_BYTES", "SubjectKey", "SubjectKeys"]

KEY_BYTES: Final = 32
"""Length of a subject's key."""

NONCE_BYTES: Final = 32
"""Length of the nonce of a sealed body; long enough to be drawn at random every time."""

SEALED_EXTRA_BYTES: Final = NONCE_BYTES + 32 + 16
"""What sealing adds: nonce, commitment and tag."""

_PSEUDONYM: Final = b"comity subject pseudonym 1"
_COMMITMENT: Final = b"comity subject commitment 1"
_BODY: Final = b"comity subject body 1"
_ONE_USE: Final = bytes(12)  # the cipher key is used once, so its own nonce may be constant
_SUBJECTS_PER_QUERY: Final = 10_000


class SubjectKey:
    """One person's key; it never shows its secret."""

    __slots__ = ("_raw",)

    def __init__(self, raw: bytes) -> None:
        """Take 32 secret, uniformly random bytes.

        Raises:
            SubjectKeyError: another length.
        """
        if len(raw) != KEY_BYTES:
            raise SubjectKeyError(f"a subject's key has {KEY_BYTES} bytes, got {len(raw)}")
        self._raw = raw

    def pseudonym(self, origin: str, subject: str) -> str:
        """Return what a person is called in what others see: 64 hexadecimal digits.

        Args:
            origin: where the name is used, such as a log's origin: the same person has unrelated
                names in two of them.
            subject: the party's own reference of the person.
        """
        return self._mac(_PSEUDONYM, _joined(origin.encode(), subject.encode()))

    def commitment(self, body: bytes) -> str:
        """Return what stands in a log for a body that stays out of it: 64 hexadecimal digits.

        It tells nothing of the body without the key. The key's owner can open it in one way only.
        """
        return self._mac(_COMMITMENT, body)

    def seal(self, plaintext: bytes, *, context: bytes, nonce: bytes) -> bytes:
        """Encrypt a body so that it opens under this key and context alone.

        Args:
            plaintext: of any length that memory holds.
            context: where it belongs, such as the kind and place of a leaf.
            nonce: 32 random bytes, never used twice.

        Returns:
            `SEALED_EXTRA_BYTES` more than the plaintext has.

        Raises:
            SubjectKeyError: the nonce has another length.
        """
        if len(nonce) != NONCE_BYTES:
            raise SubjectKeyError(f"expected a nonce of {NONCE_BYTES} bytes, got {len(nonce)}")
        commitment, cipher = self._derive(nonce, context)
        return nonce + commitment + cipher.encrypt(_ONE_USE, plaintext, None)

    def open(self, sealed: bytes, *, context: bytes) -> bytes:
        """Decrypt what was sealed under this key in this context.

        1. The commitment is that of this key, nonce and context.
        2. The tag fits.

        Raises:
            SubjectKeyError: at the first step that fails.
        """
        if len(sealed) < SEALED_EXTRA_BYTES:
            raise SubjectKeyError(
                f"expected at least {SEALED_EXTRA_BYTES} sealed bytes, got {len(sealed)}"
            )
        nonce, told, body = sealed[:32], sealed[32:64], sealed[64:]
        commitment, cipher = self._derive(nonce, context)
        if not hmac.compare_digest(commitment, told):  # 1
            raise SubjectKeyError(
                "a sealed body that does not open: it belongs to another person's key, or elsewhere"
            )
        try:
            return cipher.decrypt(_ONE_USE, body, None)  # 2
        except InvalidTag as error:
            raise SubjectKeyError("a sealed body that does not open: it was changed") from error

    def _mac(self, use: bytes, told: bytes) -> str:
        key = HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=use).derive(self._raw)
        return hmac.new(key, told, hashlib.sha256).hexdigest()

    def _derive(self, nonce: bytes, context: bytes) -> tuple[bytes, AESGCM]:
        """Return the commitment and the cipher.

        HKDF of a key and salt of fixed lengths hashes all it is given, so that two inputs with one
        commitment would be a collision of SHA-256.
        """
        info = _joined(_BODY, context)
        derived = HKDF(hashes.SHA256(), 64, salt=nonce, info=info).derive(self._raw)
        return derived[:32], AESGCM(derived[32:])

    def __repr__(self) -> str:
        return "SubjectKey(…)"


class SubjectKeys:
    """A party's store of subjects' keys: one SQLite file, readable by its owner alone.

    Use it under the party's lock: one process at a time. A crash leaves each key whole, or gone.
    """

    def __init__(self, path: Path, draw: Callable[[], bytes]) -> None:
        self._path = path
        self._draw = draw

    @classmethod
    def open(cls, path: Path, *, draw: Callable[[], bytes]) -> Self:
        """Open a store, and make it where there is none.

        Args:
            path: of the file.
            draw: returns 32 fresh random bytes at every call.

        Raises:
            SubjectKeyError: it is damaged, or the disk refuses.
        """
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        store = cls(path, draw)
        with store._transaction() as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS subject_key"
                " (subject TEXT PRIMARY KEY, key BLOB NOT NULL) WITHOUT ROWID"
            )
        return store

    def of(self, subjects: Sequence[str]) -> tuple[SubjectKey, ...]:
        """Return the key of each subject, in their order; who has none gets one.

        Raises:
            SubjectKeyError: the store is damaged, or the disk refuses.
        """
        with self._transaction() as connection:
            found = _read(connection, subjects)
            fresh = {name: self._draw() for name in dict.fromkeys(subjects) if name not in found}
            keys = {name: SubjectKey(raw) for name, raw in (found | fresh).items()}
            connection.executemany("INSERT INTO subject_key VALUES (?, ?)", fresh.items())
        return tuple(keys[name] for name in subjects)

    def find(self, subjects: Sequence[str]) -> tuple[SubjectKey | None, ...]:
        """Return the key of each subject, in their order; None where there is none (any more).

        Raises:
            SubjectKeyError: the store is damaged, or the disk refuses.
        """
        with self._transaction() as connection:
            found = _read(connection, subjects)
        return tuple(SubjectKey(found[name]) if name in found else None for name in subjects)

    def destroy(self, subjects: Sequence[str]) -> int:
        """Destroy the keys of subjects, overwriting them; who has none is passed over.

        Returns:
            How many were destroyed.

        Raises:
            SubjectKeyError: the store is damaged, or the disk refuses; then none is gone.
        """
        with self._transaction() as connection:
            rows = [(name,) for name in dict.fromkeys(subjects)]
            cursor = connection.executemany("DELETE FROM subject_key WHERE subject = ?", rows)
            return max(cursor.rowcount, 0)

    def has_any(self, subjects: Sequence[str]) -> bool:
        """Tell whether any of the subjects has a key.

        Raises:
            SubjectKeyError: the store is damaged, or the disk refuses.
        """
        asked = "SELECT 1 FROM subject_key WHERE subject = ?"
        with self._transaction() as connection:
            return any(connection.execute(asked, (one,)).fetchone() for one in subjects)

    def count(self) -> int:
        """Return how many subjects have a key."""
        with self._transaction() as connection:
            return int(connection.execute("SELECT count(*) FROM subject_key").fetchone()[0])

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = sqlite3.connect(self._path, isolation_level="IMMEDIATE")
            try:
                connection.execute("PRAGMA secure_delete = ON")
                connection.execute("PRAGMA synchronous = FULL")
                with connection:
                    yield connection
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise SubjectKeyError(
                f"{self._path} cannot be used ({type(error).__name__}): expected a whole store of "
                "subjects' keys, and room and rights on its disk"
            ) from error


def _read(connection: sqlite3.Connection, subjects: Sequence[str]) -> dict[str, bytes]:
    names = list(dict.fromkeys(subjects))
    found: dict[str, bytes] = {}
    for start in range(0, len(names), _SUBJECTS_PER_QUERY):
        some = names[start : start + _SUBJECTS_PER_QUERY]
        marks = ",".join("?" * len(some))
        query = f"SELECT subject, key FROM subject_key WHERE subject IN ({marks})"  # noqa: S608
        found.update(connection.execute(query, some))
    return found


def _joined(*parts: bytes) -> bytes:
    """Join byte strings so that no other list of them gives the same bytes."""
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)
