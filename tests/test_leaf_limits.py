"""No kind of leaf can pass 2 KiB, whatever its fields hold, and however many parties there are."""

from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ConfigDict, TypeAdapter, ValidationError
from test_agreement import dataset, make_terms, party_terms
from test_leaf_spelling import agree

from compliance import records
from compliance.agreement import MOST_PARTIES, Agreement
from compliance.errors import RecordError
from compliance.log.tiles import ENTRY_LIMIT
from compliance.naming import named, tell_of
from compliance.records import LEAF_LIMIT, Record, parse_leaf, to_leaf
from compliance.records import leaf as fields
from compliance.records.calls import RefusedCalls
from compliance.records.leaf import (
    CLAUSES_BYTES,
    EVENT_BYTES,
    MOST_CLAUSES,
    MOST_NAMES,
    TOLD_BYTES,
    Leaf,
    spelt_bytes,
)

KINDS: tuple[type[Leaf], ...] = get_args(get_args(Record)[0])
DIGEST = "0123456789abcdef" * 4
COMMON: dict[str, Any] = {
    "time": datetime(2999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    "party": "p" * 63,
    "agreement": DIGEST,
    "job": "j" * 63,
}
LONGEST_NUMBER = 1.2345678901234567e-06
"""RFC 8785 writes seventeen digits after `0.00000`: no number is spelt longer."""


@cache
def many() -> Agreement:
    """An agreement of as many parties as there can be, with the longest names."""
    roles = ("brand", "partner", "coordinator", *["auditor"] * (MOST_PARTIES - 3))
    keys = [party_terms(f"p{number}", role) for number, role in enumerate(roles)]
    names = [f"p{number:03}-".ljust(63, "x") for number in reversed(range(MOST_PARTIES))]
    terms = make_terms()
    terms["train"]["max_parties_per_person"] = 1
    terms["parties"] = [key | {"name": name} for key, name in zip(keys, names, strict=True)]
    terms["datasets"] = [dataset(name, 100, "email") for name in names[:2]]
    return Agreement.from_terms(terms)


def everybody() -> list[str]:
    return [party.name for party in many().parties]


def event(size: int) -> str:
    """Return an event that takes so many bytes in a leaf, as many of them quotation marks as can be.

    Each of its quotation marks takes two bytes.
    """
    members = ",".join(f'"{number:x}":""' for number in range(100))
    text = "{" + members[: members.rindex(",")] + "}"
    assert spelt_bytes(text) <= size
    return text + " " * (size - spelt_bytes(text))


PLACES = tuple(range(MOST_NAMES))

LARGEST: list[tuple[object, Any]] = [
    (fields.Name, "n" * 128),
    (fields.Label, "l" * 63),
    (fields.Digest, DIGEST),
    (fields.Sentence, "\U0001f600" * 300),
    (fields.EventJson, event(EVENT_BYTES)),
    (fields.Count, 2**53 - 1),
    (fields.Positive, 2**53 - 1),
    (fields.Counts, {f"r{number:031}": 2**53 - 1 for number in range(16)}),
    (fields.Epsilon, LONGEST_NUMBER),
    (fields.Delta, LONGEST_NUMBER),
    (fields.Share, LONGEST_NUMBER),
    (fields.Time, COMMON["time"]),
    (fields.Parties, PLACES),
    (fields.Recipients, PLACES),
    (fields.Missing, PLACES),
    (fields.Clauses, ("n" * 128,) * 7 + ("n" * (CLAUSES_BYTES - 7 * 131 - 4),)),
    (RefusedCalls, dict.fromkeys(records.RefusedFor, 2**53 - 1)),
    (bool, False),
]
"""What takes most bytes of each kind of value that fields have."""

LARGER: list[tuple[object, Any]] = [
    (fields.Name, "n" * 129),
    (fields.Label, "l" * 64),
    (fields.Digest, DIGEST + "0"),
    (fields.Sentence, "s" * 301),
    (fields.EventJson, event(EVENT_BYTES + 1)),
    (fields.Count, 2**53),
    (fields.Positive, 2**53),
    (fields.Counts, {"r" * 33: 1}),
    (fields.Counts, {f"r{number}": 1 for number in range(17)}),
    (fields.Parties, (*PLACES, MOST_NAMES)),
    (fields.Parties, (0, 0)),
    (fields.Parties, (1, 0)),
    (fields.Parties, ("n" * 128,) * 3 + ("n" * (TOLD_BYTES - 3 * 131 - 4 + 1),)),
    (fields.Recipients, ("n" * 100,) * 4),
    (fields.Missing, ("n" * 100,) * 4),
    (fields.Missing, (*PLACES, 0)),
    (RefusedCalls, {records.RefusedFor.CALL: 2**53}),
    (RefusedCalls, {"somebody's own word": 1}),
    (RefusedCalls, {}),
    (fields.Clauses, ("n" * 128,) * 8),
    (fields.Clauses, ("n",) * (MOST_CLAUSES + 1)),
]
"""What is too large by one."""


def strictly(annotation: object) -> TypeAdapter[Any]:
    return TypeAdapter(annotation, config=ConfigDict(strict=True))


def largest(annotation: object) -> Any:
    """Return the longest value of a field; fail where nobody has said how long it can be."""
    for known, value in LARGEST:
        if annotation == known:
            return value
    choices: Iterator[Any] | tuple[Any, ...] = get_args(annotation)
    if get_origin(annotation) in (Union, UnionType) and type(None) in choices:
        (some,) = (one for one in choices if one is not type(None))
        return largest(some)
    if get_origin(annotation) is Literal:
        return max(choices, key=lambda one: len(str(one)))
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return max(annotation, key=len)
    if get_origin(annotation) is Annotated and get_args(annotation)[0] is int:
        return 2**53 - 1
    return pytest.fail(f"say in this file how long {annotation} can be")


def filled(kind: type[Leaf]) -> Record:
    """Return a record each of whose fields is as long as it may be."""
    hints = get_type_hints(kind, include_extras=True)
    values = {name: largest(hints[name]) for name in kind.model_fields}
    if kind is records.SegmentWritten:  # says one of the two
        values["size"] = None
    record: Record = kind(**values)  # type: ignore[assignment]
    return record


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_leaf_of_any_kind_is_at_most_two_kibibytes(kind: type[Leaf]) -> None:
    record = filled(kind)
    leaf = to_leaf(record)
    assert len(leaf) <= 2_048
    assert parse_leaf(leaf) == record


def test_one_bound_holds_wherever_leaves_are_written_and_read() -> None:
    assert LEAF_LIMIT == ENTRY_LIMIT == 2_048


@pytest.mark.parametrize(("annotation", "value"), LARGEST)
def test_the_largest_values_are_taken(annotation: object, value: object) -> None:
    assert strictly(annotation).validate_python(value) == value


@pytest.mark.parametrize(("annotation", "value"), LARGER)
def test_larger_values_are_refused(annotation: object, value: object) -> None:
    with pytest.raises(ValidationError):
        strictly(annotation).validate_python(value)


def test_places_of_all_parties_take_as_much_as_names_may() -> None:
    assert MOST_NAMES == MOST_PARTIES
    assert spelt_bytes(PLACES) == TOLD_BYTES


@given(st.data())
@settings(max_examples=30)
def test_whoever_holds_the_agreement_has_the_names_again(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(everybody()), unique=True))
    parties = tell_of(names, many())
    assert spelt_bytes(parties) <= TOLD_BYTES
    assert all(isinstance(one, str) for one in parties) == (spelt_bytes(names) <= TOLD_BYTES)
    assert sorted(named(parties, many())) == sorted(names)
    ended = records.JobEnded(**COMMON, computation="c", outcome="done", missing=parties)
    assert agree(to_leaf(ended)) == ended
    used = records.ConsentUsed(
        **COMMON,
        purpose="p",
        consent_log_size=1,
        rows=1,
        eligible=1,
        excluded={},
        recipients=parties,
    )
    assert agree(to_leaf(used)) == used


