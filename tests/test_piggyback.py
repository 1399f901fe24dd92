"""Small messages go and come with all their objects in one call, and by Flower's calls otherwise."""

import gzip
import hashlib
import socket
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from random import Random
from typing import Any

import httpx
import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message
from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE, ErrorCode
from flwr.proto.fleet_pb2 import PullMessagesRequest, PushMessagesRequest
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.object_store import NoObjectInStoreError
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid.http_grid import HttpGrid
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from federation.apps import grid, operating, superlink
from federation.apps.carriage import CarriedMessage
from federation.apps.grid import PiggybackGrid
from federation.apps.operating import pushes
from federation.apps.operating.flower import FlowerNodes, FlowerObjects, FlowerRuns, superlink_app
from federation.apps.operating.pushes import MOST_OBJECTS, Pushes
from federation.apps.operating.riding import Riding
from federation.apps.piggyback import RIDING_BYTES, may_ride, riders, with_riders, with_wish
from federation.apps.superlink import MessageTooLargeError, RunOverError, SuperLink
from federation.channel import INLINE_BYTES, GridChannel, Parcel, from_record, to_record
from federation.errors import SuperLinkError
from federation.messages import SealedMessage
from federation.messages.header import MAX_PAYLOAD_BYTES
from federation.messages.sealed import MAX_HEADER_BYTES

KEY, OTHER_KEY = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
PUBLIC = public_key_to_bytes(KEY.public_key())


@given(st.lists(st.binary(max_size=50)), st.integers(0, 1 << 63))
def test_what_rides_leaves_the_rest_of_a_call_as_it_was(contents: list[bytes], node: int) -> None:
    request = PushMessagesRequest(node=Node(node_id=node))
    travelled = with_riders(request, contents).SerializeToString(deterministic=True)
    assert set(riders(travelled).values()) == set(contents)
    come = PushMessagesRequest.FromString(travelled)
    assert come.node.node_id == node
    come.DiscardUnknownFields()
    assert come == PushMessagesRequest(node=Node(node_id=node))
    assert not may_ride(travelled)
    asked = with_wish(PullMessagesRequest(node=Node(node_id=node))).SerializeToString()
    assert may_ride(asked)
    assert not may_ride(PullMessagesRequest(node=Node(node_id=node)).SerializeToString())
    assert PullMessagesRequest.FromString(asked).node.node_id == node


# -------------------------------------------------------------------------------- a real SuperLink


async def nowhere(_: Any) -> None:
    """Send nothing."""


class Counted:
    """An app whose calls are counted by their last word."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.calls: Counter[str] = Counter()
        self.before: Callable[[str], None] = lambda _: None
        self.fails: Counter[str] = Counter()
        """How often each call of a node is answered as where Flower cannot write its state."""
        self.fails_grid: Counter[str] = Counter()
        """Likewise, of a ServerApp."""
        self.loses: Counter[str] = Counter()
        """How often each call is taken, and its answer lost."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            call = scope["path"].rpartition("/")[2]
            self.calls[call] += 1
            self.before(call)
            fails = self.fails if scope["path"].startswith("/v1/fleet/") else self.fails_grid
            if fails[call]:
                fails[call] -= 1
                await Response(status_code=500)(scope, receive, send)
                return
            if self.loses[call]:
                self.loses[call] -= 1
                await self.app(scope, receive, nowhere)
                await Response(status_code=502)(scope, receive, send)
                return
        await self.app(scope, receive, send)


