"""Bytes for one recipient: published vectors, another implementation, and everything refused."""

import base64
import json
import traceback
from pathlib import Path

import hpke_reference as reference
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy import encryption
from privacy.encryption import ENCRYPTION_KEY_BYTES, SEAL_BYTES, DecryptionKey, EncryptionKey
from privacy.errors import InvalidParameterError, PeerMessageError
from privacy.randomness import new_secret, seeded_secret

VECTOR = json.loads(
    (Path(__file__).parent / "vectors" / "hpke-mlkem768-x25519.json").read_text(encoding="utf-8")
)
SEED = seeded_secret(1, "encryption")
KEY = DecryptionKey(SEED)
OTHER = DecryptionKey(seeded_secret(2, "encryption"))
WORDS = b"what nobody else may read"
CONTEXT = b"from a to b"


def vector(name: str) -> bytes:
    return bytes.fromhex(VECTOR[name])


# --- against the drafts -------------------------------------------------------------------------


def test_a_seed_makes_the_published_key() -> None:
    assert DecryptionKey(vector("skRm")).public.raw == vector("pkRm")


def test_the_reference_opens_what_was_published() -> None:
    """So that it may be held against the library below, whose suite has no published vector."""
    (published,) = (
        {name: bytes.fromhex(one[name]) for name in one} for one in VECTOR["encryptions"]
    )
    assert (VECTOR["mode"], VECTOR["kem_id"], VECTOR["kdf_id"]) == (
        0,
        reference.KEM_ID,
        reference.HKDF_SHA256,
    )
    shared = reference.decapsulate(vector("skRm"), vector("enc"))
    assert shared == vector("shared_secret")
    schedule = reference.key_schedule(shared, vector("info"), VECTOR["aead_id"])
    assert schedule == (vector("key"), vector("base_nonce"))
    found = reference.unseal(
        vector("skRm"),
        vector("enc") + published["ct"],
        vector("info"),
        published["aad"],
        VECTOR["aead_id"],
    )
    assert found == published["pt"]


@settings(max_examples=25)
@given(st.binary(max_size=200), st.binary(max_size=200))
def test_the_reference_opens_what_we_seal(plaintext: bytes, context: bytes) -> None:
    sealed = KEY.public.seal(plaintext, context)
    assert reference.unseal(SEED, sealed, context) == plaintext


@settings(max_examples=25)
@given(st.binary(max_size=200), st.binary(max_size=200), st.binary(min_size=32, max_size=32))
def test_we_open_what_the_reference_seals(
    plaintext: bytes, context: bytes, ephemeral: bytes
) -> None:
    one_time = X25519PrivateKey.from_private_bytes(ephemeral)
    sealed = reference.seal(KEY.public.raw, one_time, plaintext, context)
    assert KEY.open(sealed, context) == plaintext


# --- sealing and opening ------------------------------------------------------------------------


@settings(max_examples=50)
@given(st.binary(max_size=300), st.binary(max_size=300))
def test_what_was_sealed_opens(plaintext: bytes, context: bytes) -> None:
    sealed = KEY.public.seal(plaintext, context)
    assert len(sealed) == len(plaintext) + SEAL_BYTES
    assert KEY.open(sealed, context) == plaintext


def test_nothing_can_be_sealed_and_so_can_much() -> None:
    for plaintext in (b"", bytes(16 << 20)):
        assert KEY.open(KEY.public.seal(plaintext, CONTEXT), CONTEXT) == plaintext


def test_the_same_words_are_never_sealed_alike() -> None:
    sealed = [KEY.public.seal(WORDS, CONTEXT) for _ in range(3)]
    parts = (slice(0, 1088), slice(1088, 1120), slice(1120, None))
    assert all(len({one[part] for one in sealed}) == 3 for part in parts)


def test_every_byte_that_is_changed_is_noticed() -> None:
    """In the lattice's encapsulation, the curve's, the words, and the tag."""
    sealed = KEY.public.seal(WORDS, CONTEXT)
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 0x40
        with pytest.raises(PeerMessageError):
            KEY.open(bytes(changed), CONTEXT)


def test_no_part_and_no_more_than_the_whole_opens() -> None:
    sealed = KEY.public.seal(WORDS, CONTEXT)
    cuts = {*range(0, len(sealed), 97), SEAL_BYTES - 1, SEAL_BYTES, len(sealed) - 1}
    for bad in (*(sealed[:cut] for cut in cuts), sealed + b"\0", b"\0" + sealed, sealed[1:]):
        with pytest.raises(PeerMessageError):
            KEY.open(bad, CONTEXT)


def test_another_key_or_another_context_does_not_open_it() -> None:
    sealed = KEY.public.seal(WORDS, CONTEXT)
    for key, context in ((OTHER, CONTEXT), (KEY, b""), (KEY, CONTEXT + b"\0"), (KEY, b"from b")):
        with pytest.raises(PeerMessageError):
            key.open(sealed, context)
    assert KEY.open(sealed, CONTEXT) == WORDS


