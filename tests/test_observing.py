"""A party and a coordinator seen from outside: health, figures, lines of events, spans."""

import contextlib
import gzip
import hashlib
import http.client
import io
import json
import logging
import socket
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan
from parties import NOW, PEOPLE, World, email, phone, record
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from compliance.records import Refusal, Release
from federation.apps.control_listener import control_app
from federation.apps.launchers import NodeConfig
from federation.channel import Parcel
from federation.coordinator import Coordinator
from federation.errors import PartyUnreachableError, WorkspaceError
from federation.messages import SealedMessage
from federation.observing import listener
from federation.observing.answered import UNKNOWN, Answered, Exchange, Outcome, exchange_of
from federation.observing.coordinator_view import metrics_app
from federation.observing.events import FIELDS, Event, Notice, allowed
from federation.observing.figures import CONTACT_SECONDS, Obstacle
from federation.observing.json_lines import JsonLines
from federation.observing.listener import observed
from federation.observing.log_counts import LogCounts
from federation.observing.node_view import NodeView
from federation.observing.spans import Span, TracedChannel, span_of, trace_id
from federation.observing.tally import SECONDS, Tally
from federation.observing.traces import traced
from federation.operations.folder import CoordinatorConfig, CoordinatorFolder
from federation.operations.journal import RunJournal
from federation.operations.roles import OperatorRole
from federation.operations.tokens import Operator
from federation.progress import Progress
from federation.routes import ROUTES

IDENTIFIERS = [
    one(person) for person in sorted(set().union(*PEOPLE.values())) for one in (email, phone)
]
REFERENCES = [record("retailer", person) for person in PEOPLE["retailer"]]
SECRETS = [*IDENTIFIERS, *REFERENCES, "green", "colour"]
"""What of people must never be told: identifiers, references, a feature and its values."""


def check_told(text: str) -> None:
    """Return only if a text tells nothing of people."""
    found = [one for one in SECRETS if one.lower() in text.lower()]
    assert not found, f"{len(found)} of {len(SECRETS)}"


NO_MESSAGE = SealedMessage(b"{}", b"")


@dataclass
class Counting(World):
    """Parties whose log at the brand is counted again and again while they are at work."""

    counts: LogCounts | None = None
    sizes: list[int] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)

    def run(self) -> None:
        channel = TracedChannel(self, self.spans.extend)
        Coordinator.open(self.folder("coordinator").path, clock=self.clock).run(channel)
        channel.close()

    def exchange(
        self, parcels: Sequence[Parcel], *, most_missing: int = 0
    ) -> Sequence[SealedMessage | None]:
        self.counts = self.counts or LogCounts(self.folder("brand").log)
        self.counts.read_on()
        self.sizes.append(self.counts.leaves)
        return super().exchange(parcels, most_missing=most_missing)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Counting:
    """Parties after all jobs, and one message that was refused."""
    made = Counting.make(tmp_path_factory.mktemp("observed"), unsafe_seed=1)
    made.run()
    made.handle("retailer", NO_MESSAGE)
    return made


@pytest.fixture
def exchanges(world: World) -> list[Exchange]:
    return [
        exchange_of(asked.envelope, said.envelope)
        for asked, said in zip(world.wire[::2], world.wire[1::2], strict=True)
    ]


