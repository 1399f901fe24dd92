"""Rows on disk by subject: nobody's rows are parted, nothing is lost, nothing stays."""

import errno
import itertools
import os
import signal
import stat
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from connectors import fingerprints
from federation.errors import WorkspaceError
from federation.shelves import SHELVES, Shelves, read_together, scratch, scratch_of_several

ROWS = pa.schema([("subject", pa.large_string()), ("row", pa.uint32())])
TEXTS = st.lists(
    st.text(max_size=20) | st.sampled_from(["", "a", "a\0", "\0a", "ä" * 70, "x" * 300])
)


def batch(subjects: list[str], first: int = 0) -> pa.RecordBatch:
    rows = np.arange(first, first + len(subjects), dtype=np.uint32)
    return pa.record_batch([pa.array(subjects, pa.large_string()), pa.array(rows)], schema=ROWS)


class TestFingerprints:
    @given(TEXTS, st.integers(0, 5))
    @example(["a" * 127, "a" * 128, "a" * 129, "a" * 128 + "b"], 0)
    def test_a_text_has_one_fingerprint_wherever_it_stands(
        self, texts: list[str], offset: int
    ) -> None:
        alone = [int(fingerprints(pa.array([text]))[0]) for text in texts]
        for kind in (pa.string(), pa.large_string()):
            found = fingerprints(pa.array(texts, kind).slice(offset))
            assert found.tolist() == alone[offset:]
        assert len(set(alone)) == len(set(texts))

    def test_they_stay_what_they_are(self) -> None:
        assert fingerprints(pa.array(["", None, "ann@gmx.net"])).tolist() == [
            0,
            0,
            2115112964670336859,
        ]

    def test_texts_that_differ_little_fall_on_every_shelf_alike(self) -> None:
        texts = pa.array(np.arange(51_200)).cast(pa.string())
        found = fingerprints(texts)
        assert len(np.unique(found)) == len(texts)
        for shift in (0, 28, 56):
            counts = np.bincount((found >> np.uint64(shift)).astype(np.uint8), minlength=256)
            assert counts.min() > 120
            assert counts.max() < 290  # 200 each; six standard deviations


class TestShelves:
    @settings(max_examples=30)
    @given(
        st.lists(st.lists(st.sampled_from(["", "a", "b", "ä", "c" * 200]), max_size=9), max_size=4),
        st.sampled_from([1, 12, 1 << 16]),
    )
    def test_all_rows_of_a_subject_lie_on_its_shelf_in_order(
        self, tmp_path_factory: pytest.TempPathFactory, parts: list[list[str]], held: int
    ) -> None:
        everyone = [subject for part in parts for subject in part]
        first, directory = 0, tmp_path_factory.mktemp("rows") / "shelves"
        with pytest.MonkeyPatch.context() as patch, Shelves(directory, ROWS) as shelves:
            patch.setattr("federation.shelves._TOGETHER", held)
            for part in parts:
                shelves.put(batch(part, first))
                first += len(part)
        assert any(directory.iterdir()) is (first >= held)
        found: dict[str, list[int]] = defaultdict(list)
        for number in range(SHELVES):
            shelf = shelves.shelf(number)
            assert set(
                (fingerprints(shelf["subject"].combine_chunks()) >> np.uint64(56)).tolist()
            ) <= {number}
            for one in shelf.to_pylist():
                found[one["subject"]].append(one["row"])
        assert found == {
            subject: [row for row, other in enumerate(everyone) if other == subject]
            for subject in everyone
        }

    @pytest.mark.parametrize("most", [1, 40, 1 << 16])
    def test_read_together_every_row_comes_once_beside_those_of_its_subject(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
    ) -> None:
        monkeypatch.setattr("federation.shelves._TOGETHER", most)
        subjects = [str(number) for number in range(100)]
        with Shelves(tmp_path / "one", ROWS) as one, Shelves(tmp_path / "other", ROWS) as other:
            one.put(batch(subjects))
            other.put(batch(subjects[50:] * 2))
        read = [
            (here["subject"].to_pylist(), there["subject"].to_pylist())
            for here, there in read_together(one, other)
        ]
        assert sorted(itertools.chain(*(here for here, _ in read))) == sorted(subjects)
        assert sorted(itertools.chain(*(there for _, there in read))) == sorted(subjects[50:] * 2)
        assert all(set(there) <= set(here) for here, there in read)
        assert (len(read) == 1) == (most > 200)
        assert all(len(here) + len(there) < most + 10 for here, there in read)

    def test_read_together_shelves_without_rows_give_empty_tables(self, tmp_path: Path) -> None:
        with Shelves(tmp_path / "shelves", ROWS) as shelves:
            pass
        assert list(read_together(shelves)) == [(ROWS.empty_table(),)]

    def test_only_the_owner_can_read_them(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("federation.shelves._TOGETHER", 1)
        with Shelves(tmp_path / "shelves", ROWS) as shelves:
            shelves.put(batch(["a", "b"]))
        files = list((tmp_path / "shelves").iterdir())
        assert files
        for path in (tmp_path / "shelves", *files):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


class TestScratch:
    def test_it_is_empty_and_does_not_stay(self, tmp_path: Path) -> None:
        directory = tmp_path / "job" / "reading.tmp"
        directory.mkdir(parents=True)
        (directory / "left by a crash").touch()
        with scratch(directory) as lent:
            assert list(lent.iterdir()) == []
            assert stat.S_IMODE(lent.stat().st_mode) == 0o700
            (lent / "more").touch()
        assert not directory.exists()
        with pytest.raises(RuntimeError), scratch(directory):
            raise RuntimeError
        assert not directory.exists()

    def test_several_are_lent_one_each_and_what_a_crash_left_goes(self, tmp_path: Path) -> None:
        name = tmp_path / "job" / "own-rows.tmp"
        child = os.fork()
        if child == 0:
            with scratch_of_several(name) as lent:
                (lent / "people").touch()
                os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
        (left,) = name.parent.iterdir()
        with scratch_of_several(name) as first:
            (first / "people").touch()
            assert not left.exists()
            with scratch_of_several(name) as second:
                assert list(second.iterdir()) == []
                assert stat.S_IMODE(second.stat().st_mode) == 0o700
                assert {first.suffix, second.suffix} == {".tmp"}, "or it is not found to be left"
            assert list(name.parent.rglob("*")) == [first, first / "people"]
        assert list(name.parent.iterdir()) == []

    def test_a_full_disk_is_told_as_such(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # /dev/full refuses every write as a full disk does.
        monkeypatch.setattr("federation.shelves._TOGETHER", 1)
        subject = batch(["a"])
        number = int(fingerprints(subject.column("subject"))[0] >> np.uint64(56))

        def fill() -> None:
            with scratch(tmp_path / "job") as lent, Shelves(lent / "shelves", ROWS) as shelves:
                (lent / "shelves" / f"shelf-{number:02x}.arrow").symlink_to("/dev/full")
                shelves.put(subject)

        with pytest.raises(WorkspaceError, match="No space left on device: make room"):
            fill()
        assert list(tmp_path.iterdir()) == []

    def test_other_failures_of_the_disk_are_told_too(self, tmp_path: Path) -> None:
        with pytest.raises(WorkspaceError, match="it cannot be written"), scratch(tmp_path / "job"):
            raise OSError(errno.EIO)
