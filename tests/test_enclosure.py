"""What is meant for one party: who opens it, in which message alone, and what its carrier sees."""

import base64
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import rfc8785
from hypothesis import example, given, settings
from hypothesis import strategies as st
from parties import MATCH, ROLES, Parties, World

from compliance import records
from compliance.signing import Envelope
from federation import enclosure
from federation.enclosure import decrypt
from federation.errors import MessageError
from federation.messages import (
    PADDING_CHUNK_BYTES,
    Acknowledged,
    Body,
    Encrypted,
    Header,
    MatchAccept,
    MatchBlinded,
    MatchOffer,
    MatchOutcome,
    MatchReply,
    MatchRequest,
    MatchSide,
    Message,
    Refused,
    SealedMessage,
    content_digest,
    unseal,
)
from federation.routes import ROUTES, off_route, travelling
from federation.specification import MatchSpec
from privacy.encryption import SEAL_BYTES

PARTIES = Parties.in_memory()
AGREEMENT = PARTIES.agreement
BLINDED = MatchBlinded(spec=MATCH, bucket=0)
REPLY = MatchReply(spec=MATCH, bucket=0)
SIDE = MatchSide(recipe="0" * 64, points=10, commitment="1" * 64)
POINTS = bytes(range(64))
QUESTION = "a" * 64
LENGTHS = struct.Struct(">IQ")


def sample(payload: bytes = POINTS) -> SealedMessage:
    """What the retailer says to the brand."""
    return PARTIES.seal("retailer", "brand", "find", BLINDED, payload, answers=QUESTION)


def header_of(sealed: SealedMessage) -> Header:
    return unseal(sealed, AGREEMENT).header


def opened(sealed: SealedMessage, by: str = "brand") -> Message:
    return decrypt(unseal(sealed, AGREEMENT), PARTIES.decryption_keys[by])


def resigned(sealed: SealedMessage, **changes: object) -> SealedMessage:
    """The same payload under another header, signed by whoever the header names."""
    header = json.loads(Envelope.from_json(sealed.envelope).payload_bytes) | changes
    return PARTIES.sign(header["sender"], json.dumps(header).encode(), sealed.payload)


def with_payload(sealed: SealedMessage, payload: bytes) -> SealedMessage:
    """The same header, honestly signed, over another payload."""
    digest = content_digest(payload)
    changed = resigned(sealed, payload_digest=digest, payload_bytes=len(payload))
    return replace(changed, payload=payload)


def holding(plaintext: bytes) -> SealedMessage:
    """A message of the retailer's, sealed to the brand in the right context, over any plaintext."""
    sealed = sample()
    key = PARTIES.decryption_keys["brand"].public
    return with_payload(sealed, key.seal(plaintext, enclosure._context(header_of(sealed))))


def packed(content: bytes, payload: bytes = POINTS) -> bytes:
    return (LENGTHS.pack(len(content), len(payload)) + content + payload).ljust(
        PADDING_CHUNK_BYTES, b"\0"
    )


CONTENT = BLINDED.model_dump_json().encode()
FREE = PADDING_CHUNK_BYTES - LENGTHS.size - len(CONTENT)


# --- what comes through, and what shows -----------------------------------------------------------


@settings(max_examples=25)
@given(st.binary(max_size=300) | st.integers(0, 3 * PADDING_CHUNK_BYTES).map(bytes))
@example(b"")
@example(bytes(FREE))
@example(bytes(FREE + 1))
def test_the_recipient_reads_what_was_said(payload: bytes) -> None:
    message = opened(sample(payload))
    assert (message.body, message.payload) == (BLINDED, payload)
    assert message.header.body == Encrypted(encrypts="match.blinded")


