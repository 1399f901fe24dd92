"""Whole numbers that were kept as real ones, and came out as 30901820.0.

Guarantees: they are told from numbers whose parts dots or commas set off, such as 030.901820.0: in
these the mark comes more than once.

Leaves to others: what becomes of them. Read without its mark, 1.0 would be 10, and a telephone
number somebody else's.
"""

import re

__all__ = ["is_decimal"]

_DECIMAL = re.compile(r"(?:[^.]*\.|[^,]*,)0+")


def is_decimal(text: str) -> bool:
    """Tell whether a text in ASCII digits ends in nothing but zeros after its only dot or comma."""
    return _DECIMAL.fullmatch(text) is not None
