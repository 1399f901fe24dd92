"""A party's notice: the end of an agreement before its time.

Guarantees: `SignedNotice.verify` returns a notice only if the party that gives it signed these very
bytes, alone, and the agreement's terms allow it.

Leaves to others: what it ends (`compliance.lifecycle`), keeping when it came. The day on which it
was given is its author's word; whoever receives it counts from the later day on which it came.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Final, Literal, Self

import rfc8785
from pydantic import AfterValidator, Field, ValidationError

from compliance.agreement import Agreement, iso
from compliance.errors import (
    AlteredAgreementError,
    InvalidAgreementError,
    SignatureError,
    describe,
)
from compliance.signing import Envelope, SigningKey
from compliance.terms import Line, Moment, Name, Terms

__all__ = ["NOTICE_TYPE", "Notice", "SignedNotice"]

NOTICE_TYPE: Final = "application/vnd.comity.notice+json"
"""DSSE payload type of a notice."""


def _reason(text: str) -> str:
    if "@" in text:
        raise ValueError("expected no '@': a reason stands in logs and must hold no identifier")
    return text


class Notice(Terms):
    """A party ends the agreement.

    Attributes:
        version: of this format.
        agreement: digest of the version that it ends, with all before it.
        party: who gives notice.
        given: when.
        effective_from: first moment at which nothing may leave any more.
        reason: in words.
    """

    version: Literal[1] = 1
    agreement: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    party: Name
    given: Moment
    effective_from: Moment
    reason: Annotated[Line, AfterValidator(_reason)]

    @property
    def canonical_bytes(self) -> bytes:
        """Its one spelling in bytes (RFC 8785)."""
        return rfc8785.dumps(self.model_dump(mode="json"))

    @property
    def digest(self) -> str:
        """SHA-256 of `canonical_bytes`, in hexadecimal."""
        return hashlib.sha256(self.canonical_bytes).hexdigest()

    def check(self, agreement: Agreement) -> None:
        """Return only if the notice is one under that version's terms.

        Raises:
            InvalidAgreementError: the version knows no notice or no such party, or the notice is
                of another version or too short.
        """
        agreement.party(self.party)
        if self.agreement != agreement.digest:
            raise InvalidAgreementError(
                f"the notice is about agreement {self.agreement[:16]}…, expected "
                f"{agreement.digest[:16]}…"
            )
        if agreement.termination is None:
            raise InvalidAgreementError(
                f"agreement {agreement.name!r} has no terms of termination: it ends by time, or by "
                "an amendment that all sign"
            )
        earliest = self.given + timedelta(days=agreement.termination.notice_days)
        if self.effective_from < earliest:
            raise InvalidAgreementError(
                f"the notice takes effect at {iso(self.effective_from)}, and "
                f"{agreement.termination.notice_days} days of notice are agreed: {iso(earliest)} "
                "is the earliest"
            )


@dataclass(frozen=True)
class SignedNotice:
    """A notice in its envelope; nothing in it is to be believed until `verify` returned.

    Attributes:
        envelope: with its author's signature.
        received: when it came, by the clock of whoever holds it; None at its author.
    """

    envelope: Envelope
    received: datetime | None = None

    def effective_from(self, agreement: Agreement) -> datetime:
        """Return the moment from which whoever holds the notice heeds it.

        It is the notice's own, or the days of notice after it came where that is later.

        Raises:
            InvalidAgreementError, AlteredAgreementError: as `verify`.
        """
        notice = self.verify(agreement)
        if self.received is None or agreement.termination is None:
            return notice.effective_from
        days = timedelta(days=agreement.termination.notice_days)
        return max(notice.effective_from, self.received + days)

    @classmethod
    def sign(cls, notice: Notice, key: SigningKey) -> Self:
        """Sign a notice as the party that gives it."""
        return cls(Envelope.sign(NOTICE_TYPE, notice.canonical_bytes, {notice.party: key}))

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read what `to_json` wrote; the signature is not verified yet.

        Raises:
            InvalidAgreementError: it is no notice.
            AlteredAgreementError: a notice in another spelling.
        """
        try:
            signed = cls(Envelope.from_json(data))
        except SignatureError as error:
            raise InvalidAgreementError(f"no signed notice: {error}") from error
        signed.unverified()
        return signed

    def to_json(self) -> bytes:
        """Write the DSSE envelope as JSON."""
        return self.envelope.to_json()

    def unverified(self) -> Notice:
        """Return the notice whatever its signature says.

        Raises:
            InvalidAgreementError: the envelope holds something else.
            AlteredAgreementError: the notice is not in canonical JSON.
        """
        if self.envelope.payload_type != NOTICE_TYPE:
            raise InvalidAgreementError(
                f"no signed notice: expected payload type {NOTICE_TYPE}, got another"
            )
        try:
            notice = Notice.model_validate_json(self.envelope.payload_bytes)
        except ValidationError as error:
            raise InvalidAgreementError(f"notice: {describe(error)}") from error
        if notice.canonical_bytes != self.envelope.payload_bytes:
            raise AlteredAgreementError(
                "the notice is not in canonical JSON (RFC 8785): ask its author for the original"
            )
        return notice

    def verify(self, agreement: Agreement) -> Notice:
        """Return the notice, given under that version by a party of it, which signed it alone.

        Raises:
            InvalidAgreementError: it is none, or not under these terms.
            AlteredAgreementError: it bears another signature than the party's.
        """
        notice = self.unverified()
        notice.check(agreement)
        try:
            self.envelope.verify_by(notice.party, agreement.party(notice.party).verifying_key)
        except SignatureError as error:
            raise AlteredAgreementError(f"the notice of {notice.party!r}: {error}") from error
        if self.envelope.signers != (notice.party,):
            raise AlteredAgreementError(
                f"the notice of {notice.party!r} bears another's signature: ask for the original"
            )
        return notice
