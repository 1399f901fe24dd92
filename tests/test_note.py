"""Signed notes, key strings and checkpoints: published examples and every departure from them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compliance.errors import LogCorruptedError, SignatureError
from compliance.log.checkpoint import Checkpoint
from compliance.log.merkle import EMPTY_ROOT, leaf_hash
from compliance.log.note import NOTE_LIMIT, Note, NoteKey
from compliance.signing import SigningKey, decode_base64

# C2SP signed-note v1.1.0, its example of a note and of a verifier key.
C2SP_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
C2SP_NOTE = "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"

# golang.org/x/mod/sumdb/note, package documentation: key pair, text and note.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_SECRET = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
GO_TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
GO_NOTE = f"{GO_TEXT}\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"

# The key of the Go checksum database and one of its checkpoints, as kept in the tests of
# github.com/transparency-dev/formats (log/checkpoint_test.go).
SUMDB_KEY = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
SUMDB_NOTE = """go.sum database tree
6476701
mb8QLQIs0Z0yP5Cstq6guj87oXWeC9gEM8oVikmm9Wk=

— sum.golang.org Az3grsLX85Gz+s1SiTbgkuqxgItqFq7gsMUEyVnrsa9LM7Us9S+1xbFIGu95949rj4nPRYfvimWEPWL+o3GeoWwOoAw=
"""

KEY = SigningKey.from_seed(b"k" * 32)
OTHER = SigningKey.from_seed(b"o" * 32)
ORIGIN = "example.com/log"
NAMED = NoteKey(ORIGIN, KEY.public)
HEAD = Checkpoint(ORIGIN, 3, leaf_hash(b"root"))


@pytest.mark.parametrize(
    ("key", "note"), [(C2SP_KEY, C2SP_NOTE), (GO_KEY, GO_NOTE), (SUMDB_KEY, SUMDB_NOTE)]
)
def test_published_notes_verify_and_are_written_back_as_they_were(key: str, note: str) -> None:
    parsed = Note.parse(note.encode())
    parsed.verify(NoteKey.from_string(key))
    assert parsed.to_bytes() == note.encode()
    assert NoteKey.from_string(key).to_string() == key


def test_signing_gives_the_published_note() -> None:
    key = SigningKey.from_seed(decode_base64(GO_SECRET)[1:])
    assert NoteKey("PeterNeumann", key.public).to_string() == GO_KEY
    assert Note.sign(GO_TEXT, {"PeterNeumann": key}).to_bytes() == GO_NOTE.encode()


def test_reads_a_published_checkpoint() -> None:
    checkpoint = Checkpoint.from_body(Note.parse(SUMDB_NOTE.encode()).text)
    assert checkpoint.origin == "go.sum database tree"
    assert checkpoint.tree_size == 6_476_701
    assert checkpoint.body() == SUMDB_NOTE.partition("\n\n")[0] + "\n"


@given(
    st.text(st.characters(exclude_categories=["Cs"], min_codepoint=32) | st.just("\n"), max_size=60)
)
def test_any_text_round_trips(text: str) -> None:
    note = Note.sign(text + "\n", {ORIGIN: KEY, "other": OTHER})
    again = Note.parse(note.to_bytes())
    assert again == note
    again.verify(NAMED)
    again.verify(NoteKey("other", OTHER.public))


def test_no_flipped_bit_of_a_note_verifies() -> None:
    data = Note.sign("The text.\n", {ORIGIN: KEY}).to_bytes()
    for bit in range(len(data) * 8):
        mutated = bytearray(data)
        mutated[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SignatureError):
            Note.parse(bytes(mutated)).verify(NAMED)


def test_no_truncated_or_extended_note_verifies() -> None:
    data = Note.sign("The text.\n", {ORIGIN: KEY}).to_bytes()
    for wrong in [*(data[:length] for length in range(len(data))), data + b"\n", data + b"x"]:
        with pytest.raises(SignatureError):
            Note.parse(wrong).verify(NAMED)


def test_signatures_by_unknown_keys_are_ignored_but_never_suffice() -> None:
    both = Note.sign("text\n", {ORIGIN: KEY, "witness.example": OTHER})
    both.verify(NAMED)
    with pytest.raises(SignatureError, match="only those of"):
        Note.sign("text\n", {ORIGIN: OTHER}).verify(NAMED)
    with pytest.raises(SignatureError, match="only those of"):
        Note.sign("text\n", {"other.example": KEY}).verify(NAMED)


def test_one_bad_signature_of_a_known_key_spoils_the_note() -> None:
    good, bad = Note.sign("text\n", {ORIGIN: KEY}), Note.sign("other\n", {ORIGIN: KEY})
    with pytest.raises(SignatureError):
        Note(good.text, good.signatures + bad.signatures).verify(NAMED)


NO_BREAK_SPACE = "\u00a0"
LINE = Note.sign("text\n", {ORIGIN: KEY}).to_bytes().decode().split("\n")[2]


@pytest.mark.parametrize(
    "note",
    {
        "empty": "",
        "no signature": "text\n\n",
        "no blank line": f"text\n{LINE}\n",
        "no final newline": f"text\n\n{LINE}",
        "no text": f"\n\n{LINE}\n",
        "carriage return": f"text\r\n\n{LINE}\n",
        "tab": f"te\txt\n\n{LINE}\n",
        "NUL": f"te\0xt\n\n{LINE}\n",
        "hyphen for a dash": f"text\n\n{LINE.replace('—', '-')}\n",
        "no space after the dash": f"text\n\n{LINE.replace('— ', '—')}\n",
        "two spaces": f"text\n\n{LINE.replace(' ', '  ')}\n",
        "trailing space": f"text\n\n{LINE} \n",
        "no name": f"text\n\n—  {LINE.split(' ')[2]}\n",
        "plus in the name": f"text\n\n{LINE.replace('example', 'ex+mple')}\n",
        "no-break space in the name": f"text\n\n{LINE.replace('example', f'ex{NO_BREAK_SPACE}mple')}\n",
        "no padding": f"text\n\n{LINE.rstrip('=')}\n",
        "only a key id": f"text\n\n— {ORIGIN} AAAAAA==\n",
        "too long": "x" * NOTE_LIMIT + f"\n\n{LINE}\n",
    }.items(),
    ids=lambda item: item[0],
)
def test_malformed_notes_raise_only_signature_error(note: tuple[str, str]) -> None:
    with pytest.raises(SignatureError):
        Note.parse(note[1].encode()).verify(NAMED)


@given(st.binary(max_size=80))
def test_arbitrary_bytes_raise_only_signature_error(data: bytes) -> None:
    with pytest.raises(SignatureError):
        Note.parse(data).verify(NAMED)


@pytest.mark.parametrize("text", ["", "no newline", "tab\t\n", "\ud800\n"])
def test_malformed_texts_cannot_be_signed(text: str) -> None:
    with pytest.raises(SignatureError):
        Note.sign(text, {ORIGIN: KEY})


def test_a_note_needs_a_signer() -> None:
    with pytest.raises(SignatureError, match="at least one"):
        Note.sign("text\n", {})


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\u2003b", "a\x00b", "a\ud800"])
def test_malformed_key_names_are_refused(name: str) -> None:
    with pytest.raises(SignatureError):
        NoteKey(name, KEY.public)


def test_no_flipped_bit_of_a_key_string_is_accepted_as_another_key() -> None:
    data = NAMED.to_string().encode()
    for bit in range(len(data) * 8):
        mutated = bytearray(data)
        mutated[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SignatureError):
            NoteKey.from_string(mutated.decode("latin-1"))


def test_key_strings_of_other_types_and_shapes_are_refused() -> None:
    # The type 0x04 key is from the tests of github.com/transparency-dev/formats.
    for text in [
        "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2",
        "",
        "name",
        "name+00000000",
        "name+00000000+",
        NAMED.to_string() + "A",
        NAMED.to_string().upper(),
    ]:
        with pytest.raises(SignatureError):
            NoteKey.from_string(text)


def test_checkpoint_round_trips() -> None:
    assert Checkpoint.open(HEAD.sign(KEY), NAMED) == HEAD
    empty = Checkpoint(ORIGIN, 0, EMPTY_ROOT)
    assert Checkpoint.open(empty.sign(KEY), NAMED) == empty


def test_checkpoint_of_another_key_or_origin_is_refused() -> None:
    with pytest.raises(LogCorruptedError, match="only those of"):
        Checkpoint.open(HEAD.sign(OTHER), NAMED)
    other = Checkpoint("other.example", 3, HEAD.root_hash)
    signed = Note.sign(other.body(), {ORIGIN: KEY}).to_bytes()
    with pytest.raises(LogCorruptedError, match="expected origin"):
        Checkpoint.open(signed, NAMED)


ROOT = HEAD.body().split("\n")[2]


@pytest.mark.parametrize(
    "body",
    {
        "no root": f"{ORIGIN}\n3\n",
        "no origin": f"\n3\n{ROOT}\n",
        "extension line": f"{ORIGIN}\n3\n{ROOT}\nmore\n",
        "no final newline": f"{ORIGIN}\n3\n{ROOT}",
        "leading zero": f"{ORIGIN}\n03\n{ROOT}\n",
        "sign": f"{ORIGIN}\n+3\n{ROOT}\n",
        "negative": f"{ORIGIN}\n-3\n{ROOT}\n",
        "underscore": f"{ORIGIN}\n3_0\n{ROOT}\n",
        "other digits": f"{ORIGIN}\n٣\n{ROOT}\n",
        "huge": f"{ORIGIN}\n{'9' * 5000}\n{ROOT}\n",
        "root short": f"{ORIGIN}\n3\nAAAA\n",
        "root without padding": f"{ORIGIN}\n3\n{ROOT.rstrip('=')}\n",
        "size zero with a root": f"{ORIGIN}\n0\n{ROOT}\n",
    }.items(),
    ids=lambda item: item[0],
)
def test_malformed_checkpoints_raise_only_log_corrupted_error(body: tuple[str, str]) -> None:
    with pytest.raises(LogCorruptedError):
        Checkpoint.from_body(body[1])
