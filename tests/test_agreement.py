"""The contract: what it refuses to say, its one spelling, and whose signatures it needs."""

import base64
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from compliance.agreement import MOST_PARTIES, PAYLOAD_TYPE, Agreement, SignedAgreement
from compliance.auditing.trust import policy_for
from compliance.errors import (
    AlteredAgreementError,
    ComplianceError,
    InvalidAgreementError,
    SignatureError,
    UnsignedAgreementError,
)
from compliance.log.cosignature import CosigningKey
from compliance.log.note import NoteKey
from compliance.records.leaf import MOST_NAMES
from compliance.rendering import render
from compliance.signing import Envelope, SigningKey
from compliance.terms import (
    DATA_ROLES,
    MOST_WITNESSES,
    ColumnTerm,
    ColumnType,
    FieldRule,
    Reveal,
    Role,
    Scale,
    drawn_witnesses,
)

PURPOSE = "lookalike-audiences"
GOLDEN_DIGEST = "c909c17cd9c062e3c9109dfe96399010c9344d321c144644178397037414b803"
ROLES = {"acme": "brand", "courier": "partner", "retailer": "partner", "operator": "coordinator"}


def seeded(label: str) -> SigningKey:
    return SigningKey.from_seed(label.encode().ljust(32, b"."))


IDENTITY = {name: seeded(f"identity of {name}") for name in ROLES}


def encryption_key(name: str, length: int = 1216) -> str:
    return base64.b64encode(hashlib.shake_256(name.encode()).digest(length)).decode()


@cache
def cosigning_key(name: str) -> str:
    seed = hashlib.sha256(f"cosigning key of {name}".encode()).digest()
    return CosigningKey.from_seed(f"comity/{name}", seed).public.to_string()


def party_terms(name: str, role: str) -> dict[str, Any]:
    terms = {
        "name": name,
        "role": role,
        "identity_key": seeded(f"identity of {name}").public.to_base64(),
        "log_key": NoteKey(f"comity/{name}", seeded(f"log of {name}").public).to_string(),
        "cosigning_key": cosigning_key(name),
    }
    return terms | ({"encryption_key": encryption_key(name)} if role in DATA_ROLES else {})


def dataset(party: str, rows: int, *identifiers: str, per_person: int = 1) -> dict[str, Any]:
    return {
        "party": party,
        "declared_rows": rows,
        "identifiers": list(identifiers),
        "identifiers_per_person": per_person,
    }


def make_terms() -> dict[str, Any]:
    """Plain values as a TOML file gives them."""
    return {
        "version": 1,
        "name": "spring-campaign",
        "title": "Spring campaign",
        "purposes": [PURPOSE, "newsletter"],
        "parties": [party_terms(name, role) for name, role in ROLES.items()],
        "datasets": [
            dataset("acme", 2_000, "email", "phone", per_person=4),
            dataset("courier", 30_000, "email"),
            dataset("retailer", 20_000, "phone", "email", per_person=2),
        ],
        "features": [
            {"name": "age", "type": "numeric", "minimum": 17, "maximum": 90, "unit": "years"},
            {
                "name": "capital-gain",
                "type": "numeric",
                "minimum": 0,
                "maximum": 99_999,
                "scale": "log",
                "classification": "sensitive",
            },
            {"name": "occupation", "type": "categorical", "categories": ["Sales", "Tech, support"]},
        ],
        "match": {
            "purpose": PURPOSE,
            "default_region": "US",
            "email_rule": "provider_rules",
            "reveal": "partner-learns-members",
            "minimum_match": 100,
            "set_size_bucket": 1_000,
        },
        "train": {
            "purpose": PURPOSE,
            "models": ["logistic-regression"],
            "epsilon": 2.0,
            "delta": 1e-6,
            "max_parties_per_person": 2,
            "clipping_norm": 1.0,
            "max_steps": 300,
            "max_rounds": 5,
        },
        "expand": {"purpose": PURPOSE, "maximum_share": 0.25, "minimum_segment": 50},
        "budget": {"epsilon": 3.0, "delta": 1e-6},
        "valid_from": datetime(2026, 1, 1, tzinfo=UTC),
        "valid_until": datetime(2027, 1, 1, tzinfo=UTC),
        "terms_text": "Segments are destroyed after *ninety* days.",
    }


def make_agreement(**changes: Any) -> Agreement:
    return Agreement.from_terms(make_terms() | changes)


def signed_by_all(agreement: Agreement) -> SignedAgreement:
    signed = SignedAgreement.draft(agreement)
    for name, key in IDENTITY.items():
        signed = signed.sign(name, key)
    return signed


