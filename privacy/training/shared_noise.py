"""Noise that parties share: each adds a part of it to its whole numbers, only the sum is seen.

Guarantees: the sum over the `honest_parties` that are left holds the whole noise, discrete Gaussian
(Kairouz, Liu and Steinke 2021), whatever the others add; what rounding to the grid adds to a
person's weight is paid for.

Leaves to others: what is summed (`distributed`, `boosting`, `random_boosting`), the secure sum.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from privacy.accounting import Budget, DistributedDiscreteGaussianEvent, Event, epsilon_of
from privacy.errors import InvalidParameterError
from privacy.mechanisms import MAXIMUM_SIGMA, discrete_gaussian
from privacy.randomness import SecretStream
from privacy.training.integer_sums import MAXIMUM_ROWS

__all__ = ["SharedNoise", "Sharing", "check_bounds", "cost_within", "honest_of", "share_noise"]

_ROUNDING: Final = 1.0 / 256  # of the sensitivity, that rounding to the grid may add
_MAXIMUM_ROUNDING: Final = 0.25
_MAXIMUM_ROUNDS: Final = 1000
_MAXIMUM_PARTIES: Final = 1000
_MAXIMUM_SHIFT: Final = 44
_NOISE_CUT: Final = 16  # times σ: no draw of `discrete_gaussian` lies beyond


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedNoise:
    """How one kind of vector is put on a grid and noised by every party.

    Attributes:
        length: entries of the vector, ≥ 1.
        clip: most that one row adds, in the L2 norm and in units of `integer_sums`.
        shift: the sent integers are those units divided by 2^`shift`, rounded.
        noise_scale: σ of each party's discrete Gaussian noise, in sent integers.
        honest_parties: shares of noise that are counted on.
        rows_per_person: rows that one person may have in all tables together.
    """

    length: int
    clip: int
    shift: int
    noise_scale: float
    honest_parties: int
    rows_per_person: int

    def charge(self, steps: int = 1) -> DistributedDiscreteGaussianEvent:
        """Return what `steps` sums with this noise cost."""
        return DistributedDiscreteGaussianEvent(
            noise_scale=self.noise_scale,
            honest_parties=self.honest_parties,
            dimension=self.length,
            l2_sensitivity=_sensitivity(self.clip, self.shift, self.length, self.rows_per_person),
            steps=steps,
        )

    def bound(self, declared_rows: int) -> int:
        """Return the largest magnitude of an entry that a party with `declared_rows` sends."""
        return self.limit(declared_rows) + math.ceil(_NOISE_CUT * self.noise_scale)

    def limit(self, declared_rows: int) -> int:
        """Return the largest magnitude of an entry before noise; beyond it is cut off."""
        return (declared_rows * self.clip >> self.shift) + 1

    def contribution(
        self, total: NDArray[np.int64], declared_rows: int, stream: SecretStream
    ) -> NDArray[np.int64]:
        """Step 3: put a party's sum on the grid and add its share of the noise.

        Args:
            total: the party's sum in units of `integer_sums`, shape (`length`,).
            declared_rows: the party's public number of rows; beyond what so many can add, entries
                are cut off.
            stream: of this round alone, secret for ever.

        Returns:
            Shape (`length`,), of magnitude `bound(declared_rows)` at most.
        """
        half = (1 << self.shift) >> 1
        limit = self.limit(declared_rows)
        # Rounding changes an entry's difference by less than 1; cutting off enlarges none.
        rounded: NDArray[np.int64] = np.clip((total + half) >> self.shift, -limit, limit)
        return rounded + discrete_gaussian(self.noise_scale, self.length, stream)


Bound = tuple[str, int, int, int]
"""A term's name, its value, and the least and most that it may be."""


class Sharing(NamedTuple):
    """Who shares the noise of how many sums; terms as in `plan_distributed`."""

    declared_rows: Sequence[int]
    colluding: int
    dropouts: int
    max_parties_per_person: int
    rounds: int


def honest_of(sharing: Sharing, *others: Bound) -> int:
    """Return how many parties' noise is counted on, once all terms are within their bounds.

    Raises:
        InvalidParameterError: one is not, of these or of `others`.
    """
    rows, colluding, dropouts, tables, rounds = sharing
    parties = len(rows)
    check_bounds(
        *others,
        ("number of parties", parties, 2, _MAXIMUM_PARTIES),
        ("colluding", colluding, 0, parties - 1),
        ("dropouts", dropouts, 0, parties - 1 - colluding),
        ("max_parties_per_person", tables, 1, parties),
        ("rounds", rounds, 1, _MAXIMUM_ROUNDS),
        ("declared_rows", min(rows, default=0), 1, MAXIMUM_ROWS),
        ("declared_rows", max(rows, default=0), 1, MAXIMUM_ROWS),
    )
    return parties - colluding - dropouts


def check_bounds(*bounds: Bound) -> None:
    """Refuse the first value that is out of its bounds.

    Raises:
        InvalidParameterError: there is one.
    """
    for name, value, least, most in bounds:
        if not least <= value <= most:
            raise InvalidParameterError(f"{name}: expected {least} to {most}, got {value}")


def cost_within(budget: Budget, charges: Sequence[Event]) -> float:
    """Return the epsilon that charges cost together.

    Raises:
        InvalidParameterError: it is more than the budget.
    """
    cost = epsilon_of(charges, budget.delta)
    if cost > budget.epsilon:
        raise InvalidParameterError(
            f"the noise would cost epsilon {cost:.6f} of {budget.epsilon}: allow a larger epsilon"
        )
    return cost


def share_noise(
    *, length: int, clip: int, noise_multiplier: float, honest_parties: int, rows_per_person: int
) -> SharedNoise:
    """Choose the grid and the noise: the coarsest grid on which rounding costs next to nothing.

    Args:
        length: entries of the vector.
        clip: most that one row adds to the whole numbers before the grid, in the L2 norm.
        noise_multiplier: of the whole noise, in what one person changes.
        honest_parties: shares of noise that are counted on.
        rows_per_person: rows that one person may have in all tables together.

    Raises:
        InvalidParameterError: if noise so large needs a grid so coarse that rounding costs much.
    """
    shift = max(0, math.floor(math.log2(_ROUNDING * clip / math.sqrt(length))))
    for coarser in range(shift, _MAXIMUM_SHIFT):
        if math.sqrt(length) * 2.0**coarser > _MAXIMUM_ROUNDING * clip:
            break
        sensitivity = _sensitivity(clip, coarser, length, rows_per_person)
        scale = noise_multiplier * sensitivity / math.sqrt(honest_parties) * (1.0 + 1e-9)
        if scale <= MAXIMUM_SIGMA:
            return SharedNoise(
                length=length,
                clip=clip,
                shift=coarser,
                noise_scale=scale,
                honest_parties=honest_parties,
                rows_per_person=rows_per_person,
            )
    raise InvalidParameterError(
        f"a noise multiplier of {noise_multiplier:.0f} on {length} entries does not fit the noise "
        f"of at most {MAXIMUM_SIGMA:.0f} that can be drawn: allow a larger epsilon or fewer rounds"
    )


def _sensitivity(clip: int, shift: int, length: int, rows_per_person: int) -> float:
    """Return what a person changes on the grid: each row's clip, and less than 1 an entry.

    Rounding is done once for each party's sum, and a person may have a row at several.
    """
    return rows_per_person * (clip / 2.0**shift + math.sqrt(length)) * (1.0 + 1e-12)
