"""Messages: what is sealed comes back the same; whatever was tampered with is refused."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC
from typing import Any, get_args

import numpy as np
import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st
from parties import MATCH, TRAIN, Parties
from pydantic import BaseModel, ByteSize, ValidationError

from compliance.erasure.retraining import DueModel
from compliance.signing import Envelope
from federation import messages
from federation.errors import MessageError
from federation.jobs import erase
from federation.messages import (
    Body,
    Encrypted,
    Header,
    Identify,
    MatchAccept,
    MatchBlinded,
    MatchOffer,
    MatchOutcome,
    MatchReply,
    MatchRequest,
    MatchSide,
    ModelPublished,
    SealedMessage,
    TrainRequest,
    TrainUpdate,
    content_digest,
    unseal,
    weights_from_bytes,
    weights_to_bytes,
)
from federation.messages import sealed as sealed_messages
from federation.specification import (
    AlignSpec,
    ExpandSpec,
    MatchSpec,
    MeasureSpec,
    TrainSpec,
    VerticalScoreSpec,
    VerticalTrainSpec,
)
from privacy.psi import plan_buckets
from privacy.psi.blinding import TAG_BYTES
from privacy.psi.field import ELEMENT_BYTES

KINDS: dict[str, type[BaseModel]] = {
    kind.model_fields["kind"].default: kind for kind in get_args(get_args(Body)[0])
}
PARTIES = Parties.in_memory()
AGREEMENT = PARTIES.agreement

names = st.text("abcz019-", max_size=31).map(lambda text: f"a{text}")
counts = st.integers(0, 2**32)
rounds = st.integers(1, 1_000)
widths = st.integers(1, 1_000_000)
numbers = {"allow_nan": False, "allow_infinity": False}
digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
match_specs = st.builds(
    MatchSpec, name=names, memory_limit=st.integers(512 << 20, 1 << 40).map(ByteSize)
)
align_specs = match_specs.map(
    lambda spec: AlignSpec(**spec.model_dump(exclude={"kind", "protocol", "absent_partners"}))
)
ring_sides = st.builds(messages.AlignSide, recipe=digests, commitment=digests)
places = st.integers(0, 7)
phases = st.sampled_from(messages.SumPhase)
sides = st.builds(MatchSide, recipe=digests, points=st.integers(1, 1 << 36), commitment=digests)
links = st.none() | st.builds(
    messages.LinkSide,
    certificate=st.text(max_size=2_048),
    share=digests,
    address=st.none() | st.just("psi.retailer.example:7300"),
)
train_specs = st.builds(
    TrainSpec,
    name=names,
    match=names,
    epsilon=st.floats(0, exclude_min=True, **numbers),
    delta=st.floats(0, 1, exclude_min=True, exclude_max=True),
    steps=st.integers(2, 100_000),
    rounds=rounds,
    sampling_probability=st.floats(0, 1, exclude_min=True),
    learning_rate=st.floats(0, 1_000, exclude_min=True),
)
expand_specs = st.builds(
    ExpandSpec, name=names, train=names, share=st.floats(0, 1, exclude_min=True)
) | st.builds(ExpandSpec, name=names, train=names, size=st.integers(1, 1 << 32))
measure_specs = st.builds(
    MeasureSpec,
    name=names,
    match=names,
    columns=st.lists(names, min_size=1, max_size=3, unique=True).map(tuple),
    epsilon=st.floats(0, exclude_min=True, **numbers),
)
twice = st.integers(1, 2)
exchanges, steps = st.integers(1, 15), st.floats(0, 4)
column_specs = st.builds(
    VerticalTrainSpec,
    name=names,
    align=names,
    rounds=exchanges,
    label_epsilon=st.floats(0, 10, exclude_min=True),
)
score_specs = st.builds(VerticalScoreSpec, name=names, train=names, align=names)
bodies: dict[str, st.SearchStrategy[Any]] = {
    kind: st.builds(model) for kind, model in KINDS.items() if set(model.model_fields) == {"kind"}
} | {
    "job.approved": st.builds(messages.JobApproved, spec=match_specs | expand_specs),
    "match.request": st.builds(MatchRequest, spec=match_specs, peer=names),
    "match.offer": st.builds(MatchOffer, spec=match_specs, side=sides, link=links),
    "match.accept": st.builds(MatchAccept, spec=match_specs, side=sides, link=links),
    "match.ready": st.builds(messages.MatchReady, buckets=st.integers(1, 1 << 32)),
    "match.link": st.builds(
        messages.MatchLink, spec=match_specs, peer=names, bucket=counts, attempt=digests
    ),
    "match.open": st.builds(
        messages.MatchOpen, spec=match_specs, bucket=counts, attempt=digests, needed=st.booleans()
    ),
    "match.linked": st.builds(messages.MatchLinked, bucket=counts),
    "match.close": st.builds(messages.MatchClose, spec=match_specs, peer=names),
    "match.blinded": st.builds(MatchBlinded, spec=match_specs, bucket=counts),
    "match.reply": st.builds(MatchReply, spec=match_specs, bucket=counts),
    "match.outcome": st.builds(MatchOutcome, spec=match_specs, size=st.none() | counts),
    "align.join": st.builds(messages.AlignJoin, spec=align_specs),
    "align.joined": st.builds(messages.AlignJoined, side=ring_sides),
    "align.bind": st.builds(messages.AlignBind, spec=align_specs),
    "align.invite": st.builds(messages.AlignInvite, spec=align_specs, place=places),
    "align.seed": st.builds(messages.AlignSeed, spec=align_specs),
    "align.blind": st.builds(messages.AlignBlind, spec=align_specs, bucket=counts),
    "align.pass": st.builds(messages.AlignPass, spec=align_specs, bucket=counts, place=places),
    "align.tags": st.builds(messages.AlignTags, bucket=counts, place=places),
    "align.common": st.builds(messages.AlignCommon, spec=align_specs, bucket=counts),
    "assist.join": st.builds(messages.AssistJoin, spec=column_specs | score_specs),
    "retrain.ask": st.builds(messages.RetrainAsk, nonce=digests),
    "retrain.told": st.builds(
        messages.RetrainTold,
        due=st.lists(
            st.builds(
                DueModel,
                model=names,
                model_digest=digests,
                due=st.datetimes(timezones=st.just(UTC)),
            ),
            max_size=3,
        ).map(tuple),
    ),
    "assist.joined": st.builds(messages.AssistJoined, key=digests),
    "assist.keys": st.builds(messages.AssistKeys, spec=column_specs | score_specs),
    "assist.open": st.builds(messages.AssistOpen, spec=column_specs),
    "assist.ask": st.builds(messages.AssistAsk, spec=column_specs, round=exchanges, place=places),
    "assist.residuals": st.builds(
        messages.AssistResiduals, spec=column_specs, round=exchanges, step=st.none() | steps
    ),
    "assist.fitted": st.builds(messages.AssistFitted, spec=column_specs, round=exchanges),
    "assist.heard": st.builds(
        messages.AssistHeard,
        round=exchanges,
        standing=st.sampled_from(messages.AssistStanding),
    ),
    "assist.close": st.builds(messages.AssistClose, spec=column_specs, place=places),
    "assist.settle": st.builds(
        messages.AssistSettle, spec=column_specs, rounds=exchanges, kept=exchanges, step=steps
    ),
    "assist.scored": st.builds(
        messages.AssistScored,
        spec=score_specs,
        partners=st.lists(names, min_size=2, max_size=4).map(tuple),
    ),
    "train.request": st.builds(TrainRequest, spec=train_specs, round=rounds, width=widths),
    "train.update": st.builds(TrainUpdate, round=rounds, width=widths),
    "train.count": st.builds(messages.TrainCount, spec=train_specs, width=widths),
    "sum.ask": st.builds(messages.SumAsk, spec=train_specs, round=rounds, phase=phases),
    "sum.said": st.builds(messages.SumSaid, round=rounds, phase=phases),
    "sum.noised": st.builds(messages.SumNoised, round=rounds),
    "sum.exact": st.builds(messages.SumExact, round=rounds),
    "model.published": st.builds(ModelPublished, spec=train_specs),
    "expand.request": st.builds(messages.ExpandRequest, spec=expand_specs),
    "measure.request": st.builds(messages.MeasureRequest, spec=measure_specs),
    "measure.published": st.builds(messages.MeasurePublished, spec=measure_specs),
    "witness.show": st.builds(messages.WitnessShow, round=twice),
    "witness.shown": st.builds(messages.WitnessShown, round=twice),
    "witness.ask": st.builds(messages.WitnessAsk, round=twice),
    "witness.said": st.builds(messages.WitnessSaid, round=twice),
    "witness.tell": st.builds(messages.WitnessTell, round=twice),
    "erase.look": st.builds(messages.EraseLook, attempt=digests, round=st.integers(1, 4)),
    "erase.standing": st.builds(
        messages.EraseStanding,
        batches=st.lists(names, max_size=3).map(tuple),
        news=st.lists(names, max_size=3).map(tuple),
    ),
    "erase.show": st.builds(
        messages.EraseShow, attempt=digests, round=st.integers(1, 4), origin=names
    ),
    "erase.shown": st.builds(messages.EraseShown, showing=digests, part=st.integers(0, 200)),
    "erase.batch": st.builds(messages.EraseBatch, showing=digests, part=st.integers(0, 200)),
    "erase.tell": st.builds(
        messages.EraseTell, attempt=digests, round=st.integers(1, 4), peer=names
    ),
    "expand.done": st.builds(messages.ExpandDone, eligible=st.none() | counts),
    "expand.counted": st.builds(messages.ExpandCounted, spec=expand_specs),
    "refused": st.builds(
        messages.Refused,
        term=st.text("abz09_.", max_size=62).map(lambda text: f"a{text}"),
        remedy=st.text(min_size=1, max_size=500).map(messages.printable),
    ),
}


@pytest.mark.parametrize("obeyed", ["\x1b[2J", "\x07", "\n", "\x9b2J", "\u202e", "\u2028"])
def test_no_refusal_says_what_a_terminal_obeys(obeyed: str) -> None:
    with pytest.raises(ValidationError, match="without control characters"):
        messages.Refused(term="consent", remedy=f"ask {obeyed} them")
    assert messages.printable(f"ask{obeyed}").startswith("ask ")


def test_a_strategy_makes_every_kind_of_body() -> None:
    assert bodies.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25)
@given(st.data())
def test_what_was_sealed_comes_back_the_same(kind: str, data: st.DataObject) -> None:
    body = data.draw(bodies[kind])
    job, recipient = data.draw(names), data.draw(names)
    payload = data.draw(st.binary(max_size=200))
    answers = data.draw(st.none() | digests)
    sealed = PARTIES.seal("courier", recipient, job, body, payload, answers=answers)
    message = unseal(sealed, AGREEMENT)
    assert (message.body, message.payload, message.sealed) == (body, payload, sealed)
    header = message.header
    assert (header.sender, header.recipient, header.job) == ("courier", recipient, job)
    assert (header.agreement, header.answers) == (AGREEMENT.digest, answers)


@settings(max_examples=25)
@given(st.from_regex(r"[a-z][a-z.]{0,62}", fullmatch=True), st.binary(max_size=200))
def test_of_what_is_encrypted_the_kind_is_told(kind: str, payload: bytes) -> None:
    sealed = PARTIES.seal("brand", "retailer", "find", Encrypted(encrypts=kind), payload)
    message = unseal(sealed, AGREEMENT)
    assert (message.body, message.header.kind) == (Encrypted(encrypts=kind), kind)
    assert message.payload == payload


@pytest.mark.parametrize("kind", [*KINDS, "encrypted"])
def test_a_body_is_closed(kind: str) -> None:
    header = json.loads(Envelope.from_json(sample().envelope).payload_bytes)
    header["body"] = {"kind": kind, "epsilon": 1.0}
    with pytest.raises(MessageError):
        unseal(PARTIES.sign("brand", rfc8785.dumps(header), PAYLOAD), AGREEMENT)


SIDE = MatchSide(recipe="0" * 64, points=10, commitment="1" * 64)


@pytest.mark.parametrize(
    "wrong",
    [
        {"points": 0},
        {"points": (1 << 36) + 1},
        {"points": "many"},
        {"recipe": "0" * 63},
        {"commitment": "A" * 64},
        {"people": 7},
    ],
    ids=str,
)
def test_a_side_of_a_match_says_no_more_than_was_agreed(wrong: dict[str, object]) -> None:
    for kind in (MatchOffer, MatchAccept):
        right = kind(spec=MATCH, side=SIDE).model_dump(mode="json")
        assert kind.model_validate(right).side == SIDE
        with pytest.raises(ValidationError):
            kind.model_validate(right | {"side": right["side"] | wrong})


@pytest.mark.parametrize("wrong", [{"bucket": -1}, {"bucket": (1 << 32) + 1}, {"points": 3}])
def test_a_bucket_has_a_number_and_no_size(wrong: dict[str, int]) -> None:
    for kind in (MatchBlinded, MatchReply):
        right = kind(spec=MATCH, bucket=3).model_dump(mode="json")
        assert kind.model_validate(right).bucket == 3
        with pytest.raises(ValidationError):
            kind.model_validate(right | wrong)


PAYLOAD = bytes(range(64))


def sample() -> SealedMessage:
    body = MatchReply(spec=MATCH, bucket=1)
    return PARTIES.seal("brand", "retailer", "find", body, PAYLOAD, answers="0" * 64, in_clear=True)


def resigned(**changes: object) -> SealedMessage:
    """The sample with its header changed, and its envelope, but for the signature, made anew."""
    sealed = sample()
    envelope = json.loads(sealed.envelope)
    header = json.loads(base64.b64decode(envelope["payload"])) | changes
    envelope["payload"] = base64.b64encode(rfc8785.dumps(header)).decode()
    return SealedMessage(json.dumps(envelope, separators=(",", ":")).encode(), sealed.payload)


def with_header(**changes: object) -> SealedMessage:
    """A sound message of the brand's, but for what its header says."""
    return PARTIES.seal("brand", "retailer", "find", Identify(), PAYLOAD, changes=changes)


