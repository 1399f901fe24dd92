"""A coordinator that stays: whole runs through it, its death in the middle, and attacks on it."""

import hashlib
import json
import os
import re
import resource
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from http.client import HTTPSConnection
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from coordinating import Coordination
from cryptography.hazmat.primitives.asymmetric import ec
from deployment import (
    BIN,
    HOST,
    START_SECONDS,
    STOP_SECONDS,
    TELEMETRY_OFF,
    Processes,
    Trap,
    children,
    free_ports,
    listening_sockets,
    write_node_key,
)
from flwr.cli.build import build_fab_from_disk
from flwr.common.serde import user_config_to_proto
from flwr.proto.control_pb2 import StartRunRequest
from flwr.proto.fab_pb2 import Fab
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.interceptors import (
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supercore.runtime import RuntimeHttpClient
from httpx import HTTPStatusError
from trials import document, toml, training, write_trial

from compliance.records import CallsRefused, JobEnded
from federation import cli
from federation.apps import BUNDLE
from federation.apps.control_listener import CONTROL_CALLS
from federation.apps.credential import read_node_key
from federation.apps.superlink import SuperLink
from federation.audit import verify_party
from federation.clock import utc_now
from federation.collaboration import load_collaboration
from federation.errors import CoordinatorUnreachableError, RefusedError, SuperLinkError
from federation.operations.certificates import issue_authority
from federation.operations.journal import Run, RunState
from federation.operations.remote import RemoteConfig, RemoteRuns
from federation.operations.roles import OperatorRole
from federation.operations.runs import LocalRuns, Order, read_order
from federation.operations.tokens import TokenBook
from federation.party import PartyFolder
from federation.trial.workspace import Workspace, prepare_workspace

PROBER = Path(__file__).resolve().parent / "prober"
RUN_SECONDS = 300
STATES = [
    *("queued", "running", "cancelling", "cancelled"),
    *("queued", "running", "stopped", "queued", "running", "done"),
]
WISHED = [
    *("operator", "coordinator", "operator", "coordinator"),
    *("operator", "coordinator", "coordinator", "local", "coordinator", "coordinator"),
]


@dataclass(frozen=True)
class Coordinated:
    """A coordinator at work, its parties, and two operators elsewhere."""

    coordination: Coordination
    workspace: Workspace
    viewer: RemoteConfig
    operator: RemoteConfig
    trap: Trap
    observed: str
    """Where the retailer's node tells health and figures."""

    @property
    def local(self) -> LocalRuns:
        return LocalRuns(self.coordination.folder, by="local")

    def order(self, name: str) -> Order:
        """One more training."""
        file = self.coordination.directory / f"{name}.toml"
        file.write_text("".join(f"{key} = {toml(one)}\n" for key, one in training(name).items()))
        return read_order(file)

    def wait(self, number: int, *states: RunState) -> Run:
        end = time.monotonic() + RUN_SECONDS
        while (run := self.local.run(number)).state not in states:
            assert time.monotonic() < end, (run, self.local.lines(number))
            time.sleep(0.05)
        return run

    def told(self, number: int) -> tuple[str, ...]:
        return self.local.lines(number).lines

    def wait_until_told(self, number: int, words: str, *, after: int = 0) -> None:
        end = time.monotonic() + RUN_SECONDS
        while not any(words in line for line in self.told(number)[after:]):
            assert time.monotonic() < end, self.told(number)
            time.sleep(0.02)

    def halt(self, name: str, *, halted: bool) -> None:
        """Have a party's node answer nothing, or go on."""
        process = self.coordination.processes.process(f"node-{name}")
        process.send_signal(signal.SIGSTOP if halted else signal.SIGCONT)

    def models(self) -> list[bytes]:
        found = [folder.model("model") for folder in (*self.workspace.people, self.party)]
        return [file.read_bytes() for file in found if file.exists()]

    @property
    def party(self) -> PartyFolder:
        return PartyFolder(self.coordination.folder.party)


@pytest.fixture(scope="module")
def coordinated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coordinated]:
    directory = tmp_path_factory.mktemp("coordinated")
    content = document(jobs=[{"kind": "match", "name": "find"}, training("model", steps=4)])
    content["parties"] = [one for one in content["parties"] if one["name"] != "courier"]
    content["agreement"]["train"]["max_parties_per_person"] = 1
    file = write_trial(directory / "trial", content)
    workspace = prepare_workspace(load_collaboration(file), file, directory / "workspace")
    environment = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    with (
        Trap() as trap,
        Processes(directory / "processes", environment | trap.environment) as processes,
    ):
        coordination = Coordination(processes, directory, workspace.coordinator.path)
        coordination.up()
        (port,) = free_ports(1)
        observed = f"{HOST}:{port}"
        coordination.start_nodes(
            workspace.people,
            options={"retailer": ["--observe", observed, "--log-format", "json"]},
        )
        coordination.wait_until_ready()
        configs = {
            role: RemoteConfig.read(
                coordination.remote(str(role), coordination.token(str(role), role))
            )
            for role in (OperatorRole.VIEWER, OperatorRole.OPERATOR)
        }
        yield Coordinated(
            coordination,
            workspace,
            configs[OperatorRole.VIEWER],
            configs[OperatorRole.OPERATOR],
            trap,
            observed,
        )
    assert [pid for pid, _ in processes.environments()] == []


