import dataclasses
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError, PeerMessageError
from privacy.psi.blinding import TAG_BYTES
from privacy.psi.engine import count_repeats, validate_points
from privacy.psi.field import PRIME, decode_elements, encode_elements
from privacy.psi.portable import PortableEngine
from privacy.psi.two_party import (
    SenderReply,
    TagOrder,
    receiver_blind,
    receiver_count,
    receiver_intersect,
    sender_places,
    sender_reply,
)
from privacy.randomness import Secret, derive_secret, seeded_secret

Bytes: TypeAlias = NDArray[np.uint8]

ENGINE = PortableEngine()
RECEIVER, SENDER = (seeded_secret(seed, "psi test") for seed in (1, 2))


def rows_of(numbers: Iterable[int], width: int = 33) -> Bytes:
    raw = b"".join(number.to_bytes(width, "big") for number in numbers)
    return np.frombuffer(raw, dtype=np.uint8).reshape(-1, width)


class Run(NamedTuple):
    blinded: Bytes
    reply: SenderReply
    places: NDArray[np.int64]


def run(
    own: Bytes,
    theirs: Bytes,
    *,
    capacity: int | None = None,
    sender_capacity: int | None = None,
    receiver: Secret = RECEIVER,
    sender: Secret = SENDER,
) -> Run:
    mine = max(1, len(own)) if capacity is None else capacity
    yours = max(1, len(theirs)) if sender_capacity is None else sender_capacity
    blinded = receiver_blind(own, receiver, engine=ENGINE, capacity=mine)
    reply = sender_reply(
        theirs, blinded, sender, engine=ENGINE, capacity=yours, receiver_capacity=mine
    )
    places = receiver_intersect(
        len(own), receiver, reply, engine=ENGINE, capacity=mine, sender_capacity=yours
    )
    return Run(blinded, reply, places)


