"""What a coordinator needs of Flower beside its public names: one test a name, so that it fails loudly."""

import ast
import inspect
from collections.abc import Callable
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute, iter_route_contexts
from flwr.cli.build import build_fab_from_disk
from flwr.cli.install import install_from_fab
from flwr.proto.fleet_pb2 import PullMessagesRequest
from flwr.server.superlink.linkstate import LinkState
from flwr.server.superlink.linkstate.in_memory_linkstate import InMemoryLinkState
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.supercore.object_store.object_store_factory import ObjectStoreFactory
from flwr.supercore.primitives.asymmetric import (
    bytes_to_public_key,
    generate_key_pairs,
    public_key_to_bytes,
    sign_message,
)
from flwr.supercore.protobuf.client import ProtobufRequestContext
from flwr.superlink.main import create_app
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from federation.apps import BUNDLE
from federation.apps.control_listener import CONTROL_CALLS, RUNTIME_CALLS
from federation.apps.operating import flower
from federation.apps.piggyback import with_riders
from federation.apps.public_listener import FLEET_CALLS
from federation.errors import WorkspaceError

ROOT = Path(__file__).resolve().parent.parent


def takes(call: Callable[..., Any], *names: str) -> bool:
    return set(names) <= inspect.signature(call).parameters.keys()


def has(message: Any, *names: str) -> bool:
    return set(names) <= set(message.DESCRIPTOR.fields_by_name)


def skips(message: Any) -> bool:
    """Whether a message has no field of ours, and keeps what it does not know."""
    known = message.DESCRIPTOR.fields_by_number.keys()
    travelled = with_riders(message(), [b"content"]).SerializeToString()
    come = message.FromString(travelled)
    return max(known) < 1000 and come.SerializeToString() == travelled


def signed_headers() -> set[str]:
    """Return the headers of a call that a node signs, as Flower's own node makes them."""
    request = httpx.Request("POST", "http://localhost")
    context = ProtobufRequestContext("PullMessages", PullMessagesRequest(), request)
    NodeAuthHttpInterceptor(*generate_key_pairs()).intercept(context, lambda _: httpx.Response(200))
    return set(request.headers)


def verifies(it: Callable[..., bool]) -> bool:
    private, public = generate_key_pairs()
    known = bytes_to_public_key(public_key_to_bytes(public))
    signature = sign_message(private, b"now")
    return it(known, b"now", signature) and not it(known, b"then", signature)


