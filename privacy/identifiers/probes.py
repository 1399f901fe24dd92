"""Spellings by which two parties compare their normalisers before anything is computed.

Guarantees: the list is part of recipe version 2 and belongs to nobody: made-up addresses, numbers
that regulators set aside or companies publish, and the bounds of numbering plans. Probes cover
every branch of the rules, and what libraries have changed in the past: numbering plans, domain
names, Unicode tables.

Leaves to others: a difference in a spelling that is no probe.
"""

import hashlib
import json
from collections.abc import Iterator
from functools import lru_cache

from privacy.identifiers.fields import FieldRule
from privacy.identifiers.kinds import IdentifierKind
from privacy.identifiers.readers import reader_of
from privacy.identifiers.recipe import Recipe

__all__ = ["probed", "recipe_fingerprint"]

_EMAILS = (
    "Ann.Lee+shop@GoogleMail.com",
    "ann.lee@example.com",
    "ANN_LEE-1@Mail.Example.CO.UK",
    "jose\u0301@bu\u0308cher.de",
    "ann@stra\u00dfe.de",
    "ann@\u03b2\u03cc\u03bb\u03bf\u03c2.com",
    "\u7532\u6590@\u9ed2\u5ddd.\u65e5\u672c",
    "ann@a--b.org",
    "ann@xn--bcher-kva.de",
    '"ann lee"@example.com',
    "ann!#$%&'*/=?^_`{|}~@example.com",
    "ann..lee@example.com",
    ".ann@example.com",
    "ann@[192.0.2.1]",
    "ann@shop.test",
    "ann@shop.local",
    "ann@shop.onion",
    "ann@localhost",
    "ann@example",
    "ann@-shop.com",
    "ann@shop.c0m",
    "\u0130@example.com",
    "noreply@example.com",
    "x" * 64 + "@example.com",
    "x" * 65 + "@example.com",
)
_PHONES = (
    "+1 212 736 5000",
    "(212) 736-5000",
    "1-800-692-7753",
    "+1 983 200 0000",
    "+1 357 200 0000",
    "+1 416 555 0123",
    "+1 242 322 0000",
    "tel:+1-415-555-0132",
    "415-555-0132 ext. 7",
    "\uff14\uff11\uff15\uff15\uff15\uff15\uff10\uff11\uff13\uff12",
    "1-800-FLOWERS",
    "011 44 20 7946 0018",
    "00 44 20 7946 0018",
    "+44 (0)20 7946 0018",
    "020 7946 0018",
    "07700 900123",
    "+44 1481 256789",
    "+49 30 901820",
    "030 901820",
    "+49 1512 3456789",
    "+49 15310 123456",
    "+33 1 23 45 67 89",
    "06 12 34 56 78",
    "+39 06 698 12345",
    "+379 06 698 12345",
    "+34 912 345 678",
    "+31 6 12345678",
    "+48 512 345 678",
    "+7 912 345 67 89",
    "+7 701 234 5678",
    "+52 1 55 1234 5678",
    "+52 55 1234 5678",
    "011 15-2345-6789",
    "+54 9 11 2345 6789",
    "+54 11 15 2345 6789",
    "(11) 91234-5678",
    "0 15 11 91234-5678",
    "+55 11 91234-5678",
    "+225 07 12 34 56 78",
    "+225 07 12 34 56",
    "+86 131 2345 6789",
    "+91 81234 56789",
    "+91 6000 123456",
    "+81 90-1234-5678",
    "+82 10-1234-5678",
    "+62 812-3456-789",
    "+63 905 123 4567",
    "+84 91 234 56 78",
    "+234 802 123 4567",
    "+254 712 123456",
    "+27 71 123 4567",
    "+20 100 123 4567",
    "+971 50 123 4567",
    "+61 412 345 678",
    "+64 21 123 4567",
    "+358 41 2345678",
    "+47 406 12 345",
    "+383 43 201 234",
    "+800 1234 5678",
    "+883 510 012 345",
    "+999 123 4567",
    "112",
    "0000000000",
    "2127365000.0",
    "30901820.0",
    "+49.30.901820.0",
    "212-736-5000;ext=8",
)
_CODES = (
    "ab-12 34",
    "00012",
    "e\u0301\u2013\u00df\u00a07",
    "\uff21\uff11",
    "n/a",
    "000000",
    "12345-6789",
)
_DATES = (
    "1980-05-01",
    "19800501",
    "1980/5/1",
    "01.05.1980",
    "1-5-1980",
    "13/05/1980",
    "1980-02-30",
    "1900-01-01",
    "1980-05-01T00:00:00Z",
    "\uff11\uff19\uff18\uff10-05-01",
    "5 May 1980",
)
_WORDS = (
    "O\u2019Brien-\u0141o\u015b",
    "MU\u0308LLER  stra\u00dfe",
    "\u0130stanbul \u01c4",
    "\u0915\u093f\u0924\u093e\u092c",
    "\ud55c\uae00 \u5c71\u7530",
    "\u30ac\u30ae \u30ab\u30ad\uff76\uff9e",
    "\u0e1b\u0e49\u0e32 \u0e1b\u0e48\u0e32",
    "\u05e9\u05c1 \u0623\u0628 \u0439\u03ac",
    "\ufb01n \u1e9e \u2460",
    "unknown",
)
_PROBES: dict[str, tuple[str, ...]] = {
    IdentifierKind.EMAIL: _EMAILS,
    IdentifierKind.PHONE: _PHONES,
    IdentifierKind.ADVERTISING_ID: (
        "{6D92078A-8246-4BA4-AE5B-76104861E7DC}",
        "6d92078a82464ba4ae5b76104861e7dc",
        "00000000-0000-0000-0000-000000000000",
        "11111111-1111-1111-1111-111111111111",
        "6d92078a-82464ba4ae5b76104861e7dc",
    ),
    IdentifierKind.MEMBER_ID: _CODES,
    FieldRule.CODE: _CODES,
    FieldRule.POSTCODE: _CODES,
    FieldRule.DIGITS: (*_CODES, "12 34-56.7", "\u0663\u0664\u0665", "12.0", "12,00", "1.2.0"),
    FieldRule.NAME: _WORDS,
    FieldRule.TEXT: _WORDS,
    FieldRule.DATE: _DATES,
    FieldRule.DATE_DAY_FIRST: _DATES,
    FieldRule.DATE_MONTH_FIRST: _DATES,
}


