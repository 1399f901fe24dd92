"""A party's node: what it needs of Flower, messages taken apart, workers, configuration."""

import ast
import inspect
import json
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import flwr
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from flwr.app import Message
from flwr.supercore.protobuf.client import ProtobufRequestContext
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from httpx import Client, Response
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.apps import launchers, superlink
from federation.apps.carriage import CarriedMessage, Failure
from federation.apps.credential import read_node_key
from federation.apps.launchers import NodeConfig
from federation.apps.roots import warn_of_end
from federation.apps.superlink import SuperLink
from federation.channel import INLINE_BYTES, from_record, to_record
from federation.clock import utc_now
from federation.errors import SuperLinkError, WorkspaceError
from federation.messages import SealedMessage
from federation.operations.certificates import issue_authority, issue_server, new_key

ROOT = Path(__file__).resolve().parent.parent
APPS = ROOT / "federation" / "apps"
PUBLIC = frozenset({"flwr.app", "flwr.clientapp", "flwr.serverapp"})
CURVE = ec.generate_private_key(ec.SECP256R1())


def takes(call: Callable[..., Any], *names: str) -> bool:
    return set(names) <= inspect.signature(call).parameters.keys()


def has(message: Any, *names: str) -> bool:
    return set(names) <= set(message.DESCRIPTOR.fields_by_name)


