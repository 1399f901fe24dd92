"""The only source of entropy, and the streams drawn from it.

Guarantees: every random bit in the project, but one kind, comes from the operating system through
`new_secret`, or is derived from such a secret by HKDF-SHA-256 (RFC 5869) and AES-256 in counter
mode (NIST SP 800-38A). Two labels give independent streams; the same secret and label give the
same stream, so that two steps of one protocol need to keep nothing but their secret. Bytes,
uniforms, coin flips and permutations are the same on any machine. Normal deviates are the same on
one machine; between CPUs, for which numpy computes logarithm, sine and cosine differently, their
last bits may differ.

The exception: sealing a message (`privacy.encryption`) draws its one-time keys inside the
`cryptography` library, from OpenSSL's generator; the library takes them from nobody else.

Leaves to others: keeping secrets secret and destroying them when their job ends, and never using
one label for two different inputs (labels carry what they protect, see `derive_secret`).

Limits: normal deviates are double-precision Box-Muller draws from 52-bit uniforms. Their tail ends
at 8.57 standard deviations (probability outside: 1e-17), and their low bits are those of floating
point (Mironov, "On significance of the least significant bits for differential privacy", CCS
2012): releases that must withstand an attack on the low bits use discrete mechanisms.
"""

import hashlib
import os
from typing import NewType

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError

__all__ = ["SECRET_BYTES", "Secret", "SecretStream", "derive_secret", "new_secret", "seeded_secret"]

SECRET_BYTES = 32
"""Length of every secret, in bytes."""

Secret = NewType("Secret", bytes)
"""32 bytes that nobody else knows."""


def new_secret() -> Secret:
    """Draw a fresh secret from the operating system."""
    return Secret(os.urandom(SECRET_BYTES))


def seeded_secret(seed: int, label: str) -> Secret:
    """Make a secret that anybody who knows `seed` knows too: for reproducible trials only.

    Whoever calls this in place of `new_secret` gives up every guarantee that rests on the secret,
    and must say so to the user.
    """
    return Secret(hashlib.sha256(f"unsafe seed\x00{seed}\x00{label}".encode()).digest())


def derive_secret(secret: Secret, label: str) -> Secret:
    """Derive an independent secret (HKDF-SHA-256, RFC 5869, empty salt, `label` as info).

    Args:
        secret: 32 bytes.
        label: what the derived secret is for. It names the job, the step and a digest of the
            inputs, so that other inputs never meet the same stream.

    Raises:
        InvalidParameterError: if `secret` has another length or the label is empty.
    """
    if len(secret) != SECRET_BYTES:
        raise InvalidParameterError(
            f"a secret has {SECRET_BYTES} bytes, got {len(secret)}: make it with new_secret()"
        )
    if not label:
        raise InvalidParameterError("a derived secret needs a label that says what it is for")
    hkdf = HKDF(algorithm=hashes.SHA256(), length=SECRET_BYTES, salt=None, info=label.encode())
    return Secret(hkdf.derive(secret))


class SecretStream:
    """A reproducible, cryptographically strong stream under one secret and label.

    Successive calls continue the stream. Not thread-safe: one stream, one user.
    """

    def __init__(self, secret: Secret, label: str) -> None:
        key = derive_secret(secret, label)
        self._cipher = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        if count < 0:
            raise InvalidParameterError(f"cannot take {count} bytes: give a count of 0 or more")
        return self._cipher.update(bytes(count))

    def uniform(self, size: int) -> NDArray[np.float64]:
        """Return `size` numbers in (0, 1), each an odd multiple of 2⁻⁵³."""
        words = np.frombuffer(self.take(8 * size), dtype="<u8") >> np.uint64(12)
        return (words.astype(np.float64) + 0.5) * 2.0**-52

    def standard_normal(self, size: int) -> NDArray[np.float64]:
        """Return `size` independent standard normal deviates (Box and Muller 1958).

        The same on one machine; their last bits may differ between CPUs.
        """
        pairs = (size + 1) // 2
        radius = np.sqrt(-2.0 * np.log(self.uniform(pairs)))
        angle = 2.0 * np.pi * self.uniform(pairs)
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:size]

    def bernoulli(self, probability: float, size: int) -> NDArray[np.bool_]:
        """Return `size` independent coin flips that come up true with `probability`."""
        return self.uniform(size) < probability

    def permutation(self, size: int) -> NDArray[np.int64]:
        """Return a uniformly random order of 0 … size-1 (64-bit keys, sorted; ties redrawn)."""
        while True:
            keys = np.frombuffer(self.take(8 * size), dtype="<u8")
            order = np.argsort(keys, kind="stable").astype(np.int64)
            if size < 2 or bool(np.all(np.diff(keys[order]) > 0)):
                return order