def test_few_parties_are_told_by_name_in_their_order() -> None:
    names = everybody()[3::-1]
    assert tell_of(names, many()) == tuple(names)
    assert tell_of((), many()) == ()
    assert named(tell_of(names, many()), many()) == tuple(names)


def test_a_log_begins_with_all_parties() -> None:
    parties = tell_of(everybody(), many())
    assert parties == PLACES
    assert named(parties, many()) == tuple(everybody())
    signed = records.AgreementSigned(**COMMON, parties=parties, supersedes=DIGEST)
    assert parse_leaf(to_leaf(signed)) == signed


def test_a_place_that_an_agreement_has_not_is_nobody() -> None:
    terms = make_terms()
    agreement = Agreement.from_terms(terms)
    assert named((0, 4), agreement) == (terms["parties"][0]["name"], "place 4")


def test_of_many_parties_none_is_told_who_is_not_in_the_agreement() -> None:
    with pytest.raises(RecordError, match="stranger is none"):
        tell_of([*everybody(), "stranger"], many())


@pytest.mark.parametrize(
    "spelt",
    [
        *["[0,1,127]", "[0]", "[127]", "[]"],
        *[
            "[1,0]",
            "[1,1]",
            "[128]",
            "[-1]",
            "[01]",
            "[1.0]",
            "[1,]",
            '["a",1]',
            '[1,"a"]',
            "[true]",
        ],
    ],
)
@pytest.mark.parametrize("kind", [records.AgreementSigned, records.ConsentUsed, records.JobEnded])
def test_places_rise_and_are_spelt_once(kind: type[Leaf], spelt: str) -> None:
    (name,) = {"parties", "recipients", "missing"} & kind.model_fields.keys()
    leaf = to_leaf(filled(kind)).decode()
    everyone = "[" + ",".join(map(str, PLACES)) + "]"
    assert f'"{name}":{everyone}' in leaf
    read = agree(leaf.replace(everyone, spelt).encode())
    holds = spelt in {"[0,1,127]", "[0]", "[127]"} or (spelt == "[]" and name == "recipients")
    assert (read is not None) == holds


