"""The link by itself: who is let in, what each failure is called, and that nothing stays behind."""

import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificates
from direct import free_address, program
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from federation.errors import FederationError, PartyUnreachableError, WorkspaceError
from federation.rr22 import link as module
from federation.rr22 import program as program_module
from federation.rr22.configuration import Rr22Config
from federation.rr22.link import DirectLink, Found
from privacy.certificates import OwnCertificate, check_certificate
from privacy.errors import InvalidParameterError, PeerMessageError, PrivacyError, WorkerError
from privacy.psi.rr22 import (
    TAG_BYTES,
    found_tokens,
    from_lines,
    match_key,
    padded_tags,
    to_lines,
)
from privacy.randomness import Secret, seeded_secret

OURS, THEIRS, OTHER = (
    OwnCertificate.from_secret(seeded_secret(9, name)) for name in ("ours", "theirs", "other")
)
TAGS = np.arange(64, dtype=np.uint8).reshape(4, TAG_BYTES)
KEY, FRESH = seeded_secret(9, "key"), seeded_secret(9, "fresh")
TAMPERED = {
    "another word": b"ie\n",
    "half a line": to_lines(TAGS)[:-5],
    "no hexadecimal": to_lines(TAGS)[:-2] + b"x\n",
}

Ends = tuple[DirectLink, DirectLink]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(module, "_MEETING_SECONDS", 20.0)
    monkeypatch.setattr(module, "_PARTING_SECONDS", 1.0)


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    """The learner, who dials, and its peer, who waits."""
    address = free_address()
    peer = DirectLink(
        config=Rr22Config(python=program(tmp_path / "peer-python"), listen=address),
        peer="retailer",
        own=THEIRS,
        peer_certificate=OURS.pem,
        dial=None,
        binding=bytes(32),
        learns=False,
        scratch=tmp_path / "peer",
    )
    learner = DirectLink(
        config=Rr22Config(python=program(tmp_path / "learner-python")),
        peer="brand",
        own=OURS,
        peer_certificate=THEIRS.pem,
        dial=address,
        binding=bytes(32),
        learns=True,
        scratch=tmp_path / "learner",
    )
    yield learner, peer
    assert not learner.scratch.exists()
    assert not peer.scratch.exists()


def meet(learner: DirectLink, peer: DirectLink) -> tuple[Future[Found], Future[Found]]:
    with ThreadPoolExecutor(2) as pool:
        return pool.submit(learner.match, TAGS), pool.submit(peer.match, TAGS[1:3])


def test_the_learner_finds_what_both_have_and_the_peer_nothing(ends: Ends) -> None:
    mine, theirs = (future.result() for future in meet(*ends))
    assert mine.tags.tolist() == TAGS[1:3].tolist()
    assert theirs.tags.shape == (0, TAG_BYTES)
    assert (mine.received_bytes, mine.sent_bytes) == (theirs.sent_bytes, theirs.received_bytes)
    assert mine.received_bytes > 0


