"""Requests to erase on their way between parties: what everybody does, whatever fails."""

import json
import random
import shutil
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from parties import MATCH, PEOPLE, World, email, record
from renamings import killed_at

from compliance import records
from compliance.auditing import PartyLog, audit
from compliance.auditing.finding import FindingKind
from compliance.erasure.completion import read_completion
from compliance.erasure.following import State
from compliance.erasure.wire import AcknowledgementClaims, Identifier, ResultCode
from compliance.signing import SigningKey
from federation import asking, messages, showing
from federation.audit_rules import rules_for
from federation.channel import Parcel
from federation.coordinator import Coordinator, coordinator, write_jobs
from federation.coordinator.conversation import Conversation
from federation.erasing import Erasing, Kept
from federation.errors import MessageError, PartyUnreachableError, WorkspaceError
from federation.followed import Followed
from federation.jobs import erase
from federation.jobs.erase import blinded_identifier, make_batch, request_tokens
from federation.jobs.exchange import rows_of
from federation.jobs.spread import (
    ERASING,
    Answers,
    Asked,
    Completed,
    News,
    Reminder,
    _together,
    batch_bytes,
    decode,
    domain_of,
    encode,
    issuer_for,
    keys_of,
    parts_of,
)
from federation.messages import SealedMessage
from federation.population import recipe_for
from federation.progress import listening
from federation.showing import Showing
from privacy.psi import PortableEngine
from privacy.randomness import seeded_secret

