"""Sinks: one contract, held by every implementation, with failures that happen."""

import resource
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pyarrow as pa
import pytest
from object_server import Bucket
from object_server import bucket as bucket  # noqa: PLC0414 - a fixture
from object_server import object_server as object_server  # noqa: PLC0414 - a fixture
from test_connectors import postgres as postgres  # noqa: PLC0414 - a fixture

from connectors import (
    ConnectorError,
    FileSource,
    ObjectSource,
    Sink,
    SinkOccupiedError,
    SinkUnavailableError,
    SourceFormatError,
    SqlSource,
    open_connector,
    open_sink,
)

SCHEMA = pa.schema([("record", pa.string())])
TICKET, OTHER = "0123456789abcdef" * 4, "f" * 64
NAMES = ["R#1", 'a "quoted", one', "two\nlines", "Zoë", ""]
UNIQUE = count()

Read = Callable[[], list[str]]


def batches(*parts: list[str]) -> Iterator[pa.RecordBatch]:
    for part in parts:
        yield pa.record_batch([pa.array(part, pa.string())], schema=SCHEMA)


def many(rows: int = 200_000) -> Iterator[pa.RecordBatch]:
    for begin in range(0, rows, 10_000):
        yield from batches([f"record-{begin + number:012}" for number in range(10_000)])


class PassedOnError(Exception):
    """What whoever makes the rows raises."""


def breaking() -> Iterator[pa.RecordBatch]:
    yield from batches(["R#1"], ["R#2"])
    raise PassedOnError


