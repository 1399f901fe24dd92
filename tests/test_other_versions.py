"""Parties whose nodes run another version: absent where that will do, named, and back once updated."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from parties import EXPAND, MATCH, PURPOSE, TRAIN, World
from test_spreading import SHARED, ask, people, record, states
from test_wire import LATER, OTHER, header_of

from compliance import records
from compliance.erasure.following import State
from federation.channel import Parcel
from federation.coordinator import Coordinator, write_jobs
from federation.errors import (
    FederationError,
    ForgedError,
    PartyUnreachableError,
    RefusedError,
    VersionError,
    WorkspaceError,
)
from federation.jobs.model import JointModel
from federation.messages import SealedMessage, unseal_header
from federation.progress import Progress, listening
from federation.roll_call import PASSING_SECONDS, Registered, unregistered
from federation.specification import JobSpec, MeasureSpec
from federation.wire import installed, other_bundle

WITHOUT_ONE = {"absent_partners": 1}
MATCH_WITHOUT = MATCH.model_copy(update=WITHOUT_ONE)
TRAIN_WITHOUT = TRAIN.model_copy(update=WITHOUT_ONE | {"epsilon": 0.4})
JOBS: tuple[JobSpec, ...] = (
    MATCH_WITHOUT,
    TRAIN_WITHOUT,
    EXPAND.model_copy(update=WITHOUT_ONE),
    MeasureSpec(name="count", match="find", columns=("colour",), epsilon=0.1, absent_partners=1),
)
AGAIN = MATCH_WITHOUT.model_copy(update={"name": "find-again"})
TOLD = (
    f"courier takes no run of {installed()}; it says: courier runs Comity 0.0.1: update Comity at "
    "courier, then run again, or have that node allow this version's bundle"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(
        tmp_path_factory.mktemp("other-versions"),
        unsafe_seed=3,
        expand={"count_epsilon": 0.2},
        measure={
            "purpose": PURPOSE,
            "columns": [{"name": "colour"}],
            "epsilon": 0.2,
            "minimum_cell": 1,
        },
        budget={"epsilon": 3.0},
    )


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    return made.copy(tmp_path / "workspace")


@pytest.fixture(scope="module")
def matched(made: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world whose match has ended."""
    world = made.copy(tmp_path_factory.mktemp("matched") / "workspace")
    run(world, MATCH)
    return world


class Nodes:
    """A channel to a world's nodes, and to one more, which answers what it is told to.

    Attributes:
        waits: how often more nodes were waited for than there are.
        asked: node and kind of each message, in order.
        patience: of each message that was not to be waited for as long as any other.
    """

    def __init__(self, world: World, another: Callable[[Parcel], SealedMessage | None]) -> None:
        self._world = world
        self._another = another
        self.waits = 0
        self.asked: list[tuple[int, str]] = []
        self.patience: list[float] = []

    def nodes(self, at_least: int, **patience: float) -> Sequence[int]:
        there = [*self._world.nodes(0), 3]
        self.waits += at_least > len(there)
        return there

    def exchange(
        self, parcels: Sequence[Parcel], *, most_missing: int = 0
    ) -> Sequence[SealedMessage | None]:
        kinds = [unseal_header(one.message.envelope, self._world.agreement).kind for one in parcels]
        self.asked += zip((one.node for one in parcels), kinds, strict=True)
        self.patience += [one.patience_seconds for one in parcels if one.patience_seconds < 1e9]
        return [
            self._another(one)
            if one.node == 3
            else self._world.exchange([one], most_missing=most_missing)[0]
            for one in parcels
        ]


def run(
    world: World,
    *jobs: JobSpec,
    channel: Nodes | World | None = None,
    told: list[Progress] | None = None,
    registered: Registered = unregistered,
) -> list[Progress]:
    """Run jobs; return what was told, or add to what was told before."""
    write_jobs(world.folder("coordinator"), jobs)
    told = [] if told is None else told
    coordinator = Coordinator.open(
        world.folder("coordinator").path, clock=world.clock, registered=registered
    )
    with listening(told.append):
        coordinator.run(channel or world)
    return told


def ends(world: World) -> dict[str, tuple[Any, Any]]:
    """Who was missing from each job that ended, and who of them for the version."""
    return {
        one.job or "": (one.missing, one.of_another_version)
        for one in world.leaves("coordinator")
        if isinstance(one, records.JobEnded) and one.outcome == "done"
    }


def absent(told: Sequence[Progress]) -> list[tuple[str, str]]:
    return [(one.absent, one.stage) for one in told if one.absent is not None]


