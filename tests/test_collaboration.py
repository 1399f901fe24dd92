"""The collaboration file: every mistake at once, each with key, what was found, what is allowed."""

import copy
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from parties import table
from trials import Document, document, party, save, training, write_tables

from federation.collaboration import drafted_agreement, load_collaboration
from federation.errors import CollaborationError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tables")
    write_tables(directory)
    return directory


def mistakes(content: Document, tables: Path) -> tuple[str, ...]:
    """The lines that a file gets; none if it is accepted."""
    try:
        load_collaboration(save(content, tables / "tried.toml"))
    except CollaborationError as error:
        return error.mistakes
    return ()


def changed(change: Callable[[Document], object]) -> Document:
    content = document()
    change(content)
    return content


def put(*place: str | int, value: Any) -> Callable[[Document], None]:
    """A change that sets one value."""

    def change(content: Any) -> None:
        for part in place[:-1]:
            content = content[part]
        content[place[-1]] = value

    return change


def drop(*place: str | int) -> Callable[[Document], None]:
    """A change that leaves one key out."""

    def change(content: Any) -> None:
        for part in place[:-1]:
            content = content[part]
        del content[place[-1]]

    return change


class TestAccepted:
    def test_the_example(self) -> None:
        file = ROOT / "examples" / "lookalike" / "collaboration.toml"
        found = load_collaboration(file)
        assert [party.name for party in found.parties] == [
            "brand",
            "retailer",
            "courier",
            "coordinator",
        ]
        assert [spec.kind for spec in found.jobs] == ["match", "train", "expand"]

    def test_what_optional_keys_are_left_out(self, tables: Path) -> None:
        content = document()
        for key in ("jobs", "evaluate", "unsafe_seed"):
            del content[key]
        assert mistakes(content, tables) == ()

    def test_paths_are_taken_from_the_files_directory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        home = tmp_path / "with a space" / "and one more"
        write_tables(home)
        save(document(), home / "trial.toml")
        monkeypatch.chdir(tmp_path)
        assert load_collaboration(Path("with a space/and one more/trial.toml")).name == "trial"

    @pytest.mark.parametrize("kind", ["parquet", "sqlite", "byte order mark"])
    def test_tables_of_every_kind(self, kind: str, tables: Path) -> None:
        rows, content = table("retailer"), document()
        data = party(content, "retailer")["data"]
        if kind == "parquet":
            rows.to_parquet(tables / "retailer.parquet")
            data["path"] = "retailer.parquet"
        elif kind == "sqlite":
            with sqlite3.connect(tables / "people.db") as database:
                rows.to_sql("customers", database, if_exists="replace", index=False)
            del data["path"]
            data |= {"url": "sqlite:///people.db", "table": "customers"}
        else:
            rows.to_csv(tables / "marked.csv", index=False, encoding="utf-8-sig")
            data["path"] = "marked.csv"
        assert mistakes(content, tables) == ()

    def test_a_file_with_a_byte_order_mark(self, tables: Path) -> None:
        file = save(document(), tables / "marked.toml")
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
        assert load_collaboration(file).name == "trial"

    def test_columns_called_otherwise(self, tables: Path) -> None:
        table("retailer").rename(columns={"age": "Alter"}).to_csv(
            tables / "german.csv", index=False
        )
        content = document()
        party(content, "retailer")["data"] |= {"path": "german.csv", "features": {"age": "Alter"}}
        assert mistakes(content, tables) == ()

    def test_several_columns_of_a_kind_and_a_composite_key(self, tables: Path) -> None:
        content = document()
        with_person(content, number="phone", born="age")
        identifiers = party(content, "retailer")["data"]["identifiers"]
        identifiers["email"] = ["email", "record"]
        assert mistakes(content, tables) == ()
        draft = drafted_agreement(load_collaboration(save(content, tables / "trial.toml")))
        assert draft.dataset("retailer").identifiers == ("email", "phone", "person")
        assert draft.dataset("retailer").identifiers_per_person == 4
        assert draft.dataset("courier").identifiers_per_person == 2

    def test_a_draft_says_the_same_every_time_and_is_nobodys(self, tables: Path) -> None:
        found = load_collaboration(save(document(), tables / "trial.toml"))
        draft = drafted_agreement(found)
        assert draft == drafted_agreement(found)
        assert draft.dataset("retailer").declared_rows == 50
        assert draft.budget.epsilon == 1.2


