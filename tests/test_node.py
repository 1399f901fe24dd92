"""A party's node: what it answers, what it refuses, and what it never lets out."""

import base64
import hashlib
import json
import logging
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import count, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from parties import (
    EXPAND,
    MATCH,
    NOW,
    PEOPLE,
    ROLES,
    TRAIN,
    World,
    email,
    phone,
    record,
    table,
)

from compliance import records
from compliance.agreement import SignedAgreement
from compliance.errors import AlteredAgreementError, UnsignedAgreementError
from federation.errors import RefusedError, WorkspaceError
from federation.messages import (
    PADDING_CHUNK_BYTES,
    Acknowledged,
    Body,
    Encrypted,
    ExpandDone,
    ExpandRequest,
    Identify,
    MatchAccept,
    MatchBlinded,
    MatchDone,
    MatchOffer,
    MatchOutcome,
    MatchReply,
    MatchRequest,
    MatchSide,
    Message,
    ModelPublished,
    Present,
    Refused,
    SealedMessage,
    TrainRequest,
    TrainUpdate,
    unseal,
    weights_to_bytes,
)
from federation.node import TERM_OF
from federation.progress import Progress, listening
from federation.specification import ExpandSpec, MatchSpec, TrainSpec
from privacy.accounting import ChargeState
from privacy.encryption import SEAL_BYTES
from privacy.psi.blinding import TAG_BYTES