TERMS: dict[str, Any] = {"erasure": {"deadline_days": 10}}
SHARED = 25  # whom all three know
BRANDS = 5  # whom the brand alone knows
LARGE = {"erase.shown", "erase.batch"}
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Parties whose logs are open, and who were never asked anything."""
    world = World.make(tmp_path_factory.mktemp("made"), **TERMS)
    spread(world)
    world.wire.clear()
    return world


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    return made.copy(tmp_path / "copy")


def spread(world: World) -> None:
    Coordinator.open(world.folder("coordinator").path, clock=world.clock).spread(world)


def left_of_showing(world: World) -> list[str]:
    """What is left of people shown and asked about: all of it is to go with the answer."""
    large = {one.payload for one in world.wire if world.read(one).header.kind in LARGE}
    found = []
    for name in PEOPLE:
        erasures = world.folder(name).erasures
        found += [one.name for one in erasures.glob("showing/*") if one.suffix != ".json"]
        found += [one.name for one in erasures.glob("asking/*")]
        found += [name for payload in world.outbox(name).values() if payload in large]
    return found


def said(world: World, kind: str, sender: str | None = None) -> list[Any]:
    """Messages of a kind that went over the wire, each once, as their recipients read them."""
    read = [world.read(one) for one in {one.digest: one for one in world.wire}.values()]
    return [one for one in read if one.body.kind == kind and sender in {None, one.header.sender}]


def ask(world: World, party: str, person: int) -> Kept:
    with world.node(party).desk() as desk:
        erasing = Erasing(desk.folder, desk.agreement, desk.gate, clock=world.clock)
        return erasing.request("email", email(person))


def states(world: World, party: str, request: str) -> dict[str, State]:
    with world.node(party).desk() as desk:
        followed = Followed(desk.folder, desk.agreement, desk.gate, clock=world.clock)
        return {
            peer: one.state
            for peer in followed.peers
            for one in followed.at(peer)
            if one.request == request
        }


def kept(world: World, party: str) -> Mapping[str, Kept]:
    with world.node(party).desk() as desk:
        erasing = Erasing(desk.folder, desk.agreement, desk.gate, clock=world.clock)
        return {one.execution.request: one for one in erasing.status()}


def people(world: World, party: str) -> set[str]:
    return set(pd.read_csv(world.table(party), dtype=str)["record"])


def carry_out(world: World, party: str) -> None:
    with world.node(party).desk() as desk:
        Erasing(desk.folder, desk.agreement, desk.gate, clock=world.clock).run_pending()


def erasures(world: World, party: str) -> Counter[str]:
    return Counter(one.kind for one in world.leaves(party) if one.kind.startswith("erasure."))


def logs(world: World) -> list[PartyLog]:
    return [PartyLog(name, world.agreement, world.leaves(name)) for name in PEOPLE]


def findings(world: World) -> list[FindingKind]:
    return [one.kind for one in audit(logs(world), rules_for(world.agreement, now=world.now))]


# --- the way of a request -------------------------------------------------------------------------


def test_a_request_goes_to_everybody_who_acknowledge_carry_out_and_tell(world: World) -> None:
    request = ask(world, "brand", SHARED).execution.request
    spread(world)
    for name in PEOPLE:
        assert record(name, SHARED) not in people(world, name)
        assert len(people(world, name)) == len(PEOPLE[name]) - 1
        assert kept(world, name)[request].execution.completion
    assert set(states(world, "brand", request).values()) == {State.COMPLETED}
    assert left_of_showing(world) == []
    assert erasures(world, "brand") == {
        "erasure.requested": 1,
        "erasure.step": 1,
        "erasure.acknowledged": 2,
        "erasure.completed": 3,
    }
    for name in ("courier", "retailer"):
        key = world.agreement.party(name).verifying_key
        signed = (
            world.folder("brand").erasures / "receipts" / request / f"{name}.json"
        ).read_bytes()
        assert read_completion(signed, request=request, party=name, key=key).party == name
    assert findings(world) == []
    world.now += 20 * DAY
    assert findings(world) == []


def test_whoever_does_not_know_them_says_the_same_in_message_and_log(world: World) -> None:
    ask(world, "brand", BRANDS)
    spread(world)
    unknown = [len(one.payload) for one in world.wire]
    assert erasures(world, "courier") == erasures(world, "retailer")
    for name in ("courier", "retailer"):
        assert len(people(world, name)) == len(PEOPLE[name])
        assert not list(world.folder(name).erasures.glob("*.person"))
    before = erasures(world, "courier")
    world.wire.clear()
    for person in (SHARED, SHARED + 1, SHARED + 2):
        ask(world, "brand", person)
    spread(world)
    assert [len(one.payload) for one in world.wire] == unknown  # nor how many requests there are
    assert erasures(world, "courier") == {kind: 4 * count for kind, count in before.items()}


def test_what_is_closed_is_not_told_again(world: World) -> None:
    ask(world, "retailer", SHARED)
    spread(world)
    before = {name: erasures(world, name) for name in PEOPLE}
    world.wire.clear()
    world.now += 2 * DAY
    spread(world)
    kinds = {world.read(one).header.kind for one in world.wire}
    assert kinds == {"identify", "present", "erase.look", "erase.standing"}
    assert {name: erasures(world, name) for name in PEOPLE} == before


def test_nobody_else_reads_whom_it_is_about(world: World) -> None:
    ask(world, "brand", SHARED)
    spread(world)
    token = request_tokens("email", email(SHARED), recipe_for(world.agreement.match)).tobytes()
    for one in world.wire:
        assert email(SHARED).encode() not in one.payload + one.envelope
        assert token not in one.payload
        assert token.hex().encode() not in one.payload + one.envelope
    carried = {
        world.read(one).header.kind
        for one in world.wire
        if world.read(one).header.recipient not in {"coordinator", "everyone"}
        and world.read(one).header.sender != "coordinator"
    }
    assert carried == {"erase.shown", "erase.batch", "erase.told", "erase.heard"}


def test_a_run_of_jobs_spreads_first_so_that_none_of_them_uses_the_person(world: World) -> None:
    write_jobs(world.folder("coordinator"), (MATCH,))
    ask(world, "courier", SHARED)
    world.run()
    assert findings(world) == []
    assert record("retailer", SHARED) not in people(world, "retailer")
    used = [one for one in world.leaves("retailer") if isinstance(one, records.ConsentUsed)]
    assert used[0].rows == len(PEOPLE["retailer"]) - 1


def test_a_job_that_cannot_run_keeps_no_request_from_those_who_are_there(world: World) -> None:
    write_jobs(world.folder("coordinator"), (MATCH,))
    request = ask(world, "brand", SHARED).execution.request
    world.away = {"courier"}
    with pytest.raises(PartyUnreachableError, match="courier"):
        world.run()
    assert states(world, "brand", request)["retailer"] is State.COMPLETED
    assert record("retailer", SHARED) not in people(world, "retailer")


def test_who_asks_again_before_it_was_sent_hinders_no_other_request(world: World) -> None:
    requests = [ask(world, "brand", SHARED).execution.request]
    carry_out(world, "brand")  # done at home, and nobody else was there
    requests += [ask(world, "brand", one).execution.request for one in (SHARED, SHARED + 1)]
    assert len(set(requests)) == 3
    spread(world)
    for request in requests:
        assert set(states(world, "brand", request).values()) == {State.COMPLETED}
    assert record("retailer", SHARED + 1) not in people(world, "retailer")


def test_the_same_person_asked_at_two_parties_is_two_requests(world: World) -> None:
    first, second = ask(world, "brand", SHARED), ask(world, "retailer", SHARED)
    spread(world)
    for name in PEOPLE:
        done = kept(world, name)
        assert all(done[one.execution.request].execution.completion for one in (first, second))
    assert findings(world) == []


def test_who_comes_back_is_erased_again_where_another_party_asked(world: World) -> None:
    request = ask(world, "brand", SHARED).execution.request
    before = pd.read_csv(world.table("courier"), dtype=str)
    spread(world)
    before.to_csv(world.table("courier"), index=False)
    with world.node("courier").desk() as desk:
        Erasing(desk.folder, desk.agreement, desk.gate, clock=world.clock).run()
    assert record("courier", SHARED) not in people(world, "courier")
    assert kept(world, "courier")[request].execution.completion


# --- who is late ----------------------------------------------------------------------------------


def test_who_is_away_is_reminded_escalated_and_overdue_with_evidence(world: World) -> None:
    request = ask(world, "brand", SHARED).execution.request
    world.away = {"courier"}
    sent = []
    for days in (0, 8, 2):
        world.now += days * DAY
        spread(world)
        sent.append(states(world, "brand", request)["courier"])
    assert sent == [State.QUEUED, State.QUEUED, State.OVERDUE]
    assert states(world, "brand", request) == {
        "courier": State.OVERDUE,
        "retailer": State.COMPLETED,
    }
    (late,) = [one for one in world.leaves("brand") if isinstance(one, records.ErasureOverdue)]
    with world.node("brand").desk() as desk:
        followed = Followed(desk.folder, desk.agreement, desk.gate, clock=world.clock)
        (one,) = followed.at("courier")
        assert one.is_escalated
    before = one.model_copy(update={"events": one.events[:-1]})
    assert late.evidence_digest == before.evidence_digest
    assert findings(world) == [FindingKind.ERASURE_LATE]
    world.away = set()
    world.now += DAY
    spread(world)  # late is better than never
    assert states(world, "brand", request)["courier"] is State.COMPLETED
    assert record("courier", SHARED) not in people(world, "courier")
    assert erasures(world, "brand")["erasure.overdue"] == 1


def lose_table_once_heard(world: World, party: str) -> tuple[Path, Path]:
    """Have a party's table moved away as it acknowledges a request: from where, and to where."""
    data = world.table(party)
    hidden = data.with_suffix(".away")

    def listener(name: str, _: SealedMessage, answer: SealedMessage) -> SealedMessage:
        if world.read(answer).header.kind == "erase.heard" and name == party and data.exists():
            data.rename(hidden)
        return answer

    world.listener = listener
    return data, hidden


