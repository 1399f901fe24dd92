"""Everything on the wire: closed, versioned, signed by its sender under one agreement.

A message is a header (JSON, in a DSSE envelope signed with the sender's identity key) and a
payload of raw bytes that the header binds by length and SHA-256. What only the recipient may read
lies in the payload, encrypted, and the header's body tells its kind alone. The header names
sender, recipient, agreement, job, and the message that it answers, so that nothing can be forged,
moved to another job or agreement, or answered twice differently, by the coordinator that carries
it.

Guarantees: `unseal` returns only what it has verified. Sealing is `gate`'s alone.

Leaves to others: what is encrypted and how (`routes`, `enclosure`), what a body means at which
moment (`jobs`), how bytes travel (`channel`).
"""

import hashlib
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from compliance.agreement import ALIGNED_PARTIES, MOST_PARTIES, Agreement
from compliance.erasure.retraining import DueModel
from compliance.errors import ComplianceError
from compliance.signing import Envelope, VerifyingKey
from federation.errors import MessageError
from federation.rr22.configuration import Address
from federation.specification import (
    AlignSpec,
    ExpandSpec,
    JobName,
    JobSpec,
    MatchSpec,
    MeasureSpec,
    TrainSpec,
    VerticalScoreSpec,
    VerticalSpec,
    VerticalTrainSpec,
)
from federation.wire import check_version

__all__ = [
    "EVERYONE",
    "HEADER_TYPE",
    "MAX_PAYLOAD_BYTES",
    "MAX_WEIGHTS",
    "PADDING_CHUNK_BYTES",
    "PIECE_BYTES",
    "Acknowledged",
    "AlignBind",
    "AlignBlind",
    "AlignBound",
    "AlignCommon",
    "AlignDone",
    "AlignInvite",
    "AlignJoin",
    "AlignJoined",
    "AlignPass",
    "AlignSeed",
    "AlignSide",
    "AlignTags",
    "AssistAsk",
    "AssistClose",
    "AssistExact",
    "AssistFitted",
    "AssistHeard",
    "AssistJoin",
    "AssistJoined",
    "AssistKeys",
    "AssistNoised",
    "AssistOpen",
    "AssistResiduals",
    "AssistScored",
    "AssistSettle",
    "AssistStanding",
    "Body",
    "Encrypted",
    "EraseBatch",
    "EraseHeard",
    "EraseLook",
    "EraseShow",
    "EraseShown",
    "EraseStanding",
    "EraseTell",
    "EraseTold",
    "ExpandCounted",
    "ExpandDone",
    "ExpandRequest",
    "Header",
    "Identify",
    "JobApproved",
    "LinkSide",
    "MatchAccept",
    "MatchBlinded",
    "MatchClose",
    "MatchDone",
    "MatchLink",
    "MatchLinked",
    "MatchOffer",
    "MatchOpen",
    "MatchOutcome",
    "MatchReady",
    "MatchReply",
    "MatchRequest",
    "MatchSide",
    "MeasureCounts",
    "MeasurePublished",
    "MeasureRequest",
    "Message",
    "ModelPublished",
    "Present",
    "Refused",
    "RetrainAsk",
    "RetrainTold",
    "SealedMessage",
    "SumAsk",
    "SumExact",
    "SumNoised",
    "SumPhase",
    "SumSaid",
    "TrainCount",
    "TrainCounted",
    "TrainRequest",
    "TrainUpdate",
    "WitnessAsk",
    "WitnessSaid",
    "WitnessShow",
    "WitnessShown",
    "WitnessTell",
    "check_size",
    "content_digest",
    "printable",
    "unseal",
    "unseal_header",
    "weights_from_bytes",
    "weights_to_bytes",
]

HEADER_TYPE = "application/vnd.comity.message+json"
"""DSSE payload type of a header."""

EVERYONE = "everyone"
"""Recipient of the one question that goes to nodes whose party is not known yet."""

