"""The log on disk: layout, durability under crashes at every step, and detection of every change."""

import errno
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from conftest import SYNC_TOGETHER
from hypothesis import given, settings
from hypothesis import strategies as st

from compliance.errors import (
    LogBusyError,
    LogCorruptedError,
    LogError,
    RecordError,
    SignatureError,
)
from compliance.log.checkpoint import Checkpoint
from compliance.log.cosignature import CosigningKey
from compliance.log.files import LocalFiles
from compliance.log.merkle import (
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_hash,
    verify_consistency,
)
from compliance.log.note import NoteKey, NoteSignature
from compliance.log.proving import TiledTree
from compliance.log.pruning import prune
from compliance.log.tiles import (
    ENTRY_LIMIT,
    RightEdge,
    Tile,
    Tree,
    decode_bundle,
    edge_tiles,
    encode_bundle,
    layout,
)
from compliance.log.verifier import VerifiedLog, verify_log
from compliance.log.writer import LogWriter
from compliance.signing import SigningKey

KEY = SigningKey.from_seed(b"k" * 32)
ORIGIN = "example.com/log"
VKEY = NoteKey(ORIGIN, KEY.public).to_string()


class FastFiles(LocalFiles):
    """Leaves out fsync, whose cost on a shared disk would dominate every test."""

    def sync(self, paths: Collection[Path]) -> None:
        assert all(path.exists() for path in paths)


def open_log(directory: Path, files: LocalFiles | None = None) -> LogWriter:
    return LogWriter.open(directory, origin=ORIGIN, key=KEY, files=files or FastFiles())


def verified(directory: Path) -> VerifiedLog:
    return verify_log(directory, verification_key=VKEY)


def entries(start: int, stop: int) -> list[bytes]:
    return [f"entry {index}".encode() for index in range(start, stop)]


def write(directory: Path, *batches: int) -> list[bytes]:
    written: list[bytes] = []
    with open_log(directory) as log:
        for batch in batches:
            new = entries(len(written), len(written) + batch)
            assert log.append(new) == range(len(written), len(written) + batch)
            written += new
    return written


def files_of(directory: Path) -> list[str]:
    return sorted(str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file())


# Layout


def test_layout_of_70_000_entries_is_the_published_example() -> None:
    # C2SP tlog-tiles, "Partial Tiles".
    tiles = [tile for tile in layout(70_000) if tile.level is not None]
    full = [sum(t.level == level and t.width == 256 for t in tiles) for level in range(3)]
    assert full == [273, 1, 0]
    assert [(t.level, t.width) for t in tiles if t.width < 256] == [(0, 112), (1, 17), (2, 1)]
    assert [t.path for t in edge_tiles(70_000) if t] == [
        "tile/0/273.p/112",
        "tile/1/001.p/17",
        "tile/2/000.p/1",
    ]


def test_layout_of_256_entries_has_a_full_and_a_partial_tile() -> None:
    assert [tile.path for tile in layout(256)] == [
        "tile/entries/000",
        "tile/0/000",
        "tile/1/000.p/1",
    ]


def test_paths_have_the_published_form() -> None:
    # C2SP tlog-tiles, "Merkle Tree": index 1234067.
    assert Tile(0, 1_234_067).path == "tile/0/x001/x234/067"
    assert Tile(None, 1_234_067, 8).path == "tile/entries/x001/x234/067.p/8"


tiles = st.builds(
    Tile,
    level=st.none() | st.integers(0, 63),
    index=st.integers(0, 2**40),
    width=st.integers(1, 256),
)


@given(tiles)
def test_paths_name_exactly_one_tile(tile: Tile) -> None:
    assert Tile.from_path(tile.path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/00",
        "tile/00/000",
        "tile/0/1000",
        "tile/0/x000/001",
        "tile/0/x01/001",
        "tile/0/001/001",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/000.p/999",
        "tile/0/000.p",
        "tile/-1/000",
        "tile/0/000\n",
        "tile/0/\u0660\u0660\u0660",
        "tile/64/000",
        "checkpoint",
        "../tile/0/000",
    ],
)
def test_other_paths_name_no_tile(path: str) -> None:
    assert Tile.from_path(path) is None


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=256))
def test_bundles_round_trip(batch: list[bytes]) -> None:
    assert decode_bundle(Tile(None, 0, len(batch)), encode_bundle(batch)) == tuple(batch)