def test_who_acknowledged_and_was_put_back_after_the_deadline_is_asked_anew(world: World) -> None:
    request = ask(world, "brand", SHARED).execution.request
    data, hidden = lose_table_once_heard(world, "courier")
    spread(world)
    world.now += 11 * DAY
    spread(world)
    assert states(world, "brand", request)["courier"] is State.OVERDUE
    world.listener = lambda _, __, answer: answer
    hidden.rename(data)
    (world.folder("courier").erasures / f"{request}@brand.json").unlink()
    for _ in range(2):
        world.now += DAY
        spread(world)
    assert states(world, "brand", request)["courier"] is State.COMPLETED
    assert record("courier", SHARED) not in people(world, "courier")


def test_who_acknowledged_and_does_nothing_is_reminded_every_day(world: World) -> None:
    request = ask(world, "brand", SHARED).execution.request
    data = world.table("courier")
    hidden = data.with_suffix(".away")
    reached: list[str] = []

    def listener(name: str, question: SealedMessage, answer: SealedMessage) -> SealedMessage:
        if world.read(answer).header.kind == "erase.heard" and name == "courier" and data.exists():
            data.rename(hidden)  # its table cannot be read from here on
        reached.append(world.read(answer).header.kind)
        return answer

    world.listener = listener
    spread(world)
    assert states(world, "brand", request)["courier"] is State.ACKNOWLEDGED
    for _ in range(2):
        reached.clear()
        world.now += DAY
        spread(world)
        assert "erase.told" in reached
    hidden.rename(data)
    world.listener = lambda _, __, answer: answer
    spread(world)
    assert states(world, "brand", request)["courier"] is State.COMPLETED
    assert record("courier", SHARED) not in people(world, "courier")
    assert erasures(world, "courier") == {
        "erasure.requested": 1,
        "erasure.step": 1,
        "erasure.completed": 1,
    }


def test_who_was_put_back_is_asked_anew(world: World) -> None:
    request = ask(world, "brand", SHARED).execution.request
    data, hidden = lose_table_once_heard(world, "courier")
    spread(world)
    world.listener = lambda _, __, answer: answer
    hidden.rename(data)
    (world.folder("courier").erasures / f"{request}@brand.json").unlink()
    world.now += DAY
    spread(world)
    assert states(world, "brand", request)["courier"] is State.REFUSED
    world.now += DAY
    spread(world)
    assert states(world, "brand", request)["courier"] is State.COMPLETED


# --- what is not believed -------------------------------------------------------------------------


class Talk:
    """The brand, or another, asks the courier, message by message, and can say what it likes."""

    def __init__(self, world: World, origin: str = "brand") -> None:
        self.world, self.origin = world, origin
        self.issuer = issuer_for(origin, world.folder(origin).identity_key())
        self.now = world.now

    def shown(self, attempt: str = "a" * 64) -> Any:
        body = messages.EraseShow(attempt=attempt, round=1, origin=self.origin)
        asked = self.world.parties.seal("coordinator", "courier", ERASING, body)
        return self.world.read(self.world.handle("courier", asked))

    def request(
        self, place: int, name: str = "rq-1", *, by: Any = None, to: str = "courier", **told: Any
    ) -> str:
        issuer, about = by or self.issuer, told.pop("about", blinded_identifier(place))
        now = told.pop("now", self.now)
        identity = issuer.identity(about, jti=name, now=now)
        return str(
            issuer.request(identity, about, recipient=domain_of(to), jti=name, now=now, **told)
        )

    def batch(self, shown: Any, tokens: Sequence[str], *, person: int = SHARED) -> SealedMessage:
        capacity, part = len(shown.payload) // 32, shown.body.part
        is_last = part == parts_of(self.world.agreement, "courier").last
        batch = make_batch(
            request_tokens("email", email(person), recipe_for(self.world.agreement.match)),
            rows_of(shown.payload, capacity, 32),
            seeded_secret(3, "brand"),
            engine=PortableEngine(),
            capacity=capacity,
        )
        self.place = int(batch.places[0])
        asked = Asked.model_construct(tokens=tuple(tokens)) if is_last else None
        body = messages.EraseBatch(showing=shown.body.showing, part=part)
        return self.say(body, batch_bytes(batch.reply, asked), shown)

    def say(self, body: Any, payload: bytes, answers: Any = None) -> SealedMessage:
        digest = None if answers is None else answers.sealed.digest
        return self.world.parties.seal(
            self.origin, "courier", ERASING, body, payload, answers=digest
        )

    def heard(self, batch: SealedMessage) -> Any:
        return self.world.read(self.world.handle("courier", batch))

    def codes(self, heard: Any) -> list[ResultCode]:
        keys = keys_of(self.world.agreement)
        answers = decode(heard.payload, Answers)
        return [keys.verify(one, AcknowledgementClaims).code for one in answers.acknowledgements]


