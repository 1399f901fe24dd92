"""A coordinator's folder, tokens and runs: states, certificates, orders, and who may call what."""

import fcntl
import inspect
import ipaddress
import itertools
import json
import os
import re
import resource
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from hypothesis import given, settings
from hypothesis import strategies as st
from parties import EXPAND, MATCH, TRAIN, World
from starlette.responses import Response
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from compliance.records import JobStarted
from compliance.terms import Role
from federation import cli
from federation.apps import refusals
from federation.apps.control_listener import CONTROL_CALLS, control_app
from federation.apps.operating.dispatcher import Dispatcher
from federation.apps.operating.renewal import Renewal, warn_of_end
from federation.apps.operating.service import check_scripts
from federation.apps.public_listener import FLEET_CALLS, public_app
from federation.apps.refusals import AuditFile, Refusals
from federation.clock import utc_now
from federation.coordinator import read_jobs, write_jobs
from federation.errors import (
    CollaborationError,
    RunCancelledError,
    RunStateError,
    VersionError,
    WorkspaceError,
)
from federation.gate import Gate
from federation.observing.events import Event, Notice
from federation.operations import run_commands
from federation.operations.certificates import (
    Issued,
    issue_authority,
    issue_server,
    new_key,
    read_authority,
)
from federation.operations.control_api import control_api
from federation.operations.folder import CoordinatorConfig, CoordinatorFolder
from federation.operations.journal import NEXT_STATES, Run, RunJournal, RunState, RunStep
from federation.operations.remote import RemoteConfig, RemoteRuns
from federation.operations.roles import OperatorRole
from federation.operations.runs import LocalRuns, Order, read_order
from federation.operations.taken_out import TakenOut
from federation.operations.tokens import Operator, TokenBook
from federation.party import PartyConfig, PartyFolder
from federation.specification import JobSpec

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(days=1)


def config(**changes: str) -> CoordinatorConfig:
    given = {"address": "coordinator.example", "listen": None, "control": "127.0.0.1:9092"}
    return CoordinatorConfig.for_address(**given | changes)


# -------------------------------------------------------------------------------------- folder

NOBODY = 10001


def as_nobody(work: Callable[[], None]) -> int:
    """Do the work in a process of another user; return its status."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([NOBODY])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            work()
            os._exit(0)
        except BaseException:  # noqa: BLE001 -- nothing may run on in the child
            traceback.print_exc()
            os._exit(1)
    return os.waitpid(child, 0)[1]


def make_coordinator(path: Path) -> object:
    return CoordinatorFolder.init(path, config(), now=NOW)


def make_party(path: Path) -> object:
    return PartyFolder.create(path, PartyConfig(name="coordinator", role=Role.COORDINATOR))


def authority_in(directory: Path) -> Issued:
    """Make a CA as a secret of Kubernetes has it."""
    made = issue_authority(NOW)
    directory.mkdir()
    (directory / "tls.crt").write_bytes(made.certificate_pem)
    (directory / "tls.key").write_bytes(made.key_pem)
    return made


def company_authority(
    *,
    key: ec.EllipticCurvePrivateKey | None = None,
    begins: datetime = NOW,
    days: int = 900,
    named: bytes | None = None,
    without: Collection[str] = (),
    constraints: Sequence[str] | None = None,
) -> Issued:
    """A CA as companies make them: P-384, and names of their own."""
    key = key or ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a company")])
    ends = begins + timedelta(days=days)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, begins, ends)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    if "identifier" not in without:
        own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier(named) if named else own, critical=False
        )
    if "usage" not in without:
        usage = dict.fromkeys(inspect.signature(x509.KeyUsage).parameters, False)
        usage |= {"key_cert_sign": True, "digital_signature": True}
        builder = builder.add_extension(x509.KeyUsage(**usage), critical=True)
    if constraints is not None:
        permitted: list[x509.GeneralName] = [
            x509.IPAddress(ipaddress.ip_network(one)) if ":" in one or one[0] == "1"
            else x509.DNSName(one)
            for one in constraints
        ]  # fmt: skip
        builder = builder.add_extension(x509.NameConstraints(permitted, None), critical=True)
    return Issued(builder.sign(key, hashes.SHA384()), key, "made")


def believed(directory: Path, server: Issued, root: Issued, host: str) -> x509.Certificate:
    """Have a client that believes a root shake hands with a server; return what it was shown.

    Raises:
        ssl.SSLError: it does not believe it.
    """
    file = directory / "server.pem"
    file.write_bytes(server.key_pem + server.certificate_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return shaken(context, root, host)


def shaken(context: ssl.SSLContext, root: Issued, host: str) -> x509.Certificate:
    """The same, with a server's context."""
    trusting = ssl.create_default_context(cadata=root.certificate_pem.decode())
    trusting.verify_flags |= ssl.VERIFY_X509_STRICT  # as Python 3.13 has it
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        trusting.wrap_bio(to_client, to_server, server_hostname=host),
        context.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return x509.load_der_x509_certificate(ends[0].getpeercert(binary_form=True) or b"")


def verify(server: Issued, authority: Issued, host: str, now: datetime) -> None:
    """What a client does, by a verifier that is not ours."""
    name: x509.GeneralName = x509.DNSName(host)
    builder = PolicyBuilder().store(Store([authority.certificate])).time(now)
    verifier = builder.build_server_verifier(name)  # type: ignore[arg-type]
    verifier.verify(server.certificate, [])


def server_of(folder: CoordinatorFolder) -> Issued:
    files = folder.server_certificate, folder.server_key
    return Issued.parse(*(one.read_bytes() for one in files), source="server")


def new_key_pem() -> bytes:
    return issue_authority(NOW).key_pem


def server_pems() -> tuple[bytes, bytes]:
    """A certificate that may vouch for nobody, and its key."""
    made = issue_server(issue_authority(NOW), ["a.example"], NOW, key=new_key())
    return made.certificate_pem, made.key_pem


