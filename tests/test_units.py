"""The coordinator's unit, as it lies in deploy/, started by a systemd that is the first of its own processes.

It needs root, and reaches nothing of the machine but /proc and a group of its own: its mounts,
processes and names are a namespace's. Behind `--thorough`, as systemd waits for its watchdog.
"""

import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from deployment import HOST, free_ports

from federation.clock import utc_now
from federation.operations.folder import CoordinatorConfig, CoordinatorFolder

DEPLOY = Path(__file__).resolve().parent.parent / "deploy" / "systemd"
UNIT = "comity-coordinator.service"
USER = 4242
SECONDS = 180
WATCHDOG_SECONDS = 15
"""Shorter than the unit's, so that a test can wait for it."""

BOOT = """
set -e
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run/systemd/system
for name in sysinit basic network-online shutdown umount multi-user; do
  printf '[Unit]\\nDefaultDependencies=no\\n' > /run/systemd/system/$name.target
done
for file in passwd group machine-id; do mount --bind {made}/$file /etc/$file; done
for place in /srv /opt /var/lib/systemd; do mount -t tmpfs tmpfs $place; done
mkdir /srv/comity /opt/comity
mount --bind {made}/srv /srv/comity
mount --bind {made}/opt /opt/comity
systemd-creds encrypt --with-key=auto-initrd --name=unsealing-key {made}/key /run/brand.cred
cp -r {made}/units/. /run/systemd/system
mount --make-rshared /
export container=namespace SYSTEMD_UNIT_PATH=/run/systemd/system
exec {systemd} --system --unit={unit} --log-target=console --show-status=no
"""
DROP_IN = """
[Service]
LoadCredentialEncrypted=unsealing-key:/run/brand.cred
Environment=COMITY_UNSEALING_KEY_FILE=%d/unsealing-key
WatchdogSec={watchdog}
RestartSec=0
StandardOutput=append:/srv/comity/said
StandardError=append:/srv/comity/said
ProtectHome=tmpfs
BindReadOnlyPaths={interpreter}
"""
SYSTEMD = Path("/lib/systemd/systemd")
CGROUPS = [
    Path(line.split()[1])
    for line in Path("/proc/mounts").read_text().splitlines()
    if line.split()[2] == "cgroup2"
]


def can_boot() -> bool:
    tools = ("unshare", "nsenter", "systemctl", "systemd-creds")
    if os.geteuid() or not SYSTEMD.exists() or not CGROUPS or not all(map(shutil.which, tools)):
        return False
    tried = ["unshare", "--mount", "--pid", "--fork", "--cgroup", "--mount-proc", "true"]
    return subprocess.run(tried, check=False, capture_output=True).returncode == 0


@dataclass
class Booted:
    """A systemd at work, and the coordinator that it keeps."""

    pid: int
    folder: CoordinatorFolder
    log: Path

    def systemctl(self, *words: str) -> str:
        entering = ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--cgroup"]
        told = subprocess.run(
            [*entering, "systemctl", *words],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return told.stdout.strip()

    def property(self, name: str) -> str:
        return self.systemctl("show", UNIT, f"--property={name}", "--value")

    def wait(self, holds: Callable[[], bool]) -> None:
        end = time.monotonic() + SECONDS
        while not holds():
            alive = Path(f"/proc/{self.pid}").exists()
            assert alive and time.monotonic() < end, self.told()  # noqa: PT018
            time.sleep(1)

    def told(self) -> str:
        said = self.folder.path.parent / "said"
        words = [file.read_text() for file in (self.log, said) if file.exists()]
        return "\n".join(words)[-6000:] + self.systemctl("status", "--all", "--full", UNIT)

    def is_ready(self) -> bool:
        address = f"https://{self.folder.config.address}/ready"
        roots = ssl.create_default_context(cafile=self.folder.ca_certificate)
        try:
            return httpx.get(address, verify=roots, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture
def made(thorough: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the namespace finds: a coordinator's folder that is sealed, an installation, the units."""
    if not thorough:
        pytest.skip("waits for a watchdog: --thorough")
    if not can_boot():
        pytest.skip("cannot start a systemd of its own here")
    made = tmp_path / "made"
    for name in ("srv", "opt/bin", f"units/{UNIT}.d"):
        (made / name).mkdir(parents=True)
    (made / "key").write_text("ab" * 32)
    (made / "key").chmod(0o600)
    monkeypatch.setenv("COMITY_UNSEALING_KEY_FILE", str(made / "key"))
    address, control = (f"{HOST}:{port}" for port in free_ports(2))
    config = CoordinatorConfig.for_address(address, listen=address, control=control)
    CoordinatorFolder.init(made / "srv" / "coordinator", config, now=utc_now())
    for file in ((made / "srv"), *(made / "srv").rglob("*")):
        os.chown(file, USER, USER)
    interpreter = Path(sys.executable)
    comity = made / "opt" / "bin" / "comity"
    comity.write_text(f'#!/bin/sh\nexec {interpreter} {interpreter.with_name("comity")} "$@"\n')
    comity.chmod(0o755)
    for file in DEPLOY.glob("comity-coordinator*"):
        shutil.copy(file, made / "units")
    words = DROP_IN.format(watchdog=WATCHDOG_SECONDS, interpreter=sys.base_prefix)
    (made / "units" / f"{UNIT}.d" / "test.conf").write_text(words)
    passwd, group = f"comity:x:{USER}:{USER}::/:/bin/false\n", f"comity:x:{USER}:\n"
    (made / "passwd").write_text(Path("/etc/passwd").read_text() + passwd)
    (made / "group").write_text(Path("/etc/group").read_text() + group)
    (made / "machine-id").write_text("0123456789abcdef" * 2 + "\n")
    return made


@pytest.fixture
def booted(made: Path) -> Iterator[Booted]:
    group = CGROUPS[0] / f"comity-test-{os.getpid()}"
    group.mkdir()
    spaces = "--mount --pid --fork --cgroup --ipc --uts --mount-proc"
    joining = f'echo $$ > {group}/cgroup.procs && exec unshare {spaces} bash -c "$0"'
    script = BOOT.format(made=made, systemd=SYSTEMD, unit=UNIT)
    log = made / "systemd.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-c", joining, script], stdout=output, stderr=output, start_new_session=True
        )
    try:
        end = time.monotonic() + 60
        while not (children := _children(process.pid)):
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        yield Booted(children[0], CoordinatorFolder.open(made / "srv" / "coordinator"), log)
    finally:
        for pid in _children(process.pid):
            os.kill(pid, signal.SIGKILL)  # the first of a namespace takes all others with it
        process.wait(60)
        for directory in sorted(group.glob("**/"), reverse=True):
            directory.rmdir()


def _children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.timeout(4 * SECONDS)
def test_a_unit_is_started_with_a_sealed_key_watched_and_ended(booted: Booted) -> None:
    # Type=notify: it is active once it has said that it answers
    booted.wait(lambda: booted.property("ActiveState") == "active")
    booted.wait(booted.is_ready)
    first = booted.property("MainPID")
    assert booted.folder.path.stat().st_uid == USER
    # stopped as a whole, it is killed by the watchdog and started again
    booted.systemctl("kill", "--signal=SIGSTOP", UNIT)
    booted.wait(lambda: booted.property("NRestarts") == "1")
    booted.wait(lambda: booted.property("ActiveState") == "active")
    assert booted.property("MainPID") != first
    booted.wait(booted.is_ready)
    booted.systemctl("stop", UNIT)
    booted.wait(lambda: booted.property("ActiveState") == "inactive")
    assert booted.property("Result") == "success"
    assert booted.property("ExecMainStatus") == "0"
