"""The records of a set on disk, in the order in which they leave."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import WorkspaceError
from federation.matching import record_set
from federation.matching.record_set import NOBODY, Records, RecordSet
from federation.matching.token_set import MatchingSet, TokenBatch
from privacy.psi.records import place_records
from privacy.randomness import seeded_secret


def made(directory: Path, borne: list[int]) -> MatchingSet:
    """A set of people who bear so many tokens each."""
    rows = np.repeat(np.arange(len(borne)), borne)
    raw = b"".join(b"\x01" + hashlib.sha256(str(one).encode()).digest() for one in range(len(rows)))
    tokens = np.frombuffer(raw, dtype=np.uint8).reshape(-1, 33)
    return MatchingSet.write(directory, [TokenBatch(tokens, rows, rows % 3)])


def contents(own: MatchingSet) -> dict[bytes, int]:
    batch = own.bucket(0, 1)
    return {
        token.tobytes(): row for token, row in zip(batch.tokens, batch.rows.tolist(), strict=True)
    }


@settings(max_examples=25)
@given(
    borne=st.lists(st.integers(0, 3), min_size=1, max_size=20),
    chunks=st.integers(1, 4),
    by_row=st.booleans(),
    batch=st.integers(1, 9),
)
def test_every_token_stands_at_its_records_place(
    tmp_path_factory: pytest.TempPathFactory,
    borne: list[int],
    chunks: int,
    by_row: bool,
    batch: int,
) -> None:
    directory = tmp_path_factory.mktemp("records")
    own = made(directory / "set", borne)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_set, "_BATCH_TOKENS", batch)
        records = Records.of(own, len(borne), by_row=by_row)
        places = -(-len(records.rows) // chunks) + 1
        at = place_records(seeded_secret(1, "at"), chunks * places)
        written = RecordSet.write(directory / "records", records, at, chunks=chunks)
    bearing = [row for row, count in enumerate(borne) if count]
    if by_row:
        assert records.rows.tolist() == bearing
        assert records.most == max(borne)
    else:
        assert len(records.rows) == sum(borne)
        assert records.most == min(1, sum(borne))
    assert RecordSet.open(directory / "records") == written
    rows, found = written.rows, {}
    for chunk in range(chunks):
        tokens, stand = written.chunk(chunk)
        for token, place in zip(tokens, stand.tolist(), strict=True):
            assert 0 <= place < places
            found[token.tobytes()] = int(rows[chunk * places + place])
    assert found == contents(own)
    assert sorted(rows[rows != NOBODY].tolist()) == sorted(records.rows.tolist())
    assert len(rows) == chunks * places


def test_a_layout_is_there_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = made(tmp_path / "set", [2, 1, 2])
    records, at = Records.of(own, 3, by_row=True), place_records(seeded_secret(1, "at"), 4)
    directory = tmp_path / "records"
    assert RecordSet.open(directory) is None
    with monkeypatch.context() as patch:  # /dev/full refuses every write as a full disk does
        patch.setattr(
            record_set, "_append", lambda _: os.fdopen(os.open("/dev/full", os.O_WRONLY), "ab")
        )
        with pytest.raises(WorkspaceError, match="No space left on device: make room"):
            RecordSet.write(directory, records, at, chunks=2)
    assert RecordSet.open(directory) is None
    (directory / "chunk-00001.bin").write_bytes(b"of an earlier crash")
    written = RecordSet.write(directory, records, at, chunks=2)
    assert sum(len(written.chunk(chunk)[0]) for chunk in (0, 1)) == 5
    assert {path.stat().st_mode & 0o077 for path in directory.iterdir()} == {0}


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("records.json", b"{}"),
        ("records.json", b"\xff"),
        ("rows.bin", b"x"),
        ("rows.bin", None),
        ("chunk-00000.bin", b"x"),
        ("chunk-00000.bin", None),
    ],
)
def test_a_damaged_layout_is_refused(tmp_path: Path, file: str, content: bytes | None) -> None:
    own = made(tmp_path / "set", [1, 1])
    records = Records.of(own, 2, by_row=True)
    at = place_records(seeded_secret(1, "at"), 2)
    RecordSet.write(tmp_path / "records", records, at, chunks=1)
    path = tmp_path / "records" / file
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(WorkspaceError, match="remove it"):
        RecordSet.open(tmp_path / "records")
