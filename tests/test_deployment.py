"""Whole collaborations through a real SuperLink and parties' nodes, and attacks on these nodes."""

import ast
import fcntl
import hashlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from deployment import (
    BIN,
    RUN_SECONDS,
    START_SECONDS,
    STOP_SECONDS,
    TELEMETRY_OFF,
    Deployment,
    Processes,
    Trap,
    children,
    listening_sockets,
    write_certificate,
    write_node_key,
)
from flwr.cli.build import build_fab_from_disk
from trials import write_every_job

from compliance.terms import NoiseSource, Role
from federation.apps import BUNDLE
from federation.audit import verify_party
from federation.clock import utc_now
from federation.collaboration import load_collaboration
from federation.embedded import run_embedded
from federation.enclosure import decrypt
from federation.jobs.assist import HeldPart
from federation.jobs.model import JointModel
from federation.jobs.sums import sums_for
from federation.members import Members, load_people
from federation.messages import SealedMessage, unseal
from federation.own_rows import KeptModel, OwnRows
from federation.party import PartyFolder
from federation.population import encoder_for
from federation.trial.workspace import Workspace, prepare_workspace
from federation.wire import installed
from privacy.randomness import SecretStream, new_secret

ROOT = Path(__file__).resolve().parent.parent
PROBER = Path(__file__).resolve().parent / "prober"
processes_are_seen = pytest.mark.skipif(
    not Path("/proc").is_dir(), reason="finds processes through /proc"
)


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
            body = message.body.model_dump_json(
                exclude={"attempt"}
            )  # names an exchange by its time
            words = (body, message.payload.hex())
            found.append((folder.name, recipient, message.header.job, *words))
    return sorted(found)


def told_of_people(workspace: Workspace) -> list[tuple[str, ...]]:
    """The same, without what parties say of the heads of their logs: those differ."""
    return [words for words in said(workspace) if "witness." not in words[3]]


@dataclass(frozen=True)
class Deployed:
    """A collaboration that has run over nodes, which are still up, and the same in one process."""

    embedded: Workspace
    workspace: Workspace
    deployment: Deployment
    processes: Processes
    trap: Trap

    def probe(self, name: str, *, rounds: int = 1, app: Path = PROBER) -> None:
        config = f"nodes={len(self.workspace.people)} rounds={rounds}"
        self.deployment.begin(config, app=app, name=name)

    def probed(self, name: str) -> list[str]:
        told = self.processes.finish(name, seconds=START_SECONDS)
        return sorted(line for line in told.splitlines() if line.startswith("round "))


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    directory = tmp_path_factory.mktemp("deployed")
    file = write_every_job(directory / "trial", rounds=1)  # others here have two
    collaboration = load_collaboration(file)
    embedded = prepare_workspace(collaboration, file, directory / "embedded")
    run_embedded(embedded.coordinator.path, [folder.path for folder in embedded.people])
    workspace = prepare_workspace(collaboration, file, directory / "workspace")
    environment = {
        **TELEMETRY_OFF,
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.5",
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }
    with (
        Trap() as trap,
        Processes(directory / "flower", environment | trap.environment) as processes,
    ):
        deployment = Deployment(processes, directory)
        deployment.start_nodes(workspace.people, options=["--allow-bundle", digest_of(PROBER)])
        told = deployment.run(
            f'coordinator="{workspace.coordinator.path}" deadline-seconds={RUN_SECONDS}',
            seconds=RUN_SECONDS,
        )
        assert "done: every job has ended" in told.splitlines(), told
        yield Deployed(embedded, workspace, deployment, processes, trap)
    assert [pid for pid, _ in processes.environments()] == []


def digest_of(app: Path) -> str:
    return hashlib.sha256(build_fab_from_disk(app)).hexdigest()


def members_of(folder: PartyFolder) -> list[str]:
    job = folder.job("everybody")
    found = Members.load(job / "aligned.npz", load_people(job / "people"))
    return found.references().to_pylist()


