"""What a message holds for its recipient alone: a body and its payload, padded and encrypted.

```
plaintext   length of the body (4 bytes) · length of the payload (8) · body (JSON) · payload · zeros
context     "comity enclosure 1" and the header without the payload's digest and length (RFC 8785)
payload     the plaintext, sealed to the recipient's key in this context (`privacy.encryption`)
```

Guarantees: who carries a message reads nothing of it but its header, and its size in chunks of
`PADDING_CHUNK_BYTES`. A sealed payload opens in no other message: the context holds agreement, job,
sender, recipient, kind, and what is answered.

Leaves to others: which kinds are encrypted (`routes`), who says it (the signature over the header,
which covers the sealed payload), and whose key is whose (the agreement).
"""

import struct
from typing import Final

import rfc8785
from pydantic import TypeAdapter, ValidationError

from compliance.agreement import Agreement
from federation.errors import MessageError
from federation.messages import (
    MAX_PAYLOAD_BYTES,
    PADDING_CHUNK_BYTES,
    Body,
    Encrypted,
    Header,
    Message,
    content_digest,
)
from privacy.encryption import SEAL_BYTES, DecryptionKey, EncryptionKey
from privacy.errors import InvalidParameterError, PeerMessageError

__all__ = ["decrypt", "encrypt"]

_LABEL: Final = b"comity enclosure 1\n"
_LENGTHS: Final = struct.Struct(">IQ")
_BODY: Final[TypeAdapter[Body]] = TypeAdapter(Body)


def encrypt(header: Header, payload: bytes, agreement: Agreement) -> tuple[Header, bytes]:
    """Close a body and its payload to all but the recipient.

    Args:
        header: with the body in clear.
        payload: in clear.
        agreement: names the recipient's key.

    Returns:
        The header and the payload as they travel.

    Raises:
        MessageError: too long, or the agreement names no sound key of the recipient.
    """
    plaintext = _pack(rfc8785.dumps(header.body.model_dump(mode="json")), payload)
    if (size := len(plaintext) + SEAL_BYTES) > MAX_PAYLOAD_BYTES:
        raise MessageError(
            f"{header.kind} for {header.recipient} would have {size} payload bytes; at most "
            f"{MAX_PAYLOAD_BYTES} are accepted: bring fewer people"
        )
    outside = header.model_copy(update={"body": Encrypted(encrypts=header.kind)})
    sealed = _key_of(header.recipient, agreement).seal(plaintext, _context(outside))
    signed = {"payload_digest": content_digest(sealed), "payload_bytes": len(sealed)}
    return outside.model_copy(update=signed), sealed


def decrypt(message: Message, key: DecryptionKey) -> Message:
    """Open a verified message, as its recipient; one in clear is returned as it is.

    1. It opens with this key, in the context of its own header.
    2. Lengths and padding are the only ones that its contents can have.
    3. The body is of the kind that the header tells.

    Raises:
        MessageError: at the first step that fails.
    """
    outside = message.body
    if not isinstance(outside, Encrypted):
        return message
    told = f"{outside.encrypts} from {message.header.sender}"
    try:
        content, payload = _unpack(key.open(message.payload, _context(message.header)))  # 1, 2
        body = _BODY.validate_json(content)
    except (PeerMessageError, ValidationError, MessageError) as error:
        detail = f"{error.error_count()} errors" if isinstance(error, ValidationError) else error
        raise MessageError(f"{told} that cannot be read: {detail}") from error
    if body.kind != outside.encrypts:  # 3
        raise MessageError(f"{told} holds {body.kind}")
    return message.decrypted(body, payload)


def _key_of(party: str, agreement: Agreement) -> EncryptionKey:
    for term in agreement.parties:
        if term.name == party and term.encryption_key is not None:
            try:
                return EncryptionKey.from_base64(term.encryption_key)
            except InvalidParameterError as error:
                raise MessageError(
                    f"agreement {agreement.name!r}: {party}: {error}: sign one with a sound key"
                ) from error
    raise MessageError(f"agreement {agreement.name!r} names no encryption key of {party!r}")


def _context(header: Header) -> bytes:
    """Return what the recipient must find in the header, in one spelling."""
    told = header.model_dump(mode="json", exclude={"payload_digest", "payload_bytes"})
    return _LABEL + rfc8785.dumps(told)


def _pack(content: bytes, payload: bytes) -> bytes:
    lengths = _LENGTHS.pack(len(content), len(payload))
    padding = -(len(lengths) + len(content) + len(payload)) % PADDING_CHUNK_BYTES
    return b"".join((lengths, content, payload, bytes(padding)))


def _unpack(plaintext: bytes) -> tuple[bytes, bytes]:
    if not plaintext or len(plaintext) % PADDING_CHUNK_BYTES:
        raise MessageError(
            f"{len(plaintext)} bytes; expected a multiple of {PADDING_CHUNK_BYTES}, not 0"
        )
    content_bytes, payload_bytes = _LENGTHS.unpack_from(plaintext)
    begins = _LENGTHS.size + content_bytes
    ends = begins + payload_bytes
    padding = len(plaintext) - ends
    if padding >= PADDING_CHUNK_BYTES or plaintext.count(0, ends) != padding:
        raise MessageError("lengths and padding that do not fit together")
    return plaintext[_LENGTHS.size : begins], plaintext[begins:ends]
