"""Whoever is killed at whatever step of a job: run again, it ends as if nothing had been."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from itertools import product
from pathlib import Path

import pytest
from kill_journal import ROOT, Journal, Kill
from parties import PEOPLE

MATRIX = Path(__file__).with_name("crash_matrix.py")
LOSING = Path(__file__).with_name("losing.py")
LOST = ("find/brand", "model/retailer")
SAMPLE = ("model/retailer", "erase/coordinator")
STAGES = (
    *("find", "model", "best", "erase", "everybody", "summed", "trees", "exact-trees"),
    *("columns", "scores", "count"),
)
IN_FULL = ROOT / "out" / "crash-matrix.jsonl"


@pytest.mark.timeout(14400)
def test_killed_at_a_step_a_job_goes_on_pays_once_and_comes_to_the_same_end(
    tmp_path: Path, thorough: bool, exhaustive: bool
) -> None:
    journal = IN_FULL if exhaustive else tmp_path / "kills.jsonl"
    which = ["--processors", "2"] if exhaustive else ["--every", "10"] if thorough else []
    if not exhaustive and not thorough:
        which = ["--every", "120", *SAMPLE]
    command = [sys.executable, str(MATRIX), str(journal), *which]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    killed: dict[str, list[Kill]] = defaultdict(list)
    for kill in Journal.open(journal).done.values():
        killed[f"{kill.stage}/{kill.victim}"].append(kill)
    everybody = product(STAGES, (*PEOPLE, "coordinator"))
    named = {f"{stage}/{victim}" for stage, victim in everybody}
    assert killed.keys() == (named if exhaustive or thorough else {*SAMPLE})
    # of the steps that leave the same disk some are killed at, and come to the same
    assert any(kill.like is not None for kills in killed.values() for kill in kills)


@pytest.mark.timeout(14400)
def test_whose_machine_is_lost_at_a_step_goes_on_from_the_copy_and_comes_to_the_same_end(
    tmp_path: Path, thorough: bool
) -> None:
    which = ["41"] if thorough else ["60+20", *LOST]
    command = [sys.executable, str(LOSING), str(tmp_path), *which]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "COMITY_UNSEALING_KEY": "5a" * 32}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    lost = {f"{one['job']}/{one['victim']}": one["lost"] for one in told}
    assert lost.keys() >= {*LOST}
    assert all(lost.values())
