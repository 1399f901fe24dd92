"""What every way of training by secure sums is: the same at all parties, from what all know.

Leaves to others: the ways themselves (`linear_sums`, `tree_sums`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from federation.jobs.bodies import ModelBody
from privacy.accounting.events import Event
from privacy.randomness import SecretStream
from privacy.training.boosting import Growth
from privacy.training.distributed import DescentState
from privacy.training.newton import NewtonState

__all__ = ["Standing", "Sums"]


@dataclass(frozen=True, eq=False)
class Standing:
    """Where a training stands between two sums.

    Attributes:
        weights: where the next sum is wanted, shape (`Sums.asked_length`,): of linear models, what
            the gradient is wanted at; of trees, the question of the next sum.
        model: weights that the training would leave now, shape (width,); empty for trees.
        one_shot: mean of the partners' own models, where it was free.
        finished: whether no further sum is wanted.
        state: what the method itself remembers.
        parties: places of the partners that were in the last sum.
    """

    weights: NDArray[np.float64]
    model: NDArray[np.float64]
    one_shot: NDArray[np.float64] | None
    finished: bool
    state: DescentState | NewtonState | Growth | None
    parties: tuple[int, ...] = ()


class Sums(Protocol):
    """A way to train by sums over partners: the same at all, from what all know."""

    @property
    def noise_multiplier(self) -> float:
        """Noise on a gradient's sum, divided by what one person changes in it; 0 for none."""
        ...

    @property
    def gradient_noise(self) -> float:
        """Standard deviation of all partners' noise on a gradient's sum; rows weigh at most 1."""
        ...

    def asked_length(self, number: int) -> int:
        """Return the entries of the question of round `number`, from 1.

        Raises:
            InvalidParameterError: there is no such round.
        """
        ...

    def length(self, number: int) -> int:
        """Return the entries of the sum of round `number`, from 1."""
        ...

    def charge(self, number: int) -> Event | None:
        """Return what round `number` costs a person; None where it promises nothing."""
        ...

    def contribution(
        self,
        number: int,
        party: int,
        weights: NDArray[np.float64],
        features: NDArray[np.float64],
        labels: NDArray[np.float64],
        stream: SecretStream,
    ) -> NDArray[np.int64]:
        """Return what a partner puts into the sum of round `number`.

        Args:
            number: from 1.
            party: its place among the partners, in the order of their names.
            weights: the coordinator's, shape (`asked_length(number)`,), finite.
            features: encoded rows, shape (n, width).
            labels: 1.0 for members, 0.0 for all others, shape (n,).
            stream: of this round alone, secret for ever.

        Raises:
            InvalidParameterError: a value is out of range.
        """
        ...

    def start(self) -> Standing:
        """Return where the training begins."""
        ...

    def body(self, standing: Standing, columns: Sequence[str]) -> ModelBody:
        """Return what the training leaves."""
        ...

    def fits(self, body: ModelBody, rounds: int) -> bool:
        """Tell whether that many rounds of the training can leave such a body."""
        ...

    def step(
        self, total: NDArray[np.int64], standing: Standing, parties: Sequence[int]
    ) -> Standing:
        """Go on from a sum over the partners at the places `parties`.

        Raises:
            InvalidParameterError: it is no such sum.
        """
        ...
