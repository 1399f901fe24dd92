"""The IAB Data Deletion Request Framework 1.0: its tokens, signed and verified.

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
tokens are verified as JWS, and their claims read by models (`claims`).
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from pydantic import ValidationError

from compliance.erasure.claims import (
    MOST_TOKEN_BYTES,
    AcknowledgementClaims,
    Claims,
    Discovery,
    Identifier,
    IdentityClaims,
    RequestClaims,
    ResultCode,
    Supported,
    TokenError,
    json_object,
)
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

MOST_AGE: Final = timedelta(days=7)
MOST_AHEAD: Final = timedelta(minutes=5)
_LEAST_RSA_BITS: Final = 2048

_KEY_TYPES: Final[Mapping[str, Any]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}


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

    def _sign(self, claims: Claims) -> str:
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
        return json_object(_unbase64url(header)), json_object(_unbase64url(body))
    except (ValueError, RecursionError) as error:
        raise TokenError(
            ResultCode.INVALID_TOKEN, "expected a JWS in its compact form, of two JSON objects"
        ) from error


def _stamp(moment: datetime) -> int:
    return int(moment.astimezone(UTC).timestamp())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unbase64url(text: bytes) -> bytes:
    return base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
