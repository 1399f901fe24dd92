"""The short way to E.164 against libphonenumber itself, in every region."""

import random
import re
from collections.abc import Sequence
from functools import cache

import phonenumbers
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from phonenumbers import PhoneMetadata, PhoneNumberDesc

from privacy.identifiers import (
    EmailRule,
    FieldRule,
    IdentifierKind,
    Recipe,
    RejectionReason,
    normalise_phone,
    phones,
)
from privacy.identifiers.readers import reader_of

REGIONS = tuple(sorted(phonenumbers.SUPPORTED_REGIONS))
SEPARATORS = ("", "", "", "", " ", "-", ".", "/", " (", ") ")
TYPES = tuple(getattr(phonenumbers.PhoneNumberType, name.upper()) for name in phones._TYPES)


def by_library(value: str, region: str) -> str | None:
    try:
        number = phonenumbers.parse(value, region)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(number):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


@cache
def examples(region: str) -> Sequence[str]:
    """Return a national significant number of each type that the region has."""
    found = (phonenumbers.example_number_for_type(region, kind) for kind in TYPES)
    return [phonenumbers.national_significant_number(number) for number in found if number]


@cache
def prefixes(region: str, home: str) -> Sequence[str]:
    """Return what people put before a number of a region, dialling from another or from there."""
    code = str(phonenumbers.country_code_for_region(region))
    trunk = PhoneMetadata.metadata_for_region(region).national_prefix or ""
    abroad = PhoneMetadata.metadata_for_region(home).preferred_international_prefix or "00"
    outward = abroad.replace("~", "")
    heads = ["", "", trunk, code, f"+{code}", f"+{code}{trunk}", f"(+{code})", f"{outward}{code}"]
    return [*heads, f"00{code}", f"011{code}", "0", "1", "8", "9", "15", "044", f"+{outward}"]


@st.composite
def spellings(draw: st.DrawFn) -> tuple[str, str]:
    """Return a number as people write it, often a little wrong, and the region they are in."""
    home = draw(st.sampled_from(REGIONS))
    region = draw(st.sampled_from([home, home, draw(st.sampled_from(REGIONS))]))
    digits = list(draw(st.sampled_from(examples(region)) | st.text("0123456789", max_size=18)))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(digits)))
        digits[place : place + draw(st.integers(0, 1))] = draw(st.text("0123456789", max_size=2))
    written = draw(st.sampled_from(prefixes(region, home))) + "".join(digits)
    chosen = random.Random(draw(st.integers(0, 2**32)))
    return "".join(chosen.choice(SEPARATORS) + one for one in [*written, ""]), home


@settings(max_examples=700)
@given(spellings())
@example(("+1 242 322 0000", "US"))
@example(("0 11 15-2345-6789", "AR"))
@example(("0 15 11 91234-5678", "BR"))
@example(("+39 06 698 12345", "VA"))
@example(("01481 256789", "GG"))
@example(("8 10 49 30 901820", "RU"))
@example(("49 30 901820", "DE"))
@example(("+999 1234567", "DE"))
@example(("+800 1234 5678", "US"))
@example(("12", "US"))
@example(("00", "DE"))
@example(("000000", "IT"))
@example((" " * 240 + "212 736 5000", "US"))
@example(("212 736 5000" + "-" * 300, "US"))
@example(("9" * 45, "DE"))
def test_the_short_way_equals_the_library(spelling: tuple[str, str]) -> None:
    value, region = spelling
    assert normalise_phone(value, region) == by_library(value, region)


def test_many_slightly_wrong_numbers_are_read_as_the_library_reads_them(thorough: bool) -> None:
    rng = random.Random(20261122)
    count = 25_000 if thorough else 10_000
    known = {region: examples(region) for region in REGIONS}
    valid = 0
    for _ in range(count):
        home = rng.choice(REGIONS)
        region = rng.choice([home, home, rng.choice(REGIONS)])
        digits = list(rng.choice(known[region]))
        for _ in range(rng.choice([0, 0, 1, 2, 4])):
            place = rng.randrange(len(digits) + 1)
            digits[place : place + rng.choice([0, 1, 1, 1])] = rng.choice(["", *"0123456789"])
        spelling = rng.choice(prefixes(region, home)) + "".join(digits)
        spelling = "".join(char + rng.choice(SEPARATORS) for char in spelling)
        expected = by_library(spelling, home)
        valid += expected is not None
        assert normalise_phone(spelling, home) == expected, (region, home)
    assert valid > count * 0.12  # or the numbers were too wrong to tell anything


@pytest.mark.parametrize("start", range(0, len(REGIONS), 50))
def test_every_region_and_prefix_is_read_as_the_library_reads_it(start: int) -> None:
    for region in REGIONS[start : start + 50]:
        for head in prefixes(region, region):
            for number in examples(region):
                spelling = f"{head} {number}"
                assert normalise_phone(spelling, region) == by_library(spelling, region), region


@settings(max_examples=500)
@given(
    st.text(
        st.sampled_from("+0123456789  -()./x#*,;~[]\t\n\u00a0\uff0b\uff11\u0661aBc")
        | st.characters(),
        max_size=20,
    ),
    st.sampled_from(REGIONS),
)
@example("212 736 5000 x7", "US")
@example("++1 212 736 5000", "US")
@example("1+2127365000", "US")
@example("\uff0b1 212 736 5000", "DE")
def test_any_text_is_read_as_the_library_reads_it(value: str, region: str) -> None:
    assert normalise_phone(value, region) == by_library(value, region)


