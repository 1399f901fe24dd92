"""Whole parties match: who ends with what, who is told nothing, and what is refused on the way."""

import contextlib
import hmac
import itertools
import json
import os
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from parties import (
    MATCH,
    NOW,
    PEOPLE,
    Parties,
    World,
    collaboration,
    consents,
    email,
    phone,
    record,
    table,
)
from test_linkage import KEYS, febrl

from compliance import records
from compliance.log.verifier import verify_log
from compliance.terms import Linkage, Reveal
from federation.audit import verify_all, verify_party
from federation.collaboration import Collaboration
from federation.errors import RefusedError
from federation.jobs.match import (
    MatchPlan,
    RecordPlan,
    named_places,
    places_of,
    record_widths,
)
from federation.jobs.match import outcome as match_outcome
from federation.matching import record_match, token_set
from federation.matching.record_set import NOBODY, RecordSet
from federation.matching.token_set import MatchingSet
from federation.messages import (
    Body,
    EraseStanding,
    MatchAccept,
    MatchBlinded,
    MatchDone,
    MatchOffer,
    MatchOutcome,
    MatchReply,
    MatchRequest,
    MatchSide,
    Message,
    Refused,
    SealedMessage,
    unseal,
)
from federation.node import Node
from federation.population import recipe_for
from federation.specification import MatchSpec
from federation.trial.workspace import prepare_workspace
from privacy.accounting.charge import ChargeState
from privacy.identifiers import recipe_fingerprint
from privacy.psi.field import PRIME
from privacy.psi.portable import PortableEngine
from privacy.randomness import Secret, seeded_secret

PARTNERS = ("retailer", "courier")
PARTNER_LEARNS, BRAND_LEARNS = Reveal.PARTNER_LEARNS_MEMBERS, Reveal.BRAND_LEARNS_MEMBERS
BOTH, SIZE = Reveal.BOTH_LEARN_MEMBERS, Reveal.SIZE_ONLY
WEAK = 4.0  # a size_epsilon whose noise passes `NEAR` twice in ten million draws
NEAR = 4
DECLARED = "datasets.declared_rows"
HIDDEN, SEEN = False, True  # whether the learner may see by which keys
BOTH_WAYS = pytest.mark.parametrize("seen", [HIDDEN, SEEN], ids=["hidden", "seen"])
BUDGET = {"epsilon": 50.0}

Tables = Callable[[str], pd.DataFrame]
IDENTIFIERS: Mapping[str, Any] = {"email": "email", "phone": "phone"}


class Pairs(World):
    """A world that reads keys and contracts once, since most here is done many times."""

    @cached_property
    def parties(self) -> Parties:  # type: ignore[override]
        return super().parties

    @cached_property
    def nodes_open(self) -> dict[str, Node]:
        return {name: super(Pairs, self).node(name) for name in PEOPLE}

    def node(self, name: str) -> Node:
        return self.nodes_open[name]

    def copy(self, path: Path) -> "Pairs":
        return Pairs(super().copy(path).workspace, self.now)


def make(
    path: Path,
    reveal: Reveal = PARTNER_LEARNS,
    *,
    tables: Tables = table,
    identifiers: Mapping[str, Any] = IDENTIFIERS,
    rows: int = 50,
    unsafe_seed: int | None = None,
    budget: Mapping[str, Any] = BUDGET,
    **match: object,
) -> Pairs:
    """A world whose one job is a match."""
    path.mkdir(parents=True, exist_ok=True)
    for name in PEOPLE:
        held = tables(name)
        held.to_csv(path / f"{name}.csv", index=False)
        everybody = consents(name).iloc[0].to_dict() | {"subject": held["record"]}
        pd.DataFrame(everybody).to_csv(path / f"{name}-consents.csv", index=False)
    if reveal is SIZE:
        unsafe_seed = (
            5 if unsafe_seed is None else unsafe_seed
        )  # or noise would fail a test in 10^6
        match = {"keys": ["email"], "size_epsilon": WEAK} | match
        identifiers = {"email": identifiers["email"]}
    document = collaboration(
        unsafe_seed=unsafe_seed, match={"reveal": reveal} | match, budget=budget
    ).model_dump(mode="json", exclude_unset=True)
    document["jobs"] = [MATCH.model_dump(mode="json")]
    for party in document["parties"]:
        if "data" in party:
            party["data"]["identifiers"] = identifiers
            party["declared_rows"] = rows
    return Pairs(
        prepare_workspace(
            Collaboration.model_validate(document), path / "trial.toml", path / "workspace"
        )
    )


@pytest.fixture(autouse=True, scope="module")
def quick_disk() -> Iterator[None]:
    """Do not wait for the disk: no test here cuts the power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> "Worlds":
    """Worlds in which nothing has happened yet, one for each `reveal`. Copy before use."""
    worlds: dict[tuple[Reveal, bool], World] = {}

    def of(reveal: Reveal, seen: bool = HIDDEN) -> World:
        if (reveal, seen) not in worlds:
            directory = tmp_path_factory.mktemp("made")
            worlds[reveal, seen] = make(directory, reveal, reveal_keys=seen)
        return worlds[reveal, seen]

    return of


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> "Ended":
    """Worlds in which the coordinator has run the whole match."""
    worlds: dict[tuple[Reveal, Linkage, bool], World] = {}

    def of(reveal: Reveal, linkage: Linkage = Linkage.ONE_TO_ONE, seen: bool = HIDDEN) -> World:
        if (reveal, linkage, seen) not in worlds:
            one = make(
                tmp_path_factory.mktemp("ended"),
                reveal,
                tables=household,
                linkage=linkage,
                reveal_keys=seen,
            )
            one.run()
            worlds[reveal, linkage, seen] = one
        return worlds[reveal, linkage, seen]

    return of


Ended = Callable[..., World]


@pytest.fixture
def world(made: "Worlds", tmp_path: Path) -> "Worlds":
    """Fresh copies of those."""
    numbered = itertools.count()
    return lambda *which: made(*which).copy(tmp_path / f"copy-{next(numbered)}")


Worlds = Callable[..., World]


class Step(NamedTuple):
    """A party was asked, and answered."""

    party: str
    question: SealedMessage
    answer: SealedMessage


def sides(reveal: Reveal, partner: str = "retailer") -> tuple[str, str]:
    return ("brand", partner) if reveal is BRAND_LEARNS else (partner, "brand")


def request(world: World, learner: str, peer: str, spec: MatchSpec = MATCH) -> SealedMessage:
    body = MatchRequest(spec=spec, peer=peer)
    return world.parties.seal("coordinator", learner, spec.name, body)


def anew(world: World, learner: str, peer: str) -> SealedMessage:
    """The same request as another message, which was not answered before."""
    return say(world, "coordinator", learner, MatchRequest(spec=MATCH, peer=peer), b"once more")


def carry(world: World, learner: str, peer: str, spec: MatchSpec = MATCH) -> Iterator[Step]:
    """Carry one pair's messages to and fro until one is for the coordinator, or refuses."""
    party, question = learner, request(world, learner, peer, spec)
    while True:
        answer = world.handle(party, question)
        yield Step(party, question, answer)
        header = unseal(answer, world.agreement).header
        if header.recipient == "coordinator" or header.kind == "refused":
            return
        party, question = header.recipient, answer


def upto(world: World, reveal: Reveal, kind: str) -> Step:
    """Carry until somebody has said a message of that kind."""
    for step in carry(world, *sides(reveal)):
        if unseal(step.answer, world.agreement).header.kind == kind:
            return step
    raise AssertionError(f"nobody said {kind}")


def kinds(world: World, messages: Sequence[SealedMessage]) -> list[str]:
    return [unseal(message, world.agreement).header.kind for message in messages]


def say(
    world: World, sender: str, to: str, body: Body, payload: bytes = b"", answers: str | None = None
) -> SealedMessage:
    return world.parties.seal(sender, to, "find", body, payload, answers=answers)


def files(world: World, party: str) -> dict[str, bytes]:
    """Everything that a party holds of the job."""
    root = world.folder(party).job("find")
    found = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in found}


def people(world: World, party: str, file: str) -> list[int]:
    """The people whom a file of members lists, in its order."""
    return [int(key.split("#")[1]) - 700 for key in world.listed(party, f"find/{file}")]


def refused(
    world: World, party: str, question: SealedMessage, term: str, *, keeps: bool = True
) -> Refused:
    """Expect a refusal by that term: a leaf and an answer, and nothing else changed."""
    held, kept = files(world, party), world.outbox(party)
    answer = world.ask(party, question)
    assert isinstance(answer.body, Refused), answer.body.kind
    assert answer.body.term == term
    key = world.agreement.party(party).log_key
    log = verify_log(world.folder(party).log, verification_key=key)
    leaf = records.parse_leaf(log.entries[-1])
    assert isinstance(leaf, records.Refusal)
    assert leaf.term == term
    assert world.outbox(party) == kept
    if keeps:
        now = files(world, party)
        assert {path: now[path] for path in now if "/records/" not in path or path in held} == held
    return answer.body


