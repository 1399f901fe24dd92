"""Read a log as a stranger would: every file, against one signed checkpoint and nothing else.

Guarantees: when `verify_log` returns, the checkpoint is signed by the given key, its root is that
of exactly the returned entries, and every file that it promises (and every narrower partial tile
left from earlier) holds exactly the bytes that those entries imply. Files beyond the checkpoint
are an append in flight or cut short; they are promised by nobody and not read.

Leaves to others: whether two checkpoints of the log are consistent (keep the last one you saw and
ask `merkle.verify_consistency`; a single reading cannot know of entries hidden from it), and what
the entries mean (`compliance.records`). It reads while a writer writes. It never imports it.
"""

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Final

from compliance.errors import LogCorruptedError, LogError
from compliance.log.checkpoint import Checkpoint
from compliance.log.cosignature import CosignerKey, open_head
from compliance.log.note import NOTE_LIMIT, NoteKey
from compliance.log.tiles import (
    TILE_WIDTH,
    CutFileError,
    Tile,
    Tree,
    decode_bundle,
    decode_tile,
    encode_bundle,
    layout,
)

__all__ = [
    "FileMissingError",
    "VerifiedLog",
    "find_tiles",
    "read_checkpoint",
    "read_public",
    "read_regular",
    "read_tile",
    "verify_log",
]

CHECKPOINT_PATH: Final = "checkpoint"
_PUBLIC_PATH: Final = "witness/public"
_ATTEMPTS: Final = 5


class FileMissingError(LogCorruptedError):
    """A file that a log promises is not there."""


@dataclass(frozen=True)
class VerifiedLog:
    """What a log proves.

    Attributes:
        origin: the log's name.
        tree_size: number of entries.
        root_hash: 32 bytes.
        entries: every entry, in order; an entry's index is its position.
        signed: the checkpoint, verbatim.
        tree: of the entries.
    """

    origin: str
    tree_size: int
    root_hash: bytes
    entries: tuple[bytes, ...]
    signed: bytes
    tree: Tree


def verify_log(
    directory: Path, *, verification_key: str, second_key: str | None = None
) -> VerifiedLog:
    """Read and check the whole log in `directory`.

    Args:
        directory: holds `checkpoint` and `tile/`.
        verification_key: the log's key string `origin+key id+base64`, from a trusted source such
            as the signed agreement.
        second_key: the key string of its ML-DSA-44 key; where given, both must have signed.

    Raises:
        SignatureError: a key string itself is malformed.
        LogCorruptedError: a file is missing, altered, cut, or unknown; the message names it, and
            the index of the entry where there is one.
        LogError: a file cannot be read.
    """
    key = NoteKey.from_string(verification_key)
    second = None if second_key is None else CosignerKey.from_string(second_key)
    for _ in range(_ATTEMPTS):
        signed = read_checkpoint(directory)
        try:
            return _verify(directory, signed, open_head(signed, key, second))
        except LogCorruptedError:
            # A writer that publishes meanwhile may remove partial tiles that have become full.
            if read_checkpoint(directory) == signed:
                raise
    raise LogError(f"{directory}: the log grew {_ATTEMPTS} times while it was read: read a copy")


def read_checkpoint(directory: Path) -> bytes:
    """Read the signed checkpoint, unverified.

    Raises:
        FileMissingError: there is none.
        LogError: it cannot be read.
    """
    return _required(directory, CHECKPOINT_PATH, NOTE_LIMIT)


def read_public(directory: Path) -> bytes:
    """Read the last head that witnesses cosigned, unverified.

    Raises:
        FileMissingError: there is none.
        LogError: it cannot be read.
    """
    return _required(directory, _PUBLIC_PATH, NOTE_LIMIT)


def read_tile(directory: Path, tile: Tile) -> bytes:
    """Read one file of the tree, unverified.

    Raises:
        FileMissingError: it is missing.
        LogError: it cannot be read.
    """
    return _required(directory, tile.path, tile.limit)


