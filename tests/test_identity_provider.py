"""Operators by an identity provider's tokens: what is taken, what is refused, and its keys."""

import base64
import hmac
import json
import ssl
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jws, jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from pydantic import ValidationError
from starlette.testclient import TestClient
from test_operations import everything

from federation import cli
from federation.apps.control_listener import control_app
from federation.apps.refusals import AuditFile, Refusals
from federation.errors import CoordinatorUnreachableError, RefusedError, WorkspaceError
from federation.operations.accounts import Accounts
from federation.operations.certificates import issue_authority, issue_server, new_key
from federation.operations.folder import CoordinatorConfig, CoordinatorFolder
from federation.operations.identity_provider import (
    MOST_TOKEN_BYTES,
    IdentityProvider,
    IdentityProviderConfig,
    KeySet,
    SigningAlgorithm,
    read_key_set,
)
from federation.operations.provider_keys import FetchedKeys, FileKeys, fetch_keys
from federation.operations.roles import OperatorRole
from federation.operations.tokens import Operator, TokenBook

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
STAMP = int(NOW.timestamp())
ISSUER, AUDIENCE = "https://login.example/realms/ops", "comity-coordinator"
CLAIMS: Mapping[str, object] = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "sub": "alice",
    "iat": STAMP - 10,
    "exp": STAMP + 600,
    "roles": ["comity-operators", "everybody"],
}
CONFIG: Mapping[str, object] = {
    "issuer": ISSUER,
    "audience": AUDIENCE,
    "algorithms": list(SigningAlgorithm),
    "keys": "jwks.json",
    "role-claim": "roles",
    "roles": {"comity-operators": "operator", "comity-viewers": "viewer", "ops-lead": "admin"},
}

RSA = RSAKey.generate_key(2048)
OTHER_RSA = RSAKey.generate_key(2048)
P256, P384 = ECKey.generate_key("P-256"), ECKey.generate_key("P-384")
EDWARDS = OKPKey.generate_key("Ed25519")
SIGNING = {
    "RS256": ("rsa", RSA),
    "PS256": ("rsa", RSA),
    "ES256": ("p256", P256),
    "ES384": ("p384", P384),
    "Ed25519": ("edwards", EDWARDS),
}


def public(key: Any, key_id: str | None, **more: object) -> dict[str, object]:
    found = {name: one for name, one in key.as_dict(private=False).items() if name != "kid"}
    return found | ({} if key_id is None else {"kid": key_id}) | more


def key_set(*jwks: Mapping[str, object]) -> bytes:
    return json.dumps({"keys": jwks}).encode()


PUBLISHED = key_set(
    public(RSA, "rsa"),
    public(OTHER_RSA, "pss", alg="PS256"),
    public(RSA, "encrypts", use="enc"),
    public(RSA, "wraps", key_ops=["wrapKey"]),
    public(P256, "p256", use="sig", alg="ES256"),
    public(P384, "p384"),
    public(EDWARDS, "edwards"),
    {"kty": "unheard-of", "kid": "later"},
)
KEYS = read_key_set(PUBLISHED, source="jwks.json")


def minted(
    algorithm: str = "ES256",
    *,
    key: Any = None,
    header: Mapping[str, object] | None = None,
    without: str | None = None,
    **changes: object,
) -> str:
    """A token by joserfc; the changes are of its claims."""
    key_id, fitting = SIGNING[algorithm]
    claims = {name: one for name, one in (CLAIMS | changes).items() if name != without}
    told = {"alg": algorithm, "kid": key_id} | dict(header or {})
    told = {name: one for name, one in told.items() if one is not None}
    registry = jws.JWSRegistry(algorithms=[algorithm], strict_check_header=False)
    return jwt.encode(told, claims, key or fitting, algorithms=[algorithm], registry=registry)


def signed(content: bytes, key_id: str = "p256") -> str:
    """A token of any bytes, signed by the provider."""
    found = jws.serialize_compact(
        {"alg": "ES256", "kid": key_id}, content, P256, algorithms=["ES256"]
    )
    return str(found)


