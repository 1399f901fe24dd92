"""Which vector instructions code is generated for, and which this processor has.

Guarantees: importing this module loads no code generator; asking what the processor has does.
"""

import sys
from enum import StrEnum
from functools import cache

__all__ = ["InstructionSet", "available"]


class InstructionSet(StrEnum):
    """Vector instructions, the fastest first."""

    AVX512_IFMA = "avx512_ifma"
    AVX512 = "avx512"
    AVX2 = "avx2"
    SSE = "sse"
    """Two lanes: SSE2 on x86-64, and whatever other processors have, such as NEON."""

    @property
    def lanes(self) -> int:
        """64-bit words that one instruction handles."""
        return _LANES[self]


_LANES = {
    InstructionSet.AVX512_IFMA: 8,
    InstructionSet.AVX512: 8,
    InstructionSet.AVX2: 4,
    InstructionSet.SSE: 2,
}

# What the x86-64 levels v3 and v4 of the System V psABI add, in LLVM's words.
_LEVEL_3 = frozenset({"avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe"})
_LEVEL_4 = _LEVEL_3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_NEEDED = {
    InstructionSet.AVX512_IFMA: _LEVEL_4 | {"avx512ifma"},
    InstructionSet.AVX512: _LEVEL_4,
    InstructionSet.AVX2: _LEVEL_3,
    InstructionSet.SSE: frozenset[str](),
}


@cache
def available() -> tuple[InstructionSet, ...]:
    """Return what this processor and its operating system support, the fastest first.

    Raises:
        ImportError: if llvmlite is not installed.
    """
    from llvmlite import binding

    if sys.byteorder != "little":
        return ()  # words and bytes share memory in generated code
    try:
        features = {name for name, present in binding.get_host_cpu_features().items() if present}
    except RuntimeError:  # LLVM cannot tell on this platform
        features = set()
    return tuple(one for one in InstructionSet if features >= _NEEDED[one])
