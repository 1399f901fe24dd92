"""A SuperLink and parties' nodes as processes on loopback, for tests and benchmarks of deployments."""

import ipaddress
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from federation.apps import BUNDLE
from federation.party import PartyFolder

BIN = Path(sys.executable).parent
HOST = "127.0.0.1"
TELEMETRY_OFF = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
START_SECONDS = 60
RUN_SECONDS = 400
STOP_SECONDS = 10


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((HOST, 0))
        return [one.getsockname()[1] for one in sockets]


def write_certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate for loopback that is its own root, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "superlink")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = directory / "superlink.pem", directory / "superlink.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


class Trap:
    """What all web proxy settings point at: whoever looks beyond loopback is seen here."""

    def __init__(self) -> None:
        self._socket = socket.create_server((HOST, 0))
        self._socket.setblocking(False)
        address = f"http://{HOST}:{self._socket.getsockname()[1]}"
        names = ("http_proxy", "https_proxy", "all_proxy")
        self.environment = {"no_proxy": HOST, "NO_PROXY": HOST} | {
            spelling: address for name in names for spelling in (name, name.upper())
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def caught(self) -> bool:
        """Whether anybody called."""
        try:
            self._socket.accept()[0].close()
        except BlockingIOError:
            return False
        return True


class Processes:
    """Commands, each with its output in a file; none outlives the block."""

    def __init__(self, home: Path, environment: Mapping[str, str]) -> None:
        self._home = home
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith("FLWR_")
        } | environment
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(
        self, name: str, command: Sequence[str], *, without: Sequence[str] = ()
    ) -> subprocess.Popen[bytes]:
        """Start a command with a Flower home of its own, and without some variables."""
        home = self.flower_home(name)
        homes = {"FLWR_HOME": str(home), "HOME": str(self._home / "user")}
        with self._output(name).open("ab") as output:
            self._running[name] = subprocess.Popen(
                [str(BIN / command[0]), *command[1:]],
                env={key: one for key, one in self._environment.items() if key not in without}
                | homes,
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self._running[name]

    def finish(self, name: str, *, seconds: float) -> str:
        """Wait for a command to end well; returns what it printed."""
        if code := self._running[name].wait(timeout=seconds):
            raise AssertionError(f"{name} left with {code}")
        return self.told(name)

    def process(self, name: str) -> subprocess.Popen[bytes]:
        """The process of a command."""
        return self._running[name]

    def told(self, name: str) -> str:
        """What a command has printed so far."""
        return self._output(name).read_text()

    def wait_until_told(self, name: str, words: str, *, seconds: float) -> None:
        """Wait for a command to print something."""
        end = time.monotonic() + seconds
        while words not in self.told(name):
            if time.monotonic() > end or self._running[name].poll() is not None:
                raise AssertionError(f"{name} has not told {words!r}")
            time.sleep(0.05)

    def flower_home(self, name: str) -> Path:
        home = self._home / name
        home.mkdir(parents=True, exist_ok=True)
        return home

    def environments(self) -> Iterator[tuple[int, dict[str, str]]]:
        """Every living process that was started here, at whatever remove, and its environment."""
        for path in Path("/proc").glob("[0-9]*"):
            try:
                lines = (path / "environ").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            environment = dict(line.split("=", 1) for line in lines if "=" in line)
            if environment.get("FLWR_HOME", "").startswith(f"{self._home}/"):
                yield int(path.name), environment

    def last_output(self) -> str:
        return "\n".join(
            f"--- {name}\n" + "\n".join(self.told(name).splitlines()[-25:])
            for name in self._running
        )

    def _output(self, name: str) -> Path:
        return self._home / f"{name}.output"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._running.values():
            process.terminate()
        end = time.monotonic() + STOP_SECONDS
        for process in self._running.values():
            try:
                process.wait(timeout=max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        end = time.monotonic() + STOP_SECONDS
        while (left := [pid for pid, _ in self.environments()]) and time.monotonic() < end:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
        if error is not None:
            error.add_note(self.last_output())


def write_node_key(directory: Path, name: str) -> tuple[Path, Path]:
    """A key by which a SuperLink knows a SuperNode, and its public half."""
    key = ec.generate_private_key(ec.SECP256R1())
    paths = directory / f"{name}.node", directory / f"{name}.node.pub"
    paths[0].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
    )
    paths[1].write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
    )
    return paths


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"nothing listens on port {port}")


