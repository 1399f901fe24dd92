"""Keys of subjects: what they hide, what they commit to, and what is left once they are gone."""

import hashlib
import hmac
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from compliance.errors import StoreFormatError, SubjectKeyError
from compliance.formats import PRESENT
from compliance.log.note import NoteKey
from compliance.log.verifier import verify_log
from compliance.log.writer import LogWriter
from compliance.signing import SigningKey
from compliance.subject_keys import SEALED_EXTRA_BYTES, SubjectKey, SubjectKeys
from privacy.randomness import new_secret

ORIGIN = "comity/retailer"


def keys_of(path: Path) -> SubjectKeys:
    return SubjectKeys.open(path, draw=new_secret)


@settings(max_examples=20)
@given(st.binary(max_size=200), st.binary(max_size=40))
def test_what_was_sealed_opens(body: bytes, context: bytes) -> None:
    key = SubjectKey(bytes(range(32)))
    sealed = key.seal(body, context=context, nonce=bytes(32))
    assert len(sealed) == len(body) + SEALED_EXTRA_BYTES
    assert key.open(sealed, context=context) == body


@pytest.mark.parametrize("place", [0, 31, 32, 63, 64, -1])
def test_a_changed_byte_does_not_open(place: int) -> None:
    key = SubjectKey(bytes(32))
    sealed = bytearray(key.seal(b"a body", context=b"leaf", nonce=bytes(32)))
    sealed[place] ^= 1
    with pytest.raises(SubjectKeyError, match="does not open"):
        key.open(bytes(sealed), context=b"leaf")


def test_another_key_or_context_or_a_stump_does_not_open() -> None:
    key = SubjectKey(bytes(32))
    sealed = key.seal(b"a body", context=b"leaf", nonce=bytes(32))
    with pytest.raises(SubjectKeyError, match="another person's key"):
        SubjectKey(bytes([1] * 32)).open(sealed, context=b"leaf")
    with pytest.raises(SubjectKeyError, match="another person's key"):
        key.open(sealed, context=b"another leaf")
    with pytest.raises(SubjectKeyError, match="at least"):
        key.open(sealed[:79], context=b"leaf")


def test_wrong_lengths_are_refused() -> None:
    with pytest.raises(SubjectKeyError, match="32 bytes"):
        SubjectKey(bytes(31))
    with pytest.raises(SubjectKeyError, match="nonce of 32"):
        SubjectKey(bytes(32)).seal(b"", context=b"", nonce=bytes(12))


def test_a_body_made_to_open_under_two_keys_of_the_bare_cipher_opens_under_none() -> None:
    """AES-GCM's tag can be met under two keys at once; the commitment cannot.

    The ciphertext below has one tag under both cipher keys (GHASH is linear, so one block of it
    is solved for); it is what "invisible salamanders" are made of.
    """
    first, second = SubjectKey(bytes([1] * 32)), SubjectKey(bytes([2] * 32))
    raw = [SubjectKeyInside(key) for key in (first, second)]
    body = salamander(raw[0].cipher_key, raw[1].cipher_key)
    for inside in raw:  # the attack works on the cipher alone
        AESGCM(inside.cipher_key).decrypt(bytes(12), body, None)
    made = bytes(32) + raw[0].commitment + body
    first.open(made, context=b"leaf")
    with pytest.raises(SubjectKeyError, match="another person's key"):
        second.open(made, context=b"leaf")


class SubjectKeyInside:
    """The derived halves, worked out a second time from the published definition of HKDF."""

    def __init__(self, key: SubjectKey) -> None:
        label, context = b"comity subject body 1", b"leaf"
        info = b"".join(len(part).to_bytes(8, "big") + part for part in (label, context))
        extracted = hmac.new(bytes(32), key._raw, hashlib.sha256).digest()
        self.commitment = hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()
        self.cipher_key = hmac.new(
            extracted, self.commitment + info + b"\x02", hashlib.sha256
        ).digest()


def salamander(first: bytes, second: bytes) -> bytes:
    """Return two blocks and a tag that AES-256-GCM accepts under both keys (nonce zero)."""
    hashed, masked = [], []
    for key in (first, second):
        hashed.append(block_cipher(key, bytes(16)))
        masked.append(block_cipher(key, bytes(12) + b"\x00\x00\x00\x01"))
    h1, h2 = (int.from_bytes(value, "big") for value in hashed)
    m1, m2 = (int.from_bytes(value, "big") for value in masked)
    length = int.from_bytes(bytes(8) + (256).to_bytes(8, "big"), "big")
    block = int.from_bytes(b"sixteen bytes ok", "big")
    # tag_i = c1·h_i³ + c2·h_i² + length·h_i + m_i; equal tags give c2 linearly.
    square1, square2 = multiply(h1, h1), multiply(h2, h2)
    known = m1 ^ m2 ^ multiply(length, h1 ^ h2)
    known ^= multiply(block, multiply(square1, h1) ^ multiply(square2, h2))
    other = multiply(known, inverse(square1 ^ square2))
    tag = multiply(block, multiply(square1, h1)) ^ multiply(other, square1)
    tag ^= multiply(length, h1) ^ m1
    return b"".join(value.to_bytes(16, "big") for value in (block, other, tag))


