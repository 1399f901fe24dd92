"""Boosted trees by secure sums: with shares of noise, or exactly.

Guarantees: everything about noise, prices and lengths is derived from the job and the agreement;
which cells there are comes from the agreed features alone.

Leaves to others: the protocol (`sums`), growing trees (`privacy.training`).
"""

import hashlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import rfc8785
from numpy.typing import NDArray

from compliance.agreement import Agreement
from compliance.terms import NoiseSource
from federation.jobs.bodies import ModelBody
from federation.jobs.standing import Standing, Sums
from federation.jobs.trees_body import TreesBody
from federation.population import encoder_for
from federation.specification import TrainSpec
from privacy.accounting.events import Event
from privacy.accounting.ledger import Budget
from privacy.errors import InvalidParameterError
from privacy.randomness import SecretStream
from privacy.training.binning import Grid, grid_of
from privacy.training.boosting import (
    Growth,
    boosting_contribution,
    boosting_step,
    start_boosting,
)
from privacy.training.boosting_plan import BoostingPlan, unsafe_boosting_plan
from privacy.training.encoding import NumericFeature
from privacy.training.newton import UnsafeExactSumsWarning
from privacy.training.random_boosting import (
    TREES,
    RandomBoostingPlan,
    plan_random_boosting,
    random_contribution,
    random_step,
)
from privacy.training.trees import GRADIENT_UNIT

__all__ = ["ExactTreeSums", "NoisedTreeSums", "tree_sums_for"]

_CELLS: Final = 256  # of a number, where trees cut anywhere
_FINE_CELLS: Final = (64, 1024)  # at least, at most: where bins are made of them
_LARGEST_SUM: Final = 100_000  # numbers, which two for each of the fine cells are to fit


@dataclass(frozen=True)
class NoisedTreeSums:
    """Trees split at random, whose leaves' noise the partners share."""

    plan: RandomBoostingPlan

    @property
    def noise_multiplier(self) -> float:
        """See `Sums`."""
        charge = self.plan.charge()
        return charge.noise_scale * math.sqrt(charge.honest_parties) / charge.l2_sensitivity

    @property
    def gradient_noise(self) -> float:
        """See `Sums`."""
        noise, parties = self.plan.noise, len(self.plan.declared_rows)
        return noise.noise_scale * math.sqrt(parties) * 2.0**noise.shift / GRADIENT_UNIT

    def asked_length(self, number: int) -> int:
        """See `Sums`: values of all leaves so far, or one 0 before there are any."""
        if not 1 <= number <= self.plan.rounds:
            raise InvalidParameterError(f"expected a round 1 to {self.plan.rounds}, got {number}")
        return max(1, (number - 1) * TREES << self.plan.depth)

    def length(self, number: int) -> int:  # noqa: ARG002 -- all are as long
        """See `Sums`."""
        return self.plan.length

    def charge(self, number: int) -> Event:  # noqa: ARG002 -- all cost the same
        """See `Sums`."""
        return self.plan.charge()

    def contribution(
        self,
        number: int,
        party: int,
        weights: NDArray[np.float64],
        features: NDArray[np.float64],
        labels: NDArray[np.float64],
        stream: SecretStream,
    ) -> NDArray[np.int64]:
        """See `Sums`."""
        values = _whole(weights) if number > 1 else np.zeros(0, dtype=np.int64)
        forests, cells = self.plan.forests(values), self.plan.grid.cells(features)
        return random_contribution(forests, cells, labels, self.plan, stream, party=party)

    def start(self) -> Standing:
        """See `Sums`."""
        return Standing(np.zeros(1), np.zeros(0), None, finished=False, state=None)

    def step(
        self, total: NDArray[np.int64], standing: Standing, parties: Sequence[int]
    ) -> Standing:
        """See `Sums`."""
        found = random_step(total, self.plan, contributors=len(parties)).ravel().astype(np.float64)
        before = standing.weights if standing.parties else found[:0]
        values = np.concatenate([before, found])
        finished = len(values) == self.plan.rounds * len(found)
        return Standing(values, found[:0], None, finished, None, tuple(parties))

    def body(self, standing: Standing, columns: Sequence[str]) -> TreesBody:
        """See `Sums`."""
        return TreesBody.of(columns, self.plan.grid, self.plan.forests(_whole(standing.weights)))

    def fits(self, body: ModelBody, rounds: int) -> bool:
        """See `Sums`: trees ask what was drawn for them."""
        if not isinstance(body, TreesBody) or body.depth != self.plan.depth:
            return False
        values = [np.array(batch.values) for batch in body.batches]
        if len(values) != rounds or any(len(one) != TREES << self.plan.depth for one in values):
            return False
        drawn = self.plan.forests(np.concatenate(values))
        return body == TreesBody.of(body.columns, self.plan.grid, drawn)


