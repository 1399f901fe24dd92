"""Everything on the wire: closed, versioned, signed by its sender under one agreement.

A message is a header (JSON, in a DSSE envelope signed with the sender's identity key) and a
payload of raw bytes that the header binds by length and SHA-256. It names its sender, recipient,
agreement, job, and the message that it answers, so that nothing can be forged, moved to another
job or agreement, or answered twice differently, by the coordinator that carries it.

Guarantees: `unseal` returns only what it has verified. Sealing is `gate`'s alone.

Leaves to others: what a body means at which moment (`jobs`), how bytes travel (`channel`).
"""

import hashlib
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from compliance.agreement import Agreement
from compliance.errors import ComplianceError
from compliance.signing import Envelope, VerifyingKey
from federation.errors import MessageError
from federation.specification import ExpandSpec, JobName, MatchSpec, TrainSpec
from privacy.psi.blinding import TAG_BYTES
from privacy.psi.engine import Points
from privacy.psi.field import ELEMENT_BYTES
from privacy.psi.two_party import SenderReply

__all__ = [
    "EVERYONE",
    "HEADER_TYPE",
    "Acknowledged",
    "Body",
    "ExpandDone",
    "ExpandRequest",
    "Header",
    "Identify",
    "MatchBlinded",
    "MatchDone",
    "MatchReply",
    "MatchRequest",
    "Message",
    "ModelPublished",
    "Present",
    "Refused",
    "SealedMessage",
    "TrainRequest",
    "TrainUpdate",
    "content_digest",
    "points_from_bytes",
    "reply_from_bytes",
    "unseal",
    "weights_from_bytes",
    "weights_to_bytes",
]

HEADER_TYPE = "application/vnd.comity.message+json"
"""DSSE payload type of a header."""

EVERYONE = "everyone"
"""Recipient of the one question that goes to nodes whose party is not known yet."""

MAX_HEADER_BYTES = 64 * 1024
MAX_PAYLOAD_BYTES = 1 << 30

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
PartyName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
Count = Annotated[int, Field(ge=0, le=1 << 32)]
Text = Annotated[str, Field(min_length=1, max_length=500)]


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Identify(_Closed):
    """Coordinator to a node it does not know yet: which party are you?"""

    kind: Literal["identify"] = "identify"


class Present(_Closed):
    """A node's answer: the sender of this message."""

    kind: Literal["present"] = "present"


class MatchRequest(_Closed):
    """Coordinator to partner: start a match with the brand."""

    kind: Literal["match.request"] = "match.request"
    spec: MatchSpec
    brand: PartyName


class MatchBlinded(_Closed):
    """Partner to brand: the partner's blinded, padded, shuffled identifiers (payload: points)."""

    kind: Literal["match.blinded"] = "match.blinded"
    spec: MatchSpec
    points: Count


class MatchReply(_Closed):
    """Brand to partner: tags of those points, blinded again, then the brand's own points."""

    kind: Literal["match.reply"] = "match.reply"
    spec: MatchSpec
    tags: Count
    blinded: Count


class MatchDone(_Closed):
    """Partner to coordinator: enough people matched. How many stays with the partner."""

    kind: Literal["match.done"] = "match.done"


class TrainRequest(_Closed):
    """Coordinator to partner: train one round from these parameters (payload: weights)."""

    kind: Literal["train.request"] = "train.request"
    spec: TrainSpec
    round: int = Field(ge=1, le=1_000)
    width: int = Field(ge=1, le=1_000_000)


class TrainUpdate(_Closed):
    """Partner to coordinator: differentially private parameters after a round (payload)."""

    kind: Literal["train.update"] = "train.update"
    round: int = Field(ge=1, le=1_000)
    width: int = Field(ge=1, le=1_000_000)


class ModelPublished(_Closed):
    """Coordinator to every party: the joint model (payload: its JSON)."""

    kind: Literal["model.published"] = "model.published"
    spec: TrainSpec


class ExpandRequest(_Closed):
    """Coordinator to partner: score your people and keep the best."""

    kind: Literal["expand.request"] = "expand.request"
    spec: ExpandSpec


class ExpandDone(_Closed):
    """Partner to coordinator: the segment is written. Who and how many stays with the partner."""

    kind: Literal["expand.done"] = "expand.done"


class Acknowledged(_Closed):
    """Received, verified and kept."""

    kind: Literal["acknowledged"] = "acknowledged"


class Refused(_Closed):
    """No, by which term, and the smallest change that would pass."""

    kind: Literal["refused"] = "refused"
    term: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.]{0,62}$")]
    remedy: Text


Body = Annotated[
    Identify
    | Present
    | MatchRequest
    | MatchBlinded
    | MatchReply
    | MatchDone
    | TrainRequest
    | TrainUpdate
    | ModelPublished
    | ExpandRequest
    | ExpandDone
    | Acknowledged
    | Refused,
    Field(discriminator="kind"),
]


