"""How a process that passes large messages on gives back the memory that they took.

Two things held it, so that a SuperLink grew with every part of a match:

- A connection that has ended lies in a cycle of references, with what it carried last. Python looks
  for such cycles once as many objects are new as a fourth of all, which takes many parts.
- glibc maps a large block by itself and unmaps it when it is freed, but raises the size from which
  it does so with each one that is freed, up to 32 MiB. What is smaller lies in one of many heaps,
  between blocks that stay, and a heap gives back its end alone.

Guarantees: a block of a mebibyte or more is mapped by itself, whatever was freed; what is loaded
when `set_aside` is called is not looked at again, so that `collect` takes milliseconds.

Leaves to others: when (`service`), and what is kept (Flower). Where the C library is another, it
allocates as it does.
"""

import ctypes
import gc
from collections.abc import Mapping
from typing import Final

__all__ = ["ALLOCATOR_ENVIRONMENT", "collect", "map_large_blocks", "set_aside"]

_ARENA_MAX: Final = -8  # mallopt(3)
_MMAP_THRESHOLD: Final = -3
_ARENAS: Final = 2
_LARGE_BYTES: Final = 1 << 20

ALLOCATOR_ENVIRONMENT: Final[Mapping[str, str]] = {
    "MALLOC_ARENA_MAX": str(_ARENAS),
    "MALLOC_MMAP_THRESHOLD_": str(_LARGE_BYTES),
}
"""What has a process that is started map large blocks, too."""


def map_large_blocks() -> None:
    """Have this process map large blocks by themselves."""
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(_ARENA_MAX, _ARENAS)
        library.mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)


def set_aside() -> None:
    """Have all that is loaded stay as long as the process does."""
    gc.collect()
    gc.freeze()


def collect() -> None:
    """Let go of what lies in cycles."""
    gc.collect()
