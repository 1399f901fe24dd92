import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from privacy.accounting.events import DiscreteLaplaceEvent
from privacy.errors import InvalidParameterError, PeerMessageError
from privacy.psi.blinding import TAG_BYTES
from privacy.psi.engine import validate_points
from privacy.psi.field import PRIME, decode_elements, encode_elements
from privacy.psi.many_party import MAXIMUM_PARTIES, Ring, common_places
from privacy.psi.portable import PortableEngine
from privacy.randomness import Secret, seeded_secret

Bytes: TypeAlias = NDArray[np.uint8]

ENGINE = PortableEngine()
QUIET = DiscreteLaplaceEvent(scale=0.05, sensitivity=2)  # so little noise that groups get 2 dummies
SEED = seeded_secret(0, "ring test")
FIELDS = {"capacities": (60,) * 3, "mechanism": QUIET, "delta": 1e-9}


def ring(parties: int = 3, **changed: object) -> Ring:
    if (capacity := changed.pop("capacity", None)) is not None:
        changed["capacities"] = (capacity,) * parties
    return Ring(**(FIELDS | changed))


def secrets_of(parties: int, seed: int = 1) -> list[Secret]:
    return [seeded_secret(seed, f"party {party}") for party in range(parties)]


def tokens_of(numbers: Sequence[int]) -> Bytes:
    raw = b"".join(b"\x01" + number.to_bytes(32, "big") for number in numbers)
    return np.frombuffer(raw, dtype=np.uint8).reshape(-1, 33)


class Outcome(NamedTuple):
    tags: list[Bytes]
    common: NDArray[np.int64]
    matched: list[NDArray[np.int64]]


def run(shared: Ring, sets: Sequence[Sequence[int]], seed: Secret = SEED) -> Outcome:
    keys = secrets_of(shared.parties)
    tags = []
    for party, numbers in enumerate(sets):
        points = shared.blind(tokens_of(numbers), party, keys[party], seed, engine=ENGINE)
        *others, last = [(party + hop) % shared.parties for hop in range(1, shared.parties)]
        for other in others:
            points = shared.pass_on(points, party, keys[other], engine=ENGINE)
        tags.append(shared.tags(points, party, keys[last], engine=ENGINE))
    common = common_places(tags, shared.capacities)
    matched = [
        shared.matched(len(sets[party]), party, keys[party], common[party])
        for party in range(shared.parties)
    ]
    return Outcome(tags, common, matched)


numbers = st.lists(st.integers(0, 12), unique=True, max_size=10)


