"""Choose the arithmetic for private set intersection, and test generated code before its first use.

Guarantees: whichever engine is chosen gives the same bytes. Generated code is used only after it
has reproduced published vectors and the portable engine's results on random input, once per
process and instruction set; if it has not, a `VectorEngineWarning` says what failed and the
portable engine takes its place.

Leaves to others: how many threads to use, and the domain separation tag of a match, which is the
project's own here.
"""

import warnings
from collections.abc import Callable
from enum import StrEnum
from functools import cache, partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError, PeerMessageError
from privacy.psi.engine import CurveEngine
from privacy.psi.field import encode_elements
from privacy.psi.portable import PortableEngine
from privacy.randomness import SecretStream, new_secret

if TYPE_CHECKING:
    from privacy.psi.vector.instruction_sets import InstructionSet

__all__ = ["GENERATION_PAYS_FROM", "EngineKind", "VectorEngineWarning", "choose_engine"]

GENERATION_PAYS_FROM = 2**15
"""Multiplications that make up for generating code.

Loading LLVM, generating and testing take 0.7 to 1.5 seconds of one core. With each multiplication
of a match come half a hash and half a check: together 54 microseconds in the portable engine, 5
with AVX-512 IFMA, 18 with AVX2, 33 with two lanes (Zen 4). That is paid back after 15,000 to
45,000 multiplications.
"""


class EngineKind(StrEnum):
    """Every engine that there is."""

    PORTABLE = "portable"
    AVX512_IFMA = "avx512_ifma"
    AVX512 = "avx512"
    AVX2 = "avx2"
    SSE = "sse"


class VectorEngineWarning(RuntimeWarning):
    """Generated code did not pass its test; results are right, but slower to come."""


def choose_engine(
    points: int,
    *,
    workers: int = 2,
    progress: Callable[[str, int, int], None] | None = None,
    wanted: EngineKind | None = None,
) -> CurveEngine:
    """Return the engine that is likely to finish first.

    Args:
        points: about how many multiplications there will be, 0 or more.
        workers: threads, at least 1.
        progress: told (operation, points done, points in all) as work goes on.
        wanted: this engine and no other.

    Raises:
        InvalidParameterError: if a number is out of range, or this machine cannot run what is
            wanted.
    """
    if points < 0:
        raise InvalidParameterError(f"expected 0 or more points, got {points}")
    portable = PortableEngine(workers=workers, progress=progress)
    worthwhile = points >= GENERATION_PAYS_FROM if wanted is None else wanted != EngineKind.PORTABLE
    if not worthwhile:
        return portable
    kinds = _kinds()
    if wanted is not None and wanted not in kinds:
        raise InvalidParameterError(
            f"expected an engine that this machine can run ({', '.join(kinds)}), got {wanted}: "
            "leave the choice open, or install llvmlite if only the portable one is there"
        )
    kind = kinds[0] if wanted is None else wanted
    if kind == EngineKind.PORTABLE:
        return portable
    from privacy.psi.vector.engine import VectorEngine
    from privacy.psi.vector.instruction_sets import InstructionSet

    instruction_set = InstructionSet(kind)
    faults = _faults(instruction_set)
    if faults:
        warnings.warn(
            f"generated code for {kind} fails its test ({'; '.join(faults)}): using the portable "
            "engine instead",
            VectorEngineWarning,
            stacklevel=2,
        )
        return portable
    return VectorEngine(instruction_set, workers=workers, progress=progress)


def _kinds() -> tuple[EngineKind, ...]:
    """Return what this machine can run, the fastest first."""
    if find_spec("llvmlite") is None:
        return (EngineKind.PORTABLE,)
    from privacy.psi.vector.instruction_sets import available

    return (*(EngineKind(one) for one in available()), EngineKind.PORTABLE)


# RFC 7748 section 5.2: scalar, input u, output u.
_MULTIPLICATIONS = (
    (
        "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
        "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
        "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
    ),
    (
        "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
        "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
        "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
    ),
)
# RFC 9380 appendix J.4.2: message, P.x.
_HASH_DOMAIN = b"QUUX-V01-CS02-with-curve25519_XMD:SHA-512_ELL2_NU_"
_HASHES = (
    (b"", 0x1BB913F0C9DAEFA0B3375378FFA534BDA5526C97391952A7789EB976EDFE4D08),
    (b"abc", 0x7C22950B7D900FA866334262FCAEA47A441A578DF43B894B4625C9B450F9A026),
    (b"abcdef0123456789", 0x31AD08A8B0DEEB2A4D8B0206CA25F567AB4E042746F792F4B7973F3AE2096C52),
    (b"q128_" + b"q" * 128, 0x027877759D155B1997D0D84683A313EB78BDB493271D935B622900459D52CEAA),
)
_RANDOM_ROWS = 67  # every lane of several vectors, and a last one that is not full
_TOKEN_BYTES = 33
_TWIST_POINT = encode_elements([2])
_LOW_ORDER_POINT = encode_elements([1])


@cache
def _faults(instruction_set: "InstructionSet") -> tuple[str, ...]:
    """Return what generated code gets wrong."""
    from privacy.psi.vector.engine import VectorEngine

    try:
        engine = VectorEngine(instruction_set, workers=1)
        vectors = VectorEngine(instruction_set, workers=1, domain=_HASH_DOMAIN)
        tests = {
            "RFC 7748 section 5.2": _multiplies_as_published(engine),
            "RFC 9380 appendix J.4.2": _hashes_as_published(vectors),
            "random points": _equals(engine, PortableEngine(workers=1)),
            "points to refuse": _refuses(engine),
        }
    except RuntimeError as error:  # LLVM's, or a bound that does not hold
        return (f"it cannot be generated: {error}",)
    return tuple(name for name, passed in tests.items() if not passed)


def _multiplies_as_published(engine: CurveEngine) -> bool:
    return all(
        engine.multiply(_row(bytes.fromhex(u)), bytes.fromhex(scalar)).tobytes().hex() == product
        for scalar, u, product in _MULTIPLICATIONS
    )


def _hashes_as_published(engine: CurveEngine) -> bool:
    return all(
        np.array_equal(engine.hash_to_curve(_row(message)), encode_elements([point]))
        for message, point in _HASHES
    )


def _equals(engine: CurveEngine, oracle: CurveEngine) -> bool:
    stream = SecretStream(new_secret(), "test of generated code")
    tokens = _row(stream.take(_RANDOM_ROWS * _TOKEN_BYTES)).reshape(_RANDOM_ROWS, -1)
    scalar, points = stream.take(32), oracle.hash_to_curve(tokens)
    return np.array_equal(engine.hash_to_curve(tokens), points) and np.array_equal(
        engine.multiply(points, scalar), oracle.multiply(points, scalar)
    )


def _refuses(engine: CurveEngine) -> bool:
    """Return whether bad points are refused in every lane, and good ones are not."""
    good = np.repeat(_row(bytes.fromhex(_MULTIPLICATIONS[0][2])), 16, axis=0)
    if _refused(partial(engine.check_on_curve, good)):
        return False
    for lane in range(len(good)):
        twist, low = good.copy(), good.copy()
        twist[lane], low[lane] = _TWIST_POINT, _LOW_ORDER_POINT
        if not _refused(partial(engine.check_on_curve, twist)):
            return False
        if not _refused(partial(engine.multiply, low, bytes(32))):
            return False
    return True


def _refused(act: Callable[[], object]) -> bool:
    try:
        act()
    except PeerMessageError:
        return True
    return False


def _row(raw: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(raw, dtype=np.uint8).reshape(1, -1)
