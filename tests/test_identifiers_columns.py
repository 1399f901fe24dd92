"""Columns and tables under recipe version 2."""

import base64
import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.errors import InvalidParameterError
from privacy.identifiers import (
    CompositeKey,
    EmailRule,
    FieldRule,
    HashedColumn,
    IdentifierKind,
    KeyColumns,
    KeyField,
    Recipe,
    RejectionReason,
    chunks,
    hash_column,
    hash_composite,
    psi_tokens,
    tokens_of,
)

PERSON = CompositeKey(
    "person",
    (
        KeyField("surname", FieldRule.NAME),
        KeyField("born", FieldRule.DATE_DAY_FIRST),
        KeyField("postcode", FieldRule.POSTCODE),
    ),
)
CARD = CompositeKey("card", (KeyField("number", FieldRule.CODE),))
RECIPE = Recipe(
    "US",
    EmailRule.PROVIDER_RULES,
    2,
    (PERSON, CARD),
    ("member_id", "email", "phone", "advertising_id", "person", "card"),
)
EMAIL, PHONE = IdentifierKind.EMAIL, IdentifierKind.PHONE
DEVICE, MEMBER = IdentifierKind.ADVERTISING_ID, IdentifierKind.MEMBER_ID
SINGLE = (EMAIL, PHONE, DEVICE, MEMBER)
R = RejectionReason


def sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def told(column: HashedColumn) -> dict[RejectionReason, int]:
    return {reason: count for reason, count in column.rejected.items() if count}


def reason_of(value: str, kind: IdentifierKind) -> RejectionReason | None:
    found = told(hash_column([value], kind, RECIPE))
    return next(iter(found), None)


class TestReasons:
    @pytest.mark.parametrize(
        ("value", "kind", "reason"),
        [
            (" ", EMAIL, R.MISSING),
            ("ann@", EMAIL, R.MALFORMED),
            ("NoReply@shop.com", EMAIL, R.PLACEHOLDER),
            ("noemail@nowhere", EMAIL, R.PLACEHOLDER),
            ("test@test.com", EMAIL, R.PLACEHOLDER),
            ("N/A", EMAIL, R.PLACEHOLDER),
            ("none", PHONE, R.PLACEHOLDER),
            ("ring me", PHONE, R.MALFORMED),
            ("+1 111 222 3333", PHONE, R.IMPOSSIBLE),
            ("555-0132", PHONE, R.IMPOSSIBLE),
            ("0000000000", PHONE, R.PLACEHOLDER),
            ("123 456 7890", PHONE, R.PLACEHOLDER),
            ("+7 777 777 7777", PHONE, R.PLACEHOLDER),
            ("00000000-0000-0000-0000-000000000000", DEVICE, R.MISSING),
            ("{" + "0" * 32 + "}", DEVICE, R.MISSING),
            ("f" * 32, DEVICE, R.PLACEHOLDER),
            ("f" * 31, DEVICE, R.MALFORMED),
            ("null", DEVICE, R.PLACEHOLDER),
            ("00 000", MEMBER, R.PLACEHOLDER),
            ("999999", MEMBER, R.PLACEHOLDER),
            ("1-2-3-4-5-6", MEMBER, R.PLACEHOLDER),
            ("tbd", MEMBER, R.PLACEHOLDER),
            ("\u2014", MEMBER, R.MALFORMED),
            (sha256("").hex(), EMAIL, R.MISSING),
            (sha256("00000000-0000-0000-0000-000000000000").hex(), DEVICE, R.MISSING),
            (sha256("n/a").hex(), EMAIL, R.PLACEHOLDER),
            (sha256("NULL").hex(), MEMBER, R.PLACEHOLDER),
            ("0" * 64, EMAIL, R.PLACEHOLDER),
        ],
    )
    def test_a_value_without_a_digest_has_its_reason(
        self, value: str, kind: IdentifierKind, reason: RejectionReason
    ) -> None:
        column = hash_column([value], kind, RECIPE)
        assert told(column) == {reason: 1}
        assert not column.present.any()
        assert not column.digests.any()
        assert column.already_hashed == 0

    @pytest.mark.parametrize(
        ("value", "kind"),
        [
            ("1 (234) 567-8901", PHONE),
            ("+1 212 777 7778", PHONE),
            ("+1 212 677 7777", PHONE),
            ("null.ann@shop.com", EMAIL),
            ("test@shop.com", EMAIL),
            ("55555", MEMBER),
            ("12345", MEMBER),
            ("654321", MEMBER),
            ("11111111-1111-1111-1111-111111111112", DEVICE),
        ],
    )
    def test_what_resembles_a_placeholder_is_kept(self, value: str, kind: IdentifierKind) -> None:
        assert reason_of(value, kind) is None

    @given(st.lists(st.none() | st.text(max_size=8) | st.sampled_from(["n/a", "a@b.com", "112"])))
    def test_every_row_has_a_digest_or_is_counted(self, values: list[str | None]) -> None:
        for kind in SINGLE:
            column = hash_column(values, kind, RECIPE)
            assert int(column.present.sum()) + sum(column.rejected.values()) == len(values)
            assert column.digests.any(axis=1).tolist() == column.present.tolist()

    @pytest.mark.parametrize("kind", SINGLE)
    def test_a_fresh_value_is_hashed_in_its_normal_form(self, kind: IdentifierKind) -> None:
        spelling, normal = {
            EMAIL: ("Ann.Lee@GMail.com", "annlee@gmail.com"),
            PHONE: ("(212) 736-5000", "+12127365000"),
            DEVICE: ("6D92078A82464BA4AE5B76104861E7DC", "6d92078a-8246-4ba4-ae5b-76104861e7dc"),
            MEMBER: ("ab-12 34", "AB1234"),
        }[kind]
        (row,) = hash_column([f" {spelling}\n"], kind, RECIPE).digests
        assert row.tobytes() == sha256(normal)