def with_person(content: Document, **columns: str) -> Document:
    """Have people matched by a composite key too, which the retailer brings; return the terms."""
    terms = content["agreement"]["match"]
    fields = [{"name": "number", "rule": "phone"}, {"name": "born", "rule": "digits"}]
    terms["composites"] = [{"name": "person", "fields": fields}]
    terms["keys"] = ["person", "email", "phone"]
    party(content, "retailer")["data"]["identifiers"]["person"] = columns
    return terms


A_NAME = "up to 63 lower-case letters, digits and hyphens, a letter first"
COLUMNS = "name a column, a list of columns, or a table of a composite key's fields"
RETAILER = "5 columns, none spelt alike"
ONE_MISTAKE: dict[str, tuple[Callable[[Document], None], str]] = {
    "missing key": (drop("version"), "version: is missing; add it: 1"),
    "missing table": (
        drop("agreement", "match"),
        "agreement.match: is missing; add it: a table",
    ),
    "misspelt key": (
        put("evalute", value=1),
        "evalute: is not a known key; did you mean 'evaluate'?",
    ),
    "unknown key": (
        put("agreement", "budget", "zzz", value=1),
        "agreement.budget.zzz: is not a known key; allowed: 'epsilon', 'delta' or 'period'",
    ),
    "unknown key of a training": (
        put("jobs", 1, "epsilom", value=1),
        "jobs[1].epsilom: is not a known key; did you mean 'epsilon'?",
    ),
    "unknown key of an expansion": (
        put("jobs", 2, "shares", value=1),
        "jobs[2].shares: is not a known key; did you mean 'share'?",
    ),
    "unknown version": (put("version", value=2), "version: found 2; allowed: 1"),
    "name": (put("name", value="My Trial"), f"name: found 'My Trial'; allowed: {A_NAME}"),
    "job name": (
        put("jobs", 2, "name", value="Best!"),
        "jobs[2].name: found 'Best!'; allowed: up to 32 lower-case letters, digits and hyphens, a letter first",
    ),
    "role": (
        put("parties", 3, "role", value="operator"),
        "parties[3].role: found 'operator'; allowed: 'brand', 'partner', 'coordinator' or 'auditor'",
    ),
    "number for text": (
        put("agreement", "title", value=3),
        "agreement.title: found 3; allowed: one line of 1 to 200 visible characters",
    ),
    "text for a number": (
        put("parties", 0, "declared_rows", value="50"),
        "parties[0].declared_rows: found '50'; allowed: a whole number, at least 1",
    ),
    "truth for a number": (
        put("jobs", 1, "epsilon", value=True),
        "jobs[1].epsilon: found true; allowed: a number, above 0",
    ),
    "table for a list": (
        put("parties", value={}),
        "parties: found an empty table; allowed: a list, at most 128 in it",
    ),
    "list for a table": (
        put("agreement", "train", value=[1]),
        "agreement.train: found a list; allowed: a table",
    ),
    "below its range": (
        put("jobs", 1, "steps", value=1),
        "jobs[1].steps: found 1; allowed: a whole number from 2 to 100,000",
    ),
    "above its range": (
        put("jobs", 2, "share", value=1.5),
        "jobs[2].share: found 1.5; allowed: a number, above 0 and at most 1",
    ),
    "fraction for a whole number": (
        put("jobs", 1, "rounds", value=1.5),
        "jobs[1].rounds: found 1.5; allowed: a whole number from 1 to 1,000",
    ),
    "no number": (
        put("agreement", "budget", "delta", value=float("nan")),
        "agreement.budget.delta: found nan; allowed: a number, above 0 and below 1",
    ),
    "huge number": (
        put("parties", 0, "declared_rows", value=10**20),
        f"parties[0].declared_rows: found {10**20}; allowed: a whole number, at least 1",
    ),
    "negative seed": (
        put("unsafe_seed", value=-1),
        "unsafe_seed: found -1; allowed: a whole number, at least 0",
    ),
    "word": (
        put("agreement", "match", "reveal", value="everybody"),
        "agreement.match.reveal: found 'everybody'; allowed: 'partner-learns-members', 'brand-learns-members', 'both-learn-members' or 'size-only'",
    ),
    "date without zone": (
        put("agreement", "valid_until", value="2035-01-01T00:00:00"),
        "agreement.valid_until: found '2035-01-01T00:00:00'; allowed: a date and time with its time zone, such as 2026-01-31T00:00:00Z",
    ),
    "dates in the wrong order": (
        put("agreement", "valid_until", value="2019-01-01T00:00:00Z"),
        "agreement.valid_until: 2019-01-01T00:00:00Z is not after 2020-01-01T00:00:00Z",
    ),
    "kind of job": (
        put("jobs", 0, "kind", value="macth"),
        (
            "jobs[0].kind: found 'macth'; allowed: 'align', 'expand', 'match', 'measure', "
            "'score-vertical', 'train' or 'train-vertical'"
        ),
    ),
    "no kind of job": (
        drop("jobs", 0, "kind"),
        (
            "jobs[0].kind: is missing; add it: 'align', 'expand', 'match', 'measure', "
            "'score-vertical', 'train' or 'train-vertical'"
        ),
    ),
    "kind of identifier": (
        put("parties", 0, "data", "identifiers", value={"emial": "email"}),
        "parties[0].data.identifiers.emial: is none of agreement.match.keys; allowed: 'email' or 'phone'",
    ),
    "no column of an identifier": (
        put("parties", 1, "data", "identifiers", "phone", value=7),
        f"parties[1].data.identifiers.phone: {COLUMNS}",
    ),
    "no columns of an identifier": (
        put("parties", 1, "data", "identifiers", "phone", value=[]),
        f"parties[1].data.identifiers.phone: {COLUMNS}",
    ),
    "columns in columns": (
        put("parties", 1, "data", "identifiers", "phone", value=[["phone"]]),
        f"parties[1].data.identifiers.phone: {COLUMNS}",
    ),
    "no field of a composite key": (
        put("parties", 1, "data", "identifiers", "phone", value={}),
        f"parties[1].data.identifiers.phone: {COLUMNS}",
    ),
    "a field that is no name": (
        put("parties", 1, "data", "identifiers", "phone", value={"Born on": "age"}),
        f"parties[1].data.identifiers.phone: {COLUMNS}",
    ),
    "no identifier column among several": (
        put("parties", 1, "data", "identifiers", "phone", value=["phone", "mobile"]),
        f"parties[1].data.identifiers.phone[1]: there is no column 'mobile'; the table has {RETAILER}",
    ),
    "no column of a field": (
        lambda content: with_person(content, number="phone", born="birthday"),
        f"parties[1].data.identifiers.person.born: there is no column 'birthday'; the table has {RETAILER}",
    ),
    "a composite key of other parties": (
        lambda content: with_person(content, number="phone", born="age").pop("composites"),
        "agreement.match: key 'person' is none of 'email', 'phone', 'advertising_id', 'member_id': describe it in composites",
    ),
    "a size without noise": (
        lambda content: content["agreement"]["match"].update(reveal="size-only", keys=["email"]),
        "agreement.match: reveal 'size-only' needs a size_epsilon: sizes leave with noise",
    ),
    "no identifier": (
        put("parties", 0, "data", "identifiers", value={}),
        "parties[0].data.identifiers: found an empty table; allowed: a table, at least 1 in it",
    ),
    "two sources": (
        put("parties", 1, "data", "url", value="sqlite:///x.db"),
        "parties[1].data: give either path, or url and table, or the url of objects alone",
    ),
    "job before the one that it builds on": (
        lambda content: content["jobs"].reverse(),
        "jobs[0].train: found 'model', which is no train job listed before; list a train job before it",
    ),
    "job built on one of another kind": (
        put("jobs", 2, "train", value="find"),
        "jobs[2].train: found 'find', which is no train job listed before; allowed: 'model'",
    ),
    "job built on nothing": (
        put("jobs", 1, "match", value="fnd"),
        "jobs[1].match: found 'fnd', which is no match job listed before; allowed: 'find'",
    ),
    "two jobs of a name": (
        lambda content: content["jobs"].append({"kind": "match", "name": "find"}),
        "jobs[3].name: 'find' is taken by an earlier job",
    ),
    "two parties of a name": (
        put("parties", 2, "name", value="retailer"),
        "parties[2].name: 'retailer' is taken by an earlier party",
    ),
    "no coordinator": (
        put("parties", 3, "role", value="auditor"),
        "parties: expected exactly one coordinator, got none",
    ),
    "a partner without people": (
        drop("parties", 1, "data"),
        "parties[1].data: is missing; add it: a partner brings its people",
    ),
    "a partner without consents": (
        drop("parties", 1, "consent"),
        "parties[1].consent: is missing; add it: a partner brings its people",
    ),
    "an operator with people": (
        put("parties", 3, "declared_rows", value=5),
        "parties[3].declared_rows: a coordinator brings no people; remove it",
    ),
    "seeds at a partner": (
        put("parties", 1, "data", "seeds", value={"column": "colour", "equals": "red"}),
        "parties[1].data.seeds: only the brand has seeds; remove it",
    ),
    "a column for no feature": (
        put("parties", 1, "data", "features", value={"agee": "age"}),
        "parties[1].data.features.agee: is none of agreement.features; allowed: 'age' or 'colour'",
    ),
    "purpose that is not declared": (
        put("agreement", "expand", "purpose", value="profit"),
        "agreement.expand.purpose: 'profit' is not among the purposes",
    ),
    "purpose declared twice": (
        put("agreement", "purposes", value=["lookalike-audiences"] * 2),
        "agreement.purposes: expected each entry once, got again: lookalike-audiences",
    ),
    "feature without bounds": (
        drop("agreement", "features", 0, "maximum"),
        "agreement.features[0]: numeric 'age' needs a minimum and a maximum",
    ),
    "one category": (
        put("agreement", "features", 1, "categories", value=["red"]),
        "agreement.features[1]: categorical 'colour' needs at least two categories",
    ),
    "training beyond its own budget": (
        put("agreement", "train", "epsilon", value=2.0),
        "agreement.train.epsilon: 2.0 passes the budget's epsilon, 1.2",
    ),
    "job beyond the contract": (
        put("jobs", 1, "epsilon", value=1.1),
        "jobs[1].epsilon: job 'model' asks for 1.1: ask for at most 1 (agreement.train.epsilon)",
    ),
    "share beyond the contract": (
        put("jobs", 2, "share", value=0.6),
        "jobs[2].share: job 'best' asks for a share of 0.6: ask for at most 0.5 (agreement.expand.maximum_share)",
    ),
    "uneven rounds": (
        put("jobs", 1, "rounds", value=3),
        "jobs[1].rounds: job 'model': 40 steps cannot be divided into 3 equal rounds: choose a multiple (agreement.train.max_rounds)",
    ),
    "no table": (
        put("parties", 1, "data", "path", value="shop.csv"),
        "parties[1].data: {tables}/shop.csv does not exist: correct the path of the source",
    ),
    "a table of no known kind": (
        put("parties", 1, "data", "path", value="shop.xlsx"),
        "parties[1].data: {tables}/shop.xlsx: expected a name ending in .csv, .csv.gz, .parquet or .pq; rename or convert the file",
    ),
    "no consents": (
        put("parties", 2, "consent", value="nope.csv"),
        "parties[2].consent: there is no file {tables}/nope.csv: name the CSV or Parquet file of the party's consent events",
    ),
    "no key column": (
        put("parties", 1, "data", "key", value="customer"),
        f"parties[1].data.key: there is no column 'customer'; the table has {RETAILER}",
    ),
    "a misspelt identifier column": (
        put("parties", 1, "data", "identifiers", "phone", value="phnoe"),
        "parties[1].data.identifiers.phone: there is no column 'phnoe'; the table has 5 columns, among them 'phone'",
    ),
    "no identifier column": (
        put("parties", 1, "data", "identifiers", "phone", value="mobile"),
        f"parties[1].data.identifiers.phone: there is no column 'mobile'; the table has {RETAILER}",
    ),
    "no feature column": (
        put("agreement", "features", 0, "name", value="years"),
        f"parties[1].data.features: there is no column for the agreed 'years'; name the column of each, or bring it; the table has {RETAILER}",
    ),
    "no column called otherwise": (
        put("parties", 1, "data", "features", value={"age": "years"}),
        f"parties[1].data.features.age: there is no column 'years'; the table has {RETAILER}",
    ),
    "no seed column": (
        put("parties", 0, "data", "seeds", value={"column": "tier", "equals": "gold"}),
        "parties[0].data.seeds.column: there is no column 'tier'; the table has 3 columns, none spelt alike",
    ),
    "no truth": (
        put("evaluate", "path", value="lies.csv"),
        "evaluate.path: {tables}/lies.csv does not exist: correct the path of the source",
    ),
    "no label": (
        put("evaluate", "label", value="rich"),
        "evaluate.label: there is no column 'rich'; the table has 3 columns, none spelt alike: has the file a header line?",
    ),
}


