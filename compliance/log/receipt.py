"""Receipts (C2SP tlog-proof): one entry, proved to be in a public log, checked offline.

```
c2sp.org/tlog-proof@v1
extra eyJhZ3JlZW1lbnQiOi…
index 7
gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=

comity/retailer
15
iLhJxDLzVqkv0GNjU4ql+Q7YFpUbAXuc5ti7MYkBUOU=

— comity/retailer uSaP1sXUw0nVi1rPhRn/6N0gC/0bxO0KowrqGTz9…
— comity/brand mJirIklj…
```

Guarantees: one spelling, bounded sizes; `verify` returns only what the policy accepts and the
proof leads to. Ours carry the entry itself as extra data, which the proof then authenticates.

Leaves to others: making proofs (`proving`), what an entry means (`compliance.records`).
"""

import re
from dataclasses import dataclass
from typing import Final, Self

from compliance.errors import LogCorruptedError, LogError
from compliance.log.merkle import HASH_BYTES, leaf_hash, verify_inclusion
from compliance.log.note import NOTE_LIMIT
from compliance.log.policy import Policy, PublicCheckpoint
from compliance.signing import decode_base64, encode_base64

__all__ = ["Receipt"]

_FIRST: Final = "c2sp.org/tlog-proof@v1"
_EXTRA_LIMIT: Final = 65_536
_PROOF_LIMIT: Final = 63
_LIMIT: Final = NOTE_LIMIT + 2 * _EXTRA_LIMIT
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True)
class Receipt:
    """A proof that an entry is in a log; untrusted until `verify` has returned.

    Attributes:
        index: of the entry, from 0.
        proof: the inclusion proof, lowest sibling first; at most 63 hashes.
        checkpoint: the signed and cosigned head, verbatim.
        extra: unauthenticated bytes, at most 64 KiB; the entry itself in receipts of ours.
    """

    index: int
    proof: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes | None = None

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a receipt (C2SP tlog-proof, "Format").

        Raises:
            LogCorruptedError: in every way that the bytes can depart from the format.
        """
        if len(data) > _LIMIT:
            raise LogCorruptedError(f"receipt: expected at most {_LIMIT} bytes, got {len(data)}")
        head, separator, checkpoint = data.partition(b"\n\n")
        try:
            lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError as error:
            raise LogCorruptedError("receipt: expected ASCII before the checkpoint") from error
        if not separator or lines.pop(0) != _FIRST:
            raise LogCorruptedError(
                f"receipt: expected {_FIRST!r}, the proof, an empty line, and a checkpoint"
            )
        extra = None
        if lines and lines[0].startswith("extra "):
            extra = _decode(lines.pop(0).removeprefix("extra "), "extra data")
            if len(extra) > _EXTRA_LIMIT:
                raise LogCorruptedError(f"receipt: expected extra data up to {_EXTRA_LIMIT} bytes")
        if not lines or not _INDEX.fullmatch(index := lines.pop(0).removeprefix("index ")):
            raise LogCorruptedError("receipt: expected a line with the index of the entry")
        proof = tuple(_decode(line, "inclusion proof") for line in lines)
        receipt = cls(int(index), proof, checkpoint, extra)
        if receipt.to_bytes() != data:
            raise LogCorruptedError("receipt: expected its one spelling, got another")
        if len(proof) > _PROOF_LIMIT or any(len(value) != HASH_BYTES for value in proof):
            raise LogCorruptedError(f"receipt: expected at most {_PROOF_LIMIT} hashes of 32 bytes")
        return receipt

    def to_bytes(self) -> bytes:
        """Write the receipt as `parse` reads it."""
        extra = [] if self.extra is None else [f"extra {encode_base64(self.extra)}"]
        lines = [_FIRST, *extra, f"index {self.index}", *map(encode_base64, self.proof)]
        return "\n".join(lines).encode() + b"\n\n" + self.checkpoint

    def verify(self, policy: Policy, entry: bytes | None = None) -> PublicCheckpoint:
        """Return the checkpoint under which the entry is in the log.

        1. Hash the entry: the given one, or the one that the receipt carries.
        2. The checkpoint is signed by a log of the policy, whose name is its origin.
        3. Its cosignatures are valid and meet the quorum.
        4. The proof leads from the entry to the checkpoint's root.

        Raises:
            LogCorruptedError: the checkpoint or the proof does not hold.
            NotPublicError: too few witnesses cosigned.
            LogError: there is no entry to check.
        """
        entry = self.extra if entry is None else entry
        if entry is None:
            raise LogError("the receipt carries no entry: bring it")
        leaf = leaf_hash(entry)  # 1
        public = policy.check(self.checkpoint)  # 2, 3
        size, root = public.checkpoint.tree_size, public.checkpoint.root_hash
        if self.index >= size:
            raise LogCorruptedError(f"receipt: entry {self.index} is beyond the {size} of its log")
        verify_inclusion(leaf, index=self.index, size=size, proof=self.proof, root=root)  # 4
        return public


def _decode(text: str, what: str) -> bytes:
    try:
        return decode_base64(text)
    except ValueError as error:
        raise LogCorruptedError(f"receipt: {what}: {error}") from error