def provider(**changes: object) -> IdentityProvider:
    return IdentityProvider(IdentityProviderConfig.model_validate(CONFIG | changes), KEYS.get)


def base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


# ------------------------------------------------------------------------------------- tokens


class TestTaken:
    @pytest.mark.parametrize("algorithm", SigningAlgorithm)
    def test_by_every_algorithm(self, algorithm: SigningAlgorithm) -> None:
        found = provider().operator(minted(algorithm), now=NOW)
        assert found == Operator("oidc:alice", OperatorRole.OPERATOR)

    @pytest.mark.parametrize(
        "changes",
        [
            {"aud": ["other", AUDIENCE]},
            {"nbf": STAMP + 29},
            {"iat": STAMP + 29},
            {"exp": STAMP + 0.5},
            {"iat": STAMP - 3600, "exp": STAMP + 82800},
            {"roles": "comity-operators"},
            {"unheard-of": [{}]},
        ],
        ids=str,
    )
    def test_within_the_bounds(self, changes: Mapping[str, object]) -> None:
        assert provider().operator(minted(**changes), now=NOW).role is OperatorRole.OPERATOR

    @pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "application/at+jwt"])
    def test_of_the_kinds_that_say_who_somebody_is(self, kind: str) -> None:
        assert provider().operator(minted(header={"typ": kind}), now=NOW).name == "oidc:alice"

    @pytest.mark.parametrize(
        ("values", "role"),
        [
            (["comity-viewers"], OperatorRole.VIEWER),
            (["comity-viewers", "comity-operators"], OperatorRole.OPERATOR),
            (["ops-lead", "comity-viewers"], OperatorRole.ADMIN),
            ([None, 7, {}, "comity-viewers"], OperatorRole.VIEWER),
        ],
        ids=str,
    )
    def test_the_most_of_several_roles_counts(
        self, values: list[object], role: OperatorRole
    ) -> None:
        assert provider().operator(minted(roles=values), now=NOW).role is role

    def test_claims_may_lie_deeper_and_be_called_otherwise(self) -> None:
        changed = {"role-claim": ["realm_access", "roles"], "name-claim": "preferred_username"}
        token = minted(
            realm_access={"roles": ["ops-lead"]}, preferred_username="a.b@example", without="roles"
        )
        found = provider(**changed).operator(token, now=NOW)
        assert found == Operator("oidc:a.b@example", OperatorRole.ADMIN)

    def test_whatever_else_is_in_its_header(self) -> None:
        """Keys that a token brings along, or points to, are nobody's."""
        more = {"jwk": public(P384, "p256"), "jku": "https://attacker.example", "x5t": "a"}
        assert provider().operator(minted_by_hand(more), now=NOW).name == "oidc:alice"

    def test_nobody_passes_for_an_operator_of_the_coordinators(self) -> None:
        assert provider().operator(minted(sub="local"), now=NOW).name == "oidc:local"


def unsigned(algorithm: str, signature: str = "") -> str:
    header = base64url(json.dumps({"alg": algorithm, "kid": "rsa"}).encode())
    return f"{header}.{base64url(json.dumps(CLAIMS).encode())}.{signature}"


def by_public_key(algorithm_key: bytes) -> str:
    """A token whose MAC is by the provider's public key, which everybody has."""
    content, _, _ = unsigned("HS256").rpartition(".")
    return f"{content}.{base64url(hmac.digest(algorithm_key, content.encode(), 'sha256'))}"