def holds(world: World) -> None:
    """The audit of everybody's log passes."""
    parties, problems = verify_all([world.workspace.path])
    assert (len(parties), problems) == (4, ())


# --- who learns what -------------------------------------------------------------------------


def household(party: str) -> pd.DataFrame:
    """Person 22 gives the brand the phone of 40, whom only partners know."""
    rows = table(party)
    if party == "brand":
        rows.loc[rows["record"] == record("brand", 22), "phone"] = phone(40)
    return rows


SHARED = {name: [one for one in PEOPLE[name] if one in PEOPLE["brand"]] for name in PARTNERS}
LEARNT = {
    PARTNER_LEARNS: {"retailer": {"members.npz"}, "courier": {"members.npz"}, "brand": set()},
    BRAND_LEARNS: {
        "retailer": set(),
        "courier": set(),
        "brand": {"with-retailer/members.npz", "with-courier/members.npz"},
    },
    BOTH: {
        "retailer": {"members.npz"},
        "courier": {"members.npz"},
        "brand": {"with-retailer/members.npz", "with-courier/members.npz"},
    },
    SIZE: {
        "retailer": {"with-brand/size"},
        "courier": {"with-brand/size"},
        "brand": {"with-retailer/size", "with-courier/size"},
    },
}


def told(world: World, party: str) -> list[Message]:
    """What a party was sent, read with its own key."""
    read = [world.read(message) for message in world.wire]
    return [message for message in read if message.header.recipient == party]


AGREED = [(*one, HIDDEN) for one in product(Reveal, Linkage) if one != (BOTH, Linkage.ANY_KEY)] + [
    (PARTNER_LEARNS, Linkage.ANY_KEY, SEEN),
    (BOTH, Linkage.ONE_TO_ONE, SEEN),
    (PARTNER_LEARNS, Linkage.ONE_TO_ONE, SEEN),
]


def linked(partner: str, seen: bool) -> list[int]:
    """Who of a household is matched one to one: an unseen key leaves 22 tied between two."""
    return [one for one in SHARED[partner] if seen or one != 22]


@pytest.mark.parametrize(("reveal", "linkage", "seen"), AGREED)
def test_each_ends_with_what_was_agreed_and_with_no_more(
    ended: Ended, reveal: Reveal, linkage: Linkage, seen: bool
) -> None:
    world = ended(reveal, linkage, seen)
    holds(world)
    for name, expected in LEARNT[reveal].items():
        held = files(world, name)
        results = {path for path in held if path.endswith(("members.npz", "size"))}
        assert results == expected
        assert not [path for path in held if "found" in path or "records" in path]
        assert not [path for path in held if path.endswith("secret")]
    for partner in PARTNERS:
        here = there = SHARED[partner]
        if linkage is Linkage.ANY_KEY:
            here = [*here, 40]
        else:
            here = there = linked(partner, seen)
        if reveal is SIZE:
            for party, file in ((partner, "with-brand/size"), ("brand", f"with-{partner}/size")):
                assert abs(int(files(world, party)[file]) - len(SHARED[partner])) <= NEAR
            continue
        if reveal is not BRAND_LEARNS:
            assert sorted(people(world, partner, "members.npz")) == here
        if reveal is not PARTNER_LEARNS:
            assert sorted(people(world, "brand", f"with-{partner}/members.npz")) == there
    _is_told_no_more(world, reveal)


def _learners(reveal: Reveal) -> set[str]:
    return {"brand"} if reveal is BRAND_LEARNS else set(PARTNERS)


def _is_told_no_more(world: World, reveal: Reveal) -> None:
    """A peer gets blinded points and, where agreed, an outcome; never tags to compare with."""
    learner = {"match.request", "match.accept", "match.reply"}
    peer = {"match.offer", "match.blinded"} | (
        {"match.outcome"} if reveal in {BOTH, SIZE} else set()
    )
    for name in PEOPLE:
        messages = [m for m in told(world, name) if m.header.kind.startswith("match.")]
        assert {m.header.kind for m in messages} == (learner if name in _learners(reveal) else peer)
        for message in messages:
            body, size = message.body, len(message.payload)
            if isinstance(body, MatchOutcome):
                assert (body.size is None) is (reveal is BOTH)
                assert bool(size) is (reveal is BOTH)
            elif isinstance(body, MatchBlinded):
                other = message.header.sender
                assert size == 32 * points(_plan(world, other, name))[0]
            elif isinstance(body, MatchReply):
                plan = _plan(world, name, message.header.sender)
                mine, theirs = points(plan)
                numbers = isinstance(plan, MatchPlan) and plan.links_records
                assert size == 12 * mine + (40 if numbers else 32) * theirs
            else:
                assert size == 0
    for message in told(world, "coordinator"):
        if message.header.kind.startswith("witness."):
            continue  # heads of logs
        assert message.payload == b""
        if isinstance(message.body, EraseStanding):
            assert not message.body.batches + message.body.news  # nobody asked to be erased
            continue
        assert set(message.body.model_dump()) == {"kind"}


Plan = MatchPlan | RecordPlan


def _plan(world: World, learner: str, peer: str) -> Plan:
    states = {
        name: json.loads(
            (world.folder(name).job("find") / f"with-{other}" / "state.json").read_bytes()
        )
        for name, other in ((learner, peer), (peer, learner))
    }
    own, other = (MatchSide.model_validate(states[learner][one]) for one in ("own", "other"))
    widths = record_widths(world.agreement, learner, peer)
    if widths is None:
        return MatchPlan.of(MATCH, world.agreement.match, learner=own, peer=other)
    return RecordPlan.of(MATCH, widths, learner=own, peer=other)


def points(plan: Plan) -> tuple[int, int]:
    """Points of a bucket of the learner's and of the peer's."""
    if isinstance(plan, RecordPlan):
        return plan.learner.points, plan.peer.points
    return plan.buckets.receiver_capacity, plan.buckets.sender_capacity


def blind_nobody(plan: Plan, label: str) -> bytes:
    """Points of nobody, as a learner sends them."""
    secret, nobody = seeded_secret(1, label), np.zeros((0, 33), dtype=np.uint8)
    if isinstance(plan, RecordPlan):
        return plan.blind(0, nobody, np.zeros(0, dtype=np.int64), secret, PortableEngine())
    return plan.blind(0, nobody, secret, PortableEngine())


@BOTH_WAYS
def test_both_sides_list_the_same_people_in_the_same_order(ended: Ended, seen: bool) -> None:
    world = ended(BOTH, Linkage.ONE_TO_ONE, seen)
    for partner in PARTNERS:
        here = people(world, partner, "members.npz")
        assert here == people(world, "brand", f"with-{partner}/members.npz")
        assert here != sorted(here)  # nor does the order tell where they stand in a table
        assert sorted(here) == linked(partner, seen)


