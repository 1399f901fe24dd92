"""Codes that people copy by hand: member numbers, postcodes, house numbers.

Guarantees: Unicode NFC, no blanks, no hyphens or other dashes, upper case; leading zeros stay.
Normalising twice changes nothing.
"""

import unicodedata
from itertools import filterfalse

from privacy.identifiers.blanks import BLANKS

__all__ = ["normalise_code"]

_PLAIN = str.maketrans("", "", " -")


def normalise_code(value: str) -> str | None:
    """Return the code without blanks and dashes in upper case.

    None if nothing is left, or if it holds control or unassigned characters.
    """
    if value.isascii() and value.isprintable():
        return value.translate(_PLAIN).upper() or None
    upper = unicodedata.normalize("NFC", value).upper()
    kept = unicodedata.normalize("NFC", "".join(filterfalse(_leaves, upper)))
    return kept if kept and kept.isprintable() else None


def _leaves(char: str) -> bool:
    return (
        char in BLANKS or char.isspace() or unicodedata.category(char) == "Pd" or char == "\u00ad"
    )
