"""The steps of an alignment, one at a time, without a folder: states, plans, and the coordinator."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import parties
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parties import Parties
from pydantic import ValidationError

from compliance.agreement import Agreement
from compliance.errors import InvalidAgreementError
from compliance.terms import AlignmentTerms, Role
from federation.errors import MessageError, RefusedError
from federation.jobs.align import AlignPlan, AlignState, coordinate_align, count_mechanism
from federation.jobs.exchange import Relay, Say
from federation.messages import (
    Acknowledged,
    AlignBind,
    AlignBlind,
    AlignBound,
    AlignCommon,
    AlignDone,
    AlignInvite,
    AlignJoin,
    AlignJoined,
    AlignPass,
    AlignSeed,
    AlignSide,
    AlignTags,
    Body,
    Encrypted,
    Header,
    Message,
    Refused,
    SealedMessage,
)
from federation.objections import policy_objections
from federation.plan import PlannedJob, plan
from federation.routes import ROUTES
from federation.specification import AlignSpec, MatchSpec
from privacy.accounting.accountant import epsilon_of
from privacy.errors import PeerMessageError
from privacy.psi.buckets import bucket_numbers
from privacy.psi.portable import PortableEngine
from privacy.randomness import Secret, seeded_secret

ENGINE = PortableEngine(workers=1)
ONE, TWO, THREE = (digit * 64 for digit in "123")
SPEC = AlignSpec(name="together")
SEED = seeded_secret(4, "seed")
NAMES = ("brand", "courier", "retailer", "store", "tram", "post", "bank", "press", "bus")


def side(commitment: str = ONE, recipe: str = ONE) -> AlignSide:
    return AlignSide(recipe=recipe, commitment=commitment)


SIDES = (side(ONE), side(TWO), side(THREE))


def agreement_of(
    count: int = 3, *, epsilon: float | None = 10.0, delta: float = 0.014
) -> Agreement:
    roles = {"brand": Role.BRAND, "coordinator": Role.COORDINATOR}
    alignment = (
        {"alignment": {"key": "email", "epsilon": epsilon, "delta": delta}} if epsilon else {}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parties, "ROLES", roles | dict.fromkeys(NAMES[1:count], Role.PARTNER))
        return Parties.in_memory(
            match={"maximum_matches": 7, "period_days": 365} | alignment,
            train={"max_parties_per_person": 1},
            budget={"delta": 0.999},
        ).agreement


AGREEMENTS = {count: agreement_of(count) for count in (3, 4, 5)}


def plan_of(count: int = 3, bucket_points: int = 64) -> AlignPlan:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AlignSpec, "bucket_points", bucket_points)
        return AlignPlan.of(SPEC, AGREEMENTS[count], party="brand")


def tokens(numbers: Iterable[int]) -> np.ndarray:
    raw = b"".join(b"\x01" + hashlib.sha256(str(number).encode()).digest() for number in numbers)
    return np.frombuffer(raw, dtype=np.uint8).reshape(-1, 33)


# --- terms ---------------------------------------------------------------------------------------


def contract(count: int = 3, **changes: object) -> Agreement:
    """The agreement of so many data parties, with its alignment changed."""
    terms = AGREEMENTS[3].match.model_dump(mode="json")
    terms["alignment"] = {"key": "email", "epsilon": 1.0} | changes
    document = agreement_of(count, epsilon=None).model_dump(mode="json") | {"match": terms}
    return Agreement.from_terms(document)


@pytest.mark.parametrize("count", [3, 8])
def test_three_to_eight_data_parties_can_agree_on_an_alignment(count: int) -> None:
    agreed = contract(count).match.alignment
    assert agreed == AlignmentTerms(key="email", epsilon=1.0, delta=1e-12)


@pytest.mark.parametrize("count", [2, 9])
def test_fewer_or_more_cannot(count: int) -> None:
    agreement_of(count, epsilon=None)
    with pytest.raises(InvalidAgreementError, match=f"3 to 8 parties with data sets, got {count}"):
        contract(count)


def test_the_key_of_an_alignment_is_one_of_the_match_and_every_data_set_has_it() -> None:
    with pytest.raises(InvalidAgreementError, match=r"alignment\.key 'member_id' is none of the"):
        contract(key="member_id")
    document = contract(key="phone").model_dump(mode="json")
    document["datasets"][1]["identifiers"] = ["email"]
    with pytest.raises(InvalidAgreementError, match=r"'courier' lacks phone, the key of match"):
        Agreement.from_terms(document)
    document["match"]["alignment"] = None
    Agreement.from_terms(document)


@pytest.mark.parametrize(
    "change", [{"epsilon": 0.0}, {"epsilon": 10.5}, {"epsilon": 1e-4}, {"delta": 0.0}, {"more": 1}]
)
def test_an_alignment_out_of_range_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InvalidAgreementError, match=r"match\.alignment"):
        contract(**change)


def test_the_plan_of_a_collaboration_tells_the_price_of_an_alignment() -> None:
    def planned(epsilon: float, **agreed: object) -> PlannedJob:
        alignment = {"key": "email", "epsilon": epsilon} | agreed
        terms = {"match": {"alignment": alignment}, "train": {"epsilon": 0.5}}
        document = parties.collaboration(**terms).model_copy(update={"jobs": (SPEC,)})
        (job,) = plan(document, clock=lambda: parties.NOW).jobs
        return job

    job = planned(1.0)
    assert job.who == ("brand", "retailer", "courier")
    assert (job.refused_by, job.epsilon, job.epsilon_spent) == (
        None,
        pytest.approx(1, rel=1e-3),
        job.epsilon,
    )
    assert planned(1.3).refused_by == "budget.epsilon"
    assert planned(0.001, delta=1e-100).refused_by == "match.alignment.epsilon"


# --- state ---------------------------------------------------------------------------------------


def bound() -> AlignState:
    return AlignState(own=SIDES[1]).bind(SIDES, 1, 3)


def test_a_party_is_bound_to_what_all_say_once() -> None:
    assert bound().sides == SIDES
    assert bound().bind(SIDES, 1, 3) == bound()
    heard = bound().hear(0, 2, ONE)
    assert heard.bind(SIDES, 1, 3) == heard
    with pytest.raises(MessageError, match="before"):
        bound().bind((side(TWO), SIDES[1], SIDES[2]), 1, 3)


@pytest.mark.parametrize(
    ("sides", "parties"), [(SIDES[:2], 3), ((*SIDES, side()), 3), ((SIDES[1], *SIDES[1:]), 3)]
)
def test_a_wrong_number_of_sides_or_another_own_one_is_refused(
    sides: tuple[AlignSide, ...], parties: int
) -> None:
    state = AlignState(own=SIDES[0])
    with pytest.raises(MessageError, match="otherwise than they are"):
        state.bind(sides, 0, parties)


def test_nothing_is_heard_before_the_parties_are_bound() -> None:
    with pytest.raises(MessageError, match="before the parties"):
        AlignState(own=side()).hear(0, 0, ONE)
    with pytest.raises(MessageError, match="before all sets"):
        AlignState(own=side()).end(0, ONE)


def test_one_message_counts_for_each_set_of_a_bucket() -> None:
    state = bound()
    for place, digest in ((2, ONE), (0, TWO), (1, ONE)):
        state = state.hear(0, place, digest)
        assert state.hear(0, place, digest) == state
        with pytest.raises(MessageError, match="second message for bucket 0"):
            state.hear(0, place, THREE)
        for other in (1, 2):
            with pytest.raises(MessageError, match=f"bucket {other}; expected 0"):
                state.hear(other, place, digest)
    assert state.heard == (TWO, ONE, ONE)
    assert state.forget(0).hear(0, 0, THREE).heard == (THREE, ONE, ONE)


def test_a_bucket_ends_once_and_only_when_every_set_came_round() -> None:
    state = bound()
    for place in range(3):
        with pytest.raises(MessageError, match="before all sets"):
            state.end(0, ONE)
        state = state.hear(0, place, ONE)
    with pytest.raises(MessageError, match="bucket 1 before"):
        state.end(1, ONE)
    ended = state.end(0, TWO)
    assert (ended.ended, ended.heard) == ((TWO,), (None,) * 3)
    assert ended.end(0, TWO) == ended
    with pytest.raises(MessageError, match="second end of bucket 0"):
        ended.end(0, ONE)
    with pytest.raises(MessageError, match="bucket 0; expected 1"):
        ended.hear(0, 1, ONE)
    assert ended.hear(1, 1, ONE).heard == (None, ONE, None)


def test_a_state_is_stored_and_read_again_closed() -> None:
    state = bound().hear(0, 2, ONE)
    assert AlignState.model_validate_json(state.model_dump_json()) == state
    for wrong in ({"heard": ["x"]}, {"more": 1}, {"own": None}):
        with pytest.raises(ValidationError):
            AlignState.model_validate(state.model_dump() | wrong)


# --- plan ----------------------------------------------------------------------------------------


def test_everybody_derives_the_same_plan_with_room_for_every_dummy() -> None:
    for count, agreement in AGREEMENTS.items():
        plan = AlignPlan.of(SPEC, agreement, party="courier")
        assert plan == AlignPlan.of(SPEC, agreement, party="coordinator")
        assert plan.parties == NAMES[:count]
        assert (plan.points, plan.buckets) == ((50,) * count, 1)
        assert plan.ring.capacities == (50 + plan.ring.most_dummies,) * count
        assert plan.ring.delta == 0.014
    assert plan_of(3, 24).buckets == 5


def test_each_party_sends_points_for_the_rows_that_it_declared_alone() -> None:
    """The largest set decides on the number of buckets, and on nobody else's room to guess."""
    agreement, rows = AGREEMENTS[3], {"courier": 71, "retailer": 10_000, "brand": 50}
    datasets = tuple(
        one.model_copy(update={"declared_rows": rows[one.party]}) for one in agreement.datasets
    )
    changed = agreement.model_copy(update={"datasets": datasets})
    plan = AlignPlan.of(SPEC, changed, party="brand")
    padded = {"courier": 80, "retailer": 10_000, "brand": 50}
    assert plan.points == tuple(padded[name] for name in plan.parties)
    capacities = dict(zip(plan.parties, plan.ring.capacities, strict=True))
    assert capacities == {name: n + plan.ring.most_dummies for name, n in padded.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AlignSpec, "bucket_points", 1_000)
        plan = AlignPlan.of(SPEC, changed, party="brand")
    assert plan.buckets == 11
    mean = [points / plan.buckets for points in plan.points]
    assert all(
        own <= capacity - plan.ring.most_dummies <= points
        for own, capacity, points in zip(mean, plan.ring.capacities, plan.points, strict=True)
    )


