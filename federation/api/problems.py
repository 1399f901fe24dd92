"""What is answered when something cannot be done: problem details (RFC 9457).

Guarantees: each names what is wrong, where, and the remedy; none holds an identifier or a value of
the request. What is the party's own trouble is told to its console, and to callers only that it is.

Leaves to others: raising (everybody).
"""

import logging
import math
import traceback
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from compliance.errors import (
    ComplianceError,
    ConsentStringError,
    ErasureError,
    NothingSaidError,
    UnknownPurposeError,
)
from connectors.errors import (
    ConnectorError,
    MissingColumnError,
    SourceReadOnlyError,
    ValueMisfitError,
)
from federation.api.answers import KeyReusedError, StillAtWorkError
from federation.api.buckets import TooManyRequestsError
from federation.api.clients import UnauthenticatedError
from federation.errors import FederationError, PartyBusyError
from privacy.errors import PrivacyError

__all__ = ["Kind", "Mistake", "Problem", "ProblemError", "problem_of"]

_logger = logging.getLogger("comity.api")
_SECONDS_BUSY: Final = 5


@dataclass(frozen=True)
class Kind:
    """A kind of problem.

    Attributes:
        status: of HTTP.
        name: the end of its type, a URN.
        title: the same for every problem of the kind.
        remedy: likewise.
    """

    status: HTTPStatus
    name: str
    title: str
    remedy: str


class Mistake(BaseModel):
    """Something in a request that is not as it must be.

    Attributes:
        pointer: where, as a JSON pointer (RFC 6901); `…` stands for what the caller chose.
        detail: what was expected.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pointer: str
    detail: str


class Problem(BaseModel):
    """Problem details."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: str
    title: str
    status: int
    detail: str
    remedy: str
    errors: tuple[Mistake, ...] = ()

    @classmethod
    def of(cls, kind: Kind, detail: str | None = None, errors: tuple[Mistake, ...] = ()) -> Any:
        """Return a problem of a kind."""
        return cls(
            type=f"urn:comity:problem:{kind.name}",
            title=kind.title,
            status=kind.status.value,
            detail=detail or kind.title,
            remedy=kind.remedy,
            errors=errors,
        )


class ProblemError(FederationError):
    """A request cannot be done, for a reason that has no other error."""

    def __init__(self, kind: Kind, detail: str | None = None) -> None:
        super().__init__(detail or kind.title)
        self.kind = kind
        self.detail = detail


