"""Models trained again without somebody: the queue, the next name, the end of the old one."""

import itertools
import json
import math
import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import parties
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parties import EXPAND, MATCH, NOW, TRAIN, World

from compliance import records
from compliance.agreement import Agreement
from compliance.erasure.completion import Step
from compliance.erasure.retraining import (
    DueModel,
    RetrainingStanding,
    next_name,
    standing_of,
)
from compliance.records import ErasureOutcome
from compliance.terms import Artefact
from federation import asking, retaining
from federation import retraining as module
from federation.artefacts import remove
from federation.channel import Parcel
from federation.cli import main
from federation.coordinator import Coordinator, read_jobs, write_jobs
from federation.erased import Erased
from federation.erasing import Erasing
from federation.errors import PartyUnreachableError, RefusedError, WorkspaceError
from federation.gate import Gate
from federation.jobs import spread
from federation.messages import SealedMessage, content_digest, unseal
from federation.model_standing import ModelUse, model_standings
from federation.operations.folder import CoordinatorConfig, CoordinatorFolder
from federation.outcomes import arriving, saw
from federation.party import locked
from federation.retraining import RetrainingQueue
from federation.roll_call import Patience
from federation.specification import TrainSpec
from federation.successors import Retrainings
from federation.training.manifests import Manifest

DAY = timedelta(days=1)
DAYS = 20
QUICK = TRAIN.model_copy(update={"steps": 2})
JOBS = (MATCH, QUICK)
TERMS: dict[str, Any] = {
    "budget": {"epsilon": 5.0, "delta": 1e-4},
    "erasure": {"retrain_days": DAYS},
}
S = RetrainingStanding


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World.make(tmp_path_factory.mktemp("trained") / "world", **TERMS)
    write_jobs(world.folder("coordinator"), JOBS)
    world.run()
    return world


@pytest.fixture
def world(trained: World, tmp_path: Path) -> World:
    return trained.copy(tmp_path / "world")


def erase(world: World, party: str, person: int) -> dict[str, Step]:
    folder = world.folder(party)
    with locked(folder), folder.open_log() as log:
        gate = Gate(folder, world.agreement, log, None, clock=world.clock)
        erasing = Erasing(folder, world.agreement, gate, clock=world.clock)
        asked = erasing.request("email", parties.email(person)).execution.request
        erasing.run()
        return {one.target: one for one in erasing.receipt(asked)[1].steps}


def test_whose_row_left_the_table_is_still_known_to_the_model_wherever_they_ask(
    world: World,
) -> None:
    table = pd.read_csv(world.table("retailer"), dtype=str)
    gone = table["record"] == parties.record("retailer", 25)
    table[~gone].to_csv(world.table("retailer"), index=False)
    there = world.copy(world.folder("retailer").path.parent.parent / "there")
    assert erase(world, "retailer", 25)["model model"].outcome is ErasureOutcome.RETRAIN
    with there.node("brand").desk() as desk:
        erasing = Erasing(desk.folder, desk.agreement, desk.gate, clock=there.clock)
        request = erasing.request("email", parties.email(25)).execution.request
    Coordinator.open(there.folder("coordinator").path, clock=there.clock).spread(there)
    with there.node("retailer").desk() as desk:
        erasing = Erasing(desk.folder, desk.agreement, desk.gate, clock=there.clock)
        steps = {one.target: one.outcome for one in erasing.receipt(request)[1].steps}
    assert steps["model model"] is ErasureOutcome.RETRAIN


def queue(world: World, party: str = "retailer") -> dict[str, tuple[S, str | None]]:
    folder = world.folder(party)
    listed = RetrainingQueue(folder, world.agreement).listed(world.now)
    return {one.due.model: (one.standing, one.successor) for one in listed}


def kinds(world: World, party: str = "retailer") -> list[str]:
    return [leaf.kind for leaf in world.leaves(party)]