@lru_cache(maxsize=16)
def recipe_fingerprint(recipe: Recipe) -> str:
    """Return SHA-256, as 64 hexadecimal digits, of a recipe and of what becomes of probes.

    The probes are spellings of the kinds and field rules that the recipe uses, built in. If two
    parties' fingerprints differ under one recipe, their libraries (phonenumbers, email-validator,
    Python's Unicode tables) normalise differently: install the same versions.
    """
    told = {
        "version": recipe.version,
        "default_region": recipe.default_region,
        "email_rule": recipe.email_rule,
        "composites": [
            [key.name, [[field.name, field.rule] for field in key.fields]]
            for key in recipe.composites
        ],
        "order": recipe.keys,
        "probes": probed(recipe),
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def probed(recipe: Recipe) -> dict[str, list[str]]:
    """Return what becomes of the probes of each kind and rule that the recipe uses.

    A probe's entry is its normal form after "=", or the reason for which it has none after "-".
    """
    rules = {field.rule for key in recipe.composites for field in key.fields}
    kinds = {IdentifierKind(key) for key in recipe.keys if key in frozenset(IdentifierKind)}
    return {str(what): list(_read(what, recipe)) for what in sorted(kinds | rules)}


def _read(what: IdentifierKind | FieldRule, recipe: Recipe) -> Iterator[str]:
    reader = reader_of(what, recipe)
    for spelling in _PROBES[what]:
        normal = reader.normalise(spelling)
        if normal is None:
            yield f"-{reader.reject(spelling)}"
        elif reader.is_placeholder(spelling, normal):
            yield "-placeholder"
        else:
            yield f"={normal}"
