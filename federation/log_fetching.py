"""Fetch a log over HTTP (C2SP tlog-tiles) into a directory, from where it is read like any other.

Guarantees: only the files that a checkpoint signed by the given keys promises are asked for, each
of bounded size, and all of a log within one deadline and one number of bytes, however slowly or
wrongly the server answers; no redirect is followed.

Leaves to others: believing what came (`reading`), transport security (use https).
"""

import io
import time
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any, Final, cast
from urllib.error import HTTPError
from urllib.parse import urlsplit

from compliance.agreement import Agreement
from compliance.auditing.reading import party_of
from compliance.auditing.trust import keys_of_others, log_keys
from compliance.errors import LogError
from compliance.log.note import NOTE_LIMIT
from compliance.log.policy import open_checkpoint
from compliance.log.tiles import TILE_LIMIT, layout
from compliance.log.witnessing import origin_hash

__all__ = ["FetchError", "Limits", "fetch_log"]

_SECONDS: Final = 20
_MOST_ENTRIES: Final = 20_000_000
_ATTEMPTS: Final = 5


class FetchError(LogError):
    """A log cannot be fetched: the address, or the server's owner."""


class _AbsentError(FetchError):
    """The server answers, and does not have it."""


@dataclass(frozen=True)
class Limits:
    """What fetching one log may take.

    Attributes:
        seconds: for all of it.
        octets: for all of it, headers included.
    """

    seconds: float = 600
    octets: int = 1_000_000_000


class _Allowance:
    """What is left of the limits of one log."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits, self._clock = limits, clock
        self._end, self._octets = clock() + limits.seconds, limits.octets

    def seconds(self) -> float:
        """Return how long the next operation may wait.

        Raises:
            FetchError: the deadline is over.
        """
        if (left := self._end - self._clock()) <= 0:
            raise FetchError(f"the log took more than {self._limits.seconds:g} seconds in all")
        return min(left, _SECONDS)

    def take(self, octets: int) -> None:
        """Count what came.

        Raises:
            FetchError: it is more than may come.
        """
        self._octets -= octets
        if self._octets < 0:
            raise FetchError(f"the log took more than {self._limits.octets} bytes in all")


class _Metered(io.RawIOBase):
    """What a server sends, as far as the allowance goes."""

    def __init__(self, sock: Any, allowance: _Allowance) -> None:
        self._sock, self._allowance = sock, allowance
        self._file = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._allowance.seconds())
        count = cast("int | None", self._file.readinto(buffer))
        self._allowance.take(count or 0)
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


class _Handler(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Opens connections whose answers are metered from their first byte."""

    def __init__(self, allowance: _Allowance) -> None:
        super().__init__()

        class Response(HTTPResponse):
            def __init__(self, sock: Any, *args: Any, **options: Any) -> None:
                super().__init__(sock, *args, **options)
                self.fp.close()
                self.fp = io.BufferedReader(_Metered(sock, allowance))

        class Plain(HTTPConnection):
            response_class = Response

        class Secure(HTTPSConnection):
            response_class = Response

        self._plain, self._secure = Plain, Secure

    def http_open(self, request: urllib.request.Request) -> HTTPResponse:
        return self.do_open(self._plain, request)

    def https_open(self, request: urllib.request.Request) -> HTTPResponse:
        return self.do_open(self._secure, request)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """Follow none: what is refused becomes an error of its status."""


def fetch_log(
    url: str,
    directory: Path,
    agreement: Agreement,
    *,
    limits: Limits = Limits(),
    clock: Callable[[], float] = time.monotonic,
) -> str | None:
    """Copy the log at `url` into `directory`; return whose it says it is.

    Args:
        url: begins with http:// or https://.
        directory: where to; nothing in it yet.
        agreement: names the parties and their keys.
        limits: what all of it may take.
        clock: seconds, which only go forward.

    Returns:
        The party, or None where the checkpoint is of no party of the agreement: then no tile was
        fetched.

    Raises:
        FetchError: the server cannot be reached, lacks what it must have, or passes the limits.
        LogCorruptedError: the checkpoint is not signed by the party's keys.
    """
    if urlsplit(url).scheme not in {"http", "https"}:
        raise FetchError(f"{url}: expected an address that begins with http:// or https://")
    base, source = url.rstrip("/"), _Source(_Allowance(limits, clock))
    for _ in range(_ATTEMPTS):
        # First, so that the log as it is read cannot be shorter than its public head.
        public = source.optional(f"{base}/public-checkpoint")
        signed = source.get(f"{base}/checkpoint", NOTE_LIMIT)
        if (name := party_of(signed, agreement)) is None:
            return None
        _write(directory / "checkpoint", signed)
        if public is not None:
            _write(directory / "witness" / "public", public)
        head, _signatures = open_checkpoint(signed, log_keys(agreement.party(name)))
        if head.tree_size > _MOST_ENTRIES:
            raise FetchError(f"{url}: expected at most {_MOST_ENTRIES} entries, got more")
        try:
            for tile in layout(head.tree_size):
                _write(directory / tile.path, source.get(f"{base}/{tile.path}", TILE_LIMIT))
        except _AbsentError:
            # A log that grows drops partial tiles that have become full.
            if source.get(f"{base}/checkpoint", NOTE_LIMIT) == signed:
                raise
            continue
        source.copy_witnessed(base, directory / "witness", keys_of_others(agreement, name))
        return name
    raise FetchError(f"{url}: the log grew {_ATTEMPTS} times while it was fetched: try again")


class _Source:
    """One server, asked within one allowance."""

    def __init__(self, allowance: _Allowance) -> None:
        self._allowance = allowance
        self._opener = urllib.request.build_opener(_NoRedirect, _Handler(allowance))

    def get(self, url: str, limit: int) -> bytes:
        """Return a file of at most `limit` bytes."""
        try:
            with self._opener.open(url, timeout=self._allowance.seconds()) as answer:
                data: bytes = answer.read(limit + 1)
        except HTTPError as error:
            with error:
                raise _AbsentError(f"{url} cannot be fetched: {error}") from error
        except (OSError, ValueError, HTTPException, FetchError) as error:
            raise FetchError(f"{url} cannot be fetched: {error}") from error
        if len(data) > limit:
            raise FetchError(f"{url}: expected at most {limit} bytes, got more")
        return data

    def optional(self, url: str) -> bytes | None:
        """Return a signed head; None where the server has none."""
        try:
            return self.get(url, NOTE_LIMIT)
        except _AbsentError:
            return None

    def copy_witnessed(self, base: str, directory: Path, origins: Iterable[str]) -> None:
        """Copy the heads of other logs that this party cosigned."""
        for origin in origins:
            path = f"{origin_hash(origin)}/checkpoint"
            if (kept := self.optional(f"{base}/{path}")) is not None:
                _write(directory / path, kept)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
