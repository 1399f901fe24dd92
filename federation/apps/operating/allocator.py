"""How a process that passes large messages on asks glibc for memory, so that it gets it back.

glibc maps a large block by itself and unmaps it when it is freed, but with each one that is freed
it raises the size from which it does so, up to 32 MiB. What is smaller then lies in one of many
heaps, between blocks that stay, and a heap gives back its end alone: a SuperLink grew with every
part of a match.

Guarantees: from here on a block of a mebibyte or more is mapped by itself, whatever was freed.

Leaves to others: what is kept (Flower). Nothing is done where the C library is another.
"""

import ctypes
from collections.abc import Mapping
from typing import Final

__all__ = ["ALLOCATOR_ENVIRONMENT", "map_large_blocks"]

_ARENA_MAX: Final = -8  # mallopt(3)
_MMAP_THRESHOLD: Final = -3
_ARENAS: Final = 2
_LARGE_BYTES: Final = 1 << 20

ALLOCATOR_ENVIRONMENT: Final[Mapping[str, str]] = {
    "MALLOC_ARENA_MAX": str(_ARENAS),
    "MALLOC_MMAP_THRESHOLD_": str(_LARGE_BYTES),
}
"""What has a process that is started do the same."""


def map_large_blocks() -> None:
    """Have this process do so."""
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(_ARENA_MAX, _ARENAS)
        library.mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
