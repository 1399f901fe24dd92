"""Witnesses: what they cosign, what they refuse, what they keep, and who has to be believed."""

import hashlib
import struct
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from hypothesis import given, settings
from hypothesis import strategies as st

from compliance.errors import (
    LogCorruptedError,
    LogError,
    NotPublicError,
    NotWitnessedError,
    Objection,
    SignatureError,
    WitnessPolicyError,
)
from compliance.log.checkpoint import Checkpoint
from compliance.log.cosignature import Algorithm, CosignerKey, CosigningKey, verify_cosignatures
from compliance.log.files import LocalFiles
from compliance.log.merkle import EMPTY_ROOT, consistency_proof, leaf_hash, root_hash
from compliance.log.note import Note, NoteKey
from compliance.log.policy import Group, Policy
from compliance.log.witness import AddCheckpoint, Cosigned, SplitViewError
from compliance.log.witnessing import Witness, origin_hash
from compliance.signing import SigningKey, encode_base64

KEY = SigningKey.from_seed(b"k" * 32)
ORIGIN = "example.com/log"
LOG = NoteKey(ORIGIN, KEY.public)
WITNESS = CosigningKey.from_seed("example.com/witness", b"w" * 32)
NOW = 1_700_000_000
HASHES = [leaf_hash(b"%d" % index) for index in range(40)]
OTHER = [leaf_hash(b"other %d" % index) for index in range(40)]


class FastFiles(LocalFiles):
    def sync(self, paths: Collection[Path]) -> None:
        assert all(path.exists() for path in paths)


def head(size: int, hashes: list[bytes] = HASHES) -> Checkpoint:
    return Checkpoint(ORIGIN, size, root_hash(hashes[:size]))


def request(
    old: int, new: int, hashes: list[bytes] = HASHES, key: SigningKey = KEY
) -> AddCheckpoint:
    proof = consistency_proof(hashes, old, new) if 0 < old <= new else []
    return AddCheckpoint(old, tuple(proof), head(new, hashes).sign(key))


def witness_in(directory: Path, files: LocalFiles | None = None) -> Witness:
    return Witness(directory, logs={ORIGIN: (LOG,)}, cosigner=WITNESS, files=files or FastFiles())


def cosigned(checkpoint: Checkpoint, *cosigners: CosigningKey, key: SigningKey = KEY) -> bytes:
    note = checkpoint.note(key)
    lines = tuple(one.cosign(checkpoint, timestamp=NOW) for one in cosigners)
    return Note(note.text, (*note.signatures, *lines)).to_bytes()


# Cosignatures


@pytest.mark.parametrize("algorithm", Algorithm)
def test_a_cosignature_names_its_time_and_verifies(algorithm: Algorithm) -> None:
    key = CosigningKey.from_seed("example.com/w", b"s" * 32, algorithm=algorithm)
    note = Note.parse(cosigned(head(5), key))
    assert key.public.verify(head(5), note) == NOW
    assert CosignerKey.from_string(key.public.to_string()) == key.public
    with pytest.raises(SignatureError, match="does not verify"):
        key.public.verify(head(6), note)


def test_messages_are_those_of_the_specification() -> None:
    # C2SP tlog-cosignature, "Ed25519 signed message", signed by hand.
    body = head(5).body()
    seed = SigningKey.from_seed(b"s" * 32)
    key = CosigningKey.from_seed("example.com/w", b"s" * 32, algorithm=Algorithm.ED25519)
    message = f"cosignature/v1\ntime {NOW}\n{body}".encode()
    signature = struct.pack(">Q", NOW) + seed.sign(message)
    assert key.cosign(head(5), timestamp=NOW).signature == signature
    raw = seed.public.raw
    assert key.public.key_id == hashlib.sha256(b"example.com/w\n\x04" + raw).digest()[:4]
    # "ML-DSA-44 signed message": the structure, field by field.
    from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

    line = WITNESS.cosign(head(5), timestamp=NOW)
    name, origin = b"example.com/witness", ORIGIN.encode()
    structure = (
        b"subtree/v1\n\0"
        + bytes([len(name)])
        + name
        + struct.pack(">Q", NOW)
        + bytes([len(origin)])
        + origin
        + struct.pack(">QQ", 0, 5)
        + head(5).root_hash
    )
    public = MLDSA44PublicKey.from_public_bytes(WITNESS.public.raw)
    public.verify(line.signature[8:], structure)
    expected = hashlib.sha256(name + b"\n\x06" + WITNESS.public.raw).digest()[:4]
    assert line.key_id == WITNESS.public.key_id == expected