SPELLINGS: dict[str, Callable[[bytes], str]] = {
    "hexadecimal": bytes.hex,
    "upper case": lambda raw: raw.hex().upper(),
    "base64": lambda raw: base64.b64encode(raw).decode(),
    "base64 without padding": lambda raw: base64.b64encode(raw).decode().rstrip("="),
    "base64url": lambda raw: base64.urlsafe_b64encode(raw).decode(),
    "base64url without padding": lambda raw: base64.urlsafe_b64encode(raw).decode().rstrip("="),
}


class TestDigests:
    @pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
    @pytest.mark.parametrize("kind", SINGLE)
    def test_are_never_hashed_twice(
        self, kind: IdentifierKind, spell: Callable[[bytes], str]
    ) -> None:
        digests = [sha256(f"person {index}") for index in range(50)]
        column = hash_column([f" {spell(digest)} " for digest in digests], kind, RECIPE)
        assert [row.tobytes() for row in column.digests] == digests
        assert column.already_hashed == 50

    @pytest.mark.parametrize(
        "value",
        [
            "g" * 64,
            "a" * 63,
            "\u0661" * 64,
            base64.b64encode(bytes(31)).decode(),
            base64.b64encode(bytes(33)).decode(),
            "A" * 42 + "B=",  # trailing bits set
            "A" * 42 + "B",
            "A" * 41 + "==",
            "+" + "A" * 40 + "-" + "A",  # two alphabets
            "_" + "A" * 40 + "/" + "A=",
            "!" * 43,
            "\u00e9" * 43,
        ],
    )
    def test_resembling_one_is_not_enough(self, value: str) -> None:
        column = hash_column([value], EMAIL, RECIPE)
        assert column.rejected[R.MALFORMED] == 1
        assert column.already_hashed == 0

    def test_in_fields_of_a_composite_key_are_refused(self) -> None:
        hashed = [sha256("smith").hex(), "Smith"]
        column = hash_composite([hashed, ["1.5.1980"] * 2, ["12345"] * 2], PERSON, RECIPE)
        assert column.present.tolist() == [False, True]
        assert told(column) == {R.HASHED_FIELD: 1}