class TestTwoParty:
    @settings(max_examples=40)
    @given(
        own=st.lists(st.integers(0, 40), unique=True, max_size=25),
        theirs=st.lists(st.integers(0, 40), unique=True, max_size=25),
        spare=st.tuples(st.integers(1, 12), st.integers(1, 12)),
        seed=st.integers(0, 2**32),
    )
    def test_finds_exactly_the_plain_intersection_and_where_it_stands(
        self, own: list[int], theirs: list[int], spare: tuple[int, int], seed: int
    ) -> None:
        sender = seeded_secret(seed, "sender")
        capacity = len(theirs) + spare[1]
        *_, places = run(
            rows_of(own),
            rows_of(theirs),
            capacity=len(own) + spare[0],
            sender_capacity=capacity,
            receiver=seeded_secret(seed, "receiver"),
            sender=sender,
        )
        stands = dict(
            zip(theirs, sender_places(len(theirs), sender, capacity=capacity).tolist(), strict=True)
        )
        assert places.tolist() == [stands.get(number, -1) for number in own]

    def test_the_places_hold_the_senders_points(self) -> None:
        tokens = rows_of(range(9))
        reply = run(rows_of([1]), tokens, sender_capacity=20).reply
        scalar = derive_secret(SENDER, "psi sender scalar")
        points = ENGINE.multiply(ENGINE.hash_to_curve(tokens), scalar)
        assert np.array_equal(reply.blinded[sender_places(9, SENDER, capacity=20)], points)

    def test_large_sets_cross_chunks(self) -> None:
        *_, places = run(rows_of(range(2_000)), rows_of(range(1_500, 3_200)), sender_capacity=2_000)
        assert np.array_equal(places >= 0, np.arange(2_000) >= 1_500)

    @pytest.mark.parametrize(("own", "theirs"), [(0, 0), (0, 3), (3, 0), (7, 7)])
    def test_messages_show_only_the_capacities(self, own: int, theirs: int) -> None:
        blinded, reply, places = run(
            rows_of(range(own)), rows_of(range(theirs)), capacity=10, sender_capacity=12
        )
        assert blinded.shape == (10, 32)
        assert reply.tags.shape == (10, TAG_BYTES)
        assert reply.blinded.shape == (12, 32)
        assert (places >= 0).tolist() == [number < theirs for number in range(own)]

    def test_shuffled_tags_give_the_count_and_hide_who(self) -> None:
        own, theirs = rows_of(range(40)), rows_of(range(25, 60))
        blinded = receiver_blind(own, RECEIVER, engine=ENGINE, capacity=64)
        replies = [
            sender_reply(
                theirs,
                blinded,
                SENDER,
                engine=ENGINE,
                capacity=64,
                receiver_capacity=64,
                order=order,
            )
            for order in (TagOrder.SHUFFLED, TagOrder.KEPT)
        ]
        for reply in replies:
            assert (
                receiver_count(RECEIVER, reply, engine=ENGINE, capacity=64, sender_capacity=64)
                == 15
            )
        shuffled, kept = (reply.tags for reply in replies)
        assert sorted(row.tobytes() for row in shuffled) == sorted(row.tobytes() for row in kept)
        assert int((shuffled == kept).all(axis=1).sum()) < 10

    def test_the_same_secrets_give_the_same_bytes(self) -> None:
        first, second = (run(rows_of(range(5)), rows_of(range(3, 9)), capacity=8) for _ in range(2))
        assert first.blinded.tobytes() == second.blinded.tobytes()
        assert first.reply.tags.tobytes() == second.reply.tags.tobytes()
        assert first.reply.blinded.tobytes() == second.reply.blinded.tobytes()

    def test_other_secrets_share_no_point(self) -> None:
        runs = [
            run(
                rows_of(range(6)),
                rows_of(range(6)),
                receiver=seeded_secret(seed, "receiver"),
                sender=seeded_secret(seed, "sender"),
            )
            for seed in range(3)
        ]
        tags = [
            row[:TAG_BYTES].tobytes()
            for blinded, reply, _ in runs
            for part in (blinded, reply.tags, reply.blinded)
            for row in part
        ]
        assert len(set(tags)) == len(tags) == 3 * 3 * 6

    def test_one_secret_in_both_roles_shares_no_point(self) -> None:
        tokens = rows_of(range(6))
        blinded, reply, _ = run(tokens, tokens, receiver=RECEIVER, sender=RECEIVER)
        assert not set(decode_elements(blinded)) & set(decode_elements(reply.blinded))

    @pytest.mark.parametrize("role", ["receiver", "sender"])
    def test_sets_travel_shuffled(self, role: str) -> None:
        tokens = rows_of(range(50))
        blinded, reply, _ = run(tokens, tokens)
        message, secret = (blinded, RECEIVER) if role == "receiver" else (reply.blinded, SENDER)
        scalar = derive_secret(secret, f"psi {role} scalar")
        in_order = decode_elements(ENGINE.multiply(ENGINE.hash_to_curve(tokens), scalar))
        sent = decode_elements(message)
        assert sorted(sent) == sorted(in_order)
        assert sum(a == b for a, b in zip(sent, in_order, strict=True)) < 10

    def test_tags_are_cut_from_products_in_the_order_received(self) -> None:
        blinded, reply, _ = run(rows_of(range(20)), rows_of(range(3)))
        doubled = ENGINE.multiply(blinded, derive_secret(SENDER, "psi sender scalar"))
        assert np.array_equal(reply.tags, doubled[:, :TAG_BYTES])

    @pytest.mark.parametrize("tokens", [rows_of([1, 2, 1]), rows_of([0, 0])], ids=["some", "all"])
    def test_duplicate_tokens_are_refused_at_both_parties(self, tokens: Bytes) -> None:
        blinded = receiver_blind(rows_of([1]), RECEIVER, engine=ENGINE, capacity=1)
        with pytest.raises(InvalidParameterError, match="distinct"):
            receiver_blind(tokens, RECEIVER, engine=ENGINE, capacity=3)
        with pytest.raises(InvalidParameterError, match="distinct"):
            sender_reply(tokens, blinded, SENDER, engine=ENGINE, capacity=3, receiver_capacity=1)

    def test_more_tokens_than_the_capacity_are_refused(self) -> None:
        tokens = rows_of(range(4))
        blinded, reply, _ = run(tokens, tokens)
        with pytest.raises(InvalidParameterError, match="up to 3 tokens"):
            receiver_blind(tokens, RECEIVER, engine=ENGINE, capacity=3)
        with pytest.raises(InvalidParameterError, match="up to 3 tokens"):
            sender_reply(tokens, blinded, SENDER, engine=ENGINE, capacity=3, receiver_capacity=4)
        with pytest.raises(InvalidParameterError, match="up to 4 tokens"):
            receiver_intersect(5, RECEIVER, reply, engine=ENGINE, capacity=4, sender_capacity=4)
        with pytest.raises(InvalidParameterError, match="up to 4 tokens"):
            sender_places(5, SENDER, capacity=4)
        with pytest.raises(InvalidParameterError, match="up to 0 tokens"):
            receiver_blind(tokens[:0], RECEIVER, engine=ENGINE, capacity=0)

    @pytest.mark.parametrize(
        "tokens",
        [np.zeros((2, 0), np.uint8), np.zeros(33, np.uint8), np.zeros((1, 33), np.int64)],
        ids=["no width", "flat", "wide"],
    )
    def test_tokens_of_another_shape_or_type_are_refused(self, tokens: Bytes) -> None:
        with pytest.raises(InvalidParameterError, match="expected tokens as uint8"):
            receiver_blind(tokens, RECEIVER, engine=ENGINE, capacity=9)


class TestCountRepeats:
    @given(
        st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=30),
        st.integers(9, 40),
    )
    def test_equals_the_plain_count_where_ends_are_shared(
        self, pairs: list[tuple[int, int]], width: int
    ) -> None:
        rows = np.zeros((len(pairs), width), dtype=np.uint8)
        for row, (head, tail) in zip(rows, pairs, strict=True):
            row[0], row[-1] = head, tail
        assert count_repeats(rows) == len(pairs) - len(set(pairs))

    @given(st.lists(st.binary(min_size=2, max_size=2), max_size=30))
    def test_equals_the_plain_count_of_short_rows(self, rows: list[bytes]) -> None:
        table = np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(-1, 2)
        assert count_repeats(table) == len(rows) - len(set(rows))


