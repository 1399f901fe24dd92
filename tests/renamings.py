"""Work in a process of its own that is killed at one of its renamings of a file.

Renaming is how everything durable appears, so a kill before each of them cuts between any two
things that a party does.
"""

import os
import signal
import sys
from collections.abc import Callable


def killed_at(renaming: int, work: Callable[[], object]) -> int:
    """Fork, work, and kill before the n-th renaming, from 1; return how the process ended.

    0 if it came to its end, `-signal.SIGKILL` if it was killed, 3 if it raised.
    """
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        left = renaming

        def hook(event: str, _: object) -> None:
            nonlocal left
            if event == "os.rename":
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        try:
            work()
        except BaseException as error:  # noqa: BLE001 -- this process must not return
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            sys.stderr.flush()
            os._exit(3)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