class TestInputs:
    VALUES = ("Ann@Shop.com", None, "", " ann@shop.com", "bob", "Ann@Shop.com")

    @pytest.mark.parametrize(
        "column",
        [
            tuple(VALUES),
            np.array(VALUES, dtype=object),
            pa.array(VALUES),
            pa.array(VALUES, pa.large_string()),
            pa.array(VALUES, pa.string_view()),
            pa.array(VALUES).dictionary_encode(),
            pa.chunked_array([VALUES[:2], VALUES[2:]]),
            pa.array(["x", *VALUES])[1:],
        ],
        ids=["tuple", "numpy", "string", "large", "view", "dictionary", "chunked", "sliced"],
    )
    def test_every_kind_of_column_gives_the_same(self, column: Any) -> None:
        expected = hash_column(list(self.VALUES), EMAIL, RECIPE)
        found = hash_column(column, EMAIL, RECIPE)
        assert np.array_equal(found.digests, expected.digests)
        assert found.present.tolist() == [True, False, False, True, False, True]
        assert told(found) == {R.MISSING: 2, R.MALFORMED: 1}

    @pytest.mark.parametrize(
        "empty", [[], pa.array([], pa.string()), pa.nulls(0), pa.chunked_array([], pa.string())]
    )
    def test_an_empty_column_gives_an_empty_result(self, empty: Any) -> None:
        column = hash_column(empty, MEMBER, RECIPE)
        assert column.digests.shape == (0, 32)
        assert told(column) == {}
        assert hash_composite([empty], CARD, RECIPE).digests.shape == (0, 32)

    def test_a_column_of_nulls_is_missing(self) -> None:
        assert told(hash_column(pa.nulls(3), PHONE, RECIPE)) == {R.MISSING: 3}

    @pytest.mark.parametrize(
        "column",
        [
            pa.array([4155550132]),
            pa.array([b"4155550132"]),
            pa.array([["4155550132"]]),
            pa.array([4155550132]).dictionary_encode(),
            [["4155550132"]],
            [4155550132],
            ["4155550132", b"4155550132"],
            np.array([4155550132]),
        ],
    )
    def test_other_types_are_refused_without_showing_a_value(self, column: Any) -> None:
        with pytest.raises(InvalidParameterError, match="as text") as caught:
            hash_column(column, PHONE, RECIPE)
        assert "4155550132" not in str(caught.value)

    def test_a_column_of_lists_is_to_be_spread(self) -> None:
        with pytest.raises(InvalidParameterError, match="over several columns"):
            hash_column([["ann@shop.com"]], EMAIL, RECIPE)  # type: ignore[list-item]

    def test_kinds_that_were_not_agreed_are_refused(self) -> None:
        with pytest.raises(InvalidParameterError, match="use recipe version 2"):
            hash_column(["1"], MEMBER, Recipe("US", EmailRule.AS_WRITTEN))
        with pytest.raises(InvalidParameterError, match="use hash_composite"):
            hash_column(["1"], IdentifierKind.COMPOSITE, RECIPE)


class TestWork:
    VALUES = tuple(f"person{index % 700}@shop{index % 31}.com" for index in range(2_000))

    @pytest.fixture(autouse=True)
    def small_chunks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(chunks, "_CHUNK", 97)

    def test_does_not_depend_on_chunks_or_threads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with ThreadPoolExecutor(3) as pool:
            cut = hash_column(self.VALUES, EMAIL, RECIPE, executor=pool)
        monkeypatch.setattr(chunks, "_CHUNK", 10**6)
        whole = hash_column(self.VALUES, EMAIL, RECIPE)
        assert np.array_equal(cut.digests, whole.digests)
        assert len({row.tobytes() for row in cut.digests}) == len(set(self.VALUES))

    def test_can_go_to_other_processes(self) -> None:
        columns = [self.VALUES, ["19800501"] * 2_000, ["02139", None] * 1_000]
        with ProcessPoolExecutor(1) as pool:
            there = tokens_of(
                [KeyColumns("email", (self.VALUES,)), KeyColumns("person", tuple(columns))],
                RECIPE,
                executor=pool,
            )
        here = tokens_of(
            [KeyColumns("email", (self.VALUES,)), KeyColumns("person", tuple(columns))], RECIPE
        )
        assert np.array_equal(there.tokens, here.tokens)
        assert np.array_equal(there.rows, here.rows)

    def test_tells_its_progress_over_distinct_values(self) -> None:
        heard: list[tuple[int, int]] = []
        hash_column(self.VALUES, EMAIL, RECIPE, progress=lambda *done: heard.append(done))
        total = len(set(self.VALUES))
        assert heard[0] == (97, total)
        assert heard[-1] == (total, total)
        assert heard == sorted(set(heard))

    def test_looks_at_a_distinct_value_once(self) -> None:
        heard: list[tuple[int, int]] = []
        columns = [["a", "b", "a"], ["19800501"] * 3, ["1", "2", "3"]]
        hash_composite(columns, PERSON, RECIPE, progress=lambda *done: heard.append(done))
        assert heard[-1] == (6, 6)


