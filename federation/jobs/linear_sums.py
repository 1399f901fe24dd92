"""Linear models by secure sums: with shares of noise, or exactly.

Guarantees: everything about noise, prices and lengths comes from a plan that the job and the
agreement alone make.

Leaves to others: the protocol (`sums`), gradients, steps and noise (`privacy.training`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from federation.jobs.bodies import LinearBody, ModelBody
from federation.jobs.standing import Standing
from privacy.accounting.events import Event
from privacy.randomness import SecretStream
from privacy.training.distributed import (
    DescentState,
    DistributedPlan,
    party_contribution,
    server_step,
    start_descent,
)
from privacy.training.integer_sums import FRACTION_BITS
from privacy.training.newton import (
    ExactPlan,
    NewtonState,
    averaging_contribution,
    newton_contribution,
    newton_step,
    start_from_average,
)

__all__ = ["ExactSums", "NoisedSums"]


@dataclass(frozen=True)
class NoisedSums:
    """Sums whose noise the partners share."""

    plan: DistributedPlan

    @property
    def noise_multiplier(self) -> float:
        """See `Sums`."""
        charge = self.plan.gradient.charge()
        return charge.noise_scale * math.sqrt(charge.honest_parties) / charge.l2_sensitivity

    @property
    def gradient_noise(self) -> float:
        """See `Sums`."""
        noise, parties = self.plan.gradient, len(self.plan.declared_rows)
        return noise.noise_scale * math.sqrt(parties) * 2.0 ** (noise.shift - 2 * FRACTION_BITS)

    def asked_length(self, number: int) -> int:  # noqa: ARG002 -- all ask alike
        """See `Sums`."""
        return self.plan.width

    def length(self, number: int) -> int:
        """See `Sums`."""
        return self.plan.length(number)

    def charge(self, number: int) -> Event:
        """See `Sums`."""
        return self.plan.charge(number)

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
        return party_contribution(
            weights, features, labels, self.plan, stream, party=party, round_number=number
        )

    def start(self) -> Standing:
        """See `Sums`."""
        return self._standing(start_descent(self.plan))

    def body(self, standing: Standing, columns: Sequence[str]) -> LinearBody:
        """See `Sums`."""
        return LinearBody(columns=tuple(columns), weights=tuple(standing.model.tolist()))

    def fits(self, body: ModelBody, rounds: int) -> bool:  # noqa: ARG002 -- all leave alike
        """See `Sums`."""
        return isinstance(body, LinearBody) and len(body.weights) == self.plan.width

    def step(
        self, total: NDArray[np.int64], standing: Standing, parties: Sequence[int]
    ) -> Standing:
        """See `Sums`."""
        state = standing.state
        if not isinstance(state, DescentState):
            raise TypeError("a standing of another training")
        return self._standing(server_step(total, state, self.plan, parties))

    def _standing(self, state: DescentState) -> Standing:
        finished = state.round_number > self.plan.rounds
        return Standing(state.weights, state.model, None, finished, state)


@dataclass(frozen=True)
class ExactSums:
    """Sums without noise, which protect no person: averaging once, then Newton's method.

    All are over all partners: the difference of two that are not would be one partner's own part.
    """

    plan: ExactPlan
    noise_multiplier: float = 0.0
    gradient_noise: float = 0.0

    def asked_length(self, number: int) -> int:  # noqa: ARG002 -- all ask alike
        """See `Sums`."""
        return self.plan.width

    def length(self, number: int) -> int:
        """See `Sums`."""
        return self.plan.width if number == 1 else self.plan.length

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
        if number == 1:
            return averaging_contribution(self.plan, features, labels)
        return newton_contribution(weights, features, labels, self.plan)

    def start(self) -> Standing:
        """See `Sums`."""
        nothing = np.zeros(self.plan.width)
        return Standing(nothing, nothing, None, finished=False, state=None)

    def body(self, standing: Standing, columns: Sequence[str]) -> LinearBody:
        """See `Sums`."""
        return LinearBody(columns=tuple(columns), weights=tuple(standing.model.tolist()))

    def fits(self, body: ModelBody, rounds: int) -> bool:  # noqa: ARG002 -- all leave alike
        """See `Sums`."""
        return isinstance(body, LinearBody) and len(body.weights) == self.plan.width

    def step(
        self, total: NDArray[np.int64], standing: Standing, parties: Sequence[int]
    ) -> Standing:
        """See `Sums`."""
        if isinstance(standing.state, NewtonState):
            state = newton_step(total, standing.state, self.plan)
        else:
            state = start_from_average(total, self.plan, contributors=len(parties))
        return Standing(
            weights=state.weights,
            model=state.weights,
            one_shot=state.one_shot,
            finished=state.finished,
            state=state,
        )
