"""Messages between nodes in one process: Flower's records, our channel, our Grid, the thin apps."""

import math
import os
import random
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import flwr
import numpy as np
import pytest
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import given
from hypothesis import strategies as st
from parties import MATCH, World

from federation import embedded
from federation.apps import client_app, server_app
from federation.channel import (
    ENVELOPE,
    PAYLOAD,
    Channel,
    GridChannel,
    GridFailingError,
    Parcel,
    from_record,
    to_record,
)
from federation.coordinator import Coordinator, write_jobs
from federation.embedded import FIRST_NODE, NODE_FAILED, EmbeddedGrid
from federation.errors import (
    FederationError,
    MessageError,
    PartyUnreachableError,
    VersionError,
    WorkspaceError,
)
from federation.messages import SealedMessage
from federation.operations.journal import RunJournal, RunState
from federation.progress import Progress, listening, report
from federation.roll_call import Patience
from federation.wire import installed

ROOT = Path(__file__).resolve().parent.parent
NODES = (FIRST_NODE, FIRST_NODE + 1, FIRST_NODE + 2)

Handler = Callable[[Message, Context], RecordDict]


def app_of(handler: Handler) -> ClientApp:
    """A ClientApp that answers with what `handler` returns."""
    app = ClientApp()

    @app.query()
    def answer(message: Message, context: Context) -> Message:
        return Message(handler(message, context), reply_to=message)

    return app


def question(number: int) -> SealedMessage:
    return SealedMessage(f'{{"number":{number}}}'.encode(), number.to_bytes(4) * (number % 7))


def told_back(message: Message, context: Context) -> RecordDict:
    """Answer with the question, its payload reversed, and the answering node's name."""
    asked = from_record(message.content)
    node = context.node_config["party"].encode()
    return to_record(SealedMessage(asked.envelope + node, asked.payload[::-1]))


def expected_back(parcel: Parcel) -> SealedMessage:
    node = f"node-{parcel.node - FIRST_NODE}".encode()
    return SealedMessage(parcel.message.envelope + node, parcel.message.payload[::-1])


class OtherVersionGrid(EmbeddedGrid):
    """Has a node that takes no run of this version of the project."""

    def _answer(self, message: Message) -> Message:
        if message.metadata.dst_node_id != NODES[1]:
            return super()._answer(message)
        error = Error(ErrorCode.INVALID_FAB, "retailer runs Comity 9.9\x1b[2J" + 200 * "!")
        answer = Message(error, reply_to=message)
        embedded._give_identifier(answer)
        return answer


class DrippingGrid(EmbeddedGrid):
    """Gives one answer a look, the latest first, beside somebody else's: a slow, careless link."""

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        wanted = list(message_ids)[-1:]
        stray = EmbeddedGrid.push_messages(
            self, [Message(to_record(question(9)), NODES[0], "query")]
        )
        return [*super().pull_messages(stray), *super().pull_messages(wanted)]


@pytest.fixture
def other_version_grid() -> Iterator[OtherVersionGrid]:
    places = [Path(f"node-{number}") for number in range(len(NODES))]
    grid = OtherVersionGrid(places, app=app_of(told_back))
    yield grid
    grid.close()


@pytest.mark.parametrize("most_missing", [0, 3])
def test_a_node_of_another_version_is_no_node_that_failed(
    other_version_grid: OtherVersionGrid, most_missing: int
) -> None:
    parcels = [Parcel(node, question(1)) for node in NODES]
    with pytest.raises(VersionError) as raised:
        GridChannel(other_version_grid).exchange(parcels, most_missing=most_missing)
    told = str(raised.value)
    assert told.startswith(f"node {NODES[1]} takes no run of {installed()}; it says: retailer runs")
    assert "Comity 9.9 [2J!!" in told
    assert told.endswith(
        "on both sides, then run again, or have that node allow this version's bundle"
    )
    assert len(told) < 400


