"""HPKE in base mode over ML-KEM-768 with X25519, written out from the RFC and the drafts.

Slow and obvious, to hold `privacy.encryption` against: RFC 9180 §4 and §5.1 (labels, key schedule),
draft-connolly-cfrg-xwing-kem §5 (expansion of the seed, combiner), draft-ietf-hpke-pq (identifiers).
"""

import hashlib
import hmac

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

KEM_ID, HKDF_SHA256 = 0x647A, 1
AES_256_GCM, CHACHA20_POLY1305 = 2, 3
CIPHERS = {AES_256_GCM: AESGCM, CHACHA20_POLY1305: ChaCha20Poly1305}
ENCAPSULATION = 1088 + 32
COMBINER_LABEL = bytes.fromhex("5c2e2f2f5e5c")


def private_halves(seed: bytes) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
    expanded = hashlib.shake_256(seed).digest(96)
    return (
        MLKEM768PrivateKey.from_seed_bytes(expanded[:64]),
        X25519PrivateKey.from_private_bytes(expanded[64:]),
    )


def combine(lattice: bytes, curve: bytes, ephemeral: bytes, public: bytes) -> bytes:
    return hashlib.sha3_256(lattice + curve + ephemeral + public + COMBINER_LABEL).digest()


def decapsulate(seed: bytes, encapsulation: bytes) -> bytes:
    lattice, curve = private_halves(seed)
    ephemeral = encapsulation[1088:]
    shared = curve.exchange(X25519PublicKey.from_public_bytes(ephemeral))
    public = curve.public_key().public_bytes_raw()
    return combine(lattice.decapsulate(encapsulation[:1088]), shared, ephemeral, public)


def encapsulate(public: bytes, ephemeral: X25519PrivateKey) -> tuple[bytes, bytes]:
    """Return the shared secret and what the recipient needs to find it."""
    lattice, capsule = MLKEM768PublicKey.from_public_bytes(public[:1184]).encapsulate()
    own = ephemeral.public_key().public_bytes_raw()
    shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(public[1184:]))
    return combine(lattice, shared, own, public[1184:]), capsule + own


def key_schedule(shared_secret: bytes, info: bytes, aead: int) -> tuple[bytes, bytes]:
    """Return key and first nonce of the base mode (RFC 9180 §5.1)."""
    suite = b"HPKE" + b"".join(part.to_bytes(2) for part in (KEM_ID, HKDF_SHA256, aead))

    def extract(salt: bytes, label: bytes, material: bytes) -> bytes:
        return hmac.digest(salt, b"HPKE-v1" + suite + label + material, "sha256")

    def expand(secret: bytes, label: bytes, context: bytes, length: int) -> bytes:
        labelled = length.to_bytes(2) + b"HPKE-v1" + suite + label + context
        return hmac.digest(secret, labelled + b"\x01", "sha256")[:length]

    context = b"\0" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
    secret = extract(shared_secret, b"secret", b"")
    return expand(secret, b"key", context, 32), expand(secret, b"base_nonce", context, 12)


def unseal(seed: bytes, sealed: bytes, info: bytes, aad: bytes = b"", aead: int = 2) -> bytes:
    shared = decapsulate(seed, sealed[:ENCAPSULATION])
    key, nonce = key_schedule(shared, info, aead)
    return CIPHERS[aead](key).decrypt(nonce, sealed[ENCAPSULATION:], aad)


def seal(public: bytes, ephemeral: X25519PrivateKey, plaintext: bytes, info: bytes) -> bytes:
    shared, capsule = encapsulate(public, ephemeral)
    key, nonce = key_schedule(shared, info, AES_256_GCM)
    return capsule + AESGCM(key).encrypt(nonce, plaintext, b"")
