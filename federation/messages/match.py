"""What is said in a match: through the coordinator, or to open a direct link."""

from typing import Annotated, Literal

from pydantic import Field

from federation.messages.vocabulary import Closed, Count, Digest, PartyName
from federation.rr22.configuration import Address
from federation.specification import MatchSpec

__all__ = [
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
]


class MatchSide(Closed):
    """What a side of a match says of itself before anything is computed.

    Attributes:
        recipe: fingerprint of how it normalises identifiers.
        points: how many points stand for its set, padded.
        commitment: binds it to the set, and tells nothing of it.
    """

    recipe: Digest
    points: int = Field(ge=1, le=1 << 36)
    commitment: Digest


class LinkSide(Closed):
    """What a side of a match over a direct link tells the other of its end.

    Attributes:
        certificate: the one that it will show, made for this match alone (PEM).
        share: its half of the key under which identifiers lie on disk (hex).
        address: host:port where it can be reached; None where it only makes connections.
    """

    certificate: Annotated[str, Field(max_length=2_048)]
    share: Digest = Field(repr=False)
    address: Address | None = None


class MatchRequest(Closed):
    """Coordinator to the party that learns the outcome: start a match with `peer`."""

    kind: Literal["match.request"] = "match.request"
    spec: MatchSpec
    peer: PartyName


class MatchOffer(Closed):
    """Learner to peer: this is what I bring, and my end of a direct link where there is one."""

    kind: Literal["match.offer"] = "match.offer"
    spec: MatchSpec
    side: MatchSide
    link: LinkSide | None = None


class MatchAccept(Closed):
    """Peer to learner: this is what I bring, and my end of a direct link where there is one."""

    kind: Literal["match.accept"] = "match.accept"
    spec: MatchSpec
    side: MatchSide
    link: LinkSide | None = None


class MatchBlinded(Closed):
    """Learner to peer: a bucket of its blinded, padded identifiers or records (payload: points)."""

    kind: Literal["match.blinded"] = "match.blinded"
    spec: MatchSpec
    bucket: Count


class MatchReply(Closed):
    """Peer to learner: tags of those points, blinded again, then the peer's own points."""

    kind: Literal["match.reply"] = "match.reply"
    spec: MatchSpec
    bucket: Count


class MatchReady(Closed):
    """Learner to coordinator: both are bound to their sets; match them over a direct link."""

    kind: Literal["match.ready"] = "match.ready"
    buckets: int = Field(ge=1, le=1 << 32)


class MatchLink(Closed):
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


class MatchOpen(Closed):
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


class MatchLinked(Closed):
    """To the coordinator: the bucket has been matched over the link."""

    kind: Literal["match.linked"] = "match.linked"
    bucket: Count


class MatchClose(Closed):
    """Coordinator to a side, after the last bucket: end the match with `peer`."""

    kind: Literal["match.close"] = "match.close"
    spec: MatchSpec
    peer: PartyName


class MatchOutcome(Closed):
    """Learner to peer, after the last bucket: what the peer may know of the outcome.

    Attributes:
        spec: the job.
        size: the learner's records that met any of the peer's, with noise; None where the peer may
            know who matched: then the payload names places of its own points, or records.
    """

    kind: Literal["match.outcome"] = "match.outcome"
    spec: MatchSpec
    size: Count | None


class MatchDone(Closed):
    """To the coordinator: the match is done. How many matched stays between the two."""

    kind: Literal["match.done"] = "match.done"