@dataclass(frozen=True)
class ExactTreeSums:
    """Trees grown from exact histograms, which protect no person."""

    plan: BoostingPlan
    noise_multiplier: float = 0.0
    gradient_noise: float = 0.0

    def asked_length(self, number: int) -> int:
        """See `Sums`."""
        return self.plan.asked_length(number)

    def length(self, number: int) -> int:
        """See `Sums`."""
        return self.plan.length(number)

    def charge(self, number: int) -> None:
        """See `Sums`."""

    def contribution(
        self,
        number: int,
        party: int,  # noqa: ARG002 -- all do the same
        weights: NDArray[np.float64],
        features: NDArray[np.float64],
        labels: NDArray[np.float64],
        stream: SecretStream,  # noqa: ARG002 -- there is no noise
    ) -> NDArray[np.int64]:
        """See `Sums`."""
        asked, cells = self.plan.decode(number, weights), self.plan.grid.cells(features)
        return boosting_contribution(asked, cells, labels, self.plan, number=number)

    def start(self) -> Standing:
        """See `Sums`."""
        return self._standing(start_boosting(self.plan), ())

    def step(
        self, total: NDArray[np.int64], standing: Standing, parties: Sequence[int]
    ) -> Standing:
        """See `Sums`."""
        if not isinstance(standing.state, Growth):
            raise TypeError("a standing of another training")
        return self._standing(boosting_step(total, standing.state, self.plan, parties), parties)

    def body(self, standing: Standing, columns: Sequence[str]) -> TreesBody:
        """See `Sums`."""
        if not isinstance(standing.state, Growth):
            raise TypeError("a standing of another training")
        return TreesBody.of(columns, self.plan.grid, standing.state.asked.forests)

    def fits(self, body: ModelBody, rounds: int) -> bool:
        """See `Sums`."""
        return (
            isinstance(body, TreesBody)
            and body.grid == self.plan.grid
            and body.depth == self.plan.depth
            and rounds == self.plan.sums
            and len(body.batches) == self.plan.batches
        )

    def _standing(self, growth: Growth, parties: Sequence[int]) -> Standing:
        return Standing(
            weights=self.plan.encode(growth.number, growth.asked),
            model=np.zeros(0),
            one_shot=None,
            finished=growth.number > self.plan.sums,
            state=growth,
            parties=tuple(parties),
        )


def tree_sums_for(spec: TrainSpec, agreement: Agreement, rows: Sequence[int]) -> Sums:
    """Derive how to train trees from the job and the agreement alone.

    Args:
        spec: a job for boosted trees.
        agreement: the features, and the terms of training.
        rows: that each partner declares, in the order of their names.

    Raises:
        InvalidParameterError: no noise keeps the promise, or there are too few rounds.
    """
    terms, features = agreement.train, encoder_for(agreement).features
    job = hashlib.sha256(rfc8785.dumps(spec.model_dump(mode="json"))).hexdigest()
    seed = f"{agreement.digest}/{job}"
    if spec.noise is NoiseSource.UNSAFE_NONE:
        with warnings.catch_warnings():  # the job and the agreement name the danger themselves
            warnings.simplefilter("ignore", UnsafeExactSumsWarning)
            return ExactTreeSums(
                unsafe_boosting_plan(
                    grid=_fine_grid(agreement),
                    declared_rows=rows,
                    seed=seed,
                    rounds=spec.rounds,
                    depth=spec.depth,
                )
            )
    epsilon, delta = spec.promise
    return NoisedTreeSums(
        plan_random_boosting(
            grid=grid_of(features, _CELLS),
            declared_rows=rows,
            colluding=terms.colluding_partners,
            dropouts=terms.absent_partners,
            budget=Budget(epsilon=epsilon, delta=delta),
            seed=seed,
            max_parties_per_person=terms.max_parties_per_person,
            rounds=spec.rounds,
            depth=spec.depth,
        )
    )


def _fine_grid(agreement: Agreement) -> Grid:
    """Return cells as fine as a sum has room for, in powers of two."""
    features = encoder_for(agreement).features
    numbers = [one for one in features if isinstance(one, NumericFeature)]
    words = sum(len(one.columns) + 1 for one in features if not isinstance(one, NumericFeature))
    least, most = _FINE_CELLS
    room = max(_LARGEST_SUM // 2 - words, 1) // max(len(numbers), 1)
    return grid_of(features, min(max(1 << (room.bit_length() - 1 if room else 0), least), most))


def _whole(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Read values of leaves.

    Raises:
        InvalidParameterError: they are no whole numbers of their range.
    """
    if not bool((np.abs(values) < 1 << 40).all() and (values == np.rint(values)).all()):
        raise InvalidParameterError("expected whole numbers as values of leaves")
    return values.astype(np.int64)