class TestFolder:
    def test_it_is_its_owners_alone_and_so_is_every_key(self, tmp_path: Path) -> None:
        folder = CoordinatorFolder.init(tmp_path / "state", config(), now=NOW)
        TokenBook(folder.tokens).add("alice", OperatorRole.VIEWER, now=NOW)
        secret = [folder.tokens, *folder.path.glob("certificates/*.key")]
        assert len(secret) == 3
        assert {stat.S_IMODE(file.stat().st_mode) for file in secret} == {0o600}
        assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700

    @pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
    @pytest.mark.parametrize("make", [make_coordinator, make_party])
    def test_a_volume_that_is_roots_takes_a_folder_within(
        self, make: Callable[[Path], object]
    ) -> None:
        def work() -> None:
            with pytest.raises(WorkspaceError, match=r"chown.* a folder within it"):
                make(volume)
            assert not list(volume.iterdir())
            make(volume / "within")
            assert stat.S_IMODE((volume / "within").stat().st_mode) == 0o700

        with TemporaryDirectory() as found:
            volume = Path(found)
            os.chown(volume, 0, NOBODY)  # as Kubernetes leaves one with an fsGroup
            volume.chmod(0o2775)
            assert as_nobody(work) == 0

    def test_preparing_it_again_changes_nothing(self, tmp_path: Path) -> None:
        folder = CoordinatorFolder.init(tmp_path, config(), now=NOW)
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        CoordinatorFolder.init(tmp_path, config(), now=LATER)
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
        assert CoordinatorFolder.open(tmp_path / "coordinator.toml").config == folder.config

    def test_an_authority_that_is_given_is_taken_once_and_for_all(self, tmp_path: Path) -> None:
        given, other = (authority_in(tmp_path / name) for name in ("given", "other"))
        for _ in range(2):
            folder = CoordinatorFolder.init(
                tmp_path / "state", config(), now=NOW, authority=tmp_path / "given"
            )
        assert folder.ca_certificate.read_bytes() == given.certificate_pem
        server = x509.load_pem_x509_certificate(folder.server_certificate.read_bytes())
        server.verify_directly_issued_by(given.certificate)
        with pytest.raises(WorkspaceError, match="another certificate authority than"):
            CoordinatorFolder.init(
                tmp_path / "state", config(), now=NOW, authority=tmp_path / "other"
            )
        assert folder.ca_certificate.read_bytes() != other.certificate_pem

    def test_an_authoritys_certificate_that_is_made_anew_for_its_key_is_taken(
        self, tmp_path: Path
    ) -> None:
        def give(days: int, now: datetime) -> tuple[CoordinatorFolder, Issued]:
            made = company_authority(key=key, days=days)
            (given / "tls.crt").write_bytes(made.certificate_pem)
            (given / "tls.key").write_bytes(made.key_pem)
            folder = CoordinatorFolder.init(tmp_path / "state", config(), now=now, authority=given)
            return folder, made

        given, key = tmp_path / "given", ec.generate_private_key(ec.SECP256R1())
        given.mkdir()
        _, old = give(60, NOW)
        later = NOW + timedelta(days=40)
        folder, new = give(400, later)
        server = server_of(folder)
        assert server.ends == new.ends == folder.authority_ends
        for root in (old, new):  # parties have either
            verify(server, root, "coordinator.example", later)
        folder, _ = give(60, later)  # an older copy changes nothing
        assert folder.authority_ends == new.ends

    def test_whoever_gives_an_authority_anew_is_told_that_parties_need_it(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        key, told = ec.generate_private_key(ec.SECP256R1()), []
        for days in (60, 400, 400):
            made = company_authority(key=key, begins=utc_now() - timedelta(days=1), days=days)
            (tmp_path / "tls.crt").write_bytes(made.certificate_pem)
            (tmp_path / "tls.key").write_bytes(made.key_pem)
            where = [
                str(tmp_path / "state"),
                "--address",
                "a.example",
                "--authority",
                str(tmp_path),
            ]
            with pytest.raises(SystemExit) as left:
                cli.main(["coordinator", "init", *where])
            assert left.value.code == 0
            told.append("anew, in place of the former" in capsys.readouterr().out)
        assert told == [False, True, False]

    def test_an_authority_that_has_ended_is_called_so(self, tmp_path: Path) -> None:
        made = company_authority(days=100)
        (tmp_path / "tls.crt").write_bytes(made.certificate_pem)
        (tmp_path / "tls.key").write_bytes(made.key_pem)
        folder = CoordinatorFolder.init(tmp_path / "state", config(), now=NOW, authority=tmp_path)
        told: list[str] = []
        for days in (0, 9, 11):
            warn_of_end(folder, told.append, NOW + timedelta(days=days))
        assert [one.partition(",")[0] for one in told] == [
            f"the certificate authority ends on {made.ends:%Y-%m-%d}"
        ]
        assert server_of(folder).ends == made.ends
        assert not folder.renew(NOW + timedelta(days=99))  # it would end no later
        with pytest.raises(WorkspaceError, match=r"is valid from .* of the same authority"):
            folder.renew(NOW + timedelta(days=101))

    def test_listeners_at_work_show_a_certificate_that_was_issued_meanwhile(
        self, tmp_path: Path
    ) -> None:
        begun = utc_now() - timedelta(days=370)  # OpenSSL goes by the machine's clock
        moment = [begun]
        folder = CoordinatorFolder.init(tmp_path / "state", config(), now=begun)
        listener = uvicorn.Config(
            control_api(folder),
            ssl_certfile=folder.server_certificate,
            ssl_keyfile=folder.server_key,
            ws="none",
            log_config=None,
        )
        listener.load()
        assert listener.ssl is not None
        told: list[str] = []
        renewal = Renewal(folder, [listener.ssl], tell=told.append, clock=lambda: moment[0])
        root = Issued.parse(
            folder.ca_certificate.read_bytes(),
            folder.ca_certificate.with_suffix(".key").read_bytes(),
            source="ca",
        )
        first = shaken(listener.ssl, root, "localhost")
        for days, times in ((366, 0), (368, 1), (369, 1)):
            moment[0] = begun + timedelta(days=days)
            renewal.issue()
            renewal.show()
            assert len(told) == times
        second = shaken(listener.ssl, root, "localhost")
        assert second.not_valid_after_utc - first.not_valid_after_utc == timedelta(days=368)
        assert second == server_of(folder).certificate

    def test_listeners_at_work_show_a_certificate_that_another_process_issued(
        self, tmp_path: Path
    ) -> None:
        begun = utc_now() - timedelta(days=370)
        folder = CoordinatorFolder.init(tmp_path / "state", config(), now=begun)
        shown: list[x509.Certificate] = []

        class Listener:
            """Notes what it is to show."""

            def load_cert_chain(
                self, certificate: Path, key: Path, password: str | None, /
            ) -> None:
                assert key.exists()
                assert password is None
                shown.append(x509.load_pem_x509_certificate(certificate.read_bytes()))

        told: list[str] = []
        renewal = Renewal(folder, [Listener()], tell=told.append, clock=utc_now)
        CoordinatorFolder.init(folder.path, config(), now=utc_now())  # as its operator may
        for _ in range(2):
            renewal.issue()
            renewal.show()
        assert shown == [server_of(folder).certificate]
        assert len(told) == 1

    def test_an_authority_made_by_the_recipe_of_the_documentation_is_taken(
        self, tmp_path: Path
    ) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("there is no openssl here")
        page = (Path(__file__).parents[1] / "docs" / "deploy.md").read_text(encoding="utf-8")
        (recipe,) = re.findall(
            r"^```sh recipe=authority\n(.*?)^```$", page, re.MULTILINE | re.DOTALL
        )
        subprocess.run(["sh", "-ec", recipe], cwd=tmp_path, check=True, stderr=subprocess.DEVNULL)
        given = tmp_path / "authority"
        assert given.stat().st_mode & 0o077 == 0
        now = utc_now()
        folder = CoordinatorFolder.init(tmp_path / "state", config(), now=now, authority=given)
        assert folder.ca_certificate.read_bytes() == (given / "tls.crt").read_bytes()
        folder.check_certificate(now)

    @pytest.mark.parametrize(
        ("wrong", "told"),
        [
            ({"tls.crt": None}, "no such file"),
            ({"tls.key": None}, "no such file"),
            ({"tls.crt": b"nonsense"}, "in PEM"),
            ({"tls.key": new_key_pem()}, "not the certificate's"),
            (dict(zip(("tls.crt", "tls.key"), server_pems(), strict=True)), "vouches for itself"),
            ({"days": 3651}, "is valid from .*make a new one"),
        ],
    )
    def test_an_authority_that_vouches_for_nobody_is_refused(
        self, tmp_path: Path, wrong: dict[str, Any], told: str
    ) -> None:
        authority_in(tmp_path / "given")
        now = NOW + timedelta(days=wrong.pop("days", 0))
        for name, content in wrong.items():
            (tmp_path / "given" / name).unlink()
            if content is not None:
                (tmp_path / "given" / name).write_bytes(content)
        with pytest.raises(WorkspaceError, match=told):
            CoordinatorFolder.init(
                tmp_path / "state", config(), now=now, authority=tmp_path / "given"
            )
        assert not list((tmp_path / "state").glob("certificates/*"))

    def test_another_address_than_it_has_is_refused(self, tmp_path: Path) -> None:
        CoordinatorFolder.init(tmp_path, config(), now=NOW)
        with pytest.raises(WorkspaceError, match="says otherwise than this command"):
            CoordinatorFolder.init(tmp_path, config(address="other.example"), now=NOW)

    @pytest.mark.parametrize("lost", ["ca.key", "ca.pem", "server.key", "server.pem"])
    def test_half_of_a_pair_is_never_made_anew(self, tmp_path: Path, lost: str) -> None:
        folder = CoordinatorFolder.init(tmp_path, config(), now=NOW)
        (tmp_path / "certificates" / lost).unlink()
        with pytest.raises(WorkspaceError, match="one is missing: restore it"):
            folder.renew(NOW)

    def test_a_key_of_another_certificate_is_refused(self, tmp_path: Path) -> None:
        folder = CoordinatorFolder.init(tmp_path, config(), now=NOW)
        folder.server_key.write_bytes(folder.ca_certificate.with_suffix(".key").read_bytes())
        with pytest.raises(WorkspaceError, match="the key is not the certificate's"):
            folder.check_certificate(NOW)

    def test_a_certificate_that_ends_soon_is_issued_again_for_the_same_key(
        self, tmp_path: Path
    ) -> None:
        folder = CoordinatorFolder.init(tmp_path, config(), now=NOW)
        key, first = folder.server_key.read_bytes(), folder.server_certificate.read_bytes()
        with pytest.raises(WorkspaceError, match="valid from 2026-03-01 to 2027-04-02"):
            folder.check_certificate(NOW + timedelta(days=400))
        folder.renew(NOW + timedelta(days=366))
        assert folder.server_certificate.read_bytes() == first
        folder.renew(NOW + timedelta(days=368))
        assert folder.server_certificate.read_bytes() != first
        assert folder.server_key.read_bytes() == key
        folder.check_certificate(NOW + timedelta(days=400))

    @pytest.mark.parametrize(
        "written",
        [
            "",
            "address =",
            'address = "a:1"',
            "\xff",
            'address = "a:0"\nlisten = "b:2"',
            "party = 1",
        ],
    )
    def test_a_configuration_with_mistakes_says_where(self, tmp_path: Path, written: str) -> None:
        (tmp_path / "coordinator.toml").write_bytes(written.encode("latin-1"))
        with pytest.raises(WorkspaceError, match=r"coordinator\.toml"):
            CoordinatorFolder.open(tmp_path)

    @pytest.mark.parametrize(
        ("address", "full"),
        [("a.example", "a.example:9091"), ("a.example:1", "a.example:1"), ("[::1]:7", "[::1]:7")],
    )
    def test_an_address_may_lack_its_port(self, address: str, full: str) -> None:
        made = config(address=address)
        assert made.address == full
        assert made.listen == f"0.0.0.0:{full.rpartition(':')[2]}"

    @pytest.mark.parametrize("address", ["", "a b", "https://a:1", "a:1:2", "a:99999", "::1"])
    def test_an_address_that_is_none_is_refused(self, address: str) -> None:
        with pytest.raises(WorkspaceError, match="HOST:PORT"):
            config(address=address)

    def test_one_process_serves_it(self, tmp_path: Path) -> None:
        folder = CoordinatorFolder.init(tmp_path, config(), now=NOW)
        assert not folder.is_served
        with folder.served():
            assert folder.is_served
            with (
                pytest.raises(WorkspaceError, match="is served by another process"),
                folder.served(),
            ):
                raise AssertionError("two at once")
        with folder.served():
            assert folder.is_served


class TestCertificates:
    def test_it_is_what_a_client_takes_for_its_host_and_time_and_no_other(self) -> None:
        authority = issue_authority(NOW)
        server = issue_server(authority, ["coordinator.example"], NOW, key=new_key())
        verify(server, authority, "coordinator.example", NOW)
        for root, host, now in (
            (issue_authority(NOW), "coordinator.example", NOW),
            (authority, "other.example", NOW),
            (authority, "coordinator.example", NOW + timedelta(days=398)),
        ):
            with pytest.raises(VerificationError):
                verify(server, root, host, now)

    @pytest.mark.parametrize("named", [None, b"a name of its owner's own"])
    def test_whoever_made_the_authority_a_client_takes_it_as_long_as_that_lasts(
        self, tmp_path: Path, named: bytes | None
    ) -> None:
        now = utc_now()  # by which OpenSSL goes
        made = company_authority(begins=now - timedelta(days=1), days=21, named=named)
        given = read_authority(made.certificate_pem, made.key_pem, now, ["a.example"], source="x")
        server = issue_server(given, ["a.example"], now, key=new_key())
        assert server.ends == made.ends
        assert believed(tmp_path, server, given, "a.example") == server.certificate
        with pytest.raises(ssl.SSLError):
            believed(tmp_path, server, issue_authority(now), "a.example")

    @pytest.mark.parametrize(
        ("without", "constraints", "told"),
        [
            ({"usage"}, None, "key usage keyCertSign"),
            ({"identifier"}, None, "a subject key identifier"),
            (set(), ["a.example"], "permit localhost, 127.0.0.1 and ::1 too"),
            (set(), ["b.example", "localhost"], "take no certificate for a.example"),
        ],
    )
    def test_an_authority_by_which_nodes_would_take_nothing_is_refused(
        self, tmp_path: Path, without: set[str], constraints: list[str] | None, told: str
    ) -> None:
        now = utc_now()
        begins = now - timedelta(days=1)
        made = company_authority(begins=begins, without=without, constraints=constraints)
        with pytest.raises(WorkspaceError, match=told):
            read_authority(made.certificate_pem, made.key_pem, now, ["a.example"], source="x")
        server = issue_server(made, ["a.example"], now, key=new_key())
        with pytest.raises(ssl.SSLError):
            believed(tmp_path, server, made, "a.example")

    def test_names_that_an_authority_is_bound_to_may_be_those_that_are_needed(self) -> None:
        made = company_authority(constraints=["a.example", "localhost", "127.0.0.1", "::1"])
        found = read_authority(made.certificate_pem, made.key_pem, NOW, ["a.example"], source="x")
        assert found.certificate == made.certificate

    def test_a_key_that_is_of_no_elliptic_curve_is_called_so(self) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        with pytest.raises(WorkspaceError, match="expected a key of an elliptic curve"):
            read_authority(issue_authority(NOW).certificate_pem, pem, NOW, ["a.x"], source="x")

    def test_a_server_vouches_for_nobody_and_serves_only(self) -> None:
        server = issue_server(issue_authority(NOW), ["a.example"], NOW, key=new_key())
        found = server.certificate.extensions
        assert not found.get_extension_for_class(x509.BasicConstraints).value.ca
        usage = found.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]