def test_every_kind_of_job_goes_on_without_it_and_says_so_with_the_reason(world: World) -> None:
    world.outdated = {"courier": "0.0.1"}
    told = run(world, *JOBS)
    gone = (("courier",), ("courier",))
    assert ends(world) == {spec.name: gone for spec in JOBS}
    sentence = TOLD.replace("courier takes", "node 2 takes", 1)
    which = "node 2, courier's by its own account,"
    assert absent(told) == [("courier", f"takes {which} for absent: {sentence}")]
    last = [one.stage for one in told if one.stage.startswith("has ended")]
    assert last == len(JOBS) * ["has ended without courier (of another version)"]
    for spec in JOBS:
        ended = json.loads((world.folder("coordinator").job(spec.name) / "ended.json").read_bytes())
        assert ended["missing"] == ended["of_another_version"] == ["courier"]
    making = JointModel.model_validate_json(
        world.folder("brand").model("model").read_bytes()
    ).making
    assert (making.parties, making.missing) == (("retailer",), ("courier",))
    assert not world.folder("courier").log.joinpath("tile/entries").exists()


class CrashError(Exception):
    """The coordinator's process is no more."""


def begin(world: World, job: JobSpec, channel: Nodes | World) -> list[Progress]:
    """Run a job until its parties have been found, and something was said in it."""
    listener = world.listener

    def listen(name: str, question: SealedMessage, answer: SealedMessage) -> SealedMessage:
        if unseal_header(answer.envelope, world.agreement).kind == "match.offer":
            raise CrashError
        return listener(name, question, answer)

    world.listener = listen
    told: list[Progress] = []
    with pytest.raises(CrashError):
        run(world, job, channel=channel, told=told)
    return told


def in_another_version(world: World, version: int) -> None:
    """Have the courier answer in another version of the wire."""

    def listen(name: str, _: SealedMessage, answer: SealedMessage) -> SealedMessage:
        if name != "courier":
            return answer
        content = header_of(answer) | LATER | {"version": version}
        return world.parties.sign(name, json.dumps(content).encode(), answer.payload)

    world.listener = listen


def refusing_this_version(world: World) -> None:
    """Have the courier refuse whatever it is asked, as if it were asked in another version."""

    def listen(name: str, question: SealedMessage, answer: SealedMessage) -> SealedMessage:
        if name != "courier":
            return answer
        content = header_of(question) | LATER
        later = world.parties.sign("coordinator", json.dumps(content).encode(), question.payload)
        refusal = header_of(world.handle(name, later)) | {"answers": question.digest}
        return world.parties.sign(name, json.dumps(refusal).encode())

    world.listener = listen