def put(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    """Return a change that sets `a.0.b` in nested terms."""
    *steps, last = (int(step) if step.isdigit() else step for step in path.split("."))

    def change(terms: Any) -> None:
        for step in steps:
            terms = terms[step]
        terms[last] = value

    return change


PERSON: dict[str, Any] = {"name": "person", "fields": [{"name": "born", "rule": "date"}]}


def composite(*names: str, **changes: Any) -> Callable[[dict[str, Any]], None]:
    """Return a change that makes composite keys of those names and matches by them too."""

    def change(terms: dict[str, Any]) -> None:
        terms["match"]["composites"] = [PERSON | {"name": name} | changes for name in names]
        terms["match"]["keys"] = list(dict.fromkeys(("email", "phone", *names)))

    return change


MALFORMED = {
    "version of the future": put("version", 2),
    "unknown term": put("surprise", 1),
    "unknown term of a party": put("parties.0.surprise", 1),
    "name with capitals": put("name", "Spring"),
    "name with a newline": put("name", "spring\n"),
    "empty title": put("title", ""),
    "title over two lines": put("title", "Spring\nsigned: yes"),
    "title that reorders its characters": put("title", "abc\u202ecba"),
    "title with a half of a surrogate pair": put("title", "\ud800"),
    "invisible character in the text": put("terms_text", "not\u200bwithstanding"),
    "no purpose": put("purposes", []),
    "purpose twice": put("purposes", [PURPOSE, PURPOSE]),
    "purpose that is an address": put("purposes", ["a@b.example"]),
    "unknown role": put("parties.0.role", "king"),
    "identity key cut short": put("parties.0.identity_key", "AAAA"),
    "identity key of low order": put("parties.0.identity_key", "A" * 43 + "="),
    "identity key in another spelling": put(
        "parties.0.identity_key", IDENTITY["acme"].public.to_base64() + "\n"
    ),
    "log key without an id": put("parties.0.log_key", "comity/acme"),
    "log key of another name": put(
        "parties.0.log_key", party_terms("courier", "partner")["log_key"].replace("cou", "kou")
    ),
    "brand without an encryption key": put("parties.0.encryption_key", None),
    "partner without an encryption key": put("parties.2.encryption_key", None),
    "coordinator with an encryption key": put("parties.3.encryption_key", encryption_key("it")),
    "encryption key cut short": put("parties.0.encryption_key", encryption_key("acme", 1215)),
    "encryption key too long": put("parties.0.encryption_key", encryption_key("acme", 1217)),
    "encryption key in another spelling": put(
        "parties.0.encryption_key", encryption_key("acme") + "\n"
    ),
    "encryption key that is no base64": put("parties.0.encryption_key", "*" * 1624),
    "no rows": put("datasets.0.declared_rows", 0),
    "rows as text": put("datasets.0.declared_rows", "2000"),
    "rows as a fraction": put("datasets.0.declared_rows", 2000.0),
    "rows as a truth value": put("datasets.0.declared_rows", True),
    "rows beyond a double": put("datasets.0.declared_rows", 2**53),
    "no identifiers": put("datasets.0.identifiers", []),
    "identifier twice": put("datasets.0.identifiers", ["email", "email"]),
    "nobody has an identifier": put("datasets.0.identifiers_per_person", 0),
    "a person has identifiers without end": put("datasets.0.identifiers_per_person", 257),
    "no word on identifiers of a person": lambda terms: terms["datasets"][0].pop(
        "identifiers_per_person"
    ),
    "no features": put("features", []),
    "feature without bounds": put("features.0.maximum", None),
    "feature with bounds turned round": put("features.0.minimum", 91),
    "feature with equal bounds": put("features.0.minimum", 90),
    "feature with an infinite bound": put("features.0.maximum", float("inf")),
    "feature with a bound that is no number": put("features.0.maximum", float("nan")),
    "feature with an infinite range": lambda terms: terms["features"][0].update(
        minimum=-1.7e308, maximum=1.7e308
    ),
    "log scale below zero": put("features.1.minimum", -1),
    "numeric with categories": put("features.0.categories", ["a", "b"]),
    "single category": put("features.2.categories", ["Sales"]),
    "category twice": put("features.2.categories", ["Sales", "Sales"]),
    "category over two lines": put("features.2.categories", ["Sales", "a\nb"]),
    "categorical with a bound": put("features.2.minimum", 0),
    "categorical with a scale": put("features.2.scale", "log"),
    "region in small letters": put("match.default_region", "us"),
    "nothing to match": put("match.minimum_match", 0),
    "bucket of nothing": put("match.set_size_bucket", 0),
    "recipe that accepts placeholders": put("match.recipe_version", 1),
    "recipe of the future": put("match.recipe_version", 3),
    "no keys": put("match.keys", []),
    "key twice": put("match.keys", ["email", "phone", "email"]),
    "key with a space": put("match.keys", ["email", "full name"]),
    "key that nobody describes": put("match.keys", ["email", "phone", "person"]),
    "composite key twice": composite("person", "person"),
    "composite key that is not used": put("match.composites", [PERSON]),
    "composite key without fields": composite("person", fields=[]),
    "composite key of too many fields": composite(
        "person", fields=[{"name": f"f{at}", "rule": "text"} for at in range(17)]
    ),
    "composite key with a field twice": composite("person", fields=PERSON["fields"] * 2),
    "composite key called like a kind": composite("email"),
    "field with an unknown rule": composite("person", fields=[{"name": "born", "rule": "soundex"}]),
    "unknown linkage": put("match.linkage", "fuzzy"),
    "unknown reveal": put("match.reveal", "everybody-learns-all"),
    "keys revealed by a text": put("match.reveal_keys", "yes"),
    "size without noise": put("match.reveal", "size-only"),
    "size by several keys": lambda terms: terms["match"].update(
        reveal="size-only", size_epsilon=1.0
    ),
    "size with hardly any noise": put("match.size_epsilon", 101.0),
    "size with endless noise": put("match.size_epsilon", 1e-4),
    "size that is surely cut": put("match.size_delta", 1),
    "no matches at all": put("match.maximum_matches", 0),
    "no period": put("match.period_days", 0),
    "period beyond ten years": put("match.period_days", 3_651),
    "set that never changes": put("match.maximum_change", 0),
    "set that changes more than wholly": put("match.maximum_change", 1.01),
    "another model": put("train.models", ["gradient-boosting"]),
    "no epsilon": put("train.epsilon", 0),
    "endless epsilon": put("budget.epsilon", float("inf")),
    "epsilon that overflows": put("budget.epsilon", 10**400),
    "epsilon as text": put("train.epsilon", "2"),
    "certain failure": put("budget.delta", 1),
    "no delta": put("train.delta", 0),
    "no clipping": put("train.clipping_norm", 0),
    "share of nothing": put("expand.maximum_share", 0),
    "more than everybody": put("expand.maximum_share", 1.01),
    "time without a zone": put("valid_from", datetime(2026, 1, 1)),  # noqa: DTZ001 the case
    "time out of range": put("valid_from", "0001-01-01T00:00:00+14:00"),
}

CONTRADICTORY = {
    "two parties of one name": (put("parties.2.name", "courier"), "two are called 'courier'"),
    "two parties with one key": (
        put("parties.2.identity_key", IDENTITY["courier"].public.to_base64()),
        r"one key stands twice \(at courier, retailer\)",
    ),
    "one key for messages and log": (
        put("parties.0.log_key", NoteKey("comity/acme", IDENTITY["acme"].public).to_string()),
        r"one key stands twice \(at acme, acme\)",
    ),
    "two parties with one encryption key": (
        put("parties.2.encryption_key", encryption_key("courier")),
        r"one key stands twice \(at courier, retailer\)",
    ),
    "two brands": (put("parties.1.role", "brand"), "exactly one brand, got acme, courier"),
    "no brand": (put("parties.0.role", "partner"), "exactly one brand, got none"),
    "no coordinator": (put("parties.3.role", "auditor"), "one coordinator, got none"),
    "no partner": (
        lambda terms: [
            terms["parties"][at].update(role="auditor", encryption_key=None) for at in (1, 2)
        ],
        "at least one partner, got none",
    ),
    "data of a stranger": (
        put("datasets.1.party", "stranger"),
        "'stranger', which has one, is neither",
    ),
    "data of the coordinator": (
        put("datasets.1.party", "operator"),
        "'operator', which has one, is neither",
    ),
    "data twice": (put("datasets.1.party", "acme"), "'acme' has two"),
    "no data": (put("datasets.1.party", "acme"), "'courier' has none"),
    "nothing to match by": (
        put("datasets.0.identifiers", ["phone"]),
        "'acme' and 'courier' share no key to match by",
    ),
    "a key that is not matched by": (
        put("datasets.1.identifiers", ["email", "member_id"]),
        "'courier' brings member_id, which match.keys lacks",
    ),
    "a composite key nobody described": (
        put("match.keys", ["email", "phone", "person"]),
        "key 'person' is none of 'email', 'phone', 'advertising_id', 'member_id': describe it",
    ),
    "a composite key that is not used": (
        put("match.composites", [PERSON]),
        "composite key 'person' is not among the keys",
    ),
    "two composite keys of one name": (
        composite("person", "person"),
        "two composite keys are called 'person'",
    ),
    "a field twice": (
        composite("person", fields=PERSON["fields"] * 2),
        "composite key 'person' has two fields 'born'",
    ),
    "a composite key called like a kind": (composite("phone"), "called like a kind of identifier"),
    "a size without noise": (put("match.reveal", "size-only"), "needs a size_epsilon"),
    "lists of members that are not of the same pairs": (
        lambda terms: terms["match"].update(reveal="both-learn-members", linkage="any-key"),
        "needs linkage 'one-to-one'",
    ),
    "a size by several keys": (
        lambda terms: terms["match"].update(reveal="size-only", size_epsilon=1.0),
        "needs exactly one key",
    ),
    "two features of one name": (put("features.1.name", "age"), "two are called 'age'"),
    "match for another purpose": (put("match.purpose", "other"), "match.purpose: 'other'"),
    "train for another purpose": (put("train.purpose", "other"), "train.purpose: 'other'"),
    "groups of no feature": (
        put("expand.fairness_groups", ["shoe_size"]),
        "expand.fairness_groups: 'shoe_size' is no categorical feature",
    ),
    "groups of a number": (
        put("expand.fairness_groups", ["age"]),
        "expand.fairness_groups: 'age' is no categorical feature",
    ),
    "expand for another purpose": (put("expand.purpose", "other"), "expand.purpose: 'other'"),
    "over before it begins": (
        put("valid_until", datetime(2026, 1, 1, tzinfo=UTC)),
        "2026-01-01T00:00:00Z is not after 2026-01-01T00:00:00Z",
    ),
    "more parties a person than partners": (
        put("train.max_parties_per_person", 3),
        "max_parties_per_person: 3 passes the number of partners, 2",
    ),
    "a job that passes the budget": (put("train.epsilon", 3.5), "3.5 passes the budget's eps"),
    "a delta that passes the budget": (put("train.delta", 1e-5), "1e-05 passes the budget's"),
}

LINES = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=30)
COLUMNS = st.builds(
    lambda name, bounds, unit, log: ColumnTerm(
        name=name,
        type=ColumnType.NUMERIC,
        minimum=bounds[0],
        maximum=bounds[1],
        unit=unit,
        scale=Scale.LOG if log and bounds[0] >= 0 else Scale.LINEAR,
    ),
    st.from_regex(r"[A-Za-z][A-Za-z0-9_.-]{0,20}", fullmatch=True),
    st.lists(st.floats(-1e300, 1e300), min_size=2, max_size=2, unique=True).map(sorted),
    st.none() | LINES,
    st.booleans(),
) | st.builds(
    lambda name, categories: ColumnTerm(
        name=name, type=ColumnType.CATEGORICAL, categories=tuple(categories)
    ),
    st.from_regex(r"[A-Za-z][A-Za-z0-9_.-]{0,20}", fullmatch=True),
    st.lists(LINES, min_size=2, max_size=5, unique=True),
)


