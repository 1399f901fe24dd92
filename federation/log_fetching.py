"""Fetch a log over HTTP (C2SP tlog-tiles) into a directory, from where it is read like any other.

Guarantees: only the files that a checkpoint signed by the given keys promises are asked for, each
of bounded size, and all of a log within one deadline and one number of bytes, however slowly or
wrongly the server answers; no redirect is followed. Heads that the server keeps of other logs come
before any log does: see `compliance.auditing.heads`.

Leaves to others: believing what came (`reading`), transport security (use https).
"""

import io
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any, Final, cast
from urllib.error import HTTPError
from urllib.parse import urlsplit

from compliance.agreement import Agreement, SignedAgreement
from compliance.auditing.reading import party_of
from compliance.auditing.trust import every_party, log_keys, origin_of
from compliance.errors import LogError
from compliance.log.note import NOTE_LIMIT
from compliance.log.policy import open_by_any
from compliance.log.tiles import TILE_LIMIT, layout
from compliance.log.witnessing import origin_hash
from compliance.signing import ENVELOPE_LIMIT

__all__ = ["FetchError", "Limits", "RemoteLog"]

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
    """What is left of the limits of one log; time is counted while it is fetched."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits, self._clock = limits, clock
        self._left, self._octets = limits.seconds, limits.octets
        self._end = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let time pass."""
        self._end = self._clock() + self._left
        try:
            yield
        finally:
            self._left = self._end - self._clock()

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


class RemoteLog:
    """One served log, fetched in two steps, so that heads of several are had before any log.

    Args:
        url: begins with http:// or https://.
        directory: where to; nothing in it yet.
        limits: what both steps together may take.
        clock: seconds, which only go forward.

    Raises:
        FetchError: the address is none.
    """

    def __init__(
        self,
        url: str,
        directory: Path,
        *,
        limits: Limits = Limits(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if urlsplit(url).scheme not in {"http", "https"}:
            raise FetchError(f"{url}: expected an address that begins with http:// or https://")
        self.url = url
        self.directory = directory
        self._base = url.rstrip("/")
        self._allowance = _Allowance(limits, clock)
        self._source = _Source(self._allowance)

    def fetch_heads(self, versions: Sequence[Agreement]) -> str | None:
        """Copy what the server keeps of heads; return whose it says its log is.

        Args:
            versions: of the agreement, the latest last: they name parties and keys.

        Returns:
            The party, or None where the checkpoint is of no party of the agreement.

        Raises:
            FetchError: the server cannot be reached, lacks what it must have, or passes the limits.
        """
        with self._allowance.running():
            signed = self._source.get(f"{self._base}/checkpoint", NOTE_LIMIT)
            if (name := party_of(signed, versions)) is None:
                return None
            _write(self.directory / "checkpoint", signed)
            kept = [f"{origin_hash(one)}/checkpoint" for one in _origins(versions, name)]
            wanted = {"public": "public-checkpoint"} | dict(zip(kept, kept, strict=True))
            for path, address in wanted.items():
                if (head := self._source.optional(f"{self._base}/{address}")) is not None:
                    _write(self.directory / "witness" / path, head)
            return name

    def fetch_version(self, number: int) -> SignedAgreement | None:
        """Return a version of the agreement as the server has it, unverified; None if it has none.

        Raises:
            FetchError: the server cannot be reached, or passes the limits.
            InvalidAgreementError: it is no contract.
        """
        with self._allowance.running():
            try:
                data = self._source.get(f"{self._base}/agreements/{number}", ENVELOPE_LIMIT)
            except _AbsentError:
                return None
        return SignedAgreement.from_json(data)

    def fetch_log(self, versions: Sequence[Agreement], name: str) -> None:
        """Copy the checkpoint as it is now, and the files that it promises.

        Raises:
            FetchError: the server cannot be reached, lacks what it must have, or passes the limits.
            LogCorruptedError: the checkpoint is not signed by the party's keys.
        """
        keys = [
            log_keys(one)
            for version in reversed(versions)
            for one in version.parties
            if one.name == name
        ]
        with self._allowance.running():
            for _ in range(_ATTEMPTS):
                signed = self._source.get(f"{self._base}/checkpoint", NOTE_LIMIT)
                _write(self.directory / "checkpoint", signed)
                head, *_ = open_by_any(signed, keys)
                if head.tree_size > _MOST_ENTRIES:
                    raise FetchError(f"{self.url}: over {_MOST_ENTRIES} entries: audit a copy")
                try:
                    for tile in layout(head.tree_size):
                        address = f"{self._base}/{tile.path}"
                        _write(self.directory / tile.path, self._source.get(address, TILE_LIMIT))
                except _AbsentError:
                    # A log that grows drops partial tiles that have become full.
                    if self._source.get(f"{self._base}/checkpoint", NOTE_LIMIT) == signed:
                        raise
                    continue
                return
        raise FetchError(f"{self.url}: it grew {_ATTEMPTS} times while it was fetched: try again")


def _origins(versions: Sequence[Agreement], party: str) -> tuple[str, ...]:
    """Return the names of all logs but one party's, also of those who left."""
    others = (one for one in every_party(versions) if one.name != party)
    return tuple(dict.fromkeys(map(origin_of, others)))


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


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
