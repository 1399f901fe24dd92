"""What Flower's processes print, without colours where no terminal shows them.

Flower colours its lines wherever they go, and has no setting for it in processes that it starts.

Guarantees: what is no terminal gets what a child prints, line by line, without the codes that set
colours; a terminal gets it as it is. A child never waits because nothing more can be written.

Leaves to others: which lines there are.
"""

import re
import sys
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import IO, Final

from flwr.common.logger import update_console_handler

__all__ = ["PlainOutput", "colour_terminals_alone"]

_COLOURS: Final = re.compile(rb"\x1b\[[0-9;]*m")


def colour_terminals_alone() -> None:
    """Have Flower colour the lines of this very process for a terminal alone."""
    update_console_handler(colored=sys.stderr.isatty())


class PlainOutput:
    """Where a child's lines go.

    Args:
        file: begun anew with them; this process's standard error where left out.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._target = sys.stderr.buffer if file is None else file.open("wb")
        self._is_own = file is not None

    @property
    def terminal(self) -> IO[bytes] | None:
        """What the child may write to by itself; None where its lines come by a pipe."""
        return self._target if self._target.isatty() else None

    def follow(self, source: IO[bytes] | None) -> None:
        """Write what the child prints, until it and whatever it started have ended.

        Args:
            source: this end of the pipe, if there is one.
        """
        if source is not None:
            Thread(target=self._write, args=(source,), daemon=True).start()

    def _write(self, source: IO[bytes]) -> None:
        with source:
            for line in source:
                with suppress(OSError, ValueError):  # a full disk, an output that was closed
                    self._target.write(_COLOURS.sub(b"", line))
                    self._target.flush()
        if self._is_own:
            with suppress(OSError):
                self._target.close()