@pytest.mark.parametrize("algorithm", Algorithm)
def test_another_implementation_accepts_our_cosignatures(algorithm: Algorithm) -> None:
    signing = pytest.importorskip("tlog_scales.signing", reason="tlog-scales is not installed")
    key = CosigningKey.from_seed("example.com/w", b"s" * 32, algorithm=algorithm)
    tlog = pytest.importorskip("tlog_scales.tlog")
    vkey = signing.Vkey.from_string(key.public.to_string())
    line = key.cosign(head(5), timestamp=NOW)
    theirs = signing.NoteSignature.from_line(line.line.rstrip("\n"))
    their_head = tlog.Checkpoint.from_text(cosigned(head(5), key).decode())
    vkey.get_verifier().verify_note(theirs, their_head)
    other = tlog.Checkpoint.from_text(cosigned(head(6), key).decode())
    with pytest.raises(InvalidSignature):
        vkey.get_verifier().verify_note(theirs, other)


def test_a_cosignature_of_no_time_is_a_log_s_own() -> None:
    assert (
        WITNESS.public.verify(
            head(2), Note(head(2).body(), (WITNESS.cosign(head(2), timestamp=0),))
        )
        == 0
    )
    key = CosigningKey.from_seed("example.com/w", b"s" * 32, algorithm=Algorithm.ED25519)
    for bad in (0, -1, 2**63):
        with pytest.raises(SignatureError, match="expected a time"):
            key.cosign(head(2), timestamp=bad)


def test_every_changed_byte_of_a_cosigned_head_is_noticed() -> None:
    note = cosigned(head(5), WITNESS)
    policy = Policy("w", (LOG,), {"w": WITNESS.public})
    assert policy.check(note).cosigned == {"w": NOW}
    for position in (*range(200), *range(200, len(note), 29)):
        changed = bytearray(note)
        changed[position] ^= 1 << position % 8
        with pytest.raises((LogCorruptedError, NotPublicError)):
            policy.check(bytes(changed))


# The decision


def test_heads_that_extend_one_another_are_cosigned(tmp_path: Path) -> None:
    witness, old = witness_in(tmp_path), 0
    for step, size in enumerate([0, 1, 1, 2, 7, 8, 8, 33]):
        line = witness.add_checkpoint(request(old, size).to_bytes(), now=NOW + step)
        note = Note.parse(head(size).body().encode() + b"\n" + line)
        assert WITNESS.public.verify(head(size), note) == NOW + step
        last = witness.last(ORIGIN)
        assert last is not None
        assert (last.checkpoint, last.time) == (head(size), NOW + step)
        old = size


@settings(max_examples=30)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40), st.booleans())
def test_only_what_extends_the_last_head_is_cosigned(
    tmp_path_factory: pytest.TempPathFactory, last: int, old: int, new: int, honest: bool
) -> None:
    witness = witness_in(tmp_path_factory.mktemp("witness"))
    witness.add_checkpoint(request(0, last).to_bytes(), now=NOW)
    asked = request(old, new, HASHES if honest else OTHER)
    extends = old == last <= new and (honest or last == 0)
    if extends:
        witness.add_checkpoint(asked.to_bytes(), now=NOW)
        return
    with pytest.raises(NotWitnessedError) as refusal:
        witness.add_checkpoint(asked.to_bytes(), now=NOW)
    expected = {
        Objection.MALFORMED: old > new,
        Objection.CONFLICT: old != last,
        Objection.INCONSISTENT: not honest and old == last,
    }
    assert expected[refusal.value.objection]
    kept = witness.last(ORIGIN)
    assert kept is not None
    assert kept.checkpoint == head(last)


