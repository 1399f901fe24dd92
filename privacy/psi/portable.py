"""The engine that runs wherever libsodium does.

Guarantees: `CurveEngine` on PyNaCl, with threads: libsodium releases the interpreter lock, so two
workers keep two cores busy. Memory beyond input and output is a few hundred bytes per point of
the chunks at work.

Cost: about 30 microseconds of one core to hash a token, 34 to multiply, 10 to check a point
(Zen 4).
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from nacl.bindings import crypto_core_ed25519_add, crypto_scalarmult
from nacl.exceptions import CryptoError
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError, PeerMessageError
from privacy.psi.engine import Points, check_domain
from privacy.psi.field import (
    ELEMENT_BYTES,
    decode_elements,
    edwards_from_montgomery,
    encode_elements,
)
from privacy.psi.hash_to_curve import SUITE, encode_to_curve

__all__ = ["DOMAIN", "PortableEngine"]

DOMAIN = f"COMITY-PSI-V01-with-{SUITE}".encode()
"""Domain separation tag of this project's matches; parties with another tag never match."""

_CHUNK_ROWS = 1_024
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class PortableEngine:
    """`CurveEngine` by libsodium.

    Attributes:
        workers: threads, at least 1.
        domain: domain separation tag, 1 to 255 bytes.
        progress: told (operation, points done, points in all) as work goes on, by the caller's
            own thread.

    Raises:
        InvalidParameterError: if either is out of range.
    """

    workers: int = 2
    domain: bytes = DOMAIN
    progress: Callable[[str, int, int], None] | None = None

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise InvalidParameterError(f"expected at least 1 worker, got {self.workers}")
        check_domain(self.domain)

    @property
    def name(self) -> str:
        """What reports call the engine."""
        return "libsodium"

    def hash_to_curve(self, tokens: NDArray[np.uint8]) -> Points:
        """Hash (n, k) tokens to n points of the subgroup of prime order."""
        return _stack(
            self._in_chunks(
                "hashes to the curve",
                lambda chunk: encode_to_curve(_split(chunk), self.domain),
                tokens,
            )
        )

    def multiply(self, points: Points, scalar: bytes) -> Points:
        """Multiply each point by one clamped scalar of 32 bytes (X25519, RFC 7748 section 5).

        Raises:
            InvalidParameterError: if the scalar has another length.
            PeerMessageError: if a product is zero: that point has a low order.
        """
        if len(scalar) != ELEMENT_BYTES:
            raise InvalidParameterError(
                f"expected a scalar of {ELEMENT_BYTES} bytes, got {len(scalar)}"
            )
        return _stack(
            self._in_chunks("multiplies points", lambda chunk: _multiply(chunk, scalar), points)
        )

    def check_on_curve(self, points: Points) -> None:
        """Refuse points of the twist."""
        self._in_chunks("checks points", _check_on_curve, points)

    def _in_chunks(
        self,
        operation: str,
        work: Callable[[NDArray[np.uint8]], _Result],
        rows: NDArray[np.uint8],
    ) -> list[_Result]:
        starts = range(0, len(rows), _CHUNK_ROWS)
        results: list[_Result] = []
        with ThreadPoolExecutor(self.workers) as pool:
            for result in pool.map(work, [rows[at : at + _CHUNK_ROWS] for at in starts]):
                results.append(result)
                if self.progress is not None:
                    done = min(len(results) * _CHUNK_ROWS, len(rows))
                    self.progress(operation, done, len(rows))
        return results


def _stack(chunks: list[Points]) -> Points:
    return np.concatenate([np.empty((0, ELEMENT_BYTES), dtype=np.uint8), *chunks])


def _split(rows: NDArray[np.uint8]) -> list[bytes]:
    raw, width = rows.tobytes(), rows.shape[1]
    return [raw[row * width : (row + 1) * width] for row in range(len(rows))]


def _multiply(points: Points, scalar: bytes) -> Points:
    try:
        products = b"".join(crypto_scalarmult(scalar, point) for point in _split(points))
    except CryptoError as error:
        raise PeerMessageError(
            f"expected {len(points)} points of large order, got at least one of low order: the "
            "peer does not follow the protocol"
        ) from error
    return np.frombuffer(products, dtype=np.uint8).reshape(-1, ELEMENT_BYTES)


def _check_on_curve(points: Points) -> None:
    """Find every point's other coordinate: only points of the curve have one.

    Adding on edwards25519 recovers both summands' x (RFC 8032 section 5.1.3), so half as many
    additions as points check them all.
    """
    encoded = _split(encode_elements(edwards_from_montgomery(decode_elements(points))))
    try:
        for first, second in zip(encoded[::2], encoded[1::2] + encoded[-1:], strict=False):
            crypto_core_ed25519_add(first, second)
    except CryptoError as error:
        raise PeerMessageError(
            f"expected {len(points)} points of Curve25519, got at least one of its twist: the peer "
            "does not follow the protocol"
        ) from error
