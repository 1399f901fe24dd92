"""A party's node: what it answers, what it refuses, and what it never lets out."""

import base64
import hashlib
import json
import logging
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
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
    Acknowledged,
    Body,
    ExpandDone,
    ExpandRequest,
    Identify,
    MatchBlinded,
    MatchDone,
    MatchReply,
    MatchRequest,
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

pytestmark = pytest.mark.xdist_group("node")  # its tests share one run

ZEROS = weights_to_bytes(np.zeros(4))


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


def match(world: World, partner: str = "retailer", spec: MatchSpec = MATCH) -> list[SealedMessage]:
    """Carry a match between a partner and the brand; return every message, the last one's answer."""
    request = say(world, MatchRequest(spec=spec, brand="brand"), to=partner)
    blinded = world.handle(partner, request)
    reply = world.handle("brand", blinded)
    done = world.handle(partner, reply)
    return [request, blinded, reply, done]


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
    request = MatchRequest(spec=MATCH, brand="brand")
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
        MatchRequest(spec=MATCH, brand="brand"),
        train_request(),
        ModelPublished(spec=TRAIN),
        ExpandRequest(spec=EXPAND),
        MatchBlinded(spec=MATCH, points=0),
    ],
    ids=lambda body: body.kind,
)
def test_a_question_of_somebody_who_may_not_ask_it_changes_nothing(
    later: World, body: Body, sender: str
) -> None:
    model = later.folder("retailer").model("model")
    payload = model.read_bytes() if isinstance(body, ModelPublished) else ZEROS
    members, before = later.members("retailer"), model.read_bytes()
    expect_refusal(later, "message", say(later, body, payload, sender=sender))
    assert model.read_bytes() == before
    assert (later.members("retailer") == members).all()


@pytest.mark.parametrize("sender", ["courier", "coordinator", "retailer"])
def test_only_the_brand_answers_a_match(world: World, sender: str) -> None:
    match(world, "courier")
    blinded = world.handle("retailer", say(world, MatchRequest(spec=MATCH, brand="brand")))
    words = unseal(world.handle("brand", blinded), world.agreement)
    forged = say(world, words.body, words.payload, sender=sender, answers=blinded.digest)
    expect_refusal(world, "message", forged)
    assert not world.folder("retailer").members("find").exists()


def test_a_match_reply_to_nothing_is_refused(world: World) -> None:
    reply = unseal(match(world, "courier")[2], world.agreement)

    def forged(answers: str) -> SealedMessage:
        return say(world, reply.body, reply.payload, sender="brand", answers=answers)

    expect_refusal(world, "message", forged("0" * 64))
    blinded = world.handle("retailer", say(world, MatchRequest(spec=MATCH, brand="brand")))
    expect_refusal(world, "message", forged("0" * 64))
    expect_refusal(world, "match.minimum_match", forged(blinded.digest))  # made for another's
    assert not world.folder("retailer").members("find").exists()


def test_a_job_may_not_be_told_under_another_jobs_name(later: World) -> None:
    for body in (
        MatchRequest(spec=MATCH, brand="brand"),
        train_request(),
        ExpandRequest(spec=EXPAND),
    ):
        expect_refusal(later, "message", say(later, body, ZEROS, job="other"))


@pytest.mark.parametrize("brand", ["courier", "retailer", "coordinator", "stranger"])
def test_a_match_is_with_the_brand_only(world: World, brand: str) -> None:
    expect_refusal(world, "parties", say(world, MatchRequest(spec=MATCH, brand=brand)))


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
        (MatchRequest(spec=other, brand="brand"), b""),
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
        later, "message", say(later, MatchRequest(spec=MATCH, brand="brand"), answers=forged)
    )
    other = json.loads(before[2])
    other["weights"][0] += 1.0
    announced = say(later, ModelPublished(spec=TRAIN), json.dumps(other).encode())
    expect_refusal(later, "message", announced)
    assert [path.read_bytes() for path in results] == before