def test_tags_are_put_together_a_shelf_at_a_time_as_all_at_once(
    world: Worlds, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = world(BOTH)
    monkeypatch.setattr(record_match, "_TOGETHER", 1)
    list(carry(one, *sides(BOTH)))
    assert sorted(people(one, "retailer", "members.npz")) == SHARED["retailer"]


@pytest.mark.parametrize("reveal", [PARTNER_LEARNS, BRAND_LEARNS])
def test_a_peer_may_be_told_the_size_alone(tmp_path: Path, reveal: Reveal) -> None:
    world = make(tmp_path, reveal, size_epsilon=WEAK)
    world.run()
    holds(world)
    for partner in PARTNERS:
        learner, peer = sides(reveal, partner)
        said = int(files(world, peer)[f"with-{learner}/size"])
        assert abs(said - len(SHARED[partner])) <= NEAR
        assert f"with-{peer}/size" not in files(world, learner)
    for name in PEOPLE:
        if name not in _learners(reveal):
            assert not [path for path in files(world, name) if path.endswith("members.npz")]
    assert {state for _, state in charges(world, sides(reveal)[0])} == {ChargeState.COMMITTED}
    assert charges(world, sides(reveal)[1]) == []


def charges(world: World, party: str) -> list[tuple[str, ChargeState]]:
    found = world.statement(party).charges
    return sorted((charge.charge_id, charge.state) for charge in found)


def test_every_size_is_charged_once_in_ledger_and_log(ended: Ended) -> None:
    one = ended(SIZE)
    expected = {
        "brand": [f"find/match.accept/{name}" for name in sorted(PARTNERS)],
        "retailer": ["find/match.offer/brand"],
        "courier": ["find/match.offer/brand"],
    }
    for again in (False, True):
        for name, ids in expected.items():
            assert charges(one, name) == [(charge, ChargeState.COMMITTED) for charge in ids]
            assert one.statement(name).epsilon_spent == pytest.approx(WEAK * len(ids), rel=1e-4)
            leaves = one.leaves(name)
            kinds_of = Counter(leaf.kind for leaf in leaves)
            assert kinds_of["budget.reserved"] == kinds_of["budget.committed"] == len(ids)
            paid = [leaf.charge_id for leaf in leaves if isinstance(leaf, records.Release)]
            assert sorted(filter(None, paid)) == ids
        if not again:  # asked once more, everything is as it was
            for question, answer in zip(one.wire[::2], one.wire[1::2], strict=True):
                sender = unseal(answer, one.agreement).header.sender
                assert one.handle(sender, question) == answer


def test_a_size_that_is_told_later_weighs_on_the_period_then(tmp_path: Path) -> None:
    """Sets are paid for at the beginning; what tells how many they share leaves after that."""
    days = {"epsilon": 50.0, "delta": 1e-5, "period": {"days": 30, "epsilon": 40.0, "delta": 1e-5}}
    world = make(tmp_path, SIZE, budget=days)
    for step in carry(world, "retailer", "brand"):
        if kinds(world, [step.answer]) == ["match.accept"]:
            world.now += timedelta(days=31)
    for name in ("retailer", "brand"):
        with world.node(name).desk() as desk:
            period = desk.ledger.statement().period
        assert period is not None
        assert period.epsilon_spent == pytest.approx(WEAK, rel=1e-4)


def test_sizes_are_noised_on_their_way(tmp_path: Path) -> None:
    """With strong noise, learner and peer hold sizes that agree with neither truth nor each other."""
    sizes = set()
    for seed in range(3):
        world = make(tmp_path / str(seed), SIZE, size_epsilon=0.5, unsafe_seed=seed)
        list(carry(world, "retailer", "brand"))
        at = {name: files(world, name) for name in ("retailer", "brand")}
        sizes.add((at["retailer"]["with-brand/size"], at["brand"]["with-retailer/size"]))
    assert len(sizes) > 1
    assert any(here != there for here, there in sizes)
    assert any(int(here) != len(SHARED["retailer"]) for here, _ in sizes)


@pytest.mark.parametrize("reveal", list(Reveal))
def test_below_the_minimum_nothing_leaves_but_the_term(tmp_path: Path, reveal: Reveal) -> None:
    least = len(SHARED["retailer"]) + (NEAR if reveal is SIZE else 1)
    world = make(tmp_path, reveal, minimum_match=least)
    learner, peer = sides(reveal)
    for _ in range(2):  # and as often as it is run
        with pytest.raises(RefusedError, match="minimum_match"):
            world.run()
    question, sealed = next(
        (question, answer)
        for question, answer in zip(world.wire[::2], world.wire[1::2], strict=True)
        if kinds(world, [answer]) == ["refused"]
    )
    answer = world.read(sealed)
    assert (answer.header.sender, answer.header.recipient, answer.payload) == (learner, peer, b"")
    assert isinstance(answer.body, Refused)
    assert answer.body.term == "match.minimum_match"
    assert set(re.findall(r"\d+", answer.body.remedy)) == {str(least)}
    assert not {"match.outcome", "match.done"} & set(kinds(world, world.wire))
    for name in (learner, peer):
        held = files(world, name)
        assert not [path for path in held if path.endswith(("members.npz", "size", "pending"))]
    told = [leaf for leaf in world.leaves(learner) if isinstance(leaf, records.Refusal)]
    assert {leaf.term for leaf in told} == {"match.minimum_match"}
    assert not [charge for charge, _ in charges(world, learner) if "outcome" in charge]
    assert left_of(world, learner, peer) == {"state.json", "commitment"}
    for again in (question, anew(world, learner, peer)):
        verdict = refused(world, learner, again, "match.minimum_match")
        assert set(re.findall(r"\d+", verdict.remedy)) == {str(least)}


def left_of(world: World, party: str, other: str) -> set[str]:
    """What a party keeps of one pair's match."""
    found = (world.folder(party).job("find") / f"with-{other}").rglob("*")
    return {str(path.name) for path in found}


@BOTH_WAYS
def test_a_crash_after_too_few_were_found_leaves_nothing_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: bool
) -> None:
    world = make(tmp_path, minimum_match=len(SHARED["retailer"]) + 1, reveal_keys=seen)
    step = upto(world, PARTNER_LEARNS, "match.reply")
    with monkeypatch.context() as patch:
        die_removing(patch, 0)
        with pytest.raises(Killed):
            world.handle("retailer", step.answer)
    assert "secret" in left_of(world, "retailer", "brand")
    refused(world, "retailer", request(world, "retailer", "retailer"), "match.reveal", keeps=False)
    assert left_of(world, "retailer", "brand") == {"state.json", "commitment"}
    refused(world, "retailer", step.answer, "match.minimum_match")


@BOTH_WAYS
def test_a_peer_keeps_no_list_of_fewer_than_the_minimum(world: Worlds, seen: bool) -> None:
    """A learner that names one place after another would tell of each person by herself."""
    one = world(BOTH, seen)
    outcome = one.read(upto(one, BOTH, "match.outcome").answer)
    assert isinstance(outcome.body, MatchOutcome)
    room = len(outcome.payload) // 8
    few = places_of(outcome.payload, room)[: one.agreement.match.minimum_match - 1]
    payload, answers = named_places(few, room), outcome.header.answers
    forged = say(one, "retailer", "brand", outcome.body, payload, answers)
    refused(one, "brand", forged, "match.minimum_match", keeps=False)
    assert left_of(one, "brand", "retailer") == {"state.json", "commitment"}
    refused(one, "brand", outcome.sealed, "match.minimum_match")  # nor does it try again


@BOTH_WAYS
def test_an_outcome_that_names_members_shows_what_both_announced_and_no_more(
    tmp_path: Path, seen: bool
) -> None:
    def strangers(known: int) -> Tables:
        def tables(party: str) -> pd.DataFrame:
            rows = table(party)
            if party != "brand":
                rows.loc[known:, "email"] = [f"s{one}@gmx.net" for one in range(known, len(rows))]
                rows.loc[known:, "phone"] = [
                    number and number.replace("736", "737") for number in rows["phone"][known:]
                ]
            return rows

        return tables

    told, members = set(), set()
    for known in (6, 20):
        world = make(tmp_path / str(known), BOTH, tables=strangers(known), reveal_keys=seen)
        outcome = world.read(upto(world, BOTH, "match.outcome").answer)
        told.add((len(outcome.payload), outcome.body.model_dump_json()))
        members.add(len(people(world, "retailer", "members.npz")))
    assert members == {6, 20}
    ((size, _),) = told
    assert size >= 8 * len(SHARED["retailer"])


@BOTH_WAYS
def test_an_outcome_whose_list_has_no_room_is_told_as_a_map_and_both_learn_the_same(
    world: Worlds, monkeypatch: pytest.MonkeyPatch, seen: bool
) -> None:
    sizes, found = [], []
    for room in (match_outcome.MOST_BYTES, 200):
        monkeypatch.setattr(match_outcome, "MOST_BYTES", room)
        one = world(BOTH, seen)
        *_, told, last = carry(one, "retailer", "brand")
        assert one.read(last.answer).body == MatchDone()
        sizes.append(len(one.read(told.answer).payload))
        kept = (("retailer", "members.npz"), ("brand", "with-retailer/members.npz"))
        found.append([sorted(people(one, name, file)) for name, file in kept])
    assert sizes[1] < 200 < sizes[0]
    assert found[0] == found[1]


