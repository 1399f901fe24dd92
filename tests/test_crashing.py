"""Whoever is killed at whatever step of a job: run again, it ends as if nothing had been."""

import json
import os
import subprocess
import sys
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from parties import PEOPLE

CRASHING = Path(__file__).with_name("crashing.py")
LOST = ["find/brand", "model/retailer"]
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


def crashed(*arguments: object, **environment: str) -> tuple[dict[str, Counter[str]], list[Any]]:
    """Have parties be killed; return at what kinds of steps, by job and party, and all that is told."""
    command = [sys.executable, str(CRASHING), *map(str, arguments)]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"} | environment
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    return {f"{one['job']}/{one['victim']}": Counter(one["kinds"]) for one in told}, told


@pytest.mark.timeout(14400)
def test_whose_machine_is_lost_at_a_step_goes_on_from_the_copy_and_comes_to_the_same_end(
    tmp_path: Path, thorough: bool
) -> None:
    which = ["41"] if thorough else ["60+20", *LOST]
    killed, _ = crashed("--lose", tmp_path, *which, COMITY_UNSEALING_KEY="5a" * 32)
    assert killed.keys() >= {*LOST}
    assert all(killed.values())


@pytest.mark.timeout(14400)
def test_killed_at_a_step_a_job_goes_on_pays_once_and_comes_to_the_same_end(
    tmp_path: Path, thorough: bool
) -> None:
    killed, told = crashed(tmp_path, *(["23"] if thorough else ["400+150", *SAMPLE]))
    if not thorough:
        assert killed.keys() == {*SAMPLE}
        assert all(killed.values())
        return
    assert {one["job"]: one["kind"] for one in told} == STAGES
    for stage, victim in product(STAGES, (*PEOPLE, "coordinator")):
        at = killed[f"{stage}/{victim}"]
        assert at.total() > at["take"] + at["answer"]  # a worker, or the coordinator
        assert victim == "coordinator" or (at["take"] and at["answer"])  # a node