def test_what_a_crash_left_is_swept_away_and_nobody_else_may_look(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends[0].scratch.mkdir()
    (ends[0].scratch / "own.csv").write_text("old")
    seen = []
    start = DirectLink._start

    async def noted(link: DirectLink) -> object:
        seen.append((link.scratch.stat().st_mode & 0o777, {p.name for p in link.scratch.iterdir()}))
        return await start(link)

    monkeypatch.setattr(DirectLink, "_start", noted)
    assert len(meet(*ends)[0].result().tags) == 2
    assert seen == [(0o700, {"own.csv", "peer.sock"})] * 2  # and no private key


# --- who is let in -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "changes"),
    [
        (0, {"own": OTHER}),
        (1, {"own": OTHER}),
        (0, {"binding": bytes(31) + b"\x01"}),
    ],
    ids=["who dials", "who waits", "another bucket"],
)
def test_an_end_that_is_not_the_one_that_was_told_is_refused(
    ends: Ends, side: int, changes: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MEETING_SECONDS", 1.5)
    pair = list(ends)
    pair[side] = replace(pair[side], **changes)
    mine, theirs = meet(*pair)
    with pytest.raises(PartyUnreachableError, match="is not brand at this bucket"):
        mine.result()
    with pytest.raises(PartyUnreachableError, match="retailer did not come"):
        theirs.result()


def stranger(address: str, speak: Callable[[socket.socket], bytes]) -> bytes:
    host, port = address.split(":")
    while True:
        try:
            with socket.create_connection((host, int(port)), timeout=5) as connection:
                return speak(connection)
        except ConnectionRefusedError:
            continue
        except OSError:
            return b""


def plain(connection: socket.socket) -> bytes:
    connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
    return connection.recv(100)


def without_certificate(connection: socket.socket) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with context.wrap_socket(connection) as secured:
        secured.sendall(bytes(33))
        return secured.recv(100)


def outdated(connection: socket.socket) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with context.wrap_socket(connection) as secured:
        return secured.recv(100)


@pytest.mark.parametrize("speak", [plain, without_certificate, outdated])
def test_strangers_are_told_nothing_and_keep_nobody_out(
    ends: Ends, speak: Callable[[socket.socket], bytes]
) -> None:
    learner, peer = ends
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(peer.match, TAGS[1:3])
        said = stranger(learner.dial or "", speak)
        assert len(learner.match(TAGS).tags) == 2
        waiting.result()
    assert b"HTTP" not in said
    assert len(said) <= 7  # at most a TLS alert


def test_who_does_not_come_is_not_waited_for_for_ever(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MEETING_SECONDS", 0.3)
    for end, place in zip(ends, (ends[0].dial, "where we wait"), strict=True):
        with pytest.raises(PartyUnreachableError, match=f"did not come .*{place}"):
            end.match(TAGS)


# --- what failures are called --------------------------------------------------------------------

FAILURES: dict[str, tuple[type[Exception], str]] = {
    "environment": (WorkspaceError, "has not what is needed: make it with"),
    "match": (WorkerError, "failed: run again"),
    "killed": (WorkerError, r"exit code -9\): if it was killed, give it more memory"),
    "babbles": (WorkerError, "no answer that can be read"),
    "miscounts": (WorkerError, "told 1 matches and wrote 2"),
}


@pytest.mark.parametrize("misbehaviour", FAILURES)
def test_every_failure_of_the_program_is_an_error_of_ours(ends: Ends, misbehaviour: str) -> None:
    program(ends[0].config.python, misbehaviour)
    mine, theirs = meet(*ends)
    kind, told = FAILURES[misbehaviour]
    with pytest.raises(kind, match=told):
        mine.result()
    if misbehaviour != "miscounts":
        with pytest.raises(
            (PartyUnreachableError, WorkerError), match=r"retailer (broke|failed|ended)"
        ):
            theirs.result()


def test_programs_that_do_not_find_each_other_are_tried_twice(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FINDING_SECONDS", 0.5)
    for end in ends:
        program(end.config.python, "hangs")
    for future in meet(*ends):
        with pytest.raises(WorkerError, match="did not find each other"):
            future.result()


def test_a_program_that_takes_too_long_is_ended(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MATCHING_SECONDS", 1.0)
    for end in ends:
        program(end.config.python, "hangs")
    for future in meet(*ends):
        with pytest.raises((WorkerError, PartyUnreachableError)):
            future.result()


@pytest.mark.parametrize("python", ["nowhere/bin/python", "."])
def test_an_environment_that_is_not_there_comes_with_how_to_make_it(
    ends: Ends, python: str
) -> None:
    learner, peer = ends
    config = learner.config.model_copy(update={"python": Path(python)})
    mine, theirs = meet(replace(learner, config=config), peer)
    with pytest.raises(WorkspaceError, match=r"cannot be started.*pip install --no-deps spu=="):
        mine.result()
    with pytest.raises(PartyUnreachableError):
        theirs.result()


def test_an_address_that_is_not_ours_and_a_directory_that_is_too_deep_are_told(
    ends: Ends, tmp_path: Path
) -> None:
    elsewhere = ends[1].config.model_copy(update={"listen": "192.0.2.1:1"})
    with pytest.raises(WorkspaceError, match=r"rr22.listen 192.0.2.1:1 cannot be listened at"):
        replace(ends[1], config=elsewhere).match(TAGS)
    with pytest.raises(WorkspaceError, match=r"name another rr22.scratch"):
        replace(ends[1], scratch=tmp_path / ("deep" * 30)).match(TAGS)
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkspaceError, match="cannot be made"):
        replace(ends[1], scratch=tmp_path / "file" / "in").match(TAGS)


def test_no_failure_quotes_a_tag(ends: Ends) -> None:
    for misbehaviour in FAILURES:
        program(ends[0].config.python, misbehaviour)
        for future in meet(*ends):
            error = future.exception()
            assert not isinstance(error, AssertionError)
            if error is not None:
                assert isinstance(error, FederationError | PrivacyError)
                assert TAGS[1].tobytes().hex() not in str(error)


# --- the program's script ------------------------------------------------------------------------


def test_the_script_says_so_where_spu_is_not_installed(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-I", program_module._WORKER],
        input=b"{}\n",
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert ran.stdout == b'{"failed": "environment"}\n'
    assert ran.stderr == b""


def test_an_address_needs_a_place_to_listen() -> None:
    with pytest.raises(ValidationError, match="an address needs listen"):
        Rr22Config(python="python", address="brand.example:7300")
    both = Rr22Config(python="p", listen="0.0.0.0:7300", address="brand.example:7300")
    assert both.reached_at == "brand.example:7300"
    assert Rr22Config(python="p", listen="10.0.0.1:7300").reached_at == "10.0.0.1:7300"
    assert Rr22Config(python="p").reached_at is None


# --- certificates --------------------------------------------------------------------------------


def test_a_certificate_is_its_secrets_and_no_other() -> None:
    assert OwnCertificate.from_secret(seeded_secret(9, "ours")) == OURS
    assert len({one.pem for one in (OURS, THEIRS, OTHER)}) == 3
    check_certificate(OURS.pem)
    assert "PRIVATE" not in OURS.pem
    assert "PRIVATE" not in repr(OURS)
    sealed = OURS.key_pem_under("a password")
    with pytest.raises(ValueError, match="password"):
        load_pem_private_key(sealed.encode(), b"another")
    opened = load_pem_private_key(sealed.encode(), b"a password")
    (certificate,) = load_pem_x509_certificates(OURS.pem.encode())
    assert opened.public_key() == certificate.public_key()


@pytest.mark.parametrize(
    "wrong",
    ["", "x", OURS.pem + THEIRS.pem, "before\n" + OURS.pem, OURS.pem[:-40], OURS.private_key_pem],
    ids=["none", "nonsense", "two", "text before", "cut", "a key"],
)
def test_what_is_no_single_certificate_is_refused(wrong: str) -> None:
    with pytest.raises(PeerMessageError):
        check_certificate(wrong)


@settings(max_examples=25)
@given(st.text(max_size=300))
def test_no_text_makes_the_check_raise_anything_else(text: str) -> None:
    with pytest.raises(PeerMessageError):
        check_certificate(text)


# --- tags ----------------------------------------------------------------------------------------


def tokens(count: int) -> np.ndarray:
    drawn = np.random.default_rng(5).integers(0, 256, (count, 33), dtype=np.uint8)
    drawn[:, 0] = np.arange(count) % 3
    return drawn


def test_a_tag_is_the_cbc_mac_of_kind_and_hash() -> None:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    (token,) = tokens(1)
    tags, owners = padded_tags(token[None], KEY, FRESH, capacity=5)
    cbc = Cipher(algorithms.AES256(KEY), modes.CBC(bytes(16))).encryptor()
    mac = cbc.update(token[:1].tobytes() + bytes(15) + token[1:].tobytes())[-16:]
    assert tags[owners == 0].tobytes() == mac
    assert mac not in token.tobytes()


@settings(max_examples=30)
@given(count=st.integers(0, 60), room=st.integers(1, 20), shared=st.integers(0, 60))
def test_equal_tokens_meet_under_one_key_whatever_the_dummies(
    count: int, room: int, shared: int
) -> None:
    drawn = tokens(count + 10)
    shared = min(shared, count)
    tags, owners = padded_tags(drawn[:count], KEY, FRESH, capacity=count + room)
    other = seeded_secret(9, "other fresh")
    theirs, _ = padded_tags(drawn[count - shared :], KEY, other, capacity=shared + 20)
    assert tags.shape == (count + room, 16)
    assert sorted(owners[owners >= 0].tolist()) == list(range(count))
    common = set(map(bytes, tags)) & set(map(bytes, theirs))
    found = np.array([tag for tag in tags if bytes(tag) in common], dtype=np.uint8).reshape(-1, 16)
    assert found_tokens(found, tags, owners).tolist() == list(range(count - shared, count))
    fresh, _ = padded_tags(drawn[:count], seeded_secret(9, "next key"), other, capacity=count + 1)
    assert not set(map(bytes, fresh)) & set(map(bytes, tags))


def test_what_a_program_cannot_have_found_is_refused() -> None:
    tags, owners = padded_tags(tokens(5), KEY, FRESH, capacity=8)
    mine, dummies = tags[owners >= 0], tags[owners < 0]
    for wrong in (dummies[:1], mine[[0, 0]], np.zeros((1, 16), dtype=np.uint8)):
        with pytest.raises(WorkerError):
            found_tokens(wrong, tags, owners)


def test_lines_are_read_as_they_were_written() -> None:
    assert from_lines(to_lines(TAGS)).tolist() == TAGS.tolist()
    assert from_lines(b"").shape == (0, TAG_BYTES)
    for wrong in TAMPERED.values():
        with pytest.raises(WorkerError):
            from_lines(wrong)


@pytest.mark.parametrize(
    ("wrong", "capacity"),
    [(np.zeros((3, 32), np.uint8), 9), (np.zeros((3, 33)), 9), (np.zeros((3, 33), np.uint8), 3)],
)
def test_tokens_of_another_shape_or_without_room_are_refused(
    wrong: np.ndarray, capacity: int
) -> None:
    with pytest.raises(InvalidParameterError):
        padded_tags(wrong, KEY, FRESH, capacity=capacity)


def test_a_key_needs_two_shares_in_no_order() -> None:
    one, two = Secret(bytes(32)), seeded_secret(9, "share")
    assert match_key(frozenset({one, two}), "a") == match_key(frozenset({two, one}), "a")
    assert match_key(frozenset({one, two}), "a") != match_key(frozenset({one, two}), "b")
    with pytest.raises(PeerMessageError):
        match_key(frozenset({one}), "a")
