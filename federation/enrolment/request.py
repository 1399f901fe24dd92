"""What a party asks of the coordinator that invited it, and what it is told: each is one text.

Guarantees: what is too long is not read, and what is malformed says where. Leaves to others:
whether a request is granted (`register`), and what an answer is worth (`joining`).
"""

from collections.abc import Callable
from typing import Annotated, Final, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from compliance.agreement import SignedAgreement
from compliance.errors import describe
from compliance.signing import ENVELOPE_LIMIT, Signature, decode_base64
from compliance.terms import Digest, Name, Terms
from federation.enrolment.registration import Registration
from federation.errors import EnrolmentError

__all__ = [
    "REQUEST_LIMIT",
    "STANDING_LIMIT",
    "Base64",
    "Request",
    "Standing",
    "Submission",
    "read_request",
]

ParsedT = TypeVar("ParsedT")

REQUEST_LIMIT: Final = 65_536
"""Bytes of the longest request; a registration has some 12,000."""

STANDING_LIMIT: Final = 2 * ENVELOPE_LIMIT
"""Bytes of the longest answer."""


def _base64(text: str) -> str:
    decode_base64(text)
    return text


Base64 = Annotated[str, AfterValidator(_base64)]
"""Text that is base64."""


class Submission(Terms):
    """A party's signature under the agreement, and its answer to the challenge.

    Attributes:
        kind: tells it from a registration.
        agreement: digest of what was signed.
        signature: the party's, over the agreement's envelope.
        answer: base64 of the challenge, opened; of parties with an encryption key.
    """

    kind: Literal["signature"] = "signature"
    agreement: Digest
    signature: Signature
    answer: Annotated[Base64, Field(max_length=44)] | None = None


Request = Registration | Submission
"""What a party asks of a coordinator."""

_REQUESTS: Final[TypeAdapter[Request]] = TypeAdapter(
    Annotated[Registration | Submission, Field(discriminator="kind")]
)


def read_request(data: bytes) -> Request:
    """Read what a party asks.

    Raises:
        EnrolmentError: too long, or nothing of the kind.
    """
    return _parse_bounded(data, _REQUESTS.validate_json, REQUEST_LIMIT, "request to join")


def _parse_bounded(
    data: bytes, parse: Callable[[bytes], ParsedT], limit: int, named: str
) -> ParsedT:
    """Read what somebody sent, unless it is too long.

    Raises:
        EnrolmentError: it is, or is nothing of the kind.
    """
    if len(data) > limit:
        raise EnrolmentError(f"no {named}: expected at most {limit} bytes, got more")
    try:
        return parse(data)
    except ValidationError as error:
        raise EnrolmentError(f"no {named}: {describe(error)}") from error


class Standing(Terms):
    """What a coordinator tells a party; nothing in it is to be believed (`joining` checks it).

    Attributes:
        missing: parties that have yet to join.
        agreement: the agreement's envelope (JSON) with the signatures so far, once all have joined.
        challenge: base64 of 32 bytes sealed to the party's encryption key, where it has one.
    """

    missing: tuple[Name, ...] = ()
    agreement: Annotated[str, Field(max_length=ENVELOPE_LIMIT)] | None = None
    challenge: Annotated[Base64, Field(max_length=2_048)] | None = None

    @property
    def signed(self) -> SignedAgreement | None:
        """The agreement with the signatures so far, once all have joined.

        Raises:
            InvalidAgreementError: what stands there is none.
        """
        if self.agreement is None:
            return None
        return SignedAgreement.from_json(self.agreement.encode())

    @property
    def unsigned(self) -> tuple[str, ...]:
        """Who has yet to sign, once all have joined, in the agreement's order."""
        if (signed := self.signed) is None:
            return ()
        signers = signed.signed_by
        return tuple(one.name for one in signed.unverified().parties if one.name not in signers)

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read an answer.

        Raises:
            EnrolmentError: too long, or none.
        """
        named = "answer of a coordinator"
        return _parse_bounded(data, cls.model_validate_json, STANDING_LIMIT, named)