MESSAGE_CALLS = (
    *("PullMessages", "PushMessages", "PullObject", "PushObject", "ConfirmMessageReceived"),
)
CALLS = (
    *("ActivateNode", "DeactivateNode", "SendNodeHeartbeat", "GetRun", "GetFab"),
    *MESSAGE_CALLS,
)
CONTRACT: dict[str, Callable[[Any], bool]] = {
    "flwr.app.message.remove_content_from_message": lambda it: takes(it, "message"),
    "flwr.cli.build.build_fab_from_disk": lambda it: takes(it, "app"),
    "flwr.common.constant.ErrorCode": lambda it: (
        (
            it.CLIENT_APP_RAISED_EXCEPTION,
            it.INVALID_FAB,
            it.CLIENT_APP_CRASHED,
        )
        == (2, 7, 8)
        and it.MESSAGE_UNAVAILABLE > 0
    ),
    "flwr.common.constant.HEARTBEAT_DEFAULT_INTERVAL": lambda it: (
        it > superlink._HEARTBEAT_SECONDS > it / 3
    ),
    "flwr.common.constant.HEARTBEAT_PATIENCE": lambda it: it == 2,  # intervals, then it is away
    "flwr.common.constant.SUPERLINK_NODE_ID": lambda it: it == 1,
    "flwr.common.constant.TIMESTAMP_HEADER": lambda it: it == "flwr-timestamp",
    "flwr.common.serde.message_from_proto": lambda it: takes(it, "message_proto"),
    "flwr.common.serde.message_to_proto": lambda it: takes(it, "message"),
    "flwr.proto.fab_pb2.GetFabRequest": lambda it: has(it, "node", "hash_str", "run_id"),
    "flwr.proto.fleet_pb2.ActivateNodeRequest": lambda it: has(
        it, "public_key", "heartbeat_interval"
    ),
    "flwr.proto.fleet_pb2.DeactivateNodeRequest": lambda it: has(it, "node_id"),
    "flwr.proto.fleet_pb2.PullMessagesRequest": lambda it: has(it, "node"),
    "flwr.proto.fleet_pb2.PushMessagesRequest": lambda it: has(
        it, "node", "messages_list", "message_object_trees"
    ),
    "flwr.proto.heartbeat_pb2.SendNodeHeartbeatRequest": lambda it: has(
        it, "node", "heartbeat_interval"
    ),
    "flwr.proto.message_pb2.ConfirmMessageReceivedRequest": lambda it: has(
        it, "node", "run_id", "message_object_id"
    ),
    "flwr.proto.message_pb2.Message": lambda it: has(it, "metadata", "content", "error"),
    "flwr.proto.message_pb2.ObjectTree": lambda it: has(it, "object_id", "children"),
    "flwr.proto.message_pb2.PullObjectRequest": lambda it: has(it, "node", "run_id", "object_id"),
    "flwr.proto.message_pb2.PushObjectRequest": lambda it: has(
        it, "node", "run_id", "object_id", "object_content", "session_id"
    ),
    "flwr.proto.node_pb2.Node": lambda it: has(it, "node_id"),
    "flwr.proto.run_pb2.GetRunRequest": lambda it: has(it, "node", "run_id"),
    "flwr.proto.runtime_pb2.PullAppMessagesRequest": lambda it: has(it, "message_ids"),
    "flwr.proto.runtime_pb2.PushAppMessagesRequest": lambda it: has(
        it, "messages_list", "message_object_trees"
    ),
    "flwr.supercore.constant.FLEET_HTTP_PUBLIC_KEY_HEADER": lambda it: it == "flwr-public-key",
    "flwr.supercore.constant.FLEET_HTTP_SIGNATURE_HEADER": lambda it: it == "flwr-signature",
    "flwr.supercore.error.ApiErrorCode": lambda it: it.FLEET_NODE_ACTIVATION_FAILED > 0,
    "flwr.supercore.error.FlowerError": lambda it: takes(it.from_json, "value"),
    "flwr.supercore.inflatable.inflatable_object.get_all_nested_objects": lambda it: takes(
        it, "obj"
    ),
    "flwr.supercore.inflatable.inflatable_object.get_object_tree": lambda it: takes(it, "obj"),
    "flwr.supercore.inflatable.inflatable_object.iterate_object_tree": lambda it: takes(it, "tree"),
    "flwr.supercore.inflatable.inflatable_object.no_object_id_recompute": takes,
    "flwr.supercore.inflatable.inflatable_protobuf_utils.make_pull_object_fn_protobuf": lambda it: (
        takes(it, "pull_object_protobuf", "node", "run_id")
    ),
    "flwr.supercore.inflatable.inflatable_utils.ObjectUnavailableError": lambda it: takes(
        it, "object_id"
    ),
    "flwr.supercore.inflatable.inflatable_utils.ObjectPullError": lambda it: issubclass(
        it, Exception
    ),
    "flwr.supercore.inflatable.inflatable_utils.inflate_object_from_contents": lambda it: takes(
        it, "object_id", "object_contents"
    ),
    "flwr.supercore.inflatable.inflatable_utils.pull_objects": lambda it: takes(
        it, "object_ids", "pull_object_fn", "initial_backoff", "backoff_cap"
    ),
    "flwr.supercore.interceptors.http.runtime_version.RuntimeVersionHttpInterceptor": lambda it: (
        takes(it, "component_name")
    ),
    "flwr.supercore.primitives.asymmetric.public_key_to_bytes": lambda it: it(
        CURVE.public_key()
    ).startswith(b"-----BEGIN PUBLIC KEY-----"),
    "flwr.supercore.primitives.asymmetric.sign_message": lambda it: takes(
        it, "private_key", "message"
    ),
    "flwr.supercore.protobuf.client.ProtobufCall": lambda it: (
        get_args(it) == ([ProtobufRequestContext], Response)
    ),
    "flwr.supercore.protobuf.client.ProtobufRequestContext": lambda it: takes(
        it, "rpc_method", "message", "request"
    ),
    "flwr.superlink.grid.http_grid.HttpGrid": lambda it: (
        isinstance(it._runtime_client, property)
        and all(takes(getattr(RuntimeHttpClient, name), "request") for name in MESSAGE_CALLS)
    ),
    "flwr.supernode.fleet_http_client.FleetHttpClient": lambda it: (
        all(takes(getattr(it, name), "request") for name in CALLS)
        and takes(
            it.from_server_address,
            *("server_address", "insecure", "root_certificates", "interceptors"),
        )
        and isinstance(it("http://127.0.0.1")._client, Client)
    ),
}
"""What each name of Flower that is not public must be for a node."""


@pytest.mark.parametrize("name", CONTRACT)
def test_a_name_of_flower_that_is_not_public_is_what_a_node_takes_it_for(name: str) -> None:
    module, _, last = name.rpartition(".")
    assert CONTRACT[name](getattr(import_module(module), last))


