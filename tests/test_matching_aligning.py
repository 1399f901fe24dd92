"""Whole parties align: what each finds, what each could read, and what it refuses."""

import hmac
import itertools
import json
import os
import shutil
import signal
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import parties
import pytest
from parties import MATCH, PEOPLE, ROLES, World, record

from compliance import records
from compliance.signing import Envelope
from compliance.terms import Role
from federation.coordinator import write_jobs
from federation.errors import MessageError, RefusedError, WorkspaceError
from federation.jobs.align import AlignPlan
from federation.matching import aligning as module
from federation.matching.bringing import commitment
from federation.matching.history import MatchHistory
from federation.matching.token_set import MatchingSet, TokenBatch
from federation.messages import (
    Acknowledged,
    AlignBind,
    AlignBlind,
    AlignCommon,
    AlignInvite,
    AlignJoin,
    AlignJoined,
    AlignPass,
    AlignSeed,
    AlignSide,
    AlignTags,
    Body,
    Encrypted,
    MatchRequest,
    Message,
    Refused,
    SealedMessage,
    unseal,
)
from federation.specification import AlignSpec, JobSpec
from privacy.errors import WorkerError
from privacy.randomness import Secret

ALIGN = AlignSpec(name="together")
RING = ("brand", "retailer", "courier")
FOUR = {"store": range(15, 28)}
QUIET = {"key": "email", "epsilon": 10.0, "delta": 0.014}  # few dummies
FEW_MATCHES = {"maximum_matches": 7, "period_days": 365}  # so few that so large a delta is agreed
CHEAP = {"key": "email", "epsilon": 1.0}


def make(path: Path, alignment: Mapping[str, object] | None = None, **changes: Any) -> World:
    """A world that aligns; nothing is dear in it unless a test says so."""
    agreed = {**FEW_MATCHES, "alignment": alignment or QUIET, **changes.pop("match", {})}
    budget = changes.pop("budget", {"epsilon": 12.0, "delta": 1e-5 if alignment else 0.999})
    world = World.make(path, match=agreed, budget=budget, **changes)
    return jobs(world, ALIGN)


def jobs(world: World, *specs: JobSpec) -> World:
    write_jobs(world.folder("coordinator"), specs)
    return world


def aligned(world: World, name: str, job: str = "together") -> list[int]:
    """The people whom a party found, in its order."""
    numbers = {record(name, person): person for person in range(100)}
    return [numbers[key] for key in world.listed(name, f"{job}/aligned.npz")]


def said(world: World, kind: str) -> list[Message]:
    """Everything of a kind that was said, as its recipient reads it, once each."""
    found = {one.digest: world.read(one) for one in world.wire}
    return [message for message in found.values() if message.header.kind == kind]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> World:
    path = tmp_path_factory.mktemp("aligned") / "world"
    world = make(path, CHEAP, match={"minimum_match": 10})  # just as many as there are
    world.run()
    return world


# --- what comes of it ----------------------------------------------------------------------------


def test_everybody_finds_whom_all_know_in_the_same_order(finished: World) -> None:
    found = [aligned(finished, name) for name in RING]
    assert found[0] == found[1] == found[2]
    assert sorted(found[0]) == list(range(20, 30))


def test_four_parties_find_the_same_over_several_buckets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parties, "ROLES", ROLES | {"store": Role.PARTNER})
    monkeypatch.setattr(parties, "PEOPLE", PEOPLE | FOUR)
    monkeypatch.setattr(AlignSpec, "bucket_points", 57)
    world = make(tmp_path / "world")
    plan = AlignPlan.of(ALIGN, world.agreement, party="brand")
    assert plan.buckets == 2
    world.run()
    found = [aligned(world, name) for name in (*RING, "store")]
    assert all(one == found[0] for one in found)
    assert sorted(found[0]) == list(range(20, 28))


def test_each_party_pays_once_and_its_log_tells_the_price(finished: World) -> None:
    for name in RING:
        (charge,) = finished.statement(name).charges
        assert charge.charge_id == "together/align.bound/coordinator"
        assert finished.statement(name).epsilon_spent == pytest.approx(1.0, rel=1e-3)
        assert finished.statement(name).delta == 1e-5 - 7 * 1e-12  # seven may be cut
        assert sum(isinstance(one, records.BudgetCommitted) for one in finished.leaves(name)) == 1