class TestStanding:
    @pytest.mark.parametrize(
        ("deleted", "retired", "replaced"),
        [(False, False, False), (True, False, False), (False, True, False), (True, True, True)],
    )
    @pytest.mark.parametrize("days", [-1, 0, 1])
    def test_facts_and_the_day_decide(
        self, days: int, deleted: bool, retired: bool, replaced: bool
    ) -> None:
        due = DueModel(model="march", model_digest="a" * 64, due=NOW)
        found = standing_of(
            due, NOW + days * DAY, deleted=deleted, retired=retired, replaced=replaced
        )
        if replaced:
            assert found is S.REPLACED
        elif retired:
            assert found is S.RETIRED
        elif deleted:
            assert found is S.DELETED
        else:
            assert found is (S.OVERDUE if days >= 0 else S.QUEUED)

    def test_only_time_leads_from_queued_to_overdue_and_every_end_is_one(self) -> None:
        """Every pair of standings, of moments in order and facts that only come."""
        due = DueModel(model="march", model_digest="a" * 64, due=NOW)
        facts = [(False, False, False), (True, False, False), (False, True, False)]
        facts += [(True, True, False), (False, True, True), (True, True, True)]
        moments = []
        for days, (deleted, retired, replaced) in itertools.product((-1, 1), facts):
            standing = standing_of(
                due, NOW + days * DAY, deleted=deleted, retired=retired, replaced=replaced
            )
            moments.append(((days, deleted, retired, replaced), standing))
        pairs = {
            (standing, then)
            for (early, standing), (late, then) in itertools.product(moments, repeat=2)
            if all(one <= other for one, other in zip(early, late, strict=True))
            and not (early[2] and early[3] != late[3])  # who retires a model says why, once
        }
        ends = {S.REPLACED: {S.REPLACED}, S.RETIRED: {S.RETIRED}}
        ends |= {S.DELETED: {S.DELETED, S.RETIRED, S.REPLACED}}
        assert pairs == {(S.QUEUED, one) for one in S} | {
            (S.OVERDUE, one) for one in set(S) - {S.QUEUED}
        } | {(one, end) for one, then in ends.items() for end in then}


@settings(max_examples=25)
@given(
    st.from_regex(r"[a-z][a-z0-9-]{0,31}", fullmatch=True),
    st.sets(st.integers(2, 12)),
)
def test_the_next_name_is_a_jobs_name_that_nobody_has(first: str, numbers: set[int]) -> None:
    taken: set[str] = {first}
    for _ in range(len(numbers)):
        taken.add(next_name(first, taken))
    name = next_name(first, taken)
    assert name not in taken
    TrainSpec.model_validate(QUICK.model_dump() | {"name": name})
    if len(first) < 29:
        assert name == f"{first}-{len(numbers) + 2}"


