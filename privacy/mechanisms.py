"""Noise for numbers that leave: exact samplers over the integers.

Guarantees: the noise has exactly the distribution that the accountant charges for; no floating
point takes part, so that no low bit tells what the noise hid.

Leaves to others: how much one person can change the number (the event's sensitivity), charging
(`accounting`), and time: how long a draw takes depends on what is drawn.

Source: Canonne, Kamath and Steinke, "The discrete Gaussian for differential privacy", NeurIPS
2020, algorithms 1 and 2.
"""

from fractions import Fraction

from privacy.accounting.events import DiscreteLaplaceEvent
from privacy.errors import InvalidParameterError
from privacy.randomness import SecretStream

__all__ = ["noised_count"]


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
