"""A coordinator and its nodes on loopback, Comity's or Flower's own, and stages of a measurement.

With TLS and keys for nodes, over a trial of small parties. Comity's are `comity coordinator up`,
whose state is on disk, and `comity node up`; Flower's are `flower-superlink`, with its state in
memory, and `flower-supernode`, which runs the same app of a party.
"""

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from flwr.cli.build import build_fab_from_disk
from flwr.common.serde import user_config_to_proto
from flwr.proto.control_pb2 import StartRunRequest
from flwr.proto.fab_pb2 import Fab
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from footprint import Footprint, Used, load, wait_for

ROOT = Path(__file__).resolve().parent.parent
APP = Path(__file__).resolve().parent / "deploy_app"
sys.path += [str(ROOT / "tests"), str(APP)]  # a deployment is started as it is tested

import deployment  # noqa: E402 -- lies in the tests
import parties  # noqa: E402
import trials  # noqa: E402
from coordinating import Coordination  # noqa: E402
from deployment import Processes  # noqa: E402

from compliance.terms import Role  # noqa: E402
from federation.collaboration import load_collaboration  # noqa: E402
from federation.operations.roles import OperatorRole  # noqa: E402
from federation.trial.workspace import Workspace, prepare_workspace  # noqa: E402

__all__ = [
    "Coordination",
    "Figures",
    "Machine",
    "Processes",
    "admit",
    "node_environment",
    "started",
    "write_workspace",
]

ROUNDS_OF_JOB = 10
_PATIENCE_SECONDS = 1800


@dataclass
class Figures:
    """What one stage took.

    Attributes:
        begin_seconds: from the call that starts the run to its app's first line.
        seconds: of each exchange, or its kind and seconds.
        cpu_seconds: by part of the deployment.
        peak_bytes: resident memory of the largest process of each part.
        load: how many processes wanted to run, over the last minute.
    """

    begin_seconds: float
    seconds: list[Any]
    cpu_seconds: dict[str, float]
    peak_bytes: dict[str, int]
    load: float


def _bundle() -> bytes:
    content: bytes = build_fab_from_disk(APP)
    return content


def write_workspace(
    directory: Path, *, nodes: int, rounds: int = ROUNDS_OF_JOB, absent_partners: int = 0
) -> Workspace:
    """Write a trial of a brand and as many partners as make up the nodes, and all its folders.

    Args:
        directory: for it.
        nodes: 2 or more.
        rounds: of its training.
        absent_partners: that the training goes on without.
    """
    for name in list(parties.PEOPLE)[nodes:]:
        del parties.PEOPLE[name], parties.ROLES[name]
    for number in range(len(parties.PEOPLE), nodes):
        name = f"shop-{number}"
        parties.ROLES[name] = Role.PARTNER
        parties.PEOPLE[name] = range(number % 20, number % 20 + 50)
    training = trials.training("model", rounds=rounds, steps=4 * rounds)
    if absent_partners:
        training["absent_partners"] = absent_partners
    content = trials.document(jobs=[{"kind": "match", "name": "find"}, training])
    content["agreement"]["train"] |= {"max_rounds": rounds, "max_parties_per_person": 1}
    del content["agreement"]["expand"]["fairness_groups"]
    file = trials.write_trial(directory / "trial", content)
    return prepare_workspace(load_collaboration(file), file, directory / "workspace")


@dataclass
class Machine:
    """A deployment that is up.

    Attributes:
        control: host:port where runs are started.
        root: file of the certificate that vouches for it.
        token: an admin's, where one is asked for.
        coordinator: its folder as a party.
        scratch: for results.
        footprint: of all its processes.
        start: seconds until the coordinator answered, and until all nodes were connected, and the
            CPU-seconds of both by part.
        stock: whether it is Flower's own.
    """

    control: str
    root: Path
    token: str | None
    coordinator: Path
    scratch: Path
    footprint: Footprint
    stock: bool
    start: dict[str, Any] = field(default_factory=dict)

    def measure(
        self, stage: str, count: int, *, pause: float = 0.0, patience: float = _PATIENCE_SECONDS
    ) -> Figures:
        """Run a stage of the app, and return what it took.

        Args:
            stage: its name.
            count: how often something is done in it.
            pause: seconds between two times.
            patience: seconds that it may take.
        """
        results = self.scratch / f"{stage}.json"
        config: dict[str, Any] = {
            "coordinator": str(self.coordinator),
            "results": str(results),
            "stage": stage,
            "count": count,
            "pause-seconds": pause,
            "stock": self.stock,
            "patience-seconds": patience,
        }
        self.footprint.forget_peaks()
        before, begun = self.footprint.used(), time.time()
        self._begin(config)
        wait_for(results, seconds=patience)
        after, told = self.footprint.used(), json.loads(results.read_text())
        return Figures(
            told["begun"] - begun,
            told["seconds"],
            {part: after[part].cpu_seconds - before[part].cpu_seconds for part in after},
            {part: one.peak_bytes for part, one in after.items() if one.peak_bytes},
            load(),
        )

    def _begin(self, config: Mapping[str, Any]) -> None:
        shown = [] if self.token is None else [_Token(self.token)]
        with ControlHttpClient.from_server_address(
            self.control,
            insecure=False,
            root_certificates=self.root.read_bytes(),
            interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr-cli"), *shown],
        ) as client:
            override = user_config_to_proto(dict(config))
            client.StartRun(StartRunRequest(fab=Fab(content=_bundle()), override_config=override))