class TestCuts:
    """What cutting noise adds to δ, over all matches that are allowed: here 12 in each 30 days."""

    SIZES: Mapping[str, Any] = {"reveal": "size-only", "keys": ["email"], "size_epsilon": 1.0}

    def agreed(self, **match: Any) -> Agreement:
        terms = make_terms()
        for one in terms["datasets"]:
            one["identifiers"] = ["email"]
        return Agreement.from_terms(terms | {"match": terms["match"] | match})

    def test_where_nothing_is_cut_the_whole_budget_is_accounted(self) -> None:
        for match in ({}, {"size_delta": 0.5}, {"size_epsilon": 1.0, "size_delta": 0.5}):
            agreement = self.agreed(**match)
            assert (agreement.cut_delta, agreement.accounted_delta) == (0.0, 1e-6)

    def test_sizes_with_every_partner_and_alignments_share_the_matches(self) -> None:
        alignment = {"key": "email", "epsilon": 1.0, "delta": 3e-12}
        for match, once in (
            (self.SIZES, 2e-12),
            ({"alignment": alignment}, 3e-12),
            (self.SIZES | {"alignment": alignment}, 3e-12),
        ):
            agreement = self.agreed(**match)
            assert agreement.cut_delta == pytest.approx(12 * 13 * once)  # 365 days begin 13 months
            assert agreement.accounted_delta == 1e-6 - agreement.cut_delta

    @pytest.mark.parametrize("what", ["sizes", "alignment"])
    def test_more_than_a_tenth_of_the_budget_is_refused(self, what: str) -> None:
        def agreed(cut: float) -> Agreement:
            few = {"maximum_matches": 5, "period_days": 73}  # 25 in the year
            if what == "sizes":
                return self.agreed(**self.SIZES, **few, size_delta=cut / 50)
            return self.agreed(**few, alignment={"key": "email", "epsilon": 1, "delta": cut / 25})

        assert agreed(0.999e-7).accounted_delta == pytest.approx(0.9e-6, rel=1e-3)
        with pytest.raises(InvalidAgreementError, match=r"in the 25 matches .* more than 10% of"):
            agreed(1.001e-7)


