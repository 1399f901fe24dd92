"""How a log lies on disk (C2SP tlog-tiles), and how its right edge grows; no I/O.

A tree of any size is a fixed set of files: bundles of 256 entries, and tiles of 256 hashes, where
a hash at level L is the root of 256^L entries. The last of each level may be partial, and a hash
rises to the next level only when its tile is full. Example, a log of 70,000 entries:

```
checkpoint
tile/entries/000 … tile/entries/272   tile/entries/273.p/112
tile/0/000 … tile/0/272               tile/0/273.p/112
tile/1/000                            tile/1/001.p/17
                                      tile/2/000.p/1
```

A file that a checkpoint promises is never rewritten: growth makes wider partials and new files.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Self

from compliance.errors import LogCorruptedError, LogError
from compliance.log.merkle import HASH_BYTES, fold, leaf_hash, paired, peaks, root_hash

__all__ = [
    "ENTRY_LIMIT",
    "TILE_LIMIT",
    "TILE_WIDTH",
    "CutFileError",
    "RightEdge",
    "Tile",
    "Tree",
    "decode_bundle",
    "decode_tile",
    "edge_tiles",
    "encode_bundle",
    "layout",
]

TILE_WIDTH: Final = 256
ENTRY_LIMIT: Final = 2_048
"""Bytes that one entry may have (the format itself allows 65,535)."""

_TILE_HEIGHT: Final = 8
_HIGHEST_LEVEL: Final = 63
_LENGTH_BYTES: Final = 2
TILE_LIMIT: Final = TILE_WIDTH * (_LENGTH_BYTES + ENTRY_LIMIT)
"""Bytes that the largest file under `tile/` may have."""

_PATH: Final = re.compile(
    r"tile/(entries|[0-9]{1,2})/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([0-9]{1,3}))?"
)


class CutFileError(LogCorruptedError):
    """A file of the tree has not the length that its name promises, or an entry is cut off."""


@dataclass(frozen=True)
class Tile:
    """One file of the tree.

    Attributes:
        level: of its hashes (0 to 63), or None for a bundle of entries.
        index: 0-based position among the tiles of the level.
        width: hashes or entries in it, 1 to 256; below 256 it is partial.
    """

    level: int | None
    index: int
    width: int = TILE_WIDTH

    @property
    def path(self) -> str:
        """Path below the log's directory, such as `tile/0/x001/x234/067.p/8`."""
        groups = [f"{self.index % 1000:03d}"]
        rest = self.index // 1000
        while rest:
            groups.insert(0, f"x{rest % 1000:03d}")
            rest //= 1000
        level = "entries" if self.level is None else self.level
        suffix = "" if self.width == TILE_WIDTH else f".p/{self.width}"
        return f"tile/{level}/{'/'.join(groups)}{suffix}"

    @classmethod
    def from_path(cls, path: str) -> Self | None:
        """Return the tile whose `path` this is, or None if no tile is called that."""
        match = _PATH.fullmatch(path)
        if match is None:
            return None
        level, index, width = match.groups()
        tile = cls(
            level=None if level == "entries" else int(level),
            index=int(re.sub("[x/]", "", index)),
            width=TILE_WIDTH if width is None else int(width),
        )
        in_range = 0 < tile.width <= TILE_WIDTH and (tile.level or 0) <= _HIGHEST_LEVEL
        return tile if in_range and tile.path == path else None

    @property
    def limit(self) -> int:
        """Bytes that the file may have."""
        return self.width * (HASH_BYTES if self.level is not None else _LENGTH_BYTES + ENTRY_LIMIT)

    @property
    def full(self) -> "Tile":
        """The tile that this one becomes when it is full."""
        return Tile(self.level, self.index)

    @property
    def start(self) -> int:
        """Where its first hash or entry stands within the whole level."""
        return self.index * TILE_WIDTH

    @property
    def stop(self) -> int:
        """Where the first hash or entry after it stands within the whole level."""
        return self.start + self.width

    def is_within(self, tree_size: int) -> bool:
        """Whether a tree of this size has every item of the tile."""
        return self.stop <= tree_size >> 8 * (self.level or 0)


