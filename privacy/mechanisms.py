"""Noise for numbers that leave: exact samplers over the integers.

Guarantees: two-sided geometric noise has exactly the distribution that the accountant charges for.
Discrete Gaussian noise has it on the integers up to 16 standard deviations and is cut there, which
moves it by less than 2⁻¹⁸³ in total variation. Floating point decides only what its error cannot
change; the rest is decided in exact arithmetic. So no low bit tells what the noise hid.

Leaves to others: how much one person can change the number (the event's sensitivity), charging
(`accounting`), and time: how long a draw takes depends on what is drawn.

Source: Canonne, Kamath and Steinke, "The discrete Gaussian for differential privacy", NeurIPS
2020, algorithms 1 and 2 for geometric noise; definition 1 for the discrete Gaussian, which is drawn
under steps in place of their algorithm 3, so that a whole vector is drawn at once.
"""

from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from privacy.accounting.events import DiscreteLaplaceEvent
from privacy.errors import InvalidParameterError
from privacy.randomness import SecretStream

__all__ = ["MAXIMUM_SIGMA", "MINIMUM_SIGMA", "discrete_gaussian", "noised_count"]

MINIMUM_SIGMA: Final = 1e-6
"""Smallest parameter of discrete Gaussian noise; below 1/16 all of it is 0."""

MAXIMUM_SIGMA: Final = 1e6
"""Largest parameter of discrete Gaussian noise."""

_CUT: Final = 16  # times σ: the noise is sub-Gaussian, so that P(|noise| >= 16σ) <= 2·exp(-128)
_STEP_BITS: Final = 40
_COIN_BITS: Final = 53
_TOLERANCE: Final = 1e-12  # of a float acceptance probability: its error is below 1e-13
_CHUNK: Final = 1 << 16


def noised_count(count: int, mechanism: DiscreteLaplaceEvent, stream: SecretStream) -> int:
    """Return `count` plus two-sided geometric noise; 0 where that is negative.

    Cutting at 0 is done to what is released anyway and costs nothing.

    Args:
        count: the exact number, 0 or more.
        mechanism: scale of the noise; P(noise = k) is proportional to exp(-|k| / scale).
        stream: of this release alone.

    Raises:
        InvalidParameterError: if `count` is negative.
    """
    if count < 0:
        raise InvalidParameterError(f"expected a count of 0 or more, got {count}")
    return max(0, count + _discrete_laplace(Fraction(mechanism.scale), stream))


def _discrete_laplace(scale: Fraction, stream: SecretStream) -> int:
    """Draw k with probability proportional to exp(-|k| / scale) (algorithm 2)."""
    t, s = scale.numerator, scale.denominator
    while True:
        u = _below(t, stream)
        if not _flip_exp(Fraction(u, t), stream):
            continue
        v = 0
        while _flip_exp(Fraction(1), stream):
            v += 1
        magnitude = (u + t * v) // s
        negative = _below(2, stream) == 1
        if not (negative and magnitude == 0):  # 0 has one sign, or it would come twice as often
            return -magnitude if negative else magnitude


def _flip_exp(exponent: Fraction, stream: SecretStream) -> bool:
    """Return true with probability exp(-exponent), 0 <= exponent <= 1 (algorithm 1)."""
    k = 1
    while _below(exponent.denominator * k, stream) < exponent.numerator:
        k += 1
    return k % 2 == 1


