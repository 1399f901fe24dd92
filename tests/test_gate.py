"""The one door out: who may say what, in which order it refuses, and what a kill leaves."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import wraps
from itertools import count, permutations, product
from pathlib import Path
from typing import Any, NoReturn, get_args

import pytest
from parties import EXPAND, MATCH, NOW, PEOPLE, PURPOSE, ROLES, TRAIN, Parties, World, record

from compliance import records
from compliance.log.files import LocalFiles
from compliance.log.writer import LogWriter
from compliance.terms import Reveal, Role
from federation import messages
from federation.errors import MessageError, PartyUnreachableError, RefusedError
from federation.gate import Departure, Gate, Minimum, Released, contract, outbox
from federation.messages import Body, SealedMessage, content_digest, unseal
from federation.party import locked
from federation.people_used import PeopleUsed
from federation.references import References
from federation.routes import ROUTES, is_charged, off_route, travelling
from federation.specification import AlignSpec, MeasureSpec, VerticalScoreSpec, VerticalTrainSpec
from privacy.accounting import Budget, ChargeState, GaussianEvent, Ledger, epsilon_of

AGREED = Parties.in_memory().agreement
NOISE = GaussianEvent(noise_multiplier=8.0)
CHARGE_ID = "model/train.update/coordinator/round-1"
PARTY_OF = {role: name for name, role in ROLES.items()}
ALIGN = AlignSpec(name="ring")
MEASURE = MeasureSpec(name="count", match="find", columns=("colour",), epsilon=0.5)
RING_SIDE = messages.AlignSide(recipe="0" * 64, commitment="1" * 64)
SIDE = messages.MatchSide(recipe="0" * 64, points=10, commitment="1" * 64)
COLUMNS = VerticalTrainSpec(name="columns", align="rows", label_epsilon=1.0)
BODIES: dict[str, Body] = {
    "identify": messages.Identify(),
    "present": messages.Present(),
    "job.approved": messages.JobApproved(spec=MATCH),
    "match.request": messages.MatchRequest(spec=MATCH, peer="brand"),
    "match.offer": messages.MatchOffer(spec=MATCH, side=SIDE),
    "match.accept": messages.MatchAccept(spec=MATCH, side=SIDE),
    "match.blinded": messages.MatchBlinded(spec=MATCH, bucket=0),
    "match.reply": messages.MatchReply(spec=MATCH, bucket=0),
    "match.ready": messages.MatchReady(buckets=2),
    "match.link": messages.MatchLink(spec=MATCH, peer="brand", bucket=0, attempt="0" * 64),
    "match.open": messages.MatchOpen(spec=MATCH, bucket=0, attempt="0" * 64),
    "match.linked": messages.MatchLinked(bucket=0),
    "match.close": messages.MatchClose(spec=MATCH, peer="brand"),
    "match.outcome": messages.MatchOutcome(spec=MATCH, size=7),
    "match.done": messages.MatchDone(),
    "align.join": messages.AlignJoin(spec=ALIGN),
    "align.joined": messages.AlignJoined(side=RING_SIDE),
    "align.bind": messages.AlignBind(spec=ALIGN),
    "align.bound": messages.AlignBound(),
    "align.invite": messages.AlignInvite(spec=ALIGN, place=1),
    "align.seed": messages.AlignSeed(spec=ALIGN),
    "align.blind": messages.AlignBlind(spec=ALIGN, bucket=0),
    "align.pass": messages.AlignPass(spec=ALIGN, bucket=0, place=1),
    "align.tags": messages.AlignTags(bucket=0, place=1),
    "align.common": messages.AlignCommon(spec=ALIGN, bucket=0),
    "align.done": messages.AlignDone(),
    "witness.show": messages.WitnessShow(round=1),
    "witness.shown": messages.WitnessShown(round=1),
    "witness.ask": messages.WitnessAsk(round=1),
    "witness.said": messages.WitnessSaid(round=1),
    "witness.tell": messages.WitnessTell(round=1),
    "retrain.ask": messages.RetrainAsk(nonce="0" * 64),
    "retrain.told": messages.RetrainTold(),
    "erase.look": messages.EraseLook(attempt="a" * 64, round=1),
    "erase.standing": messages.EraseStanding(batches=("courier",)),
    "erase.show": messages.EraseShow(attempt="a" * 64, round=1, origin="courier"),
    "erase.shown": messages.EraseShown(showing="b" * 64),
    "erase.batch": messages.EraseBatch(showing="b" * 64),
    "erase.tell": messages.EraseTell(attempt="a" * 64, round=1, peer="courier"),
    "erase.told": messages.EraseTold(),
    "erase.heard": messages.EraseHeard(),
    "assist.join": messages.AssistJoin(spec=COLUMNS),
    "assist.joined": messages.AssistJoined(key="5" * 64),
    "assist.keys": messages.AssistKeys(spec=COLUMNS),
    "assist.open": messages.AssistOpen(spec=COLUMNS),
    "assist.noised": messages.AssistNoised(),
    "assist.exact": messages.AssistExact(),
    "assist.ask": messages.AssistAsk(spec=COLUMNS, round=1, place=0),
    "assist.residuals": messages.AssistResiduals(spec=COLUMNS, round=1),
    "assist.fitted": messages.AssistFitted(spec=COLUMNS, round=1),
    "assist.heard": messages.AssistHeard(round=1, standing=messages.AssistStanding.MORE),
    "assist.close": messages.AssistClose(spec=COLUMNS, place=0),
    "assist.settle": messages.AssistSettle(spec=COLUMNS, rounds=1, kept=1, step=1.0),
    "assist.scored": messages.AssistScored(
        spec=VerticalScoreSpec(name="scores", train="columns", align="rows"),
        partners=("courier", "retailer"),
    ),
    "train.request": messages.TrainRequest(spec=TRAIN, round=1, width=4),
    "train.update": messages.TrainUpdate(round=1, width=4),
    "train.count": messages.TrainCount(spec=TRAIN, width=4),
    "train.counted": messages.TrainCounted(),
    "sum.ask": messages.SumAsk(spec=TRAIN, round=1, phase=messages.SumPhase.SHARE),
    "sum.said": messages.SumSaid(round=1, phase=messages.SumPhase.SHARE),
    "sum.noised": messages.SumNoised(round=1),
    "sum.exact": messages.SumExact(round=1),
    "model.published": messages.ModelPublished(spec=TRAIN),
    "expand.request": messages.ExpandRequest(spec=EXPAND),
    "expand.done": messages.ExpandDone(),
    "measure.request": messages.MeasureRequest(spec=MEASURE),
    "measure.counts": messages.MeasureCounts(),
    "measure.published": messages.MeasurePublished(spec=MEASURE),
    "expand.counted": messages.ExpandCounted(spec=EXPAND),
    "acknowledged": messages.Acknowledged(),
    "refused": messages.Refused(term="message", remedy="try again"),
}
NUMERIC = {"type": "numeric", "minimum": 0, "maximum": 9}
EVERYTHING: dict[str, Any] = {
    "measure": {
        "purpose": PURPOSE,
        "columns": [{"name": "colour"}],
        "noise": ["discrete-laplace"],
        "epsilon": 1.0,
        "minimum_cell": 5,
    },
    "match": {"alignment": {"key": "email", "epsilon": 10.0, "delta": 1e-9}},
    "vertical": {
        "purpose": PURPOSE,
        "columns": [
            {"party": name, "name": f"of-{name}", **NUMERIC}
            for name in ("brand", "courier", "retailer")
        ],
        "label_epsilon": 1.0,
        "minimum_people": 30,
    },
}
"""Terms of every computation."""
ASKED = {("coordinator", "brand"), ("coordinator", "partner")}
ANSWERED = {("brand", "coordinator"), ("partner", "coordinator")}
ERASURES = {f"erase.{one}" for one in ("shown", "batch", "told", "heard")}
"""What data parties say to each other about erasures."""
PAIR = {("brand", "partner"), ("partner", "brand")}
ROUTED = {
    "identify": {("coordinator", "brand"), ("coordinator", "partner")},
    "present": {("brand", "coordinator"), ("partner", "coordinator")},
    "job.approved": ASKED,
    "match.request": {("coordinator", "brand"), ("coordinator", "partner")},
    "match.offer": PAIR,
    "match.accept": PAIR,
    "match.blinded": PAIR,
    "match.reply": PAIR,
    "match.ready": ANSWERED,
    "match.link": ASKED,
    "match.open": PAIR,
    "match.linked": ANSWERED,
    "match.close": ASKED,
    "match.outcome": PAIR,
    "match.done": {("brand", "coordinator"), ("partner", "coordinator")},
    "align.join": ASKED,
    "align.joined": ANSWERED,
    "align.bind": ASKED,
    "align.bound": ANSWERED,
    "align.invite": ASKED,
    "align.seed": PAIR,
    "align.blind": ASKED,
    "align.pass": PAIR,
    "align.tags": ANSWERED,
    "align.common": ASKED,
    "align.done": ANSWERED,
    "assist.join": {("coordinator", "partner")},
    "assist.joined": {("partner", "coordinator")},
    "assist.keys": {("coordinator", "partner")},
    "assist.open": {("coordinator", "brand")},
    "assist.noised": {("brand", "coordinator")},
    "assist.exact": {("brand", "coordinator")},
    "assist.ask": {("coordinator", "brand")},
    "assist.residuals": {("brand", "partner")},
    "assist.fitted": {("partner", "brand")},
    "assist.heard": {("brand", "coordinator")},
    "assist.close": {("coordinator", "brand")},
    "assist.settle": {("brand", "partner")},
    "assist.scored": {("partner", "brand")},
    "train.request": {("coordinator", "partner")},
    "train.update": {("partner", "coordinator")},
    "train.count": {("coordinator", "partner")},
    "train.counted": {("partner", "coordinator")},
    "sum.ask": {("coordinator", "partner")},
    "sum.said": {("partner", "coordinator")},
    "sum.noised": {("partner", "coordinator")},
    "sum.exact": {("partner", "coordinator")},
    "model.published": {("coordinator", "brand"), ("coordinator", "partner")},
    "expand.request": {("coordinator", "partner")},
    "expand.done": {("partner", "coordinator")},
    "measure.request": {("coordinator", "partner")},
    "measure.counts": {("partner", "coordinator")},
    "measure.published": {("coordinator", "brand")},
    "witness.show": ASKED,
    "witness.shown": ANSWERED,
    "witness.ask": ASKED,
    "witness.said": ANSWERED,
    "witness.tell": ASKED,
    "retrain.ask": ASKED,
    "retrain.told": ANSWERED,
    "erase.look": ASKED,
    "erase.standing": ANSWERED,
    "erase.show": ASKED,
    "erase.shown": PAIR,
    "erase.batch": PAIR,
    "erase.tell": ASKED,
    "erase.told": PAIR,
    "erase.heard": PAIR,
    "expand.counted": {("coordinator", "brand")},
    "acknowledged": {("brand", "coordinator"), ("partner", "coordinator")},
    "refused": set(permutations(("brand", "partner", "coordinator"), 2)),
}


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world whose logs are open and hold the agreement; nobody has said anything."""
    world = World.make(tmp_path_factory.mktemp("settled"))
    for name in ROLES:
        with opened(world, name):
            pass
    return world


