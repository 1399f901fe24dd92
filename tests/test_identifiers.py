import base64
import hashlib
from typing import Any, TypeAlias

import numpy as np
import phonenumbers
import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError
from privacy.identifiers import (
    EmailRule,
    HashedColumn,
    IdentifierKind,
    Recipe,
    RejectionReason,
    hash_column,
    normalise_email,
    normalise_phone,
    psi_tokens,
)
from privacy.identifiers.blanks import BLANKS
from privacy.identifiers.placeholders import is_placeholder_email
from privacy.identifiers.plain import plain_emails

Bytes: TypeAlias = NDArray[np.uint8]

RECIPE = Recipe(default_region="US", email_rule=EmailRule.PROVIDER_RULES)
EMAIL, PHONE = IdentifierKind.EMAIL, IdentifierKind.PHONE
RULES = tuple(EmailRule)

# Unified ID 2.0, "Normalization and Encoding" (IABTechLab/uid2docs@040205a9,
# docs/getting-started/gs-normalization-encoding.md): spelling, normalised, SHA-256 in base64.
UID2_EMAILS = (
    ("MyEmail@example.com", "myemail@example.com", "FsGNM28LJQ8OLZB0Us65ZYp07NrovJSGTCMSKnLMJ6U="),
    ("MYEMAIL@example.com", "myemail@example.com", "FsGNM28LJQ8OLZB0Us65ZYp07NrovJSGTCMSKnLMJ6U="),
    (
        "My.Email@example.com",
        "my.email@example.com",
        "4itTvG+HEnTzpiqzejyu1yFPwU1nYhWpaiQvz62hyB8=",
    ),
    (
        "JaneSaoirse@example.com",
        "janesaoirse@example.com",
        "1mcOepIAfxtf94Xx/IHlOqbT170GvfXEc83HKGwoS20=",
    ),
    (
        "Jane.Saoirse@example.com",
        "jane.saoirse@example.com",
        "sZZDLHuYmiypHIN5mVfFFdpT5sE6vyC3j+qU8RfpC/g=",
    ),
    (
        "JaneSaoirse+Work@example.com",
        "janesaoirse+work@example.com",
        "KKruSBUjDNO069iMUVImVQZm6RrAGZKeOtrD9mwogYA=",
    ),
    (
        "JANE.SAOIRSE@gmail.com",
        "janesaoirse@gmail.com",
        "ku4mBX7Z3qJTXWyLFB1INzkyR2WZGW4ANSJUiW21iI8=",
    ),
    (
        "JaneSaoirse+Work@gmail.com",
        "janesaoirse@gmail.com",
        "ku4mBX7Z3qJTXWyLFB1INzkyR2WZGW4ANSJUiW21iI8=",
    ),
    ("user@example.com", "user@example.com", "tMmiiTI7IaAcPpQPFQ65uMVCWH8av9jw4cwf/F5HVRQ="),
)
UID2_PHONE = ("1 (234) 567-8901", "+12345678901", "EObwtHBUqDNZR33LNSMdtt5cafsYFuGmuY4ZLenlue4=")

AS_EVER = (
    "noreply@shop.com",
    "test@test.com",
    "n/a",
    "0000000000",
    "+7 777 777 7777",
    "+1 111 111 1111",
    "(212) 736-5000",
    "030 901820",
    "011 44 20 7946 0018",
    "+44 (0)20 7946 0018",
    base64.b64encode(bytes(range(32))).decode(),
    base64.b64encode(bytes(range(32))).decode().rstrip("="),
    base64.urlsafe_b64encode(bytes([251] * 32)).decode(),
    hashlib.sha256(b"n/a").hexdigest(),
)

