"""Operators whose accounts are an identity provider's: its tokens, held against a configuration.

```
1 the token is short, of two JSON objects without repeated members, and signed
2 its algorithm is one that is configured, its key one that the provider publishes for signing
3 the key fits the algorithm, and the signature verifies
4 issuer and audience are those that are configured
5 it is in force now, and for a day at most
6 it names its bearer, and a claim of it gives them a role
```

Guarantees: a token opens something only once all of these hold; no symmetric algorithm and no
`none` can be configured, and a token chooses neither key nor algorithm beyond what is. What a token
says counts for nothing before its signature is verified. Bearers are called `oidc:NAME`, so that
none of them passes for an operator with a token of the coordinator's.

Leaves to others: the provider's keys (`provider_keys`), what a role may do
(`federation.apps.control_listener`), who gets a token and by what proof (the provider). A token
that the provider has revoked stays good until it expires.

Sources: RFC 7515 (JWS), RFC 7517 (JWK), RFC 7519 (JWT), RFC 8725 (best practices: 3.1, 3.2, 3.8 to
3.12), RFC 9068 (access tokens), OpenID Connect Core 1.0, section 3.1.3.7.
"""

import base64
import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Self

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from pydantic import BaseModel, ConfigDict, Field, model_validator

from federation.errors import RefusedError, WorkspaceError
from federation.operations.roles import OperatorRole
from federation.operations.tokens import Operator

__all__ = [
    "IdentityProvider",
    "IdentityProviderConfig",
    "KeySet",
    "ProviderKey",
    "SigningAlgorithm",
    "read_key_set",
]

MOST_TOKEN_BYTES: Final = 16 * 1024
"""Length of the longest token."""

_MOST_LIFETIME: Final = timedelta(hours=24)
_LEEWAY: Final = timedelta(seconds=30)
"""How far the provider's clock may be ahead."""
_LONGEST_NAME: Final = 128
_MOST_KEYS: Final = 64
_LEAST_RSA_BITS: Final = 2048
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
"""Not those of tokens for something else, such as `logout+jwt`."""


class SigningAlgorithm(StrEnum):
    """Algorithms by which a provider may sign: public keys only."""

    RS256 = "RS256"
    PS256 = "PS256"
    ES256 = "ES256"
    ES384 = "ES384"
    ED25519 = "Ed25519"


