"""A coordinator whose event loop hangs ends by itself, and nobody else does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from coordinating import Coordination
from deployment import BIN, START_SECONDS, Processes

PATIENCE = 0.4
PROGRAM = f"""
import asyncio, re, time
from federation.apps.operating.alarm import alarmed

async def main():
    async with alarmed(patience={PATIENCE}):
        {{within}}
    {{after}}
    print("it went on", flush=True)

asyncio.run(main())
"""


def run(within: str, after: str = "pass") -> "subprocess.CompletedProcess[str]":
    program = PROGRAM.format(within=within, after=after)
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    "hangs",
    [
        "time.sleep(600)",
        're.match("(a+)+$", 60 * "a" + "b")',  # lets no other thread of Python run
        "while True: pass",
    ],
)
def test_a_loop_that_hangs_ends_the_process_which_says_where_it_stood(hangs: str) -> None:
    done = run(hangs)
    assert done.returncode == 1
    assert done.stdout == ""
    assert 'File "<string>", line 7 in main' in done.stderr


@pytest.mark.parametrize(
    ("within", "after"),
    [
        (f"await asyncio.sleep({3 * PATIENCE})", "pass"),
        (f"await asyncio.to_thread(time.sleep, {3 * PATIENCE})", "pass"),
        ("pass", f"time.sleep({3 * PATIENCE})"),
    ],
)
def test_a_loop_that_goes_round_or_is_watched_no_longer_goes_on(within: str, after: str) -> None:
    done = run(within, after)
    assert (done.returncode, done.stdout) == (0, "it went on\n"), done.stderr


HANG = """
import signal, time
from federation.apps.operating import alarm
alarm.alarmed.__kwdefaults__ and alarm.alarmed.__kwdefaults__.update(patience=5.0)
signal.signal(signal.SIGUSR1, lambda *_: time.sleep(600))  # a loop runs handlers itself
"""


@pytest.mark.deployment
def test_a_coordinator_that_hangs_answers_nobody_and_ends_with_1_and_starts_again(
    tmp_path: Path,
) -> None:
    """As it is installed, but for its patience, and a signal on which its loop hangs."""
    (tmp_path / "sitecustomize.py").write_text(HANG)
    environment = {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(tmp_path),
    }
    with Processes(tmp_path / "processes", environment) as processes:
        coordination = Coordination(processes, tmp_path, None)
        up = coordination.up()
        with coordination.client() as client:
            assert client.get(f"{coordination.public}/health").status_code == 200
            up.send_signal(signal.SIGUSR1)
            time.sleep(0.2)
            with pytest.raises(httpx.TransportError):
                client.get(f"{coordination.public}/health", timeout=1)
        assert up.wait(START_SECONDS) == 1
        assert "sitecustomize.py" in processes.told("up")  # where it stood
        coordination.up("up-again")
