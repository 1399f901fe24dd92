"""Two processes match two sets, and what that costs is measured by one means for every engine.

Guarantees: CPU of both processes and their children, from start to end; a match that finds anybody
but the people in both sets raises; a peer runs in an environment of its own, made at first use,
and nothing of it is installed beside Comity.

Leaves to others: which engines there are and what is asked of them (`benchmarks/psi.py`), playing
a party (the runners beside this module), and peak memory and bytes, which `party` reports.
"""

import hashlib
import json
import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

RUNNERS = Path(__file__).resolve().parent
ENVIRONMENTS = RUNNERS.parent.parent / ".venv-bench"
ROLES = ("receiver", "sender")
CPU_FEATURES = ("avx2", "avx512f", "avx512ifma")
MB = 1e6


class WrongMatchError(Exception):
    """A match failed or found the wrong people, so its cost says nothing."""


class UnavailableError(Exception):
    """An engine cannot run on this machine; the message says why."""


@dataclass(frozen=True)
class Engine:
    """One way to match.

    Attributes:
        runner: the script that plays a party.
        options: what the script is told.
        module: what Comity's own environment must have; empty for nothing more.
        features: what the CPU must have.
        requirement: what pip installs for a peer; None runs in Comity's own environment.
        program: what pip installs for a program that Comity starts in an environment of its own.
        pythons: interpreters that the peer has wheels for; empty for any.
        by_default: whether it runs without being named.
    """

    runner: str
    options: tuple[str, ...] = ()
    module: str = ""
    features: tuple[str, ...] = ()
    requirement: str | None = None
    program: str | None = None
    pythons: tuple[str, ...] = ()
    by_default: bool = True


@dataclass(frozen=True)
class Measurement:
    """What one match of `size` by `size` identifiers cost; bytes as the kernel counted them."""

    size: int
    cpu_seconds: float
    startup_cpu_seconds: float
    wall_seconds: float
    receiver_peak_bytes: int
    sender_peak_bytes: int
    to_sender_bytes: int
    to_receiver_bytes: int

    @property
    def cpu_microseconds(self) -> float:
        """Both parties' CPU for one identifier of each."""
        return 1e6 * self.cpu_seconds / self.size

    @property
    def peak_mb(self) -> float:
        """Peak memory of the larger party."""
        return max(self.receiver_peak_bytes, self.sender_peak_bytes) / MB

    @property
    def wire_mb(self) -> float:
        """Bytes in both directions."""
        return (self.to_sender_bytes + self.to_receiver_bytes) / MB


