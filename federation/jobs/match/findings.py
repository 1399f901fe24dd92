"""What a match tells its learner: in one bucket, and in all of them together."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Comparison", "Found"]


@dataclass(frozen=True)
class Comparison:
    """What a bucket told the learner.

    Attributes:
        tokens: the learner's tokens that the peer has too, shape (m,); none where only sizes are
            revealed.
        places: where each stands among the peer's points, shape (m,).
        numbers: number of the peer's record that bears each, shape (m,); zeros where records are
            not linked.
        count: how many matched, dummies of size noise included.
    """

    tokens: NDArray[np.int64]
    places: NDArray[np.int64]
    numbers: NDArray[np.uint64]
    count: int


@dataclass(frozen=True)
class Found:
    """What all buckets together told the learner.

    Attributes:
        rows: of its people who matched, each once, in the order in which they matched.
        places: of the peer's points, or records, that matched, ascending, in the same order; left
            empty where nobody is told of them.
        met: of its people who share anything with anybody, matched or not. One of them who comes
            or goes changes it by one: how many are matched one to one may change by more, since
            others are then told apart, or are not.
        count: how many tokens matched, dummies of size noise included.
    """

    rows: NDArray[np.uint32]
    places: NDArray[np.void]
    met: int
    count: int