def block_cipher(key: bytes, block: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    return Cipher(algorithms.AES256(key), modes.ECB()).encryptor().update(block)  # noqa: S305


def multiply(left: int, right: int) -> int:
    """Multiply in GCM's field (NIST SP 800-38D §6.3)."""
    product = 0
    for bit in range(127, -1, -1):
        if left >> bit & 1:
            product ^= right
        right = (right >> 1) ^ (0xE1 << 120 if right & 1 else 0)
    return product


def inverse(value: int) -> int:
    result, power = 1 << 127, value
    for _ in range(127):
        power = multiply(power, power)
        result = multiply(result, power)
    return result


def test_a_person_has_one_pseudonym_here_and_another_elsewhere() -> None:
    key = SubjectKey(bytes(32))
    assert key.pseudonym(ORIGIN, "R#1") == key.pseudonym(ORIGIN, "R#1")
    others = {
        key.pseudonym(ORIGIN, "R#1"),
        key.pseudonym("comity/brand", "R#1"),
        key.pseudonym(ORIGIN + "R", "#1"),
        SubjectKey(bytes([1] * 32)).pseudonym(ORIGIN, "R#1"),
        key.commitment(b"R#1"),
    }
    assert len(others) == 5


def test_a_key_shows_nothing_of_itself() -> None:
    key = SubjectKey(bytes([7] * 32))
    assert "7" not in repr(key)


def test_a_store_remembers_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "subjects.sqlite"
    made = keys_of(path).of(["R#1", "R#2", "R#1"])
    again = keys_of(path).of(["R#2"])
    assert made[0] is made[2]
    assert made[1].commitment(b"x") == again[0].commitment(b"x") != made[0].commitment(b"x")
    assert path.stat().st_mode & 0o777 == 0o600
    assert keys_of(path).find(["nobody"]) == (None,)


def test_destroyed_keys_leave_no_byte_in_the_store(tmp_path: Path) -> None:
    path = tmp_path / "subjects.sqlite"
    store = keys_of(path)
    names = [f"R#{number}" for number in range(3_000)]
    keys = store.of(names)
    doomed = names[::3]
    assert store.destroy([*doomed, doomed[0], "nobody"]) == len(doomed)
    assert store.destroy(doomed) == 0
    content = path.read_bytes()
    assert all((key._raw in content) is (number % 3 != 0) for number, key in enumerate(keys))
    assert store.count() == 2_000


def test_who_comes_back_has_another_key(tmp_path: Path) -> None:
    store = keys_of(tmp_path / "subjects.sqlite")
    before = store.of(["R#1"])[0].pseudonym(ORIGIN, "R#1")
    store.destroy(["R#1"])
    assert store.of(["R#1"])[0].pseudonym(ORIGIN, "R#1") != before


def test_a_damaged_store_says_so(tmp_path: Path) -> None:
    path = tmp_path / "subjects.sqlite"
    path.write_bytes(b"no database" * 200)
    with pytest.raises(SubjectKeyError, match="whole store"):
        keys_of(path)


def test_after_destruction_proofs_verify_and_no_dictionary_links(tmp_path: Path) -> None:
    store = keys_of(tmp_path / "subjects.sqlite")
    people = [f"R#{number * 31_337}" for number in range(30)]
    keys = store.of(people)
    signing = SigningKey.from_seed(bytes(32))
    leaves = [
        json.dumps({"who": key.pseudonym(ORIGIN, name), "body": key.commitment(name.encode())})
        for name, key in zip(people, keys, strict=True)
    ]
    with LogWriter.open(tmp_path / "log", origin=ORIGIN, key=signing) as log:
        log.append([leaf.encode() for leaf in leaves])
    before = verify_log(
        tmp_path / "log", verification_key=NoteKey(ORIGIN, signing.public).to_string()
    )
    told = {value for leaf in leaves for value in json.loads(leaf).values()}
    assert keys[0].pseudonym(ORIGIN, people[0]) in told  # the key's owner links

    store.destroy(people)

    after = verify_log(
        tmp_path / "log", verification_key=NoteKey(ORIGIN, signing.public).to_string()
    )
    assert after.entries == before.entries
    assert store.find(people) == (None,) * len(people)
    origin = ORIGIN.encode()
    guessed = set()
    for number in range(1_000_000):
        candidate = b"R#%d" % number
        guessed.add(hashlib.sha256(candidate).hexdigest())
        if number % 31_337 == 0:  # every true one, and with what is public as a key
            guessed.add(hmac.new(origin, candidate, hashlib.sha256).hexdigest())
            guessed.add(SubjectKey(bytes(32)).pseudonym(ORIGIN, candidate.decode()))
    assert not guessed & told


def test_a_store_without_a_number_goes_on_and_bears_one(tmp_path: Path) -> None:
    path = tmp_path / "keys.sqlite"
    (before,) = keys_of(path).of(["anna"])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 0")  # as stores were before they bore one
    (after,) = keys_of(path).of(["anna"])
    assert after.commitment(b"a body") == before.commitment(b"a body")
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (PRESENT,)


def test_a_store_that_a_later_version_wrote_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "keys.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE subject_key_2 (subject, key, made)")
        connection.execute(f"PRAGMA user_version = {PRESENT + 1}")
    before = path.read_bytes()
    with pytest.raises(
        StoreFormatError, match=r"format 2, and this version .* up to 1: install the version that"
    ):
        keys_of(path)
    assert path.read_bytes() == before
