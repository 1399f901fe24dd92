import ast
import gc
import io
import itertools
import stat
import sys
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from federation.errors import WorkspaceError
from federation.stored_arrays import read_array, stored_arrays, to_bytes, write_array, write_arrays

ROOT = Path(__file__).resolve().parent.parent

KINDS = ["?", "i1", "u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8", ">u4"]
ARRAYS = st.one_of(
    hnp.arrays(st.sampled_from(KINDS), hnp.array_shapes(min_dims=0, min_side=0, max_side=4)),
    hnp.arrays("<U5", hnp.array_shapes(min_dims=0, max_dims=2, min_side=0), elements=st.text(max_size=5)),
)  # fmt: skip


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("arrays") / "kept.npz"


def same(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> bool:
    kept = (one.dtype, one.shape, one.tobytes(), one.flags.writeable)
    return kept == (other.dtype, other.shape, other.tobytes(), True)


@given(ARRAYS, st.booleans())
def test_an_array_is_read_as_it_was_written(path: Path, array: Any, turned: bool) -> None:
    array = array.T if turned else array
    write_arrays(path, one=array, other=np.arange(3))
    with stored_arrays(path) as stored:
        assert same(stored.array("one", array.dtype.type, *array.shape), array)
        assert same(stored.array("one", array.dtype.type, *(None for _ in array.shape)), array)
        assert ("one" in stored, "three" in stored) == (True, False)
    write_array(path, array)
    assert same(read_array(path, array.dtype.type, *array.shape), array)


@given(st.dictionaries(st.sampled_from("abc"), ARRAYS, min_size=1))
def test_what_numpy_writes_is_read_and_numpy_reads_what_is_written(
    path: Path, arrays: dict[str, Any]
) -> None:
    np.savez(path, **arrays)  # as earlier versions wrote them
    with stored_arrays(path) as stored:
        for name, array in arrays.items():
            assert same(stored.array(name, array.dtype.type, *array.shape), array)
    with np.load(io.BytesIO(to_bytes(**arrays)), allow_pickle=False) as found:
        assert all(same(found[name], array) for name, array in arrays.items())


def test_a_text_and_a_number_are_arrays_too(path: Path) -> None:
    write_arrays(path, who="Zoë Ångström", when=2.5, done=True, two=np.array([["1", "a"]]))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with stored_arrays(path) as stored:
        assert stored.text("who") == "Zoë Ångström"
        assert float(stored.array("when", np.float64)) == 2.5
        assert bool(stored.array("done", np.bool_))
        assert stored.texts("two").tolist() == [["1", "a"]]


def test_reading_is_safe_while_other_threads_parse(path: Path) -> None:
    """Wherever reading makes objects, the collector runs and sixteen other threads parse."""
    write_arrays(path, rows=np.arange(4))
    reader, before = threading.get_ident(), gc.get_threshold()

    def by_numpy() -> None:
        with np.load(path) as stored:
            stored["rows"]

    def by_us() -> None:
        with stored_arrays(path) as stored:
            stored.array("rows", np.int64, 4)

    def failures(read: Callable[[], None], others: ThreadPoolExecutor) -> int:
        def parse(phase: str, _: object) -> None:
            if phase == "start" and threading.get_ident() == reader:
                list(others.map(ast.literal_eval, ["((1, 2), 3)"] * 16))

        failed = 0
        gc.callbacks.append(parse)
        try:
            for objects in range(2, 40):
                gc.set_threshold(objects)
                try:
                    read()
                except SystemError:
                    failed += 1
        finally:
            gc.callbacks.remove(parse)
            gc.set_threshold(*before)
        return failed

    with ThreadPoolExecutor(16) as others:
        assert failures(by_us, others) == 0
        if sys.version_info < (3, 13):  # or this test could not fail
            assert failures(by_numpy, others) > 0


def test_a_file_that_is_written_anew_while_it_is_read_is_the_old_or_the_new_one(
    path: Path,
) -> None:
    versions = np.arange(3), np.arange(4)
    write_array(path, versions[0])
    done = threading.Event()

    def write() -> None:
        for version in itertools.cycle(versions):
            write_array(path, version)
            if done.is_set():
                return

    with ThreadPoolExecutor(1) as other:
        writing = other.submit(write)
        try:
            found = {len(read_array(path, np.int64, None)) for _ in range(3000)}
        finally:
            done.set()
        writing.result()
    assert found <= {3, 4}


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (np.int32, (None, 3)),
        (np.uint64, (None, 3)),
        (np.float64, (2, 3)),
        (np.int64, ()),
        (np.int64, (None,)),
        (np.int64, (3, 2)),
        (np.int64, (2, 3, 1)),
    ],
)
def test_an_array_of_another_kind_or_shape_is_damage(
    path: Path, kind: Any, shape: tuple[int | None, ...]
) -> None:
    write_arrays(path, rows=np.zeros((2, 3), dtype=np.int64))
    with pytest.raises(WorkspaceError, match=r"kept\.npz is damaged: run its job"), stored_arrays(
        path
    ) as stored:  # fmt: skip
        stored.array("rows", kind, *shape)
    write_array(path, np.zeros((2, 3), dtype=np.int64))
    with pytest.raises(WorkspaceError, match=r"kept\.npz is damaged: run its job"):
        read_array(path, kind, *shape)


