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