# -------------------------------------------------------------------------------------- tokens


class TestTokens:
    def test_a_token_opens_what_its_role_does_and_is_not_kept(self, tmp_path: Path) -> None:
        book = TokenBook(tmp_path / "tokens.json")
        token = book.add("alice", OperatorRole.OPERATOR, now=NOW)
        assert book.operator(token, now=NOW) == Operator("alice", OperatorRole.OPERATOR)
        assert token.removeprefix("comity-") not in (tmp_path / "tokens.json").read_text()
        assert "operator" in (tmp_path / "tokens.json").read_text()

    def test_it_opens_nothing_once_it_is_revoked_or_expired(self, tmp_path: Path) -> None:
        book = TokenBook(tmp_path / "tokens.json")
        alice = book.add("alice", OperatorRole.VIEWER, now=NOW, expires=LATER)
        bob = book.add("bob", OperatorRole.VIEWER, now=NOW)
        assert book.operator(alice, now=LATER - timedelta(seconds=1)) is not None
        assert book.operator(alice, now=LATER) is None
        book.revoke("bob")
        assert book.operator(bob, now=NOW) is None
        assert [one.name for one in book.all()] == ["alice"]

    def test_what_cannot_be_is_refused(self, tmp_path: Path) -> None:
        book = TokenBook(tmp_path / "tokens.json")
        book.add("alice", OperatorRole.VIEWER, now=NOW)
        with pytest.raises(WorkspaceError, match="alice has a token already"):
            book.add("alice", OperatorRole.ADMIN, now=NOW)
        with pytest.raises(WorkspaceError, match="bob has no token: alice has"):
            book.revoke("bob")
        with pytest.raises(WorkspaceError, match="token: name"):
            book.add("Alice Liddell", OperatorRole.ADMIN, now=NOW)
        with pytest.raises(WorkspaceError, match="expires later than now"):
            book.add("carol", OperatorRole.ADMIN, now=NOW, expires=NOW)
        (tmp_path / "tokens.json").write_text("[]x")
        with pytest.raises(WorkspaceError, match=r"tokens\.json"):
            book.all()

    @given(text=st.text(max_size=80) | st.from_regex(r"comity-[0-9a-f]{64}", fullmatch=True))
    @settings(max_examples=15)
    def test_nothing_else_is_a_token(
        self, tmp_path_factory: pytest.TempPathFactory, text: str
    ) -> None:
        book = TokenBook(tmp_path_factory.getbasetemp() / "other-tokens.json")
        if not book.all():
            book.add("alice", OperatorRole.ADMIN, now=NOW)
        assert book.operator(text, now=NOW) is None

    def test_roles_are_ordered(self) -> None:
        may = {(one, other) for one in OperatorRole for other in OperatorRole if one.may(other)}
        assert may == set(itertools.combinations_with_replacement(reversed(OperatorRole), 2))

    def test_commands_show_a_token_once(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def comity(*arguments: str) -> tuple[int, str]:
            with pytest.raises(SystemExit) as left:
                cli.main(["coordinator", *arguments])
            return int(str(left.value.code)), capsys.readouterr().out

        where = ["--config", str(tmp_path)]
        assert comity("init", str(tmp_path), "--address", "a.example", "--json")[0] == 0
        code, token = comity("token", "add", "alice", "--role", "viewer", *where)
        assert code == 0
        book = TokenBook(tmp_path / "tokens.json")
        found = book.operator(token.strip(), now=datetime.now(UTC))
        assert found == Operator("alice", OperatorRole.VIEWER)
        code, listed = comity("token", "list", *where, "--json")
        assert [one["name"] for one in json.loads(listed)] == ["alice"]
        assert "digest" not in listed
        assert comity("token", "revoke", "alice", *where)[0] == 0
        file = tmp_path / "tokens.json" / "alice.token"  # below what is no folder
        lost = ("token", "add", "alice", "--role", "viewer", "--output", str(file))
        assert comity(*lost, *where)[0] == 2
        assert book.all() == ()
        file = tmp_path / "alice.token"
        asked = ("token", "add", "alice", "--role", "viewer", "--output", str(file))
        assert comity(*asked, "--config", str(tmp_path / "none"))[0] == 2
        assert not file.exists()
        code, told = comity(*asked, *where)
        token = file.read_text().strip()
        assert book.operator(token, now=datetime.now(UTC)) == found
        assert (code, file.stat().st_mode & 0o777, token in told) == (0, 0o600, False)
        other = ("token", "add", "bob", "--role", "viewer", "--output", str(file))
        assert comity(*other, *where)[0] == 2  # alice's token is in it, and nowhere else
        assert (file.read_text().strip(), len(book.all())) == (token, 1)
        assert comity("token", "revoke", "alice", *where)[0] == 0
        assert comity("token", "revoke", "alice", *where)[0] == 2
        assert comity("token", "list", *where) == (0, "nobody has a token\n")


# ---------------------------------------------------------------------------------------- runs

PATHS: Mapping[RunState, tuple[RunState, ...]] = {
    RunState.QUEUED: (),
    RunState.RUNNING: (RunState.RUNNING,),
    RunState.CANCELLING: (RunState.RUNNING, RunState.CANCELLING),
    RunState.STOPPED: (RunState.RUNNING, RunState.STOPPED),
    RunState.CANCELLED: (RunState.CANCELLED,),
    RunState.DONE: (RunState.RUNNING, RunState.DONE),
}
"""How a run that waits comes to each state."""


def run_in(journal: RunJournal, state: RunState) -> int:
    number = journal.submit([f"job-{state}"], by="alice").number
    for step in PATHS[state]:
        journal.change(number, step, by="bob", told="so")
    return number


class TestJournal:
    ALLOWED = frozenset(
        {
            ("queued", "running"), ("queued", "cancelled"),
            ("running", "cancelling"), ("running", "stopped"), ("running", "done"),
            ("cancelling", "cancelled"), ("cancelling", "stopped"), ("cancelling", "done"),
            ("stopped", "queued"), ("cancelled", "queued"),
        }
    )  # fmt: skip

    @pytest.mark.parametrize("before", RunState)
    @pytest.mark.parametrize("after", RunState)
    def test_every_pair_of_states(self, tmp_path: Path, before: RunState, after: RunState) -> None:
        journal = RunJournal(tmp_path, clock=lambda: NOW)
        number = run_in(journal, before)
        kept = journal.run(number)
        if (str(before), str(after)) in self.ALLOWED:
            journal.change(number, after, by="carol", told="why")
            run = RunJournal(tmp_path).run(number)
            assert run.steps == (*kept.steps, RunStep(state=after, at=NOW, by="carol", told="why"))
        else:
            with pytest.raises(RunStateError, match=f"is {before} and cannot become {after}"):
                journal.change(number, after, by="carol")
            assert journal.run(number) == kept

    def test_the_states_are_all_there_are(self) -> None:
        assert NEXT_STATES.keys() == set(RunState)
        assert {(str(a), str(b)) for a, after in NEXT_STATES.items() for b in after} == self.ALLOWED

    @pytest.mark.parametrize("state", RunState)
    def test_an_order_is_another_runs_only_while_that_goes_on(
        self, tmp_path: Path, state: RunState
    ) -> None:
        """What is ordered while the same is being cancelled would else never run."""
        journal = RunJournal(tmp_path)
        number = run_in(journal, state)
        asked = journal.submit(journal.run(number).jobs, by="carol")
        assert (asked.number == number) is (state in {RunState.QUEUED, RunState.RUNNING})
        assert not asked.state.is_over

    @pytest.mark.parametrize("state", RunState)
    def test_cancel_and_resume_from_every_state(self, tmp_path: Path, state: RunState) -> None:
        journal = RunJournal(tmp_path)
        cancelled = {
            RunState.QUEUED: RunState.CANCELLED,
            RunState.RUNNING: RunState.CANCELLING,
            RunState.CANCELLING: RunState.CANCELLING,
        }
        number = run_in(journal, state)
        if state in cancelled:
            assert journal.cancel(number, by="carol").state is cancelled[state]
        else:
            with pytest.raises(RunStateError):
                journal.cancel(number, by="carol")
        other = run_in(RunJournal(tmp_path / "other"), state)
        if state in {RunState.STOPPED, RunState.CANCELLED}:
            resumed = RunJournal(tmp_path / "other").resume(other, by="carol")
            assert resumed.state is RunState.QUEUED
        else:
            with pytest.raises(RunStateError):
                RunJournal(tmp_path / "other").resume(other, by="carol")

    def test_the_same_jobs_are_not_queued_twice_unless_they_are_over(self, tmp_path: Path) -> None:
        journal = RunJournal(tmp_path)
        first = journal.submit(["find"], by="alice")
        assert journal.submit(["find"], by="bob") == first
        assert journal.submit([], by="bob").number == 2
        journal.cancel(first.number, by="alice")
        assert journal.submit(["find"], by="bob").number == 3
        assert [one.number for one in journal.all()] == [1, 2, 3]

    @pytest.mark.parametrize("state", RunState)
    def test_an_attempt_is_wanted_while_it_runs(self, tmp_path: Path, state: RunState) -> None:
        journal = RunJournal(tmp_path)
        number = run_in(journal, state)
        if state is RunState.RUNNING:
            journal.check_wanted(number, 1)
        else:
            with pytest.raises(RunCancelledError):
                journal.check_wanted(number, 1)

    def test_a_process_of_an_earlier_attempt_has_no_say(self, tmp_path: Path) -> None:
        journal = RunJournal(tmp_path)
        number = run_in(journal, RunState.STOPPED)
        journal.resume(number, by="alice")
        journal.change(number, RunState.RUNNING, by="coordinator")
        journal.finish(number, 1, RunState.DONE, told="")
        assert journal.run(number).state is RunState.RUNNING
        with pytest.raises(RunCancelledError, match="attempt 1 at run 1 was given up"):
            journal.check_wanted(number, 1)
        journal.check_wanted(number, 2)
        journal.finish(number, 2, RunState.DONE, told="")
        journal.finish(number, 2, RunState.STOPPED, told="too late")
        assert journal.run(number).state is RunState.DONE

    @given(
        told=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), max_size=6)
    )
    @settings(max_examples=15)
    def test_lines_come_back_whole_from_any_place(
        self, tmp_path_factory: pytest.TempPathFactory, told: list[str]
    ) -> None:
        journal = RunJournal(tmp_path_factory.mktemp("lines"))
        number = journal.submit([], by="alice").number
        after, found = 0, []
        for one in told:
            journal.tell(number, one)
            lines = journal.lines(number, after=after)
            assert len(lines.lines) == 1
            found += lines.lines
            after = lines.after
        assert journal.lines(number).lines == tuple(found)
        with (journal.folder(number) / "lines.log").open("a") as file:
            file.write("half a li")
        assert journal.lines(number, after=after).lines == ()

    def test_what_another_process_changed_is_seen(self, tmp_path: Path) -> None:
        journal, other = RunJournal(tmp_path), RunJournal(tmp_path)
        number = journal.submit([], by="alice").number
        for state in (RunState.RUNNING, RunState.STOPPED, RunState.QUEUED, RunState.RUNNING):
            other.change(number, state, by="bob")
            assert journal.run(number) == other.run(number)
            assert journal.all()[0].state is state

    def test_each_stop_and_each_time_that_it_went_on_is_a_line(self, tmp_path: Path) -> None:
        journal = RunJournal(tmp_path, clock=lambda: NOW)
        number = run_in(journal, RunState.RUNNING)
        at = f"{NOW:%Y-%m-%d %H:%M:%S} UTC"
        assert journal.lines(number).lines == ()
        journal.cancel(number, by="carol")
        journal.tell(number, "cancelled: as the ServerApp says itself")
        journal.finish(number, 1, RunState.CANCELLED, told="")
        journal.resume(number, by="dave")
        journal.change(number, RunState.RUNNING, by="coordinator")
        journal.change(number, RunState.STOPPED, by="coordinator", told="its process died")
        journal.resume(number, by="dave")
        journal.cancel(number, by="carol")
        assert journal.lines(number).lines == (
            f"to be cancelled by carol, {at}",
            "cancelled: as the ServerApp says itself",
            f"resumed by dave, {at}",
            f"stopped, {at}: its process died",
            f"resumed by dave, {at}",
            f"cancelled by carol, {at}",
        )

    def test_a_stop_that_cannot_be_written_down_yet_is_told_once(self, tmp_path: Path) -> None:
        journal = RunJournal(tmp_path)
        number = run_in(journal, RunState.RUNNING)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        room = (journal.folder(number) / "run.json").stat().st_size  # lines take less
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
        try:
            for _ in range(3):  # as a coordinator tries again at every look
                with pytest.raises(WorkspaceError):
                    journal.change(number, RunState.STOPPED, by="coordinator", told="it died")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        journal.change(number, RunState.STOPPED, by="coordinator", told="it died")
        (line,) = journal.lines(number).lines
        assert line.startswith("stopped, ")
        journal.resume(number, by="dave")
        journal.change(number, RunState.RUNNING, by="coordinator")
        journal.change(number, RunState.STOPPED, by="coordinator", told="it died")
        assert len(journal.lines(number).lines) == 3

    def test_how_long_it_waits_stays_with_a_run(self, tmp_path: Path) -> None:
        journal = RunJournal(tmp_path)
        first = journal.submit([], by="alice", patience_seconds=5)
        assert journal.submit([], by="bob", patience_seconds=9) == first  # it goes on as it is
        journal.cancel(first.number, by="alice")
        assert RunJournal(tmp_path).resume(first.number, by="alice").patience_seconds == 5
        journal.cancel(first.number, by="alice")
        second = journal.submit([], by="alice")
        assert second.patience_seconds is None
        written = json.loads((journal.folder(second.number) / "run.json").read_bytes())
        assert "patience_seconds" not in written  # as earlier versions wrote it

    def test_a_damaged_file_says_which(self, tmp_path: Path) -> None:
        journal = RunJournal(tmp_path)
        number = journal.submit([], by="alice").number
        (journal.folder(number) / "run.json").write_text("{")
        with pytest.raises(WorkspaceError, match=r"000001/run\.json"):
            journal.all()
        with pytest.raises(RunStateError, match="there is no run 7"):
            journal.run(7)