class TestRing:
    @settings(max_examples=25)
    @given(st.lists(numbers, min_size=3, max_size=4))
    def test_every_party_finds_what_all_have_in_the_same_order(self, sets: list[list[int]]) -> None:
        capacity = 20 + 4 * ring().most_dummies
        outcome = run(ring(parties=len(sets), capacity=capacity), sets)
        found = [
            [own[index] for index in matched if index >= 0]
            for own, matched in zip(sets, outcome.matched, strict=True)
        ]
        assert all(one == found[0] for one in found)
        assert sorted(found[0]) == sorted(set.intersection(*map(set, sets)))

    def test_dummies_stand_at_the_same_columns_for_all(self) -> None:
        outcome = run(ring(), [[1, 2, 3], [2, 3, 4], [3, 5]])
        dummies = [(matched < 0).tolist() for matched in outcome.matched]
        assert dummies[0] == dummies[1] == dummies[2]
        assert 0 < sum(dummies[0]) == len(outcome.common[0]) - 1

    def test_the_comparer_counts_more_in_every_group_than_the_group_shares(self) -> None:
        sets = [[1, 2, 3, 9], [2, 3, 4, 8], [3, 5, 7]]
        noisy = ring(capacity=400, mechanism=DiscreteLaplaceEvent(scale=3.0, sensitivity=2))
        tags = [{row.tobytes() for row in part} for part in run(noisy, sets).tags]
        seen = set()
        for group in ((0, 1), (0, 2), (1, 2), (0, 1, 2)):
            others = [tags[party] for party in range(3) if party not in group]
            counted = len(set.intersection(*(tags[party] for party in group)).difference(*others))
            true = len(
                set.intersection(*(set(sets[party]) for party in group)).difference(
                    *(sets[party] for party in range(3) if party not in group)
                )
            )
            assert 0 <= counted - true <= noisy.most_dummies
            seen.add(counted - true)
        assert len(seen) > 1  # each group its own noise

    def test_the_counts_noise_has_the_spread_that_is_charged(self) -> None:
        noisy = ring(capacity=600, mechanism=DiscreteLaplaceEvent(scale=4.0, sensitivity=2))
        counts = [
            len(noisy._dummies((0, 1), seeded_secret(seed, "spread"), 33)) for seed in range(600)
        ]
        ratio = np.exp(-1 / 4.0)
        assert np.std(counts) == pytest.approx(np.sqrt(2 * ratio) / (1 - ratio), rel=0.2)
        assert np.mean(counts) == pytest.approx(noisy._middle, abs=1.5)

    def test_every_set_shows_its_own_capacity_and_nothing_else(self) -> None:
        outcome = run(ring(capacities=(60, 20, 33)), [[], [1], [1]])
        assert [part.shape for part in outcome.tags] == [(60, TAG_BYTES), (20, 12), (33, 12)]

    def test_parties_of_different_sizes_find_what_all_have(self) -> None:
        sets = [list(range(40)), [3], list(range(2, 12))]
        outcome = run(ring(capacities=(60, 20, 33)), sets)
        found = [
            [own[index] for index in matched if index >= 0]
            for own, matched in zip(sets, outcome.matched, strict=True)
        ]
        assert found == [[3]] * 3

    def test_a_party_brings_no_more_than_its_own_capacity(self) -> None:
        shared, key = ring(capacities=(60, 20, 33)), secrets_of(3)[1]
        with pytest.raises(InvalidParameterError, match="up to 20"):
            shared.blind(tokens_of(range(21)), 1, key, SEED, engine=ENGINE)
        large = shared.blind(tokens_of(range(21)), 0, key, SEED, engine=ENGINE)
        for step in (shared.pass_on, shared.tags):
            with pytest.raises(PeerMessageError, match=r"\(20, 32\)"):
                step(large, 1, key, engine=ENGINE)

    @pytest.mark.parametrize("scale", [0.2, 2.0, 20.0])
    @pytest.mark.parametrize("delta", [1e-3, 1e-6])
    def test_cutting_the_noise_of_both_counts_adds_no_more_than_delta(
        self, scale: float, delta: float
    ) -> None:
        """A person who comes to a party adds one to one count, and takes one from another."""
        mechanism = DiscreteLaplaceEvent(scale=scale, sensitivity=2)
        middle = ring(capacity=10_000, mechanism=mechanism, delta=delta)._middle
        ratio, k = np.exp(-1 / scale), np.arange(-middle, middle + 1)
        mass = (1 - ratio) / (1 + ratio) * ratio ** np.abs(k)
        mass[[0, -1]] = ratio**middle / (1 + ratio)  # what is beyond falls on the ends
        without, with_ = np.append(mass, 0.0), np.append(0.0, mass)
        first, second = np.outer(without, with_), np.outer(with_, without)
        cut = np.maximum(first - np.exp(2 / scale) * (1 + 1e-12) * second, 0).sum()
        assert mass.sum() == pytest.approx(1)
        assert 0 < cut <= delta

    def test_no_party_can_compare_what_it_passes_on(self) -> None:
        shared, keys = ring(), secrets_of(3)
        blinded = [
            shared.blind(tokens_of([1, 2, 3]), party, keys[party], SEED, engine=ENGINE)
            for party in range(3)
        ]
        passed = [
            shared.pass_on(blinded[party], party, keys[(party + 1) % 3], engine=ENGINE)
            for party in range(3)
        ]
        for first, second in itertools.combinations([*blinded, *passed], 2):
            assert not {row.tobytes() for row in first} & {row.tobytes() for row in second}

    def test_another_seed_gives_other_dummies_and_the_same_result(self) -> None:
        sets = [[1, 2, 3], [2, 3, 4], [3, 5]]
        first, second = run(ring(), sets), run(ring(), sets, seeded_secret(9, "other"))
        assert [sum(matched >= 0) for matched in first.matched] == [1, 1, 1]
        assert [sum(matched >= 0) for matched in second.matched] == [1, 1, 1]
        both = {row.tobytes() for row in first.tags[0]} & {row.tobytes() for row in second.tags[0]}
        assert 3 < len(both) < 60  # tokens and padding stay, as only a test may repeat secrets

    @pytest.mark.parametrize(
        "changed",
        [
            {"capacities": (60,) * 2},
            {"capacities": (60_000,) * (MAXIMUM_PARTIES + 1)},
            {"capacities": (60, 12, 60)},
            {"delta": 0.0},
            {"delta": 1.0},
            {"capacity": 12},
            {"mechanism": DiscreteLaplaceEvent(scale=0.05)},
        ],
        ids=str,
    )
    def test_terms_out_of_range_are_refused(self, changed: dict[str, object]) -> None:
        with pytest.raises(InvalidParameterError):
            ring(**changed)

    def test_the_least_capacity_is_one_more_than_all_dummies(self) -> None:
        least = ring().most_dummies + 1
        assert len(run(ring(capacity=least), [[1], [1], [1]]).common[0]) >= 1
        with pytest.raises(InvalidParameterError, match="capacities"):
            ring(capacity=least - 1)

    @pytest.mark.parametrize("party", [-1, 3])
    def test_a_party_outside_the_ring_is_refused(self, party: int) -> None:
        with pytest.raises(InvalidParameterError, match="from 0 to 2"):
            ring().blind(tokens_of([1]), party, SEED, SEED, engine=ENGINE)

    @pytest.mark.parametrize(
        "tokens",
        [np.zeros((1, 33), np.uint8), np.ones(33, np.uint8), np.ones((1, 1), np.uint8)],
        ids=["kind of dummies", "flat", "no hash"],
    )
    def test_tokens_that_could_be_dummies_are_refused(self, tokens: Bytes) -> None:
        with pytest.raises(InvalidParameterError, match="kind 0"):
            ring().blind(tokens, 0, SEED, SEED, engine=ENGINE)


