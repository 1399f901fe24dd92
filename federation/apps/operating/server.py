"""A server for an ASGI app that a service starts and ends, and that strangers can reach.

Guarantees: it leaves signals to the service. A connection is cut that has not sent the whole head
of a request some seconds after its handshake, or after the first byte that follows an answer; one
that sends nothing after an answer is closed by uvicorn. So holding one costs an effort. One is cut,
too, of which the parser keeps more than 32 KiB (64 KiB after other bytes): of a head, a trailer.

Leaves to others: handshakes (asyncio, which gives up after a minute), bodies that come slowly, what
is answered.
"""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["HEAD_BYTES", "HEAD_SECONDS", "PromptConnection", "QuietServer"]

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
            if self._kept > HEAD_BYTES:
                self.transport.abort()
            if self.transport.is_closing():
                return

    def on_headers_complete(self) -> None:
        """Wait no longer: here is a head."""
        super().on_headers_complete()
        self._patience.cancel()
        self._kept = 0

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
        self._patience = self.loop.call_later(self.head_seconds, self.transport.abort)
