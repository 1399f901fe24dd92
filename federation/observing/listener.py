"""A node's own small listener: off unless its configuration asks for it.

```
GET /health     the process is alive           /ready    it would answer a message now
GET /metrics    figures, in the text format of Prometheus
```

Guarantees: nothing else is answered, and no request has a body; a few callers are answered at a
time, and more are turned away; one thread listens, each caller has one, and all are gone when the
block ends; a caller that has not sent its whole request within some seconds is cut off.

Leaves to others: transport security and who may connect: name loopback, or an address that the
party's own monitoring alone can reach; what the answers hold (`view`).
"""

import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socket import AF_INET6, socket
from socketserver import TCPServer
from typing import Any, Final, Protocol

from federation.errors import WorkspaceError
from federation.observing.figures import Obstacle

__all__ = ["View", "observed"]

_SECONDS: Final = 5.0
_CALLERS: Final = 8
_LOOK_SECONDS: Final = 0.1
_TEXT: Final = "text/plain; charset=utf-8"


class View(Protocol):
    """What is shown."""

    def obstacles(self) -> frozenset[Obstacle]:
        """Return why the node would not answer now."""
        ...

    def metrics(self) -> tuple[bytes, str]:
        """Return the figures, and their content type."""
        ...


class _Server(HTTPServer):
    allow_reuse_address = True

    def __init__(self, host: str, port: int, view: View) -> None:
        if ":" in host:
            self.address_family = AF_INET6
        self.view = view
        self._answering: list[threading.Thread] = []
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Bind, and ask nobody for this machine's name, as the class above would."""
        TCPServer.server_bind(self)

    def process_request(self, request: socket, client_address: Any) -> None:  # type: ignore[override]
        """Answer in a thread, unless too many do."""
        self._answering = [thread for thread in self._answering if not _is_gone(thread)]
        if len(self._answering) >= _CALLERS:
            self.shutdown_request(request)
            return
        thread = threading.Thread(
            target=self._answer, args=(request, client_address), name="observe-caller", daemon=True
        )
        self._answering.append(thread)
        thread.start()

    def _answer(self, request: socket, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except Exception:  # noqa: BLE001 -- whatever a caller caused; see `handle_error`
            self.handle_error(request, client_address)
        finally:
            self.shutdown_request(request)

    def server_close(self) -> None:
        """Close, once everybody who was heard has been answered."""
        super().server_close()
        for thread in self._answering:
            _wait_until_gone(thread)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a traceback could hold data."""


class _Prompt(io.RawIOBase):
    """What a caller sends, until a moment."""

    def __init__(self, caller: socket, until: float) -> None:
        self._caller = caller
        self._until = until

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._caller.settimeout(left)
        return self._caller.recv_into(buffer)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    seconds = _SECONDS

    def setup(self) -> None:
        """Give the whole request one deadline."""
        super().setup()
        self.rfile.close()
        until = time.monotonic() + self.seconds
        self.rfile = io.BufferedReader(_Prompt(self.connection, until))

    def do_GET(self) -> None:
        """Answer one of the three."""
        if self.path == "/health":
            self._answer(HTTPStatus.OK, b"healthy\n", _TEXT)
        elif self.path == "/ready":
            found = ", ".join(sorted(self.server.view.obstacles()))
            status = HTTPStatus.SERVICE_UNAVAILABLE if found else HTTPStatus.OK
            told = f"not ready: {found}" if found else "ready"
            self._answer(status, f"{told}\n".encode(), _TEXT)
        elif self.path == "/metrics":
            self._answer(HTTPStatus.OK, *self.server.view.metrics())
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"not found\n", _TEXT)

    def _answer(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.connection.settimeout(self.seconds)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        """Name no versions."""
        return "comity"

    def log_message(self, *_: object) -> None:
        """Say nothing of what was asked."""


@contextmanager
def observed(address: str, view: View) -> Iterator[int]:
    """Listen for the length of the block; yield at which port. No thread is left after it.

    Args:
        address: host:port, port 0 for a free one.
        view: what is shown.

    Raises:
        WorkspaceError: the address cannot be had.
    """
    host, _, port = address.rpartition(":")
    try:
        server = _Server(host.strip("[]"), int(port), view)
    except (OSError, OverflowError) as error:
        raise WorkspaceError(
            f"observe: cannot listen at {address}: name another address, or leave it out"
        ) from error
    with server:
        thread = threading.Thread(
            target=server.serve_forever, args=(_LOOK_SECONDS,), name="observe", daemon=True
        )
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            _wait_until_gone(thread)


def _wait_until_gone(thread: threading.Thread) -> None:
    """Wait until the system too has ended a thread."""
    thread.join()
    while not _is_gone(thread):
        time.sleep(0.001)


def _is_gone(thread: threading.Thread) -> bool:
    """Tell whether the system too has ended a thread: Python says so a moment before."""
    return not (thread.is_alive() or Path(f"/proc/self/task/{thread.native_id}").exists())
