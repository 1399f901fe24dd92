"""Run a trial again and again, killed each time at its n-th renaming of a file, until it is done.

Renaming is how everything durable appears, so a kill before each of them cuts between any two
things that a party does. A run that goes on asks first who is there, and who is to be erased, which
takes about 40 renamings, and has to come past its next message: N must leave room for both. As a
script: `killing.py N FILE WORKSPACE FILE WORKSPACE …`; prints, for each workspace, how often it
killed.
"""

import os
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from federation.audit import has_begun, verify_party
from federation.trial.simulation import simulate

MOST_RUNS = 40


def run_until(file: Path, workspace: Path, renamings: int) -> int:
    """Fork, run, and kill at the given renaming; return how the process ended."""
    child = os.fork()
    if child == 0:
        left = renamings

        def hook(event: str, _: object) -> None:
            nonlocal left
            if event == "os.rename":
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        try:
            simulate(file, workspace)
        except BaseException as error:  # noqa: BLE001 -- this process must not return
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            sys.stderr.flush()
            os._exit(3)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_until_done(file: Path, workspace: Path, renamings: int) -> int | str:
    """Return 0 when the run is done, else what went wrong."""
    for kills in range(MOST_RUNS):
        ended = run_until(file, workspace, renamings)
        for log in workspace.glob("*/log"):
            if has_begun(log):
                verify_party(log.parent)
        if ended != -signal.SIGKILL:
            sys.stdout.write(f"{kills}\n")
            return ended
    return f"not done after {MOST_RUNS} runs of {renamings} renamings: do they come any further?"


if __name__ == "__main__":
    each, *paths = sys.argv[1:]
    with TemporaryDirectory() as undisturbed:  # so that no fork need import or calibrate again
        simulate(Path(paths[0]), Path(undisturbed))
    for trial, place in zip(paths[::2], paths[1::2], strict=True):
        if wrong := kill_until_done(Path(trial), Path(place), int(each)):
            sys.exit(wrong)