MAX_HEADER_BYTES = 64 * 1024
MAX_PAYLOAD_BYTES = 1 << 30
PIECE_BYTES = 1 << 26
"""What a payload holds at most that need not hold something of all people at once."""
MAX_WEIGHTS = 1_000_000
PADDING_CHUNK_BYTES = 64 * 1024
"""What is encrypted is padded to a multiple of this, which alone shows of its size."""

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
PartyName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
Count = Annotated[int, Field(ge=0, le=1 << 32)]
Place = Annotated[int, Field(ge=0, lt=ALIGNED_PARTIES[1])]
Round = Annotated[int, Field(ge=1, le=15)]
Step = Annotated[float, Field(ge=0, le=4, allow_inf_nan=False)]


def printable(text: str) -> str:
    """Return a text that a terminal shows and does not obey: spaces for what cannot be printed."""
    return "".join(one if one.isprintable() else " " for one in text)


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("expected a text without control characters")
    return text


Text = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_printable)]
EraseRound = Annotated[int, Field(ge=1, le=4)]
Peers = Annotated[tuple[PartyName, ...], Field(max_length=MOST_PARTIES)]


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Identify(_Closed):
    """Coordinator to a node it does not know yet: which party are you?"""

    kind: Literal["identify"] = "identify"


class Present(_Closed):
    """A node's answer: the sender of this message."""

    kind: Literal["present"] = "present"


class JobApproved(_Closed):
    """Coordinator to every data party, before a job that needs it: these people approved it.

    The payload holds their approvals: a JSON list of DSSE envelopes.
    """

    kind: Literal["job.approved"] = "job.approved"
    spec: JobSpec


class MatchSide(_Closed):
    """What a side of a match says of itself before anything is computed.

    Attributes:
        recipe: fingerprint of how it normalises identifiers.
        points: how many points stand for its set, padded.
        commitment: binds it to the set, and tells nothing of it.
    """

    recipe: Digest
    points: int = Field(ge=1, le=1 << 36)
    commitment: Digest


class LinkSide(_Closed):
    """What a side of a match over a direct link tells the other of its end.

    Attributes:
        certificate: the one that it will show, made for this match alone (PEM).
        share: its half of the key under which identifiers lie on disk (hex).
        address: host:port where it can be reached; None where it only makes connections.
    """

    certificate: Annotated[str, Field(max_length=2_048)]
    share: Digest = Field(repr=False)
    address: Address | None = None


class MatchRequest(_Closed):
    """Coordinator to the party that learns the outcome: start a match with `peer`."""

    kind: Literal["match.request"] = "match.request"
    spec: MatchSpec
    peer: PartyName


class MatchOffer(_Closed):
    """Learner to peer: this is what I bring, and my end of a direct link where there is one."""

    kind: Literal["match.offer"] = "match.offer"
    spec: MatchSpec
    side: MatchSide
    link: LinkSide | None = None


class MatchAccept(_Closed):
    """Peer to learner: this is what I bring, and my end of a direct link where there is one."""

    kind: Literal["match.accept"] = "match.accept"
    spec: MatchSpec
    side: MatchSide
    link: LinkSide | None = None


class MatchBlinded(_Closed):
    """Learner to peer: a bucket of its blinded, padded identifiers or records (payload: points)."""

    kind: Literal["match.blinded"] = "match.blinded"
    spec: MatchSpec
    bucket: Count


class MatchReply(_Closed):
    """Peer to learner: tags of those points, blinded again, then the peer's own points."""

    kind: Literal["match.reply"] = "match.reply"
    spec: MatchSpec
    bucket: Count


class MatchReady(_Closed):
    """Learner to coordinator: both are bound to their sets; match them over a direct link."""

    kind: Literal["match.ready"] = "match.ready"
    buckets: int = Field(ge=1, le=1 << 32)