def find_tiles(directory: Path) -> Iterator[tuple[str, Tile | None]]:
    """Yield every file under `tile/` with the tile that its name stands for, if any.

    Raises:
        LogError: a directory cannot be listed.
    """

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise LogError(f"{directory}: cannot list the log: {error.strerror}") from error

    for parent, _, names in os.walk(directory / "tile", onerror=refuse):
        within = Path(parent).relative_to(directory).as_posix()
        for name in names:
            path = f"{within}/{name}"
            yield path, Tile.from_path(path)


def read_regular(path: Path, most: int) -> bytes:
    """Read at most `most` bytes of a regular file, and never wait for what is none.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """

    def at_once(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))  # a FIFO waits for its writer

    with open(path, "rb", opener=at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return file.read(most)


def _required(directory: Path, path: str, limit: int) -> bytes:
    """Read a file of a log that has to be there."""
    data = _read(directory, path, limit)
    if data is None:
        raise FileMissingError(f"{path}: missing from {directory}")
    return data


def _read(directory: Path, path: str, limit: int) -> bytes | None:
    try:
        data = read_regular(directory / path, limit + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise LogError(f"{path}: cannot read it in {directory}: {error.strerror}") from error
    if len(data) > limit:
        raise LogCorruptedError(f"{path}: expected at most {limit} bytes, got more")
    return data


def _verify(directory: Path, signed: bytes, checkpoint: Checkpoint) -> VerifiedLog:
    size = checkpoint.tree_size
    bundles = takewhile(lambda tile: tile.level is None, layout(size))
    entries = tuple(
        entry for tile in bundles for entry in decode_bundle(tile, read_tile(directory, tile))
    )
    tree = Tree(entries)
    if tree.root_hash(size) != checkpoint.root_hash:
        raise _blame(directory, checkpoint, tree)

    def implied(tile: Tile) -> bytes:
        if tile.level is None:
            return encode_bundle(entries[tile.start : tile.stop])
        return tree.content(tile)

    promised = dict.fromkeys(layout(size))
    for tile in promised:
        if tile.level is not None:
            _check(tile, read_tile(directory, tile), implied(tile))
    for path, found in find_tiles(directory):
        if found is None:
            raise LogCorruptedError(f"{path!r}: no file of a log is called that")
        if found not in promised and found.is_within(size):
            data = _read(directory, path, found.limit)
            if data is not None:  # a superseded partial tile may vanish at any time
                _check(found, data, implied(found))
    return VerifiedLog(checkpoint.origin, size, checkpoint.root_hash, entries, signed, tree)


def _check(tile: Tile, data: bytes, expected: bytes) -> None:
    """Refuse `data` if it is not the content that the entries imply."""
    if data != expected:
        leaves = TILE_WIDTH ** (tile.level or 0)
        kind = CutFileError if len(data) < len(expected) else LogCorruptedError
        raise kind(
            f"{tile.path}: differs from what entries {tile.start * leaves} to "
            f"{tile.stop * leaves - 1} imply, whose root is the signed one"
        )


def _blame(directory: Path, checkpoint: Checkpoint, tree: Tree) -> LogCorruptedError:
    """Find the first entry that its level-0 tile contradicts, now that the root is wrong."""
    for tile in layout(checkpoint.tree_size):
        if tile.level == 0:
            implied = decode_tile(tile, tree.content(tile))
            promised = decode_tile(tile, read_tile(directory, tile))
            for index, (own, other) in enumerate(
                zip(implied, promised, strict=True), start=tile.start
            ):
                if own != other:
                    bundle = Tile(None, tile.index, tile.width)
                    return LogCorruptedError(
                        f"{bundle.path}: entry {index} is not the one whose hash stands in "
                        f"{tile.path}, and the entries do not have the signed root"
                    )
    return LogCorruptedError(
        f"{CHECKPOINT_PATH}: expected the root hash {checkpoint.root_hash.hex()} of "
        f"{checkpoint.tree_size} entries, got entries and tiles that agree on another"
    )