def test_a_buckets_points_stay_within_the_jobs_room() -> None:
    for room in (24, 40, 64):
        plan = plan_of(3, room)
        mean = max(plan.points) / plan.buckets + plan.ring.most_dummies
        assert mean <= room


def test_the_noise_is_charged_at_what_was_agreed() -> None:
    terms = AlignmentTerms(key="email", epsilon=0.5)
    mechanism = count_mechanism(terms)
    assert (mechanism.scale, mechanism.sensitivity) == (4.0, 2)
    assert epsilon_of([mechanism], 1e-9) == pytest.approx(0.5, rel=1e-3)


def test_an_alignment_that_was_not_agreed_is_refused() -> None:
    agreement = agreement_of(epsilon=None)
    with pytest.raises(RefusedError, match=r"refused by brand under match\.alignment:"):
        AlignPlan.of(SPEC, agreement, party="brand")
    ((term, _),) = policy_objections(SPEC, agreement)
    assert term == "match.alignment"
    assert policy_objections(SPEC, AGREEMENTS[3]) == ()
    assert policy_objections(MatchSpec(name="find"), agreement) == ()


def test_noise_that_would_fill_the_memory_is_refused_before_anything_is_said() -> None:
    most = plan_of(5, 200).ring.most_dummies
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AlignSpec, "bucket_points", 2 * most)
        assert len(next(coordinate_align(AGREEMENTS[5], SPEC))) == 5
        patch.setattr(AlignSpec, "bucket_points", 2 * most - 1)
        with pytest.raises(RefusedError, match=r"by coordinator under match\.alignment\.epsilon"):
            next(coordinate_align(AGREEMENTS[5], SPEC))


