"""The lookalike example's committed tables are what their generator makes and what it promises."""

import gzip
import hashlib
import subprocess
import sys
import tomllib
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from federation.collaboration import load_collaboration
from federation.plan import plan

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
GENERATOR = EXAMPLES / "lookalike" / "generate.py"
COMMITTED = EXAMPLES / "lookalike" / "data"
COMMITTED_WITH_ZLIB = "1.2.13"
PARTNERS = ("retailer", "courier")
TABLES = {
    "brand_seeds": ("record", "email", "phone"),
    "brand_consents": ("subject", "purpose", "event", "time"),
    "retailer_consents": ("subject", "purpose", "event", "time"),
    "courier_consents": ("subject", "purpose", "event", "time"),
    "truth": ("party", "record", "label"),
}
FEATURES = (
    "age",
    "workclass",
    "education-num",
    "marital-status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "capital-gain",
    "capital-loss",
    "hours-per-week",
    "native-country",
)
TABLES |= dict.fromkeys(PARTNERS, ("record", "email", "phone", *FEATURES))
LOOKALIKE = "lookalike-audiences"
DIGEST = r"[0-9a-f]{64}"

Tables = dict[str, pd.DataFrame]
Terms = dict[str, dict[str, Any]]
Regenerated = tuple[Path, subprocess.CompletedProcess[str]]
Normalise = Callable[[pd.Series], pd.Series]


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(GENERATOR), *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def final_consent(events: pd.DataFrame, purpose: str = LOOKALIKE) -> pd.Series:
    """The last event of each subject for one purpose."""
    of_purpose = events[events["purpose"] == purpose]
    return of_purpose.sort_values("time").groupby("subject")["event"].last()


def plain_email(emails: pd.Series) -> pd.Series:
    """An obvious normalisation: Gmail ignores dots and tags, nobody minds case and spaces."""
    parts = emails.str.strip().str.lower().str.partition("@")
    bare = parts[0].str.replace(r"\+.*", "", regex=True).str.replace(".", "")
    return parts[0].where(parts[2] != "gmail.com", bare) + "@" + parts[2]


def plain_phone(phones: pd.Series) -> pd.Series:
    return "+1" + phones.str.replace(r"\D", "", regex=True).str[-10:]


def sha256(values: pd.Series) -> list[str]:
    return [hashlib.sha256(value.encode()).hexdigest() for value in values]


def digested(values: pd.Series, normalise: Normalise) -> pd.Series:
    """SHA-256 of the normalised values; what is a digest already stays; empty stays empty."""
    raw = (values != "") & ~values.str.fullmatch(DIGEST)
    return values.mask(raw, pd.Series(sha256(normalise(values)), index=values.index))


@pytest.fixture(scope="module")
def tables() -> Tables:
    return {name: read(COMMITTED / f"{name}.csv.gz") for name in TABLES}


@pytest.fixture(scope="module")
def adult() -> pd.DataFrame:
    return read(EXAMPLES / "data" / "adult.csv.gz").replace("?", "")


@pytest.fixture(scope="module")
def customers(tables: Tables) -> Tables:
    """Each partner's table without the second registrations, which the truth leaves out."""
    truth = tables["truth"].set_index(["party", "record"])["label"]
    return {
        name: tables[name].assign(label=tables[name]["record"].map(truth[name])).dropna()
        for name in PARTNERS
    }


@pytest.fixture(scope="module")
def terms() -> Terms:
    """The committed terms of the features, by name."""
    text = (GENERATOR.parent / "features.toml").read_text()
    return {term["name"]: term for term in tomllib.loads(text)["agreement"]["features"]}


@pytest.fixture(scope="module")
def regenerated(tmp_path_factory: pytest.TempPathFactory) -> Regenerated:
    output = tmp_path_factory.mktemp("lookalike")
    return output, run("--output", output)


