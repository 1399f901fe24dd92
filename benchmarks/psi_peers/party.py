"""One party's process in a measured match: its place, its socket and what it reports.

Guarantees: every engine is measured by the same means, whatever its own environment: peak memory
as the kernel keeps it for this program (VmHWM), bytes as the kernel counts them on every TCP
connection of the process (so framing and headers are in), CPU when ready to begin.

Leaves to others: CPU-seconds in all, which the driver takes when the process ends. Only the
standard library of Python 3.10 is used. Linux only.
"""

import json
import os
import queue
import resource
import socket
import struct
import sys
import threading
import time
from pathlib import Path

__all__ = ["Link", "Party"]

_BYTES_RECEIVED_AT = 128  # tcpi_bytes_received in struct tcp_info, linux/tcp.h
_HEADER = struct.Struct("<Q")
_PATIENCE_SECONDS = 60
_TCP = ((socket.AF_INET, socket.SOCK_STREAM), (socket.AF_INET6, socket.SOCK_STREAM))


class Party:
    """What the driver told this process, and what the process tells the driver.

    The command line is ROLE FOLDER PORT PORT [OPTION ...]; roles are receiver and sender.
    """

    def __init__(self) -> None:
        self.role, folder, *rest = sys.argv[1:]
        self.receives = self.role == "receiver"
        self.folder = Path(folder)
        self.log = self.folder / f"{self.role}.log"  # where the driver sends what is printed
        self.ports = (int(rest[0]), int(rest[1]))
        self.options = tuple(rest[2:])
        self._ready = 0.0

    def connect(self) -> "Link":
        """Return a connection to the other party; the sender listens on the first port."""
        address = ("127.0.0.1", self.ports[0])
        if not self.receives:
            with socket.create_server(address) as server:
                server.settimeout(_PATIENCE_SECONDS)
                return Link(server.accept()[0])
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                return Link(socket.create_connection(address))
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def ready(self) -> None:
        """Note the CPU spent on imports and on generating code; the match begins here."""
        self._ready = time.process_time()

    def report(self, rows: bytes = b"", *, received_bytes: int | None = None) -> None:
        """Write the figures, and what rows of the receiver's were found, as 64-bit integers.

        Call it before the connection closes, for the kernel forgets its counts then; or say what
        was received.
        """
        if rows:
            (self.folder / "found.rows").write_bytes(rows)
        own = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
        children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        figures = {
            "startup_cpu_seconds": self._ready,
            "peak_bytes": 1024 * max(int(own), children),
            "received_bytes": _received_bytes() if received_bytes is None else received_bytes,
        }
        (self.folder / f"{self.role}.json").write_text(json.dumps(figures))


class Link:
    """Whole messages over one connection; sending never waits for the other side to read."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(None)
        self._connection = connection
        self._outgoing: queue.Queue[memoryview | None] = queue.Queue()
        self._writer = threading.Thread(target=self._write, daemon=True)
        self._writer.start()

    def send(self, message: bytes | memoryview) -> None:
        """Queue one message; it must not change afterwards."""
        view = memoryview(message).cast("B")
        self._outgoing.put(memoryview(_HEADER.pack(len(view))))
        self._outgoing.put(view)

    def receive(self) -> bytearray:
        """Wait for one message.

        Raises:
            EOFError: if the other side went away.
        """
        return self._read(_HEADER.unpack(self._read(_HEADER.size))[0])

    def close(self) -> None:
        """Wait until all is handed to the kernel, then part."""
        self._outgoing.put(None)
        self._writer.join()
        self._connection.close()

    def _write(self) -> None:
        while (view := self._outgoing.get()) is not None:
            self._connection.sendall(view)

    def _read(self, count: int) -> bytearray:
        message = bytearray(count)
        rest = memoryview(message)
        while rest:
            got = self._connection.recv_into(rest)
            if not got:
                raise EOFError(f"expected {count} bytes, the connection ended {len(rest)} short")
            rest = rest[got:]
        return message


def _received_bytes() -> int:
    """Sum what the kernel received for this process over its open TCP connections."""
    received = 0
    for entry in Path("/proc/self/fd").iterdir():
        if not os.path.lexists(entry) or not str(entry.readlink()).startswith("socket:"):
            continue
        with socket.socket(fileno=os.dup(int(entry.name))) as connection:
            if (connection.family, connection.type) in _TCP:
                info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                received += struct.unpack_from("<Q", info, _BYTES_RECEIVED_AT)[0]
    return received
