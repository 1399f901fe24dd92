"""Joining over HTTPS and through files, by the command that people type."""

import asyncio
import fcntl
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from anyio.to_thread import current_default_thread_limiter
from joining import INVITED, Enrolment, means_of
from starlette.applications import Starlette
from starlette.routing import Mount

from compliance.signing import encode_base64
from federation.cli import main
from federation.enrolment import enrolment_app
from federation.enrolment.exchange import PATH, ask
from federation.enrolment.joining import Membership, open_invitation
from federation.enrolment.request import REQUEST_LIMIT
from federation.enrolment.waiting import wait_until_signed
from federation.errors import EnrolmentError, PartyUnreachableError
from federation.operations.folder import CoordinatorConfig, CoordinatorFolder
from federation.party import PartyFolder

HOST = "127.0.0.1"
SIGNATURE = json.dumps(
    {
        "kind": "signature",
        "agreement": "0" * 64,
        "signature": {"keyid": "nobody", "sig": encode_base64(bytes(64))},
    }
).encode()


@contextmanager
def listening(
    folder: CoordinatorFolder, app: Any, waiting: socket.socket
) -> Iterator[list[tuple[str, int]]]:
    """Serve an application over TLS with a coordinator's certificate; yields what was asked."""
    asked: list[tuple[str, int]] = []

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        asked.append((scope["path"], len(asked)))
        await app(scope, receive, send)

    config = uvicorn.Config(
        watched,
        lifespan="off",
        log_level="critical",
        ws="none",
        ssl_certfile=str(folder.server_certificate),
        ssl_keyfile=str(folder.server_key),
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([waiting],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield asked
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def door(directory: Path) -> Iterator[tuple[Enrolment, list[tuple[str, int]]]]:
    """A coordinator whose listener is up."""
    with socket.create_server((HOST, 0)) as waiting:
        enrolment = Enrolment(directory, address=f"{HOST}:{waiting.getsockname()[1]}")
        app = Starlette(routes=[Mount("/v1/enrolment", enrolment_app(enrolment.folder.path))])
        with listening(enrolment.folder, app, waiting) as asked:
            yield enrolment, asked


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with door(tmp_path_factory.mktemp("opened")) as found:
        yield found


def post(
    enrolment: Enrolment, body: Any, *, path: str = PATH, method: str = "POST"
) -> tuple[int, str]:
    context = ssl.create_default_context(cafile=enrolment.folder.ca_certificate)
    host, port = enrolment.address.split(":")
    connection = HTTPSConnection(host, int(port), context=context, timeout=10)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


class TestTheDoor:
    def test_what_is_asked_over_the_wire_is_answered(self, opened: Any) -> None:
        enrolment, _ = opened
        member = enrolment.join("courier")
        standing = member.take(ask(member.invitation, member.registration), now=enrolment.now)
        assert standing.missing == ("brand", "retailer")
        assert enrolment.store.read().missing == ("brand", "retailer")

    def test_a_refusal_says_why_and_changes_nothing(self, opened: Any, tmp_path: Path) -> None:
        enrolment, _ = opened
        foreign = Enrolment(tmp_path, address=enrolment.address).join("brand")
        mine = open_invitation(enrolment.invite("brand"))
        before = enrolment.store.read()
        with pytest.raises(EnrolmentError, match="refused: the coordinator knows no such"):
            ask(mine, foreign.registration)
        assert enrolment.store.read() == before

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            (b"", 403),
            (b"{}", 403),
            (b"\xff" * 100, 403),
            (b'{"kind":"signature"}', 403),
            (b"0" * (REQUEST_LIMIT + 1), 413),
        ],
        ids=["empty", "blank", "garbage", "half", "too long"],
    )
    def test_what_is_no_request_is_refused(self, opened: Any, body: bytes, status: int) -> None:
        enrolment, _ = opened
        assert post(enrolment, body)[0] == status

    def test_a_body_without_an_end_is_cut(self, opened: Any) -> None:
        """Chunks have no length beforehand: what comes is counted."""
        enrolment, _ = opened
        chunks = (b"0" * 1024 for _ in range(2 * REQUEST_LIMIT // 1024))
        assert post(enrolment, chunks)[0] == 413

    def test_nothing_else_is_there(self, opened: Any) -> None:
        enrolment, _ = opened
        assert post(enrolment, b"", method="GET")[0] == 405
        for path in ("/", "/v1/enrolment/register.json", "/v1/enrolment/../party/keys/identity"):
            assert post(enrolment, b"", path=path)[0] == 404

    def test_where_nobody_was_invited_nobody_joins(self, opened: Any, tmp_path: Path) -> None:
        config = CoordinatorConfig.for_address(HOST, listen=None, control=f"{HOST}:1")
        folder = CoordinatorFolder.init(tmp_path / "c", config, now=opened[0].now)
        registration = opened[0].join("brand").registration
        with socket.create_server((HOST, 0)) as waiting:
            opened_elsewhere = Enrolment(
                tmp_path / "e", address=f"{HOST}:{waiting.getsockname()[1]}"
            )
            invitation = open_invitation(opened_elsewhere.invite("brand"))
            app = Starlette(routes=[Mount("/v1/enrolment", enrolment_app(folder.path))])
            with (
                listening(opened_elsewhere.folder, app, waiting),
                pytest.raises(PartyUnreachableError, match="HTTP 503: nobody can join"),
            ):
                ask(invitation, registration)
        assert not (folder.path / "enrolment" / "register.json").exists()


def test_however_many_ask_other_work_keeps_its_threads(tmp_path: Path) -> None:
    """While the register is held, some wait in threads of their own, and the rest are told so."""
    folder = Enrolment(tmp_path).folder.path

    async def ask_at_once() -> None:
        transport = httpx.ASGITransport(app=enrolment_app(folder))
        async with httpx.AsyncClient(transport=transport, base_url="http://door") as client:
            with (folder / "enrolment" / "lock").open("w") as held:
                fcntl.flock(held, fcntl.LOCK_EX)
                asked = [
                    asyncio.create_task(client.post("/requests", content=SIGNATURE))
                    for _ in range(6)
                ]
                for one in asked[4:]:
                    assert (await one).status_code == 503
                assert not any(one.done() for one in asked[:4])
                assert current_default_thread_limiter().borrowed_tokens == 0
            assert [(await one).status_code for one in asked[:4]] == 4 * [403]

    asyncio.run(ask_at_once())


class TestWhoStandsBetween:
    def test_another_authority_is_told_nothing(self, tmp_path: Path) -> None:
        """Whoever answers at the address with a certificate of its own learns nothing."""
        with socket.create_server((HOST, 0)) as waiting:
            address = f"{HOST}:{waiting.getsockname()[1]}"
            meant = Enrolment(tmp_path / "meant", address=address)
            between = Enrolment(tmp_path / "between", address=address)
            member = meant.join("brand")
            app = enrolment_app(between.folder.path)
            with listening(between.folder, app, waiting) as asked:
                with pytest.raises(EnrolmentError, match="nothing was sent"):
                    ask(member.invitation, member.registration)
                assert asked == []

    def test_a_certificate_for_another_host_is_told_nothing(self, tmp_path: Path) -> None:
        other = "127.0.0.2"  # every certificate names loopback's first address
        with socket.create_server((other, 0)) as waiting:
            port = waiting.getsockname()[1]
            enrolment = Enrolment(tmp_path, address=f"coordinator.example:{port}")
            member = enrolment.join("brand")
            moved = member.invitation.model_copy(update={"address": f"{other}:{port}"})
            app = enrolment_app(enrolment.folder.path)
            with listening(enrolment.folder, app, waiting) as asked:
                with pytest.raises(EnrolmentError, match="nothing was sent"):
                    ask(moved, member.registration)
                assert asked == []

    def test_nobody_there_is_no_refusal(self, tmp_path: Path) -> None:
        with socket.create_server((HOST, 0)) as waiting:
            address = f"{HOST}:{waiting.getsockname()[1]}"
        member = Enrolment(tmp_path, address=address).join("brand")
        with pytest.raises(PartyUnreachableError, match="--to FILE"):
            ask(member.invitation, member.registration)

    @pytest.mark.parametrize("status", [302, 500])
    def test_other_answers_are_not_believed(self, tmp_path: Path, status: int) -> None:
        async def odd(scope: Any, receive: Any, send: Any) -> None:
            headers = [(b"location", b"https://elsewhere.example/")]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": b"\x1b[31mred\x00"})

        with socket.create_server((HOST, 0)) as waiting:
            address = f"{HOST}:{waiting.getsockname()[1]}"
            enrolment = Enrolment(tmp_path, address=address)
            member = enrolment.join("brand")
            with (
                listening(enrolment.folder, odd, waiting),
                pytest.raises(PartyUnreachableError, match=f"HTTP {status}") as caught,
            ):
                ask(member.invitation, member.registration)
        assert "\x1b" not in str(caught.value)


def test_a_node_waits_until_all_have_signed(tmp_path: Path) -> None:
    with door(tmp_path) as (enrolment, _):
        members = {name: enrolment.join(name) for name in INVITED}
        told: list[str] = []
        folder = members["brand"].folder
        node = threading.Thread(target=wait_until_signed, args=(folder, told.append))
        node.start()

        def until(words: str) -> None:
            end = time.monotonic() + 60
            while not told or words not in told[-1]:
                assert node.is_alive()
                assert time.monotonic() < end, told
                time.sleep(0.01)

        until("waits for retailer, courier to join")
        for name in ("retailer", "courier"):
            enrolment.ask(members[name])
        until("waits for brand, retailer, courier, coordinator to sign")
        for name in ("retailer", "courier"):
            enrolment.ask(members[name])
            enrolment.sign(members[name])
        signed = enrolment.store.standing().signed
        assert signed is not None
        enrolment.store.sign(signed.unverified().digest)
        assert node.is_alive()
        request = members["brand"].submission(signed.unverified().digest)
        enrolment.store.answer(request.model_dump_json().encode())  # the node itself takes it home
        node.join(timeout=60)
        assert not node.is_alive()
        assert folder.agreement().digest == signed.unverified().digest


# ------------------------------------------------------------------------------------ the command


class Comity:
    """The command, in this process, as each party types it."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    def __call__(self, *arguments: object, says: str = "", code: int = 0) -> str:
        import io

        self._monkeypatch.setattr("sys.stdin", io.StringIO(says))
        with pytest.raises(SystemExit) as left:
            main([str(one) for one in arguments])
        told = self._capsys.readouterr()
        assert left.value.code == code, told.out + told.err
        return told.out if code == 0 else told.out + told.err


@pytest.fixture
def comity(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Comity:
    return Comity(capsys, monkeypatch)


def unattended(file: Path) -> tuple[str, ...]:
    """What a party says that asks nobody any more."""
    found = open_invitation(file)
    key = found.coordinator.verifying_key.fingerprint
    return ("--accept", found.terms.digest, "--coordinator-key", key)


class TestTheCommand:
    def test_three_parties_join_and_sign_by_it(self, comity: Comity, tmp_path: Path) -> None:
        with door(tmp_path) as (enrolment, _):
            coordinator = enrolment.folder.path
            for name in INVITED:
                file = tmp_path / f"{name}.invitation"
                told = comity("party", "invite", name, "--coordinator", coordinator, "-o", file)
                fingerprint = open_invitation(file).coordinator.verifying_key.fingerprint
                assert fingerprint in told
                means_of(tmp_path / "home", name, file)
                told = comity(
                    *("party", "join", file, "--folder", tmp_path / name),
                    *("--data", tmp_path / "home" / f"{name}.toml"),
                    says="yes\n",
                )
                assert fingerprint in told
                assert "small trial" in told
            told = comity("party", "fetch", tmp_path / "brand", "--json")
            keys = json.loads(told)["keys"]
            brand = PartyFolder(tmp_path / "brand")
            assert keys["brand"]["identity"] == brand.identity_key().public.fingerprint
            assert keys["brand"]["encryption"] == brand.term().encryption_fingerprint
            for name in INVITED:
                told = comity("party", "sign", tmp_path / name, says="yes\n")
                for prints in keys.values():
                    assert all(one is None or one in told for one in prints.values())
            assert "not signed yet by coordinator" in told
            digest = json.loads(comity("party", "fetch", tmp_path / "courier", "--json"))[
                "agreement"
            ]
            assert "signed by all" in comity(
                "party", "sign", enrolment.store.party, "--accept", digest
            )
            lines: list[str] = []
            for name in INVITED:
                folder = PartyFolder(tmp_path / name)
                wait_until_signed(folder, lines.append)
                assert folder.agreement().digest == digest
            assert lines == []

    def test_a_party_without_a_network_joins_by_files(self, comity: Comity, tmp_path: Path) -> None:
        enrolment = Enrolment(tmp_path)
        coordinator = ("--coordinator", enrolment.folder.path)
        for name in ("retailer", "courier"):
            enrolment.store.answer(enrolment.join(name).registration)
        file, folder = enrolment.invite("brand"), tmp_path / "brand"
        request, answer = tmp_path / "request", tmp_path / "answer"
        told = comity("party", "join", file, "--folder", folder, *unattended(file), "--to", request)
        assert open_invitation(file).coordinator.verifying_key.fingerprint in told
        comity("party", "register", request, *coordinator, "-o", answer)
        told = json.loads(comity("party", "fetch", folder, "--from", answer, "--json"))
        comity("party", "sign", folder, "--accept", told["agreement"], "--to", request)
        assert "retailer, courier, coordinator" in comity(
            "party", "register", request, *coordinator, "-o", answer
        )
        for name in ("retailer", "courier"):
            member = Membership.open(tmp_path / name)
            enrolment.ask(member)
            enrolment.sign(member)
        enrolment.store.sign(told["agreement"])
        comity("party", "fetch", folder, "--to", request)
        comity("party", "register", request, *coordinator, "-o", answer)
        assert "signed by all" in comity("party", "fetch", folder, "--from", answer)
        assert PartyFolder(folder).agreement().digest == told["agreement"]

    def test_whoever_says_no_has_made_nothing(self, comity: Comity, tmp_path: Path) -> None:
        file = Enrolment(tmp_path).invite("brand")
        comity("party", "join", file, "--folder", tmp_path / "brand", says="no\n", code=1)
        assert not (tmp_path / "brand").exists()

    def test_unattended_it_takes_no_other_coordinators_invitation(
        self, comity: Comity, tmp_path: Path
    ) -> None:
        """Anybody can invite to the same terms: the digest alone says nothing of who does."""
        meant, other = Enrolment(tmp_path / "meant"), Enrolment(tmp_path / "other")
        file, accepted = other.invite("brand"), unattended(meant.invite("brand"))
        assert accepted[1] == open_invitation(file).terms.digest
        joining = ("party", "join", file, "--folder", tmp_path / "brand")
        assert "--coordinator-key" in comity(*joining, *accepted[:2], code=2)
        key = open_invitation(file).coordinator.verifying_key.fingerprint
        assert f"the key {key}, not" in comity(*joining, *accepted, code=1)
        told = comity(*joining, *accepted[2:], says="yes\n", code=1)  # if somebody is asked, too
        assert f"the key {key}, not" in told
        assert not (tmp_path / "brand").exists()
        request = ("--to", tmp_path / "request", "--json")
        told = comity(*joining, *unattended(file), *request)
        assert json.loads(told)["coordinator"] == key

    def test_codes_tell_a_refusal_from_a_mistake(self, comity: Comity, tmp_path: Path) -> None:
        enrolment = Enrolment(tmp_path)
        file, folder = enrolment.invite("brand"), tmp_path / "brand"
        joining = ("party", "join", file, "--folder", folder)
        accepted = unattended(file)
        told = comity(*joining, "--accept", "0" * 64, *accepted[2:], code=1)
        assert "was accepted" in told
        comity("party", "join", tmp_path / "none", "--folder", folder, code=2)
        comity("party", "fetch", folder, code=2)
        comity("party", "sign", folder, code=2)
        comity("party", "register", tmp_path / "none", "--coordinator", tmp_path, code=2)
        garbage = tmp_path / "garbage"
        garbage.write_bytes(b"{}")
        comity("party", "register", garbage, "--coordinator", enrolment.folder.path, code=1)
        comity("party", "join", garbage, "--folder", folder, code=1)
        comity(*joining, *accepted, "--to", tmp_path / "request")
        comity("party", "sign", folder, "--to", tmp_path / "request", code=1)

    def test_the_file_with_the_token_is_its_owners_alone(
        self, comity: Comity, tmp_path: Path
    ) -> None:
        enrolment = Enrolment(tmp_path)
        file = tmp_path / "given"
        told = comity(
            *("party", "invite", "brand", "--coordinator", enrolment.folder.path),
            *("-o", file, "--json"),
        )
        assert file.stat().st_mode & 0o777 == 0o600
        assert json.loads(told)["draft"] == open_invitation(file).terms.digest
        assert open_invitation(file).token not in told
