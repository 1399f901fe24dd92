"""The IAB Data Deletion Request Framework 1.0: its tokens and its `dsrdelete.json`.

Guarantees: what is read was signed by a key that its issuer publishes, is of a bounded size, names
no member twice, is no older than allowed and not of the future; every refusal has the framework's
result code. An acknowledgement that is read answers the very request that was sent.

Leaves to others: fetching `dsrdelete.json` from its issuer's domain; telling a repeated token from
a new one (`execution`: it gets the same answer); whether the identifier means anybody.

Beyond the framework: `aud` (RFC 7519 §4.1.3) names the recipient, since without it a request could
be carried to another; it is written always, and asked for unless the reader says otherwise.

Sources: IAB Tech Lab, Data Deletion Request Framework 1.0 (InteractiveAdvertisingBureau/
Data-Subject-Rights at ee11df4); RFC 7515 (JWS), 7517 (JWK), 7519 (JWT), 8725 (best practices), 9864
(Ed25519 as a name of its own). Its `sub` is an object, which RFC 7519 §4.1.2 does not allow: so
tokens are verified as JWS, and their claims read by the models below.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from compliance.errors import ErasureError, describe
from compliance.signing import SigningKey, VerifyingKey

__all__ = [
    "ALGORITHMS",
    "MOST_TOKEN_BYTES",
    "AcknowledgementClaims",
    "Discovery",
    "Identifier",
    "IdentityClaims",
    "Issuer",
    "Keys",
    "RequestClaims",
    "ResultCode",
    "Supported",
    "TokenError",
    "VerifiedRequest",
    "public_jwk",
    "read_acknowledgement",
    "read_request",
]

ALGORITHMS: Final = frozenset({"RS256", "PS256", "ES256", "Ed25519"})
"""Signature algorithms that are read; `Ed25519` is written."""

MOST_TOKEN_BYTES: Final = 64 * 1024
"""Length of the longest token; a request holds an identity, and an acknowledgement a request."""

MOST_AGE: Final = timedelta(days=7)
MOST_AHEAD: Final = timedelta(minutes=5)
_LEAST_RSA_BITS: Final = 2048

_KEY_TYPES: Final[Mapping[str, Any]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}


class ResultCode(IntEnum):
    """What became of a request, as the framework numbers it ("Result Codes")."""

    ACCEPTED = 0
    MALFORMED_REQUEST = 1
    INVALID_SIGNATURE = 2
    INVALID_TOKEN = 3
    UNSUPPORTED_IDENTIFIER_TYPE = 4
    INCORRECT_IDENTIFIER_FORMAT = 5
    INVALID_TIMESTAMP = 6


class TokenError(ErasureError):
    """A token was refused.

    Attributes:
        code: what its sender is told.
    """

    def __init__(self, code: ResultCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class _Claims(BaseModel):
    # Claims that nobody here knows are ignored (RFC 7519 §4).
    model_config = ConfigDict(
        frozen=True, extra="ignore", populate_by_name=True, hide_input_in_errors=True
    )


Id = Annotated[str, Field(min_length=1, max_length=256)]
Domain = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
Token = Annotated[str, Field(min_length=1, max_length=MOST_TOKEN_BYTES)]
Timestamp = Annotated[int, Field(strict=True, ge=0, lt=1 << 40)]


class Identifier(_Claims):
    """What a request is about: a value, what it is, and how it is written."""

    value: Annotated[str, Field(alias="identifierValue", min_length=1, max_length=4096, repr=False)]
    type: Annotated[str, Field(alias="identifierType", min_length=1, max_length=64)]
    format: Annotated[str, Field(alias="identifierFormat", min_length=1, max_length=64)]


class IdentityClaims(_Claims):
    """What the first party vouches for (idJWT)."""

    version: Literal["1.0"] = "1.0"
    jti: Id
    iss: Domain
    sub: Identifier
    iat: Timestamp


class RequestClaims(_Claims):
    """One request of one requester to one recipient (rqJWT).

    Attributes:
        identity: the first party's token, as it was.
        sub: the same identifier, or the requester's own alias of it.
        aud: the recipient.
        optional_parameters: what the two agreed on beside.
    """

    version: Literal["1.0"] = "1.0"
    identity: Annotated[Token, Field(alias="idJWT", repr=False)]
    jti: Id
    iss: Domain
    sub: Identifier
    iat: Timestamp
    aud: Domain | None = None
    optional_parameters: Annotated[Mapping[str, Any] | None, Field(alias="optionalParameters")] = (
        None
    )


class AcknowledgementClaims(_Claims):
    """A recipient's answer (acJWT)."""

    version: Literal["1.0"] = "1.0"
    request: Annotated[Token, Field(alias="rqJWT", repr=False)]
    jti: Id
    iss: Domain
    iat: Timestamp
    code: Annotated[ResultCode, Field(alias="raResultCode")]
    told: Annotated[str | None, Field(alias="raResultString", max_length=500)] = None