def test_counts_that_are_told_later_weigh_on_the_period_then(tmp_path: Path) -> None:
    period = {"days": 30, "epsilon": 11.0, "delta": 0.99}
    world = make(tmp_path, budget={"epsilon": 12.0, "delta": 0.999, "period": period})

    def wait(_: str, __: SealedMessage, answer: SealedMessage) -> SealedMessage:
        if unseal(answer, world.agreement).header.kind == "align.bound":
            world.now += timedelta(days=31)
        return answer

    world.listener = wait
    world.run()
    for name in RING:
        with world.node(name).desk() as desk:
            found = desk.ledger.statement().period
        assert found is not None
        assert found.epsilon_spent > 1.0, "of 10, at so large a delta"


def test_every_log_holds_every_pair_of_commitments(finished: World) -> None:
    bound = {
        (name, leaf.peer): (leaf.own_commitment, leaf.peer_commitment)
        for name in RING
        for leaf in finished.leaves(name)
        if isinstance(leaf, records.MatchBound)
    }
    assert set(bound) == set(itertools.permutations(RING, 2))
    assert all(bound[a, b] == bound[b, a][::-1] for a, b in bound)
    for name in RING:
        directory = finished.folder(name).job("together")
        own = MatchingSet.open(directory / "set")
        key, (said_of_it, _) = (
            (directory / "commitment").read_bytes(),
            bound[name, next(one for one in RING if one != name)],
        )
        assert own is not None
        assert said_of_it != own.digest
        opened = hmac.digest(key, bytes.fromhex(own.digest), "sha256").hex()
        assert opened == said_of_it


def test_every_release_has_a_name_of_its_own(finished: World) -> None:
    for name in (*RING, "coordinator"):
        leaves = finished.leaves(name)
        named = [leaf.release_id for leaf in leaves if isinstance(leaf, records.Release)]
        assert len(set(named)) == len(named)


def test_secrets_are_gone_when_it_is_done(finished: World) -> None:
    for name in RING:
        left = {path.name for path in finished.folder(name).job("together").iterdir()}
        assert not left & {"secret", "seed"}
        assert not [one for one in left if one.startswith("common-")]


def test_only_the_agreed_key_is_brought_and_once_for_each_person(finished: World) -> None:
    for name in RING:
        own = MatchingSet.open(finished.folder(name).job("together") / "set")
        assert own is not None
        batch = own.bucket(0, 1)
        assert len(batch.rows) == len(set(batch.rows.tolist())) == len(PEOPLE[name])
        assert set(batch.tokens[:, 0].tolist()) == {1}  # e-mail


def test_the_agreed_key_may_be_another_than_the_first(tmp_path: Path) -> None:
    world = make(tmp_path / "world", {**CHEAP, "key": "phone"})
    halted(world, "align.joined", after=3)
    own = MatchingSet.open(world.folder("brand").job("together") / "set")
    assert own is not None
    assert set(own.bucket(0, 1).ranks.tolist()) == {1}
    assert own.token_count == len([one for one in PEOPLE["brand"] if one % 3])


# --- what each could read ------------------------------------------------------------------------


def rows(payload: bytes, width: int) -> set[bytes]:
    return {payload[at : at + width] for at in range(0, len(payload), width)}


def test_what_goes_round_opens_for_the_next_party_alone(finished: World) -> None:
    keys = finished.parties.decryption_keys
    carried = [unseal(one, finished.agreement) for one in finished.wire]
    for message in carried:
        if message.header.kind in {"align.seed", "align.pass"}:
            assert isinstance(message.body, Encrypted)
            for name in set(RING) - {message.header.recipient}:
                with pytest.raises(MessageError, match="cannot be read"):
                    parties.decrypt(message, keys[name])


def test_no_party_ever_holds_two_sets_that_it_could_compare(finished: World) -> None:
    """Whatever a party received or made of two different sets has no row in common."""
    held: dict[str, dict[int, list[set[bytes]]]] = {name: defaultdict(list) for name in RING}
    for message in said(finished, "align.pass"):
        body = message.body
        assert isinstance(body, AlignPass)
        for name in (message.header.sender, message.header.recipient):
            held[name][body.place].append({row[:12] for row in rows(message.payload, 32)})
    for message in said(finished, "align.tags"):
        body = message.body
        assert isinstance(body, AlignTags)
        assert message.header.recipient == "coordinator"
        held[message.header.sender][body.place].append(rows(message.payload, 12))
    for name, of_place in held.items():
        assert set(of_place) == {0, 1, 2}
        for one, other in itertools.combinations(of_place, 2):
            for first, second in itertools.product(of_place[one], of_place[other]):
                assert not first & second, f"{name} can compare two sets"