def test_a_model_is_trained_again_without_who_was_erased(world: World) -> None:
    step = erase(world, "retailer", 40)["model model"]
    assert (step.outcome, step.due and step.due.date()) == (
        ErasureOutcome.RETRAIN,
        (NOW + DAYS * DAY).date(),
    )
    assert queue(world) == {"model": (S.QUEUED, None)}
    (leaf,) = (one for one in world.leaves("retailer") if isinstance(one, records.ModelDue))
    assert (leaf.job, leaf.due) == ("model", step.due)
    before = world.statement("retailer").epsilon_spent
    world.run()
    assert world.statement("retailer").epsilon_spent > before
    assert queue(world) == {"model": (S.REPLACED, "model-2")}
    reference = [parties.record("retailer", 40)]
    old, new = (Manifest.open(world.folder("retailer"), name) for name in ("model", "model-2"))
    assert old is not None
    assert new is not None
    assert (old.names(reference), new.names(reference)) == (True, False)
    assert new.knew_erased(reference)
    new.check(world.leaves("retailer"))
    for name in ("brand", "retailer", "courier"):  # each retires its own
        assert world.folder(name).retired("model").read_text() == "model-2"
        assert kinds(world, name).count("model.retired") == 1
    assert kinds(world).count("model.due") == 1
    told = standings(world)
    assert told["model"] == (ModelUse.REPLACED, "trained again as model-2")
    assert told["model-2"][0] is ModelUse.IN_USE
    before_again = {name: kinds(world, name) for name in ("retailer", "coordinator")}
    world.run()  # nothing is due any more: it is asked, and nothing else happens
    assert [kind for kind in kinds(world) if kind.startswith("model.")] == [
        kind for kind in before_again["retailer"] if kind.startswith("model.")
    ]
    started = before_again["coordinator"].count("job.started")
    assert kinds(world, "coordinator").count("job.started") == started
    old, new = (
        EXPAND.model_copy(update={"name": name, "train": train})
        for name, train in (("old", "model"), ("new", "model-2"))
    )
    write_jobs(world.folder("coordinator"), (*JOBS, old, new))
    erase(world, "courier", 65)
    with pytest.raises(RefusedError, match="use that of training 'model-2'") as refusal:
        world.run()
    assert refusal.value.party == "coordinator"  # which begins no such job
    begun = [leaf.job for leaf in world.leaves("coordinator") if leaf.kind == "job.started"]
    assert begun == ["find", "model", "model-2", "new", "model-3"]
    assert standings(world)["model-2"] == (ModelUse.REPLACED, "trained again as model-3")
    with pytest.raises(RefusedError, match="use that of training 'model-3'"):
        world.run()


def standings(world: World, agreement: Agreement | None = None) -> dict[str, tuple[ModelUse, str]]:
    folder = world.folder("coordinator")
    terms = agreement or world.agreement
    found = model_standings(folder, terms, read_jobs(folder), world.now)
    assert all(bool(one.why) is not bool(one.erasure) for one in found)
    return {one.model: (one.use, one.why or one.erasure) for one in found}


def test_an_operator_is_told_where_each_model_stands_and_why(world: World) -> None:
    again = f"one erasure of somebody in it has it trained again within {DAYS} days"
    use, told = standings(world)["model"]
    assert (use, told[: len(again)]) == (ModelUse.IN_USE, again)
    erase(world, "retailer", 40)
    world.now = NOW + DAY
    folder = world.folder("coordinator")
    with pytest.raises(PartyUnreachableError):
        Coordinator.open(folder.path, clock=world.clock).run(Waited(world, {"courier"}))
    use, told = standings(world)["model"]
    assert use is ModelUse.DUE
    assert told == "somebody whom it saw was erased: it is trained again as model-2 by 2026-03-21"
    world.now += (DAYS + 1) * DAY
    use, told = standings(world)["model"]
    assert use is ModelUse.RETIRED
    assert told == "somebody whom it saw was erased: it was to be trained again by 2026-03-21"
    folder.retired("model").touch()
    use, told = standings(world)["model"]
    assert use is ModelUse.RETIRED
    assert "not trained again by its day" in told
    told = standings(world, world.agreement.model_copy(update={"erasure": None}))["model"][1]
    assert "the agreement gives no days to train it again (erasure.retrain_days)" in told


class Waited:
    """A channel to all but some; `waited` is how long each wait for these was to be."""

    def __init__(self, world: World, away: set[str]) -> None:
        self._world, self.waited = world, list[float]()
        self._nodes = [node for node, name in enumerate(parties.PEOPLE) if name not in away]

    def nodes(self, at_least: int, *, patience_seconds: float = math.inf) -> Sequence[int]:
        if at_least > len(self._nodes):
            self.waited.append(patience_seconds)
        return self._nodes

    def exchange(
        self, parcels: Sequence[Parcel], *, most_missing: int = 0
    ) -> Sequence[SealedMessage | None]:
        return self._world.exchange(parcels, most_missing=most_missing)


