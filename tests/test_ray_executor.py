"""Ray behind the interface of an executor, on a cluster of two workers on this machine."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_contract import TWIST_POINTS, CurveEngineContract, random_rows
from test_workers import assert_same_match, small_match

from federation import ray_executor as module
from federation import workers
from federation.ray_executor import BrokenRayError, RayExecutor
from federation.workers import WorkerKind, WorkersConfig
from privacy.errors import InvalidParameterError, PeerMessageError, WorkerError
from privacy.psi import CurveEngine, PortableEngine
from privacy.psi.distributed import DistributedEngine
from privacy.psi.engines import EngineKind

ROOT = Path(__file__).resolve().parent.parent
TWO = WorkersConfig(kind=WorkerKind.RAY, count=2)
needs_ray = pytest.mark.skipif(
    find_spec("ray") is None, reason="Ray (extra scale) is not installed"
)


def sent_along(executor: RayExecutor) -> RayExecutor:
    """Have this module's functions travel whole, as workers cannot import tests."""
    from ray.cloudpickle import register_pickle_by_value

    register_pickle_by_value(sys.modules[__name__])
    return executor


@pytest.fixture(scope="class")
def cluster() -> Iterator[RayExecutor]:
    with sent_along(RayExecutor(count=2)) as executor:
        yield executor


@pytest.fixture(scope="class")
def kept() -> Iterator[RayExecutor]:
    """The cluster that a party's configuration starts."""
    executor = workers._executor(TWO, os.getpid())
    assert isinstance(executor, RayExecutor)
    yield sent_along(executor)
    executor.shutdown()
    workers._executor.cache_clear()


def slowly(number: int) -> int:
    time.sleep(0.3)
    return number


def refuse(text: str) -> None:
    raise PeerMessageError(text)


def die_once(marker: str) -> str:
    """End this process at the first call, and answer the next."""
    if not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def listening_at() -> set[str]:
    """Addresses at which this process and those that it started listen."""
    import psutil  # Ray brings it

    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    pids = {process.pid for process in family}
    return {
        one.laddr.ip
        for one in psutil.net_connections(kind="tcp")
        if one.status == psutil.CONN_LISTEN and one.pid in pids
    }


def join(
    address: str, before: str = "", **environment: str | None
) -> subprocess.CompletedProcess[str]:
    """Have another process join a cluster and call something in it."""
    program = (
        f"import sys\n{before}\n"
        "from federation.ray_executor import RayExecutor\n"
        "with RayExecutor(sys.argv[1]) as executor:\n"
        "    print(executor.count, *executor.map(abs, [-1, -2]))\n"
    )
    variables = {key: value for key, value in (os.environ | environment).items() if value}
    command = [sys.executable, "-c", program, address]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=variables, timeout=120, check=False
    )


@needs_ray
@pytest.mark.slow
class TestRayExecutor(CurveEngineContract):
    """One cluster, as an executor and beneath an engine."""

    @pytest.fixture(params=[None, EngineKind.PORTABLE], ids=["fastest", "portable"])
    def make(
        self, cluster: RayExecutor, request: pytest.FixtureRequest
    ) -> Callable[..., CurveEngine]:
        def make(**fields: Any) -> CurveEngine:
            return DistributedEngine(cluster, request.param, chunk_points=3, **fields)

        return make

    def test_calls_functions_elsewhere_and_keeps_the_order_of_a_map(
        self, cluster: RayExecutor
    ) -> None:
        assert cluster.count == 2
        assert cluster.submit(os.getpid).result() != os.getpid()
        assert cluster.submit(int, "11", base=3).result() == 4
        assert list(cluster.map(abs, range(-50, 0))) == list(range(50, 0, -1))
        assert len(set(cluster.map(lambda _: (time.sleep(0.2), os.getpid())[1], range(6)))) == 2

    def test_raises_what_a_call_raised(self, cluster: RayExecutor) -> None:
        error = cluster.submit(refuse, "expected 3, got 4").exception()
        assert type(error) is PeerMessageError
        assert str(error) == "expected 3, got 4"
        with pytest.raises(ZeroDivisionError):
            cluster.submit(divmod, 1, 0).result()

    def test_cancels_what_waits_and_not_what_runs(self, cluster: RayExecutor) -> None:
        running = [cluster.submit(slowly, number) for number in range(4)]
        waiting = [cluster.submit(slowly, number) for number in range(4)]
        time.sleep(0.1)
        assert not running[0].cancel()
        assert waiting[3].cancel()
        assert [future.result() for future in running] == [0, 1, 2, 3]
        with pytest.raises(CancelledError):
            waiting[3].result()
        assert waiting[2].result() == 2

    def test_tells_of_a_worker_that_died_and_works_on(
        self, cluster: RayExecutor, tmp_path: Path
    ) -> None:
        error = cluster.submit(die_once, str(tmp_path / "marker")).exception()
        assert isinstance(error, BrokenRayError)
        assert "WorkerCrashedError" in str(error)
        assert cluster.submit(abs, -1).result() == 1

    def test_listens_to_this_machine_alone(self, cluster: RayExecutor) -> None:
        cluster.submit(abs, 1).result()
        assert listening_at() == {"127.0.0.1", "::ffff:127.0.0.1"}

    def test_lets_nobody_else_into_its_directory(self, cluster: RayExecutor) -> None:
        directory = cluster._directory
        assert directory is not None
        assert directory.stat().st_mode & 0o777 == 0o700
        assert list(directory.glob("ray/session_*/sockets/*"))

    def test_is_joined_by_those_who_know_its_token_and_by_nobody_else(
        self, cluster: RayExecutor
    ) -> None:
        import ray

        address = ray.get_runtime_context().gcs_address
        asks = (  # and it tells nobody of its use
            "import atexit\nfrom ray._common.usage import usage_lib\n"
            "atexit.register(lambda: print(usage_lib.usage_stats_enabled()))"
        )
        joined = join(address, asks, RAY_USAGE_STATS_ENABLED=None)
        assert joined.stdout.split() == ["2", "1", "2", "False"], joined.stderr
        for wrong in ("0" * 64, None):
            refused = join(address, RAY_AUTH_TOKEN=wrong, HOME="/nonexistent")
            assert refused.returncode != 0
            assert "no Ray cluster at" in refused.stderr
        empty = join(address, "import ray; ray.cluster_resources = dict")
        assert f"the Ray cluster at {address} has no processors" in empty.stderr
        assert cluster.submit(abs, -1).result() == 1  # who leaves does not end it

    def test_is_one_in_a_process(self, cluster: RayExecutor) -> None:
        with pytest.raises(WorkerError, match="belongs to a Ray cluster already"):
            RayExecutor(count=1)
        assert cluster.submit(abs, -1).result() == 1

    def test_a_point_of_the_twist_is_found_by_a_worker(self, cluster: RayExecutor) -> None:
        points = PortableEngine().hash_to_curve(random_rows(1, 300))
        points[299] = TWIST_POINTS[0]
        with pytest.raises(PeerMessageError, match="twist"):
            DistributedEngine(cluster, chunk_points=64).check_on_curve(points)

    @pytest.mark.parametrize("chunk_points", [500, 5_000])  # along with the call, and stored
    def test_columns_come_back_as_from_the_local_engine(
        self, cluster: RayExecutor, chunk_points: int
    ) -> None:
        tokens, scalar = random_rows(2, 10_000, 33), random_rows(3, 1).tobytes()
        engine, local = DistributedEngine(cluster, chunk_points=chunk_points), PortableEngine()
        points = local.hash_to_curve(tokens)
        assert engine.hash_to_curve(tokens).tobytes() == points.tobytes()
        assert engine.multiply(points, scalar).tobytes() == local.multiply(points, scalar).tobytes()
        engine.check_on_curve(points)