TAMPERINGS: dict[str, Callable[[Bytes], Bytes]] = {
    "one too few": lambda rows: rows[:-1],
    "narrow": lambda rows: rows[:, :-1],
    "another type": lambda rows: rows.astype(np.int16),
    "duplicate": lambda rows: np.concatenate([rows[:1], rows[:-1]]),
}


class TestHostileRing:
    @pytest.mark.parametrize(
        "tamper",
        [
            *TAMPERINGS.values(),
            lambda points: np.concatenate([encode_elements([2]), points[1:]]),
            lambda points: np.concatenate([encode_elements([PRIME - 1]), points[1:]]),
            lambda points: np.concatenate([encode_elements([PRIME + 9]), points[1:]]),
        ],
        ids=[*TAMPERINGS, "twist", "low order", "not canonical"],
    )
    def test_points_that_break_the_protocol_go_no_further(
        self, tamper: Callable[[Bytes], Bytes]
    ) -> None:
        shared, keys = ring(), secrets_of(3)
        points = shared.blind(tokens_of([1, 2]), 0, keys[0], SEED, engine=ENGINE)
        shared.pass_on(points, 0, keys[1], engine=ENGINE)
        for step in (shared.pass_on, shared.tags):
            with pytest.raises(PeerMessageError):
                step(tamper(points), 0, keys[1], engine=ENGINE)

    def test_points_that_differ_by_low_order_alone_go_no_further(self) -> None:
        """Both are fit to be sent, and their products under any secret are one."""
        shared, keys = ring(), secrets_of(3)
        points = shared.blind(tokens_of([1, 2]), 0, keys[0], SEED, engine=ENGINE)
        (u,) = decode_elements(points[:1])
        points[1:2] = encode_elements([pow(u, -1, PRIME)])  # u of P + (0, 0), which has order 2
        validate_points(points, 60, engine=ENGINE)
        for step in (shared.pass_on, shared.tags):
            with pytest.raises(PeerMessageError, match="got 1 that repeat"):
                step(points, 0, keys[1], engine=ENGINE)

    def test_no_party_outside_the_ring_has_a_set(self) -> None:
        shared, (key, *_) = ring(), secrets_of(3)
        points = shared.blind(tokens_of([1, 2]), 0, key, SEED, engine=ENGINE)
        for party in (-1, 3):
            for step in (shared.pass_on, shared.tags):
                with pytest.raises(InvalidParameterError, match="from 0 to 2"):
                    step(points, party, key, engine=ENGINE)
            with pytest.raises(InvalidParameterError, match="from 0 to 2"):
                shared.matched(2, party, key, np.array([0]))

    @pytest.mark.parametrize("tamper", TAMPERINGS.values(), ids=TAMPERINGS.keys())
    def test_the_comparer_refuses_tags_that_are_none(
        self, tamper: Callable[[Bytes], Bytes]
    ) -> None:
        tags = run(ring(), [[1], [1], [1]]).tags
        for party in range(3):
            tampered = [tamper(part) if at == party else part for at, part in enumerate(tags)]
            with pytest.raises(PeerMessageError):
                common_places(tampered, (60,) * 3)

    @pytest.mark.parametrize(
        "places",
        [
            np.array([0, 0]),
            np.array([-1]),
            np.array([60]),
            np.array([[1]]),
            np.array([1.0]),
            np.arange(61),
        ],
        ids=["repeated", "negative", "beyond", "nested", "real", "too many"],
    )
    def test_places_that_cannot_be_are_refused(self, places: NDArray[np.int64]) -> None:
        ring().matched(3, 0, SEED, np.array([0, 59]))
        with pytest.raises(PeerMessageError):
            ring().matched(3, 0, SEED, places)

    def test_more_tokens_than_the_capacity_are_refused(self) -> None:
        with pytest.raises(InvalidParameterError, match="up to 60"):
            ring().matched(61, 0, SEED, np.array([0]))