@pytest.mark.deployment
@processes_are_seen
@pytest.mark.timeout(2 * START_SECONDS + RUN_SECONDS)
class TestDeployment:
    def test_it_says_and_makes_the_very_same_that_one_process_does(
        self, deployed: Deployed
    ) -> None:
        here, there = deployed.embedded, deployed.workspace
        assert [words[:4] for words in said(there)] == [words[:4] for words in said(here)]
        assert told_of_people(there) == told_of_people(here)
        expected, found = made(here), made(there)
        assert sorted(found) == sorted(expected)
        assert [name for name in expected if found[name] != expected[name]] == []
        models = {name: content for name, content in found.items() if "/models/" in name}
        for job in ("model", "summed", "trees", "exact-trees"):
            same = [models[name] for name in models if name.endswith(f"/{job}.json")]
            assert len(same) == 4
            assert len(set(same)) == 1
        trained = JointModel.model_validate_json(found["brand/models/summed.json"])
        assert trained.noise is NoiseSource.DISTRIBUTED
        assert trained.making.rounds == 1
        model = JointModel.model_validate_json(found["brand/models/model.json"])
        assert model.making.rounds == 2
        assert JointModel.model_validate_json(found["brand/models/trees.json"]).body.kind == "trees"
        parts = [
            HeldPart.model_validate_json(models[name])
            for name in models
            if name.endswith("/columns.json")
        ]
        assert len(parts) == len({one.digest for one in parts}) == 3
        assert {one.label_epsilon for one in parts} == {3.0}
        scores = pd.read_csv(io.BytesIO(found["brand/segments/scores.csv"]))
        assert len(scores) == len(members_of(there.people[0]))
        assert sum("/segments/" in name for name in found) == 3
        for one, other in zip(here.folders, there.folders, strict=True):
            assert verify_party(other.path).counts == verify_party(one.path).counts

    def test_exact_trees_are_those_that_pooled_histograms_give(self, deployed: Deployed) -> None:
        """Against adding up what the partners' rows say, with no mask, no message and no wire."""
        places = [
            folder.model("exact-trees")
            for folder in deployed.workspace.people
            if folder.config.role is Role.PARTNER
        ]
        kept = [KeptModel.open(place) for place in sorted(places)]
        rows = [OwnRows.read(one, utc_now) for one in kept]
        model, agreement = kept[0].model, kept[0].agreement
        columns = encoder_for(agreement).names
        sums = sums_for(kept[0].spec, agreement, width=len(columns))
        standing, number = sums.start(), 0
        while not standing.finished:
            number += 1
            parts = [
                sums.contribution(
                    *(number, party, standing.weights, one.features),
                    *(one.members.astype(float), SecretStream(new_secret(), "no noise is drawn")),
                )
                for party, one in enumerate(rows)
            ]
            standing = sums.step(parts[0] + parts[1], standing, (0, 1))
        assert number == model.making.rounds
        assert (model.noise, model.epsilon) == (NoiseSource.UNSAFE_NONE, None)
        assert model.body == sums.body(standing, columns)

    def test_a_run_that_fails_says_why_in_its_last_words_and_shows_no_traceback(
        self, deployed: Deployed, tmp_path: Path
    ) -> None:
        told = deployed.deployment.run(
            f'coordinator="{tmp_path}"', seconds=START_SECONDS, name="run-stopped"
        )
        assert f"stopped: {tmp_path} is no party's folder" in told
        assert "Traceback" not in told

    def test_three_parties_align_the_people_whom_all_know(self, deployed: Deployed) -> None:
        aligned = [
            [members_of(folder) for folder in workspace.people]
            for workspace in (deployed.embedded, deployed.workspace)
        ]
        assert aligned[0] == aligned[1]
        assert {len(one) for one in aligned[0]} == {len(aligned[0][0])}
        assert len(aligned[0][0]) >= 5

    def test_nobody_beyond_loopback_is_called(self, deployed: Deployed) -> None:
        environments = list(deployed.processes.environments())
        nodes = [one for _, one in environments if "supernode-" in one["FLWR_HOME"]]
        others = [one for _, one in environments if "supernode-" not in one["FLWR_HOME"]]
        assert all(TELEMETRY_OFF.keys().isdisjoint(one) for one in nodes)  # they need no telling
        assert len(nodes) == 2 * len(deployed.workspace.people)
        assert others
        assert all(TELEMETRY_OFF.items() <= one.items() for one in others)
        assert not deployed.trap.caught()
        assert not (deployed.processes.flower_home("superlink").parent / "user").exists()

    def test_a_node_listens_nowhere_so_a_rogue_executor_finds_nothing(
        self, deployed: Deployed
    ) -> None:
        pids = {
            owner: {
                pid
                for pid, one in deployed.processes.environments()
                if Path(one["FLWR_HOME"]).name == owner
            }
            for owner in ("supernode-brand", "superlink")
        }
        assert listening_sockets(pids["superlink"])  # or this test sees nothing at all
        assert not listening_sockets(pids["supernode-brand"])

    def test_an_app_that_answers_with_rows_is_refused_and_nothing_of_it_runs(
        self, deployed: Deployed, tmp_path: Path
    ) -> None:
        other = shutil.copytree(PROBER, tmp_path / "other")
        project = other / "pyproject.toml"
        project.write_text(project.read_text().replace("0.1.0", "0.1.1"))
        deployed.probe("run-refused", app=other)
        nodes = len(deployed.workspace.people)
        assert deployed.probed("run-refused") == nodes * ["round 0: error 7"]
        told = deployed.processes.told("supernode-brand")
        assert any(digest_of(other) in line and "refused" in line for line in told.splitlines())
        homes = deployed.processes.flower_home("superlink").parent
        assert not list(homes.glob("**/shipped-code-ran"))

    def test_nodes_of_another_version_are_told_of_at_once_and_stop_no_run_that_can_do_without(
        self, deployed: Deployed, tmp_path: Path
    ) -> None:
        other = shutil.copytree(BUNDLE, tmp_path / "other")
        project = other / "pyproject.toml"
        written = project.read_text()
        project.write_text(written.replace('version = "0.1.0"', 'version = "0.0.9"'))
        assert project.read_text() != written
        told = deployed.deployment.run(
            f'coordinator="{deployed.workspace.coordinator.path}" deadline-seconds={RUN_SECONDS}',
            app=other,
            seconds=START_SECONDS,
            name="run-outdated",
        )
        lines = told.splitlines()
        assert "done: every job has ended" in lines
        for folder in deployed.workspace.people:
            absent = f", {folder.name}'s by its own account, for absent: node "
            (line,) = (one for one in lines if absent in one)
            assert f"takes no run of {installed()}; it says: {folder.name} runs" in line

    def test_a_worker_that_is_killed_costs_one_answer_and_no_code_of_an_allowed_bundle_runs(
        self, deployed: Deployed
    ) -> None:
        folder = deployed.workspace.people[1]
        node = deployed.processes.process(f"supernode-{folder.name}")
        (zygote,) = children(node.pid)
        with (folder.path / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # so that the worker waits, and can be met
            deployed.probe("run-killed", rounds=2)
            end = time.monotonic() + START_SECONDS
            while not (workers := children(zygote)):
                assert time.monotonic() < end
                time.sleep(0.02)
            os.kill(workers[0], signal.SIGKILL)
        nodes = len(deployed.workspace.people)
        assert deployed.probed("run-killed") == [
            *((nodes - 1) * ["round 0: answered"]),
            "round 0: error 8",
            *(nodes * ["round 1: answered"]),
        ]
        assert "ended by signal 9" in deployed.processes.told(f"supernode-{folder.name}")
        assert node.poll() is None
        assert children(node.pid) == [zygote]
        homes = deployed.processes.flower_home("superlink").parent
        assert not list(homes.glob("**/shipped-code-ran"))

    def test_a_node_that_is_not_taken_says_so_and_leaves_with_2(
        self, deployed: Deployed, tmp_path: Path
    ) -> None:
        brand = deployed.workspace.people[0]
        other_root, _ = write_certificate(tmp_path)
        key, _ = write_node_key(tmp_path, "stranger")
        deployed.deployment.start_node("stranger", brand, key)
        deployed.deployment.start_node("mistaken", brand, key, root_certificates=other_root)
        for name, told in (("stranger", "does not take this node"), ("mistaken", "certificate")):
            assert deployed.processes.process(name).wait(START_SECONDS) == 2
            assert told in deployed.processes.told(name)

    def test_a_node_stops_cleanly(self, deployed: Deployed) -> None:
        node = deployed.processes.process("supernode-brand")
        (zygote,) = children(node.pid)
        node.terminate()
        assert node.wait(STOP_SECONDS) == 0
        assert not Path(f"/proc/{zygote}").exists()
        told = deployed.processes.told("supernode-brand")
        assert "brand ends, as it was told to: it was at no message" in told
        (number,) = re.findall(r"is connected to \S+ as node (\d+)", told)
        deployed.processes.wait_until_told(
            "superlink", f"Deactivated node_id={number}", seconds=STOP_SECONDS
        )


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


def test_the_bundle_can_be_told_two_folders_and_a_patience_and_nothing_else() -> None:
    config = bundle_config()["tool"]["flwr"]["app"]["config"]
    assert config == {"coordinator": "", "deadline-seconds": 600.0, "run": ""}


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
