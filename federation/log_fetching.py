"""Fetch a log over HTTP (C2SP tlog-tiles) into a directory, from where it is read like any other.

Guarantees: only the files that a checkpoint signed by the given keys promises are asked for, each
of bounded size and within a bounded time; no redirect is followed.

Leaves to others: believing what came (`reading`), transport security (use https).
"""

import urllib.request
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from compliance.agreement import Agreement
from compliance.auditing.reading import party_of
from compliance.auditing.trust import keys_of_others, log_keys
from compliance.errors import LogError
from compliance.log.note import NOTE_LIMIT
from compliance.log.policy import open_checkpoint
from compliance.log.tiles import TILE_LIMIT, layout
from compliance.log.witnessing import origin_hash

__all__ = ["FetchError", "fetch_log"]

_SECONDS: Final = 20
_MOST_ENTRIES: Final = 20_000_000
_ATTEMPTS: Final = 5


class FetchError(LogError):
    """A log cannot be fetched: the address, or the server's owner."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """Follow none: what is refused becomes an error of its status."""


def fetch_log(url: str, directory: Path, agreement: Agreement) -> str | None:
    """Copy the log at `url` into `directory`; return whose it says it is.

    Returns:
        The party, or None where the checkpoint is of no party of the agreement: then nothing but
        the checkpoint was fetched.

    Raises:
        FetchError: the server cannot be reached, or lacks what it must have.
        LogCorruptedError: the checkpoint is not signed by the party's keys.
    """
    if urlsplit(url).scheme not in {"http", "https"}:
        raise FetchError(f"{url}: expected an address that begins with http:// or https://")
    base = url.rstrip("/")
    for _ in range(_ATTEMPTS):
        signed = _get(f"{base}/checkpoint", NOTE_LIMIT)
        if (name := party_of(signed, agreement)) is None:
            return None
        _write(directory / "checkpoint", signed)
        head, _signatures = open_checkpoint(signed, log_keys(agreement.party(name)))
        if head.tree_size > _MOST_ENTRIES:
            raise FetchError(f"{url}: expected at most {_MOST_ENTRIES} entries, got more")
        try:
            for tile in layout(head.tree_size):
                _write(directory / tile.path, _get(f"{base}/{tile.path}", TILE_LIMIT))
        except FetchError:
            # A log that grows drops partial tiles that have become full.
            if _get(f"{base}/checkpoint", NOTE_LIMIT) == signed:
                raise
            continue
        for origin in keys_of_others(agreement, name):
            path = f"{origin_hash(origin)}/checkpoint"
            try:
                _write(directory / "witness" / path, _get(f"{base}/{path}", NOTE_LIMIT))
            except FetchError:
                continue  # it has witnessed nothing of that log
        return name
    raise FetchError(f"{url}: the log grew {_ATTEMPTS} times while it was fetched: try again")


def _get(url: str, limit: int) -> bytes:
    opener = urllib.request.build_opener(_NoRedirect)
    try:
        with opener.open(url, timeout=_SECONDS) as answer:
            data: bytes = answer.read(limit + 1)
    except (OSError, ValueError) as error:
        raise FetchError(f"{url} cannot be fetched: {error}") from error
    if len(data) > limit:
        raise FetchError(f"{url}: expected at most {limit} bytes, got more")
    return data


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
