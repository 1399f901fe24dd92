"""A small collaboration on the first rows of the example's data, for tests that need a whole one."""

import fcntl
import gc
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from compliance.log import files
from compliance.log.files import LocalFiles
from federation.code import looked_at_once

# Whether a change lands depends on the change: examples are the same in every run. `make explore`
# draws others. No example has a deadline: how long one takes depends on the machine.
settings.register_profile("steady", derandomize=True, max_examples=50, deadline=None)
settings.register_profile("explore", derandomize=False, deadline=None)
settings.load_profile("steady")

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # In a shell's background: whatever tests start would ignore it too.
    signal.signal(signal.SIGINT, signal.default_int_handler)

SYNC_TOGETHER = LocalFiles.sync
"""How a log flushes files, which its own tests use."""


def sync_in_turn(_: LocalFiles, paths: Collection[Path]) -> None:
    """Flush files without a thread for each: there is no device here that they could share."""
    for path in paths:
        files._sync(path)


LocalFiles.sync = sync_in_turn

ROOT = Path(__file__).resolve().parent.parent
PEOPLE = 2000

LONGEST = (
    *("deployment", "walkthrough", "coordinator_service", "simulation", "crashing"),
    *("matching_pairs", "node", "sums", "vertical_jobs", "spreading", "matching_aligning"),
    *("ray_executor", "match_benchmarks", "alarm", "quorum", "vertical_absent", "retraining"),
    *("erasing_vertical", "scene", "ledger", "measure", "adoption"),
)
"""Modules that take longest: they begin first, so that no worker is left alone with one."""

Collaborate = Callable[..., Path]
"""`collaborate("old" -> "new", …)`: writes a collaboration file and returns its path."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling:
    """Run each module in one worker, whatever `--dist` says: what its tests share is made once."""
    config.option.loadscopereorder = False  # ours is the order
    return LoadFileScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    first = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: first.get(item.path.stem, len(first)))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage while tests are collected, nor later among what they import.

    And seldom afterwards: whole collaborations make many objects, of which few are kept.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(50_000, 20, 20)
        gc.enable()


def over(
    cases: Iterable[Any], *, ids: Callable[[Any], str] = str
) -> Callable[[Callable[[Any], None]], Callable[[], None]]:
    """Make one test that holds every case against a check, and tells of all that fail.

    For hundreds of cases that are checked in less time than a test of its own takes.
    """

    def decorate(check: Callable[[Any], None]) -> Callable[[], None]:
        def test() -> None:
            failed = []
            for case in cases:
                try:
                    check(case)
                except Exception as error:  # noqa: BLE001 -- of whatever kind
                    failed.append(f"{ids(case)}: {type(error).__name__}: {error}")
            assert not failed, "\n".join(failed)

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return test

    return decorate


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--thorough",
        action="store_true",
        help="kill at every step and change every byte, where a sample is taken otherwise",
    )
    parser.addoption(
        "--exhaustive",
        action="store_true",
        help="kill each process of the crash matrix at every step that leaves another disk",
    )


@pytest.fixture(scope="session", autouse=True)
def unchanged_code() -> Iterator[None]:
    """Look at the code once for all that tests say in this thread: nobody changes it meanwhile.

    Threads, and processes that are not forked from this one, look for themselves, for every message.
    """
    with looked_at_once():
        yield


@pytest.fixture
def thorough(pytestconfig: pytest.Config) -> bool:
    """Whether all of what could be tried shall be, and not a sample."""
    return bool(pytestconfig.getoption("thorough"))


@pytest.fixture
def exhaustive(pytestconfig: pytest.Config) -> bool:
    """Whether the crash matrix shall be done in full, going on where it was cut."""
    return bool(pytestconfig.getoption("exhaustive"))


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a directory that the first worker in need of it fills for all of them."""
    common = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        common = common.parent
    directory, done = common / name, common / f"{name}.done"
    with (common / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(directory, ignore_errors=True)  # of a worker that failed
            directory.mkdir()
            make(directory)
            done.touch()
    return directory


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of the example's first 2,000 people, as the generator makes them."""

    def make(directory: Path) -> None:
        generator = ROOT / "examples" / "lookalike" / "generate.py"
        asked = ["--people", str(PEOPLE), "--output", str(directory)]
        subprocess.run([sys.executable, generator, *asked], check=True, capture_output=True)

    return made_once(tmp_path_factory, "small-data", make)


def write_collaboration(
    small_data: Path, directory: Path, *changes: tuple[str, str], name: str = "collaboration.toml"
) -> Path:
    """Write the example's collaboration file for the small data.

    `changes` are (pattern, replacement) pairs applied to the text, each of which must hit.
    """
    text = (ROOT / "examples" / "lookalike" / "collaboration.toml").read_text()
    defaults = (
        (r'"data/', f'"{small_data}/'),
        (r"declared_rows = 25000", "declared_rows = 1000"),
        (r"declared_rows = 4000", "declared_rows = 200"),
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
    path = directory / name
    path.write_text(text)
    return path


@pytest.fixture
def collaborate(small_data: Path, tmp_path: Path) -> Collaborate:
    """Return `write_collaboration` for the small data and a directory of the test's own."""
    return partial(write_collaboration, small_data, tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny trial that has run: its file and its workspace. All workers share it: copy it first."""
    from trials import write_trial

    from federation.trial.simulation import simulate

    directory = made_once(
        tmp_path_factory,
        "finished",
        lambda path: simulate(write_trial(path), path / "workspace"),
    )
    return directory / "trial.toml", directory / "workspace"
