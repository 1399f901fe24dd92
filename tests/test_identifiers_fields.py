"""Advertising ids, codes, and the fields of composite keys."""

from datetime import date

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from privacy.identifiers import (
    EmailRule,
    FieldRule,
    IdentifierKind,
    Recipe,
    normalise_advertising_id,
    normalise_code,
    normalise_date,
    normalise_digits,
    normalise_name,
    normalise_postcode,
    normalise_text,
)
from privacy.identifiers.readers import reader_of

RECIPE = Recipe("US", EmailRule.PROVIDER_RULES, 2, (), ("email",))
ID = "6d92078a-8246-4ba4-ae5b-76104861e7dc"
DATES = (FieldRule.DATE, FieldRule.DATE_DAY_FIRST, FieldRule.DATE_MONTH_FIRST)
READ = (*FieldRule, IdentifierKind.ADVERTISING_ID, IdentifierKind.MEMBER_ID)


class TestAdvertisingId:
    @pytest.mark.parametrize(
        "spelling", [ID, ID.upper(), ID.replace("-", ""), f"{{{ID.upper()}}}", f"{{{ID}}}"]
    )
    def test_case_braces_and_hyphens_do_not_matter(self, spelling: str) -> None:
        assert normalise_advertising_id(spelling) == ID

    @pytest.mark.parametrize(
        "value",
        [
            "",
            ID[:-1],
            ID + "0",
            ID.replace("6", "g"),
            "{" + ID,
            ID + "}",
            ID.replace("-", "", 1),
            "-".join(ID),
            ID.replace("-", " "),
            "\u0660" * 32,
            "0" * 32,
            "00000000-0000-0000-0000-000000000000",
        ],
    )
    def test_other_text_and_zeros_have_no_normal_form(self, value: str) -> None:
        assert normalise_advertising_id(value) is None


class TestCode:
    @pytest.mark.parametrize(
        ("spelling", "normalised"),
        [
            (" ab-12 34 ", "AB1234"),
            ("00 012", "00012"),
            ("AB\u20131\u00a02\u200b3\u00ad4", "AB1234"),
            ("e\u0301-1", "\u00c91"),
            ("\u00e9\t1", "\u00c91"),
            ("ma\u00df", "MASS"),
            ("a_b/c", "A_B/C"),
        ],
    )
    def test_blanks_dashes_and_case_do_not_matter(self, spelling: str, normalised: str) -> None:
        assert normalise_code(spelling) == normalised

    @pytest.mark.parametrize("value", ["", " - ", "\u2014", "a\x00b", "\ue000", "a\u202eb"])
    def test_nothing_and_what_nobody_can_type_has_no_normal_form(self, value: str) -> None:
        assert normalise_code(value) is None

    def test_a_zip_code_loses_its_four_digits_in_its_own_country_alone(self) -> None:
        assert normalise_postcode("12345-6789", "US") == "12345"
        assert normalise_postcode("02139", "US") == "02139"
        assert normalise_postcode("sw1a 1aa", "US") == "SW1A1AA"
        assert normalise_postcode("12345-6789", "BR") == "123456789"