class TestRegeneration:
    def test_makes_exactly_the_committed_tables(self, regenerated: Regenerated) -> None:
        output, process = regenerated
        assert process.returncode == 0, process.stderr
        expected = sorted(f"{name}.csv.gz" for name in TABLES)
        assert sorted(path.name for path in output.iterdir()) == expected
        assert sorted(path.name for path in COMMITTED.iterdir()) == expected

    @pytest.mark.parametrize("name", TABLES)
    def test_repeats_the_committed_content_byte_for_byte(
        self, regenerated: Regenerated, name: str
    ) -> None:
        made, kept = ((d / f"{name}.csv.gz").read_bytes() for d in (regenerated[0], COMMITTED))
        # A bare comparison: its failure would print whole tables.
        same = gzip.decompress(made) == gzip.decompress(kept)
        assert same, f"{name}: the committed content is not what generate.py makes"

    @pytest.mark.skipif(
        COMMITTED_WITH_ZLIB != zlib.ZLIB_RUNTIME_VERSION,
        reason=f"the tables were compressed by zlib {COMMITTED_WITH_ZLIB}",
    )
    @pytest.mark.parametrize("name", TABLES)
    def test_repeats_the_committed_file_byte_for_byte(
        self, regenerated: Regenerated, name: str
    ) -> None:
        made, kept = ((d / f"{name}.csv.gz").read_bytes() for d in (regenerated[0], COMMITTED))
        assert hashlib.sha256(made).digest() == hashlib.sha256(kept).digest()

    def test_prints_the_committed_feature_terms(self, regenerated: Regenerated) -> None:
        assert regenerated[1].stdout == (GENERATOR.parent / "features.toml").read_text()

    def test_keeps_the_tables_small(self) -> None:
        assert sum(path.stat().st_size for path in COMMITTED.iterdir()) <= 4 << 20

    def test_fewer_people_are_the_same_people(
        self, tables: Tables, customers: Tables, tmp_path: Path
    ) -> None:
        assert run("--people", 2000, "--output", tmp_path).returncode == 0
        few = {name: read(tmp_path / f"{name}.csv.gz") for name in TABLES}
        assert len(few["truth"]) == 2000
        planned = plan(load_collaboration(tmp_path / "collaboration.toml"))
        assert [job.refused_by for job in planned.jobs] == [None, None, None]
        for name in ("brand_seeds", "truth", "brand_consents"):
            assert len(few[name].merge(tables[name])) == len(few[name]) > 0
        for name in PARTNERS:
            assert len(few[name].merge(customers[name])) == sum(few["truth"]["party"] == name)

    @pytest.mark.parametrize("people", [1, 30])
    def test_a_handful_of_people_is_enough(self, people: int, tmp_path: Path) -> None:
        assert run("--people", people, "--output", tmp_path).returncode == 0
        assert len(read(tmp_path / "truth.csv.gz")) == people

    @pytest.mark.parametrize(
        "arguments", [("--people", "0", "--output", "unused"), ("--people", "10")]
    )
    def test_refuses_no_people_and_overwriting_the_full_tables(
        self, arguments: tuple[str, ...]
    ) -> None:
        process = run(*arguments)
        assert process.returncode == 2
        assert "--people: " in process.stderr


class TestTables:
    @pytest.mark.parametrize("name", TABLES)
    def test_hold_the_promised_columns_and_no_others(self, tables: Tables, name: str) -> None:
        assert tuple(tables[name].columns) == TABLES[name]

    def test_records_are_unique_and_are_not_row_numbers(self, tables: Tables) -> None:
        for name, prefix in (("brand_seeds", "B"), ("retailer", "R"), ("courier", "C")):
            records = tables[name]["record"]
            assert records.is_unique
            assert records.str.fullmatch(prefix + r"\d{6}").all()
            assert records.str[1:].astype(int).max() > 900_000

    def test_partners_share_out_the_census_rows(
        self, customers: Tables, adult: pd.DataFrame
    ) -> None:
        held = pd.concat(customers.values())
        label = (adult["class"] == ">50K").astype(int).astype(str)
        expected = adult[list(FEATURES)].assign(label=label)
        order = [*FEATURES, "label"]
        same = np.array_equal(
            held[order].sort_values(order).to_numpy(), expected.sort_values(order).to_numpy()
        )
        assert same
        for name in PARTNERS:
            assert len(customers[name]) / len(adult) == pytest.approx(0.5, abs=0.01)

    def test_seeds_are_thirty_percent_of_the_well_paid(
        self, tables: Tables, adult: pd.DataFrame
    ) -> None:
        share = len(tables["brand_seeds"]) / (adult["class"] == ">50K").sum()
        assert share == pytest.approx(0.30, abs=0.01)

    @pytest.mark.parametrize("name", PARTNERS)
    def test_customers_registered_twice_are_outside_the_truth(
        self, tables: Tables, customers: Tables, name: str
    ) -> None:
        table = tables[name]
        second = table[~table["record"].isin(customers[name]["record"])]
        assert len(second) == 25
        first = customers[name].drop(columns="label")
        assert len(second.drop(columns="record").merge(first.drop(columns="record"))) == 25
        given = final_consent(tables[f"{name}_consents"])
        assert (given.reindex(second["record"]) == "given").all()

    @pytest.mark.parametrize("name", PARTNERS)
    def test_only_second_registrations_repeat_an_address_or_a_number(
        self, tables: Tables, name: str
    ) -> None:
        for column in ("email", "phone"):
            values = tables[name][column]
            assert values[values != ""].duplicated().sum() == 25