def test_the_ring_goes_round() -> None:
    for count in AGREEMENTS:
        plan = plan_of(count, 200)
        after = [plan.after(name) for name in plan.parties]
        assert after == [*plan.parties[1:], plan.parties[0]]
        assert [plan.before(name) for name in after] == list(plan.parties)


def test_a_bucket_or_place_that_there_is_not_is_refused() -> None:
    plan = plan_of(3, 24)
    plan.within(4, 2)
    for bucket, place in ((5, 0), (0, 3)):
        with pytest.raises(MessageError, match="no such"):
            plan.within(bucket, place)


def test_a_buckets_secret_belongs_to_one_set_cut_and_bucket() -> None:
    own = [seeded_secret(4, name) for name in ("brand", "courier")]
    secrets = [
        plan.secret(of, digest, bucket)
        for plan in (plan_of(3, 24), plan_of(3, 40))
        for of in own
        for digest in (ONE, TWO)
        for bucket in range(2)
    ]
    assert len(set(secrets)) == len(secrets) == 16


def round_the_ring(plan: AlignPlan, held: Sequence[Sequence[int]]) -> list[list[int]]:
    """Align sets of numbers; return what each party finds, bucket after bucket."""
    found: list[list[int]] = [[] for _ in held]
    count = len(plan.parties)
    cut = [
        [
            [
                one
                for one, at in zip(own, bucket_numbers(tokens(own), plan.buckets), strict=True)
                if at == bucket
            ]
            for bucket in range(plan.buckets)
        ]
        for own in held
    ]
    for bucket in range(plan.buckets):
        keys = [
            plan.secret(seeded_secret(6, name), f"{place}", bucket)
            for place, name in enumerate(plan.parties)
        ]
        tags = []
        for place, name in enumerate(plan.parties):
            own = tokens(cut[place][bucket])
            payload = plan.blind(name, bucket, own, keys[place], SEED, ENGINE)
            for hop in range(1, count):
                key = keys[(place + hop) % count]
                payload = plan.pass_on(payload, place, key, ENGINE, last=hop + 1 == count)
            tags.append(payload)
        for place, places in enumerate(plan.compare(tags)):
            own_numbers = cut[place][bucket]
            hits = plan.matched(len(own_numbers), plan.parties[place], keys[place], places)
            found[place] += [own_numbers[hit] for hit in hits]
    return found


