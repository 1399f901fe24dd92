"""The engine on an executor: the same bytes as the local one, and what happens when workers fail."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest
from engine_contract import CURVE_POINTS, TWIST_POINTS, CurveEngineContract, random_rows

from privacy.errors import InvalidParameterError, PeerMessageError, WorkerError
from privacy.psi import CurveEngine, PortableEngine, engines
from privacy.psi import distributed as module
from privacy.psi.distributed import DistributedEngine
from privacy.psi.engines import EngineKind, choose_engine

SCALAR = random_rows(11, 1).tobytes()
TOKENS = random_rows(12, 1_000, 33)
LOCAL = PortableEngine()
POINTS = LOCAL.hash_to_curve(TOKENS)


def processes() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(2, mp_context=get_context("spawn"))


@pytest.fixture(scope="module")
def threads() -> Iterator[Executor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture(scope="module", params=[ThreadPoolExecutor, processes], ids=["threads", "spawned"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    with request.param() as pool:
        yield pool


class TestContract(CurveEngineContract):
    @pytest.fixture(params=[None, EngineKind.PORTABLE], ids=["fastest", "portable"])
    def make(
        self, executor: Executor, request: pytest.FixtureRequest
    ) -> Callable[..., CurveEngine]:
        def make(**fields: Any) -> CurveEngine:
            return DistributedEngine(executor, request.param, chunk_points=3, **fields)

        return make


class Meddling(Executor):
    """Hands calls on, one way or another."""

    def __init__(self, inner: Executor, before: Callable[[int], object]) -> None:
        self.inner, self.before = inner, before
        self.futures: list[Future[Any]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        number = len(self.futures)

        def call() -> Any:
            self.before(number)
            return fn(*args, **kwargs)

        self.futures.append(self.inner.submit(call))
        return self.futures[-1]


class TestTheSameBytes:
    @pytest.mark.parametrize("chunk_points", [1_000, 999, 128, 1_001])
    def test_as_the_local_engine_however_they_are_cut(
        self, executor: Executor, chunk_points: int
    ) -> None:
        engine = DistributedEngine(executor, chunk_points=chunk_points)
        assert engine.hash_to_curve(TOKENS).tobytes() == POINTS.tobytes()
        products = LOCAL.multiply(POINTS, SCALAR)
        assert engine.multiply(POINTS, SCALAR).tobytes() == products.tobytes()
        assert choose_engine(2**20).multiply(POINTS, SCALAR).tobytes() == products.tobytes()
        engine.check_on_curve(POINTS)

    def test_also_when_the_first_chunks_are_the_last_to_be_done(self, threads: Executor) -> None:
        slow = Meddling(threads, lambda number: time.sleep(0.2 if number == 0 else 0))
        engine = DistributedEngine(slow, chunk_points=100)
        assert np.array_equal(engine.hash_to_curve(TOKENS), POINTS)

    @pytest.mark.parametrize("position", [0, 99, 100, 999])
    def test_a_point_of_the_twist_is_found_in_any_chunk(
        self, executor: Executor, position: int
    ) -> None:
        points = POINTS.copy()
        points[position] = TWIST_POINTS[0]
        with pytest.raises(PeerMessageError, match="twist"):
            DistributedEngine(executor, chunk_points=100).check_on_curve(points)


class TestWorkInFlight:
    def test_is_bounded_and_fills_its_bound(self, threads: Executor) -> None:
        open_at_a_time = []

        def count(_: int) -> None:
            time.sleep(0.01)
            open_at_a_time.append(sum(not future.done() for future in meddling.futures))

        meddling = Meddling(threads, count)
        engine = DistributedEngine(meddling, chunk_points=25, most_in_flight=3)
        assert np.array_equal(engine.hash_to_curve(TOKENS), POINTS)
        assert len(meddling.futures) == 40
        assert max(open_at_a_time) == 3

    def test_is_told_of_by_the_callers_own_thread(self, threads: Executor) -> None:
        told: list[tuple[str, int, int]] = []
        callers = set()

        def listen(*progress: Any) -> None:
            told.append(progress)
            callers.add(threading.get_ident())

        engine = DistributedEngine(threads, chunk_points=300, most_in_flight=1, progress=listen)
        engine.multiply(POINTS, SCALAR)
        engine.check_on_curve(POINTS)
        for operation in ("multiplies points", "checks points"):
            steps = [(done, total) for said, done, total in told if said == operation]
            assert steps == [(done, 1_000) for done in (300, 600, 900, 1_000)]
        assert callers == {threading.get_ident()}

    def test_is_given_up_after_a_failure(self) -> None:
        points = POINTS.copy()
        points[0] = TWIST_POINTS[0]
        with ThreadPoolExecutor(1) as pool:
            slow = Meddling(pool, lambda _: time.sleep(0.05))
            with pytest.raises(PeerMessageError):
                DistributedEngine(slow, chunk_points=50).check_on_curve(points)
        assert len(slow.futures) < 20
        assert sum(future.cancelled() for future in slow.futures) > 10

    def test_makes_an_engine_once_in_a_process(self, threads: Executor) -> None:
        module._engine.cache_clear()
        engines._faults.cache_clear()  # testing takes long enough for the others to come along
        DistributedEngine(threads, chunk_points=20).hash_to_curve(TOKENS)
        assert module._engine.cache_info().misses == 1


class TestFailingWorkers:
    def test_a_killed_one_is_told_with_the_remedy(self) -> None:
        with processes() as pool:
            victims = {pool.submit(os.getpid).result() for _ in range(20)}
            for victim in victims:  # so that no chunk is done before the end
                os.kill(victim, signal.SIGSTOP)
            killer = threading.Timer(0.3, lambda: [os.kill(one, signal.SIGKILL) for one in victims])
            killer.start()
            engine = DistributedEngine(pool, chunk_points=100)
            with pytest.raises(WorkerError, match=r"a worker ended.* run again"):
                engine.multiply(POINTS, SCALAR)
            with pytest.raises(WorkerError, match="a worker ended"):  # the pool stays broken
                engine.multiply(POINTS, SCALAR)

    def test_one_that_cannot_take_the_call_is_told_without_the_words_of_its_error(
        self, threads: Executor
    ) -> None:
        def fail(number: int) -> None:
            if number == 3:
                raise MemoryError("held 0123456789abcdef")

        engine = DistributedEngine(Meddling(threads, fail), chunk_points=100)
        with pytest.raises(WorkerError, match="failed with MemoryError") as caught:
            engine.hash_to_curve(TOKENS)
        assert "0123" not in str(caught.value)
        assert isinstance(caught.value.__cause__, MemoryError)

    def test_calls_that_were_cancelled_elsewhere_are_told(self) -> None:
        with ThreadPoolExecutor(1) as pool:
            slow = Meddling(pool, lambda _: time.sleep(0.1))
            ending = threading.Timer(0.05, lambda: pool.shutdown(wait=False, cancel_futures=True))
            ending.start()
            with pytest.raises(WorkerError, match="a worker ended"):
                DistributedEngine(slow, chunk_points=500).hash_to_curve(TOKENS)

    @pytest.mark.parametrize("cut", [slice(1), slice(99)])
    def test_an_answer_of_another_shape_is_refused(self, threads: Executor, cut: slice) -> None:
        class Cutting(Executor):
            def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
                return threads.submit(lambda: fn(*args)[cut])

        with pytest.raises(WorkerError, match=r"expected .* \(100, 32\)"):
            DistributedEngine(Cutting(), chunk_points=100).hash_to_curve(TOKENS)

    def test_an_answer_of_another_type_is_refused(self, threads: Executor) -> None:
        class Widening(Executor):
            def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
                return threads.submit(lambda: fn(*args).astype(np.uint16))

        with pytest.raises(WorkerError, match="uint16"):
            DistributedEngine(Widening()).hash_to_curve(TOKENS)

    def test_what_a_worker_finds_wrong_with_the_call_keeps_its_type(
        self, executor: Executor
    ) -> None:
        kind = next(iter(set(EngineKind) - {EngineKind.PORTABLE}))
        with pytest.raises(InvalidParameterError):
            DistributedEngine(executor, kind).multiply(POINTS[:, :31], SCALAR)

    def test_an_executor_that_was_shut_down_is_a_mistake_of_ours(self) -> None:
        pool = ThreadPoolExecutor(1)
        pool.shutdown()
        with pytest.raises(RuntimeError, match="after shutdown"):
            DistributedEngine(pool).hash_to_curve(TOKENS)


class TestFields:
    @pytest.mark.parametrize(
        "fields",
        [{"chunk_points": 0}, {"most_in_flight": 0}, {"domain": b""}, {"domain": bytes(256)}],
        ids=str,
    )
    def test_out_of_range_are_refused(self, threads: Executor, fields: dict[str, Any]) -> None:
        with pytest.raises(InvalidParameterError):
            DistributedEngine(threads, **fields)

    def test_a_scalar_of_another_length_is_refused_before_anybody_works(
        self, threads: Executor
    ) -> None:
        with pytest.raises(InvalidParameterError, match="got 31"):
            DistributedEngine(threads).multiply(CURVE_POINTS[:0], bytes(31))

    def test_the_scalar_is_in_no_representation(self) -> None:
        task = module._Task(module._Operation.MULTIPLY, None, b"d", SCALAR)
        assert repr(SCALAR) not in repr(task)

    def test_the_name_tells_the_workers_engine_and_the_executor(self, threads: Executor) -> None:
        assert DistributedEngine(threads, EngineKind.AVX2).name == "avx2 on ThreadPoolExecutor"
        assert DistributedEngine(threads).name == "each worker’s fastest on ThreadPoolExecutor"