@dataclass(frozen=True)
class Sets:
    """Two parties' sets in a folder, in every form that an engine reads.

    Attributes:
        folder: has ROLE.tokens, rows of 33 bytes (kind, SHA-256), and ROLE.csv, hexadecimal.
        receiver: the receiver's hashes in the order of its rows.
        shared: the hashes that both have, sorted.
    """

    folder: Path
    receiver: tuple[bytes, ...]
    shared: tuple[bytes, ...]

    @classmethod
    def write(cls, size: int, folder: Path) -> "Sets":
        """Write two sets of `size` hashed e-mails, half of them the same."""
        people = range(size + size // 2)
        hashes = [hashlib.sha256(b"person%d@example.org" % person).digest() for person in people]
        receiver, sender = sorted(hashes[:size]), sorted(hashes[size // 2 :])[:size]
        for role, rows in zip(ROLES, (receiver, sender), strict=True):
            (folder / f"{role}.tokens").write_bytes(b"".join(b"\x01" + row for row in rows))
            (folder / f"{role}.csv").write_text("\n".join(["id", *map(bytes.hex, rows)]) + "\n")
        return cls(folder, tuple(receiver), tuple(sorted(set(receiver) & set(sender))))

    def lend(self, folder: Path) -> None:
        """Show the files in another folder, for one engine to read there."""
        for source in self.folder.glob("*.*"):
            (folder / source.name).symlink_to(source)

    def check_found(self, folder: Path) -> None:
        """Refuse a match that found anybody else than the people in both sets.

        Args:
            folder: where the receiver left its rows as 64-bit integers, or its table.

        Raises:
            WrongMatchError: with counts only.
        """
        rows, table = folder / "found.rows", folder / "receiver-found.csv"
        if table.exists():
            found = [bytes.fromhex(line) for line in table.read_text().split()[1:]]
        else:
            found = [self.receiver[row] for row in np.fromfile(rows, np.int64).tolist()]
        if tuple(sorted(found)) != self.shared:
            wrong = len(set(found) - set(self.shared))
            raise WrongMatchError(
                f"expected the {len(self.shared)} shared identifiers once each, got {len(found)}, "
                f"{wrong} of them not shared"
            )


def measure(engine: Engine, interpreter: Path, sets: Sets, *, workers: int) -> Measurement:
    """Run one match between two processes.

    Raises:
        WrongMatchError: if a party fails, or the wrong people are found.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        sets.lend(folder)
        begun = time.perf_counter()
        usages = run_parties(engine, interpreter, folder, workers=workers)
        wall = time.perf_counter() - begun
        sets.check_found(folder)
        reports = {role: json.loads((folder / f"{role}.json").read_text()) for role in ROLES}
    return Measurement(
        size=len(sets.receiver),
        cpu_seconds=sum(usage.ru_utime + usage.ru_stime for usage in usages),
        startup_cpu_seconds=sum(report["startup_cpu_seconds"] for report in reports.values()),
        wall_seconds=wall,
        receiver_peak_bytes=reports["receiver"]["peak_bytes"],
        sender_peak_bytes=reports["sender"]["peak_bytes"],
        to_sender_bytes=reports["sender"]["received_bytes"],
        to_receiver_bytes=reports["receiver"]["received_bytes"],
    )


def run_parties(
    engine: Engine, interpreter: Path, folder: Path, *, workers: int
) -> list[resource.struct_rusage]:
    """Run both parties to their end and return what each used, its children included."""
    environment = {**os.environ, "TMPDIR": str(folder)}
    if engine.program is not None:
        environment["COMITY_RR22_PYTHON"] = str(environment_for(engine, engine.program))
        environment["PYTHONPATH"] = str(RUNNERS.parent.parent)
    tail = [str(folder), *map(str, free_ports()), *engine.options, str(workers)]
    running = {}
    for role in ROLES:
        with (folder / f"{role}.log").open("wb") as log:
            running[role] = subprocess.Popen(
                [interpreter, RUNNERS / engine.runner, role, *tail],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
    usages = []
    try:
        while running:
            for role, process in tuple(running.items()):
                ended, status, usage = os.wait4(process.pid, os.WNOHANG)
                if not ended:
                    continue
                process.returncode = os.waitstatus_to_exitcode(status)
                del running[role]
                if process.returncode:
                    last = (folder / f"{role}.log").read_text(errors="replace").splitlines()[-3:]
                    raise WrongMatchError(
                        f"the {role} ended with {process.returncode}: " + " / ".join(last)
                    )
                usages.append(usage)
            time.sleep(0.01)
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    return usages


def free_ports() -> tuple[int, int]:
    """Return two ports of loopback that nobody listens on."""
    anywhere = ("127.0.0.1", 0)
    with socket.create_server(anywhere) as one, socket.create_server(anywhere) as two:
        return one.getsockname()[1], two.getsockname()[1]


def interpreter_for(engine: Engine) -> Path:
    """Return the Python that runs an engine; make a peer's environment if need be.

    Raises:
        UnavailableError: if the CPU, a fitting Python or the package is missing.
    """
    if lacking := set(engine.features) - set(cpu()["features"]):
        raise UnavailableError(f"this CPU has no {', '.join(sorted(lacking))}")
    if engine.module and find_spec(engine.module) is None:
        raise UnavailableError(f"{engine.module} is not installed")
    if engine.program is not None:
        environment_for(engine, engine.program)
    if engine.requirement is None:
        return Path(sys.executable)
    return environment_for(engine, engine.requirement)


def environment_for(engine: Engine, requirement: str) -> Path:
    """Return the Python of the environment that has a package; make it if need be.

    Raises:
        UnavailableError: if a fitting Python or the package is missing.
    """
    folder = ENVIRONMENTS / requirement.partition("==")[0]
    interpreter, done = folder / "bin" / "python", folder / "installed"
    if not (done.exists() and done.read_text() == requirement):
        print(f"installing {requirement} below {ENVIRONMENTS.name}", file=sys.stderr)
        make = [python_for(engine), "-m", "venv", "--clear", folder]
        fill = [interpreter, "-m", "pip", "install", "--quiet", requirement]
        try:
            for step in (make, fill):
                subprocess.run(step, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise UnavailableError(f"{requirement} cannot be installed: {error}") from error
        done.write_text(requirement)
    return interpreter


def python_for(engine: Engine) -> str:
    """Return a Python that a peer has wheels for."""
    if not engine.pythons or platform.python_version().rpartition(".")[0] in engine.pythons:
        return sys.executable
    for version in engine.pythons:
        if found := shutil.which(f"python{version}"):
            return found
    raise UnavailableError(
        f"{engine.requirement or engine.program} needs Python {' or '.join(engine.pythons)}, which "
        "is not installed"
    )


def cpu() -> dict[str, str | list[str]]:
    """Return the CPU's name and those of its features that decide between engines."""
    facts = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    flags = facts.get("flags", "").split()
    return {
        "model": facts.get("model name", platform.machine()),
        "features": [feature for feature in CPU_FEATURES if feature in flags],
    }
