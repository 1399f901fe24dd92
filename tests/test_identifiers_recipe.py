"""What parties agree on, and whether their software reads it alike."""

import dataclasses
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import phonenumbers
import pytest

from privacy.errors import InvalidParameterError
from privacy.identifiers import (
    CompositeKey,
    EmailRule,
    FieldRule,
    IdentifierKind,
    KeyField,
    Recipe,
    emails,
    phones,
    probes,
    recipe_fingerprint,
)

PERSON = CompositeKey(
    "person", (KeyField("surname", FieldRule.NAME), KeyField("born", FieldRule.DATE_DAY_FIRST))
)
CARD = CompositeKey("card", (KeyField("number", FieldRule.CODE),))
RECIPE = Recipe("US", EmailRule.PROVIDER_RULES, 2, (PERSON, CARD), ("card", "email", "person"))
EVERYTHING = Recipe(
    "US",
    EmailRule.PROVIDER_RULES,
    2,
    (CompositeKey("all", tuple(KeyField(rule, rule) for rule in FieldRule)),),
    ("email", "phone", "advertising_id", "member_id", "all"),
)


def changed(**fields: Any) -> Callable[[], object]:
    return lambda: dataclasses.replace(RECIPE, **fields)


def version_1(**fields: Any) -> Callable[[], object]:
    return lambda: Recipe("US", EmailRule.AS_WRITTEN, **fields)