def test_halves_of_two_sealings_do_not_fit_together() -> None:
    one, two = (KEY.public.seal(WORDS, CONTEXT) for _ in range(2))
    for cut in (1088, 1120, len(one) - 16):
        with pytest.raises(PeerMessageError):
            KEY.open(one[:cut] + two[cut:], CONTEXT)


@pytest.mark.parametrize("point", [bytes(32), (1).to_bytes(32, "little")])
def test_an_encapsulation_of_low_order_is_refused(point: bytes) -> None:
    sealed = KEY.public.seal(WORDS, CONTEXT)
    with pytest.raises(PeerMessageError):
        KEY.open(sealed[:1088] + point + sealed[1120:], CONTEXT)


@settings(max_examples=100)
@given(st.binary(max_size=SEAL_BYTES + 100), st.binary(max_size=20))
def test_noise_does_not_open(sealed: bytes, context: bytes) -> None:
    with pytest.raises(PeerMessageError):
        KEY.open(sealed, context)


def test_what_is_too_long_is_neither_sealed_nor_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encryption, "LARGEST_PLAINTEXT", len(WORDS))
    sealed = KEY.public.seal(WORDS, CONTEXT)
    assert KEY.open(sealed, CONTEXT) == WORDS
    monkeypatch.setattr(encryption, "LARGEST_PLAINTEXT", len(WORDS) - 1)
    with pytest.raises(InvalidParameterError, match="at most"):
        KEY.public.seal(WORDS, CONTEXT)
    with pytest.raises(PeerMessageError, match=f"got {len(sealed)}"):
        KEY.open(sealed, CONTEXT)


def test_a_refusal_tells_nothing_of_what_was_sealed() -> None:
    sealed = KEY.public.seal(WORDS, CONTEXT)
    with pytest.raises(PeerMessageError) as caught:
        OTHER.open(sealed, CONTEXT)
    told = "".join(traceback.format_exception(caught.value))
    assert WORDS.decode() not in told
    assert sealed.hex()[:16] not in told


# --- keys ---------------------------------------------------------------------------------------


def test_a_key_is_read_back_as_it_was_written() -> None:
    text = KEY.public.to_base64()
    assert len(text) == 1624
    assert EncryptionKey.from_base64(text) == KEY.public


def test_a_seed_makes_one_key_and_another_seed_another() -> None:
    assert DecryptionKey(SEED).public == KEY.public != OTHER.public
    assert DecryptionKey(new_secret()).public != DecryptionKey(new_secret()).public


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_seed_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(InvalidParameterError, match=f"got {length}"):
        DecryptionKey(bytes(length))


RAW = KEY.public.raw
CURVE_PRIME = 2**255 - 19
UNSOUND = {
    "empty": b"",
    "one byte short": RAW[:-1],
    "one byte long": RAW + b"\0",
    "lattice beyond its modulus": b"\xff" * 1184 + RAW[1184:],
    "curve at zero": RAW[:1184] + bytes(32),
    "curve at one": RAW[:1184] + (1).to_bytes(32, "little"),
    "curve at minus one": RAW[:1184] + (CURVE_PRIME - 1).to_bytes(32, "little"),
    "curve beyond its prime": RAW[:1184] + (CURVE_PRIME + 9).to_bytes(32, "little"),
    "curve with the unused bit": RAW[:1215] + bytes([RAW[1215] | 0x80]),
}


@pytest.mark.parametrize("length", [0, 32, 1184, 1215, 1217])
def test_a_key_of_another_length_is_told_so(length: int) -> None:
    with pytest.raises(InvalidParameterError, match=f"has 1216 bytes, got {length}"):
        EncryptionKey(RAW[:length].ljust(length))


@pytest.mark.parametrize("raw", UNSOUND.values(), ids=UNSOUND)
def test_an_unsound_key_is_refused(raw: bytes) -> None:
    for read in (
        EncryptionKey,
        lambda raw: EncryptionKey.from_base64(base64.b64encode(raw).decode()),
    ):
        with pytest.raises(InvalidParameterError, match="encryption key"):
            read(raw)


@pytest.mark.parametrize("change", ["\n", " ", "=", "*", "A"])
def test_a_key_has_one_spelling(change: str) -> None:
    text = KEY.public.to_base64()
    for spelling in (text + change, change + text, text[:-1] + change + text[-1]):
        with pytest.raises(InvalidParameterError, match="encryption key"):
            EncryptionKey.from_base64(spelling)
    with pytest.raises(InvalidParameterError):
        EncryptionKey.from_base64("é" * 1624)


def test_the_last_bits_of_the_spelling_count() -> None:
    """1,216 bytes leave four bits of the last character unused: sixteen spellings, one right."""
    text = KEY.public.to_base64()
    assert text.endswith("==") == (ENCRYPTION_KEY_BYTES % 3 == 1)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = alphabet[alphabet.index(text[-3]) ^ 1]
    with pytest.raises(InvalidParameterError, match="canonical"):
        EncryptionKey.from_base64(f"{text[:-3]}{other}==")


def test_a_private_key_does_not_show_itself() -> None:
    shown = f"{KEY!r} {KEY}"
    assert SEED.hex() not in shown
    assert "public=" in shown
    with pytest.raises(TypeError):
        vars(KEY)
