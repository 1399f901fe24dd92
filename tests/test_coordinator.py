"""The coordinator: whom it believes, what it does again, and what it leaves behind."""

import json
import math
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from parties import (
    EXPAND,
    JOBS,
    MATCH,
    PEOPLE,
    TRAIN,
    Listener,
    Parties,
    World,
)
from pydantic import BaseModel, ValidationError

from compliance import records
from federation.audit import verify_party
from federation.channel import Parcel
from federation.coordinator import Coordinator, read_jobs, write_jobs
from federation.errors import MessageError, PartyUnreachableError, RefusedError, WorkspaceError
from federation.jobs.model import JointModel
from federation.jobs.spread import ERASING
from federation.messages import (
    Acknowledged,
    MatchAccept,
    MatchBlinded,
    MatchDone,
    MatchOffer,
    MatchReply,
    Message,
    ModelPublished,
    Present,
    SealedMessage,
    TrainRequest,
    TrainUpdate,
    unseal,
    weights_from_bytes,
)
from federation.progress import Progress, listening
from federation.roll_call import NOTHING_DUE_SECONDS, ROLL_CALL, Patience
from federation.specification import MatchSpec


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def ended(made: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    world = made.copy(tmp_path_factory.mktemp("ended") / "copy")
    world.run()
    return world


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    return made.copy(tmp_path / "copy")


@pytest.fixture
def later(ended: World, tmp_path: Path) -> World:
    return ended.copy(tmp_path / "copy")


def said(world: World) -> list[Message]:
    return [unseal(message, world.agreement) for message in world.wire]


def outcomes(world: World) -> list[tuple[str | None, str]]:
    leaves = world.leaves("coordinator")
    return [(leaf.job, leaf.outcome) for leaf in leaves if isinstance(leaf, records.JobEnded)]


# --- a whole run -----------------------------------------------------------------------------


def test_all_jobs_are_run_in_order_and_logged(ended: World) -> None:
    assert outcomes(ended) == [(spec.name, "done") for spec in JOBS]
    kinds = [leaf.kind for leaf in ended.leaves("coordinator")]
    decided = [place for place, kind in enumerate(kinds) if kind == "access.decided"]
    assert [kinds[place + 1] for place in decided] == ["release"] * kinds.count("release")
    assert [kind for kind in kinds if kind != "access.decided"] == [
        *("agreement.signed", "release"),  # the roll call
        *["release"] * 3,  # a look at erasures
        *("job.started", "release", "release", "job.ended"),
        *("job.started", *["release"] * 7, "model.trained", "job.ended"),
        *("job.started", "release", "release", "job.ended"),
        *["release"] * 9,  # what every log shows to the others
    ]


def test_whatever_the_coordinator_says_itself_is_a_leaf_of_its_log(ended: World) -> None:
    logged = {
        leaf.content_digest
        for leaf in ended.leaves("coordinator")
        if isinstance(leaf, records.Release)
    }
    own = {m.sealed.digest for m in said(ended) if m.header.sender == "coordinator"}
    assert own == logged


def test_whatever_a_party_says_is_a_leaf_of_its_own_log(ended: World) -> None:
    for name in PEOPLE:
        logged = {
            leaf.content_digest for leaf in ended.leaves(name) if isinstance(leaf, records.Release)
        }
        assert logged == {m.sealed.digest for m in said(ended) if m.header.sender == name}


def test_the_model_is_the_average_of_the_last_updates(ended: World) -> None:
    updates = [m for m in said(ended) if isinstance(m.body, TrainUpdate) and m.body.round == 2]
    weights = [weights_from_bytes(update.payload, 4) for update in updates]
    model = JointModel.model_validate_json(ended.folder("coordinator").model("model").read_bytes())
    assert len(weights) == 2
    np.testing.assert_allclose(model.body.weights, np.mean(weights, axis=0))
    for name in ("brand", "retailer", "courier"):
        kept = ended.folder(name).model("model").read_bytes()
        assert kept == model.canonical_bytes


def test_the_second_round_starts_from_the_average_of_the_first(ended: World) -> None:
    rounds = {number: [] for number in (1, 2)}
    for message in said(ended):
        if isinstance(message.body, TrainUpdate):
            rounds[message.body.round].append(weights_from_bytes(message.payload, 4))
    starts = [
        weights_from_bytes(message.payload, 4)
        for message in said(ended)
        if isinstance(message.body, TrainRequest) and message.body.round == 2
    ]
    for start in starts:
        np.testing.assert_allclose(start, np.mean(rounds[1], axis=0))


def test_the_charges_are_those_of_the_plan(ended: World) -> None:
    for name in ("retailer", "courier"):
        statement = ended.statement(name)
        assert len(statement.charges) == TRAIN.rounds
        assert 0.95 * TRAIN.epsilon < statement.epsilon_spent <= TRAIN.epsilon
    assert ended.statement("brand").charges == ()
    assert not ended.folder("coordinator").ledger.exists()


def test_jobs_that_have_ended_are_not_asked_again(later: World) -> None:
    later.run()
    kinds = {later.read(one).header.kind for one in later.wire}
    assert kinds == {
        "identify",
        "present",
        "erase.look",
        "erase.standing",
        "retrain.ask",
        "retrain.told",
    }


def test_a_new_job_is_run_in_a_workspace_where_others_have_ended(later: World) -> None:
    more = EXPAND.model_copy(update={"name": "wider", "share": 0.3})
    write_jobs(later.folder("coordinator"), (*JOBS, more))
    later.run()
    assert later.folder("retailer").segment("wider").exists()
    # who is there, erasures, one question a partner, models to retire, what each log shows others
    assert len(later.wire) == 2 * (3 + 3 + 2 + 3 + 9)


# --- interrupted ------------------------------------------------------------------------------


class CutError(Exception):
    """The line went dead."""


FAR = 1_000
"""More exchanges than any run has."""


class Dying:
    """A channel that dies before its n-th exchange, or after it."""

    def __init__(self, world: World, after: int, *, answered: bool) -> None:
        self.world = world
        self.left = after
        self._answered = answered

    def nodes(self, at_least: int, **patience: float) -> Sequence[int]:
        return self.world.nodes(at_least, **patience)

    def exchange(
        self, parcels: Sequence[Parcel], *, most_missing: int = 0
    ) -> Sequence[SealedMessage | None]:
        self.left -= 1
        if self.left < 0 and not self._answered:
            raise CutError
        answers = self.world.exchange(parcels, most_missing=most_missing)
        if self.left < 0:
            raise CutError
        return answers


def in_jobs(world: World, name: str) -> list[str]:
    """What a party's log tells, but for what every run asks anew, until it is shown to others.

    That is who is there, how erasures stand, and, once something was trained, whether it is to be
    trained anew: a run after a cut asks the last where a single one had nothing to ask of.
    """
    leaves = world.leaves(name)[: first_shown(world, name)]
    return [leaf.kind for leaf in leaves if leaf.job not in (ERASING, ROLL_CALL)]


def first_shown(world: World, name: str) -> int:
    """How many leaves a party's log had when it was first shown to others."""
    names = [getattr(leaf, "release_id", "") for leaf in world.leaves(name)]
    return next(place for place, one in enumerate(names) if "/witness.shown/" in one)


def test_interrupted_anywhere_a_run_goes_on_and_charges_nothing_twice(
    tmp_path: Path, thorough: bool
) -> None:
    fresh = World.make(tmp_path / "made", unsafe_seed=4)
    whole = fresh.copy(tmp_path / "whole")
    whole.run()
    model = whole.folder("coordinator").model("model").read_bytes()
    cuts = [(0, True), (4, False), (12, True)]
    if thorough:
        counted = Dying(fresh.copy(tmp_path / "counted"), FAR, answered=True)
        Coordinator.open(counted.world.folder("coordinator").path, clock=fresh.clock).run(counted)
        cuts = [(after, at) for after in range(FAR - counted.left) for at in (False, True)]
        assert len(cuts) > 20
    for after, answered in cuts:
        world = fresh.copy(tmp_path / f"{after} {answered}")
        coordinator = Coordinator.open(world.folder("coordinator").path, clock=world.clock)
        with pytest.raises(CutError):
            coordinator.run(Dying(world, after, answered=answered))
        world.run()
        assert world.folder("coordinator").model("model").read_bytes() == model
        for name in ("retailer", "courier"):
            assert world.spent(name) == whole.spent(name)
            segment = world.folder(name).segment("best").read_bytes()
            assert segment == whole.folder(name).segment("best").read_bytes()
            assert in_jobs(world, name) == in_jobs(whole, name)
            public = verify_party(world.folder(name).path).public_size
            assert public is not None
            assert public >= first_shown(world, name)
        assert [job for job, outcome in outcomes(world) if outcome == "done"] == [
            spec.name for spec in JOBS
        ]


def test_a_party_that_refuses_stops_the_job_which_stays_open(world: World) -> None:
    world.withdraw("courier", range(20, 30))  # all whom the brand knows too
    with pytest.raises(RefusedError) as refusal:
        world.run()
    assert (refusal.value.party, refusal.value.term) == ("courier", "match.minimum_match")
    assert outcomes(world) == [("find", "failed")]
    assert not (world.folder("coordinator").job("find") / "ended.json").exists()
    assert not world.folder("courier").members("find").exists()
    world.withdraw("courier", [])
    renamed = [spec.model_copy(update={"name": "find-2"}) for spec in (MATCH,)]
    write_jobs(world.folder("coordinator"), renamed)
    world.run()
    assert outcomes(world)[-1] == ("find-2", "done")


# --- what it does not believe -----------------------------------------------------------------


def on(
    kind: type[BaseModel],
    change: Callable[[World, str, SealedMessage, SealedMessage], SealedMessage],
) -> Callable[[World], Listener]:
    """Change the retailer's or brand's first answer of a kind."""

    def listener(world: World) -> Listener:
        def listen(name: str, question: SealedMessage, answer: SealedMessage) -> SealedMessage:
            said = unseal(answer, world.agreement).header.kind
            if said == kind.model_fields["kind"].default and name != "courier":
                return change(world, name, question, answer)
            return answer

        return listen

    return listener


def from_another(
    world: World, name: str, question: SealedMessage, answer: SealedMessage
) -> SealedMessage:
    """The courier answers in the place of whoever was asked."""
    message = unseal(answer, world.agreement)
    header = message.header
    return world.parties.seal(
        "courier",
        header.recipient,
        header.job,
        header.body,
        message.payload,
        answers=question.digest,
    )


def addressed(recipient: str) -> Callable[..., SealedMessage]:
    def change(
        world: World, name: str, question: SealedMessage, answer: SealedMessage
    ) -> SealedMessage:
        message = unseal(answer, world.agreement)
        header = message.header
        return world.parties.seal(
            name, recipient, header.job, header.body, message.payload, answers=question.digest
        )

    return change


def of_another_job(
    world: World, name: str, question: SealedMessage, answer: SealedMessage
) -> SealedMessage:
    message = unseal(answer, world.agreement)
    header = message.header
    return world.parties.seal(
        name, header.recipient, "other", header.body, message.payload, answers=question.digest
    )


def of_an_earlier_question(
    world: World, name: str, question: SealedMessage, answer: SealedMessage
) -> SealedMessage:
    message = unseal(answer, world.agreement)
    header = message.header
    return world.parties.seal(
        name, header.recipient, header.job, header.body, message.payload, answers="0" * 64
    )


def cut(world: World, name: str, question: SealedMessage, answer: SealedMessage) -> SealedMessage:
    return replace(answer, payload=answer.payload[:-1])


def unsigned(
    world: World, name: str, question: SealedMessage, answer: SealedMessage
) -> SealedMessage:
    stranger = Parties.in_memory()
    forged = Parties(world.agreement, stranger.keys, stranger.decryption_keys)
    message = unseal(answer, world.agreement)
    header = message.header
    return forged.seal(
        name, header.recipient, header.job, header.body, message.payload, answers=question.digest
    )


def in_clear(
    world: World, name: str, question: SealedMessage, answer: SealedMessage
) -> SealedMessage:
    message = world.read(answer)
    header = message.header
    return world.parties.seal(
        name,
        header.recipient,
        header.job,
        message.body,
        message.payload,
        answers=question.digest,
        in_clear=True,
    )


def question_back(
    world: World, name: str, question: SealedMessage, answer: SealedMessage
) -> SealedMessage:
    return question


LIES: dict[str, Callable[[World], Listener]] = {
    "an update by another party": on(TrainUpdate, from_another),
    "blinded identifiers by another party": on(MatchBlinded, from_another),
    "an answer to another question": on(TrainUpdate, of_an_earlier_question),
    "an old roll call": on(Present, of_an_earlier_question),
    "an update cut short": on(TrainUpdate, cut),
    "an update under another key": on(TrainUpdate, unsigned),
    "an acknowledgement under another key": on(Acknowledged, unsigned),
    "an offer by another party": on(MatchOffer, from_another),
    "an offer in clear": on(MatchOffer, in_clear),
    "an offer for a partner": on(MatchOffer, addressed("courier")),
    "an accept under another key": on(MatchAccept, unsigned),
    "an accept in clear": on(MatchAccept, in_clear),
    "an accept of another job": on(MatchAccept, of_another_job),
    "an accept of an earlier question": on(MatchAccept, of_an_earlier_question),
    "blinded identifiers for a partner": on(MatchBlinded, addressed("courier")),
    "blinded identifiers for the coordinator": on(MatchBlinded, addressed("coordinator")),
    "blinded identifiers for a stranger": on(MatchBlinded, addressed("stranger")),
    "blinded identifiers in clear": on(MatchBlinded, in_clear),
    "a match reply in clear": on(MatchReply, in_clear),
    "a match reply for the coordinator": on(MatchReply, addressed("coordinator")),
    "a word for another party": on(MatchDone, addressed("courier")),
    "the question itself": on(TrainUpdate, question_back),
    "the question itself, carried": on(MatchReply, question_back),
    "an update of another job": on(TrainUpdate, of_another_job),
    "blinded identifiers of another job": on(MatchBlinded, of_another_job),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_stops_the_run_and_nothing_is_made_of_it(world: World, lie: str) -> None:
    world.listener = LIES[lie](world)
    with pytest.raises(MessageError):
        world.run()
    published = any(isinstance(message.body, ModelPublished) for message in said(world))
    assert published == lie.startswith("an acknowledgement")
    assert not (world.folder("coordinator").job("best") / "ended.json").exists()


def test_a_run_goes_on_after_a_lie(world: World) -> None:
    world.listener = LIES["an update by another party"](world)
    with pytest.raises(MessageError):
        world.run()
    world.listener = World.listener
    world.run()
    assert outcomes(world)[-1] == ("best", "done")


def test_an_answer_of_an_earlier_run_is_a_replay(made: World, tmp_path: Path) -> None:
    """Same parties, same job, same round: only the question differs."""
    first = made.copy(tmp_path / "first")
    first.run()
    old = next(m for m in said(first) if isinstance(m.body, TrainUpdate) and m.body.round == 1)
    world = made.copy(tmp_path / "second")
    more = TRAIN.model_copy(update={"learning_rate": 3.0})
    write_jobs(world.folder("coordinator"), (MATCH, more))
    sender = old.header.sender

    def listen(name: str, question: SealedMessage, answer: SealedMessage) -> SealedMessage:
        body = unseal(answer, world.agreement).body
        return old.sealed if isinstance(body, TrainUpdate) and name == sender else answer

    world.listener = listen
    with pytest.raises(MessageError, match="replay"):
        world.run()


# --- who is there -----------------------------------------------------------------------------


class Absent:
    """A channel to some of the nodes, in any order; `waits` is how often its deadline passed.

    `asked` are the nodes that something was said to.
    """

    def __init__(self, world: World, nodes: Sequence[int]) -> None:
        self._world = world
        self._nodes = nodes
        self.waited: list[float] = []
        self.asked: list[int] = []
        self.patience: dict[str, set[float]] = {}

    @property
    def waits(self) -> int:
        return len(self.waited)

    def nodes(self, at_least: int, *, patience_seconds: float = math.inf) -> Sequence[int]:
        if at_least > len(self._nodes):
            self.waited.append(patience_seconds)
        return self._nodes

    def exchange(
        self, parcels: Sequence[Parcel], *, most_missing: int = 0
    ) -> Sequence[SealedMessage | None]:
        self.asked += [parcel.node for parcel in parcels]
        for parcel in parcels:
            header = self._world.read(parcel.message).header
            if not header.kind.startswith("witness."):
                self.patience.setdefault(header.job, set()).add(parcel.patience_seconds)
        return self._world.exchange(parcels, most_missing=most_missing)


def run_with(world: World, nodes: Sequence[int]) -> None:
    open_coordinator(world).run(Absent(world, nodes))


def open_coordinator(world: World) -> Coordinator:
    return Coordinator.open(world.folder("coordinator").path, clock=world.clock)


def test_a_party_that_is_not_there_is_named(world: World) -> None:
    told: list[Progress] = []
    with listening(told.append), pytest.raises(PartyUnreachableError, match="courier"):
        run_with(world, [0, 1])
    waits = [one for one in told if one.stage.startswith("waits")]
    assert waits == [Progress("coordinator", "roll-call", "waits for courier")]
    with pytest.raises(PartyUnreachableError, match="brand, retailer"):
        run_with(world, [2, 2])
    assert outcomes(world) == []
    run_with(world, [2, 0, 1])
    assert outcomes(world)[-1] == ("best", "done")


def test_whom_it_waits_for_is_told_with_the_end_of_it(world: World) -> None:
    told: list[Progress] = []
    channel = Absent(world, [0, 1])
    with listening(told.append), pytest.raises(PartyUnreachableError, match="courier"):
        open_coordinator(world).run(channel, patience=Patience(90, 3))
    (line,) = [one.stage for one in told if one.stage.startswith("waits")]
    words, end = line.removesuffix(" UTC").split(", until ")
    assert words == "waits for courier, 90 s at most"
    left = datetime.fromisoformat(f"{end}+00:00") - world.now
    assert 85 < left.total_seconds() <= 90  # of a clock that goes on with every look
    assert channel.waited == [90]


@pytest.mark.parametrize(
    ("patience", "seconds", "owes"),
    [
        (None, NOTHING_DUE_SECONDS, False),
        (Patience.of(600, None), NOTHING_DUE_SECONDS, True),
        (Patience.of(7, None), 7, False),
        (Patience.of(600, 120), 120, True),
    ],
)
def test_where_no_job_is_due_nobody_is_waited_for_as_long_as_for_a_job(
    later: World, patience: Patience | None, seconds: float, owes: bool
) -> None:
    if owes:
        (later.folder("coordinator").path / "unshown").write_text("best")
    told: list[Progress] = []
    channel = Absent(later, [0, 1])
    with listening(told.append):
        open_coordinator(later).run(channel, patience=patience)
    assert channel.waited == [seconds]
    without = "goes on without courier: what they have yet to hear is told later"
    assert [one.stage for one in told].count(without) == 1
    assert outcomes(later)[-1] == ("best", "done")
    told.clear()
    with listening(told.append):
        open_coordinator(later).run(Absent(later, [0, 1, 2]), patience=patience)
    assert not [one.stage for one in told if one.stage.startswith(("waits", "goes on without"))]


@pytest.mark.parametrize("absent_partners", [0, 1])
def test_a_party_that_is_away_is_waited_for_once_in_a_run(
    world: World, absent_partners: int
) -> None:
    jobs = [
        spec.model_copy(update={"name": name, "absent_partners": absent_partners})
        for spec, name in ((MATCH, "find"), (MATCH, "find-more"), (TRAIN, "model"))
    ]
    write_jobs(world.folder("coordinator"), jobs)
    channel = Absent(world, [0, 1])
    if absent_partners:
        open_coordinator(world).run(channel)
    else:
        with pytest.raises(PartyUnreachableError, match="no node of courier is connected"):
            open_coordinator(world).run(channel)
    assert channel.waits == 1
    assert outcomes(world) == [(one.name, "done") for one in jobs if absent_partners]


def test_a_job_waits_as_long_as_it_says_and_one_that_bears_more_waits_again(world: World) -> None:
    jobs = [
        MATCH.model_copy(update={"absent_partners": 1, "deadline_seconds": 5}),
        MATCH.model_copy(update={"name": "find-more", "absent_partners": 1}),
        TRAIN.model_copy(update={"absent_partners": 1, "deadline_seconds": 7}),
    ]
    write_jobs(world.folder("coordinator"), jobs)
    channel = Absent(world, [0, 1])
    open_coordinator(world).run(channel)
    assert channel.waited == [5, math.inf]
    assert channel.patience["find"] == {5}
    assert channel.patience["find-more"] == {math.inf}
    assert channel.patience["model"] == {7}
    assert outcomes(world) == [(one.name, "done") for one in jobs]


@pytest.mark.parametrize("seconds", [0, -1, 604_801, 1.5])
def test_the_deadline_of_a_job_is_of_one_second_to_a_week(seconds: float) -> None:
    with pytest.raises(ValidationError, match="deadline_seconds"):
        MatchSpec(name="find", deadline_seconds=seconds)  # type: ignore[arg-type]
    assert "deadline_seconds" not in MATCH.model_dump()


def test_a_node_that_is_there_and_silent_has_nobody_wait_for_another_in_its_place(
    world: World,
) -> None:
    channel = Absent(world, [0, 1, 2])
    world.unreachable = {"courier"}
    with pytest.raises(PartyUnreachableError, match="no answer from courier"):
        open_coordinator(world).run(channel)
    assert channel.waits == 0


def test_a_node_that_is_silent_is_asked_once_in_a_run_that_can_do_without(world: World) -> None:
    jobs = [
        MATCH.model_copy(update={"name": name, "absent_partners": 1})
        for name in ("find", "find-more")
    ]
    write_jobs(world.folder("coordinator"), jobs)
    channel = Absent(world, [0, 1, 2])
    world.unreachable = {"courier"}
    open_coordinator(world).run(channel)
    assert outcomes(world) == [(one.name, "done") for one in jobs]
    assert channel.asked.count(2) == 1


# --- what it refuses itself ---------------------------------------------------------------------


def test_the_coordinators_own_refusal_is_a_leaf_too(world: World) -> None:
    world.now = datetime(2028, 1, 1, tzinfo=UTC)
    with pytest.raises(RefusedError) as refusal:
        world.run()
    assert (refusal.value.party, refusal.value.term) == ("coordinator", "valid_until")
    leaf = world.leaves("coordinator")[-1]
    assert isinstance(leaf, records.Refusal)
    assert leaf.term == "valid_until"
    assert world.wire == []


def test_a_job_beyond_the_contract_is_refused_before_anybody_is_asked(world: World) -> None:
    greedy = TRAIN.model_copy(update={"epsilon": 1.1})
    write_jobs(world.folder("coordinator"), (MATCH, greedy))
    with pytest.raises(RefusedError) as refusal:
        world.run()
    assert (refusal.value.party, refusal.value.term) == ("coordinator", "train.epsilon")
    refusals = [
        leaf.term for leaf in world.leaves("coordinator") if isinstance(leaf, records.Refusal)
    ]
    assert refusals == ["train.epsilon"]
    assert not [m for m in said(world) if isinstance(m.body, TrainRequest)]


def test_a_refused_job_keeps_nothing_from_being_run_but_what_builds_on_it(world: World) -> None:
    greedy = TRAIN.model_copy(update={"epsilon": 1.1})
    fair = TRAIN.model_copy(update={"name": "fair", "steps": 2, "rounds": 1})
    write_jobs(world.folder("coordinator"), (MATCH, greedy, EXPAND, fair))
    told: list[tuple[str, str]] = []

    def hear(progress: Progress) -> None:
        if progress.party == "coordinator":
            told.append((progress.job, progress.stage))

    with listening(hear), pytest.raises(RefusedError) as refusal:
        world.run()
    assert refusal.value.term == "train.epsilon"
    assert outcomes(world) == [("find", "done"), ("fair", "done")]
    assert ("model", f"has failed: {refusal.value}") in told
    assert ("best", "is not run: it builds on model, which has not ended") in told
    assert told[-1] == (ROLL_CALL, "ended: find, fair; refused: model; not run: best")


def test_a_party_that_is_silent_stops_the_run_though_a_job_was_refused(world: World) -> None:
    world.withdraw("courier", range(20, 30))
    again = MATCH.model_copy(update={"name": "again"})
    write_jobs(world.folder("coordinator"), (MATCH, again, MATCH.model_copy(update={"name": "c"})))
    told: list[str] = []

    def hear(progress: Progress) -> None:
        if (progress.party, progress.job) == ("coordinator", "find"):
            if "has failed" in progress.stage:
                world.unreachable.add("retailer")
        elif (progress.party, progress.job) == ("coordinator", "again"):
            told.append(progress.stage)

    with listening(hear), pytest.raises(PartyUnreachableError, match="retailer") as error:
        world.run()
    assert f"has failed: {error.value}" in told
    assert outcomes(world) == [("find", "failed"), ("again", "failed")]


def test_jobs_are_read_as_they_were_written(world: World) -> None:
    folder = world.folder("coordinator")
    assert read_jobs(folder) == JOBS
    write_jobs(folder, JOBS[:1])
    assert read_jobs(folder) == JOBS[:1]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"{}",
        b'[{"kind": "sell", "name": "a"}]',
        json.dumps([TRAIN.model_dump() | {"noise_multiplier": 0}]).encode(),
    ],
)
def test_a_malformed_list_of_jobs_is_refused(world: World, content: bytes) -> None:
    folder = world.folder("coordinator")
    (folder.path / "jobs.json").write_bytes(content)
    with pytest.raises(WorkspaceError, match="mistakes"):
        world.run()


def test_a_list_of_jobs_is_refused_without_quoting_it(world: World) -> None:
    folder = world.folder("coordinator")
    content = json.dumps([TRAIN.model_dump() | {"epsilon": "s3cret", "rounds": ["s3cret"]}])
    (folder.path / "jobs.json").write_text(content)
    with pytest.raises(WorkspaceError, match=r"jobs\.json: 2 mistakes: .*epsilon") as caught:
        read_jobs(folder)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_a_missing_list_of_jobs_is_refused(world: World) -> None:
    (world.folder("coordinator").path / "jobs.json").unlink()
    with pytest.raises(WorkspaceError, match="missing"):
        world.run()


def test_the_coordinator_keeps_nothing_of_people(ended: World) -> None:
    root = ended.folder("coordinator").path
    kept = {path.relative_to(root).parts[0] for path in root.rglob("*") if path.is_file()}
    assert kept == {
        "agreement.json",
        "jobs",
        "jobs.json",
        "keys",
        "lock",
        "log",
        "models",
        "outbox",
        "party.json",
        "shown",
    }
    assert {path.name for path in (root / "jobs").rglob("*") if path.is_file()} == {"ended.json"}
