"""What the log costs: durable appends, time to a signed head, a full audit, a receipt.

Run it on a quiet machine: `make bench-log`. Appends are measured on the disk of this folder, since
fsync is their price; beside them the floor, one plain file that is appended to and flushed once a
batch. Other verifiers are measured on the same log.
"""

import argparse
import gc
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import rfc8785
from tlog_scales.backend import LocalBackend
from tlog_scales.reader import TilesReader

from compliance import records
from compliance.log.checkpoint import Checkpoint
from compliance.log.cosignature import CosigningKey
from compliance.log.note import Note, NoteKey
from compliance.log.policy import Group, Policy
from compliance.log.proving import TiledTree
from compliance.log.receipt import Receipt
from compliance.log.verifier import verify_log
from compliance.log.writer import LogWriter
from compliance.signing import SigningKey

KEY = SigningKey.from_seed(b"k" * 32)
ORIGIN = "comity/bench"
SECOND = CosigningKey.from_seed(ORIGIN, b"s" * 32)
VKEY = NoteKey(ORIGIN, KEY.public).to_string()


def leaf(index: int) -> records.Record:
    """Return a release, the commonest leaf."""
    return records.Release(
        time=datetime(2026, 1, 1, tzinfo=UTC),
        party="retailer",
        agreement="a" * 64,
        job="find-seeds",
        release_id=f"find-seeds/match.reply/brand/bucket-{index}",
        computation="match.reply",
        recipient="brand",
        content_digest=hashlib.sha256(b"%d" % index).hexdigest(),
        content_bytes=index,
    )


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which a share of them lies."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that a call took."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def appends(folder: Path, batch: int, batches: int) -> None:
    """Records into leaves, leaves onto the disk, under a head with both signatures."""
    made = [[leaf(row * batch + each) for each in range(batch)] for row in range(batches)]
    with (
        tempfile.TemporaryDirectory(dir=folder) as place,
        LogWriter.open(Path(place), origin=ORIGIN, key=KEY, second_key=SECOND) as log,
    ):
        took = [
            timed(lambda rows=rows: log.append(list(map(records.to_leaf, rows)))) for rows in made
        ]
    with tempfile.NamedTemporaryFile(dir=folder) as file:

        def plain(rows: list[records.Record]) -> None:
            file.write(b"".join(map(records.to_leaf, rows)))
            file.flush()
            os.fsync(file.fileno())

        floor = [timed(lambda rows=rows: plain(rows)) for rows in made]
    each = batch * batches
    print(
        f"append, batch {batch:>5}: {each / sum(took):>9,.0f} durable entries/s, "
        f"p50 {1e3 * percentile(took, 0.5):.1f} ms, p99 {1e3 * percentile(took, 0.99):.1f} ms "
        f"to a signed head; plain file, one fsync: {each / sum(floor):,.0f}/s"
    )


def canonical(count: int = 20_000) -> None:
    """Canonical JSON, beside the plain encoder."""
    made = [leaf(index) for index in range(count)]
    documents = [one.model_dump(mode="json") for one in made]
    ours = timed(lambda: list(map(records.to_leaf, made)))
    plain = timed(lambda: list(map(rfc8785.dumps, documents)))
    print(f"canonical JSON: {count / ours:,.0f} records/s; rfc8785 alone {count / plain:,.0f}/s")


def audit(folder: Path, count: int) -> None:
    """Read everything and trust nothing; then as much by another's library."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        directory = Path(place)
        with LogWriter.open(directory, origin=ORIGIN, key=KEY, second_key=SECOND) as log:
            for start in range(0, count, 16_384):
                stop = min(start + 16_384, count)
                log.append([records.to_leaf(leaf(index)) for index in range(start, stop)])
            head = log.checkpoint
        second = SECOND.public.to_string()
        took = timed(lambda: verify_log(directory, verification_key=VKEY, second_key=second))
        print(f"full audit of {count:,} entries: {took:.1f} s (signatures, every file, every hash)")
        entries = verify_log(directory, verification_key=VKEY).entries
        gc.disable()  # as the auditor does: all leaves stay
        read = timed(lambda: [records.parse_leaf(entry) for entry in entries])
        gc.enable()
        print(f"  reading every leaf, closed and canonical, on top: {read:.1f} s")
        print(f"  full audit with leaves: {took + read:.1f} s")

        def theirs() -> None:
            reader = TilesReader(LocalBackend(directory))
            reader.get_checkpoint()
            for index in range(head.tree_size):
                entry = hashlib.sha256(b"\x00" + reader.get_entry(index)).digest()
                if reader.mth(index, index + 1) != entry:
                    raise RuntimeError("the log is wrong, so its cost says nothing")
            reader.calculate_root_hash()

        print(f"  tlog-scales over the same entries: {timed(theirs):.1f} s")
        receipts(directory, head)


def receipts(directory: Path, head: Checkpoint, witnesses: int = 3, repeats: int = 200) -> None:
    """Check receipts offline, under heads that all witnesses cosigned."""
    keys = {
        f"w{one}": CosigningKey.from_seed(f"comity/w{one}", bytes([one]) * 32)
        for one in range(witnesses)
    }
    note = head.note(KEY)
    lines = tuple(key.cosign(head, timestamp=1) for key in keys.values())
    signed = Note(note.text, (*note.signatures, *lines)).to_bytes()
    public = {name: key.public for name, key in keys.items()}
    group = {"all": Group(witnesses, tuple(keys))}
    policy = Policy("all", (NoteKey(ORIGIN, KEY.public),), public, group)
    tree = TiledTree(directory, head)
    made = [
        Receipt(index, tree.inclusion_proof(index), signed, tree.entry(index)).to_bytes()
        for index in range(0, head.tree_size, max(head.tree_size // repeats, 1))
    ]
    took = [timed(lambda one=one: Receipt.parse(one).verify(policy)) for one in made]
    print(
        f"receipt, {witnesses} cosignatures: p50 {1e3 * percentile(took, 0.5):.2f} ms, "
        f"p99 {1e3 * percentile(took, 0.99):.2f} ms, {len(made[0]):,} bytes"
    )


def main() -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000, help="of the audited log")
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk to measure")
    options = parser.parse_args()
    canonical()
    for batch, batches in ((1, 100), (4, 100), (256, 60), (2_048, 20)):
        appends(options.folder, batch, batches)
    audit(options.folder, options.entries)


if __name__ == "__main__":
    main()
