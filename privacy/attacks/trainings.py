"""Trainings as an attacker sees them, with canaries planted by fair coins.

A canary is a made-up person who weighs as much as a person may: it has a column of its own, in
which all others are 0, as a value of a category would be that nobody else has. What is seen of
that column is noise, and the canary if it is there. Each stands in as many tables as a person may.

Guarantees: gradients, clipping, noise and steps are those of `privacy.training`, called and not
imitated; own rows and canaries share no column. The attacker sees all that ε is promised for, every
noised sum, and weighs it by the noise that is stated, whatever was added.

Leaves to others: coins and guesses (`audit`), and taking what is found for what it is: the noise of
this software, on this machine. It proves nothing of another party's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError
from privacy.mechanisms import MINIMUM_SIGMA
from privacy.randomness import SecretStream
from privacy.training.distributed import (
    DescentState,
    DistributedPlan,
    party_contribution,
    server_step,
    start_descent,
)
from privacy.training.dp_sgd import DpSgdParameters, train
from privacy.training.gradients import GradientEngine, LogisticGradient
from privacy.training.integer_sums import FRACTION_BITS
from privacy.training.newton import (
    averaging_contribution,
    newton_contribution,
    newton_step,
    start_from_average,
    unsafe_exact_plan,
)
from privacy.training.shared_noise import SharedNoise

__all__ = [
    "Flaw",
    "Seen",
    "WatchedDpSgd",
    "WatchedExactSums",
    "WatchedSums",
    "WatchedTraining",
]

_UNREACHABLE_LABEL: Final = 1000.0  # no score is near it: the gradient is clipped at every step
_NO_CLIPPING: Final = 1e150  # its square is finite
_DIAGONAL: Final = 181.0 / 256.0  # of a second moment: see `integer_sums.moment_sum`
_NEWTON_ROUNDS: Final = 10


class Flaw(StrEnum):
    """What is broken on purpose, to see that the audit finds it."""

    NOISE = "noise"
    """No noise is added, as much as is stated."""
    CLIPPING = "clipping"
    """No gradient is clipped."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What an attacker makes of one training.

    Attributes:
        canaries: shape (m,), larger where a canary looks more as if it took part.
        model: the weights that are published, shape (m + d,): the canaries' columns first.
    """

    canaries: NDArray[np.float64]
    model: NDArray[np.float64]


class WatchedTraining(Protocol):
    """A training on own rows and canaries that may be run again and again."""

    @property
    def most_canaries(self) -> int:
        """Canaries that one run can bear."""
        ...

    def run(
        self,
        planted: NDArray[np.bool_],
        features: NDArray[np.float64],
        labels: NDArray[np.float64],
        stream: SecretStream,
    ) -> Seen:
        """Train once.

        Args:
            planted: which canaries take part, shape (m,).
            features: own rows that take part, encoded, shape (n, d).
            labels: 1.0 and 0.0, shape (n,).
            stream: of this run alone.

        Raises:
            InvalidParameterError: if shapes do not fit.
        """
        ...


@dataclass(frozen=True)
class WatchedDpSgd:
    """Noise at one party (`dp_sgd`): every step's noised gradient is seen.

    Attributes:
        parameters: of one round, as stated and charged.
        rounds: between two, the models of a person's tables are averaged.
        tables: tables in which a person, and each canary, may stand.
        flaw: what is broken on purpose.
        engine_for: makes the gradients of a number of columns.
    """

    parameters: DpSgdParameters
    rounds: int = 1
    tables: int = 1
    flaw: Flaw | None = None
    engine_for: Callable[[int], GradientEngine] = LogisticGradient
    most_canaries: int = 1000

    def run(
        self,
        planted: NDArray[np.bool_],
        features: NDArray[np.float64],
        labels: NDArray[np.float64],
        stream: SecretStream,
    ) -> Seen:
        """Train once, in each of the tables (see `WatchedTraining`)."""
        count, places = len(planted), np.flatnonzero(planted)
        # A canary is a row with its number in front; the engine spreads it over the columns.
        rows = np.zeros((len(features) + len(places), 1 + features.shape[1]))
        rows[: len(features), 0] = -1.0
        rows[: len(features), 1:] = features
        rows[len(features) :, 0] = places
        targets = np.concatenate([labels, np.full(len(places), _UNREACHABLE_LABEL)])
        weights, seen = np.zeros(count + features.shape[1]), np.zeros(count)
        for _ in range(self.rounds):
            models = []
            for _ in range(self.tables):
                engine = _PlantedGradient(self, count, features.shape[1])
                models.append(train(engine, weights, rows, targets, self._running, stream))
                seen += self._looks_present(engine.iterates, models[-1], count)
            weights = np.mean(models, axis=0)
        return Seen(seen, weights)

    @property
    def _running(self) -> DpSgdParameters:
        """The parameters, without their noise where that is broken."""
        stated = self.parameters
        if self.flaw is not Flaw.NOISE:
            return stated
        return DpSgdParameters.unsafe_without_noise(
            steps=stated.steps,
            sampling_probability=stated.sampling_probability,
            clipping_norm=stated.clipping_norm,
            learning_rate=stated.learning_rate,
            expected_rows=stated.expected_rows,
            penalty=stated.penalty,
        )

    def _looks_present(
        self, iterates: list[NDArray[np.float64]], average: NDArray[np.float64], count: int
    ) -> NDArray[np.float64]:
        """Return each canary's log-likelihood ratio over all steps, shape (count,).

        A step shows N(1, σ²) with probability q if the canary is there, and N(0, σ²) otherwise.
        """
        stated = self.parameters
        averaged = stated.steps - stated.steps // 2
        before = np.sum(iterates[stated.steps - averaged + 1 :], axis=0)
        path = np.array([*iterates, averaged * average - before])[:, :count]
        slopes = (path[:-1] - path[1:]) / stated.learning_rate - stated.penalty * path[:-1]
        expected_sample = stated.sampling_probability * stated.expected_rows
        # The gradient of a canary points down its own column.
        pulls = -slopes * expected_sample / stated.clipping_norm
        q, variance = stated.sampling_probability, stated.noise_multiplier**2
        sampled = np.log(q) + (pulls - 0.5) / variance
        unsampled = np.log1p(-q) if q < 1.0 else -np.inf
        return np.asarray(np.logaddexp(sampled, unsampled).sum(axis=0))


class _PlantedGradient:
    """Gradients of own rows and of canaries, each by an engine of the training; and the iterates.

    Own rows are 0 in the canaries' columns and canaries in all others, so that the two never mix.
    """

    def __init__(self, watched: WatchedDpSgd, canaries: int, width: int) -> None:
        self._own, self._planted = watched.engine_for(width), watched.engine_for(canaries)
        self._canaries = canaries
        self._unclipped = watched.flaw is Flaw.CLIPPING
        self.iterates: list[NDArray[np.float64]] = []

    @property
    def parameter_count(self) -> int:
        return self._canaries + self._own.parameter_count

    def clipped_gradient_sum(
        self,
        parameters: NDArray[np.float64],
        features: NDArray[np.float64],
        labels: NDArray[np.float64],
        clipping_norm: float,
    ) -> NDArray[np.float64]:
        self.iterates.append(parameters)
        norm = _NO_CLIPPING if self._unclipped else clipping_norm
        is_own, count = features[:, 0] < 0.0, self._canaries
        planted = _columns_of(features[~is_own, 0].astype(np.int64), count)
        return np.concatenate(
            [
                self._planted.clipped_gradient_sum(
                    parameters[:count], planted, labels[~is_own], norm
                ),
                self._own.clipped_gradient_sum(
                    parameters[count:], features[is_own, 1:], labels[is_own], norm
                ),
            ]
        )


@dataclass(frozen=True)
class WatchedSums:
    """Noise that parties share (`distributed`): every round's sum is seen, less the known noise.

    Attributes:
        plan_for: makes the plan for a number of columns, from the terms of the job.
        flaw: what is broken on purpose: the noise, or nothing. Whole numbers are cut wherever they
            are added up, which cannot be switched off.

    Raises:
        InvalidParameterError: if clipping is to be broken.
    """

    plan_for: Callable[[int], DistributedPlan]
    flaw: Flaw | None = None
    most_canaries: int = 100

    def __post_init__(self) -> None:
        if self.flaw is Flaw.CLIPPING:
            raise InvalidParameterError(
                "shared noise has no clipping that could be switched off: break the noise instead"
            )

    def run(
        self,
        planted: NDArray[np.bool_],
        features: NDArray[np.float64],
        labels: NDArray[np.float64],
        stream: SecretStream,
    ) -> Seen:
        """Train once: the first party has the own rows, all have canaries (`WatchedTraining`)."""
        count = len(planted)
        stated = self.plan_for(count + features.shape[1])
        running = _without_noise(stated) if self.flaw is Flaw.NOISE else stated
        honest, tables = stated.gradient.honest_parties, stated.gradient.rows_per_person
        copies = [np.zeros((0, count + features.shape[1]))] * honest
        for table in range(tables):
            rows = _widened(np.flatnonzero(planted), count, features[:0])
            copies[table % honest] = np.concatenate([copies[table % honest], rows])
        targets = [np.ones(len(rows)) for rows in copies]
        own = np.hstack([np.zeros((len(features), count)), features])
        copies[0], targets[0] = np.concatenate([own, copies[0]]), np.append(labels, targets[0])
        state, seen = start_descent(stated), np.zeros(count)
        for number in range(1, stated.rounds + 1):
            total = np.sum(
                [
                    party_contribution(
                        state.weights,
                        copies[party],
                        targets[party],
                        running,
                        stream,
                        party=party,
                        round_number=number,
                    )
                    for party in range(honest)
                ],
                axis=0,
            )
            seen += _looks_present(total, state, stated, count)
            state = server_step(total, state, stated, range(len(stated.declared_rows)))
        return Seen(seen, state.model)


def _looks_present(
    total: NDArray[np.int64], state: DescentState, plan: DistributedPlan, count: int
) -> NDArray[np.float64]:
    """Return each canary's log-likelihood ratio in one sum, shape (count,)."""
    tables = plan.gradient.rows_per_person
    # All canaries are labelled 1: the residual is the probability of a 0.
    residuals = 0.5 * (1.0 - np.tanh(0.5 * state.weights[:count]))
    unit = 2.0 ** (2 * FRACTION_BITS)
    expected = tables * np.minimum(residuals * unit, plan.gradient.clip) / 2.0**plan.gradient.shift
    ratios = _gaussian_ratio(-total[:count].astype(np.float64), expected, plan.gradient)
    if state.round_number == 1:
        places = np.cumsum([0, *range(plan.width, plan.width - count + 1, -1)])
        squares = total[plan.width :][places].astype(np.float64)
        expected = np.full(count, tables * _DIAGONAL * 256 * unit / 2.0**plan.moments.shift)
        ratios += _gaussian_ratio(squares, expected, plan.moments)
    return ratios


