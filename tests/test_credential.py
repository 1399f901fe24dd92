"""A node's calls are signed by its SuperLink's time, whatever its own clock says."""

from base64 import b64decode
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.node_pb2 import Node
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, verify_signature
from flwr.supercore.protobuf.client import ProtobufRequestContext
from httpx import Request, Response
from hypothesis import given
from hypothesis import strategies as st

from federation.apps.credential import MOST_APART, Credential, apart
from federation.clock import Clock
from federation.observing.events import Event, Notice

KEY = ec.generate_private_key(ec.SECP256R1())
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Admitting:
    """Takes calls by the rule of Flower's SuperLink, at a moment that stands still."""

    def __init__(self, headers: dict[str, str] | None = None) -> None:
        self.answers: list[int] = []
        self._headers = {"date": format_datetime(NOW, usegmt=True)} if headers is None else headers

    def call(self, context: ProtobufRequestContext) -> Response:
        headers = context.request.headers
        moment = headers["flwr-timestamp"]
        age = (NOW - datetime.fromisoformat(moment)).total_seconds()
        public = b64decode(headers["flwr-public-key"])
        assert public == public_key_to_bytes(KEY.public_key())
        signature = b64decode(headers["flwr-signature"])
        assert verify_signature(KEY.public_key(), moment.encode(), signature)
        self.answers.append(200 if -5 < age < 305 else 401)
        return Response(self.answers[-1], headers=self._headers)


def asked(admitting: Admitting, credential: Credential) -> int:
    context = ProtobufRequestContext("call", Node(), Request("POST", "https://superlink/call"))
    return credential.intercept(context, admitting.call).status_code


def credential(clock: Clock, told: list[str]) -> Credential:
    return Credential(KEY, tell=told.append, clock=clock)


@given(
    st.lists(st.timedeltas(-MOST_APART, MOST_APART - timedelta(seconds=1)), min_size=1, max_size=4)
)
def test_a_clock_may_be_wrong_and_be_put_right_meanwhile(clocks: list[timedelta]) -> None:
    admitting, told, world = Admitting(), list[str](), SimpleNamespace(ahead=timedelta())
    node = credential(lambda: NOW + world.ahead, told)
    for world.ahead in clocks:
        before = len(admitting.answers)
        assert [asked(admitting, node) for _ in range(3)] == [200, 200, 200]
        assert admitting.answers[before:].count(401) <= 1  # it is not asked again and again
    assert len(told) <= admitting.answers.count(401)


def test_clocks_that_agree_are_not_spoken_of() -> None:
    admitting, told = Admitting(), list[str]()
    assert asked(admitting, credential(lambda: NOW - timedelta(minutes=4), told)) == 200
    assert (admitting.answers, told) == ([200], [])


def test_the_operator_is_told_once_how_far_they_are_apart() -> None:
    admitting, told = Admitting(), list[str]()
    node = credential(lambda: NOW + timedelta(minutes=10), told)
    assert [asked(admitting, node) for _ in range(2)] == [200, 200]
    (notice,) = told
    assert "this machine's clock is 600 s ahead of the SuperLink's" in notice
    assert isinstance(notice, Notice)
    assert (notice.event, notice.fields) == (Event.CLOCKS_DIFFER, {"seconds": 600})


@pytest.mark.parametrize(
    ("ahead", "headers"),
    [
        (MOST_APART + timedelta(seconds=1), None),
        (-MOST_APART - timedelta(seconds=1), None),
        (timedelta(minutes=10), {}),
        (timedelta(minutes=10), {"date": "nonsense"}),
        (timedelta(minutes=10), {"date": "Sun, 01 Mar 2026 12:00:00 -0000"}),
    ],
)
def test_what_is_too_far_off_or_tells_no_time_is_left_as_it_is(
    ahead: timedelta, headers: dict[str, str] | None
) -> None:
    admitting, told = Admitting(headers), list[str]()
    assert asked(admitting, credential(lambda: NOW + ahead, told)) == 401
    assert (admitting.answers, told) == ([401], [])


def test_a_refusal_for_another_reason_is_made_once() -> None:
    told, calls = list[str](), list[Any]()

    def refuse(context: ProtobufRequestContext) -> Response:
        calls.append(context)
        return Response(401, headers={"date": format_datetime(NOW, usegmt=True)})

    context = ProtobufRequestContext("call", Node(), Request("POST", "https://superlink/call"))
    node = credential(lambda: NOW + timedelta(seconds=2), told)
    assert node.intercept(context, refuse).status_code == 401
    assert (len(calls), told) == (1, [])


def test_how_far_apart_is_by_the_answers_own_date() -> None:
    answer = Response(200, headers={"date": format_datetime(NOW, usegmt=True)})
    assert apart(answer, NOW - timedelta(minutes=3)) == timedelta(minutes=3)
    assert apart(Response(200), NOW) is None