PEM = RSA.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
REPEATED = json.dumps(CLAIMS).encode()[:-1] + b', "roles": ["ops-lead"]}'
REFUSED: Mapping[str, tuple[str, Callable[[], str]]] = {
    "another key": ("keys", lambda: minted("RS256", key=OTHER_RSA)),
    "unknown key id": ("keys", lambda: minted(header={"kid": "unheard-of"})),
    "no key id": ("keys", lambda: minted(header={"kid": None})),
    "key id of another kind": ("algorithms", lambda: minted(header={"kid": "rsa"})),
    "key id that is no text": ("keys", lambda: minted_by_hand({"alg": "ES256", "kid": ["p256"]})),
    "key for encryption": ("keys", lambda: minted("RS256", header={"kid": "encrypts"})),
    "key for wrapping": ("keys", lambda: minted("RS256", header={"kid": "wraps"})),
    "key of another algorithm": (
        "algorithms",
        lambda: minted("RS256", key=OTHER_RSA, header={"kid": "pss"}),
    ),
    "key of another curve": ("algorithms", lambda: minted(header={"kid": "p384"})),
    "none": ("algorithms", lambda: unsigned("none")),
    "None": ("algorithms", lambda: unsigned("None")),
    "no signature": ("keys", lambda: unsigned("RS256")),
    "MAC by the public key": ("algorithms", lambda: by_public_key(PEM)),
    "MAC by the modulus": ("algorithms", lambda: by_public_key(str(RSA.as_dict()["n"]).encode())),
    "critical extension": ("algorithms", lambda: minted_by_hand({"crit": ["b64"], "b64": True})),
    "no algorithm": ("algorithms", lambda: minted_by_hand({"alg": None})),
    "logout": ("algorithms", lambda: minted(header={"typ": "logout+jwt"})),
    "security event": ("algorithms", lambda: minted(header={"typ": "secevent+jwt"})),
    "another issuer": ("issuer", lambda: minted(iss=f"{ISSUER}/")),
    "no issuer": ("issuer", lambda: minted(without="iss")),
    "several issuers": ("issuer", lambda: minted(iss=[ISSUER])),
    "another audience": ("audience", lambda: minted(aud="comity-coordinators")),
    "no audience": ("audience", lambda: minted(without="aud")),
    "part of an audience": ("audience", lambda: minted(aud=[f"{AUDIENCE} {AUDIENCE}"])),
    "expired": ("token", lambda: minted(exp=STAMP)),
    "no expiry": ("token", lambda: minted(without="exp")),
    "expiry as text": ("token", lambda: minted(exp=str(STAMP + 600))),
    "expiry that is true": ("token", lambda: minted(exp=True)),
    "endless": ("token", lambda: signed(json.dumps(CLAIMS | {"exp": float("inf")}).encode())),
    "no number": ("token", lambda: signed(json.dumps(CLAIMS | {"exp": float("nan")}).encode())),
    "not before": ("token", lambda: minted(nbf=STAMP + 31)),
    "not before that is nothing": ("token", lambda: minted(nbf=None)),
    "of the future": ("token", lambda: minted(iat=STAMP + 31)),
    "no time of issue": ("token", lambda: minted(without="iat")),
    "for more than a day": ("token", lambda: minted(iat=STAMP - 3600, exp=STAMP + 82801)),
    "no role": ("roles", lambda: minted(without="roles")),
    "empty roles": ("roles", lambda: minted(roles=[])),
    "roles that open nothing": ("roles", lambda: minted(roles=["everybody", "operator"])),
    "roles in an object": ("roles", lambda: minted(roles={"comity-operators": True})),
    "roles in a list of lists": ("roles", lambda: minted(roles=[["comity-operators"]])),
    "no name": ("name-claim", lambda: minted(without="sub")),
    "empty name": ("name-claim", lambda: minted(sub="")),
    "name with a line feed": ("name-claim", lambda: minted(sub="alice\nbob")),
    "long name": ("name-claim", lambda: minted(sub="a" * 129)),
    "name that is a number": ("name-claim", lambda: minted(sub=7)),
    "repeated claim": ("token", lambda: signed(REPEATED)),
    "claims in a list": ("token", lambda: signed(b"[]")),
    "claims that are none": ("token", lambda: signed(b"\xff")),
    "deep claims": ("token", lambda: signed(b"[" * 5000)),
    "too long": ("token", lambda: minted(more="x" * MOST_TOKEN_BYTES)),
    "two parts": ("token", lambda: minted().rpartition(".")[0]),
    "five parts": ("token", lambda: f"{minted()}.x.y"),
    "nothing": ("token", lambda: ""),
    "dots": ("token", lambda: ".."),
    "other letters": ("token", lambda: minted() + "é"),
}


