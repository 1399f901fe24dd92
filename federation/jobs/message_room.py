"""Jobs of which one message tells of all their people at once: how many that may be.

Guarantees: whatever passes `check_aligned`, or whose `OutcomeForm` has room, is told in messages of
64 MiB at most; what does not is refused with the arithmetic before anything is computed or paid.

Leaves to others: the bound itself (`federation.messages`), outcomes (`match.outcome`).
"""

from typing import Final

from compliance.agreement import Agreement
from compliance.terms import Reveal, Role
from federation.errors import RefusedError
from federation.jobs.match import learner_of
from federation.jobs.match.outcome import MOST_BYTES, OutcomeForm
from federation.population import tokens_allowed
from federation.specification import JobSpec, MatchSpec, VerticalScoreSpec, VerticalTrainSpec
from privacy.training.learners import PENALTIES

__all__ = ["MOST_ALIGNED", "check_aligned", "message_note"]

_NUMBER_BYTES: Final = 4
MOST_ALIGNED: Final = MOST_BYTES // _NUMBER_BYTES - PENALTIES
"""People over whose columns is trained or scored: a message has a number of 4 bytes for each."""


def check_aligned(people: int, party: str) -> None:
    """Refuse to train or score over the columns of more people than a message tells of.

    Raises:
        RefusedError: there are.
    """
    if people > MOST_ALIGNED:
        remedy = f"{_aligned(people)}: align fewer people, under another name, and use that"
        raise RefusedError(party=party, term="vertical.align", remedy=remedy)


def message_note(spec: JobSpec, agreement: Agreement) -> str:
    """Return what a plan says of a job whose people may be too many; empty for any other.

    The parties' declared rows are what a plan knows: fewer may be aligned, or match.
    """
    if isinstance(spec, VerticalTrainSpec | VerticalScoreSpec):
        people = min((one.declared_rows for one in agreement.datasets), default=0)
        return f"; if all are aligned it is refused: {_aligned(people)}" * (people > MOST_ALIGNED)
    both = agreement.match.reveal is Reveal.BOTH_LEARN_MEMBERS
    if not (isinstance(spec, MatchSpec) and both):
        return ""
    for partner in agreement.by_role(Role.PARTNER):
        learner, peer = learner_of(agreement, partner.name)
        mine, theirs = (tokens_allowed(agreement, name) for name in (learner, peer))
        if told := OutcomeForm(min(mine, theirs), 1, theirs).arithmetic:
            return f"; with so many of {partner.name}'s it is refused: {told}"
    return ""


def _aligned(people: int) -> str:
    return (
        f"{people:,} people x {_NUMBER_BYTES} bytes = {people * _NUMBER_BYTES:,}, of the "
        f"{MOST_ALIGNED * _NUMBER_BYTES:,} bytes that one message tells"
    )
