"""A random key for each person: what is written about them hangs on it, and ends with it.

```
per person    K            32 random bytes, in the party's store and nowhere else
pseudonym     HMAC-SHA-256(HKDF(K, "pseudonym"), origin, subject)
commitment    HMAC-SHA-256(HKDF(K, "commitment"), body)
sealed body   as in `sealing`, under K, for its context
```

Guarantees: without K, a pseudonym is a random-looking number, whatever lists of candidates one has,
and a sealed body is noise of known length. Destroying K changes no byte of a log, so every proof
still verifies. Nobody can make a sealed body that means two things under two keys.

Leaves to others: entropy (the caller brings 32 bytes each time), hiding the length of a body, and
the copies of the store that others made: backups, and blocks that a disk keeps though SQLite
overwrote or removed what stood in them (its rollback journal among them). Encrypt that disk.
"""

import hashlib
import hmac
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol, Self

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from compliance.errors import SealingError, SealingKeyError, SubjectKeyError
from compliance.formats import claim_format
from compliance.sealing import BODY_EXTRA_BYTES, NONCE_BYTES, joined, open_body, seal_body

__all__ = [
    "KEY_BYTES",
    "NONCE_BYTES",
    "SEALED_EXTRA_BYTES",
    "SubjectKey",
    "SubjectKeys",
    "Wrapping",
]

KEY_BYTES: Final = 32
"""Length of a subject's key."""

SEALED_EXTRA_BYTES: Final = BODY_EXTRA_BYTES
"""What sealing adds: nonce, commitment and tag."""

_PSEUDONYM: Final = b"comity subject pseudonym 1"
_COMMITMENT: Final = b"comity subject commitment 1"
_BODY: Final = b"comity subject body 1"
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
        return self._mac(_PSEUDONYM, joined(origin.encode(), subject.encode()))

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
        return seal_body(self._raw, plaintext, info=joined(_BODY, context), nonce=nonce)

    def open(self, sealed: bytes, *, context: bytes) -> bytes:
        """Decrypt what was sealed under this key in this context.

        Raises:
            SubjectKeyError: it was not, or it was changed.
        """
        try:
            return open_body(self._raw, sealed, info=joined(_BODY, context))
        except SealingKeyError as error:
            raise SubjectKeyError(
                "a sealed body that does not open: it belongs to another person's key, or elsewhere"
            ) from error
        except SealingError as error:
            raise SubjectKeyError(f"a sealed body that does not open: {error}") from error

    def _mac(self, use: bytes, told: bytes) -> str:
        key = HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=use).derive(self._raw)
        return hmac.new(key, told, hashlib.sha256).hexdigest()

    def __repr__(self) -> str:
        return "SubjectKey(…)"


class Wrapping(Protocol):
    """How keys lie in a store; what it raises passes through."""

    def wrap(self, subject: str, key: bytes) -> bytes:
        """Return what is stored of a subject's key."""

    def unwrap(self, subject: str, stored: bytes) -> bytes:
        """Return the key of a subject from what is stored of it."""


class _InClear:
    def wrap(self, subject: str, key: bytes) -> bytes:  # noqa: ARG002
        return key

    def unwrap(self, subject: str, stored: bytes) -> bytes:  # noqa: ARG002
        return stored


class SubjectKeys:
    """A party's store of subjects' keys: one SQLite file, readable by its owner alone.

    Use it under the party's lock: one process at a time. A crash leaves each key whole, or gone.
    """

    def __init__(self, path: Path, draw: Callable[[], bytes], wrapping: Wrapping) -> None:
        self._path = path
        self._draw = draw
        self._wrapping = wrapping

    @classmethod
    def open(
        cls, path: Path, *, draw: Callable[[], bytes], wrapping: Wrapping | None = None
    ) -> Self:
        """Open a store, and make it where there is none.

        Args:
            path: of the file.
            draw: returns 32 fresh random bytes at every call.
            wrapping: how keys lie in it; in clear where left out.

        Raises:
            StoreFormatError: a later version wrote it.
            SubjectKeyError: it is damaged, or the disk refuses.
        """
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        store = cls(path, draw, wrapping or _InClear())
        with store._transaction() as connection:
            claim_format(connection, path)
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
            found = self._read(connection, subjects)
            fresh = {name: self._draw() for name in dict.fromkeys(subjects) if name not in found}
            keys = {name: SubjectKey(raw) for name, raw in (found | fresh).items()}
            rows = ((name, self._wrapping.wrap(name, raw)) for name, raw in fresh.items())
            connection.executemany("INSERT INTO subject_key VALUES (?, ?)", rows)
        return tuple(keys[name] for name in subjects)

    def find(self, subjects: Sequence[str]) -> tuple[SubjectKey | None, ...]:
        """Return the key of each subject, in their order; None where there is none (any more).

        Raises:
            SubjectKeyError: the store is damaged, or the disk refuses.
        """
        with self._transaction() as connection:
            found = self._read(connection, subjects)
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

    def _read(self, connection: sqlite3.Connection, subjects: Sequence[str]) -> dict[str, bytes]:
        names = list(dict.fromkeys(subjects))
        found: dict[str, bytes] = {}
        for start in range(0, len(names), _SUBJECTS_PER_QUERY):
            some = names[start : start + _SUBJECTS_PER_QUERY]
            marks = ",".join("?" * len(some))
            query = f"SELECT subject, key FROM subject_key WHERE subject IN ({marks})"  # noqa: S608
            found.update(connection.execute(query, some))
        return {name: self._wrapping.unwrap(name, stored) for name, stored in found.items()}

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