def _below(bound: int, stream: SecretStream) -> int:
    """Draw a uniform integer from 0 to bound - 1, without bias."""
    bits = (bound - 1).bit_length()
    while True:
        drawn = int.from_bytes(stream.take((bits + 7) // 8), "little") & ((1 << bits) - 1)
        if drawn < bound:
            return drawn


def discrete_gaussian(sigma: float, count: int, stream: SecretStream) -> NDArray[np.int64]:
    """Draw integers k with probability proportional to exp(-k² / 2σ²) (definition 1).

    Added to an integer vector that one person changes by at most Δ in L2, the noise gives
    Δ²/2σ²-concentrated differential privacy, as normal noise does (theorem 4, and its form for
    vectors). The sum of several parties' draws is no discrete Gaussian, but close to one (Kairouz,
    Liu and Steinke, "The distributed discrete Gaussian mechanism", ICML 2021).

    Args:
        sigma: σ from `MINIMUM_SIGMA` to `MAXIMUM_SIGMA`, in units of the integers; the standard
            deviation, which for a σ below 1 is smaller.
        count: how many, 0 or more.
        stream: of this release alone. One stream gives the same draws.

    Returns:
        (count,) independent draws, none beyond 16σ.

    Raises:
        InvalidParameterError: if `sigma` or `count` is out of range.
    """
    if not MINIMUM_SIGMA <= sigma <= MAXIMUM_SIGMA:
        raise InvalidParameterError(
            f"expected a sigma from {MINIMUM_SIGMA} to {MAXIMUM_SIGMA:.0f}, got {sigma}"
        )
    if count < 0:
        raise InvalidParameterError(f"expected a count of 0 or more, got {count}")
    steps = _Steps.under(float(sigma))
    drawn = np.empty(count, dtype=np.int64)
    filled = 0
    while filled < count:
        kept = steps.draw(min(_CHUNK, 16 + (count - filled) * 9 // 8), stream)[: count - filled]
        drawn[filled : filled + len(kept)] = kept
        filled += len(kept)
    return drawn


@dataclass(frozen=True)
class _Steps:
    """Steps over one half of the bell, from which candidates are drawn and accepted by a coin.

    Step j lies over j·width to (j+1)·width - 1. A candidate falls on it with probability
    height_j / 2⁴⁰, and is uniform there; magnitude k is accepted with probability
    exp(-k² / 2σ²)·scale / height_j, which is below 1. All numbers but that one are integers, so
    that errors in choosing them cost speed alone.
    """

    sigma: float
    width_bits: int
    scale: int
    heights: NDArray[np.int64]
    ends: NDArray[np.int64]

    @classmethod
    def under(cls, sigma: float) -> Self:
        width_bits = max(0, int(np.floor(np.log2(sigma / 8))))  # any width is right, this is fast
        step_count = (int(_CUT * sigma) >> width_bits) + 1
        tops = np.exp(-((np.arange(step_count) * 2.0**width_bits / sigma) ** 2) / 2)
        scale = int((2**_STEP_BITS - step_count) / (tops.sum() * (1 + 3 * _TOLERANCE)))
        heights = (tops * scale * (1 + 2 * _TOLERANCE)).astype(np.int64) + 1
        return cls(sigma, width_bits, scale, heights, np.cumsum(heights))

    def draw(self, count: int, stream: SecretStream) -> NDArray[np.int64]:
        """Draw `count` candidates and return those that are accepted."""
        words = np.frombuffer(stream.take(16 * count), dtype="<u8").reshape(2, count)
        where = (words[0] >> np.uint64(64 - _STEP_BITS)).astype(np.int64)
        step = np.searchsorted(self.ends, where, side="right")
        offset = (words[0] & np.uint64((1 << self.width_bits) - 1)).astype(np.int64)
        coin = words[1] >> np.uint64(64 - _COIN_BITS)
        negative = (words[1] & np.uint64(1)).astype(bool)

        magnitude = (step << self.width_bits) | offset
        possible = (step < len(self.heights)) & (magnitude <= int(_CUT * self.sigma))
        possible &= ~(negative & (magnitude == 0))  # 0 has one sign, or it would come twice
        step, coin = step[possible], coin[possible]
        magnitude, negative = magnitude[possible], negative[possible]

        exponent = np.square(magnitude.astype(np.float64)) / (2.0 * self.sigma**2)
        chance = np.exp(-exponent) * (self.scale / self.heights)[step]
        low = coin.astype(np.float64) * 2.0**-_COIN_BITS
        accepted = low + 2.0**-_COIN_BITS <= chance * (1 - _TOLERANCE)
        undecided = ~accepted & (low < chance * (1 + _TOLERANCE))
        for index in np.flatnonzero(undecided).tolist():
            accepted[index] = self.accepts(
                int(magnitude[index]), int(step[index]), int(coin[index]), stream
            )
        drawn: NDArray[np.int64] = np.where(negative, -magnitude, magnitude)[accepted]
        return drawn

    def accepts(self, magnitude: int, step: int, coin: int, stream: SecretStream) -> bool:
        """Decide one acceptance exactly: draw bits of the coin until it lies on one side."""
        exponent = Fraction(magnitude**2) / (2 * Fraction(self.sigma) ** 2)
        weight = Fraction(self.scale, int(self.heights[step]))
        bits = _COIN_BITS
        while True:
            coin = coin << 128 | int.from_bytes(stream.take(16), "little")
            bits += 128
            context = Context(prec=bits)  # digits, so that its error is far below the coin's
            rounded = context.divide(Decimal(exponent.numerator), Decimal(exponent.denominator))
            chance = Fraction(context.exp(-rounded)) * weight
            error = chance * (exponent + 1) / 10 ** (bits - 1)  # of `rounded`, and of exp
            if Fraction(coin + 1, 1 << bits) <= chance - error:
                return True
            if Fraction(coin, 1 << bits) >= chance + error:
                return False
