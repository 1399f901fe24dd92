"""A Ray cluster behind the interface of `concurrent.futures.Executor`.

Guarantees: `submit`, `map` and `shutdown` do what the base class says, exceptions and cancelling
included; a call that Ray could not finish ends in `BrokenRayError`, which is a `BrokenExecutor`.
Nothing is reported to Ray's makers, no dashboard is started and nothing is installed at a worker. A
cluster started here listens on the loopback address alone, asks for a token that only its own
processes know, keeps its sockets where only their owner may enter, and writes no arguments to disk.

Leaves to others: protecting a cluster that is joined. Whoever reaches one can run code in it and
read what passes, unless it is alone in its network or was started with Ray's token authentication
and TLS (`RAY_AUTH_MODE`, `RAY_USE_TLS`); the same version of this project must be installed at
every worker.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from threading import Lock, Thread
from typing import Any, Final, ParamSpec, TypeVar

from privacy.errors import InvalidParameterError, WorkerError
from privacy.randomness import new_secret

__all__ = ["BrokenRayError", "RayExecutor"]

_LOOPBACK: Final = "127.0.0.1"
_QUEUED: Final = 2  # calls a worker: one that it runs, and one that is on its way meanwhile
_ALWAYS: Final = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
# Ray knows no clusters on Windows and macOS, and there binds to loopback: elsewhere too, if told.
_LOCAL: Final = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}

_JOINED: Final = {"RAY_NUM_REDIS_GET_RETRIES": "1"}  # 37 seconds; a cluster is there, or is not

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class BrokenRayError(BrokenExecutor):
    """Ray could not finish a call: its worker, or the cluster, ended."""


class RayExecutor(Executor):
    """Runs calls on a Ray cluster; a process has one at a time.

    A future that is running cannot be cancelled, as the base class says; one that waits for its
    turn can. Functions, arguments, results and exceptions are pickled.
    """

    def __init__(
        self, address: str | None = None, *, count: int | None = None, retries: int = 0
    ) -> None:
        """Join a cluster, or start one on this machine.

        Args:
            address: host:port of a cluster that this machine belongs to; one is started where
                left out.
            count: workers of a cluster started here, at least 1; as many as there are processors
                where left out. A cluster that is joined has those that it has.
            retries: how often a call is repeated elsewhere whose worker ended, 0 or more; more
                than 0 for calls that bear being repeated.

        Raises:
            InvalidParameterError: a number is out of range, or `count` is given for a cluster that
                is joined.
            WorkerError: Ray is not installed, or there is no cluster to be had.
        """
        if (count is not None and count < 1) or retries < 0 or (address and count):
            raise InvalidParameterError(
                "expected at least 1 worker, 0 or more retries, and no number of workers with an "
                f"address, got {count}, {retries} and {address}"
            )
        self._directory: Path | None = None
        self._lock, self._connected = Lock(), False
        self._ray = _prepared(local=address is None)
        try:
            self._workers = self._join(address) if address else self._start(count)
        except BaseException:
            self._leave()
            raise
        self._task = self._ray.remote(_call).options(num_cpus=1, max_retries=retries)
        self._threads = ThreadPoolExecutor(_QUEUED * self._workers, thread_name_prefix="ray")

    @property
    def count(self) -> int:
        """Workers that there were at the start."""
        return self._workers

    def submit(
        self,
        fn: Callable[_Parameters, _Result],
        /,
        *args: _Parameters.args,
        **kwargs: _Parameters.kwargs,
    ) -> Future[_Result]:
        """Have `fn(*args, **kwargs)` called by a worker.

        Raises:
            RuntimeError: after `shutdown`.
        """
        return self._threads.submit(self._run, fn, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and leave the cluster, or end it, when those under way have ended."""
        self._threads.shutdown(wait=False, cancel_futures=cancel_futures)
        if wait:
            self._leave_when_done()
        else:
            Thread(target=self._leave_when_done, name="ray shutdown").start()

    def _run(
        self, function: Callable[..., _Result], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> _Result:
        from ray.exceptions import RayError, RayTaskError

        try:
            result: _Result = self._ray.get(self._task.remote(function, args, kwargs))
        except RayTaskError as error:
            raise error.cause from error
        except RayError as error:
            raise BrokenRayError(f"Ray lost a call: {type(error).__name__}") from error
        return result

    def _start(self, count: int | None) -> int:
        workers = count or len(os.sched_getaffinity(0))
        # Ray opens its directory to everybody; the one around it stays closed.
        self._directory = Path(tempfile.mkdtemp(prefix="comity-"))
        self._initialise(
            address="local",
            num_cpus=workers,
            include_dashboard=False,
            _node_ip_address=_LOOPBACK,
            _temp_dir=str(self._directory / "ray"),
            _system_config={"automatic_object_spilling_enabled": False},
        )
        if self._ray.util.get_node_ip_address() != _LOOPBACK:
            raise WorkerError(
                "Ray was imported before and would listen on every address: start it in a process "
                "of its own"
            )
        return workers

    def _join(self, address: str) -> int:
        self._initialise(address=address)
        if not (workers := int(self._ray.cluster_resources().get("CPU", 0))):
            raise WorkerError(f"the Ray cluster at {address} has no processors: add machines to it")
        return workers

    def _initialise(self, **settings: Any) -> None:
        if self._ray.is_initialized():
            raise WorkerError(
                "this process belongs to a Ray cluster already: give all parties that run in one "
                "process the same workers"
            )
        from ray.exceptions import RayError

        self._connected = True
        try:
            self._ray.init(**settings, log_to_driver=False, configure_logging=False)
        except (RayError, OSError, RuntimeError, ValueError) as error:
            raise WorkerError(
                f"no Ray cluster at {settings['address']}: see that it runs, that this machine "
                f"belongs to it and has its token ({type(error).__name__})"
            ) from error

    def _leave_when_done(self) -> None:
        self._threads.shutdown()
        self._leave()

    def _leave(self) -> None:
        with self._lock:
            if self._connected:
                self._connected = False
                self._ray.shutdown()
            if self._directory is not None:
                shutil.rmtree(self._directory, ignore_errors=True)


def _call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    return function(*args, **kwargs)


def _prepared(*, local: bool) -> Any:
    """Return Ray, which reads its settings from the environment when it is imported."""
    if find_spec("ray") is None:
        raise WorkerError(
            "Ray is not installed: install the extra `scale`, or choose threads or processes"
        )
    os.environ.update(_ALWAYS)
    os.environ.update(_LOCAL if local else _JOINED)
    if local:
        os.environ.setdefault("RAY_AUTH_TOKEN", new_secret().hex())
    import ray

    return ray
