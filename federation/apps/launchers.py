"""A party's node as a process that stays: it waits for messages, and has a worker answer each.

Guarantees: what runs is the app that the party has installed; nothing that a coordinator ships is
unpacked, let alone run, and a run with another app bundle than the party allows is refused. A
worker that dies costs its own message an answer, and no other. No port is opened, but where the
party wishes to observe its node; nothing is installed, and neither Flower's telemetry nor its
update check is on.

Leaves to others: the answer (`client_app`), isolation (`zygote`), the line (`superlink`), what
observers make of it (`federation.observing`).
"""

import hashlib
import re
import signal
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, Self

from flwr.app import Context, RecordDict
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError

from compliance.errors import PolicyError, describe
from compliance.terms import Role
from federation.apps import BUNDLE
from federation.apps.carriage import CarriedMessage, Failure
from federation.apps.client_app import app
from federation.apps.credential import read_node_key
from federation.apps.superlink import MessageTooLargeError, RunOverError, SuperLink
from federation.apps.zygote import WorkerEndedError, Zygote
from federation.channel import ENVELOPE
from federation.enrolment.waiting import wait_until_signed
from federation.errors import ReplicaError, TakenOverError, WorkspaceError
from federation.observing.answered import Answered, Exchange, Observer, exchange_of
from federation.observing.events import Event, Notice
from federation.observing.listener import observed
from federation.observing.spans import span_of
from federation.observing.tally import Tally
from federation.observing.traces import Collector, traced
from federation.party import PartyFolder
from federation.population import tokens_allowed
from federation.progress import ProgressListener, listening
from federation.wire import installed
from federation.workers import WorkerKind
from privacy.psi.engines import choose_engine

__all__ = ["NodeConfig", "installed_bundle", "run_node"]

_SHORTEST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
_PATIENCE: Final = 0.2
"""What passes from one look for messages to the next, as a part of the time since the last one."""

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Tell = Callable[[str], None]


def _address(value: str) -> str:
    if not _ADDRESS.fullmatch(value):
        raise ValueError("expected HOST:PORT, such as 127.0.0.1:9091 or [::1]:9091")
    return value


