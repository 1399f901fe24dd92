"""What a coordinator hands a party so that it can join: one signed file.

Guarantees: an `Invitation` that was opened is whole, free of contradictions and signed by the
coordinator that it names; its draft is one (`compliance.draft`). Its token is a seed: the party
signs with the key that follows from it, so that the token itself is never sent, and what a
coordinator keeps of it (the public half) lets nobody in.

Leaves to others: whether that coordinator is the one that was meant (people compare its
fingerprint), entropy, the way from one to the other: whoever reads the file first can join in the
party's place, until the party finds its name taken.
"""

import hashlib
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Final, Literal, Self

import rfc8785
from cryptography import x509
from pydantic import AfterValidator, Field, ValidationError

from compliance.draft import Draft, InvitedParty
from compliance.errors import InvalidAgreementError, SignatureError, describe
from compliance.signing import Envelope, SigningKey, decode_base64, encode_base64
from compliance.terms import Moment, Name, PartyTerm, Role, Terms
from federation.errors import EnrolmentError
from federation.operations.folder import Address
from privacy.randomness import SECRET_BYTES, Secret, derive_secret

__all__ = ["INVITATION_TYPE", "Invitation", "token_key"]

INVITATION_TYPE: Final = "application/vnd.comity.invitation+json"
"""DSSE payload type of an invitation."""

_CERTIFICATE: Final = "-----BEGIN CERTIFICATE-----"


def _certificate(text: str) -> str:
    try:
        x509.load_pem_x509_certificate(text.encode())
    except ValueError as error:
        raise ValueError("expected a certificate in PEM") from error
    if text.count(_CERTIFICATE) != 1:
        raise ValueError("expected one certificate")
    return text


def _token(text: str) -> str:
    if len(decode_base64(text)) != SECRET_BYTES:
        raise ValueError(f"expected {SECRET_BYTES} bytes")
    return text


def _draft(text: str) -> str:
    try:
        Draft.from_canonical_bytes(text.encode())
    except InvalidAgreementError as error:
        raise ValueError(str(error)) from error
    return text


def token_key(token: Secret) -> SigningKey:
    """Return the key with which whoever holds a token shows it."""
    return SigningKey.from_seed(derive_secret(token, "comity enrolment token"))


class Invitation(Terms):
    """A coordinator's word that a party may join, and all that the party needs for it.

    Attributes:
        version: of this format.
        party: who is invited, by its name in the draft.
        address: host:port of the coordinator's public listener.
        certificate: the one authority (PEM) that vouches for that address.
        coordinator: the coordinator with its public keys.
        draft: the terms, in their canonical spelling.
        token: base64 of 32 secret bytes, good for one set of keys; the only secret in it.
        issued: when, by the coordinator's clock.
        expires: the first moment at which it is too late to register.
    """

    version: Literal[1] = 1
    party: Name
    address: Annotated[Address, Field(max_length=300)]
    certificate: Annotated[str, Field(max_length=8_192), AfterValidator(_certificate)]
    coordinator: PartyTerm
    draft: Annotated[str, Field(max_length=700_000), AfterValidator(_draft)]
    token: Annotated[str, Field(repr=False), AfterValidator(_token)]
    issued: Moment
    expires: Moment

    def _mistakes(self) -> Iterator[str]:
        draft = self.terms
        coordinator = InvitedParty(name=self.coordinator.name, role=Role.COORDINATOR)
        if coordinator not in draft.parties or self.coordinator.role is not Role.COORDINATOR:
            yield f"coordinator: {self.coordinator.name!r} is not the draft's"
        if self.party == self.coordinator.name:
            yield f"party: {self.party!r} is the coordinator itself"
        elif self.party not in {one.name for one in draft.parties}:
            yield f"party: {self.party!r} is none of the draft's"
        if not self.issued < self.expires:
            yield "expires: expected after issued"

    @property
    def terms(self) -> Draft:
        """The draft that `draft` spells."""
        return Draft.from_canonical_bytes(self.draft.encode())

    @property
    def role(self) -> Role:
        """What the invited party is there for."""
        return self.terms.party(self.party).role

    @property
    def canonical_bytes(self) -> bytes:
        """Its one spelling in bytes (RFC 8785)."""
        return rfc8785.dumps(self.model_dump(mode="json"))

    @property
    def digest(self) -> str:
        """SHA-256 of `canonical_bytes`, in hexadecimal: what a registration refers to."""
        return hashlib.sha256(self.canonical_bytes).hexdigest()

    @property
    def token_key(self) -> SigningKey:
        """The key that shows the token."""
        return token_key(Secret(decode_base64(self.token)))

    @classmethod
    def issue(
        cls,
        party: str,
        *,
        address: str,
        certificate: str,
        coordinator: PartyTerm,
        draft: Draft,
        token: Secret,
        issued: datetime,
        expires: datetime,
    ) -> Self:
        """Draw one up.

        Args:
            party: who is invited.
            address: host:port of the public listener.
            certificate: of the authority that vouches for it, PEM.
            coordinator: with its public keys.
            draft: the terms.
            token: fresh, for this invitation alone.
            issued: now.
            expires: when it is too late to register.

        Raises:
            EnrolmentError: what is given contradicts itself; names it.
        """
        try:
            return cls.model_validate(
                {
                    "party": party,
                    "address": address,
                    "certificate": certificate,
                    "coordinator": coordinator,
                    "draft": draft.canonical_bytes.decode(),
                    "token": encode_base64(token),
                    "issued": issued,
                    "expires": expires,
                }
            )
        except ValidationError as error:
            raise EnrolmentError(f"no invitation for {party}: {describe(error)}") from error

    def sign(self, key: SigningKey) -> bytes:
        """Write the file that the party is given, signed with the coordinator's identity key."""
        keys = {self.coordinator.name: key}
        return Envelope.sign(INVITATION_TYPE, self.canonical_bytes, keys).to_json()

    @classmethod
    def open(cls, data: bytes) -> Self:
        """Read what `sign` wrote.

        1. It is an envelope, and its payload an invitation.
        2. In its one spelling.
        3. Signed by the coordinator that it names, and by nobody else.

        Raises:
            EnrolmentError: at the first step that fails.
        """
        asked = "ask the coordinator for the file as it was made"
        try:
            envelope = Envelope.from_json(data)  # 1
            if envelope.payload_type != INVITATION_TYPE:
                raise EnrolmentError(f"no invitation, but another signed file: {asked}")
            found = cls.model_validate_json(envelope.payload_bytes)
            if found.canonical_bytes != envelope.payload_bytes:  # 2
                raise EnrolmentError(f"the invitation is not in canonical JSON (RFC 8785): {asked}")
            name = found.coordinator.name
            envelope.verify_by(name, found.coordinator.verifying_key)  # 3
        except ValidationError as error:
            raise EnrolmentError(f"no invitation: {describe(error)}: {asked}") from error
        except SignatureError as error:
            raise EnrolmentError(f"no invitation, or an altered one: {error}: {asked}") from error
        if envelope.signers != (name,):
            raise EnrolmentError(f"the invitation bears another's signature: {asked}")
        return found
