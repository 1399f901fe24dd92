"""Requests that are made once, however often they are sent.

```
PARTY/api/answers.sqlite   for each client and key: when it began, and what was answered
```

```
begin   1 another body under the same key is refused
        2 what was answered is answered again
        3 what is at work is not begun a second time
        4 what a crash cut is begun again, as of the moment at which it first began
```

Guarantees: a request that is done again after a crash has the time of the first, so that an event
which was recorded already is a repetition, and changes nothing. Bodies are kept as a keyed hash;
answers hold no identifier (whoever calls sees to it).

Leaves to others: one process at a time serves a party (`server`).
"""

import hmac
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import Final

from compliance.formats import claim_format
from federation.errors import FederationError
from federation.safe import Safe
from privacy.randomness import new_secret

__all__ = ["Answer", "Answers", "KeyReusedError", "StillAtWorkError"]

_KEPT: Final = timedelta(days=7)
_ROW: Final = "requests"
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS secret (key BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS answer (
    client TEXT NOT NULL, key TEXT NOT NULL, asked BLOB NOT NULL, began TEXT NOT NULL,
    status INTEGER, body BLOB, PRIMARY KEY (client, key)
) WITHOUT ROWID;
"""


class KeyReusedError(FederationError):
    """A key was used for another request before."""


class StillAtWorkError(FederationError):
    """The same request is at work at this moment."""


@dataclass(frozen=True)
class Answer:
    """What was answered.

    Attributes:
        status: of HTTP.
        body: in bytes, as it was sent.
    """

    status: int
    body: bytes


class Answers:
    """What the clients of one party were answered.

    Args:
        directory: the party's folder.
        safe: how its secrets lie; in clear where left out.

    Raises:
        StoreFormatError: a later version wrote them.
    """

    def __init__(self, directory: Path, *, safe: Safe | None = None) -> None:
        path = directory / "api" / "answers.sqlite"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        self._path = path
        self._lock = Lock()
        self._at_work: set[tuple[str, str]] = set()
        with self._connection() as connection:
            claim_format(connection, path)
            connection.executescript(_TABLES)
            if connection.execute("SELECT key FROM secret").fetchone() is None:
                fresh = bytes(new_secret())
                kept = fresh if safe is None else safe.seal(path, fresh, row=_ROW)
                connection.execute("INSERT INTO secret VALUES (?)", (kept,))
            (kept,) = connection.execute("SELECT key FROM secret").fetchone()
        self._secret: bytes = kept if safe is None else safe.unseal(path, kept, row=_ROW)

    @contextmanager
    def once(
        self, client: str, key: str, asked: bytes, *, now: datetime
    ) -> "Iterator[Answer | datetime]":
        """Begin a request under a key.

        Args:
            client: whose key it is.
            key: as the client chose it.
            asked: what is asked, method and path included.
            now: the time, with a zone.

        Yields:
            What was answered before; else the moment at which it first began, and `keep` is to be
            called with the answer before the block ends.

        Raises:
            KeyReusedError: something else was asked under the key.
            StillAtWorkError: the same is at work.
        """
        digest = hmac.digest(self._secret, asked, "sha256")
        with self._lock:
            if (client, key) in self._at_work:
                raise StillAtWorkError("the same request is at work: ask again in a moment")  # 3
            self._at_work.add((client, key))
        try:
            yield self._begin(client, key, digest, now)
        finally:
            self._at_work.discard((client, key))

    def keep(self, client: str, key: str, answer: Answer) -> None:
        """Keep the answer to a request that was begun."""
        with self._connection() as connection:
            connection.execute(
                "UPDATE answer SET status = ?, body = ? WHERE client = ? AND key = ?",
                (answer.status, answer.body, client, key),
            )

    def _begin(self, client: str, key: str, digest: bytes, now: datetime) -> Answer | datetime:
        with self._connection() as connection:
            oldest = (now - _KEPT).astimezone(UTC).isoformat()
            connection.execute("DELETE FROM answer WHERE began < ?", (oldest,))
            row = connection.execute(
                "SELECT asked, began, status, body FROM answer WHERE client = ? AND key = ?",
                (client, key),
            ).fetchone()
            if row is None:
                began = now.astimezone(UTC).isoformat()
                connection.execute(
                    "INSERT INTO answer (client, key, asked, began) VALUES (?, ?, ?, ?)",
                    (client, key, digest, began),
                )
                return now
        asked, began, status, body = row
        if not hmac.compare_digest(asked, digest):
            raise KeyReusedError("this key was used for another request: choose a new one")  # 1
        return datetime.fromisoformat(began) if status is None else Answer(status, body)  # 2, 4

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self._path, timeout=10)
        try:
            connection.execute("PRAGMA synchronous = FULL")
            with connection:
                yield connection
        finally:
            connection.close()
