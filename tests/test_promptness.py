"""Calls for messages wait for news at the coordinator; Flower's layers answer in one task."""

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.proto.fleet_pb2 import (
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
)
from flwr.proto.message_pb2 import Message as MessageHead
from flwr.proto.message_pb2 import Metadata
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import (
    PullAppMessagesRequest,
    PullAppMessagesResponse,
    PushAppMessagesRequest,
)
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.types import Message, Receive, Scope, Send

from federation.apps.operating.promptness import Prompt
from federation.apps.operating.unary import answer_in_one_task

FLEET_PULL, FLEET_PUSH = "/v1/fleet/pull-messages", "/v1/fleet/push-messages"
RUNTIME_PULL, RUNTIME_PUSH = "/v1/runtime/pull-messages", "/v1/runtime/push-messages"
HOLD = 30.0
"""So long that a test which waits for its end has failed."""


def pull_of(node: int) -> bytes:
    return PullMessagesRequest(node=Node(node_id=node)).SerializeToString()


def pull_for(*messages: str) -> bytes:
    return PullAppMessagesRequest(message_ids=messages).SerializeToString()


def head(name: str, node: int = 1) -> MessageHead:
    return MessageHead(metadata=Metadata(message_id=name, dst_node_id=node))


def to_node(name: str) -> bytes:
    return PullMessagesResponse(messages_list=[head(name)]).SerializeToString()


def to_server_app(*names: str) -> bytes:
    return PullAppMessagesResponse(messages_list=map(head, names)).SerializeToString()


def push_to(*nodes: int) -> bytes:
    heads = [head(f"to-{node}", node) for node in nodes]
    return PushAppMessagesRequest(messages_list=heads).SerializeToString()


def push_of(name: str) -> bytes:
    return PushMessagesRequest(messages_list=[head(name)]).SerializeToString()


ASKED = {FLEET_PULL: pull_of(5), RUNTIME_PULL: pull_for("a")}
TOLD = {RUNTIME_PUSH: push_to(5), FLEET_PUSH: push_of("answer")}
COME = {RUNTIME_PUSH: to_node("to-5"), FLEET_PUSH: to_server_app("answer")}