def signed_by(signer: str, claimed: str) -> SealedMessage:
    content = Envelope.from_json(sample().envelope).payload_bytes
    key = PARTIES.keys[signer]
    return SealedMessage(
        Envelope.sign(messages.HEADER_TYPE, content, {claimed: key}).to_json(), PAYLOAD
    )


def with_type(kind: str) -> SealedMessage:
    content = Envelope.from_json(sample().envelope).payload_bytes
    envelope = Envelope.sign(kind, content, {"brand": PARTIES.keys["brand"]})
    return SealedMessage(envelope.to_json(), PAYLOAD)


def with_another_signature() -> SealedMessage:
    envelope = Envelope.from_json(sample().envelope)
    more = envelope.add_signature("courier", PARTIES.keys["courier"])
    return SealedMessage(more.to_json(), PAYLOAD)


def spelt_otherwise() -> SealedMessage:
    return replace(sample(), envelope=json.dumps(json.loads(sample().envelope), indent=1).encode())


other_agreement = Parties.in_memory(budget={"epsilon": 1.1}).agreement.digest

TAMPERED: dict[str, Callable[[], SealedMessage]] = {
    "another sender": lambda: resigned(sender="courier"),
    "a sender who is no party": lambda: PARTIES.seal(
        "brand", "retailer", "find", Identify(), changes={"sender": "stranger"}
    ),
    "another recipient": lambda: resigned(recipient="courier"),
    "another job": lambda: resigned(job="find-again"),
    "answer to another message": lambda: resigned(answers="1" * 64),
    "answer to nothing": lambda: resigned(answers=None),
    "another agreement": lambda: resigned(agreement=other_agreement),
    "another agreement, signed": lambda: PARTIES.seal(
        "brand", "retailer", "find", Identify(), changes={"agreement": other_agreement}
    ),
    "another body": lambda: resigned(body={"kind": "acknowledged"}),
    "another version": lambda: with_header(version=2),
    "payload of another's": lambda: resigned(payload_digest=content_digest(b"")),
    "signed by another": lambda: signed_by("courier", "brand"),
    "signed in another's name": lambda: signed_by("courier", "courier"),
    "signed by another with the right key": lambda: signed_by("brand", "courier"),
    "one signature more": with_another_signature,
    "envelope of another type": lambda: with_type("application/vnd.comity.agreement+json"),
    "envelope spelt otherwise": spelt_otherwise,
    "envelope with a blank behind": lambda: replace(sample(), envelope=sample().envelope + b" "),
    "envelope too long": lambda: replace(
        sample(), envelope=sample().envelope.ljust(sealed_messages.MAX_HEADER_BYTES + 1)
    ),
    "envelope empty": lambda: replace(sample(), envelope=b""),
    "envelope no JSON": lambda: replace(sample(), envelope=b"\xff{"),
    "envelope a list": lambda: replace(sample(), envelope=b"[]"),
    "envelope deep": lambda: replace(sample(), envelope=b"[" * 60_000),
    "header no JSON": lambda: PARTIES.sign("brand", b"\xff"),
    "header empty": lambda: PARTIES.sign("brand", b""),
    "header a number": lambda: PARTIES.sign("brand", b"NaN"),
    "header deep": lambda: PARTIES.sign("brand", b'{"a":' * 9_000),
    "header with an unknown field": lambda: with_header(more=1),
    "round beyond any": lambda: with_header(
        body={"kind": "train.update", "round": 10**30, "width": 1}
    ),
    "epsilon not a number": lambda: with_header(
        body={"kind": "model.published", "spec": TRAIN.model_dump() | {"epsilon": np.nan}}
    ),
    "payload cut": lambda: replace(sample(), payload=PAYLOAD[:-1]),
    "payload longer": lambda: replace(sample(), payload=PAYLOAD + b"\x00"),
    "payload missing": lambda: replace(sample(), payload=b""),
    "length another than signed": lambda: with_header(payload_bytes=63),
}


