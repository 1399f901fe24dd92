"""Advertising ids of devices: UUIDs (RFC 9562 section 4) such as Apple's IDFA and Google's GAID.

Guarantees: case, braces and missing hyphens do not matter; the normal form is lower case with
hyphens. The id of zeros, which devices give when tracking is limited, is no id.

Leaves to others: telling an id from an MD5 digest, which also is 32 hexadecimal digits.
"""

import re

__all__ = ["is_limited", "normalise_advertising_id"]

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}", re.ASCII)
_ZEROS = "0" * 32


def normalise_advertising_id(value: str) -> str | None:
    """Return the UUID in lower case with hyphens; None if it is malformed or all zeros.

    Args:
        value: 32 hexadecimal digits, bare or hyphenated 8-4-4-4-12, in braces or not.
    """
    digits = _digits(value)
    if digits is None or digits == _ZEROS:
        return None
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def is_limited(value: str) -> bool:
    """Tell whether the value is the id of zeros."""
    return _digits(value) == _ZEROS


def _digits(value: str) -> str | None:
    text = value.lower()
    if text[:1] == "{" and text[-1:] == "}":
        text = text[1:-1]
    return text.replace("-", "") if _UUID.fullmatch(text) else None