@given(st.binary(max_size=40), st.integers(1, 5))
def test_arbitrary_bundles_raise_only_log_corrupted_error(data: bytes, width: int) -> None:
    with suppress(LogCorruptedError):
        assert encode_bundle(decode_bundle(Tile(None, 0, width), data)) == data


@settings(max_examples=25)
@given(st.lists(st.integers(0, 700), max_size=5))
def test_the_right_edge_grows_into_the_same_tree_as_all_leaves_at_once(batches: list[int]) -> None:
    leaves = [leaf_hash(entry) for entry in entries(0, sum(batches))]
    edge, written = RightEdge(), {}
    for batch in batches:
        edge, changed = edge.extend(leaves[edge.tree_size : edge.tree_size + batch])
        assert not changed.keys() & written.keys()
        written |= changed
    assert edge.root_hash == root_hash(leaves)
    _, at_once = RightEdge().extend(leaves)
    assert at_once.items() <= written.items()
    assert set(at_once) == {tile for tile in layout(len(leaves)) if tile.level is not None}


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 512, 65_792])
def test_a_tree_has_the_root_of_each_of_its_beginnings_and_the_content_of_its_tiles(
    size: int,
) -> None:
    made = list(entries(0, size))
    tree = Tree(made)
    leaves = list(map(leaf_hash, made))
    assert tree.size == size
    edges = {0, 1, 3, 255, 256, 257, 300, 511, 65_536, 65_537, size - 1, size}
    for beginning in {edge for edge in edges if 0 <= edge <= size}:
        assert tree.root_hash(beginning) == root_hash(leaves[:beginning])
    _, tiles = RightEdge().extend(leaves)
    assert {tile: tree.content(tile) for tile in tiles} == tiles
    for outside in (-1, size + 1):
        with pytest.raises(LogError, match="leaves"):
            tree.root_hash(outside)


# Writing and reading


@settings(max_examples=20)
@given(batches=st.lists(st.sampled_from([0, 1, 2, 200, 255, 256, 257, 600]), max_size=5))
def test_what_is_appended_is_what_verifies(
    tmp_path_factory: pytest.TempPathFactory, batches: list[int]
) -> None:
    directory = tmp_path_factory.mktemp("log")
    written = write(directory, *batches)
    log = verified(directory)
    assert log.entries == tuple(written)
    assert (log.origin, log.tree_size) == (ORIGIN, len(written))
    assert log.root_hash == root_hash([leaf_hash(entry) for entry in written])
    assert {tile.path for tile in layout(len(written))} <= set(files_of(directory))


def test_reopening_continues_at_every_size_around_a_full_tile(tmp_path: Path) -> None:
    written: list[bytes] = []
    for batch in [0, 1, 253, 1, 1, 1, 255, 1]:
        with open_log(tmp_path) as log:
            assert log.tree_size == len(written)
            new = entries(len(written), len(written) + batch)
            log.append(new)
            written += new
            assert log.checkpoint == Checkpoint(ORIGIN, len(written), log.checkpoint.root_hash)
        assert verified(tmp_path).entries == tuple(written)