def test_whoever_is_told_of_another_version_at_once_has_no_answer_and_nobody_missing(
    other_version_grid: OtherVersionGrid,
) -> None:
    told: list[FederationError] = []
    parcels = [Parcel(node, question(1), on_version=told.append) for node in NODES]
    answers = GridChannel(other_version_grid).exchange(parcels)
    assert [type(error) for error in told] == [VersionError]
    expected = [expected_back(parcel) for parcel in parcels]
    assert list(answers) == [expected[0], None, expected[2]]


def test_what_whoever_is_told_of_another_version_raises_ends_the_exchange(
    other_version_grid: OtherVersionGrid,
) -> None:
    def refuse(error: FederationError) -> None:
        raise WorkspaceError("enough") from error

    parcels = [Parcel(node, question(1), on_version=refuse) for node in NODES]
    with pytest.raises(WorkspaceError, match="enough"):
        GridChannel(other_version_grid).exchange(parcels, most_missing=3)


class ChannelContract:
    """What every channel keeps, whatever carries it."""

    grid: type[EmbeddedGrid]

    @pytest.fixture
    def open_channel(self) -> Iterator[Callable[..., Channel]]:
        grids: list[EmbeddedGrid] = []

        def opened(handler: Handler, *, deadline_seconds: float = 60.0) -> Channel:
            folders = [Path(f"node-{index}") for index in range(len(NODES))]
            grids.append(self.grid(folders, app=app_of(handler)))
            return GridChannel(grids[-1], deadline_seconds=deadline_seconds, poll_seconds=0.001)

        yield opened
        for grid in grids:
            grid.close()

    def test_every_question_gets_its_own_answer_in_the_order_asked(
        self, open_channel: Callable[..., Channel]
    ) -> None:
        rng = random.Random(5)
        parcels = [Parcel(rng.choice(NODES), question(number)) for number in range(20)]
        answers = open_channel(told_back).exchange(parcels)
        assert list(answers) == [expected_back(parcel) for parcel in parcels]

    def test_the_same_question_to_every_node_is_answered_by_every_node(
        self, open_channel: Callable[..., Channel]
    ) -> None:
        parcels = [Parcel(node, question(3)) for node in NODES]
        answers = open_channel(told_back).exchange(parcels)
        assert list(answers) == [expected_back(parcel) for parcel in parcels]

    def test_one_exchange_leaves_nothing_for_the_next(
        self, open_channel: Callable[..., Channel]
    ) -> None:
        channel = open_channel(told_back)
        for number in range(3):
            parcels = [Parcel(node, question(number)) for node in NODES]
            assert list(channel.exchange(parcels)) == [expected_back(parcel) for parcel in parcels]

    def test_nodes_are_told_in_ascending_order(self, open_channel: Callable[..., Channel]) -> None:
        assert tuple(open_channel(told_back).nodes(at_least=3)) == NODES

    def test_after_the_deadline_those_nodes_are_told_that_are_there(
        self, open_channel: Callable[..., Channel]
    ) -> None:
        channel = open_channel(told_back, deadline_seconds=0.01)
        assert tuple(channel.nodes(at_least=4)) == NODES

    def test_one_answer_missing_past_the_deadline_fails_the_whole_exchange(
        self, open_channel: Callable[..., Channel]
    ) -> None:
        released = threading.Event()

        def silent_at_the_last(message: Message, context: Context) -> RecordDict:
            if context.node_id == NODES[-1]:
                released.wait(30)
            return told_back(message, context)

        channel = open_channel(silent_at_the_last, deadline_seconds=0.3)
        try:
            with pytest.raises(
                PartyUnreachableError, match=r"no answer from .* within 0\.3 s"
            ) as raised:
                channel.exchange([Parcel(node, question(1), f"party-{node}") for node in NODES])
        finally:
            released.set()
        assert f"party-{NODES[-1]} (node {NODES[-1]})" in str(raised.value)

    def test_a_node_that_fails_fails_the_whole_exchange_by_its_number(
        self, open_channel: Callable[..., Channel]
    ) -> None:
        def failing_in_the_middle(message: Message, context: Context) -> RecordDict:
            if context.node_id == NODES[1]:
                raise ValueError("somebody@example.com")
            return told_back(message, context)

        channel = open_channel(failing_in_the_middle)
        with pytest.raises(PartyUnreachableError, match=f"node {NODES[1]} failed") as raised:
            channel.exchange([Parcel(node, question(1)) for node in NODES])
        assert "example.com" not in str(raised.value)

    def test_who_is_asked_in_passing_is_not_waited_for_as_long_as_the_others(
        self, open_channel: Callable[..., Channel]
    ) -> None:
        released = threading.Event()

        def silent_in_the_middle(message: Message, context: Context) -> RecordDict:
            if context.node_id == NODES[1]:
                released.wait(30)
            return told_back(message, context)

        channel = open_channel(silent_in_the_middle)
        parcels = [
            Parcel(node, question(1), patience_seconds=0.2 if node == NODES[1] else 40.0)
            for node in NODES
        ]
        try:
            answers = channel.exchange(parcels, most_missing=1)
            assert [answer is None for answer in answers] == [False, True, False]
            with pytest.raises(PartyUnreachableError, match=f"no answer from node {NODES[1]}"):
                channel.exchange(parcels)
        finally:
            released.set()

    @pytest.mark.parametrize("most_missing", [0, 1, 2])
    def test_as_many_may_be_missing_as_the_exchange_allows_silent_or_failed(
        self, open_channel: Callable[..., Channel], most_missing: int
    ) -> None:
        released = threading.Event()

        def two_are_lost(message: Message, context: Context) -> RecordDict:
            if context.node_id == NODES[1]:
                raise ValueError("somebody@example.com")
            if context.node_id == NODES[0]:  # the last that the slow link looks for
                released.wait(30)
            return told_back(message, context)

        channel = open_channel(two_are_lost, deadline_seconds=3.0 if most_missing == 2 else 0.3)
        parcels = [Parcel(node, question(1)) for node in NODES]
        try:
            if most_missing < 2:
                with pytest.raises(PartyUnreachableError):
                    channel.exchange(parcels, most_missing=most_missing)
                return
            answers = channel.exchange(parcels, most_missing=most_missing)
        finally:
            released.set()
        lost = {0, 1}
        assert list(answers) == [
            None if place in lost else expected_back(parcel) for place, parcel in enumerate(parcels)
        ]

    def test_an_answer_that_is_no_message_of_ours_fails_the_whole_exchange(
        self, open_channel: Callable[..., Channel]
    ) -> None:
        def foreign_at_the_first(message: Message, context: Context) -> RecordDict:
            if context.node_id == NODES[0]:
                return RecordDict({"metrics": MetricRecord({"accuracy": 1.0})})
            return told_back(message, context)

        channel = open_channel(foreign_at_the_first)
        with pytest.raises(MessageError, match=f"node {NODES[0]} answered with a record without"):
            channel.exchange([Parcel(node, question(1)) for node in NODES])
        told: list[Exception] = []
        answers = channel.exchange(
            [Parcel(node, question(1), on_foreign=told.append) for node in NODES]
        )
        assert [str(one) for one in told] == [str(told[0])]
        assert [answer is None for answer in answers] == [node == NODES[0] for node in NODES]