@pytest.fixture
def talk(world: World) -> Talk:
    found = Talk(world)
    found.batch(found.shown("0" * 64), ())  # to know the place
    return found


def test_requests_that_cannot_be_believed_are_told_so_and_hinder_no_other(talk: Talk) -> None:
    stranger = issuer_for("brand", SigningKey.from_seed(b"7" * 32))
    other = issuer_for("retailer", talk.world.folder("retailer").identity_key())
    unknown_key = type(talk.issuer)(talk.issuer.domain, "another", talk.issuer.key)
    elsewhere = Identifier(value="1", type="email", format="sha256")
    tokens = {
        talk.request(talk.place, "rq-forged", by=stranger): ResultCode.INVALID_SIGNATURE,
        talk.request(talk.place, "rq-kid", by=unknown_key): ResultCode.INVALID_SIGNATURE,
        talk.request(talk.place, "rq-other", by=other): ResultCode.MALFORMED_REQUEST,
        talk.request(talk.place, "rq-aud", to="retailer"): ResultCode.MALFORMED_REQUEST,
        talk.request(talk.place, "../rq"): ResultCode.MALFORMED_REQUEST,
        talk.request(talk.place, "rq-old", now=talk.now - 8 * DAY): ResultCode.INVALID_TIMESTAMP,
        talk.request(talk.place, "rq-new", now=talk.now + DAY): ResultCode.INVALID_TIMESTAMP,
        talk.request(0, "rq-kind", about=elsewhere): ResultCode.UNSUPPORTED_IDENTIFIER_TYPE,
        talk.request(64, "rq-place"): ResultCode.MALFORMED_REQUEST,
        "no-token": ResultCode.INVALID_TOKEN,
        talk.request(talk.place, "rq-good"): ResultCode.ACCEPTED,
    }
    heard = talk.heard(talk.batch(talk.shown(), list(tokens)))
    assert talk.codes(heard) == list(tokens.values())
    assert list(kept(talk.world, "courier")) == ["rq-good"]
    assert erasures(talk.world, "courier") == {"erasure.requested": 1}


def test_the_same_request_again_gets_the_same_receipt(talk: Talk) -> None:
    token = talk.request(talk.place)
    first = talk.batch(talk.shown(), [token])
    acknowledged = talk.heard(first)
    assert talk.heard(first).sealed == acknowledged.sealed  # a replay gets the same bytes
    again = talk.heard(talk.batch(talk.shown("b" * 64), [token]))
    told = decode(acknowledged.payload, Answers)
    assert decode(again.payload, Answers) == told
    carry_out(talk.world, "courier")
    after = decode(talk.heard(talk.batch(talk.shown("c" * 64), [token])).payload, Answers)
    assert after.acknowledgements == told.acknowledgements
    (done,) = after.completions
    assert done.completion == kept(talk.world, "courier")["rq-1"].execution.completion
    assert erasures(talk.world, "courier")["erasure.requested"] == 1


@pytest.mark.parametrize("person", [SHARED, BRANDS], ids=["held", "not held"])
def test_a_request_that_is_signed_anew_is_carried_out_anew_whoever_it_is_about(
    talk: Talk, person: int
) -> None:
    def batch(label: str, minutes: int) -> Any:
        shown = talk.shown(label * 64)
        talk.batch(shown, (), person=person)  # to know the place
        token = talk.request(talk.place, now=talk.now + timedelta(minutes=minutes))
        return decode(talk.heard(talk.batch(shown, [token], person=person)).payload, Answers)

    batch("a", 0)
    carry_out(talk.world, "courier")
    first = kept(talk.world, "courier")["rq-1"].execution
    told = batch("b", 1)
    assert told.acknowledgements != (first.acknowledgement,)  # of the request as it came now
    assert told.completions == ()
    carry_out(talk.world, "courier")
    done = kept(talk.world, "courier")["rq-1"].execution
    assert done.completion != first.completion
    assert done.steps == first.steps  # what was deleted then is told as deleted
    assert erasures(talk.world, "courier") == {
        "erasure.requested": 1,
        "erasure.step": 2 * len(done.steps),
        "erasure.completed": 2,
    }


@pytest.mark.parametrize("person", [SHARED, BRANDS], ids=["held", "not held"])
def test_a_recipient_reads_its_table_before_it_answers_whoever_is_meant(
    talk: Talk, person: int
) -> None:
    shown = talk.shown()
    talk.batch(shown, (), person=person)  # to know the place
    batch = talk.batch(shown, [talk.request(talk.place)], person=person)
    data = talk.world.table("courier")
    hidden = data.rename(data.with_suffix(".away"))
    assert talk.heard(batch).body.kind == "refused"
    hidden.rename(data)
    assert talk.codes(talk.heard(batch)) == [ResultCode.ACCEPTED]


