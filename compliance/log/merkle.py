"""The Merkle tree of RFC 6962 §2.1 over SHA-256: roots, proofs, and their verification.

Guarantees: a function named `verify…` returns nothing or raises; proofs have exactly one accepted
length and hold only 32-byte hashes. Leaves to others: where hashes are stored and who signed a
root. Everything here works on leaf *hashes*; entries are hashed once by `leaf_hash`.

RFC 6962 defines the tree from the top, splitting at the largest power of two below the size. Seen
from the bottom the same tree pairs neighbours level by level and carries an odd last node up
unchanged, which is how this module walks it.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Final

from compliance.errors import LogCorruptedError, LogError

__all__ = [
    "EMPTY_ROOT",
    "HASH_BYTES",
    "consistency_proof",
    "fold",
    "inclusion_proof",
    "leaf_hash",
    "node_hash",
    "paired",
    "peaks",
    "root_hash",
    "verify_consistency",
    "verify_inclusion",
]

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = hashlib.sha256().digest()
"""The root of the tree without leaves."""

_LEAF: Final = b"\x00"
_NODE: Final = b"\x01"


def leaf_hash(entry: bytes) -> bytes:
    """Hash an entry of any length into its leaf: SHA-256(0x00 ‖ entry)."""
    return hashlib.sha256(_LEAF + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash two subtrees into their parent: SHA-256(0x01 ‖ left ‖ right)."""
    return hashlib.sha256(_NODE + left + right).digest()


def paired(row: bytes) -> bytes:
    """Hash neighbours in a row of joined hashes into a row of parents; an odd last one has none."""
    width = 2 * HASH_BYTES
    starts = range(0, len(row) // width * width, width)
    hashed = [hashlib.sha256(_NODE + row[start : start + width]).digest() for start in starts]
    return b"".join(hashed)


def peaks(hashes: Sequence[bytes]) -> list[bytes]:
    """Return the roots of the perfect subtrees that `hashes` fall into, largest (leftmost) first.

    Their sizes are the powers of two in `len(hashes)`; of no hashes there are none.
    """
    found, row = [], list(hashes)
    while row:
        if len(row) % 2:
            found.append(row.pop())
        row = list(map(node_hash, row[::2], row[1::2]))
    return found[::-1]


def fold(subtree_roots: Sequence[bytes]) -> bytes:
    """Join perfect subtrees of falling sizes (see `peaks`) into the root of the tree they make."""
    if not subtree_roots:
        return EMPTY_ROOT
    *rest, root = subtree_roots
    for left in reversed(rest):
        root = node_hash(left, root)
    return root


def root_hash(leaf_hashes: Sequence[bytes]) -> bytes:
    """Return the Merkle tree hash MTH (RFC 6962 §2.1) of leaves given by their hashes."""
    return fold(peaks(leaf_hashes))


def inclusion_proof(leaf_hashes: Sequence[bytes], index: int, size: int) -> list[bytes]:
    """Prove that leaf `index` is in the tree of the first `size` leaves (RFC 6962 §2.1.1, PATH).

    Args:
        leaf_hashes: at least `size` leaf hashes.
        index: 0 ≤ index < size.
        size: number of leaves of the tree the proof is for.

    Returns:
        The siblings met on the way up, lowest first; at most ⌈log₂ size⌉.

    Raises:
        LogError: index or size out of range.
    """
    _check_range(index, size, len(leaf_hashes))
    return _siblings(list(leaf_hashes[:size]), index)


def consistency_proof(leaf_hashes: Sequence[bytes], old_size: int, new_size: int) -> list[bytes]:
    """Prove that the first `new_size` leaves begin with the first `old_size` (RFC 6962 §2.1.2).

    Args:
        leaf_hashes: at least `new_size` leaf hashes.
        old_size: 1 ≤ old_size ≤ new_size; nothing can be proved about an empty tree.
        new_size: size of the later tree.

    Raises:
        LogError: a size out of range.
    """
    _check_range(old_size - 1, new_size, len(leaf_hashes))
    if old_size == new_size:
        return []
    index, row = old_size - 1, list(leaf_hashes[:new_size])
    while index % 2:
        index, row = index // 2, _parents(row)
    return ([row[index]] if index else []) + _siblings(row, index)


def verify_inclusion(
    leaf: bytes, *, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Return only if `proof` shows the leaf hash at `index` of the tree of `size` with `root`.

    Raises:
        LogError: index or size out of range.
        LogCorruptedError: the proof does not lead from the leaf to the root.
    """
    _check_range(index, size)
    _check_hashes(leaf, root, *proof)
    sides = list(_sides(index, size - 1))
    _check_length(proof, len(sides))
    for left, sibling in zip(sides, proof, strict=True):
        leaf = node_hash(sibling, leaf) if left else node_hash(leaf, sibling)
    if leaf != root:
        raise LogCorruptedError(
            f"entry {index} is not in the tree of size {size}: the inclusion proof leads to "
            f"another root than the expected {root.hex()}"
        )


def verify_consistency(
    *, old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Return only if `proof` shows that the new tree begins with every leaf of the old one.

    Raises:
        LogError: a size out of range; the old size 0 is, since every tree extends the empty one
            and a "proof" of it would vouch for nothing.
        LogCorruptedError: the proof does not lead to both roots.
    """
    _check_range(old_size - 1, new_size)
    _check_hashes(old_root, new_root, *proof)
    # Start at the last perfect subtree of the old tree: it is a node of both trees.
    index, last = old_size - 1, new_size - 1
    while index % 2:
        index, last = index // 2, last // 2
    growing = old_size < new_size
    sides = list(_sides(index, last)) if growing else []
    start_is_given = growing and index > 0
    _check_length(proof, len(sides) + start_is_given)
    old = new = proof[0] if start_is_given else old_root
    for left, sibling in zip(sides, proof[start_is_given:], strict=True):
        old = node_hash(sibling, old) if left else old
        new = node_hash(sibling, new) if left else node_hash(new, sibling)
    if (old, new) != (old_root, new_root):
        raise LogCorruptedError(
            f"the tree of size {new_size} does not extend the tree of size {old_size}: the "
            "consistency proof leads to other roots, so the log was rewritten or the proof is wrong"
        )


def _parents(row: list[bytes]) -> list[bytes]:
    return [*map(node_hash, row[::2], row[1::2]), *(row[-1:] if len(row) % 2 else ())]


def _siblings(row: list[bytes], index: int) -> list[bytes]:
    path = []
    while len(row) > 1:
        path += row[index ^ 1 : (index ^ 1) + 1]
        index, row = index // 2, _parents(row)
    return path


def _sides(index: int, last: int) -> Iterator[bool]:
    """Say for every sibling on the way up whether it stands on the left; `last` ends the row."""
    while last:
        if index % 2:
            yield True
        elif index < last:
            yield False
        index, last = index // 2, last // 2


def _check_range(index: int, size: int, available: int | None = None) -> None:
    if not 0 <= index < size or (available is not None and size > available):
        raise LogError(
            f"expected 0 ≤ index < size{'' if available is None else f' ≤ {available} leaves'}, "
            f"got index {index} of size {size}"
        )


def _check_hashes(*hashes: bytes) -> None:
    for value in hashes:
        if len(value) != HASH_BYTES:
            raise LogCorruptedError(f"a hash has {HASH_BYTES} bytes, got {len(value)}")


def _check_length(proof: Sequence[bytes], expected: int) -> None:
    if len(proof) != expected:
        raise LogCorruptedError(f"expected a proof of {expected} hashes, got {len(proof)}")