def children(pid: int) -> list[int]:
    """The living children of a process."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, parent = (path / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid and state != "Z":
                found.append(int(path.name))
    return found


def listening_sockets(pids: Collection[int]) -> set[str]:
    """The sockets on which processes wait for callers, TCP or Unix, by inode."""
    own = set()
    for pid in pids:
        for path in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                own.add(str(path.readlink()))
    listening = set()
    for name, state, inode in (("tcp", 3, 9), ("tcp6", 3, 9), ("unix", 3, 6)):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            cells = line.split()
            if cells[state] == ("00010000" if name == "unix" else "0A"):
                listening.add(f"socket:[{cells[inode]}]")
    return own & listening


class Deployment:
    """A SuperLink with TLS and keys for nodes, and nodes of parties, as docs/deploy.md says."""

    def __init__(self, processes: Processes, directory: Path) -> None:
        self._processes = processes
        self._directory = directory
        (port,) = free_ports(1)
        self.address = f"{HOST}:{port}"
        self.certificate, key = write_certificate(directory)
        superlink = processes.start(
            "superlink",
            [
                *("flower-superlink", "--host", HOST, "--port", str(port)),
                *("--ssl-certfile", str(self.certificate), "--ssl-keyfile", str(key)),
                *("--ssl-ca-certfile", str(self.certificate)),
                *("--enable-supernode-auth", "--disable-runtime-dependency-installation"),
            ],
        )
        wait_for_port(port, superlink)

    def register(self, names: Sequence[str]) -> Mapping[str, Path]:
        """Make parties' keys known; returns the private ones."""
        keys = {name: write_node_key(self._directory, name) for name in names}
        for name, (_, public) in keys.items():
            self._command(f"register-{name}", ["flwr", "supernode", "register", str(public)])
        for name in names:
            self._processes.finish(f"register-{name}", seconds=START_SECONDS)
        return {name: private for name, (private, _) in keys.items()}

    def start_nodes(
        self, folders: Sequence[PartyFolder], *, stock: bool = False, options: Sequence[str] = ()
    ) -> None:
        """Start a node at every party: ours, or Flower's own."""
        keys = self.register([folder.name for folder in folders])
        for folder, port in zip(folders, free_ports(len(folders)), strict=True):
            name, key = f"supernode-{folder.name}", keys[folder.name]
            if stock:
                config = ["--node-config", f'party="{folder.path}"']
                own = ["flower-supernode", "--host", HOST, "--port", str(port), *config]
                self._processes.start(name, [*own, *self._line(key, self.certificate)])
            else:
                self.start_node(name, folder, key, options=options)

    def start_node(
        self,
        name: str,
        folder: PartyFolder,
        key: Path,
        *,
        root_certificates: Path | None = None,
        options: Sequence[str] = (),
    ) -> None:
        """Start a node of ours, with nothing in its environment that tells Flower to be quiet."""
        line = self._line(key, root_certificates or self.certificate)
        command = ["comity", "node", "up", "--party", str(folder.path), *line, *options]
        self._processes.start(name, command, without=tuple(TELEMETRY_OFF))

    def _line(self, key: Path, root_certificates: Path) -> Sequence[str]:
        return (
            *("--superlink", self.address, "--root-certificates", str(root_certificates)),
            *("--auth-supernode-private-key", str(key)),
        )

    def run(self, run_config: str, *, app: Path = BUNDLE, seconds: float, name: str = "run") -> str:
        """Run an app to its end; returns what it told."""
        self.begin(run_config, app=app, name=name)
        return self._processes.finish(name, seconds=seconds)

    def begin(self, run_config: str, *, app: Path = BUNDLE, name: str = "run") -> None:
        """Start a run, and do not wait for it."""
        command = ["flwr", "run", str(app), "--run-config", run_config, "--stream"]
        self._command(name, command)

    def _command(self, name: str, command: Sequence[str]) -> None:
        (self._processes.flower_home(name) / "config.toml").write_text(
            f'[superlink]\ndefault = "ours"\n\n[superlink.ours]\naddress = "{self.address}"\n'
            f'root-certificates = "{self.certificate}"\n'
        )
        self._processes.start(name, command)