def test_a_node_leans_on_no_other_name_of_flower_that_is_not_public() -> None:
    used = {
        f"{node.module}.{alias.name}"
        for path in APPS.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith("flwr.")
        and node.module not in PUBLIC
        for alias in node.names
    }
    assert used == CONTRACT.keys()


def test_flower_is_the_version_that_these_names_were_read_in() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"flwr=={flwr.__version__}" in project["optional-dependencies"]["node"]


def message(payload: bytes) -> Message:
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
    return Message(to_record(SealedMessage(b"{}", payload)), 5, "query")


@settings(max_examples=20)
@given(st.binary(max_size=100) | st.integers(0, 2).map(lambda more: bytes(INLINE_BYTES + more)))
def test_a_message_that_is_taken_apart_travels_whole(payload: bytes) -> None:
    sent = message(payload)
    rows = CarriedMessage.take_apart(sent).to_rows()
    come = CarriedMessage.from_rows(rows).put_together()
    assert from_record(come.content) == SealedMessage(b"{}", payload)
    assert come.metadata == sent.metadata


def test_small_payloads_travel_in_few_objects_and_large_ones_in_pieces() -> None:
    assert len(CarriedMessage.take_apart(message(bytes(INLINE_BYTES))).objects) == 3
    assert len(CarriedMessage.take_apart(message(bytes(1 + INLINE_BYTES))).objects) == 6
    assert len(CarriedMessage.take_apart(message(bytes(12 << 20))).objects) > 6


def test_a_failure_answers_its_question_and_tells_no_more_than_its_kind() -> None:
    asked = CarriedMessage.take_apart(message(b"secret"))
    answer = asked.failed(Failure.WORKER_ENDED, "the worker ended").put_together()
    assert answer.metadata.reply_to_message_id == asked.tree.object_id
    assert (answer.error.code, answer.error.reason) == (8, "the worker ended")
    assert not answer.has_content()


def test_what_an_app_raises_beside_its_own_errors_leaves_as_a_kind(tmp_path: Path) -> None:
    asked = CarriedMessage.take_apart(message(b""))
    _, *rows = launchers._answer(tmp_path / "secret", print, asked.to_rows())
    answer = CarriedMessage.from_rows(rows).put_together()
    assert (answer.error.code, answer.error.reason) == (Failure.APP_RAISED, "FederationError")


# --------------------------------------------------------------------------------------- workers

WORKERS = """
import os, signal, subprocess, sys, threading
sys.modules["numpy"] = None  # a zygote itself needs nothing heavy
from federation.apps.zygote import WorkerEndedError, Zygote
from federation.errors import FederationError

inherited = []

def work(rows):
    kind, *rest = rows
    if kind == b"die":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == b"raise":
        raise ValueError("secret")
    if kind == b"leave":
        return [str(subprocess.Popen(["sleep", "600"]).pid).encode()]
    if kind == b"know":
        inherited.append(len(inherited))
        return [repr((inherited, threading.active_count(), signal.getsignal(15))).encode()]
    return rest[::-1]

def state_and_parent(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[:2]
    except OSError:
        return "Z", "0"

def ended(zygote, kind):
    try:
        zygote.ask([kind])
    except WorkerEndedError as error:
        return str(error)

with Zygote.started(work, prepare=lambda: inherited.append("prepared")) as zygote:
    big = bytes(50_000_000)
    assert zygote.ask([b"echo", b"", b"a", big]) == [big, b"a", b""]
    assert ended(zygote, b"die") == "by signal 9"
    assert ended(zygote, b"raise") == "with 1"
    assert zygote.ask([b"echo", b"again"]) == [b"again"]
    (pid,) = zygote.ask([b"leave"])
    for _ in range(2):
        (known,) = zygote.ask([b"know"])
        assert known == b"(['prepared', 1], 1, <Handlers.SIG_DFL: 0>)", known
    assert inherited == []
    assert state_and_parent(int(pid))[0] == "Z"
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    (child,) = [one for one in pids if state_and_parent(one)[1] == str(os.getpid())]
    os.kill(child, signal.SIGKILL)
    try:
        zygote.ask([b"echo"])
        sys.exit("asked a dead zygote")
    except FederationError as error:
        assert "start the node again" in str(error)

event = threading.Event()
threading.Thread(target=event.wait, daemon=True).start()
try:
    with Zygote.started(work, prepare=bool):
        sys.exit("forked beside a thread")
except RuntimeError as error:
    assert "got 2" in str(error)
print("all is well")
"""

