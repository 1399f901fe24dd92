"""A process that forks another for each message, with everything loaded that a message may need.

```
 node ──────────── control ──────────── zygote ── fork ──┐
   └──────────── a pair of sockets per message ──────── worker
```

Guarantees: a worker has one message, its own memory, and no thread, socket or key of the node's
line to the SuperLink; what it breaks ends with it, and so does all that it started. Zygote and
workers end with the node. The sockets have no name, so nobody else can take a worker's place. The
zygote forks only while it has a single thread.

Leaves to others: what a worker does (`launchers`), and where messages come from (`superlink`).
"""

import atexit
import gc
import os
import signal
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from select import select
from socket import recv_fds, send_fds, socket, socketpair
from typing import Final, NoReturn, Self

from federation.errors import FederationError

__all__ = ["WorkerEndedError", "Zygote", "set_environment"]

_COUNT: Final = struct.Struct("!Q")
_STATUS: Final = struct.Struct("!i")
_PIECE_BYTES: Final = 1 << 20
_FORK: Final = b"\x00"
_ENVIRONMENT: Final = {
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "OPENBLAS_NUM_THREADS": "1",
}
_GONE: Final = "the process that starts workers has ended: start the node again"

Work = Callable[[Sequence[bytes]], Sequence[bytes]]
"""What a worker does with the rows of bytes that it is given."""


def set_environment() -> None:
    """Have libraries that are not loaded yet start no thread, and Flower call nobody."""
    os.environ |= _ENVIRONMENT


class WorkerEndedError(Exception):
    """A worker ended before it had answered."""


class Zygote:
    """The node's end of the line to a zygote."""

    def __init__(self, control: socket) -> None:
        self._control = control
        self._at_work = False

    @classmethod
    @contextmanager
    def started(cls, work: Work, *, prepare: Callable[[], None]) -> Iterator[Self]:
        """Fork a zygote for the length of the block; call it before any thread exists.

        Args:
            work: what each worker does.
            prepare: called once in the zygote; all workers inherit what it leaves in memory.

        Raises:
            RuntimeError: there are other threads; see `set_environment`.
        """
        _check_single_thread()
        ours, theirs = socketpair()
        sys.stdout.flush()
        sys.stderr.flush()
        process = os.fork()
        if process == 0:
            ours.close()
            _serve(theirs, work, prepare)
        theirs.close()
        try:
            yield cls(ours)
        finally:
            ours.close()
            os.waitpid(process, 0)

    def ask(self, rows: Sequence[bytes]) -> Sequence[bytes]:
        """Have a new worker do its work on rows of bytes; return its own rows.

        Raises:
            WorkerEndedError: it ended before that, and how.
            FederationError: the zygote itself has ended.
        """
        self._wait()
        ours, theirs = socketpair()
        with ours:
            try:
                with theirs:
                    send_fds(self._control, [_FORK], [theirs.fileno()])
            except OSError as error:
                raise FederationError(_GONE) from error
            self._at_work = True
            try:
                _send(ours, rows)
                return _receive(ours)
            except (EOFError, OSError):
                raise WorkerEndedError(self._wait()) from None

    def _wait(self) -> str:
        """Wait until the last worker has ended and its memory is free; return how it ended."""
        if not self._at_work:
            return "before it began"
        try:
            status = self._control.recv(_STATUS.size)
        except OSError as error:  # it ended before it had read all
            raise FederationError(_GONE) from error
        if not status:
            raise FederationError(_GONE)
        self._at_work = False
        (code,) = _STATUS.unpack(status)
        return f"by signal {-code}" if code < 0 else f"with {code}"


def _check_single_thread() -> None:
    """Return only if this process may fork: what another thread holds locked would stay locked.

    Raises:
        RuntimeError: there are other threads.
    """
    tasks = Path("/proc/self/task")
    if tasks.is_dir() and (count := len(list(tasks.iterdir()))) != 1:
        raise RuntimeError(f"expected a single thread where workers are forked, got {count}")


def _serve(control: socket, work: Work, prepare: Callable[[], None]) -> NoReturn:
    """Be the zygote until the node is gone."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's goes to the node as well
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        atexit._clear()  # noqa: SLF001 -- what was registered so far is the node's own
        prepare()
        gc.collect()
        gc.freeze()  # so that a worker's collector does not touch, and thereby copy, what is shared
        _fork_workers(control, work)
        code = 0
    except OSError:  # the node is gone
        code = 0
    except BaseException as error:  # noqa: BLE001 -- there is nobody above
        _complain(error)
    finally:
        os._exit(code)


def _fork_workers(control: socket, work: Work) -> None:
    """Fork a worker for each socket that the node sends.

    1. Fork; the worker leads a group of processes, for all that it may start.
    2. Wait for the worker's end, or for the node's, which is also the worker's.
    3. End whoever is left of its group; say how it ended.
    """
    while True:
        wanted, descriptors, _, _ = recv_fds(control, len(_FORK), 1)
        if not wanted:
            return
        _check_single_thread()
        alive, held = os.pipe()
        worker = os.fork()  # 1
        if worker == 0:
            control.close()
            os.close(alive)
            _be_worker(socket(fileno=descriptors[0]), work)
        with suppress(OSError):  # whichever of the two comes first
            os.setpgid(worker, worker)
        os.close(descriptors[0])
        os.close(held)
        select([alive, control.fileno()], [], [])  # 2
        with suppress(ProcessLookupError):
            os.killpg(worker, signal.SIGKILL)  # 3
        os.close(alive)
        _, status = os.waitpid(worker, 0)
        control.sendall(_STATUS.pack(os.waitstatus_to_exitcode(status)))


def _be_worker(node: socket, work: Work) -> NoReturn:
    """Do the work on what the node sends, hand it back, and end."""
    code = 1
    try:
        with suppress(OSError):
            os.setpgid(0, 0)
        answer = work(_receive(node))
        _send(node, answer)
        atexit._run_exitfuncs()  # noqa: SLF001 -- what the work itself has registered
        code = 0
    except BaseException as error:  # noqa: BLE001 -- there is nobody above
        _complain(error)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _complain(error: BaseException) -> None:
    """Say what kind of error it was: its text may hold data."""
    sys.stderr.write(f"a process of the node's workers ended by {type(error).__name__}\n")


def _send(to: socket, rows: Sequence[bytes]) -> None:
    to.sendall(_COUNT.pack(len(rows)))
    for row in rows:
        to.sendall(_COUNT.pack(len(row)))
        to.sendall(row)


def _receive(source: socket) -> list[bytes]:
    """Return rows of bytes as they were sent.

    Raises:
        EOFError: the other end is gone.
    """
    (count,) = _COUNT.unpack(_take(source, _COUNT.size))
    return [
        bytes(_take(source, _COUNT.unpack(_take(source, _COUNT.size))[0])) for _ in range(count)
    ]


def _take(source: socket, size: int) -> bytearray:
    content = bytearray(size)
    view, got = memoryview(content), 0
    while got < size:
        count = source.recv_into(view[got : got + _PIECE_BYTES])
        if not count:
            raise EOFError
        got += count
    return content
