"""Who may be used: read from tables of a few people, against a slow way of deciding."""

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from parties import NOW, PURPOSE, Parties

from compliance.consent import ConsentBook, ConsentEvent, ConsentEventKind
from compliance.errors import InvalidAgreementError
from compliance.terms import IdentifierKind
from connectors import MissingColumnError, SourceNotFoundError, fingerprints
from federation.consent_reading import ConsentReading
from federation.errors import WorkspaceError
from federation.matching.token_set import TokenBatch
from federation.party import DataConfig, SeedRule
from federation.population import (
    Population,
    Use,
    encoder_for,
    open_source,
    read_population,
    recipe_for,
    schema_for,
    tokens_allowed,
)
from federation.population.persons import persons_of
from federation.shelves import scratch
from privacy.identifiers import IdentifierKind as Kind
from privacy.identifiers import hash_column, psi_tokens

AGREEMENT = Parties.in_memory().agreement
WHOLE = DataConfig(
    path=Path("people.csv"),
    key="record",
    identifiers={IdentifierKind.EMAIL: "email", IdentifierKind.PHONE: "phone"},
)
SEEDS = WHOLE.model_copy(update={"seeds": SeedRule(column="bought", equals="yes")})
COLUMNS = ("record", "email", "phone", "age", "colour", "bought")
Row = tuple[str, ...]
GIVEN, REFUSED, WITHDRAWN = map(ConsentEventKind, ("given", "refused", "withdrawn"))