ORPHAN = """
import os, signal, sys, time
from federation.apps.zygote import Zygote

def work(rows):
    sys.stdout.write(f"{os.getppid()} {os.getpid()}\\n")
    sys.stdout.flush()
    time.sleep(600)

with Zygote.started(work, prepare=bool) as zygote:
    zygote.ask([])
"""


def run(program: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.Popen(command, stdout=-1, stderr=-1, text=True, cwd=ROOT, **options)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes through /proc")
class TestWorkers:
    def test_each_is_its_own_and_what_one_breaks_ends_with_it(self) -> None:
        told, complained = run(WORKERS).communicate(timeout=60)
        assert told == "all is well\n", complained
        assert "ValueError" in complained
        assert "secret" not in complained

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    def test_they_end_with_the_node_however_it_ends(self, number: int) -> None:
        with run(ORPHAN) as node:
            assert node.stdout is not None
            pids = [int(word) for word in node.stdout.readline().split()]
            node.send_signal(number)
            try:
                node.communicate(timeout=20)
            finally:
                node.kill()
        assert len(pids) == 2
        end = time.monotonic() + 20
        while any(is_alive(pid) for pid in pids):
            assert time.monotonic() < end
            time.sleep(0.01)


ENDED = """
import os, signal, sys, time
from federation.apps.zygote import Zygote, set_environment
set_environment()
from flwr.app import Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from federation.apps import launchers
from federation.apps.carriage import CarriedMessage
from federation.observing.json_lines import JsonLines

node = os.getpid()

def work(rows):
    os.kill(node, signal.SIGTERM)
    time.sleep(600)

class Line:
    "To a coordinator that has one message, or tells the node to end before it has one."
    def pull(self):
        if sys.argv[1] == "idle":
            os.kill(node, signal.SIGTERM)
        TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 7
        return CarriedMessage.take_apart(Message(RecordDict(), 5, "query"))
    def bundle_of(self, run):
        return b""
    def push(self, answer):
        sys.exit("answered")

signal.signal(signal.SIGTERM, launchers._end)
allowed = frozenset({launchers.hashlib.sha256(b"").hexdigest()})
tell = JsonLines(sys.stderr).tell
with Zygote.started(work, prepare=bool) as zygote:
    launchers._MessageLoop("courier", Line(), zygote, allowed, tell, None).run()
"""


@pytest.mark.parametrize("is_idle", [True, False])
def test_a_node_that_is_told_to_end_says_what_it_was_at(is_idle: bool) -> None:
    node = run(ENDED, "idle" if is_idle else "asked")
    _, told = node.communicate(timeout=60)
    assert node.returncode == 0
    line = json.loads(told)
    assert (line["event"], line["party"]) == ("node.ended", "courier")
    if is_idle:
        assert line["told"] == "courier ends, as it was told to: it was at no message"
    else:
        assert (line["run"], line["seconds"] >= 0) == (7, True)
        assert "in the middle of a message of run 7: what was charged is kept" in line["told"]


# --------------------------------------------------------------------------------- configuration


def write_key(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, file: Path) -> Path:
    form, password = serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    file.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, password))
    return file


def test_a_nodes_key_is_one_of_an_elliptic_curve_in_openssh_format(tmp_path: Path) -> None:
    file = tmp_path / "node"
    assert read_node_key(write_key(CURVE, file)).private_numbers() == CURVE.private_numbers()
    write_key(ed25519.Ed25519PrivateKey.generate(), file)
    with pytest.raises(WorkspaceError, match=r"no key of an elliptic curve: make one with"):
        read_node_key(file)
    file.write_bytes(b"nonsense")
    with pytest.raises(WorkspaceError, match=r"no private key in OpenSSH's format"):
        read_node_key(file)