def test_only_where_a_model_is_due_is_anybody_waited_for_as_for_a_job(world: World) -> None:
    def run() -> list[float]:
        channel = Waited(world, {"courier"})
        folder = world.folder("coordinator").path
        with suppress(PartyUnreachableError):
            Coordinator.open(folder, clock=world.clock).run(channel, patience=Patience(90, 3))
        return channel.waited

    assert run() == [3]
    erase(world, "retailer", 40)
    assert run() == [3, 90]


def test_the_old_model_is_used_until_its_day_and_not_after(world: World, tmp_path: Path) -> None:
    erase(world, "retailer", 40)
    write_jobs(world.folder("coordinator"), (*JOBS, EXPAND))
    late = world.copy(tmp_path / "late")
    late.now = NOW + DAYS * DAY + DAY
    with pytest.raises(RefusedError, match="was to be trained again by") as refusal:
        late.run()
    assert refusal.value.term == "erasure.retrain_days"
    assert not late.folder("retailer").retired("model").exists()
    world.now = NOW + DAY
    world.run()
    assert "segment.written" in kinds(world)


@pytest.mark.parametrize("standing", [S.OVERDUE, S.RETIRED])
def test_who_does_not_hold_the_person_is_stopped_too(world: World, standing: S) -> None:
    erase(world, "retailer", 12)
    write_jobs(world.folder("coordinator"), (*JOBS, EXPAND))
    for days in (DAYS + 1, 1):  # a leap is only claimed
        world.now += days * DAY
        if standing is S.RETIRED:
            retaining.run(world.folder("retailer"), now=world.now)
    assert queue(world) == {"model": (standing, None)}
    with pytest.raises(RefusedError, match="somebody whom it saw was erased") as refusal:
        world.run()
    assert refusal.value.party == "coordinator"
    assert queue(world, "courier") == {}
    for name in ("retailer", "courier"):
        assert not list((world.folder(name).path / "segments").glob("*"))


def test_what_is_not_trained_again_is_retired_once_and_no_leap_of_the_clock_does_it(
    world: World,
) -> None:
    erase(world, "courier", 65)  # known to nobody else
    folder = world.folder("courier")
    due = NOW + DAYS * DAY + timedelta(hours=1)
    assert retaining.run(folder, now=due).retired == ()  # a leap: it is only claimed
    assert queue(world, "courier") == {"model": (S.QUEUED, None)}
    assert retaining.run(folder, now=due + DAY).retired == ("model",)
    assert retaining.run(folder, now=due + DAY).retired == ()
    world.now = due
    assert queue(world, "courier") == {"model": (S.RETIRED, None)}
    assert kinds(world, "courier").count("model.retired") == 1
    write_jobs(world.folder("coordinator"), JOBS)
    world.run()  # nobody asks for it any more
    assert kinds(world, "coordinator").count("job.started") == len(JOBS)


def test_without_budget_it_is_refused_in_plain_words_and_retired_on_its_day(
    tmp_path: Path,
) -> None:
    poor = World.make(tmp_path, **TERMS | {"budget": {"epsilon": 1.2, "delta": 1e-5}})
    write_jobs(poor.folder("coordinator"), JOBS)
    poor.run()
    erase(poor, "retailer", 40)
    write_jobs(poor.folder("coordinator"), (*JOBS, EXPAND))
    with pytest.raises(RefusedError) as refusal:
        poor.run()
    assert refusal.value.term == "budget.epsilon"
    assert "else model 'model' is retired on 2026-03-21" in refusal.value.remedy
    assert "segment.written" in kinds(poor)  # all other jobs ran
    poor.now += (DAYS + 1) * DAY
    poor.run()  # its day is over: it is not tried again
    retaining.run(poor.folder("retailer"), now=poor.now)
    assert queue(poor) == {"model": (S.RETIRED, None)}


