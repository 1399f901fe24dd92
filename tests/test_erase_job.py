"""Whom a request is about: found by who holds the person, by nobody else, whatever they guess."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compliance.erasure.wire import Identifier
from compliance.errors import ErasureError
from federation.jobs import erase
from federation.jobs.erase import (
    BATCH_PLACES,
    BLINDED,
    Parts,
    blinded_identifier,
    make_batch,
    place_of,
    request_tokens,
    rows_asked,
    show_people,
)
from privacy.identifiers import EmailRule, IdentifierKind, Recipe, hash_column, psi_tokens
from privacy.psi import PortableEngine
from privacy.randomness import seeded_secret

RECIPE = Recipe(default_region="DE", email_rule=EmailRule.AS_WRITTEN)
ENGINE = PortableEngine()
CAPACITY = 40
MINE, THEIRS = seeded_secret(1, "recipient"), seeded_secret(1, "origin")


def people(*names: str) -> np.ndarray:  # type: ignore[type-arg]
    hashed = hash_column([f"{name}@shop.com" for name in names], IdentifierKind.EMAIL, RECIPE)
    return psi_tokens(IdentifierKind.EMAIL, hashed.digests)


def asked(*names: str) -> np.ndarray:  # type: ignore[type-arg]
    return np.concatenate([request_tokens("email", f" {n}@SHOP.com", RECIPE) for n in names])


HELD = people("ana", "ben", "cleo")


def test_only_a_holder_finds_the_person() -> None:
    shown = show_people(HELD, MINE, 0, engine=ENGINE, capacity=CAPACITY)
    batch = make_batch(asked("zoe", "ben"), shown, THEIRS, engine=ENGINE, capacity=CAPACITY)
    found = rows_asked(3, MINE, 0, batch.reply, engine=ENGINE, capacity=CAPACITY)
    assert found.tolist() == [-1, batch.places[1], -1]


def test_a_batch_shows_neither_how_many_it_has_nor_whom() -> None:
    shown = show_people(HELD, MINE, 0, engine=ENGINE, capacity=CAPACITY)
    sizes = {
        make_batch(
            asked(*names), shown, THEIRS, engine=ENGINE, capacity=CAPACITY
        ).reply.blinded.shape
        for names in (("zoe",), ("zoe", "ben", "max"))
    }
    assert sizes == {(BATCH_PLACES, 32)}
    batch = make_batch(asked("zoe"), shown, THEIRS, engine=ENGINE, capacity=CAPACITY)
    candidates = people("zoe", *(f"guess{number}" for number in range(20)))
    guesses = ENGINE.hash_to_curve(candidates)
    seen = {bytes(point) for point in batch.reply.blinded}
    tried = [guesses, ENGINE.multiply(guesses, MINE), ENGINE.multiply(guesses, bytes(32))]
    assert not seen & {bytes(point) for points in tried for point in points}


def test_what_a_recipient_shows_tells_the_origin_nothing_of_who_is_held() -> None:
    with_zoe = show_people(people("zoe"), MINE, 0, engine=ENGINE, capacity=CAPACITY)
    without = show_people(HELD, MINE, 0, engine=ENGINE, capacity=CAPACITY)
    assert with_zoe.shape == without.shape == (CAPACITY, 32)
    guess = ENGINE.multiply(ENGINE.hash_to_curve(asked("zoe")), THEIRS)
    assert bytes(guess[0]) not in {bytes(point) for point in with_zoe}


def test_two_parts_share_no_point_and_are_answered_with_the_same_batch() -> None:
    parts = [people("ana", "ben"), people("cleo")]
    shown = [
        show_people(one, MINE, part, engine=ENGINE, capacity=CAPACITY)
        for part, one in enumerate(parts)
    ]
    assert not {bytes(one) for one in shown[0]} & {bytes(one) for one in shown[1]}
    batches = [
        make_batch(asked("cleo", "zoe", "ana"), one, THEIRS, engine=ENGINE, capacity=CAPACITY)
        for one in shown
    ]
    np.testing.assert_array_equal(batches[0].reply.blinded, batches[1].reply.blinded)
    cleo, _, ana = batches[0].places.tolist()
    found = [
        rows_asked(len(one), MINE, part, batch.reply, engine=ENGINE, capacity=CAPACITY).tolist()
        for part, (one, batch) in enumerate(zip(parts, batches, strict=True))
    ]
    assert found == [[ana, -1], [cleo]]


@given(st.integers(1, 10 * erase.PART_POINTS))
def test_parts_are_full_but_the_last_and_as_many_points_as_they_are_of(points: int) -> None:
    parts = Parts(points)
    sizes = [parts.size(part) for part in range(parts.count)]
    assert sum(sizes) == points
    assert set(sizes[:-1]) <= {erase.PART_POINTS}
    assert 0 < sizes[parts.last] <= erase.PART_POINTS


def test_a_place_is_told_and_read() -> None:
    assert [place_of(blinded_identifier(place)) for place in (0, 63)] == [0, 63]
    kind, form = BLINDED
    for value in ("64", "-1", "", "007", "²", "1.0"):
        with pytest.raises((ErasureError, ValueError), match=r"place|character"):
            place_of(Identifier(value=value, type=kind, format=form))
    with pytest.raises(ErasureError, match="place"):
        place_of(Identifier(value="1", type="email", format="sha256"))


@pytest.mark.parametrize("value", ["", "   ", "nobody", "@", "test@example.com\x00"])
def test_what_normalises_to_nothing_is_refused_without_being_shown(value: str) -> None:
    with pytest.raises(ErasureError, match="normalises to nothing"):
        request_tokens("email", value, RECIPE)


def test_an_unknown_kind_and_too_many_are_refused() -> None:
    with pytest.raises(ErasureError, match="another kind"):
        request_tokens("shoe size", "42", RECIPE)
    shown = show_people(HELD, MINE, 0, engine=ENGINE, capacity=CAPACITY)
    many = asked(*(f"p{number}" for number in range(BATCH_PLACES + 1)))
    with pytest.raises(ErasureError, match="up to 64"):
        make_batch(many, shown, THEIRS, engine=ENGINE, capacity=CAPACITY)