@pytest.fixture(scope="module", autouse=True)
def few_rows_at_once() -> Iterator[None]:
    """As with many people: they are read in several parts, and decided about apart."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("federation.shelves._TOGETHER", 2)
        yield


@dataclass(frozen=True)
class Rows:
    """A table in memory; it can be read, which is all that is asked of it here."""

    frame: pd.DataFrame
    name: str = "rows"
    most: int = 2  # in a batch, so that people are linked across batches

    def columns(self) -> tuple[str, ...]:
        return tuple(self.frame.columns)

    def scan(self, columns: Sequence[str], *, batch_rows: int = 65_536) -> Any:
        missing = [column for column in columns if column not in self.frame.columns]
        if missing:
            raise MissingColumnError(self.name, expected=columns, found=self.columns())
        fields = [pa.field(column, pa.string()) for column in columns]
        table = pa.Table.from_pandas(
            self.frame[list(columns)], schema=pa.schema(fields), preserve_index=False
        )
        return iter(table.to_batches(max_chunksize=min(self.most, batch_rows)))

    def count(self) -> int:
        return len(self.frame)

    def delete(self, key_column: str, keys: Any) -> int:
        raise NotImplementedError


def rows(*people: Sequence[str]) -> Rows:
    """Rows of record, email, phone, age, colour, bought; what is left out is filled in."""
    filled = [tuple(person) + ("", "", "", "30", "red", "yes")[len(person) :] for person in people]
    return Rows(pd.DataFrame(filled, columns=list(COLUMNS), dtype=str))


def book(*events: tuple[str, ConsentEventKind, str]) -> ConsentBook:
    made = [
        ConsentEvent(subject, PURPOSE, kind, datetime.fromisoformat(time).replace(tzinfo=UTC))
        for subject, kind, time in events
    ]
    return ConsentBook.empty(purposes=AGREEMENT.purposes).append(made)


def consenting(*subjects: str, withdrawn: Sequence[str] = ()) -> ConsentBook:
    given_ = [(subject, GIVEN, "2025-01-01") for subject in {*subjects, *withdrawn}]
    return book(*given_, *[(subject, WITHDRAWN, "2026-01-01") for subject in withdrawn])


def read(
    table: Any,
    consent: ConsentBook,
    *,
    data: DataConfig = WHOLE,
    agreement: Any = AGREEMENT,
    at: datetime = NOW,
    purpose: str = PURPOSE,
    **use: Any,
) -> Population:
    """Read the people, and their tokens into memory."""
    with scratch(Path(tempfile.mkdtemp()) / "reading") as beside:
        file = beside.with_name("consents.parquet")
        consent.save(file)
        population = read_population(
            table,
            data,
            agreement,
            ConsentReading(file, agreement.purposes),
            Use(purpose, at, **use),
            scratch=beside,
        )
        nothing = TokenBatch(np.zeros((0, 33), np.uint8), *np.zeros((2, 0), np.int64))
        parts = zip(*(nothing, *population.tokens), strict=True)
        return replace(population, tokens=TokenBatch(*map(np.concatenate, parts)))


def excluded(population: Population) -> dict[str, int]:
    found = dict(population.used.excluded)
    assert sum(found.values()) + len(population.keys) == population.used.rows
    assert population.used.keys.count == len(population.keys)
    assert population.used.purpose == PURPOSE
    return found


# --- consent ---------------------------------------------------------------------------------


def test_people_are_used_who_consent_now() -> None:
    table = rows(["a", "a@gmx.net"], ["b", "b@gmx.net"], ["c", "c@gmx.net"], ["d", "d@gmx.net"])
    consent = book(
        ("a", GIVEN, "2025-01-01"),
        ("b", GIVEN, "2025-01-01"),
        ("b", WITHDRAWN, "2025-06-01"),
        ("c", REFUSED, "2025-01-01"),
    )
    population = read(table, consent)
    assert population.keys.tolist() == ["a"]
    assert excluded(population) == {"withdrawn": 1, "refused": 1, "no_record": 1}


def test_what_is_said_later_does_not_count_yet() -> None:
    table = rows(["a", "a@gmx.net"])
    consent = consenting("a", withdrawn=["a"])
    before = datetime(2025, 6, 1, tzinfo=UTC)
    assert read(table, consent, at=before).keys.tolist() == ["a"]
    assert read(table, consent).keys.tolist() == []


def test_consent_to_another_purpose_is_none() -> None:
    population = read(rows(["a", "a@gmx.net"]), consenting("a"), purpose="newsletter")
    assert population.keys.tolist() == []
    assert dict(population.used.excluded) == {"wrong_purpose": 1}


def test_no_under_one_record_is_no_under_all_that_share_an_identifier() -> None:
    table = rows(
        ["a", "anna@gmail.com", "+12127365001"],
        ["b", "An.Na+shop@googlemail.com", ""],
        ["c", "", "(212) 736-5001"],
        ["d", "dora@gmx.net", "+12127365002"],
    )
    population = read(table, consenting("b", "c", "d", withdrawn=["a"]))
    assert population.keys.tolist() == ["d"]
    assert excluded(population) == {"withdrawn": 1, "no_under_another_record": 2}


def test_no_reaches_over_a_chain_of_records() -> None:
    table = rows(
        ["a", "", "+12127365001"],
        ["b", "b@gmx.net", "+12127365001"],
        ["c", "b@gmx.net", "+12127365002"],
        ["d", "d@gmx.net", "+12127365002"],
    )
    population = read(table, consenting("a", "b", "c", withdrawn=["d"]))
    assert population.keys.tolist() == []
    assert excluded(population) == {"withdrawn": 1, "no_under_another_record": 3}


@pytest.mark.parametrize("people", [[], [["a", "a@gmx.net", "+12127365001"], ["b"]]])
def test_nobody_may_be_left(people: list[list[str]]) -> None:
    population = read(rows(*people), consenting("z"), with_features=True)
    assert population.keys.shape == (0,)
    assert [part.shape for part in population.tokens] == [(0, 33), (0,), (0,)]
    assert encoder_for(AGREEMENT).encode(population.features).shape == (0, 4)
    assert excluded(population) == ({"no_record": 2} if people else {})


def test_everyone_may_have_withdrawn() -> None:
    everyone = ["a", "b", "c"]
    table = rows(*[[name, f"{name}@gmx.net"] for name in everyone])
    population = read(table, consenting(withdrawn=everyone))
    assert population.keys.tolist() == []
    assert excluded(population) == {"withdrawn": 3}


# --- one row a person --------------------------------------------------------------------------


def test_the_first_row_of_a_person_is_used() -> None:
    table = rows(
        ["a", "a@gmx.net", "+12127365001"],
        ["a", "other@gmx.net", ""],
        ["b", "A@GMX.NET", ""],
        ["c", "", "212-736-5001"],
        ["d", "d@gmx.net", ""],
    )
    population = read(table, consenting("a", "b", "c", "d"))
    assert population.keys.tolist() == ["a", "d"]
    assert excluded(population) == {"duplicate_person": 3}


def test_people_without_identifiers_are_nobodys_duplicates() -> None:
    table = rows(["a"], ["b"], ["c", "not an address", "123"])
    population = read(table, consenting("a", "b", "c"))
    assert population.keys.tolist() == ["a", "b", "c"]
    assert population.tokens.tokens.shape == (0, 33)
    assert excluded(population) == {}


def test_a_row_without_a_record_reference_is_never_used() -> None:
    table = rows(["", "x@gmx.net"], ["a", "a@gmx.net"], ["", "y@gmx.net"])
    population = read(table, consenting("a"))
    assert population.keys.tolist() == ["a"]
    assert excluded(population) == {"no_record": 2}


emails = st.sampled_from(["", "a@gmx.net", "A@gmx.net", "b@gmx.net", "c@gmx.net", "nonsense"])
phones = st.sampled_from(["", "+12127365001", "(212) 736-5001", "+12127365002", "+12127365003"])
records_ = st.sampled_from(["k1", "k2", "k3", "k4", "k5", "k6"])
seeds = st.sampled_from(["yes", "no"])
tables = st.lists(
    st.tuples(records_, emails, phones, st.just("30"), st.just("red"), seeds), max_size=9
)


def slowly(
    table: list[Row], said_no: set[str], *, seeds_only: bool = False
) -> tuple[list[int], Counter[str]]:
    """Decide who is used, one row and one link after the other."""
    recipe = recipe_for(AGREEMENT.match)

    def links(row: Row) -> set[object]:
        found: set[object] = {("key", row[0])}
        for kind, value in ((Kind.EMAIL, row[1]), (Kind.PHONE, row[2])):
            hashed = hash_column([value], kind, recipe)
            if hashed.present[0]:
                found.add((kind, hashed.digests[0].tobytes()))
        return found

    groups: list[tuple[set[int], set[object]]] = []
    for index, row in enumerate(table):
        mine, linked = {index}, links(row)
        for other in [group for group in groups if group[1] & linked]:
            groups.remove(other)
            mine, linked = mine | other[0], linked | other[1]
        groups.append((mine, linked))
    used: list[int] = []
    why: Counter[str] = Counter()
    for members, _ in groups:
        noes = {index for index in members if table[index][0] in said_no}
        asked = {index for index in members if not seeds_only or table[index][5] == "yes"}
        why["withdrawn"] += len(noes & asked)
        if noes:
            why["no_under_another_record"] += len(asked - noes)
        elif asked:
            used.append(min(asked))
            why["duplicate_person"] += len(asked) - 1
    return sorted(used), +why


@settings(max_examples=40)
@given(tables, st.sets(records_, max_size=3), st.booleans())
def test_rows_are_used_as_if_decided_one_by_one(
    table: list[Row], said_no: set[str], seeds_only: bool
) -> None:
    everyone = {"k1", "k2", "k3", "k4", "k5", "k6"}
    consent = consenting(*(everyone - said_no), withdrawn=sorted(said_no))
    assume(not seeds_only or any(row[5] == "yes" for row in table))
    population = read(rows(*table), consent, data=SEEDS if seeds_only else WHOLE)
    used, why = slowly(table, said_no, seeds_only=seeds_only)
    assert population.keys.tolist() == [table[index][0] for index in used]
    assert excluded(population) == why


@settings(max_examples=40)
@given(
    st.integers(1, 40).flatmap(
        lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))
    )
)
@example((40, [(row, row + 1) for row in range(39)]))
@example((40, [(row + 1, row) for row in reversed(range(39))]))
@example((5, [(0, 4), (1, 4), (2, 4), (3, 4)]))
def test_linked_rows_are_one_person_named_by_the_first(
    linked: tuple[int, list[tuple[int, int]]],
) -> None:
    count, pairs = linked
    person = list(range(count))
    for one, other in pairs:
        joined = {person[one], person[other]}
        person = [min(joined) if name in joined else name for name in person]
    found = persons_of(count, np.array(pairs, dtype=np.uint32).reshape(-1, 2))
    assert found.tolist() == person


@settings(max_examples=60)
@given(tables, st.sets(records_, max_size=3))
def test_every_token_is_its_persons_and_occurs_once(table: list[Row], said_no: set[str]) -> None:
    everyone = {"k1", "k2", "k3", "k4", "k5", "k6"}
    population = read(rows(*table), consenting(*(everyone - said_no)))
    recipe = recipe_for(AGREEMENT.match)
    used, _ = slowly(table, said_no)
    expected = set()
    for position, index in enumerate(used):
        for kind, value in ((Kind.EMAIL, table[index][1]), (Kind.PHONE, table[index][2])):
            hashed = hash_column([value], kind, recipe)
            if hashed.present[0]:
                token = psi_tokens(kind, hashed.digests)[0].tobytes()
                expected.add((position, token, AGREEMENT.match.keys.index(kind)))
    tokens, token_rows, ranks = population.tokens
    found = [
        (int(row), token.tobytes(), int(rank))
        for token, row, rank in zip(tokens, token_rows, ranks, strict=True)
    ]
    assert len({token for _, token, _ in found}) == len(found)
    assert set(found) == expected


@pytest.mark.parametrize(
    ("key", "firsts"), [("email", [("a", 0), ("c", 0)]), ("phone", [("c", 1)])]
)
def test_of_several_identifiers_of_a_person_the_first_of_a_key_can_be_brought(
    key: str, firsts: list[tuple[str, int]]
) -> None:
    table = rows(
        ["a", "a@gmx.net", "", "b@gmx.net"],
        ["c", "", "+12127365001", "c@gmx.net"],
        ["d", "", "", ""],
        ["e", "B@gmx.net", "+12127365002", ""],  # linked to the first by the second address
    )
    columns = {"email": ("email", "age"), "phone": "phone"}
    data = WHOLE.model_copy(update={"identifiers": columns})
    population = read(table, consenting("a", "c", "d", "e"), data=data, key=key)
    assert population.keys.tolist() == ["a", "c", "d"]
    tokens, token_rows, ranks = population.tokens
    brought = zip(population.keys[token_rows].tolist(), ranks.tolist(), strict=True)
    assert sorted(brought) == firsts
    if key == "email":
        expected = hash_column(["a@gmx.net", "c@gmx.net"], Kind.EMAIL, recipe_for(AGREEMENT.match))
        wanted = psi_tokens(Kind.EMAIL, expected.digests)
        assert {one.tobytes() for one in tokens} == {one.tobytes() for one in wanted}


PERSON = {
    "name": "person",
    "fields": [{"name": "number", "rule": "phone"}, {"name": "tint", "rule": "text"}],
}
WITH_PERSON = Parties.in_memory(
    match={"keys": ["person", "email", "phone"], "composites": [PERSON]}
).agreement


def test_a_person_may_have_several_addresses_and_one_twice_is_one() -> None:
    table = rows(
        ["a", "a@gmx.net", "b@gmx.net"], ["c", "c@gmx.net", "C@gmx.net"], ["d", "", "A@gmx.net"]
    )
    data = WHOLE.model_copy(update={"identifiers": {"email": ("email", "phone")}})
    assert data.identifiers_per_person == 2
    population = read(table, consenting("a", "c", "d"), data=data)
    assert population.keys.tolist() == ["a", "c"]
    assert excluded(population) == {"duplicate_person": 1}  # d is a's second address
    tokens, token_rows, ranks = population.tokens
    assert sorted(token_rows.tolist()) == [0, 0, 1]
    assert set(ranks.tolist()) == {0}
    assert len(np.unique(tokens, axis=0)) == 3


def test_a_composite_key_is_read_from_its_fields_in_the_agreed_order() -> None:
    table = rows(["a", "a@gmx.net", "+12127365001", "30", "red"], ["b", "", "2127365002", "30", ""])
    straight = {"number": "phone", "tint": "colour"}
    data = WHOLE.model_copy(update={"identifiers": {"email": "email", "person": straight}})
    assert data.identifiers_per_person == 2
    found = read(table, consenting("a", "b"), data=data, agreement=WITH_PERSON).tokens
    assert sorted(zip(found.rows.tolist(), found.ranks.tolist(), strict=True)) == [(0, 0), (0, 1)]
    turned = dict(reversed(straight.items()))
    data = WHOLE.model_copy(update={"identifiers": {"email": "email", "person": turned}})
    again = read(table, consenting("a", "b"), data=data, agreement=WITH_PERSON).tokens
    assert np.array_equal(found.tokens, again.tokens)


@pytest.mark.parametrize("fields", [["number"], ["number", "tint", "more"], ["number", "colour"]])
def test_fields_that_were_not_agreed_are_told_without_a_value(fields: list[str]) -> None:
    named = dict(zip(fields, ("phone", "colour", "age"), strict=False))
    data = WHOLE.model_copy(update={"identifiers": {"person": named}})
    with pytest.raises(
        WorkspaceError, match=r"data\.identifiers\.person: .* agreed fields"
    ) as told:
        read(rows(["a", "", "+12127365001"]), consenting("a"), data=data, agreement=WITH_PERSON)
    assert "number, tint" in str(told.value)
    assert "7365001" not in str(told.value)


def test_what_only_fills_a_field_links_nobody_and_is_counted() -> None:
    table = rows(["a", "noreply@example.com"], ["b", "noreply@example.com"], ["c", "c@gmx.net"])
    population = read(table, consenting("a", "b", "c"))
    assert population.keys.tolist() == ["a", "b", "c"]
    assert population.tokens.rows.tolist() == [2]
    told = " ".join(population.findings)
    assert "email: 2 values only fill the field, not matched by them." in told
    assert "noreply" not in told


def test_as_many_identifiers_are_allowed_as_so_many_people_can_have() -> None:
    assert tokens_allowed(AGREEMENT, "retailer") == 50 * 2
    with pytest.raises(InvalidAgreementError, match="no data set of 'coordinator'"):
        tokens_allowed(AGREEMENT, "coordinator")


# --- seeds -----------------------------------------------------------------------------------


BOUGHT = [
    ["a", "a@gmx.net", "", "30", "red", "yes"],
    ["b", "b@gmx.net", "", "30", "red", "no"],
    ["c", "c@gmx.net", "", "30", "red", ""],
    ["d", "d@gmx.net", "", "30", "red", "yes"],
    ["e", "e@gmx.net", "", "30", "red", "YES"],
]


def test_a_seed_rule_keeps_the_rows_that_hold_its_value() -> None:
    population = read(rows(*BOUGHT), consenting("a", "b", "c", "e", withdrawn=["d"]), data=SEEDS)
    assert population.keys.tolist() == ["a"]
    assert excluded(population)["withdrawn"] == 1


def test_no_under_a_record_that_is_no_seed_is_no_too() -> None:
    table = rows(*BOUGHT, ["z", "a@gmx.net", "", "30", "red", "no"])
    population = read(table, consenting(*"abcde", withdrawn=["z"]), data=SEEDS)
    assert population.keys.tolist() == ["d"]
    assert excluded(population) == {"no_under_another_record": 1}


def test_without_a_seed_rule_every_row_counts() -> None:
    population = read(rows(*BOUGHT), consenting(*"abcde"))
    assert population.keys.tolist() == list("abcde")


def test_a_seeds_rule_that_no_row_meets_is_told() -> None:
    rule = SEEDS.model_copy(update={"seeds": SeedRule(column="bought", equals="maybe")})
    with pytest.raises(WorkspaceError, match=r"none of 5 rows is a seed: .* 'maybe' in .*'bought'"):
        read(rows(*BOUGHT), consenting(*"abcde"), data=rule)


@pytest.mark.parametrize(("column", "worthless"), [("age", "unknown"), ("colour", "no colour")])
def test_a_feature_without_one_readable_value_is_told(column: str, worthless: str) -> None:
    table = Rows(rows(["a", "a@gmx.net"], ["b", "b@gmx.net"]).frame.assign(**{column: worthless}))
    with pytest.raises(WorkspaceError, match=f"no row has a readable value in column '{column}'"):
        read(table, consenting("a", "b"), with_features=True)


# --- disk ---------------------------------------------------------------------------------------


def test_what_is_on_disk_while_people_are_read_is_the_owners_alone_and_goes(tmp_path: Path) -> None:
    file, lasting = tmp_path / "consents.csv", tmp_path / "people"
    consenting("a", "b").save(file)
    lasting.mkdir()
    with scratch(tmp_path / "reading.tmp") as beside:
        population = read_population(
            rows(["a", "a@gmx.net"], ["b", "b@gmx.net"]),
            WHOLE,
            AGREEMENT,
            ConsentReading(file, AGREEMENT.purposes),
            Use(PURPOSE, NOW),
            scratch=beside,
            place=lasting,
        )
        held = [path for path in beside.rglob("*") if path.is_file()]
        assert held
        assert all(path.stat().st_mode & 0o077 == 0 for path in (*held, *lasting.iterdir()))
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "consents.csv",
        "linked.arrow",
        "people",
        "used.arrow",
    ]
    assert population.keys.tolist() == ["a", "b"]


@pytest.mark.parametrize("full", ["tokens/shelf-{token:02x}.bin", "people/shelf-{key:02x}.arrow"])
def test_a_disk_that_fills_while_people_are_read_is_told(
    tmp_path: Path, full: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # /dev/full refuses every write as a full disk does.
    monkeypatch.setattr("federation.shelves._TOGETHER", 1)
    file = tmp_path / "consents.csv"
    consenting("a").save(file)
    token = hash_column(["a@gmx.net"], Kind.EMAIL, recipe_for(AGREEMENT.match)).digests[0, -1]
    key = int(fingerprints(pa.array(["a"]))[0] >> np.uint64(56))

    @dataclass(frozen=True)
    class Filling(Rows):
        def scan(self, columns: Sequence[str], *, batch_rows: int = 65_536) -> Any:
            place = tmp_path / "reading.tmp" / full.format(token=token, key=key)
            place.unlink(missing_ok=True)
            place.symlink_to("/dev/full")
            return super().scan(columns, batch_rows=batch_rows)

    def fill(table: Rows) -> Population:
        with scratch(tmp_path / "reading.tmp") as beside:
            return read_population(
                table,
                WHOLE,
                AGREEMENT,
                ConsentReading(file, AGREEMENT.purposes),
                Use(PURPOSE, NOW),
                scratch=beside,
            )

    table = rows(["a", "a@gmx.net"])
    with pytest.raises(WorkspaceError, match="No space left on device: make room"):
        fill(Filling(table.frame))
    assert fill(table).keys.tolist() == ["a"]


# --- columns ------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["record", "email", "phone", "age", "colour", "bought"])
def test_a_missing_column_is_named(column: str) -> None:
    table = Rows(rows(["a", "a@gmx.net"]).frame.drop(columns=column))
    with pytest.raises(MissingColumnError, match=column):
        read(table, consenting("a"), data=SEEDS, with_features=True)


def test_features_are_read_only_for_a_job_that_needs_them() -> None:
    table = Rows(rows(["a", "a@gmx.net"]).frame[["record", "email", "phone"]])
    assert read(table, consenting("a")).features == {}


def test_a_party_may_call_its_features_otherwise() -> None:
    table = Rows(rows(["a", "", "", "41", "green"]).frame.rename(columns={"age": "years"}))
    data = WHOLE.model_copy(update={"features": {"age": "years"}})
    _, named = schema_for(data, AGREEMENT.features)
    assert named == {"age": "years", "colour": "colour"}
    population = read(table, consenting("a"), data=data, with_features=True)
    assert population.features["age"].tolist() == [41.0]
    assert population.features["colour"].tolist() == ["green"]


def test_values_that_cannot_be_used_are_counted_and_not_shown() -> None:
    table = rows(
        ["a", "a@gmx.net", "+12127365001", "old", "mauve"],
        ["b", "not an address", "12", "", ""],
        ["c", "5d41402abc4b2a76b9719d911017c592" * 2, "", "200", "red"],
    )
    population = read(table, consenting("a", "b", "c"), with_features=True)
    assert np.isnan(population.features["age"]).tolist() == [True, True, False]
    encoded = encoder_for(AGREEMENT).encode(population.features)
    assert np.isfinite(encoded).all()
    told = " ".join(population.findings)
    for expected in (
        "3 rows",
        "age: 1 of 3 values",
        "email: 1 values cannot be read, not matched by them.",
        "email: 1 values came hashed already.",
        "phone: 1 values are no existing day or number",
    ):
        assert expected in told
    for value in ("old", "mauve", "not an", "200", "5d41402a", "gmx"):
        assert value not in told


def test_the_encoder_knows_public_terms_only() -> None:
    encoder = encoder_for(AGREEMENT)
    assert encoder.names[:3] == ("age", "colour=green", "colour=red")
    assert encoder.width == 4


def test_a_file_is_looked_for_in_the_partys_folder(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError):
        open_source(WHOLE, tmp_path).columns()
    rows(["a", "a@gmx.net"]).frame.to_csv(tmp_path / "people.csv", index=False)
    assert open_source(WHOLE, tmp_path).columns() == COLUMNS
    population = read(open_source(WHOLE, tmp_path), consenting("a"), with_features=True)
    assert population.keys.tolist() == ["a"]