class Supported(_Claims):
    """An identifier that a recipient takes."""

    id: int
    type: str
    format: str


class Discovery(_Claims):
    """What a participant publishes as `dsrdelete.json` in the root of its domain.

    Attributes:
        endpoint: where requests go.
        identifiers: which it takes.
        public_keys: JSON Web Keys (RFC 7517) that verify its tokens.
        vendor_script_required: whether a script must run in the person's browser.
        vendor_script: that script; it is never run here.
    """

    endpoint: Annotated[str, Field(pattern=r"^https://[!-~]{1,2000}$")]
    identifiers: Annotated[tuple[Supported, ...], Field(max_length=256)]
    public_keys: Annotated[
        tuple[Mapping[str, Any], ...], Field(alias="publicKey", min_length=1, max_length=64)
    ]
    vendor_script_required: Annotated[bool, Field(alias="vendorScriptRequirement")]
    vendor_script: Annotated[str | None, Field(alias="vendorScript")] = None

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Read a published file.

        Raises:
            ErasureError: over 64 KiB, malformed, or with members missing or repeated.
        """
        if len(content) > MOST_TOKEN_BYTES:
            raise ErasureError(
                f"dsrdelete.json: expected at most {MOST_TOKEN_BYTES} bytes, got {len(content)}"
            )
        try:
            return cls.model_validate(_object(content))
        except ValidationError as error:
            raise ErasureError(f"dsrdelete.json: {describe(error)}") from error
        except ValueError as error:
            raise ErasureError(f"dsrdelete.json: {error}") from error

    def to_json(self) -> bytes:
        """Write the file to publish."""
        return self.model_dump_json(by_alias=True, exclude_none=True, indent=2).encode() + b"\n"


class Keys:
    """Whose keys verify whose tokens."""

    def __init__(self, published: Mapping[str, Discovery]) -> None:
        """Read the keys of each issuer, by domain.

        Raises:
            ErasureError: a key is malformed, private, weak, or has no id of its own.
        """
        self._keys = {issuer: _keys_of(issuer, found) for issuer, found in published.items()}

    def verify(self, token: str, kind: type["_AnyClaims"]) -> "_AnyClaims":
        """Read a token's claims.

        1. It is short enough, and three parts of base64url.
        2. Its header names an algorithm that is read, and a key.
        3. Its claims have the fields of their kind; its issuer publishes that key.
        4. The key fits the algorithm, and the signature verifies.

        Raises:
            TokenError: at the first step that fails.
        """
        if len(token) > MOST_TOKEN_BYTES:  # 1
            raise TokenError(
                ResultCode.INVALID_TOKEN,
                f"expected a token of at most {MOST_TOKEN_BYTES} characters, got {len(token)}",
            )
        header, content = _parts(token)
        algorithm, key_id = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in ALGORITHMS or "crit" in header:  # 2
            raise TokenError(
                ResultCode.INVALID_SIGNATURE,
                f"expected a token signed by one of {', '.join(sorted(ALGORITHMS))}, without "
                "critical extensions",
            )
        try:
            claims = kind.model_validate(content)  # 3: they count for nothing before 4
        except ValidationError as error:
            raise TokenError(ResultCode.MALFORMED_REQUEST, describe(error)) from error
        key = self._keys.get(claims.iss, {}).get(key_id if isinstance(key_id, str) else "")
        if key is None:
            raise TokenError(
                ResultCode.INVALID_SIGNATURE,
                "the token's key is not among those that its issuer publishes: read its "
                "dsrdelete.json anew",
            )
        try:
            jws.deserialize_compact(token, key, algorithms=[algorithm])  # 4
        except (JoseError, ValueError) as error:
            raise TokenError(
                ResultCode.INVALID_SIGNATURE, "the token's signature does not verify"
            ) from error
        return claims


_AnyClaims = TypeVar("_AnyClaims", IdentityClaims, RequestClaims, AcknowledgementClaims)


@dataclass(frozen=True)
class Issuer:
    """Who signs tokens.

    Attributes:
        domain: eTLD+1 under which its `dsrdelete.json` stands.
        key_id: of the key in it.
        key: its private half.
    """

    domain: str
    key_id: str
    key: SigningKey

    def identity(self, identifier: Identifier, *, jti: str, now: datetime) -> str:
        """Write an idJWT."""
        return self._sign(IdentityClaims(jti=jti, iss=self.domain, sub=identifier, iat=_stamp(now)))

    def request(
        self,
        identity: str,
        identifier: Identifier,
        *,
        recipient: str,
        jti: str,
        now: datetime,
        parameters: Mapping[str, Any] | None = None,
    ) -> str:
        """Write a rqJWT that carries an idJWT, and what the two agreed on beside."""
        return self._sign(
            RequestClaims(
                identity=identity,
                jti=jti,
                iss=self.domain,
                sub=identifier,
                iat=_stamp(now),
                aud=recipient,
                optional_parameters=parameters,
            )
        )

    def acknowledge(
        self, request: str, code: ResultCode, *, jti: str, now: datetime, told: str | None = None
    ) -> str:
        """Write an acJWT."""
        return self._sign(
            AcknowledgementClaims(
                request=request, jti=jti, iss=self.domain, iat=_stamp(now), code=code, told=told
            )
        )

    def _sign(self, claims: _Claims) -> str:
        header = {"alg": "Ed25519", "kid": self.key_id, "typ": "JWT"}
        body = claims.model_dump_json(by_alias=True, exclude_none=True).encode()
        signed = f"{_base64url(json.dumps(header).encode())}.{_base64url(body)}"
        token = f"{signed}.{_base64url(self.key.sign(signed.encode()))}"  # RFC 8037 §3.1
        if len(token) > MOST_TOKEN_BYTES:
            raise ErasureError(
                f"this token would have {len(token)} characters; at most {MOST_TOKEN_BYTES} are "
                "read"
            )
        return token


@dataclass(frozen=True)
class VerifiedRequest:
    """A request whose two signatures hold.

    Attributes:
        token: as it came.
        identity: what the first party vouches for.
        request: what the requester asks.
    """

    token: str
    identity: IdentityClaims
    request: RequestClaims


def read_request(
    token: str,
    keys: Keys,
    *,
    audience: str,
    now: datetime,
    accepts: frozenset[tuple[str, str]],
    audience_required: bool = True,
) -> VerifiedRequest:
    """Read a rqJWT and the idJWT in it.

    1. Both are signed by keys that their issuers publish.
    2. The request is for this audience.
    3. The request is about the very person whom the identity is of: no alias is taken.
    4. Neither is of the future or more than a week old; the request is not older than the identity.
    5. The identifier is of a type, then of a format, that is accepted.

    Args:
        token: the rqJWT.
        keys: of those who may sign.
        audience: this recipient's domain.
        now: the time.
        accepts: pairs of identifier type and format.
        audience_required: whether a request without `aud` is refused.

    Raises:
        TokenError: at the first step that fails.
    """
    request = keys.verify(token, RequestClaims)  # 1
    identity = keys.verify(request.identity, IdentityClaims)
    if request.aud != audience and (audience_required or request.aud is not None):  # 2
        raise TokenError(ResultCode.MALFORMED_REQUEST, "the request is for another audience")
    if request.sub != identity.sub:  # 3
        raise TokenError(
            ResultCode.MALFORMED_REQUEST,
            "request and identity are about different identifiers: an alias proves nobody",
        )
    _check_times(identity.iat, request.iat, now)  # 4
    kind = request.sub.type
    if kind not in {accepted for accepted, _ in accepts}:  # 5
        raise TokenError(
            ResultCode.UNSUPPORTED_IDENTIFIER_TYPE, "this recipient takes no such identifier"
        )
    if (kind, request.sub.format) not in accepts:
        raise TokenError(
            ResultCode.INCORRECT_IDENTIFIER_FORMAT, "this recipient takes it in another format"
        )
    return VerifiedRequest(token, identity, request)


def read_acknowledgement(
    token: str, keys: Keys, *, request: str, recipient: str, now: datetime
) -> AcknowledgementClaims:
    """Read an acJWT as the answer of `recipient` to the very rqJWT that was sent to it.

    Raises:
        TokenError: it is not, or its signature does not verify, or it is of the future.
    """
    claims = keys.verify(token, AcknowledgementClaims)
    if claims.iss != recipient or claims.request != request:
        raise TokenError(
            ResultCode.MALFORMED_REQUEST, "an acknowledgement of another request, or by another"
        )
    if claims.iat > _stamp(now + MOST_AHEAD):
        raise TokenError(ResultCode.INVALID_TIMESTAMP, "the acknowledgement is of the future")
    return claims


def public_jwk(key: VerifyingKey, key_id: str) -> dict[str, str]:
    """Return an Ed25519 key as it is published (RFC 8037 §2)."""
    return {"kty": "OKP", "crv": "Ed25519", "x": _base64url(key.raw), "kid": key_id}


def _check_times(identity: int, request: int, now: datetime) -> None:
    if max(identity, request) > _stamp(now + MOST_AHEAD):
        raise TokenError(ResultCode.INVALID_TIMESTAMP, "the token is of the future: set the clock")
    if min(identity, request) < _stamp(now - MOST_AGE):
        raise TokenError(
            ResultCode.INVALID_TIMESTAMP,
            f"the request or its identity is more than {MOST_AGE.days} days old: make another",
        )
    if identity > request:
        raise TokenError(ResultCode.INVALID_TIMESTAMP, "the identity is younger than the request")


def _keys_of(issuer: str, published: Discovery) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for jwk in published.public_keys:
        key_id = jwk.get("kid")
        if not isinstance(key_id, str) or not key_id or key_id in found:
            raise ErasureError(f"{issuer}: expected keys with an id (`kid`) each of their own")
        kind = _KEY_TYPES.get(str(jwk.get("kty")))
        if kind is None or "d" in jwk:
            raise ErasureError(f"{issuer}: expected public RSA, EC or OKP keys")
        try:
            key = kind.import_key(dict(jwk))
            public = key.public_key
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise ErasureError(f"{issuer}: a key that cannot be read") from error
        if kind is RSAKey and public.key_size < _LEAST_RSA_BITS:
            raise ErasureError(f"{issuer}: expected RSA keys of {_LEAST_RSA_BITS} bits or more")
        found[key_id] = key
    return found


def _parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        header, body, _ = token.encode("ascii").split(b".")
        return _object(_unbase64url(header)), _object(_unbase64url(body))
    except (ValueError, RecursionError) as error:
        raise TokenError(
            ResultCode.INVALID_TOKEN, "expected a JWS in its compact form, of two JSON objects"
        ) from error


def _object(content: bytes) -> dict[str, Any]:
    found = json.loads(content, object_pairs_hook=_once)
    if not isinstance(found, dict):
        raise ValueError("expected a JSON object")  # noqa: TRY004  callers collect ValueErrors
    return found


def _once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(members)) != len(members):
        raise ValueError("a JSON member is repeated")
    return dict(members)


def _stamp(moment: datetime) -> int:
    return int(moment.astimezone(UTC).timestamp())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unbase64url(text: bytes) -> bytes:
    return base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