@pytest.mark.parametrize("name", ONE_MISTAKE)
def test_a_mistake_is_told_with_its_key_what_was_found_and_what_is_allowed(
    name: str, tables: Path
) -> None:
    change, line = ONE_MISTAKE[name]
    assert line.format(tables=tables) in mistakes(changed(change), tables)


def test_every_mistake_is_told_at_once(tables: Path) -> None:
    content = document(version=3, colour="blue")
    party(content, "brand")["role"] = "bran"
    party(content, "retailer")["data"]["key"] = "customer"
    party(content, "retailer")["declared_row"] = 7
    party(content, "courier")["consent"] = "nope.csv"
    party(content, "coordinator")["name"] = "Coordinator"
    content["agreement"]["match"]["minimum_match"] = 0
    content["agreement"]["features"][1]["categories"] = []
    content["jobs"][1] |= {"epsilon": "much", "match": "fnd"}
    content["evaluate"]["label"] = "rich"
    keys = {line.split(": ")[0] for line in mistakes(content, tables)}
    assert keys == {
        "version",
        "colour",
        "parties[0].role",
        "parties[1].data.key",
        "parties[1].declared_row",
        "parties[2].consent",
        "parties[3].name",
        "agreement.match.minimum_match",
        "agreement.features[1]",
        "jobs[1].epsilon",
        "jobs[1].match",
        "evaluate.label",
    }


