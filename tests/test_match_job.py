"""The steps of a match, one at a time, without a folder: states, plans, and the coordinator."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import parties
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parties import MATCH, Parties
from pydantic import ValidationError

from compliance.agreement import Agreement
from compliance.terms import Linkage, MatchTerms, Reveal, Role
from federation.errors import MessageError, RefusedError
from federation.jobs.exchange import Relay, Say, Tolerant
from federation.jobs.match import (
    PLACE,
    Comparison,
    MatchPlan,
    MatchState,
    RecordPlan,
    coordinate_match,
    learner_of,
    named_places,
    places_of,
    record_widths,
    size_mechanism,
)
from federation.jobs.match import outcome as match_outcome
from federation.jobs.match.outcome import MOST_BYTES, OutcomeForm
from federation.messages import (
    Acknowledged,
    Body,
    Encrypted,
    Header,
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
)
from federation.specification import MatchSpec
from privacy.errors import PeerMessageError
from privacy.psi.buckets import bucket_numbers
from privacy.psi.portable import PortableEngine
from privacy.psi.records import Groups
from privacy.randomness import SecretStream, seeded_secret

ENGINE = PortableEngine(workers=1)
ONE, TWO = "1" * 64, "2" * 64
LEARNER, PEER = (seeded_secret(5, name) for name in ("learner", "peer"))
LINKAGES = [
    one for one in product(Reveal, Linkage) if one != (Reveal.BOTH_LEARN_MEMBERS, Linkage.ANY_KEY)
]


def side(points: int = 10, commitment: str = ONE, recipe: str = ONE) -> MatchSide:
    return MatchSide(recipe=recipe, points=points, commitment=commitment)


def terms(reveal: Reveal, linkage: Linkage = Linkage.ONE_TO_ONE) -> MatchTerms:
    return MatchTerms(
        purpose="p",
        default_region="US",
        email_rule="provider_rules",
        keys=("email",),
        linkage=linkage,
        reveal=reveal,
        minimum_match=1,
        set_size_bucket=1,
        size_epsilon=2.0 if reveal is Reveal.SIZE_ONLY else None,
        size_delta=0.01,
    )


def plan_of(agreed: MatchTerms, learner: int, peer: int, bucket_points: int = 1 << 18) -> MatchPlan:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MatchSpec, "bucket_points", bucket_points)
        return MatchPlan.of(MATCH, agreed, learner=side(learner), peer=side(peer))


def tokens(numbers: Iterable[int]) -> np.ndarray:
    raw = b"".join(b"\x01" + hashlib.sha256(str(number).encode()).digest() for number in numbers)
    return np.frombuffer(raw, dtype=np.uint8).reshape(-1, 33)


# --- state ---------------------------------------------------------------------------------------


def test_a_side_meets_the_other_once_and_hears_the_same_words_again() -> None:
    state = MatchState(own=side())
    assert state.other is None
    met = state.meet(side(20, TWO))
    assert (met.own, met.other) == (side(), side(20, TWO))
    assert met.meet(side(20, TWO)) == met
    assert state.other is None  # frozen


@pytest.mark.parametrize("other", [side(30, TWO), side(20, ONE), side(20, TWO, TWO)])
def test_another_description_of_the_other_side_is_refused(other: MatchSide) -> None:
    with pytest.raises(MessageError, match="another set"):
        MatchState(own=side()).meet(side(20, TWO)).meet(other)


def test_one_message_counts_for_each_bucket_in_order() -> None:
    state = MatchState(own=side())
    for bucket, digest in enumerate((ONE, TWO, ONE)):
        with pytest.raises(MessageError, match=rf"bucket {bucket + 1}; expected {bucket}"):
            state.hear(bucket + 1, digest)
        state = state.hear(bucket, digest)
        assert len(state.heard) == bucket + 1
    assert state.heard == (ONE, TWO, ONE)


def test_a_repeated_message_changes_nothing_and_a_second_one_is_refused() -> None:
    state = MatchState(own=side()).hear(0, ONE).hear(1, TWO)
    assert state.hear(0, ONE) == state.hear(1, TWO) == state
    for bucket, digest in ((0, TWO), (1, ONE)):
        with pytest.raises(MessageError, match=f"second message for bucket {bucket}"):
            state.hear(bucket, digest)


def test_the_last_message_is_marked_until_it_is_taken_back() -> None:
    state = MatchState(own=side()).hear(0, ONE).hear(1, TWO, last=True)
    assert state.last
    assert state.hear(1, TWO, last=True) == state
    assert not state.forget(1).last
    assert not MatchState(own=side()).hear(0, ONE).last


def test_a_message_that_was_taken_back_leaves_its_bucket_open() -> None:
    state = MatchState(own=side()).hear(0, ONE)
    assert state.forget(1) == state
    assert state.hear(1, TWO).forget(1) == state
    assert state.hear(1, TWO).forget(1).hear(1, ONE).heard == (ONE, ONE)


def test_a_state_is_stored_and_read_again_closed() -> None:
    state = MatchState(own=side()).meet(side(20, TWO)).hear(0, ONE)
    assert MatchState.model_validate_json(state.model_dump_json()) == state
    for wrong in ({"heard": ["x"]}, {"more": 1}, {"own": None}):
        with pytest.raises(ValidationError):
            MatchState.model_validate(state.model_dump() | wrong)


# --- plan ----------------------------------------------------------------------------------------


def test_both_sides_make_the_same_plan_from_both_sizes() -> None:
    for reveal in Reveal:
        plan = plan_of(terms(reveal), 100, 40, 16)
        assert plan == plan_of(terms(reveal), 100, 40, 16)
        assert plan.buckets.count == 7
        assert plan.buckets.receiver_capacity > plan.buckets.sender_capacity
    assert plan_of(terms(Reveal.BOTH_LEARN_MEMBERS), 100, 40, 100).buckets.count == 1


def test_a_plan_of_sizes_has_room_for_every_dummy_at_both_sides() -> None:
    noised, plain = (
        plan_of(terms(reveal), 100, 40, 16)
        for reveal in (Reveal.SIZE_ONLY, Reveal.PARTNER_LEARNS_MEMBERS)
    )
    assert noised.noise is not None
    room = noised.noise.dummies_per_bucket
    assert room > 0
    assert noised.buckets.receiver_capacity == plain.buckets.receiver_capacity + room
    assert noised.buckets.sender_capacity == plain.buckets.sender_capacity + room


def test_only_sizes_alone_are_blurred_against_the_learner() -> None:
    for reveal in Reveal:
        agreed = terms(reveal).model_copy(update={"size_epsilon": 1.0})
        assert size_mechanism(agreed) is not None
        assert (plan_of(agreed, 10, 10).noise is not None) is (reveal is Reveal.SIZE_ONLY)
    assert size_mechanism(terms(Reveal.BOTH_LEARN_MEMBERS)) is None


def test_records_are_numbered_only_where_each_may_match_one_other_and_members_are_learnt() -> None:
    numbered = {
        (reveal, linkage)
        for reveal, linkage in LINKAGES
        if plan_of(terms(reveal, linkage), 10, 10).links_records
    }
    assert numbered == {
        (reveal, Linkage.ONE_TO_ONE) for reveal in Reveal if reveal is not Reveal.SIZE_ONLY
    }


def test_a_buckets_secret_belongs_to_one_pair_set_cut_and_bucket() -> None:
    plans = [plan_of(terms(Reveal.BOTH_LEARN_MEMBERS), 100, 40, points) for points in (16, 50)]
    secrets = [
        plan.secret(of, digest, bucket)
        for plan in plans
        for of in (LEARNER, PEER)
        for digest in (ONE, TWO)
        for bucket in range(2)
    ]
    assert len(set(secrets)) == len(secrets) == 16
    assert plans[0].secret(LEARNER, ONE, 0) == secrets[0]


def agreed(mine: int, theirs: int, **match: object) -> Agreement:
    """The brand bears `theirs` identifiers a person, and the retailer `mine`."""
    agreement = Parties.in_memory().agreement
    widths = {"brand": theirs, "retailer": mine}
    datasets = tuple(
        one.model_copy(update={"identifiers_per_person": widths.get(one.party, 9)})
        for one in agreement.datasets
    )
    terms_ = agreement.match.model_copy(update=match)
    return agreement.model_copy(update={"datasets": datasets, "match": terms_})


ANY, ONE_EACH = {"linkage": Linkage.ANY_KEY}, {"linkage": Linkage.ONE_TO_ONE}


@pytest.mark.parametrize(
    ("mine", "theirs", "match", "expected"),
    [
        (3, 2, ONE_EACH, (3, 2)),
        (3, 2, ANY, (3, 1)),
        (3, 1, ONE_EACH, (3, 1)),
        (1, 2, ONE_EACH, (1, 2)),
        (1, 2, ANY, None),  # one identifier of the learner's: nothing to hide
        (1, 1, ONE_EACH, None),
        (3, 2, ONE_EACH | {"reveal_keys": True}, None),
        (3, 2, ANY | {"reveal_keys": True}, None),
        (3, 2, {"reveal": Reveal.SIZE_ONLY}, None),
    ],
)
def test_records_are_matched_where_somebody_bears_several_identifiers_and_keys_are_hidden(
    mine: int, theirs: int, match: dict[str, object], expected: tuple[int, int] | None
) -> None:
    assert record_widths(agreed(mine, theirs, **match), "retailer", "brand") == expected


def test_both_sides_make_the_same_plan_of_records() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MatchSpec, "bucket_points", 12)
        plan = RecordPlan.of(MATCH, (3, 2), learner=side(60), peer=side(20))
    assert (plan.chunks, plan.learner, plan.peer) == (5, Groups(4, 3), Groups(2, 2))
    places = plan.places(LEARNER, plan.learner)
    assert sorted(places.tolist()) == list(range(20))


def test_a_payload_of_another_length_is_refused_record_by_record() -> None:
    plan = RecordPlan(1, Groups(4, 2), Groups(3, 2))
    none, nobody = np.zeros(0, dtype=np.int64), tokens([])
    blinded = plan.blind(0, nobody, none, LEARNER, ENGINE)
    reply = plan.reply(0, nobody, none, blinded, PEER, ENGINE)
    mine, theirs = plan.compare(reply, LEARNER, ENGINE)
    assert (len(mine), len(theirs)) == (8, 6)
    for wrong in (b"", blinded[:-1], blinded[:-32], blinded * 2):
        with pytest.raises(MessageError, match="bytes, expected"):
            plan.reply(0, nobody, none, wrong, PEER, ENGINE)
    for wrong in (b"", reply[:-1], reply[12:], reply + bytes(8), reply * 2):
        with pytest.raises(MessageError, match="bytes, expected"):
            plan.compare(wrong, LEARNER, ENGINE)


def test_the_secret_of_all_chunks_belongs_to_one_pair_set_and_cut() -> None:
    plans = [RecordPlan(chunks, Groups(4, 2), Groups(3, 2)) for chunks in (1, 2)]
    secrets = {
        plan.secret(of, digest) for plan in plans for of in (LEARNER, PEER) for digest in (ONE, TWO)
    }
    assert len(secrets) == 8


def place_bytes(*places: tuple[int, int]) -> bytes:
    return np.array(list(places), dtype=PLACE).tobytes()


@given(
    st.integers(1, 5),
    st.integers(1, 40),
    st.sets(st.integers(0, 199)),
    st.sampled_from([0, 1 << 20]),
)
def test_an_outcome_is_read_as_it_was_written_as_a_list_or_as_a_map(
    buckets: int, capacity: int, told: set[int], room_in_message: int
) -> None:
    at = np.array(sorted(one for one in told if one < buckets * capacity), dtype=np.int64)
    places = np.empty(len(at), dtype=PLACE)
    places["bucket"], places["place"] = np.divmod(at, capacity)
    form = OutcomeForm(room=max(1, len(at)), buckets=buckets, capacity=capacity)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(match_outcome, "MOST_BYTES", room_in_message)
        payload = form.encode(places)
        as_list, as_map = 8 * form.room, -(-buckets * capacity // 8)
        assert len(payload) == form.size == (as_list if room_in_message else as_map)
        assert form.decode(payload).tolist() == places.tolist()


def test_a_map_names_as_many_places_as_can_be_and_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(match_outcome, "MOST_BYTES", 15)
    form = OutcomeForm(room=2, buckets=3, capacity=7)  # 21 places in 3 bytes
    assert form.decode(bytes([1, 0, 16])).tolist() == [(0, 0), (2, 6)]
    for wrong in (b"", bytes(2), bytes(4)):
        with pytest.raises(MessageError, match=f"got {len(wrong)} bytes, expected 3"):
            form.decode(wrong)
    with pytest.raises(MessageError, match="3 places, expected 2 at most"):
        form.decode(bytes([7, 0, 0]))
    ((beyond, _),) = form.decode(bytes([0, 0, 32])).tolist()
    assert beyond == form.buckets  # which whoever looks there refuses


def test_an_outcome_fits_a_message_as_a_list_or_as_a_map_or_says_why_not() -> None:
    most = MOST_BYTES // 8
    for room, places, size in (
        (most, 10**9, 8 * most),  # few on one side: a list
        (most + 1, 8 * MOST_BYTES, MOST_BYTES),  # more than half a thousand million places: a map
    ):
        form = OutcomeForm(room, 1, places)
        assert (form.size, form.arithmetic) == (size, "")
    told = OutcomeForm(most + 1, 4, 2 * MOST_BYTES + 1).arithmetic
    assert told == (
        "an outcome takes 8,372,225 pairs x 8 bytes = 66,977,800, or 535,822,340 places / 8 = "
        "66,977,793, of the 66,977,792 bytes that one message tells"
    )


def test_places_ascend_and_come_once() -> None:
    good = [(0, 5), (0, 9), (2, 0), (2, 1)]
    assert places_of(place_bytes(*good), 4).tolist() == good
    assert len(places_of(b"", 0)) == 0
    named = np.array(good, dtype=PLACE)
    for count in range(5):  # whatever their number, the bytes are as many
        payload = named_places(named[:count], 6)
        assert len(payload) == len(place_bytes(*good, *good[:2]))
        assert places_of(payload, 6).tolist() == good[:count]
    nowhere = (2**32 - 1, 2**32 - 1)
    with pytest.raises(MessageError, match="after padding"):
        places_of(place_bytes(nowhere, (0, 5)), 2)
    for wrong in ([(0, 5), (0, 5)], [(0, 9), (0, 5)], [(1, 0), (0, 5)]):
        with pytest.raises(MessageError, match="twice, or places in another order"):
            places_of(place_bytes(*wrong), 2)
    for pairs in (0, 3, 5):
        with pytest.raises(MessageError, match="bytes, expected"):
            places_of(place_bytes(*good), pairs)


class Matched(NamedTuple):
    """Everything that a whole match told the learner, by token."""

    comparisons: list[Comparison]
    mine: list[list[int]]
    theirs: list[list[int]]
    drawn: int


def whole_match(
    plan: MatchPlan, mine: Sequence[int], theirs: Sequence[int], numbers: dict[int, int]
) -> Matched:
    count = plan.buckets.count
    cut = [
        [
            [
                one
                for one, at in zip(held, bucket_numbers(tokens(held), count), strict=True)
                if at == bucket
            ]
            for bucket in range(count)
        ]
        for held in (mine, theirs)
    ]
    comparisons, drawn = [], 0
    for bucket, (own, other) in enumerate(zip(*cut, strict=True)):
        secrets = plan.secret(LEARNER, ONE, bucket), plan.secret(PEER, TWO, bucket)
        blinded = plan.blind(bucket, tokens(own), secrets[0], ENGINE)
        assert len(blinded) == 32 * plan.buckets.receiver_capacity
        numbered = np.array([numbers[one] for one in other], dtype=np.uint64)
        reply = plan.reply(bucket, tokens(other), numbered, blinded, secrets[1], ENGINE)
        comparisons.append(plan.compare(len(own), reply, secrets[0], ENGINE))
        if plan.noise is not None:
            stream = SecretStream(secrets[1], "size noise")
            drawn += len(plan.noise.drawn(bucket, stream, width=33))
    return Matched(comparisons, cut[0], cut[1], drawn)


sets = st.lists(st.integers(0, 30), unique=True, max_size=20)


@pytest.mark.parametrize(("reveal", "linkage"), LINKAGES)
@settings(max_examples=12)
@given(mine=sets, theirs=sets, bucket_points=st.sampled_from([7, 12, 64]))
def test_a_match_over_several_buckets_is_the_plain_answer(
    reveal: Reveal, linkage: Linkage, mine: list[int], theirs: list[int], bucket_points: int
) -> None:
    plan = plan_of(terms(reveal, linkage), max(1, len(mine)), max(1, len(theirs)), bucket_points)
    numbers = {one: 1000 + one // 2 for one in theirs}
    matched = whole_match(plan, mine, theirs, numbers)
    common = set(mine) & set(theirs)
    if plan.noise is not None:
        assert sum(one.count for one in matched.comparisons) == len(common) + matched.drawn
        assert all(len(one.tokens) == len(one.places) == 0 for one in matched.comparisons)
        return
    found = set()
    for bucket, one in enumerate(matched.comparisons):
        assert one.count == len(one.tokens) == len(one.places) == len(one.numbers)
        other = matched.theirs[bucket]
        stands = plan.places(len(other), plan.secret(PEER, TWO, bucket)).tolist()
        for token, place, number in zip(one.tokens, one.places, one.numbers, strict=True):
            person = matched.mine[bucket][token]
            assert stands[other.index(person)] == place
            assert number == (numbers[person] if plan.links_records else 0)
            found.add(person)
    assert found == common


def test_size_noise_goes_both_ways_and_is_taken_from_the_size_again() -> None:
    plan = plan_of(terms(Reveal.SIZE_ONLY), 10, 10)
    assert plan.noise is not None
    blinded = plan.blind(0, tokens(range(10)), LEARNER, ENGINE)
    noise = set()
    for seed in range(40):
        secret = seeded_secret(seed, "peer")
        none = np.zeros(5, dtype=np.uint64)
        reply = plan.reply(0, tokens(range(5, 10)), none, blinded, secret, ENGINE)
        counted = plan.compare(10, reply, LEARNER, ENGINE).count
        noise.add(plan.noise.size(counted, 1) - 5)
    assert min(noise) < 0 < max(noise)


def test_a_learner_of_sizes_is_not_told_whose_tags_come_back() -> None:
    plan = plan_of(terms(Reveal.SIZE_ONLY), 60, 60)
    blinded = plan.blind(0, tokens(range(60)), LEARNER, ENGINE)
    reply = plan.reply(0, tokens(range(30)), np.zeros(30, dtype=np.uint64), blinded, PEER, ENGINE)
    curious = MatchPlan(terms(Reveal.PARTNER_LEARNS_MEMBERS, Linkage.ANY_KEY), plan.buckets)
    found = curious.compare(60, reply, LEARNER, ENGINE).tokens
    assert 5 < np.count_nonzero(found < 30) < 29  # half of what it finds is wrong
    assert np.count_nonzero(found >= 30) > 5


def test_dummies_bear_other_numbers_than_records() -> None:
    plan = plan_of(terms(Reveal.PARTNER_LEARNS_MEMBERS), 10, 20)
    blinded = plan.blind(0, tokens(range(10)), LEARNER, ENGINE)
    numbers = np.full(5, 7, dtype=np.uint64)
    reply = plan.reply(0, tokens(range(5)), numbers, blinded, PEER, ENGINE)
    said = np.frombuffer(reply[-8 * 20 :], dtype="<u8")
    places = plan.places(5, PEER)
    assert (said[places] == 7).all()
    assert len(set(np.delete(said, places).tolist()) | {7}) == 16


def exchange(reveal: Reveal = Reveal.PARTNER_LEARNS_MEMBERS) -> tuple[MatchPlan, bytes, bytes]:
    plan = plan_of(terms(reveal), 10, 12)
    blinded = plan.blind(0, tokens(range(10)), LEARNER, ENGINE)
    numbers = np.arange(10, dtype=np.uint64)
    return (
        plan,
        blinded,
        plan.reply(0, tokens(range(5, 15)), numbers, blinded, PEER, ENGINE),
    )


@pytest.mark.parametrize("reveal", Reveal)
def test_a_payload_of_another_length_is_refused(reveal: Reveal) -> None:
    plan, blinded, reply = exchange(reveal)
    none = np.zeros(0, dtype=np.uint64)
    for wrong in (b"", blinded[:-1], blinded[:-32], blinded + blinded[:32], blinded * 2):
        with pytest.raises(MessageError, match="bytes, expected"):
            plan.reply(0, tokens([]), none, wrong, PEER, ENGINE)
    for wrong in (b"", reply[:-1], reply[:-8], reply[12:], reply + bytes(8), reply * 2):
        with pytest.raises(MessageError, match="bytes, expected"):
            plan.compare(10, wrong, LEARNER, ENGINE)


def spoilt(points: bytes) -> Iterator[tuple[str, bytes]]:
    """Points as no honest party sends them, as many as there were."""
    for name, one in {
        "on the twist": (2).to_bytes(32, "little"),
        "of low order": (1).to_bytes(32, "little"),
        "zero": bytes(32),
        "not canonical": b"\xff" * 32,
        "twice": points[32:64],
    }.items():
        yield name, one + points[32:]


def test_points_that_break_the_protocol_are_refused_at_either_side() -> None:
    plan, blinded, reply = exchange()
    none = np.zeros(0, dtype=np.uint64)
    for _, points in spoilt(blinded):
        with pytest.raises(PeerMessageError):
            plan.reply(0, tokens([]), none, points, PEER, ENGINE)
    tags, ends = 12 * 10, 12 * 10 + 32 * 12
    for _, points in spoilt(reply[tags:ends]):
        with pytest.raises(PeerMessageError):
            plan.compare(10, reply[:tags] + points + reply[ends:], LEARNER, ENGINE)
    with pytest.raises(PeerMessageError, match="distinct tags"):
        plan.compare(10, reply[12:24] + reply[12:], LEARNER, ENGINE)


def test_messages_of_another_plan_are_refused_or_tell_nothing() -> None:
    plan, blinded, reply = exchange()
    other = plan_of(terms(Reveal.PARTNER_LEARNS_MEMBERS), 11, 12)
    with pytest.raises(MessageError, match="plan the same buckets"):
        other.reply(0, tokens([]), np.zeros(0, dtype=np.uint64), blinded, PEER, ENGINE)
    with pytest.raises(MessageError, match="plan the same buckets"):
        other.compare(10, reply, LEARNER, ENGINE)
    unlinked = plan_of(terms(Reveal.PARTNER_LEARNS_MEMBERS, Linkage.ANY_KEY), 10, 12)
    with pytest.raises(MessageError, match="plan the same buckets"):
        unlinked.compare(10, reply, LEARNER, ENGINE)
    assert plan.compare(10, reply, LEARNER, ENGINE).count == 5
    for secret in (PEER, plan.secret(LEARNER, ONE, 0)):
        assert plan.compare(10, reply, secret, ENGINE).count == 0


# --- the coordinator -------------------------------------------------------------------------


def agreement_of(partners: Sequence[str], reveal: Reveal) -> Agreement:
    roles = {"brand": Role.BRAND, "coordinator": Role.COORDINATOR}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parties, "ROLES", roles | dict.fromkeys(partners, Role.PARTNER))
        return Parties.in_memory(
            match={"reveal": reveal}, train={"max_parties_per_person": 1}
        ).agreement


PARTNERS = ("courier", "retailer", "store")
AGREEMENTS = {
    (count, reveal): agreement_of(PARTNERS[:count], reveal)
    for count in (1, 2, 3)
    for reveal in (Reveal.PARTNER_LEARNS_MEMBERS, Reveal.BRAND_LEARNS_MEMBERS)
}
SPEC = MATCH
SIDE = side()
CALLS: tuple[Body, ...] = (
    MatchOffer(spec=SPEC, side=SIDE),
    MatchAccept(spec=SPEC, side=SIDE),
    MatchBlinded(spec=SPEC, bucket=0),
    MatchReply(spec=SPEC, bucket=0),
    MatchOutcome(spec=SPEC, size=None),
    MatchDone(),
    Acknowledged(),
)
OFFER, ACCEPT, BLINDED, REPLY, OUTCOME, DONE, _ = CALLS


def heard(sender: str, recipient: str, body: Body, *, in_clear: bool = False) -> Message:
    """What the coordinator makes of what somebody said: it reads kinds alone of most."""
    secret = body not in (DONE, CALLS[-1]) and not isinstance(body, Refused) and not in_clear
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
    return Message(header, outside, b"", SealedMessage(f"{sender} {body.kind}".encode(), b""))


def script(learner: str, peer: str, buckets: int, *, tells: bool) -> list[Message]:
    """Everything that a pair says, in its order."""
    said = [heard(learner, peer, OFFER), heard(peer, learner, ACCEPT)]
    said += [heard(learner, peer, BLINDED), heard(peer, learner, REPLY)] * buckets
    if tells:
        said.append(heard(learner, peer, OUTCOME))
    return [*said, heard(peer if tells else learner, "coordinator", DONE)]


@settings(max_examples=60)
@given(
    which=st.sampled_from(sorted(AGREEMENTS)),
    pairs=st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=3, max_size=3),
)
def test_the_coordinator_carries_every_pair_to_its_own_end(
    which: tuple[int, Reveal], pairs: list[tuple[int, bool]]
) -> None:
    agreement = AGREEMENTS[which]
    sides = [learner_of(agreement, name) for name in PARTNERS[: which[0]]]
    brand_learns = which[1] is Reveal.BRAND_LEARNS_MEMBERS
    assert sides == [
        ("brand", name) if brand_learns else (name, "brand") for name in PARTNERS[: which[0]]
    ]
    scripts = [
        script(*pair, buckets, tells=tells)
        for pair, (buckets, tells) in zip(sides, pairs, strict=False)
    ]
    job = coordinate_match(agreement, SPEC)
    assert next(job) == [Say(a, "find", MatchRequest(spec=SPEC, peer=b)) for a, b in sides]
    for turn in range(max(map(len, scripts))):
        answers = [said[turn] for said in scripts if turn < len(said)]
        unfinished = [Relay(said[turn]) for said in scripts if turn < len(said) - 1]
        if unfinished:
            assert job.send(answers) == unfinished
        else:
            with pytest.raises(StopIteration):
                job.send(answers)


def resumed(job: Any, answers: Sequence[Message]) -> tuple[Any, Any]:
    """Return what a job asks next, and what it returns once it asks nothing."""
    try:
        return job.send(answers), None
    except StopIteration as end:
        return [], end.value


@settings(max_examples=40)
@given(
    reveal=st.sampled_from([Reveal.PARTNER_LEARNS_MEMBERS, Reveal.BRAND_LEARNS_MEMBERS]),
    buckets=st.lists(st.integers(1, 4), min_size=3, max_size=3),
    leaves=st.lists(st.integers(0, 9), min_size=2, max_size=2),
)
def test_whoever_leaves_takes_its_own_pair_along_and_is_named(
    reveal: Reveal, buckets: list[int], leaves: list[int]
) -> None:
    agreement, spec = AGREEMENTS[3, reveal], MatchSpec(name="find", absent_partners=2)
    sides = [learner_of(agreement, name) for name in PARTNERS]
    going = {
        name: script(*pair, many, tells=False)
        for name, pair, many in zip(PARTNERS, sides, buckets, strict=True)
    }
    left = dict(zip(PARTNERS, leaves, strict=False))  # the last one stays
    gone: set[str] = set()
    job = coordinate_match(agreement, spec)
    asked = next(job)
    for turn in range(max(map(len, going.values()))):
        going = {name: said for name, said in going.items() if turn < len(said)}
        speaks = {name: said[turn].header.sender for name, said in going.items()}
        assert isinstance(asked, Tolerant) is ("brand" not in speaks.values())
        if isinstance(asked, Tolerant):
            assert (asked.most_missing, asked.kept) == (2 - len(gone), False)
            gone |= {name for name in going if left.get(name, 99) <= turn}
        going = {name: said for name, said in going.items() if name not in gone}
        asked, ended = resumed(job, [said[turn] for said in going.values()])
        expected = [Relay(said[turn]) for said in going.values() if turn < len(said) - 1]
        assert (asked.outgoing if isinstance(asked, Tolerant) else asked) == expected
        if ended is not None:
            break
    assert ended is not None
    assert ended.missing == tuple(name for name in PARTNERS if name in gone)


RIGHT = script("courier", "brand", 2, tells=True)
MAY = [
    {OFFER},
    {ACCEPT},
    {BLINDED},
    {REPLY},
    {BLINDED, OUTCOME, DONE},
    {REPLY},
    {BLINDED, OUTCOME, DONE},
    {DONE},
]


@pytest.mark.parametrize("turn", range(len(RIGHT)))
def test_only_what_may_be_said_in_answer_is_carried(turn: int) -> None:
    """Else a peer could answer points with points, and learn what the learner alone may."""

    def at_turn() -> Any:
        job = coordinate_match(AGREEMENTS[1, Reveal.PARTNER_LEARNS_MEMBERS], SPEC)
        next(job)
        for message in RIGHT[:turn]:
            job.send([message])
        return job

    sender, recipient = RIGHT[turn].header.sender, RIGHT[turn].header.recipient
    for body in CALLS:
        if body in MAY[turn]:
            try:
                assert at_turn().send([heard(sender, recipient, body)])
            except StopIteration:
                assert body is DONE
        else:
            with pytest.raises(MessageError, match=f"said {body.kind}"):
                at_turn().send([heard(sender, recipient, body)])
        if body is not DONE:
            with pytest.raises(MessageError, match="expected"):
                at_turn().send([heard(sender, recipient, body, in_clear=True)])
    refusal = heard(sender, "coordinator", Refused(term="consent", remedy="ask"))
    with pytest.raises(RefusedError, match="consent"):
        at_turn().send([refusal])
