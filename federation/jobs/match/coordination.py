"""The coordinator's side of a match: it carries what the pairs say, and sees who is missing.

Guarantees: an answer is carried on only if its question may have it.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel

from compliance.agreement import Agreement
from compliance.terms import Role
from federation.jobs.exchange import Exchange, Outgoing, Relay, Say, expect, expect_encrypted
from federation.jobs.match.pair import learner_of
from federation.jobs.quorum import Quorum
from federation.messages import (
    MatchAccept,
    MatchBlinded,
    MatchDone,
    MatchOffer,
    MatchOutcome,
    MatchReply,
    MatchRequest,
    Message,
)
from federation.specification import MatchSpec

__all__ = ["Matched", "coordinate_match"]


@dataclass(frozen=True)
class Matched:
    """What the coordinator knows of a match that has ended.

    Attributes:
        missing: partners that it went on without.
    """

    missing: tuple[str, ...]


def coordinate_match(
    agreement: Agreement, spec: MatchSpec
) -> Generator[Exchange, Sequence[Message], Matched]:
    """Steps 1 and 8, at the coordinator: a star of the brand and every partner.

    A partner that is missing takes its pair with it, and no other.

    Yields:
        What to send next; resumed with the answers that came, in the same order.
    """
    quorum = Quorum(spec, agreement)
    (brand,) = agreement.by_role(Role.BRAND)
    pairs = [learner_of(agreement, name) for name in quorum.present]
    outgoing: list[Outgoing] = [  # 1
        Say(learner, spec.name, MatchRequest(spec=spec, peer=peer)) for learner, peer in pairs
    ]
    asked = [(learner, _kind(MatchRequest)) for learner, _ in pairs]
    while outgoing:
        if asked[0][0] == brand.name:  # pairs go in step: all are asked at the same side
            answers = yield outgoing
        else:
            answers = yield quorum.ask(outgoing, kept=False)
            quorum.hear(answers, [name for name, _ in asked])
            asked = [one for one in asked if one[0] not in quorum.missing]
        carried = _in_turn([kind for _, kind in asked], answers)
        asked = [(message.header.recipient, message.header.kind) for message in carried]
        outgoing = [Relay(message) for message in carried]
    return Matched(quorum.missing)


def _kind(body: type[BaseModel]) -> str:
    kind: str = body.model_fields["kind"].default
    return kind


_NEXT: Mapping[str, tuple[type[BaseModel], ...]] = {
    _kind(MatchRequest): (MatchOffer,),
    _kind(MatchOffer): (MatchAccept,),
    _kind(MatchAccept): (MatchBlinded,),
    _kind(MatchBlinded): (MatchReply,),
    _kind(MatchReply): (MatchBlinded, MatchOutcome, MatchDone),
    _kind(MatchOutcome): (MatchDone,),
}
"""What may be said in answer to what."""


def _in_turn(asked: Sequence[str], answers: Sequence[Message]) -> list[Message]:
    """Return the answers to be carried on, once each is one that its question may have."""
    carried = []
    for question, message in zip(asked, answers, strict=True):
        kinds = {_kind(one): one for one in _NEXT[question]}
        expected = kinds.get(message.header.kind, _NEXT[question][-1])
        if expected is MatchDone:
            expect(message, MatchDone)  # 8
        else:
            expect_encrypted(message, expected)
            carried.append(message)
    return carried