@pytest.fixture(scope="module")
def wide_made(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world where every computation is agreed."""
    return World.make(tmp_path_factory.mktemp("wide"), **EVERYTHING)


@pytest.fixture
def wide(wide_made: World, tmp_path: Path) -> World:
    return wide_made.copy(tmp_path / "wide")


@pytest.fixture
def world(settled: World, tmp_path: Path) -> World:
    return settled.copy(tmp_path / "copy")


def ledger_of(world: World, name: str) -> Ledger:
    terms = world.agreement.budget
    budget = Budget(terms.epsilon, terms.delta)
    return Ledger.open(world.folder(name).ledger, agreement=world.agreement.digest, budget=budget)


@contextmanager
def opened(world: World, name: str = "retailer") -> Iterator[Gate]:
    """A party's gate, settled as a node settles it."""
    folder = world.folder(name)
    with (
        locked(folder),
        folder.open_log() as log,
    ):
        ledger = None if name == "coordinator" else ledger_of(world, name)
        gate = Gate(folder, world.agreement, log, ledger, clock=world.clock)
        gate.settle()
        yield gate


def people(party: str = "retailer") -> PeopleUsed:
    keys = References.of([record(party, person) for person in PEOPLE[party]])
    return PeopleUsed(PURPOSE, keys, len(keys))


def departure(kind: str, recipient: str, sender: str = "retailer", **changes: Any) -> Departure:
    """What the sender would say, with whatever that kind of body must bring."""
    fields: dict[str, Any] = {"job": "model", "recipient": recipient, "body": BODIES[kind]}
    if ROUTES[kind].concerns_people:
        fields["people"] = people(sender if sender in PEOPLE else "retailer")
    if is_charged(kind, AGREED):
        fields["charge"] = NOISE
    return Departure(**fields | changes)


def update(question: str = "a" * 64, payload: bytes = b"noise", **changes: Any) -> Departure:
    """A charged release: a training update in answer to a question."""
    made = departure("train.update", "coordinator", answers=question, payload=payload)
    return replace(made, **changes)


def leaves_of(world: World, kind: type[Any], name: str = "retailer") -> list[Any]:
    return [leaf for leaf in world.leaves(name) if isinstance(leaf, kind)]


def expect_refusal(world: World, wanted: Departure, term: str) -> RefusedError:
    before = len(world.leaves("retailer"))
    with opened(world) as gate, pytest.raises(RefusedError) as refusal:
        gate.release(wanted)
    assert (refusal.value.party, refusal.value.term) == ("retailer", term)
    assert world.outbox("retailer") == {}
    assert world.statement("retailer").charges == ()
    assert len(world.leaves("retailer")) == before  # the caller answers with `refuse`, a leaf
    return refusal.value


class TestRoutes:
    def test_every_kind_of_body_has_a_route_and_every_route_a_body(self) -> None:
        kinds = {kind.model_fields["kind"].default for kind in get_args(get_args(Body)[0])}
        assert kinds == set(ROUTES) == set(BODIES) == set(ROUTED)

    def test_what_is_made_from_people_says_so(self) -> None:
        concerned = {kind for kind, route in ROUTES.items() if route.concerns_people}
        assert concerned == {
            "match.offer",
            "match.accept",
            "match.blinded",
            "match.reply",
            "match.ready",
            "match.open",
            "match.linked",
            "match.outcome",
            "match.done",
            "align.joined",
            "align.bound",
            "align.pass",
            "align.tags",
            "align.done",
            "assist.joined",
            "assist.noised",
            "assist.exact",
            "assist.residuals",
            "assist.fitted",
            "assist.heard",
            "assist.settle",
            "assist.scored",
            "train.update",
            "train.counted",
            "sum.noised",
            "sum.exact",
            "expand.done",
            "measure.counts",
        }

    def test_what_is_owed_to_people_is_made_from_those_who_are_not_asked(self) -> None:
        owed = {kind for kind, route in ROUTES.items() if route.is_duty}
        assert owed == {"erase.shown", "erase.batch"}
        assert not any(ROUTES[kind].concerns_people for kind in owed)
        assert not any(is_charged(kind, AGREED) for kind in owed)

    @pytest.mark.parametrize(
        ("reveal", "charged"),
        [
            (Reveal.PARTNER_LEARNS_MEMBERS, {"match.outcome"}),
            (Reveal.BRAND_LEARNS_MEMBERS, {"match.outcome"}),
            (Reveal.BOTH_LEARN_MEMBERS, set()),
            (Reveal.SIZE_ONLY, {"match.offer", "match.accept"}),
        ],
    )
    def test_training_is_charged_and_of_a_match_whatever_tells_a_size(
        self, reveal: Reveal, charged: set[str]
    ) -> None:
        terms = AGREED.match.model_copy(update={"reveal": reveal})
        agreed = AGREED.model_copy(update={"match": terms})
        found = {kind for kind in ROUTES if is_charged(kind, agreed)}
        always = {"train.update", "train.counted", "sum.noised", "align.bound", "measure.counts"}
        assert found == always | {"assist.noised"} | charged

    def test_an_expansion_is_charged_where_a_count_is_agreed(self) -> None:
        counting = AGREED.expand.model_copy(update={"count_epsilon": 0.5})
        assert not is_charged("expand.done", AGREED)
        assert is_charged("expand.done", AGREED.model_copy(update={"expand": counting}))

    def test_what_must_be_encrypted_leaves_so_and_nothing_else_does(self, wide: World) -> None:
        secret = b"what only the recipient may read"
        for kind, route in ROUTES.items():
            sender, recipient = min(ROUTED[kind])
            party = PARTY_OF[Role(sender)]
            wanted = departure(kind, PARTY_OF[Role(recipient)], party, payload=secret)
            with opened(wide, party) as gate:
                sealed = gate.release(wanted).message
            message = unseal(sealed, wide.agreement)
            assert message.header.kind == kind
            assert (message.body != BODIES[kind]) == (secret not in sealed.payload)
            assert (message.body != BODIES[kind]) == route.encrypted
            heard = wide.read(sealed)
            assert (heard.body, heard.payload) == (BODIES[kind], secret)

    def test_no_other_role_may_say_a_thing_to_any_other(self, wide: World) -> None:
        roles = (Role.BRAND, Role.PARTNER, Role.COORDINATOR)
        for sender, kind in product(roles, BODIES):
            with opened(wide, PARTY_OF[sender]) as gate:
                for recipient in roles:
                    wanted = departure(kind, PARTY_OF[recipient], PARTY_OF[sender])
                    allowed = (str(sender), str(recipient)) in ROUTED[kind]
                    if not allowed:
                        with pytest.raises(RefusedError) as refusal:
                            gate.release(wanted)
                        assert refusal.value.term == "parties"
                    elif (sender, kind) != (Role.COORDINATOR, "train.update"):
                        gate.release(wanted)

    @pytest.mark.parametrize("kind", BODIES)
    def test_of_parties_of_one_role_only_those_in_a_ring_or_erasing_talk_to_each_other(
        self, kind: str
    ) -> None:
        for recipient in ("courier", "retailer"):
            header = messages.Header(
                agreement=AGREED.digest,
                job="ring",
                sender="retailer",
                recipient=recipient,
                body=travelling(BODIES[kind]),
                payload_digest=content_digest(b""),
                payload_bytes=0,
            )
            alike = {"align.seed", "align.pass", "refused"} | ERASURES
            assert (off_route(header, AGREED) is None) == (kind in alike and recipient == "courier")

    @pytest.mark.parametrize("recipient", ["stranger", messages.EVERYONE])
    @pytest.mark.parametrize("kind", BODIES)
    def test_strangers_and_everyone_are_told_nothing(
        self, settled: World, tmp_path: Path, kind: str, recipient: str
    ) -> None:
        sender = "coordinator" if kind.endswith("request") else "retailer"
        with opened(settled, sender) as gate, pytest.raises(RefusedError):
            gate.release(departure(kind, recipient, sender))

    def test_only_the_coordinator_may_ask_everyone_who_they_are(self, world: World) -> None:
        with opened(world, "coordinator") as gate:
            gate.release(departure("identify", messages.EVERYONE, "coordinator"))

    @pytest.mark.parametrize("kind", [kind for kind in BODIES if kind != "refused"])
    def test_our_own_code_must_declare_what_a_route_asks_for(
        self, settled: World, kind: str
    ) -> None:
        route = ROUTES[kind]
        sender, recipient = min(ROUTED[kind])
        party = PARTY_OF[Role(sender)]
        right = departure(kind, PARTY_OF[Role(recipient)], party)
        wrong = [replace(right, people=None if route.concerns_people else people())]
        wrong.append(replace(right, charge=None if is_charged(kind, AGREED) else NOISE))
        with opened(settled, party) as gate:
            for one in wrong:
                with pytest.raises(RuntimeError, match="declare"):
                    gate.release(one)
        assert settled.outbox(party) == {}


class TestRelease:
    def test_what_leaves_is_logged_charged_kept_and_handed_over(self, world: World) -> None:
        with opened(world) as gate:
            sealed = gate.release(update()).message
        message = unseal(sealed, world.agreement)
        header = message.header
        assert (header.sender, header.recipient, header.job) == ("retailer", "coordinator", "model")
        assert (header.answers, message.payload) == ("a" * 64, b"noise")
        kinds = [leaf.kind for leaf in world.leaves("retailer")]
        assert kinds == [
            "agreement.signed",
            "access.decided",
            "consent.used",
            "budget.reserved",
            "release",
            "budget.committed",
        ]
        (decided,) = leaves_of(world, records.AccessDecided)
        assert (decided.allowed, decided.clauses) == (True, ("agreed:train.update",))
        (release,) = leaves_of(world, records.Release)
        assert release.content_digest == sealed.digest
        assert release.content_bytes == len(sealed.envelope) + len(sealed.payload)
        assert release.charge_id == CHARGE_ID
        (reserved,) = leaves_of(world, records.BudgetReserved)
        price = epsilon_of([NOISE], world.agreement.budget.delta)
        assert reserved.epsilon == reserved.epsilon_spent == price
        (charge,) = world.statement("retailer").charges
        assert (charge.charge_id, charge.state) == (CHARGE_ID, ChargeState.COMMITTED)
        assert sealed.envelope in world.outbox("retailer").values()

    def test_a_question_answered_before_gets_the_same_bytes(self, world: World) -> None:
        with opened(world) as gate:
            first = gate.release(update()).message
            before = len(world.leaves("retailer"))
            assert gate.release(update(payload=b"other noise")).message == first
        with opened(world) as gate:
            assert gate.recall("a" * 64).message == first
            assert gate.release(update(payload=b"other noise")).message == first
        assert len(world.leaves("retailer")) == before
        assert len(world.statement("retailer").charges) == 1

    def test_one_charge_pays_for_one_answer(self, world: World) -> None:
        with opened(world) as gate:
            gate.release(update())
            with pytest.raises(RefusedError) as refusal:
                gate.release(update("b" * 64, b"fresh noise, to average with the first"))
        assert refusal.value.term == "budget.epsilon"
        assert len(leaves_of(world, records.Release)) == 1
        assert len(world.outbox("retailer")) == 2  # envelope and payload of the first

    def test_every_round_is_charged(self, world: World) -> None:
        bodies = [messages.TrainUpdate(round=number, width=4) for number in (1, 2)]
        with opened(world) as gate:
            for question, body in zip(("a" * 64, "b" * 64), bodies, strict=True):
                gate.release(update(question, body=body))
        statement = world.statement("retailer")
        assert len(statement.charges) == 2
        assert statement.epsilon_spent == epsilon_of([NOISE, NOISE], statement.delta)

    def test_every_bucket_of_a_match_is_a_release_of_its_own(self, world: World) -> None:
        bodies = [
            kind(spec=MATCH, bucket=number)
            for kind in (messages.MatchBlinded, messages.MatchReply)
            for number in (0, 1)
        ]
        with opened(world) as gate:
            for number, body in enumerate(bodies):
                gate.release(departure(body.kind, "brand", body=body, answers=f"{number}" * 64))
        assert [leaf.release_id for leaf in leaves_of(world, records.Release)] == [
            f"model/{body.kind}/brand/bucket-{body.bucket}" for body in bodies
        ]

    def test_results_are_told_with_the_release(self, world: World) -> None:
        told = {"segment": "best", "share": 0.1, "rows": 12}
        with opened(world) as gate:
            gate.release(
                departure("expand.done", "coordinator", results=((records.SegmentWritten, told),))
            )
        assert [leaf.rows for leaf in leaves_of(world, records.SegmentWritten)] == [12]

    @pytest.mark.parametrize(
        "attempt",
        [
            lambda message, _: Released(message, key=object()),
            lambda message, _: Released(message, key=None),
            lambda message, _: type("Mine", (Released,), {})(message, key=object()),
            lambda message, released: type(released)(message, key="Gate.release"),
            lambda message, released: setattr(released, "message", message),
            lambda _, released: setattr(released, "more", b"rows"),
        ],
        ids=["any key", "no key", "a subclass", "its type", "another message", "something beside"],
    )
    def test_a_released_message_cannot_be_made_elsewhere(
        self, world: World, attempt: Callable[[SealedMessage, Released], object]
    ) -> None:
        with opened(world) as gate:
            released = gate.release(departure("present", "coordinator", people=None))
        message = released.message
        with pytest.raises((RuntimeError, AttributeError), match=r"Gate|passed the gate"):
            attempt(SealedMessage(b"{}", b"rows"), released)
        assert released.message is message

    @pytest.mark.parametrize("signed", [False, True], ids=["signed by nobody", "beside a header"])
    def test_rows_that_passed_no_gate_are_not_taken(self, world: World, *, signed: bool) -> None:
        rows = world.table("retailer").read_bytes()

        def around(name: str, _: SealedMessage, answer: SealedMessage) -> SealedMessage:
            if name != "retailer":
                return answer
            return SealedMessage(answer.envelope if signed else b"{}", rows)

        with pytest.raises(MessageError if signed else PartyUnreachableError):
            replace(world, listener=around).run()

    def test_a_party_without_a_ledger_cannot_release_a_charge(self, world: World) -> None:
        folder = world.folder("retailer")
        with folder.open_log() as log:
            gate = Gate(folder, world.agreement, log, None, clock=world.clock)
            with pytest.raises(RuntimeError, match="ledger"):
                gate.release(update())
        assert world.outbox("retailer") == {}


class TestRefusals:
    def test_outside_the_agreements_time(self, world: World) -> None:
        terms, tick = world.agreement, timedelta(milliseconds=1)  # which the clock goes on by
        for moment in (
            terms.valid_from - tick,
            terms.valid_until,
            datetime.max.replace(tzinfo=UTC),
        ):
            world.now = moment - tick
            expect_refusal(world, update(), "valid_until")
        for moment in (terms.valid_until - tick, terms.valid_from):
            world.now = moment - tick
            with opened(world) as gate:
                gate.release(update(job="last" if moment > terms.valid_from else "first"))

    def test_consent_withdrawn_since_the_people_were_read(self, world: World) -> None:
        world.withdraw("retailer", [33])
        refusal = expect_refusal(world, update(), "consent")
        assert record("retailer", 33) not in str(refusal)

    def test_people_whom_the_party_does_not_know(self, world: World) -> None:
        unknown = PeopleUsed(PURPOSE, References.of(["R1"]), 1)
        expect_refusal(world, update(people=unknown), "consent")

    def test_people_used_for_an_agreed_purpose_of_no_such_computation(self, world: World) -> None:
        wanted = update(people=replace(people(), purpose="newsletter"))
        with opened(world) as gate, pytest.raises(RefusedError, match="no permit") as refusal:
            gate.release(wanted)
        assert "to coordinator: ask for what" in str(refusal.value)  # no table is missing
        assert refusal.value.term == "policy"
        assert world.outbox("retailer") == {}
        assert isinstance(world.leaves("retailer")[-1], records.AccessDecided)

    def test_a_withdrawal_that_lies_in_the_future(self, world: World) -> None:
        world.now = datetime(2026, 2, 1, tzinfo=UTC)
        world.withdraw("retailer", [33])
        with opened(world) as gate:
            gate.release(update())
        (used,) = leaves_of(world, records.ConsentUsed)
        assert used.consent_log_size == len(PEOPLE["retailer"]) + 1

    def test_a_size_below_its_minimum_is_not_told(self, world: World) -> None:
        few = Minimum("match.minimum_match", 3, 5)
        refusal = expect_refusal(world, update(minimums=(few,)), "match.minimum_match")
        assert "5" in refusal.remedy
        assert "3" not in refusal.remedy

    def test_a_size_at_its_minimum_passes(self, world: World) -> None:
        with opened(world) as gate:
            gate.release(update(minimums=(Minimum("match.minimum_match", 5, 5),)))

    def test_a_charge_beyond_the_budget(self, world: World) -> None:
        loud = GaussianEvent(noise_multiplier=1.0)
        refusal = expect_refusal(world, update(charge=loud), "budget.epsilon")
        assert "`comity plan FILE --without-tables`" in refusal.remedy
        assert "1.2" in refusal.remedy

    def test_the_second_charge_that_would_pass_the_budget(self, world: World) -> None:
        most = GaussianEvent(noise_multiplier=4.0)
        with opened(world) as gate:
            gate.release(update(charge=most))
            with pytest.raises(RefusedError, match="budget"):
                gate.release(update("b" * 64, job="other", charge=most))
        assert [charge.charge_id for charge in world.statement("retailer").charges] == [CHARGE_ID]

    def test_the_first_of_many_reasons_is_given(self, world: World) -> None:
        """Terms are asked in a fixed order: time, parties, consent, minimums, budget."""
        bad: dict[str, dict[str, Any]] = {
            "parties": {"recipient": "brand"},
            "consent": {"people": PeopleUsed(PURPOSE, References.of(["R1"]), 1)},
            "match.minimum_match": {"minimums": (Minimum("match.minimum_match", 0, 5),)},
            "budget.epsilon": {"charge": GaussianEvent(noise_multiplier=0.5)},
        }
        wrong: dict[str, Any] = {}
        for term, change in reversed(bad.items()):
            wrong |= change
            expect_refusal(world, update(**wrong), term)
        world.now = datetime(2030, 1, 1, tzinfo=UTC)
        expect_refusal(world, update(**wrong), "valid_until")

    def test_a_refusal_is_said_without_what_a_terminal_obeys(self, world: World) -> None:
        refusal = RefusedError(party="retailer", term="consent", remedy="ask\n\x1b[2Jthem")
        with opened(world) as gate:
            sealed = gate.refuse(refusal, job="find", recipient="brand", answers="a" * 64).message
        message = unseal(sealed, world.agreement)
        assert message.body == messages.Refused(term="consent", remedy="ask  [2Jthem")

    def test_a_refusal_is_a_leaf_and_is_not_kept(self, world: World) -> None:
        refusal = RefusedError(party="retailer", term="consent", remedy="ask them " * 100)
        with opened(world) as gate:
            sealed = gate.refuse(refusal, job="find", recipient="brand", answers="a" * 64).message
            assert gate.recall("a" * 64) is None
        message = unseal(sealed, world.agreement)
        assert message.body == messages.Refused(term="consent", remedy=refusal.remedy[:500])
        assert (message.header.recipient, message.header.answers) == ("brand", "a" * 64)
        (leaf,) = leaves_of(world, records.Refusal)
        assert (leaf.job, leaf.term, leaf.remedy) == ("find", "consent", refusal.remedy[:300])
        assert world.outbox("retailer") == {}


# --- kills ------------------------------------------------------------------------------------

FINE = (
    (os, "fsync"),
    (Path, "replace"),
    (Path, "write_bytes"),
    (Path, "unlink"),
    (Ledger, "reserve"),
    (Ledger, "commit"),
    (Ledger, "refund"),
)
"""Everything that changes a disk."""
COARSE = (
    (LogWriter, "append"),
    (outbox, "write_atomically"),
    (contract, "write_atomically"),
    (Ledger, "reserve"),
    (Ledger, "commit"),
    (Ledger, "refund"),
)
"""What the gate does itself, each a whole."""


def killed_before(change: Callable[..., Any], countdown: Iterator[int]) -> Callable[..., Any]:
    """Wrap a change of the disk: when the countdown is at 0, this process ends without a word."""

    @wraps(change)
    def watched(*arguments: Any, **fields: Any) -> Any:
        if next(countdown) == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return change(*arguments, **fields)

    return watched


def survives(seams: tuple[tuple[Any, str], ...], after: int, work: Callable[[], object]) -> bool:
    """Do the work in a process killed before its n-th change; tell whether it ended first."""
    child = os.fork()
    if child == 0:
        in_child(seams, after, work)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0, "the work raised"
    return True


def in_child(
    seams: tuple[tuple[Any, str], ...], after: int, work: Callable[[], object]
) -> NoReturn:
    try:
        countdown = count(after, -1)
        for owner, name in seams:
            setattr(owner, name, killed_before(getattr(owner, name), countdown))
        work()
        os._exit(0)
    except BaseException:  # noqa: BLE001 -- nothing may run on in the child
        os._exit(1)


def release(world: World, payload: bytes) -> SealedMessage:
    with opened(world) as gate:
        return gate.release(update(payload=payload)).message


def check_interrupted(world: World) -> bytes | None:
    """Whatever lies about was logged first; return the envelope if it is in the outbox."""
    released = {leaf.content_digest for leaf in leaves_of(world, records.Release)}
    kept = [content for name, content in world.outbox("retailer").items() if name[0] != "."]
    envelopes = [content for content in kept if content.startswith(b'{"payload"')]
    assert {content_digest(envelope) for envelope in envelopes} <= released
    if kept:
        assert leaves_of(world, records.Release)
    committed = world.statement("retailer").epsilon_committed
    assert not committed or envelopes, "charged, and nothing has left"
    return envelopes[0] if envelopes else None


def check_settled(world: World, envelope: bytes | None) -> None:
    """Charged if, and only if, it is in the outbox; log and ledger say the same."""
    with opened(world):
        pass
    states = [charge.state for charge in world.statement("retailer").charges]
    if envelope is not None:
        assert states == [ChargeState.COMMITTED]
        assert len(leaves_of(world, records.BudgetCommitted)) == 1
    else:
        assert states in ([], [ChargeState.REFUNDED])
        assert not leaves_of(world, records.BudgetCommitted)
        refunds = len(leaves_of(world, records.BudgetRefunded))
        assert refunds == len(leaves_of(world, records.BudgetReserved))


def check_repeated(world: World, envelope: bytes | None) -> None:
    """The same bytes if they had left; one charge in any case."""
    sealed = release(world, b"second")
    if envelope is not None:
        assert (sealed.envelope, sealed.payload) == (envelope, b"first")
    else:
        assert sealed.payload == b"second"
    assert release(world, b"third") == sealed
    statement = world.statement("retailer")
    assert [charge.state for charge in statement.charges] == [ChargeState.COMMITTED]
    (committed,) = leaves_of(world, records.BudgetCommitted)
    price = epsilon_of([NOISE], statement.delta)
    assert statement.epsilon_spent == committed.epsilon_spent == price


def test_a_kill_at_any_change_of_the_disk_charges_exactly_what_has_left(
    settled: World, tmp_path: Path, thorough: bool
) -> None:
    outcomes = set()
    for step in count(0, 1 if thorough else 2):
        world = settled.copy(tmp_path / str(step))
        ended = survives(FINE, step, lambda world=world: release(world, b"first"))
        envelope = check_interrupted(world)
        check_settled(world, envelope)
        check_repeated(world, envelope)
        outcomes.add((ended, envelope is not None))
        if ended:
            break
    assert step > 20
    assert outcomes == {(False, False), (False, True), (True, True)}


def test_a_kill_while_settling_what_a_kill_left_changes_nothing(
    settled: World, tmp_path: Path
) -> None:
    kills = 0
    for first in count():
        killed = settled.copy(tmp_path / f"{first}")
        ended = survives(COARSE, first, lambda world=killed: release(world, b"first"))
        for second in count():
            world = killed.copy(tmp_path / f"{first}.{second}")
            done = survives(COARSE, second, lambda world=world: settle(world))
            envelope = check_interrupted(world)
            check_settled(world, envelope)
            check_repeated(world, envelope)
            kills += not done
            if done:
                break
        if ended:
            break
    assert first >= 5
    assert kills >= 8


def settle(world: World) -> None:
    with opened(world):
        pass


@pytest.mark.parametrize(("owner", "name"), [*FINE, (LogWriter, "append"), (LocalFiles, "replace")])
def test_a_failure_of_any_change_is_mended_by_asking_again(
    world: World, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    def full(*_: Any, **__: Any) -> NoReturn:
        raise OSError(28, "No space left on device")

    with opened(world) as gate, monkeypatch.context() as patch:
        patch.setattr(owner, name, full)
        if name in {"unlink", "refund"}:
            gate.release(update(payload=b"first"))
        else:
            with pytest.raises(Exception, match="No space"):
                gate.release(update(payload=b"first"))
    envelope = check_interrupted(world)
    check_settled(world, envelope)
    check_repeated(world, envelope)


def test_now_is_within_the_contract(settled: World) -> None:
    settled.agreement.check_time(NOW)