plain_local_parts = st.from_regex(
    r"[A-Za-z0-9_+-]{1,8}(\.[A-Za-z0-9_+-]{1,8}){0,3}", fullmatch=True
)
domains = st.sampled_from(
    ["gmail.com", "GoogleMail.com", "example.com", "mail.example.co.uk", "bücher.de", "a--b.org"]
)
addresses = st.one_of(
    st.emails(),
    st.builds("{}@{}".format, plain_local_parts, domains),
    st.builds("{}@{}".format, st.text(max_size=12), domains),
)
NEARLY_PLAIN = (
    *("ann@gmail.com", "+ann@gmail.com", ".@gmail.com", "ann@gmail.com\n", "ann@gmx.net@gmx.net"),
    *("\u212aim@gmx.net", "a\u017f@gmx.net", "ann@\u212a.net", "ann@gmx.test", "NoReply@gmx.net"),
    *("no.reply@gmail.com", "Test@test.com", "x" * 246 + "@gmx.net", "x" * 247 + "@gmx.net"),
    *(
        "ann@-gmx.net",
        "ann@gmx..net",
        "ann@gmx",
        "a..n@gmx.net",
        "\ud800@gmx.net",
        "",
        "@",
        "0" * 64,
    ),
)
us_numbers = st.integers(0, 9_999_999).map(lambda number: f"415{number:07d}")


class TestNormaliseEmail:
    @pytest.mark.parametrize(("spelling", "normalised", "digest"), UID2_EMAILS)
    def test_equals_the_published_examples(
        self, spelling: str, normalised: str, digest: str
    ) -> None:
        assert normalise_email(spelling, EmailRule.PROVIDER_RULES) == normalised
        (row,) = hash_column([spelling], EMAIL, RECIPE).digests
        assert base64.b64encode(row.tobytes()).decode() == digest

    def test_equals_the_published_gmail_example_of_google(self) -> None:
        # Google Data Manager API, "Format user data".
        for spelling, normalised in (
            ("cloudy.sanfrancisco+shopping@gmail.com", "cloudysanfrancisco@gmail.com"),
            ("user.name+NYC@Example.com", "user.name+nyc@example.com"),
        ):
            assert normalise_email(spelling, EmailRule.PROVIDER_RULES) == normalised

    @pytest.mark.parametrize(
        "spelling",
        [
            "janedoe@gmail.com",
            "  JaneDoe@Gmail.com\t",
            "\ufeffjane.doe@gmail.com\u200b",
            "\u00a0j.a.n.e.d.o.e@GMAIL.COM\u3000",
            "janedoe+shop@gmail.com",
            "jane.doe+a+b@googlemail.com",
        ],
    )
    def test_spellings_of_one_gmail_mailbox_meet(self, spelling: str) -> None:
        assert normalise_email(spelling, EmailRule.PROVIDER_RULES) == "janedoe@gmail.com"

    def test_as_written_keeps_dots_tags_and_domain(self) -> None:
        spelling = " Jane.Doe+Shop@GoogleMail.com "
        assert normalise_email(spelling, EmailRule.AS_WRITTEN) == "jane.doe+shop@googlemail.com"

    @pytest.mark.parametrize("rule", RULES)
    def test_unicode_forms_meet(self, rule: EmailRule) -> None:
        composed, decomposed = "jos\u00e9@b\u00fccher.de", "JOSE\u0301@BU\u0308CHER.DE"
        expected = "jos\u00e9@xn--bcher-kva.de"
        assert normalise_email(composed, rule) == normalise_email(decomposed, rule) == expected
        assert normalise_email("jos\u00e9@xn--bcher-kva.de", rule) == expected

    @pytest.mark.parametrize(
        "value",
        [
            "",
            "   ",
            "@",
            "jane",
            "@gmail.com",
            "jane@",
            "jane@localhost",
            "jane@shop.test",
            "jane@@shop.com",
            "jane doe@shop.com",
            "jane@shop..com",
            ".jane@shop.com",
            "jane..doe@shop.com",
            "jane@shop.com.",
            '"jane"@shop.com',
            "jane@[192.0.2.1]",
            "Jane <jane@shop.com>",
            "jane@shop.com, joe@shop.com",
            "+tag@gmail.com",
            "jane\x00@shop.com",
            "\ud800@shop.com",
            "jane@\ud800.com",
            "x" * 245 + "@gmail.com",
        ],
    )
    def test_malformed_addresses_have_no_normal_form(self, value: str) -> None:
        assert normalise_email(value, EmailRule.PROVIDER_RULES) is None

    @given(value=st.one_of(addresses, st.text()), rule=st.sampled_from(RULES))
    @example(value="a@\u017f.com", rule=EmailRule.AS_WRITTEN)
    @example(value="\u0130@gmail.com", rule=EmailRule.AS_WRITTEN)
    def test_normalising_twice_changes_nothing(self, value: str, rule: EmailRule) -> None:
        once = normalise_email(value, rule)
        assert once is None or normalise_email(once, rule) == once

    @given(addresses)
    @example("\x850@gmail.com")
    @example("x" * 242 + "@example.com")
    @example("x" * 243 + "@example.com")
    def test_the_short_way_equals_the_library(self, value: str) -> None:
        try:
            validated = validate_email(value.strip(BLANKS).lower(), check_deliverability=False)
        except EmailNotValidError:
            expected = None
        else:
            expected = f"{validated.local_part}@{validated.ascii_domain}"
        assert normalise_email(value, EmailRule.AS_WRITTEN) == expected

    @given(
        values=st.lists(st.one_of(addresses, st.text(max_size=5), st.sampled_from(NEARLY_PLAIN))),
        rule=st.sampled_from(RULES),
    )
    @example(values=list(NEARLY_PLAIN), rule=EmailRule.AS_WRITTEN)
    @example(values=list(NEARLY_PLAIN), rule=EmailRule.PROVIDER_RULES)
    def test_plain_columns_equal_one_address_at_a_time(
        self, values: list[str], rule: EmailRule
    ) -> None:
        plain, normals = plain_emails(values, rule)
        chosen = [value for value, is_plain in zip(values, plain.tolist(), strict=True) if is_plain]
        expected = [normalise_email(value, rule) for value in chosen]
        assert [normal.decode() for normal in normals] == expected
        assert not any(is_placeholder_email(normal.decode()) for normal in normals)

    def test_addresses_of_letters_digits_and_dots_are_plain(self) -> None:
        values = [
            "Ann.Lee@Mail.Example.CO.UK",
            "a+b@gmail.com",
            "x_1-2@gmx.net",
            "ann@xn--p1ai.com",
        ]
        plain, _ = plain_emails([*values, "ann @gmx.net"], EmailRule.PROVIDER_RULES)
        assert plain.tolist() == [True] * 4 + [False]

    @given(local=plain_local_parts, domain=domains, rule=st.sampled_from(RULES))
    def test_case_and_blanks_never_matter(self, local: str, domain: str, rule: EmailRule) -> None:
        value = f"{local}@{domain}"
        assert normalise_email(value, rule) == normalise_email(f" {value.swapcase()}\n", rule)

    @given(plain_local_parts)
    def test_other_providers_keep_what_provider_rules_remove_at_gmail(self, local: str) -> None:
        kept, merged = (
            normalise_email(f"{local}@{domain}", EmailRule.PROVIDER_RULES)
            for domain in ("example.com", "gmail.com")
        )
        assert kept == f"{local.lower()}@example.com"
        core = local.lower().split("+")[0].replace(".", "")
        assert merged == (f"{core}@gmail.com" if core else None)