def refused(body: bytes, directory: Path) -> NotWitnessedError:
    with pytest.raises(NotWitnessedError) as caught:
        witness_in(directory).add_checkpoint(body, now=NOW)
    return caught.value


def test_each_mistake_has_the_status_of_the_specification(tmp_path: Path) -> None:
    witness_in(tmp_path).add_checkpoint(request(0, 5).to_bytes(), now=NOW)
    good = request(5, 9)
    stranger = SigningKey.from_seed(b"x" * 32)
    other_origin = Checkpoint("elsewhere", 9, head(9).root_hash).sign(KEY)
    unrooted = Checkpoint(ORIGIN, 0, head(9).root_hash).sign(KEY)
    cases = {
        404: AddCheckpoint(5, good.proof, other_origin),
        403: request(5, 9, key=stranger),
        400: request(10, 9),
        409: request(4, 9),
        422: AddCheckpoint(5, good.proof[:-1], good.checkpoint),
    }
    for status, case in cases.items():
        found = refused(case.to_bytes(), tmp_path)
        assert found.objection.value == status, status
        assert found.tree_size == (5 if status == 409 else None)
    assert refused(AddCheckpoint(0, (), unrooted).to_bytes(), tmp_path).objection.value == 422
    mixed = good.checkpoint.replace("— ".encode(), b"- ")
    assert refused(AddCheckpoint(5, good.proof, mixed).to_bytes(), tmp_path).objection.value == 403
    fresh = tmp_path / "fresh"
    proof_from_nothing = AddCheckpoint(0, good.proof, good.checkpoint)
    assert refused(proof_from_nothing.to_bytes(), fresh).objection.value == 422


@pytest.mark.parametrize(
    "body",
    {
        "nothing": b"",
        "no old size": b"\n\n",
        "a size with a zero before it": b"old 05\n\n" + request(0, 5).checkpoint,
        "a size below zero": b"old -1\n\n" + request(0, 5).checkpoint,
        "no blank line": b"old 0\n" + request(0, 5).checkpoint[:20],
        "a hash cut short": b"old 5\nAAAA\n\n" + request(0, 5).checkpoint,
        "no base64": b"old 5\n*\n\n" + request(0, 5).checkpoint,
        "too many hashes": b"old 5\n" + 64 * (encode_base64(bytes(32)).encode() + b"\n") + b"\n",
        "too long": b"old 0\n\n" + bytes(200_000),
        "no text": b"\xff\xfe\n\n",
        "an origin that is no text": b"old 0\n\n\xff\n",
    }.items(),
    ids=lambda case: case[0],
)
def test_malformed_requests_are_refused_as_such(body: tuple[str, bytes], tmp_path: Path) -> None:
    assert refused(body[1], tmp_path).objection is Objection.MALFORMED


@given(st.integers(0, 2**62), st.lists(st.binary(min_size=32, max_size=32), max_size=63))
def test_requests_round_trip(old: int, proof: list[bytes]) -> None:
    asked = AddCheckpoint(old, tuple(proof), head(3).sign(KEY))
    assert AddCheckpoint.parse(asked.to_bytes()) == asked


def test_a_split_view_is_kept_as_evidence_that_anybody_can_check(tmp_path: Path) -> None:
    witness = witness_in(tmp_path)
    witness.add_checkpoint(request(0, 5).to_bytes(), now=NOW)
    fork = request(5, 5, OTHER)
    for asked in (fork, request(0, 5, OTHER), replace(fork, proof=(bytes(32),))):
        with pytest.raises(SplitViewError):  # of one pair, however it is sent
            witness.add_checkpoint(asked.to_bytes(), now=NOW + 1)
    (pair,) = witness_in(tmp_path).evidence(ORIGIN)
    assert pair.submitted == fork.to_bytes()
    pair.verify((LOG,))
    with pytest.raises(LogCorruptedError):
        pair.verify((NoteKey(ORIGIN, SigningKey.from_seed(b"x" * 32).public),))
    with pytest.raises(LogError, match="ask the log for a consistency proof"):
        replace(pair, submitted=request(5, 9).to_bytes()).verify((LOG,))
    for salt in range(20):  # a log that goes on lying fills no disk
        leaves = [*HASHES[:4], leaf_hash(b"lie %d" % salt)]
        with pytest.raises(SplitViewError):
            witness.add_checkpoint(request(5, 5, leaves).to_bytes(), now=NOW + 1)
    kept = witness.evidence(ORIGIN)
    assert pair in kept
    assert len(kept) == len({one.digest for one in kept}) == 16
    witness.add_checkpoint(request(5, 9).to_bytes(), now=NOW + 2)  # the honest log goes on


