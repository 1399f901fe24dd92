"""Whoever is killed at whatever step of a job: run again, it ends as if nothing had been."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CRASHING = Path(__file__).with_name("crashing.py")


@pytest.mark.timeout(7200)
def test_killed_at_a_step_a_job_goes_on_pays_once_and_comes_to_the_same_end(
    tmp_path: Path, thorough: bool
) -> None:
    sample = ["150", "model/retailer", "model/coordinator"]
    command = [sys.executable, str(CRASHING), str(tmp_path), *(["23"] if thorough else sample)]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(told) == (36 if thorough else 2)
    assert all(one["killed"] for one in told)
