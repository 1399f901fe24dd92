"""A server for an ASGI app that a service starts and ends, and that strangers can reach.

Guarantees: it leaves signals to the service. A connection is cut that has not sent the whole head
of a request some seconds after its handshake, or after the first byte that follows an answer; one
that sends nothing after an answer is closed by uvicorn. So holding one costs an effort. One is cut,
too, of which the parser keeps more than 32 KiB (64 KiB after other bytes): of a head, a trailer.
What is cut, refused before an app sees it, or fails in its handshake, is counted.

Leaves to others: handshakes (asyncio, which gives up after a minute), bodies that come slowly, what
is answered.
"""

import asyncio
import ssl
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, cast

import uvicorn
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from compliance.records import RefusedFor
from federation.apps.refusals import Count

__all__ = ["HEAD_BYTES", "HEAD_SECONDS", "PromptConnection", "QuietServer", "counted"]

HEAD_SECONDS: Final = 10.0
"""How long a connection may take to say what it wants."""
HEAD_BYTES: Final = 32 << 10
"""How much a connection may say before what it wants is known: a token is a few KiB at most."""


class QuietServer(uvicorn.Server):
    """A server that leaves signals to the service, which may have several."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Capture none."""
        yield


class PromptConnection(HttpToolsProtocol):
    """A connection that is cut where the head of a request is long, or long in coming."""

    head_seconds = HEAD_SECONDS
    count: Count = staticmethod(lambda _: None)
    """Told of what is refused here."""
    _kept = 0
    """Bytes that came since the parser last passed something on: head, trailers, a chunk's line."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Begin to wait for a further head, at the first byte after an answer; bound both."""
        if self._patience.cancelled() and self.cycle.response_complete:
            self._wait()
        for begin in range(0, len(data), HEAD_BYTES):
            piece = data[begin : begin + HEAD_BYTES]
            self._kept += len(piece)
            super().data_received(piece)
            if self._kept > HEAD_BYTES and not self.transport.is_closing():
                self._cut()
            if self.transport.is_closing():
                return

    def on_headers_complete(self) -> None:
        """Wait no longer: here is a head."""
        super().on_headers_complete()
        self._patience.cancel()
        self._kept = 0

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Count a call that is answered in the app's place."""
        if app is not self.app:
            self.count(RefusedFor.BUSY)
        super()._start_asgi_task(cycle, app)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        self.count(RefusedFor.REQUEST)
        super().send_400_response(msg)

    def on_body(self, body: bytes) -> None:
        """Pass a piece of a body on."""
        super().on_body(body)
        self._kept = 0

    def on_message_complete(self) -> None:
        """Expect the next head, which may come before this one's answer has gone."""
        super().on_message_complete()
        self._kept = 0

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer: nothing will come."""
        self._patience.cancel()
        super().connection_lost(exc)

    def _wait(self) -> None:
        # who is silent would not take part in a farewell either
        self._patience = self.loop.call_later(self.head_seconds, self._cut)

    def _cut(self) -> None:
        self.count(RefusedFor.HEAD)
        self.transport.abort()


def counted(config: uvicorn.Config, count: Count) -> QuietServer:
    """Return the server of a configuration whose connections count what they refuse.

    Args:
        config: with TLS, loaded; its connections are prompt.
        count: told of each refusal, by the thread of the server's loop.
    """

    class Handshake(ssl.SSLObject):
        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except ssl.SSLError:
                count(RefusedFor.HANDSHAKE)
                raise

    kind = cast("type[PromptConnection]", config.http_protocol_class)
    config.http_protocol_class = type(kind.__name__, (kind,), {"count": staticmethod(count)})
    if config.ssl is not None:
        config.ssl.sslobject_class = Handshake
    return QuietServer(config)
