"""What becomes of a model once somebody is erased: the agreement's clause, applied.

Guarantees: one of four outcomes, the same for the same facts, with what justifies it; and the same
said beforehand.

Leaves to others: whether the model saw the person (the party's own records), retiring it, training
another.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

from compliance.erasure.completion import Step
from compliance.records import ErasureOutcome
from compliance.terms import ErasureTerms

__all__ = ["consequence", "model_step"]

_WHENEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""What becomes of a model does not depend on the moment, only its day does."""


def model_step(
    terms: ErasureTerms, model: str, *, saw: bool, epsilon: float | None, now: datetime
) -> Step:
    """Say what becomes of a model.

    Args:
        terms: the agreement's.
        model: its job.
        saw: whether the person was among those it learnt from, or may have been.
        epsilon: privacy loss per person that was proved of it; None where none was.
        now: the time of the request, from which days count, to the day: its hour would tell which.
    """
    target = f"model {model}"
    if not saw:
        return Step(target=target, outcome=ErasureOutcome.UNAFFECTED)
    tolerated = terms.tolerated_epsilon
    if epsilon is not None and tolerated is not None and epsilon <= tolerated:
        return Step(target=target, outcome=ErasureOutcome.TOLERATED_DP, epsilon=epsilon)
    if terms.retrain_days is not None:
        day = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        due = day + timedelta(days=terms.retrain_days)
        return Step(target=target, outcome=ErasureOutcome.RETRAIN, due=due)
    return Step(target=target, outcome=ErasureOutcome.RETIRED)


def consequence(terms: ErasureTerms, epsilon: float | None) -> str:
    """Say beforehand what one erasure will do to a model, in words.

    Args:
        terms: the agreement's.
        epsilon: privacy loss per person that will be proved of it; None where none will.
    """
    step = model_step(terms, "", saw=True, epsilon=epsilon, now=_WHENEVER)
    match step.outcome:
        case ErasureOutcome.TOLERATED_DP:
            why = f"its epsilon of {epsilon:g} is within erasure.tolerated_epsilon"
            return f"one erasure of somebody in it leaves it in use: {why}"
        case ErasureOutcome.RETRAIN:
            days = f"within {terms.retrain_days} days (erasure.retrain_days)"
            return f"one erasure of somebody in it has it trained again {days}, for as much budget"
    return (
        "one erasure of somebody in it retires it at once, and nobody is scored with it any more: "
        "agree on erasure.retrain_days to train again, or on erasure.tolerated_epsilon to go on"
    )
