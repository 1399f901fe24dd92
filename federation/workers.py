"""Who does a party's arithmetic: threads, processes of one machine, or machines of a Ray cluster.

Guarantees: whoever does it, the same bytes. Processes and clusters are started at first use and
kept for as long as this process runs; processes that broke are replaced at the next use.

Leaves to others: cutting and collecting the work (`privacy.psi.distributed`). Multiprocessing
and Ray are imported by those who use them.
"""

import atexit
import os
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from enum import StrEnum
from functools import cache
from threading import Lock
from typing import Annotated, Final, ParamSpec, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from federation.ray_executor import RayExecutor
from privacy.psi.buckets import BUCKET_POINTS
from privacy.psi.distributed import DistributedEngine
from privacy.psi.engine import CurveEngine
from privacy.psi.engines import GENERATION_PAYS_FROM, EngineKind, choose_engine

__all__ = ["RenewedProcesses", "WorkerKind", "WorkersConfig", "engine_for"]

_LEAST_POINTS: Final = 3_072  # Ray sends less than 100 kB along with a call, and stores the rest
_MOST_POINTS: Final = 16_384
_RETRIES: Final = 2  # arithmetic bears being repeated
_IN_FLIGHT: Final = 3  # chunks a worker: at work, on its way there, on its way back

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


Address = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9.-]{1,253}:[0-9]{1,5}$",
        description="host:port in quotes, such as 'head.internal:6379'",
    ),
]
"""Where a Ray cluster listens."""


class WorkerKind(StrEnum):
    """What a worker is."""

    THREADS = "threads"
    PROCESSES = "processes"
    RAY = "ray"


class WorkersConfig(BaseModel):
    """Who does a party's arithmetic.

    Attributes:
        kind: what a worker is.
        count: how many; as many as there are processors where left out. A cluster with an address
            has those that it has.
        address: host:port of a Ray cluster that this machine belongs to; one is started on this
            machine alone where left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: WorkerKind
    count: Annotated[int, Field(ge=1, le=1_024)] | None = None
    address: Address | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.address is not None and self.kind is not WorkerKind.RAY:
            raise ValueError("only workers of kind 'ray' have an address; remove it")
        if self.address is not None and self.count is not None:
            raise ValueError("a cluster has the workers that it has; remove count or address")
        return self


def engine_for(
    config: WorkersConfig | None,
    points: int,
    *,
    progress: Callable[[str, int, int], None] | None = None,
) -> CurveEngine:
    """Return the engine that a party's workers make up.

    Args:
        config: the party's; the local engine with its two threads where left out.
        points: about how many multiplications there will be, 0 or more.
        progress: told (operation, points done, points in all) as work goes on.

    Raises:
        WorkerError: there is no Ray, or no such cluster.
    """
    if config is None:
        return choose_engine(points, progress=progress)
    if config.kind is WorkerKind.THREADS:
        return choose_engine(points, workers=config.count or _processors(), progress=progress)
    executor = _executor(config, os.getpid())
    pays = points >= GENERATION_PAYS_FROM * executor.count
    return DistributedEngine(
        executor,
        kind=None if pays else EngineKind.PORTABLE,
        chunk_points=_chunk_points(executor.count),
        most_in_flight=_IN_FLIGHT * executor.count,
        progress=progress,
    )


class RenewedProcesses(Executor):
    """A pool of processes that is made anew when one of them was killed.

    Processes are spawned, not forked: they hold nothing of this one's memory, its keys least of
    all. What was under way in a pool that breaks ends in `BrokenExecutor`.
    """

    def __init__(self, count: int) -> None:
        """Start nothing yet.

        Args:
            count: processes, at least 1.
        """
        self.count = count
        self._lock = Lock()
        self._pool = self._fresh()

    def submit(
        self,
        fn: Callable[_Parameters, _Result],
        /,
        *args: _Parameters.args,
        **kwargs: _Parameters.kwargs,
    ) -> Future[_Result]:
        """Have `fn(*args, **kwargs)` called in a process.

        Raises:
            RuntimeError: after `shutdown`.
        """
        with self._lock:
            try:
                return self._pool.submit(fn, *args, **kwargs)
            except BrokenExecutor:
                self._pool.shutdown(wait=False)
                self._pool = self._fresh()
                return self._pool.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; end the processes when those under way have ended."""
        self._pool.shutdown(wait, cancel_futures=cancel_futures)

    def _fresh(self) -> ProcessPoolExecutor:
        from multiprocessing import get_context

        return ProcessPoolExecutor(self.count, mp_context=get_context("spawn"))


@cache
def _executor(config: WorkersConfig, process: int) -> RenewedProcesses | RayExecutor:
    """Return the workers of this process; a forked one must not use its parent's."""
    del process
    executor = (
        RenewedProcesses(config.count or _processors())
        if config.kind is WorkerKind.PROCESSES
        else RayExecutor(config.address, count=config.count, retries=_RETRIES)
    )
    atexit.register(executor.shutdown)
    return executor


def _chunk_points(workers: int) -> int:
    """Return what lets every worker have two chunks of a bucket, but neither crumbs nor lumps."""
    return min(max(BUCKET_POINTS // (2 * workers), _LEAST_POINTS), _MOST_POINTS)


def _processors() -> int:
    return len(os.sched_getaffinity(0))