def minted_by_hand(header: Mapping[str, object]) -> str:
    """A token whose signature holds, whatever is in its header."""
    told = {"alg": "ES256", "kid": "p256"} | header
    content = f"{base64url(json.dumps(told).encode())}.{base64url(json.dumps(CLAIMS).encode())}"
    signature = jws.JWSRegistry(algorithms=["ES256"]).get_alg("ES256").sign(content.encode(), P256)
    return f"{content}.{base64url(signature)}"


class TestRefused:
    @pytest.mark.parametrize("what", REFUSED)
    def test_and_says_by_which_rule_but_nothing_of_the_token(self, what: str) -> None:
        term, make = REFUSED[what]
        token = make()
        with pytest.raises(RefusedError) as told:
            provider().operator(token, now=NOW)
        assert told.value.term == f"identity-provider.{term}"
        assert "alice" not in str(told.value)
        assert len(token) < 20 or token[:20] not in str(told.value)

    def test_an_algorithm_that_is_not_configured(self) -> None:
        with pytest.raises(RefusedError, match="signed by one of RS256, without"):
            provider(algorithms=["RS256"]).operator(minted("PS256"), now=NOW)

    def test_a_byte_of_header_or_claims_that_was_changed(self) -> None:
        token = minted()
        for place in range(token.rindex(".")):
            changed = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
            with pytest.raises(RefusedError):
                provider().operator(changed, now=NOW)

    @settings(max_examples=60)
    @given(st.one_of(st.text(max_size=80), st.from_regex(r"[\w-]{1,9}\.[\w-]{1,9}\.[\w-]{0,9}")))
    def test_noise_never_raises_anything_else(self, token: str) -> None:
        with pytest.raises(RefusedError):
            provider().operator(token, now=NOW)

    @settings(max_examples=40)
    @given(
        st.dictionaries(
            st.sampled_from([*CLAIMS, "nbf"]),
            st.recursive(
                st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
                lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=3), one),
                max_leaves=4,
            ),
            min_size=1,
        )
    )
    def test_strange_claims_open_nothing_or_what_they_say(self, strange: dict[str, Any]) -> None:
        try:
            found = provider().operator(signed(json.dumps(CLAIMS | strange).encode()), now=NOW)
        except RefusedError:
            return
        assert found.role is OperatorRole.OPERATOR
        assert "roles" not in strange
        assert "iss" not in strange
        assert "aud" not in strange


# -------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithms": ["none"]},
        {"algorithms": ["HS256"]},
        {"algorithms": []},
        {"issuer": "http://login.example"},
        {"issuer": "login.example"},
        {"keys": None},
        {"jwks-uri": "https://login.example/certs"},
        {"keys": None, "jwks-uri": "http://login.example/certs"},
        {"keys": None, "jwks-uri": "https://user@login.example/certs"},
        {"keys": None, "jwks-uri": "https://[/certs"},
        {"root-certificates": "ca.pem"},
        {"roles": {}},
        {"roles": {"x": "owner"}},
        {"role-claim": []},
        {"audience": ""},
        {"secret": "x"},
    ],
    ids=str,
)
def test_a_configuration_that_is_none(changes: Mapping[str, object]) -> None:
    with pytest.raises(ValidationError):
        IdentityProviderConfig.model_validate(CONFIG | changes)


NO_KEYS: Mapping[str, tuple[Callable[[], bytes] | bytes, str]] = {
    "nothing": (b"", "holds no JWKS"),
    "a list": (b"[]", "holds no JWKS"),
    "a deep list": (b"[" * 100_000, "holds no JWKS"),
    "a number": (b'{"keys": 1}', "expected `keys`, a list"),
    "numbers": (b'{"keys": [1]}', "list of objects"),
    "keys twice": (b'{"keys": [], "keys": []}', "repeated"),
    "too many": (json.dumps({"keys": [{}] * 65}).encode(), "64 at most"),
    "a private key": (key_set(P256.as_dict(private=True) | {"kid": "a"}), "private or a symmetric"),
    "a symmetric key": (
        key_set(OctKey.generate_key(256).as_dict() | {"kid": "a"}),
        "private or a symmetric",
    ),
    "one id twice": (key_set(public(P256, "a"), public(P384, "a")), "called alike"),
    "a weak key": (lambda: key_set(public(RSAKey.generate_key(1024), "a")), "2048 bits"),
    "half a key": (key_set({"kty": "EC", "crv": "P-256", "kid": "a"}), "cannot be read"),
}


