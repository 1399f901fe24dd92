"""Parties of different versions: who refuses whom, and what both are told."""

import base64
import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parties import World

from compliance import records
from federation.errors import RefusedError, VersionError
from federation.messages import EVERYONE, Header, Identify, Refused, SealedMessage
from federation.wire import REMEDY, WIRE_VERSION, check_version, installed, other_bundle

OTHER = WIRE_VERSION + 1
LATER = {"version": OTHER, "what_only_it_knows": True}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("wire"), unsafe_seed=3)


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    return made.copy(tmp_path / "workspace")


def header_of(message: SealedMessage) -> dict[str, object]:
    found: dict[str, object] = json.loads(base64.b64decode(json.loads(message.envelope)["payload"]))
    return found


def test_every_header_bears_the_version_that_is_spoken() -> None:
    assert Header.model_fields["version"].default == WIRE_VERSION


def test_a_node_that_is_asked_in_another_version_names_both_and_the_remedy(world: World) -> None:
    asked = world.parties.seal("coordinator", EVERYONE, "roll-call", Identify(), changes=LATER)
    answer = world.ask("brand", asked)
    told = (
        f"a message of coordinator's speaks version {OTHER} of the wire, and {installed()} here "
        f"speaks {WIRE_VERSION}: update Comity here, then run again"
    )
    assert answer.body == Refused(term="version", remedy=told)
    (leaf,) = (one for one in world.leaves("brand") if isinstance(one, records.Refusal))
    assert leaf.term == "version"


@pytest.mark.parametrize("version", [WIRE_VERSION - 1, OTHER])
def test_a_coordinator_that_is_answered_in_another_version_names_the_party_and_both(
    world: World, version: int
) -> None:
    def listen(name: str, _: SealedMessage, answer: SealedMessage) -> SealedMessage:
        if name != "retailer":
            return answer
        content = header_of(answer) | LATER | {"version": version}
        return world.parties.sign(name, json.dumps(content).encode(), answer.payload)

    world.listener = listen
    remedy = f"update Comity {'at retailer' if version < WIRE_VERSION else 'here'}, then run again"
    told = (
        rf"retailer's speaks version {version} of the wire, and Comity .* here speaks 1: {remedy}"
    )
    with pytest.raises(VersionError, match=told):
        world.run()
    assert not any(isinstance(one, records.JobStarted) for one in world.leaves("coordinator"))


def test_a_run_with_a_node_that_refuses_the_version_stops_and_says_so(world: World) -> None:
    def listen(name: str, question: SealedMessage, answer: SealedMessage) -> SealedMessage:
        if name != "courier":
            return answer
        content = header_of(question) | LATER
        later = world.parties.sign("coordinator", json.dumps(content).encode(), question.payload)
        refusal = header_of(world.handle(name, later)) | {"answers": question.digest}
        return world.parties.sign(name, json.dumps(refusal).encode())

    world.listener = listen
    with pytest.raises(
        RefusedError, match=f"refused by courier under version: .* version {OTHER} of"
    ):
        world.run()


@pytest.mark.parametrize(
    ("said", "party", "remedy"),
    [
        ("retailer runs Comity 0.0.9", "retailer", "update Comity at retailer, then run again"),
        ("retailer runs Comity 0.10.0rc1", "retailer", "update Comity here, then run again"),
        (f"retailer runs {installed()}", "retailer", REMEDY),
        ("retailer runs Comity of no version", None, REMEDY),
        ("retailer runs Comity 0.0.9 \u2190", None, REMEDY),
        ("", None, REMEDY),
    ],
)
def test_a_node_that_takes_no_bundle_of_ours_is_told_of_with_both_versions_and_who_is_behind(
    said: str, party: str | None, remedy: str
) -> None:
    error = other_bundle("retailer (node 7)", said)
    assert error.party == party
    assert str(error) == (
        f"retailer (node 7) takes no run of {installed()}; it says: {said or 'nothing'}: {remedy}, "
        "or have that node allow this version's bundle"
    )


@given(
    st.binary(max_size=60)
    | st.dictionaries(
        st.sampled_from(["version", "sender", "more"]),
        st.none() | st.integers() | st.text() | st.floats() | st.just("brand"),
    ).map(lambda content: json.dumps(content).encode())
)
def test_whatever_bytes_they_are_nothing_but_the_version_is_read(header: bytes) -> None:
    with suppress(VersionError):
        check_version(header)
