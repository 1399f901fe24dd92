"""The public keys of an identity provider: from a file, or from where it publishes them.

Guarantees: from a file, what it holds now. From a URL: over HTTPS alone, by the system's
authorities or those that are named; no redirect is followed, no proxy is used, and size and time
are bounded. Keys are kept for ten minutes; a key that is not among them has them fetched at most
once a minute, whoever asks how often. When the provider is away, keys that were fetched count for
an hour, and none after that.

Leaves to others: what a key is good for (`identity_provider`).
"""

import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from threading import Lock
from typing import Final
from urllib.parse import urlsplit

from federation.errors import CoordinatorUnreachableError, WorkspaceError
from federation.operations.identity_provider import (
    IdentityProviderConfig,
    KeySet,
    ProviderKey,
    read_key_set,
)

__all__ = ["FetchedKeys", "FileKeys", "fetch_keys", "keys_of"]

_LIMIT: Final = 256 * 1024
_SECONDS: Final = 5.0
_FRESH_SECONDS: Final = 600.0
_PAUSE_SECONDS: Final = 60.0
_GOOD_SECONDS: Final = 3600.0


def keys_of(config: IdentityProviderConfig, folder: Path) -> "Callable[[str], ProviderKey | None]":
    """Return what finds a provider's key by its id.

    Args:
        config: says where the keys are.
        folder: from which paths in it are taken.
    """
    if config.keys is not None:
        return FileKeys(folder / config.keys).find
    roots = config.root_certificates and folder / config.root_certificates
    url = config.jwks_uri or ""
    return FetchedKeys(lambda: fetch_keys(url, roots=roots), seconds=time.monotonic).find


class FileKeys:
    """Keys in a file, read anew for each token.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def find(self, key_id: str) -> ProviderKey | None:
        """Return the key of an id, if there is one.

        Raises:
            WorkspaceError: the file cannot be read, or holds no keys.
        """
        try:
            with self._path.open("rb") as file:
                content = file.read(_LIMIT + 1)
        except OSError as error:
            raise WorkspaceError(
                f"the identity provider's keys {self._path} cannot be read ({error.strerror})"
            ) from error
        return _read(content, str(self._path)).get(key_id)


@dataclass(frozen=True)
class _Kept:
    keys: KeySet
    since: float


class FetchedKeys:
    """Keys that are fetched, and kept for a while; for any number of threads.

    Args:
        fetch: returns them.
        seconds: a clock that never goes back.
    """

    def __init__(self, fetch: Callable[[], KeySet], *, seconds: Callable[[], float]) -> None:
        self._fetch = fetch
        self._seconds = seconds
        self._lock = Lock()
        self._kept: _Kept | None = None
        self._tried: float | None = None

    def find(self, key_id: str) -> ProviderKey | None:
        """Return the key of an id, if there is one.

        Raises:
            CoordinatorUnreachableError: the provider cannot be reached, and none are kept.
            WorkspaceError: what it publishes are no keys, and none are kept.
        """
        kept = self._kept
        if kept is None or self._is_due(kept, key_id):
            # one thread fetches; meanwhile others do with what is there, if anything is
            if self._lock.acquire(blocking=kept is None):
                try:
                    self._refresh(key_id)
                finally:
                    self._lock.release()
            kept = self._kept
        if kept is None or self._seconds() - kept.since >= _GOOD_SECONDS:
            raise CoordinatorUnreachableError(
                "the identity provider's keys cannot be had: see that its jwks-uri answers"
            )
        return kept.keys.get(key_id)

    def _is_due(self, kept: _Kept, key_id: str) -> bool:
        return key_id not in kept.keys or self._seconds() - kept.since >= _FRESH_SECONDS

    def _refresh(self, key_id: str) -> None:
        now, kept = self._seconds(), self._kept
        if kept is not None and not self._is_due(kept, key_id):
            return  # somebody else has just fetched them
        if self._tried is not None and now - self._tried < _PAUSE_SECONDS:
            return
        self._tried = now
        try:
            self._kept = _Kept(self._fetch(), now)
        except (WorkspaceError, CoordinatorUnreachableError):
            if kept is None:
                raise


def fetch_keys(url: str, *, roots: Path | None, seconds: float = _SECONDS) -> KeySet:
    """Fetch the keys that a provider publishes.

    Args:
        url: https.
        roots: file of the authorities (PEM) that vouch for it; the system's where left out.
        seconds: patience for all of it, and for each step.

    Raises:
        CoordinatorUnreachableError: nobody answers there in time, or with something else.
        WorkspaceError: what it answers are no keys, or `roots` no certificates.
    """
    place, end = urlsplit(url), time.monotonic() + seconds
    try:
        context = ssl.create_default_context(cafile=roots and str(roots))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    except OSError as error:  # an SSLError is one
        raise WorkspaceError(f"{roots} holds no certificates in PEM") from error
    path = f"{place.path or '/'}?{place.query}" if place.query else place.path or "/"
    content = b""
    try:
        connection = HTTPSConnection(
            place.hostname or "", place.port, timeout=seconds, context=context
        )
        try:
            connection.request("GET", path, headers={"Accept": "application/json"})
            answer = connection.getresponse()
            while piece := answer.read1(_LIMIT):
                content += piece
                if len(content) > _LIMIT or time.monotonic() > end:
                    raise HTTPException("too much, or too slow")
        finally:
            connection.close()
    except (OSError, HTTPException, ValueError) as error:
        raise CoordinatorUnreachableError(
            f"the identity provider's keys at {url} cannot be fetched ({error})"
        ) from error
    if answer.status != HTTPStatus.OK:
        raise CoordinatorUnreachableError(
            f"the identity provider's keys at {url}: expected HTTP 200, got {answer.status}"
        )
    return _read(content, url)


def _read(content: bytes, source: str) -> KeySet:
    if len(content) > _LIMIT:
        raise WorkspaceError(f"{source}: expected at most {_LIMIT} bytes of keys")
    return read_key_set(content, source=source)