def test_an_outcome_that_no_message_could_hold_is_refused_before_a_point_travels(
    world: Worlds, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, longer = world(BOTH), world(PARTNER_LEARNS)
    monkeypatch.setattr(match_outcome, "MOST_BYTES", 3)
    answer = refused(
        one, "retailer", upto(one, BOTH, "match.accept").answer, "match.reveal", keeps=False
    )
    assert "of the 3 bytes that one message tells: match fewer people" in answer.remedy
    *_, last = carry(longer, "retailer", "brand")  # where no list is sent
    assert longer.read(last.answer).body == MatchDone()


@pytest.mark.parametrize(("seen", "fewer"), [(HIDDEN, 2), (SEEN, 0)], ids=["hidden", "seen"])
def test_one_person_changes_the_size_that_is_told_by_one(
    tmp_path: Path, seen: bool, fewer: int
) -> None:
    """Also one whose coming leaves others tied, so that they are not matched any more."""

    def tables(comes: bool) -> Tables:
        def of(party: str) -> pd.DataFrame:
            rows = table(party)
            if party == "retailer":
                rows.loc[rows["record"] == record(party, 22), "phone"] = ""
                rows.loc[rows["record"] == record(party, 23), "email"] = ""
                last = rows["record"] == record(party, 59)
                between = (email(23), phone(22)) if comes else (email(59), phone(59))
                rows.loc[last, ["email", "phone"]] = between
            return rows

        return of

    sizes, matched = {}, {}
    for comes in (False, True):
        world = make(
            tmp_path / str(comes),
            tables=tables(comes),
            size_epsilon=45.0,  # noise but once in 10^19
            reveal_keys=seen,
        )
        list(carry(world, "retailer", "brand"))
        sizes[comes] = int(files(world, "brand")["with-retailer/size"])
        matched[comes] = len(people(world, "retailer", "members.npz"))
    assert sizes[True] - sizes[False] == 1
    assert matched[False] - matched[True] == fewer


def test_where_sizes_alone_are_told_the_minimum_is_held_against_what_is_told(
    tmp_path: Path,
) -> None:
    """The peer knows the noise that it made: the learner's own count is exact to it."""
    least, ends = len(SHARED["retailer"]), set()
    for seed in (14, *range(14), *range(15, 60)):  # the first two come to different ends
        if len(ends) == 2:
            break
        world = make(
            tmp_path / str(seed), SIZE, size_epsilon=0.5, unsafe_seed=seed, minimum_match=least
        )
        *_, last = carry(world, "retailer", "brand")
        assert charges(world, "retailer") == [("find/match.offer/brand", ChargeState.COMMITTED)]
        if isinstance(world.read(last.answer).body, Refused):
            ends.add("refused")
            continue
        assert int(files(world, "brand")["with-retailer/size"]) >= least
        if int(files(world, "retailer")["with-brand/size"]) < least:
            ends.add("went on, though the learner itself counts fewer")
    assert len(ends) == 2


@pytest.mark.parametrize("reveal", list(Reveal))
def test_at_the_minimum_the_match_is_done(tmp_path: Path, reveal: Reveal) -> None:
    world = make(
        tmp_path, reveal, minimum_match=len(SHARED["retailer"]) - (NEAR if reveal is SIZE else 0)
    )
    *_, last = carry(world, *sides(reveal))
    assert world.read(last.answer).body == MatchDone()
    assert world.read(last.answer).header.recipient == "coordinator"


# --- what people are matched by ------------------------------------------------------------------


def test_a_person_is_found_by_any_of_several_columns(tmp_path: Path) -> None:
    def two(party: str) -> pd.DataFrame:
        """Whoever is even wrote the address by which the brand knows it into the second column."""
        rows, here = table(party), list(PEOPLE[party])
        other = [f"other{one}@gmx.net" for one in here]
        swaps = [party != "brand" and one % 2 == 0 for one in here]
        first = [o if s else e for s, o, e in zip(swaps, other, rows["email"], strict=True)]
        second = [e if s else "" for s, e in zip(swaps, rows["email"], strict=True)]
        return rows.assign(email=first, email2=second)

    world = make(
        tmp_path, BOTH, tables=two, identifiers={"email": ["email", "email2"]}, keys=["email"]
    )
    world.run()
    for partner in PARTNERS:
        assert sorted(people(world, partner, "members.npz")) == SHARED[partner]
        assert people(world, partner, "members.npz") == people(
            world, "brand", f"with-{partner}/members.npz"
        )


def test_whoever_bears_several_identifiers_counts_once_where_sizes_alone_are_told(
    tmp_path: Path,
) -> None:
    """The noise hides one person of one identifier, and is charged as such."""

    def two(party: str) -> pd.DataFrame:
        return table(party).assign(email2=[f"other{one}@gmx.net" for one in PEOPLE[party]])

    world = make(tmp_path, SIZE, tables=two, identifiers={"email": ["email", "email2"]})
    list(carry(world, "retailer", "brand"))
    for name, other in (("retailer", "brand"), ("brand", "retailer")):
        held = files(world, name)
        assert abs(int(held[f"with-{other}/size"]) - len(SHARED["retailer"])) <= NEAR
        own = MatchingSet.open(world.folder(name).job("find") / "set")
        assert own is not None
        assert own.token_count == len(PEOPLE[name])


def test_people_are_found_by_a_composite_key_however_it_is_spelt(tmp_path: Path) -> None:
    def surname(person: int) -> str:
        return "".join("bdfgklmnrs"[int(digit)] + "a" for digit in str(100 + person))

    def named(party: str) -> pd.DataFrame:
        here = PEOPLE[party]
        spelt = {
            "brand": [(surname(one).upper(), f"1970-01-{1 + one % 28:02}") for one in here],
            "retailer": [(f" {surname(one)} ", f"1970-01-{1 + one % 28:02}") for one in here],
            "courier": [(surname(one), f"1970-01-{1 + (one + 1) % 28:02}") for one in here],
        }[party]
        return table(party).assign(last=[a for a, _ in spelt], born=[b for _, b in spelt])

    world = make(
        tmp_path,
        BRAND_LEARNS,
        tables=named,
        identifiers={"person": {"born": "born", "name": "last"}},
        keys=["person"],
        composites=[
            {
                "name": "person",
                "fields": [{"name": "name", "rule": "name"}, {"name": "born", "rule": "date"}],
            }
        ],
        minimum_match=1,
    )
    list(carry(world, "brand", "retailer"))
    assert sorted(people(world, "brand", "with-retailer/members.npz")) == SHARED["retailer"]
    *_, last = carry(world, "brand", "courier")  # whose dates are all another day's
    assert world.read(last.answer).body.term == "match.minimum_match"  # type: ignore[union-attr]


def test_people_are_found_in_spite_of_mistakes_by_keys_that_nobody_sees(tmp_path: Path) -> None:
    """The same 5,000 people as in test_linkage, and as many of them found, over messages."""

    def people_of(party: str) -> pd.DataFrame:
        rows = febrl("dataset4a.csv" if party == "brand" else "dataset4b.csv")
        return rows.assign(record=rows["rec_id"]).head(1 if party == "courier" else None)

    world = make(
        tmp_path,
        BOTH,
        tables=people_of,
        rows=5_000,
        identifiers={key.name: {field.name: field.name for field in key.fields} for key in KEYS},
        keys=[key.name for key in KEYS],
        composites=[
            {
                "name": key.name,
                "fields": [{"name": one.name, "rule": one.rule} for one in key.fields],
            }
            for key in KEYS
        ],
    )
    *_, last = carry(world, "retailer", "brand")
    assert world.read(last.answer).body == MatchDone()
    here, there = (
        [key.split("-")[1] for key in world.listed(name, f"find/{file}")]
        for name, file in (("retailer", "members.npz"), ("brand", "with-retailer/members.npz"))
    )
    right = sum(one == other for one, other in zip(here, there, strict=True))
    assert right / 5_000 >= 0.96
    assert right / len(here) >= 0.99


# --- before any point travels --------------------------------------------------------------------


@pytest.mark.parametrize("reveal", [PARTNER_LEARNS, BRAND_LEARNS])
@pytest.mark.parametrize("odd", ["learner", "peer"])
def test_parties_that_normalise_otherwise_are_told_before_a_point_travels(
    world: Worlds, monkeypatch: pytest.MonkeyPatch, reveal: Reveal, odd: str
) -> None:
    from privacy.identifiers import probes, readers

    one, learner, peer = world(reveal), *sides(reveal)
    strange = {"learner": learner, "peer": peer}[odd]
    handle, real = World.handle, readers.normalise_email

    def handled(self: World, name: str, message: SealedMessage) -> SealedMessage:
        with monkeypatch.context() as patch:
            if name == strange:
                patch.setattr(
                    readers, "normalise_email", lambda text, rule: real(text.upper(), rule)
                )
            probes.recipe_fingerprint.cache_clear()  # parties are processes, elsewhere
            return handle(self, name, message)

    monkeypatch.setattr(World, "handle", handled)
    steps = list(carry(one, learner, peer))
    probes.recipe_fingerprint.cache_clear()
    answer = one.read(steps[-1].answer)
    assert isinstance(answer.body, Refused)
    assert answer.body.term == "match.recipe"
    assert "phonenumbers" in answer.body.remedy
    assert kinds(one, [step.answer for step in steps]) == ["match.offer", "refused"]


def offered(world: World, reveal: Reveal) -> tuple[Step, MatchOffer]:
    step = upto(world, reveal, "match.offer")
    body = world.read(step.answer).body
    assert isinstance(body, MatchOffer)
    return step, body


WRONG_SIDES: Mapping[str, Mapping[str, object]] = {
    "match.recipe": {"recipe": "0" * 64},
    "datasets.declared_rows": {"points": 120},
    "message": {"points": 95},
}


@BOTH_WAYS
def test_a_peer_holds_an_offer_against_the_agreement(world: Worlds, seen: bool) -> None:
    one = world(PARTNER_LEARNS, seen)
    step, body = offered(one, PARTNER_LEARNS)

    def offer(**changes: object) -> SealedMessage:
        wrong = MatchOffer(spec=MATCH, side=body.side.model_copy(update=changes))
        return say(one, "retailer", "brand", wrong, answers=step.question.digest)

    for term, changes in WRONG_SIDES.items():
        refused(one, "brand", offer(**changes), term)
        assert files(one, "brand") == {}  # not even its people were read
    assert isinstance(one.ask("brand", offer(points=80)).body, MatchAccept)  # fewer than it brings
    refused(one, "brand", step.answer, "message")  # the first offer counts


def test_a_learner_holds_an_accept_against_the_agreement(world: Worlds) -> None:
    one = world(PARTNER_LEARNS)
    step = upto(one, PARTNER_LEARNS, "match.accept")
    body = one.read(step.answer).body
    assert isinstance(body, MatchAccept)
    for term, changes in WRONG_SIDES.items():
        wrong = MatchAccept(spec=MATCH, side=body.side.model_copy(update=changes))
        forged = say(one, "brand", "retailer", wrong, answers=step.question.digest)
        refused(one, "retailer", forged, term)
    assert isinstance(one.ask("retailer", step.answer).body, MatchBlinded)


@pytest.mark.parametrize("strange", ["learner", "peer"])
def test_more_identifiers_than_declared_are_refused_by_their_own_party(
    tmp_path: Path, strange: str
) -> None:
    few = {"learner": "retailer", "peer": "brand"}[strange]

    def crowded(party: str) -> pd.DataFrame:
        return table(party) if party == few else table(party).head(10)

    world = make(tmp_path, tables=crowded, rows=14)
    *_, last = carry(world, "retailer", "brand")
    assert last.party == few
    answer = world.read(last.answer).body
    assert isinstance(answer, Refused)
    assert (answer.term, answer.remedy.split(":")[0]) == (
        "datasets.declared_rows",
        "more identifiers than the 28 that its data set may bring",
    )
    crowded_table = table(few).head(10)
    crowded_table.to_csv(world.table(few), index=False)
    assert not isinstance(world.ask(few, last.question).body, Refused)  # heard anew once mended


def test_more_people_than_declared_are_refused_where_records_are_matched(tmp_path: Path) -> None:
    """Their identifiers alone would be few enough: one in three people has no phone."""
    world = make(tmp_path, rows=45)
    answer = refused(world, "retailer", request(world, "retailer", "brand"), DECLARED, keeps=False)
    assert answer.remedy == "more people than the 45 declared: declare more rows"
    table("retailer").head(45).to_csv(world.table("retailer"), index=False)
    assert isinstance(world.ask("retailer", request(world, "retailer", "brand")).body, MatchOffer)


def test_more_identifiers_of_a_person_than_declared_are_refused(tmp_path: Path) -> None:
    """A party that brings another column than it agreed to."""
    world = make(tmp_path)
    two = table("retailer").assign(email2=["other@gmx.net", *[""] * 49])
    two.to_csv(world.table("retailer"), index=False)
    config = world.folder("retailer").path / "party.json"
    told = json.loads(config.read_text())
    told["data"]["identifiers"]["email"] = ["email", "email2"]
    config.write_text(json.dumps(told))
    answer = refused(
        world,
        "retailer",
        request(world, "retailer", "brand"),
        "datasets.identifiers_per_person",
        keeps=False,
    )
    assert "more identifiers than the 2 declared" in answer.remedy


def test_a_job_that_is_another_at_the_other_side_is_refused(world: Worlds) -> None:
    one = world(PARTNER_LEARNS)
    other = MatchSpec(name="find", memory_limit=512 << 20)
    assert other.bucket_points != MATCH.bucket_points
    step, body = offered(one, PARTNER_LEARNS)
    accept = one.ask("brand", step.answer)
    assert isinstance(accept.body, MatchAccept)
    changed = accept.body.model_copy(update={"spec": other})
    answers = step.answer.digest
    refused(one, "retailer", say(one, "brand", "retailer", changed, answers=answers), "message")
    blinded = one.ask("retailer", accept.sealed)
    assert isinstance(blinded.body, MatchBlinded)
    for words in (
        blinded.body.model_copy(update={"spec": other}),
        MatchOffer(spec=other, side=body.side),
    ):
        forged = say(one, "retailer", "brand", words, blinded.payload, accept.sealed.digest)
        refused(one, "brand", forged, "message")
    refused(one, "retailer", request(one, "retailer", "brand", other), "message")


@pytest.mark.parametrize("reveal", [PARTNER_LEARNS, BRAND_LEARNS])
def test_only_the_agreed_pairs_match_and_only_in_their_roles(world: Worlds, reveal: Reveal) -> None:
    one = world(reveal)
    learner, peer = sides(reveal)
    others = {("retailer", "courier"), ("retailer", "retailer"), (peer, learner)}
    for name, with_whom in others - {(learner, peer)}:
        refused(one, name, request(one, name, with_whom), "match.reveal")
    step, body = offered(one, reveal)
    reverse = say(one, peer, learner, body, answers=step.question.digest)
    refused(one, learner, reverse, "match.reveal")


@pytest.mark.parametrize("reveal", [BRAND_LEARNS, BOTH, SIZE])
def test_a_peer_that_plays_the_learner_is_told_nothing(world: Worlds, reveal: Reveal) -> None:
    """Points in place of tags, or tags in place of points: the roles would change sides."""
    one, learner, peer = world(reveal), *sides(reveal)
    accept = upto(one, reveal, "match.accept")
    accepted = one.read(accept.answer).body
    assert isinstance(accepted, MatchAccept)
    blinded = one.handle(learner, accept.answer)
    sent_points = blind_nobody(_plan(one, learner, peer), "a peer's own")
    ask = MatchBlinded(spec=MATCH, bucket=0)
    for answers in (blinded.digest, accept.question.digest):
        refused(one, learner, say(one, peer, learner, ask, sent_points, answers), "match.reveal")
    outcome = MatchOutcome(spec=MATCH, size=None if reveal is BOTH else 7)
    refused(one, learner, say(one, peer, learner, outcome, b"", blinded.digest), "match.reveal")
    sent = accept.answer.digest
    for body in (accepted, MatchReply(spec=MATCH, bucket=0)):
        refused(one, peer, say(one, learner, peer, body, sent_points, sent), "match.reveal")
    assert isinstance(one.ask(peer, blinded).body, MatchReply)


# --- a peer that breaks the protocol ---------------------------------------------------------


def alike(point: bytes) -> bytes:
    """P plus (0, 0), which has order 2: another point, of the same product under any secret."""
    return pow(int.from_bytes(point, "little"), -1, PRIME).to_bytes(32, "little")


def spoilt(points: bytes) -> Iterator[bytes]:
    """Points as no honest party sends them."""
    yield (2).to_bytes(32, "little") + points[32:]  # on the twist
    yield (1).to_bytes(32, "little") + points[32:]  # of low order
    yield b"\xff" * 32 + points[32:]  # not canonical
    yield points[32:64] + points[32:]  # one twice
    yield points[:32] + alike(points[:32]) + points[64:]  # two whose products are one
    yield points[32:]  # too few
    yield points + points[:32]  # too many
    yield b""  # nothing at all


@pytest.fixture
def small_buckets(monkeypatch: pytest.MonkeyPatch) -> int:
    """Cut sets of people with two identifiers into two buckets."""
    monkeypatch.setattr(MatchSpec, "bucket_points", 50)
    return 2


@BOTH_WAYS
def test_a_learner_that_breaks_the_protocol_is_refused_and_may_mend_it(
    world: Worlds, small_buckets: int, seen: bool
) -> None:
    one, buckets = world(BOTH, seen), 0
    for step in carry(one, "retailer", "brand"):
        blinded = one.read(step.answer)
        if not isinstance(blinded.body, MatchBlinded):
            continue
        bucket, answers = blinded.body.bucket, blinded.header.answers
        for points in spoilt(blinded.payload):
            forged = say(one, "retailer", "brand", blinded.body, points, answers)
            term = "message" if len(points) != len(blinded.payload) else "computation"
            refused(one, "brand", forged, term)
        for number in {0, 1, 2, 3, 99} - {bucket}:
            words = MatchBlinded(spec=MATCH, bucket=number)
            forged = say(one, "retailer", "brand", words, blinded.payload, answers)
            refused(one, "brand", forged, "message")
        buckets += 1
    assert buckets == small_buckets
    assert len(people(one, "retailer", "members.npz")) == len(SHARED["retailer"])


@BOTH_WAYS
def test_a_peer_that_breaks_the_protocol_is_refused_and_may_mend_it(
    world: Worlds, small_buckets: int, seen: bool
) -> None:
    one, buckets = world(BOTH, seen), 0
    for step in carry(one, "retailer", "brand"):
        reply = one.read(step.answer)
        if not isinstance(reply.body, MatchReply):
            continue
        mine, theirs = points(_plan(one, "retailer", "brand"))
        bucket, answers, payload = reply.body.bucket, reply.header.answers, reply.payload
        begin, end = 12 * mine, 12 * mine + 32 * theirs
        wrong = [payload[:begin] + one + payload[end:] for one in spoilt(payload[begin:end])]
        wrong += [payload[12:24] + payload[12:], payload[12:], payload[:-8], b""]
        for content in wrong:
            forged = say(one, "brand", "retailer", reply.body, content, answers)
            term = "message" if len(content) != len(payload) else "computation"
            refused(one, "retailer", forged, term)
        for number in {0, 1, 2, 3, 99} - {bucket}:
            words = MatchReply(spec=MATCH, bucket=number)
            refused(
                one, "retailer", say(one, "brand", "retailer", words, payload, answers), "message"
            )
        buckets += 1
    assert buckets == small_buckets
    assert people(one, "retailer", "members.npz") == people(
        one, "brand", "with-retailer/members.npz"
    )


def test_a_second_message_for_a_bucket_is_refused_however_sound(
    world: Worlds, small_buckets: int
) -> None:
    """Else a learner could ask about as many identifiers as it likes, a bucket at a time."""
    one = world(BOTH)
    steps = list(carry(one, "retailer", "brand"))
    blinded = [step for step in steps if kinds(one, [step.answer]) == ["match.blinded"]]
    first = one.read(blinded[0].answer)
    again = world(BOTH)
    seen: list[Step] = []
    for step in carry(again, "retailer", "brand"):
        message, seen = again.read(step.answer), [*seen, step]
        if isinstance(message.body, MatchReply) and message.body.bucket == 1:
            break
    asked = [again.read(step.question) for step in seen]
    for message in asked:
        if isinstance(message.body, MatchBlinded):
            for payload in (message.payload, first.payload):
                other = say(
                    again, "retailer", "brand", message.body, payload, message.header.answers
                )
                refused(again, "brand", other, "message")
        if isinstance(message.body, MatchReply):
            other = say(
                again, "brand", "retailer", message.body, message.payload, message.header.answers
            )
            refused(again, "retailer", other, "message")


def test_another_description_of_a_set_is_refused(world: Worlds) -> None:
    one = world(PARTNER_LEARNS)
    accept = upto(one, PARTNER_LEARNS, "match.accept")
    offer = one.read(accept.question)
    assert isinstance(offer.body, MatchOffer)
    other = offer.body.side.model_copy(update={"commitment": "0" * 64})
    forged = MatchOffer(spec=MATCH, side=other)
    refused(
        one, "brand", say(one, "retailer", "brand", forged, answers=offer.header.answers), "message"
    )
    blinded = one.handle("retailer", accept.answer)
    told_ = one.read(accept.answer).body
    assert isinstance(told_, MatchAccept)
    words = MatchAccept(spec=MATCH, side=told_.side.model_copy(update={"commitment": "0" * 64}))
    refused(
        one,
        "retailer",
        say(one, "brand", "retailer", words, answers=accept.question.digest),
        "message",
    )
    assert isinstance(one.ask("brand", blinded).body, MatchReply)


def test_a_reply_before_the_other_set_is_described_is_refused(world: Worlds) -> None:
    one = world(PARTNER_LEARNS)
    step, _ = offered(one, PARTNER_LEARNS)
    reply = MatchReply(spec=MATCH, bucket=0)
    refused(
        one, "retailer", say(one, "brand", "retailer", reply, b"", step.answer.digest), "message"
    )


def test_what_answers_nothing_that_was_sent_is_refused(world: Worlds) -> None:
    one = world(BOTH)
    seen = []
    for step in carry(one, "retailer", "brand"):
        message = one.read(step.answer)
        name = message.header.recipient
        if message.header.kind in {"match.offer", "match.done"}:
            continue
        for answers in ("0" * 64, message.sealed.digest, None):
            forged = say(one, step.party, name, message.body, message.payload, answers)  # type: ignore[arg-type]
            refused(one, name, forged, "message")
        seen.append(message.header.kind)
    assert seen == ["match.accept", "match.blinded", "match.reply", "match.outcome"]


def test_a_transcript_of_another_run_is_refused(
    made: Callable[[Reveal], World], tmp_path: Path
) -> None:
    """The same parties and keys, and messages that were right once."""
    before, one = (made(BOTH).copy(tmp_path / name) for name in ("before", "one"))
    old = list(carry(before, "retailer", "brand"))
    new = list(itertools.islice(carry(one, "retailer", "brand"), 3))  # up to the first points
    for step in old[2:]:
        name = unseal(step.question, one.agreement).header.recipient
        refused(one, name, step.question, "message")
    name = unseal(new[-1].answer, one.agreement).header.recipient
    assert isinstance(one.ask(name, new[-1].answer).body, MatchReply)
    for step in old:  # where they were said, they are answered as they were
        assert before.handle(step.party, step.question) == step.answer


# --- the outcome ---------------------------------------------------------------------------------


def place(bucket: int, number: int) -> bytes:
    return bucket.to_bytes(4, "little") + number.to_bytes(4, "little")


@BOTH_WAYS
def test_an_outcome_that_cannot_be_is_refused_and_the_true_one_taken(
    world: Worlds, monkeypatch: pytest.MonkeyPatch, seen: bool
) -> None:
    monkeypatch.setattr(MatchSpec, "bucket_points", 26)  # four, and 32 places for 30 people
    one = world(BOTH, seen)
    step = upto(one, BOTH, "match.outcome")
    outcome = one.read(step.answer)
    assert isinstance(outcome.body, MatchOutcome)
    good, answers = outcome.payload, outcome.header.answers
    plan = _plan(one, "retailer", "brand")
    names = places_of(good, plan.room).tobytes()
    capacity = plan.peer.records if isinstance(plan, RecordPlan) else points(plan)[1]
    real = set(world_pair(one, "brand", "retailer"))
    nobody = next(at for at in product(range(4), range(capacity)) if at not in real)
    assert set(places_of(good, plan.room).tolist()) <= real
    for size, payload in [
        (None, good[:-1]),
        (None, good + good[-8:]),
        (None, names),
        (None, b""),
        *(
            (None, wrong.ljust(len(good), b"\xff"))
            for wrong in (
                names[:8] * 2,
                names[8:16] + names[:8],
                place(2**32 - 1, 2**32 - 1) + names[:8],
                place(4, 0),
                place(0, capacity),
                place(*nobody),
            )
        ),
        (20, good),
        (20, b""),
    ]:
        words = MatchOutcome(spec=MATCH, size=size)
        refused(one, "brand", say(one, "retailer", "brand", words, payload, answers), "message")
    assert one.ask("brand", step.answer).body == MatchDone()
    late = say(one, "retailer", "brand", outcome.body, good, answers)
    refused(one, "brand", late, "message")  # the first one stays
    assert sorted(people(one, "brand", "with-retailer/members.npz")) == SHARED["retailer"]


def world_pair(world: World, name: str, other: str) -> list[tuple[int, int]]:
    """Where a peer's own points stand, or its records: bucket and place."""
    directory, plan = world.folder(name).job("find"), _plan(world, other, name)
    if isinstance(plan, RecordPlan):
        laid_out = RecordSet.open(directory / f"with-{other}" / "records")
        assert laid_out is not None
        found = np.flatnonzero(laid_out.rows != NOBODY)
        return [divmod(int(at), plan.peer.records) for at in found]
    own = MatchingSet.open(directory / "set")
    assert own is not None
    secret = Secret((directory / f"with-{other}" / "secret").read_bytes())
    return [
        (bucket, int(at))
        for bucket in range(plan.buckets.count)
        for at in plan.places(
            len(own.bucket(bucket, plan.buckets.count).tokens),
            plan.secret(secret, own.digest, bucket),
        )
    ]


def test_a_bucket_after_the_last_is_refused(world: Worlds, small_buckets: int) -> None:
    one = world(BOTH)
    step = upto(one, BOTH, "match.outcome")
    nobody = blind_nobody(_plan(one, "retailer", "brand"), "one more")
    more = MatchBlinded(spec=MATCH, bucket=small_buckets)
    answers = step.question.digest
    refused(one, "brand", say(one, "retailer", "brand", more, nobody, answers), "message")


def test_an_outcome_before_the_last_bucket_is_refused(world: Worlds, small_buckets: int) -> None:
    one = world(BOTH)
    reply = upto(one, BOTH, "match.reply")
    words = MatchOutcome(spec=MATCH, size=None)
    refused(one, "brand", say(one, "retailer", "brand", words, b"", reply.answer.digest), "message")


def test_a_size_in_place_of_members_or_the_reverse_is_refused(world: Worlds) -> None:
    one = world(SIZE)
    step = upto(one, SIZE, "match.outcome")
    words = MatchOutcome(spec=MATCH, size=None)
    answers = one.read(step.answer).header.answers
    refused(one, "brand", say(one, "retailer", "brand", words, b"", answers), "message")
    assert one.ask("brand", step.answer).body == MatchDone()


@pytest.mark.parametrize("reveal", list(Reveal))
def test_a_match_that_has_ended_is_over(world: Worlds, reveal: Reveal) -> None:
    one, learner, peer = world(reveal), *sides(reveal)
    steps = list(carry(one, learner, peer))
    for name in (learner, peer):
        assert not [path for path in files(one, name) if path.endswith("secret")]
    for step in steps[1:]:  # the same words under another digest
        message = one.read(step.question)
        sender, body = message.header.sender, message.body
        again = say(one, sender, step.party, body, message.payload, message.header.answers)  # type: ignore[arg-type]
        refused(one, step.party, again, "message")
    first = json.loads(json.dumps(steps[0].question.envelope.decode()))
    assert one.handle(learner, SealedMessage(first.encode(), b"")) == steps[0].answer


@pytest.mark.parametrize(
    "spoil",
    [
        lambda first, last, tags: first[:12] + last[12:],
        lambda first, last, tags: last[:tags] + first[tags : tags + 32] + last[tags + 32 :],
    ],
    ids=["tags", "points"],
)
def test_what_came_in_an_earlier_bucket_is_refused_in_a_later_one(
    world: Worlds, small_buckets: int, spoil: Callable[[bytes, bytes, int], bytes]
) -> None:
    """A record of the peer's that stands in several buckets would match several people."""
    one, replies = world(BOTH), list[bytes]()
    for step in carry(one, "retailer", "brand"):
        reply = one.read(step.answer)
        if not isinstance(reply.body, MatchReply):
            continue
        replies.append(reply.payload)
        if len(replies) == small_buckets:
            tags = 12 * points(_plan(one, "retailer", "brand"))[0]
            content = spoil(replies[0], reply.payload, tags)
            answers = reply.header.answers
            forged = say(one, "brand", "retailer", reply.body, content, answers)
            refused(one, "retailer", forged, "computation")
    assert sorted(people(one, "retailer", "members.npz")) == SHARED["retailer"]


# --- what binds a party ------------------------------------------------------------------------


@pytest.mark.parametrize("reveal", list(Reveal))
def test_both_logs_bear_both_commitments_crosswise(ended: Ended, reveal: Reveal) -> None:
    one = ended(reveal)
    bound = {
        (name, leaf.peer): (leaf.own_commitment, leaf.peer_commitment)
        for name in PEOPLE
        for leaf in one.leaves(name)
        if isinstance(leaf, records.MatchBound)
    }
    pairs = [(a, b) for a, b in itertools.permutations(PEOPLE, 2) if "brand" in {a, b}]
    assert sorted(bound) == sorted(pairs)
    assert len(set(itertools.chain(*bound.values()))) == 4  # a key for each pair
    for name, other in pairs:
        assert bound[name, other] == bound[other, name][::-1]
        job = one.folder(name).job("find")  # opened to an auditor, it shows the set
        key = (job / f"with-{other}" / "commitment").read_bytes()
        own = MatchingSet.open(job / "set")
        assert own is not None
        opened = hmac.digest(key, bytes.fromhex(own.digest), "sha256").hex()
        assert opened == bound[name, other][0]


def test_matches_are_counted_at_both_sides(tmp_path: Path) -> None:
    world = make(tmp_path, maximum_matches=1, period_days=30)
    list(carry(world, "retailer", "brand"))
    again = MatchSpec(name="again")
    question = request(world, "retailer", "brand", again)
    assert "2026-03-31" in refused(world, "retailer", question, "match.maximum_matches").remedy
    shutil.rmtree(world.folder("retailer").path / "matches")  # a learner that forgets
    *_, last = carry(world, "retailer", "brand", again)
    assert last.party == "brand"
    assert world.read(last.answer).body.term == "match.maximum_matches"  # type: ignore[union-attr]
    assert not isinstance(world.ask("courier", request(world, "courier", "brand")).body, Refused)
    world.now = NOW.replace(month=4)
    *_, last = carry(world, "retailer", "brand", again)
    assert world.read(last.answer).body == MatchDone()


@pytest.mark.parametrize("party", ["retailer", "brand"])
def test_a_pair_of_which_all_is_gone_does_not_match_again_uncounted(
    world: Worlds, party: str
) -> None:
    """Though the set, and what is left of other pairs, would let it."""
    one = world(PARTNER_LEARNS)
    list(carry(one, "retailer", "brand"))
    list(carry(one, "courier", "brand"))
    other = {"retailer": "brand", "brand": "retailer"}[party]
    shutil.rmtree(one.folder(party).job("find") / f"with-{other}")
    offered_again = anew(one, "retailer", "brand")
    if party == "brand":
        side = MatchSide(
            recipe=recipe_fingerprint(recipe_for(one.agreement.match)),
            points=100,
            commitment="0" * 64,
        )
        offered_again = say(one, "retailer", "brand", MatchOffer(spec=MATCH, side=side))
    answer = refused(one, party, offered_again, "match.maximum_matches")
    assert "under another name" in answer.remedy


@pytest.mark.parametrize("reveal", [PARTNER_LEARNS, BRAND_LEARNS])
def test_a_set_that_changed_too_much_is_refused_and_read_anew(
    world: Worlds, reveal: Reveal
) -> None:
    one = world(reveal)
    list(carry(one, *sides(reveal)))
    again = MatchSpec(name="again")
    whole = pd.read_csv(one.table("retailer"), dtype=str)
    whole.head(20).to_csv(one.table("retailer"), index=False)
    *_, last = carry(one, *sides(reveal), again)
    assert last.party == "retailer"
    assert one.read(last.answer).body.term == "match.maximum_change"  # type: ignore[union-attr]
    refused(one, "retailer", last.question, "match.maximum_change", keeps=False)
    whole.head(40).to_csv(one.table("retailer"), index=False)
    *_, last = carry(one, *sides(reveal), again)
    assert one.read(last.answer).body == MatchDone()


def test_a_set_that_others_were_told_of_stays_that_jobs(world: Worlds) -> None:
    """The brand tells two partners of one set, whatever happened to its table in between."""
    one = world(PARTNER_LEARNS)
    accept = upto(one, PARTNER_LEARNS, "match.accept")
    table("brand").head(3).to_csv(one.table("brand"), index=False)
    before = MatchingSet.open(one.folder("brand").job("find") / "set")
    *_, last = carry(one, "courier", "brand")
    assert one.read(last.answer).body == MatchDone()
    assert MatchingSet.open(one.folder("brand").job("find") / "set") == before
    last_set = one.folder("brand").path / "matches" / "last-set.bin"
    last_set.write_bytes(bytes(8))  # and whatever it matched in between
    step, _ = offered(one, PARTNER_LEARNS)
    again = say(one, "retailer", "brand", one.read(step.answer).body, answers=step.question.digest)  # type: ignore[arg-type]
    refused(one, "brand", again, "match.maximum_change")
    assert isinstance(one.ask("retailer", accept.answer).body, MatchBlinded)
    assert MatchingSet.open(one.folder("brand").job("find") / "set") == before


# --- crashes -----------------------------------------------------------------------------------


class Killed(BaseException):
    """A crash, that nothing catches."""


class Calls:
    """Every multiplication: the scalar, and what it met."""

    def __init__(self) -> None:
        self.met: dict[bytes, set[bytes]] = defaultdict(set)
        self.now: list[tuple[bytes, bytes]] = []

    @property
    def all(self) -> set[tuple[bytes, bytes]]:
        return {(scalar, points) for scalar, inputs in self.met.items() for points in inputs}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    found, real = Calls(), PortableEngine.multiply

    def multiply(self: PortableEngine, points: np.ndarray, scalar: bytes) -> np.ndarray:
        found.met[scalar].add(points.tobytes())
        found.now.append((scalar, points.tobytes()))
        return real(self, points, scalar)

    monkeypatch.setattr(PortableEngine, "multiply", multiply)
    return found


def die_before(patch: pytest.MonkeyPatch, renaming: int) -> None:
    """Die before the given renaming of a file, by which everything durable appears."""
    real, done = Path.replace, 0

    def replace(self: Path, target: Path) -> Path:
        nonlocal done
        if done == renaming:
            raise Killed
        done += 1
        return real(self, target)

    patch.setattr(Path, "replace", replace)


@pytest.mark.parametrize(("reveal", "seen"), [(BOTH, HIDDEN), (BOTH, SEEN), (SIZE, HIDDEN)])
def test_killed_at_every_write_a_match_goes_on_and_computes_no_finished_bucket_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    calls: Calls,
    small_buckets: int,
    reveal: Reveal,
    seen: bool,
) -> None:
    if reveal is SIZE:  # people with one identifier
        monkeypatch.setattr(MatchSpec, "bucket_points", 45)
    whole = make(tmp_path / "whole", reveal, unsafe_seed=3, reveal_keys=seen)
    list(carry(whole, *sides(reveal)))
    undisturbed = {scalar: set(inputs) for scalar, inputs in calls.met.items()}
    calls.met.clear()
    world = make(tmp_path / "killed", reveal, unsafe_seed=3, reveal_keys=seen)
    learner, handle = sides(reveal)[0], world.handle
    deaths, finished = 0, set[tuple[bytes, bytes]]()

    def handle_dying(name: str, question: SealedMessage) -> SealedMessage:
        nonlocal deaths, finished
        done = set[tuple[bytes, bytes]]()
        for renaming in itertools.count():
            found = found_files(world, name)
            calls.now.clear()
            answer = None
            with monkeypatch.context() as patch:
                die_before(patch, renaming)
                try:
                    answer = handle(name, question)
                except Killed:
                    deaths += 1
            assert finished.isdisjoint(calls.now)
            done |= set(calls.now)
            if name == learner and found_files(world, name) != found:
                finished |= set(calls.now[:1])  # the comparison, before the next bucket
            if answer is not None:
                finished |= done
                calls.now.clear()
                assert handle(name, question) == answer
                assert calls.now == []
                return answer
        raise AssertionError

    world.handle = handle_dying  # type: ignore[method-assign]
    steps = list(carry(world, *sides(reveal)))
    assert deaths > 35
    assert kinds(world, [step.answer for step in steps])[-1] == "match.done"
    for name in sides(reveal):
        assert results(world, name) == results(whole, name) != {}
    assert calls.met == undisturbed
    assert finished == calls.all
    assert len(finished) == 4 * small_buckets  # at each side its own points, and the peer's
    by_record = reveal is BOTH and not seen
    assert len(calls.met) == (2 if by_record else 2 * small_buckets)
    ends = {name: verify_party(world.folder(name).path) for name in sides(reveal)}
    assert len(ends) == 2


