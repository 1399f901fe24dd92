"""Calls that a coordinator refuses: each is counted for its reason, and its log tells of all."""

import asyncio
import json
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from http.client import HTTPSConnection
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from hypothesis import given, settings
from hypothesis import strategies as st
from parties import World
from prometheus_client.parser import text_string_to_metric_families
from starlette.responses import Response
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from compliance.records import CallsRefused, RefusedFor
from federation import cli
from federation.apps.control_listener import control_app
from federation.apps.operating.returning import Returning
from federation.apps.operating.server import PromptConnection, counted
from federation.apps.public_listener import public_app
from federation.apps.refusals import AuditFile, Refusals
from federation.audit import verify_party
from federation.clock import utc_now
from federation.errors import WorkspaceError
from federation.gate import Gate
from federation.observing.coordinator_view import metrics_app
from federation.observing.log_counts import LogCounts
from federation.operations import run_commands
from federation.operations.certificates import issue_authority, issue_server, new_key
from federation.operations.folder import CoordinatorConfig, CoordinatorFolder
from federation.operations.refused_calls import WINDOW, WORDS, RefusalTally, refused_calls
from federation.operations.roles import OperatorRole
from federation.operations.runs import LocalRuns
from federation.operations.tokens import Operator
from federation.party import locked

Told = Mapping[RefusedFor, int]


class Coordinator:
    """A coordinator's folder, whose clock moves when it is told to."""

    def __init__(self, world: World, path: Path) -> None:
        config = CoordinatorConfig.for_address("c.example", listen=None, control="127.0.0.1:9092")
        self.folder = CoordinatorFolder.init(path, config, now=world.clock())
        self.world = world
        self.party = world.folder("coordinator")
        self.folder.party.symlink_to(self.party.path)
        self.now: datetime = world.clock()

    def tally(self) -> RefusalTally:
        return RefusalTally(self.folder, clock=lambda: self.now)

    def begin_log(self) -> None:
        with locked(self.party), self.party.open_log() as log:
            Gate(self.party, self.party.agreement(), log, None, clock=lambda: self.now).settle()

    def leaves(self) -> list[CallsRefused]:
        found = self.world.leaves("coordinator")
        return [leaf for leaf in found if isinstance(leaf, CallsRefused)]

    def told(self) -> Told:
        return refused_calls(self.folder, LogCounts(self.party.log))


@pytest.fixture
def coordinator(tmp_path: Path) -> Coordinator:
    return Coordinator(World.make(tmp_path / "world"), tmp_path / "state")


