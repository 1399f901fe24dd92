"""Canonical JSON (RFC 8785): one spelling of a document in bytes.

Guarantees: the bytes of `rfc8785.dumps`, always. Where a document holds nothing whose spelling
differs, Python's own encoder, in C, writes them several times as fast (`tests/test_records.py`
holds the two against each other).

What was signed or logged keeps its spelling for ever. A field that its kind of document got later
is therefore spelt only where it says something: it is declared with `exclude_if=is_unsaid`.

Leaves to others: what a document means.
"""

import json
from typing import Final

import rfc8785

__all__ = ["canonical_json", "is_unsaid"]

_EXACT: Final = 2**53 - 1

_encode = json.JSONEncoder(
    ensure_ascii=False, sort_keys=True, separators=(",", ":"), check_circular=False
).encode


def is_unsaid(value: object) -> bool:
    """Tell whether a field says nothing, and so is left out as if there were none."""
    return not value


def canonical_json(document: dict[str, object]) -> bytes:
    """Write a document of JSON values.

    Raises:
        rfc8785.CanonicalizationError: it holds what JSON has no spelling for.
    """
    if not _is_plain(document):
        return rfc8785.dumps(document)  # type: ignore[arg-type]
    try:
        return _encode(document).encode()
    except UnicodeEncodeError:
        return rfc8785.dumps(document)  # type: ignore[arg-type]


def _is_plain(value: object) -> bool:
    """Whether both encoders spell a value alike.

    They differ in floats (§3.2.2.3), in integers that a double cannot hold, and in the order of
    keys beyond ASCII (§3.2.3: by UTF-16 code units).
    """
    kind = type(value)
    if kind is str or value is None or kind is bool:
        return True
    if kind is int:
        return -_EXACT <= value <= _EXACT  # type: ignore[operator]
    if kind is dict:
        return all(
            type(key) is str and key.isascii() and _is_plain(one)
            for key, one in value.items()  # type: ignore[attr-defined]
        )
    return kind is list and all(map(_is_plain, value))  # type: ignore[call-overload]
