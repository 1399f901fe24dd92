"""A small collaboration on the first rows of the example's data, for tests that need a whole one."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"

ROOT = Path(__file__).resolve().parent.parent
PEOPLE = 2000

Collaborate = Callable[..., Path]
"""`collaborate("old" -> "new", …)`: writes a collaboration file and returns its path."""


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of the example's first 2,000 people, as the generator makes them."""
    directory = tmp_path_factory.mktemp("data")
    generator = ROOT / "examples" / "lookalike" / "generate.py"
    command = [sys.executable, str(generator), "--people", str(PEOPLE), "--output", str(directory)]
    subprocess.run(command, check=True, capture_output=True)
    return directory


@pytest.fixture
def collaborate(small_data: Path, tmp_path: Path) -> Collaborate:
    """Return a function that writes the example's collaboration file for the small data.

    Its arguments are (pattern, replacement) pairs applied to the text, each of which must hit.
    """

    def write(*changes: tuple[str, str], name: str = "collaboration.toml") -> Path:
        text = (ROOT / "examples" / "lookalike" / "collaboration.toml").read_text()
        defaults = (
            (r'"data/', f'"{small_data}/'),
            (r"declared_rows = 25000", "declared_rows = 1000"),
            (r"declared_rows = 4000", "declared_rows = 150"),
            (r"minimum_match = 100", "minimum_match = 20"),
            (r"minimum_segment = 100", "minimum_segment = 10"),
            (r"set_size_bucket = 1000", "set_size_bucket = 100"),
            (r"steps = 300", "steps = 60"),
            (r'^name = "lookalike"$', 'name = "lookalike"\nunsafe_seed = 7'),
        )
        for pattern, replacement in (*defaults, *changes):
            text, hits = re.subn(pattern, replacement, text, flags=re.MULTILINE)
            if not hits:
                raise ValueError(f"pattern {pattern!r} does not occur in the collaboration file")
        path = tmp_path / name
        path.write_text(text)
        return path

    return write