class TestTally:
    def test_a_window_of_however_many_is_one_leaf(self, coordinator: Coordinator) -> None:
        coordinator.begin_log()
        tally, began = coordinator.tally(), coordinator.now
        assert not tally.tell(at_once=True)  # of nothing
        for _ in range(100_000):
            tally.count(RefusedFor.TOKEN)
        tally.count(RefusedFor.NODE)
        coordinator.now += WINDOW - timedelta(seconds=1)
        assert not tally.tell()
        coordinator.now += timedelta(seconds=1)
        assert tally.tell()
        assert not tally.tell(at_once=True)
        tally.count(RefusedFor.NODE)
        assert tally.tell(at_once=True)
        first, second = coordinator.leaves()
        assert (first.since, first.time, first.job) == (began, began + WINDOW, None)
        assert first.refused == {RefusedFor.TOKEN: 100_000, RefusedFor.NODE: 1}
        assert second.since == coordinator.now
        assert coordinator.folder.refused.stat().st_size < 1000
        verify_party(coordinator.party.path)

    def test_where_the_clock_was_put_back_it_tells_of_nothing_that_is_to_come(
        self, coordinator: Coordinator
    ) -> None:
        coordinator.begin_log()
        tally, now = coordinator.tally(), coordinator.now
        coordinator.now = now + timedelta(hours=1)
        tally.count(RefusedFor.TOKEN)
        coordinator.now = now
        tally.keep()
        assert not tally.tell(at_once=True)
        assert coordinator.told() == {RefusedFor.TOKEN: 1}
        coordinator.now = now + timedelta(hours=2)
        assert coordinator.tally().tell(at_once=True)
        (leaf,) = coordinator.leaves()
        assert leaf.since <= leaf.time

    def test_it_waits_for_a_log_and_while_a_run_holds_the_folder(
        self, coordinator: Coordinator
    ) -> None:
        tally = coordinator.tally()
        tally.count(RefusedFor.CALL)
        tally.keep()
        assert not tally.tell(at_once=True)
        coordinator.begin_log()
        with locked(coordinator.party):
            assert not tally.tell(at_once=True)
        assert coordinator.leaves() == []
        assert coordinator.told() == {RefusedFor.CALL: 1}
        assert tally.tell(at_once=True)
        assert coordinator.told() == {RefusedFor.CALL: 1}

    @given(steps=st.lists(st.sampled_from("ccckktdp"), min_size=4, max_size=14))
    @settings(max_examples=6)
    def test_each_call_is_told_once_whenever_the_process_dies(self, steps: list[str]) -> None:
        """c: a call, k: keep, t: tell, d: die, p: die when the leaf is written and nothing else."""
        with TemporaryDirectory() as scratch:
            made = Coordinator(World.make(Path(scratch) / "world"), Path(scratch) / "state")
            made.begin_log()
            tally, kept, unkept = made.tally(), 0, 0
            for step in steps:
                made.now += WINDOW
                if step == "c":
                    tally.count(RefusedFor.ROLE)
                    unkept += 1
                elif step == "d":
                    tally, unkept = made.tally(), 0
                else:
                    tally.keep()
                    kept, unkept = kept + unkept, 0
                if step in "tp":
                    before = made.folder.refused.read_bytes() if kept else b""
                    tally.tell()
                    if step == "p" and before:
                        made.folder.refused.write_bytes(before)
                        tally = made.tally()
                assert made.told().get(RefusedFor.ROLE, 0) == kept
            tally.tell(at_once=True)
            assert sum(leaf.refused[RefusedFor.ROLE] for leaf in made.leaves()) == kept + unkept
            beginnings = [leaf.since for leaf in made.leaves()]
            assert beginnings == sorted(set(beginnings))

    def test_a_damaged_file_says_which(self, coordinator: Coordinator) -> None:
        coordinator.folder.refused.write_text('{"since": "yesterday"}')
        with pytest.raises(WorkspaceError, match=r"refused\.json is damaged .*: remove it"):
            coordinator.tally()

    def test_an_auditor_a_scraper_and_an_operator_read_the_same(
        self, coordinator: Coordinator, capsys: pytest.CaptureFixture[str]
    ) -> None:
        coordinator.begin_log()
        tally = coordinator.tally()
        for reason, number in zip(RefusedFor, count(1), strict=False):
            for _ in range(number):
                tally.count(reason)
        tally.tell(at_once=True)
        tally.count(RefusedFor.TOKEN)
        tally.keep()
        expected = dict(zip(RefusedFor, count(1), strict=False))
        expected[RefusedFor.TOKEN] += 1
        assert LocalRuns(coordinator.folder, by="local").refused() == expected
        app = metrics_app(coordinator.folder, contacts=dict)
        found = {
            one.labels["reason"]: one.value
            for family in text_string_to_metric_families(TestClient(app).get("/metrics").text)
            for one in family.samples
            if one.name == "comity_calls_refused_total"
        }
        assert found == expected
        run_commands.status(config=coordinator.folder.path)
        told = capsys.readouterr().out.splitlines()[-len(expected) :]
        assert told == [
            f"{number:>6}  {why:<10}  {WORDS[why]}" for why, number in sorted(expected.items())
        ]
        with pytest.raises(SystemExit):  # nobody has cosigned it yet
            cli.main(["audit", str(coordinator.party.path), "--json"])
        audited = json.loads(capsys.readouterr().out)
        assert {one["kind"] for one in audited["findings"]} == {"not-public"}


async def refusing(scope: Any, receive: Any, send: Any) -> None:
    """An app that takes nothing."""
    await Response(status_code=403)(scope, receive, send)


OPERATORS = {str(role): Operator(str(role), role) for role in OperatorRole}


def listeners() -> dict[str, ASGIApp]:
    return {
        "control": control_app(refusing, refusing, find_operator=OPERATORS.get),
        "public": public_app(refusing, {"/v1/enrolment": refusing}, ready=lambda: True),
    }