def test_every_set_comes_to_each_other_party_once_and_in_turn(finished: World) -> None:
    way = [
        (message.body.place, message.header.sender, message.header.recipient)
        for message in [*said(finished, "align.pass"), *said(finished, "align.tags")]
    ]
    assert sorted(way) == sorted(
        (
            place,
            RING[(place + hop) % 3],
            [*RING, *RING][place + hop + 1] if hop < 2 else "coordinator",
        )
        for place in range(3)
        for hop in range(3)
    )


def test_the_coordinator_counts_every_group_with_dummies_alone(finished: World) -> None:
    tags = {one.body.place: rows(one.payload, 12) for one in said(finished, "align.tags")}
    people = {place: set(PEOPLE[name]) for place, name in enumerate(RING)}
    plan = AlignPlan.of(ALIGN, finished.agreement, party="coordinator")
    blurs = set()
    for size in (2, 3):
        for group in itertools.combinations(range(3), size):
            rest = [place for place in range(3) if place not in group]
            counts = [
                len(
                    set.intersection(*(of[one] for one in group)).difference(*(of[r] for r in rest))
                )
                for of in (tags, people)
            ]
            assert 0 <= counts[0] - counts[1] <= plan.ring.most_dummies
            blurs.add(counts[0] - counts[1])
    assert len(blurs) > 1
    assert {len(one) for one in tags.values()} == set(plan.ring.capacities)


def test_the_seed_is_where_the_parties_are_and_not_at_the_coordinator(finished: World) -> None:
    seeds = {one.payload for one in said(finished, "align.seed")}
    (seed,) = seeds
    assert len(seed) == 32
    for sealed in finished.wire:
        assert seed not in sealed.payload + sealed.envelope
    for path in finished.folder("coordinator").path.rglob("*"):
        assert not path.is_file() or seed not in path.read_bytes()


def test_places_are_told_to_their_own_party_alone(finished: World) -> None:
    told = said(finished, "align.common")
    assert {one.header.recipient for one in told} == set(RING)
    assert len({one.payload for one in told}) == 3


# --- interrupted, repeated, out of turn ----------------------------------------------------------


class HaltedError(Exception):
    """The coordinator's process ends here."""


def halted(world: World, kind: str, *, after: int = 1) -> World:
    """Run until that many answers of a kind were given, then stop the coordinator."""
    left = after

    def listen(_: str, __: SealedMessage, answer: SealedMessage) -> SealedMessage:
        nonlocal left
        left -= unseal(answer, world.agreement).header.kind == kind
        if left == 0:
            raise HaltedError
        return answer

    world.listener = listen
    with pytest.raises(HaltedError):
        world.run()
    world.listener = lambda _, __, answer: answer
    return world


STOPS = {
    "joined": ("align.joined", 3),
    "bound": ("align.bound", 3),
    "one seed": ("align.seed", 1),
    "seeded": ("acknowledged", 2),
    "one set": ("align.pass", 1),
    "underway": ("align.pass", 3),
    "passed": ("align.pass", 5),
    "tagged": ("align.tags", 3),
    "one done": ("align.done", 1),
}


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, World]:
    """One alignment, as it was at each of its stops."""
    path = tmp_path_factory.mktemp("stages")
    world = make(path / "world")
    return {
        name: halted(world, kind, after=after).copy(path / name.replace(" ", "-"))
        for name, (kind, after) in STOPS.items()
    }


@pytest.fixture
def stopped(stages: Mapping[str, World], tmp_path: Path) -> Callable[[str], World]:
    """A world of the test's own, at a stop."""
    return lambda name: stages[name].copy(tmp_path / "copy")


@pytest.mark.parametrize("stop", ["joined", "one seed", "one set", "tagged", "one done"])
def test_an_alignment_goes_on_where_it_was_cut(stopped: Callable[[str], World], stop: str) -> None:
    world = stopped(stop)
    before = {name: dict(world.outbox(name)) for name in RING}
    world.run()
    assert [sorted(aligned(world, name)) for name in RING] == [list(range(20, 30))] * 3
    for name in RING:
        assert before[name].items() <= world.outbox(name).items()
        assert len(world.statement(name).charges) == 1