@pytest.mark.parametrize("content", [b"nonsense", b"\xff", b""])
def test_root_certificates_that_are_none_are_named(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(content)
    with (
        pytest.raises(WorkspaceError, match=r"ca\.pem holds no certificates in PEM"),
        SuperLink.connected("127.0.0.1:1", root_certificates=file, key=CURVE, tell=print),
    ):
        raise AssertionError


@pytest.mark.parametrize(("days", "is_told"), [(3540, False), (3600, True)])
def test_a_node_is_told_for_three_months_that_what_it_believes_the_coordinator_by_ends(
    days: int, is_told: bool, tmp_path: Path
) -> None:
    now, file = utc_now(), tmp_path / "ca.pem"
    made = issue_authority(now - timedelta(days=days))
    file.write_bytes(issue_authority(now - timedelta(days=3649)).certificate_pem)
    with file.open("ab") as more:
        more.write(made.certificate_pem)  # which lasts longer
    told: list[str] = []
    warn_of_end(file.read_bytes(), file, told.append, now)
    ends = [f"{file} ends on {made.ends:%Y-%m-%d}"]
    assert [one.partition(",")[0] for one in told] == (ends if is_told else [])


def test_a_certificate_that_has_expired_is_refused_and_nothing_is_said_to_its_owner(
    tmp_path: Path,
) -> None:
    began = utc_now() - timedelta(days=398)
    authority = issue_authority(began - timedelta(days=3200))  # whose ten years end soon
    issued = issue_server(authority, ["127.0.0.1"], began, key=new_key())
    (tmp_path / "ca.pem").write_bytes(authority.certificate_pem)
    (tmp_path / "server.pem").write_bytes(issued.certificate_pem + issued.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    heard: list[bytes] = []
    told: list[str] = []

    def serve() -> None:
        with suppress(OSError), listening.accept()[0] as line:
            line.settimeout(10)
            with context.wrap_socket(line, server_side=True) as opened:
                heard.append(opened.recv(1))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = threading.Thread(target=serve)
        serving.start()
        with (
            pytest.raises(SuperLinkError, match="certificate has expired"),
            SuperLink.connected(
                f"127.0.0.1:{listening.getsockname()[1]}",
                root_certificates=tmp_path / "ca.pem",
                key=CURVE,
                tell=told.append,
            ),
        ):
            raise AssertionError("it is believed")
        serving.join()
    assert not any(heard)
    assert f"ca.pem ends on {authority.ends:%Y-%m-%d}, and then" in told[0]


def test_a_file_configures_a_node_and_options_come_before_it(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(
        'party = "brand"\nsuperlink = "127.0.0.1:9091"\nroot-certificates = "/ca.pem"\n'
        f'auth-supernode-private-key = "brand.node"\nallow-bundles = ["{"0" * 64}"]\n'
    )
    config = NodeConfig.of(file, {"superlink": "link.example:443", "party": None})
    assert config == NodeConfig(
        party=tmp_path / "brand",
        superlink="link.example:443",
        auth_supernode_private_key=tmp_path / "brand.node",
        root_certificates=Path("/ca.pem"),
        allow_bundles=("0" * 64,),
    )


NAMED = 'party = "a"\nauth-supernode-private-key = "b"\n'


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('superlink = "a:1"', r"auth-supernode-private-key"),
        (
            "",
            r"needs --party, --superlink, --auth-supernode-private-key: give them, or .* --config",
        ),
        (
            f'{NAMED}superlink = "127.0.0.1"',
            r"superlink: .*expected HOST:PORT, such as 127.0.0.1:9091",
        ),
        (
            f'{NAMED}superlink = "a:1"\nport = 1',
            r"port",
        ),
        ("party = 1", r"no file of a node"),
        ("party", r"no file of a node"),
        (
            f'{NAMED}superlink = "a:1"\nallow-bundles = ["abc"]',
            r"allow-bundles",
        ),
    ],
)
def test_a_mistake_in_the_configuration_is_named(content: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(content)
    with pytest.raises(WorkspaceError, match=told):
        NodeConfig.of(file, {})
