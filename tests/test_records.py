"""Records: one encoding each, closed, bounded, and without a place for an identifier."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import get_args

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from compliance.canonical import canonical_json
from compliance.errors import RecordError
from compliance.records import (
    LEAF_LIMIT,
    AccessDecided,
    AgreementEnded,
    AgreementSigned,
    ApprovalReceived,
    ArtefactDeleted,
    BudgetCommitted,
    BudgetRefunded,
    BudgetReserved,
    CallsRefused,
    CodeReleased,
    ConsentRecorded,
    ConsentUsed,
    ErasureAcknowledged,
    ErasureCompleted,
    ErasureOverdue,
    ErasureRequested,
    ErasureStep,
    HoldLifted,
    HoldPlaced,
    JobEnded,
    JobStarted,
    KeyRotated,
    LinkOpened,
    LogPruned,
    MatchBound,
    MeasurementMade,
    ModelDue,
    ModelRetired,
    ModelTrained,
    Record,
    Refusal,
    Release,
    SegmentWritten,
    SubjectCorrected,
    SubjectInformed,
    SubjectKeyDestroyed,
    WitnessReceived,
    parse_leaf,
    to_leaf,
)

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
DIGEST = "0123456789abcdef" * 4
COMMON = {"time": NOON, "party": "retailer", "agreement": DIGEST, "job": "job-1"}

EXAMPLES: list[Record] = [
    AgreementSigned(**COMMON, parties=("brand", "retailer", "coordinator")),
    ConsentUsed(
        **COMMON,
        purpose="lookalike-audiences",
        consent_log_size=12,
        rows=10,
        eligible=7,
        excluded={"no_record": 1, "withdrawn": 2},
    ),
    Release(
        **COMMON,
        release_id="job-1/round 3",
        computation="train",
        recipient="coordinator",
        content_digest=DIGEST,
        content_bytes=4096,
        charge_id="charge-1",
    ),
    Refusal(
        **COMMON,
        release_id="job-1/round 3",
        computation="match",
        term="match.minimum_match",
        remedy="match a larger audience",
    ),
    BudgetReserved(
        **COMMON,
        charge_id="charge-1",
        mechanism='{"kind":"gaussian","noise_multiplier":1.5}',
        epsilon=1.0,
        delta=1e-6,
        epsilon_spent=1.25,
        epsilon_cap=4.0,
    ),
    BudgetCommitted(**COMMON, charge_id="charge-1", epsilon_spent=1.25),
    BudgetRefunded(**COMMON, charge_id="charge-1", reason="nothing was released"),
    ModelTrained(
        **COMMON, model_digest=DIGEST, rounds=2, parties=("retailer",), epsilon=2.0, delta=1e-6
    ),
    MeasurementMade(
        **COMMON, measurement_digest=DIGEST, parties=("retailer",), epsilon=0.5, delta=None
    ),
    LinkOpened(
        **COMMON,
        peer="brand",
        protocol="rr22",
        bucket=3,
        own_certificate="0f" * 32,
        peer_certificate="a1" * 32,
    ),
    MatchBound(**COMMON, peer="brand", own_commitment="0f" * 32, peer_commitment="a1" * 32),
    SegmentWritten(**COMMON, segment="look-alikes", share=0.05, rows=3),
    JobStarted(**COMMON, computation="expand"),
    JobEnded(**COMMON, computation="expand", outcome="completed"),
    AccessDecided(
        **COMMON,
        release_id="model/train.update/coordinator",
        computation="train.update",
        recipient="coordinator",
        allowed=True,
        clauses=("agreed:train.update",),
        policy_digest="1" * 64,
        question_digest="2" * 64,
    ),
    AgreementEnded(**COMMON, ended_by="brand", notice_digest=DIGEST, reason="the season is over"),
    ApprovalReceived(
        **COMMON,
        approver="retailer-1",
        of_party="retailer",
        job_digest=DIGEST,
        approval_digest=DIGEST,
    ),
    CallsRefused(**COMMON | {"job": None}, since=NOON, refused={"token": 3, "node": 1}),
    CodeReleased(**COMMON, package="comity", package_version="1.2.3", code_digest=DIGEST),
    KeyRotated(**COMMON, key="log_key", old_key_digest=DIGEST, new_key_digest="0f" * 32),
    ConsentRecorded(
        **COMMON, sequence=3, event="withdrawn", purpose="lookalike-audiences", commitment=DIGEST
    ),
    SubjectInformed(**COMMON, request="rq-1"),
    SubjectCorrected(**COMMON, request="rq-1"),
    ErasureRequested(
        **COMMON, request="request-1", origin="brand", deadline=NOON + timedelta(days=30)
    ),
    ErasureAcknowledged(**COMMON, request="request-1", peer="brand", acknowledgement_digest=DIGEST),
    ErasureStep(
        **COMMON,
        request="request-1",
        target="model march",
        outcome_digest=DIGEST,
    ),
    ErasureCompleted(**COMMON, request="request-1", peer="brand", completion_digest=DIGEST),
    ErasureOverdue(**COMMON, request="request-1", peer="brand", evidence_digest=DIGEST),
    ModelDue(**COMMON, model_digest=DIGEST, due=NOON),
    ModelRetired(**COMMON, model_digest=DIGEST, reason="trained again without one person"),
    SubjectKeyDestroyed(**COMMON, request="request-1"),
    ArtefactDeleted(
        **COMMON, artefact="segment", name="look-alikes", purpose="lookalike", days=90, due=NOON
    ),
    HoldPlaced(**COMMON, hold="hold-1", artefact="segment", reason="a court asked for it"),
    HoldLifted(**COMMON, hold="hold-1"),
    LogPruned(**COMMON, kept_from=512, root_hash=DIGEST),
    WitnessReceived(**COMMON, peer="brand", tree_size=7, root_hash=DIGEST),
]
every_kind = pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: record.kind)


def changed(record: Record, **changes: object) -> bytes:
    fields = json.loads(to_leaf(record)) | changes
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def test_there_is_an_example_of_every_kind() -> None:
    assert {type(record) for record in EXAMPLES} == set(get_args(get_args(Record)[0]))


@every_kind
def test_every_record_round_trips(record: Record) -> None:
    assert parse_leaf(to_leaf(record)) == record


def test_a_leaf_is_canonical_json() -> None:
    # Written by hand after RFC 8785: members sorted, shortest numbers, no space.
    assert to_leaf(EXAMPLES[4]) == (
        b'{"agreement":"' + DIGEST.encode() + b'","charge_id":"charge-1","delta":0.000001,'
        b'"epsilon":1,"epsilon_cap":4,"epsilon_spent":1.25,"job":"job-1","kind":"budget.reserved",'
        b'"mechanism":"{\\"kind\\":\\"gaussian\\",\\"noise_multiplier\\":1.5}",'
        b'"party":"retailer","time":"2026-11-22T12:00:00Z","version":1}'
    )


@every_kind
def test_any_other_spelling_is_refused(record: Record) -> None:
    leaf = to_leaf(record)
    fields = json.loads(leaf)
    for other in [
        leaf + b"\n",
        b" " + leaf,
        json.dumps(fields).encode(),
        json.dumps(dict(reversed(fields.items())), separators=(",", ":")).encode(),
        leaf.replace(b'"version":1', b'"version":1.0'),
        leaf.replace(b'"retailer"', b'"\\u0072etailer"'),
        leaf.replace(b"12:00:00Z", b"12:00:00.000Z"),
        leaf.replace(b"12:00:00Z", b"12:00:00+00:00"),
        leaf.replace(b"12:00:00Z", b"13:00:00+01:00"),
        b'{"party":"retailer",' + leaf[1:],
    ]:
        assert other != leaf
        with pytest.raises(RecordError):
            parse_leaf(other)


NULLABLE = {
    "agreement.signed": {"supersedes"},
    "consent.used": {"as_of", "cohort_root"},
    "hold.placed": {"name"},
    "measurement.made": {"delta"},
    "release": {"charge_id"},
    "segment.written": {"size"},
}


@every_kind
def test_no_field_may_be_added_left_out_or_null(record: Record) -> None:
    with pytest.raises(RecordError, match="Extra inputs"):
        parse_leaf(changed(record, email="x"))
    nullable = {"job"} | NULLABLE.get(record.kind, set())
    for name in json.loads(to_leaf(record)):
        fields = json.loads(to_leaf(record))
        del fields[name]
        with pytest.raises(RecordError):
            parse_leaf(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode())
        if name not in nullable:
            with pytest.raises(RecordError):
                parse_leaf(changed(record, **{name: None}))


@every_kind
def test_no_string_may_hold_an_at_sign(record: Record) -> None:
    for name, value in json.loads(to_leaf(record)).items():
        if isinstance(value, str):
            with pytest.raises(RecordError) as caught:
                parse_leaf(changed(record, **{name: "someone@example.com"}))
            assert "someone" not in str(caught.value)
        if isinstance(value, list):
            with pytest.raises(RecordError):
                parse_leaf(changed(record, **{name: ["someone@example.com"]}))
        if isinstance(value, dict):
            with pytest.raises(RecordError) as caught:
                parse_leaf(changed(record, **{name: {"someone@example.com": 1}}))
            assert "someone" not in str(caught.value)


@every_kind
def test_records_do_not_change(record: BaseModel) -> None:
    with pytest.raises(ValueError, match="frozen"):
        record.party = "other"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("index", "changes"),
    [
        (0, {"parties": []}),
        (0, {"parties": ["x"] * 129}),
        (0, {"parties": "brand"}),
        (0, {"version": 2}),
        (0, {"version": True}),
        (0, {"kind": "agreement"}),
        (0, {"party": ""}),
        (0, {"party": "-leading"}),
        (0, {"party": "x" * 129}),
        (0, {"party": "new\nline"}),
        (0, {"party": "trailing\n"}),
        (0, {"agreement": DIGEST.upper()}),
        (0, {"agreement": DIGEST + "0"}),
        (0, {"time": 0}),
        (0, {"time": "2026-11-22T12:00:00"}),
        (0, {"time": "2026-11-22"}),
        (0, {"time": "2026-02-30T12:00:00Z"}),
        (0, {"time": "0001-01-01T00:00:00+23:59"}),
        (1, {"eligible": 11}),
        (1, {"rows": -1}),
        (1, {"rows": 2**53}),
        (1, {"rows": "10"}),
        (1, {"rows": 10.5}),
        (1, {"rows": True}),
        (1, {"excluded": {"no_record": -1}}),
        (1, {"excluded": {str(index): 1 for index in range(17)}}),
        (2, {"content_digest": "00"}),
        (3, {"term": ""}),
        (3, {"term": "x" * 301}),
        (3, {"term": "tab\t"}),
        (4, {"epsilon": -0.5}),
        (4, {"epsilon": "1"}),
        (4, {"delta": 1.5}),
        (4, {"mechanism": "gaussian"}),
        (4, {"mechanism": "[]"}),
        (4, {"mechanism": '{"a":' * 170}),
        (7, {"epsilon": None}),
        (7, {"delta": None}),
        (8, {"share": 1.01}),
    ],
)
def test_values_out_of_range_are_refused(index: int, changes: dict[str, object]) -> None:
    with pytest.raises(RecordError):
        parse_leaf(changed(EXAMPLES[index], **changes))


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(value: str) -> None:
    leaf = to_leaf(EXAMPLES[4]).replace(b'"epsilon":1,', f'"epsilon":{value},'.encode())
    with pytest.raises(RecordError):
        parse_leaf(leaf)


@pytest.mark.parametrize("epsilon", [float("nan"), float("inf"), -1.0])
def test_construction_raises_the_same_error_without_the_value(epsilon: float) -> None:
    with pytest.raises(RecordError, match="malformed BudgetCommitted record: epsilon_spent"):
        BudgetCommitted(**COMMON, charge_id="c", epsilon_spent=epsilon)
    with pytest.raises(RecordError) as caught:
        JobStarted(**(COMMON | {"party": "someone@example.com"}), computation="match")
    cause = caught.value.__cause__
    assert "someone" not in str(caught.value) + str(cause)


def test_times_are_utc() -> None:
    east = NOON.astimezone(timezone(timedelta(hours=2)))
    for wrong in [east, NOON.replace(tzinfo=None)]:
        with pytest.raises(RecordError, match="time"):
            JobStarted(**(COMMON | {"time": wrong}), computation="match")
    precise = JobStarted(**(COMMON | {"time": NOON.replace(microsecond=5)}), computation="match")
    assert b'"time":"2026-11-22T12:00:00.000005Z"' in to_leaf(precise)
    assert parse_leaf(to_leaf(precise)) == precise


def test_a_record_too_long_for_a_leaf_is_refused() -> None:
    record = AgreementSigned(**COMMON, parties=("retailer",))
    record = record.model_copy(update={"parties": tuple(f"{i:0>120}" for i in range(128))})
    with pytest.raises(RecordError, match=f"at most {LEAF_LIMIT}"):
        to_leaf(record)
    with pytest.raises(RecordError, match=f"at most {LEAF_LIMIT}"):
        parse_leaf(b" " * (LEAF_LIMIT + 1))


@pytest.mark.parametrize(
    "leaf", [b"", b"{", b"[]", b"null", b"{}", b'{"kind":1}', b"\xff", b"[" * 2048, b'"\\ud800"']
)
def test_what_is_no_record_raises_only_record_error(leaf: bytes) -> None:
    with pytest.raises(RecordError):
        parse_leaf(leaf)


def test_an_unknown_kind_is_refused_without_being_repeated() -> None:
    with pytest.raises(RecordError, match=r"expected one of 'agreement\.signed'") as caught:
        parse_leaf(changed(EXAMPLES[0], kind="someone@example.com"))
    assert "someone" not in str(caught.value)


@given(st.binary(max_size=60))
def test_arbitrary_bytes_raise_only_record_error(leaf: bytes) -> None:
    with pytest.raises(RecordError):
        parse_leaf(leaf)


@given(st.sampled_from(EXAMPLES), st.integers(0, 10**6), st.integers(1, 255))
def test_a_changed_byte_never_gives_the_same_record(
    record: Record, position: int, flip: int
) -> None:
    leaf = bytearray(to_leaf(record))
    leaf[position % len(leaf)] ^= flip
    try:
        parsed = parse_leaf(bytes(leaf))
    except RecordError:
        return
    assert parsed != record
    assert to_leaf(parsed) == leaf


@given(
    epsilon=st.floats(0, allow_infinity=False),
    delta=st.floats(0, 1),
    rounds=st.integers(0, 2**53 - 1),
    time=st.datetimes(
        datetime.fromisoformat("1970-01-01"),
        datetime.fromisoformat("2999-12-31"),
        timezones=st.just(UTC),
    ),
)
def test_every_value_in_range_round_trips(
    epsilon: float, delta: float, rounds: int, time: datetime
) -> None:
    record = ModelTrained(
        **(COMMON | {"time": time}),
        model_digest=DIGEST,
        rounds=rounds,
        parties=("brand",),
        epsilon=epsilon,
        delta=delta,
    )
    assert parse_leaf(to_leaf(record)) == record


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text("ab\u00e9\ud7ff\ufb33\U0001f600", max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text("abé\ufb33\U0001f600", max_size=3), json_values, max_size=6))
def test_the_fast_encoder_writes_the_bytes_of_the_plain_one(document: dict[str, object]) -> None:
    assert canonical_json(document) == rfc8785.dumps(document)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", [chr(code) for code in (*range(33), 34, 47, 92, 127, 0x2028)])
def test_characters_are_escaped_as_the_standard_says(text: str) -> None:
    assert canonical_json({"a": text, "b": [text]}) == rfc8785.dumps({"a": text, "b": [text]})


@pytest.mark.parametrize("value", [2**53, -(2**53), float("nan"), "\ud800", {1}])
def test_what_json_has_no_spelling_for_is_refused(value: object) -> None:
    with pytest.raises(rfc8785.CanonicalizationError):
        canonical_json({"a": value})
