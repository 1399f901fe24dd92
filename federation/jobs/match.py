"""Match: each partner learns which of its people are among the brand's, and nobody else anything.

```
coordinator              partner                               brand
1  match.request   ──►   2 blind, pad, shuffle own people
                         match.blinded              ──────►    3 blind them again, in order;
                         4 intersect                ◄──────      blind, pad, shuffle own
5  collect         ◄──   match.done (or refused: below the minimum)
```

Guarantees: no I/O; each side is a frozen state that a step turns into the next, so that it can be
stored between two messages; a message that does not fit the state is refused and changes nothing.
The brand and the coordinator learn padded set sizes and that the minimum was reached.

Leaves to others: the curve (`privacy.psi`), reading people (`population`), sending (`gate`).
"""

from collections.abc import Generator, Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from compliance.agreement import Agreement
from compliance.terms import MatchTerms, Role
from federation.errors import MessageError
from federation.jobs.exchange import Outgoing, Relay, Say, expect
from federation.messages import (
    MatchBlinded,
    MatchDone,
    MatchReply,
    MatchRequest,
    Message,
    points_from_bytes,
    reply_from_bytes,
)
from federation.specification import MatchSpec
from privacy.errors import PeerMessageError
from privacy.psi.buckets import padded_count
from privacy.psi.engine import CurveEngine
from privacy.psi.two_party import receiver_blind, receiver_intersect, sender_reply
from privacy.randomness import Secret

__all__ = ["MatchStage", "PartnerMatch", "Said", "answer_match", "coordinate_match"]


class MatchStage(StrEnum):
    """Where a partner's match stands."""

    IDLE = "idle"
    BLINDED = "blinded"
    MATCHED = "matched"


class Said(NamedTuple):
    """A body with its payload."""

    body: MatchBlinded | MatchReply
    payload: bytes


class PartnerMatch(BaseModel):
    """A partner's side of one match.

    Attributes:
        stage: where it stands.
        token_count: own identifiers taken part, before padding.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: MatchStage = MatchStage.IDLE
    token_count: int = 0

    def blind(
        self,
        spec: MatchSpec,
        terms: MatchTerms,
        tokens: NDArray[np.uint8],
        secret: Secret,
        engine: CurveEngine,
    ) -> tuple["PartnerMatch", Said]:
        """Step 2: blind the partner's own identifiers, shape (m, 33).

        Raises:
            MessageError: the match is under way already.
        """
        self._require(MatchStage.IDLE)
        capacity = padded_count(len(tokens), terms.set_size_bucket)
        points = receiver_blind(tokens, secret, engine=engine, capacity=capacity)
        state = PartnerMatch(stage=MatchStage.BLINDED, token_count=len(tokens))
        return state, Said(MatchBlinded(spec=spec, points=len(points)), points.tobytes())

    def intersect(
        self, reply: Message, terms: MatchTerms, secret: Secret, engine: CurveEngine
    ) -> tuple["PartnerMatch", NDArray[np.bool_]]:
        """Step 4: tell which own identifiers the brand holds too, shape (token_count,).

        Raises:
            MessageError: no blinded identifiers were sent, or the reply has another shape.
            PeerMessageError: the reply's points break the protocol.
        """
        self._require(MatchStage.BLINDED)
        body = expect(reply, MatchReply)
        require_padded(body.blinded, terms)
        places = receiver_intersect(
            self.token_count,
            secret,
            reply_from_bytes(reply.payload, body.tags, body.blinded),
            engine=engine,
            capacity=padded_count(self.token_count, terms.set_size_bucket),
            sender_capacity=body.blinded,
        )
        return self.model_copy(update={"stage": MatchStage.MATCHED}), places >= 0

    def _require(self, stage: MatchStage) -> None:
        if self.stage is not stage:
            raise MessageError(f"match message at stage {self.stage}; expected at {stage}")


def answer_match(
    request: Message,
    terms: MatchTerms,
    tokens: NDArray[np.uint8],
    secret: Secret,
    engine: CurveEngine,
) -> Said:
    """Step 3, at the brand: blind the partner's points again and add the brand's own.

    Args:
        request: the partner's `match.blinded`.
        terms: the agreement's.
        tokens: the brand's identifiers, shape (m, 33).
        secret: fresh for this partner and match.
        engine: does the curve arithmetic.

    Raises:
        MessageError: the payload has another length than announced.
        PeerMessageError: points break the protocol.
    """
    body = expect(request, MatchBlinded)
    require_padded(body.points, terms)
    reply = sender_reply(
        tokens,
        points_from_bytes(request.payload, body.points),
        secret,
        engine=engine,
        capacity=padded_count(len(tokens), terms.set_size_bucket),
        receiver_capacity=body.points,
    )
    said = MatchReply(spec=body.spec, tags=len(reply.tags), blinded=len(reply.blinded))
    return Said(said, reply.tags.tobytes() + reply.blinded.tobytes())


def require_padded(points: int, terms: MatchTerms) -> None:
    """Refuse a set that is not padded as agreed.

    Raises:
        PeerMessageError: its size is no multiple of the agreed one.
    """
    if points != padded_count(points, terms.set_size_bucket):
        raise PeerMessageError(
            f"expected a set padded to a multiple of {terms.set_size_bucket}, got {points} points: "
            "both parties must use the same agreement"
        )


def coordinate_match(
    agreement: Agreement, spec: MatchSpec
) -> Generator[Sequence[Outgoing], Sequence[Message], None]:
    """Steps 1 and 5, at the coordinator: a star of the brand and every partner.

    Yields:
        What to send next; resumed with the answers in the same order.
    """
    (brand,) = agreement.by_role(Role.BRAND)
    partners = [party.name for party in agreement.by_role(Role.PARTNER)]
    request = MatchRequest(spec=spec, brand=brand.name)
    blinded = yield [Say(partner, spec.name, request) for partner in partners]  # 1
    for message in blinded:
        expect(message, MatchBlinded)
    replies = yield [Relay(message) for message in blinded]
    for message in replies:
        expect(message, MatchReply)
    done = yield [Relay(message) for message in replies]  # 5
    for message in done:
        expect(message, MatchDone)