class MatchLink(_Closed):
    """Coordinator to both sides: make ready to link with `peer` for a bucket.

    Attributes:
        spec: the job.
        peer: the other side.
        bucket: its number.
        attempt: names this run of the job, so that what an earlier one said counts no more.
    """

    kind: Literal["match.link"] = "match.link"
    spec: MatchSpec
    peer: PartyName
    bucket: Count
    attempt: Digest


class MatchOpen(_Closed):
    """Each side to the other: open your end of the link for this bucket.

    Attributes:
        spec: the job.
        bucket: its number.
        attempt: as the coordinator named it.
        needed: whether this side still needs the bucket; a peer always takes part.
    """

    kind: Literal["match.open"] = "match.open"
    spec: MatchSpec
    bucket: Count
    attempt: Digest
    needed: bool = True


class MatchLinked(_Closed):
    """To the coordinator: the bucket has been matched over the link."""

    kind: Literal["match.linked"] = "match.linked"
    bucket: Count


class MatchClose(_Closed):
    """Coordinator to a side, after the last bucket: end the match with `peer`."""

    kind: Literal["match.close"] = "match.close"
    spec: MatchSpec
    peer: PartyName


class MatchOutcome(_Closed):
    """Learner to peer, after the last bucket: what the peer may know of the outcome.

    Attributes:
        spec: the job.
        size: the learner's records that met any of the peer's, with noise; None where the peer may
            know who matched: then the payload names places of its own points, or records.
    """

    kind: Literal["match.outcome"] = "match.outcome"
    spec: MatchSpec
    size: Count | None


class MatchDone(_Closed):
    """To the coordinator: the match is done. How many matched stays between the two."""

    kind: Literal["match.done"] = "match.done"


class AlignSide(_Closed):
    """What a party of a ring says of itself before anything is computed.

    Attributes:
        recipe: fingerprint of how it normalises identifiers.
        commitment: binds it to its set, and tells nothing of it.
    """

    recipe: Digest
    commitment: Digest


class AlignJoin(_Closed):
    """Coordinator to every data party: read your people for an alignment."""

    kind: Literal["align.join"] = "align.join"
    spec: AlignSpec


class AlignJoined(_Closed):
    """Data party to coordinator: I have a set, and am bound to it."""

    kind: Literal["align.joined"] = "align.joined"
    side: AlignSide


class AlignBind(_Closed):
    """Coordinator to every data party: what each said of itself.

    Payload: the envelopes of their `align.joined`, a line each, in the order of the ring.
    """

    kind: Literal["align.bind"] = "align.bind"
    spec: AlignSpec


class AlignBound(_Closed):
    """Data party to coordinator: these are held to it, and what you will count is paid for."""

    kind: Literal["align.bound"] = "align.bound"


class AlignInvite(_Closed):
    """Coordinator to the first party: give the seed to the one at `place`."""

    kind: Literal["align.invite"] = "align.invite"
    spec: AlignSpec
    place: Place


class AlignSeed(_Closed):
    """First party to another: what common dummies are made of (payload: 32 bytes)."""

    kind: Literal["align.seed"] = "align.seed"
    spec: AlignSpec


class AlignBlind(_Closed):
    """Coordinator to every data party: send a bucket of your own set round."""

    kind: Literal["align.blind"] = "align.blind"
    spec: AlignSpec
    bucket: Count


class AlignPass(_Closed):
    """A party to the next: a bucket of the set of the one at `place` (payload: points)."""

    kind: Literal["align.pass"] = "align.pass"
    spec: AlignSpec
    bucket: Count
    place: Place


class AlignTags(_Closed):
    """The last party to the coordinator: tags of a bucket of that set (payload: tags)."""

    kind: Literal["align.tags"] = "align.tags"
    bucket: Count
    place: Place


class AlignCommon(_Closed):
    """Coordinator to a data party: where in its bucket is what all have (payload: places)."""

    kind: Literal["align.common"] = "align.common"
    spec: AlignSpec
    bucket: Count