class TestIdentifiers:
    @pytest.mark.parametrize("name", PARTNERS)
    def test_some_are_missing_or_malformed(self, customers: Tables, name: str) -> None:
        email, phone = customers[name]["email"], customers[name]["phone"]
        assert (email == "").mean() == pytest.approx(0.04, abs=0.005)
        assert (phone == "").mean() == pytest.approx(0.06, abs=0.005)
        malformed = (email != "") & ~email.str.strip().str.fullmatch(r"[^@ ]+@[^@ ]+\.[^@ ]+")
        assert 0 < malformed.mean() < 0.005

    def test_the_brand_has_hashed_a_few(self, tables: Tables) -> None:
        seeds = tables["brand_seeds"]
        for column in ("email", "phone"):
            hashed = seeds[column].str.fullmatch(DIGEST)
            assert hashed.mean() == pytest.approx(0.05, abs=0.01)

    @pytest.mark.parametrize("name", ["brand_seeds", *PARTNERS])
    def test_addresses_are_spelt_in_many_ways(self, tables: Tables, name: str) -> None:
        email = tables[name]["email"]
        email = email[email.str.contains(r"@\w", regex=True)]
        gmail = email.str.strip().str.lower().str.endswith("@gmail.com")
        tagged = email.str.contains("+", regex=False)
        dotted = email.str.partition("@")[0].str.contains(".", regex=False)
        for share in (
            (email != email.str.strip()).mean(),
            (email != email.str.lower()).mean(),
            tagged[gmail].mean(),
            dotted[gmail].mean(),
        ):
            assert 0.05 < share < 0.5
        assert not tagged[~gmail].any()

    @pytest.mark.parametrize("name", ["brand_seeds", *PARTNERS])
    def test_phones_are_valid_numbers_in_several_formats(self, tables: Tables, name: str) -> None:
        phonenumbers = pytest.importorskip("phonenumbers")
        phones = tables[name]["phone"]
        phones = phones[(phones != "") & ~phones.str.fullmatch(DIGEST)]
        formats = phones.str.replace(r"\d", "9", regex=True).value_counts(normalize=True)
        assert len(formats) >= 3
        assert formats.min() > 0.05
        sample = phones[::20]
        parsed = [phonenumbers.parse(phone, "US") for phone in sample]
        assert all(phonenumbers.is_valid_number(number) for number in parsed)
        assert {phonenumbers.region_code_for_number(number) for number in parsed} == {"US"}

    def test_belong_to_nobody(self, tables: Tables) -> None:
        for name in ("brand_seeds", *PARTNERS):
            email = tables[name]["email"].str.strip().str.lower()
            email = email[email.str.contains(r"@\w", regex=True)]
            # RFC 2606 section 3 reserves the example domains; Gmail issues no underscore.
            assert email.str.fullmatch(r".*@\w+\.example\.(com|net|org)|.*_.*@gmail\.com").all()
            phone = tables[name]["phone"]
            phone = phone[(phone != "") & ~phone.str.fullmatch(DIGEST)]
            assert plain_phone(phone).str.fullmatch(r"\+1\d{3}555[23]\d{3}").all()

    @pytest.mark.parametrize(
        ("column", "normalise", "share"),
        [("email", plain_email, 0.957), ("phone", plain_phone, 0.94)],
    )
    def test_spellings_of_one_person_meet(
        self, tables: Tables, customers: Tables, column: str, normalise: Normalise, share: float
    ) -> None:
        seeds = digested(tables["brand_seeds"][column], normalise)
        held = pd.concat(customers.values())
        held = held.assign(digest=digested(held[column], normalise))
        assert seeds.is_unique
        assert not held["digest"][held["digest"] != ""].duplicated().any()
        met = held[held["digest"].isin(seeds)]
        assert (met["label"] == "1").all()
        assert len(met) / len(seeds) == pytest.approx(share, abs=0.01)

    def test_the_projects_own_normalisation_finds_the_same_people(
        self, tables: Tables, customers: Tables
    ) -> None:
        identifiers = pytest.importorskip("privacy.identifiers")
        recipe = identifiers.Recipe(
            default_region="US", email_rule=identifiers.EmailRule.PROVIDER_RULES
        )
        held = pd.concat(customers.values())
        for kind, normalise in (("email", plain_email), ("phone", plain_phone)):
            seeds, partners = tables["brand_seeds"][kind], held[kind]
            plain = digested(partners, normalise).isin(digested(seeds, normalise)).to_numpy()
            ours, theirs = (
                identifiers.hash_column(values.tolist(), identifiers.IdentifierKind(kind), recipe)
                for values in (seeds, partners)
            )
            assert ours.present.all()
            assert ours.already_hashed == seeds.str.fullmatch(DIGEST).sum()
            known = {digest.tobytes() for digest in ours.digests}
            met = np.array([digest.tobytes() in known for digest in theirs.digests])
            same = np.array_equal(met & theirs.present, plain)
            assert same