class TestNormalisePhone:
    def test_equals_the_published_example(self) -> None:
        spelling, normalised, digest = UID2_PHONE
        assert normalise_phone(spelling, "US") == normalised
        (row,) = hash_column([spelling], PHONE, RECIPE).digests
        assert base64.b64encode(row.tobytes()).decode() == digest

    @pytest.mark.parametrize(
        "spelling",
        [
            "+14155550132",
            "4155550132",
            "(415) 555-0132",
            "415.555.0132",
            "415-555-0132",
            "1 415 555 0132",
            "+1 (415) 555 0132",
            "011 1 415 555 0132",
            " 415\u00a0555\u00a00132 ",
            "\uff14\uff11\uff15\uff15\uff15\uff15\uff10\uff11\uff13\uff12",
            "415-555-0132 ext. 7",
            "tel:+1-415-555-0132",
        ],
    )
    def test_spellings_of_one_number_meet(self, spelling: str) -> None:
        assert normalise_phone(spelling, "US") == "+14155550132"

    @pytest.mark.parametrize(
        ("spelling", "region", "normalised"),
        [
            ("030 901820", "DE", "+4930901820"),
            ("0049 30 901820", "DE", "+4930901820"),
            ("020 7946 0018", "GB", "+442079460018"),
            ("+44 20 7946 0018", "US", "+442079460018"),
            ("06 698 12345", "IT", "+390669812345"),
        ],
    )
    def test_national_spellings_are_read_in_the_default_region(
        self, spelling: str, region: str, normalised: str
    ) -> None:
        assert normalise_phone(spelling, region) == normalised

    @pytest.mark.parametrize(
        "value", ["", "none", "12", "555-0132", "+1 111 111 1111", "0000000000", "+", "4" * 40]
    )
    def test_malformed_numbers_have_no_normal_form(self, value: str) -> None:
        assert normalise_phone(value, "US") is None

    @given(us_numbers)
    def test_normalising_twice_changes_nothing(self, number: str) -> None:
        once = normalise_phone(number, "US")
        assert once is None or normalise_phone(once, "DE") == once

    @given(us_numbers)
    def test_national_and_international_spellings_meet(self, number: str) -> None:
        national = normalise_phone(f"({number[:3]}) {number[3:6]}-{number[6:]}", "US")
        assert national == normalise_phone(f"+1{number}", "US") == normalise_phone(number, "US")

    @given(st.text(max_size=30))
    def test_any_text_is_a_valid_number_or_nothing(self, value: str) -> None:
        normalised = normalise_phone(value, "US")
        if normalised is not None:
            assert phonenumbers.is_valid_number(phonenumbers.parse(normalised))


def sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def told(column: HashedColumn) -> dict[RejectionReason, int]:
    return {reason: count for reason, count in column.rejected.items() if count}


class TestHashColumn:
    def test_tells_row_by_row_what_became_of_each_value(self) -> None:
        digest = sha256("ann@shop.com")
        values = [
            "Ann@Shop.com",
            None,
            digest.hex(),
            " " + digest.hex().upper() + " ",
            base64.b64encode(digest).decode(),
            "not an address",
            "  ",
            "Ann@Shop.com",
        ]
        column = hash_column(values, EMAIL, RECIPE)
        assert column.present.tolist() == [True, False, True, True, True, False, False, True]
        assert {row.tobytes() for row in column.digests[column.present]} == {digest}
        assert not column.digests[~column.present].any()
        assert column.already_hashed == 3
        assert told(column) == {RejectionReason.MISSING: 2, RejectionReason.MALFORMED: 1}
        assert set(column.rejected) == set(RejectionReason)

    @given(st.lists(st.one_of(st.none(), addresses, st.just("ann@shop.com")), max_size=20))
    def test_equals_hashing_each_value_alone(self, values: list[str | None]) -> None:
        column = hash_column(values, EMAIL, RECIPE)
        normalised = [value and normalise_email(value, RECIPE.email_rule) for value in values]
        assert column.present.tolist() == [bool(text) for text in normalised]
        assert [row.tobytes() for row in column.digests] == [
            sha256(text) if text else bytes(32) for text in normalised
        ]
        assert sum(column.rejected.values()) == int((~column.present).sum())

    @pytest.mark.parametrize("kind", [EMAIL, PHONE])
    def test_digests_are_never_hashed_twice(self, kind: IdentifierKind) -> None:
        digests = [sha256(f"person {index}") for index in range(50)]
        for spell in (bytes.hex, lambda raw: base64.b64encode(raw).decode()):
            column = hash_column([spell(digest) for digest in digests], kind, RECIPE)
            assert [row.tobytes() for row in column.digests] == digests
            assert column.already_hashed == 50

    @pytest.mark.parametrize(
        "value",
        [
            "g" * 64,
            "a" * 63,
            "a" * 65,
            "é" * 64,
            base64.b64encode(bytes(31)).decode(),
            base64.b64encode(bytes(33)).decode(),
            "A" * 42 + "B=",  # trailing bits set: another spelling of 32 zero bytes
            "!" * 44,
        ],
    )
    def test_what_only_resembles_a_digest_is_malformed(self, value: str) -> None:
        column = hash_column([value], EMAIL, RECIPE)
        assert column.rejected[RejectionReason.MALFORMED] == 1
        assert column.already_hashed == 0

    def test_the_digest_of_nothing_is_a_missing_value(self) -> None:
        nothing = hashlib.sha256(b"")
        values = [nothing.hexdigest(), base64.b64encode(nothing.digest()).decode()]
        column = hash_column(values, PHONE, RECIPE)
        assert column.rejected[RejectionReason.MISSING] == 2
        assert not column.present.any()
        assert column.already_hashed == 0

    def test_version_1_takes_a_digest_of_zeros_as_it_comes(self) -> None:
        values = [sha256("00000000-0000-0000-0000-000000000000").hex(), sha256("n/a").hex()]
        assert hash_column(values, PHONE, RECIPE).already_hashed == 2

    def test_not_a_number_is_a_missing_value(self) -> None:
        values: list[Any] = [float("nan"), None, "ann@shop.com", np.nan]
        column = hash_column(values, EMAIL, RECIPE)
        assert told(column) == {RejectionReason.MISSING: 3}

    @pytest.mark.parametrize("value", [4155550132, b"ann@shop.com", 4155550132.0])
    def test_other_types_are_refused_without_showing_the_value(self, value: Any) -> None:
        with pytest.raises(InvalidParameterError, match="as text") as caught:
            hash_column([value], PHONE, RECIPE)
        assert "4155550132" not in str(caught.value)
        assert "ann" not in str(caught.value)

    def test_an_empty_column_gives_an_empty_result(self) -> None:
        column = hash_column([], EMAIL, RECIPE)
        assert column.digests.shape == (0, 32)
        assert column.present.shape == (0,)
        assert column.rejected == dict.fromkeys(RejectionReason, 0)

    def test_version_1_gives_what_it_always_gave(self) -> None:
        # Digests, presence and counts as release 0.1.0 computed them for the same spellings.
        spellings = [*(spelling for spelling, *_ in UID2_EMAILS), *AS_EVER]
        assert hashlib.sha256(
            b"".join(
                column.digests.tobytes() + column.present.tobytes() + repr(told(column)).encode()
                for kind in (EMAIL, PHONE)
                for column in [hash_column(spellings, kind, RECIPE)]
            )
        ).hexdigest() == ("1675594f35dfb52bfefdcaba865c4c29a1392d71b109082bd2b6f9117f285d53")

    def test_parties_with_another_rule_part_at_gmail_only(self) -> None:
        values = ["jane.doe@gmail.com", "jane.doe@shop.com"]
        as_written = Recipe(default_region="US", email_rule=EmailRule.AS_WRITTEN)
        same = (
            hash_column(values, EMAIL, RECIPE).digests
            == hash_column(values, EMAIL, as_written).digests
        )
        assert same.all(axis=1).tolist() == [False, True]


