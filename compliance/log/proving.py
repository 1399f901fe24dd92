"""Prove from the tiles of a log: that an entry is in it, that one head extends another.

Guarantees: a proof that is returned verifies against the given checkpoint; only the few tiles that
it needs are read, so that a log whose beginning was pruned still proves what its rest can.

Leaves to others: who signed the checkpoint (`policy`), how a proof travels (`receipt`, `witness`).

Sources: RFC 6962 §2.1.1 and §2.1.2 (PATH, PROOF); C2SP tlog-tiles, "Merkle Tree".
"""

from pathlib import Path

from compliance.errors import LogError
from compliance.log.checkpoint import Checkpoint
from compliance.log.merkle import (
    HASH_BYTES,
    leaf_hash,
    node_hash,
    root_hash,
    verify_consistency,
    verify_inclusion,
)
from compliance.log.tiles import TILE_WIDTH, Tile, decode_bundle, decode_tile, encode_bundle
from compliance.log.verifier import read_tile

__all__ = ["TiledTree"]

_TILE_HEIGHT = 8


class TiledTree:
    """The tree of a checkpoint, read tile by tile; each at most once."""

    def __init__(self, directory: Path, checkpoint: Checkpoint) -> None:
        self._directory = directory
        self._checkpoint = checkpoint
        self._tiles: dict[Tile, tuple[bytes, ...]] = {}

    def entry(self, index: int) -> bytes:
        """Return an entry, verified to be in the tree.

        Raises:
            LogError: there is no such entry, or it was pruned.
            LogCorruptedError: the files contradict the checkpoint.
        """
        size = self._checkpoint.tree_size
        self._require(0 <= index < size, f"entry {index}")
        position = index // TILE_WIDTH
        bundle = Tile(None, position, min(TILE_WIDTH, size - position * TILE_WIDTH))
        entry = decode_bundle(bundle, _read(self._directory, bundle))[index % TILE_WIDTH]
        self._verify_inclusion(leaf_hash(entry), index, self.inclusion_proof(index))
        return entry

    def inclusion_proof(self, index: int) -> tuple[bytes, ...]:
        """Prove that entry `index` is in the tree; lowest sibling first.

        Raises:
            LogError: there is no such entry, or it was pruned.
            LogCorruptedError: the files contradict the checkpoint.
        """
        self._require(0 <= index < self._checkpoint.tree_size, f"entry {index}")
        proof = self._path(index, 0, self._checkpoint.tree_size)
        self._verify_inclusion(self._subtree(index, index + 1), index, proof)
        return proof

    def consistency_proof(self, old: Checkpoint) -> tuple[bytes, ...]:
        """Prove that the tree begins with the one of an older checkpoint, of one entry or more.

        Raises:
            LogError: the older one is larger or empty, or what the proof needs was pruned.
            LogCorruptedError: the tree does not extend it.
        """
        size = self._checkpoint.tree_size
        proof = self.unverified_consistency_proof(old.tree_size)
        verify_consistency(
            old_size=old.tree_size,
            new_size=size,
            old_root=old.root_hash,
            new_root=self._checkpoint.root_hash,
            proof=proof,
        )
        return proof

    def unverified_consistency_proof(self, old_size: int) -> tuple[bytes, ...]:
        """Return the proof for an older tree whose root only the asker knows.

        Raises:
            LogError: as `consistency_proof`.
        """
        size = self._checkpoint.tree_size
        self._require(0 < old_size <= size, f"a tree of {old_size} entries")
        return self._proof(old_size, 0, size, whole=True)

    def _verify_inclusion(self, leaf: bytes, index: int, proof: tuple[bytes, ...]) -> None:
        verify_inclusion(
            leaf,
            index=index,
            size=self._checkpoint.tree_size,
            proof=proof,
            root=self._checkpoint.root_hash,
        )

    def _require(self, holds: bool, what: str) -> None:
        if not holds:
            raise LogError(
                f"{self._checkpoint.origin}: expected something within the "
                f"{self._checkpoint.tree_size} entries of the checkpoint, got {what}"
            )

    def _path(self, index: int, start: int, stop: int) -> tuple[bytes, ...]:
        if stop - start == 1:
            return ()
        middle = start + _split(stop - start)
        if index < middle:
            return (*self._path(index, start, middle), self._subtree(middle, stop))
        return (*self._path(index, middle, stop), self._subtree(start, middle))

    def _proof(self, old: int, start: int, stop: int, *, whole: bool) -> tuple[bytes, ...]:
        """SUBPROOF of RFC 6962 §2.1.2; `whole` says that the old root is known to the asker."""
        if old == stop:
            return () if whole else (self._subtree(start, stop),)
        middle = start + _split(stop - start)
        if old <= middle:
            return (
                *self._proof(old, start, middle, whole=whole),
                self._subtree(middle, stop),
            )
        return (*self._proof(old, middle, stop, whole=False), self._subtree(start, middle))

    def _subtree(self, start: int, stop: int) -> bytes:
        """MTH of entries `start` to `stop`, which the tree has as a node."""
        if (width := stop - start) & (width - 1):
            middle = start + _split(width)
            return node_hash(self._subtree(start, middle), self._subtree(middle, stop))
        height = width.bit_length() - 1
        level, within = divmod(height, _TILE_HEIGHT)
        first = start >> level * _TILE_HEIGHT
        row = self._tile(level, first // TILE_WIDTH)
        offset = first % TILE_WIDTH
        return root_hash(row[offset : offset + (1 << within)])

    def _tile(self, level: int, index: int) -> tuple[bytes, ...]:
        available = (self._checkpoint.tree_size >> level * _TILE_HEIGHT) - index * TILE_WIDTH
        tile = Tile(level, index, min(TILE_WIDTH, available))
        if tile not in self._tiles:
            self._tiles[tile] = decode_tile(tile, _read(self._directory, tile))
        return self._tiles[tile]


def _read(directory: Path, tile: Tile) -> bytes:
    """Read a tile, or the beginning of the full one that it has become."""
    full = directory / tile.full.path
    if tile.width == TILE_WIDTH or (directory / tile.path).exists() or not full.exists():
        return read_tile(directory, tile)
    data = read_tile(directory, tile.full)
    if tile.level is not None:
        return data[: tile.width * HASH_BYTES]
    entries = decode_bundle(tile.full, data)[: tile.width]
    return encode_bundle(entries)


def _split(width: int) -> int:
    """Return the largest power of two below `width`."""
    return 1 << (width - 1).bit_length() - 1