class TestTerms:
    def test_plain_values_make_an_agreement(self) -> None:
        agreement = make_agreement()
        assert agreement.party("retailer").role is Role.PARTNER
        assert [party.name for party in agreement.by_role(Role.PARTNER)] == ["courier", "retailer"]
        assert agreement.by_role(Role.AUDITOR) == ()
        assert agreement.party("acme").verifying_key == IDENTITY["acme"].public

    def test_an_unknown_party_is_named_with_those_that_exist(self) -> None:
        with pytest.raises(InvalidAgreementError, match=r"'nobody', only acme, courier, retailer"):
            make_agreement().party("nobody")

    @pytest.mark.parametrize("name", ["acme", "courier", "retailer"])
    def test_a_party_has_its_own_data_set(self, name: str) -> None:
        assert make_agreement().dataset(name).party == name

    def test_a_party_without_data_is_named(self) -> None:
        with pytest.raises(InvalidAgreementError, match="no data set of 'operator'"):
            make_agreement().dataset("operator")

    @pytest.mark.parametrize("change", MALFORMED.values(), ids=MALFORMED)
    def test_malformed_terms_are_refused(self, change: Callable[[dict[str, Any]], None]) -> None:
        terms = make_terms()
        change(terms)
        with pytest.raises(InvalidAgreementError, match=r"^campaign\.toml: "):
            Agreement.from_terms(terms, source="campaign.toml")

    @pytest.mark.parametrize(("change", "message"), CONTRADICTORY.values(), ids=CONTRADICTORY)
    def test_contradictions_are_refused(
        self, change: Callable[[dict[str, Any]], None], message: str
    ) -> None:
        terms = make_terms()
        change(terms)
        with pytest.raises(InvalidAgreementError, match=message):
            Agreement.from_terms(terms)

    def test_a_composite_key_and_a_size_alone_can_be_agreed(self) -> None:
        terms = make_terms()
        composite("person")(terms)
        terms["datasets"][1]["identifiers"] += ["person"]
        agreed = Agreement.from_terms(terms)
        assert agreed.match.keys == ("email", "phone", "person")
        assert agreed.match.composites[0].fields[0].rule is FieldRule.DATE
        assert Agreement.from_canonical_bytes(agreed.canonical_bytes) == agreed
        terms = make_terms()
        terms["match"] |= {"reveal": "size-only", "size_epsilon": 1e-3, "keys": ["email"]}
        for brought in terms["datasets"]:
            brought["identifiers"] = ["email"]
        assert Agreement.from_terms(terms).match.reveal is Reveal.SIZE_ONLY

    @pytest.mark.parametrize("at", [0, 1, 2])
    def test_a_party_to_which_nothing_can_be_encrypted_is_named(self, at: int) -> None:
        terms = make_terms()
        name = terms["parties"][at]["name"]
        del terms["parties"][at]["encryption_key"]
        with pytest.raises(InvalidAgreementError, match=f"'{name}' needs an encryption_key"):
            Agreement.from_terms(terms)

    @pytest.mark.parametrize(
        ("auditors", "keyless", "allowed"),
        [
            (0, (), {2, 3}),
            (1, (), {3, 4}),
            (2, (), {3, 4, 5}),
            (0, ("operator",), {2}),  # its log has three witnesses, the others' two
            (0, ("courier", "operator", "retailer"), set()),
            (0, tuple(ROLES), set()),
        ],
    )
    def test_a_quorum_of_witnesses_is_more_than_half_of_them(
        self, auditors: int, keyless: tuple[str, ...], allowed: set[int]
    ) -> None:
        terms = make_terms()
        terms["parties"] += [party_terms(f"auditor{each}", "auditor") for each in range(auditors)]
        for party in terms["parties"]:
            if party["name"] in keyless:
                del party["cosigning_key"]
        assert Agreement.from_terms(terms).witness_quorum is None
        for quorum in range(1, 7):
            terms["witness_quorum"] = quorum
            if quorum in allowed:
                assert Agreement.from_terms(terms).witness_quorum == quorum
                continue
            with pytest.raises(InvalidAgreementError, match=r"more than half.*or leave out audit"):
                Agreement.from_terms(terms)
        terms["witness_quorum"] = 0
        with pytest.raises(InvalidAgreementError, match=r"witness_quorum: .*greater than or equal"):
            Agreement.from_terms(terms)

    def test_all_contradictions_are_reported_at_once(self) -> None:
        terms = make_terms()
        for change in (
            put("parties.1.role", "brand"),
            put("datasets.1.party", "stranger"),
            put("match.purpose", "other"),
            put("train.epsilon", 9),
            put("valid_until", datetime(2025, 1, 1, tzinfo=UTC)),
        ):
            change(terms)
        with pytest.raises(InvalidAgreementError) as caught:
            Agreement.from_terms(terms)
        for fragment in (
            "one brand",
            "'stranger'",
            "match.purpose",
            "train.epsilon",
            "valid_until",
        ):
            assert fragment in str(caught.value)

    def test_all_malformed_terms_are_reported_at_once_without_their_values(self) -> None:
        with pytest.raises(InvalidAgreementError) as caught:
            make_agreement(name="person@mail.example", title="", purposes=["person@mail.example"])
        for fragment in ("name:", "title:", "purposes.0:"):
            assert fragment in str(caught.value)
        assert "person" not in str(caught.value) + str(caught.value.__cause__)

    def test_there_are_as_many_parties_as_a_leaf_tells_of(self) -> None:
        assert MOST_PARTIES == MOST_NAMES
        roles = ("brand", "partner", "coordinator", *["auditor"] * (MOST_PARTIES - 2))
        names = [f"p{number:03}-".ljust(63, "x") for number in range(MOST_PARTIES + 1)]
        terms = make_terms()
        terms["train"]["max_parties_per_person"] = 1
        keys = [party_terms(f"p{number}", role) for number, role in enumerate(roles)]
        terms["parties"] = [key | {"name": name} for key, name in zip(keys, names, strict=True)]
        terms["datasets"] = [dataset(name, 100, "email") for name in names[:2]]
        with pytest.raises(InvalidAgreementError, match=f"parties: .*at most {MOST_PARTIES}"):
            Agreement.from_terms(terms)
        terms["parties"].pop()
        agreement = Agreement.from_terms(terms)
        assert [party.name for party in agreement.parties] == names[:-1]

    def test_a_log_has_as_many_witnesses_however_many_parties_there_are(self) -> None:
        terms = make_terms()
        terms["parties"] += [party_terms(f"auditor{each}", "auditor") for each in range(40)]
        terms["witness_quorum"] = MOST_WITNESSES // 2 + 1
        agreement = Agreement.from_terms(terms)
        for party in agreement.parties:
            witnesses = agreement.witnesses_of(party.name)
            assert len(set(witnesses)) == MOST_WITNESSES
            assert party.name not in witnesses
            assert set(policy_for(agreement, party.name).witnesses) == set(witnesses)
        sets = {agreement.witnesses_of(party.name) for party in agreement.parties}
        assert len(sets) == len(agreement.parties)
        terms["witness_quorum"] = MOST_WITNESSES // 2
        with pytest.raises(InvalidAgreementError, match=r"expected 12 to 23: .*more than half"):
            Agreement.from_terms(terms)
        del terms["witness_quorum"]  # auditors do not count: three others are left
        assert len(Agreement.from_terms(terms).witnesses_of("acme")) == len(ROLES) - 1

    @given(st.sets(st.from_regex(r"[a-z][a-z0-9-]{0,9}", fullmatch=True), max_size=60))
    def test_one_party_more_takes_the_place_of_one_witness_at_most(self, names: set[str]) -> None:
        before = drawn_witnesses("log", sorted(names))
        after = drawn_witnesses("log", sorted({*names, "newcomer"}))
        assert len(before) == min(len(names), MOST_WITNESSES)
        assert len(set(before) - set(after)) <= 1
        assert set(after) - set(before) <= {"newcomer"}

    def test_an_agreement_cannot_be_changed(self) -> None:
        with pytest.raises(ValidationError):
            make_agreement().title = "Another"  # type: ignore[misc]

    @pytest.mark.parametrize("limit", [1, 2])
    def test_limits_may_be_used_up(self, limit: int) -> None:
        terms = make_terms()
        terms["train"] |= {"epsilon": 3, "delta": 1e-6, "max_parties_per_person": limit}
        assert Agreement.from_terms(terms).train.epsilon == 3

    def test_it_is_in_force_from_its_first_moment_to_before_its_last(self) -> None:
        agreement, moment = make_agreement(), timedelta(microseconds=1)
        agreement.check_time(agreement.valid_from)
        agreement.check_time(agreement.valid_until - moment)
        for outside in (agreement.valid_from - moment, agreement.valid_until):
            with pytest.raises(InvalidAgreementError, match="in force from 2026-01-01T00:00:00Z"):
                agreement.check_time(outside)


