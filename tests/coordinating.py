"""A coordinator that stays, its parties' nodes and its operators, as processes on loopback."""

import json
import shutil
import signal
import ssl
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
from deployment import (
    HOST,
    START_SECONDS,
    STOP_SECONDS,
    TELEMETRY_OFF,
    Processes,
    free_ports,
    write_node_key,
)

from federation.clock import utc_now
from federation.operations.folder import CoordinatorConfig, CoordinatorFolder
from federation.operations.roles import OperatorRole
from federation.operations.tokens import TokenBook
from federation.party import PartyFolder


class Coordination:
    """A coordinator's folder, and the processes around it.

    Args:
        processes: where they run.
        directory: for the folder and keys.
        party: the coordinator's folder as a party; it is moved into the coordinator's.
    """

    def __init__(self, processes: Processes, directory: Path, party: Path | None) -> None:
        self.processes = processes
        self.directory = directory
        self.path = processes.flower_home("state") / "coordinator"
        public, control = free_ports(2)
        self.public = f"https://{HOST}:{public}"
        self.control = f"https://{HOST}:{control}"
        addresses = [f"{HOST}:{public}", f"{HOST}:{control}"]
        config = CoordinatorConfig.for_address(
            addresses[0], listen=addresses[0], control=addresses[1]
        )
        CoordinatorFolder.init(self.path, config, now=utc_now())
        self.folder = CoordinatorFolder.open(self.path)
        if party is not None:
            shutil.copytree(party, self.folder.party)

    def up(self, name: str = "up") -> subprocess.Popen[bytes]:
        """Serve; return once it answers."""
        config = str(self.path / "coordinator.toml")
        process = self.processes.start(name, ["comity", "coordinator", "up", "--config", config])
        self.processes.wait_until_told(name, "answers parties", seconds=START_SECONDS)
        return process

    def wait_until_ready(self) -> None:
        end = time.monotonic() + START_SECONDS
        while self.client().get(f"{self.public}/ready").status_code != 200:
            assert time.monotonic() < end
            time.sleep(0.05)

    def token(self, name: str, role: OperatorRole) -> str:
        """Make an operator's token."""
        return TokenBook(self.folder.tokens, safe=self.folder.safe).add(name, role, now=utc_now())

    def client(self, token: str | None = None) -> httpx.Client:
        """A client that trusts the coordinator's CA, and shows a token if there is one."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx.Client(verify=self.roots, headers=headers, trust_env=False, timeout=20)

    @property
    def roots(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.folder.ca_certificate)

    def remote(self, name: str, token: str) -> Path:
        """Write the file by which an operator elsewhere reaches the coordinator."""
        (self.directory / f"{name}.token").write_text(f"{token}\n")
        file = self.directory / f"{name}.toml"
        file.write_text(
            f'address = "{self.folder.config.control}"\ntoken-file = "{name}.token"\n'
            f'root-certificates = "{self.folder.ca_certificate}"\n'
        )
        return file

    def start_nodes(
        self, folders: Sequence[PartyFolder], *, options: Mapping[str, Sequence[str]] = {}
    ) -> None:
        """Have every party's node be taken, and start it, some with further options."""
        for folder in folders:
            private, public = write_node_key(self.directory, folder.name)
            self.folder.nodes.mkdir(exist_ok=True)
            shutil.copy(public, self.folder.nodes / f"{folder.name}.pub")
            self.processes.wait_until_told("up", f"{folder.name}'s node", seconds=START_SECONDS)
            more = options.get(folder.name, ())
            self.start_node(f"node-{folder.name}", folder, private, options=more)

    def start_node(
        self,
        name: str,
        folder: PartyFolder,
        key: Path,
        *,
        root: Path | None = None,
        options: Sequence[str] = (),
    ) -> None:
        """Start a node, with nothing in its environment that tells Flower to be quiet."""
        command = [
            *("comity", "node", "up", "--party", str(folder.path)),
            *("--superlink", self.folder.config.address),
            *("--root-certificates", str(root or self.folder.ca_certificate)),
            *("--auth-supernode-private-key", str(key)),
            *options,
        ]
        self.processes.start(name, command, without=tuple(TELEMETRY_OFF))

    def refusals(self) -> list[dict[str, object]]:
        """The lines about refused calls."""
        return [json.loads(line) for line in self.folder.audit.read_text().splitlines()]

    def kill(self, name: str = "up") -> None:
        """End the coordinator at once, as a power cut would."""
        process = self.processes.process(name)
        process.send_signal(signal.SIGKILL)
        process.wait(STOP_SECONDS)