@needs_ray
@pytest.mark.slow
class TestShutdown:
    def test_ends_what_is_under_way_and_takes_nothing_more(self) -> None:
        import ray

        executor = sent_along(RayExecutor(count=1))
        directory = executor._directory
        assert directory is not None
        executor.submit(abs, 1).result()
        under_way = [executor.submit(slowly, number) for number in range(2)]
        queued = [executor.submit(slowly, number) for number in range(4)]
        time.sleep(0.1)
        executor.shutdown(wait=False, cancel_futures=True)
        with pytest.raises(RuntimeError, match="after shutdown"):
            executor.submit(abs, 1)
        assert [future.result() for future in under_way] == [0, 1]
        assert all(future.cancelled() for future in queued)
        executor.shutdown()
        assert not ray.is_initialized()
        assert not directory.exists()
        executor.shutdown()  # and once more does nothing


@needs_ray
@pytest.mark.slow
class TestMatch:
    def test_by_two_workers_gives_the_same_bytes(self, kept: RayExecutor, tmp_path: Path) -> None:
        plain, world = small_match(tmp_path / "p", None), small_match(tmp_path / "r", TWO)
        plain.run()
        world.run()
        assert_same_match(world, plain)

    def test_a_call_whose_worker_died_is_repeated_elsewhere(
        self, kept: RayExecutor, tmp_path: Path
    ) -> None:
        assert kept.submit(die_once, str(tmp_path / "marker")).result() == "done"

    def test_a_column_survives_a_worker_killed_meanwhile(self, kept: RayExecutor) -> None:
        points, scalar = PortableEngine().hash_to_curve(random_rows(4, 20_000)), bytes(range(32))
        victims = {kept.submit(os.getpid).result() for _ in range(20)}
        killer = threading.Timer(0.2, lambda: [os.kill(one, signal.SIGKILL) for one in victims])
        killer.start()
        engine = DistributedEngine(kept, EngineKind.PORTABLE, chunk_points=1_000)
        assert np.array_equal(
            engine.multiply(points, scalar), PortableEngine().multiply(points, scalar)
        )
        assert killer.finished.is_set()


class TestWithoutAClusterToBeHad:
    def test_ray_that_is_not_installed_is_told_with_the_remedy(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "find_spec", lambda _: None)
        with pytest.raises(WorkerError, match="install the extra `scale`"):
            RayExecutor()

    @pytest.mark.parametrize(
        "fields",
        [{"count": 0}, {"retries": -1}, {"address": "head:6379", "count": 2}],
        ids=str,
    )
    def test_numbers_out_of_range_are_refused(self, fields: dict[str, Any]) -> None:
        with pytest.raises(InvalidParameterError):
            RayExecutor(**fields)

    @needs_ray
    @pytest.mark.slow
    def test_an_address_at_which_there_is_nothing_is_told(self) -> None:
        refused = join("127.0.0.1:9", RAY_py_gcs_connect_timeout_s="1")
        assert refused.returncode != 0
        assert "no Ray cluster at 127.0.0.1:9: see that it runs" in refused.stderr
