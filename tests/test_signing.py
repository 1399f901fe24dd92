"""Keys and envelopes: published vectors, and everything that must not verify."""

import base64
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compliance.errors import SignatureError
from compliance.signing import (
    ENVELOPE_LIMIT,
    Envelope,
    SigningKey,
    VerifyingKey,
    decode_base64,
    encode_base64,
    pae,
)

BRAND = SigningKey.from_seed(b"b" * 32)
PARTNER = SigningKey.from_seed(b"p" * 32)
KIND = "application/vnd.example+json"

# RFC 8032 §7.1, tests 1 and 2: seed, public key, message, signature.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
]

# Every encoding of a point of order 1, 2, 4 or 8 (Cremers and Jackson 2019, table of small-order
# points), without the sign bit; the last three are not canonical.
LOW_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


@pytest.mark.parametrize(("seed", "public", "message", "signature"), RFC_8032)
def test_signs_and_verifies_as_rfc_8032(
    seed: str, public: str, message: str, signature: str
) -> None:
    key = SigningKey.from_seed(bytes.fromhex(seed))
    assert key.public.raw.hex() == public
    assert key.sign(bytes.fromhex(message)).hex() == signature
    key.public.verify(bytes.fromhex(signature), bytes.fromhex(message))


@given(message=st.binary(max_size=40), bit=st.integers(0, 511))
def test_no_flipped_bit_of_a_signature_verifies(message: bytes, bit: int) -> None:
    signature = bytearray(BRAND.sign(message))
    signature[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SignatureError):
        BRAND.public.verify(bytes(signature), message)


def test_another_message_another_key_or_another_length_does_not_verify() -> None:
    signature = BRAND.sign(b"this")
    for key, sig, message in [
        (BRAND, signature, b"that"),
        (PARTNER, signature, b"this"),
        (BRAND, signature[:-1], b"this"),
        (BRAND, signature + b"\0", b"this"),
        (BRAND, b"", b"this"),
    ]:
        with pytest.raises(SignatureError):
            key.public.verify(sig, message)


@pytest.mark.parametrize("sign_bit", [0, 0x80])
@pytest.mark.parametrize("encoding", LOW_ORDER)
def test_keys_under_which_anybody_could_sign_are_refused(encoding: str, sign_bit: int) -> None:
    raw = bytearray.fromhex(encoding)
    raw[31] |= sign_bit
    with pytest.raises(SignatureError, match="large order"):
        VerifyingKey(bytes(raw))


@pytest.mark.parametrize("length", [0, 31, 33])
def test_keys_and_seeds_of_other_lengths_are_refused(length: int) -> None:
    with pytest.raises(SignatureError, match=f"got {length}"):
        VerifyingKey(b"k" * length)
    with pytest.raises(SignatureError, match=f"got {length}"):
        SigningKey.from_seed(b"k" * length)


def test_key_round_trips_through_base64_in_one_spelling_only() -> None:
    text = BRAND.public.to_base64()
    assert VerifyingKey.from_base64(text) == BRAND.public
    for other in [text[:-1], text + "=", text + "\n", " " + text, text.rstrip("=") + "AA==", "é"]:
        with pytest.raises(SignatureError):
            VerifyingKey.from_base64(other)


def test_fingerprint_is_the_start_of_sha256_of_the_key() -> None:
    assert BRAND.public.fingerprint == hashlib.sha256(BRAND.public.raw).hexdigest()[:16]


def test_signing_key_shows_no_secret() -> None:
    shown = repr(BRAND) + str(BRAND)
    assert "b" * 32 not in shown
    assert base64.b64encode(b"b" * 32).decode() not in shown
    assert BRAND.public.fingerprint in shown


@given(st.binary(max_size=50))
def test_base64_round_trips(data: bytes) -> None:
    assert decode_base64(encode_base64(data)) == data


@pytest.mark.parametrize(
    "text", ["aGVsbG9=", "aGVsbG8", "aGVs bG8=", "aGVsbG8=\n", "-_-_", "=", "ü"]
)
def test_base64_has_one_spelling(text: str) -> None:
    with pytest.raises(ValueError, match="base64"):
        decode_base64(text)


def test_pae_matches_the_published_vector() -> None:
    # secure-systems-lab/dsse, protocol.md, "Test Vectors".
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_pae_counts_bytes_not_characters() -> None:
    assert pae("é", b"") == "DSSEv1 2 é 0 ".encode()


@given(
    st.tuples(st.text(max_size=8), st.binary(max_size=8)),
    st.tuples(st.text(max_size=8), st.binary(max_size=8)),
)
def test_pae_is_injective(one: tuple[str, bytes], other: tuple[str, bytes]) -> None:
    assert (pae(*one) == pae(*other)) == (one == other)


