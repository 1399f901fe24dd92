"""A draft: one spelling, one digest, and nothing but keys can be filled in."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parties import Parties

from compliance.agreement import Agreement
from compliance.draft import Draft
from compliance.errors import AlteredAgreementError, InvalidAgreementError
from compliance.rendering import render, render_draft

PARTIES = Parties.in_memory()
AGREEMENT = PARTIES.agreement
DRAFT = Draft.of(AGREEMENT)


def test_keys_are_all_that_a_draft_lacks() -> None:
    text = DRAFT.canonical_bytes.decode()
    for party in AGREEMENT.parties:
        for key in (party.identity_key, party.log_key, party.encryption_key):
            assert key is None or key not in text
    assert DRAFT.with_parties(AGREEMENT.parties) == AGREEMENT
    assert Draft.from_canonical_bytes(DRAFT.canonical_bytes) == DRAFT


def test_the_digest_is_the_same_whoever_holds_the_keys() -> None:
    stood_in = DRAFT.for_reading()
    assert stood_in != AGREEMENT
    assert Draft.of(stood_in).digest == DRAFT.digest
    DRAFT.check(stood_in)
    DRAFT.check(AGREEMENT)


CHANGES: dict[str, dict[str, Any]] = {
    "budget": {"budget": {"epsilon": 1.3, "delta": 1e-5}},
    "title": {"title": "Another trial"},
    "terms_text": {"terms_text": "And all rows go to the brand."},
    "expand": {"expand": {"maximum_share": 0.6}},
}


@pytest.mark.parametrize("field", CHANGES)
def test_any_other_term_is_told_by_its_name(field: str) -> None:
    other = Parties.in_memory(**CHANGES[field]).agreement
    with pytest.raises(AlteredAgreementError, match=rf"differs in {field};"):
        DRAFT.check(other)


def test_a_role_or_a_party_that_changes_is_told() -> None:
    swapped = tuple(reversed(AGREEMENT.parties))
    other = Agreement.from_terms(
        {name: getattr(AGREEMENT, name) for name in Agreement.model_fields} | {"parties": swapped}
    )
    with pytest.raises(AlteredAgreementError, match="differs in parties;"):
        DRAFT.check(other)
    with pytest.raises(InvalidAgreementError, match="in its order"):
        DRAFT.with_parties(swapped)


def test_a_key_that_stands_twice_is_refused() -> None:
    brand, retailer, *others = AGREEMENT.parties
    thief = retailer.model_copy(update={"identity_key": brand.identity_key})
    with pytest.raises(InvalidAgreementError, match="one key stands twice"):
        DRAFT.with_parties((brand, thief, *others))


@pytest.mark.parametrize(
    "data",
    {
        "empty": b"",
        "no object": b"[]",
        "no parties": b"{}",
        "a number as parties": b'{"parties":1}',
        "a party too many": b'{"parties":[{"name":"a","role":"brand","identity_key":"x"}]}',
        "other spelling": DRAFT.canonical_bytes + b" ",
        "deeply nested": b"[" * 100_000,
    }.items(),
    ids=lambda item: item[0],
)
def test_what_is_no_draft_is_refused(data: tuple[str, bytes]) -> None:
    with pytest.raises(InvalidAgreementError):
        Draft.from_canonical_bytes(data[1])


@given(
    st.binary(max_size=60)
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda one: (
            st.lists(one, max_size=3)
            | st.dictionaries(st.sampled_from(["parties", "name", "role"]), one)
        ),
    ).map(lambda one: json.dumps(one).encode())
)
def test_garbage_leaks_no_other_error(data: bytes) -> None:
    with pytest.raises(InvalidAgreementError):
        Draft.from_canonical_bytes(data)


def test_people_read_every_term_and_no_key() -> None:
    told = render_draft(DRAFT)
    assert f"Draft of agreement `trial`, digest `{DRAFT.digest}`." in told
    assert "| party | role |\n" in told
    assert "fingerprint" not in told
    whole = render(AGREEMENT).partition("## People")[2]
    assert whole
    assert told.endswith(whole)