class TestCanonicalBytes:
    def test_the_spelling_is_pinned(self) -> None:
        """Made by this code: a change here breaks every agreement signed before."""
        assert make_agreement().digest == GOLDEN_DIGEST

    def test_members_are_sorted_and_tight(self) -> None:
        text = make_agreement(budget={"epsilon": 3.0, "delta": 0.25}).canonical_bytes.decode()
        start = (
            '{"amends":null,"approval":null,"budget":{"delta":0.25,"epsilon":3},'
            '"code_digests":[],"consent":null,"datasets":['
        )
        assert text.startswith(start)

    @pytest.mark.parametrize(
        "same",
        [
            {"valid_from": "2026-01-01T00:00:00Z"},
            {"valid_from": datetime(2026, 1, 1, 5, 30, tzinfo=timezone(timedelta(hours=5.5)))},
            {"budget": {"epsilon": 3, "delta": 0.000001}},
        ],
        ids=["time as text", "time in another zone", "whole number"],
    )
    def test_the_same_terms_have_the_same_digest(self, same: dict[str, Any]) -> None:
        assert make_agreement(**same).digest == make_agreement().digest

    def test_equal_agreements_hash_alike_and_a_changed_copy_does_not(self) -> None:
        one = make_agreement()
        assert hash(one) == hash(make_agreement())
        assert hash(one.model_copy(update={"purposes": ("another",)})) != hash(one)

    def test_every_term_changes_the_digest(self) -> None:
        changed = [
            make_agreement(**change).digest
            for change in (
                {},
                {"title": "Autumn campaign"},
                {"terms_text": ""},
                {"purposes": ["newsletter", PURPOSE]},
                {"budget": {"epsilon": 3.0000000000000004, "delta": 1e-6}},
                {"valid_until": datetime(2027, 1, 1, 0, 0, 0, 1, tzinfo=UTC)},
            )
        ]
        assert len(set(changed)) == len(changed)

    @pytest.mark.parametrize(
        "respell",
        [
            lambda text: text + "\n",
            lambda text: text.replace('"version":1', '"version": 1'),
            lambda text: text.replace('"epsilon":3}', '"epsilon":3.0}'),
            lambda text: text.replace('"epsilon":3}', '"epsilon":3,"period":null}'),
            lambda text: text.replace("Spring", "\\u0053pring"),
            lambda text: text.replace('"version":1', '"version":1,"version":1'),
            lambda text: text.replace("2026-01-01T00:00:00Z", "2026-01-01T00:00:00+00:00"),
            lambda text: json.dumps(dict(reversed(json.loads(text).items()))),
        ],
    )
    def test_other_spellings_of_the_same_agreement_are_refused(
        self, respell: Callable[[str], str]
    ) -> None:
        text = make_agreement().canonical_bytes.decode()
        assert respell(text) != text
        with pytest.raises(AlteredAgreementError, match="canonical"):
            Agreement.from_canonical_bytes(respell(text).encode())

    @given(data=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
    def test_arbitrary_bytes_raise_only_the_agreement_error(self, data: bytes) -> None:
        with pytest.raises(InvalidAgreementError):
            Agreement.from_canonical_bytes(data)

    @given(
        title=LINES,
        features=st.lists(COLUMNS, min_size=1, max_size=4, unique_by=lambda column: column.name),
        share=st.floats(0, 1, exclude_min=True),
    )
    def test_reading_back_gives_the_same_agreement(
        self, title: str, features: list[ColumnTerm], share: float
    ) -> None:
        expand = {"purpose": PURPOSE, "maximum_share": share, "minimum_segment": 1}
        agreement = make_agreement(title=title, features=features, expand=expand)
        again = Agreement.from_canonical_bytes(agreement.canonical_bytes)
        assert again == agreement
        assert again.digest == agreement.digest
        copied = again.model_copy(update={"title": f"{title} once more"})
        told = {one.digest for one in (again, copied, again.model_copy())}
        assert told == {agreement.digest, copied.digest}
        assert Agreement.from_canonical_bytes(copied.canonical_bytes) == copied != again


class TestSignedAgreement:
    def test_signed_by_every_party_it_verifies(self) -> None:
        agreement = make_agreement()
        signed = SignedAgreement.from_json(signed_by_all(agreement).to_json())
        assert signed.verify() == agreement
        assert signed.signed_by == tuple(ROLES)

    @pytest.mark.parametrize(
        "signers",
        [some for size in range(len(ROLES)) for some in itertools.combinations(ROLES, size)],
        ids=lambda signers: "+".join(signers) or "nobody",
    )
    def test_missing_signatures_are_named_with_the_remedy(self, signers: tuple[str, ...]) -> None:
        signed = SignedAgreement.draft(make_agreement())
        for name in signers:
            signed = signed.sign(name, IDENTITY[name])
        missing = ", ".join(name for name in ROLES if name not in signers)
        assert signed.signed_by == signers
        with pytest.raises(
            UnsignedAgreementError, match=f"not signed by {missing}: .*`comity agreement sign`"
        ):
            signed.verify()

    def test_signing_again_changes_nothing(self) -> None:
        signed = signed_by_all(make_agreement())
        assert signed.sign("courier", IDENTITY["courier"]) == signed

    def test_signing_does_not_touch_the_draft(self) -> None:
        draft = SignedAgreement.draft(make_agreement())
        draft.sign("acme", IDENTITY["acme"])
        assert draft.signed_by == ()

    @pytest.mark.parametrize("key", [IDENTITY["courier"], seeded("log of acme"), seeded("new")])
    def test_a_key_that_the_agreement_does_not_name_cannot_sign(self, key: SigningKey) -> None:
        expected = f"names key {IDENTITY['acme'].public.fingerprint} for 'acme', got "
        with pytest.raises(SignatureError, match=expected + key.public.fingerprint):
            SignedAgreement.draft(make_agreement()).sign("acme", key)

    def test_a_stranger_cannot_sign(self) -> None:
        with pytest.raises(InvalidAgreementError, match="no party 'stranger'"):
            SignedAgreement.draft(make_agreement()).sign("stranger", seeded("stranger"))

    def test_nobody_signs_beside_a_signature_that_is_not_valid(self) -> None:
        forged = Envelope.sign(
            PAYLOAD_TYPE, make_agreement().canonical_bytes, {"acme": IDENTITY["courier"]}
        )
        with pytest.raises(AlteredAgreementError):
            SignedAgreement(forged).sign("courier", IDENTITY["courier"])

    def test_an_agreement_altered_past_its_checks_is_not_drafted(self) -> None:
        altered = make_agreement().model_copy(update={"purposes": ("newsletter",)})
        with pytest.raises(InvalidAgreementError, match=r"match\.purpose"):
            SignedAgreement.draft(altered)

    def test_an_agreement_too_long_for_an_envelope_is_refused(self) -> None:
        wide = [f"{at:03}{'x' * 190}" for at in range(1_000)]
        features = [
            {"name": name, "type": "categorical", "categories": wide}
            for name in ("a", "b", "c", "d")
        ]
        with pytest.raises(InvalidAgreementError, match="spring-campaign"):
            SignedAgreement.draft(make_agreement(features=features))

    def test_signatures_do_not_carry_over_to_another_agreement(self) -> None:
        theirs = signed_by_all(make_agreement()).envelope
        ours = SignedAgreement.draft(make_agreement(title="Autumn campaign")).envelope
        mixed = ours.model_copy(update={"signatures": theirs.signatures})
        with pytest.raises(AlteredAgreementError, match="is not what 'acme' signed"):
            SignedAgreement(mixed).verify()

    def test_a_signature_too_many_is_refused(self) -> None:
        envelope = signed_by_all(make_agreement()).envelope
        with pytest.raises(AlteredAgreementError, match="no party of it"):
            SignedAgreement(envelope.add_signature("stranger", seeded("stranger"))).verify()

    def test_one_partys_signature_cannot_stand_for_anothers(self) -> None:
        keys = dict.fromkeys(ROLES, IDENTITY["acme"])
        envelope = Envelope.sign(PAYLOAD_TYPE, make_agreement().canonical_bytes, keys)
        with pytest.raises(AlteredAgreementError, match="'courier'"):
            SignedAgreement(envelope).verify()

    def test_another_kind_of_payload_is_refused_though_all_signed_it(self) -> None:
        content = make_agreement().canonical_bytes
        envelope = Envelope.sign("application/vnd.comity.message+json", content, IDENTITY)
        with pytest.raises(InvalidAgreementError, match="expected payload type"):
            SignedAgreement.from_json(envelope.to_json())

    def test_another_spelling_is_refused_though_all_signed_it(self) -> None:
        content = json.dumps(json.loads(make_agreement().canonical_bytes), indent=1).encode()
        envelope = Envelope.sign(PAYLOAD_TYPE, content, IDENTITY)
        with pytest.raises(AlteredAgreementError, match="canonical"):
            SignedAgreement.from_json(envelope.to_json())

    def test_a_contradictory_agreement_is_refused_though_all_signed_it(self) -> None:
        content = make_agreement().canonical_bytes.replace(b'"reveal"', b'"revoke"')
        envelope = Envelope.sign(PAYLOAD_TYPE, content, IDENTITY)
        with pytest.raises(InvalidAgreementError, match="revoke"):
            SignedAgreement.from_json(envelope.to_json())

    @pytest.mark.parametrize(("first", "mask"), list(enumerate([0x01, 0x10, 0x20, 0x80])))
    def test_no_changed_byte_of_the_file_yields_another_agreement(
        self, first: int, mask: int, thorough: bool
    ) -> None:
        agreement = make_agreement()
        content = signed_by_all(agreement).to_json()
        for at in range(first, len(content), 4 if thorough else 28):  # each by one of the masks
            changed = bytearray(content)
            changed[at] ^= mask
            try:
                found = SignedAgreement.from_json(bytes(changed)).verify()
            except InvalidAgreementError:
                continue
            assert found == agreement, f"byte {at}"

    def test_no_changed_byte_of_the_payload_verifies(self, thorough: bool) -> None:
        signed = signed_by_all(make_agreement())
        payload = signed.envelope.payload_bytes
        keys = re.sub(rb'"encryption_key":"[^"]+', lambda key: bytes(len(key[0])), payload)
        for at in range(len(payload)):
            if at % (25 if not keys[at] else 1 if thorough else 5):  # fewer of what is long
                continue
            changed = payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :]
            envelope = signed.envelope.model_copy(
                update={"payload": base64.b64encode(changed).decode()}
            )
            with pytest.raises(InvalidAgreementError):
                SignedAgreement(envelope).verify()

    def test_no_truncation_of_the_file_is_read(self) -> None:
        content = signed_by_all(make_agreement()).to_json()
        for size in range(0, len(content), 7):
            with pytest.raises(InvalidAgreementError):
                SignedAgreement.from_json(content[:size])

    @given(data=st.binary(max_size=100) | st.text(max_size=100).map(str.encode))
    def test_arbitrary_files_raise_only_compliance_errors(self, data: bytes) -> None:
        with pytest.raises(ComplianceError):
            SignedAgreement.from_json(data)


