"""Messages as they travel, and what is verified before one is read.

Guarantees: `unseal` returns only what it has verified. Sealing is `gate`'s alone.
"""

import hashlib
from dataclasses import dataclass, replace

from pydantic import ValidationError

from compliance.agreement import Agreement
from compliance.errors import ComplianceError
from compliance.signing import Envelope, VerifyingKey
from federation.errors import ForgedError, MessageError, StrangerError
from federation.messages.header import MAX_PAYLOAD_BYTES, Body, Encrypted, Header
from federation.wire import check_version

__all__ = [
    "EVERYONE",
    "HEADER_TYPE",
    "PADDING_CHUNK_BYTES",
    "Message",
    "SealedMessage",
    "check_size",
    "content_digest",
    "unseal",
    "unseal_header",
]

HEADER_TYPE = "application/vnd.comity.message+json"
"""DSSE payload type of a header."""

EVERYONE = "everyone"
"""Recipient of the one question that goes to nodes whose party is not known yet."""

MAX_HEADER_BYTES = 64 * 1024

PADDING_CHUNK_BYTES = 64 * 1024
"""What is encrypted is padded to a multiple of this, which alone shows of its size."""


@dataclass(frozen=True)
class SealedMessage:
    """Bytes as they travel: a DSSE envelope around the header, and the payload."""

    envelope: bytes
    payload: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of the envelope (hex): names the message, payload included."""
        return content_digest(self.envelope)


@dataclass(frozen=True)
class Message:
    """A message whose sender, agreement, size and payload have been verified.

    Attributes:
        header: what was signed.
        body: what is said; `Encrypted` for everybody but the recipient who has decrypted it.
        payload: what goes with the body; encrypted where the body is.
        sealed: the bytes as they travelled.
    """

    header: Header
    body: Body | Encrypted
    payload: bytes
    sealed: SealedMessage

    def decrypted(self, body: Body, payload: bytes) -> "Message":
        """Return the message with what was encrypted in it."""
        return replace(self, body=body, payload=payload)


def content_digest(content: bytes) -> str:
    """Return the SHA-256 of `content` in hex."""
    return hashlib.sha256(content).hexdigest()


def check_size(kind: str, payload: bytes) -> None:
    """Refuse a payload that is larger than any may be.

    Raises:
        MessageError: it is.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise MessageError(
            f"{kind} with a payload of {len(payload)} bytes; at most {MAX_PAYLOAD_BYTES} are "
            "accepted"
        )


def _sender_key(agreement: Agreement, sender: str) -> VerifyingKey:
    for party in agreement.parties:
        if party.name == sender:
            return VerifyingKey.from_base64(party.identity_key)
    raise StrangerError(
        f"message from {sender!r}, who is no party of agreement {agreement.name!r} "
        f"(parties: {', '.join(party.name for party in agreement.parties)})"
    )


def unseal(sealed: SealedMessage, agreement: Agreement) -> Message:
    """Verify a message and return what it says.

    1. Bound the sizes.
    2. Parse the envelope and the header, closed.
    3. The sender is a party of the agreement, and its signature holds; the envelope is as the
       sender wrote it, so that whoever carries it cannot make two messages of one.
    4. The message was made under this agreement.
    5. The payload is the one that was signed.

    The caller finishes: is it the recipient, and does the body fit the moment?

    Raises:
        MessageError: at the first step that fails; nothing of the message may be used.
    """
    check_size("message", sealed.payload)  # 1
    header = unseal_header(sealed.envelope, agreement)  # 1 to 4
    # 5
    if len(sealed.payload) != header.payload_bytes:
        raise MessageError(
            f"message from {header.sender} has {len(sealed.payload)} payload bytes; "
            f"{header.payload_bytes} were signed"
        )
    if content_digest(sealed.payload) != header.payload_digest:
        raise MessageError(f"payload of a message from {header.sender} is not the one signed")
    return Message(header, header.body, sealed.payload, sealed)


def unseal_header(written: bytes, agreement: Agreement) -> Header:
    """Verify what somebody signed, whose payload is not at hand: steps 1 to 4 of `unseal`.

    Raises:
        VersionError: it is of another version of the wire.
        StrangerError: its sender is no party of the agreement.
        ForgedError: it is no message, or its sender did not sign it.
        MessageError: at the first step that fails.
    """
    # 1
    if len(written) > MAX_HEADER_BYTES:
        raise MessageError(
            f"envelope of {len(written)} bytes; at most {MAX_HEADER_BYTES} are accepted"
        )
    try:
        # 2
        envelope = Envelope.from_json(written)
        if envelope.payload_type != HEADER_TYPE:
            raise MessageError(f"message of another type; expected {HEADER_TYPE}")
        check_version(envelope.payload_bytes)
        header = Header.model_validate_json(envelope.payload_bytes)
        # 3
        envelope.verify_by(header.sender, _sender_key(agreement, header.sender))
    except (ComplianceError, ValidationError) as error:
        detail = f"{error.error_count()} errors" if isinstance(error, ValidationError) else error
        raise ForgedError(f"message that cannot be trusted: {detail}") from error
    if envelope.signers != (header.sender,) or envelope.to_json() != written:
        raise ForgedError(f"envelope of {header.sender}'s message was changed on its way")
    # 4
    if header.agreement != agreement.digest:
        raise MessageError(
            f"message from {header.sender} under agreement {header.agreement[:16]}…; "
            f"this party holds {agreement.digest[:16]}…: both must hold the same signed agreement"
        )
    return header