def test_a_proof_that_does_not_hold_is_evidence_against_nobody(tmp_path: Path) -> None:
    witness = witness_in(tmp_path)
    witness.add_checkpoint(request(0, 5).to_bytes(), now=NOW)
    honest, rewritten = request(5, 9), request(5, 9, OTHER)
    junk = [replace(honest, proof=(bytes([number]) * 32,)) for number in range(20)]
    for asked in (*junk, rewritten):
        assert refused(asked.to_bytes(), tmp_path).objection is Objection.INCONSISTENT
    assert not list(tmp_path.rglob("evidence"))
    folder = tmp_path / origin_hash(ORIGIN) / "evidence"
    folder.mkdir()
    for number in range(20):  # nor does it become any by lying there
        (folder / f"{number:02}.seen").write_bytes(head(5).sign(KEY))
        (folder / f"{number:02}.submitted").write_bytes(junk[number].to_bytes()[number:])
    assert witness.evidence(ORIGIN) == ()
    with pytest.raises(SplitViewError) as split:
        witness.add_checkpoint(request(5, 5, OTHER).to_bytes(), now=NOW)
    assert witness.evidence(ORIGIN) == (split.value.evidence,)


def test_no_signature_of_a_log_can_be_left_off(tmp_path: Path) -> None:
    second = CosigningKey.from_seed(ORIGIN, b"2" * 32)
    keys = (LOG, second.public)
    witness = Witness(tmp_path, logs={ORIGIN: keys}, cosigner=WITNESS, files=FastFiles())
    both = Note.parse(cosigned(head(5), second, WITNESS))
    by_file = Policy("w", keys, {"w": WITNESS.public})
    for left_off in keys:
        less = Note(
            both.text, tuple(one for one in both.signatures if one.key_id != left_off.key_id)
        ).to_bytes()
        with pytest.raises(NotWitnessedError, match="one was left off") as refusal:
            witness.add_checkpoint(AddCheckpoint(0, (), less).to_bytes(), now=NOW)
        assert refusal.value.objection is Objection.UNTRUSTED
        with pytest.raises(LogCorruptedError, match="all 2 keys of the log, got 1"):
            replace(by_file, every_key=True).check(less)
        assert by_file.check(less).cosigned == {"w": NOW}  # C2SP tlog-policy: any one suffices
    assert replace(by_file, every_key=True).check(both.to_bytes()).cosigned == {"w": NOW}
    witness.add_checkpoint(AddCheckpoint(0, (), both.to_bytes()).to_bytes(), now=NOW)


def test_a_clock_that_goes_backwards_cosigns_nothing(tmp_path: Path) -> None:
    witness = witness_in(tmp_path)
    witness.add_checkpoint(request(0, 5).to_bytes(), now=NOW)
    with pytest.raises(LogError, match="set the clock; nothing was cosigned"):
        witness.add_checkpoint(request(5, 6).to_bytes(), now=NOW - 1)
    witness.add_checkpoint(request(5, 6).to_bytes(), now=NOW)


def test_what_is_kept_is_what_monitors_are_served(tmp_path: Path) -> None:
    # C2SP tlog-witness, "Monitor Retrieval Mechanism".
    line = witness_in(tmp_path).add_checkpoint(request(0, 5).to_bytes(), now=NOW)
    path = tmp_path / hashlib.sha256(ORIGIN.encode()).hexdigest() / "checkpoint"
    assert path == tmp_path / origin_hash(ORIGIN) / "checkpoint"
    assert path.read_bytes() == head(5).sign(KEY) + line
    with pytest.raises(LogCorruptedError):
        Cosigned.parse(head(5).sign(KEY), (LOG,), WITNESS.public)