def test_whom_the_brand_erased_is_in_no_label_of_the_next_model(world: World) -> None:
    person = 25  # known to all three
    assert erase(world, "brand", person)["model model"].outcome is ErasureOutcome.RETRAIN
    world.run()
    (one,) = Retrainings(world.folder("coordinator"), world.agreement).listed
    assert [spec.name for spec in one.jobs] == ["find-2", "model-2"]
    assert queue(world, "brand") == {"model": (S.REPLACED, "model-2")}
    for match, there in (("find", True), ("find-2", False)):
        found = world.listed("retailer", f"{match}/members.npz")
        assert (parties.record("retailer", person) in found) is there


class Lossy:
    """A channel on which the answers to one kind of message are lost, often or always."""

    def __init__(self, world: World, kind: str, times: int) -> None:
        self.nodes = world.nodes
        self._world = world
        self._kind = kind
        self._left = times

    def exchange(
        self, parcels: Sequence[Parcel], *, most_missing: int = 0
    ) -> Sequence[SealedMessage | None]:
        kinds = {unseal(one.message, self._world.agreement).header.kind for one in parcels}
        if kinds == {self._kind} and self._left:
            self._left -= 1
            assert most_missing
            heard, lost = parcels[:1], parcels[1:]  # the brand, and the others
            answers = self._world.exchange(heard) if self._kind == "identify" else [None]
            return [*answers, *(None for _ in lost)]
        return self._world.exchange(parcels, most_missing=most_missing)


@pytest.mark.parametrize(
    ("kind", "times", "is_made_up_for"),
    [("erase.batch", 1, True), ("erase.batch", 9, False), ("identify", 1, False)],
)
def test_a_model_is_trained_again_once_everybody_there_heard_who_is_erased(
    world: World, kind: str, times: int, is_made_up_for: bool
) -> None:
    with world.node("brand").desk() as desk:
        erasing = Erasing(desk.folder, desk.agreement, desk.gate, clock=world.clock)
        erasing.request("email", parties.email(25))
        erasing.run()  # its model is due, and the others' have yet to be
    folder = world.folder("coordinator")
    coordinator = Coordinator.open(folder.path, clock=world.clock)
    waits = "courier, retailer may not know yet who .* model-2 is trained: run again"
    with nullcontext() if is_made_up_for else pytest.raises(PartyUnreachableError, match=waits):
        coordinator.run(Lossy(world, kind, times))
    assert folder.has_ended("find-2") is is_made_up_for
    world.now += timedelta(hours=1)
    world.run()
    for name in ("retailer", "courier"):
        assert parties.record(name, 25) not in set(pd.read_csv(world.table(name))["record"])
        charged = [one.charge_id.split("/")[0] for one in world.statement(name).charges]
        assert charged == [*2 * ["model"], *2 * ["model-2"]]  # two rounds of each, and no third
        assert queue(world, name) == {"model": (S.REPLACED, "model-2")}


def test_a_model_is_trained_again_without_all_of_more_than_one_look_carries(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "BATCH_PLACES", 1)
    monkeypatch.setattr(spread, "ROUNDS", 2)
    with world.node("brand").desk() as desk:
        erasing = Erasing(desk.folder, desk.agreement, desk.gate, clock=world.clock)
        for person in (25, 26, 27):
            erasing.request("email", parties.email(person))
        erasing.run()
    world.run()
    for name in ("retailer", "courier"):
        gone = {parties.record(name, person) for person in (25, 26, 27)}
        assert not gone & set(pd.read_csv(world.table(name))["record"])
        charged = [one.charge_id.split("/")[0] for one in world.statement(name).charges]
        assert charged == [*2 * ["model"], *2 * ["model-2"]]


