"""Everything on the wire: closed, versioned, signed by its sender under one agreement.

A message is a header (JSON, in a DSSE envelope signed with the sender's identity key) and a
payload of raw bytes that the header binds by length and SHA-256. What only the recipient may read
lies in the payload, encrypted, and the header's body tells its kind alone. The header names
sender, recipient, agreement, job, and the message that it answers, so that nothing can be forged,
moved to another job or agreement, or answered twice differently, by the coordinator that carries
it.

`header` says what is signed and `sealed` verifies it; each kind of exchange has a module of its
own, called as its kinds begin (`match.offer` is in `match`), and `every_job` what belongs to all.

Guarantees: `unseal` returns only what it has verified. Sealing is `gate`'s alone.

Leaves to others: what is encrypted and how (`routes`, `enclosure`), what a body means at which
moment (`jobs`), how bytes travel (`channel`).
"""

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
    AlignSide,
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
    AssistStanding,
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
from federation.messages.header import MAX_PAYLOAD_BYTES, Body, Encrypted, Header
from federation.messages.match import (
    LinkSide,
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
    MatchSide,
)
from federation.messages.measure import MeasureCounts, MeasurePublished, MeasureRequest
from federation.messages.retrain import RetrainAsk, RetrainTold
from federation.messages.sealed import (
    EVERYONE,
    HEADER_TYPE,
    PADDING_CHUNK_BYTES,
    Message,
    SealedMessage,
    check_size,
    content_digest,
    unseal,
    unseal_header,
)
from federation.messages.sums import SumAsk, SumExact, SumNoised, SumPhase, SumSaid
from federation.messages.train import (
    MAX_WEIGHTS,
    ModelPublished,
    TrainCount,
    TrainCounted,
    TrainRequest,
    TrainUpdate,
    weights_from_bytes,
    weights_to_bytes,
)
from federation.messages.vocabulary import Digest, printable
from federation.messages.witness import (
    WitnessAsk,
    WitnessSaid,
    WitnessShow,
    WitnessShown,
    WitnessTell,
)

__all__ = [
    "EVERYONE",
    "HEADER_TYPE",
    "MAX_PAYLOAD_BYTES",
    "MAX_WEIGHTS",
    "PADDING_CHUNK_BYTES",
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
    "Digest",
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
