"""Values typed to fill a field that must not be empty.

Guarantees: the lists are closed and part of recipe version 2: all parties reject the same values.
They hold what stands for nobody. Of names they hold no word that is one: Null and Nan are people.
Of codes and e-mail addresses they do: a member number NA, or null@example.com, is nobody's.

Leaves to others: a shop's own fillers, such as its head office's number.
"""

import re

from privacy.identifiers.digests import DIGEST_BYTES, sha256

__all__ = [
    "DIGESTS_OF_NOTHING",
    "DIGESTS_OF_PLACEHOLDERS",
    "PLACEHOLDER_ADDRESSES",
    "PLACEHOLDER_LOCAL_PARTS",
    "is_filler",
    "is_filler_in_prose",
    "is_placeholder_code",
    "is_placeholder_date",
    "is_placeholder_email",
    "is_placeholder_phone",
    "is_placeholder_postcode",
    "is_run",
]

_SIGNS = frozenset(["-", "--", "---", ".", "..", "...", "?", "??", "???", "/", "n/a", "#n/a"])
_PHRASES = frozenset(
    ["<na>", "<null>", "(null)", "unknown", "not provided", "not available", "not applicable"]
)
_WORDS = frozenset(["none", "null", "nil", "nan", "na", "nobody", "x", "xx", "xxx", "tbd", "empty"])
_NO_MAIL = frozenset(["noemail", "no.email", "no-email", "no_email", "nomail", "no-mail", "null"])
_NO_PERSON = frozenset(["noreply", "no.reply", "no-reply", "donotreply", "do-not-reply", "nobody"])
PLACEHOLDER_LOCAL_PARTS = _NO_MAIL | _NO_PERSON | {"none", "unknown", "anonymous"}
"""What stands before the `@` of nobody's address."""

PLACEHOLDER_ADDRESSES = frozenset(
    f"{name}@{name}.com" for name in ("a", "aa", "abc", "asdf", "email", "mail", "test", "x", "xx")
)
"""Whole addresses of nobody."""

_RUNS = ("01234567890", "12345678901")
_ONE_DIGIT_TO_THE_END = re.compile(r"([0-9])\1{6}\Z")
_DATES = frozenset(
    {"0001-01-01", "1111-11-11", "1899-12-30", "1899-12-31", "1900-01-01", "9999-12-31"}
)


def is_filler(text: str) -> bool:
    """Tell whether the whole value is a word for nothing; for identifiers and codes."""
    return is_filler_in_prose(text) or text.casefold() in _WORDS


def is_filler_in_prose(text: str) -> bool:
    """Tell whether the whole value stands for nothing even where any name may stand."""
    return text.casefold() in _SIGNS | _PHRASES


def is_placeholder_email(address: str) -> bool:
    """Tell whether a normalised, or any, address is nobody's."""
    return address.partition("@")[0] in PLACEHOLDER_LOCAL_PARTS or address in PLACEHOLDER_ADDRESSES


def is_placeholder_phone(number: str) -> bool:
    """Tell whether a number ends in seven equal digits."""
    return _ONE_DIGIT_TO_THE_END.search(number) is not None


def is_placeholder_code(code: str) -> bool:
    """Tell whether a code is zeros, six equal characters, six counted up, or a filler."""
    repeated = len(code) >= 6 and len(set(code)) == 1
    return repeated or is_run(code) or is_placeholder_postcode(code)


def is_placeholder_postcode(code: str) -> bool:
    """Tell whether a postcode is zeros or a filler; 22222 and 12345 are somewhere."""
    return not code.strip("0") or is_filler(code)


def is_run(digits: str) -> bool:
    """Tell whether six or more digits are counted up from 0 or 1."""
    return len(digits) >= 6 and any(run.startswith(digits) for run in _RUNS)


def is_placeholder_date(day: str) -> bool:
    """Tell whether an ISO 8601 day is the first or last that a system can write."""
    return day in _DATES


DIGESTS_OF_NOTHING = frozenset(map(sha256, ("", "00000000-0000-0000-0000-000000000000", "0" * 32)))
"""Of the empty text and of the advertising id of zeros."""

DIGESTS_OF_PLACEHOLDERS = frozenset([bytes(DIGEST_BYTES)]) | frozenset(
    sha256(write(text))
    for text in _SIGNS | _PHRASES | _WORDS | PLACEHOLDER_ADDRESSES
    for write in (str.lower, str.upper)
)
"""Of the listed words and addresses; and 32 zero bytes, which are the digest of nothing known."""