sets = st.lists(st.integers(0, 15), unique=True, max_size=14)


@settings(max_examples=15)
@given(held=st.lists(sets, min_size=3, max_size=4), bucket_points=st.sampled_from([64, 80]))
def test_everybody_finds_the_plain_intersection_in_one_order(
    held: list[list[int]], bucket_points: int
) -> None:
    found = round_the_ring(plan_of(len(held), bucket_points), held)
    assert all(one == found[0] for one in found)
    assert sorted(found[0]) == sorted(set.intersection(*map(set, held)))


def test_several_buckets_together_are_the_plain_intersection() -> None:
    plan = plan_of(3, 24)
    held = [list(range(40)), list(range(10, 50)), list(range(5, 30))]
    found = round_the_ring(plan, held)
    assert found[0] == found[1] == found[2]
    assert sorted(found[0]) == list(range(10, 30))


def test_each_bucket_has_dummies_of_its_own() -> None:
    plan = plan_of(3, 24)
    key = seeded_secret(1, "key")
    blinded = [plan.blind("brand", bucket, tokens([]), key, SEED, ENGINE) for bucket in (0, 1)]
    points = [{one[at : at + 32] for at in range(0, len(one), 32)} for one in blinded]
    padding = points[0] & points[1]  # as only a test may repeat a secret
    assert 0 < len(padding) < len(points[0])


def blinded_by_brand() -> tuple[AlignPlan, bytes, Secret]:
    plan = plan_of()
    key = seeded_secret(1, "key")
    return plan, plan.blind("brand", 0, tokens(range(9)), key, SEED, ENGINE), key


@pytest.mark.parametrize("last", [False, True])
def test_points_that_break_the_protocol_are_refused(*, last: bool) -> None:
    plan, points, key = blinded_by_brand()
    for wrong in (b"", points[:-1], points[:-32], points + points[:32]):
        with pytest.raises(MessageError, match="plan the same buckets"):
            plan.pass_on(wrong, 0, key, ENGINE, last=last)
    for first in ((2).to_bytes(32, "little"), bytes(32), b"\xff" * 32, points[32:64]):
        with pytest.raises(PeerMessageError):
            plan.pass_on(first + points[32:], 0, key, ENGINE, last=last)