def _gaussian_ratio(
    found: NDArray[np.float64], expected: NDArray[np.float64], noise: SharedNoise
) -> NDArray[np.float64]:
    variance = noise.honest_parties * noise.noise_scale**2
    return np.asarray((found * expected - 0.5 * expected**2) / variance)


def _without_noise(plan: DistributedPlan) -> DistributedPlan:
    def silent(noise: SharedNoise) -> SharedNoise:
        return SharedNoise(
            length=noise.length,
            clip=noise.clip,
            shift=noise.shift,
            noise_scale=MINIMUM_SIGMA,  # at which every draw is 0
            honest_parties=noise.honest_parties,
            rows_per_person=noise.rows_per_person,
        )

    return DistributedPlan(
        width=plan.width,
        declared_rows=plan.declared_rows,
        colluding=plan.colluding,
        dropouts=plan.dropouts,
        rounds=plan.rounds,
        epsilon=plan.epsilon,
        delta=plan.delta,
        gradient=silent(plan.gradient),
        moments=silent(plan.moments),
    )


@dataclass(frozen=True)
class WatchedExactSums:
    """Sums without noise (`newton`), for which no ε holds: how much they give away is seen."""

    most_canaries: int = 100

    def run(
        self,
        planted: NDArray[np.bool_],
        features: NDArray[np.float64],
        labels: NDArray[np.float64],
        stream: SecretStream,  # noqa: ARG002 -- nothing is drawn
    ) -> Seen:
        """Train once (see `WatchedTraining`)."""
        places = np.flatnonzero(planted)
        rows = _widened(places, len(planted), features)
        targets = np.append(np.ones(len(places)), labels)
        plan = unsafe_exact_plan(width=rows.shape[1], declared_rows=[max(1, len(rows))])
        state = start_from_average(
            averaging_contribution(plan, rows, targets), plan, contributors=1
        )
        seen = np.zeros(len(planted))
        while not state.finished and state.rounds < _NEWTON_ROUNDS:
            total = newton_contribution(state.weights, rows, targets, plan)
            seen -= total[1 : 1 + len(planted)]
            state = newton_step(total, state, plan)
        return Seen(seen, state.weights)


def _widened(
    places: NDArray[np.int64], count: int, features: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Put canaries' rows before own rows, and their columns before the others'."""
    rows = np.zeros((len(places) + len(features), count + features.shape[1]))
    rows[: len(places), :count] = _columns_of(places, count)
    rows[len(places) :, count:] = features
    return rows


def _columns_of(places: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    rows = np.zeros((len(places), count))
    rows[np.arange(len(places)), places] = 1.0
    return rows
