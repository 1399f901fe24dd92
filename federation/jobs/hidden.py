"""How many people who are no seeds are positives all the same: counted when a model is trained.

```
coordinator                       partner
1  train.count (weights)    ──►   2 count people by score: seeds, others; noise on each count
3  add up, estimate         ◄──     train.counted
```

Guarantees: no I/O; what is estimated follows from noised counts alone. Nobody is asked unless it is
agreed and the job takes seeds for some of the positives.

Leaves to others: the estimate (`privacy.training.unlabelled`), training (`train`).
"""

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Self

import numpy as np
from numpy.typing import NDArray

from compliance.agreement import Agreement
from compliance.terms import Labels
from federation.errors import MessageError
from federation.jobs.exchange import Exchange, expect
from federation.jobs.quorum import Quorum
from federation.messages import Message, TrainCount, TrainCounted, weights_to_bytes
from federation.specification import TrainSpec
from privacy.accounting.events import DiscreteLaplaceEvent, RepeatedEvent
from privacy.training.unlabelled import CELLS, HiddenShare, ScoreCounts

__all__ = ["HiddenPlan", "coordinate_counting", "counts_to_bytes"]

_COUNT = np.dtype("<i8")
_MOST = 1 << 40  # that a count may be, so that sums over partners do not wrap round


@dataclass(frozen=True)
class HiddenPlan:
    """The noise on a partner's counts, and what all of them cost.

    Attributes:
        epsilon: agreed for all partners together.
        mechanism: the noise on one count.
        charge: privacy loss of a person whom as many partners count as agreed.
    """

    epsilon: float
    mechanism: DiscreteLaplaceEvent
    charge: RepeatedEvent

    @property
    def sigma(self) -> float:
        """Standard deviation of one partner's noise on one count, rounded up a little."""
        return math.sqrt(2.0) * self.mechanism.scale

    @classmethod
    def of(cls, spec: TrainSpec, agreement: Agreement) -> Self | None:
        """Return the plan of a job; None where nobody counts."""
        epsilon = agreement.train.hidden_share_epsilon
        if epsilon is None or spec.labels is not Labels.SEEDS_ONLY:
            return None
        parties = agreement.train.max_parties_per_person
        mechanism = DiscreteLaplaceEvent(scale=parties / epsilon)
        return cls(epsilon, mechanism, RepeatedEvent(event=mechanism, count=parties))


def counts_to_bytes(counts: ScoreCounts) -> bytes:
    """Encode noised counts: seeds, then others, little-endian integers of 64 bits."""
    return np.concatenate([counts.seeds, counts.unlabelled]).astype(_COUNT).tobytes()


def _counts(message: Message, plan: HiddenPlan) -> ScoreCounts:
    expect(message, TrainCounted)
    if len(message.payload) != 2 * CELLS * _COUNT.itemsize:
        raise MessageError(
            f"{message.header.sender} told {len(message.payload)} bytes of counts; expected "
            f"{2 * CELLS * _COUNT.itemsize}"
        )
    counts = np.frombuffer(message.payload, dtype=_COUNT).astype(np.int64)
    if (counts > _MOST).any() or (counts < -_MOST).any():
        raise MessageError(f"{message.header.sender} told counts of more people than there are")
    return ScoreCounts(counts[:CELLS], counts[CELLS:], plan.sigma)


def coordinate_counting(
    spec: TrainSpec,
    plan: HiddenPlan | None,
    quorum: Quorum,
    weights: NDArray[np.float64],
) -> Generator[Exchange, Sequence[Message], HiddenShare | None]:
    """Steps 1 and 3, at the coordinator; whoever is missing here is missing from the training.

    Returns:
        The share; None where nobody counts, or noise leaves nothing to say.
    """
    if plan is None:
        return None
    asked = TrainCount(spec=spec, width=len(weights))
    said = yield quorum.say(asked, weights_to_bytes(weights))
    quorum.hear(said)
    return reduce(ScoreCounts.with_those_of, [_counts(one, plan) for one in said]).hidden_share()
