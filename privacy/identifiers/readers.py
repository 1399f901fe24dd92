"""How a value of a kind, or of a field's rule, is read under a recipe.

Guarantees: one place decides which normaliser, which placeholders and which reasons belong to a
column. Version 1 rejects nothing as a placeholder, calls everything unreadable malformed, and reads
the dot of a telephone number kept as a real number (`decimals`) as a separator.

Leaves to others: blanks, missing values and digests (`privacy.identifiers.columns`).
"""

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from privacy.identifiers import placeholders
from privacy.identifiers.codes import normalise_code
from privacy.identifiers.decimals import is_decimal
from privacy.identifiers.devices import is_limited, normalise_advertising_id
from privacy.identifiers.emails import normalise_email
from privacy.identifiers.fields import (
    FieldRule,
    normalise_date,
    normalise_digits,
    normalise_name,
    normalise_postcode,
    normalise_text,
    written_date,
)
from privacy.identifiers.kinds import IdentifierKind, RejectionReason
from privacy.identifiers.phones import is_written_like_a_phone, normalise_phone
from privacy.identifiers.recipe import Recipe

__all__ = ["Reader", "reader_of"]


@dataclass(frozen=True)
class Reader:
    """What becomes of a text without surrounding blanks.

    Attributes:
        normalise: the normal form, or None.
        is_placeholder: whether the normal form of a text stands for nobody; given both.
        reject: why a text has no normal form.
    """

    normalise: Callable[[str], str | None]
    is_placeholder: Callable[[str, str], bool]
    reject: Callable[[str], RejectionReason]


def reader_of(what: IdentifierKind | FieldRule, recipe: Recipe) -> Reader:
    """Return how values of a kind or rule are read under the recipe."""
    reader = _ALIKE_UNDER_ANY_RECIPE.get(what) or _reader(what, recipe)
    if recipe.version == 1:
        return Reader(reader.normalise, _never, _malformed)
    return reader


def _reader(what: IdentifierKind | FieldRule, recipe: Recipe) -> Reader:
    match what:
        case IdentifierKind.EMAIL | FieldRule.EMAIL:
            return Reader(
                partial(normalise_email, rule=recipe.email_rule),
                lambda _, normal: placeholders.is_placeholder_email(normal),
                _reject_email,
            )
        case IdentifierKind.PHONE | FieldRule.PHONE:
            read = normalise_phone if recipe.version == 1 else _read_phone
            return Reader(
                partial(read, default_region=recipe.default_region),
                lambda _, normal: placeholders.is_placeholder_phone(normal),
                partial(_reject_phone, region=recipe.default_region),
            )
        case FieldRule.POSTCODE:
            return _coded(
                partial(normalise_postcode, region=recipe.default_region),
                placeholders.is_placeholder_postcode,
            )
        case FieldRule.DATE | FieldRule.DATE_DAY_FIRST | FieldRule.DATE_MONTH_FIRST:
            return Reader(
                partial(normalise_date, rule=FieldRule(what)),
                lambda _, normal: placeholders.is_placeholder_date(normal),
                partial(_reject_date, rule=FieldRule(what)),
            )
    raise RuntimeError(f"a {what} is read field by field")


def _coded(
    normalise: Callable[[str], str | None], stands_for_nobody: Callable[[str], bool]
) -> Reader:
    return Reader(
        normalise,
        lambda text, normal: placeholders.is_filler(text) or stands_for_nobody(normal),
        _reject,
    )


def _prose(normalise: Callable[[str], str | None]) -> Reader:
    return Reader(normalise, lambda text, _: placeholders.is_filler_in_prose(text), _reject)


def _read_phone(text: str, default_region: str) -> str | None:
    decimal = is_decimal(unicodedata.normalize("NFKC", text))
    return None if decimal else normalise_phone(text, default_region)


def _never(_text: str, _normal: str) -> bool:
    return False


def _malformed(_text: str) -> RejectionReason:
    return RejectionReason.MALFORMED


def _reject(text: str) -> RejectionReason:
    filler = placeholders.is_filler(text)
    return RejectionReason.PLACEHOLDER if filler else RejectionReason.MALFORMED


def _reject_email(text: str) -> RejectionReason:
    nobody = placeholders.is_placeholder_email(text.casefold())
    return RejectionReason.PLACEHOLDER if nobody else _reject(text)


def _reject_phone(text: str, region: str) -> RejectionReason:
    digits = "".join(char for char in text if char.isdecimal())
    if len(set(digits)) == 1 or placeholders.is_run(digits):
        return RejectionReason.PLACEHOLDER
    if is_decimal(unicodedata.normalize("NFKC", text)):
        return RejectionReason.MALFORMED
    if is_written_like_a_phone(text, region):
        return RejectionReason.IMPOSSIBLE
    return _reject(text)


def _reject_advertising_id(text: str) -> RejectionReason:
    return RejectionReason.MISSING if is_limited(text) else _reject(text)


def _reject_date(text: str, rule: FieldRule) -> RejectionReason:
    written = written_date(text, rule)
    if written is None:
        return _reject(text)
    if placeholders.is_placeholder_date(written) or not written.strip("0-"):
        return RejectionReason.PLACEHOLDER
    return RejectionReason.IMPOSSIBLE


_ALIKE_UNDER_ANY_RECIPE: dict[str, Reader] = {
    IdentifierKind.ADVERTISING_ID: Reader(
        normalise_advertising_id,
        lambda _, normal: len(set(normal)) == 2,  # one digit, and the hyphen
        _reject_advertising_id,
    ),
    IdentifierKind.MEMBER_ID: _coded(normalise_code, placeholders.is_placeholder_code),
    FieldRule.CODE: _coded(normalise_code, placeholders.is_placeholder_code),
    FieldRule.DIGITS: _coded(normalise_digits, placeholders.is_placeholder_code),
    FieldRule.NAME: _prose(normalise_name),
    FieldRule.TEXT: _prose(normalise_text),
}