def test_a_killed_process_goes_on_wherever_it_was_killed(tmp_path: Path, thorough: bool) -> None:
    """Killed again and again at its n-th renaming, which is how everything durable appears."""
    world, kills = make(tmp_path / "world"), 0
    while (child := os.fork()) == 0 or os.waitpid(child, 0)[1] != 0:
        if child:
            kills += 1
            assert kills < 60
            continue
        _die_at_renaming(41 if thorough else 67)
        try:
            world.run()
        except BaseException:  # noqa: BLE001 -- this process must not return
            os._exit(3)
        os._exit(0)
    assert kills > 2
    assert [sorted(aligned(world, name)) for name in RING] == [list(range(20, 30))] * 3
    for name in RING:
        assert len(world.statement(name).charges) == 1
        world.leaves(name)


def _die_at_renaming(number: int) -> None:
    left = number

    def hook(event: str, _: object) -> None:
        nonlocal left
        left -= event == "os.rename"
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


class Killed(BaseException):
    """A crash, that nothing catches."""


def killed_at_its_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run until the brand has ended and would take away what must not stay."""

    def die(_: Path) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(module, "_clear", die)
        with pytest.raises(Killed):
            world.run()
    assert "secret" in kept(world, "brand")


def kept(world: World, name: str) -> set[str]:
    return {path.name for path in world.folder(name).job("together").iterdir()}


def test_secrets_that_a_crash_left_at_the_end_go_with_the_next_message(
    stopped: Callable[[str], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = stopped("tagged")
    killed_at_its_end(world, monkeypatch)
    world.run()
    for name in RING:
        assert not kept(world, name) & {"secret", "seed", "common-00000.npy"}
        assert sorted(aligned(world, name)) == list(range(20, 30))


def test_what_is_under_way_is_not_swept_away(stopped: Callable[[str], World]) -> None:
    world = stopped("tagged")
    assert refused(world, "brand", "coordinator", COMMON, bytes(3)) == "message"
    assert (world.folder("brand").job("together") / "secret").exists()


@pytest.mark.parametrize("lost", ["all", "state"])
def test_a_job_whose_folder_is_gone_does_not_run_again_uncounted(
    finished: World, tmp_path: Path, lost: str
) -> None:
    world = finished.copy(tmp_path / "copy")
    directory = world.folder("brand").job("together")
    if lost == "all":
        shutil.rmtree(directory)
    else:
        (directory / "state.json").unlink()
    join = world.parties.seal("coordinator", "brand", "together", AlignJoin(spec=ALIGN))
    answer = unseal(world.handle("brand", otherwise_written(world, join)), world.agreement).body
    assert isinstance(answer, Refused)
    assert (answer.term, "another name" in answer.remedy) == ("match.maximum_matches", True)


def test_nor_does_a_match_between_two(tmp_path: Path) -> None:
    world = World.make(tmp_path / "world")
    request = MatchRequest(spec=MATCH, peer="brand")
    sealed = world.parties.seal("coordinator", "retailer", "find", request)
    assert world.ask("retailer", sealed).header.kind == "match.offer"
    shutil.rmtree(world.folder("retailer").job("find"))
    answer = world.ask("retailer", otherwise_written(world, sealed)).body
    assert isinstance(answer, Refused)
    assert (answer.term, "another name" in answer.remedy) == ("match.maximum_matches", True)


def test_a_step_whose_worker_fails_is_done_again(
    stopped: Callable[[str], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = stopped("seeded")
    for step in ("blind", "pass_on", "matched"):
        with monkeypatch.context() as patch:
            patch.setattr(AlignPlan, step, _fail)
            with pytest.raises(RefusedError, match="computation"):
                world.run()
    world.run()
    assert sorted(aligned(world, "brand")) == list(range(20, 30))


def _fail(*_: object, **__: object) -> bytes:
    raise WorkerError("a worker ended")


def ask(world: World, name: str, sender: str, body: Body, payload: bytes = b"") -> Message:
    """Have anybody say anything to a party; return its answer."""
    sealed = world.parties.seal(sender, name, "together", body, payload)
    return unseal(world.handle(name, sealed), world.agreement)


def refused(world: World, name: str, sender: str, body: Body, payload: bytes = b"") -> str:
    """Return the term under which a party refuses."""
    answer = ask(world, name, sender, body, payload)
    assert isinstance(answer.body, Refused), answer.header.kind
    return answer.body.term


def points_for(world: World, name: str) -> tuple[str, AlignPass, bytes]:
    """The own set of the party before in the ring, for a party."""
    place = RING.index(name) - 1
    sender = RING[place]
    for path in sorted(world.folder(sender).outbox.glob("*.json")):
        sealed = SealedMessage(path.read_bytes(), path.with_suffix(".bin").read_bytes())
        message = world.read(sealed)
        if isinstance(message.body, AlignPass) and message.body.place == place % 3:
            return sender, message.body, message.payload
    raise LookupError(name)


BLIND = AlignBlind(spec=ALIGN, bucket=0)
COMMON = AlignCommon(spec=ALIGN, bucket=0)
BIND = AlignBind(spec=ALIGN)


def test_nothing_is_done_before_a_party_has_joined(tmp_path: Path) -> None:
    world = make(tmp_path / "world")
    for body in (BIND, BLIND, COMMON):
        assert refused(world, "retailer", "coordinator", body) == "message"
    assert refused(world, "retailer", "brand", AlignSeed(spec=ALIGN), bytes(32)) == "message"
    assert not world.statement("retailer").charges


def test_nothing_is_sent_round_before_the_parties_are_bound(
    stopped: Callable[[str], World],
) -> None:
    world = stopped("joined")
    seed = AlignSeed(spec=ALIGN)
    assert refused(world, "retailer", "brand", seed, bytes(32)) == "message"
    assert refused(world, "brand", "coordinator", AlignInvite(spec=ALIGN, place=1)) == "message"
    for body in (BLIND, COMMON):
        assert refused(world, "brand", "coordinator", body) == "message"


def sides_of(world: World) -> list[AlignSide]:
    paths = [world.folder(name).job("together") / "state.json" for name in RING]
    return [AlignSide(**json.loads(path.read_text())["own"]) for path in paths]


def signed(world: World, name: str, side: AlignSide, job: str = "together") -> bytes:
    """What a party says of itself, as it signs it."""
    return world.parties.seal(name, "coordinator", job, AlignJoined(side=side)).envelope


def signed_by_all(world: World, sides: Sequence[AlignSide]) -> bytes:
    return b"\n".join(signed(world, *each) for each in zip(RING, sides, strict=True))


def otherwise_written(world: World, sealed: SealedMessage) -> SealedMessage:
    """The coordinator's message, its header with other spaces: another message by its digest."""
    content = json.loads(Envelope.from_json(sealed.envelope).payload_bytes)
    return world.parties.sign("coordinator", json.dumps(content, indent=1).encode(), sealed.payload)


