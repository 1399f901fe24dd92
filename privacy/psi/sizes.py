"""Noise on the size of an intersection, against the party that counts it.

Guarantees, against a counting party that follows the protocol: what it counts is the number of
common tokens plus two-sided geometric noise that it does not know.

Leaves to others: charging the noise, and a counting party that leaves its dummies out: then the
sender's count for nothing, and it counts exactly.

Both parties know a fixed list of dummies for every bucket. The counting party brings them all, the
sender a random number of them; tags come back shuffled (`two_party.TagOrder.SHUFFLED`), so that
common dummies cannot be told from common people. A person with one token is in one bucket, so that
the loss of a match is that of one bucket (McSherry, SIGMOD 2009, theorem 4).
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privacy.accounting.events import DiscreteLaplaceEvent
from privacy.errors import InvalidParameterError
from privacy.mechanisms import noised_count
from privacy.randomness import SecretStream

__all__ = ["SizeNoise"]

_DUMMY_KIND = b"\x00"  # no identifier has it


@dataclass(frozen=True)
class SizeNoise:
    """Noise on the count of every bucket.

    Attributes:
        mechanism: the noise of one bucket; P(noise = k) is proportional to exp(-|k| / scale).
        delta: chance that the noise of a bucket is cut, in (0, 1).

    Raises:
        InvalidParameterError: if `delta` is out of range.
    """

    mechanism: DiscreteLaplaceEvent
    delta: float

    def __post_init__(self) -> None:
        if not 0.0 < self.delta < 1.0:
            raise InvalidParameterError(f"expected a delta between 0 and 1, got {self.delta}")

    @property
    def dummies_per_bucket(self) -> int:
        """Dummies that the counting party brings; capacities must leave room for them."""
        return 2 * self._middle

    def dummies(self, bucket: int, *, width: int) -> NDArray[np.uint8]:
        """Return the dummies of a bucket, (dummies_per_bucket, width): the counting party's.

        Args:
            bucket: its number.
            width: bytes of a token, 2 to 33.
        """
        if not 2 <= width <= 33:
            raise InvalidParameterError(f"expected tokens of 2 to 33 bytes, got {width}")
        raw = b"".join(
            _DUMMY_KIND + hashlib.sha256(f"comity size {bucket} {number}".encode()).digest()
            for number in range(self.dummies_per_bucket)
        )
        return np.frombuffer(raw, dtype=np.uint8).reshape(-1, 33)[:, :width]

    def drawn(self, bucket: int, stream: SecretStream, *, width: int) -> NDArray[np.uint8]:
        """Return the dummies that the sender brings, a random number of them.

        Args:
            bucket: its number.
            stream: the sender's, for this bucket alone.
            width: bytes of a token, 2 to 33.
        """
        count = min(noised_count(self._middle, self.mechanism, stream), self.dummies_per_bucket)
        return self.dummies(bucket, width=width)[:count]

    def size(self, counted: int, buckets: int) -> int:
        """Return the noised size of the intersection, 0 or more, from what was counted in all."""
        return max(0, counted - buckets * self._middle)

    @property
    def _middle(self) -> int:
        """Mean number of common dummies, so large that noise passes it only with `delta`."""
        return math.ceil(self.mechanism.scale * math.log(1.0 / self.delta)) + 1
