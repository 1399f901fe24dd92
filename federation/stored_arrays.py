"""Arrays that a party stores for itself, by name or one alone, and reads again.

Guarantees: a file is whole or not at all, and its owner's alone; nothing in it is evaluated or
unpickled, so that reading is safe in many threads at once; memory is taken for no more than the
file is long; an array is of the kind and shape that its reader expects, or the file is damaged,
which is the party's own error.

Leaves to others: where files lie, and what they mean. What is not an array is kept elsewhere.

Files are numpy's: `.npy`, format 1.0, and `.npz`, a zip archive of these, not compressed
(https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html). Numpy's own reader takes
the header for Python and has `ast` parse it. CPython 3.11 and 3.12 count the depth of what `ast`
builds for all threads together, and raise `SystemError` where two of them build at once.
"""

import io
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO, Final, TypeVar
from zipfile import ZIP_STORED, ZipFile

import numpy as np
from numpy.typing import ArrayLike, NDArray

from federation.party import undamaged, write_atomically

__all__ = ["StoredArrays", "read_array", "stored_arrays", "to_bytes", "write_array", "write_arrays"]

_MAGIC: Final = b"\x93NUMPY\x01\x00"
_HEADER: Final = re.compile(
    rb"\{'descr': '([|]b1|[|][iu]1|[<>][iu][248]|[<>]f[248]|[<>]U[1-9][0-9]{0,5})', "
    rb"'fortran_order': (False|True), "
    rb"'shape': \(((?:[0-9]{1,18},|[0-9]{1,18}(?:, [0-9]{1,18}){1,7})?)\), \} *\n"
)
_LONGEST_HEADER: Final = 1024
_UNREADABLE: Final = 0x61  # flags of a zip archive's entry: encrypted, or patched
_CHUNK: Final = 1 << 20

_Kind = TypeVar("_Kind", bound=np.generic)


class StoredArrays:
    """The arrays of one file; see `stored_arrays`."""

    def __init__(self, archive: ZipFile, length: int) -> None:
        self._archive = archive
        self._length = length

    def __contains__(self, name: str) -> bool:
        """Tell whether there is an array of that name."""
        return f"{name}.npy" in self._archive.namelist()

    def array(self, name: str, kind: type[_Kind], *shape: int | None) -> NDArray[_Kind]:
        """Read an array.

        Args:
            name: its name.
            kind: of its numbers.
            shape: its lengths, None for any; none of them for a single number.

        Raises:
            KeyError: there is none of that name.
            ValueError: it is of another kind or shape.
            BadZipFile, EOFError, struct.error: the file is damaged.
        """
        found = self._read(name, kind)
        _check_shape(found.shape, shape)
        return found

    def texts(self, name: str) -> NDArray[np.str_]:
        """Read an array of texts, of whatever shape; it raises what `array` does."""
        return self._read(name, np.str_)

    def text(self, name: str) -> str:
        """Read a text; it raises what `array` does."""
        return str(self.array(name, np.str_))

    def _read(self, name: str, kind: type[_Kind]) -> NDArray[_Kind]:
        entry = self._archive.getinfo(f"{name}.npy")
        if entry.compress_type != ZIP_STORED or entry.flag_bits & _UNREADABLE:
            raise ValueError("an array is compressed or encrypted")
        if not 0 <= entry.header_offset < self._length:
            raise ValueError("an array lies outside its file")
        with self._archive.open(entry) as stream:
            return _read(stream, min(entry.file_size, self._length), kind)


@contextmanager
def stored_arrays(path: Path) -> Iterator[StoredArrays]:
    """Open what `write_arrays` wrote, or `to_bytes`; arrays are read when they are asked for.

    Raises:
        FileNotFoundError: there is no such file.
        WorkspaceError: it is damaged. So it is where whoever reads it raises `ValueError` or
            `KeyError` of it.
    """
    with undamaged(path), path.open("rb") as file, ZipFile(file) as archive:
        yield StoredArrays(archive, _length(file))


def to_bytes(**arrays: ArrayLike) -> bytes:
    """Return what a file of such arrays holds."""
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]  # they are none of its flags
    return content.getvalue()


def write_arrays(path: Path, **arrays: ArrayLike) -> None:
    """Write arrays by name, numbers and texts among them, whole or not at all.

    Raises:
        WorkspaceError, OSError: as `write_atomically`.
    """
    write_atomically(path, to_bytes(**arrays), mode=0o600)


def read_array(path: Path, kind: type[_Kind], *shape: int | None) -> NDArray[_Kind]:
    """Read what `write_array` wrote; see `StoredArrays.array`.

    Raises:
        FileNotFoundError: there is no such file.
        WorkspaceError: it is damaged.
    """
    with undamaged(path), path.open("rb") as file:
        found = _read(file, _length(file), kind)
        _check_shape(found.shape, shape)
        return found


def write_array(path: Path, array: NDArray[np.generic]) -> None:
    """Write one array, which has no name, whole or not at all.

    Raises:
        WorkspaceError, OSError: as `write_atomically`.
    """
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    write_atomically(path, content.getvalue(), mode=0o600)


def _length(file: BufferedReader) -> int:
    """Return the length of the file that is read, in whose place another may be by now."""
    return os.fstat(file.fileno()).st_size


def _read(stream: IO[bytes], length: int, kind: type[_Kind]) -> NDArray[_Kind]:
    """Read an array from a stream of `length` bytes, which holds nothing else."""
    head = stream.read(len(_MAGIC) + 2)
    size = int.from_bytes(head[len(_MAGIC) :], "little")
    if head[: len(_MAGIC)] != _MAGIC or size > _LONGEST_HEADER:
        raise ValueError("no array of format 1.0")
    header = _HEADER.fullmatch(stream.read(size))
    if header is None:
        raise ValueError("the header of an array cannot be read")
    dtype = np.dtype(header[1].decode())
    if dtype.type is not kind:
        raise ValueError(f"expected an array of {kind.__name__}, got {dtype}")
    shape = tuple(int(one) for one in header[3].split(b",") if one)
    count = math.prod(shape)
    if count * dtype.itemsize != length - len(head) - size:
        raise ValueError("an array is cut, or something follows it")
    array = np.empty(count, dtype)
    _fill(array.view(np.uint8).data, stream)
    if header[2] == b"True":
        return array.reshape(shape[::-1]).T
    return array.reshape(shape)


def _fill(room: memoryview, stream: IO[bytes]) -> None:
    """Read until there is no more room; of an archive's entry, its checksum is held then."""
    while len(room):
        part = stream.read(min(len(room), _CHUNK))
        if not part:
            raise EOFError("an array is cut")
        room[: len(part)] = part
        room = room[len(part) :]


def _check_shape(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> None:
    if len(shape) != len(expected) or any(
        wanted not in {None, length} for length, wanted in zip(shape, expected, strict=True)
    ):
        raise ValueError(f"expected an array of shape {expected}, got {shape}")