@pytest.mark.parametrize(
    ("listener", "host", "path", "token", "length", "reason"),
    [
        ("control", "::1", "/v1/control/start-run", "guessed", 0, RefusedFor.TOKEN),
        ("control", "::1", "/v1/comity/runs", "viewer", 0, RefusedFor.ROLE),
        ("control", "::1", "/v1/control/start-run", "operator", 0, RefusedFor.ROLE),
        ("control", "::1", "/v1/control/brand-new", "admin", 0, RefusedFor.CALL),
        ("control", "::1", "/v1/runtime/create-task", "", 0, RefusedFor.CALL),
        ("control", "::1", "/docs", "", 0, RefusedFor.CALL),
        ("control", "192.0.2.7", "/v1/runtime/acquire-task", "", 0, RefusedFor.EXECUTOR),
        ("control", "::1", "/v1/runtime/acquire-task", "", 0, RefusedFor.EXECUTOR),
        ("control", "::1", "/v1/comity/runs", "operator", 0, RefusedFor.REQUEST),
        ("control", "::1", "/v1/comity/runs", "operator", 2 << 20, RefusedFor.BODY),
        ("public", "192.0.2.7", "/v1/fleet/pull-messages", "", 0, RefusedFor.NODE),
        ("public", "192.0.2.7", "/v1/fleet/register-node", "", 0, RefusedFor.CALL),
        ("public", "192.0.2.7", "/v1/fleet/push-object", "", 9 << 20, RefusedFor.BODY),
        ("public", "192.0.2.7", "/v1/enrolment/join", "", 0, RefusedFor.ENROLMENT),
        ("public", "192.0.2.7", "/v1/enrolment/join", "", 2 << 20, RefusedFor.BODY),
        ("public", "192.0.2.7", "/", "", 0, RefusedFor.CALL),
    ],
)
def test_a_call_is_counted_for_its_reason(  # noqa: PLR0917 -- as the table has it
    listener: str,
    host: str,
    path: str,
    token: str,
    length: int,
    reason: RefusedFor,
    tmp_path: Path,
) -> None:
    counts = list[RefusedFor]()
    audit = AuditFile(tmp_path / "audit.jsonl")
    app = Refusals(listeners()[listener], listener=listener, audit=audit, count=counts.append)
    client = TestClient(app, base_url="https://127.0.0.1", client=(host, 5000))
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = client.post(path, headers=headers, content=bytes(length))
    assert answer.status_code in range(400, 500)
    assert counts == [reason]
    assert json.loads((tmp_path / "audit.jsonl").read_text())["reason"] == reason


def test_what_was_refused_is_said_in_words_for_every_reason() -> None:
    assert WORDS.keys() == set(RefusedFor)


def unknown(status: int) -> ASGIApp:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await Response(status_code=status)(scope, receive, send)

    return app


TAKEN, STRANGE = new_key(), new_key()


@pytest.mark.parametrize(
    ("key", "apart", "path", "status", "changes", "refused"),
    [
        (TAKEN, 0, "/v1/fleet/pull-messages", 401, {}, False),
        (TAKEN, -14, "/v1/fleet/send-node-heartbeat", 401, {}, False),
        (TAKEN, 14, "/v1/fleet/pull-messages", 401, {}, False),
        (TAKEN, -16, "/v1/fleet/pull-messages", 401, {}, True),
        (TAKEN, 16, "/v1/fleet/pull-messages", 401, {}, True),
        (TAKEN, 0, "/v1/fleet/push-messages", 403, {}, True),  # of a run that is over
        (TAKEN, 0, "/v1/enrolment/join", 401, {}, True),
        (STRANGE, 0, "/v1/fleet/pull-messages", 401, {}, True),
        (TAKEN, 0, "/v1/fleet/pull-messages", 401, {FLEET_HTTP_SIGNATURE_HEADER: "AAAA"}, True),
        (TAKEN, 0, "/v1/fleet/pull-messages", 401, {FLEET_HTTP_SIGNATURE_HEADER: "?"}, True),
        (TAKEN, 0, "/v1/fleet/pull-messages", 401, {FLEET_HTTP_PUBLIC_KEY_HEADER: "?"}, True),
        (TAKEN, 0, "/v1/fleet/pull-messages", 401, {TIMESTAMP_HEADER: "yesterday"}, True),
        (TAKEN, 0, "/v1/fleet/pull-messages", 401, {TIMESTAMP_HEADER: "2026-11-27"}, True),
        (TAKEN, 0, "/v1/fleet/pull-messages", 401, {TIMESTAMP_HEADER: None}, True),
    ],
)
def test_a_node_that_has_to_say_again_who_it_is_is_not_counted(  # noqa: PLR0917 -- as the table has it
    key: ec.EllipticCurvePrivateKey,
    apart: int,
    path: str,
    status: int,
    changes: Mapping[str, str | None],
    refused: bool,
    tmp_path: Path,
) -> None:
    now = utc_now()
    moment = (now + timedelta(minutes=apart)).isoformat()
    headers = {
        FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(public_key_to_bytes(key.public_key())).decode(),
        TIMESTAMP_HEADER: moment,
        FLEET_HTTP_SIGNATURE_HEADER: b64encode(sign_message(key, moment.encode())).decode(),
    } | changes
    counts = list[RefusedFor]()
    file = tmp_path / "audit.jsonl"
    taken = {public_key_to_bytes(TAKEN.public_key())}
    app = Refusals(
        unknown(status),
        listener="public",
        audit=AuditFile(file),
        count=counts.append,
        is_returning=Returning(lambda: taken, clock=lambda: now),
    )
    sent = {name: value for name, value in headers.items() if value is not None}
    assert TestClient(app).post(path, headers=sent).status_code == status
    assert (len(counts), len(file.read_text().splitlines())) == (refused, refused)


