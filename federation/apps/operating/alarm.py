"""The end of a process whose event loop hangs, so that whatever keeps it starts it again.

Guarantees: a process whose loop has not gone round for `PATIENCE_SECONDS` ends with exit code 1,
also where it hangs in code that lets no other thread of Python run. Before that it says on standard
error where each thread stands: files, lines and functions, and no values. Where systemd waits for
it (`WatchdogSec`), it is told of every round too, and ends a process that was stopped as a whole.

Leaves to others: starting it again, which systemd, Docker and Kubernetes do, each as its file says.
"""

import asyncio
import faulthandler
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from federation.apps.operating.systemd import Standing, tell_systemd

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
        tell_systemd(Standing.GOING_ROUND)  # not taken, it is said at the next round
        await asyncio.sleep(PATIENCE_SECONDS / _ROUNDS)