_KEY_TYPES: Final[Mapping[str, Any]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
_FITTING: Final[Mapping[SigningAlgorithm, tuple[str, str | None]]] = {
    SigningAlgorithm.RS256: ("RSA", None),
    SigningAlgorithm.PS256: ("RSA", None),
    SigningAlgorithm.ES256: ("EC", "P-256"),
    SigningAlgorithm.ES384: ("EC", "P-384"),
    SigningAlgorithm.ED25519: ("OKP", "Ed25519"),
}
"""Kind and curve of the key that each algorithm takes."""


_URL: Final = r"^https://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?(/[!-\"$-~]*)?$"

Url = Annotated[str, Field(max_length=2048, pattern=_URL)]
Claim = Annotated[str, Field(min_length=1, max_length=256)]


class IdentityProviderConfig(BaseModel):
    """What `[identity-provider]` in `coordinator.toml` says; its keys have dashes.

    Attributes:
        issuer: as `iss` in tokens, to the letter.
        audience: one that tokens must be for.
        algorithms: that are taken.
        keys: file of the provider's public keys (JWKS); or
        jwks_uri: where it publishes them.
        root_certificates: file of the authorities (PEM) that vouch for that place; the system's
            where left out.
        name_claim: which claim names the bearer.
        role_claim: which claim says what they are: its name, or the names that lead to it.
        roles: what each value of it opens.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=lambda name: name.replace("_", "-"),
        populate_by_name=True,
    )

    issuer: Url
    audience: Annotated[str, Field(min_length=1, max_length=256)]
    algorithms: Annotated[tuple[SigningAlgorithm, ...], Field(min_length=1)]
    keys: Path | None = None
    jwks_uri: Url | None = None
    root_certificates: Path | None = None
    name_claim: Claim = "sub"
    role_claim: Claim | Annotated[tuple[Claim, ...], Field(min_length=1, max_length=8)]
    roles: Annotated[Mapping[str, OperatorRole], Field(min_length=1)]

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.keys is None) == (self.jwks_uri is None):
            raise ValueError("give either keys or jwks-uri")
        if self.keys is not None and self.root_certificates is not None:
            raise ValueError("root-certificates go with jwks-uri")
        return self

    @property
    def role_path(self) -> tuple[str, ...]:
        """The names that lead to the claim of roles."""
        return (self.role_claim,) if isinstance(self.role_claim, str) else self.role_claim


class ProviderKey:
    """One public key of a provider's.

    Attributes:
        algorithm: by which alone it verifies; any that fits where None.
    """

    def __init__(self, jwk: Any, kind: str, curve: str | None, algorithm: str | None) -> None:
        self.jwk = jwk
        self._kind = kind
        self._curve = curve
        self.algorithm = algorithm

    def fits(self, algorithm: SigningAlgorithm) -> bool:
        """Tell whether signatures by an algorithm are this key's to verify."""
        if self.algorithm not in {None, algorithm.value}:
            return False
        return _FITTING[algorithm] == (self._kind, self._curve)


KeySet = Mapping[str, ProviderKey]
"""A provider's keys by their ids."""


def read_key_set(content: bytes, *, source: str) -> KeySet:
    """Read the public keys of a provider.

    Keys that are for something else than signing, of a kind or on a curve that is not read, or
    without an id are passed over (RFC 7517, section 5).

    Args:
        content: a JWKS (RFC 7517, section 5).
        source: what to call it in an error.

    Raises:
        WorkspaceError: it is none; or a key in it is private, weak, malformed or called as another.
    """
    try:
        listed = _object(content).get("keys")
    except (ValueError, RecursionError) as error:
        raise WorkspaceError(f"{source} holds no JWKS: {error}") from error
    if not isinstance(listed, list) or len(listed) > _MOST_KEYS:
        raise WorkspaceError(f"{source}: expected `keys`, a list of {_MOST_KEYS} at most")
    found: dict[str, ProviderKey] = {}
    for jwk in listed:
        if not isinstance(jwk, dict):
            raise WorkspaceError(f"{source}: expected a list of objects in `keys`")
        kind, key_id = str(jwk.get("kty")), jwk.get("kid")
        if "d" in jwk or "k" in jwk:
            raise WorkspaceError(
                f"{source} holds a private or a symmetric key: give public keys alone"
            )
        allowed = jwk.get("key_ops", ["verify"])
        signs = jwk.get("use", "sig") == "sig" and isinstance(allowed, list) and "verify" in allowed
        known = kind == "RSA" or (kind, jwk.get("crv")) in _FITTING.values()
        if kind not in _KEY_TYPES or not known or not signs or not isinstance(key_id, str):
            continue
        if key_id in found:
            raise WorkspaceError(f"{source}: two keys are called alike (`kid`)")
        found[key_id] = _read_key(jwk, kind, source)
    return found


def _read_key(jwk: dict[str, Any], kind: str, source: str) -> ProviderKey:
    algorithm, curve = jwk.get("alg"), jwk.get("crv") if kind != "RSA" else None
    try:
        key = _KEY_TYPES[kind].import_key(dict(jwk))
        public = key.public_key
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise WorkspaceError(f"{source} holds a key that cannot be read") from error
    if kind == "RSA" and public.key_size < _LEAST_RSA_BITS:
        raise WorkspaceError(f"{source}: expected RSA keys of {_LEAST_RSA_BITS} bits or more")
    return ProviderKey(key, kind, curve, None if algorithm is None else str(algorithm))


class IdentityProvider:
    """Whose tokens are taken from operators, beside the coordinator's own.

    Args:
        config: what is asked of a token.
        find_key: returns the provider's key of an id, if there is one.
    """

    def __init__(
        self, config: IdentityProviderConfig, find_key: Callable[[str], ProviderKey | None]
    ) -> None:
        self._config = config
        self._find_key = find_key

    def operator(self, token: str, *, now: datetime) -> Operator:
        """Return whose token it is; the steps are the module's.

        Raises:
            RefusedError: at the first step that fails; its text has nothing of the token in it.
            WorkspaceError, CoordinatorUnreachableError: the provider's keys cannot be had.
        """
        header, content = _parts(token)  # 1
        algorithm = self._algorithm(header)  # 2
        key_id = header.get("kid")
        key = self._find_key(key_id) if isinstance(key_id, str) else None
        if key is None:
            raise _refusal("keys", "its key is none that the identity provider publishes")
        if not key.fits(algorithm):  # 3
            raise _refusal("algorithms", "its key is not for its algorithm")
        try:
            jws.deserialize_compact(token, key.jwk, algorithms=[algorithm.value])
        except (JoseError, ValueError) as error:
            raise _refusal("keys", "its signature does not verify") from error
        try:
            claims = _object(content)
        except (ValueError, RecursionError) as error:
            raise _refusal("token", "expected claims in a JSON object") from error
        self._check_parties(claims)  # 4
        _check_times(claims, now)  # 5
        return Operator(self._name(claims), self._role(claims))  # 6

    def _algorithm(self, header: Mapping[str, Any]) -> SigningAlgorithm:
        named = header.get("alg")
        found = next((one for one in self._config.algorithms if one.value == named), None)
        kind = header.get("typ", "jwt")
        if found is None or {"crit", "b64"} & header.keys() or str(kind).lower() not in _TYPES:
            raise _refusal(
                "algorithms",
                f"expected a JWT or an access token, signed by one of "
                f"{', '.join(self._config.algorithms)}, without critical extensions",
            )
        return found

    def _check_parties(self, claims: Mapping[str, Any]) -> None:
        if claims.get("iss") != self._config.issuer:
            raise _refusal("issuer", f"expected one that {self._config.issuer} issued")
        audience = claims.get("aud")
        named = audience if isinstance(audience, list) else [audience]
        if self._config.audience not in named:
            raise _refusal("audience", f"expected one for {self._config.audience}")

    def _name(self, claims: Mapping[str, Any]) -> str:
        name = claims.get(self._config.name_claim)
        if (
            not isinstance(name, str)
            or not 0 < len(name) <= _LONGEST_NAME
            or not name.isascii()
            or not name.isprintable()
        ):
            raise _refusal(
                "name-claim",
                f"expected a text of at most {_LONGEST_NAME} printable ASCII characters as "
                f"{self._config.name_claim}",
            )
        return f"oidc:{name}"

    def _role(self, claims: Mapping[str, Any]) -> OperatorRole:
        """Return the most that any of the bearer's values opens."""
        found: Any = claims
        for name in self._config.role_path:
            found = found.get(name) if isinstance(found, dict) else None
        values = found if isinstance(found, list) else [found]
        opened = {self._config.roles[one] for one in values if self._is_role(one)}
        for role in reversed(OperatorRole):
            if role in opened:
                return role
        raise _refusal(
            "roles", f"nothing in {'.'.join(self._config.role_path)} opens anything here"
        )

    def _is_role(self, value: object) -> bool:
        return isinstance(value, str) and value in self._config.roles


def _check_times(claims: Mapping[str, Any], now: datetime) -> None:
    """Return only for a token that is in force, and was made for a day at most."""
    stamp, issued, ends = now.timestamp(), _time(claims, "iat"), _time(claims, "exp")
    begins = max(issued, _time(claims, "nbf") if "nbf" in claims else issued)
    if stamp >= ends:
        raise _refusal("token", "it has expired: ask the identity provider for another")
    if begins > stamp + _LEEWAY.total_seconds():
        raise _refusal("token", "it is not in force yet: see that both clocks are right")
    if ends - issued > _MOST_LIFETIME.total_seconds():
        raise _refusal("token", "it is good for more than a day: have shorter ones issued")


def _time(claims: Mapping[str, Any], name: str) -> float:
    """Return a NumericDate (RFC 7519, section 2)."""
    found = claims.get(name)
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < 1 << 40:
        raise _refusal("token", f"expected {name}, seconds since 1970")
    return found


def _refusal(term: str, told: str) -> RefusedError:
    return RefusedError(party="coordinator", term=f"identity-provider.{term}", remedy=told)


def _parts(token: str) -> tuple[dict[str, Any], bytes]:
    """Return the header of a token, and its claims as they came."""
    expected = f"expected a signed JWT of at most {MOST_TOKEN_BYTES} characters"
    if len(token) > MOST_TOKEN_BYTES:
        raise _refusal("token", expected)
    try:
        header, claims, _ = token.encode("ascii").split(b".")
        return _object(_decoded(header)), _decoded(claims)
    except (ValueError, RecursionError) as error:
        raise _refusal("token", expected) from error


def _object(content: bytes) -> dict[str, Any]:
    found = json.loads(content, object_pairs_hook=_once)
    if not isinstance(found, dict):
        raise ValueError("expected a JSON object")  # noqa: TRY004 -- callers collect ValueErrors
    return found


def _once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(members)) != len(members):
        raise ValueError("a JSON member is repeated")
    return found


def _decoded(text: bytes) -> bytes:
    return base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
