"""An agreement with signatures round it.

Guarantees: `SignedAgreement.verify` returns an agreement only if every party named in it signed
these very bytes.

Sources: DSSE v1.0 (through `compliance.signing`), RFC 8032 (Ed25519).
"""

from dataclasses import dataclass
from typing import Final, Self

from compliance.agreement.contents import names_of
from compliance.agreement.contract import Agreement
from compliance.errors import (
    AlteredAgreementError,
    InvalidAgreementError,
    SignatureError,
    UnsignedAgreementError,
)
from compliance.signing import Envelope, SigningKey

__all__ = ["PAYLOAD_TYPE", "SignedAgreement"]

PAYLOAD_TYPE: Final = "application/vnd.comity.agreement+json"
"""DSSE payload type of a signed agreement."""


@dataclass(frozen=True)
class SignedAgreement:
    """An agreement on its way round the parties, or back with all their signatures.

    Nothing in it is to be believed until `verify` returned; `unverified` is for reading before
    signing.
    """

    envelope: Envelope

    @classmethod
    def draft(cls, agreement: Agreement) -> Self:
        """Wrap an agreement that nobody has signed yet.

        Raises:
            InvalidAgreementError: it was altered past its own checks, or is over 750,000 bytes.
        """
        payload = agreement.canonical_bytes
        Agreement.from_canonical_bytes(payload)
        try:
            return cls(Envelope.sign(PAYLOAD_TYPE, payload, {}))
        except SignatureError as error:
            raise InvalidAgreementError(f"agreement {agreement.name!r}: {error}") from error

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read a file that `to_json` wrote; signatures are not verified yet.

        Raises:
            InvalidAgreementError: it is no envelope, or holds no agreement.
            AlteredAgreementError: its agreement is not in canonical JSON.
        """
        try:
            signed = cls(Envelope.from_json(data))
        except SignatureError as error:
            raise InvalidAgreementError(f"no signed agreement: {error}") from error
        signed.unverified()
        return signed

    def to_json(self) -> bytes:
        """Write the DSSE envelope as JSON."""
        return self.envelope.to_json()

    def unverified(self) -> Agreement:
        """Return the agreement whatever its signatures say: to read, to sign, never to obey.

        Raises:
            InvalidAgreementError: the envelope holds something else.
            AlteredAgreementError: the agreement is not in canonical JSON.
        """
        if self.envelope.payload_type != PAYLOAD_TYPE:
            raise InvalidAgreementError(
                f"no signed agreement: expected payload type {PAYLOAD_TYPE}, got another"
            )
        return Agreement.from_canonical_bytes(self.envelope.payload_bytes)

    @property
    def signed_by(self) -> tuple[str, ...]:
        """Names of the parties whose valid signature it bears, in the order of signing.

        Raises:
            AlteredAgreementError: a signature does not cover this agreement, or is a stranger's.
        """
        return self._signers_of(self.unverified())

    def _signers_of(self, agreement: Agreement) -> tuple[str, ...]:
        keys = {party.name: party.verifying_key for party in agreement.parties}
        if any(signer not in keys for signer in self.envelope.signers):
            raise AlteredAgreementError(
                f"agreement {agreement.name!r} bears a signature of somebody who is no party "
                f"of it ({names_of(agreement.parties)}): ask its author for the original"
            )
        message = self.envelope.signed_bytes
        for signature in self.envelope.signatures:
            try:
                signature.verify(keys[signature.keyid], message)
            except SignatureError as error:
                raise AlteredAgreementError(
                    f"agreement {agreement.name!r} is not what {signature.keyid!r} signed: {error}"
                ) from error
        return self.envelope.signers

    def sign(self, party: str, key: SigningKey) -> Self:
        """Return the agreement with one signature more; signing again changes nothing.

        Args:
            party: who signs, by its name in the agreement.
            key: its identity key, the one that the agreement names.

        Raises:
            InvalidAgreementError: the agreement has no such party.
            SignatureError: the agreement names another key for it.
            AlteredAgreementError: a signature that is there already is not valid.
        """
        agreement = self.unverified()
        expected = agreement.party(party).verifying_key
        if key.public != expected:
            raise SignatureError(
                f"agreement {agreement.name!r} names key {expected.fingerprint} for {party!r}, got "
                f"{key.public.fingerprint}: sign with that key, or have the agreement amended"
            )
        if party in self._signers_of(agreement):
            return self
        return type(self)(self.envelope.add_signature(party, key))

    def verify(self) -> Agreement:
        """Return the agreement, signed by every party in it.

        1. The payload is an agreement, by type, form and canonical spelling.
        2. Every signature is a party's and valid.
        3. Every party has signed.

        Raises:
            InvalidAgreementError: step 1 fails.
            AlteredAgreementError: step 1 fails by the spelling, or step 2 fails.
            UnsignedAgreementError: step 3 fails; names who is missing.
        """
        agreement = self.unverified()  # 1
        signed_by = self._signers_of(agreement)  # 2
        missing = [party for party in agreement.parties if party.name not in signed_by]
        if missing:  # 3
            raise UnsignedAgreementError(
                f"agreement {agreement.name!r} is not signed by {names_of(missing)}: each of them "
                "runs `comity agreement sign`"
            )
        return agreement