class AlignDone(_Closed):
    """Data party to coordinator: the people whom all know are kept. Who stays with the party."""

    kind: Literal["align.done"] = "align.done"


class TrainRequest(_Closed):
    """Coordinator to partner: train one round from these parameters (payload: weights)."""

    kind: Literal["train.request"] = "train.request"
    spec: TrainSpec
    round: int = Field(ge=1, le=1_000)
    width: int = Field(ge=1, le=MAX_WEIGHTS)


class TrainUpdate(_Closed):
    """Partner to coordinator: differentially private parameters after a round (payload)."""

    kind: Literal["train.update"] = "train.update"
    round: int = Field(ge=1, le=1_000)
    width: int = Field(ge=1, le=MAX_WEIGHTS)


class TrainCount(_Closed):
    """Coordinator to partner: count your people by their score under this model (payload)."""

    kind: Literal["train.count"] = "train.count"
    spec: TrainSpec
    width: int = Field(ge=1, le=1_000_000)


class TrainCounted(_Closed):
    """Partner to coordinator: seeds and others by score, each count with noise (payload)."""

    kind: Literal["train.counted"] = "train.counted"


class SumPhase(StrEnum):
    """Rounds of a secure sum (`privacy.secagg`), which all happen in one round of training."""

    ADVERTISE = "advertise"
    SHARE = "share"
    MASK = "mask"
    CONFIRM = "confirm"
    UNMASK = "unmask"


class SumAsk(_Closed):
    """Coordinator to partner: go on with a secure sum.

    The payload is what `privacy.secagg`'s server says; in the first phase the model's parameters,
    at which the sum is wanted.
    """

    kind: Literal["sum.ask"] = "sum.ask"
    spec: TrainSpec
    round: int = Field(ge=1, le=1_000)
    phase: SumPhase


class SumSaid(_Closed):
    """Partner to coordinator: what `privacy.secagg`'s client says, of nobody (payload)."""

    kind: Literal["sum.said"] = "sum.said"
    round: int = Field(ge=1, le=1_000)
    phase: SumPhase


class SumNoised(_Closed):
    """Partner to coordinator: its masked part of a sum, with its share of the noise (payload)."""

    kind: Literal["sum.noised"] = "sum.noised"
    round: int = Field(ge=1, le=1_000)


class SumExact(_Closed):
    """Partner to coordinator: its masked part of a sum that protects no person (payload)."""

    kind: Literal["sum.exact"] = "sum.exact"
    round: int = Field(ge=1, le=1_000)


class AssistJoin(_Closed):
    """Coordinator to partner: read your columns of the aligned people, and make a key."""

    kind: Literal["assist.join"] = "assist.join"
    spec: VerticalSpec


class AssistJoined(_Closed):
    """Partner to coordinator: I have them. The key is for masks of sums, of this job alone."""

    kind: Literal["assist.joined"] = "assist.joined"
    key: Digest


class AssistKeys(_Closed):
    """Coordinator to partner: who takes part, and their keys.

    Payload: the envelopes of their `assist.joined`, a line each, in the order of their names. In a
    scoring the answer is an `assist.scored`.
    """

    kind: Literal["assist.keys"] = "assist.keys"
    spec: VerticalSpec


class AssistOpen(_Closed):
    """Coordinator to brand: read your columns and labels; from here on they are noised."""

    kind: Literal["assist.open"] = "assist.open"
    spec: VerticalTrainSpec


class AssistNoised(_Closed):
    """Brand to coordinator: the labels are noised, once and for all rounds, and paid for."""

    kind: Literal["assist.noised"] = "assist.noised"


class AssistExact(_Closed):
    """Brand to coordinator: the labels are used as they are; partners will learn them."""

    kind: Literal["assist.exact"] = "assist.exact"


class AssistAsk(_Closed):
    """Coordinator to brand: give the residuals of a round to the partner at `place`."""

    kind: Literal["assist.ask"] = "assist.ask"
    spec: VerticalTrainSpec
    round: Round
    place: Place