class TestConsents:
    @pytest.mark.parametrize("name", ["brand", *PARTNERS])
    def test_events_are_of_known_records_purposes_and_words_in_order_of_time(
        self, tables: Tables, name: str
    ) -> None:
        events = tables[f"{name}_consents"]
        records = tables["brand_seeds" if name == "brand" else name]["record"]
        assert events["subject"].isin(records).all()
        assert set(events["purpose"]) == {LOOKALIKE, "newsletter"}
        assert set(events["event"]) == {"given", "refused", "withdrawn"}
        assert events["time"].str.fullmatch(r"202[45]-\d\d-\d\dT\d\d:\d\d:00Z").all()
        assert events["time"].is_monotonic_increasing
        assert not events.duplicated(["subject", "purpose", "time"]).any()

    @pytest.mark.parametrize(
        ("name", "lapsed"), [("brand", 0.03), ("retailer", 0.08), ("courier", 0.08)]
    )
    def test_the_promised_share_ends_without_consent_for_mixed_reasons(
        self, tables: Tables, name: str, lapsed: float
    ) -> None:
        events = tables[f"{name}_consents"]
        records = tables["brand_seeds" if name == "brand" else name]["record"]
        state = final_consent(events).reindex(records)
        newsletter = final_consent(events, "newsletter").reindex(records)
        assert (state != "given").mean() == pytest.approx(lapsed, abs=0.005)
        reasons = {
            "refused": state == "refused",
            "withdrawn": state == "withdrawn",
            "other purpose": state.isna() & newsletter.notna(),
            "no record": ~records.isin(events["subject"]),
        }
        for reason, found in reasons.items():
            assert found.mean() > lapsed / 10, reason

    @pytest.mark.parametrize("name", ["brand", *PARTNERS])
    def test_most_give_once_and_some_withdraw_and_return(self, tables: Tables, name: str) -> None:
        events = tables[f"{name}_consents"]
        events = events[events["purpose"] == LOOKALIKE]
        shares = events.groupby("subject")["event"].agg(" ".join).value_counts(normalize=True)
        assert shares["given"] > 0.8
        assert 0.03 < shares["given withdrawn given"] < 0.1


class TestFeatureTerms:
    def test_describe_exactly_the_features_in_order(self, terms: Terms) -> None:
        assert tuple(terms) == FEATURES

    def test_cover_every_value_held(self, terms: Terms, tables: Tables) -> None:
        for name in PARTNERS:
            for feature, term in terms.items():
                values = tables[name][feature]
                values = values[values != ""]
                if term["type"] == "numeric":
                    assert values.astype(float).between(term["minimum"], term["maximum"]).all()
                else:
                    assert set(values) <= set(term["categories"])

    def test_spread_skewed_amounts_by_logarithm_and_mark_race_as_sensitive(
        self, terms: Terms
    ) -> None:
        skewed = {name for name, term in terms.items() if term.get("scale") == "log"}
        assert skewed == {"capital-gain", "capital-loss"}
        sensitive = {n for n, term in terms.items() if term.get("classification") == "sensitive"}
        assert sensitive == {"race"}

    def test_list_categories_sorted(self, terms: Terms) -> None:
        for term in terms.values():
            assert term.get("categories", []) == sorted(set(term.get("categories", [])))