class NodeConfig(BaseModel):
    """What a node needs to know beside its party's folder; the keys of a file of it have dashes.

    Attributes:
        party: the party's folder.
        superlink: host:port of the coordinator's SuperLink.
        auth_supernode_private_key: file of the key by which the SuperLink knows the node.
        root_certificates: file of the certificates that vouch for the SuperLink; the system's
            where left out.
        allow_bundles: SHA-256 digests of app bundles whose runs are answered, beside the installed
            one.
        observe: host:port at which health and figures are told; nowhere where left out.
        traces: URL of the party's own collector of OpenTelemetry; none where left out.
        database: URL of the database from which `comity node restore` brings the folder back; it
            is what `party.json` names.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=lambda name: name.replace("_", "-"),
        populate_by_name=True,
    )

    party: Path
    superlink: Annotated[str, AfterValidator(_address)]
    auth_supernode_private_key: Path
    root_certificates: Path | None = None
    allow_bundles: tuple[Digest, ...] = ()
    observe: Annotated[str, AfterValidator(_address)] | None = None
    traces: Collector | None = None
    database: SecretStr | None = None

    @classmethod
    def of(cls, file: Path | None, given: Mapping[str, Any]) -> Self:
        """Return what a file says, paths in it taken from its folder, and what is given instead.

        Args:
            file: TOML.
            given: the attributes that count in place of the file's; those that are None do not.

        Raises:
            WorkspaceError: with all mistakes.
        """
        found: dict[str, Any] = {}
        try:
            if file is not None:
                found = tomllib.loads(file.read_text(encoding="utf-8"))
                found |= {key: file.parent / found[key] for key in _PATHS & found.keys()}
            named = {key.replace("_", "-"): one for key, one in given.items() if one is not None}
            if lacking := [key for key in _NEEDED if key not in found | named]:
                options = ", ".join(f"--{key}" for key in lacking)
                raise WorkspaceError(
                    f"a node needs {options}: give them, or name a file that holds them by --config"
                )
            return cls.model_validate(found | named)
        except ValidationError as error:
            raise WorkspaceError(f"{file or 'node'}: {describe(error)}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, TypeError) as error:
            raise WorkspaceError(f"{file} is no file of a node: {error}") from error


_NEEDED: Final = ("party", "superlink", "auth-supernode-private-key")
_ADDRESS: Final = re.compile(r"(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}")
_PATHS: Final = frozenset({"party", "auth-supernode-private-key", "root-certificates"})


def installed_bundle() -> str:
    """Return the SHA-256 digest of the app bundle that this installation ships."""
    from flwr.cli.build import build_fab_from_disk

    return hashlib.sha256(build_fab_from_disk(BUNDLE)).hexdigest()


def run_node(
    config: NodeConfig,
    *,
    tell: Tell,
    listener: ProgressListener,
    observers: Sequence[Observer] = (),
) -> NoReturn:
    """Answer messages until this process is told to end; SIGTERM ends it with exit code 0.

    1. Read folder and agreement, so that mistakes in them show at once; wait where parties have yet
       to sign it.
    2. Fork the zygote, while there is a single thread, no key of the node's and no line.
    3. Read the key, and connect.
    4. Take a message, have it answered, hand the answer in; look again, ever more rarely.

    Where the node is observed, it listens during 1, and again from 3 on: a process that has threads
    cannot fork.

    Args:
        config: the node's.
        tell: told in one line what an operator wants to know.
        listener: told how the party's work goes on, in the workers.
        observers: told of each message, once it is answered.

    Raises:
        WorkspaceError: folder, certificate or key are not what they must be.
        TakenOverError: the folder was restored elsewhere, and goes on there.
        InvalidAgreementError: the agreement is unsigned by somebody, or altered.
        SuperLinkError: it does not take this node.
        FederationError: the zygote has ended.
    """
    signal.signal(signal.SIGTERM, _end)
    folder = PartyFolder(config.party)  # 1
    if config.database is not None and folder.config.database is None:
        raise WorkspaceError(
            f"a database is named for this node, and {folder.path / 'party.json'} names none, so "
            "that nothing would be copied: name it there too"
        )
    if folder.config.role not in {Role.BRAND, Role.PARTNER}:
        raise WorkspaceError(f"{folder.path} is a {folder.config.role}'s: it has no node")
    _check_copy(folder, tell)
    watch = _Watch(config, observers)
    with watch.listening():
        wait_until_signed(folder, tell)
    folder.agreement()
    allowed = frozenset({installed_bundle(), *config.allow_bundles})
    with (
        Zygote.started(  # 2
            partial(_answer, folder.path, listener), prepare=partial(_prepare, folder)
        ) as zygote,
        watch.listening(),
        watch.tracing(folder.name),
        SuperLink.connected(  # 3
            config.superlink,
            root_certificates=config.root_certificates,
            key=read_node_key(config.auth_supernode_private_key, folder=folder),
            tell=tell,
            heard=watch.heard,
        ) as link,
    ):
        told = f"{folder.name} is connected to {config.superlink} as node {link.node_id}"
        tell(Notice(Event.NODE_CONNECTED, told, party=folder.name, node=link.node_id))
        _MessageLoop(folder.name, link, zygote, allowed, tell, watch).run()  # 4


def _check_copy(folder: PartyFolder, tell: Tell) -> None:
    """Return only if the folder was not restored elsewhere, as far as can be known by now."""
    if folder.replica is None:
        return
    try:
        folder.replica.check()
    except TakenOverError:
        raise
    except ReplicaError as error:  # it may be back before a message comes
        tell(str(error))
    if folder.safe.key is None:
        tell(
            f"secrets of {folder.name} lie in clear, and are not in the copy of its folder: "
            f"`comity secrets seal {folder.path}`, or a lost machine takes them along"
        )


def _end(*_: object) -> NoReturn:
    raise SystemExit(0)


class _Watch:
    """Who observes a node: its own listener where there is one, and whoever else is told."""

    def __init__(self, config: NodeConfig, observers: Sequence[Observer]) -> None:
        self._address = config.observe
        self._collector = config.traces
        self.tally = Tally()
        self._observers = [self.tally.observe, *observers]
        self._view = None
        if self._address is not None:
            from federation.observing.node_view import NodeView

            self._view = NodeView(config.party, self.tally)

    def listening(self) -> AbstractContextManager[object]:
        """Listen for the length of a block."""
        if self._address is None or self._view is None:
            return nullcontext()
        return observed(self._address, self._view)

    @contextmanager
    def tracing(self, party: str) -> Iterator[None]:
        """Send a span of each message for the length of a block, where there is a collector."""
        if self._collector is None:
            yield
            return
        with traced(self._collector, party) as send:

            def observe(answered: Answered) -> None:
                span = span_of(answered, party)
                send([] if span is None else [span])

            self._observers.append(observe)
            yield

    def heard(self) -> None:
        """Note that the SuperLink has answered."""
        if self._view is not None:
            self._view.heard()

    def tell(self, answered: Answered) -> None:
        """Tell of a message."""
        for observer in self._observers:
            observer(answered)


class _MessageLoop:
    """Takes one message after the other."""

    def __init__(
        self,
        party: str,
        link: SuperLink,
        zygote: Zygote,
        allowed: frozenset[str],
        tell: Tell,
        watch: _Watch,
    ) -> None:
        self._party = party
        self._link = link
        self._zygote = zygote
        self._allowed = allowed
        self._tell = tell
        self._allowed_run: int | None = None
        self._watch = watch
        self._at: tuple[int, float] | None = None
        """The run whose message is being answered, and since when."""

    def run(self) -> NoReturn:
        """Answer every message that comes; say so when the process is told to end."""
        try:
            self._run()
        except (SystemExit, KeyboardInterrupt):
            self._tell(self._end_told())
            raise

    def _end_told(self) -> Notice:
        told, fields = f"{self._party} ends, as it was told to", dict[str, object]()
        if self._at is None:
            told += ": it was at no message"
        else:
            run, since = self._at
            fields = {"run": run, "seconds": round(time.monotonic() - since, 3)}
            told += (
                f", in the middle of a message of run {run}: what was charged is kept, and a run "
                "that needs the answer asks again once this node is back"
            )
        return Notice(Event.NODE_ENDED, told, party=self._party, **fields)

    def _run(self) -> NoReturn:
        last = time.monotonic()
        while True:
            looked = time.monotonic()
            has_answered = self._answered_one()
            self._at = None
            if has_answered:
                last = time.monotonic()
            else:
                pause = min(max(_PATIENCE * (looked - last), _SHORTEST_PAUSE), _LONGEST_PAUSE)
                time.sleep(max(0.0, looked + pause - time.monotonic()))

    def _answered_one(self) -> bool:
        try:
            question = self._link.pull()
            if question is not None:
                self._at = (question.head.metadata.run_id, time.monotonic())
                self._link.push(self._answer_to(question))
        except RunOverError:
            told = "a run has ended before its message was answered"
            self._tell(Notice(Event.RUN_OVER, told))
            return True
        except MessageTooLargeError as error:
            self._tell(str(error))
            return True
        return question is not None

    def _answer_to(self, question: CarriedMessage) -> CarriedMessage:
        run = question.head.metadata.run_id
        if run != self._allowed_run:
            bundle = hashlib.sha256(self._link.bundle_of(run)).hexdigest()
            if bundle not in self._allowed:
                told = (
                    f"refused run {run}: its app bundle is {bundle}, and {installed()} here allows "
                    "another: install the coordinator's version, or allow it by --allow-bundle"
                )
                self._tell(Notice(Event.BUNDLE_REFUSED, told, run=run, bundle=bundle))
                return question.failed(Failure.OTHER_BUNDLE, f"{self._party} runs {installed()}")
            self._allowed_run = run
        begun, moment = time.time_ns(), time.monotonic()
        exchange = Exchange()
        try:
            observed_row, *rows = self._zygote.ask(question.to_rows())
            exchange = Exchange.model_validate_json(observed_row)
            answer = CarriedMessage.from_rows(rows)
        except WorkerEndedError as error:
            self._watch.tally.worker_ended()
            words = f"a worker ended {error} before it had answered: the run is told so"
            self._tell(Notice(Event.WORKER_ENDED, words, run=run))
            answer = question.failed(
                Failure.WORKER_ENDED, "the worker ended before it had answered"
            )
        seconds = time.monotonic() - moment
        self._watch.tell(Answered(exchange, begun, seconds, question.size, answer.size))
        return answer


def _prepare(folder: PartyFolder) -> None:
    """Load what messages need; generate and test the engine's code where people make it pay.

    What is worked out from agreement, policy and code alone is so here, once for all workers.
    """
    import federation.apps.preloaded  # noqa: F401 -- for what it loads
    from federation.code import running_code
    from federation.policies import policy_of

    running_code()
    with suppress(PolicyError):  # each message is told of it
        policy_of(folder, folder.agreement())
    workers = folder.config.workers
    if workers is None or workers.kind is WorkerKind.THREADS:
        choose_engine(2 * tokens_allowed(folder.agreement(), folder.name))


def _answer(party: Path, listener: ProgressListener, rows: Sequence[bytes]) -> Sequence[bytes]:
    """Answer a message, in a worker; the first row is the `Exchange`, the others are the answer."""
    question = CarriedMessage.from_rows(rows)
    message = question.put_together()
    context = Context(
        run_id=message.metadata.run_id,
        node_id=message.metadata.dst_node_id,
        node_config={"party": str(party)},
        state=RecordDict(),
        run_config={},
    )
    asked, said = _envelope(message.content), None
    try:
        with listening(listener):
            reply = app(message, context)
        said = _envelope(reply.content)
        answer = CarriedMessage.take_apart(reply)
    except Exception as error:  # noqa: BLE001 -- whatever it is, the coordinator learns its kind
        answer = question.failed(Failure.APP_RAISED, type(error).__name__)
        said = None
    return [exchange_of(asked, said).model_dump_json().encode(), *answer.to_rows()]


def _envelope(record: RecordDict) -> bytes:
    """Return the envelope in a record, unverified; nothing where there is none."""
    try:
        return str(record.config_records[ENVELOPE]["json"]).encode()
    except KeyError:
        return b""