class AssistResiduals(_Closed):
    """Brand to partner: fit these (payload: 32-bit floats, one for each aligned person).

    Attributes:
        spec: the job.
        round: its number.
        step: taken along the sum of the round before; None in the first.
    """

    kind: Literal["assist.residuals"] = "assist.residuals"
    spec: VerticalTrainSpec
    round: Round
    step: Step | None = None


class AssistFitted(_Closed):
    """Partner to brand: masked fitted values, then penalties (payload: 32-bit integers)."""

    kind: Literal["assist.fitted"] = "assist.fitted"
    spec: VerticalTrainSpec
    round: Round


class AssistStanding(StrEnum):
    """Where a training stands after a partner's part of a sum."""

    WAITING = "waiting"
    """Parts of the sum are missing."""
    MORE = "more"
    """Another sum is wanted."""
    DONE = "done"
    """No further sum is wanted."""


class AssistHeard(_Closed):
    """Brand to coordinator: a partner's part of a round's sum has come."""

    kind: Literal["assist.heard"] = "assist.heard"
    round: Round
    standing: AssistStanding


class AssistClose(_Closed):
    """Coordinator to brand: tell the partner at `place` how the training ended."""

    kind: Literal["assist.close"] = "assist.close"
    spec: VerticalTrainSpec
    place: Place


class AssistSettle(_Closed):
    """Brand to partner: keep your part.

    Attributes:
        spec: the job.
        rounds: that there were.
        kept: rounds that a part keeps; later ones made it no better.
        step: taken along the last sum.
    """

    kind: Literal["assist.settle"] = "assist.settle"
    spec: VerticalTrainSpec
    rounds: Round
    kept: Round
    step: Step


class AssistScored(_Closed):
    """Partner to brand: its masked part of everybody's score (payload: 32-bit integers).

    Attributes:
        spec: the job.
        partners: all whose parts are in the sum, in the order of their names.
    """

    kind: Literal["assist.scored"] = "assist.scored"
    spec: VerticalScoreSpec
    partners: tuple[PartyName, ...] = Field(min_length=2, max_length=1_000)


class ModelPublished(_Closed):
    """Coordinator to every party: the joint model (payload: its JSON)."""

    kind: Literal["model.published"] = "model.published"
    spec: TrainSpec


class ExpandRequest(_Closed):
    """Coordinator to partner: score your people and keep the best."""

    kind: Literal["expand.request"] = "expand.request"
    spec: ExpandSpec


class ExpandDone(_Closed):
    """Partner to coordinator: the segment is delivered. Who is in it stays with the partner.

    Attributes:
        eligible: its people who may be used, with noise; None where no count is agreed.
    """

    kind: Literal["expand.done"] = "expand.done"
    eligible: Count | None = None


class ExpandCounted(_Closed):
    """Coordinator to the brand: what partners told of their people's number.

    Payload: the envelopes of their `expand.done`, a line each, in the agreement's order.
    """

    kind: Literal["expand.counted"] = "expand.counted"
    spec: ExpandSpec


class MeasureRequest(_Closed):
    """Coordinator to partner: count your people by cell."""

    kind: Literal["measure.request"] = "measure.request"
    spec: MeasureSpec


class MeasureCounts(_Closed):
    """Partner to coordinator: counts with noise, members' first (payload: 8-byte integers)."""

    kind: Literal["measure.counts"] = "measure.counts"


class MeasurePublished(_Closed):
    """Coordinator to brand: what all partners counted (payload: its JSON)."""

    kind: Literal["measure.published"] = "measure.published"
    spec: MeasureSpec


class WitnessShow(_Closed):
    """Coordinator to a data party: show your log's head to the other parties.

    Attributes:
        round: 1, or 2 for those whose witnesses had seen another size.
    """

    kind: Literal["witness.show"] = "witness.show"
    round: int = Field(ge=1, le=2)


