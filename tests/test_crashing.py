"""Whoever is killed at whatever step of a job: run again, it ends as if nothing had been."""

import json
import os
import subprocess
import sys
from collections import Counter
from itertools import product
from pathlib import Path

import pytest
from parties import PEOPLE

CRASHING = Path(__file__).with_name("crashing.py")
SAMPLE = ["model/retailer", "model/coordinator", "erase/brand"]
STAGES = {
    "find": "match",
    "model": "train",
    "best": "expand",
    "erase": "erase",
    "everybody": "align",
    "summed": "train",
    "trees": "train",
    "exact-trees": "train",
    "columns": "train-vertical",
    "scores": "score-vertical",
    "count": "measure",
}


@pytest.mark.timeout(14400)
def test_killed_at_a_step_a_job_goes_on_pays_once_and_comes_to_the_same_end(
    tmp_path: Path, thorough: bool
) -> None:
    which = ["23"] if thorough else ["400+150", *SAMPLE]
    command = [sys.executable, str(CRASHING), str(tmp_path), *which]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    killed = {f"{one['job']}/{one['victim']}": Counter(one["kinds"]) for one in told}
    if not thorough:
        assert killed.keys() == {*SAMPLE}
        assert all(killed.values())
        return
    assert {one["job"]: one["kind"] for one in told} == STAGES
    for stage, victim in product(STAGES, (*PEOPLE, "coordinator")):
        at = killed[f"{stage}/{victim}"]
        assert at.total() > at["take"] + at["answer"]  # a worker, or the coordinator
        assert victim == "coordinator" or (at["take"] and at["answer"])  # a node