def test_a_mistake_has_no_mistakes_of_its_own_in_its_wake(tables: Path) -> None:
    alone = {
        "no kind of job",
        "kind of job",
        "kind of identifier",
        "no column of an identifier",
        "no column of a field",
        "two parties of a name",
        "a partner without people",
        "an operator with people",
        "no table",
        "misspelt key",
    }
    for name in alone:
        change, line = ONE_MISTAKE[name]
        assert mistakes(changed(change), tables) == (line.format(tables=tables),)


def leaves(value: Any, *place: str | int) -> Iterator[tuple[str | int, ...]]:
    """Places of everything in a document."""
    if place:
        yield place
    inside = {dict: dict.items, list: enumerate}.get(type(value), lambda _: ())
    for key, one in inside(value):
        yield from leaves(one, *place, key)


JARGON = re.compile(r"input should|valid (string|integer|number|tuple|dict)|dict\b|tuple|pydantic"
                    r"|None|Value error|unable to|<|\\\\")  # fmt: skip


@pytest.mark.parametrize(
    "wrong", [{}, [], "", -1, True, {"zzz": [1]}, 1e400, "ÄÖÜ\u202e"], ids=repr
)
def test_whatever_stands_anywhere_is_accepted_or_told_in_plain_words(
    wrong: Any, tables: Path
) -> None:
    told = 0
    for place in leaves(document()):
        content = changed(put(*place, value=copy.deepcopy(wrong)))
        lines = mistakes(content, tables)
        told += bool(lines)
        assert not [line for line in lines if JARGON.search(line.partition("found")[0])]
        assert not [line for line in lines if re.search(r"[.;]$|\n", line)]
        assert all(re.match(r"(the file|[a-z_]+[][.a-z0-9_]*): ", line) for line in lines)
    assert told > 50