def test_lists_that_earlier_versions_wrote_longer_are_read() -> None:
    """Up to 24 parties by name, and up to sixteen clauses, in a leaf of 2 KiB."""
    names = [f"p{number:02}-".ljust(60, "x") for number in range(24)]
    signed = records.AgreementSigned(**COMMON, parties=(1,), supersedes=None)
    listed = '["' + '","'.join(names) + '"]'
    leaf = to_leaf(signed).replace(b"[1]", listed.encode())
    assert TOLD_BYTES < len(leaf) <= LEAF_LIMIT
    read = agree(leaf)
    assert isinstance(read, records.AgreementSigned)
    assert read.parties == tuple(names)
    assert to_leaf(read) == leaf
    with pytest.raises(RecordError, match=f"at most {TOLD_BYTES} bytes"):
        records.AgreementSigned(**COMMON, parties=tuple(names), supersedes=None)


@given(st.lists(st.text("abc", min_size=1, max_size=128), max_size=20))
@settings(max_examples=50)
def test_the_first_of_many_clauses_are_told(names: list[str]) -> None:
    kept = records.AccessDecided.first_clauses(names)
    assert list(kept) == names[: len(kept)]
    assert strictly(fields.Clauses).validate_python(kept) == kept
    if len(kept) < min(len(names), MOST_CLAUSES):
        assert spelt_bytes(names[: len(kept) + 1]) > CLAUSES_BYTES
