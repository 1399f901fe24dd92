"""Flower's SuperLink as one coordinator needs it: its app, its runs, and its nodes.

Guarantees: nodes are known by their keys, the executor by its secret; nothing is installed from the
network; Flower's own dialects beside HTTP are not spoken. Its state is in memory alone: nothing of
it lies on a disk, and no run outlives the process. An object has the same others within it wherever
it is told of, so that a message has the objects that it was told with, and no more.

Leaves to others: who may call what (`public_listener`, `control_listener`), when a run begins
(`dispatcher`). It leans on names of Flower that are not public; `tests/test_flower_contract.py`
fails when they move.
"""

import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from fastapi import FastAPI
from flwr.cli.build import build_fab_from_disk
from flwr.common.constant import (
    HEARTBEAT_DEFAULT_INTERVAL,
    HEARTBEAT_PATIENCE,
    ISOLATION_MODE_PROCESS,
    NOOP_ACCOUNT_NAME,
    NOOP_FLWR_AID,
    TRANSPORT_TYPE_GRPC_RERE,
    Status,
)
from flwr.common.serde import user_config_to_proto
from flwr.proto.control_pb2 import StartRunRequest
from flwr.proto.fab_pb2 import Fab
from flwr.proto.message_pb2 import ObjectTree
from flwr.server.superlink.linkstate import LinkState
from flwr.supercore.auth.typing import AccountInfo
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NodeStatus
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
from flwr.superlink.config_loader import SuperLinkLifespanConfig
from flwr.superlink.main import create_app
from flwr.superlink.servicer.control import control_handlers

from federation.apps import BUNDLE
from federation.apps.operating.unary import answer_in_one_task
from federation.errors import WorkspaceError

__all__ = [
    "FlowerNodes",
    "FlowerObjects",
    "FlowerRuns",
    "begin_anew",
    "read_node_key",
    "superlink_app",
]

_logger: Final = logging.getLogger("comity.apps")
_ACCOUNT: Final = AccountInfo(flwr_aid=NOOP_FLWR_AID, account_name=NOOP_ACCOUNT_NAME)


def begin_anew(home: Path, remains: Iterable[Path]) -> None:
    """Leave nothing of Flower's home, nor of what earlier versions had Flower keep on disk.

    No run outlives the process, so nothing is lost. Whoever could write to the folder while no
    process was at work, but has no secret, could else leave an app there: Flower runs the one that
    it finds installed under a bundle's name, without comparing.

    Args:
        home: Flower's.
        remains: further files; those that are there are removed.

    Raises:
        WorkspaceError: the home is no directory, or something is not this process's to remove.
    """
    if home.is_symlink() or home.is_file():
        raise WorkspaceError(
            f"{home} is a {'link' if home.is_symlink() else 'file'}: expected a directory of "
            "Flower's, or nothing, since it is emptied at each start; remove it"
        )
    try:
        if home.exists():
            shutil.rmtree(home)
        for file in remains:
            file.unlink(missing_ok=True)
    except OSError as error:
        raise WorkspaceError(
            f"{error.filename} cannot be removed ({error.strerror}): remove it, or give it to the "
            "user whom the coordinator runs as"
        ) from error


def superlink_app(secret: bytes) -> FastAPI:
    """Return Flower's SuperLink as an ASGI app, with its state in memory.

    Args:
        secret: by which the executor proves itself.
    """
    config = SuperLinkLifespanConfig(
        control_address="",
        health_server_address=None,
        host="",
        port=0,
        insecure=False,
        certificates=None,
        superexec_auth_secret=secret,
        authn_plugin=NoOpControlAuthnPlugin(),  # the control listener has seen to it
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type=TRANSPORT_TYPE_GRPC_RERE,
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=None,
        ssl_certfile=None,
        ssl_keyfile=None,
        database=FLWR_IN_MEMORY_DB_NAME,
        isolation=ISOLATION_MODE_PROCESS,
        runtime_dependency_install=False,
    )
    app: FastAPI = create_app(config, SuperLinkLifespan)
    factory = app.state.linkstate_factory
    factory.objectstore_factory.store_instance = factory.state()._object_store = _Store()  # noqa: SLF001 -- Flower has no other place for it
    answer_in_one_task(app)
    return app


class _Store(InMemoryObjectStore):
    """Objects by name; a tree that contradicts what was told of them before is not taken.

    Flower keeps what it was told first, and hands out a message with all that hangs on its objects
    by that. So few in each of several answers could hang on each other to any number.
    """

    def preregister(self, run_id: int, object_tree: ObjectTree) -> list[str]:
        """Return which objects of a tree are still to be put, as Flower's own does.

        Raises:
            ValueError: one has others within it than it was told of with before.
        """
        with self.lock_store:
            within: dict[str, list[str]] = {}
            for one in iterate_object_tree(object_tree):
                told = [child.object_id for child in one.children]
                known = self.store.get(one.object_id)
                first = within.setdefault(one.object_id, known.child_object_ids if known else told)
                if sorted(told) != sorted(first):
                    raise ValueError("an object is told of with others within it than before")
            missing: list[str] = super().preregister(run_id, object_tree)
            return missing