@pytest.mark.parametrize("other", [SHARED + 1, BRANDS], ids=["held", "not held"])
def test_a_known_name_for_somebody_else_gets_the_same_answer_and_erases_nobody(
    talk: Talk, other: int
) -> None:
    talk.heard(talk.batch(talk.shown(), [talk.request(talk.place)]))
    shown = talk.shown("b" * 64)
    talk.batch(shown, (), person=other)
    anew = talk.request(talk.place, now=talk.now + timedelta(minutes=1))
    heard = talk.heard(talk.batch(shown, [anew], person=other))
    assert talk.codes(heard) == [ResultCode.ACCEPTED]
    carry_out(talk.world, "courier")
    assert len(people(talk.world, "courier")) == len(PEOPLE["courier"]) - 1
    assert record("courier", SHARED) not in people(talk.world, "courier")


def test_nobody_takes_the_name_of_anothers_request(world: World) -> None:
    request = ask(world, "brand", SHARED).execution.request
    squatter = Talk(world, "retailer")
    squatter.heard(squatter.batch(squatter.shown(), [squatter.request(3, request)], person=BRANDS))
    spread(world)
    assert states(world, "brand", request)["courier"] is State.COMPLETED
    assert record("courier", SHARED) not in people(world, "courier")
    with world.node("courier").desk() as desk:
        erasing = Erasing(desk.folder, desk.agreement, desk.gate, clock=world.clock)
        with pytest.raises(WorkspaceError, match=f"one of {request}@brand, {request}@retailer"):
            erasing.receipt(request)
        ours, theirs = (erasing.receipt(f"{request}@{one}") for one in ("brand", "retailer"))
    assert ours != theirs
    assert findings(world) == []


def test_who_asks_again_is_looked_for_again_everywhere(world: World) -> None:
    request = ask(world, "brand", BRANDS).execution.request
    spread(world)
    table = pd.read_csv(world.table("courier"), dtype=str)
    new = table.iloc[:1].assign(record="C#NEW", email=email(BRANDS), phone="")
    pd.concat([table, new]).to_csv(world.table("courier"), index=False)
    assert ask(world, "brand", BRANDS).execution.request != request
    spread(world)
    assert "C#NEW" not in people(world, "courier")


@pytest.mark.parametrize("token", ["\U0001f600" * 2560, '"' * 2560], ids=["emoji", "quotes"])
def test_what_is_no_token_at_all_is_refused(talk: Talk, token: str) -> None:
    assert talk.heard(talk.batch(talk.shown(), [token])).body.kind == "refused"


def test_whoever_is_imported_after_the_first_try_is_erased_at_the_next(talk: Talk) -> None:
    world = talk.world
    table = pd.read_csv(world.table("courier"), dtype=str)
    is_them = table["record"] == record("courier", SHARED)
    table[~is_them].to_csv(world.table("courier"), index=False)
    talk.heard(talk.batch(talk.shown(), [talk.request(talk.place)]))
    assert not kept(world, "courier")["rq-1"].named
    carry_out(world, "courier")
    table.to_csv(world.table("courier"), index=False)
    anew = talk.request(talk.place, now=talk.now + timedelta(minutes=1))
    heard = talk.heard(talk.batch(talk.shown("b" * 64), [anew]))
    assert decode(heard.payload, Answers).completions == ()
    spread(world)
    assert record("courier", SHARED) not in people(world, "courier")


@pytest.mark.parametrize(
    "payload",
    {
        "nothing": b"",
        "too long": bytes(1 << 20),
        "no JSON": b"[" * len(encode(News())),
    }.values(),
    ids=["nothing", "too long", "no JSON"],
)
def test_news_of_another_size_or_malformed_are_refused(talk: Talk, payload: bytes) -> None:
    for body in (messages.EraseTold(), messages.EraseBatch(showing="0" * 64)):
        assert talk.heard(talk.say(body, payload)).body.kind == "refused"
    assert kept(talk.world, "courier") == {}


def test_an_answer_to_what_was_shown_before_is_refused(talk: Talk) -> None:
    early = talk.shown()
    talk.shown("b" * 64)
    assert talk.heard(talk.batch(early, [talk.request(talk.place)])).body.kind == "refused"


def test_completions_of_others_and_answers_to_nothing_count_for_nothing(world: World) -> None:
    request = ask(world, "courier", SHARED).execution.request
    talk = Talk(world)
    forged = Completed(request=request, completion=json.dumps({"payload": ""}))
    strange = Reminder(request="rq-strange")
    answered = talk.heard(
        talk.say(messages.EraseTold(), encode(News(completions=(forged,), reminders=(strange,))))
    )
    assert decode(answered.payload, Answers) == Answers(unknown=("rq-strange",))
    body, answers = messages.EraseHeard(), encode(Answers(unknown=(request,)))
    assert talk.heard(talk.say(body, answers)).body.kind == "refused"
    assert set(states(world, "courier", request).values()) <= {State.QUEUED}