def test_tags_that_are_none_are_refused_by_the_coordinator() -> None:
    plan, points, key = blinded_by_brand()
    tags = plan.pass_on(points, 0, key, ENGINE, last=True)
    assert len(plan.compare([tags] * 3)) == 3
    for wrong in (b"", tags[:-12], tags + tags[:12], tags[:12] + tags[:-12], points):
        for at in range(3):
            with pytest.raises(MessageError):
                plan.compare([wrong if one == at else tags for one in range(3)])


def test_places_that_cannot_be_are_refused() -> None:
    plan, _, key = blinded_by_brand()

    def payload(*places: int) -> bytes:
        return np.array(places, dtype="<u4").tobytes()

    (most, *_) = plan.ring.capacities
    plan.matched(9, "brand", key, payload(0, most - 1))
    for longer in (payload(0)[:-1], payload(*range(most), 0), bytes(1 << 20)):
        with pytest.raises(MessageError, match=f"a multiple of 4, up to {4 * most}"):
            plan.matched(9, "brand", key, longer)
    for wrong in (payload(1, 1), payload(most), payload(2**32 - 1)):
        with pytest.raises(PeerMessageError):
            plan.matched(9, "brand", key, wrong)


# --- the coordinator -----------------------------------------------------------------------------

PLAN = plan_of(3, 24)
TAGS = [
    np.random.default_rng(7).bytes(12 * PLAN.ring.capacities[0])
    for _ in range(PLAN.buckets * len(PLAN.parties))
]


def heard(sender: str, recipient: str, body: Body, payload: bytes = b"") -> Message:
    """What the coordinator makes of what somebody said: it reads kinds alone of some."""
    secret = ROUTES[body.kind].encrypted
    outside: Any = Encrypted(encrypts=body.kind) if secret else body
    header = Header(
        agreement="0" * 64,
        job=SPEC.name,
        sender=sender,
        recipient=recipient,
        body=outside,
        payload_digest="0" * 64,
        payload_bytes=0,
    )
    return Message(header, outside, payload, SealedMessage(f"{sender} {body.kind}".encode(), b""))


def passed(bucket: int, hop: int) -> list[Message]:
    """What the parties answer after the hop-th multiplication, in the order of sets."""
    ring = PLAN.parties
    said = []
    for place in range(3):
        sender = ring[(place + hop) % 3]
        if hop < 2:
            body: Body = AlignPass(spec=SPEC, bucket=bucket, place=place)
            said.append(heard(sender, ring[(place + hop + 1) % 3], body))
        else:
            tags = AlignTags(bucket=bucket, place=place)
            said.append(heard(sender, "coordinator", tags, TAGS[3 * bucket + place]))
    return said


def answered(body: Body) -> list[Message]:
    return [heard(name, "coordinator", body) for name in PLAN.parties]


def script() -> Iterator[tuple[list[Any], list[Message]]]:
    """Every question of a whole alignment, with its right answers."""
    ring = PLAN.parties

    def ask(body: Body, payload: bytes = b"") -> list[Any]:
        return [Say(name, "together", body, payload) for name in ring]

    joined = [
        heard(n, "coordinator", AlignJoined(side=s)) for n, s in zip(ring, SIDES, strict=True)
    ]
    yield ask(AlignJoin(spec=SPEC)), joined
    signed = b"\n".join(one.sealed.envelope for one in joined)
    yield ask(AlignBind(spec=SPEC), signed), answered(AlignBound())
    seeds = [heard("brand", name, AlignSeed(spec=SPEC)) for name in ring[1:]]
    yield [Say("brand", "together", AlignInvite(spec=SPEC, place=at)) for at in (1, 2)], seeds
    yield [Relay(one) for one in seeds], answered(Acknowledged())[1:]
    for bucket in range(PLAN.buckets):
        yield ask(AlignBlind(spec=SPEC, bucket=bucket)), passed(bucket, 0)
        yield [Relay(one) for one in passed(bucket, 0)], passed(bucket, 1)
        yield [Relay(one) for one in passed(bucket, 1)], passed(bucket, 2)
        places = PLAN.compare(TAGS[3 * bucket : 3 * bucket + 3])
        last = bucket + 1 == PLAN.buckets
        common = AlignCommon(spec=SPEC, bucket=bucket)
        yield (
            [Say(n, "together", common, p) for n, p in zip(ring, places, strict=True)],
            answered(AlignDone() if last else Acknowledged()),
        )


