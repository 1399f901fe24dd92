"""Bits written as characters, six each, as the IAB's strings have them.

Guarantees: a reader gives each bit once, never one that is not there; at its end it insists that
what is left is filling: zeros, and just as many as one of the agreed ways of filling adds.

Leaves to others: what the bits mean.

The alphabet is base64url's (RFC 4648, section 5) without `=`. A text's last character may carry
filling. Three ways of filling are in use: up to a whole character; up to a whole byte, and then to
a character; up to 24 bits.
"""

import base64
import math
import re
from enum import Flag, auto
from typing import Final, Self

from compliance.errors import ConsentStringError

__all__ = ["BitReader", "BitWriter", "Filling", "fibonacci_numbers"]

_ALPHABET: Final = re.compile(r"[A-Za-z0-9_-]+")
_LONGEST: Final = 1 << 14  # characters; real strings have some thousand at most


class Filling(Flag):
    """How far zeros fill a text up."""

    CHARACTER = auto()
    BYTE = auto()
    THREE_BYTES = auto()


def _length(bits: int, filling: Filling) -> int:
    """Characters that so many bits take."""
    if filling is Filling.THREE_BYTES:
        return 4 * math.ceil(bits / 24)
    return math.ceil((8 * math.ceil(bits / 8) if filling is Filling.BYTE else bits) / 6)


def fibonacci_numbers(below: int) -> list[int]:
    """Return 1, 2, 3, 5, 8 … up to the first that is not below the bound."""
    numbers = [1, 2]
    while numbers[-1] < below:
        numbers.append(numbers[-1] + numbers[-2])
    return numbers


_FIBONACCI: Final = fibonacci_numbers(1 << 16)


class BitReader:
    """Gives the bits of a text, from the left.

    Raises:
        ConsentStringError: the text is empty, too long, or has a character that carries no bits.
    """

    __slots__ = ("_left", "_name", "_size", "_value")

    def __init__(self, text: str, name: str) -> None:
        """Read `text`; `name` tells in errors what it is."""
        if not text:
            raise ConsentStringError(f"{name}: empty, expected characters")
        if len(text) > _LONGEST:
            raise ConsentStringError(f"{name}: over {_LONGEST} characters long")
        if _ALPHABET.fullmatch(text) is None:
            raise ConsentStringError(
                f"{name}: a character other than A-Z, a-z, 0-9, '-' and '_'; '=' is none either"
            )
        filled = base64.urlsafe_b64decode(text + "A" * (-len(text) % 4))
        self._name = name
        self._size = 6 * len(text)
        self._value = int.from_bytes(filled) >> (8 * len(filled) - self._size)
        self._left = self._size

    def take(self, width: int) -> int:
        """Return the next `width` bits as a number.

        Raises:
            ConsentStringError: there are not so many.
        """
        left = self._left - width
        if left < 0:
            raise ConsentStringError(f"{self._name}: cut short")
        self._left = left
        return (self._value >> left) & ((1 << width) - 1)

    def take_fibonacci(self) -> int:
        """Return the next number in Fibonacci coding, 1 to 65,535.

        Raises:
            ConsentStringError: the bits end first, or the number is larger.
        """
        number, last = 0, 0
        for value in _FIBONACCI:
            bit = self.take(1)
            if bit and last:
                if number >= 1 << 16:
                    break
                return number
            number, last = number + bit * value, bit
        raise ConsentStringError(f"{self._name}: a number above 65535")

    def finish(self, fillings: Filling) -> None:
        """Insist that nothing but filling is left.

        Raises:
            ConsentStringError: a bit of the rest is set, or the rest has another length.
        """
        if self._value & ((1 << self._left) - 1):
            raise ConsentStringError(f"{self._name}: goes on after its last field")
        read = self._size - self._left
        if 6 * _length(read, Filling.CHARACTER) != self._size and not any(
            6 * _length(read, one) == self._size for one in fillings
        ):
            raise ConsentStringError(f"{self._name}: too many characters after its last field")


class BitWriter:
    """Collects bits, and gives them as a text."""

    __slots__ = ("_size", "_value")

    def __init__(self) -> None:
        self._value = 0
        self._size = 0

    def put(self, value: int, width: int) -> Self:
        """Append `value` in `width` bits.

        Raises:
            ConsentStringError: it does not fit.
        """
        if not 0 <= value < 1 << width:
            raise ConsentStringError(f"a number of {width} bits is out of range")
        self._value = self._value << width | value
        self._size += width
        return self

    def put_fibonacci(self, number: int) -> Self:
        """Append a number from 1 to 65,535 in Fibonacci coding.

        Raises:
            ConsentStringError: it is out of range.
        """
        if not 1 <= number < 1 << 16:
            raise ConsentStringError("a number is out of range: expected 1 to 65535")
        bits, rest = 0, number
        largest = max(place for place, value in enumerate(_FIBONACCI) if value <= number)
        for place in range(largest, -1, -1):
            if _FIBONACCI[place] <= rest:
                rest -= _FIBONACCI[place]
                bits |= 1 << (largest - place)
        return self.put(bits << 1 | 1, largest + 2)

    @property
    def size(self) -> int:
        """Bits so far."""
        return self._size

    def text(self, filling: Filling) -> str:
        """Return the bits as characters."""
        length = _length(self._size, filling)
        octets = math.ceil(6 * length / 8)
        value = self._value << (8 * octets - self._size)
        return base64.urlsafe_b64encode(value.to_bytes(octets)).decode()[:length]
