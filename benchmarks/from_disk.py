"""What the protocol of a match costs at sizes beyond memory: tokens on disk, bucket by bucket.

Two processes hold sets of tokens as a party's node holds them (`federation.matching.token_set`),
half of them shared, and match them as a job does, over a pipe: no table, no Flower, no encryption.
Measured of each: CPU-seconds, peak memory and disk, for a job's `memory_limit`. A wrong match fails
the run. Linux only.
"""

import argparse
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from match_command import match_options, measure_match, parsed
from processes import peak_bytes
from psi_peers.contest import MB, WrongMatchError, cpu

from federation.matching.token_set import MatchingSet, TokenBatch
from federation.specification import MatchSpec
from privacy.psi import (
    SenderReply,
    plan_buckets,
    receiver_blind,
    receiver_intersect,
    sender_reply,
)
from privacy.psi.engines import choose_engine
from privacy.psi.field import ELEMENT_BYTES
from privacy.randomness import derive_secret, new_secret

FRESH = multiprocessing.get_context("spawn")
SENDER, RECEIVER = "brand", "retailer"
BLOCK = 1 << 16
TOKEN_BYTES = 33


@dataclass(frozen=True)
class Usage:
    """What an owner's processes used.

    Attributes:
        cpu_seconds: of all of them.
        peak_bytes: resident memory of the largest, at its largest.
        processes: how many there were.
    """

    cpu_seconds: float
    peak_bytes: int
    processes: int


def in_processes_of_their_own(
    target: Callable[..., None], *calls: tuple[object, ...]
) -> list[Usage]:
    """Call a function several times at once, each in a fresh process; return what each used.

    Raises:
        WrongMatchError: if a call fails.
    """
    reports = []
    for arguments in calls:
        ours, theirs = FRESH.Pipe()
        FRESH.Process(target=_used_by, args=(theirs, target, *arguments), daemon=True).start()
        theirs.close()
        reports.append(ours)
    try:
        return [report.recv() for report in reports]
    except EOFError:
        raise WrongMatchError(f"{target.__name__} ended without a report") from None


def _used_by(report: Connection, target: Callable[..., None], *arguments: object) -> None:
    target(*arguments)
    report.send(Usage(time.process_time(), peak_bytes("self"), 1))


def batches(first: int, size: int) -> Iterator[TokenBatch]:
    """Yield the tokens of people `first` to `first + size`, a block at a time.

    They look like hashes; whoever has a person has the same token.
    """
    for block in range(first // BLOCK, -(-(first + size) // BLOCK)):
        tokens = np.random.default_rng(block).integers(0, 256, (BLOCK, TOKEN_BYTES), np.uint8)
        tokens[:, 0] = 1
        rows = np.arange(BLOCK) + block * BLOCK - first
        known = (rows >= 0) & (rows < size)
        yield TokenBatch(tokens[known], rows[known], np.zeros(int(known.sum()), np.int64))


def receive(folder: Path, size: int, bucket_points: int, peer: Connection) -> None:
    """Play the party that learns who is shared: its first half.

    Raises:
        WrongMatchError: it found others.
    """
    own = MatchingSet.write(folder / RECEIVER, batches(size // 2, size))
    plan = plan_buckets(size, size, bucket_points=bucket_points)
    engine, secret = choose_engine(2 * size), new_secret()
    found = []
    for bucket in range(plan.count):
        batch, scalar = own.bucket(bucket, plan.count), derive_secret(secret, f"bucket {bucket}")
        capacity = plan.receiver_capacity
        blinded = receiver_blind(batch.tokens, scalar, engine=engine, capacity=capacity)
        peer.send_bytes(blinded.ravel().data)
        tags = np.frombuffer(peer.recv_bytes(), np.uint8).reshape(capacity, -1)
        theirs = np.frombuffer(peer.recv_bytes(), np.uint8).reshape(-1, ELEMENT_BYTES)
        places = receiver_intersect(
            len(batch.tokens),
            scalar,
            SenderReply(tags, theirs),
            engine=engine,
            capacity=capacity,
            sender_capacity=plan.sender_capacity,
        )
        found.append(batch.rows[places >= 0])
        print(f"bucket {bucket + 1} of {plan.count}", file=sys.stderr)
    rows = np.sort(np.concatenate(found))
    if not np.array_equal(rows, np.arange(size - size // 2)):
        raise WrongMatchError(f"expected {size - size // 2} people, got {len(rows)} or others")


def send(folder: Path, size: int, bucket_points: int, peer: Connection) -> None:
    """Play the party that helps."""
    own = MatchingSet.write(folder / SENDER, batches(0, size))
    plan = plan_buckets(size, size, bucket_points=bucket_points)
    engine, secret = choose_engine(2 * size), new_secret()
    for bucket in range(plan.count):
        batch, scalar = own.bucket(bucket, plan.count), derive_secret(secret, f"bucket {bucket}")
        reply = sender_reply(
            batch.tokens,
            np.frombuffer(peer.recv_bytes(), np.uint8).reshape(-1, ELEMENT_BYTES),
            scalar,
            engine=engine,
            capacity=plan.sender_capacity,
            receiver_capacity=plan.receiver_capacity,
        )
        peer.send_bytes(reply.tags.ravel().data)
        peer.send_bytes(reply.blinded.ravel().data)


def play(party: str, *arguments: object) -> None:
    """Play one party."""
    (receive if party == RECEIVER else send)(*arguments)


def main(command: Sequence[str] | None = None) -> int:
    """Measure, print and keep; 1 if a match was wrong."""
    parser = match_options(
        __doc__,
        "from_disk.py --size 1000000 --memory-limit 512MiB",
        size=10_000_000,
        limit="1GiB",
        name="from-disk",
    )
    return measure_match(parsed(parser, command), measured, show)


def measured(given: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Run the protocol; return every figure."""
    bucket_points = MatchSpec(name="find", memory_limit=given.memory_limit).bucket_points
    begun, ends = time.perf_counter(), FRESH.Pipe()
    told = (scratch, given.size, bucket_points)
    used = in_processes_of_their_own(play, (SENDER, *told, ends[0]), (RECEIVER, *told, ends[1]))
    return {
        "size": given.size,
        "memory_limit": given.memory_limit,
        "bucket_points": bucket_points,
        "cpu": cpu(),
        "usage": dict(zip((SENDER, RECEIVER), map(asdict, used), strict=True)),
        "wall_seconds": time.perf_counter() - begun,
        "disk_bytes": sum(path.stat().st_size for path in (scratch / SENDER).iterdir()),
    }


def show(figures: dict[str, Any]) -> bool:
    """Print the figures."""
    size, points, disk = (figures[name] for name in ("size", "bucket_points", "disk_bytes"))
    print(f"{size:,} x {size:,} tokens in buckets of {points:,}")
    for party, one in figures["usage"].items():
        seconds, peak = one["cpu_seconds"], one["peak_bytes"] / MB
        print(f"{party:<10}{seconds:9.1f} CPU-s{peak:9.0f} MB at its peak")
    print(f"Wall: {figures['wall_seconds']:.1f} s. On disk at each: {disk / MB:.0f} MB.")
    return True


if __name__ == "__main__":
    sys.exit(main())