class TestComposite:
    def test_hashes_the_json_of_its_agreement_and_normal_forms(self) -> None:
        columns = [["O'Brien-\u0141o\u015b"], ["1.5.1980"], ["02139-1234"]]
        fields = [["surname", "name"], ["born", "date_day_first"], ["postcode", "postcode"]]
        text = json.dumps(
            [
                "comity composite key, version 2",
                "person",
                fields,
                ["obrienlos", "1980-05-01", "02139"],
            ],
            separators=(",", ":"),
        )
        assert hash_composite(columns, PERSON, RECIPE).digests[0].tobytes() == sha256(text)

    def test_a_key_with_any_field_missing_is_missing(self) -> None:
        whole = ("Lee", "1980-05-01", "02139")
        rows = [whole, *((*whole[:i], None, *whole[i + 1 :]) for i in range(3)), (None,) * 3]
        column = hash_composite(list(zip(*rows, strict=True)), PERSON, RECIPE)
        assert column.present.tolist() == [True, False, False, False, False]
        assert told(column) == {R.MISSING: 4}

    @pytest.mark.parametrize(
        ("row", "reason"),
        [
            (("Lee", "1980-02-30", "02139"), R.IMPOSSIBLE),
            (("Lee", "long ago", "02139"), R.MALFORMED),
            (("Lee", "1900-01-01", "02139"), R.PLACEHOLDER),
            (("Lee", "0000-00-00", "02139"), R.PLACEHOLDER),
            (("unknown", "1980-05-01", "02139"), R.PLACEHOLDER),
            (("N/A", "1980-05-01", "02139"), R.PLACEHOLDER),
            (("Lee", "1980-05-01", "00000"), R.PLACEHOLDER),
            (("Lee", "1980-05-01", "none"), R.PLACEHOLDER),
            (("Lee", "1980-02-30", None), R.MISSING),
            (("unknown", "1980-02-30", "02139"), R.IMPOSSIBLE),
            (("Lee", "1980-02-30", "\u2014"), R.MALFORMED),
        ],
    )
    def test_a_row_bears_its_first_reason(
        self, row: tuple[str | None, ...], reason: RejectionReason
    ) -> None:
        column = hash_composite([[value] for value in row], PERSON, RECIPE)
        assert told(column) == {reason: 1}
        assert not column.digests.any()

    @pytest.mark.parametrize(
        "row", [("Null", "1970-01-01", "22222"), ("Nan", "2000-02-29", "12345")]
    )
    def test_real_people_with_odd_data_are_kept(self, row: tuple[str, ...]) -> None:
        assert hash_composite([[value] for value in row], PERSON, RECIPE).present.all()

    def test_values_do_not_run_into_each_other(self) -> None:
        key = CompositeKey("two", (KeyField("a", FieldRule.TEXT), KeyField("b", FieldRule.TEXT)))
        recipe = Recipe("US", EmailRule.AS_WRITTEN, 2, (key,), ("two",))
        rows = [('x","y', "z"), ("x", 'y","z'), ("xy", "z"), ("x", "yz"), ("z", "xy")]
        digests = hash_composite(list(zip(*rows, strict=True)), key, recipe).digests
        assert len({row.tobytes() for row in digests}) == len(rows)

    def test_two_different_keys_never_meet(self) -> None:
        name, code = KeyField("a", FieldRule.NAME), KeyField("b", FieldRule.NAME)
        keys = [
            CompositeKey("one", (name, code)),
            CompositeKey("two", (name, code)),
            CompositeKey("one", (code, name)),
            CompositeKey("one", (name, KeyField("b", FieldRule.TEXT))),
            CompositeKey("one", (name, KeyField("c", FieldRule.NAME))),
        ]
        found = {
            hash_composite(
                [["lee"], ["lee"]], key, Recipe("US", EmailRule.AS_WRITTEN, 2, (key,), (key.name,))
            )
            .digests[0]
            .tobytes()
            for key in keys
        }
        assert len(found) == len(keys)

    def test_contact_details_can_be_fields(self) -> None:
        key = CompositeKey(
            "home", (KeyField("phone", FieldRule.PHONE), KeyField("mail", FieldRule.EMAIL))
        )
        recipe = Recipe("US", EmailRule.PROVIDER_RULES, 2, (key,), ("home",))
        columns = [["(212) 736-5000", "+12127365000"], ["a.b@gmail.com", "AB@googlemail.com"]]
        one, other = hash_composite(columns, key, recipe).digests
        assert np.array_equal(one, other)

    @pytest.mark.parametrize(
        "columns", [[], [["a"]], [["a"], ["b"]], [["a"], ["b"], ["c", "d"]], [["a"]] * 4]
    )
    def test_other_columns_than_its_fields_are_refused(self, columns: Any) -> None:
        with pytest.raises(InvalidParameterError, match="'person': expected 3 columns"):
            hash_composite(columns, PERSON, RECIPE)

    def test_another_key_of_that_name_is_refused(self) -> None:
        other = CompositeKey("card", (KeyField("number", FieldRule.DIGITS),))
        with pytest.raises(InvalidParameterError, match="'card': the recipe agrees on other"):
            hash_composite([["1"]], other, RECIPE)


