"""A witness (C2SP tlog-witness): cosigns heads of others' logs, each only if it extends the last.

Guarantees: no I/O; `decide` returns what to persist, and nothing may be answered before that was
done. A witness that keeps to it never cosigns two heads of one log that contradict each other.
Two heads of one size with different roots, both signed by the log, are `Evidence` that anybody can
check: the log shows different people different things. Nothing else is: a proof that does not hold
is signed by nobody, and may be the work of whoever carried it.

Leaves to others: keeping one record a log and one request at a time (`witnessing`), HTTP, time.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from compliance.errors import (
    LogCorruptedError,
    LogError,
    NotWitnessedError,
    Objection,
    SignatureError,
)
from compliance.log.checkpoint import Checkpoint, EmptyTreeError
from compliance.log.cosignature import CosignerKey, CosigningKey
from compliance.log.merkle import EMPTY_ROOT, HASH_BYTES, verify_consistency
from compliance.log.note import NOTE_LIMIT, Note
from compliance.log.policy import LogKey, open_by_any, open_checkpoint
from compliance.signing import decode_base64, encode_base64

__all__ = [
    "REQUEST_LIMIT",
    "AddCheckpoint",
    "Cosigned",
    "Evidence",
    "SplitViewError",
    "StaleError",
    "decide",
]

_PROOF_LIMIT: Final = 63
REQUEST_LIMIT: Final = NOTE_LIMIT + 4_096
"""Bytes that an add-checkpoint request may have."""

_OLD: Final = re.compile(r"old (0|[1-9][0-9]{0,18})")


@dataclass(frozen=True)
class AddCheckpoint:
    """A request to cosign (C2SP tlog-witness, "add-checkpoint").

    Attributes:
        old_size: entries of the head that the log believes the witness has seen last.
        proof: consistency proof from it; at most 63 hashes.
        checkpoint: the signed head, verbatim.
    """

    old_size: int
    proof: tuple[bytes, ...]
    checkpoint: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a request.

        Raises:
            NotWitnessedError: malformed.
        """
        if len(data) > REQUEST_LIMIT:
            raise _malformed(f"expected at most {REQUEST_LIMIT} bytes, got {len(data)}")
        head, separator, checkpoint = data.partition(b"\n\n")
        try:
            first, *lines = head.decode("ascii").split("\n")
            proof = tuple(map(decode_base64, lines))
        except ValueError as error:
            raise _malformed("expected lines of ASCII and base64") from error
        match = _OLD.fullmatch(first)
        if not separator or match is None:
            raise _malformed("expected an old size, a proof, an empty line, and a checkpoint")
        if len(proof) > _PROOF_LIMIT or any(len(value) != HASH_BYTES for value in proof):
            raise _malformed(f"expected at most {_PROOF_LIMIT} hashes of {HASH_BYTES} bytes")
        return cls(int(match[1]), proof, checkpoint)

    def to_bytes(self) -> bytes:
        """Write the request as `parse` reads it."""
        lines = [f"old {self.old_size}", *map(encode_base64, self.proof)]
        return "\n".join(lines).encode() + b"\n\n" + self.checkpoint


@dataclass(frozen=True)
class Cosigned:
    """What a witness keeps of a log: the head that it cosigned last, and when.

    Attributes:
        checkpoint: the head.
        time: POSIX seconds.
        note: the head with the log's signatures and the witness's.
    """

    checkpoint: Checkpoint
    time: int
    note: Note

    @property
    def lines(self) -> bytes:
        """The witness's cosignature, as it is answered."""
        return self.note.signatures[-1].line.encode()

    @classmethod
    def parse(
        cls,
        data: bytes,
        keys: tuple[LogKey, ...],
        cosigner: CosignerKey,
        *,
        former: Sequence[tuple[LogKey, ...]] = (),
        former_cosigners: Sequence[CosignerKey] = (),
    ) -> Self:
        """Read what a witness keeps of a log.

        Args:
            data: the head with both signatures.
            keys: of the log; all of them signed.
            cosigner: the witness's.
            former: sets of keys that the log had before.
            former_cosigners: keys that the witness had before.

        Raises:
            LogCorruptedError: it is not signed by both.
        """
        checkpoint, note, _ = open_by_any(data, (keys, *former))
        signers = {(entry.name, entry.key_id) for entry in note.signatures}
        known = (one for one in former_cosigners if (one.name, one.key_id) in signers)
        if (cosigner.name, cosigner.key_id) not in signers:
            cosigner = next(known, cosigner)
        try:
            time = cosigner.verify(checkpoint, note)
        except SignatureError as error:
            raise LogCorruptedError(f"head of {checkpoint.origin!r}: {error}") from error
        return cls(checkpoint, time, note)


@dataclass(frozen=True)
class Evidence:
    """Two heads of one log, both signed by it, that cannot both be true.

    Attributes:
        seen: the head that the witness had cosigned, as a note.
        submitted: the request with the other head.
    """

    seen: bytes
    submitted: bytes

    @property
    def digest(self) -> str:
        """Hexadecimal SHA-256 of what the two heads say, however they were sent: names the pair.

        Raises:
            LogError: one is malformed.
        """
        try:
            notes = map(Note.parse, (self.seen, AddCheckpoint.parse(self.submitted).checkpoint))
            texts = "\n".join(note.text for note in notes)
        except SignatureError as error:
            raise LogCorruptedError(f"evidence: {error}") from error
        return hashlib.sha256(texts.encode()).hexdigest()

    def verify(
        self, keys: tuple[LogKey, ...], *, former: Sequence[tuple[LogKey, ...]] = ()
    ) -> None:
        """Return only if the log signed two heads of one size with different roots.

        Heads of different sizes prove nothing alone: the log may still bring a consistency proof.

        Args:
            keys: of the log; all of them signed each head, or all of a set of `former`.
            former: sets of keys that the log had before.

        Raises:
            LogError: they do not prove a split view.
        """
        sets = (keys, *former)
        one, *_ = open_by_any(self.seen, sets)
        other, *_ = open_by_any(AddCheckpoint.parse(self.submitted).checkpoint, sets)
        if one.tree_size != other.tree_size or one.root_hash == other.root_hash:
            raise LogError(
                f"heads of {one.origin!r} with {one.tree_size} and {other.tree_size} entries: "
                "expected one size and two roots; ask the log for a consistency proof"
            )


