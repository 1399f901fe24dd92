"""The end of a process whose event loop hangs, so that whatever keeps it starts it again.

Guarantees: a process whose loop has not gone round for `PATIENCE_SECONDS` ends with exit code 1,
also where it hangs in code that lets no other thread of Python run. Before that it says on standard
error where each thread stands: files, lines and functions, and no values.

Leaves to others: starting it again (systemd, Docker and Kubernetes do, each as its file says), and
processes that the system has stopped as a whole.
"""

import asyncio
import faulthandler
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
        await asyncio.sleep(PATIENCE_SECONDS / _ROUNDS)
        faulthandler.dump_traceback_later(PATIENCE_SECONDS, exit=True)
