"""Deletion tokens and `dsrdelete.json`: the published examples, and all that must be refused."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import ECKey

from compliance.erasure.completion import Completion, Outcomes, Step, read_completion
from compliance.erasure.wire import (
    MOST_TOKEN_BYTES,
    AcknowledgementClaims,
    Discovery,
    Identifier,
    IdentityClaims,
    Issuer,
    Keys,
    RequestClaims,
    ResultCode,
    TokenError,
    public_jwk,
    read_acknowledgement,
    read_request,
)
from compliance.errors import ErasureError
from compliance.records import ErasureOutcome
from compliance.signing import SigningKey

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
EMAIL = Identifier(value="ab" * 32, type="email", format="sha256")
ACCEPTS = frozenset({("email", "sha256")})

# The examples of the IAB's Data Deletion Request Framework 1.0, at commit ee11df4 of
# InteractiveAdvertisingBureau/Data-Subject-Rights. They are decoded there and not signed; the comma
# after `sub`, and a value of optionalParameters, are missing there and added here.
IDENTITY = """{"version": "1.0", "jti": "unique_jwt_identifier", "iss": "publisher1.com",
"sub": {"identifierValue": "28f6dc889e...fe167", "identifierType": "email",
"identifierFormat": "sha256"}, "iat": 1693459424}"""
REQUEST = """{"version": "1.0", "idJWT": "original_jwt_information",
"jti": "unique_jwt_identifier", "iss": "vendor1.com", "sub": {
"identifierValue": "28f6dc889e...fe167", "identifierType": "email",
"identifierFormat": "sha256"}, "iat": 1693459424, "optionalParameters": {}}"""
ACKNOWLEDGEMENT = """{"version": "1.0", "rqJWT": "original_jwt_information", "jti": "6G7H8J",
"iss": "vendor2.com", "iat": 1693459424, "raResultCode": 4,
"raResultString": "Unsupported identifier type: phone"}"""
DISCOVERY = """{"endpoint": "https://www.publisher1.com/api/delete/", "identifiers": [
{ "id": 1, "type": "email", "format": "sha256" }, { "id": 2, "type": "idfa", "format": "hash" }],
"publicKey": [{"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
"y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
"kid": "Public key used in JWS spec Appendix A.3 example"}],
"vendorScriptRequirement": true, "vendorScript": "<script>.....</script>"}"""
# RFC 7515 appendix A.3.1, signed by the key of the example above.
SIGNED = (
    "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNv"
    "bS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxf"
    "KTUJqPP3-Kg6NU1Q"
)


def issuer(domain: str, number: int) -> Issuer:
    return Issuer(domain, "one", SigningKey.from_seed(bytes([number] * 32)))


BRAND, RETAILER, OTHER = issuer("brand.example", 1), issuer("retailer.example", 2), issuer("x.y", 3)


def published(*issuers: Issuer) -> Keys:
    return Keys(
        {
            one.domain: Discovery(
                endpoint=f"https://{one.domain}/erase",
                identifiers=(),
                public_keys=(public_jwk(one.key.public, one.key_id),),
                vendor_script_required=False,
            )
            for one in issuers
        }
    )


KEYS = published(BRAND, RETAILER)


def asked(**changes: Any) -> str:
    identity = BRAND.identity(EMAIL, jti="id-1", now=changes.get("identity_now", NOW))
    return changes.get("by", BRAND).request(
        changes.get("identity", identity),
        changes.get("identifier", EMAIL),
        recipient=changes.get("recipient", RETAILER.domain),
        jti="rq-1",
        now=changes.get("now", NOW),
    )


def read(token: str, **changes: Any) -> Any:
    told = {"audience": RETAILER.domain, "now": NOW, "accepts": ACCEPTS} | changes
    return read_request(token, KEYS, **told)


def tampered(token: str, part: int, **members: object) -> str:
    parts = token.split(".")
    found = json.loads(base64.urlsafe_b64decode(parts[part] + "=="))
    parts[part] = base64.urlsafe_b64encode(json.dumps(found | members).encode()).decode().strip("=")
    return ".".join(parts)


def test_the_published_examples_are_read() -> None:
    identity = IdentityClaims.model_validate_json(IDENTITY)
    request = RequestClaims.model_validate_json(REQUEST)
    told = AcknowledgementClaims.model_validate_json(ACKNOWLEDGEMENT)
    assert (identity.iss, identity.sub.type, identity.iat) == (
        "publisher1.com",
        "email",
        1693459424,
    )
    assert (request.sub, request.optional_parameters) == (identity.sub, {})
    assert told.code is ResultCode.UNSUPPORTED_IDENTIFIER_TYPE
    assert json.loads(identity.model_dump_json(by_alias=True)) == json.loads(IDENTITY)
    assert json.loads(told.model_dump_json(by_alias=True)) == json.loads(ACKNOWLEDGEMENT)


def test_the_published_file_is_read_and_its_key_verifies_the_published_signature() -> None:
    found = Discovery.from_json(DISCOVERY.encode())
    assert json.loads(found.to_json()) == json.loads(DISCOVERY)
    Keys({"publisher1.com": found})
    key = ECKey.import_key(dict(found.public_keys[0]))  # type: ignore[arg-type]
    assert json.loads(jws.deserialize_compact(SIGNED, key, algorithms=["ES256"]).payload)[
        "iss"
    ] == ("joe")


def test_a_request_is_read_with_both_signatures() -> None:
    found = read(asked())
    assert (found.request.jti, found.identity.jti, found.request.sub) == ("rq-1", "id-1", EMAIL)


def test_an_intermediary_forwards_what_was_vouched_for_and_no_alias() -> None:
    identity = RETAILER.identity(EMAIL, jti="id-1", now=NOW)
    assert read(asked(identity=identity)).request.sub == EMAIL
    alias = EMAIL.model_copy(update={"value": "alias"})
    with pytest.raises(TokenError, match="different identifiers"):
        read(asked(identity=identity, identifier=alias))


def test_an_old_identity_asks_for_nothing() -> None:
    with pytest.raises(TokenError, match="days old"):
        read(asked(identity_now=NOW - timedelta(days=7, seconds=1)))


def test_an_acknowledgement_is_read_as_the_answer_to_what_was_sent() -> None:
    request = asked()
    told = RETAILER.acknowledge(request, ResultCode.ACCEPTED, jti="ac-1", now=NOW)
    found = read_acknowledgement(told, KEYS, request=request, recipient=RETAILER.domain, now=NOW)
    assert found.code is ResultCode.ACCEPTED
    with pytest.raises(TokenError, match="another request"):
        read_acknowledgement(told, KEYS, request="x", recipient=RETAILER.domain, now=NOW)
    with pytest.raises(TokenError, match="by another"):
        read_acknowledgement(told, KEYS, request=request, recipient=BRAND.domain, now=NOW)
    with pytest.raises(TokenError, match="of the future"):
        read_acknowledgement(
            told,
            KEYS,
            request=request,
            recipient=RETAILER.domain,
            now=NOW - timedelta(hours=1),
        )


REFUSED: dict[str, tuple[str, ResultCode, str]] = {
    "forged claims": (tampered(asked(), 1, jti="rq-2"), ResultCode.INVALID_SIGNATURE, "verify"),
    "forged identity": (
        asked(identity=tampered(BRAND.identity(EMAIL, jti="i", now=NOW), 1, jti="j")),
        ResultCode.INVALID_SIGNATURE,
        "verify",
    ),
    "no algorithm": (tampered(asked(), 0, alg="none"), ResultCode.INVALID_SIGNATURE, "one of"),
    "secret as key": (tampered(asked(), 0, alg="HS256"), ResultCode.INVALID_SIGNATURE, "one of"),
    "other algorithm": (tampered(asked(), 0, alg="ES256"), ResultCode.INVALID_SIGNATURE, "verify"),
    "critical": (tampered(asked(), 0, crit=["b64"]), ResultCode.INVALID_SIGNATURE, "critical"),
    "unknown key id": (tampered(asked(), 0, kid="two"), ResultCode.INVALID_SIGNATURE, "not among"),
    "key id of a number": (tampered(asked(), 0, kid=1), ResultCode.INVALID_SIGNATURE, "not among"),
    "unknown issuer": (asked(by=OTHER), ResultCode.INVALID_SIGNATURE, "not among"),
    "another's name": (
        tampered(asked(by=OTHER), 1, iss=BRAND.domain),
        ResultCode.INVALID_SIGNATURE,
        "verify",
    ),
    "wrong audience": (asked(recipient="x.y"), ResultCode.MALFORMED_REQUEST, "another audience"),
    "another person than vouched for": (
        asked(identifier=EMAIL.model_copy(update={"value": "cd" * 32})),
        ResultCode.MALFORMED_REQUEST,
        "different identifiers",
    ),
    "an acknowledgement": (
        RETAILER.acknowledge("x", ResultCode.ACCEPTED, jti="a", now=NOW),
        ResultCode.MALFORMED_REQUEST,
        "required",
    ),
    "oversized": ("a" * (MOST_TOKEN_BYTES + 1), ResultCode.INVALID_TOKEN, "at most"),
    "no token": ("not a token", ResultCode.INVALID_TOKEN, "compact form"),
    "two parts": ("e30.e30", ResultCode.INVALID_TOKEN, "compact form"),
    "a list": ("W10.W10.", ResultCode.INVALID_TOKEN, "compact form"),
    "beyond ASCII": ("é.é.é", ResultCode.INVALID_TOKEN, "compact form"),
    "of the future": (
        asked(now=NOW + timedelta(hours=1)),
        ResultCode.INVALID_TIMESTAMP,
        "of the future",
    ),
    "too old": (
        asked(now=NOW - timedelta(days=8), identity_now=NOW - timedelta(days=8)),
        ResultCode.INVALID_TIMESTAMP,
        "days old",
    ),
    "before its identity": (
        asked(identity_now=NOW + timedelta(minutes=1)),
        ResultCode.INVALID_TIMESTAMP,
        "younger",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_and_says_why(name: str) -> None:
    token, code, told = REFUSED[name]
    with pytest.raises(TokenError, match=told) as refusal:
        read(token)
    assert refusal.value.code is code
    assert EMAIL.value not in str(refusal.value)


def test_identifiers_that_are_not_taken_are_told_apart() -> None:
    with pytest.raises(TokenError) as refusal:
        read(asked(), accepts=frozenset({("phone", "sha256")}))
    assert refusal.value.code is ResultCode.UNSUPPORTED_IDENTIFIER_TYPE
    with pytest.raises(TokenError) as refusal:
        read(asked(), accepts=frozenset({("email", "plain")}))
    assert refusal.value.code is ResultCode.INCORRECT_IDENTIFIER_FORMAT


def test_a_repeated_member_is_refused() -> None:
    header, _, signature = asked().split(".")
    body = base64.urlsafe_b64encode(b'{"iss": "brand.example", "iss": "x.y"}').decode().strip("=")
    with pytest.raises(TokenError, match="compact form"):
        read(f"{header}.{body}.{signature}")


@settings(max_examples=60)
@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: raw.hex() + ".e30.e30"))
def test_no_text_raises_anything_else(text: str) -> None:
    with pytest.raises(TokenError):
        read(text)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"kid": ""}, "an id"),
        ({"d": "AAAA"}, "public"),
        ({"kty": "oct"}, "public"),
        ({"x": "AA"}, "cannot be read"),
    ],
)
def test_bad_published_keys_are_refused(change: dict[str, str], told: str) -> None:
    jwk = public_jwk(BRAND.key.public, "one") | change
    file = json.loads(DISCOVERY) | {"publicKey": [jwk]}
    with pytest.raises(ErasureError, match=told):
        Keys({"brand.example": Discovery.from_json(json.dumps(file).encode())})


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"a":1,"a":2}', b" " * 70_000])
def test_a_bad_file_is_refused(content: bytes) -> None:
    with pytest.raises(ErasureError, match=r"dsrdelete\.json"):
        Discovery.from_json(content)


# ------------------------------------------------------------------------------- completions


def outcomes(outcome: ErasureOutcome = ErasureOutcome.DELETED, nonce: str = "0" * 64) -> Outcomes:
    step = Step(target="source", outcome=outcome)
    return Outcomes(request="rq-1", party="retailer", nonce=nonce, steps=(step,))


def test_a_completion_binds_to_its_outcomes_and_hides_them() -> None:
    key = RETAILER.key
    signed = Completion.of(outcomes(), completed=NOW).sign(key)
    found = read_completion(signed, request="rq-1", party="retailer", key=key.public)
    found.check_outcomes(outcomes())
    with pytest.raises(ErasureError, match="other outcomes"):
        found.check_outcomes(outcomes(ErasureOutcome.NOT_HELD))
    other = Completion.of(outcomes(ErasureOutcome.NOT_HELD, "1" * 64), completed=NOW).sign(key)
    assert len(other) == len(signed)


def test_a_completion_of_another_is_refused() -> None:
    signed = Completion.of(outcomes(), completed=NOW).sign(RETAILER.key)
    for request, party, key in (
        ("rq-2", "retailer", RETAILER),
        ("rq-1", "bank", RETAILER),
        ("rq-1", "retailer", BRAND),
    ):
        with pytest.raises(ErasureError):
            read_completion(signed, request=request, party=party, key=key.key.public)
    with pytest.raises(ErasureError, match="malformed"):
        read_completion(b"{}", request="rq-1", party="retailer", key=RETAILER.key.public)


@pytest.mark.parametrize(
    "fields",
    [
        {"outcome": ErasureOutcome.TOLERATED_DP},
        {"outcome": ErasureOutcome.DELETED, "epsilon": 1.0},
        {"outcome": ErasureOutcome.RETRAIN},
        {"outcome": ErasureOutcome.RETIRED, "due": NOW},
    ],
)
def test_a_step_tells_what_justifies_it_and_nothing_else(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is told with"):
        Step(target="model march", **fields)