@dataclass(frozen=True)
class Admitted:
    """A node that the coordinator takes, in this process."""

    coordination: Coordination
    key: ec.EllipticCurvePrivateKey

    @contextmanager
    def connected(
        self, ahead: timedelta, *, tell: Callable[[str], None] | None = None
    ) -> Iterator[tuple[SuperLink, list[str]]]:
        """Connect with a clock that is ahead by so much."""
        told: list[str] = []
        with SuperLink.connected(
            self.coordination.folder.config.address,
            root_certificates=self.coordination.folder.ca_certificate,
            key=self.key,
            tell=told.append if tell is None else tell,
            clock=lambda: utc_now() + ahead,
        ) as link:
            yield link, told


@pytest.fixture(scope="module")
def admitted(coordinated: Coordinated, tmp_path_factory: pytest.TempPathFactory) -> Admitted:
    coordination = coordinated.coordination
    private, public = write_node_key(tmp_path_factory.mktemp("admitted"), "tourist")
    (coordination.folder.nodes / "tourist.pub").write_bytes(public.read_bytes())
    coordination.processes.wait_until_told("up-again", "tourist's node may connect", seconds=20)
    return Admitted(coordination, read_node_key(private))


pytestmark = [pytest.mark.deployment, pytest.mark.timeout(2 * START_SECONDS + RUN_SECONDS)]