@dataclass
class Line:
    """A SuperLink with a node and a ServerApp on loopback."""

    superlink: Counted
    state: Any
    store: InMemoryObjectStore
    grid: HttpGrid
    client: FleetHttpClient
    address: str
    node: SuperLink = field(init=False)

    def __post_init__(self) -> None:
        self.node = SuperLink(self.client, self.address, KEY.public_key(), print, lambda: None)

    def question(self, payload: bytes) -> Message:
        self.speak(1)
        return Message(to_record(SealedMessage(b"{}", payload)), self.node.node_id, "query")

    def answer(self, question: CarriedMessage, payload: bytes) -> CarriedMessage:
        self.speak(self.node.node_id)
        record = to_record(SealedMessage(b"{}", payload))
        return CarriedMessage.take_apart(Message(record, reply_to=question.put_together()))

    def speak(self, node: int) -> None:
        """Flower has one speaker a process; here node and ServerApp take turns."""
        TaskIdentity.task_id, TaskIdentity.run_id = 1, self.grid.run.run_id
        TaskIdentity.node_id = node


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, lifespan="off", ws="none", log_level="warning")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def lined(*, rides: bool) -> Iterator[Line]:
    app = superlink_app(b"secret")
    FlowerNodes(app).register(PUBLIC, "brand")
    FlowerNodes(app).register(public_key_to_bytes(OTHER_KEY.public_key()), "retailer")
    run = FlowerRuns(app).start({"coordinator": "/nowhere", "run": "/nowhere/000001"})
    state: Any = app.state.linkstate_factory.state()
    (task,) = state.get_tasks()
    token = state.claim_task(task.task_id)
    state.activate_task(task.task_id)
    counted = Counted(Pushes(Riding(app, FlowerObjects(app))) if rides else app)
    with serving(counted) as address:
        stock_grid = HttpGrid(address, insecure=True, token=token)
        (described,) = state.get_run_info(run_ids=[run])
        stock_grid.set_run(described)
        with called_by(KEY, address) as client:
            yield Line(counted, state, state.object_store, stock_grid, client, address)
        stock_grid.close()


def called_by(key: ec.EllipticCurvePrivateKey, address: str) -> FleetHttpClient:
    version = RuntimeVersionHttpInterceptor(component_name="SuperNode")
    shown = NodeAuthHttpInterceptor(key, key.public_key())
    return FleetHttpClient.from_server_address(
        address, insecure=True, root_certificates=None, interceptors=[version, shown]
    )


@pytest.fixture(scope="module")
def riding() -> Iterator[Line]:
    """A coordinator's."""
    with lined(rides=True) as line:
        yield line


@pytest.fixture(scope="module")
def stock() -> Iterator[Line]:
    """Flower's own."""
    with lined(rides=False) as line:
        yield line


def exchange(line: Line, asked: bytes, said: bytes, carrier: Any) -> Counter[str]:
    """Carry a question and its answer; return the calls that it took."""
    line.superlink.calls.clear()
    (sent,) = carrier.push_messages([line.question(asked)])
    question = line.node.pull()
    assert question is not None
    assert from_record(question.put_together().content) == SealedMessage(b"{}", asked)
    line.node.push(line.answer(question, said))
    (reply,) = carrier.pull_messages([sent])
    assert reply.metadata.reply_to_message_id == sent
    assert from_record(reply.content) == SealedMessage(b"{}", said)
    assert not line.store.store
    return line.superlink.calls


LARGE = bytes(INLINE_BYTES + 1)


@pytest.mark.parametrize("payload", [b"", b"small", bytes(INLINE_BYTES)])
def test_small_messages_take_a_call_each_way_and_end(riding: Line, payload: bytes) -> None:
    calls = exchange(riding, payload, payload[::-1], PiggybackGrid(riding.grid))
    assert calls == {"push-messages": 2, "pull-messages": 2}


@pytest.mark.parametrize(("asked", "said"), [(LARGE, b""), (b"", LARGE), (LARGE, LARGE)])
def test_large_ones_go_by_flowers_calls(riding: Line, asked: bytes, said: bytes) -> None:
    more = bytes(RIDING_BYTES)
    calls = exchange(riding, asked and more, said and more, PiggybackGrid(riding.grid))
    assert calls["push-object"] == calls["pull-object"] == 6 * (bool(asked) + bool(said))
    assert calls["confirm-message-received"] == bool(asked) + bool(said)