def samples(told: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """Return every sample by its name and the values of its labels."""
    return {
        (one.name, tuple(one.labels.values())): one.value
        for family in text_string_to_metric_families(told)
        for one in family.samples
    }


class Observed:
    """A node's view and its listener."""

    def __init__(self, path: Path, *, now: datetime = NOW + timedelta(hours=1)) -> None:
        self.now, self.seconds = now, 0.0
        self.tally = Tally()
        self.view = NodeView(
            path, self.tally, clock=lambda: self.now, monotonic=lambda: self.seconds
        )

    def get(self, path: str, *, method: str = "GET") -> tuple[int, str]:
        with observed("127.0.0.1:0", self.view) as port:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request(method, path)
            answer = connection.getresponse()
            text = answer.read().decode()
            connection.close()
        return answer.status, text


class Stuck:
    """A view whose figures do not come."""

    def __init__(self) -> None:
        self.entered, self.let_go = threading.Event(), threading.Event()

    def obstacles(self) -> frozenset[Obstacle]:
        return frozenset()

    def metrics(self) -> tuple[bytes, str]:
        self.entered.set()
        self.let_go.wait()
        return b"figures", "text/plain"


def ask(port: int, path: str, *, ended: bool = True) -> socket.socket:
    asking = socket.create_connection(("127.0.0.1", port), timeout=20)
    asking.sendall(f"GET {path} HTTP/1.0\r\nX: {'y' * 9}".encode() + b"\r\n\r\n" * ended)
    return asking


def told_to(asking: socket.socket) -> bytes:
    with asking, asking.makefile("rb") as file:
        return file.read()


class TestListener:
    def test_a_process_is_alive_and_nothing_else_can_be_asked(self, world: World) -> None:
        node = Observed(world.folder("brand").path)
        assert node.get("/health") == (200, "healthy\n")
        for path in ("/", "/party.json", "/../party.json", "/metrics/", "/health?x"):
            assert node.get(path)[0] == 404, path
        assert node.get("/health", method="POST")[0] == 501

    def test_no_thread_is_left_so_that_the_process_may_fork(self, world: World) -> None:
        before = threading.active_count()
        node = Observed(world.folder("brand").path)
        with observed("127.0.0.1:0", node.view):
            assert threading.active_count() == before + 1
            (thread,) = [one for one in threading.enumerate() if one.name == "observe"]
            assert Path(f"/proc/self/task/{thread.native_id}").exists()
        assert not Path(f"/proc/self/task/{thread.native_id}").exists()

    def test_who_waits_for_figures_keeps_nobody_from_asking_for_health(self) -> None:
        view = Stuck()
        with observed("127.0.0.1:0", view) as port:
            waiting = ask(port, "/metrics")
            view.entered.wait()
            assert b"healthy" in told_to(ask(port, "/health"))
            view.let_go.set()
            assert b"figures" in told_to(waiting)

    def test_more_than_a_few_at_a_time_are_turned_away(self) -> None:
        view = Stuck()
        with observed("127.0.0.1:0", view) as port:
            waiting = [ask(port, "/metrics") for _ in range(8)]
            with socket.create_connection(("127.0.0.1", port), timeout=20) as further:
                assert further.recv(1) == b""
            view.let_go.set()
            assert all(b"figures" in told_to(one) for one in waiting)

    def test_a_request_that_comes_in_drops_is_cut_off(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(listener._Handler, "seconds", 0.3)
        node = Observed(world.folder("brand").path)
        with observed("127.0.0.1:0", node.view) as port:
            slow = ask(port, "/health", ended=False)
            slow.settimeout(0.05)
            for _ in range(100):
                with contextlib.suppress(TimeoutError):
                    assert slow.recv(1) == b""
                    break
                slow.sendall(b"a")
            else:
                pytest.fail("it was never cut off")
            slow.close()

    def test_an_address_that_is_taken_is_named(self, world: World) -> None:
        node = Observed(world.folder("brand").path)
        with (
            observed("127.0.0.1:0", node.view) as port,
            pytest.raises(WorkspaceError, match=f"cannot listen at 127.0.0.1:{port}"),
            observed(f"127.0.0.1:{port}", node.view),
        ):
            pass

    def test_ready_while_connected_in_force_and_writable(
        self, world: World, tmp_path: Path
    ) -> None:
        node = Observed(world.copy(tmp_path / "copy").folder("brand").path)
        assert node.get("/ready") == (503, "not ready: connection\n")
        node.view.heard()
        assert node.get("/ready") == (200, "ready\n")
        node.seconds += CONTACT_SECONDS + 1
        assert node.get("/ready") == (503, "not ready: connection\n")
        node.view.heard()
        node.now = world.agreement.valid_until
        assert node.get("/ready") == (503, "not ready: agreement\n")

    def test_a_folder_that_is_gone_leaves_the_process_alive(self, tmp_path: Path) -> None:
        node = Observed(tmp_path / "nowhere")
        node.view.heard()
        assert node.get("/ready") == (503, "not ready: agreement, folder\n")
        assert node.get("/health")[0] == 200
        status, told = node.get("/metrics")
        assert status == 200
        assert samples(told)["comity_figures_readable", ()] == 0


class TestMetrics:
    @pytest.mark.parametrize("name", PEOPLE)
    def test_figures_are_those_of_ledger_and_log(self, world: World, name: str) -> None:
        told = Observed(world.folder(name).path).get("/metrics")[1]
        check_told(told)
        found, leaves = samples(told), world.leaves(name)
        statement = world.statement(name)
        assert found["comity_figures_readable", ()] == 1
        assert found["comity_epsilon_cap", ()] == statement.epsilon_cap
        assert found["comity_epsilon_spent", ()] == statement.epsilon_spent
        assert found["comity_epsilon_left", ()] == statement.epsilon_left
        assert found["comity_log_leaves", ()] == len(leaves)
        assert 0 < found["comity_log_public_leaves", ()] <= len(leaves)
        witnesses = {labels for one, labels in found if one.startswith("comity_witness")}
        assert witnesses == {(one.name,) for one in world.agreement.parties if one.name != name}
        released = Counter(one.computation for one in leaves if isinstance(one, Release))
        for kind, number in released.items():
            assert found["comity_releases_total", (kind,)] == number
        refused = Counter(one.term for one in leaves if isinstance(one, Refusal))
        assert len(refused) == (name == "retailer")
        for term, number in refused.items():
            assert found["comity_refusals_total", (term,)] == number

    def test_looking_writes_nothing(self, world: World) -> None:
        path = world.folder("brand").path
        before = {one: one.stat().st_mtime_ns for one in path.rglob("*") if one.is_file()}
        Observed(path).get("/metrics")
        after = {one: one.stat().st_mtime_ns for one in path.rglob("*") if one.is_file()}
        assert before == after

    def test_figures_are_told_while_a_job_holds_the_ledger(self, world: World) -> None:
        folder = world.folder("brand")
        with folder.ledger_store(world.agreement).transaction():
            found = samples(Observed(folder.path).get("/metrics")[1])
        assert found["comity_figures_readable", ()] == 1
        assert found["comity_epsilon_spent", ()] == world.statement("brand").epsilon_spent

    def test_a_party_that_has_begun_nothing_has_no_budget_to_tell_and_gets_no_ledger(
        self, tmp_path: Path
    ) -> None:
        fresh = World.make(tmp_path, unsafe_seed=1)
        found = samples(Observed(fresh.folder("brand").path).get("/metrics")[1])
        assert ("comity_epsilon_left", ()) not in found
        assert found["comity_log_leaves", ()] == 0
        assert not fresh.folder("brand").ledger.exists()

    def test_what_a_node_counted(self, world: World, exchanges: list[Exchange]) -> None:
        node = Observed(world.folder("brand").path)
        for number, one in enumerate(exchanges):
            node.tally.observe(Answered(one, 0, float(number), 10, 1))
        node.tally.worker_ended()
        told = node.get("/metrics")[1]
        check_told(told)
        found = samples(told)
        assert found["comity_bytes_total", ("in",)] == 10 * len(exchanges)
        assert found["comity_workers_ended_total", ()] == 1
        counted = Counter((one.kind, str(one.outcome)) for one in exchanges)
        for labels, number in counted.items():
            assert found["comity_messages_total", labels] == number
        counts = [
            value for (one, _), value in found.items() if one == "comity_message_seconds_count"
        ]
        assert sum(counts) == len(exchanges)
        within = found["comity_message_seconds_bucket", (exchanges[0].kind, str(SECONDS[0]))]
        assert within == 1  # the first one took no time, all others a second or more


class TestExchange:
    def test_it_is_what_was_asked_and_said(self, world: World, exchanges: list[Exchange]) -> None:
        assert {one.outcome for one in exchanges} == {Outcome.ANSWERED}
        assert {one.agreement for one in exchanges} == {world.agreement.digest}
        assert {"identify", "match.request", "train.request"} <= {one.kind for one in exchanges}
        assert [one.question for one in exchanges] == [one.digest for one in world.wire[::2]]

    def test_a_refusal_is_one(self, world: World) -> None:
        asked = world.parties.seal("coordinator", "brand", "find", world.read(world.wire[0]).body)
        said = world.handle("retailer", NO_MESSAGE)
        assert exchange_of(asked.envelope, said.envelope).outcome is Outcome.REFUSED

    @settings(max_examples=50)
    @given(
        st.binary(max_size=60)
        | st.recursive(
            st.none() | st.text(max_size=5) | st.integers(),
            lambda deeper: st.dictionaries(
                st.sampled_from(["body", "kind", "job", "agreement", "encrypts"]), deeper
            ),
            max_leaves=8,
        ).map(lambda said: json.dumps(said).encode())
    )
    def test_nothing_that_a_stranger_wrote_is_repeated(self, world: World, content: bytes) -> None:
        sealed = world.parties.sign("brand", content)
        for envelope in (content, sealed.envelope):
            found = exchange_of(envelope, envelope)
            assert found.kind in {UNKNOWN, *ROUTES}
            assert found.agreement == UNKNOWN
            assert found.job == UNKNOWN or found.job.isascii()


class TestLogCounts:
    def test_read_on_it_counts_what_read_at_once_it_counts(self, world: Counting) -> None:
        assert world.sizes[0] == 0
        assert len(set(world.sizes)) > 3
        whole = LogCounts(world.folder("brand").log)
        for one in (whole, world.counts):
            one.read_on()
        assert world.counts == whole
        assert whole.releases


class TestCoordinator:
    @pytest.fixture
    def told(self, world: World, tmp_path: Path) -> Iterator[TestClient]:
        config = CoordinatorConfig.for_address("c.example", listen=None, control="127.0.0.1:9092")
        folder = CoordinatorFolder.init(tmp_path / "state", config, now=NOW)
        folder.party.symlink_to(world.folder("coordinator").path)
        journal = RunJournal(folder.runs)
        journal.cancel(journal.submit(["find"], by="alice").number, by="alice")
        journal.submit(["model"], by="alice")
        app = metrics_app(folder, contacts=lambda: {"brand": datetime(2026, 3, 1, tzinfo=UTC)})
        tokens = {"viewer": Operator("viewer", OperatorRole.VIEWER)}
        with TestClient(control_app(app, app, find_operator=tokens.get, metrics=app)) as client:
            yield client

    def test_operators_see_figures_and_nobody_else_does(
        self, world: World, told: TestClient
    ) -> None:
        assert told.get("/metrics").status_code == 401
        viewer = {"Authorization": "Bearer viewer"}
        assert told.put("/metrics", headers=viewer).status_code == 403
        answer = told.get("/metrics", headers=viewer)
        check_told(answer.text)
        found = samples(answer.text)
        assert found["comity_runs", ("cancelled",)] == found["comity_runs", ("queued",)] == 1
        assert found["comity_runs", ("done",)] == 0
        assert found["comity_training_rounds_total", ()] == 2
        assert found["comity_party_contact_timestamp_seconds", ("brand",)] == 1772323200
        released = [one for one in world.leaves("coordinator") if isinstance(one, Release)]
        carried = [
            value for (one, _), value in found.items() if one == "comity_released_bytes_total"
        ]
        assert sum(carried) == sum(one.content_bytes for one in released)


def test_every_obstacle_has_its_own_sample(world: World) -> None:
    found = samples(Observed(world.folder("brand").path).get("/metrics")[1])
    assert {labels for one, labels in found if one == "comity_ready"} == {
        (one,) for one in Obstacle
    }


# ---------------------------------------------------------------------------------------- lines


class Lines:
    """JSON lines, and what was written."""

    def __init__(self) -> None:
        self.file = io.StringIO()
        self.json = JsonLines(self.file, clock=lambda: NOW)

    def written(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.file.getvalue().splitlines()]


class TestJsonLines:
    def test_a_notice_is_its_event_and_anything_else_a_sentence(self) -> None:
        lines = Lines()
        lines.json.tell(Notice(Event.NODE_CONNECTED, "brand is connected", party="brand", node=7))
        lines.json.tell("something else")
        time = "2026-03-01T12:00:00+00:00"
        connected = {"event": "node.connected", "told": "brand is connected"}
        assert lines.written() == [
            {"time": time, "party": "brand", "node": 7} | connected,
            {"time": time, "event": "told", "told": "something else"},
        ]

    def test_a_job_says_no_count_of_people_and_no_word_of_its_stage(self) -> None:
        lines = Lines()
        told = Progress("brand", "find", "about 31 people", rows=31, excluded={"withdrawn": 4})
        lines.json.progress(told)
        lines.json.progress(replace(told, epsilon_spent=1.0, epsilon_left=0.2))
        lines.json.progress(replace(told, done=1, total=9))
        first, second = lines.written()
        assert first.keys() == {"time", "event", "party", "job"}
        assert second == first | {"epsilon_spent": 1.0, "epsilon_left": 0.2}

    def test_messages_of_all_jobs_tell_nothing_of_people(
        self, world: World, exchanges: list[Exchange]
    ) -> None:
        lines = Lines()
        for one in exchanges:
            lines.json.answered(Answered(one, 0, 0.25, 10, 1))
        check_told(lines.file.getvalue())
        found = lines.written()
        assert [one["kind"] for one in found] == [one.kind for one in exchanges]
        assert {one["event"] for one in found} == {"message.answered"}

    @settings(max_examples=100)
    @given(
        st.dictionaries(
            st.sampled_from(sorted(FIELDS)) | st.text(max_size=8),
            st.sampled_from(IDENTIFIERS) | st.none() | st.lists(st.sampled_from(SECRETS)),
        )
    )
    def test_no_field_holds_an_identifier_whatever_it_is_given(
        self, given: dict[str, object]
    ) -> None:
        told = allowed(given)
        check_told(json.dumps(told))
        assert told.keys() <= FIELDS.keys()

    @pytest.mark.parametrize(
        "identifier",
        [
            *(email(7), email(7).upper(), phone(7), "+1 212 736-5007", "person7%40gmx.net"),
            *("12127365007", 64 * "a", hashlib.sha256(b"person").hexdigest().upper()),
        ],
    )
    def test_sentences_lose_what_looks_like_an_identifier_and_keep_the_rest(
        self, identifier: str
    ) -> None:
        told = allowed({"told": f"row of {identifier}: mend it"})["told"]
        assert told in {"row of … mend it", "row of …: mend it"}

    def test_of_what_libraries_log_the_text_is_left_out(self) -> None:
        lines = Lines()
        taken = [logging.getLogger(one) for one in (None, "flwr", "uvicorn", "uvicorn.error")]
        before = [(list(one.handlers), one.propagate, one.disabled, one.level) for one in taken]
        try:
            taken[-1].setLevel(logging.CRITICAL)  # as a server that was to be quiet leaves it
            lines.json.take_over()
            logging.getLogger("flwr").warning("got %s", email(7))
            logging.getLogger("uvicorn").info("got %s", email(7))
            logging.getLogger("comity.apps").error("no answer from %s", "brand")
            try:
                int(email(8))
            except ValueError:
                logging.getLogger("uvicorn.error").exception("failed")
        finally:
            for one, (handlers, propagate, disabled, level) in zip(taken, before, strict=True):
                one.handlers[:], one.propagate, one.disabled = handlers, propagate, disabled
                one.setLevel(level)
        check_told(lines.file.getvalue())
        assert [
            (one.get("logger"), one.get("told"), one.get("error")) for one in lines.written()
        ] == [
            ("flwr", None, None),
            ("comity.apps", "no answer from brand", None),
            ("uvicorn.error", None, "ValueError"),
        ]

    def test_every_event_can_be_written(self) -> None:
        lines = Lines()
        for one in Event:
            lines.json.write(one)
        assert [one["event"] for one in lines.written()] == list(Event)


# ---------------------------------------------------------------------------------------- spans


class Collector(HTTPServer):
    """A collector of OpenTelemetry on loopback: keeps every span that it is sent, and whose it is."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiving)
        self.spans: list[tuple[str, OtlpSpan]] = []
        self.bodies: list[bytes] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1/traces"


class Receiving(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.bodies.append(body)
        for one in ExportTraceServiceRequest.FromString(body).resource_spans:
            named = {pair.key: pair.value.string_value for pair in one.resource.attributes}
            assert named.keys() == {"service.name", "service.instance.id"}
            party = named["service.instance.id"]
            self.server.spans += [
                (party, span) for scope in one.scope_spans for span in scope.spans
            ]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def answered(world: World, exchanges: list[Exchange]) -> list[tuple[str, Answered]]:
    """What each party's node observed of the jobs."""
    senders = [world.read(one).header.sender for one in world.wire[1::2]]
    told = [Answered(one, 1, 0.5, 10, 1) for one in exchanges]
    return list(zip(senders, told, strict=True))


class TestSpans:
    def test_those_of_all_parties_make_one_tree_for_each_job(
        self, world: Counting, answered: list[tuple[str, Answered]]
    ) -> None:
        told = [span_of(one, party) for party, one in answered]
        theirs = [one for one in told if one is not None]
        assert len(theirs) == len(answered)
        within = {one.span: one for one in world.spans}
        traces = {trace_id(world.agreement.digest, job): job for job in ("find", "model", "best")}
        assert {one.trace for one in theirs if one.attributes["comity.job"] in traces.values()} == (
            traces.keys()
        )
        for one in theirs:
            depth, above = 0, one
            while above.parent is not None:
                assert within[above.parent].trace == one.trace
                above = within[above.parent]
                depth += 1
            assert (above.name, depth) == ("job", 3)
            assert above.attributes["comity.job"] == one.attributes["comity.job"]
        names = [one.span for one in (*theirs, *world.spans)]
        assert len(set(names)) == len(names)

    def test_a_collector_gets_them_whole_and_nothing_of_people(
        self, world: Counting, answered: list[tuple[str, Answered]], collector: Collector
    ) -> None:
        with traced(collector.address, "coordinator") as send:
            send(world.spans)
        for name in PEOPLE:
            with traced(collector.address, name) as send:
                told = [span_of(one, party) for party, one in answered if party == name]
                send([one for one in told if one is not None])
        check_told(b"".join(collector.bodies).decode(errors="replace"))
        assert len(collector.spans) == len(world.spans) + len(answered)
        found = {int.from_bytes(span.span_id): (party, span) for party, span in collector.spans}
        for one in world.spans:
            party, span = found[one.span]
            assert party == "coordinator"
            assert int.from_bytes(span.trace_id) == one.trace
            assert int.from_bytes(span.parent_span_id) == (one.parent or 0)
            assert (span.name, span.start_time_unix_nano) == (one.name, one.begun)
        keys = {pair.key for _, span in collector.spans for pair in span.attributes}
        assert keys == {
            f"comity.{one}"
            for one in ("job", "kind", "outcome", "bytes_in", "bytes_out", "node", "peer")
        }

    def test_an_exchange_that_fails_is_a_span_that_failed(self, world: Counting) -> None:
        class Broken:
            def nodes(self, at_least: int, **patience: float) -> Sequence[int]:
                return []

            def exchange(self, parcels: Sequence[Parcel], *, most_missing: int = 0) -> NoReturn:
                raise PartyUnreachableError("no answer from brand")

        spans: list[Span] = []
        channel = TracedChannel(Broken(), spans.extend)
        with pytest.raises(PartyUnreachableError):
            channel.exchange([Parcel(0, world.wire[0])])
        assert [one.failed for one in spans] == [True, True]

    def test_what_belongs_to_no_job_is_no_span(self) -> None:
        assert span_of(Answered(Exchange(), 0, 1.0, 1, 1), "brand") is None

    def test_without_its_packages_it_says_which_extra_has_them(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
        with (
            pytest.raises(WorkspaceError, match=r"comity\[observe\]"),
            traced("http://127.0.0.1:9/v1/traces", "brand"),
        ):
            pass

    @pytest.mark.parametrize("url", ["127.0.0.1:4318", "http://me:secret@127.0.0.1/v1/traces"])
    def test_a_collector_is_named_by_a_url_without_a_password(self, url: str) -> None:
        given = {"party": Path(), "superlink": "127.0.0.1:1", "auth_supernode_private_key": Path()}
        with pytest.raises(WorkspaceError, match="traces") as raised:
            NodeConfig.of(None, given | {"traces": url})
        assert "secret" not in str(raised.value)