@given(st.binary(max_size=100))
def test_envelope_round_trips_and_verifies_for_every_signer(payload: bytes) -> None:
    envelope = Envelope.sign(KIND, payload, {"brand": BRAND}).add_signature("partner", PARTNER)
    again = Envelope.from_json(envelope.to_json())
    assert again == envelope
    assert again.payload_bytes == payload
    assert again.signers == ("brand", "partner")
    again.verify_by("brand", BRAND.public)
    again.verify_by("partner", PARTNER.public)


def test_envelope_refuses_absent_signers_wrong_keys_and_second_signatures() -> None:
    envelope = Envelope.sign(KIND, b"terms", {"brand": BRAND})
    with pytest.raises(
        SignatureError, match="expected a signature of 'partner', got those of: brand"
    ):
        envelope.verify_by("partner", PARTNER.public)
    with pytest.raises(SignatureError, match="signature of 'brand'"):
        envelope.verify_by("brand", PARTNER.public)
    with pytest.raises(SignatureError, match="one signature a party"):
        envelope.add_signature("brand", PARTNER)


def test_a_signature_covers_the_payload_type() -> None:
    envelope = Envelope.sign(KIND, b"terms", {"brand": BRAND})
    other = Envelope.from_json(envelope.to_json().replace(b"example", b"another"))
    with pytest.raises(SignatureError):
        other.verify_by("brand", BRAND.public)


def test_no_mutated_byte_of_an_envelope_verifies_to_other_content() -> None:
    envelope = Envelope.sign(KIND, b'{"terms":1}', {"brand": BRAND})
    data = envelope.to_json()
    for position in range(len(data)):
        for flip in (0x01, 0x20, 0x80):
            mutated = bytearray(data)
            mutated[position] ^= flip
            with pytest.raises(SignatureError):
                Envelope.from_json(bytes(mutated)).verify_by("brand", BRAND.public)


def _with(**changes: object) -> bytes:
    fields = json.loads(Envelope.sign(KIND, b"x", {"brand": BRAND}).to_json())
    return json.dumps(fields | changes).encode()


SIGNATURE = json.loads(_with())["signatures"][0]


@pytest.mark.parametrize(
    "data",
    {
        "empty": b"",
        "not JSON": b"{",
        "not an object": b"[]",
        "not UTF-8": b"\xff\xfe",
        "deeply nested": b"[" * 100_000,
        "too long": b" " * (ENVELOPE_LIMIT + 1),
        "member missing": b'{"payload":"","payloadType":"a"}',
        "member unknown": _with(extra=1),
        "member under its Python name": _with(payload_type="a"),
        "member repeated": b'{"payload":"eA==",' + _with()[1:],
        "payload not text": _with(payload=1),
        "payload not canonical": _with(payload="eB=="),
        "payload without padding": _with(payload="eA"),
        "type empty": _with(payloadType=""),
        "type with a space": _with(payloadType="a b"),
        "signatures not a list": _with(signatures={}),
        "signer twice": _with(signatures=[SIGNATURE, SIGNATURE]),
        "signer malformed": _with(signatures=[SIGNATURE | {"keyid": "Brand"}]),
        "signer with a newline": _with(signatures=[SIGNATURE | {"keyid": "brand\n"}]),
        "signature short": _with(signatures=[SIGNATURE | {"sig": "eA=="}]),
        "signature with a member more": _with(signatures=[SIGNATURE | {"cert": ""}]),
        "too many signatures": _with(
            signatures=[SIGNATURE | {"keyid": f"p{index}"} for index in range(129)]
        ),
    }.items(),
    ids=lambda item: item[0],
)
def test_malformed_envelopes_raise_only_signature_error(data: tuple[str, bytes]) -> None:
    with pytest.raises(SignatureError):
        Envelope.from_json(data[1])


@given(st.binary(max_size=60))
def test_arbitrary_bytes_raise_only_signature_error(data: bytes) -> None:
    with pytest.raises(SignatureError):
        Envelope.from_json(data)


def test_errors_show_no_value_from_the_envelope() -> None:
    with pytest.raises(SignatureError) as caught:
        Envelope.from_json(_with(**{"someone@example.com": 1, "payload": "someone@example.com"}))
    assert "someone" not in str(caught.value)


def test_the_largest_envelope_can_be_read_back_and_a_larger_one_cannot_be_made() -> None:
    keys = {f"p{'x' * 59}{index:03d}": BRAND for index in range(128)}
    envelope = Envelope.sign("t" * 128, bytes(750_000), keys)
    assert len(envelope.to_json()) <= ENVELOPE_LIMIT
    assert Envelope.from_json(envelope.to_json()) == envelope
    with pytest.raises(SignatureError, match="payload"):
        Envelope.sign(KIND, bytes(750_001), {})