class TestName:
    @pytest.mark.parametrize(
        ("spelling", "normalised"),
        [
            ("O'Brien-\u0141o\u015b", "obrienlos"),
            ("O\u2019BRIEN \u0142os\u0301", "obrienlos"),
            ("  Anne  Marie ", "annemarie"),
            ("M\u00fcller", "muller"),
            ("STRASSE", "strasse"),
            ("stra\u00dfe", "strasse"),
            ("\u00c6r\u00f8sk\u00f8bing", "aeroskobing"),
            ("\u0130nci \u0131\u015f\u0131k", "inciisik"),
            ("J\u00farg\u0111e \u00deor", "jurgdethor"),
            ("\uff21nn", "ann"),
            ("\u0915\u093f\u0924\u093e\u092c", "\u0915\u093f\u0924\u093e\u092c"),
            ("Null", "null"),
        ],
    )
    def test_accents_punctuation_and_case_do_not_matter(
        self, spelling: str, normalised: str
    ) -> None:
        assert normalise_name(spelling) == normalised

    @pytest.mark.parametrize("value", ["", "-", "\u0301", "\U0001f600", "'."])
    def test_nothing_has_no_normal_form(self, value: str) -> None:
        assert normalise_name(value) is None

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("\u30ac\u30ae", "\u30ab\u30ad"),  # ga-gi and ka-ki
            ("\u3070\u3070", "\u306f\u306f"),  # baba and haha
            ("\u3071\u3071", "\u306f\u306f"),  # papa and haha
            ("\u0e1b\u0e49\u0e32", "\u0e1b\u0e48\u0e32"),  # Thai, two tones
            ("\u0e01\u0e38", "\u0e01\u0e39"),  # Thai, two vowels below
            ("\u0915\u094d\u0937", "\u0915\u0937"),  # Devanagari, with virama
            ("\u0921\u093c", "\u0921"),  # and with nukta
        ],
    )
    def test_marks_that_tell_names_apart_in_their_script_stay(self, one: str, other: str) -> None:
        assert normalise_name(one) != normalise_name(other)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("\u30ac", "\u30ab\u3099"),  # composed or not
            ("\u30ac\u30ae", "\uff76\uff9e\uff77\uff9e"),  # full or half width
            ("\u03ac\u03ad", "\u03b1\u03b5"),
            ("\u0451\u0439", "\u0435\u0438"),
            ("e-\u0301", "e"),
            ("1\u0301", "1"),
        ],
    )
    def test_one_name_in_two_spellings_is_one(self, one: str, other: str) -> None:
        assert normalise_name(one) == normalise_name(other)

    def test_vowel_signs_are_no_accents(self) -> None:
        assert normalise_name("\u0915\u093f") != normalise_name("\u0915\u0941")


class TestDate:
    @pytest.mark.parametrize("rule", DATES)
    @pytest.mark.parametrize(
        "spelling",
        [
            "1980-05-01",
            "1980-5-1",
            "1980/05/01",
            "1980.5.01",
            "19800501",
            "1980-05-01T00:00:00Z",
            "1980-05-01 00:00:00.000",
            "\uff11\uff19\uff18\uff10-05-01",
        ],
    )
    def test_year_first_is_read_under_every_rule(self, spelling: str, rule: FieldRule) -> None:
        assert normalise_date(spelling, rule) == "1980-05-01"

    @pytest.mark.parametrize("spelling", ["02.05.1980", "2/5/1980", "02-05-1980"])
    def test_year_last_is_read_in_the_agreed_order_alone(self, spelling: str) -> None:
        assert normalise_date(spelling, FieldRule.DATE_DAY_FIRST) == "1980-05-02"
        assert normalise_date(spelling, FieldRule.DATE_MONTH_FIRST) == "1980-02-05"
        assert normalise_date(spelling, FieldRule.DATE) is None

    @pytest.mark.parametrize(
        "value",
        ["", "1980", "01.05.80", "1980-05/01", "1980-05-01 12:30:00", "5 May 1980", "-1980-05-01"],
    )
    def test_other_text_is_malformed(self, value: str) -> None:
        for rule in DATES:
            assert normalise_date(value, rule) is None
            assert value == "" or reader_of(rule, RECIPE).reject(value) == "malformed"

    @pytest.mark.parametrize(
        "value", ["1980-02-30", "1981-02-29", "1980-13-01", "19800001", "1849-12-31", "2200-01-01"]
    )
    def test_days_that_never_were_are_impossible(self, value: str) -> None:
        for rule in DATES:
            assert normalise_date(value, rule) is None
            assert reader_of(rule, RECIPE).reject(value) == "impossible"

    def test_the_bounds_are_days(self) -> None:
        assert normalise_date("1850-01-01", FieldRule.DATE) == "1850-01-01"
        assert normalise_date("2199-12-31", FieldRule.DATE) == "2199-12-31"

    @given(st.dates(date(1900, 1, 2), date(2099, 12, 31)))
    def test_eight_digits_with_the_year_last_are_never_read_as_another_day(self, day: date) -> None:
        assert normalise_date(f"{day:%d%m%Y}", FieldRule.DATE_DAY_FIRST) is None

    @given(st.dates(date(1850, 1, 1), date(2199, 12, 31)))
    def test_every_day_is_read_in_every_order(self, day: date) -> None:
        for rule in DATES:
            assert normalise_date(f"{day:%Y%m%d}", rule) == day.isoformat()
        assert normalise_date(f"{day:%d.%m.%Y}", FieldRule.DATE_DAY_FIRST) == day.isoformat()
        assert normalise_date(f"{day:%m/%d/%Y}", FieldRule.DATE_MONTH_FIRST) == day.isoformat()