@dataclass(frozen=True)
class _Token:
    """Shows an operator's token with every call."""

    token: str

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        context.request.headers["Authorization"] = f"Bearer {self.token}"
        return call_next(context)


def node_environment() -> Mapping[str, str]:
    """Return what commands of a deployment find in their environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**deployment.TELEMETRY_OFF, "PATH": path, "OPENBLAS_NUM_THREADS": "1"}


@contextmanager
def started(
    workspace: Workspace, directory: Path, *, stock: bool = False, apart: bool = False
) -> Iterator[Machine]:
    """Start a coordinator and a node at every party, and end them after the block.

    Args:
        workspace: the parties.
        directory: for them, not there yet.
        stock: whether by Flower's own commands.
        apart: whether the processes of each node are told apart; of our own commands.
    """
    directory.mkdir()
    with Processes(directory / "flower", node_environment()) as processes:
        if stock:
            yield from _start_stock(workspace, directory, processes)
        else:
            yield from _start_own(workspace, directory, processes, apart=apart)


def _start_own(
    workspace: Workspace, directory: Path, processes: Processes, *, apart: bool
) -> Iterator[Machine]:
    options = ["--allow-bundle", hashlib.sha256(_bundle()).hexdigest()]
    begun = time.perf_counter()
    own = Coordination(processes, directory, workspace.coordinator.path)
    up = own.up()
    with Footprint({"coordinator": up.pid}, apart=apart) as footprint:
        own.wait_until_ready()
        answers = time.perf_counter() - begun
        folders = workspace.people
        keys = admit(own, [folder.name for folder in folders])
        begun = time.perf_counter()
        for folder in folders:
            name = f"node-{folder.name}"
            own.start_node(name, folder, keys[folder.name], options=options)
            footprint.add(name, processes.process(name).pid)
        for folder in folders:
            processes.wait_until_told(f"node-{folder.name}", "is connected", seconds=300)
        connected = time.perf_counter() - begun
        yield Machine(
            own.folder.config.control,
            own.folder.ca_certificate,
            own.token("bench", OperatorRole.ADMIN),
            own.folder.party,
            directory,
            footprint,
            stock=False,
            start=_start(answers, connected, footprint.used()),
        )


def admit(own: Coordination, names: Sequence[str]) -> Mapping[str, Path]:
    """Have nodes be taken by their keys; return the private ones."""
    keys = {name: deployment.write_node_key(own.directory, name) for name in names}
    own.folder.nodes.mkdir(exist_ok=True)
    for name, (_, public) in keys.items():
        shutil.copy(public, own.folder.nodes / f"{name}.pub")
    for name in names:
        own.processes.wait_until_told("up", f"{name}'s node", seconds=60)
    return {name: private for name, (private, _) in keys.items()}


def _start_stock(workspace: Workspace, directory: Path, processes: Processes) -> Iterator[Machine]:
    begun = time.perf_counter()
    own = deployment.Deployment(processes, directory)
    answers = time.perf_counter() - begun
    with Footprint({"coordinator": processes.process("superlink").pid}) as footprint:
        begun = time.perf_counter()
        own.start_nodes(workspace.people, stock=True)
        for folder in workspace.people:
            name = f"supernode-{folder.name}"
            footprint.add(name, processes.process(name).pid)
        connected = time.perf_counter() - begun
        yield Machine(
            own.address,
            own.certificate,
            None,
            workspace.coordinator.path,
            directory,
            footprint,
            stock=True,
            start=_start(answers, connected, footprint.used()),
        )


def _start(answers: float, connected: float, used: Mapping[str, Used]) -> dict[str, Any]:
    return {
        "coordinator_seconds": answers,
        "nodes_seconds": connected,
        "cpu_seconds": {part: one.cpu_seconds for part, one in used.items()},
        "load": load(),
    }