WAYS: Mapping[str, tuple[Callable[[World], None], type[FederationError], str]] = {
    "a later wire": (
        lambda world: in_another_version(world, OTHER),
        VersionError,
        f"speaks version {OTHER} of the wire, and {installed()} here speaks 1: update Comity here",
    ),
    "an earlier wire": (
        lambda world: in_another_version(world, 0),
        VersionError,
        f"version 0 of the wire, and {installed()} here speaks 1: update Comity at courier",
    ),
    "a refusal": (
        refusing_this_version,
        RefusedError,
        f"refused by courier under version: a message of coordinator's speaks version {OTHER}",
    ),
    "another bundle": (
        lambda world: world.outdated.update(courier="9.0"),
        VersionError,
        "courier runs Comity 9.0: update Comity here",
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_however_it_shows_it_is_absent_where_that_will_do_and_else_stops_the_run_at_its_start(
    world: World, way: str
) -> None:
    turn, error, words = WAYS[way]
    turn(world)
    with pytest.raises(error) as raised:
        run(world, MATCH)
    assert words in str(raised.value)
    assert not any(isinstance(one, records.JobStarted) for one in world.leaves("coordinator"))
    assert world.statement("brand").charges == ()
    stages = begin(world, MATCH_WITHOUT, world)
    (told,) = absent(stages)
    assert told[0] == "courier"
    assert words in told[1]
    assert "goes on without courier" in [one.stage for one in stages]


@pytest.mark.parametrize("way", WAYS)
def test_however_it_shows_a_job_that_can_do_without_it_is_run_after_one_that_cannot(
    world: World, way: str
) -> None:
    turn, error, words = WAYS[way]
    turn(world)
    with pytest.raises(error) as raised:
        run(world, MATCH, AGAIN)
    assert words in str(raised.value)
    assert ends(world) == {"find-again": (("courier",), ("courier",))}


@pytest.mark.parametrize("jobs", [(), (MATCH,)])
def test_a_request_of_anybody_else_reaches_the_others_and_it_once_it_is_updated(
    world: World, jobs: tuple[JobSpec, ...]
) -> None:
    request = ask(world, "brand", SHARED).execution.request
    world.outdated = {"courier": "0.0.1"}
    if jobs == (MATCH,):
        with pytest.raises(VersionError, match="update Comity at courier"):
            run(world, *jobs)
    else:
        assert [name for name, _ in absent(run(world, *jobs))] == ["courier"]
    assert states(world, "brand", request)["retailer"] is State.COMPLETED
    assert states(world, "brand", request)["courier"] is State.QUEUED
    assert record("retailer", SHARED) not in people(world, "retailer")
    world.outdated.clear()
    assert absent(run(world)) == []
    assert states(world, "brand", request)["courier"] is State.COMPLETED
    assert record("courier", SHARED) not in people(world, "courier")


def test_who_is_updated_during_a_run_is_asked_in_passing_and_in_its_next_job(world: World) -> None:
    def listen(_: str, __: SealedMessage, answer: SealedMessage) -> SealedMessage:
        if unseal_header(answer.envelope, world.agreement).kind == "match.done":
            world.outdated.clear()
        return answer

    world.listener, world.outdated = listen, {"courier": "0.0.1"}
    channel = Nodes(world, lambda _: None)
    run(world, MATCH_WITHOUT, AGAIN, channel=channel)
    assert ends(world) == {"find": (("courier",), ("courier",)), "find-again": ((), ())}
    assert channel.waits == 0
    assert channel.patience == 2 * [PASSING_SECONDS]


def test_who_is_being_updated_and_silent_meanwhile_stays_absent_and_is_not_waited_for(
    world: World,
) -> None:
    def listen(_: str, __: SealedMessage, answer: SealedMessage) -> SealedMessage:
        if unseal_header(answer.envelope, world.agreement).kind == "match.done":
            world.outdated.clear()
            world.unreachable = {"courier"}
        return answer

    world.listener, world.outdated = listen, {"courier": "0.0.1"}
    channel = Nodes(world, lambda _: None)
    run(world, MATCH_WITHOUT, AGAIN, channel=channel)
    assert ends(world) == dict.fromkeys(["find", "find-again"], (("courier",), ("courier",)))
    assert channel.patience == 2 * [PASSING_SECONDS]


def update_after(world: World, party: str, kind: str, *, crash: bool = False) -> None:
    """Have a party's node run another version once it has said something."""
    said = []

    def listen(name: str, _: SealedMessage, answer: SealedMessage) -> SealedMessage:
        told = unseal_header(answer.envelope, world.agreement).kind
        if name != party and party in world.outdated:
            said.append(told)
            if crash and said.count(kind) == 2:
                raise CrashError
        if (name, told) == (party, kind):
            world.outdated[party] = "9.0"
        return answer

    world.listener = listen


def test_who_is_updated_within_a_job_is_out_of_it_and_stays_so_with_the_reason_after_a_crash(
    matched: World, tmp_path: Path
) -> None:
    world = matched.copy(tmp_path / "workspace")
    spec = TRAIN_WITHOUT.model_copy(update={"rounds": 4})
    update_after(world, "courier", "train.update", crash=True)
    with pytest.raises(CrashError):
        run(world, MATCH, spec)
    world.listener, world.outdated = World.listener, {}
    told = run(world, MATCH, spec)
    assert ends(world)["model"] == (("courier",), ("courier",))
    assert "has ended without courier (of another version)" in [one.stage for one in told]
    making = JointModel.model_validate_json(
        world.folder("brand").model("model").read_bytes()
    ).making
    assert (making.parties, making.missing) == (("retailer",), ("courier",))


def test_what_was_answered_before_and_is_damaged_is_said_to_be_of_no_use(
    matched: World, tmp_path: Path
) -> None:
    world = matched.copy(tmp_path / "workspace")
    spec = TRAIN_WITHOUT.model_copy(update={"rounds": 4})
    update_after(world, "courier", "train.update", crash=True)
    with pytest.raises(CrashError):
        run(world, MATCH, spec)
    file, *_ = sorted(world.folder("coordinator").job("model").glob("exchange-*.json"))
    had = json.loads(file.read_bytes())
    had["answers"][0]["payload"] = ""
    file.write_text(json.dumps(had))
    world.listener = World.listener
    words = r"'model' before is of no use any more: .* has 0 payload bytes; .* or a file is damaged"
    with pytest.raises(WorkspaceError, match=words):
        run(world, MATCH, spec)


def test_who_is_updated_within_a_job_that_needs_it_ends_it_by_what_is_to_be_done(
    matched: World, tmp_path: Path
) -> None:
    world = matched.copy(tmp_path / "workspace")
    update_after(world, "courier", "train.update")
    with pytest.raises(VersionError, match=r"courier runs Comity 9\.0: update Comity here"):
        run(world, MATCH, TRAIN)
    assert "model" not in ends(world)
    assert len(world.statement("courier").charges) == 1


def test_with_more_away_than_a_job_goes_on_without_the_version_is_what_stops_it(
    world: World,
) -> None:
    world.outdated, world.away = {"courier": "0.0.1"}, {"retailer"}
    with pytest.raises(VersionError, match="update Comity at courier"):
        run(world, MATCH_WITHOUT)


def of_a_bundle(said: str) -> Callable[[World, Parcel], SealedMessage | None]:
    def answer(_: World, parcel: Parcel) -> None:
        assert parcel.on_version is not None
        parcel.on_version(other_bundle(parcel.addressee, said))

    return answer


def of_a_stranger(world: World, parcel: Parcel) -> SealedMessage | None:
    """Answer as somebody who is no party, under an agreement of its own."""
    content = header_of(world.handle("courier", parcel.message)) | {"sender": "stranger"}
    return world.parties.sign("courier", json.dumps(content).encode())


def in_a_partys_name(world: World, parcel: Parcel) -> SealedMessage | None:
    """Answer as the retailer, under a key of its own."""
    content = header_of(world.handle("courier", parcel.message)) | {"sender": "retailer"}
    return world.parties.sign("courier", json.dumps(content).encode())


def of_no_message(_: World, parcel: Parcel) -> SealedMessage | None:
    return SealedMessage(b"[]", b"")


def of_a_foreign_record(_: World, parcel: Parcel) -> None:
    assert parcel.on_foreign is not None
    parcel.on_foreign(ForgedError("node 3 answered with a record without an envelope"))


BYSTANDERS: Mapping[str, tuple[Callable[[World, Parcel], SealedMessage | None], list[str]]] = {
    "of another version and no party": (of_a_bundle("stranger runs Comity 9.0"), ["stranger"]),
    "of another version and nameless": (of_a_bundle("?"), ["node 3"]),
    "as if a party that is there": (of_a_bundle("courier runs Comity 9.0"), ["courier"]),
    "of no party": (of_a_stranger, []),
    "in a party's name": (in_a_partys_name, []),
    "of no message": (of_no_message, []),
    "of a foreign record": (of_a_foreign_record, []),
    "silent": (lambda _, __: None, []),
}


@pytest.mark.parametrize("bystander", BYSTANDERS)
def test_a_node_of_nobody_whom_a_job_asks_stops_no_run_and_has_nobody_wait(
    world: World, bystander: str
) -> None:
    answer, told = BYSTANDERS[bystander]
    channel = Nodes(world, lambda parcel: answer(world, parcel))
    stages = begin(world, MATCH, channel)
    assert [name for name, _ in absent(stages)] == told
    assert channel.waits == 0
    assert [kind for node, kind in channel.asked if node == 3] == ["identify"]


def test_a_node_of_nobody_that_was_updated_meanwhile_is_not_why_a_party_is_missing(
    world: World,
) -> None:
    answers = iter([of_a_bundle("?")])
    channel = Nodes(world, lambda parcel: next(answers, of_a_stranger)(world, parcel))
    world.away = {"courier"}
    with pytest.raises(PartyUnreachableError, match="no node of courier is connected"):
        run(world, MATCH, channel=channel)


@pytest.mark.parametrize(
    ("bystander", "waits"),
    [
        ("of another version and no party", 1),
        ("of another version and nameless", 0),
        ("as if a party that is there", 0),
        ("of no party", 1),
        ("in a party's name", 1),
        ("of no message", 1),
        ("of a foreign record", 1),
    ],
)
def test_a_bystander_takes_the_place_of_nobody_but_whom_it_says_or_may_be(
    world: World, bystander: str, waits: int
) -> None:
    answer, _ = BYSTANDERS[bystander]
    world.away = {"courier"}
    channel = Nodes(world, lambda parcel: answer(world, parcel))
    stages = begin(world, MATCH_WITHOUT, channel)
    assert "goes on without courier" in [one.stage for one in stages]
    assert channel.waits == waits


@pytest.mark.parametrize("owner", ["stranger", "retailer"])
def test_whose_a_node_is_its_key_says_whatever_it_says_itself(world: World, owner: str) -> None:
    world.away = {"courier"}
    channel = Nodes(world, lambda parcel: of_a_bundle("courier runs Comity 9.0")(world, parcel))
    told = run(
        world, MATCH_WITHOUT, channel=channel, registered=lambda node: owner if node == 3 else None
    )
    assert channel.waits == 1  # the courier may come
    ((name, words),) = absent(told)
    assert (name, f"takes node 3, {owner}'s by its key, for absent" in words) == (owner, True)
    needed = MATCH.model_copy(update={"name": "find-again"})
    with pytest.raises(PartyUnreachableError, match="no node of courier is connected"):
        run(world, needed, channel=channel, registered=lambda _: owner)