CONFIG = {
    *("control_address", "health_server_address", "host", "port", "insecure", "certificates"),
    *("superexec_auth_secret", "authn_plugin", "event_log_plugin", "fleet_event_log_plugin"),
    *("enable_event_log", "artifact_provider", "enable_supernode_auth", "fleet_api_type"),
    *("fleet_api_address", "simulation", "ssl_ca_certfile", "ssl_certfile", "ssl_keyfile"),
    *("database", "isolation", "runtime_dependency_install"),
}
CONTRACT: dict[str, Callable[[Any], bool]] = {
    "flwr.cli.build.build_fab_from_disk": lambda it: takes(it, "app"),
    "flwr.common.constant.FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE": lambda it: it == 5 << 20,
    "flwr.common.constant.HEARTBEAT_DEFAULT_INTERVAL": lambda it: it > 0,
    "flwr.common.constant.HEARTBEAT_PATIENCE": lambda it: it > 1,
    "flwr.common.constant.ISOLATION_MODE_PROCESS": lambda it: it == "process",
    "flwr.common.constant.NOOP_ACCOUNT_NAME": lambda it: isinstance(it, str),
    "flwr.common.constant.NOOP_FLWR_AID": lambda it: isinstance(it, str),
    "flwr.common.constant.SUPERLINK_NODE_ID": lambda it: it == 1,
    "flwr.common.constant.Status": lambda it: it.FINISHED == "finished",
    "flwr.common.constant.TRANSPORT_TYPE_GRPC_RERE": lambda it: isinstance(it, str),
    "flwr.common.constant.TIMESTAMP_HEADER": lambda it: it in signed_headers(),
    "flwr.common.logger.update_console_handler": lambda it: takes(it, "colored"),
    "flwr.common.serde.user_config_to_proto": lambda it: (
        it({"run": "x", "patience": 1.0})["patience"].double == 1.0
    ),
    "flwr.proto.control_pb2.StartRunRequest": lambda it: has(it, "fab", "override_config"),
    "flwr.proto.fab_pb2.Fab": lambda it: has(it, "content"),
    "flwr.proto.fleet_pb2.PullMessagesRequest": lambda it: has(it, "node"),
    "flwr.proto.fleet_pb2.PullMessagesResponse": lambda it: (
        has(it, "messages_list", "message_object_trees") and skips(it)
    ),
    "flwr.proto.fleet_pb2.PushMessagesRequest": lambda it: has(
        it, "node", "messages_list", "message_object_trees"
    ),
    "flwr.proto.fleet_pb2.PushMessagesResponse": lambda it: has(
        it, "objects_to_push", "session_id"
    ),
    "flwr.proto.message_pb2.ObjectTree": lambda it: has(it, "object_id", "children"),
    "flwr.proto.runtime_pb2.PullAppMessagesRequest": lambda it: has(it, "message_ids"),
    "flwr.proto.runtime_pb2.PullAppMessagesResponse": lambda it: (
        has(it, "messages_list", "message_object_trees") and skips(it)
    ),
    "flwr.proto.runtime_pb2.PushAppMessagesRequest": lambda it: (
        has(it, "messages_list") and skips(it)
    ),
    "flwr.proto.runtime_pb2.PushAppMessagesResponse": lambda it: has(
        it, "objects_to_push", "session_id"
    ),
    "flwr.server.superlink.linkstate.LinkState": lambda it: (
        takes(it.create_node, "owner_aid", "owner_name", "public_key", "heartbeat_interval", "name")
        and takes(it.delete_node, "owner_aid", "node_id")
        and takes(it.get_node_info, "owner_aids")
        and takes(it.get_run_info)
        and takes(it.get_run_status, "run_ids")
        and takes(it.stop_run, "run_id")
        and isinstance(it.object_store, property)
        and takes(it.activate_node, "node_id", "heartbeat_interval")
        and takes(InMemoryLinkState._cleanup_push_session, "session_id", "cleanup_messages")
    ),
    "flwr.supercore.auth.typing.AccountInfo": lambda it: takes(it, "flwr_aid", "account_name"),
    "flwr.supercore.constant.FLEET_HTTP_PUBLIC_KEY_HEADER": lambda it: it in signed_headers(),
    "flwr.supercore.constant.FLEET_HTTP_SIGNATURE_HEADER": lambda it: it in signed_headers(),
    "flwr.supercore.constant.FLWR_IN_MEMORY_DB_NAME": lambda it: isinstance(
        ObjectStoreFactory(it).store(), InMemoryObjectStore
    ),
    "flwr.supercore.constant.NodeStatus": lambda it: it.UNREGISTERED == "unregistered",
    "flwr.supercore.inflatable.inflatable_object.iterate_object_tree": lambda it: takes(it, "tree"),
    "flwr.supercore.object_store.in_memory_object_store.InMemoryObjectStore": lambda it: (
        takes(it.preregister, "run_id", "object_tree")
        and {"store", "lock_store"} <= vars(it()).keys()
    ),
    "flwr.supercore.primitives.asymmetric.bytes_to_public_key": callable,
    "flwr.supercore.primitives.asymmetric.public_key_to_bytes": callable,
    "flwr.supercore.primitives.asymmetric.verify_signature": verifies,
    "flwr.superlink.auth_plugin.NoOpControlAuthnPlugin": takes,
    "flwr.superlink.cli.flower_superlink.SuperLinkLifespan": lambda it: (
        takes(it, "config", "state_factory")
        and "!= ISOLATION_MODE_SUBPROCESS" in inspect.getsource(it._start_superexec_if_needed)
    ),
    "flwr.superlink.config_loader.SuperLinkLifespanConfig": lambda it: (
        {one.name for one in fields(it)} == CONFIG
    ),
    "flwr.superlink.main.create_app": lambda it: takes(it, "config", "superlink_lifespan_class"),
    "flwr.superlink.servicer.control.control_handlers": lambda it: (
        list(inspect.signature(it.start_run).parameters)[:4]
        == ["request", "account", "state", "fleet_api_type"]
    ),
}
"""What each name of Flower that is not public must be for a coordinator."""


@pytest.mark.parametrize("name", CONTRACT)
def test_a_name_of_flower_that_is_not_public_is_what_a_coordinator_takes_it_for(name: str) -> None:
    module, _, last = name.rpartition(".")
    assert CONTRACT[name](getattr(import_module(module), last))


def test_a_coordinator_leans_on_no_other_name_of_flower_that_is_not_public() -> None:
    used = {
        f"{node.module}.{alias.name}"
        for path in (ROOT / "federation" / "apps" / "operating").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("flwr.")
        for alias in node.names
    }
    assert used == CONTRACT.keys()


