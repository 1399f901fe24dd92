"""Kills among a real SuperLink and real nodes: run again, and the end is that of one process."""

import os
import signal
import time
from pathlib import Path

import pytest
from deployment import (
    BIN,
    RUN_SECONDS,
    TELEMETRY_OFF,
    Deployment,
    Processes,
    children,
)
from trials import document, write_trial

from federation.audit import verify_party
from federation.collaboration import load_collaboration
from federation.embedded import run_embedded
from federation.trial.workspace import Workspace, prepare_workspace


def made(workspace: Workspace) -> dict[str, bytes]:
    """Everything that parties made: models, segments."""
    return {
        str(path.relative_to(workspace.path)): path.read_bytes()
        for folder in workspace.folders
        for part in ("models", "segments")
        for path in (folder.path / part).rglob("*")
        if path.is_file()
    }


def kill(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.deployment
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes through /proc")
@pytest.mark.timeout(6 * RUN_SECONDS)
def test_a_node_and_then_the_coordinator_are_killed_and_the_next_run_ends_the_jobs(
    tmp_path: Path, thorough: bool
) -> None:
    if not thorough:
        pytest.skip("takes minutes")
    content = {name: part for name, part in document().items() if name != "evaluate"}
    file = write_trial(tmp_path / "trial", content)
    collaboration = load_collaboration(file)
    whole = prepare_workspace(collaboration, file, tmp_path / "whole")
    run_embedded(whole.coordinator.path, [folder.path for folder in whole.people])
    workspace = prepare_workspace(collaboration, file, tmp_path / "workspace")
    environment = {
        **TELEMETRY_OFF,
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }
    config = f'coordinator="{workspace.coordinator.path}" deadline-seconds={RUN_SECONDS}'
    with Processes(tmp_path / "flower", environment) as processes:
        deployment = Deployment(processes, tmp_path)
        keys = deployment.register([folder.name for folder in workspace.people])
        for folder in workspace.people:
            deployment.start_node(f"node-{folder.name}", folder, keys[folder.name])
        victim = workspace.people[1]
        deployment.begin(config, name="run-1")
        processes.wait_until_told("run-1", "carries match.", seconds=RUN_SECONDS)
        node = processes.process(f"node-{victim.name}")
        kill(*children(node.pid), node.pid)
        told = processes.finish("run-1", seconds=RUN_SECONDS)
        assert "stopped:" in told
        assert victim.name in told.rpartition("stopped:")[2]
        deployment.start_node(f"node-{victim.name}-again", victim, keys[victim.name])
        deployment.begin(config, name="run-2")
        processes.wait_until_told("run-2", "says train.request", seconds=RUN_SECONDS)
        coordinators = [
            pid
            for pid, _ in processes.environments()
            if b"serverapp" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        assert coordinators
        kill(*coordinators)
        time.sleep(1)
        end = time.monotonic() + RUN_SECONDS
        number, told = 2, ""
        while "done: every job has ended" not in told:  # Flower may take a while to forget a run
            assert time.monotonic() < end, told
            number += 1
            told = deployment.run(config, seconds=RUN_SECONDS, name=f"run-{number}")
        assert made(workspace) == made(whole)
        for folder, other in zip(workspace.folders, whole.folders, strict=True):
            counts = verify_party(folder.path).counts
            expected = verify_party(other.path).counts
            assert counts.get("budget.committed") == expected.get("budget.committed")
