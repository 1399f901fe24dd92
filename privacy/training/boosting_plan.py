"""What parties agree on before trees are boosted from sums, and what each sum is asked for.

Guarantees: how long a sum and its question are, and which features its trees have, follows from
public terms alone; a question that is read asks for nothing that there is not.

Leaves to others: what is summed, and how trees grow from it (`boosting`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError
from privacy.training.binning import Grid
from privacy.training.integer_sums import MAXIMUM_ROWS
from privacy.training.newton import warn_of_exact_sums
from privacy.training.shared_noise import check_bounds
from privacy.training.trees import GRADIENT_UNIT, MAXIMUM_DEPTH, Forest, public_stream

__all__ = ["BINS", "TREES", "Asked", "BoostingPlan", "unsafe_boosting_plan"]

TREES: Final = 8  # of a batch
BINS: Final = 64  # of a feature, at most
_LARGEST_SUM: Final = 100_000  # numbers, which the drawn features are to fit
_MAXIMUM_ROUNDS: Final = 1000


class Asked(NamedTuple):
    """What a sum is asked for: everything that is known before it, in whole numbers.

    Attributes:
        bins: of each cell, shape (cells,); empty before the first sum.
        forests: batches that are done.
        features: of the nodes of the trees that grow, shape (trees, 2^D - 1).
        cuts: likewise; nodes below the level that is asked for are 0.
    """

    bins: NDArray[np.int64]
    forests: tuple[Forest, ...]
    features: NDArray[np.int64]
    cuts: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class BoostingPlan:
    """What parties and coordinator agree on; made by `unsafe_boosting_plan`.

    Attributes:
        grid: cells of the features.
        declared_rows: public number of rows of each party, an upper bound.
        rounds: secure sums at most.
        depth: questions from a root to a leaf.
        seed: what the features of trees are drawn from.
    """

    grid: Grid
    declared_rows: tuple[int, ...]
    rounds: int
    depth: int
    seed: str

    @property
    def batches(self) -> int:
        """Steps of boosting, of `TREES` trees each."""
        return (self.rounds - 1) // self.depth

    @property
    def sums(self) -> int:
        """Secure sums that the batches take."""
        return 1 + self.batches * self.depth

    @property
    def sum_bound(self) -> int:
        """Largest magnitude of an entry of a sum."""
        return sum(self.declared_rows) * GRADIENT_UNIT

    @cached_property
    def bin_counts(self) -> NDArray[np.int64]:
        """Bins of each feature, at most; what is not needed stays empty."""
        return np.array([min(one.count, BINS) for one in self.grid.features])

    def place(self, number: int) -> tuple[int, int]:
        """Return batch and level, from 0, of sum `number`, from 2."""
        return divmod(number - 2, self.depth)

    def length(self, number: int) -> int:
        """Return the integers of sum `number`, from 1.

        Raises:
            InvalidParameterError: if there is no such sum.
        """
        if not 1 <= number <= self.sums:
            raise InvalidParameterError(f"expected a sum 1 to {self.sums}, got {number}")
        if number == 1:
            return 2 * self.grid.total
        batch, level = self.place(number)
        bins = sum(int(self.bin_counts[drawn].sum()) for drawn in self.drawn(batch))
        return 2 * bins * (1 << max(level - 1, 0))

    def asked_length(self, number: int) -> int:
        """Return the numbers of the question of sum `number`."""
        self.length(number)
        if number == 1:
            return 1
        nodes = TREES * ((1 << self.depth) - 1)
        batch, level = self.place(number)
        growing = 2 * TREES * ((1 << level) - 1)
        return self.grid.total + batch * (3 * nodes + TREES) + growing

    def drawn(self, batch: int) -> tuple[NDArray[np.int64], ...]:
        """Return the features of each tree of a batch: half of them, or as many as have room."""
        room = _LARGEST_SUM // (2 * TREES << max(self.depth - 2, 0))
        return _draw(self.seed, batch, tuple(self.bin_counts.tolist()), room)

    def encode(self, number: int, asked: Asked) -> NDArray[np.float64]:
        """Write the question of sum `number`: bins, done batches, nodes of growing trees."""
        if number == 1 or number > self.sums:
            return np.zeros(1)
        nodes = (1 << self.place(number)[1]) - 1
        parts = [asked.bins]
        for forest in asked.forests:
            parts += [forest.features.ravel(), forest.cuts.ravel(), forest.values.ravel()]
        parts += [asked.features[:, :nodes].ravel(), asked.cuts[:, :nodes].ravel()]
        return np.concatenate(parts).astype(np.float64)

    def decode(self, number: int, question: NDArray[np.float64]) -> Asked:
        """Read the question of sum `number`.

        Raises:
            InvalidParameterError: if it has another length, or asks for what there is not.
        """
        if question.shape != (self.asked_length(number),):
            raise InvalidParameterError(
                f"expected a question of {self.asked_length(number)} numbers, got shape "
                f"{question.shape}"
            )
        nothing = np.zeros((TREES, (1 << self.depth) - 1), dtype=np.int64)
        if number == 1:
            return Asked(nothing[:0, 0], (), nothing, nothing)
        if not bool((np.abs(question) < 1 << 40).all() and (question == np.rint(question)).all()):
            raise InvalidParameterError("expected whole numbers in a question about trees")
        whole = question.astype(np.int64)
        (batch, level), at, nodes = self.place(number), self.grid.total, nothing.size
        bins = whole[:at]
        forests = []
        for _ in range(batch):
            features, cuts = whole[at : at + 2 * nodes].reshape(2, TREES, -1)
            end = at + 3 * nodes + TREES
            values = whole[at + 2 * nodes : end].reshape(TREES, -1)
            forests.append(Forest(bins, features, cuts, values))
            at = end
        features, cuts = nothing.copy(), nothing.copy()
        grown = (1 << level) - 1
        features[:, :grown], cuts[:, :grown] = whole[at:].reshape(2, TREES, grown)
        asked = Asked(bins, tuple(forests), features, cuts)
        every = [features, *(forest.features for forest in forests)]
        counts = np.repeat(self.bin_counts, np.diff(self.grid.offsets))
        if bool((bins < 0).any() or (bins >= counts).any()) or any(
            bool((some < 0).any() or (some >= len(self.bin_counts)).any()) for some in every
        ):
            raise InvalidParameterError("a question about trees has bins or features out of range")
        return asked


def unsafe_boosting_plan(
    *, grid: Grid, declared_rows: Sequence[int], seed: str, rounds: int = 73, depth: int = 6
) -> BoostingPlan:
    """Agree on exact sums, which protect no person.

    Args:
        grid: cells of the features.
        declared_rows: each party's largest number of rows, 1 to 2²⁶; 1 to 1000 parties.
        seed: public; of this training.
        rounds: secure sums at most, 1 + `depth` to 1000.
        depth: of trees, 1 to 10.

    Warns:
        UnsafeExactSumsWarning: always.

    Raises:
        InvalidParameterError: if a term is out of range.
    """
    warn_of_exact_sums()
    check_bounds(
        ("number of parties", len(declared_rows), 1, 1000),
        ("depth", depth, 1, MAXIMUM_DEPTH),
        ("rounds, one more than the depth at least", rounds, depth + 1, _MAXIMUM_ROUNDS),
        ("declared_rows", min(declared_rows, default=0), 1, MAXIMUM_ROWS),
        ("declared_rows", max(declared_rows, default=0), 1, MAXIMUM_ROWS),
    )
    rows = tuple(declared_rows)
    return BoostingPlan(grid=grid, declared_rows=rows, rounds=rounds, depth=depth, seed=seed)


@lru_cache(maxsize=1024)
def _draw(
    seed: str, batch: int, counts: tuple[int, ...], room: int
) -> tuple[NDArray[np.int64], ...]:
    stream = public_stream(seed, f"batch-{batch}")
    drawn = []
    for _ in range(TREES):
        order = stream.permutation(len(counts))
        fits = np.cumsum(np.asarray(counts)[order]) <= room
        fits[0] = True
        fits[(len(counts) + 1) // 2 :] = False
        drawn.append(np.sort(order[fits]))
    return tuple(drawn)
