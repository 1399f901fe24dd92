"""What a process tells systemd of itself, where systemd asked to be told (sd_notify(3)).

Guarantees: never waits and never raises; what nobody takes is lost.

Leaves to others: when there is something to tell (`service`, `alarm`).
"""

import os
import socket
from contextlib import suppress
from enum import StrEnum

__all__ = ["Standing", "tell_systemd"]


class Standing(StrEnum):
    """How a process stands."""

    READY = "READY=1"
    """It answers whoever calls."""
    GOING_ROUND = "WATCHDOG=1"
    """Its event loop goes round; silence for `WatchdogSec` means that it does not."""
    STOPPING = "STOPPING=1"
    """It was told to end, and does."""


def tell_systemd(standing: Standing) -> None:
    """Send one datagram to `NOTIFY_SOCKET`, a path or an abstract name, if there is one."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in {"/", "@"}:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.setblocking(False)
        line.connect(address.replace("@", "\0", 1) if address.startswith("@") else address)
        line.send(standing.encode())