class TestPsiTokens:
    def test_tokens_are_the_kind_and_the_digest(self) -> None:
        digests = hash_column(["ann@shop.com", "bob@shop.com"], EMAIL, RECIPE).digests
        tokens = psi_tokens(EMAIL, digests)
        assert tokens.dtype == np.uint8
        assert tokens.shape == (2, 33)
        assert tokens[:, 0].tolist() == [1, 1]
        assert np.array_equal(tokens[:, 1:], digests)

    def test_an_email_never_equals_a_phone(self) -> None:
        digests = np.zeros((1, 32), dtype=np.uint8)
        assert not np.array_equal(psi_tokens(EMAIL, digests), psi_tokens(PHONE, digests))

    def test_no_digests_give_no_tokens(self) -> None:
        assert psi_tokens(PHONE, np.empty((0, 32), dtype=np.uint8)).shape == (0, 33)

    @pytest.mark.parametrize(
        "digests",
        [np.zeros((2, 31), np.uint8), np.zeros(32, np.uint8), np.zeros((2, 32), np.int64)],
        ids=["narrow", "flat", "wide"],
    )
    def test_other_shapes_and_types_are_refused(self, digests: Bytes) -> None:
        with pytest.raises(InvalidParameterError, match="expected digests"):
            psi_tokens(EMAIL, digests)
