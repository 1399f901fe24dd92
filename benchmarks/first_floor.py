"""What the parts cost, each beside a peer in the same run, in CPU-seconds of this process.

Run it on a quiet machine: `make bench`. Ratios are to be quoted, absolute figures drift.
"""

import hashlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from compliance.log.note import NoteKey
from compliance.log.verifier import verify_log
from compliance.log.writer import LogWriter
from compliance.signing import SigningKey
from privacy.psi.portable import PortableEngine
from privacy.psi.two_party import receiver_blind, receiver_intersect, sender_reply
from privacy.randomness import SecretStream, new_secret
from privacy.training.gradients import GradientEngine, LogisticGradient
from privacy.training.module_gradient import ModuleGradient


def cpu(work: Callable[[], object], repeats: int = 3) -> float:
    """Return the least CPU-seconds of several runs."""
    took = []
    for _ in range(repeats):
        begun = time.process_time()
        work()
        took.append(time.process_time() - begun)
    return min(took)


def matching(count: int = 8192) -> None:
    """Two parties' CPU for one match, against plain hashing and a bare X25519 loop."""
    rows = [hashlib.sha256(str(row).encode()).digest() for row in range(count + count // 2)]
    table = np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(-1, 32)
    mine, theirs = table[:count], table[count // 2 :]
    engine = PortableEngine()

    def match() -> None:
        ours, their_secret = new_secret(), new_secret()
        sent = receiver_blind(mine, ours, engine=engine, capacity=count)
        reply = sender_reply(
            theirs, sent, their_secret, engine=engine, capacity=count, receiver_capacity=count
        )
        places = receiver_intersect(
            count, ours, reply, engine=engine, capacity=count, sender_capacity=count
        )
        if (places >= 0).sum() != count // 2:
            raise RuntimeError("the match is wrong, so its cost says nothing")

    def bare() -> None:
        """Only the four multiplications per pair of identifiers, by another library."""
        key = X25519PrivateKey.generate()
        for row in rows[:count]:
            for _ in range(4):
                key.exchange(X25519PublicKey.from_public_bytes(row))

    whole, loop = cpu(match, 2), cpu(bare, 2)
    plain = cpu(lambda: set(map(bytes, mine)) & set(map(bytes, theirs)))
    print(f"match, {count} x {count} identifiers, both parties: {1e6 * whole / count:.0f} us each")
    print(f"  against 4 bare X25519 exchanges (no hash-to-curve): x {whole / loop:.2f}")
    print(f"  against plain sets of hashes (no privacy at all):   x {whole / plain:.0f}")


def gradients(batch: int = 1024, width: int = 50) -> None:
    """Clipped gradient sums: closed form against Opacus' per-sample hooks."""
    stream = SecretStream(new_secret(), "benchmark")
    features = stream.standard_normal(batch * width).reshape(batch, width) / width**0.5
    labels = stream.bernoulli(0.2, batch).astype(np.float64)
    hooks = ModuleGradient(
        lambda: torch.nn.Linear(width, 1, bias=False).double(),
        lambda output, target: torch.nn.functional.binary_cross_entropy_with_logits(
            output.squeeze(-1), target, reduction="none"
        ),
    )
    closed = LogisticGradient(width)
    weights = np.zeros(width)

    def cost(engine: GradientEngine, times: int) -> float:
        def work() -> None:
            for _ in range(times):
                engine.clipped_gradient_sum(weights, features, labels, 1.0)

        return cpu(work) / times

    fast, slow = cost(closed, 50), cost(hooks, 5)
    rate = batch / fast / 1e3
    print(f"clipped gradients, batch {batch}, {width} columns: {rate:,.0f} k rows/CPU-s")
    print(f"  against Opacus hooks: x {slow / fast:.1f} faster")


def log(count: int = 20_000, batch: int = 256) -> None:
    """Durable appends and a full verification."""
    key = SigningKey.from_seed(new_secret())
    entries = [b'{"entry":%d}' % index for index in range(count)]
    with tempfile.TemporaryDirectory() as directory:
        begun = time.perf_counter()
        with LogWriter.open(Path(directory), origin="bench", key=key) as writer:
            for start in range(0, count, batch):
                writer.append(entries[start : start + batch])
        wrote = time.perf_counter() - begun
        verification = NoteKey("bench", key.public).to_string()
        took = cpu(lambda: verify_log(Path(directory), verification_key=verification), 1)
    print(f"log: {count / wrote:,.0f} durable entries/s at batch {batch}")
    print(f"  verifies {count / took:,.0f} entries/CPU-s")


if __name__ == "__main__":
    matching()
    gradients()
    log()