class TestRuns:
    """One run, in this order: a coordinator that was killed is another one afterwards."""

    def test_a_run_is_cancelled_between_messages(self, coordinated: Coordinated) -> None:
        config = str(coordinated.coordination.directory / "operator.toml")
        with pytest.raises(SystemExit) as left:
            cli.main(["run", "--all", "--detach", "--config", config])
        assert left.value.code == 0
        with RemoteRuns(coordinated.operator) as runs:
            (run,) = runs.all()
            assert runs.submit(Order()).number == run.number  # it is the same, which may go on
            coordinated.wait_until_told(run.number, "says train.request")
            coordinated.halt("retailer", halted=True)
            assert runs.cancel(run.number).state is RunState.CANCELLING
            run = coordinated.wait(run.number, RunState.CANCELLED)
        coordinated.halt("retailer", halted=False)
        assert [step.state for step in run.steps] == STATES[:4]
        assert [step.by for step in run.steps] == WISHED[:4]
        assert coordinated.told(run.number)[-1].startswith("cancelled: run 1 was cancelled")
        assert coordinated.models() == []

    def test_resumed_it_outlives_the_coordinators_sudden_death(
        self, coordinated: Coordinated
    ) -> None:
        coordination = coordinated.coordination
        before = len(coordinated.told(1))
        with RemoteRuns(coordinated.operator) as runs:
            runs.resume(1)
        coordinated.wait_until_told(1, "says train.request", after=before)
        coordinated.halt("retailer", halted=True)
        coordination.kill("up")
        assert coordinated.local.run(1).state is RunState.RUNNING
        coordinated.halt("retailer", halted=False)
        coordination.up("up-again")
        run = coordinated.local.run(1)
        assert run.state is RunState.STOPPED
        assert "process ended" in run.told
        told = coordinated.told(1)
        resumed = next(place for place, line in enumerate(told) if line.startswith("resumed by"))
        assert told[resumed].startswith("resumed by operator, ")
        assert "to be cancelled by operator, " in " ".join(told[:resumed])
        assert told[-1].startswith("stopped, ")
        assert told[-1].endswith(run.told)

    def test_resumed_again_it_is_done_by_nodes_that_came_back_by_themselves(
        self, coordinated: Coordinated, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as left:
            cli.main(["resume", "--config", str(coordinated.coordination.path)])
        told = capsys.readouterr()
        assert left.value.code == 0, told
        assert told.out.splitlines()[-1] == "done: every job has ended"
        assert "coordinator  find" not in told.out  # which had ended before it was cancelled
        run = coordinated.local.run(1)
        assert [step.state for step in run.steps] == STATES
        assert [step.by for step in run.steps] == WISHED
        models = coordinated.models()
        assert len(models) == 3
        assert len(set(models)) == 1
        lines = coordinated.coordination.refusals()
        assert not [line for line in lines if (line["reason"], line["status"]) == ("node", 401)]
        for name in ("up", "up-again"):  # whose output is a file
            assert "\x1b" not in coordinated.coordination.processes.told(name)
            assert "INFO" in coordinated.coordination.processes.told(name)
        for name in ("brand", "retailer"):  # whose processes are those of before
            assert coordinated.coordination.processes.process(f"node-{name}").poll() is None
        for folder in coordinated.workspace.people:
            verify_party(folder.path)  # the budget too
        leaves = verify_party(coordinated.party.path).leaves
        ended = [(leaf.job, leaf.outcome) for leaf in leaves if isinstance(leaf, JobEnded)]
        assert ended == [("find", "done"), ("model", "cancelled"), ("model", "done")]


class TestSeenFromOutside:
    def test_a_node_tells_health_and_figures_where_it_was_told_to(
        self, coordinated: Coordinated
    ) -> None:
        told = coordinated.coordination.processes
        told.wait_until_told("node-retailer", "node.connected", seconds=START_SECONDS)
        base = f"http://{coordinated.observed}"
        with httpx.Client(trust_env=False, timeout=20) as client:
            assert client.get(f"{base}/health").text == "healthy\n"
            assert client.get(f"{base}/ready").text == "ready\n"
            figures = client.get(f"{base}/metrics").text
        names = json.loads((coordinated.party.path.parent / "nodes.json").read_bytes())
        assert sorted(names.values()) == sorted(one.name for one in coordinated.workspace.people)
        assert 'comity_ready{without="connection"} 1.0' in figures
        assert "comity_figures_readable 1.0" in figures
        lines = told.told("node-retailer").splitlines()
        assert "node.connected" in {json.loads(line)["event"] for line in lines}

    def test_a_viewer_reads_a_coordinators_figures_and_nobody_else_does(
        self, coordinated: Coordinated
    ) -> None:
        told = coordinated.coordination.processes
        told.wait_until_told("node-brand", "is connected", seconds=START_SECONDS)
        url = f"{coordinated.coordination.control}/metrics"
        with coordinated.coordination.client() as client:
            assert client.get(url).status_code == 401
        token = coordinated.viewer.token_file.read_text().strip()
        with coordinated.coordination.client(token) as client:
            figures = client.get(url).text
        assert 'comity_runs{state="queued"} 0.0' in figures
        assert 'comity_party_contact_timestamp_seconds{party="brand"}' in figures


class TestDiskFull:
    def test_a_node_is_answered_by_a_coordinator_that_cannot_write(
        self, admitted: Admitted
    ) -> None:
        up = admitted.coordination.processes.process("up-again")
        _, most = resource.prlimit(up.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(up.pid, resource.RLIMIT_FSIZE, (1, most))
        told: list[str] = []
        try:
            with admitted.connected(timedelta(), tell=told.append) as (link, _):
                assert link.pull() is None
        finally:
            resource.prlimit(up.pid, resource.RLIMIT_FSIZE, (most, most))
        assert told == []
        assert up.poll() is None

    def test_a_coordinator_that_cannot_go_on_with_its_runs_says_so_and_stays(
        self, coordinated: Coordinated
    ) -> None:
        coordination = coordinated.coordination
        damaged = coordination.folder.runs / "000999"
        damaged.mkdir()
        (damaged / "run.json").write_text("{")
        processes = coordination.processes
        processes.wait_until_told("up-again", "cannot go on with its runs", seconds=START_SECONDS)
        with coordination.client() as client:
            assert client.get(f"{coordination.public}/health").status_code == 200
            assert client.get(f"{coordination.public}/ready").status_code == 503
        assert processes.told("up-again").count("cannot go on") == 1
        shutil.rmtree(damaged)
        coordination.wait_until_ready()

    def test_an_executor_that_cannot_be_started_ends_nothing_else(
        self, coordinated: Coordinated
    ) -> None:
        coordination = coordinated.coordination
        up = coordination.processes.process("up-again")
        (executor,) = children(up.pid)
        most = resource.prlimit(up.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(up.pid, resource.RLIMIT_NOFILE, (1, most[1]))  # no file can be opened
        try:
            os.kill(executor, signal.SIGKILL)
            words = "the executor ended with -9: it is started again"
            coordination.processes.wait_until_told("up-again", words, seconds=START_SECONDS)
            time.sleep(2)  # in which that cannot be done, twice
        finally:
            resource.prlimit(up.pid, resource.RLIMIT_NOFILE, most)
        coordination.wait_until_ready()
        assert up.poll() is None
        assert children(up.pid) not in ([], [executor])
        assert coordination.processes.told("up-again").count(words) == 1


class TestAttacks:
    @pytest.mark.parametrize("token", [None, f"comity-{'0' * 64}", "operator"])
    def test_no_call_of_the_control_interface_is_answered_without_a_good_token(
        self, coordinated: Coordinated, token: str | None
    ) -> None:
        coordination = coordinated.coordination
        before = len(coordination.refusals())
        with coordination.client(token) as client:
            for call in CONTROL_CALLS:
                answer = client.post(f"{coordination.control}/v1/control/{call}")
                assert answer.status_code == 401, call
            for path in ("runs", "runs/1", "runs/1/lines"):
                answer = client.get(f"{coordination.control}/v1/comity/{path}")
                assert answer.status_code == 401, path
        lines = coordination.refusals()[before:]
        assert len(lines) == len(CONTROL_CALLS) + 3
        assert {(line["status"], line["operator"]) for line in lines} == {(401, None)}

    def test_a_token_that_was_revoked_opens_nothing(self, coordinated: Coordinated) -> None:
        coordination = coordinated.coordination
        token = coordination.token("leaver", OperatorRole.ADMIN)
        with coordination.client(token) as client:
            url = f"{coordination.control}/v1/comity/runs"
            assert client.get(url).status_code == 200
            TokenBook(coordination.folder.tokens, safe=coordination.folder.safe).revoke("leaver")
            assert client.get(url).status_code == 401

    def test_a_viewer_sees_runs_and_may_not_begin_cancel_or_resume_any(
        self, coordinated: Coordinated
    ) -> None:
        before = len(coordinated.coordination.refusals())
        with RemoteRuns(coordinated.viewer) as runs:
            assert runs.all() == coordinated.local.all()
            assert runs.lines(1).lines == coordinated.local.lines(1).lines
            assert [one.model for one in runs.models()] == ["model"]
            assert runs.models() == coordinated.local.models()
            for call in (
                lambda: runs.submit(Order()),
                lambda: runs.cancel(1),
                lambda: runs.resume(1),
            ):
                with pytest.raises(RefusedError, match="viewer is viewer, and this needs operator"):
                    call()
        lines = coordinated.coordination.refusals()[before:]
        assert [(line["status"], line["operator"]) for line in lines] == 3 * [(403, "viewer")]

    def test_an_operator_may_not_ship_code_of_his_own_or_register_nodes(
        self, coordinated: Coordinated
    ) -> None:
        token = coordinated.operator.token_file.read_text().strip()
        with coordinated.coordination.client(token) as client:
            for call in ("start-run", "register-node", "add-app"):
                url = f"{coordinated.coordination.control}/v1/control/{call}"
                assert client.post(url).status_code == 403, call

    @pytest.mark.parametrize("claimed", ["203.0.113.9", "nonsense"])
    def test_no_header_says_who_calls(self, coordinated: Coordinated, claimed: str) -> None:
        coordination = coordinated.coordination
        before = len(coordination.refusals())
        with coordination.client() as client:
            answer = client.post(
                f"{coordination.control}/v1/comity/runs", headers={"X-Forwarded-For": claimed}
            )
        assert answer.status_code == 401
        (line,) = coordination.refusals()[before:]
        assert line["from"] == "127.0.0.1"

    @pytest.mark.parametrize("secret", [None, b"guessed"])
    def test_a_rogue_executor_gets_no_task(
        self, coordinated: Coordinated, secret: bytes | None
    ) -> None:
        folder = coordinated.coordination.folder
        before = len(coordinated.coordination.refusals())
        signing = (
            []
            if secret is None
            else [
                SuperExecAuthHttpInterceptor(
                    master_secret=secret, protected_methods={"/flwr.proto.Runtime/AcquireTask"}
                )
            ]
        )
        client = RuntimeHttpClient.from_server_address(
            server_address=folder.config.control,
            insecure=False,
            root_certificates=folder.ca_certificate.read_bytes(),
            interceptors=[RuntimeVersionHttpInterceptor(component_name="SuperExec"), *signing],
        )
        with pytest.raises(HTTPStatusError, match="401"):
            client.AcquireTask(AcquireTaskRequest(supported_task_types=["flwr-serverapp"]))
        client.close()
        (line,) = coordinated.coordination.refusals()[before:]
        assert (line["path"], line["status"]) == ("/v1/runtime/acquire-task", 401)

    @pytest.mark.parametrize(
        "path",
        [
            *("/v1/control/list-runs", "/v1/runtime/acquire-task", "/v1/runtime/responses"),
            *("/v1/comity/runs", "/v1/fleet/register-node", "/v1/fleet/unregister-node"),
            *("/v1/fleet/../control/list-runs", "/v1/fleet//pull-messages", "/docs"),
            "/openapi.json",
        ],
    )
    def test_the_public_listener_has_nothing_else(
        self, coordinated: Coordinated, path: str
    ) -> None:
        coordination = coordinated.coordination
        admin = coordination.token(
            f"admin-{hashlib.sha256(path.encode()).hexdigest()[:8]}", OperatorRole.ADMIN
        )
        with coordination.client(admin) as client:
            for method in ("GET", "POST"):
                assert client.request(method, f"{coordination.public}{path}").status_code == 404

    def test_a_stranger_and_a_node_of_another_root_do_not_get_in(
        self, coordinated: Coordinated, tmp_path: Path
    ) -> None:
        coordination = coordinated.coordination
        other = tmp_path / "other.pem"
        other.write_bytes(issue_authority(utc_now()).certificate_pem)
        before = len(coordination.refusals())
        for root, told in (
            (coordination.folder.ca_certificate, "does not take this node's call"),
            (other, "is not the SuperLink whose root certificate was given"),
        ):
            with (
                pytest.raises(SuperLinkError, match=told),
                SuperLink.connected(
                    coordination.folder.config.address,
                    root_certificates=root,
                    key=ec.generate_private_key(ec.SECP256R1()),
                    tell=lambda _: None,
                ),
            ):
                raise AssertionError("a stranger is in")
        lines = coordination.refusals()[before:]
        assert {(line["listener"], line["path"]) for line in lines} == {
            ("public", "/v1/fleet/activate-node")
        }

    @pytest.mark.parametrize("minutes", [0.2, 10, -10])
    def test_a_node_whose_clock_is_wrong_is_taken_all_the_same_and_says_so(
        self, admitted: Admitted, minutes: float
    ) -> None:
        with admitted.connected(timedelta(minutes=minutes)) as (link, told):
            assert link.pull() is None
        (line,) = told
        found = re.search(r"clock is (\d+) s (ahead of|behind) the SuperLink's", line)
        assert found is not None
        assert int(found[1]) == pytest.approx(abs(60 * minutes), abs=10)  # it is a busy machine
        assert found[2] == ("ahead of" if minutes > 0 else "behind")

    def test_a_node_whose_clock_is_too_wrong_is_told_so(self, admitted: Admitted) -> None:
        told = "clock and its own are 20 minutes apart, and 15 are taken"
        with (
            pytest.raises(SuperLinkError, match=told),
            admitted.connected(timedelta(minutes=20)),
        ):
            raise AssertionError("it is taken")

    def test_an_operator_does_not_speak_to_a_coordinator_of_another_root(
        self, coordinated: Coordinated, tmp_path: Path
    ) -> None:
        other = tmp_path / "other.pem"
        other.write_bytes(issue_authority(utc_now()).certificate_pem)
        config = coordinated.operator.model_copy(update={"root_certificates": other})
        with RemoteRuns(config) as runs, pytest.raises(CoordinatorUnreachableError):
            runs.all()

    @pytest.mark.parametrize(
        ("listener", "path", "length"),
        [
            ("public", "/v1/fleet/push-object", (8 << 20) + 1),
            ("public", "/health", 1),
            ("control", "/v1/comity/runs", (1 << 20) + 1),
            ("control", "/v1/control/start-run", (16 << 20) + 1),
        ],
    )
    def test_a_body_that_is_too_long_is_not_read(
        self, coordinated: Coordinated, listener: str, path: str, length: int
    ) -> None:
        coordination = coordinated.coordination
        address = getattr(coordination, listener)
        line = HTTPSConnection(
            address.removeprefix("https://"), context=coordination.roots, timeout=STOP_SECONDS
        )
        line.putrequest("POST", path)
        line.putheader("Content-Length", str(length))
        line.endheaders()  # and none of the body
        assert line.getresponse().status == 413
        line.close()
        with coordination.client() as client:
            answer = client.post(f"{address}{path}", content=iter([b"in pieces"]))
            assert answer.status_code == 411

    def test_the_public_listener_is_not_the_executors_or_anybodys_but_two(
        self, coordinated: Coordinated
    ) -> None:
        process = coordinated.coordination.processes.process("up-again")
        assert len(listening_sockets([process.pid])) == 2
        assert not listening_sockets(children(process.pid))

    def test_an_app_of_an_admins_has_nothing_installed_and_no_node_runs_it(
        self, coordinated: Coordinated, tmp_path: Path
    ) -> None:
        coordination = coordinated.coordination
        app = shutil.copytree(PROBER, tmp_path / "prober")
        project = (app / "pyproject.toml").read_text()
        assert "dependencies = []" in project
        wanting = project.replace("dependencies = []", 'dependencies = ["comity-is-not-this==0"]')
        (app / "pyproject.toml").write_text(wanting)
        nodes = len(coordinated.workspace.people)
        request = StartRunRequest(
            fab=Fab(content=build_fab_from_disk(app)),
            override_config=user_config_to_proto({"nodes": nodes}),
        )
        token = coordination.token("shipper", OperatorRole.ADMIN)
        with coordination.client(token) as client:
            answer = client.post(
                f"{coordination.control}/v1/control/start-run",
                content=request.SerializeToString(),
                headers={"Content-Type": PROTOBUF_MEDIA_TYPE},
            )
        assert answer.status_code == 200, answer.text
        for folder in coordinated.workspace.people:  # its ServerApp was begun
            name = f"node-{folder.name}"
            coordination.processes.wait_until_told(name, "refused run", seconds=START_SECONDS)
        assert not coordinated.trap.caught()

    def test_nobody_beyond_loopback_is_called(self, coordinated: Coordinated) -> None:
        environments = [
            one
            for pid, one in coordinated.coordination.processes.environments()
            if Path(one["FLWR_HOME"]).name == "flower"
        ]
        assert environments
        assert all(TELEMETRY_OFF.items() <= one.items() for one in environments)
        assert not coordinated.trap.caught()

    def test_a_second_process_over_the_same_folder_is_refused(
        self, coordinated: Coordinated, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as left:
            cli.main(["coordinator", "up", "--config", str(coordinated.coordination.path)])
        assert left.value.code == 2
        assert "is served by another process" in capsys.readouterr().err

    def test_a_node_whose_key_is_removed_is_taken_no_longer(self, coordinated: Coordinated) -> None:
        coordination = coordinated.coordination
        (coordination.folder.nodes / "retailer.pub").unlink()
        process = coordination.processes.process("node-retailer")
        assert process.wait(START_SECONDS) == 2
        assert "does not take this node" in coordination.processes.told("node-retailer")

    def test_the_coordinator_ends_cleanly_and_stops_what_runs(
        self, coordinated: Coordinated
    ) -> None:
        run = coordinated.local.submit(coordinated.order("last"))  # the retailer is gone
        coordinated.wait(run.number, RunState.RUNNING)
        process = coordinated.coordination.processes.process("up-again")
        executors = children(process.pid)
        process.terminate()
        assert process.wait(3 * STOP_SECONDS) == 0
        assert coordinated.local.run(run.number).state is RunState.STOPPED
        assert executors
        assert not any(Path(f"/proc/{pid}").exists() for pid in executors)
        assert "resume" in coordinated.local.run(run.number).told

    def test_its_log_tells_of_every_call_that_was_refused(self, coordinated: Coordinated) -> None:
        leaves = verify_party(coordinated.party.path).leaves
        told = Counter[str]()
        for leaf in leaves:
            if isinstance(leaf, CallsRefused):
                told.update(leaf.refused)
        lines = Counter(str(line["reason"]) for line in coordinated.coordination.refusals())
        assert {"token", "role", "executor", "node", "body", "call"} <= lines.keys()
        assert coordinated.local.refused() == told
        assert told.pop("handshake") >= 2  # whose clients trusted another root, and no line has
        assert told == lines

    def test_no_secret_of_flowers_and_no_state_is_on_its_disk(
        self, coordinated: Coordinated
    ) -> None:
        """All that lies in the folder, whose every file docs/secrets.md speaks for."""
        folder = coordinated.coordination.folder
        files = [file for file in folder.path.rglob("*") if file.is_file()]
        places = {file: file.relative_to(folder.path).parts[0] for file in files}
        assert set(places.values()) == {
            *("coordinator.toml", "certificates", "tokens.json", ".tokens.json.lock", "nodes"),
            *("runs", "audit.jsonl", "refused.json", "nodes.json", "flower", "party", "lock"),
        }
        flowers = {file.name: file.read_bytes() for file in files if places[file] == "flower"}
        UUID(flowers.pop("source").decode())  # by which telemetry would know it
        bundle = {file.name: file for file in BUNDLE.rglob("*") if file.suffix in {".py", ".toml"}}
        compiled = {name.partition(".")[0] for name in flowers if name.endswith(".pyc")}
        assert compiled <= {file.stem for file in bundle.values()}  # once a run has begun
        assert {name for name in flowers if not name.endswith(".pyc")} == bundle.keys()
        for name in bundle.keys() - {"pyproject.toml"}:  # which Flower writes out otherwise
            assert flowers[name] == bundle[name].read_bytes()