SCRIPT = list(script())


def at_turn(turn: int) -> Any:
    """Drive the job to its question of that number."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AlignSpec, "bucket_points", 24)
        job = coordinate_align(AGREEMENTS[3], SPEC)
        assert next(job) == SCRIPT[0][0]
    for (_, answers), (question, _) in itertools.pairwise(SCRIPT[: turn + 1]):
        assert job.send(answers) == question
    return job


def test_the_coordinator_asks_everything_in_its_order_and_ends() -> None:
    assert len(SCRIPT) == 4 + 4 * PLAN.buckets
    with pytest.raises(StopIteration):
        at_turn(len(SCRIPT) - 1).send(SCRIPT[-1][1])


TURNS = [*range(8), len(SCRIPT) - 1]


@pytest.mark.parametrize("turn", TURNS)
def test_only_the_right_answer_is_taken_from_anybody(turn: int) -> None:
    """Else points could come to a party twice, or to another than the next."""
    right = SCRIPT[turn][1]
    kinds: dict[str, Body] = {
        body.kind: body
        for body in (
            AlignJoined(side=SIDES[0]),
            AlignBound(),
            AlignSeed(spec=SPEC),
            AlignPass(spec=SPEC, bucket=0, place=0),
            AlignTags(bucket=0, place=0),
            AlignDone(),
            Acknowledged(),
        )
    }
    for at, message in enumerate(right):
        sender, recipient = message.header.sender, message.header.recipient

        def sent(other: Message, at: int = at) -> Any:
            return at_turn(turn).send([*right[:at], other, *right[at + 1 :]])

        for kind, body in kinds.items():
            if kind != message.header.kind:
                with pytest.raises(MessageError, match="expected"):
                    sent(heard(sender, recipient, body))
        with pytest.raises(RefusedError, match="consent"):
            sent(heard(sender, "coordinator", Refused(term="consent", remedy="ask")))


@pytest.mark.parametrize("turn", [2, 4, 5])
def test_what_goes_to_another_than_the_next_party_is_not_carried(turn: int) -> None:
    right = SCRIPT[turn][1]
    for at, message in enumerate(right):
        sender, told = message.header.sender, message.header.recipient
        (other,) = set(PLAN.parties) - {sender, told}
        body: Body = AlignPass(spec=SPEC, bucket=0, place=at) if turn > 2 else AlignSeed(spec=SPEC)
        with pytest.raises(MessageError, match=f"to {other}; expected to {told}"):
            at_turn(turn).send([*right[:at], heard(sender, other, body), *right[at + 1 :]])


def test_tags_of_another_bucket_or_set_are_refused() -> None:
    right = SCRIPT[6][1]
    for body in (AlignTags(bucket=1, place=0), AlignTags(bucket=0, place=1)):
        with pytest.raises(MessageError, match="expected bucket 0 of set 0"):
            at_turn(6).send([heard("retailer", "coordinator", body, TAGS[0]), *right[1:]])
    with pytest.raises(MessageError, match="distinct tags"):
        at_turn(6).send(
            [
                heard(
                    "retailer",
                    "coordinator",
                    AlignTags(bucket=0, place=0),
                    TAGS[0][:12] * PLAN.ring.capacities[0],
                ),
                *right[1:],
            ]
        )


@pytest.mark.parametrize("at", range(3))
def test_parties_that_normalise_differently_are_told_before_anybody_pays(at: int) -> None:
    right = SCRIPT[0][1]
    name = PLAN.parties[at]
    other = heard(name, "coordinator", AlignJoined(side=side(THREE, TWO)))
    with pytest.raises(RefusedError, match=r"refused by coordinator under match\.recipe: ") as told:
        at_turn(0).send([*right[:at], other, *right[at + 1 :]])
    assert name in told.value.remedy