class WitnessShown(_Closed):
    """Data party to coordinator: a request to each other party to cosign (payload: `Requests`)."""

    kind: Literal["witness.shown"] = "witness.shown"
    round: int = Field(ge=1, le=2)


class WitnessAsk(_Closed):
    """Coordinator to a data party: cosign these heads of others' logs (payload: `Requests`)."""

    kind: Literal["witness.ask"] = "witness.ask"
    round: int = Field(ge=1, le=2)


class WitnessSaid(_Closed):
    """Data party to coordinator: cosignatures, or what it has seen last (payload: `Answers`)."""

    kind: Literal["witness.said"] = "witness.said"
    round: int = Field(ge=1, le=2)


class WitnessTell(_Closed):
    """Coordinator to a data party: what the others said of its head (payload: `Answers`)."""

    kind: Literal["witness.tell"] = "witness.tell"
    round: int = Field(ge=1, le=2)


class RetrainAsk(_Closed):
    """The coordinator asks which models have to be trained again.

    Attributes:
        nonce: fresh, so that nobody answers as before.
    """

    kind: Literal["retrain.ask"] = "retrain.ask"
    nonce: Digest


class RetrainTold(_Closed):
    """Which models of the party somebody who was erased was in; not who that was.

    Attributes:
        due: models that have to be trained again, each by its day.
        retired: models that nothing has taken the place of, and that nobody is scored with.
    """

    kind: Literal["retrain.told"] = "retrain.told"
    due: Annotated[tuple[DueModel, ...], Field(max_length=64)] = ()
    retired: Annotated[tuple[JobName, ...], Field(max_length=1024)] = ()


class EraseLook(_Closed):
    """Coordinator to a data party: carry out what is pending; for whom have you something?

    Attributes:
        attempt: names this exchange, so that what an earlier one said counts no more.
        round: of it.
    """

    kind: Literal["erase.look"] = "erase.look"
    attempt: Digest
    round: EraseRound


class EraseStanding(_Closed):
    """Data party to coordinator: whom it has requests for, and news of requests.

    Attributes:
        batches: parties that are to show it their people, blinded.
        news: parties that it has reminders or completions for.
    """

    kind: Literal["erase.standing"] = "erase.standing"
    batches: Peers = ()
    news: Peers = ()


class EraseShow(_Closed):
    """Coordinator to a data party: show your people, blinded, to the one with requests."""

    kind: Literal["erase.show"] = "erase.show"
    attempt: Digest
    round: EraseRound
    origin: PartyName


class EraseShown(_Closed):
    """Data party to another: its people, blinded (payload: points).

    Attributes:
        showing: names them, for the answer.
    """

    kind: Literal["erase.shown"] = "erase.shown"
    showing: Digest


class EraseBatch(_Closed):
    """Data party to another: whom to erase (payload: tags, a batch of points, requests)."""

    kind: Literal["erase.batch"] = "erase.batch"
    showing: Digest


class EraseTell(_Closed):
    """Coordinator to a data party: tell `peer` your news."""

    kind: Literal["erase.tell"] = "erase.tell"
    attempt: Digest
    round: EraseRound
    peer: PartyName


class EraseTold(_Closed):
    """Data party to another: completions of its requests, reminders of one's own (payload)."""

    kind: Literal["erase.told"] = "erase.told"