class Superlink:
    """An app that hands out what was pushed, once, to whoever asks, and keeps the bodies of pulls."""

    def __init__(self, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.status = status
        self.messages: list[str] = []
        self.answers: list[str] = []
        self.asked: list[tuple[str, bytes]] = []
        self.was_asked = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, body, answer = scope["path"], (await receive())["body"], b""
        if path in ASKED:
            self.asked.append((path, body))
            self.was_asked.set()
        if path == FLEET_PULL:
            answer = to_node(self.messages.pop()) if self.messages else b""
        elif path == RUNTIME_PULL:
            answer, self.answers = to_server_app(*self.answers), []
        elif path == RUNTIME_PUSH:
            pushed = PushAppMessagesRequest.FromString(body).messages_list
            self.messages += [one.metadata.message_id for one in pushed]
        elif path == FLEET_PUSH:
            (message,) = PushMessagesRequest.FromString(body).messages_list
            self.answers.append(message.metadata.message_id)
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": answer})


def during(
    app: Any, calls: Callable[[httpx.AsyncClient], Awaitable[object]], *, seconds: float = 10
) -> None:
    """Make calls to an app, which must have come to their end by some seconds."""

    async def run() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            await asyncio.wait_for(calls(client), seconds)

    asyncio.run(run())


async def idle() -> None:
    """Let whatever could go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize(("pull", "push"), [(FLEET_PULL, RUNTIME_PUSH), (RUNTIME_PULL, FLEET_PUSH)])
def test_who_asks_gets_what_comes_later_and_asks_with_the_same_words(pull: str, push: str) -> None:
    superlink = Superlink()

    async def calls(client: httpx.AsyncClient) -> None:
        pulled = asyncio.create_task(client.post(pull, content=ASKED[pull]))
        await superlink.was_asked.wait()
        await client.post("/v1/fleet/push-object", content=b"no news")
        await client.post(push, content=TOLD[push])
        assert (await pulled).content == COME[push]

    during(Prompt(superlink, hold_seconds=HOLD), calls)
    assert superlink.asked == [(pull, ASKED[pull])] * 2


def test_what_is_there_is_answered_at_once() -> None:
    superlink = Superlink()
    superlink.messages = ["one", "other"]

    async def calls(client: httpx.AsyncClient) -> None:
        for name in ("other", "one"):
            assert (await client.post(FLEET_PULL, content=pull_of(5))).content == to_node(name)

    during(Prompt(superlink, hold_seconds=HOLD), calls)
    assert len(superlink.asked) == 2


@pytest.mark.parametrize(
    ("push", "told"), [(FLEET_PUSH, push_of("answer")), (RUNTIME_PUSH, push_to(6, 7))]
)
def test_news_of_others_is_none(push: str, told: bytes) -> None:
    superlink = Superlink()

    async def calls(client: httpx.AsyncClient) -> None:
        pulled = asyncio.create_task(client.post(FLEET_PULL, content=pull_of(5)))
        await superlink.was_asked.wait()
        await client.post(push, content=told)
        await idle()
        assert len(superlink.asked) == 1
        pulled.cancel()

    during(Prompt(superlink, hold_seconds=HOLD), calls)


def test_flower_is_not_asked_before_there_is_news_once_it_had_nothing() -> None:
    superlink = Superlink()
    prompt = Prompt(superlink, hold_seconds=0.05)

    async def calls(client: httpx.AsyncClient) -> None:
        assert (await client.post(FLEET_PULL, content=pull_of(5))).content == b""
        asked = len(superlink.asked)
        assert (await client.post(FLEET_PULL, content=pull_of(5))).content == b""
        assert len(superlink.asked) == asked + 1  # when the time was over
        await client.post(RUNTIME_PUSH, content=push_to(5))
        prompt._hold = HOLD
        assert (await client.post(FLEET_PULL, content=pull_of(5))).content == to_node("to-5")

    during(prompt, calls)


def test_flower_is_not_asked_for_more_than_has_come() -> None:
    superlink = Superlink()
    prompt = Prompt(superlink)

    async def calls(client: httpx.AsyncClient) -> None:
        prompt._hold = 0.01
        await client.post(FLEET_PULL, content=pull_of(5))
        prompt._hold = HOLD
        await client.post(RUNTIME_PUSH, content=push_to(5, 5))
        for _ in range(2):
            assert (await client.post(FLEET_PULL, content=pull_of(5))).content == to_node("to-5")
        asked = len(superlink.asked)
        pulled = asyncio.create_task(client.post(FLEET_PULL, content=pull_of(5)))
        await idle()
        await client.post(RUNTIME_PUSH, content=push_to(5))
        assert (await pulled).content == to_node("to-5")
        assert len(superlink.asked) == asked + 1

    during(prompt, calls)


def test_what_flower_says_of_itself_hides_nothing_that_comes_later() -> None:
    superlink = Superlink()
    prompt = Prompt(superlink, hold_seconds=0.01)

    async def calls(client: httpx.AsyncClient) -> None:
        await client.post(RUNTIME_PULL, content=pull_for("a"))
        prompt._hold = HOLD
        superlink.answers = ["an error", "another"]
        await client.post(FLEET_PUSH, content=push_of("told"))
        await client.post(RUNTIME_PULL, content=pull_for("a", "b", "c"))
        for _ in range(2):
            await client.post(FLEET_PUSH, content=push_of("answer"))
        pulled = await client.post(RUNTIME_PULL, content=pull_for("d", "e"))
        assert pulled.content == to_server_app("answer", "answer")

    during(prompt, calls)


def test_a_server_app_is_answered_once_all_that_it_asks_for_has_come() -> None:
    superlink = Superlink()

    async def calls(client: httpx.AsyncClient) -> None:
        asked = pull_for("a", "b")
        pulled = asyncio.create_task(client.post(RUNTIME_PULL, content=asked))
        await superlink.was_asked.wait()
        await client.post(FLEET_PUSH, content=push_of("one"))
        await idle()
        assert len(superlink.asked) == 1
        await client.post(FLEET_PUSH, content=push_of("two"))
        assert (await pulled).content == to_server_app("one", "two")
        assert len(superlink.asked) == 2

    during(Prompt(superlink, hold_seconds=HOLD), calls)


def test_what_has_come_is_answered_when_the_time_is_over_though_more_was_asked_for() -> None:
    superlink = Superlink()

    async def calls(client: httpx.AsyncClient) -> None:
        pulled = asyncio.create_task(client.post(RUNTIME_PULL, content=pull_for("a", "b")))
        await superlink.was_asked.wait()
        await client.post(FLEET_PUSH, content=push_of("one"))
        assert (await pulled).content == to_server_app("one")

    during(Prompt(superlink, hold_seconds=0.2), calls)


@pytest.mark.parametrize("asked", [pull_of(5), b"no message"])
def test_a_refusal_is_not_held(asked: bytes) -> None:
    superlink = Superlink(HTTPStatus.UNAUTHORIZED)

    async def calls(client: httpx.AsyncClient) -> None:
        answer = await client.post(FLEET_PULL, content=asked)
        assert answer.status_code == HTTPStatus.UNAUTHORIZED

    during(Prompt(superlink, hold_seconds=HOLD), calls)


def test_a_stranger_does_not_learn_by_the_server_apps_number_when_answers_come() -> None:
    superlink = Superlink()

    async def calls(client: httpx.AsyncClient) -> None:
        pulled = asyncio.create_task(client.post(RUNTIME_PULL, content=pull_for("a")))
        await superlink.was_asked.wait()
        superlink.status = HTTPStatus.UNAUTHORIZED
        answer = await client.post(FLEET_PULL, content=pull_of(SUPERLINK_NODE_ID))
        assert answer.status_code == HTTPStatus.UNAUTHORIZED
        pulled.cancel()

    during(Prompt(superlink, hold_seconds=HOLD), calls)


def test_a_push_that_is_refused_tells_nobody() -> None:
    superlink = Superlink()

    async def calls(client: httpx.AsyncClient) -> None:
        pulled = asyncio.create_task(client.post(FLEET_PULL, content=pull_of(5)))
        await superlink.was_asked.wait()
        superlink.status = HTTPStatus.UNAUTHORIZED
        await client.post(RUNTIME_PUSH, content=push_to(5))
        await idle()
        assert len(superlink.asked) == 1
        pulled.cancel()

    during(Prompt(superlink, hold_seconds=HOLD), calls)


def test_news_between_an_answer_and_the_wait_is_not_missed() -> None:
    superlink = Superlink()
    prompt = Prompt(superlink, hold_seconds=HOLD)

    async def answered_late(scope: Scope, receive: Receive, send: Send) -> None:
        await superlink(scope, receive, send)
        if scope["path"] == FLEET_PULL and len(superlink.asked) == 1:
            await push()

    async def push() -> None:
        transport = httpx.ASGITransport(prompt)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            await client.post(RUNTIME_PUSH, content=push_to(5))

    prompt._superlink = answered_late

    async def calls(client: httpx.AsyncClient) -> None:
        assert (await client.post(FLEET_PULL, content=pull_of(5))).content == to_node("to-5")

    during(prompt, calls)


@pytest.mark.parametrize("begun", [False, True])
def test_nothing_is_asked_for_whoever_has_gone(*, begun: bool) -> None:
    superlink = Superlink()
    prompt = Prompt(superlink, hold_seconds=HOLD)
    said: list[Message] = [{"type": "http.request", "body": pull_of(5), "more_body": not begun}]

    async def receive() -> Message:
        if said:
            return said.pop()
        if begun:
            await superlink.was_asked.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        pytest.fail(f"got {message['type']}")

    scope = {"type": "http", "path": FLEET_PULL}
    asyncio.run(asyncio.wait_for(prompt(scope, receive, send), 10))
    assert len(superlink.asked) == begun


class Naming(BaseHTTPMiddleware):
    """Reads the body, hands something on, and adds to the answer, as Flower's layers do."""

    def __init__(self, app: Any, name: str) -> None:
        super().__init__(app)
        self.name = name

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        if await request.body() == b"stop":
            return Response("stopped", HTTPStatus.FORBIDDEN)
        request.state.names = [*getattr(request.state, "names", []), self.name]
        response = await call_next(request)
        response.headers.append("through", self.name)
        return response


async def translating(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """Answer for what fails further in."""
    try:
        return await call_next(request)
    except ZeroDivisionError:
        return Response("translated", HTTPStatus.CONFLICT)


def layered(*, light: bool) -> FastAPI:
    layers = [
        Middleware(Naming, name="outer"),
        Middleware(BaseHTTPMiddleware, dispatch=translating),
        Middleware(Naming, name="inner"),
    ]
    app = FastAPI(middleware=layers)

    async def answer(request: Request) -> Response:
        body = await request.body()
        if body == b"fail":
            raise ZeroDivisionError
        return Response(b"|".join([body, ",".join(request.state.names).encode()]))

    for path in ("/v1/fleet/x", "/v1/runtime/x", "/v1/control/x"):
        app.add_api_route(path, answer, methods=["POST"])
    if light:
        answer_in_one_task(app)
    return app


@pytest.mark.parametrize("body", [b"", b"hello", b"stop", b"fail", bytes(3 << 20)])
@pytest.mark.parametrize("path", ["/v1/fleet/x", "/v1/runtime/x", "/v1/control/x", "/v1/fleet/y"])
def test_layers_in_one_task_answer_as_flowers_own(path: str, body: bytes) -> None:
    answers = []

    async def calls(client: httpx.AsyncClient) -> None:
        answer = await client.post(path, content=body)
        answers.append((answer.status_code, answer.headers.multi_items(), answer.content))

    for light in (False, True):
        during(layered(light=light), calls)
    assert answers[0] == answers[1]
