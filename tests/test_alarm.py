"""A coordinator whose event loop hangs ends by itself, and nobody else does."""

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from coordinating import Coordination
from deployment import BIN, START_SECONDS, Processes

from federation.apps.operating.systemd import Standing, tell_systemd

PROGRAM = """
import asyncio, re, time
from federation.apps.operating import alarm

alarm.PATIENCE_SECONDS = {patience}

async def main():
    async with alarm.alarmed():
        {within}
    {after}
    print("it went on", flush=True)

asyncio.run(main())
"""


def run(within: str, after: str = "pass", *, patience: float) -> "subprocess.CompletedProcess[str]":
    program = PROGRAM.format(within=within, after=after, patience=patience)
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    "hangs",
    [
        "time.sleep(600)",
        're.match("(a+)+$", 60 * "a" + "b")',  # lets no other thread of Python run
    ],
)
def test_a_loop_that_hangs_ends_the_process_which_says_where_it_stood(hangs: str) -> None:
    done = run(hangs, patience=0.4)
    assert done.returncode == 1
    assert done.stdout == ""
    assert 'File "<string>", line 9 in main' in done.stderr


@pytest.mark.parametrize(
    ("within", "after", "patience"),
    [
        ("await asyncio.gather(asyncio.sleep(6), asyncio.to_thread(time.sleep, 6))", "pass", 5.0),
        ("pass", "time.sleep(1)", 0.4),
    ],
)
def test_a_loop_that_goes_round_or_is_watched_no_longer_goes_on(
    within: str, after: str, patience: float
) -> None:
    done = run(within, after, patience=patience)
    assert (done.returncode, done.stdout) == (0, "it went on\n"), done.stderr


def test_a_process_that_can_open_nothing_more_goes_on_though_it_cannot_tell_systemd(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "@nobody-takes-this")
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, most))
    try:
        tell_systemd(Standing.GOING_ROUND)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, most))


HANG = """
import signal, time
from federation.apps.operating import alarm
alarm.PATIENCE_SECONDS = 12.0
signal.signal(signal.SIGUSR1, lambda *_: time.sleep(600))  # a loop runs handlers itself
"""


@pytest.mark.deployment
def test_a_coordinator_tells_systemd_how_it_stands_and_ends_with_1_where_it_hangs(
    tmp_path: Path,
) -> None:
    """As it is installed, but for its patience, and a signal on which its loop hangs."""
    (tmp_path / "sitecustomize.py").write_text(HANG)
    environment = {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(tmp_path),
    }
    name = f"comity-test-{os.getpid()}"
    environment["NOTIFY_SOCKET"] = f"@{name}"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd,
        Processes(tmp_path / "processes", environment) as processes,
    ):
        systemd.bind(f"\0{name}")
        systemd.settimeout(START_SECONDS)
        coordination = Coordination(processes, tmp_path, None)
        up = coordination.up()
        while (told := systemd.recv(100)) != b"READY=1":
            assert told == b"WATCHDOG=1"  # its loop goes round while it opens its listeners
        assert systemd.recv(100) == b"WATCHDOG=1"
        with coordination.client() as client:
            assert client.get(f"{coordination.public}/health").status_code == 200
            up.send_signal(signal.SIGUSR1)
            time.sleep(0.2)
            with pytest.raises(httpx.TransportError):
                client.get(f"{coordination.public}/health", timeout=1)
        assert up.wait(START_SECONDS) == 1
        assert "sitecustomize.py" in processes.told("up")  # where it stood