@contextmanager
def small_files(most: int) -> Iterator[None]:
    """Let no file of this process grow beyond `most` bytes: as a full disk, but harmless."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(params=["csv", "parquet", "sqlite", "postgresql", "s3.csv", "s3.parquet"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> FileSource | SqlSource | ObjectSource:
    if request.param.startswith("s3."):
        objects: Bucket = request.getfixturevalue("bucket")
        return ObjectSource(url=objects.url(f"best.{request.param.removeprefix('s3.')}"))
    if request.param == "sqlite":
        return SqlSource(url=f"sqlite:///{tmp_path}/audience.db", table="segment_best")
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres")
        return SqlSource(url=url, table=f"segment_best_{next(UNIQUE)}")
    return FileSource(path=tmp_path / "segments" / f"best.{request.param}")


@pytest.fixture
def sink(place: FileSource | SqlSource | ObjectSource) -> Sink:
    return open_sink(place)


@pytest.fixture
def read(place: FileSource | SqlSource | ObjectSource) -> Read:
    """Read the place by what reads tables; nothing there reads as nothing."""

    def records() -> list[str]:
        try:
            found = list(open_connector(place).scan(["record"]))
        except ConnectorError:
            return []
        return [name for batch in found for name in batch.column(0).to_pylist()]

    return records


def test_a_database_file_that_is_made_for_a_list_is_its_owners_alone(tmp_path: Path) -> None:
    sink = open_sink(SqlSource(url=f"sqlite:///{tmp_path}/audience.db", table="best"))
    assert not sink.is_taken()
    sink.stage(batches(NAMES), SCHEMA, ticket=TICKET)
    sink.publish(ticket=TICKET)
    assert stat.S_IMODE((tmp_path / "audience.db").stat().st_mode) == 0o600


class TestSink:
    """What every sink promises."""

    def test_it_is_one(self, sink: Sink) -> None:
        assert isinstance(sink, Sink)
        assert "best" in sink.name

    def test_a_list_is_there_whole_once_it_is_published_and_not_before(
        self, sink: Sink, read: Read
    ) -> None:
        assert not sink.is_taken()
        sink.stage(batches(NAMES[:2], [], NAMES[2:]), SCHEMA, ticket=TICKET)
        assert (sink.is_taken(), read()) == (False, [])
        sink.publish(ticket=TICKET)
        assert (sink.is_taken(), read()) == (True, NAMES)

    def test_an_empty_list_is_one_too(self, sink: Sink, read: Read) -> None:
        sink.stage(batches(), SCHEMA, ticket=TICKET)
        sink.publish(ticket=TICKET)
        assert (sink.is_taken(), read()) == (True, [])

    def test_what_is_discarded_was_never_there(self, sink: Sink, read: Read) -> None:
        sink.stage(batches(NAMES), SCHEMA, ticket=TICKET)
        sink.discard(ticket=TICKET)
        sink.discard(ticket=TICKET)
        with pytest.raises(SinkUnavailableError, match="nothing is staged"):
            sink.publish(ticket=TICKET)
        assert (sink.is_taken(), read()) == (False, [])

    def test_what_is_removed_is_gone_and_the_place_is_free(self, sink: Sink, read: Read) -> None:
        sink.remove()
        sink.stage(batches(NAMES), SCHEMA, ticket=TICKET)
        sink.publish(ticket=TICKET)
        sink.stage(batches(["R#1"]), SCHEMA, ticket=OTHER)
        for _ in range(2):
            sink.remove()
        assert (sink.is_taken(), read()) == (False, [])
        sink.publish(ticket=OTHER)
        assert read() == ["R#1"]

    def test_a_step_can_be_repeated(self, sink: Sink, read: Read) -> None:
        sink.stage(batches(["R#9"]), SCHEMA, ticket=TICKET)
        sink.stage(batches(["R#1"]), SCHEMA, ticket=TICKET)
        sink.publish(ticket=TICKET)
        sink.publish(ticket=TICKET)
        sink.discard(ticket=TICKET)
        assert read() == ["R#1"]

    def test_nothing_is_written_over(self, sink: Sink, read: Read) -> None:
        sink.stage(batches(["R#1"]), SCHEMA, ticket=TICKET)
        sink.stage(batches(["R#2"]), SCHEMA, ticket=OTHER)
        sink.publish(ticket=TICKET)
        with pytest.raises(SinkOccupiedError, match="taken"):
            sink.publish(ticket=OTHER)
        assert read() == ["R#1"]
        sink.discard(ticket=OTHER)
        assert read() == ["R#1"]

    def test_rows_that_break_off_leave_nothing(
        self, sink: Sink, read: Read, tmp_path: Path
    ) -> None:
        with pytest.raises(PassedOnError):
            sink.stage(breaking(), SCHEMA, ticket=TICKET)
        with pytest.raises(SinkUnavailableError):
            sink.publish(ticket=TICKET)
        assert not sink.is_taken()
        assert not list(tmp_path.rglob("*.staged"))

    def test_a_full_disk_leaves_nothing(self, sink: Sink, read: Read, tmp_path: Path) -> None:
        if sink.name.startswith(("postgresql", "s3:")):
            pytest.skip("its files are another's")
        with (
            small_files(100_000),
            pytest.raises(SinkUnavailableError, match="cannot take the list") as caught,
        ):
            sink.stage(many(), SCHEMA, ticket=TICKET)
        assert "record-" not in str(caught.value)
        assert not list(tmp_path.rglob("*.staged"))
        assert not sink.is_taken()
        sink.stage(batches(["R#1"]), SCHEMA, ticket=TICKET)
        sink.publish(ticket=TICKET)
        assert read() == ["R#1"]

    @pytest.mark.parametrize("ticket", ["", "../../elsewhere", "F" * 64, "a" * 65, "a" * 15])
    def test_a_ticket_names_a_delivery_and_nothing_else(self, sink: Sink, ticket: str) -> None:
        for call in (sink.publish, sink.discard):
            with pytest.raises(ValueError, match="ticket"):
                call(ticket=ticket)
        with pytest.raises(ValueError, match="ticket"):
            sink.stage(batches(NAMES), SCHEMA, ticket=ticket)


def test_a_file_is_its_owners_alone(tmp_path: Path) -> None:
    for kind in ("csv", "parquet"):
        sink = open_sink(FileSource(path=tmp_path / "new" / f"best.{kind}"))
        sink.stage(batches(NAMES), SCHEMA, ticket=TICKET)
        (staged,) = (tmp_path / "new").glob(".*.staged")
        assert staged.stat().st_mode & 0o077 == 0
        sink.publish(ticket=TICKET)
        assert (tmp_path / "new" / f"best.{kind}").stat().st_mode & 0o077 == 0


def test_a_place_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceFormatError, match=r"\.csv or \.parquet"):
        open_sink(FileSource(path=tmp_path / "best.xlsx"))


def test_a_place_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for place in (
        FileSource(path=tmp_path / "file" / "best.csv"),
        SqlSource(url=f"sqlite:///{tmp_path}/file/best.db", table="best"),
        SqlSource(url="postgresql://user:secret@127.0.0.1:1/none", table="best"),
    ):
        with pytest.raises(SinkUnavailableError) as caught:
            open_sink(place).stage(batches(NAMES), SCHEMA, ticket=TICKET)
        assert "secret" not in str(caught.value)