def with_first_row(points: Bytes, number: int) -> Bytes:
    tampered = points.copy()
    tampered[0] = encode_elements([number])
    return tampered


def alike(points: Bytes) -> Bytes:
    """Points of which the second is the first, P, plus (0, 0), which has order 2: u becomes 1/u."""
    (u,) = decode_elements(points[:1])
    return np.concatenate([points[:1], encode_elements([pow(u, -1, PRIME)]), points[2:]])


SHAPES = {
    "one too few": lambda rows: rows[:-1],
    "one too many": lambda rows: np.concatenate([rows, rows[:1] ^ 1]),
    "none": lambda rows: rows[:0],
    "no array of rows": lambda rows: np.uint8(3).reshape(()),
    "narrow": lambda rows: rows[:, :-1],
    "another type": lambda rows: rows.astype(np.int16),
    "duplicate": lambda rows: np.concatenate([rows[:1], rows[:-1]]),
}
POINTS = SHAPES | {
    "low order": lambda points: with_first_row(points, PRIME - 1),
    "zero": lambda points: with_first_row(points, 0),
    "twist": lambda points: with_first_row(points, 2),
    "not canonical": lambda points: with_first_row(points, PRIME + 9),
    "top bit": lambda points: with_first_row(points, 2**255 + 9),
}


class TestHostilePeer:
    own, theirs = rows_of([1, 2, 3, 4]), rows_of([3, 4, 5])

    def reply_to(self, blinded: Bytes) -> SenderReply:
        return sender_reply(
            self.theirs, blinded, SENDER, engine=ENGINE, capacity=3, receiver_capacity=4
        )

    def intersect(self, reply: SenderReply) -> NDArray[np.int64]:
        return receiver_intersect(4, RECEIVER, reply, engine=ENGINE, capacity=4, sender_capacity=3)

    def test_what_these_tests_tamper_with_is_accepted(self) -> None:
        blinded = receiver_blind(self.own, RECEIVER, engine=ENGINE, capacity=4)
        assert (self.intersect(self.reply_to(blinded)) >= 0).sum() == 2

    @pytest.mark.parametrize("tamper", POINTS.values(), ids=POINTS.keys())
    def test_sender_refuses_a_tampered_set(self, tamper: Callable[[Bytes], Bytes]) -> None:
        blinded = receiver_blind(self.own, RECEIVER, engine=ENGINE, capacity=4)
        with pytest.raises(PeerMessageError):
            self.reply_to(tamper(blinded))

    @pytest.mark.parametrize("tamper", POINTS.values(), ids=POINTS.keys())
    def test_receiver_refuses_tampered_points(self, tamper: Callable[[Bytes], Bytes]) -> None:
        reply = run(self.own, self.theirs).reply
        with pytest.raises(PeerMessageError):
            self.intersect(dataclasses.replace(reply, blinded=tamper(reply.blinded)))

    @pytest.mark.parametrize("order", list(TagOrder))
    def test_points_that_differ_by_low_order_alone_are_refused_at_both_parties(
        self, order: TagOrder
    ) -> None:
        """Each is fit to be sent; their products are one, so that it would come back twice."""
        blinded = receiver_blind(self.own, RECEIVER, engine=ENGINE, capacity=4)
        validate_points(alike(blinded), 4, engine=ENGINE)
        with pytest.raises(PeerMessageError, match="got 1 that repeat"):
            sender_reply(
                self.theirs,
                alike(blinded),
                SENDER,
                engine=ENGINE,
                capacity=3,
                receiver_capacity=4,
                order=order,
            )
        reply = self.reply_to(blinded)
        twice = dataclasses.replace(reply, blinded=alike(reply.blinded))
        with pytest.raises(PeerMessageError, match="got 1 that repeat"):
            self.intersect(twice)
        with pytest.raises(PeerMessageError, match="got 1 that repeat"):
            receiver_count(RECEIVER, twice, engine=ENGINE, capacity=4, sender_capacity=3)

    @pytest.mark.parametrize("tamper", SHAPES.values(), ids=SHAPES.keys())
    def test_receiver_refuses_tampered_tags(self, tamper: Callable[[Bytes], Bytes]) -> None:
        reply = run(self.own, self.theirs).reply
        with pytest.raises(PeerMessageError):
            self.intersect(dataclasses.replace(reply, tags=tamper(reply.tags)))

    def test_reordered_tags_move_hits_but_never_add_one(self) -> None:
        _, reply, places = run(self.own, self.theirs)
        moved = self.intersect(SenderReply(tags=reply.tags[::-1], blinded=reply.blinded))
        assert (moved >= 0).sum() == (places >= 0).sum() == 2

    def test_echoing_the_receivers_own_points_finds_nobody(self) -> None:
        blinded = receiver_blind(self.own, RECEIVER, engine=ENGINE, capacity=4)
        echo = SenderReply(tags=blinded[:, :TAG_BYTES], blinded=blinded[:3])
        assert (self.intersect(echo) == -1).all()