def layout(tree_size: int) -> Iterator[Tile]:
    """Yield every file of a tree: the bundles in order, then the tiles by level, in order."""
    for level, remaining in [(None, tree_size), *_level_sizes(tree_size)]:
        for index in range(remaining // TILE_WIDTH):
            yield Tile(level, index)
        if remaining % TILE_WIDTH:
            yield Tile(level, remaining // TILE_WIDTH, remaining % TILE_WIDTH)


def edge_tiles(tree_size: int) -> list[Tile | None]:
    """Return the partial tile of each level, lowest first; None where the level has none."""
    return [
        Tile(level, remaining // TILE_WIDTH, remaining % TILE_WIDTH)
        if remaining % TILE_WIDTH
        else None
        for level, remaining in _level_sizes(tree_size)
    ]


def _level_sizes(tree_size: int) -> Iterator[tuple[int, int]]:
    level = 0
    while tree_size:
        yield level, tree_size
        level, tree_size = level + 1, tree_size // TILE_WIDTH


@dataclass(frozen=True)
class RightEdge:
    """All that is needed of a tree to extend it: the hashes in each level's partial tile.

    Attributes:
        tree_size: number of leaves.
        rows: at each level, lowest first, the 0 to 255 hashes to the right of its last full tile.
    """

    tree_size: int = 0
    rows: tuple[tuple[bytes, ...], ...] = ()

    @property
    def root_hash(self) -> bytes:
        """The root of the tree."""
        return fold([peak for row in reversed(self.rows) for peak in peaks(row)])

    def extend(self, leaf_hashes: Sequence[bytes]) -> tuple["RightEdge", dict[Tile, bytes]]:
        """Append leaves; return the new edge and the content of every tile that changed."""
        rows = list(self.rows)
        changed: dict[Tile, bytes] = {}
        arriving, level = tuple(leaf_hashes), 0
        while arriving:
            if level == len(rows):
                rows.append(())
            row = rows[level] + arriving
            first = self.tree_size >> 8 * (level + 1)
            chunks = [row[start : start + TILE_WIDTH] for start in range(0, len(row), TILE_WIDTH)]
            for index, chunk in enumerate(chunks, first):
                changed[Tile(level, index, len(chunk))] = b"".join(chunk)
            full = len(row) // TILE_WIDTH
            rows[level] = row[full * TILE_WIDTH :]
            arriving, level = tuple(map(root_hash, chunks[:full])), level + 1
        return RightEdge(self.tree_size + len(leaf_hashes), tuple(rows)), changed


class Tree:
    """The hashes that the tiles of a tree hold; few of them make the root of any beginning of it.

    Attributes:
        size: number of leaves.
    """

    def __init__(self, entries: Iterable[bytes] = ()) -> None:
        # At each level, lowest first, the hashes of all its tiles, joined.
        self._rows = [b"".join(map(leaf_hash, entries))]
        self.size = len(self._rows[0]) // HASH_BYTES
        while len(row := self._rows[-1]) >= TILE_WIDTH * HASH_BYTES:
            for _ in range(_TILE_HEIGHT):
                row = paired(row)
            self._rows.append(row)

    def root_hash(self, size: int) -> bytes:
        """Return the root of the tree of the first `size` leaves.

        Raises:
            LogError: there are fewer.
        """
        if not 0 <= size <= self.size:
            raise LogError(f"expected at most {self.size} leaves, got {size}")
        edge = []
        for level, row in enumerate(self._rows):
            stop = size >> level * _TILE_HEIGHT
            start = stop - stop % TILE_WIDTH
            edge.append(tuple(_split(row[start * HASH_BYTES : stop * HASH_BYTES])))
        return RightEdge(size, tuple(edge)).root_hash

    def content(self, tile: Tile) -> bytes:
        """Return what a file of hashes holds if the tree has it."""
        return self._rows[tile.level or 0][tile.start * HASH_BYTES : tile.stop * HASH_BYTES]


def decode_tile(tile: Tile, data: bytes) -> tuple[bytes, ...]:
    """Split a tile into its hashes.

    Raises:
        CutFileError: the file has not exactly `width` hashes of 32 bytes.
    """
    if len(data) != tile.width * HASH_BYTES:
        raise CutFileError(
            f"{tile.path}: expected {tile.width * HASH_BYTES} bytes, got {len(data)}"
        )
    return tuple(_split(data))


def _split(row: bytes) -> Iterator[bytes]:
    return (row[start : start + HASH_BYTES] for start in range(0, len(row), HASH_BYTES))


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Join entries of at most `ENTRY_LIMIT` bytes, each after its length as big-endian uint16."""
    return b"".join(len(entry).to_bytes(_LENGTH_BYTES, "big") + entry for entry in entries)


def decode_bundle(tile: Tile, data: bytes) -> tuple[bytes, ...]:
    """Split a bundle into its entries.

    Raises:
        CutFileError: the file has not exactly `width` entries within `ENTRY_LIMIT`.
    """
    entries: list[bytes] = []
    position, size, width = 0, len(data), tile.width
    while position < size and len(entries) < width:
        start = position + _LENGTH_BYTES
        position = start + int.from_bytes(data[position:start], "big")
        if position > size or position - start > ENTRY_LIMIT:
            raise CutFileError(
                f"{tile.path}: entry {tile.start + len(entries)} is cut off or longer than "
                f"{ENTRY_LIMIT} bytes"
            )
        entries.append(data[start:position])
    if len(entries) != tile.width or position != len(data):
        raise CutFileError(
            f"{tile.path}: expected exactly {tile.width} entries, got {len(entries)} and "
            f"{len(data) - position} bytes more"
        )
    return tuple(entries)