class TestChannelOverTheEmbeddedGrid(ChannelContract):
    grid = EmbeddedGrid


class TestChannelOverADrippingGrid(ChannelContract):
    grid = DrippingGrid


@pytest.mark.parametrize("refusal", [[], [None]], ids=["left out", "None in its place"])
def test_a_message_that_flower_does_not_take_is_an_error_at_once(refusal: list[None]) -> None:
    class FullGrid(EmbeddedGrid):
        def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
            first, *_ = messages
            return [*super().push_messages([first]), *refusal]

    grid = FullGrid([Path("node-0"), Path("node-1")], app=app_of(told_back))
    try:
        with pytest.raises(PartyUnreachableError, match="took 1 of 2 messages"):
            GridChannel(grid).exchange([Parcel(node, question(1)) for node in NODES[:2]])
    finally:
        grid.close()


@pytest.mark.parametrize("looking", [0.0, 0.04, 0.5, 3.0])
def test_looks_for_an_answer_grow_rarer_the_longer_it_takes_and_count_as_waiting(
    monkeypatch: pytest.MonkeyPatch, looking: float
) -> None:
    now, pauses = [0.0], []
    monkeypatch.setattr(embedded, "PATIENCE_SECONDS", 0)

    def wait(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += 3 - looking

    monkeypatch.setattr("federation.channel.time.sleep", wait)
    released = threading.Event()

    def silent(message: Message, context: Context) -> RecordDict:
        released.wait(30)
        return told_back(message, context)

    class SlowGrid(EmbeddedGrid):
        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
            now[0] += looking
            return super().pull_messages(message_ids)

    grid = SlowGrid([Path("node-0")], app=app_of(silent))
    channel = GridChannel(grid, deadline_seconds=13, clock=lambda: now[0])
    try:
        with pytest.raises(PartyUnreachableError):
            channel.exchange([Parcel(NODES[0], question(1))])
    finally:
        released.set()
        grid.close()
    waited = [looking + 3 * look for look in range(5)]
    shortest = [min(max(0.05, one / 10), 1.0) for one in waited if one <= 13]
    assert pauses == pytest.approx([max(0.0, one - looking) for one in shortest])


class NobodysGrid:
    """A grid without nodes, which takes what is said all the same."""

    def get_node_ids(self) -> Iterable[int]:
        return []

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return [str(number) for number, _ in enumerate(messages, 1)]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return []


@pytest.mark.parametrize(("deadline", "patience"), [(13, 5), (5, 13), (5, math.inf)])
def test_nobody_is_waited_for_longer_than_channel_and_job_bear(
    monkeypatch: pytest.MonkeyPatch, deadline: float, patience: float
) -> None:
    now = [0.0]
    monkeypatch.setattr("federation.channel.time.sleep", lambda _: now.append(now[-1] + 1.0))
    channel = GridChannel(NobodysGrid(), deadline_seconds=deadline, clock=lambda: now[-1])
    assert channel.nodes(1, patience_seconds=patience) == []
    assert 5 < now.pop() <= 6
    now[:] = [0.0]
    with pytest.raises(PartyUnreachableError, match="within 5 s"):
        channel.exchange([Parcel(1, question(1), patience_seconds=patience)])
    assert 5 < now.pop() <= 6


class FailingGrid(NobodysGrid):
    """A grid whose calls of some names fail."""

    def __init__(self, *failing: str) -> None:
        self._failing = failing

    def _fail(self, call: str) -> None:
        if call in self._failing:
            raise GridFailingError("HTTP 500")

    def get_node_ids(self) -> Iterable[int]:
        self._fail("nodes")
        return super().get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        self._fail("push")
        return super().push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        self._fail("pull")
        return super().pull_messages(message_ids)


@pytest.mark.parametrize("call", ["nodes", "push", "pull"])
def test_a_grid_that_fails_is_asked_again_for_as_long_as_a_job_bears_and_no_longer(
    monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    now, told = [0.0], []
    monkeypatch.setattr("federation.channel.time.sleep", lambda _: now.append(now[-1] + 1.0))
    channel = GridChannel(FailingGrid(call), clock=lambda: now[-1], tell=told.append)

    def ask() -> object:
        if call == "nodes":
            return channel.nodes(0, patience_seconds=5)
        return channel.exchange([Parcel(1, question(1), patience_seconds=5)])

    with pytest.raises(PartyUnreachableError, match=r"SuperLink.* fail"):
        ask()
    assert 5 < now.pop() <= 6
    assert told == ["the SuperLink fails (HTTP 500): it is asked again until it answers"]


def test_whose_answers_are_waited_for_and_until_when_is_told_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, told = [0.0], list[str]()
    monkeypatch.setattr("federation.channel.time.sleep", lambda _: now.append(now[-1] + 1.0))

    def ask(*parcels: Parcel, seconds: float = 60) -> None:
        channel = GridChannel(
            NobodysGrid(), deadline_seconds=seconds, clock=lambda: now[-1], tell=told.append
        )
        with pytest.raises(PartyUnreachableError):
            channel.exchange(parcels)

    ask(Parcel(1, question(1), "courier", patience_seconds=30), Parcel(2, question(2)))
    (line,) = told
    words, end = line.removesuffix(" UTC").split(", until ")
    assert words == "waits for the answer of courier (node 1), node 2, 19 s at most"
    left = datetime.fromisoformat(f"{end}+00:00") - datetime.now(UTC)
    assert left <= timedelta(seconds=19)
    told.clear()
    ask(Parcel(2, question(2)), seconds=9)
    assert told == []


@given(envelope=st.text(), payload=st.binary(max_size=2000))
def test_a_record_holds_a_message_byte_for_byte(envelope: str, payload: bytes) -> None:
    message = SealedMessage(envelope.encode(), payload)
    assert from_record(to_record(message)) == message


def array_of(data: bytes, stype: str = "numpy.ndarray") -> ArrayRecord:
    return ArrayRecord({"bytes": Array(dtype="uint8", shape=(3,), stype=stype, data=data)})


ENVELOPE_RECORD = ConfigRecord({"json": "{}"})
PAYLOAD_RECORD = array_of(b"abc", stype="comity.bytes")
MALFORMED = {
    "empty": RecordDict(),
    "no payload": RecordDict({ENVELOPE: ENVELOPE_RECORD}),
    "no envelope": RecordDict({PAYLOAD: PAYLOAD_RECORD}),
    "kinds swapped": RecordDict({ENVELOPE: PAYLOAD_RECORD, PAYLOAD: ENVELOPE_RECORD}),
    **{
        f"envelope is {value!r}": RecordDict(
            {ENVELOPE: ConfigRecord({"json": value}), PAYLOAD: PAYLOAD_RECORD}
        )
        for value in (7, b"{}", ["{}"], "\ud800")
    },
    **{
        f"payload is {name}": RecordDict({ENVELOPE: ENVELOPE_RECORD, PAYLOAD: record})
        for name, record in {
            "of doubles": ArrayRecord({"bytes": Array(np.zeros(3))}),
            "a table": ArrayRecord({"bytes": Array(np.zeros((2, 2), dtype=np.uint8))}),
            "a scalar": ArrayRecord({"bytes": Array(np.array(1, dtype=np.uint8))}),
            "of no bytes": array_of(b""),
            "no array": array_of(b"junk"),
            "cut short": array_of(Array(np.arange(3, dtype=np.uint8)).data[:-1]),
            "a pickle": array_of(b"\x80\x04N."),
            "a zip file": array_of(b"PK\x05\x06" + bytes(18)),
            "of another form": array_of(b"", stype="torch"),
            "numpy's own": ArrayRecord({"bytes": Array(np.arange(3, dtype=np.uint8))}),
            "longer than it says": array_of(b"abcd", stype="comity.bytes"),
        }.items()
    },
    **{
        f"payload inline is {value!r}": RecordDict(
            {ENVELOPE: ConfigRecord({"json": "{}", "payload": value})}
        )
        for value in ("abc", 7, [b"abc"])
    },
    **{
        f"array {name}": RecordDict({ENVELOPE: ENVELOPE_RECORD, PAYLOAD: record})
        for name, record in {
            "of text": ArrayRecord(
                {"bytes": Array(dtype="str", shape=(3,), stype="comity.bytes", data=b"abc")}
            ),
        }.items()
    },
}


def test_a_large_payload_is_a_row_of_bytes() -> None:
    message = SealedMessage(b"{}", bytes(1 + (1 << 18)))
    assert PAYLOAD in to_record(message).array_records
    assert from_record(to_record(message)) == message
    named = RecordDict({ENVELOPE: ENVELOPE_RECORD, PAYLOAD: PAYLOAD_RECORD})
    assert from_record(named) == SealedMessage(b"{}", b"abc")


@pytest.mark.parametrize("record", MALFORMED.values(), ids=MALFORMED.keys())
def test_any_other_record_is_a_message_error(record: RecordDict) -> None:
    with pytest.raises(MessageError, match="record"):
        from_record(record)


@pytest.fixture
def grid() -> Iterator[EmbeddedGrid]:
    opened = EmbeddedGrid([Path("node-0"), Path("node-1"), Path("node-2")], app=app_of(told_back))
    yield opened
    opened.close()


def flower_messages(*nodes: int) -> list[Message]:
    return [Message(to_record(question(node)), node, "query") for node in nodes]


def test_the_embedded_grid_is_a_flower_grid_with_a_node_per_folder(grid: EmbeddedGrid) -> None:
    assert isinstance(grid, Grid)
    assert list(grid.get_node_ids()) == list(NODES)


def test_send_and_receive_returns_what_push_and_pull_do(grid: EmbeddedGrid) -> None:
    pushed = list(grid.push_messages(flower_messages(*NODES)))
    pulled = {reply.metadata.reply_to_message_id: reply for reply in grid.pull_messages(pushed)}
    received = grid.send_and_receive(flower_messages(*NODES), timeout=60)
    assert sorted(pulled) == sorted(pushed)
    assert sorted(from_record(reply.content).envelope for reply in received) == sorted(
        from_record(reply.content).envelope for reply in pulled.values()
    )


def test_an_answer_is_given_out_once(grid: EmbeddedGrid) -> None:
    (pushed,) = grid.push_messages(flower_messages(NODES[0]))
    assert len(list(grid.pull_messages([pushed]))) == 1
    assert list(grid.pull_messages([pushed, "unknown"])) == []


def test_nodes_work_side_by_side() -> None:
    both = threading.Barrier(2, timeout=30)

    def meet(message: Message, context: Context) -> RecordDict:
        both.wait()
        return told_back(message, context)

    grid = EmbeddedGrid([Path("node-0"), Path("node-1")], app=app_of(meet))
    try:
        replies = grid.send_and_receive(flower_messages(*NODES[:2]), timeout=60)
    finally:
        grid.close()
    assert [reply.has_error() for reply in replies] == [False, False]


def test_progress_of_nodes_reaches_who_listens_where_the_message_was_sent() -> None:
    def tell(message: Message, context: Context) -> RecordDict:
        report(Progress(context.node_config["party"], "job", threading.current_thread().name))
        return told_back(message, context)

    heard: list[Progress] = []
    grid = EmbeddedGrid([Path("node-0"), Path("node-1")], app=app_of(tell))
    try:
        with listening(heard.append):
            list(grid.send_and_receive(flower_messages(*NODES[:2]), timeout=60))
        list(grid.send_and_receive(flower_messages(*NODES[:2]), timeout=60))
    finally:
        grid.close()
    assert sorted(progress.party for progress in heard) == ["node-0", "node-1"]
    assert all(progress.stage.startswith("comity-node") for progress in heard)


def failure_of(app: ClientApp, folder: Path) -> Message:
    """What Flower carries from a node that fails."""
    grid = EmbeddedGrid([folder], app=app)
    try:
        (reply,) = grid.send_and_receive(flower_messages(NODES[0]), timeout=60)
    finally:
        grid.close()
    assert reply.has_error()
    return reply


def test_a_failing_node_becomes_a_flower_error_that_names_the_kind_alone() -> None:
    def fail(message: Message, context: Context) -> RecordDict:
        raise ValueError("somebody@example.com")

    reply = failure_of(app_of(fail), Path("node-0"))
    assert (reply.error.code, reply.error.reason) == (NODE_FAILED, "ValueError")


FAILING_FOLDERS: dict[str, tuple[Callable[[Path], object], type[Exception]]] = {
    "is missing": (lambda path: None, WorkspaceError),
    "cannot be read": (lambda path: (path / "party.json").mkdir(parents=True), IsADirectoryError),
}


@pytest.mark.parametrize("case", FAILING_FOLDERS)
def test_what_the_client_app_raises_says_nothing_of_what_failed_inside(
    case: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make, kind = FAILING_FOLDERS[case]
    folder = tmp_path / "secret-place"
    make(folder)
    EmbeddedGrid([])  # a message needs somebody who sends it
    (message,) = flower_messages(NODES[0])
    context = Context(1, NODES[0], {"party": str(folder)}, RecordDict(), {})
    with pytest.raises(FederationError) as raised:
        client_app.app(message, context)
    assert str(raised.value) == f"the node failed with {kind.__name__}"
    assert raised.value.__suppress_context__
    assert raised.value.__cause__ is None
    assert "no answer" in caplog.text


@pytest.mark.parametrize(("away", "again"), [(0, False), (1, False), (1, True)])
def test_a_run_that_went_without_somebody_says_so_last_of_all(
    away: int, again: bool, tmp_path: Path
) -> None:
    """Also where an earlier attempt had ended the job, and was killed before it said so."""
    world = World.make(tmp_path / "world")
    folder = world.folder("coordinator")
    write_jobs(folder, [MATCH.model_copy(update={"absent_partners": 1})])
    journal = RunJournal(tmp_path / "runs")
    number = journal.submit(["find"], by="alice", patience_seconds=1).number
    journal.change(number, RunState.RUNNING, by="coordinator")
    people = ("brand", "retailer", "courier")[: 3 - away]
    grid = EmbeddedGrid([world.folder(name).path for name in people])
    config = {"coordinator": str(folder.path), "run": str(journal.folder(number))}
    try:
        if again:
            channel = GridChannel(grid, deadline_seconds=60.0, nodes_seconds=1.0)
            Coordinator.open(folder.path).run(channel, patience=Patience.of(60.0, 1.0))
        server_app.app(grid, Context(1, 1, {}, RecordDict(), config | {"deadline-seconds": 60.0}))
    finally:
        grid.close()
    run = journal.run(number)
    assert (run.state, run.told) == (RunState.DONE, "find without courier" if away else "")
    last = "done: find has ended" + (": find without courier" if away else "")
    lines = journal.lines(number).lines
    assert lines[-1] == last
    waits = [line for line in lines if "waits for courier, 1 s at most, until " in line]
    assert len(waits) == away


@pytest.mark.parametrize("node_config", [{}, {"party": ""}, {"party": 7}])
def test_a_node_without_a_folder_says_in_its_own_log_what_to_configure(
    node_config: dict[str, str | int], caplog: pytest.LogCaptureFixture
) -> None:
    EmbeddedGrid([])
    (message,) = flower_messages(NODES[0])
    with pytest.raises(FederationError):
        client_app.app(message, Context(1, NODES[0], node_config, RecordDict(), {}))
    assert 'lacks party="FOLDER"' in caplog.text


@pytest.mark.parametrize("run_config", [{}, {"coordinator": ""}, {"coordinator": 7}])
def test_a_run_without_a_coordinator_folder_says_what_to_configure(
    grid: EmbeddedGrid, run_config: dict[str, str | int]
) -> None:
    with pytest.raises(WorkspaceError, match='lacks coordinator="FOLDER"'):
        server_app.app(grid, Context(1, 1, {}, RecordDict(), run_config))


def test_flower_is_the_version_that_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = [
        requirement
        for extra in project["optional-dependencies"].values()
        for requirement in extra
        if requirement.startswith("flwr")
    ]
    assert set(pins) == {f"flwr=={flwr.__version__}"}
    assert flwr.__version__ == "1.41.0"


def test_flowers_private_names_are_where_the_embedded_grid_expects_them() -> None:
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 0
    grid = EmbeddedGrid([])
    message = Message(RecordDict(), NODES[0], "query")
    metadata = message.metadata
    assert (metadata.run_id, metadata.src_node_id) == (embedded.RUN_ID, embedded.SERVER_NODE)
    metadata.__dict__["_message_id"] = "ours"
    assert metadata.message_id == "ours"
    assert Message(RecordDict(), reply_to=message).metadata.reply_to_message_id == "ours"
    assert grid.run.run_id == embedded.RUN_ID
    grid.set_run(Run.create_empty(12))
    assert grid.run.run_id == 12


@pytest.mark.parametrize("module", ["federation.channel", "federation.apps.client_app"])
def test_flower_keeps_to_itself_wherever_federation_is_imported_first(module: str) -> None:
    script = (
        f"import {module}, os; from flwr.supercore import telemetry; "
        "print(telemetry.FLWR_TELEMETRY_ENABLED, os.environ['FLWR_DISABLE_UPDATE_CHECK'])"
    )
    environment = {name: one for name, one in os.environ.items() if not name.startswith("FLWR_")}
    command = [sys.executable, "-c", script]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["0", "1"]
