"""Real numbers as integers modulo a power of two, whose sum does not wrap around.

Guarantees: what is encoded is finite and within the bound, and the sum of as many vectors as there
are parties, decoded, is the sum of the rounded numbers: each off by at most half a step. Anything
else is refused, never cut.

Leaves to others: clipping to the bound, noise (add it to the integers, and keep room for it), and
who is in the sum.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError

__all__ = ["FixedPoint"]


@dataclass(frozen=True)
class FixedPoint:
    """How numbers are written for a sum.

    Attributes:
        ring_bits: 32 or 64: sums are modulo 2³² or 2⁶⁴.
        parties: most vectors in a sum.
        fraction_bits: a step is 2 to the power of minus this, 0 to 52.

    Raises:
        InvalidParameterError: a value is out of range.
    """

    ring_bits: int
    parties: int
    fraction_bits: int

    def __post_init__(self) -> None:
        if self.ring_bits not in (32, 64):
            raise InvalidParameterError(f"expected a ring of 32 or 64 bits, got {self.ring_bits}")
        if not 1 <= self.parties < 1 << 31:
            raise InvalidParameterError(f"expected 1 to 2³¹-1 parties, got {self.parties}")
        if not 0 <= self.fraction_bits <= 52:
            raise InvalidParameterError(f"expected 0 to 52 bits, got {self.fraction_bits}")

    @property
    def largest_integer(self) -> int:
        """Largest magnitude of an entry: as many of it as there are parties do not wrap around."""
        return ((1 << (self.ring_bits - 1)) - 1) // self.parties

    @property
    def bound(self) -> float:
        """Largest magnitude of a number; never above what `largest_integer` stands for."""
        return min(self.largest_integer, 1 << 53) / (1 << self.fraction_bits)

    def round(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Round numbers to steps, to the nearest and halves to the even one.

        Args:
            values: any shape; finite, of magnitude `bound` or less.

        Raises:
            InvalidParameterError: a number is not finite, or too large; or they are no floats.
        """
        if values.dtype.kind != "f":
            raise InvalidParameterError(f"expected floating-point numbers, got {values.dtype}")
        wide = values.astype(np.float64)
        if not np.isfinite(wide).all():
            raise InvalidParameterError("expected finite numbers, got NaN or infinity")
        if (np.abs(wide) > self.bound).any():
            raise InvalidParameterError(
                f"expected numbers of magnitude {self.bound} or less, got a larger one: clip them, "
                "use fewer fraction bits, or a larger ring"
            )
        return np.rint(wide * float(1 << self.fraction_bits)).astype(np.int64)

    def to_ring(self, integers: NDArray[np.int64]) -> "NDArray[np.unsignedinteger[Any]]":
        """Write integers, negative ones as the ring's upper half.

        Args:
            integers: any shape; of magnitude `largest_integer` or less, noise included.

        Raises:
            InvalidParameterError: one is too large, or they are no 64-bit integers.
        """
        if integers.dtype != np.int64:
            raise InvalidParameterError(f"expected 64-bit integers, got {integers.dtype}")
        largest = self.largest_integer
        if ((integers > largest) | (integers < -largest)).any():
            raise InvalidParameterError(
                f"expected integers of magnitude {largest} or less, so that {self.parties} of them "
                "do not wrap around, got a larger one"
            )
        return integers.astype(f"<u{self.ring_bits // 8}")

    def encode(self, values: NDArray[np.float64]) -> "NDArray[np.unsignedinteger[Any]]":
        """Round numbers and write them: `to_ring` of `round`.

        Raises:
            InvalidParameterError: as those two.
        """
        return self.to_ring(self.round(values))

    def integers(self, total: "NDArray[np.unsignedinteger[Any]]") -> NDArray[np.int64]:
        """Read a sum as integers.

        Raises:
            InvalidParameterError: it has another width.
        """
        if total.dtype != np.dtype(f"<u{self.ring_bits // 8}"):
            raise InvalidParameterError(
                f"expected unsigned integers of {self.ring_bits} bits, got {total.dtype}"
            )
        return total.view(f"<i{self.ring_bits // 8}").astype(np.int64)

    def decode(self, total: "NDArray[np.unsignedinteger[Any]]") -> NDArray[np.float64]:
        """Read a sum as numbers; exact up to 2⁵³ steps, beyond that to double precision.

        Raises:
            InvalidParameterError: it has another width.
        """
        return self.integers(total) / float(1 << self.fraction_bits)