def test_once_its_match_is_deleted_a_model_without_a_manifest_may_have_seen_everybody(
    world: World,
) -> None:
    folder = world.folder("brand")
    assert Manifest.open(folder, "model") is None
    remove(folder, Artefact.MATCH, "find")
    assert not saw(folder, "model", "find", [])
    assert saw(folder, "model", "find", [parties.record("brand", 25)])
    assert not saw(folder, "model", "never", [parties.record("brand", 25)])  # took no part
    assert erase(world, "brand", 25)["model model"].outcome is ErasureOutcome.RETRAIN


def test_a_model_that_arrives_after_somebody_was_erased_is_due_at_once(tmp_path: Path) -> None:
    world = World.make(tmp_path, **TERMS)
    write_jobs(world.folder("coordinator"), JOBS)
    given = []

    def listener(name: str, _: Any, answer: Any) -> Any:
        if world.read(answer).header.kind == "train.update":
            given.append(name)
            if len(given) == 4:  # all have given the last round; no model is there
                assert "model model" not in erase(world, "retailer", 40)
                erase(world, "brand", 25)
        return answer

    world.listener = listener
    world.run()
    assert queue(world) == queue(world, "brand") == {"model": (S.QUEUED, None)}
    assert queue(world, "courier") == {}


def test_days_of_a_model_that_arrives_late_count_from_the_request(world: World) -> None:
    with world.node("retailer").desk() as desk:
        path = desk.folder.model("model")
        content = path.read_bytes()
        path.unlink()  # it has not arrived yet
        erasing = Erasing(desk.folder, desk.agreement, desk.gate, clock=world.clock)
        for person in (10, 40, 41):  # nobody of whom the model saw is the first who asked
            erasing.request("email", parties.email(person))
            if person == 10:
                erasing.run()
            world.now += DAY
        erasing.run()
        found = Erased(desk.folder, desk.agreement).persons()
        manifest = Manifest.open(desk.folder, "model")
        assert manifest is not None
        seen = {one: manifest.names(person.references) for one, person in found.items()}
        days = {kept.execution.request: kept.asked for kept in erasing.status()}
        first = min(days[one] for one, is_seen in seen.items() if is_seen)
        world.now += 30 * DAY
        with arriving(desk, None, QUICK, content_digest(content)):  # type: ignore[arg-type]
            path.write_bytes(content)
        due = RetrainingQueue(desk.folder, desk.agreement).day_of("model")
    assert due is not None
    assert due.date() == (first + DAYS * DAY).date()


def test_the_log_does_not_tell_at_which_request_a_model_was_due(world: World) -> None:
    folder = world.folder("retailer")
    with locked(folder), folder.open_log() as log:
        gate = Gate(folder, world.agreement, log, None, clock=world.clock)
        erasing = Erasing(folder, world.agreement, gate, clock=world.clock)
        for person in (40, 65):  # the model saw the former alone
            erasing.request("email", parties.email(person))
        erasing.run_pending()
    (due,) = (one for one in world.leaves("retailer") if isinstance(one, records.ModelDue))
    told = kinds(world)
    at = told.index("model.due")
    assert told[:at].count("erasure.step") == told.count("erasure.step") == 6
    assert told[at:].count("erasure.completed") == 2
    assert (due.due.hour, due.due.minute, due.due.microsecond) == (0, 0, 0)


def test_the_earliest_day_counts_and_leaves_are_told_once(world: World) -> None:
    folder, told = world.folder("retailer"), []
    made = RetrainingQueue(folder, world.agreement)
    for days in (9, 5, 7, 5):
        due = Step(target="model model", outcome=ErasureOutcome.RETRAIN, due=NOW + days * DAY)
        made.apply(due, "model", "a" * 64)
        made.tell(lambda kind, job, **fields: told.append(fields["due"]))
    assert told == [NOW + 9 * DAY, NOW + 5 * DAY]
    assert made.day_of("model") == NOW + 5 * DAY