@pytest.mark.parametrize("what", NO_KEYS)
def test_a_key_set_that_is_none(what: str) -> None:
    content, told = NO_KEYS[what]
    weak = warnings.catch_warnings(action="ignore", category=SecurityWarning)  # joserfc's own
    with weak, pytest.raises(WorkspaceError, match=told):
        read_key_set(content if isinstance(content, bytes) else content(), source="jwks.json")


def test_keys_that_are_not_for_signing_are_passed_over() -> None:
    assert KEYS.keys() == {"rsa", "pss", "p256", "p384", "edwards"}
    assert read_key_set(key_set(public(P256, None)), source="jwks.json") == {}
    for strange in ({"key_ops": None}, {"key_ops": 7}, {"crv": "P-256K"}, {"crv": ["P-256"]}):
        keys = key_set(public(P256, "a") | strange, public(P384, "b"))
        assert read_key_set(keys, source="jwks.json").keys() == {"b"}


# ------------------------------------------------------------------------------- keys elsewhere


class TestFileKeys:
    def test_what_the_file_holds_now_counts(self, tmp_path: Path) -> None:
        file = tmp_path / "jwks.json"
        keys = FileKeys(file)
        with pytest.raises(WorkspaceError, match="cannot be read"):
            keys.find("p256")
        file.write_bytes(PUBLISHED)
        assert keys.find("p256") is not None
        file.write_bytes(key_set())
        assert keys.find("p256") is None
        file.write_bytes(b" " * (256 * 1024 + 1))
        with pytest.raises(WorkspaceError, match="at most"):
            keys.find("p256")


class Publisher:
    """A provider whose keys change, and that may be away."""

    def __init__(self) -> None:
        self.now = 0.0
        self.fetched = 0
        self.keys: KeySet = {"old": KEYS["p256"]}
        self.away = False

    def __call__(self) -> KeySet:
        self.fetched += 1
        if self.away:
            raise CoordinatorUnreachableError("away")
        return self.keys


class TestFetchedKeys:
    @pytest.fixture
    def publisher(self) -> Publisher:
        return Publisher()

    @pytest.fixture
    def keys(self, publisher: Publisher) -> FetchedKeys:
        return FetchedKeys(publisher, seconds=lambda: publisher.now)

    def test_they_are_fetched_once_for_ten_minutes(
        self, publisher: Publisher, keys: FetchedKeys
    ) -> None:
        for publisher.now in (0, 1, 599):
            assert keys.find("old") is KEYS["p256"]
        assert publisher.fetched == 1
        publisher.now, publisher.keys = 600, {}
        assert keys.find("old") is None
        assert publisher.fetched == 2

    def test_a_new_key_is_found_within_a_minute_however_often_strangers_ask(
        self, publisher: Publisher, keys: FetchedKeys
    ) -> None:
        keys.find("old")
        publisher.keys = {"new": KEYS["p384"]}
        publisher.now = 59
        assert [keys.find(f"stranger-{one}") for one in range(50)] == [None] * 50
        assert keys.find("new") is None
        assert publisher.fetched == 1
        publisher.now = 60
        assert keys.find("new") is KEYS["p384"]
        assert [keys.find(f"stranger-{one}") for one in range(50)] == [None] * 50
        assert publisher.fetched == 2

    def test_a_provider_that_is_away_is_missed_after_an_hour(
        self, publisher: Publisher, keys: FetchedKeys
    ) -> None:
        keys.find("old")
        publisher.away = True
        for publisher.now in (600, 3599):
            assert keys.find("old") is KEYS["p256"]
        publisher.now = 3600
        with pytest.raises(CoordinatorUnreachableError, match="jwks-uri answers"):
            keys.find("old")
        publisher.away, publisher.now = False, 3659
        assert keys.find("old") is KEYS["p256"]

    def test_one_that_was_never_there_is_asked_once_a_minute(
        self, publisher: Publisher, keys: FetchedKeys
    ) -> None:
        publisher.away = True
        for _ in range(5):
            with pytest.raises(CoordinatorUnreachableError):
                keys.find("old")
        assert publisher.fetched == 1

    def test_nobody_waits_for_a_slow_provider_whose_keys_are_there(
        self, publisher: Publisher
    ) -> None:
        entered, leave = threading.Event(), threading.Event()

        def slow() -> KeySet:
            if publisher.fetched:
                entered.set()
                assert leave.wait(10)
            return publisher()

        keys = FetchedKeys(slow, seconds=lambda: publisher.now)
        keys.find("old")
        publisher.now = 600
        asking = threading.Thread(target=keys.find, args=("old",))
        asking.start()
        assert entered.wait(10)
        assert keys.find("old") is KEYS["p256"]
        leave.set()
        asking.join()
        assert publisher.fetched == 2


