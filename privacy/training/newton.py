"""Logistic regression on all parties' rows, exactly, in a few secure sums. No noise: no privacy.

```
every party                            secure sum            coordinator
1  own model, by 3-5 on its rows alone   ──►  Σ  ──►         2  mean: the one-shot model, the start
3  loss, gradient, curvature             ──►  Σ  ──►         4  one Newton step, or half the last
        ▲                                                          │
        └─────────────────────── weights ──────────────────────────┘   … until a step gains nothing
                                                             5  model: the last weights
```

Guarantees: the model is that of all rows in one place, to the resolution of the sums, however
differently the rows are spread over parties: gradients and curvatures add up, models do not.
The penalty is found from the sums themselves (MacKay 1992, "The evidence framework applied to
classification networks"): no validation rows, no extra round, nothing to tune.

What it is not: differentially private. Sums over parties hide the parties, and no person: exact
sums of a thousand numbers can give rows away, more of them the fewer rows there are. It is for
agreements that allow exact sums, and says so in every plan (`unsafe_exact_plan`).

Leaves to others: whether the agreement allows it, and the secure sum. Losses are compared between
rounds, so all sums are over the same parties: if one drops out for good, begin anew.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError
from privacy.training.integer_sums import (
    MAXIMUM_ROWS,
    check_rows,
    check_weights,
    row_chunks,
)

__all__ = [
    "ExactPlan",
    "NewtonState",
    "UnsafeExactSumsWarning",
    "averaging_contribution",
    "newton_contribution",
    "newton_step",
    "start_from_average",
    "unsafe_exact_plan",
    "warn_of_exact_sums",
]

_MAXIMUM_WEIGHTS: Final = 1024.0
_LONGEST_WEIGHTS: Final = 1023.0  # that a step leads to: rounding stays below the maximum
_MAXIMUM_FRACTION_BITS: Final = 40
_ROUNDS_ALONE: Final = 30
_FIRST_PENALTY: Final = 1.0
_LEAST_PENALTY: Final = 1e-3
_LARGEST_PENALTY: Final = 1e6
_PENALTY_UPDATES: Final = 100
_SAME_PENALTY: Final = 1e-4  # of its logarithm
_NOTHING: Final = 0.01  # nats of likelihood, over all rows: no model is told from another by it


class UnsafeExactSumsWarning(UserWarning):
    """Sums leave without noise: they protect parties from one another, and no person."""


@dataclass(frozen=True, slots=True)
class ExactPlan:
    """What parties and coordinator agree on; made by `unsafe_exact_plan`.

    Attributes:
        width: features of a row, d; the last is the constant.
        declared_rows: public number of rows of each party, an upper bound.
        fraction_bits: sent integers are multiples of 2^-`fraction_bits`.
    """

    width: int
    declared_rows: tuple[int, ...]
    fraction_bits: int

    @property
    def length(self) -> int:
        """Integers that a party sends in a round: loss, gradient, upper triangle of curvature."""
        return 1 + self.width + self.width * (self.width + 1) // 2

    @property
    def sum_bound(self) -> int:
        """Largest magnitude of an entry of a sum; the ring has 64 bits."""
        return (1 << 62) - 1

    def encode(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Write real numbers as integers, each off by at most half a unit."""
        return np.asarray(np.rint(values * 2.0**self.fraction_bits), dtype=np.int64)

    def decode(self, total: NDArray[np.int64], length: int) -> NDArray[np.float64]:
        """Read a sum.

        Raises:
            InvalidParameterError: if it has another length or type, or an entry that no such sum
                can have.
        """
        if total.shape != (length,) or total.dtype != np.int64:
            raise InvalidParameterError(
                f"expected a sum of {length} int64, got shape {total.shape} of {total.dtype}"
            )
        if bool((total > self.sum_bound).any() or (total < -self.sum_bound).any()):
            raise InvalidParameterError("a sum's entry is out of range: it wrapped or is broken")
        return np.asarray(total * 2.0**-self.fraction_bits, dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NewtonState:
    """Where the coordinator stands.

    Attributes:
        weights: where the sums are wanted next; the model, once `finished`. Shape (d,).
        one_shot: mean of the parties' own models, shape (d,).
        rounds: Newton rounds done.
        penalty: λ of ½λ‖w‖², the constant's weight left out.
        expected_gain: penalised log-likelihood that the step to `weights` should bring, in nats,
            over all rows; infinity before the first.
        accepted: weights of the best sums so far; None before the first.
        accepted_loss: logistic loss there, without penalty.
    """

    weights: NDArray[np.float64]
    one_shot: NDArray[np.float64]
    rounds: int = 0
    penalty: float = _FIRST_PENALTY
    expected_gain: float = math.inf
    accepted: NDArray[np.float64] | None = None
    accepted_loss: float = math.inf

    @property
    def finished(self) -> bool:
        """Whether a further round would change nothing worth a round."""
        return self.expected_gain < _NOTHING


def warn_of_exact_sums() -> None:
    """Warn whoever asked its caller for a plan without noise."""
    warnings.warn(
        "exact sums protect no person: use them only where the agreement allows it",
        UnsafeExactSumsWarning,
        stacklevel=3,
    )


def unsafe_exact_plan(*, width: int, declared_rows: Sequence[int]) -> ExactPlan:
    """Agree on exact sums, which protect no person.

    Args:
        width: encoded columns, 2 to 5000; the last is the constant, as `Encoder` has it.
        declared_rows: each party's largest number of rows, 1 to 2²⁶; 1 to 1000 parties.

    Warns:
        UnsafeExactSumsWarning: always.

    Raises:
        InvalidParameterError: if a term is out of range.
    """
    warn_of_exact_sums()
    return _plan(width, declared_rows)


def averaging_contribution(
    plan: ExactPlan, features: NDArray[np.float64], labels: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Step 1: the party's own model, shape (d,), for the secure sum.

    Args:
        plan: as agreed.
        features: encoded rows of norm 1 at most, shape (n, d), finite.
        labels: shape (n,), in [0, 1]; one class alone is a model too.

    Raises:
        InvalidParameterError: if shapes do not fit or a value is out of range.
    """
    alone = _plan(plan.width, [max(len(features), 1)])
    zero = np.zeros(plan.width)
    state = NewtonState(weights=zero, one_shot=zero)
    while not state.finished and state.rounds < _ROUNDS_ALONE:
        total = newton_contribution(state.weights, features, labels, alone)
        state = newton_step(total, state, alone)
    return plan.encode(state.weights)


def start_from_average(
    total: NDArray[np.int64], plan: ExactPlan, *, contributors: int
) -> NewtonState:
    """Step 2: average the parties' models, each with the same weight.

    Args:
        total: sum of `averaging_contribution`, shape (d,).
        plan: as agreed.
        contributors: how many parties are in the sum.

    Raises:
        InvalidParameterError: if the sum does not fit, or parties are none or too many.
    """
    if not 1 <= contributors <= len(plan.declared_rows):
        raise InvalidParameterError(
            f"expected 1 to {len(plan.declared_rows)} contributors, got {contributors}"
        )
    mean = plan.decode(total, plan.width) / contributors
    return NewtonState(weights=mean, one_shot=mean)


def newton_contribution(
    weights: NDArray[np.float64],
    features: NDArray[np.float64],
    labels: NDArray[np.float64],
    plan: ExactPlan,
) -> NDArray[np.int64]:
    """Step 3: logistic loss, gradient and upper triangle of X'WX at `weights`.

    Args:
        weights: shape (d,), finite, of norm 1024 at most.
        features: encoded rows of norm 1 at most, shape (n, d), finite.
        labels: shape (n,), in [0, 1].
        plan: as agreed.

    Returns:
        Shape (`plan.length`,).

    Raises:
        InvalidParameterError: if shapes do not fit, a value is out of range, or there are more
            rows than any party declared.
    """
    check_rows(plan.width, features, labels)
    check_weights(weights, _MAXIMUM_WEIGHTS)
    if weights.size != plan.width:
        raise InvalidParameterError(f"expected {plan.width} weights, got {weights.size}")
    if len(features) > max(plan.declared_rows):
        raise InvalidParameterError(
            f"expected at most {max(plan.declared_rows)} rows, as declared, got {len(features)}"
        )
    if bool((np.einsum("ij,ij->i", features, features) > 1.0 + 1e-9).any()):
        raise InvalidParameterError("expected rows of norm 1 at most: encode them first")
    loss, gradient, curvature = 0.0, np.zeros(plan.width), np.zeros((plan.width, plan.width))
    for rows in row_chunks(len(features)):
        part = features[rows]
        scores = part @ weights
        probability = 0.5 * (1.0 + np.tanh(0.5 * scores))
        loss += float(np.sum(np.logaddexp(0.0, scores) - labels[rows] * scores))
        gradient += (probability - labels[rows]) @ part
        curvature += (part * (probability * (1.0 - probability))[:, np.newaxis]).T @ part
    triangle = curvature[np.triu_indices(plan.width)]
    return plan.encode(np.concatenate([[loss], gradient, triangle]))


def newton_step(total: NDArray[np.int64], state: NewtonState, plan: ExactPlan) -> NewtonState:
    """Step 4, and 5 when the new state is `finished`.

    A step that made the penalised loss worse is halved until it does not.

    Args:
        total: sum of `newton_contribution` at `state.weights`, shape (`plan.length`,).
        state: from `start_from_average` or the step before.
        plan: as agreed.

    Raises:
        InvalidParameterError: if the sum does not fit, or its curvature cannot be inverted.
    """
    values = plan.decode(total, plan.length)
    loss, gradient = float(values[0]), values[1 : plan.width + 1]
    shrunk = np.append(np.ones(plan.width - 1), 0.0)  # the constant is not shrunk

    def size(weights: NDArray[np.float64]) -> float:
        return float(np.sum(shrunk * weights * weights))

    if state.accepted is not None:
        before = state.accepted_loss + 0.5 * state.penalty * size(state.accepted)
        now = loss + 0.5 * state.penalty * size(state.weights)
        if now > before + _NOTHING:
            return NewtonState(
                weights=0.5 * (state.accepted + state.weights),
                one_shot=state.one_shot,
                rounds=state.rounds + 1,
                penalty=state.penalty,
                accepted=state.accepted,
                accepted_loss=state.accepted_loss,
            )
    curvature = np.zeros((plan.width, plan.width))
    curvature[np.triu_indices(plan.width)] = values[plan.width + 1 :]
    curvature += np.triu(curvature, 1).T
    try:
        penalty, step = _penalised_step(curvature, gradient, state.weights, state.penalty)
    except np.linalg.LinAlgError as error:
        raise InvalidParameterError(
            "the curvature cannot be inverted: is the last column the constant, and are there rows?"
        ) from error
    weights = state.weights - step
    norm = float(np.linalg.norm(weights))
    return NewtonState(
        weights=weights * min(1.0, _LONGEST_WEIGHTS / max(norm, 1.0)),
        one_shot=state.one_shot,
        rounds=state.rounds + 1,
        penalty=penalty,
        expected_gain=0.5 * float((gradient + penalty * shrunk * state.weights) @ step),
        accepted=state.weights,
        accepted_loss=loss,
    )


def _penalised_step(
    curvature: NDArray[np.float64],
    gradient: NDArray[np.float64],
    weights: NDArray[np.float64],
    penalty: float,
) -> tuple[float, NDArray[np.float64]]:
    """Find the penalty that the quadratic model itself makes likeliest, and the step under it.

    The fixed point of: number of directions that the data decide, over the size of the weights
    that the step leads to (MacKay's re-estimation of α). It costs the coordinator time, no round.

    Raises:
        LinAlgError: if the curvature is singular in the constant's direction.
    """
    shrunk = np.append(np.ones(len(weights) - 1), 0.0)

    def solve(ridge: float) -> NDArray[np.float64]:
        slope = gradient + ridge * shrunk * weights
        step = np.linalg.solve(curvature + ridge * np.diag(shrunk), slope)
        return np.asarray(step, dtype=np.float64)

    values = np.maximum(np.linalg.eigvalsh(curvature[:-1, :-1]), 0.0)
    for _ in range(_PENALTY_UPDATES):
        step = solve(penalty)
        size = float(np.sum(shrunk * (weights - step) ** 2))
        decided = float(np.sum(values / (values + penalty)))
        found = min(max(decided / max(size, 1e-12), _LEAST_PENALTY), _LARGEST_PENALTY)
        if abs(math.log(found / penalty)) < _SAME_PENALTY:
            break
        penalty = found
    return penalty, solve(penalty)


def _plan(width: int, declared_rows: Sequence[int]) -> ExactPlan:
    """Check the terms and choose the finest grid whose sums fit 62 bits."""
    if not 2 <= width <= 5000:
        raise InvalidParameterError(f"expected a width of 2 to 5000, got {width}")
    if not 1 <= len(declared_rows) <= 1000:
        raise InvalidParameterError(f"expected 1 to 1000 parties, got {len(declared_rows)}")
    if not 1 <= min(declared_rows) <= max(declared_rows) <= MAXIMUM_ROWS:
        raise InvalidParameterError(f"expected 1 to {MAXIMUM_ROWS} declared rows of every party")
    # A row's loss is at most ln 2 + 1024, everything else of it is below 1; weights reach 1024 too.
    largest = (_MAXIMUM_WEIGHTS + 1.0) * len(declared_rows) * max(declared_rows)
    fraction_bits = min(_MAXIMUM_FRACTION_BITS, 61 - math.ceil(math.log2(largest)))
    return ExactPlan(width, tuple(declared_rows), fraction_bits)
