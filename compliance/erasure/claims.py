"""What the tokens of the IAB Data Deletion Request Framework 1.0 say, and its `dsrdelete.json`.

Guarantees: what is read is of a bounded size and names no member twice.

Leaves to others: who signed it (`wire`). Claims that nobody knows here are ignored.
"""

import json
from collections.abc import Mapping
from enum import IntEnum
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from compliance.errors import ErasureError, describe

__all__ = [
    "MOST_TOKEN_BYTES",
    "AcknowledgementClaims",
    "Claims",
    "Discovery",
    "Identifier",
    "IdentityClaims",
    "RequestClaims",
    "ResultCode",
    "Supported",
    "TokenError",
    "json_object",
]

MOST_TOKEN_BYTES: Final = 64 * 1024
"""Length of the longest token; a request holds an identity, and an acknowledgement a request."""


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


class Claims(BaseModel):
    """What a token says."""

    # Claims that nobody here knows are ignored (RFC 7519 §4).
    model_config = ConfigDict(
        frozen=True, extra="ignore", populate_by_name=True, hide_input_in_errors=True
    )


Id = Annotated[str, Field(min_length=1, max_length=256)]
Domain = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
Token = Annotated[str, Field(min_length=1, max_length=MOST_TOKEN_BYTES)]
Timestamp = Annotated[int, Field(strict=True, ge=0, lt=1 << 40)]


class Identifier(Claims):
    """What a request is about: a value, what it is, and how it is written."""

    value: Annotated[str, Field(alias="identifierValue", min_length=1, max_length=4096, repr=False)]
    type: Annotated[str, Field(alias="identifierType", min_length=1, max_length=64)]
    format: Annotated[str, Field(alias="identifierFormat", min_length=1, max_length=64)]


class IdentityClaims(Claims):
    """What the first party vouches for (idJWT)."""

    version: Literal["1.0"] = "1.0"
    jti: Id
    iss: Domain
    sub: Identifier
    iat: Timestamp


class RequestClaims(Claims):
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


class AcknowledgementClaims(Claims):
    """A recipient's answer (acJWT)."""

    version: Literal["1.0"] = "1.0"
    request: Annotated[Token, Field(alias="rqJWT", repr=False)]
    jti: Id
    iss: Domain
    iat: Timestamp
    code: Annotated[ResultCode, Field(alias="raResultCode")]
    told: Annotated[str | None, Field(alias="raResultString", max_length=500)] = None


class Supported(Claims):
    """An identifier that a recipient takes."""

    id: int
    type: str
    format: str


class Discovery(Claims):
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
            return cls.model_validate(json_object(content))
        except ValidationError as error:
            raise ErasureError(f"dsrdelete.json: {describe(error)}") from error
        except ValueError as error:
            raise ErasureError(f"dsrdelete.json: {error}") from error

    def to_json(self) -> bytes:
        """Write the file to publish."""
        return self.model_dump_json(by_alias=True, exclude_none=True, indent=2).encode() + b"\n"


def json_object(content: bytes) -> dict[str, Any]:
    """Read a JSON object that names no member twice.

    Raises:
        ValueError: it is none.
        RecursionError: it is nested too deeply.
    """
    found = json.loads(content, object_pairs_hook=_once)
    if not isinstance(found, dict):
        raise ValueError("expected a JSON object")  # noqa: TRY004  callers collect ValueErrors
    return found


def _once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(members)) != len(members):
        raise ValueError("a JSON member is repeated")
    return dict(members)
