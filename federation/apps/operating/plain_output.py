"""What Flower's processes print, without colours where no terminal shows them.

Flower colours its lines wherever they go, and has no setting for it in processes that it starts.

Guarantees: what is no terminal gets what a child prints, line by line, without the codes that set
colours; a terminal gets it as it is. A child never waits because nothing more can be written.

Leaves to others: which lines there are.
"""

import re
import subprocess
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
        self._is_terminal = self._target.isatty()

    @property
    def stream(self) -> int | IO[bytes]:
        """What the child is started with as its output."""
        return self._target if self._is_terminal else subprocess.PIPE

    def follow(self, source: IO[bytes] | None) -> None:
        """Write what the child prints, until it and whatever it started have ended.

        Args:
            source: the child's end of `stream`, None where that is no pipe.
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
