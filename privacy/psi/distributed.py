"""The engine that lets other threads, processes or machines of the same party do its arithmetic.

Guarantees: the same bytes as the local engines, in the same order, whichever worker answers first;
no more chunks under way than stated, so that memory does not grow with the column. A worker builds
its engine once for each process and tests generated code before using it (`engines`). What a
worker finds wrong with a call or with a peer's points is raised here as it was there; whatever
else goes wrong with a worker is a `WorkerError`, after which nothing of the column is used.

Leaves to others: the workers themselves, which are any `concurrent.futures.Executor`. The scalar
and the tokens travel to them in clear: they must be the party's own machines, and the channel to
them is the party's to protect.
"""

from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from itertools import islice
from queue import SimpleQueue
from threading import Lock
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError, PrivacyError, WorkerError
from privacy.psi.engine import CurveEngine, Points, check_domain
from privacy.psi.engines import GENERATION_PAYS_FROM, EngineKind, choose_engine
from privacy.psi.field import ELEMENT_BYTES
from privacy.psi.portable import DOMAIN, PortableEngine

if TYPE_CHECKING:
    from privacy.psi.vector.engine import VectorEngine

__all__ = ["DistributedEngine"]

_LOCK = Lock()


class _Operation(StrEnum):
    HASH = "hashes to the curve"
    MULTIPLY = "multiplies points"
    CHECK = "checks points"


@dataclass(frozen=True)
class _Task:
    """What a worker is to do with a chunk."""

    operation: _Operation
    kind: EngineKind | None
    domain: bytes
    scalar: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class DistributedEngine:
    """`CurveEngine` on an executor.

    Attributes:
        executor: where chunks are worked on; it is neither started nor shut down here.
        kind: the engine of every worker; each takes its fastest where left open.
        chunk_points: rows that a worker takes at a time, at least 1. A chunk of 8,192 keeps one
            core busy for 40 (AVX-512 IFMA) to 300 milliseconds (libsodium).
        most_in_flight: chunks under way at a time, at least 1; more than there are workers, or
            some are idle between two chunks.
        domain: domain separation tag, 1 to 255 bytes.
        progress: told (operation, points done, points in all) as work goes on, by the caller's
            own thread.

    Raises:
        InvalidParameterError: if one of them is out of range, or a worker cannot run `kind`.
        WorkerError: if a worker ended, failed, or answered with something else than points.
    """

    executor: Executor
    kind: EngineKind | None = None
    chunk_points: int = 8_192
    most_in_flight: int = 16
    domain: bytes = DOMAIN
    progress: Callable[[str, int, int], None] | None = None

    def __post_init__(self) -> None:
        if self.chunk_points < 1 or self.most_in_flight < 1:
            raise InvalidParameterError(
                "expected at least 1 point in a chunk and 1 chunk in flight, got "
                f"{self.chunk_points} and {self.most_in_flight}"
            )
        check_domain(self.domain)

    @property
    def name(self) -> str:
        """What reports call the engine."""
        return f"{self.kind or 'each worker’s fastest'} on {type(self.executor).__name__}"

    def hash_to_curve(self, tokens: NDArray[np.uint8]) -> Points:
        """Hash (n, k) tokens to n points of the subgroup of prime order."""
        return self._in_chunks(_Task(_Operation.HASH, self.kind, self.domain), tokens)

    def multiply(self, points: Points, scalar: bytes) -> Points:
        """Multiply each point by one clamped scalar of 32 bytes (X25519)."""
        if len(scalar) != ELEMENT_BYTES:
            raise InvalidParameterError(
                f"expected a scalar of {ELEMENT_BYTES} bytes, got {len(scalar)}"
            )
        return self._in_chunks(_Task(_Operation.MULTIPLY, self.kind, self.domain, scalar), points)

    def check_on_curve(self, points: Points) -> None:
        """Refuse points of the twist."""
        self._in_chunks(_Task(_Operation.CHECK, self.kind, self.domain), points)

    def _in_chunks(self, task: _Task, rows: NDArray[np.uint8]) -> Points:
        """Have every chunk worked on, and put each answer where its rows stood."""
        writes = task.operation is not _Operation.CHECK
        results = np.empty((len(rows) if writes else 0, ELEMENT_BYTES), dtype=np.uint8)
        starts = iter(range(0, len(rows), self.chunk_points))
        pending: dict[Future[Points], int] = {}
        ended: SimpleQueue[Future[Points]] = SimpleQueue()
        done = 0
        try:
            while True:
                for start in islice(starts, self.most_in_flight - len(pending)):
                    future = self._submit(task, rows[start : start + self.chunk_points])
                    pending[future] = start
                    # A shutdown that cancels what is queued calls back, but ends no `wait`.
                    future.add_done_callback(ended.put)
                if not pending:
                    return results
                future = ended.get()
                start = pending.pop(future)
                to = results[start : start + self.chunk_points]
                to[:] = _answer(future, expected=to.shape)
                done += min(self.chunk_points, len(rows) - start)
                if self.progress is not None:
                    self.progress(task.operation, done, len(rows))
        finally:
            for future in pending:
                future.cancel()

    def _submit(self, task: _Task, chunk: NDArray[np.uint8]) -> Future[Points]:
        try:
            return self.executor.submit(_work, task, chunk)
        except BrokenExecutor as error:
            raise WorkerError(_ENDED) from error


_ENDED = (
    "a worker ended before it answered: see whether it was killed or ran out of memory, and run "
    "again, which goes on where this stopped"
)


def _answer(future: Future[Points], *, expected: tuple[int, ...]) -> Points:
    try:
        answer = future.result()
    except PrivacyError:
        raise
    except (BrokenExecutor, CancelledError) as error:
        raise WorkerError(_ENDED) from error
    except Exception as error:
        raise WorkerError(
            f"a worker failed with {type(error).__name__}: install the same version of this "
            "project at every worker, and run again"
        ) from error
    if answer.dtype != np.uint8 or answer.shape != expected:
        raise WorkerError(
            f"expected a worker to answer with uint8 of shape {expected}, got {answer.dtype} of "
            f"shape {answer.shape}: install the same version of this project at every worker"
        )
    return answer


def _work(task: _Task, rows: NDArray[np.uint8]) -> Points:
    """Do what a task says; runs at the worker."""
    with _LOCK:
        engine = _engine(task.kind, task.domain)
    match task.operation:
        case _Operation.HASH:
            return engine.hash_to_curve(rows)
        case _Operation.MULTIPLY:
            return engine.multiply(rows, task.scalar)
        case _Operation.CHECK:
            engine.check_on_curve(rows)
            return rows[:0, :ELEMENT_BYTES]


@cache
def _engine(kind: EngineKind | None, domain: bytes) -> CurveEngine:
    """Return this process's engine: tested, with a single thread, as there are many workers."""
    engine = choose_engine(GENERATION_PAYS_FROM, workers=1, wanted=kind)
    if isinstance(engine, PortableEngine):
        return PortableEngine(workers=1, domain=domain)
    from privacy.psi.vector.engine import VectorEngine

    return VectorEngine(cast("VectorEngine", engine).instruction_set, workers=1, domain=domain)