def test_every_key_that_is_left_out_is_missed_or_has_a_default(tables: Path) -> None:
    optional = set()
    for place in leaves(document()):
        if isinstance(place[-1], str) and not mistakes(changed(drop(*place)), tables):
            optional.add(place[-1])
    by_itself = {"unsafe_seed", "jobs", "evaluate", "models", "rounds", "sampling_probability"}
    assert optional == by_itself | {"email", "phone", "fairness_groups"}


def test_the_error_names_the_file_and_lists_all(tables: Path) -> None:
    file = save(document(version=2, name="X"), tables / "two.toml")
    with pytest.raises(CollaborationError) as caught:
        load_collaboration(file)
    head, *lines = str(caught.value).splitlines()
    assert head == f"{file}: 2 mistakes"
    assert lines == [f"  {line}" for line in caught.value.mistakes]


class TestUnreadable:
    def told(self, file: Path) -> str:
        with pytest.raises(CollaborationError) as caught:
            load_collaboration(file)
        (line,) = caught.value.mistakes
        return line

    def test_no_file(self, tmp_path: Path) -> None:
        assert self.told(tmp_path / "nope.toml") == "there is no such file"

    def test_a_directory(self, tmp_path: Path) -> None:
        assert self.told(tmp_path) == "cannot be read: Is a directory"

    def test_no_toml(self, tmp_path: Path) -> None:
        (tmp_path / "a.toml").write_text("version = 1\nname = = 2\n")
        assert re.match(r"is not TOML: .*line 2", self.told(tmp_path / "a.toml"))

    @pytest.mark.parametrize(("encoding", "line"), [("latin-1", 2), ("utf-16", 1)])
    def test_another_encoding(self, encoding: str, line: int, tmp_path: Path) -> None:
        (tmp_path / "a.toml").write_bytes('version = 1\nname = "Öl"\n'.encode(encoding))
        assert self.told(tmp_path / "a.toml") == (
            f"line {line} is not UTF-8: save the file in that encoding"
        )

    def test_an_empty_file_lacks_every_required_table(self, tmp_path: Path) -> None:
        (tmp_path / "a.toml").write_text("")
        with pytest.raises(CollaborationError) as caught:
            load_collaboration(tmp_path / "a.toml")
        assert [line.split(":")[0] for line in caught.value.mistakes] == [
            "version",
            "name",
            "parties",
            "agreement",
        ]