ZEROS = weights_to_bytes(np.zeros(4))
SIDE = MatchSide(recipe="0" * 64, points=10, commitment="1" * 64)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def ended(made: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world in which every job has been run; `wire` holds every question and answer."""
    world = made.copy(tmp_path_factory.mktemp("ended") / "copy")
    world.run()
    return world


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    return made.copy(tmp_path / "copy")


@pytest.fixture
def later(ended: World, tmp_path: Path) -> World:
    """A copy of the world in which every job has been run."""
    return ended.copy(tmp_path / "copy")


def say(
    world: World,
    body: Body,
    payload: bytes = b"",
    *,
    to: str = "retailer",
    sender: str = "coordinator",
    job: str | None = None,
    answers: str | None = None,
) -> SealedMessage:
    """Seal what somebody might say to a party."""
    spec = getattr(body, "spec", None)
    name = job or (spec.name if spec else "find")
    return world.parties.seal(sender, to, name, body, payload, answers=answers)


def train_request(spec: TrainSpec = TRAIN, number: int = 1) -> TrainRequest:
    return TrainRequest(spec=spec, round=number, width=4)


def expect_refusal(world: World, term: str, message: SealedMessage, party: str = "retailer") -> Any:
    """Expect a refusal by that term, in a leaf and an answer, and that nothing was charged."""
    before, charges = world.leaves(party) if logged(world, party) else (), charges_of(world, party)
    kept = world.outbox(party)
    answer = world.ask(party, message)
    assert isinstance(answer.body, Refused)
    assert answer.body.term == term
    assert answer.header.answers == message.digest
    leaf = world.leaves(party)[-1]
    assert isinstance(leaf, records.Refusal)
    assert (leaf.term, leaf.job) == (term, answer.header.job)
    new = [one.kind for one in world.leaves(party)[len(before) :]]
    assert new in (["refusal"], ["agreement.signed", "refusal"])
    assert charges_of(world, party) == charges
    assert world.outbox(party) == kept
    return answer


def logged(world: World, party: str) -> bool:
    return world.folder(party).log.is_dir()


def charges_of(world: World, party: str) -> list[tuple[str, ChargeState]]:
    if not world.folder(party).ledger.exists():
        return []
    return [(charge.charge_id, charge.state) for charge in world.statement(party).charges]


def match(
    world: World, partner: str = "retailer", spec: MatchSpec = MATCH, *, until: str = ""
) -> list[SealedMessage]:
    """Carry a match between a partner and the brand; return every message, the last one's answer.

    It ends with a word to the coordinator, a refusal, or the first word of the kind `until`.
    """
    words, party = [say(world, MatchRequest(spec=spec, peer="brand"), to=partner)], partner
    while True:
        words.append(world.handle(party, words[-1]))
        header = unseal(words[-1], world.agreement).header
        if header.kind in {until, "refused"} or header.recipient == "coordinator":
            return words
        party = header.recipient


def resaid(world: World, sealed: SealedMessage, **changes: Any) -> SealedMessage:
    """What a message says, said anew with some of it changed, by whoever says it."""
    words = world.read(sealed)
    header = words.header
    fields: dict[str, Any] = {
        "sender": header.sender,
        "to": header.recipient,
        "job": header.job,
        "answers": header.answers,
        "body": words.body,
        "payload": words.payload,
    } | changes
    return say(world, fields.pop("body"), fields.pop("payload"), **fields)


# --- what may not be asked -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "bytes_", [(b"", b""), (b"{}", b""), (b"\xff" * 100, b"x"), (b"[" * 70_000, b"")]
)
def test_bytes_that_are_no_message_are_refused(world: World, bytes_: tuple[bytes, bytes]) -> None:
    answer = expect_refusal(world, "message", SealedMessage(*bytes_))
    assert answer.header.recipient == "coordinator"


def test_a_message_under_another_agreement_is_refused(world: World, tmp_path: Path) -> None:
    other = World.make(tmp_path / "other")
    expect_refusal(world, "message", say(other, Identify()))


def test_a_message_for_another_party_is_refused(world: World) -> None:
    request = MatchRequest(spec=MATCH, peer="brand")
    expect_refusal(world, "message", say(world, request, to="courier"))


def test_a_message_altered_on_its_way_is_refused(world: World) -> None:
    sealed = say(world, train_request(), ZEROS)
    expect_refusal(world, "message", replace(sealed, payload=ZEROS[::-1] + b"x"))


@pytest.mark.parametrize(
    "body",
    [
        Present(),
        MatchDone(),
        TrainUpdate(round=1, width=4),
        ExpandDone(),
        Acknowledged(),
        Refused(term="message", remedy="try again"),
    ],
    ids=lambda body: body.kind,
)
def test_an_answer_without_a_question_is_refused(later: World, body: Body) -> None:
    expect_refusal(later, "message", say(later, body, ZEROS, answers="0" * 64))


@pytest.mark.parametrize("sender", ["brand", "courier", "retailer"])
@pytest.mark.parametrize(
    "body",
    [
        MatchRequest(spec=MATCH, peer="brand"),
        train_request(),
        ModelPublished(spec=TRAIN),
        ExpandRequest(spec=EXPAND),
        MatchOffer(spec=MATCH, side=SIDE),
        MatchAccept(spec=MATCH, side=SIDE),
        MatchBlinded(spec=MATCH, bucket=0),
        MatchReply(spec=MATCH, bucket=0),
        MatchOutcome(spec=MATCH, size=7),
    ],
    ids=lambda body: body.kind,
)
def test_a_question_of_somebody_who_may_not_ask_it_changes_nothing(
    later: World, body: Body, sender: str
) -> None:
    model = later.folder("retailer").model("model")
    payload = model.read_bytes() if isinstance(body, ModelPublished) else ZEROS
    members, before = later.members("retailer"), model.read_bytes()
    turned_round = isinstance(body, MatchOffer | MatchBlinded | MatchOutcome) and sender == "brand"
    term = "match.reveal" if turned_round else "message"  # the brand is not to learn
    expect_refusal(later, term, say(later, body, payload, sender=sender))
    assert model.read_bytes() == before
    assert (later.members("retailer") == members).all()


@pytest.mark.parametrize("kind", ["match.accept", "match.reply"])
@pytest.mark.parametrize("sender", ["courier", "coordinator", "retailer"])
def test_only_the_brand_answers_a_match(world: World, sender: str, kind: str) -> None:
    match(world, "courier")
    right = match(world, until=kind)[-1]
    expect_refusal(world, "message", resaid(world, right, sender=sender))
    assert not world.folder("retailer").members("find").exists()
    assert not isinstance(world.ask("retailer", right).body, Refused)


def test_a_match_reply_to_nothing_is_refused(world: World) -> None:
    others = match(world, "courier", until="match.reply")[-1]
    forged = partial(resaid, world, others, to="retailer")
    expect_refusal(world, "message", forged(answers="0" * 64))
    *_, offer, accept = match(world, until="match.accept")
    expect_refusal(world, "message", forged(answers=offer.digest))  # before the sets are known
    blinded = world.handle("retailer", accept)
    expect_refusal(world, "message", forged(answers="0" * 64))
    expect_refusal(world, "message", forged(answers=None))
    expect_refusal(world, "match.minimum_match", forged(answers=blinded.digest))  # for another's
    assert not world.folder("retailer").members("find").exists()


def test_who_learns_is_not_turned_round(world: World) -> None:
    """By its own part of the learner's the brand would learn who of its people the other has."""
    *_, offer, _, blinded = match(world, until="match.blinded")
    points = world.read(blinded).payload
    for answers in (offer.digest, blinded.digest):
        asked = say(
            world, MatchBlinded(spec=MATCH, bucket=0), points, sender="brand", answers=answers
        )
        expect_refusal(world, "match.reveal", asked)
        told = say(world, MatchOutcome(spec=MATCH, size=7), sender="brand", answers=answers)
        expect_refusal(world, "match.reveal", told)
    for name in ("retailer", "courier"):
        begun = say(world, MatchOffer(spec=MATCH, side=SIDE), sender="brand", to=name)
        expect_refusal(world, "match.reveal", begun, name)
    reply = world.handle("brand", blinded)
    assert world.ask("retailer", reply).body == MatchDone()


MOVED: dict[str, Callable[[World, SealedMessage], SealedMessage]] = {
    "to another job": lambda world, right: resaid(
        world, right, body=changed(world.read(right).body, spec=OTHER), job="other"
    ),
    "to another job, by its header": lambda world, right: resaid(world, right, job="other"),
    "to another job, by its body": lambda world, right: resaid(
        world, right, body=changed(world.read(right).body, spec=OTHER), job="find"
    ),
    "to a job of another specification": lambda world, right: resaid(
        world, right, body=changed(world.read(right).body, spec=LARGER)
    ),
    "to another answer": lambda world, right: resaid(world, right, answers="0" * 64),
    "to no answer": lambda world, right: resaid(world, right, answers=None),
}
OTHER_BUCKET: dict[str, Callable[[World, SealedMessage], SealedMessage]] = {
    "to another bucket": lambda world, right: resaid(
        world, right, body=changed(world.read(right).body, bucket=1)
    ),
}
OTHER = MATCH.model_copy(update={"name": "other"})
LARGER = MatchSpec(name="find", memory_limit="2GiB")


def changed(body: Body | Encrypted, **fields: object) -> Any:
    return body.model_copy(update=fields)


@pytest.mark.parametrize(
    ("kind", "move"),
    [
        *product(("match.accept", "match.blinded", "match.reply"), MOVED),
        *product(("match.blinded", "match.reply"), OTHER_BUCKET),
    ],
)
def test_a_word_of_a_match_counts_where_it_was_said(world: World, kind: str, move: str) -> None:
    right = match(world, until=kind)[-1]
    party = world.read(right).header.recipient
    expect_refusal(world, "message", (MOVED | OTHER_BUCKET)[move](world, right), party)
    assert not isinstance(world.ask(party, right).body, Refused)


@pytest.mark.parametrize("kind", ["match.offer", "match.accept", "match.blinded", "match.reply"])
def test_a_word_of_a_match_under_another_agreement_is_refused(
    world: World, tmp_path: Path, kind: str
) -> None:
    """Of the same parties, with the same keys."""
    right = match(world, until=kind)[-1]
    words, parties = world.read(right), world.parties
    header = words.header
    terms = world.agreement.model_copy(update={"title": "Another trial"})
    assert terms.digest != world.agreement.digest
    moved = replace(parties, agreement=terms).seal(
        header.sender,
        header.recipient,
        "find",
        words.body,
        words.payload,
        answers=header.answers,
    )
    expect_refusal(world, "message", moved, header.recipient)
    assert not isinstance(world.ask(header.recipient, right).body, Refused)


def test_a_match_that_was_played_before_is_not_played_again(made: World, tmp_path: Path) -> None:
    """The same parties, job and people: only what was drawn at random differs."""
    old = match(made.copy(tmp_path / "old"))
    world = made.copy(tmp_path / "new")
    for kind in ("match.accept", "match.blinded", "match.reply"):
        match(world, until=kind)
        for replayed in old[2:-1]:  # but for the request, and the offer that opens it at the brand
            message = unseal(replayed, world.agreement)
            expect_refusal(world, "message", replayed, message.header.recipient)
    assert unseal(match(world)[-1], world.agreement).body == MatchDone()


def test_a_job_may_not_be_told_under_another_jobs_name(later: World) -> None:
    for body in (
        MatchRequest(spec=MATCH, peer="brand"),
        train_request(),
        ExpandRequest(spec=EXPAND),
    ):
        expect_refusal(later, "message", say(later, body, ZEROS, job="other"))


@pytest.mark.parametrize("peer", ["courier", "retailer", "coordinator", "stranger"])
def test_a_match_is_with_the_brand_only(world: World, peer: str) -> None:
    expect_refusal(world, "match.reveal", say(world, MatchRequest(spec=MATCH, peer=peer)))
    asked = say(world, MatchRequest(spec=MATCH, peer="retailer"), to="brand")
    expect_refusal(world, "match.reveal", asked, "brand")


# --- what may not be asked yet, or any more ---------------------------------------------------


def test_training_before_the_match_is_refused(world: World) -> None:
    expect_refusal(world, "train.match", say(world, train_request(), ZEROS))


def test_expanding_before_training_is_refused(world: World) -> None:
    match(world)
    expect_refusal(world, "expand.train", say(world, ExpandRequest(spec=EXPAND)))
    assert not world.folder("retailer").segment("best").exists()


def test_a_job_beyond_the_contract_is_refused_by_its_term(later: World) -> None:
    asked: dict[str, tuple[Body, bytes]] = {
        "train.epsilon": (train_request(TRAIN.model_copy(update={"epsilon": 1.1})), ZEROS),
        "train.delta": (train_request(TRAIN.model_copy(update={"delta": 1e-3})), ZEROS),
        "train.max_steps": (train_request(TRAIN.model_copy(update={"steps": 200})), ZEROS),
        "expand.maximum_share": (
            ExpandRequest(spec=EXPAND.model_copy(update={"share": 0.9})),
            b"",
        ),
    }
    for term, (body, payload) in asked.items():
        expect_refusal(later, term, say(later, body, payload))


def test_a_training_round_that_does_not_fit_is_refused(later: World) -> None:
    small = TRAIN.model_copy(update={"name": "other", "epsilon": 0.1})
    for number, width, payload in [(3, 4, ZEROS), (1, 5, bytes(40)), (1, 4, ZEROS[:-1])]:
        body = TrainRequest(spec=small, round=number, width=width)
        expect_refusal(later, "message", say(later, body, payload))


def test_the_same_round_from_other_weights_is_refused(later: World) -> None:
    """Else the coordinator could average the noise away, and pay once."""
    for number in (1, 2):
        other = say(later, train_request(number=number), weights_to_bytes(np.ones(4)))
        expect_refusal(later, "budget.epsilon", other)


def test_a_second_training_beyond_the_budget_is_refused_before_it_is_computed(
    later: World,
) -> None:
    told: list[Progress] = []
    again = train_request(TRAIN.model_copy(update={"name": "again", "rounds": 1}))
    with listening(told.append):
        answer = expect_refusal(later, "budget.epsilon", say(later, again, ZEROS))
    assert "1.2" in answer.body.remedy
    assert not [one for one in told if one.stage.startswith("trains")]


def test_a_training_whose_last_round_would_not_fit_is_not_begun(later: World) -> None:
    """Three rounds of it would fit, and would be wasted."""
    longer = TRAIN.model_copy(update={"name": "longer", "rounds": 4, "epsilon": 0.7})
    expect_refusal(later, "budget.epsilon", say(later, train_request(longer), ZEROS))


@pytest.mark.parametrize(
    "moment", [datetime(2025, 12, 31, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)]
)
def test_nothing_new_leaves_outside_the_agreements_time(later: World, moment: datetime) -> None:
    later.now = moment
    other = MATCH.model_copy(update={"name": "late"})
    questions: list[tuple[Body, bytes]] = [
        (MatchRequest(spec=other, peer="brand"), b""),
        (ExpandRequest(spec=EXPAND.model_copy(update={"name": "late"})), b""),
        (Identify(), b""),
    ]
    for body, payload in questions:
        expect_refusal(later, "valid_until", say(later, body, payload, job="late"))
    assert not later.folder("retailer").segment("late").exists()


# --- what the party's own data refuses -------------------------------------------------------


def test_a_job_does_not_change_under_its_name(later: World) -> None:
    """Once anything was answered in it; until then it may be mended."""
    changed = TRAIN.model_copy(update={"learning_rate": 1.0})
    expect_refusal(later, "message", say(later, train_request(changed), ZEROS))
    wide = ExpandSpec(name="late", train="model", share=0.6)
    expect_refusal(later, "expand.maximum_share", say(later, ExpandRequest(spec=wide)))
    mended = ExpandRequest(spec=wide.model_copy(update={"share": 0.2}))
    assert isinstance(later.ask("retailer", say(later, mended)).body, ExpandDone)
    other = ExpandRequest(spec=wide.model_copy(update={"share": 0.1}))
    expect_refusal(later, "message", say(later, other))


def test_a_match_below_the_minimum_leaves_nothing_behind(tmp_path: Path) -> None:
    world = World.make(tmp_path, match={"minimum_match": 21})  # 20 of the retailer's are known
    *_, reply, done = match(world)
    answer = unseal(done, world.agreement)
    assert answer.body.term == "match.minimum_match"
    assert "20" not in answer.body.remedy
    assert answer.header.recipient == "brand"
    assert not world.folder("retailer").members("find").exists()
    assert isinstance(world.leaves("retailer")[-1], records.Refusal)
    expect_refusal(world, "match.minimum_match", reply)
    assert not world.folder("retailer").members("find").exists()
    expect_refusal(world, "train.match", say(world, train_request(), ZEROS))


def test_a_match_at_the_minimum_passes(tmp_path: Path) -> None:
    world = World.make(tmp_path, match={"minimum_match": 20})
    done = unseal(match(world)[-1], world.agreement)
    assert done.body == MatchDone()
    assert done.header.recipient == "coordinator"
    assert len(world.members("retailer")) == 20


def test_a_segment_below_the_minimum_leaves_nothing_behind(tmp_path: Path) -> None:
    world = World.make(tmp_path, expand={"minimum_segment": 25})
    with pytest.raises(RefusedError, match="minimum_segment"):
        world.run()
    small = ExpandRequest(spec=ExpandSpec(name="small", train="model", share=0.03))
    expect_refusal(world, "expand.minimum_segment", say(world, small))
    assert not list((world.folder("retailer").path / "segments").glob("*"))


def test_trying_shares_tells_nothing_about_the_number_of_people(later: World) -> None:
    for number, share in enumerate((0.5, 0.1, 0.01, 0.0001)):
        spec = ExpandSpec(name=f"try-{number}", train="model", share=share)
        answer = later.ask("retailer", say(later, ExpandRequest(spec=spec)))
        assert isinstance(answer.body, ExpandDone)
    smallest = later.folder("retailer").segment("try-3").read_text().splitlines()
    assert len(smallest) - 1 == later.agreement.expand.minimum_segment


def test_a_finished_result_stays_whatever_is_asked_again(later: World) -> None:
    folder = later.folder("retailer")
    results = [folder.segment("best"), folder.members("find"), folder.model("model")]
    before = [path.read_bytes() for path in results]
    later.withdraw("retailer", range(30))
    forged = "0" * 64
    expect_refusal(later, "message", say(later, ExpandRequest(spec=EXPAND), answers=forged))
    expect_refusal(
        later, "message", say(later, MatchRequest(spec=MATCH, peer="brand"), answers=forged)
    )
    other = json.loads(before[2])
    other["body"]["weights"][0] += 1.0
    announced = say(later, ModelPublished(spec=TRAIN), json.dumps(other).encode())
    expect_refusal(later, "message", announced)
    assert [path.read_bytes() for path in results] == before


def test_a_second_reply_to_one_question_is_refused(tmp_path: Path) -> None:
    world = World.make(tmp_path, match={"minimum_match": 21})  # 20 of the retailer's are known
    *_, reply, refused = match(world)
    assert unseal(refused, world.agreement).body.term == "match.minimum_match"
    expect_refusal(world, "match.minimum_match", reply)
    second = resaid(world, reply)
    assert second.digest != reply.digest
    expect_refusal(world, "match.minimum_match", second)  # nothing is left to compare it with


def test_a_second_question_about_other_people_is_refused(world: World) -> None:
    """Else a learner could try set after set, or a peer give set after set."""
    _, offer, accept, blinded, reply, done = match(world)
    for right, party in ((offer, "brand"), (accept, "retailer")):
        side = world.read(right).body.side
        for other in ({"commitment": "0" * 64}, {"points": side.points - 10}):
            body = changed(world.read(right).body, side=side.model_copy(update=other))
            expect_refusal(world, "message", resaid(world, right, body=body), party)
    points = world.read(blinded).payload
    turned = points[32:] + points[:32]
    expect_refusal(world, "message", resaid(world, blinded, payload=turned), "brand")
    for question, party, answer in ((offer, "brand", accept), (blinded, "brand", reply)):
        assert world.handle(party, question) == answer
    assert world.handle("retailer", reply) == done


@pytest.mark.parametrize("kind", ["match.blinded", "match.accept"])
def test_a_second_word_before_the_match_has_ended_is_refused(world: World, kind: str) -> None:
    """While the secret of the match is still there."""
    *_, accept, blinded = match(world, until="match.blinded")
    if kind == "match.accept":
        side = world.read(accept).body.side
        other = side.model_copy(update={"commitment": "0" * 64})
        body = changed(world.read(accept).body, side=other)
        expect_refusal(world, "message", resaid(world, accept, body=body))
    reply = world.handle("brand", blinded)
    points = world.read(blinded).payload
    turned = points[32:] + points[:32]
    expect_refusal(world, "message", resaid(world, blinded, payload=turned), "brand")
    assert world.ask("retailer", reply).body == MatchDone()


def test_a_lost_ledger_or_log_is_not_made_anew(later: World) -> None:
    folder = later.folder("retailer")
    ledger = folder.ledger.read_bytes()
    folder.ledger.unlink()
    with pytest.raises(WorkspaceError, match="restore it"):
        later.handle("retailer", say(later, Identify()))
    folder.ledger.write_bytes(ledger)
    shutil.rmtree(folder.log)
    with pytest.raises(WorkspaceError, match="restore the log"):
        later.handle("retailer", say(later, Identify()))


def test_a_model_of_rounds_that_were_not_given_is_refused(world: World, ended: World) -> None:
    match(world)
    model = ended.folder("retailer").model("model").read_bytes()
    expect_refusal(world, "message", say(world, ModelPublished(spec=TRAIN), model))


def test_training_on_too_few_members_is_refused(later: World) -> None:
    later.withdraw("retailer", range(10, 26))  # 4 of 20 members remain
    roomy = TRAIN.model_copy(update={"name": "other", "epsilon": 0.1})
    expect_refusal(later, "match.minimum_match", say(later, train_request(roomy), ZEROS))


@pytest.mark.parametrize(
    ("kind", "party", "person"),
    [
        ("match.offer", "brand", 15),
        ("match.accept", "retailer", 15),
        ("match.blinded", "brand", 15),
        ("match.reply", "retailer", 15),
        ("match.reply", "retailer", 55),  # whom the brand does not know
    ],
)
def test_consent_withdrawn_during_a_match_stops_it(
    world: World, kind: str, party: str, person: int
) -> None:
    *_, question = match(world, until=kind)
    if kind == "match.offer":  # the brand reads its people for the first partner that asks
        match(world, "courier", until="match.accept")
    world.withdraw(party, [person])
    expect_refusal(world, "consent", question, party)
    assert not world.folder("retailer").members("find").exists()


def test_consent_withdrawn_while_training_stops_it_before_a_charge(world: World) -> None:
    match(world)
    question = say(world, train_request(), ZEROS)

    def withdraw(progress: Progress) -> None:
        if progress.stage == "trains":
            world.withdraw("retailer", [15])

    with listening(withdraw):
        expect_refusal(world, "consent", question)
    assert charges_of(world, "retailer") == []
    assert isinstance(world.ask("retailer", question).body, TrainUpdate)  # without 15
    used = [leaf for leaf in world.leaves("retailer") if isinstance(leaf, records.ConsentUsed)][-1]
    assert (used.eligible, used.excluded) == (49, {"withdrawn": 1})


def test_who_withdraws_after_a_match_is_neither_trained_on_nor_chosen(later: World) -> None:
    segment = pd.read_csv(later.folder("retailer").segment("best"))["record"].tolist()
    gone = [person for person in PEOPLE["retailer"] if record("retailer", person) in segment[:2]]
    later.withdraw("retailer", gone)
    spec = EXPAND.model_copy(update={"name": "again"})
    assert isinstance(later.ask("retailer", say(later, ExpandRequest(spec=spec))).body, ExpandDone)
    again = pd.read_csv(later.folder("retailer").segment("again"))["record"].tolist()
    assert set(again).isdisjoint(segment[:2])
    assert again[: len(segment) - 2] == segment[2:]


BROKEN: dict[str, tuple[str, Callable[[World], object]]] = {
    "no table": ("datasets", lambda world: world.table("retailer").unlink()),
    "a column missing": (
        "datasets",
        lambda world: (
            table("retailer").drop(columns="email").to_csv(world.table("retailer"), index=False)
        ),
    ),
    "no consents": ("consent", lambda world: world.consents("retailer").unlink()),
    "a purpose nobody agreed": (
        "consent",
        lambda world: world.consents("retailer").write_text(
            "subject,purpose,event,time\nR710,credit-scoring,given,2025-01-01T00:00:00Z\n"
        ),
    ),
}


@pytest.mark.parametrize(("term", "breaks"), BROKEN.values(), ids=BROKEN)
def test_what_is_wrong_inside_is_told_inside_only(
    world: World,
    caplog: pytest.LogCaptureFixture,
    term: str,
    breaks: Callable[[World], object],
) -> None:
    breaks(world)
    question = say(world, MatchRequest(spec=MATCH, peer="brand"))
    with caplog.at_level(logging.ERROR):
        answer = expect_refusal(world, term, question)
    assert "own console" in answer.body.remedy
    assert "retailer" in caplog.text
    table("retailer").to_csv(world.table("retailer"), index=False)
    world.withdraw("retailer", [])
    assert isinstance(world.ask("retailer", question).body, MatchOffer)  # heard anew once mended


DAMAGES = {
    "people/people.json": (b"", b"\x00\xff", b"{}"),
    "set/set.json": (b"", b"\x00\xff", b'{"tokens": 1}'),
    "set/tokens.bin": (b"", b"\x00\xff"),
    "with-brand/state.json": (b"", b"\x00\xff", b'{"stage": "matched", "tokens": 1}'),
    "with-brand/secret": (b"", b"short"),
}


@pytest.mark.parametrize("file", DAMAGES)
def test_a_damaged_state_is_refused(world: World, file: str) -> None:
    *_, reply = match(world, until="match.reply")
    path = world.folder("retailer").job("find") / file
    right = path.read_bytes()
    for content in DAMAGES[file]:
        path.write_bytes(content)
        expect_refusal(world, "computation", reply)
    assert not world.folder("retailer").members("find").exists()
    path.write_bytes(right)
    assert world.ask("retailer", reply).body == MatchDone()


def test_damaged_results_of_earlier_jobs_are_refused(later: World) -> None:
    folder = later.folder("retailer")
    spec = EXPAND.model_copy(update={"name": "again"})
    question = say(later, ExpandRequest(spec=spec))
    for path in (folder.members("find"), folder.model("model")):
        right = path.read_bytes()
        for content in (b"", right[:-10], b"\x00\xff"):
            path.write_bytes(content)
            expect_refusal(later, "computation", question)
        path.write_bytes(right)
    assert isinstance(later.ask("retailer", question).body, ExpandDone)


def test_every_error_of_a_step_has_a_term() -> None:
    from compliance.errors import ComplianceError, ConsentError, UnknownPurposeError
    from connectors.errors import ConnectorError
    from federation.errors import FederationError, MessageError
    from privacy.errors import LedgerError, PrivacyError

    def term(error: type[Exception]) -> str:
        return next(term for kind, term in TERM_OF.items() if issubclass(error, kind))

    assert {FederationError, PrivacyError, ConnectorError, ComplianceError} <= set(TERM_OF)
    assert term(UnknownPurposeError) == term(ConsentError) == "consent"
    assert (term(MessageError), term(LedgerError)) == ("message", "computation")


# --- the agreement -----------------------------------------------------------------------------


def test_a_node_without_an_agreement_does_not_open(world: World) -> None:
    (world.folder("retailer").path / "agreement.json").unlink()
    with pytest.raises(WorkspaceError, match="agreement"):
        world.node("retailer")


def test_a_node_whose_agreement_lacks_a_signature_does_not_open(world: World) -> None:
    signed = SignedAgreement.draft(world.agreement)
    for name, key in world.parties.keys.items():
        if name != "courier":
            signed = signed.sign(name, key)
    (world.folder("retailer").path / "agreement.json").write_bytes(signed.to_json())
    with pytest.raises(UnsignedAgreementError, match="courier"):
        world.node("retailer")


def test_a_node_whose_agreement_was_altered_does_not_open(world: World) -> None:
    path = world.folder("retailer").path / "agreement.json"
    envelope = json.loads(path.read_bytes())
    terms = json.loads(base64.b64decode(envelope["payload"]))
    terms["match"]["minimum_match"] = 1
    canonical = json.dumps(terms, sort_keys=True, separators=(",", ":")).encode()
    envelope["payload"] = base64.b64encode(canonical).decode()
    path.write_text(json.dumps(envelope))
    with pytest.raises(AlteredAgreementError):
        world.node("retailer")


# --- once, and the same again ------------------------------------------------------------------


def pairs(world: World) -> Iterator[tuple[str, SealedMessage, SealedMessage]]:
    """Yield (party, question, answer) of everything that went over the wire."""
    for question, answer in zip(world.wire[::2], world.wire[1::2], strict=True):
        yield unseal(answer, world.agreement).header.sender, question, answer


def test_a_repeated_question_gets_the_same_bytes_and_no_new_leaf_or_charge(
    ended: World, tmp_path: Path
) -> None:
    world = ended.copy(tmp_path / "copy")
    before = {name: (len(world.leaves(name)), charges_of(world, name)) for name in PEOPLE}
    asked = 0
    for party, question, answer in pairs(ended):
        assert world.handle(party, question) == answer
        asked += 1
    # The last two: who has somebody to erase, and every log is shown to the others.
    assert asked == 3 + 10 + 4 + 3 + 2 + 3 + 9
    assert before == {name: (len(world.leaves(name)), charges_of(world, name)) for name in PEOPLE}
    world.now = datetime(2030, 1, 1, tzinfo=UTC)  # what has left, has left
    for party, question, answer in pairs(ended):
        assert world.handle(party, question) == answer


def test_a_question_asked_twice_at_once_is_answered_once(world: World) -> None:
    match(world)
    question = say(world, train_request(), ZEROS)
    with ThreadPoolExecutor(4) as pool:
        answers = set(pool.map(lambda _: world.handle("retailer", question), range(4)))
    assert len(answers) == 1
    assert [state for _, state in charges_of(world, "retailer")] == [ChargeState.COMMITTED]


def test_a_refused_question_is_heard_anew(world: World) -> None:
    question = say(world, train_request(), ZEROS)
    expect_refusal(world, "train.match", question)
    match(world)
    assert isinstance(world.ask("retailer", question).body, TrainUpdate)


def test_secrets_end_with_their_match(later: World) -> None:
    for name in PEOPLE:
        assert list(later.folder(name).path.glob("jobs/find/with-*"))
        assert not list(later.folder(name).path.rglob("jobs/**/secret"))


def killed(world: World, party: str, question: SealedMessage, after: int) -> bool:
    """Have a question handled by a process killed before its n-th renaming of a file."""
    child = os.fork()
    if child == 0:
        try:
            countdown, rename = count(after, -1), Path.replace

            def replace_or_die(self: Path, target: Path) -> Path:
                if next(countdown) == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return rename(self, target)

            Path.replace = replace_or_die  # type: ignore[method-assign, assignment]
            world.handle(party, question)
            os._exit(0)
        except BaseException:  # noqa: BLE001 -- nothing may run on in the child
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the node raised"
    return os.WIFSIGNALED(status)


def results(world: World) -> dict[str, bytes]:
    """What a match, a training and an expansion leave at the retailer."""
    folder = world.folder("retailer")
    paths = (folder.members("find"), folder.model("model"), folder.segment("best"))
    return {path.name: path.read_bytes() for path in paths if path.exists()}


def test_killed_at_any_renaming_a_node_goes_on_where_it_was(tmp_path: Path, thorough: bool) -> None:
    """The retailer's part of every job, each message killed at every point, then asked again."""
    fresh = World.make(tmp_path / "fresh", unsafe_seed=3)
    whole = fresh.copy(tmp_path / "whole")
    whole.run()
    clean = fresh.copy(tmp_path / "clean")
    kills = []

    def handle(party: str, question: SealedMessage) -> SealedMessage:
        before = clean.copy(tmp_path / question.digest) if party == "retailer" else clean
        answer = World.handle(clean, party, question)
        if clean.read(question).header.kind.startswith("witness."):
            return answer  # about heads of logs, which tell of kills
        steps = count() if thorough else count(len(kills) % 6, 6)
        for after in steps if party == "retailer" else ():
            world = before.copy(tmp_path / f"{question.digest}.{after}")
            ended = not killed(world, party, question, after)
            again = world.handle(party, question)
            assert said(world, again) == said(clean, answer)
            assert world.handle(party, question) == again
            world.leaves(party)  # holds
            assert results(world) == results(clean)
            assert charges_of(world, party) == charges_of(clean, party)
            if ended:
                break
            kills.append(after)
        return answer

    clean.handle = handle  # type: ignore[method-assign]
    clean.run()
    assert len(kills) > (30 if thorough else 5)
    assert results(clean) == results(whole)


def said(world: World, sealed: SealedMessage) -> tuple[Body, bytes]:
    """What a message says to its recipient, whatever bytes it was encrypted to."""
    message = world.read(sealed)
    return message.body, message.payload


# --- what is learnt, and what is never told ------------------------------------------------------


def test_a_match_is_the_plain_intersection(ended: World) -> None:
    seeds = set(PEOPLE["brand"])
    for party in ("retailer", "courier"):
        expected = [record(party, person) for person in PEOPLE[party] if person in seeds]
        assert sorted(ended.members(party)) == expected


def test_a_segment_holds_no_seeds_and_nobody_twice(ended: World) -> None:
    for party in ("retailer", "courier"):
        segment = pd.read_csv(ended.folder(party).segment("best"))["record"].tolist()
        assert len(segment) == len(set(segment)) == 10  # a fifth of 50
        assert set(segment).isdisjoint(ended.members(party))


def telling(party: str) -> set[bytes]:
    """Every spelling of an identifier that must not be told, and every hash of one."""
    values: set[str] = set()
    for person in PEOPLE[party]:
        values |= {email(person), email(person).upper(), phone(person), phone(person)[1:]}
        values.add(record(party, person))
    found = {value.encode() for value in values}
    for value in values:
        digest = hashlib.sha256(value.encode()).digest()
        for text in (digest.hex(), digest.hex().upper(), base64.b64encode(digest).decode()):
            found.add(text.encode().rstrip(b"="))
        found |= {digest, base64.urlsafe_b64encode(digest).rstrip(b"=")}
    return found


def unwrapped(content: bytes) -> bytes:
    """The file, and what its DSSE envelope holds, if it is one."""
    if not content.startswith(b'{"payload"'):
        return content
    return content + base64.b64decode(json.loads(content)["payload"])


def test_no_identifier_or_hash_of_one_is_told_anywhere(
    made: World, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    world = made.copy(tmp_path / "copy")
    world.withdraw("courier", [66])
    told: list[Progress] = []
    with caplog.at_level(logging.DEBUG), listening(told.append):
        world.run()
        world.handle("courier", SealedMessage(b"{}", b""))  # a refusal too
    with caplog.at_level(logging.DEBUG):
        world.handle("retailer", say(world, MatchRequest(spec=MATCH, peer="courier")))
    output = capfd.readouterr()
    assert told
    assert caplog.text
    places: dict[str, bytes] = {
        "progress": repr(told).encode(),
        "log output": caplog.text.encode(),
        "console": (output.out + output.err).encode(),
    }
    for index, message in enumerate(world.wire):
        places[f"envelope {index}"] = unwrapped(message.envelope)
        places[f"payload {index}"] = message.payload
    own = {"data", "segments", "keys", "jobs"}  # a party's tables and what it learns for itself
    for name in ROLES:
        root = world.folder(name).path
        for path in sorted(root.rglob("*")):
            where = path.relative_to(root)
            if path.is_file() and (where.parts[0] not in own):
                places[f"{name}/{where}"] = unwrapped(path.read_bytes())
    coordinator = world.folder("coordinator").path
    places |= {
        str(path): path.read_bytes() for path in coordinator.rglob("jobs/**/*") if path.is_file()
    }
    forbidden = set().union(*(telling(party) for party in PEOPLE))
    assert [
        where for where, content in places.items() if any(one in content for one in forbidden)
    ] == []
    logs = [where for where in places if "/log/tile/entries/" in where]
    assert {where.split("/")[0] for where in logs} == set(ROLES)
    assert any("outbox" in where for where in places)


def test_the_search_for_identifiers_would_find_one(ended: World) -> None:
    forbidden = telling("retailer")
    data = ended.table("retailer").read_bytes()
    hashed = hashlib.sha256(email(12).encode()).hexdigest().encode()
    for place in (data, b"..." + hashed, hashlib.sha256(phone(11).encode()).digest()):
        assert any(one in place for one in forbidden)


def sides(world: World) -> dict[tuple[str, str], MatchSide]:
    """What each party said of itself to each other, of a finished world."""
    heard = [world.read(message) for message in world.wire]
    return {
        (message.header.sender, message.header.recipient): message.body.side
        for message in heard
        if isinstance(message.body, MatchOffer | MatchAccept)
    }


def test_the_parties_tell_each_other_padded_sizes_only(ended: World) -> None:
    """Nor who matched: padded sets, weights and words are all that is said."""
    bucket, said_of = ended.agreement.match.set_size_bucket, sides(ended)
    assert len(said_of) == 4
    assert all(side.points % bucket == 0 for side in said_of.values())
    heard = [ended.read(message) for message in ended.wire]
    for message in heard:
        body, way = message.body, (message.header.sender, message.header.recipient)
        fields = set(type(body).model_fields)
        match body:
            case MatchOffer() | MatchAccept():
                assert (message.payload, fields) == (b"", {"kind", "spec", "side", "link"})
                assert body.link is None
            case MatchBlinded():
                assert len(message.payload) == 32 * said_of[way].points
                assert fields == {"kind", "spec", "bucket"}
            case MatchReply():  # tags of what was asked, and own points
                asked, own = said_of[way[::-1]].points, said_of[way].points
                assert len(message.payload) == TAG_BYTES * asked + 32 * own
                assert fields == {"kind", "spec", "bucket"}
            case ExpandDone():
                assert (message.payload, body.eligible) == (b"", None)
            case MatchDone() | Present() | Acknowledged():
                assert (message.payload, fields) == (b"", {"kind"})
    kinds = {type(message.body) for message in heard}
    assert kinds >= {MatchOffer, MatchAccept, MatchBlinded, MatchReply, MatchDone, ExpandDone}
    assert MatchOutcome not in kinds


def test_the_coordinator_sees_no_point_and_no_count_of_a_match(ended: World) -> None:
    """Of what goes from party to party it reads kinds, and sizes in chunks."""
    seen = [unseal(message, ended.agreement) for message in ended.wire]
    between = {f"match.{one}" for one in ("offer", "accept", "blinded", "reply")}
    carried = [message for message in seen if message.header.kind in between]
    assert len(carried) == 4 * 4  # said by one, carried to the other, for two partners
    told: set[bytes] = set()
    for message in carried:
        header = message.header
        assert header.body == Encrypted(encrypts=header.kind)
        assert (len(message.payload) - SEAL_BYTES) % PADDING_CHUNK_BYTES == 0
        words = ended.read(message.sealed)
        assert len(message.payload) > len(words.payload) + SEAL_BYTES
        told |= set(pieces(words, sides(ended)))
    assert len(told) > 100
    view = [unwrapped(message.envelope) + message.payload for message in ended.wire]
    root = ended.folder("coordinator").path
    view += [unwrapped(path.read_bytes()) for path in root.rglob("*") if path.is_file()]
    assert not [piece for piece in told if any(piece in place for place in view)]


def pieces(message: Message, said_of: Mapping[tuple[str, str], MatchSide]) -> Iterator[bytes]:
    """Every commitment, point, tag and number of a record that a message of a match holds."""
    body, payload = message.body, message.payload
    way = (message.header.sender, message.header.recipient)
    match body:
        case MatchOffer() | MatchAccept():
            yield body.side.commitment.encode()
            yield bytes.fromhex(body.side.commitment)
            yield f'"points":{body.side.points}'.encode()
        case MatchBlinded():
            yield from cut(payload, 32)
        case MatchReply():
            tags = TAG_BYTES * said_of[way[::-1]].points
            points = tags + 32 * said_of[way].points
            yield from cut(payload[:tags], TAG_BYTES)
            yield from cut(payload[tags:points], 32)
            yield from cut(payload[points:], 8)


def cut(payload: bytes, width: int) -> Iterator[bytes]:
    return (payload[at : at + width] for at in range(0, len(payload), width))


def test_now_is_within_the_contract(made: World) -> None:
    made.agreement.check_time(NOW)