class CrashError(Exception):
    """The process is gone."""


class Crashing(FastFiles):
    """Stops after so many operations, a write half done."""

    def __init__(self, left: int) -> None:
        self.left = left

    def _step(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise CrashError

    def make_directory(self, path: Path) -> None:
        self._step()
        super().make_directory(path)

    def write(self, path: Path, data: bytes) -> None:
        if self.left == 0:
            super().write(path, data[: len(data) // 2])
        self._step()
        super().write(path, data)

    def sync(self, paths: Collection[Path]) -> None:
        self._step()

    def replace(self, source: Path, target: Path) -> None:
        self._step()
        super().replace(source, target)


@pytest.mark.parametrize("crash_at", range(10))
def test_a_crash_at_any_operation_never_makes_a_witness_sign_both_ways(
    tmp_path: Path, crash_at: int
) -> None:
    witness_in(tmp_path).add_checkpoint(request(0, 3).to_bytes(), now=NOW)
    least = 3
    with suppress(CrashError):
        witness_in(tmp_path, Crashing(crash_at)).add_checkpoint(request(3, 5).to_bytes(), now=NOW)
        least = 5  # it was answered
    kept = witness_in(tmp_path).last(ORIGIN)
    assert kept is not None
    size = kept.checkpoint.tree_size
    assert size in {least, 5}
    with pytest.raises((SplitViewError, CrashError)):
        witness_in(tmp_path, Crashing(crash_at)).add_checkpoint(
            request(size, size, OTHER).to_bytes(), now=NOW
        )
    for evidence in witness_in(tmp_path).evidence(ORIGIN):
        evidence.verify((LOG,))
    with pytest.raises(SplitViewError):
        witness_in(tmp_path).add_checkpoint(request(size, size, OTHER).to_bytes(), now=NOW)
    assert len(witness_in(tmp_path).evidence(ORIGIN)) == 1


def test_a_full_disk_cosigns_nothing(tmp_path: Path) -> None:
    class Full(FastFiles):
        def write(self, path: Path, data: bytes) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(LogError, match=r"No space left on device.*nothing was cosigned"):
        witness_in(tmp_path, Full()).add_checkpoint(request(0, 5).to_bytes(), now=NOW)
    assert witness_in(tmp_path).last(ORIGIN) is None


# Policies


def cosigners(count: int) -> list[CosigningKey]:
    return [
        CosigningKey.from_seed(
            f"example.com/w{index}", bytes([index]) * 32, algorithm=Algorithm.ED25519
        )
        for index in range(1, count + 1)
    ]


def policy_text(*lines: str) -> bytes:
    keys = {f"W{index}": key.public.to_string() for index, key in enumerate(cosigners(6), 1)}
    text = "".join(f"{line}\n" for line in lines)
    for name, key in keys.items():
        text = text.replace(f"<{name}>", key)
    return text.replace("<log>", LOG.to_string()).encode()


# The example of C2SP tlog-policy, "Example policy", with keys filled in.
EXAMPLE = policy_text(
    "log <log>",
    "",
    "witness X1 <W1>",
    "witness X2 <W2>",
    "witness X3 <W3>",
    "group X-witnesses 2 X1 X2 X3",
    "",
    "  # a comment",
    "witness Y1 <W4> https://witness.example/",
    "witness\tY2  <W5>",
    "witness Y3 <W6>",
    "group Y-witnesses any Y1 Y2 Y3",
    "group X-and-Y all X-witnesses Y-witnesses",
    "quorum X-and-Y",
)


def test_the_published_example_asks_for_two_and_one() -> None:
    policy = Policy.parse(EXAMPLE)
    assert policy.groups["X-witnesses"] == Group(2, ("X1", "X2", "X3"))
    assert policy.groups["X-and-Y"].threshold == 2
    one, two, three, four, five, _ = cosigners(6)
    for enough in ([one, two, four], [one, two, three, four, five], [three, two, five]):
        assert set(policy.check(cosigned(head(5), *enough)).cosigned) <= {*policy.witnesses}
    for too_few in ([], [one, two], [four, five], [one, four, five]):
        with pytest.raises(NotPublicError, match="quorum 'X-and-Y'"):
            policy.check(cosigned(head(5), *too_few))
    assert Policy.parse(policy.to_bytes()) == policy


def test_one_witness_who_signs_wrongly_spoils_the_note() -> None:
    policy, (one, two, _, four, *_) = Policy.parse(EXAMPLE), cosigners(6)
    wrong = two.cosign(head(6), timestamp=NOW)
    note = Note.parse(cosigned(head(5), one, four))
    with pytest.raises(LogCorruptedError):
        policy.check(Note(note.text, (*note.signatures, wrong)).to_bytes())
    stranger = CosigningKey.from_seed("example.com/stranger", b"x" * 32)
    assert verify_cosignatures(head(5), note, (stranger.public,)) == {}


@pytest.mark.parametrize(
    "lines",
    {
        "no quorum": ["witness A <W1>"],
        "two quorums": ["quorum none", "quorum none"],
        "quorum not defined": ["quorum A"],
        "quorum defined after it": ["quorum A", "witness A <W1>"],
        "a name twice": ["witness A <W1>", "witness A <W2>", "quorum A"],
        "a key twice": ["witness A <W1>", "witness B <W1>", "quorum A"],
        "a log twice": ["log <log>", "log <log>", "quorum none"],
        "a log with a witness's key type": ["log <W1>", "quorum none"],
        "a witness with a log's key type": ["witness A <log>", "quorum A"],
        "a member twice": ["witness A <W1>", "group G any A A", "quorum G"],
        "a member of two groups": [
            "witness A <W1>",
            "group G any A",
            "group H any A",
            "group I all G H",
            "quorum I",
        ],
        "a group of itself": ["group G any G", "quorum G"],
        "none in a group": ["group G any none", "quorum G"],
        "none as a name": ["witness none <W1>", "quorum none"],
        "a threshold of none": ["witness A <W1>", "group G 0 A", "quorum G"],
        "a threshold too high": ["witness A <W1>", "group G 2 A", "quorum G"],
        "a threshold with a zero before it": ["witness A <W1>", "group G 01 A", "quorum G"],
        "an empty group": ["group G any", "quorum G"],
        "an unknown word": ["wittness A <W1>", "quorum none"],
        "a damaged key": ["witness A x<W1>", "quorum A"],
        "a carriage return": ["quorum none\r"],
        "too much on a line": ["quorum none none"],
    }.items(),
    ids=lambda case: case[0],
)
def test_other_policies_are_refused(lines: tuple[str, list[str]]) -> None:
    with pytest.raises(WitnessPolicyError):
        Policy.parse(policy_text(*lines[1]))


def test_a_last_line_without_newline_is_refused() -> None:
    with pytest.raises(WitnessPolicyError, match="newline"):
        Policy.parse(b"quorum none")


@given(st.binary(max_size=60))
def test_arbitrary_bytes_raise_only_policy_error(data: bytes) -> None:
    with suppress(WitnessPolicyError):
        Policy.parse(data)


def test_names_are_opaque_bytes() -> None:
    kelvin = "\u212a"
    text = policy_text("witness K <W1>", f"witness {kelvin} <W2>", "quorum K")
    assert set(Policy.parse(text).witnesses) == {"K", kelvin}
    strange = (
        policy_text("witness A <W1>", "quorum A")
        .replace(b"A ", b"\xff ")
        .replace(b"A\n", b"\xff\n")
    )
    policy = Policy.parse(strange)
    assert policy.to_bytes().count(b"\xff") == 2


def test_quorum_none_asks_for_no_witness_but_for_a_log() -> None:
    policy = Policy.parse(policy_text("log <log>", "quorum none"))
    assert policy.check(head(5).sign(KEY)).cosigned == {}
    with pytest.raises(LogCorruptedError, match="signature of a known log"):
        Policy.parse(policy_text("quorum none")).check(head(5).sign(KEY))
    assert head(0).root_hash == EMPTY_ROOT
