"""`comity coordinator up`: a SuperLink behind two listeners, its executor, and the runs.

```
 parties ── TLS ──► public listener ──┐
                                      ├──► Flower's SuperLink ◄── dispatcher ◄── journal of runs
 operators ─ TLS ─► control listener ─┘          ▲
                         ▲                       │ task, under the executor's secret
                         └────────────── executor ──► ServerApp (a process for each run)
```

Guarantees: SIGTERM and SIGINT end it cleanly, with its executor and what that runs; a second one
over the same folder is refused; an executor that dies is started again; a process whose event loop
hangs ends (`alarm`). Flower's telemetry and update check are off, and nothing is installed.

Leaves to others: who may call what (`public_listener`, `control_listener`), states (`journal`).
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Final, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import LOGGING_CONFIG

from compliance.errors import ComplianceError
from federation.apps.control_listener import control_app
from federation.apps.operating.alarm import alarmed
from federation.apps.operating.allocator import (
    ALLOCATOR_ENVIRONMENT,
    collect,
    map_large_blocks,
    set_aside,
)
from federation.apps.operating.dispatcher import Dispatcher
from federation.apps.operating.flower import (
    FlowerNodes,
    FlowerObjects,
    FlowerRuns,
    begin_anew,
    read_node_key,
    superlink_app,
)
from federation.apps.operating.plain_output import PlainOutput, colour_terminals_alone
from federation.apps.operating.promptness import Prompt
from federation.apps.operating.pushes import Pushes
from federation.apps.operating.renewal import Renewal, warn_of_end
from federation.apps.operating.returning import Returning
from federation.apps.operating.riding import Riding
from federation.apps.operating.server import PromptConnection, QuietServer, counted
from federation.apps.operating.systemd import Standing, tell_systemd
from federation.apps.public_listener import public_app
from federation.apps.refusals import AuditFile, Refusals
from federation.clock import Clock, utc_now
from federation.errors import FederationError, WorkspaceError
from federation.observing.coordinator_view import metrics_app
from federation.observing.events import Event, Notice
from federation.observing.formats import LogFormat
from federation.operations.accounts import Accounts
from federation.operations.control_api import control_api
from federation.operations.folder import CoordinatorFolder, host_of, port_of
from federation.operations.journal import RunJournal
from federation.operations.refused_calls import RefusalTally
from federation.operations.registered_nodes import keep_registered
from privacy.randomness import new_secret

__all__ = ["check_scripts", "serve"]

_START_SECONDS: Final = 0.02
_LOOK_SECONDS: Final = 0.2
_NODES_SECONDS: Final = 1.0
_COLLECT_SECONDS: Final = 5.0
_RENEW_SECONDS: Final = 3600.0
_SCRIPTS: Final = ("flower-superexec", "flwr-serverapp")
_STOP_SECONDS: Final = 3
_ENROLMENT: Final = "/v1/enrolment"
_FLOWER_HOME: Final = "flower"
_REMAINS: Final = (
    *("superlink.sqlite", "superlink.sqlite-wal", "superlink.sqlite-shm"),
    *("superlink.sqlite-journal", "executor.secret"),
)
"""What earlier versions kept on disk, in clear."""
_CONNECTIONS: Final = 512
_WILD: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 -- recognised, not listened at

Tell = Callable[[str], None]


def serve(
    folder: CoordinatorFolder,
    *,
    tell: Tell,
    clock: Clock = utc_now,
    log_format: LogFormat = LogFormat.HUMAN,
) -> None:
    """Serve until SIGTERM or SIGINT.

    1. Refuse a folder that another process serves, a machine without Flower's commands, and a
       certificate that nobody would take.
    2. Draw the executor's secret. 3. Begin with an empty state of Flower's, and take the nodes.
    4. Stop what was at work when an earlier process died.
    5. Listen; start the executor once the control listener answers.
    6. Look after runs, nodes, the executor, the count of refusals and the certificate until told to
       end.

    Args:
        folder: the coordinator's.
        tell: told in one line what an operator wants to know.
        clock: tells when now is.
        log_format: where lines are JSON, nobody else writes to this process's output, but for the
            last words of one that hangs: the server's go to Python's log, and the executor's to
            `executor.log`, which begins anew with it.

    Raises:
        WorkspaceError: the folder is not as it must be, or is served already.
    """
    with folder.served():  # 1
        check_scripts(Path(sys.executable).parent)
        colour_terminals_alone()
        map_large_blocks()
        folder.renew(clock())
        folder.check_certificate(clock())
        warn_of_end(folder, tell, clock())
        secret = new_secret()  # 2
        _Service(folder, secret, tell=tell, clock=clock, log_format=log_format).run()


def check_scripts(binaries: Path) -> None:
    """Return only if the commands of Flower that the executor is made of lie in a folder.

    Raises:
        WorkspaceError: some are missing; says which.
    """
    if lacking := [name for name in _SCRIPTS if not (binaries / name).exists()]:
        raise WorkspaceError(
            f"{binaries} lacks {', '.join(lacking)}, by which Flower runs jobs: install "
            "'comity[coordinator]' there"
        )


class _Service:
    def __init__(
        self,
        folder: CoordinatorFolder,
        secret: bytes,
        *,
        tell: Tell,
        clock: Clock,
        log_format: LogFormat,
    ) -> None:
        self._folder = folder
        self._tell = tell
        self._is_quiet = log_format is LogFormat.JSON
        self._secret = secret
        begin_anew(folder.path / _FLOWER_HOME, (folder.path / name for name in _REMAINS))  # 3
        superlink = superlink_app(secret)
        self._nodes = FlowerNodes(superlink)
        self._refused_keys: frozenset[str] = frozenset()
        self._taken: frozenset[bytes] = frozenset()
        audit = AuditFile(folder.audit, clock=clock)
        self._dispatcher = Dispatcher(
            RunJournal(folder.runs, clock=clock),
            FlowerRuns(superlink),
            party=folder.party,
            deadline_seconds=folder.config.deadline_seconds,
            tell=tell,
            audit=audit.write,
        )
        self._executor: subprocess.Popen[bytes] | None = None
        self._ended_executor: subprocess.Popen[bytes] | None = None
        self._ending = asyncio.Event()
        self._broken: str | None = None
        self._refused = RefusalTally(folder, clock=clock)
        self._untold: str | None = None
        self._failed: dict[Callable[[], None], str] = {}
        accounts, riding = Accounts.of(folder), Riding(superlink, FlowerObjects(superlink))
        prompt = Prompt(Pushes(riding))
        public = public_app(prompt, _mounts(folder), ready=self._is_ready)
        control = control_app(
            prompt,
            control_api(folder),
            find_operator=lambda token: accounts.find(token, now=clock(), tell=tell),
            metrics=metrics_app(folder, contacts=self._nodes.contacts),
        )
        config = folder.config
        self._servers = (
            self._server(
                Refusals(control, listener="control", audit=audit, count=self._refused.count),
                config.control,
                begins=True,
            ),
            self._server(
                Refusals(
                    public,
                    listener="public",
                    audit=audit,
                    count=self._refused.count,
                    is_returning=Returning(lambda: self._taken, clock=clock),
                ),
                config.listen,
                begins=False,
            ),
        )
        listeners = [one.config.ssl for one in self._servers if one.config.ssl is not None]
        self._renewal = Renewal(folder, listeners, tell=tell, clock=clock)

    def run(self) -> None:
        """Serve until told to end."""
        self._reconcile_nodes()
        self._dispatcher.recover()  # 4
        asyncio.run(self._serve_alarmed())
        if self._broken is not None:
            raise WorkspaceError(self._broken)
        self._tell(Notice(Event.COORDINATOR_ENDED, "the coordinator has ended"))

    def _server(self, app: ASGIApp, address: str, *, begins: bool) -> QuietServer:
        with self._folder.readable_server_key() as (key, password):
            config = self._config(app, address, key, password, begins=begins)
            config.load()  # reads the key
        return counted(config, self._refused.count)

    def _config(
        self, app: ASGIApp, address: str, key: Path, password: str | None, *, begins: bool
    ) -> uvicorn.Config:
        return uvicorn.Config(
            app,
            host=host_of(address),
            port=port_of(address),
            http=PromptConnection,
            ws="none",
            lifespan="on" if begins else "off",  # the SuperLink begins and ends once
            ssl_certfile=str(self._folder.server_certificate),
            ssl_keyfile=str(key),
            ssl_keyfile_password=password,
            log_level="warning",
            log_config=None if self._is_quiet else LOGGING_CONFIG,
            access_log=False,
            proxy_headers=False,  # TLS ends here: nobody stands between who may say who calls
            server_header=False,
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=_STOP_SECONDS,
        )

    async def _serve_alarmed(self) -> None:
        async with alarmed():
            await self._serve()

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        for one in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(one, self._ending.set)
        serving = [asyncio.create_task(self._listen(server)) for server in self._servers]  # 5
        try:
            while not (self._has_started() or self._ending.is_set()):  # noqa: ASYNC110 -- it tells nobody
                await asyncio.sleep(_START_SECONDS)
            if not self._ending.is_set():
                where = f"{self._folder.config.listen}, operators at {self._folder.config.control}"
                words = f"the coordinator answers parties at {where}"
                self._tell(Notice(Event.COORDINATOR_LISTENS, words))
                tell_systemd(Standing.READY)
                await self._look_after()  # 6
        finally:
            tell_systemd(Standing.STOPPING)
            await asyncio.to_thread(self._stop_executor)  # it says good-bye to who still listens
            await self._attempt(self._dispatcher.end)
            for server in self._servers:
                server.should_exit = True
            await asyncio.gather(*serving)
            await asyncio.to_thread(self._tell_of_refusals, at_once=True)

    async def _listen(self, server: QuietServer) -> None:
        try:
            await server.serve()
        except SystemExit:  # by which uvicorn says that it cannot listen
            address = f"{server.config.host}:{server.config.port}"
            self._broken = f"cannot listen at {address}: choose another in coordinator.toml"
        self._ending.set()

    def _has_started(self) -> bool:
        return all(server.started for server in self._servers)

    async def _look_after(self) -> None:
        looks = 0
        every, collecting, renewing = (
            round(one / _LOOK_SECONDS) for one in (_NODES_SECONDS, _COLLECT_SECONDS, _RENEW_SECONDS)
        )
        set_aside()
        while not self._ending.is_set():
            if looks % every == 0:
                await self._attempt(self._keep_executor)
                await self._attempt(self._reconcile_nodes)
                await asyncio.to_thread(self._tell_of_refusals)
            await self._attempt(self._dispatcher.look)
            looks += 1
            if looks % collecting == 0:
                collect()
            await self._keep_certificate(is_time=looks % renewing == 0)
            try:
                await asyncio.wait_for(self._ending.wait(), _LOOK_SECONDS)
            except TimeoutError:
                continue

    async def _keep_certificate(self, *, is_time: bool) -> None:
        """Renew the certificate, now and then, and until that has been done."""
        issue, show = self._renewal.issue, self._renewal.show
        if is_time or issue in self._failed or show in self._failed:
            await self._attempt(issue)
            await self._attempt(show, here=True)

    async def _attempt(self, step: Callable[[], None], *, here: bool = False) -> None:
        """Take a step; what fails is told once, and is tried again at the next look.

        A full disk is no reason to hang up on all parties.

        Args:
            step: that is taken.
            here: in the loop's own thread, and no other.
        """
        try:
            if here:
                step()
            else:
                await asyncio.to_thread(step)
        except Exception as error:  # noqa: BLE001 -- whatever Flower raises where it cannot write
            told = f"{error}" if isinstance(error, FederationError) else type(error).__name__
            if self._failed.get(step) != told:
                self._tell(f"the coordinator cannot go on with its runs for now: {told}")
            self._failed[step] = told
        else:
            self._failed.pop(step, None)

    def _is_ready(self) -> bool:
        executor = self._executor
        if self._failed or self._ending.is_set():
            return False
        return executor is not None and executor.poll() is None

    def _reconcile_nodes(self) -> None:
        """Have the SuperLink take the nodes whose keys lie in the folder, and no others."""
        wanted, refused = {}, []
        for file in sorted(self._folder.nodes.glob("*.pub")):
            try:
                wanted[read_node_key(file)] = file.stem
            except WorkspaceError as error:
                refused.append(str(error))
        known = self._nodes.known()
        for key, node in known.items():
            if key not in wanted:
                self._nodes.unregister(node)
                words = f"node {node} is taken no longer: its key was removed"
                self._tell(Notice(Event.NODE_TAKEN_NO_LONGER, words, node=node))
        for key, name in wanted.items():
            if key not in known:
                try:
                    self._nodes.register(key, name)
                except ValueError:  # Flower takes a key once
                    refused.append(f"{name}'s key was removed before: give its node another")
                else:
                    self._tell(Notice(Event.NODE_TAKEN, f"{name}'s node may connect", party=name))
        self._taken = frozenset(wanted)
        taken = {node: wanted[key] for key, node in self._nodes.known().items() if key in wanted}
        keep_registered(self._folder.registered_nodes, taken)
        for told in sorted(set(refused) - self._refused_keys):
            self._tell(told)
        self._refused_keys = frozenset(refused)

    def _tell_of_refusals(self, *, at_once: bool = False) -> None:
        """Keep the count of refused calls, and have the log tell of it; whatever hinders, serve."""
        told = None
        try:
            self._refused.keep()
            self._refused.tell(at_once=at_once)
        except (FederationError, ComplianceError, OSError) as error:
            told = f"the log does not tell yet of calls that were refused: {error}"
        if told is not None and told != self._untold:
            self._tell(told)
        self._untold = told

    def _keep_executor(self) -> None:
        if self._executor is not None and self._executor.poll() is None:
            return
        ended = self._executor  # kept: what it began is of its process group still
        if ended is not None and ended is not self._ended_executor:
            words = f"the executor ended with {ended.returncode}: it is started again"
            self._tell(Notice(Event.EXECUTOR_ENDED, words))
            self._ended_executor = ended  # told once, however often it cannot be started
        folder, binaries = self._folder, Path(sys.executable).parent
        control = folder.config.control
        host = "127.0.0.1" if host_of(control) in _WILD else control.rpartition(":")[0]
        command = [
            *(str(binaries / "flower-superexec"), "--parent-pid", str(os.getpid())),
            *("--runtime-api-address", f"{host}:{port_of(control)}"),
            *("--root-certificates", str(folder.ca_certificate)),
            *("--superexec-auth-secret-file", "/dev/stdin"),  # a pipe: it is on no disk
        ]
        output = PlainOutput(folder.path / "executor.log" if self._is_quiet else None)
        self._executor = subprocess.Popen(  # noqa: S603 -- Flower's own, with our own arguments
            command,
            env=self._environment(binaries),
            stdin=subprocess.PIPE,
            stdout=output.terminal or subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        output.follow(self._executor.stdout)
        line = cast("IO[bytes]", self._executor.stdin)
        with suppress(BrokenPipeError), line:  # of one that ended at once, which the next look sees
            line.write(self._secret)

    def _environment(self, binaries: Path) -> Mapping[str, str]:
        kept = {name: one for name, one in os.environ.items() if not name.startswith("FLWR_")}
        return kept | {
            "FLWR_HOME": str(self._folder.path / _FLOWER_HOME),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.5",
            **ALLOCATOR_ENVIRONMENT,
            "PATH": os.pathsep.join([str(binaries), os.environ.get("PATH", os.defpath)]),
        }

    def _stop_executor(self) -> None:
        """End the executor and what it runs, which is a process group of its own."""
        executor = self._executor
        if executor is None:
            return
        for one, patience in ((signal.SIGTERM, _STOP_SECONDS), (signal.SIGKILL, _STOP_SECONDS)):
            try:
                os.killpg(executor.pid, one)
                executor.wait(timeout=patience)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


def _mounts(folder: CoordinatorFolder) -> Mapping[str, ASGIApp]:
    """Return what is served beside Flower's Fleet interface."""
    from federation.enrolment import enrolment_app

    return {_ENROLMENT: enrolment_app(folder.path)}