@settings(max_examples=25)
@given(st.integers(0, 3 * PADDING_CHUNK_BYTES), st.integers(0, 2**32))
def test_all_that_shows_is_the_address_the_kind_and_a_rounded_size(size: int, bucket: int) -> None:
    body = MatchBlinded(spec=MATCH, bucket=bucket)
    sealed = PARTIES.seal("retailer", "brand", "find", body, bytes(size), answers=QUESTION)
    content = body.model_dump_json().encode()
    chunks = -(-(LENGTHS.size + len(content) + size) // PADDING_CHUNK_BYTES)
    shown = json.loads(Envelope.from_json(sealed.envelope).payload_bytes)
    assert shown == {
        "version": 1,
        "agreement": AGREEMENT.digest,
        "job": "find",
        "sender": "retailer",
        "recipient": "brand",
        "answers": QUESTION,
        "body": {"kind": "encrypted", "encrypts": "match.blinded"},
        "payload_digest": content_digest(sealed.payload),
        "payload_bytes": chunks * PADDING_CHUNK_BYTES + SEAL_BYTES,
    }


def test_the_format_is_the_documented_one() -> None:
    sealed = sample()
    header = json.loads(Envelope.from_json(sealed.envelope).payload_bytes)
    del header["payload_digest"], header["payload_bytes"]
    context = b"comity enclosure 1\n" + rfc8785.dumps(header)
    plaintext = PARTIES.decryption_keys["brand"].open(sealed.payload, context)
    content = rfc8785.dumps(json.loads(CONTENT))
    assert plaintext == packed(content)


def test_the_last_byte_that_fits_into_a_chunk_shows_no_second_one() -> None:
    sizes = [len(sample(bytes(size)).payload) for size in (0, FREE, FREE + 1)]
    assert sizes[0] == sizes[1] == sizes[2] - PADDING_CHUNK_BYTES


def test_what_is_in_clear_stays_as_it_is() -> None:
    message = unseal(PARTIES.seal("brand", "coordinator", "find", Acknowledged()), AGREEMENT)
    assert decrypt(message, PARTIES.decryption_keys["brand"]) is message


# --- whose it is, and where it belongs ------------------------------------------------------------


@pytest.mark.parametrize("name", ["retailer", "courier"])
def test_nobody_but_the_recipient_opens_it(name: str) -> None:
    with pytest.raises(MessageError, match="do not open"):
        opened(sample(), by=name)


ELSEWHERE: Mapping[str, object] = {
    "job": "find-again",
    "sender": "courier",
    "recipient": "courier",
    "answers": "b" * 64,
    "body": {"kind": "encrypted", "encrypts": "match.reply"},
}


@pytest.mark.parametrize("field", [*ELSEWHERE, "answers nothing"])
def test_a_payload_opens_in_no_other_message(field: str) -> None:
    """Not even if its own sender signs it there."""
    name, value = ("answers", None) if field == "answers nothing" else (field, ELSEWHERE[field])
    moved = resigned(sample(), **{name: value})
    with pytest.raises(MessageError, match="do not open"):
        opened(moved)
    assert opened(resigned(sample())).body == BLINDED


def test_a_payload_opens_under_no_other_agreement() -> None:
    other = Parties.in_memory(budget={"epsilon": 1.1})
    sealed = sample()
    content = Envelope.from_json(sealed.envelope).payload_bytes
    moved = json.loads(content) | {"agreement": other.agreement.digest}
    message = unseal(
        other.sign("retailer", json.dumps(moved).encode(), sealed.payload), other.agreement
    )
    assert other.decryption_keys["brand"].public == PARTIES.decryption_keys["brand"].public
    with pytest.raises(MessageError, match="do not open"):
        decrypt(message, other.decryption_keys["brand"])


@pytest.mark.parametrize("at", [0, 600, 1100, 1119, 1120, 40_000, -17, -16, -1])
def test_a_changed_payload_is_refused_though_its_sender_signed_it(at: int) -> None:
    payload = bytearray(sample().payload)
    payload[at] ^= 1
    with pytest.raises(MessageError, match="do not open"):
        opened(with_payload(sample(), bytes(payload)))


@pytest.mark.parametrize("size", [0, 1, SEAL_BYTES - 1, SEAL_BYTES, PADDING_CHUNK_BYTES])
def test_a_payload_cut_short_is_refused_though_its_sender_signed_it(size: int) -> None:
    with pytest.raises(MessageError, match="cannot be read"):
        opened(with_payload(sample(), sample().payload[:size]))


# --- what lies inside -----------------------------------------------------------------------------

INSIDE: dict[str, bytes] = {
    "nothing": b"",
    "half a chunk": packed(CONTENT)[: PADDING_CHUNK_BYTES // 2],
    "a byte more": packed(CONTENT) + b"\0",
    "a chunk too many": packed(CONTENT) + bytes(PADDING_CHUNK_BYTES),
    "padding that says something": packed(CONTENT)[:-1] + b"\1",
    "padding that says something at once": packed(CONTENT, POINTS + b"\1").replace(
        LENGTHS.pack(len(CONTENT), len(POINTS) + 1), LENGTHS.pack(len(CONTENT), len(POINTS))
    ),
    "a body longer than all": LENGTHS.pack(2**32 - 1, 0) + packed(CONTENT)[LENGTHS.size :],
    "a payload longer than all": LENGTHS.pack(len(CONTENT), 2**64 - 1)
    + packed(CONTENT)[LENGTHS.size :],
    "a body of another kind": packed(b'{"kind":"acknowledged"}'),
    "a reply": packed(REPLY.model_dump_json().encode()),
    "another enclosure": packed(b'{"kind":"encrypted","encrypts":"match.blinded"}'),
    "a body with more": packed(json.dumps(json.loads(CONTENT) | {"epsilon": 1}).encode()),
    "a body with less": packed(b'{"kind":"match.blinded"}'),
    "no body": packed(b""),
    "no JSON": packed(b"\xff{"),
    "a deep body": packed(b"[" * 50_000),
}


@pytest.mark.parametrize("plaintext", INSIDE.values(), ids=INSIDE)
def test_what_is_not_packed_as_agreed_is_refused_and_not_told(plaintext: bytes) -> None:
    assert opened(holding(packed(CONTENT))).payload == POINTS
    with pytest.raises(MessageError, match=r"match\.blinded from retailer") as caught:
        opened(holding(plaintext))
    assert POINTS.hex() not in str(caught.value)


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.binary(max_size=50))
def test_any_lengths_are_read_or_refused(first: int, second: int, content: bytes) -> None:
    plaintext = (LENGTHS.pack(first, second) + content).ljust(PADDING_CHUNK_BYTES, b"\0")
    with pytest.raises(MessageError):
        opened(holding(plaintext))


# --- what cannot be encrypted ---------------------------------------------------------------------


def clear_header(recipient: str) -> Header:
    return Header(
        agreement=AGREEMENT.digest,
        job="find",
        sender="retailer",
        recipient=recipient,
        body=BLINDED,
        payload_digest=content_digest(POINTS),
        payload_bytes=len(POINTS),
    )


@pytest.mark.parametrize("recipient", ["coordinator", "stranger"])
def test_nothing_is_encrypted_to_who_has_no_key(recipient: str) -> None:
    with pytest.raises(MessageError, match=f"no encryption key of '{recipient}'"):
        enclosure.encrypt(clear_header(recipient), POINTS, AGREEMENT)


def test_an_unsound_key_in_an_agreement_is_named() -> None:
    bad = base64.b64encode(b"\xff" * 1216).decode()
    named = tuple(
        party.model_copy(update={"encryption_key": bad}) if party.name == "brand" else party
        for party in AGREEMENT.parties
    )
    agreement = AGREEMENT.model_copy(update={"parties": named})
    with pytest.raises(MessageError, match="brand: encryption key"):
        enclosure.encrypt(clear_header("brand"), POINTS, agreement)


def test_what_would_be_too_long_is_not_encrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    size = PADDING_CHUNK_BYTES + SEAL_BYTES
    monkeypatch.setattr(enclosure, "MAX_PAYLOAD_BYTES", size)
    assert len(enclosure.encrypt(clear_header("brand"), POINTS, AGREEMENT)[1]) == size
    monkeypatch.setattr(enclosure, "MAX_PAYLOAD_BYTES", size - 1)
    with pytest.raises(MessageError, match=f"at most {size - 1}"):
        enclosure.encrypt(clear_header("brand"), POINTS, AGREEMENT)


# --- at a party's door ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("made"))


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    return made.copy(tmp_path / "copy")


def expect_refusal(world: World, party: str, sealed: SealedMessage) -> None:
    """Expect a refusal, in a leaf and an answer, that tells whoever carries it no more."""
    answer = world.ask(party, sealed)
    assert isinstance(answer.body, Refused)
    assert answer.body.term == "message"
    assert answer.body.remedy.startswith("the party's own console")
    leaf = world.leaves(party)[-1]
    assert isinstance(leaf, records.Refusal)
    assert leaf.term == "message"


def blinded_by_the_retailer(world: World, spec: MatchSpec = MATCH) -> SealedMessage:
    """Carry a match as far as its first points."""
    request = MatchRequest(spec=spec, peer="brand")
    asked = world.parties.seal("coordinator", "retailer", spec.name, request)
    accepted = world.handle("brand", world.handle("retailer", asked))
    return world.handle("retailer", accepted)


def said_otherwise(world: World, sealed: SealedMessage, **changes: object) -> SealedMessage:
    header = json.loads(Envelope.from_json(sealed.envelope).payload_bytes) | changes
    return world.parties.sign(header["sender"], json.dumps(header).encode(), sealed.payload)


def in_clear(world: World) -> SealedMessage:
    words = world.read(blinded_by_the_retailer(world))
    header = words.header
    return world.parties.seal(
        "retailer",
        "brand",
        header.job,
        words.body,
        words.payload,
        answers=header.answers,
        in_clear=True,
    )


def encrypted_to_another(world: World) -> SealedMessage:
    words = world.read(blinded_by_the_retailer(world))
    wrong = world.parties.seal("retailer", "courier", "find", words.body, words.payload)
    return said_otherwise(world, wrong, recipient="brand", answers=words.header.answers)


ATTACKS: dict[str, Callable[[World], SealedMessage]] = {
    "in clear": in_clear,
    "encrypted to another party": encrypted_to_another,
    "of another job": lambda world: said_otherwise(
        world, blinded_by_the_retailer(world), job="find-again"
    ),
    "in another's name": lambda world: said_otherwise(
        world, blinded_by_the_retailer(world), sender="courier"
    ),
    "of a kind that is never said": lambda world: said_otherwise(
        world,
        blinded_by_the_retailer(world),
        body={"kind": "encrypted", "encrypts": "match.again"},
    ),
    "of a kind that is not encrypted": lambda world: said_otherwise(
        world,
        blinded_by_the_retailer(world),
        sender="coordinator",
        body={"kind": "encrypted", "encrypts": "model.published"},
    ),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_party_refuses_what_is_not_for_it_in_this_very_message(
    world: World, attack: Callable[[World], SealedMessage]
) -> None:
    expect_refusal(world, "brand", attack(world))
    said = [leaf for leaf in world.leaves("brand") if isinstance(leaf, records.Release)]
    assert [leaf.computation for leaf in said] == ["match.accept"]
    assert isinstance(world.ask("brand", blinded_by_the_retailer(world)).body, MatchReply)


def test_a_payload_from_another_match_of_the_same_parties_is_refused(world: World) -> None:
    first = blinded_by_the_retailer(world)
    second = blinded_by_the_retailer(world, MATCH.model_copy(update={"name": "find-again"}))
    header = header_in(world, second)
    mixed = said_otherwise(
        world,
        first,
        **{name: header[name] for name in ("job", "answers")},
    )
    expect_refusal(world, "brand", mixed)
    assert isinstance(world.ask("brand", second).body, MatchReply)


def header_in(world: World, sealed: SealedMessage) -> dict[str, object]:
    return unseal(sealed, world.agreement).header.model_dump(mode="json")


def test_the_same_question_gets_the_same_ciphertext(world: World) -> None:
    first = blinded_by_the_retailer(world)
    assert blinded_by_the_retailer(world) == first
    reply = world.handle("brand", first)
    assert world.handle("brand", first) == reply
    assert reply.payload in world.outbox("brand").values()


# --- which kinds ----------------------------------------------------------------------------------


def test_whatever_goes_from_one_holder_of_people_to_another_is_encrypted() -> None:
    """But for refusals, which stop the coordinator's job, and so are told to it."""
    holders = {role for name, role in ROLES.items() if name != "coordinator"}
    between = {
        kind
        for kind, route in ROUTES.items()
        if route.sender & holders and route.recipient & holders and kind != "refused"
    }
    assert between == {kind for kind, route in ROUTES.items() if route.encrypted}
    matched = {f"match.{one}" for one in ("offer", "accept", "blinded", "reply", "open", "outcome")}
    assisted = {f"assist.{one}" for one in ("residuals", "fitted", "settle", "scored")}
    erased = {f"erase.{one}" for one in ("shown", "batch", "told", "heard")}
    assert between == matched | assisted | erased | {"align.seed", "align.pass"}


BODIES: tuple[Body, ...] = (
    MatchOffer(spec=MATCH, side=SIDE),
    MatchAccept(spec=MATCH, side=SIDE),
    BLINDED,
    REPLY,
    MatchOutcome(spec=MATCH, size=3),
    Acknowledged(),
)


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.kind)
def test_a_body_travels_as_its_route_says_and_in_no_other_way(body: Body) -> None:
    route = ROUTES[body.kind]
    party = {role: name for name, role in ROLES.items()}
    encrypted = Encrypted(encrypts=body.kind)
    assert travelling(body) == (encrypted if route.encrypted else body)
    ways = [(one, other) for one in route.sender for other in route.recipient if one != other]
    assert ways
    for sender, recipient in ways:
        header = clear_header(party[recipient]).model_copy(update={"sender": party[sender]})
        for form in (body, encrypted):
            problem = off_route(header.model_copy(update={"body": form}), AGREEMENT)
            assert (problem is None) == (form == travelling(body))
            assert problem is None or "must travel" in problem
