"""What is signed: who says it to whom, under which agreement, in which job, and what."""

from typing import Annotated, Literal

from pydantic import Field

from federation.messages.align import (
    AlignBind,
    AlignBlind,
    AlignBound,
    AlignCommon,
    AlignDone,
    AlignInvite,
    AlignJoin,
    AlignJoined,
    AlignPass,
    AlignSeed,
    AlignTags,
)
from federation.messages.assist import (
    AssistAsk,
    AssistClose,
    AssistExact,
    AssistFitted,
    AssistHeard,
    AssistJoin,
    AssistJoined,
    AssistKeys,
    AssistNoised,
    AssistOpen,
    AssistResiduals,
    AssistScored,
    AssistSettle,
)
from federation.messages.erase import (
    EraseBatch,
    EraseHeard,
    EraseLook,
    EraseShow,
    EraseShown,
    EraseStanding,
    EraseTell,
    EraseTold,
)
from federation.messages.every_job import Acknowledged, Identify, JobApproved, Present, Refused
from federation.messages.expand import ExpandCounted, ExpandDone, ExpandRequest
from federation.messages.match import (
    MatchAccept,
    MatchBlinded,
    MatchClose,
    MatchDone,
    MatchLink,
    MatchLinked,
    MatchOffer,
    MatchOpen,
    MatchOutcome,
    MatchReady,
    MatchReply,
    MatchRequest,
)
from federation.messages.measure import MeasureCounts, MeasurePublished, MeasureRequest
from federation.messages.retrain import RetrainAsk, RetrainTold
from federation.messages.sums import SumAsk, SumExact, SumNoised, SumSaid
from federation.messages.train import (
    ModelPublished,
    TrainCount,
    TrainCounted,
    TrainRequest,
    TrainUpdate,
)
from federation.messages.vocabulary import Closed, Digest, PartyName
from federation.messages.witness import (
    WitnessAsk,
    WitnessSaid,
    WitnessShow,
    WitnessShown,
    WitnessTell,
)
from federation.specification import JobName

__all__ = ["MAX_PAYLOAD_BYTES", "Body", "Encrypted", "Header"]

MAX_PAYLOAD_BYTES = 1 << 26
"""What is larger goes in parts: a message is held in memory several times on its way."""

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


class Encrypted(Closed):
    """A body for the recipient's eyes alone: it lies encrypted in the payload, with its own."""

    kind: Literal["encrypted"] = "encrypted"
    encrypts: Annotated[str, Field(pattern=r"^[a-z][a-z.]{0,62}$")]


class Header(Closed):
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
