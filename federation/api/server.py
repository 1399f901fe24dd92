"""A party's API at work: it listens, and has the log told.

Guarantees: one process serves a party at a time; when it is stopped, requests at work are answered
first. The log is told of the code that it began with.

Leaves to others: transport security (it listens on loopback: put a reverse proxy before it), what
is answered (`application`).
"""

import fcntl
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from federation.api.application import create_application
from federation.api.configuration import ApiConfig
from federation.api.telling import Teller
from federation.clock import Clock, utc_now
from federation.code import running_code
from federation.errors import WorkspaceError

__all__ = ["make_server", "serve"]


class _Server(uvicorn.Server):
    """A server that says when it listens, and at which port."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[int], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[Any] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            self._ready(self.servers[0].sockets[0].getsockname()[1])


def _nobody_asked(_port: int) -> None:
    return


def make_server(
    directory: Path,
    config: ApiConfig,
    teller: Teller,
    *,
    clock: Clock = utc_now,
    ready: Callable[[int], None] = _nobody_asked,
) -> uvicorn.Server:
    """Return a server of a party's API, which listens once it is run, and says at which port."""
    running_code()  # before anything can be put in its place
    app = create_application(directory, config, said=teller.want, clock=clock)
    return _Server(
        uvicorn.Config(
            app,
            host=config.host,
            port=config.port,
            access_log=False,  # it would tell paths as they were asked: see `passage`
            log_config=None,
            server_header=False,
            lifespan="off",
            ws="none",
            timeout_keep_alive=5,
            timeout_graceful_shutdown=10,
        ),
        ready,
    )


def serve(
    directory: Path, config: ApiConfig, *, ready: Callable[[int], None] = _nobody_asked
) -> None:
    """Serve until interrupted.

    Args:
        directory: the party's folder.
        config: where to listen, and what to allow.
        ready: told the port, once the folder and the address are held.

    Raises:
        WorkspaceError: another process serves the party, or the address cannot be had.
    """
    with _logged(), _alone(directory), Teller(directory, clock=utc_now) as teller:
        server = make_server(directory, config, teller, ready=ready)
        try:
            server.run()
        except SystemExit as error:  # how uvicorn says that it could not listen
            raise WorkspaceError(
                f"cannot listen at {config.host}:{config.port}: name another port, or another host"
            ) from error


@contextmanager
def _logged() -> Iterator[None]:
    """Write what the API logs to the console."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger = logging.getLogger("comity.api")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    path = directory / "api" / "lock"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("w", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WorkspaceError(f"another process serves {directory}: stop it first") from error
        yield