class TestTokens:
    def test_of_different_kinds_never_meet(self) -> None:
        digest = np.zeros((1, 32), dtype=np.uint8)
        tokens = {psi_tokens(kind, digest).tobytes() for kind in IdentifierKind}
        assert len(tokens) == len(IdentifierKind)

    def test_are_those_of_every_column(self) -> None:
        home, work = ["ann@a.com", None, "cy@a.com"], ["Ann@B.com", "bob@b.com", "CY@a.com"]
        person = (["Lee", "Ray", None], ["1980-05-01"] * 3, ["02139"] * 3)
        found = tokens_of(
            [
                KeyColumns("person", person),
                KeyColumns("email", (home,)),
                KeyColumns(EMAIL, (work,)),
            ],
            RECIPE,
        )
        composite = hash_composite(person, PERSON, RECIPE)
        mail = psi_tokens(
            EMAIL,
            hash_column(["ann@a.com", "cy@a.com", "ann@b.com", "bob@b.com"], EMAIL, RECIPE).digests,
        )
        expected = [psi_tokens(IdentifierKind.COMPOSITE, composite.digests[:2]), mail]
        assert np.array_equal(found.tokens, np.concatenate(expected))
        assert found.tokens.shape == (6, 33)
        assert found.rows.tolist() == [0, 1, 0, 2, 0, 1]  # cy's address once
        assert found.ranks.tolist() == [4, 4, 1, 1, 1, 1]
        assert [int(column.present.sum()) for column in found.hashed] == [2, 2, 3]

    def test_under_version_1_are_those_of_hash_column(self) -> None:
        recipe = Recipe("US", EmailRule.PROVIDER_RULES)
        mails = ["ann@a.com", "nonsense", "ann@a.com"]
        found = tokens_of([KeyColumns("email", (mails,))], recipe)
        digests = hash_column(["ann@a.com"] * 2, EMAIL, recipe).digests
        assert np.array_equal(found.tokens, psi_tokens(EMAIL, digests))
        assert found.rows.tolist() == [0, 2]
        assert found.ranks.tolist() == [0, 0]

    @given(
        st.lists(
            st.tuples(*[st.sampled_from([None, "ann@a.com", "Ann@a.com", "bob@b.com", "x"])] * 3),
            min_size=1,
            max_size=8,
        )
    )
    def test_no_row_has_a_token_twice_and_none_is_lost(
        self, rows: list[tuple[str | None, ...]]
    ) -> None:
        columns = list(zip(*rows, strict=True))
        found = tokens_of([KeyColumns("email", (column,)) for column in columns], RECIPE)
        pairs = [
            (row, token.tobytes()) for row, token in zip(found.rows, found.tokens, strict=True)
        ]
        expected = {
            (row, psi_tokens(EMAIL, hash_column([value], EMAIL, RECIPE).digests).tobytes())
            for row, values in enumerate(rows)
            for value in values
            if value and "@" in value
        }
        assert len(set(pairs)) == len(pairs)
        assert set(pairs) == expected

    def test_keep_one_digest_under_two_kinds_apart(self) -> None:
        hashed = [sha256("ann").hex()]
        found = tokens_of([KeyColumns("email", (hashed,)), KeyColumns("phone", (hashed,))], RECIPE)
        assert found.tokens[:, 0].tolist() == [1, 2]

    def test_of_zeros_are_not_taken_for_a_row_without_one(self) -> None:
        recipe = Recipe("US", EmailRule.AS_WRITTEN)  # version 1 takes any 32 bytes
        sources = [KeyColumns("email", ([None],)), KeyColumns("email", (["0" * 64],))]
        assert tokens_of(sources, recipe).rows.tolist() == [0]

    @pytest.mark.parametrize(
        ("sources", "message"),
        [
            ([], "columns of one length, got lengths"),
            ([("email", (["a"],)), ("phone", (["1", "2"],))], r"lengths \[1, 2\]"),
            ([("email", (["a"], ["b"]))], "'email': expected one column, got 2"),
            ([("person", (["a"],))], "'person': expected 3 columns"),
            ([("emial", (["a"],))], "got 'emial': add it to order"),
            ([("composite", (["a"],))], "got 'composite': add it to order"),
        ],
    )
    def test_columns_that_do_not_fit_are_refused(
        self, sources: list[tuple[str, Any]], message: str
    ) -> None:
        with pytest.raises(InvalidParameterError, match=message):
            tokens_of([KeyColumns(*source) for source in sources], RECIPE)