def test_works_on_the_real_disk(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "log"
    with LogWriter.open(directory, origin=ORIGIN, key=KEY) as log:
        log.append(entries(0, 300))
        log.append([b"", b"x" * ENTRY_LIMIT])
    assert verified(directory).entries[300:] == (b"", b"x" * ENTRY_LIMIT)


def test_a_log_holds_no_more_files_than_its_layout_once_tiles_are_full(tmp_path: Path) -> None:
    write(tmp_path, *[1] * 256)
    assert files_of(tmp_path) == sorted(
        ["checkpoint", "tile/entries/000", "tile/0/000", "tile/1/000.p/1"]
    )
    assert not list(tmp_path.glob("tile/0/*.p"))


def test_an_entry_too_long_stops_the_batch_and_nothing_is_written(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        with pytest.raises(RecordError, match=r"entry 1 of the batch.*got 2049"):
            log.append([b"fine", b"x" * (ENTRY_LIMIT + 1)])
        assert log.append([b"next"]) == range(1)
    assert verified(tmp_path).entries == (b"next",)


def test_appending_and_opening_read_no_full_tile(tmp_path: Path) -> None:
    written = write(tmp_path, 600)
    aside = tmp_path.with_name("aside")
    full = [tile.path for tile in layout(600) if tile.width == 256]
    for path in full:
        (aside / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).rename(aside / path)
    with open_log(tmp_path) as log:
        log.append(entries(600, 800))
    for path in full:
        (aside / path).rename(tmp_path / path)
    assert verified(tmp_path).entries == (*written, *entries(600, 800))


def test_checkpoints_are_consistent_with_one_another(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        heads = []
        for _ in range(6):
            log.append(entries(log.tree_size, log.tree_size + 97))
            heads.append(log.checkpoint)
    leaves = [leaf_hash(entry) for entry in verified(tmp_path).entries]
    for old in heads:
        verify_consistency(
            old_size=old.tree_size,
            new_size=heads[-1].tree_size,
            old_root=old.root_hash,
            new_root=heads[-1].root_hash,
            proof=consistency_proof(leaves, old.tree_size, heads[-1].tree_size),
        )


def test_the_verifier_does_not_load_the_writer() -> None:
    code = (
        "import sys, compliance.log.verifier, compliance.records;"
        "sys.exit('compliance.log.writer' in sys.modules or 'fcntl' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# One writer


def test_a_second_writer_is_refused_until_the_first_closes(tmp_path: Path) -> None:
    with open_log(tmp_path) as first:
        with pytest.raises(LogBusyError, match="another writer"):
            open_log(tmp_path)
        first.append([b"still works"])
        first.close()
        open_log(tmp_path).close()
    with pytest.raises(RuntimeError, match="closed"):
        first.append([b"late"])
    assert verified(tmp_path).tree_size == 1


def test_a_killed_writer_leaves_the_log_free_and_whole(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from compliance.log.writer import LogWriter
from compliance.signing import SigningKey
log = LogWriter.open(Path({str(tmp_path)!r}), origin={ORIGIN!r}, key=SigningKey.from_seed(b"k" * 32))
while True:
    print(log.append([b"one more"]).stop, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    acknowledged = 0
    while acknowledged < 20:
        acknowledged = int(process.stdout.readline())
    with pytest.raises(LogBusyError):
        open_log(tmp_path)
    process.kill()
    rest = process.stdout.read().split()
    process.wait()
    acknowledged = int(rest[-1]) if rest else acknowledged
    assert verified(tmp_path).tree_size in {acknowledged, acknowledged + 1}
    with open_log(tmp_path) as log:
        log.append([b"after"])
    assert verified(tmp_path).entries[-1] == b"after"


def test_a_log_is_not_opened_under_another_key_or_origin(tmp_path: Path) -> None:
    write(tmp_path, 3)
    with pytest.raises(LogCorruptedError, match="only those of"):
        LogWriter.open(tmp_path, origin=ORIGIN, key=SigningKey.from_seed(b"o" * 32))
    with pytest.raises(LogCorruptedError, match="only those of"):
        LogWriter.open(tmp_path, origin="other.example", key=KEY)
    with pytest.raises(SignatureError, match="key name"):
        LogWriter.open(tmp_path, origin="two words", key=KEY)
    open_log(tmp_path).close()  # none of the refusals kept the lock


def test_a_log_that_lost_its_checkpoint_is_not_begun_again(tmp_path: Path) -> None:
    write(tmp_path, 3)
    (tmp_path / "checkpoint").unlink()
    with pytest.raises(LogCorruptedError, match="checkpoint: missing"):
        open_log(tmp_path)


@pytest.mark.parametrize("path", ["tile/0/001.p/44", "tile/entries/001.p/44", "tile/1/000.p/1"])
def test_a_damaged_right_edge_is_not_built_upon(tmp_path: Path, path: str) -> None:
    write(tmp_path, 300)
    data = bytearray((tmp_path / path).read_bytes())
    data[-1] ^= 1
    (tmp_path / path).write_bytes(data)
    with pytest.raises(LogCorruptedError):
        open_log(tmp_path)
    (tmp_path / path).unlink()
    with pytest.raises(LogCorruptedError, match=f"{path}: missing"):
        open_log(tmp_path)


def test_a_checkpoint_exchanged_under_a_writer_is_not_written_over(tmp_path: Path) -> None:
    write(tmp_path, 2)
    old = (tmp_path / "checkpoint").read_bytes()
    with open_log(tmp_path) as log:
        log.append([b"mine"])
        (tmp_path / "checkpoint").write_bytes(old)
        with pytest.raises(LogBusyError, match="another checkpoint is published"):
            log.append([b"would fork"])
        with pytest.raises(LogError, match="open the log again"):
            log.append([b"would fork"])
    assert (tmp_path / "checkpoint").read_bytes() == old


def test_nothing_is_signed_before_its_entries_are_durable(tmp_path: Path) -> None:
    files = UnreliableFiles()
    seen: list[dict[Path, bytes]] = []

    class Watched(CosigningKey):
        def cosign(self, checkpoint: Checkpoint, *, timestamp: int) -> NoteSignature:
            seen.append(dict(files.contents))
            return super().cosign(checkpoint, timestamp=timestamp)

    second = Watched.from_seed(ORIGIN, b"s" * 32)
    with LogWriter.open(tmp_path, origin=ORIGIN, key=KEY, second_key=second, files=files) as log:
        log.append(entries(0, 300))
    assert len(seen) == 2
    assert not any(seen)


def test_both_signatures_of_a_head_are_verified(tmp_path: Path) -> None:
    second = CosigningKey.from_seed(ORIGIN, b"s" * 32)
    with LogWriter.open(
        tmp_path, origin=ORIGIN, key=KEY, second_key=second, files=FastFiles()
    ) as log:
        log.append(entries(0, 3))
    key = second.public.to_string()
    assert verify_log(tmp_path, verification_key=VKEY, second_key=key).tree_size == 3
    assert verified(tmp_path).tree_size == 3
    signed = (tmp_path / "checkpoint").read_bytes()
    for position in range(0, len(signed), 41):
        changed = bytearray(signed)
        changed[position] ^= 1
        (tmp_path / "checkpoint").write_bytes(changed)
        with pytest.raises(LogCorruptedError):
            verify_log(tmp_path, verification_key=VKEY, second_key=key)
    with open_log_without_second(tmp_path, signed) as log:
        log.append([b"one signature"])
    with pytest.raises(LogCorruptedError, match="expected a signature"):
        verify_log(tmp_path, verification_key=VKEY, second_key=key)
    with pytest.raises(SignatureError, match="second key in the name of the log"):
        LogWriter.open(tmp_path, origin="another", key=KEY, second_key=second)


def open_log_without_second(directory: Path, signed: bytes) -> LogWriter:
    (directory / "checkpoint").write_bytes(signed)
    return open_log(directory)


def test_a_full_disk_stops_the_writer_until_it_is_opened_again(tmp_path: Path) -> None:
    class FullDisk(FastFiles):
        full = False

        def write(self, path: Path, data: bytes) -> None:
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().write(path, data)

    files = FullDisk()
    with open_log(tmp_path, files) as log:
        log.append([b"first"])
        files.full = True
        with pytest.raises(LogError, match="No space left"):
            log.append([b"second"])
        files.full = False
        with pytest.raises(LogError, match="open the log again"):
            log.append([b"third"])
    with open_log(tmp_path) as log:
        log.append([b"fourth"])
    assert verified(tmp_path).entries == (b"first", b"fourth")


def test_threads_share_a_writer(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:

        def work(name: int) -> None:
            for index in range(20):
                log.append([b"%d %d" % (name, index)] * 2)

        threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    log_read = verified(tmp_path)
    assert log_read.tree_size == 160
    assert log_read.entries[::2] == log_read.entries[1::2]


def test_a_log_can_be_verified_while_it_grows(tmp_path: Path) -> None:
    write(tmp_path, 240)
    done = threading.Event()

    def grow() -> None:
        with open_log(tmp_path) as log:
            for _ in range(60):
                log.append(entries(log.tree_size, log.tree_size + 7))
        done.set()

    thread = threading.Thread(target=grow)
    thread.start()
    readings = [verified(tmp_path).entries]
    while not done.is_set():
        with suppress(LogError):  # only "grew while it was read", never corruption
            try:
                readings.append(verified(tmp_path).entries)
            except LogCorruptedError as error:
                pytest.fail(str(error))
    thread.join()
    readings.append(verified(tmp_path).entries)
    for old, new in pairwise(readings):
        assert new[: len(old)] == old
    assert readings[-1] == tuple(entries(0, 660))


# Crashes


@pytest.mark.parametrize("count", [1, 5, 40])
def test_all_that_is_named_is_flushed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    paths, flushed = [tmp_path / str(number) for number in range(count)], list[Path]()
    monkeypatch.setattr("compliance.log.files._sync", flushed.append)
    SYNC_TOGETHER(LocalFiles(), paths)
    assert sorted(flushed) == sorted(paths)


@pytest.mark.parametrize("others", [0, 5])
def test_what_cannot_be_flushed_is_told(tmp_path: Path, others: int) -> None:
    paths = [tmp_path / str(number) for number in range(others)]
    for path in paths:
        path.touch()
    with pytest.raises(FileNotFoundError):
        SYNC_TOGETHER(LocalFiles(), [*paths, tmp_path / "gone"])


class CrashError(Exception):
    """The process, or the power, is gone."""


class UnreliableFiles(LocalFiles):
    """Stops at one operation, half done; with `power`, also loses what was never synced.

    Every change is on the real disk at once, and an undo is kept until the file (for content) or
    its directory (for names) is synced. A loss of power runs the undos, or those that `power`
    picks, since a file system may write back in any order.
    """

    def __init__(self, crash_at: int | None = None, power: Random | None = None) -> None:
        self.operations = 0
        self.crash_at = crash_at
        self.power = power
        self.names: list[tuple[Path, Callable[[], object]]] = []
        self.contents: dict[Path, bytes] = {}

    def _step(self) -> bool:
        self.operations += 1
        return self.operations - 1 == self.crash_at

    def crash(self, *, keep: float = 0.0) -> None:
        if self.power:
            for path, data in self.contents.items():
                if path.is_file() and self.power.random() >= keep:
                    path.write_bytes(data[: self.power.randrange(len(data))])
            for _, undo in reversed(self.names):
                if self.power.random() >= keep:
                    with suppress(OSError):
                        undo()
        raise CrashError

    def _stop(self) -> None:
        self.crash(keep=self.power.choice([0.0, 0.5]) if self.power else 0.0)

    def _renamed(self, parent: Path, undo: Callable[[], object]) -> None:
        self.names.append((parent, undo))

    def make_directory(self, path: Path) -> None:
        stop = self._step()
        for new in [p for p in (path, *path.parents) if not p.exists()]:
            self._renamed(new.parent, lambda new=new: shutil.rmtree(new))  # type: ignore[misc]
        super().make_directory(path)
        if stop:
            self._stop()

    def write(self, path: Path, data: bytes) -> None:
        stop = self._step()
        if not path.exists():
            self._renamed(path.parent, path.unlink)
        self.contents[path] = data
        super().write(path, data[: len(data) // 2] if stop else data)
        if stop:
            self._stop()

    def sync(self, paths: Collection[Path]) -> None:
        order = list(paths)
        if self.power:
            self.power.shuffle(order)
        for path in order:  # until all are durable any may be, and any not
            if self._step():
                self._stop()
            assert path.exists()
            self.contents.pop(path, None)
            self.names = [(parent, undo) for parent, undo in self.names if parent != path]

    def replace(self, source: Path, target: Path) -> None:
        stop = self._step()
        before = target.read_bytes() if target.exists() else None
        undo = target.unlink if before is None else lambda: target.write_bytes(before)
        self._renamed(target.parent, undo)
        if source in self.contents:
            self.contents[target] = self.contents.pop(source)
        super().replace(source, target)
        if stop:
            self._stop()

    def remove(self, path: Path) -> None:
        stop = self._step()
        if path.is_dir():
            self._renamed(path.parent, path.mkdir)
        else:
            data = path.read_bytes()
            self._renamed(path.parent, lambda: path.write_bytes(data))
        super().remove(path)
        if stop:
            self._stop()


def scenarios() -> Iterator[tuple[str, list[int], list[int]]]:
    yield "a new log", [], [2, 1]
    yield "a partial tile that grows", [3], [1, 4]
    yield "tiles that become full", [250, 4], [1, 3]
    yield "several bundles at once", [255], [515]


def run(directory: Path, batches: list[int], files: LocalFiles) -> list[bytes]:
    """Append until a crash; return what was acknowledged, and a crash as `CrashError`."""
    acknowledged: list[bytes] = []
    try:
        with open_log(directory, files) as log:
            acknowledged = entries(0, log.tree_size)
            for batch in batches:
                log.append(entries(log.tree_size, log.tree_size + batch))
                acknowledged = entries(0, log.tree_size)
    except CrashError:
        pass
    return acknowledged


def check_survival(directory: Path, acknowledged: list[bytes], files: LocalFiles) -> None:
    """A reader finds all that was acknowledged; a new writer extends exactly what it finds."""
    before: tuple[bytes, ...] = ()
    if acknowledged or (directory / "checkpoint").exists():
        before = verified(directory).entries
    assert before == tuple(entries(0, len(before)))
    assert len(before) >= len(acknowledged)
    after = list(before)
    with open_log(directory, files) as log:
        assert log.tree_size == len(before)
        found = [tile for path in files_of(directory) if (tile := Tile.from_path(path))]
        assert all(tile.is_within(len(before)) for tile in found)
        assert not any(tile.width < 256 and tile.full.is_within(len(before)) for tile in found)
        for batch in ([b"other"], [b"than"] * 2, [b"before"] * 7, [b"entirely"] * 300):
            log.append(batch)
            after += batch
            assert verified(directory).entries == tuple(after)


@pytest.mark.parametrize("power", [False, True], ids=["process dies", "power fails"])
@pytest.mark.parametrize(
    ("base", "batches"),
    [pytest.param(base, batches, id=name) for name, base, batches in scenarios()],
)
def test_a_crash_at_any_operation_loses_nothing_published(
    tmp_path: Path, base: list[int], batches: list[int], power: bool
) -> None:
    original = tmp_path / "original"
    if base:
        write(original, *base)
    rehearsal = tmp_path / "rehearsal"
    if base:
        shutil.copytree(original, rehearsal)
    counting = UnreliableFiles()
    run(rehearsal, batches, counting)
    assert counting.operations > 15
    for crash_at in range(counting.operations):
        directory = tmp_path / f"crash-{crash_at}"
        if base:
            shutil.copytree(original, directory)
        files = UnreliableFiles(crash_at, Random(crash_at) if power else None)
        acknowledged = run(directory, batches, files)
        assert files.operations == crash_at + 1
        check_survival(directory, acknowledged, FastFiles())
        shutil.rmtree(directory)


def test_a_second_crash_while_recovering_loses_nothing_either(tmp_path: Path) -> None:
    original = tmp_path / "original"
    write(original, 250, 4)
    for first in range(6, 60, 8):
        for second in range(0, 24, 4):
            directory = tmp_path / f"{first}-{second}"
            shutil.copytree(original, directory)
            run(directory, [1, 3], UnreliableFiles(first, Random(first)))
            acknowledged = run(directory, [1, 3], UnreliableFiles(second, Random(second)))
            check_survival(directory, acknowledged, FastFiles())
            shutil.rmtree(directory)


def test_what_a_writer_reports_on_opening_survives_the_loss_of_power(tmp_path: Path) -> None:
    """Process death may leave a checkpoint renamed but not synced; opening must make it durable."""
    original = tmp_path / "original"
    write(original, 3)
    rehearsal = UnreliableFiles()
    run(shutil.copytree(original, tmp_path / "rehearsal"), [2], rehearsal)
    for crash_at in range(rehearsal.operations):
        directory = shutil.copytree(original, tmp_path / f"crash-{crash_at}")
        files = UnreliableFiles(crash_at)
        run(directory, [2], files)
        with open_log(directory, files) as log:
            reported = log.tree_size
        files.power = Random(crash_at)
        with suppress(CrashError):
            files.crash()
        assert verified(directory).tree_size == reported


def test_what_a_writer_removed_on_opening_does_not_come_back(tmp_path: Path) -> None:
    """An entry never published must not reappear where others were published since."""
    original = tmp_path / "original"
    write(original, 256)
    rehearsal = UnreliableFiles()
    run(shutil.copytree(original, tmp_path / "rehearsal"), [5], rehearsal)
    for crash_at in range(rehearsal.operations):
        directory = shutil.copytree(original, tmp_path / f"crash-{crash_at}")
        files = UnreliableFiles(crash_at)
        run(directory, [5], files)
        with open_log(directory, files) as log:
            log.append([b"other"] * 256)
        files.power = Random(crash_at)
        with suppress(CrashError):
            files.crash()
        assert verified(directory).entries[-256:] == (b"other",) * 256


@pytest.mark.parametrize("forgotten", ["tile", "directory", "checkpoint"])
def test_the_simulated_loss_of_power_catches_a_forgotten_sync(
    tmp_path: Path, forgotten: str
) -> None:
    """The simulator must be able to fail: leave out each kind of sync and see entries lost."""

    class Forgetful(UnreliableFiles):
        def sync(self, paths: Collection[Path]) -> None:
            super().sync([path for path in paths if self.kind(path) != forgotten])

        @staticmethod
        def kind(path: Path) -> str:
            if path.is_dir():
                return "directory"
            return "tile" if "tile" in path.parts else "checkpoint"

    files = Forgetful(power=Random(0))
    acknowledged = run(tmp_path / "log", [2, 1], files)
    assert len(acknowledged) == 3
    with suppress(CrashError):
        files.crash()
    with pytest.raises((LogCorruptedError, AssertionError)):
        check_survival(tmp_path / "log", acknowledged, FastFiles())


# Tampering


@pytest.fixture(scope="module")
def small_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("small")
    write(directory, 1, 2, 1)
    return directory


def test_every_changed_byte_of_every_file_is_noticed(small_log: Path) -> None:
    names = files_of(small_log)
    assert len(names) == 7  # the checkpoint, three bundles, three tiles
    for name in names:
        path = small_log / name
        data = path.read_bytes()
        for position in range(len(data)):
            mutated = bytearray(data)
            mutated[position] ^= 1 << position % 8
            path.write_bytes(mutated)
            with pytest.raises(LogCorruptedError):
                verified(small_log)
        path.write_bytes(data)
    verified(small_log)


def test_every_truncated_extended_or_emptied_file_is_noticed(small_log: Path) -> None:
    for name in files_of(small_log):
        path = small_log / name
        data = path.read_bytes()
        for wrong in [*(data[:end] for end in range(len(data))), data + b"\0", data + data]:
            path.write_bytes(wrong)
            with pytest.raises(LogCorruptedError):
                verified(small_log)
        path.write_bytes(data)
    verified(small_log)


def test_every_missing_file_is_named(tmp_path: Path) -> None:
    write(tmp_path, 600)
    for name in files_of(tmp_path):
        path = tmp_path / name
        data = path.read_bytes()
        path.unlink()
        with pytest.raises(LogCorruptedError, match=f"^{name}: missing"):
            verified(tmp_path)
        path.write_bytes(data)
    verified(tmp_path)


def test_an_altered_entry_is_named_by_file_and_index(tmp_path: Path) -> None:
    write(tmp_path, 300)
    path = tmp_path / "tile/entries/001.p/44"
    path.write_bytes(path.read_bytes().replace(b"entry 270", b"entry 999"))
    with pytest.raises(LogCorruptedError, match=r"tile/entries/001\.p/44: entry 270 "):
        verified(tmp_path)


@pytest.mark.parametrize("name", ["tile/0/000", "tile/0/001.p/44", "tile/1/000.p/1"])
def test_an_altered_tile_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path, 300)
    data = bytearray((tmp_path / name).read_bytes())
    data[5] ^= 1
    (tmp_path / name).write_bytes(data)
    with pytest.raises(LogCorruptedError, match=f"^{name}: differs"):
        verified(tmp_path)


def test_a_rewritten_history_without_the_key_is_noticed(tmp_path: Path) -> None:
    write(tmp_path / "true", 5)
    with open_log(tmp_path / "false") as log:
        log.append([b"forged"] * 5)
    shutil.copy(tmp_path / "true" / "checkpoint", tmp_path / "false" / "checkpoint")
    with pytest.raises(LogCorruptedError, match="checkpoint: expected the root hash"):
        verified(tmp_path / "false")


def test_an_unknown_file_in_the_tree_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 2)
    (tmp_path / "tile/0/000.p/02").write_bytes(b"")
    with pytest.raises(LogCorruptedError, match="no file of a log"):
        verified(tmp_path)


def test_a_huge_file_is_not_read_whole(tmp_path: Path) -> None:
    write(tmp_path, 2)
    with (tmp_path / "tile/0/000.p/2").open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(LogCorruptedError, match="at most"):
        verified(tmp_path)


def test_a_signed_but_absurd_tree_size_is_refused_at_the_first_missing_file(tmp_path: Path) -> None:
    write(tmp_path, 2)
    absurd = Checkpoint(ORIGIN, 10**18, leaf_hash(b""))
    (tmp_path / "checkpoint").write_bytes(absurd.sign(KEY))
    with pytest.raises(LogCorruptedError, match="tile/entries/000: missing"):
        verified(tmp_path)


def test_what_is_no_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LogCorruptedError, match="checkpoint: missing"):
        verified(tmp_path / "nowhere")
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(LogError, match="cannot read"):
        verified(tmp_path)
    with pytest.raises(SignatureError):
        verify_log(tmp_path, verification_key="not a key")


# Pruning


def test_a_pruned_log_still_proves_what_is_left_and_grows(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        log.append(entries(0, 700))
        old = log.checkpoint
        log.append(entries(700, 1500))
        head = log.checkpoint
        before = set(files_of(tmp_path))
        assert prune(tmp_path, head, 600, files=FastFiles()) == 4
        assert before - set(files_of(tmp_path)) == {
            f"tile/{level}/00{index}" for level in ("0", "entries") for index in (0, 1)
        }
        assert prune(tmp_path, head, 600, files=FastFiles()) == 0
        tree = TiledTree(tmp_path, head)
        for index in (600, 699, 1499):
            assert tree.entry(index) == b"entry %d" % index
        tree.consistency_proof(old)
        with pytest.raises(LogCorruptedError, match="tile/entries/000: missing"):
            tree.entry(5)
        for bad in (-1, 1501):
            with pytest.raises(LogError, match="minimum index"):
                prune(tmp_path, head, bad)
        log.append(entries(1500, 1600))
        TiledTree(tmp_path, log.checkpoint).consistency_proof(head)
    with pytest.raises(LogCorruptedError, match="missing"):
        verified(tmp_path)


@settings(max_examples=15)
@given(st.integers(1, 700), st.data())
def test_proofs_from_tiles_are_those_of_all_leaves(
    tmp_path_factory: pytest.TempPathFactory, size: int, data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("log")
    write(directory, size)
    head = Checkpoint.open((directory / "checkpoint").read_bytes(), NoteKey(ORIGIN, KEY.public))
    tree, leaves = TiledTree(directory, head), [leaf_hash(entry) for entry in entries(0, size)]
    index = data.draw(st.integers(0, size - 1))
    assert list(tree.inclusion_proof(index)) == inclusion_proof(leaves, index, size)
    expected = consistency_proof(leaves, index + 1, size)
    assert list(tree.unverified_consistency_proof(index + 1)) == expected