class Hasty(PromptConnection):
    head_seconds = 0.3


class Served:
    """A server on loopback with TLS, and what it counted."""

    def __init__(self, address: tuple[str, int], roots: ssl.SSLContext) -> None:
        self.address = address
        self.roots = roots
        self.counts = Counter[RefusedFor]()

    def count(self, reason: RefusedFor) -> None:
        self.counts[reason] += 1

    def line(self) -> ssl.SSLSocket:
        bare = socket.create_connection(self.address, timeout=20)
        return self.roots.wrap_socket(bare, server_hostname=self.address[0])

    def settle(self, expected: Mapping[RefusedFor, int]) -> None:
        end = time.monotonic() + 20
        while self.counts != expected and time.monotonic() < end:
            time.sleep(0.01)
        assert self.counts == expected


async def slow(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.sleep(0.2)
    await Response("done")(scope, receive, send)


@contextmanager
def serving(directory: Path) -> Iterator[Served]:
    now = utc_now()
    authority = issue_authority(now)
    issued = issue_server(authority, ["127.0.0.1"], now, key=new_key())
    (directory / "server.pem").write_bytes(issued.certificate_pem)
    (directory / "server.key").write_bytes(issued.key_pem)
    config = uvicorn.Config(
        slow,
        http=Hasty,
        ws="none",
        lifespan="off",
        log_level="critical",
        limit_concurrency=3,
        ssl_certfile=str(directory / "server.pem"),
        ssl_keyfile=str(directory / "server.key"),
    )
    config.load()
    roots = ssl.create_default_context(cadata=authority.certificate_pem.decode())
    with socket.create_server(("127.0.0.1", 0)) as waiting:
        served = Served(waiting.getsockname(), roots)
        server = counted(config, served.count)
        thread = threading.Thread(target=server.run, args=([waiting],), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield served
        server.should_exit = True
        thread.join()


def another_root(served: Served) -> None:
    served.roots = ssl.create_default_context()
    with pytest.raises(ssl.SSLCertVerificationError):
        served.line()


def no_tls(served: Served) -> None:
    with socket.create_connection(served.address, timeout=20) as bare:
        bare.sendall(b"GET / HTTP/1.1\r\n\r\n")
        bare.recv(100)


def silence(served: Served) -> None:
    with served.line() as line:
        assert line.recv(1) == b""


def too_long(served: Served) -> None:
    with served.line() as line, suppress(OSError):
        line.sendall(b"GET /" + b"a" * 200_000)
        assert line.recv(1) == b""


def no_http(served: Served) -> None:
    with served.line() as line:
        line.sendall(b"\x00 nonsense\r\n\r\n")
        assert line.recv(100).startswith(b"HTTP/1.1 400")


def too_many(served: Served) -> None:
    held = [served.line() for _ in range(2)]
    asked = HTTPSConnection(*served.address, context=served.roots, timeout=20)
    asked.request("GET", "/")
    assert asked.getresponse().status == 503
    asked.close()
    for one in held:
        one.close()


def a_probe(served: Served) -> None:
    socket.create_connection(served.address, timeout=20).close()
    asked = HTTPSConnection(*served.address, context=served.roots, timeout=20)
    asked.request("GET", "/")
    assert asked.getresponse().read() == b"done"
    asked.close()


@pytest.mark.parametrize(
    ("knock", "expected"),
    [
        (another_root, {RefusedFor.HANDSHAKE: 1}),
        (no_tls, {RefusedFor.HANDSHAKE: 1}),
        (silence, {RefusedFor.HEAD: 1}),
        (too_long, {RefusedFor.HEAD: 1}),
        (no_http, {RefusedFor.REQUEST: 1}),
        (too_many, {RefusedFor.BUSY: 1}),
        (a_probe, {}),
    ],
)
def test_a_connection_that_comes_to_nothing_is_counted(
    knock: Callable[[Served], None], expected: Told, tmp_path: Path
) -> None:
    with serving(tmp_path) as served:
        knock(served)
        served.settle(expected)
