"""A server for an ASGI app that a service starts and ends, and that strangers can reach.

Guarantees: it leaves signals to the service. A connection is cut that has not sent the whole head
of a request some seconds after its handshake, or after the first byte that follows an answer; one
that sends nothing after an answer is closed by uvicorn. So holding one costs an effort.

Leaves to others: handshakes (asyncio, which gives up after a minute), bodies that come slowly, what
is answered.
"""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["HEAD_SECONDS", "PromptConnection", "QuietServer"]

HEAD_SECONDS: Final = 10.0
"""How long a connection may take to say what it wants."""


class QuietServer(uvicorn.Server):
    """A server that leaves signals to the service, which may have several."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Capture none."""
        yield


class PromptConnection(HttpToolsProtocol):
    """A connection that is cut where the head of a request is long in coming."""

    head_seconds = HEAD_SECONDS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Begin to wait for a further head, at the first byte after an answer."""
        if self._patience.cancelled() and self.cycle.response_complete:
            self._wait()
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """Wait no longer: here is a head."""
        super().on_headers_complete()
        self._patience.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer: nothing will come."""
        self._patience.cancel()
        super().connection_lost(exc)

    def _wait(self) -> None:
        # who is silent would not take part in a farewell either
        self._patience = self.loop.call_later(self.head_seconds, self.transport.abort)
