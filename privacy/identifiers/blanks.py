"""The characters that are taken off both ends of every value."""

__all__ = ["BLANKS", "WITHOUT_ZERO_WIDTH"]

_ZERO_WIDTH = "\u200b\u200c\u200d\u2060\ufeff"

BLANKS = " \t\n\r\v\f\u00a0\u3000" + _ZERO_WIDTH
"""ASCII blanks, no-break and ideographic space, zero-width characters, byte order mark."""

WITHOUT_ZERO_WIDTH = dict.fromkeys(map(ord, _ZERO_WIDTH))
"""For `str.translate`: takes out what nobody sees."""
