"""A party's log over HTTP (C2SP tlog-tiles), and the party as a witness (C2SP tlog-witness).

```
GET  /checkpoint  /tile/<L>/<N>[.p/<W>]  /tile/entries/<N>[.p/<W>]     the log
GET  /public-checkpoint                                               its last cosigned head, if any
GET  /<SHA-256 of an origin>/checkpoint                               what was witnessed of another
GET  /agreements/<N>                                                  version N of the contract
POST /add-checkpoint                                                  cosign a head of another log
```

Guarantees: nothing else in the folder can be asked for, since a path is served only if it is that
of a tile or the number of a version; what is served is read only; a request is bounded in size and
in time; a cosignature is on disk before it is answered.

Leaves to others: transport security and who may connect (it listens on loopback: put a reverse
proxy before it), appending, and pruning: full files below the minimum index are gone, or are denied
by the proxy.
"""

import re
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final, Protocol

from compliance.errors import (
    InvalidAgreementError,
    LogCorruptedError,
    LogError,
    NotWitnessedError,
    Objection,
)
from compliance.log.tiles import Tile
from compliance.log.verifier import read_checkpoint, read_public, read_tile
from compliance.log.witness import REQUEST_LIMIT
from federation.errors import WorkspaceError

__all__ = ["LogServer"]

_TEXT: Final = "text/plain; charset=utf-8"
_OCTETS: Final = "application/octet-stream"
_SIZE: Final = "text/x.tlog.size"
_FOR_EVER: Final = "public, max-age=31536000, immutable"
_NEVER: Final = "no-cache"
_SECONDS: Final = 10
_JSON: Final = "application/json"
_WITNESSED: Final = re.compile(r"/[0-9a-f]{64}/checkpoint")
_VERSION: Final = re.compile(r"/agreements/([1-9][0-9]{0,5})")


class _Witnessing(Protocol):
    """Who cosigns, as `Witness` does."""

    def add_checkpoint(self, body: bytes, *, now: int) -> bytes:
        """Answer a request."""


class LogServer(ThreadingHTTPServer):
    """Serves one party's log; a context manager, like every socket server.

    Args:
        address: host and port; port 0 takes a free one.
        log: the log's directory.
        shown: directory of its head, where that is another.
        witness: the party as a witness; None if it witnesses nobody.
        now: POSIX seconds.
        version: returns a version of the agreement by its number, as signed; None where there is
            none.
    """

    daemon_threads = True

    def __init__(
        self,
        address: tuple[str, int],
        log: Path,
        *,
        shown: Path | None = None,
        witness: _Witnessing | None,
        now: Callable[[], int],
        version: Callable[[int], bytes | None] = lambda _: None,
    ) -> None:
        self.log = log
        self.shown = shown or log
        self.witness = witness
        self.now = now
        self.version = version
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: LogServer
    protocol_version = "HTTP/1.1"
    timeout = _SECONDS

    def do_GET(self) -> None:
        """Serve a checkpoint, a tile, or a version of the contract."""
        try:
            if found := self._found():
                return self._answer(HTTPStatus.OK, *found)
        except LogCorruptedError:
            pass  # it is not there, or no longer
        except (LogError, WorkspaceError, InvalidAgreementError) as error:
            return self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, error)
        return self._refuse(HTTPStatus.NOT_FOUND, "not found")

    def _found(self) -> tuple[bytes, str, str] | None:
        """Return what the path stands for, its type, and how it may be cached."""
        log = self.server.log
        if self.path == "/checkpoint":
            return read_checkpoint(self.server.shown), _TEXT, _NEVER
        if self.path == "/public-checkpoint":
            return read_public(log), _TEXT, _NEVER
        if _WITNESSED.fullmatch(self.path):
            return read_checkpoint((log / "witness" / self.path[1:]).parent), _TEXT, _NEVER
        if asked := _VERSION.fullmatch(self.path):
            signed = self.server.version(int(asked[1]))
            return None if signed is None else (signed, _JSON, _NEVER)
        if tile := Tile.from_path(self.path[1:]):
            return read_tile(log, tile), _OCTETS, _FOR_EVER
        return None

    def do_POST(self) -> None:
        """Cosign."""
        witness = self.server.witness
        if self.path != "/add-checkpoint" or witness is None:
            return self._refuse(HTTPStatus.NOT_FOUND, "not found")
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or int(length) > REQUEST_LIMIT:
            problem = f"expected a Content-Length of at most {REQUEST_LIMIT}"
            return self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, problem)
        try:
            lines = witness.add_checkpoint(self.rfile.read(int(length)), now=self.server.now())
        except NotWitnessedError as error:
            status = HTTPStatus(error.objection.value)
            if error.objection is Objection.CONFLICT:
                return self._answer(status, f"{error.tree_size}\n".encode(), _SIZE)
            return self._refuse(status, error)
        except LogError as error:
            return self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, error)
        return self._answer(HTTPStatus.OK, lines, _TEXT)

    def _refuse(self, status: HTTPStatus, problem: object) -> None:
        if status is HTTPStatus.INTERNAL_SERVER_ERROR:
            self.log_error("%s", problem)
            problem = "the party's own console says what is wrong"
        self.close_connection = True
        self._answer(status, f"{problem}\n".encode(), _TEXT)

    def _answer(self, status: HTTPStatus, body: bytes, kind: str, cached: str = _NEVER) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", cached if status is HTTPStatus.OK else "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing of what was asked."""