@pytest.mark.parametrize("tampered", TAMPERED.values(), ids=TAMPERED.keys())
def test_tampering_is_refused_and_tells_nothing(tampered: Callable[[], SealedMessage]) -> None:
    assert unseal(sample(), AGREEMENT).header.sender == "brand"
    with pytest.raises(MessageError) as refusal:
        unseal(tampered(), AGREEMENT)
    assert PAYLOAD.hex() not in str(refusal.value)


@pytest.mark.parametrize("kind", ["erase.shown", "match.outcome"])
def test_no_message_may_be_larger_than_any(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(sealed_messages, "MAX_PAYLOAD_BYTES", 3)
    messages.check_size(kind, bytes(3))
    with pytest.raises(MessageError, match=f"{kind} .* of 4 bytes; at most 3 are"):
        messages.check_size(kind, bytes(4))


def test_a_bucket_of_any_memory_limit_is_a_piece() -> None:
    points = MatchSpec(name="find", memory_limit=ByteSize(1 << 40)).bucket_points
    plan = plan_buckets(1 << 30, 1 << 30, bucket_points=points)
    numbers = 8 * plan.sender_capacity
    reply = TAG_BYTES * plan.receiver_capacity + ELEMENT_BYTES * plan.sender_capacity + numbers
    assert reply + 2 * messages.PADDING_CHUNK_BYTES < messages.MAX_PAYLOAD_BYTES


def test_a_part_of_the_people_shown_is_a_piece() -> None:
    reply = erase.PART_POINTS * TAG_BYTES + erase.BATCH_PLACES * ELEMENT_BYTES + (192 << 10)
    assert max(erase.PART_POINTS * ELEMENT_BYTES, reply) < messages.MAX_PAYLOAD_BYTES // 4


@pytest.mark.parametrize("limit", ["MAX_PAYLOAD_BYTES", "MAX_HEADER_BYTES"])
def test_what_is_too_long_is_refused_unread(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    sealed = sample()
    lengths = {"MAX_PAYLOAD_BYTES": len(PAYLOAD), "MAX_HEADER_BYTES": len(sealed.envelope)}
    monkeypatch.setattr(sealed_messages, limit, lengths[limit])
    unseal(sealed, AGREEMENT)
    monkeypatch.setattr(sealed_messages, limit, lengths[limit] - 1)
    monkeypatch.setattr(
        sealed_messages, "content_digest", lambda content: pytest.fail("it was read")
    )
    with pytest.raises(MessageError, match="at most"):
        unseal(sealed, AGREEMENT)


def test_every_byte_of_the_envelope_matters() -> None:
    sealed = sample()
    for position in range(len(sealed.envelope)):
        for flip in (0x01, 0x20, 0x80):
            envelope = bytearray(sealed.envelope)
            envelope[position] ^= flip
            with pytest.raises(MessageError):
                unseal(replace(sealed, envelope=bytes(envelope)), AGREEMENT)
        with pytest.raises(MessageError):
            unseal(replace(sealed, envelope=sealed.envelope[:position]), AGREEMENT)


def test_every_byte_of_the_payload_matters() -> None:
    sealed = sample()
    for position in range(len(PAYLOAD)):
        payload = bytearray(PAYLOAD)
        payload[position] ^= 1
        with pytest.raises(MessageError, match="payload"):
            unseal(replace(sealed, payload=bytes(payload)), AGREEMENT)


@settings(max_examples=200)
@given(st.binary(max_size=300), st.binary(max_size=10))
def test_noise_is_refused(envelope: bytes, payload: bytes) -> None:
    with pytest.raises(MessageError):
        unseal(SealedMessage(envelope, payload), AGREEMENT)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@settings(max_examples=100)
@given(st.sampled_from(sorted(Header.model_fields)), json_values)
def test_a_signed_header_with_any_value_anywhere_is_read_or_refused(
    field: str, value: object
) -> None:
    header = json.loads(Envelope.from_json(sample().envelope).payload_bytes) | {field: value}
    sealed = PARTIES.sign("brand", json.dumps(header).encode(), PAYLOAD)
    try:
        message = unseal(sealed, AGREEMENT)
    except MessageError:
        return
    assert message.header.model_dump(mode="json")[field] == value


weights = st.lists(st.floats(**numbers), max_size=20)


@given(weights)
def test_weights_come_back_bit_for_bit(values: list[float]) -> None:
    array = np.array(values, dtype=np.float64)
    found = weights_from_bytes(weights_to_bytes(array), len(values))
    assert found.tobytes() == array.tobytes()


@given(weights, st.integers(0, 25))
def test_weights_of_another_width_are_refused(values: list[float], width: int) -> None:
    payload = weights_to_bytes(np.array(values))
    if width != len(values):
        with pytest.raises(MessageError, match="model parameters"):
            weights_from_bytes(payload, width)


@given(weights, st.sampled_from([np.nan, np.inf, -np.inf]), st.data())
def test_weights_that_are_no_numbers_are_refused(
    values: list[float], bad: float, data: st.DataObject
) -> None:
    values.insert(data.draw(st.integers(0, len(values))), bad)
    with pytest.raises(MessageError, match="finite"):
        weights_from_bytes(weights_to_bytes(np.array(values)), len(values))


def test_a_message_is_named_by_its_envelope() -> None:
    sealed = sample()
    assert sealed.digest == content_digest(sealed.envelope)
    assert sealed.digest != replace(sealed, envelope=b"").digest
