"""The fields of a composite key: names, dates, postcodes and the like, each by an agreed rule.

Guarantees: every rule is a function of the text and the recipe alone, and idempotent. What cannot
be read gives no key rather than one that meets nobody.

Leaves to others: spelling mistakes and nicknames. They are met by several keys of different
fields (`privacy.linkage`), not by rules that also join strangers.
"""

import re
import unicodedata
from datetime import date
from enum import StrEnum
from functools import lru_cache

from privacy.identifiers.blanks import BLANKS, WITHOUT_ZERO_WIDTH
from privacy.identifiers.codes import normalise_code
from privacy.identifiers.decimals import is_decimal

__all__ = [
    "FieldRule",
    "normalise_date",
    "normalise_digits",
    "normalise_name",
    "normalise_postcode",
    "normalise_text",
    "written_date",
]

_EARLIEST, _LATEST = 1850, 2199
_MIDNIGHT = r"(?:[T ]00:00(?::00(?:\.0+)?)?Z?)?"
_YEAR_FIRST = re.compile(
    rf"(?:(?P<y>\d{{4}})(?P<s>[-/.])(?P<m>\d\d?)(?P=s)(?P<d>\d\d?){_MIDNIGHT}"
    r"|(?P<Y>\d{4})(?P<M>\d\d)(?P<D>\d\d))",
    re.ASCII,
)
_YEAR_LAST = re.compile(rf"(\d\d?)([-/.])(\d\d?)\2(\d{{4}}){_MIDNIGHT}", re.ASCII)
_WITHOUT_DECOMPOSITION = str.maketrans(
    {
        "æ": "ae",
        "œ": "oe",
        "ø": "o",
        "đ": "d",
        "ð": "d",
        "ħ": "h",
        "\u0131": "i",
        "ł": "l",
        "þ": "th",
    }
)


class FieldRule(StrEnum):
    """How one field of a composite key is normalised."""

    NAME = "name"
    """Letters and digits only, case folded, and of Latin, Greek and Cyrillic without accents:
    `O'Brien-Łoś` is `obrienlos`."""
    DATE = "date"
    """A day, year first: 1980-05-01, 1980/5/1, 1980.5.1, 19800501; midnight may follow."""
    DATE_DAY_FIRST = "date_day_first"
    """As `DATE`, and 1.5.1980, 01/05/1980, 1-5-1980 for the first of May."""
    DATE_MONTH_FIRST = "date_month_first"
    """As `DATE`, and 5/1/1980, 05-01-1980, 5.1.1980 for the first of May."""
    POSTCODE = "postcode"
    """As `CODE`; in region US the four digits after a ZIP code leave."""
    CODE = "code"
    """Blanks and dashes off, upper case: member numbers of one more programme, house numbers."""
    DIGITS = "digits"
    """ASCII digits, whatever punctuation stands between; letters, and 12.0, are malformed."""
    TEXT = "text"
    """Unicode NFKC, case folded, one space for any blanks."""
    EMAIL = "email"
    """As the recipe normalises e-mail addresses."""
    PHONE = "phone"
    """As the recipe normalises phone numbers."""


def normalise_name(value: str) -> str | None:
    """Return the letters and digits, case folded and in NFKD; None if there are none.

    Marks over and under (of a nonzero combining class) leave with letters that are Latin, Greek or
    Cyrillic, and with what is no letter. In other scripts they tell names apart, as the voicing of
    kana and the tones of Thai do, and stay. Letters that do not decompose are spelt in ASCII: æ ae,
    œ oe, ø o, đ d, ð d, ħ h, ł l, þ th, ß ss; and the dotless i, i.
    """
    return _bare(_bare(value).casefold()).translate(_WITHOUT_DECOMPOSITION) or None


def _bare(text: str) -> str:
    """Return letters, digits and the marks that stay, in NFKD."""
    if text.isascii():
        return "".join(filter(str.isalnum, text))
    kept: list[str] = []
    marked = False  # whether the letter before keeps its marks
    for char in unicodedata.normalize("NFKD", text):
        if unicodedata.category(char)[0] not in "LNM":
            continue
        if not unicodedata.combining(char):
            marked = _keeps_marks(char)
        elif not marked:
            continue
        kept.append(char)
    return "".join(kept)


@lru_cache(maxsize=4096)
def _keeps_marks(char: str) -> bool:
    without = unicodedata.name(char, "").startswith(("LATIN ", "GREEK ", "CYRILLIC "))
    return unicodedata.category(char)[0] in "LM" and not without


def normalise_date(value: str, rule: FieldRule) -> str | None:
    """Return the day in ISO 8601 (`1980-05-01`); None if it is none or cannot be read."""
    written = _parts_of_date(value, rule)
    if written is None or not _EARLIEST <= written[0] <= _LATEST:
        return None
    try:
        return date(*written).isoformat()
    except ValueError:
        return None


def written_date(value: str, rule: FieldRule) -> str | None:
    """Return year, month and day as they stand, in the order of ISO 8601, possible or not."""
    parts = _parts_of_date(value, rule)
    return None if parts is None else "{:04}-{:02}-{:02}".format(*parts)


def _parts_of_date(value: str, rule: FieldRule) -> tuple[int, int, int] | None:
    text = unicodedata.normalize("NFKC", value).strip(BLANKS)
    if found := _YEAR_FIRST.fullmatch(text):
        year, month, day = found.group("y", "m", "d") if found["y"] else found.group("Y", "M", "D")
        return int(year), int(month), int(day)
    if rule is FieldRule.DATE or not (found := _YEAR_LAST.fullmatch(text)):
        return None
    first, _, second, year = found.groups()
    day, month = (first, second) if rule is FieldRule.DATE_DAY_FIRST else (second, first)
    return int(year), int(month), int(day)


def normalise_postcode(value: str, region: str) -> str | None:
    """Return the postcode as a code; of a ZIP+4 in region US, the first five digits."""
    code = normalise_code(value)
    zip_plus_four = region == "US" and code is not None and len(code) == 9 and code.isdecimal()
    return code[:5] if code is not None and zip_plus_four else code


def normalise_digits(value: str) -> str | None:
    """Return the digits in ASCII.

    None if there are none, letters or symbols stand among them, or it is a number such as 12.0.
    """
    normal = unicodedata.normalize("NFKC", value)
    text = "".join(str(unicodedata.decimal(char, char)) for char in normal)
    between = (char for char in text if not char.isdecimal() and char not in BLANKS)
    if any(unicodedata.category(char)[0] not in "PZ" for char in between) or is_decimal(text):
        return None
    return "".join(filter(str.isdecimal, text)) or None


def normalise_text(value: str) -> str | None:
    """Return the text in NFKC, case folded, with one space for any blanks; None if it is blank."""
    seen = unicodedata.normalize("NFKC", value.translate(WITHOUT_ZERO_WIDTH))
    return " ".join(unicodedata.normalize("NFKC", seen.casefold()).split()) or None