MISTAKES: dict[str, tuple[Callable[[], object], str]] = {
    "no region": (changed(default_region=""), "default_region: .* two-letter region"),
    "lower case": (changed(default_region="us"), "default_region"),
    "unknown region": (changed(default_region="XX"), "default_region"),
    "the world": (changed(default_region="001"), "default_region"),
    "rule as text": (changed(email_rule="as_written"), "email_rule: expected EmailRule"),
    "version 0": (changed(version=0), "recipe version 1 or 2, got 0: update"),
    "version 3": (changed(version=3), "recipe version 1 or 2, got 3: update"),
    "version true": (changed(version=True), "recipe version 1 or 2"),
    "version 1 with order": (version_1(order=("email",)), "order: .* version=2"),
    "version 1 with composites": (version_1(composites=(CARD,)), "composites: .* version=2"),
    "composites as a list": (changed(composites=[PERSON, CARD]), "composites: expected a tuple"),
    "composites of text": (changed(composites=("card",)), "composites: expected a tuple"),
    "order as text": (changed(order="email"), "order: expected a tuple"),
    "no order": (changed(order=()), "order: expected at least one key"),
    "twice in order": (changed(order=("email", "email")), "order: .* each once"),
    "unknown in order": (changed(order=("card", "person", "emial")), r"order: .* \['emial'\]"),
    "composite in order": (changed(order=("card", "person", "composite")), "order: expected"),
    "composite not in order": (changed(order=("email", "card")), r"\['person'\] are in no place"),
    "two of a name": (changed(composites=(CARD, CARD)), "composites: expected different names"),
    "no fields": (lambda: CompositeKey("card", ()), "'card': expected 1 to 16 fields"),
    "17 fields": (
        lambda: CompositeKey("a", tuple(KeyField(f"f{i}", FieldRule.TEXT) for i in range(17))),
        "expected 1 to 16 fields",
    ),
    "field twice": (lambda: CompositeKey("a", CARD.fields * 2), "of different names"),
    "fields as a list": (lambda: CompositeKey("a", list(CARD.fields)), "fields: expected a tuple"),  # type: ignore[arg-type]
    "named as a kind": (lambda: CompositeKey("phone", CARD.fields), "is a kind"),
    "named with blanks": (lambda: CompositeKey("my card", CARD.fields), "lower case letters"),
    "field without name": (lambda: KeyField("", FieldRule.NAME), "a field's name"),
    "field in capitals": (lambda: KeyField("Name", FieldRule.NAME), "a field's name"),
    "field rule as text": (lambda: KeyField("born", "date"), "'born': rule: expected FieldRule"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize(("mistake", "told"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_refused_and_named(mistake: Callable[[], object], told: str) -> None:
    with pytest.raises(InvalidParameterError, match=told):
        mistake()


def test_a_recipe_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        RECIPE.version = 1  # type: ignore[misc]


def test_keys_are_ranked_in_their_order() -> None:
    assert RECIPE.keys == ("card", "email", "person")
    assert [RECIPE.rank(key) for key in RECIPE.keys] == [0, 1, 2]
    assert RECIPE.rank(IdentifierKind.EMAIL) == 1
    assert RECIPE.composite("person") is PERSON


def test_version_1_matches_by_mail_and_phone() -> None:
    assert Recipe("US", EmailRule.AS_WRITTEN).keys == ("email", "phone")


def test_a_key_that_was_not_agreed_is_refused_with_the_remedy() -> None:
    with pytest.raises(InvalidParameterError, match="got 'phone': add it to order"):
        RECIPE.rank("phone")
    with pytest.raises(InvalidParameterError, match="got 'card': use recipe version 2"):
        Recipe("US", EmailRule.AS_WRITTEN).rank("card")
    with pytest.raises(InvalidParameterError, match="got the kind 'email'"):
        RECIPE.composite("email")


class TestFingerprint:
    def test_is_a_sha256_in_hexadecimal(self) -> None:
        assert re.fullmatch("[0-9a-f]{64}", recipe_fingerprint(RECIPE))

    def test_is_the_same_for_equal_recipes(self) -> None:
        assert recipe_fingerprint(dataclasses.replace(RECIPE)) == recipe_fingerprint(RECIPE)

    def test_differs_with_every_field(self) -> None:
        born = KeyField("born", FieldRule.DATE_MONTH_FIRST)
        others = [
            Recipe("US", EmailRule.PROVIDER_RULES),
            dataclasses.replace(RECIPE, default_region="DE"),
            dataclasses.replace(RECIPE, email_rule=EmailRule.AS_WRITTEN),
            dataclasses.replace(RECIPE, order=("email", "card", "person")),
            dataclasses.replace(RECIPE, order=("card", "phone", "person")),
            *(
                dataclasses.replace(RECIPE, composites=(CompositeKey("person", fields), CARD))
                for fields in (
                    (PERSON.fields[0], born),
                    (*PERSON.fields[::-1],),
                    (PERSON.fields[0],),
                    (KeyField("name", FieldRule.NAME), PERSON.fields[1]),
                )
            ),
        ]
        assert len({recipe_fingerprint(recipe) for recipe in [RECIPE, *others]}) == len(others) + 1

    @pytest.mark.parametrize("module", [emails, phones])
    def test_differs_if_a_library_reads_a_probe_differently(
        self, module: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fingerprint = recipe_fingerprint.__wrapped__
        before = fingerprint(EVERYTHING)
        emails.ascii_domain.cache_clear()
        with monkeypatch.context() as patch:
            if module is emails:  # as if the library did not know that .onion is reserved
                patch.setattr("email_validator.SPECIAL_USE_DOMAIN_NAMES", [])
            else:  # as if the numbering plan of Mexico were the one before 2019
                plan = phonenumbers.PhoneMetadata.metadata_for_region("MX")
                patch.setattr(plan.general_desc, "_mutable", True)
                patch.setattr(plan.general_desc, "national_number_pattern", r"1\d{10}")
                phones._plans.cache_clear()
                phones._main_plan.cache_clear()
                phones._plan.cache_clear()
            assert fingerprint(EVERYTHING) != before
        for cached in (emails.ascii_domain, phones._plans, phones._main_plan, phones._plan):
            cached.cache_clear()
        assert fingerprint(EVERYTHING) == before

    def test_ignores_software_that_the_recipe_does_not_use(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fingerprint = recipe_fingerprint.__wrapped__
        before = fingerprint(RECIPE)
        monkeypatch.setitem(probes._PROBES, IdentifierKind.PHONE, ("112",))
        assert fingerprint(RECIPE) == before
        monkeypatch.setitem(probes._PROBES, IdentifierKind.EMAIL, ("ann@example.com",))
        assert fingerprint(RECIPE) != before

    def test_every_kind_and_rule_is_probed_for_acceptance_and_refusal(self) -> None:
        told = probes.probed(EVERYTHING)
        assert set(told) == {*FieldRule, *IdentifierKind} - {"composite"}
        for outcomes in told.values():
            assert {outcome[0] for outcome in outcomes} == {"=", "-"}

    def test_is_the_same_in_another_process(self) -> None:
        program = (
            "import sys; sys.path.insert(0, 'tests'); from test_identifiers_recipe import EVERYTHING, recipe_fingerprint;"
            "print(recipe_fingerprint(EVERYTHING))"
        )
        run = subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": "7"},
            cwd=Path(__file__).resolve().parent.parent,
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout.strip() == recipe_fingerprint(EVERYTHING)
