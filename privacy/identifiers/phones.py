"""Phone numbers in E.164: a plus sign and up to 15 digits (some plans: 17).

Guarantees: what `normalise_phone` returns is what libphonenumber (`phonenumbers`) makes of the
text: parsed in the default region, extension dropped, valid in its numbering plan. Spellings of
ASCII digits, a leading plus sign and the common separators take a short way through the library's
own metadata, compiled once per region; every other spelling takes the library itself. The tests
hold both ways against each other in every region.

Leaves to others: whether somebody answers.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import phonenumbers

__all__ = ["is_written_like_a_phone", "normalise_phone"]

_SEPARATORS = b" ()-./"
_LONGEST_TEXT = 250  # characters, as the library bounds them
_CALLING_CODES = {str(code): code for code in phonenumbers.COUNTRY_CODE_TO_REGION_CODE}
_TYPES = (
    "fixed_line",
    "mobile",
    "toll_free",
    "premium_rate",
    "shared_cost",
    "voip",
    "personal_number",
    "pager",
    "uan",
    "voicemail",
)


def normalise_phone(value: str, default_region: str) -> str | None:
    """Return the number in E.164 (`+` and digits), or None if the plan has no such number.

    Args:
        value: a number in national or international spelling.
        default_region: two-letter region in which a national spelling is read.
    """
    if value.isascii() and default_region in phonenumbers.SUPPORTED_REGIONS:
        written = value.encode().translate(None, _SEPARATORS).decode()
        international = written[:1] == "+"
        digits = written[1:] if international else written
        if digits.isdecimal() and len(value) <= _LONGEST_TEXT:
            dialled = _dialled(digits, default_region, international=international)
            if dialled is not None:
                return _in_plan(*dialled)
    return _by_library(value, default_region)


def is_written_like_a_phone(value: str, default_region: str) -> bool:
    """Tell whether the text can be read as a number at all, valid or not."""
    try:
        phonenumbers.parse(value, default_region)
    except phonenumbers.NumberParseException:
        return False
    return True


def _by_library(value: str, default_region: str) -> str | None:
    try:
        number = phonenumbers.parse(value, default_region)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(number):
        return None
    return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))


@dataclass(frozen=True)
class _Plan:
    """How one region dials: the patterns of its metadata, compiled."""

    calling_code: str
    abroad: re.Pattern[str] | None
    trunk: re.Pattern[str] | None
    trunk_becomes: str | None
    national: re.Pattern[str]
    lengths: tuple[int, ...]
    leading: re.Pattern[str] | None
    valid: re.Pattern[str]

    def without_trunk_prefix(self, digits: str) -> str:
        """Take the national prefix off, unless that spoils a number good as it stands."""
        found = self.trunk.match(digits) if self.trunk is not None and digits else None
        if found is None:
            return digits
        tail = digits[found.end() :]
        if self.trunk_becomes and found.groups()[-1] is not None:
            tail = found.expand(self.trunk_becomes) + tail
        spoilt = self.national.fullmatch(digits) and not self.national.fullmatch(tail)
        return digits if spoilt else tail

    def is_too_long(self, digits: str) -> bool:
        """Tell whether the plan has no number as long."""
        return len(digits) > self.lengths[-1]


def _dialled(digits: str, region: str, *, international: bool) -> tuple[str, str] | None:
    """Return calling code and national significant number; None leaves it to the library."""
    if not international:
        home = _plan(region)
        prefix = home.abroad.match(digits) if home.abroad is not None else None
        if prefix is None:
            return _dialled_at_home(digits, home)
        digits = digits[prefix.end() :]
    for length in (1, 2, 3):
        if (code := digits[:length]) in _CALLING_CODES:
            return code, _significant(digits[length:], _main_plan(code))
    return None


def _dialled_at_home(digits: str, home: _Plan) -> tuple[str, str]:
    code = home.calling_code
    if digits.startswith(code):  # with the calling code, but without any prefix
        rest = home.without_trunk_prefix(digits[len(code) :])
        better = not home.national.fullmatch(digits) and home.national.fullmatch(rest)
        if better or home.is_too_long(digits):
            return code, _significant(rest, _main_plan(code))
    return code, _significant(digits, home)


def _significant(digits: str, plan: _Plan) -> str:
    shorter = plan.without_trunk_prefix(digits)
    return shorter if len(shorter) in plan.lengths else digits


def _in_plan(code: str, significant: str) -> str | None:
    """Return the number in E.164 if the first region that claims it knows it as valid."""
    plans = _plans(code)
    for plan in plans:
        leading = plan.leading if len(plans) > 1 else None
        if leading is not None and not leading.match(significant):
            continue
        if plan.valid.fullmatch(significant):
            return f"+{code}{significant}"
        if leading is not None:
            return None
    return None


@cache
def _plans(code: str) -> tuple[_Plan, ...]:
    """Return the plans under a calling code, the main region's first."""
    number = _CALLING_CODES[code]
    regions = phonenumbers.COUNTRY_CODE_TO_REGION_CODE[number]
    return tuple(_plan(region, number) for region in regions)


@cache
def _main_plan(code: str) -> _Plan:
    return _plans(code)[0]


@cache
def _plan(region: str, code: int = 0) -> _Plan:
    """Compile a region's metadata; `001` stands for a calling code without a region."""
    data: Any = phonenumbers.PhoneMetadata.metadata_for_region_or_calling_code(code, region)
    types = "|".join(_typed(data))
    return _Plan(
        calling_code=str(data.country_code),
        abroad=_compiled(data.international_prefix),
        trunk=_compiled(data.national_prefix_for_parsing),
        trunk_becomes=data.national_prefix_transform_rule,
        national=re.compile(data.general_desc.national_number_pattern),
        lengths=data.general_desc.possible_length,
        leading=_compiled(data.leading_digits),
        valid=re.compile(f"(?={_sized(data.general_desc)})(?:{types})" if types else r"(?!)"),
    )


def _compiled(pattern: str | None) -> re.Pattern[str] | None:
    return re.compile(pattern) if pattern else None


def _typed(data: Any) -> Iterator[str]:
    """Yield a pattern for each type of number that makes a number valid."""
    for name in _TYPES:
        kind = getattr(data, name)
        if kind is not None and kind.national_number_pattern:
            yield _sized(kind)


def _sized(kind: Any) -> str:
    """Return the pattern of a type of number, bound to the lengths that the type has."""
    pattern = rf"(?:{kind.national_number_pattern})\Z"
    lengths = "|".join(rf"\d{{{length}}}" for length in kind.possible_length if length > 0)
    return rf"(?=(?:{lengths})\Z){pattern}" if lengths else pattern
