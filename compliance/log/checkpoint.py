"""The signed head of a log (C2SP tlog-checkpoint): which log, how many entries, which root.

```
example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5…
```

Guarantees: one spelling; a checkpoint that was opened is signed by the key of its own origin.
Extension lines are refused: nobody could audit them. Leaves to others: whether the root is that
of the entries (`verifier`), and whether two checkpoints are consistent (`merkle`).
"""

import re
from dataclasses import dataclass
from typing import Final, Self

from compliance.errors import LogCorruptedError, SignatureError
from compliance.log.merkle import EMPTY_ROOT, HASH_BYTES
from compliance.log.note import Note, NoteKey
from compliance.signing import SigningKey, decode_base64, encode_base64

__all__ = ["Checkpoint", "EmptyTreeError"]

_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}")


class EmptyTreeError(LogCorruptedError):
    """A checkpoint of no entries has another root hash than the empty tree."""


@dataclass(frozen=True)
class Checkpoint:
    """The head of a log.

    Attributes:
        origin: the log's name, also the name of the key that signs.
        tree_size: number of entries, 0 ≤ tree_size < 10¹⁹.
        root_hash: 32 bytes, the root over all of them.
    """

    origin: str
    tree_size: int
    root_hash: bytes

    def body(self) -> str:
        """Write the text that is signed: three lines."""
        return f"{self.origin}\n{self.tree_size}\n{encode_base64(self.root_hash)}\n"

    @classmethod
    def from_body(cls, text: str) -> Self:
        """Read the text of a checkpoint.

        Raises:
            LogCorruptedError: not exactly three lines in their one spelling.
        """
        lines = text.split("\n")
        if len(lines) != 4 or not lines[0] or lines[3]:
            raise LogCorruptedError(
                "checkpoint: expected three lines: origin, tree size, root hash; got "
                f"{len(lines) - 1}"
            )
        origin, size, encoded = lines[:3]
        if not _SIZE.fullmatch(size):
            raise LogCorruptedError("checkpoint: expected a tree size in plain decimal digits")
        try:
            root = decode_base64(encoded)
        except ValueError as error:
            raise LogCorruptedError(f"checkpoint: root hash: {error}") from error
        if len(root) != HASH_BYTES:
            raise LogCorruptedError(
                f"checkpoint: expected a root hash of {HASH_BYTES} bytes, got {len(root)}"
            )
        if size == "0" and root != EMPTY_ROOT:
            raise EmptyTreeError("checkpoint: expected the empty tree's root for tree size 0")
        return cls(origin, int(size), root)

    def sign(self, key: SigningKey) -> bytes:
        """Write the checkpoint as a note signed by the log's key.

        Raises:
            SignatureError: the origin cannot name a key.
        """
        return self.note(key).to_bytes()

    def note(self, key: SigningKey) -> Note:
        """Return the checkpoint as a note signed by the log's key; see `sign`."""
        return Note.sign(self.body(), {self.origin: key})

    @classmethod
    def open(cls, data: bytes, key: NoteKey) -> Self:
        """Read a signed checkpoint of the log that `key` belongs to.

        Raises:
            LogCorruptedError: malformed, not signed by `key`, or of another origin.
        """
        try:
            note = Note.parse(data)
            note.verify(key)
        except SignatureError as error:
            raise LogCorruptedError(f"checkpoint: {error}") from error
        checkpoint = cls.from_body(note.text)
        if checkpoint.origin != key.name:
            raise LogCorruptedError(
                f"checkpoint: expected origin {key.name!r}, got {checkpoint.origin!r}"
            )
        return checkpoint
