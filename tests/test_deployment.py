"""A whole collaboration through a real SuperLink and three SuperNodes, against the same in one process."""

import ast
import io
import ipaddress
import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from conftest import Collaborate
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.cli.build import build_fab_from_disk

from federation.apps import BUNDLE
from federation.audit import verify_party
from federation.collaboration import load_collaboration
from federation.embedded import run_embedded
from federation.enclosure import decrypt
from federation.messages import SealedMessage, unseal
from federation.trial.workspace import Workspace, prepare_workspace

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
HOST = "127.0.0.1"
TELEMETRY_OFF = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
START_SECONDS = 60
RUN_SECONDS = 120
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
    """Flower's own commands, each with its output in a file; none outlives the block."""

    def __init__(self, home: Path, environment: Mapping[str, str]) -> None:
        self._home = home
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith("FLWR_")
        } | environment
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a command with a Flower home of its own."""
        home = self.flower_home(name)
        with self._output(name).open("ab") as output:
            self._running[name] = subprocess.Popen(
                [str(BIN / command[0]), *command[1:]],
                env=self._environment | {"FLWR_HOME": str(home), "HOME": str(self._home / "user")},
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
        return self._output(name).read_text()

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
            f"--- {name}\n" + "\n".join(self._output(name).read_text().splitlines()[-25:])
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
    key = ec.generate_private_key(ec.SECP384R1())
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


def run_deployed(
    workspace: Workspace,
    processes: Processes,
    directory: Path,
    *,
    exchange_seconds: float = 200,
    run_seconds: float = RUN_SECONDS,
    stock: bool = False,
) -> str:
    """Run the jobs as docs/deploy.md says; returns what `flwr run` printed."""
    names = [folder.name for folder in workspace.people]
    link_port, *node_ports = free_ports(1 + len(names))
    link = f"{HOST}:{link_port}"
    certificate, key = write_certificate(directory)
    node_keys = {name: write_node_key(directory, name) for name in names}
    superlink = processes.start(
        "superlink",
        [
            *("flower-superlink", "--host", HOST, "--port", str(link_port)),
            *("--ssl-certfile", str(certificate), "--ssl-keyfile", str(key)),
            *("--ssl-ca-certfile", str(certificate)),
            *("--enable-supernode-auth", "--disable-runtime-dependency-installation"),
        ],
    )
    wait_for_port(link_port, superlink)
    connection = (
        f'[superlink]\ndefault = "ours"\n\n[superlink.ours]\naddress = "{link}"\n'
        f'root-certificates = "{certificate}"\n'
    )
    for command in ("run", *(f"register-{name}" for name in names)):
        (processes.flower_home(command) / "config.toml").write_text(connection)
    for name, (_, public) in node_keys.items():
        processes.start(f"register-{name}", ["flwr", "supernode", "register", str(public)])
    for folder, port in zip(workspace.people, node_ports, strict=True):
        processes.finish(f"register-{folder.name}", seconds=START_SECONDS)
        own = (
            ["flower-supernode", "--host", HOST, "--port", str(port)]
            + ["--node-config", f'party="{folder.path}"']
            if stock
            else ["comity", "node", "up", "--party", str(folder.path)]
        )
        processes.start(
            f"supernode-{folder.name}",
            [
                *(*own, "--superlink", link, "--root-certificates", str(certificate)),
                *("--auth-supernode-private-key", str(node_keys[folder.name][0])),
            ],
        )
    run_config = f'coordinator="{workspace.coordinator.path}" deadline-seconds={exchange_seconds}'
    command = ["flwr", "run", str(BUNDLE), "--run-config", run_config, "--stream"]
    processes.start("run", command)
    return processes.finish("run", seconds=run_seconds)


def made(workspace: Workspace) -> dict[str, bytes]:
    """Everything that parties made: models, segments."""
    return {
        str(path.relative_to(workspace.path)): path.read_bytes()
        for folder in workspace.folders
        for part in ("models", "segments")
        for path in (folder.path / part).rglob("*")
        if path.is_file()
    }


def said(workspace: Workspace) -> list[tuple[str, ...]]:
    """Everything that parties said, as the recipients read it: ciphertexts are never the same."""
    keys = {folder.name: folder.decryption_key() for folder in workspace.people}
    found = []
    for folder in workspace.folders:
        for path in folder.outbox.glob("*.json"):
            sealed = SealedMessage(path.read_bytes(), path.with_suffix(".bin").read_bytes())
            message = unseal(sealed, workspace.agreement)
            recipient = message.header.recipient
            if recipient in keys:
                message = decrypt(message, keys[recipient])
            words = (message.body.model_dump_json(), message.payload.hex())
            found.append((folder.name, recipient, message.header.job, *words))
    return sorted(found)


@pytest.mark.deployment
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds Flower's processes through /proc")
@pytest.mark.timeout(2 * START_SECONDS + RUN_SECONDS + 2 * STOP_SECONDS)
def test_a_deployment_says_and_makes_the_very_same_that_one_process_does(
    collaborate: Collaborate, tmp_path: Path
) -> None:
    file = collaborate()
    collaboration = load_collaboration(file)
    embedded = prepare_workspace(collaboration, file, tmp_path / "embedded")
    run_embedded(embedded.coordinator.path, [folder.path for folder in embedded.people])

    deployed = prepare_workspace(collaboration, file, tmp_path / "deployed")
    environment = {
        **TELEMETRY_OFF,
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.5",
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }
    with (
        Trap() as trap,
        Processes(tmp_path / "flower", environment | trap.environment) as processes,
    ):
        told = run_deployed(deployed, processes, tmp_path)
        assert "raised an exception" not in told
        quiet = [TELEMETRY_OFF.items() <= one.items() for _, one in processes.environments()]
        assert len(quiet) >= 1 + len(deployed.people)
        assert all(quiet)
        assert not trap.caught()
    assert [pid for pid, _ in processes.environments()] == []

    assert [words[:4] for words in said(deployed)] == [words[:4] for words in said(embedded)]
    assert said(deployed) == said(embedded)
    expected, found = made(embedded), made(deployed)
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    models = {name: content for name, content in found.items() if "/models/" in name}
    assert len(models) == 4
    assert len(set(models.values())) == 1
    assert sum("/segments/" in name for name in found) == 2
    for here, there in zip(embedded.folders, deployed.folders, strict=True):
        assert verify_party(there.path).counts == verify_party(here.path).counts
    assert not (tmp_path / "flower" / "user").exists()


@pytest.mark.deployment
@pytest.mark.parametrize("enabled", [False, True])
def test_the_trap_sees_telemetry_where_it_is_on(tmp_path: Path, *, enabled: bool) -> None:
    ping = "from flwr.supercore.telemetry import EventType, event; event(EventType.PING).result()"
    telemetry = {"FLWR_TELEMETRY_ENABLED": str(int(enabled)), "FLWR_HOME": str(tmp_path)}
    with Trap() as trap:
        process = subprocess.Popen(
            [sys.executable, "-c", ping], env={**os.environ, **trap.environment, **telemetry}
        )
        try:
            end = time.monotonic() + START_SECONDS
            caught = False
            while not caught and process.poll() is None and time.monotonic() < end:
                caught = trap.caught()
                time.sleep(0.05)
        finally:
            process.kill()
            process.wait()
        assert caught is enabled


def bundle_config() -> dict[str, Any]:
    return tomllib.loads((BUNDLE / "pyproject.toml").read_text())


@pytest.mark.parametrize("side", ["client", "server"])
def test_the_bundle_runs_the_installed_app_and_nothing_of_its_own(side: str) -> None:
    reference = bundle_config()["tool"]["flwr"]["app"]["components"][f"{side}app"]
    module, name = reference.split(":")
    tree = ast.parse((BUNDLE / f"{module.replace('.', '/')}.py").read_text())
    docstring, imported, exported = tree.body
    assert isinstance(docstring, ast.Expr)
    assert ast.unparse(imported) == f"from federation.apps.{side}_app import {name}"
    assert ast.unparse(exported) == f"__all__ = ['{name}']"


def test_the_bundle_is_three_modules_and_asks_for_nothing_to_be_installed() -> None:
    modules = sorted(path.relative_to(BUNDLE).as_posix() for path in BUNDLE.rglob("*.py"))
    package = "comity_bundle"
    assert modules == [f"{package}/{name}.py" for name in ("__init__", "client_app", "server_app")]
    assert ast.unparse(ast.parse((BUNDLE / package / "__init__.py").read_text()).body[1:]) == ""
    assert bundle_config()["project"]["dependencies"] == []


def test_the_bundle_can_be_told_a_folder_and_a_patience_and_nothing_else() -> None:
    config = bundle_config()["tool"]["flwr"]["app"]["config"]
    assert config == {"coordinator": "", "deadline-seconds": 600.0}


def test_the_bundle_ships_with_the_package_under_its_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    shipped = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert BUNDLE.relative_to(ROOT).parts[0] in shipped
    assert bundle_config()["project"]["version"] == project["project"]["version"]


def test_flower_builds_the_same_bundle_every_time() -> None:
    built = build_fab_from_disk(BUNDLE)
    assert build_fab_from_disk(BUNDLE) == built
    with zipfile.ZipFile(io.BytesIO(built)) as archive:
        names = {name for name in archive.namelist() if not name.startswith(".info/")}
    assert names == {
        "pyproject.toml",
        *(f"comity_bundle/{name}.py" for name in ("__init__", "client_app", "server_app")),
    }