class TestDigitsAndText:
    @pytest.mark.parametrize(
        ("spelling", "normalised"),
        [("12 34-56.7", "1234567"), ("007", "007"), ("\u0663\u0664", "34"), ("\uff11/2", "12")],
    )
    def test_punctuation_between_digits_does_not_matter(
        self, spelling: str, normalised: str
    ) -> None:
        assert normalise_digits(spelling) == normalised

    @pytest.mark.parametrize(
        "value", ["1.0", "12.000", "1,0", "1,234.0", "1.234,00", "\uff11\uff0e\uff10", "1.\u0660"]
    )
    def test_a_whole_number_kept_as_a_real_one_is_not_read_as_ten_times_as_much(
        self, value: str
    ) -> None:
        assert normalise_digits(value) is None
        assert reader_of(FieldRule.DIGITS, RECIPE).reject(value) == "malformed"

    def test_dots_that_set_off_parts_are_read(self) -> None:
        assert normalise_digits("1.2.0") == "120"
        assert normalise_digits("12.10") == "1210"

    @pytest.mark.parametrize("value", ["", "-", "12a", "1+2", "\u2460\u0301"])
    def test_letters_and_symbols_are_no_digits(self, value: str) -> None:
        assert normalise_digits(value) is None

    @pytest.mark.parametrize(
        ("spelling", "normalised"),
        [
            ("  12  Mill\tLane ", "12 mill lane"),
            ("STRA\u00dfE\u00a01", "strasse 1"),
            ("\ufb01n\u200b\u2060al", "final"),
        ],
    )
    def test_text_keeps_words_apart(self, spelling: str, normalised: str) -> None:
        assert normalise_text(spelling) == normalised

    @pytest.mark.parametrize("value", ["", " ", "\u200b"])
    def test_blank_text_has_no_normal_form(self, value: str) -> None:
        assert normalise_text(value) is None


@pytest.mark.parametrize("what", READ)
@given(
    value=st.text(max_size=12)
    | st.text("a\u0301\u00df\u0130\u200b -\u00e9\u01c4\u0345", max_size=6)
    | st.text(
        "a1\u0301\u0345\u30ab\u3099\uff9e\u0e48\u0e01\u05c1\u05e9\u093c\u20dd-\u0130", max_size=7
    )
)
@example(value="\u0345\u30ab\u0345")
@example(value="e\u200b\u0301")
@example(value="a-\u0301b")
def test_normalising_twice_changes_nothing(what: FieldRule | IdentifierKind, value: str) -> None:
    normalise = reader_of(what, RECIPE).normalise
    once = normalise(value)
    assert once is None or normalise(once) == once


@pytest.mark.parametrize("what", READ)
@given(value=st.text(max_size=12))
def test_every_text_has_a_normal_form_or_a_reason(
    what: FieldRule | IdentifierKind, value: str
) -> None:
    reader = reader_of(what, RECIPE)
    assert reader.normalise(value) is not None or reader.reject(value)
