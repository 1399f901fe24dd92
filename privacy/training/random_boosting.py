"""Boosted trees whose noise is shared: trees split at random, leaves from noised sums.

```
every party                                  secure sum           coordinator
1  plan; all trees' questions, from a
   public seed (the same at all)                                  1  plan, the same
2  gradient and curvature of its rows
   in every leaf of the round's trees
   + its share of the noise              ──►  Σ over parties  ──►  3  value of every leaf
        ▲                                                               │
        └──────────────────── values of the leaves ─────────────────────┘   … `rounds` times
```

Guarantees: all sums together are (ε, δ)-private for a person with a row in each of up to
`max_parties_per_person` tables, add or remove, towards whoever sees the sums and knows the noise
of at most `colluding` parties, while at most `dropouts` are missing from a sum. A row is in one
leaf of each of a round's T trees, with a gradient and curvature of norm 1 at most (`trees`): it
weighs √T, however many leaves there are. Where trees ask is drawn from public terms alone.

Why so (Maddock et al. 2022, "Federated Boosted Decision Trees with Differential Privacy"): a split
that looks at data costs noise, and a totally random one costs none; a few features a tree keep
leaves large; a round's trees are one step, the mean of T Newton steps. Noise of a leaf grows with
√T, that of the mean of T trees does not, so that many trees cost bytes alone. How far a leaf is
trusted follows from the round itself: values are shrunk as their spread over all leaves, beyond
the known noise, says they should be (empirical Bayes).

Leaves to others: the secure sum, which must reveal one sum over at least `least_contributors` or
none; charging `charge` before each round; answering a round once; and never giving one stream to
two contributions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from privacy.accounting import (
    Budget,
    DistributedDiscreteGaussianEvent,
    calibrate_discrete_gaussian,
)
from privacy.errors import InvalidParameterError
from privacy.randomness import SecretStream
from privacy.training.binning import Grid
from privacy.training.shared_noise import SharedNoise, Sharing, cost_within, honest_of, share_noise
from privacy.training.trees import (
    CURVATURE_UNIT,
    GRADIENT_UNIT,
    MAXIMUM_DEPTH,
    Forest,
    check_cells,
    descend,
    gradients,
    public_stream,
    total_scores,
    whole_values,
)

__all__ = ["RandomBoostingPlan", "plan_random_boosting", "random_contribution", "random_step"]

TREES: Final = 32  # of a round
FEATURES_PER_TREE: Final = 3
STEP: Final = 1.5  # of Newton's: below the 2 beyond which a parabola is climbed out of


@dataclass(frozen=True, kw_only=True)
class RandomBoostingPlan:
    """What parties and coordinator do; made from public terms alone by `plan_random_boosting`.

    Attributes:
        grid: cells of the features.
        declared_rows: public number of rows of each party, in the order of the parties.
        dropouts: parties that may be missing from a sum.
        rounds: secure sums.
        depth: questions from a root to a leaf.
        seed: what trees are drawn from.
        epsilon: what all rounds cost at `delta`; at most what was asked.
        delta: as asked.
        noise: of a round's sum.
    """

    grid: Grid
    declared_rows: tuple[int, ...]
    dropouts: int
    rounds: int
    depth: int
    seed: str
    epsilon: float
    delta: float
    noise: SharedNoise

    @property
    def length(self) -> int:
        """Integers that a party sends in a round: gradients of all leaves, then curvatures."""
        return self.noise.length

    @property
    def least_contributors(self) -> int:
        """Parties that a sum has at least: the threshold of the secure sum."""
        return len(self.declared_rows) - self.dropouts

    @property
    def sum_bound(self) -> int:
        """Largest magnitude of an entry of a sum."""
        return sum(self.noise.bound(rows) for rows in self.declared_rows)

    def charge(self) -> DistributedDiscreteGaussianEvent:
        """Return what one round costs a person."""
        return self.noise.charge()

    def forest(self, round_number: int, values: NDArray[np.int64]) -> Forest:
        """Return the trees of a round, from 1, with `values` of shape (trees, leaves)."""
        bins, features, cuts = _questions(self, round_number)
        return Forest(bins, features, cuts, values)

    def forests(self, values: NDArray[np.int64]) -> tuple[Forest, ...]:
        """Return the trees of all rounds so far, from the values of all their leaves in turn.

        Raises:
            InvalidParameterError: if they are not those of whole rounds.
        """
        leaves = TREES << self.depth
        if values.ndim != 1 or len(values) % leaves or len(values) > self.rounds * leaves:
            raise InvalidParameterError(
                f"expected values of at most {self.rounds} rounds, {leaves} each, got {len(values)}"
            )
        rounds = values.reshape(-1, TREES, 1 << self.depth)
        return tuple(self.forest(number, some) for number, some in enumerate(rounds, start=1))


def plan_random_boosting(  # noqa: PLR0913 -- terms, all by name
    *,
    grid: Grid,
    declared_rows: Sequence[int],
    colluding: int,
    dropouts: int,
    budget: Budget,
    seed: str,
    max_parties_per_person: int = 1,
    rounds: int = 10,
    depth: int = 6,
) -> RandomBoostingPlan:
    """Step 1: derive everything from public terms. The same terms give the same plan.

    Args:
        grid: cells of the features.
        declared_rows: each party's public number of rows, 1 to 2²⁶; 2 to 1000 parties.
        colluding: parties that may tell their noise to who sees the sums, 0 or more; 1 where a
            party sees the model.
        dropouts: parties that may be missing from a sum, 0 or more. The noise of at least one
            party must be left: colluding + dropouts is below the number of parties.
        budget: what a person may lose by everything together.
        seed: public; of this training.
        max_parties_per_person: tables that one person may stand in, with one row each.
        rounds: secure sums, 1 to 1000.
        depth: of trees, 1 to 10.

    Raises:
        InvalidParameterError: if a term is out of range, or no noise keeps the promise.
    """
    honest_parties = honest_of(
        Sharing(declared_rows, colluding, dropouts, max_parties_per_person, rounds),
        ("depth", depth, 1, MAXIMUM_DEPTH),
    )
    whole = calibrate_discrete_gaussian(epsilon=budget.epsilon, delta=budget.delta)
    noise = share_noise(
        length=2 * TREES << depth,
        clip=math.isqrt(TREES * GRADIENT_UNIT * GRADIENT_UNIT) + 1,
        noise_multiplier=whole * math.sqrt(rounds),
        honest_parties=honest_parties,
        rows_per_person=max_parties_per_person,
    )
    cost = cost_within(budget, [noise.charge(rounds)])
    return RandomBoostingPlan(
        grid=grid,
        declared_rows=tuple(declared_rows),
        dropouts=dropouts,
        rounds=rounds,
        depth=depth,
        seed=seed,
        epsilon=cost,
        delta=budget.delta,
        noise=noise,
    )


def random_contribution(
    forests: Sequence[Forest],
    cells: NDArray[np.int32],
    labels: NDArray[np.float64],
    plan: RandomBoostingPlan,
    stream: SecretStream,
    *,
    party: int,
) -> NDArray[np.int64]:
    """Step 2: what one party puts into the secure sum of the round after those of `forests`.

    Args:
        forests: of the rounds before.
        cells: of the party's rows, one a person, from `Grid.cells`, shape (n, features).
        labels: shape (n,), in [0, 1].
        plan: made by the party itself.
        stream: of this round alone; secret for ever.
        party: the party's place in the plan's `declared_rows`.

    Returns:
        Shape (`plan.length`,). Nobody but the secure sum may see it: it holds only a share of the
        noise.

    Raises:
        InvalidParameterError: if shapes do not fit, a value is out of range, or there is no such
            party or round.
    """
    if not 0 <= party < len(plan.declared_rows):
        raise InvalidParameterError(
            f"expected a party 0 to {len(plan.declared_rows) - 1}, got {party}"
        )
    if len(forests) >= plan.rounds:
        raise InvalidParameterError(f"the plan has {plan.rounds} rounds, and all are done")
    check_cells(plan.grid, cells, labels)
    gradient, curvature = gradients(total_scores(forests, cells), labels)
    bins, features, cuts = _questions(plan, len(forests) + 1)
    codes, leaves = bins[cells], 1 << plan.depth
    sums = np.empty((2, TREES, leaves), dtype=np.int64)
    for tree in range(TREES):
        leaf = descend(codes, features[tree], cuts[tree], plan.depth)
        sums[0, tree] = np.bincount(leaf, gradient, leaves)
        sums[1, tree] = np.bincount(leaf, curvature, leaves)
    return plan.noise.contribution(sums.ravel(), plan.declared_rows[party], stream)


def random_step(
    total: NDArray[np.int64], plan: RandomBoostingPlan, *, contributors: int
) -> NDArray[np.int64]:
    """Step 3: values of a round's leaves, in units of 2⁻²⁰.

    With noise of variance s² on gradients' sums, G is taken for -τ·H·z plus noise of variance
    s² + H, where z is standard normal and τ² what the leaves' own spread says; a leaf's value is
    its mean given G. In the mean of T trees noise has a T-th of its variance, and is given that.

    Args:
        total: the secure sum, shape (`plan.length`,), as signed integers.
        plan: the same as at the parties.
        contributors: parties that are in the sum.

    Returns:
        Shape (trees, leaves).

    Raises:
        InvalidParameterError: if the sum has another length or an entry that no such sum can
            have, or too few parties took part.
    """
    if not plan.least_contributors <= contributors <= len(plan.declared_rows):
        raise InvalidParameterError(
            f"expected a sum over {plan.least_contributors} to {len(plan.declared_rows)} parties, "
            f"got {contributors}"
        )
    if total.shape != (plan.length,) or total.dtype != np.int64:
        raise InvalidParameterError(
            f"expected a sum of {plan.length} int64, got shape {total.shape} of {total.dtype}"
        )
    if bool((total > plan.sum_bound).any() or (total < -plan.sum_bound).any()):
        raise InvalidParameterError(
            f"expected entries of magnitude {plan.sum_bound} at most: the sum wrapped or is broken"
        )
    gradient, curvature = total.reshape(2, TREES, -1) * 2.0**plan.noise.shift
    spread = plan.noise.noise_scale * 2.0**plan.noise.shift * math.sqrt(contributors)
    gradient, variance = gradient / GRADIENT_UNIT, (spread / GRADIENT_UNIT) ** 2
    # A curvature below its own noise is not told from one as large as the noise.
    curvature = np.maximum(curvature, spread) / CURVATURE_UNIT
    beyond = float(np.sum(gradient**2 - variance - curvature))
    prior = max(beyond, 0.0) / float(np.sum(curvature**2))
    mean = gradient * curvature * prior
    ridge = (variance + curvature) / TREES
    newton = mean / (prior * curvature**2 + ridge)
    return whole_values(-STEP / TREES * newton)


def _questions(
    plan: RandomBoostingPlan, round_number: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Draw what a round's trees ask: bins, features and cuts, as in `Forest`.

    Categories come in one random order for all trees of a round. A tree asks of a few features; a
    node cuts anywhere in what the nodes above it left of its feature, or nowhere where that is one
    cell.
    """
    stream = public_stream(plan.seed, f"round-{round_number}")
    features = plan.grid.features
    bins = np.concatenate(
        [
            np.arange(one.count) if one.is_numeric else stream.permutation(one.count)
            for one in features
        ]
    )
    among = min(FEATURES_PER_TREE, len(features))
    chosen = np.stack([stream.permutation(len(features))[:among] for _ in range(TREES)])
    counts = np.array([one.count for one in features])
    low = np.zeros((TREES, 1, among), dtype=np.int64)
    high = np.broadcast_to(counts[chosen][:, np.newaxis, :], (TREES, 1, among))
    asked, cuts = [], []
    for level in range(plan.depth):
        nodes = 1 << level
        draws = stream.uniform(2 * TREES * nodes).reshape(2, TREES, nodes)
        which = (draws[0] * among).astype(np.int64)[..., np.newaxis]
        begin = np.take_along_axis(low, which, 2)
        end = np.take_along_axis(high, which, 2)
        cut = begin + (draws[1][..., np.newaxis] * (end - begin - 1)).astype(np.int64)
        asked.append(np.take_along_axis(chosen, which[..., 0], 1))
        cuts.append(cut[..., 0])
        below, above = high.copy(), low.copy()
        np.put_along_axis(below, which, cut + 1, 2)
        np.put_along_axis(above, which, np.minimum(cut + 1, end - 1), 2)
        low = np.stack([low, above], axis=2).reshape(TREES, 2 * nodes, among)
        high = np.stack([below, high], axis=2).reshape(TREES, 2 * nodes, among)
    return bins, np.concatenate(asked, axis=1), np.concatenate(cuts, axis=1)