def test_what_is_more_than_may_ride_goes_by_flowers_calls(
    riding: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (grid, superlink, operating.riding):
        monkeypatch.setattr(module, "RIDING_BYTES", 100)
    calls = exchange(riding, b"question", b"answer", PiggybackGrid(riding.grid))
    assert calls["push-object"] == calls["pull-object"] == 6
    assert calls["confirm-message-received"] == 2


@pytest.mark.parametrize("payload", [b"", LARGE])
def test_a_superlink_of_flowers_own_gets_all_by_its_calls(stock: Line, payload: bytes) -> None:
    calls = exchange(stock, payload, payload, PiggybackGrid(stock.grid))
    assert calls["push-object"] == calls["pull-object"] == 2 * (6 if payload else 3)


def test_a_grid_of_flowers_own_notices_nothing(riding: Line) -> None:
    calls = exchange(riding, b"question", b"answer", riding.grid)
    assert (calls["push-object"], calls["pull-object"]) == (3, 3)


@pytest.mark.parametrize("broken", ["get", "delete", "put", "_cleanup_push_session"])
def test_whatever_breaks_once_flower_has_handed_out_a_message_it_goes_by_flowers_calls(
    riding: Line, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    place = riding.state if broken.startswith("_") else riding.store
    honest, failures = getattr(place, broken), []

    def break_first(*arguments: Any, **named: Any) -> Any:
        if not failures:
            failures.append(broken)
            raise OSError("no space left on device, said of person@example.org")
        return honest(*arguments, **named)

    carrier = PiggybackGrid(riding.grid)
    (sent,) = carrier.push_messages([riding.question(b"question")])
    question = riding.node.pull() if broken in {"put", "_cleanup_push_session"} else None
    monkeypatch.setattr(place, broken, break_first)
    question = question or riding.node.pull()
    assert question is not None
    assert from_record(question.put_together().content).payload == b"question"
    riding.node.push(riding.answer(question, b"answer"))
    (reply,) = carrier.pull_messages([sent])
    assert from_record(reply.content).payload == b"answer"
    assert failures == [broken]
    assert "OSError" in caplog.text or broken == "put"
    assert "@" not in caplog.text
    monkeypatch.undo()
    riding.store.clear()


def posted(line: Line, path: str, body: bytes, **headers: str) -> HTTPStatus:
    headers |= {"content-type": "application/protobuf"}
    answer = httpx.post(f"http://{line.address}{path}", content=body, headers=headers)
    return HTTPStatus(answer.status_code)


def pushing(line: Line, answer: CarriedMessage, contents: Sequence[bytes]) -> PushMessagesRequest:
    request = PushMessagesRequest(
        node=Node(node_id=line.node.node_id),
        messages_list=[answer.head],
        message_object_trees=[answer.tree],
    )
    return with_riders(request, contents)


def asked(line: Line) -> tuple[str, CarriedMessage]:
    (sent,) = PiggybackGrid(line.grid).push_messages([line.question(b"question")])
    question = line.node.pull()
    assert question is not None
    return sent, question


def test_a_stranger_stores_nothing(riding: Line) -> None:
    _, question = asked(riding)
    answer = riding.answer(question, b"answer")
    body = pushing(riding, answer, [*answer.objects.values()]).SerializeToString()
    assert posted(riding, "/v1/fleet/push-messages", body) == HTTPStatus.UNAUTHORIZED
    assert not riding.store.store


def test_only_what_flower_waits_for_is_stored_and_the_rest_asked_for(riding: Line) -> None:
    sent, question = asked(riding)
    answer = riding.answer(question, b"answer")
    contents = [*answer.objects.values()]
    taken = riding.client.PushMessages(pushing(riding, answer, [*contents[1:], b"another"]))
    assert {*taken.objects_to_push} == answer.objects.keys() == riding.store.store.keys()
    assert not any(one.is_available for one in riding.store.store.values())
    riding.node.push(answer)
    (reply,) = PiggybackGrid(riding.grid).pull_messages([sent])
    assert from_record(reply.content).payload == b"answer"


def test_what_is_no_object_is_not_stored(riding: Line) -> None:
    _, question = asked(riding)
    answer = riding.answer(question, b"answer")
    (nonsense,) = riders(with_riders(PushMessagesRequest(), [b"nonsense"]).SerializeToString())
    answer.tree.children[0].children[0].object_id = nonsense
    contents = [*(one for one in answer.objects.values()), b"nonsense"]
    taken = riding.client.PushMessages(pushing(riding, answer, contents))
    assert nonsense in taken.objects_to_push
    assert not riding.store.store[nonsense].is_available
    riding.store.clear()


def test_nobody_answers_in_anothers_place_who_knows_what_he_was_asked(riding: Line) -> None:
    sent, question = asked(riding)
    with called_by(OTHER_KEY, riding.address) as client:
        other = SuperLink(client, riding.address, OTHER_KEY.public_key(), print, lambda: None)
        forged = riding.answer(question, b"forged")
        with pytest.raises(SuperLinkError, match="400"):
            other.push(forged)
        forged.head.metadata.src_node_id = other.node_id
        other.push(forged)  # which Flower passes over
    riding.node.push(riding.answer(question, b"answer"))
    (reply,) = PiggybackGrid(riding.grid).pull_messages([sent])
    assert from_record(reply.content).payload == b"answer"


def test_no_answer_has_more_objects_than_the_largest_message(riding: Line) -> None:
    _, question = asked(riding)
    answer = riding.answer(question, b"answer")
    own = sum(1 for _ in iterate_object_tree(answer.tree))
    names = (hashlib.sha256(number.to_bytes(2)).hexdigest() for number in range(MOST_OBJECTS))
    more = [ObjectTree(object_id=name) for name in names]
    answer.tree.children[0].children.extend(more[own:])
    taken = riding.client.PushMessages(pushing(riding, answer, []))
    assert len(taken.objects_to_push) == MOST_OBJECTS
    riding.store.clear()
    _, question = asked(riding)
    answer = riding.answer(question, b"answer")
    answer.tree.children[0].children.extend(more[own - 1 :])
    with pytest.raises(SuperLinkError, match="413"):
        riding.node.push(answer)
    assert not riding.store.store


def test_an_answer_that_is_told_of_again_has_no_further_objects(riding: Line) -> None:
    _, question = asked(riding)
    answer = riding.answer(question, b"answer")
    own, wanted = answer.tree.object_id, set[str]()
    for number, root in enumerate([own, own, 64 * "a"]):
        names = (hashlib.sha256(bytes([number, one])).hexdigest() for one in range(MOST_OBJECTS))
        leaves = [ObjectTree(object_id=name) for name in names]
        tree = ObjectTree(object_id=root, children=leaves[1:])
        request = pushing(riding, CarriedMessage(answer.head, tree, {}), [])
        with suppress(httpx.HTTPStatusError):
            wanted |= {*riding.client.PushMessages(request).objects_to_push}
    assert len(wanted) == MOST_OBJECTS
    riding.store.clear()


def test_an_object_has_the_same_objects_within_it_in_every_answer(riding: Line) -> None:
    """Else few of each answer, which hang on each other, would make a message of any number."""
    name, taken = 64 * "0", 0
    for number in range(3):
        _, question = asked(riding)
        answer = riding.answer(question, b"answer")
        leaves = (MOST_OBJECTS - 2) * [ObjectTree(object_id=name)]
        name = hashlib.sha256(bytes([number])).hexdigest()
        part = ObjectTree(object_id=name, children=leaves)
        tree = ObjectTree(object_id=answer.tree.object_id, children=[part])
        request = pushing(riding, CarriedMessage(answer.head, tree, {}), [])
        with suppress(httpx.HTTPStatusError):
            riding.client.PushMessages(request)
        with suppress(NoObjectInStoreError):
            told = riding.store.get_object_tree(answer.tree.object_id)
            assert sum(1 for _ in iterate_object_tree(told)) <= MOST_OBJECTS
            taken += 1
    assert taken == 2  # the second would have had the first within it
    riding.store.clear()


def test_of_a_push_of_many_messages_none_is_looked_at() -> None:
    """A stranger may send millions, in 8 MiB."""
    request = PushMessagesRequest(node=Node(node_id=2))
    for _ in range(100_000):
        request.messages_list.add()
    body = request.SerializeToString()
    tracemalloc.start()
    try:
        refusal = pushes._refusal(body)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refusal is not None
    assert refusal[0] == HTTPStatus.BAD_REQUEST
    assert most < 100_000


def test_the_largest_message_has_no_more_objects_than_are_taken() -> None:
    record = to_record(SealedMessage(b"{}", Random(1).randbytes(MAX_PAYLOAD_BYTES)))
    carried = CarriedMessage.take_apart(Message(record, 1, "query"))
    count = sum(1 for _ in iterate_object_tree(carried.tree))
    assert count <= MOST_OBJECTS <= 2 * count


def renamed(answer: CarriedMessage, root: ObjectTree, *contents: bytes) -> CarriedMessage:
    """An answer whose outermost object is another one, and further objects."""
    head = type(answer.head).FromString(answer.head.SerializeToString())
    head.metadata.message_id = root.object_id
    made = riders(with_riders(PushMessagesRequest(), contents).SerializeToString())
    return CarriedMessage(head, root, {**answer.objects, **made})


def no_message(answer: CarriedMessage) -> CarriedMessage:
    return renamed(answer, answer.tree.children[0])


def without_parts(answer: CarriedMessage) -> CarriedMessage:
    return renamed(answer, ObjectTree(object_id=answer.tree.object_id))


def rewritten(answer: CarriedMessage, before: bytes, after: bytes) -> CarriedMessage:
    content = answer.objects[answer.tree.object_id].replace(before, after)
    (name,) = riders(with_riders(PushMessagesRequest(), [content]).SerializeToString())
    root = ObjectTree(object_id=name, children=answer.tree.children)
    return renamed(answer, root, content)


def to_another_question(answer: CarriedMessage) -> CarriedMessage:
    return rewritten(answer, answer.head.metadata.reply_to_message_id.encode(), 64 * b"f")


def scrawled(answer: CarriedMessage) -> CarriedMessage:
    body = answer.objects[answer.tree.object_id].partition(b"\x00")[2]
    return rewritten(answer, body, bytes(len(body)))


@pytest.mark.parametrize("rides", [True, False])
@pytest.mark.parametrize("forge", [no_message, without_parts, to_another_question, scrawled])
def test_an_answer_that_is_none_is_its_own_nodes_failure(
    riding: Line,
    monkeypatch: pytest.MonkeyPatch,
    forge: Callable[[CarriedMessage], CarriedMessage],
    *,
    rides: bool,
) -> None:
    if not rides:
        for module in (grid, superlink, operating.riding):
            monkeypatch.setattr(module, "RIDING_BYTES", 100)
    sent, question = asked(riding)
    riding.node.push(forge(riding.answer(question, b"answer")))
    (reply,) = PiggybackGrid(riding.grid).pull_messages([sent])
    assert reply.metadata.reply_to_message_id == sent
    assert reply.error.code == ErrorCode.MESSAGE_UNAVAILABLE
    riding.store.clear()


def test_a_run_that_a_superlink_knows_no_longer_has_ended(riding: Line) -> None:
    _, question = asked(riding)
    answer = riding.answer(question, b"answer")
    answer.head.metadata.run_id += 1
    with pytest.raises(RunOverError):
        riding.node.push(answer)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("call", ["pull-object", "confirm-message-received", "push-object"])
def test_a_run_that_is_gone_in_the_midst_of_a_message_has_ended(riding: Line, call: str) -> None:
    large, runs = bytes(RIDING_BYTES + 1), riding.state.run_ids

    def lose_runs(called: str) -> None:
        if called == call:
            riding.state.run_ids = {}

    riding.grid.push_messages([riding.question(large)])
    answer = None
    if call == "push-object":
        question = riding.node.pull()
        assert question is not None
        answer = riding.answer(question, large)
    riding.superlink.before = lose_runs
    try:
        with pytest.raises(RunOverError):
            riding.node.pull() if answer is None else riding.node.push(answer)
    finally:
        riding.superlink.before = lambda _: None
        riding.state.run_ids = runs
        riding.store.clear()


@pytest.mark.parametrize("answered", [b"", LARGE])
def test_a_node_calls_again_where_a_superlink_cannot_write(riding: Line, answered: bytes) -> None:
    riding.superlink.fails.update(
        dict.fromkeys(("pull-messages", "push-messages", "push-object", "get-run"), 2)
    )
    (sent,) = riding.grid.push_messages([riding.question(b"question")])
    question = riding.node.pull()
    assert question is not None
    riding.node.push(riding.answer(question, answered))
    (reply,) = riding.grid.pull_messages([sent])
    assert from_record(reply.content).payload == answered
    assert riding.superlink.fails["push-messages"] == 0
    riding.superlink.fails.clear()


@pytest.mark.parametrize("answered", [b"", LARGE])
def test_a_serverapp_asks_again_where_a_superlink_fails_and_says_so_once(
    riding: Line, answered: bytes
) -> None:
    class Answered(PiggybackGrid):
        """A Grid whose node has answered by the time one looks."""

        def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
            if (question := riding.node.pull()) is not None:
                riding.node.push(riding.answer(question, answered))
            return super().pull_messages(message_ids)

    told: list[str] = []
    channel = GridChannel(Answered(riding.grid), poll_seconds=0.01, tell=told.append)
    calls = ("get-nodes", "push-messages", "pull-messages", "pull-object")
    riding.superlink.fails_grid.update(dict.fromkeys((*calls, "confirm-message-received"), 2))
    assert riding.node.node_id in channel.nodes(0)
    riding.speak(1)
    question = SealedMessage(b"{}", b"question")
    (reply,) = channel.exchange([Parcel(riding.node.node_id, question)])
    assert reply == SealedMessage(b"{}", answered)
    assert not any(riding.superlink.fails_grid[call] for call in calls[:3])
    fails = "the SuperLink fails (HTTP 500): it is asked again until it answers"
    assert told == [fails, "the SuperLink answers again"] * 3
    riding.superlink.fails_grid.clear()
    riding.store.clear()


def test_a_node_gets_the_objects_of_no_message_but_its_own(riding: Line) -> None:
    (sent,) = PiggybackGrid(riding.grid).push_messages([riding.question(b"question")])
    body = with_wish(PullMessagesRequest(node=Node(node_id=riding.node.node_id + 1)))
    answer = httpx.Response(200)
    with pytest.raises(httpx.HTTPStatusError) as refused:
        answer = riding.client.PullMessages(body)
    assert refused.value.response.status_code == HTTPStatus.UNAUTHORIZED
    assert answer.content == b""
    assert sent in riding.store.store
    assert riding.node.pull() is not None
    assert not riding.store.store


def test_a_node_comes_back_to_a_superlink_that_began_anew_and_to_none_that_has_not_its_key() -> (
    None
):
    with lined(rides=True) as line:
        _, question = asked(line)
        answer, number = line.answer(question, b"answer"), line.node.node_id
        again = line.superlink.app = superlink_app(b"another")
        FlowerNodes(again).register(public_key_to_bytes(KEY.public_key()), "brand")
        with pytest.raises(RunOverError):
            line.node.push(answer)
        assert line.node.node_id != number
        assert line.node.pull() is None
        line.superlink.app = superlink_app(b"a third")
        with pytest.raises(SuperLinkError, match="registers the node's public key") as refused:
            line.node.pull()
        assert not isinstance(refused.value, RunOverError)


# ------------------------------------------------------------------- a node that is connected already


@contextmanager
def letting_go(line: Line, state: Any, after: int) -> Iterator[None]:
    """Have a SuperLink of some state take its node for away once that has begun so often."""

    def let_go(call: str) -> None:
        if call == "activate-node" and line.superlink.calls[call] == after:
            state.deactivate_node(state.get_node_id_by_public_key(PUBLIC))

    line.superlink.calls.clear()
    line.superlink.before = let_go
    yield
    line.superlink.before = lambda _: None


def test_a_node_whose_first_answer_was_lost_calls_again_until_it_is_let_go(riding: Line) -> None:
    told: list[str] = []
    number = riding.node.node_id
    riding.state.deactivate_node(number)
    riding.superlink.loses["activate-node"] = 1
    with letting_go(riding, riding.state, 3):
        again = SuperLink(
            riding.client, riding.address, KEY.public_key(), told.append, lambda: None
        )
    assert again.node_id == number
    assert riding.superlink.calls["activate-node"] == 3
    away, back = told
    assert "(HTTP 502): calling again" in away
    assert "is back" in back


@pytest.mark.parametrize("lost", [0, 1])
def test_a_node_of_a_key_that_another_uses_is_told_so_in_the_end(
    riding: Line, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    monkeypatch.setattr(superlink, "_TAKEN_SECONDS", 0.2)
    riding.superlink.loses["activate-node"] = lost
    with pytest.raises(SuperLinkError, match="another node is connected by that key"):
        SuperLink(riding.client, riding.address, KEY.public_key(), print, lambda: None)
    assert riding.node.pull() is None


def test_a_node_comes_back_where_the_answer_to_that_is_lost() -> None:
    with lined(rides=True) as line:
        _, question = asked(line)
        answer = line.answer(question, b"answer")
        app = line.superlink.app = superlink_app(b"another")
        FlowerNodes(app).register(PUBLIC, "brand")
        line.superlink.loses["activate-node"] = 1
        state = app.state.linkstate_factory.state()
        with letting_go(line, state, 3), pytest.raises(RunOverError):
            line.node.push(answer)
        assert line.superlink.calls["activate-node"] == 3
        assert line.node.pull() is None


# --------------------------------------------------------------------------- what a node has room for


class Endless:
    """Answers every call with more than anybody has room for."""

    PIECE = bytes(1 << 20)
    PIECES = 64

    def __init__(self, *, packed: bool) -> None:
        self._packed = packed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-encoding", b"gzip")] if self._packed else []
        piece = gzip.compress(self.PIECE) if self._packed else self.PIECE
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for _ in range(self.PIECES):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize("packed", [False, True])
def test_a_node_reads_no_more_of_an_answer_than_it_has_room_for(
    riding: Line, *, packed: bool
) -> None:
    app, riding.superlink.app = riding.superlink.app, Endless(packed=packed)
    told = "packs its answers" if packed else f"more than {2 * RIDING_BYTES} bytes at once"
    tracemalloc.start()
    try:
        with pytest.raises(SuperLinkError, match=told):
            riding.node.pull()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        riding.superlink.app = app
    assert peak < 4 * RIDING_BYTES
    assert riding.node.pull() is None


def test_a_node_reads_no_more_of_a_message_than_any_may_have(
    riding: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = bytes(RIDING_BYTES + 1)
    riding.grid.push_messages([riding.question(large)])
    with monkeypatch.context() as narrow:
        narrow.setattr(superlink, "_MOST_IN_ALL", RIDING_BYTES)
        with pytest.raises(MessageTooLargeError, match=f"more than {RIDING_BYTES} bytes"):
            riding.node.pull()
    riding.store.clear()
    exchange(riding, b"the next", b"answer", riding.grid)


def test_a_node_has_room_for_the_largest_message_and_for_flowers_largest_object() -> None:
    largest = CarriedMessage.take_apart(
        Message(to_record(SealedMessage(b" " * MAX_HEADER_BYTES, b"")), 5, "query")
    )
    assert largest.size + MAX_PAYLOAD_BYTES < superlink._MOST_IN_ALL
    assert FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE + (1 << 16) < superlink._MOST_AT_ONCE