def test_a_second_reply_to_one_question_is_refused(tmp_path: Path) -> None:
    world = World.make(tmp_path, match={"minimum_match": 21})  # 20 of the retailer's are known
    blinded = world.handle("retailer", say(world, MatchRequest(spec=MATCH, brand="brand")))
    reply = world.handle("brand", blinded)
    expect_refusal(world, "match.minimum_match", reply)
    body = unseal(reply, world.agreement).body
    assert isinstance(body, MatchReply)
    other = body.model_copy(update={"blinded": body.blinded})
    payload = reply.payload[:32] + reply.payload[64:96] + reply.payload[32:64] + reply.payload[96:]
    second = say(world, other, payload, sender="brand", answers=blinded.digest)
    expect_refusal(world, "message", second)


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


def test_consent_withdrawn_during_a_match_stops_it(world: World) -> None:
    blinded = world.handle("retailer", say(world, MatchRequest(spec=MATCH, brand="brand")))
    reply = world.handle("brand", blinded)
    world.withdraw("retailer", [15])
    expect_refusal(world, "consent", reply)
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
    question = say(world, MatchRequest(spec=MATCH, brand="brand"))
    with caplog.at_level(logging.ERROR):
        answer = expect_refusal(world, term, question)
    assert "own console" in answer.body.remedy
    assert "retailer" in caplog.text
    table("retailer").to_csv(world.table("retailer"), index=False)
    world.withdraw("retailer", [])
    assert isinstance(world.ask("retailer", question).body, MatchBlinded)  # heard anew once mended


DAMAGES = {
    "people.npz": (b"", b"\x00\xff", b"PK\x03\x04", b"{}"),
    "match.json": (b"", b"\x00\xff", b'{"stage": "matched", "tokens": 1}'),
    "secret": (b"", b"short"),
}


@pytest.mark.parametrize("file", DAMAGES)
def test_a_damaged_state_is_refused(world: World, file: str) -> None:
    blinded = world.handle("retailer", say(world, MatchRequest(spec=MATCH, brand="brand")))
    reply = world.handle("brand", blinded)
    for content in DAMAGES[file]:
        (world.folder("retailer").job("find") / "state" / file).write_bytes(content)
        expect_refusal(world, "computation", reply)


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
    assert asked == 3 + 6 + 4 + 3 + 2
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
    assert not list(later.folder("retailer").path.rglob("jobs/**/secret"))


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


def test_killed_at_any_renaming_a_node_goes_on_where_it_was(ended: World, tmp_path: Path) -> None:
    """The retailer's part of every job, each message killed at every point, then asked again."""
    fresh = World.make(tmp_path / "fresh", unsafe_seed=3)
    whole = fresh.copy(tmp_path / "whole")
    whole.run()
    script = list(pairs(whole))
    clean = fresh.copy(tmp_path / "clean")
    kills = 0
    for party, question, answer in script:
        if party == "retailer":
            for after in count():
                world = clean.copy(tmp_path / f"{question.digest}.{after}")
                if not killed(world, party, question, after):
                    break
                kills += 1
                assert world.handle(party, question) == answer
                world.leaves(party)  # holds
            clean.handle(party, question)
            assert results(world) == results(clean)
            assert charges_of(world, party) == charges_of(clean, party)
        else:
            clean.handle(party, question)
    assert kills > 30
    assert results(clean) == results(whole)


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
        world.handle("retailer", say(world, MatchRequest(spec=MATCH, brand="courier")))
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


def test_the_coordinator_is_told_nothing_of_a_size(ended: World) -> None:
    """Nor of who matched: padded sets, weights and words are all that it carries."""
    seen = [unseal(message, ended.agreement) for message in ended.wire]
    for message in seen:
        sizes = set(counts(message))
        assert all(size % ended.agreement.match.set_size_bucket == 0 for size in sizes)
    kinds = {type(message.body) for message in seen}
    assert kinds >= {MatchBlinded, MatchReply, MatchDone, TrainUpdate, ExpandDone}


def counts(message: Message) -> Iterator[int]:
    body = message.body
    if isinstance(body, MatchBlinded):
        yield body.points
    elif isinstance(body, MatchReply):
        yield from (body.tags, body.blinded)
    elif isinstance(body, MatchDone | ExpandDone | Present | Acknowledged):
        assert (message.payload, set(type(body).model_fields)) == (b"", {"kind"})


def test_now_is_within_the_contract(made: World) -> None:
    made.agreement.check_time(NOW)
