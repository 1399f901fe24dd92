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

from federation.apps.operating.server import PromptConnection, QuietServer

HEAD_SECONDS = 0.3


class Hasty(PromptConnection):
    head_seconds = HEAD_SECONDS


async def slow(scope: Any, receive: Any, send: Any) -> None:
    """Answer after a connection has had all the patience that there is for heads."""
    await asyncio.sleep(2 * HEAD_SECONDS)
    await PlainTextResponse("done")(scope, receive, send)


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    config = uvicorn.Config(
        slow, http=Hasty, ws="none", lifespan="off", log_level="critical", limit_concurrency=3
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