class Header(_Closed):
    """What is signed.

    Attributes:
        agreement: digest of the agreement under which the message travels.
        job: the job it belongs to.
        sender: party that signs it.
        recipient: party it is meant for; the coordinator may carry it further, not read it anew.
        answers: digest of the message that it answers; None for one that opens an exchange.
        body: what is said.
        payload_digest: SHA-256 of the payload.
        payload_bytes: length of the payload.
    """

    version: Literal[1] = 1
    agreement: Digest
    job: JobName
    sender: PartyName
    recipient: PartyName
    answers: Digest | None = None
    body: Body
    payload_digest: Digest
    payload_bytes: int = Field(ge=0, le=MAX_PAYLOAD_BYTES)


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
    """A message whose sender, agreement, size and payload have been verified."""

    header: Header
    payload: bytes
    sealed: SealedMessage

    @property
    def body(self) -> Body:
        """What is said."""
        return self.header.body


def content_digest(content: bytes) -> str:
    """Return the SHA-256 of `content` in hex."""
    return hashlib.sha256(content).hexdigest()


def _sender_key(agreement: Agreement, sender: str) -> VerifyingKey:
    for party in agreement.parties:
        if party.name == sender:
            return VerifyingKey.from_base64(party.identity_key)
    raise MessageError(
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
    # 1
    if len(sealed.envelope) > MAX_HEADER_BYTES or len(sealed.payload) > MAX_PAYLOAD_BYTES:
        raise MessageError(
            f"message of {len(sealed.envelope)} + {len(sealed.payload)} bytes; at most "
            f"{MAX_HEADER_BYTES} + {MAX_PAYLOAD_BYTES} are accepted"
        )
    try:
        # 2
        envelope = Envelope.from_json(sealed.envelope)
        if envelope.payload_type != HEADER_TYPE:
            raise MessageError(f"message of another type; expected {HEADER_TYPE}")
        header = Header.model_validate_json(envelope.payload_bytes)
        # 3
        envelope.verify_by(header.sender, _sender_key(agreement, header.sender))
    except (ComplianceError, ValidationError) as error:
        detail = f"{error.error_count()} errors" if isinstance(error, ValidationError) else error
        raise MessageError(f"message that cannot be trusted: {detail}") from error
    if envelope.signers != (header.sender,) or envelope.to_json() != sealed.envelope:
        raise MessageError(f"envelope of {header.sender}'s message was changed on its way")
    # 4
    if header.agreement != agreement.digest:
        raise MessageError(
            f"message from {header.sender} under agreement {header.agreement[:16]}…; "
            f"this party holds {agreement.digest[:16]}…: both must hold the same signed agreement"
        )
    # 5
    if len(sealed.payload) != header.payload_bytes:
        raise MessageError(
            f"message from {header.sender} has {len(sealed.payload)} payload bytes; "
            f"{header.payload_bytes} were signed"
        )
    if content_digest(sealed.payload) != header.payload_digest:
        raise MessageError(f"payload of a message from {header.sender} is not the one signed")
    return Message(header, sealed.payload, sealed)


def _array(payload: bytes, dtype: str, count: int, what: str) -> NDArray[np.generic]:
    expected = count * np.dtype(dtype).itemsize
    if len(payload) != expected:
        raise MessageError(f"{what}: got {len(payload)} bytes, expected {expected}")
    return np.frombuffer(payload, dtype=dtype)


def weights_to_bytes(weights: NDArray[np.float64]) -> bytes:
    """Encode model parameters as little-endian doubles."""
    return weights.astype("<f8").tobytes()


def weights_from_bytes(payload: bytes, width: int) -> NDArray[np.float64]:
    """Decode `width` finite little-endian doubles.

    Raises:
        MessageError: wrong length, NaN or infinity.
    """
    weights = _array(payload, "<f8", width, "model parameters").astype(np.float64)
    if not np.isfinite(weights).all():
        raise MessageError("model parameters: NaN or infinite values; expected finite ones")
    return weights


def points_from_bytes(payload: bytes, count: int) -> Points:
    """Decode `count` curve points of 32 bytes.

    Raises:
        MessageError: the payload has another length.
    """
    points = _array(payload, "u1", count * ELEMENT_BYTES, "blinded identifiers")
    return points.astype(np.uint8).reshape(-1, ELEMENT_BYTES)


def reply_from_bytes(payload: bytes, tags: int, blinded: int) -> SenderReply:
    """Decode tags of 12 bytes and, after them, curve points of 32.

    Raises:
        MessageError: the payload has another length.
    """
    cut = tags * TAG_BYTES
    rows = _array(payload[:cut], "u1", cut, "tags").astype(np.uint8)
    return SenderReply(rows.reshape(-1, TAG_BYTES), points_from_bytes(payload[cut:], blinded))