@pytest.mark.parametrize("outcome", [ErasureOutcome.RETRAIN, ErasureOutcome.RETIRED])
@pytest.mark.parametrize("survives", range(4))
def test_what_is_cut_is_made_whole_with_one_leaf(
    world: World, outcome: ErasureOutcome, survives: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = world.folder("retailer")
    due = NOW + DAY if outcome is ErasureOutcome.RETRAIN else None
    step = Step(target="model model", outcome=outcome, due=due)
    steps = 0

    def cutting(call: Callable[..., None]) -> Callable[..., None]:
        def cut(*arguments: Any, **named: Any) -> None:
            nonlocal steps
            steps += 1
            if steps > survives:
                raise KeyboardInterrupt
            call(*arguments, **named)

        return cut

    def apply(wrap: Callable[..., Any]) -> None:
        with locked(folder), folder.open_log() as log:
            gate = Gate(folder, world.agreement, log, None, clock=world.clock)
            with monkeypatch.context() as patch:
                patch.setattr(module, "write_atomically", wrap(module.write_atomically))
                made = RetrainingQueue(folder, world.agreement)
                made.apply(step, "model", "a" * 64)
                made.tell(wrap(gate.note))

    with suppress(KeyboardInterrupt):
        apply(cutting)
    apply(lambda call: call)
    apply(lambda call: call)
    told = "model.due" if outcome is ErasureOutcome.RETRAIN else "model.retired"
    assert kinds(world).count(told) == 1


def test_another_job_does_not_take_a_models_place(world: World) -> None:
    other = QUICK.model_copy(update={"name": "other", "replaces": "model", "steps": 4})
    write_jobs(world.folder("coordinator"), (*JOBS, other))
    with pytest.raises(RefusedError, match="ask for the very same"):
        world.run()


def test_one_match_serves_all_models_that_are_due(world: World) -> None:
    other = QUICK.model_copy(update={"name": "other"})
    write_jobs(world.folder("coordinator"), (*JOBS, other))
    world.run()
    erase(world, "brand", 25)
    world.run()
    retrained = {"model": (S.REPLACED, "model-2"), "other": (S.REPLACED, "other-2")}
    assert queue(world, "brand") == retrained
    begun = [leaf.job for leaf in world.leaves("coordinator") if leaf.kind == "job.started"]
    assert begun == ["find", "model", "other", "find-2", "model-2", "other-2"]


class TestSuccessors:
    def heard(self, world: World, *told: tuple[str, str, int]) -> Retrainings:
        made = Retrainings(world.folder("coordinator"), world.agreement)
        for party, model, days in told:
            due = DueModel(model=model, model_digest="a" * 64, due=NOW + days * DAY)
            made.hear({party: (due,)}, JOBS)
        return made

    def test_several_parties_have_one_training_by_the_earliest_day(self, world: World) -> None:
        made = self.heard(world, ("retailer", "model", 9), ("courier", "model", 4))
        (one,) = Retrainings(world.folder("coordinator"), world.agreement).listed
        assert made.listed == (one,)
        assert (one.due, one.told_by) == (NOW + 4 * DAY, ("courier", "retailer"))
        assert one.spec == QUICK.model_copy(update={"name": "model-2", "replaces": "model"})
        assert made.open(NOW) == (one,)
        assert made.open(NOW + 4 * DAY) == ()

    def test_a_model_of_no_training_that_ended_is_passed_over(self, world: World) -> None:
        made = self.heard(world, ("retailer", "find", 9), ("retailer", "unknown", 9))
        assert made.listed == ()

    def test_each_attempt_has_a_name_of_its_own(self, world: World) -> None:
        made = self.heard(world, ("retailer", "model", 9), ("brand", "model", 9))
        (one,) = made.listed
        assert [spec.name for spec in one.jobs] == ["find-2", "model-2"]
        for spec in one.jobs:
            world.folder("coordinator").job(spec.name).mkdir()
        made.give_up(one, JOBS)
        (again,) = made.listed
        assert [spec.name for spec in again.jobs] == ["find-3", "model-3"]
        assert again.given_up == ("find-2", "model-2")
        assert again.spec.replaces == "model"

    def test_a_match_that_has_begun_serves_no_other(self, world: World) -> None:
        coordinator = world.folder("coordinator")
        other = QUICK.model_copy(update={"name": "other"})
        jobs = (*JOBS, other)
        coordinator.job("other").mkdir()
        coordinator.ended("other").touch()
        made = Retrainings(coordinator, world.agreement)

        def hear(model: str) -> list[list[str]]:
            made.hear(
                {"brand": (DueModel(model=model, model_digest="a" * 64, due=NOW + DAY),)}, jobs
            )
            return [[spec.name for spec in one.jobs] for one in made.listed]

        assert hear("model") == [["find-2", "model-2"]]
        coordinator.job("find-2").mkdir()  # may tell of whom the brand has erased since
        assert hear("other") == [["find-2", "model-2"], ["find-3", "other-2"]]
        made.give_up(made.listed[0], jobs)
        assert hear("other") == [["find-3", "model-2"], ["find-3", "other-2"]]
        assert [spec.name for spec in made.specs] == ["find-3", "model-2", "other-2"]

    def test_a_damaged_list_is_said_to_be(self, world: World) -> None:
        (world.folder("coordinator").path / "retrainings.json").write_text("[{}]")
        with pytest.raises(WorkspaceError, match=r"retrainings\.json is damaged"):
            Retrainings(world.folder("coordinator"), world.agreement)


def test_the_commands(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def comity(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as left:
            main(arguments)
        return int(left.value.code or 0), capsys.readouterr().out

    retailer, coordinator = (str(world.folder(one).path) for one in ("retailer", "coordinator"))
    trained = f"trained {world.now:%Y-%m-%d %H:%M:%S} UTC"
    for folder in (retailer, coordinator):
        model = world.folder(Path(folder).name).model("model")
        other = shutil.copy(model, model.with_name("Copy of model.json"))
        assert comity("model", "list", folder) == (0, f"model: in use, {trained}\n")
        other.unlink()
    assert comity("retrain", "list", retailer) == (0, "nothing has to be trained again\n")
    erase(world, "retailer", 40)
    (request,) = (path.stem for path in world.folder("retailer").erasures.glob("*.json"))
    code, told = comity("retrain", "list", retailer, "--json")
    assert (code, json.loads(told)[0]["standing"]) == (0, "overdue")  # by the clock on the wall
    late = f"model: retired, {trained}: somebody whom it saw was erased, and it was to be trained"
    assert comity("model", "list", retailer)[1].startswith(late)
    world.run()
    listed = comity("retrain", "list", coordinator)
    assert "model: replaced, model-2, due 2026-03-21" in listed[1]
    config = CoordinatorConfig.for_address("127.0.0.1:9091", listen=None, control="127.0.0.1:1")
    made = CoordinatorFolder.init(tmp_path / "operated", config, now=world.now)
    made.party.symlink_to(coordinator)
    assert comity("retrain", "list", str(made.path)) == listed
    for folder in (retailer, coordinator, str(made.path)):
        former, latter = json.loads(comity("model", "list", folder, "--json")[1])
        assert former["use"] == "replaced"
        assert former["why"] == "trained again as model-2"
        assert (latter["model"], latter["use"], latter["why"]) == ("model-2", "in use", "")
    code, told = comity("model", "manifest", retailer, "model", "--request", request)
    assert (code, "WAS in it, not known as erased" in told) == (1, True)
    code, told = comity("model", "manifest", retailer, "model-2", "--request", request, "--json")
    found = json.loads(told)
    assert (code, found["was_in_it"], found["was_known_as_erased"]) == (0, False, True)
    assert parties.record("retailer", 40) not in told
    assert comity("model", "manifest", retailer, "none")[0] == 2