def test_a_party_is_bound_to_its_own_set_and_pays_once(stopped: Callable[[str], World]) -> None:
    world = stopped("joined")
    right = sides_of(world)
    strange = AlignSide(recipe=right[0].recipe, commitment="0" * 64)
    other = signed_by_all(world, [strange, *right[1:]])  # as if it had signed another set before
    assert refused(world, "brand", "coordinator", BIND, other) == "message"
    bind = signed_by_all(world, right)
    assert ask(world, "brand", "coordinator", BIND, bind).header.kind == "align.bound"
    other = signed_by_all(world, [*right[:2], strange])
    assert refused(world, "brand", "coordinator", BIND, other) == "message"
    repeated = ask(world, "brand", "coordinator", BIND, bind)
    assert repeated.header.kind == "align.bound"
    sealed = world.parties.seal("coordinator", "brand", "together", BIND, bind)
    again = otherwise_written(world, sealed)
    answer = unseal(world.handle("brand", again), world.agreement).body
    assert isinstance(answer, Refused)
    assert answer.term == "budget.epsilon"
    assert len(world.statement("brand").charges) == 1


def test_what_others_say_of_themselves_is_not_the_coordinators_word(
    stopped: Callable[[str], World],
) -> None:
    world = stopped("joined")
    right = sides_of(world)
    first, second, third = (signed(world, *each) for each in zip(RING, right, strict=True))
    strange = AlignSide(recipe=right[0].recipe, commitment="ab" * 32)
    sealed = SealedMessage(second, b"")
    changed = json.loads(second) | {"payload": json.loads(third)["payload"]}
    elsewhere = World.make(world.folder("brand").path.parent.parent / "elsewhere")
    refusal = Refused(term="consent", remedy="ask")
    for forged in (
        signed(world, "coordinator", strange),
        signed(world, "courier", strange),
        signed(world, "retailer", right[1], job="another"),
        signed(elsewhere, "retailer", strange),
        json.dumps(changed).encode(),
        world.parties.seal("retailer", "coordinator", "together", refusal).envelope,
        otherwise_written(world, sealed).envelope,
        b"",
        b"{}",
    ):
        lines = b"\n".join([first, forged, third])
        assert refused(world, "brand", "coordinator", BIND, lines) == "message"
    for lines in ([], [first, second], [first, second, third, third], [second, first, third]):
        assert refused(world, "brand", "coordinator", BIND, b"\n".join(lines)) == "message"
    assert not world.statement("brand").charges
    assert not [one for one in world.leaves("brand") if isinstance(one, records.MatchBound)]
    right_lines = b"\n".join([first, second, third])
    assert ask(world, "brand", "coordinator", BIND, right_lines).header.kind == "align.bound"