class SplitViewError(NotWitnessedError):
    """A log signed two roots of one size.

    Attributes:
        evidence: both heads.
    """

    def __init__(self, message: str, evidence: Evidence, stale: int | None = None) -> None:
        objection = Objection.INCONSISTENT if stale is None else Objection.CONFLICT
        super().__init__(message, objection, stale)
        self.evidence = evidence


class StaleError(NotWitnessedError):
    """The log believes that the witness has cosigned another head last.

    Attributes:
        seen: the one that it cosigned last; None if none.
    """

    def __init__(self, message: str, seen: Cosigned | None) -> None:
        size = seen.checkpoint.tree_size if seen else 0
        super().__init__(message, Objection.CONFLICT, size)
        self.seen = seen


def decide(
    request: AddCheckpoint,
    *,
    logs: tuple[LogKey, ...],
    seen: Cosigned | None,
    cosigner: CosigningKey,
    now: int,
) -> Cosigned:
    """Return the head with a cosignature, to be persisted and then answered.

    In the order of C2SP tlog-witness, "add-checkpoint":

    1. The origin is known (404), and each of its keys signed (403); the specification asks for one.
    2. The old size does not pass the new one (400).
    3. The old size is that of the head cosigned last, or 0 (409).
    4. An empty tree has the empty root, of equal sizes the roots are equal, from nothing no proof
       is given, and otherwise the proof holds (422).
    5. Time has not gone backwards since the last cosignature.

    Args:
        request: what was submitted.
        logs: keys that the log of that origin has now; none if it is unknown. A head that only
            keys signed which it had before is not cosigned, whatever it extends.
        seen: what this witness cosigned last of it, None if nothing.
        cosigner: the witness's key.
        now: POSIX seconds.

    Raises:
        NotWitnessedError: at the first step that fails; `SplitViewError`, with evidence, where the
            log signed two roots of one size; `StaleError` at 3.
        LogError: the clock went backwards; nothing was cosigned.
    """
    if not logs:  # 1
        raise NotWitnessedError(
            "add-checkpoint: no known log has this origin", Objection.UNKNOWN_LOG
        )
    try:
        checkpoint, note = open_checkpoint(request.checkpoint, logs)
    except EmptyTreeError as error:
        raise NotWitnessedError(f"add-checkpoint: {error}", Objection.INCONSISTENT) from error
    except LogCorruptedError as error:
        raise NotWitnessedError(f"add-checkpoint: {error}", Objection.UNTRUSTED) from error
    if request.old_size > checkpoint.tree_size:  # 2
        raise _malformed(
            f"old size {request.old_size} passes the checkpoint's, {checkpoint.tree_size}"
        )
    _check_consistent(request, checkpoint, seen)  # 3, 4
    if seen is not None and now < seen.time:  # 5
        raise LogError(
            f"the clock says {now}, and the last cosignature for {checkpoint.origin!r} is of "
            f"{seen.time}: set the clock; nothing was cosigned"
        )
    signature = cosigner.cosign(checkpoint, timestamp=now)
    own = {(key.name, key.key_id) for key in logs}
    kept = tuple(one for one in note.signatures if (one.name, one.key_id) in own)
    return Cosigned(checkpoint, now, Note(note.text, (*kept, signature)))


def _check_consistent(
    request: AddCheckpoint, checkpoint: Checkpoint, seen: Cosigned | None
) -> None:
    old_size, old_root = 0, EMPTY_ROOT
    if seen is not None:
        old_size, old_root = seen.checkpoint.tree_size, seen.checkpoint.root_hash
    stale = request.old_size != old_size
    if seen and old_size == checkpoint.tree_size and old_root != checkpoint.root_hash:
        raise SplitViewError(
            f"add-checkpoint: {checkpoint.origin!r} signed two roots of {old_size} entries: it "
            "shows different people different things",
            Evidence(seen.note.to_bytes(), request.to_bytes()),
            old_size if stale else None,
        )
    if stale:
        raise StaleError(
            f"add-checkpoint: {old_size} entries of {checkpoint.origin!r} were cosigned last, not "
            f"{request.old_size}",
            seen,
        )
    if old_size == 0:
        if request.proof:
            raise NotWitnessedError(
                "add-checkpoint: from an empty tree no proof is given", Objection.INCONSISTENT
            )
        return
    try:
        verify_consistency(
            old_size=old_size,
            new_size=checkpoint.tree_size,
            old_root=old_root,
            new_root=checkpoint.root_hash,
            proof=request.proof,
        )
    except LogCorruptedError as error:
        raise NotWitnessedError(
            f"add-checkpoint: {checkpoint.origin!r}: {error}; ask the log itself for its head",
            Objection.INCONSISTENT,
        ) from error


def _malformed(problem: str) -> NotWitnessedError:
    return NotWitnessedError(f"add-checkpoint: {problem}", Objection.MALFORMED)
