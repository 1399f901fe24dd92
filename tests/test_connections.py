"""Connections of strangers to a listener: what holding one takes."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import pytest
import uvicorn
from starlette.responses import PlainTextResponse

from federation.apps.operating.server import HEAD_BYTES, PromptConnection, QuietServer

HEAD_SECONDS = 0.3


class Hasty(PromptConnection):
    head_seconds = HEAD_SECONDS


class Patient(PromptConnection):
    head_seconds = 600.0


async def slow(scope: Any, receive: Any, send: Any) -> None:
    """Answer after a connection has had all the patience that there is for heads."""
    await asyncio.sleep(2 * HEAD_SECONDS)
    await PlainTextResponse("done")(scope, receive, send)


async def prompt(scope: Any, receive: Any, send: Any) -> None:
    """Answer once the whole body is read."""
    while (await receive()).get("more_body"):
        pass
    await PlainTextResponse("done")(scope, receive, send)


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    yield from serving(slow, Hasty)


@pytest.fixture(scope="module")
def patient() -> Iterator[tuple[str, int]]:
    yield from serving(prompt, Patient)


def serving(app: Any, connection: type[PromptConnection]) -> Iterator[tuple[str, int]]:
    config = uvicorn.Config(
        app, http=connection, ws="none", lifespan="off", log_level="critical", limit_concurrency=3
    )
    server = QuietServer(config)
    with socket.create_server(("127.0.0.1", 0)) as waiting:
        thread = threading.Thread(target=server.run, args=([waiting],), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield waiting.getsockname()
        server.should_exit = True
        thread.join()


def is_cut(held: socket.socket) -> bool:
    try:
        return held.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    "sent",
    [b"", b"\r\n", b"GET / HTTP/1.1\r\nHost: there\r\n"],
    ids=["nothing", "a blank line", "half a head"],
)
def test_connections_that_do_not_say_what_they_want_are_cut(
    address: tuple[str, int], sent: bytes
) -> None:
    held = [socket.create_connection(address, timeout=20) for _ in range(3)]
    for one in held:
        one.sendall(sent)
    for one in held:
        with one:
            assert is_cut(one)
    asked = HTTPConnection(*address, timeout=20)
    asked.request("GET", "/")
    assert asked.getresponse().status == 200  # with three held it is 503
    asked.close()


ENDLESS = b"a" * (3 * HEAD_BYTES)
CHUNKED = b"POST / HTTP/1.1\r\nHost: there\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /" + ENDLESS,
        b"GET / HTTP/1.1\r\nHost: there\r\nX: " + ENDLESS,
        b"GET / HTTP/1.1\r\nHost: there\r\n\r\nGET / HTTP/1.1\r\nX: " + ENDLESS,
        CHUNKED + b"0\r\nX: " + ENDLESS,
        CHUNKED + b"1;" + ENDLESS,
    ],
    ids=["a path", "a header", "the next head", "a trailer", "a chunk's extension"],
)
def test_connections_are_cut_that_say_more_than_a_head_holds(
    patient: tuple[str, int], sent: bytes
) -> None:
    with socket.create_connection(patient, timeout=20) as held:
        held.sendall(sent)
        assert is_cut(held)


def test_a_long_body_and_a_head_of_tokens_are_taken(patient: tuple[str, int]) -> None:
    asked = HTTPConnection(*patient, timeout=20)
    for _ in range(2):
        asked.request("POST", "/", ENDLESS, {"Authorization": "a" * (HEAD_BYTES // 2)})
        assert asked.getresponse().read() == b"done"
    asked.request("POST", "/", iter([ENDLESS, ENDLESS]), encode_chunked=True)
    assert asked.getresponse().read() == b"done"
    asked.close()


def test_an_answer_may_take_its_time_and_the_head_after_it_may_not(
    address: tuple[str, int],
) -> None:
    asked = HTTPConnection(*address, timeout=20)
    asked.connect()
    first = asked.sock
    for _ in range(2):
        asked.request("GET", "/")
        assert asked.getresponse().read() == b"done"
        assert asked.sock is first
        time.sleep(HEAD_SECONDS)
    first.sendall(b"\r\nGET / HTTP/1.1\r\n")
    assert is_cut(first)
    asked.close()
