"""Leaves are read fast exactly where the model reads the same, and never where it refuses."""

import json
from datetime import UTC, datetime
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_records import DIGEST, EXAMPLES, NOON

from compliance import records
from compliance.canonical import canonical_json
from compliance.errors import RecordError
from compliance.records import Record, parse_leaf, to_leaf
from compliance.records.spelling import Spelling

SPELT = {record.kind: Spelling.of(type(record)) for record in EXAMPLES}
FAST = [record for record in EXAMPLES if SPELT[record.kind] is not None]
COMMON = {"party": "retailer", "agreement": DIGEST}


def by_model(leaf: bytes) -> Record | None:
    """Read a leaf by its model alone; None where it is refused."""
    kinds = {record.kind: type(record) for record in EXAMPLES}
    try:
        record = kinds[json.loads(leaf)["kind"]].model_validate_json(leaf)
    except (ValueError, KeyError, TypeError, RecordError):
        return None
    return record if canonical_json(record.model_dump(mode="json")) == leaf else None


def by_package(leaf: bytes) -> Record | None:
    try:
        return parse_leaf(leaf)
    except RecordError:
        return None


def agree(leaf: bytes) -> Record | None:
    """Hold both readings, and the fast one where it gives one, against each other."""
    expected = by_model(leaf)
    assert by_package(leaf) == expected
    return expected


def test_the_kinds_that_fill_a_log_are_read_fast() -> None:
    filling = {"consent.recorded", "consent.used", "release", "access.decided"}
    assert filling | {"match.bound", "job.started"} <= {record.kind for record in FAST}
    assert len(FAST) < len(get_args(get_args(Record)[0]))


@pytest.mark.parametrize("record", FAST, ids=lambda record: record.kind)
def test_the_fast_reading_is_the_model_s_in_everything(record: Record) -> None:
    spelling = SPELT[record.kind]
    assert spelling is not None
    read = spelling.read(to_leaf(record).decode())
    assert read is not None
    assert type(read) is type(record)
    assert read == record
    assert read.model_fields_set == set(type(record).model_fields)
    assert to_leaf(read) == to_leaf(record)  # type: ignore[arg-type]
    assert read.model_copy(update={"job": "other"}) != record
    assert repr(read) == repr(type(record).model_validate_json(to_leaf(record)))
    with pytest.raises(ValueError, match="frozen"):
        read.party = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    "change",
    [
        {"eligible": 9, "rows": 8},
        {"excluded": {}},
        {"excluded": {"withdrawn": 1, "refused": 0}},
        {"excluded": {f"reason-{number:02}": number for number in range(16)}},
        {"excluded": {f"reason-{number:02}": number for number in range(17)}},
        {"excluded": {"": 1}},
        {"excluded": {"a:b,c": 1}},
        {"excluded": {"refused": -1}},
        {"recipients": []},
        {"recipients": ["brand"] * 129},
        {"as_of": None},
    ],
    ids=str,
)
def test_uses_of_consent_are_read_as_the_model_reads_them(change: dict[str, object]) -> None:
    (used,) = (record for record in EXAMPLES if record.kind == "consent.used")
    agree(canonical_json(used.model_dump(mode="json") | change))
    spelt = canonical_json(used.model_dump(mode="json") | {"excluded": {"a": 1, "b": 2}})
    for other in (b'{"b":2,"a":1}', b'{"a":1,"a":2}', b'{"a":1, "b":2}', b'{"a":01,"b":2}'):
        assert agree(spelt.replace(b'{"a":1,"b":2}', other)) is None


STRAY = st.sampled_from(
    [
        *[
            0,
            1,
            -1,
            1.0,
            0.5,
            2**53 - 1,
            2**53,
            10**14,
            10**15,
            "",
            "x",
            "x" * 128,
            "x" * 129,
            "-x",
        ],
        *["a@b", "é", 'a"b', "a\\b", "a\nb", "A" * 64, "f" * 64, True, False, None, [], {}, ["x"]],
        *[["x"] * 16, ["x"] * 17, ["x"] * 128, ["x"] * 129, ["x", ""], ["x", 1], [["x"]], {"x": 1}],
        *[[0], [0, 1, 127], [1, 0], [1, 1], [128], [-1], [True], list(range(128)), [0, "x"]],
        *["2026-11-22T12:00:00Z", "2026-02-30T12:00:00Z", "2026-11-22T24:00:00Z"],
        *["2026-11-22T23:59:60Z", "2026-11-22T12:00:00.000005Z", "2026-11-22T12:00:00.000000Z"],
        *["2026-11-22T12:00:00.5Z", "0000-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "2026-11-22"],
        *["2026-11-22t12:00:00Z", "2026-11-22 12:00:00Z", "2026-11-22T12:00:00+00:00", "release"],
    ]
)


@given(st.sampled_from(EXAMPLES), st.data())
@settings(max_examples=400)
def test_any_value_in_any_field_is_read_alike(record: Record, data: st.DataObject) -> None:
    fields = json.loads(to_leaf(record))
    name = data.draw(st.sampled_from(sorted(fields)))
    fields[name] = data.draw(STRAY)
    agree(json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())


@given(st.sampled_from(EXAMPLES), st.data())
@settings(max_examples=400)
def test_a_mutation_is_read_alike(record: Record, data: st.DataObject) -> None:
    leaf = to_leaf(record)
    at = data.draw(st.integers(0, len(leaf)))
    length = data.draw(st.integers(0, 3))
    put = data.draw(
        st.binary(max_size=3)
        | st.sampled_from(
            [b'"', b",", b" ", b"0", b"null", b"\n", b"\xc3\xa9", b'"kind":"release"']
        )
    )
    agree(leaf[:at] + put + leaf[at + length :])


@given(
    time=st.datetimes(
        datetime.fromisoformat("1970-01-01"),
        datetime.fromisoformat("2999-12-31"),
        timezones=st.just(UTC),
    ),
    names=st.lists(st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._:/ -]{0,9}\Z"), max_size=16),
    size=st.integers(0, 2**53 - 1),
    allowed=st.booleans(),
)
@settings(max_examples=60)
def test_values_in_range_are_read_alike(
    time: datetime, names: list[str], size: int, allowed: bool
) -> None:
    decided = records.AccessDecided(
        **COMMON | {"time": time},
        release_id="r",
        computation="c",
        recipient="x",
        allowed=allowed,
        clauses=tuple(names),
        policy_digest=DIGEST,
        question_digest=DIGEST,
    )
    pruned = records.LogPruned(**COMMON | {"time": time}, kept_from=size, root_hash=DIGEST)
    assert agree(to_leaf(decided)) == decided
    assert agree(to_leaf(pruned)) == pruned


def test_what_the_model_decides_is_left_to_it() -> None:
    huge = records.LogPruned(**COMMON | {"time": NOON}, kept_from=2**53 - 1, root_hash=DIGEST)
    spelling = Spelling.of(records.LogPruned)
    assert spelling is not None
    assert spelling.read(to_leaf(huge).decode()) is None
    assert parse_leaf(to_leaf(huge)) == huge
