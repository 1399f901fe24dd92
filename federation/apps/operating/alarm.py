"""The end of a process whose event loop hangs, so that whatever keeps it starts it again.

Guarantees: a process whose loop has not gone round for `PATIENCE_SECONDS` ends with exit code 1,
also where it hangs in code that lets no other thread of Python run. Before that it says on standard
error where each thread stands: files, lines and functions, and no values. Where systemd waits for
it (`WatchdogSec`), it is told of every round too, and ends a process that was stopped as a whole.

Leaves to others: starting it again, which systemd, Docker and Kubernetes do, each as its file says.
"""

import asyncio
import faulthandler
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

__all__ = ["PATIENCE_SECONDS", "alarmed"]

PATIENCE_SECONDS: Final = 60.0
"""A loop that is merely slow, on a machine with ten times as much to do, comes round in seconds."""
_ROUNDS: Final = 20


@asynccontextmanager
async def alarmed() -> AsyncIterator[None]:
    """Have the process end if its loop hangs within a block. There is one such block at a time."""
    faulthandler.dump_traceback_later(PATIENCE_SECONDS, exit=True)
    beating = asyncio.create_task(_beat())
    try:
        yield
    finally:
        beating.cancel()
        faulthandler.cancel_dump_traceback_later()


async def _beat() -> None:
    while True:
        faulthandler.dump_traceback_later(PATIENCE_SECONDS, exit=True)
        _tell_systemd()
        await asyncio.sleep(PATIENCE_SECONDS / _ROUNDS)


def _tell_systemd() -> None:
    """Say that the loop goes round (sd_notify(3)); what nobody takes is said at the next round."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in {"/", "@"}:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line, suppress(OSError):
        line.setblocking(False)
        line.connect(address.replace("@", "\0", 1) if address.startswith("@") else address)
        line.send(b"WATCHDOG=1")
