"""The engine on vector instructions: the same bytes as the portable one, several times faster.

Guarantees: `CurveEngine` in generated code, in threads; the interpreter lock is free while they
work. Scalars meet no branch, no address and no division in that code. Memory beyond input and
output: one or two megabytes a worker.

Cost, in microseconds of one core (Zen 4) to multiply a point, hash a token, check a point: 4.7,
0.6 and 0.4 with AVX-512 IFMA; 12, 1.5 and 1.3 with AVX-512; 16, 2 and 1.5 with AVX2; 30, 3.6 and
2.7 with two lanes.

Leaves to others: choosing it and testing it before use (`privacy.psi.engines`).
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError, PeerMessageError
from privacy.psi.engine import Points, check_domain
from privacy.psi.field import ELEMENT_BYTES
from privacy.psi.portable import DOMAIN
from privacy.psi.vector.instruction_sets import InstructionSet, available
from privacy.psi.vector.program import Program, program_for
from privacy.psi.vector.sha512 import BLOCK_WORDS, suffixed_blocks

__all__ = ["VectorEngine"]

_CHUNK_ROWS = 4_096
_ALIGNMENT = 64
_UNIFORM_BYTES = 48  # L of RFC 9380 section 5.1
_DIGEST_BYTES = 64
_BASE_POINT = bytes([9]).ljust(ELEMENT_BYTES, b"\x00")  # RFC 7748 section 4.1

_Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class VectorEngine:
    """`CurveEngine` by generated code.

    Attributes:
        instruction_set: one that this processor has.
        workers: threads, at least 1.
        domain: domain separation tag, 1 to 255 bytes.
        progress: told (operation, points done, points in all) as work goes on, by the caller's
            own thread.

    Raises:
        InvalidParameterError: if one of them is out of range, or points or tokens have another
            type or shape than (n, 32) or (n, k) bytes.
    """

    instruction_set: InstructionSet
    workers: int = 2
    domain: bytes = DOMAIN
    progress: Callable[[str, int, int], None] | None = None

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise InvalidParameterError(f"expected at least 1 worker, got {self.workers}")
        check_domain(self.domain)
        if self.instruction_set not in available():
            raise InvalidParameterError(
                f"expected an instruction set of this processor ({', '.join(available())}), got "
                f"{self.instruction_set}"
            )

    @property
    def name(self) -> str:
        """What reports call the engine."""
        return f"generated code, {self.instruction_set}"

    def hash_to_curve(self, tokens: NDArray[np.uint8]) -> Points:
        """Hash (n, k) tokens to n points of the subgroup of prime order."""
        program, rows = self._program(), _rows(tokens, None)
        suffix = self.domain + bytes([len(self.domain)])
        following = _UNIFORM_BYTES.to_bytes(2, "big") + b"\x00" + suffix
        if rows.shape[1] == 0:  # an empty token takes the first byte that follows for its own
            rows = np.full((len(rows), 1), following[0], dtype=np.uint8)
            following = following[1:]
        width, lanes = rows.shape[1], self.instruction_set.lanes
        first = suffixed_blocks(width, following, hashed_bytes=8 * BLOCK_WORDS)
        second = suffixed_blocks(_DIGEST_BYTES, b"\x01" + suffix)

        def work(chunk: _Bytes, to: _Bytes, pairs: int) -> None:
            workspace = _aligned(program.workspace_bytes(pairs))
            blocks = [_in_lanes(words, lanes) for words in (first, second)]
            program.hash_tokens(
                *(to.ctypes.data, chunk.ctypes.data, width),
                *(blocks[0].ctypes.data, len(first), blocks[1].ctypes.data, len(second)),
                *(workspace.ctypes.data, pairs),
            )

        return self._in_chunks("hashes to the curve", work, rows, bytes(width))

    def multiply(self, points: Points, scalar: bytes) -> Points:
        """Multiply each point by one clamped scalar of 32 bytes (X25519)."""
        if len(scalar) != ELEMENT_BYTES:
            raise InvalidParameterError(
                f"expected a scalar of {ELEMENT_BYTES} bytes, got {len(scalar)}"
            )
        program, secret = self._program(), np.frombuffer(scalar, dtype=np.uint8)

        def work(chunk: _Bytes, to: _Bytes, pairs: int) -> None:
            workspace, zeros = _aligned(program.workspace_bytes(pairs)), _aligned(_ALIGNMENT)
            program.multiply_points(
                *(to.ctypes.data, chunk.ctypes.data, secret.ctypes.data, zeros.ctypes.data),
                *(workspace.ctypes.data, pairs),
            )
            if zeros.any():
                raise PeerMessageError(
                    f"expected {len(chunk)} points of large order, got at least one of low order: "
                    "the peer does not follow the protocol"
                )

        rows = _rows(points, ELEMENT_BYTES)
        return self._in_chunks("multiplies points", work, rows, _BASE_POINT)

    def check_on_curve(self, points: Points) -> None:
        """Refuse points of the twist."""
        program = self._program()

        def work(chunk: _Bytes, to: _Bytes, pairs: int) -> None:
            del to
            off_curve = _aligned(_ALIGNMENT)
            program.check_points(chunk.ctypes.data, off_curve.ctypes.data, pairs)
            if off_curve.any():
                raise PeerMessageError(
                    f"expected {len(chunk)} points of Curve25519, got at least one of its twist: "
                    "the peer does not follow the protocol"
                )

        self._in_chunks(
            "checks points", work, _rows(points, ELEMENT_BYTES), _BASE_POINT, writes=False
        )

    def _program(self) -> Program:
        return program_for(self.instruction_set)

    def _in_chunks(
        self,
        operation: str,
        work: Callable[[_Bytes, _Bytes, int], None],
        rows: _Bytes,
        filler: bytes,
        *,
        writes: bool = True,
    ) -> Points:
        """Do the work on chunks of whole pairs of vectors, the last one filled up."""
        results = np.empty((len(rows) if writes else 0, ELEMENT_BYTES), dtype=np.uint8)
        step = self._program().pair_points

        def work_at(start: int) -> int:
            chunk, to = rows[start : start + _CHUNK_ROWS], results[start : start + _CHUNK_ROWS]
            count = len(chunk)
            pairs, missing = -(-count // step), -count % step
            if missing:
                more = np.frombuffer(filler * missing, dtype=np.uint8).reshape(missing, -1)
                filled = np.empty((count + missing, ELEMENT_BYTES), dtype=np.uint8)
                work(np.concatenate([chunk, more]), filled, pairs)
                to[:] = filled[: len(to)]
            else:
                work(chunk, to, pairs)
            return count

        done = 0
        with ThreadPoolExecutor(self.workers) as pool:
            for count in pool.map(work_at, range(0, len(rows), _CHUNK_ROWS)):
                done += count
                if self.progress is not None:
                    self.progress(operation, done, len(rows))
        return results


def _rows(rows: NDArray[np.uint8], width: int | None) -> _Bytes:
    """Return the rows in one piece of memory, as generated code does not check what it is given."""
    if rows.dtype != np.uint8 or rows.ndim != 2 or width not in {None, rows.shape[1]}:
        expected = f"(n, {'k' if width is None else width})"
        raise InvalidParameterError(
            f"expected rows as uint8 of shape {expected}, got {rows.dtype} of shape {rows.shape}"
        )
    return np.ascontiguousarray(rows)


def _aligned(size: int) -> _Bytes:
    """Return `size` bytes of zeros where vectors may be loaded and stored."""
    raw = np.zeros(size + _ALIGNMENT, dtype=np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size]


def _in_lanes(words: NDArray[np.uint64], lanes: int) -> _Bytes:
    """Return words of a message with each in every lane."""
    repeated = np.repeat(words.reshape(-1), lanes)
    place = _aligned(repeated.nbytes)
    place.view(np.uint64)[:] = repeated
    return place