class TestSources:
    def test_damaged_and_foreign_files_are_told_from_each_other(self, tables: Path) -> None:
        (tables / "empty.csv").write_text("")
        (tables / "fake.parquet").write_text("hello")
        table("retailer").to_csv(tables / "wide.csv", index=False, encoding="utf-16")
        (tables / "folder.csv").mkdir(exist_ok=True)
        for name, told in {
            "empty.csv": "expected CSV in UTF-8",
            "wide.csv": "expected CSV in UTF-8",
            "fake.parquet": "expected one whole Parquet file",
            "folder.csv": "expected CSV in UTF-8",
        }.items():
            (line,) = mistakes(changed(put("parties", 1, "data", "path", value=name)), tables)
            assert line.startswith(f"parties[1].data: {tables / name} cannot be ")
            assert told in line

    def test_a_database_without_the_table_and_its_password_is_not_told(self, tables: Path) -> None:
        sqlite3.connect(tables / "bare.db").close()
        content = document()
        data = party(content, "retailer")["data"]
        del data["path"]
        data |= {"url": "sqlite:///bare.db", "table": "customers"}
        (line,) = mistakes(content, tables)
        assert line.startswith("parties[1].data: ")
        assert "customers" in line
        data["url"] = "postgresql://ann:s3cret@127.0.0.1:1/crm"
        (line,) = mistakes(content, tables)
        assert "s3cret" not in line

    def test_fields_apart_by_semicolons(self, tables: Path) -> None:
        table("retailer").to_csv(tables / "semicolons.csv", index=False, sep=";")
        lines = mistakes(changed(put("parties", 1, "data", "path", value="semicolons.csv")), tables)
        assert lines
        assert all("the table has 1 column, none spelt alike: has the file" in x for x in lines)

    def test_a_column_in_another_spelling(self, tables: Path) -> None:
        table("retailer").rename(columns={"age": "Age"}).to_csv(tables / "big.csv", index=False)
        (line,) = mistakes(changed(put("parties", 1, "data", "path", value="big.csv")), tables)
        assert line.endswith("; the table has 5 columns, among them 'Age'")

    def test_of_a_file_without_a_header_line_nothing_is_told(self, tables: Path) -> None:
        people = table("retailer")
        people.to_csv(tables / "bare.csv", index=False, header=False)
        lines = mistakes(changed(put("parties", 1, "data", "path", value="bare.csv")), tables)
        told = "\n".join(lines)
        assert len(lines) == 4
        assert told.count("has the file a header line?") == 4
        values = [str(value) for value in people.iloc[0] if len(str(value)) > 2]
        assert len(values) >= 3
        assert not [value for value in values if value in told]
        content = changed(put("evaluate", "path", value="bare.csv"))
        assert not [value for value in values if value in "\n".join(mistakes(content, tables))]

    def test_no_value_is_told(self, tables: Path) -> None:
        """Neither a person nor a feature value stands in any line about a table."""
        rows = pd.concat([table("retailer"), pd.DataFrame({"record": ["x"]})])
        rows.to_csv(tables / "short.csv", index=False)
        text = (tables / "short.csv").read_text().rstrip("\n") + ",more,and more\n"
        (tables / "short.csv").write_text(text)
        content = changed(put("parties", 1, "data", "path", value="short.csv"))
        assert not any("gmx" in line for line in mistakes(content, tables))


def test_two_trainings_and_two_expansions_may_build_on_each_other_in_order(tables: Path) -> None:
    content = document()
    content["jobs"] += [
        training("again", epsilon=0.1),
        {"kind": "expand", "name": "more", "train": "again", "share": 0.1},
    ]
    assert mistakes(content, tables) == ()