def found_files(world: World, party: str) -> set[str]:
    return {path for path in files(world, party) if "/found" in path}


def results(world: World, party: str) -> dict[str, bytes]:
    held = files(world, party)
    return {path: held[path] for path in held if path.endswith(("members.npz", "size"))}


@BOTH_WAYS
def test_no_scalar_meets_two_sets_though_data_change_between_crashes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    calls: Calls,
    small_buckets: int,
    seen: bool,
) -> None:
    """Every crash finds another table; the set is the one that was first kept whole."""
    world = make(tmp_path, BOTH, unsafe_seed=3, maximum_change=1.0, reveal_keys=seen)
    handle, changes = world.handle, itertools.count()

    def handle_changed(name: str, question: SealedMessage) -> SealedMessage:
        for renaming in itertools.count():
            rows = table(name)
            rows.drop(index=next(changes) % 5).to_csv(world.table(name), index=False)
            with monkeypatch.context() as patch:
                die_before(patch, renaming)
                try:
                    return handle(name, question)
                except Killed:
                    pass
        raise AssertionError

    world.handle = handle_changed  # type: ignore[method-assign]
    *_, last = carry(world, "retailer", "brand")
    assert world.read(last.answer).body == MatchDone()
    scalars = 2 * small_buckets if seen else 2
    assert len(calls.met) == scalars
    assert {len(inputs) for inputs in calls.met.values()} == {4 * small_buckets // scalars}
    assert people(world, "retailer", "members.npz") == people(
        world, "brand", "with-retailer/members.npz"
    )


@pytest.mark.parametrize("reveal", [PARTNER_LEARNS, BRAND_LEARNS])
@pytest.mark.parametrize("party", ["learner", "peer"])
def test_a_job_whose_set_was_made_anew_is_refused(
    world: Worlds, calls: Calls, reveal: Reveal, party: str
) -> None:
    """Its commitment stands in the other's log, and no scalar may meet the new one."""
    one = world(reveal)
    accept = upto(one, reveal, "match.accept")
    learner, peer = sides(reveal)
    name = {"learner": learner, "peer": peer}[party]
    blinded = one.handle(learner, accept.answer)
    shutil.rmtree(one.folder(name).job("find") / "set")
    question = {"learner": accept.answer, "peer": blinded}[party]
    if party == "learner":
        question = one.handle(peer, blinded)
    refused(one, name, question, "message")
    table(name).iloc[1:].to_csv(one.table(name), index=False)
    if party == "learner":
        again = say(one, "coordinator", learner, MatchRequest(spec=MATCH, peer=peer))
        assert one.handle(name, again)  # repeated as it was
    else:
        offer = one.read(accept.question)
        again = say(one, learner, peer, offer.body, answers=offer.header.answers)  # type: ignore[arg-type]
        refused(one, name, again, "message", keeps=False)
    own = one.folder(name).job("find") / "set"
    if MatchingSet.open(own) is None:  # as a second pair's match makes it
        shutil.copytree(
            one.folder({"retailer": "brand", "brand": "retailer"}[name]).job("find") / "set", own
        )
    before = {scalar: set(inputs) for scalar, inputs in calls.met.items()}
    refused(one, name, question, "message")
    assert calls.met == before


def test_a_full_disk_is_told_and_the_job_goes_on_when_there_is_room(
    world: Worlds, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = world(PARTNER_LEARNS)
    question = request(one, "retailer", "brand")
    with monkeypatch.context() as patch:  # /dev/full refuses every write as a full disk does
        patch.setattr(
            token_set, "_append", lambda _: os.fdopen(os.open("/dev/full", os.O_WRONLY), "ab")
        )
        refused(one, "retailer", question, "computation", keeps=False)
    assert "No space left on device" in caplog.text
    assert MatchingSet.open(one.folder("retailer").job("find") / "set") is None
    *_, last = carry(one, "retailer", "brand")
    assert one.read(last.answer).body == MatchDone()
    assert sorted(people(one, "retailer", "members.npz")) == SHARED["retailer"]
    (kind,) = [one for one in one.leaves("retailer") if isinstance(one, records.Refusal)]
    assert kind.term == "computation"


def die_removing(patch: pytest.MonkeyPatch, removal: int) -> None:
    """Die before the given removal of a file that a pair's match needed."""
    real, done = os.unlink, 0

    def unlink(path: Any, **named: Any) -> None:
        nonlocal done
        if "with-" in os.fspath(path) or "dir_fd" in named:
            if done == removal:
                raise Killed
            done += 1
        real(path, **named)

    patch.setattr(os, "unlink", unlink)


@pytest.mark.parametrize(
    ("reveal", "seen", "removal"),
    [(BOTH, HIDDEN, 0), (BOTH, HIDDEN, 2), (PARTNER_LEARNS, SEEN, 0)],
)
def test_what_a_match_needed_is_gone_at_the_next_message_after_a_crash_at_its_end(
    world: Worlds, monkeypatch: pytest.MonkeyPatch, reveal: Reveal, seen: bool, removal: int
) -> None:
    """Whatever that message is: here one that is refused."""
    one, party = world(reveal, seen), "retailer"
    question = request(one, "retailer", "brand")
    while party != "coordinator":
        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            die_removing(patch, removal)
            one.handle(party, question)
        question = one.handle(party, question)
        party = unseal(question, one.agreement).header.recipient
    for name, other in (("retailer", "brand"), ("brand", "retailer")):
        refused(one, name, request(one, name, name), "match.reveal", keeps=False)
        held = {Path(path).name for path in files(one, name) if path.startswith("with-")}
        learns = {"members.npz"} if name == "brand" and reveal is BOTH else set()
        assert held == {"state.json", "commitment"} | learns
        assert not (one.folder(name).job("find") / f"with-{other}" / "records").exists()
    assert sorted(people(one, "retailer", "members.npz")) == SHARED["retailer"]


def test_a_secret_stays_while_its_match_is_not_over(world: Worlds) -> None:
    """Its last message broke the protocol, and may be mended."""
    one = world(PARTNER_LEARNS)
    reply = one.read(upto(one, PARTNER_LEARNS, "match.reply").answer)
    short = say(one, "brand", "retailer", reply.body, b"", reply.header.answers)  # type: ignore[arg-type]
    for _ in range(2):
        refused(one, "retailer", short, "message")
    assert "with-brand/secret" in files(one, "retailer")


DAMAGED = {
    "with-brand/state.json": (b"", b"\xff", b'{"own": 1}'),
    "with-brand/secret": (b"", b"short"),
    "people/people.json": (b"", b"{}"),
    "set/set.json": (b"", b"{}"),
    "set/tokens.bin": (b"", b"x"),
}
DAMAGED_LATE = {  # read when the last bucket is done
    HIDDEN: {
        "with-brand/records/records.json": (b"", b"{}"),
        "with-brand/records/rows.bin": (b"", b"x"),
        "with-brand/found-00000.bin": (b"", b"x" * 5000),
    },
    SEEN: {"with-brand/found-00000.npz": (b"", b"PK\x03\x04")},
}


@BOTH_WAYS
def test_a_damaged_file_is_refused_and_a_mended_one_taken(
    world: Worlds, small_buckets: int, seen: bool
) -> None:
    one = world(PARTNER_LEARNS, seen)
    for step in carry(one, "retailer", "brand"):
        last = one.read(step.answer).body
        if isinstance(last, MatchReply) and last.bucket == small_buckets - 1:
            break
    for file, contents in (DAMAGED | DAMAGED_LATE[seen]).items():
        path = one.folder("retailer").job("find") / file
        good = path.read_bytes()
        for content in contents:
            path.write_bytes(content)
            refused(one, "retailer", step.answer, "computation", keeps=file in DAMAGED)
        path.write_bytes(good)
    assert one.ask("retailer", step.answer).body == MatchDone()
    assert sorted(people(one, "retailer", "members.npz")) == SHARED["retailer"]
