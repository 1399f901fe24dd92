"""Forget the beginning of a log (C2SP tlog-tiles, "Pruning"): its tree and name stay as they are.

Guarantees: only full files that end at or before the minimum index are removed, and everything at
or after it can still be proved: its entries, roots of trees that are as large, proofs of inclusion
and consistency; pruning again with the same index, also after a crash, ends where it would have.

Leaves to others: whether the log may be pruned (without an agreed rule it MUST NOT be), and a copy
of what is removed. A pruned log can no longer be audited from its first leaf: `verify_log` refuses
it, and `proving` proves what is left.
"""

from pathlib import Path

from compliance.errors import LogError
from compliance.log.checkpoint import Checkpoint
from compliance.log.files import Files, LocalFiles
from compliance.log.tiles import TILE_WIDTH
from compliance.log.verifier import find_tiles

__all__ = ["prune"]


def prune(
    directory: Path, checkpoint: Checkpoint, minimum_index: int, *, files: Files | None = None
) -> int:
    """Remove what only entries before `minimum_index` need; return how many files.

    Args:
        directory: the log's.
        checkpoint: its head, verified.
        minimum_index: 0 ≤ minimum_index ≤ tree size.
        files: does the removing; this machine's file system if None.

    Raises:
        LogError: the index is out of range, or a file cannot be removed.
    """
    if not 0 <= minimum_index <= checkpoint.tree_size:
        raise LogError(
            f"expected a minimum index of 0 to {checkpoint.tree_size}, the entries of "
            f"{checkpoint.origin!r}, got {minimum_index}"
        )
    files = files or LocalFiles()
    removed = 0
    try:
        for path, tile in sorted(find_tiles(directory), key=lambda found: found[0]):
            if tile is None or tile.width < TILE_WIDTH:
                continue
            if tile.stop << 8 * (tile.level or 0) <= minimum_index:  # its end index
                files.remove(directory / path)
                removed += 1
    except OSError as error:
        raise LogError(f"{directory}: cannot be pruned: {error.strerror or error}") from error
    return removed