class _Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/certs?a=b")
            self.end_headers()
            return
        content = {"/certs?a=b": PUBLISHED, "/large": bytes(300 * 1024)}.get(self.path, b"{}")
        self.send_response(200)
        self.end_headers()
        for place in range(0, len(content), 1 << 16):
            self.wfile.write(content[place : place + (1 << 16)])
        while self.path == "/slow":
            self.wfile.write(b" ")
            self.wfile.flush()
            time.sleep(0.05)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A provider on loopback, and the file of the authority that vouches for it."""
    place, now = tmp_path_factory.mktemp("site"), datetime.now(UTC)
    authority = issue_authority(now)
    issued = issue_server(authority, [], now, key=new_key())
    (place / "ca.pem").write_bytes(authority.certificate_pem)
    (place / "server.pem").write_bytes(issued.certificate_pem + issued.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place / "server.pem")
    server = HTTPServer(("127.0.0.1", 0), _Site)
    server.handle_error = lambda *_: None  # type: ignore[method-assign] -- who parts early is no error
    server.socket = context.wrap_socket(server.socket, server_side=True)
    serving = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    serving.start()
    yield f"https://127.0.0.1:{server.server_port}", place / "ca.pem"
    server.shutdown()
    server.server_close()


class TestFetching:
    def test_keys_come_over_https(self, site: tuple[str, Path]) -> None:
        url, roots = site
        assert fetch_keys(f"{url}/certs?a=b", roots=roots).keys() == KEYS.keys()

    def test_another_authority_is_not_believed(self, site: tuple[str, Path]) -> None:
        with pytest.raises(CoordinatorUnreachableError, match="CERTIFICATE_VERIFY_FAILED"):
            fetch_keys(f"{site[0]}/certs?a=b", roots=None)

    @pytest.mark.parametrize(
        ("path", "told"),
        [("/moved", "got 302"), ("/large", "too much"), ("/slow", "too much, or too slow")],
    )
    def test_elsewhere_too_much_or_too_slow_is_nothing(
        self, site: tuple[str, Path], path: str, told: str
    ) -> None:
        url, roots = site
        with pytest.raises(CoordinatorUnreachableError, match=told):
            fetch_keys(f"{url}{path}", roots=roots, seconds=0.2)

    def test_what_are_no_keys_and_nobody_there(
        self, site: tuple[str, Path], tmp_path: Path
    ) -> None:
        url, roots = site
        with pytest.raises(WorkspaceError, match="expected `keys`"):
            fetch_keys(f"{url}/nothing", roots=roots)
        with pytest.raises(CoordinatorUnreachableError, match="cannot be fetched"):
            fetch_keys("https://127.0.0.1:1/certs", roots=roots)
        (tmp_path / "ca.pem").write_text("none")
        with pytest.raises(WorkspaceError, match="no certificates"):
            fetch_keys(url, roots=tmp_path / "ca.pem")


# ------------------------------------------------------------------------------ the coordinator

WRITTEN = f"""
[identity-provider]
issuer = "{ISSUER}"
audience = "{AUDIENCE}"
algorithms = ["RS256", "ES256"]
keys = "jwks.json"
role-claim = "roles"
roles = {{ comity-operators = "operator", comity-viewers = "viewer" }}
"""


class TestCoordinator:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> CoordinatorFolder:
        config = CoordinatorConfig.for_address("here", listen=None, control="127.0.0.1:9092")
        path = CoordinatorFolder.init(tmp_path / "state", config, now=NOW).path
        with (path / "coordinator.toml").open("a") as file:
            file.write(WRITTEN)
        (path / "jwks.json").write_bytes(PUBLISHED)
        return CoordinatorFolder.init(path, config, now=NOW)  # once more, with a provider by now

    def test_both_kinds_of_tokens_open_what_their_roles_do(
        self, folder: CoordinatorFolder, tmp_path: Path
    ) -> None:
        own = TokenBook(folder.tokens).add("bob", OperatorRole.VIEWER, now=NOW)
        accounts, told = Accounts.of(folder), list[str]()
        audit = AuditFile(tmp_path / "audit.jsonl", clock=lambda: NOW)
        app = control_app(
            everything,
            everything,
            find_operator=lambda token: accounts.find(token, now=NOW, tell=told.append),
        )
        counts = list[str]()
        client = TestClient(Refusals(app, listener="control", audit=audit, count=counts.append))

        def status(method: str, token: str) -> int:
            headers = {"Authorization": f"Bearer {token}"}
            return client.request(method, "/v1/comity/runs", headers=headers).status_code

        viewer = minted(roles=["comity-viewers"])
        found = [
            status(method, one) for one in (own, viewer, minted()) for method in ("GET", "POST")
        ]
        assert found == [200, 403, 200, 403, 200, 200]
        refused = (minted("PS256"), minted(exp=STAMP), minted(roles=[]), "comity-guessed", "a.b.c")
        assert {status("GET", one) for one in refused} == {401}
        (folder.path / "jwks.json").unlink()
        assert [status("GET", one) for one in (viewer, viewer, own)] == [401, 401, 200]
        assert len(told) == 1
        assert "jwks.json cannot be read" in told[0]
        lines = (tmp_path / "audit.jsonl").read_text()
        assert len(lines.splitlines()) == len(counts)
        assert '"operator": "oidc:alice"' in lines
        assert viewer[:20] not in lines

    def test_without_a_provider_nothing_of_one_is_taken(self, tmp_path: Path) -> None:
        config = CoordinatorConfig.for_address("here", listen=None, control="127.0.0.1:9092")
        accounts = Accounts.of(CoordinatorFolder.init(tmp_path / "state", config, now=NOW))
        assert accounts.find(minted(), now=NOW, tell=pytest.fail) is None

    def test_the_command_says_why_a_token_opens_nothing(
        self, folder: CoordinatorFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        now = int(datetime.now(UTC).timestamp())
        file = tmp_path / "token"
        for changes, code, told in (
            ({"exp": now + 60}, 0, "oidc:alice is operator"),
            ({"exp": now + 60, "aud": "other"}, 1, f"expected one for {AUDIENCE}"),
        ):
            file.write_text(minted(iat=now, **changes) + "\n")
            with pytest.raises(SystemExit) as left:
                cli.main(["coordinator", "token", "check", str(file), "--config", str(folder.path)])
            captured = capsys.readouterr()
            assert (left.value.code, told in captured.out + captured.err) == (code, True)

    def test_a_mistake_in_it_says_where(self, folder: CoordinatorFolder) -> None:
        file = folder.path / "coordinator.toml"
        file.write_text(file.read_text().replace('"ES256"', '"HS256"'))
        with pytest.raises(WorkspaceError, match=r"coordinator\.toml.*algorithms"):
            CoordinatorFolder.open(folder.path)


def test_a_day_is_a_day() -> None:
    """The longest token, held against a clock on both sides of its end."""
    token = minted(iat=STAMP, exp=STAMP + 86400)
    assert provider().operator(token, now=NOW + timedelta(seconds=86399)).name == "oidc:alice"
    with pytest.raises(RefusedError, match="expired"):
        provider().operator(token, now=NOW + timedelta(days=1))