def test_a_party_that_normalises_otherwise_says_so_before_it_pays(
    stopped: Callable[[str], World],
) -> None:
    world = stopped("joined")
    right = sides_of(world)
    other = AlignSide(recipe="0" * 64, commitment=right[1].commitment)
    bind = signed_by_all(world, [right[0], other, right[2]])
    assert refused(world, "brand", "coordinator", BIND, bind) == "match.recipe"
    assert not world.statement("brand").charges


def test_the_coordinator_stops_where_recipes_differ_and_nobody_pays(tmp_path: Path) -> None:
    world = make(tmp_path / "world")

    def listen(name: str, question: SealedMessage, answer: SealedMessage) -> SealedMessage:
        body = unseal(answer, world.agreement).body
        if name == "courier" and isinstance(body, AlignJoined):
            side = body.side.model_copy(update={"recipe": "0" * 64})
            return world.parties.seal(
                name, "coordinator", "together", AlignJoined(side=side), answers=question.digest
            )
        return answer

    world.listener = listen
    with pytest.raises(RefusedError, match=r"coordinator under match\.recipe: courier normalises"):
        world.run()
    assert not any(world.statement(name).charges for name in RING)
    assert not said(world, "align.bind")


def test_the_seed_goes_from_the_first_to_another_and_counts_once(
    stopped: Callable[[str], World],
) -> None:
    world = stopped("seeded")
    for name, place in (("brand", 0), ("brand", 3), ("retailer", 2), ("retailer", 0)):
        body = AlignInvite(spec=ALIGN, place=place)
        assert refused(world, name, "coordinator", body) == "message"
    seed = AlignSeed(spec=ALIGN)
    for sender, name, content in (
        ("brand", "retailer", bytes(32)),  # a second one
        ("brand", "retailer", bytes(31)),
        ("retailer", "courier", bytes(32)),
        ("courier", "brand", bytes(32)),
    ):
        assert refused(world, name, sender, seed, content) == "message"
    right = (world.folder("retailer").job("together") / "seed").read_bytes()
    assert isinstance(ask(world, "retailer", "brand", seed, right).body, Acknowledged)


def test_a_set_that_was_changed_on_disk_goes_no_further(stopped: Callable[[str], World]) -> None:
    world = stopped("seeded")
    directory = world.folder("brand").job("together") / "set"
    own = MatchingSet.open(directory)
    assert own is not None
    batch = own.bucket(0, 1)
    MatchingSet.write(directory, [TokenBatch(*(part[1:] for part in batch))])
    assert refused(world, "brand", "coordinator", BLIND) == "message"


