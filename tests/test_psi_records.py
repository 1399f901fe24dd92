"""Records that share identifiers are found, and by which ones is not told."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.errors import InvalidParameterError, PeerMessageError
from privacy.psi.blinding import TAG_BYTES, Tags, common_rows
from privacy.psi.engine import Points, count_repeats
from privacy.psi.field import PRIME, decode_elements, encode_elements
from privacy.psi.portable import PortableEngine
from privacy.psi.records import (
    Groups,
    place_records,
    plan_records,
    receiver_blind_records,
    receiver_tags,
    sender_reply_records,
)
from privacy.psi.two_party import SenderReply
from privacy.randomness import Secret, derive_secret, seeded_secret

Side: TypeAlias = Mapping[int, tuple[int, ...]]
"""The tokens that each record bears."""

ENGINE = PortableEngine()
RECEIVER, SENDER = (seeded_secret(seed, "records test") for seed in (1, 2))


def tokens(numbers: list[int]) -> np.ndarray:
    raw = b"".join(b"\x01" + hashlib.sha256(str(number).encode()).digest() for number in numbers)
    return np.frombuffer(raw, dtype=np.uint8).reshape(-1, 33)


class Laid(NamedTuple):
    """A side, its records at places of chunks."""

    side: Side
    groups: Groups
    places: np.ndarray

    @classmethod
    def out(cls, side: Side, secret: Secret, groups: Groups, chunks: int) -> "Laid":
        return cls(side, groups, place_records(secret, chunks * groups.records))

    def chunk(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        held = [
            (token, place - number * self.groups.records)
            for place, bears in zip(self.places.tolist(), self.side.values(), strict=False)
            if place // self.groups.records == number
            for token in bears
        ]
        return tokens([token for token, _ in held]), np.array([at for _, at in held], dtype=int)

    def record_at(self, place: int) -> int | None:
        number = self.places.tolist().index(place)
        return list(self.side)[number] if number < len(self.side) else None


def exchange(
    mine: Laid, theirs: Laid, chunks: int, receiver: Secret = RECEIVER, sender: Secret = SENDER
) -> Iterator[tuple[Points, SenderReply, Tags, Tags]]:
    for chunk in range(chunks):
        blinded = receiver_blind_records(
            *mine.chunk(chunk), receiver, chunk, engine=ENGINE, groups=mine.groups
        )
        reply = sender_reply_records(
            *theirs.chunk(chunk),
            blinded,
            sender,
            chunk,
            engine=ENGINE,
            groups=theirs.groups,
            receiver_groups=mine.groups,
        )
        yield (
            blinded,
            reply,
            *receiver_tags(
                reply, receiver, engine=ENGINE, groups=mine.groups, sender_groups=theirs.groups
            ),
        )


def sides(width: int) -> st.SearchStrategy[Side]:
    """Records that bear up to `width` tokens of 0 … 29, each token once."""

    def cut(order: list[int], sizes: list[int]) -> Side:
        given = iter(order)
        return {
            number: tuple(token for _, token in zip(range(size), given, strict=False))
            for number, size in enumerate(sizes)
        }

    return st.builds(
        cut, st.permutations(range(30)), st.lists(st.integers(0, width), min_size=1, max_size=9)
    )


@settings(max_examples=25)
@given(mine=sides(3), theirs=sides(2), chunk_points=st.integers(1, 12))
def test_two_records_share_as_many_tags_as_tokens(
    mine: Side, theirs: Side, chunk_points: int
) -> None:
    chunks, here, there = plan_records(
        Groups(len(mine), 3), Groups(len(theirs), 2), chunk_points=chunk_points
    )
    laid = Laid.out(mine, RECEIVER, here, chunks), Laid.out(theirs, SENDER, there, chunks)
    told = list(exchange(*laid, chunks))
    for blinded, reply, *_ in told:
        assert blinded.shape == (here.points, 32)
        assert (reply.tags.shape, reply.blinded.shape) == (
            (here.points, TAG_BYTES),
            (there.points, 32),
        )
    own, other = (np.concatenate(tags) for tags in list(zip(*told, strict=True))[2:])
    assert count_repeats(own) == count_repeats(other) == 0
    found: Counter[tuple[int | None, int | None]] = Counter(
        (laid[0].record_at(a // 3), laid[1].record_at(b // 2))
        for a, b in zip(*(column.tolist() for column in common_rows(own, other)), strict=True)
    )
    shared = {(a, b): len({*x} & {*y}) for a, x in mine.items() for b, y in theirs.items()}
    assert found == +Counter(shared)


def test_a_record_is_found_across_chunks_because_the_scalar_is_one() -> None:
    mine, theirs = {number: (number,) for number in range(8)}, {0: (0,), 1: (7,)}
    groups = Groups(2, 1), Groups(1, 1)
    laid = Laid.out(mine, RECEIVER, groups[0], 4), Laid.out(theirs, SENDER, groups[1], 4)
    told = list(exchange(*laid, 4))
    own, other = (np.concatenate(tags) for tags in list(zip(*told, strict=True))[2:])
    assert len(common_rows(own, other)[0]) == 2


def test_which_of_a_records_identifiers_matched_shows_in_no_place() -> None:
    """The sender knows the first identifier of all: its tag stands at either place as often."""
    people = 400
    mine = {number: (number, 1_000 + number) for number in range(people)}
    theirs = {number: (2_000 + number, number) for number in range(people)}
    groups = Groups(people, 2)
    laid = Laid.out(mine, RECEIVER, groups, 1), Laid.out(theirs, SENDER, groups, 1)
    ((blinded, reply, own, other),) = exchange(*laid, 1)
    a, b = common_rows(own, other)
    assert len(a) == people
    sent = ENGINE.multiply(
        ENGINE.hash_to_curve(tokens(list(range(people)))),
        derive_secret(RECEIVER, "psi receiver records scalar"),
    )
    slot = {point.tobytes(): number for number, point in enumerate(blinded)}
    places = laid[0].places[:people].tolist()
    begins = {place: slot[point.tobytes()] % 2 for place, point in zip(places, sent, strict=True)}
    same = sum(begins[int(at) // 2] == int(at) % 2 for at in a)
    for count in (same, int(np.count_nonzero(a % 2)), int(np.count_nonzero(b % 2))):
        assert abs(count - people / 2) < 6 * (people / 4) ** 0.5
    assert len({tag.tobytes() for tag in reply.tags}) == 2 * people


def test_how_many_identifiers_a_record_bears_does_not_show() -> None:
    """Dummies are points like others, and the bytes of one chunk are as many as of any other."""
    few, many = {0: (), 1: ()}, {0: (0, 1), 1: (2, 3)}
    groups = Groups(2, 2)
    sent = [
        next(exchange(Laid.out(many, RECEIVER, groups, 1), Laid.out(side, SENDER, groups, 1), 1))
        for side in (few, many)
    ]
    assert sent[0][1].blinded.shape == sent[1][1].blinded.shape
    ENGINE.check_on_curve(sent[0][1].blinded)
    assert len(common_rows(sent[0][2], sent[0][3])[0]) == 0


def test_no_secret_gives_the_same_points_for_two_chunks_or_roles() -> None:
    groups, nobody, none = Groups(4, 2), tokens([]), np.zeros(0, dtype=int)
    drawn = [
        receiver_blind_records(nobody, none, secret, chunk, engine=ENGINE, groups=groups)
        for secret in (RECEIVER, SENDER)
        for chunk in (0, 1)
    ]
    drawn += [
        sender_reply_records(
            nobody,
            none,
            drawn[0],
            secret,
            chunk,
            engine=ENGINE,
            groups=groups,
            receiver_groups=groups,
        ).blinded
        for secret in (RECEIVER, SENDER)
        for chunk in (0, 1)
    ]
    assert count_repeats(np.concatenate(drawn)) == 0


class TestPlaces:
    @given(st.integers(0, 200), st.integers(0, 2**16))
    def test_every_place_is_given_once(self, count: int, seed: int) -> None:
        places = place_records(seeded_secret(seed, "places"), count)
        assert sorted(places.tolist()) == list(range(count))

    def test_every_order_is_as_likely(self) -> None:
        drawn = Counter(
            tuple(place_records(seeded_secret(seed, "places"), 3).tolist()) for seed in range(600)
        )
        assert len(drawn) == 6
        assert min(drawn.values()) > 50  # of 100

    @pytest.mark.parametrize("count", [-1, 1 << 32])
    def test_other_counts_are_refused(self, count: int) -> None:
        with pytest.raises(InvalidParameterError, match="records, got"):
            place_records(RECEIVER, count)


class TestPlan:
    @given(
        st.tuples(st.integers(1, 500), st.integers(1, 6)),
        st.tuples(st.integers(1, 500), st.integers(1, 6)),
        st.integers(1, 100),
    )
    def test_chunks_hold_all_records_and_no_more_points_than_they_may(
        self, mine: tuple[int, int], theirs: tuple[int, int], chunk_points: int
    ) -> None:
        chunks, *cut = plan_records(Groups(*mine), Groups(*theirs), chunk_points=chunk_points)
        for (records, width), groups in zip((mine, theirs), cut, strict=True):
            assert groups.width == width
            assert records <= chunks * groups.records < records + chunks
            assert groups.points <= max(chunk_points, width)

    @pytest.mark.parametrize("wrong", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
    def test_less_than_one_is_refused(self, wrong: tuple[int, int, int]) -> None:
        records, width, points = wrong
        with pytest.raises(InvalidParameterError, match="1 or more"):
            plan_records(Groups(records, width), Groups(1, 1), chunk_points=points)


@pytest.mark.parametrize(
    ("numbers", "places", "message"),
    [
        ([1, 2, 3], [0, 0, 0], "up to 2 identifiers of a record, got 3"),
        ([1], [4], "places of records from 0 to 3"),
        ([1], [-1], "places of records from 0 to 3"),
        ([1, 2], [0], "a place for each of 2"),
        ([1, 1], [0, 1], "1 duplicates"),
    ],
)
def test_records_that_do_not_fit_are_refused(
    numbers: list[int], places: list[int], message: str
) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        receiver_blind_records(
            tokens(numbers), np.array(places), RECEIVER, 0, engine=ENGINE, groups=Groups(4, 2)
        )


def first(value: int) -> Callable[[Points], Points]:
    def spoil(good: Points) -> Points:
        point = np.frombuffer(value.to_bytes(32, "little"), dtype=np.uint8)
        return np.concatenate([point[None], good[1:]])

    return spoil


def alike(good: Points) -> Points:
    """The second point is the first, P, plus (0, 0), which has order 2: their products are one."""
    (u,) = decode_elements(good[:1])
    return np.concatenate([good[:1], encode_elements([pow(u, -1, PRIME)]), good[2:]])


SPOILT: dict[str, Callable[[Points], Points]] = {
    "on the twist": first(2),
    "of low order": first(1),
    "not canonical": first(2**256 - 1),
    "alike but for low order": alike,
    "twice": lambda good: np.concatenate([good[1:2], good[1:]]),
    "too few": lambda good: good[1:],
    "wide": lambda good: good.astype(np.int64),
}


@pytest.mark.parametrize("fault", list(SPOILT))
def test_points_that_break_the_protocol_are_refused_at_either_side(fault: str) -> None:
    groups, nobody, none = Groups(4, 2), tokens([]), np.zeros(0, dtype=int)
    laid, wrong = Laid.out({}, RECEIVER, groups, 1), SPOILT[fault]
    ((blinded, reply, *_),) = exchange(laid, laid, 1)
    with pytest.raises(PeerMessageError):
        sender_reply_records(
            nobody,
            none,
            wrong(blinded),
            SENDER,
            0,
            engine=ENGINE,
            groups=groups,
            receiver_groups=groups,
        )
    with pytest.raises(PeerMessageError):
        receiver_tags(
            SenderReply(reply.tags, wrong(reply.blinded)),
            RECEIVER,
            engine=ENGINE,
            groups=groups,
            sender_groups=groups,
        )
    if fault in {"twice", "too few", "wide"}:
        with pytest.raises(PeerMessageError, match="tags"):
            receiver_tags(
                SenderReply(wrong(reply.tags), reply.blinded),
                RECEIVER,
                engine=ENGINE,
                groups=groups,
                sender_groups=groups,
            )