class EraseHeard(_Closed):
    """Data party to another: what it makes of a batch, or of news (payload)."""

    kind: Literal["erase.heard"] = "erase.heard"


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
    | JobApproved
    | MatchRequest
    | MatchOffer
    | MatchAccept
    | MatchBlinded
    | MatchReply
    | MatchReady
    | MatchLink
    | MatchOpen
    | MatchLinked
    | MatchClose
    | MatchOutcome
    | MatchDone
    | AlignJoin
    | AlignJoined
    | AlignBind
    | AlignBound
    | AlignInvite
    | AlignSeed
    | AlignBlind
    | AlignPass
    | AlignTags
    | AlignCommon
    | AlignDone
    | TrainRequest
    | TrainUpdate
    | TrainCount
    | TrainCounted
    | SumAsk
    | SumSaid
    | SumNoised
    | SumExact
    | AssistJoin
    | AssistJoined
    | AssistKeys
    | AssistOpen
    | AssistNoised
    | AssistExact
    | AssistAsk
    | AssistResiduals
    | AssistFitted
    | AssistHeard
    | AssistClose
    | AssistSettle
    | AssistScored
    | ModelPublished
    | ExpandRequest
    | ExpandDone
    | MeasureRequest
    | MeasureCounts
    | MeasurePublished
    | WitnessShow
    | WitnessShown
    | WitnessAsk
    | WitnessSaid
    | WitnessTell
    | RetrainAsk
    | RetrainTold
    | ExpandCounted
    | EraseLook
    | EraseStanding
    | EraseShow
    | EraseShown
    | EraseBatch
    | EraseTell
    | EraseTold
    | EraseHeard
    | Acknowledged
    | Refused,
    Field(discriminator="kind"),
]


class Encrypted(_Closed):
    """A body for the recipient's eyes alone: it lies encrypted in the payload, with its own."""

    kind: Literal["encrypted"] = "encrypted"
    encrypts: Annotated[str, Field(pattern=r"^[a-z][a-z.]{0,62}$")]


class Header(_Closed):
    """What is signed.

    Attributes:
        agreement: digest of the agreement under which the message travels.
        job: the job it belongs to.
        sender: party that signs it.
        recipient: party it is meant for; the coordinator may carry it further, not read it anew.
        answers: digest of the message that it answers; None for one that opens an exchange.
        body: what is said, or that it is encrypted.
        payload_digest: SHA-256 of the payload as it travels.
        payload_bytes: length of the payload as it travels.
    """

    version: Literal[1] = 1
    agreement: Digest
    job: JobName
    sender: PartyName
    recipient: PartyName
    answers: Digest | None = None
    body: Annotated[Body | Encrypted, Field(discriminator="kind")]
    payload_digest: Digest
    payload_bytes: int = Field(ge=0, le=MAX_PAYLOAD_BYTES)

    @property
    def kind(self) -> str:
        """Kind of what is said, encrypted or not."""
        return self.body.encrypts if isinstance(self.body, Encrypted) else self.body.kind


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


_OF_ALL_PEOPLE = frozenset({"erase.shown", "erase.batch"})
"""Kinds that tell of all people of a party at once, and belong to no job."""


def check_size(kind: str, payload: bytes) -> None:
    """Refuse a payload that is larger than its kind may be.

    Raises:
        MessageError: it is.
    """
    most = MAX_PAYLOAD_BYTES if kind in _OF_ALL_PEOPLE else PIECE_BYTES
    if len(payload) > most:
        raise MessageError(
            f"{kind} with a payload of {len(payload)} bytes; at most {most} are accepted"
        )


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
    if len(sealed.payload) > MAX_PAYLOAD_BYTES:
        raise MessageError(
            f"payload of {len(sealed.payload)} bytes; at most {MAX_PAYLOAD_BYTES} are accepted"
        )
    header = unseal_header(sealed.envelope, agreement)  # 1 to 4
    check_size(header.kind, sealed.payload)
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
        raise MessageError(f"message that cannot be trusted: {detail}") from error
    if envelope.signers != (header.sender,) or envelope.to_json() != written:
        raise MessageError(f"envelope of {header.sender}'s message was changed on its way")
    # 4
    if header.agreement != agreement.digest:
        raise MessageError(
            f"message from {header.sender} under agreement {header.agreement[:16]}…; "
            f"this party holds {agreement.digest[:16]}…: both must hold the same signed agreement"
        )
    return header


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
