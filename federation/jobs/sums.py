"""Train by secure sums: one joint logistic-regression model; nobody sees what a partner computed.

```
coordinator                         partner
1  sum.ask  advertise (weights) ─►  2 fresh keys                              sum.said
3  sum.ask  share               ─►  4 shares of its secrets, for the others   sum.said
5  sum.ask  mask                ─►  6 its part of the sum, noised and masked  sum.noised
                                                           or exact and masked  sum.exact
7  sum.ask  confirm             ─►  8 signs who is in the sum                 sum.said
9  sum.ask  unmask              ─►  10 gives away what unmasks the sum alone  sum.said
11 one step of the model on the sum                                  … for every round
12 model.published              ─►  13 keep the model (the brand too)
```

Partners that cannot be reached drop out, as many as the threshold leaves, and stay out; none does
where no noise is added.

Guarantees: no I/O; everything about noise, thresholds and prices is derived here from the job and
the agreement, never taken from a message.

Leaves to others: each sum (`secure_sum`), what is summed (`linear_sums`, `tree_sums`), storing
states between messages (`federation.training`).
"""

import warnings
from collections.abc import Generator, Sequence

from compliance.agreement import Agreement
from compliance.terms import ModelFamily, NoiseSource, Role
from federation.errors import MessageError, RefusedError
from federation.jobs.exchange import Exchange
from federation.jobs.linear_sums import ExactSums, NoisedSums
from federation.jobs.model import JointModel, Making, agreed_model, publish
from federation.jobs.secure_sum import SecureSum, partners_of, sum_plan
from federation.jobs.standing import Sums
from federation.jobs.tree_sums import tree_sums_for
from federation.messages import Message, weights_to_bytes
from federation.specification import TrainSpec
from privacy.accounting.events import ComposedEvent, Event
from privacy.accounting.ledger import Budget
from privacy.errors import InvalidParameterError, PrivacyError
from privacy.training.distributed import plan_distributed
from privacy.training.newton import UnsafeExactSumsWarning, unsafe_exact_plan

__all__ = ["check_summed", "coordinate_sums", "sums_for", "whole_charge"]

_LARGEST_CLIP = 0.5  # of the norm of a row, which is 1 at most: see `plan_distributed`


def sums_for(spec: TrainSpec, agreement: Agreement, *, width: int) -> Sums:
    """Derive how to train from the job and the agreement alone.

    Args:
        spec: a job whose noise is not local.
        agreement: the partners, their declared rows, and the terms of training.
        width: encoded columns.

    Raises:
        InvalidParameterError: no noise keeps the promise.
    """
    terms = agreement.train
    rows = [agreement.dataset(name).declared_rows for name in partners_of(agreement)]
    if spec.model is ModelFamily.BOOSTED_TREES:
        return tree_sums_for(spec, agreement, rows)
    if spec.noise is NoiseSource.UNSAFE_NONE:
        with warnings.catch_warnings():  # the job and the agreement name the danger themselves
            warnings.simplefilter("ignore", UnsafeExactSumsWarning)
            return ExactSums(unsafe_exact_plan(width=width, declared_rows=rows))
    epsilon, delta = spec.promise
    return NoisedSums(
        plan_distributed(
            width=width,
            declared_rows=rows,
            colluding=terms.colluding_partners,
            dropouts=terms.absent_partners,
            budget=Budget(epsilon=epsilon, delta=delta),
            max_parties_per_person=terms.max_parties_per_person,
            rounds=spec.rounds,
            clipping_norm=min(terms.clipping_norm, _LARGEST_CLIP),
        )
    )


def whole_charge(sums: Sums, spec: TrainSpec) -> Event | None:
    """Return what all rounds of a job cost a person; None where they promise nothing."""
    charges = [sums.charge(number) for number in range(1, spec.rounds + 1)]
    known = tuple(charge for charge in charges if charge is not None)
    return ComposedEvent(events=known) if known else None


def coordinate_sums(
    agreement: Agreement, spec: TrainSpec, columns: Sequence[str]
) -> Generator[Exchange, Sequence[Message], JointModel]:
    """Steps 1 to 12, at the coordinator.

    Yields:
        What to send next; resumed with the answers that came, in the same order.
    """
    try:
        sums = sums_for(spec, agreement, width=len(columns))
    except InvalidParameterError as error:
        (coordinator,) = agreement.by_role(Role.COORDINATOR)
        raise RefusedError(
            party=coordinator.name, term="train.epsilon", remedy=str(error)
        ) from error
    partners = partners_of(agreement)
    standing, present, number = sums.start(), partners, 0
    while number < spec.rounds and not standing.finished:
        number += 1
        weights = weights_to_bytes(standing.weights)
        one = SecureSum(agreement, spec, number, length=sums.length(number), weights=weights)
        try:
            total, summed, present = yield from one.run(present)
            standing = sums.step(total, standing, [partners.index(name) for name in summed])  # 11
        except PrivacyError as error:
            raise MessageError(f"secure sum {number} of job {spec.name!r}: {error}") from error
    missing = tuple(name for name in partners if name not in present)
    making = Making(
        rounds=number,
        noise_multiplier=sums.noise_multiplier,
        parties=present,
        missing=missing,
        one_shot=None if standing.one_shot is None else tuple(standing.one_shot.tolist()),
    )
    model = agreed_model(agreement, spec, sums.body(standing, columns), making)
    yield from publish(agreement, spec, model, missing)  # 12
    return model


def check_summed(model: JointModel, agreement: Agreement, spec: TrainSpec) -> None:
    """Step 13: hold a published model against its job, trained by secure sums.

    Raises:
        MessageError: it says anything else of its making than job and agreement do.
    """
    sums = sums_for(spec, agreement, width=len(model.body.columns))
    making, partners = model.making, partners_of(agreement)
    plan = sum_plan(spec, agreement, making.rounds, length=1, weights=b"")
    exact = spec.noise is NoiseSource.UNSAFE_NONE
    averaged = exact and spec.model is ModelFamily.LOGISTIC_REGRESSION
    named = tuple(name for name in partners if name in making.parties)
    if (
        making.parties != named
        or making.missing != tuple(name for name in partners if name not in named)
        or len(named) < plan.threshold
        or making.noise_multiplier != sums.noise_multiplier
        or (making.rounds > spec.rounds if exact else making.rounds != spec.rounds)
        or (making.one_shot is not None) is not averaged
        or not sums.fits(model.body, making.rounds)
        or (making.one_shot is not None and len(making.one_shot) != len(model.body.columns))
    ):
        raise MessageError("published model of another making than announced")
