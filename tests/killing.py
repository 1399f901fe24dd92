"""Run a trial again and again, killed each time at its n-th renaming of a file, until it is done.

A run that goes on asks first who is there, and who is to be erased, which takes about 40 renamings,
and has to come past its next message: N must leave room for both. As a script: `killing.py N FILE
WORKSPACE FILE WORKSPACE …`; prints, for each workspace, how often it killed.
"""

import signal
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from renamings import killed_at

from federation.audit import has_begun, verify_party
from federation.trial.simulation import simulate

MOST_RUNS = 40


def kill_until_done(file: Path, workspace: Path, renamings: int) -> int | str:
    """Return 0 when the run is done, else what went wrong."""
    for kills in range(MOST_RUNS):
        ended = killed_at(renamings, partial(simulate, file, workspace))
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