class TestRender:
    @staticmethod
    def leaves(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            for part in value.values():
                yield from TestRender.leaves(part)
        elif isinstance(value, list | tuple):
            for part in value:
                yield from TestRender.leaves(part)
        elif value is None or isinstance(value, bool):
            yield {None: "none", True: "yes", False: "no"}[value]
        elif isinstance(value, datetime):
            yield value.isoformat().replace("+00:00", "Z")
        else:
            yield f"{value:,}" if isinstance(value, int) and value >= 2_000 else str(value)

    def test_every_term_is_shown(self) -> None:
        terms = make_terms()
        for number, brought in enumerate(terms["datasets"]):
            brought["identifiers_per_person"] = 231 + number  # a number that stands nowhere else
        agreement = Agreement.from_terms(terms)
        terms = deepcopy(terms) | {"match": agreement.match.model_dump()}  # its defaults too
        del terms["version"]
        for party in terms["parties"]:
            party["identity_key"] = IDENTITY[party["name"]].public.fingerprint
            party["cosigning_key"] = party["cosigning_key"].split("+")[1]  # its identifier
            if key := party.get("encryption_key"):
                raw = base64.b64decode(key)
                party["encryption_key"] = hashlib.sha256(raw).hexdigest()[:16]
        shown = render(agreement).replace("\\", "").replace(agreement.digest, "")
        terms["features"][1]["maximum"] = "99999"
        for leaf in self.leaves(terms):
            assert leaf in shown, leaf

    def test_a_line_of_a_party_can_be_read(self) -> None:
        agreement = make_agreement()
        lines = render(agreement).splitlines()
        rows = [line for line in lines if line.endswith("| no |")]
        assert max(map(len, rows)) < 60
        for party in agreement.parties:
            assert f"- {party.name}, key fingerprint: `{party.verifying_key.fingerprint}`" in lines
            assert f"- {party.name}, log key: `{party.log_key}`" in lines
        assert sum(line.endswith(", encryption key: `none`") for line in lines) == 1

    def test_who_has_signed_is_shown(self) -> None:
        shown = render(make_agreement(), signed_by=["courier"])
        rows = [line for line in shown.splitlines() if line.endswith(("| yes |", "| no |"))]
        assert [line.split()[-2] for line in rows] == ["no", "yes", "no", "no"]

    def test_markdown_in_a_title_is_shown_as_it_is_written(self) -> None:
        shown = render(make_agreement(title=r"A \* [b](c) `d` <e> & f|g_h"))
        assert shown.startswith("# A \\\\\\* \\[b\\]\\(c\\) \\`d\\` \\<e\\> \\& f\\|g\\_h\n")

    def test_bounds_are_shown_in_full(self) -> None:
        feature = {"name": "income", "type": "numeric", "minimum": 0.125, "maximum": 1_234_567.5}
        assert "0.125 to 1234567.5, linear scale" in render(make_agreement(features=[feature]))

    @given(
        title=LINES,
        categories=st.lists(LINES, min_size=2, max_size=3, unique=True),
        text=st.text(st.sampled_from("#|>-` <ab\n"), max_size=40),
    )
    def test_no_text_can_pass_for_a_term(
        self, title: str, categories: list[str], text: str
    ) -> None:
        feature = {"name": "f", "type": "categorical", "categories": categories}
        shown = render(make_agreement(title=title, features=[feature], terms_text=text))
        headings = [line for line in shown.split("\n") if line.startswith("#")]
        expected = ["## Parties", "## Keys", "## People", "## Features"]
        expected += ["## Match", "## Train", "## Expand"]
        assert headings[1:] == [*expected, "## Budget", *["## Further terms"] * bool(text)]
        cells = [line.replace("\\|", "") for line in shown.split("\n") if line.startswith("| f |")]
        assert [line.count("|") for line in cells] == [5]
        if text:
            quoted = shown.split("## Further terms\n\n")[1].removesuffix("\n").split("\n")
            assert all(line.startswith(">") for line in quoted)
            assert "<" not in "".join(quoted)