@pytest.fixture(scope="module")
def calls() -> dict[str, set[str]]:
    """Every call of a SuperLink, by its interface, as Flower's own app routes them."""
    found: dict[str, set[str]] = {}
    for context in iter_route_contexts(create_app().routes):
        if isinstance(context.route, APIRoute):
            _, _, interface, *call = (
                context.path.split("/")
                if context.path.startswith("/v1/")
                else ("", "", context.path)
            )
            found.setdefault(interface, set()).update(call)
    return found


def test_every_call_of_the_control_interface_has_its_role(calls: dict[str, set[str]]) -> None:
    assert calls["control"] == CONTROL_CALLS.keys()


def test_the_calls_that_are_let_through_are_flowers(calls: dict[str, set[str]]) -> None:
    assert calls["runtime"] > RUNTIME_CALLS
    assert calls["fleet"] - FLEET_CALLS == {"register-node", "unregister-node"}


def test_a_superlink_answers_by_what_its_state_says() -> None:
    app = flower.superlink_app(b"secret")
    state = app.state.linkstate_factory.state()
    assert isinstance(state, LinkState)
    assert isinstance(state.object_store, InMemoryObjectStore)
    assert app.state.superexec_auth_secret == b"secret"
    assert app.state.enable_supernode_auth is True
    runs, nodes = flower.FlowerRuns(app), flower.FlowerNodes(app)
    nodes.register(b"key", "brand")
    assert nodes.known().keys() == {b"key"}
    assert nodes.contacts() == {}
    nodes.unregister(nodes.known()[b"key"])
    assert nodes.known() == {}
    with pytest.raises(ValueError, match="in use"):
        nodes.register(b"key", "brand")
    number = runs.start({"coordinator": "/nowhere", "run": "/nowhere/000001"})
    assert not runs.has_ended(number)
    runs.stop_all()
    assert runs.has_ended(number)
    assert runs.has_ended(number + 1)


def test_nothing_of_flowers_lies_in_the_folder_at_a_start(tmp_path: Path) -> None:
    """Whoever writes to a copy of the folder, and has no key, leaves nothing there that is run."""
    home, remains = tmp_path / "flower", [tmp_path / "state.sqlite", tmp_path / "state.sqlite-wal"]
    flower.begin_anew(home, remains)  # the first time there is nothing
    (home / "apps").mkdir(parents=True)
    (home / "apps" / "server_app.py").write_text("raise SystemExit")
    remains[0].write_text("of an earlier version")
    (tmp_path / "coordinator.toml").touch()
    flower.begin_anew(home, remains)
    assert [file.name for file in tmp_path.iterdir()] == ["coordinator.toml"]


def test_flower_runs_the_app_that_it_finds_installed(tmp_path: Path) -> None:
    """What makes `begin_anew` needed; if this fails, Flower has begun to compare."""
    bundle = build_fab_from_disk(BUNDLE)
    place = install_from_fab(bundle, tmp_path, skip_prompt=True)
    (place / "comity_bundle" / "server_app.py").write_text("planted = True")
    assert install_from_fab(bundle, tmp_path, skip_prompt=True) == place
    assert (place / "comity_bundle" / "server_app.py").read_text() == "planted = True"


@pytest.mark.parametrize("is_link", [True, False])
def test_a_home_of_flower_that_is_no_directory_is_told_and_nothing_is_lost(
    tmp_path: Path, *, is_link: bool
) -> None:
    elsewhere, home = tmp_path / "elsewhere", tmp_path / "flower"
    (elsewhere / "kept").mkdir(parents=True)
    if is_link:
        home.symlink_to(elsewhere)
    else:
        home.write_text("kept")
    with pytest.raises(WorkspaceError, match=r"flower is a (link|file): .* remove it"):
        flower.begin_anew(home, ())
    assert (elsewhere / "kept").is_dir()
    assert home.exists()


def test_a_link_of_flowers_home_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    (tmp_path / "flower").symlink_to(tmp_path / "nowhere")
    with pytest.raises(WorkspaceError, match="flower is a link"):
        flower.begin_anew(tmp_path / "flower", ())


@pytest.mark.parametrize("make", [lambda _: None, Path.mkdir, lambda file: file.write_text("key")])
def test_a_nodes_key_that_cannot_be_read_is_told_by_its_name(
    make: Callable[[Path], object], tmp_path: Path
) -> None:
    make(tmp_path / "brand.pub")
    with pytest.raises(WorkspaceError, match=r"brand\.pub"):
        flower.read_node_key(tmp_path / "brand.pub")