def test_usual_spellings_take_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phones, "_by_library", lambda value, region: pytest.fail("the long way"))
    for spelling in ("(212) 736-5000", "+1 212.736.5000", "011 44 20 7946 0018", "1 212 736/5000"):
        assert normalise_phone(spelling, "US") is not None


@pytest.mark.parametrize("what", [IdentifierKind.PHONE, FieldRule.PHONE])
@pytest.mark.parametrize(
    ("value", "region"),
    [
        ("30901820.0", "DE"),
        ("030901820.0", "DE"),
        ("+4930901820.00", "DE"),
        ("030 901820.0", "DE"),
        ("2127365000.0", "US"),
        ("30901820\uff0e\uff10", "DE"),
        ("30901820,0", "DE"),
    ],
)
def test_a_number_kept_as_a_real_one_is_not_read_as_another(
    value: str, region: str, what: IdentifierKind | FieldRule
) -> None:
    """Or the dot would be a separator, and the number somebody else's."""
    recipe = Recipe(region, EmailRule.AS_WRITTEN, 2, (), ("phone",))
    reader = reader_of(what, recipe)
    assert reader.normalise(value) is None
    assert reader.reject(value) == RejectionReason.MALFORMED
    before = reader_of(what, Recipe(region, EmailRule.AS_WRITTEN))  # as ever
    assert before.normalise(value) == by_library(value, region)


def test_dots_that_set_off_parts_of_a_number_are_read() -> None:
    recipe = Recipe("DE", EmailRule.AS_WRITTEN, 2, (), ("phone",))
    read = reader_of(IdentifierKind.PHONE, recipe).normalise
    assert read("+49.30.901820.0") == "+49309018200"  # whoever answers at the switchboard
    assert read("030.901820") == "+4930901820"


def test_an_extension_is_no_part_of_a_number() -> None:
    for spelling in ("212-736-5000 x7", "212-736-5000;ext=8", "212-736-5000 ext. 9"):
        assert normalise_phone(spelling, "US") == "+12127365000"


@pytest.mark.parametrize("region", ["", "us", "XX", "001", "USA"])
def test_an_unknown_region_reads_international_numbers_only(region: str) -> None:
    assert normalise_phone("+1 212 736 5000", region) == "+12127365000"
    assert normalise_phone("212 736 5000", region) in {None, by_library("212 736 5000", region)}


def metadata() -> list[PhoneMetadata]:
    PhoneMetadata.load_all()
    return [
        PhoneMetadata.metadata_for_region_or_calling_code(code, region)
        for code, regions in phonenumbers.COUNTRY_CODE_TO_REGION_CODE.items()
        for region in regions
    ]


def test_the_metadata_keeps_what_the_short_way_relies_on() -> None:
    for data in metadata():
        lengths = data.general_desc.possible_length
        local = data.general_desc.possible_length_local_only
        assert list(lengths) == sorted(lengths)
        assert lengths[0] >= 2
        assert lengths[-1] <= 17
        assert not set(local) & set(lengths)
        assert all(length < lengths[-1] for length in local)
        if data.same_mobile_and_fixed_line_pattern and data.mobile is not None:
            assert data.mobile.national_number_pattern == data.fixed_line.national_number_pattern
            assert data.mobile.possible_length == data.fixed_line.possible_length


def test_no_number_is_too_long_for_a_plan_and_valid_in_its_neighbours() -> None:
    longest: dict[int, int] = {}
    for data in metadata():
        length = data.general_desc.possible_length[-1]
        longest[data.country_code] = max(length, longest.get(data.country_code, 0))
    for data in metadata():
        if data.national_prefix_for_parsing:
            assert data.general_desc.possible_length[-1] == longest[data.country_code]


def test_a_number_is_valid_by_type_and_by_the_general_description(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made_up = PhoneMetadata(
        id="XX",
        country_code=999,
        general_desc=PhoneNumberDesc(national_number_pattern=r"[2-9]\d+", possible_length=(6, 7)),
        mobile=PhoneNumberDesc(national_number_pattern=r"\d{6,8}", possible_length=(7, 8)),
        pager=PhoneNumberDesc(national_number_pattern=r"5\d+", possible_length=(6,)),
        register=False,
    )
    monkeypatch.setattr(
        phonenumbers.PhoneMetadata, "metadata_for_region_or_calling_code", lambda *_: made_up
    )
    valid = phones._plan.__wrapped__("XX").valid
    for number in ("200000", "500000", "2000000", "1000000", "20000000", "50000000", "5", ""):
        kind = phonenumbers.phonenumberutil._number_type_helper(number, made_up)
        assert bool(valid.fullmatch(number)) == (kind != phonenumbers.PhoneNumberType.UNKNOWN)


def test_the_first_region_that_claims_a_number_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    def plan(leading: str | None, valid: str) -> phones._Plan:
        head = re.compile(leading) if leading else None
        anything = re.compile(r"\d+")
        return phones._Plan("999", None, None, None, anything, (3,), head, re.compile(valid))

    claiming, open_ = plan("1", r"19\d"), plan(None, r"[12]\d\d")
    monkeypatch.setattr(phones, "_plans", {"one": (claiming,), "two": (claiming, open_)}.get)
    assert phones._in_plan("two", "190") == "+two190"
    assert phones._in_plan("two", "120") is None
    assert phones._in_plan("two", "220") == "+two220"
    assert phones._in_plan("two", "320") is None
    alone = plan("1", r"2\d\d")
    monkeypatch.setattr(phones, "_plans", {"one": (alone,)}.get)
    assert phones._in_plan("one", "220") == "+one220"
    assert phones._in_plan("one", "120") is None