def test_a_party_whose_software_changed_does_not_join_again(
    stopped: Callable[[str], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = stopped("joined")
    join = AlignJoin(spec=ALIGN)
    assert ask(world, "brand", "coordinator", join).header.kind == "align.joined"
    monkeypatch.setattr(module, "recipe_fingerprint", lambda _: "0" * 64)
    again = otherwise_written(world, world.parties.seal("coordinator", "brand", "together", join))
    assert isinstance(unseal(world.handle("brand", again), world.agreement).body, Refused)


def test_a_party_without_the_seed_blinds_nothing(stopped: Callable[[str], World]) -> None:
    world = stopped("bound")
    assert refused(world, "retailer", "brand", AlignSeed(spec=ALIGN), bytes(31)) == "message"
    assert refused(world, "retailer", "coordinator", BLIND) == "message"
    assert ask(world, "brand", "coordinator", BLIND).header.kind == "align.pass"


def test_a_second_question_for_the_same_set_is_refused(stopped: Callable[[str], World]) -> None:
    world = stopped("underway")
    for name in RING:
        assert refused(world, name, "coordinator", BLIND) == "message"
        sender, body, payload = points_for(world, name)
        assert ask(world, name, sender, body, payload).header.kind == "align.pass"
        assert refused(world, name, sender, body, payload) == "message"


def test_points_out_of_turn_are_refused(stopped: Callable[[str], World]) -> None:
    world = stopped("underway")
    sender, body, payload = points_for(world, "retailer")
    assert (sender, body.place) == ("brand", 0)
    assert refused(world, "courier", "brand", body, payload) == "message"  # not its neighbour
    wrong: list[dict[str, int]] = [{"place": 1}, {"place": 3}, {"bucket": 1}, {"bucket": 2**20}]
    for change in wrong:
        other = body.model_copy(update=change)
        assert refused(world, "retailer", sender, other, payload) == "message"
    assert ask(world, "retailer", sender, body, payload).header.kind == "align.pass"


def test_a_partys_own_set_does_not_come_to_it(stopped: Callable[[str], World]) -> None:
    world = stopped("seeded")
    capacity = AlignPlan.of(ALIGN, world.agreement, party="brand").ring.capacities[1]
    body = AlignPass(spec=ALIGN, bucket=0, place=1)
    assert refused(world, "retailer", "brand", body, bytes(32 * capacity)) == "message"


def test_points_that_break_the_protocol_are_refused_and_right_ones_taken(
    stopped: Callable[[str], World],
) -> None:
    world = stopped("underway")
    sender, body, payload = points_for(world, "retailer")
    for wrong, term in {
        payload[:-32]: "message",
        payload + payload[:32]: "message",
        b"": "message",
        bytes(32) + payload[32:]: "computation",
        (2).to_bytes(32, "little") + payload[32:]: "computation",
        b"\xff" * 32 + payload[32:]: "computation",
        payload[32:64] + payload[32:]: "computation",
    }.items():
        assert refused(world, "retailer", sender, body, wrong) == term
    assert ask(world, "retailer", sender, body, payload).header.kind == "align.pass"


def test_a_bucket_does_not_end_before_all_sets_went_round(stopped: Callable[[str], World]) -> None:
    world = stopped("underway")
    places = np.array([0, 1], dtype="<u4").tobytes()
    assert refused(world, "retailer", "coordinator", COMMON, places) == "message"


def test_places_that_cannot_be_are_refused_and_right_ones_taken(
    stopped: Callable[[str], World],
) -> None:
    world = stopped("tagged")
    for places in ([0, 0], [10_000]):
        payload = np.array(places, dtype="<u4").tobytes()
        assert refused(world, "brand", "coordinator", COMMON, payload) == "computation"
    assert refused(world, "brand", "coordinator", COMMON, bytes(3)) == "message"
    other = COMMON.model_copy(update={"bucket": 1})
    assert refused(world, "brand", "coordinator", other) == "message"
    world.run()
    assert sorted(aligned(world, "brand")) == list(range(20, 30))


def test_an_end_counts_once(finished: World, tmp_path: Path) -> None:
    world = finished.copy(tmp_path / "copy")
    for body in (
        COMMON,
        BLIND,
        AlignJoin(spec=ALIGN),
        AlignJoin(spec=ALIGN.model_copy(update={"memory_limit": 1 << 31})),
    ):
        assert refused(world, "brand", "coordinator", body) == "message"


# --- terms ---------------------------------------------------------------------------------------


def test_below_the_minimum_nobody_keeps_anything_but_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make(tmp_path / "world", match={"minimum_match": 11})
    killed_at_its_end(world, monkeypatch)
    with pytest.raises(RefusedError, match=r"brand .* match\.minimum_match: fewer than 11 people"):
        world.run()
    for name in RING:
        outcome = {"secret", "seed", "aligned.npz", "common-00000.npy"}
        assert not kept(world, name) & outcome
        assert not list(world.folder(name).path.rglob("*.pending"))
        refusals = [one for one in world.leaves(name) if isinstance(one, records.Refusal)]
        assert [one.term for one in refusals] == ["match.minimum_match"]
        assert ("fewer than" in refusals[0].remedy) == (name == "brand")
        after = BLIND.model_copy(update={"bucket": 1})
        assert refused(world, name, "coordinator", after) == "match.minimum_match"
        assert len(world.statement(name).charges) == 1
    assert not said(world, "align.done")


def test_what_was_not_agreed_is_refused_by_all(tmp_path: Path) -> None:
    world = jobs(World.make(tmp_path / "world"), ALIGN)
    with pytest.raises(RefusedError, match=r"refused by coordinator under match\.alignment"):
        world.run()
    join = AlignJoin(spec=ALIGN)
    assert refused(world, "brand", "coordinator", join) == "match.alignment"
    assert not (world.folder("brand").job("together") / "set").exists()


def test_an_alignment_that_the_budget_cannot_bear_is_refused(tmp_path: Path) -> None:
    world = make(tmp_path / "world", CHEAP, budget={"epsilon": 0.9}, train={"epsilon": 0.9})
    with pytest.raises(RefusedError, match=r"refused by brand under budget\.epsilon"):
        world.run()
    assert not said(world, "align.seed")


def test_an_alignment_counts_as_a_match_with_every_other_party(tmp_path: Path) -> None:
    world = jobs(make(tmp_path / "world", match={"maximum_matches": 1}), MATCH, ALIGN)
    with pytest.raises(RefusedError, match=r"match\.maximum_matches: 1 matches with "):
        world.run()
    jobs(world, AlignSpec(name="again"))
    shutil.rmtree(world.folder("courier").path / "matches")
    assert ask(world, "courier", "coordinator", AlignJoin(spec=ALIGN)).header.kind == "align.joined"
    history = (world.folder("courier").path / "matches" / "history.json").read_text()
    assert [f'"peer":"{name}"' in history for name in RING] == [True, True, False]


def test_a_set_is_compared_with_the_last_one_that_was_aligned(tmp_path: Path) -> None:
    """Not with the last set of all keys, which a match brings."""
    world = jobs(make(tmp_path / "world", match={"maximum_change": 0.05}), MATCH)
    world.run()
    halted(jobs(world, ALIGN), "align.joined", after=3)
    world.withdraw("retailer", range(40, 45))
    jobs(world, AlignSpec(name="again"))
    with pytest.raises(RefusedError, match=r"refused by retailer under match\.maximum_change"):
        world.run()


def test_a_lost_last_set_is_not_taken_for_a_first(stopped: Callable[[str], World]) -> None:
    world = stopped("joined")
    directory = world.folder("brand").path / "matches"
    own = MatchingSet.open(world.folder("brand").job("together") / "set")
    assert own is not None
    (directory / "last-set-email.bin").unlink()
    history = MatchHistory.open(directory, "brand")
    history.check_change(own, world.agreement.match)  # there was no match
    with pytest.raises(WorkspaceError, match=r"last-set-email\.bin is missing"):
        history.check_change(own, world.agreement.match, key="email")


def test_more_people_than_declared_are_refused_and_read_anew(tmp_path: Path) -> None:
    world = make(tmp_path / "world")
    table = world.table("retailer")
    content = table.read_text()
    extra = [f"R#{one},extra{one}@gmx.net,,30,red" for one in range(5000, 5001)]
    table.write_text("\n".join([content.rstrip(), *extra, ""]))
    book = world.consents("retailer")
    given = book.read_text()
    head, first = given.splitlines()[:2]
    assert head.startswith("subject")
    book.write_text(given + first.replace(first.split(",")[0], "R#5000") + "\n")
    with pytest.raises(RefusedError, match=r"datasets\.declared_rows"):
        world.run()
    table.write_text(content)
    halted(world, "align.joined", after=3)


def test_consent_that_is_withdrawn_on_the_way_stops_it(
    stopped: Callable[[str], World],
) -> None:
    world = stopped("bound")
    world.withdraw("retailer", [25])
    with pytest.raises(RefusedError, match="refused by retailer under consent"):
        world.run()
    assert not said(world, "align.tags")


def test_commitments_tell_nothing_without_their_key(finished: World) -> None:
    own = MatchingSet.open(finished.folder("brand").job("together") / "set")
    assert own is not None
    one, other = (commitment(Secret(bytes([n]) * 32), own) for n in (1, 2))
    assert one != other