def npy(header: bytes, content: bytes = b"", magic: bytes = b"\x93NUMPY\x01\x00") -> bytes:
    return magic + len(header).to_bytes(2, "little") + header + content


def header(descr: str = "'<i8'", order: str = "False", shape: str = "(2,)", end: str = " \n") -> bytes:  # fmt: skip
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}{end}".encode()


SIXTEEN = bytes(16)
DAMAGED = {
    "nothing": b"",
    "cut in its magic": b"\x93NUM",
    "cut in its header": npy(header())[:40],
    "cut": npy(header(), bytes(15)),
    "longer": npy(header(), bytes(17)),
    "another format": npy(header(), SIXTEEN, b"\x93NUMPY\x02\x00"),
    "pickled": npy(header("'|O'"), SIXTEEN),
    "of fields": npy(header("[('a', '<i8')]"), SIXTEEN),
    "of no kind": npy(header("'<i7'"), SIXTEEN),
    "of bytes": npy(header("'|S8'"), SIXTEEN),
    "of no order": npy(header(order="1"), SIXTEEN),
    "of a negative length": npy(header(shape="(-2,)"), SIXTEEN),
    "of a list": npy(header(shape="[2]"), SIXTEEN),
    "larger than memory": npy(header(shape="(99999999999, 99999999999)"), SIXTEEN),
    "deep": npy(header(shape="(" * 400 + ")" * 400), SIXTEEN),
    "with a long header": npy(header(end=" " * 2000 + "\n"), SIXTEEN),
    "with a call": npy(header(shape="(int('2'),)"), SIXTEEN),
    "with more keys": npy(header(end=" ")[:-2] + b"'a': 1, }\n", SIXTEEN),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_file_that_is_no_such_array_is_damaged(path: Path, content: bytes) -> None:
    path.write_bytes(npy(header(), SIXTEEN))
    assert read_array(path, np.int64, 2).tolist() == [0, 0]
    path.write_bytes(content)
    with pytest.raises(WorkspaceError, match=r"kept\.npz is damaged"):
        read_array(path, np.int64, None)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("rows.npy", content)
    with pytest.raises(WorkspaceError, match=r"kept\.npz is damaged"), stored_arrays(path) as stored:  # fmt: skip
        stored.array("rows", np.int64, None)


def test_what_is_compressed_missing_or_no_archive_is_damaged(path: Path) -> None:
    written: tuple[Callable[[], object], ...] = (
        lambda: np.savez_compressed(path, rows=np.zeros(1000, dtype=np.int64)),
        lambda: write_arrays(path, others=np.zeros(2, dtype=np.int64)),
        lambda: path.write_bytes(b""),
        lambda: write_array(path, np.zeros(2, dtype=np.int64)),
    )
    for write in written:
        write()
        with pytest.raises(WorkspaceError, match=r"kept\.npz is damaged"), stored_arrays(path) as stored:  # fmt: skip
            stored.array("rows", np.int64, None)


def test_a_file_that_is_not_there_is_not_damaged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), stored_arrays(tmp_path / "none.npz"):
        pass
    with pytest.raises(FileNotFoundError):
        read_array(tmp_path / "none.npy", np.int64, None)


def test_a_file_of_which_a_byte_changed_is_damaged_or_means_the_same(path: Path) -> None:
    array = np.arange(3, dtype=np.uint32)
    whole = to_bytes(rows=array)
    begin = whole.index(array.tobytes())
    for at in range(len(whole)):
        for mask in (1, 0x20, 0x80):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ mask]) + whole[at + 1 :])
            damaged = False
            try:
                with stored_arrays(path) as stored:
                    assert same(stored.array("rows", np.uint32, 3), array)
            except WorkspaceError:
                damaged = True
            assert damaged or not begin <= at < begin + array.nbytes
        path.write_bytes(whole[:at])
        with pytest.raises(WorkspaceError), stored_arrays(path) as stored:
            stored.array("rows", np.uint32, 3)


def test_nothing_else_reads_or_writes_arrays_by_numpy() -> None:
    for package in ("privacy", "connectors", "compliance", "federation"):
        for module in (ROOT / package).rglob("*.py"):
            if module.name != "stored_arrays.py":
                content = module.read_text(encoding="utf-8")
                assert not [word for word in ("np.load", "np.save") if word in content], module