class Engine:
    """An engine whose runs end when they are told to."""

    def __init__(self) -> None:
        self.started: list[Mapping[str, str | float]] = []
        self.ended: set[int] = set()
        self.breaks = False

    def start(self, config: Mapping[str, str | float]) -> int:
        if self.breaks:
            raise WorkspaceError("no room")
        self.started.append(config)
        return len(self.started)

    def has_ended(self, run: int) -> bool:
        return run in self.ended

    def stop_all(self) -> None:
        self.ended |= set(range(1, len(self.started) + 1))


class TestDispatcher:
    @pytest.fixture
    def journal(self, tmp_path: Path) -> RunJournal:
        return RunJournal(tmp_path / "runs")

    def dispatcher(self, journal: RunJournal, engine: Engine) -> Dispatcher:
        party = Path("/srv/party")
        return Dispatcher(journal, engine, party=party, deadline_seconds=5, tell=lambda _: None)

    def test_one_runs_at_a_time_the_oldest_first(self, journal: RunJournal) -> None:
        engine = Engine()
        dispatcher = self.dispatcher(journal, engine)
        first, second = (journal.submit([name], by="alice").number for name in ("one", "two"))
        for _ in range(3):
            dispatcher.look()
        assert [journal.run(one).state for one in (first, second)] == ["running", "queued"]
        (config,) = engine.started
        assert config == {
            "coordinator": "/srv/party",
            "deadline-seconds": 5,
            "run": str(journal.folder(first)),
        }
        journal.change(first, RunState.DONE, by="coordinator")
        dispatcher.look()
        assert journal.run(second).state is RunState.QUEUED  # its process has not ended
        engine.ended.add(1)
        dispatcher.look()
        dispatcher.look()
        assert journal.run(second).state is RunState.RUNNING

    @pytest.mark.parametrize(
        ("cancel", "state"), [(False, RunState.STOPPED), (True, RunState.CANCELLED)]
    )
    def test_a_process_that_ends_without_a_word(
        self, journal: RunJournal, *, cancel: bool, state: RunState
    ) -> None:
        engine = Engine()
        dispatcher = self.dispatcher(journal, engine)
        number = journal.submit([], by="alice").number
        dispatcher.look()
        if cancel:
            journal.cancel(number, by="alice")
        engine.ended.add(1)
        dispatcher.look()
        assert journal.run(number).state is state

    @pytest.mark.parametrize("state", RunState)
    def test_what_an_earlier_process_left_at_work_is_stopped(
        self, journal: RunJournal, state: RunState
    ) -> None:
        number = run_in(journal, state)
        self.dispatcher(journal, Engine()).recover()
        stopped = {
            RunState.RUNNING: RunState.STOPPED,
            RunState.CANCELLING: RunState.CANCELLED,
        }
        assert journal.run(number).state is stopped.get(state, state)

    def test_who_is_absent_for_its_version_is_told_of_once_and_is_a_line_of_the_audit(
        self, journal: RunJournal
    ) -> None:
        engine, told, audit = Engine(), list[str](), list[Mapping[str, object]]()
        dispatcher = Dispatcher(
            *(journal, engine),
            party=Path("/srv/party"),
            deadline_seconds=5,
            tell=told.append,
            audit=audit.append,
        )
        number = journal.submit([], by="alice").number
        for attempt in (1, 2):
            dispatcher.look()
            for _ in range(2):
                journal.note_absent(number, attempt, "courier", told="takes courier for absent")
                dispatcher.look()
            journal.change(number, RunState.STOPPED, by="coordinator")
            engine.ended.add(attempt)
            dispatcher.look()
            assert [one.attempt for one in journal.run(number).absent_now] == [attempt]
            journal.resume(number, by="alice")
        line = {"run": number, "absent": "courier", "told": "takes courier for absent"}
        assert audit == [line, line]
        noted = [one for one in told if isinstance(one, Notice) and "absent" in one]
        assert [(one.event, one.fields["party"]) for one in noted] == 2 * [
            (Event.PARTY_OF_ANOTHER_VERSION, "courier")
        ]
        assert journal.run(number).absent_now == ()
        assert len(RunJournal(journal.path).run(number).absent) == 2

    def test_a_run_that_the_engine_does_not_start_is_stopped(self, journal: RunJournal) -> None:
        engine = Engine()
        engine.breaks = True
        number = journal.submit([], by="alice").number
        self.dispatcher(journal, engine).look()
        run = journal.run(number)
        assert run.state is RunState.STOPPED
        assert "Flower did not start it (WorkspaceError)" in run.told

    def test_a_run_that_could_not_be_said_to_have_stopped_is_stopped_once_it_can(
        self, journal: RunJournal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = Engine()
        dispatcher = self.dispatcher(journal, engine)
        number, other = (journal.submit([name], by="alice").number for name in ("one", "two"))
        change = journal.change

        def change_but_for_stopped(one: int, state: RunState, **words: str) -> Run:
            if state is RunState.STOPPED:
                raise WorkspaceError("no room")
            return change(one, state, **words)

        engine.breaks = True
        with monkeypatch.context() as patch:
            patch.setattr(journal, "change", change_but_for_stopped)
            for _ in range(2):
                with pytest.raises(WorkspaceError, match="no room"):
                    dispatcher.look()
        engine.breaks = False
        dispatcher.look()
        assert journal.run(number).state is RunState.STOPPED
        assert journal.run(other).state is RunState.RUNNING


def begin(party: PartyFolder, job: JobSpec) -> None:
    """Have the coordinator's log say that a job was begun."""
    with party.open_log() as log:
        gate = Gate(party, party.agreement(), log, None, clock=lambda: NOW)
        gate.settle()
        gate.note(JobStarted, job.name, computation=job.kind)


class TestOrders:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> CoordinatorFolder:
        folder = CoordinatorFolder.init(tmp_path / "state", config(), now=NOW)
        World.make(tmp_path / "world").folder("coordinator").path.rename(folder.party)
        return folder

    def test_a_job_is_listed_once_and_another_of_its_name_refused(
        self, folder: CoordinatorFolder
    ) -> None:
        runs = LocalRuns(folder, by="alice")
        assert runs.submit(Order(job=MATCH)).jobs == ("find",)
        runs.submit(Order(job=MATCH))
        listed = json.loads((folder.party / "jobs.json").read_bytes())
        assert [one["name"] for one in listed].count("find") == 1
        other = TRAIN.model_copy(update={"name": "find"})
        with pytest.raises(WorkspaceError, match=r"'find' is listed in .* with other content"):
            runs.submit(Order(job=other))

    def test_an_order_waits_until_another_is_listed(self, folder: CoordinatorFolder) -> None:
        party, other = PartyFolder(folder.party), MATCH.model_copy(update={"name": "other"})
        runs = LocalRuns(folder, by="alice")
        with (
            ThreadPoolExecutor(1) as pool,
            (party.path / "jobs.lock").open("w", encoding="ascii") as file,
        ):
            fcntl.flock(file, fcntl.LOCK_EX)
            ordered = pool.submit(runs.submit, Order(job=MATCH))
            with pytest.raises(TimeoutError):
                ordered.result(0.5)
            write_jobs(party, [other])
            fcntl.flock(file, fcntl.LOCK_UN)
            ordered.result()
        assert read_jobs(party) == (other, MATCH)

    def test_a_job_that_could_never_run_is_not_listed_and_every_mistake_told(
        self, folder: CoordinatorFolder
    ) -> None:
        runs = LocalRuns(folder, by="alice")
        before = (folder.party / "jobs.json").read_bytes()
        greedy = EXPAND.model_copy(update={"name": "best-3", "share": 0.9, "train": "nomodel"})
        with pytest.raises(WorkspaceError, match="'best-3': 2 mistakes") as told:
            runs.submit(Order(job=greedy))
        assert "\n  train: found 'nomodel', which is no train job listed before" in str(told.value)
        assert "expand.maximum_share" in str(told.value)
        assert (folder.party / "jobs.json").read_bytes() == before
        assert runs.all() == ()
        runs.submit(Order(job=greedy.model_copy(update={"share": 0.2, "train": "model"})))

    def test_a_job_whose_model_is_out_of_use_is_not_listed(self, folder: CoordinatorFolder) -> None:
        runs, party = LocalRuns(folder, by="alice"), PartyFolder(folder.party)
        write_jobs(party, [MATCH, TRAIN])
        party.retired(TRAIN.name).parent.mkdir()
        party.retired(TRAIN.name).touch()
        with pytest.raises(
            WorkspaceError, match="'best': 1 mistake, and it was not listed"
        ) as told:
            runs.submit(Order(job=EXPAND))
        assert "the model of training 'model' is retired, since somebody" in str(told.value)
        assert "train it again (erasure)" in str(told.value)
        assert read_jobs(party) == (MATCH, TRAIN)

    def test_a_job_that_charged_nothing_is_taken_out(
        self, folder: CoordinatorFolder, capsys: pytest.CaptureFixture[str]
    ) -> None:
        runs, party = LocalRuns(folder, by="alice"), PartyFolder(folder.party)
        write_jobs(party, [MATCH, TRAIN, EXPAND])

        with pytest.raises(WorkspaceError, match="best builds on job 'model': cancel that first"):
            runs.drop("model")
        runs.submit(Order(job=EXPAND))
        with pytest.raises(RunStateError, match="run 1 is queued and may run job 'best'"):
            runs.drop("best")
        RunJournal(folder.runs).change(1, RunState.RUNNING, by="coordinator")
        with pytest.raises(RunStateError, match="run 1 is running and may run job 'model'"):
            runs.drop("model")
        RunJournal(folder.runs).finish(1, 1, RunState.STOPPED, told="")
        begin(party, EXPAND)  # which charges nobody, as no count is agreed
        for arguments, code in (
            (["--job", "best", "--json"], 0),
            (["--job", "best"], 2),
            (["1", "--job", "model"], 2),
            (["--job", "model"], 0),
        ):
            with pytest.raises(SystemExit) as left:
                cli.main(["cancel", *arguments, "--config", str(folder.path)])
            assert left.value.code == code
        assert EXPAND.model_dump_json() in "".join(capsys.readouterr().out.split())
        assert read_jobs(party) == (MATCH,)
        best, model = map(TakenOut.model_validate_json, folder.taken_out.read_text().splitlines())
        assert (best.job, best.by, best.why) == ("best", "local", "nobody was charged for it")
        assert best.at <= model.at <= utc_now()
        begin(party, MATCH)
        with pytest.raises(WorkspaceError, match="'find' has begun, and parties may have been"):
            runs.drop("find")
        party.ended("find").parent.mkdir(parents=True)
        party.ended("find").touch()
        with pytest.raises(WorkspaceError, match="'find' has ended"):
            runs.drop("find")
        assert read_jobs(party) == (MATCH,)

    def test_a_scoring_that_can_end_no_more_is_taken_out_though_it_was_charged_for(
        self, tmp_path: Path
    ) -> None:
        folder = CoordinatorFolder.init(tmp_path / "state", config(), now=NOW)
        world = World.make(tmp_path / "world", expand={"count_epsilon": 0.5})
        world.folder("coordinator").path.rename(folder.party)
        runs, party = LocalRuns(folder, by="alice"), PartyFolder(folder.party)
        write_jobs(party, [MATCH, TRAIN, EXPAND])
        begin(party, EXPAND)
        with pytest.raises(WorkspaceError, match="'best' has begun, and parties may have been"):
            runs.drop("best")
        party.retired(TRAIN.name).parent.mkdir()
        party.retired(TRAIN.name).touch()
        assert runs.drop("best") == EXPAND
        assert read_jobs(party) == (MATCH, TRAIN)
        taken = TakenOut.model_validate_json(folder.taken_out.read_text())
        assert (taken.job, taken.by) == ("best", "alice")
        assert taken.why.startswith("the model of training 'model' is retired")

    def test_a_job_stays_listed_if_nobody_can_be_told_who_took_it_out(
        self, folder: CoordinatorFolder
    ) -> None:
        party = PartyFolder(folder.party)
        write_jobs(party, [MATCH])
        folder.taken_out.mkdir()
        with pytest.raises(WorkspaceError, match="'find' stays listed"):
            LocalRuns(folder, by="alice").drop("find")
        assert read_jobs(party) == (MATCH,)

    def test_who_took_a_job_out_is_on_disk_before_it_goes(
        self, folder: CoordinatorFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        flushed, flush, party = [], os.fsync, PartyFolder(folder.party)
        write_jobs(party, [MATCH])

        def fsync(descriptor: int) -> None:
            flushed.append(os.fstat(descriptor).st_ino)
            flush(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        LocalRuns(folder, by="alice").drop("find")
        at = [flushed.index(one.stat().st_ino) for one in (folder.taken_out, folder.path)]
        assert at[0] < at[1] < flushed.index(party.path.stat().st_ino)

    def test_no_run_begins_while_a_job_is_taken_out(self, folder: CoordinatorFolder) -> None:
        runs, party, journal = (
            LocalRuns(folder, by="alice"),
            PartyFolder(folder.party),
            RunJournal(folder.runs),
        )
        write_jobs(party, [MATCH, TRAIN])
        every = runs.submit(Order()).number  # which reads the list once it runs
        with (
            ThreadPoolExecutor(2) as pool,
            (party.path / "jobs.lock").open("w", encoding="ascii") as file,
        ):
            fcntl.flock(file, fcntl.LOCK_EX)
            dropped = pool.submit(runs.drop, "model")
            with pytest.raises(TimeoutError):
                dropped.result(0.5)
            begun = pool.submit(journal.change, every, RunState.RUNNING, by="coordinator")
            with pytest.raises(TimeoutError):
                begun.result(0.5)
            fcntl.flock(file, fcntl.LOCK_UN)
            assert dropped.result() == TRAIN
            assert begun.result().state is RunState.RUNNING
        assert read_jobs(party) == (MATCH,)

    def test_commands_answer_programs_with_the_run(
        self, folder: CoordinatorFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "match.toml"
        file.write_text('kind = "match"\nname = "find"\nmemory_limit = "1GiB"\n')
        for arguments, state in (
            (["run", str(file), "--detach"], RunState.QUEUED),
            (["cancel"], RunState.CANCELLED),
            (["resume", "--detach"], RunState.QUEUED),
        ):
            with pytest.raises(SystemExit) as left:
                cli.main([*arguments, "--json", "--config", str(folder.path)])
            assert left.value.code == 0
            run = Run.model_validate_json(capsys.readouterr().out)
            assert (run.number, run.state) == (1, state)
        with pytest.raises(SystemExit):
            cli.main(["status", "--json", "--config", str(folder.path)])
        assert json.loads(capsys.readouterr().out) == {
            "runs": [run.model_dump(mode="json")],
            "models": [],
            "refused": {},
        }
        with pytest.raises(SystemExit):
            cli.main(["status", "1", "--json", "--config", str(folder.path)])
        assert json.loads(capsys.readouterr().out) == {"runs": [run.model_dump(mode="json")]}
        with pytest.raises(SystemExit):
            cli.main(["logs", "--json", "--config", str(folder.path)])
        cancelled, resumed = json.loads(capsys.readouterr().out)
        assert cancelled.startswith("cancelled by local, ")
        assert resumed.startswith("resumed by local, ")

    def test_before_any_run_there_is_nothing_to_tell(
        self, folder: CoordinatorFolder, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for command, code in (("logs", 0), ("status", 0), ("cancel", 2), ("resume", 2)):
            with pytest.raises(SystemExit) as left:
                cli.main([command, "--config", str(folder.path)])
            assert left.value.code == code
            said = capsys.readouterr()
            assert "nothing was run yet" in (said.err if code else said.out)
        with pytest.raises(SystemExit):
            cli.main(["logs", "--json", "--config", str(folder.path)])
        assert json.loads(capsys.readouterr().out) == []

    def test_a_run_may_wait_as_long_as_somebody_says_and_for_the_run_before(
        self, folder: CoordinatorFolder, capsys: pytest.CaptureFixture[str]
    ) -> None:
        LocalRuns(folder, by="alice").submit(Order(job=MATCH))
        command = ["run", "--all", "--detach", "--config", str(folder.path)]
        with pytest.raises(SystemExit) as left:
            cli.main([*command, "--patience", "5"])
        assert left.value.code == 0
        assert "run 2 waits until run 1 is over" in capsys.readouterr().err
        assert LocalRuns(folder, by="alice").run(2).patience_seconds == 5
        where = ["--config", str(folder.path)]
        for told, seconds in (([], 5), (["--patience", "9"], 9), ([], 9)):
            for arguments in (["cancel", "2"], ["resume", "2", "--detach", *told]):
                with pytest.raises(SystemExit) as left:
                    cli.main([*arguments, *where])
                assert left.value.code == 0
            assert LocalRuns(folder, by="alice").run(2).patience_seconds == seconds
        for wrong in ("0", "604801", "1.5", "nan"):
            with pytest.raises(SystemExit) as left:
                cli.main([*command, "--patience", wrong])
            assert left.value.code == 2

    def test_a_run_whose_coordinator_died_is_cancelled_when_that_starts_again(
        self, folder: CoordinatorFolder, capsys: pytest.CaptureFixture[str]
    ) -> None:
        journal = RunJournal(folder.runs)
        LocalRuns(folder, by="alice").submit(Order(job=MATCH))
        journal.change(1, RunState.RUNNING, by="coordinator")
        for _ in range(2):  # it waits for nobody, however often it is asked
            with pytest.raises(SystemExit) as left:
                cli.main(["cancel", "--config", str(folder.path)])
            assert left.value.code == 1
            told = "run 1 is cancelling: `comity coordinator up` cancels it when it starts\n"
            assert capsys.readouterr().out == told

    def test_a_run_whose_coordinator_died_is_said_to_have_ended(
        self, folder: CoordinatorFolder, capsys: pytest.CaptureFixture[str]
    ) -> None:
        runs, journal = LocalRuns(folder, by="alice"), RunJournal(folder.runs)
        number = runs.submit(Order(job=MATCH)).number
        ended = "ended with the coordinator's process, whose next start says `stopped`"

        def status() -> tuple[str, str]:
            with pytest.raises(SystemExit):
                cli.main(["status", "--config", str(folder.path)])
            told = capsys.readouterr()
            return told.out, " ".join(told.err.split())

        assert all(ended not in told for told in status())
        journal.change(number, RunState.RUNNING, by="coordinator")
        journal.tell(number, "waits for courier")
        out, err = status()
        assert f"find: {ended}\n" in out
        assert err.startswith("nobody serves this folder: ")
        assert err.endswith(f"; run 1 {ended}")
        with folder.served():
            out, err = status()
        assert ("find: waits for courier\n" in out, err) == (True, "")

    def test_a_folder_in_place_of_a_number_is_told_by_which_option_it_is_named(
        self, folder: CoordinatorFolder, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for command in ("status", "logs", "cancel", "resume"):
            with pytest.raises(SystemExit) as left:
                cli.main([command, str(folder.path)])
            assert left.value.code == 2
            assert "--config names a coordinator's folder" in capsys.readouterr().err

    def test_status_says_what_an_erasure_will_do_to_a_model_or_did(
        self, folder: CoordinatorFolder, capsys: pytest.CaptureFixture[str]
    ) -> None:
        party = PartyFolder(folder.party)
        write_jobs(party, [MATCH, TRAIN])

        def status() -> list[str]:
            with pytest.raises(SystemExit):
                cli.main(["status", "--config", str(folder.path)])
            return capsys.readouterr().out.splitlines()

        assert status() == ["nothing was run yet"]  # and no model is there
        ended = party.ended(TRAIN.name)
        ended.parent.mkdir(parents=True)
        ended.touch()
        line = status()[-1]
        assert line.startswith("model model is in use: one erasure of somebody in it retires it")
        party.retired(TRAIN.name).parent.mkdir()
        party.retired(TRAIN.name).touch()
        line = status()[-1]
        assert line.startswith("model model is retired: somebody whom it saw was erased, and the ")
        LocalRuns(folder, by="alice").submit(Order())
        agreed = (party.path / "agreement.json").read_bytes()
        for name, content in (("agreement", agreed[:-9]), ("agreement", agreed), ("jobs", b"x")):
            (party.path / f"{name}.json").write_bytes(content)
            run, *_, line = status()  # what is wrong elsewhere does not hide where runs stand
            assert "queued" in run
            untold = "where models stand and which calls were refused is not told: "
            assert line.startswith(untold) == (content != agreed)

    def test_status_shows_who_is_absent_for_its_version(
        self, folder: CoordinatorFolder, capsys: pytest.CaptureFixture[str]
    ) -> None:
        runs, journal = LocalRuns(folder, by="alice"), RunJournal(folder.runs)
        number = runs.submit(Order(job=MATCH)).number
        journal.change(number, RunState.RUNNING, by="coordinator")
        journal.note_absent(number, 1, "courier", told="takes courier for absent: update it")
        for arguments in (["status"], ["status", "--json"]):
            with pytest.raises(SystemExit):
                cli.main([*arguments, "--config", str(folder.path)])
        human, _, document = capsys.readouterr().out.partition("{\n")
        assert human.splitlines()[-1] == "      takes courier for absent: update it"
        (one,) = json.loads(f"{{{document}")["runs"]
        told = {"attempt": 1, "party": "courier", "told": "takes courier for absent: update it"}
        assert one["absent"] == [told]

    @pytest.mark.parametrize("as_json", [False, True])
    @pytest.mark.parametrize("told", ["", "stopped: refused by brand:  bring  more"], ids=len)
    def test_why_a_run_stopped_is_said_once(
        self,
        told: str,
        as_json: bool,
        folder: CoordinatorFolder,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """By its last line, or where it could tell nothing any more, by the command."""
        runs, journal = LocalRuns(folder, by="alice"), RunJournal(folder.runs)
        number = runs.submit(Order(job=MATCH)).number
        journal.change(number, RunState.RUNNING, by="coordinator")
        if told:
            journal.tell(number, told)
        why = "refused by brand:  bring  more"
        journal.finish(number, 1, RunState.STOPPED, told=why)
        with pytest.raises(click.exceptions.Exit) as left:
            run_commands._finish(runs, runs.run(number), detach=False, as_json=as_json)
        assert left.value.exit_code == 1
        said = capsys.readouterr()
        lines = said.err if as_json else said.out + said.err
        assert lines.count(why) == 1
        assert "run 1 is stopped" in said.err
        assert "comity resume 1 goes on with it" in said.err
        if as_json:
            assert Run.model_validate_json(said.out).told == why

    def test_a_file_holds_what_stands_under_jobs(self, tmp_path: Path) -> None:
        file = tmp_path / "match.toml"
        file.write_text('kind = "match"\nname = "find"\nmemory_limit = "1GiB"\n')
        assert read_order(file) == Order(job=MATCH)
        for text in ('kind = "match"', "kind", '[[jobs]]\nkind = "match"\nname = "find"'):
            file.write_text(text)
            with pytest.raises(CollaborationError, match=r"match\.toml: 1 mistake"):
                read_order(file)

    def test_everything_wrong_with_a_file_is_told_at_once(self, tmp_path: Path) -> None:
        file = tmp_path / "job.toml"
        file.write_text(
            'kind = "train"\nname = "x"\nmatch = "m"\nnoise = "distributed"\nsteps = 5\n'
            'rounds = -3\nlabels = "seeds-only"\nepsilom = 2.0\n'
        )
        with pytest.raises(CollaborationError) as told:
            read_order(file)
        assert told.value.mistakes == (
            "rounds: found -3; allowed: a whole number from 1 to 1,000",
            "epsilom: is not a known key; did you mean 'epsilon'?",
            "noise 'distributed' needs epsilon: add it",
            "noise 'distributed' needs delta: add it",
            "noise 'distributed' has no steps: leave it out",
            "labels 'seeds-only' take model 'logistic-regression' and noise 'local'",
        )

    def test_what_hangs_on_a_malformed_key_is_not_guessed_at(self, tmp_path: Path) -> None:
        file = tmp_path / "job.toml"
        file.write_text('kind = "train"\nname = "x"\nmatch = "m"\nnoise = "lots"\nsteps = 1\n')
        with pytest.raises(CollaborationError) as told:
            read_order(file)
        assert [one.partition(":")[0] for one in told.value.mistakes] == ["noise", "steps"]

    @pytest.mark.parametrize(
        ("text", "remedy"),
        [(None, "there is no such file"), ('[[jobs]]\nkind = "match"', "leave that line out")],
    )
    def test_a_file_that_is_no_job(self, text: str | None, remedy: str, tmp_path: Path) -> None:
        file = tmp_path / "job.toml"
        if text is not None:
            file.write_text(text)
        with pytest.raises(CollaborationError, match=remedy):
            read_order(file)


# ----------------------------------------------------------------------------------- listeners


async def everything(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that answers every call with its path."""
    body = scope["path"].encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


TOKENS = {str(role): Operator(str(role), role) for role in OperatorRole}


def client(app: ASGIApp, *, host: str = "127.0.0.1") -> TestClient:
    return TestClient(app, base_url="https://127.0.0.1", client=(host, 5000))


class TestControlListener:
    app = staticmethod(control_app(everything, everything, find_operator=TOKENS.get))

    @pytest.mark.parametrize("call", CONTROL_CALLS)
    @pytest.mark.parametrize("role", ["nobody", *OperatorRole])
    def test_every_call_with_every_role(self, call: str, role: str) -> None:
        answer = client(self.app).post(
            f"/v1/control/{call}", headers={"Authorization": f"Bearer {role}"}
        )
        needed = CONTROL_CALLS[call]
        if role == "nobody":
            assert answer.status_code == 401
        else:
            may = needed is not None and OperatorRole(role).may(needed)
            assert answer.status_code == (200 if may else 403)

    @pytest.mark.parametrize(
        "headers",
        [
            [],
            [("Authorization", "admin")],
            [("Authorization", "Basic admin")],
            [("Authorization", "Bearer ")],
            [("Authorization", "Bearer viewer"), ("Authorization", "Bearer admin")],
            [("Cookie", "admin")],
        ],
    )
    def test_a_token_is_shown_in_one_way(self, headers: list[tuple[str, str]]) -> None:
        answer = client(self.app).post("/v1/control/list-runs", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"

    @pytest.mark.parametrize(
        ("path", "host", "status"),
        [
            ("/v1/runtime/acquire-task", "127.0.0.1", 200),
            ("/v1/runtime/acquire-task", "::1", 200),
            ("/v1/runtime/acquire-task", "192.0.2.7", 403),
            ("/v1/runtime/create-task", "127.0.0.1", 404),
            ("/v1/runtime/responses", "127.0.0.1", 404),
            ("/v1/fleet/pull-messages", "127.0.0.1", 404),
            ("/v1/control/brand-new", "127.0.0.1", 401),
            ("/docs", "127.0.0.1", 404),
        ],
    )
    def test_the_rest(self, path: str, host: str, status: int) -> None:
        assert client(self.app, host=host).post(path).status_code == status

    def test_a_call_of_a_later_flower_is_nobodys(self) -> None:
        admin = {"Authorization": "Bearer admin"}
        answer = client(self.app).post("/v1/control/brand-new", headers=admin)
        assert answer.status_code == 403

    @pytest.mark.parametrize(("method", "needed"), [("GET", "viewer"), ("POST", "operator")])
    @pytest.mark.parametrize("role", OperatorRole)
    def test_runs_are_seen_by_all_and_steered_by_some(
        self, method: str, needed: str, role: OperatorRole
    ) -> None:
        answer = client(self.app).request(
            method, "/v1/comity/runs", headers={"Authorization": f"Bearer {role}"}
        )
        assert answer.status_code == (200 if role.may(OperatorRole(needed)) else 403)
        admin = {"Authorization": "Bearer admin"}
        assert client(self.app).put("/v1/comity/runs", headers=admin).status_code == 403


class TestPublicListener:
    ready = True

    @pytest.fixture
    def public(self) -> TestClient:
        app = public_app(everything, {"/v1/enrolment": everything}, ready=lambda: self.ready)
        return client(app)

    def test_nodes_calls_health_and_what_is_mounted(self, public: TestClient) -> None:
        for call in FLEET_CALLS:
            assert public.post(f"/v1/fleet/{call}", content=b"x").status_code == 200
        assert public.get("/health").text == "healthy"
        assert public.get("/ready").text == "ready"
        self.ready = False
        assert public.get("/ready").status_code == 503
        assert public.post("/v1/enrolment/join", content=bytes(1 << 20)).status_code == 200
        assert public.post("/v1/enrolment/join", content=bytes((1 << 20) + 1)).status_code == 413

    @pytest.mark.parametrize(
        "path", ["/v1/fleet/register-node", "/v1/control/list-runs", "/v1/enrolments", "/", "/v1"]
    )
    def test_nothing_else(self, public: TestClient, path: str) -> None:
        assert public.post(path).status_code == 404

    def test_lines_of_several_threads_are_all_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(refusals, "_FILE_BYTES", 2_000)
        monkeypatch.setattr(refusals, "_FILES", 99)
        audit = AuditFile(tmp_path / "audit.jsonl", clock=lambda: NOW)
        switch = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda number: audit.write({"number": number}), range(1_000)))
        finally:
            sys.setswitchinterval(switch)
        lines = [line for file in tmp_path.iterdir() for line in file.read_text().splitlines()]
        assert sorted(json.loads(line)["number"] for line in lines) == list(range(1_000))

    def test_refused_calls_leave_a_line_without_what_was_said(self, tmp_path: Path) -> None:
        audit = AuditFile(tmp_path / "audit.jsonl", clock=lambda: NOW)
        counts = list[str]()
        app = Refusals(
            TestControlListener.app, listener="control", audit=audit, count=counts.append
        )
        headers = {"Authorization": "Bearer viewer"}
        for secret in ("Bearer guessed", "Bearer viewer"):
            client(app).post("/v1/control/start-run", headers={"Authorization": secret})
        client(app).post("/v1/control/list-runs", headers=headers)
        client(app).post(f"/{'x' * 500}%0A?secret=1")
        lines = [json.loads(one) for one in (tmp_path / "audit.jsonl").read_text().splitlines()]
        assert [(one["status"], one["operator"]) for one in lines] == [
            (401, None),
            (403, "viewer"),
            (404, None),
        ]
        assert [one["reason"] for one in lines] == counts == ["token", "role", "call"]
        assert len(lines[-1]["path"]) == 120
        assert "guessed" not in (tmp_path / "audit.jsonl").read_text()


def test_a_machine_without_flowers_commands_is_named_with_the_remedy(tmp_path: Path) -> None:
    check_scripts(Path(sys.executable).parent)
    (tmp_path / "flower-superexec").touch()
    with pytest.raises(WorkspaceError, match=r"lacks flwr-serverapp, .* 'comity\[coordinator\]'"):
        check_scripts(tmp_path)


class TestControlApi:
    @pytest.fixture
    def calls(self, tmp_path: Path) -> Callable[..., tuple[int, object]]:
        folder = CoordinatorFolder.init(tmp_path / "state", config(), now=NOW)
        World.make(tmp_path / "world").folder("coordinator").path.rename(folder.party)
        app = control_app(everything, control_api(folder), find_operator=TOKENS.get)

        def call(method: str, path: str, content: str = "") -> tuple[int, object]:
            answer = client(app).request(
                method,
                f"/v1/comity{path}",
                content=content,
                headers={"Authorization": "Bearer operator"},
            )
            return answer.status_code, answer.json()

        return call

    def test_a_run_from_order_to_end(
        self, calls: Callable[..., tuple[int, object]], tmp_path: Path
    ) -> None:
        journal = RunJournal(tmp_path / "state" / "runs")
        status, answered = calls("POST", "/runs", Order(job=MATCH).model_dump_json())
        assert status == 200
        run = Run.model_validate(answered)
        assert (run.jobs, run.steps[0].by) == (("find",), "operator")
        assert calls("GET", "/runs") == (200, [answered])
        assert calls("GET", "/runs/1/lines") == (200, {"lines": [], "after": 0})
        journal.tell(1, "begins")
        assert calls("GET", "/runs/1/lines") == (200, {"lines": ["begins"], "after": 7})
        for after in (7, 10**17):
            told = calls("GET", f"/runs/1/lines?after={after}")
            assert told == (200, {"lines": [], "after": after})
        assert calls("GET", "/models") == (200, [])
        assert Run.model_validate(calls("POST", "/runs/1/cancel")[1]).state is RunState.CANCELLED
        resumed = Run.model_validate(calls("POST", "/runs/1/resume?patience=7")[1])
        assert (resumed.state, resumed.patience_seconds) == (RunState.QUEUED, 7)
        assert calls("POST", "/jobs/best/cancel") == (200, EXPAND.model_dump(mode="json"))

    def test_an_order_says_how_long_to_wait(self, calls: Callable[..., tuple[int, object]]) -> None:
        order = Order(patience_seconds=5)
        assert json.loads(order.model_dump_json()) == {"job": None, "patience_seconds": 5}
        assert "patience" not in Order().model_dump_json()  # earlier versions take no other key
        answered = calls("POST", "/runs", order.model_dump_json())[1]
        assert Run.model_validate(answered).patience_seconds == 5

    @pytest.mark.parametrize(
        ("method", "path", "content", "status"),
        [
            ("POST", "/runs", '{"patience_seconds": 0}', 400),
            ("GET", "/runs/7", "", 409),
            ("GET", "/runs/x", "", 409),
            *(("GET", f"/runs/{'9' * digits}", "", 409) for digits in (10, 300, 5000)),
            ("POST", "/runs/7/cancel", "", 409),
            *(("POST", f"/runs/1/resume?patience={one}", "", 400) for one in ("0", "x", "9" * 9)),
            ("POST", "/jobs/nothing/cancel", "", 400),
            ("POST", "/runs", "", 400),
            ("POST", "/runs", '{"job": {"kind": "erase-everybody"}}', 400),
            ("POST", "/runs", '{"sudo": true}', 400),
            ("POST", "/runs", "[" * 2000, 400),
            ("GET", "/runs/1/lines?after=-1", "", 400),
            ("GET", f"/runs/1/lines?after={'9' * 30}", "", 400),
        ],
    )
    def test_a_mistake_is_told_with_its_kind(
        self,
        calls: Callable[..., tuple[int, object]],
        method: str,
        path: str,
        content: str,
        status: int,
    ) -> None:
        found, answered = calls(method, path, content)
        assert found == status
        assert isinstance(answered, dict)
        assert answered["kind"] in {"RunStateError", "WorkspaceError"}


class Older:
    """A control interface of before calls were counted, and of a form that is to come."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].endswith("/refused"):
            await Response("Not Found", 404)(scope, receive, send)
        elif scope["path"].endswith("/runs/2"):
            await Response('{"number": 2, "phase": "of the moon"}')(scope, receive, send)
        else:
            await self._app(scope, receive, send)


@contextmanager
def served(app: ASGIApp, directory: Path) -> Iterator[Path]:
    """Serve over TLS on loopback; yield the file by which an operator reaches it."""
    began = utc_now()
    authority = issue_authority(began)
    issued = issue_server(authority, ["127.0.0.1"], began, key=new_key())
    (directory / "ca.pem").write_bytes(authority.certificate_pem)
    (directory / "server.pem").write_bytes(issued.certificate_pem + issued.key_pem)
    (directory / "operator.token").write_text("operator")
    pem = str(directory / "server.pem")
    with socket.create_server(("127.0.0.1", 0)) as bound:
        server = uvicorn.Server(
            uvicorn.Config(app, lifespan="off", ws="none", log_config=None, ssl_certfile=pem)
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        file = directory / "operator.toml"
        file.write_text(
            f'address = "127.0.0.1:{bound.getsockname()[1]}"\ntoken-file = "operator.token"\n'
            'root-certificates = "ca.pem"\n'
        )
        try:
            yield file
        finally:
            server.should_exit = True
            thread.join()


def test_a_coordinator_of_another_version_is_said_to_be_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = CoordinatorFolder.init(tmp_path / "state", config(), now=NOW)
    World.make(tmp_path / "world").folder("coordinator").path.rename(folder.party)
    LocalRuns(folder, by="alice").submit(Order(job=MATCH))
    app = control_app(everything, Older(control_api(folder)), find_operator=TOKENS.get)
    with served(app, tmp_path) as file:
        with pytest.raises(SystemExit) as left:
            cli.main(["status", "--config", str(file)])
        assert left.value.code == 0
        run, beside = capsys.readouterr().out.splitlines()
        assert "queued" in run
        assert beside.endswith("is not told: the coordinator runs an older version of Comity")
        with RemoteRuns(RemoteConfig.read(file)) as runs:
            with pytest.raises(VersionError, match="an older version"):
                runs.refused()
            assert runs.drop("best") == EXPAND
            for name, why in (
                ("best", "no job 'best' is listed"),
                ("../x?", "is no name of a job"),
            ):
                with pytest.raises(WorkspaceError, match=why):
                    runs.drop(name)
            with pytest.raises(VersionError, match="another version of Comity"):
                runs.run(2)