_S = HTTPStatus
MALFORMED: Final = Kind(
    _S.BAD_REQUEST, "malformed", "The request cannot be read", "send JSON as the schema says"
)
UNAUTHENTICATED: Final = Kind(
    _S.UNAUTHORIZED,
    "unauthenticated",
    "No key of a client was presented that is good",
    "send `Authorization: Bearer KEY`; `comity api client add` makes keys",
)
FORBIDDEN: Final = Kind(
    _S.FORBIDDEN,
    "out-of-scope",
    "The client's key is not for this",
    "use a key with the scope that the detail names",
)
NOT_FOUND: Final = Kind(
    _S.NOT_FOUND, "not-found", "There is no such thing", "see /v1/openapi.json for what there is"
)
NOT_ALLOWED: Final = Kind(
    _S.METHOD_NOT_ALLOWED, "method", "This is not asked in this way", "see /v1/openapi.json"
)
NOTHING_SAID: Final = Kind(
    _S.NOT_FOUND,
    "nothing-said",
    "The person said nothing about the purpose",
    "record what they say first",
)
NOBODY: Final = Kind(
    _S.NOT_FOUND,
    "nobody",
    "Nobody in the party's table bears the identifier",
    "name the person by the party's own reference, or by another identifier",
)
CONFLICT: Final = Kind(
    _S.CONFLICT,
    "key-reused",
    "The idempotency key was used for another request",
    "choose a new key for every request that is another",
)
AT_WORK: Final = Kind(
    _S.CONFLICT, "at-work", "The same request is at work", "send it again in a moment"
)
READ_ONLY: Final = Kind(
    _S.CONFLICT,
    "read-only",
    "The party's table can only be read here",
    "correct the person where the rows come from",
)
TOO_LARGE: Final = Kind(
    _S.REQUEST_ENTITY_TOO_LARGE,
    "too-large",
    "The request's body is too large",
    "send less at once",
)
TOO_SLOW: Final = Kind(
    _S.REQUEST_TIMEOUT, "too-slow", "The request did not come in time", "send it again"
)
INVALID: Final = Kind(
    _S.UNPROCESSABLE_ENTITY,
    "invalid",
    "The request is not as it must be",
    "mend what `errors` or the detail names; /v1/openapi.json says what is expected",
)
PURPOSE: Final = Kind(
    _S.UNPROCESSABLE_ENTITY,
    "unknown-purpose",
    "The agreement does not declare the purpose",
    "use a purpose of the agreement, or have it amended",
)
TOO_MANY: Final = Kind(
    _S.TOO_MANY_REQUESTS,
    "too-many-requests",
    "The client asks too often",
    "wait as Retry-After says",
)
BUSY: Final = Kind(
    _S.SERVICE_UNAVAILABLE,
    "busy",
    "A job or other requests hold the party's folder, and nothing was done",
    "send the same request again, under the same idempotency key, as Retry-After says",
)
TROUBLE: Final = Kind(
    _S.SERVICE_UNAVAILABLE,
    "trouble",
    "The party cannot do it at present",
    "the party's own console says what is wrong; send it again later",
)
UNAVAILABLE: Final = Kind(
    _S.SERVICE_UNAVAILABLE,
    "not-set-up",
    "The party has not set this up",
    "its operator names what the detail says in the API's configuration",
)
OURS: Final = Kind(
    _S.INTERNAL_SERVER_ERROR, "internal", "An error of our own", "the party's console tells of it"
)

_KINDS: Final[tuple[tuple[type[Exception], Kind, bool], ...]] = (
    (UnauthenticatedError, UNAUTHENTICATED, True),
    (TooManyRequestsError, TOO_MANY, True),
    (KeyReusedError, CONFLICT, True),
    (StillAtWorkError, AT_WORK, True),
    (PartyBusyError, BUSY, True),
    (UnknownPurposeError, PURPOSE, True),
    (NothingSaidError, NOTHING_SAID, True),
    (ConsentStringError, INVALID, True),
    (ErasureError, INVALID, True),
    (ValueMisfitError, INVALID, False),
    (MissingColumnError, INVALID, False),
    (SourceReadOnlyError, READ_ONLY, False),
)
"""Which kind an error is of, and whether its text is for callers; the first that fits counts."""


def problem_of(error: Exception) -> tuple[Problem, dict[str, str]]:
    """Return what is answered of an error, and headers beside it."""
    if isinstance(error, ProblemError):
        return Problem.of(error.kind, error.detail), {}
    for type_, kind, told in _KINDS:
        if isinstance(error, type_):
            return Problem.of(kind, str(error) if told else _named(error)), _headers(kind, error)
    if isinstance(error, FederationError | ComplianceError | ConnectorError | PrivacyError):
        _logger.error("%s: %s", type(error).__name__, error)
        return Problem.of(TROUBLE), _headers(BUSY, error)
    # Its text is anybody's, and may quote what was asked: where it arose says enough.
    where = "".join(traceback.format_tb(error.__traceback__))
    _logger.error("%s\n%s", type(error).__name__, where)
    return Problem.of(OURS), {}


def _named(error: Exception) -> str | None:
    if isinstance(error, MissingColumnError):
        return f"the party's table lacks {len(error.missing)} of the columns"
    return "a value does not fit its column" if isinstance(error, ValueMisfitError) else None


def _headers(kind: Kind, error: Exception) -> dict[str, str]:
    if isinstance(error, TooManyRequestsError):
        return {"Retry-After": str(max(1, math.ceil(error.seconds)))}
    if kind is UNAUTHENTICATED:
        return {"WWW-Authenticate": "Bearer"}
    return {"Retry-After": str(_SECONDS_BUSY)} if kind in {BUSY, AT_WORK} else {}