def test_people_are_shown_to_one_origin_so_often_a_day(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(showing, "MOST_A_DAY", 2)
    assert talk.shown("b" * 64).body.kind == "erase.shown"
    refused = talk.shown("c" * 64)
    assert (refused.body.kind, refused.body.term) == ("refused", "erasure")
    talk.world.now += 2 * DAY
    assert talk.shown("c" * 64).body.kind == "erase.shown"


def test_whoever_shows_one_list_of_people_after_another_is_answered_so_often_a_day(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However it is carried, and though it never acknowledges what it is asked."""
    monkeypatch.setattr(asking, "MOST_A_DAY", 2)
    ask(world, "brand", SHARED)
    points = Talk(world).shown().payload
    with world.node("brand").desk() as desk:
        known = desk.folder, desk.agreement, desk.gate
        Followed(*known, clock=world.clock).settle(Erasing(*known, clock=world.clock).status())

    def tried(number: int) -> str:
        body = messages.EraseShown(showing=f"{number:064x}")
        said = world.parties.seal(
            "courier", "brand", ERASING, body, points, answers=f"{number:064}"
        )
        return str(world.read(world.handle("brand", said)).body.kind)

    assert [tried(number) for number in (1, 2, 3, 1)] == ["erase.batch"] * 2 + ["refused"] * 2
    world.now += DAY
    assert tried(4) == "erase.batch"


def test_a_recipient_gets_nothing_for_more_people_than_are_agreed(world: World) -> None:
    ask(world, "brand", SHARED)
    talk = Talk(world)
    body = messages.EraseShown(showing="0" * 64)
    spread_once = talk.shown()
    many = spread_once.payload + spread_once.payload[:32]
    with world.node("brand").desk() as desk:
        desk.gate.settle()
        known = desk.folder, desk.agreement, desk.gate
        Followed(*known, clock=world.clock).settle(Erasing(*known, clock=world.clock).status())
    said = world.parties.seal("courier", "brand", ERASING, body, many, answers="0" * 64)
    assert world.read(world.handle("brand", said)).body.kind == "refused"


# --- in parts -------------------------------------------------------------------------------------


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> int:
    """Have people be shown 30 points at a time; how many parts that makes."""
    monkeypatch.setattr(erase, "PART_POINTS", 30)
    return 4


def test_people_in_whatever_part_are_found(world: World, in_parts: int) -> None:
    persons = range(SHARED, SHARED + 4)
    for person in (*persons, BRANDS):
        ask(world, "brand", person)
    spread(world)
    for name in ("courier", "retailer"):
        assert not {record(name, one) for one in persons} & people(world, name)
        assert len(people(world, name)) == len(PEOPLE[name]) - len(persons)
        shown = said(world, "erase.shown", name)
        assert [one.body.part for one in shown] == list(range(in_parts))
        assert [len(one.payload) for one in shown] == [30 * 32] * 3 + [10 * 32]
        points = [one.payload[at : at + 32] for one in shown for at in range(0, 960, 32)]
        assert len({one for one in points if one}) == 100  # no dummy comes twice
    batches = said(world, "erase.batch")
    assert {len(one.payload) for one in batches if one.body.part < 3} == {30 * 12 + 64 * 32}
    assert left_of_showing(world) == []
    assert findings(world) == []


@pytest.mark.parametrize("lost", ["erase.batch", "erase.shown"])
def test_a_showing_that_was_cut_short_goes_on_where_it_was(
    world: World, in_parts: int, lost: str
) -> None:
    request = ask(world, "brand", SHARED).execution.request
    world.away = {"retailer"}

    def listener(name: str, _: SealedMessage, answer: SealedMessage) -> SealedMessage:
        body = world.read(answer).body
        if body.kind == lost and body.part == 2:
            world.unreachable = {name}
            raise PartyUnreachableError("its answer is lost")
        return answer

    world.listener = listener
    with pytest.raises(PartyUnreachableError):
        spread(world)
    first = [one.body.part for one in said(world, "erase.shown", "courier")]
    world.wire.clear()
    world.unreachable, world.listener = set(), lambda _, __, answer: answer
    spread(world)
    again = [one.body.part for one in said(world, "erase.shown", "courier")]
    assert again == [2, 3]
    assert set(first + again) == set(range(in_parts))
    times = json.loads((world.folder("courier").erasures / "showing" / "brand.json").read_bytes())
    assert len(times) == 1  # people were read once
    world.now += DAY
    spread(world)
    assert states(world, "brand", request)["courier"] is State.COMPLETED
    assert record("courier", SHARED) not in people(world, "courier")


def test_a_showing_begins_anew_after_an_hour_and_where_a_part_is_never_answered(
    talk: Talk, in_parts: int
) -> None:
    def answered(shown: Any) -> Any:
        return talk.heard(talk.batch(shown, ()))

    first = answered(talk.shown("a" * 64))
    assert first.body.part == 1
    again = talk.shown("b" * 64)
    assert (again.body, again.payload) == (first.body, first.payload)
    anew = talk.shown("c" * 64)  # twice without an answer
    assert (anew.body.part, anew.body.showing == first.body.showing) == (0, False)
    second = answered(anew)
    assert second.body.part == 1
    talk.world.now += timedelta(hours=1)
    assert talk.shown("d" * 64).body.part == 0


def test_whom_a_party_showed_is_kept_while_that_goes_on_and_for_an_hour_at_most(
    talk: Talk, in_parts: int
) -> None:
    tokens = talk.world.folder("courier").erasures / "showing" / "brand"
    talk.world.away = {"brand"}
    talk.heard(talk.batch(talk.shown("a" * 64), ()))
    spread(talk.world)
    assert tokens.exists()  # of its parts one was answered
    talk.world.now += timedelta(hours=1)
    spread(talk.world)
    assert not tokens.exists()
    talk.shown("b" * 64)
    assert tokens.exists()
    spread(talk.world)
    assert not tokens.exists()  # of its parts none was answered: it would be begun anew
    assert in_parts > 1


def test_a_showing_that_was_answered_whole_is_not_gone_on_with(world: World) -> None:
    """As where the recipient is killed once its acknowledgements are out, and before it forgets."""
    ask(world, "brand", SHARED)
    world.away = {"retailer"}
    place = world.folder("courier").erasures / "showing" / "brand"
    left = place.parent.parent / "left"

    def keep(name: str, question: SealedMessage, answer: SealedMessage) -> SealedMessage:
        if (name, world.read(answer).body.kind) == ("courier", "erase.shown"):
            shutil.copytree(place, left)
        return answer

    world.listener = keep
    spread(world)
    (heard,) = said(world, "erase.batch")
    folder = world.folder("courier")
    shutil.copytree(left, place)
    shown = Showing.model_validate_json(folder.read_secret(place / "state.json"))
    answered = {"part": 1, "batch": "0" * 64}
    content = shown.model_copy(update=answered).model_dump_json().encode()
    folder.keep_secret(place / "state.json", content)
    world.listener = lambda _, __, answer: answer
    world.wire.clear()
    request = ask(world, "brand", SHARED + 1).execution.request
    spread(world)
    assert not said(world, "refused")
    assert heard.body.showing not in {one.body.showing for one in said(world, "erase.shown")}
    assert states(world, "brand", request)["courier"] is State.COMPLETED


def test_a_party_that_refuses_counts_for_one_that_has_not_heard(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ask(world, "brand", SHARED).execution.request
    coordinate = Coordinator.open(world.folder("coordinator").path, clock=world.clock)
    heard: list[frozenset[str]] = []
    carried = coordinate._spread

    def noted(talk: Conversation) -> frozenset[str]:
        heard.append(carried(talk))
        return heard[-1]

    monkeypatch.setattr(coordinate, "_spread", noted)
    told: list[str] = []
    with listening(lambda progress: told.append(progress.stage)):
        with monkeypatch.context() as context:
            context.setattr(showing, "MOST_A_DAY", 0)
            coordinate.spread(world)
        coordinate.spread(world)
    assert heard == [frozenset({"brand"}), frozenset(PEOPLE)]
    assert "courier, retailer may not know yet who is to be erased: the next run asks again" in told
    assert states(world, "brand", request)["courier"] is State.COMPLETED


def test_a_part_counts_once(talk: Talk, in_parts: int) -> None:
    first = talk.shown("a" * 64)
    batch = talk.batch(first, ())
    second = talk.heard(batch)
    assert talk.heard(talk.batch(first, ())).payload == second.payload  # sealed anew, said again
    other = talk.batch(second, (), person=SHARED + 1)
    assert talk.heard(other).body.kind == "refused"  # another batch than of the part before
    skipped = messages.EraseBatch(showing=first.body.showing, part=2)
    payload = talk.world.read(batch).payload
    assert talk.heard(talk.say(skipped, payload, second)).body.kind == "refused"
    beyond = messages.EraseBatch(showing=first.body.showing, part=in_parts)
    assert talk.heard(talk.say(beyond, payload, second)).body.kind == "refused"
    assert talk.heard(talk.batch(second, ())).body.part == 2


def test_an_origin_answers_a_part_for_the_same_points_alone(world: World, in_parts: int) -> None:
    ask(world, "brand", SHARED)
    world.away = {"retailer"}
    kept_up: list[SealedMessage] = []

    def listener(name: str, question: SealedMessage, answer: SealedMessage) -> SealedMessage:
        if world.read(answer).body.kind == "erase.batch":
            kept_up.append(question)
            raise PartyUnreachableError("its answer is lost")
        return answer

    world.listener = listener
    with pytest.raises(PartyUnreachableError):
        spread(world)
    shown = world.read(kept_up[0])

    def answer(part: int, payload: bytes, showing: str = shown.body.showing) -> Any:
        body = messages.EraseShown(showing=showing, part=part)
        told = world.parties.seal("courier", "brand", ERASING, body, payload, answers="0" * 64)
        return world.read(world.handle("brand", told))

    again = answer(0, shown.payload)
    assert (again.body.kind, again.body.part) == ("erase.batch", 0)
    backwards = shown.payload[32:] + shown.payload[:32]
    assert answer(0, backwards).body.kind == "refused"
    for part, size in ((2, 30), (3, 10), (4, 30)):
        assert answer(part, shown.payload[: 32 * size]).body.kind == "refused"
    assert answer(1, shown.payload, showing="0" * 64).body.kind == "refused"
    assert answer(1, backwards).body.part == 1


def test_more_identifiers_than_are_agreed_are_shown_to_nobody(talk: Talk) -> None:
    table = pd.read_csv(talk.world.table("courier"), dtype=str)
    many = [table.assign(email=[f"{copy}-{one}" for one in table["email"]]) for copy in range(3)]
    pd.concat(many).to_csv(talk.world.table("courier"), index=False)
    refused = talk.shown()
    assert (refused.body.kind, refused.body.term) == ("refused", "datasets.declared_rows")
    assert left_of_showing(talk.world) == []


def test_who_shows_more_parts_than_are_agreed_ends_the_run(
    world: World, in_parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(world, "brand", SHARED)
    monkeypatch.setattr(coordinator, "parts_of", lambda *_: erase.Parts(1))
    with pytest.raises(MessageError, match="shows more people than its agreed rows"):
        spread(world)


@given(st.lists(st.integers(1, 5 * erase.PART_POINTS), min_size=1, max_size=12))
def test_what_is_on_its_way_at_once_is_bounded(sizes: list[int]) -> None:
    parts = {f"shop-{number}": erase.Parts(size) for number, size in enumerate(sizes)}
    pairs = [(one, other) for one in parts for other in parts]
    groups = list(_together(pairs, parts))
    assert [pair for some in groups for pair in some] == pairs
    for some in groups:
        assert len(some) == 1 or sum(32 * parts[peer].size(0) for _, peer in some) <= 1 << 25


# --- whatever fails -------------------------------------------------------------------------------


class Flaky:
    """A channel on which one exchange in ten fails for a party, before or after it is heard."""

    def __init__(self, world: World, seed: int, share: float = 0.1) -> None:
        self.world = world
        self.random = random.Random(seed)
        self.share = share

    def nodes(self, at_least: int, **patience: float) -> Sequence[int]:
        return self.world.nodes(at_least, **patience)

    def exchange(
        self, parcels: Sequence[Parcel], *, most_missing: int = 0
    ) -> Sequence[SealedMessage | None]:
        found: list[SealedMessage | None] = []
        for parcel in parcels:
            lost = most_missing > 0 and self.random.random() < self.share
            if lost and self.random.random() < 0.5:
                found.append(None)
                continue
            (answer,) = self.world.exchange([parcel])
            found.append(None if lost else answer)
        return found


@pytest.mark.timeout(7200)
def test_every_request_ends_closed_or_overdue_whatever_fails(
    made: World, tmp_path: Path, thorough: bool
) -> None:
    for seed in range(20 if thorough else 1):
        world = made.copy(tmp_path / f"flaky-{seed}")
        requests = [(name, ask(world, name, SHARED).execution.request) for name in PEOPLE]
        coordinator = Coordinator.open(world.folder("coordinator").path, clock=world.clock)
        for _ in range(12 if thorough else 4):
            coordinator.spread(Flaky(world, seed, 0.1 if thorough else 0.25))
            world.now += DAY
        if not thorough:
            world.now += 8 * DAY
        coordinator.spread(Flaky(world, seed, 0.0))
        for name, request in requests:
            ended = states(world, name, request)
            assert set(ended.values()) <= {State.COMPLETED, State.OVERDUE}
            for peer, state in ended.items():
                told = [
                    one.kind
                    for one in world.leaves(name)
                    if getattr(one, "request", "") == request and getattr(one, "peer", "") == peer
                ]
                assert len(told) == len(set(told))  # nothing is told twice
                if state is State.OVERDUE:
                    assert "erasure.overdue" in told
                else:
                    assert "erasure.completed" in told
        late = Counter(findings(world))
        assert set(late) <= {FindingKind.ERASURE_LATE}


def killed(world: World, renamings: int) -> bool:
    """Spread in a process of its own that is killed at a renaming; whether it was."""
    ended = killed_at(renamings, lambda: spread(world))
    assert ended in {0, -signal.SIGKILL}
    return ended != 0


@pytest.mark.timeout(7200)
def test_killed_at_any_step_nothing_is_lost_and_nothing_is_done_twice(
    made: World, tmp_path: Path, thorough: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erase, "PART_POINTS", 64)  # two parts
    asked = made.copy(tmp_path / "asked")
    request = ask(asked, "brand", SHARED).execution.request
    step = 1 if thorough else 61
    at = step
    while True:
        world = asked.copy(tmp_path / f"killed-{at}")
        was_killed = killed(world, at)
        for _ in range(3):  # a reminder takes a day where what was noted did not leave
            world.now += DAY
            spread(world)
        assert set(states(world, "brand", request).values()) == {State.COMPLETED}, at
        for name in PEOPLE:
            assert record(name, SHARED) not in people(world, name)
            told = Counter(
                (one.kind, getattr(one, "peer", ""), getattr(one, "target", ""))
                for one in world.leaves(name)
                if one.kind.startswith("erasure.")
            )
            # Once for each time that it was asked, which is twice where an answer was lost.
            assert set(told.values()) <= {1, 2}, (at, told)
            twice = {kind for (kind, _, _), count in told.items() if count > 1}
            assert twice <= {"erasure.step", "erasure.completed"}, (at, told)
        assert findings(world) == [], at
        if not was_killed:
            break
        at += step
