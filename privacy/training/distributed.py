"""Logistic regression whose noise is shared: parties add parts of it, only the sum is seen.

```
every party                              secure sum               coordinator
1  plan (the same at all)                                        1  plan; start
2  clipped gradient at the weights,
   first round: and second moments
3  whole numbers + its share of noise  ──►  Σ over parties  ──►  4  one preconditioned step
        ▲                                                              │
        └───────────────────────── weights ────────────────────────────┘   … `rounds` times
                                                                   5  model: mean of the last half
```

Guarantees: all sums together are (ε, δ)-private for a person with a row in each of up to
`max_parties_per_person` tables, add or remove, towards whoever sees the sums and knows the noise
of at most `colluding` parties, while at most `dropouts` are missing from a sum. A row's weight in a
sum is bounded in whole numbers (`integer_sums`); the noise is discrete Gaussian, and the shares of
the `honest_parties` that are left make up the whole (Kairouz, Liu and Steinke 2021). Every party
takes part with all its rows: nothing is sampled, and nothing depends on the true number of rows.

A party that looks at the model knows its own share of the noise: it colludes, with itself.

Leaves to others: the secure sum, which must reveal one sum over at least `least_contributors` or
none; charging `charge` before each round; answering a round once; and never giving one stream to
two contributions.

How few rounds suffice: the logistic loss curves nowhere more than ¼X'X (Böhning and Lindsay 1988),
so one noised X'X preconditions all steps, whatever the weights. The ridge under it is as long as
the noise that is left in the mean of all gradients; directions in which the data say less than
the noise are left where they are.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from privacy.accounting import (
    Budget,
    ComposedEvent,
    Event,
    calibrate_discrete_gaussian,
)
from privacy.errors import InvalidParameterError
from privacy.randomness import SecretStream
from privacy.training.integer_sums import (
    FRACTION_BITS,
    MOMENT_CLIP,
    check_rows,
    check_weights,
    gradient_clip,
    gradient_sum,
    moment_sum,
    moments,
)
from privacy.training.shared_noise import (
    SharedNoise,
    Sharing,
    cost_within,
    honest_of,
    share_noise,
)

__all__ = [
    "DescentState",
    "DistributedPlan",
    "party_contribution",
    "plan_distributed",
    "server_step",
    "start_descent",
]

_CURVATURE: Final = 0.25  # of the logistic loss, at most
_MOMENTUM: Final = 0.5
_MOMENTS_SHARE: Final = 0.25  # of 1/σ², the currency in which Gaussians add up
_MAXIMUM_WIDTH: Final = 5000


@dataclass(frozen=True, kw_only=True)
class DistributedPlan:
    """What parties and coordinator do; made from public terms alone by `plan_distributed`.

    Attributes:
        width: features of a row, d, the constant among them.
        declared_rows: public number of rows of each party, in the order of the parties.
        colluding: parties whose noise may be known to who looks.
        dropouts: parties that may be missing from a sum.
        rounds: secure sums, R.
        epsilon: what all rounds cost at `delta`; at most what was asked.
        delta: as asked.
        gradient: noise of each round's gradient.
        moments: noise of the second moments, which the first round sends too.
    """

    width: int
    declared_rows: tuple[int, ...]
    colluding: int
    dropouts: int
    rounds: int
    epsilon: float
    delta: float
    gradient: SharedNoise
    moments: SharedNoise

    def charge(self, round_number: int) -> Event:
        """Return what round `round_number`, from 1, costs a person.

        Raises:
            InvalidParameterError: if there is no such round.
        """
        self.check_round(round_number)
        gradient = self.gradient.charge()
        if round_number > 1:
            return gradient
        return ComposedEvent(events=(gradient, self.moments.charge()))

    def length(self, round_number: int) -> int:
        """Return how many integers a party sends in round `round_number`.

        Raises:
            InvalidParameterError: if there is no such round.
        """
        self.check_round(round_number)
        return self.gradient.length + (self.moments.length if round_number == 1 else 0)

    @property
    def least_contributors(self) -> int:
        """Parties that a sum has at least: the threshold of the secure sum."""
        return len(self.declared_rows) - self.dropouts

    @cached_property
    def entry_bound(self) -> int:
        """Largest magnitude of an entry that any party sends."""
        rows = max(self.declared_rows)
        return max(noise.bound(rows) for noise in (self.gradient, self.moments))

    @property
    def sum_bound(self) -> int:
        """Largest magnitude of an entry of a sum."""
        return len(self.declared_rows) * self.entry_bound

    @property
    def ring_bits(self) -> int:
        """Bits of the smallest ring in which no sum wraps around, 32 or 64."""
        return 32 if self.sum_bound < 1 << 31 else 64

    def check_round(self, round_number: int) -> None:
        """Refuse a round that the plan does not have.

        Raises:
            InvalidParameterError: if it does not.
        """
        if not 1 <= round_number <= self.rounds:
            raise InvalidParameterError(f"expected a round 1 to {self.rounds}, got {round_number}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DescentState:
    """Where the coordinator stands; everything in it may be published.

    Attributes:
        round_number: the round to be asked next; one more than the last when all is done.
        weights: where the next gradient is wanted, shape (d,).
        position: weights after the last step, shape (d,).
        velocity: the last step, shape (d,).
        model: mean of the positions after the last half of the rounds, so far, shape (d,).
        preconditioner: inverse of the bounded curvature, shape (d, d); None before round 1.
    """

    round_number: int
    weights: NDArray[np.float64]
    position: NDArray[np.float64]
    velocity: NDArray[np.float64]
    model: NDArray[np.float64]
    preconditioner: NDArray[np.float64] | None = None


def plan_distributed(
    *,
    width: int,
    declared_rows: Sequence[int],
    colluding: int,
    dropouts: int,
    budget: Budget,
    max_parties_per_person: int = 1,
    rounds: int = 10,
    clipping_norm: float = 0.5,
) -> DistributedPlan:
    """Step 1: derive everything from public terms. The same terms give the same plan.

    A person's rows at K parties add up in one sum, so noise grows with K, not with its root.

    Args:
        width: encoded columns, 1 to 5000.
        declared_rows: each party's public number of rows, 1 to 2²⁶; 2 to 1000 parties.
        colluding: parties that may tell their noise to who sees the sums, 0 or more; 1 where a
            party sees the model.
        dropouts: parties that may be missing from a sum, 0 or more. The noise of at least one
            party must be left: colluding + dropouts is below the number of parties.
        budget: what a person may lose by everything together.
        max_parties_per_person: tables that one person may stand in, with one row each, K.
        rounds: secure sums, 1 to 1000.
        clipping_norm: most that a row's gradient weighs. Half the largest norm of a row clips
            nothing at the start, where every residual is ½, and the misjudged rows later.

    Raises:
        InvalidParameterError: if a term is out of range, or no noise keeps the promise.
    """
    honest_parties = honest_of(
        Sharing(declared_rows, colluding, dropouts, max_parties_per_person, rounds),
        ("width", width, 1, _MAXIMUM_WIDTH),
    )
    whole = calibrate_discrete_gaussian(epsilon=budget.epsilon, delta=budget.delta)
    noise_for = partial(
        share_noise, honest_parties=honest_parties, rows_per_person=max_parties_per_person
    )
    gradient = noise_for(
        length=width,
        clip=gradient_clip(clipping_norm),
        noise_multiplier=whole * math.sqrt(rounds / (1.0 - _MOMENTS_SHARE)),
    )
    second = noise_for(
        length=width * (width + 1) // 2,
        clip=MOMENT_CLIP,
        noise_multiplier=whole / math.sqrt(_MOMENTS_SHARE),
    )
    cost = cost_within(budget, [gradient.charge(rounds), second.charge()])
    return DistributedPlan(
        width=width,
        declared_rows=tuple(declared_rows),
        colluding=colluding,
        dropouts=dropouts,
        rounds=rounds,
        epsilon=cost,
        delta=budget.delta,
        gradient=gradient,
        moments=second,
    )


def party_contribution(
    weights: NDArray[np.float64],
    features: NDArray[np.float64],
    labels: NDArray[np.float64],
    plan: DistributedPlan,
    stream: SecretStream,
    *,
    party: int,
    round_number: int,
) -> NDArray[np.int64]:
    """Steps 2 and 3: what one party puts into a round's secure sum.

    Args:
        weights: from the coordinator, shape (d,), finite.
        features: the party's encoded rows, one a person, shape (n, d), finite.
        labels: shape (n,), in [0, 1].
        plan: made by the party itself.
        stream: of this round alone; secret for ever.
        party: the party's place in the plan's `declared_rows`.
        round_number: 1 to `plan.rounds`.

    Returns:
        Shape (`plan.length(round_number)`,): the noised gradient, in the first round followed by
        the noised second moments. Nobody but the secure sum may see it: it holds only a share of
        the noise.

    Raises:
        InvalidParameterError: if shapes do not fit, a value is out of range, or there is no such
            party or round.
    """
    plan.check_round(round_number)
    if not 0 <= party < len(plan.declared_rows):
        raise InvalidParameterError(
            f"expected a party 0 to {len(plan.declared_rows) - 1}, got {party}"
        )
    check_rows(plan.width, features, labels)
    rows = plan.declared_rows[party]
    gradient = gradient_sum(weights, features, labels, plan.gradient.clip)
    parts = [plan.gradient.contribution(gradient, rows, stream)]
    if round_number == 1:
        parts.append(plan.moments.contribution(moment_sum(features), rows, stream))
    return np.concatenate(parts)


def start_descent(plan: DistributedPlan) -> DescentState:
    """Step 1 at the coordinator: the state before the first round, at weights of 0."""
    zero = np.zeros(plan.width)
    return DescentState(round_number=1, weights=zero, position=zero, velocity=zero, model=zero)


def server_step(
    total: NDArray[np.int64],
    state: DescentState,
    plan: DistributedPlan,
    contributors: Collection[int],
) -> DescentState:
    """Step 4, and 5 after the last round: go on from a round's sum.

    Args:
        total: the secure sum, shape (`plan.length(state.round_number)`,), as signed integers.
        state: from `start_descent` or the step before.
        plan: the same as at the parties.
        contributors: places of the parties that are in the sum, no two alike. What is missing is
            made up for by their declared rows.

    Raises:
        InvalidParameterError: if the sum has another length or an entry that no such sum can
            have, if parties are unknown or twice there, or if fewer than `least_contributors`
            took part: such a sum has too little noise and should never have been revealed.
    """
    plan.check_round(state.round_number)
    known = set(contributors)
    if len(known) < len(contributors) or not known <= set(range(len(plan.declared_rows))):
        raise InvalidParameterError("contributors: expected distinct places of the plan's parties")
    if len(known) < plan.least_contributors:
        raise InvalidParameterError(
            f"expected a sum over {plan.least_contributors} parties or more, got {len(known)}"
        )
    expected = plan.length(state.round_number)
    if total.shape != (expected,) or total.dtype != np.int64:
        raise InvalidParameterError(
            f"expected a sum of {expected} int64, got shape {total.shape} of {total.dtype}"
        )
    if bool((total > plan.sum_bound).any() or (total < -plan.sum_bound).any()):
        raise InvalidParameterError(
            f"expected entries of magnitude {plan.sum_bound} at most: the sum wrapped or is broken"
        )
    whole = sum(plan.declared_rows) / sum(plan.declared_rows[party] for party in known)
    gradient = total[: plan.width] * (whole * _unit(plan.gradient.shift))
    preconditioner = state.preconditioner
    if state.round_number == 1:
        second = moments(total[plan.width :], plan.width) * (whole * 2.0**plan.moments.shift)
        preconditioner = _preconditioner(second, plan)
    if preconditioner is None:
        raise RuntimeError("a state after round 1 has a preconditioner")
    velocity = _MOMENTUM * state.velocity - preconditioner @ gradient
    position = state.position + velocity
    averaged = state.round_number - plan.rounds // 2  # of the last ⌈R/2⌉ positions
    model = position if averaged <= 1 else state.model + (position - state.model) / averaged
    following = DescentState(
        round_number=state.round_number + 1,
        weights=position + _MOMENTUM * velocity,
        position=position,
        velocity=velocity,
        model=model,
        preconditioner=preconditioner,
    )
    check_weights(following.weights, math.inf)
    return following


def _preconditioner(second: NDArray[np.float64], plan: DistributedPlan) -> NDArray[np.float64]:
    """Invert ¼X'X + ridge, where eigenvalues that noise made negative count as 0."""
    noise = plan.gradient.noise_scale * _unit(plan.gradient.shift)
    noise *= math.sqrt(len(plan.declared_rows))
    ridge = noise * math.sqrt(plan.width / plan.rounds)
    values, vectors = np.linalg.eigh(second)
    inverse = 1.0 / (_CURVATURE * np.maximum(values, 0.0) + ridge)
    return np.asarray((vectors * inverse) @ vectors.T, dtype=np.float64)


def _unit(shift: int) -> float:
    """Return the value of one sent integer of a gradient."""
    return 2.0 ** (shift - 2 * FRACTION_BITS)