def _state(app: FastAPI) -> LinkState:
    state: LinkState = app.state.linkstate_factory.state()
    return state


class FlowerObjects:
    """What messages hold, by the names that Flower gives it."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    def take(self, message: str, names: Sequence[str], *, most: int) -> Sequence[bytes]:
        """Return the objects of a message, and keep them no longer.

        Nothing is returned, and all is kept, where one is missing, or all have more bytes than
        `most`.
        """
        store = _state(self._app).object_store
        contents = [store.get(name) or b"" for name in names]
        if not all(contents) or sum(map(len, contents)) > most:
            return ()
        try:
            store.delete(message)
        except Exception as error:  # noqa: BLE001 -- Flower has handed the message out: it must go
            _logger.error("objects of a message that has gone stay (%s)", type(error).__name__)  # noqa: TRY400 -- a text may quote them
        return contents

    def put(self, session: str, contents: Mapping[str, bytes]) -> bool:
        """Store all objects that a session waits for, and end it; tell whether that was done."""
        state = _state(self._app)
        try:
            for name, content in contents.items():
                state.object_store.put(name, content)
        except Exception:  # noqa: BLE001 -- Flower raises whatever it finds in a foreign object
            return False
        state._cleanup_push_session(session, cleanup_messages=False)  # noqa: SLF001 -- as Flower does after the last
        return True


class FlowerRuns:
    """Runs of the installed app bundle."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    def start(self, config: Mapping[str, str | float]) -> int:
        """Start a run of the installed bundle; return Flower's number of it."""
        request = StartRunRequest(
            fab=Fab(content=build_fab_from_disk(BUNDLE)),
            override_config=user_config_to_proto(dict(config)),
        )
        started = control_handlers.start_run(
            request, _ACCOUNT, _state(self._app), TRANSPORT_TYPE_GRPC_RERE
        )
        return int(started.run_id)

    def has_ended(self, run: int) -> bool:
        """Whether a run has ended, in whichever way; one that Flower does not know has."""
        found = _state(self._app).get_run_status({run}).get(run)
        return found is None or found.status == Status.FINISHED

    def stop_all(self) -> None:
        """Stop every run that has not ended."""
        state = _state(self._app)
        for run in state.get_run_info():
            if run.status.status != Status.FINISHED:
                state.stop_run(run.run_id)


class FlowerNodes:
    """The nodes that a SuperLink knows, by their keys."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    def known(self) -> Mapping[bytes, int]:
        """Return Flower's number of every node, by its key."""
        found = _state(self._app).get_node_info(owner_aids=[NOOP_FLWR_AID])
        return {
            bytes(one.public_key): int(one.node_id)
            for one in found
            if one.status != NodeStatus.UNREGISTERED
        }

    def contacts(self) -> Mapping[str, datetime]:
        """Return when each node was heard last, by its name; of one that left, up to a minute less.

        A node that was never heard is left out.
        """
        found = _state(self._app).get_node_info(owner_aids=[NOOP_FLWR_AID])
        return {
            one.name: datetime.fromtimestamp(
                one.online_until - HEARTBEAT_PATIENCE * one.heartbeat_interval, UTC
            )
            for one in found
            if one.online_until and one.status != NodeStatus.UNREGISTERED
        }

    def register(self, key: bytes, name: str) -> None:
        """Have a node be taken that has this key."""
        _state(self._app).create_node(
            owner_aid=NOOP_FLWR_AID,
            owner_name=NOOP_ACCOUNT_NAME,
            public_key=key,
            heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL,
            name=name,
        )

    def unregister(self, node: int) -> None:
        """Have a node be taken no longer."""
        state = _state(self._app)
        state.activate_node(node, HEARTBEAT_DEFAULT_INTERVAL)  # Flower trips over one never heard
        state.delete_node(owner_aid=NOOP_FLWR_AID, node_id=node)


def read_node_key(file: Path) -> bytes:
    """Return the key of a node as Flower names it.

    Args:
        file: the public key, in OpenSSH's format.

    Raises:
        WorkspaceError: it cannot be read, or is none of P-256.
    """
    try:
        key = load_ssh_public_key(file.read_bytes())
    except OSError as error:
        raise WorkspaceError(
            f"{file} cannot be read ({error.strerror}): make it readable, or remove it"
        ) from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise WorkspaceError(f"{file} holds no public key in OpenSSH's format") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise WorkspaceError(f"{file}: expected a key of P-256 (ecdsa-sha2-nistp256)")
    return bytes(public_key_to_bytes(key))
